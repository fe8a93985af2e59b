"""State that is missing, read-only, newer, damaged, open to others, or on a full disk."""

import errno
import fcntl
import json
import os
import shutil
import sqlite3
import stat
import subprocess

from world import UNLOCK, AcceptanceCase

BACKUP = ("backup", "more/key", "--from", "app.key", "--path", "password & token:ops", *UNLOCK)


def small_disk(test, name, size="64k"):
    """A file system of its own at `name`; the test is skipped where none may be mounted."""
    folder = test.world.path(name)
    folder.mkdir()
    options = f"size={size},mode=0700"
    if test.world.user is not None:
        options += f",uid={test.world.user},gid={test.world.user}"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)],
                          capture_output=True, check=False)
    if done.returncode:
        folder.rmdir()
        test.skipTest("a small file system cannot be mounted here")
    test.addCleanup(folder.rmdir)
    test.addCleanup(subprocess.run, ["umount", "-l", str(folder)], check=True)
    return folder


def fill(path):
    """Writes until the file system is full."""
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 1024)
        except OSError:
            pass


class Uninitialised(AcceptanceCase):
    world_options = {"tpm": False}
    paths = None

    def test_every_command_that_needs_a_state_is_exit_8(self):
        self.world.write("app.key", os.urandom(32))
        for command in (("status",), ("list",), ("verify",), ("show", "app/key"), BACKUP,
                        ("restore", "app/key", "--to", "out.key"), ("audit", "log"),
                        ("audit", "checkpoint"), ("audit", "prove", "app/key"), ("token", "list"),
                        ("trust", "list"), ("trust", "add", "A" * 43), ("agent-key", "show"),
                        ("export", "app/key", "-o", "x.escrow"), ("status", "app/key")):
            with self.subTest(command=command):
                error = self.refused("not_initialized", 8, *command)
                self.assertIn("init", error["hint"])
        self.assertFalse(self.world.path("state").exists())
        done = self.world.run("status", "--nagios")
        self.assertEqual(done.status, 3, str(done))

    def test_empty_is_exit_8(self):
        world = type(self.world)(tpm=False, token=False)
        self.addCleanup(world.close)
        world.must("init")
        for command in ("status", "list", "verify"):
            done = world.run(command, "--json")
            self.assertEqual(done.status, 8, str(done))
        again = world.run("init", "--json")
        self.check_json(again, "already_initialized", 2)

    def test_a_user_without_a_state_folder(self):
        world = type(self.world)(tpm=False, token=False, ordinary_user=True)
        self.addCleanup(world.close)
        mine = {"KEYESCROW_STATE": None, "XDG_STATE_HOME": None}
        world.must("init", env=mine)
        for folder in (".local", ".local/state", ".local/state/keyescrow"):
            self.assertEqual(stat.S_IMODE(world.path(folder).stat().st_mode), 0o700, folder)
        world.must("agent-key", "show", env=mine)


class Store(AcceptanceCase):
    world_options = {"tpm": False, "ordinary_user": True}

    def setUp(self):
        """Each test ruins a copy."""
        self.copy = self.world.path("copy")
        shutil.copytree(self.world.path("state"), self.copy)
        self.world.give_to_user()
        self.addCleanup(shutil.rmtree, self.copy)
        self.on_copy = {"KEYESCROW_STATE": str(self.copy)}

    def on_bad_store(self, code, status, commands=None):
        for command in commands or (("restore", "app/key", "--to", "out.key", *UNLOCK), BACKUP):
            with self.subTest(command=command[0]):
                self.refused(code, status, *command, env=self.on_copy)

    def test_read_only(self):
        for path in self.copy.iterdir():
            path.chmod(0o400)
        self.copy.chmod(0o500)
        self.addCleanup(self.copy.chmod, 0o700)
        self.on_bad_store("store_read_only", 9)
        # What only reads still reads.
        for command in (("list",), ("show", "app/key"), ("status",), ("verify",)):
            self.succeeds(*command, env=self.on_copy)

    def test_of_a_newer_schema(self):
        database = sqlite3.connect(self.copy / "store.db")
        database.execute("PRAGMA user_version = 99")
        database.commit()
        database.close()
        self.world.give_to_user()
        self.on_bad_store("store_newer_schema", 9, (
            ("restore", "app/key", "--to", "out.key", *UNLOCK), BACKUP, ("list",), ("verify",)))

    def test_damaged(self):
        for name in ("store.db-wal", "store.db-shm"):  # they could hold all of its pages
            (self.copy / name).unlink(missing_ok=True)
        (self.copy / "store.db").write_bytes(b"this is not a database, but long enough" * 500)
        for command in (("list",), ("restore", "app/key", "--to", "out.key", *UNLOCK)):
            done = self.world.run(*command, "--json", env=self.on_copy)
            self.assertIn(done.status, (4, 9), str(done))
            self.check_json(done, json.loads(done.err)["error"]["code"], done.status)
        # A store that is empty, or gone: status and verify say the same of it.
        for spoil in (lambda: (self.copy / "store.db").write_bytes(b""),
                      (self.copy / "store.db").unlink):
            spoil()
            told = [self.world.run(command, "--json", "--no-input", env=self.on_copy)
                    for command in ("status", "verify", "list")]
            self.assertEqual({done.status for done in told}, {9}, str(told[1]))
            self.assertEqual(len({done.err for done in told}), 1, str(told[1]))

    def test_a_secret_that_cannot_be_read_now(self):
        """A disk that fails says nothing of the file: nobody is told to make a new agent, and nothing
        goes past the log."""
        seed = str(self.copy / "ed25519.seed")
        for call, error, words in (("openat", "EMFILE", "open files"), ("openat", "EIO", "disk errors"),
                                   ("read", "EIO", "disk errors")):
            self.world.launcher = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", seed, "-e",
                                   f"trace={call}", "-e", f"inject={call}:error={error}"]
            try:
                ran = [self.world.run(*command, env=self.on_copy) for command in (
                    ("audit", "checkpoint"), ("restore", "app/key", "--to", "out.key", *UNLOCK))]
            finally:
                self.world.launcher = []
            for done in ran:
                self.assertEqual(done.status, 9, str(done))
                self.assertIn(os.strerror(getattr(errno, error)).encode(), done.err)
                self.assertIn(words.encode(), done.err)
                self.assertNotIn(b"new agent", done.err)
            self.assertFalse(self.world.path("out.key").exists())

    def gave_the_key_without_the_log(self, done):
        self.assertEqual(done.status, 0, str(done))
        self.assertIn(b"going on without the log", done.err)
        self.assertEqual(self.world.path("out.key").read_bytes(), self.world.key)
        self.world.path("out.key").unlink()
        (event,) = self.world.folder.glob("keyescrow-restore-*.json")
        self.succeeds("import-event", event)
        event.unlink()

    def test_without_the_logs_key(self):
        """Nothing that opens a key hangs on it: what was escrowed is found, read and restored."""
        seed = self.copy / "ed25519.seed"
        for spoil in (lambda: seed.write_bytes(b""), lambda: seed.write_bytes(os.urandom(31)),
                      seed.unlink):
            spoil()
            self.world.give_to_user()
            self.on_bad_store("store_unavailable", 9, (BACKUP,))
            for command in (("list",), ("show", "app/key"), ("verify",), ("audit", "log")):
                self.succeeds(*command, env=self.on_copy)
            done = self.world.run("status", "--json", env=self.on_copy)
            self.assertEqual(done.status, 1, str(done))
            self.assertIn("log_key_unavailable", [f["rule"] for f in done.json()["findings"]])
            self.gave_the_key_without_the_log(self.world.run(
                "restore", "app/key", "--to", "out.key", *UNLOCK, env=self.on_copy))

    def test_of_another_logs_key(self):
        """The restore of 3 a.m. goes on; nothing else is signed with a key that nobody takes."""
        (self.copy / "ed25519.seed").write_bytes(os.urandom(32))
        self.world.give_to_user()
        self.on_bad_store("agent_key_unavailable", 5, (BACKUP,))
        self.assertIn(b"ed25519.seed is not the key of agent.json",
                      self.world.run("doctor", env=self.on_copy).out)
        done = self.world.run("status", "--json", env=self.on_copy)
        self.assertIn("log_key_unavailable", [f["rule"] for f in done.json()["findings"]])
        self.gave_the_key_without_the_log(self.world.run("restore", "app/key", "--to", "out.key",
                                                         *UNLOCK, env=self.on_copy))
        self.succeeds("verify", env=self.on_copy)
        self.verifies()

    def test_open_to_others(self):
        for name, mode in (("store.db", 0o644), ("ed25519.seed", 0o640), (".", 0o755)):
            path = self.copy / name
            path.chmod(mode)
            with self.subTest(name=name):
                self.on_bad_store("state_permissions", 9)
            path.chmod(0o700 if name == "." else 0o600)

    def test_on_a_full_disk(self):
        disk = small_disk(self, "full", "2m")
        shutil.copytree(self.copy, disk / "state")
        # The write-ahead log would offer the room of earlier commits to the next ones. Whoever has
        # the store open keeps its index, without which a full disk lets nobody read either.
        database = sqlite3.connect(disk / "state" / "store.db")
        self.addCleanup(database.close)
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.world.give_to_user()
        (disk / "state").chmod(0o700)
        fill(disk / "filler")
        on_disk = {"KEYESCROW_STATE": str(disk / "state")}
        before = self.succeeds("list", "--json", env=on_disk).out
        for command in (("restore", "app/key", "--to", "out.key", *UNLOCK), BACKUP):
            done = self.world.run(*command, "--json", env=on_disk)
            self.check_json(done, "store_full", 9)
            self.check_text(self.world.run(*command, env=on_disk), 9)
            self.assertFalse(self.world.path("out.key").exists(), "released without its log entry")
        self.assertEqual(self.succeeds("list", "--json", env=on_disk).out, before)
        (disk / "filler").unlink()
        self.succeeds("restore", "app/key", "--to", "out.key", *UNLOCK, env=on_disk)
        self.world.path("out.key").unlink()
        self.succeeds("verify", env=on_disk)

    def test_init_on_a_full_disk(self):
        disk = small_disk(self, "full", "16k")
        (disk / "filler").write_bytes(b"x" * 8192)
        on_disk = {"KEYESCROW_STATE": str(disk / "state")}
        done = self.world.run("init", "--json", env=on_disk)
        self.check_json(done, "store_full", 9)
        (disk / "filler").unlink()

    def test_an_older_revision_in_the_newer_ones_place(self):
        """Its signature is right, and it opens by what was taken from it: the row tells that it is not
        the one."""
        self.succeeds("path", "add", "app/key", "--path", "second=password & token:ops", *UNLOCK,
                      env=self.on_copy)
        database = sqlite3.connect(self.copy / "store.db")
        (trigger,) = database.execute(
            "SELECT sql FROM sqlite_master WHERE name = 'envelope_update'").fetchone()
        database.execute("DROP TRIGGER envelope_update")
        database.execute("UPDATE envelope SET bytes = (SELECT bytes FROM envelope WHERE revision = 1) "
                         "WHERE revision = 2")
        database.execute(trigger)
        database.commit()
        database.close()
        self.world.give_to_user()
        self.on_bad_store("store_damaged", 4, (
            ("restore", "app/key", "--to", "out.key", *UNLOCK), ("gate", "app/key"),
            ("recovery-sheet", "app/key", "-o", "sheet.txt"),
            ("path", "add", "app/key", "--path", "third=password & token:ops", *UNLOCK)))
        for command in (("drill", "app/key", *UNLOCK), ("verify",)):
            done = self.world.run(*command, "--json", env=self.on_copy)
            self.assertEqual(done.status, 4, str(done))

    def test_tampered_log_is_damage(self):
        database = sqlite3.connect(self.copy / "store.db")
        tables = [row[0] for row in database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table'")]
        for (trigger,) in database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {trigger}")
        table = next(name for name in tables if "entr" in name or name == "log")
        columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
        body = next(name for name in columns if name in ("bytes", "body", "line", "entry"))
        (line,) = database.execute(f"SELECT {body} FROM {table} WHERE seq = 1").fetchone()
        changed = bytes(line).replace(b'"success"', b'"failure"')
        self.assertNotEqual(changed, bytes(line))
        database.execute(f"UPDATE {table} SET {body} = ? WHERE seq = 1", (changed,))
        database.commit()
        database.close()
        self.world.give_to_user()
        done = self.world.run("verify", env=self.on_copy)
        self.assertEqual(done.status, 4, str(done))


class OtherMachine(AcceptanceCase):
    """Another machine on the same state, told by its boot id in the file `in-use`."""

    world_options = {"tpm": False}
    elsewhere = {"boot": "another boot", "host": "db2", "machine": "another machine", "pid": 4711}
    writing = (BACKUP, ("restore", "app/key", "--to", "out.key", *UNLOCK),
               ("export", "app/key", "-o", "x.escrow"), ("import", "app.escrow"),
               ("trust", "add", "A" * 43), ("token", "remove", "ops", "--yes"), ("list",))

    def setUp(self):
        self.in_use = self.world.path("state") / "in-use"
        self.in_use.write_text(json.dumps(self.elsewhere) + "\n")

    def test_is_told_while_one_works(self):
        with self.in_use.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            for command in self.writing:
                error = self.refused("store_busy", 9, *command)
                self.assertIn("process 4711 on the host db2", error["message"])
                self.assertEqual(error["action"], "check_system_state")
            # A file needs no state: it is restored, and the event is kept beside it.
            done = self.world.run("restore", "app.escrow", "--agent", self.world.thumbprint, "--to",
                                  "out.key", "--module", self.world.module, *UNLOCK, "--event-log",
                                  "event.json")
            self.assertEqual(done.status, 0, str(done))
            self.assertIn(b"warning: going on without the state", done.err)
            self.assertEqual(self.world.path("out.key").read_bytes(), self.world.key)
            self.world.path("out.key").unlink()
        self.assertIn(b"db2", self.succeeds("list").err)
        self.succeeds("import-event", "event.json")

    def test_is_told_afterwards_and_once(self):
        for command in (("list",), BACKUP):
            self.setUp()
            done = self.succeeds(*command)
            self.assertIn(b"warning: another machine used this state last", done.err)
            self.assertNotIn(b"warning: another", self.succeeds("list").err)
        self.setUp()
        self.assertIn(b"another machine used this state last", self.world.run("doctor").out)

    def test_commands_of_one_machine_share_it(self):
        """The first ones after a boot, all at once."""
        self.in_use.write_text(json.dumps(dict(self.elsewhere, machine="")) + "\n")
        commands = [self.world.start("list") for _ in range(8)]
        for command in commands:
            _, err = command.communicate(timeout=60)
            self.assertEqual(command.returncode, 0, err)
