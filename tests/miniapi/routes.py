"""
Reading a request of the Kubernetes API: its path and query become a :class:`Call`.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from . import errors
from .resources import Catalogue, ResourceType

VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True)
class Call:
    """
    A request to a resource.
    """

    verb: str
    resource: ResourceType
    namespace: str
    name: str
    subresource: str
    query: dict[str, str]


def split_target(uri: bytes) -> tuple[str, dict[str, str]]:
    """
    Path and query; of a repeated parameter the first value counts.
    """
    parts = urlsplit(uri.decode("latin-1"))
    query: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        query.setdefault(name, value)
    return parts.path, query


def read_call(catalogue: Catalogue, method: str, path: str, query: dict[str, str]) -> Call | None:
    """
    The call that a path below /api or /apis names, None for a path that is no resource; raises a NotFound APIError for
    a resource that is not served.
    """
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    watching = rest[0] == "watch" and len(rest) > 1
    rest = rest[1:] if watching else rest
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    resource = catalogue.find(group, version, rest[0])
    if resource is None or len(rest) > 3:
        raise errors.no_such_path()
    name, subresource = (rest[1:] + ["", ""])[:2]
    verb = VERBS.get(method)
    if verb is None or (verb == "create" and bool(name) != bool(subresource)) or (verb in ("update", "patch") and not name):
        raise errors.method_not_allowed()
    return Call(_refine(verb, name, query, watching=watching), resource, namespace, name, subresource, query)


def _refine(verb: str, name: str, query: dict[str, str], *, watching: bool) -> str:
    if verb == "get" and (watching or query.get("watch", "").lower() in ("1", "t", "true")):
        return "watch"
    if verb == "get" and not name:
        return "list"
    if verb == "delete" and not name:
        return "deletecollection"
    return verb
