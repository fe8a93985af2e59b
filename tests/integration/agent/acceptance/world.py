"""A machine of one's own for acceptance tests: a swtpm, SoftHSM tokens, and keyescrow's binary.

World makes a folder of mode 0700 with a short name (unix sockets allow 107 bytes), ends what it
started by process id, and removes the folder. Nothing of the machine's own leaks in.
"""

import argparse
import ctypes
import glob
import hashlib
import json
import os
import pathlib
import pty
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import unittest

BINARY: pathlib.Path = None  # set by acceptance_test.py
COMMAND_TIMEOUT_S = 120
PIN, SO_PIN = "24681357", "8765432187654321"
USUAL_PIN = PIN  # a test that searches memory sets one of its own
PASSWORD = "correct horse battery staple 7"
NOBODY = 65534
TEMPORARY = ".keyescrow-tmp"  # what a half-written destination would leave
PR_SET_PDEATHSIG = 1
SECOND_DECODER = pathlib.Path(__file__).resolve().parents[3] / "second_decoder"


def listens(socket):
    """Whether a process takes connections at a Unix socket. Its file is there a moment before that."""
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as sockets:
        rows = [line.split(maxsplit=7) for line in sockets]
    return any(len(row) == 8 and row[3] == "00010000" and row[7].strip() == str(socket)
               for row in rows)


def build_folder(binary):
    """The build folder that the binary lies in; None where it lies elsewhere."""
    for folder in binary.parents:
        if (folder / "tests/slowness").exists():
            return folder
    return None


def slowness(binary):
    """By how much a limit of time is multiplied for this build (tests/CMakeLists.txt)."""
    folder = build_folder(binary)
    return int((folder / "tests/slowness").read_text()) if folder else 1


def within(seconds):
    """`seconds` in a plain build; in one that a sanitizer or gcov slows down, more."""
    return seconds * slowness(BINARY)


def soft_hsm_module():
    found = glob.glob("/usr/lib/softhsm/libsofthsm2.so") + glob.glob(
        "/usr/lib/*/softhsm/libsofthsm2.so")
    if not found:
        raise RuntimeError("SoftHSM's module is missing (package softhsm2)")
    return found[0]


def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Done:
    """One finished command."""

    def __init__(self, arguments, status, out, err, seconds):
        self.arguments, self.status, self.seconds = arguments, status, seconds
        self.out, self.err = out, err

    def __str__(self):
        text = lambda data: data.decode("utf-8", errors="backslashreplace")
        return "%s\nexit %s\nstdout: %s\nstderr: %s" % (
            " ".join(self.arguments), self.status, text(self.out), text(self.err))

    def json(self):
        return json.loads(self.out)


# The format's least: a test of something else need not wait for a slow guess at its own password.
LEAST_COSTS = """[defaults]
argon2id_memory_kib = 19456
argon2id_passes = 2
argon2id_lanes = 1
pbkdf2_iterations = 210000
"""


class World:
    """`ordinary_user` runs keyescrow without root's rights, on a copy of the binary, without TPM."""

    def __init__(self, tpm=True, token=True, ordinary_user=False, costs=LEAST_COSTS):
        self.costs = costs  # [defaults] of agent.toml
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="ka.", dir="/tmp"))
        self.processes = []
        self.binary = BINARY
        self.launcher = []  # a command that starts the binary: simulators/kill_at and its arguments
        self.module = soft_hsm_module()
        self.user = NOBODY if ordinary_user and os.geteuid() == 0 else None
        home = str(self.folder)
        self.environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": home,
            "XDG_CONFIG_HOME": f"{home}/.config",
            "XDG_STATE_HOME": f"{home}/.state",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "TERM": "dumb",
            "KEYESCROW_STATE": f"{home}/state",
            "KEYESCROW_CONFIG": f"{home}/agent.toml",
            "SOFTHSM2_CONF": f"{home}/softhsm2.conf",
            "KEYESCROW_JOURNALD_SOCKET": "none",  # the machine's journal is not ours to write to
        }
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "GCOV_PREFIX"):
            if name in os.environ:
                self.environment[name] = os.environ[name]
        try:
            if ordinary_user:
                shutil.copy(self.binary, self.folder / "keyescrow")
                self.binary = self.folder / "keyescrow"
            self.tcti = self.start_tpm("tpm") if tpm else "none"
            self.configure(self.tcti)
            self.write("pin", PIN + "\n")
            self.write("pw", PASSWORD + "\n")
            self.write("wrong", "another horse entirely 8\n")
            if token:
                self.configure_tokens("softhsm2.conf", "tokens")
                self.configure_tokens("no-token.conf", "no-tokens")
                self.copy_token("ops")
            self.give_to_user()
        except BaseException:
            self.close()
            raise

    # --- files

    def path(self, name):
        return self.folder / name

    def write(self, name, data, mode=0o600):
        path = self.folder / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        path.chmod(mode)
        if self.user is not None:
            os.chown(path, self.user, self.user)
        return path

    def give_to_user(self):
        if self.user is None:
            return
        for folder, folders, files in os.walk(self.folder):
            for name in ["."] + folders + files:
                os.chown(os.path.join(folder, name), self.user, self.user, follow_symlinks=False)

    def snapshot(self, but=("state", "copy", "tokens", "tpm.state", "other.state")):
        """Name → (kind and mode, content) of every file outside of state and devices."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            relative = path.relative_to(self.folder)
            status = path.lstat()
            if relative.parts[0] in but or stat.S_ISSOCK(status.st_mode):
                continue
            content = ""
            if stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            found[str(relative)] = (status.st_mode, content)
        return found

    def configure(self, tcti, host="acceptance"):
        self.write("agent.toml", f'[agent]\nhost = "{host}"\ntpm = "{tcti}"\n' + self.costs)

    # --- devices

    def start_tpm(self, name):
        socket, state = self.folder / f"{name}.sock", self.folder / f"{name}.state"
        state.mkdir(mode=0o700, exist_ok=True)
        process = subprocess.Popen(
            ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}",
             "--server", f"type=unixio,path={socket}",
             "--ctrl", f"type=unixio,path={socket}.ctrl",
             "--flags", "not-need-init,startup-clear"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent)
        self.processes.append(process)
        deadline = time.monotonic() + 20
        while not (listens(socket) and listens(f"{socket}.ctrl")):
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError("swtpm did not start")
            time.sleep(0.02)
        self.tpm_process = process
        return f"swtpm:path={socket}"

    def kill_tpm(self):
        self.tpm_process.kill()
        self.tpm_process.wait()
        for name in ("tpm.sock", "tpm.sock.ctrl"):
            (self.folder / name).unlink(missing_ok=True)

    def tpm_tool(self, *arguments, tcti=None):
        environment = dict(self.environment, TPM2TOOLS_TCTI=tcti or self.tcti)
        return subprocess.run(arguments, env=environment, cwd=self.folder, check=True,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout

    def configure_tokens(self, name, folder):
        (self.folder / folder).mkdir(mode=0o700, exist_ok=True)
        self.write(name, f"directories.tokendir = {self.folder / folder}\n"
                         "objectstore.backend = file\nlog.level = ERROR\nslots.removable = true\n")

    def copy_token(self, label):
        """make_token, but the key pair is generated once for all the tests of a build folder: half a
        second each otherwise. A world that needs another token of that label makes one."""
        folder = build_folder(BINARY)
        if folder is None or PIN != USUAL_PIN:
            self.make_token(label)
            return
        kept = folder / "tests" / f"token-{label}"
        if not kept.exists():
            self.make_token(label)
            part = pathlib.Path(tempfile.mkdtemp(prefix=f"token-{label}.", dir=kept.parent))
            shutil.copytree(self.folder / "tokens", part / "tokens")
            try:
                part.rename(kept)
            except OSError:  # another test was first
                shutil.rmtree(part)
            return
        shutil.copytree(kept / "tokens", self.folder / "tokens", dirs_exist_ok=True)

    def make_token(self, label, conf="softhsm2.conf"):
        environment = dict(self.environment, SOFTHSM2_CONF=str(self.folder / conf))
        tool = ["pkcs11-tool", "--module", self.module]
        free = "0"
        for line in subprocess.run(tool + ["-L"], env=environment, capture_output=True, text=True,
                                   check=True).stdout.splitlines():
            if line.startswith("Slot "):
                slot = line.split()[1]
            if "uninitialized" in line:
                free = slot
        for arguments in (
            ["--slot-index", free, "--init-token", "--label", label, "--so-pin", SO_PIN],
            ["--token-label", label, "--login", "--login-type", "so", "--so-pin", SO_PIN,
             "--init-pin", "--new-pin", PIN],
            ["--token-label", label, "--login", "--pin", PIN, "--keypairgen",
             "--key-type", "rsa:2048", "--id", "01", "--label", "escrow", "--usage-decrypt"],
        ):
            done = subprocess.run(tool + arguments, env=environment, capture_output=True,
                                  stdin=subprocess.DEVNULL, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"the token could not be made: {done.stderr}")

    # --- keyescrow

    def command(self, *arguments):
        prefix = []
        if self.user is not None:
            prefix = [shutil.which("setpriv"), f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups",
                      "--inh-caps=-all", "--bounding-set=-all"]
        return [*self.launcher, *prefix, str(self.binary), *map(str, arguments)]

    def start(self, *arguments, env=None, cwd=None, stdin=subprocess.DEVNULL, before=None,
              **options):
        """Starts keyescrow in a session without a terminal; `before` runs in the child."""
        def prepare():
            os.umask(0o022)
            if before:
                before()
        environment = {**self.environment, **(env or {})}
        if "LD_PRELOAD" in environment:  # a sanitizer would have its own library first
            environment["ASAN_OPTIONS"] = "verify_asan_link_order=0:" + environment.get(
                "ASAN_OPTIONS", "")
        if self.launcher:  # the leak check is a tracer itself
            environment["ASAN_OPTIONS"] = "detect_leaks=0:" + environment.get("ASAN_OPTIONS", "")
        return subprocess.Popen(
            self.command(*arguments), cwd=cwd or self.folder, stdin=stdin,
            env={name: value for name, value in environment.items() if value is not None},
            start_new_session=True, preexec_fn=prepare,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options})

    def run(self, *arguments, input=None, **options):
        if input is not None:
            options["stdin"] = subprocess.PIPE
        begin = time.monotonic()
        child = self.start(*arguments, **options)
        try:
            out, err = child.communicate(input, timeout=within(COMMAND_TIMEOUT_S))
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            raise
        return Done([str(a) for a in arguments], child.returncode, out or b"", err or b"",
                    time.monotonic() - begin)

    def run_on_terminal(self, *arguments, answers):
        """Runs with a controlling terminal and types each answer when the output stands still."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(self.folder)
            command = self.command(*arguments)
            os.execvpe(command[0], command, self.environment)
        seen, answers = b"", list(answers)
        deadline = time.monotonic() + within(COMMAND_TIMEOUT_S)
        os.set_blocking(terminal, False)
        quiet_since = time.monotonic()
        while time.monotonic() < deadline:
            try:
                part = os.read(terminal, 4096)
                if not part:
                    break
                seen, quiet_since = seen + part, time.monotonic()
            except BlockingIOError:
                if answers and seen.rstrip(b" ").endswith(b":") and (
                        time.monotonic() - quiet_since > 0.3):
                    os.write(terminal, answers.pop(0).encode() + b"\n")
                    quiet_since = time.monotonic()
                time.sleep(0.02)
            except OSError:
                break
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.close(terminal)
        return Done([str(a) for a in arguments], status, seen, b"", 0.0)

    def escrow(self, name="app/key", *more, size=32, paths=("password & token:ops",)):
        """init, token add, backup: afterwards `app.key` holds the key, `app.escrow` the envelope."""
        self.key = os.urandom(size)
        self.write("app.key", self.key)
        done = self.must("init", "--json")
        self.thumbprint = done.json()["thumbprint"]
        if any("token:ops" in path for path in paths):
            self.must("token", "add", "ops", "pkcs11:token=ops", "--module", self.module,
                      "--pin-file", "pin")
        arguments = [word for path in paths for word in ("--path", path)]
        self.must("backup", name, "--from", "app.key", *arguments, "--password-file", "pw",
                  "--pin-file", "pin", "-o", "app.escrow", *more)

    def must(self, *arguments, **options):
        done = self.run(*arguments, **options)
        if done.status != 0:
            raise AssertionError(str(done))
        return done

    def close(self):
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


BOTH_PATHS = ("password & token:ops", "password & tpm")
UNLOCK = ("--password-file", "pw", "--pin-file", "pin")


class AcceptanceCase(unittest.TestCase):
    """One world a class; after each test the store verifies and no half-written file is left."""

    world_options = {}
    paths = ("password & token:ops",)
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.world = World(**cls.world_options)
        cls.addClassCleanup(cls.world.close)
        if cls.paths:
            cls.world.escrow(paths=cls.paths)

    def tearDown(self):
        if self.paths:
            self.verifies()
        left = [str(p) for p in self.world.folder.rglob("*" + TEMPORARY + "*")]
        self.assertEqual(left, [], "a half-written file was left behind")

    def succeeds(self, *arguments, **options):
        done = self.world.run(*arguments, **options)
        self.assertEqual(done.status, 0, str(done))
        return done

    def verifies(self):
        """Nothing is damaged. Findings that tests make: a TPM that did not sign of late, restores that
        were killed before their end was logged, and a counter that was elsewhere and accepted."""
        done = self.world.run("verify", "--json")
        document = done.json()
        self.assertEqual(document["num_bad"], 0, str(done))
        findings = [finding for item in document["items"] for finding in item["findings"]]
        expected = ["missing_p256", "release_without_outcome", "anchor_mismatch"]
        tpm = getattr(self.world, "tpm_process", None)
        if tpm and tpm.poll() is not None:
            expected.append("anchor_missing")
        self.assertEqual([f for f in findings if f["fault"] not in expected], [], str(done))
        self.assertEqual(done.status, 1 if findings else 0, str(done))

    def check_text(self, done, status):
        """`error:` and `hint:`, lower case, no full stop, in this order, at the end."""
        self.assertEqual(done.status, status, str(done))
        self.assertEqual(done.out, b"", str(done))
        lines = done.err.decode().splitlines()
        self.assertGreaterEqual(len(lines), 2, str(done))
        for line, prefix in zip(lines[-2:], ("error: ", "hint: ")):
            self.assertTrue(line.startswith(prefix), str(done))
            self.assertFalse(line.endswith("."), str(done))
            self.assertFalse(line[len(prefix)].isupper(), str(done))

    def check_json(self, done, code, status):
        self.assertEqual(done.status, status, str(done))
        self.assertEqual(done.out, b"", str(done))
        try:
            error = json.loads(done.err)["error"]  # the whole of it is one document
        except ValueError:
            self.fail("standard error is not one JSON document\n" + str(done))
        self.assertEqual(set(error), {"code", "action", "failure", "message", "hint"})
        self.assertEqual(error["code"], code, str(done))
        self.assertTrue(error["message"] and error["hint"] and error["action"], str(done))
        return error

    def refused(self, code, status, *arguments, num_runs=2, **options):
        """Runs as a person and (num_runs = 2) as a program; nothing may change meanwhile."""
        before = self.world.snapshot()
        if num_runs > 1:
            self.check_text(self.world.run(*arguments, **options), status)
        error = self.check_json(self.world.run(*arguments, "--json", **options), code, status)
        self.assertEqual(self.world.snapshot(), before)
        return error

    def restored(self, name, *arguments, **options):
        """Restores to `name` and compares; removes it again."""
        done = self.succeeds("restore", "app/key", "--to", name, *UNLOCK, *arguments, **options)
        path = self.world.path(name)
        self.assertEqual(path.read_bytes(), self.world.key)
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        path.unlink()
        return done


def parse_arguments(doc, *files):
    """Takes --binary, and --NAME FILE for each of `files`; returns them and unittest's arguments."""
    global BINARY
    parser = argparse.ArgumentParser(usage=doc, add_help=False)
    for name in ("binary", *files):
        parser.add_argument("--" + name.replace("_", "-"), required=True, type=pathlib.Path)
    options, others = parser.parse_known_args()
    for name in ("binary", *files):
        setattr(options, name, getattr(options, name).resolve(strict=True))
    BINARY = options.binary
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return options, others
