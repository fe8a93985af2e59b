"""Faults of P, the signature, trust and L1; and the order of the stages."""


import maker
import primitives as pr
from maker import AGENT, OTHER_AGENT, Envelope, b64u
from scenario import Vector
from hostile_framing import MIB, bent, member, swap


def jws_header():
    for name, value, comment in (
        ("alg", "ES384", "alg is ES384"),
        ("alg", "none", "alg is none"),
        ("alg", "es256", "alg in lower case"),
        ("typ", "JWT", "typ is JWT"),
        ("kid", OTHER_AGENT.thumbprint, "kid is another key's thumbprint"),
        ("kid", "", "kid is empty"),
    ):
        label = "%s_%s" % (
            name,
            value.lower() if len(value) in range(1, 6) else "empty" if not value else "other",
        )
        label += "_case" if value == "es256" else ""
        yield bent("jws_" + label, comment, p=member(name, value))
    bad = dict(AGENT.jwk, y=b64u(((AGENT.point[1] + 1) % pr.P).to_bytes(32, "big")))
    yield _with_jwk("jws_jwk_off_curve", "P.jwk is not on the curve; kid is its thumbprint", bad)
    yield _with_jwk(
        "jws_jwk_zero", "P.jwk is (0, 0)", dict(AGENT.jwk, x=b64u(bytes(32)), y=b64u(bytes(32)))
    )
    x = 5  # a curve point's x that still fits 32 bytes with p added
    y = pow((x**3 - 3 * x + pr.CURVE_B) % pr.P, (pr.P + 1) // 4, pr.P)
    assert pr.on_curve(x, y)
    yield _with_jwk(
        "jws_jwk_x_above_p",
        "P.jwk's x is p too large: the same point, not below p",
        dict(AGENT.jwk, x=b64u((x + pr.P).to_bytes(32, "big")), y=b64u(y.to_bytes(32, "big"))),
    )
    yield _with_jwk("jws_jwk_short_x", "P.jwk's x has 31 bytes", dict(AGENT.jwk, x=b64u(bytes(31))))
    yield _with_jwk(
        "jws_jwk_long_x",
        "P.jwk's x has a zero byte in front",
        dict(AGENT.jwk, x=b64u(b"\0" + pr.b64u_decode(AGENT.jwk["x"]))),
    )
    yield _with_jwk("jws_jwk_p384", "P.jwk's crv is P-384", dict(AGENT.jwk, crv="P-384"))
    yield _with_jwk("jws_jwk_rsa", "P.jwk's kty is RSA", dict(AGENT.jwk, kty="RSA"))
    yield _with_jwk(
        "jws_jwk_private",
        "P.jwk holds the private key",
        dict(AGENT.jwk, d=b64u(AGENT.d.to_bytes(32, "big"))),
    )


def _with_jwk(name, comment, jwk):
    thumb = pr.thumbprint(jwk)
    made = Envelope(p=lambda p: p.update(jwk=jwk, kid=thumb), members={"agent": thumb})
    return Vector(name, "format", comment, made, trust=thumb)


def signatures():
    n = pr.N.to_bytes(32, "big")
    for name, comment, edit in (
        (
            "bit",
            "one bit of the signature is flipped",
            lambda s: s[:40] + bytes([s[40] ^ 1]) + s[41:],
        ),
        ("r_zero", "R is 0", lambda s: bytes(32) + s[32:]),
        ("s_zero", "S is 0", lambda s: s[:32] + bytes(32)),
        ("r_n", "R is n", lambda s: n + s[32:]),
        ("s_n", "S is n", lambda s: s[:32] + n),
        ("s_max", "S is 2^256 - 1", lambda s: s[:32] + b"\xff" * 32),
        ("zero", "R and S are 0", lambda s: bytes(64)),
        ("swapped", "S || R", lambda s: s[32:] + s[:32]),
    ):
        yield bent("signature_" + name, comment, "signature", signature=edit)
    yield bent("signature_63_bytes", "a signature of 63 bytes", signature=lambda s: s[:63])
    yield bent("signature_65_bytes", "a signature of 65 bytes", signature=lambda s: s + b"\0")
    yield bent(
        "signature_der",
        "the signature as DER",
        signature=lambda s: pr.der(
            0x30,
            pr.der_int(int.from_bytes(s[:32], "big")),
            pr.der_int(int.from_bytes(s[32:], "big")),
        ),
    )
    yield bent("signature_empty", "an empty signature", signature=lambda s: b"")
    yield bent(
        "signature_payload_changed",
        "a character of the payload is changed",
        "signature",
        l0=lambda v: v.update(
            payload=v["payload"][:20] + chr(ord(v["payload"][20]) ^ 1) + v["payload"][21:]
        ),
    )
    yield bent(
        "signature_p_respaced",
        "P with a space more: the same members, other bytes",
        "signature",
        l0=lambda v: v.update(protected=b64u(b" " + pr.b64u_decode(v["protected"]))),
    )
    made = Envelope(
        l0=lambda v: v.update(
            signature=b64u(
                pr.ecdsa_sign(OTHER_AGENT.d, (v["protected"] + "." + v["payload"]).encode())
            )
        )
    )
    yield Vector(
        "signature_of_another_agent", "signature", "signed by a trusted agent's neighbour", made
    )


def trust():
    made = Envelope()
    yield Vector("trust_nobody", "signature", "no agent is trusted", made, trust=None)
    yield Vector(
        "trust_another", "signature", "another agent is trusted", made, trust=OTHER_AGENT.thumbprint
    )
    for name, scope, comment in (
        ("host", "hosts=db2", "the agent may sign for another host"),
        ("host_prefix", "hosts=db", "a pattern is the whole name, not its beginning"),
        ("host_case", "hosts=DB1", "patterns mind the case"),
        ("key", "keys=test/**", "the agent may sign for other keys"),
        ("key_star", "keys=prod/*", "one star does not cross a slash"),
        ("key_dot", "keys=prod.db.orders", "a dot is a dot"),
        ("key_of_two", "hosts=db1 keys=test/*,dev/**", "the host is in scope, the key is not"),
        ("host_of_two", "hosts=web*,db2 keys=prod/**", "the key is in scope, the host is not"),
    ):
        yield Vector(
            "trust_scope_" + name, "signature", comment, made, trust=AGENT.thumbprint + " " + scope
        )


def l1_members():
    other = b64u(b'{"enc":"A256CBC-HS512","alg":"dir"}')
    yield bent(
        "l1_protected_reordered",
        "the same members of PROT in another order",
        l1=member("protected", other),
    )
    yield bent(
        "l1_protected_gcm",
        "enc is A256GCM",
        l1=member("protected", b64u(b'{"alg":"dir","enc":"A256GCM"}')),
    )
    yield bent("l1_protected_empty", "protected is empty", l1=member("protected", ""))
    for name, size in (
        ("iv", 15),
        ("iv", 17),
        ("iv", 0),
        ("tag", 31),
        ("tag", 33),
        ("tag", 16),
        ("ciphertext", 0),
        ("ciphertext", 47),
        ("ciphertext", 1),
    ):
        yield bent(
            "l1_%s_%d_bytes" % (name, size),
            "%s of %d bytes" % (name, size),
            l1=member(name, b64u(maker.rnd(name, size))),
        )
    yield bent("l1_aad_empty", "the header is empty", l1=member("aad", ""))
    yield bent(
        "l1_aad_padded",
        "aad with padding",
        header_text=lambda t: t + " " * ((2 - len(t)) % 3),
        l1=lambda v: v.update(aad=v["aad"] + "="),
    )


def stages():
    """Two faults of different stages: the earlier one names the failure."""
    flip = {"signature": lambda s: bytes(64)}
    both = "two faults: "
    yield bent(
        "order_size_before_characters",
        both + "too long, with a NUL at the end",
        "limit",
        file=lambda b: b + b" " * (3 * MIB - len(b)) + b"\0",
    )
    yield bent(
        "order_characters_before_depth",
        both + "a NUL after nine brackets",
        file=lambda b: b"[" * 9 + b"\0",
    )
    yield bent(
        "order_json_before_shape",
        both + "nine brackets deep, and not a JWS",
        "limit",
        file=lambda b: b"[" * 9 + b"]" * 9,
    )
    yield bent(
        "order_shape_before_signature",
        both + "typ wrong and the signature bad",
        p=member("typ", "JWT"),
        **flip
    )
    yield bent(
        "order_signature_before_l1_size",
        both + "a bad signature over a long L1",
        "signature",
        l1_text=lambda t: t + " " * (2 * MIB + 1 - len(t)),
        **flip
    )
    yield bent(
        "order_signature_before_l1",
        both + "a bad signature over an L1 that is no JSON",
        "signature",
        l1_text=lambda t: t[:-1],
        **flip
    )
    yield bent(
        "order_signature_before_header",
        both + "a bad signature over a header with 17 paths",
        "signature",
        header=lambda h: h.update(paths=h["paths"] * 17),
        **flip
    )
    yield Vector(
        "order_trust_before_l1",
        "signature",
        both + "nobody trusted, and an L1 that is no JSON",
        Envelope(l1_text=lambda t: t[:-1]),
        trust=None,
    )
    yield Vector(
        "order_header_before_scope",
        "format",
        both + "no path, and out of the agent's scope",
        Envelope(header=lambda h: h.update(paths=[])),
        trust=AGENT.thumbprint + " hosts=db2",
    )
    yield Vector(
        "order_scope_before_factors",
        "signature",
        both + "out of scope, and no such path",
        Envelope(),
        trust=AGENT.thumbprint + " hosts=db2",
        path="nobody",
    )
    yield Vector(
        "order_header_before_factors",
        "limit",
        both + "t above its cap, and no password",
        Envelope(header_text=swap('"t":2', '"t":33')),
        password=None,
    )
    yield Vector(
        "order_kdf_caps_before_tag",
        "limit",
        both + "t times m above its cap, and a bad tag",
        Envelope(
            header_text=swap('"t":2,"m":19456', '"t":9,"m":4194304'),
            l1=member("tag", b64u(bytes(32))),
        ),
    )
    yield Vector(
        "order_factors_before_tag",
        "unwrap",
        both + "a wrong password, and a bad tag",
        Envelope(l1=member("tag", b64u(bytes(32)))),
        password="wrong",
    )
    yield Vector(
        "order_l1_characters_before_depth",
        "format",
        both + "an LF in L1, and nine brackets",
        Envelope(l1_text=lambda t: t[:-1] + ',"x":%s}\n' % ("[" * 8 + "]" * 8)),
    )
    yield Vector(
        "order_header_size_before_characters",
        "limit",
        both + "H too long, with an LF at its end",
        Envelope(header_text=lambda t: t + " " * (256 * 1024 + 1 - len(t)) + "\n"),
    )
