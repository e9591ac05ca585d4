"""
A tunnel server with one agent, for a namespace in which rules divert connections to it.

usage: python -m tests.kernel.tunnel_daemon serve BIND-ADDRESS… | say HOST PORT TEXT
``serve`` prints a JSON line with the ports of its doors, and a line for each address that its agent was asked for; the agent
connects all of them to an echo.  ``say`` prints what it got for TEXT.
"""

from __future__ import annotations

import errno
import json
import socket
import sys
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory

from tests.certs import issue, make_ca
from tests.tunnel.server.site import LOOPBACK, Agent, Echo
from yurt.mux.connection import MuxStream
from yurt.tls import TLS1_3, ClientTLS, Credentials
from yurt.tunnel.hello import SERVER_NAME, AgentHello
from yurt.tunnel.link import dial_link
from yurt.tunnel.server.config import TunnelServerConfig
from yurt.tunnel.server.service import TunnelServer

NODE_ADDRESSES = ("10.9.0.8", "fd09::8")
PORTS = {"agents": 10262, "secure": 10263, "insecure": 10264}
SAY_SECONDS = 10.0


class TellingAgent(Agent):
    """
    Prints what it is asked for.
    """

    async def serve(self, stream: MuxStream) -> None:
        """
        See the base.
        """
        await super().serve(stream)
        print(self.asked[-1], flush=True)


async def serve(running: Any, addresses: tuple[str, ...]) -> None:
    """
    Start the server, and the agent.
    """
    ca = make_ca()

    def credentials(name: str) -> Credentials:
        identity = issue(ca, name, ips=[LOOPBACK])
        return Credentials(ca_data=ca.cert_pem, cert_data=identity.cert_pem, key_data=identity.key_pem)

    config = TunnelServerConfig(
        credentials(SERVER_NAME),
        bind_addresses=addresses,
        insecure_bind_addresses=addresses,
        tunnel_agent_connect_port=PORTS["agents"],
        secure_port=PORTS["secure"],
        insecure_port=PORTS["insecure"],
        meta_port=0,
    )
    server = TunnelServer(running, config)
    server.privilegedStartService()
    server.startService()
    echo = running.listenTCP(0, Factory.forProtocol(Echo), interface=LOOPBACK)
    agent = TellingAgent(running, echo.getHost().port)
    hello = AgentHello(f"{LOOPBACK}:{PORTS['agents']}", addresses=NODE_ADDRESSES)
    tls = ClientTLS(credentials("system:node:edge-1"), minimum=TLS1_3)
    agent.link = await dial_link(running, LOOPBACK, PORTS["agents"], tls, hello, make=agent.make)
    print(json.dumps(PORTS), flush=True)


def say(host: str, port: int, text: str) -> None:
    """
    Send a text, and print what comes back until the end.
    """
    answer = b""
    try:
        with socket.create_connection((host, port), SAY_SECONDS) as connection:
            connection.sendall(text.encode())
            connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(65536):
                answer += data
    except (ConnectionResetError, BrokenPipeError):
        answer = b"reset"
    except OSError as error:
        if error.errno != errno.ENOTCONN:  # of shutdown, after a reset
            raise
        answer = b"reset"
    print(answer.decode("latin-1"), end="")


def main(command: str, *words: str) -> None:
    """
    See the module.
    """
    if command == "say":
        say(words[0], int(words[1]), words[2])
        return
    running = cast(Any, reactor)
    running.callWhenRunning(lambda: Deferred.fromCoroutine(serve(running, words)).addErrback(fail))
    running.run()


def fail(failure: Any) -> None:
    """
    The test sees why.
    """
    failure.printTraceback(sys.stderr)
    cast(Any, reactor).stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
