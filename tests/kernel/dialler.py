"""
Doors that tell who came and where to, and dials that tell what they found; for a namespace.

usage: python -m tests.kernel.dialler [ADDRESS PORT]...
Listens there, prints a line, and answers every connection with one line of JSON: the door's port and where the connection was
going.  Then reads lines: ``ADDRESS PORT`` dials once and prints what was read, or the error; ``watch ADDRESS PORT`` dials on and
on, and ``end`` ends that and prints how often each answer came.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections import Counter
from threading import Event, Thread

from yurt.host.destination import local_destination, original_destination

DIAL_SECONDS = 5.0


def listen(address: str, port: int) -> None:
    """
    Answer connections for ever.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, port), family=family, backlog=512, dualstack_ipv6=address == "::")
    Thread(target=answer, args=(listener,), daemon=True).start()


def answer(listener: socket.socket) -> None:
    """
    Tell each connection where it was going.
    """
    while True:
        connection, _ = listener.accept()
        with connection:
            going = original_destination(connection) or local_destination(connection)
            connection.sendall(json.dumps([local_destination(connection)[1], *going]).encode())


def dial(address: str, port: int) -> str:
    """
    What a connection finds.
    """
    try:
        with socket.create_connection((address, port), DIAL_SECONDS) as connection:
            return connection.makefile().read()
    except OSError as error:
        return f"{type(error).__name__}: {error}"


class Watch(Thread):
    """
    Dials on and on.
    """

    def __init__(self, address: str, port: int) -> None:
        super().__init__(daemon=True)
        self.target = (address, port)
        self.ended = Event()
        self.found: Counter[str] = Counter()

    def run(self) -> None:
        while not self.ended.is_set():
            self.found[dial(*self.target)] += 1
            time.sleep(0.001)  # leaves ports and processors to others


def main() -> None:
    """
    Obey until the input ends.
    """
    places = sys.argv[1:]
    for address, port in zip(places[::2], places[1::2]):
        listen(address, int(port))
    print("listening", flush=True)
    watches: list[Watch] = []
    for line in sys.stdin:
        words = line.split()
        if words[0] == "watch":
            watches.append(Watch(words[1], int(words[2])))
            watches[-1].start()
        elif words[0] == "end":
            for watch in watches:
                watch.ended.set()
                watch.join()
            print(json.dumps([watch.found for watch in watches]), flush=True)
            watches.clear()
        else:
            print(dial(words[0], int(words[1])), flush=True)


if __name__ == "__main__":
    main()
