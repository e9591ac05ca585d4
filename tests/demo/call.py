"""
A call in the demo, byte by byte: by TLS with a client certificate, for upgrades and answers without end, too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from yurt.tls import ClientTLS

from .stage import HERE, STEP_TIMEOUT


class Call(Protocol):
    """
    A connection that keeps what comes until somebody takes it.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._data = b""
        self._end: bytes | None = b""
        self._ended = False
        self._waiting: Deferred[bytes] | None = None

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        self._look()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ended = True
        self._look()

    def _look(self) -> None:
        waiting = self._waiting
        if waiting is None:
            return
        if self._end is not None and self._end in self._data:
            found, _, self._data = self._data.partition(self._end)
            self._waiting = None
            waiting.callback(found + self._end)
        elif self._ended:
            self._waiting = None
            if self._end is None:
                waiting.callback(self._data)
            else:
                waiting.errback(ConnectionError(f"the connection ended after {self._data!r}"))

    def through(self, end: bytes | None) -> Deferred[bytes]:
        """
        What has come, and comes, up to and with ``end``; None stands for the end of the connection.  Fails with
        ``ConnectionError``, and with ``TimeoutError``.
        """
        self._end, self._waiting = end, Deferred()
        waiting = self._waiting.addTimeout(STEP_TIMEOUT, self._reactor)
        self._look()
        return waiting

    def send(self, data: bytes) -> None:
        """
        Write.
        """
        cast(Any, self.transport).write(data)

    def hang_up(self) -> None:
        """
        End the connection, if it has not ended.
        """
        if not self._ended:
            cast(Any, self.transport).abortConnection()


@dataclass(frozen=True)
class Caller:
    """
    Somebody with a certificate who asks the TLS port of a tunnel server on this machine.
    """

    reactor: Any
    tls: ClientTLS
    port: int

    async def call(self, method: str, target: str, host: str = "", **headers: str) -> Call:
        """
        Send a request for the node that ``host``, or the path, names.
        """
        endpoint = TCP4ClientEndpoint(self.reactor, HERE, self.port)
        made: Call = await connectProtocol(wrapClientTLS(self.tls.creator(HERE), endpoint), Call(self.reactor))
        fields = {"Host": host or f"{HERE}:{self.port}", **headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        made.send(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode())
        return made

    async def ask(self, target: str, host: str) -> tuple[int, str]:
        """
        Status of a GET, and what is answered: of a Kubernetes Status its message.
        """
        call = await self.call("GET", target, host, Connection="close")
        head, _, body = (await call.through(None)).partition(b"\r\n\r\n")
        text = body.decode()
        return int(head.split()[1]), json.loads(text)["message"] if text.startswith("{") else text
