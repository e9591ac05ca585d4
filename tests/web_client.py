"""
Ask a twisted.web site in memory.
"""

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.server import Site


def exchange(site: Site, data: bytes, chunk: int = 0) -> tuple[bytes, bool]:
    """
    What ``site`` sends to a connection that brings ``data`` (in pieces of ``chunk`` bytes), and whether it hung up.
    """
    protocol = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 40000))
    assert protocol is not None
    transport = StringTransport()
    protocol.makeConnection(transport)
    step = chunk or len(data)
    for start in range(0, len(data), step):
        if not transport.disconnecting:
            protocol.dataReceived(data[start : start + step])
    answer, closed = transport.value(), transport.disconnecting
    protocol.connectionLost(Failure(ConnectionDone()))
    return answer, closed


def get(site: Site, path: str, *headers: str, method: str = "GET") -> tuple[int, dict[bytes, bytes], bytes]:
    """
    Status, headers (lower case) and body of the answer to one request.
    """
    lines = [f"{method} {path} HTTP/1.1", "Host: admin", "Connection: close", *headers]
    answer, _ = exchange(site, "\r\n".join([*lines, "", ""]).encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.split(b"\r\n")
    pairs = (line.split(b": ", 1) for line in rest)
    return int(first.split()[1]), {name.lower(): value for name, value in pairs}, body
