"""
A real kubelet, and kubectl with the hub as its server.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from .case import ClusterCase
from .cluster import ADMIN
from .curl import curl
from .process import run, wait_for


class KubeletTests(ClusterCase):
    """
    kubelet through the hub.
    """

    def test_pods_run(self) -> None:
        """
        The node is Ready, its pods run, its Lease is renewed, and the hub holds kubelet's view of them.
        """
        self.make_pods(self.web_pod(), self.host_pod())
        self.assertEqual(sorted(self.node_pods().names), ["host", "web"])
        lease = ("get", "lease", "-n", "kube-node-lease", self.cluster.node.name, "-o", "jsonpath={.spec.renewTime}")
        # A test before may have deleted the Node, and its Lease with it.
        first = wait_for("a Lease", lambda: self.cluster.kubectl(*lease, "--ignore-not-found"))
        wait_for("a renewed Lease", lambda: self.cluster.kubectl(*lease) > first)
        pods = [view for view in self.hub_status()["views"] if view["component"] == "kubelet" and view["resource"] == "/v1/pods"]
        self.assertTrue(any(view["complete"] for view in pods), pods)
        self.assertEqual(self.cluster.ask_hub("/v1/readyz", base=ADMIN).status, 200)
        self.assertEqual(sorted(self.cluster.ask_hub("/pods", base=ADMIN).names), ["host", "web"])


class KubectlTests(ClusterCase):
    """
    kubectl through the hub.
    """

    def setUp(self) -> None:
        super().setUp()
        self.make_pods(self.web_pod())

    def test_get_and_describe(self) -> None:
        """
        get prints tables, wide, JSON and names; describe prints the pod and its events.
        """
        kubectl = self.cluster.hub_kubectl
        self.assertRegex(kubectl("get", "pods"), r"web +1/1 +Running")
        self.assertRegex(kubectl("get", "pods", "-A", "-o", "wide"), rf"default +web .*{self.cluster.node.name}")
        self.assertEqual(json.loads(kubectl("get", "pod", "web", "-o", "json"))["metadata"]["name"], "web")
        self.assertIn("pod/web", kubectl("get", "pods", "-l", "app=web", "-o", "name"))
        described = kubectl("describe", "pod", "web")
        self.assertRegex(described, r"(?s)Name: +web\n.*Events:.*Started container main")
        self.assertIn("KubeletReady", kubectl("describe", "node", self.cluster.node.name))

    def test_apply_and_delete(self) -> None:
        """
        apply makes and changes, delete removes.
        """

        def document(value: str) -> bytes:
            return json.dumps(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"key": value}}
            ).encode()

        kubectl = self.cluster.hub_kubectl
        self.assertIn("created", kubectl("apply", "-f", "-", stdin=document("one")))
        self.assertIn("configured", kubectl("apply", "-f", "-", stdin=document("two")))
        self.assertEqual(self.cluster.kubectl("get", "configmap", "applied", "-o", "jsonpath={.data.key}"), "two")
        self.assertIn("deleted", kubectl("delete", "configmap", "applied"))
        self.assertNotIn("applied", self.cluster.kubectl("get", "configmaps", "-o", "name"))

    def test_watch(self) -> None:
        """
        get --watch shows a change when it happens.
        """
        follower = self.follow(self.cluster.hub_kubectl_command("get", "pods", "--watch", "-L", "mark"))
        follower.wait_for("Running")
        self.cluster.kubectl("label", "pod", "web", "mark=seen")
        follower.wait_for("seen")

    def test_logs(self) -> None:
        """
        logs prints what a container said, and goes on with -f.
        """
        self.make_pods(self.host_pod())
        wait_for("a line of log", lambda: re.search(r"UTC \d{4}", self.cluster.hub_kubectl("logs", "host")))
        follower = self.follow(self.cluster.hub_kubectl_command("logs", "-f", "host"))
        wait_for("lines to follow", lambda: len(follower.text.splitlines()) >= 3)

    def test_exec_by_websocket(self) -> None:
        """
        A WebSocket is handed over like SPDY: a command's output comes in frames of the API server's protocol.
        """
        script = (
            "import socket; wire = socket.create_connection(('127.0.0.1', 10261), 20); wire.settimeout(20); "
            "wire.sendall(b'GET /api/v1/namespaces/default/pods/web/exec?command=hostname&stdout=true HTTP/1.1\\r\\n"
            "Host: hub\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\nSec-WebSocket-Version: 13\\r\\n"
            "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\\r\\nSec-WebSocket-Protocol: v4.channel.k8s.io\\r\\n\\r\\n'); "
            "print(b''.join(iter(lambda: wire.recv(4096), b'')))"
        )
        said = self.cluster.node.run(sys.executable, "-c", script)
        self.assertIn("HTTP/1.1 101 Switching Protocols", said)
        self.assertIn("\\x82\\x05\\x01web\\n", said)  # a binary frame of 5 bytes: channel 1, standard output

    def test_exec(self) -> None:
        """
        exec carries standard input, output, error and the exit status, also of much data and a long command.
        """
        self.assertEqual(self.cluster.hub_kubectl("exec", "web", "--", "hostname"), "web\n")
        long = "x" * 120_000  # in the head of a request
        self.assertEqual(self.cluster.hub_kubectl("exec", "web", "--", "sh", "-c", f"echo {long}"), f"{long}\n")
        data = b"0123456789abcdef" * 65536
        self.assertEqual(self.cluster.hub_kubectl("exec", "-i", "web", "--", "md5sum", stdin=data), run(["md5sum"], stdin=data))
        failing = run(
            [
                "sh",
                "-c",
                '"$@" 2>&1; echo "status $?"',
                "sh",
                *self.cluster.hub_kubectl_command("exec", "web", "--", "sh", "-c", "echo oops >&2; exit 7"),
            ]
        )
        self.assertIn("oops", failing)
        self.assertIn("status 7", failing)

    def test_copy(self) -> None:
        """
        cp brings a file into a pod and back unharmed.
        """
        there, back = Path(self.cluster.folder, "there"), Path(self.cluster.folder, "back")
        there.write_bytes(bytes(range(256)) * 4096)
        self.cluster.hub_kubectl("cp", str(there), "web:/tmp/copied")
        self.cluster.hub_kubectl("cp", "web:/tmp/copied", str(back))
        self.assertEqual(back.read_bytes(), there.read_bytes())

    def test_attach(self) -> None:
        """
        attach shows what the container prints from now on.
        """
        self.make_pods(self.host_pod())
        follower = self.follow(self.cluster.hub_kubectl_command("attach", "host"))
        wait_for("output of the pod", lambda: re.search(r"UTC \d{4}", follower.text))

    def test_port_forward(self) -> None:
        """
        port-forward carries a request to the pod and its answer back.
        """
        page = ("exec", "web", "--", "wget", "-q", "-O-", "http://127.0.0.1:8080/")
        wait_for("the pod's server", lambda: self.cluster.hub_kubectl(*page) == "web\n")
        follower = self.follow(self.cluster.hub_kubectl_command("port-forward", "pod/web", "18080:8080"))
        follower.wait_for("Forwarding from 127.0.0.1:18080")
        answer = curl(self.cluster.node.namespace, "http://127.0.0.1:18080/", agent="test")
        self.assertEqual((answer.status, answer.body), (200, "web\n"), follower.text)

    def test_delete_pod(self) -> None:
        """
        A pod that is deleted through the hub is stopped by kubelet and gone.
        """
        self.make_pods(self.host_pod("doomed"))
        self.cluster.hub_kubectl("delete", "pod", "doomed")
        self.assertNotIn("doomed", self.cluster.kubectl("get", "pods", "-o", "name"))
        self.assertNotIn("doomed", self.node_pods().names)
