"""
Requests addressed to a whole server, with an API server beside it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.interfaces import IProtocolFactory
from twisted.trial.unittest import TestCase

from tests.certs import Identity, issue
from tests.miniapi import MiniAPI
from tests.tunnel.server.edge import Kubelet
from tests.tunnel.server.site import LOOPBACK, Site, until
from yurt.host.destination import Destination
from yurt.http.client import HTTPUpstream
from yurt.http.dial import tls_factory
from yurt.http.fetch import FetchedResponse, fetch
from yurt.http.interfaces import Headers
from yurt.http.server import HTTPServerFactory
from yurt.kube.status import read_failure
from yurt.tls import ClientTLS, Credentials, ServerTLS

CONFIG = {"metadata": {"name": "yurt-tunnel-server-cfg", "namespace": "kube-system"}}


class Translated(dict[int, Destination]):
    """
    All connections were going to port 9445 of a Service's address.
    """

    def get(self, key: object, default: object = None) -> Any:
        return ("127.0.0.9", 9445)


class AddressedTests(TestCase):
    """
    Prometheus and the like, by TLS, with what the cluster says of callers, pods and ports.
    """

    timeout = 180

    async def setUp(self) -> None:  # type: ignore[override]
        self.reactor: Any = reactor
        self.site = Site(self, reactor)
        self.api = MiniAPI(reactor)
        self.api.start()
        self.addCleanup(self.api.stop)
        self.api.permits = self.permits
        self.allowed: set[tuple[str, str, str]] = set()
        labels = {"openyurt.io/is-edge-worker": "true"}
        status = {"addresses": [{"type": "InternalIP", "address": "10.0.0.8"}]}
        self.api.put("nodes", {"metadata": {"name": "edge-1", "labels": labels}, "status": status})
        kubeconfig = self.api.write_kubeconfig(self.site.folder / "kubeconfig", "tunnel", "system:masters")
        self.server = self.site.server(kubeconfig=kubeconfig, enable_iptables=False, egress_socket=None)
        await until(reactor, lambda: not self.server.readiness())
        self.kubelet = Kubelet()
        self.agent = await self.site.agent(self.server, target=self.serve_kubelet())

    def permits(self, user: Any, verb: str, call: object, path: str) -> bool:
        """
        The server may do all, others what is in ``allowed``.
        """
        return user.name == "tunnel" or (user.name, verb, path) in self.allowed

    def serve_kubelet(self) -> int:
        """
        The port of a kubelet.
        """
        factory = HTTPServerFactory(self.reactor, self.kubelet)
        self.addCleanup(factory.drain, 0.05)
        tls = ServerTLS(self.site.credentials(issue(self.site.ca, "system:node:edge-1", ips=["10.0.0.8"])))
        wrapped: Any = tls_factory(tls, False, cast(IProtocolFactory, factory))
        port = self.reactor.listenTCP(0, wrapped, interface=LOOPBACK)
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    async def ask(
        self,
        target: bytes,
        node: str,
        *,
        token: str = "",
        identity: Identity | None = None,
        plain: bool = False,
        dialled: str | None = None,
    ) -> FetchedResponse:
        """
        A request by TLS, or in plain text from this host; ``node`` is its X-Tunnel-Proxy-Host, ``dialled`` a name in TLS.
        """
        credentials = Credentials(ca_data=self.site.ca.cert_pem)
        if identity is not None:
            credentials = self.site.credentials(identity)
        config = self.server.config
        url = f"http://{LOOPBACK}:{config.insecure_port}" if plain else f"https://{LOOPBACK}:{config.secure_port}"
        upstream = HTTPUpstream(self.reactor, url, ClientTLS(credentials, dialled, verify=dialled is None))
        self.addCleanup(upstream.close_connections, "the test is over")
        headers: Headers = [(b"X-Tunnel-Proxy-Host", node.encode())] if node else []
        if token:
            headers.append((b"Authorization", b"Bearer " + token.encode()))
        return await fetch(self.reactor, upstream, b"GET", target, headers, timeout=20)

    async def test_token(self) -> None:
        """
        A service account that may read the metrics of nodes may do that with its token, and nothing else.
        """
        token = self.api.token("prometheus")
        self.assertEqual((await self.ask(b"/metrics", "edge-1:10250", token="nonsense")).status, 401)
        self.allowed = {("system:serviceaccount:default:prometheus", "get", "/api/v1/nodes/edge-1/metrics")}
        self.assertEqual((await self.ask(b"/metrics", "edge-1:10250", token=token)).status, 200)
        answer = await self.ask(b"/pods", "edge-1:10250", token=token)
        self.assertEqual(answer.status, 403)
        self.assertIn("nodes/proxy", read_failure(answer.body).message)
        self.assertEqual([request.head.target for request in self.kubelet.requests], [b"/metrics"])

    async def test_pod(self) -> None:
        """
        A request that names nothing but a pod goes to the pod's node.
        """
        self.allowed = {("kube-apiserver", "get", "/api/v1/nodes/edge-1/proxy")}
        self.kubelet.handle = lambda request: self.kubelet.tell(request, b"")  # type: ignore[method-assign]
        pod = {"metadata": {"name": "web", "namespace": "default"}, "spec": {"nodeName": "edge-1", "containers": []}}
        self.api.put("pods", pod)
        caller = issue(self.site.ca, "kube-apiserver")
        answer = await self.ask(b"/containerLogs/default/web/c", "", identity=caller)
        self.assertEqual((answer.status, self.agent.asked), (200, ["10.0.0.8:10250"]))
        answer = await self.ask(b"/containerLogs/default/gone/c", "", identity=caller)
        self.assertEqual(answer.status, 404)
        self.assertIn('"gone" not found', read_failure(answer.body).message)

    async def test_dialled_port(self) -> None:
        """
        Who dials a node's name, and names another host in the request as API servers do, reaches the port that was dialled where
        connection tracking knows it; else the kubelet's.
        """
        self.api.put("configmaps", {**CONFIG, "data": {"https-proxy-ports": "9445"}})
        await until(self.reactor, lambda: self.server.ports.ports.https)
        self.allowed = {("kube-apiserver", "get", "/api/v1/nodes/edge-1/proxy")}
        caller = issue(self.site.ca, "kube-apiserver")
        self.assertEqual((await self.ask(b"/", "", identity=caller, dialled="edge-1")).status, 200)
        self.site.destinations = Translated()
        self.assertEqual((await self.ask(b"/", "", identity=caller, dialled="edge-1")).status, 200)
        self.assertEqual(self.agent.asked, ["10.0.0.8:10250", "10.0.0.8:9445"])

    async def test_live_ports(self) -> None:
        """
        A port is the tunnel's from the moment that the ConfigMap names it until it names it no more.
        """
        self.assertEqual((await self.ask(b"/metrics", "edge-1:9445", plain=True)).status, 403)
        self.api.put("configmaps", {**CONFIG, "data": {"https-proxy-ports": "9445", "localhost-proxy-ports": "9445"}})
        await until(self.reactor, lambda: self.server.ports.ports.https)
        self.assertEqual((await self.ask(b"/metrics", "edge-1:9445", plain=True)).status, 200)
        self.assertEqual(self.agent.asked, ["127.0.0.1:9445"])
        self.api.remove("configmaps", CONFIG["metadata"]["name"], "kube-system")
        await until(self.reactor, lambda: not self.server.ports.ports.https)
        self.assertEqual((await self.ask(b"/metrics", "edge-1:9445", plain=True)).status, 403)

    async def test_full_door(self) -> None:
        """
        Who finds no room at a door hears so, and is counted.
        """
        door = self.server.factories["plain"]
        door.limits = replace(door.limits, max_connections=1)
        first = await self.site.connect(self.server.config.insecure_port)
        first.wire.write(b"CONNECT edge-1:10250 HTTP/1.1\r\nHost: edge-1:10250\r\n\r\n")
        await until(reactor, lambda: first.data.startswith(b"HTTP/1.1 200 "))
        second = await self.site.connect(self.server.config.insecure_port)
        await second.is_ended()
        self.assertTrue(second.data.startswith(b"HTTP/1.1 503 "))
        refused = self.server.prometheus.get_sample_value("yurttunnel_server_refused_total", {"reason": "full"})
        self.assertEqual((refused, first.lost), (1, None))
