"""The packaged services: what their units allow is enough, seen by running them with no more."""

import os
import re
import shlex
import subprocess

from gate_cases import UNITS
from world import BOTH_PATHS, AcceptanceCase, within

SERVICES = ("keyescrow-status.service", "keyescrow-verify.service")
STATE = "/var/lib/keyescrow"
EXPOSURE = 25  # tenths: what systemd-analyze calls OK ends at 4.9


def settings_of(unit):
    lines = [line for line in (UNITS / unit).read_text().splitlines() if "=" in line]
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def system_calls_of(group):
    """A group's calls, those of the groups in it too."""
    listed = subprocess.run(["systemd-analyze", "syscall-filter"], check=True, capture_output=True,
                            text=True, env={"PATH": "/usr/bin:/bin", "SYSTEMD_COLORS": "0"}).stdout
    groups, name = {}, None
    for line in listed.splitlines():
        if line.startswith("@"):
            name = line.strip()
            groups[name] = []
        elif name and line.startswith("    ") and not line.strip().startswith("#"):
            groups[name].append(line.strip())

    def calls(word):
        return set().union(*map(calls, groups[word])) if word.startswith("@") else {word}

    return calls(group)


class ServiceUnits(AcceptanceCase):  # one test: its methods read one world
    paths = BOTH_PATHS

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        world = cls.world
        world.must("key", "add", "app/key", "--source", "app.key", "--path", cls.paths[0])
        # A key in a volume: libcryptsetup reads it, and takes its lock.
        subprocess.run(["truncate", "-s", "20M", world.path("volume")], check=True)
        subprocess.run(["cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", "--pbkdf",
                        "pbkdf2", "--pbkdf-force-iterations", "1000", world.path("volume"),
                        world.path("pw")], check=True, capture_output=True)
        world.must("backup", "app/volume", "--from", f"luks:{world.path('volume')}",
                   "--luks-unlock-file", "pw", "--path", cls.paths[0], "--password-file", "pw",
                   "--pin-file", "pin")
        # Of an application's own user, as keys are.
        os.chown(world.path("app.key"), 65534, 65534)

    def run_as(self, unit):
        """The unit's command with its file system, capabilities and network; what it called."""
        settings, world = settings_of(unit), self.world
        words = shlex.split(settings["ExecStart"])
        self.assertEqual(words[0], "/usr/bin/keyescrow")
        writable = [str(world.path("state")) if path == STATE else path
                    for path in settings["ReadWritePaths"].split()]
        self.assertEqual(settings["ProtectSystem"], "strict")
        self.assertEqual(settings["PrivateNetwork"], "yes")
        # The folder of the test may be on another file system than the root.
        mounts = ["mount --make-rprivate /", *(f"mount --bind {path} {path}"
                                               for path in [str(world.folder), *writable]),
                  *(f"mount -o remount,bind,ro {path}" for path in ("/", world.folder)),
                  f"cd {world.folder}", "! touch app.key 2>/dev/null"]
        capabilities = settings["CapabilityBoundingSet"].split()
        log = world.path("calls")
        inner = ["setpriv", "--no-new-privs", "--bounding-set",
                 ",".join(["-all"] + ["+" + c.removeprefix("CAP_").lower() for c in capabilities]),
                 str(world.binary), *words[1:]]
        # A sanitizer's leak check is a tracer itself, and one is enough.
        environment = dict(world.environment, ASAN_OPTIONS="detect_leaks=0")
        done = subprocess.run(
            ["unshare", "--mount", "--net", "sh", "-c", " && ".join([*mounts, 'exec "$@"']), "sh", *inner],
            cwd=world.folder, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=within(60), check=False)
        traced = subprocess.run(["strace", "-f", "-qq", "-o", log, "--", str(world.binary), *words[1:]],
                                cwd=world.folder, env=environment, stdin=subprocess.DEVNULL,
                                capture_output=True, text=True, timeout=within(60), check=False)
        self.assertEqual(done.returncode, traced.returncode, done.stderr + traced.stderr)
        return done, log.read_text()

    def test_each_runs_with_what_its_unit_leaves_it(self):
        for unit in SERVICES:
            with self.subTest(unit=unit):
                settings = settings_of(unit)
                allowed = set().union(*map(system_calls_of, settings["SystemCallFilter"].split()))
                done, calls = self.run_as(unit)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                called = set(re.findall(r"(?m)^\d+ +(?:<\.\.\. )?(\w+)(?:\(| resumed)", calls))
                self.assertGreater(len(called), 20)
                self.assertEqual(called - allowed, set())
                families = set(re.findall(r"socket(?:pair)?\((AF_\w+)", calls))
                self.assertLessEqual(families, set(settings["RestrictAddressFamilies"].split()))
                self.assertEqual(settings["MemoryDenyWriteExecute"], "yes")
                self.assertNotIn("PROT_WRITE|PROT_EXEC", calls)

    def test_none_is_called_exposed(self):
        for unit in SERVICES:
            done = subprocess.run(
                ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}",
                 UNITS / unit], capture_output=True, text=True, check=False,
                env={"PATH": "/usr/bin:/bin"})
            self.assertEqual(done.returncode, 0, done.stdout[-200:] + done.stderr)
