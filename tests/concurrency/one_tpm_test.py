#!/usr/bin/env python3
"""Two of everything at once on one TPM behind a resource manager, one token and one store.

  one_tpm_test.py --binary FILE [unittest's arguments]

tpm2-abrmd serves a swtpm on a private bus; no command may fail for another's sake, no try may be
burned, and nothing may be left in the TPM.
"""

import json
import pathlib
import subprocess
import sys
import time
import unittest

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[0] / "integration" / "agent" / "acceptance"))

import world as acceptance  # noqa: E402
from world import UNLOCK, AcceptanceCase, World, die_with_parent  # noqa: E402

NUM_AT_ONCE = 4


class ManagedWorld(World):
    """A World whose TPM is reached through tpm2-abrmd."""

    def start_tpm(self, name):
        direct = super().start_tpm(name)
        bus = self.folder / "bus"
        self.begin("dbus-daemon", "--session", "--nofork", f"--address=unix:path={bus}")
        self.wait_for(bus.exists)
        self.environment["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={bus}"
        self.begin("tpm2-abrmd", "--session", "--allow-root", f"--tcti={direct}")
        self.wait_for(self.manager_answers)
        return "tabrmd:bus_type=session"

    def begin(self, *command):
        self.processes.append(subprocess.Popen(
            command, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, preexec_fn=die_with_parent))

    def manager_answers(self):
        return subprocess.run(
            ["tpm2_getrandom", "--hex", "1"], check=False, capture_output=True,
            env=dict(self.environment, TPM2TOOLS_TCTI="tabrmd:bus_type=session")).returncode == 0

    @staticmethod
    def wait_for(condition):
        deadline = time.monotonic() + 30
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError("a server did not start")
            time.sleep(0.05)


class OneTpm(AcceptanceCase):
    paths = ("password & token:ops", "password & tpm")

    @classmethod
    def setUpClass(cls):
        cls.world = ManagedWorld()
        cls.addClassCleanup(cls.world.close)
        cls.world.escrow(paths=cls.paths)

    def tearDown(self):
        super().tearDown()
        self.assertEqual(self.tries(), 0)
        for kind in ("handles-transient", "handles-loaded-session", "handles-saved-session"):
            self.assertEqual(self.world.tpm_tool("tpm2_getcap", kind).strip(), "", kind)

    def tries(self):
        for line in self.world.tpm_tool("tpm2_getcap", "properties-variable").splitlines():
            if "TPM2_PT_LOCKOUT_COUNTER" in line:
                return int(line.split(":")[1], 16)
        raise AssertionError("no lockout counter")

    def all_end(self, children, status=0):
        for child in children:
            out, err = child.communicate(timeout=600)
            self.assertEqual(child.returncode, status, f"{child.args}\n{out}\n{err}")

    def test_backups_and_restores(self):
        children = []
        for number in range(NUM_AT_ONCE):
            path_id = ("tpm", "token-ops")[number % 2]
            children.append(self.world.start("restore", "app/key", "--via", path_id, "--to",
                                             f"out{number}.key", *UNLOCK))
            children.append(self.world.start("backup", f"at-once/{number}", "--from", "app.key",
                                             "--path", self.paths[0], "--path", self.paths[1],
                                             *UNLOCK))
        self.all_end(children)
        for number in range(NUM_AT_ONCE):
            self.assertEqual(self.world.path(f"out{number}.key").read_bytes(), self.world.key)
            self.succeeds("restore", f"at-once/{number}", "--via", "tpm", "--to", "again.key",
                          *UNLOCK)
            self.world.path("again.key").unlink()
        types = [entry["type"] for entry in
                 self.succeeds("audit", "log", "--json").json()["entries"]]
        self.assertEqual(types.count("restore.requested"), types.count("restore.completed"))
        document = self.succeeds("verify", "--json").json()
        self.assertNotIn("missing_p256", json.dumps(document))

    def test_one_name(self):
        children = [self.world.start("backup", "one/key", "--from", "app.key", "--path",
                                     self.paths[0], "--path", self.paths[1], *UNLOCK, "--json")
                    for _ in range(NUM_AT_ONCE)]
        ended = [(child.communicate(timeout=600), child.returncode) for child in children]
        versions = [json.loads(out)["key"]["version"] for (out, _), status in ended if status == 0]
        self.assertEqual(sorted(versions), list(range(1, len(versions) + 1)), ended)
        self.assertTrue(versions)
        for (_, err), status in ended:
            if status != 0:  # it says so, and its key is not half there
                self.assertEqual(json.loads(err)["error"]["action"], "retry", err)

    def test_wrong_password(self):
        """A wrong password among right ones costs its own try, and nobody else's."""
        wrong = self.world.start("restore", "app/key", "--via", "tpm", "--to", "wrong.key",
                                 "--password-file", "wrong", "--json")
        right = [self.world.start("restore", "app/key", "--via", "tpm", "--to", f"r{number}.key",
                                  *UNLOCK) for number in range(2)]
        self.all_end(right)
        self.all_end([wrong], status=3)
        self.assertEqual(self.tries(), 1)
        self.assertFalse(self.world.path("wrong.key").exists())
        self.world.tpm_tool("tpm2_dictionarylockout", "--clear-lockout")


def main():
    _, others = acceptance.parse_arguments(__doc__)
    unittest.main(module="__main__", argv=[sys.argv[0]] + others)


if __name__ == "__main__":
    main()
