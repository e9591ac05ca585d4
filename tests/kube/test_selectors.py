"""
Tests for :mod:`yurt.kube.selectors`.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from yurt.kube.selectors import (
    Requirement,
    SelectorError,
    canonical_field_selector,
    canonical_selector,
    compile_selection,
    parse_field_selector,
    parse_label_selector,
)

# Each was put to kube-apiserver 1.20.2, which took it as written here.
LABEL_SELECTORS = {
    "": "",
    " ": "",
    "a": "a",
    "!a": "!a",
    "! a": "!a",
    "a=b": "a=b",
    "a==b": "a=b",
    " a = b ": "a=b",
    "a!=b": "a!=b",
    "a=": "a=",
    "a=,b": "a=,b",
    "a!=,b": "a!=,b",
    "a=in": "a=in",
    "in in (in)": "in=in",
    "notin notin (notin,in)": "notin notin (in,notin)",
    "a in (c, b,b)": "a in (b,c)",
    "a in ()": "a=",
    "a in (,)": "a=",
    "a in (b,)": "a in (,b)",
    "a in (,b)": "a in (,b)",
    "a in (b,,c)": "a in (,b,c)",
    "a notin (b)": "a!=b",
    "a>1": "a>1",
    "a < 5": "a<5",
    "b,a,b": "a,b",
    "b=c, x.io/a notin (z,y) ,!q": "b=c,!q,x.io/a notin (y,z)",
}
BAD_LABEL_SELECTORS = [
    ",", "a,", ",a", "a,,b", "a b", "a=b c", "!a=b", "!", "=b", "a in", "a in b", "a in (", "a in (b", "a in (b c)",
    "a in (b,,)", "a in (b))", "a is b", "a=b=c", "a>b", "a>", "a<-5", "-a", "a/", "/a", "a/b/c", "a=-b", "a=" + "x" * 64,
    "x" * 64, "ä", "a=ä", "a)", "(a)",
]  # fmt: skip

Labels = dict[str, str] | None
LABELS: list[Labels] = [None, {}, {"a": "b"}, {"a": "c", "n": "7"}, {"a": ""}, {"n": "3"}, {"n": "x"}, {"x.io/y": "z"}]
SELECTED = {
    "": [0, 1, 2, 3, 4, 5, 6, 7],
    "a": [2, 3, 4],
    "!a": [0, 1, 5, 6, 7],
    "a=b": [2],
    "a!=b": [0, 1, 3, 4, 5, 6, 7],
    "a=": [4],
    "a in (b,c)": [2, 3],
    "a notin (b,c)": [0, 1, 4, 5, 6, 7],
    "n>5": [3],
    "n<5": [5],
    "a,n": [3],
    "x.io/y=z": [7],
    "a=b,a=c": [],
}


def selected(label_selector: str, field_selector: str, objects: list[Any], form: str = "") -> list[int]:
    """
    The numbers of those objects that belong to the selection.
    """
    selects = compile_selection(label_selector, field_selector, form)
    return [number for number, item in enumerate(objects) if selects(json.dumps(item).encode())]


class LabelSelectorTests(SynchronousTestCase):
    """
    The grammar of label selectors.
    """

    def test_canonical(self) -> None:
        """
        Selectors that mean the same have one spelling, and that spelling is its own.
        """
        for text, canonical in LABEL_SELECTORS.items():
            self.assertEqual(canonical_selector(text), canonical, text)
            self.assertEqual(canonical_selector(canonical), canonical, text)

    def test_bad(self) -> None:
        """
        What an API server refuses is refused, and keeps its spelling.
        """
        for text in BAD_LABEL_SELECTORS:
            self.assertRaises(SelectorError, parse_label_selector, text)
            self.assertEqual(canonical_selector(f" {text}\t"), text)

    def test_requirements(self) -> None:
        """
        Requirements come in the order written.
        """
        self.assertEqual(parse_label_selector("b in (y,x),a"), (Requirement("b", "in", ("x", "y")), Requirement("a", "exists")))

    @given(st.lists(st.sampled_from([*"ab=!(),<> ", "==", "!=", " in ", "notin", "x.io/y", "7", "-3"]), max_size=9).map("".join))
    def test_canonical_means_the_same(self, text: str) -> None:
        """
        The one spelling selects what the one written selects.
        """
        objects = [{"metadata": {"labels": labels}} for labels in LABELS]
        try:
            expected = selected(text, "", objects)
        except SelectorError:
            return
        self.assertEqual(selected(canonical_selector(text), "", objects), expected)

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """
        Any text is a selector or a SelectorError.
        """
        for parse in (parse_label_selector, parse_field_selector):
            try:
                parse(text)
            except SelectorError:
                pass


class FieldSelectorTests(SynchronousTestCase):
    """
    The grammar of field selectors.
    """

    def test_terms(self) -> None:
        """
        Paths and values are taken as they are, but for escapes.
        """
        self.assertEqual(
            parse_field_selector(r"metadata.name=a b,spec.x!=c\,d\=\\,,y==,"),
            (Requirement("metadata.name", "=", ("a b",)), Requirement("spec.x", "!=", ("c,d=\\",)), Requirement("y", "=", ("",))),
        )

    def test_bad(self) -> None:
        """
        What an API server refuses is refused, and keeps its spelling.
        """
        for text in ("a", "=b", "a=b=c", "a===b", "a!==b", "a=\\", "a=\\b", "a\\,b"):
            self.assertRaises(SelectorError, parse_field_selector, text)
            self.assertEqual(canonical_field_selector(text), text)

    def test_canonical(self) -> None:
        """
        Operators and order have one spelling; blanks stay.
        """
        self.assertEqual(canonical_field_selector(r"b!=1,,a== x\,,b!=1"), r"a= x\,,b!=1")
        self.assertEqual(canonical_field_selector(""), "")


class SelectionTests(SynchronousTestCase):
    """
    Objects in JSON are selected.
    """

    def test_labels(self) -> None:
        """
        Every operator means what it means to Kubernetes, for objects without labels too.
        """
        objects: list[Any] = [{"metadata": {"labels": labels, "name": "x"}, "spec": {}} for labels in LABELS]
        objects[1] = {}
        for text, expected in SELECTED.items():
            self.assertEqual(selected(text, "", objects), expected, text)

    def test_fields(self) -> None:
        """
        A field is any path that the object has; one that it lacks is empty.
        """
        objects = [
            {"metadata": {"name": "a"}, "spec": {"nodeName": "n1", "count": 3, "on": True, "part": 1.5}},
            {"metadata": {"name": "b"}, "spec": {"nodeName": "n2", "count": None, "on": False, "list": [1], "type": {"x": "y"}}},
            {"metadata": {"name": "c"}, "spec": None},
            {"metadata": {"name": "d"}, "spec": "text"},
            {},
        ]
        for text, expected in {
            "spec.nodeName=n1": [0],
            "spec.nodeName!=n1": [1, 2, 3, 4],
            "spec.nodeName=": [2, 3, 4],
            "spec.count=3": [0],
            "spec.count=": [1, 2, 3, 4],
            "spec.on=true": [0],
            "spec.on=false": [1],
            "spec.part=1.5": [0],
            "spec.list=": [0, 1, 2, 3, 4],
            "spec=text": [3],
            "spec=text,spec.nodeName=": [3],
            "spec.type.x=y": [1],
            "spec.type.x=y,spec.type=": [1],
            "metadata.name=a,spec.nodeName=n1": [0],
            "metadata.name!=a,metadata.name!=b": [2, 3, 4],
            "no.such.path!=": [],
        }.items():
            self.assertEqual(selected("", text, objects), expected, text)

    def test_fields_with_another_name(self) -> None:
        """
        The fields whose value API servers do not take from the path of their name, as tried with one.
        """
        node: dict[str, Any] = {"spec": {}}
        cordoned = {"spec": {"unschedulable": True}}
        self.assertEqual(selected("", "spec.unschedulable=false", [node, cordoned]), [0])
        self.assertEqual(selected("", "spec.unschedulable=true", [node, cordoned]), [1])
        self.assertEqual(selected("", "spec.unschedulable=", [node, cordoned]), [])
        self.assertEqual(selected("", "source=kubelet", [{"source": {"component": "kubelet"}}, {}]), [0])

    def test_both(self) -> None:
        """
        Labels and fields must both fit.
        """
        objects = [{"metadata": {"labels": {"a": "b"}, "name": name}} for name in "xy"]
        self.assertEqual(selected("a=b", "metadata.name=y", objects), [1])

    def test_table_rows(self) -> None:
        """
        Rows of a Table are selected by the objects in them.
        """
        rows = [{"cells": [1], "object": {"metadata": {"name": name, "labels": {"a": name}}}} for name in "xy"]
        self.assertEqual(selected("a=x", "", rows, "Table"), [0])
        self.assertEqual(selected("", "metadata.name=y", rows, "Table"), [1])

    def test_odd_keys(self) -> None:
        """
        A path may have any characters, and share its beginnings with other paths.
        """
        item = {"__class__": {"self": "1"}, "a b": {"": "2", "ä": {"c": "3"}}}
        self.assertEqual(selected("", "__class__.self=1,a b.ä.c=3,a b.=2", [item]), [0])

    def test_no_object(self) -> None:
        """
        What is no JSON object is not selected.
        """
        self.assertFalse(compile_selection("a!=b", "")(b'{"metadata":{"labels":{"a":"\xff"}}}'))
        for body in (b"", b"[]", b"{", b'"a"', b'{"a":' + b"[" * 100_000):
            self.assertFalse(compile_selection("a!=b", "")(body))
            self.assertFalse(compile_selection("", "x.y!=b")(body))

    def test_bad_selectors(self) -> None:
        """
        A selector that cannot be read is an error when it is compiled.
        """
        self.assertRaises(SelectorError, compile_selection, "a=b=c", "")
        self.assertRaises(SelectorError, compile_selection, "", "a")
