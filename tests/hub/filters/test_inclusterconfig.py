"""
Tests for ``yurt.hub.filters.inclusterconfig``.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.filters.fixtures import HERE, is_untouched, shown
from yurt.hub.filters.facts import Facts
from yurt.hub.filters.inclusterconfig import IN_CLUSTER_CONFIG

TEXT = """apiVersion: kubeproxy.config.k8s.io/v1alpha1
clientConnection:
  acceptContentTypes: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
"""


def config_map(data: Any, name: str = "kube-proxy", namespace: str = "kube-system") -> Any:
    """
    A ConfigMap.
    """
    return {"metadata": {"name": name, "namespace": namespace}, "data": data}


class InClusterConfigTests(SynchronousTestCase):
    """
    Tests of kube-proxy's configuration.
    """

    def test_commented_out(self) -> None:
        """
        The line with the kubeconfig becomes a comment, in its place; all else stays.
        """
        after = shown(IN_CLUSTER_CONFIG, config_map({"config.conf": TEXT, "kubeconfig.conf": "kubeconfig: x"}), HERE)
        self.assertEqual(after["data"]["config.conf"], TEXT.replace("  kubeconfig:", "  #kubeconfig:"))
        self.assertEqual(after["data"]["kubeconfig.conf"], "kubeconfig: x")

    def test_lines(self) -> None:
        """
        Only a line with that key and one colon counts.
        """
        cases = [
            ("kubeconfig: /a", "#kubeconfig: /a"),
            ("kubeconfig: ''", "#kubeconfig: ''"),
            ("kubeconfig: C:\\a", "kubeconfig: C:\\a"),
            ("#kubeconfig: /a", "#kubeconfig: /a"),
            ("otherkubeconfig: /a", "otherkubeconfig: /a"),
            ("kubeconfig", "kubeconfig"),
        ]
        for line, expected in cases:
            after = shown(IN_CLUSTER_CONFIG, config_map({"config.conf": line}), HERE)
            self.assertEqual(after["data"]["config.conf"], expected)

    def test_others(self) -> None:
        """
        Other ConfigMaps, and one without that file, stay as they are; so do all while pods cannot reach the hub.
        """
        data = {"config.conf": TEXT}
        for other in (
            config_map(data, "coredns"),
            config_map(data, namespace="default"),
            config_map({}),
            config_map(None),
            config_map({"config.conf": 7}),
        ):
            self.assertTrue(is_untouched(IN_CLUSTER_CONFIG, other, HERE))
        self.assertTrue(is_untouched(IN_CLUSTER_CONFIG, config_map(data), Facts("n1")))
