#!/usr/bin/env python3
"""The second decoder of keyescrow/1: Python's standard library and stock tools.

  decode.py check-vectors [--verbose] [FOLDER]     every file of tests/vectors reaches its outcome
  decode.py self-test                              the primitives agree with RFCs, openssl, jose
  decode.py drills FILE --trust THUMB --entries F  the proofs in a log's entries, one a line
  decode.py verify FILE --trust THUMB              signature, trust and header; prints the paths
  decode.py open FILE --trust THUMB --path ID --out F
      [--password-file F] [--token-module M --token-label L --pin-file F]... [--tpm TCTI]
      [--policy-signature F]

THUMB as in the vectors: THUMBPRINT [hosts=…] [keys=…]. A failure prints `failure: WORD` and the
exit code is that of the command line: 4, or 3 for factor, 10 for absent.
Written from the description of the format alone, for tests; it takes no care of secrets in memory.
"""

import argparse
import os
import sys

import devices
import drills
import header
import opening
import self_check
import vectors
from strict import Failure

VECTORS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "vectors")
EXIT_CODES = {
    "format": 4,
    "limit": 4,
    "signature": 4,
    "mac": 4,
    "factor": 3,
    "unwrap": 3,
    "absent": 10,
}


def read_file(path):
    with open(path, "rb") as file:
        return file.read()


def first_line(path):
    """A secret file's first line, without its LF."""
    return read_file(path).partition(b"\n")[0]


def read_envelope(options):
    return header.read(read_file(options.file), [vectors.parse_trust(t) for t in options.trust])


def verify(options):
    envelope = read_envelope(options)
    print("%s %s %s" % (envelope.key_name, envelope.host, header.b64u(envelope.hash)))
    for path in envelope.paths.values():
        kind = "recovery-key " if path.recovery else ""
        print("%s: %s%s" % (path.id, kind, "+".join(f.type for f in path.factors)))
    return 0


def check_drills(options):
    """0 where entries prove a path of the envelope and each proof holds, else 1."""
    envelope = read_envelope(options)
    lines = read_file(options.entries).decode().splitlines()
    found = list(drills.proofs_in(lines, envelope))
    for path_id, time, challenge, holds in found:
        print("%s %s %s %s" % (path_id, time, challenge, "holds" if holds else "does not hold"))
    return 0 if found and all(holds for *_, holds in found) else 1


def open_envelope(options):
    counts = {len(options.token_module), len(options.token_label), len(options.pin_file)}
    if len(counts) != 1:
        raise ValueError("--token-module, --token-label and --pin-file stand together")
    envelope = read_envelope(options)
    tokens = [
        devices.Token(m, label, first_line(pin).decode())
        for m, label, pin in zip(options.token_module, options.token_label, options.pin_file)
    ]
    password = first_line(options.password_file) if options.password_file else None
    world = devices.DeviceWorld(password, tokens, options.tpm, options.policy_signature)
    try:
        content = opening.open_path(envelope, options.path, world)
    finally:
        world.close()
    descriptor = os.open(options.out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return 0


def self_test(_):
    self_check.run()
    print("the primitives agree")
    return 0


def check_vectors(options):
    return 1 if vectors.run_all(options.folder, options.verbose) else 0


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("check-vectors")
    command.add_argument("folder", nargs="?", default=VECTORS)
    command.add_argument("--verbose", action="store_true")
    command.set_defaults(run=check_vectors)
    commands.add_parser("self-test").set_defaults(run=self_test)
    commands.add_parser("drills").add_argument("--entries", required=True)
    for name, run in (("drills", check_drills), ("verify", verify), ("open", open_envelope)):
        command = commands.choices.get(name) or commands.add_parser(name)
        command.add_argument("file")
        command.add_argument("--trust", action="append", required=True)
        command.set_defaults(run=run)
    command.add_argument("--path", required=True)
    command.add_argument("--out", required=True)
    command.add_argument("--password-file")
    for option in ("--token-module", "--token-label", "--pin-file"):
        command.add_argument(option, action="append", default=[])
    command.add_argument("--tpm")
    command.add_argument("--policy-signature")
    return parser.parse_args(arguments)


def main(arguments):
    options = parse_arguments(arguments)
    try:
        return options.run(options)
    except Failure as failure:
        print("failure: %s" % failure.word)
        print("reason: %s" % failure.why, file=sys.stderr)
        return EXIT_CODES[failure.word]
    except (OSError, ValueError) as error:
        print("error: %s" % error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
