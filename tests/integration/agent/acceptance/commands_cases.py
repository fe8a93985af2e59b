"""Every command's success: one JSON document with a schema, text that says something; two hosts."""

import json
import shutil
import os
import subprocess

from world import BOTH_PATHS, PASSWORD, PIN, UNLOCK, AcceptanceCase, World


class Commands(AcceptanceCase):
    paths = BOTH_PATHS

    def document(self, *arguments, status=0):
        done = self.world.run(*arguments, "--json")
        self.assertEqual(done.status, status, str(done))
        document = json.loads(done.out)  # one document, nothing else
        self.assertRegex(document["schema"], r"^keyescrow/[a-z-]+/1$")
        return document

    def test_every_command_gives_one_document(self):
        schemas = set()
        for command in (
                ["version"], ["doctor", "--module", self.world.module], ["status"],
                ["status", "app/key"], ["list"], ["show", "app/key"], ["show", "app.escrow"],
                ["verify"], ["verify", "app/key"], ["verify", "app.escrow"], ["token", "list"],
                ["token", "show", "ops"], ["trust", "list"], ["agent-key", "show"],
                ["agent-key", "export", "-o", "agent.pub"], ["audit", "log"],
                ["audit", "checkpoint"], ["audit", "prove", "app/key"],
                ["export", "app/key", "-o", "e.escrow"], ["import", "e.escrow"],
                ["key", "add", "declared/key", "--source", "app.key", "--path",
                 "password & token:ops"],
                ["key", "list"], ["backup", "declared/key", *UNLOCK], ["backup", "--all", *UNLOCK],
                ["key", "remove", "declared/key", "--yes"],
                ["restore", "app/key", "--to", "r.key", *UNLOCK],
                ["trust", "add", "A" * 43], ["trust", "remove", "A" * 43, "--yes"]):
            with self.subTest(command=command):
                schemas.add(self.document(*command)["schema"])
        self.assertGreater(len(schemas), 15, schemas)

    def test_text_of_every_reading_command(self):
        for command in (["version"], ["doctor"], ["status"], ["list"], ["show", "app/key"],
                        ["show", "app.escrow"], ["verify"], ["token", "list"],
                        ["token", "show", "ops"], ["agent-key", "show"], ["audit", "log"],
                        ["audit", "checkpoint"], ["audit", "prove", "app/key"], ["trust", "list"]):
            done = self.succeeds(*command)
            self.assertTrue(done.out.strip(), command)

    def test_show_agrees_for_the_store_and_the_file(self):
        stored, filed = self.document("show", "app/key"), self.document("show", "app.escrow")
        for member in ("key", "envelope_sha256", "agent", "host", "created"):
            self.assertEqual(stored[member], filed[member])
        self.assertEqual([path["id"] for path in stored["paths"]], ["token-ops", "tpm"])
        self.assertTrue(all(path["opens_here"] for path in stored["paths"]))
        without = self.document("show", "app/key", "--tpm", "none")
        self.assertFalse(without["paths"][1]["opens_here"])
        self.assertTrue(without["paths"][1]["why_not"])

    def test_audit_prove_and_since(self):
        self.world.write("older", self.succeeds("audit", "checkpoint").out)
        self.restored("out.key", "--via", "token-ops")
        self.succeeds("verify", "--since", "older")
        proof = self.succeeds("audit", "prove", "app/key").out.decode()
        self.assertTrue(proof.startswith("c2sp.org/tlog-proof@v1\n"), proof)
        other = World(tpm=False, token=False)
        self.addCleanup(other.close)
        other.must("init")
        self.world.write("foreign", b"")
        other_point = other.run("audit", "checkpoint")
        self.assertEqual(other_point.status, 0, str(other_point))
        self.world.write("foreign", other_point.out)
        done = self.world.run("verify", "--since", "foreign", "--json")
        self.assertEqual(done.status, 4, str(done))

    def test_restores_stand_in_the_log(self):
        self.restored("out.key", "--via", "tpm", "--reason", "INC-0815")
        entries = self.document("audit", "log")["entries"]
        last = [entry for entry in entries if entry["type"].startswith("restore.")][-2:]
        self.assertEqual([entry["type"] for entry in last],
                         ["restore.requested", "restore.completed"])
        self.assertEqual([entry["reason"] for entry in last], ["INC-0815"] * 2)
        self.assertEqual(last[0]["actor"]["uid"], os.getuid())

    def test_what_says_nothing_of_a_path_does_not_make_it_broken(self):
        restore = ("restore", "app/key", "--via", "token-ops", "--pin-file", "pin")
        done = self.world.run(*restore, "--to", "x.key", "--password-file", "wrong")
        self.assertEqual(done.status, 3, str(done))
        self.world.write("other.key", b"another key")
        done = self.world.run(*restore, "--to", "other.key", "--password-file", "pw")
        self.assertEqual(done.status, 12, str(done))
        status = self.document("status", "app/key")
        self.assertEqual(status["keys"][0]["paths"][0]["condition"], "proven")
        self.assertEqual({f["rule"] for f in status["findings"]} - {"simulator"}, set())


class Trace(AcceptanceCase):
    world_options = {"tpm": False}

    def test_each_step_is_told_with_its_time_and_no_secret(self):
        done = self.succeeds("restore", "app/key", "--to", "out.key", *UNLOCK, "--trace")
        steps = [line for line in done.err.decode().splitlines() if line.startswith("trace: ")]
        for step in ("state ", "looking for the path's devices", "stretching the password",
                     "waiting for the token"):
            self.assertTrue(any(step in line for line in steps), str(done))
        for secret in (PASSWORD, PIN):
            self.assertNotIn(secret, done.err.decode())
        quiet = self.succeeds("restore", "app/key", "--to", "out.key", *UNLOCK)
        self.assertNotIn(b"trace:", quiet.err)


class TwoHosts(AcceptanceCase):
    """A second agent takes a file only from one that it trusts, and within that trust's scope."""

    world_options = {"tpm": False}

    def test_export_trust_import_restore(self):
        self.succeeds("export", "app/key", "-o", "carried.escrow")
        self.succeeds("agent-key", "export", "-o", "agent.pub")
        other = World(tpm=False, token=False)
        self.addCleanup(other.close)
        other.must("init")
        for name in ("carried.escrow", "agent.pub"):
            other.write(name, self.world.path(name).read_bytes())
        self.check_json(other.run("import", "carried.escrow", "--json"), "agent_not_trusted", 4)
        self.assertEqual(other.run("list").status, 8)

        # What is trusted is the thumbprint of the very key in the file.
        bent = json.loads(other.path("agent.pub").read_bytes())
        bent["thumbprint"] = "A" * 43
        other.write("bent.pub", json.dumps(bent))
        self.check_json(other.run("trust", "add", "bent.pub", "--json"), "usage", 2)
        other.write("long.pub", other.path("agent.pub").read_bytes() + b" " * (64 << 10))
        self.check_json(other.run("trust", "add", "long.pub", "--json"), "usage", 2)
        self.assertEqual(other.run("trust", "list", "--json").json()["agents"], [])

        other.must("trust", "add", "agent.pub", "--host", "another-host")
        self.check_json(other.run("import", "carried.escrow", "--json"), "agent_out_of_scope", 4)
        other.must("trust", "remove", self.world.thumbprint, "--yes")
        other.must("trust", "add", "agent.pub", "--host", "acceptance", "--key", "app/**")
        listed = json.loads(other.must("trust", "list", "--json").out)["agents"]
        self.assertEqual([agent["thumbprint"] for agent in listed], [self.world.thumbprint])

        other.must("import", "carried.escrow")
        self.assertEqual(json.loads(other.must("list", "--json").out)["keys"][0]["key"]["name"],
                         "app/key")
        token = {"SOFTHSM2_CONF": self.world.environment["SOFTHSM2_CONF"]}
        other.must("restore", "app/key", "--to", "out.key", "--module", other.module, *UNLOCK,
                   env=token)
        self.assertEqual(other.path("out.key").read_bytes(), self.world.key)
        other.must("verify")
        # Whoever gets the file trusts who signed it, and not who passed it on.
        exported = json.loads(other.must("export", "app/key", "-o", "again.escrow", "--json").out)
        self.assertEqual(exported["agent"], self.world.thumbprint)
        other.must("verify", "again.escrow", "--agent", exported["agent"])
        # A receipt that cannot be read is not one that is not there.
        other.path("again.escrow.receipt").unlink()
        seen = other.must("verify", "again.escrow", "--agent", exported["agent"]).out
        self.assertIn(b"there is no again.escrow.receipt", seen)
        other.path("again.escrow.receipt").mkdir()
        seen = other.run("verify", "again.escrow", "--agent", exported["agent"])
        self.assertNotEqual(seen.status, 0, str(seen))
        self.assertNotIn(b"there is no", seen.out)
        self.assertIn(b"cannot read the receipt again.escrow.receipt", seen.out + seen.err)
        other.path("again.escrow.receipt").rmdir()

        # Later revisions: by the same agent alone, and what is not known of them is said.
        edited = ("path", "add", "app/key", "--path", "second=password & token:ops", *UNLOCK)
        removed = ("path", "remove", "app/key", "--via", "token-ops", "second", "--yes", *UNLOCK)
        shutil.copytree(self.world.path("state"), self.world.path("fork"))
        self.succeeds(*edited)
        self.succeeds("export", "app/key", "-o", "second.escrow")
        self.succeeds(*removed)
        self.succeeds("export", "app/key", "-o", "third.escrow")
        # The same agent with an older state: its fourth revision follows another third one.
        fork = {"KEYESCROW_STATE": str(self.world.path("fork"))}
        for name in ("two", "three", "four"):
            self.succeeds("path", "add", "app/key", "--path", name + "=password & token:ops", *UNLOCK,
                          env=fork)
        self.succeeds("export", "app/key", "-o", "fourth.escrow", env=fork)
        for name in ("second", "third", "fourth"):
            other.write(name + ".escrow", self.world.path(name + ".escrow").read_bytes())
        mallory = World(tpm=False, token=False)
        self.addCleanup(mallory.close)
        mallory.must("init")
        for name in ("agent.pub", "carried.escrow"):
            mallory.write(name, self.world.path(name).read_bytes())
        mallory.must("trust", "add", "agent.pub")
        mallory.must("import", "carried.escrow")
        module = ("--module", mallory.module)
        mallory.must("token", "add", "ops", "pkcs11:token=ops", *module, "--pin-file", "pin", env=token)
        for command in (edited, removed):
            mallory.must(*command, env=token)
        mallory.must("export", "app/key", "-o", "forged.escrow")
        other.write("forged.escrow", mallory.path("forged.escrow").read_bytes())
        thumbprint = mallory.must("agent-key", "show", "--json").json()["thumbprint"]
        other.must("trust", "add", thumbprint, "--host", "acceptance", "--key", "app/**")
        error = self.check_json(other.run("import", "forged.escrow", "--json"), "already_exists", 2)
        self.assertIn("another key is escrowed here", error["message"])
        done = other.must("import", "third.escrow", "--json").json()
        self.assertEqual(done["revision"], 3)
        self.assertIn("revisions 2 to 2 are not here", " ".join(done["findings"]))
        for name, why in (("carried", "the store has its later revision 3"),
                          ("second", "the store has its later revision 3"),
                          ("fourth", "it follows another revision 3 than the store's")):
            error = self.check_json(other.run("import", name + ".escrow", "--json"), "already_exists",
                                    2)
            self.assertIn("app/key version 1 is not imported: " + why, error["message"])
        other.must("restore", "app/key", "--to", "third.key", "--module", other.module, *UNLOCK,
                   env=token)
        self.assertEqual(other.path("third.key").read_bytes(), self.world.key)
        other.must("verify")

        other.must("trust", "remove", self.world.thumbprint, "--yes")
        self.check_json(other.run("restore", "carried.escrow", "--to", "more.key", *UNLOCK,
                                  "--module", other.module, "--json", env=token),
                        "agent_not_trusted", 4)
        self.check_json(other.run("trust", "remove", self.world.thumbprint, "--yes", "--json"), "not_found",
                        8)
        self.check_json(other.run("trust", "add", "too-short", "--json"), "usage", 2)

    def test_a_key_of_another_host_is_rotated_there(self):
        self.world.path("carried.escrow").unlink(missing_ok=True)
        self.succeeds("export", "app/key", "-o", "carried.escrow")
        other = World(tpm=False, token=False)
        self.addCleanup(other.close)
        other.configure(other.tcti, host="db2")
        other.must("init")
        other.write("carried.escrow", self.world.path("carried.escrow").read_bytes())
        other.write("agent.pub", self.world.must("agent-key", "export").out)
        other.must("trust", "add", "agent.pub")
        other.must("import", "carried.escrow")
        for command in (("rotate", "app/key", "--to", "new.key", "--generate", "32"),
                        ("path", "add", "app/key", "--path", "password")):
            error = self.check_json(other.run(*command, "--no-input", "--json"), "usage", 2)
            self.assertIn("keyescrow adopt app/key", error["hint"])
        self.assertFalse(other.path("new.key").exists())


class ManyFactors(AcceptanceCase):
    """A key of more factors than are analysed: nothing passes as known of it."""

    paths = ()
    world_options = {"tpm": False}

    def test_what_if_says_what_it_did_not_analyse(self):
        world = self.world
        world.must("init")
        for number in range(1, 18):
            subprocess.run(["pkcs11-tool", "--module", world.module, "--token-label", "ops", "--login",
                            "--pin", PIN, "--keypairgen", "--key-type", "EC:prime256v1",
                            "--id", f"{number + 16:02x}", "--label", f"k{number}", "--usage-derive"],
                           env=world.environment, check=True, capture_output=True)
            world.must("token", "add", f"k{number}", f"pkcs11:token=ops;object=k{number}", "--module",
                       world.module)
        world.write("a.key", os.urandom(32))
        paths = [" & ".join(f"token:k{n}" for n in range(first, min(first + 4, 18)))
                 for first in range(1, 18, 4)]
        done = world.run("backup", "big/key", "--from", "a.key",
                         *(word for path in paths for word in ("--path", path)))
        self.assertEqual(done.status, 1, str(done))  # nothing proven: no PIN
        self.assertIn(b"too many factors", world.run("show", "big/key").out)
        error = self.refused("not_found", 8, "what-if", "--steal", "token:k17")
        self.assertIn("1 version was not analysed, and may", error["message"])
        world.must("backup", "small/key", "--from", "a.key", "--path", "token:k17", "--pin-file",
                   "pin")
        done = world.run("what-if", "--steal", "token:k17", "--json")
        self.assertEqual(done.status, 1, str(done))
        self.assertEqual((done.json()["num_opened"], done.json()["num_not_analysed"]), (1, 1))
