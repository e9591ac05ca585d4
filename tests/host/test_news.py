"""
Tests of :mod:`yurt.host.news`, with news that the test makes; :mod:`tests.kernel.test_redirect` has those of the kernel.
"""

from __future__ import annotations

import errno
import socket
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

import yurt.host.news as news_module
from yurt.host.firewall import Family
from yurt.host.news import LOOK, RuleNews


class Netlink:
    """
    A socket with messages, of which some may have been lost.
    """

    def __init__(self, *refusal: OSError) -> None:
        self.refusal = refusal
        self.messages: list[bytes | OSError] = []
        self.closed = False

    def bind(self, address: object) -> None:
        for error in self.refusal:
            raise error

    def setsockopt(self, *what: int) -> None:
        pass

    def recv(self, size: int) -> bytes:
        message = self.messages.pop(0) if self.messages else BlockingIOError()
        if isinstance(message, OSError):
            raise message
        return message

    def close(self) -> None:
        self.closed = True


class NewsTests(SynchronousTestCase):
    """
    Tests of RuleNews.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.readers: set[object] = set()
        reactor = cast(Any, self.clock)
        reactor.addReader, reactor.removeReader = self.readers.add, self.readers.remove
        self.netlink = Netlink()
        self.patch(socket, "socket", lambda *what: self.netlink)
        self.sizes = {"ipv4": 0, "ipv6": 0}
        self.patch(news_module, "output_bytes", self.look)
        self.looks = self.heard = self.losses = 0
        self.news = RuleNews(reactor, "TUNNEL-PORT", self.hear)

    def look(self, family: Family) -> int:
        """
        As the test says.
        """
        self.looks += 1
        return self.sizes[family]

    def hear(self, lost: bool) -> None:
        """
        There is news.
        """
        self.heard += 1
        self.losses += lost

    def test_ours(self) -> None:
        """
        Messages that name one of our chains are news, and so are those of rules in OUTPUT of table nat, before which ours must
        stand; others are not, as those of kube-proxy.
        """
        self.news.start()
        output = b"\x0b\0\x02\0OUTPUT\0\0"
        self.netlink.messages += [b"KUBE-SERVICES\0", b"\x0b\0\x01\0filter\0\0" + output, b"OUTPUT\0TUNNEL-PORT-10250\0"]
        self.news.doRead()
        self.assertEqual((self.heard, self.netlink.messages), (1, []))
        self.netlink.messages.append(b"\x08\0\x01\0nat\0" + output)
        self.news.doRead()
        self.assertEqual((self.heard, self.losses), (2, 0))

    def test_lost(self) -> None:
        """
        That messages were lost is news of another kind, and no end of what is heard.
        """
        self.news.start()
        self.netlink.messages += [OSError(errno.ENOBUFS, ""), b"TUNNEL-PORT\0"]
        self.news.doRead()
        self.assertEqual((self.heard, self.losses), (2, 1))
        self.netlink.messages += [OSError(errno.ENOBUFS, ""), b"TUNNEL-PORT\0"]
        self.news.follow("nft")
        self.news.doRead()
        self.assertEqual(self.heard, 2)

    def test_forgotten(self) -> None:
        """
        What has come before is none any more.
        """
        self.news.start()
        self.netlink.messages += [b"TUNNEL-PORT\0"] * 3
        self.news.follow("nft")
        self.news.doRead()
        self.clock.advance(LOOK)
        self.assertEqual((self.heard, self.looks), (0, 0))

    def test_legacy(self) -> None:
        """
        Where the rules are in the legacy tables, these are looked at, for either family, and only there.
        """
        self.news.start()
        self.news.follow("legacy")
        self.clock.pump([LOOK] * 3)
        self.assertEqual(self.heard, 0)
        for family in self.sizes:
            self.sizes[family] = 160
            self.clock.pump([LOOK] * 2)
        self.assertEqual(self.heard, 2)
        self.sizes["ipv4"] = 320
        self.news.follow("legacy")
        self.clock.pump([LOOK] * 2)
        self.assertEqual(self.heard, 2)

    def test_stop(self) -> None:
        """
        Nothing is left after the end.
        """
        self.news.start()
        self.assertEqual(self.readers, {self.news})
        self.news.follow("legacy")
        self.news.stop()
        self.assertEqual((self.readers, self.netlink.closed, self.clock.getDelayedCalls()), (set(), True, []))

    def test_not_allowed(self) -> None:
        """
        Without the right to hear of it there is no news, and no failure.
        """
        self.netlink = Netlink(PermissionError(errno.EPERM, "Operation not permitted"))
        self.news.start()
        self.assertEqual((self.readers, self.netlink.closed), (set(), True))
        self.news.follow(None)
        self.news.stop()
