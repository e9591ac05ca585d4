"""
Cached reads: GET and LIST go to the cloud while it answers, and to the cache when it does not.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec
from twisted.internet.defer import gatherResults

from yurt.http.heads import get_header
from yurt.http.interfaces import Headers, RequestHead, ResponseHead, UpstreamError
from yurt.hub.accept import Accept, is_json, narrow, read_accept
from yurt.hub.answers import answer_status, answer_too_large, cached_headers
from yurt.hub.cache.views import ABSENT, LIST_STEP, Caller, Found, FoundList, ViewKey
from yurt.hub.cloud import LOAD_BALANCER_ERRORS
from yurt.hub.forward import Forward
from yurt.hub.identity import NODE
from yurt.hub.server import is_of_api_server
from yurt.kube.listoptions import find_fault
from yurt.kube.objects import PARTIAL, TABLE, ListParts, ObjectError, is_newer, read_object, split_list_in_steps
from yurt.kube.requestinfo import RequestInfo
from yurt.kube.selectors import SelectorError
from yurt.kube.status import read_failure, status_body
from yurt.kube.tables import tell_ages

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from yurt.hub.cloud import Server
    from yurt.hub.turns import Steps

MAX_OPEN_LISTS = 64
"""Paged lists of which some pages have come and the last has not."""

MAX_OPEN_LIST_BYTES = 64 * 1024 * 1024
"""Bytes of their items held until the last page comes."""

SILENT = "no answer to a request"

START_GRACE = 0.1
"""Seconds after which a cached read no longer waits for the first verdict on the cloud."""

SETTLED_AFTER = 30.0
"""Seconds after a server's return for which it is not believed that it does not serve a resource: some answer before they know
all their custom resources."""

OPEN_LIST_LIFETIME = 300.0
"""Seconds that the next page may take; kube-apiserver's own continue tokens live as long."""


class _RowObject(msgspec.Struct):
    kind: str = ""


class _Row(msgspec.Struct):
    object: _RowObject = msgspec.field(default_factory=_RowObject)


class _Rows(msgspec.Struct):
    rows: list[_Row] = []


_decode_rows = msgspec.json.Decoder(_Rows).decode


def view_key(caller: Caller, info: RequestInfo, form: str) -> ViewKey:
    """
    The view that a list or watch of ``caller`` fills.
    """
    return ViewKey(caller, info.gvr, form, info.namespace, info.label_selector, info.field_selector)


def is_too_old(resource_version: str, info: RequestInfo) -> bool:
    """
    Whether a state of that version is older than a list or watch wants it to be.
    """
    asked = info.query.get("resourceVersion", "")
    return asked.isdecimal() and is_newer(asked, resource_version)


class Read(Forward):
    """
    A GET or LIST of an object that is cached.
    """

    statuses = frozenset({200})
    """Those of the answers that tell the cache something."""

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
        elif not (self.admitted_offline() and self.answer_from_cache()):
            self.hub.when_verdict(self.proceed)

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
        elif self.admitted_offline() and self.answer_from_cache():
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
        if self.admitted_offline() and self.answer_from_cache():
            self.answered_by_cloud(head)
            self.drop_exchange()
            return True
        return False

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
            self.unavailable("the cache never saw this for this caller")

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


class ListRead(Read):
    """
    LIST of a collection.
    """

    known_versions: Mapping[str, str] = {}
    """How far the views in question were, by their forms, when the list was asked for."""
    newest_known = ""
    """The resourceVersion of a view that is older than the list is to be."""

    def send(self, server: Server) -> None:
        """
        Events may overtake the list on its way.
        """
        forms = self.accept.forms
        views = ((form, self.hub.views.view(view_key(self.caller, self.info, form))) for form in forms)
        self.known_versions = {form: view.resource_version for form, view in views if view is not None}
        super().send(server)

    def answer_from_cache(self) -> bool:
        """
        As for any read; a continue token of the cloud cannot be honoured, the client begins anew.
        """
        fault = None if self.finished else find_fault(self.info.query, watch=False)
        if fault is not None:
            self.answer_status(fault.code, fault.reason, f"{self.describe()}: {fault.message}")
            return True
        if self.info.query.get("continue") and not self.finished:
            message = f"{self.describe()}: the list cannot go on from the cache; begin it anew without the continue token"
            self.answer_status(410, "Expired", message, retry_after=None)
            return True
        if super().answer_from_cache():
            return True
        if self.newest_known:
            self.series.from_hub += 1
            answer_too_large(self.request, self.info.query["resourceVersion"], self.newest_known, self.details)
            self.done()
        return self.finished

    def answer_form(self, form: str) -> bool:
        """
        The list that a complete view yields.
        """
        try:
            found: FoundList | None = self.hub.views.read_list(view_key(self.caller, self.info, form))
        except SelectorError as error:
            self.answer_status(400, "BadRequest", f"{self.describe()}: {error}")
            return True
        if found is None:
            return False
        if self.wants_another_state(found.resource_version) or (form == TABLE and self.lacks_objects(found.body)):
            return False
        if is_too_old(found.resource_version, self.info):
            self.newest_known = found.resource_version
            return False
        self.respond_cached(self.shown_now(found.body, form), found.stored_at)
        return True

    def wants_another_state(self, resource_version: str) -> bool:
        """
        Whether the list is asked for as it was at exactly one version, and that is not the cache's.
        """
        query = self.info.query
        return query.get("resourceVersionMatch") == "Exact" and query.get("resourceVersion") != resource_version

    def lacks_objects(self, table: bytes) -> bool:
        """
        Whether the rows of a Table are to hold whole objects (as for ``kubectl get --sort-by``), and the cache's do not.
        """
        if self.info.query.get("includeObject") != "Object":
            return False
        return any(row.object.kind == PARTIAL for row in _decode_rows(table).rows)

    @property
    def about(self) -> ViewKey:
        """
        The view in question.
        """
        return view_key(self.caller, self.info, "")

    def store(self, head: ResponseHead, body: bytes) -> Steps:
        """
        A page; with the last one the view is complete.
        """
        if self.is_unserved(head):
            self.forget_resource()
            return
        if head.status == 403:
            if read_failure(body).reason == "Forbidden" and self.hub.views.forbid_list(self.about):
                self.log.info("{what}: forbidden to {who} now, and forgotten", what=self.describe(), who=self.caller.identity)
            return
        try:
            parts = yield from split_list_in_steps(body, LIST_STEP)
        except ObjectError as error:
            self.log.debug("not cached: {what}: {error}", what=self.describe(), error=str(error))
            return
        whole = self.hub.open_lists.add(self.caller, self.info, parts, self.known_versions.get(parts.form, ""))
        if whole is not None:
            key = view_key(self.caller, self.info, parts.form)
            yield from self.hub.views.store_list_in_steps(
                key, whole.parts, requested_version=whole.requested_version, known_version=whole.known_version
            )


@dataclass(frozen=True, slots=True)
class WholeList:
    """
    A list with all its pages; ``requested_version`` is the ``resourceVersion`` of the request that began it, ``known_version``
    that of its view at that time.
    """

    parts: ListParts
    requested_version: str
    known_version: str


@dataclass(slots=True)
class _OpenList:
    whole: WholeList
    size: int
    since: float


class OpenLists:
    """
    Paged lists on their way: pages are put together until the last has come.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._open: OrderedDict[tuple[ViewKey, str], _OpenList] = OrderedDict()
        self._size = 0

    def add(self, caller: Caller, info: RequestInfo, parts: ListParts, known_version: str) -> WholeList | None:
        """
        Take a page; the whole list when it was the last one.
        """
        self._expire()
        key = view_key(caller, info, parts.form)
        token = info.query.get("continue", "")
        size = sum(len(body) for _, body in parts.items) if token or parts.continue_token else 0
        if token:
            before = self._open.pop((key, token), None)
            if before is None:
                return None
            self._size -= before.size
            whole = replace(before.whole, parts=_join(before.whole.parts, parts))
            size += before.size
        else:
            whole = WholeList(parts, info.query.get("resourceVersion", ""), known_version)
        if not parts.continue_token:
            return whole
        self._open[(key, parts.continue_token)] = _OpenList(whole, size, self._reactor.seconds())
        self._size += size
        while len(self._open) > MAX_OPEN_LISTS or self._size > MAX_OPEN_LIST_BYTES:
            _, dropped = self._open.popitem(last=False)
            self._size -= dropped.size
        return None

    def _expire(self) -> None:
        limit = self._reactor.seconds() - OPEN_LIST_LIFETIME
        while self._open:
            key, oldest = next(iter(self._open.items()))
            if oldest.since > limit:
                return
            del self._open[key]
            self._size -= oldest.size


def _join(first: ListParts, page: ListParts) -> ListParts:
    return ListParts(
        kind=first.kind,
        api_version=first.api_version,
        resource_version=first.resource_version,
        continue_token=page.continue_token,
        form=first.form,
        items=[*first.items, *page.items],
        table_columns=first.table_columns or page.table_columns,
    )
