"""Options and sources that the other cases do not come by: pin-source, versions, pipes, --all."""

import json
import os
import pathlib

from world import PIN, UNLOCK, AcceptanceCase, World


class PinSource(AcceptanceCase):
    """A registration's RFC 7512 pin-source serves later commands; --pin-file comes before it."""

    world_options = {"tpm": False}
    paths = ()

    def test_it_serves_backup_and_restore(self):
        world = self.world
        key = world.write("app.key", os.urandom(32)).read_bytes()
        world.must("init")
        added = world.must(
            "token", "add", "ops",
            f"pkcs11:token=ops?module-path={world.module}&pin-source=file:{world.path('pin')}",
            "--json").json()
        self.assertEqual(added["pin_source"], str(world.path("pin")))
        self.assertEqual(added["module"], world.module)
        self.assertTrue(added["evidence_read"])
        self.assertNotIn("pin-source", added["uri"])
        world.must("backup", "app/key", "--from", "app.key", "--path", "token:ops", "-o", "e",
                   "--no-input")
        (told,) = [entry for entry in world.must("audit", "log", "--json").json()["entries"]
                   if entry["type"] == "audit.exported"]
        self.assertEqual((told["key"]["version"], told["reason"]), (1, "portable file"))
        shown = world.must("show", "e", "--json").out
        self.assertNotIn(b"pin-source", shown)
        self.assertNotIn(str(world.path("pin")).encode(), shown)
        world.must("restore", "app/key", "--to", "out.key", "--no-input")
        self.assertEqual(world.path("out.key").read_bytes(), key)
        world.path("out.key").unlink()
        # An option is asked first: the wrong one is used, once, and the source is not tried after.
        world.write("bad-pin", "00000000\n")
        self.check_json(world.run("restore", "app/key", "--to", "out.key", "--pin-file", "bad-pin",
                                  "--no-input", "--json"), "wrong_pin", 3)
        world.must("restore", "app/key", "--to", "out.key", "--no-input")
        world.path("out.key").unlink()
        # A source that others can read, or that is gone, is met like any other secret file.
        world.path("pin").chmod(0o644)
        self.check_json(world.run("restore", "app/key", "--to", "out.key", "--no-input", "--json"),
                        "secret_file_unsafe", 2)
        world.path("pin").unlink()
        done = world.run("restore", "app/key", "--to", "out.key", "--no-input", "--json")
        self.assertEqual(done.status, 2, str(done))
        self.assertFalse(world.path("out.key").exists())
        world.write("pin", PIN + "\n")

    def test_uris_that_are_refused(self):
        world = World(tpm=False)
        self.addCleanup(world.close)
        world.must("init")
        for uri, code in (
                ("pkcs11:token=ops?pin-value=1234", "invalid_uri"),
                ("pkcs11:token=ops?pin-source=%7Ccat", "invalid_uri"),
                ("pkcs11:token=ops?pin-source=pin", "invalid_uri"),
                ("pkcs11:token=ops?pin-source=https://h/pin", "invalid_uri"),
                ("pkcs11:token=ops?module-name=softhsm2", "invalid_uri"),
                ("pkcs11:token=ops?module-path=/usr/lib/other.so", "usage")):
            with self.subTest(uri=uri):
                done = world.run("token", "add", "x", uri, "--module", world.module, "--json")
                self.check_json(done, code, 2)
        self.check_json(world.run("token", "add", "x", "pkcs11:token=ops", "--json"), "usage", 2)
        self.assertEqual(world.run("token", "list").status, 8)
        # keygen calls the key what the URI says, and makes no second one of that name or id.
        keygen = lambda attributes: world.run(
            "token", "keygen", "new", "pkcs11:token=ops;" + attributes, "--kind", "p256",
            "--module", world.module, "--pin-file", "pin", "--json")
        done = keygen("object=second;id=%42")
        self.assertEqual(done.status, 0, str(done))
        self.assertIn(";id=B;object=second", done.json()["uri"])
        done = world.must("token", "remove", "new", "--yes", "--json")
        for attributes in ("object=second;id=%42", "object=second", "id=%42"):
            self.check_json(keygen(attributes), "already_exists", 2)


class Costs(AcceptanceCase):
    """What a guess at a password costs: the format's defaults, or agent.toml's."""

    world_options = {"tpm": False, "costs": ""}
    paths = ()

    def kdfs(self, *paths, more=()):
        done = self.world.run("backup", "app/key", "--from", "app.key", *more, *paths, *UNLOCK,
                              "--prove", "none", "--json")
        self.assertEqual(done.status, 1, str(done))  # nothing is proven
        shown = self.world.must("show", "app/key", "--json").json()
        self.assertEqual(shown["key"], done.json()["key"])
        return {path["id"]: record["kdf"] for path in shown["paths"]
                for record in path["records"] if record["kind"] == "password"}

    def test_defaults_and_agent_toml(self):
        world = self.world
        world.write("app.key", os.urandom(32))
        # The built-in policy allows no path of a password alone.
        vkey = world.must("policy", "sign", "--new-key", "signer.key").out.decode().strip()
        world.write("policy.toml", '[policy]\nname = "corp"\nserial = 1\nmode = "report"\n'
                                   'simulators = "allowed"\n[[rule]]\nname = "all"\nmatch = "**"\n')
        world.must("policy", "sign", "policy.toml", "--key", "signer.key")
        world.must("init", "--policy", "policy.toml", "--policy-key", vkey)
        world.must("token", "add", "ops", "pkcs11:token=ops", "--module", world.module,
                   "--pin-file", "pin")
        # One password may not open both: what is guessed at where it stands alone opens the other.
        world.write("alone.pw", "a password that opens a path alone 9\n")
        both = ("--path", "password & token:ops", "--path", "alone=password",
                "--new-password-file", "alone=alone.pw")
        # Beside a token, and alone: nothing else holds a thief up there.
        self.assertEqual(self.kdfs(*both), {"token-ops": "argon2id t=4 m=262144 p=4",
                                            "alone": "argon2id t=4 m=1048576 p=4"})
        alone = ("--path", "alone=password")
        self.assertEqual(self.kdfs(*alone, more=("--kdf", "pbkdf2-sha512")),
                         {"alone": "pbkdf2-sha512 iter=2000000"})
        world.costs = "[defaults]\nargon2id_memory_kib = 32768\npbkdf2_iterations = 300000\n"
        world.configure("none")
        self.assertEqual(self.kdfs(*both), dict.fromkeys(("token-ops", "alone"),
                                                         "argon2id t=4 m=32768 p=4"))
        self.assertEqual(self.kdfs(*both, more=("--kdf", "pbkdf2-sha512")),
                         dict.fromkeys(("token-ops", "alone"), "pbkdf2-sha512 iter=300000"))
        world.must("restore", "app/key", "--via", "alone", "--to", "out.key", "--password-file",
                   "alone.pw")
        checks = world.run("doctor", "--json").json()["checks"]
        self.assertIn("cheaper than the format's defaults", [
            check["what"] for check in checks
            if check["area"] == "configuration" and check["outcome"] == "warning"][0])
        # Outside the format's range: nothing is made, not even asked for.
        for costs in ("argon2id_memory_kib = 19455", "argon2id_passes = 33",
                      "argon2id_lanes = 17", "argon2id_passes = 1\nargon2id_memory_kib = 47103"):
            with self.subTest(costs):
                world.costs = f"[defaults]\n{costs}\n"
                world.configure("none")
                done = world.run("backup", "app/key", "--from", "app.key", *both, *UNLOCK,
                                 "--json")
                self.check_json(done, "configuration", 2)
        self.assertEqual(world.must("show", "app/key", "--json").json()["key"]["version"], 4)


class Versions(AcceptanceCase):
    world_options = {"tpm": False}

    def test_an_older_version_by_number_and_by_name(self):
        old = self.world.key
        self.world.write("new.key", os.urandom(48))
        self.succeeds("backup", "app/key", "--from", "new.key", "--path", "password & token:ops",
                      *UNLOCK)
        for arguments, expected in (
                ((), self.world.path("new.key").read_bytes()), (("--version", "2"), None),
                (("--version", "1"), old), (("--version", "1", "--expect", "app/key@1"), old)):
            with self.subTest(arguments=arguments):
                self.succeeds("restore", "app/key", "--to", "v.key", *UNLOCK, *arguments)
                self.assertEqual(self.world.path("v.key").read_bytes(),
                                 expected or self.world.path("new.key").read_bytes())
                self.world.path("v.key").unlink()
        self.refused("version_not_found", 8, "restore", "app/key", "--to", "v.key", "--version", "3",
                     *UNLOCK)
        self.refused("expectation_failed", 10, "restore", "app/key", "--to", "v.key", "--version",
                     "1", "--expect", "app/key@2", *UNLOCK)


class Pipes(AcceptanceCase):
    world_options = {"tpm": False}

    def test_restore_into_a_command(self):
        self.succeeds("restore", "app/key", "--to", "exec:cat >piped", *UNLOCK)
        self.assertEqual(self.world.path("piped").read_bytes(), self.world.key)
        self.world.path("piped").unlink()
        done = self.world.run("restore", "app/key", "--to", "exec:exit 3", *UNLOCK, "--json")
        self.assertNotEqual(done.status, 0, str(done))
        entries = self.succeeds("audit", "log", "--json").json()["entries"]
        # It had the key at hand before it failed.
        self.assertEqual((entries[-1]["type"], entries[-1]["outcome"]),
                         ("restore.released", "pending"))

    def test_restore_and_export_to_standard_output(self):
        done = self.succeeds("restore", "app/key", "--to", "-", *UNLOCK)
        self.assertEqual(done.out, self.world.key)
        done = self.succeeds("export", "app/key", "-o", "-")
        self.assertEqual(done.out, self.world.path("app.escrow").read_bytes())

    def test_backup_from_a_pipe_to_a_pipe(self):
        key = os.urandom(40)
        done = self.succeeds("backup", "piped/key", "--from", "-", "--path", "password & token:ops",
                             "-o", "-", *UNLOCK, input=key)
        self.assertEqual(json.loads(done.out)["payload"] is not None, True)
        self.world.write("p.escrow", done.out)
        done = self.succeeds("restore", "p.escrow", "--to", "-", *UNLOCK)
        self.assertEqual(done.out, key)
        self.world.path("p.escrow").unlink()

    def test_a_generated_key_is_escrowed_before_it_is_handed_over(self):
        done = self.succeeds("backup", "made/key", "--generate", "32", "--to", "-", "--path",
                             "password & token:ops", *UNLOCK)
        self.assertEqual(len(done.out), 32)
        again = self.succeeds("restore", "made/key", "--to", "-", *UNLOCK)
        self.assertEqual(again.out, done.out)
        # The one who should take it does not: the key is in the escrow, and the command says so.
        done = self.world.run("backup", "lost/key", "--generate", "32", "--to", "exec:exit 1",
                              "--path", "password & token:ops", *UNLOCK)
        self.assertNotEqual(done.status, 0, str(done))
        again = self.succeeds("restore", "lost/key", "--to", "-", *UNLOCK)
        self.assertEqual(len(again.out), 32)


class All(AcceptanceCase):
    """backup --all: one bad source does not keep the others from being escrowed."""

    world_options = {"tpm": False}

    def test_one_of_three_fails(self):
        for name in ("one", "two", "three"):
            self.world.write(name + ".key", os.urandom(32))
            self.succeeds("key", "add", "all/" + name, "--source", name + ".key", "--path",
                          "password & token:ops")
        self.world.path("two.key").unlink()
        done = self.world.run("backup", "--all", *UNLOCK, "--json")
        self.assertNotEqual(done.status, 0, str(done))
        listed = self.succeeds("list", "--json").json()["keys"]
        names = {row["key"]["name"] for row in listed}
        self.assertIn("all/one", names, str(done))
        self.assertIn("all/three", names, str(done))
        self.assertNotIn("all/two", names)
        self.assertIn(b"all/two", done.out + done.err)


class Credentials(AcceptanceCase):
    """What systemd hands over (LoadCredential=) serves where no option was given."""

    world_options = {"tpm": False}

    def test_password_and_pin(self):
        folder = pathlib.Path(self.world.path("credentials"))
        folder.mkdir(mode=0o700)
        for name, source in (("password", "pw"), ("pin", "pin")):
            (folder / name).write_bytes(self.world.path(source).read_bytes())
            (folder / name).chmod(0o400)
        done = self.world.run("restore", "app/key", "--to", "out.key", "--no-input",
                              env={"CREDENTIALS_DIRECTORY": str(folder)})
        self.assertEqual(done.status, 0, str(done))
        self.assertEqual(self.world.path("out.key").read_bytes(), self.world.key)
        self.world.path("out.key").unlink()
