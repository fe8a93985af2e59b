"""What a rotation says where it does not go as it should, and what it keeps."""

import contextlib
import json
import os
import pathlib
import signal
import sqlite3
import subprocess
import time

import world as worlds
from life_cases import PATHS, LifeCase
from world import UNLOCK, build_folder, within


class RotationTold(LifeCase):  # one test
    def error(self, name, code, status, *arguments):
        return self.check_json(self.world.run("rotate", name, "--json", *arguments), code, status)

    def test_a_declared_command_takes_no_key(self):
        """It gives the key: were it the sink, its output would be the key in clear."""
        words = b"words that nobody may read on a screen"
        self.world.write("spoken.key", words)
        self.succeeds("key", "add", "spoken", "--source", "exec:cat spoken.key")
        self.succeeds("backup", "spoken", *PATHS, *UNLOCK)
        for command in ("restore", "rotate"):
            done = self.world.run(command, "spoken", *UNLOCK)
            self.check_text(done, 2)
            self.assertNotIn(words, done.out + done.err)
            self.assertIn("--to SINK", done.err.decode())
        self.assertEqual(self.version("spoken"), words)
        done = self.rotate("spoken", "--apply", "cat <&4 >spoken.key")
        self.assertEqual(done["confirmed_by"], "the key at its declared source", done)

    def test_a_key_that_was_not_taken_is_told(self):
        file = self.make("twice")
        first, second = os.urandom(32), os.urandom(32)
        self.world.write("first.key", first)
        self.world.write("second.key", second)
        self.error("twice", "findings", 1, *UNLOCK, "--from", "first.key", "--apply", "true")
        take = ("--apply", "cat <&4 >twice.new && mv twice.new twice.key")
        done = self.world.run("rotate", "twice", "--json", *UNLOCK, "--from", "second.key", *take)
        self.assertEqual((done.status, file.read_bytes()), (1, first), str(done))
        self.assertIn("the key of second.key was not taken", "".join(done.json()["findings"]))
        self.rotate("twice", "--from", "second.key", *take)
        self.assertEqual((file.read_bytes(), self.version("twice")), (second, second))
        # The same once more is done already: nothing is lost, and that is no finding.
        self.world.write("third.key", os.urandom(32))
        self.error("twice", "findings", 1, *UNLOCK, "--from", "third.key", "--apply", "true")
        self.rotate("twice", "--from", "third.key", *take)

    def test_abandoned_after_the_command_was_done(self):
        file = self.make("done")
        old = file.read_bytes()
        self.error("done", "destination_command", 11, *UNLOCK, "--apply", "cat <&4 >done.app",
                   "--to", "exec:exit 1")
        done = self.world.run("rotate", "done", "--abandon")
        self.assertEqual(done.status, 1, str(done))
        self.assertIn("the command said that version 2 is in use", done.err.decode())
        self.assertNotIn(b"stays in use", done.out)
        self.assertEqual((self.in_use("done"), file.read_bytes()), (1, old))
        self.assertEqual(self.version("done", 2), self.world.path("done.app").read_bytes())

    def test_a_wrong_pin_is_told(self):
        self.make("pin")
        self.world.write("bad.pin", b"999999\n")
        error = self.error("pin", "wrong_pin", 3, "--password-file", "pw", "--pin-file", "bad.pin")
        self.assertIn("token-ops: ", error["message"])
        self.assertIn("version 1 stays in use", error["message"])
        self.assertEqual((self.in_use("pin"), self.rules("pin")), (1, set()))

    def test_kdf_and_note_stay(self):
        config = self.world.path("agent.toml")
        text = config.read_text()
        config.write_text(text.replace("pbkdf2_iterations = 210000", "pbkdf2_iterations = 220000"))
        self.make("kept", "--kdf", "pbkdf2-sha512", "--note", "sealed in bag 12")
        config.write_text(config.read_text().replace("= 220000", "= 210000"))
        self.rotate("kept")
        shown = str(self.succeeds("show", "kept", "--json").json())
        for words in ("sealed in bag 12", "pbkdf2", "220000"):
            self.assertIn(words, shown)
        self.succeeds("restore", "kept", "--discard-previous", "--yes")
        self.rotate("kept", "--kdf", "argon2id", "--note", "in bag 13")
        shown = str(self.succeeds("show", "kept", "--json").json())
        self.assertIn("in bag 13", shown)
        self.assertNotIn("pbkdf2", shown)

    def interrupted(self, name, command, signal_number):
        child = self.world.start("rotate", name, *UNLOCK, "--apply", command)
        while not self.world.path(name + ".began").exists():
            self.assertIsNone(child.poll(), "it ended by itself")
            time.sleep(0.02)
        begin = time.monotonic()
        child.send_signal(signal_number)
        _, told = child.communicate()
        self.assertLess(time.monotonic() - begin, within(20))
        return child.returncode, told.decode()

    def test_interrupted_it_ends_its_command(self):
        for name, number in (("int", signal.SIGINT), ("term", signal.SIGTERM)):
            file = self.make(name)
            old = file.read_bytes()
            status, told = self.interrupted(
                name, f"sleep 300 & echo $! >{name}.pid; touch {name}.began; wait; cat <&4 >{name}.key",
                number)
            self.assertEqual(status, 128 + number, told)
            self.assertIn(f"ended by signal {int(number)}", told)
            self.assertIn("version 2 was abandoned", told)
            pid = int(self.world.path(name + ".pid").read_text())
            self.assertFalse(pathlib.Path(f"/proc/{pid}/exe").exists(), "its process group lives")
            self.assertEqual((file.read_bytes(), self.rules(name)), (old, set()))
        # One that ends well nevertheless has done it.
        file = self.make("heeds")
        status, told = self.interrupted(
            "heeds", "trap 'cat <&4 >heeds.key; exit 0' TERM; touch heeds.began; sleep 300 & wait",
            signal.SIGINT)
        self.assertEqual(status, 0, told)
        self.assertEqual((self.in_use("heeds"), self.version("heeds")), (2, file.read_bytes()))

    def test_a_command_has_no_terminal(self):
        self.make("asks")
        begin = time.monotonic()
        done = self.world.run_on_terminal("rotate", "asks", "--no-input", *UNLOCK, "--apply",
                                          "read answer </dev/tty; cat <&4 >asks.key", answers=[])
        self.assertEqual(done.status, 11, str(done))
        self.assertIn(b"it wanted the terminal", done.out)
        self.assertIn(b"version 2 was abandoned", done.out)
        self.assertLess(time.monotonic() - begin, within(60))
        self.assertEqual(self.rules("asks"), set())

    def test_to_another_place_than_declared(self):
        file = self.make("moved")
        old = file.read_bytes()
        done = self.world.run("rotate", "moved", *UNLOCK, "--to", "moved.other", "--json")
        self.assertEqual((done.status, done.json()["outcome"]), (1, "confirmed"), str(done))
        self.assertIn("still has version 1", "".join(done.json()["findings"]))
        self.assertEqual(len(self.world.path("moved.other").read_bytes()), len(old))
        self.assertEqual(file.read_bytes(), old)

    def test_what_a_killed_one_wrote_is_on_the_disk_before_it_counts(self):
        folder = self.world.path("cut")
        folder.mkdir()
        file = self.world.write("cut/key", os.urandom(32))
        old = file.read_bytes()
        self.succeeds("key", "add", "cut", "--source", file)
        self.succeeds("backup", "cut", *PATHS, *UNLOCK)
        shim = {"LD_PRELOAD": str(build_folder(worlds.BINARY) / "simulators/libdisk_shim.so"),
                "DISK_SHIM_ROOT": str(folder)}
        for n in range(1, 40):  # one of them is after the rename, and before the folder's sync
            self.world.run("rotate", "cut", *UNLOCK, env={**shim, "DISK_SHIM_KILL": str(n)})
            if file.read_bytes() != old:
                break
            self.world.run("rotate", "cut", "--abandon")
            self.world.path("cut/key.keyescrow-previous").unlink(missing_ok=True)
        self.assertNotEqual(file.read_bytes(), old)
        self.assertEqual(self.in_use("cut"), 1)
        record = self.world.path("cut.log")
        shim["DISK_SHIM_LOG"] = str(record)
        found = self.rotate("cut", env={**shim, "DISK_SHIM_ROOT": str(self.world.folder)})
        self.assertEqual(found["interrupted"]["outcome"], "confirmed", found)
        steps = [json.loads(line) for line in record.read_text().splitlines()]
        synced = [step["path"] for step in steps if step["op"] == "sync"]
        self.assertIn(str(file), synced)
        self.assertIn(str(folder), synced[synced.index(str(file)):])
        # The first commit is the one that confirms; a full log is begun anew after it, or not.
        commits = [n for n, path in enumerate(synced) if path.endswith("store.db-wal")]
        self.assertGreater(commits[0], synced.index(str(folder), synced.index(str(file))), synced)

    def test_an_error_after_the_new_key_was_written_is_told(self):
        """The folder's sync fails once: the key is there, is synced again, and comes into use."""
        folder = self.world.path("torn")
        folder.mkdir()
        file = self.world.write("torn/key", os.urandom(32))
        self.succeeds("key", "add", "torn", "--source", file)
        self.succeeds("backup", "torn", *PATHS, *UNLOCK)
        told = []
        for n in range(1, 9):  # one of them is after the rename
            self.world.launcher = ["strace", "-f", "-o", "/dev/null", "-P", str(folder), "-e",
                                   "trace=fsync", "-e", f"inject=fsync:error=EIO:when={n}"]
            try:
                done = self.world.run("rotate", "torn", "--json", *UNLOCK)
            finally:
                self.world.launcher = []
            if done.status < 2:
                told = [finding for finding in done.json()["findings"]
                        if "writing it told of an error: " in finding]
                break
            self.world.run("rotate", "torn", "--abandon")
            self.world.path("torn/key.keyescrow-previous").unlink(missing_ok=True)
        self.assertEqual((len(told), done.status), (1, 0), str(done))
        self.assertEqual(self.version("torn"), file.read_bytes())

    def test_to_where_nothing_is_seen(self):
        """Nothing was interrupted, and the remedies end it."""
        file = self.make("away")
        error = self.error("away", "findings", 1, *UNLOCK, "--to", "exec:cat >away.got")
        self.assertNotIn("interrupted", error["message"])
        restore = f"keyescrow restore away --version 2 --to {file} --replace"
        self.assertIn(restore, error["hint"])
        found, = (f for f in self.world.run("status", "away", "--json").json()["findings"]
                  if f["rule"] == "rotation_open")
        self.assertIn("confirms version 2", found["remedy"])
        self.assertNotIn("interrupted", self.error("away", "findings", 1, *UNLOCK)["message"])
        self.succeeds(*restore.split()[1:], *UNLOCK)
        self.assertEqual(self.rotate("away")["interrupted"]["outcome"], "confirmed")
        self.assertEqual(file.read_bytes(), self.world.path("away.got").read_bytes())

    def test_its_command_is_forgotten(self):
        self.make("hushed")
        secret = "with-a-password-in-it"
        done = self.succeeds("rotate", "hushed", *UNLOCK, "--apply",
                             f": {secret}; cat <&4 >hushed.key")
        self.assertIn(b"exported files and sheets of before hold version 1", done.err)
        self.world.run("rotate", "hushed", *UNLOCK, "--apply", f"exit 1; {secret}")
        with contextlib.closing(sqlite3.connect(self.world.path("state") / "store.db")) as store:
            rows = store.execute("SELECT step, command FROM rotation WHERE key_name = 'hushed' "
                                 "ORDER BY key_version").fetchall()
        self.assertEqual([step for step, _ in rows], ["confirmed", "abandoned"])
        self.assertNotIn(secret, str(rows))
        self.is_whole()

    def test_a_secret_made_for_a_keyslot(self):
        """Restored to another volume it is stretched no more than at first, and added once."""
        self.world.write("pass", b"the passphrase of the volume")
        keyslots = {}
        for image in ("one.img", "two.img"):
            path = self.world.write(image, b"")
            os.truncate(path, 20 << 20)
            subprocess.run(["cryptsetup", "-q", "--disable-locks", "luksFormat", "--type", "luks2",
                            "--pbkdf", "argon2id", "--pbkdf-force-iterations", "4",
                            "--pbkdf-memory", "65536", path, self.world.path("pass")], check=True,
                           capture_output=True)
        unlock = ("--luks-unlock-file", "pass", *UNLOCK)
        self.succeeds("backup", "slot", "--generate", "64", "--to", "luks:one.img", *PATHS, *unlock)
        for _ in range(2):
            self.succeeds("restore", "slot", "--to", "luks:two.img", *unlock)
        for image in ("one.img", "two.img"):
            dump = subprocess.run(["cryptsetup", "--disable-locks", "luksDump",
                                   "--dump-json-metadata", self.world.path(image)], check=True,
                                  capture_output=True)
            slots = json.loads(dump.stdout)["keyslots"]
            self.assertEqual(sorted(slots), ["0", "1"])
            keyslots[image] = {k: v for k, v in slots["1"]["kdf"].items() if k != "salt"}
        self.assertEqual(keyslots["two.img"], keyslots["one.img"])

    def test_destroy_where_the_state_takes_no_file(self):
        self.make("stays")
        self.succeeds("key", "remove", "stays", "--yes")
        pending = self.world.path("state") / "scrub.pending"
        pending.mkdir()
        self.addCleanup(lambda: pending.is_dir() and pending.rmdir())
        error = self.refused("store_unavailable", 9, "destroy", "stays", "--confirm", "stays",
                             num_runs=1)
        self.assertIn("nothing was destroyed", error["message"])
        pending.rmdir()
        done = self.succeeds("destroy", "stays", "--confirm", "stays", "--json").json()
        self.assertIn("freed", "\n".join(done["not_shredded"]))
