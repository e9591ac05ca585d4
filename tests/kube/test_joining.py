"""
Tests for :mod:`yurt.kube.joining`, over sockets on loopback.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.trial.unittest import TestCase

from tests.certs import issue, make_ca
from tests.miniapi import MiniAPI
from tests.miniapi.signing import invite
from yurt.kube.api import ApiError
from yurt.kube.bootstrap import BootstrapError, ca_hash
from yurt.kube.csr.pem import Held, read_held
from yurt.kube.csr.service import AccessError
from yurt.kube.joining import JoinAccess, JoinFiles, JoinSettings

reactor: Any = global_reactor
TOKEN, SECOND = "abcdef.0123456789abcdef", "zyxwvu.0123456789abcdef"
BOOTSTRAPPER, SECOND_BOOTSTRAPPER = "system:bootstrap:abcdef", "system:bootstrap:zyxwvu"
NODE = "system:node:n1"


class JoiningCase(TestCase):
    """
    A cluster that invites, and a folder that is empty.
    """

    def setUp(self) -> None:
        self.api = MiniAPI(reactor)
        self.addCleanup(self.api.stop)
        self.api.start()
        invite(self.api, TOKEN)
        self.folder = Path(self.mktemp())
        self.files = JoinFiles(str(self.folder))
        self.trusted = 0
        self.settings = JoinSettings((self.api.url,), TOKEN, ca_hashes=frozenset({ca_hash(self.api.ca.certificate)}))
        self.access = self.make()

    def make(self, **settings: Any) -> JoinAccess:
        """
        A way in with other settings.
        """
        self.settings = replace(self.settings, **settings)
        kubelet = str(self.folder / "kubelet.pem")
        ca = str(self.folder / "kubelet-ca.pem")
        self.access = JoinAccess(
            reactor, "yurthub", self.settings, self.files, self.note, kubelet_certificate=kubelet, kubelet_ca=ca
        )
        return self.access

    def note(self) -> None:
        self.trusted += 1

    def certificate(self, name: str = NODE) -> Held:
        identity = self.api.certificate(name, "system:nodes")
        return read_held(identity.cert_pem + identity.key_pem)

    async def who(self, held: Held | None = None) -> str:
        """
        As whom the next client comes, or why there is none.
        """
        try:
            client = await self.access.client(held)
        except (AccessError, ApiError) as error:
            self.access.failed(error)
            return str(error)
        try:
            await client.get("/api/v1/nodes")
        except ApiError as error:
            self.access.failed(error)
            return str(error.code or error)
        finally:
            client.close()
        return self.api.seen[-1].user


class TokenTests(JoiningCase):
    """
    Joining by a token.
    """

    async def test_discovered(self) -> None:
        """
        The CA is found by the token and its pin, written down, and the token shown to nobody but a server that it verifies.
        """
        self.assertEqual(await self.who(), BOOTSTRAPPER)
        self.assertEqual(self.files.read_ca(), self.api.ca.cert_pem)
        self.assertEqual(self.files.ca.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.trusted, 1)
        self.assertEqual(self.api.seen[0].user, "system:anonymous")
        self.assertEqual(await self.who(), BOOTSTRAPPER)
        self.assertEqual(self.trusted, 1)

    async def test_file(self) -> None:
        """
        The token may stand in a file, which goes when it has served, and may come again.
        """
        path = self.folder / "token"
        path.parent.mkdir()
        path.write_text(f"{TOKEN}\n")
        self.make(join_token=str(path.resolve()))
        self.assertEqual(await self.who(), BOOTSTRAPPER)
        self.access.served()
        self.assertFalse(path.exists())
        self.assertIn("kubeadm token create", await self.who())
        path.write_text(TOKEN)
        self.assertEqual(await self.who(), BOOTSTRAPPER)

    async def test_other_authority(self) -> None:
        """
        A cluster with another CA than the pinned one is not joined, and gets no token.
        """
        self.make(ca_hashes=frozenset({ca_hash(make_ca().certificate)}))
        self.assertIn("--discovery-token-ca-cert-hash", await self.who())
        self.assertEqual({seen.user for seen in self.api.seen}, {"system:anonymous"})
        self.assertEqual(self.files.read_ca(), b"")

    async def test_impostor(self) -> None:
        """
        A server that has not the key of the CA it names is found out before it gets the token.
        """
        real = make_ca("real")
        invite(self.api, TOKEN, ca_pem=real.cert_pem)
        self.make(ca_hashes=frozenset({ca_hash(real.certificate)}))
        self.assertIn("certificate", await self.who())
        self.assertEqual({seen.user for seen in self.api.seen}, {"system:anonymous"})

    async def test_without_pin(self) -> None:
        """
        Without a pin nothing is asked, and the words say which flag is missing; unless the operator trusts the token alone.
        """
        self.make(ca_hashes=frozenset())
        self.assertIn("--discovery-token-ca-cert-hash is missing", await self.who())
        self.assertEqual(len(self.api.seen), 0)
        self.make(skip_ca_verification=True)
        self.assertEqual(await self.who(), BOOTSTRAPPER)

    async def test_unknown_token(self) -> None:
        """
        A token that has expired is told by its identifier alone.
        """
        invite(self.api, SECOND)
        said = await self.who()
        self.assertIn("token abcdef", said)
        self.assertNotIn("0123456789", said)

    async def test_second_server(self) -> None:
        """
        When a server is away, the next attempt goes to the next one.
        """
        self.make(servers=("https://127.0.0.1:1", self.api.url))
        self.assertIn("127.0.0.1:1", await self.who())
        self.assertEqual(await self.who(), BOOTSTRAPPER)


class WayTests(JoiningCase):
    """
    Which way is taken.
    """

    async def test_own_certificate(self) -> None:
        """
        While there is a certificate it is shown; when it is refused, the token comes next.
        """
        self.assertEqual(await self.who(), BOOTSTRAPPER)
        self.assertEqual(await self.who(self.certificate()), NODE)
        old = issue(make_ca("gone"), NODE, ["system:nodes"])
        self.assertNotEqual(await self.who(read_held(old.cert_pem + old.key_pem)), NODE)
        self.assertEqual(await self.who(read_held(old.cert_pem + old.key_pem)), BOOTSTRAPPER)

    async def test_handed_in(self) -> None:
        """
        A token that is handed in comes before everything else until it has served, survives a restart, and is gone then.
        """
        self.assertEqual(await self.who(), BOOTSTRAPPER)
        held = self.certificate()
        invite(self.api, SECOND)
        self.access.accept_token(SECOND)
        self.assertEqual(self.files.token.stat().st_mode & 0o777, 0o600)
        self.assertEqual(await self.who(held), SECOND_BOOTSTRAPPER)
        self.make(join_token="")
        self.assertEqual(await self.who(), SECOND_BOOTSTRAPPER)
        self.access.served()
        self.assertFalse(self.files.token.exists())
        self.assertRaises(BootstrapError, self.access.accept_token, "nonsense")

    async def test_kubelet(self) -> None:
        """
        Without a token kubelet's certificate serves, where there is one.
        """
        self.assertEqual(await self.who(), BOOTSTRAPPER)
        self.make(join_token=str(self.folder.absolute() / "gone"))
        self.assertRegex(await self.who(), f"there is no token.*; {self.folder.absolute()}/gone is not there$")
        (self.folder / "kubelet.pem").write_bytes(self.certificate().pem)
        self.assertEqual(await self.who(), NODE)

    async def test_kubelet_alone(self) -> None:
        """
        With the hub's files lost, all of them, kubelet's certificate and CA bring it back where a token does not.
        """
        self.folder.mkdir()
        self.make(join_token=SECOND)
        (self.folder / "kubelet.pem").write_bytes(self.certificate().pem)
        (self.folder / "kubelet-ca.pem").write_bytes(self.api.ca.cert_pem)
        self.assertIn("token zyxwvu", await self.who())
        self.assertEqual((await self.who(), self.access.asker, self.access.others), (NODE, "kubelet", True))
        self.assertEqual(self.files.read_ca(), self.api.ca.cert_pem)

    async def test_asker(self) -> None:
        """
        Each way is told from the others, and without its secret.
        """
        await self.who()
        self.assertEqual((self.access.asker, self.access.others), ("token abcdef", False))
        await self.who(self.certificate())
        self.assertEqual((self.access.asker, self.access.others), ("node", True))

    async def test_bootstrap_file(self) -> None:
        """
        A kubeconfig made for joining gives server, CA and token; it goes when it has served.
        """
        path = self.folder / "bootstrap-hub.conf"
        path.parent.mkdir()
        self.api.write_kubeconfig(path, "system:bootstrap:file", "system:bootstrappers")
        self.make(join_token="", bootstrap_file=str(path), ca_hashes=frozenset())
        self.assertEqual(await self.who(), "system:bootstrap:file")
        self.assertEqual(self.files.read_ca(), self.api.ca.cert_pem)
        self.access.served()
        self.assertFalse(path.exists())
        path.write_text(json.dumps({"kind": "Config"}))
        self.assertIn("current-context", await self.who())


class AuthorityTests(JoiningCase):
    """
    The cluster's CA changes.
    """

    async def test_followed(self) -> None:
        """
        A CA that the cluster names beside its old one is taken over, over a connection that the old one verifies.
        """
        await self.who()
        new = make_ca("new")
        both = self.api.ca.cert_pem + new.cert_pem
        invite(self.api, TOKEN, ca_pem=both)
        await self.access.follow_ca()
        self.assertEqual((self.files.read_ca(), self.trusted), (both, 2))
        await self.access.follow_ca()
        self.assertEqual(self.trusted, 2)

    async def test_not_followed(self) -> None:
        """
        A server that the CA at hand does not verify changes nothing.
        """
        await self.who()
        other = MiniAPI(reactor)
        self.addCleanup(other.stop)
        other.start()
        invite(other, TOKEN)
        self.make(servers=(other.url,))
        with self.assertRaises(ApiError):
            await self.access.follow_ca()
        self.assertEqual(self.files.read_ca(), self.api.ca.cert_pem)

    async def test_made_anew(self) -> None:
        """
        A cluster that was made anew is joined by a new token, whose pin must fit.
        """
        await self.who()
        other = MiniAPI(reactor)
        self.addCleanup(other.stop)
        other.start()
        invite(other, SECOND)
        self.make(servers=(other.url,), join_token=SECOND)
        self.assertIn("--discovery-token-ca-cert-hash", await self.who())
        self.make(ca_hashes=frozenset({ca_hash(other.ca.certificate)}))
        client = await self.access.client(None)
        await client.get("/api/v1/nodes")
        client.close()
        self.assertEqual(other.seen[-1].user, SECOND_BOOTSTRAPPER)
        self.assertEqual(self.files.read_ca(), other.ca.cert_pem)

    async def test_torn(self) -> None:
        """
        A torn CA file is none, and written again.
        """
        await self.who()
        self.files.ca.write_bytes(self.api.ca.cert_pem[:200])
        self.assertEqual(self.files.read_ca(), b"")
        self.assertEqual(await self.who(), BOOTSTRAPPER)
        self.assertEqual(self.files.read_ca(), self.api.ca.cert_pem)
