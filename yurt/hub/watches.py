"""
Watches: responses to clients that outlive the connections to the cloud behind them.

    (ATTACHED)  frames arrive from the cloud, go to the client and to the cache
                the upstream ends or breaks off, before the client's own timeout -> HOLDING
    (HOLDING)   nothing arrives; BOOKMARKs if asked for, local changes while offline
                the cloud is there -> ATTACHED, resumed at the last resourceVersion that the client knows
                the cloud says 410 -> an ERROR event, the end
    either      the client's timeout passes, or it hangs up -> the end

Only whole events are passed on, and upstream is resumed after the last of them, so none is lost and none comes twice.  The
hub always asks for bookmarks, which keep the resume point fresh, and passes them on to those who asked for them too.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from msgspec import structs
from twisted.logger import Logger

from yurt.http.heads import get_header, without
from yurt.http.interfaces import IncomingRequest, RequestHead, ResponseHead, UpstreamError
from yurt.hub.accept import is_json, read_accept
from yurt.hub.answers import FROM_CACHE, FROM_CLOUD, RETRY_AFTER_OFFLINE, answer_status, cached_headers, name_source
from yurt.hub.attempt import Attempt, watch_target
from yurt.hub.cache.views import Caller, Found, FoundList, InitialEvents
from yurt.hub.cloud import LOAD_BALANCER_ERRORS
from yurt.hub.identity import Credential
from yurt.hub.reads import view_key
from yurt.hub.timers import Timers
from yurt.kube.objects import is_newer, read_object, split_list
from yurt.kube.requestinfo import RequestInfo, is_true
from yurt.kube.selectors import SelectorError, compile_selection
from yurt.kube.status import status_body
from yurt.kube.watch import (
    ADDED,
    BOOKMARK,
    DELETED,
    ERROR,
    MODIFIED,
    JSONFramer,
    ProtobufFramer,
    WatchError,
    WatchEvent,
    encode_bookmark,
    encode_error,
    encode_event,
    encode_protobuf_bookmark,
    encode_protobuf_error,
    read_protobuf_event,
)

if TYPE_CHECKING:
    from yurt.hub.cloud import Server
    from yurt.hub.hub import Hub

BOOKMARK_INTERVAL = 60.0
"""Seconds between the bookmarks of a watch that is held, as often as kube-apiserver sends them."""

RESUME_JITTER = 1.0
"""Watches resume spread over so many seconds after the cloud is back."""

RESUME_PAUSE = 1.0
"""Seconds between attempts of one watch, doubled up to MAX_RESUME_PAUSE while they bear no fruit."""

MAX_RESUME_PAUSE = 15.0

REFUSED_FOR = 30.0
"""Seconds during which 401, 403 and 404 to a resumed watch are tried again: an API server that has just started gives them
out until its authorizer has caught up."""

REFUSAL_TIMEOUT = 1.0
"""Seconds that the body of a refusal may take which the client need not see."""

STATE_SETTLES = 1.0
"""Seconds without a further event after which the state that a watch begins with is taken for told: servers send it in one go."""

TIMEOUT_SLACK = 5.0
"""Seconds that the cloud may take longer than the client's timeoutSeconds to end a watch."""

HALF_CLOSED = 1.0
"""Seconds without a byte after which a client that ended its direction is taken to have closed its connection, which looks the
same; kube-apiserver does so at once."""

PROTOBUF_WATCH = b"application/vnd.kubernetes.protobuf"


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
        self.cached = cached and self.accept.json and not info.name
        self.key = view_key(caller, info, self.accept.forms[0] if self.accept.forms else "")
        self.started = False
        self.finished = False
        self.passing = False
        self.attempt: Attempt | None = None
        self.tried: list[Server] = []
        self.framer: JSONFramer | ProtobufFramer | None = None
        self.protobuf = False
        query = info.query
        self.version = query.get("resourceVersion", "")
        self.known_version = ""
        self.initial_events: InitialEvents | None = None
        self.bookmarks = is_true(query.get("allowWatchBookmarks"))
        self.initial = is_true(query.get("sendInitialEvents"))
        self.from_now = "sendInitialEvents" in query and not self.initial
        self.telling_state = self.begins_with_state
        self.told_at = -inf
        self.stalled = False
        self.kind = ""
        self.api_version = ""
        self.resume_pause = RESUME_PAUSE
        self.refused_since: float | None = None
        seconds = query.get("timeoutSeconds", "")
        self.ends_at = hub.reactor.seconds() + int(seconds) if seconds.isdecimal() and int(seconds) else None
        self.timers = Timers(hub.reactor)
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
        if self.ends_at is not None:
            self.timers.set("timeout", self.ends_at - self.hub.reactor.seconds(), self.timed_out)
        server = self.hub.cloud.pick()
        if server is None:
            self.begin_offline()
            return
        self.attach(server)

    @property
    def begins_with_state(self) -> bool:
        """
        Whether the first events tell what exists, rather than what changes.
        """
        return self.initial or (self.version in ("", "0") and not self.from_now)

    def prepare_view(self) -> None:
        """
        Tell the cache from where on events will come.
        """
        if self.initial:
            self.hub.turns.finish()
            self.initial_events = self.hub.views.begin_initial(self.key)
        elif self.begins_with_state:
            self.initial_events = InitialEvents()  # the first bookmark ends it, see keep()
        else:
            self.initial_events = None
            if not self.hub.turns.expects(view_key(self.caller, self.info, "")):  # a list of it that is still taken in
                self.close_gap()
            begin_watch = self.hub.views.begin_watch
            self.hub.turns.run(partial(begin_watch, self.key, self.version, thaw=self.may_thaw()))

    def close_gap(self) -> None:
        """
        If the view on disk is older than what the client has seen, let the cloud repeat what the view missed.
        """
        view = None if self.version in ("", "0") else self.hub.views.view(self.key)
        if view is None or not view.complete or not view.resource_version or (view.frozen and not self.may_thaw()):
            return
        if is_newer(self.version, view.resource_version):
            if not self.known_version or is_newer(self.version, self.known_version):
                self.known_version = self.version
            self.version = view.resource_version

    def may_thaw(self) -> bool:
        """
        Whether a view that missed events while the disk was broken can have them now.  Those of another watch, which is further
        on already, would make it take the repeated ones for old.
        """
        others = (watch for watch in self.hub.watches if watch is not self and watch.key == self.key)
        return self.hub.store.problem is None and not any(watch.attempt is not None for watch in others)

    def begin_offline(self) -> None:
        """
        Start the response without the cloud: what the cache has first, if the client asked for the present state.
        """
        if not self.admitted_offline():
            message = (
                f"watch {self.info.resource}: the cloud is not reachable, and these credentials cannot be verified without it"
            )
            answer_status(self.request, 401, "Unauthorized", message)
            self.end()
            return
        if not self.accept.json:
            self.unavailable("the cache has JSON only")
            return
        self.hub.turns.finish()
        lines: list[bytes] = []
        if self.initial or self.version in ("", "0"):
            found = self.find_state()
            if found is None:
                self.unavailable("the cache never saw this for this caller")
                return
            self.version, self.kind, self.api_version = found.resource_version, found.kind.removesuffix("List"), found.api_version
            if not self.from_now:
                lines = [self.encode_item(ADDED, body) for _, body in split_list(found.body).items]
            if self.initial and self.bookmarks:
                lines.append(encode_bookmark(self.kind, self.api_version, self.version, initial_events_end=True))
            self.initial = False
        self.framer = JSONFramer()
        view, now = self.hub.views.view(self.key), self.hub.now()
        headers = cached_headers(view.updated_at if view is not None else now, now)
        self.start(ResponseHead(200, b"OK", headers), FROM_CACHE)
        self.write(lines)
        self.hold()

    def find_state(self) -> FoundList | None:
        """
        What the cache holds of what is watched, in the first form that the client takes and the cache has.
        """
        for form in self.accept.forms:
            key = view_key(self.caller, self.info, form)
            found = self.hub.views.read_list(key)
            if found is not None:
                self.key = key
                return found
        return None

    def admitted_offline(self) -> bool:
        """
        Whether the caller is known without the cloud.
        """
        return self.hub.admits_offline(self.credential, self.caller)

    def encode_item(self, event_type: str, body: bytes) -> bytes:
        """
        An event about an item as the cache holds it; a Table's item is a row and travels in a Table of its own.
        """
        if self.key.form == "Table":
            body = b'{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{},"columnDefinitions":[],"rows":[%b]}' % body
        return encode_event(event_type, body)

    def start(self, head: ResponseHead, source: tuple[bytes, bytes]) -> None:
        """
        Begin the client's response.
        """
        self.started = True
        if source is FROM_CLOUD:
            self.series.from_cloud += 1
        else:
            self.series.from_cache += 1
        name_source(head, source)
        self.request.start(head)

    def unavailable(self, why: str) -> None:
        """
        Answer 503.
        """
        message = f"watch {self.info.resource}: the cloud is not reachable ({self.hub.cloud.reason or 'no answer'}) and {why}"
        answer_status(self.request, 503, "ServiceUnavailable", message, retry_after=RETRY_AFTER_OFFLINE)
        self.end()

    # Attached

    def attach(self, server: Server) -> None:
        """
        Send the watch to ``server``.
        """
        if self.cached:
            self.prepare_view()
        attempt = self.attempt = Attempt(self, server)
        upstream = server.upstream if self.credential.kind == "none" else server.bare
        attempt.exchange = upstream.send(self.upstream_head(), attempt)
        self.hub.patience.watch(self)

    @property
    def awaits_head(self) -> bool:
        """
        Whether the cloud has not begun to answer the present attempt.
        """
        return self.attempt is not None and not self.attempt.status

    def impatient(self) -> None:
        """
        No answer has begun for a while: have the server probed.
        """
        if self.attempt is not None:
            self.hub.suspect(self.attempt.server, "no answer to a watch")

    def upstream_head(self) -> RequestHead:
        """
        The watch as the cloud gets it: from the version reached, with bookmarks, for the time that is left.
        """
        head = self.request.head
        remaining = None if self.ends_at is None else max(1, round(self.ends_at - self.hub.reactor.seconds()))
        target = watch_target(head.target, self.version, remaining, resumed=self.started and not self.initial)
        headers = without(head.headers, b"edge-cache", b"accept-encoding")
        if self.cached or (self.started and not self.protobuf):
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
        if head.status in LOAD_BALANCER_ERRORS:
            self.hub.suspect(attempt.server, f"it answered {head.status}")
        else:
            self.hub.cloud.answered(attempt.server)
        if self.credential.token:
            self.hub.tokens.learn(self.credential.token, head)
        if head.status == 200:
            self.refused_since = None
            self.choose_framer(get_header(head.headers, b"content-type"))
            if not self.started:
                self.start(head, FROM_CLOUD)
        elif not self.started and not self.may_recover(head.status):
            self.passing = True
            self.framer = None
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

    def may_recover(self, status: int) -> bool:
        """
        Whether an error status need not reach the client, because the watch can begin in another way.
        """
        if status in LOAD_BALANCER_ERRORS:
            return self.accept.json and self.admitted_offline()
        return status == 410 and bool(self.known_version)

    def choose_framer(self, content_type: bytes | None) -> None:
        """
        A new attempt begins with a clean framer; an unknown type is passed through and cannot be resumed.
        """
        self.protobuf = (content_type or b"").startswith(PROTOBUF_WATCH)
        if is_json(content_type):
            self.framer = JSONFramer()
        elif self.protobuf:
            self.framer = ProtobufFramer()
        else:
            self.framer = None
            self.passing = True

    def received(self, attempt: Attempt, data: bytes) -> None:
        """
        Bytes of the stream: pass on what makes whole events.
        """
        if attempt is not self.attempt:
            return
        attempt.fruitful = True
        self.series.received += len(data)
        if self.framer is None:
            self.request.write(data)
            return
        try:
            frames = self.framer.feed(data)
        except WatchError as error:
            self.log.error("watch {resource} is broken off: {error}", resource=self.info.resource, error=str(error))
            self.request.abort()
            self.end()
            return
        lines: list[bytes] = []
        for frame in frames:
            if not self.take(frame, lines):
                break
        self.write(lines)

    def take(self, frame: bytes, lines: list[bytes]) -> bool:
        """
        One event: for the client's ``lines``, for the cache, for the resume point; false when it was the last.
        """
        try:
            event = read_protobuf_event(frame) if self.protobuf else self.hub.read_event(frame)
        except WatchError as error:
            self.log.warn(
                "watch {resource}: passed on without understanding it: {error}", resource=self.info.resource, error=str(error)
            )
            lines.append(self.encode_frame(frame))
            return True
        if event.type == ERROR:
            return self.take_error(event, frame, lines)
        if event.kind and not self.kind:
            self.kind, self.api_version = event.kind, event.api_version
        if self.cached and not self.protobuf:
            self.keep(event)
        version = event.meta.resource_version
        known = bool(self.known_version) and not is_newer(version, self.known_version)
        if version and is_newer(version, self.version):
            self.version = version
        if self.known_version and not known:
            self.known_version = ""
        if event.initial_events_end:
            self.initial = False
        if self.telling_state:
            self.telling_state = event.type == ADDED
            self.told_at = self.hub.reactor.seconds()
        if not known and (event.type != BOOKMARK or self.bookmarks):
            lines.append(self.encode_frame(frame))
        return True

    def keep(self, event: WatchEvent) -> None:
        """
        Let the cache know.
        """
        if event.form != self.key.form:
            self.key = view_key(self.caller, self.info, event.form)
        if event.type == BOOKMARK and self.initial_events is not None and not self.initial:
            event = structs.replace(event, initial_events_end=True)  # all that existed at the beginning has been told before it
        self.hub.turns.run(partial(self.hub.views.apply_event, self.key, event, self.initial_events), len(event.object))
        if event.initial_events_end:
            self.initial_events = None

    def encode_frame(self, frame: bytes) -> bytes:
        """
        An event's bytes as they came.
        """
        return len(frame).to_bytes(4, "big") + frame if self.protobuf else frame + b"\n"

    def take_error(self, event: WatchEvent, frame: bytes, lines: list[bytes]) -> bool:
        """
        An ERROR event ends a watch, but only 410 ends it for the client; after all else it is resumed.
        """
        attempt, self.attempt = self.attempt, None
        if attempt is not None:
            attempt.drop()
        if event.status_code == 410 and self.known_version:
            self.give_up_gap()
        elif event.status_code == 410 or not self.version:
            lines.append(self.encode_frame(frame))
            self.write(lines)
            lines.clear()
            self.finish()
        else:
            self.hold()
        return False

    def give_up_gap(self) -> None:
        """
        What the view missed is no longer to be had: go on from where the client is.
        """
        self.hub.turns.run(partial(self.hub.views.mark_gap, self.key))
        self.version, self.known_version = self.known_version, ""
        server = self.hub.cloud.pick()
        if server is None:
            self.hold()
        else:
            self.attach(server)

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
            self.give_up_gap()
        elif not self.started:
            self.first_attempt_failed(attempt)
        elif self.initial or self.state_is_torn():
            self.request.abort()  # half of the initial state cannot be resumed
            self.end()
        elif error is None and self.ends_at is not None and self.hub.reactor.seconds() >= self.ends_at - TIMEOUT_SLACK:
            self.finish()
        else:
            if attempt.fruitful:
                self.resume_pause = RESUME_PAUSE
            self.hold()

    def state_is_torn(self) -> bool:
        """
        Whether the break came while the server was still telling what exists: it does so in the order of names, so that what
        was not told yet may be older than what was, and no version to resume from would bring it.
        """
        if not self.telling_state or self.framer is None:
            return False
        return self.framer.pending or self.hub.reactor.seconds() - self.told_at < STATE_SETTLES

    def first_attempt_failed(self, attempt: Attempt) -> None:
        """
        No server has answered yet: try another, or begin without.
        """
        self.tried.append(attempt.server)
        other = self.hub.cloud.other(attempt.server)
        if other is not None and other not in self.tried:
            self.attach(other)
        else:
            self.begin_offline()

    def refused(self, attempt: Attempt) -> None:
        """
        A resumed watch got an error status.
        """
        now = self.hub.reactor.seconds()
        if attempt.status == 410:
            if self.known_version:
                self.give_up_gap()
            else:
                self.expired(b"".join(attempt.refusal))
            return
        if attempt.status in (401, 403, 404):
            self.refused_since = now if self.refused_since is None else self.refused_since
            if now - self.refused_since >= REFUSED_FOR:
                self.log.info(
                    "watch {resource} ended: the cloud answers {status}", resource=self.info.resource, status=attempt.status
                )
                self.finish()
                return
        else:
            self.refused_since = None
        self.hold()

    def expired(self, body: bytes) -> None:
        """
        The resume point is too old: tell the client, which lists anew.
        """
        if self.protobuf:
            self.write([encode_protobuf_error(body)])
        else:
            status = body if body.startswith(b"{") else status_body(410, "Expired", f"too old resource version: {self.version}")
            self.write([encode_error(status)])
        self.finish()

    # Holding

    def hold(self) -> None:
        """
        Keep the client's response open until the cloud can go on with it.
        """
        self.stalled = False
        self.request.produce_from(self)
        if self.bookmarks:
            self.timers.set("bookmark", BOOKMARK_INTERVAL, self.send_bookmark)
        if self.hub.cloud.reachable:
            self.resume_within(self.resume_pause)
            self.resume_pause = min(self.resume_pause * 2, MAX_RESUME_PAUSE)

    def pause(self) -> None:
        """
        The client of a held watch does not read.
        """
        self.stalled = True

    def resume(self) -> None:
        """
        It reads again.
        """
        self.stalled = False

    def cloud_returned(self) -> None:
        """
        Resume soon, each watch at its own moment.
        """
        if self.attempt is None and self.started and not self.finished:
            self.resume_pause = RESUME_PAUSE
            self.resume_within(RESUME_JITTER)

    def resume_within(self, seconds: float) -> None:
        """
        Resume at a random moment of the next ``seconds``.
        """
        self.timers.set("resume", random.uniform(0.0, seconds), self.reattach)

    def reattach(self) -> None:
        """
        Go on with the cloud, if it is still there.
        """
        server = self.hub.cloud.pick()
        if server is not None and self.attempt is None:
            self.timers.cancel("bookmark")
            self.attach(server)

    def send_bookmark(self) -> None:
        """
        Show the client that the watch lives.
        """
        if not self.kind:
            self.learn_kind()
        version = self.known_version or self.version
        if self.kind and version and not self.stalled:
            encode = encode_protobuf_bookmark if self.protobuf else encode_bookmark
            self.write([encode(self.kind, self.api_version, version)])
        self.timers.set("bookmark", BOOKMARK_INTERVAL, self.send_bookmark)

    def learn_kind(self) -> None:
        """
        No event has told the kind of what is watched: its view may.
        """
        view = self.hub.views.view(self.key)
        if view is not None and view.kind:
            self.kind, self.api_version = view.kind.removesuffix("List"), view.api_version

    def publish(self, before: bytes, body: bytes) -> None:
        """
        A local change while the cloud is away, for those who may read the object, as it looks through their selectors.
        """
        if self.attempt is not None or not self.started or self.protobuf or self.key.form:
            return
        meta = read_object(body).meta
        if self.info.namespace not in ("", meta.namespace) or self.info.name not in ("", meta.name):
            return
        try:
            selects = compile_selection(self.info.label_selector, self.info.field_selector)
        except SelectorError:
            return
        event_type = {(True, True): MODIFIED, (False, True): ADDED, (True, False): DELETED}.get((selects(before), selects(body)))
        found = self.hub.views.read_object(self.caller, self.info.gvr, "", meta.namespace, meta.name)
        if event_type is None or not isinstance(found, Found):
            return
        if self.stalled:
            self.request.abort()  # what is not read must not pile up; the client begins anew
            self.end()
        else:
            self.write([encode_event(event_type, body)])

    # The end

    def write(self, lines: Iterable[bytes]) -> None:
        """
        Send to the client.
        """
        data = b"".join(lines)
        if data:
            self.request.write(data)

    def timed_out(self) -> None:
        """
        The client's own timeout: a held watch ends now, an attached one when the cloud ends it, or soon after.
        """
        if self.attempt is None:
            self.finish()
        else:
            self.timers.set("timeout", TIMEOUT_SLACK, self.overdue)

    def overdue(self) -> None:
        """
        The cloud has not ended the watch, or not even begun it.
        """
        if self.started:
            self.finish()
            return
        message = f"watch {self.info.resource}: the cloud did not answer within the timeoutSeconds of the request"
        answer_status(self.request, 504, "Timeout", message)
        self.end()

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
        self.hub.patience.forget(self)
        attempt, self.attempt = self.attempt, None
        if attempt is not None:
            attempt.drop()
        self.timers.cancel_all()
        self.hub.watches.discard(self)
        self.hub.ended(self)
