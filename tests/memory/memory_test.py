#!/usr/bin/env python3
"""keyescrow stopped at its worst moments: secrets stand in SecretBytes alone.

  memory_test.py --binary KEYESCROW_PAUSED MOMENT

MOMENT is COMMAND.POINT of MOMENTS. Needs root, to read the memory of a process that forbids it.
"""

import argparse
import fcntl
import os
import pathlib
import pty
import signal
import subprocess
import sys
import termios
import time

sys.dont_write_bytecode = True
TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "integration/agent/acceptance"), str(TESTS / "second_decoder")]

import devices  # noqa: E402
import header  # noqa: E402
import opening  # noqa: E402
import primitives  # noqa: E402
import vectors  # noqa: E402
import world as acceptance  # noqa: E402
from process_memory import children_of, find_secrets, is_stopped, read_memory  # noqa: E402

DEADLINE_S = 120
REST_S = 0.6  # an agent that leaves waits a second for its worker

# Each command with its points, and what SecretBytes must hold there, of the worker where the point
# is the worker's: it shows that the test sees secrets. The code names the points: PausePoint("...").
MOMENTS = {
    "backup.key-read": ["key"],
    "backup.password-read": ["key", "password"],
    "backup.password-stretched": ["password", "S of the password"],
    "backup.factors-made": ["key", "S of the password", "S of the token", "S of the tpm"],
    "backup.content-sealed": ["key", "file key", "content key"],
    "backup.before-commit": ["key"],
    "backup.pin-read": ["key", "PIN"],
    "backup.worker-logged-in": ["PIN"],
    "backup.worker-decrypted": ["padded S of the token"],
    "backup.tpm-unsealed": ["auth value", "S of the tpm"],
    "backup.content-key-derived": ["file key", "content key"],
    "backup.worker-end": [],
    "backup.agent-end": [],
    "token.password-read": ["password"],
    "token.password-stretched": ["S of the password"],
    "token.pin-read": ["PIN"],
    "token.worker-logged-in": ["PIN"],
    "token.worker-decrypted": ["padded S of the token"],
    "token.token-opened": ["S of the token", "S of the password"],
    "token.path-key-derived": ["path key", "S of the token"],
    "token.file-key-open": ["path key", "file key"],
    "token.content-key-derived": ["file key", "content key"],
    "token.content-open": ["key"],
    "token.key-written": ["key"],
    "token.worker-end": [],
    "token.agent-end": [],
    "tpm.tpm-unsealed": ["auth value", "S of the tpm"],
    "tpm.content-open": ["key"],
    "tpm.agent-end": [],
    "ecdhbackup.factors-made": ["S of the token"],
    "ecdhbackup.worker-derived": ["shared point"],
    "ecdhbackup.agent-end": [],
    "ecdh.worker-logged-in": ["PIN"],
    "ecdh.worker-derived": ["shared point"],
    "ecdh.token-opened": ["S of the token"],
    "ecdh.worker-end": [],
    "ecdh.agent-end": [],
    "pbkdf2.password-stretched": ["password", "S of the password"],
    "pbkdf2.agent-end": [],
    "exec.key-read": ["key"],
    "exec.agent-end": [],
    "typed.password-read": ["password"],
    "typed.pin-read": ["PIN"],
    "typed.agent-end": [],
    "stdin.key-read": ["key"],
    "stdin.agent-end": [],
    "stdout.key-written": ["key"],
    "stdout.agent-end": [],
}
BACKUPS = ("backup", "ecdhbackup", "pbkdf2", "stdin", "exec")


class Spy(devices.DeviceWorld):
    """Notes what the devices give to the second decoder."""

    def __init__(self, seen, *arguments):
        super().__init__(*arguments)
        self.seen = seen

    def _token(self, factor):
        token, key_id = super()._token(factor)
        operate = token.operate

        def noted(*arguments):
            out = operate(*arguments)
            if factor.type == "pkcs11-rsa" and len(out) == len(factor.wrapped):  # SoftHSM's raw operation: a block with its padding
                self.seen["padded S of the token"] = out
            return out

        token.operate = noted
        return token, key_id

    def ecdh(self, factor):
        self.seen["shared point"] = super().ecdh(factor)
        self.seen["S of the token"] = primitives.x963_sha256(self.seen["shared point"], factor.info)
        return self.seen["shared point"]

    def rsa(self, factor):
        self.seen["S of the token"] = super().rsa(factor)
        return self.seen["S of the token"]

    def unseal(self, factor, auth_value):
        self.seen["auth value"] = auth_value
        self.seen["S of the tpm"] = super().unseal(factor, auth_value)
        return self.seen["S of the tpm"]


def secrets_of(world, envelope_file, path_ids):
    """Name → bytes of everything that opens the envelope, by the second decoder."""
    seen, plain_hkdf, plain_stretch = {}, primitives.hkdf, opening.stretch

    def hkdf(key, info, length):
        out = plain_hkdf(key, info, length)
        if info.startswith("keyescrow1|path|"):
            seen["path key of " + path_id] = out[:64]
            seen["drill seed of " + path_id] = out[64:]
            seen["path key"] = out[:64]
        elif info.startswith("keyescrow1|content|"):
            seen["file key"], seen["content key"] = key, out
        return out

    def stretch(factor, typed):
        seen["S of the password"] = plain_stretch(factor, typed)
        return seen["S of the password"]

    os.environ["SOFTHSM2_CONF"] = world.environment["SOFTHSM2_CONF"]
    envelope = header.read(world.path(envelope_file).read_bytes(),
                           [vectors.parse_trust(world.thumbprint)])
    token = devices.Token(world.module, "ops", acceptance.PIN)
    decoder = Spy(seen, acceptance.PASSWORD.encode(), [token], world.tcti)
    primitives.hkdf, opening.stretch = hkdf, stretch
    try:
        for path_id in path_ids:
            if opening.open_path(envelope, path_id, decoder) != world.key:
                raise AssertionError("the second decoder opens another key")
    finally:
        primitives.hkdf, opening.stretch = plain_hkdf, plain_stretch
        decoder.close()
    seen.update({"key": world.key, "password": acceptance.PASSWORD.encode(),
                 "PIN": acceptance.PIN.encode()})
    for name in ("ed25519.seed", "agent-tpm.auth", "fingerprint.key"):
        seen[name] = world.path("state").joinpath(name).read_bytes()
    return seen


def make_world(**options):
    """A world whose secrets stand in no dictionary, program or other test."""
    acceptance.PIN = os.urandom(12).hex()
    acceptance.PASSWORD = os.urandom(16).hex() + "-Zo\u0308e"  # to be normalised
    return acceptance.World(**options)


def paths_of(command):
    if command == "tpm":
        return ("tpm",)
    return ("token-ops", "tpm") if command in ("backup", "stdin") else ("token-ops",)


def arguments_of(command, world):
    unlock = () if command == "typed" else acceptance.UNLOCK
    if command in BACKUPS:
        source = {"stdin": "-", "exec": "exec:cat app.key"}.get(command, "app.key")
        paths = ["--path", "password & token:ops"]
        if "tpm" in paths_of(command):
            paths += ["--path", "password & tpm"]
        kdf = ["--kdf", "pbkdf2-sha512"] if command == "pbkdf2" else []
        return ["backup", "app/key", "--from", source, *paths, *kdf, *unlock, "-o", "app.escrow"]
    via = "tpm" if command == "tpm" else "token-ops"
    sink = "-" if command == "stdout" else "out.key"
    return ["restore", "app/key", "--via", via, *unlock, "--to", sink]


def prepare(command, world):
    world.key = os.urandom(64)
    world.write("app.key", world.key)
    world.thumbprint = world.must("init", "--json").json()["thumbprint"]
    uri = "pkcs11:token=ops;object=escrow"
    if command.startswith("ecdh"):
        uri = "pkcs11:token=ops;object=curve"
        subprocess.run(["pkcs11-tool", "--module", world.module, "--token-label", "ops", "--login",
                        "--pin", acceptance.PIN, "--keypairgen", "--key-type", "EC:prime256v1",
                        "--id", "02", "--label", "curve", "--usage-derive"],
                       env=world.environment, stdin=subprocess.DEVNULL, capture_output=True,
                       check=True)
    world.must("token", "add", "ops", uri, "--module", world.module, "--pin-file", "pin")
    if command == "ecdh":
        world.must(*arguments_of("ecdhbackup", world))
    elif command not in BACKUPS:
        world.must(*arguments_of("backup", world))


def wait_until(condition, deadline_s):
    """For what has no event, as the stop of a grandchild; true when it came about."""
    deadline = time.monotonic() + deadline_s
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.002)
    return bool(met)


def rests(pid):
    """Whether a process slept for a moment. While a worker is stopped, its agent runs on until it waits
    for it, and may just be signing: libcrypto has a key of its own then, until the signature is made."""
    def used():
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return stat[0], stat[11], stat[12], pathlib.Path(f"/proc/{pid}/status").read_text().split(
            "voluntary_ctxt_switches:")[1].split()[0]

    before = used()
    time.sleep(0.02)
    return before[0] == "S" and used() == before


def memory_of(pid):
    """The memory of a process, None of one that has ended: a worker that was told to leave does so
    while it is read, and one that works on maps and unmaps."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return read_memory(pid)
        except (FileNotFoundError, ProcessLookupError):
            return None
        except OSError:
            if is_stopped(pid) or time.monotonic() > deadline:
                raise


class Terminal:
    """A terminal of the command's own; types the next answer when one is asked for, unseen."""

    def __init__(self, answers):
        self.answers = list(answers)
        self.master, self.slave = pty.openpty()
        os.set_blocking(self.master, False)
        self.seen = b""

    def options(self):
        return {"stdin": self.slave, "stdout": self.slave, "stderr": self.slave,
                "before": lambda: fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)}

    def turn(self):
        try:
            self.seen += os.read(self.master, 4096)
        except BlockingIOError:
            pass
        echo = termios.tcgetattr(self.slave)[3] & termios.ECHO
        if self.answers and not echo and self.seen.rstrip(b" ").endswith(b":"):
            os.write(self.master, self.answers.pop(0).encode() + b"\n")
            self.seen = b""

    def close(self):
        os.close(self.master)
        os.close(self.slave)


def pauses(child, at_pause, turn):
    """Calls at_pause(agent, workers) at every stop; returns the exit status."""
    def step():
        pid, status = os.waitpid(child.pid, os.WNOHANG | os.WUNTRACED)
        if pid and not os.WIFSTOPPED(status):
            child.returncode = os.waitstatus_to_exitcode(status)
            return True
        workers = children_of(child.pid)
        stopped = [child.pid] if pid else []
        stopped += [worker for worker in workers if is_stopped(worker)]
        if stopped:
            at_pause(child.pid, workers)
            for each in stopped:
                os.kill(each, signal.SIGCONT)
        turn()
        return False

    if not wait_until(step, DEADLINE_S):
        child.kill()
        child.wait()
        raise AssertionError("the command did not end")
    return child.returncode


def snapshots_at(world, command, point):
    """The memory of agent and workers at every stop, after the command has come to its end."""
    taken = []

    def take(agent, workers):
        snapshot = []
        for worker in workers:
            memory = memory_of(worker)
            if memory is not None:
                snapshot.append(("worker", memory))
            elif point.startswith("worker-"):
                raise AssertionError("a worker ended at its own point")
        if point.startswith("worker-"):
            wait_until(lambda: rests(agent), REST_S)
        taken.append([("agent", memory_of(agent)), *snapshot])

    terminal = Terminal([acceptance.PASSWORD, acceptance.PIN]) if command == "typed" else None
    with open(world.path("app.key" if command == "stdin" else "/dev/null"), "rb") as source, \
            open(world.path("output"), "w+b") as output:
        options = {"stdin": source, "stdout": output, "stderr": output}
        child = world.start(*arguments_of(command, world), env={"KEYESCROW_PAUSE_AT": point},
                            **(terminal.options() if terminal else options))
        status = pauses(child, take, terminal.turn if terminal else lambda: None)
        output.seek(0)
        if status != 0:
            said = terminal.seen if terminal else output.read()
            raise AssertionError(f"{command}: exit status {status}: {said!r}")
    if terminal:
        terminal.close()
    return taken


def check(moment, verbose):
    command, point = moment.split(".")
    if os.geteuid() != 0:
        sys.exit("needs root: the memory of a process that is not dumpable is root's alone")
    # Once with the memory that Argon2 takes by default.
    world = make_world(**({"costs": ""} if moment == "backup.password-stretched" else {}))
    try:
        prepare(command, world)
        taken = snapshots_at(world, command, point)
        if not taken:
            sys.exit(f"{moment}: never came there")
        secrets = secrets_of(world, "app.escrow", paths_of(command))
    finally:
        world.close()
    bad, kept = [], set()
    stopped = "worker" if point.startswith("worker-") else "agent"
    for number, snapshot in enumerate(taken, start=1):
        for process, regions in snapshot:
            size = sum(len(region.data) for region in regions)
            print(f"{moment}, stop {number}, {process}: {size >> 10} KiB in {len(regions)} regions")
            at_end = process == stopped and point.endswith("-end")
            for finding in find_secrets(regions, secrets):
                if not finding.region.is_secret or at_end:
                    bad.append(f"stop {number}, {process}: {finding}")
                elif process == stopped:
                    kept.add(finding.secret)
    for line in bad[:None if verbose else 40]:
        print(line)
    missing = [name for name in MOMENTS[moment] if name not in kept]
    if missing:
        print("expected in the memory of SecretBytes, and not there: " + ", ".join(missing))
    print(f"{len(bad)} findings; in SecretBytes: " + (", ".join(sorted(kept)) or "nothing"))
    return 1 if bad or missing else 0


def main():
    parser = argparse.ArgumentParser(usage=__doc__, add_help=False)
    parser.add_argument("--binary", required=True, type=pathlib.Path)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("moment", choices=MOMENTS)
    options = parser.parse_args()
    acceptance.BINARY = options.binary.resolve(strict=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return check(options.moment, options.verbose)


if __name__ == "__main__":
    sys.exit(main())
