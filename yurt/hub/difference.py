"""
The client of one watch is told what filters show otherwise than it knows it.

That needs a state which client and cache both know.  While the cloud is to repeat for the cache what the client has seen already,
the difference waits; where nothing was missed, no event says so, and the cloud's list is compared with the cache
(:mod:`yurt.hub.unchanged`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from yurt.http.interfaces import UpstreamError
from yurt.hub.unchanged import find_proof
from yurt.kube.status import status_body

if TYPE_CHECKING:
    from yurt.hub.watches import Watch

UNREAD_WAIT = 0.1
"""Seconds between two looks whether a client reads again that is to be told more of a difference."""


class Difference:
    """
    Tells the client of ``watch`` the lines that its screen finds, a part at a time.
    """

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self._proving: Deferred[Any] | None = None

    def tell(self) -> bool:
        """
        Filters show things otherwise now: tell the client a part of the difference, as soon as it knows a state that the cache
        knows, too.  Returns whether there is more to tell at once.
        """
        watch = self.watch
        progress, feed, screen = watch.progress, watch.feed, watch.screen
        if watch.finished or watch.attachment.passing or not watch.started or not screen.behind:
            return False
        if progress.initial or progress.known_version or feed.is_view_unknown:
            self._prove()
            return False
        if watch.stream.stalled:
            watch.timers.set("refocus", UNREAD_WAIT, lambda: watch.hub.tell_difference(watch))
            return False
        can_tell = watch.cached and not watch.stream.protobuf
        lines = screen.compare(feed.key, progress.client_version, feed.told) if can_tell else None
        if lines is not None:
            watch.stream.write(lines)
            return screen.behind
        hub = watch.hub
        if watch.credential.kind != "other" and hub.filters.told.may_send_back(screen.key, hub.reactor.seconds()):
            watch.expired(status_body(410, "Expired", watch.filtered_otherwise))
        return False

    def _prove(self) -> None:
        """
        Find out, once, whether the cache has missed nothing.
        """
        watch, progress = self.watch, self.watch.progress
        attempt = watch.attachment.attempt
        if self._proving is not None or not progress.known_version or attempt is None or attempt.status != 200:
            return
        proving = self._proving = Deferred.fromCoroutine(find_proof(watch, attempt.server))
        proving.addCallback(self._nothing_missed, progress.version).addErrback(self._proof_failed)

    def _nothing_missed(self, version: str, since: str) -> None:
        """
        All is as it was ``since`` then, at ``version``, if that is not empty.
        """
        watch, progress = self.watch, self.watch.progress
        if version and not watch.finished and progress.version == since and progress.known_version:
            watch.feed.move(version)
            progress.go_ahead(version)
            watch.hub.tell_difference(watch)

    def _proof_failed(self, failure: Failure) -> None:
        """
        The client has hung up, or the server is gone: then the difference waits on.
        """
        if not failure.check(CancelledError, UpstreamError):
            self.watch.log.failure("a comparison broke", failure)

    def end(self) -> None:
        """
        The watch is over.
        """
        if self._proving is not None:
            self._proving.cancel()
