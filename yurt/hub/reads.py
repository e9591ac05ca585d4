"""
Cached reads: GET and LIST go to the cloud while it answers, and to the cache when it does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import gatherResults

from yurt.http.heads import get_header
from yurt.http.interfaces import Headers, RequestHead, ResponseHead, UpstreamError
from yurt.hub.accept import Accept, is_json, narrow, read_accept
from yurt.hub.answers import answer_status, cached_headers
from yurt.hub.cache.views import ABSENT, Found
from yurt.hub.clienttime import SHARE, time_of
from yurt.hub.cloud import LOAD_BALANCER_ERRORS
from yurt.hub.forward import Forward
from yurt.hub.identity import NODE
from yurt.hub.server import is_of_api_server
from yurt.kube.objects import PARTIAL, TABLE, ObjectError, read_object
from yurt.kube.status import read_failure, status_body
from yurt.kube.tables import tell_ages

if TYPE_CHECKING:
    from yurt.hub.cloud import Server


SILENT = "no answer to a request"

START_GRACE = 0.1
"""Seconds after which a cached read no longer waits for the first verdict on the cloud."""

SETTLED_AFTER = 30.0
"""Seconds after a server's return for which it is not believed that it does not serve a resource: some answer before they know
all their custom resources."""


class Read(Forward):
    """
    A GET or LIST of an object that is cached.
    """

    statuses = frozenset({200})
    """Those of the answers that tell the cache something."""
    unseen = "the cache never saw this for this caller"
    """Why the cache has no answer."""

    @property
    def accept(self) -> Accept:
        """
        What the client takes, less what filters could do nothing about.
        """
        accept = read_accept(get_header(self.request.head.headers, b"accept"))
        if len(accept.forms) > 1 and self.hub.filters.covers(self.caller.component, self.info):
            return accept.plain
        return accept

    def upstream_head(self) -> RequestHead:
        """
        Ask for JSON, the one form that is stored.
        """
        return narrow(super().upstream_head(), self.accept.narrowed)

    def begin(self) -> None:
        """
        Right after the start nobody knows about the cloud yet: the cache answers then, after a short grace.
        """
        if self.hub.cloud.known:
            super().begin()
        else:
            self.request.when_lost(self.client_lost)
            self.hub.when_verdict(self.proceed_unknowing, START_GRACE)

    def proceed_unknowing(self) -> None:
        """
        The cache, if it can; else the cloud's verdict is waited for.
        """
        if self.hub.cloud.known or self.finished:
            self.proceed()
        elif not self.answer_here():
            self.hub.when_verdict(self.proceed, self.verdict_wait)

    def suspect(self, server: Server) -> None:
        """
        Have the server probed, and the one to be asked instead: if neither shows life in time, the cache answers.
        """
        other = self.hub.cloud.other(self.tried)
        verdicts = [self.hub.suspect(server, SILENT)]
        if other is not None:
            verdicts.append(self.hub.suspect(other, SILENT))
        gatherResults(verdicts).addCallback(self.verdict, server, other)

    def verdict(self, alive: list[bool], server: Server, other: Server | None) -> None:
        """
        What the probes said of the server this read waits for, and of another one that could be asked.
        """
        if alive[0] or self.started or self.finished or self.server is not server:
            return
        if other is not None and alive[1:] == [True]:
            self.drop_exchange()
            self.send(other)
        elif self.answer_here():
            self.drop_exchange()

    def head_received(self, head: ResponseHead) -> None:
        """
        A load balancer without servers behind it is no answer if another way or the cache has one; any other status is.
        """
        if head.status in LOAD_BALANCER_ERRORS and not self.is_behind(head) and self.answered_elsewhere(head):
            return
        super().head_received(head)

    def is_behind(self, head: ResponseHead) -> bool:
        """
        Whether an API server says that it does not know the ``resourceVersion`` asked for yet.  Its client asks for a state at
        least so new, which the cache cannot promise.
        """
        asked = self.info.query.get("resourceVersion", "0")
        return head.status == 504 and asked not in ("", "0") and is_json(get_header(head.headers, b"content-type"))

    def answered_elsewhere(self, head: ResponseHead) -> bool:
        """
        Ask another server, or answer from the cache, in place of a load balancer's error; false when neither is possible.
        """
        if self.asked_other(head):
            return True
        if self.answer_here():
            self.answered_by_cloud(head)
            self.drop_exchange()
            return True
        return False

    @property
    def late_after(self) -> float:
        """
        What its client tells of its time.
        """
        return SHARE * time_of(self.info)

    def answer_here(self) -> bool:
        """
        The cache's answer, for a caller that is known without the cloud.
        """
        return self.admitted_offline() and self.answer_from_cache()

    def answer_offline(self, error: UpstreamError | None) -> None:
        """
        The cache's answer, or an honest miss.
        """
        if not self.answer_from_cache():
            self.miss()

    def miss(self) -> None:
        """
        Neither the cloud nor the cache can tell.
        """
        self.series.misses += 1
        if self.hub.config.offline_miss == 404 and self.info.is_resource:
            self.answer_status(404, "NotFound", f"{self.describe()}: not in the cache, and the cloud is not reachable")
        else:
            self.unavailable(self.unseen)

    def answer_from_cache(self) -> bool:
        """
        Answer if the cache can; false when it never saw what is asked for.
        """
        if self.finished:
            return True
        self.hub.turns.finish()
        accept = self.accept
        if not accept.json:
            answer_status(self.request, 406, "NotAcceptable", f"{self.describe()}: the cache has JSON only")
            self.done()
            return True
        for form in accept.forms:
            if self.answer_form(form):
                return True
        return False

    def answer_form(self, form: str) -> bool:
        """
        Answer in ``form`` if the cache has it.
        """
        raise AssertionError("a Read is an ObjectRead or a ListRead")

    def shown_now(self, body: bytes, form: str) -> bytes:
        """
        What is kept, as it is to be read at this moment.
        """
        return tell_ages(body, self.hub.now()) if form == TABLE else body

    def respond_cached(
        self,
        body: bytes,
        stored_at: float,
        content_type: bytes = b"application/json",
        status: int = 200,
        more: Headers | None = None,
    ) -> None:
        """
        Send a cached body, with ``more`` headers.
        """
        self.request.respond(status, cached_headers(stored_at, self.hub.now(), content_type) + (more or []), body)
        self.series.from_cache += 1
        self.series.hits += 1
        self.series.local += len(body)
        self.done()

    def holds(self, head: ResponseHead) -> bool:
        """
        What is kept is held anyway, and the cache may have an answer in its place.
        """
        return (head.status == 200 and self.delivery.kept is not None) or super().holds(head)

    def keeps(self, head: ResponseHead) -> bool:
        """
        Keep whole JSON answers, and the news that the resource is served no more, or not to this caller.
        """
        if self.request.head.method != b"GET":
            return False
        is_told = head.status in self.statuses and is_json(get_header(head.headers, b"content-type"))
        return is_told or self.is_refusal(head) or self.is_unserved(head)

    def is_refusal(self, head: ResponseHead) -> bool:
        """
        Whether a caller with a token has lost, or never had, the right to read this.  The node's own components keep what they
        have: an API server whose RBAC is not loaded yet refuses them, too, and the node lives on it.
        """
        is_told = head.status == 403 and is_json(get_header(head.headers, b"content-type"))
        return is_told and self.caller.identity != NODE and not self.info.subresource

    def is_unserved(self, head: ResponseHead) -> bool:
        """
        Whether an API server, and no proxy on the way, says that it has no such resource: its CustomResourceDefinition is gone.
        The core group never goes.
        """
        if head.status != 404 or not self.info.group or self.server is None:
            return False
        is_plain = not is_json(get_header(head.headers, b"content-type"))
        is_settled = self.hub.now() - self.server.last_change >= SETTLED_AFTER
        return (is_plain or self.info.verb == "list") and is_settled and is_of_api_server(head.headers)

    def forget_resource(self) -> None:
        """
        What this caller knows of a resource that is served no more.
        """
        if self.hub.views.forget_resource(self.caller, self.info.gvr):
            what = "{resource} are served no more, and forgotten for {component}"
            self.log.info(what, resource=self.info.gvr, component=self.caller.component)


class ObjectRead(Read):
    """
    GET of one object.
    """

    statuses = frozenset({200, 404})

    def answer_form(self, form: str) -> bool:
        """
        The object, or 404 where a complete view says that there is none.
        """
        info = self.info
        found = self.hub.views.read_object(self.caller, info.gvr, form, info.namespace, info.name)
        if isinstance(found, Found):
            self.respond_cached(self.shown_now(found.body, form), found.stored_at)
            return True
        if found is ABSENT:
            self.absent(form)
            return True
        return False

    def absent(self, form: str) -> None:
        """
        404, as kube-apiserver words it, but with the cache as its origin.
        """
        info = self.info
        kind = f"{info.resource}.{info.group}" if info.group else info.resource
        body = status_body(404, "NotFound", f'{kind} "{info.name}" not found', details=self.details)
        told_at = self.hub.views.absent_at(self.caller, info.gvr, form, info.namespace, info.name)
        self.respond_cached(body, told_at, status=404)

    def gone(self, body: bytes) -> None:
        """
        404 in an API server's own words, not those of a proxy on the way: this caller no longer holds the object through
        single reads.
        """
        info = self.info
        if info.subresource or read_failure(body).reason != "NotFound":
            return
        for form in self.accept.forms:
            self.hub.views.forget_object(self.caller, info.gvr, form, info.namespace, info.name)

    def confirmed(self, head: ResponseHead, body: bytes) -> bool:
        """
        Whether the cache holds these very bytes.
        """
        if head.status != 200:
            return False
        info = self.info
        return self.hub.views.confirm_object(self.caller, info.gvr, info.namespace, info.name, body.rstrip())

    def store(self, head: ResponseHead, body: bytes) -> None:
        """
        The object becomes readable for this caller.
        """
        if self.is_unserved(head):
            self.forget_resource()
            return
        if head.status == 404:
            self.gone(body)
            return
        if head.status == 403:
            if read_failure(body).reason == "Forbidden":
                self.hub.views.forbid_object(self.caller, self.info.gvr, self.info.namespace, self.info.name)
            return
        if self.confirmed(head, body):
            return
        # Without the line end, the object is the same bytes as in a list, and need not be written again.
        body = body.rstrip()
        try:
            kind = read_object(body).kind
        except ObjectError as error:
            self.log.debug("not cached: {what}: {error}", what=self.describe(), error=str(error))
            return
        if kind == "Status":
            return
        form = kind if kind in (TABLE, PARTIAL) else ""
        self.hub.views.store_object(self.caller, self.info.gvr, form, body)
