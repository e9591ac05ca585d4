"""
``twistd yurthub``: its options, and the service they describe.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Any, cast

from twisted.application.service import IService
from twisted.internet.base import ReactorBase
from twisted.python import usage

from yurt import __version__, logs
from yurt.http.environment import usable_proxy_for
from yurt.http.wire import send_by_turn
from yurt.hub.agents import DEFAULT_ALIASES, DEFAULT_CACHE_AGENTS, component_aliases, component_patterns
from yurt.hub.cache.quota import Quota, quota_entries
from yurt.hub.config import HubConfig, NodeCredentials
from yurt.hub.exclude import resources
from yurt.hub.filters.choice import NAMES
from yurt.hub.filters.focus import FilterSettings, filter_names
from yurt.hub.podlink import PodLinkSettings
from yurt.kube.joinflags import JOIN_OPTIONS, read_join_settings
from yurt.kube.joining import KUBELET_CA, KUBELET_CERTIFICATE, JoinSettings
from yurt.kube.kubeconfig import Kubeconfig, KubeconfigError, load_kubeconfig
from yurt.lifecycle import raise_file_limit, stop_once, use_steady_time
from yurt.options import (
    Option,
    address,
    boolean,
    choice,
    comma_list,
    duration_from,
    folder,
    https_urls,
    integer,
    namespace,
    node_name,
    object_name,
    port,
    presentable,
)
from yurt.options import Options as DeclaredOptions
from yurt.tls import ClientTLS, CredentialsError

MIN_REQUESTS_IN_FLIGHT, MAX_REQUESTS_IN_FLIGHT = 1, 100_000

POD_NETWORK = ip_network("169.254.0.0/16")
"""Where an IPv4 address that pods reach must be: it is never routed off the node."""

TAKEN_POD_NETWORKS = (ip_network("169.254.31.0/24"), ip_network("169.254.1.1/32"))
"""What OpenYurt keeps free of it: other software uses these."""

CERTIFICATE, KUBECONFIG = "pki/yurthub-current.pem", "yurthub.conf"
"""What a hub that has joined keeps below --root-dir."""


def addresses(text: str) -> tuple[str, ...]:
    """
    IP addresses of a comma list.
    """
    return tuple(dict.fromkeys(address(part) for part in comma_list(text)))


def pod_addresses(text: str) -> tuple[str, ...]:
    """
    IP addresses for the link that pods reach; IPv4 ones must be link-local, as OpenYurt insists.
    """
    found = addresses(text)
    for one in map(ip_address, found):
        if one.version == 4 and (one not in POD_NETWORK or any(one in taken for taken in TAKEN_POD_NETWORKS)):
            raise ValueError(
                f"{one} is not an IPv4 address of 169.254.0.0/16 outside 169.254.31.0/24 and other than 169.254.1.1; "
                "choose one like 169.254.2.1"
            )
    return found


def absolute(path: str) -> str:
    """
    A path that means the same after a daemon has left its folder; an empty text stays empty.
    """
    return os.path.abspath(path) if path else ""


def filters(text: str) -> tuple[str, ...]:
    """
    Names of filters.
    """
    return filter_names(comma_list(text))


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
    declared = (
        Option(
            "server-addr", "", "API servers, comma separated; https is implied. Default: the server of --kubeconfig", https_urls
        ),
        Option("node-name", "", "name of this node, as kubelet registers it", node_name),
        Option("kubeconfig", "", "kubeconfig with the node's identity and the cluster's CA", absolute),
        Option("ca-file", "", "PEM file of the cluster's CA, instead of --kubeconfig", absolute),
        Option("cert-file", "", "PEM file of the node's client certificate; read again when it changes", absolute),
        Option("key-file", "", "PEM file of that certificate's key", absolute),
        Option(
            "token-file", "", "file with the node's bearer token, instead of a certificate; read again when it changes", absolute
        ),
        Option(
            "bootstrap-mode",
            "token",
            "without an identity given: token (join, and keep a certificate) or kubeletcertificate (kubelet's own is shown)",
            choice("token", "kubeletcertificate"),
        ),
        *JOIN_OPTIONS,
        Option(
            "hub-cert-organizations",
            "",
            "groups of the hub's certificate beside openyurt:yurthub and system:nodes, comma separated",
            comma_list,
            many=True,
        ),
        Option("bind-address", "127.0.0.1", "address of the admin pages", address),
        Option("serve-port", "10267", "port of the admin pages; 0: none", port),
        Option(
            "bind-proxy-address",
            "127.0.0.1",
            "loopback addresses of the proxy, comma separated; callers without credentials there speak as the node",
            addresses,
        ),
        Option("proxy-port", "10261", "port of the proxy, on loopback and on the address that pods reach; 0: none", port),
        Option(
            "proxy-secure-port",
            "10268",
            "port of the proxy by HTTPS, at the same addresses, with a certificate that the cluster issues; 0: none",
            port,
        ),
        Option("root-dir", "/var/lib/yurthub", "folder of the hub's own files, such as the key of the cached secrets", folder),
        Option("disk-cache-path", "/etc/kubernetes/cache", "folder of the cache", folder),
        Option(
            "cache-exclude",
            "",
            "resources that are never cached, comma separated: secrets, leases.coordination.k8s.io, serviceaccounts/token",
            resources,
            many=True,
        ),
        Option(
            "cache-quota",
            "512Mi,*=128Mi",
            "bytes of objects that are cached, comma separated: a size for all together, component=size, *=size for each other "
            "component but kubelet",
            quota_entries,
            many=True,
        ),
        Option("gc-frequency", "120", "minutes between sweeps of the cache", integer(1, 10_080)),
        Option(
            "cache-agents",
            ",".join(DEFAULT_CACHE_AGENTS),
            "components whose reads are cached, comma separated: names, patterns such as flannel*, * for all; !name excludes",
            component_patterns,
            many=True,
        ),
        Option(
            "agent-aliases",
            ",".join(f"{name}={component}" for name, component in DEFAULT_ALIASES.items()),
            "user agents that stand for a component, comma separated name=component",
            component_aliases,
        ),
        Option(
            "lb-mode",
            "rr",
            "how several servers are used: rr (in turn) or priority (the first that is healthy)",
            choice("rr", "priority"),
        ),
        Option(
            "watch-failover",
            "1s",
            "time within which watches leave a server that has fallen silent, where there are several; 0: not by this",
            duration_from(0.05, 3600, zero=True),
        ),
        Option("heartbeat-interval-seconds", "10", "seconds between probes of a server that nobody talks to", integer(1, 3600)),
        Option(
            "kubelet-health-grace-period",
            "40s",
            "the node's Lease is renewed for so long after kubelet's last sign of life",
            duration_from(1, 86_400),
        ),
        Option(
            "max-requests-in-flight",
            "250",
            "requests at once, watches and streams apart, half of them at most from pods; more get 429",
            integer(MIN_REQUESTS_IN_FLIGHT, MAX_REQUESTS_IN_FLIGHT),
        ),
        Option(
            "offline-miss",
            "503",
            "answer without the cloud to a read of what was never seen: 503, or 404 as OpenYurt",
            choice("503", "404"),
        ),
        Option(
            "offline-token",
            "cached",
            "answer without the cloud to a TokenRequest: cached (the last real token, while valid) or fake "
            "(then a made-up one, as OpenYurt)",
            choice("cached", "fake"),
        ),
        Option("enable-resource-filter", "true", "change what components of the node read, as OpenYurt's filters do", boolean),
        Option(
            "disabled-resource-filters",
            "",
            f"filters to leave out, comma separated, * for all: {', '.join(NAMES)}",
            filters,
            many=True,
        ),
        Option("nodepool-name", "", "pool of this node; default: the one that its Node, or a NodePool, names", object_name),
        Option(
            "enable-pool-service-topology",
            "false",
            "learn the nodes of the pool from NodeBuckets instead of its NodePool",
            boolean,
        ),
        Option(
            "namespace",
            "kube-system",
            "namespace of the ConfigMap yurt-hub-cfg, which sets up filters and cached agents; empty: none",
            namespace,
        ),
        Option("enable-dummy-if", "true", "make the link with the address that pods reach", boolean),
        Option("link-kind", "auto", "kind of that link: auto, dummy or tap", choice("auto", "dummy", "tap")),
        Option("dummy-if-name", "yurthub-dummy0", "name of that link"),
        Option(
            "dummy-if-ip",
            "169.254.2.1",
            "its addresses, comma separated: one IPv4, one IPv6 (such as fd00::2:1), or both",
            pod_addresses,
        ),
        Option(
            "enable-iptables",
            "false",
            "keep ACCEPT rules for that address and the proxy's ports, and NOTRACK rules for --proxy-port",
            boolean,
        ),
    )
    config: HubConfig

    def postOptions(self) -> None:
        """
        Make the one value of all options, or say what is wrong with them.
        """
        node_name = self["node-name"]
        if not node_name:
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
        kubeconfig = self.read_kubeconfig()
        servers = self["server-addr"] or self.servers_of(kubeconfig)
        refuse_bad_proxy(servers)
        join = self.read_join(servers)
        credentials = NodeCredentials() if join else self.read_credentials(kubeconfig)
        try:
            if not credentials.awaited:
                ClientTLS(credentials.for_tls())
        except CredentialsError as error:
            raise usage.UsageError(f"{'--kubeconfig: ' if kubeconfig else ''}{error}") from None
        self.config = HubConfig(
            servers=servers,
            node_name=node_name,
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

    def read_kubeconfig(self) -> Kubeconfig | None:
        """
        The kubeconfig, if one is named.
        """
        if not self["kubeconfig"]:
            return None
        try:
            return load_kubeconfig(self["kubeconfig"])
        except KubeconfigError as error:
            raise usage.UsageError(f"--kubeconfig: {error}") from None

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
                raise usage.UsageError(f"--kubeconfig: {error}") from None
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
