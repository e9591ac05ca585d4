"""
The ages in Tables: an API server writes them out, so that those of a Table that was kept would stand still.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any

import msgspec

AGE = "Age"
OF_CREATION = "CreationTimestamp"
"""How the description of a built-in column begins that tells how long ago an object was created."""

MINUTE, HOUR, DAY, YEAR = 60, 3600, 24 * 3600, 365 * 24 * 3600


class _Meta(msgspec.Struct):
    creationTimestamp: datetime | None = None


class _Object(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)


class _Column(msgspec.Struct):
    name: str = ""
    type: str = ""
    description: str = ""

    @property
    def is_age(self) -> bool:
        """
        Whether it tells the age of objects: of a custom resource the name has to do, which everybody uses so.
        """
        return self.name == AGE and (self.type == "date" or self.description.startswith(OF_CREATION))


Row = dict[str, msgspec.Raw]


class _Table(msgspec.Struct):
    columnDefinitions: list[_Column] | None = None


_decode_columns = msgspec.json.Decoder(_Table).decode
_decode_whole = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_rows = msgspec.json.Decoder(list[Row]).decode
_decode_cells = msgspec.json.Decoder(list[Any]).decode
_decode_object = msgspec.json.Decoder(_Object).decode
_encode = msgspec.json.encode


def human_duration(seconds: float) -> str:
    """
    A time as kubectl and API servers write it (apimachinery's duration.HumanDuration): two units at most, the larger the rougher.
    """
    total = int(seconds)
    if total < -1:
        return "<invalid>"
    if total < 2 * MINUTE:
        return f"{max(0, total)}s"
    if total < 10 * MINUTE:
        return _two(total, MINUTE, "m", 1, "s")
    if total < 3 * HOUR:
        return f"{total // MINUTE}m"
    if total < 8 * HOUR:
        return _two(total, HOUR, "h", MINUTE, "m")
    if total < 2 * DAY:
        return f"{total // HOUR}h"
    if total < 8 * DAY:
        return _two(total, DAY, "d", HOUR, "h")
    if total < 2 * YEAR:
        return f"{total // DAY}d"
    if total < 8 * YEAR:
        return _two(total, YEAR, "y", DAY, "d")
    return f"{total // YEAR}y"


def _two(total: int, large: int, its_name: str, small: int, other_name: str) -> str:
    rest = total % large // small
    return f"{total // large}{its_name}" + (f"{rest}{other_name}" if rest else "")


def tell_ages(table: bytes, now: float) -> bytes:
    """
    A Table with the ages of its objects as they are ``now``, in seconds of the wall clock; whatever cannot be read stays.
    """
    with suppress(msgspec.MsgspecError, UnicodeDecodeError):
        columns = _decode_columns(table).columnDefinitions or []
        places = [place for place, column in enumerate(columns) if column.is_age]
        if places:
            whole = _decode_whole(table)
            rows = [_aged(row, places, now) for row in _decode_rows(whole["rows"])] if "rows" in whole else []
            return _encode({**whole, "rows": rows})
    return table


def _aged(row: Row, places: list[int], now: float) -> Row:
    created = _created(row)
    if created is None or "cells" not in row:
        return row
    cells = _decode_cells(row["cells"])
    for place in places:
        if place < len(cells):
            cells[place] = human_duration(now - created)
    return {**row, "cells": msgspec.Raw(_encode(cells))}


def _created(row: Row) -> float | None:
    """
    When the object of a row was created; None when it does not say.
    """
    with suppress(msgspec.MsgspecError):
        said = _decode_object(row["object"]).metadata.creationTimestamp if "object" in row else None
        return None if said is None else said.timestamp()
    return None
