#!/usr/bin/env python3
"""Random sequences of edits, rotations, moves and kills, held against a model.

  sequences_test.py --binary FILE --kill-at FILE [--sequences N] [--first SEED] [--delays]

Each sequence has a seed; what it did is printed when it fails, and `--first SEED --sequences 1` runs
it again. A third of the commands are killed at a random system call of theirs or of their worker;
with --delays also after a random time, which no seed repeats. Afterwards every version that was
acknowledged, and every one that is stored, is restored by each of its paths with no other factor
present, and by none that was taken away; what was exported opens as it did; `verify` and an evidence
pack find nothing; nothing half-written is left.
"""

import argparse
import collections
import json
import pathlib
import random
import subprocess
import sys
import tarfile
import time
import traceback

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import sequence_world  # noqa: E402
from moves import Moves  # noqa: E402
from operations import Wrong  # noqa: E402
from sequence_world import PINS, SequenceWorld  # noqa: E402

WEIGHTS = {"backup": 4, "edit": 7, "rotate": 5, "restore": 2, "export": 3, "take_in": 4,
           "key_password_changes": 1, "wrong": 1, "without_tpm": 0.5, "destroy": 0.5}
LUKS_SHARE, PACK_SHARE, TPM_AGENT_SHARE = 0.15, 0.1, 0.4
NUM_OPERATIONS = (6, 12)


class Sequence(Moves):
    def go(self):
        self.world.begin()
        names = list(WEIGHTS)
        weights = [WEIGHTS[name] for name in names]
        has_luks = self.chance(LUKS_SHARE)
        self.backup()
        for _ in range(self.rng.randint(*NUM_OPERATIONS)):
            getattr(self, self.rng.choices(names, weights)[0])()
            if has_luks and self.chance(0.4):
                self.luks()
            for host in (self.world.here, self.world.there):
                self.agrees(host)
        self.judge()

    def wrong(self):
        key = self.some(lambda k: True)
        if key is not None:
            self.refuses(key)

    def without_tpm(self):
        """Nothing is signed by an agent key that is not there, and nothing is changed."""
        key = self.some(lambda k: not k.host)
        if key is None or not self.world.tpm_agent:
            return
        via, opener = self.rng.choice(list(key.current().paths.items()))
        done = self.run("path", "add", key.name, "--path", "token:ops", "--via", via,
                        *self.unlock(via, opener), "--json", tokens=self.tokens_of(opener),
                        killable=False, signs=False)
        self.check(done.status == (9 if key.open else 5), "an edit without the agent key:", done.status)

    # ---- the judgement

    def judge(self):
        for key in self.keys.values():
            for _ in range(4):
                if key.open:
                    self.resume(key, killable=False, plain=True)
            self.check(not key.open, f"the rotation of {key.name} has no end")
        for key in self.keys.values():
            if key.destroyed:
                self.is_gone(key)
                continue
            for number, version in key.versions.items():
                for id, path in version.paths.items():
                    if self.opens_on(key, path):
                        self.read(key, number, id)
                        self.count("restored")
            self.refuses(key)
            if key.luks:
                self.check(self.opens_volume(key.current().content), "the volume does not open")
                for number, version in key.versions.items():
                    if number != key.in_use:
                        self.check(not self.opens_volume(version.content), "an old keyslot is left")
        for taken in self.copies:
            self.copy_opens(taken)
        for host in (self.world.here, self.world.there):
            store = self.agrees(host)
            self.verifies(host, store)
        if self.chance(PACK_SHARE) and self.world.store(self.world.here).num_rows:
            self.pack_verifies()
        left = [str(p) for p in self.world.folder.rglob("*.keyescrow-tmp*")]
        for file in left:  # of a run that was killed: the next one to the same place removes it
            place = file.replace("/.", "/").rsplit(".keyescrow-tmp", 1)[0]
            self.check(place in self.may_be_left, file, "is left")
            self.count("left by a backup")
        self.check(not [p for p in self.world.path("work").rglob("*.part")], "a part is left")

    def is_gone(self, key):
        done = self.run("restore", key.name, "--to", "-", *PINS, host=key.host, killable=False)
        self.check((done.status, done.out) == (8, b""), "restored after it was destroyed", done)

    def refuses(self, key):
        """What was taken away, and what misses a factor, opens nothing."""
        number = self.rng.choice(sorted(key.versions))
        version = key.versions[number]
        tries = []
        for id, path in version.gone.items():
            if id not in version.paths:
                tries.append((id, path, path.password, self.tokens_of(path), path.form.tpm))
        for id, password in version.changed:
            path = version.paths.get(id)
            # One that was replaced may ask for none; and a TPM would count it.
            asks = path and path.password and not path.form.tpm
            if asks and path.password != password:
                tries.append((id, path, password, self.tokens_of(path), False))
        for id, path in version.paths.items():
            if path.form.tokens:
                tries.append((id, path, self.password_of(path), self.tokens_of(path)[1:],
                              path.form.tpm))
            if path.form.tpm:
                tries.append((id, path, path.password, self.tokens_of(path), False))
            if path.password and not path.form.tpm:
                tries.append((id, path, "wrong", self.tokens_of(path), False))
        for id, path, password, tokens, tpm in self.rng.sample(tries, min(3, len(tries))):
            words = self.password_words(id, password)
            done = self.run("restore", key.name, "--version", str(number), "--via", id, "--to", "-",
                            *words, *PINS, tokens=tokens, tpm=tpm, host=key.host, killable=False,
                            signs=False)
            self.check(done.status in (3, 5, 8, 10) and not done.out,
                       f"{key.name} version {number} by {id}:", done.status, done.err.decode())
            self.count("refused")

    def copy_opens(self, taken):
        world = self.world
        for id, path in taken.paths.items():
            if path.form.password == "key" or self.chance(0.5):
                continue
            words = self.password_words(id, path.password)
            done = self.run("restore", taken.file, "--via", id, "--to", "-", *words, *PINS,
                            "--agent", world.thumbprint, tokens=self.tokens_of(path),
                            tpm=path.form.tpm, killable=False)
            key = self.keys[taken.name, False]
            content = key.versions[taken.version].content
            self.check(done.status == 0 and content in (None, done.out), taken.file, "by", id,
                       done.status, done.err.decode())
            self.count("copies restored")

    def verifies(self, host, store):
        done = self.run("verify", "--json", host=host, tpm=True, killable=False)
        if not store.num_rows:
            self.check(done.status == 8, "verify of nothing:", done.status)
            return
        document = json.loads(done.out)
        found = {finding["fault"] for item in document["items"] for finding in item["findings"]}
        allowed = {"missing_p256", "anchor_missing"} if self.world.tpm_agent else set()
        if host:  # nothing was written there since a restore was killed
            allowed.add("release_without_outcome")
        self.check(document["num_bad"] == 0 and found <= allowed, "verify:", done.out.decode())
        self.check(done.status == (1 if found else 0), "verify:", done.status)
        living = sum(1 for row in store.newest.values() if row)
        counts = document["items"][0]["counts"]
        self.check(counts["entries"] == store.num_entries and document["num_envelopes"] >= living,
                   "verify counts", counts)
        for fault in found:
            self.count(fault)

    def pack_verifies(self):
        world = self.world
        world.write("work/trust", self.run("agent-key", "export", tpm=True, killable=False).out)
        self.run("audit", "export", "-o", "work/pack.tar", tpm=True, killable=False)
        done = self.run("verify", "work/pack.tar", "--trust", "work/trust", "--json", tpm=True,
                        killable=False)
        self.check(json.loads(done.out)["num_bad"] == 0, "the pack:", done.out.decode())
        with tarfile.open(world.path("work/pack.tar")) as tar:
            name = next(n for n in tar.getnames() if n.endswith("/verify.py"))
            program = world.write("work/verify.py", tar.extractfile(name).read())
        script = subprocess.run([sys.executable, "-B", "-I", "-S", program,
                                 world.path("work/pack.tar"), "--trust", world.path("work/trust")],
                                cwd=world.folder, capture_output=True, text=True, check=False)
        self.check(script.returncode == done.status, script.stdout + script.stderr, done.status)
        self.count("packs verified")


def run(options, worlds, seed, counts):
    rng = random.Random(seed)
    tpm_agent = rng.random() < TPM_AGENT_SHARE
    if tpm_agent not in worlds:
        worlds[tpm_agent] = SequenceWorld(tpm_agent)
    sequence = Sequence(worlds[tpm_agent], rng, options.kill_at, options.delays)
    try:
        sequence.go()
        return True
    except Exception as error:
        print(f"sequence {seed} failed: {type(error).__name__}: {error}", *sequence.trace, sep="\n  ",
              flush=True)
        if not isinstance(error, Wrong):
            traceback.print_exc(file=sys.stdout)
        return False
    finally:
        counts.update(sequence.counts)


def main():
    parser = argparse.ArgumentParser(usage=__doc__, add_help=False)
    parser.add_argument("--sequences", type=int, default=30)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--delays", action="store_true")
    parser.add_argument("--keep-going", action="store_true")
    ours, others = parser.parse_known_args()
    sys.argv[1:] = others
    options, _ = sequence_world.acceptance.parse_arguments(__doc__, "kill_at")
    options.delays = ours.delays
    worlds, counts, num_failed = {}, collections.Counter(), 0
    begin = time.monotonic()
    try:
        for seed in range(ours.first, ours.first + ours.sequences):
            if ours.delays and (seed - ours.first) % 20 == 0:
                print(f"at {seed} after {time.monotonic() - begin:.0f} s", flush=True)
            if not run(options, worlds, seed, counts):
                num_failed += 1
                if not ours.keep_going:
                    break
    finally:
        for world in worlds.values():
            world.close()
    print(f"{ours.sequences} sequences, {num_failed} failed, {time.monotonic() - begin:.0f} s: "
          + ", ".join(f"{name} {number}" for name, number in sorted(counts.items())))
    return 1 if num_failed else 0


if __name__ == "__main__":
    sys.exit(main())
