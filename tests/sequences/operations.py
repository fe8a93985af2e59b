"""The operations of a random sequence: each runs one command, perhaps killed, and tells the model."""

import copy
import json

from model import FORMS, Key, Path, Version
from sequence_world import ALONE, BESIDE, KILLED, PINS, TOKENS

SLOWEST = 0.15  # of a command, for kills after a random time
MOST_CALLS = 900  # of one process, as a rule


class Wrong(Exception):
    """What the model says and what is there differ."""


class Operations:
    def __init__(self, world, rng, kill_at, delays):
        self.world, self.rng, self.kill_at, self.delays = world, rng, kill_at, delays
        self.trace, self.counts = [], {}
        self.keys, self.copies = {}, []
        self.may_be_left = set()  # destinations of commands that were killed, and not repeated
        self.key_password = "b0"  # of the recovery key
        self.num_names = self.num_ids = 0

    # ---- running

    def check(self, truth, *why):
        if not truth:
            raise Wrong(" ".join(str(word) for word in why))

    def chance(self, share):
        return self.rng.random() < share

    def run(self, *arguments, tokens=(), tpm=False, host=None, killable=True, signs=True, late=False,
            **options):
        """Runs with these devices present; a third of what may be killed is. done.killed: the command
        was; done.harmed: one of its processes was, or may have been. `signs`: it needs the agent key.
        `late`: what matters is at its end."""
        world, rng = self.world, self.rng
        tpm = tpm or signs and world.tpm_agent and not host
        env, more = world.present(tokens, tpm, host or {})
        words = [*more, *arguments, "--no-input"]
        harmed, how = False, ""
        if killable and self.chance(1 / 3):
            harmed = True
            if self.delays and self.chance(0.5):
                how = f"after {rng.random() * SLOWEST:.3f}"
                done = self.killed_after(float(how.split()[1]), words, env)
            else:
                process = int(self.chance(0.25))
                call = 1 + int(MOST_CALLS * rng.random() ** rng.choice((1, 1, 3)))
                if late and self.chance(0.7):
                    process, call = 0, rng.randrange(MOST_CALLS // 2, MOST_CALLS)
                how = f"at {process} {call}"
                world.launcher = [str(self.kill_at), str(process), str(call),
                                  str(world.path("report"))]
                try:
                    done = world.run(*words, env=env, **options)
                finally:
                    world.launcher = []
                if process == 1:  # SoftHSM may have been writing
                    world.make_set(tokens)
        else:
            done = world.run(*words, env=env, **options)
        done.killed, done.harmed = done.status in KILLED, harmed
        if harmed:
            self.count("harmed")
        if done.killed:
            if tpm:
                world.flush_tpm()
            self.count("killed")
        self.count(arguments[0])
        self.trace.append(f"{'there: ' if host else ''}[{' '.join(tokens)}{' tpm' if tpm else ''}] "
                          f"{' '.join(map(str, words))} {how} → {done.status}"
                          f" {done.seconds:.2f} s " +
                          (done.err.decode()[-300:] if done.status not in (0, 1) else ""))
        done.acknowledged = done.status in (0, 1) and bool(done.out)
        if not done.killed:
            self.check(done.status in range(13), "an exit status of its own", done)
        return done

    def killed_after(self, seconds, words, env):
        child = self.world.start(*words, env=env)
        try:
            out, err = child.communicate(timeout=seconds)
        except Exception:
            child.kill()
            out, err = child.communicate()
        done = type("Done", (), {"seconds": seconds})()
        done.arguments, done.status, done.out, done.err = words, child.returncode, out, err
        return done

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    def must(self, done):
        """Nothing was in its way: it is done."""
        if not done.harmed:
            self.check(done.acknowledged, "it failed, and nothing was in its way:", done.status,
                       done.out.decode(), done.err.decode())

    def agrees(self, host):
        """What is stored is what the model says, of every key."""
        store = self.world.store(host)
        for key in self.keys.values():
            if key.host is not host:
                continue
            there = {version: (row[0], row[1]) for version, row in
                     store.versions(key.name).items()}
            here = {} if key.destroyed else {n: v.row() for n, v in key.versions.items()}
            self.check(there == here, f"{key.name}: stored {there}, expected {here}")
        return store

    # ---- choosing

    def new_path(self, forms=FORMS, like=None):
        form = self.rng.choice(forms)
        pool = {"beside": sorted(BESIDE), "alone": sorted(ALONE)}.get(form.password)
        password = self.rng.choice(pool) if pool else ""
        self.num_ids += 1
        return like or f"p{self.num_ids}", Path(form, password)

    def new_paths(self, forms=FORMS):
        paths = dict([self.new_path([f for f in forms if f.portable and f.password != "key"])])
        for _ in range(self.rng.choice((0, 1, 1, 2, 3))):
            paths.update([self.new_path(forms)])
        shuffled = list(paths.items())
        self.rng.shuffle(shuffled)
        return dict(shuffled)

    def tokens_of(self, path):
        return tuple(sorted(self.rng.sample(path.form.tokens, path.form.threshold)))

    def password_of(self, path):
        return self.key_password if path.form.password == "key" else path.password

    def unlock(self, id, path, option="--password-file"):
        password = self.password_of(path)
        return self.password_words(id, password, option) + list(PINS)

    def password_words(self, id, password, option="--password-file"):
        return [option, f"{id}={self.world.password_file(password, id + option[1:4])}"] if password else []

    def words_of(self, paths):
        return [word for id, path in paths.items()
                for word in ("--path", f"{id}={path.form.expression}")]

    def passwords_of(self, paths, option="--password-file"):
        return [word for id, path in paths.items()
                for word in self.password_words(id, path.password, option)]

    def some(self, accept):
        found = [key for key in self.keys.values() if not key.destroyed and accept(key)]
        return self.rng.choice(found) if found else None

    def some_version(self, key):
        return key.in_use if self.chance(0.8) else self.rng.choice(sorted(key.versions))

    # ---- backup

    def forms(self, host):
        return FORMS if not host else [f for f in FORMS if not f.tpm and f.password != "key"]

    def backup(self):
        key = self.some(lambda k: not k.imported and not k.luks) if self.chance(0.4) else None
        if key is None:
            self.num_names += 1
            key = Key(f"app/k{self.num_names}", self.world.here)
            key.file = f"work/k{self.num_names}.key"
        generate = not key.versions and self.chance(0.3)
        paths = self.new_paths(self.forms(key.host))
        tokens = tuple(t for t in TOKENS if self.chance(0.6))
        words = ["backup", key.name, *self.words_of(paths), *self.passwords_of(paths), *PINS]
        file = self.world.path(key.file if key.file and not key.open else "work/another.key")
        content = None
        before = file.read_bytes() if file.exists() else None
        if generate:
            words += ["--generate", str(self.rng.choice((16, 64))), "--to", key.file]
        else:
            content = before = self.rng.randbytes(self.rng.choice((1, 32, 32, 64, 5000)))
            self.world.write(file.relative_to(self.world.folder), content)
            words += ["--from", file]
        done = self.run(*words, "--json", tokens=tokens, host=key.host,
                        tpm=any(p.form.tpm for p in paths.values()))
        store = self.world.store(key.host)
        new = set(store.versions(key.name)) - set(key.versions)
        if key.open:
            self.check(not new and (done.killed or done.status == 9), "a backup beside a rotation",
                       done.status)
            return
        self.must(done)
        self.check(len(new) <= 1 and (new or not done.acknowledged), "acknowledged, and not there")
        if generate and done.harmed:
            self.may_be_left.add(str(file))
        if new:
            version, = new
            if generate and file.exists():
                content = file.read_bytes()
            key.versions[version] = Version(paths, content, acknowledged=done.acknowledged)
            key.in_use = version
            self.keys[key.name, bool(key.host)] = key
        elif generate:
            self.check(not file.exists(), "handed over, and not escrowed")
        if key.versions and key.file and not self.declared(key):
            self.declare(key)

    def declared(self, key):
        return f'"{key.name}"' in self.world.path("agent.toml").read_text()

    def declare(self, key):
        self.run("key", "add", key.name, "--source", self.world.path(key.file), host=key.host,
                 killable=False)

    # ---- edits

    def edit(self):
        key = self.some(lambda k: not k.imported)
        if key is None:
            return
        number = self.some_version(key)
        version = key.versions[number]
        via = self.rng.choice(list(version.paths))
        opener = version.paths[via]
        after = copy.deepcopy(version)
        kind = self.rng.choice(("add", "replace", "remove", "password"))
        made, words, tpm = {}, [], opener.form.tpm
        if kind == "add" and len(version.paths) < 7:
            made = dict([self.new_path(self.forms(key.host))])
            after.paths.update(made)
            words = ["path", "add", key.name, *self.words_of(made)]
        elif kind == "replace":
            id = self.rng.choice(list(version.paths))
            made = dict([self.new_path(self.forms(key.host), id if self.chance(0.2) else None)])
            after.gone[id] = version.paths[id]
            after.paths = {}
            for old, path in version.paths.items():
                after.paths.update(made if old == id else {old: path})
            words = ["path", "replace", key.name, id, *self.words_of(made)]
        elif kind == "remove" and len(version.paths) > 1:
            id = self.rng.choice(list(version.paths))
            after.gone[id] = after.paths.pop(id)
            words = ["path", "remove", key.name, id]
        else:
            kind = "password"
            pool = self.rng.choice(("beside", "alone"))
            ids = [id for id, path in version.paths.items() if path.form.password == pool]
            ids = [id for id in ids if self.chance(0.7)] or ids[:1]
            fresh = sorted((ALONE if pool == "alone" else BESIDE).keys() -
                           {version.paths[id].password for id in ids})
            if not ids or not fresh:
                return
            new = self.rng.choice(fresh)
            words = ["password", "change", key.name, "--new-password-file", new]
            for id in ids:
                words += ["--path-id", id]
                after.changed.append((id, after.paths[id].password))
                after.paths[id].password = new
                tpm = tpm or after.paths[id].form.tpm
        tpm = tpm or any(path.form.tpm for path in made.values())
        tokens = set(self.tokens_of(opener))
        if self.chance(0.3):
            tokens |= {t for t in TOKENS if self.chance(0.5)}
        if number != key.in_use:
            words += ["--version", str(number)]
        done = self.run(*words, "--via", via, *self.unlock(via, opener),
                        *self.passwords_of(made, "--new-password-file"), "--json",
                        tokens=tuple(sorted(tokens)), tpm=tpm, host=key.host)
        self.count("edit " + kind)
        if key.open:  # what it changes would be undone by the version that is to come
            self.check(done.killed or done.status == 9, "an edit beside a rotation", done.status)
            self.check(self.world.store(key.host).versions(key.name)[number] == version.row(),
                       "refused, and done")
            return
        row = self.world.store(key.host).versions(key.name)[number]
        may_refuse = kind in ("replace", "remove") and done.status == 7 and (
            b'"path_forbidden"' in done.err)
        if may_refuse:
            self.check(row == version.row(), "refused, and done")
            self.count("edit refused")
            return
        self.must(done)
        after.revision += 1
        if done.acknowledged or row != version.row():
            self.check(row == after.row(), f"{key.name} version {number}: stored {row}, expected "
                                           f"{after.row()}")
            key.versions[number] = after

    def key_password_changes(self):
        new = self.rng.choice(sorted(set(BESIDE) - {self.key_password}))
        shown = lambda: json.loads(self.run("recovery-key", "show", "rk", "--json",
                                            killable=False).out)["record_sha256"]
        before = shown()
        done = self.run("recovery-key", "password", "rk", "--password-file", self.key_password,
                        "--new-password-file", new, *PINS, "--json", tokens=("vault",))
        self.must(done)
        if shown() != before:
            self.key_password = new
        else:
            self.check(not done.acknowledged, "acknowledged, and the record is the old one")

    # ---- restore

    def restore_words(self, key, number, via, path):
        return ["restore", key.name, "--version", str(number), "--via", via,
                *self.unlock(via, path)]

    def restore(self):
        key = self.some(lambda k: not k.luks)
        if key is None:
            return
        number = self.some_version(key)
        version = key.versions[number]
        via = self.rng.choice([id for id in version.paths if self.opens_on(key, version.paths[id])]
                              or [None])
        if via is None:
            return
        path = version.paths[via]
        to = f"work/out{self.rng.randrange(3)}.key"
        file = self.world.path(to)
        before = file.read_bytes() if file.exists() else None
        words = [*self.restore_words(key, number, via, path), "--to", to, "--replace"]
        devices = {"tokens": self.tokens_of(path), "tpm": path.form.tpm, "host": key.host,
                   "signs": False}
        self.world.path(to + ".keyescrow-previous").unlink(missing_ok=True)
        done = self.run(*words, "--json", **devices)
        if not done.acknowledged:
            self.must(done)
            # Old or new, never anything else; and the next one brings it.
            now = file.read_bytes() if file.exists() else None
            previous = self.world.path(to + ".keyescrow-previous")
            self.check(now in (before, version.content) or version.content is None or
                       now is None and previous.exists() and previous.read_bytes() == before,
                       "half a destination")
            previous.unlink(missing_ok=True)
            done = self.run(*words, "--json", killable=False, **devices)
            self.must(done)
        self.learn(key, number, file.read_bytes())

    def learn(self, key, number, content):
        version = key.versions[number]
        if version.content is None:
            version.content = content
        self.check(content == version.content, f"{key.name} version {number}: another key")

    def opens_on(self, key, path):
        """Another host has neither this TPM nor, of an imported envelope, the recovery key's record."""
        return not (key.host and (path.form.tpm or path.form.password == "key"))
