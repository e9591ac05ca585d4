"""
TLS on a connection: its records are counted as they come, so that OpenSSL is not asked for more than there is.

To be told by OpenSSL that there is no more costs as much as a small record itself: each such answer is an exception.
"""

from __future__ import annotations

from typing import cast

from OpenSSL.SSL import TLS1_3_VERSION, Error, WantReadError, ZeroReturnError
from twisted.internet.interfaces import IHalfCloseableProtocol, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from yurt.http.status import status_response
from yurt.http.wire import one_write

RECORD_HEADER = 5
"""Bytes before each record, the last two of which say how long it is (RFC 8446, section 5.1)."""

MAX_RECORD = 2**14
"""Most bytes of plaintext in a record."""

MAX_ENCRYPTED = MAX_RECORD + 2048
"""Most bytes that follow the header (RFC 5246, section 6.2.3; fewer since TLS 1.3)."""

ASKED_PLAINLY = "this port speaks TLS, and was asked in plain HTTP: use https"
"""What a server says to that; those of an API server and a kubelet say it, too."""


class RecordCounter:
    """
    Finds the ends of TLS records in a stream of bytes.
    """

    __slots__ = ("_header", "_missing")

    def __init__(self) -> None:
        self._missing = 0
        self._header = b""

    def count(self, data: bytes) -> int:
        """
        How many records end in ``data``, which follows what was counted before.  One that is too long to be one counts when it
        begins: its end need not be waited for.
        """
        if self._header:
            data = self._header + data
        place, size = self._missing, len(data)
        ends = 1 if 0 < place <= size else 0
        while place + RECORD_HEADER <= size:
            length = data[place + 3] << 8 | data[place + 4]
            place += RECORD_HEADER + length
            if place <= size or length > MAX_ENCRYPTED:
                ends += 1
        self._header = data[place:]
        self._missing = max(0, place - size)
        return ends


def _is_plain_request(error: BaseException | None) -> bool:
    """
    Whether a hand-shake failed since the other side speaks HTTP without TLS, as OpenSSL finds.
    """
    return type(error) is Error and any("http request" in one for one in error.args[0])  # those derived have other arguments


class RecordProtocol(TLSMemoryBIOProtocol):
    """
    Passes on the many records of one read in one piece, for what is done with a piece costs the same however long it is.

    The wrapped protocol may have a true ``half_closes``: it is told then when the peer ends its direction, and may go on writing
    (RFC 8446, section 6.1; before TLS 1.3 both directions end).
    """

    _ended = False

    def __init__(self, factory: TLSMemoryBIOFactory, wrapped: Protocol) -> None:
        super().__init__(factory, wrapped)
        self._counter = RecordCounter()
        self._records: list[bytes] = []
        self._deliver = wrapped.dataReceived
        wrapped.dataReceived = self._records.append  # type: ignore[assignment]  # the base class calls it

    def dataReceived(self, data: bytes) -> None:
        if self._ended:
            return
        ends = self._counter.count(data)
        with one_write:
            if self._handshakeDone and not (self._appSendBuffer or self._lostTLSConnection):
                self._tlsConnection.bio_write(data)
                self._take(ends)
            else:
                super().dataReceived(data)
            records = self._records
            if records:
                data = records[0] if len(records) == 1 else b"".join(records)
                records.clear()
                self._deliver(data)
        if self._ended:
            cast(IHalfCloseableProtocol, self.wrappedProtocol).readConnectionLost()

    def _take(self, ends: int) -> None:
        """
        Decrypt so many records.  One that holds no data, but a ticket or an alert, is for OpenSSL, which may want to answer it.
        """
        receive, records = self._tlsConnection.recv, self._records
        try:
            for _ in range(ends):
                data = receive(MAX_RECORD)
                if not self._aborted:
                    records.append(data)
        except WantReadError:
            self._flushSendBIO()
        except ZeroReturnError:
            self._ended = self._goes_on()
            if not self._ended:
                self._shutdownTLS()
                self._tlsShutdownFinished(None)
        except Error:
            self._tlsShutdownFinished(Failure())

    def _goes_on(self) -> bool:
        """
        Whether this direction outlasts the other one.
        """
        if self.disconnecting or not getattr(self.wrappedProtocol, "half_closes", False):
            return False
        return bool(self._tlsConnection.get_protocol_version() >= TLS1_3_VERSION)

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        if reason is not None and not self._handshakeDone and _is_plain_request(reason.value):
            cast(ITransport, self.transport).write(status_response(400, "BadRequest", ASKED_PLAINLY, []))
        super()._tlsShutdownFinished(reason)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        vars(self.wrappedProtocol).pop("dataReceived", None)  # what may still come is the last
        super().connectionLost(reason)
