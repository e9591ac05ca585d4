"""
What filters depend on, followed in the cluster: Services, pools, the node, and the ConfigMap that sets them up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from yurt.hub.filters.choice import Settings, read_settings
from yurt.hub.filters.servicetopology import TOPOLOGY_KEYS
from yurt.kube.api import ApiClient, target
from yurt.kube.informer import Informer
from yurt.kube.mirror import key_of
from yurt.kube.objects import ObjectError, read_object, split_list

SERVICES_PATH = "/api/v1/services"
NODES_PATH = "/api/v1/nodes"
POOLS_PATHS = tuple(f"/apis/apps.openyurt.io/{version}/nodepools" for version in ("v1beta2", "v1beta1", "v1alpha1"))
"""In all versions that clusters have had, of which what is read here is alike."""
BUCKETS_PATH = "/apis/apps.openyurt.io/v1alpha1/nodebuckets"

SETTINGS_NAME = "yurt-hub-cfg"

POOL_OF_NODE = "apps.openyurt.io/nodepool"
"""Label of a Node, with the name of its pool."""

POOL_OF_BUCKET = "openyurt.io/pool-name"
"""Label of a NodeBucket, with the name of the pool whose nodes it holds some of."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pool:
    """
    Nodes of a pool: all of them (NodePool), or some (NodeBucket).
    """

    name: str
    nodes: frozenset[str]
    host_network: bool = False


class _Meta(msgspec.Struct):
    name: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _Object(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)


class _Spec(msgspec.Struct):
    hostNetwork: bool = False


class _Status(msgspec.Struct):
    nodes: list[str] | None = None


class _NodePool(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    spec: _Spec | None = None
    status: _Status | None = None


class _Node(msgspec.Struct):
    name: str = ""


class _NodeBucket(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    nodes: list[_Node] | None = None


class _ConfigMap(msgspec.Struct):
    data: dict[str, str] | None = None


_read = msgspec.json.Decoder(_Object).decode
_read_pool = msgspec.json.Decoder(_NodePool).decode
_read_bucket = msgspec.json.Decoder(_NodeBucket).decode
_read_config_map = msgspec.json.Decoder(_ConfigMap).decode


def read_topology(body: bytes) -> str | None:
    """
    The topology that a Service asks for; None for one that asks for none.
    """
    return (_read(body).metadata.annotations or {}).get(TOPOLOGY_KEYS) or None


def read_pool_label(body: bytes) -> str:
    """
    The pool that a Node names; empty when it names none.
    """
    return (_read(body).metadata.labels or {}).get(POOL_OF_NODE, "")


def read_pool(body: bytes) -> Pool:
    """
    A NodePool.
    """
    pool = _read_pool(body)
    nodes = pool.status.nodes if pool.status is not None else None
    return Pool(pool.metadata.name, frozenset(nodes or ()), pool.spec is not None and pool.spec.hostNetwork)


def read_bucket(body: bytes) -> Pool | None:
    """
    A NodeBucket; None for one that belongs to no pool.
    """
    bucket = _read_bucket(body)
    name = (bucket.metadata.labels or {}).get(POOL_OF_BUCKET, "")
    return Pool(name, frozenset(node.name for node in bucket.nodes or ())) if name else None


def read_config_map(body: bytes) -> Settings:
    """
    The ConfigMap ``yurt-hub-cfg``.
    """
    return read_settings(_read_config_map(body).data or {})


class Source(Generic[T]):
    """
    One collection, by its paths in all versions that are understood, the best first.  What the cache holds of it counts until it
    has been listed, so that a start without the cloud, or on a thin link, finds things as they were.

    ``cached`` gives the list that the cache holds for a request target.
    """

    def __init__(
        self,
        reactor: Any,
        client: ApiClient,
        cached: Callable[[bytes], bytes | None],
        paths: Sequence[str],
        decode: Callable[[bytes], T | None],
        *,
        what: str,
        changed: Callable[[], object],
        label_selector: str = "",
        field_selector: str = "",
    ) -> None:
        self.what = what
        selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
        self._targets = [target(path, selectors) for path in paths]
        self._decode = decode
        self._cached = cached
        self._seed: dict[str, T] | None = None
        self.informer = Informer(
            reactor,
            client,
            paths[0],
            decode,
            what=what,
            label_selector=label_selector,
            field_selector=field_selector,
            others=paths[1:],
        )
        self.informer.subscribe(lambda key, old, new: changed())
        self.informer.on_synced(changed)

    @property
    def items(self) -> Mapping[str, T] | None:
        """
        What is known; None while nothing is.
        """
        return self.informer.items if self.informer.synced else self._seed

    @property
    def settled(self) -> bool:
        """
        Whether there is no use in waiting for it.
        """
        return self.items is not None or self.informer.mirror.failures > 0

    @property
    def problem(self) -> str | None:
        """
        Why nothing is known.
        """
        return None if self.items is not None else self.informer.problem

    def seed(self) -> None:
        """
        Take what the cache holds.
        """
        self._seed = self._read_seed()

    def follow(self) -> None:
        """
        Begin to follow.
        """
        self.informer.startService()

    def stop(self) -> None:
        """
        Follow no more.
        """
        if self.informer.running:
            self.informer.stopService()

    def _read_seed(self) -> dict[str, T] | None:
        body = next((body for one in self._targets if (body := self._cached(one)) is not None), None)
        if body is None:
            return None
        seed: dict[str, T] = {}
        try:
            for _, item in split_list(body).items:
                value = self._decode(item)
                if value is not None:
                    seed[key_of(read_object(item).meta)] = value
        except (ObjectError, ValueError):
            return None
        return seed
