#!/usr/bin/env python3
"""rotate and destroy killed at each of their steps, and what the next call makes of it.

  life_test.py --binary KEYESCROW_PAUSED [unittest's arguments]
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] /
                       "integration/agent/acceptance"))
import world as acceptance  # noqa: E402
from life_cases import LifeCase, PATHS  # noqa: E402
from world import UNLOCK  # noqa: E402


class Killed(LifeCase):
    def start_to(self, point, *arguments):
        child = self.world.start(*arguments, env={"KEYESCROW_PAUSE_AT": point})
        self.addCleanup(child.kill)
        return child

    def stopped(self, child):
        """Waits until it stands at its pause point."""
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        self.assertTrue(os.WIFSTOPPED(status), (child.args, status, child.stderr.read()
                                                if not os.WIFSTOPPED(status) else ""))
        return child

    def goes_on(self, child):
        child.send_signal(signal.SIGCONT)
        out, err = child.communicate(timeout=acceptance.within(60))
        return child.returncode, out, err

    def killed_at(self, point, *arguments):
        """Runs to the pause point and kills there."""
        child = self.stopped(self.start_to(point, *arguments))
        child.send_signal(signal.SIGKILL)
        child.communicate()

    def step(self, name, point, outcome, *arguments, resume=()):
        """Kills `rotate` at the point; the next call says `outcome`. Both versions open meanwhile."""
        file = self.world.path(name + ".key")
        versions = {number: self.version(name, number) for number in (self.in_use(name),)}
        old = max(versions)
        self.killed_at(point, "rotate", name, *UNLOCK, *arguments)
        before = self.in_use(name)
        for number in range(old, old + 2):  # recoverable, whichever is in use
            if number == old + 1 and point in ("key-read", "before-commit"):
                continue
            key = self.version(name, number)
            self.assertEqual(key, versions.setdefault(number, key))
        self.assertIn(file.read_bytes(), versions.values())
        self.verifies()
        if point == "rotation-written" and not arguments:
            early = self.world.run("restore", name, "--discard-previous", "--yes", "--json")
            self.assertEqual(early.status, 8, str(early))
            self.assertIn("a rotation of " + name + " is under way", str(early))
        if outcome is None:  # it had ended, or not begun
            self.world.run("restore", name, "--discard-previous", "--yes")
        done = self.rotate(name, *arguments, *resume)
        found = done["interrupted"]
        if outcome is None:
            self.assertIsNone(found, done)
        else:
            self.assertEqual(found["outcome"], outcome, done)
        self.assertEqual(done["outcome"], "confirmed", done)
        if outcome == "confirmed":  # what stood there was the new key: nothing new was made
            self.assertEqual((before, done["key"]["version"]), (old, old + 1))
        self.assertEqual(self.version(name), file.read_bytes())
        self.assertEqual(self.version(name, old), versions[old])
        self.assertEqual(self.rules(name) - {"previous_generation"}, set())
        self.world.run("restore", name, "--discard-previous", "--yes")

    def test_by_sink(self):
        self.make("sink")
        for point, outcome in (("key-read", None), ("before-commit", None),
                               ("committed", "rolled back"), ("rotation-proven", "rolled back"),
                               ("rotation-handing-over", "rolled back"),
                               ("rotation-written", "confirmed"),
                               ("rotation-before-confirm", "confirmed"),
                               ("rotation-confirmed", None)):
            with self.subTest(point=point):
                self.step("sink", point, outcome)

    def test_by_command(self):
        self.make("cmd")
        apply = ("--apply", "cat <&4 >cmd.key")
        for point, outcome in (("rotation-handing-over", "rolled back"),
                               ("rotation-applied", "confirmed")):
            with self.subTest(point=point):
                self.step("cmd", point, outcome, *apply)

    def test_a_command_that_may_have_run(self):
        """Nothing declared says which key is in use: it asks, and is told."""
        self.world.write("blind.key", b"a key that lives somewhere else")
        self.succeeds("backup", "blind", "--from", "blind.key", *PATHS, *UNLOCK)
        rotate = ("rotate", "blind", *UNLOCK)
        apply = ("--apply", "cat <&3 >blind.old; cat <&4 >blind.new")
        self.killed_at("rotation-applied", *rotate, "--generate", "32", *apply)
        self.refused("findings", 1, *rotate)
        self.assertEqual(self.in_use("blind"), 1)
        done = self.rotate("blind", *apply)
        self.assertEqual((done["interrupted"]["outcome"], done["key"]["version"]),
                         ("handed over again", 2), done)
        self.assertEqual(self.version("blind"), self.world.path("blind.new").read_bytes())
        self.killed_at("rotation-applied", *rotate, "--generate", "32", *apply)
        done = self.rotate("blind", "--abandon")
        self.assertEqual((done["interrupted"]["outcome"], done["outcome"]),
                         ("rolled back", "abandoned"), done)
        self.assertEqual(self.in_use("blind"), 2)
        self.assertEqual(len(self.version("blind", 3)), 32)

    def test_at_a_volume(self):
        """A keyslot stands beside the old one until the new version is in use; then the old one goes."""
        image = self.world.write("volume.img", b"")
        os.truncate(image, 20 << 20)
        self.world.write("volume.pass", b"the passphrase of the volume")
        subprocess.run(["cryptsetup", "-q", "luksFormat", "--type", "luks2", "--pbkdf", "pbkdf2",
                        "--pbkdf-force-iterations", "1000", "--key-file", "volume.pass", image],
                       cwd=self.world.folder, check=True, capture_output=True)
        unlock = ("--luks-unlock-file", "volume.pass")
        self.succeeds("key", "add", "volume", "--source", f"luks:{image}")
        self.succeeds("backup", "volume", "--generate", "64", "--to", f"luks:{image}", *unlock,
                      *PATHS, *UNLOCK)
        rotate = ("rotate", "volume", *UNLOCK, *unlock)
        for point, outcome in (("rotation-handing-over", "rolled back"),
                               ("rotation-written", "confirmed"),
                               ("rotation-before-confirm", "confirmed"),
                               ("rotation-confirmed", "old keyslot removed"),
                               ("rotation-retired", None)):
            with self.subTest(point=point):
                old = self.in_use("volume")
                self.killed_at(point, *rotate)
                self.verifies()
                if point == "rotation-confirmed":
                    self.assertEqual(self.rules("volume"), {"keyslot_superseded"})
                done = self.rotate("volume", *unlock)
                found = done["interrupted"]
                self.assertEqual(found and found["outcome"], outcome, done)
                self.assertEqual(done["outcome"], "confirmed", done)
                self.assertGreater(self.in_use("volume"), old)
                self.assertEqual(self.rules("volume"), set())
                self.succeeds("gate", "volume")
                dump = subprocess.run(["cryptsetup", "luksDump", "--dump-json-metadata", image],
                                      check=True, capture_output=True).stdout
                self.assertEqual(len(json.loads(dump)["keyslots"]), 2)
                # The old version is recoverable, and opens the volume no more.
                self.assertEqual(len(self.version("volume", old)), 64)

    def test_destroy(self):
        for point, gone in (("destroy-before-commit", False), ("destroy-committed", True),
                            ("destroy-scrubbed", True)):
            with self.subTest(point=point):
                name = point.replace("destroy-", "d-")
                file = self.make(name)
                self.succeeds("key", "remove", name, "--yes")
                self.killed_at(point, "destroy", name, "--confirm", name)
                if gone:
                    self.refused("not_found", 8, "show", name, num_runs=1)
                else:
                    self.assertEqual(self.version(name), file.read_bytes())
                self.verifies()
                done = self.succeeds("destroy", name, "--confirm", name, "--json").json()
                self.assertEqual((done["scrubbed"], done["versions"]), (True, [] if gone else [1]))
                self.refused("not_found", 8, "destroy", name, "--confirm", name, num_runs=1)
        self.is_whole()  # what the others left as well: it is the last one

    def undeclared(self, name):
        file = self.make(name)
        self.succeeds("key", "remove", name, "--yes")
        return file

    def test_destroy_beside_a_backup(self):
        """A version that comes before the commit would be left, and nobody would be told."""
        file = self.undeclared("beside")
        destroy = ("destroy", "beside", "--confirm", "beside", "--json")
        child = self.stopped(self.start_to("destroy-before-commit", *destroy))
        self.succeeds("backup", "beside", "--from", file, *PATHS, *UNLOCK)
        status, out, err = self.goes_on(child)
        self.assertEqual((status, json.loads(err)["error"]["code"]), (9, "store_busy"), out + err)
        self.assertIn(b"nothing was destroyed", err)
        self.assertEqual(self.version("beside", 1), file.read_bytes())
        self.assertEqual(self.succeeds(*destroy).json()["versions"], [1, 2])

    def test_destroy_beside_a_destroy(self):
        """Who removes the traces of the first does not say that the second's are gone."""
        for name in ("first", "second"):
            self.undeclared(name)
        pending = self.world.path("state") / "scrub.pending"
        first = self.stopped(self.start_to("destroy-committed", "destroy", "first", "--confirm",
                                           "first"))
        second = self.start_to("destroy-before-commit", "destroy", "second", "--confirm", "second")
        time.sleep(1)
        self.assertEqual(self.goes_on(first)[0], 0)
        self.stopped(second)
        self.assertEqual(pending.read_text(), "second\n")
        self.assertEqual(self.goes_on(second)[0], 0)
        self.assertFalse(pending.exists())

    def test_destroy_and_escrowed_again(self):
        """What was escrowed since is not destroyed for the sake of the traces."""
        file = self.undeclared("again")
        self.killed_at("destroy-committed", "destroy", "again", "--confirm", "again")
        self.succeeds("backup", "again", "--from", file, *PATHS, *UNLOCK)
        told, = (f for f in self.world.run("status", "--json").json()["findings"]
                 if f["rule"] == "destroyed_not_scrubbed")
        self.assertIn("would destroy what was escrowed since", str(told))
        self.undeclared("another")
        self.succeeds("destroy", "another", "--confirm", "another")
        self.assertNotIn("destroyed_not_scrubbed", str(self.world.run("status", "--json")))
        self.assertEqual(self.version("again"), file.read_bytes())


if __name__ == "__main__":
    _, others = acceptance.parse_arguments(__doc__)
    unittest.main(module="__main__", argv=[sys.argv[0]] + others)
