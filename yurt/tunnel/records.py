"""
TLS under a link: many records at a time.

Twisted's transport hands each record of 16 KiB on by itself, in both directions: a turn through Python, and one of the kernel,
for each.  Here what is written at once is encrypted by one call and leaves in one piece, and what one read brought is
delivered in one piece.
"""

from __future__ import annotations

from typing import Any, cast

from OpenSSL.SSL import Error, WantReadError, ZeroReturnError
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from yurt.http.wire import one_write

RECORD_BYTES = 16 * 1024
"""What a record carries at most."""
RECORD_OVERHEAD = 256
"""More than a record adds to it."""
CONTROL_BYTES = 16 * 1024
"""Room for what TLS has to say itself beside the records of a write; what does not fit goes out with the next piece."""


class LinkTransport(TLSMemoryBIOProtocol):
    """
    See the module.
    """

    def dataReceived(self, data: bytes) -> None:
        with one_write:
            super().dataReceived(data)

    def _write(self, data: bytes) -> None:
        if self._lostTLSConnection or not data:
            return
        try:
            # The context is one of yurt.tls: it takes all or nothing.
            self._tlsConnection.send(data)
        except WantReadError:
            self._bufferedWrite(data)
        except Error:
            self._tlsShutdownFinished(Failure())
        else:
            self._send(len(data) + (len(data) // RECORD_BYTES + 1) * RECORD_OVERHEAD + CONTROL_BYTES)

    def _flushSendBIO(self) -> None:
        self._send(CONTROL_BYTES)

    def _send(self, room: int) -> None:
        """
        Hand what is encrypted to the transport, in pieces of at most ``room`` bytes.
        """
        while True:
            try:
                data = self._tlsConnection.bio_read(room)
            except WantReadError:
                return
            cast(Any, self.transport).write(data)
            if len(data) < room:
                return

    def _flushReceiveBIO(self) -> None:
        records: list[bytes] = []
        ended = False
        reason: Failure | None = None
        while not (ended or self._lostTLSConnection):
            try:
                records.append(self._tlsConnection.recv(RECORD_BYTES))
            except WantReadError:
                break
            except ZeroReturnError:
                ended = True
            except Error:
                ended, reason = True, Failure()
        if records and not self._aborted:
            cast(Protocol, self.wrappedProtocol).dataReceived(records[0] if len(records) == 1 else b"".join(records))
        if ended and not self._lostTLSConnection:
            if reason is None:
                self._shutdownTLS()
            self._tlsShutdownFinished(reason)
        if self._tlsConnection is not None:
            self._flushSendBIO()


def link_factory(creator: Any, is_client: bool, factory: IProtocolFactory) -> IProtocolFactory:
    """
    ``factory`` with TLS of ``creator`` around it.
    """
    wrapper = TLSMemoryBIOFactory(creator, is_client, factory)
    wrapper.protocol = LinkTransport
    return cast(IProtocolFactory, wrapper)
