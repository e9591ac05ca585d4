"""
Tests of the HTTPS doors: their certificate, who is let in, and where pods are sent.
"""

from __future__ import annotations

import base64
import ipaddress
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.web.client import ResponseNeverReceived

from tests.certs import make_ca
from tests.contract.client import KubeClient
from tests.hub.filters.fixtures import service
from tests.hub.site import USER, Reply, Site, config_map, reactor, until
from tests.hub.test_filtering import told_next
from tests.hub.test_joining import JoiningCase
from tests.hub.test_reads import MAPS, HubCase
from tests.miniapi.identity import User
from tests.miniapi.signing import Signer, sign_request
from tests.ports import free_port
from yurt.http.client import HTTPUpstream
from yurt.http.fetch import FetchedResponse, fetch
from yurt.http.interfaces import UpstreamError
from yurt.hub import doors, passthrough
from yurt.hub import service as hub_service
from yurt.hub.config import NodeCredentials
from yurt.hub.filters.focus import FilterSettings
from yurt.hub.podlink import PodLinkSettings
from yurt.hub.serving import is_vouched_for
from yurt.kube.csr.pem import new_key, request_for
from yurt.kube.csr.wanted import serving
from yurt.tls import ClientTLS, Credentials

POD_HOST = "127.0.0.3"
"""Stands for the link's address: it is always there, and no credentials are lent at it."""
SERVICES = "/api/v1/services"


class FakeLink(Service):
    """
    A link that is there at once, or never.
    """

    problem = None
    state: dict[str, Any] = {}
    comes = True

    def __init__(
        self,
        reactor: Any,
        settings: PodLinkSettings,
        on_ready: Callable[[tuple[str, ...]], object],
        on_lost: Callable[[tuple[str, ...]], object],
    ) -> None:
        self.settings, self.on_ready, self.on_lost = settings, on_ready, on_lost

    def startService(self) -> None:
        if self.comes:
            reactor.callLater(0, self.on_ready, self.settings.dummy_if_ip)

    def stopService(self) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done


class ServingCase(HubCase):
    """
    A hub with HTTPS doors, and a cloud that signs.
    """

    def make_site(self, **settings: Any) -> Site:
        """
        A site that is not started.
        """
        self.site = Site(self, proxy_secure_port=free_port(), **settings)
        self.signer = Signer(self.site.api)
        self.site.api.put("configmaps", config_map("a"))
        return self.site

    @property
    def pem(self) -> Path:
        return self.site.folder / "own/pki/yurthub-server-current.pem"

    async def pending(self) -> str:
        """
        The name of the one request that waits.
        """
        await until(lambda: len(self.signer.pending) == 1, "a request is pending")
        return self.signer.pending[0]

    async def ask(self, path: str, address: str = "127.0.0.1", *, ca: bytes = b"", **headers: str) -> Reply:
        """
        GET by HTTPS over a connection of its own.
        """
        url = f"https://{address}:{self.site.config.proxy_secure_port}"
        client = KubeClient(reactor, url, ca or self.site.api.ca.cert_pem)
        try:
            return await client.ask("GET", path, user_agent="kubelet/v1.30.0", **headers)
        finally:
            await client.close()

    async def readiness(self) -> dict[str, Any]:
        return (await self.site.admin("/v1/readyz")).json

    async def served(self) -> None:
        """
        A certificate is issued and shown.
        """
        self.signer.issue(await self.pending())
        serving = self.site.service.serving
        assert serving is not None
        await until(lambda: serving.shown is not None, "a certificate is shown")


class CertificateTests(ServingCase):
    """
    The certificate, of a hub that was given its identity.
    """

    async def test_asked_for(self) -> None:
        """
        The node asks for exactly what OpenYurt's approver knows; until it is issued the hub is ready and warns, the door refuses
        the hand-shake and plain HTTP goes on; then the door answers as the node, and the file is its owner's alone.
        """
        site = self.make_site(bind_address="127.0.0.9", bind_proxy_addresses=("127.0.0.1", "::1", "0.0.0.0"))
        await site.start_online(bind_address="127.0.0.1", bind_proxy_addresses=("127.0.0.1", "::1"))
        name = await self.pending()
        (request,) = self.signer.requests
        spec = request["spec"]
        self.assertEqual((spec["username"], spec["signerName"]), (USER, "kubernetes.io/kubelet-serving"))
        self.assertEqual(sorted(spec["usages"]), ["digital signature", "key encipherment", "server auth"])
        asked = x509.load_pem_x509_csr(base64.b64decode(spec["request"]))
        self.assertEqual([one.value for one in asked.subject.get_attributes_for_oid(NameOID.COMMON_NAME)], [USER])
        self.assertEqual([one.value for one in asked.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)], ["system:nodes"])
        self.assertIsInstance(asked.public_key(), ec.EllipticCurvePublicKey)
        alternatives = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(list(alternatives), [x509.IPAddress(ipaddress.ip_address(one)) for one in ("127.0.0.1", "::1")])
        ready = await self.readiness()
        self.assertEqual((ready["ready"], ready["reasons"]), (True, []))
        self.assertIn(f"no serving certificate: CSR {name} pending since ", ready["warnings"][0])
        await self.assertFailure(Deferred.fromCoroutine(self.ask(MAPS)), ResponseNeverReceived)
        self.assert_from(await site.get(MAPS), "cloud")

        await self.served()
        self.assert_from(await self.ask(MAPS), "cloud")
        self.assertEqual(site.api.seen[-1].user, USER)
        self.assertEqual(self.pem.stat().st_mode & 0o777, 0o600)
        self.assertEqual((await self.readiness())["warnings"], [])
        status = await site.status()
        self.assertEqual(status["servingCertificate"]["state"], "issued")
        https = [one for one in status["listeners"] if "HTTPS" in one["what"]]
        self.assertEqual([one["listening"] for one in https], [True, True])
        self.assertRegex((await site.admin("/metrics")).body.decode(), r"serving_certificate_expiry_seconds 3\d\d\d")

    async def test_denied(self) -> None:
        """
        A denial is told, and keeps nobody from anything; a link that comes and goes makes no more requests.
        """
        site = self.make_site()
        await site.start_online()
        name = await self.pending()
        self.signer.deny(name, "not here")
        said = f"CSR {name} denied: KubectlDeny: not here"
        await until(lambda: any(said in line for line in site.log), "the denial is logged")
        ready = await self.readiness()
        self.assertTrue(ready["ready"])
        self.assertIn(said, ready["warnings"][0])
        await site.offline()
        await site.online()
        self.assert_from(await site.get(MAPS), "cloud")
        self.assertEqual(len(self.signer.requests), 1)

    async def test_restart_without_the_cloud(self) -> None:
        """
        After a restart without the cloud the certificate on disk is shown, and the cache answers behind it.
        """
        site = self.make_site()
        await site.start_online()
        await self.served()
        self.assert_from(await self.ask(MAPS), "cloud")
        await site.stop()
        await site.api.refuse()
        site.start()
        self.assert_from(await self.ask(MAPS), "cache")

    async def test_rotation(self) -> None:
        """
        A new certificate is for new connections; a watch over an open one goes on.
        """
        site = self.make_site()
        await site.start_online()
        await self.served()
        client = KubeClient(reactor, f"https://127.0.0.1:{site.config.proxy_secure_port}", site.api.ca.cert_pem)
        self.addCleanup(lambda: Deferred.fromCoroutine(client.close()))
        stream = await client.watch(f"{MAPS}?watch=true", **{"user-agent": "kubelet/v1.30.0"})
        await told_next(stream)
        first = self.shown_serial()
        serving = site.service.serving
        assert serving is not None
        serving.certificate.retry(force=True)
        before = self.pem.read_bytes()
        self.signer.issue(await self.pending())
        await until(lambda: self.pem.read_bytes() != before, "another certificate is there")
        self.assert_from(await self.ask(MAPS), "cloud")
        self.assertNotEqual(self.shown_serial(), first)
        site.api.put("configmaps", config_map("b"))
        self.assertEqual((await told_next(stream))["object"]["metadata"]["name"], "b")

    def shown_serial(self) -> int:
        return x509.load_pem_x509_certificates(self.pem.read_bytes())[0].serial_number

    async def test_expired(self) -> None:
        """
        Past its expiry the hub is not ready and says why, and plain HTTP goes on; with the cloud back it is renewed.
        """
        site = self.make_site()
        self.signer.seconds = 1.0
        await site.start_online()
        await self.served()
        await site.stop()
        await site.api.refuse()
        site.start()
        await until(lambda: site.service.serving.expired, "it expires")  # type: ignore[union-attr]
        ready = await self.readiness()
        self.assertFalse(ready["ready"])
        self.assertTrue(any("the serving certificate expired at" in one for one in ready["reasons"]), ready)
        self.assertEqual(ready["warnings"], [])
        self.signer.seconds = 3600.0
        self.signer.issue_always()
        await site.online()
        await until(lambda: not site.service.serving.expired, "it is renewed")  # type: ignore[union-attr]
        self.assert_from(await self.ask(MAPS), "cloud")

    async def test_torn(self) -> None:
        """
        A torn file is asked for again, and of another node's no use is made.
        """
        site = self.make_site()
        await site.start_online()
        await self.served()
        await site.stop()
        self.pem.write_bytes(self.pem.read_bytes()[:300])
        await site.start_online()
        self.assertIsNone(site.service.serving.shown)  # type: ignore[union-attr]
        await self.served()
        self.assert_from(await self.ask(MAPS), "cloud")
        await site.restart(node_name="other")
        self.assertIsNone(site.service.serving.shown)  # type: ignore[union-attr]

    async def test_changed_authority(self) -> None:
        """
        A certificate that no CA of the cluster vouches for any more is followed by another one after a restart; as long as one of
        several does, it stays.
        """
        site = self.make_site()
        await site.start_online()
        await self.served()
        both = make_ca("next").cert_pem + site.api.ca.cert_pem
        (site.folder / "ca.pem").write_bytes(both)
        await site.restart()
        await site.online()
        self.assertEqual(self.signer.pending, [])
        other = make_ca("other")
        key = new_key()
        request = request_for(key, serving("x", USER, (), ("127.0.0.1",)))
        await site.stop()
        self.pem.write_bytes(sign_request(other, request, ["server auth"], 3600.0, time.time()) + key)
        await site.start_online()
        await self.served()
        await until(lambda: is_vouched_for(self.pem.read_bytes(), both), "another certificate is there")
        self.assert_from(await self.ask(MAPS), "cloud")

    async def test_taken_port(self) -> None:
        """
        A port that somebody holds closes the HTTPS door alone: readiness says so, and it opens when the port is free.
        """
        self.patch(doors, "BIND_RETRY", 0.05)
        site = self.make_site()
        with socket.create_server(("127.0.0.1", 0)) as holder:
            await site.start_online(proxy_secure_port=holder.getsockname()[1])
            self.assert_from(await site.get(MAPS), "cloud")
            self.assertIn("HTTPS proxy on 127.0.0.1", (await self.readiness())["reasons"][0])
        await self.served()
        await until(lambda: all(one.port is not None for one in site.service.listeners), "it listens")
        self.assert_from(await self.ask(MAPS), "cloud")

    async def test_another_authority(self) -> None:
        """
        Only the cluster's CA vouches for the door.
        """
        await self.make_site().start_online()
        await self.served()
        waiting = Deferred.fromCoroutine(self.ask(MAPS, ca=make_ca("other").cert_pem))
        await self.assertFailure(waiting, ResponseNeverReceived)


class JoinedTests(JoiningCase):
    """
    The certificate of a hub that joins.
    """

    async def test_second(self) -> None:
        """
        It is asked for with the new client certificate, as the node.
        """
        self.settings["proxy_secure_port"] = free_port()
        await self.joined()
        self.signer.issue(await self.pending())
        serving = self.site.service.serving
        assert serving is not None
        await until(lambda: serving.shown is not None, "a certificate is shown")
        spec = self.signer.requests[-1]["spec"]
        self.assertEqual((spec["username"], spec["signerName"]), (USER, "kubernetes.io/kubelet-serving"))
        self.assertTrue((self.root / "pki/yurthub-server-current.pem").exists())


class PodsTests(ServingCase):
    """
    The door that pods reach, and who is sent to it.
    """

    def make_site(self, **settings: Any) -> Site:
        """
        A site with a link.
        """
        self.patch(hub_service, "PodLink", FakeLink)
        link = PodLinkSettings(dummy_if_ip=(POD_HOST,))
        filters = FilterSettings(namespace="", disabled=("servicetopology", "nodeportisolation", "hostnetworkpropagation"))
        site = super().make_site(pod_link=link, filters=filters, **settings)
        self.put_master()
        return site

    def put_master(self) -> None:
        """
        The Service default/kubernetes.
        """
        document = service("kubernetes", clusterIP="10.96.0.1", clusterIPs=["10.96.0.1"], ports=[{"name": "https", "port": 443}])
        del document["metadata"]["resourceVersion"]
        self.site.api.put("services", document, "default")

    async def shown_to(self, agent: str = "kubelet") -> tuple[str, int]:
        """
        Where default/kubernetes leads, as a component lists it.
        """
        return self.where((await self.site.get(SERVICES, agent=agent)).json["items"][0])

    def where(self, document: dict[str, Any]) -> tuple[str, int]:
        return document["spec"]["clusterIP"], document["spec"]["ports"][0]["port"]

    async def test_own_credentials(self) -> None:
        """
        A pod brings its token: that goes to the cloud without the node's certificate; without one it is 401.
        """
        site = self.make_site()
        await site.start_online()
        await self.served()
        self.assert_failure(await self.ask(MAPS, POD_HOST), 401, "Unauthorized", "must bring its own credentials")
        site.api.issuer.static["of-a-pod"] = User("system:serviceaccount:default:a")
        reply = await self.ask(MAPS, POD_HOST, authorization="Bearer of-a-pod")
        self.assert_from(reply, "cloud")
        self.assertEqual(site.api.seen[-1].user, "system:serviceaccount:default:a")

    async def test_sent(self) -> None:
        """
        Kubelet learns of the door when there is a certificate, an open watch too; others, and what is read at the start before
        the link is there, as it should be; nobody is sent where nobody listens.
        """
        site = self.make_site()
        here = (POD_HOST, site.config.proxy_secure_port)
        await site.start_online()
        reply = await site.get(SERVICES)
        self.assertEqual(self.where(reply.json["items"][0]), ("10.96.0.1", 443))
        self.assertIsNone((await site.status())["filters"]["podsReachHubAt"])
        version = reply.json["metadata"]["resourceVersion"]
        stream = await site.watch(f"{SERVICES}?watch=true&resourceVersion={version}")
        await self.served()
        event = await told_next(stream)
        self.assertEqual((event["type"], self.where(event["object"])), ("MODIFIED", here))
        self.assertEqual((await self.shown_to(), await self.shown_to("kube-proxy")), (here, ("10.96.0.1", 443)))
        self.assertEqual((await site.status())["filters"]["podsReachHubAt"], f"{here[0]}:{here[1]}")
        await site.offline()
        self.assertEqual(await self.shown_to(), here)
        await site.hang_up()
        await site.stop()
        self.patch(FakeLink, "comes", False)
        self.patch(doors, "PROMISE", 3.0)
        site.start()
        self.assertEqual(await self.shown_to(), here)
        await until(lambda: site.service.hub.filters.facts.hub_host == "", "the promise ends")
        self.assertEqual(await self.shown_to(), ("10.96.0.1", 443))

    async def test_taken(self) -> None:
        """
        Where the pods' port is held by somebody else, pods are not sent there.
        """
        site = self.make_site()
        await site.start_online()
        await self.served()
        await site.stop()
        with socket.create_server((POD_HOST, site.config.proxy_secure_port)):
            await site.start_online()
            await until(lambda: any(one.problem for one in site.service.listeners), "the port is taken")
            self.assertEqual(await self.shown_to(), ("10.96.0.1", 443))
            self.assertIn(f"HTTPS proxy on {POD_HOST}", (await self.readiness())["reasons"][0])

    async def test_lost_link(self) -> None:
        """
        A link that comes again soon changes nothing; one that stays away sends pods to the cloud until it is back, and kubelet
        hears of it.
        """
        self.patch(doors, "LINK_GRACE", 0.2)
        site = self.make_site()
        here = (POD_HOST, site.config.proxy_secure_port)
        await site.start_online()
        await self.served()
        reply = await site.get(SERVICES)
        version = reply.json["metadata"]["resourceVersion"]
        stream = await site.watch(f"{SERVICES}?watch=true&resourceVersion={version}")
        link: Any = site.service.link
        link.on_lost(())
        link.on_ready((POD_HOST,))
        link.on_lost(())
        for where in (("10.96.0.1", 443), here):
            self.assertEqual(self.where((await told_next(stream))["object"]), where)
            link.on_ready((POD_HOST,))

    async def through(self) -> FetchedResponse:
        """
        What the API server says, verified as itself, to whom the pods' door was dialled instead of it.
        """
        door = TCP4ClientEndpoint(reactor, POD_HOST, self.site.config.proxy_secure_port)
        tls = ClientTLS(Credentials(ca_data=self.site.api.ca.cert_pem))
        upstream = HTTPUpstream(reactor, self.site.api.url, tls, endpoint=door)
        try:
            return await fetch(reactor, upstream, b"GET", b"/version", [], timeout=30.0)
        finally:
            upstream.close_connections("done")

    async def test_by_way_of_the_cluster_ip(self) -> None:
        """
        A connection that a rule led here from the ClusterIP of the API server is passed on to that, by whose certificate it is
        verified; without the cloud it is reset, and those that are open are cut.
        """
        site = self.make_site()
        await site.start_online()
        await self.served()
        self.assert_failure(await self.ask(MAPS, POD_HOST), 401, "Unauthorized")
        self.patch(passthrough, "original_destination", lambda connection: ("10.96.0.1", 443))
        self.assertEqual((await self.through()).status, 200)
        passing = site.service.doors.passing
        await until(lambda: not passing.connections, "it has ended")
        site.api.delay = 3600.0
        waiting = Deferred.fromCoroutine(self.through())
        await until(lambda: passing.connections, "it is passed on")
        await site.offline()
        await self.assertFailure(waiting, UpstreamError)
        await self.assertFailure(Deferred.fromCoroutine(self.through()), UpstreamError)
        self.assertEqual(passing.connections, set())
        shown: Any = site.service.describe({})["passThrough"]
        self.assertEqual((shown["open"], shown["taken"], shown["failed"]), (0, 3, 1))
        self.assertIn("the cloud is away", shown["lastProblem"])

    async def test_led_too_often(self) -> None:
        """
        More connections than there is room for are reset; what was meant for the hub itself is not concerned.
        """
        site = self.make_site()
        await site.start_online()
        await self.served()
        self.patch(site.service.doors.passing, "_limit", 0)
        self.patch(passthrough, "original_destination", lambda connection: ("10.96.0.1", 443))
        await self.assertFailure(Deferred.fromCoroutine(self.through()), UpstreamError)
        figures = site.service.figures().led
        self.assertEqual((figures.open, figures.taken, figures.failed), (0, 1, 1))
        self.patch(passthrough, "original_destination", lambda connection: None)
        self.assert_failure(await self.ask(MAPS, POD_HOST), 401, "Unauthorized")

    async def test_by_token(self) -> None:
        """
        A node that speaks with a token asks with that; the certificate is the node's all the same.
        """
        site = self.make_site()
        site.api.issuer.static["of-the-node"] = User(USER, ("system:nodes",))
        path = site.folder / "node-token"
        path.write_text("of-the-node")
        credentials = NodeCredentials(ca_file=str(site.folder / "ca.pem"), token_file=str(path))
        await site.start_online(credentials=credentials)
        await self.served()
        self.assertEqual(self.signer.requests[0]["spec"]["username"], USER)
        self.assertEqual((await self.readiness())["warnings"], [])
