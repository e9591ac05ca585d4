"""
The values and the seams of the HTTP data path.

A server connection turns bytes into :class:`IncomingRequest` objects and asks one :class:`Application` once a request.
An :class:`Upstream` sends a request somewhere and tells a :class:`ResponseReceiver` what comes back.  The hub knows only
these names, so an HTTP/2 upstream can take the place of the HTTP/1.1 one without touching it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Protocol

from cryptography.x509 import Certificate
from twisted.internet.interfaces import IAddress

Headers = list[tuple[bytes, bytes]]
"""Header fields in the order and the spelling received; names compare case-insensitively."""


@dataclass(slots=True)
class RequestHead:
    """
    The start line and header fields of a request.

    ``target`` is the request target as received (origin form: path and query; of a CONNECT: host and port, not checked).
    ``http10`` is true for HTTP/1.0 peers.  Not to be changed: requests that are alike share it.
    ``memo`` keeps, by who has made it, what is made of a head that may come again; None of one that may not.
    """

    method: bytes
    target: bytes
    headers: Headers = field(default_factory=list)
    http10: bool = False
    memo: dict[Hashable, Any] | None = field(default=None, compare=False, repr=False)


@dataclass(slots=True)
class ResponseHead:
    """
    The status line and header fields of a response.
    """

    status: int
    reason: bytes
    headers: Headers = field(default_factory=list)


class UpstreamError(Exception):
    """
    The upstream gave no (whole) answer; the message says what failed, at which address, and why.

    ``sent`` is false when it is certain that no byte of the request reached the server, so that even a
    request that is not idempotent may be tried elsewhere.  ``local`` is true when this machine lacked the means to
    connect, such as open files, which says nothing about the server.  Its cause is the error of the dial, if that failed.
    """

    def __init__(self, message: str, *, sent: bool = True, local: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        self.local = local


class FlowControlled(Protocol):
    """
    A source of bytes that can be held back.
    """

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class BodyReceiver(Protocol):
    """
    Takes a request body as it comes in.
    """

    def body_received(self, data: bytes) -> None: ...

    def body_finished(self, trailers: Headers) -> None: ...


class ByteReceiver(Protocol):
    """
    Takes the bytes of an upgraded connection.

    ``bytes_finished`` is a half-close of the peer: it sends no more, it may still read.  ``bytes_lost`` is the end of
    both directions; nothing follows it.
    """

    def bytes_received(self, data: bytes) -> None: ...

    def bytes_finished(self) -> None: ...

    def bytes_lost(self) -> None: ...


class ByteStream(Protocol):
    """
    An upgraded connection: raw bytes in both directions.
    """

    broken: bool
    """Once it is lost: whether it was reset, or ended in another way that neither side wanted, so that bytes may be missing."""

    def attach(self, receiver: ByteReceiver, source: FlowControlled | None) -> None:
        """
        Deliver what arrives to ``receiver``; pause and resume ``source`` (which produces what is written here) by back-pressure.
        """

    def write(self, data: bytes) -> None: ...

    def finish(self) -> None:
        """
        Half-close after all that was written; the other direction goes on until the peer ends it, over TLS 1.3, too.
        """

    def close(self) -> None:
        """
        End both directions after all that was written.
        """

    def abort(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class IncomingRequest(Protocol):
    """
    One request as the application sees it, and the means to answer it.

    Either :meth:`respond` once; or :meth:`start`, any number of :meth:`write`, then :meth:`finish` or :meth:`abort`; or
    :meth:`accept_upgrade` when ``upgrade`` is true, as it is of a CONNECT.  After the client hung up all of them do nothing.
    """

    head: RequestHead
    upgrade: bool
    has_body: bool
    peer: IAddress
    door: object
    """What the listener gave the connections it accepts: tells loopback from the pod-facing address."""

    @property
    def client_certificate(self) -> Certificate | None:
        """
        The certificate that the client showed in the TLS hand-shake, where it was verified; None without one.
        """

    @property
    def server_name(self) -> str:
        """
        The name that the client dialled, as it said in the TLS hand-shake; empty without TLS, and when it dialled an address.
        """

    @property
    def tcp_socket(self) -> socket.socket | None:
        """
        The TCP socket that it came by, for questions to the kernel; None when it came by another.
        """

    def read_body(self, receiver: BodyReceiver) -> FlowControlled:
        """
        Deliver the body to ``receiver``, from its first byte; at most one receive buffer is held until this is called.
        Sends the interim 100 response first when the client waits for it.
        """

    def interim(self, head: ResponseHead) -> None:
        """
        Pass on a 1xx response other than 101.
        """

    def respond(self, status: int, headers: Headers, body: bytes = b"", phrase: bytes = b"") -> None:
        """
        A whole response in one write, of this server's own; ``Content-Length`` is added.  ``phrase`` takes the place of the
        status's own words.
        """

    def start(self, head: ResponseHead) -> None:
        """
        Begin a streamed response.  With ``Content-Length`` among the headers the body goes out as it is, otherwise
        chunked (HTTP/1.1) or up to the end of the connection (HTTP/1.0).  Hop-by-hop headers of ``head`` are removed.
        """

    def write(self, data: bytes) -> None: ...

    def finish(self, trailers: Headers | None = None) -> None: ...

    def abort(self) -> None:
        """
        Cut the connection, so that the client sees that the response is not whole.
        """

    def produce_from(self, source: FlowControlled | None) -> None:
        """
        Hold back ``source`` while the client does not read.
        """

    def when_lost(self, callback: Callable[[], None], half_closed: float | None = None) -> None:
        """
        Call ``callback()`` once if the client hangs up before the response is finished; at once if it already has.
        A client that only ends its sending direction has not hung up, until ``half_closed`` seconds (by default
        ``ServerLimits.half_closed_timeout``) pass without a byte for it.  After :meth:`accept_upgrade` the stream tells of
        the end instead.
        """

    def accept_upgrade(self, head: ResponseHead) -> ByteStream:
        """
        Send ``head`` (a 101; a 200 to CONNECT) as it is and hand over the connection; bytes that came early are delivered first.
        """


class Application(Protocol):
    """
    What a server connection asks, once a request.
    """

    def handle(self, request: IncomingRequest) -> None: ...


class ResponseReceiver(Protocol):
    """
    Takes what an upstream answers.  Exactly one of ``response_finished``, ``response_failed`` and ``upgraded`` ends it,
    and none of them comes after :meth:`Exchange.cancel`.
    """

    def interim_received(self, head: ResponseHead) -> None: ...

    def head_received(self, head: ResponseHead) -> None: ...

    def data_received(self, data: bytes) -> None: ...

    def response_finished(self, trailers: Headers) -> None: ...

    def response_failed(self, error: UpstreamError) -> None: ...

    def upgraded(self, head: ResponseHead, stream: ByteStream) -> None: ...


class Exchange(Protocol):
    """
    A request on its way to an upstream, and the hold on its response.
    """

    def pause(self) -> None:
        """
        Stop reading the response until :meth:`resume`.
        """

    def resume(self) -> None: ...

    def write(self, data: bytes) -> None:
        """
        Send a piece of the request body; framed by the request's own ``Content-Length``, otherwise chunked.
        """

    def finish(self, trailers: Headers) -> None:
        """
        The request body is complete.
        """

    def produce_from(self, source: FlowControlled | None) -> None:
        """
        Hold back ``source`` of the request body while the upstream does not read.
        """

    def cancel(self) -> None:
        """
        Drop the exchange and its connection; the receiver is told nothing more.
        """


class Upstream(Protocol):
    """
    One server that requests can be sent to.
    """

    name: str
    """Its address as the operator wrote it, for logs and metrics."""

    @property
    def open_connections(self) -> int:
        """
        Connections open or being opened.
        """

    def send(
        self,
        head: RequestHead,
        receiver: ResponseReceiver,
        *,
        body: bool = False,
        upgrade: bool = False,
        fresh: bool = False,
        once: bool = False,
    ) -> Exchange:
        """
        Send a request; with ``fresh`` over a new connection, which shows whether the server can be reached now.  With ``once``
        nobody could ask again if it were lost, so it does not go over a connection that may have died while it was idle.
        Hop-by-hop headers are removed (kept for ``upgrade``); ``Host`` is set to the server's own.  With ``body`` the
        caller goes on to :meth:`Exchange.write` and :meth:`Exchange.finish`.  Failures, also of dialling, come through
        the receiver, never from here and never before this returned.
        """

    def close_connections(self, reason: str) -> None:
        """
        Fail every exchange in flight with :class:`UpstreamError` and drop idle connections.
        """

    def retire_connections(self) -> None:
        """
        Let every connection that is open end with what it carries.
        """
