"""
Tests of lists that the cache has and must not answer with: too old for who asks, poorer than asked for, or of a resource that is
no more.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import MAPS, MemorySite, config_map, open_watch
from yurt.http.interfaces import Headers
from yurt.hub.reads import SETTLED_AFTER
from yurt.kube.status import status_body

WIDGETS = "/apis/example.com/v1/namespaces/default/widgets"
PLAIN: Headers = [(b"Content-Type", b"text/plain; charset=utf-8")]
FLOW_SCHEMA = (b"X-Kubernetes-Pf-Flowschema-Uid", b"f9f237e6")
AUDIT = (b"Audit-Id", b"5d0f")
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


def widget(name: str = "w", version: int = 5) -> dict[str, Any]:
    """
    An object of a custom resource.
    """
    metadata = {"name": name, "namespace": "default", "resourceVersion": str(version)}
    return {"kind": "Widget", "apiVersion": "example.com/v1", "metadata": metadata}


class VersionTests(SynchronousTestCase):
    """
    Who asks for a state at least so new.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()
        self.site.store_list(MAPS, [config_map("a", 5)], "10")
        self.site.offline()

    def test_newer(self) -> None:
        """
        gets no older one, but the 504 of an API server that is behind, at once: client-go then lists without that demand.
        """
        for query in ("resourceVersion=11", "resourceVersion=99999&resourceVersionMatch=NotOlderThan"):
            reply = self.site.fetch("GET", f"{MAPS}?{query}")
            self.assertEqual((reply.status, reply.json["reason"], reply.header("retry-after")), (504, "Timeout", ""))
            self.assertIn("Too large resource version: ", reply.json["message"])
            self.assertIn("current: 10", reply.json["message"])
            self.assertEqual([cause["reason"] for cause in reply.json["details"]["causes"]], ["ResourceVersionTooLarge"])
            self.assertEqual(reply.header("x-yurt-source"), "hub")

    def test_not_newer(self) -> None:
        """
        Any state, or one that is not newer than the cache's, is had.
        """
        for query in ("", "resourceVersion=", "resourceVersion=0", "resourceVersion=10", "resourceVersion=9"):
            self.assertEqual(self.site.fetch("GET", f"{MAPS}?{query}").status, 200, query)

    def test_after_events(self) -> None:
        """
        What a watch has told counts.
        """
        self.site.online()
        _, exchange = open_watch(self.site)
        exchange.send(
            b'{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"20"}}}\n'
        )
        self.site.offline()
        self.assertEqual(self.site.fetch("GET", f"{MAPS}?resourceVersion=20").status, 200)
        self.assertEqual(self.site.fetch("GET", f"{MAPS}?resourceVersion=21").status, 504)

    def test_watch(self) -> None:
        """
        A watch that begins with a state at least so new is answered likewise; one that goes on from a version is held.
        """
        initial = f"{MAPS}?watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
        reply = self.site.fetch("GET", f"{initial}&resourceVersion=11")
        self.assertEqual((reply.status, reply.json["details"]["causes"][0]["reason"]), (504, "ResourceVersionTooLarge"))
        for query in ("", "&resourceVersion=", "&resourceVersion=0", "&resourceVersion=10"):
            told = self.site.ask("GET", initial + query)
            self.assertEqual([event["type"] for event in told.events], ["ADDED", "BOOKMARK"], query)
        self.assertEqual(self.site.ask("GET", f"{MAPS}?watch=true&resourceVersion=11").status, 200)

    def test_newer_in_another_form(self) -> None:
        """
        The form that is new enough is taken.
        """
        self.site.online()
        request = self.site.ask("GET", MAPS, accept=TABLE)
        table = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": "8"}, "columnDefinitions": []}
        self.site.arriving(MAPS).answer(200, {**table, "rows": []})
        self.assertTrue(request.finished)
        self.site.offline()
        for version, kind in (("8", "Table"), ("9", "ConfigMapList")):
            self.assertEqual(self.site.fetch("GET", f"{MAPS}?resourceVersion={version}", accept=TABLE).json["kind"], kind)


class RowTests(SynchronousTestCase):
    """
    Who asks for a Table with whole objects in its rows.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()

    def store_table(self, query: str, row_object: dict[str, Any]) -> None:
        """
        Let kubelet list a Table of one row.
        """
        self.site.ask("GET", MAPS + query, accept=TABLE)
        table: dict[str, Any] = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": "10"}}
        table |= {"columnDefinitions": [{"name": "Name", "type": "string"}], "rows": [{"cells": ["a"], "object": row_object}]}
        self.site.arriving(MAPS).answer(200, table)

    def test_metadata_only(self) -> None:
        """
        does not get one with metadata only, which kubectl would take for no objects at all where it sorts by another field: the
        objects, if the cache has them, else 503 that says so.
        """
        partial = {**config_map("a", 5), "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
        self.store_table("", partial)
        self.site.offline()
        wanted = f"{MAPS}?includeObject=Object"
        self.assertEqual(self.site.fetch("GET", MAPS, accept=TABLE).json["kind"], "Table")
        refused = self.site.fetch("GET", wanted, accept=TABLE)
        self.assertEqual(refused.status, 503)
        self.assertIn("only the metadata of these objects", refused.json["message"])
        self.site.online()
        self.site.store_list(MAPS, [config_map("a", 5)], "10")
        self.site.offline()
        self.assertEqual(self.site.fetch("GET", wanted, accept=TABLE).json["kind"], "ConfigMapList")

    def test_whole_objects(self) -> None:
        """
        gets it where the rows came so.
        """
        self.store_table("?includeObject=Object", config_map("a", 5))
        self.site.offline()
        reply = self.site.fetch("GET", f"{MAPS}?includeObject=Object", accept=TABLE)
        self.assertEqual(reply.json["rows"][0]["object"]["kind"], "ConfigMap")


class UnservedTests(SynchronousTestCase):
    """
    A CustomResourceDefinition is deleted.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()
        self.site.run(SETTLED_AFTER + 1)
        self.store_widgets()

    def store_widgets(self) -> None:
        """
        Let kubelet list them, and get one.
        """
        self.site.ask("GET", WIDGETS)
        body = {"kind": "WidgetList", "apiVersion": "example.com/v1", "metadata": {"resourceVersion": "10"}, "items": [widget()]}
        self.site.arriving(WIDGETS).answer(200, body)
        self.site.ask("GET", f"{WIDGETS}/w")
        self.site.arriving(f"{WIDGETS}/w").answer(200, widget())

    def is_kept(self, status: int, body: bytes, headers: Headers, path: str = WIDGETS) -> bool:
        """
        Whether the cache holds the list, and the object, after such an answer of the cloud.
        """
        request = self.site.ask("GET", path)
        self.site.arriving(path).answer(status, body, headers)
        self.assertEqual((request.status, request.data), (status, body))
        self.site.offline()
        found = {self.site.fetch("GET", one).status for one in (WIDGETS, f"{WIDGETS}/w")}
        self.site.online()
        self.assertEqual(len(found), 1)
        return found == {200}

    def test_gone(self) -> None:
        """
        After the API server has said that it serves no such resource, the cache does not show it any more.
        """
        for headers in ([*PLAIN, FLOW_SCHEMA], [*PLAIN, AUDIT]):
            self.assertFalse(self.is_kept(404, b"404 page not found\n", headers))
            self.site.run(SETTLED_AFTER + 1)
            self.store_widgets()
        named = status_body(404, "NotFound", "the server could not find the requested resource")
        self.assertFalse(self.is_kept(404, named, [(b"Content-Type", b"application/json"), AUDIT]))

    def test_told_by_an_object(self) -> None:
        """
        A single read hears of it, too.
        """
        self.assertFalse(self.is_kept(404, b"404 page not found\n", [*PLAIN, AUDIT], f"{WIDGETS}/w"))

    def test_somebody_else(self) -> None:
        """
        A proxy's or a load balancer's 404 is none of an API server.
        """
        self.assertTrue(self.is_kept(404, b"404 page not found\n", PLAIN))
        self.assertTrue(self.is_kept(404, b"<html>", [(b"Content-Type", b"text/html")]))

    def test_just_started(self) -> None:
        """
        An API server that has just come back may not know its custom resources yet.
        """
        self.site.offline()
        self.site.online()
        self.assertTrue(self.is_kept(404, b"404 page not found\n", [*PLAIN, AUDIT]))

    def test_core(self) -> None:
        """
        What the node lives on is never forgotten so.
        """
        self.site.store_list(MAPS, [config_map("a", 5)], "10")
        self.site.ask("GET", MAPS)
        self.site.arriving(MAPS).answer(404, b"404 page not found\n", [*PLAIN, AUDIT])
        self.site.offline()
        self.assertEqual(self.site.fetch("GET", MAPS).status, 200)

    def test_others(self) -> None:
        """
        Another caller's view stays until that caller is told.
        """
        self.site.ask("GET", WIDGETS, agent="coredns")
        body = {"kind": "WidgetList", "apiVersion": "example.com/v1", "metadata": {"resourceVersion": "10"}, "items": [widget()]}
        self.site.arriving(WIDGETS).answer(200, body)
        self.assertFalse(self.is_kept(404, b"404 page not found\n", [*PLAIN, AUDIT]))
        self.site.offline()
        reply = self.site.fetch("GET", WIDGETS, agent="coredns")
        self.assertEqual([item["metadata"]["name"] for item in reply.json["items"]], ["w"])
