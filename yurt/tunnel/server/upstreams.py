"""
Keep-alive pools to ports of nodes, through the tunnel: a scrape a minute needs neither a dial nor a TLS hand-shake each time.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import Any

from yurt.http.client import HTTPUpstream
from yurt.http.limits import ClientLimits
from yurt.tls import ClientTLS, Credentials
from yurt.tunnel.server.routing import Route
from yurt.tunnel.server.ways import Way, Ways

MAX_UPSTREAMS = 1024
"""Pools that are kept beside those in use."""

LIMITS = ClientLimits(connect_timeout=15.0, max_idle=8, idle_timeout=75.0)
"""
Of a pool: longer than the agent's dial with the answer's wait, and shorter than the 90 s after which kubelets close idle
connections.
"""


class Upstreams:
    """
    A pool for each port of each node.

    ``credentials`` hold the certificate shown to nodes, and the CA that kubelets are verified by; without a CA they are not,
    as kube-apiserver does without --kubelet-certificate-authority.  Ports other than the kubelet's have certificates of many
    origins and are never verified: the link to the node is.
    """

    def __init__(self, reactor: Any, ways: Ways, credentials: Credentials) -> None:
        self._reactor = reactor
        self._ways = ways
        self._unverified = ClientTLS(replace(credentials, ca_file=None, ca_data=None), verify=False)
        verifies = credentials.ca_file is not None or credentials.ca_data is not None
        self._verified = ClientTLS(credentials) if verifies else self._unverified
        self._pools: OrderedDict[Route, HTTPUpstream] = OrderedDict()

    @property
    def tls(self) -> ClientTLS:
        """
        How kubelets are spoken to.
        """
        return self._verified

    def replace(self, credentials: Credentials) -> None:
        """
        Show another certificate on connections to come; those that are open end with what they carry.  Raises
        :exc:`~yurt.tls.CredentialsError`.
        """
        self._unverified.replace(replace(credentials, ca_file=None, ca_data=None))
        if self._verified is not self._unverified:
            self._verified.replace(credentials)
        for pool in self._pools.values():
            pool.retire_connections()

    def upstream(self, route: Route) -> HTTPUpstream:
        """
        The pool for ``route``.
        """
        pool = self._pools.get(route)
        if pool is None:
            way = Way(self._ways, route.node, route.host, route.port, early=False, local_only=False)
            tls = self._verified if route.kubelet else self._unverified
            pool = HTTPUpstream(self._reactor, route.url, tls, limits=LIMITS, endpoint=way)
            self._make_room()
            self._pools[route] = pool
        self._pools.move_to_end(route)
        return pool

    def _make_room(self) -> None:
        """
        Forget the pool that was used longest ago among those that carry nothing now.
        """
        if len(self._pools) < MAX_UPSTREAMS:
            return
        for route, pool in self._pools.items():
            pool.drop_idle()
            if not pool.open_connections:
                del self._pools[route]
                return

    def pools(self) -> list[HTTPUpstream]:
        """
        All pools.
        """
        return list(self._pools.values())

    def drop_idle(self, node: str) -> None:
        """
        Close the idle connections to a node: its agent has another link now, or wants to leave.
        """
        for route, pool in self._pools.items():
            if route.node == node:
                pool.drop_idle()

    def close(self) -> None:
        """
        Close everything.
        """
        for pool in self._pools.values():
            pool.close_connections("the server is stopping")
        self._pools.clear()
