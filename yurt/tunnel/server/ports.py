"""
The kubelet-like ports that go through the tunnel, as the operator sets them in ConfigMap kube-system/yurt-tunnel-server-cfg.

Its keys are OpenYurt's: ``https-proxy-ports``, ``http-proxy-ports`` and ``localhost-proxy-ports`` are comma lists of ports;
``dnat-ports-pair`` (deprecated) one of ``PORT=TARGET``, of which those count whose target is the server's plain port.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from yurt.kube.api import ApiClient
from yurt.kube.informer import Informer

NAMESPACE, NAME = "kube-system", "yurt-tunnel-server-cfg"

KUBELET_PORT, KUBELET_READ_ONLY_PORT = 10250, 10255
INSECURE_PORT = 10264
"""The tunnel server's own plain port, unless it was given another."""

MAX_PORTS = 256
"""Ports of one kind that are taken: each one is a chain of firewall rules with a rule for every node."""

Security = Literal["secure", "insecure"]


@dataclass(frozen=True, slots=True)
class Ports:
    """
    The ports that tunnel servers carry besides the kubelet's own two: to which TLS is spoken, to which plain HTTP; and
    those that nodes serve on their loopback address alone.

    ``ignored`` says, for people, what of the ConfigMap cannot be used.
    """

    https: frozenset[int] = frozenset()
    http: frozenset[int] = frozenset()
    localhost: frozenset[int] = frozenset()
    ignored: tuple[str, ...] = ()

    @property
    def tunnel_ports(self) -> dict[int, Security]:
        """
        Every port that is diverted into the tunnel, in order, and which of the server's two doors it comes to.
        """
        ports: dict[int, Security] = {KUBELET_PORT: "secure", KUBELET_READ_ONLY_PORT: "insecure"}
        ports.update({port: "insecure" for port in self.http})
        ports.update({port: "secure" for port in self.https})
        return dict(sorted(ports.items()))


NO_PORTS = Ports()


class _Item(NamedTuple):
    port: int | None
    target: int | None
    text: str


def parse_ports(data: Mapping[str, str], insecure_port: int = INSECURE_PORT, needed: Mapping[int, str] = {}) -> Ports:
    """
    The ports that the data of the ConfigMap name.  What cannot be used is left out, and told in ``ignored``.

    A port in several keys is https rather than http.  The kubelet's own ports are always in the tunnel and need no naming, but
    for kubelets that listen on loopback only.
    Those in ``needed``, which tells whose they are, this server must reach without it: rules that turn them would cut it off, and
    it would never hear that they are to go.
    """
    ignored: list[str] = []

    def take(key: str, pairs: bool = False, diverted: bool = True) -> set[int]:
        ports: set[int] = set()
        for item in _items(data.get(key, "")):
            why = _objection(item, pairs, insecure_port)
            if not why and diverted and item.port is not None and item.port in needed:
                why = f"it is {needed[item.port]}, which this server must reach by itself"
            if not why and item.port not in ports and len(ports) >= MAX_PORTS:
                why = f"more than {MAX_PORTS} ports"
            if why:
                ignored.append(f"{key}: {item.text!r}: {why}")
            elif item.port is not None and not (diverted and item.port in (KUBELET_PORT, KUBELET_READ_ONLY_PORT)):
                ports.add(item.port)
        return ports

    https, http = take("https-proxy-ports"), take("http-proxy-ports") | take("dnat-ports-pair", pairs=True)
    localhost = take("localhost-proxy-ports", diverted=False)
    return Ports(frozenset(https), frozenset(http - https), frozenset(localhost), tuple(ignored[:MAX_PORTS]))


def _items(text: str) -> Iterator[_Item]:
    for piece in text.split(","):
        stripped = piece.strip()
        if stripped:
            port, pair, target = stripped.partition("=")
            yield _Item(_port(port), _port(target) if pair else None, stripped[:40])


def _port(text: str) -> int | None:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        return None
    return int(text) if 1 <= int(text) <= 65535 else None


def _objection(item: _Item, pairs: bool, insecure_port: int) -> str:
    """
    Why an item cannot be used; empty when it can.
    """
    if item.port is None or ("=" in item.text) is not pairs:
        return "not PORT=TARGET with ports of 1 to 65535" if pairs else "no port of 1 to 65535"
    if pairs and item.target != insecure_port:
        return f"the target is not the server's plain port {insecure_port}"
    return ""


class _ConfigMap(msgspec.Struct):
    data: dict[str, str] | None = None


_decode = msgspec.json.Decoder(_ConfigMap).decode


class LivePorts:
    """
    The ports as they are now.  Without an informer, which is without a cluster, they stay NO_PORTS.
    """

    log = Logger()

    def __init__(self, informer: Informer[Ports] | None = None) -> None:
        self._informer = informer
        self._subscribers: list[Callable[[Ports], object]] = []
        self.ports = NO_PORTS
        if informer is not None:
            informer.subscribe(self._changed)

    @property
    def synced(self) -> bool:
        """
        Whether the ConfigMap, or that there is none, is known.
        """
        return self._informer is None or self._informer.synced

    @property
    def problem(self) -> str | None:
        """
        Why ``ports`` may be out of date.
        """
        return None if self._informer is None else self._informer.problem

    def subscribe(self, callback: Callable[[Ports], object]) -> Callable[[], None]:
        """
        Call ``callback(ports)`` after each change; answers how to end that.
        """
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def _changed(self, key: str, old: Ports | None, new: Ports | None) -> None:
        told = self.ports.ignored
        self.ports = new or NO_PORTS
        for ignored in self.ports.ignored:
            if ignored in told:
                continue
            self.log.warn("ConfigMap {namespace}/{name}: {ignored}; ignored", namespace=NAMESPACE, name=NAME, ignored=ignored)
        for subscriber in tuple(self._subscribers):
            with self.log.failuresHandled("a subscriber to the ports failed"):
                subscriber(self.ports)


def ports_informer(
    reactor: IReactorTime, client: ApiClient, insecure_port: int = INSECURE_PORT, needed: Mapping[int, str] = {}
) -> Informer[Ports]:
    """
    An informer on the ConfigMap alone; see :func:`parse_ports`.
    """

    def decode(body: bytes) -> Ports:
        return parse_ports(_decode(body).data or {}, insecure_port, needed)

    return Informer(
        reactor,
        client,
        f"/api/v1/namespaces/{NAMESPACE}/configmaps",
        decode,
        what=f"ConfigMap {NAMESPACE}/{NAME}",
        field_selector=f"metadata.name={NAME}",
    )
