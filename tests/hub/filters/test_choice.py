"""
Tests for ``yurt.hub.filters.choice``.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from yurt.hub.filters.choice import MAX_COMPONENTS, NAMES, ORDER, Chains, Settings, enabled_rules, read_settings
from yurt.hub.filters.focus import filter_names

SLICES = "discovery.k8s.io/v1/endpointslices"


def names(chains: Chains, component: str, gvr: str) -> list[str]:
    """
    The filters for a component and a resource.
    """
    return [rule.name for rule in chains.find(component, gvr)]


class SettingsTests(SynchronousTestCase):
    """
    Tests of the ConfigMap's data.
    """

    def test_keys(self) -> None:
        """
        Lists are separated by commas, with blanks; a filter's key may have the old prefix and values the old form.
        """
        settings = read_settings(
            {
                "cache_agents": "a, b*,,a",
                "servicetopology": " My-Ingress ,other",
                "filter_servicetopology": "third/endpointslices#list;watch",
                "masterservice": "",
                "unknown": "x",
            }
        )
        self.assertEqual(settings, Settings(("a", "b*"), {"servicetopology": ("my-ingress", "other", "third")}))

    def test_odd(self) -> None:
        """
        What is no text counts for nothing, and long lists are cut.
        """
        self.assertEqual(read_settings({"cache_agents": 7, "masterservice": None}), Settings())
        many = ",".join(f"c{number}" for number in range(1000))
        settings = read_settings({"cache_agents": many, "masterservice": many})
        self.assertEqual(
            (len(settings.cache_agents), len(settings.components["masterservice"])), (MAX_COMPONENTS, MAX_COMPONENTS)
        )


class FlagTests(SynchronousTestCase):
    """
    Tests of flags.
    """

    def test_enabled(self) -> None:
        """
        All filters are on, but for those that are named; an asterisk, or the switch, turns all off.
        """
        self.assertEqual(enabled_rules(enabled=True, disabled=()), ORDER)
        left = [rule.name for rule in enabled_rules(enabled=True, disabled=("masterservice",))]
        self.assertEqual(left, [name for name in NAMES if name != "masterservice"])
        self.assertEqual(enabled_rules(enabled=True, disabled=("*",)), ())
        self.assertEqual(enabled_rules(enabled=False, disabled=()), ())

    def test_names(self) -> None:
        """
        A name that is none is refused, with those that there are.
        """
        self.assertEqual(filter_names(("masterservice", "*")), ("masterservice", "*"))
        with self.assertRaisesRegex(ValueError, "masterservises is no filter; there are masterservice, discardcloudservice"):
            filter_names(("masterservises",))


class ChainTests(SynchronousTestCase):
    """
    Tests of what is filtered for whom.
    """

    def test_defaults(self) -> None:
        """
        OpenYurt's components and resources, in a fixed order.
        """
        chains = Chains(ORDER, Settings())
        self.assertEqual(names(chains, "kube-proxy", "/v1/services"), ["discardcloudservice", "nodeportisolation"])
        self.assertEqual(names(chains, "kube-proxy", SLICES), ["servicetopology", "forwardkubesvctraffic"])
        self.assertEqual(names(chains, "coredns", "/v1/endpoints"), ["servicetopology"])
        self.assertEqual(names(chains, "nginx-ingress-controller", SLICES), ["servicetopology"])
        self.assertEqual(names(chains, "kubelet", "/v1/services"), ["masterservice"])
        self.assertEqual(names(chains, "kubelet", "/v1/pods"), ["hostnetworkpropagation", "serviceenvupdater"])
        self.assertEqual(names(chains, "kubelet", SLICES), [])
        self.assertEqual(names(chains, "curl", "/v1/services"), [])

    def test_added(self) -> None:
        """
        The ConfigMap adds components to those that a filter has; what is turned off stays off, and the hub reads the truth.
        """
        settings = read_settings({"discardcloudservice": "my-agent,yurthub", "masterservice": "my-agent"})
        chains = Chains(enabled_rules(enabled=True, disabled=("masterservice",)), settings)
        self.assertEqual(names(chains, "my-agent", "/v1/services"), ["discardcloudservice"])
        self.assertEqual(names(chains, "kube-proxy", "/v1/services"), ["discardcloudservice", "nodeportisolation"])
        self.assertEqual(names(chains, "yurthub", "/v1/services"), [])
