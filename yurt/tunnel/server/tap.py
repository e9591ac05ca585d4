"""
``twistd yurt-tunnel-server``: its options, and the service they describe.
"""

from __future__ import annotations

import os
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, cast

from twisted.application.service import IService
from twisted.internet.base import ReactorBase
from twisted.python import usage

from yurt import __version__, logs
from yurt.http.wire import plain_turns
from yurt.kube.kubeconfig import Kubeconfig, KubeconfigError, load_kubeconfig
from yurt.lifecycle import raise_file_limit, stop_once, use_steady_time
from yurt.options import Option, address, boolean, choice, comma_list, duration, integer, port
from yurt.options import Options as DeclaredOptions
from yurt.tls import ClientTLS, Credentials, CredentialsError, ServerTLS
from yurt.tunnel.server.config import MIN_DNS_SYNC_PERIOD, MIN_IPTABLES_SYNC_PERIOD, TunnelServerConfig

MAX_PERIOD = 24 * 3600
"""Most seconds between two checks of what others may have changed."""

MAX_SOCKET_PATH = 107
"""Most bytes of the path of a Unix socket (unix(7))."""


def addresses(text: str) -> tuple[str, ...]:
    """
    IP addresses of a comma list; ``::`` stands for all of IPv4, too.
    """
    found = tuple(address(part) for part in comma_list(text))
    return tuple(one for one in found if not (one == "0.0.0.0" and "::" in found))


def absolute(path: str) -> str:
    """
    A path that means the same after a daemon has left its folder; an empty text stays empty.
    """
    return os.path.abspath(path) if path else ""


def socket_path(text: str) -> str:
    """
    The absolute path of a Unix socket; an empty text stays empty.
    """
    path = absolute(text)
    if len(path.encode()) > MAX_SOCKET_PATH:
        raise ValueError(f"the path of a Unix socket has at most {MAX_SOCKET_PATH} bytes")
    return path


class Options(DeclaredOptions):
    """
    The options of the server; :attr:`config` is what they say together.
    """

    program = "yurt-tunnel-server"
    version_text = __version__
    synopsis = "--tls-cert-file=FILE --tls-private-key-file=FILE --client-ca-file=FILE --kubeconfig=FILE [options]"
    longdesc = (
        "Runs beside kube-apiserver: every call to a kubelet behind NAT (exec, logs, attach, port-forward, metrics) goes to the "
        "node through the connection that the node's yurt-tunnel-agent has dialled."
    )
    declared = (
        Option("kubeconfig", "", "kubeconfig for the cluster; without it nodes are those that connect", absolute),
        Option("kube-config", "", "OpenYurt's name for --kubeconfig", absolute),
        Option(
            "tls-cert-file",
            "",
            "PEM file of the server's certificate, with its chain; read again when it changes. Default: one is asked for by "
            "--kubeconfig, and renewed",
            absolute,
        ),
        Option("tls-private-key-file", "", "PEM file of that certificate's key", absolute),
        Option("cert-dir", "/var/lib/yurttunnel-server/pki", "folder of the certificates that are asked for", absolute),
        Option("cert-dns-names", "", "more DNS names for the server's certificate, comma separated", comma_list, many=True),
        Option("cert-ips", "", "more addresses for it, comma separated", addresses, many=True),
        Option(
            "client-ca-file",
            "",
            "PEM file of the CA that signs the certificates of agents, callers and servers. Default: the CA of --kubeconfig",
            absolute,
        ),
        Option(
            "bind-address",
            "0.0.0.0",
            "addresses for agents and for the TLS port, comma separated; :: is all of IPv6 and IPv4",
            addresses,
        ),
        Option(
            "insecure-bind-address",
            "",
            "addresses of the plain port and the meta pages, comma separated. Default: loopback, IPv4 or IPv6 as --bind-address",
            addresses,
        ),
        Option("tunnel-agent-connect-port", "10262", "port for agents", port),
        Option("secure-port", "10263", "port for TLS and for diverted connections; 0: none", port),
        Option("insecure-port", "10264", "port for plain HTTP from loopback and for diverted connections; 0: none", port),
        Option("meta-port", "10265", "port of the meta pages: health, readiness, status, metrics; 0: none", port),
        Option("enable-iptables", "true", "keep the rules that divert kube-apiserver's connections to nodes", boolean),
        Option("iptables-sync-period", "60", "seconds between checks of those rules, at least 15", integer(0, MAX_PERIOD)),
        Option("enable-dns-controller", "true", "keep ConfigMap yurt-tunnel-nodes for the DNS of node names", boolean),
        Option("dns-sync-period", "1800", "seconds between full checks of it, at least 30", integer(0, MAX_PERIOD)),
        Option(
            "allowed-names",
            "",
            "common names and user names that may ask for any node without SubjectAccessReview, comma separated",
            comma_list,
            many=True,
        ),
        Option("egress-socket", "", "Unix socket for kube-apiserver's egress selector (HTTPConnect over UDS)", socket_path),
        Option(
            "kubelet-client-certificate",
            "",
            "PEM file of the certificate shown to kubelets where TLS of callers ends here. Default: that of --kubeconfig, or one "
            "that is asked for where --tls-cert-file is not given",
            absolute,
        ),
        Option("kubelet-client-key", "", "PEM file of that certificate's key", absolute),
        Option(
            "kubelet-certificate-authority", "", "PEM file of the CA that verifies kubelets; they are not without it", absolute
        ),
        Option("drain-timeout", "30s", "how long connections may go on at a stop", duration),
        Option(
            "server-count",
            "1",
            "taken as OpenYurt has it, and of no effect: servers find each other through Leases",
            integer(0, 10_000),
        ),
        Option("proxy-strategy", "destHost", "taken as OpenYurt has it", choice("destHost")),
    )
    config: TunnelServerConfig

    def postOptions(self) -> None:
        """
        Make the one value of all options, or say what is wrong with them.
        """
        kubeconfig_path = self.kubeconfig_path()
        kubeconfig = self.read_kubeconfig(kubeconfig_path)
        if not self["bind-address"]:
            raise usage.UsageError("--bind-address is empty: give an address, such as 0.0.0.0 or ::")
        if not self["tunnel-agent-connect-port"]:
            raise usage.UsageError("--tunnel-agent-connect-port is 0: without it no node can be reached")
        self.config = TunnelServerConfig(
            credentials=self.read_credentials(kubeconfig),
            kubeconfig=kubeconfig_path or None,
            cert_dir=self["cert-dir"],
            cert_dns_names=self["cert-dns-names"],
            cert_ips=self["cert-ips"],
            kubelet_credentials=self.read_kubelet_credentials(kubeconfig),
            bind_addresses=self["bind-address"],
            insecure_bind_addresses=self["insecure-bind-address"] or loopback(self["bind-address"]),
            tunnel_agent_connect_port=self["tunnel-agent-connect-port"],
            secure_port=self["secure-port"],
            insecure_port=self["insecure-port"],
            meta_port=self["meta-port"],
            enable_iptables=self["enable-iptables"],
            iptables_sync_period=max(MIN_IPTABLES_SYNC_PERIOD, float(self["iptables-sync-period"])),
            enable_dns_controller=self["enable-dns-controller"],
            dns_sync_period=max(MIN_DNS_SYNC_PERIOD, float(self["dns-sync-period"])),
            allowed_names=frozenset(self["allowed-names"]),
            egress_socket=self["egress-socket"] or None,
            drain_timeout=self["drain-timeout"],
        )

    def kubeconfig_path(self) -> str:
        """
        The kubeconfig's path, under either name.
        """
        ours, theirs = self["kubeconfig"], self["kube-config"]
        if ours and theirs and ours != theirs:
            raise usage.UsageError("--kubeconfig and --kube-config name different files: keep one of them")
        return str(ours or theirs)

    def read_kubeconfig(self, path: str) -> Kubeconfig | None:
        """
        The kubeconfig, if one is named.
        """
        if not path:
            return None
        try:
            return load_kubeconfig(path)
        except KubeconfigError as error:
            raise usage.UsageError(f"--kubeconfig: {error}") from None

    def read_credentials(self, kubeconfig: Kubeconfig | None) -> Credentials:
        """
        The server's certificate, and the CA of those who connect.
        """
        named = [name for name in ("tls-cert-file", "tls-private-key-file") if self[name]]
        if len(named) == 1 or not (named or kubeconfig):
            missing = "tls-private-key-file" if named == ["tls-cert-file"] else "tls-cert-file"
            raise usage.UsageError(
                f"--{missing} is missing: give the PEM files of the server's certificate and of its key, or only --kubeconfig"
            )
        if not named and not self["cert-dir"]:
            raise usage.UsageError("--cert-dir is empty: give the folder of the certificates, or leave the option out")
        credentials = Credentials(cert_file=self["tls-cert-file"] or None, key_file=self["tls-private-key-file"] or None)
        if self["client-ca-file"]:
            credentials = replace(credentials, ca_file=self["client-ca-file"])
        elif kubeconfig is not None and (kubeconfig.ca_file or kubeconfig.ca_data):
            credentials = replace(credentials, ca_file=kubeconfig.ca_file, ca_data=kubeconfig.ca_data)
        else:
            raise usage.UsageError("--client-ca-file is missing: give the PEM file of the CA that signs the agents' certificates")
        try:
            ServerTLS(credentials)
        except CredentialsError as error:
            raise usage.UsageError(str(error)) from None
        return credentials

    def read_kubelet_credentials(self, kubeconfig: Kubeconfig | None) -> Credentials:
        """
        What kubelets are shown, and verified by.
        """
        certificate, key = self["kubelet-client-certificate"], self["kubelet-client-key"]
        if bool(certificate) != bool(key):
            raise usage.UsageError("--kubelet-client-certificate and --kubelet-client-key belong together: give both")
        credentials = Credentials(
            ca_file=self["kubelet-certificate-authority"] or None, cert_file=certificate or None, key_file=key or None
        )
        if not certificate and kubeconfig is not None and self["tls-cert-file"]:
            credentials = replace(
                credentials,
                cert_file=kubeconfig.cert_file,
                cert_data=kubeconfig.cert_data,
                key_file=kubeconfig.key_file,
                key_data=kubeconfig.key_data,
            )
        try:
            ClientTLS(credentials)
        except CredentialsError as error:
            raise usage.UsageError(f"for kubelets: {error}") from None
        return credentials


def loopback(bound: tuple[str, ...]) -> tuple[str, ...]:
    """
    The loopback addresses of the families that ``bound`` listens on.
    """
    versions = {ip_address(one).version for one in bound} | ({4} if "::" in bound else set())
    return tuple(one for version, one in ((4, "127.0.0.1"), (6, "::1")) if version in versions)


def makeService(options: Options) -> IService:
    """
    The server as a service; nothing happens before it is started.
    """
    from twisted.internet import reactor

    from yurt.host.leftovers import Leftovers
    from yurt.host.messages import Request
    from yurt.host.sole import Sole
    from yurt.host.tunnel_rules import TunnelRules
    from yurt.tunnel.server.redirect import SOLE_NAME
    from yurt.tunnel.server.service import TunnelServer

    use_steady_time(cast(ReactorBase, reactor))
    plain_turns(reactor)
    stop_once(cast(ReactorBase, reactor))
    logs.guard()  # before twistd adds the observer that writes
    try:
        server = TunnelServer(reactor, options.config, raise_file_limit())
        if server.redirect is None:
            server.add(Leftovers(cast(Any, reactor), Request("remove", tunnel=TunnelRules()), Sole(SOLE_NAME)))
        return server
    except (KubeconfigError, CredentialsError) as error:
        raise SystemExit(f"{options.program}: --kubeconfig: {error}") from None
