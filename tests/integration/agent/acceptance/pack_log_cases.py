"""The evidence pack of a log that was written on by somebody who holds its key: what no agent writes.

Everything that follows from the entries is made anew (the tree, its tiles, the checkpoint, the proofs,
the report but for its page), so that each verifier has the entry alone to find it by.
"""

import base64
import json
import os
import subprocess

from pack_cases import ED25519_PKCS8, NOBODY, Pack, PackCase, note

ENTRIES, CHECKPOINTS = "entries/000000000000.jsonl", "checkpoints/000000000000.jsonl"
SUMMARIES = "summaries/000000000000.jsonl"
KEY = {"name": "app/key", "version": 1}


class PackLogs(PackCase):  # one test: its methods read the packs of one world
    def inclusion(self, leaves, index):
        """The hashes of an inclusion proof, the leaf's sibling first (RFC 6962, 2.1.1)."""
        if len(leaves) == 1:
            return []
        split = 1 << (len(leaves) - 1).bit_length() - 1
        left, right = leaves[:split], leaves[split:]
        if index < split:
            return [*self.inclusion(left, index), self.root(right)]
        return [*self.inclusion(right, index - split), self.root(left)]

    def root(self, leaves):
        tree = self.program.Tree()
        for leaf in leaves:
            tree.append(leaf)
        return tree.root()

    def written_on(self, *events, change=None):
        """The pack with these entries more: each what it has beside the last one's members."""
        program, pack = self.program, Pack(self.world.path("pack.tar"))
        members = pack.members
        lines = members[ENTRIES].decode().splitlines()
        origin, _, signatures = members["checkpoint"].decode().partition("\n")
        text, _ = program.split_note(members["checkpoint"])
        last = {**json.loads(lines[-1]), "prev_checkpoint": program.b64u(program.sha256(text))}
        for members_of_its_own in events:
            event = {**last, "source_seq": len(lines), "id": program.b64u(os.urandom(16)),
                     "reason": None, **members_of_its_own}
            event = {member: event[member] for member in program.MEMBERS
                     if event.get(member) is not None}
            lines.append(program.canonical(event))
        if change:
            lines[-1] = change(lines[-1])
        leaves = [program.leaf_hash(line.encode()) for line in lines]
        size, root = len(leaves), self.root(leaves)
        self.assertLess(size, 256)  # one tile, one file of entries

        _, key_name, blob = signatures.split("\n\n")[1].split("\n")[0].split(" ")
        checkpoint = note(f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n", key_name,
                          base64.b64decode(blob)[:4], self.seed, self.world.folder)
        members[ENTRIES] = "".join(line + "\n" for line in lines).encode()
        members[CHECKPOINTS] += program.line_of(
            {"size": size, "note": checkpoint.decode()}).encode()
        members["checkpoint"] = checkpoint
        pack.members = members = {
            f"tile/0/000.p/{size}" if member.startswith("tile/") else member:
            b"".join(leaves) if member.startswith("tile/") else data
            for member, data in members.items()}
        for member in [member for member in members if member.startswith("proofs/")]:
            head = members[member].decode().split("\n")[:3]
            index = int(head[2].partition(" ")[2])
            hashes = [base64.b64encode(digest).decode()
                      for digest in self.inclusion(leaves, index)]
            members[member] = "\n".join(head + hashes).encode() + b"\n\n" + checkpoint
        self.forge(pack, lambda status: status["checkpoint"].update(
            size=size, root=base64.b64encode(root).decode(), note=checkpoint.decode()))
        statement = members["MANIFEST.sig"].decode().split("\n")
        statement[2] = str(size)
        members["MANIFEST.sig"] = "\n".join(statement).encode()
        return pack

    def entries(self, *types):
        lines = Pack(self.world.path("pack.tar")).members[ENTRIES].decode().splitlines()
        return [event for event in map(json.loads, lines) if event["type"] in types]

    def both_of(self, *events, change=None):
        pack = self.written_on(*events, change=change)
        pack.sign(self.seed, self.world.folder)
        done = self.keyescrow(self.written(pack), "--trust", "trust.json")
        return done, json.loads(self.verify_py("lie.tar", "--trust", "trust.json").stdout)

    def finds(self, fault, text, pack):
        """Both verifiers find it: keyescrow by the fault's name, verify.py by what it says."""
        pack.sign(self.seed, self.world.folder)
        done = self.keyescrow(self.written(pack), "--trust", "trust.json")
        script = self.verify_py("lie.tar", "--trust", "trust.json")
        self.assertEqual((done.status, script.returncode), (4, 4), str(done) + script.stdout)
        faults = {finding["fault"] for finding in done.json()["items"][0]["findings"]}
        self.assertTrue(fault is None or fault in faults, str(done))
        self.assertTrue(any(text in bad["what"] for bad in json.loads(script.stdout)["bad"]),
                        script.stdout)

    def found(self, fault, text, *events, change=None):
        self.finds(fault, text, self.written_on(*events, change=change))

    def told(self, fault, text, *events):
        """As found, of what is a finding and no damage."""
        done, document = self.lied(self.written_on(*events))
        self.assertIn(fault, {finding["fault"] for finding in done.json()["items"][0]["findings"]},
                      str(done))
        self.assertTrue(any(text in finding for finding in document["findings"]), document)

    def with_policy(self, text, name="corp", serial=7):
        """The pack whose log sets this policy, by a signer whom the liar made."""
        program, folder, seed = self.program, self.world.folder, bytes(32)
        (folder / "lie.der").write_bytes(ED25519_PKCS8 + seed)
        public = subprocess.run(
            ["openssl", "pkey", "-inform", "DER", "-in", folder / "lie.der", "-pubout", "-outform",
             "DER"], check=True, capture_output=True).stdout[-32:]
        key_id = program.sha256(b"eve\n\1" + public)[:4]
        signers = f"1\neve+{key_id.hex()}+{base64.b64encode(bytes([1]) + public).decode()}\n"
        digest = program.sha256(text.encode())
        facts = {"schema": "keyescrow/pack-policy/1", "name": name, "serial": serial,
                 "sha256": program.b64u(digest)}
        pack = self.written_on({
            "type": "policy.changed",
            "policy": {"id": name, "serial": serial, "sha256": facts["sha256"]},
            "reason": "policy set, mode enforce, signers " +
                      program.b64u(program.sha256(signers.encode()))})
        facts["set"] = json.loads(pack.members[ENTRIES].splitlines()[-1])["time"]
        statement = f"keyescrow-policy/1\n{name}\n{serial}\n{base64.b64encode(digest).decode()}\n"
        pack.members.update({
            "policy/policy.json": (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode(),
            "policy/policy.toml": text.encode(), "policy/signers": signers.encode(),
            "policy/policy.toml.sig": note(statement, "eve", key_id, seed, folder)})
        self.forge(pack, lambda status: status.update(policy=name, drill_every_s=None))
        return pack

    def test_policies_of_another_name_serial_or_mode(self):
        head = '[policy]\nname = "corp"\nserial = 7\nmode = "enforce"\nsimulators = "allowed"\n'
        rule = '[[rule]]\nname = "all"\nmatch = "**"\n'
        nobody = 'require = ["recovery-key:nobody"]\n'
        self.lied(self.with_policy(head + rule))
        other = "policy/policy.toml is not that of policy/policy.json"
        for word, of_keyescrow, text, facts in (
                (other, other, head.replace("7", "3") + rule, {}),
                (other, other, head.replace("corp", "corq") + rule, {}),
                (other, "not a whole number", head.replace("7", str(1 << 53)) + rule,
                 {"serial": 1 << 53}),
                (other, "is not a name", head.replace("corp", "c\xf6rp") + rule,
                 {"name": "c\xf6rp"}),
                ("has a mode that is none", "unknown mode 'maybe'",
                 head.replace("enforce", "maybe") + rule + nobody, {}),
                ("has a mode that is none", "unknown mode 'maybe'",
                 head + rule + 'mode = "maybe"\n' + nobody, {})):
            with self.subTest(text=text):
                pack = self.with_policy(text, **facts)
                self.finds("pack_contents", word, pack)
                self.assertIn(of_keyescrow, str(self.keyescrow("lie.tar", "--trust", "trust.json")))
        # One for a newer keyescrow is held for its name and serial alone.
        newer = head + 'min_agent_version = "%s"\nnew = 1\n'
        for version in ("99", self.program.VERSION + "1", "4294967295.0"):
            done, document = self.lied(self.with_policy(newer % version + rule + nobody))
            for said in (str(done), " ".join(document["not_checked"])):
                self.assertIn("the paths against the policy: it asks for a newer keyescrow", said)
        self.finds("pack_contents", other, self.with_policy(
            newer.replace("corp", "corq") % "99" + rule))
        for version in ("0.0.9", self.program.VERSION):
            _, document = self.lied(self.with_policy(
                head + f'min_agent_version = "{version}"\n' + rule + nobody))
            self.assertTrue(any("requires the path 'recovery-key:nobody'" in line
                                for line in document["findings"]), document)

    def test_its_version_is_the_programs(self):
        status = json.loads(Pack(self.world.path("pack.tar")).members["status.json"])
        self.assertEqual(self.program.VERSION, status["keyescrow"])

    def test_a_log_that_goes_on(self):
        """The page of the report alone is another: what is found below, the entry shows."""
        done, document = self.lied(self.written_on({}, {"reason": "another"}))
        faults = [finding["fault"] for finding in done.json()["items"][0]["findings"]]
        self.assertEqual(sorted(faults), ["missing_p256", "missing_p256", "pack_contents"],
                         str(done))
        self.assertEqual(len(document["findings"]), 2, document)

    def test_an_entry_of_another_place(self):
        for change in ({"source": "keyescrow.log/other/AA"}, {"source_seq": 7},
                       {"prev_checkpoint": "A" * 43}, {"prev_checkpoint": None}):
            with self.subTest(**change):
                self.found("entry_chain", "was written for another place", change)

    def test_a_clock_that_went_back(self):
        self.told("clock_backward", "the host's clock went back",
                  {"time": "2020-01-01T00:00:00Z"})

    def test_lines_that_no_agent_writes(self):
        last = json.loads(Pack(self.world.path("pack.tar")).members[ENTRIES].splitlines()[-1])
        for change in (lambda line: line.replace('"v":1,', '"v":1, ', 1),
                       lambda line: line.replace('"v":1,', '"v":1,"more":1,', 1),
                       lambda line: line.replace('"v":1,', "", 1)[:-1] + ',"v":1}',
                       lambda line: line.replace('"root"', '"r\\u006fot"', 1),
                       lambda line: line.replace('"uid":0,"name":"root",', '"name":"root","uid":0,', 1),
                       lambda line: line.replace('"actor":{', '"actor":{"more":1,', 1)):
            with self.subTest(line=change(self.program.canonical(last))[:40]):
                self.found("entry_format", "is not of the form that an agent writes", {},
                           change=change)
        self.told("newer_format", "is of a newer format", {"v": 2})

    def test_imported_entries_count_once_and_for_nothing(self):
        imported = {"source": "stateless", "prev_checkpoint": None, "type": "drill.skipped",
                    "id": "A" * 22}
        self.found("entry_chain", "are one imported event", imported, imported)
        (token,) = [event for event in self.entries("factor.enrolled")
                    if event["paths"][0]["factors"][0]["kind"] == "pkcs11-rsa"]
        token["paths"][0]["factors"][0]["id"] = "blue"
        for change in ({"type": "factor.enrolled", "paths": token["paths"]},
                       {"type": "policy.changed", "reason": "trust added: " + NOBODY},
                       {"type": "policy.changed", "policy": {"id": "corp", "serial": 9,
                                                             "sha256": "A" * 43}},
                       {"type": "key.rotated", "outcome": "failure", "key": KEY},
                       {"type": "key.destroyed", "key": KEY}):
            with self.subTest(type=change["type"]):
                self.told("imported_event", "no run without state writes " + change["type"],
                          {**imported, **change})

    def test_what_the_lists_do_not_tell(self):
        token, *keys = self.entries("factor.enrolled")
        path = token["paths"][0]
        blue = {**path, "factors": [{**path["factors"][0], "id": "blue"}]}
        other = {**path, "factors": [{**path["factors"][0], "key_sha256": "A" * 43}]}
        (team,) = [key["paths"][0] for key in keys if key["paths"][0]["factors"][0]["id"] == "team"]
        mine = {**team, "factors": [{**team["factors"][0], "id": "mine"}, *team["factors"][1:]]}
        for fault, text, change in (
                ("token_unlogged", "the token blue was registered, and is not in the list",
                 {"type": "factor.enrolled", "paths": [blue]}),
                ("token_unlogged", "the token ops was registered with another key",
                 {"type": "factor.enrolled", "paths": [other]}),
                ("token_unlogged", "no entry registers the token ops",
                 {"type": "factor.removed", "paths": [path]}),
                ("pack_contents", "the recovery key mine was registered, and is not in the list",
                 {"type": "factor.enrolled", "paths": [mine]}),
                ("pack_contents", "no entry registers the recovery key team",
                 {"type": "factor.removed", "paths": [team]}),
                ("trust_unlogged", f"the agent {NOBODY} was trusted, and is not in the list",
                 {"type": "policy.changed", "reason": "trust added: " + NOBODY}),
                ("pack_contents", "verifications are not as the entries tell them",
                 {"type": "verify.passed", "reason": "the state"}),
                ("pack_contents", "numbers of drills are not those of the entries",
                 {"type": "drill.failed", "outcome": "failure", "key": KEY})):
            with self.subTest(text=text):
                self.found(fault, text, change)
        self.told("not_compliant", "a policy that was set later than the one in policy/",
                  {"type": "policy.changed",
                   "policy": {"id": "corp", "serial": 9, "sha256": "A" * 43}})
        # What failed set nothing.
        done, document = self.lied(self.written_on(
            {"type": "policy.changed", "outcome": "failure", "error": "policy_signature",
             "policy": {"id": "corp", "serial": 9, "sha256": "A" * 43}}))
        self.assertNotIn("set later", str(done) + str(document))

    def test_summaries_that_do_not_follow(self):
        """Of what an entry tells: a version or revision is missing, twice, or follows another."""
        first, *_ = self.entries("escrow.created")
        told = {name: first[name] for name in ("key", "envelope", "policy", "paths")}
        def stated(version, revision, previous="", name="app/key", event="escrow.rewrapped"):
            """An entry of another envelope, and the pack with its summary."""
            envelope = {**told["envelope"], "revision": revision, "sha256": "A" * 43}
            key = {"name": name, "version": version}
            pack = self.written_on({**told, "type": event, "key": key, "envelope": envelope})
            seq = len(pack.members[ENTRIES].splitlines()) - 1
            row = json.loads(pack.members[SUMMARIES].splitlines()[0])
            row.update(key=key, revision=revision, log_seq=seq, previous=previous,
                       envelope_sha256="A" * 43)
            pack.members[SUMMARIES] += self.program.line_of(row).encode()
            return pack
        for text, pack in (
                ("app/key version 1 revision 1", stated(1, 1)),
                ("it does not name the revision before it", stated(1, 2, "B" * 43)),
                ("app/key version 1 revision 3: what comes before", stated(1, 3, "B" * 43)),
                ("app/key version 3 revision 1: what comes before", stated(3, 1)),
                ("app/new version 2 revision 1: what comes before", stated(2, 1, name="app/new")),
                ("app/key version 2 revision 2: what comes before", stated(2, 2, "B" * 43))):
            with self.subTest(text=text):
                self.finds(None, text, pack)
        # What is in use: no version of a rotation that has not ended, or failed.
        rotated = {"type": "key.rotated", "key": {"name": "app/other", "version": 2}}
        for outcome in ("pending", "failure"):
            self.found("pack_contents", "inventory.json's escrowed keys are not those",
                       {**rotated, "outcome": outcome})

    def test_restores_that_nobody_asked_for(self):
        completed = {"type": "restore.completed", "key": KEY}
        self.found("release_without_request", "a restore that no entry asked for", completed)
        requested = {"type": "restore.requested", "outcome": "pending", "key": KEY}
        size = json.loads(Pack(self.world.path("pack.tar")).members[ENTRIES]
                          .splitlines()[-1])["source_seq"] + 1
        interrupted = {"type": "restore.released", "outcome": "pending", "key": KEY,
                       "reason": f"entry {size}: interrupted"}
        self.found("release_without_request", f"the restore of entry {size} was not open",
                   {}, interrupted)
        self.found("release_without_request", f"the restore of entry {size} was not open",
                   requested, interrupted, interrupted)
        for words, *events in (
                (f"entry {size}: the restore of app/key has no end", requested, requested),
                (f"entry {size}: an imported restore that no entry asked for",
                 {**completed, "source": "stateless", "prev_checkpoint": None})):
            _, document = self.both_of(*events)
            self.assertIn(words, document["findings"])
        # Another process, person, version or key does not tell the end.
        for change in ({"actor": {"uid": 7, "pid": 7}}, {"key": {**KEY, "version": 2}},
                       {"key": {**KEY, "name": "app/other"}}):
            with self.subTest(**change):
                self.found("release_without_request", "a restore that no entry asked for",
                           requested, {**completed, **change})

    def test_versions_that_ended_twice(self):
        rotated = {"type": "key.rotated", "key": KEY}
        pending = {**rotated, "outcome": "pending"}
        self.found("rotation_unlogged", "the rotation to app/key version 1 had ended",
                   pending, rotated, rotated)
        self.found("rotation_unlogged", "the rotation to app/key version 1 had ended",
                   {**rotated, "outcome": "failure", "error": "usage"}, rotated)
        (created,) = [event for event in self.entries("escrow.created") if event["key"] == KEY]
        destroyed = {"type": "key.destroyed", "key": KEY, "envelope": created["envelope"]}
        self.found("destroyed", "app/key version 1 was destroyed before", destroyed, destroyed)
        self.found("destroyed", "destroys app/key version 1, and the pack has its facts", destroyed)
        again = {name: created[name] for name in ("type", "key", "envelope", "policy", "paths")}
        self.found("pack_contents", "has no summary", again)

    def test_proofs_that_prove_nothing(self):
        proof = next(event for event in self.entries("drill.passed") if event.get("key") == KEY)
        proof = {name: proof[name] for name in
                 ("type", "key", "envelope", "paths", "drill", "outcome")}
        drill, envelope = proof["drill"], proof["envelope"]
        challenged = {**drill, "challenge": "A" * 43}
        del challenged["signature"]
        other = proof["drill"]["signature"]
        other = ("B" if other[0] == "A" else "A") + other[1:]
        for change in ({"outcome": "failure"}, {"key": {"name": "app/other", "version": 1}},
                       {"envelope": {**envelope, "revision": 2}},
                       {"envelope": {**envelope, "id": "A" * 22}},
                       {"paths": [{**proof["paths"][0], "id": "none"}]},
                       {"drill": {**drill, "signature": other}},
                       {"drill": {**drill, "root": "A" * 43}},
                       {"drill": {**drill, "time": "2020-01-01T00:00:00Z"}},
                       {"drill": {**drill, "size": drill["size"] - 1}},
                       {"drill": {**challenged, "signature": drill["signature"]}},
                       {"time": "2020-01-01T00:00:00Z"}):  # before it was signed
            with self.subTest(**change):
                self.found("drill_proof", "proves no path", {**proof, **change})
        done, document = self.both_of({
            **proof, "source": "stateless", "prev_checkpoint": None,
            "drill": {**drill, "size": 0, "root": self.program.b64u(self.program.sha256(b""))}})
        self.assertTrue(any("proves no path" in line for line in document["findings"]), document)
        self.assertIn("imported_event", str(done))
        # Of an envelope that the pack does not have, it says nothing.
        self.found("pack_contents", "numbers of drills",
                   {**proof, "envelope": {**envelope, "sha256": "A" * 43}})

    def test_certificates_of_the_counter(self):
        proof = self.entries("anchor.tpm")[-1]
        anchored = {name: proof[name] for name in ("type", "outcome", "anchor", "prev_checkpoint")}
        anchor = proof["anchor"]
        def with_byte(name, at):
            data = bytearray(base64.urlsafe_b64decode(anchor[name] + "=" * (-len(anchor[name]) % 4)))
            data[at] ^= 1
            return self.program.b64u(bytes(data))
        place = "it is not about this log's counter at that checkpoint"
        signature = "its signature is not the attestation key's"
        for text, change in (
                ("the counter went from 2 to 2", {}),
                (place, {"anchor": {**anchor, "counter": 3}}),
                (place, {"anchor": {**anchor, "attest": with_byte("attest", -1)}}),
                ("it is not about a counter", {"anchor": {**anchor,
                                                          "attest": with_byte("attest", 0)}}),
                (signature, {"anchor": {**anchor, "attest": with_byte("attest", -60)}}),
                (signature, {"anchor": {**anchor, "signature": with_byte("signature", 5)}}),
                ("its signature is none", {"anchor": {**anchor,
                                                      "signature": anchor["signature"][:-2]}})):
            with self.subTest(text=text, change=list(change)):
                fault = "entry_format" if text == "its signature is none" else "anchor"
                self.found(fault, text, {**anchored, **change})
        del anchored["prev_checkpoint"]
        self.found("anchor", place, anchored)
        for outcome, counter, text in (("failure", 9, None), ("success", 7, "from 7 to 2")):
            mismatch = {"type": "anchor.mismatch", "outcome": outcome, "anchor": {
                name: counter if name == "counter" else anchor[name]
                for name in ("counter", "index", "key")}}
            if text is None:
                self.told("anchor_mismatch", "the counter was not where the log had it", mismatch)
            else:
                self.found("anchor", text, mismatch, {**anchored, "prev_checkpoint":
                                                      proof["prev_checkpoint"]})
        # One that this log's own counter did not sign says nothing, and is said to.
        done, document = self.both_of({**anchored, "anchor": {**anchor, "index": 25185094}})
        self.assertIn("a key that is not among those", str(done))
        self.assertIn("a key that is not among those", " ".join(document["not_checked"]))

    def test_checkpoints(self):
        def changed(name, change):
            def edit(pack):
                pack.edit(name, change)
            return edit
        def signed(size, root=None, origin=None, **options):
            """Another checkpoint in the last one's place."""
            def edit(pack):
                program, lines = self.program, pack.members["checkpoint"].decode().split("\n")
                lines[0], lines[1] = origin or lines[0], str(size or lines[1])
                lines[2] = root or lines[2]
                _, name, blob = lines[4].split(" ")
                made = note("\n".join(lines[:3]) + "\n", options.get("name", name),
                            base64.b64decode(blob)[:4], options.get("seed", self.seed),
                            self.world.folder)
                pack.members["checkpoint"] = made
                rows = pack.members[CHECKPOINTS].decode().splitlines()
                rows[-1] = program.line_of({"size": int(lines[1]), "note": made.decode()}).rstrip()
                pack.members[CHECKPOINTS] = "".join(row + "\n" for row in rows).encode()
            return edit
        def size(pack):
            lines = pack.members["MANIFEST.sig"].decode().split("\n")
            lines[2] = str(int(lines[2]) + 1)
            pack.members["MANIFEST.sig"] = "\n".join(lines).encode()
        def without_last(data):
            return data[:data[:-1].rindex(b"\n") + 1]
        beyond = json.loads(Pack(self.world.path("pack.tar")).members[CHECKPOINTS]
                            .splitlines()[-1])["size"] + 2
        for fault, text, edit in (
                ("uncovered", "entries stand behind the newest checkpoint",
                 changed(CHECKPOINTS, without_last)),
                ("pack_contents", "checkpoint is not the newest of checkpoints/",
                 changed("checkpoint", lambda data: data.replace(b"\n\n", b"\nmore\n\n", 1))),
                (None, f"the checkpoint at {beyond} is of no such many entries", signed(beyond)),
                ("pack_contents", "MANIFEST.sig says", size),
                ("root", "is not that of the entries", signed(None, root="A" * 43 + "=")),
                ("checkpoint_format", "is not that of the entries",
                 signed(None, origin="keyescrow.log/other/AA")),
                ("signature", "is not signed by the log's key", signed(None, name="other"))):
            with self.subTest(text=text):
                pack = self.written_on({})
                edit(pack)
                self.finds(fault, text, pack)

    def test_a_checkpoint_that_was_kept_of_another_log(self):
        pack = Pack(self.world.path("pack.tar"))
        origin, size, _, _, line = pack.members["checkpoint"].decode().split("\n")[:5]
        _, name, blob = line.split(" ")
        for at, text in ((size, "are not those of your checkpoint"),
                         ("7", "are not those of your checkpoint"),
                         (str(int(size) + 1), "the log is shorter than the checkpoint that you")):
            with self.subTest(size=at):
                self.world.write("kept", note(
                    f"{origin}\n{at}\n{'A' * 43}=\n", name, base64.b64decode(blob)[:4], self.seed,
                    self.world.folder))
                arguments = ("--trust", "trust.json", "--since", "kept")
                _, document = self.both("pack.tar", 4, *arguments)
                self.assertTrue(any(text in bad["what"] for bad in document["bad"]), document)
        # One that the log did not sign is none to compare with.
        self.world.write("kept", note(
            f"{origin}\n7\n{'A' * 43}=\n", "other", base64.b64decode(blob)[:4], self.seed,
            self.world.folder))
        self.assertIn("your checkpoint is not signed by this log", self.verify_py(
            "pack.tar", "--trust", "trust.json", "--since", "kept").stdout)
        self.assertEqual(self.keyescrow(
            "pack.tar", "--trust", "trust.json", "--since", "kept").status, 4)
