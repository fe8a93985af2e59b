"""Makes envelopes of keyescrow/1 with fixed randomness, whole or with one chosen fault.

Every random value is a function of its purpose alone (`rnd`), so that two vectors differ only in
what their scenario changes. A scenario bends an envelope by hooks: functions that receive a level
of it (header, l1, p, l0 as a dict; the same with `_text` as a string; `file` as bytes) and return
the replacement, or change a dict in place and return nothing. Everything outside the hook's level
is computed after it, so the fault stays the only one.
"""

import base64
import json
import unicodedata

import primitives as pr
import rsa_keys
from primitives import PROT, b64u, sha256

PASSWORD = "correct horse battery staple"
SALT = "00112233445566778899aabbccddeeff"
ARGON2 = {"kdf": "argon2id", "salt": SALT, "t": 2, "m": 19456, "p": 1}
PBKDF2 = {"kdf": "pbkdf2-sha512", "salt": SALT, "iter": 210000}


def rnd(purpose, size):
    """`size` bytes that depend on `purpose` alone: SHA-256 in counter mode."""
    out = b""
    while len(out) < size:
        out += sha256(b"keyescrow test vectors|%s|%d" % (purpose.encode(), len(out) // 32))
    return out[:size]


class EcKey:
    def __init__(self, name):
        self.d = int.from_bytes(rnd("ec key " + name, 32), "big") % (pr.N - 1) + 1
        self.point = pr.multiply(self.d)
        self.jwk = pr.jwk(self.point)
        self.thumbprint = pr.thumbprint(self.jwk)
        self.spki = pr.ec_spki(self.point)

    def pem(self):
        """PKCS#8."""
        ec = pr.der(
            0x30,
            pr.der_int(1),
            pr.der(4, self.d.to_bytes(32, "big")),
            pr.der(0xA1, pr.der(3, b"\0", pr.point_bytes(self.point))),
        )
        body = pr.der(0x30, pr.der_int(0), pr.EC_SPKI_PREFIX[2:23], pr.der(4, ec))
        text = base64.b64encode(body).decode()
        lines = [text[i : i + 64] for i in range(0, len(text), 64)]
        return "\n".join(["-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----", ""])


class RsaKey:
    def __init__(self, n, pem):
        self.n, self._pem, self.spki = n, pem, pr.rsa_spki(n, 65537)

    def pem(self):
        return self._pem


AGENT, OTHER_AGENT = EcKey("agent"), EcKey("other agent")
CARD, CAROL, SIGNER, ESCROW = (
    EcKey("card"),
    EcKey("carol"),
    EcKey("pcr signer"),
    EcKey("recovery key"),
)
SRK, OTHER_SRK = EcKey("srk"), EcKey("other srk")
OPS = RsaKey(rsa_keys.RSA_OPS_N, rsa_keys.RSA_OPS_PEM)
BOB = RsaKey(rsa_keys.RSA_BOB_N, rsa_keys.RSA_BOB_PEM)
CONTENT = rnd("content", 32)


def coordinates(point):
    return b"".join(b"\0\x20" + c.to_bytes(32, "big") for c in point)


def parent_public(key):
    return bytes.fromhex("005A0023000B00030472000000060080004300100003 0010") + coordinates(
        key.point
    )


# ---- factors: make(place, binding, has_password, auth_value) -> (record, S)


class Password:
    type = "password"

    def __init__(self, password=PASSWORD, **kdf):
        self.password = unicodedata.normalize("NFC", password).encode()
        self.kdf = kdf or ARGON2

    def make(self, place, binding, has_password, auth_value):
        k = self.kdf
        if k["kdf"] == "argon2id":
            s = pr.argon2id(self.password, k["salt"], k["t"], k["m"], k["p"])
        else:
            s = pr.pbkdf2(self.password, k["salt"], k["iter"])
        return {"type": "password", **k}, s


class Rsa:
    type = "pkcs11-rsa"

    def __init__(
        self,
        key=OPS,
        alg="RSA-OAEP-256",
        token="ops",
        uri="pkcs11:token=ops;object=escrow;type=private",
        plaintext=None,
    ):
        self.key, self.alg, self.token, self.uri, self.plaintext = key, alg, token, uri, plaintext

    def make(self, place, binding, has_password, auth_value, share=None):
        s = self.plaintext or share or rnd(place + " S", 32)
        digest = "sha256" if self.alg == "RSA-OAEP-256" else "sha1"
        seed = rnd(place + " oaep seed", 32 if digest == "sha256" else 20)
        wrapped = pr.oaep_encrypt(self.key.n, 65537, s, digest, seed)
        return {
            "type": self.type,
            "alg": self.alg,
            "token": self.token,
            "spki": b64u(self.key.spki),
            "uri": self.uri,
            "wrapped": b64u(wrapped),
        }, s


class Ecdh:
    type = "pkcs11-ecdh"

    def __init__(self, key=CARD, token="card", uri="pkcs11:token=card;id=%01"):
        self.key, self.token, self.uri = key, token, uri

    def make(self, place, binding, has_password, auth_value, share=None):
        ephemeral = EcKey(place + " epk")
        epk, spki = b64u(pr.point_bytes(ephemeral.point)), b64u(self.key.spki)
        z = pr.multiply(ephemeral.d, self.key.point)[0].to_bytes(32, "big")
        s = pr.x963_sha256(z, "keyescrow1|ecdh|%s|%s" % (epk, spki))
        record = {
            "type": self.type,
            "crv": "P-256",
            "token": self.token,
            "spki": spki,
            "uri": self.uri,
            "epk": epk,
        }
        if share:
            record["mask"] = b64u(bytes(a ^ b for a, b in zip(s, share)))
        return record, s


class Shares:
    """`members`: (name, factor); `dealt`: index -> the share that is dealt instead of the right one."""

    type = "shares"

    def __init__(self, threshold, *members, dealt=None):
        self.threshold, self.members, self.dealt = threshold, members, dealt or {}
        self.known = None

    def make(self, place, binding, has_password, auth_value):
        secret = rnd(place + " S", 32)
        slopes = [rnd("%s coefficient %d" % (place, i), 32) for i in range(1, self.threshold)]
        members, shares, commitments = [], [], []
        for index, (name, factor) in enumerate(self.members, 1):
            y = self.dealt.get(index) or bytes(
                pr.gf_evaluate([secret[i], *(s[i] for s in slopes)], index) for i in range(32)
            )
            record, _ = factor.make("%s member %d" % (place, index), binding, False, None, share=y)
            commitment = sha256(("keyescrow1|share|%s|%d|" % (binding, index)).encode(), y)
            members.append(
                {"index": index, "name": name, "commitment": b64u(commitment), "factor": record}
            )
            shares.append(y)
            commitments.append(commitment)
        self.known = {
            "threshold": self.threshold,
            "secret": secret,
            "coefficients": tuple(slopes),
            "shares": tuple(shares),
            "commitments": tuple(commitments),
        }
        return {"type": self.type, "threshold": self.threshold, "members": members}, secret


class Tpm2:
    type = "tpm2"

    def __init__(self, pcrs="", signer=None, seed=False, host="db1", srk=SRK):
        self.pcrs, self.signer, self.seed, self.host, self.srk = pcrs, signer, seed, host, srk

    def policy(self, pcr_digest):
        x = bytes(32)
        if self.signer:
            name = b"\0\x0b" + sha256(
                bytes.fromhex("0023000B00060040000000100010 00030010"),
                coordinates(self.signer.point),
            )
            x = sha256(sha256(x, bytes.fromhex("0000016A"), name))
        elif self.pcrs:
            bits = sum(1 << int(n) for n in self.pcrs.partition(":")[2].split(","))
            selection = bytes.fromhex("00000001000B03") + bits.to_bytes(3, "little")
            x = sha256(x, bytes.fromhex("0000017F"), selection, pcr_digest)
        return sha256(x, bytes.fromhex("0000016B"))

    def make(self, place, binding, has_password, auth_value):
        s = rnd(place + " S", 32)
        digest = rnd(place + " pcr digest", 32) if self.pcrs and not self.signer else b""
        attributes = (0 if self.seed else 0x12) | (0 if has_password else 0x400)
        public = (
            bytes.fromhex("004E0008000B")
            + attributes.to_bytes(4, "big")
            + b"\0\x20"
            + self.policy(digest)
            + bytes.fromhex("00100020")
            + rnd(place + " unique", 32)
        )
        seed = bytes.fromhex("00440020") if self.seed else b""
        if self.seed:
            point = EcKey(place + " seed").point
            seed += point[0].to_bytes(32, "big") + b"\0\x20" + point[1].to_bytes(32, "big")
        return {
            "type": self.type,
            "host": self.host,
            "parent_public": b64u(parent_public(self.srk)),
            "pcrs": self.pcrs,
            "pcr_digest": b64u(digest),
            "signer": b64u(self.signer.spki) if self.signer else "",
            "auth": has_password,
            "seed": b64u(seed),
            "public": b64u(public),
            "private": b64u(b"\0\xa0" + rnd(place + " private", 160)),
        }, s


# ---- paths


class Path:
    """One path; `recovery` is a recovery key's name; hooks bend the wrapped key."""

    def __init__(self, id, *factors, recovery=None, seal_wrapped=None, seal_private=None, fk=None):
        self.id, self.factors, self.recovery, self.fk = id, factors, recovery, fk
        self.seal_wrapped, self.seal_private = seal_wrapped, seal_private
        self.known = {}

    def make(self, names):
        """The header's path; `names` = key_name|key_version|envelope_id. Fills `known`."""
        binding = "%s|%s" % (names, self.id)
        if self.recovery:
            binding = "@%s|%s" % (self.recovery, ESCROW.thumbprint)
        known = self.known = {"binding": binding, "secrets": {}}
        records, secrets = {}, {}
        has_password = any(f.type == "password" for f in self.factors)
        auth_value = None
        for i, factor in sorted(enumerate(self.factors), key=lambda x: x[1].type != "password"):
            record, s = factor.make(
                "%s factor %d" % (self.id, i), binding, has_password, auth_value
            )
            records[i], secrets[i] = record, s
            if factor.type == "password":
                auth_value = pr.hkdf(s, "keyescrow1|tpmauth|" + binding, 32)
                known["password_nfc"], known["auth_value"] = factor.password, auth_value
            if factor.type == "shares":
                known["shares"] = factor.known
            if factor.type == "tpm2":
                known["tpm"] = (parent_public(SRK), s)
        types = "+".join(f.type for f in self.factors)
        joined = b"".join(secrets[i] for i in range(len(self.factors)))
        known["path_info"] = "keyescrow1|path|%s|%s" % (binding, types)
        out = pr.hkdf(joined, known["path_info"], 96)
        known["pk"], known["drill_seed"] = out[:64], out[64:]
        known["drill_key"] = pr.ed25519_public(out[64:])
        known["secrets"] = {"%d %s" % (i, f.type): secrets[i] for i, f in enumerate(self.factors)}
        fk = rnd("FK", 32) if self.fk is None else self.fk
        path = {"id": self.id, "factors": [records[i] for i in range(len(self.factors))]}
        if self.recovery:
            path["wrapped_key"] = self._to_recovery_key(names, fk)
            private = json.dumps(
                dict(ESCROW.jwk, d=b64u(ESCROW.d.to_bytes(32, "big"))), separators=(",", ":")
            )
            seal = self.seal_private or compact
            path["recovery_key"] = {
                "name": self.recovery,
                "public": dict(ESCROW.jwk),
                "private": seal(known["pk"], private.encode(), self.id + " private"),
            }
        else:
            path["wrapped_key"] = (self.seal_wrapped or compact)(
                known["pk"], fk, self.id + " wrapped"
            )
        path["drill_key"] = b64u(known["drill_key"])
        return path

    def _to_recovery_key(self, names, fk):
        ephemeral = EcKey(self.id + " recovery epk")
        apv = ("keyescrow1|fk|%s|%s" % (names, self.id)).encode()
        header = json.dumps(
            {"alg": "ECDH-ES", "enc": "A256CBC-HS512", "apv": b64u(apv), "epk": ephemeral.jwk},
            separators=(",", ":"),
        )
        z = pr.multiply(ephemeral.d, ESCROW.point)[0].to_bytes(32, "big")
        key = pr.concat_kdf_512(z, "A256CBC-HS512", apv)
        return compact(key, fk, self.id + " wrapped", b64u(header.encode()))


def compact(key, plaintext, place, header=PROT, encrypted_key=""):
    """A compact JWE; the key is used directly."""
    iv = rnd(place + " iv", 16)
    ciphertext, tag = pr.cbc_hmac_seal(key, header.encode(), iv, plaintext)
    return ".".join([header, encrypted_key, b64u(iv), b64u(ciphertext), b64u(tag)])


# ---- the whole envelope


def dumps(value):
    return json.dumps(value, separators=(",", ":"))


class Envelope:
    """bytes, hash and every intermediate value of one envelope."""

    def __init__(
        self,
        *paths,
        content=CONTENT,
        agent=AGENT,
        key_name="prod/db/orders",
        key_version=1,
        host="db1",
        plaintext=None,
        ciphertext=None,
        members=None,
        **hooks
    ):
        self.paths = paths or (Path("password", Password()),)
        self.content, self.hooks, self.agent = content, hooks, agent
        envelope_id = b64u(rnd("envelope id", 16))
        names = "%s|%s|%s" % (key_name, key_version, envelope_id)
        header = {
            "format": "keyescrow/1",
            "envelope_id": envelope_id,
            "policy": "corp",
            "key_name": key_name,
            "key_version": key_version,
            "revision": 1,
            "previous": "",
            "host": host,
            "created": "2026-01-31T12:00:00Z",
            "updated": "2026-01-31T12:00:00Z",
            "agent": agent.thumbprint,
            "paths": [p.make(names) for p in self.paths],
        }
        header.update(members or {})
        self.header_text = self._level("header", header)
        self.aad = b64u(self.header_text.encode("latin-1"))
        fk = next((p.fk for p in self.paths if p.fk is not None), rnd("FK", 32))
        cek = pr.hkdf(fk, "keyescrow1|content|" + names, 64)
        iv = rnd("content iv", 16)
        if ciphertext is None:
            ciphertext = pr.aes_cbc(
                cek[32:], iv, pr.pad(content) if plaintext is None else plaintext, True
            )
        elif callable(ciphertext):
            ciphertext, self.content = ciphertext(cek[32:], iv)
        tag = pr.cbc_hmac_tag(cek, (PROT + "." + self.aad).encode(), iv, ciphertext)
        self.l1_text = self._level(
            "l1",
            {
                "protected": PROT,
                "aad": self.aad,
                "iv": b64u(iv),
                "ciphertext": b64u(ciphertext),
                "tag": b64u(tag),
            },
        )
        p_text = self._level(
            "p",
            {
                "alg": "ES256",
                "jwk": dict(agent.jwk),
                "kid": agent.thumbprint,
                "typ": "keyescrow+jws",
            },
        )
        payload = b64u(self.l1_text.encode("latin-1"))
        protected = b64u(p_text.encode("latin-1"))
        signature = pr.ecdsa_sign(agent.d, (protected + "." + payload).encode())
        if "signature" in hooks:
            signature = hooks["signature"](signature)
        self.hash = sha256(payload.encode())
        l0_text = self._level(
            "l0", {"payload": payload, "protected": protected, "signature": b64u(signature)}
        )
        self.bytes = hooks.get("file", lambda b: b)(l0_text.encode("latin-1"))
        self.known = {
            "fk": fk,
            "cek": cek,
            "tag": tag,
            "envelope_hash": self.hash,
            "agent_thumbprint": agent.thumbprint,
        }

    def _level(self, name, value):
        hook = self.hooks.get(name)
        changed = hook(value) if hook else None
        text = dumps(value if changed is None else changed)
        return self.hooks.get(name + "_text", lambda t: t)(text)


def odd_modulus(bits, purpose):
    """An odd number of exactly `bits` bits: a modulus for records that nobody opens."""
    value = int.from_bytes(rnd(purpose, (bits + 7) // 8), "big") & ((1 << bits) - 1)
    return value | 1 << (bits - 1) | 1
