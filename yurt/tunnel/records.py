"""
TLS under a link: many records at a time.

Twisted's transport hands each record of 16 KiB on by itself, in both directions: a turn through Python, and one of the kernel,
for each.  Here what is written at once is encrypted by one call and leaves in one piece, and what one read brought is
delivered in one piece.

So many records make it worth while to call OpenSSL past the methods of pyOpenSSL, which allocate a buffer and look for errors at
each record.  Bytes are copied as seldom as can be: OpenSSL reads what came where it lies, and what it makes of that is delivered,
or sent, from buffers that all links share.  So what a protocol is given here is a view, which is good until it returns.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from OpenSSL._util import ffi, lib
from OpenSSL.SSL import Error, ZeroReturnError
from twisted.internet.interfaces import IProtocolFactory
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from yurt.http.records import MAX_RECORD
from yurt.http.wire import one_write, write_view

BUFFER_BYTES = 512 * 1024
"""What passes between OpenSSL and us at once: more than one read of a socket brings, or one write of the mux needs."""

NO_ROOM = "OpenSSL has no room for what came"

SHORT = 4096
"""Bytes up to which it costs less to copy what came than to have OpenSSL look at another place."""

_opened, _sealed = ffi.new("char[]", BUFFER_BYTES), ffi.new("char[]", BUFFER_BYTES)
_opened_view, _sealed_view = memoryview(ffi.buffer(_opened)), memoryview(ffi.buffer(_sealed))
"""What OpenSSL has decrypted last, and encrypted.  To deliver the one may fill the other, but nobody decrypts meanwhile."""


class LinkTransport(TLSMemoryBIOProtocol):
    """
    See the module.
    """

    heard = False
    """Whether the other side has said anything, of TLS or by it."""
    wrappedProtocol: Any
    _read: Any = None
    """What OpenSSL reads, and must stay where it is meanwhile; None while it reads what is copied to its memory."""

    def shrink(self) -> None:
        """
        Give back what the hand-shake needed for its certificates: the memory BIOs, which grow and never shrink.
        """
        tls, where = self._tlsConnection, ffi.new("char **")
        if tls is not None and not any(lib.BIO_get_mem_data(bio, where) for bio in (tls._into_ssl, tls._from_ssl)):
            tls._into_ssl, tls._from_ssl = lib.BIO_new(lib.BIO_s_mem()), lib.BIO_new(lib.BIO_s_mem())
            lib.SSL_set_bio(tls._ssl, tls._into_ssl, tls._from_ssl)  # which frees the old ones

    def dataReceived(self, data: bytes) -> None:
        if not self._handshakeDone:
            self.heard = True
            with one_write:
                super().dataReceived(data)
            return
        size = len(data)
        if size > SHORT:
            read = ffi.from_buffer(data)
            self._read_from(lib.BIO_new_mem_buf(read, size), read)
        else:
            if self._read is not None:
                self._read_from(lib.BIO_new(lib.BIO_s_mem()), None)
            if lib.BIO_write(self._tlsConnection._into_ssl, data, size) != size:
                raise MemoryError(NO_ROOM)
        if self._appSendBuffer:
            self._unbufferPendingWrites()
        self._flushReceiveBIO()

    def _read_from(self, source: Any, read: Any) -> None:
        """
        Let OpenSSL read from another place; it has taken all that was in the one before.
        """
        if source == ffi.NULL:
            raise MemoryError(NO_ROOM)
        tls = self._tlsConnection
        lib.BIO_set_mem_eof_return(source, -1)  # its end is not that of the connection
        lib.SSL_set_bio(tls._ssl, source, tls._from_ssl)  # frees the source before
        tls._into_ssl, self._read = source, read

    def write(self, data: bytes) -> None:
        """
        Write one piece.
        """
        if not self.disconnecting or self._producer is not None:
            self._seal(data)
            if not self._lostTLSConnection:
                self._flushSendBIO()

    def writeSequence(self, pieces: Iterable[bytes]) -> None:
        """
        Write pieces, which leave together.  A long one has records of its own, rather than be copied to stand beside others.
        """
        if self.disconnecting and self._producer is None:
            return
        short: list[bytes] = []
        for piece in pieces:
            if len(piece) < MAX_RECORD:
                short.append(piece)
            else:
                self._seal(b"".join(short))
                short.clear()
                self._seal(piece)
        self._seal(b"".join(short))
        if not self._lostTLSConnection:
            self._flushSendBIO()

    def _seal(self, data: bytes) -> None:
        """
        Encrypt; what comes of it waits to be sent.
        """
        if self._lostTLSConnection or not data:
            return
        tls = self._tlsConnection
        # The context is one of yurt.tls: it takes all or nothing.
        written = lib.SSL_write(tls._ssl, data, len(data))
        if written > 0:
            return
        if lib.SSL_get_error(tls._ssl, written) == lib.SSL_ERROR_WANT_READ:
            self._bufferedWrite(data)
        else:
            self._tlsShutdownFinished(_failure(tls, written))

    def _flushSendBIO(self) -> None:
        size = BUFFER_BYTES
        while size == BUFFER_BYTES:
            size = lib.BIO_read(self._tlsConnection._from_ssl, _sealed, BUFFER_BYTES)
            if size > 0:
                write_view(self.transport, _sealed_view[:size])

    def _flushReceiveBIO(self) -> None:
        more = True
        while more and not self._lostTLSConnection:
            data, more, end = self._decrypt()
            size = len(data)
            if size > MAX_RECORD and not self._aborted:
                with one_write:
                    one_write.keep_views()
                    self.wrappedProtocol.dataReceived(data)
            elif size and not self._aborted:
                self.wrappedProtocol.dataReceived(data)  # little: each piece leaves as soon as it can
            if end is not None and not self._lostTLSConnection:
                self._end_of_records(end)
        if self._tlsConnection is not None:
            self._flushSendBIO()

    def _decrypt(self) -> tuple[memoryview, bool, Failure | None]:
        """
        What the records hold that came, whether there may be more that had no room, and the end of all when that came.
        """
        tls, size = self._tlsConnection, 0
        ssl = tls._ssl
        while size <= BUFFER_BYTES - MAX_RECORD:
            count = lib.SSL_read(ssl, _opened + size, MAX_RECORD)
            if count <= 0:
                end = None if lib.SSL_get_error(ssl, count) == lib.SSL_ERROR_WANT_READ else _failure(tls, count)
                return _opened_view[:size], False, end
            size += count
        return _opened_view[:size], True, None

    def _end_of_records(self, end: Failure) -> None:
        if end.check(ZeroReturnError):
            self._shutdownTLS()
            self._tlsShutdownFinished(None)
        else:
            self._tlsShutdownFinished(end)


def _failure(tls: Any, result: int) -> Failure:
    """
    Why OpenSSL returned ``result``.
    """
    try:
        tls._raise_ssl_error(tls._ssl, result)
    except Error:
        return Failure()
    raise AssertionError(f"OpenSSL returned {result} for no reason")


def link_factory(creator: Any, is_client: bool, factory: IProtocolFactory) -> IProtocolFactory:
    """
    ``factory`` with TLS of ``creator`` around it.
    """
    wrapper = TLSMemoryBIOFactory(creator, is_client, factory)
    wrapper.protocol = LinkTransport
    return cast(IProtocolFactory, wrapper)
