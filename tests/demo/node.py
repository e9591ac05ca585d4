"""
A node for the demo: what a kubelet answers to the calls that need a tunnel, on a TLS port of its own.

Instead of a shell there is a child's play of one, because the tunnel trusts every caller on this machine.
"""

from __future__ import annotations

import time
from typing import Any, cast

from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import LoopingCall

from tests.certs import Authority, issue
from yurt.http.dial import tls_factory
from yurt.http.interfaces import ByteStream, IncomingRequest, ResponseHead
from yurt.http.server import HTTPServerFactory
from yurt.tls import Credentials, ServerTLS

from .stage import NODE

LOG_INTERVAL = 0.5
MAX_LINE = 1000
TEXT = [(b"Content-Type", b"text/plain")]
SHELL = b"demo-shell"
"""What an exec here is upgraded to; a real kubelet speaks SPDY or WebSocket."""


class EdgeNode:
    """
    Listens on ``host`` and ``port``, and shows a certificate of ``ca`` for that address; callers must show one, too.
    """

    def __init__(self, reactor: Any, ca: Authority, host: str, port: int) -> None:
        self._reactor, self._host, self._port = reactor, host, port
        identity = issue(ca, f"system:node:{NODE}", ["system:nodes"], dns=[NODE], ips=[host])
        credentials = Credentials(ca_data=ca.cert_pem, cert_data=identity.cert_pem, key_data=identity.key_pem)
        self._http = HTTPServerFactory(reactor, self)
        tls = ServerTLS(credentials, require_client_certificate=True)
        self._factory = tls_factory(tls, False, cast(IProtocolFactory, self._http))
        self._listening: Any = None

    def start(self) -> None:
        """
        Listen.
        """
        self._listening = self._reactor.listenTCP(self._port, self._factory, interface=self._host)

    async def stop(self) -> None:
        """
        Close everything.
        """
        if self._listening is not None:
            await self._listening.stopListening()
            await self._http.drain(0.0)

    def handle(self, request: IncomingRequest) -> None:
        """
        See :class:`yurt.http.interfaces.Application`.
        """
        path = request.head.target.partition(b"?")[0]
        if path.startswith(b"/containerLogs/"):
            FollowedLog(request)
        elif path.startswith(b"/exec/") and request.upgrade:
            fields = [(b"Connection", b"Upgrade"), (b"Upgrade", SHELL)]
            Shell(request.accept_upgrade(ResponseHead(101, b"Switching Protocols", fields)))
        elif path == b"/healthz":
            request.respond(200, TEXT, b"ok")
        else:
            request.respond(404, TEXT, b"this node knows /healthz, /containerLogs/... and /exec/...\n")


class FollowedLog:
    """
    A container that prints lines for as long as somebody reads them.
    """

    def __init__(self, request: IncomingRequest) -> None:
        self._request = request
        self._lines = 0
        self._printing = LoopingCall(self._print)
        request.start(ResponseHead(200, b"OK", TEXT))
        request.produce_from(self)
        request.when_lost(self.pause)
        self.resume()

    def pause(self) -> None:
        """
        Nobody reads.
        """
        if self._printing.running:
            self._printing.stop()

    def resume(self) -> None:
        """
        Print on.
        """
        if not self._printing.running:
            self._printing.start(LOG_INTERVAL)

    def _print(self) -> None:
        self._lines += 1
        self._request.write(f"{time.strftime('%H:%M:%S')} line {self._lines} of a container on {NODE}\n".encode())


class Shell:
    """
    Answers lines.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._line = b""
        stream.attach(self, None)

    def bytes_received(self, data: bytes) -> None:
        """
        Some of what was typed.
        """
        *lines, self._line = (self._line + data).split(b"\n")
        if len(self._line) > MAX_LINE:
            self._stream.abort()
            return
        for line in lines:
            self._stream.write(self._answer(line.decode(errors="replace")).encode() + b"\n")

    def _answer(self, line: str) -> str:
        word, _, rest = line.partition(" ")
        answers = {"hostname": NODE, "date": time.strftime("%Y-%m-%d %H:%M:%S"), "echo": rest}
        return answers.get(word, f"{word}: not found; there are {', '.join(answers)}")

    def bytes_finished(self) -> None:
        """
        Nothing more will be typed.
        """
        self._stream.close()

    def bytes_lost(self) -> None:
        """
        Nobody is there any more.
        """
