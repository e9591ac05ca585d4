"""
What a watch tells the cache: the events of one view, in order and without a gap.
"""

from __future__ import annotations

from collections.abc import Container
from functools import partial
from typing import TYPE_CHECKING

from msgspec import structs

from yurt.hub.accept import Accept
from yurt.hub.cache.views import Caller, FoundList, InitialEvents, ViewInfo
from yurt.hub.progress import Progress
from yurt.hub.viewkeys import view_key
from yurt.kube.objects import Meta, is_newer
from yurt.kube.requestinfo import RequestInfo
from yurt.kube.watch import BOOKMARK, WatchEvent

if TYPE_CHECKING:
    from yurt.hub.hub import Hub


class ViewFeed:
    """
    The view of one watch, which knows how far it is by its ``progress``.
    """

    def __init__(self, hub: Hub, info: RequestInfo, caller: Caller, accept: Accept, progress: Progress) -> None:
        self.hub = hub
        self.info = info
        self.caller = caller
        self.accept = accept
        self.progress = progress
        self.key = view_key(caller, info, accept.forms[0] if accept.forms else "")
        self.initial_events: InitialEvents | None = None

    @property
    def view(self) -> ViewInfo | None:
        """
        What the cache knows of the view.
        """
        return self.hub.views.view(self.key)

    @property
    def is_view_unknown(self) -> bool:
        """
        Whether the cloud is still to tell what exists, and the cache does not know it from before.
        """
        view = self.view
        return self.initial_events is not None and (view is None or not view.complete)

    @property
    def told(self) -> Container[bytes] | None:
        """
        What the client has been told so far of what exists; None when that is all.
        """
        return None if self.initial_events is None else self.initial_events.seen

    def prepare(self) -> None:
        """
        Tell the cache from where on events will come; that may be further back than the client's version.
        """
        turns, views = self.hub.turns, self.hub.views
        if self.progress.initial:
            turns.finish()
            self.initial_events = views.begin_initial(self.key)
        elif self.progress.begins_with_state:
            self.initial_events = InitialEvents()  # the first bookmark ends it, see keep()
        else:
            self.initial_events = None
            if not turns.expects(view_key(self.caller, self.info, "")):  # a list of it that is still taken in
                self._close_gap()
            turns.run(partial(views.begin_watch, self.key, self.progress.version, thaw=self._may_thaw()))

    def _close_gap(self) -> None:
        """
        If the view on disk is older than what the client has seen, let the cloud repeat what the view missed.
        """
        version = self.progress.version
        view = None if version in ("", "0") else self.view
        if view is None or not view.complete or not view.resource_version or (view.frozen and not self._may_thaw()):
            return
        if is_newer(version, view.resource_version):
            self.progress.go_back(view.resource_version)

    def _may_thaw(self) -> bool:
        """
        Whether a view that missed events while the disk was broken can have them now.  Those of another watch, which is further
        on already, would make it take the repeated ones for old.
        """
        others = (watch for watch in self.hub.watches if watch.feed is not self and watch.feed.key == self.key)
        return self.hub.store.problem is None and not any(watch.attachment.attempt is not None for watch in others)

    def keep(self, event: WatchEvent) -> None:
        """
        Let the cache know of an event, before the progress does.
        """
        if event.form != self.key.form:
            self.key = view_key(self.caller, self.info, event.form)
        if event.type == BOOKMARK and self.initial_events is not None and not self.progress.initial:
            event = structs.replace(event, initial_events_end=True)  # all that existed at the beginning has been told before it
        self.hub.turns.run(partial(self.hub.views.apply_event, self.key, event, self.initial_events), len(event.object))
        if event.initial_events_end:
            self.initial_events = None

    def give_up_gap(self) -> None:
        """
        What the view missed is no longer to be had: the watch goes on from where its client is.
        """
        self.hub.turns.run(partial(self.hub.views.mark_gap, self.key))
        self.progress.go_on()

    def move(self, version: str) -> None:
        """
        Nothing has changed up to a newer version; a view that is behind the client may lack something all the same.
        """
        view = self.view
        if view is not None and view.complete and not is_newer(self.progress.version, view.resource_version):
            event = WatchEvent(BOOKMARK, meta=Meta(resource_version=version))
            self.hub.turns.run(partial(self.hub.views.apply_event, self.key, event))

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
