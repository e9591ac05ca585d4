"""
Lists that come in pages: put together until the last one has come.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from yurt.hub.cache.views import Caller, ViewKey
from yurt.hub.viewkeys import view_key
from yurt.kube.objects import ListParts
from yurt.kube.requestinfo import RequestInfo

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

MAX_OPEN_LISTS = 64
"""Paged lists of which some pages have come and the last has not."""

MAX_OPEN_LIST_BYTES = 64 * 1024 * 1024
"""Bytes of their items held until the last page comes."""

OPEN_LIST_LIFETIME = 300.0
"""Seconds that the next page may take; kube-apiserver's own continue tokens live as long."""


@dataclass(frozen=True, slots=True)
class WholeList:
    """
    A list with all its pages; ``requested_version`` is the ``resourceVersion`` of the request that began it, ``known_version``
    that of its view at that time.
    """

    parts: ListParts
    requested_version: str
    known_version: str


@dataclass(slots=True)
class _OpenList:
    whole: WholeList
    size: int
    since: float


class OpenLists:
    """
    Paged lists on their way: pages are put together until the last has come.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._open: OrderedDict[tuple[ViewKey, str], _OpenList] = OrderedDict()
        self._size = 0

    def add(self, caller: Caller, info: RequestInfo, parts: ListParts, known_version: str) -> WholeList | None:
        """
        Take a page; the whole list when it was the last one.
        """
        self._expire()
        key = view_key(caller, info, parts.form)
        token = info.query.get("continue", "")
        size = sum(len(body) for _, body in parts.items) if token or parts.continue_token else 0
        if token:
            before = self._open.pop((key, token), None)
            if before is None:
                return None
            self._size -= before.size
            whole = replace(before.whole, parts=_join(before.whole.parts, parts))
            size += before.size
        else:
            whole = WholeList(parts, info.query.get("resourceVersion", ""), known_version)
        if not parts.continue_token:
            return whole
        self._open[(key, parts.continue_token)] = _OpenList(whole, size, self._reactor.seconds())
        self._size += size
        while len(self._open) > MAX_OPEN_LISTS or self._size > MAX_OPEN_LIST_BYTES:
            _, dropped = self._open.popitem(last=False)
            self._size -= dropped.size
        return None

    def _expire(self) -> None:
        limit = self._reactor.seconds() - OPEN_LIST_LIFETIME
        while self._open:
            key, oldest = next(iter(self._open.items()))
            if oldest.since > limit:
                return
            del self._open[key]
            self._size -= oldest.size


def _join(first: ListParts, page: ListParts) -> ListParts:
    return ListParts(
        kind=first.kind,
        api_version=first.api_version,
        resource_version=first.resource_version,
        continue_token=page.continue_token,
        form=first.form,
        items=[*first.items, *page.items],
        table_columns=first.table_columns or page.table_columns,
    )
