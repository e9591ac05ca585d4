"""
Tests of a hub that joins a cluster: from a token to a certificate, and on.
"""

from __future__ import annotations

import base64
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.certs import issue, make_ca
from tests.hub.connect_proxy import ConnectProxy
from tests.hub.site import USER, Reply, Site, config_map, names, reactor, until
from tests.hub.test_reads import MAPS, HubCase
from tests.miniapi.signing import Signer, invite, sign_request
from yurt.hub import service as hub_service
from yurt.hub.config import NodeCredentials
from yurt.kube import authority
from yurt.kube.bootstrap import ca_hash
from yurt.kube.csr.pem import new_key, request_for
from yurt.kube.csr.wanted import client
from yurt.kube.joining import JoinSettings

TOKEN, SECOND = "abcdef.0123456789abcdef", "zyxwvu.0123456789abcdef"
ORGANIZATIONS = ("openyurt:yurthub", "system:nodes")


class JoiningCase(HubCase):
    """
    A cloud that invites, and a hub that has nothing but a token in a file.
    """

    def setUp(self) -> None:
        self.site = Site(self)
        self.api = self.site.api
        self.api.put("configmaps", config_map("a"))
        self.signer = Signer(self.api)
        invite(self.api, TOKEN)
        self.token_file = (self.site.folder / "token").resolve()
        self.token_file.write_text(TOKEN)
        self.root = self.site.folder / "own"
        join = JoinSettings((self.api.url,), str(self.token_file), ca_hashes=frozenset({ca_hash(self.api.ca.certificate)}))
        self.settings: dict[str, Any] = {"join": join, "credentials": NodeCredentials(), "root_dir": str(self.root)}

    @property
    def pem(self) -> Path:
        return self.root / "pki/yurthub-current.pem"

    async def pending(self) -> str:
        """
        The name of the one request that waits.
        """
        await until(lambda: len(self.signer.pending) == 1, "a request is pending")
        return self.signer.pending[0]

    async def joined(self) -> None:
        """
        Start, let the certificate be issued, and wait until the hub is online.
        """
        self.site.start(**self.settings)
        self.signer.issue(await self.pending())
        await self.site.online()

    async def reasons(self) -> list[str]:
        found: list[str] = (await self.site.admin("/v1/readyz")).json["reasons"]
        return found

    async def hand_in(self, token: Any, method: str = "POST") -> Reply:
        """
        Give the hub a token.
        """
        await self.site.admin("/v1/healthz")
        return await self.site._clients["admin"].ask(method, "/v1/token", {"jointoken": token})

    def hold(self, seconds: float) -> None:
        """
        Put a certificate on disk that lasts so long from now.
        """
        key = new_key()
        request = request_for(key, client("c", USER, ORGANIZATIONS))
        pem = sign_request(self.api.ca, request, ["client auth"], seconds, time.time())
        self.pem.parent.mkdir(parents=True, exist_ok=True)
        self.pem.write_bytes(pem + key)
        (self.root / "pki/ca.crt").write_bytes(self.api.ca.cert_pem)


class FirstTests(JoiningCase):
    """
    From an empty folder.
    """

    async def test_join(self) -> None:
        """
        The hub serves while its request waits and says for what it waits; when the certificate comes it is online within moments,
        speaks as the node, has written all its files for its owner alone, and the token is gone.
        """
        self.site.start(**self.settings)
        name = await self.pending()
        self.assertEqual((await self.site.admin("/v1/healthz")).body, b"OK")
        self.assert_failure(await self.site.get(MAPS), 503, "ServiceUnavailable")
        self.assertTrue(any(f"CSR {name} pending since " in reason for reason in await self.reasons()), await self.reasons())
        status = await self.site.status()
        self.assertEqual((status["certificate"]["state"], status["certificate"]["request"]), ("pending", name))
        self.assertTrue(self.token_file.exists())
        self.signer.issue(name)
        await self.site.online()
        self.assert_from(await self.site.get(MAPS), "cloud")
        self.assertEqual(self.api.seen[-1].user, USER)
        self.assertEqual(await self.reasons(), [])
        self.assertFalse(self.token_file.exists())
        spec = self.signer.requests[0]["spec"]
        self.assertEqual(spec["username"], "system:bootstrap:abcdef")
        self.assertEqual(spec["signerName"], "kubernetes.io/kube-apiserver-client")
        modes = {str(one.relative_to(self.root)): one.stat().st_mode & 0o777 for one in self.root.rglob("*") if one.is_file()}
        for file in ("pki/ca.crt", "pki/yurthub-current.pem", "yurthub.conf"):
            self.assertEqual(modes.pop(file), 0o600)
        self.assertFalse([file for file in modes if file.startswith("pki")], modes)
        self.assertFalse([line for line in self.site.log if TOKEN in line])

    async def test_denied(self) -> None:
        """
        A denial is told in readiness and log.
        """
        self.site.start(**self.settings)
        name = await self.pending()
        self.signer.deny(name, "who are you?")
        said = f"CSR {name} denied: KubectlDeny: who are you?"
        await until(lambda: any(said in line for line in self.site.log), "the denial is logged")
        self.assertTrue(any(said in reason for reason in await self.reasons()))

    async def test_restart(self) -> None:
        """
        A hub that has joined needs neither token nor cloud to start again, and serves its cache.
        """
        await self.joined()
        self.assert_from(await self.site.get(MAPS), "cloud")
        await self.site.restart()
        await self.site.online()
        await self.site.stop()
        await self.api.refuse()
        self.site.start()
        self.assert_from(await self.site.get(MAPS), "cache")
        self.assertEqual(len(self.signer.requests), 1)

    async def test_kubeconfig(self) -> None:
        """
        The kubeconfig that it writes is one for the node.
        """
        await self.joined()
        document = json.loads((self.root / "yurthub.conf").read_text())
        self.assertEqual(document["clusters"][0]["cluster"]["server"], self.api.url)
        self.assertEqual(document["users"][0]["user"]["client-key"], str(self.pem))

    async def test_moved(self) -> None:
        """
        Where the API server has another address, or the kubeconfig is lost, it is written anew at the next start.
        """
        await self.joined()
        file, elsewhere = self.root / "yurthub.conf", self.api.url.replace("127.0.0.1", "localhost")
        servers = (elsewhere, self.api.url)
        await self.site.restart(join=replace(self.settings["join"], servers=servers))
        self.assertEqual(json.loads(file.read_text())["clusters"][0]["cluster"]["server"], elsewhere)
        await self.site.stop()
        file.unlink()
        self.site.start()
        self.assertEqual(json.loads(file.read_text())["clusters"][0]["cluster"]["server"], elsewhere)
        self.assertEqual(file.stat().st_mode & 0o777, 0o600)


class RotationTests(JoiningCase):
    """
    Certificates that do not last.
    """

    async def test_under_a_watch(self) -> None:
        """
        A new certificate is for new connections; a watch that is open goes on over the old one.
        """
        await self.joined()
        stream = await self.site.watch(f"{MAPS}?watch=true")
        await stream.next()
        watches = len(self.api.watchers)
        first = self.pem.read_bytes()
        ours = self.site.service.joining
        assert ours is not None
        ours.certificate.retry(force=True)
        self.signer.issue(await self.pending())
        await until(lambda: self.pem.read_bytes() != first, "another certificate is there")
        self.assertEqual(self.signer.requests[-1]["spec"]["username"], USER)
        self.api.put("configmaps", config_map("b"))
        event: Any = await stream.next()
        self.assertEqual(event["object"]["metadata"]["name"], "b")
        await until(lambda: len(self.api.watchers) == watches, "no watch but that one, nor another one in its place")
        self.assert_from(await self.site.get(MAPS), "cloud")

    async def test_short_lives(self) -> None:
        """
        Certificates of seconds follow each other for longer than any of them lasts, and no request notices.
        """
        self.signer.seconds = 4.0
        self.signer.issue_always()
        self.site.start(**self.settings)
        await self.site.online()
        first = self.pem.read_bytes()
        while len(self.signer.requests) < 4:
            self.assert_from(await self.site.get(MAPS), "cloud")
        self.assertNotEqual(self.pem.read_bytes(), first)
        self.assert_from(await self.site.get(MAPS), "cloud")

    async def test_by_proxy(self) -> None:
        """
        Where only a proxy leads to the cloud, and it alone can find its name, everything goes by it, with the credentials of its
        URL: the cluster is discovered, the requests are made, and certificates follow each other.  They are never told.
        """
        proxy = ConnectProxy(int(self.api.address.rpartition(":")[2]))
        listening = reactor.listenTCP(0, proxy, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        url = f"http://me:very%20secret@127.0.0.1:{listening.getHost().port}"
        self.patch(os, "environ", {**os.environ, "HTTPS_PROXY": url, "NO_PROXY": ""})
        server = "https://kubernetes:6443"
        self.signer.seconds = 4.0
        self.signer.issue_always()
        self.settings["join"] = replace(self.settings["join"], servers=(server,))
        self.site.start(**self.settings, servers=(server,))
        await self.site.online()
        while len(self.signer.requests) < 3:
            self.assert_from(await self.site.get(MAPS), "cloud")
        self.assertEqual(set(proxy.targets), {"kubernetes:6443"})
        credentials = base64.b64encode(b"me:very secret")
        self.assertTrue(all(b"Proxy-Authorization: Basic " + credentials in head for head in proxy.heads), proxy.heads[-1])
        self.assertEqual([seen.user for seen in self.api.seen if seen.path == MAPS][-1], USER)
        self.assertFalse(self.token_file.exists())
        said = "".join(map(str, self.site.log)) + json.dumps(await self.site.status())
        self.assertNotIn("secret", said)
        await self.site.stop()

    async def test_expired(self) -> None:
        """
        Past its expiry, with the cloud there, the hub serves its cache and says why; a token that is handed in brings it back.
        """
        self.token_file.unlink()
        self.hold(3600)
        await self.site.start_online(**self.settings)
        self.assert_from(await self.site.get(MAPS), "cloud")
        await self.site.hang_up()
        await self.site.stop()
        self.hold(-1)
        self.site.start()
        await until(lambda: self.site.service.cloud.known, "the cloud's state is known")
        reply = await self.site.get(MAPS)
        self.assert_from(reply, "cache")
        self.assertEqual(names(reply), ["a"])
        self.assertTrue(any("expired at" in reason for reason in await self.reasons()), await self.reasons())
        self.assertIn("expired at", (await self.site.status())["cloud"]["reason"])
        text = (await self.site.admin("/metrics")).body.decode()
        self.assertRegex(text, r"node_yurthub_certificate_expiry_seconds -\d")
        reply = await self.hand_in(TOKEN)
        self.assertEqual((reply.status, reply.body), (200, b"update bootstrap token successfully\n"))
        self.signer.issue(await self.pending())
        await self.site.online()
        self.assert_from(await self.site.get(MAPS), "cloud")
        self.assertFalse((self.root / "join-token").exists())
        self.assertRegex((await self.site.admin("/metrics")).body.decode(), r"certificate_expiry_seconds 3\d\d\d")


class TokenTests(JoiningCase):
    """
    Tokens that are handed in.
    """

    async def test_refused(self) -> None:
        """
        What is no token is refused and said, and nothing changes.
        """
        await self.joined()
        for token, said in (("nonsense", b"not a bootstrap token"), ("", b"no join token is set"), (7, b"jointoken")):
            reply = await self.hand_in(token, "PUT")
            self.assertEqual(reply.status, 400)
            self.assertIn(said, reply.body)
        self.assertFalse((self.root / "join-token").exists())

    async def test_made_anew(self) -> None:
        """
        A token makes the hub join although its certificate is valid: the cluster may not know it any more.
        """
        await self.joined()
        invite(self.api, SECOND)
        self.assertEqual((await self.hand_in(SECOND)).status, 200)
        self.signer.issue(await self.pending())
        await until(lambda: not self.signer.pending and not (self.root / "join-token").exists(), "it has joined again")
        self.assertEqual(self.signer.requests[-1]["spec"]["username"], "system:bootstrap:zyxwvu")

    async def test_not_joining(self) -> None:
        """
        A hub that was given its certificate takes no token.
        """
        await self.site.start_online()
        self.assertEqual((await self.hand_in(TOKEN)).status, 404)


class DiskTests(JoiningCase):
    """
    Files that are not as they were left.
    """

    async def test_torn(self) -> None:
        """
        A torn certificate is asked for again, by a token that is still there.
        """
        await self.joined()
        await self.site.stop()
        self.pem.write_bytes(self.pem.read_bytes()[:400])
        self.token_file.write_text(TOKEN)
        self.site.start()
        name = await self.pending()
        self.assertTrue(any(name in reason for reason in await self.reasons()))
        self.signer.issue(name)
        await self.site.online()

    async def test_lost_authority(self) -> None:
        """
        A CA file that is torn is restored from the kubeconfig.
        """
        await self.joined()
        await self.site.stop()
        (self.root / "pki/ca.crt").write_bytes(b"torn")
        self.site.start()
        await self.site.online()
        self.assertEqual((self.root / "pki/ca.crt").read_bytes(), self.api.ca.cert_pem)

    async def test_followed_authority(self) -> None:
        """
        A CA that the cluster names beside its own is taken over, for pods' requests too, and nothing is cut.
        """
        self.patch(authority, "PERIOD", 0.05)
        await self.joined()
        stream = await self.site.watch(f"{MAPS}?watch=true")
        await stream.next()
        both = self.api.ca.cert_pem + make_ca("next").cert_pem
        invite(self.api, TOKEN, ca_pem=both)
        await until(lambda: (self.root / "pki/ca.crt").read_bytes() == both, "the CA was written")
        self.api.put("configmaps", config_map("b"))
        await stream.next()
        self.assert_from(await self.site.get(MAPS), "cloud")

    async def test_nothing_usable(self) -> None:
        """
        With both torn and without a token the hub starts, serves, and says what to do.
        """
        await self.joined()
        await self.site.stop()
        for path in (self.pem, self.root / "pki/ca.crt", self.root / "yurthub.conf"):
            path.write_bytes(b"\0" * 50)
        self.site.start()
        self.assertEqual((await self.site.admin("/v1/healthz")).status, 200)
        await until(lambda: any("kubeadm token create" in line for line in self.site.log), "it says what to do")

    async def test_another_node(self) -> None:
        """
        The certificate of a node of another name is not shown.
        """
        self.hold(3600)
        other = issue(self.api.ca, "system:node:other", list(ORGANIZATIONS))
        self.pem.write_bytes(other.cert_pem + other.key_pem)
        self.site.start(**self.settings)
        await self.pending()
        self.assertNotIn("system:node:other", {seen.user for seen in self.api.seen})


class KubeletTests(JoiningCase):
    """
    A hub that shows kubelet's certificate.
    """

    async def test_awaited(self) -> None:
        """
        While kubelet's certificate is not there, or torn, the hub serves its cache and says why; when it comes the hub is online.
        """
        self.patch(hub_service, "AWAITED_INTERVAL", 0.05)
        pem, ca = self.site.folder / "kubelet.pem", self.site.folder / "kubelet-ca.crt"
        files = NodeCredentials(ca_file=str(ca), cert_file=str(pem), key_file=str(pem), awaited=True)
        identity = self.api.certificate(USER, "system:nodes")
        await self.site.start_online()
        await self.site.get(MAPS)
        await self.site.restart(credentials=files)
        self.assertIn("kubelet-ca.crt: No such file", (await self.reasons())[0])
        self.assert_from(await self.site.get(MAPS), "cache")
        ca.write_bytes(self.api.ca.cert_pem)
        pem.write_bytes(identity.cert_pem[:100])
        await until(lambda: "kubelet.pem" in self.site.service.refusal(), "the torn file is told")
        pem.write_bytes(identity.cert_pem + identity.key_pem)
        await self.site.online()
        self.assertEqual(await self.reasons(), [])
        self.assert_from(await self.site.get(MAPS), "cloud")
