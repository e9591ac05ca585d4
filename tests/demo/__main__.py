"""
``python -m tests.demo``: see the package.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from tests.miniapi import MiniAPI

from .hub import HubShow
from .stage import NODE, say, together
from .tunnel import TunnelShow


class Demo:
    """
    The whole show.
    """

    def __init__(self, reactor: Any, folder: Path) -> None:
        self._api = MiniAPI(reactor)
        self.hub = HubShow(reactor, folder, self._api)
        self.tunnel = TunnelShow(reactor, folder, self._api)
        self.is_over = False

    def start(self) -> None:
        """
        Start the cloud and the daemons.
        """
        for name in ("web", "database"):
            spec = {"nodeName": NODE, "containers": [{"name": "main", "image": "busybox:1"}]}
            self._api.put("pods", {"metadata": {"name": name}, "spec": spec, "status": {"phase": "Running"}})
        self._api.start()
        self.hub.start()
        self.tunnel.start()

    async def stop(self) -> None:
        """
        End the daemons, and the cloud.
        """
        self.is_over = True
        self._api.heal()
        await together(self.tunnel.stop(), self.hub.stop())
        await self._api.stop()

    async def play(self) -> None:
        """
        All acts; then everything stays up, and something happens each second.
        """
        await self.hub.play()
        await self.tunnel.play()
        say("7. Everything stays up until Ctrl-C")
        self.hub.tell()
        self.tunnel.tell()
        say(f"   cloud    {self._api.url}    cut it off and bring it back: kill -USR1 {os.getpid()}")
        say(f"   link     cut it and heal it: kill -USR2 {os.getpid()}")
        LoopingCall(self.hub.tick).start(1.0)


def main() -> None:
    from twisted.internet import reactor as default_reactor

    reactor: Any = default_reactor
    with tempfile.TemporaryDirectory(prefix="yurt-demo-") as folder:
        demo = Demo(reactor, Path(folder))
        failed: list[Failure] = []

        def fail(failure: Failure) -> None:
            if demo.is_over:
                return  # an act that was going on
            failed.append(failure)
            say(f"The demo failed: {failure.getErrorMessage()}")
            reactor.stop()

        def begin() -> None:
            signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(demo.hub.toggle))
            signal.signal(signal.SIGUSR2, lambda *_: reactor.callFromThread(demo.tunnel.toggle))
            demo.start()
            Deferred.fromCoroutine(demo.play()).addErrback(fail)

        reactor.callWhenRunning(begin)
        reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(demo.stop()))
        reactor.run()
    if failed:
        sys.exit(1)
    say("Good bye.")


if __name__ == "__main__":
    main()
