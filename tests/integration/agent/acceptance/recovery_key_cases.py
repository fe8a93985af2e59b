"""Recovery keys: keys escrowed with nobody present, opened by their people, by others' tools too."""

import base64
import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import time

import world
from pack_cases import Pack
from world import PASSWORD, PIN, SECOND_DECODER, UNLOCK, AcceptanceCase, build_folder

TEAM = "recovery-key:team"
PATH_ID = "recovery-ke-" + hashlib.sha256(b"recovery-key-team").hexdigest()[:4]
NUM_KEYS = 134  # more than two commits' worth: the second is sealed while the first is committed

# Opens wrapped_key by jose, with the private JWK that token and password give to the second decoder.
BY_JOSE = r"""
import json, subprocess, sys
sys.path.insert(0, sys.argv[1])
import devices, header, opening, primitives as pr, vectors
envelope = header.read(open(sys.argv[2], "rb").read(), [vectors.parse_trust(sys.argv[3])])
path = envelope.paths[sys.argv[4]]
world = devices.DeviceWorld(sys.argv[5].encode(), [devices.Token(sys.argv[6], "ops", sys.argv[7])],
                            None, None)
secrets = opening._factor_secrets(path, world)
world.close()
info = "keyescrow1|path|%s|%s" % (path.binding, "+".join(f.type for f in path.factors))
keys = pr.hkdf(b"".join(secrets), info, 96)
d = opening.private_scalar(path.recovery, keys[:64])
jwk = dict(pr.jwk(path.recovery.public), d=pr.b64u(d.to_bytes(32, "big")))
c = path.wrapped
compact = ".".join([c.header, "", pr.b64u(c.iv), pr.b64u(c.ciphertext), pr.b64u(c.tag)])
open("team.jwk", "w").write(json.dumps(jwk))
open("wrapped.jwe", "w").write(compact)
subprocess.run(["jose", "jwe", "dec", "-i", "wrapped.jwe", "-k", "team.jwk", "-O", "fk"], check=True)
assert open("fk", "rb").read() == opening._open_by_recovery_key(path, keys[:64])
"""


class RecoveryKeys(AcceptanceCase):  # one test: its methods share a store and follow each other
    world_options = {"tpm": False}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for folder in ("keys", "other"):
            cls.world.path(folder).mkdir(mode=0o700)
        text = cls.world.path("agent.toml").read_text()
        cls.keys = {}
        for index in range(NUM_KEYS):
            name = f"host/k{index:02}"
            # Threads share the sealing: each key must end in its own envelope.
            cls.keys[name] = os.urandom({5: 1, 20: 1 << 20, 21: 1023, 40: 70_000}.get(index, 32))
            source = cls.world.write(f"keys/k{index:02}", cls.keys[name])
            text += f'[[key]]\nname = "{name}"\nsource = "{source}"\npaths = ["{TEAM}"]\n'
        cls.world.write("agent.toml", text)
        cls.world.write("pw2", "quite another battery staple 9\n")
        cls.nothing = {"SOFTHSM2_CONF": str(cls.world.path("no-token.conf"))}

    def other(self, *arguments, **options):
        """The same command on another host."""
        folder = self.world.path("other")
        env = {"KEYESCROW_STATE": str(folder / "state"), "KEYESCROW_CONFIG": str(folder / "toml")}
        return self.world.run("--tpm", "none", *arguments, env=env, **options)

    def show(self, name=""):
        return self.succeeds("recovery-key", "show", name or "team", "--json").json()

    def test_1_made_behind_token_and_password(self):
        self.refused("path_forbidden", 7, "recovery-key", "create", "team", "--path", "password",
                     *UNLOCK, num_runs=1)
        self.refused("invalid_path", 2, "recovery-key", "create", "team", "--path", TEAM,
                     num_runs=1)
        self.refused("not_found", 8, "backup", "app/two", "--from", "app.key", "--path", TEAM,
                     num_runs=1)
        done = self.succeeds("recovery-key", "create", "team", "--path", "password & token:ops",
                             *UNLOCK, "--no-input", "--json").json()
        self.assertTrue(done["proven"], done)
        self.assertEqual(done["factors"], "token:ops & password")
        self.refused("already_exists", 2, "recovery-key", "create", "team", "--path",
                     "password & token:ops", *UNLOCK, num_runs=1)
        self.assertEqual((self.show()["thumbprint"], self.show()["envelopes"]),
                         (done["thumbprint"], 0))

    def test_2_unattended(self):
        self.world.path("keys/k07").unlink()
        done = self.world.run("backup", "--all", "--no-input", "--json", env=self.nothing)
        self.assertEqual(done.status, 2, str(done))
        document = done.json()
        self.assertEqual((document["num_declared"], document["num_escrowed"]),
                         (NUM_KEYS, NUM_KEYS - 1))
        outcomes = {row["key"]["name"]: row["outcome"] for row in document["keys"]}
        self.assertEqual(list(outcomes), list(self.keys))
        self.assertEqual(outcomes.pop("host/k07"), "failed")
        self.assertEqual(set(outcomes.values()), {"covered"})
        self.world.write("keys/k07", self.keys["host/k07"])
        done = self.world.run("backup", "host/k07", "--no-input", "--json", env=self.nothing)
        self.assertEqual(done.status, 0, str(done))
        self.assertTrue(done.json()["covered"])
        done = self.world.run("backup", "--all", "--no-input", env=self.nothing)
        self.assertEqual(done.status, 0, str(done))
        self.assertEqual(len(done.out.splitlines()), NUM_KEYS + 1, str(done))
        self.assertIn(f"escrowed {NUM_KEYS} of {NUM_KEYS} declared keys".encode(), done.out)
        # What holds for all of them is told of the first one, and counted.
        text = "the token ops is a simulator: its keys are files on this host"
        self.assertEqual(done.err.decode().splitlines(),
                         [f"warning: host/k00: {text}",
                          f"warning: the same for {NUM_KEYS - 1} more keys: {text}"])
        found = [line for line in self.world.run("status").out.decode().splitlines() if text in line]
        self.assertEqual(len(found), 1, found)
        self.assertRegex(found[0], rf"^warning: [^,]+, [^,]+, [^,]+ and {NUM_KEYS - 2} more keys: ")
        paths = self.succeeds("show", "host/k00", "--json").json()["paths"]
        self.assertEqual([(p["condition"], p["proven_by"]) for p in paths],
                         [("covered", "recovery-key")])
        # Status, monitors and the report count alike: nobody opened these envelopes.
        line = self.world.run("status", "--nagios").out.decode()
        self.assertIn(f"proven=1 covered={NUM_KEYS} ", line)
        metrics = self.succeeds("status", "--prometheus").out.decode()
        self.assertIn(f'keyescrow_paths{{state="covered"}} {NUM_KEYS}\n', metrics)
        self.assertIn('keyescrow_paths{state="proven"} 1\n', metrics)
        report = self.succeeds("audit", "report", "--json").json()
        figures = report["figures"]
        self.assertEqual([figures[name] for name in ("keys_covered", "keys_proven", "keys_not_proven",
                                                     "paths_covered", "paths_unproven")],
                         [NUM_KEYS, 1, 0, NUM_KEYS, 0])
        (path,) = next(key for key in report["keys"] if key["name"] == "host/k00")["paths"]
        self.assertEqual((path["condition"], path["proven"]), ("covered", None))
        self.assertEqual(path["covered_since"],
                         self.succeeds("show", "host/k00", "--json").json()["paths"][0]["proven"])

    def test_2b_a_store_that_fails_between_two_commits(self):
        """What the report calls escrowed is in the store, and what it does not try is not. A commit
        whose sync failed may be there after all: nobody was told that it is."""
        shim = build_folder(world.BINARY) / "simulators/libdisk_shim.so"
        counts = self.world.path("counts")
        state = self.world.path("state")
        shutil.copytree(state, self.world.path("kept"))

        def put_back():
            shutil.rmtree(state)
            self.world.path("kept").rename(state)
            counts.unlink()

        self.addCleanup(put_back)
        watched = {**self.nothing, "LD_PRELOAD": str(shim), "DISK_SHIM_ROOT": str(state),
                   "DISK_SHIM_COUNT": str(counts)}

        def back_up(**faults):
            shutil.rmtree(state)
            shutil.copytree(self.world.path("kept"), state)
            done = self.world.run("backup", "--all", "--no-input", "--json",
                                  env={**watched, **faults})
            listed = self.world.run("list", "--json").json()["keys"]
            return done, {item["key"]["name"]: item["key"]["version"] for item in listed}

        done, before = back_up()
        self.assertEqual(done.status, 0, str(done))
        num_syncs = max(int(line.split()[1]) for line in counts.read_text().splitlines()
                        if line.startswith("sync "))
        seen = set()
        for n in range(num_syncs, 0, -1):
            done, after = back_up(DISK_SHIM_FAULT=f"sync@{n}=5")
            if not done.out:
                continue
            document = done.json()
            rows = {row["key"]["name"]: row for row in document["keys"]}
            self.assertEqual(set(rows), set(self.keys), str(done))
            escrowed = {name for name, row in rows.items() if row["outcome"] == "covered"}
            self.assertEqual(len(escrowed), document["num_escrowed"], str(done))
            for name, row in rows.items():
                may_be = {"covered": (0,), "not tried": (1,), "failed": (0, 1)}[row["outcome"]]
                self.assertIn(before[name] - after[name], may_be, str(row))
                self.assertEqual(row["error"] is not None, row["outcome"] == "failed", row)
            seen.add((len(escrowed), document["num_not_tried"], done.status))
        self.assertTrue({(128, 0, 9), (64, 0, 9), (0, 6, 9)} <= seen, seen)

    def test_3_restored_by_its_factors(self):
        self.refused("token_not_found", 5, "restore", "host/k03", "--to", "out", *UNLOCK,
                     num_runs=1, env=self.nothing)
        self.refused("wrong_password", 3, "restore", "host/k03", "--to", "out", "--password-file",
                     "wrong", "--pin-file", "pin", num_runs=1)
        for name in ("host/k03", "host/k05", "host/k20", "host/k21", "host/k40", "host/k69"):
            self.succeeds("restore", name, "--to", "out", *UNLOCK)
            self.assertEqual(self.world.path("out").read_bytes(), self.keys[name], name)
            self.world.path("out").unlink()
        self.succeeds("export", "host/k03", "-o", "k03.escrow")
        environment = dict(os.environ, SOFTHSM2_CONF=str(self.world.path("softhsm2.conf")))
        decoded = subprocess.run(
            [sys.executable, "-B", SECOND_DECODER / "decode.py", "open",
             self.world.path("k03.escrow"), "--trust=" + self.world.thumbprint, "--path", PATH_ID,
             "--out", self.world.path("second"), "--password-file", self.world.path("pw"),
             "--token-module", self.world.module, "--token-label", "ops", "--pin-file",
             self.world.path("pin")], check=False, env=environment, capture_output=True)
        self.assertEqual(decoded.returncode, 0, decoded.stdout + decoded.stderr)
        self.assertEqual(self.world.path("second").read_bytes(), self.keys["host/k03"])
        done = subprocess.run(
            [sys.executable, "-B", "-c", BY_JOSE, SECOND_DECODER, self.world.path("k03.escrow"),
             self.world.thumbprint, PATH_ID, PASSWORD, self.world.module, PIN],
            cwd=self.world.path("other"), env=environment, capture_output=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr.decode())

    def test_4_one_drill_proves_all(self):
        self.check_json(self.world.run("drill", TEAM, "--password-file", "wrong", "--pin-file",
                                       "pin", "--json"), "wrong_password", 3)
        done = self.succeeds("drill", TEAM, *UNLOCK, "--no-input", "--json").json()
        # The first backup of all but one, the one alone, then all again.
        self.assertEqual((done["envelopes"], done["proven"], done["failed"]),
                         (2 * NUM_KEYS, 2 * NUM_KEYS, []))
        entries = self.succeeds("audit", "log", "--json").json()["entries"]
        proofs = [e for e in entries if e["type"] == "drill.passed" and "drill" in e
                  and e["key"]["name"] == "host/k03" and e["key"]["version"] == 2]
        self.world.write("entries", "".join(json.dumps(e) + "\n" for e in proofs))
        checked = subprocess.run(
            [sys.executable, "-B", SECOND_DECODER / "decode.py", "drills",
             self.world.path("k03.escrow"), "--trust=" + self.world.thumbprint, "--entries",
             self.world.path("entries")], capture_output=True, text=True, check=False)
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)
        self.assertEqual(checked.stdout.split()[0], PATH_ID)
        # A later opening of the recovery key hides no proof of the envelope itself.
        for seconds in (60, -60):
            with contextlib.closing(sqlite3.connect(self.world.path("state") / "store.db")) as store:
                store.execute("UPDATE recovery_key SET drilled = drilled + ?", (seconds,))
                store.commit()
            (path,) = self.succeeds("show", "host/k03", "--json").json()["paths"]
            self.assertEqual((path["condition"], path["proven_by"]), ("proven", "drill"))

    def test_4b_a_key_that_no_longer_opens(self):
        """A drill that fails for what lies in the key breaks all the paths under it, until one opens
        it; a wrong password, or a token that is away, tells nothing of them."""
        condition = lambda: self.world.run("show", "host/k00", "--json").json()["paths"][0]["condition"]
        done = self.world.run("drill", TEAM, *UNLOCK, "--json", env=self.nothing)
        self.assertNotEqual(done.status, 0, str(done))
        self.assertEqual(condition(), "proven")
        # The token's private key is gone, and comes back.
        tokens, kept = self.world.path("tokens"), self.world.path("kept-tokens")
        shutil.copytree(tokens, kept)
        subprocess.run(["pkcs11-tool", "--module", self.world.module, "--token-label", "ops",
                        "--login", "--pin", PIN, "--delete-object", "--type", "privkey", "--label",
                        "escrow"], env=self.world.environment, check=True, capture_output=True)
        self.refused("token_key_not_found", 10, "drill", TEAM, *UNLOCK, num_runs=1)
        self.assertEqual(condition(), "broken")
        self.verifies()
        for edit in ("DELETE FROM meta WHERE name = ?", "UPDATE meta SET value = '1' || value WHERE "
                     "name = ?", "UPDATE meta SET value = replace(value, 'key_not', 'key_is') WHERE "
                     "name = ?"):
            self.finds_failure(edit)
        done = self.world.run("backup", "host/k00", "--no-input", "--json")
        self.assertFalse(done.json()["covered"], str(done))
        self.assertRegex(done.json()["paths"][0]["why_not"],
                         r"was opened last on .*Z, and did not open on .*Z \(token_key_not_found\)$")
        (check,) = [check for check in self.world.run("doctor", "--json").json()["checks"]
                    if "recovery-key:team" in check["what"]]
        self.assertEqual(check["outcome"], "warning", check)
        self.assertIn("did not open on ", check["what"])
        self.test_9_both_verifiers_of_a_pack()
        self.hidden_in_a_pack()
        for name in ("agent.json", "pack.tar"):
            self.world.path(name).unlink()
        shutil.rmtree(tokens)
        kept.rename(tokens)
        self.succeeds("drill", TEAM, *UNLOCK, "--no-input")
        self.assertEqual(condition(), "proven")
        self.verifies()
        with contextlib.closing(sqlite3.connect(self.world.path("state") / "store.db")) as store:
            (record,) = store.execute("SELECT sha256 FROM recovery_key").fetchone()
        record = base64.urlsafe_b64encode(record).decode()
        self.finds_failure("INSERT INTO meta VALUES (?, '%d factor_bad %s')" % (
            time.time(), record.rstrip("=")))

    def hidden_in_a_pack(self):
        """Who holds the log's key cannot state that the path is covered all the same."""
        pack = Pack(self.world.path("pack.tar"))
        opened = json.loads(pack.members["keys/recovery-keys.json"])[0]["opened"]
        status = json.loads(pack.members["status.json"])
        paths = [path for key in status["keys"] if key["escrowed"] for path in key["paths"]
                 if path["factors"] == TEAM]
        self.assertGreaterEqual(len(paths), NUM_KEYS)
        for path in paths:
            self.assertEqual((path["condition"], path["failure"]),
                             ("broken", "token_key_not_found"), path)
            path.update(condition="covered", failure=None, proven=None, covered_since=opened)
        pack.members["status.json"] = json.dumps(status, indent=2, ensure_ascii=False).encode()
        pack.sign((self.world.path("state") / "ed25519.seed").read_bytes(), self.world.folder)
        pack.write(self.world.path("pack.tar"))
        told = "and status.json does not say so"
        done = self.world.run("verify", "pack.tar", "--trust", "agent.json", "--json")
        self.assertEqual((done.status, told in done.out.decode()), (4, True), str(done))
        done = self.verify_py()
        self.assertEqual((done.returncode, told in done.stdout.decode()), (4, True), str(done))

    def verify_py(self):
        return subprocess.run(
            [sys.executable, "-B", self.world.path("verify.py"), self.world.path("pack.tar"),
             "--trust", self.world.path("agent.json")], capture_output=True, check=False)

    def finds_failure(self, edit):
        """A failure that the store hides, alters or invents is one that verify finds."""
        copy = self.world.path("edited")
        shutil.copytree(self.world.path("state"), copy)
        self.addCleanup(shutil.rmtree, copy, ignore_errors=True)
        with contextlib.closing(sqlite3.connect(copy / "store.db")) as store:
            self.assertEqual(store.execute(edit, ("recovery_key_failed:team",)).rowcount, 1)
            store.commit()
        done = self.world.run("verify", "--json", "--state", str(copy))
        findings = [found for item in done.json()["items"] for found in item["findings"]]
        self.assertEqual((done.status, [found["fault"] for found in findings]),
                         (4, ["proof_unlogged"]), str(done))
        shutil.rmtree(copy)

    def test_5_on_another_host(self):
        self.succeeds("recovery-key", "export", "team", "-o", "team.recovery-key")
        self.assertEqual(self.other("init").status, 0)
        imports = ("recovery-key", "import", "team.recovery-key", "--no-input", "--json")
        self.check_json(self.other(*imports), "usage", 2)
        wrong = (*imports, "--sha256", "0" * 64)
        self.check_json(self.other(*wrong), "expectation_failed", 4)
        record = self.world.path("team.recovery-key").read_text()
        self.world.write("garbage", record.replace('"threshold"', "") + "x")
        self.check_json(self.other("recovery-key", "import", "garbage", "--yes", "--json"),
                        "envelope_format", 4)
        done = self.other(*imports, "--sha256", self.show()["record_sha256"])
        self.assertEqual(done.status, 0, str(done))
        self.check_json(self.other(*wrong), "expectation_failed", 4)  # registered or not
        done = self.other("backup", "there/key", "--from", "app.key", "--path", TEAM, "-o",
                          "there.escrow", "--no-input", "--json")
        self.assertEqual(done.status, 1, str(done))  # nobody has seen it open there
        self.assertTrue(any("drill " + TEAM in text for text in done.json()["findings"]), str(done))
        self.assertEqual(self.other("verify").status, 0)
        thumbprint = self.other("agent-key", "show", "--json").json()["thumbprint"]
        self.succeeds("restore", "there.escrow", "--to", "out", "--agent", thumbprint, *UNLOCK)
        self.assertEqual(self.world.path("out").read_bytes(), self.world.key)
        self.world.path("out").unlink()

    def test_6_its_password_changed(self):
        before = self.show()
        change = ("recovery-key", "password", "team", "--pin-file", "pin", "--no-input")
        self.refused("usage", 2, *change, "--password-file", "pw", num_runs=1)
        self.refused("wrong_password", 3, *change, "--password-file", "wrong",
                     "--new-password-file", "pw2", num_runs=1)
        done = self.succeeds(*change, "--password-file", "pw", "--new-password-file", "pw2",
                             "--json").json()
        self.assertEqual(done["thumbprint"], before["thumbprint"])
        self.assertNotEqual(done["record_sha256"], before["record_sha256"])
        self.assertTrue(done["proven"], done)
        # A host that has the record asks for the new password, and old copies have the old one.
        self.refused("wrong_password", 3, "restore", "host/k03", "--to", "out", *UNLOCK, num_runs=1)
        new = ("--password-file", "pw2", "--pin-file", "pin")
        self.succeeds("restore", "host/k03", "--to", "out", *new)
        self.assertEqual(self.world.path("out").read_bytes(), self.keys["host/k03"])
        self.world.path("out").unlink()
        done = self.other("restore", "k03.escrow", "--to", "out", "--agent", self.world.thumbprint,
                          "--module", self.world.module, *UNLOCK)
        self.assertEqual(done.status, 0, str(done))
        self.world.path("out").unlink()
        self.succeeds("backup", "host/k05", "--no-input", env=self.nothing)
        done = self.succeeds("drill", TEAM, *new, "--json").json()
        self.assertEqual((done["envelopes"], done["proven"], done["opened"]),
                         (2 * NUM_KEYS + 2, 1, 2 * NUM_KEYS + 1))

    def test_6a_an_older_record_takes_no_newer_ones_place(self):
        """Provisioning that runs again with the file it always had; the newer private half would go."""
        now = self.show()["record_sha256"]
        done = self.other("recovery-key", "list", "--json").json()
        (old,) = [key["record_sha256"] for key in done["recovery_keys"]]
        self.assertNotEqual(now, old)
        imports = ("recovery-key", "import", "team.recovery-key", "--no-input", "--sha256", old)
        error = self.refused("already_exists", 2, *imports)
        self.assertIn("took its place", error["message"])
        # Another record of the pair, made elsewhere: this host's may be the only copy.
        self.succeeds("recovery-key", "export", "team", "-o", "newer.recovery-key")
        imports = ("recovery-key", "import", "newer.recovery-key", "--no-input", "--sha256", now)
        self.assertEqual(self.other(*imports).status, 0)
        change = ("recovery-key", "password", "team", "--no-input", "--pin-file", "pin")
        self.world.write("pw3", "a third battery staple 10\n")
        self.assertEqual(self.other("token", "add", "ops", "pkcs11:token=ops", "--module",
                                    self.world.module, "--pin-file", "pin").status, 0)
        done = self.other(*change, "--password-file", "pw2", "--new-password-file", "pw3", "--json")
        self.assertEqual(done.status, 0, str(done))
        theirs = done.json()["record_sha256"]
        self.assertEqual(self.other("recovery-key", "import", "newer.recovery-key", "--no-input",
                                    "--sha256", now).status, 2)
        self.assertEqual(self.other("recovery-key", "export", "team", "-o", "third").status, 0)
        self.succeeds(*change, "--password-file", "pw2", "--new-password-file", "pw")
        imports = ("recovery-key", "import", "third", "--no-input", "--sha256", theirs)
        error = self.refused("already_exists", 2, *imports)
        self.assertIn("may be the only copy", error["message"])
        self.succeeds(*change, "--password-file", "pw", "--new-password-file", "pw2")
        self.refused("already_exists", 2, *imports)
        self.succeeds("recovery-key", "export", "team", "-o", "kept.recovery-key")
        self.succeeds(*imports)
        self.assertEqual(self.show()["record_sha256"], theirs)
        self.succeeds(*change, "--password-file", "pw3", "--new-password-file", "pw2")

    def test_6b_another_token_under_the_name_of_its_own(self):
        """The record would go to a token that nobody chose, under the name of the one that was."""
        before = self.show()["record_sha256"]
        self.world.make_token("blue")
        def register(**labels):
            for token in self.succeeds("token", "list", "--json").json()["tokens"]:
                self.world.run("token", "remove", token["name"], "--yes")
            for name, label in labels.items():
                self.succeeds("token", "add", name, "pkcs11:token=" + label, "--module",
                              self.world.module, "--pin-file", "pin")
        register(ops="blue", moved="ops")
        error = self.refused("token_not_registered", 8, "recovery-key", "password", "team",
                             "--password-file", "pw2", "--new-password-file", "pw", "--pin-file",
                             "moved=pin", "--pin-file", "ops=pin", "--no-input", num_runs=1)
        self.assertIn("with another key than its own", error["message"])
        self.assertEqual(self.show()["record_sha256"], before)
        register(ops="ops")

    def test_7_policy(self):
        self.world.must("policy", "sign", "--new-key", "p.key")
        vkey = self.world.must("policy", "sign", "--key", "p.key").out.decode().strip()
        text = ('[policy]\nname = "corp"\nserial = {serial}\nmode = "enforce"\nsimulators = "allowed"\n'
                '[recovery_keys.team]\npublic_thumbprint = "{pin}"\n'
                '[[rule]]\nname = "hosts"\nmatch = "host/**"\nrequire = ["{team}"]\n'
                'portable = true\ndrill_every = "90d"\n'
                '[[rule]]\nname = "two ways"\nmatch = "m/*"\nsurvive = 1\n'
                '[[rule]]\nname = "two factors"\nmatch = "w/*"\nwithstand = 1\n')
        self.world.write("p.toml", text.format(serial=1, team=TEAM, pin=self.show()["thumbprint"]))
        self.world.must("policy", "sign", "p.toml", "--key", "p.key")
        self.world.must("policy", "set", "p.toml", "--policy-key", vkey)
        self.succeeds("backup", "host/k06", "--no-input", env=self.nothing)
        findings = self.world.run("status", "host/k06", "--json").json()["findings"]
        self.assertEqual([f for f in findings if f["severity"] == "critical"], [])
        self.refused("policy_refused", 7, "backup", "host/k06", "--path", "password & token:ops",
                     *UNLOCK, num_runs=1)
        self.refused("policy_refused", 7, "recovery-key", "retire", "team", "--yes", num_runs=1)
        # To be had by token and password, as the path beside it: the two are lost together.
        error = self.refused("policy_refused", 7, "backup", "m/one", "--from", "app.key", "--path",
                             TEAM, "--path", "password & token:ops", *UNLOCK, num_runs=1)
        self.assertIn("the loss of token:ops makes it unrecoverable", error["message"])
        self.succeeds("backup", "w/one", "--from", "app.key", "--path", TEAM, "--no-input",
                      env=self.nothing)
        survives = self.world.run("what-if", "host/k06", "--lose", "token:ops", "--json").json()
        self.assertIn("host/k06", json.dumps(survives))
        # Without that rule it may go; and a key of a name that the policy pins to another is refused.
        self.world.write("p.toml", text.format(serial=2, team="password & token:ops",
                                               pin="A" * 43).replace("keys.team]", "keys.team2]"))
        self.world.path("p.toml.sig").unlink()
        self.world.must("policy", "sign", "p.toml", "--key", "p.key")
        self.world.must("policy", "set", "p.toml")
        self.refused("policy_refused", 7, "recovery-key", "create", "team2", "--path",
                     "password & token:ops", *UNLOCK, num_runs=1)

    def test_8_retired(self):
        done = self.world.run("recovery-key", "retire", "team", "--yes", "--json")
        self.assertEqual(done.status, 1, str(done))
        self.assertEqual(len(done.json()["stranded"]), done.json()["envelopes"])
        self.refused("not_found", 8, "backup", "host/k05", "--path", TEAM, "--no-input",
                     num_runs=1)
        found = self.world.run("status", "host/k05", "--json").json()["findings"]
        self.assertIn(("declared_path_unusable", "host/k05"),
                      [(finding["rule"], finding["key"]) for finding in found])
        self.succeeds("restore", "host/k05", "--to", "out", "--password-file", "pw2", "--pin-file",
                      "pin")
        self.assertEqual(self.world.path("out").read_bytes(), self.keys["host/k05"])
        self.world.path("out").unlink()
        self.assertIsNotNone(self.show()["retired"])

    def test_9_both_verifiers_of_a_pack(self):
        self.succeeds("agent-key", "export", "-o", "agent.json")
        done = self.world.run("audit", "export", "-o", "pack.tar")
        self.assertIn(done.status, (0, 1), str(done))
        done = self.world.run("verify", "pack.tar", "--trust", "agent.json", "--json")
        self.assertIn(done.status, (0, 1), str(done))
        with tarfile.open(self.world.path("pack.tar")) as tar:
            member = next(m for m in tar.getmembers() if m.name.endswith("/verify.py"))
            self.world.write("verify.py", tar.extractfile(member).read())
        done = self.verify_py()
        self.assertIn(done.returncode, (0, 1), done.stdout.decode() + done.stderr.decode())
