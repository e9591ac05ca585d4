"""
From a bootstrap token to certificates: yurt-controller-manager approves, kube-controller-manager signs.
"""

from __future__ import annotations

import base64
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast
from unittest import TestResult

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

import yurt
from tests.certs import Identity
from tests.contract.client import KubeClient
from tests.contract.subjects import pause
from tests.controllers.asking import HUB, NODE, NODES, TUNNEL, key, pkcs10, two_meanings
from tests.ports import free_port
from yurt.kube.csr.request import requests_path
from yurt.kube.csr.wanted import CLIENT_SIGNER, CLIENT_USAGES, SERVING_SIGNER, SERVING_USAGES

from .apiserver import NEEDED, ControlPlane
from .evidence import Logs, Witness
from .process import Process, find_binary, require

MANIFEST = Path(yurt.__file__).parent.parent / "etc/kubernetes/yurt-controller-manager.yaml"
USER = "yurt-controller-manager"
TOKEN = "abcdef.0123456789abcdef"
INVITATION = [
    {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"},
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": TOKEN[:6],
            "token-secret": TOKEN[7:],
            "usage-bootstrap-authentication": "true",
        },
    }
]
"""A token; what its holders may do is in the manifest."""

Document = dict[str, Any]


class ApproverTests(TestCase):
    """
    Tests with a control plane of their own, on loopback and without root.
    """

    timeout = 400

    def run(self, result: TestResult | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="y2e-approver-"))
        try:
            super().run(cast(TestResult, Witness(result, Logs(self.folder), self.state)))
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def state(self) -> str:
        """
        What was asked for, for whoever reads of a failure.
        """
        return self.plane.kubectl("get", "csr", timeout=10)

    def setUp(self) -> None:
        require(*NEEDED, "kube-controller-manager", "kubectl")
        self.plane = ControlPlane(
            self.folder,
            port=free_port(),
            etcd_ports=(free_port(), free_port()),
            extra=("--enable-bootstrap-token-auth", "--endpoint-reconciler-type", "none"),
        )
        self.addCleanup(self.plane.stop)
        self.plane.start()
        self.plane.kubectl("apply", "-f", str(MANIFEST))
        self.plane.kubectl("apply", "-f", "-", stdin=b"\n".join(json.dumps(one).encode() for one in INVITATION))
        self.start_signer()
        self.daemon = self.start_daemon()

    def start_signer(self) -> None:
        """
        kube-controller-manager, as far as it has to do with certificates.
        """
        keys = self.plane.authority
        keys.issue("kcm", "kube-controller-manager", ("system:masters",))
        argv = [
            find_binary("kube-controller-manager") or "kube-controller-manager",
            *("--kubeconfig", keys.kubeconfig(self.folder / "kcm.conf", self.plane.url, "kcm")),
            *("--cluster-signing-cert-file", keys.file("ca.crt"), "--cluster-signing-key-file", keys.file("ca.key")),
            *("--controllers", "csrsigning,csrapproving,csrcleaner", "--leader-elect=false", "--port", "0"),
            *("--secure-port", str(free_port()), "--bind-address", "127.0.0.1", "--cert-dir", str(self.folder / "kcm")),
        ]
        self.addCleanup(Process("kube-controller-manager", argv, self.folder / "log/kcm.log").stop)

    def start_daemon(self, log: str = "ycm") -> Process:
        """
        twistd yurt-controller-manager, with the rights of its manifest.
        """
        self.plane.authority.issue(USER, USER)
        argv = [
            str(Path(sys.executable).with_name("twistd")), "--nodaemon", "--pidfile=", USER,
            f"--kubeconfig={self.plane.authority.kubeconfig(self.folder / 'ycm.conf', self.plane.url, USER)}",
            f"--metrics-addr=127.0.0.1:{free_port()}",
        ]  # fmt: skip
        daemon = Process(USER, argv, self.folder / f"log/{log}.log")
        self.addCleanup(daemon.stop)
        return daemon

    def client(self, identity: Identity | None = None, token: str = "") -> KubeClient:
        client = KubeClient(reactor, self.plane.url, self.plane.authority.ca.cert_pem, identity, token)
        self.addCleanup(lambda: Deferred.fromCoroutine(client.close()))
        return client

    async def ask_for(
        self, client: KubeClient, name: str, pem: bytes, *, serving: bool = False, usages: Sequence[str] = (), signer: str = ""
    ) -> None:
        """
        Ask for a certificate.
        """
        spec = {
            "request": base64.b64encode(pem).decode(),
            "signerName": signer or (SERVING_SIGNER if serving else CLIENT_SIGNER),
            "usages": list(usages or (SERVING_USAGES if serving else CLIENT_USAGES)),
        }
        document = {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": name},
            "spec": spec,
        }
        made = await client.ask("POST", requests_path("v1"), document)
        self.assertEqual(made.status, 201, made.body)

    async def until(self, client: KubeClient, path: str, found: Callable[[Document], Any]) -> Any:
        """
        What ``found`` finds in the object or list at ``path``, once it does.
        """
        while True:
            self.daemon.check()
            if value := found((await client.ask("GET", path)).json):
                return value
            await pause(0.1)

    async def issued(self, client: KubeClient, name: str) -> bytes:
        """
        The certificate for a request.
        """
        found = await self.until(client, f"{requests_path('v1')}/{name}", lambda one: one["status"].get("certificate"))
        return base64.b64decode(found)

    async def test_joining(self) -> None:
        """
        A token brings a client certificate, and that the one to serve with, and its own renewal; a second node of that name
        brings an Event, and no certificate.  The daemon's end gives the Lease up.
        """
        bootstrapper = self.client(token=TOKEN)
        await self.ask_for(bootstrapper, "join", pkcs10("system:node:edge-1", HUB))
        pem = await self.issued(bootstrapper, "join")
        certificate = x509.load_pem_x509_certificate(pem)
        names = [one.value for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        groups = [one.value for one in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        self.assertEqual((names, sorted(map(str, groups))), (["system:node:edge-1"], sorted(HUB)))
        self.assertEqual(list(usage), [ExtendedKeyUsageOID.CLIENT_AUTH])

        private = key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        node = self.client(Identity(pem, private))
        await self.ask_for(node, "serve", pkcs10("system:node:edge-1", NODES, ["127.0.0.1", "169.254.2.1"]), serving=True)
        serving = x509.load_pem_x509_certificate(await self.issued(node, "serve"))
        alternatives = serving.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(sorted(map(str, alternatives.get_values_for_type(x509.IPAddress))), ["127.0.0.1", "169.254.2.1"])
        await self.ask_for(node, "renew", pkcs10("system:node:edge-1", HUB))
        self.assertTrue(await self.issued(node, "renew"))

        await self.ask_for(bootstrapper, "again", pkcs10("system:node:edge-1", HUB))
        await self.ask_for(bootstrapper, "tunnel", pkcs10("tunnel-proxy-client", ["openyurt:yurttunnel"]))
        admin = self.client(self.plane.authority.issue("watcher", "watcher", ["system:masters"]))

        def told(events: Document) -> dict[str, str] | None:
            about = {one["involvedObject"]["name"]: one["message"] for one in events["items"] if one["reason"] == "NotApproved"}
            return about if {"again", "tunnel"} <= set(about) else None

        said = await self.until(admin, "/api/v1/namespaces/default/events", told)
        self.assertIn("join has been granted for this node", said["again"])
        self.assertIn("system:bootstrap:abcdef asks for it", said["tunnel"])
        for name in ("again", "tunnel"):
            self.assertEqual((await admin.ask("GET", f"{requests_path('v1')}/{name}")).json["status"], {})
        self.assertIn("NotApproved", self.plane.kubectl("describe", "csr", "again"))

        self.daemon.stop()
        lease = f"/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{USER}"
        self.assertNotIn("holderIdentity", (await admin.ask("GET", lease)).json["spec"])
        self.assertNotIn("Traceback", self.daemon.tail(100_000))

    async def test_two(self) -> None:
        """
        Of two one leads.  When that one freezes the other takes over, and when it thaws it knows that it leads no more; when the
        API server was away requests are approved all the same, by one of them and once.
        """
        bootstrapper = self.client(token=TOKEN)
        await self.ask_for(bootstrapper, "first", pkcs10("system:node:edge-1", HUB))
        await self.issued(bootstrapper, "first")
        leader, self.daemon = self.daemon, self.start_daemon("ycm-2")
        self.addCleanup(leader.send, signal.SIGCONT)
        leader.send(signal.SIGSTOP)
        await self.ask_for(bootstrapper, "frozen", pkcs10("system:node:edge-2", HUB))
        await self.issued(bootstrapper, "frozen")
        self.plane.stop_apiserver(signal.SIGKILL)
        leader.send(signal.SIGCONT)
        self.plane.start_apiserver()
        bootstrapper = self.client(token=TOKEN)
        await self.ask_for(bootstrapper, "restarted", pkcs10("system:node:edge-3", HUB))
        await self.issued(bootstrapper, "restarted")
        self.assertIn("not leading any more", leader.tail(100_000))
        admin = self.client(self.plane.authority.issue("watcher", "watcher", ["system:masters"]))
        for name in ("first", "frozen", "restarted"):
            status = (await admin.ask("GET", f"{requests_path('v1')}/{name}")).json["status"]
            self.assertEqual([one["type"] for one in status["conditions"]], ["Approved"])
        self.assertNotIn("Traceback", leader.tail(100_000))

    def holder(self, common_name: str, *organizations: str) -> KubeClient:
        """
        Somebody with a certificate of the cluster's.
        """
        return self.client(self.plane.authority.issue(common_name.replace(":", "-"), common_name, organizations))

    async def test_hostile(self) -> None:
        """
        Of many requests that want more than is their due none is approved, whatever the API server takes, and an Event tells of
        each that looks like one of ours; who asks properly among them is served.
        """
        token, node = self.client(token=TOKEN), self.holder("system:node:edge-1", *HUB)
        other, agent = self.holder("system:node:edge-2", *NODES), self.holder("tunnel-agent-client", *TUNNEL)
        binding = ("clusterrolebinding", "agents", "--clusterrole=system:node-bootstrapper", f"--group={TUNNEL[0]}")
        self.plane.kubectl("create", *binding)
        hub, mail = "system:node:edge-1", x509.RFC822Name("root@example.com")
        both = [*CLIENT_USAGES, "server auth"]
        hostile: dict[str, tuple[KubeClient, bytes, dict[str, Any]]] = {
            "more-groups": (token, pkcs10(hub, [*HUB, "system:authenticated"]), {}),
            "tenants": (token, pkcs10(hub, ["openyurt:tenant:a", "openyurt:tenant:b"]), {}),
            "renewal-for-another": (other, pkcs10(hub, HUB), {}),
            "new-tenant": (node, pkcs10(hub, [*HUB, "openyurt:tenant:a"]), {}),
            "client-with-names": (token, pkcs10(hub, HUB, ["kubernetes"]), {}),
            "client-with-mail": (token, pkcs10(hub, HUB, other_names=[mail]), {}),
            "client-that-serves": (token, pkcs10(hub, HUB), {"usages": both}),
            "tunnel-server": (token, pkcs10("tunnel-proxy-client", TUNNEL), {}),
            "tunnel-server-by-node": (node, pkcs10("tunnel-proxy-client", TUNNEL), {}),
            "tunnel-server-by-agent": (agent, pkcs10("tunnel-proxy-client", TUNNEL), {}),
            "agent-for-another": (other, pkcs10("tunnel-agent-client", TUNNEL, [NODE]), {}),
            "agent-by-agent": (agent, pkcs10("tunnel-agent-client", TUNNEL, [NODE]), {}),
            "agent-of-two": (node, pkcs10("tunnel-agent-client", TUNNEL, [NODE, "edge-2"]), {}),
            "serving-by-token": (token, pkcs10(hub, NODES, ["127.0.0.1"]), {"serving": True}),
            "serving-for-another": (node, pkcs10(hub, NODES, ["10.0.0.9"]), {"serving": True}),
            "serving-the-api": (node, pkcs10(hub, NODES, ["kubernetes.default.svc"]), {"serving": True}),
            "serving-a-uri": (
                node,
                pkcs10(hub, NODES, ["127.0.0.1"], other_names=[x509.UniformResourceIdentifier("spiffe://a/b")]),
                {"serving": True},
            ),
            "serving-as-tunnel": (node, pkcs10("system:node:tunnel-server", NODES, ["x"]), {"serving": True}),
            "two-meanings": (node, two_meanings("edge-1", "kubernetes.default.svc"), {"serving": True}),
        }
        for name, (client, pem, more) in hostile.items():
            await self.ask_for(client, name, pem, **more)
        await self.ask_for(node, "renew", pkcs10(hub, HUB))
        self.assertTrue(await self.issued(node, "renew"))
        await self.ask_for(token, "agent", pkcs10("tunnel-agent-client", TUNNEL, ["edge-3"]))
        self.assertTrue(await self.issued(token, "agent"))
        admin = self.client(self.plane.authority.issue("watcher", "watcher", ["system:masters"]))

        def all_told(events: Document) -> bool:
            return set(hostile) <= {one["involvedObject"]["name"] for one in events["items"] if one["reason"] == "NotApproved"}

        await self.until(admin, "/api/v1/namespaces/default/events", all_told)
        for name in hostile:
            self.assertEqual((await admin.ask("GET", f"{requests_path('v1')}/{name}")).json["status"], {}, name)
        # What the approver saw through: a signer takes the other names.
        self.plane.kubectl("certificate", "approve", "two-meanings")
        signed = x509.load_pem_x509_certificate(await self.issued(node, "two-meanings"))
        names = signed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.DNSName), ["kubernetes.default.svc"])
