"""Faults of the file, of JSON, of members in L0, P, L1 and of base64url."""

import json

from maker import Envelope
from scenario import Vector

MIB = 1024 * 1024


def swap(old, new, count=1):
    """A hook that replaces text which must be there."""

    def hook(text):
        assert old in text, old
        return text.replace(old, new, count)

    return hook


def member(name, value):
    """A hook that sets one member; a value of None removes it."""

    def hook(level):
        if value is None:
            del level[name]
        else:
            level[name] = value

    return hook


def bent(name, comment, expect="format", **hooks):
    return Vector(name, expect, comment, Envelope(**hooks))


def file_size():
    yield bent(
        "file_too_long",
        "one byte more than 3 MiB",
        "limit",
        file=lambda b: b + b" " * (3 * MIB + 1 - len(b)),
    )
    yield bent(
        "file_too_long_with_lf",
        "3 MiB and an LF",
        "limit",
        file=lambda b: b + b" " * (3 * MIB - len(b)) + b"\n",
    )
    yield bent(
        "l1_too_long",
        "L1 is one byte longer than 2 MiB",
        "limit",
        l1_text=lambda t: t + " " * (2 * MIB + 1 - len(t)),
    )
    yield bent(
        "header_too_long",
        "H is one byte longer than 256 KiB",
        "limit",
        header_text=lambda t: t + " " * (256 * 1024 + 1 - len(t)),
    )
    yield Vector(
        "ciphertext_too_long",
        "limit",
        "a ciphertext of 1 MiB + 32 bytes",
        Envelope(ciphertext=bytes(MIB + 32)),
    )


def characters():
    yield Vector("file_empty", "format", "a file of no byte", b"")
    yield Vector("file_lf_alone", "format", "a file of one LF", b"\n")
    for name, comment, edit in (
        ("two_lf", "two LFs at the end", lambda b: b + b"\n\n"),
        ("crlf", "a CR before the LF", lambda b: b + b"\r\n"),
        ("leading_lf", "an LF before the JSON text", lambda b: b"\n" + b),
        (
            "inner_lf",
            "an LF between two members",
            lambda b: b.replace(b',"protected"', b',\n"protected"'),
        ),
        (
            "tab",
            "a tab between two members",
            lambda b: b.replace(b',"protected"', b',\t"protected"'),
        ),
        ("bom", "a byte order mark", lambda b: b"\xef\xbb\xbf" + b),
        ("nul_at_end", "a NUL after the JSON text", lambda b: b + b"\0"),
        (
            "del",
            "the character 0x7F in a string",
            lambda b: b.replace(b'"signature":"', b'"signature":"\x7f'),
        ),
        (
            "utf8",
            "an umlaut in a member's name",
            lambda b: b.replace(b'"signature"', '"signät"'.encode()),
        ),
        (
            "escape",
            "a member's name written with an escape",
            lambda b: b.replace(b'"signature"', b'"\\u0073ignature"'),
        ),
        (
            "escaped_slash",
            "a backslash before a slash",
            lambda b: b.replace(b'"signature":"', b'"signature":"\\/'),
        ),
        ("second_text", "a second JSON text after the first", lambda b: b + b"{}"),
        ("trailing_text", "a letter after the JSON text", lambda b: b + b"x"),
        ("truncated", "the last byte is missing", lambda b: b[:-1]),
        ("utf16", "the file in UTF-16", lambda b: b.decode().encode("utf-16-le")),
    ):
        yield bent("file_" + name, comment, file=edit)
    for level, where in (("p", "P"), ("l1", "L1"), ("header", "the header")):
        yield bent(
            "%s_trailing_lf" % level,
            "an LF at the end of " + where,
            **{level + "_text": lambda t: t + "\n"}
        )
        yield bent("%s_tab" % level, "a tab in " + where, **{level + "_text": swap(",", ",\t")})
        yield bent(
            "%s_escape" % level,
            "a backslash escape in " + where,
            **{
                level
                + "_text": swap(
                    '"alg"' if level == "p" else '"iv"' if level == "l1" else '"host"',
                    '"\\u0061lg"'
                    if level == "p"
                    else '"\\u0069v"'
                    if level == "l1"
                    else '"\\u0068ost"',
                )
            }
        )
        yield bent(
            "%s_not_utf8" % level,
            "a byte above 0x7E in a string of " + where,
            **{level + "_text": swap('":"', '":"\xe9')}
        )
        yield bent(
            "%s_trailing_text" % level,
            "a second JSON text in " + where,
            **{level + "_text": lambda t: t + " []"}
        )


def json_grammar():
    for name, comment, edit in (
        ("single_quotes", "strings in single quotes", lambda t: t.replace('"host"', "'host'")),
        ("trailing_comma", "a comma after the last member", lambda t: t[:-1] + ",}"),
        ("missing_comma", "no comma between two members", swap(',"host"', ' "host"')),
        ("missing_colon", "no colon after a member's name", swap('"host":', '"host"')),
        ("comment", "a comment", swap(',"host"', ',/**/"host"')),
        ("unquoted_name", "a member's name without quotes", swap('"host":', "host:")),
        ("nan", "NaN for a number", swap('"revision":1', '"revision":NaN')),
        ("word_case", "True for true", swap('"revision":1', '"revision":True')),
        (
            "array_trailing_comma",
            "a comma after the last path",
            lambda t: t.replace('}],"', '},],"') if '}],"' in t else t[:-2] + ",]}",
        ),
        ("unclosed", "the last brace is missing", lambda t: t[:-1]),
    ):
        yield bent("json_" + name, comment, header_text=edit)
    for name, text, comment, expect in (
        ("leading_zero", "01", "a number with a leading zero", "format"),
        ("plus", "+1", "a number with a plus sign", "format"),
        ("exponent", "1e0", "a number with an exponent", "format"),
        ("fraction", "1.0", "a number with a fraction", "format"),
        ("bare_fraction", ".1", "a number that begins with a point", "format"),
        ("hexadecimal", "0x1", "a hexadecimal number", "format"),
        ("bare_minus", "-", "a minus sign alone", "format"),
        ("minus_leading_zero", "-01", "a negative number with a leading zero", "format"),
        ("negative", "-1", "a negative number is read and out of range", "limit"),
        ("minus_zero", "-0", "minus zero is read and out of range", "limit"),
        ("huge", "1" + "0" * 5000, "a number of 5001 digits is read and out of range", "limit"),
        ("two_to_64_plus_1", str(2**64 + 1), "a number that would wrap to 1 in 64 bits", "limit"),
        ("two_to_32_plus_1", str(2**32 + 1), "a number that would wrap to 1 in 32 bits", "limit"),
    ):
        yield bent(
            "number_" + name,
            comment,
            expect,
            header_text=swap('"key_version":1', '"key_version":' + text),
        )


def depth():
    nest = "[" * 8 + "]" * 8
    yield bent(
        "depth_l0",
        "nine containers deep in L0",
        "limit",
        l0_text=lambda t: t[:-1] + ',"x":%s}' % nest,
    )
    yield bent(
        "depth_p", "nine containers deep in P", "limit", p_text=lambda t: t[:-1] + ',"x":%s}' % nest
    )
    yield bent(
        "depth_l1",
        "nine containers deep in L1",
        "limit",
        l1_text=lambda t: t[:-1] + ',"x":%s}' % nest,
    )
    yield bent(
        "depth_header",
        "nine containers deep in the header",
        "limit",
        header_text=lambda t: t[:-1] + ',"x":%s}' % nest,
    )
    yield bent(
        "depth_header_objects",
        "nine objects deep in the header",
        "limit",
        header_text=lambda t: t[:-1] + ',"x":%s}' % ('{"x":' * 7 + "{}" + "}" * 7),
    )
    yield bent("depth_bomb", "a hundred thousand brackets", "limit", file=lambda b: b"[" * 100000)
    yield bent(
        "depth_eight_unknown_member",
        "eight containers are permitted; the member that holds them is not",
        header_text=lambda t: t[:-1] + ',"x":%s}' % ("[" * 7 + "]" * 7),
    )


def duplicates():
    yield bent(
        "duplicate_l0_signature",
        "L0 has signature twice, alike",
        l0_text=lambda t: t[:-1] + ',"signature":%s}' % json.dumps(json.loads(t)["signature"]),
    )
    yield bent(
        "duplicate_l0_payload", "L0 has payload twice", l0_text=swap("{", '{"payload":"e30",')
    )
    yield bent("duplicate_p_alg", "P has alg twice", p_text=swap("{", '{"alg":"none",'))
    yield bent(
        "duplicate_jwk_crv",
        "P.jwk has crv twice",
        p_text=swap('"crv":"P-256"', '"crv":"P-256","crv":"P-256"'),
    )
    yield bent(
        "duplicate_l1_iv",
        "L1 has iv twice",
        l1_text=swap('"iv"', '"iv":"AAAAAAAAAAAAAAAAAAAAAA","iv"'),
    )
    yield bent(
        "duplicate_header_host",
        "the header has host twice",
        header_text=swap('"host"', '"host":"db2","host"'),
    )
    yield bent(
        "duplicate_header_paths",
        "the header has paths twice",
        header_text=swap('"paths"', '"paths":[],"paths"'),
    )
    yield bent(
        "duplicate_path_id",
        "a path has the member id twice",
        header_text=swap('{"id"', '{"id":"a","id"'),
    )
    yield bent(
        "duplicate_factor_t", "a factor has t twice", header_text=swap('"t":2', '"t":2,"t":2')
    )


def unknown_and_missing():
    for level, name in (("l0", "header"), ("p", "crit"), ("l1", "recipients"), ("header", "extra")):
        yield bent(
            "unknown_%s_%s" % (level, name),
            "an unknown member in " + level,
            **{level: member(name, "x")}
        )
    for level, name in (
        ("l0", "signature"),
        ("p", "typ"),
        ("p", "jwk"),
        ("l1", "iv"),
        ("l1", "aad"),
    ):
        yield bent(
            "missing_%s_%s" % (level, name),
            "%s without %s" % (level, name),
            **{level: member(name, None)}
        )
    yield bent(
        "unknown_jwk_use", "P.jwk with a member more", p=lambda p: p["jwk"].update(use="sig")
    )
    yield bent("missing_jwk_y", "P.jwk without y", p=lambda p: p["jwk"].pop("y") and None)
    yield bent(
        "l0_general_serialization",
        "the general serialization: an array of signatures",
        l0=lambda v: {
            "payload": v["payload"],
            "signatures": [{"protected": v["protected"], "signature": v["signature"]}],
        },
    )
    for level, name in (("l0", "payload"), ("p", "kid"), ("l1", "ciphertext")):
        yield bent(
            "type_%s_%s" % (level, name),
            "%s.%s is a number" % (level, name),
            **{level: member(name, 1)}
        )
    yield bent("type_l0_array", "L0 is an array", l0=lambda v: list(v.values()))
    yield bent("type_p_array", "P is an array", p=lambda v: list(v.values()))
    yield bent("type_l1_string", "L1 is a string", l1=lambda v: "l1")
    yield bent(
        "type_jwk_null", "P.jwk is null", p_text=lambda t: json.dumps(dict(json.loads(t), jwk=None))
    )


def base64url():
    yield bent(
        "b64_payload_padded",
        "payload with padding",
        l1_text=lambda t: t + " " * ((1 - len(t)) % 3),
        l0=lambda v: v.update(payload=v["payload"] + "=="),
    )
    yield bent(
        "b64_payload_not_canonical",
        "bits set in payload's last character that no byte holds",
        l1_text=lambda t: t + " " * ((1 - len(t)) % 3),
        l0=lambda v: v.update(payload=v["payload"][:-1] + "B"),
    )
    yield bent(
        "b64_payload_length",
        "payload of 4n + 1 characters",
        l1_text=lambda t: t + " " * (-len(t) % 3),
        l0=lambda v: v.update(payload=v["payload"] + "A"),
    )
    yield bent(
        "b64_signature_padded",
        "signature with padding",
        l0=lambda v: v.update(signature=v["signature"] + "=="),
    )
    yield bent(
        "b64_signature_not_canonical",
        "bits set in signature's last character that no byte holds",
        l0=lambda v: v.update(signature=_next_character(v["signature"])),
    )
    yield bent(
        "b64_protected_padded",
        "P with padding",
        p_text=lambda t: t + " " * ((2 - len(t)) % 3),
        l0=lambda v: v.update(protected=v["protected"] + "="),
    )
    yield bent(
        "b64_standard_alphabet",
        "signature in the standard alphabet",
        l0=lambda v: v.update(signature="+/" + v["signature"][2:]),
    )
    yield bent(
        "b64_iv_not_canonical",
        "bits set in iv's last character that no byte holds",
        l1=lambda v: v.update(iv=_next_character(v["iv"])),
    )
    yield bent("b64_tag_padded", "tag with padding", l1=lambda v: v.update(tag=v["tag"] + "="))
    yield bent(
        "b64_ciphertext_space",
        "a space within ciphertext",
        l1=lambda v: v.update(ciphertext=v["ciphertext"][:4] + " " + v["ciphertext"][4:]),
    )
    yield bent(
        "b64_jwk_x_not_canonical",
        "bits set in x's last character that no byte holds",
        p=lambda p: p["jwk"].update(x=_next_character(p["jwk"]["x"])),
    )


def _next_character(text):
    """The same bytes, not canonical: the last character's lowest bit set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    at = alphabet.index(text[-1])
    assert at % 2 == 0
    return text[:-1] + alphabet[at + 1]
