"""Drills: every proof of a path checked by the second decoder, and no authorisation tried twice."""

import base64
import hashlib
import json
import os
import subprocess
import sys

from world import BOTH_PATHS, PIN, SECOND_DECODER, UNLOCK, AcceptanceCase

ALL = ("drill", "--all", "--no-input")


def b64u_decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


CHALLENGE = base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("=")


class Drill(AcceptanceCase):  # one test: its methods share three keys
    paths = BOTH_PATHS

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for name in ("app/two", "app/three"):
            if name == "app/three":  # slow enough for a progress line
                cls.world.costs = ""
                cls.world.configure(cls.world.tcti)
            done = cls.world.run("backup", name, "--from", "app.key", "--path", BOTH_PATHS[0],
                                 "--path", BOTH_PATHS[1], "--prove", "none", *UNLOCK, "-o",
                                 name.replace("/", "-") + ".escrow")
            assert done.status == 1, str(done)  # nothing is proven
        cls.world.write("wrong-pin", "00000000\n")

    def traced(self, *arguments):
        """Runs through the tracing PKCS#11 module; returns how often the token was logged in to."""
        trace = self.world.path("trace")
        trace.unlink(missing_ok=True)
        done = self.world.run(*arguments, "--module", os.environ["KEYESCROW_FAULTY_PKCS11"],
                              env={"FAULTY_PKCS11_MODULE": self.world.module,
                                   "FAULTY_PKCS11_TRACE": str(trace)})
        calls = trace.read_text().splitlines() if trace.exists() else []
        trace.unlink(missing_ok=True)
        return done, calls.count("C_Login")

    def log(self):
        return self.succeeds("audit", "log", "--json").json()["entries"]

    def proofs(self, file, entries):
        """What the second decoder finds: (path, challenge) of each proof, all of which hold."""
        self.world.write("entries", "".join(json.dumps(entry) + "\n" for entry in entries))
        done = subprocess.run(
            [sys.executable, "-B", SECOND_DECODER / "decode.py", "drills", self.world.path(file),
             "--trust=" + self.world.thumbprint, "--entries", self.world.path("entries")],
            capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return [tuple(line.split()[0::2][:2]) for line in done.stdout.splitlines()]

    def outcomes(self, document):
        return {(key["key"]["name"], path["id"]): path["outcome"]
                for key in document["keys"] for path in key["paths"]}

    def test_all_with_one_login_and_proofs_that_anybody_checks(self):
        before = len(self.log())
        done, num_logins = self.traced(*ALL, *UNLOCK, "--json")
        self.assertEqual((done.status, num_logins), (0, 1), str(done))
        document = done.json()
        self.assertEqual((document["proven"], document["failed"], document["skipped"]), (6, 0, 0))
        self.assertNotIn(self.world.key.hex().encode(), done.out)
        entries = self.log()[before:]
        self.assertEqual([e["type"] for e in entries], ["drill.passed"] * 6)
        for file in ("app.escrow", "app-two.escrow", "app-three.escrow"):
            self.assertEqual(self.proofs(file, entries), [("token-ops", "-"), ("tpm", "-")])
        for path in self.succeeds("show", "app/two", "--json").json()["paths"]:
            self.assertEqual((path["condition"], path["proven_by"]), ("proven", "drill"))
            self.assertEqual(self.log()[path["proof_seq"]]["paths"][0]["id"], path["id"])

    def test_the_log_has_the_proofs_of_backup_and_restore_too(self):
        self.restored("out.key", "--via", "token-ops")
        entries = self.log()
        found = self.proofs("app.escrow", entries)
        self.assertEqual(found[:2], [("token-ops", "-"), ("tpm", "-")])
        restored = [e for e in entries if e["type"] == "restore.completed"]
        self.assertTrue(restored and all("drill" in e for e in restored))
        forged = [dict(e, drill=dict(e["drill"], size=e["drill"]["size"] + 1)) for e in restored]
        self.world.write("entries", "".join(json.dumps(e) + "\n" for e in forged))
        done = subprocess.run(
            [sys.executable, "-B", SECOND_DECODER / "decode.py", "drills",
             self.world.path("app.escrow"), "--trust=" + self.world.thumbprint, "--entries",
             self.world.path("entries")], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 1, done.stdout)

    def test_one_path(self):
        done = self.succeeds("drill", "app/key", "--via", "tpm", "--password-file", "pw", "--json")
        self.assertEqual(self.outcomes(done.json()), {("app/key", "tpm"): "proven"})
        done = self.world.run("drill", "app/key", "--via", "none", *UNLOCK, "--json")
        self.check_json(done, "path_not_found", 3)

    def test_a_wrong_pin_is_sent_once_for_three_keys(self):
        done, num_logins = self.traced(*ALL, "--via", "token-ops", "--password-file", "pw",
                                       "--pin-file", "wrong-pin", "--json")
        self.assertEqual((done.status, num_logins), (1, 1), str(done))
        document = done.json()
        self.assertEqual((document["proven"], document["failed"], document["skipped"]), (0, 1, 2))
        # What was typed tells nothing of the path: it is not broken.
        states = self.succeeds("show", "app/key", "--json").json()["paths"]
        self.assertEqual({p["condition"] for p in states}, {"proven"})
        self.succeeds("drill", "app/key", "--via", "token-ops", *UNLOCK)  # the count is reset

    def test_a_wrong_password_costs_one_try_of_the_tpm(self):
        def counter():
            text = self.world.tpm_tool("tpm2_getcap", "properties-variable")
            return int(text.split("TPM2_PT_LOCKOUT_COUNTER:")[1].split()[0], 16)
        before = counter()
        done = self.world.run(*ALL, "--via", "tpm", "--password-file", "wrong", "--json")
        self.assertEqual(done.status, 1, str(done))
        self.assertEqual(counter(), before + 1)
        document = done.json()
        self.assertEqual((document["failed"], document["skipped"]), (1, 2))
        self.world.tpm_tool("tpm2_dictionarylockout", "--clear-lockout")

    def test_what_is_not_at_hand_is_skipped_with_its_reason(self):
        before = len(self.log())
        done = self.world.run("drill", "app/key", "--password-file", "pw", "--no-input", "--json")
        self.assertEqual(done.status, 1, str(done))
        self.assertEqual(self.outcomes(done.json()),
                         {("app/key", "token-ops"): "skipped", ("app/key", "tpm"): "proven"})
        skipped = self.log()[before]
        self.assertEqual((skipped["type"], skipped["error"]),
                         ("drill.skipped", "secret_source_missing"))
        self.assertIn("no PIN was given", skipped["reason"])

    def test_one_key_and_not_one_path_exits_by_the_cause(self):
        done = self.world.run("drill", "app/two", "--via", "token-ops", "--pin-file", "pin",
                              "--password-file", "wrong", "--no-input")
        self.assertEqual(done.status, 3, str(done))
        self.assertIn(b"\nerror: the password does not open the path", b"\n" + done.err)

    def test_a_challenge_is_signed(self):
        self.world.write("q.challenge", json.dumps({
            "schema": "keyescrow/challenge/1", "challenge": CHALLENGE,
            "created": "2026-01-01T00:00:00Z", "drawn": [{"key": "app/two", "path": "token-ops"}]}))
        before = len(self.log())
        done = self.succeeds("drill", "--challenge", "q.challenge", *UNLOCK, "--json")
        self.assertEqual(self.outcomes(done.json()), {("app/two", "token-ops"): "proven"})
        self.assertEqual(self.proofs("app-two.escrow", self.log()[before:]),
                         [("token-ops", CHALLENGE)])
        self.world.write("big.challenge", b" " * (3 * 1024 * 1024 + 1))
        error = self.check_json(self.world.run("drill", "app/key", "--challenge", "big.challenge",
                                               "--json"), "usage", 2)
        self.assertIn("no challenge", error["message"])
        self.world.path("big.challenge").unlink()
        self.world.write("other.challenge", json.dumps({
            "schema": "keyescrow/challenge/1", "challenge": CHALLENGE, "origin": "keyescrow/other",
            "created": "2026-01-01T00:00:00Z", "drawn": [{"key": "app/two", "path": "token-ops"}]}))
        before = len(self.log())
        done = self.world.run("drill", "--challenge", "other.challenge", *UNLOCK, "--json")
        error = self.check_json(done, "usage", 2)
        self.assertIn("drawn from another log", error["message"])
        self.assertEqual(len(self.log()), before)
        self.world.write("bent.challenge", '{"schema":"keyescrow/challenge/1"}')
        done = self.world.run("drill", "app/key", "--challenge", "bent.challenge", "--json")
        self.check_json(done, "usage", 2)

    def token_nonce(self, nonce):
        """The nonce wrapped by openssl to the key of `ops`, which the envelope's header names."""
        payload = json.loads(self.world.path("app.escrow").read_text())["payload"]
        header = json.loads(b64u_decode(json.loads(b64u_decode(payload))["aad"]))
        factor = next(f for path in header["paths"] for f in path["factors"]
                      if f["type"] == "pkcs11-rsa")
        self.world.write("ops.der", b64u_decode(factor["spki"]))
        wrapped = subprocess.run(
            ["openssl", "pkeyutl", "-encrypt", "-pubin", "-keyform", "DER", "-inkey",
             self.world.path("ops.der"), "-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt",
             "rsa_oaep_md:sha256"], input=nonce, capture_output=True, check=True).stdout
        return {"type": "pkcs11-rsa", "alg": "RSA-OAEP-256", "token": "ops", "uri": factor["uri"],
                "spki": factor["spki"],
                "wrapped": base64.urlsafe_b64encode(wrapped).decode().rstrip("=")}

    def test_a_token_answers_an_auditors_nonce(self):
        nonce = os.urandom(32)
        self.world.write("n.challenge", json.dumps({
            "schema": "keyescrow/challenge/1", "challenge": CHALLENGE,
            "created": "2026-01-01T00:00:00Z", "drawn": [{"key": "app/two", "path": "token-ops"}],
            "tokens": [self.token_nonce(nonce)]}))
        done, num_logins = self.traced("drill", "--challenge", "n.challenge", "--answers",
                                       "n.answers", *UNLOCK, "--json")
        self.assertEqual((done.status, num_logins), (0, 1), str(done))
        answer = hashlib.sha256(b"keyescrow1|challenge|" + nonce).digest()
        written = json.loads(self.world.path("n.answers").read_text())
        self.assertEqual(written["challenge"], CHALLENGE)
        self.assertEqual([b64u_decode(row["answer"]) for row in written["answers"]], [answer])
        self.assertEqual(done.json()["answers"][0]["outcome"], "answered")
        self.assertNotIn(nonce.hex().encode(), done.out)
        self.assertIn("an auditor's nonce", self.log()[-1]["reason"])

    def test_a_file_without_a_state(self):
        work = self.world.path("elsewhere")
        work.mkdir()
        nowhere = {"KEYESCROW_STATE": str(work / "state"), "KEYESCROW_CONFIG": str(work / "none")}
        done = self.world.run("drill", "../app.escrow", "--via", "token-ops", "--module",
                              self.world.module, "--agent", self.world.thumbprint,
                              "--password-file", "../pw", "--pin-file", "../pin", "--tpm", "none",
                              cwd=work, env=nowhere)
        self.assertEqual(done.status, 0, str(done))
        self.assertIn(b"keyescrow-drill/1\n", done.out)
        (event,) = work.glob("keyescrow-drill-*.json")
        entries = [json.loads(line) for line in event.read_text().splitlines()]
        self.assertEqual((entries[0]["source"], entries[0]["drill"]["size"]), ("stateless", 0))
        self.assertEqual(self.proofs("app.escrow", entries), [("token-ops", "-")])
        self.succeeds("import-event", event)
        self.assertEqual(self.log()[-1]["drill"], entries[0]["drill"])

    def test_progress_counts_the_keys_on_a_terminal(self):
        done = self.world.run_on_terminal("drill", "--all", "--via", "tpm", "--password-file", "pw",
                                          answers=[])
        self.assertEqual(done.status, 0, str(done))
        self.assertRegex(done.out, rb"[23] of 3: ")


class OneTokenOfTwoKeys(AcceptanceCase):
    """Two registrations, each of a key of its own, on one token: it counts their tries together."""

    world_options = {"tpm": False}

    def test_a_pin_that_was_refused_is_sent_for_no_other_key(self):
        world = self.world
        world.make_token("two")
        subprocess.run(["pkcs11-tool", "--module", world.module, "--token-label", "two", "--login",
                        "--pin", PIN, "--keypairgen", "--key-type", "rsa:2048", "--id", "02",
                        "--label", "second", "--usage-decrypt"], env=world.environment, check=True,
                       capture_output=True)
        world.write("bad", "99999999\n")
        for name, number in (("one", "01"), ("other", "02")):
            self.succeeds("token", "add", name, f"pkcs11:token=two;id=%{number}", "--module",
                          world.module, "--pin-file", "pin")
            self.succeeds("backup", "two/" + name, "--from", "app.key", "--path", "token:" + name,
                          "--pin-file", "pin")
        rest = ("--pin-file", "ops=pin", "--password-file", "pw")
        done = world.run(*ALL, "--pin-file", "one=bad", "--pin-file", "other=bad", *rest, "--json")
        errors = {key["key"]["name"]: key["paths"][0]["error"] for key in done.json()["keys"]
                  if key["key"]["name"].startswith("two/")}
        self.assertEqual({name: error["code"] for name, error in errors.items()},
                         {"two/one": "wrong_pin", "two/other": "factor_missing"}, str(done))
        self.assertIn("is not sent again", errors["two/other"]["message"])
        self.succeeds(*ALL, "--pin-file", "one=pin", "--pin-file", "other=pin", *rest)
