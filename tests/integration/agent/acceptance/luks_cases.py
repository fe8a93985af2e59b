"""LUKS2 volumes as places of keys, on image files, as an ordinary user."""

import collections
import json
import os
import pathlib
import shlex
import subprocess

import world as world_module
from world import UNLOCK, AcceptanceCase

PATH = ("--path", "password & token:ops")
KILL_AT = "simulators/kill_at"


class LuksCase(AcceptanceCase):
    world_options = {"tpm": False, "ordinary_user": True}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.world.write("pass", b"the passphrase of the volume")
        cls.world.write("wrong.pass", b"of another volume")

    # ---- cryptsetup, as the same user

    def cryptsetup(self, *arguments, status=0):
        command = ["cryptsetup", "-q", *map(str, arguments)]
        if self.world.user is not None:
            command = ["setpriv", f"--reuid={self.world.user}", f"--regid={self.world.user}",
                       "--clear-groups", "--inh-caps=-all", "--bounding-set=-all", *command]
        done = subprocess.run(command, cwd=self.world.folder, env=self.world.environment,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if status is not None:
            self.assertEqual(done.returncode, status, f"{command}\n{done.stdout}\n{done.stderr}")
        return done

    def format(self, name, *arguments, type="luks2", size=20 << 20):
        path = self.world.write(name, b"")
        os.truncate(path, size)
        cost = ["--pbkdf", "pbkdf2"] if type == "luks2" else []
        self.cryptsetup("luksFormat", "--type", type, *cost, "--pbkdf-force-iterations", 1000,
                        "--key-file", "pass", *arguments, name)
        self.addCleanup(path.unlink)
        return path

    def opens(self, image, key_file, *arguments):
        return self.cryptsetup("open", "--test-passphrase", "--key-file", key_file, *arguments,
                               image, status=None).returncode == 0

    def keyslots(self, image):
        dump = self.cryptsetup("luksDump", "--dump-json-metadata", image).stdout
        return sorted(json.loads(dump)["keyslots"])

    # ---- keyescrow

    def backup(self, name, image, *arguments, unlock="pass"):
        return ("backup", name, "--generate", "64", "--to", f"luks:{image}",
                "--luks-unlock-file", unlock, *PATH, *UNLOCK, *arguments)

    def status(self, name):
        document = self.world.run("status", name, "--json").json()
        self.in_use = document["keys"][0]["in_use"]
        return {finding["rule"]: finding for finding in document["findings"]
                if finding["rule"] not in ("simulator", "software_token")}


class Luks(LuksCase):  # one test
    def test_a_keyslot_of_its_own(self):
        image = self.format("slot.img")
        self.succeeds("key", "add", "host/root", "--source", f"luks:{image}")
        self.addCleanup(lambda: self.succeeds("key", "remove", "host/root", "--yes"))
        done = self.succeeds(*self.backup("host/root", "slot.img"), "--json").json()
        self.assertEqual((done["delivered"], done["keyslot"]), (True, 1))
        self.assertIn(b"keyslot 1", self.world.run("audit", "log").out)
        self.assertEqual(self.status("host/root"), {})
        self.assertEqual(self.in_use, "escrowed")
        self.succeeds("gate", "host/root")

        # The escrowed secret is that keyslot's, and the old passphrase still opens the volume.
        self.succeeds("restore", "host/root", "--to", "out.key", *UNLOCK)
        self.assertTrue(self.opens("slot.img", "out.key", "--key-slot", 1))
        self.assertTrue(self.opens("slot.img", "pass", "--key-slot", 0))
        self.assertEqual(self.world.path("out.key").stat().st_size, 64)

        # A keyslot that is there already is done: not a byte of the image changes.
        before = image.read_bytes()
        again = ("restore", "host/root", "--luks-unlock-file", "pass", *UNLOCK)
        done = self.succeeds(*again, "--json").json()
        self.assertEqual((done["already_same"], done["keyslot"]), (True, 1))
        self.assertEqual(image.read_bytes(), before)
        # Nobody can read a keyslot's secret back: the source is the volume key, another key.
        self.refused("usage", 2, "backup", "host/root", "--luks-unlock-file", "pass", *PATH,
                     *UNLOCK)

        # Removed, it is missed without any secret; the remedy adds it again.
        self.cryptsetup("luksKillSlot", "--key-file", "pass", "slot.img", 1)
        found = self.status("host/root")
        self.assertEqual(list(found), ["key_drift"])
        self.assertEqual(found["key_drift"]["severity"], "critical")
        self.assertIn("the keyslot of the escrowed key was removed: keyslot 1",
                      found["key_drift"]["what"])
        self.assertIn("restore host/root --to luks:", found["key_drift"]["remedy"])
        self.assertEqual(self.world.run("gate", "host/root").status, 7)
        self.succeeds(*again)
        self.assertEqual(self.status("host/root"), {})
        self.assertTrue(self.opens("slot.img", "out.key"))

        # Replaced by another passphrase under the same number, and by another volume.
        (slot,) = set(self.keyslots("slot.img")) - {"0"}
        self.cryptsetup("luksKillSlot", "--key-file", "pass", "slot.img", slot)
        self.cryptsetup("luksAddKey", "--key-file", "pass", "--key-slot", slot, "--pbkdf", "pbkdf2",
                        "--pbkdf-force-iterations", 1000, "slot.img", "wrong.pass")
        self.assertIn("was changed", self.status("host/root")["key_drift"]["what"])
        self.cryptsetup("luksFormat", "--type", "luks2", "--pbkdf", "pbkdf2",
                        "--pbkdf-force-iterations", 1000, "--key-file", "pass", "slot.img")
        self.assertIn("another LUKS volume", self.status("host/root")["key_drift"]["what"])
        self.assertEqual(self.in_use, "other")
        os.truncate(image, 0)
        os.truncate(image, 20 << 20)
        self.assertIn("no LUKS volume", self.status("host/root")["key_drift"]["what"])
        image.rename(image.with_suffix(".away"))
        self.assertEqual(list(self.status("host/root")), ["source_missing"])
        image.with_suffix(".away").rename(image)
        self.world.path("out.key").unlink()

    def test_with_all_the_declared_keys(self):
        """The secret of a keyslot cannot be read again: where it stands, nothing is left to do."""
        self.format("all.img")
        for name, source in (("all/slot", f"luks:{self.world.path('all.img')}"),
                             ("all/file", self.world.path("app.key"))):
            self.succeeds("key", "add", name, "--source", source, "--path", PATH[1])
            self.addCleanup(self.succeeds, "key", "remove", name, "--yes")
        self.succeeds(*self.backup("all/slot", "all.img"))
        done = self.succeeds("backup", "--all", *UNLOCK)
        self.assertIn(b"escrowed 1 of 2 declared keys; 1 a keyslot's secret, escrowed already",
                      done.out)
        done = self.succeeds("backup", "--all", *UNLOCK, "--json").json()
        self.assertEqual([(k["key"], k["outcome"], k["error"]) for k in done["keys"]],
                         [({"name": "all/slot", "version": 1}, "escrowed already", None),
                          ({"name": "all/file", "version": 2}, "proven", None)])
        self.assertEqual((done["num_escrowed"], done["num_unchanged"]), (1, 1))
        # One that is gone is no success.
        self.cryptsetup("luksKillSlot", "--key-file", "pass", "all.img", 1)
        done = self.world.run("backup", "--all", *UNLOCK)
        self.assertEqual(done.status, 2, str(done))
        self.assertRegex(done.out, rb"all/slot +- +failed")

    def test_rotated(self):
        """A new keyslot beside the old one, which goes once the new version is in use."""
        image = self.format("rot.img")
        self.succeeds("key", "add", "host/rot", "--source", f"luks:{image}")
        self.addCleanup(lambda: self.succeeds("key", "remove", "host/rot", "--yes"))
        self.succeeds(*self.backup("host/rot", "rot.img"))
        self.succeeds("restore", "host/rot", "--to", "old.key", *UNLOCK)
        rotate = ("rotate", "host/rot", *UNLOCK)
        unlock = ("--luks-unlock-file", "pass")
        before = image.read_bytes()
        self.refused("secret_source_missing", 2, *rotate)
        self.refused("wrong_password", 3, *rotate, "--luks-unlock-file", "wrong.pass")
        self.assertEqual(image.read_bytes(), before)
        done = self.succeeds(*rotate, *unlock, "--json").json()
        self.assertEqual((done["keyslot"], done["retired_keyslot"], done["outcome"]),
                         (2, 1, "confirmed"), done)
        self.assertEqual(self.keyslots("rot.img"), ["0", "2"])
        self.assertEqual((self.status("host/rot"), self.in_use), ({}, "escrowed"))
        self.succeeds("gate", "host/rot")
        self.succeeds("restore", "host/rot", "--to", "new.key", *UNLOCK)
        self.assertEqual(self.world.path("new.key").stat().st_size, 64)
        self.assertEqual([self.opens("rot.img", key) for key in ("new.key", "old.key", "pass")],
                         [True, False, True])
        self.assertIn(b"keyslot 1 of", self.world.run("audit", "log").out)

        # Unlocked by the very key that is replaced: nobody is locked out at the next boot.
        self.world.path("old.key").unlink()
        self.world.path("new.key").rename(self.world.path("boot.key"))
        boot = ("--luks-unlock-file", "boot.key")
        done = self.world.run(*rotate, *boot, "--json")
        self.assertEqual((done.status, done.json()["retired_keyslot"]), (1, None), str(done))
        self.assertIn("boot.key has its key", "\n".join(done.json()["findings"]))
        self.refused("findings", 1, *rotate, *boot)
        self.assertTrue(self.opens("rot.img", "boot.key"))
        self.assertEqual(list(self.status("host/rot")), ["keyslot_superseded"])
        self.succeeds("restore", "host/rot", "--to", "boot.key", "--replace", *UNLOCK)
        done = self.succeeds(*rotate, "--json").json()
        self.assertEqual(done["interrupted"]["outcome"], "old keyslot removed", done)
        self.assertTrue(self.opens("rot.img", "boot.key"))
        self.succeeds("restore", "host/rot", "--discard-previous", "--to", "boot.key", "--yes")
        self.assertEqual((self.status("host/rot"), len(self.keyslots("rot.img"))), ({}, 2))

        # By a command: that the new key opens a keyslot is seen without unlocking the volume.
        change = ("cryptsetup -q luksChangeKey --pbkdf pbkdf2 --pbkdf-force-iterations 1000 "
                  "--key-file /dev/fd/3 rot.img /dev/fd/4")
        done = self.succeeds(*rotate, "--apply", change, "--json").json()
        self.assertEqual((done["confirmed_by"], done["retired_keyslot"]),
                         (f"the key at {image}", None), done)
        self.assertEqual((self.status("host/rot"), self.in_use), ({}, "escrowed"))
        error = self.check_json(self.world.run(*rotate, "--apply", "true", "--json"), "findings", 1)
        self.assertIn("still has the old key", error["message"])
        self.assertEqual(list(self.status("host/rot")), ["rotation_open"])
        # What opens the volume is the old key: seen by the new one, which a path gives.
        done = self.succeeds(*rotate, *unlock, "--to", f"luks:{image}", "--json").json()
        self.assertEqual(done["interrupted"]["outcome"], "handed over again", done)
        self.assertEqual((self.status("host/rot"), len(self.keyslots("rot.img"))), ({}, 2))

        # Without room nothing is begun; the volume's own key is not replaced.
        self.format("tight.img", "--luks2-keyslots-size", "512k", "--luks2-metadata-size", "16k")
        self.succeeds(*self.backup("host/tight", "tight.img"))
        self.refused("destination_full", 11, "rotate", "host/tight", "--to", "luks:tight.img",
                     *unlock, *UNLOCK, num_runs=1)
        self.succeeds("backup", "host/whole", "--from", "luks:rot.img", *unlock, *PATH, *UNLOCK)
        error = self.refused("usage", 2, "rotate", "host/whole", "--to", "luks:rot.img", *unlock,
                             *UNLOCK, num_runs=1)
        self.assertIn("reencrypt", error["hint"])
        self.assertIn("what it opens: keyslot 1 of", "\n".join(self.succeeds(
            "destroy", "host/tight", "--confirm", "host/tight", "--json").json()["not_shredded"]))
        self.world.path("boot.key").unlink()

    def test_a_re_encryption_that_is_not_done(self):
        self.format("turning.img")
        self.succeeds("key", "add", "host/turning", "--source",
                      f"luks:{self.world.path('turning.img')}")
        self.addCleanup(lambda: self.succeeds("key", "remove", "host/turning", "--yes"))
        self.succeeds(*self.backup("host/turning", "turning.img"))
        self.assertEqual(self.status("host/turning"), {})
        self.cryptsetup("reencrypt", "--force-offline-reencrypt", "--init-only", "--key-slot", 0,
                        "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", 1000, "--key-file", "pass",
                        "turning.img")
        found = self.status("host/turning")["key_drift"]
        self.assertEqual(found["severity"], "critical")
        self.assertIn("is being re-encrypted", found["what"])
        self.assertIn("--resume-only", found["remedy"])
        self.assertEqual(self.world.run("gate", "host/turning").status, 7)

    def test_a_volume_that_got_another_uuid(self):
        self.format("renamed.img")
        self.succeeds("key", "add", "host/renamed", "--source",
                      f"luks:{self.world.path('renamed.img')}")
        self.addCleanup(lambda: self.succeeds("key", "remove", "host/renamed", "--yes"))
        self.succeeds(*self.backup("host/renamed", "renamed.img"))
        self.cryptsetup("luksUUID", "--uuid", "11111111-2222-4333-8444-555555555555",
                        "renamed.img")
        found = self.status("host/renamed")["key_drift"]
        self.assertIn("makes it a keyslot of this volume", found["remedy"])
        self.succeeds("restore", "host/renamed", "--luks-unlock-file", "pass", *UNLOCK)
        self.assertEqual(self.status("host/renamed"), {})

    def test_the_volume_key(self):
        image = self.format("volume.img")
        self.world.write("line.pass", b"the passphrase of the volume\n")  # as an editor leaves it
        self.succeeds("backup", "host/volume", "--from", "luks:volume.img", "--luks-unlock-file",
                      "line.pass", *PATH, *UNLOCK)
        self.succeeds("restore", "host/volume", "--to", "volume.key", *UNLOCK)
        self.cryptsetup("luksDump", "--dump-volume-key", "--volume-key-file", "dumped.key",
                        "--key-file", "pass", "volume.img")
        self.assertEqual(self.world.path("volume.key").read_bytes(),
                         self.world.path("dumped.key").read_bytes())
        # Undeclared, the gate looks where the backup found it; the escrow needs no keyslot.
        self.succeeds("gate", "host/volume")
        before = image.read_bytes()
        done = self.succeeds("restore", "host/volume", "--to", "luks:volume.img",
                             "--luks-unlock-file", "pass", "--json", *UNLOCK).json()
        self.assertEqual((done["already_same"], done["keyslot"]), (True, None))
        self.assertEqual(image.read_bytes(), before)
        self.refused("usage", 2, *self.backup("host/volume", "volume.img"))

        # All passphrases are lost: the volume key itself unlocks, and a new keyslot is escrowed.
        self.cryptsetup("erase", "volume.img")
        self.assertEqual(self.keyslots("volume.img"), [])
        self.succeeds("gate", "host/volume")
        self.succeeds(*self.backup("host/new-slot", "volume.img", unlock="volume.key"))
        self.succeeds("restore", "host/new-slot", "--to", "slot.key", *UNLOCK)
        self.assertTrue(self.opens("volume.img", "slot.key"))

        # Formatted anew, the old volume key is no keyslot's secret there.
        self.cryptsetup("luksFormat", "--type", "luks2", "--pbkdf", "pbkdf2",
                        "--pbkdf-force-iterations", 1000, "--key-file", "pass", "volume.img")
        self.refused("destination_other_key", 12, "restore", "host/volume", "--to",
                     "luks:volume.img", "--luks-unlock-file", "pass", *UNLOCK, num_runs=1)
        for name in ("line.pass", "volume.key", "dumped.key", "slot.key"):
            self.world.path(name).unlink()

    def test_a_volume_is_known_by_its_uuid(self):
        """Its key leaked, it was re-encrypted, and it is reached by another path today."""
        image = self.format("here.img")
        os.symlink("here.img", self.world.path("there.img"))
        self.addCleanup(self.world.path("there.img").unlink)
        self.succeeds("backup", "host/here", "--from", "luks:here.img", "--luks-unlock-file", "pass",
                      *PATH, *UNLOCK)
        uuid = self.cryptsetup("luksUUID", "here.img").stdout.strip()
        self.cryptsetup("luksFormat", "--type", "luks2", "--uuid", uuid, "--pbkdf", "pbkdf2",
                        "--pbkdf-force-iterations", 1000, "--key-file", "pass", "here.img")
        for path in ("there.img", "here.img"):
            self.refused("destination_other_key", 12, "restore", "host/here", "--to", f"luks:{path}",
                         "--luks-unlock-file", "pass", *UNLOCK, num_runs=1)
        self.assertEqual(self.keyslots("here.img"), ["0"])

        # A keyslot's secret: known at the other path, and not taken for a volume key there.
        self.succeeds(*self.backup("host/slot", "here.img"))
        self.refused("usage", 2, "backup", "host/slot", "--from", "luks:there.img",
                     "--luks-unlock-file", "pass", *PATH, *UNLOCK, num_runs=1)
        self.succeeds("key", "add", "host/slot", "--source",
                      f"luks:{self.world.path('there.img')}")
        self.addCleanup(lambda: self.succeeds("key", "remove", "host/slot", "--yes"))
        self.assertEqual(self.status("host/slot"), {})
        self.assertEqual(self.in_use, "escrowed")
        again = self.succeeds(*self.backup("host/slot", "there.img"), "--json").json()
        self.assertTrue(any("keyslot 1 of version 1" in text for text in again["findings"]), again)
        self.assertEqual(self.status("host/slot"), {})
        self.assertEqual(self.keyslots("here.img"), ["0", "1", "2"])
        self.assertEqual(image.read_bytes()[:6], b"LUKS\xba\xbe")

    def test_refusals(self):
        self.format("plain.img")
        self.format("old.img", type="luks1")
        self.format("full.img", "--luks2-keyslots-size", "512k", "--luks2-metadata-size", "16k")
        self.cryptsetup("luksAddKey", "--key-file", "pass", "--pbkdf", "pbkdf2",
                        "--pbkdf-force-iterations", 1000, "full.img", "wrong.pass")
        self.world.write("open.pass", b"the passphrase of the volume", mode=0o644)
        self.world.write("empty.pass", b"")
        keys = [k["key"]["name"] for k in self.world.run("list", "--json").json()["keys"]]
        for code, status, image, unlock in (
                ("wrong_password", 3, "plain.img", "wrong.pass"),
                ("secret_file_unsafe", 2, "plain.img", "open.pass"),
                ("secret_source_unreadable", 2, "plain.img", "empty.pass"),
                ("secret_source_unreadable", 2, "plain.img", "no-such.pass"),
                ("invalid_location", 2, "pass", "pass"),
                ("invalid_location", 2, "old.img", "pass"),
                ("invalid_location", 2, ".", "pass"),
                ("not_found", 8, "no-such.img", "pass"),
                ("destination_full", 11, "full.img", "pass")):
            self.refused(code, status, *self.backup("no/key", image, unlock=unlock),
                         num_runs=2 if code == "wrong_password" else 1)
        self.refused("secret_source_missing", 2, "backup", "no/key", "--from", "luks:plain.img",
                     *PATH, *UNLOCK, num_runs=1)
        self.refused("wrong_password", 3, "restore", "app/key", "--to", "luks:plain.img",
                     "--luks-unlock-file", "wrong.pass", *UNLOCK, num_runs=1)
        self.refused("invalid_location", 2, "export", "app/key", "-o", "luks:plain.img", num_runs=1)
        self.refused("invalid_location", 2, "backup", "no/key", "--from", "app.key", "-o",
                     "luks:plain.img", *PATH, *UNLOCK, num_runs=1)
        self.assertIn("LUKS1", self.refused("invalid_location", 2, "backup", "no/key", "--from",
                                            "luks:old.img", "--luks-unlock-file", "pass", *PATH,
                                            *UNLOCK, num_runs=1)["message"])
        self.assertEqual([k["key"]["name"] for k in self.world.run("list", "--json").json()["keys"]], keys)
        for name in ("open.pass", "empty.pass"):
            self.world.path(name).unlink()

    def test_a_detached_header(self):
        header = self.world.path("header.img")
        self.addCleanup(header.unlink)
        self.format("data.img", "--header", "header.img")
        hint = self.refused("invalid_location", 2, *self.backup("host/data", "data.img"),
                            num_runs=1)["hint"]
        self.assertIn("detached", hint)
        self.succeeds(*self.backup("host/data", "header.img"))
        self.succeeds("restore", "host/data", "--to", "data.key", *UNLOCK)
        self.assertTrue(self.opens("data.img", "data.key", "--header", "header.img"))
        self.world.path("data.key").unlink()

    def test_killed_while_a_keyslot_is_added(self):
        image = self.format("kill.img")
        fresh = image.read_bytes()
        kill_at = next(folder / KILL_AT for folder in world_module.BINARY.parents if (folder / KILL_AT).exists())
        report = self.world.write("report", b"")
        world = self.world
        self.addCleanup(setattr, world, "launcher", [])
        backup = self.backup("kill/slot", "kill.img")

        # Every write and sync of the header is a moment to die before.
        world.launcher = [str(kill_at), "0", "0", str(report)]
        self.succeeds(*backup)
        calls = [line.split(" ", 2) for line in report.read_text().splitlines()]
        own = [(call, path) for process, call, path in calls if process == "0"]
        # Of that call and file alone: how often a process waits is another number in each run.
        moments, seen = [], collections.Counter()
        for call, path in own:
            if path.endswith("kill.img") and call in ("write", "pwrite64", "fsync"):
                seen[call] += 1
                moments.append(f"{seen[call]}/{call}/{path}")
        self.assertGreater(len(moments), 3, own)
        half_way = 0
        for moment in moments[::max(1, len(moments) // 4)] + moments[-1:]:
            image.write_bytes(fresh)
            world.launcher = [str(kill_at), "0", moment, str(report)]
            self.assertEqual(world.run(*backup).status, 128 + 9, moment)
            world.launcher = []
            self.assertTrue(self.opens("kill.img", "pass"), moment)
            self.assertEqual(self.cryptsetup("luksUUID", "kill.img").returncode, 0)
            half_way += len(self.keyslots("kill.img")) == 1
        self.assertGreater(half_way, 0)
        # The key was escrowed before: handing it over finishes what was begun.
        self.succeeds("restore", "kill/slot", "--to", "luks:kill.img", "--luks-unlock-file", "pass",
                      *UNLOCK)
        self.succeeds("restore", "kill/slot", "--to", "kill.key", *UNLOCK)
        self.assertTrue(self.opens("kill.img", "kill.key"))
        self.assertEqual(len(self.keyslots("kill.img")), 2)
        self.succeeds("gate", "kill/slot")
        for name in ("kill.key", "report"):
            world.path(name).unlink()

    def test_a_keyslot_that_an_abandoned_rotation_left(self):
        """Killed with its keyslot in the volume: that is told until it is gone, and only then."""
        image = self.format("left.img")
        world, rotate = self.world, ("rotate", "host/left", *UNLOCK, "--luks-unlock-file", "pass")
        self.succeeds("key", "add", "host/left", "--source", f"luks:{image}")
        self.addCleanup(lambda: self.succeeds("key", "remove", "host/left", "--yes"))
        self.succeeds(*self.backup("host/left", "left.img"))
        kill_at = next(folder / KILL_AT for folder in world_module.BINARY.parents
                       if (folder / KILL_AT).exists())
        report = world.write("report", b"")
        self.addCleanup(setattr, world, "launcher", [])
        self.addCleanup(report.unlink)
        left = {}  # whether it was written → the version
        for moment in range(1, 20):
            world.launcher = [str(kill_at), "0", f"{moment}/fsync/{image}", str(report)]
            self.assertEqual(world.run(*rotate).status, 128 + 9, moment)
            world.launcher = []
            was_written = "2" in self.keyslots("left.img")
            done = world.must("rotate", "host/left", "--abandon", "--json").json()
            left[was_written] = version = done["key"]["version"]
            self.assertEqual(bool(done["findings"]), was_written, done)
            found = self.status("host/left")
            if was_written:
                break
            self.assertEqual((found, self.in_use), ({}, "escrowed"))
        self.assertEqual(set(left), {False, True})
        self.assertEqual((list(found), self.in_use), (["keyslot_abandoned"], "escrowed"))
        self.assertIn(f"version {version}, which was abandoned, may open {image} by keyslot 2",
                      found["keyslot_abandoned"]["what"])
        self.succeeds("gate", "host/left")
        self.assertIn(b", which was abandoned, may open", world.run("doctor", "--json").out)
        # One that was rolled back left nothing, whoever takes that number afterwards.
        world.launcher = [str(kill_at), "0", f"1/fsync/{image}", str(report)]
        self.assertEqual(world.run(*rotate).status, 128 + 9)
        world.launcher = []
        self.assertEqual(self.keyslots("left.img"), ["0", "1", "2"])
        done = self.succeeds(*rotate, "--json").json()
        self.assertEqual(done["interrupted"]["outcome"], "rolled back", done)
        self.assertEqual(list(self.status("host/left")), ["keyslot_abandoned"])
        # The next rotation goes on beside it.
        self.succeeds(*rotate)
        self.assertEqual(self.keyslots("left.img"), ["0", "1", "2"])
        self.assertEqual(list(self.status("host/left")), ["keyslot_abandoned"])
        # Its remedy removes that keyslot and no other, whatever the numbers are by now.
        remedy = found["keyslot_abandoned"]["remedy"]
        words = shlex.split(remedy.partition(": keyescrow ")[2])
        self.succeeds(*words, *UNLOCK)
        self.assertEqual((self.keyslots("left.img"), self.status("host/left"), self.in_use),
                         (["0", "1"], {}, "escrowed"))
        self.assertTrue(self.opens("left.img", "pass"))

    def test_what_remains_verifies(self):
        self.world.must("agent-key", "export", "-o", "trust.json")
        self.succeeds("audit", "export", "-o", "luks.tar")
        self.succeeds("verify", "luks.tar", "--trust", "trust.json")
        folder = self.world.path("unpacked")
        folder.mkdir()
        subprocess.run(["tar", "-xf", self.world.path("luks.tar"), "-C", folder], check=True)
        (unpacked,) = folder.iterdir()
        done = subprocess.run(["python3", "-B", unpacked / "verify.py", "--trust",
                               self.world.path("trust.json")], cwd=unpacked, capture_output=True,
                              text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
