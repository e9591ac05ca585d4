"""
Tests of whole daemons with the real kernel: an API server's host, a node that nobody can dial, and the rules between them.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from tests.kernel.edge_site import CLOUD, NAME, NODE
from tests.kernel.namespaces import Namespace, add_namespace, end, read_line, saved_rules

if TYPE_CHECKING:
    _Mixin = SynchronousTestCase
else:
    _Mixin = object  # a contract alone is no test case

KUBELET = 10250
OTHER = "10.8.0.3"
"""An address that the node is given later."""

PATIENCE = 50.0
"""Seconds for two daemons to start and find each other."""
STOP_SECONDS = 40.0
TWISTD = str(Path(sys.executable).with_name("twistd"))


class DaemonsCase(_Mixin):
    """
    Both hosts, and a link between them.
    """

    flavour: str

    def setUp(self) -> None:
        self.cloud, self.node = add_namespace(self), add_namespace(self)
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.cloud.run("ip", "link", "add", "node", "type", "veth", "peer", "name", "cloud", "netns", self.node.name)
        for namespace, link, addresses in ((self.cloud, "node", CLOUD), (self.node, "cloud", NODE)):
            for address in addresses:
                words = (f"{address}/64", "nodad") if ":" in address else (f"{address}/24",)
                namespace.run("ip", "address", "add", words[0], "dev", link, *words[1:])
            namespace.run("ip", "link", "set", link, "up")
        for family in ("iptables", "ip6tables"):
            self.node.run(f"{family}-nft", "-A", "INPUT", "-i", "cloud", "-p", "tcp", "--syn", "-j", "DROP")
            for _ in range(3):  # so that the host uses this flavour
                self.cloud.run(f"{family}-{self.flavour}", "-A", "INPUT", "-j", "ACCEPT")

    def tool(self, namespace: Namespace, *arguments: str) -> subprocess.Popen[bytes]:
        """
        A program of the tests that has said that it is ready.
        """
        process = namespace.start_python("-m", *arguments)
        self.addCleanup(end, process)
        self.assertTrue(read_line(process))
        return process

    def daemon(self, namespace: Namespace, name: str, identity: str, *options: str) -> subprocess.Popen[bytes]:
        """
        A daemon of ours.
        """
        keys = [f"--tls-cert-file={self.folder}/{identity}.crt", f"--tls-private-key-file={self.folder}/{identity}.key"]
        command = [TWISTD, "--nodaemon", "--pidfile=", f"--logfile={self.folder}/{identity}.log", name, *keys]
        process = namespace.start(*command, f"--client-ca-file={self.folder}/ca.crt", *options)
        self.addCleanup(end, process)
        return process

    def dial(self, dialler: subprocess.Popen[bytes], address: str) -> str:
        """
        What a connection from the cloud to the node's kubelet finds.
        """
        assert dialler.stdin is not None
        dialler.stdin.write(f"{address} {KUBELET}\n".encode())
        dialler.stdin.flush()
        return read_line(dialler)

    def assert_reached(self, dialler: subprocess.Popen[bytes], address: str) -> None:
        """
        It reaches the kubelet, at last.
        """
        wanted = json.dumps([KUBELET, address, KUBELET])
        deadline = time.monotonic() + PATIENCE
        while (found := self.dial(dialler, address)) != wanted:
            if time.monotonic() > deadline:
                logs = "\n".join(path.read_text()[-2000:] for path in self.folder.glob("*.log"))
                self.fail(f"a connection to {address} found {found!r}; {logs}")
            time.sleep(0.1)

    def begin(self) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
        """
        Start all; returns the server, and who dials on its host.
        """
        self.tool(self.cloud, "tests.kernel.edge_site", str(self.folder))
        dialler = self.tool(self.cloud, "tests.kernel.dialler")
        self.tool(self.node, "tests.kernel.dialler", "::", str(KUBELET))
        options = ("--bind-address=::", f"--kubeconfig={self.folder}/server.conf", "--enable-dns-controller=false")
        server = self.daemon(self.cloud, "yurt-tunnel-server", "server", *options)
        options = (f"--node-name={NAME}", f"--node-ip={','.join(NODE)}", f"--tunnelserver-addr={CLOUD[0]}:10262")
        self.daemon(self.node, "yurt-tunnel-agent", "agent", *options)
        return server, dialler


class DaemonsContract(DaemonsCase):
    """
    What holds whichever firewall the host uses.
    """

    def test_both_families(self) -> None:
        """
        With both daemons running connections to both addresses of the node arrive at it; a stop leaves no rule.
        """
        before = saved_rules(self.cloud, self.flavour)
        server, dialler = self.begin()
        for address in NODE:
            self.assert_reached(dialler, address)
        self.assertIn("TUNNEL-PORT-10250", saved_rules(self.cloud, self.flavour, ("iptables",)))
        self.assertIn("TUNNEL-PORT-10250", saved_rules(self.cloud, self.flavour, ("ip6tables",)))
        server.send_signal(signal.SIGTERM)
        server.wait(STOP_SECONDS)
        left = saved_rules(self.cloud, self.flavour)
        self.assertNotIn("TUNNEL-PORT", left)
        self.assertEqual(*([line for line in text.splitlines() if line.startswith("-A")] for text in (left, before)))


class NftablesTests(DaemonsContract, SynchronousTestCase):
    """
    A host on nf_tables.
    """

    flavour = "nft"


class LegacyTests(DaemonsContract, SynchronousTestCase):
    """
    A host on the legacy tables.
    """

    flavour = "legacy"


class OtherAddressTests(DaemonsCase, SynchronousTestCase):
    """
    A node that gets another address while its agent is connected.
    """

    flavour = "nft"

    def test_renumbered(self) -> None:
        """
        The agent comes again from the new address before anybody could miss the answer to a ping, and its node is reached.
        """
        _, dialler = self.begin()
        self.assert_reached(dialler, NODE[1])
        self.node.run("ip", "address", "del", f"{NODE[0]}/24", "dev", "cloud")
        self.node.run("ip", "address", "add", f"{OTHER}/24", "dev", "cloud")
        deadline = time.monotonic() + PATIENCE
        while f"edge-1 connected from {OTHER} " not in (said := (self.folder / "server.log").read_text()):
            self.assertLess(time.monotonic(), deadline, said)
            time.sleep(0.1)
        self.assertNotIn("no sign of life", said)
        self.assert_reached(dialler, NODE[1])
