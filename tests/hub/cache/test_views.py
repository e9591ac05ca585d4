"""
Views: what the cloud said to a caller is what that caller reads.
"""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.cache.fixtures import (
    CONFIG_MAPS,
    KUBE_PROXY,
    KUBELET,
    WALL_START,
    Cache,
    HeldWriter,
    body,
    bookmark,
    event,
    item,
    listed,
    names,
)
from yurt.hub.cache import ABSENT, GETS, Caller, Found, ViewKey, shelf, store
from yurt.hub.cache.shelf import SWEEP_INTERVAL
from yurt.hub.cache.store import COMMIT_INTERVAL
from yurt.hub.identity import NODE
from yurt.kube.objects import split_list
from yurt.kube.watch import read_event

ALL = ViewKey(KUBELET, CONFIG_MAPS)
DEFAULT = ALL._replace(namespace="default")
PROXY = ALL._replace(caller=KUBE_PROXY)


class ViewsCase(SynchronousTestCase):
    """
    Views over a store of their own.
    """

    def setUp(self) -> None:
        self.path = self.mktemp()
        self.cache = Cache(self.path)
        self.views = self.cache.views
        self.addCleanup(lambda: self.cache.crash())

    def restart(self) -> None:
        """
        Let the next process take over.
        """
        self.successResultOf(self.cache.store.close())
        self.cache = Cache(self.path)
        self.views = self.cache.views

    def list(self, key: ViewKey, version: int, *names: str, requested: str = "", at: int = 0) -> None:
        """
        Take in a list of objects with these names.
        """
        self.views.store_list(key, listed(version, *(item(name, at or version) for name in names)), requested_version=requested)

    def get(self, name: str, caller: Caller = KUBELET, namespace: str = "default") -> object:
        """
        The version of the object read; ABSENT or None when there is none.
        """
        found = self.views.read_object(caller, CONFIG_MAPS, "", namespace, name)
        return int(json.loads(found.body)["metadata"]["resourceVersion"]) if isinstance(found, Found) else found

    def version(self, key: ViewKey) -> str | None:
        """
        The resourceVersion of a view.
        """
        info = self.views.view(key)
        return None if info is None else info.resource_version


class ListTests(ViewsCase):
    """
    Lists, and what is read from them.
    """

    def test_read_back(self) -> None:
        """
        A list is read back with its items in etcd's order, its kind and its resourceVersion, also by the next process.
        """
        items = [item("b", 5), item("a", 7), item("z", 6, namespace="default-2"), item("c", 4, namespace="a")]
        self.views.store_list(ALL, listed(10, *items), requested_version="")
        for _ in range(2):
            found = self.views.read_list(ALL)
            assert found is not None
            whole = json.loads(found.body)
            self.assertEqual((whole["kind"], whole["apiVersion"]), ("ConfigMapList", "v1"))
            self.assertEqual(whole["metadata"], {"resourceVersion": "10"})
            order = [(each["metadata"]["namespace"], each["metadata"]["name"]) for each in whole["items"]]
            self.assertEqual(order, [("a", "c"), ("default-2", "z"), ("default", "a"), ("default", "b")])
            self.assertEqual((found.items, found.stored_at), (4, WALL_START))
            self.restart()

    def test_replaces_membership(self) -> None:
        """
        What the next list lacks is gone from the view, and from the store when nobody else holds it.
        """
        self.list(ALL, 10, "a", "b")
        self.list(ALL, 20, "b", "c")
        self.assertEqual(names(self.views, ALL), ["b", "c"])
        self.assertIs(self.get("a"), ABSENT)
        self.assertEqual(self.views.objects, 2)

    def test_empty(self) -> None:
        """
        An empty list is known to be empty; an unknown one is not.
        """
        self.assertIsNone(self.views.read_list(ALL))
        self.list(ALL, 10)
        self.assertEqual(names(self.views, ALL), [])
        self.assertIs(self.get("a"), ABSENT)

    def test_callers_are_apart(self) -> None:
        """
        Nobody reads what the cloud did not give that same identity and component, though the object is stored once.
        """
        self.list(ALL, 10, "a", "b")
        self.assertIsNone(self.views.read_list(PROXY))
        self.assertIsNone(self.get("a", KUBE_PROXY))
        self.assertIsNone(self.get("a", Caller("somebody", KUBELET.component)))
        self.list(PROXY, 10, "a")
        self.assertEqual(names(self.views, PROXY), ["a"])
        self.assertIs(self.get("b", KUBE_PROXY), ABSENT)
        self.assertEqual(self.views.objects, 2)
        self.assertEqual(self.views.object_bytes, sum(len(each) for each in self.views.members(ALL)))

    def test_selectors_side_by_side(self) -> None:
        """
        Two selectors on the same resource are two views; one does not wipe the other.
        """
        red, blue = ALL._replace(label_selector="color=red"), ALL._replace(label_selector="color=blue")
        self.list(red, 10, "r")
        self.list(blue, 11, "b")
        self.assertEqual((names(self.views, red), names(self.views, blue)), (["r"], ["b"]))
        self.assertIsNone(self.views.read_list(ALL))
        self.assertEqual(self.get("r"), 10)
        self.assertIsNone(self.get("x"), "a selective view does not tell what does not exist")

    def test_name_selector_wipes_only_itself(self) -> None:
        """
        An empty list for one name says that this one does not exist, and nothing about others.
        """
        one, other = (DEFAULT._replace(field_selector=f"metadata.name={name}") for name in "ab")
        self.list(one, 10, "a")
        self.list(other, 11)
        self.assertEqual((names(self.views, one), names(self.views, other)), (["a"], []))
        self.assertEqual((self.get("a"), self.get("b"), self.get("c")), (10, ABSENT, None))
        self.list(DEFAULT, 12, "a", "c")
        self.list(one, 13)
        self.assertEqual(names(self.views, DEFAULT), ["a", "c"])

    def test_from_wider_views(self) -> None:
        """
        A complete view of wider scope answers for one namespace, a selector, or a name, with selectors evaluated.
        """
        items = [
            item("a", 5, labels={"color": "red"}, immutable="x"),
            item("b", 6, labels={"color": "blue"}),
            item("c", 7, namespace="other", labels={"color": "red"}),
        ]
        self.views.store_list(ALL, listed(10, *items), requested_version="")
        self.assertEqual(names(self.views, DEFAULT), ["a", "b"])
        self.assertEqual(names(self.views, ALL._replace(namespace="none")), [])
        self.assertEqual(names(self.views, ALL._replace(label_selector="color=red")), ["a", "c"])
        self.assertEqual(names(self.views, DEFAULT._replace(label_selector="color in (red)")), ["a"])
        self.assertEqual(names(self.views, ALL._replace(field_selector="immutable=x")), ["a"])
        self.assertEqual(names(self.views, DEFAULT._replace(field_selector="metadata.name=b")), ["b"])

    def test_from_selective_views(self) -> None:
        """
        A complete view of a selection answers for what lies within it: more conditions of either kind, fewer namespaces.
        """
        items = [
            item("a", 5, labels={"color": "red", "size": "1"}, immutable="x"),
            item("b", 6, labels={"color": "red", "size": "2"}, immutable="x"),
            item("c", 7, namespace="other", labels={"color": "red", "size": "1"}, immutable="x"),
        ]
        seen = ALL._replace(label_selector="color=red", field_selector="immutable=x")
        self.views.store_list(seen, listed(10, *items), requested_version="")
        for namespace, labels, fields, expected in (
            ("", "color=red,size=1", "immutable=x", ["a", "c"]),
            ("default", "color=red,size in (1,3)", "immutable=x", ["a"]),
            ("", "color in (red)", "immutable=x,metadata.name!=b", ["a", "c"]),
            ("default", "color=red", "immutable=x,metadata.name=b", ["b"]),
        ):
            asked = ALL._replace(namespace=namespace, label_selector=labels, field_selector=fields)
            self.assertEqual(names(self.views, asked), expected)
        others = ("color=red", ""), ("", "immutable=x"), ("color!=blue", "immutable=x"), ("color=red", "immutable!=y")
        for labels, fields in others:
            self.assertIsNone(self.views.read_list(ALL._replace(label_selector=labels, field_selector=fields)))

    def test_narrower_views_do_not_answer(self) -> None:
        """
        A view of one namespace or selector is no list of all.
        """
        self.list(DEFAULT, 10, "a")
        self.assertIsNone(self.views.read_list(ALL))
        self.assertIsNone(self.views.read_list(ALL._replace(namespace="other")))
        self.assertIsNone(self.views.read_list(ALL._replace(label_selector="x=y")))
        self.assertIsNone(self.get("a", namespace="other"))

    def test_newest_view_answers(self) -> None:
        """
        Where several views could answer, the one with the newest resourceVersion does.
        """
        self.list(DEFAULT, 10, "a")
        self.list(ALL, 20, "a", "b")
        self.assertEqual(names(self.views, DEFAULT), ["a", "b"])
        self.list(DEFAULT, 30, "c")
        self.assertEqual(names(self.views, DEFAULT), ["c"])

    def test_own_selector_is_not_evaluated_again(self) -> None:
        """
        The cloud's own answer to a selector stands, even for fields that no object spells that way.
        """
        key = ALL._replace(field_selector="source=kubelet")
        self.list(key, 10, "a")
        self.assertEqual(names(self.views, key), ["a"])

    def test_older_items(self) -> None:
        """
        An item older than what is stored does not replace it, unless the most recent state was asked for.
        """
        self.list(ALL, 20, "a")
        self.list(PROXY, 15, "a", requested="0")
        self.assertEqual(self.get("a", KUBE_PROXY), 20)
        self.list(PROXY, 5, "a")
        self.assertEqual((self.get("a", KUBE_PROXY), self.get("a")), (5, 5))

    def test_restored_etcd(self) -> None:
        """
        After etcd was restored from a backup, a list of the most recent state takes all of the caller's views back with it.
        """
        self.views.store_object(KUBELET, CONFIG_MAPS, "", body("gone", 90))
        self.list(ALL, 100, "a", "b")
        self.list(ALL, 50, "a", at=40)
        self.assertEqual((self.get("a"), self.get("b"), self.get("gone")), (40, ABSENT, ABSENT))
        self.assertEqual(self.version(ALL), "50")

    def test_cluster_scoped(self) -> None:
        """
        Objects without a namespace are found too.
        """
        self.views.store_list(ALL, listed(10, item("n", 5, namespace="")), requested_version="")
        self.assertEqual(self.get("n", namespace=""), 5)
        self.assertIs(self.get("m", namespace=""), ABSENT)
        self.assertEqual(names(self.views, ALL._replace(field_selector="metadata.name=n")), ["n"])

    def test_damaged_member(self) -> None:
        """
        A list of which a record was lost is unknown, not shorter: kubelet would kill the pod that it lacks.
        """
        for table, key in (("objects", b"/v1/configmaps\0\0default/a"), ("members", None)):
            self.list(ALL, 10, "a", "b")
            records = self.cache.store.table(table)
            records.delete(key or next(iter(records.scan()))[0])
            self.assertIsNone(self.views.read_list(ALL))
            self.assertIsNone(self.get("nothing"))
            info = self.views.view(ALL)
            assert info is not None
            self.assertFalse(info.complete)

    def test_info(self) -> None:
        """
        The status page finds each view with its size and age.
        """
        self.list(ALL, 10, "a", "b")
        self.views.store_object(KUBE_PROXY, CONFIG_MAPS, "", body("c", 5))
        infos = dict(self.views.views())
        self.assertEqual(infos[ALL].members, 2)
        self.assertEqual((infos[ALL].kind, infos[ALL].updated_at, infos[ALL].complete), ("ConfigMapList", WALL_START, True))
        self.assertEqual(infos[PROXY._replace(namespace=GETS)].members, 1)


class ObjectTests(ViewsCase):
    """
    Single reads.
    """

    def test_get(self) -> None:
        """
        What was got is found, by its caller only, also by the next process; the rest is unknown.
        """
        self.views.store_object(KUBELET, CONFIG_MAPS, "", body("a", 5))
        for _ in range(2):
            self.assertEqual((self.get("a"), self.get("b"), self.get("a", KUBE_PROXY)), (5, None, None))
            self.assertIsNone(self.views.read_list(ALL))
            self.restart()

    def test_status_is_no_object(self) -> None:
        """
        A Status body is never stored.
        """
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {"name": "a"}, "status": "Failure", "code": 404}
        self.views.store_object(KUBELET, CONFIG_MAPS, "", json.dumps(status).encode())
        self.assertEqual(self.views.objects, 0)

    def test_older_answer(self) -> None:
        """
        An answer older than what is stored does not replace it.
        """
        self.views.store_object(KUBELET, CONFIG_MAPS, "", body("a", 9))
        self.views.store_object(KUBE_PROXY, CONFIG_MAPS, "", body("a", 5))
        self.assertEqual((self.get("a"), self.get("a", KUBE_PROXY)), (9, 9))

    def test_forgotten(self) -> None:
        """
        A 404 takes the object from single reads; a list keeps what it said, and a later event brings it back.
        """
        self.views.store_object(KUBELET, CONFIG_MAPS, "", body("a", 5))
        self.views.forget_object(KUBELET, CONFIG_MAPS, "", "default", "a")
        self.assertEqual((self.get("a"), self.views.objects), (None, 0))
        self.list(ALL, 10, "a", "b")
        self.views.forget_object(KUBELET, CONFIG_MAPS, "", "default", "a")
        self.assertIs(self.get("a"), ABSENT)
        self.assertEqual(names(self.views, ALL), ["a", "b"])
        self.views.apply_event(ALL, event("ADDED", "a", 12))
        self.assertEqual(self.get("a"), 12)

    def test_forget_unknown(self) -> None:
        """
        A 404 of what was never there changes nothing.
        """
        self.views.forget_object(KUBELET, CONFIG_MAPS, "", "default", "a")
        self.assertEqual(list(self.views.views()), [])

    def test_got_after_the_list(self) -> None:
        """
        An object newer than the list that lacks it exists; an older one has been deleted.
        """
        self.list(ALL, 10)
        self.views.store_object(KUBELET, CONFIG_MAPS, "", body("new", 12))
        self.views.store_object(KUBELET, CONFIG_MAPS, "", body("old", 8))
        self.assertEqual((self.get("new"), self.get("old")), (12, ABSENT))
        self.views.apply_event(ALL, bookmark(20))
        self.assertIs(self.get("new"), ABSENT)

    def test_deleted_after_the_get(self) -> None:
        """
        A deletion that a watch reports, or a list that lacks the object, ends single reads of it too.
        """
        for name, end in (
            ("a", lambda: self.views.apply_event(ALL, event("DELETED", "a", 15))),
            ("b", lambda: self.list(ALL, 20)),
        ):
            self.list(ALL, 10, "a", "b", at=5)
            self.views.store_object(KUBELET, CONFIG_MAPS, "", body(name, 5))
            end()
            self.assertIs(self.get(name), ABSENT)
        self.assertEqual(self.views.objects, 0)

    def test_age(self) -> None:
        """
        The age counts from the last time that the cloud confirmed the object, without writing it again.
        """
        self.views.store_object(KUBELET, CONFIG_MAPS, "", body("a", 5))
        self.successResultOf(self.cache.store.flush())
        self.cache.clock.advance(100)
        self.views.store_object(KUBELET, CONFIG_MAPS, "", body("a", 5))
        self.assertFalse(self.cache.store.table("objects").is_pending(b"/v1/configmaps\0\0default/a"))
        found = self.views.read_object(KUBELET, CONFIG_MAPS, "", "default", "a")
        assert isinstance(found, Found)
        self.assertEqual((found.stored_at, found.local), (WALL_START + 100, False))
        self.cache.clock.advance(100)
        self.views.store_object(KUBELET, CONFIG_MAPS, "", body("a", 5))
        again = self.views.read_object(KUBELET, CONFIG_MAPS, "", "default", "a")
        assert isinstance(again, Found)
        self.assertEqual(again.stored_at, WALL_START + 200)

    def test_kept_while_held(self) -> None:
        """
        An object stays as long as one view holds it, and goes with the last.
        """
        self.list(ALL, 10, "a")
        self.list(PROXY, 10, "a")
        self.list(ALL, 11)
        self.assertEqual((self.get("a"), self.get("a", KUBE_PROXY), self.views.objects), (ABSENT, 10, 1))
        self.list(PROXY, 11)
        self.assertEqual((self.views.objects, self.views.object_bytes), (0, 0))
        self.assertEqual(list(self.cache.store.table("objects").scan()), [])


class WatchTests(ViewsCase):
    """
    Watch events.
    """

    def test_events(self) -> None:
        """
        Added, modified and deleted objects and bookmarks are honoured, in order, and move the view's resourceVersion.
        """
        self.list(ALL, 10, "a", "b")
        self.views.apply_event(ALL, event("ADDED", "c", 11))
        self.views.apply_event(ALL, event("MODIFIED", "a", 12))
        self.views.apply_event(ALL, event("DELETED", "b", 13))
        self.assertEqual((names(self.views, ALL), self.get("a"), self.version(ALL)), (["a", "c"], 12, "13"))
        self.views.apply_event(ALL, bookmark(20))
        self.assertEqual(self.version(ALL), "20")
        self.restart()
        self.assertEqual((names(self.views, ALL), self.version(ALL)), (["a", "c"], "20"))

    def test_known_events(self) -> None:
        """
        Events that the view knows already are ignored: no deleted object comes back, no version goes back.
        """
        self.list(ALL, 10, "a")
        self.views.apply_event(ALL, event("ADDED", "b", 11))
        self.views.apply_event(ALL, event("DELETED", "b", 12))
        self.views.apply_event(ALL, event("MODIFIED", "a", 13))
        self.views.apply_event(ALL, event("ADDED", "b", 11))
        self.views.apply_event(ALL, event("MODIFIED", "a", 9))
        self.views.apply_event(ALL, bookmark(9))
        self.assertEqual((names(self.views, ALL), self.get("a"), self.version(ALL)), (["a"], 13, "13"))

    def test_selective_view(self) -> None:
        """
        What leaves a selective view stays for views that hold it still.
        """
        red = ALL._replace(label_selector="color=red")
        self.list(red, 10, "a")
        self.list(ALL, 10, "a")
        self.views.apply_event(red, event("DELETED", "a", 12))
        self.views.apply_event(ALL, event("MODIFIED", "a", 12))
        self.assertEqual((names(self.views, red), names(self.views, ALL), self.get("a")), ([], ["a"], 12))

    def test_watch_without_list(self) -> None:
        """
        Events make a view that is not complete: its objects are found, its list is unknown, nothing is known to be absent.
        """
        self.views.apply_event(ALL, event("ADDED", "a", 30))
        self.views.apply_event(ALL, event("ADDED", "b", 25))
        self.assertEqual((self.get("a"), self.get("b"), self.get("c")), (30, 25, None))
        self.assertIsNone(self.views.read_list(ALL))

    def test_initial_events(self) -> None:
        """
        A watch that sends initial events fills a view; what it does not name is dropped at their end.
        """
        self.list(ALL, 10, "old", "kept")
        initial = self.views.begin_initial(ALL)
        for name, version in (("kept", 8), ("new", 30), ("other", 25)):
            self.views.apply_event(ALL, event("ADDED", name, version), initial)
        self.assertEqual(self.version(ALL), "10", "until their end the view resumes where it was")
        self.views.apply_event(ALL, bookmark(40, initial_events_end=True), initial)
        self.assertEqual((names(self.views, ALL), self.version(ALL)), (["kept", "new", "other"], "40"))
        self.views.apply_event(ALL, event("DELETED", "new", 41))
        self.assertEqual(names(self.views, ALL), ["kept", "other"])

    def test_initial_events_from_nothing(self) -> None:
        """
        A view made by initial events alone knows its kind, and that it is empty when it is.
        """
        initial = self.views.begin_initial(ALL)
        self.assertIsNone(self.views.read_list(ALL))
        self.views.apply_event(ALL, bookmark(40, initial_events_end=True), initial)
        found = self.views.read_list(ALL)
        assert found is not None
        self.assertEqual((found.kind, found.api_version, found.items), ("ConfigMapList", "v1", 0))

    def test_initial_events_side_by_side(self) -> None:
        """
        Two watches that fill the same view at the same time do not spoil it.
        """
        self.list(ALL, 10, "old")
        first = self.views.begin_initial(ALL)
        self.views.apply_event(ALL, event("ADDED", "a", 8), first)
        second = self.views.begin_initial(ALL)
        self.views.apply_event(ALL, event("ADDED", "a", 8), second)
        self.views.apply_event(ALL, event("ADDED", "b", 50), second)
        self.views.apply_event(ALL, bookmark(40, initial_events_end=True), first)
        self.assertEqual(names(self.views, ALL), ["a", "b"])
        self.views.apply_event(ALL, bookmark(50, initial_events_end=True), second)
        self.assertEqual((names(self.views, ALL), self.version(ALL)), (["a", "b"], "50"))

    def test_initial_events_broken_off(self) -> None:
        """
        A watch that breaks off before the end of its initial events does not keep other watches from moving the view.
        """
        self.list(ALL, 10, "a")
        self.views.apply_event(ALL, event("ADDED", "a", 10), self.views.begin_initial(ALL))
        self.views.apply_event(ALL, event("ADDED", "b", 12))
        self.assertEqual(self.version(ALL), "12")
        self.views.apply_event(ALL, bookmark(15))
        self.assertEqual((names(self.views, ALL), self.version(ALL)), (["a", "b"], "15"))

    def test_overtaken_list(self) -> None:
        """
        A list older than the view takes nothing back: one of any version, or one that events have overtaken on its way.
        """
        self.list(ALL, 20, "a", "b")
        old = listed(10, item("a", 5), item("gone", 6))
        self.views.store_list(ALL, old, requested_version="0")
        self.views.store_list(ALL, old, requested_version="", known_version="10")
        self.views.store_list(ALL, old, requested_version="", known_version="")
        self.assertEqual((names(self.views, ALL), self.version(ALL)), (["a", "b"], "20"))
        self.assertIs(self.views.read_object(KUBELET, CONFIG_MAPS, "", "default", "gone"), ABSENT)
        self.assertEqual(self.views.objects, 2)

    def test_restored_cluster(self) -> None:
        """
        The most recent state counts although it is older than what the view was when it was asked for: etcd went back.
        """
        self.list(ALL, 20, "a", "b")
        self.views.store_list(ALL, listed(10, item("a", 5)), requested_version="", known_version="20")
        self.assertEqual((names(self.views, ALL), self.version(ALL), self.get("a")), (["a"], "10", 5))

    def test_old_list_of_a_view_with_a_gap(self) -> None:
        """
        A view that is not complete takes any list.
        """
        self.list(ALL, 20, "a", "b")
        self.views.mark_gap(ALL)
        self.views.store_list(ALL, listed(10, item("a", 5)), requested_version="0")
        self.assertEqual((names(self.views, ALL), self.version(ALL)), (["a"], "10"))

    def test_gap(self) -> None:
        """
        After missed events a view lists nothing and denies nothing, until the next list.
        """
        self.list(ALL, 10, "a")
        self.views.mark_gap(ALL)
        self.assertIsNone(self.views.read_list(ALL))
        self.assertEqual((self.get("a"), self.get("b")), (10, None))
        self.list(ALL, 20, "a")
        self.assertEqual(names(self.views, ALL), ["a"])

    def test_begin_watch(self) -> None:
        """
        A watch that goes on where the view ends, or before, leaves it complete; one that begins later leaves a gap.
        """
        for version, is_complete in (("10", True), ("9", True), ("11", False), ("0", False), ("", False)):
            self.list(ALL, 10, "a")
            self.views.begin_watch(ALL, version)
            info = self.views.view(ALL)
            assert info is not None
            self.assertEqual(info.complete, is_complete, version)


class FormTests(ViewsCase):
    """
    Tables and partial metadata are kept apart from objects.
    """

    TABLE = ALL._replace(form="Table")

    def table(self, version: int, *names: str) -> bytes:
        """
        A Table as kubectl gets it.
        """
        rows = []
        for name in names:
            meta = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item(name, version)["metadata"]}
            meta["metadata"]["labels"] = {"name": name}
            rows.append({"cells": [name], "object": meta})
        columns = [{"name": "Name", "type": "string"}]
        table = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": str(version)}}
        return json.dumps({**table, "columnDefinitions": columns, "rows": rows}).encode()

    def test_table(self) -> None:
        """
        A Table is read back with its columns, and selected from by label.
        """
        self.views.store_list(self.TABLE, split_list(self.table(10, "a", "b")), requested_version="")
        for _ in range(2):
            found = self.views.read_list(self.TABLE)
            assert found is not None
            self.assertEqual(json.loads(found.body), json.loads(self.table(10, "a", "b")))
            one = self.views.read_list(self.TABLE._replace(label_selector="name=b"))
            assert one is not None
            self.assertEqual([row["cells"] for row in json.loads(one.body)["rows"]], [["b"]])
            self.assertIsNone(self.views.read_list(self.TABLE._replace(field_selector="status.phase=Running")))
            self.restart()
        self.assertIsNone(self.views.read_list(ALL))
        self.assertIsNone(self.get("a"))

    def test_single_table(self) -> None:
        """
        A Table of one object is found by its name.
        """
        self.views.store_object(KUBELET, CONFIG_MAPS, "Table", self.table(10, "a"))
        found = self.views.read_object(KUBELET, CONFIG_MAPS, "Table", "default", "a")
        assert isinstance(found, Found)
        self.assertEqual(json.loads(found.body), json.loads(self.table(10, "a")))

    def test_table_events(self) -> None:
        """
        Events in form of Tables change the rows of their view.
        """
        initial = self.views.begin_initial(self.TABLE)
        self.views.apply_event(self.TABLE, read_event(b'{"type":"ADDED","object":%b}' % self.table(10, "a")), initial)
        self.views.apply_event(self.TABLE, read_event(b'{"type":"ADDED","object":%b}' % self.table(11, "b")), initial)
        view = self.views.view(self.TABLE)
        assert view is not None
        self.assertEqual((view.kind, view.members), ("Table", 2))
        self.views.store_list(self.TABLE, split_list(self.table(12, "a")), requested_version="")
        self.views.apply_event(self.TABLE, read_event(b'{"type":"MODIFIED","object":%b}' % self.table(13, "a")))
        found = self.views.read_list(self.TABLE)
        assert found is not None
        self.assertEqual(json.loads(found.body), json.loads(self.table(13, "a")))


class LocalTests(ViewsCase):
    """
    States that were written here while the cloud was away.
    """

    def local(self, name: str) -> bool:
        """
        Whether what is read was written here.
        """
        found = self.views.read_object(KUBELET, CONFIG_MAPS, "", "default", name)
        assert isinstance(found, Found)
        return found.local

    def test_until_a_newer_version(self) -> None:
        """
        A local state is read by all that may read the object, and survives a restart, until the cloud has a newer version.
        """
        self.list(ALL, 10, "a")
        self.list(PROXY, 10, "a")
        self.cache.clock.advance(5)
        self.views.store_local(KUBELET, CONFIG_MAPS, body("a", 10, data="local"))
        self.restart()
        self.assertTrue(self.local("a"))
        for key in (ALL, PROXY):
            self.assertIn(b'"local"', self.views.members(key)[0])
        self.list(ALL, 20, "a", at=10)
        self.assertTrue(self.local("a"))
        self.views.apply_event(ALL, event("MODIFIED", "a", 21))
        self.assertEqual((self.local("a"), self.get("a")), (False, 21))


class BoundTests(ViewsCase):
    """
    Bounds, and a disk that does not take what comes.
    """

    def test_views_are_bounded(self) -> None:
        """
        The view that was updated longest ago goes first, and all it held with it, step by step.
        """
        self.patch(shelf, "MAX_VIEWS", 3)
        for number in range(3):
            self.cache.clock.advance(1)
            self.list(DEFAULT._replace(namespace=f"n{number}"), 10, f"a{number}", "b")
        self.cache.clock.advance(1)
        self.list(DEFAULT._replace(namespace="n0"), 11, "a0")
        self.list(DEFAULT._replace(namespace="n3"), 10)
        self.assertEqual({key.namespace for key, _ in self.views.views()}, {"n0", "n2", "n3"})
        self.cache.clock.pump([SWEEP_INTERVAL] * 3)
        held = {key[8:] for key, _ in self.cache.store.table("members").scan()}
        self.assertNotIn(b"default/a1", held)
        self.assertEqual(self.views.objects, len(list(self.cache.store.table("objects").scan())))

    def test_the_node_stays(self) -> None:
        """
        However many others read, the views of the node itself are the last to go.
        """
        self.patch(shelf, "MAX_VIEWS", 3)
        own = DEFAULT._replace(caller=KUBELET._replace(identity=NODE))
        self.list(own, 10, "a")
        for number in range(5):
            self.cache.clock.advance(1)
            self.list(DEFAULT._replace(namespace=f"n{number}"), 10)
        self.assertEqual({key.namespace for key, _ in self.views.views()}, {"default", "n3", "n4"})
        self.assertEqual(names(self.views, own), ["a"])

    def test_too_many_bytes(self) -> None:
        """
        When the objects come near the greatest size of the file, views go until they do not, the node's own last.
        """
        own = DEFAULT._replace(caller=KUBELET._replace(identity=NODE), namespace="own")
        self.views.store_list(own, listed(10, item("own", 10, namespace="own")), requested_version="")
        self.patch(shelf, "MAX_OBJECT_BYTES", 6 * self.views.object_bytes)
        for number in range(10):
            self.cache.clock.advance(1)
            key = DEFAULT._replace(namespace=f"n{number}")
            self.views.store_list(key, listed(10, item("own", 10, namespace=key.namespace)), requested_version="")
        self.cache.clock.pump([SWEEP_INTERVAL] * 60)
        self.assertLessEqual(self.views.object_bytes, shelf.MAX_OBJECT_BYTES)
        self.assertEqual((names(self.views, own), names(self.views, key)), (["own"], ["own"]))
        self.assertGreater(self.views.objects, 3)

    def broken_disk(self) -> HeldWriter:
        """
        Start again with a disk that takes no writes.
        """
        self.successResultOf(self.cache.store.close())
        writer = HeldWriter()
        self.cache = Cache(self.path, writer)
        self.views = self.cache.views
        return writer

    def test_frozen(self) -> None:
        """
        When what waits for a broken disk has to be dropped, views that had changed stay what they are on the disk, until the next
        list; others go on.
        """
        self.list(ALL, 10, "a", "b")
        self.list(PROXY, 10, "p")
        writer = self.broken_disk()
        self.patch(store, "MAX_PENDING_BYTES", 100_000)
        self.views.apply_event(ALL, event("DELETED", "b", 11))
        self.views.apply_event(ALL, event("ADDED", "c", 12))
        self.cache.clock.advance(COMMIT_INTERVAL)
        writer.release(OSError(5, "Input/output error"))
        big = ALL._replace(namespace="big")
        self.views.store_list(big, listed(13, item("big", 13, namespace="big", data="x" * 200_000)), requested_version="")
        self.cache.clock.advance(0)
        self.assertEqual((names(self.views, ALL), self.version(ALL)), (["a", "b"], "10"))
        self.assertEqual(self.views.objects, 3)
        self.views.apply_event(ALL, event("ADDED", "d", 14))
        self.views.begin_watch(ALL, "14")
        self.assertEqual((names(self.views, ALL), self.version(ALL)), (["a", "b"], "10"))
        self.views.apply_event(PROXY, event("ADDED", "q", 14))
        self.assertEqual(names(self.views, PROXY), ["p", "q"])
        self.list(ALL, 20, "e")
        self.views.apply_event(ALL, event("ADDED", "f", 21))
        self.assertEqual(names(self.views, ALL), ["e", "f"])
        self.assertGreater(self.cache.store.dropped, 0)
        frozen = self.views.view(ALL)
        assert frozen is not None
        self.assertFalse(frozen.frozen)

    def test_disk_comes_late(self) -> None:
        """
        Views that were made before the disk came replace those of the disk; the disk's other views are there then.
        """
        self.list(ALL, 10, "old", "both")
        self.list(PROXY, 10, "p", "both")
        self.successResultOf(self.cache.store.close())
        self.cache = Cache(self.path, is_open=False)
        self.views = self.cache.views
        self.list(ALL, 20, "new", "both")
        self.views.store_object(KUBELET, CONFIG_MAPS, "", body("got", 21))
        self.assertIsNone(self.views.read_list(PROXY))
        self.cache.store.open()
        for _ in range(2):
            self.assertEqual((names(self.views, ALL), names(self.views, PROXY)), (["both", "new"], ["both", "p"]))
            self.assertEqual((self.get("got"), self.get("old"), self.get("both", KUBE_PROXY)), (21, ABSENT, 20))
            self.assertEqual(self.views.objects, 4)
            self.restart()
        self.views.apply_event(ALL, event("DELETED", "new", 22))
        self.restart()
        self.assertEqual(names(self.views, ALL), ["both"])

    def test_unreadable_view(self) -> None:
        """
        A view of the disk that makes no sense is left out, and the others are there.
        """
        self.list(ALL, 10, "a")
        self.cache.store.table("views").put(b"nonsense", b"\xff\xff")
        self.restart()
        self.assertEqual(names(self.views, ALL), ["a"])
