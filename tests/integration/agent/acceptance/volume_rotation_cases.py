"""Rotations at LUKS2 volumes: which volume is written to, and what of the old key stays in it."""

import os
import shlex
import shutil
import subprocess
import unittest

import world as world_module
from environment_cases import SetRight, clock
from luks_cases import KILL_AT, LuksCase, PATH
from world import PIN, UNLOCK

PASS = ("--luks-unlock-file", "pass")


class VolumeCase(LuksCase):
    def make(self, name, **options):
        """Version 1 of host/NAME is a keyslot of NAME.img, and lies in NAME.1."""
        image = self.format(f"{name}.img")
        key = f"host/{name}"
        self.succeeds("key", "add", key, "--source", f"luks:{image}")
        self.addCleanup(lambda: self.succeeds("key", "remove", key, "--yes"))
        self.succeeds(*self.backup(key, image.name), **options)
        self.restored_to(key, 1, f"{name}.1")
        return key, image

    def restored_to(self, key, version, file):
        self.succeeds("restore", key, "--version", version, "--to", file, *UNLOCK)
        self.addCleanup(self.world.path(file).unlink)

    def swap(self, image):
        """Another volume of the same passphrase takes the path."""
        away = image.with_name("away-" + image.name)
        image.rename(away)
        self.addCleanup(away.unlink, missing_ok=True)
        os.truncate(self.world.write(image.name, b""), 20 << 20)
        self.cryptsetup("luksFormat", "--type", "luks2", "--pbkdf", "pbkdf2",
                        "--pbkdf-force-iterations", 1000, "--key-file", "pass", image)
        return away

    def killed(self, calls, is_it, *arguments, first=1):
        """Kills a command before each of those calls in turn, until is_it() says that it was it."""
        kill_at = next(folder / KILL_AT for folder in world_module.BINARY.parents
                       if (folder / KILL_AT).exists())
        report = self.world.write("report", b"")
        self.addCleanup(report.unlink, missing_ok=True)
        self.addCleanup(setattr, self.world, "launcher", [])
        for moment in range(first, 30):
            self.world.launcher = [str(kill_at), "0", f"{moment}/{calls}", str(report)]
            done = self.world.run(*arguments)
            self.world.launcher = []
            self.assertEqual(done.status, 128 + 9, f"{moment}: {done}")
            if is_it():
                return

    def rotates(self, key, outcome, *arguments):
        """Goes on with the rotation that was interrupted."""
        done = self.succeeds("rotate", key, *UNLOCK, *arguments, "--json").json()
        self.assertEqual(done["interrupted"]["outcome"], outcome, done)
        return done

    def opened_by(self, image):
        """Which of the files NAME.1, NAME.2 … open NAME.img."""
        files = sorted(self.world.folder.glob(image.stem + ".[0-9]"))
        return [int(file.suffix[1:]) for file in files if self.opens(image, file.name)]


class VolumeRotation(VolumeCase):  # one test
    def test_another_volume_at_the_path(self):
        key, image = self.make("order")
        uuids = [self.cryptsetup("luksUUID", image).stdout.strip()]
        away = self.swap(image)
        uuids.append(self.cryptsetup("luksUUID", image).stdout.strip())
        before = image.read_bytes()
        error = self.refused("destination_other_key", 12, "rotate", key, *PASS, *UNLOCK)
        for text in (*uuids, str(image)):
            self.assertIn(text, error["message"])
        self.assertIn(f"restore {key} --to luks:{image}", error["hint"])
        self.assertIn("rotate " + key + " --to luks:", error["hint"])
        self.assertEqual(image.read_bytes(), before)
        self.assertEqual(list(self.status(key)), ["key_drift"])
        # It is told before an unlock file is, which the other volume need not take.
        self.refused("destination_other_key", 12, "rotate", key, "--luks-unlock-file", "wrong.pass",
                     *UNLOCK, num_runs=1)
        self.refused("destination_other_key", 12, "rotate", key, *PASS, *UNLOCK, "--apply", "true",
                     "--to", f"luks:{image}", num_runs=1)
        # Where the volume is now, it goes on.
        done = self.world.run("rotate", key, *PASS, *UNLOCK, "--to", f"luks:{away}", "--json")
        self.assertEqual(done.status, 1, str(done))
        self.assertIn("where the key is declared, is not opened", str(done))
        self.assertEqual((done.json()["keyslot"], done.json()["retired_keyslot"]), (2, 1))
        self.assertFalse(self.opens(away, "order.1"))
        self.assertEqual(self.keyslots(image), ["0"])
        # The other one is meant: the remedy, and it rotates.
        self.refused("destination_other_key", 12, "rotate", key, *PASS, *UNLOCK, num_runs=1)
        self.succeeds("restore", key, "--to", f"luks:{image}", *PASS, *UNLOCK)
        self.succeeds("rotate", key, *PASS, *UNLOCK)
        self.assertEqual(len(self.keyslots(image)), 2)

    def test_another_volume_while_the_key_is_made(self):
        """The path is looked at again right before the keyslot is written."""
        key, image = self.make("race")
        os.mkfifo(self.world.path("late.pin"), 0o600)
        self.addCleanup(self.world.path("late.pin").unlink)
        if self.world.user is not None:
            os.chown(self.world.path("late.pin"), self.world.user, self.world.user)
        child = self.world.start("rotate", key, *PASS, "--password-file", "pw", "--pin-file",
                                 "late.pin", "--json")
        with open(self.world.path("late.pin"), "w") as pin:  # opens once it is asked for
            away = self.swap(image)
            pin.write(PIN + "\n")
        out, err = child.communicate()
        self.assertEqual(child.returncode, 12, (out, err))
        self.assertEqual((self.keyslots(image), self.keyslots(away)), (["0"], ["0", "1"]))
        self.assertEqual(list(self.status(key)), ["key_drift"])  # no rotation is open
        away.rename(image)
        self.assertEqual((self.status(key), self.in_use), ({}, "escrowed"))

    def test_another_volume_where_it_was_interrupted(self):
        """It opens there nowhere, which tells nothing of the volume that has the keyslot."""
        key, image = self.make("shift")
        self.killed(f"fsync/{image}", lambda: "2" in self.keyslots(image), "rotate", key, *PASS,
                    *UNLOCK)
        away = self.swap(image)
        for more in ((), PASS):
            error = self.check_json(self.world.run("rotate", key, *UNLOCK, *more, "--json"),
                                    "findings", 1)
            self.assertIn("another LUKS volume stands at", error["message"])
            self.assertIn("bring the volume of the key back", error["hint"])
            self.assertIn("--abandon", error["hint"])
        image.rename(image.with_suffix(".other"))
        self.addCleanup(image.with_suffix(".other").unlink)
        error = self.check_json(self.world.run("rotate", key, *UNLOCK, "--json"), "findings", 1)
        self.assertIn("bring the volume of the key back", error["hint"])
        away.rename(image)
        self.assertEqual(self.keyslots(image), ["0", "1", "2"])
        done = self.rotates(key, "confirmed")
        self.restored_to(key, done["key"]["version"], "shift.2")
        self.assertEqual([self.opens(image, f"shift.{n}") for n in (1, 2)], [False, True])
        self.assertEqual((self.status(key), self.in_use), ({}, "escrowed"))

    def test_a_file_system_that_is_not_mounted(self):
        """Where a key stood and nothing stands, it is not known which key is in use."""
        mount, away = self.world.path("mnt"), self.world.path("mnt.away")
        file = mount / "app.key"
        mount.mkdir()
        self.world.write("mnt/app.key", os.urandom(32))
        self.world.give_to_user()
        self.succeeds("key", "add", "mnt/key", "--source", file)
        self.addCleanup(lambda: self.succeeds("key", "remove", "mnt/key", "--yes"))
        self.succeeds("backup", "mnt/key", *PATH, *UNLOCK)
        keys = [file.read_bytes()]
        rotate = ("rotate", "mnt/key", *UNLOCK)

        def unmounted():
            mount.rename(away)
            mount.mkdir()
            self.world.give_to_user()
            error = self.check_json(self.world.run(*rotate, "--json"), "findings", 1)
            self.assertIn(f"there is no key at {file}", error["message"])
            self.assertIn("mount it and run 'keyescrow rotate mnt/key' again", error["hint"])
            self.assertIn("rotation_open", self.status("mnt/key"))
            mount.rmdir()
            away.rename(mount)

        # With the new key in its place: the application has it once it is mounted.
        self.killed(f"fsync/{mount}", lambda: file.read_bytes() not in keys, *rotate, first=4)
        keys.append(file.read_bytes())
        unmounted()
        done = self.rotates("mnt/key", "confirmed")
        self.restored_to("mnt/key", done["key"]["version"], "mnt.key")
        self.assertEqual(self.world.path("mnt.key").read_bytes(), keys[1])
        self.succeeds("restore", "mnt/key", "--discard-previous", "--yes")
        # Before it was put there.
        self.killed(f"fsync/{mount}", lambda: True, *rotate)
        unmounted()
        self.rotates("mnt/key", "rolled back")
        self.succeeds("restore", "mnt/key", "--discard-previous", "--yes")
        # Where no key is known to have stood, that none stands there is as it was.
        self.killed(f"fsync/{mount}", lambda: True, *rotate, "--to", "mnt/new.key")
        self.rotates("mnt/key", "rolled back")

    def test_the_old_key_that_was_put_aside(self):
        """Abandoned before the new key was there: the copy of the old one can be discarded."""
        folder = self.world.path("aside")
        file, previous = folder / "app.key", folder / "app.key.keyescrow-previous"
        folder.mkdir()
        self.world.write("aside/app.key", os.urandom(32))
        self.world.give_to_user()
        self.succeeds("key", "add", "aside/key", "--source", file)
        self.addCleanup(lambda: self.succeeds("key", "remove", "aside/key", "--yes"))
        self.succeeds("backup", "aside/key", *PATH, *UNLOCK)
        key = file.read_bytes()
        self.killed(f"fsync/{folder}", previous.exists, "rotate", "aside/key", *UNLOCK, first=3)
        self.assertEqual((file.read_bytes(), previous.read_bytes()), (key, key))
        done = self.succeeds("rotate", "aside/key", "--abandon", "--json").json()
        self.assertEqual(done["previous"], str(previous), done)
        self.succeeds("restore", "aside/key", "--discard-previous", "--yes")
        self.assertEqual([path.name for path in folder.iterdir()], ["app.key"])
        self.assertEqual((self.status("aside/key"), file.read_bytes()), ({}, key))

    # ---- what of the superseded key stays

    def convert(self, image, key_file):
        """The keyslot is the same key's, and its header another."""
        self.cryptsetup("luksConvertKey", "--key-file", key_file, "--key-slot", 1, "--pbkdf",
                        "pbkdf2", "--pbkdf-force-iterations", 2000, image)

    def test_a_keyslot_that_was_changed(self):
        key, image = self.make("convert")
        self.convert(image, "convert.1")
        done = self.succeeds("rotate", key, *PASS, *UNLOCK, "--json").json()
        self.assertEqual((done["keyslot"], done["retired_keyslot"]), (2, 1), done)
        self.restored_to(key, 2, "convert.2")
        self.assertEqual(self.opened_by(image), [2])
        self.assertEqual((self.status(key), self.in_use), ({}, "escrowed"))

    def reencrypt(self, image, slot, key_file):
        """All other keyslots go."""
        subprocess.run(["cryptsetup", "-q", "reencrypt", "--force-offline-reencrypt",
                        "--resilience", "none", "--key-slot", str(slot), "--key-file", key_file,
                        image], cwd=self.world.folder, check=True, capture_output=True,
                       stdin=subprocess.DEVNULL)

    @unittest.skipUnless(os.geteuid() == 0, "cryptsetup takes the lock of a re-encryption as root")
    def test_a_volume_that_was_re_encrypted(self):
        key, image = self.make("turned")
        self.reencrypt(image, 1, "turned.1")
        self.cryptsetup("luksAddKey", "--key-file", "turned.1", "--pbkdf", "pbkdf2",
                        "--pbkdf-force-iterations", 1000, image, "pass")
        self.assertEqual(self.opened_by(image), [1])
        done = self.succeeds("rotate", key, *PASS, *UNLOCK, "--json").json()
        self.assertIsNotNone(done["retired_keyslot"], done)
        self.restored_to(key, 2, "turned.2")
        self.assertEqual(self.opened_by(image), [2])
        self.assertEqual((self.status(key), self.in_use), ({}, "escrowed"))
        # Where it went with the re-encryption, nothing is left to do.
        key, image = self.make("went")
        self.reencrypt(image, 0, "pass")
        self.assertEqual(self.opened_by(image), [])
        done = self.succeeds("rotate", key, *PASS, *UNLOCK, "--json").json()
        self.assertIsNone(done["retired_keyslot"], done)
        self.assertEqual((self.status(key), self.in_use), ({}, "escrowed"))

    def test_with_a_command_before_the_sink(self):
        key, image = self.make("both")
        done = self.succeeds("rotate", key, *PASS, *UNLOCK, "--apply", "true", "--to",
                             f"luks:{image}", "--json").json()
        self.assertEqual(done["retired_keyslot"], 1, done)
        self.restored_to(key, 2, "both.2")
        self.assertEqual(self.opened_by(image), [2])

    def told(self, key, image, *arguments):
        """A rotation that leaves version 1 in the volume tells of it, until its remedy is followed."""
        done = self.world.run("rotate", key, *arguments, "--json")
        self.assertEqual((done.status, done.json()["retired_keyslot"]), (1, None), str(done))
        found = self.status(key)
        self.assertEqual((list(found), self.in_use), (["keyslot_superseded"], "escrowed"))
        remedy = found["keyslot_superseded"]["remedy"]
        self.assertIn(remedy, "\n".join(done.json()["findings"]))
        self.assertIn("version 1 may still open", "\n".join(done.json()["findings"]))
        self.restored_to(key, 2, f"{image.stem}.2")
        self.assertEqual(self.opened_by(image), [1, 2])
        self.succeeds(*shlex.split(remedy.partition(": keyescrow ")[2]), *UNLOCK)
        self.assertEqual(self.opened_by(image), [2])
        self.assertEqual((self.status(key), self.in_use), ({}, "escrowed"))

    def test_a_keyslot_that_cannot_be_found(self):
        key, image = self.make("closed")
        self.convert(image, "closed.1")
        # The factors of the new paths do not open the old version.
        self.told(key, image, *PASS, "--path", "token:ops", "--pin-file", "pin")

    def test_a_keyslot_that_a_command_left(self):
        key, image = self.make("added")
        add = (f"cryptsetup -q luksAddKey --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file "
               f"/dev/fd/3 {image} /dev/fd/4")
        self.told(key, image, *UNLOCK, "--apply", add)

    def test_unlocked_by_the_key_that_goes(self):
        """Whoever unlocks the volume by it is not locked out."""
        key, image = self.make("boot")
        self.convert(image, "boot.1")
        self.told(key, image, "--luks-unlock-file", "boot.1", *UNLOCK)

    def test_of_a_version_that_was_imported(self):
        """A host that was built anew never saw the keyslot."""
        key, image = self.make("built")
        self.succeeds("export", key, "-o", "built.escrow")
        self.addCleanup(self.world.path("built.escrow").unlink)
        trusted = self.world.thumbprint
        lost = self.world.path("state.lost")
        state = self.world.path("state")
        state.rename(lost)

        def put_back():
            shutil.rmtree(state)
            lost.rename(state)
        self.addCleanup(put_back)
        self.world.must("init")
        self.world.must("token", "add", "ops", "pkcs11:token=ops", "--module", self.world.module,
                        "--pin-file", "pin")
        self.world.must("trust", "add", trusted)
        self.succeeds("import", "built.escrow")
        done = self.succeeds("rotate", key, *PASS, *UNLOCK, "--json").json()
        self.assertEqual(done["retired_keyslot"], 1, done)
        self.restored_to(key, 2, "built.2")
        self.assertEqual(self.opened_by(image), [2])
        self.assertEqual((self.status(key), self.in_use), ({}, "escrowed"))

    def test_what_remains_verifies(self):
        self.world.must("verify", "--json")


class VolumeClock(VolumeCase):
    world_options = {"tpm": False}  # the library of another clock runs as one user alone
    verifies = SetRight.verifies  # the log tells of the clock

    def test_put_back_under_another_clock(self):
        """What came after a rotation is told by the order of commits, whatever the clock said."""
        ahead = clock("+2h")
        key, image = self.make("hours")
        self.succeeds("rotate", key, *PASS, *UNLOCK, env=ahead)
        self.assertEqual(self.opened_by(image), [])
        self.succeeds("restore", key, "--version", 1, *PASS, *UNLOCK)
        self.assertNotIn("keyslot_superseded", self.status(key))
        done = self.succeeds("rotate", key, *PASS, *UNLOCK, "--json").json()
        self.assertEqual((done["interrupted"], done["key"]["version"]), (None, 3), done)
        self.assertEqual(self.opened_by(image), [1])  # who put it back knows why
        # And what stood before is left, though it was put there later by the clock.
        key, image = self.make("ahead", env=ahead)
        done = self.world.run("rotate", key, "--luks-unlock-file", "ahead.1", *UNLOCK)
        self.assertEqual(done.status, 1, str(done))
        self.assertIn("keyslot_superseded", self.status(key))
        self.assertEqual(self.opened_by(image), [1])
        done = self.rotates(key, "old keyslot removed", *PASS)
        self.assertEqual(self.opened_by(image), [])
