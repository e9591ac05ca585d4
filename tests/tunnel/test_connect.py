"""
Tests of :mod:`yurt.tunnel.connect`, over two mux connections in memory.
"""

from __future__ import annotations

import errno
import json
from typing import Any

from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocol
from twisted.trial.unittest import SynchronousTestCase

from tests.mux.links import HalfCloseable, Link, Memory
from yurt.http.dial import Build
from yurt.http.heads import get_header
from yurt.mux.connection import MuxStream
from yurt.tunnel.answering import HEAD_TIMEOUT, IncomingConnect, IncomingStream, parse_head, read_connect, read_head
from yurt.tunnel.connect import MAX_HEAD_BYTES, NODE_HEADER, ConnectRefused, authority, dial_failure
from yurt.tunnel.opening import ANSWER_TIMEOUT, StreamEndpoint


class Refusable(HalfCloseable):
    """
    Also remembers why it was refused.
    """

    refused: ConnectRefused | None = None

    def connectionLost(self, reason: Any = None) -> None:
        super().connectionLost(reason)
        if isinstance(reason.value, ConnectRefused):
            self.refused = reason.value


class Case(SynchronousTestCase):
    """
    A link: the server opens, the client answers.
    """

    def setUp(self) -> None:
        self.link = Link()
        self.inside = Refusable()

    def dial(self, host: str = "10.0.0.8", port: int = 10250, **how: Any) -> Deferred[IProtocol]:
        """
        Open a stream for ``inside``.
        """
        endpoint = StreamEndpoint(self.link.server.mux, host, port, reactor=self.link.clock, **how)
        dialling = endpoint.connect(Build(lambda _: self.inside))
        self.link.flush()
        return dialling

    def incoming(self) -> IncomingConnect:
        """
        What the client reads of the stream opened last.
        """
        reading = Deferred.fromCoroutine(read_connect(self.link.clock, self.link.client.accepted[-1]))
        self.link.flush()
        return self.successResultOf(reading)

    def refused(self, dialling: Deferred[IProtocol]) -> ConnectRefused:
        """
        Why a dial came to nothing.
        """
        value = self.failureResultOf(dialling, ConnectRefused).value
        assert isinstance(value, ConnectRefused)
        return value

    def raw(self, data: bytes) -> tuple[Memory, MuxStream]:
        """
        A stream that begins with ``data``: the server's end and the client's.
        """
        here = HalfCloseable()
        stream, peer = self.link.open(here)
        stream.write(data)
        self.link.flush()
        return here, peer


class OpeningTests(Case):
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
        Refusals that say less, or nonsense, have a word and a message all the same.
        """
        for answer, status, word, message in (
            (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", 403, "forbidden", "403 Forbidden"),
            (b"HTTP/1.1 503 x\r\nYurt-Refused: \xff\r\nContent-Length: 0\r\n\r\n", 503, "not-connected", "503 x"),
            (b"HTTP/1.1 418 I'm a teapot\r\n\r\n" + b"x" * (MAX_HEAD_BYTES + 1), 418, "unreachable", "418 I'm a teapot"),
            (b"SSH-2.0\r\n", 502, "malformed", "no HTTP"),
        ):
            dialling = self.dial()
            peer = self.link.client.accepted[-1]
            peer.attach(HalfCloseable())
            peer.write(answer)
            self.link.flush()
            refused = self.refused(dialling)
            self.assertEqual((refused.status, refused.word), (status, word))
            self.assertIn(message, refused.message)
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


class EarlyTests(Case):
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


class AnsweringTests(Case):
    """
    Tests of the side that answers.
    """

    def reading(self, peer: MuxStream) -> Deferred[IncomingConnect]:
        """
        The head of a stream, perhaps later.
        """
        reading = Deferred.fromCoroutine(read_connect(self.link.clock, peer))
        self.link.flush()
        return reading

    def answer(self, data: bytes) -> tuple[int, dict[str, Any], str]:
        """
        Status, Status object and word of a raw answer.
        """
        head, _, body = data.partition(b"\r\n\r\n")
        word = next(line[14:] for line in head.decode().splitlines() if line.startswith("Yurt-Refused: "))
        return int(head.split()[1]), json.loads(body), word

    def test_byte_by_byte(self) -> None:
        """
        A head may come in pieces; it is there with its last byte.
        """
        here, peer = self.raw(b"")
        reading = self.reading(peer)
        for byte in b"CONNECT 10.0.0.8:10250 HTTP/1.1\r\nHost: 10.0.0.8:10250\r\n\r\n":
            self.assertNoResult(reading)
            here.stream.write(bytes([byte]))
            self.link.flush()
        self.assertEqual(self.successResultOf(reading).host, "10.0.0.8")

    def test_malformed(self) -> None:
        """
        What is no CONNECT with host and port is answered 400 with a word, and raised.
        """
        for data in (
            b"CONNECT 10.0.0.8 HTTP/1.1\r\n\r\n",
            b"CONNECT :10250 HTTP/1.1\r\n\r\n",
            b"CONNECT a:0 HTTP/1.1\r\n\r\n",
            b"CONNECT a:65536 HTTP/1.1\r\n\r\n",
            b"CONNECT a:1 HTTP/1.0\r\n\r\n",
            b"CONNECT a:1 HTTP/1.1\r\nno field\r\n\r\n",
            b"CONNECT a:1 HTTP/1.1\r\nA: b\n c\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\0\1\2\r\n\r\n",
            b"CONNECT a:1 HTTP/1.1\r\nX: " + b"x" * MAX_HEAD_BYTES,
            b"CONNECT a:1 HTTP/1.1\r\nX: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n",
        ):
            here, peer = self.raw(data)
            reading = self.reading(peer)
            refused = self.failureResultOf(reading, ConnectRefused).value
            status, body, word = self.answer(here.data)
            self.assertEqual((refused.status, status, word, body["code"]), (400, 400, "malformed", 400), data[:40])
            self.assertIn("read", here.ends)
            here.stream.loseConnection()
            self.link.flush()
        self.assertEqual((self.link.server.mux.streams, self.link.client.mux.streams), (0, 0))

    def test_no_head_in_time(self) -> None:
        """
        A head that does not come is given up.
        """
        here, peer = self.raw(b"CONNECT a:1")
        reading = self.reading(peer)
        self.link.clock.advance(HEAD_TIMEOUT)
        self.link.flush()
        self.failureResultOf(reading, ConnectRefused)
        self.assertEqual(self.answer(here.data)[0], 400)

    def test_ended_within_head(self) -> None:
        """
        So is one that ends or is reset before it is whole; a reset one is not answered.
        """
        here, peer = self.raw(b"CONNECT a:1")
        reading = self.reading(peer)
        here.stream.loseWriteConnection()
        self.link.flush()
        self.failureResultOf(reading, ConnectRefused)
        self.assertEqual(self.answer(here.data)[0], 400)
        here, peer = self.raw(b"CONNECT a:1")
        reading = self.reading(peer)
        here.stream.abortConnection()
        self.link.flush()
        self.assertEqual(self.failureResultOf(reading, ConnectRefused).value.word, "not-connected")

    def test_other_methods(self) -> None:
        """
        Streams between servers may begin with another request.
        """
        here, peer = self.raw(b"POST /v1/nodes HTTP/1.1\r\n\r\n{}")
        reading: Deferred[IncomingStream] = Deferred.fromCoroutine(read_head(self.link.clock, peer))
        self.link.flush()
        incoming = self.successResultOf(reading)
        self.assertEqual((incoming.method, incoming.target), (b"POST", b"/v1/nodes"))
        there = HalfCloseable()
        incoming.accept(there)
        self.link.flush()
        self.assertEqual((there.data, here.data), (b"{}", b"HTTP/1.1 200 OK\r\n\r\n"))

    def test_not_read_before(self) -> None:
        """
        An opener that writes before the answer is held by its window, not by our memory.
        """
        self.dial(early=True)
        incoming = self.incoming()
        self.inside.stream.write(bytes(8 * 1024 * 1024))
        self.link.flush()
        window = self.link.client.mux.limits.window
        self.assertLessEqual(self.link.client.mux.bytes_received, window)
        there = HalfCloseable()
        incoming.accept(there)
        for _ in range(20):
            self.link.flush()
        self.assertEqual(len(there.data), 8 * 1024 * 1024)

    def test_lost_while_dialling(self) -> None:
        """
        An opener that resets is heard at once, also when it has written; what is answered later goes nowhere.
        """
        for early in (b"", b"hello"):
            self.inside = Refusable()
            self.dial(early=True)
            self.inside.stream.write(early)
            incoming = self.incoming()
            lost: list[bool] = []
            incoming.on_lost = lambda lost=lost: lost.append(True)
            self.inside.stream.abortConnection()
            self.link.flush()
            self.assertEqual((lost, incoming.is_lost), ([True], True))
            incoming.refuse(502, "BadGateway", "refused", "late")
            there = HalfCloseable()
            incoming.accept(there)
            self.assertEqual(there.ends, ["ConnectionLost"])
        self.assertEqual((self.link.server.mux.streams, self.link.client.mux.streams), (0, 0))

    def test_lost_behind_an_end(self) -> None:
        """
        When the link goes down behind a whole request, its bytes are delivered, and then the loss.
        """
        self.dial(early=True)
        incoming = self.incoming()
        self.inside.stream.write(b"all")
        self.inside.stream.loseWriteConnection()
        self.link.flush()
        self.link.client.mux.abort("test")
        self.link.flush()
        there = HalfCloseable()
        incoming.accept(there)
        self.link.flush()
        self.assertEqual((there.data, there.ends), (b"all", ["ConnectionLost"]))

    def test_refuse(self) -> None:
        """
        A refusal is a Status with its word, and the message is whole JSON whatever is in it.
        """
        here, peer = self.raw(b"CONNECT a:1 HTTP/1.1\r\n\r\n")
        incoming = self.successResultOf(self.reading(peer))
        incoming.refuse(504, "Timeout", "timeout", 'a:1: "quoted"\r\nÄ')
        self.link.flush()
        status, body, word = self.answer(here.data)
        self.assertEqual((status, word, body["reason"], body["message"]), (504, "timeout", "Timeout", 'a:1: "quoted"\r\nÄ'))


class WordsTests(SynchronousTestCase):
    """
    Tests of the reasons of failed dials.
    """

    def test_reasons(self) -> None:
        """
        Refused, unreachable, timed out, name unknown and no means are told apart.
        """
        for problem, status, word in (
            (error.getConnectError((errno.ECONNREFUSED, "x")), 502, "refused"),
            (error.getConnectError((errno.EHOSTUNREACH, "x")), 502, "unreachable"),
            (error.getConnectError((errno.ENETUNREACH, "x")), 502, "unreachable"),
            (error.getConnectError((errno.ETIMEDOUT, "x")), 504, "timeout"),
            (error.TimeoutError(), 504, "timeout"),
            (error.DNSLookupError("x"), 502, "name-unknown"),
            (error.ConnectBindError(errno.EMFILE, "x"), 503, "exhausted"),
            (error.ConnectError(), 502, "unreachable"),
        ):
            refused = dial_failure(problem, 5.0)
            self.assertEqual((refused.status, refused.word), (status, word), problem)
            self.assertNotIn("\n", refused.message)

    def test_heads(self) -> None:
        """
        A head is a start line and fields; blanks around values do not belong to them.
        """
        head = parse_head(b"CONNECT a:1 HTTP/1.1\r\nHost:a:1\r\nX-Y:  z \t")
        self.assertEqual((head.method, head.target), (b"CONNECT", b"a:1"))
        self.assertEqual(head.headers, [(b"Host", b"a:1"), (b"X-Y", b"z")])
