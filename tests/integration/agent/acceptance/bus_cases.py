"""What passes over the TPM's bus, and what is left in the TPM, for whole commands."""

import base64
import json

import sys

from tpm_bus import TpmBus
from world import BOTH_PATHS, PASSWORD, PIN, SECOND_DECODER, UNLOCK, AcceptanceCase

MAX_COMMANDS = 12  # about 0.1 s each on a discrete TPM


def forms(secret):
    """The ways in which a secret could stand on the bus."""
    yield secret
    yield secret[::-1]
    yield secret.hex().encode()
    yield base64.b64encode(secret).rstrip(b"=")
    yield base64.urlsafe_b64encode(secret).rstrip(b"=")
    if len(secret) > 16:  # a part is a leak too
        yield secret[:12]
        yield secret[-12:]


class Bus(AcceptanceCase):
    paths = None

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.bus = TpmBus(cls.world.folder, str(cls.world.path("tpm.sock")))
        cls.addClassCleanup(cls.bus.close)
        cls.world.configure(cls.bus.tcti)
        cls.world.escrow(paths=BOTH_PATHS)
        cls.setup_commands = cls.bus.commands()
        cls.setup_bytes = cls.bus.everything()

    def setUp(self):
        self.bus.forget()

    def nothing_left(self):
        for kind in ("handles-transient", "handles-loaded-session", "handles-saved-session"):
            self.assertEqual(self.world.tpm_tool("tpm2_getcap", kind), "", kind)

    def auth_value(self):
        """The value with which the sealed object is authorised, found by the second decoder."""
        sys.path.insert(0, str(SECOND_DECODER))
        import devices, header, opening, vectors  # noqa: E401 pylint: disable=all
        seen = []

        class Spy(devices.DeviceWorld):
            def unseal(self, factor, auth_value):
                seen.append(auth_value)
                return super().unseal(factor, auth_value)

        envelope = header.read(self.world.path("app.escrow").read_bytes(),
                               [vectors.parse_trust(self.world.thumbprint)])
        world = Spy(PASSWORD.encode(), [], self.world.tcti)
        try:
            self.assertEqual(opening.open_path(envelope, "tpm", world), self.world.key)
        finally:
            world.close()
        return seen[0]

    def test_no_secret_on_the_bus(self):
        self.restored("out.key", "--via", "tpm")
        self.succeeds("status")
        recorded = self.setup_bytes + self.bus.everything()
        state = self.world.path("state")
        secrets = {
            "key": self.world.key,
            "password": PASSWORD.encode(),
            "PIN": PIN.encode(),
            "auth value of the sealed object": self.auth_value().rstrip(b"\0"),
            "auth value of the agent key": (state / "agent-tpm.auth").read_bytes().rstrip(b"\0"),
            "Ed25519 seed": (state / "ed25519.seed").read_bytes(),
            "key of the fingerprints": (state / "fingerprint.key").read_bytes(),
        }
        for name, secret in secrets.items():
            for form in forms(secret):
                self.assertNotIn(form, recorded, name)
        # The recorder does see what passes: the agent key's public point is there.
        agent = json.loads((state / "agent.json").read_text())
        x = agent["p256"]["x"]
        self.assertIn(base64.urlsafe_b64decode(x + "=" * (-len(x) % 4)), recorded)

    def test_the_recorder_would_see_a_secret(self):
        sealed = b"a secret that passes in clear"
        self.world.write("clear", sealed)
        tools = self.world.tpm_tool
        tools("tpm2_createprimary", "-C", "o", "-G", "ecc", "-c", "p.ctx", tcti=self.bus.tcti)
        tools("tpm2_create", "-C", "p.ctx", "-i", "clear", "-u", "u", "-r", "r", tcti=self.bus.tcti)
        tools("tpm2_flushcontext", "-t")
        self.assertIn(sealed, self.bus.everything())

    def test_a_restore_by_the_tpm_is_short(self):
        self.restored("out.key", "--via", "tpm")
        commands = self.bus.commands()
        self.assertIn("Unseal", commands)
        self.assertLessEqual(len(commands), MAX_COMMANDS, commands)
        print("\nTPM commands of a restore by the tpm path: %d: %s" % (
            len(commands), " ".join(commands)))

    def test_a_restore_by_the_token_only_signs(self):
        self.restored("out.key", "--via", "token-ops")
        commands = self.bus.commands()
        self.assertNotIn("Unseal", commands)
        self.assertLessEqual(len(commands), MAX_COMMANDS, commands)
        print("\nTPM commands of a restore by the token path: %d: %s" % (
            len(commands), " ".join(commands)))

    def test_reading_commands_leave_the_tpm_alone(self):
        for command in (["status"], ["list"], ["verify"], ["audit", "log"], ["trust", "list"],
                        ["audit", "checkpoint"], ["audit", "prove", "app/key"], ["token", "list"]):
            self.bus.forget()
            self.succeeds(*command)
            # verify looks whether the TPM has a counter of this log that the state hides.
            allowed = ["GetCapability"] if command == ["verify"] else []
            self.assertEqual(self.bus.commands(), allowed, command)

    def test_nothing_is_left_in_the_tpm(self):
        self.nothing_left()  # after init, token add, backup
        self.restored("out.key", "--via", "tpm")
        self.nothing_left()
        self.restored("out.key", "--via", "token-ops")
        self.nothing_left()
        self.world.run("restore", "app/key", "--via", "tpm", "--to", "out.key", "--password-file",
                       "wrong")
        self.nothing_left()
        self.succeeds("restore", "app/key", "--via", "tpm", *UNLOCK, "--to", "out.key")
        self.world.write("other.key", b"another key")
        done = self.world.run("restore", "app/key", "--via", "tpm", *UNLOCK, "--to", "other.key")
        self.assertEqual(done.status, 12, str(done))
        self.nothing_left()
        self.succeeds("show", "app/key")
        self.succeeds("doctor")
        self.nothing_left()
        self.world.path("out.key").unlink()
        self.world.tpm_tool("tpm2_dictionarylockout", "-c")
