"""What clevis and systemd-cryptenroll escrowed, as an inventory: said, and never held or proven."""

import base64
import contextlib
import json
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys

from world import UNLOCK, AcceptanceCase

FIXTURES = pathlib.Path(__file__).resolve().parents[3] / "fixtures/foreign"


class Foreign(AcceptanceCase):  # one test
    world_options = {"tpm": False, "ordinary_user": True}
    paths = ()

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.world.must("init")
        for name in ("tpm2.jwe", "tang.jwe", "sss.jwe"):
            cls.world.write(name, (FIXTURES / name).read_bytes())

    def tearDown(self):
        self.verifies()
        super().tearDown()

    def cryptsetup(self, *arguments):
        subprocess.run(["cryptsetup", "-q", *arguments], cwd=self.world.folder, check=True,
                       stdin=subprocess.DEVNULL, capture_output=True)

    def entries(self, kind):
        log = self.world.run("audit", "log", "--json").json()["entries"]
        return [entry["reason"] for entry in log if entry["type"] == kind]

    def make_volume(self, name):
        image = self.world.write(name, b"")
        os.truncate(image, 20 << 20)
        self.world.write("pass", b"the passphrase")
        self.cryptsetup("luksFormat", "--type", "luks2", "--pbkdf", "pbkdf2",
                        "--pbkdf-force-iterations", "1000", "--key-file", "pass", name)
        return image

    def add_token(self, image, number, token, slots=("0",)):
        self.world.write("token.json", json.dumps({**token, "keyslots": list(slots)}))
        self.cryptsetup("token", "import", "--token-id", str(number), "--json-file", "token.json",
                        image)

    def listed(self, place):
        found = self.world.run("list", "--json").json()["foreign"]
        return [item for item in found if item["place"].endswith("/" + place)]

    def test_files_of_clevis(self):
        # Read where they lie, by anybody and without a state.
        nowhere = {"KEYESCROW_STATE": str(self.world.path("none")), "KEYESCROW_CONFIG": None}
        shown = self.succeeds("show", "./tang.jwe", env=nowhere)
        self.assertIn(b"not held by keyescrow, not proven; as they say it of themselves", shown.out)
        self.assertIn(b"opened by tang:http://tang.example:7500", shown.out)
        self.assertIn(b"over the network", shown.out)

        done = self.succeeds("import", "sss.jwe", "--json").json()
        self.assertEqual((done["schema"], done["num_new"]), ("keyescrow/import-foreign/1", 1))
        (escrow,) = done["foreign"]
        self.assertEqual((escrow["kind"], escrow["held"], escrow["proven"]),
                         ("clevis-sss", False, False))
        self.assertTrue(escrow["opens_by"].startswith("2 of ("), escrow)
        self.assertEqual(escrow["recoverability"]["survives"], 1)
        self.assertIn(["tang:http://other.example", "tpm"], escrow["recoverability"]["thefts"])
        self.assertEqual(self.succeeds("import", "sss.jwe", "--json").json()["num_new"], 0)
        self.succeeds("import", "file:tpm2.jwe")
        first, second = [text for text in self.entries("inventory.found")
                         if "/sss.jwe" in text or "/tpm2.jwe" in text]
        self.assertIn("clevis-sss in jwe of %s; opened by 2 of (" % self.world.path("sss.jwe"), first)
        self.assertIn("opened by tpm (pcrs sha256:7)", second)

        # list says so too, and no key came along.
        self.assertEqual({item["kind"] for item in self.listed("sss.jwe") + self.listed("tpm2.jwe")},
                         {"clevis-sss", "clevis-tpm2"})
        self.assertIn(b"survives the loss of any one", self.succeeds("list").out)
        store = b"".join(path.read_bytes() for path in self.world.path("state").glob("store.db*"))
        for name in ("tpm2.jwe", "sss.jwe"):
            header, _, _, cipher, _ = (FIXTURES / name).read_bytes().split(b".")
            sealed = base64.urlsafe_b64decode(header + b"==")
            self.assertNotIn(cipher, store)
            self.assertNotIn(sealed[200:240], store)

        # A file that changes is told anew; one that is gone goes, and one that never was is no file.
        self.world.write("moving.jwe", (FIXTURES / "tang.jwe").read_bytes())
        self.assertEqual(self.succeeds("import", "moving.jwe", "--json").json()["num_new"], 1)
        self.world.write("moving.jwe", (FIXTURES / "tpm2.jwe").read_bytes())
        done = self.succeeds("import", "moving.jwe", "--json").json()
        self.assertEqual((done["num_new"], done["num_gone"]), (1, 0))
        self.world.path("moving.jwe").unlink()
        done = self.succeeds("import", "moving.jwe", "--json").json()
        self.assertEqual((done["foreign"], done["num_gone"]), ([], 1))
        self.assertEqual(self.listed("moving.jwe"), [])
        self.edits_are_found()
        self.assertIn("moving.jwe; no longer there", self.entries("inventory.gone")[-1])
        self.assertNotEqual(self.world.run("import", "moving.jwe").status, 0)

    def edits_are_found(self):
        for edit in ("DELETE FROM foreign_escrow WHERE place LIKE '%/sss.jwe'",
                     "UPDATE foreign_escrow SET opens_by = (SELECT opens_by FROM foreign_escrow "
                     "WHERE place LIKE '%/tpm2.jwe') WHERE place LIKE '%/sss.jwe'",
                     "INSERT INTO foreign_escrow SELECT '/etc/other.jwe', item, kind, volume, "
                     "opens_by, sha256, found FROM foreign_escrow WHERE place LIKE '%/sss.jwe'"):
            copy = self.world.path("edited")
            shutil.copytree(self.world.path("state"), copy)
            self.addCleanup(shutil.rmtree, copy, ignore_errors=True)
            with contextlib.closing(sqlite3.connect(copy / "store.db")) as store:
                self.assertEqual(store.execute(edit).rowcount, 1, edit)
                store.commit()
            self.world.give_to_user()
            done = self.world.run("verify", "--json", "--state", str(copy))
            findings = [found for item in done.json()["items"] for found in item["findings"]]
            self.assertEqual((done.status, [found["fault"] for found in findings]),
                             (4, ["foreign_unlogged"]), str(done))
            shutil.rmtree(copy)

    def test_the_tokens_of_a_volume(self):
        image = self.make_volume("volume.img")
        self.refused("not_found", 8, "import", "volume.img")
        tokens = json.loads((FIXTURES / "tokens.json").read_text())
        for number, token in tokens.items():
            self.add_token("volume.img", number, token)
        before = image.read_bytes()
        done = self.succeeds("import", "luks:volume.img", "--json").json()
        self.assertEqual([item["kind"] for item in done["foreign"]],
                         ["systemd-recovery", "clevis-tpm2", "clevis-sss", "systemd-tpm2",
                          "systemd-tpm2", "systemd-pkcs11", "systemd-fido2"])
        self.assertEqual({tuple(item["keyslots"]) for item in done["foreign"]}, {(0,)})
        self.assertEqual(len({item["volume"] for item in done["foreign"]}), 1)
        self.assertEqual(done["foreign"][4]["opens_by"], "tpm (pcrs sha256:7) & pin")
        self.assertEqual(done["foreign"][2]["recoverability"]["survives"], 1)
        self.assertEqual(image.read_bytes(), before)
        self.assertIn(b"systemd-recovery: ", self.succeeds("show", "luks:volume.img").out)

        # What is gone from there goes from the inventory, and the log has both.
        self.cryptsetup("token", "remove", "--token-id", "6", "volume.img")
        again = self.succeeds("import", "volume.img", "--json").json()
        self.assertEqual((again["num_new"], again["num_gone"]), (0, 1))
        self.assertIn("systemd-fido2 in token 6 of ", self.entries("inventory.gone")[-1])
        self.assertEqual(len(self.listed("volume.img")), 6)

        # It is known by its UUID: at another path it has moved, and a copy is a second one.
        image.rename(self.world.path("other.img"))
        moved = self.succeeds("import", "other.img", "--json").json()
        self.assertEqual((moved["num_new"], moved["num_gone"]), (6, 6))
        self.assertIn("the volume is now at ", self.entries("inventory.gone")[-1])
        shutil.copy(self.world.path("other.img"), image)
        self.world.give_to_user()
        copied = self.succeeds("import", "volume.img", "--json").json()
        self.assertEqual((copied["num_new"], copied["num_gone"]), (6, 0))
        os.symlink("other.img", self.world.path("link.img"))
        linked = self.succeeds("import", "link.img", "--json").json()
        self.assertEqual((linked["num_new"], linked["num_gone"]), (6, 6))

        # A volume without such tokens has none in the inventory either.
        for number in range(6):
            self.cryptsetup("token", "remove", "--token-id", str(number), "other.img")
        emptied = self.succeeds("import", "link.img", "--json").json()
        self.assertEqual((emptied["foreign"], emptied["num_gone"]), ([], 6))

    def test_tokens_that_open_nothing_or_do_not_read(self):
        self.make_volume("odd.img")
        tokens = json.loads((FIXTURES / "tokens.json").read_text())
        self.add_token("odd.img", 0, tokens["1"], slots=())
        self.add_token("odd.img", 1, {"type": "clevis", "jwe": {"protected": "e30"}})
        self.add_token("odd.img", 2, {"type": "systemd-recovery"})
        found = self.succeeds("import", "odd.img", "--json").json()["foreign"]
        self.assertEqual([(item["kind"], item["opens_nothing"], item["recoverability"] is None)
                          for item in found],
                         [("clevis-tpm2", True, True), ("unreadable", True, True),
                          ("systemd-recovery", False, False)])
        shown = self.succeeds("show", "./odd.img").out
        self.assertIn(b"opens no keyslot of the volume", shown)
        self.assertIn(b"unknown:unreadable (it holds no JWE)", shown)

    def test_what_is_none_of_them(self):
        self.world.write("torn.jwe", (FIXTURES / "sss.jwe").read_bytes()[:700])
        self.world.write("plain.jwe", b"eyJhbGciOiJkaXIifQ..aXY.Y2lwaGVy.dGFn")
        self.world.write("huge.jwe", b"ey" + b"a" * (1 << 20))
        header = base64.urlsafe_b64encode(json.dumps({"clevis": {"pin": "tang", "tang": {
            "url": "http://a) & tpm\n\u202e"}}}).encode()).rstrip(b"=")
        self.world.write("lying.jwe", header + b"..aXY.Y2lwaGVy.dGFn")
        self.refused("source_unreadable", 2, "import", "torn.jwe")
        for name in ("plain.jwe", "huge.jwe"):
            self.refused("source_unreadable", 2, "import", name, num_runs=1)
            self.refused("source_unreadable", 2, "show", "./" + name, num_runs=1)
        self.assertIn(b"opened by tang:http://a%29%20%26%20tpm%0A%E2%80%AE\n",
                      self.succeeds("show", "./lying.jwe").out)
        self.assertNotEqual(self.world.run("import", "agent.toml").status, 0)
        self.assertNotEqual(self.world.run("import", ".").status, 0)

    def test_beside_keys_and_for_auditors(self):
        """Status, what-if, a pack and both its verifiers, and the report know of them."""
        self.world.write("app.key", os.urandom(32))
        self.succeeds("import", "tang.jwe")
        # They are no key of ours: with them alone, nothing complies.
        for command, runs in (("status", 2), ("audit report", 1)):
            error = self.refused("not_found", 8, *command.split(), num_runs=runs)
            self.assertIn("keyescrow does not hold what other tools escrowed", str(error))
        self.assertEqual(self.world.run("status", "--nagios").status, 3)
        self.succeeds("token", "add", "ops", "pkcs11:token=ops", "--module", self.world.module, *UNLOCK[2:])
        self.succeeds("backup", "app/key", "--from", "app.key", "--path", "password & token:ops", *UNLOCK)
        status = self.world.run("status", "--json").json()
        self.assertIn("clevis-tang", {item["kind"] for item in status["foreign"]})
        self.assertEqual([f for f in status["findings"] if "tang" in json.dumps(f)], [])
        self.assertIn(b"foreign escrows: not held by keyescrow", self.world.run("status").out)
        self.assertEqual(self.world.run("status", "app/key", "--json").json()["foreign"], [])
        what_if = self.world.run("what-if", "--lose", "token:ops", "--json").json()
        self.assertEqual(len(what_if["keys"]), 1)
        self.assertTrue(any("not held by keyescrow" in note for note in what_if["notes"]), what_if)

        self.succeeds("audit", "report", "--html", "-o", "report.html")
        self.succeeds("agent-key", "export", "-o", "trusted.json")
        self.succeeds("audit", "export", "-o", "pack.tar")
        verified = self.world.run("verify", "pack.tar", "--trust", "trusted.json", "--json")
        self.assertEqual(verified.json()["num_bad"], 0, str(verified))
        self.assertIn(verified.status, (0, 1), str(verified))
        unpacked = self.world.path("unpacked")
        unpacked.mkdir()
        subprocess.run(["tar", "-xf", self.world.path("pack.tar"), "-C", unpacked], check=True)
        (folder,) = unpacked.iterdir()
        entries = b"".join(path.read_bytes() for path in (folder / "entries").iterdir())
        self.assertIn(b'"type":"inventory.found"', entries)
        script = subprocess.run([sys.executable, "-I", folder / "verify.py",
                                 self.world.path("pack.tar"), "--trust",
                                 self.world.path("trusted.json")],
                                capture_output=True, cwd=self.world.folder, check=False)
        self.assertEqual(script.returncode, verified.status, script)
