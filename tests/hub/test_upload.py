"""
Tests of :mod:`yurt.hub.upload`.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import MAPS, HandExchange, HandUpstream
from tests.hub.test_uploads import Upload as SlowRequest
from yurt.http.interfaces import Headers, RequestHead
from yurt.hub.upload import MAX_REPLAYED_BODY, Upload

PIECE = b"x" * 10_000


class Receiver:
    """
    What the client's body is told to, and passes on.
    """

    def __init__(self) -> None:
        self.exchange: HandExchange | None = None
        self.request = SlowRequest([])
        self.upload = Upload(self.request, self)

    def body_received(self, data: bytes) -> None:
        self.upload.received(data, self.exchange)

    def body_finished(self, trailers: Headers) -> None:
        self.upload.finished(trailers, self.exchange)


class UploadTests(SynchronousTestCase):
    """
    Tests of one body.
    """

    def setUp(self) -> None:
        self.receiver = Receiver()
        self.request, self.upload = self.receiver.request, self.receiver.upload

    def attempt(self) -> HandExchange:
        """
        A server is asked: one more, or the first.
        """
        receiver: Any = None  # nothing comes back here
        exchange = HandExchange(HandUpstream(Clock()), RequestHead(b"POST", MAPS.encode()), receiver, False)
        self.receiver.exchange = exchange
        self.upload.repeat(exchange)
        self.upload.read()
        self.upload.draw(exchange)
        return exchange

    def test_passed_on(self) -> None:
        """
        What comes goes on at once, at the pace of the server.
        """
        exchange = self.attempt()
        self.request.send(b"one")
        self.assertEqual((exchange.body, exchange.source, exchange.complete), (b"one", self.request, False))
        self.request.end()
        self.assertTrue(exchange.complete)

    def test_repeated(self) -> None:
        """
        Another server gets all from the start, and then what is still to come.
        """
        self.attempt()
        self.request.send(b"one ")
        second = self.attempt()
        self.request.send(b"two")
        self.request.end()
        third = self.attempt()
        for exchange in (second, third):
            self.assertEqual((exchange.body, exchange.complete), (b"one two", True))
        self.assertEqual((self.upload.held, third.source), (b"one two", None))

    def test_bounded(self) -> None:
        """
        No more than the limit is held once there is a server that takes it; without one, what comes is not lost.
        """
        self.upload.read()
        for _ in range(MAX_REPLAYED_BODY // len(PIECE) + 1):
            self.request.send(PIECE)
        self.assertGreater(len(self.upload.held), MAX_REPLAYED_BODY)
        exchange = self.attempt()
        held = self.upload.held
        self.request.send(PIECE)
        self.assertEqual((exchange.body, self.upload.pieces), (held + PIECE, None))

    def test_held_back(self) -> None:
        """
        A failed attempt leaves the client held back; the next one lets it go on.
        """
        self.attempt()
        self.request.pause()
        second = self.attempt()
        self.assertEqual((self.request.held, second.source), (False, self.request))
