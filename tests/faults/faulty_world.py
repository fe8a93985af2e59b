"""A World (acceptance/world.py) whose devices misbehave by rules, and what must hold after a fault.

The TPM stands behind simulators/faulty_tcti.cc, the token behind simulators/faulty_pkcs11.cc. A
fault hits the n-th call of a command; each run begins with the same state and devices.
"""

import json
import os
import pathlib
import re
import shutil
import socket
import struct
import time

import world
from world import AcceptanceCase, World

FAULTY_TCTI: pathlib.Path = None  # both set by faults_test.py
FAULTY_PKCS11: pathlib.Path = None
ROOT = pathlib.Path(__file__).resolve().parents[2]
GONE_WITHIN_S = 20
NOTHING_HERE = 8  # not found, or not initialised
BASELINE = "baseline"
KEPT = ("state", "tokens", "live")  # folders that each run begins with as they were
FAULTY = "@faulty"  # in a command: the path of the faulty PKCS#11 module

# Source: TPM 2.0 Part 2, 6.5.2 (TPM_CC).
CLEAR, DA_LOCK_RESET, CREATE_PRIMARY = 0x126, 0x139, 0x131
LOAD, UNSEAL, FLUSH, START_SESSION, GET_CAPABILITY = 0x157, 0x15E, 0x165, 0x176, 0x17A
MAKES_A_HANDLE = (CREATE_PRIMARY, LOAD, START_SESSION)
RH_LOCKOUT = 0x4000000A
TRANSIENT, LOADED_SESSIONS, SAVED_SESSIONS = 0x80000000, 0x02000000, 0x03000000
LOCKOUT_COUNTER = 0x20E


def documented_codes():
    """Code → exit status, by the tables of agent/docs/ERRORS.md."""
    text = (ROOT / "agent/docs/ERRORS.md").read_text()
    return {code: int(status)
            for code, status in re.findall(r"^\| `([a-z0-9_]+)` \| (\d+) \|", text, re.MULTILINE)}


CODES = documented_codes()


class Run:
    """One finished command with the trace of its devices."""

    def __init__(self, done, session, tpm, token):
        self.done, self.session = done, session
        self.status = done.status
        self.tpm = tpm      # (command code, response code or None), in order
        self.token = token  # names of functions, in order

    def __str__(self):
        commands = " ".join("%x:%s" % (code, "-" if rc is None else "%x" % rc)
                            for code, rc in self.tpm)
        return "%s\nTPM: %s\ntoken: %s" % (self.done, commands, " ".join(self.token))

    def error(self):
        return json.loads(self.done.err)["error"]


class FaultyWorld(World):
    def __init__(self, tpm):
        super().__init__(tpm=tpm)
        try:
            self.socket = str(self.path("tpm.sock"))
            tcti = f"{FAULTY_TCTI}:{self.tcti}" if tpm else "none"
            self.configure(tcti, "faults")
            self.environment["FAULTY_PKCS11_MODULE"] = self.module
            self.environment["FAULTY_PKCS11_TOKENS"] = str(self.path("tokens"))
            self.key = os.urandom(32)
            self.write("app.key", self.key)
        except BaseException:
            self.close()
            raise

    def command(self, *arguments):
        return super().command(*(FAULTY_PKCS11 if a == FAULTY else a for a in arguments))

    # --- the state and the devices, as they were

    def keep(self):
        """What is there now is what every later begin_again() brings back."""
        for name in KEPT:
            shutil.rmtree(self.path(BASELINE) / name, ignore_errors=True)
            if self.path(name).exists():
                shutil.copytree(self.path(name), self.path(BASELINE) / name)

    def begin_again(self, *outputs, clear=False):
        for name in outputs:
            self.path(name).unlink(missing_ok=True)
        for name in KEPT:
            shutil.rmtree(self.path(name), ignore_errors=True)
            if (self.path(BASELINE) / name).exists():
                shutil.copytree(self.path(BASELINE) / name, self.path(name))
        if self.tcti != "none":
            self.flush()
            self.raw(CLEAR if clear else DA_LOCK_RESET, handle=RH_LOCKOUT)

    # --- swtpm, asked past every fault

    def raw(self, code, parameters=b"", handle=None):
        """Sends one command, with an empty password where there is a handle; returns what follows
        the header."""
        body = parameters
        if handle is not None:
            password = struct.pack(">IHBH", 0x40000009, 0, 0, 0)
            body = struct.pack(">II", handle, len(password)) + password + parameters
        command = struct.pack(">HII", 0x8001 if handle is None else 0x8002, 10 + len(body),
                              code) + body
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(self.socket)
            connection.sendall(command)
            response = b""
            while len(response) < 10 or len(response) < struct.unpack_from(">I", response, 2)[0]:
                part = connection.recv(4096)
                if not part:
                    raise RuntimeError("swtpm hung up")
                response += part
        rc = struct.unpack_from(">I", response, 6)[0]
        if rc:
            raise RuntimeError("command %x: response code %x" % (code, rc))
        return response[10:]

    def handles(self, first):
        answer = self.raw(GET_CAPABILITY, struct.pack(">III", 1, first, 64))
        count = struct.unpack_from(">I", answer, 5)[0]
        return list(struct.unpack_from(">%dI" % count, answer, 9))

    def left_in_tpm(self):
        return [handle for first in (TRANSIENT, LOADED_SESSIONS, SAVED_SESSIONS)
                for handle in self.handles(first)]

    def flush(self):
        """What the kernel's resource manager does when a client is gone; a bare swtpm has none."""
        for handle in self.left_in_tpm():
            self.raw(FLUSH, struct.pack(">I", handle))

    def lockout_counter(self):
        answer = self.raw(GET_CAPABILITY, struct.pack(">III", 6, LOCKOUT_COUNTER, 1))
        return struct.unpack_from(">I", answer, 13)[0]

    # --- keyescrow under faults

    def traced(self, *arguments, tpm="", token=""):
        """Runs with rules; runs at the same time differ in their rules."""
        traces = [self.path(f"{name}.trace") for name in ("tpm" + tpm, "token" + token)]
        for trace in traces:
            trace.unlink(missing_ok=True)
        begin = time.monotonic()
        child = self.start(*arguments, env={
            "FAULTY_TCTI_RULES": tpm, "FAULTY_TCTI_TRACE": str(traces[0]),
            "FAULTY_PKCS11_RULES": token, "FAULTY_PKCS11_TRACE": str(traces[1])})
        try:
            out, err = child.communicate(timeout=world.within(world.COMMAND_TIMEOUT_S))
        except BaseException:
            child.kill()
            child.communicate()
            raise
        lines = [trace.read_text().split("\n")[:-1] if trace.exists() else [] for trace in traces]
        for trace in traces:
            trace.unlink(missing_ok=True)
        commands = [(int(code, 16), None if rc == "-" else int(rc, 16))
                    for code, rc in (line.split() for line in lines[0])]
        done = world.Done([str(a) for a in arguments], child.returncode, out, err,
                          time.monotonic() - begin)
        return Run(done, child.pid, commands, lines[1])


def processes_of(session):
    """Every process that still runs in the session that the command was started in."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            name, fields = (entry / "stat").read_text().rsplit(")", 1)
        except OSError:
            continue  # it ended meanwhile
        state, _, _, its_session = fields.split()[:4]
        if int(its_session) == session and state not in "ZX":
            found.append(name + ")")
    return found


class FaultCase(AcceptanceCase):
    """One FaultyWorld a class. `statuses` is what the command's own help documents."""

    paths = None
    tpm = True

    @classmethod
    def setUpClass(cls):
        cls.world = FaultyWorld(cls.tpm)
        cls.addClassCleanup(cls.world.close)
        cls.statuses = {}
        cls.prepare()
        cls.world.keep()

    @classmethod
    def prepare(cls):
        pass

    @classmethod
    def escrowed(cls):
        """init, token add, and one key under paths that take no password: those are quick."""
        cls.world.must("init")
        cls.add_token_and_back_up("app/key")

    @classmethod
    def add_token_and_back_up(cls, name):
        cls.world.must("token", "add", "ops", "pkcs11:token=ops", "--module", FAULTY, "--pin-file",
                       "pin")
        paths = ("--path", "tpm", "--path", "token:ops") if cls.tpm else ("--path", "token:ops")
        cls.world.must("backup", name, "--from", "app.key", *paths, "--pin-file", "pin")

    def documented(self, *command):
        if command not in self.statuses:
            text = self.world.must(*command, "--help").out.decode().split("Exit status\n")[1]
            self.statuses[command] = {int(s) for s in re.findall(r"^ +(\d+)  ", text, re.MULTILINE)}
        return self.statuses[command]

    def ends_well(self, run, *command):
        """The exit status is one that the command documents, the error one with a code and an
        action other than to report a bug."""
        self.assertIn(run.status, self.documented(*command), str(run))
        if run.status > 1:
            error = run.error()
            self.assertEqual(set(error), {"code", "action", "failure", "message", "hint"}, str(run))
            self.assertIn(error["code"], CODES, str(run))
            self.assertNotEqual(error["code"], "internal", str(run))
            self.assertNotEqual(error["action"], "report_bug", str(run))
            self.assertTrue(error["message"] and error["hint"], str(run))
        self.nothing_runs(run)

    def nothing_runs(self, run):
        deadline = time.monotonic() + world.within(GONE_WITHIN_S)
        while left := processes_of(run.session):
            self.assertLess(time.monotonic(), deadline, f"{left} still runs after\n{run}")
            time.sleep(0.01)

    def snapshot(self):
        return self.world.snapshot(but=(*KEPT, "tpm.state", BASELINE))

    def no_new_file(self, before, run, *but):
        after = self.snapshot()
        changed = {name for name in before.keys() | after.keys()
                   if before.get(name) != after.get(name)}
        self.assertEqual(changed - set(but), set(), str(run))
        left = [str(p) for p in self.world.folder.rglob("*" + world.TEMPORARY + "*")]
        self.assertEqual(left, [], str(run))

    def holds_the_key_or_nothing(self, name, run):
        """A destination is there exactly if the command says so, and then it holds the key."""
        path = self.world.path(name)
        self.assertEqual(path.exists(), run.status == 0, str(run))
        if path.exists():
            self.assertEqual(path.read_bytes(), self.world.key, str(run))
            path.unlink()

    def verifies_after(self, run):
        """Nothing is damaged; a TPM that did not sign and a restore without its end are findings."""
        done = self.world.run("verify", "--json")
        text = f"{done}\nafter\n{run}"
        document = done.json()
        self.assertEqual(document["num_bad"], 0, text)
        findings = [f for item in document["items"] for f in item["findings"]]
        expected = ("missing_p256", "release_without_outcome")
        self.assertEqual([f for f in findings if f["fault"] not in expected], [], text)
        expected = 1 if findings else 0
        self.assertEqual(done.status, expected if document["num_envelopes"] else NOTHING_HERE,
                         text)
