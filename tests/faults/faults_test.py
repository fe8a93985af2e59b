#!/usr/bin/env python3
"""Devices that fail at the n-th call, one kind of fault a test.

  faults_test.py --binary FILE --tcti FILE --pkcs11 FILE [unittest's arguments]
  faults_test.py --list
"""

import argparse
import pathlib
import signal
import sys
import unittest

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "integration" / "agent" / "acceptance")]

import faulty_world  # noqa: E402
import world  # noqa: E402
from later_cases import *  # noqa: E402,F403
from token_cases import *  # noqa: E402,F403
from tpm_cases import *  # noqa: E402,F403


def names():
    """Every test as CLASS.METHOD."""
    for suite in unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"]):
        for test in suite:
            yield ".".join(test.id().split(".")[-2:])


def main():
    if sys.argv[1:] == ["--list"]:
        print("\n".join(names()))
        return
    parser = argparse.ArgumentParser(usage=__doc__, add_help=False)
    for name in ("--binary", "--tcti", "--pkcs11"):
        parser.add_argument(name, required=True, type=pathlib.Path)
    options, others = parser.parse_known_args()
    world.BINARY = options.binary.resolve(strict=True)
    faulty_world.FAULTY_TCTI = options.tcti.resolve(strict=True)
    faulty_world.FAULTY_PKCS11 = options.pkcs11.resolve(strict=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    unittest.main(module="__main__", argv=[sys.argv[0]] + others)


if __name__ == "__main__":
    main()
