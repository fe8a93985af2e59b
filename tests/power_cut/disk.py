"""A disk that loses power: replays what disk_shim.so recorded, and yields what may be left.

The model is stricter than today's file systems: a file's bytes are durable once that file is synced,
a name (made, renamed, removed) once its folder is. What is not durable may be there or not, in any
combination; a write may be torn, and a file may have grown without its bytes.
"""

import hashlib
import os
import pathlib
import random

SECTOR = 512
LOST_SUFFIX = "-shm"  # SQLite's shared memory: rebuilt by whoever opens first


class File:
    def __init__(self, data=b""):
        self.durable = data
        self.pending = []  # (offset, bytes) or (size,)

    def sync(self):
        self.durable = self.after(self.pending)
        self.pending = []

    def after(self, changes):
        data = bytearray(self.durable)
        for change in changes:
            if len(change) == 1:
                size = change[0]
                data = data[:size] + bytes(size - len(data))
            else:
                offset, new = change
                data += bytes(max(0, offset - len(data)))
                data[offset:offset + len(new)] = new
        return bytes(data)


class Folder:
    def __init__(self):
        self.durable = {}
        self.pending = []  # ("set", name, node), ("remove", name), ("rename", old, new), …

    def sync(self):
        self.durable = self.after(len(self.pending))
        self.pending = []

    def after(self, count):
        names = dict(self.durable)
        for kind, *words in self.pending[:count]:
            if kind == "set":
                names[words[0]] = words[1]
            elif kind == "remove":
                names.pop(words[0], None)
            elif kind == "rename":
                if words[0] in names:
                    names[words[1]] = names.pop(words[0])
            elif kind == "exchange":
                if words[0] in names and words[1] in names:
                    names[words[0]], names[words[1]] = names[words[1]], names[words[0]]
        return names


class Disk:
    """The tree under `root` as it is now, all of it durable."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.top = self._load(self.root)

    def _load(self, path):
        if not path.is_dir():
            return File(path.read_bytes())
        folder = Folder()
        for child in path.iterdir():
            folder.durable[child.name] = self._load(child)
        return folder

    def _find(self, path):
        node = self.top
        for part in pathlib.Path(path).relative_to(self.root).parts:
            node = node.after(len(node.pending))[part]
        return node

    def _parent(self, path):
        path = pathlib.Path(path)
        return self._find(path.parent), path.name

    def is_pending(self, path):
        return bool(self._find(path).pending)

    def apply(self, record):
        operation = record["op"]
        if operation in ("create", "mkdir"):
            folder, name = self._parent(record["path"])
            folder.pending.append(("set", name, File() if operation == "create" else Folder()))
        elif operation == "write":
            self._find(record["path"]).pending.append(
                (record["offset"], bytes.fromhex(record["data"])))
        elif operation == "truncate":
            self._find(record["path"]).pending.append((record["size"],))
        elif operation == "sync":
            self._find(record["path"]).sync()
        elif operation == "unlink":
            folder, name = self._parent(record["path"])
            folder.pending.append(("remove", name))
        elif operation in ("rename", "exchange", "link"):
            folder, old = self._parent(record["from"])
            other, new = self._parent(record["to"])
            if folder is not other:
                raise AssertionError(f"a rename between folders is not atomic: {record}")
            if operation == "link":
                folder.pending.append(("set", new, self._find(record["from"])))
            else:
                folder.pending.append((operation, old, new))
        elif operation != "out":
            raise AssertionError(f"unknown operation {record}")

    def states(self, seeds):
        """Yields (name, writer): writer(folder) makes what one power cut leaves behind."""
        def whole(node):
            return node.after(node.pending)

        def torn(node):
            *first, last = node.pending or [()]
            if len(last) != 2:
                return whole(node)
            half = len(last[1]) // 2 // SECTOR * SECTOR or len(last[1]) // 2
            return node.after(first + [(last[0], last[1][:half])])

        def zeros(node):
            return node.after([c if len(c) == 1 else (c[0], bytes(len(c[1])))
                               for c in node.pending])

        nothing, everything = (lambda node: 0), (lambda node: len(node.pending))
        yield "nothing", (lambda node: node.durable), nothing
        yield "names", (lambda node: node.durable), everything
        yield "zeros", zeros, everything
        yield "torn", torn, everything
        yield "bytes", whole, nothing
        yield "everything", whole, everything
        for seed in seeds:
            chance = random.Random(seed)
            yield (f"random {seed}",
                   lambda node, c=chance: node.after([p for p in node.pending if c.random() < .5]),
                   lambda node, c=chance: c.randint(0, len(node.pending)))

    def left_by(self, content, num_names):
        """The tree as {relative path: bytes, or None for a folder}."""
        found = {}

        def walk(node, path):
            if isinstance(node, File):
                if not path.endswith(LOST_SUFFIX):
                    found[path] = content(node)
                return
            if path:
                found[path] = None
            for name, child in sorted(node.after(num_names(node)).items()):
                walk(child, f"{path}/{name}" if path else name)

        walk(self.top, "")
        return found


def fingerprint(tree):
    digest = hashlib.sha256()
    for path, data in sorted(tree.items()):
        digest.update(repr((path, None if data is None else hashlib.sha256(data).digest())).encode())
    return digest.digest()


def write_tree(tree, root):
    root = pathlib.Path(root)
    root.mkdir(mode=0o700)
    for path, data in sorted(tree.items()):
        if data is None:
            (root / path).mkdir(mode=0o700)
            continue
        fd = os.open(root / path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
