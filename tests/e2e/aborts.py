"""
Opens connections and aborts them, many times: ``aborts.py COUNT WORDS socket PATH`` or ``aborts.py COUNT WORDS tcp HOST PORT``.

WORDS, if any, are sent first, with ``\\r\\n`` for line ends.  Never waits for an answer: every second connection is reset as soon
as it has said its words, the others a moment later, when the server may be anywhere between accepting and answering.  Run as a
script inside a network namespace.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections import deque

OPEN_AT_ONCE = 50
PAUSE = 0.0005
"""Seconds between two connections, about what the server needs for one."""
RESET = struct.pack("ii", 1, 0)


def connect(kind: str, *place: str) -> socket.socket:
    """
    A connection to a Unix socket or to a TCP port.
    """
    if kind == "socket":
        one = socket.socket(socket.AF_UNIX)  # without a time limit, so that a full backlog is waited for
        one.connect(place[0])
        return one
    one = socket.create_connection((place[0], int(place[1])), 20)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    return one


def main(count: str, words: str, *place: str) -> None:
    said = words.encode().decode("unicode_escape").encode()
    waiting: deque[socket.socket] = deque()
    for number in range(int(count)):
        one = connect(*place)
        if said:
            one.sendall(said)
        time.sleep(PAUSE)
        if number % 2:
            one.close()
            continue
        waiting.append(one)
        if len(waiting) > OPEN_AT_ONCE:
            waiting.popleft().close()
    for one in waiting:
        one.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
