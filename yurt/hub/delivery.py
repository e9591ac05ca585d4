"""
The body of an answer on its way: to the client at its own pace, and into the cache.

    (PASSING)  each piece goes to the client as it comes, and is kept for the cache where the answer is to be
    (HELD)     the client has heard nothing yet: another server, or the cache, may still answer in place of this one
               all has come, or too much to be held -> POURING
               it breaks off -> as if nothing had come
    (POURING)  what was held goes out, and what comes meanwhile behind it; when there is no more -> PASSING, or the end
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from yurt.http.interfaces import Headers, ResponseHead

if TYPE_CHECKING:
    from yurt.hub.forward import Forward

MAX_KEPT_BODY = 32 * 1024 * 1024
"""Bytes of a response held to be cached; a larger one goes to the client uncached."""

MAX_KEPT_TOTAL = 64 * 1024 * 1024
"""Bytes held so for all requests together."""

STALLED_FOR = 60.0
"""Seconds that a client may leave an answer unread before its connection is cut; not of requests that may last."""


class Delivery:
    """
    The answer to one request, whichever server gives it; the producer of the client's response.
    """

    log = Logger()

    # How it begins; set anew only where it goes on, as most answers never need most of it.
    kept: list[bytes] | None = None
    """The pieces so far, while they are held for the client or for the cache."""
    kept_size = 0
    kept_head: ResponseHead | None = None
    """The head of what is to be cached."""
    held: ResponseHead | None = None
    """The head of an answer of which the client has heard nothing yet, while its body comes in."""
    outflow: deque[bytes] | None = None
    """What was held and goes out now, at the pace of the client."""
    ended: Headers | None = None
    """The trailers of the answer, once it is whole, while some of it waits for the client."""
    stalled: IDelayedCall | None = None
    """While the client does not read: what will cut it."""

    def __init__(self, forward: Forward) -> None:
        self.forward = forward
        self.request = forward.request

    @property
    def is_out(self) -> bool:
        """
        Whether all that has come is the client's.
        """
        return self.held is None and not self.outflow

    def keep(self, head: ResponseHead) -> None:
        """
        Keep what follows ``head`` for the cache.
        """
        self.kept = []
        self.kept_head = head

    def hold(self, head: ResponseHead) -> None:
        """
        Tell the client nothing until the answer is whole.
        """
        self.kept = []
        self.held = head

    def received(self, data: bytes) -> None:
        """
        A piece of the answer.
        """
        if self.outflow:
            self.outflow.append(data)
        elif self.held is None:
            self.request.write(data)
        if self.kept is not None:
            self.keep_piece(self.kept, data)

    def keep_piece(self, kept: list[bytes], data: bytes) -> None:
        """
        Hold it, for the cache or until the answer is whole, within bounds.
        """
        hub = self.forward.hub
        kept.append(data)
        self.kept_size += len(data)
        hub.kept_bytes += len(data)
        if self.kept_size > MAX_KEPT_BODY or hub.kept_bytes > MAX_KEPT_TOTAL:
            message = "{what}: not cached, nor held until it is whole: it has {size} bytes already, all answers under way {total}"
            self.log.warn(message, what=self.forward.describe(), size=self.kept_size, total=hub.kept_bytes)
            self.pass_held()
            self.kept = None
            self.release()

    def pass_held(self) -> None:
        """
        Send what was held back: it is whole, or too large.
        """
        head, self.held = self.held, None
        if head is None:
            return
        self.outflow = deque(self.kept or ())
        self.forward.pass_held(head)
        self.pour()

    def pour(self) -> None:
        """
        Send what waits in the outflow, as far as the client reads it.
        """
        forward = self.forward
        while self.outflow and self.stalled is None and not forward.finished:
            self.request.write(self.outflow.popleft())
        if self.ended is not None and not self.outflow and not forward.finished:
            forward.complete(self.ended)

    def finish(self, trailers: Headers) -> None:
        """
        No more comes; the request is complete when the client has all.
        """
        self.ended = trailers
        self.pass_held()

    def take_held(self) -> tuple[ResponseHead, list[bytes]] | None:
        """
        Head and pieces of what is held, for somebody who answers with them in another way; None when nothing is.
        """
        head, kept = self.held, self.kept
        if head is None or kept is None:
            return None
        self.held = self.kept = None
        return head, kept

    def take_kept(self) -> tuple[ResponseHead, list[bytes]] | None:
        """
        Head and pieces of what was kept for the cache; None when it was not, or was too large.
        """
        head, kept, self.kept = self.kept_head, self.kept, None
        return None if head is None or kept is None else (head, kept)

    def forget_held(self) -> None:
        """
        Half of an answer is none; another way may lead to a whole one.
        """
        if self.held is not None:
            self.held = self.kept = self.kept_head = None
            self.release()

    def release(self) -> None:
        """
        Give back the room for what was held.
        """
        self.forward.hub.kept_bytes -= self.kept_size
        self.kept_size = 0

    def end(self) -> None:
        """
        The request is over: hold nothing of its answer, as long as anybody remembers it.
        """
        self.read_again()
        self.release()
        self.kept = self.outflow = None

    # The pace of the client

    def pause(self) -> None:
        """
        The client does not read: neither does the hub, and not for ever.
        """
        forward = self.forward
        if forward.exchange is not None:
            forward.exchange.pause()
        if self.stalled is None and not (forward.long_running or forward.finished):
            self.stalled = forward.hub.reactor.callLater(STALLED_FOR, self.give_up)

    def resume(self) -> None:
        """
        The client reads on.
        """
        self.read_again()
        self.pour()
        forward = self.forward
        if forward.exchange is not None and self.stalled is None:
            forward.exchange.resume()
            forward.wait.go_on()

    def read_again(self) -> None:
        """
        The client is no longer waited for.
        """
        stalled, self.stalled = self.stalled, None
        if stalled is not None and stalled.active():
            stalled.cancel()

    def give_up(self) -> None:
        """
        The client has read nothing for long enough.
        """
        what = self.forward.describe()
        self.log.info("{what}: cut, as the client reads nothing for {seconds:g} s", what=what, seconds=STALLED_FOR)
        self.request.abort()
        self.forward.client_lost()
