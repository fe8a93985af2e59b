"""Completions in the shells themselves: names of keys, paths and tokens that stand in the store."""

import os
import pty
import select
import subprocess
import time

from world import AcceptanceCase, within


class Completions(AcceptanceCase):  # one test: its methods share a store
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        world = cls.world
        world.must("key", "add", "web/tls", "--source", "tls.key", "--path", "password & token:ops")
        folder = world.path("bin")
        folder.mkdir()
        (folder / "keyescrow").symlink_to(world.binary)
        cls.environment = {**world.environment, "PATH": f"{folder}:{world.environment['PATH']}",
                           "PS1": "READY> ", "TERM": "xterm", "INPUTRC": "/dev/null"}
        for shell in ("bash", "zsh", "fish"):
            world.write("completion." + shell, world.must("completion", shell).out)

    def typed(self, command, setup, line):
        """What stands on the line after TAB, in an interactive shell on a terminal."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(self.world.folder)
            os.execvpe(command[0], command, self.environment)
        said, deadline = b"", time.monotonic() + within(20)

        def until(wanted, text):
            nonlocal said
            begin = len(said)
            os.write(terminal, text.encode())
            while wanted not in said[begin:]:
                if not select.select([terminal], [], [], max(0, deadline - time.monotonic()))[0]:
                    return False
                said += os.read(terminal, 4096)
            return True

        self.assertTrue(until(b"SET\r\nUP", setup + "; printf 'SET\\nUP\\n'\n"), said)
        while b"READY> " not in said.split(b"SET\r\nUP")[-1]:
            self.assertTrue(select.select([terminal], [], [], within(20))[0], said)
            said += os.read(terminal, 4096)
        # A TAB with something typed behind it is a TAB: the shell answers first.
        os.write(terminal, line.encode() + b"\t")
        while select.select([terminal], [], [], within(1))[0]:
            said += os.read(terminal, 4096)
        found = until(b"#", "#")
        os.close(terminal)
        os.waitpid(pid, 0)
        self.assertTrue(found, said)
        return said.decode(errors="replace").split("SET\r\nUP")[-1]

    CASES = (("keyescrow restore ap", "restore app/key "), ("keyescrow status w", "status web/tls "),
             ("keyescrow restore app/key --via t", "--via token-ops "),
             ("keyescrow token show o", "token show ops "),
             ("keyescrow path remove app/key t", "app/key token-ops "),
             ("keyescrow what-if --lose token:o", "--lose token:ops "))

    def test_bash(self):
        for line, completed in self.CASES:
            said = self.typed(["bash", "--norc", "--noprofile", "-i"], "source ./completion.bash", line)
            self.assertIn(completed, said.replace("\x07", ""), line)

    def test_zsh(self):
        setup = "PS1='READY> '; autoload -U compinit; compinit -u -D; source ./completion.zsh; " \
                "zstyle ':completion:*' insert-tab false"
        for line, completed in self.CASES:
            said = self.typed(["zsh", "-f", "-i"], setup, line)
            self.assertIn(completed.rstrip(), said, line)

    def test_fish(self):
        for line, completed in self.CASES:
            done = subprocess.run(
                ["fish", "--no-config", "-c", f"source completion.fish; complete -C '{line}'"],
                env=self.environment, cwd=self.world.folder, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=within(60), check=False)
            self.assertIn(completed.split()[-1], [row.split("\t")[0] for row in
                                                  done.stdout.splitlines()], str(done))

    def names(self, *arguments, **options):
        done = self.world.run("completion-names", *arguments, **options)
        self.assertEqual((done.status, done.err), (0, b""), str(done))
        return done.out.decode().split()

    def test_names_are_read_quickly_and_never_fail(self):
        world = self.world
        self.assertEqual(self.names("keys"), ["app/key", "web/tls"])
        self.assertEqual(self.names("tokens"), ["ops"])
        self.assertEqual(self.names("paths", "app/key"), ["token-ops"])
        self.assertIn("token:ops", self.names("losses"))
        for arguments in (("paths",), ("paths", "no/key"), ("no-such-kind",)):
            self.assertEqual(self.names(*arguments), [])
        before = world.snapshot(but=())
        nowhere = {"KEYESCROW_STATE": str(world.path("nowhere")), "KEYESCROW_CONFIG": "/dev/null/x"}
        self.assertEqual(self.names("keys", env=nowhere), [])
        self.assertEqual(world.snapshot(but=()), before)
        # No TPM is asked: it is not there, and nothing waits for it.
        begin = time.monotonic()
        self.assertEqual(self.names("tokens", "--tpm", "swtpm:path=/nonexistent"), ["ops"])
        self.assertLess(time.monotonic() - begin, within(2))
        self.assertNotIn(b"completion-names", world.must("--help").out)
