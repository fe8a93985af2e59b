"""The ceremony of officers' shares on a real terminal (tmux): what the screen says, and what it costs."""

import itertools
import os
import subprocess
import time

from shares_cases import EXPRESSION, Officers
from world import COMMAND_TIMEOUT_S, PASSWORD, PIN, within

WAITING = "q to leave:"


class Screen:
    """A shell in a tmux of its own, 80 columns wide."""

    numbers = itertools.count()

    def __init__(self, world):
        self.world = world
        self.socket = str(world.path("tmux.%d" % next(self.numbers)))
        self.typed_at = 0
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "60", "env",
                  "PS1=READY> ", "bash", "--norc", "--noprofile", "-i")

    def tmux(self, *arguments, **options):
        options.setdefault("env", self.world.environment)
        return subprocess.run(["tmux", "-S", self.socket, *arguments], check=True,
                              capture_output=True, text=True, cwd=self.world.folder,
                              **options).stdout

    def text(self):
        """All that was shown, blank lines and blanks at a line's end left out."""
        shown = self.tmux("capture-pane", "-p", "-J", "-S", "-").splitlines()
        return "\n".join(line.rstrip() for line in shown if line.strip())

    def wait(self, *wanted):
        """What is shown once its end has all of `wanted`, from the last thing typed on."""
        deadline = time.monotonic() + within(COMMAND_TIMEOUT_S)
        while time.monotonic() < deadline:
            new = self.text()[self.typed_at:]
            if all(text in new for text in wanted):
                return new
            time.sleep(0.1)
        raise AssertionError("not shown: %s\n%s" % (wanted, self.text()))

    def type(self, text, *keys):
        self.typed_at = len(self.text())
        if text:
            self.tmux("send-keys", "-l", text)
        for key in keys or ("Enter",):
            self.tmux("send-keys", key)

    def command(self, *arguments):
        self.type(" ".join([str(self.world.binary), *arguments]) + "; echo STATUS=$?")

    def close(self):
        self.tmux("kill-server")


class Ceremony(Officers):  # one test: three officers and their tokens
    def setUp(self):
        super().setUp()
        self.insert()
        self.screen = Screen(self.world)
        self.addCleanup(self.screen.close)
        self.screen.wait("READY>")

    def begin(self, *arguments, via="officers", command="restore app/key --to out.key"):
        self.screen.command(*command.split(), "--via", via, *arguments)

    def officer(self, name, shown, pin=PIN):
        """Brings a token, alone in the one reader, and types its PIN."""
        self.insert(name)
        self.screen.wait(f"{name}: your token is here", f"PIN of token '{name}':")
        self.screen.type(pin)
        return self.screen.wait(shown)

    def ends(self, status):
        return self.screen.wait(f"STATUS={status}")

    def events(self):
        entries = self.succeeds("audit", "log", "--json").json()["entries"]
        return [(e["type"], e.get("error", "")) for e in entries if e["type"].startswith("restore")]

    def test_one_after_another_in_one_reader(self):
        before, files = len(self.events()), self.world.snapshot()
        self.begin("--reason", "INC-7")
        shown = self.screen.wait("0 of 2 shares are there, 2 more needed", WAITING)
        for row in (r"1 +alice +waiting for the token", r"2 +bob +waiting for the token",
                    r"3 +carol +waiting for the token",
                    "insert the token of one of: alice, bob, carol; it is noticed by itself",
                    "any 2 of these 3 officers are needed"):
            self.assertRegex(shown, row)
        self.assertLessEqual(max(map(len, shown.splitlines()[1:])), 80)  # nothing was folded
        self.officer("carol", "carol: your share is given and good")
        shown = self.screen.wait("1 of 2 shares are there, 1 more needed", WAITING)
        self.assertRegex(shown, r"3 +carol +share given")
        self.assertIn("insert the token of one of: alice, bob;", shown)
        # Nothing of it is on the disk.
        self.assertEqual({n for n in set(self.world.snapshot()) - set(files) if "tmux" not in n},
                         set())
        # A wrong PIN: nobody else's work is lost, and nothing is sent again unless bob says so.
        shown = self.officer("bob", "[y/N]:", pin="00000000")
        self.assertIn("rejected the PIN", shown)
        self.assertIn("nobody else's share is lost", shown)
        self.screen.type("")
        shown = self.screen.wait("1 of 2 shares are there", WAITING)
        self.assertRegex(shown, r"2 +bob +was refused: type 2 to try again")
        self.assertRegex(shown, r"3 +carol +share given")
        self.screen.type("2")
        self.screen.wait("PIN of token 'bob':")
        self.screen.type(PIN)
        shown = self.ends(0)
        self.assertIn("2 shares are there: enough", shown)
        self.assertIn("restored app/key version 1 to file:out.key", shown)
        self.assertEqual(self.world.path("out.key").read_bytes(), self.world.key)
        self.assertNotIn(PIN, self.screen.text())
        self.assertEqual(self.events()[before:], [("restore.requested", ""),
                                                  ("restore.completed", "")])

    def test_it_is_left_paused_and_left_again(self):
        before = len(self.events())
        self.begin()
        self.screen.wait(WAITING)
        self.officer("alice", "alice: your share is given and good")
        self.screen.wait(WAITING)
        self.screen.type("", "C-c")
        shown = self.screen.wait('type "leave" to leave, Enter to go on:')
        self.assertIn("leaving forgets 1 share: alice would have to come again", shown)
        self.screen.type("")
        self.screen.wait("1 of 2 shares are there", WAITING)
        self.screen.type("", "C-z")
        self.screen.wait("Stopped", "READY>")
        self.screen.type("fg")
        shown = self.screen.wait("1 of 2 shares are there", WAITING)
        self.assertRegex(shown, r"1 +alice +share given")
        self.screen.type("nobody")
        self.screen.wait("no officer of this path has that name or number", WAITING)
        self.screen.type("q")
        self.screen.wait("to go on:")
        self.screen.type("leave")
        self.screen.wait("error: the ceremony was left with 1 of 2 officers' shares", "READY>")
        self.assertFalse(self.world.path("out.key").exists())
        self.assertEqual(self.events()[before:], [("restore.requested", ""),
                                                  ("restore.failed", "factor_missing")])

    def test_not_now_and_a_mistyped_password(self):
        self.insert("alice", "carol")
        self.begin(via="both")
        self.screen.wait("password of path 'both'")
        self.screen.type("wrong horse")
        self.screen.wait("PIN of token 'alice':")
        self.screen.type("")  # alice stands back
        self.screen.wait("alice: not now; no PIN was sent", "PIN of token 'carol':")
        self.screen.type(PIN)
        shown = self.screen.wait(WAITING)
        self.assertRegex(shown, r"1 +alice +stood back: type 1 to go on")
        self.screen.type("alice")
        self.screen.wait("PIN of token 'alice':")
        self.screen.type(PIN)
        shown = self.screen.wait("type the password again? [y/N]:")
        self.assertIn("the officers' shares are kept", shown)
        self.screen.type("y")
        self.screen.wait("password of path 'both'")
        self.screen.type(PASSWORD)
        self.ends(0)
        self.assertEqual(self.world.path("out.key").read_bytes(), self.world.key)

    def test_the_last_try_is_spent_by_a_word_alone(self):
        """Of a token that says that one more wrong PIN locks it no PIN is asked for before."""
        faulty = os.environ.get("KEYESCROW_FAULTY_PKCS11")
        if not faulty:
            self.skipTest("KEYESCROW_FAULTY_PKCS11 is not set")
        self.screen.type(f"export FAULTY_PKCS11_MODULE={self.world.module} "
                         "FAULTY_PKCS11_RULES=C_GetTokenInfo@0=flags:20000")
        self.insert("alice", "carol")
        self.begin("--module", faulty)
        word = 'type "last try" to spend it, Enter to leave it alone:'
        shown = self.screen.wait(word)
        self.assertIn("alice: your token is here", shown)
        self.assertIn("one more wrong PIN locks this token", shown)
        self.screen.type("yes")
        self.screen.wait("carol: your token is here", word)
        self.screen.type("")
        shown = self.screen.wait(WAITING)
        self.assertRegex(shown, r"1 +alice +was refused: type 1 to try again")
        # Who comes back is asked for the word again.
        self.screen.type("1")
        self.screen.wait(word)
        self.screen.type("last try")
        self.screen.wait("PIN of token 'alice' (the last try before it locks):")
        self.screen.type("00000000")
        self.screen.wait("type another PIN now? [y/N]:")
        self.screen.type("y")
        self.screen.wait(word)  # it was good for one try
        self.screen.type("last try")
        self.screen.wait("PIN of token 'alice' (the last try before it locks):")
        self.screen.type(PIN)
        self.screen.wait("alice: your share is given and good", WAITING)
        self.screen.type("3")
        self.screen.wait(word)
        self.screen.type("last try")
        self.screen.wait("PIN of token 'carol' (the last try before it locks):")
        self.screen.type(PIN)
        self.ends(0)
        self.assertEqual(self.world.path("out.key").read_bytes(), self.world.key)

    def test_a_drill_waits_for_a_path_that_is_named(self):
        self.begin(command="drill app/key")
        self.screen.wait(WAITING)
        self.officer("bob", "bob: your share is given and good")
        self.officer("alice", "2 shares are there: enough")
        shown = self.ends(0)
        self.assertIn("1 proven, 0 failed, 0 skipped", shown)

    def test_a_token_that_refused_a_pin_for_another_path_gets_it_once(self):
        self.insert("alice", "bob", "carol")
        self.backup("app/two", "alone=token:alice & password", f"officers={EXPRESSION}")
        self.screen.command("drill", "app/two", "--pin-file", "alice=wrong-pin",
                            "--password-file", "pw")
        shown = self.screen.wait("PIN of token 'bob':")
        self.assertIn("the PIN of the token alice was not accepted before, and is not sent again", shown)
        self.screen.type(PIN)
        self.screen.wait("PIN of token 'carol':")
        self.screen.type(PIN)
        shown = self.ends(1)
        self.assertIn("1 proven, 1 failed, 0 skipped", shown)

    def test_officers_open_for_a_change_of_paths(self):
        self.insert("alice", "carol")
        self.backup("app/edited", f"officers={EXPRESSION}")
        self.screen.command("path", "add", "app/edited", "--path", "'password & token:alice'",
                            "--new-password-file", "pw")
        self.screen.wait("officers' shares to change the paths of", "PIN of token 'alice':")
        self.screen.type(PIN)
        self.screen.wait("PIN of token 'carol':")
        self.screen.type(PIN)
        shown = self.ends(0)
        self.assertRegex(shown, r"officers .* kept +yes")  # their tokens were still here
        self.assertRegex(shown, r"token-alice .* added +yes")
