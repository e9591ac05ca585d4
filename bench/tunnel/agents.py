"""
``python -m bench.tunnel.agents PORT FOLDER COUNT``: many agents in one process, each with a node's certificate of its own.

They are made of the agent's own parts, so that they connect, wait and come again as it does.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as default_reactor

from yurt.lifecycle import raise_file_limit
from yurt.tls import Credentials
from yurt.tunnel.agent.config import AgentConfig
from yurt.tunnel.agent.service import TunnelAgent

START_SECONDS = 10.0
"""The agents of a fleet do not start at the same moment."""


def node_name(number: int) -> str:
    return f"node-{number}"


def main() -> None:
    port, folder, count = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    reactor: Any = default_reactor
    raise_file_limit()
    for number in range(count):
        name = node_name(number)
        credentials = Credentials(
            ca_file=str(folder / "ca.crt"), cert_file=str(folder / f"{name}.crt"), key_file=str(folder / f"{name}.key")
        )
        config = AgentConfig(name, (("127.0.0.1", port),), credentials, node_ips=("127.0.0.1",), meta_port=0)
        agent = TunnelAgent(reactor, config)
        reactor.callLater(START_SECONDS * number / count, agent.connector.start)
    reactor.run()


if __name__ == "__main__":
    main()
