"""Faults of the header's own members, of paths and of wrapped keys: found before any KDF work."""

import json

import primitives as pr
from hostile_framing import bent, member, swap
from maker import (
    ESCROW,
    OTHER_AGENT,
    PROT,
    Ecdh,
    EcKey,
    Envelope,
    Password,
    Path,
    Rsa,
    Shares,
    Tpm2,
    b64u,
    dumps,
    rnd,
)
from scenario import Vector, world


def header_values():
    for name, value, label, comment in (
        ("format", "keyescrow/2", "next", "a format of the future"),
        ("format", "keyescrow/1 ", "space", "format with a space at its end"),
        ("envelope_id", b64u(bytes(15)), "15_bytes", "envelope_id of 15 bytes"),
        ("envelope_id", b64u(bytes(17)), "17_bytes", "envelope_id of 17 bytes"),
        ("policy", "", "empty", "policy is empty"),
        ("policy", "p" * 65, "65", "policy of 65 characters"),
        ("policy", "corp|x", "bar", "policy with a bar"),
        ("policy", "a/b", "slash", "policy with a slash"),
        ("host", "", "empty", "host is empty"),
        ("host", "h" * 65, "65", "host of 65 characters"),
        ("host", "db 1", "space", "host with a space"),
        ("key_name", "", "empty", "key_name is empty"),
        ("key_name", "/prod", "leading_slash", "key_name begins with a slash: an empty segment"),
        ("key_name", "prod/", "trailing_slash", "key_name ends with a slash: an empty segment"),
        ("key_name", "prod//db", "empty_segment", "key_name with an empty segment"),
        ("key_name", "prod/./db", "dot", "key_name with the segment ."),
        ("key_name", "prod/../db", "dot_dot", "key_name with the segment .."),
        ("key_name", "..", "dot_dot_alone", "key_name is .."),
        ("key_name", "a" * 64 + "/" + "b" * 64, "129_bytes", "key_name of 129 bytes"),
        ("key_name", "a" * 65, "segment_65", "key_name with a segment of 65 characters"),
        ("key_name", "prod|db", "bar", "key_name with a bar, which joins the labels"),
        ("key_name", "prod*", "star", "key_name with a star"),
        ("previous", b64u(bytes(32)), "at_revision_1", "previous is set at revision 1"),
        ("created", "2026-02-29T00:00:00Z", "29_february", "29 February of a common year"),
        ("created", "2100-02-29T00:00:00Z", "29_february_2100", "29 February of a century year"),
        ("created", "2026-04-31T00:00:00Z", "31_april", "31 April"),
        ("created", "2026-00-10T00:00:00Z", "month_0", "month 0"),
        ("created", "2026-13-01T00:00:00Z", "month_13", "month 13"),
        ("created", "2026-01-00T00:00:00Z", "day_0", "day 0"),
        ("created", "2026-01-31T24:00:00Z", "24_hours", "24:00:00"),
        ("created", "2026-01-31T23:60:00Z", "60_minutes", "minute 60"),
        ("updated", "2026-06-30T23:59:60Z", "leap_second", "a leap second"),
        ("updated", "2026-01-31T12:00:00+00:00", "offset", "an offset for Z"),
        ("updated", "2026-01-31T12:00:00.0Z", "fraction", "fractions of a second"),
        ("updated", "2026-01-31 12:00:00Z", "space", "a space for T"),
        ("updated", "2026-01-31t12:00:00z", "lower_case", "t and z in lower case"),
        ("updated", "2026-1-31T12:00:00Z", "short_month", "a month of one digit"),
        ("updated", "", "empty", "updated is empty"),
        ("agent", OTHER_AGENT.thumbprint, "other", "agent is not the signer"),
        ("agent", "", "empty", "agent is empty"),
        ("note", "n" * 1025, "1025", "a note of 1025 characters"),
    ):
        yield bent("header_%s_%s" % (name, label), comment, header=member(name, value))
    yield bent(
        "header_previous_missing_at_revision_2",
        "previous is empty at revision 2",
        header=member("revision", 2),
    )
    yield bent(
        "header_previous_31_bytes",
        "previous of 31 bytes",
        header=lambda h: h.update(revision=2, previous=b64u(bytes(31))),
    )


def header_types():
    for name in (
        "format",
        "envelope_id",
        "policy",
        "key_name",
        "key_version",
        "revision",
        "previous",
        "host",
        "created",
        "updated",
        "agent",
        "paths",
    ):
        yield bent(
            "missing_header_" + name, "the header without " + name, header=member(name, None)
        )
    for name, value, comment in (
        ("key_version", "1", "key_version is a string"),
        ("revision", True, "revision is true"),
        ("policy", 1, "policy is a number"),
        ("note", 1, "note is a number"),
        ("paths", {}, "paths is an object"),
        ("host", ["db1"], "host is an array"),
    ):
        yield bent("type_header_" + name, comment, header=member(name, value))
    yield bent(
        "type_header_null_previous",
        "previous is null",
        header_text=swap('"previous":""', '"previous":null'),
    )
    yield bent("type_header_array", "the header is an array", header=lambda h: [h])


def header_ranges():
    for name in ("key_version", "revision"):
        for value in (0, 2**31, -1):
            label = {0: "0", -1: "minus_1"}.get(value, "2_to_31")
            changes = {name: value}
            if name == "revision" and value > 1:
                changes["previous"] = b64u(bytes(32))
            yield bent(
                "range_%s_%s" % (name, label),
                "%s is %d" % (name, value),
                "limit",
                header=lambda h: h.update(changes),
            )


def path_list():
    yield bent("paths_none", "no path", header=member("paths", []))
    made = Envelope(*[Path("p%d" % i, Password()) for i in range(17)])
    yield Vector("paths_17", "limit", "seventeen paths", made, path="p0")
    made = Envelope(Path("password", Password()), Path("password", Password()))
    yield Vector("paths_id_twice", "format", "two paths with one id", made)
    for label, value in (
        ("empty", ""),
        ("17", "p" * 17),
        ("slash", "a/b"),
        ("bar", "a|b"),
        ("at", "@sec"),
    ):
        yield Vector(
            "path_id_" + label,
            "format",
            "a path id that is not permitted: " + (value or "empty"),
            Envelope(Path(value, Password())),
            path=value or "password",
        )
    yield bent("paths_holds_string", "a path is a string", header=member("paths", ["password"]))
    for name in ("id", "factors", "wrapped_key", "drill_key"):
        yield bent(
            "missing_path_" + name, "a path without " + name, header=in_path(lambda p: p.pop(name))
        )
    yield bent(
        "unknown_path_member",
        "a path with a member more",
        header=in_path(lambda p: p.update(note="x")),
    )
    yield bent(
        "type_path_factors", "factors is an object", header=in_path(lambda p: p.update(factors={}))
    )
    yield bent(
        "drill_key_31_bytes",
        "drill_key of 31 bytes",
        header=in_path(lambda p: p.update(drill_key=b64u(bytes(31)))),
    )
    yield bent(
        "drill_key_empty", "drill_key is empty", header=in_path(lambda p: p.update(drill_key=""))
    )


def in_path(edit, index=0):
    """A hook on one path of the header."""

    def hook(header):
        edit(header["paths"][index])

    return hook


def factor_list():
    three = [("a", Rsa()), ("b", Ecdh())]
    for name, comment, path in (
        ("tpm2_before_password", "tpm2 before password", Path("x", Tpm2(), Password())),
        ("password_before_token", "password before a token", Path("x", Password(), Rsa())),
        ("tpm2_before_token", "tpm2 before a token", Path("x", Tpm2(), Rsa())),
        (
            "password_before_shares",
            "password before shares",
            Path("x", Password(), Shares(2, *three)),
        ),
        (
            "shares_before_token",
            "shares before a token",
            Path("x", Shares(2, *three), Ecdh(EcKey("carol"), "carol")),
        ),
        ("two_passwords", "two passwords", Path("x", Password(), Password())),
        ("two_tpm2", "two tpm2 factors", Path("x", Tpm2(), Tpm2())),
        (
            "two_shares",
            "two shares factors",
            Path(
                "x",
                Shares(2, *three),
                Shares(2, *[(n, Ecdh(EcKey("second " + n), n)) for n in "ab"]),
            ),
        ),
        (
            "five",
            "five factors",
            Path("x", *[Ecdh(EcKey("card %d" % i), "c%d" % i) for i in range(4)], Password()),
        ),
        (
            "same_token_twice",
            "one spki twice",
            Path("x", Rsa(), Rsa(alg="RSA-OAEP", token="again")),
        ),
        ("same_token_ecdh_twice", "one P-256 spki twice", Path("x", Ecdh(), Ecdh(token="again"))),
        (
            "same_token_in_shares",
            "one spki as a factor and as a member's",
            Path("x", Rsa(), Shares(2, *three)),
        ),
    ):
        made = Envelope(path)
        yield Vector("factors_" + name, "format", comment, made, **world(made, "x"))
    yield bent(
        "factors_none", "a path without factors", header=in_path(lambda p: p.update(factors=[]))
    )
    for label, value in (("yubikey", "yubikey"), ("case", "Password"), ("empty", "")):
        yield bent(
            "factors_type_" + label,
            "an unknown type of factor",
            header=in_path(lambda p: p["factors"][0].update(type=value)),
        )
    yield bent(
        "factors_type_missing",
        "a factor without type",
        header=in_path(lambda p: p["factors"][0].pop("type")),
    )
    yield bent(
        "factors_type_number",
        "type is a number",
        header=in_path(lambda p: p["factors"][0].update(type=1)),
    )
    yield bent(
        "factors_holds_null", "a factor is null", header=in_path(lambda p: p.update(factors=[None]))
    )


def wrapped_keys():
    def parts(edit):
        return in_path(lambda p: p.update(wrapped_key=".".join(edit(p["wrapped_key"].split(".")))))

    for name, comment, edit in (
        ("four_parts", "four parts", lambda c: c[:4]),
        ("six_parts", "six parts", lambda c: c + [""]),
        (
            "header_gcm",
            "its header names A256GCM",
            lambda c: [b64u(b'{"alg":"dir","enc":"A256GCM"}')] + c[1:],
        ),
        (
            "header_reordered",
            "PROT's members in another order",
            lambda c: [b64u(b'{"enc":"A256CBC-HS512","alg":"dir"}')] + c[1:],
        ),
        ("header_empty", "its header is empty", lambda c: [""] + c[1:]),
        ("encrypted_key", "its encrypted key is not empty", lambda c: [c[0], "AAAA"] + c[2:]),
        ("iv_12", "an iv of 12 bytes", lambda c: c[:2] + [b64u(bytes(12))] + c[3:]),
        ("ciphertext_32", "a ciphertext of 32 bytes", lambda c: c[:3] + [b64u(bytes(32))] + c[4:]),
        ("ciphertext_64", "a ciphertext of 64 bytes", lambda c: c[:3] + [b64u(bytes(64))] + c[4:]),
        ("ciphertext_empty", "no ciphertext", lambda c: c[:3] + [""] + c[4:]),
        ("tag_16", "a tag of 16 bytes", lambda c: c[:4] + [b64u(bytes(16))]),
        ("tag_padded", "a tag with padding", lambda c: c[:4] + [c[4] + "="]),
        ("trailing_space", "a space at its end", lambda c: c[:4] + [c[4] + " "]),
        (
            "iv_not_canonical",
            "an iv that is not canonical base64url",
            lambda c: c[:2] + ["AAAAAAAAAAAAAAAAAAAAAB"] + c[3:],
        ),
    ):
        yield bent("wrapped_" + name, "a wrapped key with " + comment, header=parts(edit))
    yield bent(
        "wrapped_empty", "wrapped_key is empty", header=in_path(lambda p: p.update(wrapped_key=""))
    )
    yield bent(
        "wrapped_object",
        "wrapped_key is an object",
        header=in_path(lambda p: p.update(wrapped_key={})),
    )
    made = Envelope(
        Path("password", Password()),
        Path("other", Password()),
        header=in_path(lambda p: p.update(wrapped_key=p["wrapped_key"] + "."), 1),
    )
    yield Vector(
        "wrapped_of_another_path", "format", "the fault is in a path that is not opened", made
    )
    yield bent(
        "wrapped_ecdh_es_without_recovery_key",
        "an ECDH-ES header in a path without a recovery key",
        header=parts(
            lambda c: [
                b64u(
                    dumps(
                        {"alg": "ECDH-ES", "enc": "A256CBC-HS512", "apv": "", "epk": ESCROW.jwk}
                    ).encode()
                )
            ]
            + c[1:]
        ),
    )


def recovery_keys():
    def path():
        return Path("sec", Rsa(), Password(), recovery="security-team")

    def jwe_header(edit, text=dumps):
        def hook(p):
            c = p["wrapped_key"].split(".")
            value = json.loads(pr.b64u_decode(c[0]))
            edit(value)
            p["wrapped_key"] = ".".join([b64u(text(value).encode())] + c[1:])

        return hook

    def record(edit):
        return lambda p: edit(p["recovery_key"])

    def parts(name, edit):
        def hook(p):
            owner = p if name == "wrapped_key" else p["recovery_key"]
            owner[name] = ".".join(edit(owner[name].split(".")))

        return hook

    off = dict(ESCROW.jwk, y=b64u(((ESCROW.point[1] + 1) % pr.P).to_bytes(32, "big")))
    label = "keyescrow1|fk|prod/db/orders|1|%s|" % b64u(rnd("envelope id", 16))
    for name, comment, edit in (
        (
            "apv_other_path",
            "apv names another path",
            jwe_header(lambda h: h.update(apv=b64u((label + "ops").encode()))),
        ),
        (
            "apv_recovery_label",
            "apv holds the recovery key's label in place of the key's names",
            jwe_header(
                lambda h: h.update(
                    apv=b64u(("keyescrow1|fk|@security-team|" + ESCROW.thumbprint).encode())
                )
            ),
        ),
        ("apv_empty", "apv is empty", jwe_header(lambda h: h.update(apv=""))),
        ("apv_missing", "no apv", jwe_header(lambda h: h.pop("apv"))),
        ("apu", "an apu beside apv", jwe_header(lambda h: h.update(apu="AA"))),
        ("alg_kw", "alg is ECDH-ES+A256KW", jwe_header(lambda h: h.update(alg="ECDH-ES+A256KW"))),
        ("alg_dir", "alg is dir", jwe_header(lambda h: h.update(alg="dir"))),
        ("enc_gcm", "enc is A256GCM", jwe_header(lambda h: h.update(enc="A256GCM"))),
        ("epk_off_curve", "epk is not on the curve", jwe_header(lambda h: h.update(epk=off))),
        ("epk_missing", "no epk", jwe_header(lambda h: h.pop("epk"))),
        (
            "epk_private",
            "epk holds d",
            jwe_header(lambda h: h["epk"].update(d=b64u(bytes(31) + b"\1"))),
        ),
        (
            "header_escape",
            "a backslash escape in the JWE's header",
            jwe_header(lambda h: None, lambda h: dumps(h).replace('"alg"', '"\\u0061lg"')),
        ),
        (
            "header_duplicate",
            "alg twice in the JWE's header",
            jwe_header(lambda h: None, lambda h: dumps(h).replace("{", '{"alg":"dir",', 1)),
        ),
        (
            "header_lf",
            "an LF at the end of the JWE's header",
            jwe_header(lambda h: None, lambda h: dumps(h) + "\n"),
        ),
        (
            "wrapped_is_dir",
            "wrapped_key is dir though the path has a recovery key",
            parts("wrapped_key", lambda c: [PROT] + c[1:]),
        ),
        (
            "wrapped_encrypted_key",
            "wrapped_key's encrypted key is not empty",
            parts("wrapped_key", lambda c: [c[0], "AAAA"] + c[2:]),
        ),
        (
            "wrapped_ciphertext_64",
            "wrapped_key's ciphertext has 64 bytes",
            parts("wrapped_key", lambda c: c[:3] + [b64u(bytes(64))] + c[4:]),
        ),
        ("private_four_parts", "private has four parts", parts("private", lambda c: c[:4])),
        (
            "private_header",
            "private's header is not PROT",
            parts("private", lambda c: [b64u(b'{"alg":"dir","enc":"A256GCM"}')] + c[1:]),
        ),
        (
            "private_encrypted_key",
            "private's encrypted key is not empty",
            parts("private", lambda c: [c[0], "AAAA"] + c[2:]),
        ),
        (
            "private_iv_12",
            "private's iv has 12 bytes",
            parts("private", lambda c: c[:2] + [b64u(bytes(12))] + c[3:]),
        ),
        (
            "private_tag_31",
            "private's tag has 31 bytes",
            parts("private", lambda c: c[:4] + [b64u(bytes(31))]),
        ),
        (
            "private_not_blocks",
            "private's ciphertext is not of whole blocks",
            parts("private", lambda c: c[:3] + [b64u(bytes(33))] + c[4:]),
        ),
        (
            "private_empty",
            "private's ciphertext is empty",
            parts("private", lambda c: c[:3] + [""] + c[4:]),
        ),
        ("public_off_curve", "public is not on the curve", record(lambda r: r.update(public=off))),
        ("public_kid", "public with a kid", record(lambda r: r["public"].update(kid="x"))),
        ("public_p384", "public's crv is P-384", record(lambda r: r["public"].update(crv="P-384"))),
        ("name_bar", "name with a bar", record(lambda r: r.update(name="security|team"))),
        ("name_missing", "no name", record(lambda r: r.pop("name"))),
        ("unknown_member", "a member more", record(lambda r: r.update(comment="x"))),
        ("null", "recovery_key is null", lambda p: p.update(recovery_key=None)),
        ("absent", "an ECDH-ES wrapped key, and no recovery key", lambda p: p.pop("recovery_key")),
    ):
        made = Envelope(path(), header=in_path(edit))
        yield Vector(
            "recovery_" + name,
            "format",
            "a recovery key's path: " + comment,
            made,
            **world(made, "sec")
        )
    made = Envelope(
        path(),
        header=in_path(
            jwe_header(
                lambda h: h.update(x=0),
                lambda h: dumps(h).replace(":0}", ":" + "[" * 8 + "]" * 8 + "}"),
            )
        ),
    )
    yield Vector(
        "recovery_header_depth",
        "limit",
        "nine containers deep in the JWE's header",
        made,
        **world(made, "sec")
    )
