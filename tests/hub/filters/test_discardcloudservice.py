"""
Tests for ``yurt.hub.filters.discardcloudservice``.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.filters.fixtures import HERE, service, shown
from yurt.hub.filters.discardcloudservice import DISCARD, DISCARD_CLOUD_SERVICE, SKIP_DISCARD


class DiscardCloudServiceTests(SynchronousTestCase):
    """
    Tests of which Services are hidden.
    """

    def test_table(self) -> None:
        """
        A LoadBalancer with the annotation of OpenYurt 1.5 is hidden, unless that of 1.4 keeps it; nothing else is.
        """
        cases = [
            ("LoadBalancer", {DISCARD: "true"}, True),
            ("LoadBalancer", {DISCARD: "false"}, False),
            ("LoadBalancer", {DISCARD: ""}, False),
            ("LoadBalancer", {DISCARD: "true", SKIP_DISCARD: "true"}, False),
            ("LoadBalancer", {DISCARD: "true", SKIP_DISCARD: "false"}, True),
            ("LoadBalancer", {SKIP_DISCARD: "true"}, False),
            ("LoadBalancer", {}, False),
            ("LoadBalancer", None, False),
            ("ClusterIP", {DISCARD: "true"}, False),
            ("NodePort", {DISCARD: "true"}, False),
        ]
        for kind, given, is_hidden in cases:
            document = service(annotations=given, type=kind)
            self.assertEqual(shown(DISCARD_CLOUD_SERVICE, document, HERE) is None, is_hidden, (kind, given))

    def test_tunnel_server(self) -> None:
        """
        The tunnel server's internal Service is hidden, in its namespace only.
        """
        name = "x-tunnel-server-internal-svc"
        self.assertIsNone(shown(DISCARD_CLOUD_SERVICE, service(name, "kube-system", type="ClusterIP"), HERE))
        self.assertIsNotNone(shown(DISCARD_CLOUD_SERVICE, service(name, "default", type="ClusterIP"), HERE))

    def test_without_spec(self) -> None:
        """
        A Service that says nothing of itself is shown.
        """
        bare = {"metadata": {"name": "web", "namespace": "default", "annotations": {DISCARD: "true"}}}
        self.assertEqual(shown(DISCARD_CLOUD_SERVICE, bare, HERE), bare)
