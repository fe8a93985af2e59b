"""Real devices through stock tools: pkcs11-tool for tokens, tpm2-tools for the TPM.

Each call runs the tool in a folder of its own that is removed afterwards. A tool's refusal is
`factor`; its own words follow in the reason.
"""

import os
import re
import subprocess
import tempfile

import opening
import primitives as pr
from strict import Failure, check

SRK_HANDLE = "0x81000001"
SRK_ATTRIBUTES = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt"


class Token:
    """One token of one module; the PIN reaches pkcs11-tool in its environment."""

    def __init__(self, module, label, pin):
        self._command = ["pkcs11-tool", "--module", module, "--token-label", label]
        self._environment = dict(os.environ, KEYESCROW_TEST_PIN=pin)

    def _run(self, *arguments, login=False):
        secret = ["--login", "--pin", "env:KEYESCROW_TEST_PIN"] if login else []
        return _run([*self._command, *secret, *arguments], self._environment)

    def find(self, spki):
        """The id of the public key with this SPKI; None when the token has none."""
        listing = self._run("--list-objects", "--type", "pubkey").decode(errors="replace")
        for key_id in dict.fromkeys(re.findall(r"^\s*ID:\s*([0-9a-fA-F]+)\s*$", listing, re.M)):
            with tempfile.TemporaryDirectory() as folder:
                out = os.path.join(folder, "spki")
                try:
                    self._run("--read-object", "--type", "pubkey", "--id", key_id, "-o", out)
                except Failure:
                    continue
                if _read(out) == spki:
                    return key_id
        return None

    def operate(self, key_id, data, *arguments):
        """The result of one private-key operation on `data`."""
        with tempfile.TemporaryDirectory() as folder:
            source, out = os.path.join(folder, "in"), os.path.join(folder, "out")
            _write(source, data)
            self._run(*arguments, "--id", key_id, "-i", source, "-o", out, login=True)
            return _read(out)


class DeviceWorld(opening.World):
    """Tokens and, where `tcti` is given, a TPM; `policy_signature` is for signed PCR policies."""

    def __init__(self, password, tokens, tcti, policy_signature=None):
        self.password, self._tokens = password, tokens
        self._tpm = Tpm(tcti, policy_signature) if tcti else None

    def close(self):
        if self._tpm:
            self._tpm.close()

    def _token(self, factor):
        for token in self._tokens:
            key_id = token.find(factor.spki)
            if key_id:
                return token, key_id
        raise Failure("factor", "no token at hand holds the key of %s" % factor.token)

    def rsa(self, factor):
        token, key_id = self._token(factor)
        if factor.digest == "sha1":
            return token.operate(
                key_id,
                factor.wrapped,
                "--decrypt",
                "-m",
                "RSA-PKCS-OAEP",
                "--hash-algorithm",
                "SHA-1",
                "--mgf",
                "MGF1-SHA1",
            )
        # SoftHSM 2.6.1 offers OAEP with SHA-1 alone: the raw operation, un-padded here.
        em = token.operate(key_id, factor.wrapped, "--decrypt", "-m", "RSA-X-509")
        return pr.oaep_unpad(em.rjust(len(factor.wrapped), b"\0"), factor.digest)

    def ecdh(self, factor):
        token, key_id = self._token(factor)
        shared_x = token.operate(
            key_id, pr.EC_SPKI_PREFIX + factor.epk_bytes, "--derive", "-m", "ECDH1-DERIVE"
        )
        check(len(shared_x) == 32, "the token derives %d bytes" % len(shared_x), "factor")
        return shared_x

    def parent(self):
        return self._tpm.parent() if self._tpm else None

    def unseal(self, factor, auth_value):
        return self._tpm.unseal(factor, auth_value)


class Tpm:
    """One TPM, spoken to without a resource manager: every step flushes what it left behind."""

    def __init__(self, tcti, policy_signature=None):
        self._environment = dict(os.environ, TPM2TOOLS_TCTI=tcti, TSS2_LOG="all+none")
        self._policy_signature = policy_signature
        self._folder = tempfile.TemporaryDirectory()
        self._parent = None  # (handle or context file, TPM2B_PUBLIC)

    def close(self):
        self._folder.cleanup()

    def _path(self, name):
        return os.path.join(self._folder.name, name)

    def run(self, tool, *arguments):
        """The standard output of one tpm2-tools command; transient objects are flushed after it."""
        try:
            return _run([tool, *arguments], self._environment)
        finally:
            subprocess.run(
                ["tpm2_flushcontext", "-t"],
                env=self._environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )

    def parent(self):
        """TPM2B_PUBLIC of the storage key: the persistent one if it is ours, else made again."""
        return self._find_parent()[1]

    def _find_parent(self):
        if self._parent:
            return self._parent
        public = self._path("parent.pub")
        if SRK_HANDLE in self.run("tpm2_getcap", "handles-persistent").decode().lower():
            self.run("tpm2_readpublic", "-Q", "-c", SRK_HANDLE, "-f", "tss", "-o", public)
            if _is_ours(_read(public)):
                self._parent = SRK_HANDLE, _read(public)
                return self._parent
        context = self._path("parent.ctx")
        self.run(
            "tpm2_createprimary",
            "-Q",
            "-C",
            "o",
            "-g",
            "sha256",
            "-G",
            "ecc256:aes128cfb",
            "-a",
            SRK_ATTRIBUTES,
            "-c",
            context,
        )
        self.run("tpm2_readpublic", "-Q", "-c", context, "-f", "tss", "-o", public)
        self._parent = context, _read(public)
        return self._parent

    def unseal(self, factor, auth_value):
        """S; `auth_value` is None where the object has none."""
        parent, _ = self._find_parent()
        public, private, loaded = self._path("o.pub"), self._path("o.priv"), self._path("o.ctx")
        session = self._path("s.ctx")
        _write(public, factor.public)
        _write(private, factor.private)
        if factor.seed:
            seed, duplicate = self._path("o.seed"), self._path("o.dup")
            _write(seed, factor.seed)
            os.rename(private, duplicate)
            self.run(
                "tpm2_import",
                "-Q",
                "-C",
                parent,
                "-i",
                duplicate,
                "-u",
                public,
                "-s",
                seed,
                "-r",
                private,
            )
        self.run("tpm2_load", "-Q", "-C", parent, "-u", public, "-r", private, "-c", loaded)
        self.run("tpm2_startauthsession", "--policy-session", "-c", parent, "-S", session)
        try:
            self.run("tpm2_sessionconfig", "--enable-encrypt", session)
            if factor.pcrs:
                self._policy_pcr(factor, session)
            self.run("tpm2_policyauthvalue", "-Q", "-S", session)
            secret = "session:" + session
            if auth_value is not None:
                # The TPM compares authValues without trailing zeros. In a file's stead: the tools
                # take an object's auth in argv; test values only.
                secret += "+hex:" + auth_value.rstrip(b"\0").hex()
            out = self._path("S")
            self.run("tpm2_unseal", "-Q", "-c", loaded, "-p", secret, "-o", out)
            return _read(out)
        finally:
            subprocess.run(
                ["tpm2_flushcontext", session],
                env=self._environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )

    def _policy_pcr(self, factor, session):
        policy = self._path("pcr.pol")
        self.run("tpm2_policypcr", "-Q", "-S", session, "-l", factor.pcrs, "-L", policy)
        if not factor.signer:
            return
        check(self._policy_signature, "a signed PCR policy is needed: --policy-signature", "factor")
        pem, key, name = self._path("signer.pem"), self._path("k.ctx"), self._path("k.name")
        ticket, der = self._path("t"), self._path("signer.der")
        _write(der, factor.signer)
        _run(
            ["openssl", "pkey", "-pubin", "-inform", "DER", "-in", der, "-out", pem],
            self._environment,
        )
        self.run(
            "tpm2_loadexternal", "-Q", "-G", "ecc", "-C", "o", "-u", pem, "-c", key, "-n", name
        )
        self.run(
            "tpm2_verifysignature",
            "-Q",
            "-c",
            key,
            "-g",
            "sha256",
            "-m",
            policy,
            "-s",
            self._policy_signature,
            "-f",
            "ecdsa",
            "-t",
            ticket,
        )
        self.run(
            "tpm2_policyauthorize", "-Q", "-S", session, "-i", policy, "-n", name, "-t", ticket
        )


def _is_ours(public):
    """The template of parent_public, whatever the point."""
    return (
        len(public) == 92
        and public[:24].hex() == "005a0023000b000304720000000600800043001000030010"
    )


def _run(command, environment):
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            timeout=120,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure("factor", "%s did not run: %s" % (command[0], error)) from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise Failure("factor", "%s: %s" % (command[0], lines[0]))
    return done.stdout


def _read(path):
    with open(path, "rb") as file:
        return file.read()


def _write(path, data):
    with open(path, "wb") as file:
        file.write(data)
