#!/usr/bin/env python3
"""Writes every file of tests/vectors; `--check` compares instead and fails on any difference.

Needs Python's standard library, the argon2 command and libcrypto. Nothing is random: a second run
gives the same bytes. The format of the files is described in README.md.
"""

import base64
import gzip
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "second_decoder"))

import hostile_crypto
import hostile_factors
import hostile_framing
import hostile_header
import hostile_jws
import hostile_shares
import hostile_tpm2
import valid
import valid_forms
from scenario import scenarios

SCENARIOS = (
    valid,
    valid_forms,
    hostile_framing,
    hostile_jws,
    hostile_header,
    hostile_factors,
    hostile_tpm2,
    hostile_shares,
    hostile_crypto,
)


def render(function, vector):
    """The file's bytes."""
    lines = [
        ("expect", vector.expect),
        ("source", "generate.py " + function),
        ("comment", vector.comment),
    ]
    if vector.path is not None:
        lines.append(("path", vector.path))
    if vector.password is not None:
        lines.append(("password_hex", vector.password.hex()))
    if vector.trust is not None:
        lines.append(("trust", vector.trust))
    lines += [
        ("token_key_pem_b64", base64.b64encode(key.pem().encode()).decode())
        for key in vector.tokens
        if vector.expect not in ("format", "limit")
    ]
    if vector.tpm is not None:
        parent, sealed, auth = vector.tpm
        lines += [("tpm_parent_hex", parent.hex()), ("tpm_sealed_hex", sealed.hex())]
        if auth is not None:
            lines.append(("tpm_auth_hex", auth.hex()))
    if vector.expect == "ok" and vector.content is not None:
        lines.append(("content_hex", vector.content.hex()))
    body = vector.envelope
    if len(body) > 50000:
        lines.append(("envelope_gz_b64", "1"))
        body = base64.b64encode(gzip.compress(body, 9, mtime=0))
    head = "".join("%s: %s\n" % line for line in lines)
    assert not any("\n" in value for _, value in lines), vector.name
    return head.encode() + b"\n" + body


def expanded(data):
    """The same file with its body unpacked: zlib's versions may pack it differently."""
    head, _, body = data.partition(b"\n\n")
    if b"\nenvelope_gz_b64: 1" in head:
        body = gzip.decompress(base64.b64decode(body))
    return head, body


def everything():
    """{file name: bytes}."""
    files, known = {}, {}
    for function, vector in scenarios(*SCENARIOS):
        name = vector.name + ".txt"
        assert name not in files, name
        files[name] = render(function, vector)
        if vector.known is not None:
            known[vector.name] = vector.known
    text = json.dumps(
        {
            "comment": "intermediate values, hexadecimal where not text; see README.md",
            "vectors": known,
        },
        indent=1,
        ensure_ascii=True,
    )
    files["known_answers.json"] = text.encode() + b"\n"
    return files


def main(arguments):
    files = everything()
    present = {n for n in os.listdir(HERE) if n.endswith((".txt", ".json"))}
    if arguments == ["--check"]:
        wrong = sorted(present ^ set(files))
        for name in sorted(present & set(files)):
            with open(os.path.join(HERE, name), "rb") as file:
                if expanded(file.read()) != expanded(files[name]):
                    wrong.append(name)
        for name in wrong:
            print("differs: " + name)
        print("%d files, %d differ" % (len(files), len(wrong)))
        return 1 if wrong else 0
    if arguments:
        print("usage: generate.py [--check]", file=sys.stderr)
        return 2
    for name in present - set(files):
        os.remove(os.path.join(HERE, name))
    for name, data in files.items():
        with open(os.path.join(HERE, name), "wb") as file:
            file.write(data)
    print("%d files" % len(files))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
