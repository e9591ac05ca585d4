"""
Promises of the HTTP client about what it sends.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.http.memory import Recorder
from tests.http.upstream import OK, Site
from yurt.http.interfaces import Headers


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
