"""A path whose PCR policy its signer renews: sealed with tpm2-tools on a real TPM, by another writer of envelopes."""

import hashlib
import subprocess
import sys

from world import PASSWORD, SECOND_DECODER, AcceptanceCase

sys.path.insert(0, str(SECOND_DECODER.parent / "vectors"))
sys.path.insert(0, str(SECOND_DECODER))

import maker  # noqa: E402
import primitives as pr  # noqa: E402

PCRS = "sha256:16"
SRK = ("tpm2_createprimary", "-Q", "-C", "o", "-g", "sha256", "-G", "ecc256:aes128cfb", "-a",
       "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt")


class SealedByTools(maker.Tpm2):
    def __init__(self, world, signer):
        super().__init__(pcrs=PCRS, signer=signer, host="acceptance")
        self.world = world

    def make(self, place, binding, has_password, auth_value):
        world, secret = self.world, hashlib.sha256(place.encode()).digest()
        world.write("policy", self.policy(b""))
        world.write("secret", secret)
        for step in (
                (*SRK, "-c", "srk.ctx"), ("tpm2_readpublic", "-Q", "-c", "srk.ctx", "-o", "srk.pub"),
                ("tpm2_create", "-Q", "-C", "srk.ctx", "-g", "sha256", "-L", "policy", "-i", "secret",
                 "-p", "hex:" + auth_value.rstrip(b"\0").hex(), "-a", "fixedtpm|fixedparent", "-u",
                 "o.pub", "-r", "o.priv")):
            world.tpm_tool(*step)
            world.tpm_tool("tpm2_flushcontext", "-t")  # no resource manager is there
        read = {name: world.path(name).read_bytes() for name in ("srk.pub", "o.pub", "o.priv")}
        return {"type": "tpm2", "host": self.host, "parent_public": maker.b64u(read["srk.pub"]),
                "pcrs": PCRS, "pcr_digest": "", "signer": maker.b64u(self.signer.spki),
                "auth": True, "seed": "", "public": maker.b64u(read["o.pub"]),
                "private": maker.b64u(read["o.priv"])}, secret


class SignedPcrs(AcceptanceCase):  # one test
    paths = None
    world_options = {"token": False}

    def approve(self, signer, name):
        """Signs the present PCRs: R||S."""
        self.world.tpm_tool("tpm2_pcrread", "-Q", "-o", "pcr.bin", PCRS)
        digest = hashlib.sha256(self.world.path("pcr.bin").read_bytes()).digest()
        selection = bytes.fromhex("00000001000B03") + (1 << 16).to_bytes(3, "little")
        policy = hashlib.sha256(bytes(32) + bytes.fromhex("0000017F") + selection + digest).digest()
        self.world.write(name, pr.ecdsa_sign(signer.d, policy))

    def test_opens_with_the_signature_of_these_pcrs_alone(self):
        world, signer = self.world, maker.EcKey("pcr signer")
        path = maker.Path("signed", maker.Password(PASSWORD), SealedByTools(world, signer))
        envelope = maker.Envelope(path, content=b"a key that another writer sealed", host="acceptance")
        world.write("signed.escrow", envelope.bytes)
        restore = ("restore", "signed.escrow", "--via", "signed", "--to", "out.key",
                   "--password-file", "pw", "--agent", envelope.agent.thumbprint, "--event-log",
                   "event.json", "--no-input")
        shown, = self.succeeds("show", "signed.escrow", "--json").json()["paths"]
        self.assertFalse(shown["opens_here"])
        self.assertIn("signed PCR policy", shown["why_not"])
        error = self.refused("tpm_policy_signature", 10, *restore, num_runs=1)
        self.assertIn("--pcr-policy-signature", error["hint"])
        self.approve(signer, "signature")
        der = subprocess.run(["openssl", "asn1parse", "-genconf", "/dev/stdin", "-noout", "-out",
                              "/dev/stdout"], input=self.asn1(), capture_output=True, check=True)
        world.write("signature.der", der.stdout)
        for name in ("signature", "signature.der"):
            self.succeeds(*restore, "--pcr-policy-signature", name)
            self.assertEqual(world.path("out.key").read_bytes(), envelope.content)
            world.path("out.key").unlink()
            world.path("event.json").unlink()
        done = self.succeeds("drill", "signed.escrow", "--via", "signed", *restore[6:-1],
                             "--pcr-policy-signature", "signature", "--json")
        self.assertEqual(done.json()["proven"], 1)
        world.path("event.json").unlink()
        self.refused("usage", 2, *restore, "--pcr-policy-signature", "pw", num_runs=1)
        self.approve(maker.EcKey("somebody else"), "stranger")
        world.tpm_tool("tpm2_pcrextend", "16:sha256=" + 64 * "5")
        for name in ("stranger", "signature"):
            done = world.run(*restore, "--pcr-policy-signature", name, "--json")
            self.check_json(done, "tpm_policy_signature", 10)
            self.assertFalse(world.path("out.key").exists())
            world.path("event.json").unlink()
        self.approve(signer, "renewed")
        self.succeeds(*restore, "--pcr-policy-signature", "renewed")

    def asn1(self):
        signature = self.world.path("signature").read_bytes()
        return b"asn1=SEQUENCE:s\n[s]\nr=INTEGER:0x%s\ns=INTEGER:0x%s\n" % (
            signature[:32].hex().encode(), signature[32:].hex().encode())
