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

A watch begins, takes events and ends here.  Its other jobs have modules of their own:

    attachment    ATTACHED: one attempt after the other at the cloud (attempt, resumption)
    holding       HOLDING: bookmarks, local changes, the moment to resume
    offlinewatch  a beginning from the cache
    expiry        410 Gone
    deadline      the client's timeout
    progress      which version the client, and which the cloud, has come to
    watchstream   what the client is sent, in its encoding
    screen        what filters show of it; difference: what they show otherwise than before
    viewfeed      what the cache is told
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

from yurt.http.heads import get_header
from yurt.http.interfaces import IncomingRequest, ResponseHead
from yurt.hub.accept import read_accept
from yurt.hub.answers import FROM_CLOUD, answer_status, name_source
from yurt.hub.attachment import Attachment
from yurt.hub.cache.views import Caller
from yurt.hub.call import VERDICT_WAIT
from yurt.hub.deadline import Deadline
from yurt.hub.difference import Difference
from yurt.hub.expiry import Expiry
from yurt.hub.filtered import NO_JSON
from yurt.hub.holding import Holding
from yurt.hub.identity import Credential
from yurt.hub.offlinewatch import begin_offline
from yurt.hub.progress import Progress
from yurt.hub.screen import Screen
from yurt.hub.timers import Timers
from yurt.hub.viewfeed import ViewFeed
from yurt.hub.watchstream import WatchStream
from yurt.kube.requestinfo import RequestInfo
from yurt.kube.watch import BOOKMARK, ERROR, WatchError, WatchEvent, read_protobuf_event

if TYPE_CHECKING:
    from yurt.hub.hub import Hub

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
        self.timers = Timers(hub.reactor)
        self.deadline = Deadline(self)
        self.attachment = Attachment(self)
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
        self.hub.when_verdict(self.proceed, VERDICT_WAIT)

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
        self.attachment.attach(server)

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

    # Events

    def received(self, data: bytes) -> None:
        """
        Bytes of the cloud's stream: pass on what makes whole events.
        """
        self.series.received += len(data)
        if self.stream.transparent:
            self.request.write(data)
            return
        try:
            frames = self.stream.frames(data)
        except WatchError as error:
            self.log.error("watch {resource} is broken off: {error}", resource=self.info.resource, error=str(error))
            self.break_off()
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
        if event.type == BOOKMARK and not event.initial_events_end:
            self.attachment.marked()
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
        server = self.attachment.failed()
        if event.status_code == 410 and self.progress.known_version:
            self.expiry.give_up_gap()
        elif event.status_code == 410 and self.attachment.resumed and server is not None:
            self.stream.write(lines)
            lines.clear()
            self.expiry.too_old(server, lambda: self.end_with(frame))
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

    def break_off(self) -> None:
        """
        End the response as a connection that is lost: the client begins anew.
        """
        self.request.abort()
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
        self.attachment.detach()
        self.expiry.end()
        self.difference.end()
        self.timers.cancel_all()
        self.hub.watches.discard(self)
        self.hub.ended(self)
