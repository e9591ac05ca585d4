"""
The link that carries our addresses: what is wanted, what is seen, and the edits from one to the other.

A link of ours is a dummy or a TAP link with a name of our choice; it carries host addresses (/32, /128) and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network
from typing import Literal, Protocol

from yurt.host.errors import HostError, LinkError

LinkKind = Literal["auto", "dummy", "tap"]

MAX_NAME = 15
"""Bytes in a link's name: IFNAMSIZ of linux/if.h, less the closing zero."""

ROUNDS = 3
"""How often the link is read and edited before what is still wrong is reported."""

_KINDS: dict[str, tuple[str, ...]] = {"auto": ("dummy", "tap"), "dummy": ("dummy",), "tap": ("tap",)}
_LINK_LOCAL = ip_network("fe80::/10")


@dataclass(frozen=True, slots=True)
class Link:
    """
    A link as it is wanted.

    ``addresses`` are plain addresses, each of which gets the prefix of a single host.  ``auto`` is a dummy link where the
    kernel has that type, a TAP link elsewhere.
    """

    name: str
    kind: LinkKind
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SeenLink:
    """
    A link as the kernel shows it; ``addresses`` are written ``address/prefix``.
    """

    name: str
    kind: str
    up: bool
    addresses: frozenset[str]


@dataclass(frozen=True, slots=True)
class CreateLink:
    """
    Make a link of the first of ``kinds`` that the kernel has.
    """

    name: str
    kinds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeleteLink:
    """
    Remove a link with all its addresses.
    """

    name: str


@dataclass(frozen=True, slots=True)
class SetUp:
    """
    Set a link up.
    """

    name: str


@dataclass(frozen=True, slots=True)
class AddAddress:
    """
    Give a link an address, written ``address/prefix``.
    """

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    """
    Take an address, written ``address/prefix``, from a link.
    """

    name: str
    address: str


LinkEdit = CreateLink | DeleteLink | SetUp | AddAddress | RemoveAddress


class Links(Protocol):
    """
    The kernel's links, real or pretended.
    """

    def see(self, name: str) -> SeenLink | None:
        """
        Read one link; None when there is none of that name.
        """

    def apply(self, edit: LinkEdit) -> None:
        """
        Make one change.  Raises HostError.
        """


def parse_link(name: str, kind: str, addresses: tuple[str, ...]) -> Link:
    """
    Check what an operator asked for.  Raises LinkError, a ValueError, saying what to write instead.
    """
    if not name or len(name.encode()) > MAX_NAME:
        raise LinkError(f"link name {name!r} must have 1 to {MAX_NAME} bytes: choose a shorter one")
    if name in (".", "..") or any(c in "/:%" or c.isspace() or not c.isprintable() for c in name):
        raise LinkError(f"link name {name!r} must have no blank, slash, colon, percent sign or unprintable character")
    if kind not in _KINDS:
        raise LinkError(f"link kind {kind!r} is not one of {', '.join(_KINDS)}")
    if not addresses:
        raise LinkError(f"link {name} needs at least one address")
    plain = dict.fromkeys(str(_parse_address(address)) for address in addresses)
    return Link(name, kind, tuple(plain))  # type: ignore[arg-type]  # checked above


def _parse_address(text: str) -> IPv4Address | IPv6Address:
    try:
        address = ip_address(text)
    except ValueError:
        raise LinkError(f"link address {text!r} is no IPv4 or IPv6 address") from None
    if address.is_multicast or address.is_unspecified or address.is_loopback or address in _LINK_LOCAL:
        raise LinkError(f"link address {text} is not one that a pod can reach: choose one like 169.254.2.1 or fd00::2:1")
    return address


def host_prefix(address: str) -> str:
    """
    Write a plain address as the network of that one host: 169.254.2.1/32, fd00::2:1/128.
    """
    return str(ip_interface(address))


def plan(seen: SeenLink | None, wanted: Link) -> list[LinkEdit]:
    """
    Decide the edits that turn what is seen into what is wanted; none when all is well.

    A link left by a crash is adopted whichever of our two kinds it has.  A host address on it that is not wanted is from an
    earlier configuration of ours and goes; other addresses stay.  Raises LinkError when the name belongs to someone else's link.
    """
    name = wanted.name
    addresses = [host_prefix(address) for address in wanted.addresses]
    if seen is None:
        return [CreateLink(name, _KINDS[wanted.kind]), *(AddAddress(name, a) for a in addresses), SetUp(name)]
    if not _is_ours(seen):
        if seen.up and seen.addresses.issuperset(addresses):
            return []
        raise LinkError(
            f"link {name} exists already and is of kind {seen.kind}, not dummy or tap: "
            "remove it or choose another name (--dummy-if-name)"
        )
    edits: list[LinkEdit] = [RemoveAddress(name, a) for a in sorted(_host_addresses(seen) - set(addresses))]
    edits += [AddAddress(name, a) for a in addresses if a not in seen.addresses]
    if not seen.up:
        edits.append(SetUp(name))
    return edits


def plan_removal(seen: SeenLink | None, wanted: Link) -> list[LinkEdit]:
    """
    Decide the edits that leave nothing of ours: the link, or only our addresses when someone else put theirs on it.
    """
    if seen is None or not _is_ours(seen):
        return []
    if any(ip_interface(a) not in _LINK_LOCAL for a in seen.addresses - _host_addresses(seen)):
        return [RemoveAddress(seen.name, a) for a in sorted(_host_addresses(seen))]
    return [DeleteLink(seen.name)]


def _is_ours(seen: SeenLink) -> bool:
    return seen.kind in _KINDS["auto"]


def _host_addresses(seen: SeenLink) -> set[str]:
    interfaces = {a: ip_interface(a) for a in seen.addresses}
    return {a for a, i in interfaces.items() if i.network.prefixlen == i.max_prefixlen and i not in _LINK_LOCAL}


def ensure_link(links: Links, wanted: Link) -> tuple[SeenLink | None, list[str], list[str]]:
    """
    Read, plan and apply until the link is as wanted.

    Returns the link as seen last, the changes made and the problems left, both as sentences.  What one address lacks does
    not keep another from being set.
    """
    changes: list[str] = []
    problems: list[str] = []
    for _ in range(ROUNDS):
        problems = []
        edits = plan(links.see(wanted.name), wanted)
        if not edits:
            break
        for edit in edits:
            try:
                links.apply(edit)
            except HostError as error:
                problems.append(str(error))
                if isinstance(edit, CreateLink):
                    break
            else:
                changes.append(describe(edit))
    return links.see(wanted.name), changes, problems


def remove_link(links: Links, wanted: Link) -> list[str]:
    """
    Remove what is ours; returns the changes made as sentences.  Raises HostError.
    """
    changes = []
    for edit in plan_removal(links.see(wanted.name), wanted):
        links.apply(edit)
        changes.append(describe(edit))
    return changes


def describe(edit: LinkEdit) -> str:
    """
    Say in a few words what an edit does.
    """
    match edit:
        case CreateLink(name):
            return f"created link {name}"
        case DeleteLink(name):
            return f"deleted link {name}"
        case SetUp(name):
            return f"set link {name} up"
        case AddAddress(name, address):
            return f"added {address} to link {name}"
        case RemoveAddress(name, address):
            return f"removed {address} from link {name}"
