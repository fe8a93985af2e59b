"""Portable files that were cut, edited, made by a newer version or by a stranger."""

import base64
import json
import resource

from world import SECOND_DECODER, UNLOCK, AcceptanceCase, within


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Envelope(AcceptanceCase):
    world_options = {"tpm": False}

    def setUp(self):
        self.envelope = self.world.path("app.escrow").read_bytes()
        self.trust = ("--agent", self.world.thumbprint)

    def refused_everywhere(self, code, data):
        """restore, verify and import refuse the file; nothing is released. The last one's error."""
        self.world.write("bad.escrow", data)
        self.refused(code, 4, "restore", "bad.escrow", "--to", "out.key", *UNLOCK, *self.trust)
        self.refused(code, 4, "verify", "bad.escrow", *self.trust, num_runs=1)
        error = self.refused(code, 4, "import", "bad.escrow", num_runs=1)
        self.world.path("bad.escrow").unlink()
        return error

    def test_what_is_no_envelope(self):
        error = self.refused_everywhere("envelope_format", b"-----BEGIN WHATEVER-----\n")
        self.assertIn("'import' takes an envelope of keyescrow, a clevis JWE", error["hint"])

    def test_memory_that_runs_out(self):
        """The largest files under ever more memory, from what the program starts with: an error each
        time, and no signal."""
        outer = json.loads(self.envelope)
        size = 3 * 1024 * 1024 - 600
        self.world.write("text.escrow", json.dumps(dict(outer, payload="A" * size)))
        self.world.write("list.escrow", b"[" + b'"",' * (size // 3))
        self.world.write("names.escrow", "{" + ",".join(
            f'"{n:06}":0' for n in range(size // 11)) + "}")
        lowest = next(mib for mib in range(4, 400, 2)
                      if self.limited(mib, "version").status == 0)
        codes = set()
        for name in ("text.escrow", "list.escrow", "names.escrow"):
            for mib in range(lowest, lowest + 160, 16):
                done = self.limited(mib, "verify", name, "--json", *self.trust)
                self.assertIn(done.status, (2, 4), f"{name}, {mib} MiB: {done}")
                codes.add(json.loads(done.err)["error"]["code"])
        if within(1) == 1:
            self.assertIn("out_of_memory", codes)
        self.assertIn("envelope_format", codes)
        for name in ("text.escrow", "list.escrow", "names.escrow"):
            self.world.path(name).unlink()

    def limited(self, mib, *arguments):
        """A sanitizer's shadow memory is beyond any limit: there is none in such a build."""
        limit = mib << 20 if within(1) == 1 else resource.RLIM_INFINITY
        return self.world.run(*arguments, before=lambda: resource.setrlimit(
            resource.RLIMIT_AS, (limit, limit)))

    def test_truncated(self):
        for size in (0, 1, 100, len(self.envelope) // 2, len(self.envelope) - 2):
            with self.subTest(size=size):
                self.refused_everywhere("envelope_format", self.envelope[:size])

    def test_edited(self):
        outer = json.loads(self.envelope)
        payload = bytearray(decode(outer["payload"]))
        payload[len(payload) // 2] ^= 1
        self.refused_everywhere("envelope_signature",
                                json.dumps({**outer, "payload": encode(payload)}).encode())
        signature = bytearray(decode(outer["signature"]))
        signature[40] ^= 1
        self.refused_everywhere("envelope_signature",
                                json.dumps({**outer, "signature": encode(signature)}).encode())

    def test_garbage(self):
        for data in (b"\0" * 4096, b"{}", b"[]", b"not an envelope\n", self.envelope * 2):
            with self.subTest(data=data[:20]):
                self.refused_everywhere("envelope_format", data)

    def test_a_long_name_is_not_repeated(self):
        for text in ('{"%s":"x"}', '{"%s":"x","%s":"x"}'):
            name = "a" * 1000000
            error = self.refused_everywhere("envelope_format", text.replace("%s", name).encode())
            self.assertLess(len(error["message"]), 300)

    def test_far_too_large(self):
        self.world.write("bad.escrow", b" " * (32 << 20))
        done = self.world.run("verify", "bad.escrow", "--json", *self.trust)
        self.check_json(done, "envelope_limit", 4)
        self.world.path("bad.escrow").unlink()

    def test_by_an_unknown_agent(self):
        elsewhere = {"KEYESCROW_STATE": str(self.world.path("nowhere")), "KEYESCROW_CONFIG": None}
        self.refused("agent_not_trusted", 4, "restore", "app.escrow", "--to", "out.key", *UNLOCK,
                     "--module", self.world.module, env=elsewhere)
        self.refused("agent_not_trusted", 4, "restore", "app.escrow", "--to", "out.key", *UNLOCK,
                     "--module", self.world.module, "--agent", "A" * 43, env=elsewhere)
        done = self.world.run("verify", "app.escrow", env=elsewhere)
        self.assertIn(done.status, (1, 4), str(done))

    def test_an_unknown_agent_can_be_accepted_for_a_new_file_alone(self):
        elsewhere = {"KEYESCROW_STATE": str(self.world.path("nowhere"))}
        restore = ("restore", "app.escrow", *UNLOCK, "--module", self.world.module,
                   "--accept-unknown-agent", "--event-log", "event.json")
        self.refused("usage", 2, *restore, "--to", "out.key", env=elsewhere)  # without --via
        self.refused("usage", 2, *restore, "--to", "app.key", "--via", "token-ops", env=elsewhere)
        done = self.succeeds(*restore, "--to", "out.key", "--via", "token-ops", env=elsewhere)
        self.assertIn(b"unproven", done.err)
        self.assertEqual(self.world.path("out.key").read_bytes(), self.world.key)
        self.world.path("out.key").unlink()
        self.world.path("event.json").unlink()

    def test_of_a_newer_format(self):
        text = (SECOND_DECODER.parent / "vectors" / "header_format_next.txt").read_text()
        head, _, body = text.partition("\n\n")
        (thumbprint,) = [line.split()[1] for line in head.splitlines() if line.startswith("trust:")]
        self.world.write("bad.escrow", body)
        elsewhere = {"KEYESCROW_STATE": str(self.world.path("nowhere"))}
        for command in (("restore", "bad.escrow", "--to", "out.key", "--agent", thumbprint, *UNLOCK),
                        ("verify", "bad.escrow", "--agent", thumbprint), ("show", "bad.escrow")):
            self.refused("envelope_newer_format", 4, *command, env=elsewhere)
        self.world.path("bad.escrow").unlink()

    def test_another_key_than_expected(self):
        self.refused("expectation_failed", 10, "restore", "app.escrow", "--to", "out.key", *UNLOCK,
                     "--expect", "other/key")
        self.refused("expectation_failed", 10, "restore", "app.escrow", "--to", "out.key", *UNLOCK,
                     "--expect", "app/key@2")

    def test_missing_and_unreadable_files(self):
        self.refused("envelope_unreadable", 8, "restore", "./no-such.escrow", "--to", "out.key")
        self.refused("key_not_found", 8, "restore", "no/such/key", "--to", "out.key")
        self.refused("version_not_found", 8, "restore", "app/key", "--version", "7", "--to",
                     "out.key")
        self.refused("path_not_found", 3, "restore", "app/key", "--via", "no-such", "--to",
                     "out.key")
        self.world.path("folder.escrow").mkdir()
        done = self.world.run("restore", "folder.escrow", "--to", "out.key", "--json")
        self.assertEqual(done.status, 8, str(done))
        self.world.path("folder.escrow").rmdir()


class Receipts(AcceptanceCase):
    world_options = {"tpm": False}

    def test_a_receipt_is_of_this_envelope_and_of_this_log(self):
        world = self.world
        world.write("second.key", b"another key of thirty-two bytes!")
        world.must("backup", "app/second", "--from", "second.key", "--path", self.paths[0], "-o",
                   "second.escrow", *UNLOCK)
        place = world.path("app.escrow.receipt")
        good = place.read_bytes()
        done = self.succeeds("verify", "app.escrow", "--agent", world.thumbprint)
        self.assertIn(b"receipt: entry ", done.out)
        lines = good.split(b"\n")
        self.assertTrue(lines[1].startswith(b"extra ") and lines[2].startswith(b"index "), lines)
        second = world.path("second.escrow.receipt").read_bytes()
        index = b"index %d" % (int(lines[2].split()[1]) + 1)
        for words, lie in (
                (b"the receipt is of another envelope", second),
                (b"the receipt is of another envelope",
                 good.replace(lines[1], second.split(b"\n")[1])),
                (b"not in the log at that place", good.replace(lines[2], index)),
                (b"not in the log at that place", good.replace(lines[3] + b"\n", b"", 1)),
                (b"signatures are cut off", good[:-40]),
                (b"the receipt does not verify", b"")):
            with self.subTest(words=words):
                place.write_bytes(lie)
                done = self.world.run("verify", "app.escrow", "--agent", world.thumbprint)
                self.assertEqual(done.status, 4, str(done))
                self.assertIn(words, done.out + done.err)
        place.write_bytes(good)
