"""
Tests for :mod:`yurt.kube.objects`.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from yurt.kube.objects import PARTIAL, TABLE, Meta, ObjectError, is_newer, join_list, read_object, split_list

POD = (
    b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p1","namespace":"default","uid":"2af8d2e6","resourceVersion":"203",'
    b'"creationTimestamp":null,"labels":{"a":"b"}},"spec":{"containers":[{"name":"metadata"}],"new":[1.50,"\\u00e4"]},"status":{}}'
)
ROW = (
    b'{"cells":["cm1",1,"0s"],"object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1",'
    b'"metadata":{"name":"cm1","namespace":"default","uid":"6af86007","resourceVersion":"199"}}}'
)
COLUMNS = b'[{"name":"Name","type":"string","format":"name","description":"a ] b","priority":0}]'


def table(rows: bytes, columns: bytes = COLUMNS) -> bytes:
    """
    A Table as an API server sends it.
    """
    return (
        b'{\n  "kind": "Table",\n  "apiVersion": "meta.k8s.io/v1",\n  "metadata": {"resourceVersion": "203", "continue": "t"},'
        b'\n  "columnDefinitions": %b,\n  "rows": [%b]\n}\n' % (columns, rows)
    )


class ReadObjectTests(SynchronousTestCase):
    """
    Type and identity of one object.
    """

    def test_pod(self) -> None:
        """
        Kind, version and metadata are read, whatever else the object holds.
        """
        head = read_object(POD)
        self.assertEqual((head.kind, head.api_version), ("Pod", "v1"))
        self.assertEqual(head.meta, Meta("default", "p1", "203", "2af8d2e6"))

    def test_cluster_scoped(self) -> None:
        """
        What is absent is empty.
        """
        self.assertEqual(read_object(b'{"metadata":{"name":"n"}}').meta, Meta("", "n", "", ""))
        self.assertEqual(read_object(b"{}").meta, Meta())

    def test_table_of_one(self) -> None:
        """
        A single object asked for as a Table is known by its row.
        """
        head = read_object(table(ROW))
        self.assertEqual((head.kind, head.meta.name, head.meta.resource_version), ("Table", "cm1", "199"))

    def test_no_object(self) -> None:
        """
        Anything but an object is refused with an ObjectError.
        """
        for body in (b"", b"[]", b"null", b"{", b'{"metadata":3}', b'{"kind":"\xff"}', b'{"a":' + b"[" * 100_000):
            self.assertRaises(ObjectError, read_object, body)

    @given(st.binary())
    def test_any_bytes(self, body: bytes) -> None:
        """
        Any other bytes raise nothing else.
        """
        for read in (read_object, split_list):
            try:
                read(body)
            except ObjectError:
                pass


class SplitListTests(SynchronousTestCase):
    """
    Lists come apart without loss.
    """

    def test_typed_list(self) -> None:
        """
        The items of a typed list get the kind and version that the list has for them, in front; the rest of their bytes stays.
        """
        item = POD.replace(b'"kind":"Pod","apiVersion":"v1",', b"")
        body = (
            b'{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"9","continue":"tok","remainingItemCount":3},'
            b'"items":[%b, %b]}\n' % (item, item)
        )
        parts = split_list(body)
        self.assertEqual((parts.kind, parts.api_version, parts.form), ("PodList", "v1", ""))
        self.assertEqual((parts.resource_version, parts.continue_token), ("9", "tok"))
        self.assertEqual(parts.items, [(Meta("default", "p1", "203", "2af8d2e6"), POD)] * 2)

    def test_items_with_a_kind(self) -> None:
        """
        Items that name their kind, as those of custom resources do, stay as they are; an empty item becomes an object.
        """
        item = b'{"apiVersion":"x.io/v1","kind":"Thing","metadata":{"name":"t"}}'
        parts = split_list(b'{"kind":"ThingList","apiVersion":"x.io/v1","items":[%b,{ }]}' % item)
        self.assertEqual([body for _, body in parts.items], [item, b'{"kind":"Thing","apiVersion":"x.io/v1"}'])

    def test_mixed_list(self) -> None:
        """
        A plain List says nothing of its items' kind, so nothing is put in front of them.
        """
        parts = split_list(b'{"kind":"List","apiVersion":"v1","items":[{"metadata":{"name":"x"}}]}')
        self.assertEqual(parts.items, [(Meta("", "x", "", ""), b'{"metadata":{"name":"x"}}')])

    def test_empty_lists(self) -> None:
        """
        An empty list may have null for its items, and no metadata.
        """
        for items in (b"null", b"[]"):
            parts = split_list(b'{"kind":"PodList","apiVersion":"v1","metadata":{},"items":%b}' % items)
            self.assertEqual((parts.items, parts.resource_version), ([], ""))
        self.assertEqual(split_list(b'{"kind":"PodList","apiVersion":"v1","items":[]}').continue_token, "")

    def test_table(self) -> None:
        """
        The items of a Table are its rows, named by the objects in them.
        """
        parts = split_list(table(ROW + b",\n" + ROW))
        self.assertEqual((parts.kind, parts.form, parts.resource_version, parts.continue_token), ("Table", TABLE, "203", "t"))
        self.assertEqual(parts.items, [(Meta("default", "cm1", "199", "6af86007"), ROW)] * 2)
        self.assertEqual(parts.table_columns, COLUMNS)
        self.assertEqual(split_list(table(ROW, b"null")).table_columns, b"")

    def test_table_without_objects(self) -> None:
        """
        Rows that do not say whose they are cannot be kept; a Table without rows can.
        """
        self.assertRaises(ObjectError, split_list, table(b'{"cells":["cm1"],"object":null}'))
        self.assertEqual(split_list(table(b"")).items, [])

    def test_partial(self) -> None:
        """
        A list of metadata only is a form of its own.
        """
        item = b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"a"}}'
        parts = split_list(b'{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","items":[%b]}' % item)
        self.assertEqual((parts.form, parts.items), (PARTIAL, [(Meta("", "a", "", ""), item)]))

    def test_no_list(self) -> None:
        """
        Neither a Status, nor a single object, nor a discovery document is taken for a list.
        """
        for body in (
            b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","code":500}',
            POD,
            b'{"kind":"APIResourceList","apiVersion":"v1","resources":[]}',
            b'{"items":[]}',
            b"[]",
            b'{"kind":"PodList","items":[1]}',
        ):
            self.assertRaises(ObjectError, split_list, body)


class JoinListTests(SynchronousTestCase):
    """
    Lists are put together again.
    """

    def test_round_trip(self) -> None:
        """
        What was joined comes apart into the same items, in every form.
        """
        for kind, version, form, item in (("PodList", "v1", "", POD), ("Table", "meta.k8s.io/v1", TABLE, ROW)):
            for count in (0, 1, 3):
                body = join_list(kind, version, "7", [item] * count, form, COLUMNS if form else b"")
                parts = split_list(body)
                self.assertEqual((parts.kind, parts.api_version, parts.resource_version), (kind, version, "7"))
                self.assertEqual((parts.form, [bytes_ for _, bytes_ in parts.items]), (form, [item] * count))
                self.assertEqual(parts.table_columns, COLUMNS if form else b"")
                json.loads(body)

    json_values: st.SearchStrategy[Any] = st.recursive(
        st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )

    @given(st.lists(json_values, max_size=4), st.booleans())
    def test_unknown_fields_survive(self, values: list[Any], spaced: bool) -> None:
        """
        Whatever an item holds beside its metadata is the same after splitting, in JSON with or without blanks.
        """
        items = [{"metadata": {"name": f"n{number}"}, "spec": value} for number, value in enumerate(values)]
        whole = {"items": items, "kind": "ThingList", "apiVersion": "x/v1"}
        text = json.dumps(whole, indent=2 if spaced else None)
        parts = split_list(text.encode("utf-8", "surrogatepass"))
        typed = [{"kind": "Thing", "apiVersion": "x/v1", **item} for item in items]
        self.assertEqual([json.loads(body) for _, body in parts.items], typed)
        again = join_list(parts.kind, parts.api_version, "", (body for _, body in parts.items))
        self.assertEqual(json.loads(again)["items"], typed)


class NewerTests(SynchronousTestCase):
    """
    The order of resource versions.
    """

    def test_integers(self) -> None:
        """
        Integers are compared by value, however long.
        """
        self.assertTrue(is_newer("10", "9"))
        self.assertFalse(is_newer("9", "10"))
        self.assertFalse(is_newer("010", "10"))
        self.assertTrue(is_newer("1" + "0" * 5000, "9" * 5000))

    def test_others(self) -> None:
        """
        Where the order is unknown, the new one wins.
        """
        for new, old in (("", "5"), ("5", ""), ("x", "5"), ("5", "x"), ("-1", "5"), ("1.5", "2")):
            self.assertTrue(is_newer(new, old))
