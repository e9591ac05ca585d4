"""
Small requests with their whole answers.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.http.upstream import OK, Site
from yurt.http.fetch import FetchedResponse, FetchTimeout, fetch
from yurt.http.interfaces import UpstreamError


class FetchTests(SynchronousTestCase):
    """
    One call, one answer or one error.
    """

    def fetch(self, site: Site, body: bytes = b"", limit: int = 1000) -> Deferred[FetchedResponse]:
        return fetch(site.reactor, site.upstream, b"PUT", b"/x", [(b"A", b"b")], body, timeout=5, limit=limit)

    def test_answer(self) -> None:
        """
        The answer comes whole, and no timer stays behind.
        """
        site = Site()
        fetched = self.fetch(site, b"body")
        wire = site.accept()
        self.assertTrue(wire.value().endswith(b"A: b\r\nContent-Length: 4\r\n\r\nbody"))
        site.receive(OK)
        self.assertEqual(self.successResultOf(fetched), FetchedResponse(200, [(b"Content-Length", b"5")], b"hello"))
        site.upstream.close_connections("end")
        self.assertFalse(site.reactor.getDelayedCalls())

    def test_late(self) -> None:
        """
        An answer that is not whole in time is given up with its connection.
        """
        site = Site()
        fetched = self.fetch(site)
        wire = site.accept()
        site.receive(OK[:-1])
        site.reactor.advance(5)
        self.assertIn("no whole answer within 5 s", str(self.failureResultOf(fetched, FetchTimeout).value))
        self.assertTrue(wire.aborted)

    def test_too_large(self) -> None:
        """
        So is one that is larger than wanted.
        """
        site = Site()
        fetched = self.fetch(site, limit=4)
        wire = site.accept()
        site.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello")
        self.assertIn("larger than 4 bytes", str(self.failureResultOf(fetched, UpstreamError).value))
        self.assertTrue(wire.aborted)

    def test_large_in_one_read(self) -> None:
        """
        Also when it came whole at once.
        """
        site = Site()
        fetched = self.fetch(site, limit=4)
        site.accept()
        site.receive(OK)
        self.failureResultOf(fetched, UpstreamError)

    def test_failed(self) -> None:
        """
        Errors of the upstream come through.
        """
        site = Site()
        fetched = self.fetch(site)
        site.accept()
        site.lose()
        self.failureResultOf(fetched, UpstreamError)

    def test_cancelled(self) -> None:
        """
        A cancelled one drops its connection.
        """
        site = Site()
        fetched = self.fetch(site)
        wire = site.accept()
        fetched.cancel()
        self.failureResultOf(fetched)
        self.assertTrue(wire.aborted)
