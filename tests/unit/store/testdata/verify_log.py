#!/usr/bin/env python3
"""Verifies a log of agent/audit/FORMAT.md from its files, with hashlib and openssl alone."""
import base64, hashlib, os, subprocess, sys

folder = sys.argv[1]
path = lambda name: os.path.join(folder, name)
node = lambda l, r: hashlib.sha256(b"\1" + l + r).digest()

def root(hashes):
    if len(hashes) == 1:
        return hashes[0]
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return node(root(hashes[:split]), root(hashes[split:]))

def audit_path(index, hashes):  # RFC 6962, 2.1.1
    if len(hashes) == 1:
        return []
    split = 1 << (len(hashes) - 1).bit_length() - 1
    if index < split:
        return audit_path(index, hashes[:split]) + [root(hashes[split:])]
    return audit_path(index - split, hashes[split:]) + [root(hashes[:split])]

def subproof(old, hashes, whole):  # RFC 6962, 2.1.2
    if old == len(hashes):
        return [] if whole else [root(hashes)]
    split = 1 << (len(hashes) - 1).bit_length() - 1
    if old <= split:
        return subproof(old, hashes[:split], whole) + [root(hashes[split:])]
    return subproof(old - split, hashes[split:], False) + [root(hashes[:split])]

leaves = [hashlib.sha256(b"\0" + line).digest() for line in open(path("entries"), "rb").read().split(b"\n")[:-1]]
note = open(path("checkpoint"), "rb").read()
text, lines = note.rsplit(b"\n\n", 1)[0] + b"\n", note.rsplit(b"\n\n", 1)[1].splitlines()
origin, size, root64 = text.decode().splitlines()
assert int(size) == len(leaves) and base64.b64decode(root64) == root(leaves), "root"
open(path("text"), "wb").write(text)
verified = 0
for vkey in open(path("vkeys")).read().split():
    name, key_id, blob = vkey.split("+", 2)
    alg, key = base64.b64decode(blob)[0], base64.b64decode(blob)[1:]
    spki = bytes.fromhex("302a300506032b6570032100") + key if alg == 1 else key
    material = name.encode() + b"\n\1" + key if alg == 1 else key
    assert hashlib.sha256(material).digest()[:4].hex() == key_id and name == origin, "key id"
    open(path("spki"), "wb").write(spki)
    for line in lines:
        raw = base64.b64decode(line.split(b" ")[2])
        if raw[:4].hex() != key_id:
            continue
        open(path("sig"), "wb").write(raw[4:])
        extra = [] if alg == 1 else ["-digest", "sha256"]
        subprocess.run(["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", path("spki"), "-rawin",
                        "-in", path("text"), "-sigfile", path("sig")] + extra, check=True, stdout=subprocess.DEVNULL)
        verified += 1
assert verified == 2, "signatures"
for name in os.listdir(folder):
    kind, _, number = name.partition(".")
    if kind == "consistency":
        hashes = [base64.b64decode(row) for row in open(path(name)).read().split()]
        assert hashes == subproof(int(number), leaves, True), name
    elif kind == "receipt":
        rows, receipt_note = open(path(name), "rb").read().split(b"\n\n", 1)
        rows = rows.split(b"\n")
        index = int(rows[2].removeprefix(b"index "))
        entry = base64.b64decode(rows[1].removeprefix(b"extra "))
        assert hashlib.sha256(b"\0" + entry).digest() == leaves[index] and index == int(number), name
        assert [base64.b64decode(row) for row in rows[3:]] == audit_path(index, leaves), name
        assert receipt_note == note, name
for name in os.listdir(path("tiles")):
    level, number = map(int, name.split("."))
    row = leaves
    for _ in range(level):
        row = [root(row[i:i + 256]) for i in range(0, len(row) // 256 * 256, 256)]
    assert open(path("tiles/" + name), "rb").read() == b"".join(row[number * 256:(number + 1) * 256]), name
print("verified", size)
