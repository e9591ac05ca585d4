"""
One call of the API as the hub itself sees it: who asks for what, and what the hub answers where nobody else does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

from yurt.http.interfaces import IncomingRequest
from yurt.hub.answers import RETRY_AFTER_OFFLINE, answer_status, is_for_a_person
from yurt.hub.cache.views import Caller
from yurt.hub.identity import Credential, Door
from yurt.kube.requestinfo import RequestInfo

if TYPE_CHECKING:
    from yurt.hub.hub import Hub

VERDICT_WAIT = 2.5
"""Seconds after which a request no longer waits for the first verdict on the cloud."""

SAFE_METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS"})


class Call:
    """
    A request that is counted from its begin to :meth:`done`, and can be refused with a Status in between.
    """

    log = Logger()

    long_running = False
    """Whether it is counted apart from the requests in flight."""

    finished = False
    failure = ""
    """How the last attempt to have the cloud answer it failed, if one did."""

    def __init__(self, hub: Hub, request: IncomingRequest, info: RequestInfo, caller: Caller, credential: Credential) -> None:
        self.hub = hub
        self.request = request
        self.info = info
        self.caller = caller
        self.credential = credential
        self.of_pod = isinstance(request.door, Door) and not request.door.lends_node_identity
        self.began = hub.reactor.seconds()
        self.series = hub.metrics.series(caller.component, info.verb, info.resource, info.subresource)

    def done(self) -> None:
        """
        Give back the place among the requests in flight, once.
        """
        if self.finished:
            return
        self.finished = True
        self.series.full_latency = self.hub.reactor.seconds() - self.began
        self.hub.ended(self)

    def admitted_offline(self) -> bool:
        """
        Whether the caller is known without the cloud.
        """
        return self.hub.admits_offline(self.credential, self.caller)

    def uncached(self) -> str:
        """
        Why this read is none that is cached; empty when it is one, or no read.
        """
        info = self.info
        if info.verb not in ("get", "list") or not info.is_resource:
            return ""
        if self.hub.excluded.covers(info.group, info.resource):
            return f"{info.resource} are not cached (see --cache-exclude)"
        if not self.hub.agents.cached(self.caller.component):
            return f"what {self.caller.component or 'a client without User-Agent'} reads is not cached (see --cache-agents)"
        return ""

    def unavailable(self, why: str) -> None:
        """
        Answer 503: only the cloud could have done this.  Writes get no Retry-After: clients of Kubernetes' own library would
        repeat them in silence ten times over, and kubectl not say why it waits.
        """
        reason = self.hub.cloud.reason or self.failure or "no answer"
        message = f"{self.describe()}: the cloud is not reachable ({reason}) and {why}"
        retry_after = RETRY_AFTER_OFFLINE if self.request.head.method in SAFE_METHODS else None
        self.answer_status(503, "ServiceUnavailable", message, retry_after=retry_after)

    def describe(self) -> str:
        """
        The request in a few words, for messages.
        """
        info = self.info
        if not info.is_resource:
            return f"{info.verb} {info.path}"
        what = "/".join(part for part in (info.resource, info.subresource) if part)
        which = "/".join(part for part in (info.namespace, info.name) if part)
        return f"{info.verb} {what} {which}".rstrip()

    def answer_status(self, code: int, reason: str, message: str, *, retry_after: int | None = None) -> None:
        """
        Answer with a Status about the object asked for.
        """
        self.series.from_hub += 1
        by_date = is_for_a_person(self.caller.component)
        answer_status(self.request, code, reason, message, details=self.details, retry_after=retry_after, retry_by_date=by_date)
        self.done()

    @property
    def details(self) -> dict[str, str] | None:
        """
        What a Status says of the object asked for.
        """
        info = self.info
        named = (("name", info.name), ("group", info.group), ("kind", info.resource))
        return {key: value for key, value in named if value} or None
