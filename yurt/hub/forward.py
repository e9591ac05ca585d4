"""
One request carried to the cloud, and its answer back.

:class:`Forward` is the plain case, for whatever the hub does not know better; subclasses keep what comes back and answer
themselves when the cloud does not.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import TYPE_CHECKING

from yurt.http.heads import get_header, without
from yurt.http.interfaces import (
    ByteStream,
    Exchange,
    Headers,
    IncomingRequest,
    RequestHead,
    ResponseHead,
    UpstreamError,
)
from yurt.http.upgrade import join
from yurt.hub.accept import is_json
from yurt.hub.answers import FROM_CLOUD, name_source
from yurt.hub.cache.views import Caller
from yurt.hub.call import SAFE_METHODS, VERDICT_WAIT, Call
from yurt.hub.cloud import LOAD_BALANCER_ERRORS, SERVER_ERRORS
from yurt.hub.delivery import Delivery
from yurt.hub.identity import Credential
from yurt.hub.upload import Upload
from yurt.hub.wait import Wait
from yurt.kube.requestinfo import RequestInfo

if TYPE_CHECKING:
    from yurt.hub.cloud import Server
    from yurt.hub.hub import Hub
    from yurt.hub.turns import Steps

EDGE_CACHE = b"edge-cache"
"""The header, meant for the hub only, by which a caller of any component asks to be cached."""

PLAIN_SUBRESOURCES = frozenset({"", "status", "scale"})
"""Those whose GET yields an object, and does not last."""


class Forward(Call):
    """
    A request on its way.  Created once a request; :meth:`begin` starts it.
    """

    # How a request begins; set anew only where it goes on, as most requests never need most of it.
    server: Server | None = None
    """The one that it was sent to last; None while it has been sent to none."""
    exchange: Exchange | None = None
    started = False
    fresh = False
    """Whether connections that were open before are not to be used."""

    verdict_wait = VERDICT_WAIT
    """Seconds that it waits at most until something is known of the cloud."""

    # What only a request has that was sent, for the cache answers in little more time than it takes to make them.
    tried: list[Server]
    wait: Wait
    delivery: Delivery

    def __init__(self, hub: Hub, request: IncomingRequest, info: RequestInfo, caller: Caller, credential: Credential) -> None:
        super().__init__(hub, request, info, caller, credential)
        self.upload = Upload(request, self) if request.has_body else None

    # The way out

    def begin(self) -> None:
        """
        Send the request to the cloud, or answer without it.
        """
        self.request.when_lost(self.client_lost)
        self.hub.when_verdict(self.proceed, self.verdict_wait)

    def proceed(self) -> None:
        """
        The one decision: cloud, or not.
        """
        if self.finished:
            return
        server = self.hub.cloud.pick()
        if server is None:
            self.without_cloud(None)
        else:
            self.send(server)

    def send(self, server: Server) -> None:
        """
        Try ``server``.
        """
        if self.server is None:
            self.tried, self.wait, self.delivery = [], Wait(self), Delivery(self)
        self.server = server
        self.tried.append(server)
        upstream = server.upstream if self.credential.kind == "none" else server.bare
        upload = self.upload
        is_upgrade, has_body = self.request.upgrade, upload is not None
        once = is_upgrade or self.long_running or self.request.head.method not in SAFE_METHODS
        exchange = upstream.send(self.upstream_head(), self, body=has_body, upgrade=is_upgrade, fresh=self.fresh, once=once)
        self.exchange = exchange
        self.wait.begin()
        if upload is not None:
            upload.repeat(exchange)
            upload.read()
            if self.exchange is not None:
                upload.draw(self.exchange)

    def upstream_head(self) -> RequestHead:
        """
        The head as the cloud gets it.
        """
        head = self.request.head
        token = self.hub.node_token() if self.credential.kind == "none" else None
        marked = get_header(head.headers, EDGE_CACHE) is not None
        if token is None and not marked:
            return head
        headers = without(head.headers, EDGE_CACHE) if marked else list(head.headers)
        if token is not None:
            headers.append((b"Authorization", b"Bearer " + token))
        return RequestHead(head.method, head.target, headers, head.http10)

    def body_received(self, data: bytes) -> None:
        """
        A piece of the client's body.
        """
        assert self.upload is not None
        self.upload.received(data, self.exchange)
        self.series.sent += len(data)

    def body_finished(self, trailers: Headers) -> None:
        """
        The client's body is complete.
        """
        assert self.upload is not None
        self.upload.finished(trailers, self.exchange)

    @property
    def is_bounded(self) -> bool:
        """
        Whether the answer has an end that comes soon, as far as is known: that about a resource, unless it is of a subresource
        that may last.
        """
        info = self.info
        return info.is_resource and not self.long_running and (self.wait.awaits_head or info.subresource in PLAIN_SUBRESOURCES)

    def suspect(self, server: Server) -> None:
        """
        ``server`` has been silent for a while: have it probed.
        """
        self.hub.suspect(server, "no answer to a request")

    # The way back

    def interim_received(self, head: ResponseHead) -> None:
        """
        Pass on a 1xx.
        """
        self.request.interim(head)

    def head_received(self, head: ResponseHead) -> None:
        """
        The answer begins.
        """
        if head.status in SERVER_ERRORS and self.asked_other(head):
            return
        self.answered_by_cloud(head)
        if self.fresh and self.server is not None:
            self.server.distrust_connections()
        self.wait.renew()
        if self.keeps(head):
            self.delivery.keep(head)
        if self.holds(head):
            self.delivery.hold(head)
        else:
            self.pass_head(head)

    def asked_other(self, head: ResponseHead) -> bool:
        """
        Ask another server in place of one that has a server's error for a read; false when there is none.  A 504 in JSON is an
        API server's own, which has tried for long or knows no newer state.
        """
        other = self.hub.cloud.other(self.tried)
        is_read = self.request.head.method == b"GET" and not self.request.upgrade and not self.request.has_body
        is_own = head.status == 504 and is_json(get_header(head.headers, b"content-type"))
        if other is None or not is_read or is_own:
            return False
        self.answered_by_cloud(head, doubtful=True)
        self.drop_exchange()
        self.send(other)
        return True

    def answered_by_cloud(self, head: ResponseHead, *, doubtful: bool = False) -> None:
        """
        Learn from an answer: about the server, and about the token.  One that is ``doubtful`` is no sign of life.
        """
        assert self.server is not None
        self.series.cloud_latency = self.hub.reactor.seconds() - self.began
        if doubtful or head.status in LOAD_BALANCER_ERRORS:
            self.hub.answered_badly(self.server, head)
        else:
            self.hub.cloud.served(self.server)
        if self.credential.token:
            self.hub.tokens.learn(self.credential.token, head)

    def pass_head(self, head: ResponseHead) -> None:
        """
        Start the client's response.
        """
        self.started = True
        self.series.from_cloud += 1
        name_source(head, FROM_CLOUD)
        self.request.start(head)
        self.request.produce_from(self.delivery)

    def pass_held(self, head: ResponseHead) -> None:
        """
        Start it with an answer that was held back, as it came.
        """
        self.pass_head(head)

    def data_received(self, data: bytes) -> None:
        """
        A piece of the answer.
        """
        if self.long_running or self.wait.heard != self.hub.patience.ticks:
            self.heard_again()
        self.delivery.received(data)
        self.series.received += len(data)

    def heard_again(self) -> None:
        """
        More of a long answer shows that the server lives.
        """
        assert self.server is not None
        self.hub.cloud.answered(self.server)
        self.wait.renew()

    def response_finished(self, trailers: Headers) -> None:
        """
        The answer is whole.
        """
        if self.delivery.is_out:
            self.complete(trailers)
            return
        self.exchange = None
        self.wait.end()
        self.delivery.finish(trailers)

    def complete(self, trailers: Headers) -> None:
        """
        The answer is out: first the client, then the cache.
        """
        kept = self.delivery.take_kept()
        self.request.finish(trailers)
        self.done()
        if kept is not None:
            self.hub.keep(self, *kept)

    def response_failed(self, error: UpstreamError) -> None:
        """
        The server gave no whole answer.
        """
        self.wait.end()
        self.exchange = None
        self.delivery.forget_held()
        if self.started:
            self.log.info(
                "{method} {path}: the answer broke off: {error}", method=self.info.verb, path=self.info.path, error=str(error)
            )
            self.request.abort()
            self.done()
            return
        assert self.server is not None
        self.failure = str(error)
        self.hub.failed(self.server, error)
        other = self.hub.cloud.other(self.tried)
        if other is not None and self.may_repeat(error):
            self.send(other)
        else:
            self.without_cloud(error)

    def may_repeat(self, error: UpstreamError) -> bool:
        """
        Whether another server may be asked the same without doing anything twice.
        """
        if self.upload is not None and self.upload.pieces is None:
            return False
        return not error.sent or (self.request.head.method in SAFE_METHODS and not self.request.upgrade)

    def upgraded(self, head: ResponseHead, stream: ByteStream) -> None:
        """
        The server switched protocols: hand both connections to each other.
        """
        self.wait.end()
        self.answered_by_cloud(head)
        name_source(head, FROM_CLOUD)
        self.started = True
        self.series.from_cloud += 1
        join(self.request.accept_upgrade(head), stream)
        self.done()

    # Without the cloud

    def without_cloud(self, error: UpstreamError | None) -> None:
        """
        Answer when the cloud cannot; ``error`` tells how the last attempt failed, if there was one.
        """
        if self.admitted_offline():
            self.answer_offline(error)
        else:
            message = f"{self.describe()}: the cloud is not reachable, and these credentials cannot be verified without it"
            self.answer_status(401, "Unauthorized", message)

    @property
    def late_after(self) -> float:
        """
        Seconds from the start after which :meth:`answer_here` is better than to wait on for a cloud that shows life.
        """
        return inf

    def answer_here(self) -> bool:
        """
        Answer in the place of a cloud that has not failed yet, or not been asked; false where that cannot be done honestly.
        """
        return False

    def answer_offline(self, error: UpstreamError | None) -> None:
        """
        Answer an admitted caller without the cloud.
        """
        if error is not None and error.sent and self.request.head.method not in SAFE_METHODS:
            message = f"{self.describe()}: the cloud did not answer ({error}); whether it was carried out is not known"
            self.answer_status(504, "Timeout", message)
        else:
            self.unavailable(self.uncached() or "it needs the cloud")

    # The end

    def client_lost(self) -> None:
        """
        The client hung up.
        """
        self.drop_exchange()
        self.done()

    def drop_exchange(self) -> None:
        """
        Give up the way to the cloud.
        """
        exchange, self.exchange = self.exchange, None
        if self.server is not None:
            self.delivery.forget_held()
        if exchange is not None:
            exchange.cancel()

    def done(self) -> None:
        """
        Nothing is waited for nor held any more.
        """
        if self.server is not None:
            self.wait.end()
            self.delivery.end()
        super().done()

    # What subclasses add

    def keeps(self, head: ResponseHead) -> bool:
        """
        Whether the body that follows ``head`` is held for :meth:`store`.
        """
        return False

    def confirmed(self, head: ResponseHead, body: bytes) -> bool:
        """
        Whether a whole answer, encoded as it came, is what the cache holds already, so that there is nothing to store.
        """
        return False

    def holds(self, head: ResponseHead) -> bool:
        """
        Whether an answer is held back until it is whole: that of a read which another server could answer, too, if this one
        breaks off, and which does not last.
        """
        info = self.info
        is_read = info.is_resource and info.verb in ("get", "list") and info.subresource in PLAIN_SUBRESOURCES
        is_plain = is_read and self.request.head.method == b"GET" and not self.request.upgrade
        return is_plain and head.status == 200 and len(self.hub.cloud.servers) > 1

    @property
    def about(self) -> Hashable:
        """
        What the cache must know before it takes in what comes after, if anything; see :meth:`yurt.hub.turns.Turns.expects`.
        """
        return None

    def store(self, head: ResponseHead, body: bytes) -> Steps | None:
        """
        Take a whole, decoded answer into the cache, at once or in steps.
        """
        return None
