"""The wizard, typed at in a real terminal of 80 columns."""

import shlex
import shutil

from screen import COLUMNS, Screen
from world import PASSWORD, PIN, UNLOCK, AcceptanceCase

QUESTION = "Ctrl-C: leave)"


class Wizard(AcceptanceCase):  # one test
    paths = ()

    def screen(self, *arguments, **options):
        screen = Screen(self.world, "wizard", *arguments, **options)
        self.addCleanup(screen.close)
        return screen

    def fits(self, screen):
        """No line of a page is broken by the terminal; command lines, warnings and answers may be."""
        for line in screen.text().splitlines():
            if not line.startswith(("  ", "warning: ")) and "]: " not in line:
                self.assertLessEqual(len(line), COLUMNS, line)

    def equal_command(self, screen, word):
        """The command line that the wizard shows as equal, taken apart by a shell's rules."""
        lines = [line.strip() for line in screen.text().splitlines()]
        shown = [line for line in lines if line.startswith("keyescrow") and word in line.split()]
        words = shlex.split(shown[-1])
        self.assertEqual(words[0], "keyescrow")
        return words[1:]

    def test_from_nothing_to_a_restored_key(self):
        world = self.world
        world.key = bytes(range(32))
        world.write("app.key", world.key)
        self.leaves_nothing_when_left()
        self.backs_up()
        self.restores()
        self.asks_again_at_another_place()
        self.a_wrong_pin_ends_it()
        self.restores_a_file_or_a_key_of_the_store()
        self.restores_on_a_new_machine()
        self.backs_up_to_a_recovery_key()

    def leaves_nothing_when_left(self):
        screen = self.screen()
        screen.answers(("number [1]", "3"))
        self.assertEqual(screen.ended(), 2)
        self.assertIn("left before the end", screen.text())
        interrupted = self.screen()
        interrupted.waits_for("number [1]")
        interrupted.key("C-c")
        self.assertNotEqual(interrupted.ended(), 0)
        self.assertFalse(self.world.path("state").exists())
        # Neither a program nor a pipe can be led.
        self.refused("usage", 2, "wizard")

    def backs_up(self):
        screen = self.screen()
        screen.answers(
            ("number [1]", "?"), ("number [1]", "one"), ("type a number from 1 to 3", "1"),
            ("has no state yet", ""),
            ("the key's name", "not//a name"), ("that is not a key name", "app/key"),
            ("where the key is", ""), ("the key's file", "no.key"), ("error: cannot read", "app.key"),
            ("which hardware", "2"),  # only the TPM is offered yet; 2 registers a token
            ("its module", self.world.module), ("which one", ""), ("its name here", "ops"),
            ("PIN of token", PIN),
            ("two ways in", ""),
            ("where a copy goes", ""), ("the copy's file", "no/such/folder/a.escrow"),
            ("error: ", "app.escrow"),
            # Back twice and forth again: what was typed stands in brackets.
            ("the password", "<"), ("where a copy goes", "<"), ("which hardware", ""),
            ("where a copy goes", ""), ("file [app.escrow]", ""),
            ("the password", "short"), ("once more", "other"),
            ("the two differ", "short"), ("once more", "short"),
            # A weak one is refused at once, and asked for again.
            ("error: ", PASSWORD), ("once more", PASSWORD),
            ("a lost password", "yes"), ("type the word understood", "understood"),
            ("review", ""),
        )
        screen.answers(("PIN of token", PIN))
        self.assertEqual(screen.ended(), 0, screen.text())
        text = screen.text()
        self.fits(screen)
        for wanted in ("A LOST PASSWORD CANNOT BE RECOVERED", "app/key is escrowed as version 1",
                       "proven: it was opened again", "thumbprint", "app.escrow.receipt"):
            self.assertIn(wanted, text)
        for secret in (PASSWORD, PIN, "short"):
            self.assertNotIn(secret, text.replace("short\n", ""))
        words = self.equal_command(screen, "backup")
        self.assertEqual(words, ["backup", "app/key", "--from", "app.key",
                                 "--path", "password & token:ops", "--path", "password & tpm",
                                 "--output", "app.escrow"])
        self.verifies()
        # The equal command line does the same: the next version.
        again = self.world.run(*words, "--password-file", "pw", "--pin-file", "pin")
        self.assertEqual(again.status, 0, str(again))
        self.thumbprint = self.world.must("agent-key", "show", "--json").json()["thumbprint"]

    def restores(self):
        self.world.write("there.key", b"another key that stands there")
        screen = self.screen()
        screen.answers(
            ("number [1]", "2"), ("which key", ""), ("which way in", ""),
            ("where to", "there.key"), ("why", "the disk died"), ("review", ""),
            ("password of path", "another horse entirely 8"), ("PIN of token", PIN),
            # A wrong password is not tried again by itself.
            ("did not work", "2"), ("password of path", PASSWORD), ("PIN of token", PIN),
            ("another key stands there", "2"), ("password of path", PASSWORD), ("PIN of token", PIN),
        )
        self.assertEqual(screen.ended(), 0, screen.text())
        self.fits(screen)
        self.assertEqual(self.world.path("there.key").read_bytes(), self.world.key)
        self.assertEqual(self.world.path("there.key.keyescrow-previous").read_bytes(),
                         b"another key that stands there")
        self.assertIn("--discard-previous", screen.text())
        log = self.world.must("audit", "log", "--json").out
        self.assertIn(b"the disk died", log)
        self.verifies()

    def asks_again_at_another_place(self):
        """What was allowed to be put aside is what stood there, and nothing at the next place."""
        for name in ("one.key", "two.key"):
            self.world.write(name, name)
        before = self.world.snapshot()
        screen = self.screen()
        screen.answers(
            ("number [1]", "2"), ("which key", ""), ("which way in", ""),
            ("where to", "one.key"), ("Restore: why", ""), ("Restore: review", ""),
            ("password of path", PASSWORD), ("PIN of token", PIN), ("another key stands there", "2"),
            ("password of path", "another horse entirely 8"), ("PIN of token", PIN),
            ("did not work", "1"), ("Restore: why", "<"),
            ("where to", "two.key"), ("Restore: why", ""), ("Restore: review", ""),
            ("password of path", PASSWORD), ("PIN of token", PIN), ("another key stands there", ""))
        screen.waits_for("Restore: why", screen.seen)
        screen.key("C-c")
        self.assertNotEqual(screen.ended(), 0)
        after = {name: file for name, file in self.world.snapshot().items()
                 if not name.startswith(("status.", "tmux."))}
        self.assertEqual(after, {name: file for name, file in before.items() if name in after})
        self.verifies()

    def a_wrong_pin_ends_it(self):
        screen = self.screen()
        screen.answers(
            ("number [1]", "2"), ("which key", ""), ("which way in", ""), ("where to", "x.key"),
            ("Restore: why", ""), ("Restore: review", ""),
            ("password of path", PASSWORD), ("PIN of token", "00000000"))
        self.assertEqual(screen.ended(), 3, screen.text())
        self.assertNotIn("did not work", screen.text())
        self.assertFalse(self.world.path("x.key").exists())

    def restores_a_file_or_a_key_of_the_store(self):
        """Each by its name: a file is not a key of the store that is called alike, and whoever goes
        back from the file of an unknown agent is asked for nobody's thumbprint."""
        world = self.world
        there = {"KEYESCROW_STATE": str(world.path("bee")), "KEYESCROW_CONFIG": str(world.path("bee.toml"))}
        world.write("bee.toml", '[agent]\nhost = "bee"\ntpm = "none"\n' + world.costs)
        world.write("bee.key", b"the key of the host bee")
        world.path("app").mkdir()
        world.must("init", env=there)
        world.must("token", "add", "ops", "pkcs11:token=ops", "--module", world.module,
                   "--pin-file", "pin", env=there)
        world.must("backup", "bee/key", "--from", "bee.key", "--path", "password & token:ops",
                   "-o", "app/key", *UNLOCK, env=there)
        bee = world.must("agent-key", "show", "--json", env=there).json()["thumbprint"]
        screen = self.screen()
        screen.answers(
            ("number [1]", "2"), ("which key", "2"), ("the .escrow file", "app/key"),
            ("who made this file", bee), ("which way in", "<"), ("who made this file", "<"),
            ("the .escrow file", "<"), ("which key", "1"),
            ("which way in", "1"), ("where to", "back.key"), ("why", ""), ("review", ""),
            ("password of path", PASSWORD), ("PIN of token", PIN),
        )
        self.assertEqual(screen.ended(), 0, screen.text())
        self.assertIn("the key bee/key of the host bee", screen.text())
        self.assertNotIn("the key app/key of the host acceptance. This", " ".join(screen.text().split()))
        self.assertEqual(world.path("back.key").read_bytes(), world.key)
        self.assertEqual(self.equal_command(screen, "restore"),
                         ["restore", "app/key", "--to", "back.key", "--via", "token-ops"])
        shutil.rmtree(world.path("app"))
        self.verifies()

    def restores_on_a_new_machine(self):
        """No state, a dumb terminal: the file, the thumbprint, the token and the password."""
        there = {"KEYESCROW_STATE": str(self.world.path("elsewhere")),
                 "KEYESCROW_CONFIG": str(self.world.path("elsewhere.toml"))}
        self.world.write("new.key", b"what stood there")
        screen = self.screen("--tpm", "none", term="dumb", env=there)
        screen.answers(
            ("number [1]", "2"), ("the .escrow file", "nothing.escrow"), ("error: ", "app.escrow"),
            ("who made this file", "A" * 43), ("that is not the agent", self.thumbprint),
            ("the token's module", self.world.module), ("which way in", ""),
            ("where to", "new.key"), ("why", ""), ("review", ""),
            ("password of path", PASSWORD), ("PIN of token", PIN),
            ("another key stands there", "2"), ("password of path", PASSWORD), ("PIN of token", PIN),
        )
        self.assertEqual(screen.ended(), 0, screen.text())
        self.fits(screen)
        self.assertEqual(self.world.path("new.key").read_bytes(), self.world.key)
        self.assertIn("import-event", screen.text())
        # Nothing here remembers the old key: it is removed by hand.
        self.assertIn("  rm new.key.keyescrow-previous\n", screen.text())
        self.assertNotIn("--discard-previous", screen.text())
        event = next(self.world.folder.glob("keyescrow-restore-*.json"))
        self.succeeds("import-event", event)
        self.verifies()

    def backs_up_to_a_recovery_key(self):
        """It was opened a moment ago, and opens this key too: nothing is left to do, as for backup."""
        self.succeeds("recovery-key", "create", "team", "--path", "password & token:ops", *UNLOCK)
        screen = self.screen()
        screen.answers(
            ("number [1]", "1"), ("the key's name", "team/key"), ("where the key is", ""),
            ("the key's file", "app.key"), ("which hardware", "5"), ("paths:", "recovery-key:team"),
            ("where a copy goes", "2"), ("review", ""))
        self.assertEqual(screen.ended(), 0, screen.text())
        self.assertIn("-- Done ---", screen.text())
        self.assertRegex(screen.text(), r"recovery-ke-\w+ +covered: its recovery key was opened")
        self.assertNotIn("drill", screen.text())
        done = self.world.run(*self.equal_command(screen, "backup"))
        self.assertEqual(done.status, 0, str(done))
        self.verifies()
