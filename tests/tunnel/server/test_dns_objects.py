"""
Tests for :mod:`yurt.tunnel.server.dns_objects`.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from yurt.tunnel.server.dns_objects import read_service, records, service_ports
from yurt.tunnel.server.node import Node
from yurt.tunnel.server.ports import Security

HTTPS = {"name": "https", "port": 10250, "protocol": "TCP", "targetPort": 10263}
HTTP = {"name": "http", "port": 10255, "protocol": "TCP", "targetPort": 10264}


class RecordTests(SynchronousTestCase):
    """
    Tests of the hosts file.
    """

    def test_lines(self) -> None:
        """
        Nodes with an agent have the Service's address, others their own, InternalIP first; lines are sorted.
        """
        nodes = [
            Node("edge-2", ("192.168.1.2",), has_agent=True, edge=True),
            Node("cloud-1", ("10.0.0.9", "203.0.113.1")),
            Node("edge-1", ("192.168.1.2",), has_agent=True),
            Node("edge-0", has_agent=True, edge=True),
        ]
        text = records(nodes, "10.96.7.7")
        self.assertEqual(text, "10.0.0.9\tcloud-1\n10.96.7.7\tedge-0\n10.96.7.7\tedge-1\n10.96.7.7\tedge-2")

    def test_no_address(self) -> None:
        """
        A node without agent and without address has no line; no nodes, no lines.
        """
        self.assertEqual((records([Node("new")], "10.96.7.7"), records([], "10.96.7.7")), ("", ""))

    def test_names_within_names(self) -> None:
        """
        A node whose name ends like another's touches nothing of that other's.
        """
        both = [Node("a", ("10.0.0.1",)), Node("x-a", ("10.0.0.2",))]
        self.assertEqual(records(both, "c"), "10.0.0.1\ta\n10.0.0.2\tx-a")
        self.assertEqual(records(both[1:], "c"), "10.0.0.2\tx-a")


class PortTests(SynchronousTestCase):
    """
    Tests of the Service's ports.
    """

    def ports(self, found: list[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
        numbers = {int(number[1:]): security for number, security in wanted.items()}
        return service_ports(found, numbers, 10263, 10264)

    def test_added(self) -> None:
        """
        Each port gets the door that it belongs to; the kubelet's own two are left to who made the Service.
        """
        ports = self.ports([HTTPS, HTTP], p10250="secure", p10255="insecure", p9443="secure", p9100="insecure")
        self.assertEqual(
            ports,
            [
                HTTPS,
                HTTP,
                {"name": "dnat-9100", "protocol": "TCP", "port": 9100, "targetPort": 10264},
                {"name": "dnat-9443", "protocol": "TCP", "port": 9443, "targetPort": 10263},
            ],
        )

    def test_removed(self) -> None:
        """
        What is configured no more goes; ports that are not ours stay, also one of ours in UDP's clothes.
        """
        foreign = [
            {"name": "metrics", "port": 9000, "protocol": "TCP", "targetPort": 9000},
            {"name": "dnat-53", "port": 53, "protocol": "UDP", "targetPort": 53},
        ]
        stale = {"name": "dnat-9100", "protocol": "TCP", "port": 9100, "targetPort": 10264}
        self.assertEqual(self.ports([HTTPS, stale, *foreign]), [HTTPS, *foreign])

    def test_changed_door(self) -> None:
        """
        A port that changes doors changes its target, and keeps what the API server gave it, such as a node port.
        """
        old = {"name": "dnat-9100", "protocol": "TCP", "port": 9100, "targetPort": 10264, "nodePort": 30100}
        self.assertEqual(self.ports([old], p9100="secure"), [{**old, "targetPort": 10263}])

    def test_closed_door(self) -> None:
        """
        Where the server has no plain port nothing leads there, and what led there goes.
        """
        old = {"name": "dnat-9100", "protocol": "TCP", "port": 9100, "targetPort": 10264}
        wanted: dict[int, Security] = {9100: "insecure", 9443: "secure"}
        (left,) = service_ports([old], wanted, 10263, 0)
        self.assertEqual((left["port"], left["targetPort"]), (9443, 10263))

    def test_same(self) -> None:
        """
        What is right stays word for word.
        """
        found = [HTTPS, *self.ports([], p9100="insecure", p9443="secure")]
        self.assertEqual(self.ports(found, p9100="insecure", p9443="secure"), found)

    def test_taken(self) -> None:
        """
        A number that somebody else's TCP port has is left to that; one in UDP is no obstacle.
        """
        foreign = {"name": "metrics", "port": 9100, "protocol": "TCP", "targetPort": 9100}
        self.assertEqual(self.ports([foreign], p9100="insecure"), [foreign])
        datagrams = {"name": "metrics", "port": 9100, "protocol": "UDP", "targetPort": 9100}
        self.assertEqual(len(self.ports([datagrams], p9100="insecure")), 2)

    def test_read_service(self) -> None:
        """
        A Service without an address of its own has none.
        """
        headless = b'{"metadata":{"resourceVersion":"7"},"spec":{"clusterIP":"None"}}'
        self.assertEqual([read_service(headless), read_service(b'{"metadata":{}}')], [("", "7"), ("", "")])
