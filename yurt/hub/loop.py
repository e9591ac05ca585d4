"""
The hub as a client of itself: requests that come from inside and are carried, cached and answered like those of anybody else.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IAddress, IReactorTime

from yurt.http.interfaces import (
    Application,
    BodyReceiver,
    ByteStream,
    FlowControlled,
    Headers,
    RequestHead,
    ResponseHead,
    ResponseReceiver,
    UpstreamError,
)
from yurt.hub.identity import Door

INSIDE = Door("inside", lends_node_identity=True)


class LoopUpstream:
    """
    An Upstream that hands requests to an application of this very process.  They have no body.
    """

    name = "yurthub"
    open_connections = 0

    def __init__(self, reactor: IReactorTime, application: Application) -> None:
        self._reactor = reactor
        self._application = application

    def send(self, head: RequestHead, receiver: ResponseReceiver, **how: bool) -> LoopExchange:
        """
        Hand the request over, in the next turn of the reactor.
        """
        request = LoopRequest(head, receiver)
        self._reactor.callLater(0, self._hand_over, request)
        return LoopExchange(request)

    def _hand_over(self, request: LoopRequest) -> None:
        if not request.over:
            self._application.handle(request)

    def close_connections(self, reason: str) -> None:
        """
        There are none.
        """

    def retire_connections(self) -> None:
        """
        There are none.
        """


class LoopRequest:
    """
    One request, as the application sees it.
    """

    upgrade = False
    has_body = False
    client_certificate = None
    server_name = ""
    tcp_socket = None

    def __init__(self, head: RequestHead, receiver: ResponseReceiver) -> None:
        self.head = head
        self.peer: IAddress = IPv4Address("TCP", "127.0.0.1", 0)
        self.door: object = INSIDE
        self.over = False
        self._receiver = receiver
        self._lost: Callable[[], None] | None = None

    def read_body(self, receiver: BodyReceiver) -> FlowControlled:
        """
        There is none.
        """
        raise AssertionError("a request from inside has no body")

    def interim(self, head: ResponseHead) -> None:
        """
        Of no interest.
        """

    def respond(self, status: int, headers: Headers, body: bytes = b"", phrase: bytes = b"") -> None:
        """
        A whole response.
        """
        self.start(ResponseHead(status, phrase, headers))
        self.write(body)
        self.finish()

    def start(self, head: ResponseHead) -> None:
        """
        The response begins.
        """
        if not self.over:
            self._receiver.head_received(head)

    def write(self, data: bytes) -> None:
        """
        More of it.
        """
        if data and not self.over:
            self._receiver.data_received(data)

    def finish(self, trailers: Headers | None = None) -> None:
        """
        The end of it.
        """
        if not self.over:
            self.over = True
            self._receiver.response_finished([])

    def abort(self) -> None:
        """
        It breaks off.
        """
        if not self.over:
            self.over = True
            self._receiver.response_failed(UpstreamError("yurthub: the answer broke off"))

    def produce_from(self, source: FlowControlled | None) -> None:
        """
        What is inside is always read.
        """

    def when_lost(self, callback: Callable[[], None], half_closed: float | None = None) -> None:
        """
        Call back when the sender gives up.
        """
        self._lost = callback

    def accept_upgrade(self, head: ResponseHead) -> ByteStream:
        """
        Nobody asks for that.
        """
        raise AssertionError("a request from inside asks for no upgrade")

    def cancel(self) -> None:
        """
        The sender gives up: the application's client hung up.
        """
        if not self.over:
            self.over = True
            lost, self._lost = self._lost, None
            if lost is not None:
                lost()


class LoopExchange:
    """
    The sender's hold on a request.
    """

    def __init__(self, request: LoopRequest) -> None:
        self._request = request

    def pause(self) -> None:
        """
        Whoever is inside takes all that comes.
        """

    def resume(self) -> None:
        """
        See pause.
        """

    def write(self, data: bytes) -> None:
        """
        There is no body.
        """
        raise AssertionError("a request from inside has no body")

    def finish(self, trailers: Headers) -> None:
        """
        There is no body.
        """

    def produce_from(self, source: FlowControlled | None) -> None:
        """
        There is no body.
        """

    def cancel(self) -> None:
        """
        Give the request up.
        """
        self._request.cancel()
