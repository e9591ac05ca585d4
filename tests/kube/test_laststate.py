"""
Tests for :mod:`yurt.kube.laststate`; the contract tests try its patches on a real kube-apiserver.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from yurt.kube.laststate import last_status
from yurt.kube.patch import apply_patch

CONDITIONS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from("ABC")}, optional={"status": st.sampled_from(["True", "False"]), "reason": st.just("Because")}
    ),
    unique_by=lambda one: one["type"],
)
ADDRESSES = st.lists(
    st.fixed_dictionaries({"type": st.sampled_from(["InternalIP", "Hostname"]), "address": st.sampled_from("abc")}), max_size=3
)
QUANTITIES = st.dictionaries(st.sampled_from(["cpu", "memory", "gpu"]), st.sampled_from("123"))
NODE_STATUS = st.fixed_dictionaries(
    {},
    optional={
        "phase": st.sampled_from(["Running", "Pending"]),
        "conditions": CONDITIONS,
        "addresses": ADDRESSES,
        "capacity": QUANTITIES,
        "images": st.lists(st.fixed_dictionaries({"sizeBytes": st.integers(0, 3)}), max_size=2),
    },
)


class LastStatusTests(SynchronousTestCase):
    """
    Tests of the patch that makes a status what it was last.
    """

    @given(NODE_STATUS, NODE_STATUS)
    def test_any_two(self, before: dict[str, Any], last: dict[str, Any]) -> None:
        """
        From any state the patch leads to any other, but for the order of conditions.
        """
        patch = last_status("Node", before, last)
        made = apply_patch("application/strategic-merge-patch+json", {"status": before}, encode({"status": patch}), "Node")
        self.assertEqual(sorted_conditions(made["status"]), sorted_conditions(last))

    def test_new_ip(self) -> None:
        """
        The IPs of a pod are replaced; there is nothing to replace where none were.
        """
        old, new = {"podIPs": [{"ip": "10.0.0.1"}]}, {"podIPs": [{"ip": "10.0.0.2"}]}
        self.assertEqual(last_status("Pod", old, new), {"podIPs": [{"ip": "10.0.0.2"}, {"$patch": "replace"}]})
        self.assertEqual(last_status("Pod", {}, new), new)
        self.assertEqual(last_status("Pod", old, {}), {"podIPs": None})

    def test_ended_condition(self) -> None:
        """
        A condition that ended is deleted by name, and so is a field that a condition no longer has.
        """
        old = {"conditions": [{"type": "A", "reason": "x"}, {"type": "B"}]}
        new = {"conditions": [{"type": "A"}]}
        expected = {"conditions": [{"type": "A", "reason": None}, {"$patch": "delete", "type": "B"}]}
        self.assertEqual(last_status("Pod", old, new), expected)


def encode(document: dict[str, Any]) -> bytes:
    """
    As JSON.
    """
    return json.dumps(document).encode()


def sorted_conditions(status: dict[str, Any]) -> dict[str, Any]:
    """
    A status whose conditions are in the order of their types; none are as good as an empty list of them.
    """
    conditions = sorted(status.get("conditions", []), key=lambda one: str(one["type"]))
    return {**status, "conditions": conditions}
