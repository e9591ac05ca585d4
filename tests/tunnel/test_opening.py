"""
Promises to who opens streams.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError

from tests.mux.links import HalfCloseable, Memory
from tests.tunnel.streams import Refusable, StreamCase
from yurt.http.dial import Build
from yurt.http.heads import get_header
from yurt.mux.connection import MuxStream
from yurt.tunnel.connect import MAX_HEAD_BYTES, NODE_HEADER, ConnectRefused, authority
from yurt.tunnel.opening import ANSWER_TIMEOUT, StreamEndpoint


class OpeningTests(StreamCase):
    """
    Tests of the side that opens.
    """

    def test_head(self) -> None:
        """
        The head names the target, in brackets where it must, and further fields; the acceptor hears them.
        """
        self.dial("fd00::8", 10255, headers=[(NODE_HEADER, b"edge-1")])
        incoming = self.incoming()
        self.assertEqual((incoming.host, incoming.port, incoming.method), ("fd00::8", 10255, b"CONNECT"))
        self.assertEqual(incoming.target, b"[fd00::8]:10255")
        self.assertEqual(get_header(incoming.headers, b"host"), b"[fd00::8]:10255")
        self.assertEqual(get_header(incoming.headers, b"yurt-node"), b"edge-1")
        self.assertEqual(incoming.authority, authority("fd00::8", 10255))

    def test_connected(self) -> None:
        """
        The protocol is there when the other side has accepted, and bytes go both ways; no timer is left.
        """
        dialling = self.dial()
        self.assertNoResult(dialling)
        there = HalfCloseable()
        self.incoming().accept(there)
        self.link.flush()
        self.assertIs(self.successResultOf(dialling), self.inside)
        self.inside.stream.write(b"ping")
        there.stream.write(b"pong")
        self.link.flush()
        self.assertEqual((there.data, self.inside.data), (b"ping", b"pong"))
        timers = [call.getTime() for call in self.link.clock.getDelayedCalls()]
        self.assertTrue(all(due <= 10 for due in timers), timers)
        self.link.clock.pump([1.0] * 4)
        self.assertEqual(self.inside.ends, [])

    def test_answered(self) -> None:
        """
        Who asked for it is told when the answer came, early or not.
        """
        for early in (False, True):
            told: list[bool] = []
            self.dial(early=early, answered=lambda told=told: told.append(True))
            self.assertEqual(told, [])
            self.incoming().accept(HalfCloseable())
            self.link.flush()
            self.assertEqual(told, [True])

    def test_bytes_behind_the_answer(self) -> None:
        """
        What comes in one piece with the answer is delivered, behind the connection.
        """
        dialling = self.dial()
        peer = self.link.client.accepted[-1]
        peer.attach(HalfCloseable())
        peer.write(b"HTTP/1.1 200 OK\r\n\r\nfirst")
        self.link.flush()
        self.successResultOf(dialling)
        self.assertEqual(self.inside.data, b"first")

    def test_answer_byte_by_byte(self) -> None:
        """
        An answer may come in pieces, with fields.
        """
        dialling = self.dial()
        peer = self.link.client.accepted[-1]
        peer.attach(HalfCloseable())
        for byte in b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n":
            self.assertNoResult(dialling)
            peer.write(bytes([byte]))
            self.link.flush()
        self.successResultOf(dialling)
        self.assertEqual(self.inside.data, b"")

    def test_half_close(self) -> None:
        """
        The end of one direction leaves the other one open.
        """
        self.dial()
        there = HalfCloseable()
        self.incoming().accept(there)
        self.link.flush()
        self.inside.stream.loseWriteConnection()
        self.link.flush()
        self.assertIn("read", there.ends)
        there.stream.write(b"late")
        there.stream.loseWriteConnection()
        self.link.flush()
        self.assertEqual(self.inside.data, b"late")
        self.assertIn("read", self.inside.ends)
        self.assertEqual(self.inside.ends[-1], "ConnectionDone")
        self.assertEqual(there.ends[-1], "ConnectionDone")

    def test_plain_protocol(self) -> None:
        """
        A protocol that knows no half-close is closed by the end of the other side.
        """
        inside = Memory()
        endpoint = StreamEndpoint(self.link.server.mux, "a", 1, reactor=self.link.clock)
        endpoint.connect(Build(lambda _: inside))
        self.link.flush()
        there = HalfCloseable()
        self.incoming().accept(there)
        there.stream.loseWriteConnection()
        self.link.flush()
        self.assertEqual(inside.ends, ["ConnectionDone"])

    def test_refused(self) -> None:
        """
        A refusal arrives with status, reason, word and message, and no stream is left.
        """
        dialling = self.dial()
        self.incoming().refuse(502, "BadGateway", "refused", "10.0.0.8:10250: connection refused")
        self.link.flush()
        refused = self.refused(dialling)
        self.assertEqual(
            (refused.status, refused.reason, refused.word, refused.message),
            (502, "BadGateway", "refused", "10.0.0.8:10250: connection refused"),
        )
        self.assertEqual((self.link.server.mux.streams, self.link.client.mux.streams), (0, 0))

    def test_foreign_refusals(self) -> None:
        """
        Refusals that say less, or nonsense, have a reason, a word and a message all the same.
        """
        for answer, status, word, message in (
            (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", 403, "forbidden", "403 Forbidden"),
            (b"HTTP/1.1 503 x\r\nYurt-Refused: \xff\r\nContent-Length: 0\r\n\r\n", 503, "not-connected", "503 x"),
            (b"HTTP/1.1 418 I'm a teapot\r\n\r\n" + b"x" * (MAX_HEAD_BYTES + 1), 418, "unreachable", "418 I'm a teapot"),
            (b"SSH-2.0\r\n", 502, "malformed", "no HTTP"),
            (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", 502, "malformed", "no answer to a CONNECT"),
        ):
            dialling = self.dial()
            peer = self.link.client.accepted[-1]
            peer.attach(HalfCloseable())
            peer.write(answer)
            self.link.flush()
            refused = self.refused(dialling)
            self.assertEqual((refused.status, refused.word), (status, word))
            self.assertIn(message, refused.message)
            self.assertTrue(refused.reason)
        self.assertEqual(self.link.server.mux.streams, 0)

    def test_ends_without_answer(self) -> None:
        """
        A stream that ends, is reset, or goes down with its link is a refusal.
        """

        def finish(peer: MuxStream) -> None:
            peer.attach(HalfCloseable())
            peer.loseWriteConnection()

        def cut_off(peer: MuxStream) -> None:
            peer.attach(HalfCloseable())
            peer.write(b"HTTP/1.1 403 Forbidden\r\n\r\nno")
            peer.loseWriteConnection()

        for end, status, word in (
            (finish, 502, "unreachable"),
            (cut_off, 403, "forbidden"),
            (MuxStream.abortConnection, 502, "not-connected"),
            (lambda _: self.link.server.mux.abort("test"), 502, "not-connected"),
        ):
            dialling = self.dial()
            end(self.link.client.accepted[-1])
            self.link.flush()
            refused = self.refused(dialling)
            self.assertEqual((refused.status, refused.word), (status, word))

    def test_timeout(self) -> None:
        """
        Without an answer in time the dial ends, and the other side is told by a reset.
        """
        dialling = self.dial()
        incoming = self.incoming()
        lost: list[bool] = []
        incoming.on_lost = lambda: lost.append(True)
        self.link.clock.advance(ANSWER_TIMEOUT / 2)
        self.link.flush()
        self.assertNoResult(dialling)
        self.link.clock.advance(ANSWER_TIMEOUT / 2)
        self.link.flush()
        self.assertEqual((self.refused(dialling).status, lost), (504, [True]))

    def test_cancel(self) -> None:
        """
        Cancelling resets the stream.
        """
        dialling = self.dial()
        incoming = self.incoming()
        dialling.cancel()
        self.link.flush()
        self.failureResultOf(dialling, CancelledError)
        self.assertTrue(incoming.is_lost)
        self.assertEqual((self.link.server.mux.streams, self.link.client.mux.streams), (0, 0))

    def test_no_stream(self) -> None:
        """
        A link that takes no new streams is a refusal at once.
        """
        self.link.client.mux.go_away()
        self.link.flush()
        self.assertEqual(self.refused(self.dial()).status, 503)

    def test_nobody_wants_it(self) -> None:
        """
        A factory that makes no protocol ends the stream.
        """
        endpoint = StreamEndpoint(self.link.server.mux, "a", 1, reactor=self.link.clock)
        dialling = endpoint.connect(Build(lambda _: None))  # type: ignore[arg-type, return-value]  # as Factory allows
        self.link.flush()
        self.incoming().accept(HalfCloseable())
        self.link.flush()
        self.failureResultOf(dialling, ConnectRefused)
        self.assertEqual(self.link.server.mux.streams, 0)


class Tapped:
    """
    A call that notes what it was called with.
    """

    def __init__(self, call: Callable[[bytes], None], noted: list[bytes]) -> None:
        self.call = call
        self.noted = noted

    def __call__(self, data: bytes) -> None:
        self.noted.append(data)
        self.call(data)


class EarlyTests(StreamCase):
    """
    Tests of streams that are written to before they are answered.
    """

    def test_written_before(self) -> None:
        """
        What is written at once arrives behind the head, however late the answer.
        """
        self.successResultOf(self.dial(early=True))
        self.inside.stream.write(b"hello")
        self.link.flush()
        incoming = self.incoming()
        self.inside.stream.write(b", kubelet")
        self.inside.stream.loseWriteConnection()
        self.link.flush()
        there = HalfCloseable()
        incoming.accept(there)
        self.link.flush()
        self.assertEqual((there.data, there.ends[0]), (b"hello, kubelet", "read"))
        there.stream.write(b"hi")
        self.link.flush()
        self.assertEqual(self.inside.data, b"hi")

    def test_one_piece(self) -> None:
        """
        What is written at once leaves together with the head, and the answer together with what is said to it.
        """
        there, answer = HalfCloseable(), HalfCloseable()
        pieces: list[bytes] = []
        for end in (self.link.server, self.link.client):
            self.patch(self.link.transport(end), "write", Tapped(self.link.transport(end).write, pieces))
        endpoint = StreamEndpoint(self.link.server.mux, "10.0.0.8", 10250, reactor=self.link.clock, early=True)
        self.successResultOf(endpoint.connect(Build(lambda _: there)))
        there.stream.write(b"hello")
        self.assertEqual(len(pieces), 1)
        self.link.pump.flush()
        self.incoming_at_once().accept(answer)
        self.assertEqual((answer.data, len(pieces)), (b"hello", 1))
        answer.stream.write(b"hi")
        self.link.pump.flush()
        self.assertEqual((there.data, len(pieces)), (b"hi", 2))

    def test_head_alone(self) -> None:
        """
        The head of a stream that says nothing leaves alone, a moment later; so does the answer to one that said something.
        """
        self.dial(early=True)
        self.inside.stream.write(b"hello")
        self.link.flush()
        self.incoming().accept(HalfCloseable())
        answered: list[None] = []
        self.dial(early=True, answered=lambda: answered.append(None))
        self.inside.stream.write(b"hello")
        self.link.flush()
        self.incoming().accept(HalfCloseable())
        self.link.flush()
        self.assertEqual(answered, [None])

    def test_refused(self) -> None:
        """
        A refusal is why the protocol's connection is lost.
        """
        self.dial(early=True)
        self.incoming().refuse(403, "Forbidden", "forbidden", "no")
        self.link.flush()
        assert self.inside.refused is not None
        self.assertEqual((self.inside.refused.status, self.inside.refused.message), (403, "no"))
        self.assertEqual(self.inside.ends, ["ConnectRefused"])
        self.assertEqual(self.link.server.mux.streams, 0)

    def test_lost(self) -> None:
        """
        So is the loss of the link.
        """
        self.dial(early=True)
        self.link.server.mux.abort("test")
        self.link.flush()
        assert self.inside.refused is not None
        self.assertEqual(self.inside.refused.word, "not-connected")

    def test_closed_by_itself(self) -> None:
        """
        A protocol that closes or resets before the answer hears what it did.
        """
        for close, ended in (("abortConnection", "ConnectionAborted"), ("loseConnection", "ConnectionDone")):
            self.inside = Refusable()
            self.dial(early=True)
            getattr(self.inside.stream, close)()
            self.link.flush()
            peer = self.link.client.accepted[-1]
            peer.attach(HalfCloseable())
            peer.loseConnection()
            self.link.flush()
            self.assertEqual(self.inside.ends, [ended])
            self.assertIsNone(self.inside.refused)
