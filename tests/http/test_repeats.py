"""
Requests that come again byte by byte.
"""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tests.http.memory import get, post
from tests.http.test_fuzz import REQUESTS, cut, mutate
from yurt.http.repeats import MAX_REPEATED, MAX_REPEATED_BYTES, Repeats
from yurt.http.request_parser import RequestMessage, RequestParser

ROUNDS = 3000
CONNECTS = (
    b"CONNECT node:10250 HTTP/1.1\r\nHost: node:10250\r\n\r\n",
    b"CONNECT node:10250 HTTP/1.1\r\nHost: node:10250\r\n\r\nbehind",
    b"CONNECT node:10250 HTTP/1.0\r\nHost: node:10250\r\n\r\n",
    b"CONNECT node:10250 HTTP/1.1\r\nHost: node:10250\r\nConnection: close\r\n\r\n",
    b"CONNECT node:10250 HTTP/1.1\r\nHost: node:10250\r\nContent-Length: 4\r\n\r\nbody",
)


def seen(parser: RequestParser[RequestMessage]) -> object:
    """
    All that the owner of a parser may look at.
    """
    flags = ("complete", "upgrade", "keep_alive", "has_body", "expects_continue")
    messages = [(one.head, b"".join(one.chunks), one.trailers, *(getattr(one, flag) for flag in flags)) for one in parser.begun]
    return messages, parser.error, parser.stopped, parser.rest, parser.in_head


class RepeatsTests(SynchronousTestCase):
    """
    A parser that remembers, beside one that does not.
    """

    def setUp(self) -> None:
        self.repeats = Repeats()

    def parser(self, *, takes_connect: bool = False) -> RequestParser[RequestMessage]:
        """
        One that remembers.
        """
        return RequestParser(RequestMessage, takes_connect=takes_connect, repeats=self.repeats)

    def test_told_alike(self) -> None:
        """
        Whatever a client sends, in whatever pieces, a parser that has seen the same before says what one says that has not.
        """
        for seed in range(ROUNDS):
            random = Random(seed)
            takes_connect = seed > ROUNDS // 2
            if seed == ROUNDS // 2:
                self.repeats = Repeats()  # heads are remembered among parsers of one kind
            choice = (*REQUESTS, *CONNECTS * 3) if takes_connect else REQUESTS
            requests = [random.choice(choice) for _ in range(random.randint(1, 5))]
            pieces = [one if random.random() < 0.7 else mutate(random, one) for one in requests]
            if random.random() < 0.5:
                pieces = [piece for one in pieces for piece in cut(random, one)]
            remembering = self.parser(takes_connect=takes_connect)
            plain = RequestParser(RequestMessage, takes_connect=takes_connect)
            for piece in pieces:
                remembering.feed(piece)
                plain.feed(piece)
                self.assertEqual(seen(remembering), seen(plain), (seed, pieces))
                if plain.begun and plain.begun[-1].upgrade and plain.stopped and random.random() < 0.5:  # as when it was refused
                    remembering.restart()
                    plain.restart()

    def test_shared(self) -> None:
        """
        The same bytes on another connection share the head; one byte else, and it is another one.
        """
        heads = []
        for token in (b"Bearer a", b"Bearer a", b"Bearer b"):
            parser = self.parser()
            parser.feed(get(b"/a", b"Authorization: " + token))
            heads.append(parser.begun[0].head)
        self.assertIs(heads[0], heads[1])
        self.assertEqual(heads[2].headers[-1], (b"Authorization", b"Bearer b"))

    def test_connect(self) -> None:
        """
        A CONNECT that came before is known again, and what follows it is none of HTTP.
        """
        for _ in range(2):
            parser = self.parser(takes_connect=True)
            parser.feed(CONNECTS[0])
            parser.feed(b"anything")
            self.assertEqual((parser.stopped, parser.rest, parser.begun[0].upgrade), (True, b"anything", True))
        self.assertIs(self.repeats.find(CONNECTS[0]), parser.begun[0].head)

    def test_inside_another(self) -> None:
        """
        Bytes of a request that came before are no request where another one has begun.
        """
        self.parser().feed(get(b"/inner"))
        for begun in (b"POST /outer HTTP/1.1\r\nHost: a\r\nX: ", post(b"")[:-2] + b"Content-Length: 99\r\n\r\n"):
            for before in (b"", get(b"/before")):
                parser = self.parser()
                parser.feed(before + begun)
                parser.feed(get(b"/inner"))
                self.assertNotIn(b"/inner", [one.head.target for one in parser.begun])

    def test_not_kept(self) -> None:
        """
        What is more or less than one request without a body, on a connection that stays open, is read each time.
        """
        long = get(b"/" + b"a" * MAX_REPEATED_BYTES)
        others = (b"GET /half HTTP/1.1\r\n", get() + get(), get() + b"GE", post(b"a"), get(b"/", b"Connection: close"), long)
        for data in (*others, b"GET / HTTP/1.1\r\n\r\n"):
            self.parser().feed(data)
            self.assertIsNone(self.repeats.find(data), data)

    def test_bounded(self) -> None:
        """
        At most so many are kept, the newest ones.
        """
        parser = self.parser()
        for number in range(MAX_REPEATED + 1):
            parser.feed(get(b"/%d" % number))
        kept = [number for number in range(MAX_REPEATED + 1) if self.repeats.find(get(b"/%d" % number)) is not None]
        self.assertEqual(kept, list(range(1, MAX_REPEATED + 1)))

    def test_memo(self) -> None:
        """
        Only a head that may come again has a memo.
        """
        parser = self.parser()
        parser.feed(get(b"/a"))
        parser.feed(post(b"hello"))
        self.assertEqual([message.head.memo for message in parser.begun], [{}, None])
