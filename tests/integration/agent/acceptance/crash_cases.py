"""kill -9 at random times, and several commands at once on one state."""

import json
import os
import random
import time

from world import UNLOCK, AcceptanceCase

NUM_KILLS = 20


class Crash(AcceptanceCase):
    world_options = {"tpm": False}

    def tearDown(self):
        # A temporary of a process that was killed may stay until the next write there.
        self.verifies()

    def kill_at_random_times(self, longest, *arguments):
        generator = random.Random(4711)
        for run in range(NUM_KILLS):
            child = self.world.start(*arguments)
            time.sleep(longest * (run + generator.random()) / NUM_KILLS)
            child.kill()
            child.communicate()
            yield child.returncode

    def test_restore(self):
        longest = self.restored("out.key").seconds * 1.5
        out = self.world.path("out.key")
        outcomes = []
        for status in self.kill_at_random_times(longest, "restore", "app/key", "--to", "out.key",
                                                *UNLOCK):
            self.assertIn(status, (0, -9))
            outcomes.append(out.exists())
            if out.exists():
                self.assertEqual(out.read_bytes(), self.world.key)
                out.unlink()
            self.verifies()
        print("\n%d restores killed within %.2f s; %d had written the whole key" % (
            len(outcomes), longest, sum(outcomes)))
        self.restored("out.key")
        left = [p.name for p in self.world.folder.iterdir() if "keyescrow-tmp" in p.name]
        self.assertLessEqual(len(left), 1, left)

    def test_replace(self):
        """The destination holds the old key or the new one, and no key is ever lost."""
        old = b"the old key, not to be lost"
        out, previous = self.world.path("out.key"), self.world.path("out.key.keyescrow-previous")
        longest = self.restored("out.key").seconds * 1.5
        self.world.write("out.key", old)
        for status in self.kill_at_random_times(longest, "restore", "app/key", "--to", "out.key",
                                                "--replace", *UNLOCK):
            self.assertIn(status, (0, -9, 12))
            self.assertIn(out.read_bytes(), (old, self.world.key))
            if out.read_bytes() == self.world.key and previous.exists():
                self.assertEqual(previous.read_bytes(), old)
            previous.unlink(missing_ok=True)
            self.world.write("out.key", old)
        out.unlink()

    def test_backup(self):
        backup = ("backup", "crash/key", "--from", "app.key", "--path", "password & token:ops",
                  *UNLOCK, "-o", "crash.escrow")
        longest = self.succeeds(*backup).seconds * 1.3
        self.world.path("crash.escrow").unlink()
        for status in self.kill_at_random_times(longest, *backup):
            self.assertIn(status, (0, -9))
            self.verifies()
            if self.world.path("crash.escrow").exists():
                self.succeeds("verify", "crash.escrow")
                self.world.path("crash.escrow").unlink()
        done = self.world.run("restore", "crash/key", "--to", "crash.key", *UNLOCK)
        self.assertEqual(done.status, 0, str(done))
        self.assertEqual(self.world.path("crash.key").read_bytes(), self.world.key)
        self.world.path("crash.key").unlink()


class Together(AcceptanceCase):
    """Without a TPM: a bare swtpm has no resource manager, and three slots for all its clients."""

    world_options = {"tpm": False}

    def all_succeed(self, children):
        ended = [(child.args, child.communicate(timeout=120), child.returncode)
                 for child in children]
        self.assertEqual([item for item in ended if item[2] != 0], [])

    def test_two_restores_and_two_backups(self):
        other = os.urandom(32)
        self.world.write("b.key", other)
        children = []
        for number in range(2):
            children.append(self.world.start(
                "restore", "app/key", "--via", "token-ops", "--to", f"out{number}.key", *UNLOCK))
            children.append(self.world.start(
                "backup", f"together/{number}", "--from", "b.key", "--path",
                "password & token:ops", *UNLOCK))
        self.all_succeed(children)
        for number in range(2):
            path = self.world.path(f"out{number}.key")
            self.assertEqual(path.read_bytes(), self.world.key)
            path.unlink()
            self.succeeds("restore", f"together/{number}", "--to", "b.out", *UNLOCK)
            self.assertEqual(self.world.path("b.out").read_bytes(), other)
            self.world.path("b.out").unlink()

    def test_one_destination(self):
        children = [self.world.start("restore", "app/key", "--via", "token-ops", "--to", "one.key",
                                     *UNLOCK) for _ in range(2)]
        self.all_succeed(children)
        self.assertEqual(self.world.path("one.key").read_bytes(), self.world.key)
        self.world.path("one.key").unlink()

    def test_one_name(self):
        """Both are escrowed as versions, or one is told to come again; no version is lost."""
        children = [self.world.start("backup", "one/key", "--from", "app.key", "--path",
                                     "password & token:ops", *UNLOCK, "--json") for _ in range(2)]
        ended = [(child.communicate(timeout=120), child.returncode) for child in children]
        versions = [json.loads(out)["key"]["version"] for (out, _), status in ended if status == 0]
        self.assertEqual(sorted(versions), list(range(1, len(versions) + 1)), ended)
        self.assertTrue(versions, ended)
        for (_, err), status in ended:
            if status != 0:
                self.assertEqual((status, json.loads(err)["error"]["code"]), (9, "store_busy"), err)
        for version in versions:
            self.succeeds("restore", "one/key", "--version", version, "--to", "v.key", *UNLOCK)
            self.world.path("v.key").unlink()
