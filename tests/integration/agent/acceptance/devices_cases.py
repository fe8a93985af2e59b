"""Factors that are wrong, and devices that are absent, doubled, locked, cleared or not what they seem."""

import glob
import os
import shutil
import unittest

from evidence_cases import editing
from world import BOTH_PATHS, PIN, UNLOCK, AcceptanceCase

RESTORE = ("restore", "app/key", "--to", "out.key")
BY_TOKEN = RESTORE + ("--via", "token-ops")
BY_TPM = RESTORE + ("--via", "tpm")


def calls(trace, name):
    """How often pkcs11-spy saw a function called."""
    return sum(line.endswith(": " + name) for line in trace.read_text(errors="replace").split("\n"))


class Token(AcceptanceCase):
    world_options = {"tpm": False}

    def spied(self, *arguments):
        """Runs through OpenSC's pkcs11-spy, a second witness of what the token is asked."""
        spies = glob.glob("/usr/lib/*/pkcs11-spy.so")
        if not spies:
            self.skipTest("pkcs11-spy is missing (package opensc-pkcs11)")
        trace = self.world.path("spy.log")
        trace.unlink(missing_ok=True)
        environment = {"PKCS11SPY": self.world.module, "PKCS11SPY_OUTPUT": str(trace)}
        done = self.world.run(*arguments, "--module", spies[0], env=environment)
        num_logins = calls(trace, "C_Login")
        trace.unlink()
        return done, num_logins

    def pin_warnings(self):
        return [check for check in self.world.run("doctor", "--json").json()["checks"]
                if check["area"] == "token" and "wrong PIN" in check["what"]]

    def test_wrong_password(self):
        self.refused("wrong_password", 3, *BY_TOKEN, "--password-file", "wrong", "--pin-file", "pin")

    def test_wrong_pin_is_tried_exactly_once(self):
        self.world.write("wrong-pin", "00000000\n")
        done, num_logins = self.spied(*BY_TOKEN, "--password-file", "pw", "--pin-file", "wrong-pin",
                                      "--json")
        self.assertEqual(num_logins, 1)
        error = self.check_json(done, "wrong_pin", 3)
        self.assertEqual(error["action"], "reauthenticate")
        self.assertEqual(len(self.pin_warnings()), 1, "doctor must show that the count is low")
        done, num_logins = self.spied(*BY_TOKEN, *UNLOCK)
        self.assertEqual((done.status, num_logins), (0, 1), str(done))
        self.assertEqual(self.pin_warnings(), [])
        self.world.path("out.key").unlink()

    def test_wrong_pin(self):
        self.world.write("wrong-pin", "00000000\n")
        self.refused("wrong_pin", 3, *BY_TOKEN, "--password-file", "pw", "--pin-file", "wrong-pin")
        self.restored("after.key")

    def test_wrong_pin_without_via_is_not_tried_on_another_path(self):
        self.world.write("wrong-pin", "00000000\n")
        done, num_logins = self.spied(*RESTORE, "--password-file", "pw", "--pin-file", "wrong-pin",
                                      "--json")
        self.check_json(done, "wrong_pin", 3)
        self.assertEqual(num_logins, 1)
        self.restored("after.key")

    def test_empty_pin_in_a_file(self):
        self.world.write("empty-pin", "\n")
        self.refused("pin_empty", 3, *BY_TOKEN, "--password-file", "pw", "--pin-file",
                     "empty-pin")
        self.assertEqual(self.pin_warnings(), [])

    def test_empty_pin_on_the_terminal_uses_no_try(self):
        done = self.world.run_on_terminal(*BY_TOKEN, "--password-file", "pw", answers=["", "", ""])
        self.assertEqual(done.status, 3, str(done))
        self.assertRegex(done.out, rb"error: the PIN of token 'ops' is empty; nothing was sent\s+hint: ")
        self.assertFalse(self.world.path("out.key").exists())
        self.assertEqual(self.pin_warnings(), [])

    def test_pin_and_password_on_the_terminal(self):
        done = self.world.run_on_terminal(
            *BY_TOKEN, answers=[self.world.path("pw").read_text().strip(), PIN])
        self.assertEqual(done.status, 0, str(done))
        self.assertNotIn(PIN.encode(), done.out)
        self.assertNotIn(b"horse", done.out)
        self.assertEqual(self.world.path("out.key").read_bytes(), self.world.key)
        self.world.path("out.key").unlink()

    def test_no_token(self):
        no_token = {"SOFTHSM2_CONF": str(self.world.path("no-token.conf"))}
        self.refused("token_not_found", 5, *BY_TOKEN, *UNLOCK, env=no_token)
        self.refused("token_not_found", 5, *RESTORE, *UNLOCK, env=no_token)

    def test_two_tokens_that_match(self):
        self.world.configure_tokens("twins.conf", "twins")
        for _ in range(2):
            # Made one by one, so that each gets its PIN, then put side by side.
            shutil.rmtree(self.world.path("twin"), ignore_errors=True)
            self.world.configure_tokens("twin.conf", "twin")
            self.world.make_token("twin", "twin.conf")
            for folder in self.world.path("twin").iterdir():
                shutil.move(folder, self.world.path("twins"))
        self.refused("token_ambiguous", 5, "token", "add", "twin", "pkcs11:token=twin",
                     "--module", self.world.module, "--pin-file", "pin",
                     env={"SOFTHSM2_CONF": str(self.world.path("twins.conf"))})
        self.assertEqual(len(self.world.must("token", "list", "--json").json()["tokens"]), 1)

    def test_another_token_of_the_same_name(self):
        self.world.configure_tokens("other.conf", "other")
        self.world.make_token("ops", "other.conf")
        other = {"SOFTHSM2_CONF": str(self.world.path("other.conf"))}
        done = self.world.run(*BY_TOKEN, *UNLOCK, "--json", env=other)
        self.assertIn(done.status, (5, 10), str(done))
        self.check_json(done, "token_not_found" if done.status == 5 else "token_key_not_found",
                        done.status)

    def test_missing_module(self):
        missing = self.world.path("no-such-module.so")
        self.refused("module_missing", 5, *BY_TOKEN, *UNLOCK, "--module", missing)
        self.refused("module_missing", 5, "token", "add", "more", "pkcs11:token=ops",
                     "--module", missing, "--pin-file", "pin")

    def test_a_file_that_is_no_module(self):
        for name, data in (("text.so", b"not a library\n"), ("empty.so", b"")):
            self.world.write(name, data, 0o755)
            self.refused("module_invalid", 5, *BY_TOKEN, *UNLOCK, "--module",
                         self.world.path(name))
        libraries = glob.glob("/lib/*/libm.so.6")  # a library, but no module
        self.refused("module_invalid", 5, *BY_TOKEN, *UNLOCK, "--module", libraries[0])

    def test_removed_token_store(self):
        broken = {"SOFTHSM2_CONF": "/nonexistent/softhsm2.conf"}
        done = self.world.run(*BY_TOKEN, *UNLOCK, "--json", env=broken)
        self.assertEqual(done.status, 5, str(done))

    def test_locked_pin_and_last_try(self):
        faulty = os.environ.get("KEYESCROW_FAULTY_PKCS11")
        if not faulty:
            self.skipTest("KEYESCROW_FAULTY_PKCS11 is not set")
        trace = self.world.path("trace")
        for flag, code in (("40000", "pin_locked"), ("20000", "pin_last_try")):
            trace.unlink(missing_ok=True)
            done = self.world.run(
                *BY_TOKEN, *UNLOCK, "--module", faulty, "--json",
                env={"FAULTY_PKCS11_MODULE": self.world.module,
                     "FAULTY_PKCS11_RULES": f"C_GetTokenInfo@0=flags:{flag}",
                     "FAULTY_PKCS11_TRACE": str(trace)})
            self.check_json(done, code, 6)
            self.assertNotIn("C_Login", trace.read_text().split())
        trace.unlink()


class Tpm(AcceptanceCase):
    paths = BOTH_PATHS

    def test_wrong_password_costs_one_try_and_the_right_one_works(self):
        self.world.tpm_tool("tpm2_dictionarylockout", "-c")
        error = self.refused("tpm_wrong_auth", 3, *BY_TPM, "--password-file", "wrong", num_runs=1)
        self.assertIn("all of them in 1000 s", error["hint"])
        counter = self.world.tpm_tool("tpm2_getcap", "properties-variable")
        self.assertRegex(counter, r"TPM2_PT_LOCKOUT_COUNTER: 0x1\n")
        self.restored("out.key", "--via", "tpm")
        # A wrong PIN is not the beginning of a search: the path by the TPM would open.
        self.world.write("wrong-pin", "00000000\n")
        self.refused("wrong_pin", 3, *RESTORE, "--password-file", "pw", "--pin-file", "wrong-pin",
                     num_runs=1)

    def test_no_tpm(self):
        self.refused("tpm_unavailable", 5, *BY_TPM, *UNLOCK, "--tpm", "none")
        self.refused("tpm_unavailable", 5, *BY_TPM, *UNLOCK, "--tpm", "swtpm:path=/nonexistent")
        self.refused("tpm_unavailable", 5, *BY_TPM, *UNLOCK, "--tpm", "device:/dev/null")
        done = self.world.run(*BY_TPM, *UNLOCK, "--tpm", "no such tcti", "--json")
        self.assertIn(done.status, (2, 5), str(done))

    def test_another_tpm(self):
        other = self.world.start_tpm("other")
        self.refused("tpm_wrong_device", 10, *BY_TPM, *UNLOCK, "--tpm", other, num_runs=1)

    def test_locked_out_tpm(self):
        tpm = self.world.tpm_tool
        tpm("tpm2_dictionarylockout", "-c")
        tpm("tpm2_dictionarylockout", "-s", "-n", "2", "-t", "1000", "-l", "1000")
        self.addCleanup(tpm, "tpm2_dictionarylockout", "-s", "-n", "32", "-t", "1000", "-l", "1000")
        self.addCleanup(tpm, "tpm2_dictionarylockout", "-c")
        self.refused("tpm_wrong_auth", 3, *BY_TPM, "--password-file", "wrong", num_runs=1)
        # The last try is not spent unless that is asked for.
        self.refused("tpm_last_try", 6, *BY_TPM, "--password-file", "pw")
        self.refused("tpm_wrong_auth", 3, *BY_TPM, "--password-file", "wrong", "--use-last-try",
                     num_runs=1)
        error = self.refused("tpm_lockout", 6, *BY_TPM, "--password-file", "pw")
        self.assertIn("1000", error["message"] + error["hint"])
        here = {p["id"]: p for p in self.succeeds("show", "app/key", "--json").json()["paths"]}
        self.assertEqual((here["token-ops"]["opens_here"], here["tpm"]["opens_here"]), (True, False))
        self.assertIn("locked out: 2 of 2 tries used", here["tpm"]["why_not"])
        self.restored("out.key")  # by the token, chosen automatically

    def test_restores_by_the_tpm_alone(self):
        self.restored("out.key", "--via", "tpm",
                      env={"SOFTHSM2_CONF": str(self.world.path("no-token.conf"))})
        # and chooses it where the token is absent
        self.restored("out.key", env={"SOFTHSM2_CONF": str(self.world.path("no-token.conf"))})


class ClearedTpm(AcceptanceCase):
    paths = BOTH_PATHS

    def test_the_path_is_dead_and_the_other_one_opens(self):
        self.world.tpm_tool("tpm2_clear")
        error = self.refused("tpm_wrong_device", 10, *BY_TPM, *UNLOCK)
        self.assertEqual(error["failure"], "factor")
        here = {p["id"]: p for p in self.succeeds("show", "app/key", "--json").json()["paths"]}
        self.assertEqual((here["token-ops"]["opens_here"], here["tpm"]["opens_here"]), (True, False))
        self.assertIn("cleared", here["tpm"]["why_not"])
        # No command enrolls a TPM that lost the agent's own key: what is told to do can be done.
        error = self.refused("tpm_wrong_device", 10, "path", "replace", "app/key", "tpm", "--path",
                             "password & tpm", "--via", "token-ops", *UNLOCK, num_runs=1)
        self.assertIn("init --state DIR", error["hint"])
        self.restored("out.key", "--via", "token-ops")
        self.restored("out.key")
        # Nobody need look into the log: the path counts as broken, the log's signature as missing.
        status = self.world.run("status", "--json").json()
        conditions = {path["id"]: path["condition"] for path in status["keys"][0]["paths"]}
        self.assertEqual(conditions, {"token-ops": "proven", "tpm": "broken"})
        self.assertIn("checkpoint_signature_missing", [f["rule"] for f in status["findings"]])
        self.found_by_the_log(
            ("UPDATE path_state SET failed = NULL, failure = ''",
             "the path tpm of app/key version 1 failed, and the store does not say so"),
            ("UPDATE path_state SET failed = 1 WHERE failed IS NOT NULL",
             "the path tpm of app/key version 1 failed, and the store does not say so"),
            ("UPDATE path_state SET failed = proven, failure = 'envelope_mac' WHERE path_id = "
             "'token-ops'", "no entry tells that the path token-ops failed at"),
            ("UPDATE token SET evidence = ''", "what the store says of the token ops is not what"),
            ("DELETE FROM meta WHERE name = 'tpm_simulator'",
             "the store says that the tpm is no simulator, and the log"))

    def found_by_the_log(self, *edits):
        """Whoever may write to the store cannot hide what failed, nor what the devices are."""
        self.assertNotEqual(self.world.run("verify").status, 4)
        for edit, told in edits:
            copy = self.world.path("edited")
            shutil.copytree(self.world.path("state"), copy)
            with editing(copy) as database:
                self.assertEqual(database.execute(edit).rowcount > 0, True, edit)
            done = self.world.run("verify", "--state", str(copy))
            shutil.rmtree(copy)
            self.assertEqual(done.status, 4, f"{edit}\n{done}")
            self.assertIn(told, done.out.decode())


class RsaStorageKey(AcceptanceCase):
    """0x81000001 holds somebody's RSA storage key: ours is transient, theirs stays untouched."""

    paths = None

    def test_it_works_and_is_left_alone(self):
        tpm = self.world.tpm_tool
        tpm("tpm2_createprimary", "-C", "o", "-G", "rsa2048", "-c", "primary.ctx")
        tpm("tpm2_evictcontrol", "-C", "o", "-c", "primary.ctx", "0x81000001")
        tpm("tpm2_flushcontext", "-t")
        before = tpm("tpm2_readpublic", "-c", "0x81000001")
        self.world.escrow(paths=BOTH_PATHS)
        self.restored("out.key", "--via", "tpm")
        self.restored("out.key", "--via", "token-ops")
        self.succeeds("verify")
        self.assertEqual(tpm("tpm2_readpublic", "-c", "0x81000001"), before)
        self.assertEqual(tpm("tpm2_getcap", "handles-transient"), "")
        self.assertEqual(tpm("tpm2_getcap", "handles-loaded-session"), "")
        self.assertEqual(tpm("tpm2_getcap", "handles-persistent").split(), ["-", "0x81000001"])


