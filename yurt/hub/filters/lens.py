"""
How one client sees objects: filters in their order, with the facts that they look at.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from hashlib import blake2b

import msgspec
from twisted.logger import Logger

from yurt.hub.filters.facts import Facts
from yurt.hub.filters.rule import Document, ItemMeta, Rule, with_fields
from yurt.kube.objects import PARTIAL, TABLE, ObjectError, slices

DIGEST_SIZE = 16

_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Item(msgspec.Struct):
    metadata: ItemMeta = ItemMeta()


class _ListMeta(msgspec.Struct):
    resourceVersion: str = ""


class _List(msgspec.Struct):
    kind: str = ""
    apiVersion: str = ""
    metadata: msgspec.Raw = msgspec.Raw(b"{}")
    items: list[msgspec.Raw] | None = None


class _Kind(msgspec.Struct):
    kind: str = ""


_read_item = msgspec.json.Decoder(_Item).decode
_read_list = msgspec.json.Decoder(_List).decode
_read_list_meta = msgspec.json.Decoder(_ListMeta).decode
_read_kind = msgspec.json.Decoder(_Kind).decode
_decode = msgspec.json.Decoder(Document).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, eq=False)
class Lens:
    """
    Filters with facts.  Two of the same ``digest`` show the same; one without rules shows everything as it is.
    """

    rules: tuple[Rule, ...]
    facts: Facts
    digest: bytes

    log = Logger()

    @property
    def hides(self) -> bool:
        """
        Whether it may hide objects.
        """
        return any(rule.hides for rule in self.rules)

    def same(self, other: Lens) -> bool:
        """
        Whether both show the same.
        """
        return self is other or self.digest == other.digest

    def concerned(self, item: bytes) -> tuple[Rule, ...]:
        """
        The filters that an object is looked at by; most objects have none.
        """
        meta = _read_item(item).metadata
        return tuple(rule for rule in self.rules if rule.concerns(meta, item, self.facts))

    def apply(self, item: bytes) -> bytes | None:
        """
        An object as it is shown: the very same bytes when nothing is changed, None when it is hidden.  What cannot be read is
        shown as it is.
        """
        try:
            rules = self.concerned(item)
            return self._changed(item, rules) if rules else item
        except _UNDECODABLE:
            return item
        except Exception:
            self.log.failure("a filter failed; the object is shown as it is")
            return item

    def _changed(self, item: bytes, rules: tuple[Rule, ...]) -> bytes | None:
        before: Document = _decode(item)
        document = before
        for rule in rules:
            after = rule.apply(document, self.facts)
            if after is None:
                return None
            document = after
        return item if document is before else _encode(document)


def make_lens(rules: tuple[Rule, ...], facts: Facts) -> Lens:
    """
    A lens of those of the filters that change anything under these facts.
    """
    rules = tuple(rule for rule in rules if rule.active(facts))
    used = sorted({name for rule in rules for name in rule.uses})
    state = [[rule.name for rule in rules], [[name, _plain(getattr(facts, name))] for name in used]]
    digest = blake2b(_encode(state), digest_size=DIGEST_SIZE).digest() if rules else b""
    return Lens(rules, facts, digest)


def _plain(value: object) -> object:
    if isinstance(value, frozenset):
        return sorted(value)
    return sorted(value.items()) if isinstance(value, dict) else value


CLEAR = make_lens((), Facts(""))
"""Shows everything as it is."""


@dataclass(frozen=True, slots=True)
class ShownList:
    """
    A list as a client is to see it: ``body`` is the very same when nothing was changed.  ``hidden`` are the keys of objects that
    it held and that are not shown.
    """

    body: bytes
    resource_version: str
    lens: Lens
    hidden: frozenset[str] = frozenset()


def show_list(body: bytes, choose: Callable[[str], Lens], step: int) -> Generator[None, None, ShownList]:
    """
    A list through the lens that ``choose`` gives for its resourceVersion, with a pause after each ``step`` items.  Items that
    are not changed keep their bytes.  Tables and PartialObjectMetadata are shown as they are: they lack what filters look at.

    Raises ObjectError for what is no list.
    """
    try:
        whole = _read_list(body)
        version = _read_list_meta(whole.metadata).resourceVersion
    except _UNDECODABLE as error:
        raise ObjectError(f"not a Kubernetes list: {error}") from error
    lens = choose(version)
    if whole.kind in (TABLE, f"{PARTIAL}List") or not lens.rules:
        return ShownList(body, version, lens)
    shown: list[bytes] = []
    hidden: set[str] = set()
    is_changed = False
    for some in slices(whole.items or (), step):
        if shown:
            yield
        for raw in some:
            before = bytes(raw)
            after = lens.apply(before)
            is_changed = is_changed or after is not before
            if after is None:
                hidden.add(key_of(before))
            else:
                shown.append(after)
    if not is_changed:
        return ShownList(body, version, lens)
    return ShownList(_join(whole, shown), version, lens, frozenset(hidden))


def _join(whole: _List, shown: list[bytes]) -> bytes:
    head = b'{"kind":%b,"apiVersion":%b,"metadata":%b,"items":['
    return b"".join([head % (_encode(whole.kind), _encode(whole.apiVersion), bytes(whole.metadata)), b",".join(shown), b"]}"])


def show_object(body: bytes, lens: Lens) -> bytes | None:
    """
    The answer to a GET through a lens.
    """
    try:
        kind = _read_kind(body).kind
    except _UNDECODABLE:
        return body
    return body if kind in (TABLE, PARTIAL, "Status") else lens.apply(body)


def key_of(item: bytes) -> str:
    """
    How an object is called here: ``namespace/name``.
    """
    meta = _read_item(item).metadata
    return f"{meta.namespace}/{meta.name}"


def at_version(item: bytes, version: str) -> bytes:
    """
    An object with another resourceVersion.
    """
    return _encode(with_fields(_decode(item), "metadata", resourceVersion=version))
