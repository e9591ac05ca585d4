"""
The documents say what the code does, as far as that can be compared.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.certs import issue, make_ca
from yurt.hub import metrics as hub_metrics
from yurt.hub.tap import Options as HubOptions
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
    figures = hub_metrics.Figures(servers={"s": hub_metrics.ServerFigures(True, 1)}, certificate_expires_in=1.0)
    series = hub_metrics.HubMetrics(registry, "1", lambda: figures).series("c", "v", "r")
    series.from_cloud, series.cloud_latency = 1, 1.0


def count_server(registry: CollectorRegistry) -> None:
    metrics = server_metrics.ServerMetrics(registry, "1", lambda: server_metrics.Figures(connections={"tls": 1}))
    metrics.request_started(b"GET", b"/pods")
    for count in (metrics.accepted, metrics.refused, metrics.ended, metrics.reconnected):
        count("lost")


def count_agent(registry: CollectorRegistry) -> None:
    metrics = agent_metrics.AgentMetrics(registry, "1")
    for count in (metrics.connect_failed, metrics.ended, metrics.refused):
        count("lost")


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


SERVER = Page("yurt-tunnel-server.md", ServerOptions.declared, server_metrics.PREFIX, count_server)
AGENT = Page("yurt-tunnel-agent.md", AgentOptions.declared, agent_metrics.PREFIX, count_agent)
PAGES = (Page("operators.md", HubOptions.declared, hub_metrics.PREFIX, count_hub), SERVER, AGENT)


def named(text: str) -> set[str]:
    """
    The names in the first column of a table.
    """
    return {name for cell in re.findall(r"^\| (`[^|]*`) \|", text, re.MULTILINE) for name in re.findall(r"`([^`]+)`", cell)}


class PageTests(SynchronousTestCase):
    """
    Tests of the daemons' pages.
    """

    def test_flags(self) -> None:
        """
        A table of flags has each one with its default, in the order of --help, and no other.
        """
        for page in PAGES:
            rows = re.findall(r"^\| `--([a-z-]+)` \| (?:`([^`]*)`)? *\|", page.section("Flags"), re.MULTILINE)
            self.assertEqual(rows, [(option.name, option.default) for option in page.options], page.name)

    def test_metrics(self) -> None:
        """
        A table of metrics has each one with its labels, and no other.
        """
        for page in PAGES:
            rows = re.findall(r"^\| `([a-z_]+)` \| ([a-z, ]*?) *\|", page.section("Metrics"), re.MULTILINE)
            told = {name: tuple(labels.split(", ")) if labels else () for name, labels in rows}
            self.assertEqual(told, page.families(), page.name)

    def test_words(self) -> None:
        """
        The server's page explains every word for a refusal, and names every way in which an agent's connection ends.
        """
        self.assertEqual(named(SERVER.section("Errors")) - {"word"}, server_metrics.REFUSALS)
        row = re.search(r"`agent_endings_total` \| reason \| .*: ([a-z, ]+) \|", SERVER.text)
        assert row is not None
        self.assertEqual(set(row[1].split(", ")), server_metrics.ENDINGS)

    def test_status(self) -> None:
        """
        The pages tell of every field of /v1/status, and of no other.
        """
        ca = make_ca()
        identity = issue(ca, "system:node:n1")
        credentials = Credentials(ca_data=ca.cert_pem, cert_data=identity.cert_pem, key_data=identity.key_pem)
        reactor: Any = MemoryReactorClock()
        server = TunnelServer(reactor, TunnelServerConfig(credentials))
        agent = TunnelAgent(reactor, AgentConfig("n1", (("127.0.0.1", 10262),), credentials))
        for page, status in ((SERVER, server.status()), (AGENT, agent.status())):
            table = page.section("Meta pages").partition("| field of the status |")[2]
            self.assertEqual(named(table), set(status), page.name)


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
