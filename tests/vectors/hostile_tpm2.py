"""Faults of tpm2 factor records."""

import primitives as pr
from hostile_header import in_path
from maker import (
    CAROL,
    OPS,
    SIGNER,
    SRK,
    Envelope,
    Password,
    Path,
    Tpm2,
    b64u,
    coordinates,
    parent_public,
)
from scenario import Vector, world
from hostile_factors import above_p, off_curve, changed, without


def tpm2_records():
    parent, point = parent_public(SRK), coordinates(SRK.point)
    for name, comment, edit in (
        ("parent_91", "parent_public of 91 bytes", changed(parent_public=b64u(parent[:-1]))),
        (
            "parent_trailing",
            "parent_public with a byte more",
            changed(parent_public=b64u(parent + b"\0")),
        ),
        (
            "parent_no_noda",
            "a parent without noDA",
            changed(
                parent_public=b64u(
                    parent.replace(bytes.fromhex("00030472"), bytes.fromhex("00030072"))
                )
            ),
        ),
        (
            "parent_not_restricted",
            "a parent that is not restricted",
            changed(
                parent_public=b64u(
                    parent.replace(bytes.fromhex("00030472"), bytes.fromhex("00020472"))
                )
            ),
        ),
        (
            "parent_aes256",
            "a parent with AES-256",
            changed(
                parent_public=b64u(
                    parent.replace(bytes.fromhex("00060080"), bytes.fromhex("00060100"))
                )
            ),
        ),
        (
            "parent_sha384",
            "a parent with name algorithm SHA-384",
            changed(parent_public=b64u(parent[:4] + b"\0\x0c" + parent[6:])),
        ),
        (
            "parent_size_field",
            "parent_public with a wrong size field",
            changed(parent_public=b64u(b"\0\x5b" + parent[2:])),
        ),
        (
            "parent_off_curve",
            "a parent that is not on the curve",
            changed(parent_public=b64u(off_curve(parent))),
        ),
        (
            "parent_x_above_p",
            "a parent whose x is not below p",
            changed(parent_public=b64u(parent[:26] + above_p()[1:33] + b"\0\x20" + above_p()[33:])),
        ),
        (
            "parent_empty_unique",
            "a parent without its point",
            changed(parent_public=b64u(parent[:24] + bytes(4))),
        ),
        ("public_79", "public of 79 bytes", lambda f: f.update(public=b64u(_public(f)[:-1]))),
        ("public_rsa", "public of another type", _public_edit(2, "0001")),
        ("public_name_alg", "public with name algorithm SHA-1", _public_edit(4, "0004")),
        (
            "public_user_with_auth",
            "userWithAuth set: the auth alone opens it",
            _public_edit(6, "00000052"),
        ),
        (
            "public_not_fixed",
            "fixedTPM and fixedParent clear without a seed",
            _public_edit(6, "00000000"),
        ),
        (
            "public_noda_with_password",
            "noDA set though the path has a password",
            _public_edit(6, "00000412"),
        ),
        (
            "public_policy_empty",
            "an object without a policy",
            lambda f: f.update(
                public=b64u(_public(f)[:10] + bytes(2) + _public(f)[44:] + bytes(32))
            ),
        ),
        ("public_policy_zero", "another policy than the record's: 0", _public_edit(12, "00" * 32)),
        (
            "public_policy_bit",
            "a policy with one bit changed",
            lambda f: f.update(
                public=b64u(_public(f)[:43] + bytes([_public(f)[43] ^ 1]) + _public(f)[44:])
            ),
        ),
        ("public_unique_31", "a unique of 31 bytes by its size field", _public_edit(46, "001f")),
        ("public_scheme", "a scheme that is not NULL", _public_edit(44, "0005")),
        ("host_slash", "host with a slash", changed(host="a/b")),
        ("auth_string", "auth is a string", changed(auth="true")),
        (
            "auth_false_with_password",
            "auth is false though the path has a password",
            lambda f: f.update(
                auth=False,
                public=b64u(_public(f)[:6] + bytes.fromhex("00000412") + _public(f)[10:]),
            ),
        ),
        ("private_empty", "private is empty", changed(private="")),
        ("private_2", "private of 2 bytes", changed(private=b64u(bytes(2)))),
        ("private_513", "private of 513 bytes", changed(private=b64u(b"\1\xff" + bytes(511)))),
        (
            "private_size_field",
            "private with a wrong size field",
            changed(private=b64u(b"\0\xa1" + bytes(160))),
        ),
        ("seed_69", "seed of 69 bytes", changed(seed=b64u(bytes(69)))),
        (
            "signer_without_pcrs",
            "signer without pcrs",
            lambda f: f.update(
                signer=b64u(SIGNER.spki),
                public=b64u(
                    _public(f)[:12] + Tpm2("sha256:7", SIGNER).policy(b"") + _public(f)[44:]
                ),
            ),
        ),
        ("digest_without_pcrs", "pcr_digest without pcrs", changed(pcr_digest=b64u(bytes(32)))),
        ("seed_missing", "no seed member", without("seed")),
        ("unknown", "a member more", changed(index=1)),
    ):
        yield _tpm("tpm2_" + name, comment, edit, Tpm2())
    yield _tpm(
        "tpm2_seed_fixed",
        "fixedTPM and fixedParent set though there is a seed",
        _public_edit(6, "00000012"),
        Tpm2(seed=True),
    )
    seed = bytes.fromhex("00440020") + point[2:34] + point[34:]
    for name, comment, value in (
        ("size_field", "with a wrong size field", b"\0\x45" + seed[2:]),
        ("x_size", "with a wrong size of x", seed[:2] + b"\0\x1f" + seed[4:]),
        ("off_curve", "that is not on the curve", off_curve(seed)),
        (
            "x_above_p",
            "whose x is not below p",
            seed[:4] + above_p()[1:33] + b"\0\x20" + above_p()[33:],
        ),
    ):
        yield _tpm(
            "tpm2_seed_" + name, "a seed " + comment, changed(seed=b64u(value)), Tpm2(seed=True)
        )


def _public(factor):
    return pr.b64u_decode(factor["public"])


def _public_edit(at, text):
    new = bytes.fromhex(text)
    return lambda f: f.update(public=b64u(_public(f)[:at] + new + _public(f)[at + len(new) :]))


def _tpm(name, comment, edit, tpm2, password=True):
    """Like faulty, with the tpm2 factor last in its path."""
    factors = ([Password()] if password else []) + [tpm2]
    made = Envelope(Path("x", *factors), header=in_path(lambda p: edit(p["factors"][-1])))
    return Vector(name, "format", comment, made, **world(made, "x"))


def tpm2_pcrs():
    for name, pcrs in (
        ("descending", "sha256:7,0"),
        ("twice", "sha256:7,7"),
        ("24", "sha256:24"),
        ("none", "sha256:"),
        ("sha1", "sha1:7"),
        ("no_bank", "7"),
        ("leading_zero", "sha256:07"),
        ("trailing_comma", "sha256:7,"),
        ("space", "sha256:0, 7"),
        ("range", "sha256:0-7"),
        ("two_banks", "sha256:7+sha256:8"),
        ("upper", "SHA256:7"),
        ("huge", "sha256:4294967303"),
    ):
        yield _tpm("tpm2_pcrs_" + name, "pcrs is " + pcrs, changed(pcrs=pcrs), Tpm2("sha256:7"))
    yield _tpm(
        "tpm2_pcrs_other",
        "pcrs is not the selection in the object's policy",
        changed(pcrs="sha256:8"),
        Tpm2("sha256:7"),
    )
    yield _tpm(
        "tpm2_pcr_digest_other",
        "pcr_digest is not the digest in the object's policy",
        changed(pcr_digest=b64u(bytes(32))),
        Tpm2("sha256:7"),
    )
    yield _tpm(
        "tpm2_pcr_digest_missing",
        "no pcr_digest beside pcrs",
        changed(pcr_digest=""),
        Tpm2("sha256:7"),
    )
    yield _tpm(
        "tpm2_pcr_digest_31",
        "pcr_digest of 31 bytes",
        changed(pcr_digest=b64u(bytes(31))),
        Tpm2("sha256:7"),
    )
    yield _tpm(
        "tpm2_policy_without_auth_value",
        "a policy of PolicyPCR alone, without PolicyAuthValue",
        lambda f: f.update(
            public=b64u(
                _public(f)[:12]
                + pr.sha256(
                    bytes(32),
                    bytes.fromhex("0000017F00000001000B03800000"),
                    pr.b64u_decode(f["pcr_digest"]),
                )
                + _public(f)[44:]
            )
        ),
        Tpm2("sha256:7"),
    )
    signed = Tpm2("sha256:7", signer=SIGNER)
    yield _tpm(
        "tpm2_policy_without_signer",
        "the policy of pcrs alone though there is a signer",
        lambda f: f.update(
            public=b64u(_public(f)[:12] + Tpm2("sha256:7").policy(bytes(32)) + _public(f)[44:])
        ),
        signed,
    )
    yield _tpm(
        "tpm2_pcr_digest_with_signer",
        "pcr_digest beside a signer",
        changed(pcr_digest=b64u(bytes(32))),
        signed,
    )
    yield _tpm(
        "tpm2_signer_other",
        "signer is not the key in the object's policy",
        changed(signer=b64u(CAROL.spki)),
        signed,
    )
    yield _tpm("tpm2_signer_rsa", "signer is an RSA key", changed(signer=b64u(OPS.spki)), signed)
    yield _tpm(
        "tpm2_signer_off_curve",
        "signer is not on the curve",
        changed(signer=b64u(off_curve(SIGNER.spki))),
        signed,
    )
    yield _tpm(
        "tpm2_auth_true_without_password",
        "auth is true though the path has no password",
        lambda f: f.update(
            auth=True, public=b64u(_public(f)[:6] + bytes.fromhex("00000012") + _public(f)[10:])
        ),
        Tpm2(),
        password=False,
    )
    yield _tpm(
        "tpm2_noda_missing",
        "noDA clear though the path has no password",
        _public_edit(6, "00000012"),
        Tpm2(),
        password=False,
    )
