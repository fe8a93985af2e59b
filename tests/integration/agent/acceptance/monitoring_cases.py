"""What monitors get: Nagios, Prometheus, JSON lines, the systemd journal."""

import base64
import hashlib
import json
import os
import pathlib
import re
import socket
import struct
import sys
import time

sys.path.append("/usr/lib/python3/dist-packages")  # Debian's, whichever Python runs this
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402
from world import UNLOCK, AcceptanceCase  # noqa: E402

DOCUMENT = pathlib.Path(__file__).resolve().parents[4] / "agent/docs/MONITORING.md"


def leaf_hash(line):
    return base64.urlsafe_b64encode(hashlib.sha256(b"\0" + line).digest()).rstrip(b"=").decode()


class Monitoring(AcceptanceCase):
    world_options = {"tpm": False}

    def lines(self, *more):
        return self.succeeds("audit", "log", "--json-lines", *more).out.splitlines()

    def test_json_lines_carry_the_bytes_that_are_hashed(self):
        entries = [json.loads(line) for line in self.lines()]
        self.assertEqual([entry["seq"] for entry in entries], list(range(len(entries))))
        for line, entry in zip(self.lines(), entries):
            raw = line[line.index(b',"entry":') + len(b',"entry":'):-1]
            self.assertEqual(leaf_hash(raw), entry["leaf_hash"])
            self.assertEqual(json.loads(raw), entry["entry"])
        self.assertEqual(self.lines("--since", "2"), self.lines()[2:])
        # Who asks for the entry after the last one gets nothing; for a later one, the log was cut.
        self.assertEqual(self.lines("--since", str(len(entries))), [])
        self.refused("log_damaged", 4, "audit", "log", "--since", str(len(entries) + 1))
        for wrong in (("--json-lines", "--json"), ("--since", "x")):
            self.assertEqual(self.world.run("audit", "log", *wrong).status, 2)
        shown = json.loads(self.succeeds("audit", "log", "--json", "--since", "1").out)
        self.assertEqual(shown["entries"][0]["seq"], 1)

    def metrics(self, *more):
        text = self.succeeds("status", "--prometheus", *more).out.decode()
        return self.parsed(text)

    def parsed(self, text):
        """By Prometheus' own client library, and by the rules that it does not hold."""
        self.assertTrue(text.endswith("\n"))
        names = []
        for line in text.splitlines():
            if line.startswith("#"):
                self.assertRegex(line, r"^# (HELP keyescrow_[a-z_]+ [A-Z].*\.|"
                                       r"TYPE keyescrow_[a-z_]+ (gauge|counter))$")
                if line.startswith("# HELP"):
                    names.append(line.split()[2])
            else:
                self.assertRegex(line, r'^keyescrow_[a-z_]+(\{[a-z]+="[^"\\\n]*"(,[a-z]+="[^"\\\n]*")*\})?'
                                       r' [0-9]+$')
                self.assertEqual(re.split("[ {]", line)[0], names[-1], "samples follow their HELP")
        self.assertEqual(len(names), len(set(names)))
        found = {}
        for family in text_string_to_metric_families(text):
            self.assertTrue(family.documentation)
            for sample in family.samples:
                key = (sample.name, *sorted(sample.labels.items()))
                self.assertNotIn(key, found)
                found[key] = sample.value
        return found

    def test_prometheus_tells_what_status_tells(self):
        before = self.metrics()
        status = self.world.run("status", "--json").json()
        get = lambda found, name, **labels: found[(name, *sorted(labels.items()))]
        self.assertEqual(get(before, "keyescrow_keys", state="warning"), 1)  # a simulated token
        self.assertEqual(get(before, "keyescrow_log_size_entries"), status["log_size"])
        self.assertEqual(get(before, "keyescrow_paths", state="proven"), 1)
        now = time.time()
        for name in ("keyescrow_status_timestamp_seconds", "keyescrow_checkpoint_timestamp_seconds"):
            self.assertLess(abs(now - get(before, name)), 3600)
        self.assertLess(get(before, "keyescrow_drill_age_seconds_max"), 3600)
        self.restored("out.key")
        self.world.run("restore", "app/key", "--to", "out.key", "--password-file", "wrong",
                       "--pin-file", "pin")
        self.succeeds("key", "add", "other/key", "--source", "/nowhere")
        after = self.metrics()
        grown = lambda name, **labels: get(after, name, **labels) - get(before, name, **labels)
        self.assertEqual(grown("keyescrow_releases_total", purpose="restore", outcome="completed"), 1)
        self.assertEqual(grown("keyescrow_releases_total", purpose="restore", outcome="failed"), 1)
        self.assertEqual(grown("keyescrow_releases_total", purpose="restore", outcome="requested"), 2)
        self.assertEqual(get(after, "keyescrow_keys", state="not_escrowed"), 1)
        self.assertEqual(get(after, "keyescrow_policy_violations", reason="declared_not_escrowed"), 1)
        # The counters are those of the log.
        types = [json.loads(line)["entry"]["type"] for line in self.lines()]
        for outcome in ("passed", "failed", "skipped"):
            self.assertEqual(get(after, "keyescrow_drills_total", outcome=outcome),
                             types.count("drill." + outcome))
        for outcome in ("requested", "completed", "failed", "denied"):
            self.assertEqual(get(after, "keyescrow_releases_total", purpose="restore",
                                 outcome=outcome), types.count("restore." + outcome))
        self.succeeds("key", "remove", "other/key", "--yes")
        listed = set(re.findall(r"^\| `(keyescrow_[a-z_]+)`", DOCUMENT.read_text(), re.MULTILINE))
        self.assertEqual({name for name, *_ in after} - listed, set())
        self.assertNotIn("app/key", str(after))

    def test_prometheus_file_is_replaced_as_a_whole(self):
        path = self.world.path("keyescrow.prom")
        self.assertEqual(self.succeeds("status", "--prometheus", "-o", path).out, b"")
        first = path.stat()
        self.assertEqual(first.st_mode & 0o777, 0o644)
        self.parsed(path.read_text())
        held = open(path, encoding="utf-8")
        self.succeeds("status", "--prometheus", "-o", path)
        self.assertNotEqual(path.stat().st_ino, first.st_ino)
        self.parsed(held.read())  # who had it open keeps the old one whole
        held.close()
        content = path.read_bytes()
        done = self.world.run("status", "--prometheus", "-o", path,
                              env={"KEYESCROW_STATE": str(self.world.path("none"))})
        self.assertEqual((done.status, path.read_bytes()), (8, content))
        self.assertEqual(self.world.run("status", "--prometheus", "-o", "/nowhere/x.prom").status, 11)
        self.refused("usage", 2, "status", "--prometheus", "-o", "m.txt", num_runs=1)
        self.assertFalse(self.world.path("m.txt").exists())
        for wrong in (("--prometheus", "--nagios"), ("-o", "x"), ("app/key", "--prometheus"),
                      ("--prometheus", "--json")):
            self.assertIn(self.world.run("status", *wrong).status, (2, 3))
        path.unlink()

    def test_nagios_answers_on_every_error(self):
        ruined = self.world.path("ruined")
        ruined.mkdir(mode=0o700)
        (ruined / "agent.json").write_text("{")
        (ruined / "agent.json").chmod(0o600)
        self.world.write("wrong.toml", "[[kye]]\n")
        for status, word, arguments, environment in (
                (3, "UNKNOWN", ("status", "--nagios"), {"KEYESCROW_STATE": str(self.world.path("no"))}),
                (3, "UNKNOWN", ("status", "--nagios"),
                 {"KEYESCROW_CONFIG": str(self.world.path("wrong.toml"))}),
                (3, "UNKNOWN", ("status", "--nagios", "no/key"), {}),
                (3, "UNKNOWN", ("status", "--nagios", "--nagiso"), {}),
                (3, "UNKNOWN", ("status", "a", "b", "--nagios"), {}),
                (2, "CRITICAL", ("status", "--nagios"), {"KEYESCROW_STATE": str(ruined)}),
                (1, "WARNING", ("status", "--nagios"), {})):  # a simulated token
            done = self.world.run(*arguments, env=environment)
            self.assertEqual(done.status, status, str(done))
            self.assertRegex(done.out.decode(), rf"\AKEYESCROW {word} - [^|\n]+( \| [a-z_=0-9 ]+)?\n\Z")

    def test_entries_reach_the_journal(self):
        path = self.world.path("journal.sock")
        journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        journal.bind(str(path))
        journal.setblocking(False)
        told = {"KEYESCROW_JOURNALD_SOCKET": str(path)}
        size = self.world.run("status", "--json").json()["log_size"]
        self.succeeds("restore", "app/key", "--to", "out.key", "--reason", "two\nlines", *UNLOCK, env=told)
        self.world.path("out.key").unlink()
        got = []
        while True:
            try:
                got.append(self.fields(journal.recv(1 << 20)))
            except BlockingIOError:
                break
        entries = [json.loads(line) for line in self.lines("--since", str(size))]
        self.assertEqual([e["entry"]["type"] for e in entries],
                         ["restore.requested", "restore.completed"])
        self.assertEqual(len(got), 2)
        ids = dict(re.findall(r"^\| `([a-z_.]+)` \| `([0-9a-f]{32})` \|$", DOCUMENT.read_text(),
                              re.MULTILINE))
        for fields, entry in zip(got, entries):
            self.assertEqual(int(fields["KEYESCROW_SEQ"]), entry["seq"])
            self.assertEqual(fields["KEYESCROW_LEAF_HASH"], entry["leaf_hash"])
            self.assertEqual(leaf_hash(fields["KEYESCROW_ENTRY"].encode()), entry["leaf_hash"])
            self.assertEqual(fields["KEYESCROW_TYPE"], entry["entry"]["type"])
            self.assertEqual(fields["KEYESCROW_KEY"], "app/key")
            self.assertEqual(fields["KEYESCROW_REASON"], "two\nlines")
            self.assertEqual(fields["MESSAGE_ID"], ids[entry["entry"]["type"]])
            self.assertEqual(fields["PRIORITY"], "5")
            self.assertIn("app/key version 1", fields["MESSAGE"])
        # A journal that takes nothing more, or is gone, delays and fails nothing.
        try:
            filler = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            filler.setblocking(False)
            while True:
                filler.sendto(b"x" * 4096, str(path))
        except BlockingIOError:
            filler.close()
        self.restored("out.key", env=told)
        journal.close()
        self.restored("out.key", env=told)
        path.unlink()
        self.restored("out.key", env=told)

    @staticmethod
    def fields(datagram):
        """The native protocol: NAME=value lines, or NAME, u64 size, value where it has line feeds."""
        found = {}
        while datagram:
            name, separator, rest = re.match(rb"([A-Z_]+)([=\n])(.*)\Z", datagram, re.DOTALL).groups()
            if separator == b"=":
                value, datagram = rest.split(b"\n", 1)
            else:
                (size,) = struct.unpack("<Q", rest[:8])
                value, datagram = rest[8:8 + size], rest[9 + size:]
            assert name not in found
            found[name.decode()] = value.decode()
        return found
