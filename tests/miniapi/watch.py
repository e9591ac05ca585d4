"""
Watches of the miniature apiserver.

An event is encoded once for all watchers that want the same form, as a ready chunk of a chunked body.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.web.server import Request

from . import errors, forms
from .resources import ResourceType
from .store import Change, Collection, Selection, Store, Stored

BOOKMARK_INTERVAL = 60.0
BEFORE_TIMEOUT = 2.0
"""Seconds before the end of a watch at which it gets its last bookmark."""
DEFAULT_TIMEOUT = 1800.0


@dataclass(frozen=True)
class WatchOptions:
    """
    What the query of a watch says.
    """

    namespace: str
    selection: Selection
    form: str
    form_version: str
    include: str
    version: int | None
    """The resourceVersion to go on from; None begins with what exists now."""
    bookmarks: bool
    initial_events: bool | None
    timeout: float


class EventEncoder:
    """
    Encodes each event once per form and keeps the last ones, which all watchers of a resource want at the same moment.
    """

    CACHED = 16

    def __init__(self, resource: ResourceType) -> None:
        self._resource = resource
        self._chunks: dict[tuple[str, int, str, str, str, bool], bytes] = {}

    def chunk(self, kind: str, stored: Stored, options: WatchOptions, *, with_columns: bool) -> bytes:
        key = (kind, stored.version, options.form, options.form_version, options.include, with_columns)
        if (chunk := self._chunks.get(key)) is None:
            encoded = forms.encode_object(
                self._resource, stored, options.form, options.form_version, options.include, with_columns=with_columns
            )
            chunk = self._chunks[key] = as_chunk(forms.encode_event(kind, encoded))
            if len(self._chunks) > self.CACHED:
                del self._chunks[next(iter(self._chunks))]
        return chunk


def as_chunk(line: bytes) -> bytes:
    """
    A chunk of a chunked body.
    """
    return b"%x\r\n%s\r\n" % (len(line), line)


@dataclass(eq=False)
class Watcher:
    """
    One open watch: writes what happens in a collection to a request, until either side ends it.
    """

    clock: IReactorTime
    store: Store
    collection: Collection
    encoder: EventEncoder
    request: Request
    options: WatchOptions
    bookmark_interval: float = BOOKMARK_INTERVAL
    _calls: list[IDelayedCall] = field(default_factory=list)
    _first: bool = True
    done: bool = False

    def begin(self) -> None:
        """
        Send the head and what happened so far, then follow.
        """
        options = self.options
        self.request.setHeader(b"content-type", b"application/json")
        self.request.notifyFinish().addBoth(lambda _: self.close())
        self.request.write(b"")
        try:
            self._catch_up()
        except errors.APIError as refusal:
            self._send(as_chunk(forms.encode_event("ERROR", json.dumps(refusal.status()).encode())))
            self.end()
            return
        self.collection.listeners.append(self._changed)
        self._calls.append(self.clock.callLater(options.timeout, self.end))
        if options.bookmarks:
            self._calls.append(self.clock.callLater(self.bookmark_interval, self._bookmark_regularly))
            if options.timeout > BEFORE_TIMEOUT:
                self._calls.append(self.clock.callLater(options.timeout - BEFORE_TIMEOUT, self.bookmark))

    def _catch_up(self) -> None:
        options = self.options
        if options.version is not None and options.initial_events is None:
            for change in self.store.changes_since(self.collection.resource, options.version):
                self._changed(change)
            return
        if options.initial_events is not False:
            for stored in self.collection.matching(options.namespace, options.selection):
                self._tell("ADDED", stored)
        if options.initial_events and options.bookmarks:
            self.bookmark(initial=True)

    def _changed(self, change: Change) -> None:
        if seen := change.seen_by(self.options.namespace, self.options.selection):
            self._tell(*seen)

    def _tell(self, kind: str, stored: Stored) -> None:
        first, self._first = self._first, False
        self._send(self.encoder.chunk(kind, stored, self.options, with_columns=first and self.options.form == forms.TABLE))

    def _send(self, chunk: bytes) -> None:
        if not self.done:
            self.request.channel.write(chunk)  # framed already: Request.write would frame it again for each watcher

    def bookmark(self, *, initial: bool = False) -> None:
        """
        Tell the watcher how far the collection is.
        """
        options = self.options
        encoded = forms.encode_bookmark(
            self.collection.resource, self.store.version, options.form, options.form_version, initial=initial
        )
        self._send(as_chunk(forms.encode_event("BOOKMARK", encoded)))

    def _bookmark_regularly(self) -> None:
        self.bookmark()
        self._calls.append(self.clock.callLater(self.bookmark_interval, self._bookmark_regularly))

    def end(self) -> None:
        """
        End the response in good order.
        """
        if not self.done:
            self.close()
            self.request.finish()

    def close(self) -> None:
        """
        Follow no longer.
        """
        if self.done:
            return
        self.done = True
        if self._changed in self.collection.listeners:
            self.collection.listeners.remove(self._changed)
        for call in self._calls:
            if call.active():
                call.cancel()
