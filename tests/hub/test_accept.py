"""
Tests of what an Accept header welcomes.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from yurt.http.interfaces import RequestHead
from yurt.hub import accept as accept_module
from yurt.hub.accept import is_json, narrow, read_accept

PROTOBUF = b"application/vnd.kubernetes.protobuf"
TABLE = b"application/json;as=Table;v=v1;g=meta.k8s.io"


class ReadAcceptTests(SynchronousTestCase):
    """
    Tests of read_accept.
    """

    def test_plain(self) -> None:
        """
        JSON in all its spellings, and nothing at all, welcome plain objects.
        """
        for value in (
            None,
            b"",
            b" ",
            b"application/json",
            b"*/*",
            b"application/*",
            b"Application/JSON",
            b"application/json;q=0.9",
        ):
            accept = read_accept(value)
            self.assertEqual((accept.json, accept.forms), (True, ("",)), value)

    def test_long(self) -> None:
        """
        A value longer than any sensible one is read like others, but takes no place among those remembered.
        """
        before = accept_module._remembered.cache_info().currsize
        self.assertEqual(read_accept(b"x/y," * 200 + b"application/json").forms, ("",))
        self.assertEqual(accept_module._remembered.cache_info().currsize, before)

    def test_narrowed(self) -> None:
        """
        The cloud is asked for JSON only, in the order of the client, with the parameters that say in which form.
        """
        for value, forms, narrowed in (
            (PROTOBUF + b",application/json", ("",), b"application/json"),
            (PROTOBUF + b", */*", ("",), b"application/json"),
            (b"application/json, */*", ("",), b"application/json"),
            (TABLE + b"," + TABLE.replace(b"v1", b"v1beta1") + b",application/json", ("Table", ""), None),
            (
                b"application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,"
                b"application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
                ("PartialObjectMetadata", ""),
                b"application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
            ),
        ):
            accept = read_accept(value)
            self.assertEqual((accept.json, accept.forms), (True, forms), value)
            self.assertEqual(accept.narrowed, value if narrowed is None else narrowed)

    def test_no_json(self) -> None:
        """
        Who takes no JSON is not asked to.
        """
        for value in (
            PROTOBUF,
            b"text/html",
            b"application/json;q=0",
            b"application/yaml",
            b";",
            b",",
            b"application/json;q=0.000",
        ):
            self.assertFalse(read_accept(value).json, value)

    def test_watch_of_protobuf(self) -> None:
        """
        ``stream=watch`` is no hindrance, another stream is.
        """
        self.assertTrue(read_accept(b"application/json;stream=watch").json)
        self.assertFalse(read_accept(b"application/json;stream=other").json)


class IsJSONTests(SynchronousTestCase):
    """
    Tests of is_json.
    """

    def test_types(self) -> None:
        """
        JSON with any parameters, and nothing else.
        """
        for value in (b"application/json", b"application/json; charset=utf-8", b"Application/JSON;x"):
            self.assertTrue(is_json(value))
        for other in (None, b"", b"text/html", PROTOBUF, b"application/json-patch+json"):
            self.assertFalse(is_json(other))


class NarrowTests(SynchronousTestCase):
    """
    Tests of narrow.
    """

    HEADERS = [(b"Accept", b"*/*"), (b"Accept-Encoding", b"gzip"), (b"X", b"1"), (b"accept", b"text/html")]

    def test_replaced(self) -> None:
        """
        The one Accept takes the place of all that the client sent; the head itself, which others share, stays as it is.
        """
        head = RequestHead(b"GET", b"/api", list(self.HEADERS))
        asked = narrow(head, b"application/json")
        self.assertEqual(asked.headers, [(b"Accept-Encoding", b"gzip"), (b"X", b"1"), (b"Accept", b"application/json")])
        asked = narrow(head, b"application/json", plain=True)
        self.assertEqual(asked.headers, [(b"X", b"1"), (b"Accept", b"application/json")])
        self.assertEqual(head.headers, self.HEADERS)

    def test_remembered(self) -> None:
        """
        What is made of a head that may come again is made once for each Accept and encoding.
        """
        head = RequestHead(b"GET", b"/api", list(self.HEADERS), memo={})
        first = narrow(head, b"application/json")
        self.assertIs(narrow(head, b"application/json"), first)
        self.assertIsNot(narrow(head, b"application/json", plain=True), first)
        self.assertIsNot(narrow(head, TABLE), first)
