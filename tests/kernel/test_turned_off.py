"""
Tests of whole daemons with the real kernel whose operator has turned their firewall rules off after they were killed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from tests.certs import issue, make_ca
from tests.host.contracts import BOTH, NAME, RULES
from tests.kernel.namespaces import TOOL_SECONDS, Namespace, add_namespace, end, saved_rules
from yurt.host.firewall import POD_COMMENT, pod_rules
from yurt.host.links import parse_link
from yurt.host.messages import Request, encode
from yurt.host.tunnel_rules import TUNNEL_ROOT

if TYPE_CHECKING:
    _Mixin = SynchronousTestCase
else:
    _Mixin = object  # a contract alone is no test case

THEIRS = "-A INPUT -p tcp -m comment --comment theirs -j ACCEPT"
TWISTD = str(Path(sys.executable).with_name("twistd"))


class TurnedOffContract(_Mixin):
    """
    What holds whichever firewall the host uses.
    """

    flavour: str

    def setUp(self) -> None:
        self.host: Namespace = add_namespace(self)
        for family in ("iptables", "ip6tables"):
            self.host.run(f"{family}-{self.flavour}", *THEIRS.split())
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        ca = make_ca()
        one = issue(ca, "system:node:n1", ["system:nodes"], ips=["127.0.0.1"])
        for name, content in (("ca.crt", ca.cert_pem), ("one.crt", one.cert_pem), ("one.key", one.key_pem)):
            (self.folder / name).write_bytes(content)

    def leave(self, request: Request, mark: str) -> None:
        """
        Make what an earlier run left.
        """
        self.host.run(sys.executable, "-m", "yurt.host", text=encode(request).decode())
        self.assertIn(mark, self.saved())

    def saved(self) -> str:
        """
        All rules.
        """
        return saved_rules(self.host, self.flavour)

    def run_daemon(self, *words: str) -> subprocess.Popen[bytes]:
        """
        Start a daemon in the namespace.
        """
        daemon = self.host.start(TWISTD, "--nodaemon", "--pidfile=", f"--logfile={self.folder}/log", *words)
        self.addCleanup(end, daemon)
        return daemon

    def assert_removed(self, daemon: subprocess.Popen[bytes], mark: str) -> None:
        """
        The rules go, and those of others stay.
        """
        deadline = time.monotonic() + TOOL_SECONDS
        while mark in self.saved():
            self.assertIsNone(daemon.poll(), "the daemon ended")
            self.assertLess(time.monotonic(), deadline, "they are still there")
            time.sleep(0.05)
        self.assertEqual(self.saved().count(THEIRS), 2)

    def server(self) -> subprocess.Popen[bytes]:
        """
        A server that keeps no rules.
        """
        files = [f"--{name}={self.folder}/{file}" for name, file in (("tls-cert-file", "one.crt"), ("client-ca-file", "ca.crt"))]
        key = f"--tls-private-key-file={self.folder}/one.key"
        return self.run_daemon("yurt-tunnel-server", *files, key, "--bind-address=127.0.0.1", "--enable-iptables=false")

    def hub(self, *options: str) -> subprocess.Popen[bytes]:
        """
        A hub whose API server does not answer.
        """
        named = (("ca", "ca.crt"), ("cert", "one.crt"), ("key", "one.key"))
        files = [f"--{name}-file={self.folder}/{file}" for name, file in named]
        root = f"--root-dir={self.folder}/root"
        return self.run_daemon("yurthub", "--node-name=n1", "--server-addr=https://127.0.0.1:1", *files, root, *options)

    def test_server(self) -> None:
        """
        A server that keeps no rules removes those that an earlier run of it left.
        """
        self.leave(Request("ensure", tunnel=RULES), TUNNEL_ROOT)
        self.assert_removed(self.server(), TUNNEL_ROOT)

    def test_hub(self) -> None:
        """
        So does a hub; its link stays.
        """
        link = parse_link(NAME, "auto", BOTH)
        self.leave(Request("ensure", link, pod_rules(BOTH, (10261, 10268))), POD_COMMENT)
        self.assert_removed(self.hub(f"--dummy-if-name={NAME}"), POD_COMMENT)
        self.assertIn(NAME, self.host.run("ip", "link"))

    def test_hub_without_link(self) -> None:
        """
        So does one that has no link any more.
        """
        self.leave(Request("ensure", rules=pod_rules(BOTH, (10261,))), POD_COMMENT)
        self.assert_removed(self.hub("--enable-dummy-if=false", "--enable-iptables"), POD_COMMENT)


class RestoreTests(TurnedOffContract, SynchronousTestCase):
    """
    A host on nf_tables.
    """

    flavour = "nft"


class LegacyTests(TurnedOffContract, SynchronousTestCase):
    """
    A host on legacy tables.
    """

    flavour = "legacy"
