"""
Requests that come again byte by byte: what was read of a head once means the same for nobody else, and at no other time.
"""

from __future__ import annotations

from typing import Any

from tests.hub.site import POD_ADDRESS, USER, Reply, Site, config_map
from tests.hub.test_reads import MAPS, HubCase
from yurt.http.interfaces import RequestHead
from yurt.hub import proxy
from yurt.hub.proxy import HubProxy


class RepeatedHeadTests(HubCase):
    """
    The whole way over sockets, on connections that are kept.
    """

    def setUp(self) -> None:
        self.read: list[RequestHead] = []
        read = HubProxy.read

        def noting(proxy: HubProxy, head: RequestHead) -> Any:
            self.read.append(head)
            return read(proxy, head)

        self.patch(HubProxy, "read", noting)

    async def again(self, site: Site, token: str, **options: Any) -> Reply:
        """
        The answer to the same request once more; its head must be one that is known.
        """
        before = len(self.read)
        reply = await site.get(MAPS, token=token, **options)
        self.assertEqual(len(self.read), before, "the head was read anew")
        return reply

    async def test_doors(self) -> None:
        """
        The node's identity is lent at the node's door alone, whichever door a head came in by before.
        """
        site = await self.site_with(config_map("a"))
        for _ in range(2):
            self.assert_from(await site.get(MAPS), "cloud")
            self.assert_failure(await site.get(MAPS, address=POD_ADDRESS), 401, "Unauthorized")
        self.assert_failure(await self.again(site, "", address=POD_ADDRESS), 401, "Unauthorized")
        self.assert_from(await self.again(site, ""), "cloud")
        self.assertEqual((site.api.seen[-1].user, site.api.seen[-1].certificate), (USER, USER))

    async def test_peers(self) -> None:
        """
        It is lent to callers on this machine alone, whoever asked the same before; each connection is looked at by itself.
        """
        site = await self.site_with(config_map("a"))
        self.assert_from(await site.get(MAPS), "cloud")
        is_loopback = proxy.is_loopback
        self.patch(proxy, "is_loopback", lambda peer: False)  # as of a packet rewritten on its way
        await site.hang_up()
        self.assert_failure(await self.again(site, ""), 401, "Unauthorized")
        self.patch(proxy, "is_loopback", is_loopback)
        self.assert_from(await self.again(site, ""), "cloud")

    async def test_refused_token(self) -> None:
        """
        The cloud decides about the same token each time; one that it came to refuse does not count without it.
        """
        site = await self.site_with(config_map("a"))
        token = site.api.token("a")
        self.assert_from(await site.get(MAPS, token=token), "cloud")
        site.api.issuer.revoked.add(token)
        self.assert_from(await self.again(site, token), "cloud", 401)
        await site.offline()
        self.assert_failure(await self.again(site, token), 401, "Unauthorized")

    async def test_accepted_token(self) -> None:
        """
        A token of which nothing was known without the cloud counts once the cloud has taken it.
        """
        self.leave_issuer_keys()
        site = await self.site_with(config_map("a"))
        token = site.api.token("a")
        await site.offline()
        self.assert_failure(await site.get(MAPS, token=token), 401, "Unauthorized")
        await site.online()
        self.assert_from(await self.again(site, token), "cloud")
        await site.offline()
        self.assert_from(await self.again(site, token), "cache")

    async def test_expired_token(self) -> None:
        """
        A token that expires between two requests does not count for the second one.
        """
        site = await self.site_with(config_map("a"))
        token = site.api.token("a", seconds=600)
        self.assert_from(await site.get(MAPS, token=token), "cloud")
        await site.offline()
        self.assert_from(await self.again(site, token), "cache")
        tokens = site.hub.tokens
        now = tokens._now
        self.patch(tokens, "_now", lambda: now() + 601)
        self.assert_failure(await self.again(site, token), 401, "Unauthorized")

    async def test_tokens_apart(self) -> None:
        """
        Heads that differ in their token alone are two: each caller is told what it may see.
        """
        self.leave_issuer_keys()
        site = await self.site_with(config_map("a"))
        one, other = site.api.token("a"), site.api.token("b")
        self.assert_from(await site.get(MAPS, token=one), "cloud")
        await site.offline()
        self.assert_failure(await site.get(MAPS, token=other), 401, "Unauthorized")
        self.assert_from(await self.again(site, one), "cache")
        self.assert_failure(await self.again(site, other), 401, "Unauthorized")

    async def test_agents_chosen_anew(self) -> None:
        """
        What the ConfigMap adds to the cached agents holds from the next request on, and no longer than it stands there.
        """
        site = await self.site_with(config_map("a"))
        for names, views in (((), 0), (("mine",), 1), ((), 1)):
            site.hub.add_agents(names)
            self.assert_from(await site.get(MAPS, agent="mine"), "cloud")
            self.assertEqual(len(await site.views("/v1/configmaps")), views)
        self.assertEqual(len([head for head in self.read if head.target == MAPS.encode()]), 1)
        site.api.put("configmaps", config_map("b"))
        self.assert_from(await self.again(site, "", agent="mine"), "cloud")
        (view,) = await site.views("/v1/configmaps")
        self.assertEqual(view["objects"], 1)
