"""rotate, path add and replace, password change, adopt and recovery-key create while the TPM or the
token fails: at the n-th call of each, for every n, with the kinds of fault in turn.

What the devices do to these commands is made of what backup and restore meet one by one; here it is
seen that an edit is done or not done, and that what opened before still does.
"""

import itertools
import json

from faulty_world import FAULTY, FaultCase
from token_cases import CKRS, Calls
from tpm_cases import FAILURE, IO_ERROR, RETRY, Kinds
from world import PASSWORD


class Edit:
    """A command on an escrowed key. `device` is the factor that fails: tpm or token:ops."""

    outputs = ()

    def restored(self, name, *more):
        """What a restore with healthy devices gives, or None."""
        done = self.world.run("restore", name, "--to", "-", "--pin-file", "pin", "--no-input", *more)
        return done.out if done.status == 0 else None

    def paths_of(self, name):
        done = self.world.run("show", name, "--json")
        return [path["id"] for path in done.json()["paths"]] if done.status == 0 else []

    def is_done(self, run):
        """Whether the edit is in the store; what must be true either way is seen here."""
        raise NotImplementedError

    def holds(self, run):
        done = self.is_done(run)
        if run.status == 0:
            self.assertTrue(done, f"it was acknowledged, and is not there\n{run}")
        if done:  # it cannot be done twice
            self.world.begin_again()


class OnToken:
    device, device_id, other, other_id = "token:ops", "token-ops", "token:ops", "token-ops"
    test_codes = test_each_code = test_gone = test_pull = test_worker = test_pin = None
    more_logins = 2  # each path that is proven may open the token anew

    def test_in_turn(self):
        self.each(*("rv:" + code for code in CKRS), "pull", "crash", "garbage")


class OnTpm:
    device, device_id, other, other_id = "tpm", "tpm", "token:ops", "token-ops"
    actions = ("error:" + IO_ERROR, "refuse:" + FAILURE, "refuse:" + RETRY, "rewrite:" + FAILURE,
               "flip:111", "truncate:1", "restart")
    test_error = test_refuse = test_rewrite = test_flip = test_size = test_restart = None

    def test_in_turn(self):
        turn, num_failed = itertools.cycle(self.actions), 0
        for n in itertools.count(1):
            run, _ = self.once(next(turn), n)
            if run is None:
                break
            num_failed += run.status > 1
        self.assertGreater(n, 2, "the command never asked the TPM")
        print("\n%s: %d faults, %d runs failed" % (self.id(), n - 1, num_failed))


class PathAdd(Edit):
    named = ("path", "add")

    @classmethod
    def prepare(cls):
        cls.escrowed()
        cls.command = ("path", "add", "app/key", "--path", "new=" + cls.device, "--via",
                       cls.other_id, "--pin-file", "pin", "--no-input", "--json")

    def is_done(self, run):
        ids = self.paths_of("app/key")
        before = [name for name in ids if name != "new"]
        self.assertEqual(before, ["tpm", "token-ops"] if self.tpm else ["token-ops"], str(run))
        for via in ids:
            self.assertEqual(self.restored("app/key", "--via", via), self.world.key,
                             f"{via} does not open after\n{run}")
        return "new" in ids


class PathReplace(Edit):
    named = ("path", "replace")

    @classmethod
    def prepare(cls):
        cls.escrowed()
        cls.command = ("path", "replace", "app/key", cls.device_id, "--path", "new=" + cls.device,
                       "--via", cls.device_id, "--pin-file", "pin", "--no-input", "--json")

    def is_done(self, run):
        ids = self.paths_of("app/key")
        self.assertNotEqual("new" in ids, self.device_id in ids, str(run))
        for via in ids:
            self.assertEqual(self.restored("app/key", "--via", via), self.world.key,
                             f"{via} does not open after\n{run}")
        return "new" in ids


class PasswordChange(Edit):
    named = ("password", "change")
    NEW = "quite another staple 9"

    @classmethod
    def prepare(cls):
        cls.world.must("init")
        cls.world.must("token", "add", "ops", "pkcs11:token=ops", "--module", FAULTY, "--pin-file",
                       "pin")
        cls.world.write("pw2", cls.NEW + "\n")
        paths = [f"password & {device}" for device in sorted({cls.device, cls.other})]
        cls.world.must("backup", "app/key", "--from", "app.key", "--password-file", "pw",
                       "--pin-file", "pin", *(word for path in paths for word in ("--path", path)))
        cls.command = ("password", "change", "app/key", "--via", cls.device_id, "--password-file",
                       "pw", "--new-password-file", "pw2", "--pin-file", "pin", "--no-input",
                       "--json")

    def is_done(self, run):
        self.assertNotEqual(self.NEW, PASSWORD)
        by = {file: self.restored("app/key", "--via", self.other_id, "--password-file", file)
              for file in ("pw", "pw2")}
        self.assertEqual(sorted(by.values(), key=bool), [None, self.world.key],
                         f"one password opens, and one does not\n{run}")
        return by["pw2"] is not None


class Adopt(Edit):
    named = ("adopt",)

    @classmethod
    def prepare(cls):
        other = {"KEYESCROW_STATE": str(cls.world.path("origin"))}
        made = cls.world.must("init", "--json", env=other).json()
        cls.world.must("token", "add", "ops", "pkcs11:token=ops", "--module", FAULTY, "--pin-file",
                       "pin", env=other)
        cls.world.must("backup", "app/key", "--from", "app.key", "--path", "token:ops", "--pin-file",
                       "pin", "-o", "app.escrow", env=other)
        cls.world.must("init")
        cls.world.must("token", "add", "ops", "pkcs11:token=ops", "--module", FAULTY, "--pin-file",
                       "pin")
        paths = [word for path in sorted({cls.device, cls.other}) for word in ("--path", path)]
        cls.command = ("adopt", "app.escrow", "--agent", made["thumbprint"], *paths, "--pin-file",
                       "pin", "--no-input", "--json")

    def is_done(self, run):
        ids = self.paths_of("app/key")
        # A path that could not be proven may be there, and says so; what is proven opens.
        proven = [path["id"] for path in json.loads(run.done.out)["paths"]
                  if path["proven"]] if run.status < 2 else []
        self.assertLessEqual(set(proven), set(ids), str(run))
        for via in proven:
            self.assertEqual(self.restored("app/key", "--via", via), self.world.key,
                             f"{via} does not open after\n{run}")
        return bool(ids)


class RecoveryKey(Edit):
    named = ("recovery-key", "create")

    @classmethod
    def prepare(cls):
        cls.world.must("init")
        cls.world.must("token", "add", "ops", "pkcs11:token=ops", "--module", FAULTY, "--pin-file",
                       "pin")
        cls.command = ("recovery-key", "create", "team", "--path", cls.device, "--pin-file", "pin",
                       "--no-input", "--json")

    def is_done(self, run):
        if self.world.run("recovery-key", "show", "team").status != 0:
            return False
        done = self.world.run("backup", "app/key", "--from", "app.key", "--path",
                              "recovery-key:team", "--no-input")
        self.assertIn(done.status, (0, 1), f"{done}\nafter\n{run}")
        self.assertEqual(self.restored("app/key"), self.world.key,
                         f"what was escrowed to it does not restore after\n{run}")
        return True


class Rotate(Edit):
    named = ("rotate",)

    @classmethod
    def prepare(cls):
        cls.world.must("init")
        cls.world.must("token", "add", "ops", "pkcs11:token=ops", "--module", FAULTY, "--pin-file",
                       "pin")
        cls.world.path("live").mkdir(mode=0o700)
        cls.world.write("live/app.key", cls.world.key)
        paths = [word for path in sorted({cls.device, cls.other}) for word in ("--path", path)]
        cls.world.must("key", "add", "app/key", "--source", str(cls.world.path("live/app.key")),
                       *paths)
        cls.world.must("backup", "app/key", "--pin-file", "pin")
        cls.command = ("rotate", "app/key", "--pin-file", "pin", "--no-input", "--json")

    def holds(self, run):
        """What is in use is escrowed, the old key is kept, and status 0 says that a new one is used."""
        now = self.world.path("live/app.key").read_bytes()
        versions = [self.restored("app/key", "--version", str(number)) for number in (1, 2)]
        self.assertEqual(versions[0], self.world.key, f"the old version does not restore\n{run}")
        self.assertIn(now, versions, f"the key in use does not restore\n{run}")
        kept = self.world.path("live/app.key.keyescrow-previous")
        if now != self.world.key:
            self.assertEqual(kept.read_bytes(), self.world.key, str(run))
        if run.status == 0:
            self.assertNotEqual(now, self.world.key, str(run))
            self.world.begin_again()  # a key that was put aside stands in the way of the next


class TokenPathAdd(OnToken, PathAdd, Calls, FaultCase):
    pass


class TokenPathReplace(OnToken, PathReplace, Calls, FaultCase):
    pass


class TokenPasswordChange(OnToken, PasswordChange, Calls, FaultCase):
    pass


class TokenAdopt(OnToken, Adopt, Calls, FaultCase):
    pass


class TokenRecoveryKey(OnToken, RecoveryKey, Calls, FaultCase):
    pass


class TokenRotate(OnToken, Rotate, Calls, FaultCase):
    pass


class TpmPathAdd(OnTpm, PathAdd, Kinds, FaultCase):
    pass


class TpmPathReplace(OnTpm, PathReplace, Kinds, FaultCase):
    pass


class TpmPasswordChange(OnTpm, PasswordChange, Kinds, FaultCase):
    # A flipped bit in a session makes the right password a wrong one, which TpmPassword looks at.
    actions = tuple(action for action in OnTpm.actions if not action.startswith("flip"))


class TpmAdopt(OnTpm, Adopt, Kinds, FaultCase):
    pass


class TpmRotate(OnTpm, Rotate, Kinds, FaultCase):
    pass
