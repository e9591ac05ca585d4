"""
What a listener, and a client, allow.
"""

from __future__ import annotations

from dataclasses import dataclass

from yurt.http.parsing import MAX_HEAD_BYTES

LARGE_HEAD_BYTES = 1024 * 1024
"""A head as API servers and kubelets take it (``DefaultMaxHeaderBytes`` of Go's net/http): that of an exec holds the command."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """
    What one listener allows.  Times are in seconds.

    ``idle_timeout`` is how long a connection may wait for its next request, ``first_timeout`` how long for its first one, TLS
    included, where strangers may connect (None: as long); ``head_timeout`` how long a request head may take to arrive;
    ``body_timeout`` how long ``body_min_bytes`` of a request body may take while somebody wants them (a body that only
    trickles would keep a place for ever; any link that works at all brings 17 bytes a second); ``half_closed_timeout`` how
    long a client that ended its direction is believed to be there without a byte going to it; ``linger_timeout`` and
    ``linger_bytes`` how long, and over how much input, a closing connection waits for its client to read the last response.
    ``max_large_heads`` is how many heads of more than MAX_HEAD_BYTES may be on their way at once, if ``max_head_bytes`` is more.
    ``max_unread_bytes`` is what answers may keep waiting for clients that read slowly, all together; beyond it the client whose
    answer has waited longest is cut.
    """

    max_connections: int = 2000
    max_head_bytes: int = MAX_HEAD_BYTES
    max_large_heads: int = 16
    idle_timeout: float = 180.0
    first_timeout: float | None = None
    head_timeout: float = 15.0
    body_timeout: float = 60.0
    body_min_bytes: int = 1024
    half_closed_timeout: float = 30.0
    linger_timeout: float = 30.0
    linger_bytes: int = 1024 * 1024
    max_unread_bytes: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """
    How a client treats its connections.  Times are in seconds.

    ``connect_timeout`` covers the way to a connection that can carry a request: name, TCP, proxy and TLS.  ``idle_timeout``
    is shorter than that of a kube-apiserver (90 s) and of common load balancers (60 s), so that the client is the one who
    closes.  ``dead_after`` is how long a server may leave data or keep-alive probes unacknowledged.  ``trusted_for`` is how long
    a connection may have been idle to carry what is sent only ``once`` without showing first that it lives, and
    ``continue_timeout`` how long it may take for that, on a link that is not known to be slower.
    """

    connect_timeout: float = 5.0
    max_idle: int = 64
    idle_timeout: float = 45.0
    dead_after: float = 30.0
    trusted_for: float = 1.0
    continue_timeout: float = 3.0
    max_head_bytes: int = MAX_HEAD_BYTES
