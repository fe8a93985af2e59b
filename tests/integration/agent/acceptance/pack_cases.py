"""The evidence pack: exported, verified elsewhere by keyescrow and by its own verify.py; lied about.

Whatever is done to a pack, both verifiers must come to the same status and name what was touched.
"""

import base64
import contextlib
import datetime
import hashlib
import importlib.util
import io
import json
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import time
import types
from unittest import mock

from world import BOTH_PATHS, PASSWORD, PIN, UNLOCK, AcceptanceCase, World, within

POLICY = """[policy]
name = "corp"
serial = 3
mode = "enforce"
simulators = "allowed"
[[rule]]
name = "all"
match = "**"
portable = true
drill_every = "52w"
"""
ASIDE = """[[exception]]
key = "app/o*"
rule = "all"
until = 2100-01-01T00:00:00Z
reason = "test"
"""
# What app/key lacks, by the pinned name of its token, by its cost, and set aside for app/other.
STRICT = POLICY.replace("serial = 3", "serial = 1") + """require = ["tpm & password",
  "recovery-key:team"]
forbid = ["password & token:blue"]
kdf = { argon2id_min_passes = 32, pbkdf2_min_iterations = 20000000 }
""" + ASIDE + """[[rule]]
name = "young"
match = "app/*"
grace = "2d"
require = ["token:nobody"]
"""
# What no key of this world survives, and what opens it; aside for one.
LOSSES = POLICY.replace("serial = 3", "serial = 2") + """survive = 1
withstand = 2
""" + ASIDE + """[[rule]]
name = "other"
match = "app/other"
survive = 1
withstand = 1
"""
LIMITED, TRUSTED, REMOVED, NOBODY = (letter * 42 + "A" for letter in "BCDE")  # agents
FOREIGN = pathlib.Path(__file__).resolve().parents[3] / "fixtures/foreign"
ED25519_PKCS8 = bytes.fromhex("302e020100300506032b657004220420")
MEMBERS = """README.txt verify.py keys/agent-key.json keys/log.vkeys keys/trusted-agents.json
    keys/tokens.json policy/policy.json policy/policy.toml policy/policy.toml.sig policy/signers checkpoint
    summaries/000000000000.jsonl entries/000000000000.jsonl checkpoints/000000000000.jsonl tile/
    drills.jsonl anchors.jsonl keys/recovery-keys.json inventory.json status.json report.html report.csv controls.md
    proofs/ MANIFEST MANIFEST.sig""".split()


def header(folder, name, size, time, kind="0"):
    """A ustar header, by the standard and not by our own code."""
    info = tarfile.TarInfo(f"{folder}/{name}")
    block = bytearray(512)
    for at, text in ((0, name), (100, "0000644"), (108, "0000000"), (116, "0000000"),
                     (124, "%011o" % size), (136, "%011o" % time), (148, " " * 8), (156, kind),
                     (257, "ustar\0" + "00"), (345, folder)):
        block[at:at + len(text)] = text.encode()
    block[148:156] = b"%06o\0 " % sum(block)
    assert info.name.endswith(name)
    return bytes(block)


def note(text, name, key_id, seed, folder):
    """A signed note (C2SP signed-note) by one Ed25519 key."""
    pem = base64.encodebytes(ED25519_PKCS8 + seed).decode()
    (folder / "lie.pem").write_text(
        "-----BEGIN PRIVATE KEY-----\n%s-----END PRIVATE KEY-----\n" % pem)
    (folder / "lie.txt").write_text(text)
    signature = subprocess.run(
        ["openssl", "pkeyutl", "-sign", "-inkey", folder / "lie.pem", "-rawin", "-in",
         folder / "lie.txt"], check=True, capture_output=True).stdout
    return "{}\n\u2014 {} {}\n".format(
        text, name, base64.b64encode(key_id + signature).decode()).encode()


class Pack:
    """A pack's members, to be changed and written again."""

    def __init__(self, path):
        with tarfile.open(path, "r:") as tar:
            infos = tar.getmembers()
            self.members = {info.name.partition("/")[2]: tar.extractfile(info).read()
                            for info in infos}
        self.folder, self.time = infos[0].name.partition("/")[0], infos[0].mtime
        self.places = {info.name.partition("/")[2]: (info.offset_data, info.size)
                       for info in infos}

    def manifest(self):
        self.members["MANIFEST"] = "".join(
            "%s  %s\n" % (hashlib.sha256(data).hexdigest(), name)
            for name, data in self.members.items() if not name.startswith("MANIFEST")).encode()

    def sign(self, seed, folder, key=None, statement=lambda text: text):
        """What somebody can do who holds the log's key: MANIFEST and its signature made anew. With
        `key`, another log's vkey, by that one."""
        self.manifest()
        old = self.members["MANIFEST.sig"].decode()
        lines = old.split("\n")
        lines[3] = base64.b64encode(hashlib.sha256(self.members["MANIFEST"]).digest()).decode()
        text = statement("\n".join(lines[:5]) + "\n")
        first = old.partition("\n\n")[2].split("\n")[0]
        _, name, blob = first.split(" ")
        key_id = base64.b64decode(blob)[:4]
        if key:
            name, key_id = key.split("+")[0], bytes.fromhex(key.split("+")[1])
        self.members["MANIFEST.sig"] = note(text, name, key_id, seed, folder)

    def write(self, path):
        data = b"".join(header(self.folder, name, len(data), self.time) + data +
                        bytes(-len(data) % 512) for name, data in self.members.items())
        path.write_bytes(data + bytes(1024))

    def edit(self, name, change):
        data = change(self.members[name])
        assert data != self.members[name], name
        self.members[name] = data


class PackCase(AcceptanceCase):
    """A world whose packs both verifiers take, and what lies about them."""

    paths = BOTH_PATHS

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        world = cls.world
        world.must("recovery-key", "create", "team", "--path", "token:ops & password", *UNLOCK)
        world.run("recovery-key", "create", "old", "--path", "token:ops", "--prove-none")
        world.must("recovery-key", "retire", "old", "--yes")
        world.write("sss.jwe", (FOREIGN / "sss.jwe").read_bytes())
        world.must("import", "sss.jwe")
        # Limited, without limits, and no longer.
        world.must("trust", "add", LIMITED, "--host", "db1", "--key", "db/**")
        for agent in (TRUSTED, REMOVED):
            world.must("trust", "add", agent)
        world.must("trust", "remove", REMOVED, "--yes")
        for version in range(2):
            world.write("other.key", b"another key of thirty-two bytes%d" % version)
            world.must("backup", "app/other", "--from", "other.key", "--path", cls.paths[0],
                       "--path", "recovery-key:team", "--kdf", "pbkdf2-sha512", *UNLOCK)
        world.must("restore", "app/key", "--to", "out.key", "--reason", "INC-1", *UNLOCK)
        world.must("drill", "app/key", "--via", "tpm", *UNLOCK)
        world.must("audit", "anchor")
        world.write("since", world.must("audit", "checkpoint").out)
        world.write("trust.json", world.must("agent-key", "export").out)
        world.must("audit", "export", "-o", "builtin.tar")
        vkey = world.must("policy", "sign", "--new-key", "alice.key").out.decode().strip()
        spki = world.must("token", "show", "ops", "--json").json()["spki_sha256"]
        pin = f'[tokens.blue]\nspki_sha256 = "{spki}"\nassurance = "software"\n'
        for text, name in ((STRICT + pin, "strict.tar"), (LOSSES + pin, "losses.tar"),
                           (POLICY, None)):
            world.write("policy.toml", text)
            world.must("policy", "sign", "policy.toml", "--key", "alice.key")
            world.must("policy", "set", "policy.toml",
                       *(("--policy-key", vkey) if name == "strict.tar" else ()))
            if name:
                world.must("audit", "export", "-o", name)
        cls.exported = world.must("audit", "export", "-o", "pack.tar", "--json").json()
        cls.elsewhere = {"KEYESCROW_STATE": str(world.path("none")), "KEYESCROW_CONFIG": None}
        with tarfile.open(world.path("pack.tar")) as tar:
            tar.extractall(world.path("copy"))
        (cls.unpacked,) = world.path("copy").iterdir()
        cls.seed = (world.path("state") / "ed25519.seed").read_bytes()
        cls.other = World(tpm=False, token=False)
        cls.addClassCleanup(cls.other.close)
        spec = importlib.util.spec_from_file_location("verify_py", cls.unpacked / "verify.py")
        cls.program = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(cls.program)

    def tearDown(self):
        self.world.path("lie.tar").unlink(True)

    # ---- the two verifiers

    def keyescrow(self, pack, *arguments, env=None):
        return self.world.run("verify", pack, "--json", *arguments,
                              env=self.elsewhere if env is None else env)

    def verify_py(self, pack, *arguments):
        """The program of the pack, in this process: most of its time would be Python's start."""
        out = io.StringIO()
        with contextlib.chdir(self.world.folder), contextlib.redirect_stdout(out), \
                mock.patch.object(sys, "argv", ["verify.py", str(pack), "--json", *arguments]):
            status = self.program.main()
        return types.SimpleNamespace(returncode=status, stdout=out.getvalue())

    def verify_py_alone(self, *arguments, interpreter=("-B", "-I", "-S")):
        """As the auditor runs it, without any package that this machine has."""
        return subprocess.run(
            [sys.executable, *interpreter, self.unpacked / "verify.py", *arguments],
            cwd=self.world.folder, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=within(120), check=False, text=True)

    def both(self, name, status, *arguments, words=()):
        """Both come to `status`, and each says each of `words`."""
        done = self.keyescrow(name, *arguments)
        script = self.verify_py(name, *arguments)
        said = (done.out + done.err).decode()
        self.assertEqual((done.status, script.returncode), (status, status),
                         str(done) + script.stdout)
        for word in words:
            self.assertIn(word, said)
            self.assertIn(word, script.stdout)
        return done, json.loads(script.stdout)

    def trusted(self, name, status, *words):
        return self.both(name, status, "--trust", "trust.json", words=words)

    # ---- somebody who holds the log's key

    def written(self, pack):
        pack.write(self.world.path("lie.tar"))
        return "lie.tar"

    def forge(self, pack, change):
        """Changes what status.json says, and all that follows from it but report.html."""
        status = json.loads(pack.members["status.json"])
        change(status)
        status = self.program.Report.remade(status)
        pack.members["status.json"] = (json.dumps(status, indent=2, ensure_ascii=False) +
                                       "\n").encode()
        pack.members["report.csv"] = self.program.Report.csv(status).encode()

    def lied(self, pack):
        """Of a pack whose report.html alone is another: keyescrow says so, verify.py that it does
        not look."""
        pack.sign(self.seed, self.world.folder)
        done = self.keyescrow(self.written(pack), "--trust", "trust.json")
        script = self.verify_py("lie.tar", "--trust", "trust.json")
        self.assertEqual((done.status, script.returncode), (4, 1), str(done) + script.stdout)
        self.assertIn(b"report.html is not the report that status.json gives", done.out + done.err)
        self.assertIn("report.html: 'keyescrow verify' makes it anew", script.stdout)
        return done, json.loads(script.stdout)

    def signed(self, pack, *words, status=4):
        pack.sign(self.seed, self.world.folder)
        return self.trusted(self.written(pack), status, *words)


class Packs(PackCase):  # one test: its methods read the packs of one world
    # ---- a good one

    def test_both_verify_it(self):
        for arguments in (["--trust", "trust.json"], ["--agent", self.world.thumbprint],
                          ["--trust", "trust.json", "--since", "since"]):
            for name in ("pack.tar", "builtin.tar"):
                with self.subTest(arguments=arguments, name=name):
                    done, document = self.both(name, 0, *arguments)
                    (item,) = done.json()["items"]
                    self.assertEqual(done.json()["verdict"], "verified")
                    self.assertEqual(item["findings"], [])
                    self.assertEqual((document["bad"], document["findings"]), ([], []))
        since = " ".join(self.keyescrow("pack.tar", "--trust", "trust.json").json()
                         ["items"][0]["not_checked"])
        self.assertIn("--since", since)

    def test_verify_py_needs_nothing_but_python_and_openssl(self):
        script = self.verify_py_alone("pack.tar", "--trust", "trust.json", "--all-signatures")
        self.assertEqual(script.returncode, 0, script.stdout + script.stderr)
        # In the folder that it was unpacked to.
        script = self.verify_py_alone("--trust", "trust.json")
        self.assertEqual((script.returncode, script.stderr), (0, ""), script.stdout)
        self.assertIn("verdict: the pack is whole and authentic; the host complies", script.stdout)
        source = (self.unpacked / "verify.py").read_text()
        imported = re.findall(r"(?m)^(?:import|from) (\w+)", source)
        self.assertLessEqual(set(imported), set(sys.stdlib_module_names))

    def test_on_its_own_host_its_keys_count(self):
        self.assertEqual(self.keyescrow("pack.tar", env={}).status, 0)

    def test_what_is_in_it(self):
        pack = Pack(self.world.path("pack.tar"))
        names = list(pack.members)
        self.assertEqual(list(dict.fromkeys(
            next(m for m in MEMBERS if n == m or m.endswith("/") and n.startswith(m))
            for n in names)), MEMBERS)
        subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "MANIFEST"],
                       cwd=self.unpacked, check=True)
        self.assertEqual(self.exported["files"], len(names) - 2)
        self.assertEqual(self.exported["bytes"], self.world.path("pack.tar").stat().st_size)
        self.assertTrue(self.exported["agent_key_signed"])
        self.assertFalse(self.exported["envelopes"])
        entries = pack.members["entries/000000000000.jsonl"].decode().splitlines()
        self.assertEqual(len(entries), self.exported["log_size"])
        last = json.loads(entries[-1])
        self.assertEqual((last["type"], last["reason"]), ("audit.exported", "evidence pack"))
        self.assertEqual(pack.members["policy/policy.toml"].decode(), POLICY)
        self.assertEqual(json.loads(pack.members["policy/policy.json"])["name"], "corp")
        paths = {json.loads(line)["statement"].split("\n")[2]
                 for line in pack.members["drills.jsonl"].decode().splitlines()}
        self.assertEqual(paths, {"token-ops", "tpm"})
        self.assertEqual(json.loads(pack.members["keys/trusted-agents.json"])[0]["hosts"], ["db1"])
        self.assertIn(b"anchor.tpm", pack.members["anchors.jsonl"])
        builtin = Pack(self.world.path("builtin.tar")).members
        self.assertEqual(json.loads(builtin["policy/policy.json"])["serial"], 0)
        self.assertNotIn("policy/signers", builtin)
        # What does not follow from the log is the same at any time.
        for name in ("README.txt", "verify.py", "controls.md", "keys/agent-key.json"):
            self.assertEqual(builtin[name], pack.members[name])
        self.assertEqual(stat.S_IMODE(self.world.path("pack.tar").stat().st_mode), 0o600)

    def test_no_secret_is_in_it(self):
        data = self.world.path("pack.tar").read_bytes()
        state = self.world.path("state")
        secrets = [self.world.key, b"another key of thirty-two bytes", PASSWORD.encode(),
                   PIN.encode()]
        secrets += [path.read_bytes() for path in state.iterdir()
                    if path.suffix in (".seed", ".key", ".auth")]
        self.assertGreaterEqual(len(secrets), 7)
        for secret in secrets:
            for form in (secret, secret.hex().encode(), base64.b64encode(secret).rstrip(b"="),
                         base64.urlsafe_b64encode(secret).rstrip(b"=")):
                self.assertNotIn(form, data)
        envelope = json.loads(self.world.path("app.escrow").read_bytes())
        self.assertNotIn(envelope["payload"][:64].encode(), data)

    def test_written_to_standard_output(self):
        done = self.world.must("audit", "export", "-o", "-")
        self.world.write("piped.tar", done.out)
        self.trusted("piped.tar", 0)
        self.verifies()

    def test_refusals(self):
        self.refused("usage", 2, "audit", "export", "-o", "exec:cat")
        self.refused("usage", 2, "audit", "export")
        self.assertEqual(self.other.run("audit", "export", "-o", "pack.tar").status, 8)
        self.assertFalse(self.other.path("pack.tar").exists())

    # ---- questions to it

    def test_what_if_of_a_pack_is_that_of_its_state(self):
        trust = ("--in", "pack.tar", "--trust", "trust.json")
        for question in (("--lose", "token:ops"), ("--steal", "token:ops", "--steal", "password"),
                         ("--lose", "host:acceptance", "app/key"), ("--lose", "tpm:acceptance")):
            there = self.world.run("what-if", "--json", *question)
            here = self.world.run("what-if", "--json", *question, *trust, env=self.elsewhere)
            self.assertIn(there.status, (0, 1), str(there))
            self.assertEqual(here.status, there.status, str(here))
            answers = there.json(), here.json()
            self.assertEqual([answer.pop("pack") for answer in answers], [None, "pack.tar"])
            self.assertEqual(*answers)
        what_if = ("what-if", "--lose", "password")
        self.refused("agent_not_trusted", 4, *what_if, "--in", "pack.tar", env=self.elsewhere)
        self.world.write("lie.tar", self.world.path("pack.tar").read_bytes()[:-512])
        self.refused("log_damaged", 4, *what_if, "--in", "lie.tar", "--trust", "trust.json",
                     env=self.elsewhere)
        self.refused("not_found", 8, "what-if", "--lose", "token:opps", *trust, env=self.elsewhere)
        self.refused("usage", 2, *what_if, "--agent", self.world.thumbprint)

    # ---- findings

    def test_nobody_vouches_for_its_signer(self):
        done, document = self.both("pack.tar", 1, words=[self.world.thumbprint])
        (finding,) = done.json()["items"][0]["findings"]
        self.assertEqual((finding["fault"], finding["damage"]), ("pack_unvouched", False))
        self.assertEqual(document["bad"], [])

    def test_of_another_agent(self):
        other = self.other
        other.must("init")
        self.assertEqual(other.run("audit", "export", "-o", "pack.tar").status, 8)
        theirs = other.must("agent-key", "export").out
        self.world.write("theirs.json", theirs)
        self.both("pack.tar", 4, "--trust", "theirs.json", words=["MANIFEST.sig"])
        self.both("pack.tar", 4, "--agent", "A" * 43, words=[self.world.thumbprint])
        # Signed anew by somebody else, whose keys it then brings.
        pack = Pack(self.world.path("pack.tar"))
        pack.members["keys/agent-key.json"] = theirs
        pack.sign((other.path("state") / "ed25519.seed").read_bytes(), self.world.folder,
                  json.loads(theirs)["log_keys"][0])
        name = self.written(pack)
        self.trusted(name, 4, "MANIFEST.sig")
        self.both(name, 4, "--agent", self.world.thumbprint, words=["the pack is of the agent"])
        self.both(name, 4, words=["the pack is of another log"])
        # What is read before anything is vouched for.
        for document in (b'{"schema":7}', b"[" * 100000, theirs.replace(b'"host"', b'"hosts"')):
            pack.members["keys/agent-key.json"] = document
            self.both(self.written(pack), 4)

    def test_a_declared_key_that_is_not_escrowed(self):
        self.world.must("key", "add", "prod/missing", "--source", "nowhere.key", "--path",
                        "password & token:ops")
        self.world.must("audit", "export", "-o", "missing.tar")
        self.world.must("key", "remove", "prod/missing", "--yes")
        done, _ = self.trusted("missing.tar", 1, "prod/missing is declared and not escrowed")
        self.assertLessEqual({"not_escrowed"},
                             {f["fault"] for f in done.json()["items"][0]["findings"]})

    # ---- changed on the way

    def test_one_byte_of_each_member(self):
        good = self.world.path("pack.tar").read_bytes()
        pack, num = Pack(self.world.path("pack.tar")), 0
        self.assertEqual(self.written(pack), "lie.tar")
        self.assertEqual(self.world.path("lie.tar").read_bytes(), good)  # our own writer is right
        for name, (offset, size) in pack.places.items():
            if name == "MANIFEST.sig" or not size:
                continue
            # The first, middle or last one, by turns.
            at = offset + (0, size // 2, size - 1)[num % 3]
            with self.subTest(member=name, at=at - offset):
                changed = bytearray(good)
                changed[at] ^= 1
                self.world.write("lie.tar", bytes(changed))
                self.trusted("lie.tar", 4, name)
                num += 1
        self.assertGreaterEqual(num, len(MEMBERS) - 2)

    def test_one_byte_of_the_signature(self):
        """A line that becomes one of an unknown key is as if it were not there."""
        good = self.world.path("pack.tar").read_bytes()
        offset, size = Pack(self.world.path("pack.tar")).places["MANIFEST.sig"]
        seen = set()
        for at in (*range(offset, offset + size, 43), offset + size - 1):
            with self.subTest(at=at - offset):
                changed = bytearray(good)
                changed[at] ^= 1
                self.world.write("lie.tar", bytes(changed))
                done = self.keyescrow("lie.tar", "--trust", "trust.json")
                script = self.verify_py("lie.tar", "--trust", "trust.json")
                self.assertEqual(script.returncode, done.status, str(done))
                self.assertIn(done.status, (1, 4))
                self.assertIn("MANIFEST", (done.out + done.err).decode())
                seen.add(done.status)
        self.assertIn(4, seen)

    def test_lines_that_no_note_has(self):
        """Whoever holds the pack can append a line to a note; no key is needed."""
        def line(name="other", blob=b"an id and a signature"):
            return "\u2014 {} {}\n".format(name, base64.b64encode(blob).decode()).encode()
        name = "MANIFEST.sig"
        good = Pack(self.world.path("pack.tar")).members[name]
        mine = good.partition(b"\n\n")[2].count(b"\n")
        lines = [("none", b"", 0), ("of an unknown key", line(), 0),
                 ("with a letter", line("\xf6\u20ac\U0001f600\x7f"), 0),
                 ("of five bytes", line(blob=b"12345"), 0),
                 ("of four bytes", line(blob=b"1234"), 4), ("of three bytes", line(blob=b"123"), 4),
                 ("of none", line(blob=b""), 4), ("without a name", line(""), 4),
                 ("not canonical", line(blob=b"12345")[:-3] + b"V=\n", 4),
                 ("not utf-8", line().replace(b"other", b"\xff"), 4),
                 ("a surrogate", line().replace(b"other", b"\xed\xa0\x80"), 4),
                 ("100 lines", line() * (100 - mine), 0), ("101 lines", line() * (101 - mine), 4)]
        lines += [(f"U+{ord(c):04X}", line(f"f{c}oo"), 4) for c in
                  "\0\t\r\x1b\x1f +\x85\xa0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000"]
        room = 65536 - len(good) - len(line(""))
        lines += [("64 KiB", line("a" * room), 0), ("more", line("a" * (room + 1)), 4)]
        for what, more, status in lines:
            with self.subTest(what):
                pack = Pack(self.world.path("pack.tar"))
                pack.members[name] += more
                self.trusted(self.written(pack), status, *(["MANIFEST.sig"] if status else []))
        # The policy's note, which the log's key must sign for, and the checkpoint that was kept.
        tab = line("f\too")
        pack = Pack(self.world.path("pack.tar"))
        pack.edit("policy/policy.toml.sig", lambda data: data + tab)
        self.signed(pack)
        since = self.world.path("since").read_bytes()
        for more, status in ((line(), 0), (tab, 4)):
            self.world.write("kept", since + more)
            self.both("pack.tar", status, "--trust", "trust.json", "--since", "kept")

    def test_one_byte_between_the_members(self):
        good = self.world.path("pack.tar").read_bytes()
        places = sorted(Pack(self.world.path("pack.tar")).places.values())
        (first, size), (second, _) = places[:2]
        header_at = second - 512
        for at in (*range(header_at, header_at + 512, 61), first + size, header_at - 1,
                   len(good) - 1, len(good) - 1000):
            with self.subTest(at=at):
                changed = bytearray(good)
                changed[at] ^= 1
                self.world.write("lie.tar", bytes(changed))
                self.trusted("lie.tar", 4, "the pack")

    def test_members_added_left_out_renamed_and_reordered(self):
        def change(edit, *words):
            pack = Pack(self.world.path("pack.tar"))
            edit(pack.members)
            self.trusted(self.written(pack), 4, *words)
        def move_to_front(members):
            rest = dict(members)
            members.clear()
            members["controls.md"] = rest.pop("controls.md")
            members.update(rest)
        change(lambda members: members.update({"extra": b"x"}), "extra is not in MANIFEST")
        change(lambda members: members.pop("controls.md"), "controls.md is missing")
        change(lambda members: members.update({"controls": members.pop("controls.md")}),
               "controls is not in MANIFEST", "controls.md is missing")
        change(move_to_front, "not in its order")

    def test_a_manifest_that_was_not_signed(self):
        pack = Pack(self.world.path("pack.tar"))
        pack.edit("README.txt", lambda data: data + b"more\n")
        pack.manifest()
        self.trusted(self.written(pack), 4, "MANIFEST is not the one that was signed")

    def test_a_manifest_that_has_one_file_read_again_and_again(self):
        """Nobody signed it: a file of some kilobytes on the disk must not cost hours."""
        pack = Pack(self.world.path("pack.tar"))
        line = b"0" * 64 + b"  a\n"
        for manifest, words in ((line * 4, "MANIFEST names a twice"),
                                (line * 4096, "MANIFEST names more files than there are"),
                                (bytes(1 << 20), "MANIFEST names more files than there are")):
            with self.subTest(words=words), open(self.world.path("lie.tar"), "wb") as file:
                file.write(header(pack.folder, "a", 1 << 30, pack.time))
                file.seek(1 << 30, os.SEEK_CUR)  # a hole
                file.write(header(pack.folder, "MANIFEST", len(manifest), pack.time) + manifest +
                           bytes(-len(manifest) % 512 + 1024))
                file.flush()
                begin = time.monotonic()
                self.trusted("lie.tar", 4, words)
                self.assertLess(time.monotonic() - begin, within(10))

    def test_archives_that_are_none_of_ours(self):
        pack = Pack(self.world.path("pack.tar"))
        good = self.world.path("pack.tar").read_bytes()
        link = header(pack.folder, "link", 0, pack.time, kind="2")
        up = header(pack.folder, "../up", 1, pack.time) + b"x" + bytes(511)
        negative = header(pack.folder, "minus", -1, pack.time)
        blank = header(pack.folder, "a b", 0, pack.time)
        said = {name: "the pack has no header that a pack has at byte"
                for name in ("link", "up", "negative", "blank")} | {
            "twice": "the pack has two members README.txt",
            "second folder": "README.md is of another folder or time",
            "appended": "something stands behind the end of the pack",
            "cut in a member": "the pack is cut off in status.json"}
        twice = header(pack.folder, "README.txt", 1, pack.time) + b"x" + bytes(511)
        other = header("other", "README.md", 1, pack.time) + b"x" + bytes(511)
        for name, data in (("link", good[:-1024] + link + bytes(1024)),
                           ("up", good[:-1024] + up + bytes(1024)),
                           ("negative", good[:-1024] + negative + bytes(1024)),
                           ("blank", good[:-1024] + blank + bytes(1024)),
                           ("twice", good[:-1024] + twice + bytes(1024)),
                           ("second folder", good[:-1024] + other + bytes(1024)),
                           ("appended", good + good), ("cut", good[:-512]),
                           ("cut in a member", good[:pack.places["status.json"][0] + 5])):
            with self.subTest(name):
                self.world.write("lie.tar", data)
                self.trusted("lie.tar", 4, said.get(name, "the pack"))
        pack.time += 1
        self.trusted(self.written(pack), 4, "the archive is of another time than MANIFEST.sig")
        pack.time -= 1
        for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
                for name, data in pack.members.items():
                    info = tarfile.TarInfo(f"{pack.folder}/{name}")
                    info.size, info.mtime = len(data), pack.time
                    tar.addfile(info, io.BytesIO(data))
            self.world.write("lie.tar", buffer.getvalue())
            self.trusted("lie.tar", 4)

    # ---- a log that was cut

    def test_a_log_that_was_cut_off(self):
        pack = Pack(self.world.path("pack.tar"))
        pack.edit("entries/000000000000.jsonl", lambda data: data[:data[:-1].rindex(b"\n") + 1])
        self.trusted(self.written(pack), 4, "entries/000000000000.jsonl")
        pack.manifest()
        self.trusted(self.written(pack), 4, "MANIFEST")
        pack.sign(self.seed, self.world.folder)
        self.trusted(self.written(pack), 4, "entries")

    def test_an_older_pack_against_the_checkpoint_that_was_kept(self):
        self.world.write("later", self.world.must("audit", "checkpoint").out)
        self.both("builtin.tar", 4, "--trust", "trust.json", "--since", "later",
                  words=["the log is shorter than the checkpoint that you kept"])

    # ---- somebody who holds the log's key

    def test_signed_by_the_log_key_alone(self):
        done, document = self.signed(Pack(self.world.path("pack.tar")),
                                     "the agent key did not sign MANIFEST", status=1)
        self.assertEqual(document["bad"], [])
        self.both("lie.tar", 4, "--agent", self.world.thumbprint, words=["MANIFEST.sig"])
        self.assertEqual(done.json()["items"][0]["findings"][0]["fault"], "missing_p256")

    def test_signed_by_the_agent_key_alone(self):
        """The agent key signs more than packs: the log's key must have signed this one too."""
        pack = Pack(self.world.path("pack.tar"))
        text, _, lines = pack.members["MANIFEST.sig"].partition(b"\n\n")
        first, second = lines.splitlines(keepends=True)
        for trust in (("--trust", "trust.json"), ("--agent", self.world.thumbprint)):
            pack.members["MANIFEST.sig"] = text + b"\n\n" + second
            self.both(self.written(pack), 4, *trust,
                      words=["MANIFEST.sig is not of the keys that are trusted"])
            pack.members["MANIFEST.sig"] = text + b"\n\n" + first + second
            self.assertEqual(self.keyescrow(self.written(pack), *trust).status, 0)

    def test_a_verdict_that_is_not_the_policys(self):
        self.trusted("strict.tar", 1, "critical findings")
        pack = Pack(self.world.path("strict.tar"))
        self.forge(pack, lambda status: status.update(findings=[]))
        told = ["app/key: " + what for what in (
            "the rule \"all\" requires the path 'recovery-key:team'",
            "the rule \"all\" forbids a path of", 'the rule "all" asks for')]
        done, document = self.lied(pack)
        self.assertEqual(document["bad"], [])
        said = [finding["what"] for finding in done.json()["items"][0]["findings"]]
        for lines in (document["findings"], said):
            lines = [line for line in lines if "does not say so" in line]
            self.assertEqual([word for word in told
                              if any(line.startswith(word) for line in lines)], told)
            self.assertEqual([line for line in lines if "app/other" in line or "young" in line or
                              "password & tpm" in line], [])

    def test_losses_and_thefts_are_the_policys(self):
        """Both verifiers hold `survive` and `withstand` against the summaries, in the same words."""
        told = [
            'app/key: the rule "all" asks that the key survives any one loss, and the loss of '
            "password makes it unrecoverable, and status.json does not say so",
            'app/key: the rule "all" asks that the key withstands any 2 thefts, and that of '
            "token:blue and password opens it, and status.json does not say so",
            'app/other: the rule "other" asks that the key survives any one loss, and the loss of '
            "token:blue makes it unrecoverable, and status.json does not say so"]
        done, document = self.trusted("losses.tar", 1, "critical findings",
                                      "the envelopes are not in this pack")
        said = [finding["what"] for finding in done.json()["items"][0]["findings"]]
        for lines in (said, document["findings"]):
            self.assertEqual([line for line in lines if "asks that" in line], [])
        pack = Pack(self.world.path("losses.tar"))
        self.forge(pack, lambda status: status.update(findings=[]))
        done, document = self.lied(pack)
        said = [finding["what"] for finding in done.json()["items"][0]["findings"]]
        for lines in (said, document["findings"]):
            self.assertEqual(sorted(line for line in lines if "asks that" in line), told)

    def test_a_report_that_was_edited(self):
        """Whatever is edited is named: bytes, what follows from others, what the log tells."""
        for name, old, new in (("report.csv", b"INC-1", b"INC-2"),
                               ("controls.md", b"SC-12", b"SC-13"),
                               ("status.json", b'"keys": 2', b'"keys": 3'),
                               ("status.json", b'"paths": 0', b'"paths": 1'),
                               ("status.json", b'  "form"', b'   "form"'),
                               ("status.json", b'"held": false', b'"held": true')):
            with self.subTest(member=name, new=new):
                pack = Pack(self.world.path("pack.tar"))
                pack.edit(name, lambda data: data.replace(old, new, 1))
                self.signed(pack, name)
        pack = Pack(self.world.path("pack.tar"))
        pack.edit("report.html", lambda data: data.replace(b"INC-1", b"INC-2"))
        self.lied(pack)

        def key(status):
            return status["keys"][0]
        for change, word in (
                (lambda s: s["releases"][0].update(reason="INC-2"), "releases are not as the entr"),
                (lambda s: s["releases"][0].update(actor="nobody"), "releases are not as the entr"),
                (lambda s: s["verifications"].append({
                    "seq": 3, "time": s["evaluated"], "passed": True, "actor": "uid 0",
                    "what": None, "error": None}), "verifications are not as the entries"),
                (lambda s: s["figures"].update(drills_passed=99), "numbers of drills"),
                (lambda s: key(s).update(survival="survives everything"),
                 "app/key: what status.json says of it is not what its summary"),
                (lambda s: key(s)["paths"][0].update(factors="token:ops"), "app/key: what status"),
                (lambda s: key(s)["paths"][1].update(portable=True), "app/key: what status"),
                (lambda s: key(s).update(updated="2026-01-01T00:00:00Z"), "app/key: what status"),
                (lambda s: key(s).update(note="a note"), "app/key: what status"),
                (lambda s: key(s).update(source="file:/x"), "app/key: status.json's source"),
                (lambda s: s["checkpoint"].update(root="A" * 43 + "="), "time or checkpoint"),
                (lambda s: s["checkpoint"].update(size=7), "time or checkpoint"),
                (lambda s: s.update(evaluated="2026-01-01T00:00:00Z"), "time or checkpoint"),
                (lambda s: s.update(host="other"), "status.json's host"),
                (lambda s: s["keys"][1]["paths"][1].update(covered_since="2026-01-01T00:00:00Z"),
                 "no recovery key was opened that covers the path recovery-ke"),
                (lambda s: s["keys"][1]["paths"][1].update(covered_since=None),
                 "no recovery key was opened that covers the path recovery-ke"),
                (lambda s: key(s)["paths"][0].update(condition="covered", proven=None),
                 "no recovery key was opened that covers the path token-ops"),
                (lambda s: key(s)["paths"][0].update(condition="broken", failure="factor_bad"),
                 "app/key: no entry tells that the path token-ops is broken"),
                (lambda s: s.update(agent="A" * 43), "status.json's host"),
                (lambda s: s.update(drill_every_s={"shortest": 1, "longest": 1}), "how often"),
                (lambda s: key(s).update(declared=True), "status.json's declared keys are not those"),
                (lambda s: s["checkpoint"].update(note="older"), "status.json is of another check"),
                (lambda s: s["foreign"].clear(), "foreign escrows are not those of inventory")):
            with self.subTest(word=word):
                pack = Pack(self.world.path("pack.tar"))
                self.forge(pack, change)
                self.signed(pack, word)
        # A pack of two years later, whose paths nobody opened since.
        pack = Pack(self.world.path("pack.tar"))
        pack.time += 2 * 365 * 86400
        later = datetime.datetime.fromtimestamp(pack.time, datetime.timezone.utc).strftime(
            "%Y-%m-%dT%H:%M:%SZ").encode()
        now = json.loads(pack.members["status.json"])["evaluated"].encode()
        pack.edit("MANIFEST.sig", lambda data: data.replace(now, later))
        self.forge(pack, lambda status: status.update(evaluated=later.decode()))
        self.signed(pack, "app/key: the path token-ops was opened longer ago than the policy asks",
                    "app/other: the path recovery-ke")
        pack = Pack(self.world.path("pack.tar"))
        pack.edit("status.json", lambda data: data.replace(b'"form": 4', b'"form": 5'))
        done, document = self.signed(pack, "the report is of form 5", status=1)
        self.assertIn("newer_format",
                      [finding["fault"] for finding in done.json()["items"][0]["findings"]])
        self.assertTrue(any("the report is of form 5" in line for line in document["findings"]))

    def test_escrows_of_other_tools(self):
        members = Pack(self.world.path("pack.tar")).members
        (item,) = json.loads(members["inventory.json"])["foreign"]
        self.assertEqual((item["kind"], item["item"], item["held"], item["proven"]),
                         ("clevis-sss", "jwe", False, False))
        self.assertIn("survives the loss of any one; opened by ", item["survival"])
        self.assertEqual(json.loads(members["status.json"])["figures"]["keys"], 2)
        self.assertIn(b"sss.jwe", members["report.csv"])
        self.assertIn(b"keyescrow does not hold it, and has not proven it", members["report.html"])

    def test_two_agents_are_named(self):
        arguments = ("pack.tar", "--trust", "trust.json", "--agent", "A" * 43)
        self.assertEqual(self.keyescrow(*arguments).status, 2)
        self.assertEqual(self.verify_py_alone(*arguments).returncode, 2)
        self.both("pack.tar", 0, "--trust", "trust.json", "--agent", self.world.thumbprint)

    def test_a_file_that_is_not_there(self):
        for arguments in (("none.tar",), ("pack.tar", "--trust", "none.json"),
                          ("pack.tar", "--trust", "trust.json", "--since", "none")):
            self.assertEqual(self.keyescrow(*arguments).status, 8)
            with contextlib.redirect_stderr(io.StringIO()):
                self.assertEqual(self.verify_py(*arguments).returncode, 8)
        self.world.write("empty", b"")
        self.both("pack.tar", 4, "--trust", "trust.json", "--since", "empty")

    def test_a_folder_with_a_link_in_it(self):
        folder = self.world.path("copy") / "linked"
        shutil.copytree(self.unpacked, folder)
        self.addCleanup(shutil.rmtree, folder)
        (folder / "controls.md").unlink()
        (folder / "controls.md").symlink_to(self.unpacked / "controls.md")
        script = self.verify_py(folder, "--trust", "trust.json")
        self.assertEqual(script.returncode, 4, script.stdout)
        self.assertIn("controls.md is no plain file", script.stdout)
        (folder / "controls.md").unlink()
        shutil.copy(self.unpacked / "controls.md", folder / "controls.md")
        os.mkfifo(folder / "pipe")
        self.assertIn("pipe is no plain file", self.verify_py(folder, "--trust", "trust.json").stdout)

    def test_a_thumbprint_may_begin_as_an_option_does(self):
        """One in 64 does."""
        self.both("pack.tar", 4, "--agent", "-" + "A" * 42, words=[self.world.thumbprint])


class PackLies(PackCase):  # one test: its methods read the packs of one world
    """What somebody signs who holds the log's key."""

    def test_lies_that_are_signed(self):
        def replace(old, new):
            return lambda data: data.replace(old, new, 1)
        def drop_line(data):
            return data[data.index(b"\n") + 1:]
        def other_hash(data):
            at = data.index(b'"envelope_sha256":') + 20
            while not chr(data[at]).isalpha():
                at += 1
            return data[:at] + (b"B" if data[at:at + 1] != b"B" else b"C") + data[at + 1:]
        summaries, entries = "summaries/000000000000.jsonl", "entries/000000000000.jsonl"
        agents = "keys/trusted-agents.json"
        for name, change, word in (
                (summaries, other_hash, "is of another envelope"),
                (summaries, replace(b'"app/key"', b'"app/kex"'), "is of another envelope"),
                (summaries, drop_line, "has no summary"),
                (summaries, lambda data: data + data, "two summaries"),
                (entries, replace(b"INC-1", b"INC-2"), "tile/"),
                (entries, drop_line, "entr"),
                ("drills.jsonl", drop_line, "drills.jsonl"),
                ("drills.jsonl", replace(b"keyescrow-drill/1", b"keyescrow-drill/2"),
                 "drills.jsonl"),
                ("anchors.jsonl", drop_line, "anchors.jsonl"),
                ("policy/policy.toml", replace(b"enforce", b"report "), "policy/policy.toml"),
                ("policy/policy.json", replace(b'"corp"', b'"corq"'), "policy"),
                ("policy/signers", replace(b"1\n", b"2\n"), ""),
                ("policy/signers", lambda data: data + data.split(b"\n")[1] + b"\n",
                 "policy/signers is not what the entry"),
                ("inventory.json", replace(b'"app/key"', b'"app/kex"'), "inventory.json"),
                ("status.json", replace(b'"revision": 1', b'"revision": 2'), "status.json"),
                ("status.json", lambda data: b"{}\n", "status"),
                ("keys/log.vkeys", drop_line, "keys/"),
                ("keys/agent-key.json", replace(b'"log_keys"', b'"log_keyz"'), ""),
                (agents, replace(b'"db1"', b'"db2"'), "for other hosts or keys"),
                (agents, lambda data: b"[]\n", "was trusted, and is not"),
                (agents, replace(REMOVED.encode(), NOBODY.encode()),
                 f"no entry adds the trusted agent {NOBODY}"),
                (agents, replace(b'"removed": null', b'"removed": "2026-01-01T00:00:00Z"'),
                 f"the agent {LIMITED} is "),
                (agents, lambda data: re.sub(rb'"removed": "[^"]*"', b'"removed": null', data),
                 f"the agent {REMOVED} is "),
                ("keys/tokens.json", lambda data: b"[]\n", "the token ops was registered"),
                ("keys/tokens.json", replace(b'"ops"', b'"opt"'), "no entry registers"),
                ("status.json", replace(b'"proven": "20', b'"proven": "21'), "no entry proves"),
                ("status.json", replace(b'"path": "token-ops"', b'"path": "x", "path": "y"'),
                 "status.json"),
                ("status.json", replace(b'"outcome": "completed"', b'"outcome": "denied"'),
                 "status.json does not tell of entry"),
                ("status.json", lambda data: re.sub(rb'"releases": \[.*?\n  \]',
                                                    b'"releases": []', data, flags=re.DOTALL),
                 "status.json does not tell of entry"),
                ("checkpoints/000000000000.jsonl", drop_line, ""),
                ("checkpoints/000000000000.jsonl",
                 lambda data: data[:data.index(b"\n") + 1] + data, "checkpoint"),
                (summaries, replace(b'"kind":"password"', b'"kind":"pkcs11-rsa","id":"x"'),
                 "has other paths than the entry"),
                (summaries, replace(b"argon2id t=", b"argon2id t=9"),
                 "has other paths than the entry"),
                (summaries, replace(b'"id":"ops"', b'"id":"opt"'),
                 "has other paths than the entry"),
                ("status.json", replace(b'"complies": true', b'"complies": false'),
                 "verdict is not that of its findings"),
                ("status.json", replace(b'"id": "tpm"', b'"id": "tpn"'), "status.json"),
                ("keys/agent-key.json", replace(b'"tpm_public": "AFg', b'"tpm_public": "AFh'),
                 "keys"),
                ("checkpoint", lambda data: Pack(self.world.path("builtin.tar"))
                 .members["checkpoint"], "checkpoint"),
                (summaries, lambda data: re.sub(
                    rb'("app/other","version":1.*?"envelope_id":")..', rb"\1AA", data),
                 "is of another envelope"),
                (summaries, replace(b'"app/other","version":1},"revision":1',
                                    b'"app/other","version":1},"revision":2'),
                 "is of another envelope"),
                ("policy/policy.toml", replace(b"enforce", b"report "),
                 "policy/policy.toml is not that of policy/policy.json"),
                ("policy/policy.toml.sig", lambda data: Pack(self.world.path("losses.tar"))
                 .members["policy/policy.toml.sig"], ""),
                ("policy/policy.toml.sig", replace(b"\n\n\xe2\x80\x94 alice ",
                                                   b"\n\n\xe2\x80\x94 other "), ""),
                ("status.json", replace(b'"revision": 1', b'"revision": 2'),
                 "status.json's keys are not those of the summaries"),
                ("keys/agent-key.json", replace(b"agent-key/1", b"agent-key/2"), "agent-key"),
                ("keys/agent-key.json", replace(b'"thumbprint": "', b'"thumbprint": "A'), ""),
                ("keys/agent-key.json", replace(b'"log_origin": "', b'"log_origin": "x'),
                 "the keys in keys/ are not those of the log"),
                ("keys/recovery-keys.json", lambda data: re.sub(
                    rb'"opened": "20..', rb'"opened": "2019', data),
                 "no entry tells that team was opened at 2019")):
            with self.subTest(member=name, word=word):
                pack = Pack(self.world.path("pack.tar"))
                pack.edit(name, change)
                self.signed(pack, word)

    def test_proofs_of_another_entry_or_log(self):
        name = next(name for name in Pack(self.world.path("pack.tar")).members
                    if name.startswith("proofs/"))
        for old, new in ((rb"tlog-proof@v1", rb"tlog-proof@v2"), (rb"\nextra ", rb"\nextrb "),
                         (rb"\nindex ", rb"\nindex 1"), (rb"(\n\n.*\n)[0-9]*\n", rb"\g<1>7\n"),
                         (rb"(\nindex .*\n)....", rb"\g<1>AAAA"), (rb"(\nindex .*\n).*\n", rb"\1"),
                         (rb"(\nindex .*\n)(.*\n)", rb"\1\2\2")):
            with self.subTest(new=new):
                pack = Pack(self.world.path("pack.tar"))
                pack.edit(name, lambda data: re.sub(old, new, data, count=1))
                self.signed(pack, "proof")

    def test_agents_that_were_not_trusted(self):
        """Of an older version, whose agent the summary alone tells."""
        for key, agent, trusted in ((b"app/other", TRUSTED, True), (b"app/other", LIMITED, False),
                                    (b"app/other", REMOVED, False), (b"app/other", NOBODY, False),
                                    (b"app/key", TRUSTED, False)):  # it was trusted later
            with self.subTest(key=key, agent=agent):
                pack = Pack(self.world.path("pack.tar"))
                pack.edit("summaries/000000000000.jsonl", lambda data: re.sub(
                    rb'(\{"key":\{"name":"%s","version":1\}.*?"agent":")[^"]*' % key,
                    rb"\g<1>" + agent.encode(), data, count=1))
                words = () if trusted else (f"its agent {agent} was not trusted for it",)
                self.signed(pack, *words, status=1 if trusted else 4)

    def test_when_the_policy_was_set(self):
        """From then on its graces run: no other time than that of the entry that set it."""
        def at(shift):
            def change(data):
                facts = json.loads(data)
                moment = datetime.datetime.strptime(facts["set"], "%Y-%m-%dT%H:%M:%SZ")
                facts["set"] = shift(moment).strftime("%Y-%m-%dT%H:%M:%SZ")
                return (json.dumps(facts, indent=2) + "\n").encode()
            return change
        said = "policy/policy.json says that the policy was set at "
        for shift, status in (
                (lambda _: datetime.datetime(9999, 12, 31, 23, 59, 59), 4),
                (lambda _: datetime.datetime(1970, 1, 1), 4),
                (lambda moment: moment + datetime.timedelta(days=1), 4),
                (lambda moment: moment - datetime.timedelta(seconds=90), 4),
                (lambda moment: moment + datetime.timedelta(seconds=30), 1)):
            pack = Pack(self.world.path("pack.tar"))
            pack.edit("policy/policy.json", at(shift))
            self.signed(pack, *([said] if status == 4 else []), status=status)

    def test_another_policy_in_its_place(self):
        """The one that was in force before, and the built-in one that nobody signs."""
        for name, word in (
                ("losses.tar", "a policy that was set later than the one in policy/ is not in force"),
                ("builtin.tar", "the log does not tell of the policy in policy/")):
            pack, other = Pack(self.world.path("pack.tar")), Pack(self.world.path(name)).members
            pack.members = {member: other.get(member, data) if member.startswith("policy/") else data
                            for member, data in pack.members.items()}
            pack.sign(self.seed, self.world.folder)
            done = self.keyescrow(self.written(pack), "--trust", "trust.json")
            script = self.verify_py("lie.tar", "--trust", "trust.json")
            self.assertIn(word, (done.out + done.err).decode())
            self.assertIn(word, script.stdout)


class PackForms(PackCase):  # one test: its methods read the packs of one world
    """Members and lists of another form, signed."""

    def test_members_that_are_malformed(self):
        """Signed, and read by one reader in one way and by the next in another: nobody takes it."""
        def replace(old, new):
            return lambda data: data.replace(old, new, 1)
        def low_bits(name):
            """The last character's low bits, which no byte of a hash uses."""
            def change(data):
                at = data.index(name) + len(name) + 42
                return data[:at] + bytes([data[at] + 1]) + data[at + 1:]
            return change
        def nested(levels):
            return replace(b'{"key":', b'{"more":' + b"[" * levels + b"]" * levels + b',"key":')
        summaries, signers = "summaries/000000000000.jsonl", "policy/signers"
        for name, change in (
                ("keys/agent-key.json", replace(b"{", b'{"host": "other",')),
                ("keys/agent-key.json", replace(b'"x":', b'"x": "", "x":')),
                ("keys/trusted-agents.json", replace(b'"removed": null', b'"removed": ""')),
                ("keys/tokens.json", replace(b'"uri":', b'"uri": "", "uri":')),
                ("keys/recovery-keys.json", replace(b'"retired": null', b'"retired": ""')),
                ("keys/recovery-keys.json", low_bits(b'"drill_key": "')),
                ("keys/trusted-agents.json", lambda data: re.sub(
                    rb'"added": "20(..)-0?(1?).-', rb'"added": "20\1-1-', data)),
                ("keys/trusted-agents.json", replace(b'"hosts": [', b'"hosts": [1, ')),
                ("keys/tokens.json", replace(b'"uri": "', b'"uri": 1, "uro": "')),
                (summaries, replace(b'"previous":""', b'"previous":null')),
                (summaries, replace(b'"size_bytes":', b'"size_bytes":-0,"size_byte":')),
                (summaries, replace(b'"log_seq":', b'"log_seq":true,"log_sek":')),
                (summaries, replace(b'"revision":1', b'"revision":true')),
                (signers, replace(b"1\n", b"1 \n")),
                (signers, lambda data: data.rstrip(b"\n") + b" \n"),
                (signers, lambda data: data + b"more"),
                (summaries, replace(b'"size_bytes":', b'"size_bytes":0.5,"size_byte":')),
                (summaries, replace(b'"size_bytes":', b'"size_bytes":%d,"size_byte":' % (1 << 64))),
                (summaries, low_bits(b'"drill_key":"')),
                (summaries, lambda data: b"\xef\xbb\xbf" + data),
                (summaries, replace(b'"note":null', b'"note":"\\ud800"')),
                (summaries, replace(b'"note":null', b'"note":"\xed\xa0\x80"')),
                (summaries, nested(65)),
                ("status.json", replace(b'"keyescrow": "', b'"keyescrow": 1, "keyescrom": "')),
                ("status.json", replace(b'"remedy": "', b'"remedy": 1, "remedi": "')),
                ("status.json", replace(b'"checked": [', b'"checked": [1, ')),
                ("status.json", replace(b'"versions": 1', b'"versions": true')),
                ("policy/policy.json", replace(b"{", b'{"more": 1,')),
                ("policy/policy.json", lambda data: re.sub(rb'"set": "[^"]*"', b'"set": null', data)),
                ("inventory.json", replace(b'"held": false', b'"held": 0'))):
            with self.subTest(member=name):
                pack = Pack(self.world.path("strict.tar"))
                if change(pack.members[name]) == pack.members[name]:
                    pack = Pack(self.world.path("pack.tar"))
                pack.edit(name, change)
                self.signed(pack)
        pack = Pack(self.world.path("pack.tar"))
        pack.edit("summaries/000000000000.jsonl", nested(60))
        self.signed(pack, status=1)

    def test_what_is_a_number_a_time_or_a_text(self):
        """1, true, 1.0 and "1" are four things to a parser of JSON, and fewer to Python."""
        program = self.program
        self.assertEqual((program.whole(0), program.whole(3, 4)), (0, (3, 4)))
        for numbers in ((True,), (-1,), (1.0,), ("1",), (None,), (1, False)):
            with self.subTest(numbers=numbers):
                self.assertRaises(program.Bad, program.whole, *numbers)
        self.assertEqual(program.seconds("2026-11-25T10:00:00Z"), 1795600800)
        for text in ("2026-11-25T10:00:00", "2026-11-25t10:00:00z", "2026-1-25T10:00:00Z",
                     "2026-11-25T10:00:0Z", "２０２６-11-25T10:00:00Z", "2026-11-25T10:00:00Z\n"):
            with self.subTest(text=text):
                self.assertRaises(program.Bad, program.seconds, text)
        program.need_texts("a row", {"name": "x", "size": 1}, "name")
        self.assertRaises(program.Bad, program.need_texts, "a row", {"name": "x", "size": 1},
                          "name", "size")

    def test_manifests_that_are_none(self):
        """Signed, and with a line that another reader takes in another way; or another statement."""
        def signed(change, statement=lambda text: text, word="MANIFEST has a line that is none"):
            pack = Pack(self.world.path("pack.tar"))
            pack.manifest()
            pack.edit("MANIFEST", change)
            pack.manifest = lambda: None
            pack.sign(self.seed, self.world.folder, statement=statement)
            self.trusted(self.written(pack), 4, word)
        first = Pack(self.world.path("pack.tar")).members["MANIFEST"].split(b"\n")[0] + b"\n"
        signed(lambda data: data + first, word="MANIFEST names README.txt twice")
        for change in (lambda data: data[:-1],
                       lambda data: data.replace(b"  README", b" *README", 1),
                       lambda data: data[:64].upper() + data[64:],
                       lambda data: data.replace(b"  README.txt", b"  ./README.txt", 1)):
            signed(change)
        for statement in (lambda text: text.replace("pack/1", "pack/2", 1), lambda text: text + "more\n",
                          lambda text: re.sub(r"\n([0-9]+)\n", r"\n0\1\n", text)):
            signed(lambda data: data + data[:64] + b"  none\n", statement,
                   "does not sign a pack's MANIFEST")

    def test_recovery_keys_are_listed(self):
        name = "keys/recovery-keys.json"
        old, team = json.loads(Pack(self.world.path("pack.tar")).members[name])
        self.assertEqual([(key["name"], key["covers"], key["retired"] is None)
                          for key in (old, team)], [("old", [], False), ("team", ["app/other"], True)])
        self.assertEqual([factor["kind"] for factor in team["factors"]], ["pkcs11-rsa", "password"])
        self.assertEqual((old["opened"], team["opened"] is None), (None, False))
        for change, word in (
                (lambda keys: keys.pop(), "the recovery key team was registered, and is not in"),
                (lambda keys: keys[0].update(retired=None), "no entry registers the recovery key"),
                (lambda keys: keys[1].update(record_sha256=keys[0]["record_sha256"]),
                 "the recovery key team was registered with another record"),
                (lambda keys: keys[1]["factors"][1].update(kdf="argon2id t=9 m=262144 p=4"),
                 "team was registered with other factors"),
                (lambda keys: keys[1].update(covers=["app/key"]), "the keys that go to team"),
                (lambda keys: keys[0].update(opened=keys[1]["opened"]),
                 "no entry tells that old was opened at"),
                (lambda keys: keys[1].update(factors=[]), "recovery-keys.json")):
            with self.subTest(word=word):
                pack = Pack(self.world.path("pack.tar"))
                keys = json.loads(pack.members[name])
                change(keys)
                pack.members[name] = (json.dumps(keys, indent=2) + "\n").encode()
                self.signed(pack, name if word.startswith("recovery") else word)
        pack = Pack(self.world.path("pack.tar"))
        pack.edit("summaries/000000000000.jsonl", lambda data: re.sub(
            rb'"recovery_thumbprint":"[^"]*"', b'"recovery_thumbprint":"other"', data))
        self.signed(pack, "the keys that go to team are not those of the summaries")

    def test_two_rows_of_one_name(self):
        """One reader would take the first, and the next the last: nobody takes either."""
        def lie(name, find, row, at):
            pack = Pack(self.world.path("pack.tar"))
            document = json.loads(pack.members[name])
            rows = find(document)
            rows.insert(at * len(rows), {**rows[-1], **row})
            pack.members[name] = (json.dumps(document, indent=2) + "\n").encode()
            return pack
        for name, find, row, of in (
                ("keys/tokens.json", lambda rows: rows, {"uri": "pkcs11:token=x"}, "ops"),
                ("keys/trusted-agents.json", lambda rows: rows, {"host": "x"}, ""),
                ("keys/recovery-keys.json", lambda rows: rows, {"opened": None}, "team"),
                ("inventory.json", lambda inventory: inventory["escrowed"], {"version": 1},
                 "app/other")):
            for at in (0, 1):
                with self.subTest(member=name, at=at):
                    self.signed(lie(name, find, row, at), f"{name} has two rows of {of}")
        declared = {"name": "app/key", "source": "file:/x", "paths": []}
        pack = Pack(self.world.path("pack.tar"))
        pack.edit("inventory.json", lambda data: data.replace(
            b'"declared": []', b'"declared": %s' % json.dumps([declared] * 2).encode()))
        self.forge(pack, lambda status: status["keys"][0].update(declared=True, source="file:/x"))
        self.signed(pack, "inventory.json has two rows of app/key")
        for at in (0, 1):
            pack = Pack(self.world.path("pack.tar"))
            self.forge(pack, lambda status: status["keys"].insert(
                at, {**status["keys"][0], "version": 9}))
            self.signed(pack, "status.json has two rows of app/key")

    def test_members_that_are_signed_away(self):
        pack = Pack(self.world.path("pack.tar"))
        proofs = [name for name in pack.members if name.startswith("proofs/")]
        tile = next(name for name in pack.members if name.startswith("tile/"))
        for name, word in ((proofs[0], "has no proof"), (tile, "tile"),
                           ("policy/policy.toml.sig", "policy/policy.toml.sig is missing"),
                           ("status.json", "status.json is missing"),
                           ("checkpoint", "checkpoint is missing")):
            with self.subTest(member=name):
                pack = Pack(self.world.path("pack.tar"))
                del pack.members[name]
                self.signed(pack, word)
        pack = Pack(self.world.path("pack.tar"))
        pack.members = {**pack.members, "tile/0/x001/000": bytes(8192)}
        for name in ("MANIFEST", "MANIFEST.sig"):
            pack.members[name] = pack.members.pop(name)
        self.signed(pack, "tile")
        pack = Pack(self.world.path("pack.tar"))
        pack.members[proofs[0]], pack.members[proofs[1]] = (pack.members[proofs[1]],
                                                            pack.members[proofs[0]])
        self.signed(pack, proofs[0])
