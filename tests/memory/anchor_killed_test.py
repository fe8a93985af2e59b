#!/usr/bin/env python3
"""The first anchor of a log, killed at each of its steps: healed by the next one, and no rollback.

  anchor_killed_test.py --binary KEYESCROW_PAUSED [unittest's arguments]
"""

import os
import pathlib
import shutil
import signal
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] /
                       "integration/agent/acceptance"))
import world as acceptance  # noqa: E402
from world import BOTH_PATHS, AcceptanceCase  # noqa: E402

FIRST = ("anchor-probed", "anchor-defined", "anchor-made", "anchor-intended", "anchor-counted",
         "anchor-certified")
INDEXES = ("0x1804b45", "0x1804b46")


class AnchorKilled(AcceptanceCase):
    paths = BOTH_PATHS

    def killed_at(self, point, *arguments):
        child = self.world.start(*arguments, env={"KEYESCROW_PAUSE_AT": point})
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        self.assertTrue(os.WIFSTOPPED(status), (point, status))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        for what in ("-t", "-l"):  # what a resource manager does for processes that died
            self.world.tpm_tool("tpm2_flushcontext", what)

    def copy(self, source, target):
        shutil.rmtree(self.world.path(target), ignore_errors=True)
        shutil.copytree(self.world.path(source), self.world.path(target))

    def begin_anew(self):
        """The state of before the first anchor, and a TPM without a counter of its log."""
        if not self.world.path("before").exists():
            self.copy("state", "before")
        self.copy("before", "state")
        taken = self.world.tpm_tool("tpm2_getcap", "handles-nv-index").lower()
        for index in INDEXES:
            if index in taken:
                self.world.tpm_tool("tpm2_nvundefine", "-C", "o", index)

    def mismatches(self):
        entries = self.succeeds("audit", "log", "--json").json()["entries"]
        return [entry for entry in entries if entry["type"] == "anchor.mismatch"]

    def is_found(self):
        done = self.world.run("verify")
        self.assertEqual(done.status, 4, str(done))
        self.assertIn("an older store was put back", done.out.decode() + done.err.decode())

    def test_a_first_anchor(self):
        for point in FIRST:
            with self.subTest(point=point):
                self.begin_anew()
                self.killed_at(point, "audit", "anchor")
                self.copy("state", "killed")
                self.verifies()
                self.succeeds("audit", "anchor")
                self.verifies()
                self.succeeds("audit", "anchor")
                self.verifies()
                self.assertEqual(self.mismatches(), [])
                self.copy("killed", "state")
                self.is_found()
        self.begin_anew()
        self.succeeds("audit", "anchor")

    def test_an_accepted_counter(self):
        self.begin_anew()
        self.succeeds("audit", "anchor")
        for point in FIRST + ("anchor-accepted",):
            if point == "anchor-intended":  # it is in the commit of the acceptance
                continue
            with self.subTest(point=point):
                self.copy("before", "state")
                self.is_found()
                self.killed_at(point, "audit", "anchor", "--accept", "the test did it")
                if self.world.run("verify").status == 4:
                    self.succeeds("audit", "anchor", "--accept", "the test did it")
                self.verifies()
                self.succeeds("audit", "anchor")
                self.verifies()
                self.assertTrue(self.mismatches())


if __name__ == "__main__":
    _, others = acceptance.parse_arguments(__doc__)
    unittest.main(module="__main__", argv=[sys.argv[0]] + others)
