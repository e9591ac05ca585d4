"""
Tests of an agent that asks for its certificate.
"""

from __future__ import annotations

import base64
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography import x509
from twisted.internet import reactor as global_reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from tests.certs import make_ca
from tests.hub.site import until
from tests.miniapi import MiniAPI
from tests.miniapi.signing import Signer, invite
from yurt.kube.bootstrap import ca_hash
from yurt.kube.csr import enrolment, service
from yurt.kube.csr.renewal import ANNOTATION, read_renewed
from yurt.kube.joining import JoinSettings
from yurt.tls import Credentials
from yurt.tunnel.agent import certificate as agent_certificate
from yurt.tunnel.agent.config import AgentConfig
from yurt.tunnel.agent.service import TunnelAgent
from yurt.tunnel.hello import node_of

reactor: Any = global_reactor
NODE = "edge-1"
TOKEN = "abcdef.0123456789abcdef"


class Listener(Factory):
    """
    A server that counts who dials.
    """

    noisy = False
    protocol = Protocol

    def __init__(self) -> None:
        self.dials = 0

    def buildProtocol(self, addr: Any) -> Any:
        self.dials += 1
        return super().buildProtocol(addr)


class CertificateTests(TestCase):
    """
    From a kubeconfig to a link's certificate.
    """

    def setUp(self) -> None:
        self.addCleanup(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))
        self.api = MiniAPI(reactor)
        self.api.start()
        self.addCleanup(self.api.stop)
        self.signer = Signer(self.api)
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.kubeconfig = self.folder / "kubelet.conf"
        self.listener = Listener()
        port = reactor.listenTCP(0, self.listener, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.config = AgentConfig(
            NODE,
            (("127.0.0.1", port.getHost().port),),
            Credentials(),
            kubeconfig=str(self.kubeconfig),
            cert_dir=str(self.folder / "pki"),
            node_ips=("10.0.0.8",),
            meta_port=0,
            drain_timeout=0.0,
        )

    def on_a_new_node(self) -> Path:
        """
        Neither hub nor kubelet has anything that speaks for the node: there is a token in the file that is answered.
        """
        invite(self.api, TOKEN)
        hub = str((self.folder / "yurthub.conf").resolve())
        self.patch(agent_certificate, "NODE_KUBECONFIGS", (hub, "/none"))
        token = (self.folder / "token").resolve()
        token.write_text(TOKEN)
        join = JoinSettings((self.api.url,), str(token), ca_hashes=frozenset({ca_hash(self.api.ca.certificate)}))
        self.config = replace(self.config, kubeconfig=None, join=join)
        return token

    def start(self) -> TunnelAgent:
        agent = TunnelAgent(reactor, self.config)
        agent.startService()
        self.addCleanup(lambda: agent.stopService() if agent.running else None)
        return agent

    def write_kubeconfig(self) -> None:
        self.api.write_kubeconfig(self.kubeconfig, f"system:node:{NODE}", "system:nodes")

    async def test_first(self) -> None:
        """
        No server is dialled before there is a certificate; readiness says for what it waits; then the agent dials with one that
        names its node.
        """
        self.write_kubeconfig()
        agent = self.start()
        await until(lambda: len(self.signer.pending) == 1)
        name = self.signer.pending[0]
        await until(lambda: any(f"CSR {name} pending since" in reason for reason in agent.problems))
        self.assertFalse(agent.readiness()[0])
        self.assertEqual(self.listener.dials, 0)
        os.kill(os.getpid(), signal.SIGHUP)
        self.signer.issue(name)
        await until(lambda: self.listener.dials > 0)
        pem = (self.folder / "pki/yurttunnel-agent-current.pem").read_bytes()
        certificate = x509.load_pem_x509_certificates(pem)[0]
        self.assertEqual(node_of(certificate), NODE)
        spec = self.signer.requests[0]["spec"]
        self.assertEqual((spec["username"], spec["usages"][-1]), (f"system:node:{NODE}", "client auth"))
        self.assertEqual(certificate.subject.rfc4514_string(), "CN=tunnel-agent-client,O=openyurt:yurttunnel")
        self.assertGreater(agent.figures().certificate_expires_in or 0, 3000)
        status: Any = agent.status()["certificate"]
        self.assertEqual(status["state"], "issued")

    async def test_later(self) -> None:
        """
        A kubeconfig that is not there yet keeps nothing from starting, and is found when it comes.
        """
        agent = self.start()
        await until(lambda: "cannot read" in str(agent.status()["certificate"]))
        self.assertIn("cannot read", agent.problems[0])
        self.write_kubeconfig()
        agent.retry()
        await until(lambda: len(self.signer.pending) == 1)

    async def test_restart(self) -> None:
        """
        With a certificate on disk it dials at once, without the cloud, if it knows the CA.
        """
        self.write_kubeconfig()
        agent = self.start()
        await until(lambda: len(self.signer.pending) == 1)
        self.signer.issue(self.signer.pending[0])
        await until(lambda: self.listener.dials > 0)
        await agent.stopService()
        await self.api.refuse()
        before = self.listener.dials
        self.start()
        await until(lambda: self.listener.dials > before)

    async def test_authority(self) -> None:
        """
        Another CA in the kubeconfig is used for the links to come.
        """
        self.write_kubeconfig()
        agent = self.start()
        certificate = agent.certificate
        assert certificate is not None
        self.assertEqual(certificate.credentials().ca_data, self.api.ca.cert_pem)
        document = self.kubeconfig.read_text()
        other = make_ca()
        self.api.ca = other
        self.write_kubeconfig()
        self.assertNotEqual(self.kubeconfig.read_text(), document)
        certificate._look()
        self.assertEqual(certificate.credentials().ca_data, other.cert_pem)

    async def test_token(self) -> None:
        """
        On a new node a token brings the CA and the certificate, is shown to no server that the pin does not vouch for, and is
        gone then; a restart needs neither token nor cloud.
        """
        token = self.on_a_new_node()
        agent = self.start()
        await until(lambda: len(self.signer.pending) == 1)
        self.assertEqual(self.signer.requests[0]["spec"]["username"], "system:bootstrap:abcdef")
        self.assertEqual(self.listener.dials, 0)
        self.signer.issue(self.signer.pending[0])
        await until(lambda: self.listener.dials > 0)
        self.assertFalse(token.exists())
        modes = {one.name: one.stat().st_mode & 0o777 for one in (self.folder / "pki").iterdir()}
        self.assertEqual(modes, {"yurttunnel-agent-current.pem": 0o600, "ca.crt": 0o600})
        await agent.stopService()
        await self.api.refuse()
        before = self.listener.dials
        again = self.start()
        await until(lambda: self.listener.dials > before)
        self.assertIsNone(again.certificate and again.certificate.problem)

    async def test_hub(self) -> None:
        """
        Where the node's hub has joined, the agent asks in the node's name, and leaves the token to others; it waits for the hub
        if it has to, and says so.
        """
        token = self.on_a_new_node()
        token.unlink()
        agent = self.start()
        await until(lambda: "there is nobody to ask as" in str(agent.problems))
        self.api.write_kubeconfig(self.folder / "yurthub.conf", f"system:node:{NODE}", "system:nodes")
        token.write_text(TOKEN)
        agent.retry()
        await until(lambda: len(self.signer.pending) == 1)
        self.assertEqual(self.signer.requests[0]["spec"]["username"], f"system:node:{NODE}")

    async def test_hub_comes_later(self) -> None:
        """
        A hub that joins after the agent was started brings the CA, too: the agent dials as soon as it has its certificate.
        """
        self.on_a_new_node().unlink()
        agent = self.start()
        await until(lambda: "there is nobody to ask as" in str(agent.problems))
        self.signer.issue_always()
        self.api.write_kubeconfig(self.folder / "yurthub.conf", f"system:node:{NODE}", "system:nodes")
        await until(lambda: self.listener.dials > 0)

    def renew_soon(self) -> None:
        """
        Certificates are renewed a second or two after they were issued, and last far longer than a slow machine needs for that.
        """
        self.signer.seconds = 60.0
        self.patch(enrolment, "ROTATE_FROM", 0.01)
        self.patch(enrolment, "ROTATE_TO", 0.03)

    async def test_renewal(self) -> None:
        """
        The certificate that a token brought is followed by one that the node asks for: its own names no node to the API server.
        """
        self.renew_soon()
        self.on_a_new_node()
        self.start()
        await until(lambda: len(self.signer.pending) == 1)
        self.api.write_kubeconfig(self.folder / "yurthub.conf", f"system:node:{NODE}", "system:nodes")
        self.signer.issue(self.signer.pending[0])
        await until(lambda: len(self.signer.requests) == 2)
        self.assertEqual(self.signer.requests[1]["spec"]["username"], f"system:node:{NODE}")

    async def test_renews_itself(self) -> None:
        """
        With neither hub nor kubelet to ask the agent does, and shows the certificate that is to be followed, not its key; a
        token that has served is not needed again, also after a restart.
        """
        self.renew_soon()
        token = self.on_a_new_node()
        self.signer.issue_always()
        agent = self.start()
        await until(lambda: len(self.signer.requests) >= 3)
        self.assertFalse(token.exists())
        for request in self.signer.requests[1:3]:
            self.assertEqual(request["spec"]["username"], "tunnel-agent-client")
            text = request["metadata"]["annotations"][ANNOTATION]
            self.assertNotIn("PRIVATE", text)
            shown = read_renewed(text, base64.b64decode(request["spec"]["request"]))
            assert shown is not None
            issued = shown.certificate.not_valid_before_utc.timestamp()
            self.assertEqual((shown.dns, shown.flaw([self.api.ca.certificate], issued)), ((NODE,), ""))
        await agent.stopService()
        known = len(self.signer.requests)
        self.start()
        await until(lambda: len(self.signer.requests) > known)

    async def test_left_alone(self) -> None:
        """
        A request that nobody approves is not the last word where there is another way: the node asks by a request of its own.
        """
        self.patch(service, "OTHER_WAY_TIMEOUT", 0.5)
        self.on_a_new_node()
        bad = self.folder / "yurthub.conf"
        bad.write_text("torn")
        self.start()
        await until(lambda: len(self.signer.pending) == 1)
        self.assertEqual(self.signer.requests[0]["spec"]["username"], "system:bootstrap:abcdef")
        self.api.write_kubeconfig(bad, f"system:node:{NODE}", "system:nodes")
        await until(lambda: len(self.signer.pending) == 2)
        second = self.signer.requests[-1]
        self.assertEqual(second["spec"]["username"], f"system:node:{NODE}")
        self.signer.issue(second["metadata"]["name"])
        await until(lambda: self.listener.dials > 0)
