#!/usr/bin/env python3
"""What is acknowledged survives a power cut, and what is not is absent or whole.

  power_cut_test.py --binary FILE --shim FILE [unittest's arguments]

Each command runs once with disk_shim.so, which records what it does to the disk. Every prefix of
that record is then a moment at which the power may fail; disk.py yields what may be left, and the
product is run on it. Then one sync at a time is taken out of the record, as if it were not
in the product: each must leave a state that breaks a promise.
"""

import errno
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parents[0] / "integration" / "agent" / "acceptance"))

import disk  # noqa: E402
import world as acceptance  # noqa: E402

SHIM: pathlib.Path = None
SEEDS = (1, 2, 3)
FINGERPRINT_KEY_SIZE = 32  # bytes
MEMORY_DISK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"


class Broken(Exception):
    """A promise that a state does not keep."""


class Recording:
    """One command on a world of its own: the disk before, the record, and what was printed."""

    def __init__(self, case):
        self.case = case
        self.world = acceptance.World(tpm=False)
        self.root = self.world.path("disk")
        self.root.mkdir(mode=0o700)
        self.pin = str(self.world.path("pin"))
        self.checked = {}
        self.num_runs = 0
        case.prepare(self)
        self.before = disk.Disk(self.root)
        # What somebody else wrote a moment ago, and nobody has synced.
        fresh = case.just_written(self) if hasattr(case, "just_written") else []
        log = self.world.path("log")
        done = self.run(self.root, *case.command(self), env={
            "LD_PRELOAD": str(SHIM), "DISK_SHIM_ROOT": str(self.root), "DISK_SHIM_LOG": str(log)})
        if done.status != 0:
            raise AssertionError(str(done))
        self.printed = done.out
        self.record = fresh + [json.loads(line) for line in log.read_text().splitlines()]
        self.crashes = pathlib.Path(tempfile.mkdtemp(prefix="kp.", dir=MEMORY_DISK))

    def close(self):
        self.world.close()
        shutil.rmtree(self.crashes, ignore_errors=True)

    # --- the product, on a tree

    def run(self, root, *arguments, state="state", env=None, **options):
        self.num_runs += 1
        environment = {"KEYESCROW_STATE": str(root / state),
                       "KEYESCROW_CONFIG": str(root / "agent.toml")}
        return self.world.run(*arguments, cwd=root, env={**environment, **(env or {})}, **options)

    def must(self, root, *arguments, **options):
        done = self.run(root, *arguments, **options)
        if done.status != 0:
            raise Broken(str(done))
        return done

    def init(self, *more, state="state", costs=""):
        (self.root / "agent.toml").write_text('[agent]\nhost = "cut"\ntpm = "none"\n' + costs)
        (self.root / "agent.toml").chmod(0o600)
        return json.loads(self.must(self.root, "init", "--json", state=state).out)

    def add_token(self, state="state"):
        self.must(self.root, "token", "add", "ops", "pkcs11:token=ops", "--module",
                  self.world.module, "--pin-file", self.pin, state=state)

    def backup(self, *more):
        self.key = os.urandom(32)
        (self.root / "app.key").write_bytes(self.key)
        (self.root / "app.key").chmod(0o600)
        self.must(self.root, "backup", "app/key", "--from", "app.key", "--path", "token:ops",
                  "--pin-file", self.pin, *more)

    def restores(self, root, *what, state="state", wrong=None):
        """The restored bytes, or None where there is no such key; `wrong` where a factor is."""
        done = self.run(root, "restore", *what, "--to", "-", "--pin-file", self.pin, "--no-input",
                        "--module", self.world.module, state=state)
        if done.status == 8:
            return None
        if done.status == 3 and wrong is not None:
            return wrong
        if done.status != 0:
            raise Broken(str(done))
        return done.out

    def consistent(self, root, state="state"):
        done = self.run(root, "verify", "--json", state=state)
        if done.status not in (0, 1, 8) or json.loads(done.out)["num_bad"] != 0:  # 8: empty
            raise Broken(str(done))
        return done

    def log(self, root):
        return [entry["type"] for entry in
                json.loads(self.must(root, "audit", "log", "--json").out)["entries"]]

    # --- power cuts

    def check(self, tree, acknowledged):
        """Raises Broken; trees that were seen before are not tried again."""
        key = (disk.fingerprint(tree), acknowledged)
        if key not in self.checked:
            root = self.crashes / "disk"
            disk.write_tree(tree, root)
            self.checked[key] = None
            try:
                self.case.check(self, root, acknowledged)
            except Broken as broken:
                self.checked[key] = str(broken)
            shutil.rmtree(root)
        if self.checked[key] is not None:
            raise Broken(self.checked[key])

    def cut_everywhere(self, record, since=0):
        """Checks each state after each operation of `record` from `since` on."""
        simulated = disk.Disk.__new__(disk.Disk)
        simulated.root, simulated.top = self.before.root, _copy(self.before.top)
        acknowledged = False
        for index, operation in enumerate(record):
            simulated.apply(operation)
            acknowledged |= operation["op"] == "out"
            if index < since:
                continue
            for name, content, num_names in simulated.states(SEEDS):
                try:
                    self.check(simulated.left_by(content, num_names), acknowledged)
                except Broken as broken:
                    shown = {k: v for k, v in operation.items() if k != "data"}
                    raise Broken(f"power cut after operation {index} {shown}, left: {name}\n"
                                 f"{broken}") from None


def _copy(node):
    if isinstance(node, disk.File):
        return disk.File(node.durable)
    folder = disk.Folder()
    folder.durable = {name: _copy(child) for name, child in node.durable.items()}
    return folder


# ---- the commands and their promises


def whole_receipt(path):
    """A tlog proof: its last lines are the checkpoint's two signatures."""
    lines = path.read_text(errors="replace").splitlines(keepends=True)
    if len(lines) < 8 or lines[0] != "c2sp.org/tlog-proof@v1\n" or not (
            lines[-1].startswith("\u2014 ") and lines[-2].startswith("\u2014 ")
            and lines[-1].endswith("\n")):
        raise Broken("half a receipt")


class Init:
    # Of a state that nobody was told of nothing need be left: SQLite's own syncs while the file is
    # made, before the first key is written, protect nothing.
    def prepare(self, run):
        (run.root / "agent.toml").write_text('[agent]\nhost = "cut"\ntpm = "none"\n')
        (run.root / "agent.toml").chmod(0o600)

    def command(self, run):
        return ("init", "--json")

    def check(self, run, root, acknowledged):
        if acknowledged:
            shown = json.loads(run.must(root, "agent-key", "show", "--json").out)
            if shown["thumbprint"] != json.loads(run.printed)["thumbprint"]:
                raise Broken("another agent than the one that was printed")
        else:
            done = run.run(root, "init", "--json")
            if done.status != 0 and b"already_" not in done.err:
                raise Broken(str(done))
        # What later says that a key in use is not the escrowed one is there, and whole.
        if len((root / "state" / "fingerprint.key").read_bytes()) != FINGERPRINT_KEY_SIZE:
            raise Broken("half a fingerprint key")
        # It works: something can be written, and the log is whole.
        run.must(root, "key", "add", "k", "--source", "k", "--path", "password & token:ops")
        run.must(root, "trust", "add", "A" * 43)
        done = run.consistent(root)
        if b"missing_p256" in done.out:
            raise Broken("the agent key does not sign\n" + str(done))


class TokenAdd:
    def prepare(self, run):
        run.init()

    def command(self, run):
        return ("token", "add", "ops", "pkcs11:token=ops", "--module", run.world.module,
                "--pin-file", run.pin)

    def check(self, run, root, acknowledged):
        run.consistent(root)
        found = run.run(root, "token", "show", "ops").status
        if found not in (0, 8) or (acknowledged and found != 0):
            raise Broken(f"token show: exit {found}")
        if found == 8:
            run.must(root, *self.command(run))


class KeyAdd:
    def prepare(self, run):
        run.init()

    def command(self, run):
        return ("key", "add", "app/key", "--source", "app.key", "--path", "password & token:ops")

    def check(self, run, root, acknowledged):
        found = run.run(root, "key", "list").status
        if found not in (0, 8) or (acknowledged and found != 0):
            raise Broken(f"key list: exit {found}")
        if found == 8:
            run.must(root, *self.command(run))


class Backup:
    def prepare(self, run):
        run.init()
        run.add_token()
        run.backup()  # a version before: it must survive as well
        run.old = run.key
        run.key = os.urandom(32)
        (run.root / "app.key").write_bytes(run.key)

    def command(self, run):
        return ("backup", "app/key", "--from", "app.key", "--path", "token:ops", "-o", "app.escrow",
                "--pin-file", run.pin)

    def check(self, run, root, acknowledged):
        run.consistent(root)
        if acknowledged:  # before a restore proves it anew
            status = json.loads(run.must(root, "status", "app/key", "--json").out)
            if status["keys"][0]["paths"][0]["condition"] != "proven":
                raise Broken("the path's proof is gone")
        newest = run.restores(root, "app/key")
        if newest not in (run.old, run.key) or (acknowledged and newest != run.key):
            raise Broken("the newest version is not the one that was acknowledged")
        if run.restores(root, "app/key", "--version", "1") != run.old:
            raise Broken("the older version is gone")
        file = root / "app.escrow"
        if acknowledged and not file.exists():
            raise Broken("the portable file is gone")
        if file.exists():
            if run.restores(root, "app.escrow") != run.key:
                raise Broken("the portable file does not open")
            if newest != run.key:
                raise Broken("the portable file holds what the store does not")
            file.unlink()
        receipt = root / "app.escrow.receipt"
        if acknowledged and not receipt.exists():
            raise Broken("the receipt is gone")
        if receipt.exists():
            whole_receipt(receipt)
        (root / "app.escrow.receipt").unlink(missing_ok=True)
        run.must(root, *self.command(run))
        if run.restores(root, "app/key") != run.key:
            raise Broken("the next backup does not restore")


class Restore:
    more = ()

    def prepare(self, run):
        run.init()
        run.add_token()
        run.backup()

    def command(self, run):
        return ("restore", "app/key", "--to", "out.key", "--pin-file", run.pin, *self.more)

    def check(self, run, root, acknowledged):
        run.consistent(root)
        types = run.log(root)
        out = root / "out.key"
        if acknowledged and (not out.exists() or "restore.completed" not in types):
            raise Broken("what was acknowledged is not there")
        if out.exists():
            if out.read_bytes() != run.key:
                raise Broken("half a key")
            if "restore.requested" not in types:
                raise Broken("a key was released, and the log does not know")
        run.must(root, *self.command(run))
        if out.read_bytes() != run.key:
            raise Broken("the next restore is wrong")
        left = [path.name for path in root.rglob("*.keyescrow-tmp*")]
        if left:
            raise Broken(f"left behind: {left}")


class SameKey(Restore):
    """The key stands there already, as another program wrote it: not yet durably."""
    own_syncs = ("out.key", ".")  # the others, and every moment before the end, are Restore's

    def just_written(self, run):
        path = run.root / "out.key"
        path.write_bytes(run.key)
        path.chmod(0o600)
        return [{"op": "create", "path": str(path)},
                {"op": "write", "path": str(path), "offset": 0, "data": run.key.hex()}]

    def check(self, run, root, acknowledged):
        run.consistent(root)
        out = root / "out.key"
        if acknowledged and (not out.exists() or out.read_bytes() != run.key):
            raise Broken("the key that was said to stand there is gone")
        if acknowledged and "restore.completed" not in run.log(root):
            raise Broken("what was acknowledged is not in the log")


def event_types(file):
    """Of the whole lines; one that is being written may be half."""
    types = []
    for line in file.split(b"\n")[:-1]:
        try:
            types.append(json.loads(line)["type"])
        except ValueError:
            break
    return types


class Stateless:
    """A restore by a copied file alone; its events go to a file beside the key."""

    def prepare(self, run):
        self.thumbprint = run.init()["thumbprint"]
        run.add_token()
        run.backup("-o", "app.escrow")

    def command(self, run):
        return ("restore", "app.escrow", "--state", "none", "--to", "out.key", "--event-log",
                "events.json", "--agent", self.thumbprint, "--module", run.world.module,
                "--pin-file", run.pin, "--no-input")

    def check(self, run, root, acknowledged):
        out, events = root / "out.key", root / "events.json"
        types = event_types(events.read_bytes()) if events.exists() else []
        if out.exists() and (out.read_bytes() != run.key or types[:1] != ["restore.requested"]):
            raise Broken("half a key, or one whose release was not recorded before")
        if acknowledged and (not out.exists() or types[1:] != ["restore.completed"]):
            raise Broken(f"what was acknowledged is not there: {types}")
        out.unlink(missing_ok=True)
        events.unlink(missing_ok=True)
        run.must(root, *self.command(run))


class Replace(Restore):
    more = ("--replace",)

    def prepare(self, run):
        super().prepare(run)
        run.old = os.urandom(48)
        (run.root / "out.key").write_bytes(run.old)
        (run.root / "out.key").chmod(0o600)

    def check(self, run, root, acknowledged):
        out, previous = root / "out.key", root / "out.key.keyescrow-previous"
        run.consistent(root)
        if not out.exists() or out.read_bytes() not in (run.old, run.key):
            raise Broken("the destination is neither the old key nor the new one")
        is_new = out.read_bytes() == run.key
        types = run.log(root)
        if acknowledged and (not is_new or "restore.completed" not in types):
            raise Broken("what was acknowledged is not there")
        if is_new and (not previous.exists() or previous.read_bytes() != run.old):
            raise Broken("the old key is gone")
        if is_new and "restore.requested" not in types:
            raise Broken("a key was released, and the log does not know")
        run.must(root, *self.command(run))
        if out.read_bytes() != run.key or previous.read_bytes() != run.old:
            raise Broken("the next restore is wrong")


class SamePrevious(Replace):
    """The old key was put aside already, as another program copied it: not yet durably."""
    own_syncs = ("out.key.keyescrow-previous",)

    def just_written(self, run):
        path = run.root / "out.key.keyescrow-previous"
        path.write_bytes(run.old)
        path.chmod(0o600)
        return [{"op": "create", "path": str(path)},
                {"op": "write", "path": str(path), "offset": 0, "data": run.old.hex()}]


class Discard(Replace):
    """The old key that was put aside is removed, and does not come back."""
    own_syncs = (".",)

    def prepare(self, run):
        super().prepare(run)
        run.must(run.root, *super().command(run))

    def command(self, run):
        return ("restore", "app/key", "--to", "out.key", "--discard-previous",
                "--confirm", "app/key")

    def check(self, run, root, acknowledged):
        run.consistent(root)
        if acknowledged and (root / "out.key.keyescrow-previous").exists():
            raise Broken("what was discarded is there again")
        if acknowledged and "key.destroyed" not in run.log(root):
            raise Broken("what was acknowledged is not in the log")


class Export:
    def prepare(self, run):
        run.init()
        run.add_token()
        run.backup("-o", "copy.escrow")  # the key's first version
        self.old_key = run.key
        run.backup()

    def command(self, run):
        return ("export", "app/key", "-o", "copy.escrow")

    def check(self, run, root, acknowledged):
        run.consistent(root)
        copy = root / "copy.escrow"
        if acknowledged and not copy.exists():
            raise Broken("the file is gone")
        restored = run.restores(root, "copy.escrow") if copy.exists() else None
        if restored != run.key and (acknowledged or restored != self.old_key):
            raise Broken("the file does not open")
        receipt = root / "copy.escrow.receipt"
        if acknowledged and not receipt.exists():
            raise Broken("the receipt is gone")
        if receipt.exists():
            whole_receipt(receipt)
            done = run.run(root, "verify", "copy.escrow")
            if done.status not in (0, 1):
                raise Broken(f"the receipt is not that of the file\n{done}")
        # The first version's copy is in the log too.
        if acknowledged and run.log(root).count("audit.exported") != 2:
            raise Broken(f"the export is not in the log: {run.log(root)}")
        copy.unlink(missing_ok=True)
        (root / "copy.escrow.receipt").unlink(missing_ok=True)
        run.must(root, *self.command(run))


class Import:
    def prepare(self, run):
        thumbprint = run.init()["thumbprint"]
        run.add_token()
        run.backup("-o", "app.escrow")
        run.init(state="other")
        run.must(run.root, "trust", "add", thumbprint, state="other")

    def command(self, run):
        return ("import", "app.escrow", "--state", "other")

    def check(self, run, root, acknowledged):
        run.consistent(root, state="other")
        found = run.restores(root, "app/key", state="other")
        if found not in (None, run.key) or (acknowledged and found is None):
            raise Broken("what was imported does not restore")
        run.must(root, *self.command(run))


# The commands below were judged by the same means, but at a sample of the faults: each of them is
# made of the same commit and the same files as those above.


class RecoveryKeyCreate:
    max_faults = 20

    def prepare(self, run):
        run.init()
        run.add_token()
        (run.root / "app.key").write_bytes(b"k" * 32)
        (run.root / "app.key").chmod(0o600)

    def command(self, run):
        return ("recovery-key", "create", "team", "--path", "token:ops", "--pin-file", run.pin,
                "--no-input")

    def check(self, run, root, acknowledged):
        run.consistent(root)
        found = run.run(root, "recovery-key", "show", "team").status
        if found not in (0, 8) or (acknowledged and found != 0):
            raise Broken(f"recovery-key show: exit {found}")
        if found == 8:
            run.must(root, *self.command(run))
        done = run.run(root, "backup", "app/key", "--from", "app.key", "--path",
                       "recovery-key:team", "--no-input")
        if done.status not in (0, 1) or run.restores(root, "app/key") != b"k" * 32:
            raise Broken("what was escrowed to it does not restore\n" + str(done))


class PathAdd:
    max_faults = 20

    def prepare(self, run):
        run.init(costs=acceptance.LEAST_COSTS)
        run.add_token()
        run.backup()
        self.password = ("--password-file", str(run.world.path("pw")))

    def command(self, run):
        return ("path", "add", "app/key", "--path", "two=password & token:ops", "--pin-file",
                run.pin, "--no-input", *self.password)

    def check(self, run, root, acknowledged):
        run.consistent(root)
        paths = json.loads(run.must(root, "show", "app/key", "--json").out)["paths"]
        ids = [path["id"] for path in paths]
        if ids not in (["token-ops"], ["token-ops", "two"]) or (acknowledged and len(ids) != 2):
            raise Broken(f"the key has the paths {ids}")
        if run.restores(root, "app/key", "--via", "token-ops") != run.key:
            raise Broken("the path of before does not open")
        if len(ids) == 1:
            run.must(root, *self.command(run))
        if run.restores(root, "app/key", "--via", "two", *self.password) != run.key:
            raise Broken("the new path does not open")


class PasswordChange:
    max_faults = 20

    def prepare(self, run):
        run.init(costs=acceptance.LEAST_COSTS)
        run.add_token()
        self.old = ("--password-file", str(run.world.path("pw")))
        self.new = ("--password-file", str(run.world.write("pw2", "quite another staple 9\n")))
        run.key = b"k" * 32
        (run.root / "app.key").write_bytes(run.key)
        (run.root / "app.key").chmod(0o600)
        run.must(run.root, "backup", "app/key", "--from", "app.key", "--path",
                 "password & token:ops", "--pin-file", run.pin, *self.old)

    def command(self, run):
        return ("password", "change", "app/key", *self.old, "--new-password-file", self.new[1],
                "--pin-file", run.pin, "--no-input")

    def check(self, run, root, acknowledged):
        run.consistent(root)
        by_new = run.restores(root, "app/key", *self.new, wrong=b"")
        if acknowledged and by_new != run.key:
            raise Broken("the new password does not open")
        if by_new != run.key:
            if run.restores(root, "app/key", *self.old) != run.key:
                raise Broken("neither password opens")
            run.must(root, *self.command(run))
            if run.restores(root, "app/key", *self.new) != run.key:
                raise Broken("the next change does not open")


class RecoverySheet:
    max_faults = 20

    def prepare(self, run):
        run.init()
        run.add_token()
        run.backup()

    def command(self, run):
        return ("recovery-sheet", "app/key", "-o", "sheet.txt")

    def check(self, run, root, acknowledged):
        run.consistent(root)
        sheet = root / "sheet.txt"
        if acknowledged and not sheet.exists():
            raise Broken("the sheet is gone")
        if sheet.exists() and run.restores(root, "sheet.txt") != run.key:
            raise Broken("half a sheet")
        sheet.unlink(missing_ok=True)
        run.must(root, *self.command(run))
        if run.restores(root, "app/key") != run.key:
            raise Broken("the key does not restore")


class LuksKeyslot:
    """A generated key becomes a keyslot: escrowed first, and the volume opens as before."""
    max_faults = 24

    def prepare(self, run):
        run.init()
        run.add_token()
        image = run.root / "volume.img"
        image.touch(0o600)
        os.truncate(image, 3 << 20)
        self.unlock = run.world.write("pass", b"the passphrase")
        self.cryptsetup("luksFormat", "-q", "--type", "luks2", "--key-size", "256", "--offset",
                        "4096", "--luks2-metadata-size", "16k", "--luks2-keyslots-size", "1m",
                        "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file",
                        self.unlock, image)

    def cryptsetup(self, *arguments):
        done = subprocess.run(["cryptsetup", *map(str, arguments)], stdin=subprocess.DEVNULL,
                              capture_output=True, check=False)
        if done.returncode != 0:
            raise Broken(f"cryptsetup {arguments}: {done.stderr.decode()}")

    def command(self, run):
        return ("backup", "host/root", "--generate", "64", "--to", "luks:volume.img",
                "--luks-unlock-file", str(self.unlock), "--path", "token:ops", "--pin-file",
                run.pin, "--no-input")

    def opens(self, root, key_file):
        self.cryptsetup("open", "--test-passphrase", "--key-file", key_file, root / "volume.img")

    def check(self, run, root, acknowledged):
        run.consistent(root)
        self.opens(root, self.unlock)
        secret = run.restores(root, "host/root")
        if acknowledged and secret is None:
            raise Broken("what was acknowledged is not escrowed")
        if secret is None:
            run.must(root, *self.command(run))
        elif not acknowledged:  # as the hint says: escrowed, and handed over by a restore
            run.must(root, "restore", "host/root", "--to", "luks:volume.img", "--luks-unlock-file",
                     str(self.unlock), "--pin-file", run.pin, "--no-input")
        out = run.world.path("slot.key")
        out.write_bytes(run.restores(root, "host/root"))
        self.opens(root, out)


class Destroy:
    """What is left of a destroyed key in the state's own files is told until it is gone."""
    max_faults = 24

    def prepare(self, run):
        run.init()
        run.add_token()
        run.backup("-o", "app.escrow")
        payload = json.loads((run.root / "app.escrow").read_bytes())["payload"].encode()
        self.needle = payload[len(payload) // 2:][:400]  # the beginning of every payload is the same
        for name in ("app.escrow", "app.escrow.receipt"):
            (run.root / name).unlink()
        run.must(run.root, "backup", "other/key", "--from", "app.key", "--path", "token:ops",
                 "--pin-file", run.pin)

    def command(self, run):
        return ("destroy", "app/key", "--confirm", "app/key")

    def is_held(self, root):
        return any(self.needle in path.read_bytes() for path in (root / "state").iterdir())

    def check(self, run, root, acknowledged):
        is_held = self.is_held(root)
        told = b"destroyed_not_scrubbed" in run.run(root, "status", "--json").out
        run.consistent(root)
        found = run.restores(root, "app/key")
        if found not in (None, run.key) or (acknowledged and found is not None):
            raise Broken("what was destroyed is there")
        if found is None and "key.destroyed" not in run.log(root):
            raise Broken("the log does not tell of it")
        if found is None and is_held and not told:
            raise Broken("traces are left, and nobody is told")
        done = run.run(root, *self.command(run))
        if done.status not in ((0,) if found or told else (0, 8)) or self.is_held(root):
            raise Broken(f"the next destroy leaves traces\n{done}")
        if run.restores(root, "other/key") != run.key:
            raise Broken("the other key is gone")


COMMANDS = (Init, TokenAdd, KeyAdd, Backup, Restore, Replace, Export, Import)
SAMPLED = (RecoveryKeyCreate, PathAdd, PasswordChange, RecoverySheet, LuksKeyslot)

def may_be_missing(run, index):
    """Why the product may do without this sync, or "": each reason is argued for here."""
    sync = run.record[index]
    later = run.record[index + 1:]
    acknowledged = any(step["op"] == "out" for step in run.record[:index])
    same = [step for step in later if step["op"] == "sync" and step["path"] == sync["path"]]
    since = max((i for i, step in enumerate(run.record[:index])
                 if step["op"] == "sync" and step["path"] == sync["path"]), default=-1)
    names = {step[name] for step in run.record[since + 1:index] for name in ("path", "from", "to")
             if step["op"] not in ("write", "truncate", "sync") and name in step
             and os.path.dirname(step[name]) == sync["path"]}
    if names == {str(run.root / "state" / "in-use")}:
        # SQLite syncs the folder for its own file's sake; after a power cut nobody uses the state.
        return "who uses the state now"
    until_out = later[:next((i for i, step in enumerate(later) if step["op"] == "out"), len(later))]
    if acknowledged and sync["path"].endswith("store.db-wal"):
        # SQLite folds its log into the database, whose sync is the one that counts.
        return "the folded log"
    inside = next((i for i, step in enumerate(later) if step["op"] == "out" or not
                   step.get("path", step.get("from", "")).startswith(str(run.root / "state"))),
                  len(later))
    if sync["path"].endswith("store.db-wal") and any(step in later[:inside] for step in same):
        # One commit after another, and nothing left the store between them.
        return "the log is synced again before anything leaves the store"
    if sync["path"] == str(run.root) and any(step in until_out for step in same):
        # Two files one after the other: the second's sync of the folder covers both names.
        return "the folder is synced again before anything is acknowledged"
    if isinstance(run.case, Init) and "store.db" in sync["path"] or (
            isinstance(run.case, Init) and sync["path"] == str(run.root / "state") and same):
        # Nobody was told of a store yet; init begins anew where it is not whole.
        return "a store that is being made"
    return ""


def errors():
    """Every call that can fail, and how: an errno, a short count, or an end in mid air."""
    io, full, access, files, readonly = (str(number) for number in (
        errno.EIO, errno.ENOSPC, errno.EACCES, errno.EMFILE, errno.EROFS))
    return {"open": (io, access, files, readonly), "read": (io, "short"),
            "write": (io, full, "short"), "sync": (io, full), "truncate": (io,),
            "rename": (io, full, readonly), "link": (io,), "unlink": (io,), "mkdir": (full,)}


class Tries:
    """One command again and again, each time on the same disk, with another fault."""

    def __init__(self, run):
        self.run = run
        self.before = disk.Disk(run.root) if run.before is None else run.before
        self.tree = self.before.left_by(lambda file: file.durable, lambda folder: 0)
        self.root = run.crashes / "tried"

    def once(self, shim=True, **faults):
        """The command's outcome and the calls that it made; the disk is left as it is."""
        shutil.rmtree(self.root, ignore_errors=True)
        disk.write_tree(self.tree, self.root)
        counts = self.run.world.path("counts")
        counts.unlink(missing_ok=True)
        watched = {"LD_PRELOAD": str(SHIM), "DISK_SHIM_ROOT": str(self.root),
                   "DISK_SHIM_COUNT": str(counts), **faults}
        done = self.run.run(self.root, *self.run.case.command(self.run),
                            env=watched if shim else {})
        made = {}
        for line in counts.read_text().splitlines() if counts.exists() else ():
            call, count = line.split()
            made[call] = max(made.get(call, 0), int(count))
        return done, made

    def check(self, acknowledged):
        self.run.check(disk.Disk(self.root).left_by(lambda file: file.durable, lambda folder: 0),
                       acknowledged)


class PowerCut(unittest.TestCase):
    pass


class Fault(unittest.TestCase):
    pass


class Killed(unittest.TestCase):
    pass


def power_cut(case):
    """A cut at each moment; then the same with each sync left out in turn, which must break a promise
    or be one of may_be_missing()'s."""
    def test(self):
        run = Recording(case())
        self.addCleanup(run.close)
        self.assertTrue(any(step["op"] == "out" for step in run.record), "nothing was printed")
        try:
            at_the_end = len(run.record) - 1 if hasattr(case, "own_syncs") else 0
            run.cut_everywhere(run.record, since=at_the_end)
        except Broken as broken:
            self.fail(str(broken))
        print(f"{case.__name__}: {len(run.record)} operations, {len(run.checked)} states, "
              f"{run.num_runs} runs", file=sys.stderr)
        self.without_each_sync(run)
    return test


def without_each_sync(self, run):
    num_missed = 0
    simulated = disk.Disk.__new__(disk.Disk)
    simulated.root, simulated.top = run.before.root, _copy(run.before.top)
    for index, step in enumerate(run.record):
        if step["op"] != "sync" or not simulated.is_pending(step["path"]):
            simulated.apply(step)
            continue
        simulated.apply(step)
        path = pathlib.Path(step["path"]).relative_to(run.root)
        if str(path) not in getattr(run.case, "own_syncs", (str(path),)):
            continue
        try:
            run.cut_everywhere(run.record[:index] + run.record[index + 1:], since=index)
        except Broken:
            num_missed += 1
            continue
        self.assertTrue(may_be_missing(run, index),
                        f"nothing breaks without the sync of {path}, operation {index}")
    self.assertGreater(num_missed, 0)
    print(f"{type(run.case).__name__}: {num_missed} syncs are needed", file=sys.stderr)


PowerCut.without_each_sync = without_each_sync


def fault(case):
    def test(self):
        run = Recording(case())
        self.addCleanup(run.close)
        tries = Tries(run)
        done, made = tries.once()
        self.assertEqual(done.status, 0, str(done))
        rules = [(call, f"{call}@{n}={action}") for call, actions in errors().items()
                 for n in range(1, made.get(call, 0) + 1) for action in actions]
        rules = rules[::max(1, len(rules) // case.max_faults)] if hasattr(
            case, "max_faults") else rules
        for call, rule in rules:
            with self.subTest(rule=rule):
                done, _ = tries.once(DISK_SHIM_FAULT=rule)
                run.printed = done.out
                self.in_good_order(done)
                left = [p.name for p in tries.root.rglob("*.keyescrow-tmp*")]
                # Where the removal itself fails the next run has to clear it away.
                self.assertEqual(left if call != "unlink" else [], [], str(done))
                try:
                    tries.check(done.status == 0)
                except Broken as broken:
                    self.fail(f"{rule}\n{done}\n{broken}")
        print(f"{case.__name__}: {len(rules)} faults, {len(run.checked)} states", file=sys.stderr)
    return test


def in_good_order(self, done):
    """A documented end: an error has a code of its own, which is no bug of ours."""
    self.assertIn(done.status, range(0, 13), str(done))
    if done.status not in (0, 1):
        text = done.err.decode()
        self.assertIn("error", text, str(done))
        self.assertNotIn("internal", text, str(done))
        self.assertNotIn("report_bug", text, str(done))


Fault.in_good_order = in_good_order


def killed(case):
    def test(self):
        run = Recording(case())
        self.addCleanup(run.close)
        tries = Tries(run)
        _, made = tries.once()
        self.assertGreater(made["changes"], 2)
        stride = max(1, 2 * made["changes"] // getattr(case, "max_faults", 2 * made["changes"]))
        for n in range(1, made["changes"] + 1, stride):
            done, _ = tries.once(DISK_SHIM_KILL=str(n))
            self.assertEqual(done.status, -signal.SIGKILL, str(done))
            run.printed = done.out
            try:
                tries.check(bool(done.out))
            except Broken as broken:
                self.fail(f"killed before change {n}\n{broken}")
    return test


for command in COMMANDS:
    name = command.__name__.lower()
    setattr(PowerCut, f"test_{name}", power_cut(command))
    setattr(Fault, f"test_{name}", fault(command))
    setattr(Killed, f"test_{name}", killed(command))
for command in (SameKey, SamePrevious, Stateless, Discard):
    setattr(PowerCut, f"test_{command.__name__.lower()}", power_cut(command))
setattr(Killed, "test_destroy", killed(Destroy))
for command in SAMPLED:
    name = command.__name__.lower()
    setattr(Fault, f"test_{name}", fault(command))
    setattr(Killed, f"test_{name}", killed(command))


def main():
    global SHIM
    options, others = acceptance.parse_arguments(__doc__, "shim")
    SHIM = options.shim
    unittest.main(module="__main__", argv=[sys.argv[0]] + others)


if __name__ == "__main__":
    main()
