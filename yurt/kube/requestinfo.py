"""
What a request to a Kubernetes API server asks for, read from its method and target.

The rules are those of ``k8s.io/apiserver/pkg/endpoints/request.RequestInfoFactory``, so that the hub and the
server behind it never disagree about a request.  Two differences, both on purpose: a Namespace object lies in no
namespace (as its own metadata says), and a name that stands in a field selector only is told apart from one in the
path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from urllib.parse import unquote, unquote_plus

from yurt.kube.selectors import SelectorError, canonical_field_selector, canonical_selector, parse_field_selector

REMEMBERED_REQUESTS = 1024
"""How many parsed requests are kept; clients repeat themselves."""

MAX_REMEMBERED_TARGET = 512
"""Longer targets, in bytes, are parsed anew each time, so that what is kept stays small."""

_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_NAMESPACE_SUBRESOURCES = frozenset(("status", "finalize"))
_BAD_ESCAPE = re.compile("%(?![0-9a-fA-F]{2})")


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """
    One request in the terms of the Kubernetes API.

    Texts are empty when the request does not have them.  ``verb`` is one of get, list, watch, create, update, patch,
    delete, deletecollection or proxy; for paths outside the resource API it is the method in lower case.  ``query`` holds the
    first value of each parameter, which is the one an API server looks at.  ``parts`` are the path segments from the
    resource on.  ``selected_name`` is the only name that a list or watch can yield (``fieldSelector=metadata.name=…``).
    ``gvr`` is group, version and resource as one text: ``apps/v1/deployments``, ``/v1/pods`` for the core group.
    """

    path: str
    query: Mapping[str, str] = field(hash=False)
    is_resource: bool
    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    label_selector: str = ""
    field_selector: str = ""
    selected_name: str = ""
    parts: tuple[str, ...] = ()
    gvr: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "gvr", f"{self.group}/{self.version}/{self.resource}")


def parse_request(method: bytes, target: bytes) -> RequestInfo:
    """
    Read a request line.

    Never fails: what is no resource request is described as a plain path.
    """
    if len(target) > MAX_REMEMBERED_TARGET:
        return _parse(method, target)
    return _parse_remembered(method, target)


def is_true(value: str | None) -> bool:
    """
    A boolean query parameter as Kubernetes reads it: absent, ``0`` and ``false`` are false, all else is true, even nothing.
    """
    return value is not None and value.lower() not in ("0", "false")


def _parse(method: bytes, target: bytes) -> RequestInfo:
    raw_path, _, raw_query = target.decode("utf-8", "replace").partition("?")
    if not raw_path.startswith("/") and "://" in raw_path:
        raw_path = "/" + raw_path.split("://", 1)[1].partition("/")[2]
    path = unquote(raw_path)
    query = MappingProxyType(_parse_query(raw_query))
    http_method = method.decode("ascii", "replace").upper()
    return _resource_request(http_method, path, query) or RequestInfo(path, query, False, http_method.lower())


_parse_remembered = lru_cache(maxsize=REMEMBERED_REQUESTS)(_parse)


def _parse_query(raw: str) -> dict[str, str]:
    """
    As Go's ``url.ParseQuery``: pairs that are malformed are left out, and the first value of a key counts.
    """
    query: dict[str, str] = {}
    for pair in raw.split("&"):
        if pair and ";" not in pair and not _BAD_ESCAPE.search(pair):
            key, _, value = pair.partition("=")
            query.setdefault(unquote_plus(key), unquote_plus(value))
    return query


def _resource_request(method: str, path: str, query: Mapping[str, str]) -> RequestInfo | None:
    parts = path.strip("/").split("/")
    if len(parts) < 3 or parts[0] not in ("api", "apis"):
        return None
    group = ""
    if parts[0] == "apis":
        if len(parts) < 4:
            return None
        group = parts.pop(1)
    version, parts = parts[1], parts[2:]
    verb = _VERBS.get(method, method.lower())
    if parts[0] in ("watch", "proxy") and len(parts) > 1:
        if parts[0] == "proxy" or verb == "get":
            verb = parts[0]
        parts = parts[1:]
    namespace, parts = _split_namespace(parts)
    resource, name, subresource = (*parts[:3], "", "")[:3]
    if verb == "proxy":
        subresource = ""
    selected_name = name if verb == "watch" else ""
    if not name and verb == "get":
        verb = "watch" if is_true(query.get("watch")) else "list"
    if not name and verb in ("list", "watch"):
        selected_name = _selected_name(query.get("fieldSelector", ""))
    if not name and verb == "delete":
        verb = "deletecollection"
    # As kube-apiserver's ListResource: the name of a watched object takes the place of the field selector.
    field_selector = f"metadata.name={name}" if name and verb == "watch" else query.get("fieldSelector", "")
    return RequestInfo(
        path, query, True, verb, group, version, resource, subresource, namespace, name,
        canonical_selector(query.get("labelSelector", "")), canonical_field_selector(field_selector),
        selected_name, tuple(parts),
    )  # fmt: skip


def _split_namespace(parts: list[str]) -> tuple[str, list[str]]:
    """
    The namespace of what is asked for, and the path segments from its resource on.
    """
    if parts[0] == "namespaces" and len(parts) > 2 and parts[2] not in _NAMESPACE_SUBRESOURCES:
        return parts[1], parts[2:]
    return "", parts


def _selected_name(field_selector: str) -> str:
    try:
        requirements = parse_field_selector(field_selector)
    except SelectorError:
        return ""
    for requirement in requirements:
        if requirement.key == "metadata.name" and requirement.operator == "=":
            name = requirement.values[0]
            return "" if name in (".", "..") or "/" in name or "%" in name else name
    return ""
