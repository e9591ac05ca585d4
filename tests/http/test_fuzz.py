"""
Broken bytes: never an exception, never a hang.
"""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tests.http.memory import ServerSide, echo, get, post
from tests.http.upstream import OK, Site

ROUNDS = 3000

REQUESTS = [
    get(b"/a?b=c", b"X-Y: z", b"Accept: */*"),
    post(b"hello"),
    post(b"hello", b"Expect: 100-continue"),
    b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nT: u\r\n\r\n",
    get(b"/up", b"Connection: Upgrade", b"Upgrade: websocket") + b"raw",
    post(b"hello", b"Connection: Upgrade", b"Upgrade: h2c"),
    b"GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    get(b"http://a/b", b"Connection: close"),
]
RESPONSES = [
    OK,
    b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: u\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nraw",
]
FRAMING = [b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"]
SPICE = [b"\r", b"\n", b"\r\n", b"\x00", b" ", b":", b"\t", b"0", b"\xff", *FRAMING]


def mutate(random: Random, data: bytes) -> bytes:
    """
    Change, drop, double or insert a few pieces.
    """
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(data) + 1)
        to = min(len(data), at + random.randint(1, 8))
        kind = random.randrange(4)
        if kind == 0:
            data = data[:at] + random.choice(SPICE) + data[at:]
        elif kind == 1:
            data = data[:at] + data[to:]
        elif kind == 2:
            data = data[:at] + data[at:to] + data[at:]
        else:
            data = data[:at] + bytes([random.randrange(256)]) + data[at + 1 :]
    return data


def cut(random: Random, data: bytes) -> list[bytes]:
    """
    Cut into a few pieces.
    """
    cuts = sorted(random.randrange(len(data) + 1) for _ in range(random.randint(0, 3)))
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    return [piece for piece in pieces if piece]


class FuzzTests(SynchronousTestCase):
    """
    Seeded mutations of valid messages.
    """

    def test_requests(self) -> None:
        """
        Whatever a client sends and then ends its direction, the connection closes, after answers to what was whole; and no
        timer stays behind.
        """
        for seed in range(ROUNDS):
            random = Random(seed)
            data = b"".join(mutate(random, random.choice(REQUESTS)) for _ in range(random.randint(1, 3)))
            side = ServerSide(echo)
            for piece in cut(random, data):
                if not (side.wire.aborted or side.wire.disconnecting):
                    side.connection.dataReceived(piece)
            if not side.wire.is_closed:
                side.connection.readConnectionLost()
            self.assertTrue(side.wire.is_closed, (seed, data))
            side.lose()
            self.assertEqual(side.clock.getDelayedCalls(), [], seed)

    def test_responses(self) -> None:
        """
        Whatever a server sends and then closes, the exchange ends exactly once.
        """
        for seed in range(ROUNDS):
            random = Random(seed)
            data = mutate(random, random.choice(RESPONSES))
            site = Site()
            _, receiver = site.send(random.choice([b"GET", b"HEAD", b"POST"]), upgrade=random.random() < 0.5)
            wire = site.accept()
            for piece in cut(random, data):
                if not (wire.aborted or wire.disconnecting):
                    site.receive(piece)
            site.connections[-1].readConnectionLost()
            site.lose()
            ends = [event for event in receiver.events if event in ("finished", "failed", "upgraded")]
            self.assertEqual(len(ends), 1, (seed, data, receiver.events))
