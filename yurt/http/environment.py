"""
Which proxy the environment asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from yurt.http.address import parse_proxy

DEFAULT_PORTS = {"http": 80, "https": 443}


def proxy_for(url: str, environ: Mapping[str, str]) -> str | None:
    """
    The URL of the proxy for ``url``, or ``None``: HTTPS_PROXY (HTTP_PROXY for plain http) unless NO_PROXY names the
    host.  The lower-case names win, as in curl.  Loopback is never proxied, as in Go.

    A NO_PROXY entry is ``*``, a host name (which stands for its subdomains too; with a leading dot or ``*.`` for these
    alone), an address or a network, and may end in a port.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".").lower()
    port = parts.port or DEFAULT_PORTS.get(parts.scheme, 0)
    name = "https_proxy" if parts.scheme == "https" else "http_proxy"
    proxy = _read(environ, name)
    if not proxy or _is_loopback(host):
        return None
    for entry in _read(environ, "no_proxy").split(","):
        if _covers(entry.strip().lower(), host, port):
            return None
    return proxy if "://" in proxy else "http://" + proxy


def usable_proxy_for(url: str, environ: Mapping[str, str]) -> str | None:
    """
    As :func:`proxy_for`.  Raises ValueError for a proxy that is not spoken to; its URL may hold a password, and is not shown.
    """
    proxy = proxy_for(url, environ)
    try:
        if proxy is not None:
            parse_proxy(proxy)
    except ValueError:
        message = "HTTPS_PROXY of the environment is not understood: write http://HOST:PORT, other schemes are not spoken"
        raise ValueError(message) from None
    return proxy


def _read(environ: Mapping[str, str], name: str) -> str:
    return (environ.get(name) or environ.get(name.upper()) or "").strip()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _covers(entry: str, host: str, port: int) -> bool:
    """
    Whether one entry of NO_PROXY names the host.
    """
    if not entry:
        return False
    if entry == "*":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return _covers_name(entry, host, port)
    name, wanted = _split_port(entry)
    try:
        return address in ip_network(name, strict=False) and wanted in (None, port)
    except ValueError:
        return False


def _covers_name(entry: str, host: str, port: int) -> bool:
    name, wanted = _split_port(entry)
    if wanted not in (None, port):
        return False
    if name.startswith("*."):
        name = name[1:]
    if name.startswith("."):
        return host.endswith(name)
    return host == name or host.endswith("." + name)


def _split_port(entry: str) -> tuple[str, int | None]:
    """
    ``host:port``, ``[v6]:port`` or either alone.
    """
    if entry.startswith("["):
        name, _, rest = entry[1:].partition("]")
        port = rest.removeprefix(":")
    elif entry.count(":") == 1:
        name, _, port = entry.partition(":")
    else:
        return entry, None
    return name, int(port) if port.isdigit() else None
