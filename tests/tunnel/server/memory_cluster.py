"""
A cluster in memory for the parts of the server that look at one.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.certs import make_ca
from tests.miniapi.memory import MemoryAPI
from yurt.kube.api import ApiClient

CA = make_ca("tunnel-server")
NOW = 1_700_000_000.0
"""The time of day when the Clock stands at 0."""
STEP = 0.05


class ClusterCase(SynchronousTestCase):
    """
    A clock, an apiserver in memory and a client of it.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = MemoryAPI(self.clock, CA)
        self.api = self.server.api
        self.client = ApiClient(self.clock, self.server)

    def another(self) -> MemoryAPI:
        """
        Another way to the same objects, which can be cut off by itself.
        """
        server = MemoryAPI(self.clock, CA)
        server.api = self.api
        return server

    def advance(self, seconds: float) -> None:
        """
        Let time pass in small steps.
        """
        for _ in range(max(1, round(seconds / STEP))):
            self.clock.advance(STEP)

    def follow(self, service: Any) -> None:
        """
        Start a service, and stop it after the test.
        """
        service.startService()
        self.addCleanup(lambda: service.running and service.stopService())
        self.advance(0.2)

    def put_node(self, name: str, *addresses: tuple[str, str], **labels: str) -> None:
        """
        Create or change a node; underscores in the names of labels stand for dashes, and ``openyurt.io/`` is put in front.
        """
        kept = {f"openyurt.io/{label.replace('_', '-')}": value for label, value in labels.items()}
        status = {"addresses": [{"type": kind, "address": address} for kind, address in addresses]}
        self.api.put("nodes", {"metadata": {"name": name, "labels": kept}, "status": status})

    def put_config(self, name: str, **data: str) -> None:
        """
        Create or change a ConfigMap of kube-system; underscores in keys stand for dashes.
        """
        kept = {key.replace("_", "-"): value for key, value in data.items()}
        self.api.put("configmaps", {"metadata": {"name": name, "namespace": "kube-system"}, "data": kept})
