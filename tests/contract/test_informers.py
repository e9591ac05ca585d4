"""
The contract between an informer and an apiserver.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.web.client import ResponseNeverReceived

import yurt.kube.mirror
from tests.certs import Authority, issue
from yurt.kube.api import client_from_kubeconfig
from yurt.kube.informer import Informer
from yurt.kube.kubeconfig import Kubeconfig

from .subjects import Contract, OnMini, OnReal, pause

PERIOD = 0.05


class InformerContract(Contract):
    """
    What holds of an informer's view of a collection.
    """

    url: str
    ca: Authority
    patch: Any
    forget_history: Any

    def informer(self, path: str, user: str = "admin", **fields: Any) -> Informer[str]:
        """
        A running informer on the values of ConfigMaps.
        """
        if "token" not in fields:
            identity = issue(self.ca, user, ["system:masters"] if user == "admin" else [])
            fields |= {"cert_data": identity.cert_pem, "key_data": identity.key_pem}
        client = client_from_kubeconfig(reactor, Kubeconfig(self.url, ca_data=self.ca.cert_pem, **fields), "contract")
        self.addCleanup(client.close)

        def value(body: bytes) -> str:
            text: str = json.loads(body)["data"]["value"]
            return text

        informer = Informer(reactor, client, path, value, what="config", draw=lambda: 0.05)
        informer.startService()
        self.addCleanup(self.stop, informer)
        return informer

    def stop(self, informer: Informer[str]) -> None:
        if informer.running:
            informer.stopService()

    async def until(self, condition: Callable[[], bool]) -> None:
        """
        Wait for a condition; the test's timeout bounds it.
        """
        while not condition():
            await pause(PERIOD)

    async def until_it_has(self, informer: Informer[str], **values: str) -> None:
        await self.until(lambda: {key.partition("/")[2]: value for key, value in informer.items.items()} == values)

    async def put(self, path: str, name: str, value: str) -> None:
        document = {"metadata": {"name": name}, "data": {"value": value}}
        try:
            reply = await self.admin.ask("PUT", f"{path}/{name}", document)
        except ResponseNeverReceived:  # over a connection from before the server's restart
            reply = await self.admin.ask("PUT", f"{path}/{name}", document)
        if reply.status == 404:
            reply = await self.admin.ask("POST", path, document)
        self.assertIn(reply.status, (200, 201), reply.body)

    async def collection(self) -> str:
        """
        An empty collection of ConfigMaps of this test's own; whatever the server puts there is removed.
        """
        path = f"{await self.namespace()}/configmaps"
        await self.admin.ask("DELETE", path)
        return path

    async def test_follow(self) -> None:
        """
        It has what is there, and what happens then.
        """
        path = await self.collection()
        await self.put(path, "a", "1")
        informer = self.informer(path)
        await self.until_it_has(informer, a="1")
        await self.put(path, "b", "1")
        await self.put(path, "a", "2")
        await self.until_it_has(informer, a="2", b="1")
        await self.admin.ask("DELETE", f"{path}/b")
        await self.until_it_has(informer, a="2")
        self.assertEqual((informer.problem, informer.mirror.lists), (None, 1))

    async def test_pages(self) -> None:
        """
        A list in pages is the whole list.
        """
        self.patch(yurt.kube.mirror, "PAGE_ITEMS", 3)
        path = await self.collection()
        values = {f"c{number}": str(number) for number in range(10)}
        for name, value in values.items():
            await self.put(path, name, value)
        informer = self.informer(path)
        await self.until_it_has(informer, **values)
        await self.put(path, "c10", "10")
        await self.until_it_has(informer, **values, c10="10")

    async def test_resume(self) -> None:
        """
        Stopped and started again it hears what it missed, without a list.
        """
        path = await self.collection()
        await self.put(path, "a", "1")
        await self.put(path, "b", "1")
        informer = self.informer(path)
        await self.until_it_has(informer, a="1", b="1")
        informer.stopService()
        await self.admin.ask("DELETE", f"{path}/a")
        await self.put(path, "b", "2")
        informer.startService()
        await self.until_it_has(informer, b="2")
        self.assertEqual(informer.mirror.lists, 1)

    async def test_history_gone(self) -> None:
        """
        When the server has forgotten what was missed, deletions are told all the same, of the comparison with a new list.
        """
        path = await self.collection()
        for name in "abc":
            await self.put(path, name, "1")
        informer = self.informer(path)
        await self.until_it_has(informer, a="1", b="1", c="1")
        informer.stopService()
        await self.admin.ask("DELETE", f"{path}/a")
        await self.put(path, "b", "2")
        await self.put(path, "d", "1")
        await self.forget_history()
        changes: list[tuple[str, str | None, str | None]] = []
        informer.subscribe(lambda key, old, new: changes.append((key.partition("/")[2], old, new)))
        informer.startService()
        await self.until_it_has(informer, b="2", c="1", d="1")
        self.assertEqual(sorted(changes), [("a", "1", None), ("b", "1", "2"), ("d", None, "1")])
        self.assertEqual(informer.mirror.lists, 2)

    async def test_history_gone_while_following(self) -> None:
        """
        It goes on over a server that forgets, and one that restarts.
        """
        path = await self.collection()
        await self.put(path, "a", "1")
        informer = self.informer(path)
        await self.until_it_has(informer, a="1")
        await self.forget_history()
        await self.put(path, "a", "2")
        await self.until_it_has(informer, a="2")

    async def test_bad_token(self) -> None:
        """
        A token that the server does not know is Unauthorized, which the problem says.
        """
        informer = self.informer(await self.collection(), token="of-nobody")
        await self.until(lambda: "401 Unauthorized" in str(informer.problem))
        self.assertFalse(informer.synced)
        self.assertNotIn("of-nobody", str(informer.problem))


class MiniInformerTests(InformerContract, OnMini):
    """
    On the miniature apiserver.
    """

    timeout = 180


class RealInformerTests(InformerContract, OnReal):
    """
    On the real one.
    """

    async def test_no_right(self) -> None:
        """
        Without the right to list, the problem says what is forbidden to whom.
        """
        informer = self.informer(await self.collection(), user="somebody")
        await self.until(lambda: informer.mirror.failures > 1)
        self.assertIn("403 Forbidden", str(informer.problem))
        self.assertIn('User "somebody" cannot list resource "configmaps"', str(informer.problem))
