"""
How a stream becomes a connection to somewhere: by the CONNECT head that opens it, and the answer.  docs/tunnel-protocol.md,
section 4.

Here is what both sides have in common; they are :mod:`yurt.tunnel.opening` and :mod:`yurt.tunnel.answering`.
"""

from __future__ import annotations

import errno
import os
from functools import lru_cache
from typing import Any

from twisted.internet.error import ConnectError, DNSLookupError, TimeoutError
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from yurt.options import host_port

MAX_HEAD_BYTES = 8 * 1024
"""Most bytes of the head that opens a stream, of its answer's head, and of a refusal's body."""

MAX_TARGETS = 256
"""Targets of heads that are remembered: most connections go to the same few ports."""

ACCEPTED = b"HTTP/1.1 200 OK\r\n\r\n"
"""The answer to a head whose connection is there, as ours give it."""

NODE_HEADER = b"Yurt-Node"
"""Names the node, in a head that one server sends to another."""
REFUSED_HEADER = b"Yurt-Refused"

MALFORMED = "malformed"
FORBIDDEN = "forbidden"
REFUSED = "refused"
UNREACHABLE = "unreachable"
TIMEOUT = "timeout"
NAME_UNKNOWN = "name-unknown"
DRAINING = "draining"
EXHAUSTED = "exhausted"
UNKNOWN_NODE = "unknown-node"
NOT_CONNECTED = "not-connected"
WORDS = frozenset(
    (
        MALFORMED,
        FORBIDDEN,
        REFUSED,
        UNREACHABLE,
        TIMEOUT,
        NAME_UNKNOWN,
        DRAINING,
        EXHAUSTED,
        UNKNOWN_NODE,
        NOT_CONNECTED,
    )
)
"""What ``Yurt-Refused`` may say."""

_NO_MEANS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN, errno.EADDRNOTAVAIL))
"""This machine lacks descriptors, memory or local ports."""


class ConnectRefused(Exception):
    """
    A stream was not opened: the HTTP status, the reason of Kubernetes, the word of ``Yurt-Refused``, and a message for people.
    """

    def __init__(self, status: int, reason: str, word: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.word = word
        self.message = message


def authority(host: str, port: int) -> str:
    """
    Host and port as a CONNECT head names them.
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@lru_cache(MAX_TARGETS)
def target_of(text: str) -> tuple[str, int]:
    """
    Host and port that a CONNECT names, 0 for a port that is missing.  Raises ``ValueError``.
    """
    return host_port(text, 0)


DIAL_ERRORS = (ConnectError, DNSLookupError)
"""What Twisted's endpoints fail with when there is no connection."""


def dial_failure(error: Exception, timeout: float) -> ConnectRefused:
    """
    What a dial that ended with one of DIAL_ERRORS is answered with; the message says why, without the address.
    """
    number = getattr(error, "osError", None)
    if isinstance(error, DNSLookupError):
        return ConnectRefused(502, "BadGateway", NAME_UNKNOWN, "the name is unknown")
    if isinstance(error, TimeoutError) or number == errno.ETIMEDOUT:
        return ConnectRefused(504, "Timeout", TIMEOUT, f"nobody answered within {timeout:g} s")
    if number in _NO_MEANS:
        return ConnectRefused(503, "ServiceUnavailable", EXHAUSTED, os.strerror(number))
    if number == errno.ECONNREFUSED:
        return ConnectRefused(502, "BadGateway", REFUSED, "connection refused")
    if error.args and isinstance(error.args[0], Failure):
        # What Twisted makes of an ICMP error that comes while connect(2) has the socket; its number is lost.
        return ConnectRefused(502, "BadGateway", UNREACHABLE, "the network or a firewall rejects it")
    why = os.strerror(number) if isinstance(number, int) else str(error)
    return ConnectRefused(502, "BadGateway", UNREACHABLE, why[:1].lower() + why[1:])


@implementer(IHalfCloseableProtocol)
class PassThrough(Protocol):
    """
    Owns a stream until another protocol takes it.
    """

    inner: IProtocol | None = None
    _half_closeable: Any = None

    def pass_to(self, inner: IProtocol) -> None:
        """
        Let ``inner`` have all events from now on.
        """
        self.inner = inner
        self._half_closeable = IHalfCloseableProtocol(inner, None)
        self.dataReceived = inner.dataReceived  # type: ignore[method-assign]  # a pass-through costs nothing so

    def readConnectionLost(self) -> None:
        if self._half_closeable is not None:
            self._half_closeable.readConnectionLost()
        elif self.transport is not None:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        if self._half_closeable is not None:
            self._half_closeable.writeConnectionLost()
