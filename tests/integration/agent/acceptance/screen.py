"""A real terminal of 80 columns and 24 lines: keyescrow in tmux, typed at and read as a person does."""

import shlex
import subprocess
import time
import uuid

from world import within

COLUMNS, LINES = 80, 24


class Screen:
    """Runs one keyescrow command in a tmux server of its own; close() ends both."""

    def __init__(self, world, *arguments, term="screen", env=None):
        self.socket = str(world.path(f"tmux.{uuid.uuid4().hex[:8]}"))
        self.status_file = world.path(f"status.{uuid.uuid4().hex[:8]}")
        environment = {**world.environment, **(env or {}), "TERM": term}
        command = " ".join(shlex.quote(word) for word in world.command(*arguments))
        # The server keeps the pane after the command's end, so that its last screen can be read.
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", str(COLUMNS), "-y", str(LINES),
                  "env", "-i", *(f"{name}={value}" for name, value in environment.items()),
                  "sh", "-c", f"trap : INT; cd {shlex.quote(str(world.folder))} && {command}; "
                  f"echo $? >{shlex.quote(str(self.status_file))}; sleep 600",
                  environment=environment)
        self.tmux("set-option", "-g", "history-limit", "5000")

    def tmux(self, *arguments, environment=None):
        return subprocess.run(["tmux", "-u", "-S", self.socket, *arguments], check=True, text=True,
                              capture_output=True, stdin=subprocess.DEVNULL, env=environment).stdout

    def text(self, history=True):
        """What stands on the screen, and above it what scrolled away; words are not broken apart."""
        scrolled = ["-S", "-5000"] if history else []
        return self.tmux("capture-pane", "-p", "-J", *scrolled)

    def waits_for(self, wanted, after=0, seconds=60):
        """Waits until `wanted` stands behind the first `after` characters; returns the text."""
        deadline = time.monotonic() + within(seconds)
        while time.monotonic() < deadline:
            text = self.text()
            if wanted in text[after:]:
                return text
            time.sleep(0.05)
        raise AssertionError(f"{wanted!r} did not come; the screen:\n{self.text()}")

    def type(self, line):
        if line:
            self.tmux("send-keys", "-l", line)
        self.tmux("send-keys", "Enter")

    def key(self, name):
        self.tmux("send-keys", name)

    def answers(self, *pairs):
        """For each (question, answer): waits for the question, then types the answer."""
        for question, answer in pairs:
            text = self.waits_for(question, getattr(self, "seen", 0))
            self.seen = text.index(question, getattr(self, "seen", 0)) + len(question)
            # The question is written before the terminal listens without echo.
            time.sleep(0.1)
            self.type(answer)

    def ended(self, seconds=60):
        """Waits for the command's end and returns its exit status."""
        deadline = time.monotonic() + within(seconds)
        while time.monotonic() < deadline:
            if self.status_file.exists() and self.status_file.read_text().endswith("\n"):
                return int(self.status_file.read_text())
            time.sleep(0.05)
        raise AssertionError(f"the command did not end; the screen:\n{self.text()}")

    def close(self):
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], check=False, capture_output=True)
