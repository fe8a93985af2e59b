"""What a random sequence does with keys between hosts, and their end."""

import copy

from model import Copy, Key, Version
from rotations import Rotations


class Moves(Rotations):
    def export(self):
        key = self.some(lambda k: not k.host and not k.luks)
        if key is None:
            return
        to = f"work/x{len(self.copies)}.escrow"
        done = self.run("export", key.name, "-o", to, "--json")
        if not done.acknowledged:
            self.must(done)
            done = self.run("export", key.name, "-o", to, "--json", killable=False)
            self.must(done)
        version = key.current()
        self.copies.append(Copy(to, key.name, key.in_use, copy.deepcopy(version.paths),
                                version.content))

    def take_in(self):
        """adopt or import on the other host."""
        if not self.copies:
            return
        taken = self.rng.choice(self.copies)
        world = self.world
        if self.chance(0.3):
            done = self.run("import", taken.file, "--json", host=world.there)
            key = self.keys.get((taken.name, True)) or Key(taken.name, world.there, imported=True)
            row = world.store(world.there).versions(taken.name).get(taken.version)
            if row and taken.version not in key.versions:
                key.versions[taken.version] = Version(
                    copy.deepcopy(taken.paths), taken.content, row[0],
                    acknowledged=done.acknowledged)
                key.in_use = max(key.versions)
                self.keys[taken.name, True] = key
            elif not row:
                self.must(done)
            return
        openers = [id for id, p in taken.paths.items()
                   if not p.form.tpm and p.form.password != "key"]
        if not openers:
            return
        via = self.rng.choice(openers)
        self.num_names += 1
        key = Key(f"adopted/k{self.num_names}", world.there)
        paths = self.new_paths(self.forms(world.there))
        done = self.run("adopt", taken.file, "--as", key.name, "--via", via,
                        *self.unlock(via, taken.paths[via]), *self.words_of(paths),
                        *self.passwords_of(paths, "--new-password-file"), "--json",
                        tokens=self.tokens_of(taken.paths[via]), host=world.there)
        self.must(done)
        if world.store(world.there).versions(key.name):
            key.versions[1] = Version(paths, taken.content, acknowledged=done.acknowledged)
            key.in_use = 1
            self.keys[key.name, True] = key
        else:
            self.check(not done.acknowledged, "acknowledged, and not there")

    def destroy(self):
        key = self.some(lambda k: not k.open and not k.luks)
        if key is None or len(self.keys) < 2:
            return
        if not key.host:
            self.run("key", "remove", key.name, "--yes", killable=False)
        words = ["destroy", key.name, "--confirm", key.name, "--json"]
        done = self.run(*words, host=key.host)
        left = self.world.store(key.host).versions(key.name)
        self.check(set(left) in (set(), set(key.versions)), "destroyed in part")
        if left:
            self.check(not done.acknowledged, "acknowledged, and not destroyed")
            self.must(done)
            done = self.run(*words, host=key.host, killable=False)
            self.must(done)
        elif not done.acknowledged:
            done = self.run(*words, host=key.host, killable=False)
            self.check(done.status in (0, 8), done)
        key.destroyed = True
        self.check(not self.world.path("other/state" if key.host else "state")
                   .joinpath("scrub.pending").exists(), "traces are left")
