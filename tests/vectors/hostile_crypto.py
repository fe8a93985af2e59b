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
    ESCROW,
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


def recovery_keys():
    """What a path with a recovery key opens by: its private JWK, then the wrapped key."""
    made = Envelope(Path("sec", Rsa(), Password(), recovery="security-team"))
    yield Vector(
        "factor_recovery_key_no_token",
        "factor",
        "a recovery key whose token is not at hand",
        made,
        path="sec",
    )
    yield Vector(
        "unwrap_recovery_key_password",
        "unwrap",
        "a recovery key's wrong password",
        made,
        **dict(world(made, "sec"), password="wrong horse battery staple")
    )
    good = dict(ESCROW.jwk, d=b64u(ESCROW.d.to_bytes(32, "big")))
    other = EcKey("another recovery key")
    for name, comment, jwk in (
        ("other_d", "d of another key", dict(good, d=b64u(other.d.to_bytes(32, "big")))),
        (
            "other_pair",
            "another pair, in itself right, than the public half",
            dict(other.jwk, d=b64u(other.d.to_bytes(32, "big"))),
        ),
        ("d_zero", "d is 0", dict(good, d=b64u(bytes(32)))),
        ("d_n", "d is the group's order", dict(good, d=b64u(pr.N.to_bytes(32, "big")))),
        (
            "d_plus_n",
            "d plus the order does not fit; d of 33 bytes",
            dict(good, d=b64u(b"\0" + ESCROW.d.to_bytes(32, "big"))),
        ),
        ("d_31_bytes", "d of 31 bytes", dict(good, d=good["d"][:-2] + "A")),
        ("d_not_canonical", "d's last character has bits set beyond the bytes", _respelt(good)),
        ("d_padded", "d with padding", dict(good, d=good["d"] + "=")),
        ("x_other", "x is another point's", dict(good, x=other.jwk["x"])),
        ("kid", "a member too many", dict(good, kid="1")),
        ("no_kty", "a member too few", {k: v for k, v in good.items() if k != "kty"}),
        ("crv_p384", "crv names another curve", dict(good, crv="P-384")),
        ("array", "an array in place of the JWK", [good]),
    ):
        yield _private(name, comment, dumps(jwk).encode())
    text = dumps(good)
    for name, comment, changed in (
        ("member_twice", "kty stands twice", text[:-1] + ',"kty":"EC"}'),
        ("escape", "an escape in a name", text.replace('"kty"', '"\\u006bty"')),
        ("trailing_text", "text after the JWK", text + "{}"),
        ("newline", "a line feed after the JWK", text + "\n"),
        ("empty", "an empty plaintext", ""),
    ):
        yield _private(name, comment, changed.encode())
    yield opens(
        "unwrap_recovery_key_wrapped_for_another",
        "the wrapped key was made to another public half",
        Path(
            "sec",
            Rsa(),
            recovery="security-team",
        ),
        expect="unwrap",
        header=in_path(_to_another),
    )
    yield opens(
        "unwrap_recovery_key_drill_key",
        "drill_key is another key",
        Path("sec", Rsa(), recovery="security-team"),
        expect="unwrap",
        header=in_path(lambda p: p.update(drill_key=b64u(pr.ed25519_public(bytes(32))))),
    )
    yield opens(
        "unwrap_recovery_key_fk_33_bytes",
        "FK of 33 bytes",
        Path("sec", Rsa(), recovery="security-team", fk=rnd("FK", 33)),
        expect="unwrap",
    )
    yield opens(
        "unwrap_recovery_key_renamed",
        "the recovery key's name was edited: its labels are another's",
        Path("sec", Rsa(), recovery="security-team"),
        expect="unwrap",
        header=in_path(lambda p: p["recovery_key"].update(name="security-team2")),
    )


def _respelt(jwk):
    """d with one of the two unused bits of its last character set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet[alphabet.index(jwk["d"][-1]) | 1]
    return dict(jwk, d=jwk["d"][:-1] + last)


def _private(name, comment, text):
    """A recovery key whose private JWE holds `text`."""

    def seal(key, _, place):
        return compact(key, text, place)

    return opens(
        "unwrap_recovery_key_" + name,
        "the private JWK: " + comment,
        Path("sec", Rsa(), recovery="security-team", seal_private=seal),
        expect="unwrap",
    )


def _to_another(path):
    """Wraps FK anew, with the header as it is, to another public half."""
    header = json.loads(pr.b64u_decode(path["wrapped_key"].split(".")[0]))
    ephemeral = EcKey("sec recovery epk")
    z = pr.multiply(ephemeral.d, EcKey("another recovery key").point)[0].to_bytes(32, "big")
    key = pr.concat_kdf_512(z, "A256CBC-HS512", pr.b64u_decode(header["apv"]))
    path["wrapped_key"] = compact(key, rnd("FK", 32), "sec wrapped", b64u(dumps(header).encode()))
