"""
Promises about the words for what becomes of a dial.
"""

from __future__ import annotations

import errno
from typing import cast

from twisted.internet import error
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from yurt.tunnel.answering import parse_head
from yurt.tunnel.connect import dial_failure


class WordsTests(SynchronousTestCase):
    """
    Tests of the reasons of failed dials.
    """

    def test_reasons(self) -> None:
        """
        Refused, unreachable, timed out, name unknown and no means are told apart.
        """
        for problem, status, word in (
            (error.getConnectError((errno.ECONNREFUSED, "x")), 502, "refused"),
            (error.getConnectError((errno.EHOSTUNREACH, "x")), 502, "unreachable"),
            (error.getConnectError((errno.ENETUNREACH, "x")), 502, "unreachable"),
            (error.getConnectError((errno.ETIMEDOUT, "x")), 504, "timeout"),
            (error.TimeoutError(), 504, "timeout"),
            (error.DNSLookupError("x"), 502, "name-unknown"),
            (error.ConnectBindError(errno.EMFILE, "x"), 503, "exhausted"),
            (error.ConnectError(), 502, "unreachable"),
            (error.ConnectError(string=cast(str, Failure(error.ConnectionDone()))), 502, "unreachable"),  # as tcp.py has it
        ):
            refused = dial_failure(problem, 5.0)
            self.assertEqual((refused.status, refused.word), (status, word), problem)
            self.assertNotIn("\n", refused.message)
            self.assertNotIn("Failure", refused.message)

    def test_heads(self) -> None:
        """
        A head is a start line and fields; blanks around values do not belong to them.
        """
        head = parse_head(b"CONNECT a:1 HTTP/1.1\r\nHost:a:1\r\nX-Y:  z \t")
        self.assertEqual((head.method, head.target), (b"CONNECT", b"a:1"))
        self.assertEqual(head.headers, [(b"Host", b"a:1"), (b"X-Y", b"z")])
