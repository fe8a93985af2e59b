"""Officers' shares on SoftHSM: RSA and P-256 mixed, officers away, wrong PINs, bad shares, packs."""

import base64
import os
import shutil
import subprocess
import sys

from world import PIN, SECOND_DECODER, AcceptanceCase

EXPRESSION = "2 of (token:alice, token:bob, token:carol)"
OFFICERS = ("alice", "bob", "carol")
PINS = tuple(word for name in OFFICERS for word in ("--pin-file", f"{name}=pin.{name}"))
VECTORS = SECOND_DECODER.parent / "vectors"


class Officers(AcceptanceCase):
    """Three officers, each with a token in a folder of its own: a drawer, or the reader."""

    world_options = {"tpm": False}
    paths = None

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        world = cls.world
        world.key = os.urandom(32)
        world.write("app.key", world.key)
        world.write("wrong-pin", "00000000\n")
        world.configure_tokens("softhsm2.conf", "tokens")
        world.thumbprint = world.must("init", "--json").json()["thumbprint"]
        for name in OFFICERS:
            world.write(f"pin.{name}", PIN + "\n")
            before = set(world.path("tokens").iterdir())
            world.make_token(name)
            new, = set(world.path("tokens").iterdir()) - before
            world.tokens = {**getattr(world, "tokens", {}), name: new}
            words = [name, f"pkcs11:token={name}", "--module", world.module, "--pin-file",
                     f"pin.{name}"]
            if name == "bob":  # a P-256 key
                words[1] += ";object=ec"
                world.must("token", "keygen", *words, "--kind", "p256")
            else:
                world.must("token", "add", *words)
        cls.backup("app/key", f"officers={EXPRESSION}", f"both={EXPRESSION} & password")

    @classmethod
    def backup(cls, name, *paths):
        words = [word for path in paths for word in ("--path", path)]
        return cls.world.must("backup", name, "--from", "app.key", *words, *PINS,
                              "--password-file", "pw", "-o", "app.escrow", "--json").json()

    @classmethod
    def insert(cls, *names):
        """These tokens are in their readers, the others in the drawer."""
        drawer = cls.world.path("drawer")
        drawer.mkdir(exist_ok=True)
        for name, folder in cls.world.tokens.items():
            here, away = cls.world.path("tokens") / folder.name, drawer / folder.name
            source, target = (away, here) if name in names else (here, away)
            if source.exists():
                shutil.move(source, target)

    def setUp(self):
        self.insert(*OFFICERS)
        self.world.path("out.key").unlink(missing_ok=True)

    def restore(self, *arguments, via="officers", pins=PINS):
        return self.world.run("restore", "app/key", "--to", "out.key", "--via", via, *pins,
                              *arguments)

    def rotated(self, name, *arguments):
        return self.world.run("rotate", name, "--no-input", "--json", "--generate", "32", "--to",
                              f"{name}.key", *arguments)

    def brings_the_key(self, done):
        self.assertEqual(done.status, 0, str(done))
        self.assertEqual(self.world.path("out.key").read_bytes(), self.world.key)
        self.world.path("out.key").unlink()


class Shares(Officers):  # one test: its methods share the tokens and one key
    def test_doctor_expects_no_token_that_lies_in_a_safe(self):
        self.insert("alice")
        done = self.world.run("doctor", "--json")
        self.assertEqual(done.status, 0, str(done))
        away = {check["what"].split()[0] for check in done.json()["checks"]
                if (check["area"], check["outcome"]) == ("officer", "warning")}
        self.assertEqual(away, {"token:bob", "token:carol"})

    def test_a_rotation_needs_no_officer(self):
        """New versions go to the officers' public keys; who opened the old one lately is known."""
        self.world.write("rotated.key", self.world.key)
        self.world.must("backup", "rotated", "--from", "rotated.key", "--path",
                        f"officers={EXPRESSION}", *PINS)
        self.insert()
        done = self.rotated("rotated")
        self.assertEqual((done.status, done.json()["outcome"]), (0, "confirmed"), str(done))
        path, = done.json()["paths"]
        self.assertEqual((path["proven"], path["covered_since"] is None), (False, False), path)
        self.insert("alice", "carol")
        self.succeeds("restore", "rotated", "--to", "out.key", *PINS)
        self.assertEqual(self.world.path("out.key").read_bytes(),
                         self.world.path("rotated.key").read_bytes())
        self.world.path("out.key").unlink()
        # Nobody ever opened it: the old key stays in use.
        self.world.run("backup", "unopened", "--from", "app.key", "--path",
                       f"officers={EXPRESSION}", "--prove", "none")
        self.insert()
        error = self.check_json(self.rotated("unopened"), "findings", 1)
        self.assertIn("drill unopened --via officers", error["hint"])
        self.assertEqual(self.succeeds("show", "unopened", "--json").json()["key"]["version"], 1)
        self.insert(*OFFICERS)
        done = self.rotated("unopened", "--prove", "officers", *PINS)
        self.assertTrue(done.json()["paths"][0]["proven"], str(done))

    def test_any_two_of_three_open_and_one_does_not(self):
        for here in (OFFICERS, ("bob", "carol"), ("alice", "carol"), ("alice", "bob")):
            self.insert(*here)
            self.brings_the_key(self.restore())
            self.brings_the_key(self.restore("--password-file", "pw", via="both"))
        self.insert("bob")
        done = self.restore("--json")
        error = self.check_json(done, "token_not_found", 5)
        self.assertIn("1 of 2 officers' tokens", error["message"])
        self.assertIn("are there: alice, carol are not present", error["message"])
        self.assertNotIn("bob", error["message"])
        self.insert()
        done = self.restore()
        self.check_text(done, 5)
        # Of several that are away the names are enough, and once.
        self.assertEqual(done.err.count(b"not present"), 1, str(done))
        self.assertIn(b"0 of 2 officers' tokens are there: alice, bob, carol are not", done.err)

    def test_a_wrong_pin_costs_nobody_elses_work(self):
        pins = [word.replace("bob=pin.bob", "bob=wrong-pin") for word in PINS]
        self.insert("bob", "carol", "alice")
        self.brings_the_key(self.restore(pins=pins))  # alice and carol serve
        self.insert("alice", "bob")
        error = self.check_json(self.restore("--json", pins=pins), "wrong_pin", 3)
        self.assertIn("1 of 2 officers' shares", error["message"])
        self.assertIn("bob: ", error["message"])
        error = self.check_json(self.restore("--json", pins=PINS[:2]), "token_not_found", 5)
        self.assertIn("no PIN was given for the token bob", error["message"])
        self.assertIn("--pin-file bob=FILE", error["hint"])
        self.brings_the_key(self.restore())

    def test_a_wrong_password_is_no_officers_fault(self):
        self.check_json(self.restore("--password-file", "wrong", "--json", via="both"),
                        "wrong_password", 3)

    def test_backup_and_drill_prove_the_path(self):
        self.assertEqual([path["condition"] for path in
                          self.succeeds("show", "app/key", "--json").json()["paths"]],
                         ["proven", "proven"])
        self.insert("carol", "bob")
        done = self.succeeds("drill", "app/key", *PINS, "--password-file", "pw", "--json")
        self.assertEqual([p["outcome"] for k in done.json()["keys"] for p in k["paths"]],
                         ["proven", "proven"])
        self.insert("carol")
        done = self.world.run("drill", "app/key", *PINS, "--password-file", "pw", "--json",
                              "--no-input")
        self.assertEqual([p["outcome"] for k in done.json()["keys"] for p in k["paths"]],
                         ["skipped", "skipped"], str(done))
        shown = self.succeeds("show", "app/key", "--json").json()["paths"]
        self.assertEqual([path["condition"] for path in shown], ["proven", "proven"])

    def test_doctor_names_officers_whose_module_is_not_known(self):
        def officers(**options):
            done = self.world.run("doctor", "--json", **options)
            return [check for check in done.json()["checks"] if check["area"] == "officer"]

        self.assertEqual(officers(), [])
        env = {"KEYESCROW_STATE": str(self.world.path("elsewhere"))}
        self.world.must("init", env=env)
        self.world.must("trust", "add", self.world.thumbprint, env=env)
        self.world.must("import", "app.escrow", env=env)
        found = officers(env=env)
        self.assertEqual([check["what"].split("officer ")[1].split(",")[0] for check in found],
                         list(OFFICERS))
        self.assertIn("token add alice URI --module SO", found[0]["remedy"])

    def test_it_is_told_who_can_open_what(self):
        self.insert("alice", "bob")
        first, second = self.succeeds("show", "app/key", "--json").json()["paths"]
        self.assertEqual((first["factors"], first["opens_here"]), (EXPRESSION, True), first)
        self.assertEqual(second["factors"], EXPRESSION + " & password")
        self.insert("carol")
        first = self.succeeds("show", "app/key", "--json").json()["paths"][0]
        self.assertFalse(first["opens_here"])
        self.assertIn("1 of 2 officers' tokens are there", first["why_not"])
        what_if = lambda *words: self.world.run("what-if", *words, "--json")
        lost = what_if("--lose", "officer:alice")
        self.assertEqual(lost.status, 0, str(lost))
        for words, opens in ((("officer:alice",), False), (("officer:alice", "officer:bob"), True)):
            stolen = what_if(*[w for name in words for w in ("--steal", name)])
            self.assertEqual(stolen.status, 1 if opens else 0, str(stolen))
        lost = what_if("--lose", "officer:alice", "--lose", "officer:bob")
        self.assertEqual(lost.status, 1, str(lost))

    def test_another_implementation_opens_it(self):
        self.insert("bob", "carol")
        for path, more in (("officers", []), ("both", ["--password-file", "pw"])):
            self.world.path("other.key").unlink(missing_ok=True)
            words = [word for name in ("carol", "bob") for word in (
                "--token-module", self.world.module, "--token-label", name, "--pin-file",
                f"pin.{name}")]
            done = subprocess.run(
                [sys.executable, "-B", str(SECOND_DECODER / "decode.py"), "open", "app.escrow",
                 "--trust=" + self.world.thumbprint, "--path", path, "--out", "other.key", *words,
                 *more], cwd=self.world.folder, env=self.world.environment, capture_output=True,
                text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertEqual(self.world.path("other.key").read_bytes(), self.world.key)

    def test_the_pack_with_it_verifies(self):
        self.verifies()
        self.world.path("pack.tar").unlink(missing_ok=True)
        self.succeeds("audit", "export", "-o", "pack.tar")
        done = self.world.run("verify", "pack.tar", "--json")
        self.assertEqual(done.json()["num_bad"], 0, str(done))
        folder = self.world.path("pack")
        folder.mkdir(exist_ok=True)
        subprocess.run(["tar", "-xf", self.world.path("pack.tar"), "-C", folder,
                        "--strip-components=1"], check=True)
        done = subprocess.run([sys.executable, "-B", "-I", folder / "verify.py", "--json"],
                              capture_output=True, text=True, check=False)
        self.assertIn(done.returncode, (0, 1), done.stdout + done.stderr)
        self.assertNotIn("tampered", done.stdout)

    def test_removing_a_token_says_what_it_strands(self):
        done = self.world.run("token", "remove", "alice", "--json", "--no-input")
        self.assertNotIn(b"app/key", done.out + done.err)  # two are left, and enough


class BadShares(Officers):  # one test
    """Envelopes that another maker dealt wrong: the vectors', their keys on tokens."""

    @classmethod
    def backup(cls, *_):
        return None

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.fields, cls.keys = cls.vector("valid_shares_second_miscommitted")
        for label, pem in zip(("v-alice", "v-bob", "v-carol"), cls.keys):
            cls.import_key(label, pem)

    @classmethod
    def vector(cls, name):
        head, _, envelope = (VECTORS / f"{name}.txt").read_bytes().partition(b"\n\n")
        lines = [line.split(": ", 1) for line in head.decode().splitlines()]
        cls.world.write(name + ".escrow", envelope)
        return dict(lines), [base64.b64decode(value) for key, value in lines
                             if key == "token_key_pem_b64"]

    @classmethod
    def import_key(cls, label, pem):
        world = cls.world
        world.make_token(label)
        world.write("k.pem", pem)
        kind = "decrypt" if b"RSA" in subprocess.run(
            ["openssl", "pkey", "-in", world.path("k.pem"), "-noout", "-text"],
            capture_output=True, check=True).stdout[:200] else "derive"
        for extra, private in ((["-pubout"], "pubkey"), ([], "privkey")):
            subprocess.run(["openssl", "pkey", "-in", world.path("k.pem"), *extra, "-outform",
                            "DER", "-out", world.path("k.der")], check=True)
            subprocess.run(
                ["pkcs11-tool", "--module", world.module, "--token-label", label, "--login",
                 "--pin", PIN, "--write-object", world.path("k.der"), "--type", private, "--id",
                 "77", "--label", "v", f"--usage-{kind}"], env=world.environment, check=True,
                capture_output=True)

    def restore_vector(self, name, *arguments):
        self.vector(name)
        pins = [word for officer in OFFICERS for word in ("--pin-file", f"{officer}=pin.{officer}")]
        pins[1] = "ops=pin.alice"  # the vector's first token is registered under that name
        return self.world.run("restore", name + ".escrow", "--to", "out.key", "--via", "officers",
                              "--agent", self.fields["trust"].split()[0], "--module",
                              self.world.module, *pins, *arguments)

    def test_a_bad_share_is_skipped_and_its_officer_named(self):
        for name, officer in (("valid_shares_second_miscommitted", "bob"),
                              ("valid_shares_31_bytes", "alice")):
            done = self.restore_vector(name)
            self.assertEqual(done.status, 0, str(done))
            self.assertIn(b"skipped the share of " + officer.encode(), done.err)
            self.assertEqual(self.world.path("out.key").read_bytes().hex(),
                             self.fields["content_hex"])
            self.world.path("out.key").unlink()

    def test_too_many_bad_shares_are_no_ones_pin(self):
        error = self.check_json(self.restore_vector("factor_shares_commitments_swapped", "--json"),
                                "factor_bad", 3)
        self.assertEqual(error["failure"], "factor")
        for officer in ("alice", "bob"):
            self.assertIn(officer + ": ", error["message"])
