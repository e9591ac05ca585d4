"""
The contract for lists: selectors, pages, forms.
"""

from __future__ import annotations

import gzip
import json
from typing import Any
from urllib.parse import quote

from .subjects import Contract, OnMini, OnReal, a_pod

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


class ListContract(Contract):
    """
    What holds of lists.
    """

    forget_history: Any

    async def names(self, path: str) -> list[str]:
        """
        The names of the services that are listed.
        """
        reply = await self.admin.ask("GET", path)
        self.assertEqual(reply.status, 200, reply.body)
        return [item["metadata"]["name"] for item in reply.json["items"]]

    async def filled(self, count: int = 5) -> str:
        """
        The path of so many secrets named s0, s1, …, labelled n=0, n=1, …, all with all=yes.
        """
        path = f"{await self.namespace()}/secrets"
        for number in range(count):
            await self.create(
                path, f"s{number}", labels={"n": str(number), "all": "yes"}, type="Opaque" if number % 2 else "example.com/even"
            )
        return path

    async def test_list(self) -> None:
        """
        A list names its kind and version; the items of a built-in type do not name theirs; an empty one has no items.
        """
        path = await self.filled(1)
        document = (await self.admin.ask("GET", path)).json
        self.assertEqual((document["kind"], document["apiVersion"]), ("SecretList", "v1"))
        self.assertTrue(int(document["metadata"]["resourceVersion"]) >= int(document["items"][0]["metadata"]["resourceVersion"]))
        self.assertEqual([(item.get("kind"), item.get("apiVersion")) for item in document["items"]], [(None, None)])
        self.assertEqual((await self.admin.ask("GET", f"{path}?labelSelector=no")).json["items"], [])

    async def test_all_namespaces(self) -> None:
        """
        Without a namespace the objects of all are listed, in the order of namespace and name.
        """
        first, second = await self.filled(1), await self.filled(1)
        found = (await self.admin.ask("GET", "/api/v1/secrets?labelSelector=all%3Dyes")).json["items"]
        places = [f"/api/v1/namespaces/{item['metadata']['namespace']}/secrets" for item in found]
        self.assertTrue({first, second} <= set(places), places)
        self.assertEqual(places, sorted(places))

    async def test_label_selectors(self) -> None:
        """
        Every operator of label selectors.
        """
        path = await self.filled(3)
        await self.create(path, "bare", labels={"other": "x"})
        for selector, expected in {
            "n=1": ["s1"],
            "n==1": ["s1"],
            "n!=1,all": ["s0", "s2"],
            "n!=1": ["bare", "s0", "s2"],
            "n in (0,2)": ["s0", "s2"],
            "n notin (0, 2)": ["bare", "s1"],
            "n": ["s0", "s1", "s2"],
            "!n": ["bare"],
            "all=yes,n in (1)": ["s1"],
            "n>1": ["s2"],
            "n<1": ["s0"],
            "n=": [],
            "other=x": ["bare"],
        }.items():
            self.assertEqual(await self.names(f"{path}?labelSelector={quote(selector)}"), expected, selector)

    async def test_field_selectors(self) -> None:
        """
        Names, namespaces and the fields that a type has, equal and unequal.
        """
        path = await self.filled(3)
        for selector, expected in {
            "metadata.name=s1": ["s1"],
            "metadata.name!=s1": ["s0", "s2"],
            "type=Opaque": ["s1"],
            "type!=Opaque,metadata.name==s0": ["s0"],
            f"metadata.namespace={path.split('/')[4]}": ["s0", "s1", "s2"],
            "metadata.namespace=elsewhere": [],
        }.items():
            self.assertEqual(await self.names(f"{path}?fieldSelector={quote(selector)}"), expected, selector)

    async def test_pods_of_a_node(self) -> None:
        """
        The list that a kubelet asks for.
        """
        path = f"{await self.namespace()}/pods"
        await self.create(path, "here", **a_pod(nodeName="here"))
        await self.create(path, "there", **a_pod(nodeName="there"))
        await self.create(path, "nowhere", **a_pod())
        self.assertEqual(await self.names(f"{path}?fieldSelector=spec.nodeName%3Dhere"), ["here"])
        self.assertEqual(await self.names(f"{path}?fieldSelector=spec.nodeName%3D"), ["nowhere"])
        self.assertEqual(
            await self.names(f"{path}?fieldSelector=status.phase%3DPending,spec.nodeName!%3Dhere"), ["nowhere", "there"]
        )

    async def test_bad_selectors(self) -> None:
        """
        An unknown field and a selector that cannot be read are bad requests.
        """
        path = await self.filled(0)
        reply = await self.admin.ask("GET", f"{path}?fieldSelector=spec.nodeName%3Dx")
        self.assert_status(reply, 400, "BadRequest", "field label not supported: spec.nodeName")
        self.assert_status(await self.admin.ask("GET", f"{path}?labelSelector={quote('a in (b')}"), 400, "BadRequest")
        self.assert_status(await self.admin.ask("GET", f"{path}?fieldSelector=nonsense"), 400, "BadRequest")

    async def test_pages(self) -> None:
        """
        Pages follow each other by their continue tokens, show one state of the collection, and count what remains.
        """
        path = await self.filled(5)
        first = (await self.admin.ask("GET", f"{path}?limit=2")).json
        self.assertEqual(
            ([item["metadata"]["name"] for item in first["items"]], first["metadata"]["remainingItemCount"]), (["s0", "s1"], 3)
        )
        await self.create(path, "s11", labels={})
        second = (await self.admin.ask("GET", f"{path}?limit=2&continue={quote(first['metadata']['continue'])}")).json
        third = (await self.admin.ask("GET", f"{path}?limit=2&continue={quote(second['metadata']['continue'])}")).json
        self.assertEqual([item["metadata"]["name"] for item in second["items"] + third["items"]], ["s2", "s3", "s4"])
        self.assertEqual(
            {page["metadata"]["resourceVersion"] for page in (first, second, third)}, {first["metadata"]["resourceVersion"]}
        )
        self.assertNotIn("continue", third["metadata"])
        selected = (await self.admin.ask("GET", f"{path}?limit=2&labelSelector=all%3Dyes")).json
        self.assertNotIn("remainingItemCount", selected["metadata"])
        self.assertTrue(selected["metadata"]["continue"])

    async def test_pages_of_the_past(self) -> None:
        """
        A token of a state that is forgotten has expired; the answer brings one that goes on in the present.  One that is none
        is a bad request.
        """
        path = await self.filled(3)
        first = (await self.admin.ask("GET", f"{path}?limit=1")).json
        await self.create(path, "more")
        await self.forget_history()
        reply = await self.admin.ask("GET", f"{path}?limit=1&continue={quote(first['metadata']['continue'])}")
        self.assert_status(
            reply, 410, "Expired", "The provided continue parameter is too old to display a consistent list result"
        )
        self.assertTrue(reply.json["metadata"]["continue"])
        on = (await self.admin.ask("GET", f"{path}?continue={quote(reply.json['metadata']['continue'])}")).json
        self.assertEqual([item["metadata"]["name"] for item in on["items"]], ["s1", "s2"])
        self.assert_status(
            await self.admin.ask("GET", f"{path}?limit=1&continue=nonsense"), 400, "BadRequest", "continue key is not valid"
        )

    async def test_version_of_the_future(self) -> None:
        """
        A resourceVersion that is not reached yet ends in a Timeout; one that is no number is refused.
        """
        path = await self.filled(1)
        future = int((await self.admin.ask("GET", path)).json["metadata"]["resourceVersion"]) + 1_000_000
        self.assert_status(
            await self.admin.ask("GET", f"{path}?resourceVersion={future}"), 504, "Timeout", "Too large resource version"
        )
        self.assertIn((await self.admin.ask("GET", f"{path}?resourceVersion=x")).status, (400, 422, 500))

    async def test_any_version(self) -> None:
        """
        resourceVersion=0 lets a list be answered from the server's cache, which knows no pages
        and no order.
        """
        path = await self.filled(3)
        rv = (await self.admin.ask("GET", path)).json["metadata"]["resourceVersion"]
        for query in (f"resourceVersion={rv}", "resourceVersion=0&limit=1"):
            self.assertEqual(sorted(await self.names(f"{path}?{query}")), ["s0", "s1", "s2"], query)

    async def test_table(self) -> None:
        """
        Table: columns once, a row for each object, with its metadata, or with what includeObject says.
        """
        path = await self.filled(2)
        table = (await self.admin.ask("GET", path, accept=TABLE)).json
        self.assertEqual((table["kind"], table["apiVersion"]), ("Table", "meta.k8s.io/v1"))
        self.assertEqual((table["columnDefinitions"][0]["name"], table["rows"][1]["cells"][0]), ("Name", "s1"))
        self.assertTrue(table["metadata"]["resourceVersion"])
        row = table["rows"][0]["object"]
        self.assertEqual(
            (row["kind"], row["apiVersion"], row["metadata"]["name"], "data" in row),
            ("PartialObjectMetadata", "meta.k8s.io/v1", "s0", False),
        )
        whole = (await self.admin.ask("GET", f"{path}?includeObject=Object", accept=TABLE)).json["rows"][0]["object"]
        self.assertEqual((whole["kind"], whole["type"]), ("Secret", "example.com/even"))
        none = (await self.admin.ask("GET", f"{path}?includeObject=None", accept=TABLE)).json["rows"][0]
        self.assertEqual(none.get("object"), None)
        one = (await self.admin.ask("GET", f"{path}/s1", accept=TABLE)).json
        self.assertEqual((one["kind"], len(one["rows"])), ("Table", 1))

    async def test_partial_metadata(self) -> None:
        """
        PartialObjectMetadata: metadata and nothing else, of one object and of a list.
        """
        path = await self.filled(2)
        one = (await self.admin.ask("GET", f"{path}/s1", accept=PARTIAL)).json
        self.assertEqual(
            (one["kind"], one["apiVersion"], one["metadata"]["name"], "type" in one),
            ("PartialObjectMetadata", "meta.k8s.io/v1", "s1", False),
        )
        document = (await self.admin.ask("GET", path, accept=PARTIAL_LIST)).json
        self.assertEqual((document["kind"], document["apiVersion"]), ("PartialObjectMetadataList", "meta.k8s.io/v1"))
        self.assertEqual([set(item) - {"kind", "apiVersion"} for item in document["items"]], [{"metadata"}, {"metadata"}])

    async def test_not_acceptable(self) -> None:
        """
        A form that nobody knows is not acceptable.
        """
        path = await self.filled(1)
        self.assert_status(await self.admin.ask("GET", path, accept="text/csv"), 406, "NotAcceptable")
        self.assertEqual((await self.admin.ask("GET", path, accept="text/csv, */*")).json["kind"], "SecretList")

    async def test_compression(self) -> None:
        """
        Long answers are compressed for those who like it; short ones are not.
        """
        path = f"{await self.namespace()}/configmaps"
        await self.create(path, "big", data={"content": "x" * 200_000})
        reply = await self.admin.ask("GET", f"{path}/big", accept_encoding="gzip")
        self.assertEqual(reply.headers.getRawHeaders("content-encoding"), ["gzip"])
        self.assertEqual(len(json.loads(gzip.decompress(reply.body))["data"]["content"]), 200_000)
        await self.create(path, "small")
        self.assertEqual((await self.admin.ask("GET", f"{path}/small", accept_encoding="gzip")).json["kind"], "ConfigMap")


class MiniListTests(ListContract, OnMini):
    """
    The miniature apiserver keeps the contract.
    """


class RealListTests(ListContract, OnReal):
    """
    The real one does.
    """
