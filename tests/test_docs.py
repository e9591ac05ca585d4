"""
The documents say what the code does, as far as that can be compared.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import yaml
from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.certs import issue, make_ca
from tests.e2e.doors import EGRESS_SOCKET, EGRESS_TLS, egress_configuration
from yurt.controllers import metrics as controller_metrics
from yurt.controllers.config import ControllersConfig
from yurt.controllers.registry import NAMES
from yurt.controllers.service import ControllerManager
from yurt.controllers.tap import Options as ControllerOptions
from yurt.hub import metrics as hub_metrics
from yurt.hub.swept import Swept
from yurt.hub.tap import Options as HubOptions
from yurt.kube.kubeconfig import Kubeconfig
from yurt.metrics import ReactorLag
from yurt.options import Option
from yurt.tls import Credentials
from yurt.tunnel.agent import metrics as agent_metrics
from yurt.tunnel.agent.config import AgentConfig
from yurt.tunnel.agent.service import TunnelAgent
from yurt.tunnel.agent.tap import Options as AgentOptions
from yurt.tunnel.server import metrics as server_metrics
from yurt.tunnel.server.config import TunnelServerConfig
from yurt.tunnel.server.service import TunnelServer
from yurt.tunnel.server.tap import Options as ServerOptions

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def count_hub(registry: CollectorRegistry) -> None:
    servers, swept = {"s": hub_metrics.ServerFigures(True, 1)}, Swept(usage={"c": 1})
    figures = hub_metrics.Figures(servers, certificate_expires_in=1.0, serving_certificate_expires_in=1.0, swept=swept)
    series = hub_metrics.HubMetrics(registry, "1", lambda: figures).series("c", "v", "r")
    series.from_cloud, series.cloud_latency = 1, 1.0


def count_server(registry: CollectorRegistry) -> None:
    figures = server_metrics.Figures(connections={"tls": 1}, certificates_expire_in={"serving": 1.0})
    metrics = server_metrics.ServerMetrics(registry, "1", lambda: figures)
    metrics.request_started(b"GET", b"/pods")
    for count in (metrics.accepted, metrics.refused, metrics.ended, metrics.reconnected):
        count("lost")


def count_agent(registry: CollectorRegistry) -> None:
    metrics = agent_metrics.AgentMetrics(registry, "1", lambda: agent_metrics.Figures(certificate_expires_in=1.0))
    for count in (metrics.connect_failed, metrics.ended, metrics.refused):
        count("lost")


def count_controllers(registry: CollectorRegistry) -> None:
    metrics = controller_metrics.ManagerMetrics(registry, "lease")
    controller_metrics.ControllerMetrics(metrics, "one").wrote("approve")


@dataclass(frozen=True)
class Page:
    """
    The page of a daemon: the options and the prefix of metrics that it is to tell of; ``count(registry)`` makes all metrics,
    each with its labels.
    """

    name: str
    options: Sequence[Option]
    prefix: str
    count: Callable[[CollectorRegistry], None]

    @property
    def text(self) -> str:
        """
        What it says.
        """
        return (DOCS / self.name).read_text()

    def section(self, title: str) -> str:
        """
        What stands below a title of the second level.
        """
        found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", self.text, re.MULTILINE | re.DOTALL)
        assert found is not None, f"{self.name}: {title}"
        return found[1]

    def families(self) -> dict[str, tuple[str, ...]]:
        """
        Metric names without prefix, as Prometheus stores them, and their labels.
        """
        registry = CollectorRegistry()
        self.count(registry)
        ReactorLag(Clock(), registry, self.prefix)
        found: dict[str, tuple[str, ...]] = {}
        for family in registry.collect():
            name = family.name + ("_total" if family.type == "counter" else "")
            order = [label for sample in family.samples for label in sample.labels if label != "le"]
            found[name.removeprefix(self.prefix + "_")] = tuple(dict.fromkeys(order))
        return found


HUB = Page("operators.md", HubOptions.declared, hub_metrics.PREFIX, count_hub)
SERVER = Page("yurt-tunnel-server.md", ServerOptions.declared, server_metrics.PREFIX, count_server)
AGENT = Page("yurt-tunnel-agent.md", AgentOptions.declared, agent_metrics.PREFIX, count_agent)
CONTROLLERS = Page("yurt-controller-manager.md", ControllerOptions.declared, controller_metrics.PREFIX, count_controllers)


def named(text: str) -> set[str]:
    """
    The names in the first column of a table.
    """
    return {name for cell in re.findall(r"^\| (`[^|]*`) \|", text, re.MULTILINE) for name in re.findall(r"`([^`]+)`", cell)}


class KubeadmKeys:
    """
    Where kubeadm has what end-to-end tests have in a folder of theirs.
    """

    def file(self, name: str) -> str:
        """
        The path of a file.
        """
        return f"/etc/kubernetes/pki/{name.replace('kubelet-client', 'apiserver-kubelet-client')}"


class HubTests(SynchronousTestCase):
    """
    Tests of the hub's page.
    """

    page = HUB

    def test_flags(self) -> None:
        """
        The table of flags has each one with its default, in the order of --help, and no other.
        """
        rows = re.findall(r"^\| `--([a-z-]+)` \| (?:`([^`]*)`)? *\|", self.page.section("Flags"), re.MULTILINE)
        self.assertEqual(rows, [(option.name, option.default) for option in self.page.options])

    def test_metrics(self) -> None:
        """
        The table of metrics has each one with its labels, and no other.
        """
        rows = re.findall(r"^\| `([a-z_]+)` \| ([a-z, ]*?) *\|", self.page.section("Metrics"), re.MULTILINE)
        told = {name: tuple(labels.split(", ")) if labels else () for name, labels in rows}
        self.assertEqual(told, self.page.families())

    def told_of_status(self) -> set[str]:
        """
        The fields of /v1/status that the page tells of.
        """
        return named(self.page.section("Meta pages").partition("| field of the status |")[2])


def tunnel_credentials() -> Credentials:
    """
    A CA and a node's certificate.
    """
    ca = make_ca()
    identity = issue(ca, "system:node:n1")
    return Credentials(ca_data=ca.cert_pem, cert_data=identity.cert_pem, key_data=identity.key_pem)


class ControllerTests(HubTests):
    """
    Tests of the controllers' page.
    """

    page = CONTROLLERS

    def test_status(self) -> None:
        """
        It tells of every field of /v1/status, and of no other.
        """
        reactor: Any = MemoryReactorClock()
        config = ControllersConfig(Kubeconfig("http://127.0.0.1:1"), frozenset(NAMES))
        self.assertEqual(self.told_of_status(), set(ControllerManager(reactor, config).status()))


class TunnelServerTests(HubTests):
    """
    Tests of the tunnel server's page.
    """

    page = SERVER

    def test_words(self) -> None:
        """
        It explains every word for a refusal, and names every way in which an agent's connection ends.
        """
        self.assertEqual(named(self.page.section("Errors")) - {"word"}, server_metrics.REFUSALS)
        row = re.search(r"`agent_endings_total` \| reason \| .*: ([a-z, ]+) \|", self.page.text)
        assert row is not None
        self.assertEqual(set(row[1].split(", ")), server_metrics.ENDINGS)

    def test_egress_configuration(self) -> None:
        """
        What it has for the API server is what end-to-end tests give to a real one.
        """
        section = self.page.text.partition("### HTTP CONNECT")[2]
        whole, transport = (dedent(block) for block in re.findall(r"(?:^ {4}.*\n)+", section, re.MULTILINE)[:2])
        keys: Any = KubeadmKeys()
        by_tls = egress_configuration(EGRESS_TLS, keys, "127.0.0.1", Path())
        self.assertEqual(yaml.safe_load(whole), by_tls)
        by_socket = egress_configuration(EGRESS_SOCKET, keys, "", Path("/run/yurt-tunnel-server/egress.sock"))
        self.assertEqual(yaml.safe_load(transport)["transport"], by_socket["egressSelections"][0]["connection"]["transport"])

    def test_status(self) -> None:
        """
        It tells of every field of /v1/status, and of no other.
        """
        reactor: Any = MemoryReactorClock()
        server = TunnelServer(reactor, TunnelServerConfig(tunnel_credentials()))
        self.assertEqual(self.told_of_status(), set(server.status()))


class TunnelAgentTests(HubTests):
    """
    Tests of the tunnel agent's page.
    """

    page = AGENT

    def test_status(self) -> None:
        """
        It tells of every field of /v1/status, and of no other.
        """
        reactor: Any = MemoryReactorClock()
        agent = TunnelAgent(reactor, AgentConfig("n1", (("127.0.0.1", 10262),), tunnel_credentials()))
        self.assertEqual(self.told_of_status(), set(agent.status()))


class LinkTests(SynchronousTestCase):
    """
    Tests of all documents.
    """

    def test_links(self) -> None:
        """
        A link to a file of the repository leads to one, and a link to a chapter to a title there.
        """
        for page in [ROOT / "README.md", *DOCS.glob("*.md")]:
            for target, _, chapter in re.findall(r"\]\(([^)#:]*)(#([^)]+))?\)", page.read_text()):
                path = page.parent / target if target else page
                self.assertTrue(path.exists(), f"{page.name}: {target}")
                if chapter:
                    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
                    anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
                    self.assertIn(chapter, anchors, page.name)
