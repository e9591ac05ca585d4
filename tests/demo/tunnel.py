"""
The tunnel's acts: a log and a command reach a node that nobody can dial, and the link to it is cut and healed.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from twisted.internet.error import ConnectError
from twisted.protocols.portforward import ProxyFactory
from twisted.web.client import ResponseFailed

from tests.certs import Identity, issue
from tests.contract.client import KubeClient
from tests.miniapi import MiniAPI
from tests.miniapi.gate import Gate
from yurt.tls import ClientTLS, Credentials

from .call import Caller
from .node import SHELL, EdgeNode
from .stage import DRAIN, HERE, NODE, START_TIMEOUT, Daemon, say, together, usable_port

NODE_ADDRESS = "127.0.0.2"
KUBELET_PORT = 10250
AGENTS_PORT, SECURE_PORT, PLAIN_PORT, META_PORT, AGENT_META_PORT = 10262, 10263, 10264, 10265, 10266
CALLER = "kube-apiserver-kubelet-client"
LOG = "/containerLogs/default/web/main"


class TunnelShow:
    """
    A tunnel server beside the miniature cloud, a node, its agent, and the link between agent and server.
    """

    def __init__(self, reactor: Any, folder: Path, api: MiniAPI) -> None:
        self._reactor, self._folder, self._api = reactor, folder, api
        self._server, self._agent = Daemon(reactor, "yurt-tunnel-server"), Daemon(reactor, "yurt-tunnel-agent")
        wanted = (AGENTS_PORT, SECURE_PORT, PLAIN_PORT, META_PORT, AGENT_META_PORT)
        self._agents, self._secure, self._plain, self._meta, self._agent_meta = map(usable_port, wanted)
        self._kubelet = usable_port(KUBELET_PORT, NODE_ADDRESS)
        self._node = EdgeNode(reactor, api.ca, NODE_ADDRESS, self._kubelet)
        self._link = Gate(ProxyFactory(HERE, self._agents))
        self._link_port: Any = None
        self._pages = KubeClient(reactor, f"http://{HERE}:{self._meta}", api.ca.cert_pem)
        self._agent_pages = KubeClient(reactor, f"http://{HERE}:{self._agent_meta}", api.ca.cert_pem)
        caller = self._write("caller", api.certificate(CALLER, "system:masters"))
        self._caller = Caller(reactor, ClientTLS(caller), self._secure)

    def _write(self, name: str, identity: Identity) -> Credentials:
        """
        Put the CA and an identity into files.
        """
        ca, certificate, key = (str(self._folder / file) for file in ("ca.crt", f"{name}.crt", f"{name}.key"))
        for path, pem in ((ca, self._api.ca.cert_pem), (certificate, identity.cert_pem), (key, identity.key_pem)):
            Path(path).write_bytes(pem)
        return Credentials(ca_file=ca, cert_file=certificate, key_file=key)

    def _identity(self, name: str, identity: Identity) -> list[str]:
        files = self._write(name, identity)
        return [
            f"--tls-cert-file={files.cert_file}", f"--tls-private-key-file={files.key_file}", f"--client-ca-file={files.ca_file}"
        ]  # fmt: skip

    def start(self) -> None:
        """
        Start the node, the server and the agent.
        """
        addresses = [{"type": "InternalIP", "address": NODE_ADDRESS}, {"type": "Hostname", "address": NODE}]
        status = {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": self._kubelet}}}
        self._api.put("nodes", {"metadata": {"name": NODE, "labels": {"openyurt.io/is-edge-worker": "true"}}, "status": status})
        self._node.start()
        self._link_port = self._reactor.listenTCP(0, self._link, interface=HERE)
        serving = issue(self._api.ca, "system:node:tunnel-server", ["system:nodes"], dns=["localhost"], ips=[HERE])
        self._server.start(
            *self._identity("server", serving),
            f"--kubeconfig={self._api.write_kubeconfig(self._folder / 'server.conf', 'yurt-tunnel-server')}",
            f"--kubelet-certificate-authority={self._folder / 'ca.crt'}", f"--bind-address={HERE}",
            f"--tunnel-agent-connect-port={self._agents}", f"--secure-port={self._secure}", f"--insecure-port={self._plain}",
            f"--meta-port={self._meta}", "--enable-iptables=false", "--enable-dns-controller=false", DRAIN,
        )  # fmt: skip
        self._agent.start(
            *self._identity("agent", self._api.certificate(f"system:node:{NODE}", "system:nodes")),
            f"--node-name={NODE}", f"--node-ip={NODE_ADDRESS}", f"--allowed-ports={self._kubelet}",
            f"--tunnelserver-addr={HERE}:{self._link_port.getHost().port}", f"--meta-port={self._agent_meta}", DRAIN,
        )  # fmt: skip

    async def stop(self) -> None:
        """
        End all of it.
        """
        self._link.heal()
        await together(self._agent.stop(), self._server.stop())
        await together(self._pages.close(), self._agent_pages.close())
        if self._link_port is not None:
            await self._link_port.stopListening()
            self._link.abort_all()
        await self._node.stop()

    def toggle(self) -> None:
        """
        Cut the node's link, or heal it.
        """
        (self._link.heal if self._link.is_cut else self._link.cut)()
        say(f"   the link to {NODE} is {'cut: packets vanish' if self._link.is_cut else 'healed'}")

    # The acts

    async def play(self) -> None:
        """
        Three acts.
        """
        say(f"4. The tunnel: the agent of {NODE} has dialled out, and the server knows it")
        await self._server.until("server that is ready", self._ready, START_TIMEOUT)
        agent = await self._server.until("agent that is connected", self._connected, START_TIMEOUT)
        round_trip = agent["roundTripMilliseconds"]
        say(f"   {agent['node']} connected from {agent['from']}, {agent['agent']}, round trip {round_trip} ms")
        await self._show("/healthz", self._host)
        await self._show("/healthz", "nobody:10250")
        say("5. Through the tunnel: a log is followed, and a command runs on the node")
        log = await self._caller.call("GET", f"{LOG}?follow=true")
        for _ in range(3):
            say(f"   LOG: {await self._next_line(log)}")
        await self._execute()
        say("6. The link is cut without a word, and healed")
        await self._cut_and_heal()
        await log.through(None)
        say("   LOG: that stream ended with the link; a new one follows")
        log = await self._caller.call("GET", f"{LOG}?follow=true")
        say(f"   LOG: {await self._next_line(log)}")
        log.hang_up()

    @property
    def _host(self) -> str:
        return f"{NODE}:{self._kubelet}"

    async def _ready(self) -> bool:
        try:
            return (await self._pages.ask("GET", "/v1/readyz")).status == 200
        except (ConnectError, ResponseFailed):
            return False

    async def _connected(self) -> dict[str, Any] | None:
        agents: list[dict[str, Any]] = (await self._pages.ask("GET", "/v1/status")).json["nodes"]
        measured = [agent for agent in agents if agent["roundTripMilliseconds"] is not None]
        return measured[0] if measured else None

    async def _gone(self) -> bool:
        return not (await self._pages.ask("GET", "/v1/status")).json["nodes"]

    async def _back(self) -> bool:
        return (await self._agent_pages.ask("GET", "/v1/readyz")).status == 200

    async def _show(self, target: str, host: str) -> None:
        begin = time.monotonic()
        status, text = await self._caller.ask(target, host)
        say(f"   GET {target} of {host} -> {status} in {(time.monotonic() - begin) * 1000:.1f} ms [{text}]")

    async def _next_line(self, log: Any) -> str:
        found = re.search(rb"[^\n]* line [^\n]*(?=\n)", await log.through(f"on {NODE}\n".encode()))
        assert found is not None
        return found[0].decode()

    async def _execute(self) -> None:
        call = await self._caller.call("POST", "/exec/default/web/main?command=sh", Connection="Upgrade", Upgrade=SHELL.decode())
        head = await call.through(b"\r\n\r\n")
        say(f"   POST /exec/default/web/main -> {head.partition(b' ')[2].partition(bytes([13]))[0].decode()}")
        for command in ("hostname", "echo the same connection, both ways"):
            begin = time.monotonic()
            call.send(command.encode() + b"\n")
            answer = await call.through(b"\n")
            say(f"   $ {command}\n   {answer.decode().rstrip()}    ({(time.monotonic() - begin) * 1000:.1f} ms)")
        call.hang_up()

    async def _cut_and_heal(self) -> None:
        self.toggle()
        begin = time.monotonic()
        await self._server.until("end of the connection", self._gone)
        say(f"   the server noticed after {time.monotonic() - begin:.0f} s")
        await self._show("/healthz", self._host)
        self.toggle()
        begin = time.monotonic()
        await self._server.until("agent that is back", self._connected)
        await self._agent.until("server that is back", self._back)
        say(f"   the agent is back after {time.monotonic() - begin:.1f} s")
        await self._show("/healthz", self._host)

    def tell(self) -> None:
        """
        Print what there is to try.
        """
        plain = f"http://{HERE}:{self._plain}"
        files = f"--cacert {self._folder}/ca.crt --cert {self._folder}/caller.crt --key {self._folder}/caller.key"
        say(f"   tunnel   {plain}    for callers on this machine: curl -N '{plain}{LOG}?follow=true'")
        say(f"            curl -H 'Host: {self._host}' {plain}/healthz")
        say(f"            https://{HERE}:{self._secure}    for all others:")
        say(f"            curl {files} -H 'Host: {self._host}' https://{HERE}:{self._secure}/healthz")
        say(f"   server   http://{HERE}:{self._meta}/v1/status  /v1/readyz  /metrics    agents come to port {self._agents}")
        say(f"   agent    http://{HERE}:{self._agent_meta}/v1/status  /v1/readyz  /metrics")
        say(f"   node     https://{NODE_ADDRESS}:{self._kubelet}")
