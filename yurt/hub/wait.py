"""
The wait of one request for its server, from its patience's end to the end of all hope.

    late_after         its client would hear nothing for too long: the hub answers itself, if it can (see yurt.hub.clienttime)
    every PATIENCE     the server is probed: when it turns out dead, its connections are closed, so that the exchange fails and
                       goes another way
    ANEW_AFTER         it lives, and has not begun to answer: the read is asked for over a new connection
    ANSWER_WITHIN      it lives, and has not begun to answer: the attempt has failed
    SILENT_FOR         it lives, and no more of its answer comes: the rest is lost
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from yurt.http.interfaces import UpstreamError
from yurt.hub.patience import ANSWER_WITHIN, PATIENCE, is_doubted

if TYPE_CHECKING:
    from yurt.hub.cloud import Server
    from yurt.hub.forward import Forward

SILENT_FOR = 30.0
"""Seconds without any more of an answer about resources after which the rest is lost, of a server that is alive: it is there as
soon as it is begun, and a link that is as good as gone for longer shows to the probes."""

ANEW_AFTER = 15.0
"""Seconds without an answer to a read, of a server that is alive, after which it is asked for over a new connection: a load
balancer may have kept one whose server it has lost.  Long enough for all but the longest lists, which are then made twice."""


class Wait:
    """
    How long a request has waited for the server that it was sent to, and what is done about it.
    """

    looks = 0
    """How often this attempt's patience has ended."""

    def __init__(self, forward: Forward) -> None:
        self.forward = forward
        self.patience = forward.hub.patience
        self.heard = self.patience.ticks
        """When something came that the wait began anew for."""

    @property
    def awaits_head(self) -> bool:
        """
        Whether the server has not begun to answer.
        """
        forward = self.forward
        is_begun = forward.started or forward.delivery.held is not None
        return forward.exchange is not None and not is_begun and not forward.finished

    @property
    def awaits_more(self) -> bool:
        """
        Whether the server owes something: the head, or more of a body that does not last and that the client reads.
        """
        forward = self.forward
        is_open = forward.exchange is not None and not forward.finished and forward.delivery.stalled is None
        return is_open and (self.awaits_head or forward.is_bounded)

    def begin(self) -> None:
        """
        The request has been sent.
        """
        self.looks = 0
        if not self.forward.long_running:
            self.patience.watch(self)

    def renew(self) -> None:
        """
        Something has come: wait for what comes next, with all patience.
        """
        self.looks = 0
        self.go_on()

    def go_on(self) -> None:
        """
        Wait for what comes next, if the present wait is not as young as can be.
        """
        if self.heard != self.patience.ticks and not self.forward.long_running:
            self.heard = self.patience.ticks
            self.patience.watch(self)

    def end(self) -> None:
        """
        Nothing is waited for.
        """
        self.patience.forget(self)

    def impatient(self) -> None:
        """
        Nothing has come for a while: have the server probed.  When it lives the wait goes on.
        """
        forward, server = self.forward, self.forward.server
        if server is None:
            return
        if self.is_late and forward.answer_here():
            forward.drop_exchange()
            server.distrust_connections()
        elif self.doubts(server):
            forward.suspect(server)

    @property
    def is_unheard(self) -> bool:
        """
        Whether the client has heard nothing of an answer, and may be given another one.
        """
        return self.awaits_head or self.forward.delivery.held is not None

    @property
    def is_late(self) -> bool:
        """
        Whether its client cannot be left without an answer for much longer.
        """
        forward = self.forward
        return self.is_unheard and forward.hub.reactor.seconds() - forward.began >= forward.late_after

    def doubts(self, server: Server) -> bool:
        """
        Whether to have ``server`` probed now: a long wait is no reason to do so without end, as each probe costs a connection.
        One that has had its time is given up; only the bounds of API servers themselves are known.
        """
        forward = self.forward
        if forward.delivery.stalled is not None:
            return False  # it is the client that is waited for
        self.looks += 1
        waited, awaits_head, is_bounded = self.looks * PATIENCE, self.awaits_head, forward.is_bounded
        limit, what = (ANSWER_WITHIN, "no answer") if awaits_head else (SILENT_FOR, "no more of its answer")
        if is_bounded and waited >= limit:
            forward.drop_exchange()
            forward.response_failed(UpstreamError(f"{server.name}: {what} within {limit:g} s", sent=True))
            return False
        if awaits_head and is_bounded and not forward.fresh and waited >= ANEW_AFTER:
            self.ask_anew(server)
            return False
        return is_doubted(self.looks)

    def ask_anew(self, server: Server) -> None:
        """
        Try ``server`` over a new connection, if nothing can be done twice, and in what is left of the time.
        """
        forward = self.forward
        if forward.may_repeat(UpstreamError("silent")):
            looks, forward.fresh = self.looks, True
            forward.drop_exchange()
            forward.send(server)
            self.looks = looks

    def leave(self, server: Server) -> None:
        """
        ``server`` has fallen silent, and another one has not: ask that one instead, if nothing can be done twice.
        """
        forward = self.forward
        if forward.server is not server or not self.is_unheard or not forward.may_repeat(UpstreamError("silent")):
            return
        other = forward.hub.cloud.other(forward.tried)
        if other is not None:
            forward.drop_exchange()
            forward.send(other)
