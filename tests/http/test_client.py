"""
Promises of the pooled client, against connections in memory.
"""

from __future__ import annotations

from errno import EMFILE
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectBindError, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.http.memory import MemoryWire, Recorder
from yurt.http.client import HTTPUpstream
from yurt.http.client_connection import ClientConnection
from yurt.http.interfaces import Exchange, Headers, RequestHead, ResponseHead
from yurt.http.limits import ClientLimits

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Site:
    """
    An upstream whose connections the test answers by hand.
    """

    def __init__(self, limits: ClientLimits = ClientLimits(), url: str = "http://10.0.0.1:6443") -> None:
        self.reactor: Any = MemoryReactorClock()
        self.upstream = HTTPUpstream(self.reactor, url, None, limits=limits)
        self.wires: list[MemoryWire] = []
        self.connections: list[ClientConnection] = []

    def send(self, method: bytes = b"GET", headers: Headers | None = None, **how: bool) -> tuple[Exchange, Recorder]:
        """
        Send a request.
        """
        receiver = Recorder()
        return self.upstream.send(RequestHead(method, b"/x", headers or []), receiver, **how), receiver

    def accept(self) -> MemoryWire:
        """
        Let the last dial succeed.
        """
        factory = self.reactor.tcpClients[-1][2]
        protocol = factory.buildProtocol(None)
        wire = MemoryWire()
        protocol.makeConnection(wire)
        self.connections.append(protocol._wrappedProtocol)
        self.wires.append(wire)
        return wire

    def receive(self, *pieces: bytes) -> None:
        """
        Let the server of the last connection send.
        """
        for piece in pieces:
            self.connections[-1].dataReceived(piece)

    def lose(self, reason: Exception | None = None) -> None:
        """
        Lose the last connection.
        """
        self.connections[-1].connectionLost(Failure(reason or ConnectionLost()))

    @property
    def dials(self) -> int:
        """
        How many connections were asked for.
        """
        return len(self.reactor.tcpClients)


@implementer(IStreamClientEndpoint)
class Dials:
    """
    An endpoint that keeps what it was asked.
    """

    def __init__(self) -> None:
        self.dialled: list[Deferred[IProtocol]] = []
        self.cancelled: list[Deferred[IProtocol]] = []

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        self.dialled.append(Deferred(self.cancelled.append))
        return self.dialled[-1]


class ResponseTests(SynchronousTestCase):
    """
    What the receiver is told.
    """

    def check(self, pieces: list[bytes], body: bytes = b"hello", method: bytes = b"GET") -> tuple[Site, Recorder]:
        site = Site()
        _, receiver = site.send(method)
        site.accept()
        site.receive(*pieces)
        self.assertEqual(receiver.body, body)
        self.assertIsNotNone(receiver.head)
        return site, receiver

    def test_length(self) -> None:
        """
        A response with a length is told in three calls, and the connection is used again.
        """
        site, receiver = self.check([OK])
        self.assertEqual(receiver.events, ["head", "data", "finished"])
        self.assertEqual(receiver.head, ResponseHead(200, b"OK", [(b"Content-Length", b"5")]))
        _, again = site.send()
        self.assertEqual(site.dials, 1)
        site.receive(OK)
        self.assertEqual(again.body, b"hello")

    def test_chunked(self) -> None:
        """
        A chunked one is told without its framing, with its trailers; chunks of one read come together.
        """
        data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;a=b\r\nllo\r\n0\r\nT: u\r\n\r\n"
        site, receiver = self.check([data])
        self.assertEqual(receiver.events, ["head", "data", "finished"])
        self.assertEqual(receiver.finished, [(b"T", b"u")])
        self.assertEqual(site.upstream.open_connections, 1)

    def test_until_close(self) -> None:
        """
        A body without a length ends with the connection, if that ends orderly.
        """
        site, receiver = self.check([b"HTTP/1.1 200 OK\r\n\r\nhe", b"llo"])
        self.assertIsNone(receiver.finished)
        site.connections[-1].readConnectionLost()
        self.assertEqual(receiver.finished, [])
        site, receiver = self.check([b"HTTP/1.1 200 OK\r\n\r\nhello"])
        site.lose(ConnectionLost())
        self.assertIsNotNone(receiver.error)
        site, receiver = self.check([b"HTTP/1.1 200 OK\r\n\r\nhello"])
        site.lose(ConnectionDone())
        self.assertEqual(receiver.finished, [])

    def test_head(self) -> None:
        """
        A response to HEAD ends with its head, whatever length it tells, and the connection is used again.
        """
        for fields in (b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b""):
            site, receiver = self.check([b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n"], b"", b"HEAD")
            self.assertEqual(receiver.finished, [])
            _, again = site.send()
            self.assertEqual(site.dials, 1)
            site.receive(OK)
            self.assertEqual(again.body, b"hello")

    def test_no_content(self) -> None:
        """
        So do 204 and 304.
        """
        for status in (b"204", b"304"):
            for fields in (b"", b"Content-Length: 5\r\n"):
                site, receiver = self.check([b"HTTP/1.1 " + status + b" X\r\n" + fields + b"\r\n"], b"")
                self.assertEqual(receiver.finished, [])
                self.assertEqual(site.upstream.open_connections, 1)
                _, again = site.send()
                site.receive(OK)
                self.assertEqual(again.body, b"hello")

    def test_interim(self) -> None:
        """
        Interim responses are told apart from the response, with their own headers.
        """
        hints = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        _, receiver = self.check([b"HTTP/1.1 100 Continue\r\n\r\n" + hints + OK])
        self.assertEqual(receiver.interims, [100, 103])
        self.assertEqual(receiver.head, ResponseHead(200, b"OK", [(b"Content-Length", b"5")]))

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(1, 60), max_size=12), st.booleans())
    def test_any_split(self, cuts: list[int], head: bool) -> None:
        """
        However the bytes are cut, the receiver gets the same.
        """
        body = b"2\r\nhe\r\n3\r\nllo\r\n0\r\nT: u\r\n\r\n"
        fine = b"HTTP/1.1 200 Fine\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n"
        data = b"HTTP/1.1 100 C\r\nA: b\r\n\r\n" + fine + (b"" if head else body)
        pieces = []
        at = 0
        for cut in cuts:
            pieces.append(data[at : at + cut])
            at += cut
        pieces.append(data[at:])
        _, receiver = self.check([piece for piece in pieces if piece], b"" if head else b"hello", b"HEAD" if head else b"GET")
        self.assertEqual(receiver.head, ResponseHead(200, b"Fine", [(b"X", b"y"), (b"Transfer-Encoding", b"chunked")]))
        self.assertEqual(receiver.finished, [] if head else [(b"T", b"u")])

    def test_byte_by_byte(self) -> None:
        """
        The same one byte at a time.
        """
        self.check([bytes([byte]) for byte in b"HTTP/1.1 100 C\r\n\r\n" + OK])

    def test_no_http(self) -> None:
        """
        Nonsense, oversized heads, and framing that means two things fail the exchange and end the connection.
        """
        both = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
        large = b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70000
        unasked = b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
        coded = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"
        for data in (b"\x15\x03\x03\x00\x02", both, coded, large, large + b"\r\n\r\n", b"HTTP/1.1 099 X\r\n\r\n", unasked):
            site = Site()
            _, receiver = site.send()
            wire = site.accept()
            site.receive(data)
            assert receiver.error is not None, data
            self.assertTrue(receiver.error.sent)
            self.assertEqual(receiver.events, ["failed"])
            self.assertTrue(wire.is_closed)
            self.assertEqual(site.upstream.open_connections, 0)

    def test_surplus(self) -> None:
        """
        A connection on which more came than was asked for is not used again.
        """
        for data in (OK + b"x", OK + OK):
            site, _ = self.check([data])
            self.assertEqual(site.upstream.open_connections, 0)
            self.assertTrue(site.wires[-1].is_closed)

    def test_close(self) -> None:
        """
        Nor is one whose server says close.
        """
        site, _ = self.check([OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")])
        self.assertEqual(site.upstream.open_connections, 0)
        self.assertTrue(site.wires[-1].is_closed)


class RequestTests(SynchronousTestCase):
    """
    What the server gets.
    """

    def written(self, method: bytes, headers: Headers, **how: bool) -> bytes:
        site = Site()
        site.send(method, headers, **how)
        data: bytes = site.accept().value()
        return data

    def test_headers(self) -> None:
        """
        Host is the server's own, hop-by-hop headers stay behind, Expect too, and the rest goes on in its order and spelling.
        """
        hop = [(b"Connection", b"keep-alive, X-Drop"), (b"x-drop", b"1"), (b"Keep-Alive", b"5"), (b"Expect", b"100-continue")]
        headers = [(b"HOST", b"hub"), (b"X-b", b"1"), *hop, (b"x-A", b"2"), (b"TE", b"trailers, deflate")]
        data = self.written(b"GET", headers)
        self.assertEqual(data, b"GET /x HTTP/1.1\r\nHost: 10.0.0.1:6443\r\nX-b: 1\r\nx-A: 2\r\nTE: trailers\r\n\r\n")

    def test_base_path(self) -> None:
        """
        The path in the URL of the server stands before every target.
        """
        site = Site(url="http://10.0.0.1:6443/k8s/")
        site.send()
        self.assertTrue(site.accept().value().startswith(b"GET /k8s/x HTTP/1.1\r\n"))

    def test_authorization_is_not_droppable(self) -> None:
        """
        ``Connection: authorization`` does not make the proxy forget who asks.
        """
        data = self.written(b"GET", [(b"Connection", b"authorization"), (b"Authorization", b"Bearer x")])
        self.assertIn(b"Authorization: Bearer x\r\n", data)

    def test_no_body(self) -> None:
        """
        A POST without a body says so; a stale length of another request does not travel.
        """
        self.assertIn(b"Content-Length: 0\r\n", self.written(b"POST", []))
        self.assertNotIn(b"Content-Length", self.written(b"GET", [(b"Content-Length", b"7")]))

    def test_upgrade(self) -> None:
        """
        For an upgrade the offer goes on.
        """
        data = self.written(b"POST", [(b"Connection", b"Upgrade"), (b"Upgrade", b"SPDY/3.1")], upgrade=True)
        self.assertIn(b"Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n", data)

    def test_body_with_length(self) -> None:
        """
        A body with a length goes as it is; pieces given before the connection stands are sent when it does.
        """
        site = Site()
        exchange, _ = site.send(b"PUT", [(b"Content-Length", b"5")], body=True)
        source = Recorder()
        exchange.produce_from(source)
        self.assertTrue(source.paused)
        exchange.write(b"he")
        wire = site.accept()
        self.assertFalse(source.paused)
        exchange.write(b"llo")
        exchange.finish([])
        self.assertTrue(wire.value().endswith(b"Content-Length: 5\r\n\r\nhello"))

    def test_body_chunked(self) -> None:
        """
        A body without one goes chunked, with its trailers.
        """
        site = Site()
        exchange, _ = site.send(b"PUT", [(b"Transfer-Encoding", b"chunked")], body=True)
        wire = site.accept()
        exchange.write(b"hello")
        exchange.finish([(b"T", b"u")])
        self.assertTrue(wire.value().endswith(b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nT: u\r\n\r\n"))

    def test_early_response(self) -> None:
        """
        A response while the body is still being sent is passed on; the rest of the body is dropped with the connection.
        """
        site = Site()
        exchange, receiver = site.send(b"PUT", [], body=True)
        wire = site.accept()
        site.receive(OK)
        self.assertEqual(receiver.finished, [])
        self.assertTrue(wire.is_closed)
        exchange.write(b"more")
        exchange.finish([])
        self.assertNotIn(b"more", wire.value())


class PoolTests(SynchronousTestCase):
    """
    Connections are kept, dropped and replaced.
    """

    def warm(self, limits: ClientLimits = ClientLimits()) -> Site:
        """
        A site with one idle connection.
        """
        site = Site(limits)
        site.send()
        site.accept()
        site.receive(OK)
        return site

    def test_one_exchange_each(self) -> None:
        """
        A connection carries one exchange at a time.
        """
        site = self.warm()
        site.send()
        site.send()
        self.assertEqual(site.dials, 2)

    def test_fresh(self) -> None:
        """
        A probe gets a connection of its own.
        """
        site = self.warm()
        site.send(fresh=True)
        self.assertEqual(site.dials, 2)

    def test_body_that_may_stay_unread(self) -> None:
        """
        A server that leaves a GET's body unread takes it for a request; nobody else gets the answer: the connection is closed.
        """
        site = self.warm()
        exchange, _ = site.send(body=True)
        exchange.write(b"GET /other HTTP/1.1")
        exchange.finish([])
        site.receive(OK)
        self.assertTrue(site.wires[0].disconnecting)
        site.send()
        self.assertEqual(site.dials, 2)

    def test_retired(self) -> None:
        """
        After a change of certificates idle connections are closed, and one that is busy ends with what it carries.
        """
        site = self.warm()
        site.upstream.retire_connections()
        self.assertTrue(site.wires[0].disconnecting)
        _, receiver = site.send()
        self.assertEqual(site.dials, 2)
        site.accept()
        site.upstream.retire_connections()
        site.receive(OK)
        self.assertEqual(receiver.body, b"hello")
        self.assertTrue(site.wires[1].disconnecting)
        site.send()
        site.accept()
        site.receive(OK)
        site.send()
        self.assertEqual((site.dials, site.upstream.open_connections), (3, 1))

    def test_retry(self) -> None:
        """
        A GET on a connection that died while idle is sent again, once, without its receiver noticing.
        """
        site = self.warm()
        _, receiver = site.send()
        site.lose()
        self.assertEqual((site.dials, receiver.events), (2, []))
        site.accept()
        site.receive(OK)
        self.assertEqual(receiver.body, b"hello")
        site = self.warm()
        _, receiver = site.send()
        site.lose()
        site.accept()
        site.lose()
        self.assertEqual((site.dials, receiver.events), (2, ["failed"]))

    def test_no_retry(self) -> None:
        """
        Not so a POST, nor a request whose answer had begun, nor one on a new connection.
        """
        site = self.warm()
        _, receiver = site.send(b"POST")
        site.lose()
        assert receiver.error is not None
        self.assertTrue(receiver.error.sent)
        site = self.warm()
        _, receiver = site.send()
        site.receive(OK[:20])
        site.lose()
        self.assertIsNotNone(receiver.error)
        site = Site()
        _, receiver = site.send()
        site.accept()
        site.lose()
        self.assertIsNotNone(receiver.error)
        self.assertEqual(site.dials, 1)

    def test_idle_timeout(self) -> None:
        """
        Idle connections are closed in time, the oldest first.
        """
        site = Site(ClientLimits(idle_timeout=10))
        site.send()
        first = site.accept()
        first_connection = site.connections[-1]
        site.send()
        second = site.accept()
        first_connection.dataReceived(OK)
        site.reactor.advance(5)
        site.receive(OK)
        self.assertEqual(site.upstream.open_connections, 2)
        site.reactor.advance(5)
        self.assertTrue(first.is_closed)
        self.assertFalse(second.is_closed)
        site.reactor.advance(5)
        self.assertTrue(second.is_closed)
        self.assertEqual(site.upstream.open_connections, 0)
        self.assertFalse(site.reactor.getDelayedCalls())

    def test_max_idle(self) -> None:
        """
        No more than so many are kept.
        """
        site = Site(ClientLimits(max_idle=0))
        site.send()
        wire = site.accept()
        site.receive(OK)
        self.assertTrue(wire.is_closed)
        self.assertEqual(site.upstream.open_connections, 0)

    def test_idle_connection_speaks(self) -> None:
        """
        An idle connection on which something comes is dropped at once, and not handed to the next request.
        """
        site = self.warm()
        site.receive(b"HTTP/1.1 408 Timeout\r\n\r\n")
        self.assertTrue(site.wires[-1].is_closed)
        site.send()
        self.assertEqual(site.dials, 2)

    def test_idle_connection_ends(self) -> None:
        """
        So is one that the server ends.
        """
        site = self.warm()
        site.connections[-1].readConnectionLost()
        site.send()
        self.assertEqual(site.dials, 2)

    def test_close_connections(self) -> None:
        """
        All exchanges fail with the reason, told whether they may have reached the server, and all connections close.
        """
        site = Site()
        _, running = site.send()
        running_wire = site.accept()
        _, dialling = site.send()
        site.upstream.close_connections("the cloud is gone")
        assert running.error is not None and dialling.error is not None
        self.assertEqual(str(running.error), "http://10.0.0.1:6443: the cloud is gone")
        self.assertEqual((running.error.sent, dialling.error.sent), (True, False))
        self.assertTrue(running_wire.aborted)
        self.assertEqual(site.upstream.open_connections, 0)
        site.lose()
        self.assertEqual(running.events, ["failed"])


class FailureTests(SynchronousTestCase):
    """
    No answer, and no hang.
    """

    def test_refused(self) -> None:
        """
        A refused dial fails the exchange, not sent, after send returned.
        """
        site = Site()
        _, receiver = site.send()
        site.reactor.tcpClients[-1][2].clientConnectionFailed(None, Failure(ConnectionRefused("refused")))
        site.reactor.advance(0)
        assert receiver.error is not None
        self.assertFalse(receiver.error.sent)
        self.assertIn("http://10.0.0.1:6443: cannot connect", str(receiver.error))
        self.assertFalse(receiver.error.local)

    def test_no_socket(self) -> None:
        """
        That this machine has no socket left is told apart from what is the server's fault.
        """
        site = Site()
        _, receiver = site.send()
        site.reactor.tcpClients[-1][2].clientConnectionFailed(None, Failure(ConnectBindError(EMFILE, "Too many open files")))
        site.reactor.advance(0)
        assert receiver.error is not None
        self.assertEqual((receiver.error.sent, receiver.error.local), (False, True))
        self.assertIn("Too many open files", str(receiver.error))

    def test_connect_timeout(self) -> None:
        """
        A dial without an end ends in time.
        """
        site = Site(ClientLimits(connect_timeout=5))
        _, receiver = site.send()
        site.reactor.advance(5)
        site.reactor.advance(0)
        assert receiver.error is not None
        self.assertFalse(receiver.error.sent)
        self.assertIn("no connection within 5 s", str(receiver.error))

    def test_lost_in_answer(self) -> None:
        """
        Half an answer is a failure that says so.
        """
        site = Site()
        _, receiver = site.send()
        site.accept()
        site.receive(OK[:-1])
        site.lose(ConnectionDone())
        self.assertEqual(receiver.events, ["head", "data", "failed"])
        self.assertIn("in the middle of the answer", str(receiver.error))

    def test_endpoint(self) -> None:
        """
        An endpoint of the caller's is dialled in place of the host; the error of a failed dial is the cause of what the receiver
        is told, and a dial that nobody waits for any more is cancelled.
        """
        reactor: Any = MemoryReactorClock()
        endpoint = Dials()
        upstream = HTTPUpstream(reactor, "http://10.0.0.8:10250", None, endpoint=endpoint)
        receiver = Recorder()
        upstream.send(RequestHead(b"GET", b"/x", []), receiver)
        why = ValueError("nobody is there")
        endpoint.dialled[0].errback(why)
        reactor.advance(0)
        assert receiver.error is not None
        self.assertIs(receiver.error.__cause__, why)
        self.assertIn("nobody is there", str(receiver.error))
        upstream.send(RequestHead(b"GET", b"/x", []), receiver).cancel()
        self.assertEqual(endpoint.cancelled, endpoint.dialled[1:])
        self.assertEqual(reactor.tcpClients, [])

    def test_cancel(self) -> None:
        """
        A cancelled exchange says nothing more and closes its connection, also while that is being dialled.
        """
        site = Site()
        exchange, receiver = site.send()
        wire = site.accept()
        site.receive(OK[:-1])
        exchange.cancel()
        self.assertTrue(wire.aborted)
        site.lose()
        self.assertEqual(receiver.events, ["head", "data"])
        exchange, receiver = site.send()
        exchange.cancel()
        site.reactor.advance(100)
        self.assertEqual(receiver.events, [])
        self.assertEqual(site.upstream.open_connections, 0)

    def test_cancel_after_end(self) -> None:
        """
        Cancelling what is whole leaves its connection alone.
        """
        site = Site()
        exchange, _ = site.send()
        wire = site.accept()
        site.receive(OK)
        exchange.cancel()
        self.assertFalse(wire.is_closed)

    def test_cancel_from_receiver(self) -> None:
        """
        A receiver that cancels when it sees the head gets no body.
        """
        site = Site()
        exchange, receiver = site.send()
        receiver.head_received = lambda head: exchange.cancel()  # type: ignore[method-assign]
        site.accept()
        site.receive(OK)
        self.assertEqual(receiver.events, [])

    def test_bad_addresses(self) -> None:
        """
        What is no address of a server is refused with a reason.
        """
        for url in ("10.0.0.1:6443", "ftp://a", "http://", "https://a"):
            self.assertRaises(ValueError, HTTPUpstream, None, url, None)
        self.assertRaises(ValueError, HTTPUpstream, None, "http://a", None, "https://proxy")


class FlowTests(SynchronousTestCase):
    """
    Nobody is flooded.
    """

    def test_response_held(self) -> None:
        """
        A paused exchange stops reading; a pause before the connection stands counts; the next exchange starts unpaused.
        """
        site = Site()
        exchange, _ = site.send()
        exchange.pause()
        wire = site.accept()
        self.assertFalse(wire.reading)
        exchange.resume()
        self.assertTrue(wire.reading)
        exchange.pause()
        site.receive(OK)
        self.assertTrue(wire.reading)

    def test_body_held(self) -> None:
        """
        The source of a request body is held back while the server does not read.
        """
        site = Site()
        exchange, _ = site.send(b"PUT", body=True)
        source = Recorder()
        exchange.produce_from(source)
        site.accept()
        site.connections[-1].pauseProducing()
        self.assertTrue(source.paused)
        site.connections[-1].resumeProducing()
        self.assertFalse(source.paused)


class ConnectionRefused(ConnectionLost):
    """
    Any failure to connect.
    """
