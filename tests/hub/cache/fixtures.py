"""
What the tests of the cache share: writers that need no thread, a store on a folder, lists, events and callers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from yurt.hub.cache import Caller, Store, ViewKey, Views
from yurt.kube.objects import ListParts, split_list
from yurt.kube.watch import WatchEvent, read_event

CONFIG_MAPS = "/v1/configmaps"
KUBELET = Caller("system:node:edge", "kubelet")
KUBE_PROXY = Caller("system:node:edge", "kube-proxy")
WALL_START = 1_700_000_000.0


class InlineWriter:
    """
    Writes at once, in the caller's thread.
    """

    def start(self) -> None:
        """
        There is nothing to start.
        """

    def run(self, work: Callable[[], None]) -> Deferred[None]:
        """
        Do the work now.
        """
        return maybeDeferred(work)

    def stop(self) -> None:
        """
        There is nothing to stop.
        """


class HeldWriter(InlineWriter):
    """
    Writes when told to, as a slow disk would.
    """

    def __init__(self) -> None:
        self.held: list[tuple[Callable[[], None], Deferred[None]]] = []

    def run(self, work: Callable[[], None]) -> Deferred[None]:
        """
        Keep the work for later.
        """
        done: Deferred[None] = Deferred()
        self.held.append((work, done))
        return done

    def release(self, error: Exception | None = None) -> None:
        """
        Do the oldest work, or let it fail.
        """
        work, done = self.held.pop(0)
        if error is not None:
            done.errback(error)
        else:
            work()
            done.callback(None)


class Cache:
    """
    A store and its views under one clock.
    """

    def __init__(self, path: str, writer: InlineWriter | None = None, *, is_open: bool = True, **options: Any) -> None:
        self.clock = Clock()
        self.store = Store(self.clock, path, writer=writer or InlineWriter(), **options)
        self.views = Views(self.store, self.clock, lambda: WALL_START + self.clock.seconds())
        if is_open:
            self.store.open()

    def crash(self) -> None:
        """
        Let go of the disk as the death of the process does: nothing that is pending is written.
        """
        self.store._leave_disk()


def item(name: str, version: int, *, namespace: str = "default", **fields: Any) -> dict[str, Any]:
    """
    An object as it stands in a list.
    """
    labels = fields.pop("labels", {})
    metadata = {"name": name, "namespace": namespace, "resourceVersion": str(version), "labels": labels}
    return {"metadata": {key: value for key, value in metadata.items() if value}, **fields}


def body(name: str, version: int, **fields: Any) -> bytes:
    """
    An object as a GET answers it.
    """
    return json.dumps({"kind": "ConfigMap", "apiVersion": "v1", **item(name, version, **fields)}).encode()


def listed(version: int, *items: dict[str, Any], kind: str = "ConfigMapList") -> ListParts:
    """
    A list taken apart.
    """
    whole = {"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": str(version)}, "items": list(items)}
    return split_list(json.dumps(whole).encode())


def event(type: str, name: str, version: int, **fields: Any) -> WatchEvent:
    """
    A watch event about an object.
    """
    return read_event(b'{"type":"%b","object":%b}' % (type.encode(), body(name, version, **fields)))


def bookmark(version: int, *, initial_events_end: bool = False) -> WatchEvent:
    """
    A bookmark.
    """
    annotations = {"k8s.io/initial-events-end": "true"} if initial_events_end else {}
    metadata = {"resourceVersion": str(version), "annotations": annotations}
    frame = {"type": "BOOKMARK", "object": {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata}}
    return read_event(json.dumps(frame).encode())


def names(views: Views, key: ViewKey) -> list[str] | None:
    """
    The names in a list that is read back; None when the list is unknown.
    """
    found = views.read_list(key)
    return None if found is None else [item["metadata"]["name"] for item in json.loads(found.body)["items"]]


class StoreCase(SynchronousTestCase):
    """
    A store on a folder of its own, under a clock.
    """

    def setUp(self) -> None:
        self.path = self.mktemp()
        self.clock = Clock()

    def open(self, writer: InlineWriter | None = None, **options: Any) -> Store:
        """
        The store, opened.
        """
        store = Store(self.clock, self.path, writer=writer or InlineWriter(), **options)
        store.open()
        self.addCleanup(store._leave_disk)
        self.last = store
        return store

    def reopen(self, store: Store) -> Store:
        """
        The store as the next process finds it.
        """
        self.successResultOf(store.close())
        return self.open()
