"""
What the client of one watch sees of its events.

A client that knows objects through one lens and is to see them through another is told the difference, as events that carry the
version it has reached, so that it resumes where it is.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from yurt.hub.cache.views import Caller, ViewKey
from yurt.hub.comparison import Comparison
from yurt.hub.filters.lens import CLEAR, Lens, at_version, key_of
from yurt.hub.filters.told import MAX_OTHERS, Told
from yurt.hub.progress import Progress
from yurt.hub.viewkeys import view_key
from yurt.kube.objects import is_newer, read_object
from yurt.kube.requestinfo import RequestInfo
from yurt.kube.watch import ADDED, BOOKMARK, DELETED, MODIFIED, WatchEvent, encode_bookmark, encode_event

if TYPE_CHECKING:
    from yurt.hub.hub import Hub


class Screen:
    """
    Between the events of a watch and its client.

    ``lens`` is what the client knows objects through, ``wanted`` what it is to see them through.  ``hidden`` holds the keys of
    objects that exist and that it does not know.
    """

    def __init__(self, hub: Hub, info: RequestInfo, caller: Caller) -> None:
        self.hub = hub
        self.info = info
        self.caller = caller
        self.lens: Lens = CLEAR
        self.wanted: Lens = CLEAR
        self.hidden: set[str] = set()
        self.guessed = False
        """Whether it was found in the cache, which may be behind the client."""
        self.doubts: tuple[Lens | None, ...] = ()
        """Other lenses through which the client may know objects, until the difference is told; None for any at all."""
        self.version = ""
        """The last version that the client was told of, while anything is filtered."""
        self.recorded = False
        """Whether it is to be remembered what the client knows."""
        self.comparison: Comparison | None = None
        """While the difference is told: what the client knows, it knows through ``lens`` or through the comparison's target."""

    @property
    def key(self) -> ViewKey:
        """
        What it is remembered by.
        """
        return view_key(self.caller, self.info, "")

    def begin(self, progress: Progress) -> bool:
        """
        Find out what the client knows; false when that cannot be told, so that it has to list anew.
        """
        filters, key = self.hub.filters, self.key
        if not filters.covers(self.caller.component, self.info) and not filters.told.knows(key):
            return True
        self.recorded = True
        self.version = progress.version
        lens = filters.lens(self.caller.component, self.info)
        self.lens = self.wanted = lens
        if progress.begins_with_state:
            return True
        told = filters.told.find(key, progress.version, lens)
        view = self.hub.views.view(key)
        is_cached = view is not None and view.complete
        if told is None or (told.hidden is None and told.lens.hides and not is_cached):
            if filters.told.may_send_back(key, self.hub.reactor.seconds()):
                return False
            told = Told(lens, frozenset())
            self.doubts = (None,) if is_cached else ()
        self.lens = lens if told.lens.same(lens) else told.lens
        self.doubts += tuple(one.lens for one in told.others)
        self.guessed = told.hidden is None
        hidden = (self._hidden_from(one, progress.version) for one in (told, *told.others))
        self.hidden = set.intersection(*hidden)  # rather a DELETED too many than one too few
        return True

    def is_left_over(self, progress: Progress) -> bool:
        """
        Whether a client, of which nothing is cached any more, was told things through filters that are not for it any more.
        """
        filters = self.hub.filters
        if progress.begins_with_state or filters.covers(self.caller.component, self.info) or not filters.told.knows(self.key):
            return False
        filters.told.forget(self.key)
        return True

    def _hidden_from(self, told: Told, version: str) -> set[str]:
        """
        What somebody does not know who was told a version; of what the cache has heard of later it cannot tell that.
        """
        if told.hidden is not None or not told.lens.hides:
            return set(told.hidden or ())
        self.hub.turns.finish()
        members = self.hub.views.members(self.key)
        return {key_of(item) for item in members if told.lens.apply(item) is None and not _is_later(item, version)}

    def choose(self) -> bool:
        """
        What filters depend on has changed; returns whether the client is to see things otherwise than it knows them.
        """
        self.wanted = self.hub.filters.lens(self.caller.component, self.info)
        self._arrive()
        if self.behind:
            self.recorded = True
        return self.behind

    def _arrive(self) -> None:
        """
        Two lenses that show the same are one.
        """
        if self.wanted.same(self.lens) and not self.doubts and self.comparison is None:
            self.lens = self.wanted

    @property
    def behind(self) -> bool:
        """
        Whether the client is still to be told a difference.
        """
        return self.wanted is not self.lens or bool(self.doubts) or self.comparison is not None

    @property
    def filters(self) -> bool:
        """
        Whether events have to be looked at before the client is told of them.
        """
        return bool(self.lens.rules) or self.comparison is not None

    # Events

    def state(self, items: Iterable[bytes]) -> Iterator[bytes]:
        """
        The objects that a watch begins with.
        """
        for item in items:
            shown = self.lens.apply(item)
            if shown is None:
                self.hidden.add(key_of(item))
            else:
                yield shown

    def show(self, event: WatchEvent, frame: bytes) -> bytes:
        """
        The line for an event that came as ``frame``; empty when there is nothing to tell.
        """
        line = frame + b"\n" if event.type == BOOKMARK or event.form else self.change(event, frame + b"\n")
        if line and event.meta.resource_version:
            self.version = event.meta.resource_version
        return line

    def change(self, event: WatchEvent, line: bytes = b"") -> bytes:
        """
        The line for a change of an object, which is ``line`` as far as nothing is filtered; empty when there is nothing to tell.
        """
        key = f"{event.meta.namespace}/{event.meta.name}"
        lens = self.lens
        if self.comparison is not None:
            lens = self.comparison.target
            self.comparison.told.add(key)
        shown = lens.apply(event.object)
        known = key not in self.hidden
        if event.type == DELETED:
            self.hidden.discard(key)
            event_type, told = DELETED, known
        elif shown is None:
            self.hidden.add(key)
            event_type, told = DELETED, known and event.type == MODIFIED
        else:
            self.hidden.discard(key)
            event_type, told = event.type if known else ADDED, True
        if not told:
            return b""
        is_same = shown is event.object and event_type == event.type and line
        return line if is_same else encode_event(event_type, shown or event.object)

    def mark(self, progress: Progress) -> bytes:
        """
        A bookmark for a client that was not told the last events, if it takes one: without it, it would come back from a version
        at which nobody knows any more what was hidden.
        """
        if not self.filters or not progress.may_mark or progress.version in ("", self.version):
            return b""
        self.version = progress.version
        return encode_bookmark(progress.kind, progress.api_version, progress.version)

    def repeated(self, event: WatchEvent) -> None:
        """
        An event that the client knows already, for the cache's sake: what it shows and hides is told by it, if by nothing else.
        """
        self.abandon()
        if self.lens.hides and event.type in (ADDED, MODIFIED, DELETED) and not event.form:
            self.change(event)

    def forget_guess(self) -> None:
        """
        What the cache has missed cannot be repeated: rather a DELETED too many than one too few.
        """
        if self.guessed:
            self.hidden.clear()

    # Differences

    def compare(self, key: ViewKey, version: str, told: Container[bytes] | None = None) -> list[bytes] | None:
        """
        The next lines of those that bring a client, who has reached ``version``, from one lens to the other, until it is no
        longer ``behind``; None when the cache does not hold what it knows (``key``).  Of all that the cache holds it knows what
        was ``told``, if that is not None.
        """
        lines: list[bytes] = []
        if not key.form:
            view = self.hub.views.view(key)
            if view is None or not view.complete or view.frozen:
                self.abandon()
                return None
            if self.comparison is None:
                if not self.hub.turns.idle:
                    return lines
                self.comparison = Comparison(self.wanted, self.hub.views.walk(key))
            lines = [line for item in self.comparison.step() if (line := self._difference(item, self.comparison, version, told))]
        if lines:
            self.version = version
            self.hub.filters.told.telling(self.key)
        if self.comparison is None or self.comparison.done:
            self.lens = self.wanted if self.comparison is None else self.comparison.target
            self.version, self.doubts, self.comparison = version, (), None
            self._arrive()
        return lines

    def _difference(self, item: bytes, comparison: Comparison, version: str, told: Container[bytes] | None) -> bytes:
        """
        The line about one object; of what is later than ``version`` the cloud is still to tell.
        """
        after = comparison.target.apply(item)
        lenses = (self.lens, *self.doubts)
        if all(lens is not None and lens.apply(item) == after for lens in lenses) or _is_later(item, version):
            return b""
        key = key_of(item)
        if key in comparison.told or (told is not None and key.encode() not in told):
            return b""
        known = key not in self.hidden
        if after is None:
            self.hidden.add(key)
            return encode_event(DELETED, at_version(item, version)) if known else b""
        self.hidden.discard(key)
        return encode_event(MODIFIED if known else ADDED, at_version(after, version))

    def abandon(self) -> None:
        """
        Break off a comparison: what the client knows, it may know through either lens.
        """
        if self.comparison is not None:
            self.doubts = (*self.doubts, self.comparison.target) if len(self.doubts) < MAX_OTHERS else (None,)
            self.comparison = None

    # The end

    def end(self, progress: Progress) -> None:
        """
        Remember what the client knows, for when it comes back.
        """
        version = self.version if self.filters else progress.client_version
        if self.recorded and version not in ("", "0") and not progress.initial:
            self.abandon()
            told = Told(self.lens, frozenset(self.hidden), self.hub.reactor.seconds())
            others = tuple(replace(told, lens=lens) for lens in self.doubts if lens is not None)
            self.hub.filters.told.record(self.key, version, replace(told, others=others))


def _is_later(item: bytes, version: str) -> bool:
    """
    Whether an object has changed after a version.
    """
    return is_newer(read_object(item).meta.resource_version, version)
