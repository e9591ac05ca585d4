"""
JSON patch: RFC 6902, with JSON pointers of RFC 6901.
"""

from __future__ import annotations

import copy
import re
from typing import Any

import msgspec

MAX_OPERATIONS = 10_000
"""Operations in one patch; an API server has the same bound."""

MAX_COPIED_BYTES = 3 * 1024 * 1024
"""What all ``copy`` operations of a patch may add, so that a short patch cannot double an object again and again."""

_INDEX = re.compile("0|[1-9][0-9]{0,8}")


class JSONPatchError(ValueError):
    """
    A JSON patch that is malformed or does not fit the document.
    """


def apply_json_patch(document: Any, operations: Any) -> Any:
    """
    Apply the operations in order and return the document, which is changed in place where it can be.

    Raises JSONPatchError, and leaves the document half changed then.
    """
    if not isinstance(operations, list):
        raise JSONPatchError("a JSON patch is a list of operations")
    if len(operations) > MAX_OPERATIONS:
        raise JSONPatchError(f"more than {MAX_OPERATIONS} operations")
    copied = 0
    for position, operation in enumerate(operations):
        try:
            if isinstance(operation, dict) and operation.get("op") == "copy":
                copied += len(msgspec.json.encode(_get(document, _pointer(operation, "from"))))
                if copied > MAX_COPIED_BYTES:
                    raise JSONPatchError(f"copies more than {MAX_COPIED_BYTES} bytes")
            document = _apply(document, operation)
        except JSONPatchError as error:
            raise JSONPatchError(f"operation {position}: {error}") from error
    return document


def _apply(document: Any, operation: Any) -> Any:
    if not isinstance(operation, dict):
        raise JSONPatchError("not an object")
    name, path = operation.get("op"), _pointer(operation, "path")
    if name == "add":
        return _add(document, path, _value(operation))
    if name == "remove":
        return _remove(document, path)
    if name == "replace":
        _get(document, path)
        return _put(document, path, _value(operation))
    if name == "test":
        if not equal(_get(document, path), _value(operation)):
            raise JSONPatchError(f"test failed at {operation['path']!r}")
        return document
    if name in ("move", "copy"):
        return _transfer(document, name, _pointer(operation, "from"), path)
    raise JSONPatchError(f"unknown operation {name!r}")


def _transfer(document: Any, name: str, source: list[str], path: list[str]) -> Any:
    value = _get(document, source)
    if name == "copy":
        return _add(document, path, copy.deepcopy(value))
    if source == path:
        return document
    if source == path[: len(source)]:
        raise JSONPatchError("an object cannot move into itself")
    return _add(_remove(document, source), path, value)


def _value(operation: dict[str, Any]) -> Any:
    if "value" not in operation:
        raise JSONPatchError("has no value")
    return operation["value"]


def _pointer(operation: dict[str, Any], member: str) -> list[str]:
    text = operation.get(member)
    if not isinstance(text, str) or (text and not text.startswith("/")) or re.search("~(?![01])", text):
        raise JSONPatchError(f"{member!r} is no JSON pointer")
    return [token.replace("~1", "/").replace("~0", "~") for token in text.split("/")[1:]]


def _index(container: list[Any], token: str, limit: int) -> int:
    if not _INDEX.fullmatch(token) or int(token) >= limit:
        raise JSONPatchError(f"no index {token!r} in a list of {len(container)}")
    return int(token)


def _get(document: Any, path: list[str]) -> Any:
    for token in path:
        if isinstance(document, dict) and token in document:
            document = document[token]
        elif isinstance(document, list):
            document = document[_index(document, token, len(document))]
        else:
            raise JSONPatchError(f"nothing at {token!r}")
    return document


def _add(document: Any, path: list[str], value: Any) -> Any:
    if path:
        container = _get(document, path[:-1])
        if isinstance(container, list):
            at = len(container) if path[-1] == "-" else _index(container, path[-1], len(container) + 1)
            container.insert(at, value)
            return document
    return _put(document, path, value)


def _put(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    container = _get(document, path[:-1])
    if isinstance(container, list):
        container[_index(container, path[-1], len(container))] = value
    elif isinstance(container, dict):
        container[path[-1]] = value
    else:
        raise JSONPatchError(f"no object or list above {path[-1]!r}")
    return document


def _remove(document: Any, path: list[str]) -> Any:
    _get(document, path)
    if not path:
        raise JSONPatchError("the whole document cannot be removed")
    container = _get(document, path[:-1])
    del container[int(path[-1]) if isinstance(container, list) else path[-1]]
    return document


def equal(one: Any, other: Any) -> bool:
    """
    Whether two JSON values are the same; unlike in Python, true is not 1.
    """
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
