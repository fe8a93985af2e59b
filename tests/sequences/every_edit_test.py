#!/usr/bin/env python3
"""Every edit with each kind of path as the opener, and no other factor present than it needs.

  every_edit_test.py --binary FILE

A path is added, another one replaced, the password of a third changed, and it is removed. What an edit
makes with the TPM needs the TPM; tokens of new paths and of those that are kept need not be there.
Afterwards each path opens with its own factors alone, and what was taken away opens nothing.
"""

import copy
import pathlib
import random
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import sequence_world  # noqa: E402
from model import FORMS, Key, Path, Version  # noqa: E402
from operations import Wrong  # noqa: E402
from sequence_world import SequenceWorld  # noqa: E402
from sequences_test import Sequence  # noqa: E402

OPS, SAFE = FORMS[:2]


class EveryEdit(Sequence):
    def go(self):
        self.world.begin()
        for number, form in enumerate(FORMS):
            self.opened_by(f"app/e{number}", form, FORMS[(number + 5) % len(FORMS)])
            self.agrees(self.world.here)

    def opened_by(self, name, form, other):
        password = {"beside": "b0", "alone": "a0"}
        opener = Path(form, password.get(form.password, ""))
        paths = {"kept": Path(OPS, "b3"), "opener": opener, "third": Path(SAFE, "b1")}
        content = self.rng.randbytes(32)
        file = self.world.write("work/edited.key", content)
        done = self.run("backup", name, "--from", file, *self.words_of(paths),
                        *self.passwords_of(paths), "--prove", "none", "--json", tpm=form.tpm,
                        killable=False)
        self.must(done)
        key = Key(name, self.world.here, {1: Version(paths, content)}, 1)
        new = Path(other, {"beside": "b2", "alone": "a1"}.get(other.password, ""))
        for kind in ("add", "password", "replace", "remove"):
            self.edited(key, kind, opener, new)
        for id in key.current().paths:
            self.read(key, 1, id)
        for _ in range(2):
            self.refuses(key)

    def edited(self, key, kind, opener, new):
        after = copy.deepcopy(key.current())
        tpm, words = opener.form.tpm, []
        if kind == "add":
            after.paths["added"] = new
            words = ["path", "add", key.name, *self.words_of({"added": new}),
                     *self.passwords_of({"added": new}, "--new-password-file")]
            tpm = tpm or new.form.tpm
        elif kind == "password":
            after.changed.append(("third", "b1"))
            after.paths["third"].password = "b2"
            words = ["password", "change", key.name, "--path-id", "third", "--new-password-file", "b2"]
        elif kind == "replace":
            made = {"placed": Path(FORMS[3])}
            after.gone["kept"] = after.paths["kept"]
            after.paths = {**made, **{id: p for id, p in after.paths.items() if id != "kept"}}
            words = ["path", "replace", key.name, "kept", *self.words_of(made)]
        else:
            after.gone["third"] = after.paths.pop("third")
            words = ["path", "remove", key.name, "third"]
        done = self.run(*words, "--via", "opener", *self.unlock("opener", opener), "--json",
                        tokens=self.tokens_of(opener), tpm=tpm, killable=False)
        self.must(done)
        after.revision += 1
        key.versions[1] = after
        self.keys[key.name, False] = key


def main():
    options, _ = sequence_world.acceptance.parse_arguments(__doc__)
    world = SequenceWorld(tpm_agent=False)
    edits = EveryEdit(world, random.Random(1), None, False)
    try:
        edits.go()
    except Wrong as error:
        print(error, *edits.trace[-6:], sep="\n  ")
        return 1
    finally:
        world.close()
    print(f"{4 * len(FORMS)} edits by {len(FORMS)} kinds of path")
    return 0


if __name__ == "__main__":
    sys.exit(main())
