"""A TPM that fails at the n-th command of a use case, for every n until a run has no n-th command.

Every kind of fault is a test. What each leaves behind in a bare swtpm is what no program could
flush: `unflushable` says which.
"""

import itertools
import json

from faulty_world import (FLUSH, GET_CAPABILITY, MAKES_A_HANDLE, START_SESSION, UNSEAL,
                          FaultCase)
from world import UNLOCK

IO_ERROR = "a000a"  # TSS2_TCTI_RC_IO_ERROR
FAILURE, OBJECT_MEMORY, SESSION_MEMORY, RETRY, AUTH_FAIL = "101", "902", "903", "922", "98e"
DEADLINE_S = 5
BUSY = (0x922,)


def unflushable(action, run, n):
    """Why something may be left in the TPM after this fault; "" if nothing may."""
    kind, _, value = action.partition(":")
    if kind in ("error", "drop") or (kind == "oversize" and int(value) > 4000):
        return "the transport is dead"
    command = run.tpm[n - 1][0]
    if command in MAKES_A_HANDLE and (
            kind in ("rewrite", "truncate", "oversize") or (kind == "flip" and int(value) < 112)):
        return "the handle never came"
    if command == FLUSH and kind == "refuse" and int(value, 16) not in BUSY:
        return "the TPM refuses to flush"
    return ""


class Kinds:
    """The tests of one scenario; a scenario says what is run and what must hold."""

    refusals = (FAILURE, OBJECT_MEMORY, SESSION_MEMORY, RETRY)
    bits = (3, 47, 79, 111, 173, 301)
    sizes = ("truncate:1", "shorten:1", "oversize:1", "oversize:5000", "pad:3")

    def each(self, *actions):
        """Runs the scenario with each action at its n-th command, for every n."""
        num_runs = num_failed = 0
        left = []
        for action in actions:
            for n in itertools.count(1):
                run, reason = self.once(action, n)
                if run is None:
                    break
                num_runs += 1
                num_failed += run.status != 0
                if reason:
                    left.append("%s at %d (%s)" % (action, n, reason))
            self.assertGreater(n, 1, "the command never asked the TPM")
        print("\n%s: %d faults, %d runs failed; left in the bare TPM: %s" % (
            self.id(), num_runs, num_failed, ", ".join(left) or "nothing"))

    def once(self, action, n):
        """One faulty run and all that must hold after it; (None, "") if it had no n-th command."""
        self.begin()
        counter = self.world.lockout_counter()
        before = self.snapshot()
        run = self.world.traced(*self.command, tpm=f"{n}={action}")
        reached = len(run.tpm) >= n
        with self.subTest(fault=f"{n}={action}"):
            self.ends_well(run, *self.named)
            self.no_new_file(before, run, *self.outputs)
            handles = self.world.left_in_tpm()
            reason = unflushable(action, run, n) if reached else ""
            if not reason:
                self.assertEqual([hex(handle) for handle in handles], [], str(run))
            self.world.flush()
            spent = self.world.lockout_counter() - counter
            self.assertLessEqual(spent, self.may_spend(action, run, n), str(run))
            if not reached:
                self.assertEqual(run.status, 0, str(run))
            self.holds(run)
            self.verifies_after(run)
            self.again(run)
            return (run if reached else None), (reason if handles else "")
        return (run if reached else None), ""

    def begin(self):
        self.world.begin_again(*self.outputs)

    def may_spend(self, action, run, n):
        return 0

    def holds(self, run):
        """What must be true of the outputs."""

    def again(self, run):
        """The next run, with healthy devices, succeeds."""
        done = self.world.run(*self.command)
        self.assertEqual(done.status, 0, f"{done}\nafter\n{run}")

    def test_error(self):
        self.each("error:" + IO_ERROR, "drop:" + IO_ERROR)

    def test_refuse(self):
        self.each(*("refuse:" + code for code in self.refusals))

    def test_rewrite(self):
        self.each(*("rewrite:" + code for code in (FAILURE, AUTH_FAIL)))

    def test_flip(self):
        """Of the tag, the size, the response code, the handle or the parameters' size, the rest."""
        self.each(*(f"flip:{bit}" for bit in self.bits))

    def test_size(self):
        self.each(*self.sizes)

    def test_restart(self):
        self.each("restart")


class TpmInit(Kinds, FaultCase):
    refusals = (FAILURE, OBJECT_MEMORY, RETRY)
    bits = (79, 111, 173)
    sizes = ("truncate:1", "pad:3")
    command = ("init", "--json")
    named = ("init",)
    outputs = ()

    def begin(self):
        self.world.begin_again(clear=True)

    def holds(self, run):
        """Either there is no state, or it is whole: its agent key signs, its storage key seals."""
        self.assertEqual(self.world.path("state").exists(), run.status == 0, str(run))
        if run.status == 0:
            self.is_usable(run)

    def is_usable(self, run):
        self.add_token_and_back_up("app/key")
        super().verifies_after(run)
        status = self.world.must("status", "--json").json()
        self.assertEqual({f["rule"] for f in status["findings"]} - {"simulator"}, set(), str(run))

    def verifies_after(self, run):
        """There may be no state yet."""

    def again(self, run):
        if run.status != 0:
            super().again(run)
            self.is_usable(run)


class TpmBackup(Kinds, FaultCase):
    refusals = (FAILURE, OBJECT_MEMORY, RETRY)
    bits = (79, 111, 173)
    sizes = ("truncate:1", "pad:3")
    command = ("backup", "new/key", "--from", "app.key", "--path", "tpm", "--path", "token:ops",
               "--pin-file", "pin", "-o", "new.escrow", "--json")
    named = ("backup",)
    outputs = ("new.escrow", "new.escrow.receipt")

    @classmethod
    def prepare(cls):
        cls.escrowed()

    def holds(self, run):
        """Escrowed means: the token's path opens, and the TPM's where it counts as proven."""
        if run.status != 0:
            return
        paths = {path["id"]: path for path in json.loads(run.done.out)["paths"]}
        proven = [name for name, path in paths.items() if path["proven"]]
        self.assertIn("token-ops", proven, str(run))
        for via in proven:
            done = self.world.run("restore", "new/key", "--via", via, "--to", "out.key",
                                  "--pin-file", "pin")
            self.assertEqual(done.status, 0, f"{done}\nafter\n{run}")
            self.holds_the_key_or_nothing("out.key", run)
        done = self.world.run("verify", "new.escrow")
        self.assertEqual(done.status, 0, f"{done}\nafter\n{run}")


class TpmRestore(Kinds, FaultCase):
    command = ("restore", "app/key", "--via", "tpm", "--to", "out.key", "--json")
    named = ("restore",)
    outputs = ("out.key",)

    @classmethod
    def prepare(cls):
        cls.escrowed()

    def holds(self, run):
        self.holds_the_key_or_nothing("out.key", run)


class TpmRestoreByToken(TpmRestore):
    """The TPM only signs the log: whatever it does, the key comes back."""

    command = ("restore", "app/key", "--via", "token-ops", "--to", "out.key", "--pin-file", "pin",
               "--json")

    def holds(self, run):
        self.assertEqual(run.status, 0, str(run))
        super().holds(run)


class TpmPassword(Kinds, FaultCase):
    """A path that takes a password: no try of the TPM's is spent that need not be."""

    command = ("restore", "pw/key", "--via", "tpm", "--to", "out.key", *UNLOCK, "--json")
    named = ("restore",)
    outputs = ("out.key",)

    @classmethod
    def prepare(cls):
        cls.escrowed()
        cls.world.must("backup", "pw/key", "--from", "app.key", "--path", "password & tpm",
                       "--path", "password & token:ops", *UNLOCK)

    def holds(self, run):
        self.holds_the_key_or_nothing("out.key", run)

    def test_a_refusal_that_was_changed_is_not_repeated(self):
        wrong = ["wrong" if word == "pw" else word for word in self.command]
        self.begin()
        refused = self.world.traced(*wrong)
        self.assertEqual(refused.error()["code"], "tpm_wrong_auth", str(refused))
        n = [code for code, _ in refused.tpm].index(UNSEAL) + 1
        for code in ("128", "908"):
            self.begin()
            counter = self.world.lockout_counter()
            run = self.world.traced(*wrong, tpm=f"{n}=rewrite:{code}")
            self.assertEqual(self.world.lockout_counter() - counter, 1, str(run))
            self.assertIn(run.error()["code"], ("tpm_response", "tpm_pcr_mismatch"), str(run))
        # What every TPM answers after a boot is believed, once.
        self.begin()
        counter = self.world.lockout_counter()
        run = self.world.traced(*wrong, tpm=f"{n}=rewrite:{RETRY}")
        self.assertEqual(self.world.lockout_counter() - counter, 2, str(run))
        self.assertEqual(run.error()["code"], "tpm_wrong_auth", str(run))

    def may_spend(self, action, run, n):
        """A flipped bit in the session's nonce or handle makes the right password a wrong one; that
        shows at the Unseal alone, and once."""
        flipped = action.startswith("flip") and (
            len(run.tpm) >= n and run.tpm[n - 1][0] == START_SESSION)
        unseals = [i for i, (code, _) in enumerate(run.tpm) if code == UNSEAL]
        refused = [i for i in unseals if run.tpm[i][1] == int(AUTH_FAIL, 16)]
        told = refused + [n - 1] * (action.startswith("rewrite") and n - 1 in unseals)
        for index in told:
            self.assertEqual(index, unseals[-1], f"a refused authorisation was repeated\n{run}")
        if run.status == 3:
            self.assertEqual(run.error()["code"], "tpm_wrong_auth", str(run))
            self.assertTrue(told, str(run))
        return len(refused) if flipped else 0

    def again(self, run):
        """The quick path stands for it; the password's is run at the end."""
        done = self.world.run("restore", "app/key", "--via", "tpm", "--to", "out.key")
        self.assertEqual(done.status, 0, f"{done}\nafter\n{run}")

    def each(self, *actions):
        super().each(*actions)
        self.begin()
        self.succeeds(*self.command)

    def test_rewrite(self):
        """Whatever the bus says, a password is called wrong only where the TPM was given it."""
        self.each("rewrite:" + AUTH_FAIL)

    def test_flip(self):
        self.each("flip:301")

    test_error = test_refuse = test_size = None  # as without a password


class TpmDeadline(FaultCase):
    """No response within the deadline: one wait, then an error, or a restore by another path."""

    @classmethod
    def prepare(cls):
        cls.escrowed()

    def within_deadline(self, status, action, *command):
        self.world.begin_again("out.key")
        run = self.world.traced(*command, "--json", tpm=action)
        self.assertEqual(run.status, status, str(run))
        self.ends_well(run, command[0])
        self.assertGreater(run.done.seconds, DEADLINE_S - 1, "there was no fault\n" + str(run))
        if status != 0:
            self.assertEqual(run.error()["code"], "tpm_timeout", str(run))
        if command[0] == "restore":
            self.holds_the_key_or_nothing("out.key", run)
        self.world.flush()
        self.verifies_after(run)
        self.world.begin_again("out.key")
        self.succeeds(*command)

    BY_TPM = ("restore", "app/key", "--via", "tpm", "--to", "out.key")
    BY_TOKEN = ("restore", "app/key", "--via", "token-ops", "--to", "out.key", "--pin-file", "pin")

    def test_hang(self):
        self.within_deadline(5, "1=hang", *self.BY_TPM)

    def test_lost(self):
        self.within_deadline(5, "7=lost", *self.BY_TPM)  # of TPM2_Unseal

    def test_delay(self):
        self.within_deadline(5, "6=delay:9000", *self.BY_TPM)

    def test_by_token(self):
        self.within_deadline(0, "3=lost", *self.BY_TOKEN)  # of TPM2_Sign

    def test_automatic(self):
        self.within_deadline(0, "1=hang", "restore", "app/key", "--to", "out.key", "--pin-file",
                             "pin")

    def test_backup(self):
        self.within_deadline(5, "2=lost", "backup", "new/key", "--from", "app.key", "--path", "tpm",
                             "--path", "token:ops", "--pin-file", "pin")

    def test_short_delays_are_none(self):
        self.world.begin_again("out.key")
        run = self.world.traced(*self.BY_TPM, tpm="0=delay:50")
        self.assertEqual(run.status, 0, str(run))


class TpmExport(Kinds, FaultCase):
    """The TPM only signs the receipt's checkpoint."""

    command = ("export", "app/key", "-o", "out.escrow", "--json")
    named = ("export",)
    outputs = ("out.escrow", "out.escrow.receipt")

    @classmethod
    def prepare(cls):
        cls.escrowed()

    def holds(self, run):
        for name in self.outputs:
            self.assertEqual(self.world.path(name).exists(), run.status == 0, str(run))
        if run.status == 0:
            self.succeeds("verify", "out.escrow")
            self.world.begin_again(*self.outputs)


class TpmUntouched(FaultCase):
    """Import and verify need no TPM: one that fails at every command is not asked, but once by verify
    whether it has a counter of the log."""

    @classmethod
    def prepare(cls):
        cls.escrowed()
        cls.world.must("export", "app/key", "-o", "a.escrow")

    def test_error(self):
        for command in (("import", "a.escrow"), ("verify",), ("verify", "a.escrow"), ("status",)):
            run = self.world.traced(*command, "--json", tpm="0=error:" + IO_ERROR)
            asked = [GET_CAPABILITY] if command == ("verify",) else []
            self.assertEqual((run.status, [code for code, _ in run.tpm]), (0, asked), str(run))
