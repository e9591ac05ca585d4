"""
Tests of :mod:`yurt.tunnel.records`: TLS in memory.
"""

from __future__ import annotations

import os
import random
from typing import Any, cast

from service_identity import CertificateError
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump, connect
from twisted.trial.unittest import SynchronousTestCase

from tests.mux.links import Source
from tests.tunnel.links import NAME, client_tls, server_tls
from yurt.http.dial import Build
from yurt.http.records import MAX_RECORD
from yurt.tls import ServerTLS
from yurt.tunnel.records import SHORT, link_factory


class Pieces(Protocol):
    """
    Notes the pieces that come.
    """

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.lost: Failure | None = None

    @property
    def data(self) -> bytes:
        """
        All of it.
        """
        return b"".join(self.pieces)

    @property
    def wire(self) -> Any:
        """
        The transport.
        """
        return self.transport

    def dataReceived(self, data: bytes) -> None:
        self.pieces.append(bytes(data))  # a view

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


class RecordTests(SynchronousTestCase):
    """
    Tests of LinkTransport.
    """

    def join(self, tls: ServerTLS | None = None, *, flush: bool = True) -> None:
        """
        A client and a server, by default after their hand-shake.
        """
        self.client, self.server = Pieces(), Pieces()
        near = self.transport(client_tls().creator(NAME), True, self.client)
        far = self.transport(tls or server_tls(), False, self.server)
        self.pump: IOPump = connect(far, FakeTransport(far, True), near, FakeTransport(near, False), clock=Clock())
        if flush:
            self.pump.flush()

    def transport(self, creator: Any, is_client: bool, inside: Protocol) -> Any:
        """
        One side.
        """
        factory = link_factory(creator, is_client, cast(IProtocolFactory, Build(lambda _: inside)))
        return factory.buildProtocol(cast(Any, None))

    def test_pieces(self) -> None:
        """
        What is written at once arrives unchanged, both ways, and in one piece although it makes many records.
        """
        self.join()
        for size in (1, MAX_RECORD, MAX_RECORD + 1, 300_000):
            data = os.urandom(size)
            for one, other in ((self.client, self.server), (self.server, self.client)):
                other.pieces.clear()
                one.wire.write(data)
                self.pump.flush()
                self.assertEqual(other.data, data)
                self.assertLessEqual(len(other.pieces), 1 + size // 2**16)

    def test_short_and_long(self) -> None:
        """
        Short pieces and long ones follow one another in any order, and are read in whatever pieces they come.
        """
        dice = random.Random(7)
        self.join()
        sent = [dice.randbytes(dice.choice((1, 30, SHORT - 60, SHORT, 3 * SHORT, 100_000))) for _ in range(200)]
        for data in sent:
            self.client.wire.write(data)
            if dice.random() < 0.7:
                self.pump.flush()
        self.pump.flush()
        self.assertEqual(self.server.data, b"".join(sent))

    def test_sequence(self) -> None:
        """
        Pieces that are written together arrive as if they had been one, also before the hand-shake is over.
        """
        for flush in (True, False):
            self.join(flush=flush)
            pieces = [os.urandom(size) for size in (12, 100_000, 12, 1, MAX_RECORD, 0, 12, MAX_RECORD - 1)]
            self.client.wire.writeSequence(pieces)
            self.client.wire.writeSequence([])
            self.client.wire.loseConnection()
            self.client.wire.writeSequence([b"too late"])
            self.pump.flush()
            self.assertEqual(self.server.data, b"".join(pieces))

    def test_before_the_handshake(self) -> None:
        """
        What is written before the hand-shake is over arrives behind it.
        """
        self.join(flush=False)
        data = os.urandom(100_000)
        self.client.wire.write(data)
        self.server.wire.write(b"hello")
        self.client.wire.write(b"")
        self.pump.flush()
        self.assertEqual((self.server.data, self.client.data), (data, b"hello"))

    def test_shrunk(self) -> None:
        """
        Bytes go on as before when what the hand-shake needed was given back, be it in the middle of a delivery.  While bytes wait
        there nothing is given back, for they would be lost.
        """
        self.join()

        def shrink(data: bytes) -> None:
            Pieces.dataReceived(self.server, data)
            self.server.wire.shrink()

        self.server.dataReceived = shrink  # type: ignore[method-assign]
        sealed = self.server.wire.getHandle()._from_ssl
        data = os.urandom(700_000)
        self.client.wire.write(data)
        self.pump.flush()
        self.assertNotEqual(self.server.wire.getHandle()._from_ssl, sealed)
        self.server.wire.write(data)
        self.client.wire.shrink()
        self.pump.flush()
        self.assertTrue(self.server.data == self.client.data == data)
        waiting = self.client.wire.getHandle()
        waiting.send(b"waits")
        self.client.wire.shrink()
        self.client.wire.write(b" no more")
        self.pump.flush()
        self.assertEqual(self.server.data, data + b"waits no more")

    def test_close(self) -> None:
        """
        What was written before the close arrives, then both ends close in order.
        """
        self.join()
        data = os.urandom(500_000)
        self.client.wire.write(data)
        self.client.wire.loseConnection()
        self.client.wire.write(b"too late")
        self.pump.flush()
        self.assertEqual(self.server.data, data)
        for end in (self.client, self.server):
            assert end.lost is not None
            self.assertIsInstance(end.lost.value, ConnectionDone)
        self.server.wire.write(b"too late")

    def test_abort(self) -> None:
        """
        Nothing is delivered after an abort, be it one out of the delivery itself.
        """
        self.join()

        def abort(data: bytes) -> None:
            Pieces.dataReceived(self.server, data)
            self.server.wire.abortConnection()

        self.server.dataReceived = abort  # type: ignore[method-assign]
        self.client.wire.write(b"one")
        self.pump.flush()
        self.client.wire.write(b"two")
        self.pump.flush()
        self.assertEqual(self.server.data, b"one")
        self.assertIsNotNone(self.server.lost)

    def test_broken(self) -> None:
        """
        Bytes that are no TLS end the connection with what is wrong; what came before them is delivered.
        """
        self.join()
        self.client.wire.write(b"good")
        transport = self.client.wire.transport
        transport.write(b"\x17\x03\x03\x00\x20" + bytes(32))
        self.pump.flush()
        self.assertEqual(self.server.data, b"good")
        assert self.server.lost is not None
        self.assertIn("bad record mac", str(self.server.lost.value))

    def test_refused(self) -> None:
        """
        A hand-shake that fails tells both why.
        """
        self.join(ServerTLS(client_tls()._credentials, require_client_certificate=True))
        assert self.client.lost is not None
        self.assertIsInstance(self.client.lost.value, CertificateError)
        self.assertIsNotNone(self.server.lost)

    def test_producer(self) -> None:
        """
        A full transport pauses who writes.
        """
        self.join()
        source = Source()
        self.client.wire.registerProducer(source, True)
        self.client.wire.transport.producer.pauseProducing()
        self.client.wire.transport.producer.resumeProducing()
        self.assertEqual(source.asked, ["pause", "resume"])
        self.client.wire.unregisterProducer()
