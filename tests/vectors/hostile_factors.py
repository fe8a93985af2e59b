"""Faults of factor records: found before any KDF work, whichever path is opened."""

import primitives as pr
from hostile_header import in_path
from maker import (BOB, CARD, CAROL, OPS, PBKDF2, SIGNER, SRK, Ecdh, EcKey, Envelope, Password, Path, Rsa, Shares, Tpm2,
                   b64u, coordinates, odd_modulus, parent_public)
from scenario import Vector, world


def _faulty(name, comment, edit, *factors, expect="format"):
    """A vector whose path's first factor is changed by `edit` (or replaces it, if it returns one)."""

    def hook(path):
        changed = edit(path["factors"][0])
        if isinstance(changed, dict):
            path["factors"][0] = changed

    made = Envelope(Path("x", *factors), header=in_path(hook))
    return Vector(name, expect, comment, made, **world(made, "x"))


def _set(**members):
    return lambda factor: factor.update(members)


def _without(name):
    def edit(factor):
        del factor[name]
    return edit


def password_records():
    for name, comment, edit in (
            ("salt_upper_case", "a salt in upper case", _set(salt="00112233445566778899AABBCCDDEEFF")),
            ("salt_30", "a salt of 30 digits", _set(salt="0" * 30)),
            ("salt_34", "a salt of 34 digits", _set(salt="0" * 34)),
            ("salt_letter", "a salt that is not hexadecimal", _set(salt="g" * 32)),
            ("salt_missing", "no salt", _without("salt")),
            ("kdf_scrypt", "an unknown kdf", _set(kdf="scrypt")),
            ("kdf_argon2i", "kdf is argon2i", _set(kdf="argon2i")),
            ("kdf_missing", "no kdf", _without("kdf")),
            ("iter_beside_argon2id", "iter beside argon2id", _set(iter=210000)),
            ("p_missing", "no p", _without("p")),
            ("t_string", "t is a string", _set(t="2")),
            ("host", "a member that password does not have", _set(host="db1"))):
        yield _faulty("password_" + name, comment, edit, Password())
    yield _faulty("password_t_beside_pbkdf2", "t beside pbkdf2-sha512", _set(t=2), Password(**PBKDF2))
    yield _faulty("password_iter_missing", "no iter", _without("iter"), Password(**PBKDF2))
    for name, comment, members in (
            ("t_0", "t is 0", {"t": 0}), ("t_33", "t is 33", {"t": 33}),
            ("m_19455", "m is 19455", {"m": 19455}), ("m_4194305", "m is 4194305", {"m": 4194305}),
            ("p_0", "p is 0", {"p": 0}), ("p_17", "p is 17", {"p": 17}),
            ("t1_small_m", "one pass with m of 47103", {"t": 1, "m": 47103}),
            ("t_times_m", "t times m is 33554439, above 33554432", {"t": 9, "m": 3728271}),
            ("m_2_to_64", "m wraps to 19456 in 64 bits", {"m": 2**64 + 19456})):
        yield _faulty("range_argon2id_" + name, comment, _set(**members), Password(), expect="limit")
    for value in (209999, 20000001, 0):
        yield _faulty("range_pbkdf2_iter_%d" % value, "iter is %d" % value, _set(iter=value),
                      Password(**PBKDF2), expect="limit")


def token_records():
    for name, comment, edit in (
            ("alg_pkcs1", "alg is RSA1_5", _set(alg="RSA1_5")),
            ("alg_oaep_512", "alg is RSA-OAEP-512", _set(alg="RSA-OAEP-512")),
            ("alg_missing", "no alg", _without("alg")),
            ("crv", "crv on an RSA factor", _set(crv="P-256")),
            ("token_empty", "token is empty", _set(token="")),
            ("token_slash", "token with a slash", _set(token="a/b")),
            ("wrapped_short", "wrapped is a byte shorter than the modulus", _set(wrapped=b64u(b"\1" * 255))),
            ("wrapped_long", "wrapped is a byte longer than the modulus", _set(wrapped=b64u(b"\0" + b"\1" * 256))),
            ("wrapped_empty", "wrapped is empty", _set(wrapped="")),
            ("mask", "mask outside of shares", _set(mask=b64u(bytes(32))))):
        yield _faulty("rsa_" + name, comment, edit, Rsa())
    for name, comment, edit in (
            ("crv_p384", "crv is P-384", _set(crv="P-384")),
            ("crv_missing", "no crv", _without("crv")),
            ("alg", "alg on a P-256 factor", _set(alg="ECDH-ES")),
            ("mask", "mask outside of shares", _set(mask=b64u(bytes(32)))),
            ("epk_64", "epk without its first byte", lambda f: f.update(epk=b64u(pr.b64u_decode(f["epk"])[1:]))),
            ("epk_compressed", "epk compressed", lambda f: f.update(epk=b64u(b"\2" + pr.b64u_decode(f["epk"])[1:33]))),
            ("epk_hybrid", "epk in the hybrid form", lambda f: f.update(
                epk=b64u(bytes([6 + (pr.b64u_decode(f["epk"])[-1] & 1)]) + pr.b64u_decode(f["epk"])[1:]))),
            ("epk_off_curve", "epk is not on the curve", lambda f: f.update(epk=b64u(_off_curve(
                pr.b64u_decode(f["epk"]))))),
            ("epk_zero", "epk is (0, 0)", _set(epk=b64u(b"\4" + bytes(64)))),
            ("epk_infinity", "epk is the point at infinity", _set(epk=b64u(b"\0"))),
            ("epk_above_p", "epk's x is not below p", _set(epk=b64u(_above_p()))),
            ("spki_rsa", "an RSA spki", _set(spki=b64u(OPS.spki)))):
        yield _faulty("ecdh_" + name, comment, edit, Ecdh())


def _off_curve(point):
    return point[:-1] + bytes([point[-1] ^ 1])


def _above_p():
    y = pow((125 - 15 + pr.CURVE_B) % pr.P, (pr.P + 1) // 4, pr.P)
    assert pr.on_curve(5, y)
    return b"\4" + (5 + pr.P).to_bytes(32, "big") + y.to_bytes(32, "big")


def public_keys():
    def rsa(n, e=65537, spki=None):
        size = (n.bit_length() + 7) // 8
        return _set(spki=b64u(spki or pr.rsa_spki(n, e)), wrapped=b64u(b"\1" * size))

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
            ("no_null", "an algorithm without NULL", rsa(n, spki=pr.der(
                0x30, pr.der(0x30, pr.RSA_ALGORITHM[2:13]), bits))),
            ("pss", "the algorithm is RSASSA-PSS", rsa(n, spki=pr.der(
                0x30, pr.RSA_ALGORITHM[:12] + b"\x0a" + pr.RSA_ALGORITHM[13:], bits))),
            ("long_length", "a length in more bytes than it needs", rsa(n, spki=b"\x30\x83\0" + plain[2:])),
            ("indefinite", "an indefinite length", rsa(n, spki=b"\x30\x80" + plain[4:] + b"\0\0")),
            ("padded_integer", "a modulus with a zero byte too many", rsa(n, spki=pr.der(
                0x30, pr.RSA_ALGORITHM, pr.der(3, b"\0", pr.der(
                    0x30, pr.der(2, b"\0\0" + n.to_bytes(256, "big")), pr.der_int(65537)))))),
            ("negative_modulus", "a modulus whose first bit is a sign", rsa(n, spki=pr.der(
                0x30, pr.RSA_ALGORITHM, pr.der(3, b"\0", pr.der(
                    0x30, pr.der(2, n.to_bytes(256, "big")), pr.der_int(65537)))))),
            ("unused_bits", "a bit string with unused bits", rsa(n, spki=plain.replace(
                bits, b"\3" + bits[1:4] + b"\1" + bits[5:]))),
            ("three_integers", "three integers in the key", rsa(n, spki=pr.der(
                0x30, pr.RSA_ALGORITHM, pr.der(3, b"\0", pr.der(
                    0x30, pr.der_int(n), pr.der_int(65537), pr.der_int(1)))))),
            ("pkcs1", "a bare RSAPublicKey", rsa(n, spki=pr.der(0x30, pr.der_int(n), pr.der_int(65537)))),
            ("ec", "a P-256 key", _set(spki=b64u(CARD.spki))),
            ("empty", "an empty spki", _set(spki=""))):
        yield _faulty("spki_rsa_" + name, "an RSA factor with " + comment, edit, Rsa())
    spki = CARD.spki
    explicit = pr.der(0x30, pr.der(0x30, spki[4:13], pr.der(0x30, pr.der_int(1))), spki[23:])
    for name, comment, value in (
            ("off_curve", "a point that is not on the curve", _off_curve(spki)),
            ("above_p", "an x that is not below p", pr.EC_SPKI_PREFIX + _above_p()),
            ("compressed", "a compressed point", pr.der(0x30, spki[2:23], pr.der(3, b"\0\2" + spki[27:59]))),
            ("trailing_byte", "a byte after the DER", spki + b"\0"),
            ("p384_oid", "the curve's name P-384's", pr.der(
                0x30, pr.der(0x30, spki[4:13], bytes.fromhex("06052B81040022")), spki[23:])),
            ("explicit", "explicit parameters", explicit),
            ("raw_point", "the bare point", spki[26:])):
        yield _faulty("spki_ec_" + name, "a P-256 factor with " + comment, _set(spki=b64u(value)), Ecdh())


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
            ("leading_space", "a space in front", " pkcs11:token=ops")):
        yield _faulty("uri_" + name, "a URI with " + comment if uri else comment, _set(uri=uri), Rsa())


def tpm2_records():
    parent, point = parent_public(SRK), coordinates(SRK.point)
    for name, comment, edit in (
            ("parent_91", "parent_public of 91 bytes", _set(parent_public=b64u(parent[:-1]))),
            ("parent_trailing", "parent_public with a byte more", _set(parent_public=b64u(parent + b"\0"))),
            ("parent_no_noda", "a parent without noDA", _set(parent_public=b64u(parent.replace(
                bytes.fromhex("00030472"), bytes.fromhex("00030072"))))),
            ("parent_not_restricted", "a parent that is not restricted", _set(parent_public=b64u(parent.replace(
                bytes.fromhex("00030472"), bytes.fromhex("00020472"))))),
            ("parent_aes256", "a parent with AES-256", _set(parent_public=b64u(parent.replace(
                bytes.fromhex("00060080"), bytes.fromhex("00060100"))))),
            ("parent_sha384", "a parent with name algorithm SHA-384", _set(parent_public=b64u(
                parent[:4] + b"\0\x0c" + parent[6:]))),
            ("parent_size_field", "parent_public with a wrong size field", _set(parent_public=b64u(
                b"\0\x5b" + parent[2:]))),
            ("parent_off_curve", "a parent that is not on the curve", _set(parent_public=b64u(_off_curve(parent)))),
            ("parent_x_above_p", "a parent whose x is not below p", _set(parent_public=b64u(
                parent[:26] + _above_p()[1:33] + b"\0\x20" + _above_p()[33:]))),
            ("parent_empty_unique", "a parent without its point", _set(parent_public=b64u(
                parent[:24] + bytes(4)))),
            ("public_79", "public of 79 bytes", lambda f: f.update(public=b64u(_public(f)[:-1]))),
            ("public_rsa", "public of another type", _public_edit(2, "0001")),
            ("public_name_alg", "public with name algorithm SHA-1", _public_edit(4, "0004")),
            ("public_user_with_auth", "userWithAuth set: the auth alone opens it", _public_edit(6, "00000052")),
            ("public_not_fixed", "fixedTPM and fixedParent clear without a seed", _public_edit(6, "00000000")),
            ("public_noda_with_password", "noDA set though the path has a password", _public_edit(6, "00000412")),
            ("public_policy_empty", "an object without a policy", lambda f: f.update(public=b64u(
                _public(f)[:10] + bytes(2) + _public(f)[44:] + bytes(32)))),
            ("public_policy_zero", "another policy than the record's: 0", _public_edit(12, "00" * 32)),
            ("public_policy_bit", "a policy with one bit changed", lambda f: f.update(public=b64u(
                _public(f)[:43] + bytes([_public(f)[43] ^ 1]) + _public(f)[44:]))),
            ("public_unique_31", "a unique of 31 bytes by its size field", _public_edit(46, "001f")),
            ("public_scheme", "a scheme that is not NULL", _public_edit(44, "0005")),
            ("host_slash", "host with a slash", _set(host="a/b")),
            ("auth_string", "auth is a string", _set(auth="true")),
            ("auth_false_with_password", "auth is false though the path has a password", lambda f: f.update(
                auth=False, public=b64u(_public(f)[:6] + bytes.fromhex("00000412") + _public(f)[10:]))),
            ("private_empty", "private is empty", _set(private="")),
            ("private_2", "private of 2 bytes", _set(private=b64u(bytes(2)))),
            ("private_513", "private of 513 bytes", _set(private=b64u(b"\1\xff" + bytes(511)))),
            ("private_size_field", "private with a wrong size field", _set(private=b64u(b"\0\xa1" + bytes(160)))),
            ("seed_69", "seed of 69 bytes", _set(seed=b64u(bytes(69)))),
            ("signer_without_pcrs", "signer without pcrs", lambda f: f.update(
                signer=b64u(SIGNER.spki), public=b64u(_public(f)[:12] + Tpm2("sha256:7", SIGNER).policy(b"") +
                                                      _public(f)[44:]))),
            ("digest_without_pcrs", "pcr_digest without pcrs", _set(pcr_digest=b64u(bytes(32)))),
            ("seed_missing", "no seed member", _without("seed")),
            ("unknown", "a member more", _set(index=1))):
        yield _tpm("tpm2_" + name, comment, edit, Tpm2())
    yield _tpm("tpm2_seed_fixed", "fixedTPM and fixedParent set though there is a seed",
               _public_edit(6, "00000012"), Tpm2(seed=True))
    seed = bytes.fromhex("00440020") + point[2:34] + point[34:]
    for name, comment, value in (
            ("size_field", "with a wrong size field", b"\0\x45" + seed[2:]),
            ("x_size", "with a wrong size of x", seed[:2] + b"\0\x1f" + seed[4:]),
            ("off_curve", "that is not on the curve", _off_curve(seed)),
            ("x_above_p", "whose x is not below p", seed[:4] + _above_p()[1:33] + b"\0\x20" + _above_p()[33:])):
        yield _tpm("tpm2_seed_" + name, "a seed " + comment, _set(seed=b64u(value)), Tpm2(seed=True))


def _public(factor):
    return pr.b64u_decode(factor["public"])


def _public_edit(at, text):
    new = bytes.fromhex(text)
    return lambda f: f.update(public=b64u(_public(f)[:at] + new + _public(f)[at + len(new):]))


def _tpm(name, comment, edit, tpm2, password=True):
    """Like _faulty, with the tpm2 factor last in its path."""
    factors = ([Password()] if password else []) + [tpm2]
    made = Envelope(Path("x", *factors), header=in_path(lambda p: edit(p["factors"][-1])))
    return Vector(name, "format", comment, made, **world(made, "x"))


def tpm2_pcrs():
    for name, pcrs in (("descending", "sha256:7,0"), ("twice", "sha256:7,7"), ("24", "sha256:24"),
                       ("none", "sha256:"), ("sha1", "sha1:7"), ("no_bank", "7"), ("leading_zero", "sha256:07"),
                       ("trailing_comma", "sha256:7,"), ("space", "sha256:0, 7"), ("range", "sha256:0-7"),
                       ("two_banks", "sha256:7+sha256:8"), ("upper", "SHA256:7"), ("huge", "sha256:4294967303")):
        yield _tpm("tpm2_pcrs_" + name, "pcrs is " + pcrs, _set(pcrs=pcrs), Tpm2("sha256:7"))
    yield _tpm("tpm2_pcrs_other", "pcrs is not the selection in the object's policy", _set(pcrs="sha256:8"),
               Tpm2("sha256:7"))
    yield _tpm("tpm2_pcr_digest_other", "pcr_digest is not the digest in the object's policy",
               _set(pcr_digest=b64u(bytes(32))), Tpm2("sha256:7"))
    yield _tpm("tpm2_pcr_digest_missing", "no pcr_digest beside pcrs", _set(pcr_digest=""), Tpm2("sha256:7"))
    yield _tpm("tpm2_pcr_digest_31", "pcr_digest of 31 bytes", _set(pcr_digest=b64u(bytes(31))), Tpm2("sha256:7"))
    yield _tpm("tpm2_policy_without_auth_value", "a policy of PolicyPCR alone, without PolicyAuthValue", lambda f: f.update(
        public=b64u(_public(f)[:12] + pr.sha256(bytes(32), bytes.fromhex("0000017F00000001000B03800000"),
                                                pr.b64u_decode(f["pcr_digest"])) + _public(f)[44:])),
               Tpm2("sha256:7"))
    signed = Tpm2("sha256:7", signer=SIGNER)
    yield _tpm("tpm2_policy_without_signer", "the policy of pcrs alone though there is a signer", lambda f: f.update(
        public=b64u(_public(f)[:12] + Tpm2("sha256:7").policy(bytes(32)) + _public(f)[44:])), signed)
    yield _tpm("tpm2_pcr_digest_with_signer", "pcr_digest beside a signer", _set(pcr_digest=b64u(bytes(32))), signed)
    yield _tpm("tpm2_signer_other", "signer is not the key in the object's policy", _set(signer=b64u(CAROL.spki)),
               signed)
    yield _tpm("tpm2_signer_rsa", "signer is an RSA key", _set(signer=b64u(OPS.spki)), signed)
    yield _tpm("tpm2_signer_off_curve", "signer is not on the curve", _set(signer=b64u(_off_curve(SIGNER.spki))),
               signed)
    yield _tpm("tpm2_auth_true_without_password", "auth is true though the path has no password", lambda f: f.update(
        auth=True, public=b64u(_public(f)[:6] + bytes.fromhex("00000012") + _public(f)[10:])), Tpm2(),
        password=False)
    yield _tpm("tpm2_noda_missing", "noDA clear though the path has no password", _public_edit(6, "00000012"), Tpm2(),
               password=False)


def shares_records():
    def members(count):
        return [("officer%d" % i, Ecdh(EcKey("officer %d" % i), "card%d" % i)) for i in range(count)]

    for name, comment, expect, threshold, count in (
            ("threshold_1", "threshold is 1", "limit", 1, 3), ("threshold_0", "threshold is 0", "limit", 0, 3),
            ("threshold_4_of_3", "threshold is above the number of members", "limit", 4, 3),
            ("one_member", "one member", "limit", 2, 1), ("no_member", "no member", "limit", 2, 0),
            ("17_members", "seventeen members", "limit", 2, 17)):
        yield _faulty("shares_" + name, comment, _set(threshold=threshold), Shares(2, *members(count)), expect=expect)

    def first(edit, index=0):
        return lambda f: edit(f["members"][index])

    def in_factor(edit, index=0):
        return lambda f: edit(f["members"][index]["factor"])

    good = [("alice", Rsa()), ("bob", Rsa(BOB, token="bob")), ("carol", Ecdh(CAROL, "carol"))]
    for name, comment, edit in (
            ("index_0", "an index of 0", first(_set(index=0))),
            ("index_from_0", "indices from 0", lambda f: [m.update(index=i) for i, m in enumerate(f["members"])] and None),
            ("index_order", "members in another order", lambda f: f["members"].reverse()),
            ("index_twice", "one index twice", first(_set(index=1), 1)),
            ("index_gap", "an index is skipped", first(_set(index=4), 2)),
            ("index_string", "an index as a string", first(_set(index="1"))),
            ("name_twice", "one name twice", first(_set(name="alice"), 1)),
            ("name_empty", "an empty name", first(_set(name=""))),
            ("same_token", "one spki in two members", lambda f: f["members"][1]["factor"].update(
                f["members"][0]["factor"])),
            ("commitment_31", "a commitment of 31 bytes", first(_set(commitment=b64u(bytes(31))))),
            ("commitment_missing", "no commitment", first(_without("commitment"))),
            ("member_unknown", "a member with one more", first(_set(role="x"))),
            ("factor_password", "a member's factor is a password", first(_set(factor={
                "type": "password", **PBKDF2}))),
            ("factor_shares", "a member's factor is shares", first(_set(factor={
                "type": "shares", "threshold": 2}))),
            ("mask_on_rsa", "a mask on an RSA member", in_factor(_set(mask=b64u(bytes(32))))),
            ("mask_missing", "a P-256 member without its mask", in_factor(_without("mask"), 2)),
            ("mask_31", "a mask of 31 bytes", in_factor(_set(mask=b64u(bytes(31))), 2)),
            ("member_wrapped_short", "a member's wrapped is too short", in_factor(_set(wrapped=b64u(b"\1" * 255)))),
            ("member_epk_off_curve", "a member's epk is not on the curve",
             in_factor(lambda r: r.update(epk=b64u(_off_curve(pr.b64u_decode(r["epk"])))), 2)),
            ("threshold_string", "threshold is a string", _set(threshold="2")),
            ("members_object", "members is an object", _set(members={})),
            ("threshold_missing", "no threshold", _without("threshold")),
            ("unknown", "a member more", _set(name="officers"))):
        yield _faulty("shares_" + name, comment, edit, Shares(2, *good))
