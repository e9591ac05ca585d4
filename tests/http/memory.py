"""
In-memory transports and recording partners for the tests of the HTTP data path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from yurt.http.interfaces import ByteStream, Headers, IncomingRequest, ResponseHead, UpstreamError
from yurt.http.limits import ServerLimits
from yurt.http.server import HTTPServerFactory
from yurt.http.server_connection import ServerConnection


class MemoryWire(StringTransport):
    """
    A transport that keeps what is written, and like a TCP one can close one direction only and forgets a missing producer.
    """

    write_ended = False
    aborted = False

    def loseWriteConnection(self) -> None:
        self.write_ended = True

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()

    def unregisterProducer(self) -> None:
        self.producer = None

    @property
    def reading(self) -> bool:
        """
        Whether the protocol takes what arrives.
        """
        return self.producerState == "producing"

    @property
    def is_closed(self) -> bool:
        """
        Whether the protocol closed it, or is about to.
        """
        return self.disconnecting or self.disconnected or self.write_ended or self.aborted


class Recorder:
    """
    A :class:`BodyReceiver`, :class:`ByteReceiver`, :class:`ResponseReceiver` and :class:`FlowControlled` that notes all.
    """

    def __init__(self) -> None:
        self.body = b""
        self.finished: Headers | None = None
        self.interims: list[int] = []
        self.head: ResponseHead | None = None
        self.error: UpstreamError | None = None
        self.stream: ByteStream | None = None
        self.events: list[str] = []
        self.paused = False

    def body_received(self, data: bytes) -> None:
        self.body += data
        self.events.append("data")

    def body_finished(self, trailers: Headers) -> None:
        self.finished = trailers
        self.events.append("finished")

    def interim_received(self, head: ResponseHead) -> None:
        self.interims.append(head.status)

    def head_received(self, head: ResponseHead) -> None:
        self.head = head
        self.events.append("head")

    data_received = body_received
    bytes_received = body_received
    response_finished = body_finished

    def response_failed(self, error: UpstreamError) -> None:
        self.error = error
        self.events.append("failed")

    def upgraded(self, head: ResponseHead, stream: ByteStream) -> None:
        self.head = head
        self.stream = stream
        self.events.append("upgraded")

    def bytes_finished(self) -> None:
        self.events.append("ended")

    def bytes_lost(self) -> None:
        self.events.append("lost")

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


class Application:
    """
    Keeps the requests; with ``answer`` it calls that on each.
    """

    def __init__(self, answer: Callable[[IncomingRequest], Any] | None = None) -> None:
        self.requests: list[IncomingRequest] = []
        self.answer = answer

    def handle(self, request: IncomingRequest) -> None:
        self.requests.append(request)
        if self.answer is not None:
            self.answer(request)


class ServerSide:
    """
    A server connection over a :class:`MemoryWire`.
    """

    def __init__(
        self,
        answer: Callable[[IncomingRequest], Any] | None = None,
        limits: ServerLimits = ServerLimits(),
        *,
        takes_connect: bool = False,
    ) -> None:
        self.clock = Clock()
        self.application = Application(answer)
        self.factory = HTTPServerFactory(self.clock, self.application, "the door", limits, takes_connect=takes_connect)
        self.connect()

    def connect(self) -> None:
        """
        One connection more.
        """
        connection = self.factory.buildProtocol(None)
        assert isinstance(connection, ServerConnection)
        self.connection = connection
        self.wire = MemoryWire()
        connection.makeConnection(self.wire)

    @property
    def requests(self) -> list[IncomingRequest]:
        """
        What the application was asked.
        """
        return self.application.requests

    def feed(self, *pieces: bytes) -> bytes:
        """
        Let the client send; returns what the server wrote since the last call.
        """
        for piece in pieces:
            self.connection.dataReceived(piece)
        return self.take()

    def take(self) -> bytes:
        """
        What was written since the last call.
        """
        data: bytes = self.wire.value()
        self.wire.clear()
        return data

    def lose(self) -> None:
        """
        The connection is gone.
        """
        self.connection.connectionLost(Failure(ConnectionDone()))


def echo(request: IncomingRequest) -> None:
    """
    Answer with method, target and body, when the body is whole.
    """

    class Echo(Recorder):
        def body_finished(self, trailers: Headers) -> None:
            tail = b"".join(b"%b=%b" % field for field in trailers)
            head = request.head.method + b" " + request.head.target + b" "
            request.respond(200, [], head + self.body + tail)

    request.read_body(Echo())


def hello(request: IncomingRequest) -> None:
    """
    A short answer at once.
    """
    request.respond(200, [(b"X-Target", request.head.target)], b"hello")


def get(target: bytes = b"/", *fields: bytes) -> bytes:
    """
    A GET request.
    """
    return b"GET %b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (target, b"".join(field + b"\r\n" for field in fields))


def post(body: bytes = b"", *fields: bytes) -> bytes:
    """
    A POST request with ``Content-Length``.
    """
    more = b"".join(field + b"\r\n" for field in fields)
    return b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), more, body)
