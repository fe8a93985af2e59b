"""Valid envelopes, continued: KDF edges, forms of tpm2, trust, what is not yet openable."""


import maker
import primitives as pr
from maker import (
    AGENT,
    BOB,
    CAROL,
    OTHER_AGENT,
    PBKDF2,
    SIGNER,
    Ecdh,
    Envelope,
    Password,
    Path,
    Rsa,
    Shares,
    Tpm2,
    rnd,
)
from scenario import Vector, opens, world


def kdf_edges():
    salt = maker.SALT
    yield opens(
        "valid_argon2id_t1",
        "one pass with the smallest memory that it permits",
        Path("password", Password(kdf="argon2id", salt=salt, t=1, m=47104, p=1)),
    )
    yield opens(
        "valid_argon2id_p16",
        "sixteen lanes",
        Path("password", Password(kdf="argon2id", salt=salt, t=2, m=19456, p=16)),
    )
    yield opens(
        "valid_argon2id_t32",
        "thirty-two passes",
        Path("password", Password(kdf="argon2id", salt=salt, t=32, m=19456, p=1)),
    )
    made = Envelope(header=lambda h: h["paths"][0]["factors"][0].update(m=4194304, t=8))
    yield Vector(
        "valid_argon2id_largest",
        "ok",
        "m, and t times m, at their caps; read, not opened",
        made,
        path=None,
        password=None,
    )
    made = Envelope(
        header=lambda h: h["paths"].__setitem__(
            0, dict(h["paths"][0], factors=[{"type": "password", **PBKDF2, "iter": 20000000}])
        )
    )
    yield Vector(
        "valid_pbkdf2_largest",
        "ok",
        "the largest iteration count; read, not opened",
        made,
        path=None,
        password=None,
    )


def tpm2_forms():
    yield opens(
        "valid_tpm2_pcrs",
        "bound to PCRs 0 and 7",
        Path("tpm", Password(), Tpm2("sha256:0,7")),
        record=True,
    )
    yield opens(
        "valid_tpm2_pcrs_no_password", "bound to PCRs, auth false", Path("tpm", Tpm2("sha256:23"))
    )
    yield opens(
        "valid_tpm2_all_pcrs",
        "all 24 PCRs",
        Path("tpm", Tpm2("sha256:" + ",".join(map(str, range(24))))),
    )
    yield opens(
        "valid_tpm2_signer",
        "bound to policies that a key signs",
        Path("tpm", Password(), Tpm2("sha256:7", signer=SIGNER)),
        record=True,
    )
    yield opens(
        "valid_tpm2_seed",
        "wrapped offline for another host, with a password",
        Path("tpm", Password(), Tpm2(seed=True, host="db2")),
        record=True,
    )
    yield opens(
        "valid_tpm2_seed_no_password", "wrapped offline, auth false", Path("tpm", Tpm2(seed=True))
    )
    for size in (1, 510):
        yield opens(
            "valid_tpm2_private_%d" % size,
            "TPM2B_PRIVATE that holds %d bytes" % size,
            Path("tpm", Tpm2()),
            header=lambda h: h["paths"][0]["factors"][0].update(
                private=pr.b64u(size.to_bytes(2, "big") + rnd("private", size))
            ),
        )


def trust_scopes():
    made = Envelope()
    for name, scope, comment in (
        ("hosts", "hosts=web*,db1", "the host is among the trusted patterns"),
        ("host_star", "hosts=*", "one star stands for any host"),
        ("keys", "keys=prod/db/orders", "the key's name is trusted as it is"),
        ("keys_star", "keys=prod/*/orders", "a star within a segment"),
        ("keys_two_stars", "keys=test/*,prod/**", "two stars span segments"),
        ("both", "hosts=db* keys=prod/db/*", "host and key name are both within scope"),
    ):
        yield Vector(
            "valid_trust_" + name, "ok", comment, made, trust=AGENT.thumbprint + " " + scope
        )
    made = Envelope(agent=OTHER_AGENT)
    yield Vector(
        "valid_other_agent", "ok", "another agent, trusted", made, trust=OTHER_AGENT.thumbprint
    )


def recovery_keys():
    for name, comment, path in (
        (
            "",
            "a recovery key behind token and password",
            Path("security-team", Rsa(), Password(), recovery="security-team"),
        ),
        (
            "_ecdh",
            "a recovery key behind a P-256 token",
            Path("security-team", Ecdh(), recovery="security-team"),
        ),
        (
            "_tpm2",
            "a recovery key behind password and TPM",
            Path("security-team", Password(), Tpm2(), recovery="security-team"),
        ),
        (
            "_shares",
            "a recovery key behind two of three officers, and a password",
            Path(
                "security-team",
                Shares(2, *officers()),
                Password(),
                recovery="security-team",
            ),
        ),
        (
            "_pbkdf2",
            "a recovery key behind a password alone",
            Path("security-team", Password(**PBKDF2), recovery="security-team"),
        ),
    ):
        yield opens("valid_recovery_key" + name, comment, path, record=True)
    spaced = ' { "y" : "%s" , "x":"%s","kty":"EC", "d":"%s","crv":"P-256" } ' % (
        maker.ESCROW.jwk["y"],
        maker.ESCROW.jwk["x"],
        maker.b64u(maker.ESCROW.d.to_bytes(32, "big")),
    )
    yield opens(
        "valid_recovery_key_member_order",
        "the private JWK's members in another order, with spaces",
        Path(
            "security-team",
            Rsa(),
            recovery="security-team",
            seal_private=lambda key, _, place: maker.compact(key, spaced.encode(), place),
        ),
    )
    yield opens(
        "valid_recovery_key_two_paths",
        "two paths, one of them to a recovery key",
        Path("ops", Rsa(), Password()),
        Path("security-team", Ecdh(), recovery="security-team"),
        use="security-team",
    )


def officers():
    return [
        ("alice", Rsa()),
        ("bob", Rsa(BOB, "RSA-OAEP", "bob")),
        ("carol", Ecdh(CAROL, "carol")),
    ]


def shares():
    two_of_three = Shares(2, *officers())
    yield opens(
        "valid_shares", "two of three officers, RSA and P-256", Path("officers", two_of_three),
        record=True,
    )
    yield opens(
        "valid_shares_and_password",
        "shares and a password",
        Path("officers", two_of_three, Password()),
        record=True,
    )
    yield opens(
        "valid_shares_all",
        "three of three officers",
        Path("officers", Shares(3, *officers())),
        record=True,
    )
    yield opens(
        "valid_shares_all_ecdh",
        "all members are P-256 tokens, all are needed",
        Path("officers", Shares(2, ("a", Ecdh()), ("b", Ecdh(CAROL, "carol")))),
    )
    yield opens(
        "valid_token_and_shares",
        "a token before the shares, and a password",
        Path("officers", Ecdh(), Shares(2, *officers()[:2]), Password()),
    )
    yield opens(
        "valid_shares_password_tpm2",
        "shares, a password and a TPM",
        Path("officers", two_of_three, Password(), Tpm2()),
    )
    yield opens(
        "valid_beside_shares",
        "a path of shares does not hinder the others",
        Path("officers", two_of_three),
        Path("password", Password()),
        use="password",
    )
    sixteen = [
        ("officer%d" % i, Ecdh(maker.EcKey("officer %d" % i), "card%d" % i)) for i in range(16)
    ]
    yield opens(
        "valid_shares_sixteen",
        "sixteen members, all needed",
        Path("officers", Shares(16, *sixteen)),
        record=True,
    )
    yield opens(
        "valid_shares_five_of_sixteen",
        "sixteen members, five needed",
        Path("officers", Shares(5, *sixteen)),
    )
