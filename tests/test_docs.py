"""
The documents say what the code does, as far as that can be compared.
"""

import re
from pathlib import Path

from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from yurt.hub.metrics import PREFIX, Figures, HubMetrics, ServerFigures
from yurt.hub.tap import Options
from yurt.metrics import ReactorLag

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "operators.md").read_text()


def families() -> dict[str, tuple[str, ...]]:
    """
    Metric names without prefix, as Prometheus stores them, and their labels.
    """
    registry = CollectorRegistry()
    metrics = HubMetrics(registry, "1", lambda: Figures(servers={"s": ServerFigures(True, 1)}))
    series = metrics.series("c", "v", "r")
    series.from_cloud, series.cloud_latency = 1, 1.0
    ReactorLag(Clock(), registry, PREFIX)
    found: dict[str, tuple[str, ...]] = {}
    for family in registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels if label != "le"}
        order = [label for sample in family.samples for label in sample.labels]
        found[name.removeprefix(PREFIX + "_")] = tuple(sorted(labels, key=order.index))
    return found


class GuideTests(SynchronousTestCase):
    """
    Tests of docs/operators.md.
    """

    def test_flags(self) -> None:
        """
        The table of flags has each one with its default, in the order of --help, and no other.
        """
        rows = re.findall(r"^\| `--([a-z-]+)` \| (?:`([^`]*)`)? *\|", GUIDE, re.MULTILINE)
        self.assertEqual(rows, [(option.name, option.default) for option in Options.declared])

    def test_metrics(self) -> None:
        """
        The table of metrics has each one with its labels, and no other.
        """
        section = GUIDE.partition("## Metrics")[2]
        rows = re.findall(r"^\| `([a-z_]+)` \| ([a-z, ]*?) *\|", section, re.MULTILINE)
        self.assertEqual({name: tuple(labels.split(", ")) if labels else () for name, labels in rows}, families())


class LinkTests(SynchronousTestCase):
    """
    Tests of all documents.
    """

    def test_links(self) -> None:
        """
        A link to a file of the repository leads to one.
        """
        for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
            for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
                self.assertTrue((page.parent / target).exists(), f"{page.name}: {target}")
