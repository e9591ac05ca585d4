"""
The flags of ``twistd yurthub``, as data.
"""

from __future__ import annotations

import os
from ipaddress import ip_address, ip_network

from yurt.hub.agents import DEFAULT_ALIASES, DEFAULT_CACHE_AGENTS, component_aliases, component_patterns
from yurt.hub.cache.quota import quota_entries
from yurt.hub.exclude import resources
from yurt.hub.filters.choice import NAMES
from yurt.hub.filters.focus import filter_names
from yurt.kube.joinflags import JOIN_OPTIONS
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
)

MIN_REQUESTS_IN_FLIGHT, MAX_REQUESTS_IN_FLIGHT = 1, 100_000

POD_NETWORK = ip_network("169.254.0.0/16")
"""Where an IPv4 address that pods reach must be: it is never routed off the node."""

TAKEN_POD_NETWORKS = (ip_network("169.254.31.0/24"), ip_network("169.254.1.1/32"))
"""What OpenYurt keeps free of it: other software uses these."""


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


FLAGS = (
    Option("server-addr", "", "API servers, comma separated; https is implied. Default: the server of --kubeconfig", https_urls),
    Option("node-name", "", "name of this node, as kubelet registers it", node_name),
    Option("kubeconfig", "", "kubeconfig with the node's identity and the cluster's CA", absolute),
    Option("ca-file", "", "PEM file of the cluster's CA, instead of --kubeconfig", absolute),
    Option("cert-file", "", "PEM file of the node's client certificate; read again when it changes", absolute),
    Option("key-file", "", "PEM file of that certificate's key", absolute),
    Option("token-file", "", "file with the node's bearer token, instead of a certificate; read again when it changes", absolute),
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
