"""Faults of the file, of JSON, of L0, P, the signature, trust and L1."""

import json

import maker
import primitives as pr
from maker import AGENT, OTHER_AGENT, Envelope, b64u
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
    yield bent("file_too_long", "one byte more than 3 MiB", "limit", file=lambda b: b + b" " * (3 * MIB + 1 - len(b)))
    yield bent("file_too_long_with_lf", "3 MiB and an LF", "limit",
               file=lambda b: b + b" " * (3 * MIB - len(b)) + b"\n")
    yield bent("l1_too_long", "L1 is one byte longer than 2 MiB", "limit",
               l1_text=lambda t: t + " " * (2 * MIB + 1 - len(t)))
    yield bent("header_too_long", "H is one byte longer than 256 KiB", "limit",
               header_text=lambda t: t + " " * (256 * 1024 + 1 - len(t)))
    yield Vector("ciphertext_too_long", "limit", "a ciphertext of 1 MiB + 32 bytes",
                 Envelope(ciphertext=bytes(MIB + 32)))


def characters():
    yield Vector("file_empty", "format", "a file of no byte", b"")
    yield Vector("file_lf_alone", "format", "a file of one LF", b"\n")
    for name, comment, edit in (
            ("two_lf", "two LFs at the end", lambda b: b + b"\n\n"),
            ("crlf", "a CR before the LF", lambda b: b + b"\r\n"),
            ("leading_lf", "an LF before the JSON text", lambda b: b"\n" + b),
            ("inner_lf", "an LF between two members", lambda b: b.replace(b',"protected"', b',\n"protected"')),
            ("tab", "a tab between two members", lambda b: b.replace(b',"protected"', b',\t"protected"')),
            ("bom", "a byte order mark", lambda b: b"\xef\xbb\xbf" + b),
            ("nul_at_end", "a NUL after the JSON text", lambda b: b + b"\0"),
            ("del", "the character 0x7F in a string", lambda b: b.replace(b'"signature":"', b'"signature":"\x7f')),
            ("utf8", "an umlaut in a member's name", lambda b: b.replace(b'"signature"', "\"signät\"".encode())),
            ("escape", "a member's name written with an escape",
             lambda b: b.replace(b'"signature"', b'"\\u0073ignature"')),
            ("escaped_slash", "a backslash before a slash",
             lambda b: b.replace(b'"signature":"', b'"signature":"\\/')),
            ("second_text", "a second JSON text after the first", lambda b: b + b"{}"),
            ("trailing_text", "a letter after the JSON text", lambda b: b + b"x"),
            ("truncated", "the last byte is missing", lambda b: b[:-1]),
            ("utf16", "the file in UTF-16", lambda b: b.decode().encode("utf-16-le"))):
        yield bent("file_" + name, comment, file=edit)
    for level, where in (("p", "P"), ("l1", "L1"), ("header", "the header")):
        yield bent("%s_trailing_lf" % level, "an LF at the end of " + where, **{level + "_text": lambda t: t + "\n"})
        yield bent("%s_tab" % level, "a tab in " + where, **{level + "_text": swap(",", ",\t")})
        yield bent("%s_escape" % level, "a backslash escape in " + where,
                   **{level + "_text": swap('"alg"' if level == "p" else '"iv"' if level == "l1" else '"host"',
                                            '"\\u0061lg"' if level == "p" else '"\\u0069v"' if level == "l1"
                                            else '"\\u0068ost"')})
        yield bent("%s_not_utf8" % level, "a byte above 0x7E in a string of " + where,
                   **{level + "_text": swap('":"', '":"\xe9')})
        yield bent("%s_trailing_text" % level, "a second JSON text in " + where,
                   **{level + "_text": lambda t: t + " []"})


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
            ("array_trailing_comma", "a comma after the last path", lambda t: t.replace('}],"', '},],"')
             if '}],"' in t else t[:-2] + ",]}"),
            ("unclosed", "the last brace is missing", lambda t: t[:-1])):
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
            ("two_to_32_plus_1", str(2**32 + 1), "a number that would wrap to 1 in 32 bits", "limit")):
        yield bent("number_" + name, comment, expect, header_text=swap('"key_version":1', '"key_version":' + text))


def depth():
    nest = "[" * 8 + "]" * 8
    yield bent("depth_l0", "nine containers deep in L0", "limit", l0_text=lambda t: t[:-1] + ',"x":%s}' % nest)
    yield bent("depth_p", "nine containers deep in P", "limit", p_text=lambda t: t[:-1] + ',"x":%s}' % nest)
    yield bent("depth_l1", "nine containers deep in L1", "limit", l1_text=lambda t: t[:-1] + ',"x":%s}' % nest)
    yield bent("depth_header", "nine containers deep in the header", "limit",
               header_text=lambda t: t[:-1] + ',"x":%s}' % nest)
    yield bent("depth_header_objects", "nine objects deep in the header", "limit",
               header_text=lambda t: t[:-1] + ',"x":%s}' % ('{"x":' * 7 + "{}" + "}" * 7))
    yield bent("depth_bomb", "a hundred thousand brackets", "limit", file=lambda b: b"[" * 100000)
    yield bent("depth_eight_unknown_member", "eight containers are permitted; the member that holds them is not",
               header_text=lambda t: t[:-1] + ',"x":%s}' % ("[" * 7 + "]" * 7))


def duplicates():
    yield bent("duplicate_l0_signature", "L0 has signature twice, alike",
               l0_text=lambda t: t[:-1] + ',"signature":%s}' % json.dumps(json.loads(t)["signature"]))
    yield bent("duplicate_l0_payload", "L0 has payload twice", l0_text=swap("{", '{"payload":"e30",'))
    yield bent("duplicate_p_alg", "P has alg twice", p_text=swap("{", '{"alg":"none",'))
    yield bent("duplicate_jwk_crv", "P.jwk has crv twice", p_text=swap('"crv":"P-256"', '"crv":"P-256","crv":"P-256"'))
    yield bent("duplicate_l1_iv", "L1 has iv twice", l1_text=swap('"iv"', '"iv":"AAAAAAAAAAAAAAAAAAAAAA","iv"'))
    yield bent("duplicate_header_host", "the header has host twice", header_text=swap('"host"', '"host":"db2","host"'))
    yield bent("duplicate_header_paths", "the header has paths twice",
               header_text=swap('"paths"', '"paths":[],"paths"'))
    yield bent("duplicate_path_id", "a path has the member id twice", header_text=swap('{"id"', '{"id":"a","id"'))
    yield bent("duplicate_factor_t", "a factor has t twice", header_text=swap('"t":2', '"t":2,"t":2'))


def unknown_and_missing():
    for level, name in (("l0", "header"), ("p", "crit"), ("l1", "recipients"), ("header", "extra")):
        yield bent("unknown_%s_%s" % (level, name), "an unknown member in " + level, **{level: member(name, "x")})
    for level, name in (("l0", "signature"), ("p", "typ"), ("p", "jwk"), ("l1", "iv"), ("l1", "aad")):
        yield bent("missing_%s_%s" % (level, name), "%s without %s" % (level, name), **{level: member(name, None)})
    yield bent("unknown_jwk_use", "P.jwk with a member more", p=lambda p: p["jwk"].update(use="sig"))
    yield bent("missing_jwk_y", "P.jwk without y", p=lambda p: p["jwk"].pop("y") and None)
    yield bent("l0_general_serialization", "the general serialization: an array of signatures",
               l0=lambda v: {"payload": v["payload"], "signatures": [
                   {"protected": v["protected"], "signature": v["signature"]}]})
    for level, name in (("l0", "payload"), ("p", "kid"), ("l1", "ciphertext")):
        yield bent("type_%s_%s" % (level, name), "%s.%s is a number" % (level, name), **{level: member(name, 1)})
    yield bent("type_l0_array", "L0 is an array", l0=lambda v: list(v.values()))
    yield bent("type_p_array", "P is an array", p=lambda v: list(v.values()))
    yield bent("type_l1_string", "L1 is a string", l1=lambda v: "l1")
    yield bent("type_jwk_null", "P.jwk is null", p_text=lambda t: json.dumps(dict(json.loads(t), jwk=None)))


def base64url():
    yield bent("b64_payload_padded", "payload with padding", l1_text=lambda t: t + " " * ((1 - len(t)) % 3),
               l0=lambda v: v.update(payload=v["payload"] + "=="))
    yield bent("b64_payload_not_canonical", "bits set in payload's last character that no byte holds",
               l1_text=lambda t: t + " " * ((1 - len(t)) % 3), l0=lambda v: v.update(payload=v["payload"][:-1] + "B"))
    yield bent("b64_payload_length", "payload of 4n + 1 characters", l1_text=lambda t: t + " " * (-len(t) % 3),
               l0=lambda v: v.update(payload=v["payload"] + "A"))
    yield bent("b64_signature_padded", "signature with padding", l0=lambda v: v.update(signature=v["signature"] + "=="))
    yield bent("b64_signature_not_canonical", "bits set in signature's last character that no byte holds",
               l0=lambda v: v.update(signature=_next_character(v["signature"])))
    yield bent("b64_protected_padded", "P with padding", p_text=lambda t: t + " " * ((2 - len(t)) % 3),
               l0=lambda v: v.update(protected=v["protected"] + "="))
    yield bent("b64_standard_alphabet", "signature in the standard alphabet",
               l0=lambda v: v.update(signature="+/" + v["signature"][2:]))
    yield bent("b64_iv_not_canonical", "bits set in iv's last character that no byte holds",
               l1=lambda v: v.update(iv=_next_character(v["iv"])))
    yield bent("b64_tag_padded", "tag with padding", l1=lambda v: v.update(tag=v["tag"] + "="))
    yield bent("b64_ciphertext_space", "a space within ciphertext",
               l1=lambda v: v.update(ciphertext=v["ciphertext"][:4] + " " + v["ciphertext"][4:]))
    yield bent("b64_jwk_x_not_canonical", "bits set in x's last character that no byte holds",
               p=lambda p: p["jwk"].update(x=_next_character(p["jwk"]["x"])))


def _next_character(text):
    """The same bytes, not canonical: the last character's lowest bit set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    at = alphabet.index(text[-1])
    assert at % 2 == 0
    return text[:-1] + alphabet[at + 1]


def jws_header():
    for name, value, comment in (("alg", "ES384", "alg is ES384"), ("alg", "none", "alg is none"),
                                 ("alg", "es256", "alg in lower case"), ("typ", "JWT", "typ is JWT"),
                                 ("kid", OTHER_AGENT.thumbprint, "kid is another key's thumbprint"),
                                 ("kid", "", "kid is empty")):
        label = "%s_%s" % (name, value.lower() if len(value) in range(1, 6) else "empty" if not value else "other")
        label += "_case" if value == "es256" else ""
        yield bent("jws_" + label, comment, p=member(name, value))
    bad = dict(AGENT.jwk, y=b64u(((AGENT.point[1] + 1) % pr.P).to_bytes(32, "big")))
    yield _with_jwk("jws_jwk_off_curve", "P.jwk is not on the curve; kid is its thumbprint", bad)
    yield _with_jwk("jws_jwk_zero", "P.jwk is (0, 0)", dict(AGENT.jwk, x=b64u(bytes(32)), y=b64u(bytes(32))))
    x = 5  # a curve point's x that still fits 32 bytes with p added
    y = pow((x**3 - 3 * x + pr.CURVE_B) % pr.P, (pr.P + 1) // 4, pr.P)
    assert pr.on_curve(x, y)
    yield _with_jwk("jws_jwk_x_above_p", "P.jwk's x is p too large: the same point, not below p",
                    dict(AGENT.jwk, x=b64u((x + pr.P).to_bytes(32, "big")), y=b64u(y.to_bytes(32, "big"))))
    yield _with_jwk("jws_jwk_short_x", "P.jwk's x has 31 bytes", dict(AGENT.jwk, x=b64u(bytes(31))))
    yield _with_jwk("jws_jwk_long_x", "P.jwk's x has a zero byte in front",
                    dict(AGENT.jwk, x=b64u(b"\0" + pr.b64u_decode(AGENT.jwk["x"]))))
    yield _with_jwk("jws_jwk_p384", "P.jwk's crv is P-384", dict(AGENT.jwk, crv="P-384"))
    yield _with_jwk("jws_jwk_rsa", "P.jwk's kty is RSA", dict(AGENT.jwk, kty="RSA"))
    yield _with_jwk("jws_jwk_private", "P.jwk holds the private key",
                    dict(AGENT.jwk, d=b64u(AGENT.d.to_bytes(32, "big"))))


def _with_jwk(name, comment, jwk):
    thumb = pr.thumbprint(jwk)
    made = Envelope(p=lambda p: p.update(jwk=jwk, kid=thumb), members={"agent": thumb})
    return Vector(name, "format", comment, made, trust=thumb)


def signatures():
    n = pr.N.to_bytes(32, "big")
    for name, comment, edit in (
            ("bit", "one bit of the signature is flipped", lambda s: s[:40] + bytes([s[40] ^ 1]) + s[41:]),
            ("r_zero", "R is 0", lambda s: bytes(32) + s[32:]),
            ("s_zero", "S is 0", lambda s: s[:32] + bytes(32)),
            ("r_n", "R is n", lambda s: n + s[32:]),
            ("s_n", "S is n", lambda s: s[:32] + n),
            ("s_max", "S is 2^256 - 1", lambda s: s[:32] + b"\xff" * 32),
            ("zero", "R and S are 0", lambda s: bytes(64)),
            ("swapped", "S || R", lambda s: s[32:] + s[:32])):
        yield bent("signature_" + name, comment, "signature", signature=edit)
    yield bent("signature_63_bytes", "a signature of 63 bytes", signature=lambda s: s[:63])
    yield bent("signature_65_bytes", "a signature of 65 bytes", signature=lambda s: s + b"\0")
    yield bent("signature_der", "the signature as DER", signature=lambda s: pr.der(
        0x30, pr.der_int(int.from_bytes(s[:32], "big")), pr.der_int(int.from_bytes(s[32:], "big"))))
    yield bent("signature_empty", "an empty signature", signature=lambda s: b"")
    yield bent("signature_payload_changed", "a character of the payload is changed", "signature",
               l0=lambda v: v.update(payload=v["payload"][:20] + chr(ord(v["payload"][20]) ^ 1) + v["payload"][21:]))
    yield bent("signature_p_respaced", "P with a space more: the same members, other bytes", "signature",
               l0=lambda v: v.update(protected=b64u(b" " + pr.b64u_decode(v["protected"]))))
    made = Envelope(l0=lambda v: v.update(signature=b64u(pr.ecdsa_sign(
        OTHER_AGENT.d, (v["protected"] + "." + v["payload"]).encode()))))
    yield Vector("signature_of_another_agent", "signature", "signed by a trusted agent's neighbour", made)


def trust():
    made = Envelope()
    yield Vector("trust_nobody", "signature", "no agent is trusted", made, trust=None)
    yield Vector("trust_another", "signature", "another agent is trusted", made, trust=OTHER_AGENT.thumbprint)
    for name, scope, comment in (
            ("host", "hosts=db2", "the agent may sign for another host"),
            ("host_prefix", "hosts=db", "a pattern is the whole name, not its beginning"),
            ("host_case", "hosts=DB1", "patterns mind the case"),
            ("key", "keys=test/**", "the agent may sign for other keys"),
            ("key_star", "keys=prod/*", "one star does not cross a slash"),
            ("key_dot", "keys=prod.db.orders", "a dot is a dot"),
            ("key_of_two", "hosts=db1 keys=test/*,dev/**", "the host is in scope, the key is not"),
            ("host_of_two", "hosts=web*,db2 keys=prod/**", "the key is in scope, the host is not")):
        yield Vector("trust_scope_" + name, "signature", comment, made, trust=AGENT.thumbprint + " " + scope)


def l1_members():
    other = b64u(b'{"enc":"A256CBC-HS512","alg":"dir"}')
    yield bent("l1_protected_reordered", "the same members of PROT in another order",
               l1=member("protected", other))
    yield bent("l1_protected_gcm", "enc is A256GCM", l1=member("protected", b64u(b'{"alg":"dir","enc":"A256GCM"}')))
    yield bent("l1_protected_empty", "protected is empty", l1=member("protected", ""))
    for name, size in (("iv", 15), ("iv", 17), ("iv", 0), ("tag", 31), ("tag", 33), ("tag", 16), ("ciphertext", 0),
                       ("ciphertext", 47), ("ciphertext", 1)):
        yield bent("l1_%s_%d_bytes" % (name, size), "%s of %d bytes" % (name, size),
                   l1=member(name, b64u(maker.rnd(name, size))))
    yield bent("l1_aad_empty", "the header is empty", l1=member("aad", ""))
    yield bent("l1_aad_padded", "aad with padding", header_text=lambda t: t + " " * ((2 - len(t)) % 3),
               l1=lambda v: v.update(aad=v["aad"] + "="))


def stages():
    """Two faults of different stages: the earlier one names the failure."""
    flip = {"signature": lambda s: bytes(64)}
    both = "two faults: "
    yield bent("order_size_before_characters", both + "too long, with a NUL at the end", "limit",
               file=lambda b: b + b" " * (3 * MIB - len(b)) + b"\0")
    yield bent("order_characters_before_depth", both + "a NUL after nine brackets",
               file=lambda b: b"[" * 9 + b"\0")
    yield bent("order_json_before_shape", both + "nine brackets deep, and not a JWS", "limit",
               file=lambda b: b"[" * 9 + b"]" * 9)
    yield bent("order_shape_before_signature", both + "typ wrong and the signature bad",
               p=member("typ", "JWT"), **flip)
    yield bent("order_signature_before_l1_size", both + "a bad signature over a long L1", "signature",
               l1_text=lambda t: t + " " * (2 * MIB + 1 - len(t)), **flip)
    yield bent("order_signature_before_l1", both + "a bad signature over an L1 that is no JSON", "signature",
               l1_text=lambda t: t[:-1], **flip)
    yield bent("order_signature_before_header", both + "a bad signature over a header with 17 paths", "signature",
               header=lambda h: h.update(paths=h["paths"] * 17), **flip)
    yield Vector("order_trust_before_l1", "signature", both + "nobody trusted, and an L1 that is no JSON",
                 Envelope(l1_text=lambda t: t[:-1]), trust=None)
    yield Vector("order_header_before_scope", "format", both + "no path, and out of the agent's scope",
                 Envelope(header=lambda h: h.update(paths=[])), trust=AGENT.thumbprint + " hosts=db2")
    yield Vector("order_scope_before_factors", "signature", both + "out of scope, and no such path",
                 Envelope(), trust=AGENT.thumbprint + " hosts=db2", path="nobody")
    yield Vector("order_header_before_factors", "limit", both + "t above its cap, and no password",
                 Envelope(header_text=swap('"t":2', '"t":33')), password=None)
    yield Vector("order_kdf_caps_before_tag", "limit", both + "t times m above its cap, and a bad tag",
                 Envelope(header_text=swap('"t":2,"m":19456', '"t":9,"m":4194304'),
                          l1=member("tag", b64u(bytes(32)))))
    yield Vector("order_factors_before_tag", "unwrap", both + "a wrong password, and a bad tag",
                 Envelope(l1=member("tag", b64u(bytes(32)))), password="wrong")
    yield Vector("order_l1_characters_before_depth", "format", both + "an LF in L1, and nine brackets",
                 Envelope(l1_text=lambda t: t[:-1] + ',"x":%s}\n' % ("[" * 8 + "]" * 8)))
    yield Vector("order_header_size_before_characters", "limit", both + "H too long, with an LF at its end",
                 Envelope(header_text=lambda t: t + " " * (256 * 1024 + 1 - len(t)) + "\n"))
