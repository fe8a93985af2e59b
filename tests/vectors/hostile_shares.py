"""Faults of shares factor records and their members."""

import primitives as pr
from maker import BOB, CAROL, PBKDF2, Ecdh, EcKey, Rsa, Shares, b64u
from hostile_factors import faulty, off_curve, changed, without


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
