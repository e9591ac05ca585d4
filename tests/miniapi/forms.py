"""
The forms in which objects leave: as they are, as Table, as PartialObjectMetadata; chosen by Accept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from . import errors
from .resources import Document, ResourceType
from .store import Page, Stored

FULL, TABLE, PARTIAL = "", "Table", "PartialObjectMetadata"
JSON_TYPES = ("application/json", "application/*", "*/*", "")


def negotiate(accept: str) -> tuple[str, str]:
    """
    The form and the meta.k8s.io version of the first acceptable media type; raises NotAcceptable.
    """
    for clause in accept.split(","):
        media_type, *parameters = [p.strip() for p in clause.split(";")]
        if media_type not in JSON_TYPES:
            continue
        given = dict(p.partition("=")[::2] for p in parameters)
        wanted, group, version = given.get("as", ""), given.get("g", ""), given.get("v", "")
        if not wanted:
            return FULL, ""
        plain = wanted.removesuffix("List")
        if plain in (TABLE, PARTIAL) and group == "meta.k8s.io" and version in ("v1", "v1beta1"):
            return plain, version
    raise errors.not_acceptable()


def _dump(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _partial(stored: Stored, version: str) -> Document:
    return {"kind": PARTIAL, "apiVersion": f"meta.k8s.io/{version}", "metadata": stored.document["metadata"]}


NAME_COLUMN = {
    "name": "Name",
    "type": "string",
    "format": "name",
    "description": "Name must be unique within a namespace.",
    "priority": 0,
}


def _column(name: str) -> Document:
    return {"name": name, "type": "string", "format": "", "description": name, "priority": 0}


Cells = Callable[[Document], list[str]]
COLUMNS: dict[str, tuple[tuple[str, ...], Cells]] = {
    "pods": (
        ("Status", "Node"),
        lambda pod: [pod.get("status", {}).get("phase", "Pending"), pod.get("spec", {}).get("nodeName", "<none>")],
    ),
    "configmaps": (("Data",), lambda one: [str(len(one.get("data") or {}))]),
}


def _row(resource: ResourceType, stored: Stored, version: str, include: str) -> Document:
    metadata = stored.document["metadata"]
    cells = COLUMNS.get(resource.plural, ((), lambda _: []))[1](stored.document)
    row: Document = {"cells": [metadata["name"], *cells, metadata["creationTimestamp"]]}
    if include == "Object":
        row["object"] = stored.document
    else:
        row["object"] = None if include == "None" else _partial(stored, version)
    return row


def _table(
    resource: ResourceType, rows: list[Document], metadata: Document, version: str, *, with_columns: bool = True
) -> Document:
    names = COLUMNS.get(resource.plural, ((), None))[0]
    columns = [NAME_COLUMN, *(_column(n) for n in names), _column("Created At")] if with_columns else None
    return {
        "kind": TABLE,
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": rows,
    }


def encode_object(
    resource: ResourceType, stored: Stored, form: str, version: str, include: str, *, with_columns: bool = True
) -> bytes:
    """
    One object, in the form asked for.
    """
    if form == TABLE:
        metadata = {"resourceVersion": stored.document["metadata"]["resourceVersion"]}
        return _dump(_table(resource, [_row(resource, stored, version, include)], metadata, version, with_columns=with_columns))
    if form == PARTIAL:
        return _dump(_partial(stored, version))
    return stored.encoded


def encode_list(resource: ResourceType, page: Page, form: str, version: str, include: str) -> bytes:
    """
    A list, in the form asked for.  Items of a typed list of a built-in resource lack kind and apiVersion, as the real ones do.
    """
    metadata: Document = {"resourceVersion": str(page.version)}
    if page.continue_token:
        metadata["continue"] = page.continue_token
    if page.remaining is not None:
        metadata["remainingItemCount"] = page.remaining
    if form == TABLE:
        return _dump(_table(resource, [_row(resource, s, version, include) for s in page.items], metadata, version))
    if form == PARTIAL:
        head = {"kind": "PartialObjectMetadataList", "apiVersion": f"meta.k8s.io/{version}", "metadata": metadata}
        return _join(head, (_dump({"metadata": s.document["metadata"]}) for s in page.items))
    head = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata}
    return _join(head, (_bare(resource, s) for s in page.items))


def _join(head: Document, items: Iterable[bytes]) -> bytes:
    return _dump(head)[:-1] + b',"items":[' + b",".join(items) + b"]}"


def _bare(resource: ResourceType, stored: Stored) -> bytes:
    if not resource.strategic:
        return stored.encoded
    prefix = _dump({"kind": resource.kind, "apiVersion": resource.api_version})[:-1] + b","
    return b"{" + stored.encoded.removeprefix(prefix) if stored.encoded.startswith(prefix) else stored.encoded


def encode_bookmark(resource: ResourceType, resource_version: int, form: str, version: str, *, initial: bool = False) -> bytes:
    """
    The object of a BOOKMARK event; ``initial`` marks the end of the initial events of a streamed list.
    """
    metadata: Document = {"resourceVersion": str(resource_version), "creationTimestamp": None}
    if initial:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    if form == PARTIAL:
        return _dump({"kind": PARTIAL, "apiVersion": f"meta.k8s.io/{version}", "metadata": metadata})
    if form == TABLE:
        return _dump(_table(resource, [], {"resourceVersion": str(resource_version)}, version, with_columns=False))
    return _dump({"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata})


def encode_event(kind: str, encoded: bytes) -> bytes:
    """
    One line of a watch.
    """
    return b'{"type":"' + kind.encode() + b'","object":' + encoded + b"}\n"
