"""Faults that show only when a path is opened: factors, the wrapped key, drill_key, the tag."""

import json

import primitives as pr
from hostile_framing import bent, swap
from hostile_header import in_path
from maker import (
    BOB,
    CARD,
    CAROL,
    CONTENT,
    OPS,
    OTHER_SRK,
    PASSWORD,
    PROT,
    Ecdh,
    EcKey,
    Envelope,
    Password,
    Path,
    Rsa,
    Tpm2,
    b64u,
    compact,
    dumps,
    parent_public,
    rnd,
)
from scenario import Vector, opens, world


def absent_factors():
    made = Envelope()
    yield Vector("factor_no_such_path", "factor", "a path id that is not there", made, path="ops")
    yield Vector("factor_path_case", "factor", "path ids mind the case", made, path="Password")
    yield Vector("factor_password_missing", "factor", "no password is given", made, password=None)
    two = Envelope(Path("ops", Rsa(), Password()))
    yield Vector("factor_token_missing", "factor", "no token at hand", two, path="ops")
    yield Vector(
        "factor_other_token",
        "factor",
        "another token with another key",
        two,
        path="ops",
        tokens=[BOB, CARD],
    )
    yield Vector(
        "factor_password_missing_beside_token",
        "factor",
        "the token is here, the password is not",
        two,
        path="ops",
        password=None,
        tokens=[OPS],
    )
    ecdh = Envelope(Path("card", Ecdh()))
    yield Vector(
        "factor_other_ecdh_token",
        "factor",
        "another P-256 token",
        ecdh,
        path="card",
        password=None,
        tokens=[CAROL, OPS],
    )
    both = Envelope(Path("two", Rsa(), Ecdh()))
    yield Vector(
        "factor_second_token_missing",
        "factor",
        "one of two tokens is missing",
        both,
        path="two",
        password=None,
        tokens=[OPS],
    )
    tpm = Envelope(Path("tpm", Tpm2()))
    yield Vector("factor_no_tpm", "factor", "no TPM here", tpm, path="tpm", password=None)


def passwords():
    made = Envelope()
    for name, password, comment in (
        ("empty", b"", "an empty password"),
        ("128_bytes", b"p" * 128, "a password of 128 bytes"),
        ("128_bytes_nfc", ("\u00e9" * 64).encode(), "a password of 128 bytes, 64 characters"),
        (
            "long_after_nfc",
            ("\u0958" * 22).encode(),
            "66 bytes that NFC lengthens to 132: a composition exclusion",
        ),
        ("latin1", b"Z\xfcrich", "a password in Latin-1"),
        ("overlong", b"\xc0\xafpassword", "an overlong form"),
        ("surrogate", b"\xed\xa0\x80password", "a surrogate"),
        ("truncated", b"password\xe2\x82", "a character cut off"),
    ):
        yield Vector("factor_password_" + name, "factor", comment, made, password=password)
    for name, password, comment in (
        ("wrong", "wrong", "a wrong password"),
        ("case", PASSWORD.title(), "another case"),
        ("trailing_space", PASSWORD + " ", "a space at its end"),
        ("trailing_lf", PASSWORD + "\n", "an LF at its end: as typed, it belongs to the password"),
        ("trailing_nul", PASSWORD + "\0", "a NUL at its end"),
    ):
        yield Vector("unwrap_password_" + name, "unwrap", comment, made, password=password)
    nfc = Envelope(Path("password", Password("\ufb01sh \uff21")))
    yield Vector(
        "unwrap_password_nfkc",
        "unwrap",
        "NFC is not NFKC: compatibility forms stay apart",
        nfc,
        password="fish A",
    )
    two = Envelope(Path("ops", Rsa(), Password()))
    yield Vector(
        "unwrap_password_wrong_beside_token",
        "unwrap",
        "the right token and a wrong password",
        two,
        path="ops",
        password="wrong",
        tokens=[OPS],
    )


def tokens():
    for name, comment, factor in (
        ("31_bytes", "the OAEP plaintext has 31 bytes", Rsa(plaintext=rnd("p", 31))),
        ("33_bytes", "the OAEP plaintext has 33 bytes", Rsa(plaintext=rnd("p", 33))),
    ):
        yield opens("factor_oaep_" + name, comment, Path("ops", factor), expect="factor")
    for name, comment, wrapped in (
        (
            "empty",
            "the OAEP plaintext is empty",
            pr.oaep_encrypt(OPS.n, 65537, b"", "sha256", rnd("seed", 32)),
        ),
        (
            "sha1_under_sha256",
            "wrapped with SHA-1 and recorded as SHA-256",
            pr.oaep_encrypt(OPS.n, 65537, rnd("ops factor 0 S", 32), "sha1", rnd("seed", 20)),
        ),
        (
            "bit",
            "wrapped for another key",
            pr.oaep_encrypt(BOB.n, 65537, rnd("S", 32), "sha256", rnd("seed", 32)),
        ),
        ("zero", "wrapped is zero", bytes(256)),
        ("above_n", "wrapped is not below the modulus", b"\xff" * 256),
        ("raw", "S without padding", bytes(224) + rnd("ops factor 0 S", 32)),
        (
            "pkcs1",
            "S in PKCS#1 v1.5 padding",
            pow(
                int.from_bytes(b"\0\2" + b"\xaa" * 221 + b"\0" + rnd("ops factor 0 S", 32), "big"),
                65537,
                OPS.n,
            ).to_bytes(256, "big"),
        ),
    ):
        yield opens(
            "factor_oaep_" + name,
            comment,
            Path("ops", Rsa()),
            expect="factor",
            header=in_path(lambda p: p["factors"][0].update(wrapped=b64u(wrapped))),
        )
    yield opens(
        "unwrap_oaep_other_secret",
        "wrapped holds another S",
        Path("ops", Rsa()),
        expect="unwrap",
        header=in_path(
            lambda p: p["factors"][0].update(
                wrapped=b64u(
                    pr.oaep_encrypt(OPS.n, 65537, rnd("other S", 32), "sha256", rnd("seed", 32))
                )
            )
        ),
    )
    yield opens(
        "unwrap_ecdh_other_epk",
        "epk is another point",
        Path("card", Ecdh()),
        expect="unwrap",
        header=in_path(
            lambda p: p["factors"][0].update(epk=b64u(pr.point_bytes(EcKey("other epk").point)))
        ),
    )
    yield opens(
        "unwrap_ecdh_negated_epk",
        "epk's y is negated: the same Z, other SharedInfo",
        Path("card", Ecdh()),
        expect="unwrap",
        header=in_path(lambda p: p["factors"][0].update(epk=_negated(p["factors"][0]["epk"]))),
    )
    yield opens(
        "unwrap_kdf_changed",
        "t is not the one that stretched the password",
        expect="unwrap",
        header_text=swap('"t":2', '"t":3'),
    )
    yield opens(
        "unwrap_salt_changed",
        "another salt",
        expect="unwrap",
        header_text=swap("00112233445566778899aabbccddeeff", "10112233445566778899aabbccddeeff"),
    )


def _negated(epk):
    raw = pr.b64u_decode(epk)
    return b64u(raw[:33] + (pr.P - int.from_bytes(raw[33:], "big")).to_bytes(32, "big"))


def tpms():
    made = Envelope(Path("tpm", Password(), Tpm2()))
    needs = world(made, "tpm")
    parent, sealed, auth = needs["tpm"]
    other = parent_public(OTHER_SRK)
    yield Vector(
        "absent_other_tpm",
        "absent",
        "the path is another TPM's",
        made,
        **dict(needs, tpm=(other, sealed, auth))
    )
    yield Vector(
        "absent_other_tpm_no_password",
        "absent",
        "another TPM's path that needs no password",
        *_tpm_alone(other)
    )
    yield Vector(
        "absent_other_tpm_seed",
        "absent",
        "wrapped offline for another host's TPM",
        *_tpm_alone(other, seed=True)
    )
    yield Vector(
        "factor_tpm2_wrong_password",
        "factor",
        "the TPM refuses the authValue of a wrong password",
        made,
        **dict(needs, password="wrong")
    )
    yield Vector(
        "factor_tpm2_password_missing",
        "factor",
        "this TPM is here, the password is not",
        made,
        **dict(needs, password=None)
    )
    yield Vector(
        "unwrap_tpm2_other_secret",
        "unwrap",
        "the TPM unseals other bytes",
        made,
        **dict(needs, tpm=(parent, rnd("other sealed", 32), auth))
    )


def _tpm_alone(parent, **form):
    made = Envelope(Path("tpm", Tpm2(**form)))
    return (
        made,
        "tpm",
        None,
        made.agent.thumbprint,
        (),
        (parent, *made.paths[0].known["tpm"][1:], None),
    )


def wrapped_keys():
    def flipped(part, at=0):
        def hook(path):
            c = path["wrapped_key"].split(".")
            raw = bytearray(pr.b64u_decode(c[part]))
            raw[at] ^= 1
            path["wrapped_key"] = ".".join(c[:part] + [b64u(bytes(raw))] + c[part + 1 :])

        return in_path(hook)

    for name, part in (("iv", 2), ("ciphertext", 3), ("tag", 4)):
        yield bent(
            "unwrap_wrapped_%s_bit" % name,
            "a bit of the wrapped key's %s is flipped" % name,
            "unwrap",
            header=flipped(part),
        )
    for size in (33, 47):
        made = Envelope(Path("password", Password(), fk=rnd("long FK", size)))
        yield Vector(
            "unwrap_fk_%d_bytes" % size,
            "unwrap",
            "FK of %d bytes, in 48 of ciphertext" % size,
            made,
        )
    made = Envelope(Path("password", Password(), seal_wrapped=_unpadded))
    yield Vector("unwrap_fk_bad_padding", "unwrap", "bad padding under a good tag", made)
    made = Envelope(
        Path(
            "password",
            Password(),
            seal_wrapped=lambda key, fk, place: compact(key[32:] + key[:32], fk, place),
        )
    )
    yield Vector("unwrap_halves_swapped", "unwrap", "PK's halves are swapped", made)
    made = Envelope(
        Path("password", Password()),
        Path("other", Password()),
        header=lambda h: h["paths"][0].update(wrapped_key=h["paths"][1]["wrapped_key"]),
    )
    yield Vector(
        "unwrap_of_another_path",
        "unwrap",
        "the wrapped key of another path with the same password",
        made,
    )
    yield bent(
        "unwrap_drill_key_other",
        "drill_key is another key",
        "unwrap",
        header=in_path(lambda p: p.update(drill_key=b64u(pr.ed25519_public(bytes(32))))),
    )
    yield bent(
        "unwrap_drill_key_zero",
        "drill_key is zero",
        "unwrap",
        header=in_path(lambda p: p.update(drill_key=b64u(bytes(32)))),
    )
    made = Envelope(header=in_path(lambda p: p.update(id="pw")))
    yield Vector(
        "unwrap_path_renamed",
        "unwrap",
        "the path's id is edited, and the envelope signed again",
        made,
        path="pw",
    )
    for name, edit in (
        ("key_name", {"key_name": "prod/db/payments"}),
        ("key_version", {"key_version": 2}),
        ("envelope_id", {"envelope_id": b64u(bytes(16))}),
    ):
        yield bent(
            "unwrap_%s_edited" % name,
            "%s is edited, and the envelope signed again" % name,
            "unwrap",
            header=lambda h: h.update(edit),
        )


def _unpadded(key, fk, place):
    iv = rnd(place + " iv", 16)
    ciphertext = pr.aes_cbc(key[32:], iv, fk + b"\x10" * 15 + b"\x11", True)
    return ".".join(
        [
            PROT,
            "",
            b64u(iv),
            b64u(ciphertext),
            b64u(pr.cbc_hmac_tag(key, PROT.encode(), iv, ciphertext)),
        ]
    )


def tags():
    def flipped(name, at=0):
        def hook(l1):
            raw = bytearray(pr.b64u_decode(l1[name]))
            raw[at] ^= 1
            l1[name] = b64u(bytes(raw))

        return hook

    for name, at in (("tag", 0), ("tag", 31), ("iv", 0), ("ciphertext", 0), ("ciphertext", -1)):
        yield bent(
            "mac_%s_%s" % (name, "first" if at == 0 else "last"),
            "a bit of %s is flipped" % name,
            "mac",
            l1=flipped(name, at),
        )
    yield bent(
        "mac_ciphertext_extended",
        "a block more of ciphertext",
        "mac",
        l1=lambda v: v.update(ciphertext=b64u(pr.b64u_decode(v["ciphertext"]) + bytes(16))),
    )
    yield bent(
        "mac_ciphertext_shortened",
        "a block less of ciphertext",
        "mac",
        l1=lambda v: v.update(ciphertext=b64u(pr.b64u_decode(v["ciphertext"])[:-16])),
    )
    for name, old, new in (
        ("host", '"host":"db1"', '"host":"db2"'),
        ("policy", '"corp"', '"lax"'),
        ("note", '"host"', '"note":"x","host"'),
        ("space", '"host":', '"host": '),
        ("updated", '"updated":"2026-01-31', '"updated":"2026-02-01'),
    ):
        yield bent(
            "mac_aad_" + name,
            "the header is edited after the tag, and signed again",
            "mac",
            l1=lambda v: v.update(aad=b64u(_edited(pr.b64u_decode(v["aad"]), old, new))),
        )
    made = Envelope(
        Path("password", Password()),
        Path("ops", Rsa()),
        l1=lambda v: v.update(aad=b64u(_one_path(pr.b64u_decode(v["aad"])))),
    )
    yield Vector(
        "mac_path_removed",
        "mac",
        "a path is removed after the tag, and the rest signed again",
        made,
    )
    for name, comment, plaintext in (
        ("zero", "padding of zero", CONTENT[:16] + bytes(16)),
        ("17", "padding of 17", CONTENT[:15] + b"\x11" * 17),
        (
            "uneven",
            "padding whose bytes differ",
            CONTENT[:14] + b"\2\1" + b"\3" + b"\2" * 14 + b"\3",
        ),
    ):
        assert len(plaintext) % 16 == 0
        yield Vector(
            "mac_padding_" + name,
            "mac",
            comment + ", under a good tag",
            Envelope(plaintext=plaintext),
        )
    yield Vector(
        "content_empty", "format", "empty content, under a good tag", Envelope(content=b"")
    )


def _edited(data, old, new):
    text = data.decode()
    assert old in text
    return text.replace(old, new, 1).encode()


def _one_path(data):
    header = json.loads(data)
    return dumps(dict(header, paths=header["paths"][:1])).encode()


def not_yet_openable():
    """A recovery key is refused before its path's secrets are looked at."""
    made = Envelope(Path("sec", Rsa(), Password(), recovery="security-team"))
    yield Vector(
        "unsupported_recovery_key_no_token",
        "unsupported",
        "no factor is at hand",
        made,
        path="sec",
        password=None,
    )
