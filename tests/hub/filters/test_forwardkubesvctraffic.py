"""
Tests for ``yurt.hub.filters.forwardkubesvctraffic``.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.filters.fixtures import HERE, endpoint_slice, is_untouched, shown
from yurt.hub.filters.forwardkubesvctraffic import FORWARD_KUBE_SVC_TRAFFIC

PORTS = [{"name": "https", "port": 6443, "protocol": "TCP"}]


class ForwardTests(SynchronousTestCase):
    """
    Tests of where the ClusterIP of default/kubernetes leads.
    """

    def test_hub(self) -> None:
        """
        The hub is the only endpoint, at its HTTPS port.
        """
        after = shown(FORWARD_KUBE_SVC_TRAFFIC, endpoint_slice("kubernetes", None, None, ports=PORTS), HERE)
        self.assertEqual(after["endpoints"], [{"addresses": ["169.254.2.1"], "conditions": {"ready": True}}])
        self.assertEqual(after["ports"], [{"name": "https", "port": 10268, "protocol": "TCP"}])

    def test_family(self) -> None:
        """
        A slice of the other address family stays as it is.
        """
        six = endpoint_slice("kubernetes", None, ports=PORTS, addressType="IPv6")
        self.assertTrue(is_untouched(FORWARD_KUBE_SVC_TRAFFIC, six, HERE))
        after = shown(FORWARD_KUBE_SVC_TRAFFIC, six, replace(HERE, hub_host="fd00::2:1"))
        self.assertEqual(after["endpoints"][0]["addresses"], ["fd00::2:1"])
        four = endpoint_slice("kubernetes", None, ports=PORTS)
        self.assertTrue(is_untouched(FORWARD_KUBE_SVC_TRAFFIC, four, replace(HERE, hub_host="fd00::2:1")))

    def test_others(self) -> None:
        """
        Other slices stay as they are, and all do while pods cannot reach the hub.
        """
        for other in (endpoint_slice("web", "n1"), endpoint_slice("kubernetes", "n1", namespace="prod")):
            self.assertTrue(is_untouched(FORWARD_KUBE_SVC_TRAFFIC, other, HERE))
        nowhere = replace(HERE, hub_host="")
        self.assertTrue(is_untouched(FORWARD_KUBE_SVC_TRAFFIC, endpoint_slice("kubernetes", None), nowhere))
