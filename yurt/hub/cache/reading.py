"""
What callers read of their views: objects, lists, and what is known not to exist.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import msgspec

from yurt.hub.cache.answers import ABSENT, Absent, Found, FoundList, ViewInfo
from yurt.hub.cache.index import Group, View
from yurt.hub.cache.records import Caller, StoredObject, ViewKey, member_of
from yurt.hub.cache.shelf import FORBIDDEN, GONE, Shelf
from yurt.kube.objects import TABLE, is_newer, join_list, slices
from yurt.kube.selectors import compile_selection, parse_field_selector

MAX_RECENT = 64
MAX_RECENT_BODY = 16 * 1024
"""Objects, and bytes of each, that single reads asked for and that are told again without a look into the store."""

MAX_RECENT_LIST = 2 * 1024 * 1024
"""Bytes of a list that is told again in the same way: only the last one."""

WALK_STEP = 50
"""Objects that are read from the store at a time by who looks at them one by one."""


class _Row(msgspec.Struct):
    object: msgspec.Raw = msgspec.Raw(b"{}")


_decode_row = msgspec.json.Decoder(_Row).decode


class Reader:
    """
    The reading half of the views on a shelf.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._confirmed: OrderedDict[tuple[str, str, bytes], float] = OrderedDict()
        self._recent: dict[tuple[Caller, str, str, str, str], Found] = {}
        self._recent_at = 0
        self._recent_list: tuple[ViewKey, int, FoundList] | None = None

    def read_object(self, caller: Caller, gvr: str, form: str, namespace: str, name: str) -> Found | Absent | None:
        """
        The object as this caller may see it; ABSENT when what the caller was told leaves no room for it; None when
        that is unknown.  Clients repeat themselves: the answer is found at once until anything changes.
        """
        asked = (caller, gvr, form, namespace, name)
        revision = self._shelf.revision
        if revision != self._recent_at or len(self._recent) >= MAX_RECENT:
            self._recent.clear()
            self._recent_at = revision
        recent = self._recent.get(asked)
        if recent is not None:
            return recent
        found = self._look_up(caller, gvr, form, namespace, name)
        if isinstance(found, Found) and len(found.body) <= MAX_RECENT_BODY and revision == self._shelf.revision:
            self._recent[asked] = found
        return found

    def _look_up(self, caller: Caller, gvr: str, form: str, namespace: str, name: str) -> Found | Absent | None:
        group = self._shelf.index.group(caller, gvr, form)
        if group is None:
            return None
        member = member_of(namespace, name)
        got = None if group.gets is None else self._shelf.state(group.gets, member)
        if got == GONE:
            return ABSENT
        if got == FORBIDDEN:
            return None
        holder, lacking = self._witnesses(group, namespace, name, member)
        if got is None and holder is None:
            return None if lacking is None else ABSENT
        stored = self._shelf.get(gvr, form, member)
        if stored is None:
            return None
        if lacking is not None and not is_newer(stored.resource_version, lacking.record.resource_version):
            return ABSENT
        body = stored.body if form != TABLE else _table_of(holder or group.gets, stored)
        if stored.local:
            return Found(body, stored.stored_at, True)
        confirmed_at = self._confirmed.get((gvr, form, member), 0.0)
        return Found(body, max(stored.stored_at, confirmed_at, holder.record.updated_at if holder else 0.0), False)

    def absent_at(self, caller: Caller, gvr: str, form: str, namespace: str, name: str) -> float:
        """
        When the cloud last confirmed what makes :meth:`read_object` say ABSENT, in wall seconds.
        """
        group = self._shelf.index.group(caller, gvr, form)
        if group is None:
            return 0.0
        _, lacking = self._witnesses(group, namespace, name, member_of(namespace, name))
        view = group.gets if lacking is None else lacking
        return 0.0 if view is None else view.record.updated_at

    def read_list(self, key: ViewKey) -> FoundList | None:
        """
        The list as this caller may see it, from the view of that key or a wider one, whichever is newest; None when no
        view of the caller holds it all.  The last one is found at once until anything changes.  Raises SelectorError.
        """
        revision = self._shelf.revision
        recent, self._recent_list = self._recent_list, None
        if recent is None or recent[:2] != (key, revision):
            del recent  # before the next one takes as much again
            found = self._find_list(key)
            if found is None or len(found.body) > MAX_RECENT_LIST or revision != self._shelf.revision:
                return found
            recent = key, revision, found
        self._recent_list = recent
        return recent[2]

    def _find_list(self, key: ViewKey) -> FoundList | None:
        found = self._read_items(key)
        if found is None:
            return None
        view, items = found
        record = view.record
        body = join_list(record.kind, record.api_version, record.resource_version, items, key.form, record.columns)
        return FoundList(body, record.kind, record.api_version, record.resource_version, record.updated_at, len(items))

    def members(self, key: ViewKey) -> list[bytes]:
        """
        The items of the list that :meth:`read_list` would give, as for the initial events of a watch.
        """
        found = self._read_items(key)
        return [] if found is None else found[1]

    def walk(self, key: ViewKey) -> Iterator[bytes]:
        """
        The items of the view of that very key, which is complete, one by one; it may change meanwhile.  Where one is missing that
        the view holds, the view has a gap from then on.
        """
        view = self._shelf.index.views[key]
        for members in slices(self._shelf.members(view), WALK_STEP):
            for member, stored in zip(members, self._shelf.get_many(key.gvr, key.form, members)):
                if stored is not None:
                    yield stored.body
                elif self._shelf.holds(view, member):
                    self._shelf.mark_gap(view)

    def view(self, key: ViewKey) -> ViewInfo | None:
        """
        What is known of the view of that very key.
        """
        view = self._shelf.index.views.get(key)
        return None if view is None else _info(view)

    def views(self) -> Iterator[tuple[ViewKey, ViewInfo]]:
        """
        All views; the namespace GETS tells those of single reads.
        """
        for key, view in self._shelf.index.views.items():
            yield key, _info(view)

    def _witnesses(self, group: Group, namespace: str, name: str, member: bytes) -> tuple[View | None, View | None]:
        """
        The newest view that holds an object, and the newest that says that there is none.
        """
        holder: View | None = None
        lacking: View | None = None
        for view in group.covering(namespace, name):
            if self._shelf.holds(view, member):
                holder = _newer(view, holder)
            elif view.decides and self._shelf.is_whole(view):
                lacking = _newer(view, lacking)
        return holder, lacking

    def _read_items(self, key: ViewKey) -> tuple[View, list[bytes]] | None:
        group = self._shelf.index.group(key.caller, key.gvr, key.form)
        if group is None:
            return None
        best: View | None = self._shelf.index.views.get(key)
        if best is not None and not best.record.complete:
            best = None
        for view in group.wider(key):
            if _is_readable(view, key):
                best = _newer(view, best)
        if best is None:
            return None
        items = self._items(best, key)
        if items is not None:
            return best, items
        # A record was damaged and dropped: a list that lacks it would be a lie.
        self._shelf.mark_gap(best)
        return self._read_items(key)

    def _items(self, view: View, key: ViewKey) -> list[bytes] | None:
        """
        What a view holds of what ``key`` asks for; None when not all of it can be read.
        """
        namespace = key.namespace if key.namespace != view.key.namespace else ""
        members = list(self._shelf.members(view, namespace))
        if not namespace and len(members) != view.record.members:
            return None
        items = self._shelf.bodies(key.gvr, key.form, members)
        label_selector = key.label_selector if key.label_selector != view.key.label_selector else ""
        field_selector = key.field_selector if key.field_selector != view.key.field_selector and not view.name else ""
        if items is None or not (label_selector or field_selector):
            return items
        selects = compile_selection(label_selector, field_selector)
        if key.form == TABLE:
            return [item for item in items if selects(bytes(_decode_row(item).object))]
        return [item for item in items if selects(item)]


def _newer(view: View, best: View | None) -> View:
    """
    The newer of two views, the second one when they are alike.
    """
    if best is None or view is best:
        return view
    return view if is_newer(view.record.resource_version, best.record.resource_version) else best


def _is_readable(view: View, key: ViewKey) -> bool:
    """
    Whether what ``key`` selects by can be told from the items of the view: metadata is all that a Table or partial form holds.
    """
    if not key.form or view.key.field_selector == key.field_selector or view.name:
        return True
    return all(term.key.startswith("metadata.") for term in parse_field_selector(key.field_selector))


def _table_of(view: View | None, stored: StoredObject) -> bytes:
    record = None if view is None else view.record
    columns, api_version = (b"", "") if record is None else (record.columns, record.api_version)
    return join_list(TABLE, api_version or "meta.k8s.io/v1", stored.resource_version, [stored.body], TABLE, columns)


def _info(view: View) -> ViewInfo:
    record = view.record
    return ViewInfo(
        record.resource_version,
        record.complete,
        record.kind,
        record.api_version,
        record.updated_at,
        record.members,
        view.frozen,
    )
