"""
Tests of which component a caller is, and whether it is cached.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.site import config_map
from tests.hub.test_reads import MAPS, HubCase
from yurt.hub.agents import DEFAULT_CACHE_AGENTS, CacheAgents


class ComponentTests(SynchronousTestCase):
    """
    Tests of CacheAgents.component.
    """

    def test_user_agents(self) -> None:
        """
        The product name before the first slash, in lower case, whatever follows.
        """
        agents = CacheAgents()
        for user_agent, component in {
            b"kubelet/v1.20.15 (linux/amd64) kubernetes/8f1e5bf": "kubelet",
            b"kube-proxy/v1.30.0": "kube-proxy",
            b"Kubelet/v1": "kubelet",
            b"coredns": "coredns",
            b"flanneld and more/v1": "flanneld",
            b"Mozilla/5.0 (kubelet/v1)": "mozilla",
            b"": "",
            b"/kubelet": "",
            b" kubelet/v1": "kubelet",
            b'a"b\n': "a",
            b"\xff\xfe/v1": "",
            b"a" * 70_000: "a" * 63,
        }.items():
            self.assertEqual(agents.component(user_agent), component, user_agent)
        self.assertEqual(agents.component(None), "")

    def test_aliases(self) -> None:
        """
        Distributions whose one process speaks for kubelet under its own name; the operator may name others.
        """
        self.assertEqual(CacheAgents().component(b"k3s/v1.28.2+k3s1 (linux/amd64) kubernetes/bdcdf59"), "kubelet")
        agents = CacheAgents(aliases={"EdgeD": "Kubelet"})
        self.assertEqual(agents.component(b"edged/v1"), "kubelet")
        self.assertEqual(agents.component(b"k3s/v1"), "k3s")


class CachedTests(SynchronousTestCase):
    """
    Tests of CacheAgents.cached.
    """

    def cached(self, *patterns: str) -> set[str]:
        """
        Which of some components ``patterns`` cache.
        """
        agents = CacheAgents(patterns)
        names = ("kubelet", "kube-proxy", "flanneld", "flannel-x", "coredns", "kubectl", "calico", "")
        return {name for name in names if agents.cached(name)}

    def test_default(self) -> None:
        """
        OpenYurt's seven.
        """
        agents = CacheAgents()
        self.assertEqual(len(DEFAULT_CACHE_AGENTS), 7)
        self.assertTrue(all(map(agents.cached, DEFAULT_CACHE_AGENTS)))
        for other in ("kubectl", "", "kube", "kubelet2"):
            self.assertFalse(agents.cached(other))

    def test_patterns(self) -> None:
        """
        Names, shell patterns, all, and exclusions, which win wherever they stand.
        """
        self.assertEqual(self.cached("kubelet"), {"kubelet"})
        self.assertEqual(self.cached("flannel*"), {"flanneld", "flannel-x"})
        everyone = {"kubelet", "kube-proxy", "flanneld", "flannel-x", "coredns", "kubectl", "calico"}
        self.assertEqual(self.cached("*"), everyone)
        self.assertEqual(self.cached("*", "!kubectl"), everyone - {"kubectl"})
        self.assertEqual(self.cached("!flannel*", "*"), everyone - {"flanneld", "flannel-x"})
        self.assertEqual(self.cached(" Kubelet ", "! coredns", "coredns"), {"kubelet"})

    def test_exclusions_alone(self) -> None:
        """
        Nothing but exclusions takes them from the default.
        """
        self.assertEqual(self.cached("!coredns"), {"kubelet", "kube-proxy", "flanneld"})

    def test_bounded(self) -> None:
        """
        Any number of user agents leaves no more behind than the bound says.
        """
        agents = CacheAgents()
        for number in range(5000):
            agents.component(b"agent-%d/v1" % number)
        self.assertLessEqual(agents.product.cache_info().currsize, 1024)


class OnTheWireTests(HubCase):
    """
    The same through a whole hub.
    """

    async def kept(self, site_agents: tuple[str, ...], *agents: str) -> list[bool]:
        """
        Which agents read again offline what they read online.
        """
        site = await self.site_with(config_map("a"), cache_agents=site_agents)
        for agent in agents:
            await site.get(MAPS, agent=agent)
        await site.offline()
        return [(await site.get(MAPS, agent=agent)).status == 200 for agent in agents]

    async def test_cache_agents(self) -> None:
        """
        ``--cache-agents`` decides.
        """
        kept = await self.kept(("*", "!kubectl"), "anything", "kubectl", "kubelet")
        self.assertEqual(kept, [True, False, True])

    async def test_edge_cache_header(self) -> None:
        """
        With ``Edge-Cache: true`` any component is cached, reads and reads again; the cloud does not see the header, whatever
        its value and the method.
        """
        site = await self.site_with(config_map("a"))
        self.assert_from(await site.get(MAPS, agent="custom", edge_cache="True"), "cloud")
        await site.get(f"{MAPS}/a", agent="custom", edge_cache="false")
        await site.ask("POST", MAPS, config_map("b"), agent="custom", edge_cache="true")
        watch = await site.watch(f"{MAPS}?watch=true", agent="custom", edge_cache="true")
        watch.close()
        self.assertEqual([seen for seen in site.api.seen if "edge-cache" in seen.headers], [])
        self.assertGreaterEqual(len([seen for seen in site.api.seen if seen.user_agent.startswith("custom")]), 4)
        await site.offline()
        self.assert_from(await site.get(MAPS, agent="custom", edge_cache="true"), "cache")

    async def test_alias_shares(self) -> None:
        """
        k3s is the kubelet of its node.
        """
        site = await self.site_with(config_map("a"))
        await site.get(MAPS, agent="k3s")
        await site.offline()
        self.assert_from(await site.get(MAPS, agent="kubelet"), "cache")
