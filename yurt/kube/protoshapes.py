"""
Messages of Kubernetes' protobuf form read into what JSON would hold, field by field, for the few kinds that need it.

A *shape* tells of each field number the name in JSON and what reads its value; fields that it does not name are left out, and so
are empty values, as JSON leaves them out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from yurt.kube.lease import micro_time
from yurt.kube.protobuf import ProtobufError, fields, messages

MAX_NUMBER = (1 << 32) - 1
"""The largest number that such a field sensibly holds; as seconds it is a time of the year 2106."""

Reader = Callable[[int | bytes], Any]
Shape = Mapping[int, tuple[str, Reader]]


def read_message(message: bytes, shape: Shape) -> dict[str, Any]:
    """
    The fields named in ``shape``; those read to a list or a dict add up where they repeat.  Raises ProtobufError.
    """
    found: dict[str, Any] = {}
    for number, value in fields(message):
        if number not in shape:
            continue
        name, reader = shape[number]
        read = reader(value)
        if isinstance(read, list):
            found.setdefault(name, []).extend(read)
        elif isinstance(read, dict):
            found.setdefault(name, {}).update(read)
        else:
            found[name] = read
    return {name: value for name, value in found.items() if value not in ("", None)}


def read_bytes(value: int | bytes) -> bytes:
    """
    A message or a text.
    """
    if not isinstance(value, bytes):
        raise ProtobufError("a number where a message or a text should be")
    return value


def read_number(value: int | bytes) -> int:
    """
    A number that is not negative.
    """
    if not isinstance(value, int) or value > MAX_NUMBER:
        raise ProtobufError("no number where a small one should be")
    return value


def read_flag(value: int | bytes) -> bool:
    """
    A bool.
    """
    return read_number(value) != 0


def read_text(value: int | bytes) -> str:
    """
    A string.
    """
    try:
        return read_bytes(value).decode()
    except UnicodeDecodeError as error:
        raise ProtobufError(f"text that is not UTF-8: {error}") from error


def read_micro_time(value: int | bytes) -> str | None:
    """
    A MicroTime, as the text of JSON; None for the zero one.
    """
    parts = dict(fields(read_bytes(value)))
    if not parts:
        return None
    return micro_time(read_number(parts.get(1, 0)) + read_number(parts.get(2, 0)) / 1e9)


def read_time(value: int | bytes) -> str | None:
    """
    A Time, which JSON has in whole seconds; None for the zero one.
    """
    parts = dict(fields(read_bytes(value)))
    if not parts:
        return None
    return datetime.fromtimestamp(read_number(parts.get(1, 0)), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def within(shape: Shape) -> Reader:
    """
    What reads a message inside another.
    """
    return lambda value: read_message(read_bytes(value), shape)


def _entry(value: int | bytes) -> dict[str, str]:
    entry = messages(read_bytes(value))
    return {read_text(entry.get(1, b"")): read_text(entry.get(2, b""))}


def _owner(value: int | bytes) -> list[dict[str, Any]]:
    return [read_message(read_bytes(value), _OWNER)]


_OWNER: Shape = {
    5: ("apiVersion", read_text),
    1: ("kind", read_text),
    3: ("name", read_text),
    4: ("uid", read_text),
    6: ("controller", read_flag),
    7: ("blockOwnerDeletion", read_flag),
}
METADATA: Shape = {
    1: ("name", read_text),
    3: ("namespace", read_text),
    11: ("labels", _entry),
    12: ("annotations", _entry),
    13: ("ownerReferences", _owner),
}
"""What clients write of an ObjectMeta.  Field numbers: ``generated.proto`` of ``k8s.io/apimachinery/pkg/apis/meta/v1``."""
