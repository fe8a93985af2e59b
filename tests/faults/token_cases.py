"""A PKCS#11 module that fails at the n-th call of each function that a use case calls, for every n.

Every kind of fault is a test. No PIN is sent twice, whatever happens.
"""

import collections
import concurrent.futures
import itertools
import os
import re
import shutil

from faulty_world import FAULTY, NOTHING_HERE, FaultCase

# Source: PKCS#11 3.0, annex B.
DEVICE_CODES = {"token_device", "token_removed", "token_not_found", "module_failed"}
# Of every scenario's calls each gets one of these in turn; those of a restore get all of them.
CKRS = ("30", "32", "e0", "b3", "101", "2", "6", "5", "150", "80001234")
EVERY = "KEYESCROW_EVERY_FAULT" in os.environ  # by hand: every code at every call, some minutes each


class Calls:
    """The runs of one scenario, and the kinds of fault that every scenario meets."""

    tpm = False
    each_code_at = ()  # functions whose first call gets every one of CKRS
    more_logins = 0    # after a session that was spoiled, with a PIN that was right

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.world.begin_again(*cls.outputs)
        run = cls.world.traced(*cls.command)
        if run.status != 0:
            raise AssertionError(str(run))
        cls.order = run.token
        cls.healthy = collections.Counter(run.token)

    def each(self, *actions, functions=None, codes=None, last_call=None):
        """Runs the scenario with an action at the n-th call of every function, for every n."""
        num_runs, ended = 0, collections.Counter()
        turn = itertools.cycle(actions)
        for function in functions or self.healthy:
            for n in range(1, last_call + 1) if last_call else itertools.count(1):
                run = self.once(function, n, next(turn), codes)
                if run is None:
                    break
                num_runs += 1
                ended[("done", "findings")[run.status] if run.status < 2 else
                      run.error()["code"]] += 1
        self.assertGreater(num_runs, 0)
        print("\n%s: %d faults: %s" % (self.id(), num_runs, dict(ended)))

    def once(self, function, n, action, codes, more=""):
        self.world.begin_again(*self.outputs)
        before = self.snapshot()
        run = self.world.traced(*self.command, token=f"{function}#{n}={action}{more}")
        reached = run.token.count(function) >= n
        with self.subTest(fault=f"{function}#{n}={action}{more}"):
            self.ends_well(run, *self.named)
            self.put_back()
            self.no_new_file(before, run, *self.outputs)
            self.assertLessEqual(run.token.count("C_Login"),
                                 self.healthy["C_Login"] + self.more_logins, str(run))
            if function == "C_Login" and reached:
                self.assertEqual(run.token.count("C_Login"), n,
                                 f"a login after one that failed\n{run}")
            if not reached:
                self.assertEqual(run.status, 0, str(run))
            if codes and run.status > 1:
                self.assertIn(run.error()["code"], codes, str(run))
            self.holds(run)
            self.verifies_after(run)
            done = self.world.run(*self.command)
            self.assertEqual(done.status, 0, f"{done}\nafter\n{run}")
        self.put_back()
        return run if reached else None

    def put_back(self):
        pulled = self.world.path("tokens.pulled")
        if pulled.exists():
            shutil.rmtree(self.world.path("tokens"), ignore_errors=True)
            pulled.rename(self.world.path("tokens"))

    def holds(self, run):
        """What must be true of the outputs."""

    def is_registered_or_not(self, run):
        done = self.world.run("token", "list", "--json")
        self.assertEqual(done.status, 0 if run.status == 0 else NOTHING_HERE,
                         f"{done}\nafter\n{run}")
        if run.status == 0:
            self.world.begin_again()  # a name is registered once

    def test_codes(self):
        self.each(*("rv:" + code for code in CKRS))

    def test_each_code(self):
        for code in CKRS:
            self.each("rv:" + code, functions=None if EVERY else self.each_code_at,
                      last_call=None if EVERY else 1)

    def test_gone(self):
        """Removed, and away for good: no function answers anything else from this call on."""
        self.each("gone:32", codes=DEVICE_CODES)

    def test_pull(self):
        """SoftHSM's folder of the token is gone from this call on; put back, it serves again."""
        self.each("pull", codes=DEVICE_CODES)

    def test_worker(self):
        """The worker process dies, leaves or talks nonsense."""
        self.each("crash", "exit", "garbage", codes={"module_failed"})

    def test_pin(self):
        self.each("rv:a4", functions=["C_Login"], codes={"pin_locked"})
        self.each("rv:a0", functions=["C_Login"], codes={"wrong_pin"})


class TokenAdd(Calls, FaultCase):
    command = ("token", "add", "ops", "pkcs11:token=ops", "--module", FAULTY, "--pin-file", "pin",
               "--json")
    named = ("token", "add")
    outputs = ()
    each_code_at = ("C_Initialize", "C_GetSlotList", "C_GetTokenInfo", "C_OpenSession",
                    "C_FindObjects", "C_GetAttributeValue", "C_Login")

    @classmethod
    def prepare(cls):
        cls.world.must("init")

    def holds(self, run):
        self.is_registered_or_not(run)


class TokenKeygen(Calls, FaultCase):
    command = ("token", "keygen", "new", "pkcs11:token=ops", "--kind", "p256",
               "--module", FAULTY, "--pin-file", "pin", "--json")
    named = ("token", "keygen")
    outputs = ()
    each_code_at = ("C_OpenSession", "C_Login", "C_GenerateKeyPair", "C_FindObjects")

    @classmethod
    def prepare(cls):
        cls.world.must("init")

    def keys(self):
        """How many key pairs the token has."""
        return len(list(self.world.path("tokens").rglob("*.object")))

    def once(self, function, n, action, codes, more=""):
        self.world.begin_again(*self.outputs)
        self.num_before = self.keys()
        return super().once(function, n, action, codes, more)

    def holds(self, run):
        """A pair that stayed on the token is named, with the command that registers it."""
        made = self.keys() > self.num_before
        if run.status != 0:
            hint = re.search(r"keyescrow (token add \S+) '(\S+)' --module (\S+) ",
                             run.error()["hint"])
            if made:
                self.assertTrue(hint, f"nothing is said of the pair that stayed\n{run}")
            if hint and made:
                self.world.must("token", "add", "kept", hint[2], "--module", hint[3], "--pin-file",
                                "pin")
                self.world.begin_again()
                return
        self.is_registered_or_not(run)

    def test_one_login(self):
        self.assertEqual(self.healthy["C_Login"], 1, self.order)
        self.assertEqual(self.healthy["C_Initialize"], 1, self.order)

    test_gone = None  # as pulled


class TokenBackup(Calls, FaultCase):
    command = ("backup", "new/key", "--from", "app.key", "--path", "token:ops", "--pin-file", "pin",
               "-o", "new.escrow", "--json")
    named = ("backup",)
    outputs = ("new.escrow", "new.escrow.receipt")
    each_code_at = ("C_GetTokenInfo", "C_Login", "C_DecryptInit", "C_Decrypt")

    @classmethod
    def prepare(cls):
        cls.escrowed()


class TokenRestore(Calls, FaultCase):
    command = ("restore", "app/key", "--via", "token-ops", "--to", "out.key", "--pin-file", "pin",
               "--json")
    named = ("restore",)
    outputs = ("out.key",)

    @classmethod
    def prepare(cls):
        cls.escrowed()

    def holds(self, run):
        self.holds_the_key_or_nothing("out.key", run)

    test_codes = test_each_code = None  # one by one, here, at every call

    def test_device_error(self):
        self.each("rv:30", codes=DEVICE_CODES)

    def test_device_removed(self):
        self.each("rv:32", codes=DEVICE_CODES)

    def test_token_not_present(self):
        self.each("rv:e0", codes=DEVICE_CODES)

    def test_session_handle_invalid(self):
        self.each("rv:b3", codes=DEVICE_CODES)

    def test_user_not_logged_in(self):
        self.each("rv:101", codes={"token_login_state", "token_not_found"})

    def test_host_memory(self):
        self.each("rv:2", codes={"module_failed", "token_not_found"})

    def test_function_failed(self):
        self.each("rv:6", codes=DEVICE_CODES | {"token_data_invalid"})

    def test_general_error(self):
        self.each("rv:5", codes=DEVICE_CODES | {"token_data_invalid"})

    def test_buffer_too_small(self):
        self.each("rv:150", codes={"token_vendor", "token_not_found"})

    def test_vendor(self):
        self.each("rv:80001234", codes={"token_vendor", "token_not_found", "module_failed"})

    def test_crash(self):
        self.each("crash", codes={"module_failed"})

    def test_crash_with_a_child_that_holds_the_socket(self):
        self.world.begin_again(*self.outputs)
        # AddressSanitizer would make an exit of it.
        self.world.environment["ASAN_OPTIONS"] = "handle_segv=0"
        self.addCleanup(self.world.environment.pop, "ASAN_OPTIONS")
        run = self.world.traced(*self.command, token="C_FindObjects#1=fork")
        self.assertEqual(run.error()["code"], "module_failed", str(run))
        self.assertIn("SIGSEGV", run.error()["message"])

    def test_exit(self):
        self.each("exit", codes={"module_failed"})

    def test_garbage(self):
        self.each("garbage", codes={"module_failed"})

    test_worker = None

    def test_outputs(self):
        """What the module writes is a byte short, or all ones: never a wrong key."""
        for action in ("short", "fill"):
            self.each(action, functions=["C_GetAttributeValue", "C_Decrypt"],
                      codes={"token_key_not_found", "token_data_invalid"})

    def test_hang(self):
        """At four calls at once: each costs one deadline and the worker is killed."""
        self.world.begin_again(*self.outputs)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            runs = [pool.submit(self.world.traced, *self.command, token=f"{function}@1=hang")
                    for function in ("C_Initialize", "C_OpenSession", "C_Login", "C_Decrypt")]
        for run in [future.result() for future in runs]:
            self.ends_well(run, *self.named)
            self.assertEqual(run.error()["code"], "token_timeout", str(run))
            self.assertLessEqual(run.token.count("C_Login"), 1, str(run))
            self.holds_the_key_or_nothing("out.key", run)
            self.verifies_after(run)
        self.succeeds(*self.command)

    def test_reinserted(self):
        """Pulled at one call and put back at the next, or the third after it."""
        counts, calls = collections.Counter(), []
        for function in self.order:
            counts[function] += 1
            calls.append((function, counts[function]))
        for distance in (1, 3):
            for (function, n), (later, m) in zip(calls, calls[distance:]):
                run = self.once(function, n, "pull", DEVICE_CODES, f",{later}#{m}=insert")
                if run is None:
                    # What was read longer ago than TokenClient::kFresh is read again: a slow run,
                    # as the one that the order is of may have been, has calls that a quick one lacks.
                    self.assertIn(function, ("C_GetSlotInfo", "C_GetTokenInfo"))


class TokenOfTwoKeys(FaultCase):
    """Two paths by two keys of one token: a login that failed for one of them, however it failed, may
    have used a try, and is not done for the other. A path that needs none is tried."""

    UNLOCK = ("--pin-file", "ops=pin", "--pin-file", "second=pin")

    @classmethod
    def prepare(cls):
        cls.world.must("init")
        cls.world.must("token", "add", "ops", "pkcs11:token=ops", "--module", FAULTY, "--pin-file",
                       "pin")
        cls.world.must("token", "keygen", "second", "pkcs11:token=ops", "--kind", "p256",
                       "--module", FAULTY, "--pin-file", "pin")
        paths = ("--path", "token:ops", "--path", "token:second")
        cls.world.must("backup", "two/paths", "--from", "app.key", *paths, *cls.UNLOCK)
        cls.world.must("backup", "three/paths", "--from", "app.key", *paths, "--path", "tpm",
                       *cls.UNLOCK)

    def test_one_login(self):
        for name, action in (("two/paths", "crash"), ("two/paths", "rv:30"),
                             *(("three/paths", action) for action in
                               ("crash", "exit", "garbage", *("rv:" + code for code in CKRS)))):
            self.world.begin_again("out.key")
            run = self.world.traced("restore", name, "--to", "out.key", *self.UNLOCK, "--json",
                                    token=f"C_Login#1={action}")
            with self.subTest(name=name, action=action):
                self.assertEqual(run.token.count("C_Login"), 1, str(run))
                self.ends_well(run, "restore")
                self.holds_the_key_or_nothing("out.key", run)
                self.verifies_after(run)
                if action in ("crash", "exit", "garbage", "rv:30", "rv:32"):
                    self.assertEqual(run.status == 0, name == "three/paths", str(run))
