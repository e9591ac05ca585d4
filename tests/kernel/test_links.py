"""
Tests for :mod:`yurt.host.link_edge` on the running kernel, and of what a link of ours is good for.
"""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.host.contracts import BOTH, NAME, LinksContract
from tests.kernel.namespaces import TOOL_SECONDS, add_namespace, end, read_line
from tests.kernel.remote import RemoteLinks
from yurt.host.errors import LinkError
from yurt.host.links import ensure_link, parse_link
from yurt.host.messages import Request, decode_result, encode

LISTEN = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
server = socket.socket(family)
server.bind((sys.argv[1], 10261))
server.listen()
print("listening", flush=True)
connection, _ = server.accept()
connection.sendall(b"hello from the hub")
connection.close()
"""

CONNECT = """
import socket, sys
with socket.create_connection((sys.argv[1], 10261), 10) as connection:
    print(connection.makefile().read())
"""


class KernelLinksTests(LinksContract, SynchronousTestCase):
    """
    The real kernel keeps the promises of the pretended one, and some of its own.
    """

    def setUp(self) -> None:
        self.namespace = add_namespace(self)
        self.links = self.remote = RemoteLinks(self.namespace)
        self.addCleanup(self.remote.close)

    def test_persistent(self) -> None:
        """
        The link outlives the process that made it, and serves both addresses at once although no cable is in it.
        """
        ensure_link(self.links, parse_link(NAME, "auto", BOTH))
        self.remote.close()
        for address in BOTH:
            server = self.namespace.start_python("-c", LISTEN, address)
            self.addCleanup(end, server)
            self.assertEqual(read_line(server), "listening")
            self.assertEqual(self.namespace.run(sys.executable, "-c", CONNECT, address), "hello from the hub\n")

    def test_foreign_kind(self) -> None:
        """
        A veth of that name is seen for what it is, refused by name, and left alone.
        """
        self.namespace.run("ip", "link", "add", NAME, "type", "veth", "peer", "name", "other0")
        seen = self.links.see(NAME)
        assert seen is not None
        self.assertEqual((seen.kind, seen.up, seen.addresses), ("veth", False, frozenset()))
        error = self.assertRaises(LinkError, ensure_link, self.links, parse_link(NAME, "auto", BOTH))
        self.assertIn("kind veth", str(error))

    def test_tun_is_no_tap(self) -> None:
        """
        A TUN link, which some VPN may have made, is not taken for one of ours.
        """
        self.namespace.run("ip", "tuntap", "add", "dev", NAME, "mode", "tun")
        seen = self.links.see(NAME)
        assert seen is not None
        self.assertEqual(seen.kind, "tun")

    def test_ipv6_off(self) -> None:
        """
        Where IPv6 is switched off the IPv4 address is there all the same, and the message says where to look.
        """
        self.namespace.run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
        seen, _, problems = ensure_link(self.links, parse_link(NAME, "auto", BOTH))
        assert seen is not None
        self.assertEqual((seen.up, seen.addresses), (True, {"169.254.2.1/32"}))
        self.assertIn("disable_ipv6", problems[0])


class PodTests(SynchronousTestCase):
    """
    What the link is there for.
    """

    def test_pod_reaches_node(self) -> None:
        """
        From a namespace joined by veth, as a pod's is, both addresses of the node's link are reached.
        """
        node, pod = add_namespace(self), add_namespace(self)
        request = encode(Request("ensure", parse_link(NAME, "auto", BOTH)))
        self.assertEqual(decode_result(node.run(sys.executable, "-m", "yurt.host", text=request.decode()).encode()).problems, ())
        node.run("ip", "link", "add", "pod0", "type", "veth", "peer", "name", "eth0", "netns", pod.name)
        for namespace, link, last in ((node, "pod0", 1), (pod, "eth0", 2)):
            namespace.run("ip", "addr", "add", f"10.1.1.{last}/24", "dev", link)
            namespace.run("ip", "addr", "add", f"fd01::{last}/64", "dev", link, "nodad")
            namespace.run("ip", "link", "set", link, "up")
        pod.run("ip", "route", "add", "default", "via", "10.1.1.1")
        pod.run("ip", "-6", "route", "add", "default", "via", "fd01::1")
        for address in BOTH:
            server = node.start_python("-c", LISTEN, address)
            self.addCleanup(end, server)
            self.assertEqual(read_line(server), "listening")
            self.assertEqual(pod.run(sys.executable, "-c", CONNECT, address), "hello from the hub\n")


class RefusalTests(SynchronousTestCase):
    """
    What the child answers when it cannot do what it should.
    """

    def problem(self, kind: str, *wrapper: str) -> str:
        """
        The one problem of a child that runs in ``wrapper``.
        """
        command = add_namespace(self).inside(*wrapper, sys.executable, "-m", "yurt.host")
        request = encode(Request("ensure", parse_link(NAME, kind, ("169.254.2.1",))))
        done = subprocess.run(command, input=request, capture_output=True, timeout=TOOL_SECONDS)
        (problem,) = decode_result(done.stdout).problems
        self.assertIn(f"link {NAME}: creating it", problem)
        return problem

    def test_unprivileged(self) -> None:
        """
        The capability that is missing is named, whichever of our kinds is made.
        """
        for kind in ("auto", "dummy", "tap"):
            # Still the same user, so that it can read the installation wherever that is.
            problem = self.problem(kind, "setpriv", "--bounding-set=-net_admin", "--inh-caps=-all")
            self.assertIn("needs CAP_NET_ADMIN", problem)

    def test_no_tun_device(self) -> None:
        """
        Where there is no /dev/net/tun the message says so.
        """
        script = 'mount -t tmpfs none /dev/net && exec "$@"'
        self.assertIn("no /dev/net/tun", self.problem("tap", "unshare", "--mount", "sh", "-c", script, "sh"))
