"""Primitives of keyescrow/1 in Python's standard library, the argon2 command and libcrypto's AES.

Shared by the second decoder and by the generator of tests/vectors. Test code: not constant time.
Sources: RFC 7518 (JWA), RFC 5869 (HKDF), RFC 8017 (OAEP), RFC 6979, RFC 8032, SEC 1, X9.63.
"""

import base64
import ctypes
import ctypes.util
import hashlib
import hmac
import re
import subprocess

PROT = "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2Q0JDLUhTNTEyIn0"  # {"alg":"dir","enc":"A256CBC-HS512"}

# ---- base64url


def b64u(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def b64u_decode(text):
    """Bytes of canonical unpadded base64url; None for any other text."""
    if not re.fullmatch(r"[A-Za-z0-9_-]*", text) or len(text) % 4 == 1:
        return None
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return data if b64u(data) == text else None


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


# ---- HKDF-SHA-512 with an empty salt, and the password KDFs


def hkdf(key, info, length):
    info = info.encode() if isinstance(info, str) else info
    prk = hmac.digest(b"\0" * 64, key, "sha512")
    out, block, counter = b"", b"", 1
    while len(out) < length:
        block = hmac.digest(prk, block + info + bytes([counter]), "sha512")
        out += block
        counter += 1
    return out[:length]


_kdf_cache = {}


def argon2id(password, salt_text, t, m_kib, p):
    """32 bytes from the argon2 command (version 0x13); the salt is the text itself."""
    key = ("argon2id", password, salt_text, t, m_kib, p)
    if key not in _kdf_cache:
        out = subprocess.run(
            [
                "argon2",
                salt_text,
                "-id",
                "-t",
                str(t),
                "-k",
                str(m_kib),
                "-p",
                str(p),
                "-l",
                "32",
                "-r",
            ],
            input=password,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
        ).stdout
        _kdf_cache[key] = bytes.fromhex(out.decode().strip())
    return _kdf_cache[key]


def pbkdf2(password, salt_text, iterations):
    key = ("pbkdf2", password, salt_text, iterations)
    if key not in _kdf_cache:
        _kdf_cache[key] = hashlib.pbkdf2_hmac(
            "sha512", password, salt_text.encode(), iterations, 32
        )
    return _kdf_cache[key]


# ---- AES-256-CBC without padding (libcrypto) and A256CBC-HS512

_crypto = ctypes.CDLL(ctypes.util.find_library("crypto") or "libcrypto.so.3")
_crypto.EVP_CIPHER_CTX_new.restype = ctypes.c_void_p
_crypto.EVP_CIPHER_CTX_free.argtypes = [ctypes.c_void_p]
_crypto.EVP_aes_256_cbc.restype = ctypes.c_void_p
_crypto.EVP_CipherInit_ex.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_char_p] * 2 + [ctypes.c_int]
_crypto.EVP_CIPHER_CTX_set_padding.argtypes = [ctypes.c_void_p, ctypes.c_int]
_crypto.EVP_CipherUpdate.argtypes = [
    ctypes.c_void_p,
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.c_int),
    ctypes.c_char_p,
    ctypes.c_int,
]


def aes_cbc(key, iv, data, encrypt):
    assert len(key) == 32 and len(iv) == 16 and len(data) % 16 == 0
    ctx = _crypto.EVP_CIPHER_CTX_new()
    out, n = ctypes.create_string_buffer(len(data) + 32), ctypes.c_int()
    good = (
        _crypto.EVP_CipherInit_ex(ctx, _crypto.EVP_aes_256_cbc(), None, key, iv, int(encrypt)) == 1
        and _crypto.EVP_CIPHER_CTX_set_padding(ctx, 0) == 1
        and _crypto.EVP_CipherUpdate(ctx, out, ctypes.byref(n), data, len(data)) == 1
    )
    _crypto.EVP_CIPHER_CTX_free(ctx)
    if not good or n.value != len(data):
        raise RuntimeError("libcrypto refused AES-256-CBC")
    return out.raw[: len(data)]


def pad(data):
    n = 16 - len(data) % 16
    return data + bytes([n]) * n


def unpad(data):
    """The content without its PKCS#7 padding; None for a bad one."""
    n = data[-1] if data else 0
    return data[:-n] if 1 <= n <= 16 and data[-n:] == bytes([n]) * n else None


def cbc_hmac_tag(key, aad, iv, ciphertext):
    """RFC 7518 5.2.5; key = MAC key || AES key, 64 bytes."""
    message = aad + iv + ciphertext + (8 * len(aad)).to_bytes(8, "big")
    return hmac.digest(key[:32], message, "sha512")[:32]


def cbc_hmac_seal(key, aad, iv, plaintext):
    ciphertext = aes_cbc(key[32:], iv, pad(plaintext), True)
    return ciphertext, cbc_hmac_tag(key, aad, iv, ciphertext)


def cbc_hmac_open(key, aad, iv, ciphertext, tag):
    """The plaintext; None for a bad tag or bad padding."""
    if not hmac.compare_digest(cbc_hmac_tag(key, aad, iv, ciphertext), tag):
        return None
    return unpad(aes_cbc(key[32:], iv, ciphertext, False))


# ---- P-256

P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
CURVE_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)


def on_curve(x, y):
    return 0 <= x < P and 0 <= y < P and (y * y - (x * x * x - 3 * x + CURVE_B)) % P == 0


def _double(a):
    x, y, z = a
    if not y or not z:
        return (0, 0, 0)
    delta, gamma = z * z % P, y * y % P
    beta = x * gamma % P
    alpha = 3 * (x - delta) * (x + delta) % P
    x3 = (alpha * alpha - 8 * beta) % P
    z3 = ((y + z) * (y + z) - gamma - delta) % P
    return (x3, (alpha * (4 * beta - x3) - 8 * gamma * gamma) % P, z3)


def _add(a, b):
    if not a[2]:
        return b
    if not b[2]:
        return a
    z1z1, z2z2 = a[2] * a[2] % P, b[2] * b[2] % P
    u1, u2 = a[0] * z2z2 % P, b[0] * z1z1 % P
    s1, s2 = a[1] * b[2] * z2z2 % P, b[1] * a[2] * z1z1 % P
    if u1 == u2:
        return _double(a) if s1 == s2 else (0, 0, 0)
    h, r = (u2 - u1) % P, (s2 - s1) % P
    hh = h * h % P
    hhh, v = h * hh % P, u1 * hh % P
    x3 = (r * r - hhh - 2 * v) % P
    return (x3, (r * (v - x3) - s1 * hhh) % P, h * a[2] * b[2] % P)


def _affine(a):
    if not a[2]:
        return None
    i = pow(a[2], -1, P)
    return (a[0] * i * i % P, a[1] * i * i * i % P)


def multiply(k, point=G):
    """k·point, affine; None for the point at infinity."""
    total, addend = (0, 0, 0), (point[0], point[1], 1)
    while k:
        if k & 1:
            total = _add(total, addend)
        addend = _double(addend)
        k >>= 1
    return _affine(total)


def point_bytes(point):
    return b"\4" + point[0].to_bytes(32, "big") + point[1].to_bytes(32, "big")


def ecdsa_verify(public, message, signature):
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if len(signature) != 64 or not 0 < r < N or not 0 < s < N:
        return False
    e, w = int.from_bytes(sha256(message), "big"), pow(s, -1, N)
    a, b = multiply(e * w % N), multiply(r * w % N, public)
    total = _affine(_add((*a, 1) if a else (0, 0, 0), (*b, 1) if b else (0, 0, 0)))
    return total is not None and total[0] % N == r


def ecdsa_sign(private, message):
    """R || S with RFC 6979's nonce: the same message gives the same signature."""
    digest = sha256(message)
    seed = private.to_bytes(32, "big") + (int.from_bytes(digest, "big") % N).to_bytes(32, "big")
    v, k = b"\1" * 32, b"\0" * 32
    k = hmac.digest(k, v + b"\0" + seed, "sha256")
    v = hmac.digest(k, v, "sha256")
    k = hmac.digest(k, v + b"\1" + seed, "sha256")
    v = hmac.digest(k, v, "sha256")
    while True:
        v = hmac.digest(k, v, "sha256")
        nonce = int.from_bytes(v, "big")
        if 0 < nonce < N:
            r = multiply(nonce)[0] % N
            s = pow(nonce, -1, N) * (int.from_bytes(digest, "big") + r * private) % N
            if r and s:
                return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        k = hmac.digest(k, v + b"\0", "sha256")
        v = hmac.digest(k, v, "sha256")


def jwk(point):
    return {
        "crv": "P-256",
        "kty": "EC",
        "x": b64u(point[0].to_bytes(32, "big")),
        "y": b64u(point[1].to_bytes(32, "big")),
    }


def thumbprint(key):
    text = '{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}' % (key["x"], key["y"])
    return b64u(sha256(text.encode()))


EC_SPKI_PREFIX = bytes.fromhex("3059301306072A8648CE3D020106082A8648CE3D030107034200")


def ec_spki(point):
    return EC_SPKI_PREFIX + point_bytes(point)


def x963_sha256(shared_x, info):
    """One block, 32 bytes (ANSI X9.63)."""
    return sha256(shared_x, b"\0\0\0\1", info.encode())


def concat_kdf_512(shared_x, algorithm, apv):
    """RFC 7518 4.6.2 with an empty apu, 64 bytes."""
    other = b"".join(len(x).to_bytes(4, "big") + x for x in (algorithm.encode(), b"", apv))
    other += (512).to_bytes(4, "big")
    return sha256(b"\0\0\0\1", shared_x, other) + sha256(b"\0\0\0\2", shared_x, other)


# ---- RSA-OAEP


def _mgf1(seed, length, digest):
    out = b"".join(
        hashlib.new(digest, seed + i.to_bytes(4, "big")).digest()
        for i in range(length // hashlib.new(digest).digest_size + 1)
    )
    return out[:length]


def _xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def oaep_encrypt(n, e, message, digest, seed):
    size = (n.bit_length() + 7) // 8
    lhash = hashlib.new(digest, b"").digest()
    assert len(seed) == len(lhash)
    db = lhash + b"\0" * (size - len(message) - 2 * len(lhash) - 2) + b"\1" + message
    masked = _xor(db, _mgf1(seed, len(db), digest))
    em = b"\0" + _xor(seed, _mgf1(masked, len(seed), digest)) + masked
    return pow(int.from_bytes(em, "big"), e, n).to_bytes(size, "big")


def oaep_unpad(em, digest):
    """The message; None for a bad encoding. Not constant time: for vectors alone."""
    lhash = hashlib.new(digest, b"").digest()
    size = len(lhash)
    if len(em) < 2 * size + 2 or em[0]:
        return None
    seed = _xor(em[1 : 1 + size], _mgf1(em[1 + size :], size, digest))
    db = _xor(em[1 + size :], _mgf1(seed, len(em) - size - 1, digest))
    body = db[size:].lstrip(b"\0")
    return body[1:] if db[:size] == lhash and body[:1] == b"\1" else None


def oaep_decrypt(n, d, ciphertext, digest):
    c = int.from_bytes(ciphertext, "big")
    size = (n.bit_length() + 7) // 8
    return oaep_unpad(pow(c, d, n).to_bytes(size, "big"), digest) if c < n else None


# ---- DER


def der(tag, *content):
    body = b"".join(content)
    if len(body) < 128:
        return bytes([tag, len(body)]) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def der_int(value):
    return der(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def der_read(data, tag):
    """(content, rest) of one canonical element with this tag; None for anything else."""
    if len(data) < 2 or data[0] != tag:
        return None
    length, at = data[1], 2
    if length & 0x80:
        count = length & 0x7F
        length, at = int.from_bytes(data[2 : 2 + count], "big"), 2 + count
    if at + length > len(data) or der(tag, data[at : at + length]) != data[: at + length]:
        return None
    return data[at : at + length], data[at + length :]


RSA_ALGORITHM = bytes.fromhex("300D06092A864886F70D0101010500")


def rsa_spki(n, e):
    return der(0x30, RSA_ALGORITHM, der(3, b"\0", der(0x30, der_int(n), der_int(e))))


# ---- Ed25519 (RFC 8032 5.1)

_Q = 2**255 - 19
_D = -121665 * pow(121666, -1, _Q) % _Q


def _ed_add(a, b):
    x = (a[1] - a[0]) * (b[1] - b[0]) % _Q
    y = (a[1] + a[0]) * (b[1] + b[0]) % _Q
    t, z = 2 * a[3] * b[3] * _D % _Q, 2 * a[2] * b[2] % _Q
    e, f, g, h = y - x, z - t, z + t, y + x
    return (e * f % _Q, g * h % _Q, f * g % _Q, e * h % _Q)


def _ed_multiply(k, point):
    total, addend = (0, 1, 1, 0), point
    while k:
        if k & 1:
            total = _ed_add(total, addend)
        addend = _ed_add(addend, addend)
        k >>= 1
    return total


def _ed_encode(point):
    inverse = pow(point[2], -1, _Q)
    x, y = point[0] * inverse % _Q, point[1] * inverse % _Q
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _ed_decode(data):
    """The point, or None where these 32 bytes are none."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    if y >= _Q:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _Q) % _Q
    x = pow(square, (_Q + 3) // 8, _Q)
    if x * x % _Q != square:
        x = x * pow(2, (_Q - 1) // 4, _Q) % _Q
    if x * x % _Q != square or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = _Q - x
    return (x, y, 1, x * y % _Q)


_ED_Y = 4 * pow(5, -1, _Q) % _Q
_ED_X = 15112221349535400772501151409588531511454012693041857206046113283949847762202
_ED_BASE = (_ED_X, _ED_Y, 1, _ED_X * _ED_Y % _Q)
_ED_ORDER = 2**252 + 27742317777372353535851937790883648493


def ed25519_public(seed):
    h = hashlib.sha512(seed).digest()
    k = (int.from_bytes(h[:32], "little") & ((1 << 254) - 8)) | (1 << 254)
    return _ed_encode(_ed_multiply(k, _ED_BASE))


def ed25519_verify(public, message, signature):
    """RFC 8032 5.1.7, without the cofactor."""
    point, commitment = _ed_decode(public), signature[:32]
    s = int.from_bytes(signature[32:], "little")
    if len(signature) != 64 or point is None or s >= _ED_ORDER:
        return False
    h = int.from_bytes(hashlib.sha512(commitment + public + message).digest(), "little")
    negated = (_Q - point[0], point[1], 1, _Q - point[3])
    sum_ = _ed_add(_ed_multiply(s, _ED_BASE), _ed_multiply(h % _ED_ORDER, negated))
    return _ed_encode(sum_) == commitment


# ---- GF(2^8)/0x11d, gfcombine's field


def gf_multiply(a, b):
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = (a << 1) ^ (0x11D if a & 0x80 else 0)
        b >>= 1
    return product


def gf_evaluate(coefficients, x):
    """The polynomial at x; coefficients from x^0 up, one byte each."""
    y = 0
    for c in reversed(coefficients):
        y = gf_multiply(y, x) ^ c
    return y


def gf_invert(a):
    """a^254."""
    result = 1
    for _ in range(7):
        a = gf_multiply(a, a)
        result = gf_multiply(result, a)
    return result


def gf_at_zero(shares):
    """The value at x = 0 of the curve through {x: bytes}."""
    secret = bytes(len(next(iter(shares.values()))))
    for x, y in shares.items():
        weight = 1
        for other in shares:
            if other != x:
                weight = gf_multiply(weight, gf_multiply(other, gf_invert(other ^ x)))
        secret = bytes(a ^ gf_multiply(b, weight) for a, b in zip(secret, y))
    return secret
