"""The executable on a pseudo-terminal, driven the way a person drives it."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time

import tessera


class Terminal:
    """A chat on a terminal of its own. Use as a context manager: what still runs at the end is killed."""

    def __init__(self, *arguments, env=None):
        self.shown = ""  # all output so far, carriage returns included
        self._seen = 0   # how much of it wait_for has passed
        self._partial = b""
        env = env or tessera.environment()
        child, self._terminal = pty.fork()
        if child == 0:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it would be ignored
            os.execve(str(tessera.BINARY), [str(tessera.BINARY), *map(str, arguments)], env)
        self._child = child
        self._status = None
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._status is None:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
        os.close(self._terminal)

    def _read(self, seconds):
        """More output, or False after that long without any or when the program has gone."""
        ready, _, _ = select.select([self._terminal], [], [], seconds)
        if not ready:
            return False
        try:
            piece = os.read(self._terminal, 65536)
        except OSError:
            return False
        self.shown += piece.decode(errors="replace")
        return bool(piece)

    def wait_for(self, pattern):
        """Waits until the output after the last match holds the pattern; gives what came before it."""
        deadline = time.monotonic() + tessera.TIME_LIMIT
        while True:
            found = re.compile(pattern, re.S).search(self.shown, self._seen)
            if found:
                before = self.shown[self._seen:found.start()]
                self._seen = found.end()
                return before
            if not self._read(0.5) and self._gone() or time.monotonic() > deadline:
                raise AssertionError(f"no {pattern!r} after {self.shown[self._seen:]!r}")

    def wait_prompt(self):
        """Waits for an empty prompt: bracketed paste is switched on right before it is drawn."""
        return self.wait_for(re.escape("\x1b[?2004h") + ".*?> (\x1b\\[0m)?")

    def type(self, text):
        os.write(self._terminal, text.encode() if isinstance(text, str) else text)

    def enter(self, text=""):
        self.type(text + "\r")

    def quiet(self, seconds=1.0):
        """Whatever comes until the terminal has been silent for that long."""
        start = len(self.shown)
        while self._read(seconds):
            pass
        return self.shown[start:]

    def _gone(self):
        if self._status is None:
            pid, status = os.waitpid(self._child, os.WNOHANG)
            if pid != 0:
                self._status = status
        return self._status is not None

    def exit_code(self):
        """Waits for the end."""
        deadline = time.monotonic() + tessera.TIME_LIMIT
        while not self._gone():
            self._read(0.1)
            if time.monotonic() > deadline:
                raise AssertionError(f"the program did not end; it showed {self.shown!r}")
        while self._read(0.1):
            pass
        return os.waitstatus_to_exitcode(self._status)
