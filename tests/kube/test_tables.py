"""
Tests of the ages in Tables.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from yurt.kube.tables import human_duration, tell_ages

CREATED = "2026-01-01T00:00:00Z"
CREATED_AT = 1_767_225_600.0
BUILT_IN = {"name": "Age", "type": "string", "format": "", "description": "CreationTimestamp is a timestamp …", "priority": 0}


class DurationTests(SynchronousTestCase):
    """
    Tests of :func:`human_duration`, with the values of apimachinery's own test and the edges beside them.
    """

    def test_words(self) -> None:
        """
        It says what kubectl says.
        """
        minute, hour, day, year = 60, 3600, 86400, 365 * 86400
        for seconds, said in (
            (-2, "<invalid>"),
            (-1.9, "0s"),
            (0, "0s"),
            (1.9, "1s"),
            (119, "119s"),
            (2 * minute, "2m"),
            (2 * minute + 1, "2m1s"),
            (10 * minute - 1, "9m59s"),
            (10 * minute, "10m"),
            (10 * minute + 1, "10m"),
            (3 * hour - 1, "179m"),
            (3 * hour, "3h"),
            (3 * hour + minute, "3h1m"),
            (8 * hour - 1, "7h59m"),
            (8 * hour, "8h"),
            (2 * day - 1, "47h"),
            (2 * day, "2d"),
            (2 * day + hour, "2d1h"),
            (8 * day, "8d"),
            (2 * year - 1, "729d"),
            (2 * year, "2y"),
            (2 * year + day, "2y1d"),
            (8 * year - 1, "7y364d"),
            (8 * year, "8y"),
            (8 * year + 364 * day, "8y"),
        ):
            self.assertEqual(human_duration(seconds), said, seconds)


class AgeTests(SynchronousTestCase):
    """
    Tests of :func:`tell_ages`.
    """

    def table(self, *columns: dict[str, Any], cells: list[Any], metadata: Any) -> dict[str, Any]:
        """
        A Table of one row.
        """
        row = {"cells": cells, "conditions": None, "object": {"kind": "PartialObjectMetadata", "metadata": metadata}}
        columns = ({"name": "Name", "type": "string"}, *columns)
        head = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"x": 1}}
        return {**head, "columnDefinitions": columns, "rows": [row]}

    def test_told(self) -> None:
        """
        Ages go on, of built-in and of custom resources, and nothing else changes.
        """
        for column in (BUILT_IN, {"name": "Age", "type": "date"}):
            table = self.table(column, cells=["a", "5s"], metadata={"name": "a", "creationTimestamp": CREATED})
            told = json.loads(tell_ages(json.dumps(table).encode(), CREATED_AT + 3600 * 5 + 125))
            table["rows"][0]["cells"][1] = "5h2m"
            self.assertEqual(told, json.loads(json.dumps(table)))

    def test_left(self) -> None:
        """
        Other columns, and rows that do not say when, stay as they are; so does what is no Table.
        """
        created = {"name": "a", "creationTimestamp": CREATED}
        for table in (
            self.table({"name": "Last Seen", "type": "string"}, cells=["a", "5s"], metadata=created),
            self.table({"name": "Age", "type": "string", "description": "of the wine"}, cells=["a", "5s"], metadata=created),
            self.table(BUILT_IN, cells=["a", "5s"], metadata={"name": "a"}),
            self.table(BUILT_IN, cells=["a", "5s"], metadata={"creationTimestamp": "yesterday"}),
            self.table(BUILT_IN, cells=["a"], metadata=created),
            {"kind": "Table", "columnDefinitions": [BUILT_IN]},
            {"kind": "Table", "columnDefinitions": [BUILT_IN], "rows": [{"object": None}]},
            {"kind": "Table", "columnDefinitions": 5},
            {"kind": "PodList", "items": []},
        ):
            body = json.dumps(table).encode()
            told = json.loads(tell_ages(body, CREATED_AT + 60))
            self.assertEqual({"rows": [], **told}, {"rows": [], **json.loads(body)})
        self.assertEqual(tell_ages(b"{", 0.0), b"{")
