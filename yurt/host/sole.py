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
"""Askers that are remembered by the kernel; nobody accepts them.  Each process asks once."""

_CREDENTIALS = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid


class Sole:
    """
    One name, which :meth:`take` takes if it is free.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._socket: socket.socket | None = None
        self.holder: int | None = None
        """The process that has the name instead, 0 for one that cannot be seen from here; None for none."""

    def take(self) -> bool:
        """
        Whether the name is ours now, or nobody's who could have it rightly: one of another user's does not count.
        """
        if self._socket is not None:
            return True
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.bind(f"\0{self._name}")
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            if error.errno != errno.EADDRINUSE:
                return True
            return self.holder is None and self._is_wrongly_held()
        self._socket, self.holder = sock, None
        return True

    def leave(self) -> None:
        """
        Let another one have it.
        """
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _is_wrongly_held(self) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            try:
                sock.connect(f"\0{self._name}")
            except BlockingIOError:
                return True  # nobody of ours is asked by so many
            except OSError:
                return False  # it has just ended
            pid, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if uid not in (0, os.geteuid()):
            return True
        self.holder = pid
        return False
