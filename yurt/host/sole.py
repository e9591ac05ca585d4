"""
A name that one process of a network namespace can have at a time: who keeps the rules of a host must be alone.

It is an abstract Unix socket: the kernel has those by network namespace, as it has rules, whatever the file systems of its
containers, and takes them back when their process ends, however it does.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

BACKLOG = 128
"""Askers that are remembered by the kernel: each process that waits."""

_CREDENTIALS = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid


class Sole:
    """
    One name, which :meth:`take` takes if it is free.  Who waits for it stays connected to the one who has it, until one of them
    ends.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._socket: socket.socket | None = None
        self._asked: socket.socket | None = None
        """The connection to the holder, while this one waits."""
        self.holder: int | None = None
        """The process that has the name instead, 0 for one that cannot be seen from here; None for none."""

    def take(self) -> bool:
        """
        Whether the name is ours now, or nobody's who could have it rightly: one of another user's does not count.
        """
        if self._socket is not None:
            return True
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.bind(f"\0{self._name}")
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            if error.errno != errno.EADDRINUSE:
                return True
            return not (self._asked is not None and _is_open(self._asked)) and self._is_wrongly_held()
        self._wait_no_more()
        self._socket = sock
        return True

    def is_awaited(self) -> bool:
        """
        Whether another process waits for the name, which is ours.
        """
        awaited = False
        while self._socket is not None:
            try:
                asker, _ = self._socket.accept()
            except OSError:
                break
            with asker:
                asker.setblocking(False)
                awaited = _is_open(asker) or awaited
        return awaited

    def leave(self) -> None:
        """
        Let another one have it, or wait for it no more.
        """
        self._wait_no_more()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _wait_no_more(self) -> None:
        self.holder = None
        if self._asked is not None:
            self._asked.close()
            self._asked = None

    def _is_wrongly_held(self) -> bool:
        self._wait_no_more()
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect(f"\0{self._name}")
        except OSError as error:
            sock.close()
            return isinstance(error, BlockingIOError)  # nobody of ours is asked by so many; others say that it has just ended
        pid, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if uid not in (0, os.geteuid()):
            sock.close()
            return True
        self._asked, self.holder = sock, pid
        return False


def _is_open(connection: socket.socket) -> bool:
    """
    Whether the other side of a connection, on which nothing is said, is still there.
    """
    try:
        return bool(connection.recv(1))
    except OSError as error:
        return isinstance(error, BlockingIOError)
