"""A vector: an envelope, the world in which it is opened, and the outcome that it must have."""

import inspect

from maker import AGENT, PASSWORD, Envelope


class Vector:
    """`envelope`: Envelope or bytes. Defaults: trusted agent, right password, no device."""

    def __init__(
        self,
        name,
        expect,
        comment,
        envelope,
        path="password",
        password=PASSWORD,
        trust=AGENT.thumbprint,
        tokens=(),
        tpm=None,
        record=False,
    ):
        self.name, self.expect, self.comment = name, expect, comment
        made = envelope if isinstance(envelope, Envelope) else None
        self.envelope = made.bytes if made else envelope
        self.content = made.content if made and path is not None else None
        self.path, self.trust, self.tokens = path, trust, tokens
        self.password = password.encode() if isinstance(password, str) else password
        self.tpm = tpm
        self.known = known_answers(made, path) if record else None


def world(envelope, path_id):
    """Vector's keyword arguments for opening this path with exactly what it needs."""
    path = next(p for p in envelope.paths if p.id == path_id)
    tpm = (*path.known["tpm"], path.known.get("auth_value")) if "tpm" in path.known else None
    password = next((f.password for f in path.factors if f.type == "password"), None)
    tokens = [f.key for f in path.factors if f.type.startswith("pkcs11")]
    tokens += [f.key for s in path.factors if s.type == "shares" for _, f in s.members]
    return {"path": path_id, "password": password, "tokens": tokens, "tpm": tpm}


def opens(name, comment, *paths, record=False, use=None, expect="ok", **members):
    """A vector of a whole envelope, opened by its first path or the one named `use`."""
    envelope = Envelope(*paths, **members)
    return Vector(
        name,
        expect,
        comment,
        envelope,
        record=record,
        **world(envelope, use or envelope.paths[0].id)
    )


def known_answers(envelope, path_id):
    path = next(p for p in envelope.paths if p.id == path_id)

    def text(value):
        if isinstance(value, bytes):
            return value.hex()
        if isinstance(value, dict):
            return {k: text(v) for k, v in value.items()}
        return [text(v) for v in value] if isinstance(value, tuple) else value

    return {
        "path": path_id,
        **text(
            {
                **path.known,
                **envelope.known,
                "content": envelope.content,
                "header": envelope.header_text,
            }
        ),
    }


def scenarios(*modules):
    """(function name, Vector) of every public generator function, in the order of the source."""
    for module in modules:
        functions = [
            f
            for n, f in vars(module).items()
            if inspect.isgeneratorfunction(f) and f.__module__ == module.__name__ and n[0] != "_"
        ]
        for function in sorted(functions, key=lambda f: f.__code__.co_firstlineno):
            for vector in function():
                yield function.__name__, vector
