"""
Tests for :mod:`yurt.kube.mirror`.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from yurt.kube.api import NO_ANSWER, TIMEOUT, TOO_LARGE, ApiError
from yurt.kube.mirror import ABSENT_AFTER, ABSENT_PAUSE, MAX_PAUSE, PAGE_ITEMS, STEADY_AFTER, WATCH_GRACE, Change, Mirror
from yurt.kube.objects import ObjectError
from yurt.kube.watch import WatchError

MAPS = "/api/v1/configmaps"


def one(name: str, version: int, value: str = "", namespace: str = "ns") -> dict[str, Any]:
    """
    A ConfigMap.
    """
    metadata = {"name": name, "resourceVersion": str(version), **({"namespace": namespace} if namespace else {})}
    return {"metadata": metadata, "data": {"value": value or name}}


def page(version: int, *items: dict[str, Any], go_on: str = "") -> bytes:
    """
    A page of a list.
    """
    metadata = {"resourceVersion": str(version), **({"continue": go_on} if go_on else {})}
    return json.dumps({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": metadata, "items": items}).encode()


def event(kind: str, document: dict[str, Any]) -> bytes:
    """
    A line of a watch.
    """
    return json.dumps({"type": kind, "object": {"kind": "ConfigMap", **document}}).encode() + b"\n"


def value_of(body: bytes) -> str | None:
    """
    Keeps the value; ``skip`` is of no interest, ``bad`` cannot be read.
    """
    value: str = json.loads(body)["data"]["value"]
    if value == "bad":
        raise ValueError("not fit to be read")
    return None if value == "skip" else value


class MirrorCase(SynchronousTestCase):
    """
    A mirror and its words.
    """

    def setUp(self) -> None:
        self.mirror: Mirror[str] = Mirror(MAPS, value_of, label_selector="a=b", draw=lambda: 0.5)

    def query(self) -> dict[str, str]:
        """
        The query of the next request, whose path is always the collection's.
        """
        parts = urlsplit(self.mirror.next_ask().target.decode())
        self.assertEqual(parts.path, MAPS)
        return {name: values[0] for name, values in parse_qs(parts.query).items()}

    def list_all(self, version: int, *items: dict[str, Any]) -> list[Change[str]]:
        return list(self.mirror.page(page(version, *items)))

    def watch(self, *events: bytes) -> list[Change[str]]:
        """
        Open a watch and give it these events.
        """
        self.mirror.next_ask()
        self.mirror.watch_began()
        return list(self.mirror.received(b"".join(events)))

    def refuse(self, code: int, reason: str = "", retry_after: float | None = None, lasted: float = 0.1) -> float:
        return self.mirror.failed(ApiError(code, reason, f"refused: {code}", retry_after), lasted)


class ListTests(MirrorCase):
    """
    Tests of lists.
    """

    def test_first_request(self) -> None:
        """
        It begins with the first page of a list, in which no resourceVersion asks for anything but the present.
        """
        self.assertEqual(self.query(), {"limit": str(PAGE_ITEMS), "labelSelector": "a=b"})
        self.assertFalse(self.mirror.next_ask().watch)

    def test_pages(self) -> None:
        """
        Each page counts at once; the last one makes it whole, and a watch goes on from the list's resourceVersion.
        """
        first = list(self.mirror.page(page(9, one("a", 1), one("b", 2), go_on="token")))
        self.assertEqual(first, [Change("ns/a", None, "a"), Change("ns/b", None, "b")])
        self.assertEqual((self.query()["continue"], self.mirror.synced), ("token", False))
        last = list(self.mirror.page(page(9, one("c", 3, namespace=""))))
        self.assertEqual(last, [Change("c", None, "c")])
        self.assertEqual((self.mirror.synced, self.mirror.items), (True, {"ns/a": "a", "ns/b": "b", "c": "c"}))
        query = self.query()
        self.assertEqual((query["watch"], query["resourceVersion"], query["allowWatchBookmarks"]), ("true", "9", "true"))
        self.assertEqual(query["labelSelector"], "a=b")
        ask = self.mirror.next_ask()
        self.assertEqual((ask.watch, ask.lasting), (True, int(query["timeoutSeconds"]) + WATCH_GRACE))

    def test_broken_off(self) -> None:
        """
        A page that does not come is asked for again: what came before need not come twice over a thin link.
        """
        list(self.mirror.page(page(9, one("a", 1), go_on="token")))
        self.refuse(0, NO_ANSWER)
        self.refuse(503, "ServiceUnavailable")
        self.assertEqual(self.query()["continue"], "token")
        self.assertEqual(self.list_all(9, one("b", 2)), [Change("ns/b", None, "b")])
        self.assertEqual(self.mirror.items, {"ns/a": "a", "ns/b": "b"})

    def test_expired_token(self) -> None:
        """
        A continue token that is too old begins the list anew, and what the new one does not hold is gone.
        """
        list(self.mirror.page(page(9, one("a", 1), go_on="token")))
        self.refuse(410, "Expired")
        self.assertNotIn("continue", self.query())
        self.assertEqual(self.list_all(20, one("b", 12)), [Change("ns/b", None, "b"), Change("ns/a", "a", None)])
        self.assertEqual(self.mirror.items, {"ns/b": "b"})

    def test_relist_compares(self) -> None:
        """
        A second list tells what is new, what changed and what is gone; what has its old resourceVersion is not even read.
        """
        self.list_all(9, one("a", 1), one("b", 2), one("c", 3))
        self.refuse(410)
        changes = self.list_all(20, one("a", 1, "bad"), one("b", 12, "other"), one("d", 13))
        self.assertEqual(changes, [Change("ns/b", "b", "other"), Change("ns/d", None, "d"), Change("ns/c", "c", None)])
        self.assertEqual((self.mirror.unreadable, self.mirror.lists), (0, 2))

    def test_known_until_the_end(self) -> None:
        """
        While a second list is on its way nothing is missed that was known.
        """
        self.list_all(9, one("a", 1), one("b", 2))
        self.refuse(410)
        self.assertEqual(list(self.mirror.page(page(20, one("b", 2), go_on="token"))), [])
        self.assertEqual((self.mirror.items, self.mirror.synced), ({"ns/a": "a", "ns/b": "b"}, True))

    def test_too_large(self) -> None:
        """
        Of a page that is too large half as many objects are asked for, down to one.
        """
        limits = []
        for _ in range(12):
            limits.append(int(self.query()["limit"]))
            self.refuse(0, TOO_LARGE)
        self.assertEqual(limits[:3], [PAGE_ITEMS, PAGE_ITEMS // 2, PAGE_ITEMS // 4])
        self.assertEqual(limits[-1], 1)
        list(self.mirror.page(page(9, one("a", 1), go_on="token")))
        self.assertEqual(self.query()["limit"], "1")

    def test_thin_link(self) -> None:
        """
        After a page that did not come in time half as many objects are asked for; as pages come they grow again.
        """
        self.refuse(0, TIMEOUT)
        self.refuse(0, TIMEOUT)
        limits = [int(self.query()["limit"])]
        for number in range(3):
            list(self.mirror.page(page(9, one(f"a{number}", 1), go_on="token")))
            limits.append(int(self.query()["limit"]))
        self.assertEqual(limits, [PAGE_ITEMS // 4, PAGE_ITEMS // 4 * 2, PAGE_ITEMS // 4 * 4, PAGE_ITEMS])

    def test_no_list(self) -> None:
        """
        An answer that is no list, is a Table, or has no resourceVersion is an error, and leaves what is known.
        """
        self.list_all(9, one("a", 1))
        self.refuse(410)
        table = b'{"kind":"Table","metadata":{"resourceVersion":"3"},"rows":[]}'
        for body in (b"<html>", b"{}", table, page(0).replace(b'"0"', b'""')):
            with self.assertRaises(ObjectError):
                list(self.mirror.page(body))
        self.assertEqual(self.mirror.items, {"ns/a": "a"})

    def test_of_no_interest(self) -> None:
        """
        What decode drops is not there; when it changes to something else it comes, and the other way round.
        """
        self.assertEqual(self.list_all(9, one("a", 1, "skip")), [])
        changes = self.watch(event("MODIFIED", one("a", 10, "yes")), event("MODIFIED", one("a", 11, "skip")))
        self.assertEqual(changes, [Change("ns/a", None, "yes"), Change("ns/a", "yes", None)])

    def test_unreadable(self) -> None:
        """
        An object that cannot be read counts as absent, is counted, and keeps nobody else from being read.
        """
        self.assertEqual(self.list_all(9, one("a", 1, "bad"), one("b", 2)), [Change("ns/b", None, "b")])
        self.assertEqual((self.mirror.unreadable, self.mirror.items), (1, {"ns/b": "b"}))


class WatchTests(MirrorCase):
    """
    Tests of watches.
    """

    def setUp(self) -> None:
        super().setUp()
        self.list_all(9, one("a", 1))

    def test_events(self) -> None:
        """
        What comes, changes and goes is told with what was before, and moves the place to resume from.
        """
        changes = self.watch(event("ADDED", one("b", 10)), event("MODIFIED", one("a", 11, "new")), event("DELETED", one("b", 12)))
        self.assertEqual(changes, [Change("ns/b", None, "b"), Change("ns/a", "a", "new"), Change("ns/b", "b", None)])
        self.assertEqual((self.mirror.version, self.mirror.events, self.mirror.items), ("12", 3, {"ns/a": "new"}))

    def test_same_value(self) -> None:
        """
        A change of something that decode does not keep is no change.
        """
        self.assertEqual(self.watch(event("MODIFIED", one("a", 10))), [])
        self.assertEqual(self.mirror.version, "10")

    def test_duplicates(self) -> None:
        """
        Events that are known already, or older than what is known, change nothing and move nothing back.
        """
        changes = self.watch(
            event("MODIFIED", one("a", 12, "new")),
            event("MODIFIED", one("a", 12, "never")),
            event("MODIFIED", one("a", 11, "older")),
            event("DELETED", one("a", 11)),
            event("DELETED", one("unknown", 13)),
        )
        self.assertEqual(changes, [Change("ns/a", "a", "new")])
        self.assertEqual((self.mirror.version, self.mirror.items), ("13", {"ns/a": "new"}))

    def test_deleted_twice(self) -> None:
        """
        An object is deleted once, however often that is said.
        """
        self.assertEqual(self.watch(event("DELETED", one("a", 10)), event("DELETED", one("a", 10))), [Change("ns/a", "a", None)])

    def test_bookmark(self) -> None:
        """
        A bookmark moves the place to resume from, and nothing else.
        """
        self.assertEqual(self.watch(event("BOOKMARK", {"metadata": {"resourceVersion": "400"}})), [])
        self.assertEqual((self.query()["resourceVersion"], self.mirror.events), ("400", 0))

    def test_resume(self) -> None:
        """
        After a watch that ended well the next goes on at once, where that one was.
        """
        self.watch(event("ADDED", one("b", 10)))
        self.assertEqual(self.mirror.watch_ended(300.0), 0.0)
        self.assertEqual(self.query()["resourceVersion"], "10")

    def test_cut_in_an_event(self) -> None:
        """
        What came of an event that was cut off is forgotten with its watch.
        """
        self.watch(event("ADDED", one("b", 10))[:20])
        self.refuse(0, NO_ANSWER)
        self.assertEqual(self.watch(event("ADDED", one("b", 10))), [Change("ns/b", None, "b")])

    def test_expired(self) -> None:
        """
        410, as a status or as an event, leads to a new list; what came before it in the same bytes is not lost.
        """
        gone = event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"})
        told = []
        self.mirror.next_ask()
        with self.assertRaises(ApiError) as caught:
            for change in self.mirror.received(event("ADDED", one("b", 10)) + gone):
                told.append(change)
        self.assertEqual(told, [Change("ns/b", None, "b")])
        self.assertEqual((caught.exception.code, caught.exception.reason), (410, "Expired"))
        self.mirror.failed(caught.exception, 1.0)
        self.assertFalse(self.mirror.next_ask().watch)
        self.assertIn("too old resource version", str(self.mirror.problem))

    def test_other_error_event(self) -> None:
        """
        Another ERROR event ends the watch, and the next one resumes.
        """
        broken = event("ERROR", {"kind": "Status", "code": 500, "reason": "InternalError", "message": "etcd"})
        with self.assertRaises(ApiError) as caught:
            self.watch(broken)
        self.mirror.failed(caught.exception, 1.0)
        self.assertEqual(self.query()["resourceVersion"], "9")

    def test_refused_again_and_again(self) -> None:
        """
        A watch that nobody takes, for whatever reason, begins anew with a list in the end.
        """
        for _ in range(2):
            self.refuse(504, "Timeout")
            self.assertTrue(self.mirror.next_ask().watch)
        self.refuse(504, "Timeout")
        self.assertFalse(self.mirror.next_ask().watch)

    def test_poison(self) -> None:
        """
        An event that cannot be taken, and comes again each time, is got past by a list.
        """
        for _ in range(3):
            self.assertTrue(self.mirror.next_ask().watch)
            with self.assertRaises(WatchError) as caught:
                self.watch(b'{"type":1}\n')
            self.mirror.failed(caught.exception, 0.1)
        self.assertFalse(self.mirror.next_ask().watch)

    def test_lost_connections_do_not_list(self) -> None:
        """
        However often the server cannot be reached, the watch resumes: a returning server is not asked for whole lists.
        """
        for _ in range(20):
            self.refuse(0, NO_ANSWER)
        self.assertTrue(self.mirror.next_ask().watch)

    def test_no_version(self) -> None:
        """
        An event without a resourceVersion does not lose the place to resume from.
        """
        self.watch(event("ADDED", {"metadata": {"name": "b"}, "data": {"value": "b"}}))
        self.assertEqual(self.query()["resourceVersion"], "9")

    def test_no_event(self) -> None:
        """
        Bytes that are no event are an error.
        """
        with self.assertRaises(WatchError):
            self.watch(b'{"type":1}\n')

    @given(st.lists(st.integers(1, 60), max_size=20))
    def test_any_pieces(self, cuts: list[int]) -> None:
        """
        However the bytes of a watch are cut, the same changes come of them.
        """
        mirror: Mirror[str] = Mirror(MAPS, value_of)
        list(mirror.page(page(9, one("a", 1))))
        data = event("ADDED", one("ü", 10)) + event("MODIFIED", one("a", 11, "x")) + event("DELETED", one("a", 12))
        mirror.next_ask()
        changes: list[Change[str]] = []
        for cut in cuts:
            changes += mirror.received(data[:cut])
            data = data[cut:]
        changes += mirror.received(data)
        self.assertEqual(changes, [Change("ns/ü", None, "ü"), Change("ns/a", "a", "x"), Change("ns/a", "x", None)])


class PauseTests(MirrorCase):
    """
    Tests of when the next request comes, and of what people are told meanwhile.
    """

    def test_doubled(self) -> None:
        """
        Pauses double, at random, up to MAX_PAUSE.
        """
        pauses = [self.refuse(403, "Forbidden") for _ in range(8)]
        self.assertEqual(pauses, [0.5, 1.0, 2.0, 4.0, 8.0, MAX_PAUSE / 2, MAX_PAUSE / 2, MAX_PAUSE / 2])

    def test_steady(self) -> None:
        """
        After a watch that lasted the pauses begin anew.
        """
        for _ in range(5):
            self.refuse(0, NO_ANSWER)
        self.list_all(9)
        self.assertEqual(self.refuse(0, NO_ANSWER, lasted=STEADY_AFTER), 0.5)

    def test_short_watches(self) -> None:
        """
        A server that ends each watch at once is not asked without pause.
        """
        self.list_all(9)
        self.assertEqual([self.mirror.watch_ended(0.01) for _ in range(3)], [0.5, 1.0, 2.0])
        self.assertEqual(self.mirror.watch_ended(STEADY_AFTER), 0.0)
        self.assertEqual(self.mirror.watch_ended(0.01), 0.5)

    def test_lists_of_no_use(self) -> None:
        """
        Lists that succeed do not shorten the pauses when each watch after them is refused.
        """
        pauses = []
        for _ in range(3):
            self.list_all(9)
            pauses.append(self.refuse(410))
        self.assertEqual(pauses, [0.5, 1.0, 2.0])

    def test_retry_after(self) -> None:
        """
        A server's Retry-After is kept, within MAX_PAUSE.
        """
        self.assertEqual(self.refuse(429, "TooManyRequests", retry_after=7.0), 7.0)
        self.assertEqual(self.refuse(429, "TooManyRequests", retry_after=9000.0), MAX_PAUSE)

    def test_problem(self) -> None:
        """
        A failure is told until a watch runs again.
        """
        self.refuse(403, "Forbidden")
        self.assertEqual((self.mirror.problem, self.mirror.failures), ("refused: 403", 1))
        self.list_all(9)
        self.assertEqual(self.mirror.problem, "refused: 403")
        self.mirror.watch_began()
        self.assertIs(self.mirror.problem, None)
        self.mirror.watch_ended(300.0)
        self.assertIs(self.mirror.problem, None)


class VersionTests(SynchronousTestCase):
    """
    A collection that is served in one of several versions.
    """

    def setUp(self) -> None:
        self.mirror: Mirror[str] = Mirror("/v3", value_of, draw=lambda: 0.5, others=["/v2", "/v1"])

    @property
    def path(self) -> str:
        return urlsplit(self.mirror.next_ask().target.decode()).path

    def miss(self) -> float:
        return self.mirror.failed(ApiError(404, "NotFound", "there is no such thing"), 0.1)

    def test_served(self) -> None:
        """
        Versions that are not served are passed over at once, and the one that is stays; that is no failure.
        """
        self.assertEqual((self.path, self.miss(), self.path), ("/v3", 0.0, "/v2"))
        self.assertEqual((self.miss(), self.path, self.mirror.failures, self.mirror.problem), (0.0, "/v1", 0, None))
        list(self.mirror.page(page(7, one("a", 1))))
        self.mirror.failed(ApiError(0, NO_ANSWER, "gone"), 0.1)
        self.assertEqual(self.path, "/v1")

    def test_none(self) -> None:
        """
        Where none is served that is a failure, with a pause; then it is looked at all of them again.
        """
        pauses = [self.miss() for _ in range(6)]
        self.assertEqual(pauses, [0.0, 0.0, 0.5, 0.0, 0.0, 1.0])
        self.assertEqual((self.path, self.mirror.failures), ("/v3", 2))

    def test_never(self) -> None:
        """
        What goes on not to be served is asked for less and less often.
        """
        pauses = [pause for pause in (self.miss() for _ in range(36)) if pause]
        self.assertEqual(pauses[ABSENT_AFTER - 1 :], [MAX_PAUSE / 2, *[ABSENT_PAUSE / 2] * 2])

    def test_replaced(self) -> None:
        """
        A version that is not served any more is followed by another one, and what is the same is not told again.
        """
        list(self.mirror.page(page(7, one("a", 1))))
        for _ in range(3):
            self.miss()
        self.assertEqual(self.path, "/v3")
        self.assertEqual((self.miss(), self.path), (0.0, "/v2"))
        self.assertEqual([change.key for change in self.mirror.page(page(8, one("a", 1), one("b", 2)))], ["ns/b"])
