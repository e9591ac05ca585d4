"""
Tests of what the approver of certificates decides.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.trial.unittest import SynchronousTestCase

from tests.certs import Authority, issue, make_ca
from tests.controllers.asking import (
    ADMIN,
    AGENT_USER,
    BOOTSTRAPPER,
    HUB,
    KUBELET_USER,
    NODE,
    NODE_USER,
    NODES,
    OTHER_NODE,
    SERVER_ACCOUNT,
    SERVER_USER,
    TUNNEL,
    encoded,
    named_twice,
    node,
    pkcs10,
    request,
    two_meanings,
)
from yurt.controllers.controller import CREATE, UPDATE, Observed, Outcome, Write
from yurt.controllers.csrapprover import NODES_KNOWN, REQUESTS, Site, reconcile
from yurt.controllers.signing import MAX_OBJECT_BYTES, read_node, read_request
from yurt.kube.csr.renewal import ANNOTATION, renews

NOW = 1_800_000_000.0
"""The time of day, 2027: a certificate made by these tests lasts until long before it, unless it is told otherwise."""
CA = make_ca("approver")
SITE = Site(frozenset({"169.254.2.1"}), lambda: [CA.certificate])

Document = dict[str, Any]


def hub(asker: Any = BOOTSTRAPPER, organizations: Sequence[str] = HUB, names: Sequence[str] = (), **more: Any) -> Document:
    """
    A hub's request for its client certificate.
    """
    return request(pkcs10(more.pop("common_name", "system:node:edge-1"), organizations, names), asker, **more)


def serving(asker: Any = NODE_USER, names: Sequence[str] = ("127.0.0.1", "169.254.2.1"), **more: Any) -> Document:
    """
    A hub's request for its serving certificate.
    """
    pem = pkcs10(more.pop("common_name", "system:node:edge-1"), more.pop("organizations", NODES), names)
    return request(pem, asker, serving=True, **more)


def agent(asker: Any = KUBELET_USER, names: Sequence[str] = ("edge-1",), **more: Any) -> Document:
    """
    An agent's request.
    """
    return request(pkcs10("tunnel-agent-client", more.pop("organizations", TUNNEL), names), asker, **more)


def proxy(asker: Any = SERVER_USER, names: Sequence[str] = (), **more: Any) -> Document:
    """
    The tunnel server's request for a client certificate.
    """
    return request(pkcs10("tunnel-proxy-client", more.pop("organizations", TUNNEL), names), asker, **more)


def server(asker: Any = SERVER_USER, names: Sequence[str] = ("tunnel.example.com", "203.0.113.7"), **more: Any) -> Document:
    """
    The tunnel server's request for its serving certificate.
    """
    return serving(asker, names, common_name="system:node:tunnel-server", **more)


def request_with(private: CertificateIssuerPrivateKeyTypes, common_name: str, organizations: Sequence[str]) -> bytes:
    """
    A request with another kind of key.
    """
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, one) for one in organizations]
    name = x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    algorithm = None if isinstance(private, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return x509.CertificateSigningRequestBuilder().subject_name(name).sign(private, algorithm).public_bytes(Encoding.PEM)


def serving_of(pem: bytes) -> Document:
    """
    A node's request for a certificate to serve with.
    """
    return request(pem, NODE_USER, serving=True)


class DecisionCase(SynchronousTestCase):
    """
    Objects go in, writes come out.
    """

    def decide(self, *documents: Document, now: float = NOW) -> dict[str, Outcome]:
        """
        The outcome of each key of work.
        """
        seen = Observed()
        for document in documents:
            name = document["metadata"]["name"]
            if document["kind"] == "Node":
                seen.change(NODES_KNOWN, name, None, read_node(encoded(document)))
            else:
                seen.change(REQUESTS, name, None, read_request(encoded(document)))
        return {key: reconcile(SITE, key, seen, now) for key in sorted(seen.work())}

    def writes(self, *documents: Document) -> list[Write]:
        return [write for outcome in self.decide(*documents).values() for write in outcome.writes]

    def approved(self, *documents: Document) -> list[str]:
        """
        The messages of the approvals.
        """
        writes = [write for write in self.writes(*documents) if write.what == "approve"]
        return [write.document["status"]["conditions"][-1]["message"] for write in writes]

    def refused(self, *documents: Document) -> list[str]:
        """
        What the Events say.
        """
        writes = [write for write in self.writes(*documents) if write.what == "event"]
        return [str(write.document["message"]).removeprefix("left for people to decide: ") for write in writes]


READY = node("edge-1", "192.168.1.2", "edge-1")
OTHER_TOKEN = ("system:bootstrap:fedcba", BOOTSTRAPPER[1])
TOKEN_OF_NODE = ("system:bootstrap:abcdef", [*BOOTSTRAPPER[1], "system:bootstrappers:node:edge-1"])
LOST = node("edge-1", "192.168.1.2", ready="Unknown", since=NOW - 600)

APPROVED: dict[str, tuple[list[Document], str]] = {
    "a bootstrapper for a node that is not there": ([hub()], "yurthub node client"),
    "a bootstrapper with a tenant": ([hub(organizations=[*HUB, "openyurt:tenant:a"])], "yurthub node client"),
    "a bootstrapper for a node that was lost": ([hub(), LOST], "yurthub node client"),
    "a bootstrapper for a node of which nothing is known": ([hub(), node(ready="")], "yurthub node client"),
    "a token made for a node that lives": ([hub(TOKEN_OF_NODE), READY], "yurthub node client"),
    "a token made for a node that has just joined": (
        [hub(TOKEN_OF_NODE), hub(NODE_USER, name="first", conditions=["Approved"]), READY], "yurthub node client",
    ),
    "an agent by the token that has just joined its node": (
        [agent(BOOTSTRAPPER), hub(name="first", conditions=["Approved"]), READY], "tunnel-agent client",
    ),
    "a renewal": ([hub(NODE_USER), READY], "yurthub node client"),
    "a renewal with the tenant that it has": (
        [hub((NODE_USER[0], [*NODE_USER[1], "openyurt:tenant:a"]), [*HUB, "openyurt:tenant:a"])], "yurthub node client",
    ),
    "kubelet's identity": ([hub(KUBELET_USER), READY], "yurthub node client"),
    "a key that enciphers nothing": ([hub(usages=["client auth", "digital signature"])], "yurthub node client"),
    "pods' and loopback address before there is a Node": ([serving()], "openyurt tls server"),
    "all names of a node": (
        [serving(names=["127.0.0.1", "127.0.0.53", "::1", "localhost", "169.254.2.1", "edge-1", "192.168.1.2"]), READY],
        "openyurt tls server",
    ),
    "an IPv6 address however it is written": (
        [serving(names=["2001:db8::1"]), node("edge-1", "2001:0db8:0:0::1")], "openyurt tls server",
    ),
    "an agent by its node": ([agent()], "tunnel-agent client"),
    "an agent with the node's address": ([agent(names=["edge-1", "192.168.1.2"]), READY], "tunnel-agent client"),
    "an agent by a bootstrapper": ([agent(BOOTSTRAPPER)], "tunnel-agent client"),
    "the tunnel server by its user": ([proxy()], "tunnel-server proxy client"),
    "the tunnel server by its account": ([proxy(SERVER_ACCOUNT)], "tunnel-server proxy client"),
    "what the tunnel server serves": ([server()], "tunnel-server tls server"),
    "what the tunnel server serves, by its account": ([server(SERVER_ACCOUNT)], "tunnel-server tls server"),
}  # fmt: skip

NEW_TENANT = [*HUB, "openyurt:tenant:a"]
ELSEWHERE = (["openyurt:yurthub", "system:nodes", "system:masters"], ["openyurt:tenant:a", "openyurt:tenant:b"])
REFUSED: dict[str, tuple[list[Document], str]] = {
    # who asks
    "a stranger": ([hub(ADMIN)], "kubernetes-admin asks for it; only system:node:edge-1 and bootstrap tokens may"),
    "another node": ([hub(OTHER_NODE)], "system:node:edge-2 asks for it"),
    "the name of the node without its group": ([hub((NODE_USER[0], ["system:authenticated"]))], "system:node:edge-1 asks"),
    "a bootstrapper for a node whose kubelet says that it is not Ready": ([hub(), node(ready="False")], "Node edge-1 lives"),
    "a bootstrapper for a living node": ([hub(), READY], "Node edge-1 lives"),
    "an agent by another token than the one that has just joined its node": (
        [agent(OTHER_TOKEN), hub(name="first", conditions=["Approved"]), READY], "Node edge-1 lives",
    ),
    "a hub by the token that brought the agent": (
        [hub(), agent(BOOTSTRAPPER, name="first", conditions=["Approved"]), READY], "Node edge-1 lives",
    ),
    "a token made for another node": (
        [hub(("system:bootstrap:abcdef", ["system:bootstrappers", "system:bootstrappers:node:edge-2"]))],
        "system:bootstrap:abcdef is a token of group system:bootstrappers:node:edge-2, for that node alone",
    ),
    "the group of a node's token without that of tokens": (
        [hub(("mallory", ["system:bootstrappers:node:edge-1"]))], "mallory asks for it",
    ),
    "a tenant that the node has not": ([hub(NODE_USER, NEW_TENANT)], "does not belong to openyurt:tenant:a"),
    "a serving certificate by a bootstrapper": ([serving(BOOTSTRAPPER)], "only system:node:edge-1 may"),
    "a serving certificate by another node": ([serving(OTHER_NODE)], "only system:node:edge-1 may"),
    "a serving certificate by an administrator": ([serving(ADMIN)], "only system:node:edge-1 may"),
    "an agent of another node": ([agent(OTHER_NODE)], "system:node:edge-2 asks for it"),
    "an agent that renews as all agents": ([agent(AGENT_USER)], "tunnel-agent-client asks for it"),
    "an agent by a bootstrapper for a living node": ([agent(BOOTSTRAPPER), READY], "Node edge-1 lives"),
    "the tunnel server's by a bootstrapper": ([proxy(BOOTSTRAPPER)], "system:bootstrap:abcdef asks for it; only system:service"),
    "the tunnel server's by a node": ([proxy(NODE_USER)], "system:node:edge-1 asks for it"),
    "the tunnel server's by an account elsewhere": (
        [proxy(("system:serviceaccount:default:yurt-tunnel-server", []))], "system:serviceaccount:default:yurt-tunnel-server",
    ),
    "what the tunnel server serves by a bootstrapper": ([server(BOOTSTRAPPER)], "system:bootstrap:abcdef asks for it"),
    "what the tunnel server serves by a node of its name": (
        [server(("system:node:tunnel-server", ["system:nodes"]))], "system:node:tunnel-server asks for it",
    ),
    # for whom
    "a client certificate in the tunnel server's name": (
        [hub(common_name="system:node:tunnel-server")], "system:node:tunnel-server is the tunnel server's name",
    ),
    "an agent of no name of a node": ([agent(BOOTSTRAPPER, ["Tunnel.Server"])], "'Tunnel.Server' is not the name of a"),
    "no node at all": ([hub(common_name="system:node:")], "'' is not the name of a node"),
    "no name of a node": ([hub(common_name="system:node:a b")], "'a b' is not the name of a node"),
    "an agent without a node": ([agent(names=["192.168.1.2"])], "it has 0 DNS names"),
    "an agent of two nodes": ([agent(names=["edge-1", "edge-2"])], "it has 2 DNS names"),
    # organizations
    "a hub of one group only": ([hub(organizations=["system:nodes"])], "its organizations are system:nodes, not"),
    "a hub of tenants only": ([hub(organizations=ELSEWHERE[1])], "its organizations are openyurt:tenant:a, openyurt:tenant:b"),
    "a hub that wants to be master": ([hub(organizations=ELSEWHERE[0])], "its organizations are openyurt:yurthub, system:m"),
    "a serving certificate with more groups": ([serving(organizations=HUB)], "not system:nodes alone"),
    "the same group twice": ([serving(organizations=["system:nodes", "system:nodes"])], "not system:nodes alone"),
    "an agent of another group": ([agent(organizations=["system:masters"])], "not openyurt:yurttunnel alone"),
    "a tunnel server of more groups": ([proxy(organizations=[*TUNNEL, "system:masters"])], "not openyurt:yurttunnel alone"),
    # usages
    "a client that would serve": ([hub(usages=["client auth", "server auth", "digital signature"])], "its usages are client"),
    "a client that would sign": ([hub(usages=["client auth", "digital signature", "cert sign"])], "cert sign"),
    "no usages": ([hub(usages=[])], "its usages are none"),
    "a server that would be a client": (
        [serving(usages=["client auth", "server auth", "digital signature", "key encipherment"])], "not digital signature, key",
    ),
    # names
    "a client with names": ([hub(names=["kubernetes"])], "it is for a client, but has the names kubernetes"),
    "a tunnel client with names": ([proxy(names=["10.0.0.1"])], "it is for a client, but has the names 10.0.0.1"),
    "a serving certificate without names": ([serving(names=[])], "it has neither DNS names nor addresses"),
    "an address of nobody": ([serving(names=["10.0.0.1"])], "10.0.0.1 may be the node's, but there is no Node edge-1 yet"),
    "an address of another node": ([serving(names=["127.0.0.1", "10.0.0.1"]), READY], "10.0.0.1 are not among the addresses of"),
    "the API server's name": ([serving(names=["kubernetes.default.svc"]), READY], "kubernetes.default.svc are not among"),
    "the API server's name as the node's": (
        [serving(names=["kubernetes.default.svc"]), node("edge-1", "kubernetes.default.svc")], "is the API server's name",
    ),
    "a name with an asterisk": ([serving(names=["*.edge-1"]), READY], "*.edge-1 are not among the addresses"),
    "another link-local address": ([serving(names=["169.254.9.9"]), READY], "169.254.9.9 are not among the addresses"),
    "an agent with an address of another node": ([agent(names=["edge-1", "10.0.0.1"]), READY], "10.0.0.1 are not among"),
    "a tunnel server that is the API server": ([server(names=["kubernetes.default.svc.cluster.local"])], "the API server's name"),
    "a tunnel server that is kubernetes": ([server(names=["tunnel", "Kubernetes"])], "Kubernetes is the API server's name"),
    "a tunnel server that is the API server, with a dot": ([server(names=["kubernetes.default."])], "is the API server's name"),
    "a tunnel server that is everything": ([server(names=["*.default.svc"])], "*.default.svc is the API server's name"),
    "a tunnel server without names": ([server(names=[])], "it has neither DNS names nor addresses"),
}  # fmt: skip


class TableTests(DecisionCase):
    """
    Who gets what, and who does not.
    """

    def test_approved(self) -> None:
        """
        Each of our daemons gets its certificate, and nothing is said about it.
        """
        for what, (documents, certificate) in APPROVED.items():
            self.assertEqual(self.approved(*documents), [f"Auto approving {certificate} certificate"], what)
            self.assertEqual(self.refused(*documents), [], what)

    def test_refused(self) -> None:
        """
        What is wrong is left as it is, and one Event says what is wrong.
        """
        for what, (documents, why) in REFUSED.items():
            self.assertEqual(self.approved(*documents), [], what)
            said = self.refused(*documents)
            self.assertEqual(len(said), 1, what)
            self.assertIn(why, said[0], what)

    def test_flaws(self) -> None:
        """
        A PKCS#10 request that holds more than those of our daemons is refused.
        """
        name, oid = "system:node:edge-1", NameOID.ORGANIZATIONAL_UNIT_NAME
        torn = bytearray(x509.load_pem_x509_csr(pkcs10(name, HUB)).public_bytes(Encoding.DER))
        torn[-1] ^= 1
        unsigned = x509.load_der_x509_csr(bytes(torn)).public_bytes(Encoding.PEM)
        for pem, why in (
            (pkcs10(name, HUB, more_subject=[(oid, "x")]), "its subject holds more"),
            (pkcs10(name, HUB, more_subject=[(NameOID.COMMON_NAME, "admin")]), "its subject holds more"),
            (pkcs10("admin", HUB, more_subject=[(NameOID.COMMON_NAME, name)]), "its subject holds more"),
            (pkcs10(name, HUB, extensions=[x509.BasicConstraints(True, None)]), "it asks for extensions"),
            (pkcs10(name, HUB, other_names=[x509.RFC822Name("a@example.com")]), "are not only DNS names and addresses"),
            (pkcs10(name, HUB, other_names=[x509.UniformResourceIdentifier("spiffe://a/b")]), "are not only DNS names"),
            (unsigned, "it is not signed with its own key"),
        ):
            self.assertEqual(self.approved(request(pem, BOOTSTRAPPER)), [])
            self.assertIn(why, self.refused(request(pem, BOOTSTRAPPER))[0])

    def test_named_twice(self) -> None:
        """
        What cannot be read of a request of our daemons is refused with an Event, too.
        """
        for names in (("edge-1", "kubernetes.default.svc"), ("edge-1", "edge-1")):
            self.assertEqual(self.approved(serving_of(named_twice(*names)), READY), [])
            self.assertIn("cannot be read: Duplicate", self.refused(serving_of(named_twice(*names)), READY)[0])
        self.assertEqual(len(self.approved(serving_of(named_twice("edge-1")), READY)), 1)

    def test_other_keys(self) -> None:
        """
        The kind of key is its owner's choice, unless it is a weak one.
        """
        ed25519_key, p384 = ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())
        for good in (rsa.generate_private_key(65537, 2048), ed25519_key, p384):
            pem = request_with(good, f"system:node:{NODE}", HUB)
            self.assertEqual(len(self.approved(request(pem, BOOTSTRAPPER))), 1)
        short, p224 = rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP224R1())
        for weak in (short, p224, dsa.generate_private_key(2048)):
            pem = request_with(weak, f"system:node:{NODE}", HUB)
            self.assertEqual(self.approved(request(pem, BOOTSTRAPPER)), [])
            self.assertIn("its key is none of RSA from 2048 bits on", self.refused(request(pem, BOOTSTRAPPER))[0])

    def test_token_of_a_node(self) -> None:
        """
        Dots of a node's name are colons in the group, which can have none.
        """
        asker = ("system:bootstrap:abcdef", ["system:bootstrappers", "system:bootstrappers:node:edge-1:example:com"])
        name = "edge-1.example.com"
        self.assertEqual(len(self.approved(hub(asker, common_name=f"system:node:{name}"), node(name))), 1)
        self.assertIn("edge-1:example:com, for that node alone", self.refused(hub(asker, common_name="system:node:edge-1"))[0])

    def test_two_meanings(self) -> None:
        """
        What a signer may read otherwise is refused: a second list of names that only it looks at, a second request.
        """
        self.assertIn("attributes beside one", self.refused(serving_of(two_meanings("edge-1", "kubernetes.default.svc")))[0])
        one = pkcs10("system:node:edge-1", HUB)
        other = b"-----BEGIN X-----\nMA==\n-----END X-----\n"
        for pem in (one + one, b"x\n" + one, other + one, one.replace(b"\nMI", b"\nA: b\n\nMI")):
            self.assertEqual(self.approved(request(pem, BOOTSTRAPPER)), [])
            self.assertIn("not one CERTIFICATE REQUEST", self.refused(request(pem, BOOTSTRAPPER))[0])

    def test_without_signer(self) -> None:
        """
        Before Kubernetes 1.18 a request names no signer: its usages do.
        """
        for document, certificate in ((hub(version="v1beta1"), "node client"), (serving(version="v1beta1"), "tls server")):
            del document["spec"]["signerName"]
            self.assertIn(certificate, self.approved(document)[0])
            self.assertIs(read_request(encoded({**document, "apiVersion": "certificates.k8s.io/v1"})), None)

    def test_none_of_ours(self) -> None:
        """
        Requests of others are left without a word.
        """
        for document in (
            request(pkcs10("alice", ["developers"]), ADMIN),
            request(pkcs10("system:node:edge-1", NODES), BOOTSTRAPPER, signer="kubernetes.io/kube-apiserver-client-kubelet"),
            request(pkcs10("system:node:edge-1", HUB), BOOTSTRAPPER, signer="example.com/signer"),
            request(pkcs10("tunnel-proxy-client", TUNNEL), BOOTSTRAPPER, serving=True),
        ):
            self.assertIs(read_request(encoded(document)), None)

    def test_unreadable(self) -> None:
        """
        What cannot be read, or is too large to be ours, is a ValueError: the informer counts it, and goes on.
        """
        large = hub()
        large["metadata"]["annotations"] = {"x": "y" * MAX_OBJECT_BYTES}
        for document in (request(b"nothing", BOOTSTRAPPER), large, {**hub(), "spec": 7}):
            self.assertRaises(ValueError, read_request, encoded(document))


class OnceTests(DecisionCase):
    """
    Tests of a name that a bootstrapper asks for a second time.
    """

    def granted(self, asker: Any = BOOTSTRAPPER, make: Callable[..., Document] = hub, created: float = NOW - 60) -> Document:
        """
        A request that was approved.
        """
        return make(asker, name="first", created=created, conditions=["Approved"])

    def test_taken(self) -> None:
        """
        Nobody gets the certificate of a node for which one has been granted, by whomever it was asked for.
        """
        for asker in (BOOTSTRAPPER, NODE_USER, ("system:bootstrap:fedcba", BOOTSTRAPPER[1])):
            self.assertIn("first has been granted for this node", self.refused(self.granted(asker), hub(created=NOW))[0])

    def test_two_at_once(self) -> None:
        """
        Of two that ask at the same time the first gets it, and the second is told so.
        """
        one = hub(name="one", created=NOW - 2)
        two = hub(("system:bootstrap:fedcba", BOOTSTRAPPER[1]), name="two", created=NOW - 1)
        writes = self.writes(two, one)
        self.assertEqual([write.what for write in writes], ["approve", "event"])
        self.assertEqual(writes[0].document["metadata"]["name"], "one")
        self.assertIn("one has been granted for this node", writes[1].document["message"])

    def test_lost_since(self) -> None:
        """
        A node that was lost after its certificate had been granted may join anew; one that came back meanwhile may not.
        """
        self.assertEqual(len(self.approved(self.granted(created=NOW - 900), hub(), LOST)), 1)
        self.assertEqual(self.approved(self.granted(created=NOW - 500), hub(), LOST), [])

    def test_not_ready_yet(self) -> None:
        """
        A node that waits for its network is not lost: whoever joined it has its certificate.
        """
        self.assertEqual(self.approved(self.granted(), hub(), node(ready="False")), [])

    def test_other_certificates(self) -> None:
        """
        An agent's certificate is not the hub's, and another node's request not this one's.
        """
        other = hub(name="first", common_name="system:node:edge-2", conditions=["Approved"])
        self.assertEqual(len(self.approved(self.granted(KUBELET_USER, agent), hub())), 1)
        self.assertEqual(len(self.approved(other, hub())), 1)
        self.assertEqual(len(self.approved(self.granted(), agent(BOOTSTRAPPER))), 1)

    def test_agents(self) -> None:
        """
        So it is with agents.
        """
        self.assertIn("first has been granted", self.refused(self.granted(BOOTSTRAPPER, agent), agent(BOOTSTRAPPER))[0])

    def test_renewal(self) -> None:
        """
        A node renews its own as often as it likes.
        """
        self.assertEqual(len(self.approved(self.granted(), hub(NODE_USER), READY)), 1)

    def test_denied_or_failed(self) -> None:
        """
        What came to nothing stands in nobody's way.
        """
        for conditions in (["Denied"], ["Approved", "Failed"]):
            self.assertEqual(len(self.approved(hub(name="first", conditions=conditions), hub())), 1)

    def test_expired(self) -> None:
        """
        A certificate counts as long as it is valid, and when it is not any more the requests are looked at again.
        """
        certificate = issue(CA, "system:node:edge-1").cert_pem
        ends = x509.load_pem_x509_certificate(certificate).not_valid_after_utc.timestamp()
        first = hub(name="first", conditions=["Approved"], certificate=certificate)
        [before] = self.decide(first, hub(), now=ends - 10).values()
        [after] = self.decide(first, hub(), now=ends + before.again - 10 if before.again else 0.0).values()
        self.assertEqual(([one.what for one in before.writes], before.again), (["event"], 11.0))
        self.assertEqual([one.what for one in after.writes], ["approve"])


class AgentRenewalTests(DecisionCase):
    """
    An agent that asks in the name of all agents shows its certificate.
    """

    def setUp(self) -> None:
        self.now = time.time()
        self.held = self.issued()

    def issued(self, name: str = "tunnel-agent-client", groups: Sequence[str] = TUNNEL, dns: Sequence[str] = ("edge-1",),
               ca: Authority = CA, usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH) -> bytes:  # fmt: skip
        """
        A certificate with its key.
        """
        identity = issue(ca, name, list(groups), dns=list(dns), usages=(usage,))
        return identity.cert_pem + identity.key_pem

    def asks(self, held: bytes, names: Sequence[str] = ("edge-1",), asker: Any = AGENT_USER) -> Document:
        """
        A request that follows ``held``.
        """
        document = agent(asker, names)
        document["metadata"]["annotations"] = renews(held, base64.b64decode(document["spec"]["request"]))
        return document

    def outcome(self, *documents: Document) -> Any:
        """
        What is written: the message of an approval, or why there is none.
        """
        (write,) = self.decide(*documents, now=self.now)["node edge-1"].writes
        return write.document.get("message") or write.document["status"]["conditions"][-1]["message"]

    def test_approved(self) -> None:
        """
        Its own name it renews as often as it likes, whatever the node's state, with the addresses of the node.
        """
        for documents in (
            [self.asks(self.held)],
            [self.asks(self.held), READY],
            [self.asks(self.held, ["edge-1", "192.168.1.2"]), READY],
            [self.asks(self.held), agent(BOOTSTRAPPER, name="first", conditions=["Approved"]), LOST],
        ):
            self.assertEqual(self.outcome(*documents), "Auto approving tunnel-agent client certificate")

    def test_others(self) -> None:
        """
        No other node's name; by no certificate that is another's, of another kind, CA or time.
        """
        mine = "is not that of an agent of Node edge-1"
        for held, why in (
            (self.issued(dns=["edge-2"]), mine),
            (self.issued(dns=["edge-1", "edge-2"]), mine),
            (self.issued(dns=[]), mine),
            (self.issued("tunnel-proxy-client"), mine),
            (self.issued(groups=["system:nodes"]), mine),
            (self.issued(groups=[*TUNNEL, "system:masters"]), mine),
            (self.issued(usage=ExtendedKeyUsageOID.SERVER_AUTH), mine),
            (self.issued(ca=make_ca("approver")), "was not issued by the cluster's CA"),
        ):
            self.assertIn(why, self.outcome(self.asks(held), READY))
        self.assertIn("10.0.0.9 are not among", self.outcome(self.asks(self.held, ["edge-1", "10.0.0.9"]), READY))

    def test_not_its_holder(self) -> None:
        """
        The certificate alone, which is no secret, proves nothing; nor does what its holder has signed for another request.
        """
        document, stranger = self.asks(self.held), self.issued()
        shown = json.loads(document["metadata"]["annotations"][ANNOTATION])
        by_stranger = json.loads(self.asks(stranger)["metadata"]["annotations"][ANNOTATION])
        other = json.loads(self.asks(self.held, ["edge-1", "192.168.1.2"])["metadata"]["annotations"][ANNOTATION])
        for signature in (by_stranger["signature"], other["signature"], "", "AAAA"):
            document["metadata"]["annotations"][ANNOTATION] = json.dumps({**shown, "signature": signature})
            self.assertIn("is not that of who signed this request", self.outcome(document, READY))
        for text in ("", "{}", "x", json.dumps({**shown, "certificate": "x"}), json.dumps({**shown, "certificate": 1})):
            document["metadata"]["annotations"][ANNOTATION] = text
            self.assertIn("shows no certificate of Node edge-1", self.outcome(document, READY))

    def test_expired(self) -> None:
        """
        What has expired, or is not valid yet, proves nothing.
        """
        for self.now in (self.now + 2 * 86400, self.now - 86400):
            self.assertIn("is not valid now", self.outcome(self.asks(self.held)))

    def test_who_asks(self) -> None:
        """
        A certificate that is shown gives no rights to somebody else.
        """
        for asker in (OTHER_NODE, ADMIN, ("tunnel-agent-client", ["system:authenticated"]), ("tunnel-proxy-client", TUNNEL)):
            self.assertIn("asks for it; only system:node:edge-1", self.outcome(self.asks(self.held, asker=asker), READY))

    def test_no_authority(self) -> None:
        """
        Where the controllers' kubeconfig names no CA nobody vouches for what is shown.
        """
        self.patch(sys.modules[__name__], "SITE", Site(frozenset(), list))
        self.assertIn("was not issued by the cluster's CA", self.outcome(self.asks(self.held)))


class WriteTests(DecisionCase):
    """
    Tests of what is written.
    """

    def test_approval(self) -> None:
        """
        The whole object with one more condition goes to /approval, in the version in which it came.
        """
        for version in ("v1", "v1beta1"):
            document = hub(version=version, conditions=["Other"])
            [write] = self.writes(document)
            condition = {
                "type": "Approved",
                "status": "True",
                "reason": "AutoApproved",
                "message": "Auto approving yurthub node client certificate",
            }
            status = {"conditions": [*document["status"]["conditions"], condition]}
            self.assertEqual((write.verb, write.document), (UPDATE, {**document, "status": status}))
            self.assertEqual(write.path, f"/apis/certificates.k8s.io/{version}/certificatesigningrequests/csr-1/approval")
            self.assertIs(write.shows_in, REQUESTS)

    def test_event(self) -> None:
        """
        An Event is a Warning about the request; the same refusal has the same Event, another one another.
        """
        [write], [later] = (list(self.decide(hub(ADMIN), now=now)["node edge-1"].writes) for now in (NOW, NOW + 7200))
        event = write.document
        self.assertEqual((write.verb, write.path, write.once), (CREATE, "/api/v1/namespaces/default/events", True))
        self.assertEqual((event["type"], event["reason"]), ("Warning", "NotApproved"))
        self.assertEqual(event["source"], {"component": "csrapprover"})
        about = {"kind": "CertificateSigningRequest", "name": "csr-1", "uid": "uid-of-csr-1"}
        self.assertEqual(event["involvedObject"], {"apiVersion": "certificates.k8s.io/v1", **about})
        self.assertEqual(event["metadata"]["name"], later.document["metadata"]["name"])
        [other] = self.writes(hub(OTHER_NODE))
        self.assertNotEqual(event["metadata"]["name"], other.document["metadata"]["name"])

    def test_settled(self) -> None:
        """
        There is nothing to do where nothing waits.
        """
        for conditions in (["Approved"], ["Denied"], ["Failed"]):
            self.assertEqual(self.writes(hub(conditions=conditions), READY), [])
        self.assertEqual(self.writes(READY), [])
