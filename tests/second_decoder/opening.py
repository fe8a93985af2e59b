"""Opens a path of a read envelope: factors, wrapped key, drill_key, tag, padding, in this order."""

import unicodedata

import primitives as pr
from primitives import PROT
from strict import Failure, Members, check, parse_json


class World:
    """What is at hand. Subclasses reach real devices; this one has nothing.

    rsa(factor) and ecdh(factor) return S; unseal(factor, auth_value or None) returns S;
    parent() returns this machine's parent_public, or None without a TPM.
    """

    password = None  # bytes as typed

    def rsa(self, factor):
        check(False, "no token for %s" % factor.token, "factor")

    ecdh = rsa

    def parent(self):
        return None

    def unseal(self, factor, auth_value):
        check(False, "no TPM", "factor")


def stretch(factor, typed):
    """S of a password; NFC, 1 to 127 bytes."""
    check(typed is not None, "no password was given", "factor")
    try:
        password = unicodedata.normalize("NFC", typed.decode("utf-8")).encode("utf-8")
    except UnicodeDecodeError:
        password = b""
    check(1 <= len(password) <= 127, "the password is not 1 to 127 bytes of UTF-8", "factor")
    if factor.kdf == "argon2id":
        return pr.argon2id(password, factor.salt, factor.t, factor.m, factor.p)
    return pr.pbkdf2(password, factor.salt, factor.iterations)


def open_path(envelope, path_id, world):
    """The protected key."""
    check(path_id in envelope.paths, "no path " + path_id, "factor")
    path = envelope.paths[path_id]
    for factor in path.factors:
        if factor.type == "tpm2":
            here = world.parent()
            check(here is not None, "no TPM here", "factor")
            check(
                here == factor.parent,
                "made for the TPM of %s, not for this one" % factor.host,
                "absent",
            )
    secrets = _factor_secrets(path, world)
    info = "keyescrow1|path|%s|%s" % (path.binding, "+".join(f.type for f in path.factors))
    out = pr.hkdf(b"".join(secrets), info, 96)
    if path.recovery:
        fk = _open_by_recovery_key(path, out[:64])
    else:
        fk = _open_compact(path.wrapped, out[:64])
    check(fk is not None and len(fk) == 32, "the wrapped key does not open", "unwrap")
    check(pr.ed25519_public(out[64:]) == path.drill_key, "drill_key is another key", "unwrap")
    return _open_content(envelope, fk)


def _factor_secrets(path, world):
    secrets, auth_value = {}, None
    for i, f in enumerate(path.factors):
        if f.type == "password":
            secrets[i] = stretch(f, world.password)
            auth_value = pr.hkdf(secrets[i], "keyescrow1|tpmauth|" + path.binding, 32)
    for i, f in enumerate(path.factors):
        if f.type.startswith("pkcs11"):
            secrets[i] = _token_secret(f, world)
        elif f.type == "shares":
            secrets[i] = _join_shares(f, path.binding, world)
        elif f.type == "tpm2":
            secrets[i] = world.unseal(f, auth_value if f.auth else None)
        check(
            secrets[i] is not None and len(secrets[i]) == 32,
            f.type + " yields no 32 bytes",
            "factor",
        )
    return [secrets[i] for i in range(len(path.factors))]


def _token_secret(factor, world):
    if factor.type == "pkcs11-rsa":
        return world.rsa(factor)
    return pr.x963_sha256(world.ecdh(factor), factor.info)


def _join_shares(factor, binding, world):
    """S of a shares factor, from the first good shares by index."""
    good, skipped = {}, []
    for member in factor.members:
        if len(good) == factor.threshold:
            break
        try:
            y = _token_secret(member.factor, world)
        except Failure as failure:
            if failure.word != "factor":
                raise
            skipped.append("%s (%s)" % (member.name, failure.why))
            continue
        if y is not None and member.factor.type == "pkcs11-ecdh":
            y = bytes(a ^ b for a, b in zip(y, member.factor.mask))
        label = "keyescrow1|share|%s|%d|" % (binding, member.index)
        if y is None or len(y) != 32 or pr.sha256(label.encode(), y) != member.commitment:
            skipped.append("%s (a bad share)" % member.name)
            continue
        good[member.index] = y
    check(
        len(good) == factor.threshold,
        "%d of %d shares; skipped %s" % (len(good), factor.threshold, ", ".join(skipped)),
        "factor",
    )
    return pr.gf_at_zero(good)


def _open_compact(c, key):
    return pr.cbc_hmac_open(key, c.header.encode(), c.iv, c.ciphertext, c.tag)


def private_scalar(recovery, pk):
    """d of a recovery key's private JWK; every fault is `unwrap`."""
    text = _open_compact(recovery.private, pk)
    check(text is not None, "the private JWK does not open", "unwrap")
    try:
        jwk = Members(parse_json(text, "private JWK"), "private JWK", "crv d kty x y")
        check(jwk.text("crv") == "P-256" and jwk.text("kty") == "EC", "not a P-256 key")
        d = int.from_bytes(jwk.data("d", 32), "big")
        point = tuple(int.from_bytes(jwk.data(c, 32), "big") for c in "xy")
    except Failure as failure:
        raise Failure("unwrap", failure.why) from failure
    check(0 < d < pr.N, "d is out of range", "unwrap")
    check(pr.multiply(d) == point == recovery.public, "d is not that of the public half", "unwrap")
    return d


def _open_by_recovery_key(path, pk):
    d = private_scalar(path.recovery, pk)
    shared = pr.multiply(d, path.wrapped.epk)[0].to_bytes(32, "big")
    return _open_compact(path.wrapped, pr.concat_kdf_512(shared, "A256CBC-HS512", path.wrapped.apv))


def _open_content(e, fk):
    cek = pr.hkdf(fk, "keyescrow1|content|" + e.names, 64)
    tag = pr.cbc_hmac_tag(cek, (PROT + "." + e.aad).encode(), e.iv, e.ciphertext)
    check(tag == e.tag, "the tag does not fit header and content", "mac")
    content = pr.unpad(pr.aes_cbc(cek[32:], e.iv, e.ciphertext, False))
    check(content is not None, "bad padding", "mac")
    check(content, "the content is empty")
    return content
