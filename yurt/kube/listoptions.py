"""
The query parameters of a list or watch, as far as an API server refuses them whatever it holds.

Rules: ``k8s.io/apimachinery/pkg/apis/meta/internalversion/validation``, and the conversion of numbers before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

MAX_NUMBER = (1 << 63) - 1
MAX_DIGITS = 19
NUMBERS = ("limit", "timeoutSeconds")
EXACT, NOT_OLDER = "Exact", "NotOlderThan"


class Fault(NamedTuple):
    """
    Why a list or watch is refused: the code and reason of the Status, and its message.
    """

    code: int
    reason: str
    message: str


def find_fault(query: Mapping[str, str], *, watch: bool) -> Fault | None:
    """
    What is wrong with these parameters; None when nothing is.  Selectors and continue tokens are looked at elsewhere.
    """
    for name in NUMBERS:
        if query.get(name) and read_number(query[name]) is None:
            return Fault(400, "BadRequest", f"{name}: {query[name][:64]!r} is no integer")
    version = query.get("resourceVersion", "")
    if version and not (version.isascii() and version.isdecimal()):
        return Fault(400, "BadRequest", f"resourceVersion: {version[:64]!r} is no version of this cluster")
    wrong = _match_of_watch(query) if watch else _match_of_list(query, version)
    return Fault(422, "Invalid", f"ListOptions.meta.k8s.io is invalid: {wrong}") if wrong else None


def read_number(text: str) -> int | None:
    """
    An integer of 64 bits, as Go reads one; None for anything else.
    """
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdecimal()) or len(digits.lstrip("0")) > MAX_DIGITS:
        return None
    number = int(text)
    return number if -MAX_NUMBER - 1 <= number <= MAX_NUMBER else None


def _match_of_watch(query: Mapping[str, str]) -> str:
    match, initial = query.get("resourceVersionMatch", ""), query.get("sendInitialEvents")
    if match and not initial:
        return "resourceVersionMatch is forbidden for watch unless sendInitialEvents is given"
    if initial and match != NOT_OLDER:
        return f"resourceVersionMatch must be {NOT_OLDER} where sendInitialEvents is given"
    return ""


def _match_of_list(query: Mapping[str, str], version: str) -> str:
    match = query.get("resourceVersionMatch", "")
    if query.get("sendInitialEvents"):
        return "sendInitialEvents is forbidden for list"
    if not match:
        return ""
    if match not in (EXACT, NOT_OLDER):
        return f"resourceVersionMatch is {EXACT} or {NOT_OLDER}, not {match[:64]!r}"
    if query.get("continue"):
        return "resourceVersionMatch is forbidden when continue is given"
    if not version:
        return "resourceVersionMatch is forbidden unless resourceVersion is given"
    if match == EXACT and version == "0":
        return f"resourceVersionMatch {EXACT} is forbidden for resourceVersion 0"
    return ""
