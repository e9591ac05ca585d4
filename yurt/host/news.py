"""
News of firewall rules that somebody changes: what flushes a table tells nobody.

Of nf_tables the kernel tells, on a netlink socket (linux/netfilter/nfnetlink.h; nft_commit_notify of
net/netfilter/nf_tables_api.c).  Of the legacy tables it does not: there a look every few seconds shows whether the chain that
all begins with is another one.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from yurt.host.child import HostReactor
from yurt.host.firewall import FAMILIES
from yurt.host.legacy_table import output_bytes
from yurt.host.tools import Flavour

NETLINK_NETFILTER = 12  # linux/netlink.h
NFTABLES_GROUP = 1 << (7 - 1)  # NFNLGRP_NFTABLES of linux/netfilter/nfnetlink.h, as a mask
SO_RCVBUFFORCE = 33  # asm-generic/socket.h

READ_BYTES = 64 * 1024
"""Most bytes of one read: the kernel makes messages into pieces of at most 32 KiB."""
MAX_READS = 64
"""Reads in one turn of the reactor."""
BUFFER_BYTES = 4 * 1024 * 1024
"""
What the kernel may hold, of one change of some thousand rules: kube-proxy writes as many.  Of what has no room it tells only that
something was lost.
"""

_NAT_OUTPUT = b"nat\0" + struct.pack("=HH", 11, 2) + b"OUTPUT\0"
"""Where NFTA_RULE_TABLE ends and NFTA_RULE_CHAIN follows (linux/netfilter/nf_tables.h): in each rule of that chain."""

LOOK = 2.0
"""Seconds between two looks at the legacy tables."""


@implementer(IReadDescriptor)
class RuleNews:
    """
    Calls ``heard(lost)`` when rules of nf_tables have changed, whoever changed them, that stand in OUTPUT of table nat or name a
    chain whose name begins with ``chain``; or, of the legacy tables, those in OUTPUT.  Both of this network namespace.  ``lost``
    says that so much has changed that what it was is not known.
    """

    log = Logger()

    def __init__(self, reactor: HostReactor, chain: str, heard: Callable[[bool], object]) -> None:
        self._reactor = reactor
        self._chain = chain.encode("ascii")
        self._heard = heard
        self._socket: socket.socket | None = None
        self._seen: tuple[int, ...] = ()
        self._look_again: IDelayedCall | None = None

    def start(self) -> None:
        """
        Begin to listen; a kernel without nf_tables, or without the right to hear of it, tells nothing.
        """
        handle = None
        try:
            handle = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_NETFILTER)
            handle.bind((0, NFTABLES_GROUP))
            handle.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        except OSError as error:
            self.log.info("no news of the rules of nf_tables, which are looked at from time to time: {why}", why=error.strerror)
            if handle is not None:
                handle.close()
            return
        self._socket = handle
        self._reactor.addReader(self)

    def stop(self) -> None:
        """
        Listen no more.
        """
        self._rest()
        handle, self._socket = self._socket, None
        if handle is not None:
            self._reactor.removeReader(self)
            handle.close()

    def follow(self, flavour: Flavour | None) -> None:
        """
        From now on: hear nothing of what has changed before.  ``flavour`` is that of the rules, None if it is not known.
        """
        while self._read() is not None:
            pass
        self._rest()
        if flavour == "legacy":
            self._seen = _looked()
            self._look_again = self._reactor.callLater(LOOK, self._look)

    def fileno(self) -> int:
        """
        See :class:`IReadDescriptor`.
        """
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        """
        See :class:`IReadDescriptor`.
        """
        return "news of firewall rules"

    def connectionLost(self, reason: Failure) -> None:
        """
        See :class:`IReadDescriptor`.
        """
        self.stop()

    def doRead(self) -> None:
        """
        See :class:`IReadDescriptor`.
        """
        for _ in range(MAX_READS):
            data = self._read()
            if data is None:
                break
            if not data or self._chain in data or _NAT_OUTPUT in data:
                self._heard(not data)

    def _read(self) -> bytes | None:
        """
        Some messages, nothing in the place of those that were lost; None when there are no more.
        """
        if self._socket is None:
            return None
        try:
            return self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:  # ENOBUFS: some had no room; what has comes next
            return b""

    def _look(self) -> None:
        before, self._seen = self._seen, _looked()
        self._look_again = self._reactor.callLater(LOOK, self._look)
        if self._seen != before:
            self._heard(False)

    def _rest(self) -> None:
        if self._look_again is not None and self._look_again.active():
            self._look_again.cancel()


def _looked() -> tuple[int, ...]:
    return tuple(map(output_bytes, FAMILIES))
