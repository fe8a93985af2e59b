"""The log's counter in the TPM: an older store, an older TPM, and what must not be taken for one."""

import contextlib
import json
import random
import shutil
import sqlite3
import time

from tpm_bus import TpmBus
from world import BOTH_PATHS, UNLOCK, AcceptanceCase

INDEX = "0x1804b45"
NV_INCREMENT, NV_CERTIFY = hex(0x134), hex(0x184)


class Anchors(AcceptanceCase):
    paths = BOTH_PATHS

    def entries(self, *types):
        entries = self.succeeds("audit", "log", "--json").json()["entries"]
        return [entry for entry in entries if entry["type"] in types]

    def anchor(self, *arguments):
        return self.succeeds("audit", "anchor", "--json", *arguments).json()

    def keep(self, name="copy"):
        shutil.rmtree(self.world.path(name), ignore_errors=True)
        shutil.copytree(self.world.path("state"), self.world.path(name))

    def put_back(self, name="copy"):
        shutil.rmtree(self.world.path("state"))
        shutil.copytree(self.world.path(name), self.world.path("state"))

    def stop_tpm(self):
        self.world.tpm_tool("tpm2_shutdown", "-c")
        self.world.kill_tpm()

    def is_off(self, words):
        """verify and audit anchor tell it, status keeps telling it, the log has it once."""
        done = self.world.run("verify")
        self.assertEqual(done.status, 4, str(done))
        self.assertIn(words, done.out.decode() + done.err.decode())
        for _ in range(2):
            done = self.world.run("audit", "anchor", "--json")
            self.check_json(done, "anchor_mismatch", 4)
            self.assertIn(words, done.err.decode())
        done = self.world.run("status", "--json")
        self.assertEqual(done.status, 1, str(done))
        self.assertIn("anchor_mismatch", done.out.decode())
        self.assertEqual(len(self.entries("anchor.mismatch")), 1)
        self.refused("usage", 2, "audit", "anchor", "--accept", "\u00a0\u200b", num_runs=1)
        self.anchor("--accept", "the test did it")
        settled = self.entries("anchor.mismatch")[-1]
        self.assertEqual((settled["outcome"], settled["reason"]),
                         ("success", "accepted: the test did it"))
        self.anchor()
        self.verifies()

    def test_an_anchor_is_an_intent_and_a_certificate(self):
        first = self.anchor()
        second = self.anchor()
        self.assertEqual(second["counter"], first["counter"] + 1)
        intent, success = self.entries("anchor.tpm")[-2:]
        self.assertEqual((intent["outcome"], success["outcome"]), ("pending", "success"))
        self.assertEqual(intent["anchor"]["counter"], second["counter"])
        self.assertNotIn("attest", intent["anchor"])
        self.assertEqual(success["anchor"]["counter"], second["counter"])
        exported = self.succeeds("agent-key", "export").out
        self.assertEqual(json.loads(exported)["anchor"],
                         {"index": int(INDEX, 16), "tpm_public": success["anchor"]["key"]})
        self.assertIn("where the log has it", self.succeeds("verify").out.decode())
        self.assertIn("where the log has it", self.succeeds("doctor").out.decode())

    def test_an_older_store_is_found(self):
        self.anchor()
        self.keep()
        self.restored("out.key", "--via", "token-ops")
        self.anchor()
        self.put_back()
        self.is_off("an older store was put back")

    def make_fit(self, copy, anchor, forget=True):
        """An old copy is put back, its settings forget the anchors, its agent.json has `anchor`."""
        self.put_back(copy)
        if forget:
            with contextlib.closing(sqlite3.connect(self.world.path("state") / "store.db")) as store:
                store.execute("DELETE FROM meta WHERE name LIKE 'anchor%'")
                store.commit()
        path = self.world.path("state") / "agent.json"
        agent = json.loads(path.read_text())
        agent.pop("anchor", None)
        if anchor:
            agent["anchor"] = anchor
        path.write_text(json.dumps(agent) + "\n")

    def is_told(self, words, *, copy_status, copy_words=None):
        """On its host, whatever was edited; of a copy what the copy shows, and all with --since."""
        for arguments in (("verify",), ("audit", "anchor"), ("doctor",)):
            done = self.world.run(*arguments)
            said = done.out.decode() + done.err.decode()
            self.assertIn(words, said)
            if arguments != ("doctor",):
                self.assertEqual(done.status, 4, str(done))
        shutil.rmtree(self.world.path("evidence"), ignore_errors=True)
        shutil.copytree(self.world.path("state"), self.world.path("evidence"))
        done = self.world.run("verify", "evidence", "--trust", "agent.key.json")
        self.assertEqual(done.status, copy_status, str(done))
        if copy_words:
            self.assertIn(copy_words, done.out.decode() + done.err.decode())
        done = self.world.run("verify", "evidence", "--trust", "agent.key.json", "--since", "later",
                              "--json")
        self.assertEqual(done.status, 4, str(done))
        self.assertRegex(done.out.decode(), "log_cut|since_mismatch")

    def test_an_older_store_that_was_made_to_fit_is_found(self):
        self.keep("before")
        first = self.anchor()["counter"]
        self.keep()
        newest = self.anchor()["counter"]
        self.world.write("later", self.succeeds("audit", "checkpoint").out)
        self.world.write("agent.key.json", self.succeeds("agent-key", "export").out)
        anchor = json.loads((self.world.path("state") / "agent.json").read_text())["anchor"]
        raised = {**anchor, "base": newest}
        self.make_fit("copy", raised)
        self.is_told(f"an older store was put back: the tpm's counter is at {newest}, and the newest "
                     f"anchor in the log is {first}", copy_status=4,
                     copy_words="agent.json was changed: it has the tpm's counter begin above")
        self.make_fit("copy", None, forget=False)
        self.is_told("agent.json does not name it", copy_status=4,
                     copy_words="agent.json names no counter")
        self.assertIn("agent.json names no counter", self.world.run("status").out.decode())
        self.make_fit("before", None)
        self.is_told("agent.json does not name it", copy_status=0)
        self.make_fit("before", raised)
        self.is_told("what the state has does not belong to it", copy_status=1,
                     copy_words="that the log does not tell of")
        # Another index with this log's public area, which root can define where the owner has no
        # password, and its agent.json.
        auth = (self.world.path("copy") / "anchor-tpm.auth").read_bytes().hex()
        public = self.world.tpm_tool("tpm2_nvreadpublic", INDEX)
        policy = next(line.split()[-1] for line in public.splitlines() if "policy" in line.lower())
        self.world.write("policy.bin", bytes.fromhex(policy))
        self.world.tpm_tool("tpm2_nvdefine", "-C", "o", "-s", "8", "-a",
                            "authread|authwrite|no_da|nt=counter", "-L", "policy.bin", "-p",
                            "hex:" + auth, "0x1804b46")
        self.make_fit("before", {**raised, "index": int(INDEX, 16) + 1})
        shutil.copy(self.world.path("copy") / "anchor-tpm.auth", self.world.path("state"))
        self.is_told("agent.json does not name it", copy_status=1,
                     copy_words="that the log does not tell of")
        self.world.tpm_tool("tpm2_nvincrement", "-C", "0x1804b46", "-P", "hex:" + auth, "0x1804b46")
        self.is_told("that has counted", copy_status=1)
        # One command goes on, and the log has it for good.
        self.anchor("--accept", "the test did it")
        self.assertEqual([entry["outcome"] for entry in self.entries("anchor.mismatch")],
                         ["failure", "success"])
        self.anchor()
        self.verifies()
        self.assertIn("an older store or an older TPM was once put back",
                      self.world.run("verify").out.decode())

    def test_another_tpm_that_was_made_to_fit_is_found(self):
        """The counter's auth value lies in the state, and any TPM counts; only one has the key."""
        counter = self.anchor()["counter"]
        auth = (self.world.path("state") / "anchor-tpm.auth").read_bytes().hex()
        public = self.world.tpm_tool("tpm2_nvreadpublic", INDEX)
        policy = next(line.split()[-1] for line in public.splitlines() if "policy" in line.lower())
        self.world.write("policy.bin", bytes.fromhex(policy))
        mine = self.world.tpm_process
        other = self.world.start_tpm("other")
        self.addCleanup(setattr, self.world, "tpm_process", mine)
        tool = lambda *words: self.world.tpm_tool(*words, tcti=other)
        tool("tpm2_nvdefine", "-C", "o", "-s", "8", "-a", "authread|authwrite|no_da|nt=counter", "-L",
             "policy.bin", "-p", "hex:" + auth, INDEX)
        for _ in range(counter):
            tool("tpm2_nvincrement", "-C", INDEX, "-P", "hex:" + auth, INDEX)
        self.verifies()
        done = self.world.run("verify", "--tpm", other)
        self.assertEqual(done.status, 1, str(done))
        self.assertIn("anchor_missing", done.out.decode())
        self.assertIn("has not the key that certified the log's counter", done.out.decode())
        self.assertRegex(self.world.run("doctor", "--tpm", other).out.decode(),
                         "bad +log +the attestation key was made by another TPM")

    def test_a_counter_that_cannot_be_read_is_told(self):
        self.anchor()
        self.keep()
        self.restored("out.key", "--via", "token-ops")
        self.anchor()
        self.keep("newer")
        self.put_back()

        def told(*arguments):
            done = self.world.run("verify", "--json", *arguments)
            self.assertEqual(done.status, 1, str(done))
            (item,) = [item for item in done.json()["items"] if item["what"] == "anchor"]
            self.assertEqual(item["outcome"], "findings")
            self.assertEqual([finding["fault"] for finding in item["findings"]],
                             ["anchor_missing"])
            self.assertIn("whether an older store was put back", item["not_checked"])

        told("--tpm", "none")
        (self.world.path("state") / "anchor-tpm.auth").unlink()
        told()
        self.put_back()
        self.assertEqual(self.world.run("verify").status, 4)
        self.put_back("newer")

    def test_an_older_tpm_is_found(self):
        self.anchor()
        self.stop_tpm()
        shutil.copytree(self.world.path("tpm.state"), self.world.path("other.state"))
        self.world.start_tpm("tpm")
        self.anchor()
        self.stop_tpm()
        shutil.rmtree(self.world.path("tpm.state"))
        shutil.copytree(self.world.path("other.state"), self.world.path("tpm.state"))
        self.world.start_tpm("tpm")
        self.is_off("the tpm's memory was put back")

    def test_a_power_cut_is_no_mismatch(self):
        before = self.anchor()["counter"]
        self.world.kill_tpm()  # without TPM2_Shutdown
        self.world.start_tpm("tpm")
        self.assertEqual(self.anchor()["counter"], before + 1)

    def test_a_killed_anchor_is_no_mismatch(self):
        self.anchor()
        begin = time.monotonic()
        self.anchor()
        longest = (time.monotonic() - begin) * 1.3
        generator = random.Random(4711)
        num_killed = 0
        for run in range(25):
            child = self.world.start("audit", "anchor")
            time.sleep(longest * (run + generator.random()) / 25)
            child.kill()
            child.communicate()
            num_killed += child.returncode == -9
            if run % 5 == 4:  # what a resource manager does for processes that died
                self.world.tpm_tool("tpm2_flushcontext", "-t")
                self.world.tpm_tool("tpm2_flushcontext", "-l")
                self.verifies()
        self.anchor()
        counters = [entry["anchor"]["counter"] for entry in self.entries("anchor.tpm")
                    if entry["outcome"] == "success"]
        self.assertEqual(counters, list(range(counters[0], counters[0] + len(counters))))
        self.assertEqual(self.entries("anchor.mismatch"), [])
        print("\n%d of 25 anchors killed; %d certificates" % (num_killed, len(counters)))

    def test_a_restore_leaves_it_to_the_next_command(self):
        bus = TpmBus(self.world.folder, str(self.world.path("tpm.sock")))
        self.addCleanup(bus.close)
        self.world.configure(bus.tcti)
        self.anchor()
        bus.forget()
        self.restored("out.key", "--via", "tpm")
        self.assertLessEqual(len(bus.commands()), 12, bus.commands())
        self.assertNotIn(NV_INCREMENT, bus.commands())
        bus.forget()
        self.succeeds("export", "app/key", "-o", "one.escrow")
        commands = bus.commands()
        self.assertEqual((commands.count(NV_INCREMENT), commands.count(NV_CERTIFY)), (1, 1))
        print("\nTPM commands of an export that anchors: %d: %s" % (
            len(commands), " ".join(commands)))
        bus.forget()
        self.succeeds("export", "app/key", "-o", "two.escrow")
        self.assertNotIn(NV_INCREMENT, bus.commands(), "within the hour")
        auth = (self.world.path("state") / "anchor-tpm.auth").read_bytes()
        self.assertNotIn(auth[:12], bus.everything())

    def test_a_removed_index_is_told(self):
        self.anchor()
        self.world.tpm_tool("tpm2_nvundefine", "-C", "o", INDEX)
        self.check_json(self.world.run("audit", "anchor", "--json"), "anchor_missing", 10)
        done = self.world.run("verify")
        self.assertEqual(done.status, 1, str(done))
        self.assertIn("no counter where the log's was made", done.out.decode())
        self.assertTrue(self.anchor("--new")["made"])
        self.check_json(self.world.run("audit", "anchor", "--new", "--json"), "already_exists", 2)

    def test_a_handle_of_another_is_left_alone(self):
        world = self.world
        if self.entries("anchor.tpm"):
            world.tpm_tool("tpm2_nvundefine", "-C", "o", INDEX)
        world.tpm_tool("tpm2_nvdefine", "-C", "o", "-s", "8", INDEX)
        arguments = ["--new"] if self.entries("anchor.tpm") else []
        self.assertTrue(self.anchor(*arguments)["made"])
        self.assertIn("0x1804B46", world.tpm_tool("tpm2_getcap", "handles-nv-index"))
        exported = json.loads(self.succeeds("agent-key", "export").out)
        self.assertEqual(exported["anchor"]["index"], int(INDEX, 16) + 1)

    def test_a_dead_tpm_blocks_nothing(self):
        self.anchor()
        self.restored("out.key", "--via", "token-ops")
        self.world.kill_tpm()
        done = self.succeeds("export", "app/key", "-o", "one.escrow")
        self.assertIn("could not be anchored", done.err.decode())
        self.assertLess(done.seconds, 15)
        self.check_json(self.world.run("audit", "anchor", "--json"), "tpm_unavailable", 5)
        self.world.start_tpm("tpm")
        self.anchor()


class AnchorsOfAnOwner(AcceptanceCase):
    paths = None

    def test_an_owners_password_is_told(self):
        self.world.must("init")
        if self.world.run("audit", "anchor").status == 0:
            self.world.tpm_tool("tpm2_nvundefine", "-C", "o", INDEX)
        self.world.tpm_tool("tpm2_changeauth", "-c", "owner", "owned")
        self.check_json(self.world.run("audit", "anchor", "--new", "--json"), "tpm_owner_auth", 5)
        self.succeeds("audit", "log")
