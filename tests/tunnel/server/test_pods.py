"""
Tests of the nodes of pods.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from tests.tunnel.server.memory_cluster import ClusterCase
from yurt.kube.api import NO_ANSWER, ApiError
from yurt.tunnel.server.pods import MAX_REMEMBERED, REMEMBERED_FOR, Pods


class PodTests(ClusterCase):
    """
    Tests of the question on which node a pod is.
    """

    def setUp(self) -> None:
        super().setUp()
        self.pods = Pods(self.clock, self.client)

    def put(self, name: str, node: str) -> None:
        spec = {"nodeName": node} if node else {}
        self.api.put("pods", {"metadata": {"name": name, "namespace": "default"}, "spec": spec})

    def ask(self, name: str) -> Deferred[str]:
        asking = self.pods.node_of_pod("default", name)
        self.clock.pump([0.01] * 3)
        return asking

    def test_node(self) -> None:
        """
        The answer is the name of the node that the pod is bound to.
        """
        self.put("web", "edge-1")
        self.assertEqual(self.successResultOf(self.ask("web")), "edge-1")

    def test_remembered(self) -> None:
        """
        The answer is remembered for a moment, and no longer.
        """
        self.put("web", "edge-1")
        for _ in range(3):
            self.successResultOf(self.ask("web"))
        self.assertEqual(self.server.counts["get", "pods"], 1)
        self.put("web", "edge-2")
        self.clock.advance(REMEMBERED_FOR)
        self.assertEqual(self.successResultOf(self.ask("web")), "edge-2")

    def test_bounded(self) -> None:
        """
        However many pods are asked about, MAX_REMEMBERED are remembered, the newest.
        """
        self.server.answer_always(200, b'{"spec":{"nodeName":"n"}}')
        for number in range(MAX_REMEMBERED + 10):
            self.successResultOf(self.ask(f"pod-{number}"))
        self.successResultOf(self.ask(f"pod-{MAX_REMEMBERED + 9}"))
        self.assertEqual(len(self.server.sent), MAX_REMEMBERED + 10)
        self.successResultOf(self.ask("pod-0"))
        self.assertEqual(len(self.server.sent), MAX_REMEMBERED + 11)
        self.assertEqual(len(self.pods._remembered), MAX_REMEMBERED)

    def test_missing(self) -> None:
        """
        A pod that is not there is told as the apiserver tells it, and asked for again the next time.
        """
        self.assertEqual(self.failureResultOf(self.ask("web"), ApiError).value.code, 404)
        self.put("web", "edge-1")
        self.assertEqual(self.successResultOf(self.ask("web")), "edge-1")

    def test_unbound(self) -> None:
        """
        A pod without a node is a Conflict, until it has one.
        """
        self.put("web", "")
        error = self.failureResultOf(self.ask("web"), ApiError).value
        self.assertEqual((error.code, str(error)), (409, "pod default/web is not on a node yet"))
        self.put("web", "edge-1")
        self.assertEqual(self.successResultOf(self.ask("web")), "edge-1")

    def test_odd_names(self) -> None:
        """
        Names that are none stay one part of the path.
        """
        asking = self.pods.node_of_pod("a/../b", "x?y")
        self.assertEqual(self.server.sent[-1].head.target, b"/api/v1/namespaces/a%2F..%2Fb/pods/x%3Fy")
        asking.cancel()
        self.failureResultOf(asking)

    def test_no_answer(self) -> None:
        """
        Without an apiserver there is an error at once, and no memory of it.
        """
        self.server.refusing = True
        self.assertEqual(self.failureResultOf(self.ask("web"), ApiError).value.reason, NO_ANSWER)

    def test_no_pod(self) -> None:
        """
        An answer that is no Pod is an error, too.
        """
        self.server.answer_always(200, b"[]")
        self.assertEqual(self.failureResultOf(self.ask("web"), ApiError).value.code, 0)
