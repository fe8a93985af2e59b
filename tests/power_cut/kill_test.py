#!/usr/bin/env python3
"""kill -9 at every system call of every command that writes, of the command and of its worker.

  kill_test.py --binary FILE --shim FILE --kill-at FILE [--every] [unittest's arguments]

kill_at (simulators/) kills one process before its n-th system call. What it leaves behind is judged
as power_cut_test.py does, on the disk as it is: the store and the log are consistent, what was
acknowledged is there, the next run succeeds, and then no temporary file is left; no process ever is.

Without --every a sample is taken: of each pair of a call and a file the first, of those that change a
disk or hand something to another process the first three and the last, and every STRIDE-th call beside
them. --every takes them all, which needs half an hour for each command; so it is run by hand.
"""

import argparse
import collections
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import disk  # noqa: E402
import power_cut_test as cut  # noqa: E402
from power_cut_test import Broken, Recording, Tries  # noqa: E402

KILL_AT: pathlib.Path = None
EVERY = False
STRIDE = 97
KILLED = 128 + 9
MAX_PROCESSES = 4  # the command, and its workers one after another
WRITES = {"write", "pwrite64", "writev", "fsync", "fdatasync", "ftruncate", "fallocate", "fchmod",
          "fchown", "rename", "renameat2", "link", "linkat", "unlink", "unlinkat", "rmdir", "mkdir",
          "mkdirat", "sendmsg", "sendto", "exit_group", "clone", "clone3", "vfork", "execve"}


class EverySystemCall(unittest.TestCase):
    """One command, killed again and again on the same disk."""

    def of(self, case):
        self.run_ = Recording(case())
        self.addCleanup(self.run_.close)
        self.tries = Tries(self.run_)
        self.judged = set()
        self.tokens = self.run_.world.path("tokens")
        self.whole_tokens = self.run_.world.path("tokens.whole")
        copy(self.tokens, self.whole_tokens)
        self.report = self.run_.world.path("report")

    def launch(self, process, n):
        self.run_.world.launcher = [str(KILL_AT), str(process), str(n), str(self.report)]
        try:
            done, _ = self.tries.once(shim=False)
        finally:
            self.run_.world.launcher = []
        lines = self.report.read_text(errors="replace").splitlines()
        return done, [line.split(" ", 2) for line in lines]

    def chosen(self, calls):
        """Numbers from 1 of the calls to be killed at, in order."""
        if EVERY:
            return range(1, len(calls) + 1)
        at = collections.defaultdict(list)
        for n, (name, file) in enumerate(calls, 1):
            at[name, re.sub(r"[0-9a-f]{6,}|\d+", "N", file)].append(n)
        chosen = set(range(1, len(calls) + 1, STRIDE))
        for (name, _), numbers in at.items():
            chosen.update(numbers[:3] + numbers[-1:] if name in WRITES else numbers[:1])
        return sorted(chosen)

    def everywhere(self):
        done, report = self.launch(0, 0)
        self.assertEqual(done.status, 0, str(done))
        calls = collections.defaultdict(list)
        for process, name, file in report:
            calls[int(process)].append((name, file))
        self.assertLessEqual(len(calls), MAX_PROCESSES)
        told = []
        for process in sorted(calls):
            numbers, num_killed = self.chosen(calls[process]), 0
            for n in numbers:
                num_killed += self.at(process, n)
            # How often a wait looks again varies with the machine's load; what matters does not.
            self.assertGreater(num_killed, len(numbers) * 0.5)
            told.append(f"{num_killed} of {len(calls[process])}")
        print(f"{type(self.run_.case).__name__}: killed at {', '.join(told)} system calls",
              file=sys.stderr)

    def at(self, process, n):
        """Kills once and judges; False where the process made fewer calls this time."""
        done, report = self.launch(process, n)
        run = self.run_
        where = f"process {process} was killed before call {n}: {report}\n{done}"
        run.printed = done.out
        if process == 0 and report:
            self.assertEqual(done.status, KILLED, where)
            acknowledged = bool(done.out)
        else:
            self.ends_well(done, where)
            acknowledged = done.status == 0
        root = self.tries.root
        if process != 0:  # SoftHSM, killed while it writes a token's file, leaves half of it
            shutil.rmtree(self.tokens)
            copy(self.whole_tokens, self.tokens)
        # Most calls change nothing: what lies on the disk after them was judged before.
        tree = disk.Disk(root).left_by(lambda file: file.durable, lambda folder: 0)
        left_behind = (disk.fingerprint(tree), acknowledged)
        if left_behind in self.judged:
            return bool(report)
        try:
            run.case.check(run, root, acknowledged)
        except Broken as broken:
            self.fail(f"{where}\n{broken}")
        left = [path.name for path in root.rglob("*.keyescrow-tmp*")]
        self.assertEqual(left, [], where)
        self.judged.add(left_behind)
        return bool(report)

    def ends_well(self, done, where):
        self.assertIn(done.status, range(0, 13), where)
        if done.status > 1:
            self.assertIn("error", done.err.decode(), where)
            self.assertNotIn("internal", done.err.decode(), where)


def copy(folder, to):
    if folder.exists():
        subprocess.run(["cp", "-a", str(folder), str(to)], check=True)


def killed(case):
    def test(self):
        self.of(case)
        self.everywhere()
    return test


for command in cut.COMMANDS:
    setattr(EverySystemCall, f"test_{command.__name__.lower()}", killed(command))


def main():
    global KILL_AT, EVERY
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--every", action="store_true")
    every, others = parser.parse_known_args()
    sys.argv[1:] = others
    options, others = cut.acceptance.parse_arguments(__doc__, "shim", "kill_at")
    cut.SHIM, KILL_AT, EVERY = options.shim, options.kill_at, every.every
    unittest.main(module="__main__", argv=[sys.argv[0]] + others)


if __name__ == "__main__":
    main()
