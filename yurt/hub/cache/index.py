"""
Which views there are, and which of them have a say about an object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from yurt.hub.cache.records import GETS, Caller, ViewKey, ViewRecord, view_id
from yurt.kube.selectors import is_within

_NAME_SELECTOR = re.compile(r"metadata\.name==?([^,=!\\]+)")


def selected_name(key: ViewKey) -> str:
    """
    The name that a view selects by, when it selects by nothing else; else empty.
    """
    match = _NAME_SELECTOR.fullmatch(key.field_selector)
    return match[1] if match is not None and not key.label_selector else ""


class InitialEvents:
    """
    The members seen since a watch began to send initial events.
    """

    __slots__ = ("seen",)

    def __init__(self) -> None:
        self.seen: set[bytes] = set()


class View:
    """
    A view in memory: its record, and what only this process must know.

    A ``frozen`` view keeps the state of the disk and takes no events; ``dirty`` means that the record is not in the store yet;
    ``whole`` that all of it is in memory, because it was made while there was no disk.  ``counted_at`` is how much damage of the
    disk had shown when it last held all that it should.
    """

    __slots__ = ("counted_at", "dirty", "frozen", "id", "key", "name", "record", "unselective", "whole")

    def __init__(self, key: ViewKey, record: ViewRecord | None = None) -> None:
        caller = key.caller
        self.key = key
        self.id = view_id(key)
        self.record = record or ViewRecord(
            caller.identity, caller.component, key.gvr, key.form, key.namespace, key.label_selector, key.field_selector
        )
        self.name = selected_name(key)
        self.unselective = not key.label_selector and not key.field_selector
        self.dirty = self.frozen = self.whole = False
        self.counted_at = 0

    @property
    def decides(self) -> bool:
        """
        Whether what the view covers and lacks does not exist.
        """
        return self.record.complete and (self.unselective or bool(self.name))


class Group:
    """
    The views of one caller of one resource in one form.
    """

    __slots__ = ("gets", "names", "wide")

    def __init__(self) -> None:
        self.gets: View | None = None
        self.names: dict[tuple[str, str], View] = {}
        self.wide: list[View] = []

    def add(self, view: View) -> None:
        """
        Take a view in.
        """
        if view.key.namespace == GETS:
            self.gets = view
        elif view.name:
            self.names[view.key.namespace, view.name] = view
        else:
            self.wide.append(view)

    def remove(self, view: View) -> None:
        """
        Forget a view.
        """
        if view is self.gets:
            self.gets = None
        elif view.name:
            self.names.pop((view.key.namespace, view.name), None)
        else:
            self.wide.remove(view)

    def is_empty(self) -> bool:
        """
        Whether there is no view.
        """
        return self.gets is None and not self.names and not self.wide

    def all(self) -> Iterator[View]:
        """
        All of them.
        """
        if self.gets is not None:
            yield self.gets
        yield from self.names.values()
        yield from self.wide

    def covering(self, namespace: str, name: str) -> Iterator[View]:
        """
        The views of lists and watches whose scope takes the object in.
        """
        for view in self.wide:
            if view.key.namespace in ("", namespace):
                yield view
        for scope in {"", namespace}:
            named = self.names.get((scope, name))
            if named is not None:
                yield named

    def wider(self, key: ViewKey) -> Iterator[View]:
        """
        The complete views that hold all that a view of that key may hold.
        """
        for view in (*self.wide, *self._named(key)):
            seen = view.key
            if (
                view.record.complete
                and seen.namespace in ("", key.namespace)
                and is_within(
                    key.label_selector, key.field_selector, seen.label_selector, "" if view.name else seen.field_selector
                )
            ):
                yield view

    def _named(self, key: ViewKey) -> Iterator[View]:
        name = selected_name(key)
        for scope in {"", key.namespace} if name else ():
            if (scope, name) in self.names:
                yield self.names[scope, name]


class Index:
    """
    All views, by key, and in groups.
    """

    def __init__(self) -> None:
        self.views: dict[ViewKey, View] = {}
        self._groups: dict[tuple[Caller, str, str], Group] = {}
        self._by_resource: dict[tuple[str, str], list[Group]] = {}

    def add(self, view: View) -> None:
        """
        Take a view in.
        """
        key = view.key
        self.views[key] = view
        group = self._groups.get((key.caller, key.gvr, key.form))
        if group is None:
            group = self._groups[key.caller, key.gvr, key.form] = Group()
            self._by_resource.setdefault((key.gvr, key.form), []).append(group)
        group.add(view)

    def remove(self, view: View) -> None:
        """
        Forget a view.
        """
        key = view.key
        del self.views[key]
        group = self._groups[key.caller, key.gvr, key.form]
        group.remove(view)
        if group.is_empty():
            del self._groups[key.caller, key.gvr, key.form]
            self._by_resource[key.gvr, key.form].remove(group)

    def group(self, caller: Caller, gvr: str, form: str) -> Group | None:
        """
        The views of one caller of one resource in one form.
        """
        return self._groups.get((caller, gvr, form))

    def resources(self) -> list[tuple[str, str]]:
        """
        The resources of which there are views, each with its form.
        """
        return [about for about, groups in self._by_resource.items() if groups]

    def groups(self, gvr: str, form: str) -> list[Group]:
        """
        The views of all callers of one resource in one form.
        """
        return self._by_resource.get((gvr, form), [])
