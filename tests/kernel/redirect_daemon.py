"""
A daemon with nothing but the redirection of a tunnel server, for killing and stopping.

usage: python -m tests.kernel.redirect_daemon BIND-ADDRESS PERIOD PORT
Reads one JSON object a line: ``{"direct": [address...], "ports": [port...]}`` are the cluster's nodes and ports from now on.
Prints the service's state whenever it has changed, and one line when it has stopped, before which it hands the rules over as the
server does.
"""

from __future__ import annotations

import json
import sys
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.stdio import StandardIO
from twisted.internet.task import LoopingCall
from twisted.protocols.basic import LineReceiver

from tests.tunnel.server.told import ToldCluster
from yurt.tunnel.server.redirect import Redirect
from yurt.tunnel.server.rules import Bound

LOOK = 0.005


class Orders(LineReceiver):
    """
    What is told on standard input.
    """

    delimiter = b"\n"

    def __init__(self, cluster: ToldCluster) -> None:
        self.cluster = cluster

    def lineReceived(self, line: bytes) -> None:
        """
        Let the cluster be like this.
        """
        said = json.loads(line)
        self.cluster.sync()
        self.cluster.set_direct(said["direct"])
        self.cluster.set_http_ports(*said["ports"])


class Reports:
    """
    Tells the state on standard output.
    """

    def __init__(self, redirect: Redirect) -> None:
        self.redirect = redirect
        self.told = ""

    def look(self) -> None:
        """
        Print the state if it is another one.
        """
        state = json.dumps(self.redirect.state)
        if state != self.told:
            self.told = state
            print(state, flush=True)


async def leave(service: Redirect) -> None:
    """
    Stop it.
    """
    await service.hand_over()
    await service.stopService()


def main() -> None:
    """
    Run until SIGTERM.
    """
    running = cast(Any, reactor)
    address, period, port = sys.argv[1:]
    cluster = ToldCluster(synced=False)
    plain = "::1" if address == "::" else "127.0.0.1"
    doors: Any = {"secure": Bound((address,), int(port)), "insecure": Bound((plain, "127.0.0.1"), 10264)}
    service = Redirect(running, cluster.nodes, cluster.ports, doors, period=float(period))
    running.callWhenRunning(service.startService)
    running.callWhenRunning(StandardIO, Orders(cluster))
    running.callWhenRunning(LoopingCall(Reports(service).look).start, LOOK)
    running.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(leave(service)))
    running.addSystemEventTrigger("after", "shutdown", print, "stopped", flush=True)
    running.run()


if __name__ == "__main__":
    main()
