"""
What ``/v1/status`` shows of a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from math import inf
from typing import TYPE_CHECKING

from yurt import __version__
from yurt.tls import FollowsFiles
from yurt.tunnel.server.peers import Peer
from yurt.tunnel.server.registry import Agent

if TYPE_CHECKING:
    from yurt.tunnel.server.service import TunnelServer

MAX_ABSENT = 1000
"""Nodes whose agents were here that are shown, those that left last."""


def server_status(server: TunnelServer, now: float) -> Mapping[str, object]:
    """
    The state of ``server`` at ``now`` as values that JSON can hold.
    """
    ports = server.ports.ports
    return {
        "version": __version__,
        "serverID": server.server_id,
        "uptimeSeconds": round(now - server.started_at) if server.started_at else 0,
        "problems": problems(server),
        "nodes": [agent_status(agent, now) for agent in server.registry.agents()],
        "absent": [
            {"node": node, "left": _moment(one.at), "why": one.why} for node, one in server.registry.departures()[:MAX_ABSENT]
        ],
        "certificates": None
        if server.certificates is None
        else {name: service.status() for name, service in server.certificates.all.items()},
        "listeners": [{"what": one.what, "listening": one.port is not None, "problem": one.problem} for one in server.listeners],
        "connections": server.connections(),
        "servers": [peer_status(peer) for peer in server.peers.peers.values()],
        "ports": {
            "diverted": {str(port): security for port, security in ports.tunnel_ports.items()},
            "localhost": sorted(ports.localhost),
            "ignored": list(ports.ignored),
        },
        "firewall": None if server.redirect is None else server.redirect.state,
        "dns": None if server.cluster.dns is None else {"leading": server.cluster.dns.leading},
    }


def problems(server: TunnelServer) -> list[str]:
    """
    What may be out of date, one sentence each.
    """
    unused = [tls.problem for tls in _shown(server).values() if tls.problem]
    return [*server.cluster.problems(), *dict.fromkeys(unused)]


def certificates_expire_in(server: TunnelServer, now: float) -> dict[str, float]:
    """
    Seconds until the certificates that ``server`` shows expire, negative once they have.
    """
    times = {name: tls.expires_at for name, tls in _shown(server).items()}
    return {name: at - now for name, at in times.items() if at is not None}


def _shown(server: TunnelServer) -> dict[str, FollowsFiles]:
    """
    Those certificates by their names in metrics, as their files are now.
    """
    shown: dict[str, FollowsFiles] = {"serving": server.agents_tls, "proxy-client": server.upstreams.tls}
    for tls in shown.values():
        tls.refresh()
    return shown


def agent_status(agent: Agent, now: float) -> dict[str, object]:
    """
    One connection of a node's agent.
    """
    mux = agent.mux
    return {
        "node": agent.node,
        "addresses": list(agent.addresses),
        "agent": agent.version,
        "from": agent.peer,
        "connectedSince": _moment(agent.since),
        "connectedSeconds": round(now - agent.since),
        "streams": mux.streams,
        "bytesFromNode": mux.bytes_received,
        "bytesToNode": mux.bytes_sent,
        "roundTripMilliseconds": None if mux.rtt is None else round(mux.rtt * 1000, 3),
        "certificateExpires": None if agent.valid_until == inf else _moment(agent.valid_until),
        "leaving": mux.peer_going_away or mux.closing,
    }


def peer_status(peer: Peer) -> dict[str, object]:
    """
    Another server.
    """
    return {
        "id": peer.member.id,
        "host": peer.member.host,
        "port": peer.member.port,
        "connected": peer.mux is not None,
        "problem": peer.problem,
        "nodes": len(peer.nodes),
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
