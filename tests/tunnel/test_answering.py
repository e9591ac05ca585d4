"""
Promises about streams that the other side has opened.
"""

from __future__ import annotations

import json
import socket
from typing import Any, cast

from twisted.internet.defer import Deferred

from tests.mux.links import HalfCloseable
from tests.tunnel.streams import Refusable, StreamCase
from yurt.mux.connection import MuxStream
from yurt.tunnel.answering import HEAD_TIMEOUT, IncomingConnect, IncomingStream, read_connect, read_head
from yurt.tunnel.connect import MAX_HEAD_BYTES, ConnectRefused


class Handle:
    """
    A socket that takes no more than so many bytes.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.sent = b""

    def send(self, data: bytes) -> int:
        if not self.room:
            raise BlockingIOError
        self.sent += data[: self.room]
        return min(self.room, len(data))


class AnsweringTests(StreamCase):
    """
    Tests of the side that answers.
    """

    def reading(self, peer: MuxStream) -> Deferred[IncomingConnect]:
        """
        The head of a stream, perhaps later.
        """
        reading = read_connect(self.link.clock, peer)
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

    def test_pass_on(self) -> None:
        """
        What came behind the head may go to a socket before the stream is accepted; what that does not take goes to the protocol.
        """
        for taken in (0, 3, 5):
            self.dial(early=True)
            self.inside.stream.write(b"hello")
            incoming = self.incoming()
            handle = Handle(taken)
            incoming.pass_on(cast(socket.socket, handle))
            there = HalfCloseable()
            incoming.accept(there)
            self.link.flush()
            self.assertEqual((handle.sent, there.data), (b"hello"[:taken], b"hello"[taken:]))
            self.assertEqual(self.inside.ends, [])

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
