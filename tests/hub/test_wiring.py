"""
Tests of how the hub's parts are wired together.
"""

import os
import tempfile
from dataclasses import replace

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.certs import make_ca
from yurt.hub.config import HubConfig, NodeCredentials
from yurt.hub.identity import Door
from yurt.hub.podlink import PodLinkSettings
from yurt.hub.service import HubService


class DoorTests(SynchronousTestCase):
    """
    Tests of who may speak as the node.
    """

    def doors(self, addresses: tuple[str, ...], pod_link: PodLinkSettings) -> dict[str, bool]:
        """
        The proxy's doors, and whether they lend the node's identity.
        """
        credentials = NodeCredentials(ca_data=make_ca().cert_pem, token="a-token")
        config = HubConfig(("https://127.0.0.1:1",), "n1", credentials, disk_cache_path=tempfile.mkdtemp(dir=os.getcwd()))
        hub = HubService(MemoryReactorClock(), replace(config, bind_proxy_addresses=addresses, pod_link=pod_link))
        doors = [factory.door for factory in hub.doors.factories]
        return {door.name: door.lends_node_identity for door in doors if isinstance(door, Door)}

    def test_only_on_loopback(self) -> None:
        """
        The node's identity is lent on loopback, and nowhere else, whatever addresses are given.
        """
        doors = self.doors(("127.0.0.1", "::1", "127.0.0.53", "0.0.0.0", "::", "10.0.0.1"), PodLinkSettings())
        loopback = {f"{host}:{port}" for host in ("127.0.0.1", "::1", "127.0.0.53") for port in (10261, 10268)}
        self.assertEqual({name for name, lends in doors.items() if lends}, loopback)
        self.assertLessEqual({"169.254.2.1:10261", "169.254.2.1:10268"}, set(doors))
        self.assertEqual(len(doors), 14)

    def test_connections(self) -> None:
        """
        A door for pods takes fewer connections than one on loopback.
        """
        credentials = NodeCredentials(ca_data=make_ca().cert_pem, token="a-token")
        config = HubConfig(("https://127.0.0.1:1",), "n1", credentials, disk_cache_path=tempfile.mkdtemp(dir=os.getcwd()))
        for files, expected in ((65536, [2000, 2000, 500, 500]), (1200, [188, 188, 41, 41])):
            hub = HubService(MemoryReactorClock(), config, files)
            self.assertEqual([factory.limits.max_connections for factory in hub.doors.factories], expected)

    def test_no_link(self) -> None:
        """
        Without the link there is no door for pods, and nowhere to send them.
        """
        doors = self.doors(("127.0.0.1",), PodLinkSettings(enable_dummy_if=False))
        self.assertEqual(doors, {"127.0.0.1:10261": True, "127.0.0.1:10268": True})
