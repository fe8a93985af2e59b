#!/usr/bin/env python3
"""What of keyescrow's memory leaves the process: by a core dump, a tracer, a system call, a file.

  process_test.py --binary KEYESCROW --paused KEYESCROW_PAUSED [unittest's arguments]
"""

import argparse
import contextlib
import fcntl
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import memory_test  # noqa: E402
from memory_test import acceptance  # noqa: E402
from process_memory import children_of, find_secrets, forms, is_stopped, read_memory  # noqa: E402

PRODUCT: pathlib.Path = None
PAUSED: pathlib.Path = None
DEADLINE_S = 60
PR_SET_PTRACER, PR_SET_PTRACER_ANY = 0x59616D61, -1
RESTORE = ("restore", "app/key", "--via", "token-ops", *acceptance.UNLOCK, "--to", "out.key")


def allow_core_dumps():
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


class Paused(unittest.TestCase):
    """keyescrow and its worker as an ordinary user, stopped with the key in hand."""

    def setUp(self):
        acceptance.BINARY = PAUSED
        self.world = memory_test.make_world(tpm=False, ordinary_user=True)
        self.addCleanup(self.world.close)
        self.world.escrow()

    def stopped_at(self, point, command=RESTORE, **options):
        """(the command, the process that stopped): the command itself or its worker."""
        child = self.world.start(*command, env={"KEYESCROW_PAUSE_AT": point},
                                 before=allow_core_dumps, **options)
        self.addCleanup(self.end, child)
        found = []

        def turn():
            found.extend(w for w in children_of(child.pid) if is_stopped(w))
            return found or is_stopped(child.pid)

        if not point.startswith("worker-"):
            _, status = os.waitpid(child.pid, os.WUNTRACED)
            self.assertTrue(os.WIFSTOPPED(status), status)
            return child, child.pid
        self.assertTrue(memory_test.wait_until(turn, DEADLINE_S), "the worker did not stop")
        return child, found[0]

    @staticmethod
    def end(child):
        if child.returncode is None and child.poll() is None:
            for worker in children_of(child.pid):  # a stopped one would never see its agent go
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
            child.kill()
            child.wait()
        child.stdout.close()
        child.stderr.close()

    def as_the_user(self, *command):
        return subprocess.run(
            ["setpriv", f"--reuid={self.world.user}", f"--regid={self.world.user}",
             "--clear-groups", "--inh-caps=-all", "--bounding-set=-all", *map(str, command)],
            capture_output=True, stdin=subprocess.DEVNULL, text=True, timeout=DEADLINE_S,
            check=False)

    def core_limit(self, pid):
        with open(f"/proc/{pid}/limits", encoding="ascii") as file:
            return re.search(r"Max core file size +(\S+) +(\S+)", file.read()).groups()

    def cores(self):
        return [str(path) for path in self.world.folder.rglob("*core*")
                if not path.is_dir() and path.name != "keyescrow"]

    def test_no_core_dump_of_the_agent(self):
        child, pid = self.stopped_at("content-open")
        self.assertEqual(self.core_limit(pid), ("0", "0"))
        os.kill(pid, signal.SIGABRT)
        os.kill(pid, signal.SIGCONT)
        _, status = os.waitpid(pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(child.returncode, -signal.SIGABRT)
        self.assertFalse(os.WCOREDUMP(status), "the kernel dumped core")
        self.assertEqual(self.cores(), [])

    def test_no_core_dump_of_the_worker(self):
        child, pid = self.stopped_at("worker-logged-in")
        self.assertEqual(self.core_limit(pid), ("0", "0"))
        os.kill(pid, signal.SIGABRT)
        os.kill(pid, signal.SIGCONT)
        _, err = child.communicate(timeout=DEADLINE_S)
        self.assertIn(b"SIGABRT", err)
        self.assertEqual(self.cores(), [])

    def test_the_worker_has_its_socket_alone(self):
        """Whatever its agent was started with, the vendor's module finds no descriptor in it, and a
        program that the module starts gets none; Ctrl-C ends the agent, and the worker with it."""
        with open(self.world.path("pw"), "rb") as secret:
            far = fcntl.fcntl(secret, fcntl.F_DUPFD, 40)  # no number that is used again
        try:
            _, worker = self.stopped_at("worker-logged-in", pass_fds=(far,))
        finally:
            os.close(far)
        folder = pathlib.Path(f"/proc/{worker}/fd")
        kept = {int(path.name): os.readlink(path) for path in folder.iterdir()}
        for number in (0, 1, 2):
            self.assertEqual(kept.pop(number), "/dev/null")
        self.assertRegex(kept.pop(3), r"^socket:")
        # The rest is the module's own.
        self.assertEqual({to for to in kept.values() if "/tokens/" not in to}, set())
        flags = re.search(r"^flags:\s+([0-7]+)", pathlib.Path(
            f"/proc/{worker}/fdinfo/3").read_text(encoding="ascii"), re.MULTILINE)
        self.assertTrue(int(flags[1], 8) & os.O_CLOEXEC)
        ignored = re.search(r"^SigIgn:\s+([0-9a-f]+)", pathlib.Path(
            f"/proc/{worker}/status").read_text(encoding="ascii"), re.MULTILINE)
        self.assertTrue(int(ignored[1], 16) & 1 << (signal.SIGINT - 1))

    def test_the_library_keeps_no_signers_key(self):
        """libcrypto reads a person's key from its file, and would leave it in blocks given back."""
        self.world.write("p.toml", '[policy]\nname = "corp"\nserial = 1\nmode = "enforce"\n'
                         'simulators = "allowed"\n[[rule]]\nname = "all"\nmatch = "**"\n')
        made = subprocess.run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt",
                               "ec_paramgen_curve:P-256"], capture_output=True, check=True)
        self.world.write("signer.key", made.stdout)
        shown = subprocess.run(["openssl", "pkey", "-noout", "-text"], input=made.stdout,
                               capture_output=True, check=True).stdout.decode()
        scalar = bytes.fromhex(re.sub(r"[^0-9a-f]", "", re.search(
            r"priv:([0-9a-f:\s]+)pub:", shown)[1])).rjust(32, b"\0")[-32:]
        child, pid = self.stopped_at("signer-read", command=(
            "policy", "sign", "p.toml", "--key", "signer.key"))
        found = find_secrets(read_memory(pid), {"the signer's key": scalar})
        self.assertTrue(found)
        self.assertEqual([str(one) for one in found if not one.region.is_secret], [])
        os.kill(pid, signal.SIGCONT)
        self.assertEqual(child.wait(), 0, child.stderr.read())

    def test_the_kernel_would_dump_core(self):
        """The same limit and signal in a process that is not hardened: a core dump is possible."""
        process = subprocess.Popen(["sleep", "60"], preexec_fn=allow_core_dumps,
                                   cwd=self.world.folder)
        self.assertEqual(self.core_limit(process.pid), ("unlimited", "unlimited"))
        process.kill()
        process.wait()

    def test_no_tracer_of_the_same_user(self):
        for point in ("content-open", "worker-logged-in"):
            with self.subTest(point):
                child, pid = self.stopped_at(point)
                # Not dumpable: the kernel gives the process's files to root.
                self.assertEqual(os.stat(f"/proc/{pid}/mem").st_uid, 0)
                for tool in (["strace", "-p", pid], ["cat", f"/proc/{pid}/environ"],
                             ["dd", f"if=/proc/{pid}/mem", "count=1"]):
                    done = self.as_the_user(*tool)
                    self.assertNotEqual(done.returncode, 0, tool)
                    self.assertRegex(done.stderr, "Operation not permitted|Permission denied")
                self.end(child)

    def test_a_tracer_of_the_same_user_works(self):
        """So that the refusals above are keyescrow's doing."""
        def let_trace():
            os.setgid(acceptance.NOBODY)
            os.setuid(acceptance.NOBODY)
        # The program is started anew after setuid, and with that dumpable again.
        process = subprocess.Popen(
            ["/usr/bin/python3", "-c", "import ctypes, time\n"
             f"ctypes.CDLL(None).prctl({PR_SET_PTRACER}, ctypes.c_ulong({PR_SET_PTRACER_ANY}))\n"
             "print(flush=True)\ntime.sleep(60)"],
            preexec_fn=let_trace, stdout=subprocess.PIPE, cwd="/")
        try:
            process.stdout.readline()
            self.assertEqual(os.stat(f"/proc/{process.pid}/mem").st_uid, acceptance.NOBODY)
            done = self.as_the_user("timeout", "-s", "INT", "1", "strace", "-p", process.pid)
            self.assertNotIn("not permitted", done.stderr)
            self.assertIn("attached", done.stderr)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


WRITES = ("write,pwrite64,writev,pwritev,pwritev2,send,sendto,sendmsg,sendmmsg,splice,vmsplice,tee,"
          "sendfile,copy_file_range,memfd_create,process_vm_writev,io_uring_setup,msgsnd,mq_timedsend,"
          "add_key,setxattr,fsetxattr,execve,socketpair").split(",")
CALL = re.compile(r"^(\d+) +(\w+)\((.*)$")
# With -yy: 5<UNIX-STREAM:[1->2]>, 7<UNIX-SEQPACKET:[1->2]>, 9</path>.
DESCRIPTOR = re.compile(r"^\d+<(.*?)>[,)]")
STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def inodes(target):
    return set(re.findall(r"\d+", target)) if target.startswith("UNIX") else set()


def joined(log):
    """strace's lines, each call in one: another process's call cuts it in two."""
    begun, lines = {}, []
    for line in log.splitlines():
        pid = line.split(" ", 1)[0]
        if line.endswith("<unfinished ...>"):
            begun[pid] = line.removesuffix("<unfinished ...>").rstrip()
            continue
        resumed = re.match(r"\d+ +<\.\.\. \w+ resumed>(.*)", line)
        lines.append(begun.pop(pid, "") + resumed[1] if resumed else line)
    return "\n".join([*lines, *begun.values()]) + "\n"  # an exit is never resumed


def strace(case, calls, options, *arguments):
    """What strace says of these calls of a command that succeeds."""
    world = case.world
    # The log lies outside of the world, whose files are searched.
    log = pathlib.Path(str(world.folder) + ".strace")
    case.addCleanup(log.unlink, missing_ok=True)
    command = ["strace", "-f", *options, "-o", str(log), "-e",
               "trace=" + ",".join(f"?{name}" for name in calls), *world.command(*arguments)]
    # What the TPM's library would print at its trace level is every command and response.
    # AddressSanitizer's leak check is a tracer itself, and it would set a limit of its own.
    done = subprocess.run(command, env={**world.environment, "TSS2_LOG": "all+trace",
                                        "ASAN_OPTIONS": "detect_leaks=0:disable_coredump=0"},
                          cwd=world.folder, stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=120, check=False)
    case.assertEqual(done.returncode, 0, done.stderr)
    case.assertNotIn(b"trace:tcti", done.stderr)
    return joined(log.read_text(encoding="ascii"))


class Opens(unittest.TestCase):
    """How keyescrow opens files and maps memory, by strace."""

    OPENED = re.compile(r'^(\d+) +open(?:at\(AT_FDCWD|at\(\d+|\(), "([^"]*)", ([A-Z_|]+)'
                        r"(?:, (0\d+))?\) += (\d+)", re.MULTILINE)
    LOCKS = ("in-use", "rotation.lock")  # they are there for ever, and hold nothing secret

    def setUp(self):
        acceptance.BINARY = PRODUCT
        self.world = memory_test.make_world(tpm=False)
        self.addCleanup(self.world.close)

    def opened(self, *arguments):
        text = strace(self, ["open", "openat", "openat2", "creat"], ("-s", "4096"), *arguments)
        self.assertNotRegex(text, r"(openat2|creat)\(")
        found = self.OPENED.findall(text)
        self.assertGreater(len(found), 5)
        agent = found[0][0]
        return [(path, flags.split("|"), mode) for pid, path, flags, mode, _ in found
                if pid == agent and not path.startswith(("/proc", "/sys", "/etc", "/usr", "/lib"))]

    def test_flags(self):
        """Every file that is made is its owner's alone, and is made where no link leads elsewhere; no
        file is open in a program that is started."""
        made = set()
        for arguments in (
            ("init",),
            ("token", "add", "ops", "pkcs11:token=ops", "--module", self.world.module, "--pin-file",
             "pin"),
            ("backup", "app/key", "--from", "app.key", "--path", "token:ops", "--pin-file", "pin",
             "-o", "app.escrow"),
            ("restore", "app/key", "--to", "out.key", "--pin-file", "pin"),
            ("restore", "app/key", "--to", "old.key", "--replace", "--pin-file", "pin"),
            ("restore", "app.escrow", "--state", "none", "--to", "alone.key", "--event-log",
             "events.json", "--agent", "THUMBPRINT", "--module", self.world.module, "--pin-file",
             "pin"),
            ("key", "add", "app/key", "--source", "app.key", "--path", "token:ops"),
            ("rotate", "app/key", "--pin-file", "pin", "--no-input"),
        ):
            if arguments[0] == "backup":
                self.world.write("app.key", os.urandom(32))
                self.world.write("old.key", os.urandom(32))
            if "THUMBPRINT" in arguments:
                shown = self.world.must("agent-key", "show", "--json").json()
                arguments = [shown["thumbprint"] if a == "THUMBPRINT" else a for a in arguments]
            for path, flags, mode in self.opened(*arguments):
                where = f"{arguments}: {path} {flags} {mode}"
                self.assertIn("O_CLOEXEC", flags, where)
                if "O_DIRECTORY" in flags:
                    continue
                writes = "O_WRONLY" in flags or "O_RDWR" in flags
                name = pathlib.Path(path).name
                if writes:
                    self.assertIn("O_NOFOLLOW", flags, where)
                if name in ("old.key", "old.key.keyescrow-previous", "agent.json"):
                    self.assertIn("O_NOFOLLOW", flags, where)
                if "O_CREAT" in flags:
                    self.assertEqual(int(mode, 8) & 0o177, 0, where)
                    if name not in self.LOCKS and not name.startswith("store.db-"):
                        self.assertIn("O_EXCL", flags, where)
                    made.add(re.sub(r"^\.?(.*?)(\.keyescrow-tmp|\.new)?$", r"\1", name))
        self.assertLessEqual({"out.key", "old.key", "old.key.keyescrow-previous", "alone.key",
                              "app.escrow", "app.escrow.receipt", "events.json", "agent.json",
                              "store.db", "ed25519.seed", "fingerprint.key", "agent.toml",
                              "in-use", "rotation.lock"}, made)

    def test_the_gate_is_hardened(self):
        """It becomes another program, which gets back the limit that it was started with."""
        self.world.escrow()
        text = strace(self, ["prctl", "setrlimit", "prlimit64", "execve"], (), "gate", "app/key",
                      "--override", "only to see", "--", "true")
        before, _, _ = text.rpartition("execve(")
        self.assertRegex(before, r"prctl\(PR_SET_DUMPABLE, SUID_DUMP_DISABLE")
        limits = re.findall(r"(?:setrlimit\(|prlimit64\(0, )RLIMIT_CORE, \{rlim_cur=(\w+)", before)
        self.assertEqual(limits[0], "0", before)
        self.assertEqual(len(limits), 2, before)

    def test_memory_of_argon2(self):
        """The quarter of a GiB that Argon2 fills is no SecretBytes: it is kept out of core dumps, and
        locked as far as the limit goes."""
        self.world.escrow()
        text = strace(self, ["madvise", "mlock2"], (), *RESTORE)
        not_dumped = re.findall(r"madvise\((0x[0-9a-f]+), (\d{7,}), MADV_DONTDUMP\) += 0", text)
        locked = re.findall(r"mlock2\((0x[0-9a-f]+), (\d+), MLOCK_ONFAULT\)", text)
        # A sanitizer keeps its own memory out of core dumps too.
        (_, size), = set(not_dumped) & set(locked)
        self.assertGreaterEqual(int(size), 19456 << 10)


class Writes(unittest.TestCase):
    """Every byte that keyescrow gives to the kernel, by strace; then every file that is left."""

    def setUp(self):
        acceptance.BINARY = PRODUCT
        self.world = memory_test.make_world()
        self.addCleanup(self.world.close)

    def traced(self, *arguments):
        """(pid, call, descriptor's target, bytes) of every call that writes."""
        return list(self.parse(strace(self, WRITES, ("-yy", "-xx", "-s", "1048576"), *arguments)))

    def parse(self, text):
        for line in text.splitlines():
            call = CALL.match(line)
            if not call:
                continue  # a signal, or an end
            pid, name, rest = call.groups()
            target = DESCRIPTOR.match(rest)
            data = b"".join(bytes.fromhex(part.replace("\\x", ""))
                            for part in STRING.findall(rest))
            if name == "socketpair":
                data = rest.partition("[")[2]
            name_of = target.group(1) if target else ""
            if "\\x" in name_of:
                name_of = re.sub(r"\\x([0-9a-f]{2})", lambda m: chr(int(m.group(1), 16)), name_of)
            yield int(pid), name, name_of, data

    def check(self, command, allowed):
        memory_test.prepare(command, self.world)
        calls = self.traced(*memory_test.arguments_of(command, self.world))
        self.assertGreater(len(calls), 20)
        agent = calls[0][0]
        pair = {inode for _, name, _, data in calls if name == "socketpair"
                for inode in re.findall(r"\d{2,}", data)}
        secrets = memory_test.secrets_of(self.world, "app.escrow", memory_test.paths_of(command))
        seen, unknown = set(), {name for _, name, _, _ in calls} - {
            "write", "pwrite64", "writev", "sendto", "sendmsg", "execve", "socketpair"}
        self.assertEqual(unknown, set(), "a way out that this test does not follow")
        worker = {pid for pid, name, _, data in calls if name == "execve" and pid != agent}
        self.assertEqual(len(worker), 0 if command == "tpm" else 1)
        self.assertTrue(any(data[:2] in (b"\x80\x01", b"\x80\x02") and not pair & inodes(target)
                            for _, _, target, data in calls), "the TPM's socket was not seen")
        for pid, name, target, data in calls:
            if name == "socketpair":
                continue
            process = "worker" if pid in worker else "agent"
            for secret, value in secrets.items():
                if not any(pattern in data for _, pattern in forms(value)):
                    continue
                between = "socket to the other" if pair & inodes(target) else target
                where = (secret, process, between)
                seen.add(where)
                self.assertTrue(any(re.fullmatch(rule, "|".join(where)) for rule in allowed),
                                f"{secret} went from the {process} to {target} by {name}")
        self.assertEqual(len(seen), len(allowed), f"seen: {seen}")
        self.search_files(secrets)

    def search_files(self, secrets):
        """mmap needs no call to write: nothing that is left may hold a secret but its own files."""
        own = {"app.key": "key", "out.key": "key", "pw": "password", "pin": "PIN",
               "ed25519.seed": "ed25519.seed", "agent-tpm.auth": "agent-tpm.auth",
               "fingerprint.key": "fingerprint.key"}
        looked = 0
        for path in self.world.folder.rglob("*"):
            relative = path.relative_to(self.world.folder)
            if relative.parts[0] in ("tokens", "tpm.state") or not path.is_file():
                continue  # the devices' own
            data = path.read_bytes()
            looked += 1
            for secret, value in secrets.items():
                if own.get(path.name) != secret:
                    self.assertFalse(any(pattern in data for _, pattern in forms(value)),
                                     f"{secret} stands in {relative}")
        self.assertGreater(looked, 8)

    PIN_TO_WORKER = r"PIN\|agent\|socket to the other"
    BLOCK_TO_AGENT = r"padded S of the token\|worker\|socket to the other"
    KEY_TO_SINK = r"key\|agent\|.*/\.?out\.key[^/]*"

    def test_backup(self):
        self.check("backup", [self.PIN_TO_WORKER, self.BLOCK_TO_AGENT])

    def test_restore_by_token(self):
        self.check("token", [self.PIN_TO_WORKER, self.BLOCK_TO_AGENT, self.KEY_TO_SINK])

    def test_restore_by_tpm(self):
        self.check("tpm", [self.KEY_TO_SINK])


def main():
    global PRODUCT, PAUSED
    parser = argparse.ArgumentParser(usage=__doc__, add_help=False)
    parser.add_argument("--binary", required=True, type=pathlib.Path)
    parser.add_argument("--paused", type=pathlib.Path)
    options, others = parser.parse_known_args()
    PRODUCT = options.binary.resolve(strict=True)
    PAUSED = options.paused.resolve(strict=True) if options.paused else None
    if os.geteuid() != 0:
        sys.exit("needs root: to become another user, and to see a process that forbids it")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    unittest.main(module="__main__", argv=[sys.argv[0]] + others)


if __name__ == "__main__":
    main()
