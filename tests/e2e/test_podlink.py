"""
The address that pods reach.
"""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

from .case import ClusterCase
from .cluster import HUB, POD_ADDRESS
from .process import find_binary, run, wait_for

TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
READ_CONFIGMAPS = (
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "read-configmaps", "namespace": "default"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}],
    },
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "read-configmaps", "namespace": "default"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}],
        "roleRef": {"kind": "Role", "name": "read-configmaps", "apiGroup": "rbac.authorization.k8s.io"},
    },
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "for-pods", "namespace": "default"}, "data": {"a": "b"}},
)


class PodLinkTests(ClusterCase):
    """
    A pod with its own network.
    """

    def setUp(self) -> None:
        super().setUp()
        self.cluster.apply(*READ_CONFIGMAPS)
        self.make_pods(self.web_pod("client"))

    def wget(self, path: str, *, token: bool, agent: str = "client") -> str:
        """
        What the pod's wget prints: headers, body or complaint.
        """
        header = f'--header "Authorization: Bearer $(cat {TOKEN})"' if token else ""
        command = f'wget -q -S -O - -U {agent} {header} "{POD_ADDRESS}{path}" 2>&1; true'
        return self.cluster.kubectl("exec", "client", "--", "sh", "-c", command)

    def test_with_token(self) -> None:
        """
        With its service account's token a pod lists the ConfigMaps that it may, and is refused what it may not.
        """
        said = self.wget("/api/v1/namespaces/default/configmaps", token=True)
        document = json.loads(said[said.index("{") :])
        self.assertIn("for-pods", [item["metadata"]["name"] for item in document["items"]])
        self.assertIn("403", self.wget("/api/v1/namespaces/default/secrets", token=True))

    def test_without_token(self) -> None:
        """
        Without a token it gets 401: the node's certificate is not lent.  Nor does a made-up token help.
        """
        self.assertIn("401", self.wget("/api/v1/namespaces/default/configmaps", token=False))
        bad = f'wget -q -S -O - --header "Authorization: Bearer x.y.z" {POD_ADDRESS}/api/v1/nodes 2>&1; true'
        self.assertIn("401", self.cluster.kubectl("exec", "client", "--", "sh", "-c", bad))

    def test_through_a_firewall(self) -> None:
        """
        With --enable-iptables the address is reached through a firewall that drops what comes from pods; the rules go with the
        hub.
        """
        node = self.cluster.node
        drop = ["INPUT", "-i", "cni0", "-p", "tcp", "--dport", "10261", "-j", "DROP"]
        node.run("iptables", "-A", *drop)
        self.addCleanup(node.run, "iptables", "-D", *drop)
        self.restart_hub("--enable-iptables")
        wait_for("the hub's rules", lambda: "169.254.2.1" in node.run("iptables-save"))
        # The rules stand a moment before the hub listens: it hears of its link when the child that made both has ended.
        wait_for("the address", lambda: "for-pods" in self.wget("/api/v1/namespaces/default/configmaps", token=True))
        node.stop("yurthub")
        rules = node.run("iptables-save")
        self.assertNotIn("169.254.2.1", rules)
        self.assertIn("--dport 10261 -j DROP", rules)
        self.assertNotIn("yurthub-tap0", node.run("ip", "link"))

    def test_killed(self) -> None:
        """
        A hub that was killed leaves its link, and the next one takes it over.
        """
        node = self.cluster.node
        node.stop("yurthub", signal.SIGKILL)
        self.assertIn("yurthub-tap0", node.run("ip", "link"))
        self.cluster.start_hub()
        wait_for("the address", lambda: "for-pods" in self.wget("/api/v1/namespaces/default/configmaps", token=True))

    def test_without_the_cloud(self) -> None:
        """
        Offline a pod reads with its token what it read online, and no more; without a token still nothing.
        """
        path = "/api/v1/namespaces/default/configmaps"
        self.restart_hub("--cache-agents", "kubelet,kube-proxy,client")
        self.assertIn("for-pods", self.wget(path, token=True))
        script = (
            f"t=$(cat {TOKEN}); while sleep 1; do "
            f'wget -q -S -O /tmp/out -U client --header "Authorization: Bearer $t" "{POD_ADDRESS}{path}" 2>/tmp/head; '
            f'wget -q -S -O - -U client "{POD_ADDRESS}{path}" 2>/tmp/nobody; done'
        )
        self.cluster.kubectl("exec", "client", "--", "sh", "-c", f"({script}) >/dev/null 2>&1 &")
        self.cluster.cut()
        self.addCleanup(self.cluster.heal)
        wait_for("the hub to miss the cloud", lambda: not self.cloud_is_reachable())
        pid = self.pod_process()

        def inside(file: str) -> str:
            return self.cluster.node.run("cat", f"/proc/{pid}/root/tmp/{file}", check=False)

        wait_for("an answer from the cache", lambda: "X-Yurt-Source: cache" in inside("head"))
        self.assertIn("for-pods", inside("out"))
        self.assertIn("401", inside("nobody"))

    def test_tokens_without_the_cloud(self) -> None:
        """
        Offline a token that the hub never saw counts when the cluster's keys verify it, and reads what that account read; one of
        another account does not read it, and one that nobody signed is 401.
        """
        path = "/api/v1/namespaces/default/configmaps"
        self.cluster.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "other"}})
        self.restart_hub("--cache-agents", "kubelet,client")
        asked = ("default", "1h"), ("default", "2h"), ("other", "1h")
        seen, unseen, others = (self.cluster.kubectl("create", "token", name, "--duration", time) for name, time in asked)

        def read(token: str) -> tuple[int, str]:
            answer = self.cluster.ask_hub(path, agent="client", base=POD_ADDRESS, headers=[f"Authorization: Bearer {token}"])
            return answer.status, answer.headers.get("x-yurt-source", "")

        wait_for("the pod address", lambda: read(seen) == (200, "cloud"))
        keys = "/openid/v1/jwks"
        wait_for("the cluster's keys", lambda: self.cluster.ask_hub(keys, base=HUB).status == 200)
        self.cluster.cut()
        self.addCleanup(self.cluster.heal)
        wait_for("the hub to miss the cloud", lambda: not self.cloud_is_reachable())
        self.assertEqual([read(token) for token in (seen, unseen)], [(200, "cache")] * 2)
        self.assertEqual(read(others)[0], 503)
        forged = ".".join([*unseen.split(".")[:2], others.split(".")[2]])
        for token in (forged, "nonsense"):
            self.assertEqual(read(token)[0], 401)

    def test_kubectl_by_https(self) -> None:
        """
        Once yurt-controller-manager has approved the hub's serving certificate, kubelet gives new pods the hub's address, and
        kubectl in a pod works with nothing but what kubelet put there: with the cloud, without it, and after a restart of the hub
        without it.  Without a token it is 401.  A pod that has IPv6 is served there, too.
        """
        options = ("--cache-agents", "kubelet,kube-proxy,kubectl", "--dummy-if-ip", "169.254.2.1,fd00::2:1")
        self.cluster.start_approver()
        self.addCleanup(self.cluster.stop_approver)
        self.restart_hub(*options)
        wait_for("pods to be sent to the hub", self.pods_are_sent_to_hub)
        # one that an earlier test left may lack the IPv6 address, and is asked for anew
        wait_for("the certificate", lambda: self.hub_status()["servingCertificate"]["state"] == "issued")
        self.cluster.remove_pods("client")
        self.cluster.make_pods(self.web_pod("client"))
        inside = Inside(self.pod_process())
        self.assertEqual(inside.environment["KUBERNETES_SERVICE_HOST"], "169.254.2.1")
        self.assertEqual(inside.environment["KUBERNETES_SERVICE_PORT"], "10268")
        self.assertIn("configmap/for-pods", inside.kubectl("get", "configmaps", "-o", "name"))
        self.assertIn("NAME", inside.kubectl("get", "configmaps"))
        self.follow_cluster_ip(inside)
        self.go_by_ipv6(inside)
        self.cluster.cut()
        self.addCleanup(self.cluster.heal)
        wait_for("the hub to miss the cloud", lambda: not self.cloud_is_reachable())
        self.assertIn("configmap/for-pods", inside.kubectl("get", "configmaps", "-o", "name"))
        self.cluster.node.stop("yurthub", signal.SIGKILL)
        self.cluster.start_hub(*options)
        self.assertTrue(self.pods_are_sent_to_hub())
        wait_for("the hub to miss the cloud", lambda: self.hub_status()["cloud"]["reason"] != "not probed yet")
        self.assertIn("configmap/for-pods", inside.kubectl("get", "configmaps", "-o", "name"))
        self.assertIn("NAME", inside.kubectl("get", "configmaps"))
        said = inside.curl("https://169.254.2.1:10268/api/v1/namespaces/default/configmaps")
        self.assertEqual((said["kind"], said["code"], said["reason"]), ("Status", 401, "Unauthorized"))

    def follow_cluster_ip(self, inside: Inside) -> None:
        """
        A client that knows the API server by its ClusterIP is led to the hub by kube-proxy, and through it to the API server.
        """
        node = self.cluster.node
        self.addCleanup(node.stop_kube_proxy)
        node.start_kube_proxy(self.cluster.hub_kubeconfig)
        wait_for("kube-proxy's rules", lambda: "--to-destination 169.254.2.1:10268" in node.run("iptables-save"))
        inside.environment |= {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
        self.assertIn("configmap/for-pods", inside.kubectl("get", "configmaps", "-o", "name"))
        inside.environment |= {"KUBERNETES_SERVICE_HOST": "169.254.2.1", "KUBERNETES_SERVICE_PORT": "10268"}
        self.assertIn("configmap/for-pods", inside.kubectl("get", "configmaps", "-o", "name"))

    def go_by_ipv6(self, inside: Inside) -> None:
        """
        Give the pod an IPv6 address, and let it reach the hub by that.
        """
        self.cluster.node.run("ip", "-6", "address", "add", "fd00:9::1/64", "dev", "cni0", "nodad")
        inside.run("ip", "-6", "address", "add", "fd00:9::2/64", "dev", "eth0", "nodad")
        inside.run("ip", "-6", "route", "add", "default", "via", "fd00:9::1")
        inside.environment["KUBERNETES_SERVICE_HOST"] = "fd00::2:1"
        self.assertIn("configmap/for-pods", inside.kubectl("get", "configmaps", "-o", "name"))
        self.assertEqual(inside.curl("https://[fd00::2:1]:10268/api/v1/namespaces/default/configmaps")["code"], 401)
        inside.environment["KUBERNETES_SERVICE_HOST"] = "169.254.2.1"

    def pod_process(self) -> int:
        """
        A process of the pod's container, as the machine sees it.
        """
        for line in self.cluster.node.ctr("tasks", "ls").splitlines()[1:]:
            _, pid, _ = line.split()
            command = self.cluster.node.run("cat", f"/proc/{pid}/cmdline").replace("\0", " ")
            if "httpd" in command or "mkdir" in command:
                return int(pid)
        raise AssertionError("the pod has no process")


class Inside:
    """
    Programs in a pod's namespaces, with what its container sees: files, network, environment.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        content = Path(f"/proc/{pid}/environ").read_text()
        self.environment = dict(part.split("=", 1) for part in content.split("\0") if part)
        shutil.copy(find_binary("kubectl") or "kubectl", f"/proc/{pid}/root/tmp/kubectl")
        self._calls = 0

    def kubectl(self, *arguments: str) -> str:
        """
        kubectl without any configuration, and without what it learnt before.
        """
        self._calls += 1
        command = ["/tmp/kubectl", "--cache-dir", f"/tmp/learnt-{self._calls}", *arguments]
        return run(["/usr/bin/nsenter", "-t", str(self._pid), "-m", "-n", *command], env=self.environment)

    def run(self, *argv: str) -> str:
        """
        A program of this machine in the pod's network.
        """
        return run(["nsenter", "-t", str(self._pid), "-n", *argv])

    def curl(self, url: str) -> dict[str, Any]:
        """
        What curl of this machine gets there without a token, the server verified by the pod's ca.crt.
        """
        authority = f"/proc/{self._pid}/root{TOKEN.replace('token', 'ca.crt')}"
        document: dict[str, Any] = json.loads(self.run("curl", "-s", "-g", "--cacert", authority, url))
        return document
