"""
The resource types that the miniature apiserver knows, and the discovery documents that follow from them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
ANY_KIND_FIELDS = frozenset({"metadata.name", "metadata.namespace"})


@dataclass(frozen=True)
class ResourceType:
    """
    One resource of one API group and version, with what the real server does specially for it.

    ``fields`` are the field labels that a selector may name besides name and namespace; ``None`` lets any path count.
    ``status`` and ``approval`` say which subresources it has.  ``graceful`` objects that are bound to a node stay, marked for
    deletion, until deleted with a grace of zero.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    status: bool = False
    approval: bool = False
    fields: frozenset[str] = frozenset()
    graceful: bool = False
    returns_deleted: bool = False
    creates_on_update: bool = False
    unconditional_update: bool = True
    strategic: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_resource(self) -> str:
        """
        The name in error messages: ``pods``, ``leases.coordination.k8s.io``.
        """
        return f"{self.plural}.{self.group}" if self.group else self.plural


POD_FIELDS = frozenset(
    "spec.nodeName spec.restartPolicy spec.schedulerName spec.serviceAccountName "
    "status.phase status.podIP status.nominatedNodeName".split()
)
EVENT_FIELDS = frozenset(
    "involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid involvedObject.apiVersion "
    "involvedObject.resourceVersion involvedObject.fieldPath reason source type".split()
)

BUILT_IN = (
    ResourceType(
        "",
        "v1",
        "namespaces",
        "Namespace",
        namespaced=False,
        short_names=("ns",),
        status=True,
        fields=frozenset({"status.phase", "name"}),
        returns_deleted=True,
    ),
    ResourceType(
        "", "v1", "nodes", "Node", namespaced=False, short_names=("no",), status=True, fields=frozenset({"spec.unschedulable"})
    ),
    ResourceType(
        "", "v1", "pods", "Pod", short_names=("po",), status=True, fields=POD_FIELDS, graceful=True, returns_deleted=True
    ),
    ResourceType("", "v1", "configmaps", "ConfigMap", short_names=("cm",)),
    ResourceType("", "v1", "secrets", "Secret", fields=frozenset({"type"})),
    ResourceType("", "v1", "services", "Service", short_names=("svc",), status=True),
    ResourceType("", "v1", "endpoints", "Endpoints", short_names=("ep",), creates_on_update=True),
    ResourceType("", "v1", "serviceaccounts", "ServiceAccount", short_names=("sa",), returns_deleted=True),
    ResourceType("", "v1", "events", "Event", short_names=("ev",), fields=EVENT_FIELDS, creates_on_update=True),
    ResourceType("coordination.k8s.io", "v1", "leases", "Lease", creates_on_update=True, unconditional_update=False),
    *(
        ResourceType(
            "certificates.k8s.io",
            version,
            "certificatesigningrequests",
            "CertificateSigningRequest",
            namespaced=False,
            short_names=("csr",),
            status=True,
            approval=True,
            fields=frozenset({"spec.signerName"}),
        )
        for version in ("v1beta1", "v1")
    ),
    ResourceType("discovery.k8s.io", "v1beta1", "endpointslices", "EndpointSlice"),
    ResourceType("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"),
)


def custom(group: str, version: str, plural: str, kind: str, *, namespaced: bool = True, status: bool = False) -> ResourceType:
    """
    A resource as a CustomResourceDefinition makes it: no strategic merge, selectors on name and namespace only.
    """
    return ResourceType(group, version, plural, kind, namespaced, status=status, strategic=False, returns_deleted=False)


class Catalogue:
    """
    The types served, by group, version and plural name.
    """

    def __init__(self, types: Iterable[ResourceType]) -> None:
        self._types: dict[tuple[str, str, str], ResourceType] = {}
        for one in types:
            self.add(one)

    def add(self, resource: ResourceType) -> None:
        self._types[resource.group, resource.version, resource.plural] = resource

    def find(self, group: str, version: str, plural: str) -> ResourceType | None:
        return self._types.get((group, version, plural))

    def named(self, plural: str) -> ResourceType:
        """
        The first type of that plural name, whatever its group; raises KeyError.
        """
        for resource in self._types.values():
            if resource.plural == plural:
                return resource
        raise KeyError(plural)

    def _versions(self, group: str) -> list[str]:
        return list(dict.fromkeys(r.version for r in self._types.values() if r.group == group))

    def groups(self) -> list[str]:
        return list(dict.fromkeys(r.group for r in self._types.values() if r.group))

    def core_versions(self, address: str) -> Document:
        return {
            "kind": "APIVersions",
            "versions": self._versions(""),
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
        }

    def group(self, name: str) -> Document | None:
        """
        The APIGroup document of ``name``, or None.
        """
        versions = [{"groupVersion": f"{name}/{v}", "version": v} for v in self._versions(name)]
        if not name or not versions:
            return None
        return {"kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": versions, "preferredVersion": versions[-1]}

    def group_list(self) -> Document:
        groups = [{k: v for k, v in (self.group(g) or {}).items() if k not in ("kind", "apiVersion")} for g in self.groups()]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}

    def resource_list(self, group: str, version: str) -> Document | None:
        """
        The APIResourceList of one group and version, or None.
        """
        resources: list[Document] = []
        for resource in self._types.values():
            if (resource.group, resource.version) == (group, version):
                resources.extend(_discovery_entries(resource))
        if not resources:
            return None
        group_version = f"{group}/{version}" if group else version
        answer: Document = {"kind": "APIResourceList", "groupVersion": group_version, "resources": resources}
        return {"apiVersion": "v1", **answer} if group else answer


def _discovery_entries(resource: ResourceType) -> list[Document]:
    entry: Document = {
        "name": resource.plural,
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(ALL_VERBS),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    entries = [entry]
    for name, served in (("approval", resource.approval), ("status", resource.status)):
        if served:
            entries.append(
                {
                    "name": f"{resource.plural}/{name}",
                    "singularName": "",
                    "namespaced": resource.namespaced,
                    "kind": resource.kind,
                    "verbs": ["get", "patch", "update"],
                }
            )
    if resource.plural == "serviceaccounts":
        entries.append(
            {
                "name": "serviceaccounts/token",
                "singularName": "",
                "namespaced": True,
                "group": "authentication.k8s.io",
                "version": "v1",
                "kind": "TokenRequest",
                "verbs": ["create"],
            }
        )
    return entries
