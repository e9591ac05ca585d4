"""
A request passed on to a port of a node, and the answer back: streamed both ways, at the pace of the slower side.
"""

from __future__ import annotations

from twisted.internet import error
from twisted.internet.defer import CancelledError
from twisted.internet.defer import TimeoutError as DeferredTimeout

from yurt.http.heads import without
from yurt.http.interfaces import ByteStream, Exchange, Headers, RequestHead, ResponseHead, UpstreamError
from yurt.kube.api import ApiError
from yurt.tunnel.connect import ConnectRefused
from yurt.tunnel.server.authentication import Caller, Entrance, bearer_token
from yurt.tunnel.server.authorisation import access_of
from yurt.tunnel.server.passage import Joined, Passage
from yurt.tunnel.server.routing import PROXY_HEADERS, PodPath, Refused, Route, route, route_on

REPEATABLE = frozenset({b"GET", b"HEAD"})
"""Methods that take a connection which has been idle, and are sent once more if it turns out to be dead."""

LATE = (DeferredTimeout, CancelledError, error.TimeoutError, error.ConnectingCancelledError)


class Proxied(Passage):
    """
    See the module.
    """

    exchange: Exchange | None = None
    route: Route | None = None
    started = False

    # The way there

    async def serve(self) -> None:
        """
        Find out who asks for what, and send it.
        """
        front, request = self.front, self.request
        caller = await front.authenticator.caller_of(request)
        chosen = await self.choose()
        self.node = chosen.node
        await front.authoriser.check(caller, chosen.node, access_of(request.head.method, request.head.target))
        self.send(chosen, caller)

    async def choose(self) -> Route:
        """
        Where it goes.  Raises :class:`Refused`.
        """
        nodes, ports, tls = self.front.nodes, self.front.ports.ports, self.request.door is Entrance.TLS
        try:
            name = self.request.server_name
            port = self.front.dialled_port(self.request) if name else None
            chosen = route(self.request.head, nodes, ports, tls=tls, dialled=name, dialled_port=port)
        except Refused as refused:
            if refused.word == "unknown-node" and not nodes.synced:
                why = nodes.problem or "they are being listed"
                message = f"the nodes of the cluster are not known yet: {why}"
                raise Refused(503, "ServiceUnavailable", "unknown-node", message) from refused
            raise
        if not isinstance(chosen, PodPath):
            return chosen
        name = await self.node_of(chosen)
        node = nodes.by_name(name)
        if node is None:
            message = f"pod {chosen.namespace}/{chosen.name} is on node {name}, which is not known here"
            raise Refused(404, "NotFound", "unknown-node", message)
        return route_on(node, "", node.kubelet_port, ports, tls=tls)

    async def node_of(self, pod: PodPath) -> str:
        """
        The node that runs a pod.  Raises :class:`Refused`.
        """
        what = f"the node of pod {pod.namespace}/{pod.name}"
        if self.front.pods is None:
            raise Refused(404, "NotFound", "unknown-node", f"{what} is not known without --kubeconfig; name the node in Host")
        try:
            return await self.front.pods.node_of_pod(pod.namespace, pod.name)
        except ApiError as refused:
            message = f"{what} cannot be told: {refused.message}"
            if refused.code in (404, 409):
                raise Refused(refused.code, refused.reason, "unknown-node", message) from refused
            raise Refused(503, "ServiceUnavailable", "unknown-node", message) from refused

    def send(self, chosen: Route, caller: Caller) -> None:
        """
        Pass the request on; the token that named the caller is not for the node.
        """
        request, head = self.request, self.request.head
        shown = bearer_token(head.headers) if caller.by_token else None
        dropped = PROXY_HEADERS if shown is None else (*PROXY_HEADERS, shown[0])
        passed = RequestHead(head.method, head.target, without(head.headers, *dropped))
        fresh = request.upgrade or head.method not in REPEATABLE
        self.route = chosen
        upstream = self.front.upstreams.upstream(chosen)
        exchange = upstream.send(passed, self, body=request.has_body, upgrade=request.upgrade, fresh=fresh)
        self.exchange = exchange
        if request.has_body:
            exchange.produce_from(request.read_body(self))

    def body_received(self, data: bytes) -> None:
        """
        A piece of the client's body.
        """
        if self.exchange is not None:
            self.exchange.write(data)

    def body_finished(self, trailers: Headers) -> None:
        """
        The client's body is complete.
        """
        if self.exchange is not None:
            self.exchange.finish(trailers)

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
        self.started = True
        self.request.start(head)
        self.request.produce_from(self)

    def data_received(self, data: bytes) -> None:
        """
        A piece of the answer, which goes out at once.
        """
        self.request.write(data)

    def pause(self) -> None:
        """
        The client does not read: neither is the node read.
        """
        if self.exchange is not None:
            self.exchange.pause()

    def resume(self) -> None:
        """
        The client reads on.
        """
        if self.exchange is not None:
            self.exchange.resume()

    def response_finished(self, trailers: Headers) -> None:
        """
        The answer is complete.
        """
        self.exchange = None
        self.request.finish(trailers)
        self.done()

    def upgraded(self, head: ResponseHead, stream: ByteStream) -> None:
        """
        The node switched protocols: from now on there are only bytes.
        """
        self.exchange = None
        Joined(self.front.reactor, self.request.accept_upgrade(head), stream, self.done)

    def response_failed(self, error: UpstreamError) -> None:
        """
        The node gave no whole answer.
        """
        self.exchange = None
        if self.started:
            self.front.refusals.broke(f"{self.describe()}: the answer of node {self.node} broke off: {error}")
            self.request.abort()
            self.done()
        else:
            self.refuse(self.reason_of(error))

    def reason_of(self, error: UpstreamError) -> ConnectRefused:
        """
        What the client is told of a failure; the errors of the way to the node go on as they are.
        """
        cause = error.__cause__
        if isinstance(cause, ConnectRefused):
            return cause
        message = f"node {self.node}: {error}"
        if isinstance(cause, LATE):
            return Refused(504, "Timeout", "timeout", message)
        if error.local:
            return Refused(503, "ServiceUnavailable", "exhausted", message)
        return Refused(502, "BadGateway", "reset" if cause is None else "handshake", message)

    def drop(self) -> None:
        """
        Cancel the exchange, down to the node's socket.
        """
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.cancel()
