"""Where secrets come from: files that others can read, closed streams, nobody to ask, low limits."""

import os
import resource

from world import PASSWORD, PIN, UNLOCK, AcceptanceCase, World, within

RESTORE = ("restore", "app/key", "--to", "out.key")


class Secret(AcceptanceCase):
    world_options = {"tpm": False}

    def test_files_that_others_can_read(self):
        for mode in (0o644, 0o640, 0o660, 0o604, 0o620, 0o602):
            with self.subTest(mode=oct(mode)):
                self.world.write("open-pw", PASSWORD + "\n", mode)
                self.world.write("open-pin", PIN + "\n", mode)
                error = self.refused("secret_file_unsafe", 2, *RESTORE, "--password-file",
                                     "open-pw", "--pin-file", "pin", num_runs=1)
                self.assertIn("chmod", error["hint"])
                self.refused("secret_file_unsafe", 2, *RESTORE, "--password-file", "pw",
                             "--pin-file", "open-pin", num_runs=1)
        self.refused("secret_file_unsafe", 2, *RESTORE, "--password-file", "open-pw", "--pin-file",
                     "pin")
        self.refused("secret_file_unsafe", 2, *RESTORE, "--password-file", ".", "--pin-file", "pin",
                     num_runs=1)

    def test_files_that_are_missing_or_empty(self):
        self.world.write("empty", b"")
        self.refused("secret_source_unreadable", 2, *RESTORE, "--password-file", "empty",
                     "--pin-file", "pin")
        self.refused("secret_source_unreadable", 2, *RESTORE, "--password-file", "no-such",
                     "--pin-file", "pin")
        self.refused("secret_source_unreadable", 2, *RESTORE, "--password-fd", "77", "--pin-file",
                     "pin")

    def test_standard_input(self):
        self.restored_with("--password-file", "-", "--pin-file", "pin",
                           input=(PASSWORD + "\nrest").encode())
        self.restored_with("--pin-file", "-", "--password-file", "pw", input=(PIN + "\n").encode())
        self.refused("usage", 2, *RESTORE, "--password-file", "-", "--pin-file", "-", input=b"x\n")

    def restored_with(self, *arguments, **options):
        self.succeeds(*RESTORE, *arguments, **options)
        self.assertEqual(self.world.path("out.key").read_bytes(), self.world.key)
        self.world.path("out.key").unlink()

    def test_closed_standard_streams(self):
        close = lambda *fds: (lambda: [os.close(fd) for fd in fds])
        self.refused("secret_source_unreadable", 2, *RESTORE, "--password-file", "-", "--pin-file",
                     "pin", stdin=None, before=close(0))
        self.refused("secret_source_unreadable", 2, *RESTORE, "--password-file", "-", "--pin-file",
                     "pin", input=b"")
        self.restored_with(*UNLOCK, stdin=None, before=close(0))
        self.restored_with(*UNLOCK, stdin=None, before=close(0, 1, 2))  # the store is not 1 or 2
        done = self.world.run("list", before=close(1))
        self.assertNotEqual(done.status, 70, str(done))
        done = self.world.run("backup", "-", before=close(2))
        self.assertEqual(done.status, 2, str(done))

    def test_a_source_on_closed_standard_input(self):
        self.refused("source_size", 2, "backup", "in/key", "--from", "-", "--path",
                     "password & token:ops", *UNLOCK, stdin=None, before=lambda: os.close(0))

    def test_nobody_to_ask(self):
        # The world's commands run in a session of their own, without a terminal.
        error = self.refused("secret_source_missing", 2, *RESTORE)
        self.assertIn("--password-file", error["hint"])
        self.refused("secret_source_missing", 2, *RESTORE, "--no-input")
        error = self.refused("secret_source_missing", 2, *RESTORE, "--password-file", "pw")
        self.assertIn("--pin-file", error["hint"])

    def test_no_input_on_a_terminal(self):
        done = self.world.run_on_terminal(*RESTORE, "--no-input", answers=[])
        self.assertEqual(done.status, 2, str(done))
        self.assertIn(b"--password-file", done.out)

    def test_passwords_that_cannot_be(self):
        for password in (b"\xff\xfe broken utf-8", b"x" * 128, b"x" * 5000):
            with self.subTest(password=password[:8]):
                self.world.write("odd", password + b"\n")
                done = self.world.run(*RESTORE, "--password-file", "odd", "--pin-file", "pin",
                                      "--json")
                self.assertIn(done.status, (2, 3), str(done))
                self.assertNotIn(password[:8], done.err)
        self.world.write("weak", b"password\n")
        self.refused("password_weak", 7, "backup", "weak/key", "--from", "app.key", "--path",
                     "password & token:ops", "--password-file", "weak", "--pin-file", "pin")

    def test_secrets_are_never_printed(self):
        for arguments in (("--trace",), ("--json", "--trace"), ()):
            done = self.world.run(*RESTORE, *UNLOCK, *arguments)
            self.assertEqual(done.status, 0, str(done))
            for secret in (PASSWORD.encode(), PIN.encode(), self.world.key,
                           self.world.key.hex().encode()):
                self.assertNotIn(secret, done.out + done.err)
            self.world.path("out.key").unlink()
        log = self.succeeds("audit", "log", "--json").out
        for secret in (PASSWORD.encode(), PIN.encode(), self.world.key.hex().encode()):
            self.assertNotIn(secret, log)


class LowMemlock(AcceptanceCase):
    """`ulimit -l 0` as an ordinary user: said, not worked around."""

    world_options = {"tpm": False, "ordinary_user": True}

    def setUp(self):
        if within(1) > 1:
            self.skipTest("a sanitizer lets no memory be locked, and says that it was")

    @staticmethod
    def limit():
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))

    def test_nothing_is_released(self):
        error = self.refused("memory_lock_limit", 2, *RESTORE, *UNLOCK, before=self.limit)
        self.assertRegex(error["message"] + error["hint"], r"memlock|MEMLOCK|ulimit -l")
        self.refused("memory_lock_limit", 2, "backup", "low/key", "--from", "app.key", "--path",
                     "password & token:ops", *UNLOCK, before=self.limit)

    def test_enough_for_the_agent_and_not_for_the_tokens_worker(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (4096, 4096))

        error = self.refused("memory_lock_limit", 2, *RESTORE, *UNLOCK, before=limit)
        self.assertRegex(error["message"] + error["hint"], r"memlock|MEMLOCK|ulimit -l")

    def test_doctor_says_so(self):
        done = self.world.run("doctor", "--json", before=self.limit)
        self.assertEqual(done.status, 1, str(done))
        bad = [check for check in done.json()["checks"] if check["area"] == "memory"]
        self.assertNotEqual(bad[0]["outcome"], "good", bad)

    def test_init(self):
        world = World(tpm=False, token=False, ordinary_user=True)
        self.addCleanup(world.close)
        done = world.run("init", "--json", before=self.limit)
        self.check_json(done, "memory_lock_limit", 2)
        self.assertFalse(world.path("state").exists())
