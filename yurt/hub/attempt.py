"""
One upstream request of a watch, the first or a resumed one.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qsl, urlencode

from yurt.http.interfaces import ByteStream, Exchange, Headers, ResponseHead, UpstreamError
from yurt.hub.patience import PATIENCE

if TYPE_CHECKING:
    from yurt.hub.cloud import Cloud, Server

ANEW_AFTER = 5.0
"""Seconds without an answer to a watch, of a server that is alive, after which it is asked for over a new connection: API servers
begin it at once, and a load balancer may have kept a connection whose server it has lost."""

MAX_REFUSAL_BODY = 64 * 1024
"""Bytes kept of an error body that answers a resumed watch."""


class AttemptOwner(Protocol):
    """
    The watch that an attempt is made for; what comes from an attempt that is no longer its own it ignores.
    """

    passing: bool
    """Whether what comes is passed on as it is, error bodies too."""

    def attempt_began(self, attempt: Attempt, head: ResponseHead) -> None: ...

    def received(self, attempt: Attempt, data: bytes) -> None: ...

    def attempt_ended(self, attempt: Attempt, error: UpstreamError | None) -> None: ...


class Attempt:
    """
    One upstream request of a watch, the first or a resumed one.  While it lasts, it depends on hearing of its server's end.
    """

    def __init__(self, owner: AttemptOwner, cloud: Cloud, server: Server, *, fresh: bool = False) -> None:
        self.owner = owner
        self.server = server
        self.fresh = fresh
        """Whether it is over a connection of its own."""
        self.looks = 0
        """How often the patience with its server has ended."""
        self._cloud: Cloud | None = cloud
        cloud.depend(server)
        self.exchange: Exchange | None = None
        self.status = 0
        self.refusal: list[bytes] = []
        self.refusal_size = 0
        self.fruitful = False
        self.marked = False
        """Whether a bookmark has come that tells of nothing but the time."""
        self.quiet = 0
        """Looks of :mod:`yurt.hub.deafness` since anything came."""
        self.began = inf
        """When the server accepted the watch."""

    @property
    def is_to_be_anew(self) -> bool:
        """
        Whether it has waited long enough for its connection to be doubted.
        """
        return not self.fresh and self.looks * PATIENCE >= ANEW_AFTER

    def drop(self) -> None:
        """
        Forget this attempt and its connection.
        """
        exchange = self.exchange
        self.over()
        if exchange is not None:
            exchange.cancel()

    def over(self) -> None:
        """
        Nothing more comes of it.
        """
        cloud, self._cloud, self.exchange = self._cloud, None, None
        if cloud is not None:
            cloud.release(self.server)

    def interim_received(self, head: ResponseHead) -> None:
        """
        A watch has no use for a 1xx.
        """

    def head_received(self, head: ResponseHead) -> None:
        """
        The status decides.
        """
        self.status = head.status
        self.owner.attempt_began(self, head)

    def data_received(self, data: bytes) -> None:
        """
        Frames, or a piece of a refusal.
        """
        if self.status == 200 or self.owner.passing:
            self.fruitful = True
            self.quiet = 0
            self.owner.received(self, data)
        elif self.refusal_size < MAX_REFUSAL_BODY:
            self.refusal_size += len(data)
            self.refusal.append(data)

    def response_finished(self, trailers: Headers) -> None:
        """
        The server ended it in good order.
        """
        self.over()
        self.owner.attempt_ended(self, None)

    def response_failed(self, error: UpstreamError) -> None:
        """
        The connection broke.
        """
        self.over()
        self.owner.attempt_ended(self, error)

    def upgraded(self, head: ResponseHead, stream: ByteStream) -> None:
        """
        Nobody asked for that.
        """
        stream.abort()
        self.over()
        self.owner.attempt_ended(self, UpstreamError("the server switched protocols in answer to a watch"))


def watch_target(target: bytes, version: str, remaining: int | None, *, resumed: bool) -> bytes:
    """
    The request target of a watch from ``version`` on that lasts ``remaining`` more seconds; a ``resumed`` one asks for no
    initial state again.
    """
    path, _, query = target.partition(b"?")
    replaced = {"resourceVersion", "allowWatchBookmarks"}
    if remaining is not None:
        replaced.add("timeoutSeconds")
    if resumed:
        replaced |= {"sendInitialEvents", "resourceVersionMatch"}
    given = parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    pairs = [(name, value) for name, value in given if name not in replaced]
    if version:
        pairs.append(("resourceVersion", version))
    pairs.append(("allowWatchBookmarks", "true"))
    if remaining is not None:
        pairs.append(("timeoutSeconds", str(remaining)))
    return path + b"?" + urlencode(pairs, encoding="latin-1").encode("ascii")
