"""The life of a key: rotated by a sink and by a command, and destroyed."""

import json
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time

import world as worlds
from evidence_cases import editing
from world import UNLOCK, AcceptanceCase, build_folder, within

PATHS = ("--path", "password & token:ops")
POLICY = """[policy]
name = "corp"
serial = %d
mode = "enforce"
simulators = "allowed"
[[rule]]
name = "all"
match = "**"
portable = true
%s"""


class LifeCase(AcceptanceCase):
    world_options = {"tpm": False}

    @classmethod
    def make(cls, name, *more):
        """Escrows a new key NAME from NAME.key, where it is declared to live."""
        file = cls.world.write(name + ".key", os.urandom(32))
        cls.world.must("key", "add", name, "--source", file)
        cls.world.must("backup", name, *PATHS, *UNLOCK, *more)
        return file

    def rotate(self, name, *arguments, **options):
        return self.succeeds("rotate", name, "--json", *UNLOCK, *arguments, **options).json()

    def version(self, name, number=None):
        more = () if number is None else ("--version", str(number))
        self.succeeds("restore", name, "--to", "opened.key", *UNLOCK, *more)
        key = self.world.path("opened.key").read_bytes()
        self.world.path("opened.key").unlink()
        return key

    def in_use(self, name):
        return self.succeeds("show", name, "--json").json()["key"]["version"]

    def rules(self, name):
        """The findings of `status`, but those of a simulator."""
        done = self.world.run("status", name, "--json")
        self.assertIn(done.status, (0, 1), str(done))
        rules = {finding["rule"] for finding in done.json()["findings"]}
        return {rule for rule in rules if not rule.startswith("simulator")}

    def is_whole(self):
        """Every verifier: of the state, of a pack, and the pack's own program."""
        self.verifies()
        done, script = self.verified_pack()
        self.assertEqual(done.json()["num_bad"], 0, str(done))
        self.assertEqual(script.returncode, done.status, script.stdout + script.stderr)
        self.assertIn(script.returncode, (0, 1), script.stdout + script.stderr)

    def verified_pack(self, *state):
        """What `verify` and the pack's own program say of a pack of the state."""
        pack, trust = self.world.path("life.tar"), self.world.path("life.trust")
        pack.unlink(missing_ok=True)
        self.world.write("life.trust", self.succeeds("agent-key", "export").out)
        self.world.must("audit", "export", "-o", "life.tar", *state)
        done = self.world.run("verify", "life.tar", "--trust", "life.trust", "--json")
        with tarfile.open(pack) as tar:
            name = next(n for n in tar.getnames() if n.endswith("/verify.py"))
            program = self.world.write("verify.py", tar.extractfile(name).read())
        script = subprocess.run([sys.executable, "-B", "-I", "-S", program, pack, "--trust", trust],
                                cwd=self.world.folder, capture_output=True, text=True, check=False,
                                stdin=subprocess.DEVNULL, timeout=within(240))
        return done, script

    def tampered(self, edit, fault, pack_too=True):
        """A copy of the state that was edited: the fault is named, in its pack as well."""
        copy = self.world.path("tampered")
        shutil.copytree(self.world.path("state"), copy)
        self.addCleanup(shutil.rmtree, copy, ignore_errors=True)
        with editing(copy) as database:
            edit(database)
        state = ("--state", str(copy))
        done = self.world.run("verify", "--json", *state)
        faults = {found["fault"] for item in done.json()["items"] for found in item["findings"]}
        self.assertEqual((done.status, fault in faults), (4, True), str(done))
        if pack_too:
            done, script = self.verified_pack(*state)
            self.assertEqual((done.status, script.returncode), (4, 4),
                             f"{done}\n{script.stdout}{script.stderr}")
        shutil.rmtree(copy)


class Rotation(LifeCase):  # one test
    def test_by_sink(self):
        file = self.make("sink")
        old = file.read_bytes()
        done = self.rotate("sink")
        self.assertEqual((done["key"]["version"], done["old_version"], done["outcome"]),
                         (2, 1, "confirmed"), done)
        new, previous = file.read_bytes(), self.world.path("sink.key.keyescrow-previous")
        self.assertEqual((len(new), new == old), (32, False))
        self.assertEqual(previous.read_bytes(), old)
        self.assertEqual(done["previous"], str(previous))
        self.assertEqual((self.version("sink"), self.version("sink", 1)), (new, old))
        self.assertEqual(self.rules("sink"), {"previous_generation"})
        self.succeeds("gate", "sink")
        # What was put aside is not overwritten by the next one: it says so before it does anything.
        self.refused("destination_other_key", 12, "rotate", "sink", *UNLOCK)
        self.succeeds("restore", "sink", "--discard-previous", "--yes")
        self.assertEqual(self.rotate("sink", "--generate", "48")["key"]["version"], 3)
        self.assertEqual(len(file.read_bytes()), 48)

    def test_a_key_that_nobody_escrowed_is_not_put_aside(self):
        file = self.make("drifted")
        file.write_bytes(b"bytes that nobody escrowed")
        self.refused("destination_other_key", 12, "rotate", "drifted", *UNLOCK)
        self.assertEqual(self.in_use("drifted"), 1)

    def test_by_luks(self):
        """A command with both keys on descriptors: the volume's passphrase is changed."""
        file = self.make("luks")
        old, image = file.read_bytes(), self.world.write("luks.img", b"")
        os.truncate(image, 24 << 20)
        crypt = ["cryptsetup", "--batch-mode", "--disable-locks", "--pbkdf", "pbkdf2",
                 "--pbkdf-force-iterations", "1000"]
        subprocess.run([*crypt, "luksFormat", image, file], check=True, capture_output=True)
        command = f"{' '.join(crypt)} luksChangeKey {image} --key-file /dev/fd/$KEYESCROW_OLD_KEY_FD " \
                  f"/dev/fd/$KEYESCROW_NEW_KEY_FD"
        done = self.rotate("luks", "--generate", "64", "--apply", command, "--to", file)
        self.assertEqual(done["outcome"], "confirmed", done)
        new = file.read_bytes()
        for key, status in ((new, 0), (old, 2)):
            opened = subprocess.run(
                ["cryptsetup", "--disable-locks", "open", "--test-passphrase", "--key-file", "-",
                 image], input=key, capture_output=True, check=False)
            self.assertEqual(opened.returncode, status, opened.stderr)
        self.assertEqual((self.version("luks"), self.version("luks", 1)), (new, old))

    def test_what_a_command_gets(self):
        file = self.make("told")
        old = file.read_bytes()
        command = ("cat /dev/fd/$KEYESCROW_OLD_KEY_FD >told.old; cat <&4 >told.key; env >told.env; "
                   "cat /proc/self/cmdline >told.words; ls /proc/self/fd >told.fds; cat >told.in")
        done = self.rotate("told", "--apply", command)
        self.assertEqual(done["confirmed_by"], f"the key at {file}", done)
        read = lambda name: self.world.path(name).read_bytes()
        self.assertEqual(read("told.old"), old)
        self.assertEqual(self.version("told"), read("told.key"))
        self.assertEqual(read("told.in"), b"")
        for line in (b"KEYESCROW_KEY=told", b"KEYESCROW_OLD_VERSION=1", b"KEYESCROW_NEW_VERSION=2",
                     b"KEYESCROW_OLD_KEY_FD=3", b"KEYESCROW_NEW_KEY_FD=4"):
            self.assertIn(line, read("told.env").splitlines())
        for key in (old, read("told.key")):
            self.assertNotIn(key, read("told.env") + read("told.words"))
            self.assertNotIn(key.hex().encode(), read("told.env") + read("told.words"))
        # Beside the keys: the three of every process, and ls's own folder.
        self.assertLessEqual(set(read("told.fds").split()), {b"0", b"1", b"2", b"3", b"4", b"5"})

    def test_a_command_that_reads_the_new_key_first(self):
        """A key that no pipe holds waits for its reader and keeps nobody else waiting."""
        file = self.world.write("large.key", os.urandom(300_000))
        old = file.read_bytes()
        self.world.must("key", "add", "large", "--source", file)
        self.world.must("backup", "large", *PATHS, *UNLOCK)
        self.rotate("large", "--generate", "32", "--apply",
                    "cat <&4 >large.new; cat <&3 >large.old; mv large.new large.key")
        self.assertEqual(self.world.path("large.old").read_bytes(), old)
        self.assertEqual(self.version("large"), file.read_bytes())

    def test_without_a_declared_source(self):
        """The old version is opened for the command; its exit status is what confirms it."""
        self.world.write("bare.key", b"a key that lives somewhere else")
        self.succeeds("backup", "bare", "--from", "bare.key", *PATHS, *UNLOCK)
        done = self.rotate("bare", "--generate", "32", "--apply",
                           "cat <&3 >bare.old; cat <&4 >bare.new")
        self.assertEqual(done["confirmed_by"], "the exit status of the command", done)
        self.assertEqual(self.world.path("bare.old").read_bytes(),
                         b"a key that lives somewhere else")
        self.assertEqual(self.version("bare"), self.world.path("bare.new").read_bytes())
        log = self.succeeds("audit", "log", "--json").json()["entries"]
        opened = [e for e in log if e.get("key", {}).get("name") == "bare"]
        self.assertIn("restore.requested", {e["type"] for e in opened})
        self.is_whole()  # what the others left as well: it is the last one

    def test_a_command_that_fails(self):
        file = self.make("fails")
        old = file.read_bytes()
        error = self.check_json(self.world.run("rotate", "fails", "--json", *UNLOCK, "--apply",
                                               "exit 3"), "destination_command", 11)
        self.assertIn("exit status was 3", error["message"])
        self.assertIn("version 2 was abandoned", error["message"])
        self.assertEqual((file.read_bytes(), self.in_use("fails")), (old, 1))
        self.assertEqual(self.rules("fails"), set())
        self.assertEqual(len(self.version("fails", 2)), 32)  # abandoned, and not lost
        self.refused("not_found", 8, "rotate", "fails", "--abandon")
        self.assertEqual(self.rotate("fails")["key"]["version"], 3)

    def test_a_command_that_says_nothing(self):
        """A signal and the exit statuses that stand for one are no word: the key's place decides."""
        file = self.make("silent")
        old = file.read_bytes()
        for command, text in (("kill -KILL $$", "killed by signal 9"), ("exit 255", "was 255")):
            error = self.check_json(self.world.run("rotate", "silent", "--json", *UNLOCK, "--apply",
                                                   command), "destination_command", 11)
            self.assertIn(text, error["message"])
            self.assertIn("was abandoned", error["message"])
        self.assertEqual((file.read_bytes(), self.in_use("silent")), (old, 1))
        # Where nothing shows it the rotation stays open.
        self.world.write("mute.key", b"a key that lives somewhere else")
        self.succeeds("backup", "mute", "--from", "mute.key", *PATHS, *UNLOCK)
        error = self.check_json(self.world.run("rotate", "mute", "--json", *UNLOCK, "--generate",
                                               "32", "--apply", "exit 255"),
                                "destination_command", 11)
        self.assertIn("not known", error["message"])
        self.assertIn("rotation_open", self.rules("mute"))
        self.refused("store_busy", 9, "backup", "mute", "--from", "mute.key", *PATHS, *UNLOCK)
        # A second run that fails is no word either: the first may have been done.
        error = self.check_json(self.world.run("rotate", "mute", "--json", *UNLOCK, "--apply",
                                               "exit 3"), "destination_command", 11)
        self.assertIn("not known", error["message"])
        self.assertIn("rotation_open", self.rules("mute"))
        self.assertEqual(self.rotate("mute", "--abandon")["interrupted"]["outcome"], "rolled back")
        # No such command: the shell says so.
        error = self.check_json(self.world.run("rotate", "silent", "--json", *UNLOCK, "--apply",
                                               "/no/such/command 2>/dev/null"),
                                "destination_command", 11)
        self.assertIn("was 127", error["message"])

    def test_a_command_that_fails_after_it_was_done(self):
        file = self.make("late")
        done = self.world.run("rotate", "late", *UNLOCK, "--apply", "cat <&4 >late.key; exit 4")
        self.check_text(done, 11)
        self.assertIn("holds version 2", done.err.decode())
        self.assertEqual((self.rules("late"), self.in_use("late")), ({"rotation_open"}, 1))
        self.succeeds("gate", "late")  # both versions can be recovered
        done = self.rotate("late")
        self.assertEqual(done["interrupted"]["outcome"], "confirmed", done)
        self.assertEqual(self.version("late"), file.read_bytes())

    def test_a_command_without_end(self):
        self.make("endless")
        begin = time.monotonic()
        error = self.check_json(
            self.world.run("rotate", "endless", "--json", *UNLOCK, "--apply-timeout", "1", "--apply",
                           "trap '' TERM; sleep 300 & echo $! >endless.pid; wait; sleep 300"),
            "destination_command", 11)
        self.assertIn("version 2 was abandoned", error["message"])
        self.assertLess(time.monotonic() - begin, within(20))
        pid = int(self.world.path("endless.pid").read_text())
        self.assertFalse(pathlib.Path(f"/proc/{pid}/exe").exists(), "its process group lives")
        self.assertEqual(self.rules("endless"), set())

    def test_a_command_that_lies(self):
        file = self.make("lies")
        old = file.read_bytes()
        error = self.check_json(
            self.world.run("rotate", "lies", "--json", *UNLOCK, "--apply", "true"),
            "findings", 1)
        self.assertIn("still has the old key", error["message"])
        self.assertEqual((self.in_use("lies"), self.rules("lies")), (1, {"rotation_open"}))
        self.assertIn(b"rotation", self.world.run("doctor").out)
        self.refused("store_busy", 9, "backup", "lies", *PATHS, *UNLOCK)
        self.refused("findings", 1, "rotate", "lies", *UNLOCK)
        done = self.rotate("lies", "--to", file)
        self.assertEqual((done["key"]["version"], done["interrupted"]["outcome"]),
                         (2, "handed over again"), done)
        self.assertEqual((self.version("lies"), self.version("lies", 1)), (file.read_bytes(), old))

    def test_a_command_that_outlives_its_rotation(self):
        file = self.make("orphan")
        child = self.world.start("rotate", "orphan", *UNLOCK, "--apply",
                                 "touch orphan.began; sleep 2; cat <&4 >orphan.key")
        while not self.world.path("orphan.began").exists():
            self.assertIsNone(child.poll())
            time.sleep(0.02)
        self.refused("store_busy", 9, "rotate", "orphan", *UNLOCK, num_runs=1)
        child.send_signal(signal.SIGKILL)
        child.wait()
        error = self.check_json(self.world.run("rotate", "orphan", "--json", *UNLOCK),
                                "store_busy", 9)
        self.assertIn("still runs", error["message"])
        self.check_json(self.world.run("destroy", "orphan", "--confirm", "orphan", "--json"),
                        "store_busy", 9)
        child.communicate()  # its end
        deadline = time.monotonic() + within(20)
        done = self.world.run("rotate", "orphan", "--json", *UNLOCK)
        while done.status == 9 and time.monotonic() < deadline:
            time.sleep(0.1)
            done = self.world.run("rotate", "orphan", "--json", *UNLOCK)
        self.assertEqual(done.json()["interrupted"]["outcome"], "confirmed", str(done))
        self.assertEqual(self.version("orphan"), file.read_bytes())

    def test_killed_it_gives_a_whole_key_or_none(self):
        """By its command and by exec:, killed around each write to a pipe."""
        kill_at, report = build_folder(self.world.binary) / "simulators/kill_at", self.world.path("calls")
        self.addCleanup(setattr, self.world, "launcher", [])
        for name, hand_over in (("whole", ("--apply", "cat <&4 >whole.got; mv whole.got whole.key")),
                                ("piped", ("--to", "exec:cat >piped.got; mv piped.got piped.key"))):
            file = self.make(name)
            rotate = ("rotate", name, "--no-input", *UNLOCK, *hand_over)
            self.world.launcher = [kill_at, "0", "0", report]
            self.succeeds(*rotate)
            num_writes = report.read_text().count("0 write pipe:")
            for n in range(1, num_writes + 1):
                self.world.launcher = [kill_at, "0", f"{n}/write/pipe:", report]
                done = self.world.run(*rotate)  # kill_at waits for what outlives it
                self.world.launcher = []
                self.assertEqual(done.status, 128 + signal.SIGKILL, str(done))
                self.assertEqual(len(file.read_bytes()), 32, f"killed before write {n} to a pipe")
                if self.world.run("rotate", name, "--abandon").status == 1:  # it is in use
                    self.rotate(name)

    def test_an_abandoned_key_is_left_nowhere(self):
        """Killed before the file was in its place: what lies beside it goes with the rotation."""
        file = self.make("beside")
        old, left = file.read_bytes(), self.world.path(".beside.key.keyescrow-tmp")
        self.addCleanup(setattr, self.world, "launcher", [])
        for arguments in (("--abandon",), ("--apply", "exit 3")):
            self.world.launcher = [build_folder(self.world.binary) / "simulators/kill_at", "0",
                                   f"1/fsync/{left}", self.world.path("calls")]
            done = self.world.run("rotate", "beside", *UNLOCK)
            self.world.launcher = []
            self.assertEqual(done.status, 128 + signal.SIGKILL, str(done))
            self.assertEqual(len(left.read_bytes()), 32)
            other = self.world.write(left.name + "2", b"of one who had not the folder's lock")
            self.world.run("rotate", "beside", *UNLOCK, *arguments)
            self.assertFalse(left.exists() or other.exists())
            self.assertEqual((file.read_bytes(), self.rules("beside")), (old, set()))

    def test_with_nobody_present(self):
        """To a recovery key that was drilled: no factor, no terminal; beside `backup --all` too."""
        nobody = {"SOFTHSM2_CONF": str(self.world.path("no-token.conf"))}
        unattended = ("--no-input", "--json")
        file = self.world.write("alone.key", os.urandom(32))
        done = self.world.run("recovery-key", "create", "away", "--path", "password & token:ops",
                              "--prove-none", *UNLOCK)
        self.assertEqual(done.status, 1, str(done))
        self.succeeds("key", "add", "alone", "--source", file, "--path", "recovery-key:away")
        done = self.world.run("backup", "alone", *unattended, env=nobody)
        self.assertEqual(done.status, 1, str(done))
        # Never opened, what goes to it may open nowhere: the old key stays in use.
        old = file.read_bytes()
        error = self.check_json(self.world.run("rotate", "alone", *unattended, env=nobody),
                                "findings", 1)
        self.assertIn("drill recovery-key:away", error["message"])
        self.assertEqual((file.read_bytes(), self.in_use("alone")), (old, 1))
        self.succeeds("drill", "recovery-key:away", *UNLOCK)
        done = self.world.run("rotate", "alone", *unattended, env=nobody)
        self.assertEqual((done.status, done.json()["outcome"]), (0, "confirmed"), str(done))
        self.assertIsNotNone(done.json()["paths"][0]["covered_since"], str(done))
        self.assertNotEqual(file.read_bytes(), old)
        self.assertEqual(self.version("alone"), file.read_bytes())
        self.succeeds("restore", "alone", "--discard-previous", "--yes")
        done = self.world.run("rotate", "alone", "--apply", "cat <&4 >alone.key", *unattended,
                              env=nobody)
        self.assertEqual((done.status, self.in_use("alone")), (0, 4), str(done))
        # A rotation that is under way is nobody else's to disturb.
        self.assertEqual(self.world.run("rotate", "alone", "--apply", "true", *unattended,
                                        env=nobody).status, 1)
        new = self.version("alone", 5)
        done = self.world.run("backup", "--all", *unattended, env=nobody)
        row, = (row for row in done.json()["keys"] if row["key"]["name"] == "alone")
        self.assertEqual((row["outcome"], row["error"]["code"]), ("failed", "store_busy"), row)
        self.assertEqual((self.in_use("alone"), self.version("alone", 5)), (4, new))
        file.write_bytes(new)
        done = self.world.run("rotate", "alone", *unattended, env=nobody)
        self.assertEqual(done.json()["interrupted"]["outcome"], "confirmed", str(done))
        self.assertEqual(self.in_use("alone"), 5)
        # Then it is one as before, and a backup of the same bytes is no rotation.
        done = self.world.run("backup", "alone", *unattended, env=nobody)
        self.assertEqual((done.status, done.json()["key"]["version"]), (0, 6), str(done))
        log = self.succeeds("audit", "log", "--json").json()["entries"]
        superseded = [e["key"]["version"] for e in log if e["type"] == "escrow.superseded"
                      and e["key"]["name"] == "alone"]
        self.assertEqual(superseded, [1, 3, 4, 5])
        self.succeeds("key", "remove", "alone", "--yes")

    def test_paths_are_edited_meanwhile(self):
        """Exports go on beside an open rotation, edits after it; the next one has the new path."""
        file = self.make("edited")
        self.assertEqual(self.world.run("rotate", "edited", *UNLOCK, "--apply", "true").status, 1)
        self.succeeds("export", "edited", "-o", "edited.escrow")
        self.refused("store_busy", 9, "path", "add", "edited", "--path",
                     "second=password & token:ops", *UNLOCK)
        self.assertEqual(self.succeeds("show", "edited", "--json").json()["revision"], 1)
        done = self.rotate("edited", "--to", file)
        self.assertEqual(done["interrupted"]["outcome"], "handed over again", done)
        self.assertEqual(self.version("edited"), file.read_bytes())
        # The next one has both paths.
        self.succeeds("path", "add", "edited", "--path", "second=password & token:ops", *UNLOCK)
        self.succeeds("restore", "edited", "--discard-previous", "--yes")
        done = self.rotate("edited")
        self.assertEqual({path["id"] for path in done["paths"]}, {"token-ops", "second"}, done)

    def test_a_sink_without_room(self):
        """The disk of the sink is full: the old key stays in use, and nothing half is left."""
        file = self.make("full")
        self.succeeds("backup", "full", *PATHS, *UNLOCK)
        for sink, code, status in (("/dev/full", "destination_", 11), ("no/such/folder/key",
                                                                       "destination_", 11)):
            done = self.world.run("rotate", "full", "--to", sink, "--json", *UNLOCK)
            self.assertEqual(done.status, status, str(done))
            self.assertTrue(json.loads(done.err)["error"]["code"].startswith(code), str(done))
        error = self.check_json(self.world.run("rotate", "full", "--to", "exec:cat >/dev/full 2>&1",
                                               "--json", *UNLOCK), "destination_command", 11)
        self.assertIn("version 2 stays in use", error["message"])
        self.assertEqual((self.in_use("full"), self.version("full")), (2, file.read_bytes()))

    def test_what_was_edited_is_named(self):
        """Another version would count as the one in use: every verifier says so."""
        file = self.make("forged")
        self.rotate("forged")
        self.assertEqual(self.world.run("rotate", "forged", *UNLOCK, "--apply", "exit 1").status, 11)
        set_step = "UPDATE rotation SET step = ? WHERE key_name = 'forged' AND key_version = ?"
        self.tampered(lambda db: db.execute(set_step, ("confirmed", 3)), "rotation_unlogged")
        self.tampered(lambda db: db.execute(set_step, ("abandoned", 2)), "rotation_unlogged")
        self.tampered(lambda db: db.execute("DELETE FROM rotation WHERE key_version = 3 AND "
                                            "key_name = 'forged'"), "rotation_unlogged")
        self.tampered(lambda db: db.execute("UPDATE rotation SET old_version = 1 WHERE key_name = "
                                            "'forged' AND key_version = 3"), "rotation_unlogged",
                      pack_too=False)
        self.tampered(lambda db: db.execute("UPDATE envelope SET bytes = x'' WHERE key_name = "
                                            "'forged' AND key_version = 1"), "destroyed",
                      pack_too=False)
        self.assertEqual(self.version("forged"), file.read_bytes())

    def test_two_at_once(self):
        file = self.make("both")
        children = [self.world.start("rotate", "both", "--json", *UNLOCK, "--apply",
                                     "sleep 1; cat <&4 >both.key") for _ in range(2)]
        ends = sorted((child.communicate()[1], child.returncode)[1] for child in children)
        self.assertEqual(ends, [0, 9])
        self.assertEqual((self.in_use("both"), self.version("both")), (2, file.read_bytes()))

    def test_what_the_policy_asks(self):
        """A finding until a rotation: a backup of the same bytes is none."""
        file = self.make("asked")
        vkey = self.succeeds("policy", "sign", "--new-key", "signer.key").out.decode().strip()
        self.world.write("p.toml", POLICY % (1, 'rotate_after_restore = "7d"\n'))
        self.succeeds("policy", "sign", "p.toml", "--key", "signer.key")
        self.succeeds("policy", "set", "p.toml", "--policy-key", vkey)
        self.assertEqual(self.rules("asked"), set())
        self.version("asked")
        self.assertEqual(self.rules("asked"), {"rotate_after_restore"})
        self.succeeds("backup", "asked", *PATHS, *UNLOCK)
        self.assertEqual(self.rules("asked"), {"rotate_after_restore"})
        self.rotate("asked")
        self.assertEqual(self.rules("asked"), {"previous_generation"})
        self.version("asked")
        file.write_bytes(b"a key that was changed by hand")  # and then escrowed: rotated as well
        self.succeeds("backup", "asked", *PATHS, *UNLOCK)
        self.assertEqual(self.rules("asked"), {"previous_generation"})
        # One that was killed may have released it.
        child = self.world.start("restore", "asked", "--to", "exec:touch asked.begun; sleep 3; cat",
                                 *UNLOCK, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not self.world.path("asked.begun").exists():
            self.assertIsNone(child.poll())
            time.sleep(0.02)
        child.kill()
        child.wait()
        self.succeeds("drill", "asked", *UNLOCK)
        self.assertEqual(self.rules("asked"), {"previous_generation", "rotate_after_restore"})


class Overdue(AcceptanceCase):
    world_options = {"tpm": False}

    def test_another_release_gives_no_more_time(self):
        vkey = self.succeeds("policy", "sign", "--new-key", "signer.key").out.decode().strip()
        self.world.write("p.toml", POLICY % (1, 'rotate_after_restore = "3s"\n'))
        self.succeeds("policy", "sign", "p.toml", "--key", "signer.key")
        self.succeeds("policy", "set", "p.toml", "--policy-key", vkey)
        for name in ("first", "second"):
            self.succeeds("restore", "app/key", "--to", name, *UNLOCK)
            time.sleep(2)
        found = self.world.run("status", "app/key", "--json").json()["findings"]
        self.assertEqual([f["severity"] for f in found if f["rule"] == "rotate_after_restore"],
                         ["critical"], found)
        self.assertEqual(self.world.run("gate", "app/key").status, 7)


class Interrupted(LifeCase):
    def test_a_sink_that_took_the_key_and_failed(self):
        """No refusal takes it back: a release that may have been."""
        done = self.world.run("restore", "app/key", "--to", "exec:cat >leak; false", "--json",
                              *UNLOCK)
        self.assertEqual(done.status, 11, str(done))
        self.assertEqual(self.world.path("leak").read_bytes(), self.world.key)
        entries = self.succeeds("audit", "log", "--json").json()["entries"]
        asked, ended = entries[-2:]
        self.assertEqual((asked["type"], ended["type"], ended["outcome"]),
                         ("restore.requested", "restore.released", "pending"))
        self.assertTrue(ended["reason"].startswith(f"entry {asked['seq']}: exec:cat >leak; false "
                                                   "failed: "), ended)
        self.assertIn("the key may have been released", ended["reason"])
        report = self.succeeds("audit", "report", "--json").json()
        self.assertEqual(report["releases"][-1]["outcome"], "interrupted", report["releases"])

    def test_a_killed_restore_gets_its_end(self):
        """The next command that writes says that it was interrupted: a release that may have been."""
        begun = self.world.path("begun")
        child = self.world.start("restore", "app/key", "--to", "exec:touch begun; sleep 3; cat",
                                 *UNLOCK, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not begun.exists():
            self.assertIsNone(child.poll())
            time.sleep(0.02)
        drill = ("drill", "app/key", *UNLOCK)
        faults = lambda: {finding["fault"] for finding in
                          self.world.run("verify", "--json").json()["items"][0]["findings"]}
        self.succeeds(*drill)  # it lives: nothing is said of it
        self.assertEqual(faults(), {"release_without_outcome"})
        child.kill()
        child.wait()
        self.assertEqual(faults(), {"release_without_outcome"})
        self.succeeds(*drill)
        self.assertEqual(faults(), set())
        self.succeeds(*drill)  # once
        self.assertIn(b"1 restore, each with its end (1 interrupted", self.succeeds("verify").out)
        release, = self.succeeds("audit", "report", "--json").json()["releases"]
        self.assertEqual(release["outcome"], "interrupted")
        entry, = [entry for entry in self.succeeds("audit", "log", "--json").json()["entries"]
                  if entry["type"] == "restore.released"]
        self.assertEqual((entry["seq"], entry["outcome"]), (release["outcome_seq"], "pending"))
        self.assertTrue(entry["reason"].startswith(f"entry {release['seq']}: "), entry)
        done, script = self.verified_pack()
        self.assertEqual((done.status, script.returncode), (0, 0),
                         f"{done}\n{script.stdout}{script.stderr}")
        # Nobody makes the agent sign it once more, of this one or of one that told its end.
        self.succeeds("restore", "app/key", "--to", "again.key", "--yes", *UNLOCK)
        entries = self.succeeds("audit", "log", "--json").json()["entries"]
        asked = [entry["seq"] for entry in entries if entry["type"] == "restore.requested"]
        with editing(self.world.path("state")) as database:
            database.execute("INSERT OR REPLACE INTO meta VALUES ('open_restores', ?)",
                             ("".join(f"{seq} 4000000 1 deadbeef-0000\n" for seq in asked),))
        self.succeeds(*drill)
        entries = self.succeeds("audit", "log", "--json").json()["entries"]
        self.assertEqual([entry["type"] for entry in entries].count("restore.released"), 1)
        self.is_whole()


class Destruction(LifeCase):  # one test
    def holds(self, *needles):
        """Which of the needles stand in the files of the state."""
        found = set()
        for file in self.world.path("state").iterdir():
            data = file.read_bytes()
            found |= {needle for needle in needles if needle in data}
        return found

    def envelope(self, name):
        self.world.path("out.escrow").unlink(missing_ok=True)
        self.succeeds("export", name, "-o", "out.escrow")
        return json.loads(self.world.path("out.escrow").read_bytes())["payload"].encode()

    def test_all_of_it(self):
        file = self.make("gone")
        first = self.envelope("gone")
        for _ in range(5):  # pages that are split keep copies
            self.succeeds("backup", "filler", "--from", "app.key", *PATHS, *UNLOCK)
        self.rotate("gone")
        second = self.envelope("gone")
        # From its middle: the beginning of every payload is the same.
        needles = [payload[len(payload) // 2:][:400] for payload in (first, second)]
        self.assertEqual(self.holds(*needles), set(needles))
        self.refused("policy_refused", 7, "destroy", "gone", "--confirm", "gone")  # declared
        self.succeeds("key", "remove", "gone", "--yes")
        self.refused("usage", 2, "destroy", "gone", "--yes", "--no-input")
        self.refused("usage", 2, "destroy", "gone", "--confirm", "other")
        done = self.succeeds("destroy", "gone", "--confirm", "gone", "--reason", "CHG-1",
                             "--json").json()
        self.assertEqual((done["versions"], done["scrubbed"]), ([1, 2], True), done)
        left = "\n".join(done["not_shredded"])
        for words in ("'export' and 'backup --output' wrote: the log tells of 2",
                      "copies of the store", str(file), str(file) + ".keyescrow-previous"):
            self.assertIn(words, left)
        self.assertEqual(self.holds(*needles), set())
        self.is_whole()
        # What comes back, or went without its entry, is named.
        envelope = self.world.path("out.escrow").read_bytes()
        self.tampered(lambda db: db.execute(
            "UPDATE envelope SET bytes = ? WHERE key_name = 'gone' AND key_version = 2",
            (envelope,)), "destroyed", pack_too=False)
        self.tampered(lambda db: db.execute("DELETE FROM destroyed WHERE key_name = 'gone' AND "
                                            "key_version = 1"), "destroyed", pack_too=False)
        for arguments in (("restore", "gone", "--to", "x.key", *UNLOCK), ("show", "gone"),
                          ("restore", "gone", "--version", "1", "--to", "x.key", *UNLOCK),
                          ("status", "gone"), ("rotate", "gone", *UNLOCK),
                          ("destroy", "gone", "--confirm", "gone"), ("export", "gone", "-o", "y"),
                          ("path", "list", "gone")):
            error = self.refused("not_found", 8, *arguments, num_runs=1)
            self.assertIn("destroyed", error["message"])
        self.assertIn("(CHG-1)", error["message"] + self.refused(
            "not_found", 8, "show", "gone", num_runs=1)["message"])
        self.assertIn(b"destroyed: gone, 2 versions, on ", self.succeeds("list").out)
        error = self.check_json(self.world.run("import", "out.escrow", "--json"), "not_found", 8)
        self.assertIn("keyescrow backup gone --from", error["hint"])  # adopt takes others alone
        # The name may be used again; what was destroyed stays gone.
        self.succeeds("backup", "gone", "--from", file, *PATHS, *UNLOCK)
        self.assertEqual((self.in_use("gone"), self.version("gone")), (3, file.read_bytes()))
        self.assertNotIn(b"destroyed: gone", self.succeeds("list").out)
        self.is_whole()

    def test_an_imported_name_is_free_again(self):
        for number in "12":  # nowhere declared
            self.world.write("moved.key", os.urandom(32))
            self.succeeds("backup", "moved", "--from", "moved.key", *PATHS, *UNLOCK)
            self.succeeds("export", "moved", "-o", f"moved.{number}")
        self.world.write("mover.pub", self.succeeds("agent-key", "export").out)
        there = {"KEYESCROW_STATE": str(self.world.path("there"))}
        self.succeeds("init", env=there)
        error = self.check_json(self.world.run("import", "moved.1", "--json", env=there),
                                "agent_not_trusted", 4)
        self.assertIn("keyescrow trust add", error["hint"])
        self.succeeds("trust", "add", "mover.pub", env=there)
        self.succeeds("import", "moved.1", env=there)
        self.succeeds("destroy", "moved", "--confirm", "moved", env=there)
        error = self.check_json(self.world.run("import", "moved.1", "--json", env=there),
                                "not_found", 8)
        self.assertIn("its place stays empty", error["message"])
        self.succeeds("import", "moved.2", env=there)
        self.assertEqual(self.succeeds("show", "moved", "--json", env=there).json()["key"]["version"],
                         2)
        self.succeeds("verify", env=there)

    def test_typed_on_a_terminal(self):
        self.make("typed")
        self.succeeds("key", "remove", "typed", "--yes")
        done = self.world.run_on_terminal("destroy", "typed", answers=["tpyed"])
        self.assertEqual(done.status, 2, str(done))
        self.assertEqual(len(self.version("typed")), 32)
        done = self.world.run_on_terminal("destroy", "typed", answers=["typed"])
        self.assertEqual(done.status, 0, str(done))
        self.refused("not_found", 8, "show", "typed", num_runs=1)

    def test_the_traces_are_off_the_disk_before_that_is_said(self):
        self.make("off")
        self.succeeds("key", "remove", "off", "--yes")
        state, record = self.world.path("state"), self.world.path("off.log")
        shim = build_folder(worlds.BINARY) / "simulators/libdisk_shim.so"
        self.succeeds("destroy", "off", "--confirm", "off", env={
            "LD_PRELOAD": str(shim), "DISK_SHIM_ROOT": str(state), "DISK_SHIM_LOG": str(record)})
        steps = [(step["op"], step.get("path", ""))
                 for step in map(json.loads, record.read_text().splitlines())]
        done = steps.index(("unlink", str(state / "scrub.pending")))
        log = str(state / "store.db-wal")
        cut_off = max(n for n, step in enumerate(steps[:done]) if step == ("truncate", log))
        self.assertIn(("sync", log), steps[cut_off:done])

    def test_a_reader_in_the_way(self):
        """Another process reads an old state of the store: the traces are removed by the next call."""
        self.make("read")
        self.succeeds("key", "remove", "read", "--yes")
        reader = sqlite3.connect(self.world.path("state") / "store.db", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM envelope").fetchone()
        done = self.world.run("destroy", "read", "--confirm", "read", "--json")
        if done.status == 1:
            self.assertFalse(done.json()["scrubbed"], str(done))
            self.assertIn("destroyed_not_scrubbed",
                          {f["rule"] for f in self.world.run("status", "--json").json()["findings"]})
        reader.execute("ROLLBACK")
        reader.close()
        if done.status == 1:
            self.succeeds("destroy", "read")
        self.assertFalse((self.world.path("state") / "scrub.pending").exists())
        self.refused("not_found", 8, "destroy", "read", "--confirm", "read", num_runs=1)
