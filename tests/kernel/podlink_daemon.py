"""
A daemon with nothing but a pod link, for killing and stopping.

usage: python -m tests.kernel.podlink_daemon
Prints a line each time addresses are ready, and one when the service has stopped.
"""

from __future__ import annotations

import json
from typing import Any, cast

from twisted.internet import reactor

from yurt.hub.podlink import PodLink, PodLinkSettings


def main() -> None:
    """
    Run until SIGTERM.
    """
    running = cast(Any, reactor)
    settings = PodLinkSettings(dummy_if_ip=("169.254.2.1", "fd00::2:1"), enable_iptables=True)
    service = PodLink(running, settings, lambda addresses: print(json.dumps(addresses), flush=True))
    running.callWhenRunning(service.startService)
    running.addSystemEventTrigger("before", "shutdown", service.stopService)
    running.addSystemEventTrigger("after", "shutdown", print, "stopped", flush=True)
    running.run()


if __name__ == "__main__":
    main()
