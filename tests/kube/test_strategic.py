"""
Tests for :mod:`yurt.kube.strategic`.

The order of merged lists is that which kube-apiserver 1.20.2 gave for the same patches.
"""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from yurt.kube.strategic import SHAPES, StrategicPatchError, strategic_merge


def names(items: list[dict[str, Any]]) -> list[str]:
    """
    The names of list items.
    """
    return [item["name"] for item in items]


def secrets(text: str) -> dict[str, Any]:
    """
    A ServiceAccount with secrets of these one-letter names.
    """
    return {"secrets": [{"name": name} for name in text]}


class ListTests(SynchronousTestCase):
    """
    Lists with a merge key, sets, and other lists.
    """

    def merged(self, original: str, patch: dict[str, Any]) -> str:
        """
        The names of the secrets after a patch.
        """
        return "".join(names(strategic_merge(secrets(original), patch, "ServiceAccount")["secrets"]))

    def test_conditions(self) -> None:
        """
        What a kubelet sends: conditions are merged by type, each keeping the fields that the patch leaves out.
        """
        node = {
            "status": {
                "conditions": [
                    {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "m"},
                    {"type": "DiskPressure", "status": "False"},
                ],
                "images": [{"names": ["a"]}, {"names": ["b"]}],
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            }
        }
        patch = {
            "status": {
                "$setElementOrder/conditions": [{"type": "Ready"}, {"type": "DiskPressure"}],
                "conditions": [{"type": "Ready", "status": "False", "message": None}],
                "images": [{"names": ["c"]}],
                "addresses": [{"type": "Hostname", "address": "n"}],
            }
        }
        status = strategic_merge(node, patch, "Node")["status"]
        self.assertEqual(
            status["conditions"],
            [{"type": "Ready", "status": "False", "reason": "KubeletReady"}, {"type": "DiskPressure", "status": "False"}],
        )
        self.assertEqual(status["images"], [{"names": ["c"]}])
        self.assertEqual({item["type"] for item in status["addresses"]}, {"Hostname", "InternalIP"})

    def test_pod_status(self) -> None:
        """
        Container statuses are replaced as a whole, the addresses of a pod merged.
        """
        pod = {"status": {"phase": "Pending", "containerStatuses": [{"name": "a"}, {"name": "b"}], "podIPs": [{"ip": "::1"}]}}
        patch = {"status": {"phase": "Running", "containerStatuses": [{"name": "b"}], "podIPs": [{"ip": "::1"}]}}
        self.assertEqual(strategic_merge(pod, patch, "Pod"), patch)

    def test_nested_lists(self) -> None:
        """
        Lists inside list items are merged too, in pods and in pod templates.
        """
        spec = {"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]}
        patch = {"containers": [{"name": "a", "env": [{"name": "X", "value": "2"}, {"name": "Y", "value": "3"}]}]}
        wanted = [{"name": "X", "value": "2"}, {"name": "Y", "value": "3"}]
        pod = strategic_merge({"spec": spec}, {"spec": patch}, "Pod")
        self.assertEqual(names(pod["spec"]["containers"]), ["a", "b"])
        self.assertEqual(pod["spec"]["containers"][0]["env"], wanted)
        in_template = {"spec": {"template": {"spec": spec}}}
        change = {"spec": {"template": {"spec": patch}}}
        for kind in ("Deployment", "DaemonSet", "StatefulSet", "Job"):
            workload = strategic_merge(in_template, change, kind)
            self.assertEqual(workload["spec"]["template"]["spec"]["containers"][0]["env"], wanted)

    def test_order(self) -> None:
        """
        Items of the patch stand in its order, the others keep their place before them; new ones come first.
        """
        self.assertEqual(self.merged("abc", secrets("c")), "abc")
        self.assertEqual(self.merged("abc", secrets("ca")), "bca")
        self.assertEqual(self.merged("ab", secrets("d")), "dab")
        self.assertEqual(self.merged("ced", secrets("cdba")), "cedba")

    def test_set_order(self) -> None:
        """
        ``$setElementOrder`` orders a list, alone or together with a patch of it.
        """
        order = {"$setElementOrder/secrets": secrets("cab")["secrets"]}
        self.assertEqual(self.merged("abc", order), "cab")
        self.assertEqual(self.merged("ab", {**order, **secrets("c")}), "cab")
        self.assertEqual(strategic_merge({}, order, "ServiceAccount"), {})
        self.assertEqual(strategic_merge({}, {**order, **secrets("ca")}, "ServiceAccount"), secrets("ca"))
        for wrong in (secrets("d"), secrets("ac"), {"secrets": None}, {"secrets": 1}):
            self.assertRaises(StrategicPatchError, strategic_merge, secrets("abc"), {**order, **wrong}, "ServiceAccount")

    def test_directives(self) -> None:
        """
        Items are deleted by their key; a list is replaced on demand.
        """
        self.assertEqual(self.merged("abc", {"secrets": [{"name": "b", "$patch": "delete"}, {"name": "a"}]}), "ac")
        self.assertEqual(self.merged("abc", {"secrets": [{"name": "x"}, {"$patch": "replace"}]}), "x")
        self.assertEqual(self.merged("", {"secrets": [{"name": "x", "$patch": "delete"}, {"name": "y"}]}), "y")
        for item in ({"$patch": "delete"}, {"name": "a", "$patch": "merge"}, {"kind": "x"}, {"name": ["a"]}, "a"):
            self.assertRaises(StrategicPatchError, strategic_merge, secrets("a"), {"secrets": [item]}, "ServiceAccount")

    def test_sets(self) -> None:
        """
        Finalizers are a set: added to, deleted from, and ordered.
        """
        pod = {"metadata": {"finalizers": ["a", "b"]}}
        for patch, expected in (
            ({"finalizers": ["c", "a"]}, ["c", "a", "b"]),
            ({"$deleteFromPrimitiveList/finalizers": ["a", "x"]}, ["b"]),
            ({"finalizers": ["c"], "$setElementOrder/finalizers": ["b", "c", "a"]}, ["b", "c", "a"]),
        ):
            self.assertEqual(strategic_merge(pod, {"metadata": patch}, "Pod")["metadata"]["finalizers"], expected)
        self.assertEqual(strategic_merge({}, {"$deleteFromPrimitiveList/x": ["a"]}, "Pod"), {})


class MapTests(SynchronousTestCase):
    """
    Objects inside the object.
    """

    def test_merge(self) -> None:
        """
        Fields are merged, null removes, and what is new comes without nulls and directives.
        """
        pod = {"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"x": 1}}
        patch = {"metadata": {"labels": {"a": None, "c": "3"}}, "spec": None, "status": {"y": None, "z": [{"q": None}]}}
        merged = strategic_merge(pod, patch, "Pod")
        self.assertEqual(merged, {"metadata": {"labels": {"b": "2", "c": "3"}}, "status": {"z": [{}]}})

    def test_directives(self) -> None:
        """
        An object is replaced or emptied on demand.
        """
        pod = {"metadata": {"labels": {"a": "1"}}}
        for labels, expected in (({"$patch": "replace", "b": "2"}, {"b": "2"}), ({"$patch": "delete"}, {})):
            merged = strategic_merge(pod, {"metadata": {"labels": labels}}, "Pod")
            self.assertEqual(merged["metadata"]["labels"], expected)
        self.assertRaises(StrategicPatchError, strategic_merge, pod, {"metadata": {"$patch": "merge"}}, "Pod")

    def test_retain_keys(self) -> None:
        """
        ``$retainKeys`` drops the fields that it does not name, and must name those that are patched.
        """
        deployment = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
        patch: dict[str, Any] = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
        self.assertEqual(strategic_merge(deployment, patch, "Deployment"), {"spec": {"strategy": {"type": "Recreate"}}})
        for keys in (["rollingUpdate"], "type"):
            patch["spec"]["strategy"]["$retainKeys"] = keys
            self.assertRaises(StrategicPatchError, strategic_merge, deployment, patch, "Deployment")

    def test_unknown_kind(self) -> None:
        """
        Of a kind that is not in the table lists are replaced, but for those that every object has.
        """
        thing = {"metadata": {"finalizers": ["a"]}, "spec": {"containers": [{"name": "a"}]}}
        merged = strategic_merge(thing, {"metadata": {"finalizers": ["b"]}, "spec": {"containers": []}}, "Thing")
        self.assertEqual(merged, {"metadata": {"finalizers": ["b", "a"]}, "spec": {"containers": []}})

    @given(
        st.recursive(
            st.none() | st.sampled_from("ab"),
            lambda inner: st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["secrets", "name", "metadata", "finalizers", "$patch", "$retainKeys", "labels",
                                 "$setElementOrder/secrets", "$deleteFromPrimitiveList/finalizers"]), inner, max_size=4
            ),
        ),
        st.sampled_from(sorted(SHAPES)),
    )  # fmt: skip
    def test_any_patch(self, patch: Any, kind: str) -> None:
        """
        Any patch gives an object or a StrategicPatchError, and neither it nor the original is changed.
        """
        original = {"metadata": {"finalizers": ["a"], "labels": {"name": "x"}}, **secrets("ab")}
        before = copy.deepcopy((original, patch))
        try:
            self.assertIsInstance(strategic_merge(original, patch, kind), dict)
        except StrategicPatchError:
            pass
        self.assertEqual((original, patch), before)
