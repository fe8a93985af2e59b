"""Rotations of a random sequence, by a sink, a command or a LUKS volume, and what resumes them."""

import copy
import json
import os
import shutil
import subprocess
import time

from model import Key, Version
from operations import Operations
from sequence_world import PINS, TOKENS

FAILS = "exit 3"  # the command of a rotation
UNLOCK = ("--luks-unlock-file", "pass")


class Rotations(Operations):
    def read(self, key, number, via=None):
        """The bytes that one of the version's paths gives, its factors alone present."""
        version = key.versions[number]
        via = via or self.rng.choice([id for id, p in version.paths.items()
                                      if self.opens_on(key, p)])
        path = version.paths[via]
        done = self.run(*self.restore_words(key, number, via, path), "--to", "-",
                        tokens=self.tokens_of(path), tpm=path.form.tpm, host=key.host,
                        killable=False, signs=False)
        self.check(done.status == 0, f"{key.name} version {number} by {via}:", done.status,
                   done.err.decode())
        self.learn(key, number, done.out)
        return done.out

    def held(self, key):
        file = self.world.path(key.file)
        return file.read_bytes() if file.exists() else None

    def discard_previous(self, key):
        previous = self.world.path(key.file + ".keyescrow-previous")
        for killable in (True, False):
            if previous.exists():
                self.run("restore", key.name, "--to", self.world.path(key.file),
                         "--discard-previous", "--yes", killable=killable)
        self.check(not previous.exists(), "discarded, and there")

    def rotate(self):
        key = self.some(lambda k: k.file and not k.host)
        if key is None:
            return
        if key.open:
            self.resume(key)
            return
        paths = key.current().paths
        words, tokens = [], ()
        provers = [id for id, p in paths.items() if p.form.portable and p.form.password != "key"]
        if provers:
            prover = self.rng.choice(provers)
            tokens = self.tokens_of(paths[prover])
            if " of " in paths[prover].form.expression:
                words = ["--prove", prover]
        key.again = ["--to", self.place(key)]
        fails = False
        if key.luks:
            words += UNLOCK
        else:
            self.discard_previous(key)
            if key.current().content is None:
                self.read(key, key.in_use)
            if self.held(key) != key.current().content:  # a backup was killed
                self.world.write(key.file, key.current().content)
            mode = self.rng.choice(("sink", "sink", "from", "command", "command", "exec", "fails"))
            takes = f"cat >{key.file}.part && mv {key.file}.part {key.file}"
            if mode == "from":
                self.world.write("work/new.key", self.rng.randbytes(40))
                words += ["--from", "work/new.key"]
            if mode in ("command", "fails"):
                fails = mode == "fails"
                key.again = ["--apply", FAILS if fails else takes.replace("cat", "cat <&4")]
                words += key.again
            if mode == "exec":
                key.again = ["--to", "exec:" + takes]
                words += key.again
        done = self.run("rotate", key.name, *self.passwords_of(paths), *PINS, *words, "--json",
                        tokens=tokens, tpm=any(p.form.tpm for p in paths.values()), late=True)
        self.settle(key, done)
        if fails:
            self.check(done.harmed or done.status == 11, "a command failed:", done.status)
            self.check(done.harmed or not key.open, "not abandoned")
        else:
            self.must(done)

    def settle(self, key, done):
        """What the store says became of it; the application's key is one of the two."""
        store, old = self.world.store(key.host), key.in_use
        self.command_ends(key)
        store = self.world.store(key.host)
        new = sorted(set(store.versions(key.name)) - set(key.versions))
        self.check(len(new) <= 1, "more than one new version")
        for number in new:
            key.versions[number] = Version(copy.deepcopy(key.current().paths),
                                           acknowledged=done.acknowledged)
        steps = {n: store.rotations.get((key.name, n)) for n in key.versions}
        open = store.open_rotation(key.name) or 0
        for number in filter(None, (key.open, *new)):
            if steps[number] == "confirmed":
                key.in_use = number
        key.open = open
        if done.acknowledged:
            self.check(not open, "acknowledged, and under way")
        shown = json.loads(self.run("show", key.name, "--json", killable=False).out)
        self.check(shown["key"]["version"] == key.in_use, "in use is", shown["key"], key.in_use)
        for number in (*new, *filter(None, (key.open,))):
            self.read(key, number)
        if key.luks:
            return
        held, contents = self.held(key), {n: v.content for n, v in key.versions.items()}
        if open:
            self.check(held in (contents[key.in_use], contents[open]), "another key in its place")
            if steps[open] in ("escrowed", "proven"):
                self.check(held == contents[key.in_use], "handed over before it was said")
        else:
            self.check(held == contents[key.in_use], f"version {key.in_use} is in use, and another "
                                                     f"key in its place (was {old})")

    def command_ends(self, key):
        """A command outlives an agent that was killed."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            process = self.world.store(key.host).processes.get(key.name, "")
            if not process or not os.path.exists(f"/proc/{process.split()[1]}/exe"):
                return
            time.sleep(0.01)
        self.check(False, "the command of a rotation does not end")

    def resume(self, key, killable=True, plain=False):
        number, held = key.open, None if key.luks else self.held(key)
        paths = {**key.versions[number].paths, **key.current().paths}
        words = ["rotate", key.name, *self.passwords_of(paths), *PINS, "--json"]
        if key.luks:  # whose version is opened; its first path may ask for another password
            words += UNLOCK
            via = [id for id, p in key.versions[number].paths.items() if p.form.password != "key"]
            words += ["--via", via[0]] if via else []
        unlocked = list(words)
        how = "plain" if plain else self.rng.choice(("plain", "plain", "again", "abandon"))
        if how == "again":
            words += key.again
        elif how == "abandon":
            words += ["--abandon"]
        self.count("resumed " + how)
        devices = {"tokens": TOKENS, "tpm": True}
        done = self.run(*words, killable=killable, **devices)
        was, old = key.in_use, key.versions[key.in_use].content
        self.settle(key, done)
        if done.harmed:
            return
        taken = not key.luks and held == key.versions[number].content and held != old
        if done.acknowledged:
            said = json.loads(done.out)["interrupted"]
            step = self.world.store(key.host).rotations[key.name, number]
            self.check(said and said["step"], "it does not say what it found", done.out)
            self.check((said["outcome"] == "rolled back") == (step == "abandoned"),
                       "it says", said, "and the store", step)
            if taken:
                self.check(step == "confirmed", "the new key was in use, and it was rolled back")
            elif how == "abandon":
                self.check((step, key.in_use) == ("abandoned", was), "abandoned, and not")
            return
        code = json.loads(done.err)["error"]["code"]
        self.count(f"resume {how}: {code}")
        if how == "abandon":  # what is in use is not abandoned
            self.check((done.status, taken or key.luks) == (1, True), done.err.decode())
        elif code == "destination_other_key":  # what an earlier run put aside
            self.check(self.world.path(key.file + ".keyescrow-previous").exists(), done.err.decode())
        elif FAILS in key.again:
            self.check(done.status in (1, 11), done.err.decode())
            self.run(*words[:len(unlocked)], "--abandon", killable=False, **devices)
            self.settle(key, done)
            self.check(not key.open, "abandoned, and not")
        else:  # a command was run, or not: only who ran it knows
            self.check("--apply" in key.again and code == "findings", done.err.decode())
            done = self.run(*unlocked, *key.again, killable=False, **devices)
            self.settle(key, done)
            self.check(not key.open, done.err.decode())

    def place(self, key):
        return ("luks:" if key.luks else "") + str(self.world.path(key.file))

    # ---- LUKS

    def luks(self):
        key = self.keys.get(("disk/root", False))
        if key is not None:
            if not key.destroyed:
                self.resume(key) if key.open else self.rotate_luks(key)
            return
        world = self.world
        key = Key("disk/root", world.here, file="work/disk.img", luks=True)
        shutil.copyfile(world.volume(), world.path(key.file))
        self.run("key", "add", key.name, "--source", self.place(key), killable=False)
        paths = self.new_paths()
        done = self.run("backup", key.name, "--generate", "64", "--to", self.place(key), *UNLOCK,
                        *self.words_of(paths), *self.passwords_of(paths), *PINS, "--json",
                        tokens=TOKENS, tpm=True, killable=False)
        self.must(done)
        key.versions[1], key.in_use = Version(paths), 1
        self.keys[key.name, False] = key

    def rotate_luks(self, key):
        some, self.some = self.some, lambda accept: key
        try:
            self.rotate()
        finally:
            self.some = some

    def opens_volume(self, content):
        return subprocess.run(
            ["cryptsetup", "open", "--disable-locks", "--test-passphrase", "--key-file", "-",
             self.world.path("work/disk.img")], input=content, capture_output=True,
            check=False).returncode == 0
