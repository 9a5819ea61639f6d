"""A command on a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from conftest import LAMINA, Daemon

PATIENCE_S = 30


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, daemon: Daemon, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        environment = {**os.environ, "LAMINA_HOST": daemon.host}
        self.process = subprocess.Popen(
            [str(LAMINA), *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),  # so that Ctrl-C is a signal
        )
        os.close(slave)
        self.shown = b""

    def expect(self, text: bytes) -> None:
        """Wait until the terminal has shown *text* since the last time."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.shown:
            assert time.monotonic() < deadline, f"{text!r} was not shown: {self.shown!r}"
            assert self._read(1), f"the terminal was closed: {self.shown!r}"
        self.shown = self.shown.partition(text)[2]

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def end(self) -> int:
        """The exit code; all that is shown is read."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read(0.05) and time.monotonic() < deadline:
            if self.process.poll() is not None and not select.select([self._master], [], [], 0)[0]:
                break
        return self.process.wait(PATIENCE_S)

    def _read(self, patience_s: float) -> bool:
        """Read what is shown; False once the terminal is closed."""
        if select.select([self._master], [], [], patience_s)[0]:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # EIO: the last process that had it is gone
                return False
            self.shown += data
            return bool(data)
        return True

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        with suppress(OSError):
            os.close(self._master)


@contextmanager
def terminal(daemon: Daemon, *arguments: str) -> Iterator[Terminal]:
    """The command, for the length of the block."""
    opened = Terminal(daemon, *arguments)
    try:
        yield opened
    finally:
        opened.close()
