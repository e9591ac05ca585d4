"""
A watch's side towards the cloud: one attempt after the other to have its events.

An attempt is the first of a watch, whose refusal its client may see, or a resumed one, whose failures it does not notice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from yurt.http.heads import get_header, without
from yurt.http.interfaces import RequestHead, ResponseHead, UpstreamError
from yurt.hub.answers import FROM_CLOUD
from yurt.hub.attempt import Attempt, watch_target
from yurt.hub.cloud import LOAD_BALANCER_ERRORS, SERVER_ERRORS
from yurt.hub.offlinewatch import begin_offline, is_admitted
from yurt.hub.patience import is_doubted
from yurt.hub.resumption import Resumption

if TYPE_CHECKING:
    from yurt.hub.cloud import Server
    from yurt.hub.watches import Watch

LASTING = 5.0
"""Seconds after which an upstream response counts as a good one even if nothing came."""

REFUSAL_TIMEOUT = 1.0
"""Seconds that the body of a refusal may take which the client need not see."""


class Attachment:
    """
    What ``watch`` has of the cloud: at most one ``attempt`` at a time, and in ``resumption`` what came of those before.

    ``resumed`` tells whether the client's response had begun before the attempt, ``passing`` whether what comes is no stream of
    events and goes to the client as it is.
    """

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.hub = watch.hub
        self.attempt: Attempt | None = None
        self.resumed = False
        self.passing = False
        self.resumption = Resumption(watch.hub.cloud)

    def attach(self, server: Server, *, fresh: bool = False) -> None:
        """
        Send the watch to ``server``, with ``fresh`` over a new connection.
        """
        watch = self.watch
        self.resumed = watch.started
        if watch.cached:
            watch.feed.prepare()
        attempt = self.attempt = Attempt(self, self.hub.cloud, server, fresh=fresh)
        upstream = server.upstream if watch.credential.kind == "none" else server.bare
        attempt.exchange = upstream.send(self.upstream_head(), attempt, fresh=fresh)
        self.hub.patience.watch(self)

    def detach(self) -> Attempt | None:
        """
        Let go of the present attempt, and return it.
        """
        self.hub.patience.forget(self)
        attempt, self.attempt = self.attempt, None
        if attempt is not None:
            attempt.drop()
        return attempt

    def upstream_head(self) -> RequestHead:
        """
        The watch as the cloud gets it: from the version reached, with bookmarks, for the time that is left.
        """
        watch, progress = self.watch, self.watch.progress
        head = watch.request.head
        resumed = watch.started and not progress.initial
        target = watch_target(head.target, progress.version, watch.deadline.remaining, resumed=resumed)
        headers = without(head.headers, b"edge-cache", b"accept-encoding")
        if watch.cached or (watch.started and not watch.stream.protobuf):
            headers = [*without(headers, b"accept"), (b"Accept", watch.accept.narrowed)]
        token = self.hub.node_token() if watch.credential.kind == "none" else None
        if token is not None:
            headers.append((b"Authorization", b"Bearer " + token))
        return RequestHead(head.method, target, headers, head.http10)

    # No answer yet

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
        elif is_doubted(attempt.looks):
            self.hub.suspect(attempt.server, "no answer to a watch")

    def leave(self, server: Server) -> None:
        """
        ``server`` has fallen silent, and another one has not: go on there, unless half of the initial state came.
        """
        attempt = self.attempt
        if attempt is None or attempt.server is not server or self.passing or (self.watch.started and self._is_torn()):
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

    # An answer

    def attempt_began(self, attempt: Attempt, head: ResponseHead) -> None:
        """
        The cloud answers: a stream of events, or a refusal.
        """
        if attempt is not self.attempt:
            return
        watch = self.watch
        self.hub.patience.forget(self)
        self._note_answer(attempt, head)
        if head.status == 200:
            self.resumption.accepted()
            attempt.began = self.hub.reactor.seconds()
            watch.stream.expect(get_header(head.headers, b"content-type"))
            self.passing = self.passing or watch.stream.transparent
            if not watch.started:
                watch.start(head, FROM_CLOUD)
        elif not watch.started and not self._may_recover(attempt):
            self.passing = True
            watch.stream.expect_nothing_known()
            watch.start(head, FROM_CLOUD)
        else:
            watch.timers.set("refusal", REFUSAL_TIMEOUT, lambda: self._cut_refusal(attempt))
        watch.request.produce_from(attempt.exchange)

    def _note_answer(self, attempt: Attempt, head: ResponseHead) -> None:
        """
        What an answer says of its server, of the connections to it and of the client's token.
        """
        if attempt.fresh:
            attempt.server.distrust_connections()
        if head.status in SERVER_ERRORS:
            self.hub.answered_badly(attempt.server, head)
        else:
            self.hub.cloud.served(attempt.server)
        if self.watch.credential.token:
            self.hub.tokens.learn(self.watch.credential.token, head)

    def _may_recover(self, attempt: Attempt) -> bool:
        """
        Whether an error status need not reach the client, because the watch can begin in another way.
        """
        watch, status = self.watch, attempt.status
        if status in SERVER_ERRORS and self.resumption.has_other(attempt.server):
            return True
        if status in LOAD_BALANCER_ERRORS:
            return watch.accept.json and is_admitted(watch)
        return status == 410 and bool(watch.progress.known_version)

    def _cut_refusal(self, attempt: Attempt) -> None:
        """
        Its status is known, and its body does not end.
        """
        attempt.refusal.clear()
        attempt.drop()
        self.attempt_ended(attempt, None)

    def received(self, attempt: Attempt, data: bytes) -> None:
        """
        Bytes for the watch.
        """
        if attempt is self.attempt:
            self.hub.cloud.answered(attempt.server)
            self.watch.received(data)

    def marked(self) -> None:
        """
        They were a bookmark that tells of nothing but the time.
        """
        if self.attempt is not None:
            self.attempt.marked = True

    def failed(self) -> Server | None:
        """
        They were an ERROR event: nothing more comes of the present attempt, whose server is returned.
        """
        attempt = self.detach()
        if attempt is None:
            return None
        self.resumption.failed(attempt.server)
        return attempt.server

    # The end of one

    def attempt_ended(self, attempt: Attempt, error: UpstreamError | None) -> None:
        """
        The upstream response is over, in good order or not.
        """
        if attempt is not self.attempt:
            return
        watch = self.watch
        self.attempt = None
        self.hub.patience.forget(self)
        if error is not None:
            if attempt.status:
                self.hub.suspect(attempt.server, f"a watch broke off: {error}")
            else:
                self.hub.failed(attempt.server, error)
        if self.passing:
            if error is None:
                watch.finish()
            else:
                watch.break_off()
        elif watch.started and attempt.status not in (0, 200):
            self._refused(attempt)
        elif attempt.status == 410:
            watch.expiry.give_up_gap()
        elif not watch.started:
            self._first_failed(attempt)
        elif error is None and watch.deadline.is_close:
            watch.finish()
        elif self._is_torn():
            watch.break_off()  # half of the initial state cannot be resumed
        else:
            self._stream_ended(attempt, error)

    def _stream_ended(self, attempt: Attempt, error: UpstreamError | None) -> None:
        """
        A stream of events came: how soon the watch is resumed depends on what it was good for.
        """
        was_good = attempt.fruitful or self.hub.reactor.seconds() >= attempt.began + LASTING
        if was_good:
            self.resumption.bore_fruit()
        if error is not None or not was_good:
            self.resumption.failed(attempt.server)
        self.watch.holding.hold()

    def _is_torn(self) -> bool:
        """
        Whether a break would leave the client with half of the state that its watch begins with.
        """
        progress, stream = self.watch.progress, self.watch.stream
        if progress.initial:
            return True
        return not stream.transparent and progress.is_torn(stream.pending, self.hub.reactor.seconds())

    def _first_failed(self, attempt: Attempt) -> None:
        """
        No server has answered yet: try another, or begin without.
        """
        self.resumption.failed(attempt.server)
        other = self.resumption.choose_other()
        if other is not None:
            self.attach(other)
        else:
            begin_offline(self.watch)

    def _refused(self, attempt: Attempt) -> None:
        """
        A resumed watch got an error status.
        """
        watch = self.watch
        if attempt.status == 410:
            if watch.progress.known_version:
                watch.expiry.give_up_gap()
            else:
                body = b"".join(attempt.refusal)
                watch.expiry.too_old(attempt.server, lambda: watch.expired(body))
            return
        if self.resumption.is_refused_for_good(attempt.status, self.hub.reactor.seconds()):
            watch.log.info(
                "watch {resource} ended: the cloud answers {status}", resource=watch.info.resource, status=attempt.status
            )
            watch.finish()
            return
        self.resumption.failed(attempt.server)
        watch.holding.hold()
