"""
What was acknowledged while the cloud was away and still has to reach it.

Events wait in their order, at most MAX_EVENTS of them, and the patches of one event together; of a node's or pod's status only
the last state waits.  Every entry is on disk before its write is acknowledged.  When the cloud is back :class:`Journal` sends
statuses first, then events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec
from msgspec import structs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from yurt.http.fetch import FetchedResponse, FetchTimeout, fetch
from yurt.http.interfaces import Headers, UpstreamError
from yurt.hub.cloud import LOAD_BALANCER_ERRORS, Cloud, is_unserved
from yurt.kube.patch import join_patches
from yurt.kube.status import read_failure

MAX_EVENTS = 1000
"""Events that wait; the oldest are dropped and counted."""

MAX_EVENT_BYTES = 32 * 1024
"""Bytes of an event that waits.  Kubernetes lets its message have 1 KiB; whole ones have about as much."""

SEND_TIMEOUT = 20.0
"""Seconds for one entry to be answered."""

MAX_ANSWER = 4 * 1024 * 1024
"""Bytes of an answer that are read."""

RETRY_PAUSE = 5.0
"""Seconds before sending goes on after the cloud failed in the middle, unless it was declared away."""

MAX_ERRORS = 5
"""Times that the cloud may answer 500 to an entry before it is given up, so that it does not hold up all others."""

REFUSED_FOR = 30.0
"""Seconds after the cloud's return for which refusals that may pass are not believed: its authorizers, and what serves
groups beside kube-apiserver, take a while."""

MAX_REASON = 300
"""Characters of the cloud's reason for a refusal that are logged."""

TRY_AGAIN = LOAD_BALANCER_ERRORS | {429}
MAY_PASS = frozenset({401, 403, 404})

_EVENTS = b"e"
_STATUSES = b"s"


class JournalTable(Protocol):
    """
    The part of a store table that is needed here.
    """

    def get(self, key: bytes) -> bytes | None: ...

    def put(self, key: bytes, value: bytes) -> None: ...

    def delete(self, key: bytes) -> None: ...

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]: ...


class Entry(msgspec.Struct, frozen=True):
    """
    One write to be sent: ``body`` as the client wrote it, ``authorization`` what it showed (empty: the node's own),
    ``base`` the object as the cloud had it, if the body was made from that, ``about`` the path of the event that it makes or
    changes.
    """

    method: str
    target: str
    content_type: str
    body: bytes
    authorization: str = ""
    base: bytes = b""
    about: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Entry).decode


class Journal:
    """
    The entries, and the sending of them.

    ``node_headers`` gives the Authorization of the node when it has a token instead of a certificate; ``sent`` hears about
    each object that the cloud answered with (target and body), ``refused`` of each entry that it did not take.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        table: JournalTable,
        cloud: Cloud,
        node_headers: Callable[[], Headers],
        sent: Callable[[str, bytes], None],
        refused: Callable[[Entry], None],
    ) -> None:
        self._reactor = reactor
        self._table = table
        self._cloud = cloud
        self._node_headers = node_headers
        self._sent = sent
        self._refused = refused
        self._events: dict[bytes, str] = {}
        self._statuses = 0
        self._next = 0
        self._sending: Deferred[None] | None = None
        self._retry: IDelayedCall | None = None
        self._errors = 0
        self._believing_from = 0.0
        self.dropped = 0
        """Entries given up: pushed out by newer ones, or refused by the cloud for good."""

    def load(self) -> None:
        """
        Count what an earlier run left.
        """
        self._events = {key: _read_about(raw) for key, raw in self._table.scan(_EVENTS)}
        self._statuses = sum(1 for _ in self._table.scan(_STATUSES))
        self._next = int.from_bytes(max(self._events)[1:9], "big") + 1 if self._events else 0

    def __len__(self) -> int:
        return len(self._events) + self._statuses

    def events(self, about: str) -> list[Entry]:
        """
        What waits about the event with that path, in order.
        """
        keys = [key for key, path in self._events.items() if path == about]
        return [_decode(raw) for raw in map(self._table.get, keys) if raw is not None]

    def add_event(self, entry: Entry) -> None:
        """
        Queue an event behind the others.  A patch joins the one of the same event that waits already: what repeats for days
        takes one place.
        """
        key = next((key for key in reversed(self._events) if entry.about and self._events[key] == entry.about), None)
        raw = None if key is None else self._table.get(key)
        joined = None if raw is None else _join(_decode(raw), entry)
        if key is not None and joined is not None:
            self._table.put(key, _encode(joined))
            self._send_later()
            return
        if len(self._events) >= MAX_EVENTS:
            self._remove(next(iter(self._events)))
            self.dropped += 1
        added = _EVENTS + self._next.to_bytes(8, "big")
        self._table.put(added, _encode(entry))
        self._next += 1
        self._events[added] = entry.about
        self._send_later()

    def status(self, target: str) -> Entry | None:
        """
        The state of the object at ``target`` that still has to be sent.
        """
        raw = self._table.get(_STATUSES + target.encode())
        return None if raw is None else _decode(raw)

    def put_status(self, target: str, entry: Entry) -> None:
        """
        The last state of the object at ``target``, in the place of any earlier one.
        """
        key = _STATUSES + target.encode()
        if self._table.get(key) is None:
            self._statuses += 1
        self._table.put(key, _encode(entry))
        self._send_later()

    def start_sending(self) -> None:
        """
        The cloud is there again: send what waits.
        """
        self._believing_from = self._reactor.seconds() + REFUSED_FOR
        self._start()

    def _start(self) -> None:
        self._cancel_retry()
        if self._sending is None and len(self):
            self._sending = Deferred.fromCoroutine(self._send_all())
            self._sending.addErrback(self._broke).addBoth(self._ended)

    def stop(self) -> None:
        """
        Send no more; what waits stays.
        """
        self._cancel_retry()
        if self._sending is not None:
            self._sending.cancel()

    def _send_later(self) -> None:
        """
        Try again in a while; a cloud that is away until then calls :meth:`start_sending` when it is back.
        """
        if self._retry is None and self._cloud.reachable:
            self._retry = self._reactor.callLater(RETRY_PAUSE, self._go_on)

    def _cancel_retry(self) -> None:
        retry, self._retry = self._retry, None
        if retry is not None:
            retry.cancel()

    def _broke(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            self.log.failure("sending the journal failed", failure=failure)

    def _ended(self, _: object) -> None:
        self._sending = None

    async def _send_all(self) -> None:
        """
        Statuses first: what watchers are told next is then what the node said last.
        """
        sent = 0
        while (first := self._first()) is not None:
            if not await self._send(*first):
                self._send_later()
                return
            sent += 1
        self._events.clear()
        self._statuses = 0
        self.log.info("the journal of {sent} entries was sent", sent=sent)

    def _first(self) -> tuple[bytes, bytes] | None:
        for prefix in (_STATUSES, _EVENTS):
            for entry in self._table.scan(prefix):
                return entry
        return None

    def _go_on(self) -> None:
        self._retry = None
        if self._cloud.reachable:
            self._start()

    async def _send(self, key: bytes, raw: bytes) -> bool:
        """
        Send one entry; false when the cloud failed and it must be tried again.
        """
        server = self._cloud.pick()
        if server is None:
            return False
        entry = _decode(raw)
        headers: Headers = [(b"Content-Type", entry.content_type.encode()), (b"Accept", b"application/json")]
        if entry.authorization:
            headers.append((b"Authorization", entry.authorization.encode("latin-1")))
        else:
            headers += self._node_headers()
        upstream = server.bare if entry.authorization else server.upstream
        try:
            response = await fetch(
                self._reactor, upstream, entry.method.encode(), entry.target.encode(), headers, entry.body,
                timeout=SEND_TIMEOUT, limit=MAX_ANSWER,
            )  # fmt: skip
        except UpstreamError as error:
            if isinstance(error, FetchTimeout):
                server.distrust_connections()
            self._cloud.suspect(server, str(error)).addErrback(lambda _: None)
            return False
        if is_unserved(response.status, response.headers):
            self._cloud.unserved(server, response.status)
        if response.status in LOAD_BALANCER_ERRORS:
            self._cloud.suspect(server, f"it answered {response.status}").addErrback(lambda _: None)
        if response.status in TRY_AGAIN or self._may_pass(response):
            return False
        if response.status == 500 and self._errors < MAX_ERRORS - 1:
            self._errors += 1
            return False
        self._errors = 0
        is_last = self._table.get(key) == raw
        if is_last:
            self._remove(key)
        self._settle(entry, response, is_last=is_last)
        return True

    def _may_pass(self, response: FetchedResponse) -> bool:
        """
        Whether this refusal may be one of the first moments.  What does not exist is told by a Status of the API server.
        """
        if response.status not in MAY_PASS or self._reactor.seconds() >= self._believing_from:
            return False
        return response.status != 404 or read_failure(response.body).reason != "NotFound"

    def _settle(self, entry: Entry, response: FetchedResponse, *, is_last: bool) -> None:
        if response.status < 300:
            self._sent(entry.target, response.body)
        elif not (response.status == 409 and entry.method == "POST"):
            self.dropped += 1
            self.log.warn(
                "{method} {target} of the time without the cloud was refused with {status} and is given up: {reason}",
                method=entry.method, target=entry.target, status=response.status,
                reason=read_failure(response.body).message[:MAX_REASON] or "no reason was given",
            )  # fmt: skip
            if is_last:
                self._refused(entry)

    def _remove(self, key: bytes) -> None:
        self._table.delete(key)
        if key.startswith(_EVENTS):
            self._events.pop(key, None)
        else:
            self._statuses -= 1


def _join(waiting: Entry, entry: Entry) -> Entry | None:
    """
    One entry that does what both do; None where there is none.
    """
    if entry.method != "PATCH" or structs.replace(waiting, body=entry.body) != entry:
        return None
    body = join_patches(entry.content_type, waiting.body, entry.body)
    return None if body is None or len(body) > MAX_EVENT_BYTES else structs.replace(entry, body=body)


def _read_about(raw: bytes) -> str:
    """
    What an entry is about; nothing that lies on the disk may keep the hub from starting.
    """
    try:
        return _decode(raw).about
    except msgspec.MsgspecError:
        return ""
