"""Edits of a key's paths: each path as the opener, what is not needed away, and the truth about copies."""

import json
import os
import random
import subprocess
import sys
import tarfile
import time

from world import PASSWORD, UNLOCK, AcceptanceCase

OPS, SAFE, TPM = "password & token:ops", "password & token:safe", "password & tpm"
NEW = "seventeen velvet kettles & a brisk comet"
STRONG = "umbrella quartz 71 meadow lantern tulip"
POLICY = """[policy]
name = "corp"
serial = 1
mode = "enforce"
simulators = "allowed"
[[rule]]
name = "all"
match = "**"
portable = true
[[rule]]
name = "strict"
match = "strict/**"
require = ["token:ops"]
survive = 1
forbid = ["tpm"]
"""

RULED = """[policy]
name = "ruled"
serial = 1
mode = "enforce"
simulators = "allowed"
[[rule]]
name = "ruled"
match = "e/ruled"
require = ["password & token:safe"]
reason = "required"
ticket = "^CHG-[0-9]+$"
[[rule]]
name = "others"
match = "x/**"
portable = true
"""


class Paths(AcceptanceCase):  # one test: its methods edit keys of their own
    """token:ops, token:safe and the TPM; what is away is no device, or no PIN for it."""

    paths = ()

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.paths = (OPS,)  # from here on the store verifies after each test
        world = cls.world
        world.key = os.urandom(32)
        world.write("app.key", world.key)
        # An agent key in a file signs edits while the TPM is away.
        world.thumbprint = world.must("init", "--tpm", "none", "--json").json()["thumbprint"]
        world.must("token", "add", "ops", "pkcs11:token=ops", "--module", world.module,
                   "--pin-file", "pin")
        world.make_token("safe")
        world.write("safe-pin", "24681357\n")
        world.write("new", NEW + "\n")
        world.write("dos", PASSWORD + "\r\n")
        world.write("strong", STRONG + "\n")
        world.must("token", "add", "safe", "pkcs11:token=safe", "--module", world.module,
                   "--pin-file", "safe-pin")
        vkey = world.must("policy", "sign", "--new-key", "alice.key").out.decode().strip()
        world.write("policy.toml", POLICY)
        world.must("policy", "sign", "policy.toml", "--key", "alice.key")
        world.must("policy", "set", "policy.toml", "--policy-key", vkey)
        cls.policy_key = vkey
        cls.no_token = {"SOFTHSM2_CONF": str(world.path("no-token.conf"))}

    def escrow(self, name, *paths, password="pw"):
        words = [word for path in paths for word in ("--path", path)]
        done = self.world.run("backup", name, "--from", "app.key", *words, "--prove", "none",
                              "--password-file", password)
        self.assertEqual(done.status, 1, str(done))

    def edit(self, *arguments, status=0, **options):
        done = self.world.run(*arguments, "--no-input", "--json", **options)
        self.assertEqual(done.status, status, str(done))
        return done.json()

    def opens(self, name, via, password="pw", pin=None, status=0, **options):
        pins = ("--pin-file", pin) if pin else ()
        done = self.world.run("restore", name, "--via", via, "--to", "out.key", "--password-file",
                              password, *pins, "--no-input", "--json", **options)
        self.assertEqual(done.status, status, str(done))
        if status == 0:
            self.assertEqual(self.world.path("out.key").read_bytes(), self.world.key)
            self.world.path("out.key").unlink()
        return done

    def states(self, name):
        return {path["id"]: path["condition"]
                for path in self.succeeds("path", "list", name, "--json").json()["paths"]}

    def revision(self, name):
        return self.succeeds("path", "list", name, "--json").json()["revision"]

    def test_add_a_token_that_lies_in_the_safe(self):
        self.escrow("e/add", OPS)
        done = self.edit("path", "add", "e/add", "--path", SAFE, "--password-file", "pw",
                         "--pin-file", "ops=pin")
        self.assertEqual((done["revision"], done["via"], done["old_copies_open"]),
                         (2, "token-ops", False))
        self.assertEqual([(p["id"], p["change"], p["proven"]) for p in done["paths"]],
                         [("token-ops", "kept", True), ("token-safe", "added", False)])
        self.assertIn("PIN", done["paths"][1]["why_not"])
        self.assertEqual(self.states("e/add"), {"token-ops": "proven", "token-safe": "unproven"})
        self.opens("e/add", "token-safe", pin="safe-pin")
        self.assertEqual(self.states("e/add")["token-safe"], "proven")
        types = [(entry["type"], [p["id"] for p in entry.get("paths", [])])
                 for entry in self.succeeds("audit", "log", "--json").json()["entries"]
                 if entry.get("key", {}).get("name") == "e/add"][1:4]
        self.assertEqual(types, [("escrow.rewrapped", ["token-ops", "token-safe"]),
                                 ("factor.enrolled", ["token-safe"]),
                                 ("drill.passed", ["token-ops"])])
        self.refused("already_exists", 2, "path", "add", "e/add", "--path", SAFE, *UNLOCK,
                     num_runs=1)

    def test_a_password_changes_with_each_path_as_the_opener(self):
        """The other tokens are away; the TPM must be there for its own path, and for no other."""
        self.escrow("e/change", OPS, SAFE, TPM)
        change = ("password", "change", "e/change", "--password-file", "pw",
                  "--new-password-file", "new")
        error = self.check_json(
            self.world.run(*change, "--via", "token-ops", "--pin-file", "ops=pin", "--tpm", "none",
                           "--no-input", "--json"), "tpm_unavailable", 5)
        self.assertIn("--path-id", error["hint"])
        done = self.edit(*change, "--via", "token-ops", "--pin-file", "ops=pin", "--tpm", "none",
                         "--path-id", "token-ops", "--path-id", "token-safe")
        self.assertEqual([(p["change"], p["proven"]) for p in done["paths"]],
                         [("password changed", True), ("password changed", False),
                          ("kept", False)])
        self.assertTrue(done["old_copies_open"])
        self.assertEqual(self.states("e/change"),
                         {"token-ops": "proven", "token-safe": "unproven", "tpm": "unproven"})
        self.opens("e/change", "token-safe", "new", "safe-pin")
        self.opens("e/change", "token-safe", "pw", "safe-pin", status=3)
        self.opens("e/change", "tpm")
        # Now they have two passwords: which is meant must be said.
        self.refused("usage", 2, *change, "--via", "tpm", "--no-input", num_runs=1)
        done = self.edit(*change, "--via", "tpm", "--path-id", "tpm", env=self.no_token, status=1)
        self.assertEqual([(p["id"], p["change"], p["proven"]) for p in done["paths"]][2],
                         ("tpm", "password changed", True))
        self.opens("e/change", "tpm", "new")
        # Back again, opened by the third, whose own password stays.
        done = self.edit("password", "change", "e/change", "--password-file", "new",
                         "--new-password-file", "pw", "--via", "token-safe", "--pin-file",
                         "safe=safe-pin", "--path-id", "token-ops")
        self.opens("e/change", "token-ops", "pw", "pin")
        self.opens("e/change", "token-safe", "new", "safe-pin")
        # To the password of the path that opens it, which is not the path's old one.
        self.edit("password", "change", "e/change", "--password-file", "new", "--new-password-file",
                  self.world.write("as-new", NEW + "\n"), "--via", "token-safe", "--pin-file",
                  "safe=safe-pin", "--path-id", "token-ops")
        self.opens("e/change", "token-ops", "new", "pin")
        self.assertEqual(self.revision("e/change"), 5)

    def test_a_lost_token_is_replaced_in_one_revision(self):
        self.escrow("e/lost", OPS, TPM)
        self.succeeds("export", "e/lost", "-o", "before.escrow")
        done = self.edit("path", "replace", "e/lost", "token-ops", "--path", SAFE, "--via", "tpm",
                         "--password-file", "pw", "--pin-file", "safe=safe-pin")
        self.assertEqual((done["revision"], done["removed"]), (2, ["token-ops"]))
        self.assertEqual([(p["id"], p["proven"]) for p in done["paths"]],
                         [("token-safe", True), ("tpm", True)])
        self.opens("e/lost", "token-safe", pin="safe-pin")
        self.opens("e/lost", "token-ops", pin="pin", status=3)
        self.opens("before.escrow", "token-ops", pin="pin")  # as was said

    def test_what_may_not_be_taken_away(self):
        self.escrow("e/keep", OPS, TPM)
        remove = ("path", "remove", "e/keep")
        self.refused("path_forbidden", 7, *remove, "token-ops", *UNLOCK)
        self.refused("path_forbidden", 7, *remove, "token-ops", "tpm", *UNLOCK, num_runs=1)
        self.refused("path_not_found", 8, *remove, "token-none", *UNLOCK, num_runs=1)
        done = self.edit(*remove, "tpm", *UNLOCK)
        self.assertEqual(done["removed"], ["tpm"])
        self.opens("e/keep", "tpm", status=3)
        self.escrow("strict/key", "token:ops", "token:safe")
        error = self.refused("policy_refused", 7, "path", "remove", "strict/key", "token-ops",
                             *UNLOCK, num_runs=1)
        self.assertIn('"strict"', error["message"])
        self.assertIn("path add", error["hint"])
        self.refused("policy_refused", 7, "path", "remove", "strict/key", "token-safe", *UNLOCK,
                     num_runs=1)
        self.refused("path_forbidden", 7, "path", "add", "strict/key", "--path", "tpm", *UNLOCK,
                     num_runs=1)
        self.assertEqual(self.revision("strict/key"), 1)
        # The last portable path that was seen to open stays, or another one is seen to.
        self.escrow("e/seen", OPS, SAFE)
        self.succeeds("drill", "e/seen", "--via", "token-ops", *UNLOCK)
        remove = ("path", "remove", "e/seen", "token-ops", "--password-file", "pw")
        error = self.refused("path_forbidden", 7, *remove, "--via", "token-ops", "--pin-file", "pin",
                             num_runs=1)
        self.assertIn("drill e/seen", error["hint"])
        self.assertEqual(self.revision("e/seen"), 1)
        self.edit(*remove, "--via", "token-safe", "--pin-file", "safe-pin")
        self.opens("e/seen", "token-safe", pin="safe-pin")

    def test_a_pin_without_a_name_is_sent_to_no_wrong_token(self):
        backup = ("backup", "e/two", "--from", "app.key", "--path", OPS, "--path", SAFE,
                  "--password-file", "pw")
        error = self.refused("usage", 2, *backup, "--pin-file", "pin")
        self.assertIn("--pin-file ops=FILE", error["hint"])
        self.edit(*backup, "--pin-file", "ops=pin", "--pin-file", "safe=pin")  # they have one PIN
        for command in (("drill", "e/two"), ("drill", "--all"), ("restore", "e/two", "--to", "x.key"),
                        ("path", "add", "e/two", "--path", "password & tpm")):
            self.refused("usage", 2, *command, *UNLOCK, num_runs=1)
        self.opens("e/two", "token-safe", pin="pin")
        done = self.world.run("restore", "e/two", "--via", "token-safe", "--to", "out.key",
                              "--password-file", "dos", "--pin-file", "pin", "--no-input", "--json")
        self.assertIn("carriage return", self.check_json(done, "wrong_password", 3)["hint"])

    def test_one_password_alone_and_beside_hardware(self):
        """Refused in a backup and in edits, whichever of the two was there first."""
        alone = ("--path", "password", "--path", OPS)
        unlock = ("--password-file", "strong", "--pin-file", "pin", "--no-input")
        for command in (("backup", "e/reuse", "--from", "app.key", *alone, *unlock),
                        ("path", "add", "e/reuse", "--path", "password", *unlock),
                        ("path", "add", "e/reuse", "--path", SAFE, "--via", "token-ops", *unlock,
                         "--new-password-file", "new")):
            error = self.refused("password_weak", 7, *command, num_runs=1)
            self.assertIn("by itself", error["message"])
            if command[0] == "backup":
                self.escrow("e/reuse", OPS, password="strong")
            elif "password" in command:
                self.edit("path", "add", "e/reuse", "--path", "password", *unlock[:-1],
                          "--new-password-file", "new")
        self.opens("e/reuse", "password", "new")

    def test_one_password_of_a_recovery_key_and_of_a_path(self):
        """The recovery key's own path has hardware: neither is weaker than the other."""
        self.edit("recovery-key", "create", "behind", "--path", OPS, *UNLOCK)
        self.edit("backup", "e/behind", "--from", "app.key", "--path", OPS, "--path",
                  "behind=recovery-key:behind", "--password-file", "strong", "--pin-file", "pin")
        self.edit("path", "add", "e/behind", "--path", SAFE, "--via", "behind", *UNLOCK,
                  "--new-password-file", self.world.write("same", PASSWORD + "\n"), status=1)
        self.opens("e/behind", "token-safe", pin="safe-pin")

    def test_a_path_is_not_proven_by_what_it_was_before(self):
        self.escrow("e/proof", OPS, SAFE)
        self.succeeds("drill", "e/proof", "--via", "token-ops", "--password-file", "pw",
                      "--pin-file", "ops=pin")
        self.assertEqual(self.states("e/proof")["token-ops"], "proven")
        self.edit("password", "change", "e/proof", "--via", "token-safe", "--password-file", "pw",
                  "--pin-file", "safe=safe-pin", "--new-password-file", "new")
        self.assertEqual(self.states("e/proof"), {"token-ops": "unproven", "token-safe": "proven"})
        # Nor one that was removed, by another that has its name.
        self.edit("path", "remove", "e/proof", "token-ops", "--via", "token-safe",
                  "--password-file", "new", "--pin-file", "safe=safe-pin", "--yes")
        self.edit("path", "add", "e/proof", "--path", OPS, "--via", "token-safe", "--password-file",
                  "new", "--pin-file", "safe=safe-pin")
        self.assertEqual(self.states("e/proof")["token-ops"], "unproven")

    def test_a_wrong_password_changes_nothing_and_is_logged(self):
        self.escrow("e/wrong", OPS)
        self.refused("wrong_password", 3, "path", "add", "e/wrong", "--path", SAFE,
                     "--password-file", "wrong", "--pin-file", "pin", "--no-input", num_runs=1)
        entry = self.succeeds("audit", "log", "--json").json()["entries"][-1]
        self.assertEqual((entry["type"], entry["error"]), ("escrow.failed", "wrong_password"))
        self.refused("password_weak", 7, "password", "change", "e/wrong", *UNLOCK,
                     "--new-password-file", self.world.write("same", PASSWORD + "\n"), "--no-input",
                     num_runs=1)
        self.refused("secret_source_missing", 2, "password", "change", "e/wrong", *UNLOCK,
                     "--no-input", num_runs=1)
        self.assertEqual(self.revision("e/wrong"), 1)

    def test_a_key_of_a_host_that_died_is_adopted(self):
        """The same machine with a state of its own stands for the other host."""
        world = self.world
        self.escrow("e/moves", OPS, TPM)
        self.succeeds("export", "e/moves", "-o", "moves.escrow")
        other = {"KEYESCROW_STATE": str(world.path("other.state")),
                 "KEYESCROW_CONFIG": str(world.path("other.toml"))}
        world.write("other.toml", world.path("agent.toml").read_text().replace("acceptance", "db2"))
        world.must("init", env=other)
        world.must("token", "add", "safe", "pkcs11:token=safe", "--module", world.module,
                   "--pin-file", "safe-pin", env=other)
        adopt = ("adopt", "moves.escrow", "--path", SAFE, "--module", world.module, "--via",
                 "token-ops", "--password-file", "pw", "--pin-file", "ops=pin", "--pin-file",
                 "safe=safe-pin")
        self.refused("agent_not_trusted", 4, *adopt, env=other, num_runs=1)
        adopt += ("--agent", world.thumbprint)
        done = self.edit(*adopt, env=other)
        self.assertEqual((done["key"], done["from"]["host"], done["from"]["via"]),
                         ({"name": "e/moves", "version": 1}, "acceptance", "token-ops"))
        self.assertEqual([(p["id"], p["proven"]) for p in done["paths"]], [("token-safe", True)])
        self.opens("e/moves", "token-safe", pin="safe-pin", env=other)
        shown = self.succeeds("show", "e/moves", "--json", env=other).json()
        self.assertEqual((shown["host"], shown["note"]),
                         ("db2", "adopted from acceptance: e/moves version 1"))
        error = self.refused("already_exists", 2, *adopt, env=other, num_runs=1)
        self.assertIn("--as", error["hint"])
        self.edit(*adopt, "--as", "e/again", env=other)
        # What was imported is edited where it belongs, or adopted as its next version.
        world.must("trust", "add", world.thumbprint, env=other)
        self.escrow("e/imported", OPS, TPM)
        self.succeeds("export", "e/imported", "-o", "imported.escrow")
        world.must("import", "imported.escrow", env=other)
        error = self.refused("usage", 2, "path", "add", "e/imported", "--path", SAFE, *UNLOCK,
                             env=other, num_runs=1)
        self.assertIn("adopt e/imported", error["hint"])
        done = self.edit("adopt", "e/imported", *adopt[2:], env=other)
        self.assertEqual(done["key"]["version"], 2)
        done = self.edit("trust", "remove", world.thumbprint, "--yes", env=other)
        self.assertEqual(done["signed"], [{"name": "e/imported", "version": 1}])
        self.assertEqual(done["tpm_paths"], [{"key": {"name": "e/imported", "version": 1},
                                              "path": "tpm", "host": "acceptance"}])
        self.succeeds("verify", env=other)
        # Where a policy lets a password be alone, it is not that of a path with hardware.
        world.must("policy", "set", "policy.toml", "--policy-key", self.policy_key, env=other)
        error = self.refused("password_weak", 7, "adopt", "moves.escrow", "--path", "password",
                             *adopt[4:], "--new-password-file",
                             world.write("reused", PASSWORD + "\n"), "--as", "e/reuse", env=other,
                             num_runs=1)
        self.assertIn("by itself", error["message"])
        self.refused("key_not_found", 8, "show", "e/reuse", env=other)
        # The host that died, rebuilt under its name: another agent.
        rebuilt = {"KEYESCROW_STATE": str(world.path("rebuilt.state"))}
        world.must("init", "--tpm", "none", env=rebuilt)
        world.must("token", "add", "safe", "pkcs11:token=safe", "--module", world.module,
                   "--pin-file", "safe-pin", env=rebuilt)
        done = self.edit(*adopt, env=rebuilt)
        self.assertEqual(done["from"]["host"], "acceptance")
        self.opens("e/moves", "token-safe", pin="safe-pin", env=rebuilt)
        self.succeeds("verify", env=rebuilt)
        error = self.refused("usage", 2, "adopt", "moves.escrow", "--as", "e/mine", "--path", SAFE,
                             *UNLOCK, num_runs=1)
        self.assertIn("of this agent", error["message"])

    def test_a_backup_says_which_key_it_takes_the_place_of(self):
        """An imported one that nobody compared, or one with other bytes: done, and said."""
        world = self.world
        self.escrow("e/came", OPS)
        self.succeeds("export", "e/came", "-o", "came.escrow")
        there = {"KEYESCROW_STATE": str(world.path("came.state")),
                 "KEYESCROW_CONFIG": str(world.path("came.toml"))}
        world.write("came.toml", world.path("agent.toml").read_text().replace("acceptance", "db4"))
        world.must("init", "--tpm", "none", env=there)
        world.must("token", "add", "ops", "pkcs11:token=ops", "--module", world.module,
                   "--pin-file", "pin", env=there)
        world.must("trust", "add", world.thumbprint, env=there)
        world.must("import", "came.escrow", env=there)
        world.write("came.key", world.key)
        world.must("key", "add", "e/came", "--source", "came.key", "--path", OPS, env=there)

        def backup():
            done = self.edit("backup", "e/came", *UNLOCK, env=there)
            said = world.run("backup", "e/came", *UNLOCK, env=there).err.decode()
            return done["key"]["version"], " ".join(done["findings"]), said

        found, = (f for f in world.run("status", "--json", env=there).json()["findings"]
                  if f["rule"] == "fingerprint_missing")
        self.assertIn("keyescrow restore e/came --to", found["remedy"])
        # What is declared here may be any key: it takes the imported one's place, and that is said.
        version, findings, said = backup()
        self.assertEqual(version, 2)
        self.assertIn("imported from the host acceptance", findings)
        for words in ("restore e/came --version 1", "keyescrow adopt"):
            self.assertIn(words, findings)
        self.assertNotIn("imported", said)  # the next one is compared, and is the same
        world.write("came.key", os.urandom(32))
        version, findings, said = backup()
        self.assertIn("other bytes than version 3 has", findings)
        self.assertIn("restore e/came --version 3", findings)
        self.assertNotIn("other bytes", said)
        made = self.edit("backup", "e/came", "--generate", "32", "--to", "made.key", *UNLOCK,
                         env=there)
        self.assertNotIn("other bytes", " ".join(made["findings"]))  # nobody takes it for that
        # Compared by a restore, it is known whether it is the same.
        world.must("import", self.renamed("e/seen", "seen.escrow"), env=there)
        world.must("key", "add", "e/seen", "--source", "seen.key", "--path", OPS, env=there)
        world.must("restore", "e/seen", *UNLOCK, env=there)
        done = self.edit("backup", "e/seen", *UNLOCK, env=there)
        self.assertNotIn("imported", " ".join(done["findings"]))
        self.succeeds("verify", env=there)

    def renamed(self, name, file):
        self.escrow(name, OPS)
        self.succeeds("export", name, "-o", file)
        return file

    def test_another_name_does_not_take_a_key_from_under_its_rules(self):
        world = self.world
        self.escrow("e/ruled", OPS, TPM)
        self.succeeds("export", "e/ruled", "-o", "ruled.escrow")
        there = {"KEYESCROW_STATE": str(world.path("ruled.state")),
                 "KEYESCROW_CONFIG": str(world.path("ruled.toml"))}
        world.write("ruled.toml", world.path("agent.toml").read_text().replace("acceptance", "db3"))
        vkey = world.must("policy", "sign", "--new-key", "ruled.key").out.decode().strip()
        world.write("ruled.policy.toml", RULED)
        world.must("policy", "sign", "ruled.policy.toml", "--key", "ruled.key")
        world.must("init", "--policy", "ruled.policy.toml", "--policy-key", vkey, env=there)
        for name, pin in (("safe", "safe-pin"), ("ops", "pin")):
            world.must("token", "add", name, f"pkcs11:token={name}", "--module", world.module,
                       "--pin-file", pin, env=there)
        adopt = ("adopt", "ruled.escrow", "--agent", world.thumbprint, "--via", "token-ops",
                 "--as", "x/free", "--password-file", "pw", "--pin-file", "ops=pin", "--pin-file",
                 "safe=safe-pin")
        why = ("--reason", "db1 burned", "--ticket", "CHG-7")
        for words, tells in (((*adopt, "--path", SAFE), "reason"),
                             ((*adopt, "--path", SAFE, "--reason", "db1 burned"), "ticket"),
                             ((*adopt, "--path", OPS, *why), "token:safe")):
            done = world.run(*words, "--no-input", "--json", env=there)
            error = self.check_json(done, "policy_refused", 7)
            self.assertIn(tells, error["message"])
        self.edit(*adopt, "--path", SAFE, *why, env=there)
        entry, = [e for e in self.succeeds("audit", "log", "--json", env=there).json()["entries"]
                  if e["type"] == "escrow.created"]
        self.assertEqual(entry["ticket"], "CHG-7")
        self.assertIn("db1 burned", entry["reason"])
        self.succeeds("verify", env=there)

    def test_killed_it_is_done_or_not_done(self):
        self.escrow("e/kill", OPS, TPM)
        add = ("path", "add", "e/kill", "--via", "token-ops", *UNLOCK, "--no-input")
        longest = self.succeeds(*add, "--path", "p0=" + SAFE).seconds
        generator = random.Random(4711)
        revision = 2
        for run in range(1, 6):
            child = self.world.start(*add, "--path", f"p{run}=" + SAFE)
            time.sleep(longest * (run + generator.random()) / 6)
            child.kill()
            child.communicate()
            for kind in ("-t", "-l"):  # what a resource manager does for a process that died
                self.world.tpm_tool("tpm2_flushcontext", kind)
            now = self.revision("e/kill")
            self.assertIn(now - revision, (0, 1))
            self.assertEqual(f"p{run}" in self.states("e/kill"), now > revision)
            revision = now
        self.opens("e/kill", "token-ops", pin="pin")
        self.opens("e/kill", "p0", pin="safe-pin")

    def test_z_the_evidence_holds(self):
        """Chains of revisions, by every verifier: the state, the pack, and the pack's own program."""
        self.verifies()
        self.world.write("trust.json", self.succeeds("agent-key", "export").out)
        self.succeeds("audit", "export", "-o", "pack.tar")
        elsewhere = {"KEYESCROW_STATE": str(self.world.path("none")), "KEYESCROW_CONFIG": None}
        done = self.world.run("verify", "pack.tar", "--trust", "trust.json", "--json",
                              env=elsewhere)
        findings = [f for item in done.json()["items"] for f in item["findings"]]
        self.assertEqual(findings, [], str(done))
        with tarfile.open(self.world.path("pack.tar")) as tar:
            tar.extractall(self.world.path("copy"))
        (unpacked,) = self.world.path("copy").iterdir()
        script = subprocess.run(
            [sys.executable, "-B", "-I", "-S", unpacked / "verify.py", "--trust",
             self.world.path("trust.json"), "--json"], cwd=unpacked, capture_output=True,
            check=False, text=True)
        self.assertEqual(json.loads(script.stdout)["bad"], [], script.stdout + script.stderr)
        revisions = [json.loads(line) for name in os.listdir(unpacked / "summaries")
                     for line in (unpacked / "summaries" / name).read_text().splitlines()]
        self.assertGreater(max(item["revision"] for item in revisions), 3)
