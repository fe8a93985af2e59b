"""Known answers of others for primitives.py: RFC 8032, RFC 6979, RFC 7518, openssl and jose."""

import hashlib
import json
import os
import subprocess
import tempfile

import drills
import primitives as pr

FUZZ_SEEDS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fuzz", "corpus")


def _openssl(*arguments, data=b""):
    return subprocess.run(
        ["openssl", *arguments],
        input=data,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        check=True,
    ).stdout


def run():
    """Raises AssertionError at the first primitive that disagrees."""
    # RFC 8032 7.1, test 1.
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    assert pr.ed25519_public(seed).hex() == (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    )
    # RFC 8032 7.1, test 2.
    public = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert pr.ed25519_verify(public, b"\x72", signature)
    assert not pr.ed25519_verify(public, b"\x73", signature)
    # An entry of the log with a drill's proof, signed by Python's cryptography (seed 00 01 … 1f).
    with open(os.path.join(FUZZ_SEEDS, "event", "drill_passed")) as file:
        entry = json.loads(file.read())
    with open(os.path.join(FUZZ_SEEDS, "drill", "challenged"), "rb") as file:
        assert drills.statement(entry) == file.read()
    signature = pr.b64u_decode(entry["drill"]["signature"])
    public = pr.ed25519_public(bytes(range(32)))
    assert pr.ed25519_verify(public, drills.statement(entry), signature)
    entry["drill"]["size"] += 1
    assert not pr.ed25519_verify(public, drills.statement(entry), signature)
    # RFC 6979 A.2.5, P-256, SHA-256, message "sample".
    private = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
    signature = pr.ecdsa_sign(private, b"sample")
    assert signature.hex() == (
        "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"
        "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8"
    )
    public = pr.multiply(private)
    assert pr.on_curve(*public) and pr.ecdsa_verify(public, b"sample", signature)
    assert not pr.ecdsa_verify(public, b"Sample", signature)
    # RFC 7518 B.3, A256CBC-HS512.
    aad = b"The second principle of Auguste Kerckhoffs"
    text = (
        b"A cipher system must not be required to be secret, and it must be able to fall into "
        b"the hands of the enemy without inconvenience"
    )
    iv = bytes.fromhex("1af38c2dc2b96ffdd86694092341bc04")
    ciphertext, tag = pr.cbc_hmac_seal(bytes(range(64)), aad, iv, text)
    assert ciphertext.hex().startswith(
        "4affaaadb78c31c5da4b1b590d10ffbd3dd8d5d302423526912da037ecbcc7bd"
    )
    assert tag.hex() == "4dd3b4c088a7f45c216839645b2012bf2e6269a8c56a816dbc1b267761955bc5"
    assert pr.cbc_hmac_open(bytes(range(64)), aad, iv, ciphertext, tag) == text
    # RFC 7518 appendix C has apu and apv; ours has an empty apu, so jose judges ECDH-ES below.
    hkdf = _openssl(
        "kdf",
        "-keylen",
        "96",
        "-kdfopt",
        "digest:SHA2-512",
        "-kdfopt",
        "hexkey:0b0b",
        "-kdfopt",
        "info:keyescrow1|path|x",
        "-binary",
        "HKDF",
    )
    assert hkdf == pr.hkdf(b"\x0b\x0b", "keyescrow1|path|x", 96)
    x963 = _openssl(
        "kdf",
        "-keylen",
        "32",
        "-kdfopt",
        "digest:SHA2-256",
        "-kdfopt",
        "hexkey:" + "07" * 32,
        "-kdfopt",
        "hexinfo:" + b"info".hex(),
        "-binary",
        "X963KDF",
    )
    assert x963 == pr.x963_sha256(b"\7" * 32, "info")
    assert pr.hashlib.pbkdf2_hmac("sha512", b"p", b"s", 1000, 32) == pr.pbkdf2(b"p", "s", 1000)
    _check_oaep()
    _check_ecdh_es()
    _check_shares()


def _check_oaep():
    with tempfile.TemporaryDirectory() as folder:
        key = os.path.join(folder, "k.pem")
        _openssl("genrsa", "-out", key, "2048")
        n = int(_openssl("rsa", "-in", key, "-noout", "-modulus").decode().split("=")[1], 16)
        spki = _openssl("pkey", "-in", key, "-pubout", "-outform", "DER")
        assert spki == pr.rsa_spki(n, 65537)
        for digest, size in (("sha1", 20), ("sha256", 32)):
            wrapped = pr.oaep_encrypt(n, 65537, b"m" * 32, digest, b"s" * size)
            opened = _openssl(
                "pkeyutl",
                "-decrypt",
                "-inkey",
                key,
                "-pkeyopt",
                "rsa_padding_mode:oaep",
                "-pkeyopt",
                "rsa_oaep_md:" + digest,
                "-pkeyopt",
                "rsa_mgf1_md:" + digest,
                data=wrapped,
            )
            assert opened == b"m" * 32
            em = _openssl(
                "pkeyutl",
                "-decrypt",
                "-inkey",
                key,
                "-pkeyopt",
                "rsa_padding_mode:none",
                data=wrapped,
            )
            assert pr.oaep_unpad(em, digest) == b"m" * 32


def _check_ecdh_es():
    """jose opens an ECDH-ES JWE made here, with apv."""
    private = int.from_bytes(hashlib.sha256(b"recipient").digest(), "big") % pr.N
    ephemeral = int.from_bytes(hashlib.sha256(b"ephemeral").digest(), "big") % pr.N
    public = pr.multiply(private)
    header = pr.b64u(
        json.dumps(
            {
                "alg": "ECDH-ES",
                "enc": "A256CBC-HS512",
                "apv": pr.b64u(b"apv"),
                "epk": pr.jwk(pr.multiply(ephemeral)),
            }
        ).encode()
    )
    key = pr.concat_kdf_512(
        pr.multiply(ephemeral, public)[0].to_bytes(32, "big"), "A256CBC-HS512", b"apv"
    )
    ciphertext, tag = pr.cbc_hmac_seal(key, header.encode(), b"i" * 16, b"content")
    compact = ".".join([header, "", pr.b64u(b"i" * 16), pr.b64u(ciphertext), pr.b64u(tag)])
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "k.jwk"), "w") as file:
            json.dump(dict(pr.jwk(public), d=pr.b64u(private.to_bytes(32, "big"))), file)
        with open(os.path.join(folder, "c.jwe"), "w") as file:
            file.write(compact)
        out = subprocess.run(
            ["jose", "jwe", "dec", "-i", file.name, "-k", os.path.join(folder, "k.jwk")],
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
    assert out == b"content"


def _check_shares():
    """gfcombine (libgfshare-bin) joins shares made here."""
    for a in range(1, 256):
        assert pr.gf_multiply(a, pr.gf_invert(a)) == 1
    secret, slope = b"a secret of any length", b"uniform in the real case"[:22]
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for x in (1, 3):
            names.append(os.path.join(folder, "s.%03d" % x))
            with open(names[-1], "wb") as file:
                file.write(bytes(pr.gf_evaluate([a, b], x) for a, b in zip(secret, slope)))
        subprocess.run(["gfcombine", "-o", os.path.join(folder, "out"), *names], check=True)
        with open(os.path.join(folder, "out"), "rb") as file:
            assert file.read() == secret
    shares = {
        x: bytes(pr.gf_evaluate([a, b], x) for a, b in zip(secret, slope)) for x in (1, 3, 16)
    }
    for absent in shares:
        assert pr.gf_at_zero({x: y for x, y in shares.items() if x != absent}) == secret
