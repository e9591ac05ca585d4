"""
Promises about which node a request goes to, and where on it.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.tunnel.server.told import ToldCluster
from yurt.http.interfaces import Headers, RequestHead
from yurt.tunnel.server.node import Node
from yurt.tunnel.server.nodes import Nodes
from yurt.tunnel.server.ports import Ports
from yurt.tunnel.server.routing import PodPath, Refused, Route, route, route_on

NAMES = (b"Host", b"X-Tunnel-Proxy-Host", b"X-Tunnel-Proxy-Dest")
HOSTS = (b"edge-1", b"edge-2", b"10.0.0.8", b"10.0.0.7", b"[fd00::8]", b"127.0.0.1", b"localhost", b"[::1]", b"x", b"")
PIECES = (*HOSTS, b":", b"10250", b"9100", b"22", b"0", b"99999", b" ", b"[", b"]", b"%", b"\xff", b"@", b",")
VALUES = st.one_of(
    st.tuples(st.sampled_from(HOSTS), st.sampled_from((b"", b":10250", b":10266", b":22"))).map(b"".join),
    st.lists(st.sampled_from(PIECES), max_size=5).map(b"".join),
)

PORTS = Ports(https=frozenset({9445}), http=frozenset({9100}), localhost=frozenset({10266, 9100}))


def two_nodes() -> Nodes:
    """
    edge-1 with an address of each family, edge-2 with one.
    """
    nodes = Nodes()
    nodes.learn("edge-1", ["10.0.0.8", "fd00::8"])
    nodes.learn("edge-2", ["10.0.0.9"])
    return nodes


def ask(target: str = "/metrics", host: str | None = "edge-1:10250", tls: bool = True, **headers: str) -> Route | PodPath:
    """
    Route a request; ``proxy_host`` and ``proxy_dest`` are its X-Tunnel-Proxy headers.
    """
    fields: Headers = [] if host is None else [(b"Host", host.encode())]
    fields += [(b"X-Tunnel-" + name.encode().replace(b"_", b"-"), value.encode()) for name, value in headers.items()]
    return route(RequestHead(b"GET", target.encode(), fields), two_nodes(), PORTS, tls=tls)


def url(target: str = "/metrics", host: str | None = "edge-1:10250", tls: bool = True, **headers: str) -> str:
    """
    Node and URL that such a request goes to.
    """
    found = ask(target, host, tls, **headers)
    assert isinstance(found, Route), found
    dialled = "" if found.host == found.address else f" at {found.host}"
    return f"{found.node} {found.url}{dialled}"


class HostTests(SynchronousTestCase):
    """
    Nodes named by Host.
    """

    def test_name_and_address(self) -> None:
        """
        A node is meant by its name, in any case, and by each of its addresses; a name stands for its usual address.
        """
        self.assertEqual(url(host="edge-1:10250"), "edge-1 https://10.0.0.8:10250")
        self.assertEqual(url(host="Edge-2:10250"), "edge-2 https://10.0.0.9:10250")
        self.assertEqual(url(host="10.0.0.9:10250"), "edge-2 https://10.0.0.9:10250")
        self.assertEqual(url(host="[fd00:0::8]:10250"), "edge-1 https://[fd00::8]:10250")
        self.assertEqual(url(host="edge-1.:10250"), "edge-1 https://10.0.0.8:10250")

    def test_dialled_name(self) -> None:
        """
        When Host names no node the name that was dialled does, and means its kubelet, or the port that was dialled; a node that
        Host names goes before it.
        """

        def found(host: str, dialled: str, port: int | None = None) -> Route | PodPath:
            head = RequestHead(b"GET", b"/metrics", [(b"Host", host.encode())])
            return route(head, two_nodes(), PORTS, tls=True, dialled=dialled, dialled_port=port)

        self.assertEqual(found("10.0.0.1:6443", "edge-2"), route_on(self.edge("edge-2"), "", 10250, PORTS, tls=True))
        self.assertEqual(found("10.0.0.1:6443", "edge-2", 9445), route_on(self.edge("edge-2"), "", 9445, PORTS, tls=True))
        with self.assertRaisesRegex(Refused, "port 22 is not one of the tunnel's"):
            found("10.0.0.1:6443", "edge-2", 22)
        self.assertEqual(found("edge-1:9445", "edge-2"), route_on(self.edge("edge-1"), "", 9445, PORTS, tls=True))
        self.assertEqual(found("10.0.0.1:6443", "EDGE-2"), route_on(self.edge("edge-2"), "", 10250, PORTS, tls=True))
        with self.assertRaises(Refused):
            found("10.0.0.1:6443", "tunnel.example.com")

    def test_api_server_on_a_node(self) -> None:
        """
        An API server passes on what its client called it, which may be the address or the name of a node that it runs on: there,
        too, the dialled name means the node.  What was dialled by that very name means none.
        """

        def found(host: str, dialled: str, target: bytes = b"/metrics") -> Route | PodPath:
            return route(RequestHead(b"GET", target, [(b"Host", host.encode())]), two_nodes(), PORTS, tls=True, dialled=dialled)

        wanted = route_on(self.edge("edge-2"), "", 10250, PORTS, tls=True)
        for host in ("10.0.0.8:6443", "edge-1:6443", "10.0.0.8", "edge-1", "[fd00::8]:6443"):
            self.assertEqual(found(host, "edge-2"), wanted, host)
            self.assertEqual(found(host, "edge-2", b"/exec/default/web/nginx"), wanted, host)
            self.assertEqual(found(host, "edge-1", b"/exec/default/web/nginx"), PodPath("default", "web"), host)
            self.assertRaises(Refused, found, host, "edge-1")
            self.assertRaises(Refused, found, host, "tunnel.example.com")

    def test_dialled_name_of_a_cloud_node(self) -> None:
        """
        Who calls the server by the name of the node that it runs on, and in Host an edge node's port that is not the tunnel's, is
        told so.
        """
        cluster = ToldCluster()
        cluster.node("cloud-1", "10.0.0.1")
        cluster.node("edge-1", "10.0.0.8", has_agent=True)
        head = RequestHead(b"GET", b"/", [(b"Host", b"edge-1:9999")])
        with self.assertRaisesRegex(Refused, "node edge-1: port 9999 is not one of the tunnel's: name it in"):
            route(head, cluster.nodes, PORTS, tls=True, dialled="cloud-1")

    def edge(self, name: str) -> Node:
        """
        One of the two nodes.
        """
        node = two_nodes().by_name(name)
        assert node is not None
        return node

    def test_scheme(self) -> None:
        """
        The port decides what is spoken to the node, by whichever door the request came.
        """
        for tls in (True, False):
            self.assertEqual(url(host="edge-1:10250", tls=tls), "edge-1 https://10.0.0.8:10250")
            self.assertEqual(url(host="edge-1:10255", tls=tls), "edge-1 http://10.0.0.8:10255")
            self.assertEqual(url(host="edge-1:9445", tls=tls), "edge-1 https://10.0.0.8:9445")

    def test_other_kubelet_port(self) -> None:
        """
        The port that a node's kubelet says it has is the tunnel's, too.
        """
        nodes = two_nodes()
        node = nodes.by_name("edge-1")
        assert node is not None
        found = route_on(replace(node, kubelet_port=20250), "", 20250, PORTS, tls=True)
        self.assertEqual((found.url, found.kubelet), ("https://10.0.0.8:20250", True))

    def test_localhost_ports(self) -> None:
        """
        Ports that nodes serve on loopback alone are dialled there, but called by the node's address; what is spoken to one of
        which only that is known is what the caller spoke.
        """
        self.assertEqual(url(host="edge-1:9100"), "edge-1 http://10.0.0.8:9100 at 127.0.0.1")
        self.assertEqual(url(host="edge-1:10266", tls=False), "edge-1 http://10.0.0.8:10266 at 127.0.0.1")
        self.assertEqual(url(host="edge-1:10266", tls=True), "edge-1 https://10.0.0.8:10266 at 127.0.0.1")
        self.assertEqual(url(host="[fd00::8]:9100"), "edge-1 http://[fd00::8]:9100 at ::1")

    def test_unknown(self) -> None:
        """
        Errors say what is wrong: no such node, no Host, no port, a port that is not the tunnel's, a header that is none.
        """
        for host, status, word in (
            ("edge-3:10250", 404, "edge-3"),
            ("10.0.0.7:10250", 404, "10.0.0.7"),
            ("127.0.0.1:10264", 404, "127.0.0.1"),
            (None, 400, "Host"),
            ("", 400, "Host"),
            ("edge-1", 400, "port"),
            ("edge-1:22", 403, "http-proxy-ports"),
            ("edge-1:99999", 400, "Host"),
            ("a b:c:d", 400, "Host"),
        ):
            refused = self.assertRaises(Refused, ask, host=host)
            self.assertEqual(refused.status, status, host)
            self.assertIn(word, refused.message, host)

    def test_own_door_of_a_cloud_node(self) -> None:
        """
        Who asks the server by the address of its own node, which has no agent, is told to name the node that is meant.
        """
        with self.assertRaisesRegex(Refused, "port 10263 .* name the one that is meant in Host or X-Tunnel-Proxy-Host"):
            route_on(Node("cloud-1", ("10.0.0.1",), "10.0.0.1"), "10.0.0.1", 10263, PORTS, tls=True)

    def test_node_without_address(self) -> None:
        """
        A node that nobody knows an address of cannot be asked yet.
        """
        nodes = Nodes()
        nodes.learn("bare")
        head = RequestHead(b"GET", b"/", [(b"Host", b"bare:10250")])
        refused = self.assertRaises(Refused, route, head, nodes, PORTS, tls=True)
        self.assertEqual(refused.status, 503)


class PodTests(SynchronousTestCase):
    """
    Nodes named by the pod in the path.
    """

    def test_paths(self) -> None:
        """
        What an API server asks of a kubelet names the pod, with or without container and query.
        """
        for target in (
            "/exec/default/web/nginx?command=ls",
            "/attach/default/web/nginx",
            "/portForward/default/web",
            "/containerLogs/default/web/nginx?follow=true",
            "/run/default/web/nginx",
        ):
            self.assertEqual(ask(target, "x-tunnel-server-internal-svc:10250"), PodPath("default", "web"))

    def test_names_of_strangers(self) -> None:
        """
        In plain text, which needs no credentials, the path does not count when Host is a name that a stranger may have let point
        here: his page in a browser on this host would read logs.  By TLS it does, and with addresses and own names.
        """
        path = "/containerLogs/default/web/nginx"
        with self.assertRaisesRegex(Refused, "Host names no node") as raised:
            ask(path, "evil.example:10264", tls=False)
        self.assertEqual(raised.exception.status, 404)
        for host, tls in (("evil.example", True), ("127.0.0.1:10264", False), ("[::1]:10264", False), ("localhost", False)):
            self.assertEqual(ask(path, host, tls=tls), PodPath("default", "web"))

    def test_host_first(self) -> None:
        """
        Where Host names a node, nobody needs to be asked for the pod's.
        """
        self.assertEqual(url("/exec/default/web/nginx"), "edge-1 https://10.0.0.8:10250")

    def test_server_on_a_node(self) -> None:
        """
        A server that runs on a node is called by that node's address and its own door: there the path tells the node.
        """
        for host in ("10.0.0.9:10263", "10.0.0.9", "edge-2:10263", "[fd00::8]:10263"):
            self.assertEqual(ask("/containerLogs/default/web/nginx", host), PodPath("default", "web"), host)
        self.assertEqual(ask("/containerLogs/default/web/nginx", "10.0.0.9:10264", tls=False), PodPath("default", "web"))
        self.assertEqual(url("/containerLogs/default/web/nginx", "10.0.0.9:10250"), "edge-2 https://10.0.0.9:10250")
        for chosen in ({"proxy_host": "edge-2:22"}, {"proxy_dest": "10.0.0.9:22"}):
            refused = self.assertRaises(Refused, ask, "/containerLogs/default/web/nginx", "10.0.0.9:10263", **chosen)
            self.assertEqual(refused.status, 403)

    def test_other_paths(self) -> None:
        """
        Other paths name no pod, and a name that no pod can have is refused before anybody is asked for it.
        """
        for target, status in (
            ("/exec/default", 404),
            ("/pods/default/web", 404),
            ("/exec/default/..%2f/x", 400),
            ("/exec//x/y", 400),
        ):
            self.assertEqual(self.assertRaises(Refused, ask, target, "elsewhere:10250").status, status, target)


class ProxyHeaderTests(SynchronousTestCase):
    """
    Nodes named by X-Tunnel-Proxy-Host, addresses and ports by X-Tunnel-Proxy-Dest.
    """

    def test_proxy_host(self) -> None:
        """
        It goes before Host, by name or address, and may bring the port; then Host may be the server's own name or address.
        """
        self.assertEqual(url(host="edge-1:10250", Proxy_Host="edge-2"), "edge-2 https://10.0.0.9:10250")
        self.assertEqual(url(host="edge-1:10255", Proxy_Host="10.0.0.9:10250"), "edge-2 https://10.0.0.9:10250")
        self.assertEqual(url(host="10.1.1.1:10263", Proxy_Host="edge-1:10255"), "edge-1 http://10.0.0.8:10255")
        self.assertEqual(url(host="127.0.0.1:10264", Proxy_Host="edge-1:10250"), "edge-1 https://10.0.0.8:10250")
        self.assertEqual(url("/exec/default/web/c", "other:1", Proxy_Host="edge-1:10250"), "edge-1 https://10.0.0.8:10250")

    def test_proxy_host_keeps_address(self) -> None:
        """
        An address of the node in Host is the one that is dialled.
        """
        self.assertEqual(url(host="[fd00::8]:10250", Proxy_Host="edge-1"), "edge-1 https://[fd00::8]:10250")

    def test_proxy_dest(self) -> None:
        """
        It says which address and port, and by them which node; an address that no node has is one of the node in Host.
        """
        self.assertEqual(url(host="10.1.1.1:10263", Proxy_Dest="10.0.0.9:10255"), "edge-2 http://10.0.0.9:10255")
        self.assertEqual(url(host="10.1.1.1:10263", Proxy_Dest="edge-2:10250"), "edge-2 https://10.0.0.9:10250")
        self.assertEqual(url(host="edge-1:10250", Proxy_Dest="192.168.7.7:10255"), "edge-1 http://192.168.7.7:10255")
        self.assertEqual(url(host="edge-1:10250", Proxy_Dest="127.0.0.1:9445"), "edge-1 https://10.0.0.8:9445 at 127.0.0.1")
        self.assertEqual(
            url(host="x:1", Proxy_Host="edge-2", Proxy_Dest="localhost:10255"), "edge-2 http://10.0.0.9:10255 at 127.0.0.1"
        )

    def test_refused(self) -> None:
        """
        A node that is none, and a port that is not the tunnel's, are refused here as well.
        """
        for status, headers in (
            (404, {"Proxy_Host": "edge-3"}),
            (404, {"Proxy_Dest": "10.0.0.7:10250"}),
            (403, {"Proxy_Dest": "10.0.0.9:22"}),
            (403, {"Proxy_Host": "edge-1", "Proxy_Dest": "127.0.0.1:2379"}),
            (400, {"Proxy_Host": "edge-1"}),
            (400, {"Proxy_Dest": "10.0.0.9"}),
            (400, {"Proxy_Host": "edge-1", "Proxy_Dest": "printer:10250"}),
            (400, {"Proxy_Host": "edge-1", "Proxy_Dest": "edge-2:10250"}),
            (400, {"Proxy_Host": "a:b:c:"}),
        ):
            refused = self.assertRaises(Refused, ask, "/", "10.1.1.1:10263", **headers)
            self.assertEqual(refused.status, status, headers)


class AnyRequestTests(SynchronousTestCase):
    """
    Whatever a client may send.
    """

    @given(st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=4), st.binary(max_size=60), st.booleans())
    @settings(max_examples=300, deadline=None)
    def test_routed_or_refused(self, headers: Headers, target: bytes, tls: bool) -> None:
        """
        A request is routed to a port of the tunnel's on a node that there is, or refused by a client's error.
        """
        try:
            found = route(RequestHead(b"GET", b"/" + target, headers), two_nodes(), PORTS, tls=tls)
        except Refused as refused:
            self.assertIn(refused.status, (400, 403, 404))
        else:
            if isinstance(found, Route):
                self.assertIn(found.node, ("edge-1", "edge-2"))
                self.assertIn(found.port, {10250, 10255} | PORTS.https | PORTS.http | PORTS.localhost)
                self.assertTrue(found.host in ("127.0.0.1", "::1") or found.host == found.address)
