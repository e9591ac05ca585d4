"""
Promises of the HTTP server towards its clients and its application.
"""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.http.memory import Recorder, ServerSide, echo, get, hello, post
from yurt.http.interfaces import IncomingRequest, ResponseHead
from yurt.http.limits import ServerLimits
from yurt.http.server import LAST_WORDS_TIMEOUT

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


class RequestTests(SynchronousTestCase):
    """
    What the application sees, and what the client gets.
    """

    def test_get(self) -> None:
        """
        A request is shown with its head, peer and door, and answered in one write.
        """
        side = ServerSide(hello)
        answer = side.feed(get(b"/a?b=c", b"X-Y: z"))
        self.assertEqual(answer, b"HTTP/1.1 200 OK\r\nX-Target: /a?b=c\r\nContent-Length: 5\r\n\r\nhello")
        request = side.requests[0]
        self.assertEqual((request.head.method, request.head.target), (b"GET", b"/a?b=c"))
        self.assertEqual(request.head.headers, [(b"Host", b"a"), (b"X-Y", b"z")])
        self.assertEqual((request.door, request.has_body, request.upgrade), ("the door", False, False))
        self.assertFalse(side.wire.is_closed)

    def test_absolute_form(self) -> None:
        """
        A target in absolute form is reduced to path and query.
        """
        forms = {b"http://a/b?c": b"/b?c", b"http://a": b"/", b"HTTPS://a:1/": b"/", b"http://a?b=/c": b"/?b=/c"}
        for target, path in forms.items():
            side = ServerSide(hello)
            side.feed(get(target))
            self.assertEqual(side.requests[0].head.target, path)

    def test_bodies(self) -> None:
        """
        Bodies with a length and chunked ones arrive whole, trailers with them.
        """
        side = ServerSide(echo)
        self.assertTrue(side.feed(post(b"abc")).endswith(b"POST /p abc"))
        chunked = b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\nT: u\r\n\r\n"
        self.assertTrue(side.feed(chunked).endswith(b"POST /p abcT=u"))
        self.assertTrue(side.feed(get()).endswith(b"GET / "))

    def test_head(self) -> None:
        """
        HEAD gets the headers of GET and no body, whole or streamed.
        """
        side = ServerSide(hello)
        self.assertTrue(side.feed(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").endswith(b"Content-Length: 5\r\n\r\n"))
        side = ServerSide()
        side.feed(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        side.requests[0].start(ResponseHead(200, b"OK", [(b"Content-Length", b"5")]))
        side.requests[0].finish()
        self.assertTrue(side.take().endswith(b"Content-Length: 5\r\n\r\n"))
        self.assertFalse(side.wire.is_closed)

    def test_no_content(self) -> None:
        """
        204 and 304 carry neither body nor framing.
        """
        for status in (204, 304):
            side = ServerSide(lambda request, status=status: request.respond(status, [], b"x"))  # type: ignore[misc]
            self.assertTrue(side.feed(get()).endswith(b"\r\n\r\n"))
            side = ServerSide()
            side.feed(get())
            side.requests[0].start(ResponseHead(status, b"", []))
            side.requests[0].finish()
            answer = side.take()
            self.assertNotIn(b"ransfer", answer)
            self.assertTrue(answer.endswith(b"\r\n\r\n"))

    def test_http10(self) -> None:
        """
        HTTP/1.0 gets a body up to the end of the connection, and keep-alive only where it asks and a length allows it.
        """
        side = ServerSide()
        side.feed(b"GET / HTTP/1.0\r\n\r\n")
        side.requests[0].start(ResponseHead(200, b"OK"))
        side.requests[0].write(b"abc")
        side.requests[0].finish()
        self.assertEqual(side.take(), b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc")
        self.assertTrue(side.wire.is_closed)
        side = ServerSide(hello)
        answer = side.feed(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        self.assertIn(b"Connection: keep-alive\r\n", answer)
        self.assertFalse(side.wire.is_closed)

    def test_close(self) -> None:
        """
        ``Connection: close`` is honoured and answered, and nothing behind it is looked at.
        """
        side = ServerSide(hello)
        answer = side.feed(get(b"/", b"Connection: close") + b"\x00garbage" + get())
        self.assertEqual(answer.count(b"HTTP/1.1 "), 1)
        self.assertIn(b"Connection: close\r\n", answer)
        self.assertTrue(side.wire.is_closed)

    def test_streamed(self) -> None:
        """
        A streamed response is chunked, with trailers, without the hop-by-hop headers of its head.
        """
        side = ServerSide()
        side.feed(get())
        request = side.requests[0]
        hop = [(b"Connection", b"X-Drop"), (b"X-Drop", b"1"), (b"Keep-Alive", b"5"), (b"Transfer-Encoding", b"chunked")]
        request.start(ResponseHead(200, b"Fine", [*hop, (b"X-Keep", b"2")]))
        request.write(b"abc")
        request.write(b"")
        request.write(b"0123456789abcdef")
        request.finish([(b"T", b"u")])
        head, _, body = side.take().partition(b"\r\n\r\n")
        self.assertEqual(head, b"HTTP/1.1 200 Fine\r\nX-Keep: 2\r\nTransfer-Encoding: chunked")
        self.assertEqual(body, b"3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nT: u\r\n\r\n")
        self.assertFalse(side.wire.is_closed)

    def test_wrong_length(self) -> None:
        """
        A response that is longer or shorter than its Content-Length cuts the connection, so that the client sees it.
        """
        for body in (b"ab", b"abcd"):
            side = ServerSide()
            side.feed(get())
            side.requests[0].start(ResponseHead(200, b"OK", [(b"Content-Length", b"3")]))
            side.requests[0].write(body)
            side.requests[0].finish()
            self.assertTrue(side.wire.aborted)
            self.assertNotIn(b"abcd", side.take())

    def test_header_injection(self) -> None:
        """
        A header with a line end is refused before anything is sent.
        """
        side = ServerSide()
        side.feed(get())
        for value in (b"a\r\nX: y", b"a\nX: y", b"a\r"):
            self.assertRaises(ValueError, side.requests[0].respond, 200, [(b"A", value)], b"")
            self.assertRaises(ValueError, side.requests[0].start, ResponseHead(200, b"OK", [(b"A", value)]))
        self.assertEqual(side.take(), b"")
        side.requests[0].respond(200, [], b"")
        self.assertIn(b"200 OK", side.take())

    def test_failing_application(self) -> None:
        """
        An application that raises gets its client a 500 with a Status, and is logged.
        """

        def fail(request: IncomingRequest) -> None:
            raise ZeroDivisionError

        side = ServerSide(fail)
        answer = side.feed(get(b"/a?token=secret"))
        self.assertTrue(answer.startswith(b"HTTP/1.1 500 "))
        self.assertIn(b'"reason": "InternalError"', answer)
        self.assertTrue(side.wire.is_closed)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_declined_upgrade(self) -> None:
        """
        After an upgrade that the application answers otherwise, the connection goes on; with early bytes it closes.
        """
        upgrade = get(b"/", b"Connection: Upgrade", b"Upgrade: SPDY/3.1")
        side = ServerSide(hello)
        side.feed(upgrade)
        self.assertTrue(side.requests[0].upgrade)
        self.assertIn(b"hello", side.feed(get()))
        side = ServerSide(hello)
        side.feed(upgrade + b"early")
        self.assertTrue(side.wire.is_closed)

    def test_upgrade_with_body(self) -> None:
        """
        A request with a body, or that only offers HTTP/2, is served as if it had offered nothing.
        """
        for offer in (b"h2c", b"websocket"):
            side = ServerSide(echo)
            answer = side.feed(post(b"abc", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: " + offer) + get(b"/2"))
            self.assertFalse(side.requests[0].upgrade)
            self.assertIn(b"POST /p abc", answer)
            self.assertIn(b"GET /2", answer)
        side = ServerSide(hello)
        side.feed(get(b"/", b"Connection: Upgrade", b"Upgrade: h2c"))
        self.assertFalse(side.requests[0].upgrade)

    def test_empty_post_may_upgrade(self) -> None:
        """
        ``kubectl exec`` asks with a POST whose Content-Length is 0.
        """
        side = ServerSide()
        side.feed(post(b"", b"Connection: Upgrade", b"Upgrade: SPDY/3.1"))
        self.assertTrue(side.requests[0].upgrade)
        self.assertFalse(side.requests[0].has_body)


class ContinueTests(SynchronousTestCase):
    """
    ``Expect: 100-continue``.
    """

    request = b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"

    def test_read(self) -> None:
        """
        The 100 goes out when the application reads the body.
        """
        side = ServerSide()
        self.assertEqual(side.feed(self.request), b"")
        echo(side.requests[0])
        self.assertEqual(side.take(), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertTrue(side.feed(b"abc").endswith(b"POST /p abc"))
        self.assertFalse(side.wire.is_closed)

    def test_refused(self) -> None:
        """
        It does not when the application refuses; the connection ends, since the body may come or not.
        """
        side = ServerSide(lambda request: request.respond(403, [], b"no"))
        answer = side.feed(self.request)
        self.assertTrue(answer.startswith(b"HTTP/1.1 403 "))
        self.assertNotIn(b"100", answer)
        self.assertIn(b"Connection: close", answer)
        self.assertTrue(side.wire.is_closed)

    def test_once(self) -> None:
        """
        A 100 from elsewhere is not doubled; other interim responses are passed on.
        """
        side = ServerSide()
        side.feed(self.request)
        echo(side.requests[0])
        side.requests[0].interim(ResponseHead(100, b"Continue"))
        side.requests[0].interim(ResponseHead(103, b"Early Hints", [(b"Link", b"x")]))
        self.assertEqual(side.take().count(b"HTTP/1.1 10"), 2)

    def test_body_already_there(self) -> None:
        """
        A client that does not wait gets no 100.
        """
        side = ServerSide(echo)
        self.assertNotIn(b"100 Continue", side.feed(self.request + b"abc"))


class PipeliningTests(SynchronousTestCase):
    """
    Several requests ahead of their answers.
    """

    def test_in_order(self) -> None:
        """
        One request at a time reaches the application; answers leave in order; reading stops while requests wait.
        """
        side = ServerSide()
        side.feed(get(b"/1") + get(b"/2") + post(b"xyz"))
        self.assertEqual(len(side.requests), 1)
        self.assertFalse(side.wire.reading)
        hello(side.requests[0])
        self.assertEqual(len(side.requests), 2)
        hello(side.requests[1])
        echo(side.requests[2])
        answer = side.take()
        self.assertLess(answer.index(b"/1"), answer.index(b"/2"))
        self.assertIn(b"POST /p xyz", answer)
        self.assertTrue(side.wire.reading)

    def test_many_at_once(self) -> None:
        """
        Thousands of requests in one read need no deep stack.
        """
        side = ServerSide(hello)
        self.assertEqual(side.feed(get() * 5000).count(b"hello"), 5000)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(1, 300), max_size=12))
    def test_any_split(self, cuts: list[int]) -> None:
        """
        However the bytes are cut, the answers are the same.
        """
        chunked = b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nT: u\r\n\r\n"
        data = get(b"/1", b"X: " + b"y" * 40) + post(b"abc" * 20) + chunked + get(b"/2")
        whole = ServerSide(echo).feed(data)
        self.assertEqual(whole.count(b"200 OK"), 4)
        pieces = []
        at = 0
        for cut in cuts:
            pieces.append(data[at : at + cut])
            at += cut
        self.assertEqual(ServerSide(echo).feed(*pieces, data[at:]), whole)

    def test_byte_by_byte(self) -> None:
        """
        The same one byte at a time.
        """
        data = get(b"/1") + post(b"abc") + get(b"/2")
        self.assertEqual(ServerSide(echo).feed(*[bytes([byte]) for byte in data]), ServerSide(echo).feed(data))


class FlowTests(SynchronousTestCase):
    """
    Nobody is flooded.
    """

    def test_body_waits_for_reader(self) -> None:
        """
        Until the application reads the body, what arrives is held and nothing more is read.
        """
        side = ServerSide()
        side.feed(post(b"x" * 1000)[:-900])
        self.assertFalse(side.wire.reading)
        body = Recorder()
        side.requests[0].read_body(body)
        self.assertEqual(len(body.body), 100)
        self.assertTrue(side.wire.reading)

    def test_body_paused(self) -> None:
        """
        The reader of the body holds the client back.
        """
        side = ServerSide()
        side.feed(post(b"x" * 1000)[:-900])
        source = side.requests[0].read_body(Recorder())
        source.pause()
        self.assertFalse(side.wire.reading)
        source.resume()
        self.assertTrue(side.wire.reading)

    def test_response_source(self) -> None:
        """
        The source of the response is held back while the client does not read, also one that comes late.
        """
        side = ServerSide()
        side.feed(get())
        first, second = Recorder(), Recorder()
        side.requests[0].produce_from(first)
        side.connection.pauseProducing()
        self.assertTrue(first.paused)
        side.requests[0].produce_from(second)
        self.assertTrue(second.paused)
        side.connection.resumeProducing()
        self.assertFalse(second.paused)

    def test_answers_do_not_pile_up(self) -> None:
        """
        While the client does not read, requests that wait are not taken up; they are when it reads again, also after it
        ended its direction, and a client that never does is dropped in time.
        """
        side = ServerSide(hello, ServerLimits(idle_timeout=10))
        side.connection.pauseProducing()
        self.assertEqual(side.feed(get() + get()), b"")
        self.assertFalse(side.wire.reading)
        side.connection.resumeProducing()
        self.assertEqual(side.take().count(b"hello"), 2)
        self.assertTrue(side.wire.reading)
        side.connection.pauseProducing()
        side.feed(get())
        side.connection.readConnectionLost()
        self.assertFalse(side.wire.is_closed)
        side.connection.resumeProducing()
        self.assertEqual(side.take().count(b"hello"), 1)
        self.assertTrue(side.wire.is_closed)
        side.connect()
        side.connection.pauseProducing()
        side.feed(get())
        side.clock.advance(10)
        self.assertTrue(side.wire.is_closed)


class EndTests(SynchronousTestCase):
    """
    Clients that leave, and connections that end.
    """

    def test_client_gone(self) -> None:
        """
        The application hears once that its client hung up, and may go on calling without effect.
        """
        side = ServerSide()
        side.feed(get())
        lost: list[int] = []
        request = side.requests[0]
        request.when_lost(lambda: lost.append(1))
        side.lose()
        self.assertEqual(lost, [1])
        request.when_lost(lambda: lost.append(2))
        self.assertEqual(lost, [1, 2])
        request.start(ResponseHead(200, b"OK"))
        request.write(b"x")
        request.finish()
        request.respond(200, [], b"")
        request.abort()
        self.assertEqual(side.take(), b"")

    def test_not_told_after_response(self) -> None:
        """
        It hears nothing when its response was whole, or it cut the connection itself.
        """
        for answer in (hello, lambda request: request.abort()):
            side = ServerSide()
            side.feed(get())
            lost: list[int] = []
            side.requests[0].when_lost(lambda lost=lost: lost.append(1))  # type: ignore[misc]
            answer(side.requests[0])
            side.lose()
            self.assertEqual(lost, [])

    def test_half_close(self) -> None:
        """
        A client that ends its direction after the request still gets the answer, and then the end.
        """
        side = ServerSide()
        side.feed(get(b"/1") + get(b"/2"))
        side.connection.readConnectionLost()
        hello(side.requests[0])
        hello(side.requests[1])
        self.assertEqual(side.take().count(b"hello"), 2)
        self.assertTrue(side.wire.is_closed)

    def test_half_closed_and_silent(self) -> None:
        """
        It cannot be told from one that left, so without a byte for it the answer is given up after a while.
        """
        side = ServerSide(limits=ServerLimits(half_closed_timeout=30))
        side.feed(get())
        side.connection.readConnectionLost()
        side.requests[0].start(ResponseHead(200, b"OK"))
        side.clock.advance(20)
        side.requests[0].write(b"x")
        side.clock.advance(20)
        self.assertFalse(side.wire.aborted)
        side.clock.advance(11)
        self.assertTrue(side.wire.aborted)

    def test_half_closed_and_silent_sooner(self) -> None:
        """
        Who asks to be told of a hang-up may want to wait less long for a client that only ended its direction.
        """
        side = ServerSide(limits=ServerLimits(half_closed_timeout=30))
        side.feed(get())
        lost: list[int] = []
        side.requests[0].when_lost(lambda: lost.append(1), half_closed=1)
        side.connection.readConnectionLost()
        side.requests[0].start(ResponseHead(200, b"OK"))
        side.clock.advance(0.9)
        side.requests[0].write(b"x")
        side.clock.advance(0.9)
        self.assertEqual((side.wire.aborted, lost), (False, []))
        side.clock.advance(0.2)
        self.assertTrue(side.wire.aborted)

    def test_half_close_in_body(self) -> None:
        """
        Half a request and then the end is none: 400, after the answers to those before it, and the application hears of it.
        """
        for half in (post(b"abc")[:-1], b"POST /p HTT", get()[:-1]):
            side = ServerSide(hello)
            side.connection.pauseProducing()
            side.feed(get() + half)
            side.connection.readConnectionLost()
            side.connection.resumeProducing()
            answer = side.take()
            self.assertEqual(answer.count(b"HTTP/1.1 200 OK"), 1, half)
            self.assertIn(b"HTTP/1.1 400 Bad Request", answer)
            self.assertIn(b"ended too early", answer)
            self.assertTrue(side.wire.is_closed)
        side = ServerSide()
        lost: list[int] = []
        side.feed(post(b"abc")[:-1])
        side.requests[0].read_body(Recorder())
        side.requests[0].when_lost(lambda: lost.append(1))
        side.connection.readConnectionLost()
        self.assertTrue(side.take().startswith(b"HTTP/1.1 400 "))
        self.assertEqual((lost, side.wire.is_closed), ([1], True))

    def test_half_close_under_an_answer(self) -> None:
        """
        Where the answer has begun, half a body cuts it; empty lines after a request are nothing.
        """
        side = ServerSide()
        side.feed(post(b"abc")[:-1])
        side.requests[0].start(ResponseHead(200, b"OK"))
        side.connection.readConnectionLost()
        self.assertTrue(side.wire.aborted)
        side = ServerSide(hello)
        answer = side.feed(get() + b"\r\n\r\n")
        side.connection.readConnectionLost()
        self.assertEqual((answer + side.take()).count(b"HTTP/1.1 "), 1)

    def test_asterisk(self) -> None:
        """
        OPTIONS * asks after the server itself, which is there.
        """
        side = ServerSide()
        answer = side.feed(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", get())
        self.assertEqual(answer, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual([request.head.target for request in side.requests], [b"/"])

    def test_half_close_idle(self) -> None:
        """
        Without a request it is the end.
        """
        side = ServerSide()
        side.connection.readConnectionLost()
        self.assertTrue(side.wire.is_closed)

    def test_early_response(self) -> None:
        """
        A response before the end of the request body ends the connection, which goes on reading for a bounded while so that
        the client gets to see it.
        """
        side = ServerSide(limits=ServerLimits(linger_timeout=5, linger_bytes=2000))
        side.feed(post(b"x" * 100000)[:-99000])
        side.requests[0].respond(413, [], b"too much")
        self.assertIn(b"Connection: close", side.take())
        self.assertTrue(side.wire.write_ended)
        self.assertTrue(side.wire.reading)
        self.assertFalse(side.wire.aborted)
        side.feed(b"x" * 1000)
        self.assertFalse(side.wire.aborted)
        side.feed(b"x" * 1001)
        self.assertTrue(side.wire.aborted)

    def test_lingering_ends(self) -> None:
        """
        Nor does a closing connection stay for ever.
        """
        side = ServerSide(limits=ServerLimits(linger_timeout=5))
        side.feed(b"\x00")
        self.assertFalse(side.wire.aborted)
        side.clock.advance(5)
        self.assertTrue(side.wire.aborted)

    def test_idle_timeout(self) -> None:
        """
        A connection without a request is closed in time; each request gives it new time; a running one needs none.
        """
        side = ServerSide(limits=ServerLimits(idle_timeout=10))
        side.clock.advance(8)
        side.feed(get())
        side.clock.advance(1000)
        self.assertFalse(side.wire.is_closed)
        hello(side.requests[0])
        side.clock.advance(9)
        self.assertFalse(side.wire.is_closed)
        side.clock.advance(1)
        self.assertTrue(side.wire.is_closed)

    def test_first_timeout(self) -> None:
        """
        Where strangers may connect a connection that never asked for anything is closed sooner than one that did.
        """
        side = ServerSide(limits=ServerLimits(first_timeout=5, idle_timeout=10))
        side.clock.advance(4)
        side.feed(get())
        hello(side.requests[0])
        side.clock.advance(9)
        self.assertFalse(side.wire.is_closed)
        silent = ServerSide(limits=ServerLimits(first_timeout=5, idle_timeout=10))
        silent.clock.advance(5)
        self.assertTrue(silent.wire.is_closed)

    def test_body_stands_still(self) -> None:
        """
        A body that is wanted and does not come is 408 after a while, and the application hears that its client is lost; while
        the body is held back, is not wanted yet, or moves, its client has time.
        """
        side = ServerSide(limits=ServerLimits(body_timeout=10, body_min_bytes=4, linger_timeout=5))
        side.feed(post(b"x" * 100)[:-99])
        side.clock.advance(1000)
        request, taken, lost = side.requests[0], Recorder(), []
        request.when_lost(lambda: lost.append(1))
        flow = request.read_body(taken)
        for _ in range(5):
            side.clock.advance(9)
            side.feed(b"xxxx")
        flow.pause()
        side.clock.advance(1000)
        flow.resume()
        side.clock.advance(9)
        self.assertEqual((side.take(), lost), (b"", []))
        side.clock.advance(1)
        self.assertTrue(side.take().startswith(b"HTTP/1.1 408 Request Timeout\r\n"))
        self.assertEqual((lost, taken.body, side.wire.write_ended), ([1], b"x" * 21, True))
        side.clock.advance(5)
        self.assertTrue(side.wire.aborted)

    def test_body_trickles(self) -> None:
        """
        A body that comes in drops keeps its place no longer than one that stands still, however often it is held back meanwhile.
        """
        side = ServerSide(limits=ServerLimits(body_timeout=10, body_min_bytes=4))
        side.feed(post(b"x" * 100)[:-100])
        flow = side.requests[0].read_body(Recorder())
        for _ in range(3):
            side.clock.advance(3)
            side.feed(b"x")
            flow.pause()
            side.clock.advance(1000)
            flow.resume()
        self.assertEqual(side.take(), b"")
        side.clock.advance(1)
        answer = side.take()
        self.assertTrue(answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n"), answer)
        self.assertIn(b"fewer than 4 bytes of the request body came within 10 s", answer)

    def test_held_back_as_it_comes(self) -> None:
        """
        What came of a body before it was held back counts when it is wanted again.
        """
        side = ServerSide(limits=ServerLimits(body_timeout=10, body_min_bytes=4))
        side.feed(post(b"x" * 100)[:-100])
        flow = side.requests[0].read_body(Recorder())
        side.clock.advance(9)
        flow.pause()
        side.feed(b"xxxx")
        flow.resume()
        side.clock.advance(9)
        self.assertEqual(side.take(), b"")

    def test_each_body_has_its_time(self) -> None:
        """
        The time that one request's body took is not taken from the next one's.
        """
        side = ServerSide(echo, ServerLimits(body_timeout=10, body_min_bytes=4))
        for _ in range(3):
            request = post(b"xx")
            side.feed(request[:-1])
            side.clock.advance(9)
            self.assertTrue(side.feed(b"x").endswith(b"POST /p xx"))

    def test_body_stands_still_under_an_answer(self) -> None:
        """
        Once the answer has begun there is no other one to give: the connection is cut.  A whole body has no deadline.
        """
        for missing in (1, 0):
            side = ServerSide(limits=ServerLimits(body_timeout=10))
            data = post(b"x" * 100)
            side.feed(data[: len(data) - 1])
            side.requests[0].read_body(Recorder())
            side.requests[0].start(ResponseHead(200, b"OK"))
            side.clock.advance(9)
            side.feed(data[len(data) - 1 + missing :])
            side.clock.advance(9 + missing)
            self.assertEqual(side.wire.aborted, bool(missing))

    def test_slow_head(self) -> None:
        """
        A head that trickles in is 408 and the end, however often a byte comes; a client that stays after that is cut off.
        """
        side = ServerSide(hello, ServerLimits(head_timeout=5, idle_timeout=100, linger_timeout=5))
        for byte in b"GET /":
            side.feed(bytes([byte]))
            side.clock.advance(1)
        answer = side.take()
        self.assertTrue(answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n"), answer)
        self.assertIn(b'"reason":"Timeout"', answer.replace(b": ", b":"))
        self.assertEqual((side.wire.write_ended, side.wire.aborted), (True, False))
        side.clock.advance(5)
        self.assertTrue(side.wire.aborted)


class FactoryTests(SynchronousTestCase):
    """
    All connections of a listener.
    """

    def test_too_many(self) -> None:
        """
        While all are busy, one connection too many gets 503 and the end; when one leaves, another may come.
        """
        side = ServerSide(limits=ServerLimits(max_connections=1))
        first = side.connection
        side.feed(get())
        side.connect()
        self.assertTrue(side.take().startswith(b"HTTP/1.1 503 "))
        self.assertTrue(side.wire.is_closed)
        side.lose()
        side.connection = first
        side.lose()
        side.connect()
        side.feed(get())
        self.assertEqual(len(side.requests), 2)

    def test_far_too_many(self) -> None:
        """
        Of far more than that the first that were told are cut; they take no place of those that come when there is one.
        """
        side = ServerSide(limits=ServerLimits(max_connections=1))
        side.feed(get())
        told = []
        for _ in range(side.factory.SPARE_CONNECTIONS + 10):
            side.connect()
            told.append(side.wire)
        self.assertEqual([wire.aborted for wire in told], [number < 10 for number in range(len(told))])
        self.assertEqual(len(side.factory.connections), 1 + side.factory.SPARE_CONNECTIONS)
        hello(side.requests[0])
        side.connect()
        self.assertFalse(side.connection.refused)

    def test_silent_ones_make_room(self) -> None:
        """
        Whoever holds connections open and asks nothing keeps nobody out: the oldest such goes, never one that has asked.
        """
        side = ServerSide(hello, ServerLimits(max_connections=2))
        side.feed(get())
        asked = side.wire
        side.connect()
        silent = side.wire
        for _ in range(10 * side.factory.SPARE_CONNECTIONS):
            side.connect()
        self.assertEqual((asked.aborted, silent.aborted, side.wire.aborted), (False, True, False))
        self.assertIn(b"hello", side.feed(get()))
        self.assertEqual((len(side.factory.connections), len(side.factory.silent)), (2, 0))

    def test_idle_ones_make_room(self) -> None:
        """
        Whoever has asked once and holds its connection open keeps nobody out either: what has been idle for longest goes, after
        those that have asked nothing; never one whose answer is not given yet, or not read.
        """
        side = ServerSide(limits=ServerLimits(max_connections=4))
        side.feed(get())
        busy = side.wire
        side.connect()
        side.feed(get())
        side.connection.pauseProducing()
        hello(side.requests[1])
        reading, unread = side.connection, side.wire
        idle = []
        for _ in range(2):
            side.connect()
            side.feed(get())
            hello(side.requests[-1])
            idle.append(side.wire)
        side.connect()
        self.assertEqual([wire.aborted for wire in (busy, unread, *idle)], [False, False, True, False])
        silent = side.wire
        side.connect()
        self.assertEqual([wire.aborted for wire in (busy, unread, *idle, silent)], [False, False, True, False, True])
        side.feed(get())
        side.connect()
        self.assertTrue(idle[1].aborted)
        side.feed(b"nonsense")
        refused = side.wire
        side.connect()
        self.assertEqual((refused.aborted, side.connection.refused), (False, False), "who has had its answer takes no place")
        side.feed(get())
        reading.resumeProducing()
        side.connect()
        self.assertEqual((busy.aborted, unread.aborted, side.connection.refused), (False, True, False))

    def test_drain(self) -> None:
        """
        Draining closes idle connections now, others after their answer, and fires when none is left.
        """
        side = ServerSide()
        idle, idle_wire = side.connection, side.wire
        side.connect()
        side.feed(get())
        drained = side.factory.drain(10)
        self.assertTrue(idle_wire.is_closed)
        self.assertFalse(side.wire.is_closed)
        hello(side.requests[0])
        self.assertIn(b"Connection: close", side.take())
        self.assertTrue(side.wire.is_closed)
        side.lose()
        self.assertNoResult(drained)
        side.connection = idle
        side.lose()
        self.assertIsNone(self.successResultOf(drained))
        self.assertFalse(side.clock.getDelayedCalls())

    def test_drain_is_bounded(self) -> None:
        """
        When the time is over, a request that has no answer yet gets 503 and the end, and its client, also one that still sends,
        some time to read it; one under its answer is cut.
        """
        side = ServerSide()
        side.feed(get())
        started, started_wire = side.connection, side.wire
        side.requests[0].start(ResponseHead(200, b"OK"))
        side.connect()
        lost: list[int] = []
        side.feed(post(b"x" * 10000)[:-9000])
        side.requests[1].when_lost(lambda: lost.append(1))
        drained = side.factory.drain(10)
        side.clock.advance(10)
        self.assertTrue(started_wire.aborted)
        answer = side.take()
        self.assertTrue(answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n"), answer)
        self.assertIn(b"\r\nConnection: close\r\n", answer)
        self.assertIn(b'"kind": "Status"', answer)
        self.assertEqual((lost, side.wire.write_ended, side.wire.aborted), ([1], True, False))
        side.feed(b"x" * 8000)
        self.assertEqual((side.wire.reading, side.wire.aborted), (True, False))
        side.clock.advance(LAST_WORDS_TIMEOUT)
        self.assertTrue(side.wire.aborted)
        side.lose()
        self.assertNoResult(drained)
        side.connection = started
        side.lose()
        self.successResultOf(drained)
        self.assertFalse(side.clock.getDelayedCalls())

    def test_drained_by_last_words(self) -> None:
        """
        Clients that leave once they have read their 503 are not waited for any longer.
        """
        side = ServerSide()
        side.feed(get())
        drained = side.factory.drain(10)
        side.clock.advance(10)
        self.assertIn(b"503 Service Unavailable", side.take())
        side.lose()
        self.successResultOf(drained)
        self.assertFalse(side.clock.getDelayedCalls())

    def test_drain_of_nothing(self) -> None:
        """
        Without connections it fires at once.
        """
        side = ServerSide()
        side.lose()
        self.successResultOf(side.factory.drain(10))


class ConnectTests(SynchronousTestCase):
    """
    CONNECT, where the application takes it.
    """

    CONNECT = b"CONNECT 10.0.0.8:10250 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

    def test_accepted(self) -> None:
        """
        The application sees host and port as the target; after its 200 the connection is bytes, early ones first.
        """
        side = ServerSide(takes_connect=True)
        side.feed(self.CONNECT + b"early ")
        request = side.requests[0]
        self.assertEqual((request.head.method, request.head.target), (b"CONNECT", b"10.0.0.8:10250"))
        self.assertTrue(request.upgrade)
        stream, taken = request.accept_upgrade(ResponseHead(200, b"OK")), Recorder()
        self.assertEqual(side.take(), b"HTTP/1.1 200 OK\r\n\r\n")
        stream.attach(taken, None)
        side.feed(b"late")
        stream.write(b"back")
        self.assertEqual((taken.body, side.take()), (b"early late", b"back"))

    def test_refused(self) -> None:
        """
        A refusal is an ordinary answer; the connection goes on, unless the client did not wait for it.
        """
        side = ServerSide(takes_connect=True)
        side.feed(self.CONNECT)
        side.requests[0].respond(502, [], b"no")
        self.assertTrue(side.take().startswith(b"HTTP/1.1 502 "))
        side.feed(get(b"/next"))
        self.assertEqual(side.requests[1].head.target, b"/next")
        side = ServerSide(takes_connect=True)
        side.feed(self.CONNECT + b"early")
        side.requests[0].respond(502, [], b"no")
        self.assertTrue(side.wire.is_closed)

    def test_in_pieces(self) -> None:
        """
        The same when it comes byte by byte; an Upgrade header changes nothing.
        """
        side = ServerSide(takes_connect=True)
        side.feed(*[bytes([byte]) for byte in self.CONNECT[:-2] + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"])
        self.assertEqual([request.head.target for request in side.requests], [b"10.0.0.8:10250"])
        self.assertTrue(side.requests[0].upgrade)

    def test_body(self) -> None:
        """
        A CONNECT with a body is malformed: nobody could tell the body from what follows.
        """
        for field in (b"Content-Length: 3", b"Transfer-Encoding: chunked"):
            side = ServerSide(takes_connect=True)
            answer = side.feed(self.CONNECT[:-2] + field + b"\r\n\r\nabc")
            self.assertTrue(answer.startswith(b"HTTP/1.1 400 "))
            self.assertEqual(side.requests, [])
