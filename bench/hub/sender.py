"""
A cloud that sends watch events fast: ``python -m bench.hub.sender``.

It answers lists, and any number of watches of pods, or of EndpointSlices, over TLS.  Each event is one chunk and one write per
watcher, as an API server does it, and says in its object when it was sent.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import socket
import ssl
import sys
import threading
import time
from pathlib import Path

from bench.children import Child, is_listening
from bench.hub.objects import body, endpoint_slice, list_body, pod, service
from bench.hub.site import NODE, Site
from tests.ports import free_port

TICK = 0.001
SEND_TIMEOUT = 10.0
"""Seconds after which a watcher that does not read is dropped."""
EVENT_BYTES = 1000
FIRST_VERSION = 200_000
MARK = b'"sent":"'
SENT = re.compile(rb'"sent":"(\d+\.\d+)"')


def start_sender(site: Site, *, pods: int = 0, slices: int = 0, rate: int = 0) -> SenderChild:
    """
    Run it as a process of the site.  With ``slices`` it has so many EndpointSlices and their Services, and its events are about
    the slices.
    """
    port = free_port()
    certs = site.certs
    options = ["--port", str(port), "--certs", str(certs), "--pods", str(pods), "--slices", str(slices), "--rate", str(rate)]
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
    Modifications of objects, one after the other, ``rate`` a second, to all who watch.  ``template`` is the object of number 0
    as the cloud sends it.
    """

    def __init__(self, template: bytes, objects: int, rate: int) -> None:
        self._rate = rate
        self._watchers: list[socket.socket] = []
        self._silent: list[socket.socket] = []
        template = template.replace(b'"padding":', MARK + b'@@sent@@@@@@@@@@","padding":')
        template = template.replace(b'"resourceVersion": "1000"', b'"resourceVersion":"@rv@"')
        self._events = []
        for number in range(max(1, objects)):
            document = template
            for kind in (b"pod", b"slice", b"service"):
                document = document.replace(kind + b'-0"', b'%s-%d"' % (kind, number))
            self._events.append(b'{"type":"MODIFIED","object":%s}\n' % document)

    def watch(self, connection: ssl.SSLSocket, *, silent: bool) -> None:
        """
        Begin a stream that nobody else writes to or reads from.
        """
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.settimeout(SEND_TIMEOUT)
        if silent:
            self._silent.append(connection)
        else:
            self._watchers = [*self._watchers, connection]

    def run(self) -> None:
        """
        Send what is due, for ever.
        """
        began, sent = time.monotonic(), 0
        while True:
            time.sleep(TICK)
            due = int((time.monotonic() - began) * self._rate)
            for number in range(sent + 1, due + 1):
                self._send(number)
            sent = due

    def chunk(self, number: int, now: float) -> bytes:
        """
        The event of that number, as sent at ``now``.
        """
        event = self._events[number % len(self._events)].replace(b"@rv@", b"%d" % (FIRST_VERSION + number))
        event = event.replace(b"@@sent@@@@@@@@@@", b"%.6f" % now)
        return b"%x\r\n%s\r\n" % (len(event), event)

    def _send(self, number: int) -> None:
        chunk = self.chunk(number, time.time())
        for watcher in self._watchers:
            try:
                watcher.sendall(chunk)
            except OSError:
                watcher.close()
                self._watchers = [one for one in self._watchers if one is not watcher]


def answer(connection: ssl.SSLSocket, events: Events, lists: dict[bytes, bytes]) -> None:
    """
    Requests without bodies, one after the other, up to a watch.  ``lists`` are the lists by resource; the first is what events
    are about.
    """
    watched = next(iter(lists))
    received = b""
    while True:
        while b"\r\n\r\n" not in received:
            data = connection.recv(65536)
            if not data:
                return
            received += data
        head, received = received.split(b"\r\n\r\n", 1)
        path, _, query = head.split(b" ", 2)[1].partition(b"?")
        status, content = b"200 OK", b"ok"
        resource = path.rpartition(b"/")[2]
        if resource in lists:
            if b"watch=" in query:
                events.watch(connection, silent=resource != watched)
                return
            content = lists[resource]
        elif path != b"/readyz":
            status, content = b"404 Not Found", b'{"kind":"Status","apiVersion":"v1","status":"Failure","code":404}'
        fields = b"Content-Type: application/json\r\nContent-Length: %d" % len(content)
        connection.sendall(b"HTTP/1.1 %s\r\n%s\r\n\r\n%s" % (status, fields, content))


def serve(connection: socket.socket, context: ssl.SSLContext, events: Events, lists: dict[bytes, bytes]) -> None:
    """
    One connection, in a thread of its own.
    """
    with contextlib.suppress(OSError):
        answer(context.wrap_socket(connection, server_side=True), events, lists)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.hub.sender")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certs", type=Path, required=True)
    parser.add_argument("--pods", type=int, default=100)
    parser.add_argument("--slices", type=int, default=0)
    parser.add_argument("--rate", type=int, default=0, help="events a second")
    options = parser.parse_args()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certs / "server.crt", options.certs / "server.key")
    lists: dict[bytes, bytes] = {}
    template, count = body("Pod", pod(0, EVENT_BYTES)), options.pods
    if options.slices:
        api_version = "discovery.k8s.io/v1"
        template, count = body("EndpointSlice", endpoint_slice(0), api_version), options.slices
        items = [endpoint_slice(number) for number in range(count)]
        lists[b"endpointslices"] = list_body("EndpointSlice", items, api_version=api_version)
        lists[b"services"] = list_body("Service", [service(number) for number in range(count)])
        lists[b"nodes"] = list_body("Node", [{"metadata": {"name": NODE, "resourceVersion": "1"}}])
        lists[b"nodepools"] = list_body("NodePool", [], api_version="apps.openyurt.io/v1beta1")
        lists[b"configmaps"] = list_body("ConfigMap", [])
    lists[b"pods"] = list_body("Pod", [pod(number, node=NODE) for number in range(options.pods)])
    events = Events(template, count, options.rate)
    if options.rate:
        threading.Thread(target=events.run, daemon=True).start()
    with socket.create_server(("127.0.0.1", options.port), backlog=512) as listener:
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=serve, args=(connection, context, events, lists), daemon=True).start()


if __name__ == "__main__":
    main()
