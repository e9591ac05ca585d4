"""
The node's way to the cloud is open only while it has a certificate that the cloud can accept.

Without that every answer would be 401, and the cache be of no use: the cloud counts as away instead, for a reason that is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from cryptography import x509
from cryptography.x509.oid import NameOID
from twisted.internet.interfaces import IReactorTime

from yurt.http.interfaces import (
    Exchange,
    FlowControlled,
    Headers,
    RequestHead,
    ResponseReceiver,
    Upstream,
    UpstreamError,
)
from yurt.kube.csr.pem import time_text
from yurt.kube.csr.wanted import NODE_PREFIX
from yurt.tls import Credentials


class Validity:
    """
    Until when the certificate of some credentials can be shown; files are looked at again when it is over, and when somebody
    asks how long it lasts.  ``wall`` is the time of day.
    """

    def __init__(self, credentials: Credentials, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self.replace(credentials)

    def replace(self, credentials: Credentials) -> None:
        """
        Look at other credentials from now on.
        """
        self._credentials = credentials
        self._stamp: object = None
        self._until: float | None = None
        self._user = ""
        self._refresh()

    def expires_in(self) -> float | None:
        """
        Seconds until it expires, negative once it has; None when there is no certificate.
        """
        self._refresh()
        return None if self._until is None else self._until - self._wall()

    def refusal(self) -> str:
        """
        Why it cannot be shown; empty when it can, and when there is none, as with a token.
        """
        if self._until is None or self._wall() < self._until:
            return ""
        self._refresh()
        if self._until is None or self._wall() < self._until:
            return ""
        return f"the node's certificate expired at {time_text(self._until)}"

    def mismatch(self, node_name: str) -> str:
        """
        Says that it is the certificate of another node than that; empty when it is not, or of no node at all.
        """
        self._refresh()
        if not self._user.startswith(NODE_PREFIX) or self._user == NODE_PREFIX + node_name:
            return ""
        other = self._user.removeprefix(NODE_PREFIX)
        return f"the certificate is that of node {other}, and --node-name is {node_name}: correct one of them"

    def _refresh(self) -> None:
        stamp = self._credentials.stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        # Of files that are just being replaced the connections keep the last good state, too.
        with suppress(OSError, ValueError, IndexError):
            self._read()

    def _read(self) -> None:
        pem = self._credentials.cert_data
        if self._credentials.cert_file is not None:
            with open(self._credentials.cert_file, "rb") as file:
                pem = file.read()
        if not pem:
            self._until, self._user = None, ""
            return
        certificate = x509.load_pem_x509_certificates(pem)[0]
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        self._until, self._user = certificate.not_valid_after_utc.timestamp(), str(names[0].value) if names else ""


class AdmittedUpstream:
    """
    An upstream that is used only while ``refusal()`` is empty.
    """

    def __init__(self, reactor: IReactorTime, upstream: Upstream, refusal: Callable[[], str]) -> None:
        self.name = upstream.name
        self._reactor = reactor
        self._upstream = upstream
        self._refusal = refusal

    @property
    def open_connections(self) -> int:
        """
        See :class:`Upstream`.
        """
        return self._upstream.open_connections

    def send(self, head: RequestHead, receiver: ResponseReceiver, **how: bool) -> Exchange:
        """
        See :class:`Upstream`.
        """
        refusal = self._refusal()
        if refusal:
            return _Refused(self._reactor, receiver, UpstreamError(f"{self.name}: {refusal}", sent=False))
        return self._upstream.send(head, receiver, **how)

    def close_connections(self, reason: str) -> None:
        """
        See :class:`Upstream`.
        """
        self._upstream.close_connections(reason)

    def retire_connections(self) -> None:
        """
        See :class:`Upstream`.
        """
        self._upstream.retire_connections()


class _Refused:
    """
    An exchange that never begins.
    """

    def __init__(self, reactor: IReactorTime, receiver: ResponseReceiver, error: UpstreamError) -> None:
        self._call = reactor.callLater(0, receiver.response_failed, error)

    def cancel(self) -> None:
        if self._call.active():
            self._call.cancel()

    def write(self, data: bytes) -> None: ...

    def finish(self, trailers: Headers) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def produce_from(self, source: FlowControlled | None) -> None: ...
