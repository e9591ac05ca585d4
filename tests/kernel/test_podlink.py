"""
Tests for :mod:`yurt.hub.podlink` in a real daemon on the running kernel.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from tests.host.contracts import BOTH, NAME
from tests.kernel.namespaces import TOOL_SECONDS, add_namespace, end, read_line, saved_rules
from yurt.host.firewall import POD_COMMENT


class DaemonTests(SynchronousTestCase):
    """
    A daemon that is started, killed, disturbed and stopped.
    """

    def setUp(self) -> None:
        self.namespace = add_namespace(self)

    def start(self) -> subprocess.Popen[bytes]:
        """
        Start the daemon and wait until it tells both addresses.
        """
        daemon = self.namespace.start_python("-m", "tests.kernel.podlink_daemon")
        self.addCleanup(end, daemon)
        self.assert_told(daemon)
        return daemon

    def assert_told(self, daemon: subprocess.Popen[bytes]) -> None:
        """
        Wait for the next line of the daemon: both addresses.
        """
        self.assertEqual(read_line(daemon), json.dumps(BOTH))

    def rules(self) -> int:
        """
        How many rules of ours there are.
        """
        return saved_rules(self.namespace, "nft").count(POD_COMMENT)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """
        Look again until it holds.
        """
        deadline = time.monotonic() + TOOL_SECONDS
        while not condition():
            self.assertLess(time.monotonic(), deadline, "it never came to be")
            time.sleep(0.05)

    def link_index(self) -> int:
        """
        The number that the kernel gave the link; another link has another one.
        """
        (link,) = json.loads(self.namespace.run("ip", "-j", "link", "show", "dev", NAME))
        return int(link["ifindex"])

    def test_life(self) -> None:
        """
        Link and rules come with the start; after kill -9 the next one finds them and adds nothing; deleted by someone the link
        comes again; a clean stop leaves neither.
        """
        daemon = self.start()
        self.wait_for(lambda: self.rules() == 14)
        index = self.link_index()
        daemon.kill()
        daemon.wait()
        self.assertEqual((self.link_index(), self.rules()), (index, 14))

        daemon = self.start()
        self.namespace.run("ip", "link", "del", NAME)
        self.assert_told(daemon)
        self.assertNotEqual(self.link_index(), index)
        self.assertEqual(self.rules(), 14)

        daemon.terminate()
        self.assertEqual(read_line(daemon), "stopped")
        daemon.wait(TOOL_SECONDS)
        self.assertNotIn(NAME, self.namespace.run("ip", "link"))
        self.assertEqual(self.rules(), 0)

    def test_foreign_link(self) -> None:
        """
        While someone else's link has the name the daemon waits; when it is gone the daemon makes its own.
        """
        self.namespace.run("ip", "link", "add", NAME, "type", "veth", "peer", "name", "other0")
        daemon = self.namespace.start_python("-m", "tests.kernel.podlink_daemon")
        self.addCleanup(end, daemon)
        self.wait_for(lambda: self.rules() == 14)
        self.namespace.run("ip", "link", "del", NAME)
        self.assert_told(daemon)
