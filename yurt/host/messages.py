"""
What a daemon asks of the short-lived child, and what it answers: one JSON document on a line, each way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from yurt.host.errors import HostError
from yurt.host.firewall import RuleSet
from yurt.host.links import Link
from yurt.host.tools import Flavour
from yurt.host.tunnel_rules import Flow, TunnelRules


@dataclass(frozen=True, slots=True)
class Known:
    """
    What an earlier request is believed to have left.
    """

    flavour: Flavour
    tunnel: TunnelRules


@dataclass(frozen=True, slots=True)
class Request:
    """
    Make the link, the rules and the tunnel's chains be there (``ensure``) or be gone (``remove``); None leaves a side alone.

    With ``known``, what of the tunnel is believed to be there and in which flavour, only the difference is applied, unseen.
    """

    action: Literal["ensure", "remove"]
    link: Link | None = None
    rules: RuleSet | None = None
    tunnel: TunnelRules | None = None
    known: Known | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """
    What was done and what could not be, as sentences.

    ``link_kind`` is empty without a link, ``backend`` without rules; ``reason`` says why it is that one, and is empty when that
    was not asked; ``flavour`` is that of the tunnel's chains.  ``checked`` says that what there is was looked at, ``flows`` are
    the destinations whose way has changed, at most MAX_FLOWS.
    """

    changes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    link_kind: str = ""
    backend: str = ""
    reason: str = ""
    flavour: Flavour | None = None
    checked: bool = False
    flows: tuple[Flow, ...] = ()


def encode(message: Request | Result) -> bytes:
    """
    Write a message as JSON.
    """
    return msgspec.json.encode(message)


def decode_request(data: bytes) -> Request:
    """
    Read a request.  Raises HostError.
    """
    try:
        return msgspec.json.decode(data, type=Request)
    except msgspec.DecodeError as error:
        raise HostError(f"the request to the host's child is not understood: {error}") from error


def decode_result(data: bytes) -> Result:
    """
    Read a result.  Raises HostError.
    """
    try:
        return msgspec.json.decode(data, type=Result)
    except msgspec.DecodeError as error:
        raise HostError(f"the answer of the host's child is not understood: {error}") from error
