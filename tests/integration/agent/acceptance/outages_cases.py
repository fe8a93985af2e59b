"""A TPM that is dead or hangs never blocks a restore by another path."""

import signal
import threading

from world import BOTH_PATHS, UNLOCK, AcceptanceCase, within

MAX_SECONDS = 30


class Outage(AcceptanceCase):
    paths = BOTH_PATHS

    def findings(self):
        done = self.succeeds("status", "--json")  # a warning; the keys comply
        return [f["rule"] for f in done.json()["findings"] if f["rule"] != "simulator"]

    def restores_within_limit(self):
        for arguments in (["--via", "token-ops"], []):
            done = self.restored("out.key", *arguments)
            self.assertLess(done.seconds, within(MAX_SECONDS), str(done))
            print("\nrestore %s: %.1f s" % (" ".join(arguments), done.seconds))
            self.assertEqual(self.findings(), ["checkpoint_signature_missing"])

    def test_killed(self):
        self.assertEqual(self.findings(), [])
        self.world.kill_tpm()
        self.restores_within_limit()
        self.world.start_tpm("tpm")
        self.restored("out.key", "--via", "token-ops")
        self.assertEqual(self.findings(), [], "the finding ends when the TPM signs again")
        self.succeeds("verify")
        self.restored("out.key", "--via", "tpm")

    def test_where_the_nth_thread_or_process_cannot_be_started(self):
        """As a limit on them does it (ulimit -u, TasksMax=): said or done without, no crash."""
        self.addCleanup(setattr, self.world, "launcher", self.world.launcher)
        restore = ("restore", "app/key", "--via", "token-ops", "--to", "out.key", *UNLOCK)
        num_restored = 0
        for words, statuses in ((restore, (0, 5)), (("doctor",), (0, 1)), (("verify",), (0, 1))):
            for n in range(1, 5):
                self.world.launcher = [
                    "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=clone3", "-e",
                    f"inject=clone3:error=EAGAIN:when={n}"]
                done = self.world.run(*words)
                self.assertIn(done.status, statuses, f"{n}: {done}")
                if words is restore and done.status == 0:
                    self.assertEqual(self.world.path("out.key").read_bytes(), self.world.key)
                    self.world.path("out.key").unlink()
                    num_restored += 1
        self.assertGreaterEqual(num_restored, 2)  # one of the four is the token's worker

    def test_stopped_before(self):
        self.world.tpm_process.send_signal(signal.SIGSTOP)
        self.addCleanup(self.world.tpm_process.send_signal, signal.SIGCONT)
        self.restores_within_limit()
        self.world.tpm_process.send_signal(signal.SIGCONT)
        self.restored("out.key", "--via", "token-ops")
        self.assertEqual(self.findings(), [])
        self.succeeds("verify")

    def test_stopped_in_mid_air(self):
        # While the restore runs: at each of these moments the TPM has answered some commands.
        self.addCleanup(self.world.tpm_process.send_signal, signal.SIGCONT)
        for delay in (0.005, 0.02, 0.05, 0.1, 0.3):
            for via in (["--via", "token-ops"], []):
                timer = threading.Timer(
                    delay, self.world.tpm_process.send_signal, [signal.SIGSTOP])
                timer.start()
                done = self.restored("out.key", *via)
                self.assertLess(done.seconds, within(MAX_SECONDS), str(done))
                timer.join()
                self.world.tpm_process.send_signal(signal.SIGCONT)
                # What a command in mid air made in the TPM is flushed by the kernel's resource
                # manager when the client is gone; a bare swtpm has none.
                for kind in ("-t", "-l", "-s"):
                    self.world.tpm_tool("tpm2_flushcontext", kind)
        self.restored("out.key", "--via", "token-ops")
        self.assertEqual(self.findings(), [])
        self.succeeds("verify")


class TpmFirst(AcceptanceCase):
    """The TPM's path stands first in the envelope: automatic choice must get past it."""

    paths = ("password & tpm", "password & token:ops")

    def test_hanging_tpm(self):
        self.world.tpm_process.send_signal(signal.SIGSTOP)
        self.addCleanup(self.world.tpm_process.send_signal, signal.SIGCONT)
        done = self.restored("out.key")
        self.assertLess(done.seconds, within(MAX_SECONDS), str(done))
        self.world.tpm_process.send_signal(signal.SIGCONT)
        self.restored("out.key")

    def test_dead_tpm(self):
        self.world.kill_tpm()
        done = self.restored("out.key")
        self.assertLess(done.seconds, within(MAX_SECONDS), str(done))
        self.world.start_tpm("tpm")
        self.restored("out.key")


