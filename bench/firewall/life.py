"""
The life of the rules in the namespace of this process; prints seconds as JSON.

usage: python -m bench.firewall.life FLAVOUR
First the service with many nodes, some of which come and go; then, among its rules, a few nodes the way OpenYurt makes them: for
each rule a call of iptables that looks and one that inserts.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from tests.tunnel.server.told import ToldCluster
from yurt.host.kept import KeptChild
from yurt.host.messages import Request, Result
from yurt.tunnel.server.redirect import Redirect
from yurt.tunnel.server.rules import Bound

NODES = 5000
ALONE = 10
PAUSE = 0.5
"""Seconds between two changes that come alone."""

IN_A_ROW = 20
CHECKS = 5
SAMPLE = 20
"""Nodes that are made by calls of iptables."""

PATIENCE = 60.0
TICK = 0.002

CALL = "-t nat {} TUNNEL-PORT-{port} -d {address}/32 -p tcp -m comment --comment by-call -m tcp --dport {port} -j RETURN"


class TimedChild(KeptChild):
    """
    A child whose answers are timed: ``spent`` has for each request whether all rules were looked at, and its seconds.
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self.spent: list[tuple[bool, float]] = []

    def ask(self, request: Request, timeout: float = 30.0) -> Deferred[Result]:
        began = time.monotonic()

        def ended(result: Result) -> Result:
            self.spent.append((result.checked, time.monotonic() - began))
            return result

        return super().ask(request, timeout).addCallback(ended)


class Life:
    """
    One service on the nodes ``10.x.y.z``.
    """

    def __init__(self, reactor: Any, flavour: str) -> None:
        self.reactor = reactor
        self.flavour = flavour
        self.child = TimedChild(reactor)
        self.cluster = ToldCluster()
        doors: Any = {"secure": Bound(("0.0.0.0",), 10263), "insecure": Bound(("127.0.0.1",), 10264)}
        self.redirect = Redirect(reactor, self.cluster.nodes, self.cluster.ports, doors, period=3600.0, child=self.child)

    async def until(self, holds: Callable[[], bool]) -> float:
        """
        Wait; returns for how many seconds.
        """
        began = time.monotonic()
        while not holds():
            if time.monotonic() - began > PATIENCE:
                raise RuntimeError(f"it did not come to be: {self.redirect.problem}")
            await deferLater(self.reactor, TICK)
        return time.monotonic() - began

    def has(self, count: int) -> Callable[[], bool]:
        return lambda: len(self.redirect.rules.direct) == count

    async def measure(self) -> dict[str, Any]:
        """
        The whole life.
        """
        for number in range(NODES):
            self.cluster.node(f"n{number}", f"10.{number // 65536}.{number // 256 % 256}.{number % 256}")
        self.redirect.startService()
        first = await self.until(self.has(NODES))
        alone = await self.changes(ALONE, PAUSE)
        in_a_row = await self.changes(IN_A_ROW, 0.0)
        self.child.spent.clear()
        for _ in range(CHECKS):
            await self.child.ask(Request("ensure", tunnel=self.redirect.rules))
        checks = [seconds for _, seconds in self.child.spent]
        calls = self.call_for_each()
        began = time.monotonic()
        await self.redirect.stopService()
        stop = time.monotonic() - began
        return {"first": first, "alone": alone, "row": in_a_row, "checks": checks, "calls": calls, "stop": stop}

    async def changes(self, count: int, pause: float) -> dict[str, Any]:
        """
        A node comes and goes, with seconds of pause between; the seconds of the changes, and those from the news to the kernel,
        and the mean of the seconds of a processor.  The child is there, as the server's is: the last check has needed it.
        """
        await self.rest()
        used = children_seconds()
        await self.child.ask(Request("ensure"))
        self.child.spent.clear()
        news = []
        for _ in range(count // 2):
            for come in (True, False):
                await deferLater(self.reactor, pause)
                if come:
                    self.cluster.node("new", "10.255.0.1")
                else:
                    self.cluster.no_node("new")
                news.append(await self.until(self.has(NODES + come)))
        await self.rest()
        changes = [seconds for looked, seconds in self.child.spent if not looked]
        return {"changes": changes, "news": news, "processor": (children_seconds() - used) / count}

    async def rest(self) -> None:
        """
        Let the child end.
        """
        self.child.close()
        await self.until(lambda: not any_child())

    def call_for_each(self) -> float:
        """
        Make a few nodes by calls; returns the seconds that one took.
        """
        began = time.monotonic()
        for number in range(SAMPLE):
            for port in (10250, 10255):
                for verb in ("-C", "-I"):
                    words = CALL.format(verb, port=port, address=f"10.254.0.{number}").split()
                    subprocess.run([f"iptables-{self.flavour}", "-w", *words], capture_output=True, timeout=PATIENCE)
        return (time.monotonic() - began) / SAMPLE


def any_child() -> bool:
    """
    Whether this process has a child.
    """
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def children_seconds() -> float:
    """
    Seconds of a processor that children which ended have used.
    """
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def live(reactor: Any, flavour: str) -> None:
    """
    Make the flavour the one in use, measure, and print.
    """
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=PATIENCE)
    for _ in range(3):
        subprocess.run([f"iptables-{flavour}", "-A", "INPUT", "-j", "ACCEPT"], check=True, timeout=PATIENCE)
    print(json.dumps(await Life(reactor, flavour).measure()))


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(live(reactor, sys.argv[1])))
