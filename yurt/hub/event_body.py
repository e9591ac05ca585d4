"""
Events as bytes: what a recorder sends (JSON or protobuf), as JSON holds it.

Field numbers of the protobuf form: ``generated.proto`` of ``k8s.io/api/core/v1`` and of ``k8s.io/api/events/v1``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from yurt.kube.protobuf import MAGIC, ProtobufError, read_unknown
from yurt.kube.protoshapes import METADATA, Shape, read_message, read_micro_time, read_number, read_text, read_time, within

Event = dict[str, Any]


class EventError(ValueError):
    """
    A body that is no Event; the message says why.
    """


def read_event(body: bytes) -> Event:
    """
    The Event in a request body; the form is told by its first bytes.  Raises EventError.
    """
    try:
        return _read_protobuf(body) if body.startswith(MAGIC) else msgspec.json.decode(body, type=Event)
    except (ProtobufError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EventError(f"the body is no Event: {error}") from error


def _read_protobuf(body: bytes) -> Event:
    head, raw = read_unknown(body)
    shape = _SHAPES.get(head.api_version)
    if head.kind != "Event" or shape is None:
        raise EventError(f"the body is a {head.api_version} {head.kind}")
    return {"kind": "Event", "apiVersion": head.api_version, **read_message(raw, shape)}


def _count(value: int | bytes) -> int | None:
    return read_number(value) or None


_REFERENCE: Shape = {
    1: ("kind", read_text),
    2: ("namespace", read_text),
    3: ("name", read_text),
    4: ("uid", read_text),
    5: ("apiVersion", read_text),
    6: ("resourceVersion", read_text),
    7: ("fieldPath", read_text),
}
_SOURCE: Shape = {1: ("component", read_text), 2: ("host", read_text)}
_SERIES: Shape = {1: ("count", _count), 2: ("lastObservedTime", read_micro_time)}

_SHAPES: dict[str, Shape] = {
    "v1": {
        1: ("metadata", within(METADATA)),
        2: ("involvedObject", within(_REFERENCE)),
        3: ("reason", read_text),
        4: ("message", read_text),
        5: ("source", within(_SOURCE)),
        6: ("firstTimestamp", read_time),
        7: ("lastTimestamp", read_time),
        8: ("count", _count),
        9: ("type", read_text),
        10: ("eventTime", read_micro_time),
        11: ("series", within(_SERIES)),
        12: ("action", read_text),
        13: ("related", within(_REFERENCE)),
        14: ("reportingComponent", read_text),
        15: ("reportingInstance", read_text),
    },
    "events.k8s.io/v1": {
        1: ("metadata", within(METADATA)),
        2: ("eventTime", read_micro_time),
        3: ("series", within(_SERIES)),
        4: ("reportingController", read_text),
        5: ("reportingInstance", read_text),
        6: ("action", read_text),
        7: ("reason", read_text),
        8: ("regarding", within(_REFERENCE)),
        9: ("related", within(_REFERENCE)),
        10: ("note", read_text),
        11: ("type", read_text),
        12: ("deprecatedSource", within(_SOURCE)),
        13: ("deprecatedFirstTimestamp", read_time),
        14: ("deprecatedLastTimestamp", read_time),
        15: ("deprecatedCount", _count),
    },
}
