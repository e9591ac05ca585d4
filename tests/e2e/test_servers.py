"""
Apiservers that die, return, or were never there.
"""

from __future__ import annotations

import signal

from .case import ClusterCase
from .cluster import CLOUD, NOBODY, SECOND_CLOUD_ADDRESS
from .process import in_namespace, run, wait_for


class ServerTests(ClusterCase):
    """
    What the hub makes of its servers' fate.
    """

    def test_killed_and_restarted(self) -> None:
        """
        While the apiserver is dead cached reads go on; after its return a watch through the hub shows what is new, and the
        node is Ready again.
        """
        self.make_pods(self.web_pod())
        wait_for("kubelet's list", lambda: self.node_pods().names == ["web"])
        follower = self.follow(self.cluster.hub_kubectl_command("get", "pods", "--watch", "-L", "mark"))
        follower.wait_for("web")
        self.cluster.plane.stop_apiserver(signal.SIGKILL)
        for _ in range(20):
            answer = self.node_pods(timeout=10)
            self.assertEqual((answer.status, answer.names), (200, ["web"]))
            self.assertTrue(answer.seconds < 2, answer.seconds)
        wait_for("the hub to miss the cloud", lambda: not self.cloud_is_reachable())
        self.cluster.plane.start_apiserver()
        wait_for("the hub to notice the return", self.cloud_is_reachable)
        self.cluster.kubectl("label", "pod", "web", "mark=again")
        follower.wait_for("again")
        self.assertFalse(follower.ended)
        wait_for("a Ready node", self.cluster.node_is_ready)

    def assert_works_with(self, dead: str) -> None:
        """
        With a dead server beside the living one, every read is answered in time, from the cloud.
        """
        self.restart_hub(servers=f"{dead},{self.cluster.plane.url}")
        wait_for("the hub to see the cloud", self.cloud_is_reachable)
        for _ in range(10):
            answer = self.cluster.ask_hub("/api/v1/namespaces", agent="test", timeout=10)
            self.assertEqual((answer.status, answer.headers.get("x-yurt-source")), (200, "cloud"), answer.body[:300])
            self.assertTrue(answer.seconds < 2, answer.seconds)
        servers = {server["url"]: server["healthy"] for server in self.hub_status()["cloud"]["servers"]}
        wait_for("the dead server to be known", lambda: not self.hub_status()["cloud"]["servers"][0]["healthy"])
        self.assertEqual(set(servers), {dead, self.cluster.plane.url})
        wait_for("a Ready node", self.cluster.node_is_ready)

    def test_one_of_two_is_silent(self) -> None:
        """
        A server address that swallows packets slows nobody down.
        """
        self.assert_works_with(f"https://{self.cluster.network.address(NOBODY)}:6443")

    def test_one_of_two_refuses(self) -> None:
        """
        Neither does one that refuses connections.
        """
        self.assert_works_with(f"https://{self.cluster.network.address(1)}:6444")

    def test_one_of_two_falls_silent(self) -> None:
        """
        When the server in use begins to swallow packets the other one takes over: reads go on from the cloud, and a watch goes on
        in the same response.
        """
        self.make_pods(self.web_pod())
        first, second = (f"https://{self.cluster.network.address(number)}:6443" for number in (CLOUD, SECOND_CLOUD_ADDRESS))
        self.restart_hub("--lb-mode", "priority", servers=f"{first},{second}")
        wait_for("the hub to see both", lambda: all(server["healthy"] for server in self.hub_status()["cloud"]["servers"]))
        follower = self.follow(self.cluster.hub_kubectl_command("get", "pods", "--watch", "-L", "mark"))
        follower.wait_for("web")
        drop = ["INPUT", "-i", "uplink", "-d", self.cluster.network.address(CLOUD), "-p", "tcp", "--dport", "6443", "-j", "DROP"]
        run(in_namespace(self.cluster.cloud_namespace, ["iptables", "-A", *drop]))
        self.addCleanup(run, in_namespace(self.cluster.cloud_namespace, ["iptables", "-D", *drop]))
        for _ in range(10):
            cached = self.node_pods(timeout=10)
            self.assertEqual((cached.status, cached.names), (200, ["web"]))
            self.assertTrue(cached.seconds < 2, cached.seconds)
        wait_for("an answer of the other server", lambda: self.cluster.ask_hub("/api/v1/namespaces", agent="test").status == 200)
        answers = [self.cluster.ask_hub("/api/v1/namespaces", agent="test", timeout=10) for _ in range(10)]
        self.assertEqual({(answer.status, answer.headers.get("x-yurt-source")) for answer in answers}, {(200, "cloud")})
        self.assertTrue(self.cloud_is_reachable())
        self.cluster.kubectl("label", "pod", "web", "mark=elsewhere")
        follower.wait_for("elsewhere")
        self.assertFalse(follower.ended)
        wait_for("a Ready node", self.cluster.node_is_ready)
