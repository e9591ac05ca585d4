"""
Who may come in by the server's doors, where they lead, and what is said to those who do not get through.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.certs import make_ca

from .curl import Answer, curl
from .manifests import granted, ports_config, rule, user
from .pods import pod
from .process import in_namespace, run, wait_for
from .tunnel import EDGE_LABEL, SERVER_META, TALKER, WEB
from .tunnel_case import TunnelCase, numbers

AT_ONCE = 1.0
"""Seconds for an answer that needs to wait for nothing, tools and a busy machine included."""
NOBODY, DISCONNECTED, CLOUDLY = 99, 89, 77
"""Last parts of addresses: of no node, of a node without a connection, of a node without an agent."""
STRICT_PORT = 6450
EXPORTER = "mkdir -p /tmp/e; echo exported > /tmp/e/metrics; httpd -f -p {port} -h /tmp/e"
METRICS = "/metrics/resource"
CPU = "node_cpu_usage_seconds_total"


class DoorCase(TunnelCase):
    """
    A test with requests of its own.
    """

    def ask(
        self,
        host: str,
        path: str,
        *,
        port: int = 10250,
        scheme: str = "https",
        name: str = "",
        token: str = "",
        verify: bool = True,
        headers: Sequence[str] = (),
    ) -> Answer:
        """
        GET ``path`` of that host and port, sent to the server, whatever the name means; with a client certificate or token.
        """
        keys, server = self.cluster.plane.authority, self.tunnel.server
        target = f"{server.address}:10263" if scheme == "https" else "127.0.0.1:10264"
        extra = ["--connect-to", f"{host}:{port}:{target}", *(["--cacert", keys.file("ca.crt")] if verify else ["-k"])]
        if name:
            extra += ["--cert", keys.file(f"{name}.crt"), "--key", keys.file(f"{name}.key")]
        headers = [*headers, *([f"Authorization: Bearer {token}"] if token else [])]
        url = f"{scheme}://{host}:{port}{path}"
        return curl(self.cluster.cloud_namespace, url, agent="test", headers=headers, extra=extra, timeout=20)

    def get(self, url: str, *extra: str, timeout: float = 20) -> Answer:
        """
        GET from the cloud, as its routes and rules will have it.
        """
        return curl(self.cluster.cloud_namespace, url, agent="test", extra=extra, timeout=timeout)

    def assert_status(self, answer: Answer, code: int, reason: str, words: Sequence[str]) -> None:
        """
        It is a Kubernetes Status that says so, and came at once.
        """
        self.assertEqual(answer.status, code, answer)
        self.assertEqual((answer.json["kind"], answer.json["reason"], answer.json["code"]), ("Status", reason, code))
        for word in words:
            self.assertIn(word, answer.json["message"])
        self.assertTrue(answer.seconds < AT_ONCE, answer.seconds)


class ScrapeTests(DoorCase):
    """
    What Prometheus does: requests that are addressed to the server.
    """

    def test_client_certificate(self) -> None:
        """
        A client certificate of the cluster's CA opens the node's metrics to whom RBAC lets, by the node's name, be it in TLS
        only, and by its address; others are forbidden, and who shows nothing is unknown.
        """
        node = self.cluster.node
        self.cluster.apply(*granted("scrape", user("scraper"), rule("", "nodes/metrics nodes/proxy nodes/stats", "get")))
        for name in ("scraper", "somebody"):
            self.cluster.plane.authority.issue(name, name)
        self.assertIn(CPU, self.ask(node.name, METRICS, name="scraper").body)
        self.assertIn(CPU, self.ask(node.address, METRICS, name="scraper", verify=False).body)
        by_tls_only = [f"Host: {self.tunnel.server.address}:10263"]
        self.assertIn(CPU, self.ask(node.name, METRICS, name="scraper", headers=by_tls_only).body)
        self.assert_status(self.ask(node.name, METRICS, name="somebody"), 403, "Forbidden", ["somebody"])
        self.assert_status(self.ask(node.name, METRICS), 401, "Unauthorized", [])

    def test_token(self) -> None:
        """
        So does a bearer token, of a ServiceAccount that may; a forged one does not.
        """
        node = self.cluster.node
        account = {"kind": "ServiceAccount", "name": "prometheus", "namespace": "default"}
        self.cluster.apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "prometheus"}},
            *granted("scrape-by-token", account, rule("", "nodes/metrics nodes/proxy", "get")),
        )
        token = self.cluster.kubectl("create", "token", "prometheus").strip()
        other = self.cluster.kubectl("create", "token", "default").strip()
        for _ in range(3):
            self.assertIn(CPU, self.ask(node.name, METRICS, token=token).body)
        self.assertEqual(self.ask(node.name, METRICS, token=other).status, 403)
        forged = ".".join([*token.split(".")[:2], other.split(".")[2]])
        for bad in (forged, "nonsense"):
            self.assert_status(self.ask(node.name, METRICS, token=bad), 401, "Unauthorized", [])

    def test_by_pod_and_by_header(self) -> None:
        """
        The path of what an API server asks of a kubelet names the pod and so the node; X-Tunnel-Proxy-Host names it, too.
        """
        answer = self.ask("localhost", f"/containerLogs/default/{TALKER}/main?tailLines=1", name="admin", port=10263)
        self.assertEqual(len(numbers(answer.body)), 1, answer)
        header = f"X-Tunnel-Proxy-Host: {self.cluster.node.name}:10250"
        self.assertIn(CPU, self.ask("localhost", METRICS, name="admin", port=10263, headers=[header]).body)
        self.assert_status(
            self.ask("localhost", "/containerLogs/default/nobody/main", name="admin", port=10263), 404, "NotFound", ["nobody"]
        )

    def test_plain(self) -> None:
        """
        The plain port leads callers of its own machine to the node's read-only port.
        """
        node = self.cluster.node
        self.assertIn(CPU, self.ask(node.name, METRICS, port=10255, scheme="http").body)
        self.assertIn(CPU, self.get(f"http://{node.address}:10255{METRICS}").body)

    def test_as_a_proxy(self) -> None:
        """
        Whoever knows HTTP proxies uses the server as one, for https and for plain HTTP: by TLS with a certificate, and on the
        server's own host without.
        """
        node, keys = self.cluster.node, self.cluster.plane.authority
        key = ["--cert", keys.file("admin.crt"), "--key", keys.file("admin.key"), "--cacert", keys.file("ca.crt")]
        proxy_key = [option.replace("--", "--proxy-") for option in key]
        by_tls = ["--proxy", f"https://{self.tunnel.server.address}:10263", *proxy_key]
        for way in (by_tls, ["--proxy", "http://127.0.0.1:10264"]):
            for url in (f"https://{node.name}:10250{METRICS}", f"http://{node.address}:10255{METRICS}"):
                self.assertIn(CPU, self.get(url, "--suppress-connect-headers", *way, *key).body, (way, url))
        refused = self.get(f"https://nobody:10250{METRICS}", *by_tls, *key)
        self.assertEqual((refused.status, refused.headers["yurt-refused"]), (0, "unknown-node"))

    def test_own_pages(self) -> None:
        """
        The server counts what it carried.
        """
        self.tunnel.kubectl("exec", WEB, "--", "true")
        said = self.get(f"{SERVER_META}/metrics").body
        for name in ("yurttunnel_server_dial_duration_seconds_count", "yurttunnel_server_first_byte_seconds_count"):
            values = [float(line.split()[-1]) for line in said.splitlines() if line.startswith(name)]
            self.assertTrue(sum(values) > 0, f"{name}: {values}")
        for path in ("/v1/healthz", "/v1/readyz"):
            self.assertEqual(self.get(SERVER_META + path).status, 200)
            self.assertEqual(self.tunnel.agent_answers(self.cluster.node, path)[0], 200)


class RefusalTests(DoorCase):
    """
    Nodes that cannot be reached.
    """

    def test_addressed(self) -> None:
        """
        An unknown node and one without a connection are told apart, at once, with the reason.
        """
        self.make_node("edge-9", DISCONNECTED, **{EDGE_LABEL: "true"})
        self.assert_status(self.ask("nobody", METRICS, name="admin", verify=False), 404, "NotFound", ["nobody"])

        def known() -> bool:
            return self.ask("edge-9", METRICS, name="admin", verify=False).status == 503

        wait_for("the server to know the node", known)
        answer = self.ask("edge-9", METRICS, name="admin", verify=False)
        self.assert_status(answer, 503, "ServiceUnavailable", ["edge-9", "not connected"])

    def test_diverted(self) -> None:
        """
        A connection to a node that cannot be reached ends at once instead of hanging, and the server's log says why.
        """
        address = self.make_node("edge-9", DISCONNECTED, **{EDGE_LABEL: "true"})
        for place in (address, self.cluster.network.address(NOBODY)):
            answer = self.get(f"https://{place}:10250/healthz", "-k")
            self.assertEqual(answer.status, 0)
            self.assertTrue(answer.seconds < AT_ONCE, answer.seconds)
        wait_for("a line of log", lambda: "edge-9" in self.tunnel.server.log.read_text())

    def test_kubelet_without_the_agents_leave(self) -> None:
        """
        A port of the node that its agent may not dial is refused with the reason.
        """
        answer = self.ask(self.cluster.node.name, "/", port=22, name="admin", verify=False)
        self.assertTrue(answer.status in (400, 403, 404), answer)
        self.assertEqual(answer.json["kind"], "Status")


class PassedOnTests(DoorCase):
    """
    Diverted connections, and the rules that divert them.
    """

    def test_kubelets_own_certificate(self) -> None:
        """
        Whoever dials the node's address sees the kubelet's own certificate: TLS is not ended on the way.
        """
        node = self.cluster.node
        script = "import ssl, sys; print(ssl.get_server_certificate((sys.argv[1], 10250)))"
        argv = in_namespace(self.cluster.cloud_namespace, [sys.executable, "-c", script, node.address])
        wanted = Path(self.cluster.plane.authority.file(f"{node.name}.crt")).read_text()
        self.assertEqual(ssl.PEM_cert_to_DER_cert(run(argv).strip()), ssl.PEM_cert_to_DER_cert(wanted.strip()))

    def test_kubelets_own_authorisation(self) -> None:
        """
        Who may what is the kubelet's to say, which asks the API server (authorization mode Webhook) about the caller himself, by
        his certificate or his token; the server lends him nothing.
        """
        node, keys = self.cluster.node, self.cluster.plane.authority
        self.cluster.apply(*granted("meter", user("meter"), rule("", "nodes/metrics", "get")))
        for name in ("meter", "somebody"):
            keys.issue(name, name)

        def ask(*identity: str) -> Answer:
            return self.get(f"https://{node.address}:10250{METRICS}", "--cacert", keys.file("ca.crt"), *identity)

        def ask_as(name: str) -> Answer:
            return ask("--cert", keys.file(f"{name}.crt"), "--key", keys.file(f"{name}.key"))

        # A kubelet remembers a refusal for half a minute, and the API server learns of a role a moment after it was made.
        wait_for("the kubelet's leave", lambda: ask_as("meter").status == 200, every=0.5)
        refused = ask_as("somebody")
        self.assertEqual(refused.status, 403)
        self.assertIn("somebody", refused.body)
        token = self.cluster.kubectl("create", "token", "default").strip()
        refused = ask("--header", f"Authorization: Bearer {token}")
        self.assertEqual(refused.status, 403)
        self.assertIn("system:serviceaccount:default:default", refused.body)
        self.assertEqual(ask().status, 401)

    def test_certificate_is_verified(self) -> None:
        """
        An apiserver that trusts another CA refuses the kubelet: it sees the certificate through the tunnel, and verifies it.
        """
        plane = self.cluster.plane
        foreign = plane.authority.folder / "another-ca.crt"
        foreign.write_bytes(make_ca("another").cert_pem)
        strict = plane.start_another("apiserver-strict", STRICT_PORT, "--kubelet-certificate-authority", str(foreign))
        self.addCleanup(strict.stop)
        said = self.tunnel.refused("--server", plane.url_of(STRICT_PORT), "exec", WEB, "--", "true")
        self.assertIn("certificate signed by unknown authority", said)

    def rules(self) -> str:
        """
        The rules of the cloud that are the tunnel's.
        """
        said = run(in_namespace(self.cluster.cloud_namespace, ["iptables-save", "-t", "nat"]))
        return "\n".join(sorted(line for line in said.splitlines() if "TUNNEL-PORT" in line))

    def test_nodes_without_agent(self) -> None:
        """
        A node without an agent is reached directly from the moment that it is known, until it is gone.
        """
        address = self.make_node("cloud-7", CLOUDLY)
        wait_for("its rules", lambda: self.rules().count(f"-d {address}/32") == 2, 5, every=0.05)
        self.cluster.kubectl("label", "node", "cloud-7", f"{EDGE_LABEL}=true")
        wait_for("the end of its rules", lambda: f"-d {address}/32" not in self.rules(), 5, every=0.05)
        self.assertNotIn(f"-d {self.cluster.node.address}/32", self.rules())

    def test_rules_come_and_go_with_the_server(self) -> None:
        """
        A server that was killed leaves rules, the next one puts the same in place; one that is stopped leaves none.
        """
        before = self.rules()
        self.assertIn(f"--to-destination {self.tunnel.server.address}:10263", before)
        self.assertEqual(self.tunnel.server.stop(9), -9)
        self.assertEqual(self.rules(), before)
        self.tunnel.server.restart()
        wait_for("the rules of the next server", lambda: self.rules() == before)
        self.tunnel.server.stop()
        self.assertEqual(self.rules(), "")


class PortTests(DoorCase):
    """
    The ConfigMap of ports.
    """

    def setUp(self) -> None:
        super().setUp()
        node = self.cluster.node
        self.tunnel.start_agent(node, "--allowed-ports", "9100,9101,10267")
        self.addCleanup(self.tunnel.start_agent, node)

    def works(self, url: str, text: str) -> bool:
        return text in self.get(url, timeout=2).body

    def configure(self, **data: str) -> None:
        """
        Write the ConfigMap.
        """
        self.cluster.apply(ports_config(**data))

    def test_ports_live(self) -> None:
        """
        Ports of http-proxy-ports lead to the node, those of localhost-proxy-ports to its loopback, as soon as they are written,
        until they are taken away; the proxy subresource of nodes leads to them, too.
        """
        node = self.cluster.node
        delete = ("delete", "configmap", "-n", "kube-system", "yurt-tunnel-server-cfg", "--ignore-not-found")
        self.addCleanup(self.cluster.kubectl, *delete)
        self.make_pods(pod("exporter", node.name, EXPORTER.format(port=9100), host_network=True))
        exporter, hub = f"http://{node.address}:9100/metrics", f"http://{node.address}:10267/v1/healthz"
        self.assertFalse(self.works(exporter, "exported"))
        self.configure(http_proxy_ports="9100, 10267", localhost_proxy_ports="10267")
        wait_for("the exporter", lambda: self.works(exporter, "exported"), 10)
        wait_for("the hub's own page", lambda: self.get(hub, timeout=2).status == 200, 10)
        by_subresource = f"/api/v1/nodes/http:{node.name}:9100/proxy/metrics"
        self.assertIn("exported", self.tunnel.kubectl("get", "--raw", by_subresource))
        self.configure(http_proxy_ports="10267", localhost_proxy_ports="10267")
        wait_for("the end of the exporter's port", lambda: not self.works(exporter, "exported"), 10)
        self.assertEqual(self.get(hub).status, 200)
        self.cluster.kubectl(*delete)
        wait_for("the end of the other", lambda: self.get(hub, timeout=2).status == 0, 10)
