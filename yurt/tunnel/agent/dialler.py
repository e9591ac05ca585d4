"""
The streams that servers open: each becomes a connection to this node, or is refused with the reason.

Dials do not wait for one another: what is not connected at once has a coroutine of its own.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.error import ConnectingCancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure

from yurt.http.dial import Build, adopt, connect_at_once, tcp_endpoint
from yurt.http.wire import STREAM_AT_ONCE, tune
from yurt.mux.connection import MuxStream
from yurt.tunnel.agent.allowed import Allowed
from yurt.tunnel.agent.metrics import AgentMetrics
from yurt.tunnel.agent.names import Names
from yurt.tunnel.answering import IncomingConnect, when_asked
from yurt.tunnel.connect import DIAL_ERRORS, DRAINING, NAME_UNKNOWN, TIMEOUT, ConnectRefused, dial_failure
from yurt.tunnel.splice import Splice

DIAL_TIMEOUT = 5.0
"""Seconds in which a dial must succeed, looking up its name included."""


class Dialler:
    """
    Serves the streams of all links.
    """

    log = Logger()

    def __init__(self, reactor: Any, allowed: Allowed, names: Names, metrics: AgentMetrics) -> None:
        self._reactor = reactor
        self._allowed = allowed
        self._names = names
        self._metrics = metrics
        self.draining = False

    def accept(self, stream: MuxStream) -> None:
        """
        Serve a stream that a server has opened.
        """
        when_asked(self._reactor, stream, self._serve, self._not_asked)

    def _not_asked(self, refused: ConnectRefused) -> None:
        self._metrics.refused(refused.word)

    def _serve(self, incoming: IncomingConnect) -> None:
        began = self._reactor.seconds()
        splice = Splice()
        try:
            addresses = self._known_addresses(incoming)
        except ConnectRefused as refused:
            self._refuse(incoming, refused)
            return
        handle = None if addresses is None else connect_at_once(addresses[0], incoming.port)
        if addresses is None or handle is None:
            Deferred.fromCoroutine(self._dial_and_wait(incoming, splice, addresses, began)).addErrback(self._broken, incoming)
            return
        took = self._reactor.seconds() - began
        # Both sides hear of it first: what is left to be done here is done while they go on.
        incoming.pass_on(handle)
        incoming.accept(splice.right)
        adopt(self._reactor, handle, addresses[0], incoming.port, splice.left, at_once=STREAM_AT_ONCE)
        self._metrics.dialled(took)

    def _broken(self, failure: Failure, incoming: IncomingConnect) -> None:
        self.log.failure("{target} could not be dialled", failure, target=incoming.authority)
        incoming.abort()

    def _known_addresses(self, incoming: IncomingConnect) -> tuple[str, ...] | None:
        """
        What to dial; None for a name that must be looked up.  Raises :exc:`ConnectRefused`.
        """
        if self.draining:
            raise ConnectRefused(503, "ServiceUnavailable", DRAINING, "the agent is about to stop")
        self._allowed.check_port(incoming.port)
        return self._allowed.addresses_of(incoming.host)

    async def _dial_and_wait(
        self, incoming: IncomingConnect, splice: Splice, addresses: tuple[str, ...] | None, began: float
    ) -> None:
        dialling = Deferred.fromCoroutine(self._dial(incoming, splice, addresses))
        incoming.on_lost = dialling.cancel
        try:
            await dialling
        except ConnectRefused as refused:
            self._refuse(incoming, refused)
        except (CancelledError, ConnectingCancelledError):
            self._metrics.abandoned()
        else:
            took = self._reactor.seconds() - began
            tune(splice.left.transport, at_once=STREAM_AT_ONCE)
            incoming.accept(splice.right)
            self._metrics.dialled(took)

    def _refuse(self, incoming: IncomingConnect, refused: ConnectRefused) -> None:
        self._metrics.refused(refused.word)
        message = f"{incoming.authority}: {refused.message}"
        self.log.debug("refused: {why}", why=message)
        incoming.refuse(refused.status, refused.reason, refused.word, message)

    async def _dial(self, incoming: IncomingConnect, splice: Splice, addresses: tuple[str, ...] | None) -> None:
        """
        Connect ``splice.left``.  Raises :exc:`ConnectRefused`.
        """
        deadline = self._reactor.seconds() + DIAL_TIMEOUT
        last = ConnectRefused(504, "Timeout", TIMEOUT, f"nobody answered within {DIAL_TIMEOUT:g} s")
        for address in addresses or await self._look_up(incoming.host):
            left = deadline - self._reactor.seconds()
            if left <= 0:
                break
            endpoint = tcp_endpoint(self._reactor, address, incoming.port, left)
            try:
                await endpoint.connect(Build(lambda _: splice.left))
            except DIAL_ERRORS as error:
                last = dial_failure(error, DIAL_TIMEOUT)
            else:
                return
        raise last

    async def _look_up(self, host: str) -> tuple[str, ...]:
        """
        The node's own addresses that a name stands for.  Raises :exc:`ConnectRefused`.
        """
        looking = self._names.addresses(host)
        try:
            found = await looking.addTimeout(DIAL_TIMEOUT, self._reactor)
        except TimeoutError:
            raise ConnectRefused(504, "Timeout", TIMEOUT, f"no answer to its name within {DIAL_TIMEOUT:g} s") from None
        if not found:
            raise ConnectRefused(502, "BadGateway", NAME_UNKNOWN, "the name is unknown")
        return self._allowed.own_among(found, host)
