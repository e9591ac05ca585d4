"""
The three kinds of PATCH that a Kubernetes API takes: JSON patch, JSON merge patch and strategic merge patch.
"""

from __future__ import annotations

import copy
from typing import Any

import msgspec

from yurt.kube.jsonpatch import JSONPatchError, apply_json_patch
from yurt.kube.strategic import StrategicPatchError, strategic_merge

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
PATCH_TYPES = frozenset({JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH})


class PatchError(ValueError):
    """
    A patch cannot be read, is of another kind, or does not fit the object.
    """


def apply_patch(content_type: str, document: dict[str, Any], patch: bytes, kind: str) -> dict[str, Any]:
    """
    The object as it is after a patch; what is passed in stays as it is.

    ``content_type`` is that of the request, parameters and all; ``kind`` decides how a strategic merge patch treats
    lists.  Raises PatchError.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    try:
        change = msgspec.json.decode(patch)
        patched = _apply(media_type, copy.deepcopy(document), change, kind)
    except (msgspec.DecodeError, UnicodeDecodeError, JSONPatchError, StrategicPatchError) as error:
        raise PatchError(f"{media_type} on {kind}: {error}") from error
    except RecursionError as error:
        raise PatchError(f"{media_type} on {kind}: nested too deeply") from error
    if not isinstance(patched, dict):
        raise PatchError(f"{media_type} on {kind}: the result is no object")
    return patched


def _apply(media_type: str, document: dict[str, Any], change: Any, kind: str) -> Any:
    if media_type == JSON_PATCH:
        return apply_json_patch(document, change)
    if media_type == MERGE_PATCH:
        return merge_patch(document, change)
    if media_type == STRATEGIC_MERGE_PATCH:
        return strategic_merge(document, change, kind)
    raise PatchError(f"a patch of type {media_type!r} is not understood; send one of the three JSON kinds")


def join_patches(content_type: str, first: bytes, second: bytes) -> bytes | None:
    """
    One patch that does what two of the same type do one after the other; None where there is none, or it would take more than
    putting maps together.
    """
    if content_type.partition(";")[0].strip().lower() not in (MERGE_PATCH, STRATEGIC_MERGE_PATCH):
        return None
    try:
        return msgspec.json.encode(_join(msgspec.json.decode(first), msgspec.json.decode(second)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, _NotJoined):
        return None


class _NotJoined(Exception):
    pass


def _join(first: Any, second: Any) -> Any:
    """
    Maps key by key; what comes later replaces what came before.  A map that comes after something else is not merged with what
    the object had, and lists and directives are a strategic merge patch's own matter: none of these can be joined.
    """
    if not isinstance(first, dict) or not isinstance(second, dict):
        raise _NotJoined
    joined = dict(first)
    for key, value in second.items():
        if key in joined and isinstance(value, dict):
            value = _join(joined[key], value)
        joined[key] = value
    if any(key.startswith("$") or isinstance(value, list) for key, value in joined.items()):
        raise _NotJoined
    return joined


def merge_patch(document: Any, change: Any) -> Any:
    """
    RFC 7396: objects are merged, null removes, all else replaces.
    """
    if not isinstance(change, dict):
        return change
    merged = dict(document) if isinstance(document, dict) else {}
    for key, value in change.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged
