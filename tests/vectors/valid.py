"""Envelopes that are well formed: they open, or are refused only as not yet openable."""

import json
import unicodedata

import primitives as pr
from maker import (
    BOB,
    CARD,
    CAROL,
    OPS,
    OTHER_SRK,
    PBKDF2,
    Ecdh,
    Envelope,
    Password,
    Path,
    Rsa,
    Tpm2,
    rnd,
)
from scenario import Vector, opens


def one_factor():
    yield opens("valid_password_argon2id", "one path with an Argon2id password", record=True)
    yield opens(
        "valid_password_pbkdf2",
        "one path with a PBKDF2 password",
        Path("password", Password(**PBKDF2)),
        record=True,
    )
    yield opens(
        "valid_rsa_sha256", "an RSA token, OAEP with SHA-256", Path("ops", Rsa()), record=True
    )
    yield opens("valid_rsa_sha1", "an RSA token, OAEP with SHA-1", Path("ops", Rsa(alg="RSA-OAEP")))
    yield opens("valid_ecdh", "a P-256 token", Path("card", Ecdh()), record=True)
    yield opens("valid_tpm2", "a TPM alone: auth false, noDA set", Path("tpm", Tpm2()), record=True)


def combinations():
    yield opens(
        "valid_rsa_and_password",
        "a token and a password, both needed",
        Path("ops", Rsa(), Password()),
        record=True,
    )
    yield opens(
        "valid_ecdh_and_password",
        "a P-256 token and a PBKDF2 password",
        Path("card", Ecdh(), Password(**PBKDF2)),
    )
    yield opens(
        "valid_password_and_tpm2",
        "a password that is stretched and then demanded by the TPM",
        Path("tpm", Password(), Tpm2()),
        record=True,
    )
    yield opens(
        "valid_rsa_and_tpm2",
        "a token and a TPM without a password: auth false",
        Path("ops-tpm", Rsa(), Tpm2()),
    )
    yield opens(
        "valid_rsa_password_and_tpm2",
        "token, password and TPM in one path",
        Path("all", Rsa(), Password(), Tpm2()),
        record=True,
    )
    yield opens(
        "valid_two_tokens", "an RSA and a P-256 token, both needed", Path("two", Rsa(), Ecdh())
    )
    yield opens(
        "valid_two_tokens_ecdh_first",
        "pkcs11 factors stand in any order among themselves",
        Path("two", Ecdh(), Rsa()),
    )
    yield opens(
        "valid_two_rsa_tokens",
        "two RSA tokens with different hashes",
        Path("two", Rsa(), Rsa(BOB, "RSA-OAEP", "bob")),
    )
    yield opens(
        "valid_four_factors",
        "two tokens, a password and a TPM",
        Path("all", Rsa(), Ecdh(), Password(), Tpm2()),
    )
    made = Envelope(Path("card", Ecdh()))
    yield Vector(
        "valid_token_among_others",
        "ok",
        "the token with the factor's spki is not the only one present",
        made,
        path="card",
        password=None,
        tokens=[OPS, CAROL, CARD],
    )


def several_paths():
    paths = [Path("ops", Rsa()), Path("card", Ecdh(), Password()), Path("tpm", Password(), Tpm2())]
    for use in ("ops", "card", "tpm"):
        yield opens(
            "valid_three_paths_by_" + use,
            "each of three paths opens the same key: by " + use,
            *paths,
            use=use
        )
    yield opens(
        "valid_max_paths",
        "sixteen paths, the last one is opened",
        *[Path("p%d" % i, Password()) for i in range(15)],
        Path("Last._-path_id16", Password()),
        use="Last._-path_id16"
    )
    yield opens(
        "valid_same_token_in_two_paths",
        "one spki may serve in several paths",
        Path("a", Rsa()),
        Path("b", Rsa(), Password()),
        use="b",
    )
    yield opens(
        "valid_other_host_tpm_beside",
        "a path of another TPM does not hinder the others",
        Path("tpm", Tpm2(srk=OTHER_SRK, host="db2")),
        Path("password", Password()),
        use="password",
    )
    made = Envelope()
    yield Vector(
        "valid_verified_only",
        "ok",
        "signature and header are good; no path is opened",
        made,
        path=None,
        password=None,
    )


def passwords():
    nfc = "Zürich-Ångström-é"
    made = Envelope(Path("password", Password(nfc)))
    yield Vector(
        "valid_password_nfd",
        "ok",
        "a password typed in NFD opens what its NFC form closed",
        made,
        password=unicodedata.normalize("NFD", nfc),
    )
    yield Vector("valid_password_nfc", "ok", "the same password typed in NFC", made, password=nfc)
    hangul = "\uac01 \ufb01"  # NFC composes jamo and leaves the compatibility ligature alone
    yield Vector(
        "valid_password_hangul",
        "ok",
        "conjoining jamo compose; a compatibility ligature stays",
        Envelope(Path("password", Password(hangul))),
        password=unicodedata.normalize("NFD", hangul),
    )
    yield opens("valid_password_one_byte", "the shortest password", Path("password", Password("x")))
    yield opens(
        "valid_password_127_bytes", "the longest password", Path("password", Password("p" * 127))
    )
    long = "é" * 63 + "x"  # 127 bytes in NFC, 190 in NFD
    yield Vector(
        "valid_password_127_bytes_after_nfc",
        "ok",
        "the length is that of the NFC form",
        Envelope(Path("password", Password(long))),
        password=unicodedata.normalize("NFD", long),
    )
    yield opens(
        "valid_password_spaces_and_controls",
        "spaces, a tab and an LF belong to the password",
        Path("password", Password(" a\tb\n")),
    )


def framing():
    yield opens("valid_trailing_lf", "one LF at the end of the file", file=lambda b: b + b"\n")
    yield opens(
        "valid_l0_member_order",
        "L0's members in another order",
        l0=lambda v: dict(reversed(v.items())),
    )
    yield opens(
        "valid_spaces_everywhere",
        "spaces wherever JSON allows them, in L0, P, L1 and H",
        l0_text=_spaced,
        l1_text=_spaced,
        header_text=_spaced,
        p_text=_spaced,
    )
    yield opens(
        "valid_member_order",
        "members in reverse order in every object",
        l0=_reversed,
        l1=_reversed,
        p=_reversed,
        header=_reversed,
    )
    yield opens("valid_high_s", "a high S is accepted", signature=_high_s)
    yield opens(
        "valid_file_max",
        "the file is exactly 3 MiB, with its LF",
        file=lambda b: b + b" " * (3 * 1024 * 1024 - 1 - len(b)) + b"\n",
    )
    yield opens(
        "valid_l1_max",
        "L1 is exactly 2 MiB",
        l1_text=lambda t: t + " " * (2 * 1024 * 1024 - len(t)),
    )
    yield opens(
        "valid_header_max",
        "H is exactly 256 KiB",
        header_text=lambda t: t + " " * (256 * 1024 - len(t)),
    )


def _spaced(text):
    return (
        " "
        + json.dumps(json.loads(text), separators=("  ,  ", " :  "))
        .replace("{", " { ")
        .replace("}", " } ")
        .replace("[", "[ ")
        .replace("]", " ]")
        + "  "
    )


def _reversed(value):
    if isinstance(value, dict):
        return {k: _reversed(v) for k, v in reversed(value.items())}
    return [_reversed(v) for v in value] if isinstance(value, list) else value


def _high_s(signature):
    s = int.from_bytes(signature[32:], "big")
    return signature[:32] + max(s, pr.N - s).to_bytes(32, "big")


def header_members():
    yield opens("valid_content_one_byte", "the shortest protected key", content=b"\0")
    yield opens(
        "valid_content_15_bytes",
        "content that fills its block but for one byte",
        content=rnd("15", 15),
    )
    yield opens(
        "valid_content_16_bytes",
        "content of whole blocks: the padding is a block",
        content=rnd("16", 16),
    )
    yield opens(
        "valid_content_128_kib",
        "128 KiB of content; its ciphertext is zeros but for the last block",
        ciphertext=lambda key, iv: _zero_ciphertext(key, iv, 2**17),
    )
    made = Envelope(ciphertext=lambda key, iv: _zero_ciphertext(key, iv, 2**20))
    yield Vector(
        "valid_content_max",
        "ok",
        "1 MiB of content: the longest ciphertext; read, not opened",
        made,
        path=None,
        password=None,
    )
    yield opens(
        "valid_key_name_segments",
        "key_name with many segments, dots and dashes",
        key_name="a/.b/..c/d./-/_/0/...",
    )
    yield opens("valid_key_name_max", "key_name of 128 bytes", key_name="a" * 63 + "/" + "b" * 64)
    yield opens(
        "valid_note", "a note of 1024 characters", members={"note": "note [{: " + "n" * 1015}
    )
    yield opens("valid_note_empty", "an empty note", members={"note": ""})
    yield opens(
        "valid_revision_2",
        "revision 2 names the previous envelope's hash",
        members={
            "revision": 2,
            "previous": pr.b64u(Envelope().hash),
            "updated": "2026-02-01T00:00:00Z",
        },
    )
    yield opens(
        "valid_versions_max",
        "key_version and revision of 2^31-1",
        key_version=2**31 - 1,
        members={"revision": 2**31 - 1, "previous": pr.b64u(Envelope().hash)},
    )
    yield opens(
        "valid_dates_edges",
        "29 February of a leap year, and the last second of a day",
        members={"created": "2024-02-29T00:00:00Z", "updated": "2026-12-31T23:59:59Z"},
    )
    yield opens(
        "valid_names_max",
        "policy and host of 64 characters",
        host="h" * 64,
        members={"policy": "P._-" + "9" * 60},
    )
    yield opens(
        "valid_uri_forms",
        "a URI with all seven attributes, an empty value and %XX",
        Path(
            "ops",
            Rsa(
                uri="pkcs11:token=a%20b%3b;manufacturer=;serial=0000;model=(x)*+,='!$:@[];"
                "object=a&b;id=%00%fF;type=private"
            ),
        ),
    )
    yield opens(
        "valid_uri_max", "a URI of 512 bytes", Path("ops", Rsa(uri="pkcs11:object=" + "o" * 498))
    )


def _zero_ciphertext(key, iv, size):
    """(ciphertext, content) of this size, both regular, so that the file packs well."""
    first = pr.aes_cbc(key, iv, bytes(16), False)
    block = pr.aes_cbc(key, bytes(16), bytes(16), False)
    last = pr.aes_cbc(key, bytes(16), bytes([16]) * 16, True)
    return bytes(size) + last, first + block * (size // 16 - 1)
