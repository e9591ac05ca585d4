"""
Reads whose answers are filtered on their way to the client.  The cache gets what the cloud said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from yurt.http.heads import without
from yurt.http.interfaces import Headers, ResponseHead
from yurt.hub.answers import FROM_CLOUD, name_source
from yurt.hub.cache.views import LIST_STEP
from yurt.hub.filters.lens import Lens, show_list, show_object
from yurt.hub.filters.told import Told
from yurt.hub.forward import Forward
from yurt.hub.listreads import ListRead
from yurt.hub.reads import ObjectRead, Read
from yurt.hub.viewkeys import view_key
from yurt.kube.objects import ObjectError

if TYPE_CHECKING:
    from collections.abc import Generator

    from yurt.hub.turns import Steps

SENT_A_TURN = 64 * 1024
"""Bytes of an answer for which the cache waits a turn of the reactor: it would be in the way of the client."""

NO_JSON = "the client takes no JSON"

REPLACED = (b"content-encoding", b"content-length", b"transfer-encoding", b"etag")
"""Headers of the cloud's answer that are not true of what the client gets."""


class FilteredRead(Read):
    """
    A GET or LIST that is held until it is whole, and answered as its client is to see it.
    """

    bypassed = ""
    """Why the answer is passed on as it came, although it should be filtered."""

    @property
    def warnings(self) -> Headers:
        """
        What the client is told of filters that could not be applied.
        """
        forms = self.accept.forms
        bypassed = self.bypassed or ("" if "" in forms else f"the client takes {', '.join(forms)} only")
        return self.hub.filters.warnings(self.caller.component, self.info, bypassed)

    @property
    def is_concerned(self) -> bool:
        """
        Whether anything is filtered, or has to be remembered.
        """
        filters, info = self.hub.filters, self.info
        return bool(filters.lens(self.caller.component, info).rules) or filters.told.knows(view_key(self.caller, info, ""))

    def pass_head(self, head: ResponseHead) -> None:
        """
        What is passed on as it came is not filtered.
        """
        if head.status == 200:
            head.headers += self.warnings
        super().pass_head(head)

    def pass_held(self, head: ResponseHead) -> None:
        """
        As much as came before it got too large.
        """
        if self.is_concerned:
            self.log.warn("{what}: not filtered, as it is too large", what=self.describe())
            self.bypassed = "the answer is too large"
        super().pass_held(head)

    def response_finished(self, trailers: Headers) -> None:
        """
        The answer is whole: first the client, then the cache.
        """
        held = self.delivery.take_held() if self.is_concerned else None
        if held is None:
            super().response_finished(trailers)
            return
        head, chunks = held
        self.exchange = None
        self.wait.end()
        self.hub.turns.run(lambda: self.show(head, chunks), self.delivery.kept_size, self.about)

    def show(self, head: ResponseHead, chunks: list[bytes]) -> Steps:
        """
        Answer, then store.
        """
        body = self.hub.decoded(head, b"".join(chunks))
        if body is None:
            self.log.warn("{what}: not filtered, as its encoding is not known", what=self.describe())
            self.bypassed = "the answer's encoding is not known"
            self.answer(head, b"".join(chunks), without(head.headers, b"content-length", b"transfer-encoding"))
            return
        plain = ResponseHead(head.status, head.reason, without(head.headers, *REPLACED))
        shown = yield from self.shown(body)
        self.answer(plain, shown, list(plain.headers))
        for _ in range(len(shown) // SENT_A_TURN + 1):
            yield
        yield from self.hub.take_in(self, plain, [body])

    def answer(self, head: ResponseHead, body: bytes, headers: Headers) -> None:
        """
        Send what the client is to see.
        """
        if self.finished:
            return
        answer = ResponseHead(head.status, head.reason, [*headers, *self.warnings])
        name_source(answer, FROM_CLOUD)
        self.started = True
        self.series.from_cloud += 1
        self.request.respond(answer.status, answer.headers, body)
        self.done()

    def respond_cached(
        self,
        body: bytes,
        stored_at: float,
        content_type: bytes = b"application/json",
        status: int = 200,
        more: Headers | None = None,
    ) -> None:
        """
        Send a cached body as the client is to see it; a long list later, after several turns of the reactor.
        """
        if status == 200:
            self.hub.turns.run(lambda: self.show_cached(body, stored_at, content_type), len(body))
        else:
            super().respond_cached(body, stored_at, content_type, status, self.warnings)

    def show_cached(self, body: bytes, stored_at: float, content_type: bytes) -> Steps:
        """
        The cache's answer, unless the client is gone before it is made.
        """
        shown = yield from self.shown(body)
        if not self.finished:
            super().respond_cached(shown, stored_at, content_type, more=self.warnings)

    def shown(self, body: bytes) -> Generator[None, None, bytes]:
        """
        A whole body as the client is to see it, in steps.
        """
        raise AssertionError("a FilteredRead is a FilteredObjectRead or a FilteredListRead")


class UnfilteredForward(Forward):
    """
    A read that should be filtered and cannot be, as its client takes no JSON.
    """

    def pass_head(self, head: ResponseHead) -> None:
        """
        Say so.
        """
        if head.status == 200:
            head.headers += self.hub.filters.warnings(self.caller.component, self.info, NO_JSON)
        super().pass_head(head)


class FilteredObjectRead(FilteredRead, ObjectRead):
    """
    GET of one object.  Filters that hide objects are for lists and watches only.
    """

    def shown(self, body: bytes) -> Generator[None, None, bytes]:
        """
        The object.
        """
        yield from ()
        shown = show_object(body, self.hub.filters.lens(self.caller.component, self.info))
        return body if shown is None else shown


class FilteredListRead(FilteredRead, ListRead):
    """
    LIST of a collection; what it told is remembered for the watch that follows.
    """

    def shown(self, body: bytes) -> Generator[None, None, bytes]:
        """
        The list, all pages of it through the same lens.
        """
        try:
            shown = yield from show_list(body, self.choose, LIST_STEP)
        except ObjectError as error:
            self.log.debug("not filtered: {what}: {error}", what=self.describe(), error=str(error))
            return body
        told = Told(shown.lens, shown.hidden, self.hub.reactor.seconds())
        self.hub.filters.told.record(self.about, shown.resource_version, told)
        return shown.body

    def choose(self, version: str) -> Lens:
        """
        The lens of the first page, else the present one.
        """
        told = None
        if self.info.query.get("continue"):
            told = self.hub.filters.told.at(self.about, version)
        return self.hub.filters.lens(self.caller.component, self.info) if told is None else told.lens
