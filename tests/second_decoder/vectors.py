"""Runs the files of tests/vectors. A token is a private key in the file; a TPM is a double."""

import base64
import gzip
import os

import header
import opening
import primitives as pr
from strict import Failure, check

EXPECTED = (
    "ok",
    "format",
    "limit",
    "signature",
    "factor",
    "unwrap",
    "mac",
    "absent",
)
KEYS = (
    "expect source comment path password_hex trust token_key_pem_b64 tpm_parent_hex tpm_sealed_hex "
    "tpm_auth_hex content_hex envelope_gz_b64"
).split()


class VectorWorld(opening.World):
    def __init__(self, fields, tokens):
        self._fields, self._keys = fields, dict(map(private_key, tokens))
        self.password = _hex(fields.get("password_hex"))

    def rsa(self, factor):
        check(factor.spki in self._keys, "no token for %s" % factor.token, "factor")
        return pr.oaep_decrypt(factor.n, self._keys[factor.spki], factor.wrapped, factor.digest)

    def ecdh(self, factor):
        check(factor.spki in self._keys, "no token for %s" % factor.token, "factor")
        return pr.multiply(self._keys[factor.spki], factor.epk)[0].to_bytes(32, "big")

    def parent(self):
        return _hex(self._fields.get("tpm_parent_hex"))

    def unseal(self, factor, auth_value):
        check(
            auth_value == _hex(self._fields.get("tpm_auth_hex")),
            "the TPM refuses this authValue",
            "factor",
        )
        return _hex(self._fields["tpm_sealed_hex"])


def _hex(text):
    return None if text is None else bytes.fromhex(text)


def private_key(pem_b64):
    """(spki, d) of a PKCS#8 PEM in base64."""
    body = b"".join(base64.b64decode(pem_b64).split(b"\n")[1:-2])
    inner = pr.der_read(base64.b64decode(body), 0x30)[0]
    _, rest = pr.der_read(inner, 2)
    algorithm, rest = pr.der_read(rest, 0x30)
    key = pr.der_read(pr.der_read(rest, 4)[0], 0x30)[0]
    _, rest = pr.der_read(key, 2)
    if pr.der(0x30, algorithm) == pr.RSA_ALGORITHM:
        n, rest = pr.der_read(rest, 2)
        e, rest = pr.der_read(rest, 2)
        d, _ = pr.der_read(rest, 2)
        return pr.rsa_spki(int.from_bytes(n, "big"), int.from_bytes(e, "big")), int.from_bytes(
            d, "big"
        )
    d = int.from_bytes(pr.der_read(rest, 4)[0], "big")
    return pr.ec_spki(pr.multiply(d)), d


def parse(data):
    """(fields, token keys, envelope bytes); ValueError on anything not in README.md."""
    head, separator, body = data.partition(b"\n\n")
    fields, tokens = {}, []
    for line in head.decode("utf-8").split("\n"):
        key, colon, value = line.partition(": ")
        if not colon or key not in KEYS or key in fields:
            raise ValueError("line not understood: " + line[:60])
        if key == "token_key_pem_b64":
            tokens.append(value)
        else:
            fields[key] = value
    if (
        not separator
        or {"expect", "source", "comment"} - set(fields)
        or fields["expect"] not in EXPECTED
    ):
        raise ValueError("expect, source, comment or the envelope is missing")
    if ("content_hex" in fields) != (fields["expect"] == "ok" and "path" in fields):
        raise ValueError("content_hex stands exactly beside expect: ok with a path")
    if ("tpm_sealed_hex" in fields) != ("tpm_parent_hex" in fields):
        raise ValueError("tpm_parent_hex and tpm_sealed_hex stand together")
    if "envelope_gz_b64" in fields:
        body = gzip.decompress(base64.b64decode(body, validate=True))
    return fields, tokens, body


def parse_trust(text):
    """A Trust from `THUMBPRINT [hosts=a,b] [keys=c,d]`."""
    thumbprint, *scopes = text.split(" ")
    patterns = {}
    for scope in scopes:
        name, _, value = scope.partition("=")
        if name not in ("hosts", "keys") or name in patterns or not value:
            raise ValueError("trust not understood: " + text)
        patterns[name] = value.split(",")
    return header.Trust(thumbprint, **patterns)


def outcome(data):
    """(expected, actual, why) of one file's bytes."""
    fields, tokens, body = parse(data)
    trusts = [parse_trust(fields["trust"])] if "trust" in fields else []
    try:
        envelope = header.read(body, trusts)
        if "path" in fields:
            content = opening.open_path(envelope, fields["path"], VectorWorld(fields, tokens))
            if fields["expect"] == "ok" and content != bytes.fromhex(fields["content_hex"]):
                return fields["expect"], "other content", ""
        return fields["expect"], "ok", ""
    except Failure as failure:
        return fields["expect"], failure.word, failure.why


def run_all(folder, verbose=False):
    """Number of files that disagree; prints each."""
    names = sorted(n for n in os.listdir(folder) if n.endswith(".txt"))
    wrong = 0
    for name in names:
        with open(os.path.join(folder, name), "rb") as file:
            expected, actual, why = outcome(file.read())
        wrong += expected != actual
        if expected != actual:
            print("FAIL %s: expected %s, got %s (%s)" % (name, expected, actual, why))
        elif verbose:
            print("ok   %s: %s %s" % (name, actual, why))
    print("%d files, %d disagree" % (len(names), wrong))
    return wrong if names else 1
