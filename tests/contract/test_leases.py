"""
The contract for Leases, as elections and the tunnel servers use them.
"""

from __future__ import annotations

from typing import Any

from .subjects import Contract, OnMini, OnReal

MERGE_PATCH = "application/merge-patch+json"
TIME, LATER = "2024-05-06T07:08:09.123456Z", "2024-05-06T07:08:19.654321Z"


class LeaseContract(Contract):
    """
    What holds of Leases.
    """

    async def leases(self) -> str:
        """
        The path of the Leases of a namespace of this test's own.
        """
        core = (await self.namespace()).removeprefix("/api/v1")
        return f"/apis/coordination.k8s.io/v1{core}/leases"

    def lease(self, name: str, **spec: Any) -> dict[str, Any]:
        metadata = {"name": name, "labels": {"some": "label"}, "annotations": {"some": "annotation"}}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}

    async def test_taken_and_released(self) -> None:
        """
        A Lease keeps its times to the microsecond; one without a holder, and with nulls for what is unset, is a Lease as well.
        """
        path = await self.leases()
        spec = {"holderIdentity": "me", "leaseDurationSeconds": 15, "acquireTime": TIME, "renewTime": TIME, "leaseTransitions": 0}
        made = await self.admin.ask("POST", path, self.lease("one", **spec))
        self.assertEqual((made.status, made.json["spec"]), (201, spec))
        spec = {"leaseDurationSeconds": 1, "acquireTime": None, "renewTime": LATER, "leaseTransitions": 0}
        reply = await self.admin.ask("PUT", f"{path}/one", {**made.json, "spec": spec})
        self.assertEqual(reply.status, 200, reply.body)
        self.assertNotIn("holderIdentity", reply.json["spec"])
        self.assertEqual(reply.json["spec"]["renewTime"], LATER)

    async def test_taken_at_the_same_time(self) -> None:
        """
        Of two that take a Lease as they found it the second meets a Conflict; so does the second that creates it.
        """
        path = await self.leases()
        found = (await self.admin.ask("POST", path, self.lease("one", holderIdentity="a", leaseDurationSeconds=15))).json
        self.assertEqual((await self.admin.ask("PUT", f"{path}/one", {**found, "spec": {"holderIdentity": "b"}})).status, 200)
        late = await self.admin.ask("PUT", f"{path}/one", {**found, "spec": {"holderIdentity": "c"}})
        self.assert_status(late, 409, "Conflict", "the object has been modified")
        self.assert_status(await self.admin.ask("POST", path, self.lease("one")), 409, "AlreadyExists")

    async def test_renewed_by_patch(self) -> None:
        """
        A merge patch renews a Lease whatever its resourceVersion; of one that is missing it is Not Found.
        """
        path = await self.leases()
        renewed = self.lease("one", holderIdentity="me", leaseDurationSeconds=30, renewTime=LATER)
        missing = await self.admin.ask("PATCH", f"{path}/one", renewed, content_type=MERGE_PATCH)
        self.assert_status(missing, 404, "NotFound")
        await self.admin.ask("POST", path, self.lease("one", holderIdentity="me", leaseDurationSeconds=30, renewTime=TIME))
        reply = await self.admin.ask("PATCH", f"{path}/one", renewed, content_type=MERGE_PATCH)
        self.assertEqual((reply.status, reply.json["spec"]["renewTime"]), (200, LATER))

    async def test_watched_by_label(self) -> None:
        """
        Leases are watched by their label, and each renewal is an event.
        """
        path = await self.leases()
        await self.admin.ask("POST", path, self.lease("one", holderIdentity="me", renewTime=TIME))
        await self.create(path, "other", labels={"some": "other"}, spec={"holderIdentity": "you"})
        listed = (await self.admin.ask("GET", f"{path}?labelSelector=some%3Dlabel")).json
        self.assertEqual([item["metadata"]["name"] for item in listed["items"]], ["one"])
        version = listed["metadata"]["resourceVersion"]
        stream = await self.admin.watch(f"{path}?watch=true&labelSelector=some%3Dlabel&resourceVersion={version}")
        change = {"spec": {"renewTime": LATER}}
        await self.admin.ask("PATCH", f"{path}/one", change, content_type=MERGE_PATCH)
        await self.admin.ask("DELETE", f"{path}/one")
        events = [await stream.next(), await stream.next()]
        seen = [(event["type"], event["object"]["spec"]["renewTime"]) for event in events if event]
        self.assertEqual(seen, [("MODIFIED", LATER), ("DELETED", LATER)])
        stream.close()

    async def test_deleted_as_seen(self) -> None:
        """
        A deletion that names a resourceVersion hits nothing newer.
        """
        path = await self.leases()
        made = (await self.admin.ask("POST", path, self.lease("one", holderIdentity="me"))).json["metadata"]
        await self.admin.ask("PATCH", f"{path}/one", {"spec": {"renewTime": LATER}}, content_type=MERGE_PATCH)

        def options(version: str) -> dict[str, Any]:
            wanted = {"uid": made["uid"], "resourceVersion": version}
            return {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": wanted}

        stale = await self.admin.ask("DELETE", f"{path}/one", options(made["resourceVersion"]))
        message = f"the ResourceVersion in the precondition ({made['resourceVersion']}) does not match"
        self.assert_status(stale, 409, "Conflict", message)
        current = (await self.admin.ask("GET", f"{path}/one")).json["metadata"]["resourceVersion"]
        self.assertEqual((await self.admin.ask("DELETE", f"{path}/one", options(current))).status, 200)
        self.assertEqual((await self.admin.ask("GET", f"{path}/one")).status, 404)


class MiniLeaseTests(LeaseContract, OnMini):
    """
    On the miniature apiserver.
    """


class RealLeaseTests(LeaseContract, OnReal):
    """
    On the real one.
    """
