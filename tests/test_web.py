"""
Tests of the pages for admin listeners.
"""

from prometheus_client import CollectorRegistry, Counter
from twisted.internet.defer import succeed
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Request

from tests.web_client import exchange, get
from yurt.web import MAX_BODY_BYTES, TEXT, LaterPage, Leaf, QuietSite, bytes_page, json_page, metrics_page, text_page


class Form(Leaf):
    """
    A page that takes POST only.
    """

    def render_POST(self, request: Request) -> bytes:
        return b"taken"


class PageTests(SynchronousTestCase):
    """
    Tests of the pages on a site.
    """

    def setUp(self) -> None:
        registry = CollectorRegistry()
        Counter("things", "Things that happened", registry=registry).inc(3)
        root = Resource()
        root.putChild(b"text", text_page(lambda: (200, "grüezi")))
        root.putChild(b"json", json_page(lambda: (503, {"a": [1]})))
        root.putChild(b"bytes", bytes_page(b"image/x", lambda: (200, b"\0\1")))
        root.putChild(b"metrics", metrics_page(registry))
        root.putChild(b"later", LaterPage(lambda: succeed({})))
        root.putChild(b"form", Form())
        root.putChild(b"way", way := Resource())
        way.putChild(b"page", text_page(lambda: (200, "")))
        root.putChild(b"broken", text_page(lambda: (200, str(1 // 0))))
        self.site = QuietSite(root)

    def test_text(self) -> None:
        """
        Text comes as UTF-8 and is not to be stored.
        """
        status, headers, body = get(self.site, "/text")
        self.assertEqual((status, body), (200, "grüezi".encode()))
        self.assertEqual(headers[b"content-type"], b"text/plain; charset=utf-8")
        self.assertEqual(headers[b"cache-control"], b"no-store")

    def test_json(self) -> None:
        """
        A JSON page sets its status.
        """
        status, headers, body = get(self.site, "/json")
        self.assertEqual((status, headers[b"content-type"]), (503, b"application/json"))
        self.assertEqual(body, b'{\n  "a": [\n    1\n  ]\n}\n')

    def test_bytes(self) -> None:
        """
        Bytes go out as they are.
        """
        status, headers, body = get(self.site, "/bytes")
        self.assertEqual((status, headers[b"content-type"], body), (200, b"image/x", b"\0\1"))

    def test_head(self) -> None:
        """
        HEAD has the headers of GET and no body, and nothing is logged for it.
        """
        with capturedLogs() as logged:
            status, headers, body = get(self.site, "/text", method="HEAD")
        self.assertEqual(logged, [])
        self.assertEqual((status, headers[b"content-length"], body), (200, b"7", b""))

    def test_metrics(self) -> None:
        """
        A scraper gets the format it asks for.
        """
        _, headers, body = get(self.site, "/metrics")
        self.assertIn(b"text/plain", headers[b"content-type"])
        self.assertIn(b"\nthings_total 3.0\n", body)
        _, headers, body = get(self.site, "/metrics", "Accept: application/openmetrics-text; version=1.0.0")
        self.assertIn(b"application/openmetrics-text", headers[b"content-type"])
        self.assertTrue(body.endswith(b"# EOF\n"))

    def test_refusals(self) -> None:
        """
        Where there is no page it is 404 for every method, also below a page and on the way to one; a method that a page does not
        take is 405, and the answer says which it takes.  All in plain text, HEAD without it.
        """
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"):
            for path in ("/", "/nothing", "/way", "/way/", "/way/nothing", "/text/below", "/later/below"):
                status, headers, body = get(self.site, path, method=method)
                self.assertEqual((status, headers[b"content-type"]), (404, TEXT), f"{method} {path}")
                self.assertEqual(body, b"" if method == "HEAD" else b"not found\n")
            for path, allowed in (("/text", b"GET, HEAD"), ("/later", b"GET, HEAD"), ("/form", b"POST"), ("/form/", b"POST")):
                if method.encode() in allowed.split(b", "):
                    continue
                status, headers, body = get(self.site, path, method=method)
                self.assertEqual((status, headers[b"content-type"], headers[b"allow"]), (405, TEXT, allowed), f"{method} {path}")
                self.assertEqual(body, b"" if method == "HEAD" else b"method not allowed; there is " + allowed + b"\n")

    def test_slash(self) -> None:
        """
        A slash at the end makes no difference.
        """
        self.assertEqual(get(self.site, "/text/")[0], 200)

    def test_errors_are_not_shown(self) -> None:
        """
        A page that fails is 500; the traceback is logged and not sent.
        """
        status, _, body = get(self.site, "/broken")
        self.assertEqual(status, 500)
        self.assertNotIn(b"ZeroDivision", body)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class BoundTests(SynchronousTestCase):
    """
    Tests of the bound on request bodies.
    """

    def refused(self, data: bytes, chunk: int) -> None:
        """
        ``data`` gets 413 and a closed connection.
        """
        answer, closed = exchange(QuietSite(Resource()), data, chunk)
        self.assertTrue(answer.startswith(b"HTTP/1.1 413 "), answer[:80])
        self.assertTrue(closed)

    def test_announced(self) -> None:
        """
        A body announced as too large is refused before it comes.
        """
        self.refused(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1), 0)

    def test_chunked(self) -> None:
        """
        A chunked body is refused where it exceeds the bound.
        """
        piece = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
        self.refused(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + piece * 20, 1000)

    def test_within(self) -> None:
        """
        A body up to the bound is read, then the page answers that it takes none.
        """
        head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % MAX_BODY_BYTES
        answer, _ = exchange(QuietSite(text_page(lambda: (200, ""))), head + b"x" * MAX_BODY_BYTES, 5000)
        self.assertTrue(answer.startswith(b"HTTP/1.1 405 "), answer[:80])
