"""
Tests for ``yurt.hub.filters.hostnetworkpropagation``.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.filters.fixtures import is_untouched, shown
from yurt.hub.filters.facts import Facts
from yurt.hub.filters.hostnetworkpropagation import HOST_NETWORK_PROPAGATION

POD: dict[str, Any] = {"metadata": {"name": "p", "namespace": "default"}, "spec": {"nodeName": "n1", "hostNetwork": False}}


class HostNetworkTests(SynchronousTestCase):
    """
    Tests of the network of a pool's pods.
    """

    def test_pool(self) -> None:
        """
        Pods use the host's network where the pool says so.
        """
        after = shown(HOST_NETWORK_PROPAGATION, POD, Facts("n1", pool="p", host_network=True))
        self.assertEqual(after["spec"], {"nodeName": "n1", "hostNetwork": True})
        self.assertIs(POD["spec"]["hostNetwork"], False)

    def test_already(self) -> None:
        """
        A pod that does so already keeps its bytes.
        """
        pod = {**POD, "spec": {"hostNetwork": True}}
        self.assertTrue(is_untouched(HOST_NETWORK_PROPAGATION, pod, Facts("n1", host_network=True)))

    def test_other_pools(self) -> None:
        """
        Without such a pool pods stay as they are.
        """
        self.assertTrue(is_untouched(HOST_NETWORK_PROPAGATION, POD, Facts("n1", pool="p")))
