"""
What a controller is made of: what it follows, and what it makes of that.

    PODS = Source("Pods", ("/api/v1/pods",), read_pod, lambda key, pod: [pod.node])

    def reconcile(key: str, seen: Observed, now: float) -> Outcome: ...

    Controller("name", (PODS, NODES), reconcile)

A reconciler is a pure function: the objects that belong to one key of work, and the time of day, become a list of writes.  It is
called again when one of these objects changes, when a write failed, and now and then; so it looks at how things are, never at
what happened.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from yurt.kube.api import Document

T = TypeVar("T")

CREATE, UPDATE, DELETE = "create", "update", "delete"


@dataclass(frozen=True, eq=False)
class Source(Generic[T]):
    """
    A collection that a controller follows.

    ``paths`` are those of the collection in all versions that are understood, the best first.  ``decode`` keeps of an object
    what is needed, see :class:`yurt.kube.mirror.Mirror`.  ``keys(key, object)`` are the keys of the work that it belongs to.
    """

    what: str
    paths: Sequence[str]
    decode: Callable[[bytes], T | None]
    keys: Callable[[str, T], Iterable[str]]
    label_selector: str = ""
    field_selector: str = ""


@dataclass(frozen=True)
class Write:
    """
    One call: CREATE in the collection ``path``, UPDATE or DELETE the object ``path``.

    ``what`` is a word for the metrics, such as ``approve``.  The next look at the key waits until the write shows in
    ``shows_in``.  What is to be there ``once`` is not created again: that it exists is as good.
    """

    verb: str
    path: str
    document: Document
    what: str
    shows_in: Source[Any] | None = None
    once: bool = False


@dataclass(frozen=True)
class Outcome:
    """
    What a key needs: these writes, in this order, up to the first that fails; and another look in ``again`` seconds.
    """

    writes: Sequence[Write] = ()
    again: float | None = None


class Observed:
    """
    The objects that are known, by the keys of the work that they belong to.
    """

    def __init__(self) -> None:
        self._related: defaultdict[Source[Any], dict[str, dict[str, Any]]] = defaultdict(dict)

    def change(self, source: Source[T], key: str, old: T | None, new: T | None) -> set[str]:
        """
        An object came, went or changed; the keys of the work that this makes.
        """
        related = self._related[source]
        before = set() if old is None else set(source.keys(key, old))
        after = set() if new is None else set(source.keys(key, new))
        for work in before - after:
            objects = related[work]
            del objects[key]
            if not objects:
                del related[work]
        for work in after:
            related.setdefault(work, {})[key] = new
        return before | after

    def related(self, source: Source[T], work: str) -> Mapping[str, T]:
        """
        The objects of a source that belong to a key of work, by their own keys; not to be changed.
        """
        return self._related[source].get(work, {})

    def work(self) -> set[str]:
        """
        All keys of work.
        """
        return {work for related in self._related.values() for work in related}


@dataclass(frozen=True)
class Controller:
    """
    A controller; ``aliases`` are other names that ``--controllers`` takes for it.
    """

    name: str
    sources: Sequence[Source[Any]]
    reconcile: Callable[[str, Observed, float], Outcome]
    aliases: Sequence[str] = ()
    workers: int = 3
    """Keys that are worked on at the same time."""
