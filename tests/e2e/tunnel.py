"""
The cluster's tunnel: the node behind NAT, yurt-tunnel-server beside the apiserver, yurt-tunnel-agent on the node.

Everything is brought into the state that a test asks for, and stays so for the next test.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .curl import curl
from .doors import DIRECT, NAMED, Door, apiserver_options
from .manifests import INTERNAL_SERVICE, MANIFEST, SERVER_USER, tunnel_endpoints
from .network import UPLINK
from .node import Node
from .pods import pod
from .process import PATIENCE, E2EError, HungError, Process, find_binary, in_namespace, run, wait_for

if TYPE_CHECKING:
    from .cluster import Cluster

AGENT = "yurt-tunnel-agent"
SERVER_META, AGENT_META = "http://127.0.0.1:10265", "http://127.0.0.1:10266"
EDGE_LABEL = "openyurt.io/is-edge-worker"
NAT_RULES = (
    f"INPUT -i {UPLINK} -p tcp -m multiport --dports 10250,10255 -j DROP",  # also what was connected before
    f"INPUT -i {UPLINK} -m conntrack --ctstate NEW -j DROP",
    f"FORWARD -i {UPLINK} -m conntrack --ctstate NEW -j DROP",
)
SERVICES = "10.96.0.0/16"
SECOND_SERVER = 3
"""Last part of the second server's address."""
WEB, TALKER = "web", "talker"
"""Pods of the tests: one with its own network that serves /tmp/w on port 8080, one that prints a numbered line a second."""
SERVE = "mkdir /tmp/w; echo web > /tmp/w/index.html; httpd -f -p 8080 -h /tmp/w"


def twistd(*arguments: str) -> list[str]:
    """
    The command that runs a daemon in the foreground.
    """
    return [str(Path(sys.executable).with_name("twistd")), "--nodaemon", "--pidfile=", *arguments]


class TunnelServer:
    """
    A yurt-tunnel-server in a namespace of the cloud.  Its serving certificate bears its address and the names of
    the nodes, which is what apiservers that dial nodes by name compare it with.
    """

    def __init__(self, cluster: Cluster, name: str, namespace: str, address: str) -> None:
        self.cluster, self.name, self.namespace, self.address = cluster, name, namespace, address
        self.log = cluster.folder / f"log/{name}.log"
        self.socket = cluster.folder / f"{name}-egress" / "egress.sock"
        self.process: Process | None = None
        self.options: tuple[str, ...] = ()
        names = ("localhost", "edge-1", "edge-2")
        cluster.plane.authority.issue(name, "system:node:tunnel-server", ("system:nodes",), dns=names, ips=(address, "127.0.0.1"))

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.status is None

    def start(self, *options: str) -> None:
        """
        Start it with these options besides the ordinary ones, and wait until it listens.
        """
        self.stop()
        self.options = options
        argv = self.command("--egress-socket", str(self.socket), *options)
        process = self.process = Process(self.name, argv, self.log, self.namespace)

        def ready() -> bool:
            process.check()
            return curl(self.namespace, f"{SERVER_META}/v1/readyz", agent="test", timeout=5).status == 200

        wait_for(f"a ready {self.name}", ready, every=0.05)

    def command(self, *options: str) -> list[str]:
        """
        The command that runs it, or another one in its place.
        """
        keys = self.cluster.plane.authority
        return twistd(
            "yurt-tunnel-server",
            *("--bind-address", self.address),
            *("--kubeconfig", str(self.cluster.folder / "tunnel-server.conf")),
            *("--tls-cert-file", keys.file(f"{self.name}.crt")),
            *("--tls-private-key-file", keys.file(f"{self.name}.key")),
            *("--client-ca-file", keys.file("ca.crt")),
            *options,
        )

    def restart(self) -> None:
        """
        Start it again as it was.
        """
        self.start(*self.options)

    def stop(self, number: int = signal.SIGTERM, timeout: float = 40.0) -> int | None:
        process, self.process = self.process, None
        return process.stop(number, timeout) if process else None

    @property
    def status(self) -> dict[str, Any]:
        """
        What it says of itself.
        """
        return curl(self.namespace, f"{SERVER_META}/v1/status", agent="test", timeout=5).json

    @property
    def agents(self) -> list[dict[str, Any]]:
        """
        The connections of agents.
        """
        found: list[dict[str, Any]] = self.status["nodes"]
        return found

    def streams(self) -> int:
        """
        How many streams are open now.
        """
        return sum(int(agent["streams"]) for agent in self.agents)

    def connected(self) -> set[str]:
        """
        The names of the nodes whose agents it has.
        """
        return {agent["node"] for agent in self.agents}

    def wait_for_agents(self, *names: str) -> None:
        wait_for(f"agents of {names} at {self.name}", lambda: self.connected() == set(names), every=0.05)


class Tunnel:
    """
    The state of everything that belongs to the tunnel.  :meth:`enter` brings it about, :meth:`leave` ends it.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.door: Door = DIRECT
        self.server = TunnelServer(cluster, "yurt-tunnel-server", cluster.cloud_namespace, cluster.plane.address)
        self.hosts = cluster.folder / "hosts"
        self._behind_nat: list[Node] = []
        self._apiserver: Process | None = None
        self._kube_proxy: Process | None = None
        self._has_pods = False
        self._ordinary: dict[str, Process] = {}
        """The agents that run as they do between tests, by node."""
        keys = cluster.plane.authority
        keys.issue("tunnel-server-client", SERVER_USER)
        keys.kubeconfig(cluster.folder / "tunnel-server.conf", cluster.plane.url, "tunnel-server-client")

    # The parts

    @cached_property
    def second_server(self) -> TunnelServer:
        """
        A server on another machine of the cloud.
        """
        network = self.cluster.network
        namespace = network.add("cloud-2", SECOND_SERVER)
        return TunnelServer(self.cluster, "yurt-tunnel-server-2", namespace, network.address(SECOND_SERVER))

    def hide(self, node: Node) -> None:
        """
        Put a node behind NAT: it dials out, and nothing gets in.
        """
        if node in self._behind_nat:
            return
        self._behind_nat.append(node)
        for rule in NAT_RULES:
            node.run("iptables", "-w", "-A", *rule.split())
        run(in_namespace(self.cluster.cloud_namespace, ["ss", "-K", "-t", "dst", node.address, "dport", "=", ":10250"]))

    def show(self, node: Node) -> None:
        """
        Let the world reach a node again.
        """
        if node in self._behind_nat:
            self._behind_nat.remove(node)
            for rule in NAT_RULES:
                node.run("iptables", "-w", "-D", *rule.split())

    def agent_command(self, node: Node, *options: str, servers: Iterable[TunnelServer] = (), certificate: str = "") -> list[str]:
        """
        The command that runs a node's agent.
        """
        keys = self.cluster.plane.authority
        addresses = [f"{one.address}:10262" for one in servers or (self.server,)]
        return twistd(
            AGENT,
            *("--node-name", node.name),
            *("--node-ip", node.address),
            *("--tunnelserver-addr", ",".join(addresses)),
            *("--tls-cert-file", keys.file(f"{certificate or node.name}.crt")),
            *("--tls-private-key-file", keys.file(f"{certificate or node.name}.key")),
            *("--client-ca-file", keys.file("ca.crt")),
            *options,
        )

    def start_agent(self, node: Node, *options: str, servers: Sequence[TunnelServer] = ()) -> Process:
        """
        Start a node's agent, in the place of an earlier one, and wait until its servers know it.
        """
        agent = node.spawn(AGENT, self.agent_command(node, *options, servers=servers))

        def known() -> bool:
            agent.check()
            return all(node.name in server.connected() for server in servers or (self.server,))

        wait_for(f"the agent of {node.name} at its servers", known, every=0.05)
        if not (options or servers):
            self._ordinary[node.name] = agent
        return agent

    def agent_answers(self, node: Node, path: str) -> tuple[int, str]:
        """
        Status and body of a page of the agent's own.
        """
        answer = curl(node.namespace, f"{AGENT_META}{path}", agent="test", timeout=5)
        return answer.status, answer.body

    def server_options(self, door: Door) -> tuple[str, ...]:
        """
        The options of a server that serves ``door``.
        """
        iptables, dns = str(door.iptables).lower(), str(door.dns).lower()
        return f"--enable-iptables={iptables}", f"--enable-dns-controller={dns}"

    # All of it

    def enter(self, door: Door) -> None:
        """
        Bring everything into the ordinary state of ``door``; what is so already is left alone.
        """
        node = self.cluster.node
        if door != self.door:
            self._leave_door()
            self.cluster.kubectl("apply", "-f", str(MANIFEST))
            self.door = door
        self.cluster.kubectl("label", "node", node.name, "--overwrite", f"{EDGE_LABEL}=true")
        self._make_pods(node)
        (self.hide if door.behind_nat else self.show)(node)
        if door is not DIRECT:
            if not self.server.runs or self.server.options != self.server_options(door):
                self.server.start(*self.server_options(door))
            agent = node.processes.get(AGENT)
            if agent is None or agent.status is not None or agent is not self._ordinary.get(node.name):
                self.start_agent(node)
            self.server.wait_for_agents(node.name)
        if door is NAMED and self._kube_proxy is None:
            self._serve_names()
        plane = self.cluster.plane
        if door.port != plane.port and self._apiserver is None:
            options = apiserver_options(door, plane.authority, self.server.address, self.server.socket)
            hosts = self.hosts if door is NAMED else None
            self._apiserver = plane.start_another(f"apiserver-{door.name}", door.port, *options, hosts=hosts)

    def _make_pods(self, node: Node) -> None:
        if not self._has_pods:
            self._has_pods = True
            self.cluster.make_pods(
                pod(WEB, node.name, SERVE),
                pod(TALKER, node.name, "i=0; while true; do echo line $i; i=$((i+1)); sleep 1; done", host_network=True),
            )

    def _serve_names(self) -> None:
        """
        The Service of DNS mode, a kube-proxy beside the apiserver that leads its address to the server, and the names
        of the nodes as the server's ConfigMap gives them.
        """
        cluster = self.cluster
        cluster.apply(tunnel_endpoints(self.server.address))
        self.serve_services()
        address = cluster.kubectl("get", "service", "-n", "kube-system", INTERNAL_SERVICE, "-o", "jsonpath={.spec.clusterIP}")
        wait_for("the node's name", lambda: f"{address}\t{cluster.node.name}" in self.names())
        self.hosts.write_text(f"127.0.0.1 localhost\n{self.names()}\n")

        def leads_to_server() -> bool:
            return curl(cluster.cloud_namespace, f"https://{address}:10250/", agent="test", timeout=2, extra=["-k"]).status > 0

        wait_for("the Service's address", leads_to_server)

    def serve_services(self) -> None:
        """
        Let a kube-proxy beside the apiserver lead addresses of Services to their endpoints, until the door is left.
        """
        if self._kube_proxy is not None:
            return
        cluster, keys = self.cluster, self.cluster.plane.authority
        # Packets to service addresses need some route before they reach DNAT.
        run(["ip", "-n", cluster.cloud_namespace, "route", "replace", SERVICES, "dev", UPLINK])
        keys.issue("kube-proxy", "system:kube-proxy")
        kubeconfig = keys.kubeconfig(cluster.folder / "kube-proxy.conf", cluster.plane.url, "kube-proxy")
        argv = [find_binary("kube-proxy") or "kube-proxy", "--kubeconfig", kubeconfig, "--proxy-mode", "iptables"]
        argv += ["--conntrack-max-per-core", "0", "--cluster-cidr", "10.244.0.0/16", "--hostname-override", "cloud"]
        argv += ["--bind-address", self.server.address]  # else it would look half a minute for a Node of the cloud
        self._kube_proxy = Process(
            "kube-proxy of the cloud", argv, cluster.folder / "log/kube-proxy.log", cluster.cloud_namespace
        )

    def names(self) -> str:
        """
        The lines that the server keeps for a name server.
        """
        document = self.cluster.kubectl("get", "configmap", "-n", "kube-system", "yurt-tunnel-nodes", "-o", "json")
        return str(json.loads(document).get("data", {}).get("tunnel-nodes", ""))

    def _leave_door(self) -> None:
        for process in (self._apiserver, self._kube_proxy):
            if process:
                process.stop()
        if self._kube_proxy:
            namespace = self.cluster.cloud_namespace
            run(in_namespace(namespace, [find_binary("kube-proxy") or "kube-proxy", "--cleanup"]), check=False)
        self._apiserver = self._kube_proxy = None

    def leave(self) -> None:
        """
        End all of it, as if there had never been a tunnel.
        """
        self._leave_door()
        self.cluster.node.stop(AGENT)
        self.server.stop()
        for node in tuple(self._behind_nat):
            self.show(node)
        if self._has_pods:
            self.cluster.remove_pods(WEB, TALKER)
            self._has_pods = False
        self.door = DIRECT

    def stop(self) -> None:
        """
        End the processes, and nothing else.
        """
        servers = [self.server, *([self.second_server] if "second_server" in vars(self) else [])]
        for process in (self._apiserver, self._kube_proxy, *(server.process for server in servers)):
            if process:
                process.stop(signal.SIGKILL)

    # Words for tests

    def kubectl_command(self, *arguments: str) -> list[str]:
        """
        The command that runs kubectl against the apiserver of the door.
        """
        plane = self.cluster.plane
        return plane.kubectl_command("--server", plane.url_of(self.door.port), *arguments)

    def kubectl(self, *arguments: str, timeout: float = PATIENCE, stdin: bytes | None = None) -> str:
        return run(self.kubectl_command(*arguments), timeout=timeout, stdin=stdin)

    def refused(self, *arguments: str) -> str:
        """
        What kubectl says when it fails.
        """
        try:
            said = self.kubectl(*arguments)
        except HungError:
            raise
        except E2EError as problem:
            return str(problem)
        raise AssertionError(f"kubectl {' '.join(arguments)} did not fail, but said {said[-500:]!r}")
