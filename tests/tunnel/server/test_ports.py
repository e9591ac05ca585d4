"""
Tests of the ports that go through the tunnel.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.tunnel.server.memory_cluster import ClusterCase
from yurt.tunnel.server.ports import MAX_PORTS, NAME, NO_PORTS, LivePorts, Ports, parse_ports, ports_informer


class ParseTests(SynchronousTestCase):
    """
    Tests of what the ConfigMap's data say.
    """

    def test_nothing(self) -> None:
        """
        Without any key the kubelet's own two ports go through the tunnel.
        """
        self.assertEqual(parse_ports({}), NO_PORTS)
        self.assertEqual(NO_PORTS.tunnel_ports, {10250: "secure", 10255: "insecure"})

    def test_keys(self) -> None:
        """
        Each key has its own meaning; blanks and empty items do not matter.
        """
        ports = parse_ports(
            {
                "https-proxy-ports": " 9443 ,9444,",
                "http-proxy-ports": "9100,,9101",
                "localhost-proxy-ports": "10266, 10267",
                "dnat-ports-pair": "9200=10264, 9201 = 10264",
                "another-key": "1",
            }
        )
        self.assertEqual(ports, Ports(frozenset({9443, 9444}), frozenset({9100, 9101, 9200, 9201}), frozenset({10266, 10267})))
        self.assertEqual(
            ports.tunnel_ports,
            {
                9100: "insecure",
                9101: "insecure",
                9200: "insecure",
                9201: "insecure",
                9443: "secure",
                9444: "secure",
                10250: "secure",
                10255: "insecure",
            },
        )

    def test_needed(self) -> None:
        """
        Ports that the server itself must reach are not turned, whichever key names them, and that is told; nodes may serve them
        on their loopback.
        """
        data = {
            "https-proxy-ports": "6443,9443",
            "http-proxy-ports": "6443",
            "dnat-ports-pair": "10262=10264",
            "localhost-proxy-ports": "6443",
        }
        ports = parse_ports(data, needed={6443: "the API server's", 10262: "the other servers'"})
        self.assertEqual((ports.https, ports.http, ports.localhost), ({9443}, frozenset(), {6443}))
        why = "'6443': it is the API server's, which this server must reach by itself"
        self.assertEqual(
            ports.ignored,
            (
                f"https-proxy-ports: {why}",
                f"http-proxy-ports: {why}",
                "dnat-ports-pair: '10262=10264': it is the other servers', which this server must reach by itself",
            ),
        )

    def test_https_wins(self) -> None:
        """
        A port that is named for both is spoken TLS to.
        """
        ports = parse_ports({"https-proxy-ports": "9100", "http-proxy-ports": "9100", "dnat-ports-pair": "9100=10264"})
        self.assertEqual((ports.https, ports.http), (frozenset({9100}), frozenset()))

    def test_kubelet_ports(self) -> None:
        """
        The kubelet's own ports keep their doors, whatever is written; that is no mistake worth a word.  A kubelet may listen on
        loopback only.
        """
        self.assertEqual(parse_ports({"https-proxy-ports": "10255", "http-proxy-ports": "10250"}), NO_PORTS)
        ports = parse_ports({"localhost-proxy-ports": "10250,10255"})
        self.assertEqual((ports.localhost, ports.tunnel_ports), ({10250, 10255}, NO_PORTS.tunnel_ports))

    def test_ignored(self) -> None:
        """
        What is no port is left out and told, without keeping the rest from counting.
        """
        ports = parse_ports({"http-proxy-ports": "0, 65536, -1, x, 9100, 9200=1, ٣, 1e3, 65535"})
        self.assertEqual(ports.http, frozenset({9100, 65535}))
        self.assertEqual(len(ports.ignored), 7)
        self.assertEqual(ports.ignored[0], "http-proxy-ports: '0': no port of 1 to 65535")

    def test_pairs(self) -> None:
        """
        Of pairs those count whose target is the server's plain port.
        """
        ports = parse_ports({"dnat-ports-pair": "1=10264, 2=10263, 3=, 4, 5=x, 6=20264"})
        self.assertEqual((ports.http, len(ports.ignored)), (frozenset({1}), 5))
        self.assertEqual(parse_ports({"dnat-ports-pair": "1=10264, 6=20264"}, insecure_port=20264).http, frozenset({6}))

    def test_too_many(self) -> None:
        """
        No ConfigMap makes more than MAX_PORTS chains of rules a kind, nor more complaints than that.
        """
        ports = parse_ports({"http-proxy-ports": ",".join(map(str, range(1, 3 * MAX_PORTS)))})
        self.assertEqual((len(ports.http), len(ports.ignored)), (MAX_PORTS, MAX_PORTS))

    @given(st.dictionaries(st.sampled_from(["https-proxy-ports", "http-proxy-ports", "dnat-ports-pair"]), st.text(max_size=60)))
    def test_anything(self, data: dict[str, str]) -> None:
        """
        Whatever people write, ports come of it.
        """
        ports = parse_ports(data)
        self.assertTrue(all(1 <= port <= 65535 for port in ports.tunnel_ports))
        self.assertFalse(ports.https & ports.http)


class LiveTests(ClusterCase):
    """
    Tests of ports that follow their ConfigMap.
    """

    def setUp(self) -> None:
        super().setUp()
        self.informer = ports_informer(self.clock, self.client)
        self.live = LivePorts(self.informer)
        self.heard: list[Ports] = []
        self.live.subscribe(self.heard.append)

    def test_without_cluster(self) -> None:
        """
        Without a cluster there are no more than the kubelet's ports, and nothing to wait for.
        """
        live = LivePorts()
        self.assertEqual((live.ports, live.synced, live.problem), (NO_PORTS, True, None))

    def test_no_config(self) -> None:
        """
        A ConfigMap that is missing is no problem.
        """
        self.follow(self.informer)
        self.assertEqual((self.live.ports, self.live.synced, self.live.problem), (NO_PORTS, True, None))

    def test_live(self) -> None:
        """
        A new ConfigMap, a changed key, a key that goes and the ConfigMap's end each take effect at once.
        """
        self.follow(self.informer)
        self.put_config(NAME, http_proxy_ports="9100", localhost_proxy_ports="10266")
        self.put_config(NAME, http_proxy_ports="9100,9101", localhost_proxy_ports="10266")
        self.put_config(NAME, http_proxy_ports="9100,9101")
        self.api.remove("configmaps", NAME, "kube-system")
        self.assertEqual(
            [(set(ports.http), set(ports.localhost)) for ports in self.heard],
            [({9100}, {10266}), ({9100, 9101}, {10266}), ({9100, 9101}, set()), (set(), set())],
        )
        self.assertEqual(self.live.ports, NO_PORTS)

    def test_same(self) -> None:
        """
        A change that means the same ports is none.
        """
        self.follow(self.informer)
        self.put_config(NAME, http_proxy_ports="9100,9101")
        self.put_config(NAME, http_proxy_ports=" 9101, 9100")
        self.assertEqual(len(self.heard), 1)

    def test_told_once(self) -> None:
        """
        What cannot be used is told once, not again with every change of something else.
        """
        self.follow(self.informer)
        with capturedLogs() as events:
            self.put_config(NAME, http_proxy_ports="9100,x")
            self.put_config(NAME, http_proxy_ports="9100,9101,x")
            self.put_config(NAME, http_proxy_ports="9100,y,x")
        told = [event["ignored"].split(":")[1].strip() for event in events if "ignored" in event]
        self.assertEqual(told, ["'x'", "'y'"])

    def test_others(self) -> None:
        """
        Other ConfigMaps are not even asked for.
        """
        self.follow(self.informer)
        self.put_config("another", http_proxy_ports="9100")
        self.assertEqual((self.heard, self.informer.mirror.events), ([], 0))
        self.assertTrue(all(sent.query["fieldSelector"] == f"metadata.name={NAME}" for sent in self.server.sent))

    def test_server_away(self) -> None:
        """
        While the apiserver is away the ports stay, and the problem says since what.
        """
        self.put_config(NAME, http_proxy_ports="9100")
        self.follow(self.informer)
        self.server.refusing = True
        self.server.close_connections("reset")
        self.advance(2)
        self.assertEqual(self.live.ports.http, frozenset({9100}))
        self.assertIn("ConfigMap kube-system/yurt-tunnel-server-cfg: ", str(self.live.problem))

    def test_no_data(self) -> None:
        """
        A ConfigMap without data has no ports.
        """
        self.api.put("configmaps", {"metadata": {"name": NAME, "namespace": "kube-system"}, "data": None})
        self.follow(self.informer)
        self.assertEqual(self.live.ports, NO_PORTS)

    def test_subscribers(self) -> None:
        """
        A subscriber that fails keeps nobody from hearing; one that has left hears no more.
        """

        def fail(ports: Ports) -> None:
            raise ValueError("mine")

        others: list[Ports] = []
        self.live.subscribe(fail)
        leave = self.live.subscribe(others.append)
        self.follow(self.informer)
        self.put_config(NAME, http_proxy_ports="9100")
        leave()
        self.put_config(NAME, http_proxy_ports="9101")
        self.assertEqual((len(self.heard), len(others)), (2, 1))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)
