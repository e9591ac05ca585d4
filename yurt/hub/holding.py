"""
A watch of which nothing comes from the cloud for now: its response stays open.

Meanwhile its client gets bookmarks, if it asked for them, and what is changed here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from yurt.hub.cache.views import Found
from yurt.kube.objects import read_object
from yurt.kube.selectors import SelectorError, compile_selection
from yurt.kube.watch import ADDED, DELETED, MODIFIED, WatchEvent

if TYPE_CHECKING:
    from yurt.hub.watches import Watch

BOOKMARK_INTERVAL = 60.0
"""Seconds between the bookmarks of a watch that is held, as often as kube-apiserver sends them."""

EVENT_TYPES = {(True, True): MODIFIED, (False, True): ADDED, (True, False): DELETED}
"""What a change is for a client, by whether its selectors chose the object before and after."""


class Holding:
    """
    Keeps the response of ``watch`` open until the cloud can go on with it.
    """

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    @property
    def may_resume(self) -> bool:
        """
        Whether nothing is under way yet that brings the watch on.
        """
        return self.watch.attachment.attempt is None and not self.watch.expiry.is_comparing

    def hold(self) -> None:
        """
        Hold the watch, and resume it after a while if the cloud is there.
        """
        watch = self.watch
        self.wait()
        delay = watch.attachment.resumption.next_delay()
        if delay is not None:
            watch.timers.set("resume", delay, self.resume)

    def wait(self) -> None:
        """
        Nothing comes from the cloud for now.
        """
        watch = self.watch
        watch.stream.hold()
        if watch.progress.bookmarks:
            watch.timers.set("bookmark", BOOKMARK_INTERVAL, self._send_bookmark)

    def cloud_returned(self) -> None:
        """
        Resume soon, each watch at its own moment.
        """
        watch = self.watch
        if self.may_resume and watch.started and not watch.finished:
            watch.timers.set("resume", watch.attachment.resumption.delay_after_return(), self.resume)

    def resume(self) -> None:
        """
        Go on with the cloud, if it is still there.
        """
        watch = self.watch
        server = watch.attachment.resumption.choose()
        if server is not None and self.may_resume:
            watch.timers.cancel("bookmark")
            watch.attachment.attach(server)

    def _send_bookmark(self) -> None:
        """
        Show the client that the watch lives.
        """
        self.show_bookmark()
        self.watch.timers.set("bookmark", BOOKMARK_INTERVAL, self._send_bookmark)

    def show_bookmark(self) -> None:
        """
        Tell the client the version that it has reached, if it asked for that.
        """
        progress, view = self.watch.progress, self.watch.feed.view
        if not progress.kind and view is not None and view.kind:  # no event has told it
            progress.kind, progress.api_version = view.kind.removesuffix("List"), view.api_version
        self.watch.stream.show_bookmark(progress)

    def publish(self, before: bytes, body: bytes) -> None:
        """
        Tell of a local change, from ``before`` to ``body``, if the client may read the object, as it looks through its selectors.
        """
        watch, info = self.watch, self.watch.info
        if watch.attachment.attempt is not None or not watch.started or watch.stream.protobuf or watch.feed.key.form:
            return
        meta = read_object(body).meta
        if info.namespace not in ("", meta.namespace) or info.name not in ("", meta.name):
            return
        try:
            selects = compile_selection(info.label_selector, info.field_selector)
        except SelectorError:
            return
        event_type = EVENT_TYPES.get((selects(before), selects(body)))
        found = watch.hub.views.read_object(watch.caller, info.gvr, "", meta.namespace, meta.name)
        if event_type is None or not isinstance(found, Found):
            return
        line = watch.screen.change(WatchEvent(event_type, meta=meta, object=body))
        if line:
            self._tell(line)

    def _tell(self, line: bytes) -> None:
        """
        Tell what did not come from the cloud.  Nothing slows that down, and what is not read must not pile up: then the client
        begins anew.
        """
        watch = self.watch
        if watch.stream.stalled:
            watch.break_off()
        else:
            watch.stream.write([line])
