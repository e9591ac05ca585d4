"""
Where servers and proxies are.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Address:
    """
    Where a server is.  ``base`` is the path that all its paths begin with: servers behind a gateway have one.
    """

    scheme: str
    host: str
    port: int
    base: str = ""

    @property
    def authority(self) -> str:
        """
        Host and port as they stand in a ``Host`` header; the default port is left out.
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"

    @property
    def target(self) -> str:
        """
        Host and port as a CONNECT request names them.
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(url: str) -> Address:
    """
    The address in a URL.  Raises ``ValueError`` with a one-line reason; never shows user information of the URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError("the URL of a server begins with http:// or https://")
    if not parts.hostname:
        raise ValueError("the URL of a server names a host")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return Address(parts.scheme, parts.hostname, port, parts.path.rstrip("/"))


def parse_proxy(url: str) -> Address:
    """
    The address of an HTTP proxy.  Raises ``ValueError`` with a one-line reason.
    """
    address = parse_address(url)
    if address.scheme != "http":
        raise ValueError("only http:// proxies are spoken to")
    return address
