"""
Promises of the HTTP server about the requests of one connection, and its end.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.http.memory import Recorder, ServerSide, echo, get, hello, post
from yurt.http.interfaces import ResponseHead
from yurt.http.limits import ServerLimits


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
