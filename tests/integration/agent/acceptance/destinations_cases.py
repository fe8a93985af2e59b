"""Destinations that are a folder, a link, not writable, full, or hold another key; names."""

import json
import os
import resource
import shutil
import signal
import stat
import time

from state_cases import fill, small_disk
import world as worlds
from world import TEMPORARY, UNLOCK, AcceptanceCase, build_folder, within

RESTORE = ("restore", "app/key", *UNLOCK)


class Destination(AcceptanceCase):
    world_options = {"tpm": False, "ordinary_user": True}

    def test_a_folder(self):
        self.world.path("folder").mkdir()
        self.addCleanup(self.world.path("folder").rmdir)
        self.refused("destination_is_folder", 11, *RESTORE, "--to", "folder")
        done = self.world.run(*RESTORE, "--to", "folder/", "--json")
        self.assertEqual(done.status, 11, str(done))

    def test_a_symlink(self):
        target = self.world.write("target", b"precious")
        for name, to in (("link", "target"), ("dangling", "no-such"), ("dot", ".")):
            link = self.world.path(name)
            link.symlink_to(to)
            self.refused("destination_is_symlink", 11, *RESTORE, "--to", name)
            self.refused("destination_is_symlink", 11, *RESTORE, "--to", name, "--replace",
                         num_runs=1)
            link.unlink()
        self.assertEqual(target.read_bytes(), b"precious")
        target.unlink()

    def test_a_key_that_others_may_read(self):
        """Its file system keeps no modes, or an empty file stood there: done, and said."""
        self.world.write("open.key", b"", mode=0o644)
        self.addCleanup(self.world.path("open.key").unlink)
        done = self.succeeds(*RESTORE, "--to", "open.key", "--json").json()
        self.assertIn("others on this host may read open.key (mode 0644)",
                      " ".join(done["findings"]))
        self.world.path("open.key").chmod(0o600)
        self.assertEqual(self.succeeds(*RESTORE, "--to", "open.key", "--json").json()["findings"], [])

    def test_not_writable(self):
        folder = self.world.path("locked")
        folder.mkdir(mode=0o555)
        folder.chmod(0o555)
        self.addCleanup(folder.rmdir)
        self.world.give_to_user()
        folder.chmod(0o555)
        self.refused("destination_unwritable", 11, *RESTORE, "--to", "locked/out.key")
        self.refused("destination_unwritable", 11, *RESTORE, "--to", "/etc/keyescrow-test.key")
        self.refused("destination_unwritable", 11, *RESTORE, "--to", "no/such/folder/out.key")
        self.refused("destination_unwritable", 11, *RESTORE, "--to", "/proc/out.key")

    def test_not_a_regular_file(self):
        self.refused("destination_not_regular", 11, *RESTORE, "--to", "/dev/full")
        os.mkfifo(self.world.path("pipe"))
        self.refused("destination_not_regular", 11, *RESTORE, "--to", "pipe")
        self.world.path("pipe").unlink()

    def test_among_the_agents_own_files(self):
        """The store is the only copy of every envelope: no key takes its place."""
        self.world.path("link").symlink_to("state")
        self.addCleanup(self.world.path("link").unlink)
        made = ("--generate", "32", *UNLOCK, "--to", "state/new.key")
        for words in ((*RESTORE, "--replace", "--to", "state/store.db"),
                      (*RESTORE, "--replace", "--to", "link/store.db"),
                      (*RESTORE, "--to", self.world.path("state/new.key")),
                      ("backup", "more/key", "--path", "password & token:ops", *made),
                      ("rotate", "app/key", *made)):
            self.refused("usage", 2, *words, num_runs=1)
        self.assertFalse(self.world.path("state/new.key").exists())

    def test_another_key(self):
        self.world.write("other.key", b"another key of 27 bytes ...")
        self.refused("destination_other_key", 12, *RESTORE, "--to", "other.key")
        self.succeeds(*RESTORE, "--to", "other.key", "--replace")
        self.assertEqual(self.world.path("other.key").read_bytes(), self.world.key)
        previous = self.world.path("other.key.keyescrow-previous")
        self.assertEqual(previous.read_bytes(), b"another key of 27 bytes ...")
        self.assertEqual(stat.S_IMODE(previous.stat().st_mode), 0o600)
        self.assertIn(b"keyescrow-previous", self.world.run("status").out)
        # The same bytes are done; and what was put aside can be removed.
        again = self.succeeds(*RESTORE, "--to", "other.key", "--json").json()
        self.assertTrue(again["already_same"])
        # From another folder the same file is meant, and no other of its name.
        status = self.world.run("status", "--json", cwd="/").json()
        self.assertIn(str(previous), json.dumps(status))
        self.refused("not_found", 8, *RESTORE, "--to", "other.key", "--discard-previous", "--yes",
                     cwd="/", num_runs=1)
        # Nobody escrowed it: it is not removed by --yes alone.
        self.refused("usage", 2, *RESTORE, "--to", "./other.key", "--discard-previous", "--yes")
        self.succeeds(*RESTORE, "--to", "./other.key", "--discard-previous", "--confirm", "app/key")
        self.assertFalse(previous.exists())
        self.world.write("other.key", b"a third key of 27 bytes ...")
        self.succeeds(*RESTORE, "--to", "other.key", "--replace")
        previous.unlink()
        done = self.succeeds(*RESTORE, "--to", str(self.world.path("other.key")),
                             "--discard-previous", "--yes", "--json").json()
        self.assertFalse(done["was_there"])
        self.assertNotIn(b"keyescrow-previous", self.world.run("status").out)
        self.world.path("other.key").unlink()

    def test_the_new_key_is_on_the_disk_before_the_old_one_is_put_aside(self):
        """A disk that takes no more often says so only when a file is synced."""
        folder = self.world.path("ordered")
        folder.mkdir()
        if self.world.user is not None:
            os.chown(folder, self.world.user, self.world.user)
        self.addCleanup(shutil.rmtree, folder)
        self.world.write("ordered/out.key", b"another key of 27 bytes ...")
        record = self.world.write("ordered.log", b"")
        self.addCleanup(record.unlink)
        shim = build_folder(worlds.BINARY) / "simulators/libdisk_shim.so"
        done = self.world.run(*RESTORE, "--to", "ordered/out.key", "--replace", env={
            "LD_PRELOAD": str(shim), "DISK_SHIM_ROOT": str(folder), "DISK_SHIM_LOG": str(record)})
        self.assertEqual(done.status, 0, str(done))
        steps = [json.loads(line) for line in record.read_text().splitlines()]
        aside = next(index for index, step in enumerate(steps)
                     if "keyescrow-previous" in json.dumps(step))
        self.assertIn("sync", [step["op"] for step in steps[:aside]], steps)

    def test_no_document_takes_the_place_of_a_key(self):
        world = self.world
        copy = world.write("in-use.key", world.key)
        receipt = world.write("second.escrow.receipt", b"no receipt")
        backup = ("backup", "app/key", "--from", "in-use.key", "--path", "password & token:ops",
                  *UNLOCK)
        for words in ((*backup, "-o", "in-use.key"), ("export", "app/key", "-o", "in-use.key"),
                      ("export", "app/key", "-o", "second.escrow"),
                      ("audit", "export", "-o", "in-use.key"),
                      ("agent-key", "export", "-o", "in-use.key"),
                      ("audit", "report", "-o", "in-use.key"),
                      ("recovery-sheet", "app/key", "-o", "in-use.key")):
            with self.subTest(words=words):
                self.refused("destination_other_key", 12, *words, num_runs=1)
        metrics = world.write("in-use.prom", world.key)
        self.check_text(world.run("audit", "report", "--html", "-o", "in-use.key"), 12)
        self.check_text(world.run("status", "--prometheus", "-o", "in-use.prom"), 12)
        self.assertEqual((copy.read_bytes(), metrics.read_bytes()), (world.key, world.key))
        metrics.unlink()
        # What keyescrow wrote there itself is renewed.
        receipt.unlink()
        for _ in range(2):
            self.succeeds("export", "app/key", "-o", "mine.escrow")
            self.succeeds("audit", "export", "-o", "mine.tar")
            for form in ("html", "csv"):
                self.succeeds("audit", "report", "--" + form, "-o", "mine." + form)
            self.succeeds("audit", "report", "--json", "-o", "mine.json")
            self.succeeds("agent-key", "export", "-o", "mine.pub")
            for name in ("mine.sheet.html", "mine.sheet.txt"):
                self.succeeds("recovery-sheet", "app/key", "-o", name)
            world.run("status", "--prometheus", "-o", "mine.prom")
            self.assertGreater(world.path("mine.prom").stat().st_size, 0)
        # Another host's envelope may be the only one.
        other = world.path("mine.escrow").read_bytes()
        world.write("theirs.escrow", other.replace(b'"signature":"', b'"signature":"AA'))
        self.refused("destination_other_key", 12, "export", "app/key", "-o", "theirs.escrow",
                     num_runs=1)
        for path in (copy, *world.folder.glob("mine.*"), world.path("theirs.escrow")):
            path.unlink()

    def test_a_key_that_comes_before_a_document_stays(self):
        """It comes after the look at the place, while the export waits for the folder."""
        folder = self.world.path("late")
        folder.mkdir()
        if self.world.user is not None:
            os.chown(folder, self.world.user, self.world.user)
        self.addCleanup(shutil.rmtree, folder)
        calls = self.world.write("calls", b"")
        self.addCleanup(calls.unlink)
        self.world.launcher = ["strace", "-f", "-o", str(calls), "-P", str(folder), "-e",
                               "trace=flock", "-e", "inject=flock:delay_enter=4000000:when=2"]
        try:
            child = self.world.start("export", "app/key", "-o", "late/out", "--json")
        finally:
            self.world.launcher = []
        deadline = time.monotonic() + within(60)
        while "flock(" not in calls.read_text():
            self.assertLess(time.monotonic(), deadline, "the place was not looked at")
            time.sleep(0.01)
        time.sleep(1)
        key = self.world.write("late/out", self.world.key)
        out, err = child.communicate(timeout=within(60))
        self.assertEqual(child.returncode, 12, out + err)
        self.assertEqual(key.read_bytes(), self.world.key)
        self.assertEqual(os.listdir(folder), ["out"])

    def test_a_key_that_is_written_meanwhile(self):
        """What another program writes between the look at the old key and the new one's rename is
        not replaced: it would be put aside nowhere."""
        old, theirs = b"another key of 27 bytes ...", b"a third key, of 29 bytes ...."
        target = self.world.write("busy.key", old)
        self.world.launcher = ["strace", "-f", "-o", "/dev/null", "-e", "trace=fsync", "-e",
                               "inject=fsync:delay_exit=4000000:when=1"]
        try:
            child = self.world.start(*RESTORE, "--to", "busy.key", "--replace", "--json")
        finally:
            self.world.launcher = []
        staged = self.world.path(f".busy.key{TEMPORARY}")
        deadline = time.monotonic() + within(60)
        while not staged.exists() or staged.stat().st_size != len(self.world.key):
            self.assertLess(time.monotonic(), deadline, "the key was not staged")
            time.sleep(0.01)
        target.write_bytes(theirs)
        out, err = child.communicate(timeout=within(60))
        self.assertEqual(child.returncode, 12, out + err)
        self.assertEqual(json.loads(err)["error"]["code"], "destination_other_key")
        self.assertEqual(target.read_bytes(), theirs)
        previous = self.world.path("busy.key.keyescrow-previous")
        self.assertEqual(previous.read_bytes(), old)
        previous.unlink()
        target.unlink()

    def test_a_full_disk(self):
        disk = small_disk(self, "full")
        fill(disk / "filler")
        self.refused("destination_full", 11, *RESTORE, "--to", "full/out.key")
        self.assertEqual(sorted(os.listdir(disk)), ["filler"])

    def test_a_copy_that_finds_no_room(self):
        """The key is escrowed all the same, which is said, and a new one that went nowhere is told."""
        disk = small_disk(self, "tight")
        fill(disk / "filler")
        os.truncate(disk / "filler", (disk / "filler").stat().st_size - 4096)
        backup = ("backup", "app/tight", "--path", "password & token:ops", *UNLOCK, "-o",
                  "tight/a.escrow")
        done = self.world.run(*backup, "--generate", "32", "--to", "tight.key", "--json")
        hint = self.check_json(done, "destination_full", 11)["hint"]
        for words in ("escrowed as version 1", "keyescrow export app/tight -o tight/a.escrow",
                      "keyescrow restore app/tight --to tight.key"):
            self.assertIn(words, hint)
        self.assertEqual(sorted(os.listdir(disk)), ["filler"])
        self.assertFalse(self.world.path("tight.key").exists())
        self.succeeds("restore", "app/tight", "--to", "tight.key", *UNLOCK)
        self.world.path("tight.key").unlink()

    def test_a_limit_on_the_size_of_files(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))

        elsewhere = {"KEYESCROW_STATE": str(self.world.path("nowhere"))}
        stateless = ("restore", "app.escrow", "--module", self.world.module, "--agent",
                     self.world.thumbprint, *UNLOCK, "--to", "out.key")
        self.refused("destination_full", 11, *stateless, env=elsewhere, before=limit)
        self.succeeds(*stateless, env=elsewhere)
        self.world.path("out.key").unlink()

    def test_what_a_command_inherits(self):
        def inherit():
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            for fd, name in ((7, "pw"), (8, "pin")):
                os.dup2(os.open(self.world.path(name), os.O_RDONLY), fd)

        command = "exec:cat > got; ls -l /proc/self/fd > fds; grep SigIgn /proc/self/status > ignored"
        self.succeeds("restore", "app/key", "--password-fd", "7", "--pin-fd", "8", "--to", command,
                      before=inherit, pass_fds=(7, 8))
        self.assertEqual(self.world.path("got").read_bytes(), self.world.key)
        fds = self.world.path("fds").read_text()
        self.assertNotIn("/pw\n", fds)
        self.assertNotIn("/pin\n", fds)
        ignored = int(self.world.path("ignored").read_text().split()[1], 16)
        self.assertEqual(ignored & (1 << (signal.SIGXFSZ - 1) | 1 << (signal.SIGPIPE - 1)), 0)
        for name in ("got", "fds", "ignored"):
            self.world.path(name).unlink()

    def test_closed_and_full_standard_output(self):
        with open("/dev/full", "wb") as full:
            done = self.world.run(*RESTORE, "--to", "-", stdout=full)
        self.assertEqual(done.status, 11, str(done))
        self.assertIn(b"error: ", done.err)
        done = self.world.run(*RESTORE, "--to", "-", before=lambda: os.close(1))
        self.assertEqual(done.status, 11, str(done))
        for words in (("status", "--json"), ("list",)):
            self.assertEqual(self.world.run(*words, before=lambda: os.close(1)).status, 11)
        with open("/dev/full", "wb") as full:  # a monitor's own exit statuses: unknown
            self.assertEqual(self.world.run("status", "--nagios", stdout=full).status, 3)
        done = self.succeeds(*RESTORE, "--to", "-")
        self.assertEqual(done.out, self.world.key)

    def test_a_terminal_gets_no_key(self):
        done = self.world.run_on_terminal(*RESTORE, "--to", "-", answers=[])
        self.assertEqual(done.status, 2, str(done))
        self.assertNotIn(self.world.key, done.out)

    def test_no_destination(self):
        self.refused("usage", 2, *RESTORE)

    def test_file_names(self):
        for name in ("a b.key", "-dash.key", "..key", "uml\u00e4ut.key", "new\nline.key", "n" * 200,
                     "quote'\"$(x).key", "file:colon"):
            sink = "./" + name
            with self.subTest(name=name):
                self.succeeds(*RESTORE, "--to", sink)
                self.assertEqual(self.world.path(name).read_bytes(), self.world.key)
                self.world.path(name).unlink()
        self.succeeds(*RESTORE, "--to", "file:plain.key")
        self.world.path("plain.key").unlink()
        self.refused("destination_unwritable", 11, *RESTORE, "--to", "n" * 300)
        self.refused("destination_unwritable", 11, *RESTORE, "--to", "d/" * 3000 + "n", num_runs=1)

    def test_key_names(self):
        bad = ("/lead", "trail/", "a//b", "../up", "a/../b", ".", "..", "a b", "a\nb", "a\tb",
               "n" * 200, "k/" * 70 + "k", "\u00e4", "a|b", "*", "", "s" * 65)
        for name in bad:
            with self.subTest(name=name):
                done = self.world.run("backup", name, "--from", "app.key", "--path",
                                      "password & token:ops", *UNLOCK, "--json")
                self.assertEqual(done.status, 2, str(done))
        self.refused("invalid_name", 2, "backup", "a b", "--from", "app.key", "--path",
                     "password & token:ops", *UNLOCK)
        for name in ("a.b-c_d", "x/y.z/1", "s" * 64):
            with self.subTest(name=name):
                self.succeeds("backup", name, "--from", "app.key", "--path", "password & token:ops",
                              *UNLOCK)
                self.succeeds("restore", name, "--to", "named.key", *UNLOCK)
                self.world.path("named.key").unlink()

    def test_sources(self):
        backup = ("backup", "src/key", "--path", "password & token:ops", *UNLOCK)
        self.refused("source_unreadable", 2, *backup, "--from", "no-such-file")
        self.refused("source_unreadable", 2, *backup, "--from", ".", num_runs=1)
        self.world.write("empty.key", b"")
        self.refused("source_size", 2, *backup, "--from", "empty.key")
        self.world.write("huge.key", b"x" * ((1 << 20) + 1))
        self.refused("source_size", 2, *backup, "--from", "huge.key")
        self.refused("source_command", 2, *backup, "--from", "exec:false")
        self.refused("key_not_found", 8, "show", "src/key")


