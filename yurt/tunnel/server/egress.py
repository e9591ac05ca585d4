"""
HTTP CONNECT, as kube-apiserver's egress selector speaks it: a connection from the cluster's side to whatever address, by the
way that leads there.
"""

from __future__ import annotations

import os
import socket
import stat
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, NoReturn, cast

from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.interfaces import (
    IAddress,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)

from yurt.http.dial import Build, tcp_endpoint
from yurt.http.interfaces import ByteStream, ResponseHead
from yurt.http.upgrade import StreamConnection
from yurt.http.wire import one_write
from yurt.listening import BACKLOG, Listen, StartFailed
from yurt.sockets import bytes_carried, socket_of
from yurt.tunnel.connect import DIAL_ERRORS, MAX_TARGETS, NAME_UNKNOWN, TIMEOUT, UNREACHABLE, dial_failure, target_of
from yurt.tunnel.server.authorisation import Access
from yurt.tunnel.server.node import Node, usual_spelling
from yurt.tunnel.server.passage import Joined, Passage
from yurt.tunnel.server.routing import Refused, authority, own_address
from yurt.tunnel.server.ways import NoWay, Way

DIAL_TIMEOUT = 5.0
"""Seconds that the server itself tries to connect, looking up the name included; an agent has as long."""

RAW = Access("create")
"""What a connection is to the authoriser: what goes through it nobody sees."""


@lru_cache(MAX_TARGETS)
def _target(target: bytes) -> tuple[str, int]:
    text = target.decode("latin-1")
    try:
        host, port = target_of(text)
    except ValueError:
        port = 0
    if not port:
        raise Refused(400, "BadRequest", "malformed", f"CONNECT {text[:100]!r}: that is no host:port")
    return usual_spelling(host) or host, port


def _too_late(result: object, seconds: float) -> NoReturn:
    """
    What the end of a dial becomes that was given up: of a name that nobody looked up in time Twisted says that it is unknown.
    """
    raise error.TimeoutError(string=f"nobody answered within {seconds:g} s")


class Direct:
    """
    A connection that the server itself has made, without an agent, as it is looked at at a stop.
    """

    def __init__(self, connection: StreamConnection) -> None:
        self._connection = connection

    @property
    def bytes_sent(self) -> int:
        """
        Bytes that the other side has taken.
        """
        return self._carried[0]

    @property
    def bytes_received(self) -> int:
        """
        Bytes that came from there.
        """
        return self._carried[1]

    @property
    def _carried(self) -> tuple[int, int]:
        handle = socket_of(self._connection.transport)
        return (0, 0) if handle is None else bytes_carried(handle)

    def abortConnection(self) -> None:
        """
        Reset it.
        """
        self._connection.stream.abort()


class Opened(Passage):
    """
    A CONNECT: answered 200 when the other side has connected, and bytes from then on.
    """

    half_closed = 0.0
    """Who has nothing to send before the answer has gone: a Unix socket that was closed looks no other than a half-closed one."""

    accepted: ByteStream | None = None
    """The caller's connection, once it was told 200."""

    direct: Direct | None = None
    """The other one, if no agent has made it."""

    def start(self) -> Deferred[None]:
        """
        Connect at once for whom nobody has to be asked about.
        """
        front = self.front
        caller = front.authenticator.known_caller_of(self.request)
        if caller is None or not front.authoriser.trusts(caller):
            return super().start()
        return self.connect(*self.target())

    async def serve(self) -> None:
        """
        Find out who asks for what, connect, and join.
        """
        front = self.front
        caller = await front.authenticator.caller_of(self.request)
        host, port, node = self.target()
        await front.authoriser.check(caller, self.node, RAW)
        await self.connect(host, port, node)

    def accept(self) -> ByteStream:
        """
        Answer 200; what the caller's connection is from now on.
        """
        self.accepted = self.request.accept_upgrade(ResponseHead(200, b"OK"))
        return self.accepted

    def target(self) -> tuple[str, int, Node | None]:
        """
        The host and the port asked for, and whose the host is if it is a node's.  Raises :class:`Refused`.
        """
        host, port = _target(self.request.head.target)
        node = self.front.nodes.by_host(host)
        self.node = "" if node is None else node.name
        return host, port, node

    def connect(self, host: str, port: int, node: Node | None) -> Deferred[None]:
        """
        Connect through the node's agent, or from here where there is none, and join.  Fails, or raises, what the way raises, or
        :class:`Refused`.
        """
        way = self.way(host, port, node)
        if way is None:
            address = own_address(node) if node is not None and not usual_spelling(host) else host
            return Deferred.fromCoroutine(self.connect_directly(address, port)).addCallback(self._join)
        connecting = cast("Deferred[StreamConnection]", way.connect(cast(IProtocolFactory, Build(self._through_agent))))
        one_write.flush()  # the node is dialled while the rest is done here
        return connecting.addCallback(self._join)

    def _join(self, connection: StreamConnection) -> None:
        Joined(self.front.reactor, self.accepted or self.accept(), connection.stream, self.done)

    def _through_agent(self, _: IAddress | None) -> StreamConnection:
        self.accept()  # before all else: the caller goes on meanwhile
        return StreamConnection()

    def way(self, host: str, port: int, node: Node | None) -> IStreamClientEndpoint | None:
        """
        The way through an agent; None for what needs none: a node without agent, and what is no node at all, such as the
        webhooks and aggregated API servers that a cluster's egress leads to, too.
        """
        ports = self.front.ports.ports
        if node is None:
            if port in ports.tunnel_ports:
                message = f"no node has the name or address {host}, and port {port} is for nodes"
                raise Refused(503, "ServiceUnavailable", "unknown-node", message)
            return None
        address = host if usual_spelling(host) or not node.addresses else own_address(node)
        if port in ports.localhost:
            address = "::1" if ":" in address else "127.0.0.1"
        way = Way(self.front.ways, node.name, address, port, early=False, local_only=False)
        if not node.has_agent:
            try:
                way.find()
            except NoWay:
                return None
        return way

    async def connect_directly(self, host: str, port: int) -> StreamConnection:
        """
        Connect from this host, but not to itself: what listens on loopback trusts its callers.  Raises :class:`Refused`.
        """
        self.check_address(host)
        where = authority(host, port)
        try:
            reactor = self.front.reactor
            factory = cast(IProtocolFactory, Build(lambda _: StreamConnection()))
            dialling = tcp_endpoint(reactor, host, port, DIAL_TIMEOUT).connect(factory)
            protocol = cast(StreamConnection, await dialling.addTimeout(DIAL_TIMEOUT, reactor, _too_late))
        except DIAL_ERRORS as problem:
            failed = dial_failure(problem, DIAL_TIMEOUT)
            message = f"{where}, dialled by the server: {failed.message}{self.hint(host, failed.word)}"
            raise Refused(failed.status, failed.reason, failed.word, message) from problem
        except ValueError as problem:  # of names that no name server can be asked for
            raise Refused(502, "BadGateway", NAME_UNKNOWN, f"{where}: that is no name of a host") from problem
        try:
            self.check_address(protocol.peer)
        except Refused:
            protocol.stream.abort()
            raise
        self.direct = Direct(protocol)
        return protocol

    def hint(self, host: str, word: str) -> str:
        """
        What may be the matter with an address that no packet reaches.
        """
        node = self.front.nodes.by_pod(host) if word in (TIMEOUT, UNREACHABLE) else None
        if node is None or not node.has_agent:
            return ""
        return f"; it is of the pods on node {node.name}, which only dials out, and the tunnel leads to nodes, not to their pods"

    def check_address(self, host: str) -> None:
        """
        Raise :class:`Refused` for an address that the server must not dial.
        """
        if is_own(host):
            message = f"{host} is not dialled by the server: loopback and link-local addresses are not the cluster's"
            raise Refused(403, "Forbidden", "forbidden", message)

    def drop(self) -> None:
        """
        Nothing more to give up than what was being waited for.
        """


def is_own(host: str) -> bool:
    """
    Whether an address means this very host or its link, and nothing of the cluster.  A name is none: its address is looked at
    when it is connected.
    """
    try:
        address = ip_address(usual_spelling(host) or host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified or address.is_link_local or address.is_multicast


class EgressSocket(Listen):
    """
    Listens on a Unix socket that only its owner may open: whoever may is trusted as this machine itself.  The socket of a
    process that was killed is replaced, and the socket is removed at the stop.
    """

    def __init__(self, reactor: Any, path: str, factory: IProtocolFactory) -> None:
        endpoint = UNIXServerEndpoint(reactor, path, backlog=BACKLOG, mode=0o600)
        super().__init__(cast(IStreamServerEndpoint, endpoint), factory, f"egress socket {path}")
        self.path = path

    def privilegedStartService(self) -> None:
        """
        Make the folder if it is missing, and room for the socket.  Raises :exc:`StartFailed`.
        """
        try:
            os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
            self._remove_stale()
        except OSError as problem:
            raise StartFailed(f"{self.what}: {problem.strerror}") from problem
        super().privilegedStartService()

    def _remove_stale(self) -> None:
        try:
            mode = os.lstat(self.path).st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise StartFailed(f"{self.what}: there is a file that is no socket; move it away or choose another path")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            if probe.connect_ex(self.path) == 0:
                raise StartFailed(f"{self.what}: another process listens there; end it or choose another path")
        os.unlink(self.path)
