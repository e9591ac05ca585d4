"""
One request from its arrival to its end, whatever is done with it in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from yurt.http.interfaces import ByteStream, Headers, IncomingRequest
from yurt.kube.status import status_body
from yurt.tunnel.connect import REFUSED_HEADER, ConnectRefused
from yurt.tunnel.server.authorisation import path_class
from yurt.tunnel.server.routing import Refused

if TYPE_CHECKING:
    from yurt.tunnel.server.front import Front

LINGER = 30.0
"""Seconds that one end of a joined connection has to take what was written to it, when the other end is gone."""

MAX_PHRASE = 300
"""Characters of a message in a status line."""


class Passage:
    """
    A request that is being decided on, then served.  Subclasses say how, in :meth:`serve` and :meth:`drop`.
    """

    log = Logger()

    half_closed: float | None = None
    """As in :meth:`yurt.http.interfaces.IncomingRequest.when_lost`."""

    def __init__(self, front: Front, request: IncomingRequest) -> None:
        self.front = front
        self.request = request
        self.node = ""
        self.finished = False
        self._serving: Deferred[None] | None = None
        self._labels = front.metrics.request_started(request.head.method, b"/" + path_class(request.head.target))

    def begin(self) -> None:
        """
        Start; what comes of it goes to the client.
        """
        self.request.when_lost(self.client_lost, self.half_closed)
        if self.finished:
            return
        try:
            self._serving = self.start()
        except Exception:
            self._failed(Failure())
        else:
            self._serving.addErrback(self._failed)

    def start(self) -> Deferred[None]:
        """
        Begin to serve; fires, or fails, as :meth:`serve`.
        """
        return Deferred.fromCoroutine(self.serve())

    async def serve(self) -> None:
        """
        Decide what is to be done and begin with it.  Raises :exc:`ConnectRefused`.
        """
        raise NotImplementedError

    def drop(self) -> None:
        """
        Give up what was begun; the client is gone.
        """
        raise NotImplementedError

    def _failed(self, failure: Failure) -> None:
        if self.finished or failure.check(CancelledError):
            return
        if isinstance(failure.value, ConnectRefused):
            self.refuse(failure.value)
            return
        self.log.failure("{what} could not be served", failure, what=self.describe())
        self.refuse(Refused(500, "InternalError", "other", "the request could not be served; the log of the server says why"))

    def refuse(self, error: ConnectRefused) -> None:
        """
        Answer with the reason.
        """
        if isinstance(error, Refused):  # the others have been counted where they come from
            self.front.refusals.refuse(error.word, f"{self.describe()}: {error.message}")
        answer_refusal(self.request, error, self.node)
        self.done()

    def describe(self) -> str:
        """
        The request in a few words, for the log; a query may hold what must not stand there, and so does the path of a
        container runtime's stream, which is a token.
        """
        head = self.request.head
        is_stream = path_class(head.target) == b"cri"
        target = "/cri/..." if is_stream else head.target.partition(b"?")[0][:200].decode("latin-1")
        return f"{head.method.decode('latin-1')} {target!r} from {getattr(self.request.peer, 'host', 'a socket')}"

    def client_lost(self) -> None:
        """
        The client hung up: nothing goes on for it.
        """
        if self.finished:
            return
        self.done()
        if self._serving is not None:
            self._serving.cancel()
        self.drop()

    def done(self) -> None:
        """
        Give back the place among the requests in flight, once.
        """
        if not self.finished:
            self.finished = True
            self.front.metrics.request_ended(self._labels)
            self.front.ended(self)


def answer_refusal(request: IncomingRequest, error: ConnectRefused, node: str = "") -> None:
    """
    Answer with a Kubernetes Status.  To a CONNECT the status line tells the message, too: it is all that an API server shows; and
    who must show more is told so as by any proxy (RFC 9110, section 15.5.8).
    """
    to_proxy = request.head.method == b"CONNECT"
    status = 407 if to_proxy and error.status == 401 else error.status
    headers: Headers = [(b"Content-Type", b"application/json"), (REFUSED_HEADER, error.word.encode("ascii"))]
    if error.status == 401:
        headers.append((b"Proxy-Authenticate" if to_proxy else b"WWW-Authenticate", b"Bearer"))
    if error.status == 429:
        headers.append((b"Retry-After", b"1"))
    details = {"name": node, "kind": "nodes"} if node else None
    body = status_body(status, error.reason, error.message, details=details)
    phrase = " ".join(error.message.split())[:MAX_PHRASE].encode("ascii", "replace") if to_proxy else b""
    request.respond(status, headers, body, phrase)


class Joined:
    """
    Passes on everything between two streams, each as fast as the other one reads; ``ended`` is called when both are gone.

    When one is gone the other may still take what was written to it, for LINGER seconds: a peer that reads nothing more, such as
    a command that ignores its input, would otherwise never hear of the end.  When one is broken the other is reset: whoever reads
    it must not take for the end what is none.
    """

    def __init__(self, reactor: IReactorTime, a: ByteStream, b: ByteStream, ended: Callable[[], None]) -> None:
        self._reactor = reactor
        self._ended = ended
        self._timer: IDelayedCall | None = None
        self._one_lost = False
        a.attach(_End(self, a, b), b)
        b.attach(_End(self, b, a), a)

    def lost(self, one: ByteStream, other: ByteStream) -> None:
        """
        ``one`` stream is gone, ``other`` is what it was joined to.
        """
        if self._one_lost:
            if self._timer is not None and self._timer.active():
                self._timer.cancel()
            self._ended()
            return
        self._one_lost = True
        if one.broken:
            other.abort()
            return
        other.resume()  # so that its end is seen
        other.close()
        self._timer = self._reactor.callLater(LINGER, other.abort)


class _End:
    """
    Writes to one stream what another one receives.
    """

    __slots__ = ("_joined", "_of", "_to", "bytes_received", "takes_views")

    def __init__(self, joined: Joined, of: ByteStream, to: ByteStream) -> None:
        self._joined = joined
        self._of = of
        self._to = to
        self.bytes_received = to.write
        self.takes_views = getattr(to, "takes_views", False)

    def bytes_finished(self) -> None:
        self._to.finish()

    def bytes_lost(self) -> None:
        self._joined.lost(self._of, self._to)
