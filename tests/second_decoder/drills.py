"""Drill statements: put together from an entry of the log and checked against an envelope's header."""

import base64
import json

import primitives as pr


def statement(entry):
    """The text that a drill's signature is over, from a parsed entry."""
    drill = entry["drill"]
    (path,) = entry["paths"]
    root = base64.b64encode(pr.b64u_decode(drill["root"])).decode()
    lines = [
        "keyescrow-drill/1",
        entry["envelope"]["id"],
        path["id"],
        entry["envelope"]["sha256"],
        entry["source"],
        str(drill["size"]),
        root,
        drill.get("challenge", "-"),
        drill["time"],
    ]
    return "".join(line + "\n" for line in lines).encode()


def is_proof(entry, envelope):
    """Whether the entry proves that a path of the envelope was opened."""
    path = envelope.paths.get(entry["paths"][0]["id"])
    return (
        path is not None
        and entry["outcome"] == "success"
        and entry["envelope"]["sha256"] == pr.b64u(envelope.hash)
        and pr.ed25519_verify(
            path.drill_key, statement(entry), pr.b64u_decode(entry["drill"]["signature"])
        )
    )


def proofs_in(lines, envelope):
    """(path id, time, challenge, whether it holds) of each entry about the envelope with a proof."""
    for line in lines:
        entry = json.loads(line)
        if "drill" in entry and entry["envelope"]["sha256"] == pr.b64u(envelope.hash):
            drill = entry["drill"]
            yield (
                entry["paths"][0]["id"],
                drill["time"],
                drill.get("challenge", "-"),
                is_proof(entry, envelope),
            )
