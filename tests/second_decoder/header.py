"""The shape of an envelope: L0, P, L1, the header and its paths (design: keyescrow/1)."""

import re

import factors
import primitives as pr
from primitives import PROT, b64u, b64u_decode
from strict import Members, check, parse_json

NAME = r"[A-Za-z0-9._-]{1,64}"
PATH_ID = r"[A-Za-z0-9._-]{1,16}"
HASH_SIZE = 32
MAX_FILE, MAX_L1, MAX_HEADER, MAX_CIPHERTEXT = 3 << 20, 2 << 20, 256 << 10, (1 << 20) + 16


class Trust:
    """A trusted agent and what it may sign for; patterns as in a policy's `match`."""

    def __init__(self, thumbprint, hosts=None, keys=None):
        self.thumbprint, self.hosts, self.keys = thumbprint, hosts, keys

    def covers(self, host, key_name):
        return (self.hosts is None or any(_matches(p, host) for p in self.hosts)) and (
            self.keys is None or any(_matches(p, key_name) for p in self.keys)
        )


def _matches(pattern, name):
    parts = re.split(r"(\*\*|\*)", pattern)
    expression = "".join({"**": ".*", "*": "[^/]*"}.get(p, re.escape(p)) for p in parts)
    return re.fullmatch(expression, name) is not None


class Envelope:
    """A verified envelope. `paths` maps an id to its Path."""


class Path:
    pass


def read(data, trusts):
    """An Envelope whose signature, trust, shape, limits and scope are good; else Failure."""
    check(len(data) <= MAX_FILE, "the file is longer than 3 MiB", "limit")
    text = data[:-1] if data[-1:] == b"\n" else data
    l0 = Members(parse_json(text, "L0"), "L0", "payload protected signature")
    l1_bytes = l0.data("payload")
    jwk, kid = _read_p(parse_json(l0.data("protected"), "P"))
    signature = l0.data("signature", 64)
    signed = (l0.text("protected") + "." + l0.text("payload")).encode()
    check(pr.ecdsa_verify(jwk, signed, signature), "the signature does not verify", "signature")
    trust = next((t for t in trusts if t.thumbprint == kid), None)
    check(trust, "the agent is not trusted", "signature")

    check(len(l1_bytes) <= MAX_L1, "L1 is longer than 2 MiB", "limit")
    l1 = Members(parse_json(l1_bytes, "L1"), "L1", "protected aad iv ciphertext tag")
    check(l1.text("protected") == PROT, "L1.protected is not dir with A256CBC-HS512")
    e = Envelope()
    e.aad, e.iv, e.tag = l1.text("aad"), l1.data("iv", 16), l1.data("tag", 32)
    e.ciphertext = l1.data("ciphertext")
    check(len(e.ciphertext) <= MAX_CIPHERTEXT, "the ciphertext is too long", "limit")
    check(e.ciphertext and len(e.ciphertext) % 16 == 0, "the ciphertext is not of whole blocks")
    h_bytes = l1.data("aad")
    check(len(h_bytes) <= MAX_HEADER, "H is longer than 256 KiB", "limit")
    _read_header(e, parse_json(h_bytes, "H"), kid)
    e.hash = pr.sha256(l0.text("payload").encode())
    check(
        trust.covers(e.host, e.key_name), "the agent may not sign for this host or key", "signature"
    )
    return e


def _read_p(value):
    p = Members(value, "P", "alg jwk kid typ")
    check(p.text("alg") == "ES256", "P.alg is not ES256")
    check(p.text("typ") == "keyescrow+jws", "P.typ is not keyescrow+jws")
    point = read_jwk(p.raw("jwk"), "P.jwk")
    check(p.text("kid") == pr.thumbprint(p.raw("jwk")), "P.kid is not the thumbprint of P.jwk")
    return point, p.text("kid")


def read_jwk(value, what):
    """The point of a P-256 JWK of exactly crv, kty, x, y."""
    key = Members(value, what, "crv kty x y")
    check(key.text("crv") == "P-256" and key.text("kty") == "EC", what + ": not a P-256 key")
    point = tuple(int.from_bytes(key.data(c, 32), "big") for c in "xy")
    check(pr.on_curve(*point), what + ": not on the curve")
    return point


def _read_header(e, value, kid):
    h = Members(
        value,
        "header",
        "format envelope_id policy key_name key_version revision previous host "
        "created updated agent paths",
        "note",
    )
    check(h.text("format") == "keyescrow/1", "header.format is not keyescrow/1")
    h.data("envelope_id", 16)
    h.text("policy", NAME)
    e.key_name, e.host = h.text("key_name", NAME + "(/" + NAME + ")*"), h.text("host", NAME)
    segments = e.key_name.split("/")
    check(
        len(e.key_name) <= 128 and not {".", ".."} & set(segments), "header.key_name: not permitted"
    )
    version = h.number("key_version", 1, 2**31 - 1)
    revision = h.number("revision", 1, 2**31 - 1)
    h.data("previous", 0 if revision == 1 else HASH_SIZE)
    _read_time(h.text("created"))
    _read_time(h.text("updated"))
    check(h.text("agent") == kid, "header.agent is not P.kid")
    if "note" in h:
        check(len(h.text("note")) <= 1024, "header.note is longer than 1024 characters")
    e.names = "%s|%d|%s" % (e.key_name, version, h.text("envelope_id"))
    paths = h.get("paths", list)
    check(len(paths) <= 16, "more than 16 paths", "limit")
    check(paths, "no path")
    e.paths = {}
    for value in paths:
        path = _read_path(value, e.names)
        check(path.id not in e.paths, "path id %s twice" % path.id)
        e.paths[path.id] = path


def _read_time(text):
    match = re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)Z", text, re.ASCII)
    check(match, "not a time: " + text)
    year, month, day, hour, minute, second = map(int, match.groups())
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    days = {2: 29 if leap else 28, 4: 30, 6: 30, 9: 30, 11: 30}.get(month, 31)
    check(
        1 <= month <= 12 and 1 <= day <= days and hour < 24 and minute < 60 and second < 60,
        "not a valid date and time: " + text,
    )


def _read_path(value, names):
    p = Members(value, "path", "id factors wrapped_key drill_key", "recovery_key")
    path = Path()
    path.id, path.drill_key = p.text("id", PATH_ID), p.data("drill_key", 32)
    records = p.get("factors", list)
    check(1 <= len(records) <= 4, "path %s: not 1 to 4 factors" % path.id)
    path.factors = factors.read_all(records)
    path.binding = "%s|%s" % (names, path.id)
    path.recovery = None
    if "recovery_key" in p:
        path.recovery = _read_recovery_key(p.raw("recovery_key"))
        path.binding = "@%s|%s" % (path.recovery.name, path.recovery.thumbprint)
        path.wrapped = _read_ecdh_es(
            p.text("wrapped_key"), ("keyescrow1|fk|%s|%s" % (names, path.id)).encode()
        )
    else:
        path.wrapped = read_dir(p.text("wrapped_key"), "wrapped_key", 48)
    return path


class Compact:
    """The parts of a compact JWE; `header` is the text that the tag covers."""


def _parts(text, what, size):
    parts = text.split(".")
    check(len(parts) == 5, what + ": not five parts")
    check(parts[1] == "", what + ": the encrypted key is not empty")
    c = Compact()
    c.header = parts[0]
    c.iv, c.ciphertext, c.tag = (b64u_decode(p) for p in parts[2:])
    check(None not in (c.iv, c.ciphertext, c.tag), what + ": not canonical base64url")
    check(len(c.iv) == 16 and len(c.tag) == 32, what + ": wrong size of iv or tag")
    good = len(c.ciphertext) == size if size else c.ciphertext and len(c.ciphertext) % 16 == 0
    check(good, what + ": wrong size of the ciphertext")
    return c


def read_dir(text, what, size=None):
    c = _parts(text, what, size)
    check(c.header == PROT, what + ": its header is not dir with A256CBC-HS512")
    return c


def _read_ecdh_es(text, apv):
    c = _parts(text, "wrapped_key", 48)
    header = b64u_decode(c.header)
    check(header is not None, "wrapped_key: header not canonical base64url")
    h = Members(
        parse_json(header, "wrapped_key's header"), "wrapped_key's header", "alg enc apv epk"
    )
    check(
        h.text("alg") == "ECDH-ES" and h.text("enc") == "A256CBC-HS512",
        "wrapped_key: wrong algorithm",
    )
    check(h.text("apv") == b64u(apv), "wrapped_key: apv names another path or envelope")
    c.apv, c.epk = apv, read_jwk(h.raw("epk"), "wrapped_key's epk")
    return c


class RecoveryKey:
    pass


def _read_recovery_key(value):
    r = Members(value, "recovery_key", "name public private")
    key = RecoveryKey()
    key.name = r.text("name", NAME)
    key.public = read_jwk(r.raw("public"), "recovery_key.public")
    key.thumbprint = pr.thumbprint(r.raw("public"))
    key.private = read_dir(r.text("private"), "recovery_key.private")
    return key
