"""
Tests for :mod:`yurt.kube.jsonpatch`.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from yurt.kube.jsonpatch import MAX_OPERATIONS, JSONPatchError, apply_json_patch, equal

# RFC 6902, appendix A: document, patch, result (None: an error).
APPENDIX: list[tuple[Any, Any, Any]] = [
    ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
    ({"foo": ["bar", "baz"]}, [{"op": "add", "path": "/foo/1", "value": "qux"}], {"foo": ["bar", "qux", "baz"]}),
    ({"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
    ({"foo": ["bar", "qux", "baz"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["bar", "baz"]}),
    ({"baz": "qux", "foo": "bar"}, [{"op": "replace", "path": "/baz", "value": "boo"}], {"baz": "boo", "foo": "bar"}),
    (
        {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
        [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
        {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
    ),
    (
        {"foo": ["all", "grass", "cows", "eat"]},
        [{"op": "move", "from": "/foo/1", "path": "/foo/3"}],
        {"foo": ["all", "cows", "eat", "grass"]},
    ),
    (
        {"baz": "qux", "foo": ["a", 2, "c"]},
        [{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}],
        {"baz": "qux", "foo": ["a", 2, "c"]},
    ),
    ({"baz": "qux"}, [{"op": "test", "path": "/baz", "value": "bar"}], None),
    ({"foo": "bar"}, [{"op": "add", "path": "/child", "value": {"grand": {}}}], {"foo": "bar", "child": {"grand": {}}}),
    ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux", "xyz": 123}], {"foo": "bar", "baz": "qux"}),
    ({"foo": "bar"}, [{"op": "add", "path": "/baz/bat", "value": "qux"}], None),
    ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
    ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": "10"}], None),
    ({"foo": ["bar"]}, [{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}], {"foo": ["bar", ["abc", "def"]]}),
]

MORE: list[tuple[Any, Any, Any]] = [
    ({"a": 1}, [{"op": "add", "path": "/a", "value": 2}], {"a": 2}),
    ({"a": 1}, [{"op": "add", "path": "", "value": {"b": 2}}], {"b": 2}),
    ({"a": {"b": 1}}, [{"op": "copy", "from": "/a", "path": "/c"}, {"op": "add", "path": "/c/d", "value": 2}],
     {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
    ({"a": [1, 2]}, [{"op": "replace", "path": "/a/1", "value": None}], {"a": [1, None]}),
    ({"": 1}, [{"op": "test", "path": "/", "value": 1}], {"": 1}),
    ({"a": {"b": 1}}, [{"op": "move", "from": "/a", "path": "/a"}], {"a": {"b": 1}}),
    ({"a": {"b": 1}}, [{"op": "move", "from": "/a", "path": "/a/b"}], None),
    ({"a": [1]}, [{"op": "add", "path": "/a/2", "value": 0}], None),
    ({"a": [1]}, [{"op": "add", "path": "/a/01", "value": 0}], None),
    ({"a": [1]}, [{"op": "add", "path": "/a/-1", "value": 0}], None),
    ({"a": [1]}, [{"op": "remove", "path": "/a/-"}], None),
    ({"a": [1]}, [{"op": "replace", "path": "/a/1", "value": 0}], None),
    ({"a": 1}, [{"op": "remove", "path": "/b"}], None),
    ({"a": 1}, [{"op": "replace", "path": "/b", "value": 0}], None),
    ({"a": 1}, [{"op": "remove", "path": ""}], None),
    ({"a": 1}, [{"op": "add", "path": "/b"}], None),
    ({"a": 1}, [{"op": "add", "path": "b", "value": 1}], None),
    ({"a": 1}, [{"op": "add", "path": "/~2", "value": 1}], None),
    ({"a": 1}, [{"op": "add", "value": 1}], None),
    ({"a": 1}, [{"op": "copy", "path": "/b"}], None),
    ({"a": 1}, [{"op": "spam", "path": "/a"}], None),
    ({"a": 1}, ["add"], None),
    ({"a": 1}, {}, None),
    ({"a": True}, [{"op": "test", "path": "/a", "value": 1}], None),
    ({"a": 1}, [{"op": "test", "path": "/a", "value": 1.0}], {"a": 1}),
]  # fmt: skip

OPERATION_NAMES = st.sampled_from(["add", "remove", "replace", "move", "copy", "test", "x"])
POINTERS = st.lists(st.sampled_from(["/a", "/b", "/0", "/1", "/-", "/~0"]), max_size=3).map("".join)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner),
)


class JSONPatchTests(SynchronousTestCase):
    """
    JSON patches.
    """

    def test_cases(self) -> None:
        """
        The examples of RFC 6902 and the corners between them.
        """
        for document, patch, expected in APPENDIX + MORE:
            document = copy.deepcopy(document)
            if expected is None:
                self.assertRaises(JSONPatchError, apply_json_patch, document, patch)
            else:
                self.assertTrue(equal(apply_json_patch(document, patch), expected), patch)

    @given(VALUES, st.lists(st.fixed_dictionaries({"op": OPERATION_NAMES, "path": POINTERS, "from": POINTERS, "value": VALUES})))
    def test_any_operations(self, document: Any, operations: list[Any]) -> None:
        """
        Any operations leave JSON, or raise a JSONPatchError and nothing else.
        """
        try:
            result = apply_json_patch(document, operations)
        except JSONPatchError:
            return
        self.assertLessEqual(len(json.dumps(result)), 100_000)

    def test_bounds(self) -> None:
        """
        Neither endless patches nor ones that double the object again and again are applied.
        """
        self.assertRaises(JSONPatchError, apply_json_patch, {}, [{"op": "test", "path": "", "value": {}}] * (MAX_OPERATIONS + 1))
        doubling = [{"op": "copy", "from": "", "path": f"/{number}"} for number in range(40)]
        self.assertRaises(JSONPatchError, apply_json_patch, {"a": "x" * 100}, doubling)
