"""
What cannot be understood is refused by the server.
"""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from tests.http.memory import ServerSide, echo, get, hello
from yurt.http.interfaces import ResponseHead
from yurt.http.limits import ServerLimits
from yurt.http.parsing import MAX_HEAD_BYTES

MALFORMED = {
    "both lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "the other way round": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "two equal lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "length list": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc",
    "signed length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
    "negative length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "hexadecimal length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc",
    "empty length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
    "huge length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    "unknown coding": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
    "coding before chunked": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "coding after chunked": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "nearly chunked": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "hidden chunked": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked twice": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bad chunk size": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "bare CR": b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
    "bare CR as line end": b"GET / HTTP/1.1\rHost: a\r\r",
    "bare LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "NUL in a value": b"GET / HTTP/1.1\r\nHost: a\x00\r\n\r\n",
    "space before the colon": b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "folded line": b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "asterisk": b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT": b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    "target without slash": b"GET a HTTP/1.1\r\nHost: a\r\n\r\n",
    "fragment": b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
    "other scheme": b"GET ftp://a/b HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "version": b"GET / HTTP/3.0\r\nHost: a\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "unknown method": b"FOO / HTTP/1.1\r\nHost: a\r\n\r\n",
}


class MalformedTests(SynchronousTestCase):
    """
    What cannot be understood is refused.
    """

    def check(self, data: bytes, pieces: list[bytes]) -> None:
        side = ServerSide(echo)
        answer = side.feed(*pieces)
        head, _, body = answer.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 400 Bad Request\r\n"), (data, answer))
        self.assertIn(b"Connection: close", head)
        status = json.loads(body)
        self.assertEqual((status["kind"], status["code"], status["reason"]), ("Status", 400, "BadRequest"))
        self.assertTrue(side.wire.is_closed)

    def test_refused(self) -> None:
        """
        Each malformed request gets one 400 with a Status and a closed connection, and a following one no answer.
        """
        for name, data in MALFORMED.items():
            with self.subTest(name):
                self.check(data, [data + get()])

    def test_refused_byte_by_byte(self) -> None:
        """
        The same when it comes byte by byte.
        """
        for name, data in MALFORMED.items():
            with self.subTest(name):
                self.check(data, [bytes([byte]) for byte in data])

    def test_oversized_head(self) -> None:
        """
        A head larger than the limit gets 431 and a Status, in one field or many, finished or not, without an end to wait for.
        """
        limits = ServerLimits(max_head_bytes=1000)
        one = get(b"/", b"X: " + b"a" * 1000)
        many = get(b"/", *[b"X: a"] * 200)
        target = get(b"/" + b"a" * 1000)
        endless = get(b"/", b"X: " + b"a" * 3000)[:-4]
        for data in (one, many, target, endless):
            for size in (1, 7, 100, len(data)):
                side = ServerSide(hello, limits)
                answer = side.feed(*[data[at : at + size] for at in range(0, len(data), size)])
                self.assertTrue(answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n"), (data[:50], size))
                status = json.loads(answer.partition(b"\r\n\r\n")[2])
                self.assertEqual((status["code"], status["reason"]), (431, "RequestHeaderFieldsTooLarge"))
                self.assertIn("1000 bytes", status["message"])
                self.assertTrue(side.wire.is_closed)

    def test_head_within_limit(self) -> None:
        """
        Many small requests in one read are not an oversized head.
        """
        side = ServerSide(hello, ServerLimits(max_head_bytes=100))
        self.assertEqual(side.feed(get() * 50).count(b"200 OK"), 50)

    def test_large_heads(self) -> None:
        """
        Where heads may be larger than usual, only so many of such are taken at once: what strangers begin and never end is
        bounded.
        """
        limits = ServerLimits(max_head_bytes=4 * MAX_HEAD_BYTES, max_large_heads=2)
        large = get(b"/", b"X: " + b"a" * 2 * MAX_HEAD_BYTES)
        side = ServerSide(hello, limits)
        begun = []
        for _ in range(2):
            self.assertEqual(side.feed(large[:-10]), b"")
            begun.append((side.connection, side.wire))
            side.connect()
        self.assertTrue(side.feed(large[:-10]).startswith(b"HTTP/1.1 503 "))
        self.assertTrue(side.wire.is_closed)
        begun[0][0].dataReceived(large[-10:])
        self.assertTrue(begun[0][1].value().startswith(b"HTTP/1.1 200 "))
        begun[1][0].connectionLost()
        for _ in range(2):
            side.connect()
            self.assertEqual(side.feed(large[:-10]), b"")
        side.connect()
        self.assertTrue(side.feed(large).startswith(b"HTTP/1.1 200 "))  # whole at once

    def test_endless_trailers(self) -> None:
        """
        Trailers are bounded like a head.
        """
        side = ServerSide(echo, ServerLimits(max_head_bytes=1000))
        data = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
        answer = side.feed(data, *[b"X: aaaaaaaa\r\n"] * 200)
        self.assertTrue(answer.startswith(b"HTTP/1.1 431 "))

    def test_good_requests_before_bad(self) -> None:
        """
        Requests ahead of a malformed one are answered first.
        """
        side = ServerSide(hello)
        answer = side.feed(get(b"/1") + get(b"/2") + MALFORMED["both lengths"])
        self.assertLess(answer.index(b"/1"), answer.index(b"/2"))
        self.assertLess(answer.index(b"/2"), answer.index(b"400 Bad"))

    def test_bad_waits_for_answer(self) -> None:
        """
        A malformed request behind one that is being answered is refused after that answer.
        """
        side = ServerSide()
        self.assertEqual(side.feed(get(b"/1") + b"\x00\x00"), b"")
        side.requests[0].respond(200, [], b"one")
        answer = side.take()
        self.assertLess(answer.index(b"one"), answer.index(b"400 Bad"))

    def test_bad_body(self) -> None:
        """
        A body that breaks off the framing ends in a 400 and tells the application that its client is lost.
        """
        side = ServerSide()
        side.feed(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        lost: list[int] = []
        side.requests[0].when_lost(lambda: lost.append(1))
        self.assertTrue(side.feed(b"zz\r\n").startswith(b"HTTP/1.1 400 "))
        self.assertEqual(lost, [1])
        side.requests[0].respond(200, [], b"too late")
        self.assertEqual(side.take(), b"")

    def test_bad_body_after_start(self) -> None:
        """
        When the response has begun, a broken body can only cut the connection.
        """
        side = ServerSide()
        side.feed(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        side.requests[0].start(ResponseHead(200, b"OK"))
        side.take()
        self.assertEqual(side.feed(b"zz\r\n"), b"")
        self.assertTrue(side.wire.aborted)
