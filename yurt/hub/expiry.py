"""
A watch that hears ``410 Gone``: the server does not know any more what came after the version from which it is to go on.

Where that is the client's version and nothing has changed since (:mod:`yurt.hub.unchanged`), the watch goes on all the same; else
its client has to list anew.  Where the cloud was to repeat for the cache what the client knows already, only the cache loses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from yurt.http.interfaces import UpstreamError
from yurt.hub.unchanged import find_version

if TYPE_CHECKING:
    from yurt.hub.cloud import Server
    from yurt.hub.watches import Watch


class Expiry:
    """
    What ``watch`` does about a version that is too old: at most one comparison is under way.
    """

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self._comparing: Deferred[Any] | None = None
        self._proved = ""
        """The version that the last comparison has yielded."""

    @property
    def is_comparing(self) -> bool:
        """
        Whether it is still to be known how the watch goes on.
        """
        return self._comparing is not None

    def too_old(self, server: Server, give_up: Callable[[], None]) -> None:
        """
        ``server`` knows too little history.  If something has changed since, or nobody can tell, ``give_up`` is called; so it is
        if a server says that of the very version that a comparison has yielded.
        """
        watch = self.watch
        if watch.progress.version == self._proved:
            give_up()
            return
        watch.holding.wait()
        comparing = Deferred.fromCoroutine(find_version(watch, server))
        self._comparing = comparing
        comparing.addCallback(self._compared, give_up).addErrback(self._failed, server)

    def _compared(self, version: str, give_up: Callable[[], None]) -> None:
        """
        Go on from ``version``, if there is one.
        """
        watch = self.watch
        self._comparing = None
        server = watch.hub.cloud.pick()
        if not version or server is None:
            give_up()
            return
        watch.log.info("watch {resource} goes on: nothing has changed meanwhile", resource=watch.info.resource)
        if watch.cached:
            watch.feed.move(version)
        watch.progress.version = self._proved = version
        watch.holding.show_bookmark()
        watch.attachment.attach(server)

    def _failed(self, failure: Failure, server: Server) -> None:
        """
        The client has hung up, or ``server`` is gone again.
        """
        watch = self.watch
        self._comparing = None
        if failure.check(CancelledError):
            return
        if not failure.check(UpstreamError):
            watch.log.failure("a comparison broke", failure)
        watch.attachment.resumption.failed(server)
        watch.holding.hold()

    def give_up_gap(self) -> None:
        """
        What the view missed is no longer to be had: go on from where the client is.
        """
        watch = self.watch
        watch.feed.give_up_gap()
        watch.screen.forget_guess()
        server = watch.hub.cloud.pick()
        if server is None:
            watch.holding.hold()
        else:
            watch.attachment.attach(server)

    def end(self) -> None:
        """
        The watch is over.
        """
        if self._comparing is not None:
            self._comparing.cancel()
