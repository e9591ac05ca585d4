"""
Tests for ``yurt.hub.loop``.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from yurt.http.fetch import FetchTimeout, fetch
from yurt.http.interfaces import IncomingRequest, UpstreamError
from yurt.hub.identity import Door
from yurt.hub.loop import LoopUpstream
from yurt.hub.proxy import is_loopback


class Application:
    """
    Keeps what it is asked.
    """

    def __init__(self) -> None:
        self.requests: list[IncomingRequest] = []
        self.lost = 0

    def handle(self, request: IncomingRequest) -> None:
        self.requests.append(request)
        request.when_lost(self.hung_up)

    def hung_up(self) -> None:
        self.lost += 1


class LoopTests(SynchronousTestCase):
    """
    Tests of requests from inside.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.application = Application()
        self.answer = fetch(self.clock, LoopUpstream(self.clock, self.application), b"GET", b"/x", [(b"A", b"b")], timeout=5.0)
        self.assertEqual(self.application.requests, [])
        self.clock.advance(0)
        (self.request,) = self.application.requests

    def test_answered(self) -> None:
        """
        The application gets the request as that of a caller on this machine who speaks as the node, and its answer comes back.
        """
        head, door = self.request.head, self.request.door
        self.assertEqual((head.method, head.target, head.headers), (b"GET", b"/x", [(b"A", b"b")]))
        assert isinstance(door, Door)
        self.assertTrue(door.lends_node_identity and is_loopback(self.request.peer))
        self.request.respond(200, [(b"C", b"d")], b"body")
        response = self.successResultOf(self.answer)
        self.assertEqual((response.status, response.headers, response.body), (200, [(b"C", b"d")], b"body"))
        self.assertEqual(self.application.lost, 0)

    def test_broken_off(self) -> None:
        """
        An answer that breaks off is none.
        """
        self.request.abort()
        self.failureResultOf(self.answer, UpstreamError)

    def test_given_up(self) -> None:
        """
        Whoever gives up has hung up; what is said then reaches nobody.
        """
        self.clock.advance(5.0)
        self.failureResultOf(self.answer, FetchTimeout)
        self.assertEqual(self.application.lost, 1)
        self.request.respond(200, [], b"late")

    def test_given_up_at_once(self) -> None:
        """
        A request that is given up before it was handed over never is.
        """
        upstream = LoopUpstream(self.clock, self.application)
        fetch(self.clock, upstream, b"GET", b"/y", [], timeout=5.0).addErrback(lambda _: None).cancel()
        self.clock.advance(0)
        self.assertEqual(len(self.application.requests), 1)
