"""
A command on a terminal, as a person sits before it.
"""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Sequence

from .process import PATIENCE, STOP_TIMEOUT, E2EError, wait_for

READ_BYTES = 65536


class Terminal:
    """
    A command whose standard input, output and error are a terminal of that size.
    """

    def __init__(self, argv: Sequence[str], rows: int, columns: int) -> None:
        self._master, slave = pty.openpty()
        os.set_blocking(self._master, False)
        self._seen = b""
        self.resize(rows, columns)

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        try:
            self._child = subprocess.Popen(
                argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, preexec_fn=take_terminal
            )
        finally:
            os.close(slave)

    def resize(self, rows: int, columns: int) -> None:
        """
        Give the terminal another size; the kernel tells the command by SIGWINCH.
        """
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def shown(self) -> str:
        """
        All that it showed so far.
        """
        while True:
            try:
                data = os.read(self._master, READ_BYTES)
            except OSError:  # nothing now (EAGAIN), or nobody has the other side open any more (EIO)
                break
            if not data:
                break
            self._seen += data
        return self._seen.decode(errors="replace")

    def wait_for(self, text: str, timeout: float = PATIENCE) -> None:
        """
        Wait until it showed ``text``.
        """
        try:
            wait_for(f"{text!r} on the terminal", lambda: text in self.shown(), timeout, every=0.02)
        except E2EError as problem:
            raise E2EError(f"{problem}; it showed {self.shown()[-2000:]!r}") from None

    def wait(self, timeout: float = PATIENCE) -> int:
        """
        Wait for the command's end, and answer its exit status.
        """

        def ended() -> bool:
            self.shown()  # a full terminal would hold the command
            return self._child.poll() is not None

        wait_for("the end of the command on the terminal", ended, timeout)
        return self._child.wait()

    def stop(self) -> None:
        """
        End the command, and close the terminal.
        """
        self._child.terminate()
        try:
            self._child.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        os.close(self._master)
