"""
Tests for connections that real DNAT rules divert to the tunnel server: the kernel says where they were going.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from tests.kernel.namespaces import add_namespace, end, read_line
from tests.kernel.tunnel_daemon import NODE_ADDRESSES, PORTS

if TYPE_CHECKING:
    _Mixin = SynchronousTestCase
else:
    _Mixin = object  # a contract alone is no test case

OWN = ("10.1.0.1", "fd01::1")
"""Addresses of the host itself."""

V4, V6 = 0, 1


def rules(targets: tuple[tuple[str, int, str], ...]) -> str:
    """
    The chains of the tunnel for connections to an address and a port, as text for iptables-restore.
    """
    ports = sorted({port for _, port, _ in targets})
    lines = ["*nat", ":TUNNEL-PORT - [0:0]", *(f":TUNNEL-PORT-{port} - [0:0]" for port in ports)]
    lines.append("-A OUTPUT -p tcp -j TUNNEL-PORT")
    lines += [f"-A TUNNEL-PORT -p tcp --dport {port} -j TUNNEL-PORT-{port}" for port in ports]
    lines += [
        f"-A TUNNEL-PORT-{port} -p tcp -d {address} --dport {port} -j DNAT --to-destination {to}" for address, port, to in targets
    ]
    return "\n".join([*lines, "COMMIT", ""])


class DivertedContract(_Mixin):
    """
    What holds whichever firewall the rules are in.
    """

    flavour: str

    def setUp(self) -> None:
        self.namespace = add_namespace(self)
        for address in (f"{OWN[V4]}/24", f"{OWN[V6]}/64"):
            self.namespace.run("ip", "addr", "add", address, "dev", "lo", *(["nodad"] if ":" in address else []))
        self.namespace.run("ip", "route", "add", "10.9.0.0/24", "dev", "lo", "src", OWN[V4])
        self.namespace.run("ip", "-6", "route", "add", "fd09::/64", "dev", "lo", "src", OWN[V6])

    def start(self, *addresses: str) -> None:
        """
        Start the daemon on these addresses.
        """
        self.daemon = self.namespace.start_python("-m", "tests.kernel.tunnel_daemon", "serve", *addresses)
        self.addCleanup(end, self.daemon)
        self.assertEqual(read_line(self.daemon), json.dumps(PORTS))

    def divert(self, *targets: tuple[str, int, str]) -> None:
        """
        Add the rules.
        """
        for family, v6 in (("iptables", False), ("ip6tables", True)):
            chosen = tuple(target for target in targets if (":" in target[0]) == v6)
            if chosen:
                self.namespace.run(f"{family}-{self.flavour}-restore", "--noflush", text=rules(chosen))

    def say(self, host: str, port: int, text: str) -> str:
        """
        What comes back for a text.
        """
        return self.namespace.run(sys.executable, "-m", "tests.kernel.tunnel_daemon", "say", host, str(port), text)

    def assert_through(self, address: str, port: int) -> None:
        """
        A connection to an address of the node reaches its agent, and comes back.
        """
        self.assertEqual(self.say(address, port, f"to {address}"), f"to {address}")
        self.assertEqual(read_line(self.daemon), f"[{address}]:{port}" if ":" in address else f"{address}:{port}")

    def test_both_doors(self) -> None:
        """
        IPv4 connections come through either door to the address and port that they were for.
        """
        self.start("127.0.0.1")
        self.divert((NODE_ADDRESSES[V4], 10250, "127.0.0.1:10263"), (NODE_ADDRESSES[V4], 10255, "127.0.0.1:10264"))
        self.assert_through(NODE_ADDRESSES[V4], 10250)
        self.assert_through(NODE_ADDRESSES[V4], 10255)

    def test_ipv6(self) -> None:
        """
        So do IPv6 connections.
        """
        self.start("127.0.0.1", "::1")
        self.divert((NODE_ADDRESSES[V6], 10250, "[::1]:10263"), (NODE_ADDRESSES[V6], 10255, "[::1]:10264"))
        self.assert_through(NODE_ADDRESSES[V6], 10250)
        self.assert_through(NODE_ADDRESSES[V6], 10255)

    def test_listener_of_both_families(self) -> None:
        """
        A listener on :: takes both families, and knows where each connection was going.
        """
        self.start("::")
        self.divert((NODE_ADDRESSES[V4], 10250, "127.0.0.1:10263"), (NODE_ADDRESSES[V6], 10250, "[::1]:10263"))
        self.assert_through(NODE_ADDRESSES[V4], 10250)
        self.assert_through(NODE_ADDRESSES[V6], 10250)

    def test_addressed_to_the_server(self) -> None:
        """
        What was meant for this host, translated or not, is served here instead of being sent on.
        """
        self.start("127.0.0.1", "::1")
        self.divert((OWN[V4], 10255, "127.0.0.1:10264"), (OWN[V6], 10255, "[::1]:10264"))
        for host, port in ((OWN[V4], 10255), (OWN[V6], 10255), ("127.0.0.1", 10264), ("::1", 10264)):
            answer = self.say(host, port, "nonsense\r\n\r\n")
            self.assertTrue(answer.startswith("HTTP/1.1 400 "), answer)

    def test_address_of_no_node(self) -> None:
        """
        A diverted connection to what is no node's address is reset.
        """
        self.start("127.0.0.1")
        self.divert(("10.9.0.9", 10250, "127.0.0.1:10263"))
        self.assertEqual(self.say("10.9.0.9", 10250, "x"), "reset")


class NftablesTests(DivertedContract, SynchronousTestCase):
    """
    Rules in nf_tables.
    """

    flavour = "nft"


class LegacyTests(DivertedContract, SynchronousTestCase):
    """
    Rules in legacy tables.
    """

    flavour = "legacy"
