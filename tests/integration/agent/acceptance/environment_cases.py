"""What the machine around it lacks or limits: modes of files, locks, renames, room to write."""

import glob
import os
import resource
import subprocess
import threading
import time

from world import BOTH_PATHS, UNLOCK, AcceptanceCase, within

RESTORE = ("restore", "app/key", *UNLOCK)


def without_modes(test, name):
    """A file system at `name` that shows every file to everybody and lets each chmod succeed, as
    vfat, exfat and cifs do; the test is skipped where none may be mounted."""
    behind, folder = test.world.path(name + ".behind"), test.world.path(name)
    for path in (behind, folder):
        path.mkdir()
        test.addCleanup(path.rmdir)
    test.world.give_to_user()
    if not os.path.exists("/dev/fuse") or os.geteuid() != 0:
        test.skipTest("no file system can be mounted here")
    process = subprocess.Popen(
        ["bindfs", "-f", "--chmod-ignore", "--chown-ignore", "-p", "0755", "-u",
         str(test.world.user), "-o", "allow_other", behind, folder],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    test.world.processes.append(process)
    test.addCleanup(subprocess.run, ["umount", "-l", folder], check=True)
    while not os.path.ismount(folder):
        test.assertIsNone(process.poll(), "bindfs ended")
        time.sleep(0.02)
    return folder


def empty(folder):
    for path in folder.iterdir():
        path.unlink()


class Environment(AcceptanceCase):
    world_options = {"tpm": False, "ordinary_user": True}

    def fail_call(self, *faults):
        """From here on these system calls fail: "flock:error=ENOLCK"."""
        calls = ",".join(fault.partition(":")[0] for fault in faults)
        self.world.launcher = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + calls]
        for fault in faults:
            self.world.launcher += ["-e", "inject=" + fault]
        self.addCleanup(self.world.launcher.clear)

    def test_a_file_system_without_modes(self):
        """A key that others may read there is told of, also where it was made."""
        disk = without_modes(self, "stick")
        self.addCleanup(empty, disk)
        told = "others on this host may read "
        done = self.succeeds(*RESTORE, "--to", "stick/out.key", "--json").json()
        self.assertIn(told + "stick/out.key", " ".join(done["findings"]))
        done = self.succeeds("backup", "stick/key", "--generate", "32", "--path",
                             "password & token:ops", *UNLOCK, "--to", "stick/new.key", "--json")
        self.assertIn(told + "stick/new.key", " ".join(done.json()["findings"]))
        self.succeeds("export", "app/key", "-o", "stick/app.escrow")
        self.succeeds("verify", "stick/app.escrow")
        done = self.world.run("init", "--state", "stick/state", "--json")
        self.assertIn("keeps no modes", self.check_json(done, "state_permissions", 9)["hint"])
        (disk / "state").rmdir()

    def test_an_outcome_that_cannot_be_written_is_no_refusal(self):
        self.fail_call("fdatasync:error=EIO")
        done = self.world.run(
            "restore", "app.escrow", "--module", self.world.module, "--agent",
            self.world.thumbprint, *UNLOCK, "--to", "out.key",
            env={"KEYESCROW_STATE": str(self.world.path("nowhere"))})
        self.assertEqual(done.status, 1, str(done))
        self.assertIn(b"the key was delivered", done.err)
        self.assertNotIn(b"nothing is released", done.err)
        self.assertEqual(self.world.path("out.key").read_bytes(), self.world.key)
        self.world.path("out.key").unlink()

    def test_a_limit_on_the_size_of_files_is_no_full_disk(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))

        error = self.refused("store_full", 9, *RESTORE, "--to", "out.key", before=limit)
        self.assertIn("ulimit -f", error["hint"])

    def test_a_filter_that_knows_no_exclusive_rename(self):
        self.fail_call("renameat2:error=EPERM")
        self.restored("out.key")

    def test_a_file_system_that_cannot_sync(self):
        self.fail_call("fsync:error=ENOSYS")
        error = self.refused("destination_unwritable", 11, *RESTORE, "--to", "out.key")
        self.assertIn("on another one", error["hint"])

    def test_a_disk_that_fails_is_no_question_of_permissions(self):
        self.fail_call("fsync:error=EIO")
        error = self.refused("destination_unwritable", 11, *RESTORE, "--to", "out.key")
        self.assertIn("kernel's log", error["hint"])

    def test_a_key_that_is_written_while_it_is_read(self):
        """What is read of it would be neither the old key nor the new one."""
        key = self.world.write("growing.key", b"k" * 32)
        self.addCleanup(key.unlink)
        done = threading.Event()

        def grow():
            while not done.wait(0.02):
                with open(key, "ab") as file:
                    file.write(b"k")

        self.world.launcher = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", str(key), "-e",
                               "trace=read", "-e", "inject=read:delay_exit=500000:when=1"]
        self.addCleanup(self.world.launcher.clear)
        writer = threading.Thread(target=grow)
        writer.start()
        try:
            backup = self.world.run("backup", "growing/key", "--from", "growing.key", "--path",
                                    "password & token:ops", *UNLOCK, "--json")
        finally:
            done.set()
            writer.join()
        error = self.check_json(backup, "source_unreadable", 2)
        self.assertIn("while it was read", error["message"])
        self.assertEqual(self.world.run("show", "growing/key").status, 8)

    def test_no_proc(self):
        """A chroot without /proc: the worker is started from /proc/self/exe."""
        if os.geteuid() != 0:
            self.skipTest("no name space of mounts can be made here")
        if within(1) > 1:
            self.skipTest("a sanitizer's leak check, and its options, are in /proc")
        self.world.launcher = ["unshare", "-m", "sh", "-c",
                               'mount -t tmpfs none /proc && exec "$@"', "sh"]
        self.addCleanup(self.world.launcher.clear)
        error = self.refused("module_failed", 5, *RESTORE, "--to", "out.key")
        self.assertIn("mount /proc", error["hint"])

    def test_a_state_on_a_file_system_without_locks(self):
        self.fail_call("flock:error=ENOLCK")
        error = self.check_json(self.world.run("init", "--state", "other", "--json"),
                                "store_unavailable", 9)
        self.assertIn("local file system", error["hint"])


def clock(offset):
    """The environment of a command whose clock is `offset` from the true one."""
    library = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")[0]
    return {"LD_PRELOAD": library, "FAKETIME": offset, "DONT_FAKE_MONOTONIC": "1"}


class SetRight(AcceptanceCase):
    """A clock that was ahead for a while."""

    paths = BOTH_PATHS

    def verifies(self):
        document = self.world.run("verify", "--json").json()
        self.assertEqual(document["num_bad"], 0, document)
        faults = {finding["fault"] for item in document["items"] for finding in item["findings"]}
        self.assertLessEqual(faults, {"clock_backward", "missing_p256", "anchor_missing"}, document)

    def test_what_fails_after_a_proof_of_later_is_broken(self):
        ahead = clock("+2h")
        self.succeeds("drill", "app/key", "--via", "tpm", *UNLOCK, env=ahead)
        self.world.tpm_tool("tpm2_clear")
        self.assertEqual(self.world.run("drill", "app/key", "--via", "tpm", *UNLOCK).status, 10)
        document = self.world.run("status", "app/key", "--json").json()
        (path,) = [path for path in document["keys"][0]["paths"] if path["id"] == "tpm"]
        self.assertEqual(path["condition"], "broken", document)
        self.verifies()
        # Nor does another failure change that.
        self.assertEqual(self.world.run("drill", "app/key", "--via", "tpm", *UNLOCK).status, 10)
        self.verifies()


class SetBack(AcceptanceCase):
    world_options = {"tpm": False}

    def verifies(self):
        """The clock went back before each command read it, which is a finding and no damage."""
        document = self.world.run("verify", "--json").json()
        self.assertEqual(document["num_bad"], 0, document)
        faults = {finding["fault"] for item in document["items"] for finding in item["findings"]}
        self.assertEqual(faults, {"clock_backward"}, document)

    def test_a_clock_that_is_set_back_within_a_command(self):
        """What comes later in a command is of no earlier time: nobody would believe the log."""
        back = clock("+0 x-10000")  # by 10000 s in each second from the command's start on
        for _ in range(3):
            self.succeeds("backup", "back/key", "--from", "app.key", "--path",
                          "password & token:ops", *UNLOCK, env=back)
        self.succeeds("drill", "back/key", *UNLOCK, env=back)
        self.verifies()
