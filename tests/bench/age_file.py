"""Writes an age file for a passphrase with a chosen scrypt work factor.

age itself always takes a second of scrypt; with work factor 1 what is left is the program around it.
Formats: age-encryption.org/v1, RFC 8439 (ChaCha20-Poly1305), RFC 5869 (HKDF).
"""

import base64
import hashlib
import hmac
import os
import struct

MASK = 0xFFFFFFFF
QUARTERS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
            (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))


def chacha20_block(key: bytes, counter: int, nonce: bytes) -> bytes:
    initial = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *struct.unpack("<8I", key), counter,
               *struct.unpack("<3I", nonce)]
    state = list(initial)
    for _ in range(10):
        for a, b, c, d in QUARTERS:
            for x, y, z, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                state[x] = (state[x] + state[y]) & MASK
                mixed = state[z] ^ state[x]
                state[z] = ((mixed << bits) | (mixed >> (32 - bits))) & MASK
    return struct.pack("<16I", *((s + i) & MASK for s, i in zip(state, initial)))


def seal(key: bytes, nonce: bytes, plain: bytes) -> bytes:
    """ChaCha20-Poly1305 without associated data."""
    stream = b"".join(chacha20_block(key, 1 + n, nonce) for n in range(len(plain) // 64 + 1))
    sealed = bytes(p ^ s for p, s in zip(plain, stream))
    one_time = chacha20_block(key, 0, nonce)
    r = int.from_bytes(one_time[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    mac_data = sealed + bytes(-len(sealed) % 16) + struct.pack("<QQ", 0, len(sealed))
    total = 0
    for at in range(0, len(mac_data), 16):
        total = (total + int.from_bytes(mac_data[at:at + 16] + b"\1", "little")) * r % (2**130 - 5)
    tag = (total + int.from_bytes(one_time[16:32], "little")) % 2**128
    return sealed + tag.to_bytes(16, "little")


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    extracted = hmac.new(salt or bytes(32), secret, "sha256").digest()
    return hmac.new(extracted, info + b"\1", "sha256").digest()


def age_file(passphrase: bytes, plain: bytes, log_n: int) -> bytes:
    b64 = lambda data: base64.b64encode(data).rstrip(b"=")
    file_key, salt, nonce = os.urandom(16), os.urandom(16), os.urandom(16)
    wrap_key = hashlib.scrypt(passphrase, salt=b"age-encryption.org/v1/scrypt" + salt, n=1 << log_n,
                              r=8, p=1, dklen=32)
    header = b"\n".join([b"age-encryption.org/v1", b"-> scrypt %b %d" % (b64(salt), log_n),
                         b64(seal(wrap_key, bytes(12), file_key)), b"---"])
    mac = hmac.new(hkdf(file_key, b"", b"header"), header, "sha256").digest()
    last_chunk = bytes(11) + b"\1"
    return header + b" " + b64(mac) + b"\n" + nonce + seal(hkdf(file_key, nonce, b"payload"),
                                                            last_chunk, plain)
