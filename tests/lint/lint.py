"""Holds the rules of the house that a compiler does not.

  lint.py                    checks everything; exit 1 and one line a finding if anything breaks a rule
  lint.py --update-expose    rewrites tests/lint/expose_counts.txt from the sources
  lint.py --write-errors     rewrites the table of agent/docs/ERRORS.md from error_codes.def

The rules stand in tables at the top of the file; tests/lint/README.md says why they are there.
"""

import argparse
import collections
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

TOP_FOLDERS = {"agent", "hsm", "tpm", "envelope", "tests", "simulators"}

# Who may include whom. The longest matching room counts; a room may always include itself.
# A rule is a folder (with a slash at its end) or one header.
SEAMS = ["envelope/base/", "envelope/factor.h", "envelope/signer.h", "envelope/anchor.h"]
MAY_INCLUDE = {
    "envelope/base/": [],
    "envelope/": ["envelope/base/"],
    "hsm/": [*SEAMS, "envelope/pin_outcome.h", "envelope/pkcs11_uri.h"],
    "tpm/": SEAMS,
    # agent.toml is edited as safely as a key is written: that one header, and no location.
    "agent/config/": ["envelope/base/", "agent/key_locations/crash_safe_file.h"],
    "agent/key_locations/": ["envelope/base/"],
    # Policies are TOML as strictly as agent.toml is: the work-arounds for toml++ are in one place.
    "agent/policy/": ["envelope/", "agent/config/strict_toml.h"],
    "agent/store/": ["envelope/"],
    "agent/audit/": ["envelope/"],
    "agent/report/": ["envelope/", "agent/policy/", "agent/audit/"],
    "agent/usecases/": ["envelope/", "agent/config/", "agent/key_locations/", "agent/policy/",
                        "agent/store/", "agent/audit/", "agent/report/"],
    "agent/cli/": ["envelope/base/", "envelope/factor.h", "agent/usecases/", "agent/report/",
                   "agent/config/", "agent/key_locations/"],
    "agent/cli/commands/run_wizard.cc": ["agent/cli/", "agent/wizard/", "envelope/base/"],
    "agent/daemon/": ["envelope/base/", "agent/usecases/", "agent/report/", "agent/config/"],
    "agent/wizard/": ["envelope/base/", "agent/usecases/", "agent/report/", "agent/config/",
                      "agent/key_locations/", "agent/cli/terminal.h"],
    "agent/host_devices.h": [*SEAMS, "agent/usecases/", "hsm/", "tpm/"],
    "agent/host_devices.cc": [*SEAMS, "agent/host_devices.h", "agent/usecases/", "hsm/", "tpm/"],
    "agent/main.cc": ["envelope/", "hsm/", "tpm/", "agent/"],
    "simulators/": [*SEAMS, "hsm/", "tpm/"],
    "tests/": ["envelope/", "hsm/", "tpm/", "agent/", "simulators/"],
}

# Which libraries' headers may be included where: (pattern of the header, rooms or files).
EVERYWHERE = [""]
LIBRARY_HEADERS = [
    (r"openssl/", ["envelope/", "agent/main.cc", "tests/", "simulators/"]),
    (r"tl/expected\.hpp", ["envelope/base/result.h"]),
    (r"fmt/", EVERYWHERE),
    (r"argon2\.h", ["envelope/kdf", "tests/"]),
    (r"uni(norm|str|case|ctype|types)\.h", ["envelope/password"]),
    (r"zlib\.h", ["envelope/sheet_lines.cc"]),
    (r"qrencode\.h", ["agent/report/qr_code.cc"]),
    (r"zxcvbn\.h", ["envelope/password"]),
    (r"nlohmann/", ["envelope/", "agent/", "tests/"]),
    (r"toml\+\+/", ["agent/config/", "agent/policy/"]),
    (r"CLI/", ["agent/cli/"]),
    (r"libcryptsetup\.h", ["agent/key_locations/", "tests/"]),
    (r"sqlite3\.h", ["agent/store/", "tests/"]),
    (r"p11-kit/", ["hsm/cryptoki.h"]),
    (r"tss2/", ["tpm/tss.h"]),
    (r"(gtest|gmock)/", ["tests/", "simulators/"]),
    (r"benchmark/", ["tests/bench/"]),
    (r"valgrind/", ["tests/memory/"]),
]
POSIX_HEADERS = re.compile(
    r"(sys|linux|asm|arpa|netinet)/[a-z0-9_]+\.h|(dlfcn|elf|err|errno|fcntl|glob|grp|link|locale|"
    r"poll|pthread|pty|pwd|sched|signal|spawn|stdint|stddef|stdio|stdlib|string|strings|syslog|"
    r"termios|time|unistd|utime|limits|libgen|getopt|langinfo|wchar|wctype|ftw|dirent|endian|"
    r"byteswap|features|alloca|malloc|cpuid|ifaddrs|net/if|netdb|mqueue|semaphore|ucontext|ulimit|"
    r"execinfo|inttypes|math|assert|ctype|stdarg|stdbool|setjmp|fnmatch|regex|utmp|utmpx|wordexp)\.h")

FORBIDDEN_CODE = [
    (r"std::format\b|<format>", "std::format is not in g++ 12: use fmt"),
    (r"std::expected\b|<expected>", "std::expected is not in g++ 12: use tl::expected"),
    (r"source_location", "clang 14 fails on std::source_location"),
    (r"std::views|std::ranges::views|<ranges>", "clang 14 fails on std::views"),
    (r"<iostream>|<print>", "iostream costs start-up time: use fmt"),
]
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)\b")

# Where `catch (...)` stands at a library's or a thread's edge, with the reason beside it.
CATCH_ALL_ALLOWED: dict[str, str] = {}

MAX_LINES = 500
GENERATED: set[str] = set()
VAGUE_NAMES = {"util", "utils", "helper", "helpers", "manager", "managers", "common"}

SECRET_WORDS = {"password", "passwords", "passphrase", "pin", "pins", "secret", "secrets",
                "plaintext"}
# A last word that says that the string is about a secret and does not hold one.
ABOUT_SECRETS = {"file", "files", "path", "fd", "id", "ids", "name", "names", "source", "sources",
                 "option", "options", "hint", "policy", "profile", "state", "kind", "label", "word",
                 "prompt", "question", "missing", "text", "expression", "spec", "entry", "purpose"}
STRING_DECLARATION = re.compile(
    r"\b(?:std::(?:string|string_view|vector<(?:std::uint8_t|uint8_t|unsigned char|char)>)|Bytes|"
    r"ByteView)(?:\s*[&*])?\s+&?(\w+)\s*(?=[;={(,)\[])")

NOT_SHIPPED = "sha" + "red/design"  # folders outside the repository that nothing may refer to
OUTSIDE = [NOT_SHIPPED, "../sha" + "red", "work/sha" + "red"]

CODE_ROOMS = ("agent/", "envelope/", "hsm/", "tpm/")
ERROR_CODES = "envelope/base/error_codes.def"
ERRORS_MD = "agent/docs/ERRORS.md"
EXPOSE_COUNTS = "tests/lint/expose_counts.txt"


def project_files() -> list[str]:
    """The files that are, or are about to be, under version control, as paths from the root."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
            capture_output=True, check=True).stdout.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive
        listed = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*")
                  if not str(path.relative_to(ROOT)).startswith((".build/", ".git/"))]
    return sorted(name for name in set(listed) if name and (ROOT / name).is_file())


class Lint:
    def __init__(self, files: list[str]):
        self.files = files
        self.texts: dict[str, str] = {}
        for name in files:
            try:
                self.texts[name] = (ROOT / name).read_text(encoding="utf-8")
            except UnicodeDecodeError:
                pass  # a binary test vector
        self.code = {n: t for n, t in self.texts.items() if n.endswith((".h", ".cc", ".cpp", ".c"))}
        self.findings: list[str] = []

    def find(self, where: str, line: int, what: str) -> None:
        self.findings.append(f"{where}:{line}: {what}" if line else f"{where}: {what}")

    # ---- structure

    def check_house(self) -> None:
        for folder in {name.split("/")[0] for name in self.files if "/" in name}:
            if folder not in TOP_FOLDERS and not folder.startswith("."):
                self.find(folder, 0, "no such folder at the top: the house has six rooms")
        for folder in sorted(TOP_FOLDERS):
            if f"{folder}/README.md" not in self.files:
                self.find(folder, 0, "a top-level folder has a README.md")
        for name in self.files:
            path = pathlib.PurePosixPath(name)
            for part in (*path.parts[:-1], path.stem):
                vague = VAGUE_NAMES & set(re.split(r"[_.\-]", part.lower()))
                if vague:
                    self.find(name, 0, f"'{vague.pop()}' says nothing: name what it does")

    def check_lengths(self) -> None:
        for name, text in self.code.items():
            num_lines = text.count("\n")
            if name.startswith(CODE_ROOMS) and num_lines > MAX_LINES and name not in GENERATED:
                self.find(name, 0, f"{num_lines} lines; over {MAX_LINES} it is two things")

    # ---- includes

    @staticmethod
    def room_of(name: str) -> str | None:
        rooms = [room for room in MAY_INCLUDE if name == room or
                 (room.endswith("/") and name.startswith(room))]
        return max(rooms, key=len, default=None)

    def check_includes(self) -> None:
        for name, text in self.code.items():
            room = self.room_of(name)
            if room is None:
                self.find(name, 0, "stands in no room that the include table knows")
                continue
            for number, line in enumerate(text.splitlines(), start=1):
                match = re.match(r'\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', line)
                if match and match.group(1):
                    self.check_own_include(name, number, room, match.group(1))
                elif match:
                    self.check_library_include(name, number, match.group(2))

    def check_own_include(self, name: str, number: int, room: str, header: str) -> None:
        if not (ROOT / header).is_file():
            self.find(name, number, f'"{header}" is not in the repository: own headers are written from its '
                                    "root, a library's in <>")
            return
        for allowed in (room, *MAY_INCLUDE[room]):
            if header == allowed or (allowed.endswith("/") and header.startswith(allowed)):
                # agent/ as a whole may be named by main.cc alone; rooms inside rooms keep theirs.
                return
        self.find(name, number, f'{room.rstrip("/")} may not include "{header}"')

    def check_library_include(self, name: str, number: int, header: str) -> None:
        if re.fullmatch(r"[a-z0-9_]+", header) or POSIX_HEADERS.fullmatch(header):
            return
        for pattern, places in LIBRARY_HEADERS:
            if re.match(pattern, header):
                if not any(name.startswith(place) for place in places):
                    self.find(name, number, f"<{header}> belongs to {', '.join(places)} alone")
                return
        self.find(name, number, f"<{header}>: a library that tests/lint/lint.py does not know; "
                                "a new dependency needs a page in agent/docs/decisions")

    # ---- code

    def check_forbidden(self) -> None:
        for name, text in self.code.items():
            for number, line in enumerate(text.splitlines(), start=1):
                code = line.split("//")[0]
                for pattern, why in FORBIDDEN_CODE:
                    if re.search(pattern, code):
                        self.find(name, number, why)
                if re.search(r"\bcatch\s*\(\s*\.\.\.\s*\)", code) and name not in CATCH_ALL_ALLOWED:
                    self.find(name, number, "catch (...): name the exception that the library "
                                            "throws, or enter the file in CATCH_ALL_ALLOWED")
                if UNFINISHED.search(line):
                    self.find(name, number, "unfinished work: finish it or write an issue")

    def check_secret_strings(self) -> None:
        for name, text in self.code.items():
            if not name.startswith(CODE_ROOMS):
                continue
            for number, line in enumerate(text.splitlines(), start=1):
                for match in STRING_DECLARATION.finditer(line.split("//")[0]):
                    words = match.group(1).strip("_").lower().split("_")
                    if SECRET_WORDS & set(words) and words[-1] not in ABOUT_SECRETS:
                        self.find(name, number,
                                  f"'{match.group(1)}': a secret lives in SecretBytes")

    def expose_counts(self) -> dict[str, int]:
        counts = collections.Counter()
        for name, text in self.code.items():
            if name.startswith(CODE_ROOMS):
                code = "\n".join(line.split("//")[0] for line in text.splitlines())
                counts[name] = len(re.findall(r"\bExpose(?:Mutable)?\s*\(", code))
        return {name: count for name, count in sorted(counts.items()) if count}

    def check_expose(self) -> None:
        recorded: dict[str, int] = {}
        for line in self.texts.get(EXPOSE_COUNTS, "").splitlines():
            if line and not line.startswith("#"):
                count, name = line.split(maxsplit=1)
                recorded[name] = int(count)
        actual = self.expose_counts()
        for name in sorted(recorded.keys() | actual.keys()):
            if recorded.get(name, 0) != actual.get(name, 0):
                self.find(name, 0, f"touches secrets {actual.get(name, 0)} times, "
                                   f"{recorded.get(name, 0)} recorded: look at each, then "
                                   "lint.py --update-expose")

    # ---- documents and scripts

    def error_rows(self) -> list[tuple[str, list[tuple[str, str, str]]]]:
        sections: list[tuple[str, list[tuple[str, str, str]]]] = []
        for line in self.texts[ERROR_CODES].splitlines():
            if line.startswith("// --- "):
                sections.append((line.removeprefix("// --- "), []))
            row = re.fullmatch(r'KEYESCROW_ERROR\(\w+, "(\w+)", (\d+), "(.*)"\)', line)
            if row:
                sections[-1][1].append(row.groups())
            elif line.startswith("KEYESCROW_ERROR("):
                self.find(ERROR_CODES, 0, f"a row on one line, please: {line}")
        return sections

    def errors_table(self) -> str:
        lines = []
        for title, rows in self.error_rows():
            lines += [f"## {title[0].upper()}{title[1:]}", "", "| code | exit | meaning |",
                      "|---|---|---|"]
            lines += [f"| `{name}` | {status} | {meaning} |" for name, status, meaning in rows]
            lines.append("")
        return "\n".join(lines).rstrip("\n") + "\n"

    def check_errors(self) -> None:
        names = [name for _, rows in self.error_rows() for name, _, _ in rows]
        for name, count in collections.Counter(names).items():
            if count > 1:
                self.find(ERROR_CODES, 0, f"the code '{name}' stands twice")
        documented = self.texts.get(ERRORS_MD, "")
        if self.errors_table() not in documented:
            table = set(re.findall(r"^\| `(\w+)` \|", documented, re.MULTILINE))
            for name in sorted(set(names) - table):
                self.find(ERRORS_MD, 0, f"the code '{name}' is not listed")
            for name in sorted(table - set(names)):
                self.find(ERRORS_MD, 0, f"'{name}' is no code of {ERROR_CODES}")
            self.find(ERRORS_MD, 0, "differs from error_codes.def: lint.py --write-errors")

    def check_scripts(self) -> None:
        for name, text in self.texts.items():
            if re.match(r"#!.*\b(bash|sh)\b", text) or name.endswith(".sh"):
                checked = subprocess.run(["bash", "-n", str(ROOT / name)], capture_output=True,
                                         text=True, check=False)
                for line in checked.stderr.splitlines():
                    self.find(name, 0, line.strip())
            elif name.endswith(".py") or re.match(r"#!.*\bpython3\b", text):
                try:
                    compile(text, name, "exec")
                except SyntaxError as error:
                    self.find(name, error.lineno or 0, str(error.msg))

    def check_documents(self) -> None:
        for name, text in self.texts.items():
            for number, line in enumerate(text.splitlines(), start=1):
                if any(word in line for word in OUTSIDE):
                    self.find(name, number, "names a folder outside the repository")
                if not name.endswith(".md"):
                    continue
                for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", line):
                    if "://" in target or target.startswith("mailto:"):
                        continue
                    if not (ROOT / pathlib.PurePosixPath(name).parent / target).exists():
                        self.find(name, number, f"the link to {target} leads nowhere")

    def run(self) -> list[str]:
        for check in (self.check_house, self.check_lengths, self.check_includes,
                      self.check_forbidden, self.check_secret_strings, self.check_expose,
                      self.check_errors, self.check_scripts, self.check_documents):
            check()
        return self.findings


EXPOSE_HEADER = """\
# How often each file touches the bytes of a SecretBytes (Expose, ExposeMutable, declarations too).
# A change here is a change to look at: who sees a secret now that did not before? Rewritten by
# tests/lint/lint.py --update-expose.
"""


def main() -> int:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--update-expose", action="store_true")
    parser.add_argument("--write-errors", action="store_true")
    options = parser.parse_args()
    lint = Lint(project_files())
    if options.update_expose:
        rows = [f"{count} {name}\n" for name, count in lint.expose_counts().items()]
        (ROOT / EXPOSE_COUNTS).write_text(EXPOSE_HEADER + "".join(rows), encoding="utf-8")
    if options.write_errors:
        head = (ROOT / ERRORS_MD).read_text(encoding="utf-8").split("\n## ")[0].rstrip("\n")
        (ROOT / ERRORS_MD).write_text(f"{head}\n\n{lint.errors_table()}", encoding="utf-8")
    if options.update_expose or options.write_errors:
        return 0
    findings = lint.run()
    for finding in findings:
        print(finding)
    print(f"lint: {len(lint.files)} files, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
