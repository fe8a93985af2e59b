"""Envelopes that are well formed: they open, or are refused only as not yet openable."""

import json
import unicodedata

import maker
import primitives as pr
from maker import (AGENT, BOB, CARD, CAROL, CONTENT, OPS, OTHER_AGENT, OTHER_SRK, PASSWORD, PBKDF2, SIGNER,
                   Ecdh, Envelope, Password, Path, Rsa, Shares, Tpm2, rnd)
from scenario import Vector, opens, world


def one_factor():
    yield opens("valid_password_argon2id", "one path with an Argon2id password", record=True)
    yield opens("valid_password_pbkdf2", "one path with a PBKDF2 password",
                Path("password", Password(**PBKDF2)), record=True)
    yield opens("valid_rsa_sha256", "an RSA token, OAEP with SHA-256", Path("ops", Rsa()), record=True)
    yield opens("valid_rsa_sha1", "an RSA token, OAEP with SHA-1", Path("ops", Rsa(alg="RSA-OAEP")))
    yield opens("valid_ecdh", "a P-256 token", Path("card", Ecdh()), record=True)
    yield opens("valid_tpm2", "a TPM alone: auth false, noDA set", Path("tpm", Tpm2()), record=True)


def combinations():
    yield opens("valid_rsa_and_password", "a token and a password, both needed",
                Path("ops", Rsa(), Password()), record=True)
    yield opens("valid_ecdh_and_password", "a P-256 token and a PBKDF2 password",
                Path("card", Ecdh(), Password(**PBKDF2)))
    yield opens("valid_password_and_tpm2", "a password that is stretched and then demanded by the TPM",
                Path("tpm", Password(), Tpm2()), record=True)
    yield opens("valid_rsa_and_tpm2", "a token and a TPM without a password: auth false",
                Path("ops-tpm", Rsa(), Tpm2()))
    yield opens("valid_rsa_password_and_tpm2", "token, password and TPM in one path",
                Path("all", Rsa(), Password(), Tpm2()), record=True)
    yield opens("valid_two_tokens", "an RSA and a P-256 token, both needed", Path("two", Rsa(), Ecdh()))
    yield opens("valid_two_tokens_ecdh_first", "pkcs11 factors stand in any order among themselves",
                Path("two", Ecdh(), Rsa()))
    yield opens("valid_two_rsa_tokens", "two RSA tokens with different hashes",
                Path("two", Rsa(), Rsa(BOB, "RSA-OAEP", "bob")))
    yield opens("valid_four_factors", "two tokens, a password and a TPM",
                Path("all", Rsa(), Ecdh(), Password(), Tpm2()))
    made = Envelope(Path("card", Ecdh()))
    yield Vector("valid_token_among_others", "ok", "the token with the factor's spki is not the only one present",
                 made, path="card", password=None, tokens=[OPS, CAROL, CARD])


def several_paths():
    paths = [Path("ops", Rsa()), Path("card", Ecdh(), Password()), Path("tpm", Password(), Tpm2())]
    for use in ("ops", "card", "tpm"):
        yield opens("valid_three_paths_by_" + use, "each of three paths opens the same key: by " + use,
                    *paths, use=use)
    yield opens("valid_max_paths", "sixteen paths, the last one is opened",
                *[Path("p%d" % i, Password()) for i in range(15)], Path("Last._-path_id16", Password()),
                use="Last._-path_id16")
    yield opens("valid_same_token_in_two_paths", "one spki may serve in several paths",
                Path("a", Rsa()), Path("b", Rsa(), Password()), use="b")
    yield opens("valid_other_host_tpm_beside", "a path of another TPM does not hinder the others",
                Path("tpm", Tpm2(srk=OTHER_SRK, host="db2")), Path("password", Password()), use="password")
    made = Envelope()
    yield Vector("valid_verified_only", "ok", "signature and header are good; no path is opened", made,
                 path=None, password=None)


def passwords():
    nfc = "Zürich-Ångström-é"
    made = Envelope(Path("password", Password(nfc)))
    yield Vector("valid_password_nfd", "ok", "a password typed in NFD opens what its NFC form closed", made,
                 password=unicodedata.normalize("NFD", nfc))
    yield Vector("valid_password_nfc", "ok", "the same password typed in NFC", made, password=nfc)
    hangul = "\uac01 \ufb01"  # NFC composes jamo and leaves the compatibility ligature alone
    yield Vector("valid_password_hangul", "ok", "conjoining jamo compose; a compatibility ligature stays",
                 Envelope(Path("password", Password(hangul))), password=unicodedata.normalize("NFD", hangul))
    yield opens("valid_password_one_byte", "the shortest password", Path("password", Password("x")))
    yield opens("valid_password_127_bytes", "the longest password", Path("password", Password("p" * 127)))
    long = "é" * 63 + "x"  # 127 bytes in NFC, 190 in NFD
    yield Vector("valid_password_127_bytes_after_nfc", "ok", "the length is that of the NFC form",
                 Envelope(Path("password", Password(long))), password=unicodedata.normalize("NFD", long))
    yield opens("valid_password_spaces_and_controls", "spaces, a tab and an LF belong to the password",
                Path("password", Password(" a\tb\n")))


def framing():
    yield opens("valid_trailing_lf", "one LF at the end of the file", file=lambda b: b + b"\n")
    yield opens("valid_l0_member_order", "L0's members in another order",
                l0=lambda v: dict(reversed(v.items())))
    yield opens("valid_spaces_everywhere", "spaces wherever JSON allows them, in L0, P, L1 and H",
                l0_text=_spaced, l1_text=_spaced, header_text=_spaced, p_text=_spaced)
    yield opens("valid_member_order", "members in reverse order in every object",
                l0=_reversed, l1=_reversed, p=_reversed, header=_reversed)
    yield opens("valid_high_s", "a high S is accepted", signature=_high_s)
    yield opens("valid_file_max", "the file is exactly 3 MiB, with its LF",
                file=lambda b: b + b" " * (3 * 1024 * 1024 - 1 - len(b)) + b"\n")
    yield opens("valid_l1_max", "L1 is exactly 2 MiB", l1_text=lambda t: t + " " * (2 * 1024 * 1024 - len(t)))
    yield opens("valid_header_max", "H is exactly 256 KiB", header_text=lambda t: t + " " * (256 * 1024 - len(t)))


def _spaced(text):
    return " " + json.dumps(json.loads(text), separators=("  ,  ", " :  ")).replace("{", " { ").replace(
        "}", " } ").replace("[", "[ ").replace("]", " ]") + "  "


def _reversed(value):
    if isinstance(value, dict):
        return {k: _reversed(v) for k, v in reversed(value.items())}
    return [_reversed(v) for v in value] if isinstance(value, list) else value


def _high_s(signature):
    s = int.from_bytes(signature[32:], "big")
    return signature[:32] + max(s, pr.N - s).to_bytes(32, "big")


def header_members():
    yield opens("valid_content_one_byte", "the shortest protected key", content=b"\0")
    yield opens("valid_content_15_bytes", "content that fills its block but for one byte", content=rnd("15", 15))
    yield opens("valid_content_16_bytes", "content of whole blocks: the padding is a block", content=rnd("16", 16))
    yield opens("valid_content_128_kib", "128 KiB of content; its ciphertext is zeros but for the last block",
                ciphertext=lambda key, iv: _zero_ciphertext(key, iv, 2**17))
    made = Envelope(ciphertext=lambda key, iv: _zero_ciphertext(key, iv, 2**20))
    yield Vector("valid_content_max", "ok", "1 MiB of content: the longest ciphertext; read, not opened", made,
                 path=None, password=None)
    yield opens("valid_key_name_segments", "key_name with many segments, dots and dashes",
                key_name="a/.b/..c/d./-/_/0/...")
    yield opens("valid_key_name_max", "key_name of 128 bytes", key_name="a" * 63 + "/" + "b" * 64)
    yield opens("valid_note", "a note of 1024 characters", members={"note": "note [{: " + "n" * 1015})
    yield opens("valid_note_empty", "an empty note", members={"note": ""})
    yield opens("valid_revision_2", "revision 2 names the previous envelope's hash",
                members={"revision": 2, "previous": pr.b64u(Envelope().hash), "updated": "2026-02-01T00:00:00Z"})
    yield opens("valid_versions_max", "key_version and revision of 2^31-1", key_version=2**31 - 1,
                members={"revision": 2**31 - 1, "previous": pr.b64u(Envelope().hash)})
    yield opens("valid_dates_edges", "29 February of a leap year, and the last second of a day",
                members={"created": "2024-02-29T00:00:00Z", "updated": "2026-12-31T23:59:59Z"})
    yield opens("valid_names_max", "policy and host of 64 characters", host="h" * 64,
                members={"policy": "P._-" + "9" * 60})
    yield opens("valid_uri_forms", "a URI with all seven attributes, an empty value and %XX",
                Path("ops", Rsa(uri="pkcs11:token=a%20b%3b;manufacturer=;serial=0000;model=(x)*+,='!$:@[];"
                                    "object=a&b;id=%00%fF;type=private")))
    yield opens("valid_uri_max", "a URI of 512 bytes", Path("ops", Rsa(uri="pkcs11:object=" + "o" * 498)))


def _zero_ciphertext(key, iv, size):
    """(ciphertext, content) of this size, chosen so that both are regular and the file packs well."""
    first = pr.aes_cbc(key, iv, bytes(16), False)
    block = pr.aes_cbc(key, bytes(16), bytes(16), False)
    last = pr.aes_cbc(key, bytes(16), bytes([16]) * 16, True)
    return bytes(size) + last, first + block * (size // 16 - 1)


def kdf_edges():
    salt = maker.SALT
    yield opens("valid_argon2id_t1", "one pass with the smallest memory that it permits",
                Path("password", Password(kdf="argon2id", salt=salt, t=1, m=47104, p=1)))
    yield opens("valid_argon2id_p16", "sixteen lanes", Path("password", Password(
        kdf="argon2id", salt=salt, t=2, m=19456, p=16)))
    yield opens("valid_argon2id_t32", "thirty-two passes", Path("password", Password(
        kdf="argon2id", salt=salt, t=32, m=19456, p=1)))
    made = Envelope(header=lambda h: h["paths"][0]["factors"][0].update(m=4194304, t=8))
    yield Vector("valid_argon2id_largest", "ok", "m, and t times m, at their caps; read, not opened", made,
                 path=None, password=None)
    made = Envelope(header=lambda h: h["paths"].__setitem__(0, dict(h["paths"][0], factors=[
        {"type": "password", **PBKDF2, "iter": 20000000}])))
    yield Vector("valid_pbkdf2_largest", "ok", "the largest iteration count; read, not opened", made, path=None,
                 password=None)


def tpm2_forms():
    yield opens("valid_tpm2_pcrs", "bound to PCRs 0 and 7", Path("tpm", Password(), Tpm2("sha256:0,7")),
                record=True)
    yield opens("valid_tpm2_pcrs_no_password", "bound to PCRs, auth false", Path("tpm", Tpm2("sha256:23")))
    yield opens("valid_tpm2_all_pcrs", "all 24 PCRs", Path("tpm", Tpm2(
        "sha256:" + ",".join(map(str, range(24))))))
    yield opens("valid_tpm2_signer", "bound to policies that a key signs",
                Path("tpm", Password(), Tpm2("sha256:7", signer=SIGNER)), record=True)
    yield opens("valid_tpm2_seed", "wrapped offline for another host, with a password",
                Path("tpm", Password(), Tpm2(seed=True, host="db2")), record=True)
    yield opens("valid_tpm2_seed_no_password", "wrapped offline, auth false", Path("tpm", Tpm2(seed=True)))
    for size in (1, 510):
        yield opens("valid_tpm2_private_%d" % size, "TPM2B_PRIVATE that holds %d bytes" % size, Path("tpm", Tpm2()),
                    header=lambda h: h["paths"][0]["factors"][0].update(
                        private=pr.b64u(size.to_bytes(2, "big") + rnd("private", size))))


def trust_scopes():
    made = Envelope()
    for name, scope, comment in (
            ("hosts", "hosts=web*,db1", "the host is among the trusted patterns"),
            ("host_star", "hosts=*", "one star stands for any host"),
            ("keys", "keys=prod/db/orders", "the key's name is trusted as it is"),
            ("keys_star", "keys=prod/*/orders", "a star within a segment"),
            ("keys_two_stars", "keys=test/*,prod/**", "two stars span segments"),
            ("both", "hosts=db* keys=prod/db/*", "host and key name are both within scope")):
        yield Vector("valid_trust_" + name, "ok", comment, made, trust=AGENT.thumbprint + " " + scope)
    made = Envelope(agent=OTHER_AGENT)
    yield Vector("valid_other_agent", "ok", "another agent, trusted", made, trust=OTHER_AGENT.thumbprint)


def not_yet_openable():
    officers = [("alice", Rsa()), ("bob", Rsa(BOB, "RSA-OAEP", "bob")), ("carol", Ecdh(CAROL, "carol"))]
    shares = Shares(2, *officers)
    comment = "valid, and refused as not yet openable: "
    for name, what, path in (
            ("shares", "two of three officers", Path("officers", shares)),
            ("shares_and_password", "shares and a password", Path("officers", shares, Password())),
            ("shares_all_ecdh", "all members are P-256 tokens, all are needed",
             Path("officers", Shares(2, ("a", Ecdh()), ("b", Ecdh(CAROL, "carol"))))),
            ("token_and_shares", "a token before the shares",
             Path("officers", Ecdh(), Shares(2, officers[0], officers[1]), Password())),
            ("recovery_key", "a recovery key behind token and password",
             Path("security-team", Rsa(), Password(), recovery="security-team")),
            ("recovery_key_shares", "a recovery key behind shares",
             Path("security-team", shares, recovery="security-team")),
            ("recovery_key_tpm2", "a recovery key behind password and TPM",
             Path("security-team", Password(), Tpm2(), recovery="security-team"))):
        made = Envelope(path)
        needs = world(made, path.id)
        tokens = [f.key for _, f in officers] if "shares" in name else needs["tokens"]
        yield Vector("unsupported_" + name, "unsupported", comment + what, made, **dict(needs, tokens=tokens))
        yield Vector("valid_read_" + name, "ok", "read and verified only: " + what, made, path=None,
                     password=None)
    yield opens("valid_beside_shares", "a path of shares does not hinder the others",
                Path("officers", shares), Path("password", Password()), use="password")
    sixteen = [("officer%d" % i, Ecdh(maker.EcKey("officer %d" % i), "card%d" % i)) for i in range(16)]
    made = Envelope(Path("officers", Shares(16, *sixteen)))
    yield Vector("valid_read_sixteen_members", "ok", "sixteen members, all needed; read only", made, path=None,
                 password=None)
