"""The records of a path's factors: form, ranges and the TPM policy that must follow from them."""

import re

import primitives as pr
from strict import Members, check

NAME = r"[A-Za-z0-9._-]{1,64}"
ORDER = {"pkcs11-rsa": 0, "pkcs11-ecdh": 0, "shares": 1, "password": 2, "tpm2": 3}


class Factor:
    """`type`, and the members of that type as attributes."""

    def __init__(self, kind):
        self.type = kind


def read_all(records):
    """The Factors of one path, in order."""
    kinds = []
    for record in records:
        check(
            isinstance(record, dict) and isinstance(record.get("type"), str), "a factor has no type"
        )
        check(record["type"] in ORDER, "unknown factor " + record["type"])
        kinds.append(record["type"])
    ranks = [ORDER[k] for k in kinds]
    check(ranks == sorted(ranks), "factors out of order")
    check(all(ranks.count(r) <= 1 for r in (1, 2, 3)), "two shares, passwords or tpm2 in one path")
    result = [_READERS[k](r, "password" in kinds) for k, r in zip(kinds, records)]
    spkis = [f.spki for f in result if ORDER[f.type] == 0]
    spkis += [m.factor.spki for f in result if f.type == "shares" for m in f.members]
    check(len(set(spkis)) == len(spkis), "one public key twice in a path")
    return result


def _point(data, what):
    """Two big-endian coordinates, 64 bytes."""
    point = int.from_bytes(data[:32], "big"), int.from_bytes(data[32:], "big")
    check(pr.on_curve(*point), what + ": not on the curve")
    return point


def read_ec_spki(data, what):
    check(
        len(data) == 91 and data.startswith(pr.EC_SPKI_PREFIX + b"\4"), what + ": not a P-256 key"
    )
    return _point(data[27:], what)


def read_rsa_spki(data):
    """(n, e)."""
    check(len(data) <= 1200, "spki: longer than 1200 bytes")
    outer = pr.der_read(data, 0x30)
    check(outer and not outer[1] and outer[0].startswith(pr.RSA_ALGORITHM), "spki: not an RSA key")
    bits = pr.der_read(outer[0][len(pr.RSA_ALGORITHM) :], 3)
    check(bits and not bits[1] and bits[0][:1] == b"\0", "spki: not a bit string")
    numbers = pr.der_read(bits[0][1:], 0x30)
    check(numbers and not numbers[1], "spki: not canonical DER")
    n, rest = _der_positive(numbers[0])
    e, rest = _der_positive(rest)
    check(
        not rest and 2048 <= n.bit_length() <= 8192 and e > 1 and e % 2,
        "spki: modulus or exponent not permitted",
    )
    check(pr.rsa_spki(n, e) == data, "spki: not canonical DER")
    return n, e


def _der_positive(data):
    pair = pr.der_read(data, 2)
    check(pair and pair[0] and pair[0][0] < 0x80, "spki: not a positive integer")
    return int.from_bytes(pair[0], "big"), pair[1]


_URI_VALUE = r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=&]|%[0-9A-Fa-f]{2})*"
_URI_TYPES = ("public", "private", "cert", "secret-key", "data")


def _check_uri(uri):
    check(
        len(uri) <= 512 and uri.startswith("pkcs11:"), "uri: not a pkcs11 URI of at most 512 bytes"
    )
    seen = set()
    for attribute in uri[len("pkcs11:") :].split(";"):
        match = re.fullmatch(
            "(token|manufacturer|serial|model|object|id|type)=(%s)" % _URI_VALUE, attribute
        )
        check(match, "uri: attribute not permitted: " + attribute)
        name, value = match.groups()
        check(name not in seen, "uri: %s twice" % name)
        check(name != "type" or value in _URI_TYPES, "uri: unknown type")
        seen.add(name)


def _rsa(record, has_password, member=False):
    m = Members(record, "pkcs11-rsa", "type alg token spki uri wrapped")
    f = Factor("pkcs11-rsa")
    f.digest = {"RSA-OAEP": "sha1", "RSA-OAEP-256": "sha256"}.get(m.text("alg"))
    check(f.digest, "pkcs11-rsa: unknown alg")
    f.token, f.spki, f.uri = m.text("token", NAME), m.data("spki"), m.text("uri")
    f.n, f.e = read_rsa_spki(f.spki)
    f.wrapped = m.data("wrapped", (f.n.bit_length() + 7) // 8)
    _check_uri(f.uri)
    return f


def _ecdh(record, has_password, member=False):
    m = Members(record, "pkcs11-ecdh", "type crv token spki uri epk" + (" mask" if member else ""))
    f = Factor("pkcs11-ecdh")
    check(m.text("crv") == "P-256", "pkcs11-ecdh: crv is not P-256")
    f.token, f.spki, f.uri = m.text("token", NAME), m.data("spki"), m.text("uri")
    read_ec_spki(f.spki, "spki")
    _check_uri(f.uri)
    epk = m.data("epk", 65)
    check(epk[0] == 4, "epk: not an uncompressed point")
    f.epk, f.epk_bytes = _point(epk[1:], "epk"), epk
    f.mask = m.data("mask", 32) if member else None
    f.info = "keyescrow1|ecdh|%s|%s" % (m.text("epk"), m.text("spki"))
    return f


def _shares(record, has_password):
    m = Members(record, "shares", "type threshold members")
    f = Factor("shares")
    members = m.get("members", list)
    check(2 <= len(members) <= 16, "shares: not 2 to 16 members", "limit")
    f.threshold = m.number("threshold", 2, len(members))
    f.members = []
    for index, value in enumerate(members, 1):
        s = Members(value, "member", "index name commitment factor")
        share = Factor("member")
        share.index = s.number("index", index, index, "format")
        share.name, share.commitment = s.text("name", NAME), s.data("commitment", 32)
        kind = s.get("factor", dict).get("type")
        check(kind in ("pkcs11-rsa", "pkcs11-ecdh"), "member: its factor is no token")
        share.factor = _READERS[kind](s.raw("factor"), False, member=True)
        f.members.append(share)
    check(len({s.name for s in f.members}) == len(f.members), "shares: one name twice")
    return f


def _password(record, has_password):
    kdf = record.get("kdf")
    check(kdf in ("argon2id", "pbkdf2-sha512"), "password: unknown kdf")
    m = Members(record, "password", "type kdf salt " + ("t m p" if kdf == "argon2id" else "iter"))
    f = Factor("password")
    f.kdf, f.salt = kdf, m.text("salt", r"[0-9a-f]{32}")
    if kdf == "argon2id":
        f.t, f.m, f.p = m.number("t", 1, 32), m.number("m", 19456, 4194304), m.number("p", 1, 16)
        check(f.t * f.m <= 33554432, "password: t times m is too large", "limit")
        check(f.t > 1 or f.m >= 47104, "password: one pass needs m of 47104", "limit")
    else:
        f.iterations = m.number("iter", 210000, 20000000)
    return f


def _tpm2(record, has_password):
    m = Members(
        record, "tpm2", "type host parent_public pcrs pcr_digest signer auth seed public private"
    )
    f = Factor("tpm2")
    f.host = m.text("host", NAME)
    f.parent = m.data("parent_public", 92)
    check(
        f.parent[:24] == bytes.fromhex("005A0023000B000304720000000600800043001000030010"),
        "tpm2: parent_public is not our storage key's template",
    )
    _two_coordinates(f.parent[24:], "parent_public")
    f.pcrs, f.pcr_list = m.text("pcrs"), []
    if f.pcrs:
        match = re.fullmatch(r"sha256:((?:0|[1-9][0-9]?)(?:,(?:0|[1-9][0-9]?))*)", f.pcrs)
        check(match, "tpm2: pcrs not of the permitted form")
        f.pcr_list = [int(n) for n in match.group(1).split(",")]
        check(
            f.pcr_list == sorted(set(f.pcr_list)) and f.pcr_list[-1] <= 23,
            "tpm2: pcrs not ascending, 0 to 23",
        )
    f.signer = m.data("signer", 0, 91)
    signer_point = read_ec_spki(f.signer, "signer") if f.signer else None
    check(f.pcrs or not f.signer, "tpm2: signer without pcrs")
    f.pcr_digest = m.data("pcr_digest", 32 if f.pcrs and not f.signer else 0)
    f.auth = m.get("auth", bool)
    check(f.auth == has_password, "tpm2: auth is true exactly when the path has a password")
    f.seed = m.data("seed", 0, 70)
    if f.seed:
        check(f.seed[:2] == b"\0\x44", "tpm2: seed has the wrong size field")
        _two_coordinates(f.seed[2:], "seed")
    f.private = m.data("private")
    check(
        3 <= len(f.private) <= 512 and int.from_bytes(f.private[:2], "big") == len(f.private) - 2,
        "tpm2: private has the wrong size",
    )
    f.public = m.data("public", 80)
    attributes = (0 if f.seed else 0x12) | (0 if f.auth else 0x400)
    expected = (
        bytes.fromhex("004E0008000B")
        + attributes.to_bytes(4, "big")
        + b"\0\x20"
        + tpm_policy(f.pcr_list, f.pcr_digest, signer_point)
        + bytes.fromhex("00100020")
    )
    check(
        f.public[:48] == expected,
        "tpm2: public has other attributes or another policy than the record",
    )
    return f


def _two_coordinates(data, what):
    check(data[:2] == b"\0\x20" and data[34:36] == b"\0\x20", what + ": wrong size field")
    return _point(data[2:34] + data[36:], what)


def tpm_policy(pcr_list, pcr_digest, signer_point):
    """X: the authPolicy of the sealed object."""
    digest = bytes(32)
    if signer_point:
        name = pr.sha256(
            bytes.fromhex("0023000B0006004000000010001000030010"),
            b"".join(b"\0\x20" + c.to_bytes(32, "big") for c in signer_point),
        )
        digest = pr.sha256(pr.sha256(digest, bytes.fromhex("0000016A000B"), name))
    elif pcr_list:
        select = bytearray(3)
        for n in pcr_list:
            select[n // 8] |= 1 << n % 8
        digest = pr.sha256(
            digest, bytes.fromhex("0000017F00000001000B03"), bytes(select), pcr_digest
        )
    return pr.sha256(digest, bytes.fromhex("0000016B"))


_READERS = {
    "pkcs11-rsa": _rsa,
    "pkcs11-ecdh": _ecdh,
    "shares": _shares,
    "password": _password,
    "tpm2": _tpm2,
}
