"""
The hello that begins a link: one HTTP/1.1 upgrade, and what is said in it.  docs/tunnel-protocol.md, sections 1, 2 and 6.

No I/O here.  A reader is fed what arrives and returns the message once it is whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from yurt import __version__
from yurt.http.heads import get_header, has_token, serialise_request, serialise_response, tokens
from yurt.http.interfaces import Headers, RequestHead, ResponseHead
from yurt.http.request_parser import RequestMessage, RequestParser
from yurt.http.response_parser import ResponseParser
from yurt.kube.status import read_failure, status_body

VERSION = "yurt-tunnel/1"
"""The only version spoken."""
AGENT_PATH, PEER_PATH = "/v1/tunnel", "/v1/peer"
DRAIN = "drain"
"""A feature: go away says that a side is about to leave."""
FEATURES = frozenset({DRAIN})

MAX_HELLO_BYTES = 16 * 1024
"""Most bytes of either head, and of what a refusal says."""
MAX_NODE_ADDRESSES = 64
"""Addresses that are taken from a hello."""

SERVER_NAME = "system:node:tunnel-server"
"""The common name of a server's certificate."""
NODE_PREFIX = "system:node:"
AGENT_NAME = "tunnel-agent-client"

_REASONS = {
    101: b"Switching Protocols",
    400: b"Bad Request",
    403: b"Forbidden",
    404: b"Not Found",
    409: b"Conflict",
    426: b"Upgrade Required",
    503: b"Service Unavailable",
}
_NODE_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


class HelloError(Exception):
    """
    The other side's hello makes no sense; the message says why.
    """


@dataclass(frozen=True, slots=True)
class AgentHello:
    """
    What the dialling side says.  ``host`` is the host:port dialled; ``addresses`` are those of its node, for people.
    """

    host: str
    path: str = AGENT_PATH
    versions: tuple[str, ...] = (VERSION,)
    addresses: tuple[str, ...] = ()
    user_agent: str = f"yurt-tunnel-agent/{__version__}"
    features: frozenset[str] = FEATURES


@dataclass(frozen=True, slots=True)
class ServerHello:
    """
    What a server answers that takes the link.
    """

    server_id: str
    version: str = VERSION
    server: str = f"yurt-tunnel-server/{__version__}"
    features: frozenset[str] = FEATURES


@dataclass(frozen=True, slots=True)
class Refusal:
    """
    What a server answers that does not: HTTP status, reason of Kubernetes, a message for people, and in how many seconds it
    makes sense to come again.
    """

    status: int
    reason: str
    message: str
    retry_after: float | None = None


def serialise_hello(hello: AgentHello) -> bytes:
    """
    The request that asks for a link.
    """
    headers: Headers = [
        (b"Host", hello.host.encode("idna" if not hello.host.isascii() else "ascii")),
        (b"Connection", b"Upgrade"),
        (b"Upgrade", _list(hello.versions)),
        (b"User-Agent", hello.user_agent.encode("latin-1")),
    ]
    if hello.addresses:
        headers.append((b"Yurt-Node-Addresses", _list(hello.addresses)))
    headers.append((b"Yurt-Features", _list(sorted(hello.features))))
    return serialise_request(RequestHead(b"GET", hello.path.encode("ascii"), headers))


def serialise_answer(answer: ServerHello | Refusal) -> bytes:
    """
    The answer to a hello.
    """
    if isinstance(answer, ServerHello):
        headers: Headers = [
            (b"Connection", b"Upgrade"),
            (b"Upgrade", answer.version.encode("ascii")),
            (b"Server", answer.server.encode("latin-1")),
            (b"Yurt-Server-Id", answer.server_id.encode("ascii")),
            (b"Yurt-Features", _list(sorted(answer.features))),
        ]
        return serialise_response(ResponseHead(101, _REASONS[101], headers))
    seconds = None if answer.retry_after is None else max(1, round(answer.retry_after))
    body = status_body(answer.status, answer.reason, answer.message, retry_after=seconds)
    headers = [
        (b"Content-Type", b"application/json"),
        (b"Content-Length", b"%d" % len(body)),
        (b"Connection", b"close"),
    ]
    if answer.status == 426:
        headers[-1:] = [(b"Connection", b"close, Upgrade"), (b"Upgrade", VERSION.encode("ascii"))]
    if seconds is not None:
        headers.append((b"Retry-After", b"%d" % seconds))
    return serialise_response(ResponseHead(answer.status, _REASONS.get(answer.status, b"Refused"), headers)) + body


def _list(words: tuple[str, ...] | list[str]) -> bytes:
    return ", ".join(words).encode("ascii")


class HelloReader:
    """
    The server's half.  After the hello ``rest`` holds the bytes that came behind it.
    """

    def __init__(self) -> None:
        self._parser: RequestParser[RequestMessage] = RequestParser(RequestMessage, MAX_HELLO_BYTES)

    @property
    def rest(self) -> bytes:
        """
        What belongs to the mux already.
        """
        return self._parser.rest

    def feed(self, data: bytes) -> AgentHello | Refusal | None:
        """
        Take what arrived; the hello, or why there is none, as soon as that is known.
        """
        parser = self._parser
        parser.feed(data)
        if parser.error is not None:
            return Refusal(400, "BadRequest", f"this is the agents' port of yurt-tunnel-server: {parser.error}")
        return _read_hello(parser.begun[0]) if parser.begun else None


def _read_hello(message: RequestMessage) -> AgentHello | Refusal:
    head = message.head
    path = head.target.decode("latin-1")
    if path not in (AGENT_PATH, PEER_PATH):
        return Refusal(404, "NotFound", f"agents ask for {AGENT_PATH}")
    if head.http10:
        return Refusal(400, "BadRequest", "HTTP/1.1 is spoken here; HTTP/1.0 has no upgrade")
    if head.method != b"GET" or not message.upgrade:
        return Refusal(400, "BadRequest", f"no upgrade to {VERSION} was asked for")
    versions = tuple(_words(head.headers, b"upgrade"))
    if VERSION not in versions:
        return Refusal(426, "UpgradeRequired", f"only {VERSION} is spoken here")
    host, agent = (get_header(head.headers, name) or b"" for name in (b"host", b"user-agent"))
    return AgentHello(
        host=host.decode("latin-1"),
        path=path,
        versions=versions,
        addresses=tuple(_words(head.headers, b"yurt-node-addresses")[:MAX_NODE_ADDRESSES]),
        user_agent=agent.decode("latin-1"),
        features=frozenset(_words(head.headers, b"yurt-features")),
    )


def _words(headers: Headers, name: bytes) -> list[str]:
    """
    The members of a list header in their order.
    """
    fields = (value.split(b",") for key, value in headers if key.lower() == name)
    return [word.strip().decode("latin-1") for field in fields for word in field if word.strip()]


class AnswerReader:
    """
    The dialling side's half.  After a :class:`ServerHello` ``rest`` holds the bytes that came behind it.
    """

    def __init__(self) -> None:
        self._parser = ResponseParser(MAX_HELLO_BYTES)

    @property
    def rest(self) -> bytes:
        """
        What belongs to the mux already.
        """
        return self._parser.rest

    def feed(self, data: bytes) -> ServerHello | Refusal | None:
        """
        Take what arrived; the answer once it is whole.  Raises :exc:`HelloError` when it is none.
        """
        parser = self._parser
        parser.feed(data)
        if parser.error is not None:
            raise HelloError(f"it answered with what is no HTTP: {parser.error}")
        head = parser.head
        if head is None:
            return None
        if parser.upgraded:
            return self._accepted(head)
        whole = parser.complete or sum(map(len, parser.chunks)) >= MAX_HELLO_BYTES
        return self._refused(head) if whole else None

    def end(self) -> Refusal | None:
        """
        The server closed the connection: the refusal, as far as it came; ``None`` without an answer.
        """
        head = self._parser.head
        return None if head is None or self._parser.upgraded else self._refused(head)

    def _accepted(self, head: ResponseHead) -> ServerHello:
        server_id, server = (get_header(head.headers, name) or b"" for name in (b"yurt-server-id", b"server"))
        if not has_token(head.headers, b"upgrade", VERSION.encode("ascii")):
            raise HelloError(f"it switched to something else than {VERSION}")
        if not server_id:
            raise HelloError("it did not say Yurt-Server-Id")
        features = frozenset(word.decode("latin-1") for word in tokens(head.headers, b"yurt-features"))
        return ServerHello(server_id.decode("latin-1"), VERSION, server.decode("latin-1"), features & FEATURES)

    def _refused(self, head: ResponseHead) -> Refusal:
        said = read_failure(b"".join(self._parser.chunks))
        seconds = get_header(head.headers, b"retry-after")
        return Refusal(
            head.status,
            said.reason,
            said.message or f"{head.status} {head.reason.decode('latin-1')}",
            float(seconds) if seconds is not None and seconds.isdigit() and len(seconds) < 7 else None,
        )


class NotAnAgent(Exception):
    """
    A certificate is no agent's; the message says why.
    """

    @property
    def refusal(self) -> Refusal:
        """
        What the server answers.
        """
        return Refusal(403, "Forbidden", str(self))


def node_of(certificate: x509.Certificate) -> str:
    """
    The node that a client certificate is for.  Raises :exc:`NotAnAgent`.
    """
    name = _common_name(certificate)
    if name == AGENT_NAME:
        node = _only_dns_name(certificate)
    elif name.startswith(NODE_PREFIX) and name != SERVER_NAME:
        node = name[len(NODE_PREFIX) :]
    else:
        raise NotAnAgent(f"the certificate is for {name!r}; that of an agent is for {NODE_PREFIX}NAME or {AGENT_NAME}")
    if not _NODE_NAME.fullmatch(node):
        raise NotAnAgent(f"the certificate for {name!r} does not name a node")
    return node


def is_server(certificate: x509.Certificate) -> bool:
    """
    Whether a certificate is that of another server: by its name, and made for servers.  Whoever may join a node to the cluster
    could call it ``tunnel-server`` and have a client certificate of this name.
    """
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return _common_name(certificate) == SERVER_NAME and ExtendedKeyUsageOID.SERVER_AUTH in usages


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def _only_dns_name(certificate: x509.Certificate) -> str:
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    names = alternatives.get_values_for_type(x509.DNSName)
    return names[0] if len(names) == 1 else ""
