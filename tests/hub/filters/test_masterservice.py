"""
Tests for ``yurt.hub.filters.masterservice``.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.filters.fixtures import HERE, is_untouched, service, shown
from yurt.hub.filters.facts import Facts
from yurt.hub.filters.masterservice import MASTER_SERVICE

PORTS = [{"name": "https", "port": 443, "targetPort": 6443}, {"name": "other", "port": 80}]


class MasterServiceTests(SynchronousTestCase):
    """
    Tests of the Service that pods take the API server's address from.
    """

    def test_address_and_port(self) -> None:
        """
        default/kubernetes gets the hub's address, also among clusterIPs, and its HTTPS port; other ports and fields stay.
        """
        before = service("kubernetes", clusterIP="10.96.0.1", clusterIPs=["10.96.0.1"], ports=PORTS, type="ClusterIP")
        after = shown(MASTER_SERVICE, before, HERE)
        self.assertEqual(
            after["spec"],
            {
                "clusterIP": "169.254.2.1",
                "clusterIPs": ["169.254.2.1"],
                "ports": [{"name": "https", "port": 10268, "targetPort": 6443}, {"name": "other", "port": 80}],
                "type": "ClusterIP",
            },
        )
        self.assertEqual(after["metadata"], before["metadata"])

    def test_others(self) -> None:
        """
        Other Services stay as they are, also one of that name in another namespace.
        """
        for other in (service("kubernetes", "prod", clusterIP="10.96.0.9"), service("web", clusterIP="10.96.0.8")):
            self.assertTrue(is_untouched(MASTER_SERVICE, other, HERE))

    def test_no_address(self) -> None:
        """
        While pods cannot reach the hub by HTTPS nobody is sent there.
        """
        self.assertTrue(is_untouched(MASTER_SERVICE, service("kubernetes", clusterIP="10.96.0.1"), Facts("n1")))

    def test_without_ports(self) -> None:
        """
        A Service without ports or spec is no trouble.
        """
        bare = {"metadata": {"name": "kubernetes", "namespace": "default"}}
        self.assertEqual(shown(MASTER_SERVICE, bare, HERE)["spec"]["clusterIP"], "169.254.2.1")
