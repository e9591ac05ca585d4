"""
The place where things are measured: certificates, nginx in kubelet's place, a server, and an agent on a node.
"""

from __future__ import annotations

import http.client
from typing import Any

from bench.children import Child, is_listening
from bench.nginx import NginxCloud
from bench.place import TWISTD, Place
from tests.certs import Authority, issue, make_ca
from tests.ports import free_port

NODE = "bench-node"
ADDRESS = "127.0.0.1"


class TunnelSite(Place):
    """
    Certificates, ports, and what stands on both sides of the tunnel.
    """

    ca: Authority
    address = ADDRESS
    """Where the server listens."""
    node_addresses: tuple[str, ...] = (ADDRESS,)
    on_node: tuple[str, ...] = ()
    """What a command begins with that is to run on the node."""
    secure_port = 0
    kubelet_port = 0
    """0: any that is free."""

    def prepare(self) -> None:
        """
        Make the certificates.
        """
        self.certs = self.folder / "certs"
        self.certs.mkdir()
        self.ca = make_ca()
        (self.certs / "ca.crt").write_bytes(self.ca.cert_pem)
        self.issue("server", "system:node:tunnel-server", ["system:nodes"], ["localhost"], sorted({self.address, ADDRESS}))
        self.issue("agent", f"system:node:{NODE}", ["system:nodes"])
        self.agent_port, self.plain_port, self.meta_port = free_port(), free_port(), free_port()

    def issue(self, name: str, *what: Any) -> None:
        """
        A certificate and its key as ``name.crt`` and ``name.key``.
        """
        identity = issue(self.ca, *what)
        (self.certs / f"{name}.crt").write_bytes(identity.cert_pem)
        (self.certs / f"{name}.key").write_bytes(identity.key_pem)

    def identity(self, name: str) -> list[str]:
        """
        The options that give a daemon a certificate.
        """
        return [
            f"--tls-cert-file={self.certs / name}.crt",
            f"--tls-private-key-file={self.certs / name}.key",
            f"--client-ca-file={self.certs}/ca.crt",
        ]

    def kubelet(self) -> NginxCloud:
        """
        What stands in kubelet's place.
        """
        nginx = NginxCloud(self.folder / "kubelet", self.certs, self.node_addresses[0], self.on_node, self.kubelet_port)
        self.at_end(nginx.stop)
        return nginx

    def server(self) -> Child:
        """
        A server that listens.
        """
        server = self.child(
            "server",
            TWISTD,
            "--nodaemon",
            "--pidfile=",
            "yurt-tunnel-server",
            *self.identity("server"),
            f"--bind-address={self.address}",
            f"--tunnel-agent-connect-port={self.agent_port}",
            f"--secure-port={self.secure_port}",
            f"--insecure-port={self.plain_port}",
            f"--meta-port={self.meta_port}",
            "--enable-iptables=false",
            "--enable-dns-controller=false",
        )
        server.wait_until(
            lambda: is_listening(self.agent_port, self.address) and is_listening(self.meta_port), "a server that listens"
        )
        return server

    def agent(self, *ports: int) -> Child:
        """
        The node's agent, connected; it may dial ``ports``.
        """
        agent = self.child(
            "agent",
            *self.on_node,
            TWISTD,
            "--nodaemon",
            "--pidfile=",
            "yurt-tunnel-agent",
            *self.identity("agent"),
            f"--node-name={NODE}",
            f"--node-ip={','.join(self.node_addresses)}",
            f"--tunnelserver-addr={self.address}:{self.agent_port}",
            f"--allowed-ports={','.join(map(str, ports))}",
            f"--meta-port={free_port()}",
        )
        agent.wait_until(lambda: self.connected() == 1, "an agent that is connected")
        return agent

    def divert(self, port: int) -> None:
        """
        Turn connections to a port of the node to the server, where that is what is measured.
        """

    def through(self) -> str:
        """
        curl's name of the way through the tunnel.
        """
        return f"http://{ADDRESS}:{self.plain_port}"

    def connected(self) -> int:
        """
        How many agents the server has.
        """
        return int(self.metric("yurttunnel_server_agents"))

    def metric(self, name: str) -> float:
        """
        The sum of what the server counts under that name; 0 when it does not answer.
        """
        _, body = get(self.meta_port, "/metrics")
        lines = (line.rpartition(" ") for line in body.decode().splitlines())
        return sum(float(value) for key, _, value in lines if key.partition("{")[0] == name)


def get(port: int, path: str) -> tuple[int, bytes]:
    """
    Status and body of a page on loopback; 0 when nobody answers.
    """
    connection = http.client.HTTPConnection(ADDRESS, port, timeout=5.0)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()
