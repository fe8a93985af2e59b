"""Reads the JUnit file that ctest wrote and closes a test run truthfully.

  summarize.py RESULTS.xml

Prints the names of what failed and of what was skipped, then as its last line "N passed, N failed".
A test that could not be started counts as failed. Exits 1 if any failed or none passed.
"""

import sys
import xml.etree.ElementTree as ElementTree


def main(path: str) -> int:
    passed, failed, skipped = [], [], []
    try:
        cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    except (OSError, ElementTree.ParseError) as error:
        print(f"no test results: {error}")
        cases = []
    for case in cases:
        name = case.get("name", "?")
        skip = case.find("skipped")
        if case.get("status") == "run" and case.find("failure") is None:
            passed.append(name)
        elif skip is not None and skip.get("message", "").startswith("SKIP_"):
            skipped.append(name)  # the test itself said so (GTEST_SKIP, SKIP_RETURN_CODE)
        elif case.get("status") == "disabled":
            skipped.append(name)
        else:
            failed.append(name)
    for title, names in (("skipped", skipped), ("failed", failed)):
        for name in names:
            print(f"{title}: {name}")
    print(f"{len(passed)} passed, {len(failed)} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
