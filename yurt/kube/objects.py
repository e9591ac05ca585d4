"""
Kubernetes objects as bytes: what must be known of them is read, all else stays as it came.

A list is split into its items without decoding them, and items are joined into a list again.  Three forms are told apart:
objects as they are (form ``""``), ``Table`` (what ``kubectl get`` asks for; an item is one row) and
``PartialObjectMetadata``.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import TypeVar

import msgspec

TABLE = "Table"
PARTIAL = "PartialObjectMetadata"

_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class ObjectError(ValueError):
    """
    A body is not the Kubernetes object or list that it should be.
    """


class Meta(msgspec.Struct, frozen=True, rename={"resource_version": "resourceVersion"}):
    """
    The part of an object's metadata that identifies it and its version; empty texts where it has none.
    """

    namespace: str = ""
    name: str = ""
    resource_version: str = ""
    uid: str = ""


NO_META = Meta()


class ObjectHead(msgspec.Struct, frozen=True, rename={"api_version": "apiVersion", "meta": "metadata"}):
    """
    Type and identity of an object.
    """

    kind: str = ""
    api_version: str = ""
    meta: Meta = NO_META


class ListParts(msgspec.Struct, frozen=True):
    """
    A list taken apart.

    ``items`` pairs each item's metadata with its bytes: a complete object that names its own kind, or a Table row.
    ``table_columns`` is the JSON text of a Table's columnDefinitions, empty when they are null.
    """

    kind: str
    api_version: str
    resource_version: str
    continue_token: str
    form: str
    items: list[tuple[Meta, bytes]]
    table_columns: bytes = b""


class _ListMeta(msgspec.Struct, rename={"continue_token": "continue"}):
    resourceVersion: str = ""
    continue_token: str = ""


class _List(msgspec.Struct):
    kind: str = ""
    apiVersion: str = ""
    metadata: _ListMeta | None = None
    items: list[msgspec.Raw] | msgspec.UnsetType | None = msgspec.UNSET
    rows: list[msgspec.Raw] | None = None
    columnDefinitions: msgspec.Raw = msgspec.Raw(b"")


class _Row(msgspec.Struct):
    object: ObjectHead | None = None


class _Table(msgspec.Struct):
    rows: list[_Row] | None = None
    metadata: Meta = NO_META


_decode_head = msgspec.json.Decoder(ObjectHead).decode
_decode_list = msgspec.json.Decoder(_List).decode
_decode_row = msgspec.json.Decoder(_Row).decode
_decode_table = msgspec.json.Decoder(_Table).decode


def read_object(body: bytes | msgspec.Raw) -> ObjectHead:
    """
    Read type and identity of one object; a Table answers for the object of its only row.

    Raises ObjectError when the body is no JSON object with readable metadata.
    """
    try:
        head = _decode_head(body)
        if head.kind == TABLE:
            return ObjectHead(head.kind, head.api_version, _table_meta(body))
        return head
    except _UNDECODABLE as error:
        raise ObjectError(f"not a Kubernetes object: {error}") from error


def _table_meta(body: bytes | msgspec.Raw) -> Meta:
    table = _decode_table(body)
    if table.rows and len(table.rows) == 1 and table.rows[0].object is not None:
        return table.rows[0].object.meta
    return table.metadata


def split_list(body: bytes) -> ListParts:
    """
    Take a list apart, whatever its kind and form.

    The items of a typed list name no kind; theirs is put in front of them, so that each is a complete object.
    Raises ObjectError for anything but a list (a Status, a single object, discovery documents), and for a Table whose rows
    carry no object.
    """
    return exhaust(split_list_in_steps(body, sys.maxsize))


def split_list_in_steps(body: bytes, step: int) -> Generator[None, None, ListParts]:
    """
    As :func:`split_list`, with a pause after each ``step`` items but the last.
    """
    try:
        whole = _decode_list(body)
        if whole.kind == TABLE:
            form, items = TABLE, (_split_row(row) for row in whole.rows or ())
        elif whole.kind.endswith("List") and whole.items is not msgspec.UNSET:
            item_kind = whole.kind[:-4]
            form = PARTIAL if item_kind == PARTIAL and whole.apiVersion.startswith("meta.k8s.io/") else ""
            items = (_split_item(raw, item_kind, whole.apiVersion) for raw in whole.items or ())
        else:
            raise ObjectError(f"not a list but {whole.kind or 'a document without a kind'}")
        split: list[tuple[Meta, bytes]] = []
        for some in slices(items, step):
            if split:
                yield
            split += some
    except _UNDECODABLE as error:
        raise ObjectError(f"not a Kubernetes list: {error}") from error
    meta = whole.metadata or _ListMeta()
    columns = bytes(whole.columnDefinitions) if form == TABLE else b""
    columns = b"" if columns == b"null" else columns
    return ListParts(whole.kind, whole.apiVersion, meta.resourceVersion, meta.continue_token, form, split, columns)


T = TypeVar("T")


def slices(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """
    The items, at most ``size`` at a time.
    """
    iterator = iter(items)
    while some := list(islice(iterator, size)):
        yield some


def exhaust(steps: Generator[None, None, T]) -> T:
    """
    Do all steps now; what they return.
    """
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def _split_row(row: msgspec.Raw) -> tuple[Meta, bytes]:
    head = _decode_row(row).object
    if head is None or not head.meta.name:
        raise ObjectError("the rows of this Table carry no object (includeObject=None)")
    return head.meta, bytes(row)


def _split_item(raw: msgspec.Raw, kind: str, api_version: str) -> tuple[Meta, bytes]:
    head = _decode_head(raw)
    return head.meta, _with_type(bytes(raw), head, kind, api_version)


def _with_type(item: bytes, head: ObjectHead, kind: str, api_version: str) -> bytes:
    """
    The item with kind and apiVersion in front, as far as it lacks them and the list knows them.
    """
    missing = b""
    if kind and not head.kind:
        missing += b'"kind":%b,' % msgspec.json.encode(kind)
    if api_version and kind and not head.api_version:
        missing += b'"apiVersion":%b,' % msgspec.json.encode(api_version)
    if not missing:
        return item
    rest = item[1:].lstrip(b" \t\r\n")
    return b"{" + (missing[:-1] if rest == b"}" else missing) + rest


def join_list(
    kind: str,
    api_version: str,
    resource_version: str,
    items: Iterable[bytes],
    form: str = "",
    table_columns: bytes = b"",
) -> bytes:
    """
    A list as JSON, of items (or Table rows) as :func:`split_list` gave them.
    """
    encode = msgspec.json.encode
    head = b'{"kind":%b,"apiVersion":%b,"metadata":{"resourceVersion":%b},' % (
        encode(kind),
        encode(api_version),
        encode(resource_version),
    )
    if form == TABLE:
        head += b'"columnDefinitions":%b,"rows":[' % (table_columns or b"[]")
    else:
        head += b'"items":['
    pieces = list(items)
    if not pieces:
        return head + b"]}"
    # Joined in one go: a list of a thousand objects is copied once.
    pieces[0] = head + pieces[0]
    pieces[-1] += b"]}"
    return b",".join(pieces)


def is_newer(new: str, old: str) -> bool:
    """
    Whether one resourceVersion is later than another.

    API servers hand out integers; of anything else the order is unknown, and the new one is taken for newer.
    """
    if not (new.isdecimal() and old.isdecimal()):
        return True
    new, old = new.lstrip("0"), old.lstrip("0")
    return (len(new), new) > (len(old), old)
