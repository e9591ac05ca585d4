"""
Label and field selectors: read, brought into one spelling, and applied to objects that stay bytes.

Grammar and meaning are those of ``k8s.io/apimachinery/pkg/labels`` and ``…/pkg/fields``.  A field may be any path that the
object has, where an API server knows a few of each kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from yurt.kube.objects import TABLE

REMEMBERED_SELECTIONS = 256
"""How many compiled selections are kept."""

_FIELDS_OF_ANOTHER_NAME = {"source": "source.component", "status.successful": "status.succeeded"}
_UNSET_FIELDS = {"spec.unschedulable": "false", "spec.hostNetwork": "false", "status.successful": "0", "status.replicas": "0"}

_LABEL_TOKEN = re.compile(r"[ \t\r\n]*(?:(!=|==|[=!(),<>])|([^ \t\r\n=!(),<>]+))")
_QUALIFIED_NAME = re.compile(
    r"(?:(?=[^/]{1,253}/)[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*/)?"
    r"(?=.{1,63}\Z)[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
)
_LABEL_VALUE = re.compile(r"(?=.{0,63}\Z)(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_FIELD_VALUE = re.compile(r"(?:\\[\\,=]|[^\\,=])*", re.DOTALL)
_INTEGER = re.compile(r"[-+]?[0-9]{1,19}", re.ASCII)


class SelectorError(ValueError):
    """
    A selector that Kubernetes would refuse.
    """


@dataclass(frozen=True, slots=True, order=True)
class Requirement:
    """
    One condition of a selector.

    ``operator`` is one of ``=``, ``!=``, ``in``, ``notin``, ``exists``, ``!`` (must be absent), ``>`` and ``<``; ``values``
    are sorted, and always empty for the two that ask for the key alone.
    """

    key: str
    operator: str
    values: tuple[str, ...] = ()


def parse_label_selector(text: str) -> tuple[Requirement, ...]:
    """
    Read a label selector; an empty one has no requirements and selects everything.  Raises SelectorError.
    """
    return _LabelParser(text).requirements()


class _LabelParser:
    """
    Recursive descent, one token ahead; an end of text is the token ``""``.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, bool]] = []
        position, end = 0, len(text.rstrip(" \t\r\n"))
        while position < end:
            match = _LABEL_TOKEN.match(text, position)
            assert match is not None  # every character is a symbol, a blank, or part of a word
            self._tokens.append((match[1] or match[2], match[2] is not None))
            position = match.end()
        self._tokens.append(("", False))
        self._at = 0

    def _fail(self, expected: str) -> SelectorError:
        found = self._tokens[self._at][0] or "its end"
        return SelectorError(f"label selector {self._text!r}: {expected} expected, found {found!r}")

    def _take(self, symbol: str) -> bool:
        found = self._tokens[self._at] == (symbol, False)
        self._at += found
        return found

    def _word(self, expected: str) -> str:
        token, is_word = self._tokens[self._at]
        if not is_word:
            raise self._fail(expected)
        self._at += 1
        return token

    def _ends(self, *symbols: str) -> bool:
        return self._tokens[self._at] in [(symbol, False) for symbol in symbols]

    def requirements(self) -> tuple[Requirement, ...]:
        if self._ends(""):
            return ()
        found = [self._requirement()]
        while self._take(","):
            found.append(self._requirement())
        if not self._ends(""):
            raise self._fail("',' or the end")
        return tuple(found)

    def _requirement(self) -> Requirement:
        absent = self._take("!")
        key = self._word("a label key")
        if not _QUALIFIED_NAME.fullmatch(key):
            raise SelectorError(f"label selector {self._text!r}: {key!r} is no label key")
        if absent:
            return Requirement(key, "!")
        if self._ends("", ","):
            return Requirement(key, "exists")
        return self._with_values(key)

    def _with_values(self, key: str) -> Requirement:
        for symbol, operator in (("==", "="), ("=", "="), ("!=", "!="), (">", ">"), ("<", "<")):
            if self._take(symbol):
                values = {"" if self._ends("", ",") else self._word("a value")}
                break
        else:
            operator = self._word("an operator")
            if operator not in ("in", "notin"):
                self._at -= 1
                raise self._fail("an operator")
            values = self._value_set()
        for value in values:
            if not _LABEL_VALUE.fullmatch(value):
                raise SelectorError(f"label selector {self._text!r}: {value!r} is no label value")
            if operator in ("<", ">") and not _INTEGER.fullmatch(value):
                raise SelectorError(f"label selector {self._text!r}: {value!r} is no integer")
        return Requirement(key, operator, tuple(sorted(values)))

    def _value_set(self) -> set[str]:
        """
        As Kubernetes' ``parseIdentifiersList``: a value left out is the empty one, but not between two commas and the end.
        """
        if not self._take("("):
            raise self._fail("'('")
        values = {""} if self._ends(",", ")") else set()
        while not self._take(")"):
            if not self._take(","):
                values.add(self._word("a value"))
                if not self._ends(",", ")"):
                    raise self._fail("',' or ')'")
            elif self._ends(")"):
                values.add("")
            elif self._take(","):
                values.add("")
                if self._ends(")"):
                    raise self._fail("a value")
        return values


def parse_field_selector(text: str) -> tuple[Requirement, ...]:
    """
    Read a field selector: terms with ``=``, ``==`` or ``!=``, where a backslash goes before ``,``, ``=`` and itself in values.

    Blanks count.  Raises SelectorError.
    """
    return tuple(_field_term(text, term) for term in re.findall(r"(?:\\.|[^,\\]|\\\Z)+", text, re.DOTALL))


def _field_term(text: str, term: str) -> Requirement:
    operator = re.search("!=|==|=", term)
    if operator is None or not operator.start() or not _FIELD_VALUE.fullmatch(term, operator.end()):
        raise SelectorError(f"field selector {text!r}: {term!r} is not of the form path=value or path!=value")
    value = re.sub(r"\\(.)", r"\1", term[operator.end() :])
    return Requirement(term[: operator.start()], "!=" if operator[0] == "!=" else "=", (value,))


def canonical_selector(text: str) -> str:
    """
    One spelling for all label selectors that mean the same; one that cannot be read loses its outer blanks only.
    """
    if not text:
        return ""
    try:
        return ",".join(map(_label_text, sorted(set(map(_simplest, parse_label_selector(text))))))
    except SelectorError:
        return text.strip()


def _simplest(requirement: Requirement) -> Requirement:
    if len(requirement.values) == 1 and requirement.operator in ("in", "notin"):
        return Requirement(requirement.key, "=" if requirement.operator == "in" else "!=", requirement.values)
    return requirement


def _label_text(requirement: Requirement) -> str:
    key, operator, values = requirement.key, requirement.operator, requirement.values
    if operator == "exists":
        return key
    if operator == "!":
        return "!" + key
    if operator in ("in", "notin"):
        return f"{key} {operator} ({','.join(values)})"
    return f"{key}{operator}{values[0]}"


def canonical_field_selector(text: str) -> str:
    """
    One spelling for all field selectors that mean the same; one that cannot be read stays as it is.
    """
    if not text:
        return ""
    try:
        terms = sorted(set(parse_field_selector(text)))
    except SelectorError:
        return text
    return ",".join(term.key + term.operator + re.sub(r"([\\,=])", r"\\\1", term.values[0]) for term in terms)


@lru_cache(maxsize=REMEMBERED_SELECTIONS)
def is_within(label_selector: str, field_selector: str, wider_labels: str, wider_fields: str) -> bool:
    """
    Whether a selection lies within a wider one for certain: it makes each condition that the wider one makes.  Selectors that
    cannot be read lie within themselves only.
    """
    if wider_labels in ("", label_selector) and wider_fields in ("", field_selector):
        return True
    try:
        labels = set(map(_simplest, parse_label_selector(label_selector)))
        fields = set(parse_field_selector(field_selector))
        return labels.issuperset(map(_simplest, parse_label_selector(wider_labels))) and fields.issuperset(
            parse_field_selector(wider_fields)
        )
    except SelectorError:
        return False


@lru_cache(maxsize=REMEMBERED_SELECTIONS)
def compile_selection(label_selector: str, field_selector: str, form: str = "") -> Callable[[bytes], bool]:
    """
    A test for objects in JSON (rows, when ``form`` is Table): does this one belong to the selection?

    Only what the selectors name is decoded.  What is no JSON object is not selected, except by a selection of everything.
    Raises SelectorError.
    """
    labels = parse_label_selector(label_selector)
    terms = parse_field_selector(field_selector)
    if not labels and not terms:
        return lambda body: True
    root = ("object",) if form == TABLE else ()
    label_path = (*root, "metadata", "labels")
    field_paths = [(*root, *_FIELDS_OF_ANOTHER_NAME.get(term.key, term.key).split(".")) for term in terms]
    decode = msgspec.json.Decoder(_shape([label_path] * bool(labels) + field_paths)).decode
    wanted = list(zip(field_paths, terms, strict=True))

    def selects(body: bytes) -> bool:
        try:
            found = _decode(decode, body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        if labels:
            present = _follow(found, label_path)
            if not _labels_match(labels, present if isinstance(present, dict) else {}):
                return False
        return all(_field_matches(term, _follow(found, path)) for path, term in wanted)

    return selects


def _decode(decode: Callable[[bytes], Any], body: bytes) -> Any:
    try:
        return decode(body)
    except msgspec.ValidationError:  # a scalar where the path goes on
        return msgspec.json.decode(body, type=dict[str, Any])


def _shape(paths: Iterable[tuple[str, ...]]) -> type[msgspec.Struct]:
    """
    A type that decodes these paths and passes over all else; field n of a level is called ``_n``, as a JSON key may be anything.
    """
    levels: dict[str, set[tuple[str, ...]]] = {}
    for first, *rest in paths:
        levels.setdefault(first, set()).add(tuple(rest))
    fields: list[tuple[str, Any, None]] = []
    keys: dict[str, str] = {}
    for key, rests in levels.items():
        attribute = _attribute(key)
        keys[attribute] = key
        fields.append((attribute, Any if () in rests else _shape(rests) | None, None))
    return msgspec.defstruct("Selected", fields, rename=keys)


def _attribute(key: str) -> str:
    return "_" + key.encode().hex()


def _follow(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, msgspec.Struct):
            value = getattr(value, _attribute(key))
        else:
            return None
    return value


def _field_matches(term: Requirement, value: Any) -> bool:
    if isinstance(value, str):
        text = value
    elif isinstance(value, (bool, int, float)):
        text = msgspec.json.encode(value).decode()
    else:
        text = _UNSET_FIELDS.get(term.key, "")
    return (text == term.values[0]) is (term.operator == "=")


def _labels_match(requirements: Iterable[Requirement], labels: dict[str, Any]) -> bool:
    return all(_label_matches(requirement, labels.get(requirement.key)) for requirement in requirements)


def _label_matches(requirement: Requirement, value: str | None) -> bool:
    operator = requirement.operator
    if operator in ("=", "in"):
        return value in requirement.values
    if operator in ("!=", "notin"):
        return value not in requirement.values
    if operator == "!":
        return value is None
    if value is None or operator == "exists":
        return value is not None
    if not _INTEGER.fullmatch(value):
        return False
    return int(value) > int(requirement.values[0]) if operator == ">" else int(value) < int(requirement.values[0])
