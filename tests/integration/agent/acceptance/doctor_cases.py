"""doctor finds each set-up fault and says what to do about it."""

import os
import shutil
import subprocess
import time

from state_cases import small_disk
from world import AcceptanceCase, World


class Doctor(AcceptanceCase):
    paths = ("password & token:ops", "password & tpm")

    def checks(self, *arguments, world=None, **options):
        done = (world or self.world).run("doctor", "--json", *arguments, **options)
        self.assertIn(done.status, (0, 1), str(done))
        checks = done.json()["checks"]
        self.assertEqual(done.status == 1, any(check["outcome"] == "bad" for check in checks),
                         str(done))
        return checks

    def found(self, area, outcome, words, checks):
        for check in checks:
            if (check["area"], check["outcome"]) == (area, outcome) and words in check["what"]:
                self.assertTrue(outcome == "good" or check["remedy"], check)
                return check
        self.fail(f"{area} {outcome} {words!r} is not in {checks}")

    def test_a_healthy_host(self):
        checks = self.checks()
        self.assertEqual([check for check in checks if check["outcome"] == "bad"], [])
        for area, words in (("memory", "locked"), ("entropy", "ready"), ("state", "agent"),
                            ("store", "written"), ("log", "signed"), ("tpm", "answers"),
                            ("token", "token:ops is there with its key")):
            self.found(area, "good", words, checks)
        self.found("tpm", "warning", "lockoutAuth is empty", checks)
        self.found("tpm", "warning", "simulator", checks)
        # kill -9 in the middle of a write: the next one removes it, and until then it is told.
        other = self.world.write(".app.key.keyescrow-tmp2", b"half a k")
        left = self.world.write(".app.key.keyescrow-tmp", b"half a k")
        self.world.must("key", "add", "app/key", "--source", str(self.world.path("app.key")))
        checks = self.checks()
        for file in (left, other):
            self.found("keys", "warning", f"interrupted left {file}, ", checks)
        self.world.must("restore", "app/key", "--to", "new.key", "--password-file", "pw",
                        "--pin-file", "pin")
        self.assertTrue(left.exists())  # that was another name
        self.world.path("app.key").unlink()
        self.world.must("restore", "app/key", "--password-file", "pw", "--pin-file", "pin")
        self.assertFalse(left.exists() or other.exists())

    def test_entropy(self):
        trace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=getrandom", "-e",
                 "inject=getrandom:error=EAGAIN:when=1+"]
        done = subprocess.run(trace + [str(self.world.binary), "doctor", "--json", "--tpm", "none",
                                       "--state", "no-state"],
                              env=self.world.environment, cwd=self.world.folder, check=False,
                              stdin=subprocess.DEVNULL, capture_output=True)
        self.assertIn(b"entropy_unavailable", done.stdout, done)
        self.assertEqual(done.returncode, 1)

    def test_a_clock_that_went_back(self):
        state = self.world.path("copy")
        shutil.copytree(self.world.path("state"), state)
        self.addCleanup(shutil.rmtree, state)
        # The log's newest entry is of next year: its host's clock was wrong then, or is now.
        ahead = self.world.run("--state", str(state), "backup", "late/key", "--from", "app.key",
                               "--path", "token:ops", "--pin-file", "pin",
                               env=self.in_a_year())
        self.assertEqual(ahead.status, 0, str(ahead))
        self.found("clock", "warning", "went back", self.checks("--state", str(state)))

        # Ages are counted by that clock: whoever asks for them is told.
        def told():
            done = self.world.run("--state", str(state), "status", "--json")
            return [(finding["rule"], finding["key"], finding["severity"])
                    for finding in done.json()["findings"]
                    if finding["rule"] in ("clock_backward", "proof_in_future")]

        self.assertEqual(told(), [("clock_backward", None, "warning")])
        line = self.world.run("--state", str(state), "gate", "app/key").err
        self.assertIn(b"the clock went back", line)
        # The clock is right again. A proof of next year would be fresh for a year too long.
        self.world.must("--state", str(state), "drill", "app/key", "--via", "token-ops",
                        "--password-file", "pw", "--pin-file", "pin")
        self.assertEqual(told(), [("proof_in_future", "late/key", "warning")])
        self.world.must("--state", str(state), "drill", "late/key", "--pin-file", "pin")
        self.assertEqual(told(), [])

    def in_a_year(self):
        return self.clock_moved_by(31536000)

    def clock_moved_by(self, seconds):
        """A library that moves the clock, between the program and libc."""
        source = self.world.path("clock.c")
        source.write_text(
            "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <time.h>\n"
            "int clock_gettime(clockid_t id, struct timespec* now) {\n"
            "  int (*next)(clockid_t, struct timespec*) = dlsym(RTLD_NEXT, \"clock_gettime\");\n"
            "  int done = next(id, now);\n"
            f"  if (id == CLOCK_REALTIME) now->tv_sec += {seconds};\n  return done;\n}}\n"
            "time_t time(time_t* out) {\n  struct timespec now;\n"
            "  clock_gettime(CLOCK_REALTIME, &now);\n  if (out) *out = now.tv_sec;\n"
            "  return now.tv_sec;\n}\n")
        library = self.world.path("clock.so")
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
        self.addCleanup(source.unlink, True)
        self.addCleanup(library.unlink, True)
        return {"LD_PRELOAD": str(library)}

    def test_secrets_that_everybody_reads(self):
        world = World(tpm=False)
        self.addCleanup(world.close)
        world.write("app.key", os.urandom(32))
        world.must("init")
        world.must("token", "add", "ops", f"pkcs11:token=ops?pin-source={world.path('pin')}",
                   "--module", world.module)
        world.must("key", "add", "app/key", "--source", str(world.path("app.key")), "--path",
                   "token:ops")
        world.must("backup", "app/key")
        world.must("restore", "app/key", "--to", str(world.path("out.key")), "--replace")
        self.assertNotIn("warning", [check["outcome"] for check in self.checks(world=world)
                                     if check["area"] == "secrets"])
        for name in ("app.key", "pin"):
            world.path(name).chmod(0o644)
        checks = self.checks(world=world)
        self.found("secrets", "warning", "app.key can be read", checks)
        self.assertEqual(self.found("secrets", "bad", "pin", checks)["code"], "secret_file_unsafe")

    def test_what_keys_will_need(self):
        world = World(tpm=False)
        self.addCleanup(world.close)
        world.write("app.key", os.urandom(32))
        world.must("init")
        world.must("token", "add", "ops", "pkcs11:token=ops", "--module", world.module,
                   "--pin-file", "pin")
        world.must("recovery-key", "create", "team", "--path", "token:ops", "--pin-file", "pin")
        world.must("recovery-key", "export", "team", "-o", "team.record")
        text = world.path("agent.toml").read_text()
        world.write("agent.toml", text + '[[key]]\nname = "host/root"\nsource = "luks:/dev/none"\n'
                    'paths = ["recovery-key:nobody"]\n[[key]]\nname = "app/key"\nsource = "app.key"\n'
                    'paths = ["recovery-key:team"]\n')
        world.must("backup", "app/key", "--no-input")
        checks = self.checks(world=world)
        self.found("luks", "good", "host/root", checks)
        self.found("sheet", "good", "QR codes", checks)
        self.found("recovery key", "good", "team was opened last", checks)
        gone = self.found("recovery key", "bad", "recovery-key:nobody is not registered", checks)
        self.assertIn("host/root cannot be escrowed", gone["what"])
        self.assertNotIn("app/key", gone["what"])

        # Libraries that are there and do not load.
        world.path("broken").mkdir()
        for name in ("libcryptsetup.so.12", "libqrencode.so.4"):
            world.write(f"broken/{name}", b"no library")
        broken = self.checks(world=world, env={"LD_LIBRARY_PATH": str(world.path("broken"))})
        self.assertEqual(self.found("luks", "bad", "host/root", broken)["code"], "unsupported_here")
        self.assertIn("libqrencode4", self.found("sheet", "warning", "QR codes", broken)["remedy"])

        # A record that was brought here, and whose key nobody opened.
        elsewhere = {"KEYESCROW_STATE": str(world.path("elsewhere"))}
        world.must("init", env=elsewhere)
        world.must("recovery-key", "import", "team.record", "--yes", env=elsewhere)
        never = self.found("recovery key", "warning", "team was never opened here",
                           self.checks(world=world, env=elsewhere))
        self.assertIn("keyescrow drill recovery-key:team", never["remedy"])
        world.must("recovery-key", "retire", "team", "--yes", env=elsewhere)
        self.found("recovery key", "bad", "recovery-key:team is retired, and app/key",
                   self.checks(world=world, env=elsewhere))

    def test_tokens(self):
        gone = {"SOFTHSM2_CONF": str(self.world.path("no-token.conf"))}
        check = self.found("token", "bad", "token:ops", self.checks(env=gone))
        self.assertEqual(check["code"], "token_not_found")
        self.found("token", "warning", "no token is in any slot", self.checks(env=gone))
        missing = self.checks("--module", "/usr/lib/none.so")
        self.assertEqual(self.found("module", "bad", "none.so", missing)["code"], "module_missing")
        check = self.found("module", "bad", "agent.toml",
                           self.checks("--module", str(self.world.path("agent.toml"))))
        self.assertEqual(check["code"], "module_invalid")

    def test_a_module_that_cannot_do_what_is_needed(self):
        for offered, outcome, words in (
                ("CKM_SHA256,CKM_RSA_PKCS_KEY_PAIR_GEN", "bad", "neither RSA decryption nor ECDH"),
                ("CKM_RSA_PKCS_OAEP", "warning", "RSA alone"),
                ("CKM_ECDH1_DERIVE", "warning", "ECDH alone")):
            with self.subTest(offered=offered):
                self.world.write("few.conf", self.world.path("softhsm2.conf").read_bytes() +
                                 b"slots.mechanisms = " + offered.encode() + b"\n")
                checks = self.checks(env={"SOFTHSM2_CONF": str(self.world.path("few.conf"))})
                self.found("token", outcome, words, checks)
        self.assertNotIn("alone", str(self.checks()))

    def test_a_pin_that_was_wrong_once(self):
        self.world.write("bad-pin", "00000000\n")
        done = self.world.run("restore", "app/key", "--via", "token-ops", "--to", "x.key",
                              "--password-file", "pw", "--pin-file", "bad-pin")
        self.assertEqual(done.status, 3, str(done))
        self.found("token", "warning", "a wrong PIN was entered", self.checks())
        self.restored("x.key", "--via", "token-ops")

    def test_no_tpm_and_another_tpm(self):
        self.found("tpm", "skipped", "not looked at", self.checks("--tpm", "none"))
        self.found("tpm", "bad", "", self.checks("--tpm", "swtpm:path=/nowhere"))
        other = self.world.start_tpm("other")
        process = self.world.processes[-1]
        check = self.found("tpm", "bad", "", self.checks("--tpm", other))
        self.assertIn(check["code"], ("tpm_wrong_device", "tpm_srk_changed"))
        process.terminate()
        process.wait()

    def test_what_it_says_of_a_tpm_ends_the_fault(self):
        """Each remedy is done as it stands."""
        world = World()
        self.addCleanup(world.close)
        world.escrow(paths=self.paths)
        world.write("FILE", "a password\n")

        def do(words, begin, end):
            remedy = self.found("tpm", "warning", words, self.checks(world=world))["remedy"]
            command = remedy[remedy.index(begin):remedy.rindex(end) + len(end)]
            subprocess.run(["sh", "-c", command + " && tpm2_flushcontext -t"], cwd=world.folder,
                           check=True, env=dict(world.environment, TPM2TOOLS_TCTI=world.tcti),
                           stdin=subprocess.DEVNULL, capture_output=True)

        do("lockoutAuth is empty", "tpm2_changeauth", "file:FILE")
        self.assertNotIn("lockoutAuth", str(self.checks(world=world)))
        world.tpm_tool("tpm2_dictionarylockout", "-s", "-n", "1", "-t", "1000", "-l", "1000", "-p",
                       "file:FILE")
        world.run("restore", "app/key", "--via", "tpm", "--to", "x.key", "--password-file", "wrong",
                  "--use-last-try")
        do("locked out: 1 of 1 tries used", "tpm2_dictionarylockout", "file:FILE")
        self.found("tpm", "good", "0 of 1 tries used", self.checks(world=world))
        for owner in (False, True):
            world.tpm_tool("tpm2_evictcontrol", "-C", "o", "-c", "0x81000001")
            if owner:
                world.tpm_tool("tpm2_changeauth", "-c", "owner", "file:FILE")
                checks = self.checks(world=world)
                self.assertEqual([check["code"] for check in checks if check["outcome"] == "bad"],
                                 ["tpm_owner_auth"], checks)
            do("owner hierarchy has a password" if owner else "no storage root key is at",
               "tpm2_createprimary", "0x81000001")
            checks = self.checks(world=world)
            self.found("tpm", "good", "the storage root key is at", checks)
            self.found("state", "good", "the agent key signs", checks)
            self.assertEqual([check["what"] for check in checks
                              if (check["area"], check["outcome"]) == ("tpm", "warning")],
                             ["this is a simulator: it protects nothing"])

    def test_another_key_in_the_storage_keys_place(self):
        world = World(token=False)
        self.addCleanup(world.close)
        for command in (("tpm2_createprimary", "-C", "o", "-G", "rsa2048", "-c", "p.ctx"),
                        ("tpm2_evictcontrol", "-C", "o", "-c", "p.ctx", "0x81000001"),
                        ("tpm2_flushcontext", "-t")):
            world.tpm_tool(*command)
        world.must("init")
        words = "0x81000001 holds another key"
        check = self.found("tpm", "warning", words, self.checks(world=world))
        self.assertIn("made anew at each use", check["what"])
        world.tpm_tool("tpm2_changeauth", "-c", "owner", "owned")
        checks = self.checks(world=world)
        self.assertIn("cannot be made", self.found("tpm", "warning", words, checks)["what"])
        self.assertEqual(self.found("tpm", "bad", "owner hierarchy", checks)["code"],
                         "tpm_owner_auth")

    def test_a_tpm_that_did_not_sign(self):
        world = World(token=False)
        self.addCleanup(world.close)
        world.must("init")
        self.found("log", "good", "entries, signed", self.checks(world=world))
        world.kill_tpm()
        world.must("trust", "add", "B" * 42 + "A")
        check = self.found("log", "warning", "lacks the agent key's signature since",
                           self.checks(world=world))
        self.assertIn("bring the tpm back", check["remedy"])
        world.start_tpm("tpm")
        world.must("trust", "remove", "B" * 42 + "A", "--yes")  # the next entry
        self.found("log", "good", "entries, signed", self.checks(world=world))

    def test_a_locked_pin_and_the_last_try(self):
        faulty = os.environ.get("KEYESCROW_FAULTY_PKCS11")
        if not faulty:
            self.skipTest("KEYESCROW_FAULTY_PKCS11 is not set")
        for flag, outcome, words in (("40000", "bad", "is locked"),
                                     ("20000", "warning", "has one PIN try left")):
            checks = self.checks("--module", faulty, env={
                "FAULTY_PKCS11_MODULE": self.world.module,
                "FAULTY_PKCS11_RULES": f"C_GetTokenInfo@0=flags:{flag}"})
            self.found("token", outcome, words, checks)

    def test_an_officer_whose_token_no_module_serves(self):
        world = World(tpm=False)
        self.addCleanup(world.close)
        world.write("app.key", os.urandom(32))
        world.make_token("spare")
        world.must("init")
        for name in ("ops", "spare"):
            world.must("token", "add", name, f"pkcs11:token={name}", "--module", world.module,
                       "--pin-file", "pin")
        world.must("backup", "app/key", "--from", "app.key", "--path", "2 of (token:ops, token:spare)",
                   "--pin-file", "ops=pin", "--pin-file", "spare=pin")
        self.assertNotIn("no registered module serves", str(self.checks(world=world)))
        self.assertEqual(world.run("token", "remove", "spare", "--yes").status, 1)
        check = self.found("officer", "warning", "no registered module serves the token of the "
                           "officer spare, who holds a share of app/key", self.checks(world=world))
        command = check["remedy"].split("'")[1].split()[1:]
        world.must(*(word.replace("URI", "pkcs11:token=spare").replace("SO", world.module)
                     for word in command), "--pin-file", "pin")
        self.assertNotIn("no registered module serves", str(self.checks(world=world)))

    def test_a_disk_with_little_room(self):
        disk = small_disk(self, "little", "8m")
        shutil.copytree(self.world.path("state"), disk / "state")
        (disk / "state").chmod(0o700)
        there = ("--state", str(disk / "state"))
        self.found("store", "warning", "KiB are free on the disk of", self.checks(*there))
        self.assertNotIn("are free on the disk", str(self.checks()))

    def test_a_clock_that_was_never_set_and_a_policy_that_ended(self):
        world = World(tpm=False, token=False)
        self.addCleanup(world.close)
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 86400))
        world.write("p.toml", '[policy]\nname = "corp"\nserial = 1\nmode = "enforce"\n'
                    f'expires = {ends}\n[[rule]]\nname = "all"\nmatch = "**"\n')
        vkey = world.must("policy", "sign", "--new-key", "alice.key").out.decode().strip()
        world.must("policy", "sign", "p.toml", "--key", "alice.key")
        world.must("init", "--policy", "p.toml", "--policy-key", vkey)
        self.found("policy", "good", "corp serial 1 is in force since", self.checks(world=world))
        later = self.checks(world=world, env=self.in_a_year())
        self.found("policy", "warning", "the policy corp serial 1 expired on", later)
        early = self.checks("--state", "nowhere", env=self.clock_moved_by(-86400 * 400))
        self.found("clock", "warning", "before this version was made", early)

    def test_states(self):
        self.found("state", "skipped", "no state", self.checks("--state", "nowhere"))
        state = self.world.path("copy")
        shutil.copytree(self.world.path("state"), state)
        self.addCleanup(shutil.rmtree, state)
        state.chmod(0o755)
        check = self.found("state", "bad", "", self.checks("--state", str(state)))
        self.assertEqual(check["code"], "state_permissions")

    def test_the_agent_key_and_every_files_mode(self):
        state = self.world.path("copy")
        world = World(tpm=False, token=False)
        self.addCleanup(world.close)
        world.must("init")
        for place, name in ((self.world, "agent-tpm.auth"), (world, "agent-p256.key")):
            shutil.rmtree(state, ignore_errors=True)
            shutil.copytree(place.path("state"), state)
            self.addCleanup(shutil.rmtree, state, ignore_errors=True)
            there = ("--state", str(state), *(("--tpm", "none") if place is world else ()))
            key = state / name
            whole = key.read_bytes()
            for damage in (None, b"", bytes(31) + b"\1"):
                key.unlink()
                if damage is not None:
                    key.write_bytes(damage)
                    key.chmod(0o600)
                checks = self.checks(*there)
                bad = [check for check in checks if check["outcome"] == "bad"]
                self.assertEqual([check["area"] for check in bad], ["state"], checks)
                key.write_bytes(whole)
                key.chmod(0o600)
            self.found("state", "good", "the agent key signs", self.checks(*there))
            for private in sorted(state.iterdir()):
                private.chmod(0o644)
                done = self.world.run("doctor", "--json", *there)
                self.assertIn(b"state_permissions", done.out, str(private))
                self.assertEqual(done.status, 1, str(done))
                private.chmod(0o600)

    def test_a_state_of_another_machine(self):
        if os.geteuid() != 0:
            self.fail("this test gives the process another /etc/machine-id: run it as root")
        self.world.write("machine-id", "0123456789abcdef0123456789abcdef\n", mode=0o644)
        moved = subprocess.run(
            ["unshare", "--mount", "sh", "-c",
             'mount --bind machine-id /etc/machine-id && exec "$0" doctor --json',
             str(self.world.binary)], cwd=self.world.folder, env=self.world.environment,
            stdin=subprocess.DEVNULL, capture_output=True, check=False)
        self.assertIn(b"made on another machine", moved.stdout, moved)
        self.assertNotIn("another machine", str(self.checks()))
