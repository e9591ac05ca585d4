"""
What the miniature apiserver remembers: objects, a bounded window of events, and snapshots for paged lists.

One counter gives every write its resourceVersion, as etcd's revision does.  Objects are never changed in place.
"""

from __future__ import annotations

import base64
import json
import secrets
import string
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from uuid import uuid4

from . import errors
from .resources import Document, ResourceType

EVENT_WINDOW = 1_000
"""Events kept per resource for watches that resume."""
MAX_SNAPSHOTS = 64
"""Paged lists in progress."""

TOO_OLD_TO_CONTINUE = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without the "
    "continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with "
    "the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the "
    "first chunk was returned and now may show up in the list."
)

Key = tuple[str, str]
Selection = Callable[[bytes], bool]


@dataclass(frozen=True)
class Stored:
    """
    One state of an object: its document (not to be changed), its JSON and its resourceVersion.
    """

    document: Document
    encoded: bytes
    version: int

    @property
    def key(self) -> Key:
        metadata = self.document["metadata"]
        return metadata.get("namespace", ""), metadata["name"]


@dataclass(frozen=True)
class Change:
    """
    One event of the window: ``now`` is None for a deletion, ``before`` for a creation.
    """

    version: int
    before: Stored | None
    now: Stored | None
    gone: Stored | None = None

    def seen_by(self, namespace: str, selection: Selection) -> tuple[str, Stored] | None:
        """
        The event as a watcher with that selection sees it: an object that leaves the selection is DELETED.
        """
        had = self.before is not None and _within(self.before, namespace, selection)
        has = self.now is not None and _within(self.now, namespace, selection)
        if self.now is not None and has:
            return ("MODIFIED" if had else "ADDED"), self.now
        if had:
            last = self.gone or Stored(self.before.document, self.before.encoded, self.version) if self.before else None
            return ("DELETED", last) if last else None
        return None


@dataclass(frozen=True)
class Page:
    """
    A list, or one page of it.
    """

    items: list[Stored]
    version: int
    continue_token: str = ""
    remaining: int | None = None


def _within(stored: Stored, namespace: str, selection: Selection) -> bool:
    return (not namespace or stored.key[0] == namespace) and selection(stored.encoded)


def timestamp() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class Collection:
    """
    All objects of one resource type.
    """

    def __init__(self, resource: ResourceType, window: int) -> None:
        self.resource = resource
        self.objects: dict[Key, Stored] = {}
        self.changes: deque[Change] = deque(maxlen=window)
        self.oldest = 1
        """The oldest resourceVersion that a watch can resume from."""
        self.listeners: list[Callable[[Change], None]] = []

    def record(self, change: Change) -> None:
        if len(self.changes) == self.changes.maxlen:
            self.oldest = self.changes[0].version
        self.changes.append(change)
        for listener in tuple(self.listeners):
            listener(change)

    def matching(self, namespace: str, selection: Selection) -> list[Stored]:
        keys = sorted(k for k in self.objects if not namespace or k[0] == namespace)
        return [self.objects[k] for k in keys if selection(self.objects[k].encoded)]


class Store:
    """
    The whole of the server's state.
    """

    def __init__(self, window: int = EVENT_WINDOW) -> None:
        self.version = 1
        self._window = window
        self._collections: dict[ResourceType, Collection] = {}
        self._snapshots: OrderedDict[str, list[Stored]] = OrderedDict()

    def collection(self, resource: ResourceType) -> Collection:
        if resource not in self._collections:
            self._collections[resource] = Collection(resource, self._window)
        return self._collections[resource]

    def get(self, resource: ResourceType, namespace: str, name: str) -> Stored:
        """
        Raises a NotFound APIError.
        """
        try:
            return self.collection(resource).objects[namespace, name]
        except KeyError:
            raise errors.not_found(resource, name) from None

    def _next(self, resource: ResourceType, document: Document) -> Stored:
        self.version += 1
        metadata = {**document.get("metadata", {}), "resourceVersion": str(self.version)}
        complete = {"kind": resource.kind, "apiVersion": resource.api_version, **document, "metadata": metadata}
        return Stored(complete, json.dumps(complete, separators=(",", ":")).encode(), self.version)

    def create(self, resource: ResourceType, namespace: str, document: Document) -> Stored:
        """
        Raises AlreadyExists and Invalid APIErrors.
        """
        metadata = {
            k: v for k, v in document.get("metadata", {}).items() if k not in ("resourceVersion", "uid", "creationTimestamp")
        }
        if not metadata.get("name"):
            if not metadata.get("generateName"):
                raise errors.invalid(resource, "", "metadata.name", "Required value: name or generateName is required")
            alphabet = string.ascii_lowercase + string.digits
            metadata["name"] = metadata["generateName"] + "".join(secrets.choice(alphabet) for _ in range(5))
        if namespace:
            metadata["namespace"] = namespace
        name = metadata["name"]
        collection = self.collection(resource)
        if (namespace, name) in collection.objects:
            raise errors.already_exists(resource, name)
        metadata |= {"uid": str(uuid4()), "creationTimestamp": timestamp()}
        stored = self._next(resource, {**document, "metadata": metadata})
        collection.objects[namespace, name] = stored
        collection.record(Change(stored.version, None, stored))
        return stored

    def replace(self, resource: ResourceType, old: Stored, document: Document) -> Stored:
        """
        Put ``document`` in the place of ``old``; nothing happens when it says the same.
        """
        kept = {
            k: v
            for k, v in old.document["metadata"].items()
            if k in ("uid", "creationTimestamp", "name", "namespace", "deletionTimestamp")
        }
        metadata = {**document.get("metadata", {}), **kept, "resourceVersion": str(old.version)}
        complete = {"kind": resource.kind, "apiVersion": resource.api_version, **document, "metadata": metadata}
        if complete == old.document:
            return old
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers") and old.document["metadata"].get("finalizers"):
            return self.remove(resource, old)
        stored = self._next(resource, complete)
        collection = self.collection(resource)
        collection.objects[stored.key] = stored
        collection.record(Change(stored.version, old, stored))
        return stored

    def remove(self, resource: ResourceType, old: Stored) -> Stored:
        """
        Forget an object; answers its last state, which carries the resourceVersion of the deletion.
        """
        gone = self._next(resource, old.document)
        collection = self.collection(resource)
        del collection.objects[old.key]
        collection.record(Change(gone.version, old, None, gone))
        return gone

    def delete(self, resource: ResourceType, old: Stored, grace: int | None) -> tuple[Stored, bool]:
        """
        Delete as asked: with finalizers, or a node that has to stop a pod first, the object is only marked.  Answers it
        and whether it is gone.
        """
        document = old.document
        metadata = document["metadata"]
        bound = resource.graceful and document.get("spec", {}).get("nodeName")
        if grace is None:
            grace = document.get("spec", {}).get("terminationGracePeriodSeconds", 30) if bound else 0
        if not metadata.get("finalizers") and not (bound and grace > 0):
            if metadata.get("deletionGracePeriodSeconds"):
                old = self._mark(resource, old, 0)
            return self.remove(resource, old), True
        return self._mark(resource, old, grace), False

    def _mark(self, resource: ResourceType, old: Stored, grace: int) -> Stored:
        metadata = {"deletionTimestamp": timestamp(), **old.document["metadata"], "deletionGracePeriodSeconds": grace}
        stored = self._next(resource, {**old.document, "metadata": metadata})
        collection = self.collection(resource)
        collection.objects[stored.key] = stored
        collection.record(Change(stored.version, old, stored))
        return stored

    def page(
        self,
        resource: ResourceType,
        namespace: str,
        selection: Selection,
        *,
        limit: int = 0,
        token: str = "",
        counted: bool = True,
    ) -> Page:
        """
        List, from the start or from a continue token.  Raises an Expired APIError for a token of a forgotten snapshot.
        ``counted`` says whether remainingItemCount may be told (not so with selectors).
        """
        snapshot, version, after = _read_token(token) if token else ("", self.version, None)
        if snapshot:
            if snapshot not in self._snapshots:
                raise errors.expired(TOO_OLD_TO_CONTINUE, _write_token("", self.version, after))
            items = self._snapshots[snapshot]
        else:
            items, version = self.collection(resource).matching(namespace, selection), self.version
            snapshot = secrets.token_hex(8)
        left = [stored for stored in items if after is None or stored.key > after]
        if not limit or limit >= len(left):
            self._snapshots.pop(snapshot, None)
            return Page(left, version)
        self._snapshots[snapshot] = items
        while len(self._snapshots) > MAX_SNAPSHOTS:
            self._snapshots.popitem(last=False)
        page = left[:limit]
        return Page(page, version, _write_token(snapshot, version, page[-1].key), len(left) - limit if counted else None)

    def changes_since(self, resource: ResourceType, version: int) -> Iterable[Change]:
        """
        Raises an Expired APIError when the window does not reach back that far.
        """
        collection = self.collection(resource)
        if version < collection.oldest:
            raise errors.expired(f"too old resource version: {version} ({collection.oldest})")
        return [change for change in collection.changes if change.version > version]

    def compact(self) -> None:
        """
        Forget all history, as etcd's compaction does: continue tokens and old resourceVersions are of no use any more.
        """
        self._snapshots.clear()
        for collection in self._collections.values():
            collection.changes.clear()
            collection.oldest = self.version


def _write_token(snapshot: str, version: int, after: Key | None) -> str:
    """
    ``snapshot`` is empty for a token that goes on with what exists when it is used.
    """
    fields = {"v": "meta.k8s.io/v1", "rv": version, "after": after, "of": snapshot}
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()


def _read_token(token: str) -> tuple[str, int, Key | None]:
    try:
        fields: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token))
        namespace, name = fields["after"]
        return str(fields["of"]), int(fields["rv"]), (str(namespace), str(name))
    except (ValueError, KeyError, TypeError) as problem:
        raise errors.bad_request(f"continue key is not valid: {problem}") from None
