#!/usr/bin/env python3
"""Checks an evidence pack of keyescrow with Python's standard library and the openssl command.

  verify.py [PACK.tar | FOLDER] --trust AGENT-KEY.json [--since CHECKPOINT] [--json]

PACK is the archive or the folder it was unpacked to; without it, the folder that this file is in.
--trust takes what `keyescrow agent-key export` wrote on the host: get it by another way than the
pack. --agent THUMBPRINT does instead where only the thumbprint is known. --since takes a checkpoint
that you kept from before. --all-signatures checks the signature of every checkpoint, not of the newest
200 alone, and of every proof of a path even where there are more than 1000, not of each path's newest.
--challenge takes what `audit sample` wrote: all that it drew must have been drilled under it; with
--expected and --answers, the tokens' answers must be those that the auditor kept.

Exit status, as of `keyescrow verify PACK`: 0 the pack is whole, authentic, and the host complies;
1 it is whole, and there are findings (nobody vouched for its key, or the host does not comply);
2 usage; 4 it was changed, is not whole, or is not signed by the key you trust; 8 a file that you
named is not there.

It checks less than `keyescrow verify PACK` in this: report.html is not made anew; of an entry's
values, and of the words of policy.toml beside its name, serial, modes and what the rules named above
ask, it does not check the form; and the older signatures, without --all-signatures.
"""

import argparse
import base64
import datetime
import functools
import hashlib
import itertools
import json
import pathlib
import re
import subprocess
import sys
import tempfile

try:
    import tomllib
except ImportError:  # before Python 3.11
    tomllib = None

VERSION = "0.1.0"  # of the keyescrow that this program is part of
NEWEST_SIGNATURES = 200
EVERY_DRILL = 1000  # up to as many proofs of paths, each signature is checked
NOTE_BYTES, NOTE_LINES = 65536, 100
MAX_MEMBER = 1 << 30  # bytes of one that is read whole
MAX_LINE = 64 + 2 + 100 + 1  # bytes of MANIFEST, of one member each
MAX_CHALLENGE, MAX_DRAWN, MAX_ANSWERS = 3 << 20, 30000, 256  # bytes, rows, rows
ED25519_SPKI = bytes.fromhex("302a300506032b6570032100")
ESCROWED = ("escrow.created", "escrow.rewrapped")
IMPORTABLE = ("restore.requested", "restore.completed", "restore.failed", "drill.passed",
              "drill.failed", "drill.skipped")  # what runs without state write
ENDED = ("restore.completed", "restore.failed", "restore.denied")
CLOCK_TOLERANCE_S = 60
# TPMT_PUBLIC of an attestation key up to its point (agent/audit/FORMAT.md, "Anchors").
ATTESTATION_AREA = bytes.fromhex("0023000b00050472000000100018000b00030010")
P256_SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")


class Bad(Exception):
    """What was read is not what it should be."""


class Usage(Exception):
    """What the auditor gave does not fit."""


def b64u(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_b64u(text):
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if b64u(data) != text:
        raise Bad("base64url that is not canonical")
    return data


def from_b64(text):
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise Bad("base64 that is not canonical")
    return data


def sha256(data):
    return hashlib.sha256(data).digest()


def object_of(pairs):
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Bad("an object with two members of one name")
    return members


def no_fraction(text):
    raise Bad("a number that is not whole: %s" % text)


def number_of_json(text):
    number = int(text) if len(text) <= 20 else 1 << 64
    if not -1 << 63 <= number < 1 << 64 or text == "-0":
        raise Bad("a number of another form, or of more than 64 bits: %s" % text[:24])
    return number


def nests_deeper(value, levels):
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return bool(items) and (levels == 0 or any(nests_deeper(item, levels - 1) for item in items))


def parse_json(text):
    """JSON in which nothing means one thing to one reader and another to the next."""
    if isinstance(text, bytes):
        text = text.decode()
    try:
        value = json.loads(text, object_pairs_hook=object_of, parse_int=number_of_json,
                           parse_float=no_fraction, parse_constant=no_fraction)
        if text.count("[") + text.count("{") >= 64 and nests_deeper(value, 63):
            raise Bad("JSON that nests too deep")
    except RecursionError as error:
        raise Bad("JSON that nests too deep") from error
    if re.search(r"\\u[dD][89a-fA-F]", text):
        line_of(value).encode()  # fails where half a character stands alone
    return value


def plural(number, one, many=None):
    """"1 tile", "1,204 tiles"."""
    return "{:,} {}".format(number, one if number == 1 else many or one + "s")


def whole(*numbers):
    """The numbers; True is none here, which Python takes for 1."""
    if any(type(number) is not int or number < 0 for number in numbers):
        raise Bad("a member that is no number")
    return numbers if len(numbers) > 1 else numbers[0]


# ---- signed notes (C2SP signed-note)

# White space (Unicode's White_Space), controls and `+`.
NOT_IN_NAMES = re.compile(
    "[\0-\x20+\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")


def is_note_name(name):
    return name != "" and not NOT_IN_NAMES.search(name)


class Key:
    """One verification key: `name+hex8(id)+base64(alg || key)`."""

    def __init__(self, vkey):
        try:
            self.name, key_id, encoded = vkey.split("+", 2)
            raw = from_b64(encoded)
        except ValueError as error:
            raise Bad("not a verification key: %r" % vkey) from error
        if not is_note_name(self.name) or not raw:
            raise Bad("not a verification key: %r" % vkey)
        self.algorithm, self.key = raw[0], raw[1:]
        if self.algorithm == 1 and len(self.key) == 32:
            self.id = sha256(self.name.encode() + b"\n" + raw)[:4]
            self.spki = ED25519_SPKI + self.key
        elif self.algorithm == 2 and len(self.key) == 91:
            self.id = sha256(self.key)[:4]
            self.spki = self.key
        else:
            raise Bad("a key of an unknown algorithm")
        if key_id != self.id.hex():
            raise Bad("the key's id is not that of the key")

    def verifies(self, text, signature):
        return openssl_verifies(self.algorithm, self.spki, text, signature)


def openssl_verifies(algorithm, spki, text, signature):
    with tempfile.TemporaryDirectory() as folder:
        at = pathlib.Path(folder)
        pem = base64.b64encode(spki).decode()
        (at / "key.pem").write_text("-----BEGIN PUBLIC KEY-----\n%s\n-----END PUBLIC KEY-----\n"
                                    % "\n".join(pem[i:i + 64] for i in range(0, len(pem), 64)))
        (at / "text").write_bytes(text)
        (at / "sig").write_bytes(signature)
        if algorithm == 1:
            command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", at / "key.pem",
                       "-rawin", "-in", at / "text", "-sigfile", at / "sig"]
        else:
            command = ["openssl", "dgst", "-sha256", "-verify", at / "key.pem", "-signature",
                       at / "sig", at / "text"]
        return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              check=False).returncode == 0


def drill_verifies(key, statement, signature):
    return openssl_verifies(1, ED25519_SPKI + from_b64u(key), statement.encode(),
                            from_b64u(signature))


def split_note(data):
    """The signed text, and (name, id, signature) of each line: agent/audit/FORMAT.md, "Notes"."""
    if len(data) > NOTE_BYTES:
        raise Bad("the note is too long")
    try:
        head, blank, tail = data.decode().rpartition("\n\n")
    except UnicodeDecodeError as error:
        raise Bad("the note has characters that a note may not have") from error
    if re.search("[\0-\x09\x0b-\x1f]", head + tail):
        raise Bad("the note has characters that a note may not have")
    if not blank or not tail.endswith("\n"):
        raise Bad("not a signed note")
    lines = []
    for line in tail[:-1].split("\n"):
        match = re.fullmatch("— ([^ ]+) ([A-Za-z0-9+/]+=*)", line)
        raw = from_b64(match.group(2)) if match and is_note_name(match.group(1)) else b""
        if len(raw) < 5 or len(lines) == NOTE_LINES:
            raise Bad("a signature line that is none")
        lines.append((match.group(1), raw[:4], raw[4:]))
    return (head + "\n").encode(), lines


def signers(data, keys):
    """The text of a note, and which of `keys` signed it. A known key's line must verify."""
    text, lines = split_note(data)
    good = []
    for key in keys:
        for name, key_id, signature in lines:
            if name == key.name and key_id == key.id:
                if not key.verifies(text, signature):
                    raise Bad("a signature of a known key does not verify")
                good.append(key)
    return text, good


def parse_checkpoint(text):
    lines = text.decode().split("\n")
    if len(lines) < 4 or not re.fullmatch("0|[1-9][0-9]*", lines[1]):
        raise Bad("not a checkpoint")
    return lines[0], int(lines[1]), from_b64(lines[2])


# ---- the tree (RFC 6962)

def leaf_hash(entry):
    return sha256(b"\0" + entry)


def node_hash(left, right):
    return sha256(b"\1" + left + right)


class Tree:
    """The right edge: roots of the maximal perfect subtrees; and the tiles as they fill."""

    def __init__(self):
        self.size, self.edge, self.levels, self.full = 0, [], [], []

    def append(self, leaf):
        self.size += 1
        self.add_to_tile(0, leaf)
        self.edge.append((0, leaf))
        while len(self.edge) > 1 and self.edge[-1][0] == self.edge[-2][0]:
            (height, right), (_, left) = self.edge.pop(), self.edge.pop()
            self.edge.append((height + 1, node_hash(left, right)))
            if (height + 1) % 8 == 0:
                self.add_to_tile((height + 1) // 8, self.edge[-1][1])

    def add_to_tile(self, level, digest):
        if level == len(self.levels):
            self.levels.append([0, bytearray()])
        tile = self.levels[level]
        tile[1] += digest
        if len(tile[1]) == 8192:
            self.full.append((level, tile[0], bytes(tile[1])))
            self.levels[level] = [tile[0] + 1, bytearray()]

    def root(self):
        if not self.edge:
            return sha256(b"")
        digest = self.edge[-1][1]
        for _, left in reversed(self.edge[:-1]):
            digest = node_hash(left, digest)
        return digest


def tile_path(level, index, width):
    groups = ["%03d" % (index % 1000)]
    while index >= 1000:
        index //= 1000
        groups.insert(0, "x%03d" % (index % 1000))
    return "tile/%d/%s%s" % (level, "/".join(groups), "" if width == 256 else ".p/%d" % width)


def proven_root(leaf, index, size, hashes):
    """The root that an inclusion proof leads to (RFC 9162, 2.1.3.2)."""
    if index >= size:
        raise Bad("a proof of an entry that is not there")
    fn, sn, digest = index, size - 1, leaf
    for sibling in hashes:
        if sn == 0:
            raise Bad("a proof that is too long")
        if fn & 1 or fn == sn:
            digest = node_hash(sibling, digest)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            digest = node_hash(digest, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise Bad("a proof that is too short")
    return digest


# ---- trusted agents

TRUST_ADDED = re.compile("trust added: (.{43})(?:; limits (.{43}))?")
TRUST_REMOVED = re.compile("trust removed: (.{43})")


def pattern_matches(pattern, name):
    """`*` within a segment, `**` across segments; a pass over the name for each character."""
    reached = [True] + [False] * len(name)
    for part in re.findall(r"\*\*|.", pattern, re.DOTALL):
        if part in ("*", "**"):
            for i, character in enumerate(name):
                if reached[i] and (part == "**" or character != "/"):
                    reached[i + 1] = True
        else:
            reached = [False] + [reached[i] and name[i] == part for i in range(len(name))]
    return reached[-1]


def limits_of(agent):
    lines = ["hosts", *agent["hosts"], "keys", *agent["keys"], ""]
    return b64u(sha256("\n".join(lines).encode()))


class Trust:
    """Which agents counted when: what the log tells, and the limits that the pack states."""

    def __init__(self, verifier):
        self.verifier, self.changes, self.agents = verifier, {}, {}

    def add(self, seq, reason):
        for added, form in ((True, TRUST_ADDED), (False, TRUST_REMOVED)):
            match = form.match(reason)
            if match:
                limits = match.group(2) or "" if added else ""
                self.changes.setdefault(match.group(1), []).append((seq, added, limits))

    def compare(self, agents):
        """The list of agents against the log."""
        for agent in agents:
            need_texts("keys/trusted-agents.json", agent, "thumbprint", "host", "added")
            seconds(agent["added"])
            time_or_none(agent["removed"])
            for kind in ("hosts", "keys"):
                need_texts("keys/trusted-agents.json", dict(enumerate(agent[kind])),
                           *range(len(agent[kind])))
        need_one_each("keys/trusted-agents.json", agents, "thumbprint")
        self.agents = {agent["thumbprint"]: agent for agent in agents}
        for name, agent in self.agents.items():
            changes = self.changes.get(name)
            if not changes:
                self.bad("no entry adds the trusted agent %s" % name)
                continue
            if changes[-1][1] != (agent["removed"] is None):
                self.bad("the agent %s is trusted in one of list and log" % name)
            added = [limits for _, is_added, limits in changes if is_added]
            if added and added[-1] not in ("", limits_of(agent)):
                self.bad("the agent %s was trusted for other hosts or keys" % name)
        for name in self.changes:
            if name not in self.agents:
                self.bad("the agent %s was trusted, and is not in the list" % name)

    def bad(self, text):
        self.verifier.fail("trust", "keys/trusted-agents.json: " + text)

    def allows(self, item, seq):
        name = item["agent"]
        changes, agent = self.changes.get(name, []), self.agents.get(name)
        before = [change for change in changes if change[0] < seq]
        if name in self.verifier.agents:
            return True
        if not agent or not before or not before[-1][1]:
            return False
        if before[-1][2] != limits_of(agent) and before[-1] != changes[-1]:
            return True  # limits of before it was added again: their hash alone is told
        return all(not agent[kind] or any(pattern_matches(p, value) for p in agent[kind])
                   for kind, value in (("hosts", item["host"]), ("keys", item["key"]["name"])))


# ---- recovery keys

class RecoveryKeys:
    """The list in keys/, against what the log and the summaries tell."""

    def __init__(self, verifier):
        self.verifier, self.logged, self.factors, self.opened = verifier, {}, {}, {}
        self.enrolled, self.failed = {}, {}  # by name, with the entry; failures but those opened since
        self.size = 0

    def add(self, seq, factor, enrolled, own):
        self.enrolled[factor["id"]] = seq, factor.get("key_sha256")
        self.logged[factor["id"]] = (enrolled, factor.get("key_sha256"))
        if enrolled:
            self.factors[factor["id"]] = own

    def drill(self, seq, event):
        factor = ((event.get("paths") or [{}])[0].get("factors") or [{}])[0]
        if factor.get("kind") != "recovery-key":
            return
        if event["type"] == "drill.failed":
            if event.get("error") in TELLING:
                self.failed[factor.get("id", "")] = (
                    seq, seconds(event["time"]), event["error"], factor.get("key_sha256"))
        else:
            self.failed.pop(factor.get("id", ""), None)
            self.opened.setdefault(factor.get("id", ""), []).append(
                (factor.get("key_sha256"), seconds(event["time"])))

    def compare(self, rows):
        verifier, what = self.verifier, "keys/recovery-keys.json"
        newest = [verifier.summaries[seq] for seq in verifier.newest_in_use().values()]
        for row in rows:
            need_texts(what, row, "name", "thumbprint", "record_sha256", "added", "drill_key")
            for text in (row["record_sha256"], row["drill_key"]):
                hash_of(text)
            seconds(row["added"])
            time_or_none(row["retired"])
            check_factors(what, row["factors"])
            need_texts(what, dict(enumerate(row["covers"])), *range(len(row["covers"])))
        need_one_each(what, rows)
        self.size = len(rows)
        for row in rows:
            name = row["name"]
            enrolled, digest = self.logged.get(name, (None, None))
            if enrolled is not (row["retired"] is None):
                self.bad("no entry %s the recovery key %s" % (
                    "registers" if row["retired"] is None else "retires", name))
            elif digest not in (None, row["record_sha256"]):
                self.bad("the recovery key %s was registered with another record" % name)
            if not same_factors(self.factors.get(name, []), row["factors"]):
                self.bad("%s was registered with other factors" % name)
            if row["covers"] != sorted(item["key"]["name"] for item in newest if any(
                    (path.get("recovery_key"), path.get("recovery_thumbprint")) ==
                    (name, row["thumbprint"]) for path in item["paths"])):
                self.bad("the keys that go to %s are not those of the summaries" % name)
            opened = time_or_none(row["opened"])
            if opened is not None and not any(
                    digest == row["record_sha256"] and abs(time - opened) <= CLOCK_TOLERANCE_S
                    for digest, time in self.opened.get(name, [])):
                self.bad("no entry tells that %s was opened at %s" % (name, row["opened"]))
        for name in sorted(set(self.logged) - {row["name"] for row in rows}):
            self.bad("the recovery key %s was registered, and is not in the list" % name)

    def bad(self, text):
        self.verifier.fail("recovery keys", "keys/recovery-keys.json: " + text)


# ---- the paths against the policy

TOKENS = ("pkcs11-rsa", "pkcs11-ecdh")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def check_factors(what, factors):
    """As many as an envelope's path has, each of the form."""
    if not isinstance(factors, list) or not 1 <= len(factors) <= 4:
        raise Bad("%s has factors that are none" % what)
    for factor in factors:
        need_texts(what, factor, "kind",
                   *(name for name in ("id", "key_sha256", "kdf") if name in factor))
        if "key_sha256" in factor:
            hash_of(factor["key_sha256"])


def hash_of(text):
    digest = from_b64u(text)
    if len(digest) != 32:
        raise Bad("a hash that is none")
    return digest


def same_factors(told, stated):
    """What an entry tells of factors is what is stated, as far as it has them."""
    def same(one, other):
        return ((one["kind"], one.get("id", "")) == (other["kind"], other.get("id", "")) and
                all(one[name] == other.get(name) for name in ("key_sha256", "kdf")
                    if name in one))

    return not told or len(told) == len(stated) and all(map(same, told, stated))


def same_paths(entry, stated):
    """The summary's paths are the entry's, as far as it has them: long ones leave details out."""
    def same(told, path):
        return told["id"] == path["id"] and same_factors(told.get("factors", []), path["factors"])

    return not entry or len(entry) == len(stated) and all(map(same, entry, stated))


def cost_of(text):
    """(passes, KiB, lanes) of argon2id, (iterations,) of pbkdf2."""
    number = "(0|[1-9][0-9]{0,9})"
    for form in ("argon2id t=%s m=%s p=%s" % (number, number, number),
                 "pbkdf2-sha512 iter=%s" % number):
        match = re.fullmatch(form, text)
        if match and all(int(group) < 1 << 32 for group in match.groups()):
            return tuple(map(int, match.groups()))
    raise Bad("a kdf of an unknown kind")


def threshold_of(factor):
    """k of shares, whose id is `kofn`."""
    match = re.fullmatch("0*([1-9][0-9]*)of%d" % len(factor["members"]), factor["id"])
    if not match or not int(match.group(1)) <= len(factor["members"]) <= 16:
        raise Bad("shares of an unknown form")
    return int(match.group(1))


def tokens_of(path):
    """The path's tokens in their order: the row, the name, the hash of the key."""
    for factor in path["factors"]:
        kind = factor["kind"]
        rows = [factor] if kind in TOKENS else factor["members"] if kind == "shares" else []
        for row in rows:
            name = "id" if row is factor else "name"
            need_texts("a line of summaries", row, "kind", name, "key_sha256",
                       *(other for other in ("token",) if other in row))
            if row["kind"] not in TOKENS:
                raise Bad("a token of an unknown kind")
            yield row, row[name], hash_of(row["key_sha256"])


def check_told(item):
    """The summary tells all of its paths that the policy and the report ask."""
    for path in item["paths"]:
        list(tokens_of(path))
        for factor in path["factors"]:
            if factor["kind"] == "password":
                cost_of(factor["kdf"])
            elif factor["kind"] == "shares":
                threshold_of(factor)
            elif factor["kind"] == "tpm2":
                need_texts("a line of summaries", factor, "id", "key_sha256")
            elif factor["kind"] not in TOKENS:
                raise Bad("a factor of an unknown kind")


# ---- what losses and thefts do (envelope/recoverability.h)

TOKEN, PASSWORD, TPM = range(3)  # factors are named and ordered so


def name_of(factor):
    return ("token:", "password", "tpm:")[factor[0]] + factor[1] if factor != (TPM, "") else "tpm"


@functools.lru_cache(maxsize=None)
def minimal_sets(rules):
    """Of paths (factors that are all needed, officers, how many of them): the minimal losses that
    leave none, the minimal thefts that open one, as names; of more than 16 factors their number."""
    factors = sorted(set().union(*(needed.union(members) for needed, members, _ in rules)))
    if len(factors) > 16:
        return len(factors)
    bits = {factor: 1 << at for at, factor in enumerate(factors)}
    masks = [(sum(bits[factor] for factor in needed), [bits[member] for member in members], least)
             for needed, members, least in rules]

    def lost(gone):
        return not any(not needed & gone and sum(not m & gone for m in members) >= least
                       for needed, members, least in masks)

    def opened(had):
        return any(needed & had == needed and sum(m & had != 0 for m in members) >= least
                   for needed, members, least in masks)

    def minimal(holds):
        table, found = bytearray(1 << len(factors)), []
        for number in range(len(table)):
            part = any(number & bit and table[number ^ bit] for bit in bits.values())
            table[number] = part or holds(number)
            if table[number] and not part:
                found.append([at for at in range(len(factors)) if number >> at & 1])
        return [[name_of(factors[at]) for at in places]
                for places in sorted(found, key=lambda places: (len(places), places))]

    return minimal(lost), minimal(opened)


def rules_of_terms(paths, host):
    """Of paths as a policy writes them."""
    rules = []
    for path in paths:
        needed, members, least = set(), (), 0
        for kind, name in path:
            if kind.endswith("of"):
                least, members = int(kind[:-2]), members + tuple((TOKEN, one) for one in name)
            else:
                needed.add((TPM, name or host) if kind == "tpm" else
                           (TOKEN, name) if kind == "token" else (PASSWORD, ""))
        rules.append((frozenset(needed), members, least))
    return tuple(rules)


def rules_of_summary(item):
    """Of a summary's paths: what has one name, or one key, is one factor."""
    nodes = {}  # (rank, name, key): the number of its factor

    def node(*facts):
        return nodes.setdefault(facts, len(nodes)) and facts or facts

    drafts = []
    for path in item["paths"]:
        needed, members, least = [], [], 0
        for factor in path["factors"]:
            if factor["kind"] == "shares":
                least = threshold_of(factor)
                for member in factor["members"]:
                    node(TOKEN, member.get("token") or member["name"], member["key_sha256"])
                    members.append(node(TOKEN, member["name"], member["key_sha256"]))
            elif factor["kind"] == "tpm2":
                needed.append(node(TPM, factor["id"], factor["key_sha256"]))
            elif factor["kind"] == "password":
                needed.append(node(PASSWORD, "", ""))
            else:
                needed.append(node(TOKEN, factor["id"], factor["key_sha256"]))
        drafts.append((needed, members, least))
    for one, other in itertools.combinations(nodes, 2):
        if one[0] == other[0] and (one[1] == other[1] or one[2] == other[2] != ""):
            old, new = nodes[other], nodes[one]
            for facts in nodes:
                nodes[facts] = new if nodes[facts] == old else nodes[facts]
    first = {}
    for facts in sorted(nodes):
        first.setdefault(nodes[facts], facts[:2])
    return tuple((frozenset(first[nodes[facts]] for facts in needed),
                  tuple(first[nodes[facts]] for facts in members), least)
                 for needed, members, least in drafts)


def survival_of(item):
    """What the key survives and what opens it, in one line, as `status` says it."""
    sets = minimal_sets(rules_of_summary(item))
    if isinstance(sets, int):
        return "too many factors to say what it survives"
    losses, thefts = sets
    if len(losses[0]) > 1:
        words = "none one two three four five six".split()
        number = len(losses[0]) - 1
        text = "survives the loss of any %s" % (words[number] if number < 7 else number)
    else:
        single = [names[0] for names in losses if len(names) == 1]
        text = "lost with " + " or ".join(single[:4])
        text += " or %d more" % (len(single) - 4) if len(single) > 4 else ""
    text += "; opened by " + " or ".join(" + ".join(names) for names in thefts[:2])
    return text + (" or in %d more ways" % (len(thefts) - 2) if len(thefts) > 2 else "")


def asks_for_newer(policy):
    """The policy is for a newer keyescrow, which may read it in another way."""
    def numbers(version):
        return [*map(int, version.split(".")), 0, 0][:3]

    asked = policy["policy"].get("min_agent_version")
    return (isinstance(asked, str) and len(asked) <= 512 and
            re.fullmatch("[0-9]+([.][0-9]+){0,2}", asked) is not None and
            max(numbers(asked)) < 1 << 32 and numbers(asked) > numbers(VERSION))


class Policy:
    """The rules of policy.toml that summaries tell enough for: require, forbid, portable, survive,
    withstand, kdf, fips and pins. What is a finding, and under which name, is as in keyescrow."""

    def __init__(self, policy, set_at, now):
        self.mode, self.rules = policy["policy"]["mode"], policy["rule"]
        for mode in (self.mode, *(rule.get("mode", self.mode) for rule in self.rules)):
            if mode not in ("report", "enforce"):
                raise Bad("policy/policy.toml has a mode that is none")
        self.exceptions = policy.get("exception", [])
        self.pins = {(bytes.fromhex(pin["spki_sha256"]) if len(pin["spki_sha256"]) == 64 else
                      from_b64u(pin["spki_sha256"])): name
                     for name, pin in policy.get("tokens", {}).items()}
        self.recovery_pins = {name: pin["public_thumbprint"]
                              for name, pin in policy.get("recovery_keys", {}).items()}
        self.set_at, self.now = set_at, now

    def token(self, name, keys):
        """The policy's name for a token's key; another key under a pinned name has none."""
        pin = self.pins.get(keys[name])
        return pin or (name + "!" if name in self.pins.values() else name)

    def factor(self, factor, host, keys):
        kind = factor["kind"]
        if kind == "password":
            return ("password", "")
        if kind == "tpm2":
            return ("tpm", "" if factor["id"] == host else factor["id"])
        if kind == "shares":
            names = (self.token(member["name"], keys) for member in factor["members"])
            return ("%dof" % threshold_of(factor), tuple(sorted(names)))
        return ("token", self.token(factor["id"], keys))

    def paths(self, item):
        """Of each path: how a policy writes it, what opens it in the end, its password's cost."""
        for path in item["paths"]:
            keys = {}
            for _, name, digest in tokens_of(path):
                keys.setdefault(name, digest)
            own = tuple(sorted(self.factor(factor, item["host"], keys)
                               for factor in path["factors"]))
            shown = own
            if "recovery_key" in path:
                name = path["recovery_key"]
                other = self.recovery_pins.get(name) not in (None, path["recovery_thumbprint"])
                shown = (("recovery-key", name + "!" * other),)
            costs = [cost_of(factor["kdf"]) for factor in path["factors"]
                     if factor["kind"] == "password"]
            yield shown, own, costs[-1] if costs else None

    @staticmethod
    def expression(text, host):
        factors = []
        for part in re.sub("[ \t]+", "", text).split("&"):
            shares = re.fullmatch("([0-9]+of)[(](.*)[)]", part)
            if shares:
                names = sorted(name.partition(":")[2] for name in shares.group(2).split(","))
                factors.append((shares.group(1), tuple(names)))
            else:
                kind, _, name = part.partition(":")
                factors.append((kind, "" if (kind, name) == ("tpm", host) else name))
        return tuple(sorted(factors))

    def applies(self, rule, item, created):
        """The rule is for this key and enforced; neither its grace nor an exception holds."""
        name, host, grace = item["key"]["name"], item["host"], rule.get("grace", "0s")
        until = max(self.set_at, created) + int(grace[:-1]) * SECONDS[grace[-1]]
        exempted = any(
            other["rule"] == rule["name"] and self.now < int(other["until"].timestamp()) and
            other.get("host", host) == host and pattern_matches(other["key"], name)
            for other in self.exceptions)
        return (rule.get("mode", self.mode) == "enforce" and not exempted and
                self.now >= until and pattern_matches(rule["match"], name))

    def pinned(self, item):
        """Tokens and recovery keys that are others than the policy pins under their names."""
        if self.mode != "enforce":
            return
        for path in item["paths"]:
            for _, name, digest in tokens_of(path):
                if any(pin == name and key != digest for key, pin in self.pins.items()):
                    yield "token_not_pinned", (
                        "the path %s uses a token %s that is not the one that the policy pins" %
                        (path["id"], name))
            name = path.get("recovery_key")
            if self.recovery_pins.get(name) not in (None, path.get("recovery_thumbprint")):
                yield "recovery_key_not_pinned", (
                    "the path %s goes to a recovery key %s that is not the one that the policy "
                    "pins" % (path["id"], name))

    @staticmethod
    def losses(rule, what, paths, host):
        survive, withstand = rule.get("survive", 0), rule.get("withstand", 0)
        if not survive and not withstand:
            return
        sets = minimal_sets(rules_of_terms([own for _, own, _ in paths], host))
        if isinstance(sets, int):
            yield "not_analysed", what + (
                "cannot be held against the key: the paths have %d different factors; what a key "
                "survives is computed for up to 16" % sets)
            return
        for name, asked, asks, does, found in (
                ("survives_too_little", survive, "survives any %s loss%s",
                 "the loss of %s makes it unrecoverable", sets[0][0]),
                ("withstands_too_little", withstand, "withstands any %s theft%s",
                 "that of %s opens it", sets[1][0])):
            if asked >= len(found):
                many = "es" if "loss" in asks else "s"
                yield name, "%sasks that the key %s, and %s" % (
                    what, asks % (("one", "") if asked == 1 else (asked, many)),
                    does % " and ".join(found))

    def violations(self, item, created):
        """What is critical of the key: the finding's name and text."""
        check_told(item)
        paths, host = list(self.paths(item)), item["host"]
        expressions = [shown for shown, _, _ in paths]
        opened_by = [own for _, own, _ in paths]
        yield from dict.fromkeys(self.pinned(item))
        for rule in self.rules:
            if not self.applies(rule, item, created):
                continue
            what = 'the rule "%s" ' % rule["name"]
            for text in rule.get("require", []):
                if self.expression(text, host) not in expressions:
                    yield "required_path_missing", what + "requires the path '%s'" % text
            for text in rule.get("forbid", []):
                factors = self.expression(text, host)
                if factors in expressions or factors in opened_by:
                    yield ("password_only_path" if factors == (("password", ""),) else
                           "forbidden_path", what + "forbids a path of '%s' alone" % text)
            if rule.get("portable") and all(
                    any(kind == "tpm" for kind, _ in own) for _, own, _ in paths):
                yield "no_portable_path", what + "asks for a portable path"
            yield from self.losses(rule, what, paths, host)
            for cost in [cost for _, _, cost in paths if cost]:
                if rule.get("fips") and len(cost) == 3:
                    yield "not_fips", what + "asks for FIPS-approvable algorithms"
                names = (("argon2id_min_passes", "argon2id_min_memory_kib") if len(cost) == 3 else
                         ("pbkdf2_min_iterations",))
                if any(number < rule.get("kdf", {}).get(name, 0)
                       for number, name in zip(cost, names)):
                    yield "kdf_too_weak", what + "asks for a stronger kdf"


# ---- what status.json says that entries must tell

# Errors that lie in the path, and not in who tried it.
TELLING = """envelope_unwrap envelope_mac factor_bad token_data_invalid token_key_not_found
    token_key_usage tpm_pcr_mismatch tpm_policy_signature tpm_srk_untrusted
    tpm_wrong_device""".split()


class Claims:
    def __init__(self, verifier):
        self.verifier, self.proofs, self.steps, self.told = verifier, {}, {}, set()
        self.num_releases, self.keys = 0, {}

    def read(self, status):
        need_one_each("status.json", status["keys"])
        for key in status["keys"]:
            if key["escrowed"] is not True:
                continue
            for path in key["paths"]:
                current = path["condition"] == "proven"
                if path["proven"] is not None:
                    self.proofs[key["name"], path["id"]] = (
                        key["version"], key["revision"] if current else None,
                        seconds(path["proven"]))
                elif current:
                    raise Bad("status.json has a proven path without a time")
            if status["form"] == FORM:  # another one may tell conditions otherwise
                self.keys[key["name"]] = {
                    "version": key["version"], "own": key["agent"] == status["agent"],
                    "made": None, "newest": None, "paths": {path["id"]: {
                        **path, "told": False, "failed": None, "opened": (-1, None)}
                        for path in key["paths"]}}
        self.num_releases = len(status["releases"])
        for item in status["releases"]:
            seq, end = item["seq"], item["outcome_seq"]
            steps = [] if end == seq else [(seq, "requested")]
            if end is not None:
                steps.append((end, item["outcome"]))
            for at, step in steps:
                if whole(at) in self.steps:
                    raise Bad("status.json has an entry in two releases")
                self.steps[at] = (item["key"], item["version"], step)
            if (end is None) != (item["outcome"] == "pending"):
                raise Bad("status.json has a release whose end is not its outcome")

    def notice_condition(self, seq, event):
        """Which paths of the versions in status.json are broken, as the entries tell it."""
        kind, succeeds = event["type"], event["outcome"] == "success"
        opens = kind in ("drill.passed", "restore.completed")
        edits = kind in ("factor.enrolled", "factor.removed")
        matters = kind in ESCROWED or opens or edits if succeeds else event.get("error")
        key = self.keys.get(event.get("key", {}).get("name"))
        if (not matters or key is None or key["version"] != event["key"].get("version", 0) or
                event["source"] == "stateless"):
            return
        if kind in ESCROWED and succeeds:
            key["newest"] = event.get("envelope", {}).get("sha256")
            if kind == "escrow.created" and not event.get("reason", "").startswith("imported; "):
                key["made"] = seq
            return
        if not succeeds:
            for path in key["paths"].values():
                path["told"] = path["told"] or path["failure"] == event["error"]
        path = key["paths"].get((event.get("paths") or [{}])[0].get("id"))
        if path is None:
            return
        if (kind in ("restore.failed", "drill.failed", "escrow.failed") and
                event["outcome"] == "failure" and event.get("error") in TELLING and
                event.get("envelope", {"sha256": ""})["sha256"] == key["newest"]):
            path["failed"] = seq, seconds(event["time"]), event["error"]
        if succeeds:
            path["failed"] = None
            if opens:
                path["opened"] = seq, seconds(event["time"])

    def compare_condition(self, name, key, path):
        begin, _, recovery_key = path["factors"].partition("recovery-key:")
        if begin:
            recovery_key = ""
        keys = self.verifier.recovery_keys
        failed_key = keys.failed.get(recovery_key)
        if path["condition"] == "broken":
            if not path["told"] and (not failed_key or failed_key[2] != path["failure"]):
                self.verifier.fail("status", "%s: no entry tells that the path %s is broken, as "
                                   "status.json says" % (name, path["id"]))
            return

        def is_after(failed):
            seq, time = path["opened"]
            return failed[0] > seq and (time is None or failed[1] >= time)

        failed, broken_by = path["failed"], None
        since = time_or_none(path["covered_since"])
        # That another host's TPM is not here was never taken for a failure.
        if (failed and (path["opened"][0] >= 0 or not failed[2].startswith("tpm_")) and
                is_after(failed) and (since is None or since <= failed[1])):
            broken_by = failed[0]
        enrolled = keys.enrolled.get(recovery_key)
        # What was escrowed since the record was registered has a copy of that record.
        if (failed_key and enrolled and key["own"] and key["made"] is not None and
                keys.logged[recovery_key][0] and enrolled[0] < key["made"] and
                failed_key[3] is not None and failed_key[3] == enrolled[1] and
                is_after(failed_key)):
            broken_by = failed_key[0]
        if broken_by is not None:
            self.verifier.fail("status", "%s: entry %d tells that the path %s is broken, and "
                               "status.json does not say so" % (name, broken_by, path["id"]))

    def notice(self, seq, event, proof_holds):
        self.notice_condition(seq, event)
        key = event.get("key", {"name": "", "version": 0})
        if (event["type"] in ("drill.passed", "restore.completed") and
                event["outcome"] == "success" and proof_holds and event.get("paths")):
            at = (key["name"], event["paths"][0]["id"])
            version, revision, time = self.proofs.get(at, (None, None, 0))
            if (version == key["version"] and
                    revision in (None, event.get("envelope", {}).get("revision")) and
                    abs(seconds(event["time"]) - time) <= CLOCK_TOLERANCE_S):
                self.told.add(at)
        interrupted = event["type"] == "restore.released" and event["outcome"] == "pending"
        if interrupted or event["type"] in ("restore.requested",) + ENDED:
            step = (key["name"], key["version"],
                    "interrupted" if interrupted else event["type"].partition(".")[2])
            if self.steps.pop(seq, None) != step:
                self.verifier.fail("status", "status.json does not tell of entry %d, a restore" %
                                   seq)

    def finish(self):
        for name, key in sorted(self.keys.items()):
            for path in key["paths"].values():
                self.compare_condition(name, key, path)
        for at in sorted(set(self.proofs) - self.told):
            self.verifier.fail("status", "%s: no entry proves the path %s, as status.json says" %
                               at)
        for seq in sorted(self.steps):
            self.verifier.fail("status", "status.json tells of a restore at entry %d that is none" %
                               seq)


# ---- the report, made anew

FORM = 4  # of the report that this program makes anew
CONTROLS = "a71d34169f2f40e62a97d1e0dd71a586fc5be7b345bfadc186e738673a571c62"  # SHA-256 of controls.md
QUERY = ("every key that agent.toml declares, and the newest version of every key in the store")
AGES = (("up to 7 days", 7), ("8 to 30 days", 30), ("31 to 60 days", 60), ("61 to 90 days", 90),
        ("91 to 180 days", 180), ("over 180 days", None), ("never proven", None))
COLUMNS = """record name value key version path factors state proven time actor reason ticket error
    remedy seq outcome_seq""".split()
UNSEEN = re.compile(
    "[\0-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]")


def cell(text):
    text = UNSEEN.sub(lambda match: "U+%04X" % ord(match.group()), text)
    text = "'" + text if text[:1] in ("=", "+", "-", "@") else text
    return '"%s"' % text.replace('"', '""') if re.search('[,"\n\r]', text) else text


def actor_text(event):
    if "actor" not in event:
        return "unknown"
    actor = event["actor"]
    text = actor.get("name") or "uid %d" % actor["uid"]
    if actor.get("login_uid", actor["uid"]) != actor["uid"]:
        text += " (login uid %d)" % actor["login_uid"]
    return text


class Report:
    """What status.json must say by the log and the summaries, and what it makes of that."""

    def __init__(self, verifier):
        self.verifier, self.releases, self.verifications, self.drills = verifier, [], [], {}
        self.open = {}

    def read(self, seq, event):
        kind, _, end = event["type"].partition(".")
        if kind == "drill":
            self.drills[end] = self.drills.get(end, 0) + 1
        if event["type"] in ("verify.passed", "verify.failed"):
            self.verifications.append({
                "seq": seq, "time": event["time"], "passed": end == "passed",
                "actor": actor_text(event), "what": event.get("reason"),
                "error": event.get("error")})
        interrupted = event["type"] == "restore.released" and event["outcome"] == "pending"
        if not interrupted and event["type"] not in ("restore.requested",) + ENDED:
            return
        key = event.get("key", {})
        imported = event["source"] == "stateless"
        who = (imported, event["boot_id"], event.get("actor", {}).get("pid", 0),
               key.get("name", ""), key.get("version", 0))
        if interrupted:
            asked = re.match("entry ([0-9]+):", event.get("reason", ""))
            who, end = next((other for other, release in self.open.items()
                             if asked and release["seq"] == int(asked[1])), None), "interrupted"
        release = self.open.pop(who, None) if end != "requested" else None
        if release is None:
            release = {"seq": seq, "outcome_seq": None, "time": event["time"],
                       "key": key.get("name", ""), "version": key.get("version", 0),
                       "path": (event.get("paths") or [{}])[0].get("id") or None,
                       "actor": actor_text(event), "host": event["host"],
                       "reason": event.get("reason"), "ticket": event.get("ticket"),
                       "outcome": "pending", "error": None, "imported": imported}
            self.releases.append(release)
        if end == "requested":
            self.open[who] = release
        else:
            release.update(outcome_seq=seq, outcome=end)
            if not interrupted:
                release["error"] = event.get("error")

    def bad(self, text):
        self.verifier.fail("report", text)

    def compare(self, pack):
        status = pack.json("status.json")
        if whole(status["form"]) != FORM:
            why = "the report is of form %d, and this program makes form %d" % (
                status["form"], FORM)
            self.verifier.findings.append(why)
            self.verifier.not_checked.append(
                "report.csv, controls.md and what status.json says of keys and releases: " + why)
            return
        controls = pack.read("controls.md")
        if sha256(controls).hex() != CONTROLS or controls.decode().partition("|---|\n")[2] != "".join(
                "| %s |\n" % " | ".join(item[name] for name in (
                    "standard", "id", "asks", "evidence")) for item in status["controls"]):
            self.bad("controls.md is not the control map of a report of this form")
        if (json.dumps(self.remade(status), indent=2, ensure_ascii=False) + "\n").encode() != (
                pack.read("status.json")):
            self.bad("status.json is not what its own facts give: figures, ages or form are others")
        if self.csv(status).encode() != pack.read("report.csv"):
            self.bad("report.csv is not the report that status.json gives")
        stated, agent = status["checkpoint"], pack.json("keys/agent-key.json")
        if (status["host"], status["agent"], seconds(status["evaluated"]), stated["origin"],
                stated["size"], stated["root"]) != (
                agent["host"], agent["thumbprint"], self.verifier.time, self.verifier.origin,
                self.verifier.size, base64.b64encode(self.verifier.root).decode()):
            self.bad("status.json's host, agent, time or checkpoint are not those of the pack")
        for name, told in (("releases", self.releases), ("verifications", self.verifications)):
            if json.dumps(status[name]) != json.dumps(told):
                self.bad("status.json's %s are not as the entries tell them" % name)
        if [status["figures"]["drills_" + end] for end in ("passed", "failed")] != [
                self.drills.get(end, 0) for end in ("passed", "failed")]:
            self.bad("status.json's numbers of drills are not those of the entries")
        inventory = pack.json("inventory.json")
        if line_of(inventory["foreign"]) != line_of(status["foreign"]):
            self.bad("status.json's foreign escrows are not those of inventory.json")
        sources = {item["name"]: item["source"] for item in inventory["declared"]}
        for key in status["keys"]:
            if key["source"] != sources.get(key["name"]):
                self.bad("%s: status.json's source is not that of inventory.json" % key["name"])
        newest = self.verifier.newest_in_use()
        self.compare_cover(status, {
            (row["name"], row["thumbprint"]): row["opened"]
            for row in pack.rows("keys/recovery-keys.json")}, newest)
        for key in status["keys"]:
            if key["escrowed"] and key["name"] in newest and not self.same_key(
                    key, self.verifier.summaries[newest[key["name"]]]):
                self.bad("%s: what status.json says of it is not what its summary says" %
                         key["name"])
        self.compare_policy(status, pack)
        self.verifier.checked.append(
            "status.json, report.csv and controls.md, made anew and compared byte by byte; %s with "
            "reason, person and outcome by the entries; keys and their paths by the summaries" %
            plural(len(self.releases), "release"))

    def compare_cover(self, status, opened, newest):
        """A path is covered by its recovery key, which was opened then, and by no other."""
        for key in status["keys"]:
            item = self.verifier.summaries.get(newest.get(key["name"]))
            for at, path in enumerate(key["paths"] if key["escrowed"] and item else ()):
                since, own = path["covered_since"], item["paths"][at:at + 1] or [{}]
                good = path["condition"] != "covered" or since is not None
                if since is not None:
                    seconds(since)
                    good = path["proven"] is None and since == opened.get(
                        (own[0].get("recovery_key"), own[0].get("recovery_thumbprint")))
                if not good:
                    self.bad("%s: no recovery key was opened that covers the path %s as "
                             "status.json says" % (key["name"], path["id"]))

    @staticmethod
    def same_key(key, item):
        if any(key[name] != item[name] for name in (
                "host", "agent", "envelope_id", "policy", "created", "updated")) or (
                key["note"] != (item["note"] or None)):
            return False
        try:
            check_told(item)
        except (Bad, KeyError, ValueError, TypeError, AttributeError):
            return True  # hold_to_policy says so
        stated = [(path["id"], path["factors"], path["portable"]) for path in key["paths"]]
        return key.get("survival") == survival_of(item) and stated == [
            (path["id"], Report.expression(path),
             all(factor["kind"] != "tpm2" for factor in path["factors"]))
            for path in item["paths"]]

    @staticmethod
    def expression(path):
        if "recovery_key" in path:
            return "recovery-key:" + path["recovery_key"]
        words = []
        for factor in path["factors"]:
            if factor["kind"] == "shares":
                words.append("%d of (%s)" % (threshold_of(factor), ", ".join(
                    "token:" + member["name"] for member in factor["members"])))
            elif factor["kind"] == "password":
                words.append("password")
            else:
                words.append(("tpm:" if factor["kind"] == "tpm2" else "token:") + factor["id"])
        return " & ".join(words)

    def compare_policy(self, status, pack):
        if tomllib is None:
            return
        policy = tomllib.loads(pack.read("policy/policy.toml").decode())
        if asks_for_newer(policy):
            return
        periods = [int(rule["drill_every"][:-1]) * SECONDS[rule["drill_every"][-1]]
                   for rule in policy["rule"] if "drill_every" in rule]
        period = {"shortest": min(periods), "longest": max(periods)} if periods else None
        if (status["policy"], status["drill_every_s"]) != (policy["policy"]["name"], period):
            self.bad("status.json's policy, or how often it asks for drills, is not that of policy/")
        for key in status["keys"]:
            for path in key["paths"] if key["escrowed"] else ():
                self.compare_age(key, path, policy)

    def compare_age(self, key, path, policy):
        """What counts as proven or covered was opened within the time that the policy asks."""
        name, now = key["name"], self.verifier.time
        opened = time_or_none(path.get({"proven": "proven", "covered": "covered_since"}.get(
            path["condition"])))
        exempted = {other["rule"] for other in policy.get("exception", [])
                    if now < int(other["until"].timestamp()) and
                    other.get("host", key["host"]) == key["host"] and
                    pattern_matches(other["key"], name)}
        periods = [int(rule["drill_every"][:-1]) * SECONDS[rule["drill_every"][-1]]
                   for rule in policy["rule"] if "drill_every" in rule and
                   pattern_matches(rule["match"], name) and rule["name"] not in exempted and
                   path["id"] in (rule.get("drill_paths") or [path["id"]])]
        if opened is not None and periods and now - opened > min(periods):
            self.bad("%s: the path %s was opened longer ago than the policy asks for, and "
                     "status.json calls it %s" % (name, path["id"], path["condition"]))

    @staticmethod
    def coverage(key):
        """Where the key stands: by its paths that need no TPM."""
        if not key["escrowed"]:
            return "not escrowed"
        portable = [path["condition"] for path in key["paths"] if path["portable"]]
        return next((name for name in ("proven", "covered") if name in portable), "escrowed")

    @staticmethod
    def figures(status):
        keys = status["keys"]
        escrowed = [key for key in keys if key["escrowed"]]
        paths = [path for key in escrowed for path in key["paths"]]
        by_coverage = [Report.coverage(key) for key in keys]

        def count(name, of, member, *values):
            return {"%s_%s" % (name, value): sum(item[member] == value for item in of)
                    for value in values}

        return {
            "keys": len(keys), "keys_declared": sum(key["declared"] for key in keys),
            "keys_escrowed": len(escrowed),
            "keys_declared_escrowed": sum(key["declared"] for key in escrowed),
            "keys_not_declared": sum(not key["declared"] for key in keys),
            "keys_proven": by_coverage.count("proven"),
            "keys_covered": by_coverage.count("covered"),
            "keys_not_proven": by_coverage.count("escrowed"),
            "keys_not_escrowed": by_coverage.count("not escrowed"),
            "key_versions": sum(whole(key["versions"]) for key in escrowed),
            **count("paths", paths, "condition", "proven", "covered", "stale", "unproven",
                    "broken"),
            **count("findings", status["findings"], "severity", "critical", "warning"),
            "releases": len(status["releases"]),
            **count("releases", status["releases"], "outcome", "completed", "failed", "denied",
                    "interrupted", "pending"),
            "verifications_passed": sum(item["passed"] for item in status["verifications"]),
            "verifications_failed": sum(not item["passed"] for item in status["verifications"]),
            **{name: whole(status["figures"][name]) for name in (
                "drills_passed", "drills_failed")},
            "foreign_escrows": len(status["foreign"]),
            "log_entries": whole(status["checkpoint"]["size"])}

    @staticmethod
    def ages(status):
        counts, now = [0] * len(AGES), seconds(status["evaluated"])
        for key in status["keys"]:
            for path in key["paths"] if key["escrowed"] else ():
                if path["condition"] == "covered":
                    continue
                at = len(AGES) - 1
                if path["proven"] is not None:
                    age = now - seconds(path["proven"])
                    at = next(i for i, (_, days) in enumerate(AGES)
                              if days is None or age <= days * 86400)
                counts[at] += 1
        return [{"age": label, "paths": count} for (label, _), count in zip(AGES, counts)]

    @staticmethod
    def remade(status):
        """The members in their order, no others, with figures and ages counted."""
        flags = "declared escrowed agent_trusted portable".split()
        numbers = "version revision versions size shortest longest".split()

        def pick(item, names, nullable=""):
            """Texts but for those above; of `nullable`, null is what \"\" is."""
            picked = {}
            for name in names.split():
                value = item[name]
                if name in nullable.split() and value in ("", None):
                    value = None
                elif type(value) is not (bool if name in flags else int if name in numbers else
                                         str):
                    raise Bad("status.json has a %s of another form" % name)
                picked[name] = value
            return picked

        def texts(item, name):
            if not isinstance(item[name], list):
                raise Bad("status.json has %s of another form" % name)
            need_texts("status.json", dict(enumerate(item[name])), *range(len(item[name])))
            return {name: item[name]}

        def pick_key(key):
            head = pick(key, "name declared source escrowed", "source")
            if not key["escrowed"]:
                return head
            if max(whole(key["version"], key["revision"], key["versions"])) >= 1 << 32:
                raise Bad("status.json has a key of another form")
            return {**head, **pick(
                key, "version revision versions host policy created updated agent agent_trusted "
                "envelope_id envelope_sha256 note" + " survival" * ("survival" in key), "note"),
                "paths": [pick(path, "id factors portable condition proven covered_since failure",
                               "proven covered_since failure") for path in key["paths"]]}

        def pick_foreign(item):
            seconds(item["found"])
            return {**pick(item, "place item kind volume opens_by survival", "volume"),
                    **texts(item, "caveats"), **pick(item, "sha256 found"),
                    "held": False, "proven": False}

        for name in ("findings", "keys", "foreign"):
            if not isinstance(status[name], list):
                raise Bad("status.json has %s of another form" % name)
        if any(finding["severity"] not in ("critical", "warning")
               for finding in status["findings"]):
            raise Bad("status.json has a finding of another form")
        return {
            "schema": "keyescrow/audit-report/1", "form": FORM,
            **pick(status, "host agent policy keyescrow"),
            "complies": all(item["severity"] != "critical" for item in status["findings"]),
            "evaluated": status["evaluated"], "query": QUERY,
            "drill_every_s": None if status["drill_every_s"] is None else pick(
                status["drill_every_s"], "shortest longest"),
            "checkpoint": pick(status["checkpoint"], "origin size root note"),
            "figures": Report.figures(status), "proof_ages": Report.ages(status),
            "findings": [pick(item, "rule key severity what remedy", "key")
                         for item in status["findings"]],
            "keys": [pick_key(key) for key in status["keys"]],
            "foreign": [pick_foreign(item) for item in status["foreign"]],
            "releases": status["releases"], "verifications": status["verifications"],
            **texts(status, "checked"), **texts(status, "not_checked"),
            "controls": [pick(item, "standard id asks evidence") for item in status["controls"]]}

    @staticmethod
    def csv(status):
        lines = [COLUMNS]

        def add(record, **cells):
            row = {"record": record, **cells}
            lines.append([cell(row.get(name) or "") for name in COLUMNS])

        checkpoint = status["checkpoint"]
        for name, value in (
                *((name, status[name]) for name in ("host", "agent", "policy", "evaluated")),
                ("complies", "true" if status["complies"] else "false"), ("query", status["query"]),
                ("checkpoint_origin", checkpoint["origin"]), ("checkpoint_root", checkpoint["root"])):
            add("fact", name=name, value=value)
        for name, value in status["figures"].items():
            add("figure", name=name, value=str(value))
        for key in status["keys"]:
            version = str(key["version"]) if key["escrowed"] else ""
            paths = key["paths"] if key["escrowed"] else []
            add("key", key=key["name"], version=version, state=Report.coverage(key),
                name="declared" if key["declared"] else "not declared",
                time=key.get("updated"), reason=key.get("note"))
            for path in paths:
                add("path", key=key["name"], version=version, path=path["id"],
                    factors=path["factors"], state=path["condition"], proven=path["proven"],
                    reason=path["covered_since"] and "its recovery key was opened at " +
                    path["covered_since"], error=path["failure"])
        for item in status["foreign"]:
            add("foreign", name=item["kind"], value=item["volume"], key=item["place"],
                path=item["item"], factors=item["opens_by"], state="not held, not proven",
                time=item["found"], reason=item["survival"])
        for item in status["findings"]:
            add("finding", name=item["rule"], key=item["key"], state=item["severity"],
                reason=item["what"], remedy=item["remedy"])
        for item in status["releases"]:
            end = item["outcome_seq"]
            add("release", value="imported" if item["imported"] else "", key=item["key"],
                version=str(item["version"]), path=item["path"],
                state=item["outcome"], time=item["time"], actor=item["actor"],
                reason=item["reason"], ticket=item["ticket"], error=item["error"],
                seq=str(item["seq"]), outcome_seq="" if end is None else str(end))
        for item in status["verifications"]:
            add("verification", state="passed" if item["passed"] else "failed", time=item["time"],
                actor=item["actor"], reason=item["what"], error=item["error"],
                seq=str(item["seq"]))
        for name in ("checked", "not_checked"):
            for text in status[name]:
                add(name, reason=text)
        return "".join(",".join(row) + "\r\n" for row in lines)


# ---- certificates of the log's counter in the TPM

def seconds(text):
    if not re.fullmatch("[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}Z", text):
        raise Bad("not a time: %r" % text)
    cycles = 0 if int(text[:4]) else 5  # datetime has no year 0; the year 2000 has its days
    text = ("2000" if cycles else text[:4]) + text[4:]
    moment = datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")
    return int(moment.replace(tzinfo=datetime.timezone.utc).timestamp()) - cycles * 146097 * 86400


def time_or_none(text):
    return None if text is None else seconds(text)


def sized(data):
    return len(data).to_bytes(2, "big") + data


def der_integer(data):
    data = data.lstrip(b"\0") or b"\0"
    data = b"\0" + data if data[0] & 0x80 else data
    return b"\2" + bytes([len(data)]) + data


def check_attestation_key(public):
    if public != sized(ATTESTATION_AREA + sized(public[24:56]) + sized(public[58:90])):
        raise Bad("the key is not a restricted key of a tpm")


def check_anchor(event, origin):
    """A certificate of the counter over the entry's prev_checkpoint; TPM 2.0 Part 2, 10.12."""
    anchor = event["anchor"]
    public, attest = from_b64u(anchor["key"]), from_b64u(anchor["attest"])
    signature = from_b64u(anchor["signature"])
    check_attestation_key(public)
    if len(signature) != 64:
        raise Bad("its signature is none")
    index = (anchor["index"].to_bytes(4, "big") + b"\0\x0b" + bytes.fromhex("22040014") +
             sized(sha256(b"keyescrow/anchor/1\0" + origin.encode())) + b"\0\x08")
    rest = bytes.fromhex("ff5443478014")
    if not attest.startswith(rest):
        raise Bad("it is not about a counter")
    at = len(rest)
    at += 2 + int.from_bytes(attest[at:at + 2], "big")  # the signer's name
    extra = sized(from_b64u(event["prev_checkpoint"]))
    end = (sized(b"\0\x0b" + sha256(index)) + b"\0\0" +
           sized(anchor["counter"].to_bytes(8, "big")))
    clock = 8 + 4 + 4 + 1 + 8
    if attest[at:at + len(extra)] != extra or attest[at + len(extra) + clock:] != end:
        raise Bad("it is not about this log's counter at that checkpoint")
    der = der_integer(signature[:32]) + der_integer(signature[32:])
    if not openssl_verifies(2, P256_SPKI + public[24:56] + public[58:90], attest,
                            b"\x30" + bytes([len(der)]) + der):
        raise Bad("its signature is not the attestation key's")


class Trail:
    """Anchors in the log's order, of one counter at a time."""

    def __init__(self, verifier, known):
        self.verifier, self.known = verifier, known
        self.counter, self.key, self.count = None, None, 0

    def add(self, seq, event):
        anchor, good = event["anchor"], event["outcome"] == "success"
        if self.key != (anchor["key"], anchor["index"]):
            self.key, self.counter = (anchor["key"], anchor["index"]), None
        if event["type"] == "anchor.mismatch":
            if good:
                self.counter = anchor["counter"]
            else:
                self.verifier.findings.append("entry %d: the counter was not where the log had it: "
                                              "%s" % (seq, event.get("reason", "")))
        if event["type"] != "anchor.tpm" or not good:
            return
        self.count += 1
        try:
            if self.known:
                check_anchor(event, self.verifier.origin)
            if self.counter is not None and anchor["counter"] != self.counter + 1:
                raise Bad("the counter went from %d to %d" % (self.counter, anchor["counter"]))
        except Bad as error:
            self.verifier.fail("entries", "entry %d: %s" % (seq, error))
        self.counter = anchor["counter"]


# ---- the pack's files

class Sample:
    """What an auditor drew (agent/report/FORMAT.md, "A sample"; agent/audit/FORMAT.md, "Challenges")."""

    def __init__(self, options):
        document = self.read(options.challenge, "keyescrow/challenge/1", self.check_challenge)
        self.nonce, self.created = document["challenge"], document["created"]
        self.origin, self.drawn = document.get("origin", ""), document.get("drawn", [])
        self.tokens = {b64u(sha256(from_b64u(token["spki"])))
                       for token in document.get("tokens", [])}
        self.expected = self.given = None
        self.proofs = {}
        if not self.drawn:
            raise Usage("the challenge draws no keys: there is nothing to look for")
        if options.expected:
            self.expected, self.given = map(self.answers, (options.expected, options.answers))
            if (self.expected[0] != self.nonce or set(self.expected[1]) != self.tokens):
                raise Usage("the expected answers do not belong to the challenge")

    @staticmethod
    def read(file, schema, check):
        """Strictly: the auditor's own file, and the answers, which come from the host."""
        try:
            if not pathlib.Path(file).is_file():
                raise Bad("it is no regular file")
            data = pathlib.Path(file).read_bytes()
            line = data.removesuffix(b"\n").decode("ascii")
            document = parse_json(line)
            # One line without spaces, escapes and control characters.
            if len(data) > MAX_CHALLENGE or "\\" in line or line != json.dumps(
                    document, separators=(",", ":"), ensure_ascii=False):
                raise Bad("it is not of the form")
            if document["schema"] != schema:
                raise Bad("it has another schema")
            check(document)
            return document
        except (Bad, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Usage("%s is no file of the schema %s: %s" % (
                ascii(file)[1:-1], schema, str(error) or type(error).__name__)) from error

    @staticmethod
    def members(item, needed, optional=()):
        if not isinstance(item, dict) or not set(needed) <= set(item) <= {*needed, *optional}:
            raise Bad("members are missing, or there are others")

    @staticmethod
    def texts(item, *names):
        for name in names:
            if name in item and not (isinstance(item[name], str) and item[name]):
                raise Bad("%s is no text" % name)

    @staticmethod
    def rows(document, name, most, least=1):
        if not isinstance(document[name], list) or not least <= len(document[name]) <= most:
            raise Bad("%s has too many rows or none" % name)
        return document[name]

    @classmethod
    def check_challenge(cls, document):
        cls.members(document, ("schema", "challenge", "created"), ("origin", "drawn", "tokens"))
        cls.texts(document, "challenge", "created", "origin")
        hash_of(document["challenge"])
        seconds(document["created"])
        for row in cls.rows(document, "drawn", MAX_DRAWN) if "drawn" in document else ():
            cls.members(row, ("key",), ("version", "path"))
            cls.texts(row, "key", "path")
            if "version" in row and not 1 <= whole(row["version"]) < 1 << 32:
                raise Bad("a drawn version is none")
        for row in cls.rows(document, "tokens", MAX_ANSWERS) if "tokens" in document else ():
            own = {"pkcs11-rsa": ("alg", "wrapped"), "pkcs11-ecdh": ("crv", "epk")}[row["type"]]
            cls.members(row, ("type", "token", "uri", "spki", *own))
            cls.texts(row, *row)
            for name in {"spki", own[1]}:
                from_b64u(row[name])

    @classmethod
    def check_answers(cls, document):
        cls.members(document, ("schema", "challenge", "answers"))
        hash_of(document["challenge"])
        keys = set()
        for row in cls.rows(document, "answers", MAX_ANSWERS, 0):
            cls.members(row, ("key_sha256", "answer"))
            hash_of(row["key_sha256"])
            hash_of(row["answer"])
            keys.add(row["key_sha256"])
        if len(keys) != len(document["answers"]):
            raise Bad("it has two answers of one token key")

    @classmethod
    def answers(cls, file):
        document = cls.read(file, "keyescrow/challenge-answers/1", cls.check_answers)
        return document["challenge"], {row["key_sha256"]: row["answer"]
                                       for row in document["answers"]}

    def notice(self, seq, item, path):
        """A proof under the challenge that holds."""
        version = (item["key"]["name"], item["key"]["version"], path)
        revisions = self.proofs.setdefault(version, {})
        revisions[item["revision"]] = max(revisions.get(item["revision"], 0), seq)

    def compare(self, verifier):
        newest, in_use = {}, verifier.newest_in_use()
        for item in verifier.summaries.values():
            version = (item["key"]["name"], item["key"]["version"])
            if newest.get(version, item)["revision"] <= item["revision"]:
                newest[version] = item
        proven = {}  # by version; None where one of its drawn paths does not hold
        for drawn in self.drawn:
            name, number = drawn["key"], drawn.get("version", 0)
            item = newest.get((name, number))
            if not number and name in in_use:
                item = verifier.summaries[in_use[name]]
            if item is None and (name, number) in proven:
                continue  # told once
            faults, num = self.faults_of(drawn, item, verifier.destroyed)
            verifier.findings += faults
            before = proven.setdefault((name, number), 0)
            proven[name, number] = None if faults or before is None else before + num
        whole_keys = [num for num in proven.values() if num is not None]
        verifier.checked.append(
            "the sample of %s: of %s drawn, %d opened by all their drawn paths (%d) under its "
            "challenge" % (self.created, plural(len(proven), "key"), len(whole_keys),
                           sum(whole_keys)))
        if not self.tokens:
            return
        tokens = plural(len(self.tokens), "token")
        if not self.expected:
            verifier.not_checked.append("the answers of %s to the challenge: give --expected and "
                                        "--answers" % tokens)
            return
        verifier.findings += self.wrong_answers()
        verifier.checked.append("the answers of %s to the challenge" % tokens)

    def faults_of(self, drawn, item, destroyed):
        if item is None:
            number = drawn.get("version", 0)
            which = drawn["key"] + (" version %d" % number if number else "")
            gone = destroyed.get((drawn["key"], number))
            if gone is not None:
                return ["%s was drawn, and entry %d destroys it" % (which, gone)], 0
            return ["%s was drawn, and the pack has no envelope of it" % which], 0
        version, only = (item["key"]["name"], item["key"]["version"]), drawn.get("path", "")
        paths = [path["id"] for path in item["paths"] if only in ("", path["id"])]
        if not paths:
            return ["%s version %d has no path %s, which was drawn" % (*version, only)], 0
        faults = []
        for path in paths:
            revisions = self.proofs.get((*version, path), {})
            which = "%s version %d, path %s, " % (*version, path)
            if not revisions:
                faults.append(which + "was not opened under the challenge")
            elif item["revision"] not in revisions:
                faults.append(which + "was opened under the challenge as revision %d, and is "
                              "revision %d now" % (max(revisions), item["revision"]))
        return faults, len(paths)

    def wrong_answers(self):
        if self.given[0] != self.nonce:
            return ["the answers were given to another challenge"]
        return ["the token key %s gave %s" % (
            key, "a wrong answer" if key in self.given[1] else "no answer")
            for key, answer in self.expected[1].items() if self.given[1].get(key) != answer]


def header_of(folder, name, size, time):
    """The one header that a member of a pack may have (ustar)."""
    fields = [(name, 100), ("0000644", 8), ("0000000", 8), ("0000000", 8), ("%011o" % size, 12),
              ("%011o" % time, 12), (" " * 8, 8), ("0", 1), ("", 100), ("ustar", 6), ("00", 2),
              ("", 32), ("", 32), ("", 8), ("", 8), (folder, 155), ("", 12)]
    block = b"".join(text.encode().ljust(width, b"\0") for text, width in fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def is_member_name(name):
    return (len(name) <= 100 and re.fullmatch("[A-Za-z0-9._/-]+", name) is not None and
            not {"", ".", ".."} & set(name.split("/")))


class Archive:
    """The members of an archive, or the files of the folder it was unpacked to."""

    def __init__(self, path):
        self.files, self.path, self.time = {}, path, None
        if path.is_dir():
            self.read_folder()
        else:
            with open(path, "rb") as file:
                self.read_archive(file)

    def read_folder(self):
        for file in sorted(self.path.rglob("*")):
            if file.is_symlink() or not (file.is_dir() or file.is_file()):
                raise Bad("%s is no plain file" % file)
            if file.is_file():
                self.files[file.relative_to(self.path).as_posix()] = file

    def read_archive(self, file):
        """Takes what keyescrow writes and nothing else: one form for every archive."""
        total, at, folder = file.seek(0, 2), 0, None
        while True:
            file.seek(at)
            block = file.read(512)
            if len(block) < 512:
                raise Bad("the pack is cut off")
            if block == bytes(512):
                break
            try:
                name, prefix = (block[a:b].split(b"\0")[0].decode("ascii")
                                for a, b in ((0, 100), (345, 500)))
                size, time = int(block[124:135], 8), int(block[136:147], 8)
                good = size >= 0 and time >= 0 and header_of(prefix, name, size, time) == block
            except ValueError:
                good = False
            if not good or not is_member_name(name) or not is_member_name(prefix) or "/" in prefix:
                raise Bad("the pack has no header that a pack has at byte %d" % at)
            if (folder or (prefix, time)) != (prefix, time):
                raise Bad("%s is of another folder or time than the members before it" % name)
            if name in self.files:
                raise Bad("the pack has two members %s" % name)
            folder, at = (prefix, time), at + 512
            self.files[name] = (at, size)
            end = at + (size + 511) // 512 * 512
            if end > total:
                raise Bad("the pack is cut off in %s" % name)
            file.seek(at + size)
            if any(file.read(end - at - size)):
                raise Bad("something stands behind the end of %s" % name)
            at = end
        if total != at + 1024 or any(file.read(512)):
            raise Bad("something stands behind the end of the pack")
        self.time = folder[1] if folder else None

    def size(self, name):
        place = self.files.get(name, (0, 0))
        return place.stat().st_size if isinstance(place, pathlib.Path) else place[1]

    def read(self, name):
        if name not in self.files:
            raise Bad("%s is missing" % name)
        place = self.files[name]
        if isinstance(place, pathlib.Path):
            return place.read_bytes()
        if place[1] > MAX_MEMBER:
            raise Bad("%s is too long" % name)
        with open(self.path, "rb") as file:
            file.seek(place[0])
            return file.read(place[1])

    def json(self, name):
        return parse_json(self.read(name))

    def rows(self, name):
        rows = self.json(name)
        if not isinstance(rows, list):
            raise Bad("%s is not of the form that a pack has" % name)
        return rows

    def lines(self, folder):
        """The lines of a folder's files in their order."""
        for name in sorted(n for n in self.files if n.startswith(folder + "/")):
            text = self.read(name)
            if not text.endswith(b"\n"):
                raise Bad("the last line of %s is cut off" % name)
            yield from text[:-1].split(b"\n")


# ---- the form of an entry (agent/audit/FORMAT.md, "Entries")

MEMBERS = """v id source source_seq time boot_id clock_synced type outcome error actor approvers
    host key envelope policy paths drill anchor reason ticket prev_checkpoint truncated""".split()
MUST_ESCAPE = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def canonical(value):
    if isinstance(value, dict):
        return "{%s}" % ",".join("%s:%s" % (canonical(k), canonical(v)) for k, v in value.items())
    if isinstance(value, list):
        return "[%s]" % ",".join(map(canonical, value))
    if isinstance(value, str):
        text = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"%s"' % MUST_ESCAPE.sub(lambda match: "\\u%04x" % ord(match.group()), text)
    return json.dumps(value)


PARTS = {name: members.split() for name, members in {
    "actor": "uid login_uid name pid exe", "key": "name version",
    "envelope": "id revision sha256", "policy": "id serial sha256",
    "drill": "size root time challenge signature",
    "anchor": "counter index key attest signature"}.items()}


def in_order(item, members):
    order = [members.index(name) if name in members else -1 for name in item]
    return order == sorted(set(order)) and -1 not in order


def check_form(seq, line, event):
    paths = event.get("paths", [])
    good = in_order(event, MEMBERS) and all(
        in_order(event[name], members) for name, members in PARTS.items() if name in event) and all(
        in_order(path, ("id", "factors")) and all(
            in_order(factor, ("kind", "id", "key_sha256", "kdf"))
            for factor in path.get("factors", [])) for path in paths)
    if not good or canonical(event).encode() != line:
        raise Bad("entry %d is not of the form that an agent writes" % seq)


def line_of(item):
    return json.dumps(item, separators=(",", ":"), ensure_ascii=False) + "\n"


def thumbprint_of(document):
    """The agent key's, of what `agent-key export` writes."""
    jwk = document["jwk"]
    thumbprint = b64u(sha256(('{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}' % (
        jwk["x"], jwk["y"])).encode()))
    if (document["schema"], document["thumbprint"]) != ("keyescrow/agent-key/1", thumbprint) or (
            not re.fullmatch("[A-Za-z0-9._-]{1,64}", document["host"])):
        raise Bad("this is not what 'agent-key export' writes")
    if "anchor" in document:
        whole(document["anchor"]["index"])
        check_attestation_key(from_b64u(document["anchor"]["tpm_public"]))
    return thumbprint


def need_one_each(what, rows, member="name"):
    """No second row of one name: one reader would take the first, and the next the last."""
    seen = set()
    for row in rows:
        if row[member] in seen:
            raise Bad("%s has two rows of %s" % (what, row[member]))
        seen.add(row[member])


def need_texts(what, row, *names):
    if not all(isinstance(row[name], str) for name in names):
        raise Bad("%s is not of the form that a pack has" % what)


class Verifier:
    def __init__(self, archive, options):
        self.pack, self.options = archive, options
        self.bad, self.findings, self.checked = [], [], []
        self.not_checked = [
            "the envelopes: they are not in the pack, so that nobody can guess passwords on them; "
            "that the summaries are theirs, the host's signature says",
            "that a path opens: that takes its factors",
            "the policy's other rules (drills, rotation, and what devices are): status.json is "
            "the host's own judgement",
            "the form of the policy's words beside its name, serial and modes: 'keyescrow verify' "
            "refuses what no policy may hold",
            "what status.json says beside that: its findings, that a path is stale or unproven, "
            "numbers of versions, and what was checked for it, are the host's word",
            "report.html: 'keyescrow verify' makes it anew and compares it",
            "escrows of other tools, where there are any: they are listed as the host found them",
            "tokens' URIs, and the host's settings, which are not in the pack",
            "keys that nobody declared and nobody escrowed",
            "what imported entries tell: nothing signed it before they were imported",
        ]
        self.keys, self.origin, self.size, self.root, self.anchor = [], "", 0, b"", None
        self.summaries, self.matched, self.drills, self.open = {}, set(), {}, {}
        self.interrupted = set()  # who was taken to have ended, and may still tell
        self.unsure = set()  # requests of which another of the same name may have had the end
        self.roots, self.policies, self.anchor_lines, self.last_time = {}, [], "", None
        self.policy_sets = []  # entry, serial and hash, time, digest of the signers or ""
        self.by_hash, self.proven, self.num_tiles, self.trails = {}, set(), 0, ()
        self.agents, self.imported = {options.agent} - {None}, set()
        self.stateless, self.num_unknown_drills = {}, 0
        self.trust_log, self.claims = Trust(self), Claims(self)
        self.unmatched, self.rotations, self.destroyed = {}, {}, {}  # of versions
        self.tokens, self.num_tokens = {}, 0
        self.recovery_keys, self.report = RecoveryKeys(self), Report(self)
        self.thumbprint, self.vkeys, self.time = "", [], 0
        self.sample = Sample(options) if options.challenge else None

    def fail(self, check, text):
        self.bad.append((check, text))

    def run(self):
        """What stands behind the signature is read only where it holds."""
        self.run_checks("members", "signature")
        if self.bad:
            self.not_checked.append("what is in the pack: it is not what the agent signed")
            return
        if self.sample and self.sample.origin not in ("", self.origin):
            raise Usage("the challenge was drawn from another log: " + self.sample.origin)
        self.run_checks("keys", "summaries", "entries", "proofs", "policy", "drills",
                        "inventory", *(["sample"] if self.sample else []))

    def run_checks(self, *checks):
        for check in checks:
            try:
                getattr(self, "check_" + check)()
            except (Bad, ValueError, KeyError, TypeError, IndexError, AttributeError, OSError,
                    OverflowError) as error:
                self.fail(check, str(error) or type(error).__name__)

    def check_members(self):
        if self.pack.size("MANIFEST") > MAX_LINE * len(self.pack.files):
            raise Bad("MANIFEST names more files than there are")
        manifest = self.pack.read("MANIFEST").decode()
        if manifest and not manifest.endswith("\n"):
            raise Bad("MANIFEST has a line that is none")
        listed = {}
        for line in manifest.split("\n")[:-1]:
            digest, name = line[:64], line[66:]
            if (line[64:66] != "  " or not is_member_name(name) or
                    not re.fullmatch("[0-9a-f]{64}", digest)):
                raise Bad("MANIFEST has a line that is none")
            if name in listed:
                raise Bad("MANIFEST names %s twice" % name)
            listed[name] = digest
        names = list(listed) + ["MANIFEST", "MANIFEST.sig"]
        known = set(names)
        for name in self.pack.files:
            if name not in known:
                self.fail("members", "%s is not in MANIFEST" % name)
        if self.pack.time is not None and list(self.pack.files) != names:
            self.fail("members", "the pack's files are not those of MANIFEST, or not in its order")
        for name, digest in listed.items():
            if name not in self.pack.files:
                self.fail("members", "%s is missing" % name)
            elif sha256(self.pack.read(name)).hex() != digest:
                self.fail("members", "%s is not the file that MANIFEST names" % name)
        self.checked.append("%s against MANIFEST" % plural(len(listed), "file"))

    def trust(self):
        """Fills keys, origin and anchor; returns which keys must have signed."""
        if self.options.trust:
            document = parse_json(pathlib.Path(self.options.trust).read_text())
        else:
            document = self.pack.json("keys/agent-key.json")
        jwk = document["jwk"]
        thumbprint = self.thumbprint = thumbprint_of(document)
        self.agents.add(thumbprint)
        self.origin = document["log_origin"]
        self.keys = [Key(text) for text in document["log_keys"]]
        self.vkeys = document["log_keys"]
        if "anchor" in document:
            self.anchor = document["anchor"]["tpm_public"], document["anchor"]["index"]
        if self.options.trust:
            if self.options.agent not in (None, thumbprint):
                print("error: --trust is the file of the agent %s, and --agent names another" %
                      thumbprint, file=sys.stderr)
                sys.exit(2)
            return self.keys
        if not self.options.agent:
            self.findings.append("nobody vouched for the agent key %s: give --trust FILE or "
                                 "--agent THUMBPRINT, from another source than the pack" %
                                 thumbprint)
            return self.keys
        if thumbprint != self.options.agent:
            raise Bad("the pack is of the agent %s" % thumbprint)
        point = from_b64u(jwk["x"]) + from_b64u(jwk["y"])
        return [key for key in self.keys if key.algorithm == 2 and key.key[-64:] == point]

    def check_signature(self):
        must_sign = self.trust()
        try:
            text, good = signers(self.pack.read("MANIFEST.sig"), self.keys)
            lines = text.decode().split("\n")
            if len(lines) != 6 or lines[0] != "keyescrow-pack/1" or lines[5] or (
                    not re.fullmatch("0|[1-9][0-9]*", lines[2])):
                raise Bad("it does not sign a pack's MANIFEST")
            self.size, self.time = int(lines[2]), seconds(lines[4])
        except (Bad, ValueError) as error:
            raise Bad("MANIFEST.sig: %s" % error) from error
        if not any(key in must_sign for key in good) or not any(k.algorithm == 1 for k in good):
            raise Bad("MANIFEST.sig is not of the keys that are trusted")
        if lines[3] != base64.b64encode(sha256(self.pack.read("MANIFEST"))).decode():
            raise Bad("MANIFEST is not the one that was signed")
        if lines[1] != self.origin:
            raise Bad("the pack is of another log than the key that is trusted")
        if self.pack.time is not None and self.time != self.pack.time:
            raise Bad("the archive is of another time than MANIFEST.sig")
        if not any(key.algorithm == 2 for key in good):
            self.findings.append("the agent key did not sign MANIFEST, the log's key did")
        self.checked.append("MANIFEST.sig of %s, by %s" % (lines[4], plural(len(good), "key")))

    def check_keys(self):
        """Those in the pack authenticate nothing, and must still be the log's own."""
        stated = self.pack.json("keys/agent-key.json")
        lines = "".join(vkey + "\n" for vkey in self.vkeys).encode()
        if (thumbprint_of(stated), stated["log_origin"], stated["log_keys"]) != (
                self.thumbprint, self.origin, self.vkeys) or (
                self.pack.read("keys/log.vkeys") != lines):
            raise Bad("the keys in keys/ are not those of the log")

    # ---- the log

    def check_summaries(self):
        for line in self.pack.lines("summaries"):
            item = parse_json(line)
            if max(whole(item["key"]["version"], item["revision"])) >= 1 << 32:
                raise Bad("a line of summaries is of no version that there is")
            whole(item["log_seq"])
            for member in ("previous", "host", "agent"):
                if not isinstance(item[member], str):
                    raise Bad("a line of summaries has no %s" % member)
            item["key"] = {"name": item["key"]["name"], "version": item["key"]["version"]}
            for time in (item["created"], item["updated"]):
                seconds(time)
            if not 1 <= len(item["paths"]) <= 16:
                raise Bad("a line of summaries has paths that are none")
            for path in item["paths"]:
                need_texts("a line of summaries", path, "id", "drill_key")
                hash_of(path["drill_key"])
                check_factors("a line of summaries", path["factors"])
                if "recovery_key" in path or "recovery_thumbprint" in path:
                    need_texts("a line of summaries", path, "recovery_key", "recovery_thumbprint")
            if item["log_seq"] in self.summaries:
                raise Bad("two summaries are of entry %d" % item["log_seq"])
            self.summaries[item["log_seq"]] = item
            self.by_hash[item["envelope_sha256"]] = item

    def read_since(self):
        if not self.options.since:
            self.not_checked.append(
                "a tail that was cut off with its checkpoints, or an old copy that was put back: "
                "compare with your own older checkpoint (--since FILE)")
            return None
        text, good = signers(pathlib.Path(self.options.since).read_bytes(), self.keys)
        if not good:
            raise Bad("your checkpoint is not signed by this log")
        return parse_checkpoint(text)[1:]

    def checkpoints(self):
        for line in self.pack.lines("checkpoints"):
            item = parse_json(line)
            note = item["note"].encode()
            text, _ = split_note(note)
            yield item["size"], note, text, parse_checkpoint(text)

    def check_entries(self):
        since = self.read_since()
        self.claims.read(self.pack.json("status.json"))
        tree, checkpoints, recent, count, previous = Tree(), self.checkpoints(), [], 0, None
        upcoming, newest = next(checkpoints, None), None
        self.trails = Trail(self, True), Trail(self, False)
        for line in self.pack.lines("entries"):
            self.read_entry(tree.size, line, previous)
            tree.append(leaf_hash(line))
            for level, index, data in tree.full:
                self.compare_tile(level, index, data)
            tree.full.clear()
            if since and since[0] == tree.size and since[1] != tree.root():
                self.fail("since", "the first %d entries are not those of your checkpoint" %
                          tree.size)
            if upcoming and upcoming[0] == tree.size:
                _, newest, text, stated = upcoming
                self.roots[tree.size] = tree.root()
                if stated != (self.origin, tree.size, tree.root()):
                    self.fail("entries", "the checkpoint at %d is not that of the entries" %
                              tree.size)
                recent = recent + [(tree.size, newest)]
                if not self.options.all_signatures:
                    recent = recent[-NEWEST_SIGNATURES:]
                count, previous = count + 1, b64u(sha256(text))
                upcoming = next(checkpoints, None)
        self.root = tree.root()
        if upcoming:
            self.fail("entries", "the checkpoint at %d is of no such many entries" % upcoming[0])
        if tree.size not in self.roots:
            self.fail("entries", "entries stand behind the newest checkpoint")
        if tree.size != self.size:
            self.fail("entries", "entries/ has %d entries, MANIFEST.sig says %d" % (
                tree.size, self.size))
        if newest != self.pack.read("checkpoint"):
            self.fail("entries", "checkpoint is not the newest of checkpoints/")
        if since and since[0] > tree.size:
            self.fail("since", "the log is shorter than the checkpoint that you kept")
        self.compare_tiles(tree)
        self.check_checkpoints(recent, count)
        self.findings += ["entry %d: the restore of %s has no end" % item
                          for item in sorted(self.open.values())]
        self.check_destroyed()
        for seq in sorted(set(self.summaries) - self.matched):
            self.fail("summaries", "entry %d escrowed no envelope" % seq)
        self.trust_log.compare(self.pack.rows("keys/trusted-agents.json"))
        self.claims.finish()
        self.check_tokens()
        self.recovery_keys.compare(self.pack.rows("keys/recovery-keys.json"))
        self.check_revisions()
        if self.pack.read("anchors.jsonl").decode() != self.anchor_lines:
            self.fail("entries", "anchors.jsonl is not what the entries say")
        self.checked.append("%s hashed into the tree, in their order" %
                            plural(tree.size, "entry", "entries"))
        self.checked.append("%s and %s, against the entries" % (
            plural(count, "checkpoint"), plural(self.num_tiles, "tile")))
        self.checked.append("%s and %s of status.json, each by its entry" % (
            plural(len(self.claims.proofs), "proven path"),
            plural(self.claims.num_releases, "release")))
        self.checked.append("%s, %s and %s, each by its entry" % (
            plural(self.num_tokens, "token"), plural(self.recovery_keys.size, "recovery key"),
            plural(len(self.trust_log.agents), "trusted agent")))
        self.checked.append("the facts of %s, each against the entry that escrowed it" %
                            plural(len(self.summaries), "envelope"))
        if since:
            self.checked.append("the log against the checkpoint that you kept")
        if self.trails[0].count:
            self.checked.append("%s of the TPM's counter" %
                                plural(self.trails[0].count, "certificate"))
        if self.trails[1].count:
            self.not_checked.append("%s of the TPM's counter: by a key that is not among those "
                                    "that were given" % plural(self.trails[1].count,
                                                               "certificate"))

    def check_destroyed(self):
        """What was destroyed, and nothing else, has no summary."""
        for seq, version in sorted(self.unmatched.items()):
            if version not in self.destroyed:
                self.fail("summaries", "the envelope of entry %d has no summary" % seq)
        for item in self.summaries.values():
            version = (item["key"]["name"], item["key"]["version"])
            if version in self.destroyed:
                self.fail("summaries", "entry %d destroys %s version %d, and the pack has its "
                          "facts" % (self.destroyed[version], *version))

    def in_use(self, name, version):
        return (self.rotations.get((name, version), (0, "success", False))[1] == "success" and
                (name, version) not in self.destroyed)

    def newest_in_use(self):
        """Of each key, the entry of the newest envelope of the version in use."""
        newest = {}
        for seq, item in self.summaries.items():
            name, at = item["key"]["name"], (item["key"]["version"], item["revision"], seq)
            if self.in_use(name, at[0]):
                newest[name] = max(newest.get(name, at), at)
        return {name: at[2] for name, at in newest.items()}

    def check_tokens(self):
        rows = self.pack.rows("keys/tokens.json")
        for row in rows:
            need_texts("keys/tokens.json", row, "name", "uri", "spki")
        need_one_each("keys/tokens.json", rows)
        listed = {row["name"]: b64u(sha256(from_b64u(row["spki"]))) for row in rows}
        self.num_tokens = len(listed)
        for name, digest in listed.items():
            enrolled, logged = self.tokens.get(name, (False, None))
            if not enrolled:
                self.fail("tokens", "no entry registers the token %s" % name)
            elif logged not in (None, digest):
                self.fail("tokens", "the token %s was registered with another key" % name)
        for name, (enrolled, _) in self.tokens.items():
            if enrolled and name not in listed:
                self.fail("tokens", "the token %s was registered, and is not in the list" % name)

    def check_revisions(self):
        in_order, before = {}, None
        for seq, item in sorted(self.summaries.items()):
            at = (item["key"]["name"], item["key"]["version"], item["revision"])
            if at in in_order:
                self.fail("summaries", "entries %d and %d escrow %s version %d revision %d" % (
                    in_order[at], seq, *at))
            in_order.setdefault(at, seq)
            if not self.trust_log.allows(item, seq):
                self.fail("summaries", "%s version %d revision %d: its agent %s was not trusted "
                          "for it" % (*at, item["agent"]))
        gone = {}
        for name, version in self.destroyed:
            gone[name] = max(gone.get(name, 0), version)
        for (name, version, revision), seq in sorted(in_order.items()):
            last_name, last_version, last_revision, last_hash = before or ("", 0, 0, "")
            same_version = (name, version) == (last_name, last_version)
            follows = (revision == last_revision + 1 if same_version else revision == 1 and
                       version == 1 + (last_version if name == last_name
                                       else gone.get(name, 0)))
            what = "%s version %d revision %d" % (name, version, revision)
            if not follows and seq not in self.imported:
                self.fail("summaries", what + ": what comes before it is not in the pack")
            item = self.summaries[seq]
            if same_version and follows and item["previous"] != last_hash:
                self.fail("summaries", what + ": it does not name the revision before it")
            before = (name, version, revision, item["envelope_sha256"])

    def check_checkpoints(self, recent, count):
        has_p256 = False
        for size, note in recent:
            _, good = signers(note, self.keys)
            if not any(key.algorithm == 1 for key in good):
                self.fail("entries", "the checkpoint at %d is not signed by the log's key" % size)
            has_p256 = any(key.algorithm == 2 for key in good)
        if not has_p256:
            self.findings.append("the newest checkpoint lacks the agent key's signature")
        self.checked.append("signatures of the newest %s" % plural(len(recent), "checkpoint"))
        if len(recent) < count:
            self.not_checked.append("signatures of the %s: the newest covers their entries "
                                    "(--all-signatures)" % plural(count - len(recent),
                                                                  "older checkpoint"))

    def compare_tiles(self, tree):
        for level, (index, data) in enumerate(tree.levels):
            if data:
                self.compare_tile(level, index, bytes(data))
        expected, width = 0, self.size
        while width:
            expected, width = expected + (width + 255) // 256, width // 256
        self.num_tiles = sum(name.startswith("tile/") for name in self.pack.files)
        if self.num_tiles != expected:
            self.fail("tiles", "the log needs %d tiles, the pack has %d" % (
                expected, self.num_tiles))

    def compare_tile(self, level, index, data):
        name = tile_path(level, index, len(data) // 32)
        if name not in self.pack.files or self.pack.read(name) != data:
            self.fail("tiles", "%s is not that of the entries" % name)

    def read_entry(self, seq, line, previous):
        event = parse_json(line)
        if whole(event["v"]) != 1:
            self.findings.append("entry %d is of a newer format, and was not read" % seq)
            return
        check_form(seq, line, event)
        stateless = event["source"] == "stateless"
        if stateless and self.stateless.setdefault(event["id"], seq) != seq:
            self.fail("entries", "entries %d and %d are one imported event: it counts once" % (
                self.stateless[event["id"]], seq))
        elif stateless and event["type"] not in IMPORTABLE:
            self.findings.append("entry %d is imported, and no run without state writes %s: it "
                                 "counts for nothing" % (seq, event["type"]))
        if not stateless:
            self.read_place(seq, event, previous)
            if event["type"] in ESCROWED and "envelope" in event and "key" in event:
                self.match_summary(seq, event)
                if event.get("reason", "").startswith("imported; "):
                    self.imported.add(seq)
            if (event["type"] == "policy.changed" and "policy" in event and
                    event["outcome"] == "success"):
                policy = event["policy"]
                self.policies.append((policy["id"], policy["serial"], policy["sha256"]))
                begin, _, digest = event.get("reason", "").partition(", signers ")
                self.policy_sets.append((seq, self.policies[-1][1:], event["time"], digest if
                                         begin.startswith("policy set, mode ") else ""))
        if "anchor" in event:
            self.read_anchor(seq, line, event, stateless)
        elif stateless and event["type"] not in IMPORTABLE:
            pass
        elif event["type"] in ("factor.enrolled", "factor.removed"):
            if "key" in event:  # of a path of that key; else of a token in the list
                return
            factors = (event.get("paths") or [{}])[0].get("factors") or [{}]
            factor, enrolled = {"id": "", **factors[0]}, event["type"] == "factor.enrolled"
            if factor.get("kind") == "recovery-key":
                self.recovery_keys.add(seq, factor, enrolled, factors[1:])
            else:
                self.tokens[factor["id"]] = (enrolled, factor.get("key_sha256"))
        elif event["type"] == "policy.changed":
            self.trust_log.add(seq, event.get("reason", ""))
        elif event["type"] in ("key.rotated", "key.destroyed"):
            self.read_life(seq, event)
        else:
            self.read_release(seq, event, stateless)
        if event["type"] in ("drill.passed", "drill.failed") and "key" not in event and (
                not stateless):
            self.recovery_keys.drill(seq, event)
        holds = self.read_drill(seq, event, stateless) if "drill" in event else True
        self.claims.notice(seq, event, holds and not stateless)
        self.report.read(seq, event)

    def read_place(self, seq, event, previous):
        if (event["source"], whole(event["source_seq"]), event.get("prev_checkpoint")) != (
                self.origin, seq, previous):
            self.fail("entries", "entry %d was written for another place" % seq)
        time = seconds(event["time"])
        if self.last_time is not None and time + CLOCK_TOLERANCE_S < self.last_time:
            self.findings.append("entry %d: the host's clock went back" % seq)
        self.last_time = time

    def read_anchor(self, seq, line, event, stateless):
        if stateless:
            return
        known = self.anchor == (event["anchor"]["key"], event["anchor"]["index"])
        self.trails[0 if known else 1].add(seq, event)
        if event["type"] == "anchor.tpm" and event["outcome"] == "success":
            self.anchor_lines += line_of({"seq": seq, "entry": line.decode()})

    def read_release(self, seq, event, stateless):
        key, actor = event.get("key", {}), event.get("actor", {})
        who = (stateless, actor.get("uid", 0), actor.get("pid", 0), key.get("version", 0),
               key.get("name", ""))
        if event["type"] == "restore.requested":
            if who in self.open:
                self.findings.append("entry %d: the restore of %s has no end" % self.open[who])
                self.unsure.add(self.open[who][0])
            self.open[who] = (seq, key.get("name", ""))
        elif event["type"] == "restore.released":
            ended = re.match("entry ([0-9]+):", event.get("reason", ""))
            if not ended or event["outcome"] != "pending" or stateless:
                return
            asked = int(ended[1])
            others = [other for other, (begun, _) in self.open.items() if begun == asked]
            for other in others:
                self.interrupted.add(other)
                del self.open[other]
            if not others and asked not in self.unsure:
                self.fail("entries", "entry %d: the restore of entry %d was not open" % (seq, asked))
            self.unsure.discard(asked)
        elif event["type"] in ENDED and who in self.open:
            if who in self.interrupted:
                self.unsure.add(self.open[who][0])
            del self.open[who]
        elif event["type"] in ENDED:
            if event["type"] == "restore.completed" and stateless:
                self.findings.append("entry %d: an imported restore that no entry asked for" % seq)
            elif event["type"] == "restore.completed":
                if who not in self.interrupted:
                    self.fail("entries", "entry %d: a restore that no entry asked for" % seq)
                self.interrupted.discard(who)

    def read_life(self, seq, event):
        version = (event["key"]["name"], event["key"].get("version", 0))
        if event["type"] == "key.rotated":
            _, outcome, begun = self.rotations.get(version, (0, "", False))
            if begun and outcome != "pending":
                self.fail("entries", "entry %d: the rotation to %s version %d had ended" % (
                    seq, *version))
            begun = begun or event["outcome"] != "success"
            self.rotations[version] = (seq, event["outcome"], begun)
        elif "envelope" in event and event["outcome"] == "success":
            if version in self.destroyed:
                self.fail("entries", "entry %d: %s version %d was destroyed before" % (
                    seq, *version))
            self.destroyed.setdefault(version, seq)

    def match_summary(self, seq, event):
        key, envelope, item = event["key"], event["envelope"], self.summaries.get(seq)
        if item is None:
            self.unmatched[seq] = (key["name"], key["version"])
            return
        self.matched.add(seq)
        if (item["key"], item["envelope_id"], item["revision"], item["envelope_sha256"]) != (
                {"name": key["name"], "version": key["version"]}, envelope["id"],
                envelope["revision"], envelope["sha256"]):
            self.fail("summaries", "the summary of entry %d is of another envelope" % seq)
        if not same_paths(event.get("paths", []), item["paths"]):
            self.fail("summaries", "the summary of entry %d has other paths than the entry" % seq)

    # ---- what is stated beside it

    def check_proofs(self):
        for name in sorted(n for n in self.pack.files if n.startswith("proofs/")):
            head, _, note = self.pack.read(name).partition(b"\n\n")
            lines = head.decode().split("\n")
            if lines[0] != "c2sp.org/tlog-proof@v1" or not lines[1].startswith("extra "):
                raise Bad("%s is no proof" % name)
            entry = from_b64(lines[1][6:])
            index = int(lines[2].removeprefix("index "))
            hashes = [from_b64(line) for line in lines[3:]]
            if (name != "proofs/%012d.receipt" % index or note != self.pack.read("checkpoint") or
                    proven_root(leaf_hash(entry), index, self.size, hashes) != self.root):
                raise Bad("%s does not prove its entry" % name)
            self.proven.add(index)
        versions = {}
        for seq, item in self.summaries.items():
            at = (item["key"]["name"], item["key"]["version"])
            versions[at] = max(versions.get(at, (0, 0)), (item["revision"], seq))
        for (name, version), (_, seq) in sorted(versions.items()):
            if seq not in self.proven:
                raise Bad("the escrow of %s version %d has no proof" % (name, version))
        self.checked.append(plural(len(self.proven), "inclusion proof"))

    def check_policy(self):
        facts, text = self.pack.json("policy/policy.json"), self.pack.read("policy/policy.toml")
        form = {"schema": "keyescrow/pack-policy/1", "name": facts["name"],
                "serial": whole(facts["serial"]), "sha256": facts["sha256"], "set": facts["set"]}
        if (facts["serial"] == 0) != (facts["set"] is None):
            raise Bad("policy/policy.json has a time that is none")
        if facts["set"] is not None:
            seconds(facts["set"])
        if (json.dumps(form, indent=2, ensure_ascii=False) + "\n").encode() != self.pack.read(
                "policy/policy.json"):
            raise Bad("policy/policy.json is not of the form that a pack has")
        if b64u(sha256(text)) != facts["sha256"]:
            raise Bad("policy/policy.toml is not that of policy/policy.json")
        mine = (facts["name"], facts["serial"], facts["sha256"])
        if self.policies if facts["serial"] == 0 else mine not in self.policies:
            raise Bad("the log does not tell of the policy in policy/")
        if facts["serial"] != 0:
            if self.policies[-1] != mine:
                self.findings.append("a policy that was set later than the one in policy/ is not "
                                     "in force")
            lines = self.pack.read("policy/signers").decode().split("\n")
            if lines[-1] or not re.fullmatch("[0-9]{1,9}", lines[0]):
                raise Bad("policy/signers does not parse")
            keys = [Key(line) for line in lines[1:-1]]
            signed, good = signers(self.pack.read("policy/policy.toml.sig"), keys)
            if signed.decode() != "keyescrow-policy/1\n%s\n%d\n%s\n" % (
                    facts["name"], facts["serial"], base64.b64encode(sha256(text)).decode()):
                raise Bad("policy/policy.toml.sig is of another policy")
            if not 0 < int(lines[0]) <= len({key.key for key in good}):
                raise Bad("too few of the signers signed policy/policy.toml")
            listed = b64u(sha256(self.pack.read("policy/signers")))
            for seq, policy, time, digest in self.policy_sets:
                if policy == mine[1:] and digest not in ("", listed):
                    raise Bad("policy/signers is not what the entry of the policy says")
                if policy == mine[1:] and (abs(seconds(time) - seconds(facts["set"])) >
                                           CLOCK_TOLERANCE_S):
                    raise Bad("policy/policy.json says that the policy was set at %s, and entry "
                              "%d sets it at %s" % (facts["set"], seq, time))
        self.checked.append("the policy %s serial %d" % mine[:2])
        self.hold_to_policy(text.decode(), facts)

    def hold_to_policy(self, text, facts):
        if tomllib is None:
            self.not_checked.append("the paths against the policy, and its own name and serial: that "
                                    "takes Python 3.11 or newer")
            return
        document = tomllib.loads(text)
        name, serial = (document["policy"][word] for word in ("name", "serial"))
        if facts["serial"] != 0 and (
                (name, whole(serial)) != (facts["name"], facts["serial"]) or serial >= 1 << 53 or
                not re.fullmatch("[A-Za-z0-9._-]{1,64}", name)):
            raise Bad("policy/policy.toml is not that of policy/policy.json")
        if asks_for_newer(document):
            self.not_checked.append("the paths against the policy: it asks for a newer keyescrow")
            return
        policy = Policy(document, time_or_none(facts["set"]) or 0, self.time)
        findings = self.pack.json("status.json")["findings"]
        stated = {(finding["key"], finding["rule"]) for finding in findings
                  if finding["severity"] == "critical"}
        first, newest, held, unknown = {}, {}, 0, 0
        for seq, item in self.summaries.items():
            name, at = item["key"]["name"], (item["key"]["version"], item["revision"])
            first[name] = min(first.get(name, (at, item["created"])), (at, item["created"]))
            if self.in_use(name, item["key"]["version"]):
                newest[name] = max(newest.get(name, (at, seq)), (at, seq))
        with_shares = 0
        for name, (_, seq) in sorted(newest.items()):
            try:
                violations = list(policy.violations(self.summaries[seq], seconds(first[name][1])))
            except (Bad, KeyError, ValueError, TypeError, AttributeError):
                unknown += 1
                continue
            held += 1
            with_shares += any(factor["kind"] == "shares"
                               for path in self.summaries[seq]["paths"]
                               for factor in path["factors"])
            self.findings += ["%s: %s, and status.json does not say so" % (name, what)
                              for rule, what in violations if (name, rule) not in stated]
        self.checked.append(
            "the paths of %s against require, forbid, portable, survive, withstand, kdf, fips and "
            "pins of the policy, as the log's entries tell them: the envelopes are not in this "
            "pack" % plural(held, "key"))
        if with_shares:
            self.not_checked.append("who the officers of %s are: entries tell how many, the "
                                    "summaries alone tell whom" % plural(with_shares, "key"))
        if unknown:
            self.not_checked.append("the paths of %s against the policy: the members of shares are "
                                    "not told" % plural(unknown, "key"))

    def read_drill(self, seq, event, stateless):
        """Keeps what has the shape of a proof; check_drills checks its signature."""
        drill, envelope = event["drill"], event["envelope"]
        path, item = event["paths"][0]["id"], self.by_hash.get(envelope["sha256"])
        if item is None:
            self.num_unknown_drills += 1
            return True
        keys = [p["drill_key"] for p in item["paths"] if p["id"] == path]
        root, time = from_b64u(drill["root"]), seconds(drill["time"])
        known = self.roots.get(drill["size"]) if drill["size"] else sha256(b"")
        same = (event["outcome"], event.get("key"), envelope["revision"], envelope["id"]) == (
            "success", item["key"], item["revision"], item["envelope_id"])
        in_time = time <= seconds(event["time"])
        in_log = (drill["size"] == 0 if stateless else drill["size"] <= seq) and root == known
        statement = "\n".join((
            "keyescrow-drill/1", envelope["id"], path, envelope["sha256"], event["source"],
            str(drill["size"]), base64.b64encode(root).decode(), drill.get("challenge", "-"),
            drill["time"], ""))
        holds = keys and same and in_time and in_log
        # Of the log's own, check_drills verifies the signatures.
        if not holds or stateless and not drill_verifies(keys[0], statement, drill["signature"]):
            self.tell_bad_drill(seq, stateless)
            return False
        self.drills.setdefault((envelope["sha256"], path), []).append(
            (seq, keys[0], statement, drill["signature"], stateless))
        return True

    def tell_bad_drill(self, seq, stateless):
        if stateless:
            self.findings.append("entry %d proves no path" % seq)
        else:
            self.fail("drills", "entry %d proves no path" % seq)

    def check_drills(self):
        newest, older, num_held = [], 0, 0
        every = (self.options.all_signatures or
                 sum(map(len, self.drills.values())) <= EVERY_DRILL)
        for proofs in self.drills.values():
            found = False
            for seq, key, statement, signature, stateless in reversed(proofs):
                drawn = self.sample and statement.split("\n")[7] == self.sample.nonce
                if found and not every and not drawn:
                    older += 1
                    continue
                if not drill_verifies(key, statement, signature):
                    self.tell_bad_drill(seq, stateless)
                    continue
                num_held += 1
                if drawn:
                    self.sample.notice(seq, self.by_hash[statement.split("\n")[3]],
                                       statement.split("\n")[2])
                if not found:
                    found = True
                    newest.append({"seq": seq, "drill_key": key, "statement": statement,
                                   "signature": signature})
        newest.sort(key=lambda item: item["seq"])
        if self.pack.read("drills.jsonl").decode() != "".join(map(line_of, newest)):
            self.fail("drills", "drills.jsonl is not what the entries say")
        self.checked.append("%s of paths, each with its signature" % plural(num_held, "proof"))
        if older:
            self.not_checked.append("signatures of %s (--all-signatures)" %
                                    plural(older, "older proof"))
        if self.num_unknown_drills:
            self.not_checked.append("%s of paths of envelopes that are not in the pack" %
                                    plural(self.num_unknown_drills, "proof"))

    def check_sample(self):
        self.sample.compare(self)

    def check_inventory(self):
        newest = {}
        for seq, item in self.summaries.items():
            fact = (item["key"]["version"], item["revision"], item["envelope_sha256"], seq)
            name = item["key"]["name"]
            if not self.in_use(name, item["key"]["version"]):
                continue
            newest[name] = max(newest.get(name, (0,)), fact)
        inventory, status = self.pack.json("inventory.json"), self.pack.json("status.json")
        need_one_each("inventory.json", inventory["escrowed"])
        need_one_each("inventory.json", inventory["declared"])
        listed = {item["name"]: (item["version"], item["revision"], item["envelope_sha256"],
                                 item["log_seq"]) for item in inventory["escrowed"]}
        if listed != newest:
            raise Bad("inventory.json's escrowed keys are not those of the summaries")
        stated = {key["name"]: (key["version"], key["revision"], key["envelope_sha256"],
                                [path["id"] for path in key["paths"]])
                  for key in status["keys"] if key["escrowed"] is True}
        if stated != {name: (*fact[:3], [path["id"] for path in self.summaries[fact[3]]["paths"]])
                      for name, fact in newest.items()}:
            raise Bad("status.json's keys are not those of the summaries")
        declared = {item["name"] for item in inventory["declared"]}
        if declared != {key["name"] for key in status["keys"] if key["declared"] is True}:
            raise Bad("status.json's declared keys are not those of inventory.json")
        if status["checkpoint"]["note"].encode() != self.pack.read("checkpoint"):
            raise Bad("status.json is of another checkpoint")
        for name in sorted(declared - set(newest)):
            self.findings.append("%s is declared and not escrowed" % name)
        critical = sum(finding["severity"] == "critical" for finding in status["findings"])
        if status["complies"] is not (critical == 0):
            raise Bad("status.json's verdict is not that of its findings")
        if critical:
            self.findings.append("the host does not comply: status.json states %s" %
                                 plural(critical, "critical finding"))
        self.checked.append("inventory and status: %s escrowed, %d declared" % (
            plural(len(listed), "key"), len(declared)))
        self.report.compare(self.pack)


def joined(words):
    """A thumbprint may begin with "-": behind "=" it is no option to argparse."""
    for at in range(len(words) - 1, 0, -1):
        if words[at - 1] == "--agent" and re.fullmatch("-[A-Za-z0-9_-]{42}", words[at]):
            words[at - 1:at + 1] = ["--agent=" + words[at]]
    return words


class Once(argparse.Action):
    """An option with a value that is not empty, given once: what was left out by mistake would else
    count as checked."""

    def __call__(self, parser, namespace, value, option_string=None):
        if not value:
            parser.error("%s has an empty value" % option_string)
        if getattr(namespace, self.dest) is not None:
            parser.error("%s was given twice" % option_string)
        setattr(namespace, self.dest, value)


def main():
    parser = argparse.ArgumentParser(usage=__doc__, allow_abbrev=False)
    parser.add_argument("pack", nargs="?", type=pathlib.Path,
                        default=pathlib.Path(__file__).resolve().parent)
    for name in ("--trust", "--agent", "--since", "--challenge", "--expected", "--answers"):
        parser.add_argument(name, action=Once)
    parser.add_argument("--all-signatures", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(joined(sys.argv[1:]))
    verifier = None
    if bool(options.expected) != bool(options.answers) or (options.expected and
                                                           not options.challenge):
        parser.error("--expected and --answers go together, with --challenge")
    for name in (options.pack, options.trust, options.since, options.challenge, options.expected,
                 options.answers):
        if name and not pathlib.Path(name).exists():
            print("error: there is no %s" % ascii(str(name))[1:-1], file=sys.stderr)
            return 8
    try:
        verifier = Verifier(Archive(options.pack), options)
        verifier.run()
        bad, findings = verifier.bad, verifier.findings
    except Usage as error:
        print("error: " + ascii(str(error))[1:-1], file=sys.stderr)
        return 2
    except (Bad, OSError) as error:
        bad, findings = [("archive", str(error))], []
    status = 4 if bad else 1 if findings else 0
    verdict = {0: "the pack is whole and authentic; the host complies",
               1: "the pack is whole; there are findings",
               4: "the pack does not verify"}[status]
    checked = verifier.checked if verifier and not bad else []
    not_checked = verifier.not_checked if verifier else []
    if options.json:
        print(json.dumps({
            "schema": "keyescrow/verify-pack/1", "verdict": verdict, "status": status,
            "bad": [{"check": check, "what": text} for check, text in bad],
            "findings": findings, "checked": checked, "not_checked": not_checked}, indent=2))
        return status
    for title, lines in (("bad", ["%s: %s" % pair for pair in bad]), ("finding", findings),
                         ("checked", checked), ("not checked", not_checked)):
        for line in lines:
            print("%s: %s" % (title, ascii(line)[1:-1]))
    print("verdict: " + verdict)
    return status


if __name__ == "__main__":
    sys.exit(main())
