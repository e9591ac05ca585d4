"""
The body of a request on its way to a server.
"""

from __future__ import annotations

from yurt.http.interfaces import BodyReceiver, Exchange, FlowControlled, Headers, IncomingRequest

MAX_REPLAYED_BODY = 64 * 1024
"""Bytes of a request body kept to try another server when the first took none of it."""


class Upload:
    """
    A request's body: what has come of it is held, up to ``limit`` bytes, so that another server can be sent the same.

    The rest waits where it is until there is a server that takes it.
    """

    def __init__(self, request: IncomingRequest, receiver: BodyReceiver) -> None:
        self._request = request
        self._receiver = receiver
        self._reading = False
        self._size = 0
        self._trailers: Headers = []
        self.flow: FlowControlled | None = None
        """What holds the client back, once it is read from."""
        self.limit = MAX_REPLAYED_BODY
        self.pieces: list[bytes] | None = []
        """All that has come; None once that is too much to be held."""
        self.complete = False
        """Whether the client has sent all."""

    @property
    def held(self) -> bytes:
        """
        What is held of it.
        """
        return b"".join(self.pieces or ())

    def read(self) -> None:
        """
        Let the client's body come, if it does not yet.
        """
        if not self._reading:
            self._reading = True
            self.flow = self._request.read_body(self._receiver)

    def received(self, data: bytes, exchange: Exchange | None) -> None:
        """
        A piece has come; it goes on to ``exchange``, or waits for one.
        """
        if self.pieces is not None:
            self._size += len(data)
            if self._size > self.limit and exchange is not None:
                self.pieces = None
            else:
                self.pieces.append(data)
        if exchange is not None:
            exchange.write(data)

    def finished(self, trailers: Headers, exchange: Exchange | None) -> None:
        """
        That was all.
        """
        self.complete = True
        self._trailers = trailers
        if exchange is not None:
            exchange.finish(trailers)

    def repeat(self, exchange: Exchange) -> None:
        """
        Send what came before there was this exchange.
        """
        for data in self.pieces or ():
            exchange.write(data)
        if self.complete:
            exchange.finish(self._trailers)

    def draw(self, exchange: Exchange) -> None:
        """
        Let the rest come at the pace of the server.  An attempt that failed has left it held back.
        """
        if self.flow is not None and not self.complete:
            self.flow.resume()
            exchange.produce_from(self.flow)
