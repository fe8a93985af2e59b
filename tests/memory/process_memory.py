"""The memory of a process, read from /proc, and where secrets stand in it."""

import base64
import dataclasses
import os
import re

HEADER = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ (\d+) *(.*)")
SECRET_FLAGS = {"lo", "dd", "wf"}  # locked, not dumped, wiped at fork
PAGE = 4096
SLICE = 8  # a freed copy loses its first 16 bytes to malloc's links: parts count as well


@dataclasses.dataclass
class Region:
    start: int
    end: int
    rights: str
    name: str
    dirty: bool = False
    flags: frozenset = frozenset()
    guarded: bool = False
    data: bytes = b""

    @property
    def is_secret(self):
        """SecretBytes made it: locked, out of core dumps and forks, between guard pages."""
        return self.guarded and SECRET_FLAGS <= self.flags

    def __str__(self):
        return "%x-%x %s %s" % (self.start, self.end, self.rights, self.name or "anonymous")


def regions_of(pid):
    regions, is_file = [], False
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as file:
        for line in file:
            header = HEADER.match(line)
            if header:
                start, end, rights, inode, name = header.groups()
                regions.append(Region(int(start, 16), int(end, 16), rights, name))
                is_file = inode != "0"
                # Clean pages of a file are the file's; a writable mapping may hold anything.
                regions[-1].dirty = "w" in rights or not is_file
                continue
            field, value = line.split(":", 1)
            if field in ("Anonymous", "Private_Dirty", "Shared_Dirty") and value.split()[0] != "0":
                regions[-1].dirty = True
            elif field == "VmFlags":
                regions[-1].flags = frozenset(value.split())
    for before, region, after in zip(regions, regions[1:], regions[2:]):
        region.guarded = (before.end == region.start and region.end == after.start and
                          before.rights == after.rights == "---p")
    return regions


def read_memory(pid):
    """Every region that can hold more than a file's own bytes, with what is in it."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for region in regions_of(pid):
            if not region.dirty or region.rights == "---p" or region.name in (
                    "[vvar]", "[vdso]", "[vsyscall]", "[vvar_vclock]"):
                continue
            memory.seek(region.start)
            parts, left = [], region.end - region.start
            while left:
                part = memory.read(min(left, 1 << 24))
                if not part:
                    raise OSError(f"{region} could not be read")
                parts.append(part)
                left -= len(part)
            region.data = b"".join(parts)
            found.append(region)
    return found


def children_of(pid):
    children = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                children += [int(child) for child in file.read().split()]
        except (FileNotFoundError, ProcessLookupError):
            pass  # a thread that has ended
    return children


def is_stopped(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] == "T"
    except (FileNotFoundError, ProcessLookupError):
        return False  # it has ended


def slices(data, size=SLICE):
    if len(data) < 2 * size:
        return [data]
    return [data[at:at + size] for at in range(0, len(data) - size + 1, size)] + [data[-size:]]


def reversed_words(data, size):
    return b"".join(data[at:at + size][::-1] for at in range(0, len(data), size))


def forms(secret):
    """(name, bytes) of each way in which a secret, or eight bytes of it, can stand in memory."""
    for part in slices(secret):
        yield "raw", part
        yield "reversed", part[::-1]  # also a big number's 64-bit words
        if len(part) == SLICE:
            yield "32-bit words reversed", reversed_words(part, 4)
        yield "hex", part.hex().encode()
        yield "HEX", part.hex().upper().encode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for part in slices(encode(secret).rstrip(b"="), 16):
            yield "base64", part
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        return
    if text.isprintable():
        for encoding in ("utf-16-le", "utf-32-le"):
            for at in range(0, max(len(text) - SLICE + 1, 1), SLICE):
                yield encoding, text[at:at + SLICE].encode(encoding)


@dataclasses.dataclass(frozen=True)
class Finding:
    secret: str
    form: str
    address: int
    region: Region

    def __str__(self):
        at = self.address - self.region.start
        around = self.region.data[max(at - 32, 0):at + 32]
        return f"{self.secret} ({self.form}) at {self.address:x} in {self.region}: {around.hex()}"

    def __hash__(self):
        return hash((self.secret, self.address))


def written_parts(data):
    """(offset, bytes) of every run of pages that are not all zero, with the zeros around it that a
    pattern may begin or end in: most of a process's memory was never written."""
    zero, begin = bytes(PAGE), None
    for at in range(0, len(data) + PAGE, PAGE):
        page = data[at:at + PAGE]
        blank = page == zero[:len(page)]
        if begin is None and not blank:
            begin = at
        elif begin is not None and blank:
            first = max(begin - PAGE, 0)
            yield first, data[first:at + PAGE]
            begin = None


def find_secrets(regions, secrets):
    """A finding for every place at which a form of a secret (name → bytes) stands."""
    parts = [(region, offset, data) for region in regions
             for offset, data in written_parts(region.data)]
    findings = set()
    for name, secret in secrets.items():
        for form, pattern in set(forms(secret)):
            if not any(pattern):
                raise ValueError(f"{name} is too easy to find: {pattern}")
            for region, offset, data in parts:
                at = data.find(pattern)
                while at >= 0:
                    findings.add(Finding(name, form, region.start + offset + at, region))
                    at = data.find(pattern, at + 1)
    return sorted(findings, key=lambda finding: finding.address)
