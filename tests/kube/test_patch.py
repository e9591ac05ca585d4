"""
Tests for :mod:`yurt.kube.patch`.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from yurt.kube.patch import (
    JSON_PATCH,
    MERGE_PATCH,
    STRATEGIC_MERGE_PATCH,
    PatchError,
    apply_patch,
    join_patches,
    merge_patch,
)

# RFC 7396, appendix A: target, patch, result.
MERGES: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner),
)


class MergePatchTests(SynchronousTestCase):
    """
    JSON merge patches.
    """

    def test_appendix(self) -> None:
        """
        The table of RFC 7396.
        """
        for target, patch, expected in MERGES:
            self.assertEqual(merge_patch(target, patch), expected)

    @given(VALUES, VALUES)
    def test_twice_is_once(self, target: Any, patch: Any) -> None:
        """
        A merge patch applied again changes nothing, and neither argument is changed by it.
        """
        before = copy.deepcopy((target, patch))
        once = merge_patch(target, patch)
        self.assertEqual(merge_patch(once, patch), once)
        self.assertEqual((target, patch), before)


maps = st.recursive(
    st.none() | st.integers(0, 2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3) | st.lists(st.integers(0, 2), max_size=2),
    max_leaves=6,
)
patches = st.dictionaries(st.sampled_from("abc"), maps, max_size=3)


class JoinTests(SynchronousTestCase):
    """
    Two patches made one.
    """

    @given(patches, patches, patches)
    def test_same(self, document: dict[str, Any], first: dict[str, Any], second: dict[str, Any]) -> None:
        """
        Where two patches can be joined, the one does what both do, one after the other.
        """
        for media in (MERGE_PATCH, STRATEGIC_MERGE_PATCH):
            bodies = json.dumps(first).encode(), json.dumps(second).encode()
            joined = join_patches(media, *bodies)
            if joined is not None:
                twice = apply_patch(media, apply_patch(media, document, bodies[0], "Event"), bodies[1], "Event")
                self.assertEqual(apply_patch(media, document, joined, "Event"), twice)

    def test_joined(self) -> None:
        """
        What an event recorder sends is joined; what is removed first and made anew is not, nor are lists, directives and JSON
        patches.
        """
        series = b'{"series":{"count":3,"lastObservedTime":"y"}}'
        first = b'{"count":2,"message":"m"}'
        self.assertEqual(join_patches(STRATEGIC_MERGE_PATCH, first, b'{"count":3}'), b'{"count":3,"message":"m"}')
        self.assertEqual(join_patches(STRATEGIC_MERGE_PATCH, b'{"series":{"count":2}}', series), series)
        self.assertEqual(join_patches(MERGE_PATCH, b'{"a":{"b":1}}', b'{"a":null}'), b'{"a":null}')
        for first, second in (
            (b'{"a":null}', b'{"a":{"b":1}}'),
            (b'{"a":1}', b'{"a":{"b":1}}'),
            (b'{"a":[1]}', b'{"a":[2]}'),
            (b'{"$patch":"replace"}', b'{"a":1}'),
            (b"[]", b"{}"),
            (b"{", b"{}"),
            (b"{}", b"\xff"),
        ):
            self.assertIsNone(join_patches(STRATEGIC_MERGE_PATCH, first, second), (first, second))
        self.assertIsNone(join_patches(JSON_PATCH, b"[]", b"[]"))


class ApplyPatchTests(SynchronousTestCase):
    """
    Patches as a client sends them.
    """

    pod: dict[str, Any] = {"metadata": {"name": "p", "finalizers": ["a"]}, "status": {"phase": "Pending"}}

    def test_types(self) -> None:
        """
        The content type says what the patch means, whatever its case and parameters.
        """
        change = b'{"metadata":{"finalizers":["b"]}}'
        for content_type, finalizers in (
            (MERGE_PATCH, ["b"]),
            (STRATEGIC_MERGE_PATCH, ["b", "a"]),
            ("Application/Strategic-Merge-Patch+JSON; charset=utf-8", ["b", "a"]),
        ):
            patched = apply_patch(content_type, self.pod, change, "Pod")
            self.assertEqual(patched["metadata"], {"name": "p", "finalizers": finalizers})
        patched = apply_patch(JSON_PATCH, self.pod, b'[{"op":"replace","path":"/status/phase","value":"Running"}]', "Pod")
        self.assertEqual(patched["status"], {"phase": "Running"})

    def test_nothing_is_shared(self) -> None:
        """
        What is done to the result does not reach the object that was patched.
        """
        before = copy.deepcopy(self.pod)
        for content_type, change in ((JSON_PATCH, b"[]"), (MERGE_PATCH, b"{}"), (STRATEGIC_MERGE_PATCH, b"{}")):
            patched = apply_patch(content_type, self.pod, change, "Pod")
            self.assertEqual(patched, before)
            patched["metadata"]["finalizers"].append("x")
            self.assertEqual(self.pod, before)

    def test_errors(self) -> None:
        """
        What cannot be applied is a PatchError that names the type of the patch and the kind.
        """
        deep = b'{"a":' * 900 + b"1" + b"}" * 900
        for content_type, change in (
            (JSON_PATCH, b"{}"),
            (JSON_PATCH, b'[{"op":"remove","path":"/x"}]'),
            (JSON_PATCH, b'[{"op":"add","path":"","value":1}]'),
            (MERGE_PATCH, b"[]"),
            (MERGE_PATCH, b"{"),
            (MERGE_PATCH, b"\xff"),
            (MERGE_PATCH, deep * 100),
            (STRATEGIC_MERGE_PATCH, b"[]"),
            (STRATEGIC_MERGE_PATCH, b'{"$patch":"x"}'),
            (STRATEGIC_MERGE_PATCH, deep.replace(b"{", b"[").replace(b"}", b"]")),
            ("application/apply-patch+yaml", b"{}"),
            ("", b"{}"),
        ):
            error = self.assertRaises(PatchError, apply_patch, content_type, self.pod, change, "Pod")
            self.assertIn(content_type, str(error))

    @given(st.binary() | VALUES.map(lambda value: json.dumps(value).encode()))
    def test_any_bytes(self, change: bytes) -> None:
        """
        Any body gives an object or a PatchError.
        """
        for content_type in (JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH):
            try:
                self.assertIsInstance(apply_patch(content_type, self.pod, change, "Pod"), dict)
            except PatchError:
                pass
