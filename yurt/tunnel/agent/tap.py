"""
``twistd yurt-tunnel-agent``: its options, and the service they describe.
"""

from __future__ import annotations

import os
from typing import cast

from cryptography import x509
from twisted.application.service import IService
from twisted.internet.base import ReactorBase
from twisted.python import usage

from yurt import __version__, logs
from yurt.http.environment import usable_proxy_for
from yurt.http.wire import plain_turns
from yurt.kube.joinflags import JOIN_OPTIONS, read_join_settings
from yurt.kube.joining import JoinSettings
from yurt.kube.kubeconfig import KubeconfigError, load_kubeconfig
from yurt.lifecycle import raise_file_limit, stop_once, use_steady_time
from yurt.options import Option, address, comma_list, duration, host_port, https_urls, integer, node_name, port
from yurt.options import Options as DeclaredOptions
from yurt.tls import ClientTLS, Credentials, CredentialsError
from yurt.tunnel.agent.config import AgentConfig
from yurt.tunnel.connect import authority
from yurt.tunnel.hello import NotAnAgent, node_of

CONNECT_PORT = 10262
"""The port of a server for agents, when none is written."""

RESOLVER_OPTIONS = "timeout:2 attempts:2"
"""
How the C library looks names up (resolv.conf(5)): a question that got lost is asked again, or given up, in 2 s.  With its own 5 s
a box that came up before its name server would not be connected within that time of the name server's return.
"""

_one_port = integer(1, 65535)


def absolute(path: str) -> str:
    """
    A path that means the same after a daemon has left its folder; an empty text stays empty.
    """
    return os.path.abspath(path) if path else ""


def servers(text: str) -> tuple[tuple[str, int], ...]:
    """
    Servers of a comma list: host, host:port, [IPv6 address]:port.
    """
    if "://" in text:
        raise ValueError("write host:port, without https://")
    found = tuple(host_port(part, CONNECT_PORT) for part in comma_list(text))
    if any(not number for _, number in found):
        raise ValueError("port 0 is none")
    if any(len(host.split()) > 1 for host, _ in found):
        raise ValueError("write a comma between servers; a name has no blanks")
    return found


def addresses(text: str) -> tuple[str, ...]:
    """
    IP addresses of a comma list.
    """
    return tuple(address(part) for part in comma_list(text))


def ports(text: str) -> tuple[int, ...]:
    """
    Ports of a comma list.
    """
    return tuple(_one_port(part) for part in comma_list(text))


class Options(DeclaredOptions):
    """
    The options of the agent; :attr:`config` is what they say together.
    """

    program = "yurt-tunnel-agent"
    version_text = __version__
    synopsis = "--tunnelserver-addr=HOST[:PORT] --node-name=NAME [options]"
    longdesc = (
        "Runs on every node that the cloud cannot dial: connects to the yurt-tunnel-servers, and lets them reach this node's "
        "kubelet through that connection.  Without --tls-cert-file it asks for a certificate in the node's name."
    )
    declared = (
        Option(
            "tunnelserver-addr", "", "servers as host:port, comma separated; the port is 10262 if left out", servers, many=True
        ),
        Option("node-name", "", "name of this node, as kubelet registers it. Default: NODE_NAME of the environment", node_name),
        Option(
            "node-ip",
            "",
            "addresses of this node, comma separated. Default: NODE_IP of the environment, and what the kernel says anyway",
            addresses,
            many=True,
        ),
        Option(
            "kubeconfig",
            "",
            "the node's kubeconfig, by which a certificate is asked for and renewed, without --tls-cert-file. Default: that of "
            "the hub, /var/lib/yurthub/yurthub.conf, or kubelet's, /etc/kubernetes/kubelet.conf",
            absolute,
        ),
        Option("kube-config", "", "OpenYurt's name for --kubeconfig", absolute),
        *JOIN_OPTIONS,
        Option("server-addr", "", "API servers to join at by --join-token, comma separated; https is implied", https_urls),
        Option("apiserver-addr", "", "OpenYurt's name for --server-addr", https_urls),
        Option("cert-dir", "/var/lib/yurttunnel-agent/pki", "folder of that certificate", absolute),
        Option("tls-cert-file", "", "PEM file of the node's client certificate; read again when it changes", absolute),
        Option("tls-private-key-file", "", "PEM file of its key. Default: the file of the certificate", absolute),
        Option(
            "client-ca-file",
            "",
            "PEM file of the CA that signs the certificate of the servers. Default: that of the cluster, as --kubeconfig or "
            "joining tells it",
            absolute,
        ),
        Option(
            "allowed-ports",
            "",
            "ports of this node that may be dialled beside 10250 and 10255, comma separated",
            ports,
            many=True,
        ),
        Option("meta-host", "", "address of the meta pages. Default: loopback, IPv4 or IPv6 as --node-ip", address),
        Option("meta-port", "10266", "port of the meta pages: health, readiness, status, metrics; 0: none", port),
        Option("drain-timeout", "30s", "how long running streams may go on at a stop", duration),
    )
    config: AgentConfig

    def postOptions(self) -> None:
        """
        Make the one value of all options, or say what is wrong with them.
        """
        if not self["tunnelserver-addr"]:
            raise usage.UsageError("--tunnelserver-addr is missing: give the servers, such as tunnel.example.com:10262")
        node_name = self["node-name"] or os.environ.get("NODE_NAME", "")
        if not node_name:
            raise usage.UsageError("--node-name is missing: give the name under which kubelet registers this node")
        node_ips = self["node-ip"] or self.node_ips_of_environment()
        asks = not self["tls-cert-file"]
        self.config = AgentConfig(
            node_name=node_name,
            servers=tuple(dict.fromkeys(self["tunnelserver-addr"])),
            credentials=self.read_authority() if asks else self.read_credentials(node_name),
            kubeconfig=self.kubeconfig_path() or None,
            join=self.read_join(),
            cert_dir=self["cert-dir"],
            node_ips=node_ips,
            allowed_ports=frozenset(self["allowed-ports"]),
            proxies=self.proxies_of_environment(),
            meta_host=self["meta-host"] or ("::1" if node_ips and ":" in node_ips[0] else "127.0.0.1"),
            meta_port=self["meta-port"],
            drain_timeout=self["drain-timeout"],
        )

    def node_ips_of_environment(self) -> tuple[str, ...]:
        """
        What OpenYurt's DaemonSet gives.
        """
        text = os.environ.get("NODE_IP", "")
        try:
            return addresses(text)
        except ValueError as error:
            raise usage.UsageError(f"NODE_IP={text!r} in the environment: {error}") from None

    def proxies_of_environment(self) -> dict[tuple[str, int], str]:
        """
        HTTPS_PROXY, for the servers that NO_PROXY does not except.
        """
        try:
            found = {
                server: usable_proxy_for(f"https://{authority(*server)}", os.environ) for server in self["tunnelserver-addr"]
            }
        except ValueError as error:
            raise usage.UsageError(str(error)) from None
        return {server: proxy for server, proxy in found.items() if proxy is not None}

    def kubeconfig_path(self) -> str:
        """
        The kubeconfig's path, under either name.
        """
        ours, theirs = self["kubeconfig"], self["kube-config"]
        if ours and theirs and ours != theirs:
            raise usage.UsageError("--kubeconfig and --kube-config name different files: keep one of them")
        path = str(ours or theirs)
        return path

    def read_join(self) -> JoinSettings:
        """
        How to ask for a certificate, if that is to be done.
        """
        told = [name for name in ("kubeconfig", "kube-config", "join-token", "bootstrap-file") if self[name]]
        if self["tls-cert-file"]:
            if told:
                raise usage.UsageError(f"--{told[0]} and --tls-cert-file exclude each other: ask for a certificate, or give one")
            return JoinSettings(())
        if self["tls-private-key-file"]:
            raise usage.UsageError("--tls-cert-file is missing: --tls-private-key-file gives the key of a certificate")
        if not self["cert-dir"]:
            raise usage.UsageError("--cert-dir is empty: give the folder of the certificate, or leave the option out")
        servers = self["server-addr"] or self["apiserver-addr"] or self.servers_to_join()
        if self["join-token"] and not servers:
            raise usage.UsageError("--server-addr is missing: give the API servers to join at, such as https://10.0.0.1:6443")
        return read_join_settings(self, servers)

    def servers_to_join(self) -> tuple[str, ...]:
        """
        The server of the kubeconfig to join with, for what is asked besides.
        """
        try:
            return https_urls(load_kubeconfig(self["bootstrap-file"]).server) if self["bootstrap-file"] else ()
        except (KubeconfigError, ValueError):
            return ()  # it may have served

    def read_authority(self) -> Credentials:
        """
        The CA of the servers, if it is named.
        """
        credentials = Credentials(ca_file=self["client-ca-file"] or None)
        try:
            ClientTLS(credentials)
        except CredentialsError as error:
            raise usage.UsageError(str(error)) from None
        return credentials

    def read_credentials(self, node_name: str) -> Credentials:
        """
        The files, if they can be used and are this node's.
        """
        if not self["client-ca-file"]:
            raise usage.UsageError("--client-ca-file is missing: the agent and the server show each other certificates")
        key_file = self["tls-private-key-file"] or None
        credentials = Credentials(ca_file=self["client-ca-file"], cert_file=self["tls-cert-file"], key_file=key_file)
        try:
            ClientTLS(credentials)
        except CredentialsError as error:
            raise usage.UsageError(str(error)) from None
        with open(self["tls-cert-file"], "rb") as file:
            certificate = x509.load_pem_x509_certificates(file.read())[0]
        try:
            named = node_of(certificate)
        except NotAnAgent as error:
            raise usage.UsageError(f"--tls-cert-file {self['tls-cert-file']}: {error}") from None
        if named != node_name:
            raise usage.UsageError(f"--tls-cert-file {self['tls-cert-file']}: it is for node {named}, not for {node_name}")
        return credentials


def makeService(options: Options) -> IService:
    """
    The agent as a service; nothing happens before it is started.
    """
    from twisted.internet import reactor

    from yurt.tunnel.agent.service import TunnelAgent

    use_steady_time(cast(ReactorBase, reactor))
    plain_turns(reactor)
    stop_once(cast(ReactorBase, reactor))
    logs.guard()  # before twistd adds the observer that writes
    raise_file_limit()
    os.environ.setdefault("RES_OPTIONS", RESOLVER_OPTIONS)  # read by the C library in each thread that looks a name up
    return TunnelAgent(reactor, options.config)
