"""
Promises of the HTTP server about one request and its response.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.http.memory import Recorder, ServerSide, echo, get, hello, post
from yurt.http.interfaces import IncomingRequest, ResponseHead


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
        A target in absolute form is reduced to path and query; the host in it goes before that in Host.
        """
        forms = {
            b"http://b/b?c": (b"/b?c", b"b"),
            b"http://b": (b"/", b"b"),
            b"HTTPS://b:1/": (b"/", b"b:1"),
            b"http://b?b=/c": (b"/?b=/c", b"b"),
            b"http://user@[::1]:9/@": (b"/@", b"[::1]:9"),
        }
        for target, (path, host) in forms.items():
            side = ServerSide(hello)
            side.feed(get(target, b"X-Y: z"))
            self.assertEqual(side.requests[0].head.target, path)
            self.assertEqual(side.requests[0].head.headers, [(b"Host", host), (b"X-Y", b"z")])

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
