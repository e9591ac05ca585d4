"""
Promises of the HTTP client about what a server answers.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from tests.http.memory import Recorder
from tests.http.upstream import OK, Site
from yurt.http.interfaces import ResponseHead


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
