"""
The strategic merge patch that brings a status to what it was last, whatever it was made of meanwhile.

A patch merges: what it does not name stays.  So what was there before and is not any more has to be named.
"""

from __future__ import annotations

from typing import Any

from yurt.kube.strategic import PATCH, SHAPES, Shape

REPLACED = frozenset({"addresses", "hostIPs", "podIPs"})
"""
Lists whose items are one statement.  They can only be replaced: two addresses of a node may have the same type, and
kube-apiserver would merge the old IP of a pod with the new one.
"""

_PLAIN = Shape()


def last_status(kind: str, before: dict[str, Any], last: dict[str, Any]) -> dict[str, Any]:
    """
    The patch to the status of an object of this kind: all of ``last``, and the end of what only ``before`` has, which is
    the status as the API server had it.  Items that others have added to lists since, such as conditions, stay.
    """
    shape = SHAPES.get(kind, _PLAIN).fields.get("status", _PLAIN)
    return _map_patch(before, last, shape)


def _map_patch(before: dict[str, Any], last: dict[str, Any], shape: Shape) -> dict[str, Any]:
    names = [*last, *(key for key in before if key not in last)]
    return {key: _field_patch(key, before.get(key), last.get(key), shape.fields.get(key, _PLAIN)) for key in names}


def _field_patch(key: str, before: Any, last: Any, shape: Shape) -> Any:
    if isinstance(before, dict) and isinstance(last, dict):
        return _map_patch(before, last, shape)
    if not (isinstance(before, list) and isinstance(last, list | None) and shape.key):
        return last  # kube-apiserver takes directives literally where it has nothing yet
    if key in REPLACED:
        return None if last is None else [*last, {PATCH: "replace"}]
    old, new = _by_key(before, shape.key), _by_key(last or [], shape.key)
    ended = [{PATCH: "delete", shape.key: name} for name in old if name not in new]
    return [_map_patch(old.get(name, {}), item, shape) for name, item in new.items()] + ended


def _by_key(items: list[Any], key: str) -> dict[Any, dict[str, Any]]:
    return {item[key]: item for item in items if isinstance(item, dict) and isinstance(item.get(key), str)}
