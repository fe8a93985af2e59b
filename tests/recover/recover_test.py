#!/usr/bin/env python3
"""agent/docs/RECOVER-WITHOUT-KEYESCROW.md, as it stands: its blocks bring keys back without keyescrow.

  recover_test.py --binary FILE [unittest's arguments, e.g. Recover.test_password_tpm2]

keyescrow escrows the keys; from there on bash alone runs, in an environment without the binary. What the
product does not write (password-only paths, RSA-OAEP with SHA-1) comes from tests/vectors.
"""

import base64
import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import sys
import time
import unittest

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/integration/agent/acceptance"))

import world  # noqa: E402

PAGE = ROOT / "agent/docs/RECOVER-WITHOUT-KEYESCROW.md"
TIMEOUT_S = 200
PROMPT = rb"2004hREADY> $"  # bash asks for the next block: it turns bracketed paste on before
ALG_BLOCKS = {"argon2id": ["argon2id"], "pbkdf2-sha512": ["pbkdf2"], "RSA-OAEP": ["rsa-oaep"],
              "RSA-OAEP-256": ["rsa-raw"]}  # SoftHSM's OAEP is SHA-1 alone


def read_blocks():
    """Name → its fenced blocks, in the page's order."""
    blocks = {}
    for name, text in re.findall(r"^```sh recover=(\S+)\n(.*?)^```$", PAGE.read_text("utf-8"),
                                 re.MULTILINE | re.DOTALL):
        blocks.setdefault(name, []).append(text)
    return blocks


BLOCKS = read_blocks()


def b64u(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def vector(name):
    """(fields, envelope) of one of tests/vectors."""
    head, _, envelope = (ROOT / "tests/vectors" / f"{name}.txt").read_bytes().partition(b"\n\n")
    return dict(line.split(": ", 1) for line in head.decode().splitlines()), envelope


def header_of(envelope):
    return json.loads(b64u(json.loads(b64u(json.loads(envelope)["payload"]))["aad"]))


class Recovery:
    """One run of the page: its blocks for one path, and the answers that its `read`s get."""

    def __init__(self, machine, envelope, thumbprint, path_id, password=world.PASSWORD,
                 pins=None, variants=None, tcti=None, officers=()):
        self.machine, self.path_id = machine, path_id
        self.file = machine.write("e.escrow", envelope)
        self.out = machine.path("recovered.key")
        self.password = password
        self.pins, self.variants = pins or {}, variants or {}
        self.officers = officers  # who come, in this order
        self.there_before = None
        self.environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(machine.folder),
                            "LC_ALL": "C.UTF-8", "TPM2TOOLS_TCTI": tcti or machine.tcti,
                            "SOFTHSM2_CONF": str(machine.path("softhsm2.conf"))}
        self.names, self.answers = ["start", "check", "choose"], [self.file, thumbprint, path_id]
        path, = [p for p in header_of(envelope)["paths"] if p["id"] == path_id]
        for factor in path["factors"]:
            self.add(factor)
        self.names += ["finish", "clean"]
        self.answers.append(self.out)

    def add(self, factor):
        kind = factor["type"]
        if kind == "tpm2":
            self.names.append("tpm2")
            return
        if kind == "shares":
            for name in self.officers:
                self.names.append("officer")
                self.answers.append(name)
                self.add(*[m["factor"] for m in factor["members"] if m["name"] == name])
            self.names.append("shares")
            return
        if kind == "password":
            self.names.append("password")
            self.answers.append(self.password)
        else:
            self.names.append("token")
            label = re.search(r"[:;]token=([^;]*)", factor["uri"]).group(1)
            self.answers += [self.machine.module, self.pins.get("label", label).replace("%20", " "),
                             self.pins.get(label, world.PIN)]
        algorithm = factor.get("alg") or factor.get("kdf") or "ecdh"
        self.names += self.variants.get(algorithm, ALG_BLOCKS.get(algorithm, [algorithm]))

    def run(self, *shell):
        """(exit status, what was said, the key or None, files left in memory)."""
        script = self.machine.write("page.sh", "".join(self.blocks()))
        self.out.unlink(missing_ok=True)
        if self.there_before is not None:
            self.out.write_bytes(self.there_before)
        done = subprocess.run(
            [*(shell or ("bash", "-eu")), script], env=self.environment, cwd=self.machine.folder,
            input="".join(f"{answer}\n" for answer in self.answers).encode(), timeout=world.within(TIMEOUT_S),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        return self.result(done.returncode, done.stdout)

    def blocks(self):
        return [block for name in self.names for block in BLOCKS[name]]

    def paste(self):
        """The same by a person: each block pasted into bash on a terminal, the answers typed."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(self.machine.folder)
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"],
                       {**self.environment, "PS1": "READY> ", "TERM": "xterm"})
        said, deadline = b"", time.monotonic() + world.within(TIMEOUT_S)

        def until(pattern, text=b""):
            nonlocal said
            begin = len(said)
            while text or not re.search(pattern, said[begin:]):
                ready = select.select([terminal], [terminal] if text else [], [],
                                      max(0, deadline - time.monotonic()))
                if not any(ready):
                    os.kill(pid, signal.SIGKILL)
                    raise AssertionError(f"no {pattern} in time\n" + said.decode(errors="replace"))
                if ready[0]:
                    said += os.read(terminal, 65536)
                elif ready[1]:
                    text = text[os.write(terminal, text[:256]):]

        until(PROMPT)
        answers = [f"{answer}\n".encode() for answer in self.answers]
        for block in self.blocks():
            asks = block.count("read -r")
            pasted = b"\x1b[200~" + block.rstrip("\n").encode() + b"\x1b[201~\n"
            until(rb"2004l\r?(.|\n)*: $" if asks else PROMPT, pasted)
            for last in range(asks - 1, -1, -1):
                until(rb": $" if last else PROMPT, answers.pop(0))
        until(rb"exit", b"exit\n")
        os.close(terminal)
        return self.result(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said)

    def result(self, status, said):
        said = said.decode(errors="backslashreplace").replace("\r", "")
        left = []
        for folder in re.findall(r"working in (/dev/shm/recover\.\w+)$", said, re.MULTILINE):
            left += [file.name for file in pathlib.Path(folder).glob("*")]
            subprocess.run(["rm", "-rf", "--", folder], check=True)
        key = self.out.read_bytes() if self.out.exists() else None
        return status, said, key, left


class RecoverCase(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.machine = world.World(**self.options)
        self.addCleanup(self.machine.close)

    def brings(self, key, recovery, *shell):
        status, said, found, left = recovery.run(*shell)
        self.assertEqual((status, found, left), (0, key, []), said)
        self.assertEqual(recovery.out.stat().st_mode & 0o777, 0o600)
        self.assertNotIn("STOP", said)

    def brings_nothing(self, why, recovery):
        """As a script that stops at the first error, and as a person's shell, which does not."""
        for shell in (("bash", "-eu"), ("bash",)):
            status, said, found, left = recovery.run(*shell)
            self.assertIsNone(found, said)
            self.assertNotIn("key", left)
            self.assertIn("STOP: " + why, said)
            self.assertNotEqual(status if "-eu" in shell else 1, 0, said)
            if "tpm2" in recovery.names:
                break  # the TPM counts


class Recover(RecoverCase):
    """Envelopes that the product writes."""

    options = {}

    def escrow(self, path, *more):
        """(envelope, thumbprint, the id of the path)."""
        machine = self.machine
        machine.key = bytes(range(256)) * 5 + b"\0\n"
        machine.write("app.key", machine.key)
        thumbprint = machine.must("init", "--json").json()["thumbprint"]
        if "token:ops" in path or "token:ops" in more:
            machine.must("token", "add", "ops", "pkcs11:token=ops", "--module", machine.module,
                         "--pin-file", "pin")
        if "token:spare" in path:
            machine.make_token("spare")
            machine.must("token", "add", "spare", "pkcs11:token=spare", "--module", machine.module,
                         "--pin-file", "pin")
        if "token:card" in path:
            machine.make_token("card")
            machine.must("token", "keygen", "card", "pkcs11:token=card;object=ec", "--kind", "p256",
                         "--module", machine.module, "--pin-file", "pin")
        words = [word for each in (f"it={path}", *more) for word in ("--path", each)]
        for name in ("ops", "card", "spare"):
            if f"token:{name}" in " ".join(words):
                machine.write(f"pin.{name}", world.PIN + "\n")
                words += ["--pin-file", f"{name}=pin.{name}"]
        machine.must("backup", "app/key", "--from", "app.key", *words, "--password-file", "pw",
                     "-o", "app.escrow")
        return machine.path("app.escrow").read_bytes(), thumbprint, "it"

    def test_shares(self):
        machine = self.machine
        envelope, thumbprint, path_id = self.escrow(
            "2 of (token:card, token:ops, token:spare) & password")
        recover = lambda *officers, **wrong: Recovery(
            machine, envelope, thumbprint, path_id, officers=officers, **wrong)
        self.brings(machine.key, recover("ops", "card"))  # RSA and P-256
        self.brings_nothing("too few shares", recover("spare"))
        self.brings_nothing("the token refuses", recover("card", "ops", pins={"card": "11112222"}))

    def both(self, path, *more, why, **wrong):
        escrowed = self.escrow(path, *more)
        self.brings(self.machine.key, Recovery(self.machine, *escrowed))
        self.brings_nothing(why, Recovery(self.machine, *escrowed, **wrong))

    def test_token_rsa(self):
        self.both("token:ops", pins={"ops": "11112222"}, why="the token refuses")

    def test_token_rsa_by_hand(self):
        """In a person's shell: the token refuses OAEP with SHA-256, the next block goes on."""
        envelope, thumbprint, path_id = self.escrow("password & token:ops")
        _, said, found, left = Recovery(
            self.machine, envelope, thumbprint, path_id,
            variants={"RSA-OAEP-256": ["rsa-oaep", "rsa-raw"]}).run("bash")
        self.assertEqual((found, left), (self.machine.key, []), said)
        self.assertRegex(said, "CKR_[A-Z_]*(BAD|INVALID)(.|\n)*STOP: the token refuses")

    def test_token_ecdh(self):
        self.both("token:card", pins={"card": "11112222"}, why="the token refuses")

    def test_password_token_rsa(self):
        self.both("password & token:ops", password="wrong horse", why="a wrong password")

    def test_password_token_ecdh(self):
        self.both("password & token:card", password="wrong horse", why="a wrong password")

    def test_two_tokens(self):
        self.both("token:ops & token:card & password", password="wrong horse",
                  why="a wrong password")

    def test_another_token(self):
        envelope, thumbprint, path_id = self.escrow("password & token:ops")
        self.machine.make_token("other")
        self.brings_nothing("not on this token", Recovery(
            self.machine, envelope, thumbprint, path_id, pins={"label": "other"}))

    def test_tpm2(self):
        self.both("tpm", "token:ops", tcti=self.machine.start_tpm("other"), why="another TPM")

    def test_password_tpm2(self):
        self.both("password & tpm", "token:ops", password="wrong horse", why="the TPM refuses")

    def test_token_tpm2(self):
        self.both("token:card & tpm", "token:ops", pins={"card": "11112222"},
                  why="the token refuses")

    def test_password_token_tpm2(self):
        self.both("password & token:ops & tpm", "token:ops", password="wrong horse",
                  why="the TPM refuses")

    def test_pasted_into_a_terminal(self):
        escrowed = self.escrow("password & token:ops & tpm", "token:ops")
        _, said, found, left = Recovery(self.machine, *escrowed).paste()
        self.assertEqual((found, left), (self.machine.key, []), said)
        self.assertNotRegex(said, "(?m)^STOP: ")

    def test_from_a_recovery_sheet(self):
        envelope, thumbprint, path_id = self.escrow("password & token:ops")
        sheet = self.machine.must("recovery-sheet", "app/key", "--text", "-o", "-").out
        lines = [line for line in sheet.splitlines(keepends=True) if line.startswith(b"KE1/")]
        recovery = Recovery(self.machine, envelope, thumbprint, path_id)
        recovery.names.insert(1, "paper")
        recovery.file.write_bytes(b"".join(b"QR-Code:" + line for line in lines[::-1] + lines[:1]))
        self.brings(self.machine.key, recovery)
        recovery.file.write_bytes(b"".join(lines[:2] + lines[3:]))
        self.brings_nothing(f"of {len(lines)} lines, these are here: 1 2 4 5", recovery)

    def test_from_a_store_without_its_agent(self):
        machine = self.machine
        first, thumbprint, path_id = self.escrow("password & token:ops")
        machine.key = os.urandom(48)
        machine.write("app.key", machine.key)
        machine.must("backup", "app/key", "--from", "app.key", *world.UNLOCK, "-o", "second.escrow")
        machine.path("state/agent.json").write_bytes(b"")
        recovery = Recovery(machine, first, thumbprint, path_id)
        recovery.names.insert(0, "store")
        recovery.answers = [machine.path("state"), "app/key", "2", machine.path("store.escrow"),
                            *recovery.answers[1:]]
        self.brings(machine.key, recovery)
        found = machine.path("store.escrow")
        self.assertEqual(found.read_bytes(), machine.path("second.escrow").read_bytes())
        machine.path("empty").mkdir()
        machine.must("restore", found, "--to", "restored.key", "--agent", thumbprint, "--module",
                     machine.module, *world.UNLOCK, "--state", machine.path("empty"))
        self.assertEqual(machine.path("restored.key").read_bytes(), machine.key)

    def test_unknown_agent_and_forged_file(self):
        envelope, thumbprint, path_id = self.escrow("password & token:ops")
        self.brings_nothing("another agent signed", Recovery(
            self.machine, envelope, thumbprint[:-1] + ("A" if thumbprint[-1] != "A" else "E"),
            path_id))
        forged = json.loads(envelope)
        first = forged["signature"][0]
        forged["signature"] = ("B" if first != "B" else "C") + forged["signature"][1:]
        self.brings_nothing("the signature does not verify", Recovery(
            self.machine, json.dumps(forged).encode(), thumbprint, path_id))

    def test_no_secret_in_arguments(self):
        escrowed = self.escrow("password & token:ops & token:card")
        trace = self.machine.path("trace")
        self.brings(self.machine.key, Recovery(self.machine, *escrowed), "strace", "-f", "-qq",
                    "-s", "100000", "-e", "trace=execve", "-o", str(trace), "bash", "-eu")
        calls = re.findall(r"execve\((.*), \[(.*)\]", trace.read_text())
        self.assertTrue(any("argon2" in program for program, _ in calls))
        for program, arguments in calls:
            self.assertNotIn(world.PASSWORD, arguments)
            self.assertNotIn(world.PIN, arguments)
            digits = [d for d in re.findall(r"[0-9A-Fa-f]{33,}", arguments)]
            self.assertEqual(digits, [], f"{program} has bytes in its arguments")


class Vectors(RecoverCase):
    """Envelopes that this version reads and its command line does not write."""

    options = {"tpm": False}

    def of_vector(self, name, **more):
        fields, envelope = vector(name)
        if "password_hex" in fields:
            more.setdefault("password", bytes.fromhex(fields["password_hex"]).decode())
        return bytes.fromhex(fields["content_hex"]), Recovery(
            self.machine, envelope, fields["trust"].split()[0], fields["path"], **more)

    def both(self, name, *, why, **wrong):
        variants = {"variants": wrong.pop("variants")} if "variants" in wrong else {}
        self.brings(*self.of_vector(name, **variants))
        self.brings_nothing(why, self.of_vector(name, **variants, **wrong)[1])

    def test_password_argon2id(self):
        self.both("valid_password_argon2id", password="wrong horse", why="a wrong password")

    def test_another_file_is_kept(self):
        _, recovery = self.of_vector("valid_password_argon2id")
        recovery.there_before = b"something else"
        status, said, found, _ = recovery.run()
        self.assertEqual((status, found), (1, b"something else"), said)

    def test_password_pbkdf2(self):
        self.both("valid_password_pbkdf2", password="wrong horse", why="a wrong password")

    def test_password_pbkdf2_openssl(self):
        self.both("valid_password_pbkdf2", password="wrong horse", why="a wrong password",
                  variants={"pbkdf2-sha512": ["pbkdf2-openssl"]})

    def test_password_nfd(self):
        block, = ALG_BLOCKS["argon2id"]
        self.brings(*self.of_vector("valid_password_nfd", variants={"argon2id": ["nfc", block]}))
        self.brings_nothing("a wrong password", self.of_vector("valid_password_nfd")[1])

    def import_key(self, name, kind):
        """Puts the vector's private key on the token that its record names."""
        fields, envelope = vector(name)
        self.machine.make_token("vector")
        self.machine.write("k.pem", base64.b64decode(fields["token_key_pem_b64"]))
        for extra, private in ((["-pubout"], "pubkey"), ([], "privkey")):
            der = self.machine.path("k.der")
            subprocess.run(["openssl", "pkey", "-in", self.machine.path("k.pem"), *extra,
                            "-outform", "DER", "-out", der], check=True)
            subprocess.run(["pkcs11-tool", "--module", self.machine.module, "--token-label", "vector",
                            "--login", "--pin", world.PIN, "--write-object", der, "--type", private,
                            "--id", "77", "--label", "v", f"--usage-{kind}"],
                           env=self.machine.environment, check=True, capture_output=True)

    def test_token_rsa_sha1(self):
        self.import_key("valid_rsa_sha1", "decrypt")
        for block in ("rsa-oaep", "rsa-raw"):
            self.brings(*self.of_vector("valid_rsa_sha1", pins={"label": "vector"},
                                        variants={"RSA-OAEP": [block]}))
        self.brings_nothing("not on this token", self.of_vector(
            "valid_rsa_sha1", pins={"label": "ops"})[1])


class Page(unittest.TestCase):
    def test_every_block_is_run(self):
        """A block that no method above names would be text alone."""
        run = {"start", "paper", "check", "choose", "password", "token", "tpm2", "finish", "clean", "ecdh",
               "nfc", "pbkdf2-openssl", "officer", "shares", "store"}
        run |= {block for blocks in ALG_BLOCKS.values() for block in blocks}
        self.assertEqual(set(BLOCKS), run)
        fences = PAGE.read_text("utf-8").count("\n```sh")
        self.assertEqual(fences, PAGE.read_text("utf-8").count("\n```sh recover="))

    def test_no_block_names_keyescrow_as_a_command(self):
        for name, blocks in BLOCKS.items():
            for text in blocks:
                self.assertNotRegex(text, r"(?m)^\s*keyescrow\b|[|;&(]\s*keyescrow\b", name)


def main():
    _, others = world.parse_arguments(__doc__)
    unittest.main(module="__main__", argv=[sys.argv[0]] + others)


if __name__ == "__main__":
    main()
