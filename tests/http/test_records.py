"""
TLS records on their way to a protocol, in memory.
"""

from __future__ import annotations

import random
from typing import Any, cast

from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, connect
from twisted.trial.unittest import SynchronousTestCase

from tests import certs
from yurt.http.address import Address
from yurt.http.dial import Build, dial
from yurt.http.records import RecordCounter
from yurt.tls import ClientTLS, Credentials, ServerTLS


class Pieces(Protocol):
    """
    Notes what comes, piece by piece.
    """

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.half_closes = False
        self.ended = 0
        self.lost = False

    def readConnectionLost(self) -> None:
        """
        Nothing more comes.
        """
        self.ended += 1

    def dataReceived(self, data: bytes) -> None:
        self.pieces.append(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.lost = True


class RecordsTests(SynchronousTestCase):
    """
    What TLS makes of what is read.
    """

    def setUp(self) -> None:
        ca = certs.make_ca()
        identity = certs.issue(ca, "server", dns=["localhost"], ips=["127.0.0.1"])
        clock = MemoryReactorClock()
        self.client, self.server = Pieces(), Pieces()
        creator = ClientTLS(Credentials(ca_data=ca.cert_pem)).creator("127.0.0.1")
        dial(clock, Address("https", "127.0.0.1", 443), Build(lambda _: self.client), creator, None, 10.0)
        tls = ServerTLS(Credentials(cert_data=identity.cert_pem, key_data=identity.key_pem))
        behind: Any = TLSMemoryBIOFactory(tls, False, Build(lambda _: self.server), clock=clock)
        address: Any = None
        dialled, answering = clock.tcpClients[0][2].buildProtocol(address), behind.buildProtocol(address)
        ends = [(end, FakeTransport(end, isServer=end is answering)) for end in (answering, dialled)]
        self.pump = connect(*ends[0], *ends[1], clock=clock)
        self.pump.flush()
        self.dialled: Any = dialled
        self.answering: Any = answering

    def test_one_piece(self) -> None:
        """
        The many records of one read arrive as one piece.
        """
        data = bytes(range(256)) * 1000
        cast(Any, self.server.transport).write(data)
        self.pump.flush()
        self.assertEqual([len(piece) for piece in self.client.pieces], [len(data)])
        self.assertEqual(self.client.pieces, [data])

    def encrypt(self, *texts: bytes) -> bytes:
        """
        What the server makes of them, as it is on the wire.
        """
        connection = self.answering.getHandle()
        for text in texts:
            connection.send(text)
        return cast(bytes, connection.bio_read(1 << 22))

    def test_split(self) -> None:
        """
        However the records are cut on their way, each arrives as soon as it is whole.
        """
        draw = random.Random(1)
        texts = [bytes([number]) * draw.choice((1, 200, 20_000)) for number in range(60)]
        wire = self.encrypt(*texts)
        place = 0
        while place < len(wire):
            size = draw.choice((1, 1, 3, 5, 700, 40_000))
            self.dialled.dataReceived(wire[place : place + size])
            place += size
        self.assertEqual(b"".join(self.client.pieces), b"".join(texts))
        self.client.pieces.clear()
        wire = self.encrypt(b"one", b"another")
        self.dialled.dataReceived(wire[:-1])
        self.assertEqual(self.client.pieces, [b"one"])
        self.dialled.dataReceived(wire[-1:])
        self.assertEqual(self.client.pieces, [b"one", b"another"])

    def test_farewell(self) -> None:
        """
        The end of TLS ends the connection, and what came in the same read arrives before.
        """
        cast(Any, self.server.transport).write(b"last")
        cast(Any, self.server.transport).loseConnection()
        self.pump.flush()
        self.assertEqual((self.client.pieces, self.client.lost), ([b"last"], True))

    def test_half_close(self) -> None:
        """
        Who can do with it is told that the peer's direction has ended, after what came before, and goes on writing until it ends
        the connection.
        """
        self.client.half_closes = True
        self.dialled.dataReceived(self.encrypt(b"last") + self.farewell())
        self.assertEqual((self.client.pieces, self.client.ended, self.client.lost), ([b"last"], 1, False))
        cast(Any, self.client.transport).write(b"answer")
        cast(Any, self.client.transport).loseConnection()
        self.pump.flush()
        self.assertEqual((self.server.pieces, self.client.ended, self.client.lost), ([b"answer"], 1, True))

    def test_half_close_last(self) -> None:
        """
        The end of the second direction is that of the connection.
        """
        self.client.half_closes = True
        cast(Any, self.client.transport).loseConnection()
        self.dialled.dataReceived(self.farewell())
        self.assertEqual((self.client.ended, self.dialled.transport.disconnecting), (0, True))

    def farewell(self) -> bytes:
        """
        The end of the server's direction.
        """
        connection = self.answering.getHandle()
        connection.shutdown()
        return cast(bytes, connection.bio_read(1 << 14))

    def test_garbage(self) -> None:
        """
        What is no TLS ends the connection at once, not only when as much has come as it seems to announce.
        """
        self.dialled.dataReceived(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
        self.pump.flush()
        self.assertEqual((self.client.pieces, self.client.lost), ([], True))

    def test_last_words(self) -> None:
        """
        What comes together with the end of the connection arrives before it; each read is a piece of its own.
        """
        for data in (b"first", b"second"):
            cast(Any, self.server.transport).write(data)
            self.pump.flush()
        cast(Any, self.server.transport).write(b"last")
        cast(Any, self.server.transport).loseConnection()
        self.pump.flush()
        self.assertEqual(self.client.pieces, [b"first", b"second", b"last"])
        self.assertTrue(self.client.lost)


class RecordCounterTests(SynchronousTestCase):
    """
    Where records end.
    """

    def test_splits(self) -> None:
        """
        Byte by byte or in larger pieces: each end is counted once, with the piece that brings it.
        """
        records = [b"\x17\x03\x03" + size.to_bytes(2, "big") + bytes(size) for size in (1, 0, 300, 16, 16_640)]
        wire = b"".join(records)
        for step in (1, 2, 4, 7, 100, len(wire)):
            counter = RecordCounter()
            counts = [counter.count(wire[place : place + step]) for place in range(0, len(wire), step)]
            ends = [0] * len(counts)
            place = 0
            for record in records:
                place += len(record)
                ends[(place - 1) // step] += 1
            self.assertEqual(counts, ends, step)

    def test_too_long(self) -> None:
        """
        What announces more than a record may hold counts at once.
        """
        self.assertEqual(RecordCounter().count(b"HTTP/1.1 400 Bad Request\r\n"), 1)
