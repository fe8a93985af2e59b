"""Runs command-line transcripts against a built keyescrow.

  run_transcripts.py --binary FILE TRANSCRIPT...

A transcript is a text file:

  # a comment; `# needs: tpm token` at the top starts a swtpm and makes a SoftHSM token of its own
  $ keyescrow version          a command, run by bash; a `> ` line continues it
  keyescrow [..]               lines of its standard output
  ! hint: [..]                 lines of its standard error
  ? 8                          its exit status; 0 where the line is missing

`[..]` stands for any text within a line; a line of `[...]` alone (or `! [...]`) for any number of
lines, none included. Both streams are compared whole: a command without lines must print nothing.

Each transcript has an empty folder of its own as working directory and HOME, state that does not
exist yet ($KEYESCROW_STATE), keyescrow on the PATH, umask 077, and no terminal. With `needs: token`
there are $MODULE, the token `pkcs11:token=cli` with an RSA key, and ./pin; with `needs: tpm` $TPM
(a TCTI string, also named by ./agent.toml) and $OTHER_TPM, another machine's.
"""

import argparse
import glob
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

COMMAND_TIMEOUT_S = 600  # ends what hangs, under sanitizers as well; no promise is measured by it
SO_PIN, USER_PIN = "87654321", "246810"


def listens(socket):
    """Whether a process takes connections at a Unix socket. Its file is there a moment before that."""
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as sockets:
        rows = [line.split(maxsplit=7) for line in sockets]
    return any(len(row) == 8 and row[3] == "00010000" and row[7].strip() == str(socket)
               for row in rows)


class Command:
    def __init__(self, line_number: int, text: str):
        self.line_number = line_number
        self.text = text
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self.status = 0


def parse(path: pathlib.Path) -> tuple[set[str], list[Command]]:
    needs: set[str] = set()
    commands: list[Command] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("$ "):
            commands.append(Command(number, line[2:]))
        elif line.startswith("# needs:"):
            needs |= set(line.removeprefix("# needs:").split())
        elif line.startswith("#") or (not line and not commands):
            continue
        elif not commands:
            raise SystemExit(f"{path}:{number}: output before the first command")
        elif line.startswith("> "):
            commands[-1].text += "\n" + line[2:]
        elif line == "!" or line.startswith("! "):
            commands[-1].stderr.append(line[2:])
        elif line.startswith("? "):
            commands[-1].status = int(line[2:])
        else:
            commands[-1].stdout.append(line)
    unknown = needs - {"tpm", "token"}
    if unknown or not commands:
        raise SystemExit(f"{path}: {'unknown needs: ' + ' '.join(unknown) if unknown else 'no command'}")
    for command in commands:  # blank lines part the commands; they are not output
        for stream in (command.stdout, command.stderr):
            while stream and not stream[-1]:
                stream.pop()
    return needs, commands


def matches(expected: list[str], actual: list[str]) -> bool:
    """Whether the lines agree; each `[...]` line takes as few lines as it can."""
    if not expected:
        return not actual
    if expected[0] == "[...]":
        return any(matches(expected[1:], actual[n:]) for n in range(len(actual) + 1))
    if not actual:
        return False
    pattern = ".*".join(re.escape(part) for part in expected[0].split("[..]"))
    return re.fullmatch(pattern, actual[0]) is not None and matches(expected[1:], actual[1:])


class World:
    """The folder, processes and environment of one transcript."""

    def __init__(self, binary: pathlib.Path):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kc.", dir="/tmp"))  # sockets: short paths
        self.processes: list[subprocess.Popen] = []
        home = str(self.folder)
        self.environment = {
            "PATH": f"{binary.parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": home,
            "XDG_CONFIG_HOME": f"{home}/.config",
            "XDG_STATE_HOME": f"{home}/.state",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "TERM": "dumb",
            "KEYESCROW_STATE": f"{home}/state",
            "KEYESCROW_CONFIG": f"{home}/agent.toml",
            "KEYESCROW_JOURNALD_SOCKET": "none",
            "SOFTHSM2_CONF": f"{home}/softhsm2.conf",
        }
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "GCOV_PREFIX"):
            if name in os.environ:
                self.environment[name] = os.environ[name]

    def prepare(self, needs: set[str]) -> None:
        os.umask(0o077)
        tpm = "none"
        if "tpm" in needs:
            tpm = self.start_tpm("tpm")
            self.environment["TPM"] = tpm
            self.environment["OTHER_TPM"] = self.start_tpm("other")
        (self.folder / "agent.toml").write_text(f'[agent]\nhost = "cli-test"\ntpm = "{tpm}"\n')
        if "token" in needs:
            self.make_token()

    def start_tpm(self, name: str) -> str:
        socket = self.folder / f".{name}.sock"
        state = self.folder / f".{name}.tpm"
        state.mkdir()
        self.processes.append(
            subprocess.Popen(
                ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}",
                 "--server", f"type=unixio,path={socket}",
                 "--ctrl", f"type=unixio,path={socket}.ctrl",
                 "--flags", "not-need-init,startup-clear"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        deadline = time.monotonic() + 10
        while not (listens(socket) and listens(f"{socket}.ctrl")):
            if time.monotonic() > deadline or self.processes[-1].poll() is not None:
                raise SystemExit("swtpm did not start")
            time.sleep(0.02)
        return f"swtpm:path={socket}"

    def make_token(self) -> None:
        modules = glob.glob("/usr/lib/softhsm/libsofthsm2.so") + glob.glob(
            "/usr/lib/*/softhsm/libsofthsm2.so")
        if not modules:
            raise SystemExit("SoftHSM's module is missing (package softhsm2)")
        (self.folder / ".tokens").mkdir()
        (self.folder / ".no-tokens").mkdir()
        for name, tokens in (("softhsm2.conf", ".tokens"), ("no-token.conf", ".no-tokens")):
            (self.folder / name).write_text(
                f"directories.tokendir = {self.folder / tokens}\nobjectstore.backend = file\n"
                "log.level = ERROR\nslots.removable = true\n")
        (self.folder / "pin").write_text(USER_PIN + "\n")
        self.environment["MODULE"] = modules[0]
        tool = ["pkcs11-tool", "--module", modules[0]]
        for arguments in (
            ["--slot-index", "0", "--init-token", "--label", "cli", "--so-pin", SO_PIN],
            ["--token-label", "cli", "--login", "--login-type", "so", "--so-pin", SO_PIN,
             "--init-pin", "--new-pin", USER_PIN],
            ["--token-label", "cli", "--login", "--pin", USER_PIN, "--keypairgen",
             "--key-type", "rsa:2048", "--id", "01", "--label", "escrow", "--usage-decrypt"],
        ):
            done = subprocess.run(tool + arguments, env=self.environment, capture_output=True,
                                  stdin=subprocess.DEVNULL, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"the token could not be made: {done.stderr}")

    def run(self, command: Command) -> tuple[list[str], list[str], int]:
        child = subprocess.Popen(
            ["bash", "-c", command.text], cwd=self.folder, env=self.environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True)
        try:
            out, err = child.communicate(timeout=COMMAND_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            return [], [f"no end after {COMMAND_TIMEOUT_S} s"], -1
        lines = lambda data: data.decode("utf-8", errors="backslashreplace").splitlines()
        return lines(out), lines(err), child.returncode

    def close(self) -> None:
        for process in self.processes:
            process.terminate()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def run_transcript(binary: pathlib.Path, path: pathlib.Path) -> bool:
    needs, commands = parse(path)
    world = World(binary)
    try:
        world.prepare(needs)
        for command in commands:
            stdout, stderr, status = world.run(command)
            if (matches(command.stdout, stdout) and matches(command.stderr, stderr)
                    and status == command.status):
                continue
            print(f"{path}:{command.line_number}: $ {command.text}")
            print(f"  expected exit {command.status}, got {status}")
            for name, expected, actual in (("stdout", command.stdout, stdout),
                                           ("stderr", command.stderr, stderr)):
                if not matches(expected, actual):
                    print(f"  {name} expected:")
                    print("".join(f"    {line}\n" for line in expected), end="")
                    print(f"  {name} got:")
                    print("".join(f"    {line}\n" for line in actual), end="")
            return False
        print(f"{path.name}: {len(commands)} commands as written")
        return True
    finally:
        world.close()


def main() -> int:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--binary", required=True, type=pathlib.Path)
    parser.add_argument("transcripts", nargs="+", type=pathlib.Path)
    options = parser.parse_args()
    binary = options.binary.resolve()
    if binary.name != "keyescrow" or not os.access(binary, os.X_OK):
        print(f"{shlex.quote(str(binary))} is not a built keyescrow")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed = [path for path in options.transcripts if not run_transcript(binary, path)]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
