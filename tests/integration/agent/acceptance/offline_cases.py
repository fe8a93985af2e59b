"""At 3 a.m.: a copied binary in an empty folder, a file, a token and a password; the event merges later."""

import json
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import tempfile

from world import BOTH_PATHS, NOBODY, SECOND_DECODER, UNLOCK, AcceptanceCase, World


class Offline(AcceptanceCase):
    paths = BOTH_PATHS

    def setUp(self):
        """A folder with the binary, the file and the secrets; no HOME, no configuration."""
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="ka.", dir="/tmp"))
        self.addCleanup(shutil.rmtree, self.folder)
        for name in ("app.escrow", "pw", "pin", "wrong"):
            shutil.copy(self.world.path(name), self.folder)
        self.work = self.folder / "cwd"
        self.work.mkdir()
        shutil.copy(self.world.binary, self.folder / "keyescrow")
        self.secrets = ("--password-file", "../pw", "--pin-file", "../pin")

    def run_there(self, *arguments, prefix=(), env=None):
        environment = {"SOFTHSM2_CONF": self.world.environment["SOFTHSM2_CONF"], **(env or {})}
        done = subprocess.run([*prefix, "../keyescrow", *map(str, arguments)], cwd=self.work,
                              env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=120, check=False)
        return type("Done", (), {"status": done.returncode, "out": done.stdout, "err": done.stderr,
                                 "__str__": lambda self: repr(done)})()

    def restore(self, *more, to="out.key", **options):
        return self.run_there("restore", "../app.escrow", "--to", to, "--module", self.world.module,
                              "--agent", self.world.thumbprint, *self.secrets, *more, **options)

    def test_restores_and_its_event_merges_once(self):
        done = self.restore("--reason", "INC-4711: host db1 burnt down")
        self.assertEqual(done.status, 0, str(done))
        self.assertEqual((self.work / "out.key").read_bytes(), self.world.key)
        self.assertEqual(stat.S_IMODE((self.work / "out.key").stat().st_mode), 0o600)
        (event,) = self.work.glob("keyescrow-restore-*.json")
        self.assertEqual(sorted(os.listdir(self.work)), sorted(["out.key", event.name]))
        lines = [json.loads(line) for line in event.read_text().splitlines()]
        self.assertEqual([line["type"] for line in lines], ["restore.requested",
                                                            "restore.completed"])
        self.assertEqual(lines[0]["reason"], "INC-4711: host db1 burnt down")
        self.assertEqual(stat.S_IMODE(event.stat().st_mode), 0o600)
        first = self.succeeds("import-event", event, "--json").json()
        again = self.succeeds("import-event", event, "--json").json()
        self.assertEqual((first["num_added"], first["num_known"]), (2, 0), first)
        self.assertEqual((again["num_added"], again["num_known"]), (0, 2), again)
        log = self.succeeds("audit", "log", "--json").json()["entries"]
        ids = [line["id"] for line in lines]
        self.assertEqual([entry["id"] for entry in log if entry["id"] in ids], ids)
        self.assertIn("(imported from ", self.succeeds("audit", "log").out.decode())
        report = self.succeeds("audit", "report", "--json").json()
        marked = {release["reason"]: release["imported"] for release in report["releases"]}
        self.assertTrue(marked["INC-4711: host db1 burnt down"], marked)
        self.assertIn(b"release,,imported,", self.succeeds("audit", "report", "--csv").out)
        self.succeeds("audit", "report", "--html", "-o", "report.html")
        self.assertIn(b"nothing signed it before", self.world.path("report.html").read_bytes())
        for text in ("", "{}\n", "not an event\n", event.read_text().replace("restore", "rastore"),
                     event.read_text().replace("restore.completed", "factor.removed"),
                     event.read_text().replace("restore.requested", "restore.failed")):
            bent = self.world.write("bent.json", text)
            self.check_json(self.world.run("import-event", bent, "--json"), "log_damaged", 4)
        self.check_json(self.world.run("import-event", "no-such.json", "--json"),
                        "not_found", 8)

    def test_by_the_tpm_path(self):
        done = self.restore("--via", "tpm", "--tpm", self.world.tcti, "--event-log", "an event.json")
        self.assertEqual(done.status, 0, str(done))
        self.assertRegex(done.err, rb"import-event '.*an event\.json'\n")  # it can be pasted
        self.assertEqual((self.work / "out.key").read_bytes(), self.world.key)

    def test_show_verify_doctor(self):
        for command in (["show", "../app.escrow", "--module", self.world.module],
                        ["verify", "../app.escrow", "--agent", self.world.thumbprint]):
            done = self.run_there(*command)
            self.assertEqual(done.status, 0, str(done))
        done = self.run_there("doctor", "--module", self.world.module)
        self.assertIn(done.status, (0, 1), str(done))
        self.assertEqual(os.listdir(self.work), [])

    def test_a_failed_attempt_is_recorded_too(self):
        self.secrets = ("--password-file", "../wrong", "--pin-file", "../pin")
        done = self.restore("--json")
        self.check_json(done, "wrong_password", 3)
        (event,) = self.work.glob("keyescrow-restore-*.json")
        types = [json.loads(line)["type"] for line in event.read_text().splitlines()]
        self.assertEqual(types, ["restore.requested", "restore.failed"])
        self.assertEqual(os.listdir(self.work), [event.name])

    def test_a_command_that_failed_may_have_the_key(self):
        """No event says that nothing was released: the log gets a restore without an end."""
        done = self.restore(to="exec:cat >leak; false")
        self.check_text(done, 11)
        self.assertEqual((self.work / "leak").read_bytes(), self.world.key)
        (event,) = self.work.glob("keyescrow-restore-*.json")
        self.assertRegex(done.err, rb"warning: .*may have been released.* import-event \./" +
                         event.name.encode().replace(b".", rb"\.") + rb"\n")
        types = [json.loads(line)["type"] for line in event.read_text().splitlines()]
        self.assertEqual(types, ["restore.requested"])
        self.succeeds("import-event", event)
        items = self.world.run("verify", "--json").json()["items"]
        self.assertIn("release_without_outcome",
                      [finding["fault"] for item in items for finding in item["findings"]])

    def test_nothing_is_released_where_the_event_cannot_be_written(self):
        out = self.folder / "elsewhere"
        out.mkdir()
        for path in ("missing/folder/event.json", "/proc/event.json", "/dev/full", "."):
            with self.subTest(path=path):
                done = self.restore("--event-log", path, "--json", to=str(out / "out.key"))
                self.check_json(done, "event_log_unavailable", 9)
                self.assertEqual(os.listdir(out), [])
                self.check_text(self.restore("--event-log", path, to=str(out / "out.key")), 9)
        self.assertEqual(os.listdir(self.work), [])

    def test_an_event_file_that_exists_is_left_alone(self):
        (self.work / "event.json").write_text("somebody's\n")
        done = self.restore("--event-log", "event.json", "--json")
        self.check_json(done, "event_log_unavailable", 9)
        self.assertEqual((self.work / "event.json").read_text(), "somebody's\n")
        self.assertFalse((self.work / "out.key").exists())

    def test_nothing_is_released_in_a_read_only_folder(self):
        if os.geteuid() != 0:
            self.skipTest("needs root, to become an ordinary user")
        world = World(tpm=False, ordinary_user=True)
        self.addCleanup(world.close)
        world.escrow()
        read_only = world.path("read-only")
        read_only.mkdir(mode=0o555)
        out = world.path("out")
        out.mkdir(mode=0o700)
        os.chown(out, NOBODY, NOBODY)
        secrets = ("--password-file", "../pw", "--pin-file", "../pin")
        done = world.run("restore", "../app.escrow", "--to", "../out/out.key", "--module",
                         world.module, "--agent", world.thumbprint, *secrets, "--json",
                         cwd=read_only, env={"HOME": None, "XDG_CONFIG_HOME": None,
                                             "XDG_STATE_HOME": None, "KEYESCROW_STATE": None,
                                             "KEYESCROW_CONFIG": None})
        self.check_json(done, "event_log_unavailable", 9)
        self.assertEqual(os.listdir(out), [])


class SecondDecoder(AcceptanceCase):
    """Another program, written from the format's description, opens what the product wrote."""

    paths = BOTH_PATHS

    def open(self, *arguments):
        done = subprocess.run(
            [sys.executable, "-B", str(SECOND_DECODER / "decode.py"), "open", "app.escrow",
             "--trust=" + self.world.thumbprint, "--out", "decoded.key", "--password-file", "pw",
             *arguments],
            cwd=self.world.folder, env=self.world.environment, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=120, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        decoded = self.world.path("decoded.key")
        self.assertEqual(decoded.read_bytes(), self.world.key)
        decoded.unlink()

    def test_by_password_and_token(self):
        self.open("--path", "token-ops", "--token-module", self.world.module, "--token-label",
                  "ops", "--pin-file", "pin")

    def test_by_password_and_tpm(self):
        self.open("--path", "tpm", "--tpm", self.world.tcti)

    def test_pbkdf2(self):
        self.succeeds("backup", "other/key", "--from", "app.key", "--path", "password & token:ops",
                      "--kdf", "pbkdf2-sha512", *UNLOCK)
        self.world.path("app.escrow").unlink()
        self.succeeds("export", "other/key", "-o", "app.escrow")
        self.open("--path", "token-ops", "--token-module", self.world.module, "--token-label",
                  "ops", "--pin-file", "pin")
