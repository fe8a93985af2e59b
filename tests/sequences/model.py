"""What should be true: the keys of one sequence, their versions, and what opens each."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Form:
    """A path expression: all of its tokens (or `threshold` of them), the TPM, a password."""

    expression: str
    tokens: tuple = ()
    threshold: int = 0
    tpm: bool = False
    password: str = ""  # "beside" hardware, "alone", or the recovery "key"'s own

    @property
    def portable(self):
        return not self.tpm


FORMS = (
    Form("password & token:ops", ("ops",), 1, password="beside"),
    Form("password & token:safe", ("safe",), 1, password="beside"),
    Form("token:vault", ("vault",), 1),
    Form("token:safe", ("safe",), 1),
    Form("token:ops & token:safe & password", ("ops", "safe"), 2, password="beside"),
    Form("2 of (token:ops, token:safe, token:vault)", ("ops", "safe", "vault"), 2),
    Form("2 of (token:safe, token:vault) & password", ("safe", "vault"), 2, password="beside"),
    Form("password", password="alone"),
    Form("password & tpm", tpm=True, password="beside"),
    Form("tpm", tpm=True),
    Form("tpm & token:vault", ("vault",), 1, tpm=True),
    Form("recovery-key:rk", ("vault",), 1, password="key"),
)


@dataclasses.dataclass
class Path:
    form: Form
    password: str = ""  # name of its file; "" without one, and for a recovery key's registered one


@dataclasses.dataclass
class Version:
    paths: dict  # id → Path
    content: bytes = None  # None: acknowledged by nobody yet, so the first restore tells
    revision: int = 1
    acknowledged: bool = True
    gone: dict = dataclasses.field(default_factory=dict)  # ids of removed paths → Path
    changed: list = dataclasses.field(default_factory=list)  # (id, old password)

    def row(self):
        return (self.revision, list(self.paths))


@dataclasses.dataclass
class Key:
    name: str
    host: dict  # of SequenceWorld: here or there
    versions: dict = dataclasses.field(default_factory=dict)
    in_use: int = 0
    file: str = ""  # where it is declared to live
    open: int = 0   # version of a rotation that is under way
    again: list = None  # the words that hand its key over once more
    imported: bool = False
    destroyed: bool = False
    luks: bool = False

    def current(self):
        return self.versions[self.in_use]


@dataclasses.dataclass
class Copy:
    """A portable file: it opens as it did when it was written, whatever is edited later."""

    file: str
    name: str
    version: int
    paths: dict
    content: bytes
