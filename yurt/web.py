"""
Small pages for the admin listeners of the daemons, on twisted.web.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request as BaseRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

MAX_BODY_BYTES = 64 * 1024
"""Bodies are of no use to these pages; what is longer than this is refused."""
IDLE_SECONDS = 60
"""A connection without request is closed after this time."""

TEXT = b"text/plain; charset=utf-8"
JSON = b"application/json"
NO_STORE = b"no-store"


class Leaf(Resource):
    """
    A page with nothing below it, with or without a slash at its end.
    """

    def getChild(self, path: bytes, request: BaseRequest) -> Resource:
        """
        Itself for the slash.
        """
        return self if not path else super().getChild(path, request)


class Page(Leaf):
    """
    A page made anew by ``read`` for each GET: status, content type, body.
    """

    def __init__(self, read: Callable[[Request], tuple[int, bytes, bytes]]) -> None:
        super().__init__()
        self.read = read

    def render_GET(self, request: Request) -> bytes:
        """
        Answer; HEAD comes here, too.
        """
        status, content_type, body = self.read(request)
        request.setResponseCode(status)
        request.setHeader(b"Content-Type", content_type)
        request.setHeader(b"Cache-Control", NO_STORE)
        if request.method == b"HEAD":
            request.setHeader(b"Content-Length", b"%d" % len(body))
            return b""  # twisted.web logs each body that it drops
        return body


def text_page(read: Callable[[], tuple[int, str]]) -> Page:
    """
    A page of plain text: ``read`` gives status and text.
    """

    def make(request: Request) -> tuple[int, bytes, bytes]:
        status, text = read()
        return status, TEXT, text.encode()

    return Page(make)


def json_page(read: Callable[[], tuple[int, object]]) -> Page:
    """
    A JSON page: ``read`` gives status and a value that ``json`` can write.
    """

    def make(request: Request) -> tuple[int, bytes, bytes]:
        status, value = read()
        return status, JSON, json.dumps(value, indent=2).encode() + b"\n"

    return Page(make)


class LaterPage(Leaf):
    """
    A JSON page that takes its time: ``read`` fires with a value that ``json`` can write, and is cancelled when nobody waits.
    """

    _log = Logger()

    def __init__(self, read: Callable[[], Deferred[Any]]) -> None:
        super().__init__()
        self._read = read

    def render_GET(self, request: Request) -> int:
        """
        Begin; the answer follows.
        """
        work = self._read()
        request.notifyFinish().addErrback(lambda _: work.cancel())
        work.addCallbacks(self._answer, self._fail, callbackArgs=(request,), errbackArgs=(request,))
        return NOT_DONE_YET

    def _answer(self, value: object, request: Request) -> None:
        request.setHeader(b"Content-Type", JSON)
        request.setHeader(b"Cache-Control", NO_STORE)
        body = json.dumps(value, indent=2).encode() + b"\n"
        request.setHeader(b"Content-Length", b"%d" % len(body))
        request.write(body)
        request.finish()

    def _fail(self, failure: Failure, request: Request) -> None:
        if failure.check(CancelledError):
            return
        self._log.failure("{path} could not be made", failure=failure, path=request.path)
        request.setResponseCode(500)
        request.finish()


def bytes_page(content_type: bytes, read: Callable[[], tuple[int, bytes]]) -> Page:
    """
    A page whose ``read`` gives status and the body as it goes out.
    """

    def make(request: Request) -> tuple[int, bytes, bytes]:
        status, body = read()
        return status, content_type, body

    return Page(make)


def metrics_page(registry: CollectorRegistry) -> Page:
    """
    The metrics of ``registry`` in the text format that the scraper asks for.
    """

    def make(request: Request) -> tuple[int, bytes, bytes]:
        encode, content_type = choose_encoder(request.getHeader("accept") or "")
        return 200, content_type.encode(), encode(registry)

    return Page(make)


def methods_of(resource: Resource) -> set[bytes]:
    """
    The methods that a page takes; none for what is only the way to pages, and for what is not there.
    """
    methods = {name.removeprefix("render_").encode() for name in dir(resource) if name.startswith("render_")}
    return methods if b"GET" in methods else methods - {b"HEAD"}  # twisted.web adds HEAD everywhere


class BoundedRequest(Request):
    """
    A request whose body is refused beyond MAX_BODY_BYTES, and that is refused in plain text: 404 where there is no page, 405 for
    a method that the page does not take.
    """

    received = 0

    def render(self, resrc: Resource) -> None:
        """
        Let the page answer, if there is one that may.
        """
        methods = methods_of(resrc)
        if self.method in methods:
            super().render(resrc)
            return
        text = b"not found\n"
        self.setResponseCode(404)
        if methods:
            allowed = b", ".join(sorted(methods))
            self.setResponseCode(405)
            self.setHeader(b"Allow", allowed)
            text = b"method not allowed; there is " + allowed + b"\n"
        self.setHeader(b"Content-Type", TEXT)
        self.setHeader(b"Content-Length", b"%d" % len(text))
        if self.method != b"HEAD":
            self.write(text)
        self.finish()

    def gotLength(self, length: int | None) -> None:
        """
        Refuse by the announced length.
        """
        if length is not None and length > MAX_BODY_BYTES:
            self._refuse()
        super().gotLength(min(length or 0, MAX_BODY_BYTES))

    def handleContentChunk(self, data: bytes) -> None:
        """
        Refuse by what came: a chunked body announces no length.
        """
        self.received += len(data)
        if self.received <= MAX_BODY_BYTES:
            super().handleContentChunk(data)
        else:
            self._refuse()

    def _refuse(self) -> None:
        if self.channel is not None and self.channel.transport is not None:
            self.channel.transport.write(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            self.channel.loseConnection()


class QuietSite(Site):
    """
    A site without access log, form parsing or large bodies.
    """

    noisy = False
    requestFactory = BoundedRequest

    def __init__(self, resource: Resource) -> None:
        super().__init__(resource, timeout=IDLE_SECONDS, parsePOSTFormSubmission=False)
        self.displayTracebacks = False

    def log(self, request: BaseRequest) -> None:
        """
        Write nothing: scrapes and probes come every few seconds, and flash wears out.
        """
