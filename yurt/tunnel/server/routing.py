"""
Which node a request is for, and where on it: decided by the request's head, the cluster's nodes and the tunnel's ports alone.

What names the node, in this order: ``X-Tunnel-Proxy-Host``, ``X-Tunnel-Proxy-Dest``, ``Host``, the name that was dialled (TLS's
SNI), and for what an API server asks of a kubelet the pod in the path: the last two also where Host names a node, but no port of
it that the tunnel leads to, for this server and API servers may run on nodes.  The headers and the paths are OpenYurt's
(``pkg/yurttunnel/handlerwrapper``).  An API server that dials a kubelet by its node's name passes on, for the proxy subresource
of nodes, the Host of its own client: there only the dialled name tells the node.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

from yurt.http.heads import get_header
from yurt.http.interfaces import Headers, RequestHead
from yurt.options import host_port
from yurt.tunnel.connect import ConnectRefused
from yurt.tunnel.server.node import MAX_SPELT, Node, usual_spelling
from yurt.tunnel.server.nodes import Nodes
from yurt.tunnel.server.ports import KUBELET_PORT, KUBELET_READ_ONLY_PORT, NAME, NAMESPACE, Ports

PROXY_HOST, PROXY_DEST = b"x-tunnel-proxy-host", b"x-tunnel-proxy-dest"
PROXY_HEADERS = (PROXY_HOST, PROXY_DEST)
"""Headers by which a caller chooses the node, and the address and port on it; they are for this server only."""

POD_PATHS = frozenset({"exec", "attach", "portForward", "containerLogs", "run"})
"""First words of a kubelet's paths that namespace and name of a pod follow."""

NOWHERE = ("", None)

_POD_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


class Refused(ConnectRefused):
    """
    The server itself does not do what was asked.
    """


@dataclass(frozen=True, slots=True)
class Route:
    """
    Where a request goes: ``scheme`` is spoken to ``address:port`` of ``node``.  What the node dials is ``host``: that same
    address, or its loopback.  ``kubelet`` tells that the port is its kubelet's.
    """

    node: str
    scheme: str
    address: str
    port: int
    host: str
    kubelet: bool = False

    @property
    def url(self) -> str:
        """
        Scheme, host and port as a URL.
        """
        return f"{self.scheme}://{authority(self.address, self.port)}"


@dataclass(frozen=True, slots=True)
class PodPath:
    """
    The request is for the kubelet that runs this pod.
    """

    namespace: str
    name: str


def authority(host: str, port: int) -> str:
    """
    Host and port as a URL has them.
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@lru_cache(MAX_SPELT)
def is_loopback(host: str) -> bool:
    """
    Whether this is an address that every machine has for itself.
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_local(host: str) -> bool:
    """
    Whether only somebody on the machine's own side can have chosen this name: an address, or a word without domain.

    Plain text is taken from this host without credentials, and so from a browser on it, too.  A stranger's page may let its own
    name point here; by that name nothing is reached.
    """
    return "." not in host or bool(usual_spelling(host))


def route(
    head: RequestHead, nodes: Nodes, ports: Ports, *, tls: bool, dialled: str = "", dialled_port: int | None = None
) -> Route | PodPath:
    """
    Where a request is to go; ``tls`` tells whether it came by TLS, ``dialled`` is the name that the client then said it dialled,
    ``dialled_port`` the port, where that is known; else the kubelet's is meant.  Raises :class:`Refused`.
    """
    named, wanted, asked = (_read(head.headers, name) for name in (PROXY_HOST, PROXY_DEST, b"host"))
    host, port = asked or NOWHERE
    node = None
    if named is not None:
        node = nodes.by_host(named[0])
        if node is None:
            raise _unknown("X-Tunnel-Proxy-Host", named[0])
        port = named[1] or port
    elif wanted is not None:
        node = nodes.by_host(wanted[0])
    node = node or nodes.by_host(host)
    if wanted is not None:
        if node is None:
            raise _unknown("neither X-Tunnel-Proxy-Dest nor Host", f"{wanted[0]} or {host}")
        if not (usual_spelling(wanted[0]) or is_loopback(wanted[0]) or nodes.by_host(wanted[0]) is node):
            message = f"X-Tunnel-Proxy-Dest: {wanted[0]} is neither an address nor a name of node {node.name}"
            raise Refused(400, "BadRequest", "malformed", message)
        return route_on(node, wanted[0], wanted[1], ports, tls=tls)
    is_meant = node is not None and port is not None and scheme_of(node, port, ports, tls=tls) is not None
    if named is not None and node is not None and named[1] is None and not is_meant:
        message = f"neither X-Tunnel-Proxy-Host nor Host names a port of the tunnel's; write {node.name}:{node.kubelet_port}"
        raise Refused(400, "BadRequest", "malformed", message)
    if node is None or (named is None and not is_meant):
        # No node that is meant, though perhaps a machine of the control plane that is one, too: called by this server's own
        # door, or by that of an API server, which passes on what its own client called it.
        meant = nodes.by_host(dialled)
        if meant is not None and meant is not node and (node is None or meant.has_agent):
            return route_on(meant, "", dialled_port or meant.kubelet_port, ports, tls=tls)
        pod = pod_of(head.target)
        if pod is not None and (node is not None or tls or is_local(host)):
            return pod
        if node is None:
            raise _unknown("Host", host)
    return route_on(node, host if usual_spelling(host) in node.addresses else "", port, ports, tls=tls)


def route_on(node: Node, host: str, port: int | None, ports: Ports, *, tls: bool) -> Route:
    """
    The route to ``port`` of a node at the address ``host``; an empty one, or a name, stands for the node's usual address.
    Whether an address is the node's own is for its agent to say.  Raises :class:`Refused`.
    """
    if port is None:
        raise Refused(400, "BadRequest", "malformed", f"node {node.name}: a port is missing behind its name or address")
    scheme = scheme_of(node, port, ports, tls=tls)
    if scheme is None:
        message = f"node {node.name}: port {port} is not one of the tunnel's: " + (
            f"name it in http-proxy-ports, https-proxy-ports or localhost-proxy-ports of ConfigMap {NAMESPACE}/{NAME}"
            if node.has_agent
            else "by its labels the node has no agent; name the one that is meant in Host or X-Tunnel-Proxy-Host"
        )
        raise Refused(403, "Forbidden", "forbidden", message)
    loopback = is_loopback(host)
    address = own_address(node) if loopback or not usual_spelling(host) else usual_spelling(host)
    host = address
    if loopback or port in ports.localhost:
        host = "::1" if ":" in address else "127.0.0.1"
    return Route(node.name, scheme, address, port, host, kubelet=port in (KUBELET_PORT, node.kubelet_port))


def own_address(node: Node) -> str:
    """
    The usual address of a node.  Raises :class:`Refused` when none is known.
    """
    address = node.internal_ip or next(iter(node.addresses), "")
    if not address:
        message = f"node {node.name} has no address: neither its Node object nor its agent names one"
        raise Refused(503, "ServiceUnavailable", "unknown-node", message)
    return address


def scheme_of(node: Node, port: int, ports: Ports, *, tls: bool) -> str | None:
    """
    What is spoken to a port of a node, None if the port is not one of the tunnel's.  Of a port that is only among those on
    loopback nobody says it: there it is what the caller spoke.
    """
    if port in (KUBELET_PORT, node.kubelet_port) or port in ports.https:
        return "https"
    if port == KUBELET_READ_ONLY_PORT or port in ports.http:
        return "http"
    if port in ports.localhost:
        return "https" if tls else "http"
    return None


def pod_of(target: bytes) -> PodPath | None:
    """
    The pod that a kubelet's path names.  Raises :class:`Refused` for a name that no pod has.
    """
    words = target.partition(b"?")[0].decode("latin-1").split("/")[1:]
    if len(words) < 3 or words[0] not in POD_PATHS:
        return None
    for word in words[1:3]:
        if not _POD_NAME.fullmatch(word):
            raise Refused(400, "BadRequest", "malformed", f"{word!r} in the path is no name of a namespace or a pod")
    return PodPath(words[1], words[2])


def _read(headers: Headers, name: bytes) -> tuple[str, int | None] | None:
    """
    Host and port in a header; None when it is missing or empty.
    """
    value = (get_header(headers, name) or b"").strip()
    if not value:
        return None
    try:
        host, port = host_port(value.decode("ascii"), 0)
    except ValueError:
        raise Refused(400, "BadRequest", "malformed", f"{name.decode().title()} is no host:port") from None
    return host, port or None


def _unknown(header: str, host: str) -> Refused:
    if not host:
        return Refused(400, "BadRequest", "malformed", "the request names no node: its Host header is missing")
    return Refused(404, "NotFound", "unknown-node", f"{header} names no node: none has the name or address {host}")
