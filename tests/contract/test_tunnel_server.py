"""
What the tunnel server keeps in a cluster, with the rights of its manifest and no others.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred

import yurt
from tests.certs import Authority, Identity, issue
from yurt.kube.api import ApiClient, ApiError, client_from_kubeconfig
from yurt.kube.kubeconfig import Kubeconfig
from yurt.tunnel.server.dns import DNSRecords
from yurt.tunnel.server.members import Members
from yurt.tunnel.server.nodes import Nodes, nodes_informer
from yurt.tunnel.server.pods import Pods
from yurt.tunnel.server.ports import LivePorts, ports_informer

from .subjects import Contract, OnMini, OnReal, a_pod, pause

MANIFEST = Path(yurt.__file__).parent.parent / "etc/kubernetes/yurt-tunnel-server.yaml"
USER = "yurt-tunnel-server"
SYSTEM = "/api/v1/namespaces/kube-system"
PERIOD = 0.05


def documents() -> list[dict[str, Any]]:
    """
    What the manifest holds.
    """
    return list(yaml.safe_load_all(MANIFEST.read_text()))


def collection(document: dict[str, Any]) -> str:
    """
    The path to which a document of the manifest is posted.
    """
    version, plural = document["apiVersion"], document["kind"].lower() + "s"
    prefix = f"/apis/{version}" if "/" in version else f"/api/{version}"
    namespace = document["metadata"].get("namespace")
    return f"{prefix}/namespaces/{namespace}/{plural}" if namespace else f"{prefix}/{plural}"


class ServerContract(Contract):
    """
    What holds of the parts of a tunnel server that speak to the cluster, over real connections.
    """

    url: str
    ca: Authority
    has_roles = True

    def client_as(self, identity: Identity) -> ApiClient:
        kubeconfig = Kubeconfig(self.url, ca_data=self.ca.cert_pem, cert_data=identity.cert_pem, key_data=identity.key_pem)
        client = client_from_kubeconfig(reactor, kubeconfig, USER)
        self.addCleanup(client.close)
        return client

    def run_service(self, service: Any) -> Any:
        service.startService()
        self.addCleanup(lambda: maybeDeferred(service.stopService))
        return service

    async def until(self, what: str, condition: Callable[[], bool]) -> None:
        """
        Wait for a condition; the test's timeout bounds it.
        """
        while not condition():
            await pause(PERIOD)

    async def apply(self) -> None:
        """
        Create what the manifest holds and this server knows, unless a test before did.
        """
        for document in documents():
            if not self.has_roles and document["apiVersion"].startswith("rbac."):
                continue
            reply = await self.admin.ask("POST", collection(document), document)
            self.assertIn(reply.status, (201, 409), reply.body)

    async def remove(self, *paths: str) -> None:
        for path in paths:
            await self.admin.ask("DELETE", path)

    async def put_node(self, name: str, *addresses: tuple[str, str], **labels: str) -> None:
        """
        A node with addresses; it is removed after the test.
        """
        kept = {f"openyurt.io/{label.replace('_', '-')}": value for label, value in labels.items()}
        path = f"/api/v1/nodes/{name}"
        made = await self.admin.ask("POST", "/api/v1/nodes", {"metadata": {"name": name, "labels": kept}})
        self.assertEqual(made.status, 201, made.body)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.remove(path)))
        status = {"addresses": [{"type": kind, "address": address} for kind, address in addresses]}
        content_type = "application/strategic-merge-patch+json"
        reply = await self.admin.ask("PATCH", f"{path}/status", {"status": status}, content_type=content_type)
        self.assertEqual(reply.status, 200, reply.body)

    async def records(self) -> str:
        reply = await self.admin.ask("GET", f"{SYSTEM}/configmaps/yurt-tunnel-nodes")
        return str(reply.json["data"]["tunnel-nodes"]) if reply.status == 200 else ""

    async def test_nodes_and_ports(self) -> None:
        """
        Nodes and ports are followed, and so is the end of the ConfigMap.
        """
        await self.apply()
        await self.put_node("edge-1", ("InternalIP", "192.168.1.2"), ("Hostname", "edge-1"), is_edge_worker="true")
        client = self.client_as(issue(self.ca, USER))
        informers = nodes_informer(reactor, client), ports_informer(reactor, client)
        nodes, ports = Nodes(informers[0]), LivePorts(informers[1])
        for informer in informers:
            self.run_service(informer)
        await self.until("the node", lambda: nodes.by_address("192.168.1.2") is not None and ports.synced)
        node = nodes.by_host("edge-1")
        self.assertEqual((node is not None and node.has_agent, nodes.problem, ports.problem), (True, None, None))
        config = {"metadata": {"name": "yurt-tunnel-server-cfg"}, "data": {"http-proxy-ports": "9100"}}
        made = await self.admin.ask("POST", f"{SYSTEM}/configmaps", config)
        self.assertEqual(made.status, 201, made.body)
        await self.until("the port", lambda: 9100 in ports.ports.http)
        await self.remove(f"{SYSTEM}/configmaps/yurt-tunnel-server-cfg")
        await self.until("no port", lambda: not ports.ports.http)

    async def test_members(self) -> None:
        """
        Two servers find each other, and miss each other.
        """
        await self.apply()
        client = self.client_as(issue(self.ca, USER))
        one = self.run_service(Members(reactor, client, "one", "10.0.0.1", 10262))
        two = Members(reactor, client, "two", "10.0.0.2", 10262)
        two.startService()
        await self.until("each other", lambda: bool(one.members and two.members))
        self.assertEqual((one.members[0].host, two.members[0].host), ("10.0.0.1", "10.0.0.2")[::-1])
        await two.stopService()
        await self.until("nobody", lambda: not one.members)
        self.assertIs(one.problem, None)

    async def test_dns(self) -> None:
        """
        Records and ports of DNS mode are made, follow the cluster, and are another server's to keep when the leader stops.
        """
        await self.apply()
        await self.put_node("cloud-1", ("InternalIP", "10.0.0.9"))
        await self.put_node("edge-1", ("InternalIP", "192.168.1.2"), is_edge_worker="true")
        client = self.client_as(issue(self.ca, USER))
        informers = nodes_informer(reactor, client), ports_informer(reactor, client)
        nodes, ports = Nodes(informers[0]), LivePorts(informers[1])
        for informer in informers:
            self.run_service(informer)
        servers = [
            DNSRecords(reactor, client, nodes, ports, name, secure_port=10263, insecure_port=10264) for name in ("one", "two")
        ]
        servers[0].startService()
        await self.until("a leader", lambda: servers[0].leading and servers[0].writes > 0)
        self.run_service(servers[1])
        service = (await self.admin.ask("GET", f"{SYSTEM}/services/x-tunnel-server-internal-svc")).json
        lines = (await self.records()).split("\n")
        self.assertEqual(lines, sorted(["10.0.0.9\tcloud-1", f"{service['spec']['clusterIP']}\tedge-1"]))
        config = {"metadata": {"name": "yurt-tunnel-server-cfg"}, "data": {"http-proxy-ports": "9100"}}
        await self.admin.ask("POST", f"{SYSTEM}/configmaps", config)
        await self.until("the write", lambda: servers[0].writes > 1)
        service = (await self.admin.ask("GET", f"{SYSTEM}/services/x-tunnel-server-internal-svc")).json
        self.assertIn("dnat-9100", [port["name"] for port in service["spec"]["ports"]])
        await servers[0].stopService()
        await self.remove(f"{SYSTEM}/configmaps/yurt-tunnel-server-cfg", f"{SYSTEM}/configmaps/yurt-tunnel-nodes")
        await self.until("the next leader's writes", lambda: servers[1].leading and servers[1].writes >= 2)
        self.assertEqual((await self.records()).split("\n"), lines)
        self.assertIs(servers[1].problem, None)

    async def test_pods(self) -> None:
        """
        The node of a pod is found, and a missing pod missed.
        """
        await self.apply()
        path = f"{SYSTEM}/pods"
        made = await self.admin.ask("POST", path, {"metadata": {"name": "web"}, **a_pod(nodeName="edge-7")})
        self.assertEqual(made.status, 201, made.body)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.remove(f"{path}/web?gracePeriodSeconds=0")))
        pods = Pods(reactor, self.client_as(issue(self.ca, USER)))
        self.assertEqual(await pods.node_of_pod("kube-system", "web"), "edge-7")
        with self.assertRaises(ApiError) as caught:
            await pods.node_of_pod("kube-system", "other")
        self.assertEqual(caught.exception.code, 404)


class MiniServerTests(ServerContract, OnMini):
    """
    On the miniature apiserver, which knows no roles.
    """

    timeout = 180
    has_roles = False


class RealServerTests(ServerContract, OnReal):
    """
    On the real one, with the rights of the manifest.
    """

    async def refused(self, call: Any) -> bool:
        """
        Whether a call is Forbidden.
        """
        try:
            await call
        except ApiError as error:
            return error.code == 403
        return False

    async def test_no_more_rights(self) -> None:
        """
        The server may do nothing that it does not need.
        """
        await self.apply()
        client = self.client_as(issue(self.ca, USER))
        config = {"metadata": {"name": "other"}}
        node = {"metadata": {"name": "new"}}
        for call in (
            client.get("/api/v1/pods"),
            client.get("/api/v1/secrets"),
            client.get("/api/v1/services"),
            client.get("/api/v1/configmaps"),
            client.get(f"{SYSTEM}/configmaps"),
            client.get(f"{SYSTEM}/configmaps/extension-apiserver-authentication"),
            client.update(f"{SYSTEM}/configmaps/other", config),
            client.delete(f"{SYSTEM}/configmaps/yurt-tunnel-nodes"),
            client.update(f"{SYSTEM}/services/x-tunnel-server-svc", config),
            client.create("/api/v1/nodes", node),
            client.get("/apis/coordination.k8s.io/v1/leases"),
            client.get("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"),
            client.create("/api/v1/namespaces/default/configmaps", config),
        ):
            self.assertTrue(await self.refused(call), str(call))

    async def test_reviews(self) -> None:
        """
        The server may ask who a token belongs to and what its holder may do; kubelets let its own user and OpenYurt's in, to
        read and to run commands.
        """
        await self.apply()
        client = self.client_as(issue(self.ca, USER))
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "x"}}
        answer = await client.create("/apis/authentication.k8s.io/v1/tokenreviews", review)
        self.assertFalse(answer["status"].get("authenticated", False))
        allowed = {}
        for user in (USER, "tunnel-proxy-client", "somebody"):
            for verb in ("get", "create", "delete"):
                attributes = {"resource": "nodes", "subresource": "proxy", "name": "edge-1", "verb": verb}
                spec = {"user": user, "resourceAttributes": attributes}
                asked = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
                reply = await client.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", asked)
                allowed[user, verb] = reply["status"]["allowed"]
        granted = {key for key, value in allowed.items() if value}
        self.assertEqual(granted, {(user, verb) for user in (USER, "tunnel-proxy-client") for verb in ("get", "create")})
