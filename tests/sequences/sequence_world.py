"""The machine that random sequences run on: one TPM, three tokens that can be taken away, two hosts.

What `init` and the like make is made once; every sequence begins with a copy of it.
"""

import base64
import json
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] /
                       "integration/agent/acceptance"))
import world as acceptance  # noqa: E402
from world import World  # noqa: E402

TOKENS = ("ops", "safe", "vault")  # RSA, P-256, RSA
KILLED = (-9, 128 + 9)
NO_TPM = "swtpm:path=/nonexistent/tpm.sock"
# Beside hardware, and alone: no password may be both.
BESIDE = {"b0": acceptance.PASSWORD, "b1": "seventeen velvet kettles & a brisk comet",
          "b2": "quite another battery staple 9", "b3": "lanterns drift over 41 quiet canals"}
ALONE = {"a0": "umbrella quartz 71 meadow lantern tulip", "a1": "granite owls recite 63 slow ballads",
         "a2": "marble foxes under 88 amber bridges"}
PINS = tuple(word for name in TOKENS for word in ("--pin-file", f"{name}=pin"))
POLICY = """[policy]
name = "sequences"
serial = 1
mode = "enforce"
simulators = "allowed"
[[rule]]
name = "all"
match = "**"
portable = true
"""
KEPT = ("state", "other", "tpm.state")  # what a sequence begins with


class SequenceWorld(World):
    """`tpm_agent`: the agent key and the log's anchor are in the TPM, else in a file."""

    def __init__(self, tpm_agent):
        super().__init__(token=False)
        try:
            self.tpm_agent = tpm_agent
            self.prepare()
        except BaseException:
            self.close()
            raise

    def prepare(self):
        for name, text in {**BESIDE, **ALONE, "wrong": "another horse entirely 8"}.items():
            self.write(name, text + "\n")
        self.write("pass", b"the passphrase of the volume")
        self.path("sets").mkdir()
        self.configure_tokens("softhsm2.conf", "tokens")
        self.path("other").mkdir()
        self.here, self.there = {}, {"KEYESCROW_STATE": str(self.path("other/state")),
                                     "KEYESCROW_CONFIG": str(self.path("other/toml"))}
        self.write("other/toml", self.path("agent.toml").read_text().replace(
            '"acceptance"', '"db2"').replace(self.tcti, "none"))
        self.thumbprint = self.must("init", "--json", *([] if self.tpm_agent else
                                                        ["--tpm", "none"])).json()["thumbprint"]
        self.must("init", env=self.there)
        vkey = self.must("policy", "sign", "--new-key", "alice.key").out.decode().strip()
        self.write("policy.toml", POLICY)
        self.must("policy", "sign", "policy.toml", "--key", "alice.key")
        for host in (self.here, self.there):
            self.must("policy", "set", "policy.toml", "--policy-key", vkey, env=host)
        self.token_folders = {}
        for name in TOKENS:
            self.add_token(name)
        self.must("trust", "add", self.thumbprint, "--host", "acceptance", "--key",
                  "app/**", env=self.there)
        self.must("recovery-key", "create", "rk", "--path", "password & token:vault",
                  "--password-file", "b0", *PINS)
        for number in range(1 << len(TOKENS)):
            self.make_set([name for bit, name in enumerate(TOKENS) if number >> bit & 1])
        self.stop_tpm()
        self.path("begin").mkdir()
        for name in KEPT:
            shutil.copytree(self.path(name), self.path("begin") / name)

    def password_file(self, name, user):
        """A file of its own for each use: one that is named twice is refused."""
        file = f"work/{user}.{name}"
        shutil.copyfile(self.path(name), self.path(file))
        self.path(file).chmod(0o600)
        return file

    def add_token(self, name):
        before = set(self.path("tokens").iterdir())
        words = ["token", "add", name, f"pkcs11:token={name}", "--module", self.module,
                 "--pin-file", "pin"]
        if name == "ops":
            self.copy_token(name)
        else:
            self.make_token(name)
        if name == "safe":
            words[3] += ";object=ec"
            self.must("token", "keygen", *words[2:], "--kind", "p256")
            self.must(*words, env=self.there)
        else:
            self.must(*words)
            self.must(*words, env=self.there)
        new, = set(self.path("tokens").iterdir()) - before
        self.token_folders[name] = new

    def make_set(self, present):
        """A token folder that holds these alone: the others are away."""
        folder = "sets/" + "".join(name[0] for name in TOKENS if name in present) + "_"
        shutil.rmtree(self.path(folder), ignore_errors=True)
        self.path(folder).mkdir()
        for name in present:
            source = self.token_folders[name]
            shutil.copytree(source, self.path(folder) / source.name)
        self.write(folder + ".conf", self.path("softhsm2.conf").read_text().replace(
            str(self.path("tokens")), str(self.path(folder))))
        return folder

    def present(self, tokens, tpm, host):
        """The environment and the option of a command that finds these devices alone."""
        conf = "sets/" + "".join(name[0] for name in TOKENS if name in tokens) + "_.conf"
        env = dict(host, SOFTHSM2_CONF=str(self.path(conf)))
        return env, (() if tpm or host else ("--tpm", NO_TPM))

    def stop_tpm(self):
        self.tpm_process.terminate()
        self.tpm_process.wait()
        self.processes.remove(self.tpm_process)
        for name in ("tpm.sock", "tpm.sock.ctrl"):
            self.path(name).unlink(missing_ok=True)

    def begin(self):
        """As it was after `prepare`."""
        if self.tpm_process.poll() is None:
            self.stop_tpm()
        for name in KEPT:
            shutil.rmtree(self.path(name))
            shutil.copytree(self.path("begin") / name, self.path(name))
        shutil.rmtree(self.path("work"), ignore_errors=True)
        self.path("work").mkdir()
        self.configure(self.tcti)
        self.start_tpm("tpm")

    def volume(self):
        """A LUKS2 volume that the passphrase in the file `pass` opens."""
        image = self.path("volume.img")
        if not image.exists():
            self.write("volume.img", b"")
            os.truncate(image, 20 << 20)
            subprocess.run(["cryptsetup", "-q", "luksFormat", "--disable-locks", "--type", "luks2",
                            "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file",
                            self.path("pass"), image], check=True, capture_output=True)
        return image

    def flush_tpm(self):
        """What a resource manager does for a process that died."""
        for kind in ("-t", "-l"):
            self.tpm_tool("tpm2_flushcontext", kind)

    def store(self, host):
        return Store(self.path("other/state" if host else "state"))


class Store:
    """What is stored of each key, read without the product."""

    def __init__(self, folder):
        database = sqlite3.connect(f"file:{folder}/store.db?mode=ro", uri=True)
        try:
            rows = database.execute("SELECT key_name, key_version, revision, bytes FROM envelope "
                                    "ORDER BY key_name, key_version, revision").fetchall()
            self.rotations = {(name, version): step for name, version, step in database.execute(
                "SELECT key_name, key_version, step FROM rotation")}
            self.processes = dict(database.execute(
                "SELECT key_name, process FROM rotation WHERE process <> '' AND step NOT IN "
                "('confirmed', 'abandoned')"))
            self.num_entries, = database.execute("SELECT count(*) FROM log_entry").fetchone()
        finally:
            database.close()
        self.num_rows = len(rows)
        self.newest = {}  # (name, version): (revision, ids of its paths); None where destroyed
        for name, version, revision, data in rows:
            self.newest[name, version] = (revision, path_ids(data)) if data else None

    def versions(self, name):
        return {version: row for (key, version), row in self.newest.items() if key == name and row}

    def open_rotation(self, name):
        steps = [version for (key, version), step in self.rotations.items()
                 if key == name and step not in ("confirmed", "abandoned")]
        return steps[0] if steps else None


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def path_ids(envelope):
    inner = json.loads(decode(json.loads(envelope)["payload"]))
    return [path["id"] for path in json.loads(decode(inner["aad"]))["paths"]]
