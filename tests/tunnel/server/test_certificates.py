"""
Tests of a server that asks for its certificates.
"""

from __future__ import annotations

from typing import Any

from cryptography import x509
from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from tests.miniapi import MiniAPI
from tests.miniapi.signing import Signer
from tests.tunnel.server.site import LOOPBACK, Site, until
from yurt.kube.csr.pem import Held
from yurt.tls import Credentials
from yurt.tunnel.link import LinkError
from yurt.tunnel.server import certificates
from yurt.tunnel.server.service import TunnelServer

SERVING, CLIENT = "kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client"


class CertificatesTests(TestCase):
    """
    From a kubeconfig to a server that agents take.
    """

    def setUp(self) -> None:
        self.reactor: Any = reactor
        self.patch(certificates, "SETTLE", 0.05)
        self.site = Site(self, reactor)
        self.api = MiniAPI(reactor, ca=self.site.ca)
        self.api.start()
        self.addCleanup(self.api.stop)
        self.signer = Signer(self.api)
        self.kubeconfig = self.api.write_kubeconfig(self.site.folder / "kubeconfig", "tunnel-server", "system:masters")
        labels = {"openyurt.io/is-edge-worker": "true"}
        addresses = [{"type": "InternalIP", "address": "10.0.0.8"}]
        self.api.put("nodes", {"metadata": {"name": "edge-1", "labels": labels}, "status": {"addresses": addresses}})

    def server(self) -> TunnelServer:
        return self.site.server(
            kubeconfig=self.kubeconfig,
            enable_iptables=False,
            enable_dns_controller=False,
            credentials=Credentials(ca_data=self.site.ca.cert_pem),
            cert_dir=str(self.site.folder / "pki"),
            cert_dns_names=("tunnel.example",),
        )

    def pending(self, signer_name: str) -> list[str]:
        return [
            one["metadata"]["name"]
            for one in self.signer.requests
            if one["spec"]["signerName"] == signer_name and one["metadata"]["name"] in self.signer.pending
        ]

    def serving(self, server: TunnelServer) -> Held:
        assert server.certificates is not None
        held = server.certificates.serving.held
        assert held is not None
        return held

    async def test_first(self) -> None:
        """
        Both certificates are asked for, readiness says that they are pending, no agent is taken before; then they are, at once.
        """
        server = self.server()
        await until(self.reactor, lambda: str(server.readiness()).count("pending since") == 2)
        self.assertEqual((len(self.pending(SERVING)), len(self.pending(CLIENT))), (1, 1))
        reasons = server.readiness()
        for name in self.signer.pending:
            self.assertTrue(any(f"CSR {name} pending since" in reason for reason in reasons), reasons)
        with self.assertRaises(LinkError):
            await self.site.agent(server)
        for name in self.signer.pending:
            self.signer.issue(name)
        await until(self.reactor, lambda: not server.readiness())
        await self.site.agent(server)
        held = self.serving(server)
        self.assertEqual((held.common_name, held.organizations), ("system:node:tunnel-server", {"system:nodes"}))
        self.assertTrue({"tunnel.example", "x-tunnel-server-svc.kube-system.svc"} <= held.dns)
        self.assertTrue({LOOPBACK, "::1"} <= held.addresses)
        pem = (self.site.folder / "pki/yurttunnel-server-proxy-client-current.pem").read_bytes()
        subject = x509.load_pem_x509_certificates(pem)[0].subject.rfc4514_string()
        self.assertEqual(subject, "CN=tunnel-proxy-client,O=openyurt:yurttunnel")
        self.assertEqual(set(server.figures().certificates_expire_in), {"serving", "proxy-client"})
        shown: Any = server.status()["certificates"]
        self.assertEqual({one["state"] for one in shown.values()}, {"issued"})

    async def test_names_change(self) -> None:
        """
        A Service that gets an address has the certificate made anew; agents that are connected stay, and the one in use stays in
        use until then.
        """
        self.signer.issue_always()
        server = self.server()
        await until(self.reactor, lambda: not server.readiness())
        agent = await self.site.agent(server)
        before = len(self.signer.requests)
        spec = {"type": "LoadBalancer", "ports": [{"name": "tcp", "port": 10262}]}
        status = {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}, {"hostname": "lb.example"}]}}
        metadata = {"name": "x-tunnel-server-svc", "namespace": "kube-system"}
        self.api.put("services", {"metadata": metadata, "spec": spec, "status": status})
        await until(self.reactor, lambda: "192.0.2.7" in self.serving(server).addresses)
        self.assertIn("lb.example", self.serving(server).dns)
        self.assertEqual(len(self.signer.requests), before + 1)
        self.assertEqual(len(server.registry), 1)
        self.assertFalse(agent.mux.peer_going_away)

    async def test_restart(self) -> None:
        """
        With its certificates on disk a server takes agents at once, without the cloud.
        """
        self.signer.issue_always()
        server = self.server()
        await until(self.reactor, lambda: not server.readiness())
        await server.stopService()
        await self.api.refuse()
        again = self.server()
        assert again.certificates is not None
        self.assertEqual(again.certificates.problems(), [])
        await self.site.agent(again)
