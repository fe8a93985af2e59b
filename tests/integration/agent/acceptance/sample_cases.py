"""An auditor's sample: drawn from a pack, drilled on the host, held against the pack that follows."""

import base64
import contextlib
import io
import json
import stat
from unittest import mock

from pack_cases import PackCase
from world import UNLOCK

TRUST = ("--trust", "trust.json")


class PackSamples(PackCase):  # one test: its methods read the packs of one world
    def sample(self, number, *arguments, env=None, name="q"):
        for kind in ("challenge", "expected", "answers"):
            self.world.path(f"{name}.{kind}").unlink(True)
        return self.succeeds("audit", "sample", "-n", str(number), "-o", f"{name}.challenge",
                             "--json", *arguments, env=env).json()

    def drawn(self, number, name="q"):
        """As the auditor draws: from the pack, on another machine."""
        return self.sample(number, "--in", "pack.tar", *TRUST, "--expected", f"{name}.expected",
                           env=self.elsewhere, name=name)

    def drilled(self, *arguments):
        return self.succeeds("drill", "--challenge", "q.challenge", "--json", *arguments,
                             *UNLOCK).json()

    def new_pack(self):
        self.world.path("new.tar").unlink(True)
        self.world.must("audit", "export", "-o", "new.tar")
        return "new.tar"

    def changed(self, source, change, target="changed"):
        document = json.loads(self.world.path(source).read_bytes())
        change(document)
        self.world.write(target, json.dumps(document, separators=(",", ":")).encode())
        return target

    def held(self, pack, status, *words, challenge="q.challenge", answers=()):
        """Both verifiers hold the pack against the sample, and come to `status`."""
        done, script = self.both(pack, status, *TRUST, "--challenge", challenge,
                                 *answers, words=words)
        return done.json()["items"][0], script

    def usage(self, *arguments, word):
        done = self.keyescrow(*arguments)
        self.assertEqual(done.status, 2, str(done))
        self.assertIn(word, (done.out + done.err).decode())

    def test_a_sample_is_drawn_elsewhere_and_drilled(self):
        document = self.drawn(2)
        self.assertEqual((document["population"], document["tokens"]), (2, 1))
        self.assertEqual(document["tokens_without_nonce"], [])
        self.assertEqual(stat.S_IMODE(self.world.path("q.expected").stat().st_mode), 0o600)
        # Not yet drilled: each of its paths is named.
        item, script = self.held("pack.tar", 1,
                                 "app/key version 1, path tpm, was not opened under the challenge",
                                 "app/other version 2, path token-ops, was not opened under",
                                 "of 2 keys drawn, 0 opened by all their drawn paths (0)",
                                 "the answers of 1 token to the challenge: give --expected")
        self.assertEqual({f["fault"] for f in item["findings"]}, {"sample_unproven"})
        self.assertEqual(sorted(f["what"] for f in item["findings"]), sorted(script["findings"]))
        self.assertEqual(len(item["findings"]), 4)
        # One of them is.
        one = self.changed("q.challenge", lambda q: q.update(
            drawn=[row for row in q["drawn"] if row["key"] == "app/key"]), "one.challenge")
        self.succeeds("drill", "--challenge", one, "--json", *UNLOCK)
        self.held(self.new_pack(), 1, "app/other version 2, path token-ops, was not opened under",
                  "of 2 keys drawn, 1 opened by all their drawn paths (2)")
        self.held("new.tar", 0, "of 1 key drawn, 1 opened by all their drawn paths (2)", challenge=one)
        done = self.drilled("--answers", "q.answers")
        self.assertEqual([key["key"] for key in done["keys"]], document["drawn"])
        self.assertEqual(document["paths"], 4)
        for key in done["keys"]:
            for path in key["paths"]:
                self.assertEqual(path["statement"].split("\n")[7], document["challenge"])
        # A later drill takes the newest proof's place, and nothing from the sample.
        self.world.must("drill", "app/key", "--via", "tpm", *UNLOCK)
        answers = ("--expected", "q.expected", "--answers", "q.answers")
        item, _ = self.held(self.new_pack(), 0, "of 2 keys drawn, 2 opened by all their drawn paths (4)",
                            "the answers of 1 token to the challenge", answers=answers)
        self.assertEqual(item["findings"], [])
        self.assertFalse([line for line in item["not_checked"] if "answers" in line])
        # Nor where verify.py leaves older proofs alone.
        with mock.patch.object(self.program, "EVERY_DRILL", 0):
            script = self.verify_py("new.tar", *TRUST, "--challenge", "q.challenge")
        self.assertEqual(script.returncode, 0, script.stdout)
        self.assertIn("older proof", script.stdout)
        self.answers_are_compared()
        self.what_was_drawn_is_looked_for()
        # A pack without the option says nothing of a sample.
        item = self.keyescrow("new.tar", *TRUST).json()["items"][0]
        self.assertFalse([line for line in item["checked"] if "sample" in line])
        # What was drawn for this host answers nothing else, and is not written over.
        again = self.world.run("audit", "sample", "-n", "1", "-o", "q.challenge")
        self.assertEqual(again.status, 2, str(again))
        self.verifies()

    def answers_are_compared(self):
        def wrong(document):
            document["answers"][0]["answer"] = base64.urlsafe_b64encode(bytes(32)).decode()[:43]

        for change, word in ((wrong, "gave a wrong answer"),
                             (lambda q: q.update(answers=[]), "gave no answer"),
                             (lambda q: q.update(challenge="A" * 43), "to another challenge")):
            changed = self.changed("q.answers", change)
            item, _ = self.held("new.tar", 1, word,
                                answers=("--expected", "q.expected", "--answers", changed))
            self.assertEqual([f["fault"] for f in item["findings"]], ["sample_answer"])
            # What the auditor kept must be of the challenge.
            given = ("new.tar", *TRUST, "--challenge", "q.challenge", "--expected", changed,
                     "--answers", "q.answers")
            if change is wrong:
                continue
            self.usage(*given, word="do not belong to the challenge")
            self.assertEqual(self.verify_py_alone(*given).returncode, 2)

    def what_was_drawn_is_looked_for(self):
        def drawing(**row):
            return lambda q: q.update(drawn=[row])

        for row, status, word in (
                ({"key": "app/key"}, 0, "of 1 key drawn, 1 opened by all their drawn paths (2)"),
                ({"key": "app/other", "version": 2, "path": "token-ops"}, 0,
                 "(1) under its challenge"),
                ({"key": "app/other", "version": 1, "path": "token-ops"}, 1,
                 "app/other version 1, path token-ops, was not opened under the challenge"),
                ({"key": "app/key", "path": "nobody"}, 1,
                 "app/key version 1 has no path nobody, which was drawn"),
                ({"key": "app/gone"}, 1, "app/gone was drawn, and the pack has no envelope"),
                ({"key": "app/key", "version": 7}, 1,
                 "app/key version 7 was drawn, and the pack has no envelope of it")):
            with self.subTest(row=row):
                self.held("new.tar", status, word,
                          challenge=self.changed("q.challenge", drawing(**row)))
        for change, word in ((lambda q: q.update(origin="keyescrow.log/db9/x"), "another log"),
                             (lambda q: q.pop("drawn"), "draws no keys")):
            given = ("new.tar", *TRUST, "--challenge", self.changed("q.challenge", change))
            self.usage(*given, word=word)
            script = self.verify_py_alone(*given)
            self.assertEqual(script.returncode, 2, script.stdout)
            self.assertIn(word, script.stderr)

    def test_an_edit_takes_the_proof_of_the_path(self):
        self.sample(2)
        self.drilled()
        self.world.must("path", "add", "app/other", "--path", "tpm & password", "--via", "token-ops",
                        *UNLOCK)
        self.held(self.new_pack(), 1, "app/other version 2, path token-ops, was opened under the "
                  "challenge as revision ", "of 2 keys drawn, 1 opened")
        self.succeeds("export", "app/other", "-o", "older.escrow")
        self.drilled()
        self.held(self.new_pack(), 0, "of 2 keys drawn, 2 opened by all their drawn paths (4)")
        # A drill of an older copy takes nothing from that.
        self.world.must("path", "remove", "app/other", "tpm", "--via", "token-ops", "--yes", *UNLOCK)
        self.drilled()
        self.succeeds("drill", "older.escrow", "--via", "token-ops", "--challenge", "q.challenge",
                      *UNLOCK)
        self.held(self.new_pack(), 0, "of 2 keys drawn, 2 opened by all their drawn paths (4)")

    def test_a_path_that_is_gone_before_the_drill_is_missed(self):
        self.world.must("path", "add", "app/other", "--path", "brief=tpm & password", "--via",
                        "token-ops", *UNLOCK)
        self.world.path("pack.tar").rename(self.world.path("kept.tar"))
        self.world.must("audit", "export", "-o", "pack.tar")
        self.drawn(2)
        self.world.path("kept.tar").rename(self.world.path("pack.tar"))
        self.world.must("path", "remove", "app/other", "brief", "--via", "token-ops", "--yes",
                        *UNLOCK)
        self.succeeds("drill", "app/key", "--challenge", "q.challenge", *UNLOCK)
        self.succeeds("drill", "app/other", "--challenge", "q.challenge", *UNLOCK)
        self.held(self.new_pack(), 1, "app/other version 2 has no path brief, which was drawn",
                  "of 2 keys drawn, 1 opened by all")

    def test_the_version_in_use_is_drawn(self):
        """A rotation that was abandoned left a higher one, of which nobody has the key."""
        self.world.write("turned.key", b"a key that is not turned after all")
        self.world.must("backup", "app/turned", "--from", "turned.key", "--path", self.paths[0],
                        "--kdf", "pbkdf2-sha512", *UNLOCK)
        self.world.run("rotate", "app/turned", "--generate", "32", "--apply", "exit 1", *UNLOCK)
        self.world.run("rotate", "app/turned", "--abandon", "--yes")
        self.world.path("pack.tar").rename(self.world.path("kept.tar"))
        self.world.must("audit", "export", "-o", "pack.tar")
        documents = [self.drawn(9), self.sample(9, name="here")]
        self.world.path("kept.tar").rename(self.world.path("pack.tar"))
        for document in documents:
            self.assertIn({"name": "app/turned", "version": 1}, document["drawn"])
        self.world.must("destroy", "app/turned", "--confirm", "app/turned")

    def test_hostile_files_are_no_verdict_on_the_host(self):
        """Both refuse them alike: the answers come from the host, and a challenge may be mistaken."""
        self.drawn(1)
        good = {name: json.loads(self.world.path(f"q.{name}").read_bytes())
                for name in ("challenge", "expected")}
        row = good["expected"]["answers"][0]
        token = good["challenge"]["tokens"][0]

        def with_(name, **members):
            return {**good[name], **members}

        files = [("answers", with_("expected", answers=answers)) for answers in (
            None, {}, "x", ["x"], [{"answer": row["answer"]}], [{**row, "key_sha256": [1]}],
            [row, {**row, "answer": "A" * 43}], [row, row], [{**row, "more": 1}])]
        files += [("challenge", with_("challenge", **members)) for members in (
            {"drawn": {}}, {"drawn": ["x"]}, {"drawn": [{}]}, {"drawn": [{"key": "a", "version": "1"}]},
            {"drawn": [{"key": "a", "version": 0}]}, {"drawn": [{"key": "a", "version": True}]},
            {"drawn": [{"key": "a", "path": ""}]}, {"challenge": "-"}, {"challenge": 7},
            {"created": None}, {"origin": None}, {"origin": 5}, {"tokens": None},
            {"tokens": [{**token, "spki": "!"}]}, {"tokens": [{"type": "x"}]}, {"more": 1},
            {"drawn": [{"key": "a"}] * 30001})]
        given = {"challenge": "q.challenge", "expected": "q.expected", "answers": "q.expected"}
        for kind, document in files:
            for spaced in (False, True) if document is files[0][1] else (False,):
                text = json.dumps(document, separators=None if spaced else (",", ":"))
                self.world.write("odd", text.encode() + b"\n")
                names = {**given, kind: "odd"}
                arguments = ["pack.tar", *TRUST] + [word for name in names
                                                    for word in ("--" + name, names[name])]
                with self.subTest(kind=kind, text=text[:300]):
                    self.usage(*arguments, word="hint")
                    err = io.StringIO()
                    with contextlib.redirect_stderr(err):
                        script = self.verify_py(*arguments)
                    self.assertEqual((script.returncode, script.stdout), (2, ""), err.getvalue())
        for arguments in (("--challenge", ""), ("--trust", ""), ("--since", ""),
                          ("--challenge", "q.challenge", "--challenge", "q.challenge"),
                          ("--chal", "q.challenge")):
            script = self.verify_py_alone("pack.tar", *arguments)
            self.assertEqual(script.returncode, 2, script.stdout + script.stderr)

    def test_what_was_destroyed_since(self):
        self.world.write("brief.key", b"a key that does not live for long")
        self.world.must("backup", "app/brief", "--from", "brief.key", "--path", self.paths[0],
                        "--kdf", "pbkdf2-sha512", *UNLOCK)
        self.sample(3)
        self.drilled()
        self.world.must("destroy", "app/brief", "--confirm", "app/brief")
        self.held(self.new_pack(), 1, "app/brief version 1 was drawn, and entry ",
                  "of 3 keys drawn, 2 opened")

    def test_every_key_can_be_drawn(self):
        seen = set()
        for _ in range(40):
            document = self.sample(1)
            seen |= {key["name"] for key in document["drawn"]}
            if len(seen) == 2:
                break
        self.assertEqual(seen, {"app/key", "app/other"})
        document = self.sample(9)
        self.assertEqual([(key["name"], key["version"]) for key in document["drawn"]],
                         [("app/key", 1), ("app/other", 2)])
        challenge = json.loads(self.world.path("q.challenge").read_bytes())
        self.assertEqual(challenge["challenge"], document["challenge"])

    def test_no_sample_of_what_nobody_vouches_for(self):
        draw = ("audit", "sample", "-o", "no.challenge", "-n")
        self.refused("usage", 2, *draw, "0")
        self.refused("usage", 2, *draw, "65537")
        self.refused("usage", 2, *draw, "1", *TRUST)
        self.refused("agent_not_trusted", 4, *draw, "1", "--in", "pack.tar", env=self.elsewhere)
        self.world.write("lie.tar", self.world.path("pack.tar").read_bytes()[:-512])
        self.refused("log_damaged", 4, *draw, "1", "--in", "lie.tar", *TRUST, env=self.elsewhere)

    def test_a_challenge_is_for_one_pack(self):
        self.drawn(1)
        verify = ("verify", "--challenge", "q.challenge")
        self.refused("usage", 2, *verify)
        self.refused("usage", 2, *verify, "app/key")
        self.refused("usage", 2, *verify, "pack.tar", "builtin.tar")
        self.refused("usage", 2, *verify, "pack.tar", "--expected", "q.expected")
        self.refused("usage", 2, "verify", "pack.tar", "--expected", "q.expected", "--answers",
                     "q.expected")
        self.refused("usage", 2, "verify", "pack.tar", *TRUST, "--challenge", "trust.json")
        self.refused("envelope_unreadable", 8, "verify", "pack.tar", *TRUST, "--challenge", "none")
        for given, status in ((("--challenge", "none"), 8), (("--challenge", "trust.json"), 2),
                              (("--expected", "q.expected"), 2),
                              (("--challenge", "q.challenge", "--answers", "q.expected"), 2)):
            self.assertEqual(self.verify_py_alone("pack.tar", *TRUST, *given).returncode, status)
