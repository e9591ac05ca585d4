"""
Watches: responses to clients that outlive the connections to the cloud behind them.

    (ATTACHED)  frames arrive from the cloud, go to the client and to the cache
                the upstream ends or breaks off, before the client's own timeout -> HOLDING
    (HOLDING)   nothing arrives; BOOKMARKs if asked for, local changes while offline
                the cloud is there -> ATTACHED, resumed at the last resourceVersion that the client knows
                the cloud says 410 -> unless nothing has changed: an ERROR event, the end
    either      the client's timeout passes, or it hangs up -> the end

Only whole events are passed on, and upstream is resumed after the last of them, so none is lost and none comes twice.  The
hub always asks for bookmarks, which keep the resume point fresh, and passes them on to those who asked for them too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

from yurt.http.heads import get_header, without
from yurt.http.interfaces import IncomingRequest, RequestHead, ResponseHead, UpstreamError
from yurt.hub.accept import read_accept
from yurt.hub.answers import FROM_CLOUD, answer_status, name_source
from yurt.hub.attempt import Attempt, watch_target
from yurt.hub.cache.views import Caller
from yurt.hub.cloud import LOAD_BALANCER_ERRORS, SERVER_ERRORS
from yurt.hub.deadline import Deadline
from yurt.hub.difference import Difference
from yurt.hub.expiry import Expiry
from yurt.hub.filtered import NO_JSON
from yurt.hub.holding import Holding
from yurt.hub.identity import Credential
from yurt.hub.offlinewatch import begin_offline, is_admitted
from yurt.hub.progress import Progress
from yurt.hub.resumption import Resumption
from yurt.hub.screen import Screen
from yurt.hub.timers import Timers
from yurt.hub.viewfeed import ViewFeed
from yurt.hub.watchstream import WatchStream
from yurt.kube.requestinfo import RequestInfo
from yurt.kube.watch import BOOKMARK, ERROR, WatchError, WatchEvent, read_protobuf_event

if TYPE_CHECKING:
    from yurt.hub.cloud import Server
    from yurt.hub.hub import Hub

LASTING = 5.0
"""Seconds after which an upstream response counts as a good one even if nothing came."""

REFUSAL_TIMEOUT = 1.0
"""Seconds that the body of a refusal may take which the client need not see."""

HALF_CLOSED = 1.0
"""Seconds without a byte after which a client that ended its direction is taken to have closed its connection, which looks the
same; kube-apiserver does so at once."""

NOT_CACHED = "what this client reads is not cached"


class Watch:
    """
    One client's watch.  ``cached`` tells whether its events are kept.
    """

    log = Logger()
    long_running = True

    def __init__(
        self, hub: Hub, request: IncomingRequest, info: RequestInfo, caller: Caller, credential: Credential, cached: bool
    ) -> None:
        self.hub = hub
        self.request = request
        self.info = info
        self.caller = caller
        self.credential = credential
        self.accept = read_accept(get_header(request.head.headers, b"accept"))
        if len(self.accept.forms) > 1 and hub.filters.covers(caller.component, info):
            self.accept = self.accept.plain
        self.cached = cached and self.accept.json
        self.progress = Progress(info.query)
        self.feed = ViewFeed(hub, info, caller, self.accept, self.progress)
        self.screen = Screen(hub, info, caller)
        self.stream = WatchStream(request)
        self.started = False
        self.finished = False
        self.passing = False
        self.attempt: Attempt | None = None
        self.resumed = False
        self.resumption = Resumption(hub.cloud)
        self.timers = Timers(hub.reactor)
        self.deadline = Deadline(self)
        self.holding = Holding(self)
        self.expiry = Expiry(self)
        self.difference = Difference(self)
        self.series = hub.metrics.series(caller.component, "watch", info.resource, info.subresource)

    # The beginning

    def begin(self) -> None:
        """
        Watch, with the cloud or without it.
        """
        self.hub.watches.add(self)
        self.request.when_lost(self.end, HALF_CLOSED)
        self.hub.when_verdict(self.proceed)

    def proceed(self) -> None:
        """
        The one decision: cloud, or not.
        """
        if self.finished:
            return
        self.deadline.begin()
        if not self.screen.begin(self.progress) if self.cached else self.screen.is_left_over(self.progress):
            self.send_back()
            return
        server = self.hub.cloud.pick()
        if server is None:
            begin_offline(self)
            return
        self.attach(server)

    def send_back(self) -> None:
        """
        Nobody knows through which filters the client has listed: it has to list anew.
        """
        answer_status(self.request, 410, "Expired", self.filtered_otherwise)
        self.end()

    @property
    def filtered_otherwise(self) -> str:
        """
        Why the client has to list anew.
        """
        return f"watch {self.info.resource}: what filters show here has changed; list anew"

    def start(self, head: ResponseHead, source: tuple[bytes, bytes]) -> None:
        """
        Begin the client's response.
        """
        self.started = True
        head.headers += self.hub.filters.warnings(self.caller.component, self.info, self.unfilterable)
        if source is FROM_CLOUD:
            self.series.from_cloud += 1
        else:
            self.series.from_cache += 1
        name_source(head, source)
        self.request.start(head)
        if self.screen.behind:
            self.hub.tell_difference(self)

    @property
    def unfilterable(self) -> str:
        """
        Why no filter is applied to this watch; empty when they are.
        """
        if not self.accept.json or self.stream.protobuf:
            return NO_JSON
        if not self.cached:
            return NOT_CACHED
        return "" if "" in self.accept.forms else f"the client takes {', '.join(self.accept.forms)} only"

    # Attached

    def attach(self, server: Server, *, fresh: bool = False) -> None:
        """
        Send the watch to ``server``, with ``fresh`` over a new connection.
        """
        self.resumed = self.started
        if self.cached:
            self.feed.prepare()
        attempt = self.attempt = Attempt(self, self.hub.cloud, server, fresh=fresh)
        upstream = server.upstream if self.credential.kind == "none" else server.bare
        attempt.exchange = upstream.send(self.upstream_head(), attempt, fresh=fresh)
        self.hub.patience.watch(self)

    @property
    def awaits_more(self) -> bool:
        """
        Whether the cloud has not begun to answer the present attempt; after that it may be silent for long.
        """
        return self.attempt is not None and not self.attempt.status

    def impatient(self) -> None:
        """
        No answer has begun for a while: have the server probed.  When it lives, it may be the connection that is dead.
        """
        attempt = self.attempt
        if attempt is None:
            return
        attempt.looks += 1
        if attempt.is_to_be_anew:
            attempt.drop()
            self.attach(attempt.server, fresh=True)
        elif attempt.is_to_be_probed:
            self.hub.suspect(attempt.server, "no answer to a watch")

    def leave(self, server: Server) -> None:
        """
        ``server`` has fallen silent, and another one has not: go on there, unless half of the initial state came.
        """
        attempt = self.attempt
        if attempt is None or attempt.server is not server or self.passing or (self.started and self.is_whole_state_due()):
            return
        self.begin_anew()

    def begin_anew(self) -> None:
        """
        Nothing comes of the present attempt any more: go on by another one.
        """
        attempt = self.attempt
        if attempt is not None:
            attempt.drop()
            self.attempt_ended(attempt, UpstreamError(f"{attempt.server.name}: silent"))

    def upstream_head(self) -> RequestHead:
        """
        The watch as the cloud gets it: from the version reached, with bookmarks, for the time that is left.
        """
        head = self.request.head
        resumed = self.started and not self.progress.initial
        target = watch_target(head.target, self.progress.version, self.deadline.remaining, resumed=resumed)
        headers = without(head.headers, b"edge-cache", b"accept-encoding")
        if self.cached or (self.started and not self.stream.protobuf):
            headers = [*without(headers, b"accept"), (b"Accept", self.accept.narrowed)]
        token = self.hub.node_token() if self.credential.kind == "none" else None
        if token is not None:
            headers.append((b"Authorization", b"Bearer " + token))
        return RequestHead(head.method, target, headers, head.http10)

    def attempt_began(self, attempt: Attempt, head: ResponseHead) -> None:
        """
        The cloud answers: a stream of events, or a refusal.
        """
        if attempt is not self.attempt:
            return
        self.hub.patience.forget(self)
        if attempt.fresh:
            attempt.server.distrust_connections()
        if head.status in SERVER_ERRORS:
            self.hub.answered_badly(attempt.server, head)
        else:
            self.hub.cloud.served(attempt.server)
        if self.credential.token:
            self.hub.tokens.learn(self.credential.token, head)
        if head.status == 200:
            self.resumption.accepted()
            attempt.began = self.hub.reactor.seconds()
            self.stream.expect(get_header(head.headers, b"content-type"))
            self.passing = self.passing or self.stream.transparent
            if not self.started:
                self.start(head, FROM_CLOUD)
        elif not self.started and not self.may_recover(attempt):
            self.passing = True
            self.stream.expect_nothing_known()
            self.start(head, FROM_CLOUD)
        else:
            self.timers.set("refusal", REFUSAL_TIMEOUT, lambda: self.cut_refusal(attempt))
        self.request.produce_from(attempt.exchange)

    def cut_refusal(self, attempt: Attempt) -> None:
        """
        Its status is known, and its body does not end.
        """
        attempt.refusal.clear()
        attempt.drop()
        self.attempt_ended(attempt, None)

    def may_recover(self, attempt: Attempt) -> bool:
        """
        Whether an error status need not reach the client, because the watch can begin in another way.
        """
        status = attempt.status
        if status in SERVER_ERRORS and self.resumption.has_other(attempt.server):
            return True
        if status in LOAD_BALANCER_ERRORS:
            return self.accept.json and is_admitted(self)
        return status == 410 and bool(self.progress.known_version)

    def received(self, attempt: Attempt, data: bytes) -> None:
        """
        Bytes of the stream: pass on what makes whole events.
        """
        if attempt is not self.attempt:
            return
        attempt.fruitful = True
        attempt.quiet = 0
        self.hub.cloud.answered(attempt.server)
        self.series.received += len(data)
        if self.stream.transparent:
            self.request.write(data)
            return
        try:
            frames = self.stream.frames(data)
        except WatchError as error:
            self.log.error("watch {resource} is broken off: {error}", resource=self.info.resource, error=str(error))
            self.request.abort()
            self.end()
            return
        lines: list[bytes] = []
        for frame in frames:
            if not self.take(frame, lines):
                break
        else:
            if self.cached and not self.stream.protobuf:
                lines.append(self.screen.mark(self.progress))
        self.stream.write(lines)
        if self.screen.behind:
            self.hub.tell_difference(self)

    def take(self, frame: bytes, lines: list[bytes]) -> bool:
        """
        One event: for the client's ``lines``, for the cache, for the resume point; false when it was the last.
        """
        try:
            event = read_protobuf_event(frame) if self.stream.protobuf else self.hub.read_event(frame)
        except WatchError as error:
            self.log.warn(
                "watch {resource}: passed on without understanding it: {error}", resource=self.info.resource, error=str(error)
            )
            lines.append(self.stream.encode(frame))
            return True
        if event.type == ERROR:
            return self.take_error(event, frame, lines)
        if event.type == BOOKMARK and not event.initial_events_end and self.attempt is not None:
            self.attempt.marked = True
        if self.cached and not self.stream.protobuf:
            self.feed.keep(event)
        if self.progress.told(event, self.hub.reactor.seconds()):
            is_filtered = self.screen.filters and not self.stream.protobuf
            lines.append(self.screen.show(event, frame) if is_filtered else self.stream.encode(frame))
        elif not self.stream.protobuf:
            self.screen.repeated(event)
        return True

    def take_error(self, event: WatchEvent, frame: bytes, lines: list[bytes]) -> bool:
        """
        An ERROR event ends a watch, but only 410 ends it for the client; after all else it is resumed.
        """
        attempt, self.attempt = self.attempt, None
        if attempt is not None:
            attempt.drop()
            self.resumption.failed(attempt.server)
        if event.status_code == 410 and self.progress.known_version:
            self.expiry.give_up_gap()
        elif event.status_code == 410 and self.resumed and attempt is not None:
            self.stream.write(lines)
            lines.clear()
            self.expiry.too_old(attempt.server, lambda: self.end_with(frame))
        elif event.status_code == 410 or not self.progress.version:
            self.stream.write(lines)
            lines.clear()
            self.end_with(frame)
        else:
            self.holding.hold()
        return False

    def end_with(self, frame: bytes) -> None:
        """
        Pass on a last event.
        """
        self.stream.write([self.stream.encode(frame)])
        self.finish()

    def attempt_ended(self, attempt: Attempt, error: UpstreamError | None) -> None:
        """
        The upstream response is over, in good order or not.
        """
        if attempt is not self.attempt:
            return
        self.attempt = None
        self.hub.patience.forget(self)
        if error is not None:
            if attempt.status:
                self.hub.suspect(attempt.server, f"a watch broke off: {error}")
            else:
                self.hub.failed(attempt.server, error)
        if self.passing:
            if error is None:
                self.finish()
            else:
                self.request.abort()
                self.end()
        elif self.started and attempt.status not in (0, 200):
            self.refused(attempt)
        elif attempt.status == 410:
            self.expiry.give_up_gap()
        elif not self.started:
            self.first_attempt_failed(attempt)
        elif error is None and self.deadline.is_close:
            self.finish()
        elif self.is_whole_state_due():
            self.request.abort()  # half of the initial state cannot be resumed
            self.end()
        else:
            was_good = attempt.fruitful or self.hub.reactor.seconds() >= attempt.began + LASTING
            if was_good:
                self.resumption.bore_fruit()
            if error is not None or not was_good:
                self.resumption.failed(attempt.server)
            self.holding.hold()

    def is_whole_state_due(self) -> bool:
        """
        Whether a break would leave the client with half of the state that its watch begins with.
        """
        if self.progress.initial:
            return True
        return not self.stream.transparent and self.progress.is_torn(self.stream.pending, self.hub.reactor.seconds())

    def first_attempt_failed(self, attempt: Attempt) -> None:
        """
        No server has answered yet: try another, or begin without.
        """
        self.resumption.failed(attempt.server)
        other = self.resumption.choose_other()
        if other is not None:
            self.attach(other)
        else:
            begin_offline(self)

    def refused(self, attempt: Attempt) -> None:
        """
        A resumed watch got an error status.
        """
        if attempt.status == 410:
            if self.progress.known_version:
                self.expiry.give_up_gap()
            else:
                body = b"".join(attempt.refusal)
                self.expiry.too_old(attempt.server, lambda: self.expired(body))
            return
        if self.resumption.is_refused_for_good(attempt.status, self.hub.reactor.seconds()):
            self.log.info(
                "watch {resource} ended: the cloud answers {status}", resource=self.info.resource, status=attempt.status
            )
            self.finish()
            return
        self.resumption.failed(attempt.server)
        self.holding.hold()

    def expired(self, body: bytes) -> None:
        """
        The resume point is too old: tell the client, which lists anew.
        """
        self.screen.recorded = False
        self.stream.show_expired(body, self.progress.version)
        self.finish()

    # The end

    def finish(self) -> None:
        """
        End the response in good order.
        """
        if not self.finished:
            self.request.finish()
            self.end()

    def end(self) -> None:
        """
        Let go of everything.
        """
        if self.finished:
            return
        self.finished = True
        if self.started:
            self.screen.end(self.progress)
        self.hub.patience.forget(self)
        attempt, self.attempt = self.attempt, None
        if attempt is not None:
            attempt.drop()
        self.expiry.end()
        self.difference.end()
        self.timers.cancel_all()
        self.hub.watches.discard(self)
        self.hub.ended(self)
