"""
How far a watch has come: what its client has been told, and from where on the cloud is to tell more.  No I/O here.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from yurt.kube.objects import is_newer
from yurt.kube.requestinfo import is_true
from yurt.kube.watch import ADDED, BOOKMARK, WatchEvent

STATE_SETTLES = 1.0
"""Seconds without a further event after which the state that a watch begins with is taken for told: servers send it in one go."""


class Progress:
    """
    The progress of one watch, from the ``query`` of its request on.

    ``version`` is the resourceVersion that the cloud is to go on from; ``known_version`` is further on, and not empty, while the
    cloud repeats for the cache what the client knows already.  ``initial`` tells whether the client still waits for the end of
    the initial events it asked for.
    """

    def __init__(self, query: Mapping[str, str]) -> None:
        self.version = query.get("resourceVersion", "")
        self.known_version = ""
        self.bookmarks = is_true(query.get("allowWatchBookmarks"))
        self.initial = is_true(query.get("sendInitialEvents"))
        self.from_now = "sendInitialEvents" in query and not self.initial
        self.kind = ""
        self.api_version = ""
        self._telling_state = self.begins_with_state
        self._told_at = -inf

    @property
    def begins_with_state(self) -> bool:
        """
        Whether the first events tell what exists, rather than what changes.
        """
        return self.initial or (self.version in ("", "0") and not self.from_now)

    @property
    def may_mark(self) -> bool:
        """
        Whether the client may be told by a bookmark how far it has come.
        """
        return self.bookmarks and bool(self.kind) and not (self.initial or self._telling_state or self.known_version)

    @property
    def client_version(self) -> str:
        """
        The version that the client has reached.
        """
        return self.known_version or self.version

    def tell_state(self, version: str, kind: str, api_version: str) -> None:
        """
        The client is told a state of that version.
        """
        self.version, self.kind, self.api_version = version, kind, api_version

    def told(self, event: WatchEvent, now: float) -> bool:
        """
        The cloud tells an event; returns whether it is for the client, too.
        """
        if event.kind and not self.kind:
            self.kind, self.api_version = event.kind, event.api_version
        version = event.meta.resource_version
        known = bool(self.known_version) and not is_newer(version, self.known_version)
        if version and is_newer(version, self.version):
            self.version = version
        if not known or not is_newer(self.known_version, self.version):
            self.known_version = ""  # all is repeated that there is
        if event.initial_events_end:
            self.initial = False
        if self._telling_state:
            self._telling_state = event.type == ADDED
            self._told_at = now
        return not known and (event.type != BOOKMARK or self.bookmarks)

    def go_back(self, version: str) -> None:
        """
        Have the cloud repeat what came after an older version.
        """
        if not self.known_version or is_newer(self.version, self.known_version):
            self.known_version = self.version
        self.version = version

    def go_on(self) -> None:
        """
        Nothing can be repeated: go on from where the client is.
        """
        self.version, self.known_version = self.known_version, ""

    def go_ahead(self, version: str) -> None:
        """
        There is nothing to repeat: client and cloud are at a newer version.
        """
        self.version, self.known_version = version, ""

    def is_torn(self, pending: bool, now: float) -> bool:
        """
        Whether a break comes while the server is still telling what exists, ``pending`` within an event: it does so in the order
        of names, so that what was not told yet may be older than what was, and no version to resume from would bring it.
        """
        return self._telling_state and (pending or now - self._told_at < STATE_SETTLES)
