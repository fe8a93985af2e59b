"""Faults of factor records: found before any KDF work, whichever path is opened."""

import primitives as pr
from hostile_header import in_path
from maker import CARD, OPS, PBKDF2, Ecdh, Envelope, Password, Path, Rsa, b64u, odd_modulus
from scenario import Vector, world


def faulty(name, comment, edit, *factors, expect="format"):
    """A vector whose first factor is changed by `edit`, or replaced by what it returns."""

    def hook(path):
        replacement = edit(path["factors"][0])
        if isinstance(replacement, dict):
            path["factors"][0] = replacement

    made = Envelope(Path("x", *factors), header=in_path(hook))
    return Vector(name, expect, comment, made, **world(made, "x"))


def changed(**members):
    return lambda factor: factor.update(members)


def without(name):
    def edit(factor):
        del factor[name]

    return edit


def password_records():
    for name, comment, edit in (
        (
            "salt_upper_case",
            "a salt in upper case",
            changed(salt="00112233445566778899AABBCCDDEEFF"),
        ),
        ("salt_30", "a salt of 30 digits", changed(salt="0" * 30)),
        ("salt_34", "a salt of 34 digits", changed(salt="0" * 34)),
        ("salt_letter", "a salt that is not hexadecimal", changed(salt="g" * 32)),
        ("salt_missing", "no salt", without("salt")),
        ("kdf_scrypt", "an unknown kdf", changed(kdf="scrypt")),
        ("kdf_argon2i", "kdf is argon2i", changed(kdf="argon2i")),
        ("kdf_missing", "no kdf", without("kdf")),
        ("iter_beside_argon2id", "iter beside argon2id", changed(iter=210000)),
        ("p_missing", "no p", without("p")),
        ("t_string", "t is a string", changed(t="2")),
        ("host", "a member that password does not have", changed(host="db1")),
    ):
        yield faulty("password_" + name, comment, edit, Password())
    yield faulty(
        "password_t_beside_pbkdf2", "t beside pbkdf2-sha512", changed(t=2), Password(**PBKDF2)
    )
    yield faulty("password_iter_missing", "no iter", without("iter"), Password(**PBKDF2))
    for name, comment, members in (
        ("t_0", "t is 0", {"t": 0}),
        ("t_33", "t is 33", {"t": 33}),
        ("m_19455", "m is 19455", {"m": 19455}),
        ("m_4194305", "m is 4194305", {"m": 4194305}),
        ("p_0", "p is 0", {"p": 0}),
        ("p_17", "p is 17", {"p": 17}),
        ("t1_small_m", "one pass with m of 47103", {"t": 1, "m": 47103}),
        ("t_times_m", "t times m is 33554439, above 33554432", {"t": 9, "m": 3728271}),
        ("m_2_to_64", "m wraps to 19456 in 64 bits", {"m": 2**64 + 19456}),
    ):
        yield faulty(
            "range_argon2id_" + name, comment, changed(**members), Password(), expect="limit"
        )
    for value in (209999, 20000001, 0):
        yield faulty(
            "range_pbkdf2_iter_%d" % value,
            "iter is %d" % value,
            changed(iter=value),
            Password(**PBKDF2),
            expect="limit",
        )


def token_records():
    for name, comment, edit in (
        ("alg_pkcs1", "alg is RSA1_5", changed(alg="RSA1_5")),
        ("alg_oaep_512", "alg is RSA-OAEP-512", changed(alg="RSA-OAEP-512")),
        ("alg_missing", "no alg", without("alg")),
        ("crv", "crv on an RSA factor", changed(crv="P-256")),
        ("token_empty", "token is empty", changed(token="")),
        ("token_slash", "token with a slash", changed(token="a/b")),
        (
            "wrapped_short",
            "wrapped is a byte shorter than the modulus",
            changed(wrapped=b64u(b"\1" * 255)),
        ),
        (
            "wrapped_long",
            "wrapped is a byte longer than the modulus",
            changed(wrapped=b64u(b"\0" + b"\1" * 256)),
        ),
        ("wrapped_empty", "wrapped is empty", changed(wrapped="")),
        ("mask", "mask outside of shares", changed(mask=b64u(bytes(32)))),
    ):
        yield faulty("rsa_" + name, comment, edit, Rsa())
    for name, comment, edit in (
        ("crv_p384", "crv is P-384", changed(crv="P-384")),
        ("crv_missing", "no crv", without("crv")),
        ("alg", "alg on a P-256 factor", changed(alg="ECDH-ES")),
        ("mask", "mask outside of shares", changed(mask=b64u(bytes(32)))),
        (
            "epk_64",
            "epk without its first byte",
            lambda f: f.update(epk=b64u(pr.b64u_decode(f["epk"])[1:])),
        ),
        (
            "epk_compressed",
            "epk compressed",
            lambda f: f.update(epk=b64u(b"\2" + pr.b64u_decode(f["epk"])[1:33])),
        ),
        (
            "epk_hybrid",
            "epk in the hybrid form",
            lambda f: f.update(
                epk=b64u(
                    bytes([6 + (pr.b64u_decode(f["epk"])[-1] & 1)]) + pr.b64u_decode(f["epk"])[1:]
                )
            ),
        ),
        (
            "epk_off_curve",
            "epk is not on the curve",
            lambda f: f.update(epk=b64u(off_curve(pr.b64u_decode(f["epk"])))),
        ),
        ("epk_zero", "epk is (0, 0)", changed(epk=b64u(b"\4" + bytes(64)))),
        ("epk_infinity", "epk is the point at infinity", changed(epk=b64u(b"\0"))),
        ("epk_above_p", "epk's x is not below p", changed(epk=b64u(above_p()))),
        ("spki_rsa", "an RSA spki", changed(spki=b64u(OPS.spki))),
    ):
        yield faulty("ecdh_" + name, comment, edit, Ecdh())


def off_curve(point):
    return point[:-1] + bytes([point[-1] ^ 1])


def above_p():
    y = pow((125 - 15 + pr.CURVE_B) % pr.P, (pr.P + 1) // 4, pr.P)
    assert pr.on_curve(5, y)
    return b"\4" + (5 + pr.P).to_bytes(32, "big") + y.to_bytes(32, "big")


def public_keys():
    def rsa(n, e=65537, spki=None):
        size = (n.bit_length() + 7) // 8
        return changed(spki=b64u(spki or pr.rsa_spki(n, e)), wrapped=b64u(b"\1" * size))

    n = OPS.n
    plain = pr.rsa_spki(n, 65537)
    bits = pr.der(3, b"\0", pr.der(0x30, pr.der_int(n), pr.der_int(65537)))
    for name, comment, edit in (
        ("1024", "a modulus of 1024 bits", rsa(odd_modulus(1024, "n 1024"))),
        ("2047", "a modulus of 2047 bits", rsa(odd_modulus(2047, "n 2047"))),
        ("8193", "a modulus of 8193 bits", rsa(odd_modulus(8193, "n 8193"))),
        ("16384", "an spki of more than 1200 bytes", rsa(odd_modulus(16384, "n 16384"))),
        ("even_exponent", "an even exponent", rsa(n, 65536)),
        ("exponent_1", "the exponent 1", rsa(n, 1)),
        ("exponent_0", "the exponent 0", rsa(n, 0)),
        ("trailing_byte", "a byte after the DER", rsa(n, spki=plain + b"\0")),
        ("truncated", "the last byte is missing", rsa(n, spki=plain[:-1])),
        (
            "no_null",
            "an algorithm without NULL",
            rsa(n, spki=pr.der(0x30, pr.der(0x30, pr.RSA_ALGORITHM[2:13]), bits)),
        ),
        (
            "pss",
            "the algorithm is RSASSA-PSS",
            rsa(
                n, spki=pr.der(0x30, pr.RSA_ALGORITHM[:12] + b"\x0a" + pr.RSA_ALGORITHM[13:], bits)
            ),
        ),
        (
            "long_length",
            "a length in more bytes than it needs",
            rsa(n, spki=b"\x30\x83\0" + plain[2:]),
        ),
        ("indefinite", "an indefinite length", rsa(n, spki=b"\x30\x80" + plain[4:] + b"\0\0")),
        (
            "padded_integer",
            "a modulus with a zero byte too many",
            rsa(
                n,
                spki=pr.der(
                    0x30,
                    pr.RSA_ALGORITHM,
                    pr.der(
                        3,
                        b"\0",
                        pr.der(
                            0x30, pr.der(2, b"\0\0" + n.to_bytes(256, "big")), pr.der_int(65537)
                        ),
                    ),
                ),
            ),
        ),
        (
            "negative_modulus",
            "a modulus whose first bit is a sign",
            rsa(
                n,
                spki=pr.der(
                    0x30,
                    pr.RSA_ALGORITHM,
                    pr.der(
                        3, b"\0", pr.der(0x30, pr.der(2, n.to_bytes(256, "big")), pr.der_int(65537))
                    ),
                ),
            ),
        ),
        (
            "unused_bits",
            "a bit string with unused bits",
            rsa(n, spki=plain.replace(bits, b"\3" + bits[1:4] + b"\1" + bits[5:])),
        ),
        (
            "three_integers",
            "three integers in the key",
            rsa(
                n,
                spki=pr.der(
                    0x30,
                    pr.RSA_ALGORITHM,
                    pr.der(3, b"\0", pr.der(0x30, pr.der_int(n), pr.der_int(65537), pr.der_int(1))),
                ),
            ),
        ),
        (
            "pkcs1",
            "a bare RSAPublicKey",
            rsa(n, spki=pr.der(0x30, pr.der_int(n), pr.der_int(65537))),
        ),
        ("ec", "a P-256 key", changed(spki=b64u(CARD.spki))),
        ("empty", "an empty spki", changed(spki="")),
    ):
        yield faulty("spki_rsa_" + name, "an RSA factor with " + comment, edit, Rsa())
    spki = CARD.spki
    explicit = pr.der(0x30, pr.der(0x30, spki[4:13], pr.der(0x30, pr.der_int(1))), spki[23:])
    for name, comment, value in (
        ("off_curve", "a point that is not on the curve", off_curve(spki)),
        ("above_p", "an x that is not below p", pr.EC_SPKI_PREFIX + above_p()),
        (
            "compressed",
            "a compressed point",
            pr.der(0x30, spki[2:23], pr.der(3, b"\0\2" + spki[27:59])),
        ),
        ("trailing_byte", "a byte after the DER", spki + b"\0"),
        (
            "p384_oid",
            "the curve's name P-384's",
            pr.der(0x30, pr.der(0x30, spki[4:13], bytes.fromhex("06052B81040022")), spki[23:]),
        ),
        ("explicit", "explicit parameters", explicit),
        ("raw_point", "the bare point", spki[26:]),
    ):
        yield faulty(
            "spki_ec_" + name, "a P-256 factor with " + comment, changed(spki=b64u(value)), Ecdh()
        )


def uris():
    for name, comment, uri in (
        ("empty", "an empty URI", ""),
        ("scheme_alone", "no attribute", "pkcs11:"),
        ("other_scheme", "another scheme", "pkcs12:token=ops"),
        ("upper_scheme", "the scheme in upper case", "PKCS11:token=ops"),
        ("no_scheme", "no scheme", "token=ops"),
        ("query", "a query", "pkcs11:token=ops?module-path=/tmp/x.so"),
        ("empty_query", "an empty query", "pkcs11:token=ops?"),
        ("pin_value", "pin-value in the path", "pkcs11:token=ops;pin-value=1234"),
        ("pin_source", "pin-source in the query", "pkcs11:token=ops?pin-source=/etc/pin"),
        ("slot_id", "slot-id", "pkcs11:slot-id=0"),
        ("library", "library-manufacturer", "pkcs11:library-manufacturer=x"),
        ("module_path", "module-path in the path", "pkcs11:token=ops;module-path=x"),
        ("vendor", "a vendor's attribute", "pkcs11:token=ops;x-serial=1"),
        ("repeated", "token twice", "pkcs11:token=ops;token=ops"),
        ("empty_attribute", "an empty attribute between two", "pkcs11:token=ops;;object=x"),
        ("trailing_semicolon", "an empty attribute at the end", "pkcs11:token=ops;"),
        ("no_equals", "an attribute without =", "pkcs11:token"),
        ("upper_attribute", "an attribute in upper case", "pkcs11:Token=ops"),
        ("513_bytes", "513 bytes", "pkcs11:object=" + "o" * 499),
        ("bad_percent", "%G0", "pkcs11:token=%G0"),
        ("short_percent", "% with one digit at the end", "pkcs11:token=ops%4"),
        ("slash", "a slash", "pkcs11:token=a/b"),
        ("space", "a space", "pkcs11:token=my token"),
        ("bar", "a bar", "pkcs11:token=a|b"),
        ("hash", "a fragment", "pkcs11:token=ops#x"),
        ("leading_space", "a space in front", " pkcs11:token=ops"),
    ):
        yield faulty(
            "uri_" + name, "a URI with " + comment if uri else comment, changed(uri=uri), Rsa()
        )
