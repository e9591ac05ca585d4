"""
Tests for ``yurt.hub.filters.sources``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from yurt.hub.filters.choice import Settings
from yurt.hub.filters.sources import Pool, read_bucket, read_config_map, read_pool, read_pool_label, read_topology


class ReadTests(SynchronousTestCase):
    """
    Tests of what is kept of objects.
    """

    def check(self, read: Callable[[bytes], Any], cases: list[tuple[Any, Any]]) -> None:
        """
        Each document is read as expected.
        """
        for document, expected in cases:
            self.assertEqual(read(json.dumps(document).encode()), expected, document)

    def test_services(self) -> None:
        """
        The topology, if a Service asks for one.
        """
        key = "openyurt.io/topologyKeys"
        self.check(
            read_topology,
            [
                ({"metadata": {"annotations": {key: "kubernetes.io/hostname", "other": "x"}}}, "kubernetes.io/hostname"),
                ({"metadata": {"annotations": {key: ""}}}, None),
                ({"metadata": {"annotations": None}}, None),
                ({"metadata": {}}, None),
            ],
        )

    def test_nodes(self) -> None:
        """
        The pool that a Node's label names.
        """
        label = {"apps.openyurt.io/nodepool": "p"}
        self.check(read_pool_label, [({"metadata": {"labels": label}}, "p"), ({"metadata": {"labels": None}}, ""), ({}, "")])

    def test_pools(self) -> None:
        """
        Nodes and network of a pool, also of one without status.
        """
        self.check(
            read_pool,
            [
                (
                    {"metadata": {"name": "p"}, "spec": {"hostNetwork": True}, "status": {"nodes": ["a", "b"]}},
                    Pool("p", frozenset({"a", "b"}), True),
                ),
                ({"metadata": {"name": "p"}, "status": {"nodes": None}}, Pool("p", frozenset())),
                ({"metadata": {"name": "p"}}, Pool("p", frozenset())),
            ],
        )

    def test_buckets(self) -> None:
        """
        The pool and the nodes of a bucket; one without a pool is of no interest.
        """
        labels = {"openyurt.io/pool-name": "p"}
        self.check(
            read_bucket,
            [
                ({"metadata": {"labels": labels}, "nodes": [{"name": "a"}, {"name": "b"}]}, Pool("p", frozenset({"a", "b"}))),
                ({"metadata": {"labels": labels}, "nodes": None}, Pool("p", frozenset())),
                ({"metadata": {}, "nodes": [{"name": "a"}]}, None),
            ],
        )

    def test_config_map(self) -> None:
        """
        The data of the ConfigMap, also when there is none.
        """
        self.check(
            read_config_map, [({"data": {"cache_agents": "a"}}, Settings(("a",))), ({"data": None}, Settings()), ({}, Settings())]
        )

    def test_unreadable(self) -> None:
        """
        What cannot be read is said to be so.
        """
        for read in (read_topology, read_pool_label, read_pool, read_bucket, read_config_map):
            self.assertRaises(ValueError, read, b'{"metadata": 7, "data": 7}')
