"""A password that was changed and a path that was removed are not undone by a rotation."""

import os
import shutil
import time

from life_cases import PATHS, LifeCase
from world import UNLOCK, within

CHANGE = ("--password-file", "pw", "--new-password-file", "pw2", "--pin-file", "pin")


class EditAndRotation(LifeCase):
    def setUp(self):
        self.world.write("pw2", "another horse battery staple 9\n")

    def open_rotation(self, name):
        done = self.world.run("rotate", name, "--apply", "true", *UNLOCK)
        self.assertEqual(done.status, 1, str(done))

    def revision(self, name):
        return self.succeeds("show", name, "--json").json()["revision"]

    def test_an_edit_is_refused_while_a_rotation_is_open(self):
        self.make("open", "--path", "spare=password & token:ops")
        self.open_rotation("open")
        for words in (("password", "change", "open", *CHANGE),
                      ("password", "change", "open", "--version", "1", *CHANGE),
                      ("password", "change", "open", "--version", "2", *CHANGE),
                      ("path", "remove", "open", "spare", *UNLOCK),
                      ("path", "add", "open", "--path", "third=password & token:ops", *UNLOCK),
                      ("path", "replace", "open", "spare", *PATHS, *UNLOCK)):
            error = self.refused("store_busy", 9, *words, num_runs=1)
            self.assertIn("rotate open", error["hint"])
            self.assertIn("--abandon", error["hint"])
        self.assertEqual(self.revision("open"), 1)
        # As it says: rolled back, it is done, and the next rotation has it.
        self.succeeds("rotate", "open", "--abandon")
        self.succeeds("password", "change", "open", *CHANGE)
        self.succeeds("path", "remove", "open", "spare", "--password-file", "pw2", "--pin-file",
                      "pin")
        done = self.succeeds("rotate", "open", "--json", "--password-file", "pw2", "--pin-file",
                             "pin").json()
        self.assertEqual([path["id"] for path in done["paths"]], ["token-ops"])
        self.check_json(self.world.run("restore", "open", "--to", "o.key", *UNLOCK, "--json"),
                        "wrong_password", 3)
        self.succeeds("restore", "open", "--to", "o.key", "--password-file", "pw2", "--pin-file",
                      "pin")

    def waiting(self, *arguments):
        """The command, which waits for its new password."""
        pipe = self.world.path("new.pw")
        os.mkfifo(pipe, 0o600)
        self.addCleanup(pipe.unlink)
        child = self.world.start(*arguments, "--json")
        deadline = time.monotonic() + within(60)
        while time.monotonic() < deadline:
            try:
                return child, os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                self.assertIsNone(child.poll(), "it ended by itself")
                time.sleep(0.02)
        self.fail("it does not ask")

    def test_a_version_that_comes_into_use_while_an_edit_waits(self):
        for name, other in (("rotated", ("rotate",)), ("backed", ("backup",))):
            self.make(name)
            child, password = self.waiting("password", "change", name, "--password-file", "pw",
                                           "--new-password-file", "new.pw", "--pin-file", "pin")
            self.succeeds(*other, name, *UNLOCK)
            os.write(password, b"another horse battery staple 9\n")
            os.close(password)
            out, err = child.communicate(timeout=within(60))
            self.assertEqual((child.returncode, out), (9, b""), err)
            self.assertIn(b"nothing was changed", err)
            self.assertEqual((self.in_use(name), self.revision(name)), (2, 1))
            self.version(name)  # by the old password
            self.version(name, 1)
            self.doCleanups()

    def test_a_version_is_not_imported_while_a_rotation_is_open(self):
        """It would be in use at once, above a key that a command may be handing over."""
        world = self.world
        file = self.make("back")
        key = file.read_bytes()
        shutil.copytree(world.path("state"), world.path("older"))
        for _ in range(2):
            file.write_bytes(os.urandom(32))
            self.succeeds("backup", "back", *PATHS, *UNLOCK)
        self.succeeds("export", "back", "-o", "back.3")
        shutil.rmtree(world.path("state"))
        world.path("older").rename(world.path("state"))
        file.write_bytes(key)
        self.open_rotation("back")
        error = self.refused("store_busy", 9, "import", "back.3", num_runs=1)
        self.assertIn("rotate back", error["hint"])
        self.assertEqual(self.in_use("back"), 1)
        self.succeeds("rotate", "back", "--abandon")
        self.succeeds("import", "back.3")
        self.assertEqual(self.in_use("back"), 3)

    def test_an_edit_does_not_end_beside_a_rotation_that_runs(self):
        self.make("beside")
        child, password = self.waiting("password", "change", "beside", "--password-file", "pw",
                                       "--new-password-file", "new.pw", "--pin-file", "pin")
        rotation = self.world.start("rotate", "beside", *UNLOCK, "--apply",
                                    "touch beside.began; read line <beside.go; cat <&4 >beside.key")
        go = self.world.path("beside.go")
        os.mkfifo(go)
        while not self.world.path("beside.began").exists():
            self.assertIsNone(rotation.poll())
            time.sleep(0.02)
        os.write(password, b"another horse battery staple 9\n")
        os.close(password)
        _, err = child.communicate(timeout=within(60))
        self.assertEqual(child.returncode, 9, err)
        go.write_text("\n")
        rotation.communicate(timeout=within(60))
        self.assertEqual(rotation.returncode, 0)
        self.assertEqual((self.in_use("beside"), self.revision("beside")), (2, 1))

    def test_paths_that_came_by_an_import_are_told(self):
        """Another copy of the state edited the version: what is confirmed has the paths of before."""
        file = self.make("told")
        world = self.world
        copied = world.path("copy")
        shutil.copytree(world.path("state"), copied)
        world.must("password", "change", "told", *CHANGE, "--state", copied)
        world.must("export", "told", "-o", "told.2", "--state", copied)
        self.open_rotation("told")
        world.must("import", "told.2")
        world.must("restore", "told", "--version", "2", "--to", file, "--replace", *UNLOCK)
        done = world.run("rotate", "told", "--json", *UNLOCK)
        self.assertEqual((done.status, self.in_use("told")), (1, 2), str(done))
        self.assertIn("version 1 were edited", "".join(done.json()["findings"]))

    def test_tokens_are_followed_by_their_keys(self):
        """The token's name is another's now: the new version goes to the key, as a backup does."""
        self.make("named")
        world = self.world
        world.make_token("second")
        add = ("--module", world.module, "--pin-file", "pin")
        self.world.run("token", "remove", "ops", "--yes")
        self.succeeds("token", "add", "ops-old", "pkcs11:token=ops", *add)
        self.succeeds("token", "add", "ops", "pkcs11:token=second", *add)
        done = self.rotate("named")
        self.assertIn("token:ops-old", str(done["paths"]))
        made = [{factor.get("key_sha256") for path in entry["paths"] for factor in path["factors"]}
                for entry in self.succeeds("audit", "log", "--json").json()["entries"]
                if entry["type"] == "escrow.created" and entry["key"]["name"] == "named"]
        self.assertEqual((len(made), made[0]), (2, made[1]), made)
        self.version("named")

    def test_the_place_of_an_undeclared_key_is_known(self):
        """From where it was escrowed: what is left there is told."""
        world = self.world
        done = world.run("rotate", "app/key", "--generate", "32", "--to", "elsewhere.key", "--json",
                         *UNLOCK)
        self.assertEqual((done.status, done.json()["outcome"]), (1, "confirmed"), str(done))
        told = "".join(done.json()["findings"])
        self.assertIn(f"{world.path('app.key')}, where version 1 was", told)
        self.assertIn("still has version 1", told)
        self.assertEqual(world.path("app.key").read_bytes(), world.key)

    def test_a_backup_is_not_superseded_before_it_is_there(self):
        """A later version is imported while it waits for its password: it takes the next one."""
        world, file = self.world, self.make("late")
        shutil.copytree(world.path("state"), world.path("older"))
        for _ in range(2):
            file.write_bytes(os.urandom(32))
            world.must("backup", "late", *PATHS, *UNLOCK)
        world.must("export", "late", "-o", "late.3")
        shutil.rmtree(world.path("state"))
        world.path("older").rename(world.path("state"))
        child, password = self.waiting("backup", "late", *PATHS, "--password-file", "new.pw",
                                       "--pin-file", "pin")
        world.must("import", "late.3")
        os.write(password, b"correct horse battery staple 7\n")
        os.close(password)
        out, err = child.communicate(timeout=within(60))
        self.assertEqual((child.returncode, out), (9, b""), err)
        self.assertEqual((self.in_use("late"), self.version("late")), (3, file.read_bytes()))
        world.must("backup", "late", *PATHS, *UNLOCK)
        self.assertEqual(self.in_use("late"), 4)

    def test_an_unattended_backup_is_not_below_an_import(self):
        """The source's own command imports a later version, while the backup has read the store."""
        world = self.world
        done = world.run("recovery-key", "create", "away", "--path", "password & token:ops",
                         "--prove-none", *UNLOCK)
        self.assertEqual(done.status, 1, str(done))
        file = world.write("below.key", os.urandom(32))
        source = f"exec:{world.binary} import below.3 --state {world.path('state')} >&2; cat {file}"
        world.must("key", "add", "below", "--source", source, "--path", "recovery-key:away")
        backup = ("backup", "below", "--from", file, "--no-input")
        self.assertEqual(world.run(*backup).status, 1)  # its recovery key was never opened
        shutil.copytree(world.path("state"), world.path("older"))
        for _ in range(2):
            file.write_bytes(os.urandom(32))
            self.assertEqual(world.run(*backup).status, 1)
        world.must("export", "below", "-o", "below.3")
        shutil.rmtree(world.path("state"))
        world.path("older").rename(world.path("state"))
        file.write_bytes(os.urandom(32))
        done = world.run("backup", "--all", "--no-input", "--json")
        row, = (row for row in done.json()["keys"] if row["key"]["name"] == "below")
        self.assertEqual(row["key"]["version"], 4, str(done))
        self.assertEqual((self.in_use("below"), self.version("below")), (4, file.read_bytes()))

    def later(self, name, file):
        """The file of the key's version 3, which the state has not; the key is version 1's again."""
        first = file.read_bytes()
        shutil.copytree(self.world.path("state"), self.world.path("older"))
        for _ in range(2):
            file.write_bytes(os.urandom(32))
            self.world.must("backup", name, *PATHS, *UNLOCK)
        self.world.must("export", name, "-o", name + ".3")
        shutil.rmtree(self.world.path("state"))
        self.world.path("older").rename(self.world.path("state"))
        file.write_bytes(first)
        return name + ".3"

    def test_no_version_is_imported_while_a_rotation_is_open(self):
        """It would be in use at once, and the one that is confirmed would not."""
        file = self.make("fore")
        third = self.later("fore", file)
        self.open_rotation("fore")
        error = self.refused("store_busy", 9, "import", third, num_runs=1)
        self.assertIn("--abandon", error["hint"])
        self.assertEqual((self.in_use("fore"), self.version("fore")), (1, file.read_bytes()))
        self.succeeds("rotate", "fore", "--abandon")
        self.succeeds("import", third)
        self.assertEqual(self.in_use("fore"), 3)

    def test_an_adoption_is_not_below_what_is_imported_meanwhile(self):
        world = self.world
        there = {"KEYESCROW_STATE": str(world.path("there"))}
        world.must("init", env=there)
        world.must("token", "add", "ops", "pkcs11:token=ops", "--module", world.module,
                   "--pin-file", "pin", env=there)
        for number in (1, 2, 3):
            world.write("theirs.key", os.urandom(32))
            world.must("backup", "theirs", "--from", "theirs.key", *PATHS, *UNLOCK, env=there)
            world.must("export", "theirs", "-o", f"theirs.{number}", env=there)
        world.write("there.pub", self.succeeds("agent-key", "export", env=there).out)
        world.must("trust", "add", "there.pub")
        world.must("import", "theirs.1")
        child, password = self.waiting("adopt", "theirs", "--via", "token-ops", "--password-file",
                                       "new.pw", "--pin-file", "pin", "--path", "token:ops")
        world.must("import", "theirs.3")
        os.write(password, b"correct horse battery staple 7\n")
        os.close(password)
        out, err = child.communicate(timeout=within(60))
        self.assertEqual((child.returncode, out), (9, b""), err)
        self.assertEqual(self.in_use("theirs"), 3)

    def test_another_key_that_comes_while_a_rotation_waits_is_left_alone(self):
        """What nobody escrowed is not put aside for the new key."""
        file, theirs = self.make("comes"), os.urandom(32)
        child, password = self.waiting("rotate", "comes", "--password-file", "new.pw", "--pin-file",
                                       "pin")
        file.write_bytes(theirs)
        os.write(password, b"correct horse battery staple 7\n")
        os.close(password)
        out, err = child.communicate(timeout=within(60))
        self.assertEqual((child.returncode, out), (12, b""), err)
        self.assertEqual(file.read_bytes(), theirs)
        self.assertFalse(self.world.path("comes.key.keyescrow-previous").exists())
        self.assertEqual((self.in_use("comes"), self.rules("comes") & {"rotation_open"}), (1, set()))
