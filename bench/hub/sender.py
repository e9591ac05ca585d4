"""
A cloud that sends watch events fast: ``python -m bench.hub.sender``.

It answers one list of pods and any number of watches of them, over TLS.  Each event is one chunk and one write per watcher, as
an API server does it, and says in its object when it was sent.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path
from typing import Any

from bench.hub.children import Child, free_port, is_listening
from bench.hub.objects import body, list_body, pod
from bench.hub.site import NODE, Site

TICK = 0.001
EVENT_BYTES = 1000
FIRST_VERSION = 200_000
MARK = b'"sent":"'
SENT = re.compile(rb'"sent":"(\d+\.\d+)"')


def start_sender(site: Site, *, pods: int, rate: int = 0) -> SenderChild:
    """
    Run it as a process of the site.
    """
    port = free_port()
    certs = site.certs
    options = ["--port", str(port), "--certs", str(certs), "--pods", str(pods), "--rate", str(rate)]
    child = site.child("sender", sys.executable, "-m", "bench.hub.sender", *options)
    child.wait_until(lambda: is_listening(port), "the sender")
    return SenderChild(child, port)


class SenderChild:
    """
    The process and its port.
    """

    def __init__(self, child: Child, port: int) -> None:
        self.child = child
        self.port = port


class Events:
    """
    Modifications of the pods, one after the other, ``rate`` a second.
    """

    def __init__(self, pods: int, rate: int) -> None:
        self._rate = rate
        self._began = time.monotonic()
        self._sent = 0
        event = b'{"type":"MODIFIED","object":%s}\n'
        names = [f"pod-{number}" for number in range(max(1, pods))]
        template = body("Pod", pod(0, EVENT_BYTES)).replace(b'"padding":', MARK + b'@@sent@@@@@@@@@@","padding":')
        template = template.replace(b'"resourceVersion": "1000"', b'"resourceVersion":"@rv@"')
        self._events = [event % template.replace(b"pod-0", name.encode()) for name in names]
        self.watchers: set[Any] = set()

    def tick(self) -> None:
        """
        Send what is due by now.
        """
        due = int((time.monotonic() - self._began) * self._rate)
        if not self.watchers:
            self._sent = due
        while self._sent < due:
            self._sent += 1
            event = self._events[self._sent % len(self._events)]
            event = event.replace(b"@rv@", b"%d" % (FIRST_VERSION + self._sent))
            event = event.replace(b"@@sent@@@@@@@@@@", b"%.6f" % time.time())
            chunk = b"%x\r\n%s\r\n" % (len(event), event)
            for watcher in self.watchers:
                watcher.write(chunk)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.hub.sender")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certs", type=Path, required=True)
    parser.add_argument("--pods", type=int, default=100)
    parser.add_argument("--rate", type=int, default=0, help="events a second")
    options = parser.parse_args()

    from twisted.internet import reactor, ssl
    from twisted.internet.protocol import Factory, Protocol
    from twisted.internet.task import LoopingCall

    events = Events(options.pods, options.rate)
    pods = list_body("Pod", [pod(number, node=NODE) for number in range(options.pods)])

    class Connection(Protocol):
        """
        Requests without bodies, one after the other.
        """

        transport: Any

        def connectionMade(self) -> None:
            self._received = b""

        def dataReceived(self, data: bytes) -> None:
            self._received += data
            while b"\r\n\r\n" in self._received:
                head, self._received = self._received.split(b"\r\n\r\n", 1)
                self._answer(head.split(b" ", 2)[1])

        def _answer(self, target: bytes) -> None:
            path, _, query = target.partition(b"?")
            if path == b"/readyz":
                self._send(b"200 OK", b"ok")
            elif not path.endswith(b"/pods"):
                self._send(b"404 Not Found", b'{"kind":"Status","apiVersion":"v1","status":"Failure","code":404}')
            elif b"watch=" in query:
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                self.transport.write(head)
                events.watchers.add(self.transport)
            else:
                self._send(b"200 OK", pods)

        def _send(self, status: bytes, content: bytes) -> None:
            head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(content))
            self.transport.write(head + content)

        def connectionLost(self, reason: Any = None) -> None:
            events.watchers.discard(self.transport)

    certs: Path = options.certs
    context = ssl.DefaultOpenSSLContextFactory(str(certs / "server.key"), str(certs / "server.crt"))
    running: Any = reactor
    running.listenSSL(options.port, Factory.forProtocol(Connection), context, interface="127.0.0.1", backlog=512)
    if options.rate:
        LoopingCall(events.tick).start(TICK, now=False)
    running.run()


if __name__ == "__main__":
    main()
