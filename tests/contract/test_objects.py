"""
The contract for single objects: get, create, update, patch, delete, status.
"""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from yurt.kube.laststate import last_status

from .subjects import Contract, OnMini, OnReal, a_pod

JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)


class ObjectContract(Contract):
    """
    What holds of single objects.
    """

    widgets_served: Any

    async def test_get_of_nothing(self) -> None:
        """
        What does not exist is NotFound, by its group-resource and name.
        """
        space = await self.namespace()
        self.assert_status(
            await self.admin.ask("GET", f"{space}/configmaps/no"),
            404,
            "NotFound",
            'configmaps "no" not found',
            name="no",
            kind="configmaps",
        )
        leases = space.replace("/api/v1", "/apis/coordination.k8s.io/v1") + "/leases/no"
        self.assert_status(
            await self.admin.ask("GET", leases),
            404,
            "NotFound",
            'leases.coordination.k8s.io "no" not found',
            group="coordination.k8s.io",
            kind="leases",
        )

    async def test_create(self) -> None:
        """
        A new object is answered with 201, kind, apiVersion, namespace, uid, creationTimestamp and resourceVersion.
        """
        space = await self.namespace()
        made = await self.create(f"{space}/configmaps", "one", data={"a": "b"})
        self.assertEqual((made["kind"], made["apiVersion"], made["data"]), ("ConfigMap", "v1", {"a": "b"}))
        metadata = made["metadata"]
        self.assertEqual(metadata["namespace"], space.rpartition("/")[2])
        self.assertTrue(metadata["uid"] and int(metadata["resourceVersion"]) and metadata["creationTimestamp"].endswith("Z"))
        self.assertEqual((await self.admin.ask("GET", f"{space}/configmaps/one")).json, made)

    async def test_generated_name(self) -> None:
        """
        generateName gets five characters more.
        """
        space = await self.namespace()
        reply = await self.admin.ask(
            "POST",
            f"{space}/events",
            {
                "metadata": {"generateName": "some-"},
                "involvedObject": {"namespace": space.rpartition("/")[2]},
                "reason": "Testing",
            },
        )
        name = reply.json["metadata"]["name"]
        self.assertEqual((reply.status, name[:5], len(name)), (201, "some-", 10), reply.json)

    async def test_create_again(self) -> None:
        """
        A second creation is refused with AlreadyExists.
        """
        space = await self.namespace()
        await self.create(f"{space}/configmaps", "one")
        reply = await self.admin.ask("POST", f"{space}/configmaps", {"metadata": {"name": "one"}})
        self.assert_status(reply, 409, "AlreadyExists", 'configmaps "one" already exists', name="one", kind="configmaps")

    async def test_create_badly(self) -> None:
        """
        No name, another namespace than the path's, an unknown namespace, another kind, and no JSON are refused, each in its way.
        """
        space = await self.namespace()
        path = f"{space}/configmaps"
        self.assert_status(
            await self.admin.ask("POST", path, {"data": {}}), 422, "Invalid", "name or generateName is required", kind="ConfigMap"
        )
        other = {"metadata": {"name": "x", "namespace": "elsewhere"}}
        self.assert_status(
            await self.admin.ask("POST", path, other), 400, "BadRequest", "the namespace of the provided object does not match"
        )
        nowhere = await self.admin.ask("POST", "/api/v1/namespaces/nowhere/configmaps", {"metadata": {"name": "x"}})
        self.assert_status(nowhere, 404, "NotFound", 'namespaces "nowhere" not found', kind="namespaces", name="nowhere")
        wrong = {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "x"}}
        self.assert_status(await self.admin.ask("POST", path, wrong), 400, "BadRequest", "cannot be handled as a ConfigMap")
        self.assert_status(await self.admin.ask("POST", path, b"{no"), 400, "BadRequest")
        self.assertEqual((await self.admin.ask("POST", path, b"{}", content_type="text/csv")).status, 415)

    async def test_update(self) -> None:
        """
        An update replaces the object and moves its resourceVersion; one that says nothing new does not.
        """
        path = f"{await self.namespace()}/configmaps"
        made = await self.create(path, "one", data={"a": "1"})
        same = await self.admin.ask("PUT", f"{path}/one", made)
        self.assertEqual(same.json["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"])
        changed = await self.admin.ask("PUT", f"{path}/one", {**made, "data": {"b": "2"}})
        self.assertEqual((changed.status, changed.json["data"]), (200, {"b": "2"}))
        self.assertTrue(int(changed.json["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"]))
        self.assertEqual(changed.json["metadata"]["uid"], made["metadata"]["uid"])

    async def test_optimistic_locking(self) -> None:
        """
        An update of an old state is a Conflict; one that names no state goes through where the type allows it.
        """
        space = await self.namespace()
        path = f"{space}/configmaps"
        made = await self.create(path, "one")
        await self.admin.ask("PUT", f"{path}/one", {**made, "data": {"a": "1"}})
        reply = await self.admin.ask("PUT", f"{path}/one", {**made, "data": {"a": "2"}})
        self.assert_status(
            reply, 409, "Conflict", 'Operation cannot be fulfilled on configmaps "one": the object has been modified', name="one"
        )
        free = await self.admin.ask("PUT", f"{path}/one", {"metadata": {"name": "one"}, "data": {"a": "3"}})
        self.assertEqual((free.status, free.json["data"]), (200, {"a": "3"}))

    async def test_update_badly(self) -> None:
        """
        An update under another name is refused, and so is one of an object that does not exist.
        """
        path = f"{await self.namespace()}/configmaps"
        await self.create(path, "one")
        self.assert_status(
            await self.admin.ask("PUT", f"{path}/one", {"metadata": {"name": "two"}}),
            400,
            "BadRequest",
            "does not match the name on the URL",
        )
        self.assert_status(
            await self.admin.ask("PUT", f"{path}/two", {"metadata": {"name": "two"}}),
            404,
            "NotFound",
            'configmaps "two" not found',
        )

    async def test_lease(self) -> None:
        """
        A lease is made by an update, and its next update must name the state that it replaces.
        """
        path = (await self.namespace()).replace("/api/v1", "/apis/coordination.k8s.io/v1") + "/leases"
        lease = {"metadata": {"name": "node"}, "spec": {"holderIdentity": "node", "leaseDurationSeconds": 40}}
        made = await self.admin.ask("PUT", f"{path}/node", lease)
        self.assertEqual((made.status, made.json["kind"]), (201, "Lease"), made.json)
        self.assert_status(await self.admin.ask("PUT", f"{path}/node", lease), 422, "Invalid", "must be specified for an update")
        renewed = {**made.json, "spec": {**lease["spec"], "renewTime": "2030-01-01T00:00:00.000000Z"}}  # type: ignore[dict-item]
        self.assertEqual((await self.admin.ask("PUT", f"{path}/node", renewed)).status, 200)

    async def test_merge_patch(self) -> None:
        """
        A JSON merge patch changes, adds, and removes by null.
        """
        path = f"{await self.namespace()}/configmaps"
        await self.create(path, "one", data={"a": "1", "b": "2"})
        reply = await self.admin.ask("PATCH", f"{path}/one", {"data": {"a": None, "c": "3"}}, content_type=MERGE_PATCH)
        self.assertEqual((reply.status, reply.json["data"]), (200, {"b": "2", "c": "3"}))

    async def test_json_patch(self) -> None:
        """
        A JSON patch is applied in order; a failed test refuses it whole.
        """
        path = f"{await self.namespace()}/configmaps"
        await self.admin.ask("POST", path, {"metadata": {"name": "one", "annotations": {}}, "data": {"a": "1"}})
        operations = [
            {"op": "test", "path": "/data/a", "value": "1"},
            {"op": "add", "path": "/metadata/annotations", "value": {}},
            {"op": "add", "path": "/metadata/annotations/x~1y", "value": "2"},
            {"op": "remove", "path": "/data/a"},
        ]
        reply = await self.admin.ask("PATCH", f"{path}/one", operations, content_type=JSON_PATCH)
        self.assertEqual((reply.status, reply.json["metadata"]["annotations"]), (200, {"x/y": "2"}))
        self.assertEqual(reply.json.get("data") or {}, {})
        failed = await self.admin.ask("PATCH", f"{path}/one", operations, content_type=JSON_PATCH)
        self.assert_status(failed, 422, "Invalid")

    async def test_strategic_merge_patch(self) -> None:
        """
        A strategic merge patch merges lists of objects by their key: a pod's conditions by type.
        """
        path = f"{await self.namespace()}/pods"
        await self.create(path, "one", **a_pod())
        for condition in (
            {"type": "Ready", "status": "False"},
            {"type": "Initialized", "status": "True"},
            {"type": "Ready", "status": "True"},
        ):
            reply = await self.admin.ask(
                "PATCH", f"{path}/one/status", {"status": {"conditions": [condition]}}, content_type=STRATEGIC_PATCH
            )
            self.assertEqual(reply.status, 200, reply.body)
        states = {c["type"]: c["status"] for c in reply.json["status"]["conditions"]}
        self.assertEqual(states, {"Ready": "True", "Initialized": "True"})
        deletion = {"status": {"conditions": [{"type": "Ready", "$patch": "delete"}]}}
        reply = await self.admin.ask("PATCH", f"{path}/one/status", deletion, content_type=STRATEGIC_PATCH)
        self.assertEqual([c["type"] for c in reply.json["status"]["conditions"]], ["Initialized"])

    async def test_patch_badly(self) -> None:
        """
        An unknown kind of patch is an unsupported media type, as strategic ones are for custom resources; bad JSON is
        refused; nothing can be patched that does not exist; a patch that names an old state is a Conflict.
        """
        space = await self.namespace()
        path = f"{space}/configmaps"
        made = await self.create(path, "one")
        self.assert_status(
            await self.admin.ask("PATCH", f"{path}/one", {}, content_type="application/json"), 415, "UnsupportedMediaType"
        )
        broken = await self.admin.ask("PATCH", f"{path}/one", b"{no", content_type=MERGE_PATCH)
        self.assertIn(broken.status, (400, 500))  # 500 up to Kubernetes 1.20
        self.assert_status(await self.admin.ask("PATCH", f"{path}/two", {"data": {}}, content_type=MERGE_PATCH), 404, "NotFound")
        await self.admin.ask("PATCH", f"{path}/one", {"data": {"a": "1"}}, content_type=MERGE_PATCH)
        old = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {"a": "2"}}
        self.assert_status(await self.admin.ask("PATCH", f"{path}/one", old, content_type=MERGE_PATCH), 409, "Conflict")

    async def test_write_of_another_object(self) -> None:
        """
        A patch that names a uid is Invalid for an object that has another one, an update a Conflict.
        """
        path = f"{await self.namespace()}/configmaps"
        uid = (await self.create(path, "one"))["metadata"]["uid"]
        patch = {"metadata": {"uid": uid}, "data": {"a": "1"}}
        self.assertEqual((await self.admin.ask("PATCH", f"{path}/one", patch, content_type=MERGE_PATCH)).status, 200)
        await self.admin.ask("DELETE", f"{path}/one")
        other = (await self.create(path, "one"))["metadata"]["uid"]
        refused = await self.admin.ask("PATCH", f"{path}/one", patch, content_type=MERGE_PATCH)
        self.assert_status(refused, 422, "Invalid")
        self.assertIn(f'metadata.uid: Invalid value: "{uid}": field is immutable', refused.json["message"])
        refused = await self.admin.ask("PUT", f"{path}/one", {"metadata": {"name": "one", "uid": uid}})
        self.assert_status(refused, 409, "Conflict")
        self.assertIn(f"UID in precondition: {uid}, UID in object meta: {other}", refused.json["message"])

    async def test_labels_with_status(self) -> None:
        """
        A patch of a node's status changes its labels and annotations too, but nothing of its spec.
        """
        name = f"node-{uuid4().hex[:8]}"
        made = await self.admin.ask("POST", "/api/v1/nodes", {"metadata": {"name": name, "labels": {"a": "1"}}})
        self.assertEqual(made.status, 201)
        patch = {
            "metadata": {"labels": {"a": None, "b": "2"}, "annotations": {"c": "3"}},
            "spec": {"unschedulable": True},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }
        path = f"/api/v1/nodes/{name}"
        self.assertEqual((await self.admin.ask("PATCH", f"{path}/status", patch, content_type=STRATEGIC_PATCH)).status, 200)
        node = (await self.admin.ask("GET", path)).json
        self.assertEqual(node["metadata"]["labels"], {"b": "2"})
        self.assertEqual(node["metadata"]["annotations"]["c"], "3")
        self.assertNotIn("unschedulable", node.get("spec", {}))
        self.assertEqual(node["status"]["conditions"][0]["type"], "Ready")
        await self.admin.ask("DELETE", path)

    async def test_custom_resource(self) -> None:
        """
        A custom resource is kept as it is and knows no strategic merge.
        """
        await self.widgets_served()
        path = (await self.namespace()).replace("/api/v1", "/apis/example.com/v1") + "/widgets"
        body = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "one"}, "any": {"thing": [1, 2]}}
        made = await self.admin.ask("POST", path, body)
        self.assertEqual((made.status, made.json.get("any")), (201, {"thing": [1, 2]}), made.body)
        self.assert_status(
            await self.admin.ask("PATCH", f"{path}/one", {}, content_type=STRATEGIC_PATCH), 415, "UnsupportedMediaType"
        )
        items = (await self.admin.ask("GET", path)).json["items"]
        self.assertEqual([(item["kind"], item["apiVersion"]) for item in items], [("Widget", "example.com/v1")])

    async def test_status_subresource(self) -> None:
        """
        The status is written through its subresource only, and nothing else is written through that.
        """
        path = f"{await self.namespace()}/pods"
        made = await self.create(path, "one", **a_pod())
        self.assertEqual(made["status"]["phase"], "Pending")
        wanted = {**made, "spec": {**made["spec"], "nodeName": "elsewhere"}, "status": {"phase": "Running"}}
        written = await self.admin.ask("PUT", f"{path}/one/status", wanted)
        self.assertEqual(
            (written.status, written.json["status"]["phase"], written.json["spec"].get("nodeName")), (200, "Running", None)
        )
        changed = {**written.json, "metadata": {**written.json["metadata"], "labels": {"a": "b"}}, "status": {"phase": "Failed"}}
        after = await self.admin.ask("PUT", f"{path}/one", changed)
        self.assertEqual(
            (after.status, after.json["status"]["phase"], after.json["metadata"]["labels"]), (200, "Running", {"a": "b"})
        )
        self.assertEqual((await self.admin.ask("GET", f"{path}/one/status")).json["status"]["phase"], "Running")
        space = path.rpartition("/")[0]
        await self.create(f"{space}/configmaps", "one")
        self.assertEqual((await self.admin.ask("GET", f"{space}/configmaps/one/status")).status, 404)

    async def test_last_status(self) -> None:
        """
        The patch that the hub makes of a last state brings the status from any of these to any other, with an IP that changed,
        with conditions and fields that ended; a condition that somebody else added since stays.
        """
        old: dict[str, Any] = {
            "phase": "Pending",
            "message": "waiting",
            "podIP": "10.0.0.1",
            "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
            "conditions": [
                {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "lastProbeTime": None},
                {"type": "Initialized", "status": "True", "lastProbeTime": None},
            ],
        }
        new: dict[str, Any] = {
            "phase": "Running",
            "podIP": "10.0.0.2",
            "podIPs": [{"ip": "10.0.0.2"}],
            "conditions": [{"type": "Ready", "status": "True", "lastProbeTime": None}],
        }
        states: list[dict[str, Any]] = [{"phase": "Pending"}, old, new]
        path = f"{await self.namespace()}/pods"
        for number, (before, last) in enumerate((before, last) for before in states for last in states):
            made = await self.create(path, f"p{number}", **a_pod())
            del made["status"]
            at = f"{path}/p{number}/status"
            begun = await self.admin.ask("PUT", at, {**made, "status": before})
            self.assertEqual(begun.status, 200, begun.body)
            other = {"type": "Other", "status": "True", "lastProbeTime": None}
            added = {"status": {"conditions": [other]}}
            self.assertEqual((await self.admin.ask("PATCH", at, added, content_type=STRATEGIC_PATCH)).status, 200)
            patch = {"status": last_status("Pod", before, last)}
            reply = await self.admin.ask("PATCH", at, patch, content_type=STRATEGIC_PATCH)
            self.assertEqual(reply.status, 200, reply.body)
            status = {key: value for key, value in reply.json["status"].items() if key != "qosClass"}
            conditions = {one["type"]: one for one in status.pop("conditions")}
            wanted = {one["type"]: one for one in [*last.get("conditions", []), other]}
            self.assertEqual(_bare(conditions), _bare(wanted), (before, last))
            self.assertEqual(status, {key: value for key, value in last.items() if key != "conditions"}, (before, last))

    async def test_delete(self) -> None:
        """
        A deletion is answered with a Success that names what is gone; a second one with NotFound.
        """
        path = f"{await self.namespace()}/configmaps"
        made = await self.create(path, "one")
        reply = await self.admin.ask("DELETE", f"{path}/one")
        self.assertEqual((reply.status, reply.json["kind"], reply.json["status"]), (200, "Status", "Success"))
        self.assertEqual(reply.json["details"], {"name": "one", "kind": "configmaps", "uid": made["metadata"]["uid"]})
        self.assert_status(await self.admin.ask("DELETE", f"{path}/one"), 404, "NotFound")

    async def test_delete_another(self) -> None:
        """
        A deletion that names another uid is a Conflict.
        """
        path = f"{await self.namespace()}/configmaps"
        await self.create(path, "one")
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "another"}}
        self.assert_status(
            await self.admin.ask("DELETE", f"{path}/one", options), 409, "Conflict", "the UID in the precondition (another)"
        )

    async def test_delete_pod_of_a_node(self) -> None:
        """
        A pod of a node is marked first, and goes when its deletion is repeated with no grace.
        """
        path = f"{await self.namespace()}/pods"
        await self.create(path, "one", **a_pod(nodeName="some-node", terminationGracePeriodSeconds=7))
        marked = await self.admin.ask("DELETE", f"{path}/one")
        self.assertEqual(
            (marked.status, marked.json["kind"], marked.json["metadata"]["deletionGracePeriodSeconds"]), (200, "Pod", 7)
        )
        self.assertTrue((await self.admin.ask("GET", f"{path}/one")).json["metadata"]["deletionTimestamp"])
        gone = await self.admin.ask("DELETE", f"{path}/one?gracePeriodSeconds=0")
        self.assertEqual((gone.status, gone.json["kind"]), (200, "Pod"))
        self.assertEqual((await self.admin.ask("GET", f"{path}/one")).status, 404)

    async def test_finalizers(self) -> None:
        """
        An object with finalizers goes when the last of them does.
        """
        path = f"{await self.namespace()}/configmaps"
        await self.admin.ask("POST", path, {"metadata": {"name": "one", "finalizers": ["example.com/wait"]}})
        marked = await self.admin.ask("DELETE", f"{path}/one")
        self.assertEqual((marked.status, marked.json["kind"]), (200, "ConfigMap"))
        self.assertTrue(marked.json["metadata"]["deletionTimestamp"])
        await self.admin.ask("PATCH", f"{path}/one", {"metadata": {"finalizers": None}}, content_type=MERGE_PATCH)
        self.assertEqual((await self.admin.ask("GET", f"{path}/one")).status, 404)

    async def test_delete_collection(self) -> None:
        """
        A deletion of a collection takes what the selector names and leaves the rest.
        """
        path = f"{await self.namespace()}/configmaps"
        await self.create(path, "one", labels={"a": "1"})
        await self.create(path, "two", labels={"a": "2"})
        self.assertEqual((await self.admin.ask("DELETE", f"{path}?labelSelector=a%3D1")).status, 200)
        names = [item["metadata"]["name"] for item in (await self.admin.ask("GET", path)).json["items"]]
        self.assertEqual([n for n in names if n != "kube-root-ca.crt"], ["two"])

    async def test_unknown_methods(self) -> None:
        """
        A method that a resource does not know is not allowed.
        """
        space = await self.namespace()
        await self.create(f"{space}/configmaps", "one")
        self.assertEqual((await self.admin.ask("POST", f"{space}/configmaps/one", {})).status, 405)

    async def test_unknown_fields_of_known_kinds(self) -> None:
        """
        What is stored comes back as one JSON document, ended by a new line.
        """
        space = await self.namespace()
        await self.create(f"{space}/configmaps", "one")
        body = (await self.admin.ask("GET", f"{space}/configmaps/one")).body
        self.assertEqual((json.loads(body)["kind"], body[-1:]), ("ConfigMap", b"\n"))


def _bare(conditions: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """
    Conditions without the times that a server makes null.
    """
    return {name: {key: value for key, value in one.items() if value is not None} for name, one in conditions.items()}


class MiniObjectTests(ObjectContract, OnMini):
    """
    The miniature apiserver keeps the contract.
    """


class RealObjectTests(ObjectContract, OnReal):
    """
    The real one does.
    """
