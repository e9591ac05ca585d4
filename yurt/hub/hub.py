"""
The hub: its parts, and what they do for each other.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from yurt import __version__
from yurt.http.heads import get_header
from yurt.http.interfaces import Headers, ResponseHead, UpstreamError
from yurt.hub.agents import CacheAgents
from yurt.hub.answers import answer_status
from yurt.hub.cache.store import Store
from yurt.hub.cache.views import Caller, Views
from yurt.hub.call import Call
from yurt.hub.cloud import Cloud, Server, is_unserved
from yurt.hub.config import HubConfig
from yurt.hub.deafness import Deafness
from yurt.hub.delivery import MAX_KEPT_BODY
from yurt.hub.documents import Documents
from yurt.hub.exclude import Excluded
from yurt.hub.filters.choice import OURSELVES
from yurt.hub.filters.focus import Filters
from yurt.hub.forward import Forward
from yurt.hub.housekeeping import Housekeeping
from yurt.hub.identity import NODE, Credential, Tokens
from yurt.hub.issuer import IssuerKeys
from yurt.hub.journal import Entry, Journal
from yurt.hub.knowntime import KnownTime
from yurt.hub.lease import LeaseSettings, NodeLease
from yurt.hub.loop import LoopUpstream
from yurt.hub.metrics import HubMetrics
from yurt.hub.nodetoken import NodeToken
from yurt.hub.openlists import OpenLists
from yurt.hub.patience import Patience
from yurt.hub.proxy import HubProxy
from yurt.hub.timers import Timers
from yurt.hub.tokenrequests import TokenAnswers
from yurt.hub.turns import Steps, Turns
from yurt.hub.viewkeys import view_key
from yurt.hub.watches import Watch
from yurt.kube.api import ApiClient
from yurt.kube.requestinfo import parse_request
from yurt.kube.watch import EventReader

PODS_SHARE = 0.5
"""Of the requests in flight, what pods may have at most: they must not take the places of kubelet."""

INSIDE_HEADERS: Headers = [(b"User-Agent", f"{OURSELVES}/{__version__}".encode()), (b"Edge-Cache", b"true")]
"""What the hub says of itself when it asks itself."""

STATUS_FIRST = 0.5
"""Seconds by which journalled statuses precede the resuming watches when the cloud is back."""


class Hub:
    """
    What the requests, the watches and the services of one hub share.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        config: HubConfig,
        cloud: Cloud,
        store: Store,
        views: Views,
        metrics: HubMetrics,
        node_token: NodeToken,
        known_time: KnownTime,
    ) -> None:
        self.reactor = reactor
        self.config = config
        self.cloud = cloud
        self.store = store
        self.views = views
        self.metrics = metrics
        self.node_token = node_token.read
        self.known_time = self.now = now = known_time
        self.excluded = Excluded(config.cache_exclude)
        self.agents = CacheAgents(config.cache_agents, config.agent_aliases)
        self.documents = Documents(store.table("documents"))
        self.tokens = Tokens(store.table("tokens"), self.documents.jwks, now)
        self.token_answers = TokenAnswers(store.table("tokenrequests", secret=b""), now)
        self.journal = Journal(reactor, store.table("journal", secret=b""), cloud, node_token.headers, self.sent, self.refused)
        lease_settings = LeaseSettings(kubelet_grace=config.kubelet_health_grace_period)
        self.issuer_keys = IssuerKeys(reactor, cloud, self.documents, node_token.headers, now)
        self.housekeeping = Housekeeping(self, config.gc_frequency)
        self.lease = NodeLease(reactor, cloud, config.node_name, store.table("meta"), lease_settings)
        self.open_lists = OpenLists(reactor)
        self.patience = Patience(reactor)
        cloud.on_silence(self.leave)
        self.turns = Turns(reactor)
        self.watches: set[Watch] = set()
        self.read_event = EventReader().read
        self.timers = Timers(reactor)
        self.deafness = Deafness(self.timers, self.watches)
        self.filters = Filters(
            reactor,
            config.filters,
            config.node_name,
            store.table("filters"),
            ApiClient(reactor, LoopUpstream(reactor, HubProxy(self)), lambda: INSIDE_HEADERS),
            self.cached_list,
            self.refocus,
            self.add_agents,
        )
        self.unfocused: dict[Watch, None] = {}
        self.verdict: Deferred[None] | None = None
        self.in_flight = 0
        self.pods_in_flight = 0
        self.kept_bytes = 0
        self.buffered_bytes = 0
        self.draining = False

    # Requests

    def carry(self, forward: Forward) -> None:
        """
        Start a request, unless too many are in flight.
        """
        series = forward.series
        if not forward.long_running:
            of_pod = forward.of_pod
            limit = self.config.max_requests_in_flight
            if self.in_flight >= limit or (of_pod and self.pods_in_flight >= max(1, int(limit * PODS_SHARE))):
                self.metrics.rejected += 1
                others = f", {self.pods_in_flight} of them of pods, which may have half" if of_pod else ""
                message = f"{self.in_flight} requests are in flight{others} (--max-requests-in-flight); try again later"
                answer_status(forward.request, 429, "TooManyRequests", message, retry_after=1)
                return
            self.in_flight += 1
            self.pods_in_flight += of_pod
        series.in_flight += 1
        forward.begin()

    def watching(self, watch: Watch) -> None:
        """
        Start a watch; watches are not counted among the requests in flight.
        """
        watch.series.in_flight += 1
        self.deafness.begin()
        watch.begin()

    def ended(self, one: Call | Watch) -> None:
        """
        A request or a watch is over.
        """
        one.series.in_flight -= 1
        if isinstance(one, Call) and not one.long_running:
            self.in_flight -= 1
            self.pods_in_flight -= one.of_pod

    def keep(self, forward: Forward, head: ResponseHead, chunks: list[bytes]) -> None:
        """
        Store a whole answer, after what came before it; most answers say again what is known.
        """
        if len(chunks) == 1 and self.turns.idle and forward.confirmed(head, chunks[0]):
            return
        self.turns.run(lambda: self.take_in(forward, head, chunks), sum(map(len, chunks)), forward.about)

    def decoded(self, head: ResponseHead, body: bytes) -> bytes | None:
        """
        A body without its content encoding; None for an encoding that is not known.  Raises as :func:`gunzip`.
        """
        encoding = (get_header(head.headers, b"content-encoding") or b"identity").lower()
        if encoding == b"gzip":
            return gunzip(body)
        return body if encoding == b"identity" else None

    def take_in(self, forward: Forward, head: ResponseHead, chunks: list[bytes]) -> Steps:
        """
        Store a whole answer now, in steps.  Whatever goes wrong here is not the client's trouble.
        """
        try:
            body = self.decoded(head, b"".join(chunks))
            if body is None:
                return
            steps = forward.store(head, body)
            if steps is not None:
                yield from steps
        except BodyTooLarge as error:
            self.log.warn("{what}: {error}, not cached", what=forward.describe(), error=str(error))
        except Exception:
            self.log.failure("{what} could not be cached", what=forward.describe())

    # The cloud

    def admits_offline(self, credential: Credential, caller: Caller) -> bool:
        """
        Whether a caller is known without the cloud: it is the node, or its token counts; nobody is in another's name.
        """
        if credential.impersonates:
            return False
        if credential.kind == "none":
            return True
        return bool(credential.token) and self.tokens.identity_offline(credential.token) == caller.identity

    def suspect(self, server: Server, reason: str) -> Deferred[bool]:
        """
        A request had no luck with ``server``; fires with whether it is alive after all.
        """
        verdict = self.cloud.suspect(server, reason)
        verdict.addErrback(self._probe_broke)
        return verdict

    def answered_badly(self, server: Server, head: ResponseHead) -> None:
        """
        ``server`` answered a request with a server's error, or a load balancer did in its place.
        """
        if is_unserved(head.status, head.headers) and self.cloud.unserved(server, head.status):
            self.leave(server)
        self.suspect(server, f"it answered {head.status}")

    def _probe_broke(self, failure: object) -> bool:
        self.log.error("a probe broke: {failure}", failure=str(failure))
        return False

    def failed(self, server: Server, error: UpstreamError) -> None:
        """
        A connection to ``server`` failed; that this machine has no socket left is not the server's fault.
        """
        if error.local:
            self.log.warn("{error}", error=str(error))
            return
        self.cloud.failed(server, str(error)).addErrback(self._probe_broke)

    def leave(self, server: Server) -> None:
        """
        ``server`` has fallen silent, or is a load balancer with nothing behind it, while another answers: who can goes on there.
        """
        self.patience.leave(server)
        for watch in list(self.watches):
            watch.attachment.leave(server)

    def when_verdict(self, call: Callable[[], None], seconds: float) -> None:
        """
        Call when the cloud's state is known, at once if it is, at the latest after ``seconds``.
        """
        if self.cloud.known:
            call()
            return
        known = self.cloud.when_known()
        timer = self.reactor.callLater(seconds, known.cancel)

        def go_on(_: object) -> None:
            if timer.active():
                timer.cancel()
            call()

        known.addBoth(go_on)

    def cloud_changed(self, reachable: bool) -> None:
        """
        Back: first what the node has to say, then what it wants to hear.
        """
        if not reachable or self.draining:
            return
        self.journal.start_sending()
        self.issuer_keys.look()
        delay = STATUS_FIRST if len(self.journal) else 0.0
        self.timers.set("resume watches", delay, self._resume_watches)

    def _resume_watches(self) -> None:
        for watch in list(self.watches):
            watch.holding.cloud_returned()

    # Filters

    def cached_list(self, target: bytes) -> bytes | None:
        """
        What the cache holds of a list that the hub itself has asked for.
        """
        found = self.views.read_list(view_key(Caller(NODE, OURSELVES), parse_request(b"GET", target), ""))
        return None if found is None else found.body

    def start_filters(self) -> None:
        """
        Take what the cache holds of what filters depend on, and follow it once it is known whether the cloud is there.
        """
        self.filters.start()
        self.verdict = self.cloud.when_known()
        self.verdict.addCallbacks(lambda _: self.filters.follow(), lambda failure: failure.trap(CancelledError))

    def add_agents(self, names: tuple[str, ...]) -> None:
        """
        Cache the reads of these components, too.
        """
        chosen = CacheAgents(self.config.cache_agents, self.config.agent_aliases)
        patterns = [*chosen.included, *(f"!{name}" for name in chosen.excluded), *names]
        self.agents = CacheAgents(patterns, self.config.agent_aliases)

    def refocus(self) -> None:
        """
        What filters depend on has changed: tell each watch the difference.
        """
        for watch in self.watches:
            if watch.screen.choose():
                self.tell_difference(watch)

    def tell_difference(self, watch: Watch) -> None:
        """
        Let a watch be told what filters show otherwise, when its turn comes: one after the other, a part in each turn of the
        reactor.
        """
        self.unfocused[watch] = None
        self.timers.set("refocus", 0.0, self._refocus_next)

    def _refocus_next(self) -> None:
        watch = next(iter(self.unfocused))
        if not watch.difference.tell():
            del self.unfocused[watch]
        if self.unfocused:
            self.timers.set("refocus", 0.0, self._refocus_next)

    # Local changes

    def publish(self, gvr: str, before: bytes, body: bytes) -> None:
        """
        Tell the held watches that an object was changed here, from ``before`` to ``body``.
        """
        for watch in list(self.watches):
            if watch.info.gvr == gvr:
                watch.holding.publish(before, body)

    def sent(self, target: str, body: bytes) -> None:
        """
        The cloud answered a journalled write; watches bring what it made of it.
        """
        self.log.debug("journalled write to {target} done, {size} bytes came back", target=target, size=len(body))

    def refused(self, entry: Entry) -> None:
        """
        The cloud did not take a journalled write; a status is again what it was before.
        """
        if entry.base:
            self.turns.run(lambda: self.views.take_back(parse_request(b"GET", entry.target.encode()).gvr, entry.base))

    def drain(self) -> None:
        """
        End all watches in good order; requests end by themselves.
        """
        self.draining = True
        if self.verdict is not None:
            self.verdict.cancel()
        self.filters.stop()
        self.timers.cancel_all()
        for watch in list(self.watches):
            if watch.started:
                watch.finish()
            else:
                watch.break_off()


class BodyTooLarge(ValueError):
    """
    An answer is larger, uncompressed, than what is kept.
    """


def gunzip(data: bytes) -> bytes:
    """
    Undo gzip.  Raises BodyTooLarge when that yields more than MAX_KEPT_BODY bytes, zlib.error or ValueError for broken data.
    """
    decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
    body = decoder.decompress(data, MAX_KEPT_BODY)
    if decoder.unconsumed_tail:
        raise BodyTooLarge(f"more than {MAX_KEPT_BODY} bytes")
    if not decoder.eof:
        raise ValueError("gzip: broken off")
    return body
