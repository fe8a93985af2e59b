"""Policies as a security engineer rolls them out, as an admin meets them, and as an attacker tries them."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time

from evidence_cases import editing
from world import PIN, UNLOCK, AcceptanceCase, World

HEAD = '[policy]\nname = "corp"\nserial = {serial}\nmode = "{mode}"\nsimulators = "allowed"\n'
RULE = '[[rule]]\nname = "databases"\nmatch = "**"\n'


class Policies(AcceptanceCase):
    """Alice and Bob must both sign; Mallory is nobody."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.vkeys = {}
        for name in ("alice", "mallory"):
            cls.vkeys[name] = cls.world.must(
                "policy", "sign", "--new-key", f"{name}.key").out.decode().strip()
        # Bob's key is of stock tools, and of the other kind.
        subprocess.run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt",
                        "ec_paramgen_curve:P-256", "-out", cls.world.path("bob.key")], check=True,
                       capture_output=True)
        cls.world.path("bob.key").chmod(0o600)
        cls.vkeys["bob"] = cls.world.must("policy", "sign", "--key",
                                          "bob.key").out.decode().strip()
        cls.world.write("first.toml", cls.policy(1, "report", signers="both"))
        cls.sign("first.toml", "alice", "bob")
        cls.world.must("policy", "set", "first.toml", "--policy-key", cls.vkeys["alice"],
                       "--policy-key", cls.vkeys["bob"])

    @classmethod
    def policy(cls, serial, mode, more="", rule="", signers=None):
        text = HEAD.format(serial=serial, mode=mode) + more
        if signers == "both":
            text += '[signers]\nthreshold = 2\nkeys = ["%s", "%s"]\n' % (
                cls.vkeys["alice"], cls.vkeys["bob"])
        return text + RULE + rule

    @classmethod
    def sign(cls, file, *names):
        for name in names:
            cls.world.must("policy", "sign", file, "--key", f"{name}.key")

    def in_force(self):
        return self.succeeds("policy", "show", "--json").json()

    def next_serial(self):
        return self.in_force()["serial"] + 1

    def log_size(self):
        return len(self.succeeds("audit", "log", "--json").json()["entries"])

    def set_refused(self, code, status, file="p.toml", *more):
        """Refused as a person and as a program; policy and log stay as they were."""
        before = self.in_force(), self.log_size()
        error = self.refused(code, status, "policy", "set", file, *more)
        self.assertEqual((self.in_force(), self.log_size()), before)
        return error

    def write_signed(self, text, *names, file="p.toml"):
        self.world.write(file, text)
        self.world.path(file + ".sig").unlink(missing_ok=True)
        self.sign(file, *names)

    def test_unsigned(self):
        self.write_signed(self.policy(self.next_serial(), "report"))
        self.set_refused("policy_unsigned", 4)

    def test_too_few_signed_and_who_is_nobody(self):
        self.write_signed(self.policy(self.next_serial(), "report"), "alice")
        self.assertIn("alice", self.set_refused("policy_signers", 4)["message"])
        checked = self.checked(4)
        self.assertEqual((checked["signers"], checked["unverified_signers"]), (["alice"], []))
        self.write_signed(self.policy(self.next_serial(), "report"), "alice", "mallory")
        self.set_refused("policy_signers", 4)
        self.write_signed(self.policy(self.next_serial(), "report"), "mallory")
        self.set_refused("policy_signers", 4)
        checked = self.checked(4)
        self.assertEqual((checked["signers"], checked["unverified_signers"]), ([], ["mallory"]))
        # A line of nobody's beside two that count is nobody's signature, in the log neither.
        self.write_signed(self.policy(self.next_serial(), "report"), "alice", "bob")
        with open(self.world.path("p.toml.sig"), "a", encoding="utf-8") as file:
            file.write("\u2014 zed %s\n" % base64.b64encode(b"z" * 68).decode())
        checked = self.checked(0)
        self.assertEqual((checked["signers"], checked["unverified_signers"]),
                         (["alice", "bob"], ["zed"]))
        text = self.succeeds("policy", "check", "p.toml").out.decode()
        self.assertIn("signed by: alice, bob\nnot verified: ", text)
        self.succeeds("policy", "set", "p.toml")
        entry = self.succeeds("audit", "log", "--json").json()["entries"][-1]
        self.assertEqual((entry["type"], entry["approvers"]), ("policy.changed", ["alice", "bob"]))

    def checked(self, status):
        done = self.world.run("policy", "check", "p.toml", "--json")
        self.assertEqual(done.status, status, str(done))
        return done.json()

    def test_a_name_that_is_kept_for_the_policies_that_come_with_keyescrow(self):
        text = self.policy(self.next_serial(), "report").replace('"corp"', '"builtin-1"')
        self.world.write("p.toml", text)
        self.set_refused("policy_invalid", 2)
        self.refused("policy_invalid", 2, "policy", "sign", "p.toml", "--key", "alice.key")

    def test_changed_after_it_was_signed(self):
        self.write_signed(self.policy(self.next_serial(), "report", rule="portable = true\n"),
                          "alice", "bob")
        path = self.world.path("p.toml")
        path.write_text(path.read_text().replace("portable = true", "portable = false"))
        self.set_refused("policy_signature", 4)
        self.assertEqual(self.checked(4)["signers"], [])

    def test_forged(self):
        """Mallory puts Alice's name and key id before a signature of her own."""
        self.write_signed(self.policy(self.next_serial(), "report"), "mallory")
        signature = self.world.path("p.toml.sig")
        text, line = signature.read_text().rsplit("\n\n", 1)
        blob = base64.b64decode(line.split(" ")[2])
        alice_id = bytes.fromhex(self.vkeys["alice"].split("+")[1])
        forged = base64.b64encode(alice_id + blob[4:]).decode()
        signature.write_text(f"{text}\n\n\u2014 alice {forged}\n")
        self.set_refused("policy_signature", 4)

    def test_a_signature_that_is_no_note(self):
        self.write_signed(self.policy(self.next_serial(), "report"))
        self.world.write("p.toml.sig", "signed, honestly\n")
        self.set_refused("policy_signature", 4)

    def test_an_older_serial(self):
        self.write_signed(self.policy(self.in_force()["serial"], "report"), "alice", "bob")
        self.set_refused("policy_older", 7)

    def test_expired(self):
        self.write_signed(self.policy(self.next_serial(), "report",
                                      more="expires = 2020-01-01T00:00:00Z\n"), "alice", "bob")
        self.set_refused("policy_expired", 7)

    def test_contradictory(self):
        self.world.write("p.toml", self.policy(
            self.next_serial(), "enforce",
            rule='require = ["tpm"]\n[[rule]]\nname = "no tpm"\nmatch = "app/*"\nforbid = ["tpm"]\n'))
        error = self.set_refused("policy_contradiction", 2)
        self.assertIn('"databases"', error["message"])
        self.assertIn('"no tpm"', error["message"])
        self.refused("policy_contradiction", 2, "policy", "sign", "p.toml", "--key", "alice.key")

    def test_misspelt(self):
        self.world.write("p.toml", self.policy(self.next_serial(), "enforce",
                                               rule="with_stand = 1\n"))
        error = self.set_refused("policy_invalid", 2)
        self.assertRegex(error["message"], r"line \d+ column 1: .*did you mean 'withstand'")

    def test_signers_are_pinned_once(self):
        self.write_signed(self.policy(self.next_serial(), "report"), "mallory")
        self.set_refused("policy_no_signers", 2, "p.toml", "--policy-key", self.vkeys["mallory"])

    def test_a_blocklist_that_is_another(self):
        self.world.write("list.txt", "hunter2\n")
        digest = hashlib.sha256(b"another").hexdigest()
        self.world.write("p.toml", self.policy(
            self.next_serial(), "report",
            more=f'[passwords.office]\nblocklist = "list.txt"\nblocklist_sha256 = "{digest}"\n'))
        self.set_refused("policy_file", 2)

    def test_a_policy_is_a_file(self):
        os.mkfifo(self.world.path("pipe.toml"))  # nobody will ever write to it
        done = self.world.run("policy", "check", "pipe.toml", "--json")
        error = self.check_json(done, "policy_file", 2)
        self.assertIn("is no regular file", error["message"])

    def test_a_newer_agent_is_asked_for(self):
        """It is rightly signed, so it is told: once in the log, and by status until it can be set."""
        serial = self.next_serial()
        text = self.policy(serial, "enforce", more='min_agent_version = "99.0"\nnew_word = true\n')
        self.world.write("p.toml", text)
        note = "keyescrow-policy/1\ncorp\n%d\n%s\n" % (
            serial, base64.b64encode(hashlib.sha256(text.encode()).digest()).decode())
        # An agent of this version signs no policy that it cannot read: the notes are made by hand.
        lines = ""
        for name in ("alice", "bob"):
            key_id = bytes.fromhex(self.vkeys[name].split("+")[1])
            self.world.write("note", note)
            arguments = ["openssl", "pkeyutl", "-sign", "-inkey", f"{name}.key", "-rawin", "-in",
                         "note"]
            if name == "bob":
                arguments = ["openssl", "dgst", "-sha256", "-sign", "bob.key", "note"]
            signature = subprocess.run(arguments, cwd=self.world.folder, check=True,
                                       capture_output=True).stdout
            lines += "\u2014 %s %s\n" % (name, base64.b64encode(key_id + signature).decode())
        before = self.in_force()
        # Unsigned it is refused for that, and nothing is told.
        self.world.path("p.toml.sig").unlink(missing_ok=True)
        self.set_refused("policy_unsigned", 4)
        self.world.write("p.toml.sig", note + "\n" + lines)
        size = self.log_size()
        self.refused("policy_newer_agent", 7, "policy", "set", "p.toml", num_runs=1)
        self.assertEqual(self.in_force(), before)
        self.assertEqual(self.log_size(), size + 1)
        status = self.world.run("status", "--json").json()
        # The policy before it holds: what complies with that still starts.
        self.assertEqual([f["severity"] for f in status["findings"]
                          if f["rule"] == "policy_needs_newer_agent"], ["warning"])
        checks = self.world.run("doctor", "--json").json()["checks"]
        told = [check for check in checks if check["area"] == "policy"]
        self.assertEqual([check["outcome"] for check in told], ["good", "warning"], told)
        self.assertIn("its signatures hold", told[0]["what"])
        self.assertIn("asks for keyescrow", told[1]["what"])
        # The next one that this agent can read ends it.
        self.write_signed(self.policy(serial + 1, "report"), "alice", "bob")
        self.succeeds("policy", "set", "p.toml")
        status = self.world.run("status", "--json").json()
        self.assertNotIn("policy_needs_newer_agent", [f["rule"] for f in status["findings"]])

    def test_the_log_names_the_policy(self):
        document = self.in_force()
        entries = self.succeeds("audit", "log", "--json").json()["entries"]
        changed = [e for e in entries if e["type"] == "policy.changed" and
                   e["outcome"] == "success"][-1]
        self.assertEqual(changed["policy"], {"id": "corp", "serial": document["serial"],
                                             "sha256": document["sha256"]})
        self.assertEqual(sorted(changed["approvers"]), ["alice", "bob"])


class KeysOfNoRule(AcceptanceCase):
    world_options = {"tpm": False}

    def test_they_are_escrowed_no_weaker_than_without_a_policy(self):
        vkey = self.succeeds("policy", "sign", "--new-key", "a.key").out.decode().strip()
        text = ('[policy]\nname = "corp"\nserial = 1\nmode = "%s"\nsimulators = "allowed"\n'
                '[[rule]]\nname = "r"\nmatch = "prod/**"\n')
        self.world.write("p.toml", text % "enforce")
        self.succeeds("policy", "sign", "p.toml", "--key", "a.key")
        self.succeeds("policy", "set", "p.toml", "--policy-key", vkey)
        backup = ("backup", "lost/key", "--from", "app.key", "--path")
        error = self.refused("path_forbidden", 7, *backup, "password", "--password-file", "pw")
        self.assertIn("no rule of it matches the key, and without one", error["message"])
        done = self.succeeds(*backup, "password & token:ops", *UNLOCK, "--json").json()
        self.assertIn("no rule of the policy corp matches the key", done["findings"])
        found = self.world.run("status", "lost/key", "--json").json()["findings"]
        self.assertEqual([f["severity"] for f in found if f["rule"] == "no_rule_matches"],
                         ["critical"])
        self.world.write("p.toml", (text % "report").replace("serial = 1", "serial = 2"))
        self.succeeds("policy", "sign", "p.toml", "--key", "a.key")
        self.succeeds("policy", "set", "p.toml")
        done = self.world.run(*backup, "password", "--password-file", "pw", "--json").json()
        self.assertTrue([f for f in done["findings"] if "without one" in f], done)


class PolicyInTheStore(AcceptanceCase):
    """What somebody changes in the store is not believed."""

    def test_a_policy_that_was_changed_in_the_store(self):
        import sqlite3
        world = self.world
        vkey = world.must("policy", "sign", "--new-key", "alice.key").out.decode().strip()
        world.write("p.toml", HEAD.format(serial=1, mode="enforce") + RULE +
                    'require = ["tpm"]\nreason = "required"\n')
        world.must("policy", "sign", "p.toml", "--key", "alice.key")
        world.must("policy", "set", "p.toml", "--policy-key", vkey)
        error = self.refused("policy_refused", 7, "restore", "app/key", "--to", "out", *UNLOCK,
                             num_runs=1)
        self.assertIn('"databases"', error["message"])
        database = sqlite3.connect(world.path("state") / "store.db")
        trigger = database.execute(
            "SELECT sql FROM sqlite_master WHERE name = 'policy_update'").fetchone()[0]
        text = world.path("p.toml").read_text()
        laxer = text.replace('reason = "required"\n', "")

        def put(policy_text, digest):
            database.execute("DROP TRIGGER policy_update")
            database.execute("UPDATE policy SET text = ?, sha256 = ?",
                             (policy_text.encode(), digest))
            database.execute(trigger)
            database.commit()

        # The first signers stand in no signed text but the log's.
        signers = database.execute("SELECT signers FROM policy").fetchone()[0]
        digest = base64.urlsafe_b64encode(hashlib.sha256(signers.encode()).digest())
        entries = self.succeeds("audit", "log", "--json").json()["entries"]
        reasons = [e["reason"] for e in entries if e["type"] == "policy.changed"]
        self.assertIn("policy set, mode enforce, signers " + digest.rstrip(b"=").decode(), reasons)
        put(laxer, hashlib.sha256(text.encode()).digest())
        self.refused("store_damaged", 4, "restore", "app/key", "--to", "out", *UNLOCK, num_runs=1)
        put(laxer, hashlib.sha256(laxer.encode()).digest())
        self.refused("store_damaged", 4, "restore", "app/key", "--to", "out", *UNLOCK, num_runs=1)
        put(text, hashlib.sha256(text.encode()).digest())
        self.succeeds("restore", "app/key", "--to", "out", *UNLOCK, "--reason", "it is ours")
        world.path("out").unlink()

    def tearDown(self):
        pass  # an export or a verification under a policy is not what this class is about


class PolicyFromTheStart(AcceptanceCase):
    """init --policy; password profiles; what enforcement refuses and how an admin finds the way."""

    paths = ()

    def test_init_under_a_policy(self):
        world = self.world
        world.write("app.key", b"k" * 32)
        vkey = world.must("policy", "sign", "--new-key", "alice.key").out.decode().strip()
        world.write("list.txt", "correct horse battery staple 7\n")
        digest = hashlib.sha256(world.path("list.txt").read_bytes()).hexdigest()
        world.write("p.toml", HEAD.format(serial=3, mode="enforce") +
                    f'[passwords.office]\nmin_length = 20\nblocklist = "list.txt"\n'
                    f'blocklist_sha256 = "{digest}"\n' + RULE +
                    'require = ["password & token:ops"]\npassword = "office"\nportable = true\n'
                    'kdf = { argon2id_min_passes = 5 }\n')
        # What would be refused is refused before anything is made.
        self.refused("policy_unsigned", 4, "init", "--policy", "p.toml", "--policy-key", vkey)
        self.assertFalse(world.path("state").exists())
        world.must("policy", "sign", "p.toml", "--key", "alice.key")
        self.refused("usage", 2, "init", "--policy", "p.toml")
        document = self.succeeds("init", "--policy", "p.toml", "--policy-key", vkey,
                                 "--json").json()
        self.assertEqual(document["policy"], "corp")
        self.succeeds("token", "add", "ops", "pkcs11:token=ops", "--module", world.module,
                      "--pin-file", "pin")
        source = ("backup", "app/key", "--from", "app.key")
        # The password stands on the policy's list; another is too short for its profile.
        self.refused("password_weak", 7, *source, *UNLOCK)
        world.write("short", "blue giraffes 42\n")
        self.refused("password_weak", 7, *source, "--password-file", "short", "--pin-file", "pin")
        world.write("good", "seven blue giraffes at the opera\n")
        unlock = ("--password-file", "good", "--pin-file", "pin")
        error = self.refused("policy_refused", 7, *source, *unlock, "--path", "password & tpm",
                             "--path", "token:ops")
        self.assertIn('"databases"', error["message"])
        self.assertIn("token:ops & password", error["hint"])
        done = self.succeeds(*source, *unlock, "-o", "app.escrow", "--json").json()
        self.assertEqual([path["id"] for path in done["paths"]], ["token-ops"])
        shown = self.succeeds("show", "app/key", "--json").json()
        self.assertEqual(shown["policy"], "corp")
        entries = self.succeeds("audit", "log", "--json").json()["entries"]
        created = [e for e in entries if e["type"] == "escrow.created"][-1]
        self.assertEqual((created["policy"]["id"], created["policy"]["serial"]), ("corp", 3))
        self.assertIn("t=5", str(created["paths"]))  # the cost that the policy asks for
        self.refused("policy_refused", 7, "token", "remove", "ops", "--yes")
        self.succeeds("export", "app/key", "-o", "second.escrow")
        self.verified_with_its_policy()

    def verified_with_its_policy(self):
        """An auditor holds the policy against the log, and the envelopes against the policy."""
        world = self.world
        world.write("agent.json", world.must("agent-key", "export").out)
        verify = ("verify", "copy", "--trust", "agent.json", "--json")
        for sql, text in (("SELECT 1", ""),
                          ("UPDATE policy SET text = CAST(replace(CAST(text AS TEXT), 'true', "
                           "'false') AS BLOB)", "its text is another"),
                          ("UPDATE policy SET note = replace(note, ' alice ', ' alien ')",
                           "not the one that entry"),
                          ("UPDATE policy SET next_signers = replace(signers, 'alice', 'alien')",
                           "other signers for the next one"),
                          ("UPDATE policy SET set_time = set_time + 31536000", "it was set at"),
                          ("UPDATE policy_file SET bytes = x''", "its blocklists"),
                          ("DELETE FROM policy_file", "its blocklists"),
                          ("UPDATE policy SET serial = 4", "no entry of the log sets"),
                          ("DELETE FROM policy", "it is not in the store")):
            with self.subTest(sql=sql):
                shutil.copytree(world.path("state"), world.path("copy"))
                with editing(world.path("copy")) as database:
                    database.execute(sql)
                done = world.run(*verify)
                item = done.json()["items"][0]
                faults = [f"{f['fault']}: {f['what']}" for f in item["findings"] if f["damage"]]
                shutil.rmtree(world.path("copy"))
                if not text:
                    self.assertEqual((done.status, faults), (0, []))
                    self.assertIn("1 envelope: paths against the policy in force at their time; "
                                  "1 signed policy by text and signers", item["checked"])
                else:
                    self.assertEqual(done.status, 4, str(done))
                    self.assertRegex("\n".join(faults), "policy_unlogged: .*" + text)


class PolicySignedByAgents(AcceptanceCase):
    """The agent key, in the TPM, signs as a person's key does."""

    def test_agent_key_signs(self):
        world = self.world
        vkey = self.succeeds("policy", "sign", "--key", "agent").out.decode().strip()
        world.write("p.toml", HEAD.format(serial=1, mode="report") + RULE)
        self.succeeds("policy", "sign", "p.toml", "--key", "agent")
        self.succeeds("policy", "set", "p.toml", "--policy-key", vkey)


class ForeignAgents(AcceptanceCase):
    """Envelopes that another host made, and how far its agent may be trusted."""

    paths = ()
    world_options = {"tpm": False, "token": False}

    def set_policy(self, serial, mode, more=""):
        world = self.world
        world.write("p.toml", HEAD.format(serial=serial, mode=mode) + RULE + more +
                    'withstand = 1\n[[rule]]\nname = "lax"\nmatch = "lax/**"\n')
        world.must("policy", "sign", "p.toml", "--key", "alice.key")
        first = ("--policy-key", self.vkey) if serial == 1 else ()
        world.must("policy", "set", "p.toml", *first)

    def test_imports_and_trust(self):
        world, theirs = self.world, World(tpm=False, token=False)
        self.addCleanup(theirs.close)
        # Their policy lets a password open a key by itself.
        theirs.configure("none", host="db2")
        vkey = theirs.must("policy", "sign", "--new-key", "mallory.key").out.decode().strip()
        theirs.write("p.toml", HEAD.format(serial=1, mode="enforce") + RULE)
        theirs.must("policy", "sign", "p.toml", "--key", "mallory.key")
        theirs.must("init", "--policy", "p.toml", "--policy-key", vkey)
        theirs.write("app.key", b"k" * 32)
        for name in ("app/one", "app/two"):
            theirs.must("backup", name, "--from", "app.key", "--path", "password",
                        "--password-file", "pw", "-o", name[4:] + ".escrow")
            world.write(name[4:] + ".escrow", theirs.path(name[4:] + ".escrow").read_bytes())
        world.write("db2.json", theirs.must("agent-key", "export").out)

        world.must("init")
        self.vkey = world.must("policy", "sign", "--new-key", "alice.key").out.decode().strip()
        # The built-in policy: any trust, and no envelope that a password alone opens.
        world.must("trust", "add", "A" * 43)
        world.must("trust", "add", "db2.json", "--host", "db2", "--key", "app/*")
        error = self.refused("path_forbidden", 7, "import", "one.escrow")
        self.assertIn("built", error["message"])
        # Reported: taken, and said.
        self.set_policy(1, "report")
        done = self.succeeds("import", "one.escrow", "--json").json()
        self.assertIn('"databases"', " ".join(done["findings"]))
        self.assertEqual(len(self.succeeds("trust", "add", "B" * 42 + "A", "--json").json()[
            "findings"]), 2)
        # Enforced: the rule is named, and nothing is changed.
        self.set_policy(2, "enforce")
        size = len(world.must("audit", "log", "--json").json()["entries"])
        error = self.refused("policy_refused", 7, "import", "two.escrow")
        self.assertIn('"databases"', error["message"])
        self.assertTrue(self.succeeds("import", "one.escrow", "--json").json()["already_there"])
        for pattern in ("[x]", "a b", "db2/", "DB2 ", "a//b", "/app", "../x", "?", "", "x" * 65):
            self.refused("usage", 2, "trust", "add", "C" * 42 + "A", "--host", "db2", "--key",
                         pattern, num_runs=1)
        for host in ("?", "db2/", "db/2", "[d]b2"):
            self.refused("usage", 2, "trust", "add", "C" * 42 + "A", "--key", "app/*", "--host", host,
                         num_runs=1)
        for limits in ((), ("--host", "db2"), ("--key", "app/*"), ("--host", "*", "--key", "app/*"),
                       ("--host", "db2", "--key", "**"), ("--host", "db2", "--key", "*/*"),
                       ("--host", "db2", "--key", "app/*", "--key", "**/*"),
                       ("--host", "db2", "--key", "*/**")):
            error = self.refused("policy_refused", 7, "trust", "add", "C" * 42 + "A", *limits,
                                 num_runs=1)
            self.assertIn("could sign for every", error["message"])
        self.assertEqual(len(world.must("audit", "log", "--json").json()["entries"]), size)
        self.succeeds("trust", "add", "C" * 42 + "A", "--host", "db2", "--key", "app/*")
        # A rule's grace is of the key's first days: an import does not begin it anew.
        for serial, name, grace, wait_s in ((3, "three", "1h", 0), (4, "four", "2s", 3)):
            self.set_policy(serial, "enforce", f'grace = "{grace}"\n')
            theirs.must("backup", f"app/{name}", "--from", "app.key", "--path", "password",
                        "--password-file", "pw", "-o", f"{name}.escrow")
            world.write(f"{name}.escrow", theirs.path(f"{name}.escrow").read_bytes())
            time.sleep(wait_s)
            if wait_s == 0:
                done = self.succeeds("import", f"{name}.escrow", "--json").json()
                self.assertIn("in grace until", " ".join(done["findings"]))
        self.refused("policy_refused", 7, "import", "four.escrow", num_runs=1)
        # The file itself still restores.
        world.must("restore", "two.escrow", "--to", "out.key", "--password-file", "pw",
                   "--reason", "policy does not reach a file")
        self.assertEqual(world.path("out.key").read_bytes(), b"k" * 32)
        # A trust that leaves out what is here: it is told, listed and judged, and opens no more.
        agent = json.loads(world.path("db2.json").read_text())["thumbprint"]
        narrower = ("trust", "add", "db2.json", "--host", "db2", "--key", "lax/*")
        error = self.refused("policy_refused", 7, *narrower, num_runs=1)
        self.assertIn("app/one", error["message"])
        self.set_policy(5, "report")
        done = self.succeeds(*narrower, "--json")
        self.assertEqual(done.json()["beyond"], [{"name": name, "version": 1}
                                                 for name in ("app/one", "app/three")])
        self.assertFalse(self.succeeds("show", "app/one", "--json").json()["agent_trusted"])
        for command in (("list",), ("status",), ("audit", "report"), ("policy", "check", "p.toml"),
                        ("what-if", "--lose", "password"), ("export", "app/one", "-o", "a.escrow")):
            done = world.run(*command, "--json")
            self.assertIn(done.status, (0, 1), str(done))
            self.assertIn(b"app/one", done.out, str(done))
        more = ("--to", "more.key", "--password-file", "pw", "--via", "password", "--reason", "why")
        for name in ("app/one", "one.escrow"):
            for words in ((), ("--accept-unknown-agent",)):
                error = self.refused("agent_out_of_scope", 4, "restore", name, *more, *words,
                                     num_runs=1)
                self.assertEqual(error["failure"], "signature")
        error = self.check_json(world.run("trust", "remove", agent, "--json"), "usage", 2)
        self.assertIn("which signed app/one version 1", error["message"])
        self.succeeds("trust", "remove", agent, "--yes")
        self.verifies()
        world.write("agent.json", world.must("agent-key", "export").out)
        world.run("audit", "export", "-o", "pack.tar")
        done = world.run("verify", "pack.tar", "--trust", "agent.json", "--json")
        faults = [f["fault"] for f in done.json()["items"][0]["findings"] if f["damage"]]
        self.assertEqual(faults, [], str(done))


class RolledOutByRule(AcceptanceCase):
    """One rule is enforced before the others: the gate holds to that as every command does."""

    world_options = {"tpm": False}

    def test_a_rule_that_enforces_under_a_policy_that_reports(self):
        world = self.world
        vkey = world.must("policy", "sign", "--new-key", "alice.key").out.decode().strip()
        gate = ("gate", "app/key", "--", "/usr/bin/touch", str(world.path("started")))

        def set_policy(serial, mode, hard):
            world.write("p.toml", HEAD.format(serial=serial, mode=mode) + RULE + "survive = 1\n"
                        '[[rule]]\nname = "hard"\nmatch = "app/**"\nrequire = ["token:ops"]\n'
                        f'mode = "{hard}"\n')
            world.must("policy", "sign", "p.toml", "--key", "alice.key")
            world.must("policy", "set", "p.toml", *(("--policy-key", vkey) if serial == 1 else ()))

        set_policy(1, "report", "report")
        self.succeeds(*gate)
        world.path("started").unlink()
        set_policy(2, "report", "enforce")
        self.refused("policy_refused", 7, "export", "app/key", "-o", "x.escrow", num_runs=1)
        self.refused("policy_refused", 7, "recovery-sheet", "app/key", "-o", "x.txt", num_runs=1)
        done = world.run(*gate)
        self.assertEqual(done.status, 7, str(done))
        self.assertIn(b'does not comply, so nothing was started: the rule "hard"', done.err)
        self.assertFalse(world.path("started").exists())
        set_policy(3, "enforce", "report")
        done = world.run(*gate)
        self.assertEqual(done.status, 7, str(done))
        self.assertIn(b'so nothing was started: the rule "databases"', done.err)


class RemediesThatWork(AcceptanceCase):
    """What a refusal or a finding says is done as it is written, and ends it."""

    paths = ()
    world_options = {"tpm": False}

    def set_policy(self, serial, tables, rule, mode="enforce"):
        world = self.world
        world.write("p.toml", HEAD.format(serial=serial, mode=mode) + tables + RULE + rule)
        world.must("policy", "sign", "p.toml", "--key", "alice.key")
        world.must("policy", "set", "p.toml", *(("--policy-key", self.vkey) if serial == 1 else ()))

    def findings(self, *names):
        document = self.world.run("status", *names, "--json").json()
        return {finding["rule"]: finding for finding in document["findings"]}

    def test_pins_evidence_and_officers(self):
        world = self.world
        world.must("init")
        self.vkey = world.must("policy", "sign", "--new-key", "alice.key").out.decode().strip()
        add = ("token", "add", "ops", "pkcs11:token=ops", "--module", world.module)
        shown = self.succeeds(*add, "--json").json()
        self.assertIsNone(shown["evidence"].get("attributes") if shown["evidence"] else None)
        world.write("a.key", b"a" * 32)

        # The policy has its own name for the token that is registered here as ops.
        pin = f'[tokens.blue]\nspki_sha256 = "{shown["spki_sha256"]}"\nassurance = '
        self.set_policy(1, pin + '"software"\n',
                        'require = ["password & token:blue"]\ndrill_every = "90d"\n'
                        'drill_paths = ["token-blue"]\n')
        error = self.refused("policy_refused", 7, "backup", "app/one", "--from", "a.key", "--path",
                             "token:ops", "--pin-file", "pin", num_runs=1)
        hint = error["hint"].split("'")[1]
        self.assertEqual(hint, "token-blue=token:ops & password")
        self.succeeds("backup", "app/one", "--from", "a.key", "--path", hint, *UNLOCK)
        self.succeeds("backup", "app/two", "--from", "a.key", *UNLOCK)
        for name in ("app/one", "app/two"):
            self.succeeds("status", name)
        self.assertEqual([p["id"] for p in self.succeeds("show", "app/two", "--json").json()["paths"]],
                         ["token-blue"])

        # The key of a token is looked at again by adding it again, which is logged; nothing else is.
        self.set_policy(2, pin + '"asserted"\n', "")
        found = self.findings("app/one")["token_assurance"]
        self.assertIn("'keyescrow token add ops URI", found["remedy"])
        size = len(world.must("audit", "log", "--json").json()["entries"])
        self.refused("already_exists", 2, *add, num_runs=1)  # without its PIN
        world.make_token("other")
        self.refused("already_exists", 2, "token", "add", "ops", "pkcs11:token=other", "--module",
                     world.module, "--pin-file", "pin", num_runs=1)
        self.assertEqual(len(world.must("audit", "log", "--json").json()["entries"]), size)
        again = self.succeeds(*add, "--pin-file", "pin", "--json").json()
        self.assertIn("attributes", again["evidence"])
        self.assertEqual((again["added"], again["spki"]), (shown["added"], shown["spki"]))
        entries = world.must("audit", "log", "--json").json()["entries"]
        self.assertEqual([e["type"] for e in entries[size:]], ["factor.enrolled"])
        self.assertEqual(len(self.succeeds("token", "list", "--json").json()["tokens"]), 1)
        self.assertIn("use a token of hardware",
                      self.findings("app/one")["token_assurance"]["remedy"])

        # An undeclared key that is too old: the remedy says where the new one has to go.
        self.set_policy(3, "", 'rotate_every = "1s"\n')
        time.sleep(2)
        self.assertIn("--to SINK", self.findings("app/one")["rotation_due"]["remedy"])
        self.succeeds("rotate", "app/one", "--to", "a.key", "--generate", "32", *UNLOCK)

        # An officer is their token, by its public key, whatever a key's paths call it.
        for name in ("alice", "bob"):
            world.make_token(name)
            world.must("token", "add", name, f"pkcs11:token={name}", "--module", world.module,
                       "--pin-file", "pin")
        self.set_policy(4, "", "")
        one = ("--from", "a.key", "--prove", "none", "--pin-file", "pin")
        world.run("backup", "of/token", *one, "--path", "token:alice")
        world.run("backup", "of/shares", *one, "--path", "2 of (token:alice, token:bob)")
        opened = lambda *words: [k["key"]["name"] for k in world.run(
            "what-if", *words, "--json").json()["keys"] if k["opened"]]
        self.assertEqual(opened("--steal", "officer:alice"), ["of/token"])
        self.assertEqual(opened("of/token", "--steal", "officer:alice"), ["of/token"])
        world.run("token", "remove", "alice", "--yes")
        world.must("token", "add", "alice2", "pkcs11:token=alice", "--module", world.module,
                   "--pin-file", "pin")
        world.run("backup", "of/renamed", *one, "--path", "token:alice2")
        self.assertEqual(opened("--steal", "officer:alice"), ["of/renamed", "of/token"])
        self.assertEqual(opened("--steal", "token:alice2", "--steal", "officer:bob"),
                         ["of/renamed", "of/shares", "of/token"])
        self.refused("not_found", 8, "what-if", "--steal", "officer:carol", num_runs=1)
        # The bare backup of what is escrowed takes its paths, by the names of now.
        self.succeeds("backup", "of/token", "--from", "a.key", "--pin-file", "pin")
        (path,) = self.succeeds("show", "of/token", "--json").json()["paths"]
        self.assertEqual((path["id"], path["factors"]), ("token-alice", "token:alice2"))

        # Their ops is another token than ours.
        theirs = World(tpm=False)
        self.addCleanup(theirs.close)
        theirs.configure("none", host="db2")
        theirs.must("init")
        theirs.make_token("theirs")
        theirs.must("token", "add", "ops", "pkcs11:token=theirs", "--module", world.module,
                    "--pin-file", "pin")
        theirs.write("x.key", b"x" * 32)
        theirs.must("backup", "their/key", "--from", "x.key", "--path", "token:ops", "--pin-file",
                    "pin", "-o", "x.escrow")
        world.write("x.escrow", theirs.path("x.escrow").read_bytes())
        world.write("db2.json", theirs.must("agent-key", "export").out)
        world.must("trust", "add", "db2.json", "--host", "db2", "--key", "their/*")
        self.succeeds("import", "x.escrow")
        done = world.run("drill", "their/key", "--via", "token-ops", "--pin-file", "pin", "--json")
        self.assertEqual(done.status, 5, str(done))
        error = done.json()["keys"][0]["paths"][0]["error"]
        self.assertEqual(error["code"], "token_not_registered")
        self.assertIn("another token ops", error["message"])
        self.assertIn("under a name of its own", error["hint"])
        self.verifies()

class PolicySignedByTokens(AcceptanceCase):
    """Carol's key stays in her token; two of Alice's file, Bob's file and Carol's token must sign."""

    paths = ()
    world_options = {"tpm": False}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        world = cls.world
        subprocess.run(
            ["pkcs11-tool", "--module", world.module, "--token-label", "ops", "--login", "--pin", PIN,
             "--keypairgen", "--key-type", "EC:prime256v1", "--usage-sign", "--id", "02", "--label",
             "policy"], env=world.environment, check=True, capture_output=True)
        world.environment["FAULTY_PKCS11_MODULE"] = world.module
        world.path("copy").mkdir()  # no snapshot looks there
        world.environment["FAULTY_PKCS11_TRACE"] = str(world.path("copy") / "trace")
        cls.module = os.environ["KEYESCROW_FAULTY_PKCS11"]
        cls.carol = cls.key_of("policy")

    @classmethod
    def key_of(cls, label, pin_file=None):
        uri = f"pkcs11:token=ops;object={label}?module-path={cls.module}"
        pin = f"&pin-source={cls.world.path(pin_file)}" if pin_file else ""
        return "--key", uri + pin, "--name", "carol"

    def num_logins(self):
        trace = self.world.path("copy") / "trace"
        return trace.read_text().split("\n").count("C_Login") if trace.exists() else 0

    def policy(self, serial, more=""):
        return (HEAD.format(serial=serial, mode="enforce") +
                "[signers]\nthreshold = 2\nkeys = %s\n" % json.dumps(list(self.vkeys.values())) +
                RULE + 'require = ["password & token:ops"]\n' + more)

    def test_two_of_three(self):
        world = self.world
        self.vkeys = {name: world.must("policy", "sign", "--new-key",
                                       f"{name}.key").out.decode().strip()
                      for name in ("alice", "bob")}
        # Neither a state nor a PIN is needed to tell which key it is.
        shown = self.succeeds("policy", "sign", *self.carol)
        self.assertEqual(shown.err.decode(), "warning: the token is SOFTWARE: its keys are files on "
                                             "this host\n")
        self.vkeys["carol"] = shown.out.decode().strip()
        der = base64.b64decode(self.vkeys["carol"].split("+", 2)[2])
        self.assertEqual(der[0], 2)  # ECDSA over P-256
        self.assertEqual(self.vkeys["carol"].split("+")[1], hashlib.sha256(der[1:]).hexdigest()[:8])
        self.assertEqual(self.num_logins(), 0)

        world.write("p.toml", self.policy(1))
        sign = ("policy", "sign", "p.toml")
        self.refused("wrong_pin", 3, *sign, *self.key_of("policy", "wrong"), num_runs=1)
        self.assertEqual(self.num_logins(), 1)
        self.refused("secret_source_missing", 2, *sign, *self.carol, "--no-input", num_runs=1)
        self.refused("usage", 2, *sign, *self.carol[:2], num_runs=1)
        self.refused("token_key_not_found", 10, *sign, *self.key_of("escrow", "pin"), num_runs=1)
        self.refused("not_initialized", 8, *sign, "--key", "token:ops", num_runs=1)
        by_option = ("--token", "pkcs11:token=ops;object=policy", "--module", self.module, "--name",
                     "carol")
        self.refused("wrong_pin", 3, *sign, *by_option, "--pin-file", "carol=wrong", num_runs=1)
        self.refused("usage", 2, *sign, *by_option, "--key", "alice.key", num_runs=1)
        self.refused("usage", 2, *sign, "--token", "ops", "--module", self.module, num_runs=1)
        before = self.num_logins()
        signed = self.succeeds(*sign, *by_option, "--pin-file", "pin", "--json").json()
        self.assertEqual(self.num_logins(), before + 1)
        self.assertEqual((signed["vkey"], signed["signers"]), (self.vkeys["carol"], ["carol"]))
        # By stock tools: the line of the note is the key's, over the hash of its text.
        text, lines = world.path("p.toml.sig").read_text().split("\n\n")
        world.write("spki.der", der[1:])
        world.write("note.txt", text + "\n")
        world.write("line.der", base64.b64decode(lines.split(" ")[2])[4:])
        subprocess.run(["openssl", "dgst", "-sha256", "-verify", "spki.der", "-keyform", "DER",
                        "-signature", "line.der", "note.txt"], cwd=world.folder, check=True,
                       capture_output=True)

        pins = [word for vkey in self.vkeys.values() for word in ("--policy-key", vkey)]
        init = ("init", "--policy", "p.toml", *pins)
        self.refused("policy_signers", 4, *init, num_runs=1)
        self.succeeds("policy", "sign", "p.toml", "--key", "alice.key")
        self.succeeds(*init)

        # The next one, where the token is registered: its name is enough.
        self.succeeds("token", "add", "carol", "pkcs11:token=ops;object=policy?pin-source=%s" %
                      world.path("pin"), "--module", world.module)
        self.succeeds("token", "add", "ops", "pkcs11:token=ops;object=escrow", "--module", world.module,
                      "--pin-file", "pin")
        self.assertEqual(self.succeeds("policy", "sign", "--key", "token:carol").out.decode().strip(),
                         self.vkeys["carol"])
        self.refused("token_key_usage", 10, "policy", "sign", "--key", "token:ops", num_runs=1)
        world.write("p.toml", self.policy(2, "portable = true\n"))
        self.succeeds("policy", "sign", "p.toml", "--token", "carol")
        self.refused("policy_signers", 4, "policy", "set", "p.toml", num_runs=1)
        self.succeeds("policy", "sign", "p.toml", "--key", "bob.key")
        self.assertEqual(self.succeeds("policy", "set", "p.toml", "--json").json()["signers"],
                         ["carol", "bob"])
        world.write("app.key", b"k" * 32)
        self.succeeds("backup", "app/key", "--from", "app.key", *UNLOCK)
        self.verifies()
        world.write("agent.json", world.must("agent-key", "export").out)
        self.succeeds("audit", "export", "-o", "pack.tar")
        self.succeeds("verify", "pack.tar", "--trust", "agent.json")
        with tarfile.open(world.path("pack.tar")) as tar:
            tar.extractall(world.path("unpacked"))
        (folder,) = world.path("unpacked").iterdir()
        done = subprocess.run([sys.executable, "-B", folder / "verify.py", world.path("pack.tar"),
                               "--trust", world.path("agent.json")], capture_output=True, text=True,
                              check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
