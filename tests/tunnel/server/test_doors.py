"""
Tests of how a door tells connections apart.
"""

from __future__ import annotations

from typing import Any, cast

from prometheus_client import CollectorRegistry
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.tunnel.server.fakes import FakeStreams, agent
from yurt.host.destination import Destination
from yurt.tunnel.server import doors as doors_module
from yurt.tunnel.server.diverted import Diverted
from yurt.tunnel.server.doors import Door
from yurt.tunnel.server.metrics import ServerMetrics
from yurt.tunnel.server.nodes import Nodes
from yurt.tunnel.server.ports import LivePorts, Ports
from yurt.tunnel.server.refusals import Refusals
from yurt.tunnel.server.registry import Registry
from yurt.tunnel.server.ways import Ways

DOOR = ("10.0.0.1", 10263)


class FakeSocket:
    """
    A socket whose own address is the door's.
    """

    def getsockname(self) -> Destination:
        """
        This side.
        """
        return DOOR


class Wire(StringTransport):
    """
    A transport as the kernel gives it.
    """

    protocol: Any = None
    aborted = False

    def getHandle(self) -> FakeSocket:
        """
        Its socket.
        """
        return FakeSocket()

    def abortConnection(self) -> None:
        """
        Reset.
        """
        self.aborted = True


class DoorTests(SynchronousTestCase):
    """
    Tests of Door and of what it does with a connection.
    """

    def setUp(self) -> None:
        clock = Clock()
        registry = Registry()
        registry.add(agent("edge-1"))
        self.metrics = ServerMetrics(CollectorRegistry(), "1")
        refusals = Refusals(clock, self.metrics)
        self.streams = FakeStreams()
        self.nodes = Nodes()
        self.nodes.learn("edge-1", ["10.0.0.8", "fd00::8"])
        self.ports = LivePorts()
        ways = Ways(clock, registry, self.streams, refusals, now=clock.seconds)
        self.diverted = Diverted(ways, self.nodes, self.ports, refusals, 10)
        self.going: Destination | None = None
        self.addressed = Factory.forProtocol(Protocol)
        self.addressed.noisy = False
        self.patch(doors_module, "is_own_address", lambda address: address == "10.0.0.1")

    def arrive(self, going: Destination | None, own: tuple[str, ...] = ()) -> Wire:
        """
        A connection that was going somewhere.
        """
        factory = cast(IProtocolFactory, self.addressed)
        door = Door("tls", self.diverted, factory, self.metrics, own_addresses=own, original=lambda _: going)
        wire = Wire()
        door.buildProtocol(wire.getPeer()).makeConnection(wire)
        return wire

    def test_addressed(self) -> None:
        """
        What nobody turned here, what was going to the door itself, to this host or to a Service of the tunnel is addressed to
        the server.
        """
        for going, own in (
            (None, ()),
            (DOOR, ()),
            (("10.0.0.1", 10250), ()),
            (("10.96.0.7", 10250), ("10.96.0.7",)),
        ):
            wire = self.arrive(going, own)
            self.assertIsInstance(wire.protocol, Protocol)
            self.assertIs(wire.protocol.factory, self.addressed)
        self.assertEqual(self.streams.asked, [])

    def test_diverted(self) -> None:
        """
        What was going to a node's address goes on to that node, early.
        """
        for host in ("10.0.0.8", "fd00::8"):
            wire = self.arrive((host, 10250))
            self.assertFalse(wire.aborted)
            _, *asked = self.streams.asked[-1]
            self.assertEqual(asked, [host, 10250, [], True])
            wire.protocol.dataReceived(b"hello")
            self.assertEqual(cast(Any, self.streams.protocols[-1]).transport.value(), b"hello")

    def test_nodes_of_this_host(self) -> None:
        """
        An address of this host that is a node's with an agent is the node's on the ports of the tunnel; on other ports, such as
        those of a Service, it is this host's.
        """
        self.nodes.learn("edge-1", ["10.0.0.1"])
        self.arrive(("10.0.0.1", 10250))
        self.assertEqual(self.streams.asked[-1][1], "10.0.0.1")
        self.assertIs(self.arrive(("10.0.0.1", 31008)).protocol.factory, self.addressed)

    def test_loopback_ports(self) -> None:
        """
        Ports that nodes serve on loopback are dialled there, in the family of the address.
        """
        self.ports.ports = Ports(http=frozenset({10266}), localhost=frozenset({10266}))
        for host, loopback in (("10.0.0.8", "127.0.0.1"), ("fd00::8", "::1")):
            self.arrive((host, 10266))
            self.assertEqual(self.streams.asked[-1][1:3], (loopback, 10266))

    def test_reset_before_it_was_looked_at(self) -> None:
        """
        A connection that is gone already takes nothing down.
        """

        def gone(connection: object) -> None:
            raise OSError("not connected")

        factory = cast(IProtocolFactory, self.addressed)
        wire = Wire()
        Door("tls", self.diverted, factory, self.metrics, original=gone).buildProtocol(None).makeConnection(wire)
        self.assertTrue(wire.aborted)

    def test_unwanted(self) -> None:
        """
        A connection that the listener's own factory does not want is reset.
        """
        self.patch(self.addressed, "buildProtocol", lambda addr: None)
        self.assertTrue(self.arrive(None).aborted)
