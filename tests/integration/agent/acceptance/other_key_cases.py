"""What nobody escrowed is not taken for the old key, and not removed as one."""

import fcntl
import os
import shutil
import time

from life_cases import PATHS, LifeCase
from world import UNLOCK, build_folder, within


class OtherKeys(LifeCase):
    """Without a fingerprint to compare with, a version is opened: never guessed."""

    def error(self, code, status, *arguments):
        return self.check_json(self.world.run(*arguments, "--json"), code, status)

    def previous(self, file):
        return file.with_name(file.name + ".keyescrow-previous")

    def lose_fingerprints(self):
        (self.world.path("state") / "fingerprint.key").unlink(missing_ok=True)

    def other_bytes_stay(self, name, file):
        other = os.urandom(32)
        file.write_bytes(other)
        error = self.error("destination_other_key", 12, "rotate", name, *UNLOCK)
        self.assertIn(f"{file} holds other bytes than version 1", error["message"])
        self.assertIn(f"keyescrow backup {name}", error["hint"])
        self.assertEqual((file.read_bytes(), self.previous(file).exists()), (other, False))
        self.assertEqual((self.in_use(name), self.rules(name) & {"rotation_open"}), (1, set()))
        # Escrowed first, as it says, it is the old key.
        self.succeeds("backup", name, *PATHS, *UNLOCK)
        self.rotate(name)
        self.assertEqual(self.version(name, 2), other)
        self.assertEqual(self.previous(file).read_bytes(), other)
        self.succeeds("restore", name, "--discard-previous", "--yes")

    def test_after_the_fingerprints_were_lost(self):
        file = self.make("lost")
        self.lose_fingerprints()
        self.other_bytes_stay("lost", file)

    def test_on_a_rebuilt_host(self):
        world = self.world
        shutil.move(world.path("state"), world.path("old.state"))
        world.must("init")
        world.must("token", "add", "ops", "pkcs11:token=ops", "--module", world.module,
                   "--pin-file", "pin")
        world.must("trust", "add", world.thumbprint)
        world.must("import", "app.escrow")
        file = world.path("app.key")
        world.must("key", "add", "app/key", "--source", file)
        self.other_bytes_stay("app/key", file)

    def test_the_very_key_goes_on(self):
        file = self.make("same")
        old = file.read_bytes()
        self.lose_fingerprints()
        done = self.rotate("same")
        self.assertEqual((done["outcome"], self.in_use("same")), ("confirmed", 2), done)
        self.assertEqual((self.previous(file).read_bytes(), self.version("same", 1)), (old, old))
        # It was seen to be version 1, which is known from now on.
        self.assertEqual(self.rules("same"), {"previous_generation"})
        self.succeeds("restore", "same", "--discard-previous", "--yes")
        self.assertFalse(self.previous(file).exists())

    def test_what_cannot_be_opened_is_not_put_aside(self):
        file = self.make("closed")
        old = file.read_bytes()
        self.lose_fingerprints()
        error = self.error("wrong_password", 3, "rotate", "closed", "--password-file", "wrong",
                           "--pin-file", "pin")
        self.assertIn("whether", error["message"])
        self.assertEqual((file.read_bytes(), self.previous(file).exists()), (old, False))
        self.assertEqual(self.in_use("closed"), 1)
        self.assertNotIn("rotation_open", self.rules("closed"))

    def put_aside(self, file):
        """A key that nobody escrowed, in whose place app/key was restored."""
        other = os.urandom(32)
        self.world.write(file.name, other)
        self.succeeds("restore", "app/key", "--to", file, "--replace", *UNLOCK)
        return other

    def discard(self, file, *more):
        return self.world.run("restore", "app/key", "--discard-previous", "--to", file, *more)

    def newest(self):
        return self.succeeds("audit", "log", "--json").json()["entries"][-1]

    def test_a_key_that_is_escrowed_nowhere_is_not_discarded_by_yes(self):
        file = self.world.path("other.key")
        other = self.put_aside(file)
        told, = (f for f in self.world.run("status", "app/key", "--json").json()["findings"]
                 if f["rule"] == "previous_generation")
        self.assertIn("no escrowed version of app/key", told["what"])
        for more in (("--yes",), ("--confirm", "app/other"), ("--no-input",)):
            done = self.discard(file, *more)
            self.check_text(done, 2)
            self.assertIn("--confirm app/key", done.err.decode())
            self.assertEqual(self.previous(file).read_bytes(), other)
        self.assertIn("no escrowed version", self.discard(file, "--yes").err.decode())
        done = self.discard(file, "--confirm", "app/key", "--json")
        self.assertEqual((done.status, done.json()["escrowed_version"]), (0, None), str(done))
        self.assertFalse(self.previous(file).exists())
        self.assertIn("no escrowed version", str(self.newest()))

    def test_a_key_of_a_version_is_discarded_by_yes(self):
        file = self.world.write("used.key", self.world.key)
        self.world.write("app.key", os.urandom(32))
        self.succeeds("backup", "app/key", "--from", "app.key", *PATHS, *UNLOCK)
        self.succeeds("restore", "app/key", "--to", file, "--replace", *UNLOCK)
        done = self.discard(file, "--yes", "--json")
        self.assertEqual((done.status, done.json()["escrowed_version"]), (0, 1), str(done))
        self.assertEqual(self.newest()["key"], {"name": "app/key", "version": 1})

    def test_what_is_put_aside_meanwhile_is_looked_at(self):
        """A hand-over that is under way holds the folder, and puts another key there."""
        made = self.make("swap")
        file = self.world.path("swapped") / "key"
        file.parent.mkdir()
        file.write_bytes(made.read_bytes())
        made.write_bytes(os.urandom(32))
        self.succeeds("backup", "swap", *PATHS, *UNLOCK)
        self.succeeds("restore", "swap", "--to", file, "--replace", *UNLOCK)
        folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
        self.addCleanup(os.close, folder)
        fcntl.flock(folder, fcntl.LOCK_EX)
        calls = self.world.write("calls", b"")
        self.world.launcher = ["strace", "-f", "-e", "trace=flock", "-o", str(calls)]
        try:
            child = self.world.start("restore", "swap", "--discard-previous", "--to", file, "--yes")
        finally:
            self.world.launcher = []
        deadline = time.monotonic() + within(60)
        while "EAGAIN" not in calls.read_text():
            self.assertLess(time.monotonic(), deadline, "it does not wait for the folder")
            time.sleep(0.01)
        other = os.urandom(32)
        self.previous(file).write_bytes(other)
        fcntl.flock(folder, fcntl.LOCK_UN)
        out, err = child.communicate(timeout=within(60))
        self.assertEqual(child.returncode, 2, out + err)
        self.assertIn(b"no escrowed version of swap", err)
        self.assertEqual(self.previous(file).read_bytes(), other)

    def test_without_fingerprints_it_is_not_known(self):
        file = self.world.path("other.key")
        self.put_aside(file)
        self.lose_fingerprints()
        told, = (f for f in self.world.run("status", "app/key", "--json").json()["findings"]
                 if f["rule"] == "previous_generation")
        self.assertIn("not known", told["what"])
        self.check_text(self.discard(file, "--yes"), 2)
        self.assertEqual(self.discard(file, "--confirm", "app/key").status, 0)
        self.assertFalse(self.previous(file).exists())

    def test_a_backup_says_that_it_could_not_compare(self):
        file = self.make("blind")
        self.lose_fingerprints()
        file.write_bytes(os.urandom(32))
        done = self.succeeds("backup", "blind", *PATHS, *UNLOCK, "--json").json()
        told = [text for text in done["findings"] if "version 1" in text]
        self.assertEqual(len(told), 1, done)
        self.assertIn("is not known", told[0])
        self.assertIn("restore blind --version 1", told[0])
        # A key that is made just now is another one: that is no news.
        done = self.succeeds("backup", "blind", "--generate", "32", "--to", "made.key", *PATHS,
                             *UNLOCK, "--json").json()
        self.assertEqual([text for text in done["findings"] if "version 2" in text], [], done)

    def test_the_key_of_an_abandoned_version_is_taken(self):
        self.make("again")
        new = os.urandom(32)
        self.world.write("new.key", new)
        self.world.write("bad.pin", b"999999\n")
        self.error("wrong_pin", 3, "rotate", "again", "--from", "new.key", "--password-file", "pw",
                   "--pin-file", "bad.pin")
        self.rotate("again", "--from", "new.key")
        self.assertEqual((self.in_use("again"), self.version("again")), (3, new))
        self.error("usage", 2, "rotate", "again", "--from", "new.key", "--apply", "true", *UNLOCK)

    def killed_after_the_rename(self, name, file):
        old = file.read_bytes()
        kill_at = build_folder(self.world.binary) / "simulators/kill_at"
        self.addCleanup(setattr, self.world, "launcher", [])
        for moment in range(1, 60):
            self.world.launcher = [kill_at, "0", f"{moment}/fsync/{self.world.folder}",
                                   self.world.path("calls")]
            self.world.run("rotate", name, *UNLOCK)
            self.world.launcher = []
            if "rotation_open" in self.rules(name) and file.read_bytes() != old:
                return old
            self.assertEqual(file.read_bytes(), old)
            self.world.run("rotate", name, "--abandon")
            self.previous(file).unlink(missing_ok=True)
        self.fail("it never was between")

    def test_what_was_handed_over_can_be_taken_back(self):
        """By what --abandon says: the old key takes its place again, and the new one is put aside."""
        file = self.make("back")
        old = self.killed_after_the_rename("back", file)
        new = file.read_bytes()
        error = self.error("findings", 1, "rotate", "back", "--abandon")
        self.assertIn(f"restore back --version 1 --to {file} --replace", error["hint"])
        done = self.succeeds("restore", "back", "--version", "1", "--to", file, "--replace",
                             *UNLOCK, "--json").json()
        self.assertEqual(done["previous"], str(self.previous(file)))
        self.assertEqual((file.read_bytes(), self.previous(file).read_bytes()), (old, new))
        self.succeeds("rotate", "back", "--abandon")
        self.assertEqual((self.in_use("back"), self.rules("back")), (1, {"previous_generation"}))
        self.succeeds("restore", "back", "--discard-previous", "--yes")
        self.assertEqual((self.version("back"), self.rules("back")), (old, set()))
