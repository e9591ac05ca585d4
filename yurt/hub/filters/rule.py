"""
What a filter is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from yurt.hub.filters.facts import Facts

Document = dict[str, Any]
"""An object as JSON gives it.  Filters never change one; they make another."""

READS = frozenset({"list", "watch"})
READS_AND_GETS = READS | {"get"}

SERVICES = "/v1/services"
PODS = "/v1/pods"
CONFIG_MAPS = "/v1/configmaps"
ENDPOINTS = "/v1/endpoints"
SLICES = frozenset({"discovery.k8s.io/v1/endpointslices", "discovery.k8s.io/v1beta1/endpointslices"})

SERVICE_OF_SLICE = "kubernetes.io/service-name"
"""The label of an EndpointSlice that names its Service."""


class ItemMeta(msgspec.Struct, frozen=True):
    """
    What is read of an object before anything is changed.
    """

    namespace: str = ""
    name: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None

    def label(self, name: str) -> str:
        """
        A label's value; empty when it has none.
        """
        return (self.labels or {}).get(name, "")

    def annotation(self, name: str) -> str | None:
        """
        An annotation's value; None without it.
        """
        return (self.annotations or {}).get(name)


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """
    One filter; there is one value of each, which is what tells them apart.

    ``components`` are those whose reads it changes unless the operator says otherwise, ``resources`` as in
    :attr:`~yurt.kube.requestinfo.RequestInfo.gvr`.  ``uses`` names the fields of Facts that it looks at; with facts that are not
    ``active`` it changes nothing.  ``sources`` names what must be known for it to be right (see yurt.hub.filters.sources).
    ``only`` is the one object (namespace, name) that it is about, if there is only one.

    ``concerns`` is a quick look at an object (metadata, bytes): False means that ``apply`` would change nothing.  ``apply``
    gives the very same document when it changes nothing, and None when the object is to be hidden; only one that ``hides``
    does that.
    """

    name: str
    components: tuple[str, ...]
    resources: frozenset[str]
    verbs: frozenset[str]
    apply: Callable[[Document, Facts], Document | None]
    concerns: Callable[[ItemMeta, bytes, Facts], bool]
    active: Callable[[Facts], bool]
    uses: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    hides: bool = False
    only: tuple[str, str] = ("", "")


def mapping(value: object) -> Document:
    """
    A JSON object, empty where there is none or something else.
    """
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Any]:
    """
    The JSON objects of an array, empty where there is none.
    """
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def annotations_of(document: Document) -> Document:
    """
    An object's annotations.
    """
    return mapping(mapping(document.get("metadata")).get("annotations"))


def with_fields(document: Document, part: str, **fields: object) -> Document:
    """
    A copy of a document in which some fields of one part are set.
    """
    return {**document, part: {**mapping(document.get(part)), **fields}}


def has_address(facts: Facts) -> bool:
    """
    Whether pods reach the hub by HTTPS.
    """
    return bool(facts.hub_host)
