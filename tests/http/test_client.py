"""
Promises of the HTTP client about its connections together, and its failures.
"""

from __future__ import annotations

from errno import EMFILE
from typing import Any

from twisted.internet.error import ConnectBindError, ConnectionDone, ConnectionLost
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.http.memory import Recorder
from tests.http.upstream import OK, Dials, Site
from yurt.http.client import MAX_WORDLESS, WORD_MARGIN, HTTPUpstream
from yurt.http.interfaces import Exchange, RequestHead
from yurt.http.limits import ClientLimits


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

    def silent(self, limits: ClientLimits = ClientLimits()) -> Site:
        """
        A site with one connection that has been idle for so long that it may have died.
        """
        site = self.warm(limits)
        site.reactor.advance(limits.trusted_for + 0.1)
        site.wires[0].clear()
        return site

    def write(self, site: Site) -> tuple[Exchange, Recorder]:
        """
        Send a write that nobody may send twice.
        """
        exchange, receiver = site.send(b"PATCH", [(b"Content-Length", b"4")], body=True, once=True)
        exchange.write(b"body")
        exchange.finish([])
        return exchange, receiver

    def test_write_asks_first(self) -> None:
        """
        Over a connection that has been silent, the body of a write goes when the server has shown that it is there; its word is
        not for whoever sends the write.
        """
        site = self.silent()
        _, receiver = self.write(site)
        self.assertIn(b"\r\nExpect: 100-continue\r\n\r\n", site.wires[0].value())
        self.assertNotIn(b"body", site.wires[0].value())
        site.receive(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual(site.wires[0].value()[-8:], b"\r\n\r\nbody")
        site.receive(OK)
        self.assertEqual((receiver.events, receiver.interims), (["head", "data", "finished"], []))
        self.assertEqual((site.dials, site.upstream.open_connections), (1, 1))
        self.assertEqual(site.reactor.getDelayedCalls()[1:], [])

    def test_body_after_word(self) -> None:
        """
        A body that comes slowly is held back until then, and goes on afterwards at the server's pace.
        """
        site = self.silent()
        exchange, _ = site.send(b"POST", body=True, once=True)
        source = Recorder()
        exchange.produce_from(source)
        self.assertTrue(source.paused)
        exchange.write(b"one")
        site.receive(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertFalse(source.paused)
        exchange.write(b"two")
        exchange.finish([])
        self.assertTrue(site.wires[0].value().endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"))

    def test_write_on_a_dead_connection(self) -> None:
        """
        One that died unnoticed costs a few seconds: nothing has been done over it, and the write goes over a new one, as it is.
        The others that were idle go as well.
        """
        for is_lost in (False, True):
            site = self.silent()
            _, receiver = self.write(site)
            if is_lost:
                site.lose()
            else:
                site.reactor.advance(ClientLimits().continue_timeout)
                self.assertTrue(site.wires[0].is_closed)
                site.lose()
            self.assertEqual((site.dials, receiver.events), (2, []))
            site.accept()
            self.assertEqual(site.wires[1].value(), b"PATCH /x HTTP/1.1\r\nHost: 10.0.0.1:6443\r\nContent-Length: 4\r\n\r\nbody")
            site.receive(OK)
            self.assertEqual(receiver.body, b"hello")

    def test_word_over_a_slow_link(self) -> None:
        """
        Where a new connection takes long, the word may, too.
        """
        site = Site()
        site.send()
        site.reactor.advance(4.0)
        site.accept()
        site.receive(OK)
        site.reactor.advance(ClientLimits().trusted_for + 0.1)
        _, receiver = self.write(site)
        site.reactor.advance(4.0 * WORD_MARGIN - 0.1)
        site.receive(b"HTTP/1.1 100 Continue\r\n\r\n")
        site.receive(OK)
        self.assertEqual((receiver.body, site.dials), (b"hello", 1))

    def test_write_is_never_sent_twice(self) -> None:
        """
        Once the server has the body nobody else gets it.
        """
        site = self.silent()
        _, receiver = self.write(site)
        site.receive(b"HTTP/1.1 100 Continue\r\n\r\n")
        site.reactor.advance(ClientLimits().continue_timeout)
        site.lose()
        assert receiver.error is not None
        self.assertEqual((site.dials, receiver.error.sent), (1, True))

    def test_failed_before_its_word(self) -> None:
        """
        When all connections of a server are closed meanwhile, a write that has not begun may be tried elsewhere.
        """
        site = self.silent()
        _, receiver = self.write(site)
        site.upstream.close_connections("it is gone")
        assert receiver.error is not None
        self.assertFalse(receiver.error.sent)
        self.assertEqual(site.reactor.getDelayedCalls(), [])

    def test_refused_at_once(self) -> None:
        """
        A server may answer without the body: that is the answer, and the connection, on which it might wait for it, is closed.
        """
        site = self.silent()
        _, receiver = self.write(site)
        site.receive(OK.replace(b"200 OK", b"403 Forbidden"))
        assert receiver.head is not None
        self.assertEqual((receiver.head.status, receiver.body), (403, b"hello"))
        self.assertTrue(site.wires[0].is_closed)
        self.assertEqual(site.upstream.open_connections, 0)
        self.assertNotIn(b"body", site.wires[0].value())

    def test_no_such_expectation(self) -> None:
        """
        To one that refuses to be asked the write goes as it is.
        """
        site = self.silent()
        _, receiver = self.write(site)
        site.receive(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual((site.dials, receiver.events), (2, []))
        site.accept()
        self.assertNotIn(b"Expect", site.wires[1].value())

    def test_never_a_word(self) -> None:
        """
        One that never says a word is asked no more after a while: writes go over new connections at once.
        """
        site = self.silent()
        for _ in range(MAX_WORDLESS):
            self.write(site)
            site.reactor.advance(ClientLimits().continue_timeout)
            site.accept()
            site.receive(OK)
            site.reactor.advance(ClientLimits().trusted_for + 0.1)
        self.write(site)
        self.assertEqual(site.dials, MAX_WORDLESS + 2)
        self.assertNotIn(b"Expect", site.wires[-1].value())

    def test_without_body(self) -> None:
        """
        What has no body that could be held back, and must not be lost either, goes over a new connection; so do streams.
        """
        for method, upgrade in ((b"DELETE", False), (b"POST", True), (b"GET", False)):
            site = self.silent()
            site.send(method, once=True, upgrade=upgrade)
            self.assertEqual(site.dials, 2)

    def test_heard_just_now(self) -> None:
        """
        A connection that was heard from just now carries a write at once.
        """
        site = self.warm()
        site.wires[0].clear()
        self.write(site)
        self.assertTrue(site.wires[0].value().endswith(b"body"))
        self.assertNotIn(b"Expect", site.wires[0].value())

    def test_refused_upgrade(self) -> None:
        """
        A connection on which an upgrade was refused carries nothing more: API servers close it, and do not say so.
        """
        site = self.warm()
        _, receiver = site.send(b"GET", upgrade=True)
        site.receive(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nno\n")
        self.assertEqual(receiver.head and receiver.head.status, 400)
        site.send(b"POST", upgrade=True)
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


class ConnectionRefused(ConnectionLost):
    """
    Any failure to connect.
    """
