"""
What is known here of one collection of an API server, and what to ask for next.  It does no I/O: :mod:`yurt.kube.informer`
carries its requests out.

    list ──page with continue──▶ list ──last page──▶ watch ──ends, breaks──▶ watch from the last resourceVersion
     ▲                                                 │
     └────── 410, or REFUSALS_BEFORE_LIST errors ──────┘

A list is taken in pages, and each page counts as soon as it is there; a page that fails is asked for again.  What the whole
list did not hold is gone.  A collection may have paths in several versions: where one is not served, the next one is asked for.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from twisted.logger import Logger

from yurt.kube.api import TIMEOUT, TOO_LARGE, ApiError, target
from yurt.kube.objects import Meta, ObjectError, is_newer, split_list
from yurt.kube.status import read_failure
from yurt.kube.watch import BOOKMARK, DELETED, ERROR, JSONFramer, read_event

T = TypeVar("T")

OUTDATED = frozenset({400, 410})
"""Answers to a continue token or a resourceVersion that is of no use any more."""
PAGE_ITEMS = 250
"""Objects asked for at once; halved when a page is too large to be taken, or for a while when it does not come in time."""
MIN_WATCH, MAX_WATCH = 240, 300
"""Seconds that a watch is asked to last, at random, so that clients do not come back all at once."""
WATCH_GRACE = 30.0
"""Seconds beyond the end it was asked for after which a watch is taken for dead."""
STEADY_AFTER = 5.0
"""A watch that lasted so many seconds shows that the server works."""
FIRST_PAUSE, MAX_PAUSE = 1.0, 30.0
"""After a failure nothing is asked for a random time up to this many seconds, doubled with each failure in a row."""
ABSENT_AFTER, ABSENT_PAUSE = 10, 300.0
"""A collection that is not served, so often in a row, is asked for less often, up to this many seconds apart: most clusters never
serve it, and links are metered."""
REFUSALS_BEFORE_LIST = 3
"""A watch that ends so often in a row without anything but an error begins anew with a list, which may get past it."""


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """
    An object came (``old`` is None), went (``new`` is None) or changed.
    """

    key: str
    old: T | None
    new: T | None


@dataclass(frozen=True, slots=True)
class Ask:
    """
    The next request: a page of a list, or a watch that ends within ``lasting`` seconds.
    """

    target: bytes
    watch: bool = False
    lasting: float = 0.0


def key_of(meta: Meta) -> str:
    """
    How objects are called here: ``namespace/name``, or the name alone of one that has no namespace.
    """
    return f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name


class Mirror(Generic[T]):
    """
    The objects of the collection ``path`` that the selectors choose.  ``others`` are its paths in other versions, the better ones
    first, where ``decode`` understands them.

    ``decode`` keeps of an object's JSON what is needed: an immutable value, or None for an object of no interest; when it
    raises ValueError the object cannot be read, and counts as absent.  ``draw`` gives random numbers
    from 0 up to 1.
    """

    log = Logger()

    def __init__(
        self,
        path: str,
        decode: Callable[[bytes], T | None],
        label_selector: str = "",
        field_selector: str = "",
        draw: Callable[[], float] = random.random,
        others: Sequence[str] = (),
    ) -> None:
        self._paths = deque((path, *others))
        self._untried = len(others)
        self._decode = decode
        self._selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
        self._draw = draw
        self._framer = JSONFramer()
        self._versions: dict[str, str] = {}
        self._listed: set[str] = set()
        self._continue = ""
        self._page_items = self._most_items = PAGE_ITEMS
        self._failures = 0
        self._refusals = 0
        self.items: dict[str, T] = {}
        self.version = ""
        """Where a watch goes on; empty while a list is needed."""
        self.synced = False
        """Whether a whole list has been taken."""
        self.problem: str | None = None
        """Why what is known may be out of date; None while a watch runs."""
        self.lists = self.events = self.failures = self.unreadable = 0
        """Whole lists and watch events taken, requests that failed, objects that could not be read."""

    @property
    def _path(self) -> str:
        """
        The path in the version that is asked for now.
        """
        return self._paths[0]

    def next_ask(self) -> Ask:
        """
        What to ask the server now.
        """
        if not self.version:
            query = {"limit": str(self._page_items), "continue": self._continue}
            return Ask(target(self._path, {**self._selectors, **query}))
        self._framer = JSONFramer()
        seconds = round(MIN_WATCH + (MAX_WATCH - MIN_WATCH) * self._draw())
        query = {
            "watch": "true",
            "resourceVersion": self.version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        return Ask(target(self._path, {**self._selectors, **query}), True, seconds + WATCH_GRACE)

    # What comes

    def page(self, body: bytes) -> Iterator[Change[T]]:
        """
        A page of a list came; what is yielded has just changed.  Raises ObjectError.
        """
        parts = split_list(body)
        if parts.form or not parts.resource_version:
            raise ObjectError(f"{self._path}: the answer is no list that a watch can go on from")
        for meta, item in parts.items:
            key = key_of(meta)
            self._listed.add(key)
            if self._versions.get(key) != meta.resource_version:
                yield from self._put(key, meta.resource_version, item)
        self._page_items = min(2 * self._page_items, self._most_items)
        self._continue = parts.continue_token
        if not self._continue:
            for key in sorted(self._versions.keys() - self._listed):
                yield from self._remove(key)
            self._listed = set()
            self.version = parts.resource_version
            self._untried = len(self._paths) - 1
            self.synced = True
            self.lists += 1

    def watch_began(self) -> None:
        """
        The server has taken the watch.
        """
        self.problem = None

    def received(self, data: bytes) -> Iterator[Change[T]]:
        """
        Bytes of the watch came; what is yielded has just changed.  Raises WatchError, and ApiError for what the server says
        has gone wrong.
        """
        for frame in self._framer.feed(data):
            event = read_event(frame)
            if event.type == ERROR:
                failure = read_failure(event.object)
                raise ApiError(event.status_code, failure.reason, f"{self._path}: the watch ended: {failure.message}")
            self._refusals = 0
            version = event.meta.resource_version
            if version and is_newer(version, self.version):
                self.version = version
            if event.type == BOOKMARK:
                continue
            self.events += 1
            key = key_of(event.meta)
            held = self._versions.get(key)
            if event.type == DELETED:
                if held is not None and not is_newer(held, version):
                    yield from self._remove(key)
            elif held is None or is_newer(version, held):
                yield from self._put(key, version, event.object)

    def _put(self, key: str, version: str, body: bytes) -> list[Change[T]]:
        try:
            new = self._decode(body)
        except ValueError as error:
            self.unreadable += 1
            self.log.warn("{path}: {key} cannot be read and counts as absent: {error}", path=self._path, key=key, error=error)
            new = None
        self._versions[key] = version
        old = self.items.get(key)
        if new is not None:
            self.items[key] = new
        elif old is not None:
            del self.items[key]
        return [] if old == new else [Change(key, old, new)]

    def _remove(self, key: str) -> list[Change[T]]:
        del self._versions[key]
        old = self.items.pop(key, None)
        return [] if old is None else [Change(key, old, None)]

    # How requests end

    def watch_ended(self, lasted: float) -> float:
        """
        The server ended the watch in good order after so many seconds; the pause before the next request.
        """
        if lasted >= STEADY_AFTER:
            self._failures = self._refusals = 0
            return 0.0
        return self._pause()

    def failed(self, error: Exception, lasted: float) -> float:
        """
        A request failed after so many seconds, or what came was wrong; the pause before the next one.
        """
        if not self.version and isinstance(error, ApiError) and error.code == 404 and self._try_other_version():
            return 0.0
        self.failures += 1
        self.problem = str(error)
        watched = bool(self.version)
        if watched and lasted >= STEADY_AFTER:
            self._failures = self._refusals = 0
        code, reason, after = 0, "", None
        if isinstance(error, ApiError):
            code, reason, after = error.code, error.reason, error.retry_after
        if watched:
            self._refusals += code != 0 or not isinstance(error, ApiError)
        elif reason in (TOO_LARGE, TIMEOUT):
            self._take_smaller_pages(reason)
        if code in OUTDATED or self._refusals >= REFUSALS_BEFORE_LIST:
            self._begin_list()
        is_absent = code == 404 and not watched and self._failures >= ABSENT_AFTER
        pause = self._pause(ABSENT_PAUSE if is_absent else MAX_PAUSE)
        return pause if after is None else max(pause, min(after, MAX_PAUSE))

    def _try_other_version(self) -> bool:
        """
        Ask for another version next time; whether there is one that was not asked for since the last list.
        """
        self._paths.rotate(-1)
        if self._untried:
            self._begin_list()
            self._untried -= 1
            return True
        self._untried = len(self._paths) - 1
        return False

    def _take_smaller_pages(self, reason: str) -> None:
        self._page_items = max(1, self._page_items // 2)
        if reason == TOO_LARGE:
            self._most_items = self._page_items

    def _begin_list(self) -> None:
        """
        Whatever was listed so far, begin with the first page; what is known stays until the whole list says otherwise.
        """
        self.version = self._continue = ""
        self._listed = set()
        self._refusals = 0

    def _pause(self, most: float = MAX_PAUSE) -> float:
        """
        Full jitter: clients that failed together do not come back together.
        """
        ceiling = min(most, FIRST_PAUSE * 2.0 ** min(self._failures, 10))
        self._failures += 1
        return ceiling * self._draw()
