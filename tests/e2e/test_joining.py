"""
A node that joins with a token and nothing else, and lives on certificates of seconds.
"""

from __future__ import annotations

import re
import signal
import time
from datetime import datetime, timezone
from functools import partial

from tests.certs import issue, make_ca

from .apiserver import APIServer, key_pem
from .case import Follower
from .cluster import ADMIN
from .curl import Answer
from .joining import GROUP_OF_NODE, LIFE, LONGER_LIFE, PORT, TOKEN, TOKEN_OF_NODE, JoiningCase, bootstrap_token, cluster_info
from .pods import pod
from .process import E2EError, Process, wait_for

TICK = "i=0; while true; do echo tick $i; i=$((i+1)); sleep 1; done"
TICKS = re.compile(r"^tick (\d+)$", re.MULTILINE)
ROTATED = (
    "system:node:edge-1 kube-apiserver-client",
    "system:node:edge-1 kubelet-serving",
    "tunnel-agent-client kube-apiserver-client",
    "tunnel-proxy-client kube-apiserver-client",
    "system:node:tunnel-server kubelet-serving",
)
"""All that rotate, by common name and signer."""


def ticks(follower: Follower) -> list[int]:
    """
    The numbers that were told, all but a half one.
    """
    return [int(number) for number in TICKS.findall(follower.text)]


class JoinTests(JoiningCase):
    """
    From an empty folder to a node that works, and what may happen to it then.
    """

    def test_from_nothing(self) -> None:
        """
        One token and no copied file: the requests of hub and agent are approved, the node is Ready, exec goes through the tunnel.
        Then all certificates of hub, agent and tunnel server follow each other under a watch through the hub, logs and exec
        through the tunnel: none is cut and nothing is missing, and what begins meanwhile works.
        """
        cluster = self.cluster
        self.start_approver()
        server = self.start_tunnel_server(self.keys.file("ca.crt"))
        agent, hub = self.start_agent(), self.start_hub()
        self.wait_until_joined()
        self.assertFalse(self.token.exists())
        self.start_kubelet()
        wait_for("the agent's connection", self.agent_is_connected)
        self.make_pods(self.web_pod(), pod("talker", cluster.node.name, TICK, host_network=True))
        self.assertEqual(cluster.kubectl("exec", "web", "--", "hostname").strip(), "web")

        watch = self.follow(cluster.hub_kubectl_command("get", "configmaps", "--watch", "-o", "name"))
        logs = self.follow(cluster.plane.kubectl_command("logs", "-f", "talker"))
        session = self.follow(cluster.plane.kubectl_command("exec", "web", "--", "sh", "-c", TICK))
        session.wait_for("tick 1\n")
        before = {what: len(found) for what, found in self.certificates().items()}
        began = datetime.now(timezone.utc)

        def all_followed() -> bool:
            now = self.certificates()
            self.assertEqual(cluster.kubectl("exec", "web", "--", "hostname").strip(), "web")
            cluster.hub_kubectl("get", "node", cluster.node.name)
            self.assertEqual(self.by_https("/version").status, 200)
            outlived = datetime.now(timezone.utc) - began
            return outlived.total_seconds() > LIFE and all(len(now[what]) >= before[what] + 2 for what in ROTATED)

        wait_for("two more of each certificate", all_followed, 6 * LIFE, every=1)
        cluster.kubectl("create", "configmap", "after-rotation")
        self.addCleanup(cluster.kubectl, "delete", "configmap", "after-rotation")
        watch.wait_for("after-rotation")
        for follower in (logs, session):
            last = ticks(follower)[-1]
            follower.wait_for(f"tick {last + 2}\n")
            self.assertEqual(ticks(follower), list(range(len(ticks(follower)))))
        self.assertEqual([one.ended for one in (watch, logs, session)], [False] * 3)
        self.assertTrue(cluster.node_is_ready())
        for process in (hub, agent, server):
            process.check()
            said = process.log.read_text(errors="replace")
            self.assertNotIn(TOKEN, said)
            self.assert_no_trouble(said, process.name)

    def by_https(self, path: str) -> Answer:
        """
        What the node's components get at the HTTPS door, verified by the cluster's CA.
        """
        authority = ["--cacert", self.cluster.plane.authority.file("ca.crt")]
        return self.cluster.ask_hub(path, base="https://127.0.0.1:10268", extra=authority)

    def test_comes_back(self) -> None:
        """
        A denied request and a torn certificate are told and got over; past its expiry without the cloud the hub serves its cache
        and says so, and comes back by a token that is handed in; with its certificate lost while the node is Ready, by kubelet's
        certificate, or by a token made for the node; by another token not, and it is told why.
        """
        cluster = self.cluster
        hub = self.start_hub()
        self.wait_until_hub_says("pending since")
        [name] = cluster.kubectl("get", "csr", "-o", "name").split()
        cluster.kubectl("certificate", "deny", name)
        self.wait_until_hub_says("denied: KubectlDeny")
        self.start_approver()
        hub.send(signal.SIGHUP)
        self.wait_until_joined()

        hub.stop()
        pem = self.root / "pki/yurthub-current.pem"
        pem.write_bytes(pem.read_bytes()[:300])
        cluster.kubectl("delete", "csr", "--all")
        self.token.write_text(TOKEN)
        hub = self.start_hub()
        self.wait_until_joined()
        wait_for("an answer of the cloud", self.is_answered)
        self.assertFalse(self.token.exists())

        cluster.cut()
        self.wait_until_hub_says("expired at")
        self.assertLess(self.hub_metric("certificate_expiry_seconds"), 0)
        answer = cluster.ask_hub("/api/v1/namespaces")
        self.assertEqual((answer.headers["x-yurt-source"], "default" in answer.names), ("cache", True))
        self.assertEqual(cluster.ask_hub("/v1/healthz", base=ADMIN).body, "OK")
        cluster.heal()
        self.wait_until_hub_says("there is no token")
        self.assertEqual(self.hand_in(TOKEN), 200)
        self.wait_until_joined()
        wait_for("an answer of the cloud", self.is_answered)
        self.assertGreater(self.hub_metric("certificate_expiry_seconds"), 0)

        self.start_kubelet(cluster.node.cloud_kubeconfig)
        self.lose_certificate()
        self.start_hub(around=self.with_kubelet_certificate())
        self.wait_until_joined()

        self.lose_certificate()
        self.token.write_text(TOKEN)
        hub = self.start_hub()
        wait_for("an Event", lambda: "Node edge-1 lives" in self.events_about("NotApproved"))
        self.assertIn("pending since", self.readiness())
        self.apply_here(bootstrap_token(TOKEN_OF_NODE, GROUP_OF_NODE))
        self.assertEqual(self.hand_in(TOKEN_OF_NODE), 200)
        self.wait_until_joined()
        self.assertTrue(cluster.node_is_ready())
        for token in (TOKEN, TOKEN_OF_NODE):
            self.assertNotIn(token, hub.log.read_text(errors="replace"))

    def lose_certificate(self) -> None:
        """
        The hub ends, and its certificate is gone.
        """
        self.cluster.node.stop("yurthub")
        (self.root / "pki/yurthub-current.pem").unlink()

    def test_other_authority(self) -> None:
        """
        The cluster's CA is exchanged by way of one that has both: hub and agent follow it, are verified by it, and verify by it,
        and the old one is trusted no more in the end.
        """
        plane, new = self.cluster.plane, make_ca("kubernetes-2")
        old_pem, new_pem = self.keys.ca.cert_pem, new.cert_pem
        trusted = self.write_authority("trusted.crt", old_pem)
        self.write_authority("next.crt", new_pem)
        self.write_authority("next.key", key_pem(new.key))
        self.start_signer("ca", LONGER_LIFE)
        self.start_approver()
        self.start_tunnel_server(trusted)
        hub, agent = self.start_hub(), self.start_agent()
        self.wait_until_joined()
        self.apply_here({"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.cluster.node.name}})
        wait_for("the agent's connection", self.agent_is_connected)

        self.trust(old_pem + new_pem, hub, agent)
        self.write_authority("trusted.crt", old_pem + new_pem)
        identity = issue(new, "kube-apiserver", [], [], [plane.address])
        certificate = self.write_authority("next-apiserver.crt", identity.cert_pem)
        key = self.write_authority("next-apiserver.key", identity.key_pem)
        self.start_signer("next", LONGER_LIFE)
        self.restart_apiserver("--client-ca-file", trusted, "--tls-cert-file", certificate, "--tls-private-key-file", key)
        files = [self.root / "pki/yurthub-current.pem", self.root / "agent/yurttunnel-agent-current.pem"]
        files.append(self.cluster.folder / "tunnel-pki/yurttunnel-server-current.pem")
        for path in files:
            wait_for(f"{path.name} of the new CA", partial(self.is_of, path, "CN=kubernetes-2"), 2 * LONGER_LIFE, every=0.5)
        self.wait_until_joined()

        self.trust(new_pem, hub, agent)
        self.write_authority("trusted.crt", new_pem)
        options = ("--client-ca-file", self.keys.file("next.crt"), "--tls-cert-file", certificate, "--tls-private-key-file", key)
        self.restart_apiserver(*options)
        wait_for("an answer of the cloud", self.is_answered)
        agent.stop()
        self.start_agent()
        wait_for("the agent's connection", self.agent_is_connected)
        self.assertNotIn("-----BEGIN", hub.log.read_text(errors="replace"))

    def is_answered(self) -> bool:
        answer = self.cluster.ask_hub("/api/v1/namespaces", timeout=5)
        if (answer.status, answer.headers.get("x-yurt-source")) != (200, "cloud"):
            raise E2EError(str(answer))
        return True

    def trust(self, pem: bytes, hub: Process, agent: Process) -> None:
        """
        Let the cluster name these CAs, and the daemons look at once instead of some time.
        """
        self.cluster.apply(cluster_info(pem, self.server)[0])
        file = self.root / "pki/ca.crt"

        def follows() -> bool:
            hub.send(signal.SIGHUP)
            time.sleep(0.5)
            return file.read_bytes() == pem

        wait_for("the hub to trust what the cluster names", follows)
        agent.send(signal.SIGHUP)

    def restart_apiserver(self, *options: str) -> None:
        """
        Run the apiserver to join at with other certificates.
        """
        self.apiserver.stop()
        plane = self.cluster.plane
        command = [*plane.command(PORT, "--enable-bootstrap-token-auth", *options), "--endpoint-reconciler-type", "none"]
        self.apiserver = APIServer("kube-apiserver-joining", command, plane.folder / "log/apiserver-joining.log", plane.namespace)
        wait_for("a ready apiserver", self.apiserver_answers)
