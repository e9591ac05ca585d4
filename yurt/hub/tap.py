"""
``twistd yurthub``: its options, and the service they describe.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, cast

from twisted.application.service import IService
from twisted.internet.base import ReactorBase
from twisted.python import usage

from yurt import __version__, logs
from yurt.http.environment import usable_proxy_for
from yurt.http.wire import send_by_turn
from yurt.hub.cache.quota import Quota
from yurt.hub.config import HubConfig, NodeCredentials
from yurt.hub.earlier import has_worked, known_servers
from yurt.hub.filters.focus import FilterSettings
from yurt.hub.flags import FLAGS
from yurt.hub.podlink import PodLinkSettings
from yurt.kube.joinflags import read_join_settings
from yurt.kube.joining import KUBELET_CA, KUBELET_CERTIFICATE, JoinSettings
from yurt.kube.kubeconfig import Kubeconfig, KubeconfigError, load_kubeconfig
from yurt.lifecycle import raise_file_limit, stop_once, use_steady_time
from yurt.options import Options as DeclaredOptions
from yurt.options import (
    https_urls,
    presentable,
)
from yurt.tls import ClientTLS, CredentialsError

CERTIFICATE, KUBECONFIG = "pki/yurthub-current.pem", "yurthub.conf"
"""What a hub that has joined keeps below --root-dir."""


def refuse_bad_proxy(servers: tuple[str, ...]) -> None:
    """
    Raise a UsageError if the environment sends to one of the servers by a proxy that is not spoken to.
    """
    for server in servers:
        try:
            usable_proxy_for(server, os.environ)
        except ValueError as error:
            raise usage.UsageError(str(error)) from None


def refuse_shared_ports(pages: tuple[str, int], doors: Sequence[tuple[str, int]]) -> None:
    """
    Raise a UsageError if the admin pages' address and port are those of a door of the proxy, too.
    """
    for host, number in doors:
        is_one_host = pages[0] == host or ip_address(pages[0]).is_unspecified or ip_address(host).is_unspecified
        if number and number == pages[1] and is_one_host:
            raise usage.UsageError(
                f"--serve-port={number} is a port of the proxy, too, at {host}: choose another one for the admin pages, or 0"
            )


class Options(DeclaredOptions):
    """
    The options of the hub; :attr:`config` is what they say together.
    """

    program = "yurthub"
    version_text = __version__
    synopsis = "--server-addr=https://HOST:PORT --node-name=NAME --kubeconfig=FILE [options]"
    longdesc = (
        "Runs on every node, between kubelet, kube-proxy, CNI, CoreDNS and pods on one side and the API servers on the other: "
        "a reverse proxy with a disk cache that keeps the node alive while the cloud is away."
    )
    declared = FLAGS
    config: HubConfig

    def postOptions(self) -> None:
        """
        Make the one value of all options, or say what is wrong with them.
        """
        self.refuse_contradictions()
        kubeconfig = self.read_kubeconfig()
        servers = self["server-addr"] or self.servers_of(kubeconfig)
        refuse_bad_proxy(servers)
        join = self.read_join(servers)
        credentials = NodeCredentials() if join else self.read_credentials(kubeconfig)
        try:
            if not credentials.awaited:
                ClientTLS(credentials.for_tls())
        except CredentialsError as error:
            if not self.is_torn:
                raise usage.UsageError(f"{'--kubeconfig: ' if kubeconfig else ''}{error}") from None
            credentials = replace(credentials, awaited=True)
        self.config = HubConfig(
            servers=servers,
            node_name=self["node-name"],
            credentials=credentials,
            kubeconfig=self["kubeconfig"] or None,
            join=join,
            hub_cert_organizations=self["hub-cert-organizations"],
            bind_address=self["bind-address"],
            serve_port=self["serve-port"],
            bind_proxy_addresses=self["bind-proxy-address"],
            proxy_port=self["proxy-port"],
            proxy_secure_port=self["proxy-secure-port"],
            root_dir=self["root-dir"],
            disk_cache_path=self["disk-cache-path"],
            cache_exclude=self["cache-exclude"],
            cache_quota=Quota.of(self["cache-quota"]),
            gc_frequency=60.0 * self["gc-frequency"],
            cache_agents=self["cache-agents"],
            agent_aliases=dict(self["agent-aliases"]),
            lb_mode=self["lb-mode"],
            watch_failover=self["watch-failover"],
            heartbeat_interval=float(self["heartbeat-interval-seconds"]),
            kubelet_health_grace_period=self["kubelet-health-grace-period"],
            max_requests_in_flight=self["max-requests-in-flight"],
            offline_miss=int(self["offline-miss"]),
            offline_token=self["offline-token"],
            filters=self.read_filters(),
            pod_link=self.read_pod_link(),
        )

    def refuse_contradictions(self) -> None:
        """
        Raise a UsageError if an option is missing, or two do not go together.
        """
        if not self["node-name"]:
            raise usage.UsageError("--node-name is missing: give the name under which kubelet registers this node")
        if not self["disk-cache-path"]:
            raise usage.UsageError("--disk-cache-path is empty: give the folder of the cache, or leave the option out")
        if not self["root-dir"]:
            raise usage.UsageError("--root-dir is empty: give the folder of the hub's own files, or leave the option out")
        if self["proxy-port"] and self["proxy-port"] == self["proxy-secure-port"]:
            raise usage.UsageError("--proxy-port and --proxy-secure-port are the same: choose two, or 0 for one of them")
        if not self["bind-address"] and self["serve-port"]:
            raise usage.UsageError("--bind-address is empty: give the address of the admin pages, or --serve-port=0 for none")
        if self["serve-port"]:
            hosts = (*self["bind-proxy-address"], *(self["dummy-if-ip"] if self["enable-dummy-if"] else ()))
            doors = [(host, number) for host in hosts for number in (self["proxy-port"], self["proxy-secure-port"])]
            refuse_shared_ports((self["bind-address"], self["serve-port"]), doors)

    def read_kubeconfig(self) -> Kubeconfig | None:
        """
        The kubeconfig, if one is named.
        """
        if not self["kubeconfig"]:
            return None
        try:
            return load_kubeconfig(self["kubeconfig"])
        except KubeconfigError as error:
            if self.is_torn:
                return None
            raise usage.UsageError(f"--kubeconfig: {error}") from None

    @property
    def is_torn(self) -> bool:
        """
        Whether a file with the node's identity that cannot be used has worked before.
        """
        identity = self["kubeconfig"] or self["cert-file"] or self["token-file"]
        return bool(identity) and has_worked(self["root-dir"], identity)

    def read_join(self, servers: tuple[str, ...]) -> JoinSettings | None:
        """
        How to join, if the hub is to do that: it was told how, or has done so before.
        """
        given = [name for name in ("kubeconfig", "ca-file", "cert-file", "key-file", "token-file") if self[name]]
        told = [name for name in ("join-token", "bootstrap-file") if self[name]]
        if told and (given or self["bootstrap-mode"] != "token"):
            other = given[0] if given else "bootstrap-mode=kubeletcertificate"
            raise usage.UsageError(f"--{told[0]} and --{other} exclude each other: keep one of them")
        joined = os.path.lexists(os.path.join(self["root-dir"], CERTIFICATE))
        if given or self["bootstrap-mode"] != "token" or not (told or joined):
            return None
        return read_join_settings(self, servers)

    def servers_of(self, kubeconfig: Kubeconfig | None) -> tuple[str, ...]:
        """
        The server that the kubeconfig names, or that to join with.
        """
        for path in (self["bootstrap-file"], os.path.join(self["root-dir"], KUBECONFIG)):
            if kubeconfig is None and path and os.path.exists(path):
                with suppress(KubeconfigError):
                    kubeconfig = load_kubeconfig(path)
        if self["kubeconfig"] and (kubeconfig is None or not kubeconfig.server) and self.is_torn:
            return known_servers(self["root-dir"])
        if kubeconfig is None or not kubeconfig.server:
            raise usage.UsageError(
                "--server-addr is missing: give the API servers, such as https://10.0.0.1:6443, or a kubeconfig that names one"
            )
        try:
            return https_urls(kubeconfig.server)
        except ValueError as error:
            raise usage.UsageError(f"--kubeconfig: server {presentable(kubeconfig.server)}: {error}") from None

    def read_credentials(self, kubeconfig: Kubeconfig | None) -> NodeCredentials:
        """
        The node's identity: the options' files, or the kubeconfig's.
        """
        named = {name: self[name] for name in ("ca-file", "cert-file", "key-file", "token-file") if self[name]}
        if kubeconfig is not None:
            if named:
                raise usage.UsageError(f"--kubeconfig and --{next(iter(named))} exclude each other: keep one of them")
            try:
                return NodeCredentials.of_kubeconfig(kubeconfig)
            except ValueError as error:
                if self.is_torn:
                    return NodeCredentials(awaited=True)
                raise usage.UsageError(f"--kubeconfig: {error}") from None
        if self["kubeconfig"] and not named:
            return NodeCredentials(awaited=True)  # it is torn
        awaited = self["bootstrap-mode"] == "kubeletcertificate"
        if awaited:
            named = {"ca-file": KUBELET_CA, "cert-file": KUBELET_CERTIFICATE, **named}
            named.setdefault("key-file", named["cert-file"])
        if "ca-file" not in named:
            raise usage.UsageError(
                "the node has no identity: give --join-token, or its kubeconfig by --kubeconfig, or --ca-file and --cert-file"
            )
        if ("cert-file" in named) != ("key-file" in named):
            raise usage.UsageError("--cert-file and --key-file belong together: give both")
        if "cert-file" not in named and "token-file" not in named:
            raise usage.UsageError("the node has no identity: give --cert-file and --key-file, or --token-file")
        for option, path in () if awaited else named.items():
            try:
                with open(path, "rb"):
                    pass
            except OSError as error:
                raise usage.UsageError(f"--{option}: {path}: {error.strerror}") from None
        return NodeCredentials(
            ca_file=named["ca-file"],
            cert_file=named.get("cert-file"),
            key_file=named.get("key-file"),
            token_file=named.get("token-file"),
            awaited=awaited,
        )

    def read_filters(self) -> FilterSettings:
        """
        What is filtered.
        """
        return FilterSettings(
            enabled=self["enable-resource-filter"],
            disabled=self["disabled-resource-filters"],
            namespace=self["namespace"],
            pool_name=self["nodepool-name"],
            use_buckets=self["enable-pool-service-topology"],
        )

    def read_pod_link(self) -> PodLinkSettings:
        """
        The address that pods reach.
        """
        settings = PodLinkSettings(
            enable_dummy_if=self["enable-dummy-if"],
            link_kind=self["link-kind"],
            dummy_if_name=self["dummy-if-name"],
            dummy_if_ip=self["dummy-if-ip"],
            enable_iptables=self["enable-iptables"],
            ports=tuple(one for one in (self["proxy-port"], self["proxy-secure-port"]) if one),
            tracked_ports=(self["proxy-secure-port"],),
        )
        try:
            settings.link()
        except ValueError as error:
            raise usage.UsageError(str(error)) from None
        return settings


def makeService(options: Options) -> IService:
    """
    The hub as a service; nothing happens before it is started.
    """
    from twisted.internet import reactor

    from yurt.host.firewall import pod_rules
    from yurt.host.leftovers import Leftovers
    from yurt.host.messages import Request
    from yurt.hub.service import HubService

    use_steady_time(cast(ReactorBase, reactor))
    send_by_turn(reactor)
    stop_once(cast(ReactorBase, reactor))
    logs.guard()  # before twistd adds the observer that writes
    hub = HubService(reactor, options.config, raise_file_limit())
    settings = options.config.pod_link
    if not (settings.enable_dummy_if and settings.enable_iptables):
        hub.add(Leftovers(cast(Any, reactor), Request("remove", rules=pod_rules((), ()))))
    return hub
