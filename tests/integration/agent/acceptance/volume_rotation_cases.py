"""Rotations at LUKS2 volumes: which volume is written to, and what of the old key stays in it."""

import os

from luks_cases import LuksCase, PATH
from world import PIN, UNLOCK

PASS = ("--luks-unlock-file", "pass")


class VolumeRotation(LuksCase):  # one test
    def make(self, name):
        """Version 1 of host/NAME is a keyslot of NAME.img, and lies in NAME.1."""
        image = self.format(f"{name}.img")
        key = f"host/{name}"
        self.succeeds("key", "add", key, "--source", f"luks:{image}")
        self.addCleanup(lambda: self.succeeds("key", "remove", key, "--yes"))
        self.succeeds(*self.backup(key, image.name))
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
