#!/usr/bin/env python3
"""Opens envelopes by real simulators: SoftHSM tokens and a swtpm, through decode.py's command line.

The envelopes come from the vectors' maker; the sealed objects are made by tpm2-tools, or offline in
Python for another host's TPM. Everything lives in a folder of its own; swtpm is ended by its pid.
"""

import glob
import hmac
import os
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "vectors"))
sys.path.insert(0, HERE)

import devices  # noqa: E402
import maker  # noqa: E402
import primitives as pr  # noqa: E402
from maker import (
    AGENT,
    CARD,
    CAROL,
    OPS,
    Ecdh,
    Envelope,
    Password,
    Path,
    Rsa,
    Shares,
    Tpm2,
    b64u,
    rnd,
)  # noqa: E402

PIN = "648219"


def soft_hsm_module():
    found = glob.glob("/usr/lib/softhsm/libsofthsm2.so") + glob.glob(
        "/usr/lib/*/softhsm/libsofthsm2.so"
    )
    return found[0]


def run(*command, **options):
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True, **options
    ).stdout


class World(unittest.TestCase):
    """A folder, two ways to write a file into it, and decode.py's `open`."""

    @classmethod
    def setUpClass(cls):
        cls._folder = tempfile.TemporaryDirectory(prefix="ke-")
        cls.addClassCleanup(cls._folder.cleanup)
        cls.folder = cls._folder.name

    def put(self, name, data):
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(data)
        return path

    def decode(self, envelope, path, *options, password=maker.PASSWORD):
        """(exit code, failure word or "", content or None)."""
        out = os.path.join(self.folder, "out")
        if os.path.exists(out):
            os.remove(out)
        command = [
            sys.executable,
            os.path.join(HERE, "decode.py"),
            "open",
            self.put("e.escrow", envelope.bytes),
            "--trust",
            AGENT.thumbprint,
            "--path",
            path,
            "--out",
            out,
            *options,
        ]
        if password:
            command += ["--password-file", self.put("password", password.encode() + b"\n")]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        word = done.stdout.decode().partition("failure: ")[2].strip()
        content = None
        if os.path.exists(out):
            with open(out, "rb") as file:
                content = file.read()
        return done.returncode, word, content

    def assert_opens(self, envelope, path, *options, **more):
        self.assertEqual(self.decode(envelope, path, *options, **more), (0, "", envelope.content))


class SoftHsm(World):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        os.mkdir(os.path.join(cls.folder, "tokens"))
        configuration = os.path.join(cls.folder, "softhsm2.conf")
        with open(configuration, "w", encoding="ascii") as file:
            file.write(
                "directories.tokendir = %s/tokens\nobjectstore.backend = file\n" % cls.folder
            )
        os.environ["SOFTHSM2_CONF"] = configuration
        for label, key in (("ops", OPS), ("card", CARD)):
            run(
                "softhsm2-util",
                "--init-token",
                "--free",
                "--label",
                label,
                "--so-pin",
                "12345678",
                "--pin",
                PIN,
            )
            pem = os.path.join(cls.folder, label + ".pem")
            with open(pem, "w", encoding="ascii") as file:
                file.write(key.pem())
            if key is OPS:
                run(
                    "softhsm2-util",
                    "--import",
                    pem,
                    "--token",
                    label,
                    "--label",
                    "escrow",
                    "--id",
                    "01",
                    "--pin",
                    PIN,
                )
                continue
            # softhsm2-util imports P-256 keys without CKA_DERIVE.
            for kind, arguments in (
                ("privkey", ["pkey", "-in", pem]),
                ("pubkey", ["pkey", "-in", pem, "-pubout"]),
            ):
                der = os.path.join(cls.folder, kind)
                run("openssl", *arguments, "-outform", "DER", "-out", der)
                run(
                    "pkcs11-tool",
                    "--module",
                    soft_hsm_module(),
                    "--token-label",
                    label,
                    "--login",
                    "--pin",
                    PIN,
                    "--write-object",
                    der,
                    "--type",
                    kind,
                    "--id",
                    "01",
                    "--label",
                    "escrow",
                    "--usage-derive",
                )

    def options(self, *labels, pin=PIN):
        options = []
        for label in labels:
            options += [
                "--token-module",
                soft_hsm_module(),
                "--token-label",
                label,
                "--pin-file",
                self.put("pin", pin.encode() + b"\n"),
            ]
        return options

    def test_rsa_sha256(self):
        self.assert_opens(Envelope(Path("ops", Rsa())), "ops", *self.options("ops"), password=None)

    def test_rsa_sha1(self):
        self.assert_opens(
            Envelope(Path("ops", Rsa(alg="RSA-OAEP"))), "ops", *self.options("ops"), password=None
        )

    def test_ecdh(self):
        self.assert_opens(
            Envelope(Path("card", Ecdh())), "card", *self.options("card"), password=None
        )

    def test_two_tokens_and_password(self):
        made = Envelope(Path("two", Rsa(), Ecdh(), Password()))
        self.assert_opens(made, "two", *self.options("card", "ops"))
        self.assertEqual(
            self.decode(made, "two", *self.options("card", "ops"), password="wrong")[:2],
            (3, "unwrap"),
        )
        self.assertEqual(self.decode(made, "two", *self.options("ops")), (3, "factor", None))

    def test_shares(self):
        officers = [("alice", Ecdh(CAROL, "carol")), ("bob", Rsa()), ("carol", Ecdh())]
        made = Envelope(Path("officers", Shares(2, *officers), Password()))
        self.assert_opens(made, "officers", *self.options("card", "ops"))
        self.assertEqual(
            self.decode(made, "officers", *self.options("card")), (3, "factor", None)
        )

    def test_wrong_pin(self):
        made = Envelope(Path("ops", Rsa()))
        self.assertEqual(
            self.decode(made, "ops", *self.options("ops", pin="000000"), password=None),
            (3, "factor", None),
        )


class SealedTpm2(Tpm2):
    """A tpm2 factor whose object a real TPM made."""

    def __init__(self, tpm, folder, **form):
        super().__init__(**form)
        self._tpm, self._folder = tpm, folder

    def make(self, place, binding, has_password, auth_value):
        record, s = super().make(place, binding, has_password, auth_value)
        parent, parent_public = self._tpm._find_parent()
        digest = self._pcr_digest() if self.pcrs and not self.signer else b""
        files = {n: os.path.join(self._folder, "seal." + n) for n in ("in", "pol", "pub", "priv")}
        for name, data in (("in", s), ("pol", self.policy(digest))):
            with open(files[name], "wb") as file:
                file.write(data)
        command = [
            "tpm2_create",
            "-Q",
            "-C",
            parent,
            "-g",
            "sha256",
            "-i",
            files["in"],
            "-L",
            files["pol"],
            "-a",
            "fixedtpm|fixedparent" + ("" if has_password else "|noda"),
            "-u",
            files["pub"],
            "-r",
            files["priv"],
        ]
        if has_password:
            command += ["-p", "hex:" + auth_value.rstrip(b"\0").hex()]
        self._tpm.run(*command)
        for name, member in (("pub", "public"), ("priv", "private")):
            with open(files[name], "rb") as file:
                record[member] = b64u(file.read())
        record.update(parent_public=b64u(parent_public), pcr_digest=b64u(digest))
        return record, s

    def _pcr_digest(self):
        out = os.path.join(self._folder, "pcrs")
        self._tpm.run("tpm2_pcrread", "-Q", self.pcrs, "-o", out)
        with open(out, "rb") as file:
            return pr.sha256(file.read())


class OfflineTpm2(Tpm2):
    """A tpm2 factor made without the TPM: a duplicate for its storage key.

    Source: TPM 2.0 Part 1, 23.3 (duplication, outer wrapper) and C.6.3 (ECDH secret sharing).
    """

    def __init__(self, parent_public, **form):
        super().__init__(seed=True, **form)
        self._parent_public = parent_public

    def make(self, place, binding, has_password, auth_value):
        record, s = super().make(place, binding, has_password, auth_value)
        seed_value = rnd(place + " seed value", 32)
        public = bytearray(pr.b64u_decode(record["public"]))
        public[48:] = pr.sha256(seed_value, s)
        auth = auth_value.rstrip(b"\0") if has_password else b""
        sensitive = b"\0\x08" + _sized(auth) + _sized(seed_value) + _sized(s)
        x, y = self._parent_public[26:58], self._parent_public[60:92]
        ephemeral = maker.EcKey(place + " tpm ephemeral")
        z = pr.multiply(ephemeral.d, (int.from_bytes(x, "big"), int.from_bytes(y, "big")))[
            0
        ].to_bytes(32, "big")
        own_x = ephemeral.point[0].to_bytes(32, "big")
        seed = pr.sha256(b"\0\0\0\1", z, b"DUPLICATE\0", own_x, x)
        name = b"\0\x0b" + pr.sha256(bytes(public[2:]))
        key = _kdfa(seed, b"STORAGE\0", name, 128)
        encrypted = run(
            "openssl",
            "enc",
            "-aes-128-cfb",
            "-K",
            key.hex(),
            "-iv",
            "00" * 16,
            "-nosalt",
            input=_sized(sensitive),
        )
        integrity = hmac.digest(_kdfa(seed, b"INTEGRITY\0", b"", 256), encrypted + name, "sha256")
        point = _sized(own_x) + _sized(ephemeral.point[1].to_bytes(32, "big"))
        record.update(
            parent_public=b64u(self._parent_public),
            public=b64u(bytes(public)),
            private=b64u(_sized(_sized(integrity) + encrypted)),
            seed=b64u(_sized(point)),
        )
        return record, s


def _sized(data):
    return len(data).to_bytes(2, "big") + data


def _kdfa(key, label, context, bits):
    message = b"\0\0\0\1" + label + context + bits.to_bytes(4, "big")
    return hmac.digest(key, message, "sha256")[: bits // 8]


class SwTpm(World):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        socket = os.path.join(cls.folder, "s")
        process = subprocess.Popen(
            [
                "swtpm",
                "socket",
                "--tpm2",
                "--tpmstate",
                "dir=" + cls.folder,
                "--flags",
                "not-need-init,startup-clear",
                "--server",
                "type=unixio,path=" + socket,
                "--ctrl",
                "type=unixio,path=%s.ctrl" % socket,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        cls.addClassCleanup(process.wait)
        cls.addClassCleanup(process.terminate)
        while not os.path.exists(socket + ".ctrl"):
            if process.poll() is not None:
                raise RuntimeError("swtpm ended")
        cls.tcti = "swtpm:path=" + socket
        cls.tpm = devices.Tpm(cls.tcti)
        cls.addClassCleanup(cls.tpm.close)
        if b"SW" not in cls.tpm.run("tpm2_getcap", "properties-fixed"):
            raise RuntimeError("not a simulator: refused")

    def sealed(self, *factors, **form):
        return Envelope(Path("tpm", *factors, SealedTpm2(self.tpm, self.folder, **form)))

    def test_alone(self):
        self.assert_opens(self.sealed(), "tpm", "--tpm", self.tcti, password=None)

    def test_password(self):
        made = self.sealed(Password())
        self.assert_opens(made, "tpm", "--tpm", self.tcti)
        self.assertEqual(
            self.decode(made, "tpm", "--tpm", self.tcti, password="wrong"), (3, "factor", None)
        )
        self.tpm.run("tpm2_dictionarylockout", "--clear-lockout")

    def test_pcrs(self):
        made = self.sealed(Password(), pcrs="sha256:7,16")
        self.assert_opens(made, "tpm", "--tpm", self.tcti)
        self.tpm.run("tpm2_pcrextend", "16:sha256=" + "11" * 32)
        self.assertEqual(self.decode(made, "tpm", "--tpm", self.tcti), (3, "factor", None))

    def test_signed_policy(self):
        made = self.sealed(Password(), pcrs="sha256:0,7", signer=maker.SIGNER)
        trial, policy = os.path.join(self.folder, "trial.ctx"), os.path.join(
            self.folder, "signed.pol"
        )
        self.tpm.run("tpm2_startauthsession", "-S", trial)
        self.tpm.run("tpm2_policypcr", "-Q", "-S", trial, "-l", "sha256:0,7", "-L", policy)
        self.tpm.run("tpm2_flushcontext", trial)
        with open(policy, "rb") as file:
            signature = pr.ecdsa_sign(maker.SIGNER.d, file.read())
        signature = pr.der(
            0x30, *[pr.der_int(int.from_bytes(h, "big")) for h in (signature[:32], signature[32:])]
        )
        path = self.put("policy.sig", signature)
        self.assert_opens(made, "tpm", "--tpm", self.tcti, "--policy-signature", path)
        self.assertEqual(self.decode(made, "tpm", "--tpm", self.tcti), (3, "factor", None))

    def test_wrapped_offline(self):
        parent = self.tpm.parent()
        for factors in ((), (Password(),)):
            made = Envelope(Path("tpm", *factors, OfflineTpm2(parent)))
            self.assert_opens(made, "tpm", "--tpm", self.tcti)

    def test_persistent_storage_key(self):
        transient, public = self.tpm._find_parent()
        self.tpm.run("tpm2_evictcontrol", "-Q", "-C", "o", "-c", transient, devices.SRK_HANDLE)
        again = devices.Tpm(self.tcti)
        self.addCleanup(again.close)
        self.assertEqual(again._find_parent(), (devices.SRK_HANDLE, public))
        self.assert_opens(self.sealed(Password()), "tpm", "--tpm", self.tcti)

    def test_another_tpm(self):
        made = Envelope(Path("tpm", Tpm2()))
        self.assertEqual(self.decode(made, "tpm", "--tpm", self.tcti), (10, "absent", None))


if __name__ == "__main__":
    unittest.main()
