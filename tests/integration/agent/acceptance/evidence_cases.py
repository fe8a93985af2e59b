"""A copied state folder, verified elsewhere with public keys alone; and what its superuser can do.

Each manipulation is made on a copy with stock SQLite, triggers put aside and put back, so that
nothing but the manipulation itself is there to be found.
"""

import contextlib
import os
import shutil
import sqlite3
import time

from world import AcceptanceCase, NOBODY, UNLOCK, World, within


@contextlib.contextmanager
def editing(folder, keep_triggers=True):
    """The store of a copy, open for anything; its triggers are as before afterwards."""
    database = sqlite3.connect(folder / "store.db", isolation_level=None)
    triggers = database.execute(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        database.execute(f"DROP TRIGGER {name}")
    yield database
    if keep_triggers:
        for _, sql in triggers:
            database.execute(sql)
    database.close()


class Evidence(AcceptanceCase):  # one test: each method has a copy of the class's state
    world_options = {"tpm": False}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        world = cls.world
        for version in range(2):
            world.write("next.key", os.urandom(32))
            world.must("backup", "app/other", "--from", "next.key", "--path", cls.paths[0],
                       *UNLOCK)
        world.must("restore", "app/key", "--to", "out.key", "--reason", "INC-1", *UNLOCK)
        world.write("since", world.must("audit", "checkpoint").out)
        cls.old = world.path("old")
        shutil.copytree(world.path("state"), cls.old)
        # What a foreign agent made came in, and an event of a restore without state.
        foreign = World(tpm=False)
        cls.addClassCleanup(foreign.close)
        foreign.escrow("their/key", paths=("password & token:ops",))
        world.write("their.json", foreign.must("agent-key", "export").out)
        world.must("trust", "add", "their.json", "--host", "acceptance", "--key", "their/**")
        foreign.must("export", "their/key", "-o", "their.escrow")
        shutil.copy(foreign.path("their.escrow"), world.path("their.escrow"))
        world.must("import", "their.escrow")
        world.must("trust", "add", "B" * 42 + "A")
        world.must("trust", "remove", "B" * 42 + "A", "--yes")
        nowhere = {"KEYESCROW_STATE": str(world.path("none")), "KEYESCROW_CONFIG": None}
        world.must("restore", "app.escrow", "--to", "stateless.key", "--agent", world.thumbprint,
                   "--module", world.module, "--event-log", "event.json", *UNLOCK, env=nowhere)
        world.must("import-event", "event.json")
        world.write("trust.json", world.must("agent-key", "export").out)
        cls.elsewhere = {"KEYESCROW_STATE": str(world.path("none")), "KEYESCROW_CONFIG": None}

    def setUp(self):
        self.copy = self.world.path("copy")
        shutil.copytree(self.world.path("state"), self.copy)
        for name in ("ed25519.seed", "agent-p256.key"):  # an auditor gets no secret
            (self.copy / name).unlink()
        self.addCleanup(shutil.rmtree, self.copy, True)

    def verify(self, *arguments, folder=None):
        return self.world.run("verify", folder or self.copy, "--json", *arguments,
                              env=self.elsewhere)

    def faults(self, done):
        return {f["fault"] for item in done.json()["items"] for f in item["findings"]}

    def state_of(self, folder):
        return {path.name: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode)
                for path in folder.iterdir()}

    # ---- good evidence

    def test_a_copy_verifies_and_nothing_of_it_is_written(self):
        for has_log in (True, False):
            if not has_log:
                with editing(self.copy) as database:
                    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            before = self.state_of(self.copy)
            self.assertEqual("store.db-wal" in before, has_log, before.keys())
            for arguments in (["--trust", "trust.json"], ["--agent", self.world.thumbprint],
                              ["--trust", "trust.json", "--since", "since", "--threads", "3"]):
                with self.subTest(arguments=arguments, has_log=has_log):
                    done = self.verify(*arguments)
                    self.assertEqual(done.status, 0, str(done))
                    document = done.json()
                    self.assertEqual(document["verdict"], "verified")
                    counts = document["items"][0]["counts"]
                    self.assertEqual((counts["envelopes"], counts["keys"]), (4, 3))
                    self.assertEqual(counts["envelope_signatures"], 4)
                    self.assertEqual(counts["imported_events"], 2)
                    self.assertGreater(counts["proofs"], 0)
                    self.assertEqual(counts["signed_proofs"], counts["proofs"])
                    # Each backup, drill and restore proved a path; all their envelopes are here.
                    entries = self.world.run("audit", "log", "--json").json()["entries"]
                    drills = sum("drill" in entry for entry in entries)
                    self.assertEqual((counts["drill_proofs"], counts["drill_proofs_unchecked"]),
                                     (drills, 0))
            self.assertEqual(self.state_of(self.copy), before)

    def test_without_trust_it_is_no_pass(self):
        done = self.verify()
        self.assertEqual(done.status, 1, str(done))
        self.assertTrue(any("not authenticated" in line
                            for line in done.json()["items"][0]["not_checked"]), str(done))
        done = self.verify("--trust", "trust.json", "--quick")
        self.assertEqual(done.status, 1, str(done))
        self.assertIn("not a pass", done.json()["verdict"])

    def test_of_another_agent(self):
        self.assertEqual(self.verify("--agent", "A" * 43).status, 4)
        done = self.verify("--trust", "their.json")
        self.assertEqual(done.status, 4, str(done))
        # Its keys signed neither the checkpoints, which name another log, nor the envelopes.
        self.assertLessEqual({"checkpoint_format", "envelope_signature"}, self.faults(done))

    def test_agent_json_is_not_believed(self):
        (self.copy / "agent.json").write_text("{}")
        self.assertEqual(self.verify("--trust", "trust.json").status, 0)
        (self.copy / "agent.json").unlink()
        self.assertEqual(self.verify("--trust", "trust.json").status, 0)

    def test_read_only_and_of_another_owner(self):
        for path in self.copy.iterdir():
            path.chmod(0o444)
            os.chown(path, NOBODY, NOBODY)
        self.copy.chmod(0o555)
        done = self.verify("--trust", "trust.json")
        self.assertEqual(done.status, 0, str(done))

    def test_empty_and_not_a_state(self):
        empty = World(tpm=False, token=False)
        self.addCleanup(empty.close)
        empty.must("init")
        empty.write("trust.json", empty.must("agent-key", "export").out)
        done = empty.run("verify", empty.path("state"), "--trust", "trust.json",
                         env=self.elsewhere)
        self.assertEqual(done.status, 8, str(done))
        folder = self.world.path("folder")
        folder.mkdir(exist_ok=True)
        self.assertIn(self.world.run("verify", folder, env=self.elsewhere).status, (2, 8))

    # ---- what a superuser can do to it

    def found(self, fault, *arguments, status=4):
        done = self.verify("--trust", "trust.json", *arguments)
        self.assertEqual(done.status, status, str(done))
        self.assertIn(fault, self.faults(done), str(done))
        return done

    def test_changed_bodies(self):
        with editing(self.copy) as database:
            database.execute("UPDATE log_entry SET bytes = CAST(replace(CAST(bytes AS TEXT), "
                             "'success', 'failure') AS BLOB) WHERE seq = 2")
        self.found("leaf_hash")
        found = self.faults(self.verify("--trust", "trust.json"))
        self.assertTrue({"root", "tile"} <= found, found)

    def test_changed_bodies_with_their_hashes_and_tiles(self):
        import hashlib
        with editing(self.copy) as database:
            (body,) = database.execute("SELECT bytes FROM log_entry WHERE seq = 2").fetchone()
            body = body.replace(b"success", b"failure")
            leaf = hashlib.sha256(b"\0" + body).digest()
            (tile,) = database.execute("SELECT bytes FROM tile WHERE id = 0").fetchone()
            database.execute("UPDATE log_entry SET bytes = ?, leaf_hash = ? WHERE seq = 2",
                             (body, leaf))
            database.execute("UPDATE tile SET bytes = ? WHERE id = 0",
                             (tile[:64] + leaf + tile[96:],))
        done = self.found("root")
        self.assertFalse({"leaf_hash", "tile"} & self.faults(done), str(done))

    def test_changed_times(self):
        """By the time of a key's first row a rule's grace is counted."""
        for name, seconds in (("app/key", 86400 * 300), ("their/key", 120), ("their/key", -120)):
            for step in (seconds, -seconds):
                with editing(self.copy) as database:
                    database.execute("UPDATE envelope SET created = created + ? WHERE key_name = ?",
                                     (step, name))
                if step == seconds:
                    self.found("envelope_column")
        self.assertEqual(self.verify("--trust", "trust.json").status, 0)

    def test_rows_of_none(self):
        with editing(self.copy) as database:
            database.execute("INSERT INTO path_set VALUES ((SELECT max(id) + 1 FROM envelope), "
                             "randomblob(32))")
        self.found("schema")
        with editing(self.copy) as database:
            database.execute("DELETE FROM path_set WHERE envelope_row > (SELECT max(id) FROM "
                             "envelope)")
            database.execute("INSERT INTO policy_file VALUES (9, 'bl.txt', x'00')")
        self.found("schema")

    def test_removed_entries(self):
        with editing(self.copy) as database:
            database.execute("DELETE FROM log_entry WHERE seq = 4")
        self.found("sequence")
        with editing(self.copy) as database:  # and those behind it moved up
            database.execute("UPDATE log_entry SET seq = seq - 1 WHERE seq > 4")
        self.found("entry_chain")

    def test_reordered_entries(self):
        with editing(self.copy) as database:
            database.execute("UPDATE log_entry SET seq = -1 WHERE seq = 2")
            database.execute("UPDATE log_entry SET seq = 2 WHERE seq = 3")
            database.execute("UPDATE log_entry SET seq = 3 WHERE seq = -1")
        self.found("entry_chain")

    def test_replayed_entries(self):
        with editing(self.copy) as database:
            database.execute(
                "INSERT INTO log_entry SELECT (SELECT max(seq) + 1 FROM log_entry), leaf_hash, "
                "key_name, bytes FROM log_entry WHERE seq = 2")
        found = self.faults(self.found("entry_chain"))
        self.assertIn("uncovered", found)

    def test_cut_with_its_checkpoints(self):
        with editing(self.copy) as database:
            keep = database.execute("SELECT size FROM checkpoint WHERE size > 5 ORDER BY size "
                                    "LIMIT 1").fetchone()[0]
            database.execute("DELETE FROM checkpoint WHERE size > ?", (keep,))
            database.execute("DELETE FROM log_entry WHERE seq >= ?", (keep,))
            database.execute("UPDATE tile SET bytes = substr(bytes, 1, 32 * ?)", (keep,))
            database.execute("DELETE FROM envelope WHERE log_seq >= ?", (keep,))
            database.execute("DELETE FROM path_set WHERE envelope_row NOT IN (SELECT id FROM "
                             "envelope)")
            database.execute("DELETE FROM imported_event")
            database.execute("DELETE FROM trust")
            database.execute("DELETE FROM path_state WHERE key_name <> 'app/key'")
            database.execute("UPDATE path_state SET proven = NULL")
        # From inside there is nothing to be seen, and that is said; --since sees it.
        done = self.verify("--trust", "trust.json")
        self.assertFalse({f for f in self.faults(done) if f != "release_without_outcome"},
                         str(done))
        self.assertTrue(any("cut off" in line
                            for line in done.json()["items"][0]["not_checked"]), str(done))
        self.found("log_cut", "--since", "since")

    def test_an_old_copy_put_back(self):
        newest = self.world.must("audit", "checkpoint").out
        self.world.write("newest", newest)
        done = self.verify("--trust", "trust.json", folder=self.old)
        self.assertEqual(done.status, 0, str(done))
        done = self.verify("--trust", "trust.json", "--since", "newest", folder=self.old)
        self.assertEqual(done.status, 4, str(done))
        self.assertIn("log_cut", self.faults(done))

    def test_checkpoints(self):
        for sql, fault in (
                ("DELETE FROM checkpoint WHERE size = (SELECT max(size) FROM checkpoint)",
                 "uncovered"),
                ("DELETE FROM checkpoint WHERE size = 4", "entry_chain"),
                ("UPDATE checkpoint SET note = replace(note, char(10) || '4' || char(10), "
                 "char(10) || '5' || char(10)) WHERE size = 4", "checkpoint_format"),
                ("UPDATE checkpoint SET note = (SELECT note FROM checkpoint AS o WHERE o.size < "
                 "checkpoint.size ORDER BY o.size DESC LIMIT 1) WHERE size = 6",
                 "checkpoint_format")):
            with self.subTest(sql=sql):
                shutil.rmtree(self.copy)
                self.setUp()
                with editing(self.copy) as database:
                    self.assertEqual(database.execute(sql).rowcount, 1)
                self.found(fault)

    def test_a_checkpoint_that_the_agent_did_not_sign(self):
        with editing(self.copy) as database:
            size, note = database.execute("SELECT size, note FROM checkpoint ORDER BY size DESC "
                                          "LIMIT 1").fetchone()
            at = note.rindex("\n— ") - 3
            note = note[:at] + ("A" if note[at] != "A" else "B") + note[at + 1:]
            database.execute("UPDATE checkpoint SET note = ? WHERE size = ?", (note, size))
        self.found("signature")

    def test_envelopes(self):
        other = "(SELECT %s FROM envelope WHERE key_name = 'app/key')"
        cases = (
            ("UPDATE envelope SET bytes = CAST(replace(CAST(bytes AS TEXT), 'ey', 'ez') AS BLOB) "
             "WHERE key_name = 'app/key'", "envelope_hash"),
            # The older version's bytes in the newer one's place: the key of yesterday.
            (f"UPDATE envelope SET bytes = {other % 'bytes'}, sha256 = {other % 'sha256'} "
             "WHERE key_name = 'app/other' AND key_version = 2", "envelope_unlogged"),
            ("DELETE FROM envelope WHERE key_name = 'app/other' AND key_version = 2",
             "envelope_missing"),
            ("DELETE FROM envelope WHERE key_name = 'app/other' AND key_version = 1",
             "version_gap"),
            ("UPDATE envelope SET key_name = 'app/renamed' WHERE key_name = 'app/key'",
             "envelope_unlogged"),
            ("UPDATE envelope SET key_name = 'app/renamed' WHERE key_name = 'app/key'",
             "envelope_column"),
            ("INSERT INTO envelope SELECT NULL, 'app/planted', key_version, revision, envelope_id, "
             "sha256, created, log_seq, bytes FROM envelope WHERE key_name = 'app/key'",
             "envelope_unlogged"),
            ("UPDATE envelope SET log_seq = 0 WHERE key_name = 'app/key'", "envelope_unlogged"),
        )
        for sql, fault in cases:
            with self.subTest(sql=sql, fault=fault):
                shutil.rmtree(self.copy)
                self.setUp()
                with editing(self.copy) as database:
                    self.assertEqual(database.execute(sql).rowcount, 1)
                self.found(fault)

    def test_what_stands_beside_the_history(self):
        cases = (
            ("UPDATE tile SET bytes = zeroblob(length(bytes)) WHERE id = 0", "tile"),
            ("INSERT INTO tile VALUES (7, zeroblob(32))", "tile"),
            ("UPDATE log_entry SET key_name = 'app/other' WHERE seq = 2", "entry_column"),
            ("UPDATE token SET spki = zeroblob(length(spki))", "token_unlogged"),
            ("INSERT INTO token SELECT 'planted', uri, module, spki, evidence, added, '' FROM "
             "token", "token_unlogged"),
            ("DELETE FROM token", "token_unlogged"),
            ("UPDATE trust SET keys = '' WHERE name <> ''", "trust_unlogged"),
            ("UPDATE trust SET hosts = '*' WHERE name <> ''", "trust_unlogged"),
            ("UPDATE trust SET removed = NULL WHERE removed IS NOT NULL", "trust_unlogged"),
            (f"INSERT INTO trust VALUES ('{'C' * 43}', x'', '', '', '', 1, NULL)",
             "trust_unlogged"),
            ("DELETE FROM trust WHERE removed IS NOT NULL", "trust_unlogged"),
            ("UPDATE path_state SET proven = proven + 86400 WHERE key_name = 'app/key'",
             "proof_unlogged"),
            ("INSERT INTO path_state VALUES ('app/key', 1, 'planted', 1, 1, NULL, '', '', NULL)",
             "proof_unlogged"),
            ("DELETE FROM imported_event WHERE seq = (SELECT max(seq) FROM imported_event)",
             "import_unlogged"),
        )
        for sql, fault in cases:
            with self.subTest(sql=sql, fault=fault):
                shutil.rmtree(self.copy)
                self.setUp()
                with editing(self.copy) as database:
                    self.assertEqual(database.execute(sql).rowcount, 1)
                self.found(fault)

    def test_triggers_and_indexes(self):
        with editing(self.copy, keep_triggers=False):
            pass
        self.found("schema")
        shutil.rmtree(self.copy)
        self.setUp()
        # An index that does not hold all rows, under the text of one that does.
        with editing(self.copy) as database:
            (sql,) = database.execute("SELECT sql FROM sqlite_schema WHERE name = "
                                      "'envelope_by_key'").fetchone()
            database.execute("DROP INDEX envelope_by_key")
            database.execute(sql + " WHERE key_version = 1")
            database.execute("PRAGMA writable_schema = ON")
            database.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'envelope_by_key'",
                             (sql,))
            database.execute("PRAGMA writable_schema = OFF")
        self.assertNotIn("schema", self.faults(self.found("index")))

    def test_many_faults_are_counted(self):
        with editing(self.copy) as database:
            database.execute("UPDATE log_entry SET leaf_hash = zeroblob(32)")
            (count,) = database.execute("SELECT count(*) FROM log_entry").fetchone()
        item = self.found("leaf_hash").json()["items"][0]
        self.assertGreaterEqual(item["num_findings"], count)
        self.assertTrue(all(f["remedy"] for f in item["findings"]))

    # ---- what somebody hands over to keep its reader busy

    def ends_soon(self, *arguments):
        begin = time.monotonic()
        done = self.verify(*arguments)
        self.assertLess(time.monotonic() - begin, within(20))
        return done

    def test_what_is_no_file_is_not_waited_for(self):
        for name, with_trust in (("agent.json", 0), ("store.db-journal", 9), ("store.db-wal", 9),
                                 ("store.db-shm", 9)):
            with self.subTest(name=name):
                shutil.rmtree(self.copy)
                self.setUp()
                (self.copy / name).unlink(missing_ok=True)
                os.mkfifo(self.copy / name)
                done = self.ends_soon()
                self.assertNotEqual(done.status, 0, str(done))
                self.assertIn(f"{name} is not a regular file", (done.out + done.err).decode())
                # Whose log it is need not come from agent.json.
                done = self.ends_soon("--trust", "trust.json")
                self.assertEqual(done.status, with_trust, str(done))

    def test_of_a_newer_schema(self):
        with editing(self.copy) as database:
            database.execute("PRAGMA user_version = 99")
        done = self.verify("--trust", "trust.json")
        self.check_json(done, "store_newer_schema", 9)
        self.assertIn(b"install the keyescrow that wrote it, or a newer one", done.err)

    def test_a_hole_is_no_store_of_that_size(self):
        with editing(self.copy) as database:
            database.execute("INSERT INTO log_entry (seq, leaf_hash, bytes) VALUES (?, ?, ?)",
                             (1 << 40, bytes(32), b"{}"))
        os.truncate(self.copy / "store.db", 1 << 40)  # a terabyte, of which nothing is there
        done = self.ends_soon("--trust", "trust.json")
        self.assertEqual(done.status, 4, str(done))
        self.assertIn("more than the file can hold", done.out.decode())

    def test_pages_that_lead_to_one_another(self):
        """Inner pages, each of which has the next one as each of its children: a few kilobytes of
        them make millions of rows, and some more make more than anybody can read."""
        # How many, their kind, and what a cell has behind its child: a number; a row of two NULLs.
        for table, count, kind, rest, words in (
                ("log_entry", 3, 0x05, b"\x7f", "pages lead to row 0 again"),
                ("meta", 2, 0x02, b"\3\3\0\0", "lead to more rows than it can hold")):
            with self.subTest(table=table):
                self.lead_to_one_another(table, count, kind, rest)
                done = self.ends_soon("--trust", "trust.json")
                self.assertEqual(done.status, 4, str(done))
                self.assertIn(words, (done.out + done.err).decode())
                shutil.rmtree(self.copy)
                self.setUp()

    def lead_to_one_another(self, table, num_pages, kind, rest):
        with editing(self.copy) as database:
            (root,) = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?",
                                       (table,)).fetchone()
            (size,) = database.execute("PRAGMA page_size").fetchone()
        store = self.copy / "store.db"
        data = bytearray(store.read_bytes())
        number = len(data) // size
        leaf = data[(root - 1) * size:root * size]
        while leaf[0] == kind:  # down to the first rows
            cell = int.from_bytes(leaf[12:14], "big")
            child = int.from_bytes(leaf[cell:cell + 4], "big")
            leaf = data[(child - 1) * size:child * size]
        self.assertEqual(leaf[0], kind | 8)
        if table == "meta":  # one row
            place = size - len(rest)
            leaf = (bytes((kind | 8, 0, 0, 0, 1)) + place.to_bytes(2, "big") + b"\0" +
                    place.to_bytes(2, "big")).ljust(place, b"\0") + rest

        def inner(child):
            cells = child.to_bytes(4, "big") + rest
            count = (size - 12) // (len(cells) + 2)
            at = size - count * len(cells)
            places = b"".join((at + i * len(cells)).to_bytes(2, "big") for i in range(count))
            head = (bytes((kind, 0, 0)) + count.to_bytes(2, "big") + at.to_bytes(2, "big") + b"\0" +
                    child.to_bytes(4, "big"))
            return head + places + bytes(at - len(head) - len(places)) + cells * count

        data[(root - 1) * size:root * size] = inner(number + 1)
        for page in range(1, num_pages):
            data += inner(number + page + 1)
        data += leaf
        data[28:32] = (len(data) // size).to_bytes(4, "big")
        store.write_bytes(data)

    def test_a_row_that_no_keyescrow_writes(self):
        with editing(self.copy) as database:
            database.execute("INSERT INTO meta VALUES ('note', ?)", ("x" * (33 << 20),))
        done = self.ends_soon("--trust", "trust.json")
        self.assertEqual(done.status, 4, str(done))
        self.assertIn("larger than any that is written", (done.out + done.err).decode())

    def test_a_store_that_is_no_database(self):
        for name in ("store.db-wal", "store.db-shm"):
            (self.copy / name).unlink(missing_ok=True)
        whole = (self.copy / "store.db").read_bytes()
        for data in (b"x" * 4096, whole[:16384], whole[: len(whole) // 2 // 16384 * 16384]):
            (self.copy / "store.db").write_bytes(data)
            done = self.verify("--trust", "trust.json")
            self.assertIn(done.status, (4, 8, 9), str(done))
