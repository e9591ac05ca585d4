"""
Tests of :mod:`yurt.mux.session`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush
from struct import pack

from twisted.trial.unittest import SynchronousTestCase

from tests.mux.sessions import SMALL_LIMITS, Recorder, Side, join, pair
from yurt.mux.frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEAD,
    HEAD_BYTES,
    INITIAL_WINDOW,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    IllegalFrame,
    MuxClosed,
    PeerWentAway,
    head,
)
from yurt.mux.limits import AT_ONCE, BATCH, FEW_BYTES, MAX_CONTROL_FRAMES, MAX_SKIPPED, MuxLimits
from yurt.mux.line import MAX_LONE, MIN_FLIGHT

KIB = 1024


def frames(data: bytes) -> list[tuple[int, int, int, int]]:
    """
    Type, flags, stream and length of each frame.
    """
    found, position = [], 0
    while position < len(data):
        version, kind, flags, stream, length = HEAD.unpack_from(data, position)
        assert version == 0
        found.append((kind, flags, stream, length))
        position += HEAD_BYTES + (length if kind == DATA else 0)
    return found


class FormatTests(SynchronousTestCase):
    """
    Tests of what goes over the wire, byte by byte.
    """

    def test_open_write_finish(self) -> None:
        """
        A stream's life in the published format: SYN, data, FIN.
        """
        side = Side(client=True)
        stream = side.open()
        side.session.write(stream, b"hello")
        side.session.finish(stream)
        syn = bytes.fromhex("0001 0001 00000001 00000000")
        data = bytes.fromhex("0000 0000 00000001 00000005") + b"hello"
        fin = bytes.fromhex("0001 0004 00000001 00000000")
        self.assertEqual(side.take(), syn + data + fin)

    def test_accept(self) -> None:
        """
        A stream that the peer opens is acknowledged, with the window that we give.
        """
        side = Side(client=False, limits=MuxLimits())
        side.session.receive(pack(">BBHII", 0, 1, 1, 1, 0))
        self.assertEqual(frames(side.take()), [(WINDOW_UPDATE, ACK, 1, 1024 * KIB - INITIAL_WINDOW)])
        self.assertEqual([stream.number for stream in side.accepted], [1])

    def test_accepted_in_company(self) -> None:
        """
        The acknowledgement hurries not: it goes before what the stream says first, or when it is asked for.
        """
        side = Side(client=False)
        side.session.receive(pack(">BBHII", 0, 1, 1, 1, 0))
        self.assertFalse(side.session.has_output)
        side.session.write(side.accepted[0], b"hello")
        self.assertTrue(side.session.has_output)
        said = b"".join(side.session.output(BATCH))
        self.assertEqual(frames(said), [(WINDOW_UPDATE, ACK, 1, 0), (DATA, 0, 1, 5)])
        side.session.receive(pack(">BBHII", 0, 1, 1, 3, 0))
        side.session.hurry()
        self.assertEqual(frames(b"".join(side.session.output(BATCH))), [(WINDOW_UPDATE, ACK, 3, 0)])

    def test_numbers(self) -> None:
        """
        The client's streams are odd, the server's even.
        """
        client, server = pair()
        self.assertEqual([client.open().number, client.open().number], [1, 3])
        self.assertEqual([server.open().number, server.open().number], [2, 4])

    def test_open_with_data(self) -> None:
        """
        A stream may be opened by a data frame.
        """
        side = Side(client=False)
        side.session.receive(head(DATA, SYN | FIN, 1, 2) + b"hi")
        self.assertEqual((side.accepted[0].data, side.accepted[0].events), (b"hi", ["peer finished"]))

    def test_ping_is_answered(self) -> None:
        """
        A ping comes back with its value.
        """
        side = Side(client=False)
        side.session.receive(head(PING, SYN, 0, 0xDEADBEEF))
        self.assertEqual(frames(side.take()), [(PING, ACK, 0, 0xDEADBEEF)])

    def test_frames_without_data_go_first(self) -> None:
        """
        An answer does not wait behind data.
        """
        side = Side(client=False)
        side.session.receive(head(WINDOW_UPDATE, SYN, 1, 0))
        side.session.write(side.accepted[0], bytes(100))
        side.session.receive(head(PING, SYN, 0, 7))
        self.assertEqual([kind for kind, *_ in frames(side.take())], [WINDOW_UPDATE, PING, DATA])


class StreamTests(SynchronousTestCase):
    """
    Tests of streams between two sessions.
    """

    def test_both_ways(self) -> None:
        """
        Bytes arrive, in either direction.
        """
        client, server = pair()
        stream = client.open()
        client.session.write(stream, b"question")
        join(client, server)
        server.session.write(server.accepted[0], b"answer")
        join(client, server)
        self.assertEqual((server.accepted[0].data, stream.data), (b"question", b"answer"))

    def test_half_close(self) -> None:
        """
        After its own end a side still gets all that the other one writes; then nothing is left.
        """
        client, server = pair()
        stream = client.open()
        client.session.finish(stream)
        join(client, server)
        peer = server.accepted[0]
        self.assertEqual((stream.events, peer.events), (["finished"], ["peer finished"]))
        server.session.write(peer, b"late")
        server.session.finish(peer)
        join(client, server)
        self.assertEqual((stream.data, stream.events), (b"late", ["finished", "peer finished"]))
        self.assertEqual((client.session.streams, server.session.streams), ({}, {}))

    def test_end_waits_for_data(self) -> None:
        """
        The end comes behind all that was written, however long that waits for the window.
        """
        client, server = pair()
        server.reading = False
        stream = client.open()
        client.session.write(stream, bytes(INITIAL_WINDOW + 1))
        client.session.finish(stream)
        join(client, server)
        peer = server.accepted[0]
        self.assertEqual((len(peer.data), peer.events), (INITIAL_WINDOW, []))
        peer.read_all()
        join(client, server)
        self.assertEqual((len(peer.data), peer.events), (INITIAL_WINDOW + 1, ["peer finished"]))

    def test_write_after_end(self) -> None:
        """
        What is written after the end is dropped, and a second end is none.
        """
        client, server = pair()
        stream = client.open()
        client.session.finish(stream)
        client.session.write(stream, b"too late")
        client.session.finish(stream)
        join(client, server)
        self.assertEqual((server.accepted[0].data, stream.events), (b"", ["finished"]))

    def test_reset(self) -> None:
        """
        A reset ends both directions; what was not yet sent is dropped, and what comes later, too.
        """
        client, server = pair()
        stream = client.open()
        join(client, server)
        peer = server.accepted[0]
        server.session.write(peer, b"on its way")
        late = server.take()
        client.session.write(stream, b"dropped")
        client.session.reset(stream)
        client.session.reset(stream)
        self.assertEqual(frames(client.take()), [(WINDOW_UPDATE, RST, 1, 0)])
        client.session.receive(late)
        server.session.receive(head(WINDOW_UPDATE, RST, 1, 0))
        self.assertEqual((stream.events, stream.data, peer.events), ([], b"", ["reset"]))
        self.assertEqual((client.session.streams, server.session.streams), ({}, {}))

    def test_reset_with_data(self) -> None:
        """
        The data of a frame that resets its stream is dropped.
        """
        side = Side(client=False)
        side.session.receive(head(WINDOW_UPDATE, SYN, 1, 0) + head(DATA, RST, 1, 3) + b"abc" + head(PING, SYN, 0, 1))
        self.assertEqual((side.accepted[0].data, side.accepted[0].events), (b"", ["reset"]))
        self.assertEqual(frames(side.take())[-1], (PING, ACK, 0, 1))

    def test_out_of_order(self) -> None:
        """
        Streams may be opened out of order, as programs with many threads do.
        """
        side = Side(client=False)
        for number in (5, 1, 9, 3, 7):
            side.session.receive(head(WINDOW_UPDATE, SYN, number, 0))
        self.assertEqual([stream.number for stream in side.accepted], [5, 1, 9, 3, 7])

    def test_too_many(self) -> None:
        """
        More streams than allowed are reset, ours are not opened, and room comes back.
        """
        client, server = pair(MuxLimits(max_streams=2))
        first, second = client.open(), client.open()
        with self.assertRaisesRegex(MuxClosed, "all 2 streams"):
            client.open()
        join(client, server)
        server.session.receive(head(WINDOW_UPDATE, SYN, 5, 0))
        self.assertEqual(frames(server.take()), [(WINDOW_UPDATE, RST, 5, 0)])
        client.session.reset(first)
        join(client, server)
        server.session.receive(head(WINDOW_UPDATE, SYN, 7, 0))
        self.assertEqual([stream.number for stream in server.accepted], [1, 3, 7])
        self.assertTrue(second.open)


class SlowLine:
    """
    A client that writes all it may over a line with a round trip (seconds) and a rate (bytes a second).
    """

    def __init__(self, rtt: float, rate: float, streams: int = 1) -> None:
        self.rtt, self.rate = rtt, rate
        self.client, self.server = pair(MuxLimits())
        self.streams = [self.client.open() for _ in range(streams)]
        self.client.session.ping()
        self.server.session.ping()
        self.on_way: list[tuple[float, int, Side, bytes]] = []
        self.count = 0
        self.now = self.free = 0.0
        self.most_on_its_way = 0

    def send(self, at: float, to: Side, data: bytes) -> None:
        """
        Let bytes arrive at a time.
        """
        self.count += 1
        heappush(self.on_way, (at, self.count, to, data))

    def greet(self) -> None:
        """
        Let both sides measure the line before anything is written.
        """
        self.server.session.receive(self.client.take())
        answer = self.server.take()
        self.now = self.free = self.client.now = self.server.now = self.rtt
        self.client.session.receive(answer)
        self.server.session.receive(self.client.take())

    def run(self, seconds: float) -> None:
        """
        Let time pass.
        """
        until = self.now + seconds
        client, server = self.client.session, self.server.session
        while self.now < until:
            for stream in self.streams:
                if stream.queued < 1024 * KIB:
                    client.write(stream, bytes(4096 * KIB))
            while client.has_output and self.free <= self.now + 0.01:
                data = b"".join(client.output(BATCH))
                self.free = max(self.free, self.now) + len(data) / self.rate
                self.send(self.free + self.rtt / 2, self.server, data)
            while server.has_output:
                self.send(self.now + self.rtt / 2, self.client, b"".join(server.output(BATCH)))
            taken = server.bytes_received
            self.most_on_its_way = max(self.most_on_its_way, client.line.sent - taken)
            free = self.free - 0.009
            if client.has_output and free < self.on_way[0][0]:
                self.client.now = self.server.now = self.now = max(self.now, free)
                continue
            self.now, _, side, data = heappop(self.on_way)
            self.client.now = self.server.now = self.now
            side.session.receive(data)

    def carried(self, seconds: float) -> int:
        """
        How many bytes arrive in so many seconds from now.
        """
        before = self.server.session.bytes_received
        self.run(seconds)
        return self.server.session.bytes_received - before

    @property
    def window(self) -> int:
        """
        The first stream's, at the receiver.
        """
        return self.server.accepted[0].window


class WindowTests(SynchronousTestCase):
    """
    Tests of credit.
    """

    def test_stalled_reader(self) -> None:
        """
        A reader that stops costs one window, and holds nobody else up.
        """
        client, server = pair()
        server.reading = False
        stalled = client.open()
        join(client, server)
        server.reading = True
        other = client.open()
        for stream in (stalled, other):
            client.session.write(stream, bytes(3 * INITIAL_WINDOW))
        join(client, server)
        self.assertEqual([len(stream.data) for stream in server.accepted], [INITIAL_WINDOW, 3 * INITIAL_WINDOW])
        self.assertEqual(stalled.queued, 2 * INITIAL_WINDOW)

    def test_window_given_at_once(self) -> None:
        """
        With the SYN, and with the ACK, the window of 1 MiB is given.
        """
        client, server = pair(MuxLimits())
        stream = client.open()
        join(client, server)
        self.assertEqual((stream.credit, server.accepted[0].credit), (1024 * KIB, 1024 * KIB))

    def test_credit_by_halves(self) -> None:
        """
        On a short line credit is returned when half a window was read, not for each frame.
        """
        side = Side(client=False)
        side.session.ping()
        side.session.receive(head(WINDOW_UPDATE, SYN, 1, 0) + head(PING, ACK, 0, 1))
        side.take()
        side.session.receive(head(DATA, 0, 1, 127 * KIB) + bytes(127 * KIB))
        self.assertEqual(side.take(), b"")
        side.session.receive(head(DATA, 0, 1, KIB) + bytes(KIB))
        self.assertEqual(frames(side.take()), [(WINDOW_UPDATE, 0, 1, 128 * KIB)])

    def test_credit_by_quarters(self) -> None:
        """
        On a long line it is returned by quarters.
        """
        side = Side(client=False)
        side.session.ping()
        side.now = 0.1
        side.session.receive(head(WINDOW_UPDATE, SYN, 1, 0) + head(PING, ACK, 0, 1))
        side.take()
        side.session.receive(head(DATA, 0, 1, 64 * KIB) + bytes(64 * KIB))
        self.assertEqual(frames(side.take()), [(WINDOW_UPDATE, 0, 1, 64 * KIB)])

    def test_credit_on_a_thin_line(self) -> None:
        """
        Where half a window takes longer than a second, some credit is returned each second: the sender shall hear of us.
        """
        side = Side(client=False)
        side.session.receive(head(WINDOW_UPDATE, SYN, 1, 0))
        side.take()
        side.session.receive(head(DATA, 0, 1, 20 * KIB) + bytes(5 * KIB))
        side.now = 1.0
        side.session.receive(bytes(5 * KIB))
        self.assertEqual(frames(side.take()), [(WINDOW_UPDATE, 0, 1, 10 * KIB)])

    def test_no_credit_after_the_end(self) -> None:
        """
        A peer that has ended is given no more credit.
        """
        side = Side(client=False, reading=False)
        side.session.receive(head(WINDOW_UPDATE, SYN, 1, 0))
        side.take()
        side.session.receive(head(DATA, FIN, 1, 200 * KIB) + bytes(200 * KIB))
        side.accepted[0].read_all()
        self.assertEqual(side.take(), b"")

    def test_window_grows(self) -> None:
        """
        On a long, fast line the window grows to twice the product of bandwidth and delay, and the line is filled.
        """
        line = SlowLine(rtt=0.1, rate=50e6)
        line.run(5)
        self.assertTrue(8e6 <= line.window <= 10.5e6, line.window)
        self.assertGreater(line.carried(2), 2 * 0.9 * 50e6)

    def test_window_stays(self) -> None:
        """
        On a short line the window stays as it is, and suffices.
        """
        line = SlowLine(rtt=0.001, rate=50e6)
        line.run(1)
        self.assertEqual(line.window, 1024 * KIB)
        self.assertGreater(line.carried(1), 0.9 * 50e6)

    def test_window_has_an_end(self) -> None:
        """
        No line makes it larger than 16 MiB.
        """
        line = SlowLine(rtt=1.0, rate=1e8)
        line.run(20)
        self.assertEqual(line.window, 16 * 1024 * KIB)

    def test_flight_is_bounded(self) -> None:
        """
        What a slow peer has not yet taken stays small, although its window is not exhausted; other pings still tell.
        """
        line = SlowLine(rtt=0.0005, rate=20e6, streams=8)
        line.run(1)
        self.assertLess(line.most_on_its_way, MIN_FLIGHT + BATCH)
        self.assertGreater(line.carried(1), 0.9 * 20e6)
        for rate in (20e6, 500e6):
            line = SlowLine(rtt=0.0005, rate=rate)
            line.greet()
            line.run(1)
            self.assertLess(line.most_on_its_way, MIN_FLIGHT + BATCH + min(MAX_LONE, 0.005 * rate))
            self.assertGreater(line.carried(1), 0.9 * rate)

    def test_thin_line(self) -> None:
        """
        On a thin line what is written next waits some seconds at most, from the first moment on, and the line is filled; when it
        is a fast one again that is used within seconds.
        """
        for rtt in (0.01, 0.3):
            line = SlowLine(rtt=rtt, rate=16e3)
            line.greet()
            line.run(20)
            self.assertLess(line.most_on_its_way, 6 * 16e3)
            line.most_on_its_way = 0
            self.assertGreater(line.carried(20), 20 * 0.9 * 16e3)
            self.assertLess(line.most_on_its_way, 3.1 * 16e3)
            line.rate = 10e6
            line.run(12)
            self.assertGreater(line.carried(2), 2 * 0.9 * 10e6)

    def test_late_sample(self) -> None:
        """
        A line that stands still for a while is soon used as before.
        """
        line = SlowLine(rtt=0.1, rate=10e6)
        line.run(3)
        line.free += 5.0
        line.on_way = [(at + 5.0, count, to, data) for at, count, to, data in line.on_way]
        line.run(9)
        self.assertGreater(line.carried(2), 2 * 0.9 * 10e6)

    def test_credit_wakes(self) -> None:
        """
        A stream that waits for credit goes on when it comes.
        """
        side = Side(client=True)
        stream = side.open()
        side.session.write(stream, bytes(INITIAL_WINDOW + 5))
        side.take()
        self.assertFalse(side.session.has_output)
        side.session.receive(head(WINDOW_UPDATE, ACK, 1, 3))
        self.assertEqual(frames(side.take()), [(DATA, 0, 1, 3)])
        side.session.receive(head(WINDOW_UPDATE, 0, 1, 100))
        self.assertEqual(frames(side.take()), [(DATA, 0, 1, 2)])


class TurnTests(SynchronousTestCase):
    """
    Tests of the order in which streams send.
    """

    def test_streams_take_turns(self) -> None:
        """
        No stream sends more than 64 KiB while another one waits.
        """
        side = Side(client=True)
        streams = [side.open() for _ in range(3)]
        for stream in streams:
            side.session.write(stream, bytes(200 * KIB))
        sent = [(number, length) for kind, _, number, length in frames(side.take()) if kind == DATA]
        self.assertEqual([number for number, _ in sent], [1, 3, 5] * 4)
        self.assertEqual({length for _, length in sent}, {64 * KIB, 8 * KIB})

    def test_small_writes_share_a_frame(self) -> None:
        """
        What was written in many pieces leaves in one frame.
        """
        side = Side(client=True)
        stream = side.open()
        for _ in range(100):
            side.session.write(stream, b"0123456789")
        self.assertEqual(frames(side.take())[1:], [(DATA, 0, 1, 1000)])

    def test_at_once(self) -> None:
        """
        A small piece skips the queue when nothing is in it, as the frame that it would have left in; credit is counted alike.
        """
        side = Side(client=True)
        stream = side.open()
        side.take()
        frame = side.session.write_at_once(stream, bytes(1000))
        assert frame is not None
        self.assertEqual(frames(frame), [(DATA, 0, stream.number, 1000)])
        self.assertEqual((stream.credit, stream.bytes_sent), (INITIAL_WINDOW - 1000, 1000))

    def test_not_at_once(self) -> None:
        """
        It waits behind what has a turn: its own stream's bytes, another stream, an end; and for room and credit; and a long piece
        is not copied.
        """

        def refused(prepare: Callable[[Side, Recorder], object], size: int = 10) -> None:
            side = Side(client=True)
            stream = side.open()
            side.take()
            prepare(side, stream)
            before = stream.credit, stream.bytes_sent, side.session.line.sent
            self.assertIsNone(side.session.write_at_once(stream, bytes(size)))
            self.assertEqual((stream.credit, stream.bytes_sent, side.session.line.sent), before)

        def fill(side: Side, stream: Recorder) -> None:
            stream.credit = 9

        def crowd(side: Side, stream: Recorder) -> None:
            side.session.ping()
            side.take()
            side.session.receive(head(PING, ACK, 0, side.session.line.value))
            side.session.line.sent += side.session.line.room
            stream.burst_of, stream.burst = side.session.line.answers, FEW_BYTES

        refused(lambda side, stream: side.session.write(stream, b"first"))
        refused(lambda side, stream: side.session.write(side.open(), b"another's"))
        refused(lambda side, stream: side.session.finish(stream))
        refused(lambda side, stream: side.session.reset(stream))
        refused(fill)
        refused(crowd)
        refused(lambda *_: None, size=AT_ONCE + 1)
        refused(lambda *_: None, size=0)

    def test_at_once_behind_frames_without_data(self) -> None:
        """
        What is said without data goes before it, also what would have waited for something else to be said.
        """
        side = Side(client=True, limits=MuxLimits())
        stream = side.open()
        side.session.receive(head(WINDOW_UPDATE, SYN, 2, 0))
        side.session.ping()
        said = side.session.write_at_once(stream, b"data")
        assert said is not None
        answer = head(WINDOW_UPDATE, ACK, 2, side.session.limits.window - INITIAL_WINDOW)
        opening = head(WINDOW_UPDATE, SYN, 1, side.session.limits.window - INITIAL_WINDOW)
        ping = head(PING, SYN, 0, side.session.line.value)
        self.assertEqual(said, answer + opening + ping + head(DATA, 0, 1, 4) + b"data")
        self.assertFalse(side.session.has_output or side.session.has_late)

    def test_output_is_bounded(self) -> None:
        """
        One call gives what was asked for, and at most a frame more.
        """
        side = Side(client=True)
        stream = side.open()
        side.session.receive(head(WINDOW_UPDATE, ACK, 1, 1024 * KIB))
        side.session.write(stream, bytes(1000 * KIB))
        self.assertLess(len(b"".join(side.session.output(BATCH))), BATCH + 64 * KIB + 100)
        self.assertTrue(side.session.has_output)

    def test_alone(self) -> None:
        """
        A stream sends all that is asked for in one frame, as long as no other one waits.
        """
        side = Side(client=True)
        one, other = side.open(), side.open()
        side.session.receive(head(WINDOW_UPDATE, ACK, one.number, 1024 * KIB))
        side.session.output(0)
        side.session.write(one, bytes(600 * KIB))
        self.assertEqual(frames(b"".join(side.session.output(BATCH)))[0], (DATA, 0, one.number, BATCH))
        side.session.write(other, bytes(100 * KIB))
        sent = [(number, length) for kind, _, number, length in frames(b"".join(side.session.output(BATCH))) if kind == DATA]
        self.assertEqual(sent[:3], [(one.number, 64 * KIB), (other.number, 64 * KIB), (one.number, 64 * KIB)])


class EndTests(SynchronousTestCase):
    """
    Tests of go away and of the end of a session.
    """

    def test_go_away(self) -> None:
        """
        After go away no side opens streams, those in flight are reset, and the others go on.
        """
        client, server = pair()
        stream = server.open()
        join(client, server)
        late = server.open()
        client.session.go_away()
        client.session.go_away()
        self.assertEqual(frames(client.take()), [(GO_AWAY, 0, 0, 0)])
        server.session.receive(head(GO_AWAY, 0, 0, 0))
        for side in (client, server):
            with self.assertRaisesRegex(MuxClosed, "going away"):
                side.open()
        join(client, server)
        self.assertEqual(late.events, ["reset"])
        server.session.write(stream, b"still")
        join(client, server)
        self.assertEqual(client.accepted[0].data, b"still")

    def test_last_number(self) -> None:
        """
        Whoever has used the last number says go away behind it; the stream works as any other.
        """
        client, server = pair()
        server.session._next = 0xFFFFFFFE  # so many streams take days
        client.session._highest = 0xFFFFFFFC
        stream = server.open()
        with self.assertRaisesRegex(MuxClosed, "this side is going away"):
            server.open()
        server.session.write(stream, b"the last")
        join(client, server)
        self.assertEqual([(one.number, one.data) for one in client.accepted], [(0xFFFFFFFE, b"the last")])
        self.assertTrue(client.session.peer_going_away)

    def test_peer_fails(self) -> None:
        """
        Go away with a reason other than the normal one ends the session.
        """
        for code, text in ((1, "protocol error"), (2, "internal error"), (9, "code 9")):
            with self.assertRaisesRegex(PeerWentAway, text):
                Side(client=True).session.receive(head(GO_AWAY, 0, 0, code))

    def test_end(self) -> None:
        """
        A session that has ended has no streams, opens none and says nothing.
        """
        side = Side(client=True)
        stream = side.open()
        side.session.write(stream, b"x")
        self.assertEqual(side.session.end(), [stream])
        side.session.write(stream, b"y")
        side.session.finish(stream)
        side.session.reset(stream)
        self.assertFalse(side.session.has_output or stream.open)
        with self.assertRaisesRegex(MuxClosed, "ended"):
            side.open()

    def test_round_trip(self) -> None:
        """
        The answer to a ping tells the round trip; other answers do not.
        """
        client, server = pair()
        client.session.ping()
        client.session.ping()
        ping = client.take()
        self.assertEqual(len(frames(ping)), 1)
        client.now = 0.25
        client.session.receive(head(PING, ACK, 0, 99))
        self.assertIsNone(client.session.line.rtt)
        server.session.receive(ping)
        client.session.receive(server.take())
        self.assertEqual(client.session.line.rtt, 0.25)


OPENED = head(WINDOW_UPDATE, SYN, 1, 0)

ILLEGAL: dict[str, tuple[str, bytes]] = {
    "unknown version": ("version", pack(">BBHII", 1, 0, 0, 1, 0)),
    "unknown type": ("type", pack(">BBHII", 0, 4, 0, 0, 0)),
    "HTTP": ("version", b"GET / HTTP/1.1\r\n\r\n"),
    "data for nobody": ("unknown-stream", head(DATA, 0, 1, 0)),
    "data for stream 0": ("unknown-stream", head(DATA, 0, 0, 1)),
    "credit for nobody": ("unknown-stream", head(WINDOW_UPDATE, 0, 1, 1)),
    "credit for a stream of ours that we never opened": ("unknown-stream", head(WINDOW_UPDATE, 0, 2, 1)),
    "reset of nobody": ("unknown-stream", head(WINDOW_UPDATE, RST, 1, 0)),
    "a number left out": ("unknown-stream", head(WINDOW_UPDATE, SYN, 3, 0) + head(DATA, 0, 1, 1)),
    "stream opened with our parity": ("parity", head(WINDOW_UPDATE, SYN, 2, 0)),
    "stream 0 opened": ("parity", head(WINDOW_UPDATE, SYN, 0, 0)),
    "opened twice": ("duplicate", OPENED + OPENED),
    "opened again after a reset": ("duplicate", OPENED + head(WINDOW_UPDATE, RST, 1, 0) + OPENED),
    "window exceeded by one frame": ("window", OPENED + head(DATA, 0, 1, INITIAL_WINDOW + 1)),
    "window exceeded by two": ("window", OPENED + head(DATA, 0, 1, INITIAL_WINDOW) + bytes(INITIAL_WINDOW) + head(DATA, 0, 1, 1)),
    "more data for a closed stream than any window holds": (
        "window",
        OPENED + head(WINDOW_UPDATE, RST, 1, 0) + head(DATA, 0, 1, MuxLimits().max_window + 1),
    ),
    "data behind the end": ("data-after-fin", OPENED + head(DATA, FIN, 1, 0) + head(DATA, 0, 1, 1)),
    "too much credit": ("window-overflow", OPENED + head(WINDOW_UPDATE, 0, 1, 0xFFFFFFFF)),
    "ping on a stream": ("session-stream", head(PING, SYN, 1, 1)),
    "go away on a stream": ("session-stream", head(GO_AWAY, 0, 1, 0)),
    "a number far ahead": ("skipped", head(WINDOW_UPDATE, SYN, 2 * MAX_SKIPPED + 5, 0)),
    "answers wanted, and not read": ("flood", head(PING, SYN, 0, 1) * (MAX_CONTROL_FRAMES + 1)),
}
"""Kind of mistake: the name of the error, and what the peer sends to a server that does not read."""


class IllegalTests(SynchronousTestCase):
    """
    Tests of peers that break the protocol.
    """

    def test_illegal_frames(self) -> None:
        """
        Each mistake ends the session with its own name, and the peer is told.
        """
        for what, (name, data) in ILLEGAL.items():
            for split in (False, True):
                with self.subTest(what, split=split):
                    side = Side(client=False, reading=False)
                    with self.assertRaises(IllegalFrame) as caught:
                        for piece in [data[at : at + 1] for at in range(len(data))] if split else [data]:
                            side.session.receive(piece)
                    self.assertEqual(caught.exception.name, name)
                    self.assertIn("the peer broke yamux: ", str(caught.exception))
                    self.assertEqual(frames(side.take()), [(GO_AWAY, 0, 0, 1)])

    def test_frames_of_closed_streams(self) -> None:
        """
        Frames for a stream that ended a moment ago are dropped.
        """
        side = Side(client=False)
        side.session.receive(OPENED)
        side.session.reset(side.accepted[0])
        late = head(DATA, FIN, 1, 3) + b"abc" + head(WINDOW_UPDATE, 0, 1, 9) + head(WINDOW_UPDATE, RST, 1, 0)
        side.session.receive(late + head(PING, SYN, 0, 5))
        self.assertEqual((side.accepted[0].data, side.accepted[0].events), (b"", []))
        self.assertEqual(frames(side.take())[-1], (PING, ACK, 0, 5))

    def test_long_frame(self) -> None:
        """
        A data frame may be as long as the window, and is not collected.
        """
        side = Side(client=False)
        side.session.receive(OPENED + head(DATA, 0, 1, INITIAL_WINDOW) + b"x")
        self.assertEqual(side.accepted[0].data, b"x")

    def test_noise(self) -> None:
        """
        Random bytes are refused, or understood, but never make another error.
        """
        noise = random.Random(1)
        for _ in range(300):
            side = Side(client=False)
            try:
                for _ in range(20):
                    kind, flags = noise.choice((0, 0, 1, 1, 2, 3, 4)), noise.choice((0, 1, 1, 2, 4, 8, 15))
                    length = noise.choice((0, 1, 5, 2**20))
                    side.session.receive(head(kind, flags, noise.choice((0, 1, 2, 3, 5)), length) + bytes(length % 7))
            except (IllegalFrame, PeerWentAway) as error:
                self.assertTrue(str(error))
            side.session.end()
            self.assertEqual(side.session.streams, {})


class ResidueTests(SynchronousTestCase):
    """
    Tests of what streams leave behind.
    """

    def test_ten_thousand_streams(self) -> None:
        """
        Ten thousand streams, ended in every way, leave nothing behind.
        """
        client, server = pair()
        for count in range(10_000):
            stream = client.open()
            client.session.write(stream, b"x" * 100)
            if count % 3 == 0:
                client.session.reset(stream)
            join(client, server)
            peer: Recorder = server.accepted.pop()
            if count % 3 == 1:
                server.session.reset(peer)
            elif count % 3 == 2:
                client.session.finish(stream)
                server.session.finish(peer)
            join(client, server)
        for side in (client, server):
            session = side.session
            self.assertEqual((session.streams, session._growth, session.has_output), ({}, 0, False))
            self.assertEqual((len(session._ready), session._skipped or {}), (0, {}))
        self.assertEqual(SMALL_LIMITS.max_streams, 4096)
