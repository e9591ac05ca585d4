"""
Tests for ``yurt.hub.screen``: watches through filters, on a clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.filters.cluster import SLICES_PATH, Cluster, begin, filtering_site, slice_list
from tests.hub.filters.fixtures import endpoint_slice, nodes_of, service
from tests.hub.memory_site import HandExchange, MemoryRequest, MemorySite, bookmark, error_event, event
from yurt.hub.comparison import STEP_BYTES, STEP_ITEMS
from yurt.hub.filters.discardcloudservice import DISCARD
from yurt.hub.filters.told import MAX_SENT_BACK, ToldBook

HOST, POOL = "kubernetes.io/hostname", "openyurt.io/nodepool"
SERVICES = "/api/v1/services"


def balancer(name: str, version: int, *, hidden: bool = False) -> dict[str, Any]:
    """
    A LoadBalancer Service.
    """
    document: dict[str, Any] = service(name, annotations={DISCARD: "true"} if hidden else {}, type="LoadBalancer")
    document["metadata"]["resourceVersion"] = str(version)
    return document


def web(version: int, *nodes: str, name: str = "web-1") -> dict[str, Any]:
    """
    A slice of the Service web.
    """
    document: dict[str, Any] = endpoint_slice("web", *nodes)
    document["metadata"].update(name=name, resourceVersion=str(version))
    return document


def told(request: MemoryRequest) -> list[tuple[str, str, str]]:
    """
    Type, name and resourceVersion of each event that a client got.
    """
    metas = [(event["type"], event["object"]["metadata"]) for event in request.events]
    return [(kind, meta.get("name", ""), meta["resourceVersion"]) for kind, meta in metas]


def clients_at(site: MemorySite, path: str) -> list[HandExchange]:
    """
    What clients ask for at the cloud.
    """
    return [one for one in site.at_cloud(path) if b"yurthub/" not in dict(one.head.headers)[b"User-Agent"]]


class Case(SynchronousTestCase):
    """
    What the tests share: a hub with its filters, in a cluster.
    """

    site: MemorySite
    cluster: Cluster

    def setUp(self) -> None:
        self.site, self.cluster = filtering_site(self)

    def reboot(self) -> None:
        """
        Another process of the hub, with the same disk.
        """
        self.site.reboot()
        Cluster(self.site).node()
        begin(self.site)

    def arriving(self, path: str) -> HandExchange:
        """
        A client's request at the cloud.
        """
        self.site.run_until(lambda: clients_at(self.site, path))
        return clients_at(self.site, path)[0]

    def list_services(self, *items: dict[str, Any], version: int = 10, agent: str = "kube-proxy") -> MemoryRequest:
        """
        A client lists Services.
        """
        request = self.site.ask("GET", SERVICES, agent=agent)
        metadata = {"resourceVersion": str(version)}
        self.arriving(SERVICES).answer(
            200, {"kind": "ServiceList", "apiVersion": "v1", "metadata": metadata, "items": list(items)}
        )
        self.site.run(0.1)
        return request

    def list_slices(self, *items: dict[str, Any], version: int = 10) -> MemoryRequest:
        """
        A client lists EndpointSlices.
        """
        request = self.site.ask("GET", SLICES_PATH, agent="kube-proxy")
        self.arriving(SLICES_PATH).answer(200, slice_list(list(items), version))
        self.site.run(0.1)
        return request

    def watch(
        self, path: str = SERVICES, version: int = 10, query: str = "", agent: str = "kube-proxy"
    ) -> tuple[MemoryRequest, HandExchange]:
        """
        A client watches, and the cloud accepts.
        """
        request = self.site.ask("GET", f"{path}?watch=true&resourceVersion={version}{query}", agent=agent)
        exchange = self.arriving(path)
        exchange.begin()
        self.site.run(0.1)
        return request, exchange


class EventTests(Case):
    """
    Tests of single events.
    """

    def test_hidden_and_shown(self) -> None:
        """
        An object that becomes hidden is DELETED, one that is shown again ADDED; what happens to it meanwhile is not told.
        """
        self.list_services(balancer("a", 5))
        request, exchange = self.watch()
        for version, hidden in ((11, False), (12, True), (13, True), (14, False), (15, False)):
            exchange.send(event("MODIFIED", balancer("a", version, hidden=hidden)))
        expected = [("MODIFIED", "a", "11"), ("DELETED", "a", "12"), ("ADDED", "a", "14"), ("MODIFIED", "a", "15")]
        self.assertEqual(told(request), expected)

    def test_never_known(self) -> None:
        """
        A client that never knew an object hears nothing of it: neither one that the list hid, nor a new one.
        """
        self.list_services(balancer("a", 5, hidden=True))
        request, exchange = self.watch()
        exchange.send(event("MODIFIED", balancer("a", 11, hidden=True)))
        exchange.send(event("DELETED", balancer("a", 12, hidden=True)))
        exchange.send(event("ADDED", balancer("b", 13, hidden=True)))
        exchange.send(event("DELETED", balancer("b", 14, hidden=True)))
        exchange.send(event("ADDED", balancer("b", 15)))
        self.assertEqual(told(request), [("ADDED", "b", "15")])

    def test_marked(self) -> None:
        """
        A client that takes bookmarks gets one after events that it is not told, so that it comes back from there: one for all
        that came at once, and none after events that it was told.
        """
        self.list_services(balancer("a", 5, hidden=True))
        request, exchange = self.watch(query="&allowWatchBookmarks=true")
        hidden = [event("MODIFIED", balancer("a", version, hidden=True)) for version in (11, 12, 15)]
        exchange.send(hidden[0] + hidden[1])
        exchange.send(event("ADDED", balancer("b", 13)) + bookmark(14, "Service"))
        exchange.send(hidden[2] + event("MODIFIED", balancer("b", 16)))
        expected = [("BOOKMARK", "", "12"), ("ADDED", "b", "13"), ("BOOKMARK", "", "14"), ("MODIFIED", "b", "16")]
        self.assertEqual(told(request), expected)

    def test_not_marked(self) -> None:
        """
        Not while it is told what exists, and not those who did not ask.
        """
        hidden = event("ADDED", balancer("a", 11, hidden=True))
        for version, query in ((0, "&allowWatchBookmarks=true"), (10, "")):
            self.list_services()
            request, exchange = self.watch(version=version, query=query)
            exchange.send(hidden)
            self.assertEqual(told(request), [])
            request.hang_up()

    def test_bytes_are_kept(self) -> None:
        """
        Events that no filter changes keep their bytes; BOOKMARK and ERROR are not touched.
        """
        self.list_services()
        request, exchange = self.watch(query="&allowWatchBookmarks=true")
        line = b'{"type":"ADDED", "object":{"kind":"Service", "metadata":{"name":"x","resourceVersion":"11"}}}\n'
        end = error_event(410, "Expired")
        exchange.send(line + bookmark(12, "Service") + end)
        self.assertEqual(request.data, line + bookmark(12, "Service") + end)

    def test_initial_events(self) -> None:
        """
        A watch that begins with the present state leaves out what is hidden.
        """
        for query in ("&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan", ""):
            request, exchange = self.watch(version=0, query=query)
            exchange.send(event("ADDED", balancer("a", 5, hidden=True)) + event("ADDED", balancer("b", 6)))
            exchange.send(bookmark(10, "Service", end=True))
            exchange.send(event("MODIFIED", balancer("a", 11)))
            self.assertEqual([one for one in told(request) if one[0] != "BOOKMARK"], [("ADDED", "b", "6"), ("ADDED", "a", "11")])
            exchange.end()
            request.hang_up()

    def test_changed(self) -> None:
        """
        An event about an object that a filter changes tells what the filter makes of it.
        """
        self.cluster.service("web", HOST)
        self.site.run(0.5)
        self.list_slices()
        request, exchange = self.watch(SLICES_PATH)
        exchange.send(event("ADDED", web(11, "n1", "n2")))
        self.assertEqual(nodes_of(request.events[0]["object"]), ["n1"])


class CutTests(Case):
    """
    Tests of links that break and of clients that come back.
    """

    def test_cloud_cut(self) -> None:
        """
        After a cut the watch goes on after the last event, also one that was hidden: none is lost, none comes twice.
        """
        self.list_services(balancer("a", 5))
        request, exchange = self.watch()
        exchange.send(event("MODIFIED", balancer("a", 11)) + event("ADDED", balancer("b", 12, hidden=True)))
        exchange.fail()
        resumed = self.arriving(SERVICES)
        self.assertEqual(resumed.query["resourceVersion"], "12")
        resumed.begin()
        resumed.send(event("MODIFIED", balancer("b", 13, hidden=True)) + event("MODIFIED", balancer("b", 14)))
        self.assertEqual(told(request), [("MODIFIED", "a", "11"), ("ADDED", "b", "14")])

    def test_client_comes_back(self) -> None:
        """
        A client goes on where it was told last; events that were hidden from it come again, and are hidden again.
        """
        self.list_services(balancer("a", 5))
        request, exchange = self.watch()
        exchange.send(event("MODIFIED", balancer("a", 11)) + event("MODIFIED", balancer("a", 12, hidden=True)))
        exchange.send(event("MODIFIED", balancer("a", 13, hidden=True)))
        request.hang_up()
        request, exchange = self.watch(version=12)
        exchange.send(event("MODIFIED", balancer("a", 13, hidden=True)) + event("MODIFIED", balancer("a", 14)))
        self.assertEqual(told(request), [("ADDED", "a", "14")])

    def test_restart(self) -> None:
        """
        Another process of the hub knows that its filters show the same, and goes on.
        """
        self.list_services(balancer("a", 5, hidden=True), balancer("b", 6))
        self.reboot()
        request, exchange = self.watch()
        exchange.send(event("MODIFIED", balancer("a", 11, hidden=True)) + event("MODIFIED", balancer("a", 12)))
        self.assertEqual(told(request), [("ADDED", "a", "12")])

    def test_restart_without_the_disk(self) -> None:
        """
        When the disk does not hold what was shown, nobody can tell what was hidden: the client lists anew.
        """
        self.list_services(balancer("a", 5, hidden=True))
        (key,) = [key for key, _ in self.site.hub.views.views() if key.caller.component == "kube-proxy"]
        self.site.hub.views.mark_gap(key)
        self.reboot()
        request = self.site.fetch("GET", f"{SERVICES}?watch=true&resourceVersion=10", agent="kube-proxy")
        self.assertEqual(request.status, 410)

    def test_restart_with_an_older_disk(self) -> None:
        """
        What the cloud repeats for a disk that is behind the client is not told, but counts: an object that came hidden meanwhile
        is not known to the client.
        """
        self.list_services(balancer("b", 6))
        self.reboot()
        request, exchange = self.watch(version=20)
        self.assertEqual(exchange.query["resourceVersion"], "10")
        exchange.send(event("ADDED", balancer("a", 15, hidden=True)) + event("MODIFIED", balancer("b", 16, hidden=True)))
        exchange.send(event("MODIFIED", balancer("a", 21, hidden=True)) + event("DELETED", balancer("b", 22, hidden=True)))
        exchange.send(event("ADDED", balancer("c", 23)))
        self.assertEqual(told(request), [("ADDED", "c", "23")])

    def test_restart_with_a_newer_disk(self) -> None:
        """
        What was hidden only after the version at which a client comes back is DELETED for it.
        """
        self.list_services(balancer("a", 5))
        _, exchange = self.watch()
        exchange.send(event("MODIFIED", balancer("a", 12, hidden=True)))
        self.reboot()
        request, exchange = self.watch()
        exchange.send(event("MODIFIED", balancer("a", 12, hidden=True)))
        self.assertEqual(told(request), [("DELETED", "a", "12")])

    def test_restart_and_a_gap(self) -> None:
        """
        When the cloud cannot repeat what the disk has missed, nothing that the client may know vanishes in silence.
        """
        self.list_services(balancer("a", 5, hidden=True))
        self.reboot()
        request, exchange = self.watch(version=20)
        exchange.send(error_event(410, "Expired"))
        again = self.arriving(SERVICES)
        self.assertEqual(again.query["resourceVersion"], "20")
        again.begin()
        again.send(event("MODIFIED", balancer("a", 21, hidden=True)))
        self.assertEqual(told(request), [("DELETED", "a", "21")])

    def test_unknown(self) -> None:
        """
        A client of which nobody knows what it was told has to list anew, once: then it goes on.
        """
        request = self.site.fetch("GET", f"{SERVICES}?watch=true&resourceVersion=7", agent="kube-proxy")
        self.assertEqual((request.status, request.json["reason"]), (410, "Expired"))
        self.list_services(balancer("a", 5))
        request, exchange = self.watch()
        exchange.send(event("MODIFIED", balancer("a", 11, hidden=True)))
        self.assertEqual(told(request), [("DELETED", "a", "11")])

    def use_up_patience(self) -> None:
        """
        Clients with something unknown are sent back as often as they may be.
        """
        for version in range(MAX_SENT_BACK):
            request = self.site.fetch("GET", f"{SERVICES}?watch=true&resourceVersion={version + 1}", agent="kube-proxy")
            self.assertEqual(request.status, 410)

    def test_not_sent_back_again(self) -> None:
        """
        A client that comes back with something unknown again and again is not sent back for ever: its events are filtered.
        """
        self.use_up_patience()
        request, exchange = self.watch(version=8)
        exchange.send(event("MODIFIED", balancer("a", 11, hidden=True)))
        self.assertEqual(told(request), [("DELETED", "a", "11")])

    def test_told_all(self) -> None:
        """
        If the cache holds what it may know it is told all of that, as nobody can tell what it knows otherwise.
        """
        self.list_services(balancer("a", 5, hidden=True), balancer("b", 6), balancer("c", 9))
        self.site.hub.filters.told = ToldBook(self.site.store.table("nothing"))
        self.use_up_patience()
        request, exchange = self.watch(version=10)
        self.assertEqual(told(request), [("DELETED", "a", "10"), ("MODIFIED", "b", "10"), ("MODIFIED", "c", "10")])
        exchange.send(event("MODIFIED", balancer("a", 11, hidden=True)) + event("MODIFIED", balancer("b", 12)))
        self.assertEqual(told(request)[3:], [("MODIFIED", "b", "12")])


class OfflineTests(Case):
    """
    Tests of watches without the cloud.
    """

    def test_state(self) -> None:
        """
        A watch that begins without the cloud leaves out what is hidden, and goes on with it.
        """
        self.list_services(balancer("a", 5, hidden=True), balancer("b", 6))
        self.site.offline()
        request = self.site.ask("GET", f"{SERVICES}?watch=true&resourceVersion=0", agent="kube-proxy")
        self.site.run(0.1)
        self.assertEqual(told(request), [("ADDED", "b", "6")])
        self.site.online()
        exchange = self.arriving(SERVICES)
        exchange.begin()
        exchange.send(event("MODIFIED", balancer("a", 11)))
        self.assertEqual(told(request)[1:], [("ADDED", "a", "11")])

    def test_change(self) -> None:
        """
        A change of what filters depend on is told without the cloud, too.
        """
        ports = [{"name": "https", "port": 443}]
        self.list_services(service("kubernetes", clusterIP="10.96.0.1", ports=ports), agent="kubelet")
        request, _ = self.watch(agent="kubelet")
        self.site.offline()
        self.site.hub.filters.set_address("169.254.2.1", 10268)
        self.site.run(0.5)
        self.assertEqual(told(request), [("MODIFIED", "kubernetes", "10")])
        self.assertEqual(request.events[0]["object"]["spec"]["clusterIP"], "169.254.2.1")

    def test_start(self) -> None:
        """
        A hub that starts without the cloud filters as it did before.
        """
        self.cluster.service("web", HOST)
        self.cluster.pool("p", "n1")
        self.site.run(0.5)
        self.list_slices(web(5, "n1", "n2"))
        self.site.upstream.alive = False
        self.site.reboot()
        self.site.hub.start_filters()
        request = self.site.fetch("GET", SLICES_PATH, agent="kube-proxy")
        self.assertEqual(nodes_of(request.json["items"][0]), ["n1"])
        self.assertEqual(request.header("Warning").count("servicetopology"), 0)
        self.assertEqual(self.site.hub.filters.facts.pool, "p")


class DifferenceTests(Case):
    """
    Tests of changes of what filters depend on.
    """

    def watching(self, *items: dict[str, Any]) -> tuple[MemoryRequest, HandExchange]:
        """
        A client that has listed slices, and watches them.
        """
        self.list_slices(*items)
        return self.watch(SLICES_PATH)

    def test_service(self) -> None:
        """
        When a Service asks for topology, and when it no longer does, its slices change for those who watch; others do not.
        """
        db = endpoint_slice("db", "n3")
        request, exchange = self.watching(web(5, "n1", "n2"), db)
        self.cluster.service("web", HOST)
        self.site.run(0.5)
        exchange.send(event("MODIFIED", web(11, "n1", "n3")))
        self.cluster.remove(SERVICES, "web", namespace="default")
        self.site.run(0.5)
        self.assertEqual(told(request), [("MODIFIED", "web-1", version) for version in ("10", "11", "11")])
        self.assertEqual([nodes_of(one["object"]) for one in request.events], [["n1"], ["n1"], ["n1", "n3"]])

    def test_pool(self) -> None:
        """
        When a pool gains or loses nodes, or this node moves, slices change.
        """
        self.cluster.service("web", POOL)
        self.cluster.pool("p", "n1", "n2")
        self.cluster.pool("q", "n3")
        self.site.run(0.5)
        request, _ = self.watching(web(5, "n1", "n2", "n3"))
        for change in (
            lambda: self.cluster.pool("p", "n1"),
            lambda: self.cluster.node("q"),
            lambda: self.cluster.node("missing"),
            lambda: self.cluster.remove("/apis/apps.openyurt.io/v1beta1/nodepools", "q"),
            lambda: self.cluster.node("p"),
        ):
            change()
            self.site.run(0.5)
        expected = [["n1"], ["n1", "n3"], ["n1", "n2", "n3"], ["n1"]]
        self.assertEqual([nodes_of(one["object"]) for one in request.events], expected)

    def test_hides(self) -> None:
        """
        A Service whose node ports are for other pools vanishes when the node moves, and comes back.
        """
        self.cluster.node("p")
        self.site.run(0.5)
        document = service(annotations={"nodeport.openyurt.io/listen": "p"}, type="NodePort")
        self.list_services(document)
        request, exchange = self.watch()
        self.cluster.node("q")
        self.site.run(0.5)
        exchange.send(event("MODIFIED", {**document, "metadata": {**document["metadata"], "resourceVersion": "12"}}))
        self.cluster.node("p")
        self.site.run(0.5)
        self.assertEqual(told(request), [("DELETED", "web", "10"), ("ADDED", "web", "12")])

    def test_between_list_and_watch(self) -> None:
        """
        A change between a client's list and its watch is told when the watch begins.
        """
        self.cluster.service("web", HOST)
        self.site.run(0.5)
        self.list_slices(web(5, "n1", "n2"))
        self.cluster.service("web", None)
        self.site.run(0.5)
        request, _ = self.watch(SLICES_PATH)
        self.assertEqual([nodes_of(one["object"]) for one in request.events], [["n1", "n2"]])

    def test_between_watches(self) -> None:
        """
        A change while a client is away is told when it comes back.
        """
        self.cluster.service("web", HOST)
        self.site.run(0.5)
        request, exchange = self.watching(web(5, "n1", "n2"))
        exchange.send(event("MODIFIED", web(11, "n1", "n2", "n3")))
        request.hang_up()
        self.cluster.service("web", None)
        self.site.run(0.5)
        request, _ = self.watch(SLICES_PATH, version=11)
        self.assertEqual([nodes_of(one["object"]) for one in request.events], [["n1", "n2", "n3"]])

    def test_there_and_back(self) -> None:
        """
        A change that was told, and undone while the client was away: it is told so, also when its version is that of its list.
        """
        self.cluster.service("web", HOST)
        self.site.run(0.5)
        request, exchange = self.watching(web(5, "n1", "n2"))
        self.cluster.service("web", None)
        self.site.run(0.5)
        self.assertEqual([nodes_of(event["object"]) for event in request.events], [["n1", "n2"]])
        request.hang_up()
        self.cluster.service("web", HOST)
        self.site.run(0.5)
        request, exchange = self.watch(SLICES_PATH)
        self.assertEqual([nodes_of(event["object"]) for event in request.events], [["n1"]])

    def test_ahead(self) -> None:
        """
        Of what the cache has heard of already, and the client has not, the cloud tells it in its turn.
        """
        self.cluster.service("web", HOST)
        self.site.run(0.5)
        self.list_slices(web(5, "n1", "n2"))
        request, exchange = self.watch(SLICES_PATH)
        listing = self.site.ask("GET", SLICES_PATH, agent="kube-proxy")
        clients_at(self.site, SLICES_PATH)[-1].answer(200, slice_list([web(11, "n2", "n3")], 11))
        self.site.run_until(lambda: listing.finished)
        self.cluster.service("web", None)
        self.site.run(0.5)
        self.assertEqual(request.events, [])
        exchange.send(event("MODIFIED", web(11, "n2", "n3")))
        self.assertEqual([nodes_of(event["object"]) for event in request.events], [["n2", "n3"]])

    def test_killed(self) -> None:
        """
        When a hub is killed while it tells a difference nobody knows what has arrived: the client lists anew, whether it is to
        see things as before again or not.
        """
        self.assert_unknown_after_a_kill(HOST)
        self.setUp()
        self.assert_unknown_after_a_kill(None)

    def assert_unknown_after_a_kill(self, topology: str | None) -> None:
        """
        A watch is told a difference; the hub dies and is there again, and Service web asks for that topology.
        """
        self.cluster.service("web", HOST)
        self.site.run(0.5)
        request, _ = self.watching(web(5, "n1", "n2"))
        self.site.run(5.0)
        self.cluster.service("web", None)
        self.site.run_until(lambda: request.events)
        self.site.crash()
        Cluster(self.site).service("web", topology)
        begin(self.site)
        again = self.site.fetch("GET", f"{SLICES_PATH}?watch=true&resourceVersion=10", agent="kube-proxy")
        self.assertEqual(again.status, 410)

    def test_changed_while_away_for_long(self) -> None:
        """
        A client that comes back to another process of the hub, with other filters, lists anew.
        """
        self.cluster.service("web", HOST)
        self.site.run(0.5)
        self.list_slices(web(5, "n1", "n2"))
        self.site.reboot()
        cluster = Cluster(self.site)
        cluster.node()
        begin(self.site)
        request = self.site.fetch("GET", f"{SLICES_PATH}?watch=true&resourceVersion=10", agent="kube-proxy")
        self.assertEqual(request.status, 410)
        self.list_slices(web(5, "n1", "n2"))
        self.watch(SLICES_PATH)

    def missed(self) -> tuple[MemoryRequest, HandExchange, HandExchange]:
        """
        A watch whose client is ahead of the cache, as after a crash, and waits for a difference; and the list that is to tell
        whether the cloud has something to repeat.
        """
        self.cluster.service("web", HOST)
        self.site.run(0.5)
        self.list_slices(web(5, "n1", "n2"))
        request, exchange = self.watch(SLICES_PATH, 20)
        self.assertEqual(exchange.query["resourceVersion"], "10")
        self.cluster.service("web", None)
        self.site.run(0.5)
        listing = clients_at(self.site, SLICES_PATH)[-1]
        self.assertNotIn("watch", listing.query)
        self.assertEqual(request.events, [])
        return request, exchange, listing

    def test_nothing_to_repeat(self) -> None:
        """
        Where the cloud has nothing to repeat for the cache a list shows it; the difference is told, and the watch goes on.
        """
        request, exchange, listing = self.missed()
        listing.answer(200, slice_list([web(5, "n1", "n2")], 25))
        self.site.run(0.5)
        self.assertEqual(told(request), [("MODIFIED", "web-1", "25")])
        exchange.send(event("MODIFIED", web(26, "n2")))
        self.assertEqual(told(request)[1:], [("MODIFIED", "web-1", "26")])
        exchange.end()
        self.site.run(5.0)
        self.assertEqual(clients_at(self.site, SLICES_PATH)[-1].query["resourceVersion"], "26")

    def test_something_to_repeat(self) -> None:
        """
        Where it has, the difference is told after that; the cloud is asked once.
        """
        request, exchange, listing = self.missed()
        listing.answer(200, slice_list([web(15, "n1", "n3")], 25))
        self.site.run(0.5)
        self.assertEqual((request.events, len(clients_at(self.site, SLICES_PATH))), ([], 1))
        exchange.send(event("MODIFIED", web(15, "n1", "n3")) + bookmark(20, "EndpointSlice"))
        self.site.run(0.5)
        self.assertEqual(told(request), [("MODIFIED", "web-1", "20")])
        self.assertEqual(nodes_of(request.events[0]["object"]), ["n1", "n3"])

    def test_gone_while_asked(self) -> None:
        """
        A client that hangs up meanwhile is not told anything, and the question is dropped.
        """
        request, _, listing = self.missed()
        request.hang_up()
        self.site.run(0.5)
        self.assertFalse(listing.is_open)

    def test_during_the_state(self) -> None:
        """
        A watch that begins with what exists, and has no mark where that ends, is told the difference of what it was told so far,
        if the cache knows the rest; what follows is shown as it is to be seen now.
        """
        self.cluster.service("web", HOST)
        self.site.run(0.5)
        self.list_slices(web(5, "n1", "n2"), web(6, "n1", "n2", name="web-2"))
        request, exchange = self.watch(SLICES_PATH, version=0)
        exchange.send(event("ADDED", web(5, "n1", "n2")))
        self.cluster.service("web", None)
        self.site.run(0.5)
        exchange.send(event("ADDED", web(6, "n1", "n2", name="web-2")))
        self.assertEqual(told(request), [("ADDED", "web-1", "5"), ("MODIFIED", "web-1", "5"), ("ADDED", "web-2", "6")])
        self.assertEqual([nodes_of(event["object"]) for event in request.events], [["n1"], ["n1", "n2"], ["n1", "n2"]])

    def test_during_initial_events(self) -> None:
        """
        A change while a watch is told what exists waits until it has been.
        """
        self.cluster.service("web", HOST)
        self.site.run(0.5)
        query = "&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
        request, exchange = self.watch(SLICES_PATH, 0, query)
        exchange.send(event("ADDED", web(5, "n1", "n2")))
        self.cluster.service("web", None)
        self.site.run(0.5)
        exchange.send(event("ADDED", web(6, "n1", "n3", name="web-2")))
        self.assertEqual([nodes_of(one["object"]) for one in request.events], [["n1"], ["n1"]])
        exchange.send(bookmark(10, "EndpointSlice", end=True))
        self.site.run(0.1)
        self.assertEqual([one[0] for one in told(request)], ["ADDED", "ADDED", "BOOKMARK", "MODIFIED", "MODIFIED"])
        self.assertEqual({tuple(nodes_of(one["object"])) for one in request.events[3:]}, {("n1", "n2"), ("n1", "n3")})

    def test_late_services(self) -> None:
        """
        What becomes known late is told to those who were answered unfiltered.
        """
        self.site.stop()
        self.site = MemorySite(self)
        self.cluster = Cluster(self.site)
        self.cluster.refused = {SERVICES: 403}
        self.cluster.node()
        begin(self.site)
        request, _ = self.watching(web(5, "n1", "n2"))
        self.assertIn("servicetopology", request.header("Warning"))
        self.cluster.refused.clear()
        self.cluster.service("web", HOST)
        self.site.run_until(lambda: request.data)
        self.assertEqual([nodes_of(one["object"]) for one in request.events], [["n1"]])

    def test_unaffected(self) -> None:
        """
        Whoever a change does not concern hears nothing, and neither does another component.
        """
        request, _ = self.watching(web(5, "n1", "n2"))
        other, _ = self.watch(SLICES_PATH, agent="my-agent")
        self.cluster.pool("p", "n1")
        self.cluster.service("other", HOST)
        self.site.run(0.5)
        self.assertEqual((request.data, other.data), (b"", b""))


class PartTests(Case):
    """
    Tests of differences that are told in several turns of the reactor.
    """

    def setUp(self) -> None:
        super().setUp()
        self.names = [f"web-{number:04}" for number in range(3 * STEP_ITEMS)]
        self.cluster.service("web", HOST)
        self.site.run(0.5)
        self.list_slices(*(web(5, "n1", "n2", name=name) for name in self.names))
        self.request, self.exchange = self.watch(SLICES_PATH)

    def after_a_part(self, act: Callable[[], object]) -> None:
        """
        The Service asks for nothing any more; between two parts of the difference something happens.
        """
        write = self.request.write

        def write_and_act(data: bytes) -> None:
            self.request.write = write  # type: ignore[method-assign]
            write(data)
            self.site.clock.callLater(0, act)

        self.request.write = write_and_act  # type: ignore[method-assign]
        self.cluster.service("web", None)
        self.site.run(0.5)

    def known(self, *requests: MemoryRequest) -> dict[str, list[str | None]]:
        """
        What the client knows of each slice by what it was told, beginning with its list.
        """
        known: dict[str, list[str | None]] = dict.fromkeys(self.names, ["n1"])
        for one in (one for request in requests for one in request.events):
            name = one["object"]["metadata"]["name"]
            self.assertEqual(one["type"] == "ADDED", name not in known, one)
            known[name] = nodes_of(one["object"])
            if one["type"] == "DELETED":
                del known[name]
        return known

    def test_parts(self) -> None:
        """
        No turn tells more than a part, and all parts tell each slice once.
        """
        parts: list[int] = []
        self.patch(self.request, "write", lambda data: parts.append(data.count(b"\n")))
        self.cluster.service("web", None)
        self.site.run(0.5)
        self.assertEqual([part for part in parts if part], [STEP_ITEMS] * 3)

    def test_bytes(self) -> None:
        """
        Of large objects a part has fewer.
        """
        big = [{**web(20 + number, "n1", "n2", name=f"big-{number}"), "more": "x" * STEP_BYTES} for number in range(4)]
        self.exchange.send(b"".join(event("ADDED", one) for one in big))
        parts: list[int] = []
        self.patch(self.request, "write", lambda data: parts.append(data.count(b"\n")))
        self.cluster.service("web", None)
        self.site.run(0.5)
        self.assertEqual(parts[: len(big)], [1] * len(big))

    def test_events_between(self) -> None:
        """
        What happens between two parts is told once, as it is to be seen from now on.
        """

        def happen() -> None:
            self.exchange.send(event("MODIFIED", web(11, "n1", "n3", name=self.names[-1])))
            self.exchange.send(event("DELETED", web(12, "n1", "n2", name=self.names[-2])))
            self.exchange.send(event("ADDED", web(13, "n1", "n4", name="web-new")))
            self.exchange.send(event("MODIFIED", web(14, "n1", "n5", name=self.names[0])))

        self.after_a_part(happen)
        expected = dict.fromkeys(self.names, ["n1", "n2"])
        expected |= {self.names[-1]: ["n1", "n3"], "web-new": ["n1", "n4"], self.names[0]: ["n1", "n5"]}
        del expected[self.names[-2]]
        self.assertEqual(self.known(self.request), expected)
        self.assertEqual(len(self.request.events), len(self.names) + 2)
        versions = [int(version) for _, _, version in told(self.request)]
        self.assertEqual(versions, sorted(versions))

    def test_changed_again(self) -> None:
        """
        A change between two parts is told after the last of them.
        """
        self.after_a_part(lambda: self.cluster.service("web", HOST))
        self.assertEqual(self.known(self.request), dict.fromkeys(self.names, ["n1"]))
        self.assertEqual(len(self.request.events), 2 * len(self.names))

    def test_comes_back(self) -> None:
        """
        A client that hangs up between two parts is told the rest when it comes back, whatever is to be shown then.
        """
        for topology, expected in ((None, ["n1", "n2"]), (HOST, ["n1"])):
            self.after_a_part(self.request.hang_up)
            self.assertEqual(list(self.known(self.request).values()).count(["n1", "n2"]), STEP_ITEMS)
            self.cluster.service("web", topology)
            self.site.run(0.5)
            again, _ = self.watch(SLICES_PATH)
            self.site.run(0.5)
            self.assertEqual(self.known(self.request, again), dict.fromkeys(self.names, expected))
            again.hang_up()
            self.setUp()

    def test_not_read(self) -> None:
        """
        A client that does not read is told no more until it does.
        """
        self.exchange.fail()
        self.site.run(0.5)
        self.after_a_part(lambda: None)
        before = len(self.request.events)
        self.assertEqual(before, len(self.names))
        self.cluster.service("web", HOST)
        self.request.stop_reading()
        self.site.run(5)
        self.assertEqual((len(self.request.events), self.request.aborted), (before, False))
        self.request.read_on()
        self.site.run(1)
        self.assertEqual(self.known(self.request), dict.fromkeys(self.names, ["n1"]))


class FormTests(Case):
    """
    Tests of watches that take something else than plain objects.
    """

    def begin(self, accept: str, headers: list[tuple[bytes, bytes]] | None = None) -> tuple[MemoryRequest, HandExchange]:
        """
        A watch with that Accept.
        """
        request = self.site.ask("GET", f"{SERVICES}?watch=true&resourceVersion=10", agent="kube-proxy", accept=accept)
        exchange = self.arriving(SERVICES)
        exchange.begin(headers=headers or [(b"Content-Type", b"application/json")])
        self.site.run(0.1)
        return request, exchange

    def test_table(self) -> None:
        """
        Who prefers Tables and takes plain objects gets these, filtered.
        """
        self.list_services()
        request, exchange = self.begin("application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
        self.assertEqual(dict(exchange.head.headers)[b"Accept"], b"application/json")
        exchange.send(event("ADDED", balancer("a", 11, hidden=True)) + event("ADDED", balancer("b", 12)))
        self.assertEqual((told(request), request.header("Warning")), ([("ADDED", "b", "12")], ""))

    def test_insisting(self) -> None:
        """
        Who insists on another form, or on protobuf, is told that nothing is filtered.
        """
        protobuf = "application/vnd.kubernetes.protobuf;stream=watch"
        for accept, why in (
            ("application/json;as=Table;v=v1;g=meta.k8s.io", "the client takes Table only"),
            (protobuf, "the client takes no JSON"),
        ):
            before = self.site.hub.filters.unfiltered["discardcloudservice"]
            self.list_services()
            request, _ = self.begin(accept, [(b"Content-Type", accept.encode())])
            self.assertEqual(request.header("Warning"), f'199 yurthub "filter discardcloudservice is not applied: {why}"')
            self.assertEqual(self.site.hub.filters.unfiltered["discardcloudservice"], before + 1)
            request.hang_up()


class SettingsTests(Case):
    """
    Tests of the ConfigMap yurt-hub-cfg.
    """

    def test_component(self) -> None:
        """
        A component that is added to a filter while it watches, uncached, lists anew; then it is told the difference.
        """
        agent = "my-agent"
        self.list_services(balancer("a", 5, hidden=True), agent=agent)
        request, _ = self.watch(agent=agent)
        self.cluster.settings(discardcloudservice=agent)
        self.site.run(0.5)
        self.assertEqual(request.events[-1]["object"]["code"], 410)
        self.list_services(balancer("a", 5, hidden=True), version=20, agent=agent)
        request, exchange = self.watch(version=20, agent=agent)
        self.cluster.settings()
        self.site.run(0.5)
        self.assertEqual(told(request), [("ADDED", "a", "20")])

    def test_sent_back_is_forgotten(self) -> None:
        """
        What a client knew that was told to list anew is of no interest afterwards, also when its new list has the same version.
        """
        agent = "my-agent"
        self.list_services(balancer("a", 5, hidden=True), agent=agent)
        request, _ = self.watch(agent=agent)
        self.cluster.settings(discardcloudservice=agent)
        self.site.run(0.5)
        self.assertEqual(request.events[-1]["object"]["code"], 410)
        self.list_services(balancer("a", 5, hidden=True), agent=agent)
        request, exchange = self.watch(agent=agent)
        self.assertEqual(told(request), [])

    def test_left_over(self) -> None:
        """
        A component that is in no filter any more, and not cached, lists anew when it comes back, once.
        """
        agent = "my-agent"
        self.cluster.settings(discardcloudservice=agent)
        self.site.run(0.5)
        self.list_services(balancer("a", 5, hidden=True), agent=agent)
        self.cluster.settings()
        self.site.run(0.5)
        request = self.site.fetch("GET", f"{SERVICES}?watch=true&resourceVersion=10", agent=agent)
        self.assertEqual(request.status, 410)
        request, exchange = self.watch(agent=agent)
        exchange.send(event("MODIFIED", balancer("a", 11, hidden=True)))
        self.assertEqual(told(request), [("MODIFIED", "a", "11")])

    def test_cached_component(self) -> None:
        """
        A cached one is told the difference at once.
        """
        self.list_services(balancer("a", 5, hidden=True), agent="coredns")
        request, _ = self.watch(agent="coredns")
        self.cluster.settings(filter_discardcloudservice="coredns/services#list;watch")
        self.site.run(0.5)
        self.assertEqual(told(request), [("DELETED", "a", "10")])
        self.cluster.remove("/api/v1/namespaces/kube-system/configmaps", "yurt-hub-cfg", namespace="kube-system")
        self.site.run(0.5)
        self.assertEqual(told(request)[1:], [("ADDED", "a", "10")])

    def test_cache_agents(self) -> None:
        """
        Agents that the ConfigMap names are cached, beside those of the flags, as long as it names them.
        """
        self.cluster.settings(cache_agents="my-agent, other*")
        self.site.run(0.5)
        cached = self.site.hub.agents.cached
        self.assertEqual([cached(name) for name in ("my-agent", "other-1", "kubelet", "curl")], [True, True, True, False])
        self.cluster.settings()
        self.site.run(0.5)
        cached = self.site.hub.agents.cached
        self.assertEqual([cached(name) for name in ("my-agent", "kubelet")], [False, True])
