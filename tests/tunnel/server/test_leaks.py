"""
Tests that what comes and goes leaves nothing behind.
"""

from __future__ import annotations

import gc
import os
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from tests.tunnel.server.site import Agent, Client, Echo, Site, until
from yurt.mux.connection import MuxStream
from yurt.tunnel.server.service import TunnelServer
from yurt.tunnel.splice import Half, Splice

KUBELET = ("10.0.0.8", 10250)

DIALS = 10_000
AT_ONCE = 50

KINDS = (MuxStream, Splice, Half, Client)
"""Of these there is at least one for each connection."""


def descriptors() -> int:
    """
    Files that this process has open.
    """
    return len(os.listdir("/proc/self/fd"))


def living() -> dict[str, int]:
    """
    How many objects there are of each kind.
    """
    gc.collect()
    names = [type(one).__name__ for one in gc.get_objects() if type(one) in KINDS]
    return {kind.__name__: names.count(kind.__name__) for kind in KINDS}


class LeakTests(TestCase):
    """
    Tests of dials that are given up.
    """

    timeout = 180

    def setUp(self) -> None:
        self.reactor: Any = reactor
        self.site = Site(self, reactor)
        self.server: TunnelServer = self.site.server()
        # The kernel says for each of them where it was going; ports are used again too often for a table.
        for listener in self.server.listeners:
            door = listener.factory
            if hasattr(door, "original"):
                door.original = lambda connection: KUBELET

    async def dial_and_abort(self, agent: Agent, number: int) -> None:
        """
        One connection that is reset: at once, when it has reached the agent, or after it has been answered.
        """
        client = await self.site.dial(self.server.config.secure_port)
        client.wire.write(b"x" * 100)
        if number % 3 == 1:
            seen = len(agent.streams)
            await until(self.reactor, lambda: len(agent.streams) > seen or client.lost)
        elif number % 3 == 2 and agent.target is not None:
            await until(self.reactor, lambda: client.data or client.lost)
        client.wire.abortConnection()

    async def many(self, agent: Agent, count: int) -> None:
        """
        So many connections, AT_ONCE at a time, and the wait for their end.
        """
        for first in range(0, count, AT_ONCE):
            dials = [Deferred.fromCoroutine(self.dial_and_abort(agent, number)) for number in range(first, first + AT_ONCE)]
            await gatherResults(dials)
            agent.streams.clear()
            agent.asked.clear()
        await until(self.reactor, lambda: not self.server.diverted.splices and not agent.mux.streams)

    async def test_aborted_dials(self) -> None:
        """
        10,000 dials that are given up leave no stream, no descriptor, no timer and no object behind.
        """
        agent = await self.site.agent(self.server, target=self.site.listen(Echo))
        (link,) = self.server.registry.agents()
        await self.many(agent, 2 * AT_ONCE)
        before = descriptors(), living(), len(self.reactor.getDelayedCalls())
        await self.many(agent, DIALS)
        await until(self.reactor, lambda: descriptors() <= before[0])
        self.assertEqual((link.mux.streams, agent.mux.streams), (0, 0))
        for kind, count in living().items():  # tests before this one may leave some that are freed meanwhile
            self.assertLessEqual(count, before[1][kind], kind)
        self.assertLess(len(self.reactor.getDelayedCalls()), before[2] + AT_ONCE)
