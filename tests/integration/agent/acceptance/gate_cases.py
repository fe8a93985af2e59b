"""Drift, found without a password, and the gate that holds a service back."""

import contextlib
import json
import os
import pathlib
import re
import resource
import signal
import sqlite3
import subprocess
import time

from world import PASSWORD, UNLOCK, AcceptanceCase

UNITS = pathlib.Path(__file__).resolve().parents[4] / "agent/packaging/systemd"


def told(document):
    """The findings but that of the simulated token."""
    return [finding for finding in document["findings"] if finding["rule"] != "simulator"]


class DriftCase(AcceptanceCase):
    world_options = {"tpm": False}

    def setUp(self):
        super().setUp()
        if not getattr(self.world, "declared", False):
            self.succeeds("key", "add", "app/key", "--source", self.world.path("app.key"))
            self.world.declared = True

    def tearDown(self):
        self.world.path("app.key").unlink(missing_ok=True)  # whatever stands there, and whose
        self.world.write("app.key", self.world.key)
        super().tearDown()

    def findings(self, *arguments, **options):
        document = self.world.run("status", "app/key", "--json", *arguments, **options).json()
        self.in_use = document["keys"][0]["in_use"]
        return {finding["rule"]: finding for finding in told(document)}


class Drift(DriftCase):
    def test_the_escrowed_key_is_no_finding(self):
        self.assertEqual(self.findings(), {})
        self.assertEqual(self.in_use, "escrowed")
        self.succeeds("status")

    def test_another_key_in_use(self):
        for other in (os.urandom(32), self.world.key[:-1], self.world.key + b"\n", b""):
            self.world.write("app.key", other)
            found = self.findings()
            self.assertEqual(list(found), ["key_drift"])
            self.assertEqual(found["key_drift"]["severity"], "critical")
            self.assertIn("the key in use is not the escrowed one", found["key_drift"]["what"])
            self.assertEqual(self.in_use, "other")
            self.assertEqual(self.world.run("status").status, 1)

    def test_a_missing_source(self):
        self.world.path("app.key").unlink()
        found = self.findings()
        self.assertEqual(list(found), ["source_missing"])
        self.assertEqual(self.in_use, "missing")
        # The remedy works, and leaves nothing false behind.
        self.succeeds("restore", "app/key", *UNLOCK)
        self.assertEqual(self.findings(), {})

    def test_a_pipe_as_source_is_not_waited_for(self):
        self.world.path("app.key").unlink()
        os.mkfifo(self.world.path("app.key"), 0o600)
        begin = time.monotonic()
        self.assertEqual(list(self.findings()), ["source_unreadable"])
        self.assertLess(time.monotonic() - begin, 30)
        # A warning for status: a service does not start by what cannot be looked at.
        done = self.world.run("gate", "app/key", "--json")
        self.assertEqual((done.status, done.json()["refusals"][0]["rule"]), (7, "source_unreadable"))
        self.world.path("app.key").unlink()

    def test_a_source_that_others_can_read_now(self):
        self.world.path("app.key").chmod(0o644)
        found = self.findings()
        self.assertEqual(list(found), ["context-changed"])
        self.assertEqual(found["context-changed"]["severity"], "warning")
        self.assertIn("keyescrow backup app/key", found["context-changed"]["remedy"])
        self.world.path("app.key").chmod(0o400)  # less than before is no finding
        self.assertEqual(self.findings(), {})

    def test_a_source_of_another_owner(self):
        if os.geteuid() != 0:
            self.fail("this test gives a file to another user: run it as root")
        os.chown(self.world.path("app.key"), 65534, 65534)
        found = self.findings()
        self.assertEqual(list(found), ["context-changed"])
        self.assertIn("65534:65534", found["context-changed"]["what"])
        self.world.path("app.key").unlink()

    def test_a_new_backup_takes_the_new_key_and_context(self):
        self.succeeds("key", "add", "turned/key", "--source", self.world.path("turned.key"), "--path",
                      "password & token:ops")
        first, second = os.urandom(32), os.urandom(32)
        self.world.write("turned.key", first)
        self.succeeds("backup", "turned/key", *UNLOCK)
        self.world.write("turned.key", second, mode=0o640)
        status = lambda: self.world.run("status", "turned/key", "--json").json()
        self.assertEqual({f["rule"] for f in told(status())}, {"key_drift", "context-changed"})
        self.succeeds("backup", "turned/key", *UNLOCK)
        self.assertEqual(told(status()), [])
        # An older escrowed version is told as such, and the newest comes back by its remedy.
        self.world.write("turned.key", first, mode=0o640)
        self.assertIn("version 1", told(status())[0]["what"])
        self.assertEqual(status()["keys"][0]["in_use"], "older_version")
        self.succeeds("restore", "turned/key", "--replace", *UNLOCK)
        self.assertEqual([f["rule"] for f in told(status())], ["previous_generation"])
        self.succeeds("restore", "turned/key", "--to", self.world.path("turned.key"),
                      "--discard-previous", "--yes")
        self.assertEqual(told(status()), [])
        self.succeeds("key", "remove", "turned/key", "--yes")

    def test_a_command_is_run_only_when_it_is_asked_for(self):
        ran = self.world.path("ran")
        self.succeeds("key", "add", "made/key", "--source",
                      f"exec:touch {ran}; cat {self.world.path('made.key')}", "--path",
                      "password & token:ops")
        self.world.write("made.key", os.urandom(32))
        self.succeeds("backup", "made/key", *UNLOCK)
        ran.unlink()
        status = lambda *more: self.world.run("status", "made/key", "--json", *more).json()
        self.assertEqual(status()["keys"][0]["in_use"], "not_compared")
        gate = self.world.run("gate", "made/key", "--json")
        self.assertEqual((gate.status, [item["rule"] for item in gate.json()["refusals"]]),
                         (7, ["not_compared"]), str(gate))
        self.assertFalse(ran.exists())
        self.assertEqual(status("--exec-sources")["keys"][0]["in_use"], "escrowed")
        self.world.write("made.key", os.urandom(32))
        found = told(status("--exec-sources"))[0]
        self.assertEqual(found["rule"], "key_drift")
        self.assertIn("restore made/key --to SINK", found["remedy"])  # a command takes no key
        self.assertEqual(self.world.run("gate", "made/key").status, 7)
        self.succeeds("key", "remove", "made/key", "--yes")

    def test_no_fingerprint_leaves_the_store(self):
        """Neither key nor fingerprint stands in output or log."""
        database = sqlite3.connect(self.world.path("state/store.db"))
        rows = database.execute("SELECT mac FROM fingerprint").fetchall()
        entries = b"".join(bytes(row[0]) for row in database.execute("SELECT bytes FROM log_entry"))
        database.close()
        self.assertTrue(rows)
        mac_key = self.world.path("state/fingerprint.key").read_bytes()
        self.assertEqual(len(mac_key), 32)
        self.assertEqual(self.world.path("state/fingerprint.key").stat().st_mode & 0o777, 0o600)
        output = b"".join(self.world.run(*command).out for command in (
            ("status", "--json"), ("audit", "log", "--json"), ("show", "app/key", "--json"),
            ("status", "--prometheus"), ("audit", "log", "--json-lines")))
        import base64
        for secret in [mac_key] + [bytes(row[0]) for row in rows]:
            for text in (secret, secret.hex().encode(), base64.b64encode(secret).rstrip(b"="),
                         base64.urlsafe_b64encode(secret).rstrip(b"=")):
                self.assertNotIn(text, output)
                self.assertNotIn(text, entries)

    def test_a_lost_fingerprint_key_is_told_and_made_anew(self):
        path = self.world.path("state/fingerprint.key")
        kept = path.read_bytes()
        self.addCleanup(self.world.write, "state/fingerprint.key", kept)
        path.unlink()
        self.assertEqual(list(self.findings()), ["fingerprint_missing"])
        self.assertEqual(self.world.run("gate", "app/key").status, 7)
        self.world.write("state/fingerprint.key", os.urandom(32))
        self.assertEqual(list(self.findings()), ["fingerprint_missing"], "not a false drift")
        path.chmod(0o644)
        self.assertEqual(self.world.run("status").status, 9)
        self.world.write("state/fingerprint.key", kept)
        self.assertEqual(self.findings(), {})


class Gate(DriftCase):
    def gate(self, *arguments, **options):
        return self.world.run("gate", "app/key", *arguments, **options)

    def starts_nothing(self, code, status, *arguments):
        """Refused as a person and as a program, whose --json stands before the command."""
        self.check_text(self.gate("--quiet", *arguments), status)
        self.check_json(self.gate("--json", *arguments), code, status)

    def test_decides(self):
        self.assertEqual(self.succeeds("gate", "app/key").out, b"app/key version 1 complies\n")
        document = self.succeeds("gate", "app/key", "--json").json()
        self.assertEqual((document["schema"], document["decision"]), ("keyescrow/gate/1", "complies"))
        self.world.write("app.key", os.urandom(32))
        done = self.gate()
        self.check_text(done, 7)
        self.assertIn(b"the key in use is not the escrowed one", done.err)
        done = self.gate("--json")
        self.assertEqual((done.status, done.json()["decision"]), (7, "refused"))
        self.assertEqual(done.json()["refusals"][0]["rule"], "key_drift")
        self.assertEqual(self.world.run("gate", "no/key").status, 8)

    def test_starts_nothing_that_does_not_comply(self):
        self.world.write("app.key", os.urandom(32))
        self.starts_nothing("policy_refused", 7, "--", "touch", self.world.path("started"))
        self.assertFalse(self.world.path("started").exists())
        self.world.path("app.key").unlink()
        self.starts_nothing("policy_refused", 7, "--", "touch", self.world.path("started"))

    def test_the_command_gets_everything_as_it_was(self):
        """argv, environment, descriptors, folder, signals, limits and the pid are the caller's."""
        script = self.world.write("probe", "#!/usr/bin/python3\n" + r'''
import json, os, resource, signal, sys
fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))
fds = [fd for fd in fds if os.path.exists(f"/proc/self/fd/{fd}")]
with open("/proc/self/status") as file:
    status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
json.dump({"argv": sys.argv[1:], "environment": dict(os.environ), "fds": fds, "pid": os.getpid(),
           "cwd": os.getcwd(), "umask": status["Umask"],
           "signals": [status[k] for k in ("SigBlk", "SigIgn", "SigCgt")],
           "core": resource.getrlimit(resource.RLIMIT_CORE), "locked": status["VmLck"],
           "stdin": sys.stdin.read()}, sys.stdout)
''', mode=0o700)
        words = ("a b", "", "--", "-x", "--json", "ü\n")

        def before():
            resource.setrlimit(resource.RLIMIT_CORE, (4096, resource.getrlimit(resource.RLIMIT_CORE)[1]))
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
            os.umask(0o027)
            os.dup2(os.open("/dev/null", os.O_RDONLY), 7)

        outcomes = []
        for prefix in (("gate", "--quiet", "app/key", "--"), ()):
            command = self.world.command(*prefix) if prefix else []
            child = subprocess.Popen(
                command + [str(script), *words], cwd=self.world.folder, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=before, close_fds=False,
                # A sanitizer would forbid core dumps itself.
                env=dict(self.world.environment, PROBE="1", ASAN_OPTIONS="disable_coredump=0",
                         TSAN_OPTIONS="disable_coredump=0"))
            out, err = child.communicate(b"to the command")
            self.assertEqual(child.returncode, 0, err)
            outcome = json.loads(out)
            self.assertEqual(outcome.pop("pid"), child.pid)
            self.assertEqual(err, b"")
            outcomes.append(outcome)
        self.assertEqual(outcomes[0], outcomes[1])
        self.assertEqual(outcomes[0]["argv"], list(words))
        self.assertIn(7, outcomes[0]["fds"])

    def test_standard_streams_that_are_closed_stay_closed(self):
        done = subprocess.run(
            ["bash", "-c", f"exec {self.world.binary} gate --quiet app/key -- /bin/sh -c "
             "'test ! -e /proc/self/fd/0' <&-"], env=self.world.environment,
            cwd=self.world.folder, capture_output=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, b""))

    def test_a_signal_reaches_the_command(self):
        child = self.world.start("gate", "app/key", "--", "/bin/sh", "-c",
                                 "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep .05; done")
        self.assertEqual(child.stdout.readline(), b"ready\n")
        child.terminate()
        out, _ = child.communicate(timeout=30)
        self.assertEqual((out, child.returncode), (b"got\n", 3))

    def test_a_command_that_cannot_start(self):
        for word in ("no-such-program", "/nowhere/at/all", str(self.world.path("app.key")), "/tmp"):
            self.starts_nothing("usage", 2, "--override", "why", "--", word)

    def test_override_is_in_the_log_before_the_command_runs(self):
        self.world.write("app.key", os.urandom(32))
        done = self.gate("--override", "INC-1: moving", "--", "/bin/sh", "-c",
                         f'KEYESCROW_STATE="$KEYESCROW_STATE" {self.world.binary} audit log --json')
        self.assertEqual(done.status, 0, str(done))
        last = done.json()["entries"][-1]
        self.assertEqual((last["type"], last["key"]["name"], last["reason"]),
                         ("gate.overridden", "app/key", "key_drift: INC-1: moving"))
        found = self.findings()
        self.assertEqual(set(found), {"key_drift", "gate_overridden"})
        self.assertEqual(found["gate_overridden"]["severity"], "warning")
        self.world.write("app.key", self.world.key)
        self.assertEqual(set(self.findings()), {"gate_overridden"})  # for 7 days
        size = lambda: self.world.run("status", "--json").json()["log_size"]
        before = size()
        self.succeeds("gate", "app/key", "--override", "not needed", "--", "true")
        self.assertEqual(size(), before)
        for blank in ("  ", "\u00a0", "\u200b\u2060"):  # nobody would see a reason in the log
            self.assertEqual(self.gate("--override", blank, "--", "true").status, 2, repr(blank))
        def move(days):
            database = sqlite3.connect(self.world.path("state/store.db"))
            database.execute("UPDATE gate_override SET time = time + ? * 86400", (days,))
            database.commit()
            database.close()
        move(-8)
        self.assertEqual(self.findings(), {})
        done = self.world.run("verify", "--json")  # the log knows better
        self.assertEqual(done.status, 4, str(done))
        self.assertIn(b"override_unlogged", done.out)
        move(8)
        def excuse(reason):
            with contextlib.closing(sqlite3.connect(self.world.path("state/store.db"))) as database:
                (before,) = database.execute("SELECT reason FROM gate_override").fetchone()
                database.execute("UPDATE gate_override SET reason = ?", (reason,))
                database.commit()
            return before
        before = excuse("the auditor agreed")
        self.assertIn(b"override_unlogged", self.world.run("verify", "--json").out)
        excuse(before)
        self.verifies()

    def test_fails_closed(self):
        import shutil
        copy = self.world.path("copy")
        on_copy = {"KEYESCROW_STATE": str(copy)}
        started = self.world.path("started")

        def ruined(*statuses, seconds=60):
            begin = time.monotonic()
            for more in ((), ("--override", "all the same")):
                done = self.gate(*more, "--", "touch", str(started), env=on_copy)
                self.assertIn(done.status, statuses, str(done))
                self.assertTrue(done.err.splitlines()[-1].startswith(b"hint: "), str(done))
                self.assertFalse(started.exists())
            self.assertLess(time.monotonic() - begin, seconds)
            shutil.rmtree(copy)

        def sql(*statements):
            database = sqlite3.connect(copy / "store.db")
            for (name,) in database.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                database.execute(f"DROP TRIGGER {name}")
            for statement in statements:
                database.execute(statement)
            database.commit()
            database.close()

        fresh = lambda: shutil.copytree(self.world.path("state"), copy)
        fresh()
        (copy / "store.db").unlink()
        ruined(8, 9)
        fresh()
        for name in ("store.db-wal", "store.db-shm"):
            (copy / name).unlink(missing_ok=True)
        (copy / "store.db").write_bytes(b"no database, and long enough for one" * 1000)
        ruined(4, 9)
        fresh()
        (copy / "ed25519.seed").chmod(0o644)
        ruined(9)
        # The log's entry is another one, the checkpoint is signed by nobody, the envelope was edited.
        fresh()
        sql("UPDATE log_entry SET bytes = CAST(replace(CAST(bytes AS TEXT), 'success', 'failure') AS BLOB)")
        ruined(4)
        fresh()
        sql("UPDATE checkpoint SET note = substr(note, 1, instr(note, char(10) || char(10)) + 1)"
            " || char(8212) || ' other AAAAAAAA' || char(10)")
        ruined(4)
        fresh()
        sql("UPDATE envelope SET bytes = CAST(replace(CAST(bytes AS TEXT), 'A', 'B') AS BLOB)")
        ruined(4)
        # Another process holds the store.
        fresh()
        held = sqlite3.connect(copy / "store.db", isolation_level=None)
        held.execute("PRAGMA locking_mode = EXCLUSIVE")
        held.execute("BEGIN EXCLUSIVE")
        held.execute("UPDATE meta SET value = value")
        self.addCleanup(held.close)
        ruined(9, seconds=60)

    def test_an_undeclared_key_is_compared_with_the_file_of_its_backup(self):
        self.world.write("plain.key", os.urandom(32))
        self.succeeds("backup", "plain/key", "--from", "plain.key", "--path", "password & token:ops",
                      *UNLOCK)
        self.succeeds("gate", "plain/key", "--", "true")
        status = lambda: self.world.run("status", "plain/key", "--json").json()
        self.assertEqual((told(status()), status()["keys"][0]["in_use"]), ([], "escrowed"))
        self.world.write("plain.key", os.urandom(32))
        done = self.world.run("gate", "plain/key", "--json")
        self.assertEqual((done.status, [f["rule"] for f in done.json()["refusals"]]),
                         (7, ["key_drift"]))
        # Status says so too: a warning, since nobody declared that the key lives there.
        (found,) = told(status())
        self.assertEqual((found["rule"], found["severity"]), ("key_drift", "warning"))
        self.assertIn("the key in use is not the escrowed one", found["what"])
        self.assertIn(b"warning=2 ", self.world.run("status", "plain/key", "--nagios").out)
        # Its remedies work as they are written: without a declaration and without --path.
        path = self.world.path("plain.key")
        self.assertIn(f"'keyescrow backup plain/key --from {path}'", found["remedy"])
        self.succeeds("backup", "plain/key", "--from", path, *UNLOCK)
        self.assertEqual(told(status()), [])
        paths = status()["keys"][0]["paths"]
        self.assertEqual([p["factors"] for p in paths], ["token:ops & password"])
        path.unlink()  # it may have been a passing copy
        self.assertEqual((told(status()), status()["keys"][0]["in_use"]), ([], "missing"))
        done = self.world.run("gate", "plain/key", "--json")
        self.assertEqual((done.status, [f["rule"] for f in done.json()["refusals"]]),
                         (7, ["source_missing"]))
        # A declaration without paths: the bare backup that findings ask for.
        self.world.write("plain.key", os.urandom(32))
        self.succeeds("key", "add", "plain/key", "--source", path)
        (found,) = told(status())
        self.assertEqual((found["rule"], found["severity"]), ("key_drift", "critical"))
        self.assertIn("'keyescrow backup plain/key'", found["remedy"])
        self.succeeds("backup", "plain/key", *UNLOCK)
        self.assertEqual(told(status()), [])
        self.succeeds("key", "remove", "plain/key", "--yes")
        self.succeeds("backup", "piped/key", "--from", "-", "--path", "password & token:ops", *UNLOCK,
                      input=os.urandom(32))
        done = self.world.run("gate", "piped/key", "--json")
        self.assertEqual((done.status, done.json()["refusals"][0]["rule"]), (7, "not_compared"))

    def test_touches_no_token(self):
        self.succeeds("gate", "app/key", "--", "true",
                      env={"SOFTHSM2_CONF": str(self.world.path("no-token.conf"))})


class GateWithTpm(AcceptanceCase):
    paths = ("password & token:ops", "password & tpm")

    def test_needs_no_tpm(self):
        self.succeeds("gate", "app/key", "--", "true")
        self.world.kill_tpm()
        begin = time.monotonic()
        self.succeeds("gate", "app/key", "--", "true")
        self.assertLess(time.monotonic() - begin, 30)

    def tearDown(self):
        pass  # the TPM is gone


class SystemdUnits(AcceptanceCase):
    """The drop-ins as they are shipped: systemd parses them, and their lines are run."""

    world_options = {"tpm": False}

    @staticmethod
    def lines(unit, name):
        text = (UNITS / unit).read_text()
        return [line.split("=", 1)[1] for line in text.splitlines()
                if line.startswith(name + "=") and line != name + "="]

    def verify(self, unit):
        """systemd-analyze on a service with the drop-in, its paths put to files that are here."""
        folder = self.world.path("units")
        (folder / "app.service.d").mkdir(parents=True, exist_ok=True)
        local = lambda text: text.replace("/usr/bin/keyescrow", str(self.world.binary)).replace(
            "/usr/sbin/app", "/bin/true")
        (folder / "app.service").write_text("[Unit]\nDescription=app\n[Service]\nExecStart=/bin/true\n")
        (folder / "app.service.d" / unit).write_text(local((UNITS / unit).read_text()))
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(folder / "app.service")],
                              capture_output=True, text=True, check=False,
                              env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{folder}:"})
        (folder / "app.service.d" / unit).unlink()
        mine = [line for line in done.stderr.splitlines() if "app.service" in line or unit in line]
        self.assertEqual((done.returncode, mine), (0, []), done.stderr)

    def run_line(self, line, **options):
        words = line.lstrip("+").split()
        self.assertEqual(words[0], "/usr/bin/keyescrow")
        words = [{"db/main": "app/key", "app/main": "app/key"}.get(word, word) for word in words[1:]]
        words = [str(self.world.path("service")) if word == "/usr/sbin/app" else word
                 for word in words]
        return self.world.run(*words, **options)

    def check_lines(self):
        self.world.write("service", "#!/bin/sh\necho started \"$@\"\n", mode=0o700)
        (pre,) = self.lines("keyescrow-gate.conf", "ExecStartPre")
        (start,) = self.lines("keyescrow-gate-exec.conf", "ExecStart")
        self.assertTrue(pre.startswith("+"))
        self.assertEqual(self.run_line(pre).status, 0)
        done = self.run_line(start)
        self.assertEqual((done.status, done.out), (0, b"started --foreground\n"), str(done))
        self.world.write("app.key", os.urandom(32))
        for line in (pre, start):
            done = self.run_line(line)
            self.assertEqual((done.status, done.out), (7, b""), str(done))
            self.assertIn(b"hint: ", done.err)
        self.world.write("app.key", self.world.key)

    def test_drop_ins(self):
        self.verify("keyescrow-gate.conf")
        self.verify("keyescrow-gate-exec.conf")
        self.assertEqual(self.lines("keyescrow-gate-exec.conf", "RestartPreventExitStatus"), ["7"])
        self.check_lines()

    def test_as_an_ordinary_user(self):
        world = self.world
        type(self).world = type(world)(tpm=False, ordinary_user=True)
        self.addCleanup(setattr, type(self), "world", world)
        self.addCleanup(self.world.close)
        self.world.escrow()
        self.world.give_to_user()
        self.check_lines()


class Generated(AcceptanceCase):
    """backup --generate: a key is in use only once it can be recovered."""

    world_options = {"tpm": True}
    paths = ("password & token:ops",)

    def make(self, *arguments, **options):
        return self.world.run("backup", "made/key", "--generate", "32", "--to", "made.key",
                              "--password-file", "pw", "--json", *arguments, **options)

    def test_is_not_handed_over_before_a_portable_path_is_proven(self):
        for number, arguments in enumerate((
                ("--path", "password & token:ops"),  # no PIN: nothing proven
                ("--path", "password & token:ops", "--path", "password & tpm"),
                ("--path", "password & token:ops", "--pin-file", "pin", "--prove", "none")), 1):
            done = self.make(*arguments)
            self.assertEqual(done.status, 1, str(done))
            self.assertIs(done.json()["delivered"], False)
            self.assertFalse(self.world.path("made.key").exists())
            (finding,) = [f for f in done.json()["findings"] if "not handed over" in f]
            self.assertIn("keyescrow restore made/key --to made.key", finding)
            self.assertEqual(done.json()["key"]["version"], number)
        # The way out that the finding names.
        self.succeeds("restore", "made/key", "--to", "made.key", "--via", "token-ops", *UNLOCK)
        self.assertEqual(len(self.world.path("made.key").read_bytes()), 32)
        self.world.path("made.key").unlink()

    def test_its_owner_is_known_from_the_start(self):
        made = self.world.path("made.key")
        done = self.make("--path", "password & token:ops", "--pin-file", "pin")
        self.assertIs(done.json()["delivered"], True, str(done))
        self.addCleanup(made.unlink)
        self.succeeds("key", "add", "made/key", "--source", str(made))
        self.addCleanup(self.world.must, "key", "remove", "made/key", "--yes")

        def told():
            document = self.world.run("status", "made/key", "--json").json()
            return [f["what"] for f in document["findings"] if f["rule"] == "context-changed"]

        self.assertEqual(told(), [])
        made.chmod(0o644)
        self.assertIn("is open to others now", told()[0])
        os.chown(made, 65534, 65534)
        self.assertIn("now belongs to 65534:65534", told()[0])

    def test_killed_at_any_time_it_is_escrowed_or_nowhere(self):
        arguments = ("--path", "password & token:ops", "--pin-file", "pin")
        begin = time.monotonic()
        self.assertIs(self.make(*arguments).json()["delivered"], True)
        longest = (time.monotonic() - begin) * 1.1
        self.world.path("made.key").unlink()
        delivered = 0
        for run in range(20):
            child = self.world.start("backup", "made/key", "--generate", "32", "--to", "made.key",
                                     "--password-file", "pw", *arguments)
            time.sleep(longest * (run + 1) / 20)
            child.kill()
            child.communicate()
            if self.world.path("made.key").exists():
                delivered += 1
                key = self.world.path("made.key").read_bytes()
                self.succeeds("restore", "made/key", "--to", "again.key", "--via", "token-ops", *UNLOCK)
                self.assertEqual(self.world.path("again.key").read_bytes(), key)
                self.world.path("again.key").unlink()
                self.world.path("made.key").unlink()
            for left in self.world.folder.glob("*.keyescrow-tmp*"):
                left.unlink()
        print(f"\n20 makers killed within {longest:.2f} s; {delivered} had handed the key over")
