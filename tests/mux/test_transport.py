"""
Tests of :mod:`yurt.mux.transport`.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any, cast

from twisted.internet.interfaces import IConsumer, IPushProducer, ITransport
from twisted.protocols.basic import FileSender
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.mux.links import HalfCloseable, Link, Memory, Source, Stalled
from yurt.mux.connection import MuxAddress, MuxLimits
from yurt.mux.frames import DATA, head
from yurt.mux.limits import STREAM_BUFFER
from yurt.mux.transport import SMALL

WINDOW = 1024 * 1024


class DeliveryTests(SynchronousTestCase):
    """
    Tests of bytes that arrive.
    """

    def test_interfaces(self) -> None:
        """
        A stream is what Twisted calls a transport, a consumer and a producer.
        """
        stream, _ = Link().open(Memory())
        for interface in (ITransport, IConsumer, IPushProducer):
            self.assertTrue(verifyObject(interface, stream))
        self.assertEqual(stream.getPeer(), MuxAddress(stream.mux.peer, 2))

    def test_both_ways(self) -> None:
        """
        What one protocol writes the other one gets, from bytes of any kind.
        """
        link, here, there = Link(), Memory(), Memory()
        stream, peer = link.open(here, there)
        stream.write(b"question")
        stream.write(memoryview(b"?"))
        peer.writeSequence([b"an", b"swer"])
        link.flush()
        self.assertEqual((there.data, here.data), (b"question?", b"answer"))
        self.assertEqual((stream.bytes_sent, peer.bytes_received, link.server.mux.bytes_sent), (9, 9, 9))
        self.assertEqual((link.server.mux.bytes_received, link.client.mux.bytes_received), (6, 9))

    def test_written_now(self) -> None:
        """
        What is written now leaves before what came has been passed on to its end; what is just written leaves afterwards.
        """
        for how, left in (("write", 0), ("write_now", 1)):
            link, waiting = Link(), list[int]()
            wire = cast(Any, link.client.mux.transport)

            class Answering(Memory):
                def dataReceived(self, data: bytes) -> None:
                    getattr(self.stream, how)(b"answer")  # noqa: B023
                    waiting.append(len(wire.stream))  # noqa: B023

            here = Memory()
            stream, _ = link.open(here, Answering())
            stream.write(b"question")
            link.flush()
            self.assertEqual((waiting, here.data), ([left], b"answer"), how)

    def test_views(self) -> None:
        """
        What the link's transport gives as a view, which it uses again, comes as bytes, unless the protocol takes views; what is
        held is copied in any case.
        """

        class Keeping(Memory):
            def __init__(self) -> None:
                super().__init__()
                self.came: list[bytes] = []

            def dataReceived(self, data: bytes) -> None:
                self.came.append(data)

        def receive(gives_views: bool, paused: bool) -> bytes:
            link, there = Link(), Keeping()
            stream, peer = link.open(Memory(), there)
            link.flush()
            peer.gives_views = gives_views
            if paused:
                peer.pauseProducing()
            shared = bytearray(head(DATA, 0, stream.number, SMALL) + b"x" * SMALL)
            peer.mux.dataReceived(cast(bytes, memoryview(shared)))
            shared[:] = bytes(len(shared))
            peer.resumeProducing()
            return b"".join(there.came)

        for gives_views, paused, is_view in ((False, False, False), (True, False, True), (True, True, False)):
            self.assertEqual(receive(gives_views, paused), bytes(SMALL) if is_view else b"x" * SMALL)

    def test_attach_later(self) -> None:
        """
        What came before somebody attached is delivered then; credit is returned only for that.
        """
        link = Link()
        stream, peer = link.open(Memory())
        stream.write(bytes(2 * WINDOW))
        link.flush()
        self.assertEqual((peer.bytes_received, stream.queued), (WINDOW, WINDOW))
        there = Memory()
        peer.attach(there)
        link.flush()
        self.assertEqual(len(there.data), 2 * WINDOW)

    def test_pause(self) -> None:
        """
        A paused stream delivers nothing, and from where it stopped when it is resumed.
        """
        link, there = Link(), Stalled()
        stream, peer = link.open(Memory(), there)
        stream.write(b"one")
        link.flush()
        stream.write(b"two")
        link.flush()
        self.assertEqual(there.data, b"")
        peer.resumeProducing()
        self.assertEqual(there.data, b"onetwo")

    def test_pause_while_delivering(self) -> None:
        """
        A protocol that pauses in the midst of what was held gets no more, and the rest later, in order.
        """

        class OneByOne(Stalled):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                self.stream.pauseProducing()

        link, there = Link(), OneByOne()
        stream, peer = link.open(Memory(), there)
        for digit in b"123":
            stream.write(bytes([digit]) * 5000)
            link.flush()
        for count in (1, 2, 3):
            peer.resumeProducing()
            self.assertEqual(len(there.data), 5000 * count)
        self.assertEqual(there.data, b"1" * 5000 + b"2" * 5000 + b"3" * 5000)

    def test_small_pieces_are_put_together(self) -> None:
        """
        Single bytes that nobody reads do not take forty times their size.
        """
        link, there = Link(), Stalled()
        stream, peer = link.open(Memory(), there)
        for _ in range(9000):
            stream.write(b"x")
        link.flush()
        peer.resumeProducing()
        self.assertEqual(len(there.data), 9000)
        self.assertLess(there.pieces, 4)

    def test_stalled_stream_beside_another(self) -> None:
        """
        A protocol that does not read stalls nobody else.
        """
        link, there = Link(), Memory()
        stalled, _ = link.open(Memory(), Stalled())
        stream, _ = link.open(Memory(), there)
        stalled.write(bytes(3 * WINDOW))
        stream.write(bytes(3 * WINDOW))
        link.flush()
        self.assertEqual((len(there.data), stalled.queued), (3 * WINDOW, 2 * WINDOW))


class CloseTests(SynchronousTestCase):
    """
    Tests of the ends of a stream.
    """

    def gone(self, link: Link) -> None:
        """
        Neither side keeps a stream.
        """
        self.assertEqual((link.server.mux.streams, link.client.mux.streams), (0, 0))

    def test_half_close(self) -> None:
        """
        Each direction ends for itself; after both the connection is lost, cleanly.
        """
        link, here, there = Link(), HalfCloseable(), HalfCloseable()
        stream, peer = link.open(here, there)
        stream.write(b"all")
        stream.loseWriteConnection()
        link.flush()
        self.assertEqual((here.ends, there.ends, there.data), (["write"], ["read"], b"all"))
        peer.write(b"late")
        peer.loseWriteConnection()
        link.flush()
        self.assertEqual((here.data, here.ends), (b"late", ["write", "read", "ConnectionDone"]))
        self.assertEqual(there.ends, ["read", "write", "ConnectionDone"])
        self.gone(link)

    def test_end_behind_what_is_held(self) -> None:
        """
        The end comes when all was read, also on a stream whose other direction ended before.
        """
        link, here, there = Link(), HalfCloseable(), Stalled()
        stream, peer = link.open(here, there)
        peer.loseWriteConnection()
        stream.write(b"all")
        stream.loseWriteConnection()
        link.flush()
        self.assertEqual((there.ends, link.client.mux.streams), (["write"], 1))
        peer.resumeProducing()
        link.flush()
        self.assertEqual((there.data, there.ends), (b"all", ["write", "read", "ConnectionDone"]))
        self.gone(link)

    def test_peer_ends_plain_protocol(self) -> None:
        """
        A protocol that knows no half-close is closed when the peer has ended and all was written; its producer is stopped.
        """
        link, here, source = Link(), Memory(), Source()
        stream, peer = link.open(here, HalfCloseable())
        stream.registerProducer(source, True)
        peer.loseWriteConnection()
        link.flush()
        self.assertEqual((here.ends, source.asked), (["ConnectionDone"], ["stop"]))
        self.gone(link)

    def test_lose_connection(self) -> None:
        """
        All that was written arrives, however long it takes; then both sides are through.
        """
        link, here, there = Link(), Memory(), Stalled()
        stream, peer = link.open(here, there)
        stream.write(bytes(2 * WINDOW))
        stream.loseConnection()
        link.flush()
        self.assertEqual((here.ends, stream.disconnecting), ([], True))
        peer.resumeProducing()
        link.flush()
        self.assertEqual((len(there.data), there.ends, here.ends), (2 * WINDOW, ["read"], ["ConnectionDone"]))
        peer.loseConnection()
        link.flush()
        self.assertEqual(there.ends, ["read", "ConnectionDone"])
        self.gone(link)

    def test_lose_connection_waits_for_producer(self) -> None:
        """
        A producer that is registered may write before the end.
        """
        link, there = Link(), Memory()
        stream, _ = link.open(Memory(), there)
        stream.registerProducer(Source(), True)
        stream.loseConnection()
        stream.write(b"more")
        stream.unregisterProducer()
        link.flush()
        self.assertEqual((there.data, there.ends), (b"more", ["ConnectionDone"]))
        self.gone(link)

    def test_lose_connection_under_a_producer(self) -> None:
        """
        A streaming producer that stays registered holds up the end for as long as it is paused, and no longer, as with TCP: TLS
        that fails closes its transport so.
        """
        link, source, there = Link(), Source(), Memory()
        stream, _ = link.open(Memory(), there)
        stream.registerProducer(source, True)
        stream.loseConnection()
        link.flush()
        self.assertEqual(there.ends, ["ConnectionDone"])
        self.gone(link)
        link, source, stalled = Link(), Source(), Stalled()
        stream, peer = link.open(Memory(), stalled)
        stream.registerProducer(source, True)
        stream.write(bytes(2 * WINDOW))
        stream.loseConnection()
        link.flush()
        self.assertEqual((source.asked, stalled.ends), (["pause"], []))
        peer.resumeProducing()
        link.flush()
        self.assertEqual((len(stalled.data), stalled.ends), (2 * WINDOW, ["read"]))

    def test_closed_stream_gets_data(self) -> None:
        """
        A peer that still writes to a closed stream is told by a reset; all that we wrote arrived before.
        """
        link, here, there = Link(), Memory(), HalfCloseable()
        stream, peer = link.open(here, there)
        stream.write(b"answer")
        stream.loseConnection()
        link.flush()
        peer.write(b"more")
        link.flush()
        self.assertEqual((there.data, there.ends, here.ends), (b"answer", ["read", "ConnectionLost"], ["ConnectionDone"]))
        self.gone(link)

    def test_closed_with_unread_data(self) -> None:
        """
        Closing a stream whose data was not read resets it behind what was written; a slow reader still gets that.
        """
        link, here, there = Link(), Stalled(), Stalled()
        stream, peer = link.open(here, there)
        peer.write(b"nobody reads this")
        link.flush()
        stream.write(b"answer")
        stream.loseConnection()
        link.flush()
        self.assertEqual((there.ends, link.client.mux.streams), ([], 1))
        peer.resumeProducing()
        link.flush()
        self.assertEqual((there.data, there.ends[-1]), (b"answer", "ConnectionLost"))
        self.gone(link)

    def test_linger(self) -> None:
        """
        A peer that never closes its side is reset after a minute.
        """
        link, there = Link(), HalfCloseable()
        stream, _ = link.open(Memory(), there)
        stream.loseConnection()
        for _ in range(70):
            link.clock.advance(1)
            link.flush()
        self.assertEqual(there.ends, ["read", "ConnectionLost"])
        self.gone(link)

    def test_abort(self) -> None:
        """
        A reset ends both directions at once; here it is an abort, there a loss.
        """
        link, here, there = Link(), HalfCloseable(), HalfCloseable()
        stream, _ = link.open(here, there)
        stream.write(bytes(2 * WINDOW))
        stream.abortConnection()
        stream.abortConnection()
        self.assertEqual(here.ends, [])
        link.flush()
        self.assertEqual((here.ends, there.ends), (["ConnectionAborted"], ["ConnectionLost"]))
        self.gone(link)

    def test_reset_before_attach(self) -> None:
        """
        Whoever attaches to a stream that was reset is told so.
        """
        link, there = Link(), Memory()
        stream, peer = link.open(Memory())
        stream.abortConnection()
        link.flush()
        self.gone(link)
        peer.attach(there)
        link.flush()
        self.assertEqual(there.ends, ["ConnectionLost"])

    def test_closed_before_attach(self) -> None:
        """
        Whoever attaches to a stream that the peer closed gets all of it first.
        """
        link, there = Link(), Memory()
        stream, peer = link.open(Memory())
        stream.write(b"all")
        stream.loseConnection()
        link.flush()
        peer.attach(there)
        link.flush()
        self.assertEqual((there.data, there.ends), (b"all", ["ConnectionDone"]))
        self.gone(link)

    def test_close_without_protocol(self) -> None:
        """
        A stream to which nobody attached can be closed and reset.
        """
        for close in ("loseConnection", "abortConnection"):
            link, here = Link(), Memory()
            _, peer = link.open(here)
            getattr(peer, close)()
            link.flush()
            self.assertEqual(len(here.ends), 1)
            self.gone(link)

    def test_stopped_by_its_reader(self) -> None:
        """
        When the one who read has gone, the stream closes; if it is reset in the same turn, no end is seen before.
        """
        for abort, ends in ((False, ["read"]), (True, ["ConnectionLost"])):
            link, there = Link(), HalfCloseable()
            stream, _ = link.open(Memory(), there)
            stream.stopProducing()
            if abort:
                stream.abortConnection()
            link.flush()
            self.assertEqual(there.ends, ends)


class ProducerTests(SynchronousTestCase):
    """
    Tests of those who write to a stream.
    """

    def test_paused_while_much_waits(self) -> None:
        """
        A producer is paused when more than the bound waits for the window, once, and resumed when that has left.
        """
        link, source, there = Link(), Source(), Stalled()
        stream, peer = link.open(Memory(), there)
        stream.write(bytes(WINDOW))
        link.flush()
        stream.registerProducer(source, True)
        stream.write(bytes(STREAM_BUFFER))
        self.assertEqual(source.asked, [])
        stream.write(b"x")
        stream.write(b"x")
        self.assertEqual(source.asked, ["pause"])
        link.flush()
        peer.resumeProducing()
        link.flush()
        self.assertEqual(source.asked, ["pause", "resume"])

    def test_registered_late(self) -> None:
        """
        A producer that comes when much waits already is paused at once; a second one is an error.
        """
        link, source = Link(), Source()
        stream, _ = link.open(Memory(), Stalled())
        stream.write(bytes(2 * WINDOW))
        stream.registerProducer(source, True)
        self.assertEqual(source.asked, ["pause"])
        self.assertRaises(RuntimeError, stream.registerProducer, source, True)

    def test_stopped(self) -> None:
        """
        A producer is stopped when the stream is reset, and at once when it is over already.
        """
        link, source = Link(), Source()
        stream, peer = link.open(Memory(), Memory())
        stream.registerProducer(source, True)
        peer.abortConnection()
        link.flush()
        stream.registerProducer(source, True)
        self.assertEqual(source.asked, ["stop", "stop"])

    def test_pull_producer(self) -> None:
        """
        A producer that waits to be asked is asked until it has written all.
        """
        for size in (FileSender.CHUNK_SIZE, 100):
            link, there = Link(), Memory()
            stream, _ = link.open(Memory(), there)
            data = bytes(range(256)) * 2_000
            sender = FileSender()
            sender.CHUNK_SIZE = size
            sent = sender.beginFileTransfer(BytesIO(data), stream)
            link.flush()
            self.successResultOf(sent)
            self.assertEqual(there.data, data)


class BrokenTests(SynchronousTestCase):
    """
    Tests of protocols that raise.
    """

    def check(self, protocol: Memory, cause: str) -> None:
        """
        The stream of ``protocol`` is reset, the error logged, and another stream goes on.
        """
        link, here, other = Link(), HalfCloseable(), Memory()
        stream, _ = link.open(here, protocol)
        second, _ = link.open(Memory(), other)
        getattr(stream, cause)(*([b"x"] if cause == "write" else []))
        second.write(b"unharmed")
        link.flush()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((here.ends[-1], other.data, link.client.lost), ("ConnectionLost", b"unharmed", []))

    def test_data_received(self) -> None:
        """
        An error while data is taken ends that stream only.
        """

        class Broken(Memory):
            def dataReceived(self, data: bytes) -> None:
                raise ZeroDivisionError

        self.check(Broken(), "write")

    def test_read_connection_lost(self) -> None:
        """
        So does one while the end is taken.
        """

        class Broken(HalfCloseable):
            def readConnectionLost(self) -> None:
                raise ZeroDivisionError

        self.check(Broken(), "loseWriteConnection")

    def test_connection_lost(self) -> None:
        """
        An error at the very end is logged.
        """

        class Broken(Memory):
            def connectionLost(self, reason: object = None) -> None:
                raise ZeroDivisionError

        link = Link()
        stream, _ = link.open(Memory(), Broken())
        stream.abortConnection()
        link.flush()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_producer(self) -> None:
        """
        A producer that fails ends its stream.
        """

        class Broken(Source):
            def resumeProducing(self) -> None:
                raise ZeroDivisionError

        link, here = Link(), Memory()
        stream, peer = link.open(here, Stalled())
        stream.registerProducer(Broken(), True)
        stream.write(bytes(WINDOW + STREAM_BUFFER + 1))
        link.flush()
        peer.resumeProducing()
        link.flush()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(here.ends, ["ConnectionAborted"])


class ResidueTests(SynchronousTestCase):
    """
    Tests of what streams leave behind.
    """

    def test_ten_thousand_aborted_streams(self) -> None:
        """
        Ten thousand streams that were opened and aborted leave no stream, no timer and no reference.
        """
        link = Link(MuxLimits(max_streams=10))
        timers = len(link.clock.getDelayedCalls())
        for count in range(10_000):
            stream = link.server.mux.open()
            stream.attach(Memory())
            stream.write(b"CONNECT")
            if count % 2:
                link.pump.pump()
                link.client.accepted.pop().attach(Memory())
            stream.abortConnection()
            link.pump.pump()
            link.pump.pump()
            link.client.accepted.clear()
            link.clock.advance(0)
        link.flush()
        for end in (link.server, link.client):
            mux = end.mux
            self.assertEqual((mux.streams, len(mux._lingering), len(mux.unread), end.lost), (0, 0, 0, []))
            self.assertEqual(len(mux._session._ready), 0)
        self.assertEqual(len(link.clock.getDelayedCalls()), timers)
