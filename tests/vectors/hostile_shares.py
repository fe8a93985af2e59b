"""Faults of shares factor records and their members."""

import json

import primitives as pr
from hostile_factors import faulty, off_curve, changed, without
from maker import (
    BOB,
    CAROL,
    OPS,
    PBKDF2,
    Ecdh,
    EcKey,
    Envelope,
    Password,
    Path,
    Rsa,
    Shares,
    b64u,
    rnd,
)
from scenario import Vector, opens, world
from valid_forms import officers


def shares_records():
    def members(count):
        return [
            ("officer%d" % i, Ecdh(EcKey("officer %d" % i), "card%d" % i)) for i in range(count)
        ]

    for name, comment, expect, threshold, count in (
        ("threshold_1", "threshold is 1", "limit", 1, 3),
        ("threshold_0", "threshold is 0", "limit", 0, 3),
        ("threshold_4_of_3", "threshold is above the number of members", "limit", 4, 3),
        ("one_member", "one member", "limit", 2, 1),
        ("no_member", "no member", "limit", 2, 0),
        ("17_members", "seventeen members", "limit", 2, 17),
    ):
        yield faulty(
            "shares_" + name,
            comment,
            changed(threshold=threshold),
            Shares(2, *members(count)),
            expect=expect,
        )

    def first(edit, index=0):
        return lambda f: edit(f["members"][index])

    def in_factor(edit, index=0):
        return lambda f: edit(f["members"][index]["factor"])

    good = [("alice", Rsa()), ("bob", Rsa(BOB, token="bob")), ("carol", Ecdh(CAROL, "carol"))]
    for name, comment, edit in (
        ("index_0", "an index of 0", first(changed(index=0))),
        (
            "index_from_0",
            "indices from 0",
            lambda f: [m.update(index=i) for i, m in enumerate(f["members"])] and None,
        ),
        ("index_order", "members in another order", lambda f: f["members"].reverse()),
        ("index_twice", "one index twice", first(changed(index=1), 1)),
        ("index_gap", "an index is skipped", first(changed(index=4), 2)),
        ("index_huge", "an index beyond 64 bits", first(changed(index=10**30))),
        ("index_string", "an index as a string", first(changed(index="1"))),
        ("name_twice", "one name twice", first(changed(name="alice"), 1)),
        ("name_empty", "an empty name", first(changed(name=""))),
        (
            "same_token",
            "one spki in two members",
            lambda f: f["members"][1]["factor"].update(f["members"][0]["factor"]),
        ),
        ("commitment_31", "a commitment of 31 bytes", first(changed(commitment=b64u(bytes(31))))),
        ("commitment_missing", "no commitment", first(without("commitment"))),
        ("member_unknown", "a member with one more", first(changed(role="x"))),
        (
            "factor_password",
            "a member's factor is a password",
            first(changed(factor={"type": "password", **PBKDF2})),
        ),
        (
            "factor_shares",
            "a member's factor is shares",
            first(changed(factor={"type": "shares", "threshold": 2})),
        ),
        ("mask_on_rsa", "a mask on an RSA member", in_factor(changed(mask=b64u(bytes(32))))),
        ("mask_missing", "a P-256 member without its mask", in_factor(without("mask"), 2)),
        ("mask_31", "a mask of 31 bytes", in_factor(changed(mask=b64u(bytes(31))), 2)),
        (
            "member_wrapped_short",
            "a member's wrapped is too short",
            in_factor(changed(wrapped=b64u(b"\1" * 255))),
        ),
        (
            "member_epk_off_curve",
            "a member's epk is not on the curve",
            in_factor(lambda r: r.update(epk=b64u(off_curve(pr.b64u_decode(r["epk"])))), 2),
        ),
        ("threshold_string", "threshold is a string", changed(threshold="2")),
        ("members_object", "members is an object", changed(members={})),
        ("threshold_missing", "no threshold", without("threshold")),
        ("unknown", "a member more", changed(name="officers")),
    ):
        yield faulty("shares_" + name, comment, edit, Shares(2, *good))


def absent_officers():
    """Fewer tokens than officers: any `threshold` serve, fewer do not."""
    made = Envelope(Path("officers", Shares(2, *officers())))
    alice, bob, carol = OPS, BOB, CAROL
    for name, expect, comment, tokens in (
        ("valid_shares_first_two", "ok", "the third officer is away", [alice, bob]),
        ("valid_shares_first_and_third", "ok", "the second officer is away", [carol, alice]),
        ("valid_shares_last_two", "ok", "the first officer is away", [carol, bob]),
        ("factor_shares_one_officer", "factor", "one officer of two", [carol]),
        ("factor_shares_no_officer", "factor", "no officer's token is at hand", []),
        (
            "factor_shares_strangers",
            "factor",
            "one officer, and a token of nobody",
            [alice, EcKey("stranger")],
        ),
    ):
        yield Vector(name, expect, comment, made, **dict(world(made, "officers"), tokens=tokens))
    both = Envelope(Path("officers", Shares(2, *officers()), Password()))
    yield Vector(
        "unwrap_shares_wrong_password",
        "unwrap",
        "enough officers, a wrong password",
        both,
        **dict(world(both, "officers"), password="another horse")
    )
    yield Vector(
        "factor_shares_password_missing",
        "factor",
        "enough officers, no password",
        both,
        **dict(world(both, "officers"), password=None)
    )


def bad_shares():
    """A bad share is skipped; the first good ones by index serve."""

    def bent(*edits):
        def hook(header):
            for index, edit in edits:
                edit(header["paths"][0]["factors"][0]["members"][index - 1])

        return hook

    def flip(member):
        """Another bit in what an RSA member's token gets, or in a P-256 member's mask."""
        record = member["factor"]
        name = "wrapped" if "wrapped" in record else "mask"
        data = bytearray(pr.b64u_decode(record[name]))
        data[-1] ^= 1
        record[name] = b64u(bytes(data))

    def commit(member):
        member["commitment"] = b64u(rnd("another commitment", 32))

    def short(index):
        members = officers()
        members[index - 1] = (members[index - 1][0], Rsa(plaintext=bytes(31)))
        return members

    def swap_commitments(header):
        members = header["paths"][0]["factors"][0]["members"]
        first, second = (m["commitment"] for m in members[:2])
        members[0]["commitment"], members[1]["commitment"] = second, first

    two = Shares(2, *officers())
    for name, expect, comment, shares, hook in (
        (
            "valid_shares_first_damaged",
            "ok",
            "the first RSA member does not decrypt",
            two,
            bent((1, flip)),
        ),
        (
            "valid_shares_mask_damaged",
            "ok",
            "a bit of the third member's mask",
            two,
            bent((3, flip)),
        ),
        (
            "valid_shares_second_miscommitted",
            "ok",
            "the second commitment fits nothing",
            two,
            bent((2, commit)),
        ),
        ("valid_shares_31_bytes", "ok", "the first share has 31 bytes", Shares(2, *short(1)), None),
        (
            "valid_shares_third_off_curve",
            "ok",
            "the third share was dealt wrong and committed to: the first two serve",
            Shares(2, *officers(), dealt={3: rnd("dealt wrong", 32)}),
            None,
        ),
        (
            "unwrap_shares_second_dealt_wrong",
            "unwrap",
            "the second share was dealt wrong and committed to, and serves by its index",
            Shares(2, *officers(), dealt={2: rnd("dealt wrong", 32)}),
            None,
        ),
        (
            "valid_shares_second_dealt_wrong_and_damaged",
            "ok",
            "the same, but its wrapped is damaged: the first and the third serve",
            Shares(2, *officers(), dealt={2: rnd("dealt wrong", 32)}),
            bent((2, flip)),
        ),
        (
            "factor_shares_two_damaged",
            "factor",
            "two of three are damaged",
            two,
            bent((1, flip), (3, flip)),
        ),
        (
            "factor_shares_commitments_swapped",
            "factor",
            "two members' commitments are exchanged",
            two,
            swap_commitments,
        ),
        (
            "factor_shares_all_needed",
            "factor",
            "all are needed and one is damaged",
            Shares(3, *officers()),
            bent((2, flip)),
        ),
    ):
        hooks = {"header": hook} if hook else {}
        yield opens(name, comment, Path("officers", shares), expect=expect, **hooks)
    # A share is bound to its key.
    other = Envelope(Path("officers", two), key_name="prod/db/other")
    members = json.loads(other.header_text)["paths"][0]["factors"][0]["members"]

    def graft(header):
        header["paths"][0]["factors"][0]["members"] = members

    yield opens(
        "factor_shares_of_another_key",
        "members of an envelope of another key",
        Path("officers", two),
        expect="factor",
        header=graft,
    )
