"""
The sweep of the cache: what goes, what stays, and who is asked first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast
from unittest.mock import patch

from twisted.logger import ILogObserver, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import MAPS, NODE, PODS, HandExchange, MemorySite, config_map
from yurt.http.heads import get_header
from yurt.hub import housekeeping
from yurt.hub.cache.quota import KUBELET, Quota
from yurt.hub.cache.views import Found
from yurt.hub.housekeeping import CONFIRM_PAUSE, EVENT_LIFE, LOOK_INTERVAL, RETRY_SWEEP, UNSEEN_FOR
from yurt.kube.status import status_body

OWN = f"{PODS}?fieldSelector=spec.nodeName%3D{NODE}"
FREQUENCY = 3600.0
SECRETS = "/api/v1/namespaces/default/secrets"
EVENTS = "/api/v1/namespaces/default/events"


def pod(name: str, version: int = 5, node: str = NODE) -> dict[str, Any]:
    """
    A pod on a node.
    """
    metadata = {"name": name, "namespace": "default", "resourceVersion": str(version), "uid": f"uid-{name}"}
    return {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": {"nodeName": node}, "status": {}}


class SweepCase(SynchronousTestCase):
    """
    A hub whose cloud lists pods as ``listed`` says, and answers other questions of the sweep as ``answers`` say.
    """

    settings: dict[str, Any] = {}

    def setUp(self) -> None:
        self.site = MemorySite(self, gc_frequency=FREQUENCY, **self.settings)
        self.listed: list[dict[str, Any]] | tuple[int, Any] = []
        self.version = 100
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[HandExchange] = []
        self.log: list[dict[str, Any]] = []
        observer = cast(ILogObserver, self.log.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.site.upstream.on_request = self.answer
        self.site.online()

    @property
    def hub(self) -> Any:
        return self.site.hub

    def answer(self, exchange: HandExchange) -> None:
        """
        What the cloud says to the hub's own questions; those of clients wait.
        """
        if not (get_header(exchange.head.headers, b"user-agent") or b"yurthub/").startswith(b"yurthub/"):
            return
        self.asked.append(exchange)
        if exchange.path == PODS:
            exchange.answer(*self.listed) if isinstance(self.listed, tuple) else exchange.answer(200, self.pod_list(self.listed))
        else:
            missing = status_body(404, "NotFound", f"{exchange.path} not found")
            exchange.answer(*self.answers.get(exchange.path, (404, missing)))

    def pod_list(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """
        The list of metadata.
        """
        heads = [{"metadata": item["metadata"]} for item in items]
        head = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
        return {**head, "metadata": {"resourceVersion": str(self.version)}, "items": heads}

    def sweep(self) -> None:
        """
        One whole sweep, or its failure.
        """
        self.asked.clear()
        before = self.hub.housekeeping.swept.sweeps
        self.hub.housekeeping._begin()
        self.site.run_until(lambda: self.hub.housekeeping._running is None, CONFIRM_PAUSE + 60)
        self.done = self.hub.housekeeping.swept.sweeps - before

    def removed(self, what: str) -> int:
        """
        What was counted.
        """
        number: int = self.hub.housekeeping.swept.removed[what]
        return number

    def lines(self, word: str) -> list[str]:
        """
        What was logged with that word.
        """
        return [one["log_format"] for one in self.log if word in (one.get("log_format") or "")]

    def read(self, name: str) -> Any:
        """
        A pod, as kubelet would read it without the cloud.
        """
        return self.hub.views.read_object(KUBELET, "/v1/pods", "", "default", name)

    def get(self, name: str, document: dict[str, Any], **options: Any) -> None:
        """
        Let kubelet read a pod from the cloud.
        """
        path = f"/api/v1/namespaces/default/pods/{name}"
        self.site.ask("GET", path, **options)
        self.site.arriving(path).answer(200, document)


class PodTests(SweepCase):
    """
    Pods that the cloud has no longer.
    """

    def setUp(self) -> None:
        super().setUp()
        for name in ("a", "b", "c"):
            self.get(name, pod(name))

    def test_gone(self) -> None:
        """
        A pod that the cloud lacks twice goes, others stay, and it is counted and logged.
        """
        self.listed = [pod("a"), pod("c")]
        self.sweep()
        self.assertIsNone(self.read("b"))
        self.assertIsInstance(self.read("a"), Found)
        self.assertEqual((self.removed("pods"), self.done, self.hub.views.objects), (1, 1, 2))
        self.assertEqual(len(self.lines("swept the cache")), 1)
        self.assertEqual([one.query["fieldSelector"] for one in self.asked], [f"spec.nodeName%3D{NODE}"] * 2)
        self.assertIn(b"PartialObjectMetadataList", dict(self.asked[0].head.headers)[b"Accept"])

    def test_nothing_gone(self) -> None:
        """
        Where all are there, one question is enough.
        """
        self.listed = [pod("a"), pod("b"), pod("c")]
        self.sweep()
        self.assertEqual((self.removed("pods"), len(self.asked), self.done), (0, 1, 1))

    def test_never_all(self) -> None:
        """
        A cloud that lists no pod at all is not believed: all stay, and the log and a counter say so.
        """
        self.sweep()
        self.assertEqual((self.removed("pods"), self.hub.views.objects, self.hub.housekeeping.swept.refused), (0, 3, 1))
        self.assertEqual(len(self.lines("the cloud has none of the")), 1)

    def test_lying_cloud(self) -> None:
        """
        Answers that are no whole list remove nothing, and the sweep is put off.
        """
        broken: dict[str, Any] = self.pod_list([pod("a")])
        paged = {**broken, "metadata": {"resourceVersion": "100", "continue": "more"}}
        for answer in (
            (403, b""),
            (500, b"oops"),
            (200, b"<html>"),
            (200, b"{}"),
            (200, paged),
            (200, {**broken, "metadata": {}}),
        ):
            self.listed = answer
            self.sweep()
            self.assertEqual((self.removed("pods"), self.hub.views.objects, self.done), (0, 3, 0), answer)
        self.assertEqual(len(self.lines("the sweep is put off")), 6)
        self.listed = [pod("a"), pod("c")]
        self.site.run_until(lambda: self.removed("pods"), RETRY_SWEEP + 120)

    def test_asked_twice(self) -> None:
        """
        A pod that is there again in the second list stays.
        """
        self.listed = [pod("a")]
        self.hub.housekeeping._begin()
        self.site.run_until(lambda: self.asked)
        self.listed = [pod("a"), pod("b"), pod("c")]
        self.site.run_until(lambda: self.hub.housekeeping.swept.sweeps)
        self.assertEqual((len(self.asked), self.removed("pods")), (2, 0))

    def test_newer_than_the_list(self) -> None:
        """
        What is newer than the cloud's list, as after a restored backup, or made since, stays.
        """
        self.get("new", pod("new", 200))
        self.listed = [pod("a"), pod("c")]
        self.sweep()
        self.assertIsInstance(self.read("new"), Found)
        self.assertIsNone(self.read("b"))

    def test_others(self) -> None:
        """
        Pods of other nodes, and what other callers were told, are left alone.
        """
        self.get("far", pod("far", node="n2"))
        self.get("b", pod("b"), agent="kube-proxy")
        self.listed = [pod("a"), pod("c")]
        self.sweep()
        self.assertIsInstance(self.read("far"), Found)
        self.assertIsNone(self.read("b"))
        proxy = KUBELET._replace(component="kube-proxy")
        self.assertIsInstance(self.hub.views.read_object(proxy, "/v1/pods", "", "default", "b"), Found)

    def test_lists(self) -> None:
        """
        A pod leaves kubelet's list, too, where no watch has brought its end.
        """
        self.site.store_list(OWN, [pod("a"), pod("b"), pod("c")], "50", kind="PodList")
        self.listed = [pod("a"), pod("c")]
        self.sweep()
        self.assertIsNone(self.read("b"))
        self.site.offline()
        names = [item["metadata"]["name"] for item in self.site.fetch("GET", OWN).json["items"]]
        self.assertEqual(names, ["a", "c"])

    def test_offline(self) -> None:
        """
        Without the cloud nothing is swept; when it goes away on the way, neither.
        """
        self.site.offline()
        self.sweep()
        self.assertEqual((self.hub.views.objects, self.done, self.asked), (3, 0, []))
        self.site.online()
        self.listed = [pod("a")]
        self.hub.housekeeping._begin()
        self.site.run_until(lambda: self.asked)
        self.site.offline()
        self.site.run(CONFIRM_PAUSE + 1)
        self.assertEqual((self.hub.views.objects, self.hub.housekeeping.swept.sweeps), (3, 0))

    def test_unsent_status(self) -> None:
        """
        A pod whose last status the cloud has still to hear stays until it was told.
        """
        self.site.offline()
        patch_body = {"status": {"phase": "Running"}}
        path = "/api/v1/namespaces/default/pods/b/status"
        self.assertEqual(
            self.site.fetch("PATCH", path, patch_body, content_type="application/strategic-merge-patch+json").status, 200
        )
        self.site.online()
        self.listed = [pod("a"), pod("c")]
        self.answers[path] = (503, b"")
        with patch.object(housekeeping, "CONFIRM_PAUSE", 0.5):
            self.sweep()
        self.assertIsInstance(self.read("b"), Found)

    def test_while_a_list_is_taken_in(self) -> None:
        """
        The sweep waits for a long list that is being stored, and neither spoils the other.
        """
        many = [pod(f"p{number}") for number in range(1200)]
        self.listed = [pod("a"), pod("c"), *many]
        self.hub.housekeeping._begin()
        self.site.run(CONFIRM_PAUSE - 1)
        self.site.ask("GET", OWN)
        lists = self.site.arriving(PODS)
        whole = {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "60"}, "items": [pod("b"), *many]}

        def answer(exchange: HandExchange) -> None:
            if exchange is lists:
                return
            lists.answer(200, whole)
            self.assertIsNotNone(self.hub.turns._steps)
            self.answer(exchange)
            self.assertEqual(self.hub.housekeeping.swept.sweeps, 0)

        self.site.upstream.on_request = answer
        self.site.run_until(lambda: self.hub.housekeeping.swept.sweeps)
        self.assertEqual((len(self.asked), self.removed("pods")), (2, 1))
        self.assertIsNone(self.read("b"))
        self.assertEqual(self.hub.views.objects, 1202)


class EventTests(SweepCase):
    """
    Events past their life.
    """

    def setUp(self) -> None:
        super().setUp()
        self.site.store_list(EVENTS, [self.event("old"), self.event("kept")], "50", kind="EventList")
        self.answers[f"{EVENTS}/kept"] = (200, self.event("kept"))

    def event(self, name: str) -> dict[str, Any]:
        """
        An Event from the cloud.
        """
        return {**config_map(name, 7), "kind": "Event"}

    def names(self) -> list[str]:
        """
        The events that are left.
        """
        return sorted(member.decode().partition("/")[2] for member in self.hub.views.upkeep.held(KUBELET, "/v1/events"))

    def test_over(self) -> None:
        """
        An event that the cloud has not confirmed for an hour and does not have any more goes; one that it has stays, and is not
        asked for again until another hour has passed.
        """
        self.sweep()
        self.assertEqual((self.names(), self.asked), (["kept", "old"], []))
        self.site.clock.advance(EVENT_LIFE)
        self.sweep()
        self.assertEqual((self.names(), self.removed("events"), len(self.asked)), (["kept"], 1, 2))
        self.sweep()
        self.assertEqual(self.asked, [])

    def test_undecided(self) -> None:
        """
        Where the node may not read events, or something on the way answers for the cloud, they stay.
        """
        self.site.clock.advance(EVENT_LIFE + 1)
        for answer in ((403, status_body(403, "Forbidden", "no")), (404, b"not here"), (500, b"")):
            self.answers[f"{EVENTS}/old"] = answer
            self.sweep()
            self.assertEqual((self.names(), self.done), (["kept", "old"], 1), answer)


class ComponentTests(SweepCase):
    """
    Components that are not seen any more.
    """

    def setUp(self) -> None:
        super().setUp()
        self.site.store_list(MAPS, [config_map("m", 1)], "10")
        self.site.store_list(MAPS, [config_map("m", 1)], "10", agent="coredns")
        self.site.store_list(MAPS, [config_map("n", 1)], "10", agent="flanneld")

    def live(self, days: float, *agents: str) -> None:
        """
        Let the hub run, with the cloud, and some components ask.
        """
        for _ in range(round(days)):
            for agent in agents:
                self.site.ask("GET", MAPS, agent=agent)
                self.site.arriving(MAPS).answer(404, b"")
            self.site.clock.advance(86400.0)
            self.sweep()

    def components(self) -> list[str]:
        """
        Who has views.
        """
        return sorted(caller.component for caller in self.hub.views.upkeep.callers())

    def test_unseen(self) -> None:
        """
        Who was not seen for 30 days goes, with what only it held; who was seen stays, and kubelet in any case.
        """
        with patch.object(self.hub.housekeeping, "_frequency", 86400.0):
            self.live(29, "coredns")
            self.assertEqual(self.components(), ["coredns", "flanneld", "kubelet"])
            self.live(2, "coredns")
        self.assertEqual((self.components(), self.removed("components")), (["coredns", "kubelet"], 1))
        self.site.run(3)
        self.assertEqual(self.hub.views.objects, 1)

    def test_time_away(self) -> None:
        """
        The time of a node that was off, or of a clock put right by years, does not count.
        """
        self.site.stop()
        with patch.object(self.site, "wall", lambda: 4e9):
            self.site.boot()
            self.site.online()
            self.sweep()
        self.assertEqual(self.components(), ["coredns", "flanneld", "kubelet"])

    def test_counted_on(self) -> None:
        """
        What was counted before a restart counts after it.
        """
        self.sweep()
        with patch.object(self.hub.housekeeping, "_frequency", UNSEEN_FOR):
            self.site.clock.advance(UNSEEN_FOR - 86400)
            self.sweep()
        self.site.reboot()
        self.site.online()
        with patch.object(self.hub.housekeeping, "_frequency", UNSEEN_FOR):
            self.site.clock.advance(86400)
            self.sweep()
        self.assertEqual(self.components(), ["kubelet"])


class QuotaTests(SweepCase):
    """
    Nobody keeps more than its share.
    """

    settings = {
        "cache_quota": Quota(total=24 << 20, components={"kube-proxy": 3 << 20, "kubelet": 8 << 20}, others=2 << 20),
        "cache_agents": ("kubelet", "kube-proxy", "coredns", "kubectl"),
    }

    def store(self, agent: str, namespace: str, mebibytes: float, resource: str = "configmaps", token: str = "") -> None:
        """
        Let a component list so much.
        """
        count = round(mebibytes * 16)
        items = [config_map(f"{namespace}-{index}", 1, data={"x": "y" * 65_300}) for index in range(count)]
        self.site.store_list(f"/api/v1/namespaces/{namespace}/{resource}", items, "10", kind="List", agent=agent, token=token)
        self.site.run(0.1)

    def held(self, agent: str) -> list[str]:
        """
        The namespaces of a component's views.
        """
        return sorted(key.namespace for key, _ in self.hub.views.views() if key.caller.component == agent)

    def test_component(self) -> None:
        """
        Of who holds too much the views that were updated longest ago go, until it fits; others keep theirs.
        """
        for namespace in ("one", "two", "three"):
            self.store("kube-proxy", namespace, 1.4)
            self.site.run(1)
        self.store("coredns", "one", 1.4)
        self.sweep()
        self.assertEqual((self.held("kube-proxy"), self.held("coredns")), (["three", "two"], ["one"]))
        self.assertEqual(self.removed("views"), 1)
        usage = self.hub.housekeeping.swept.usage
        self.assertEqual({name: round(size / (1 << 20), 1) for name, size in usage.items()}, {"kube-proxy": 2.7, "coredns": 1.4})

    def test_soon(self) -> None:
        """
        When much has come, the quotas are kept before the next sweep.
        """
        for namespace in ("one", "two", "three"):
            self.store("kube-proxy", namespace, 1.4)
        self.site.run_until(lambda: self.removed("views"), LOOK_INTERVAL + 5)
        self.assertEqual((len(self.held("kube-proxy")), self.hub.housekeeping.swept.sweeps), (2, 0))

    def test_too_large(self) -> None:
        """
        A list that alone is beyond its component's quota is not stored at all, and what was known is not taken for whole.
        """
        self.store("kubectl", "one", 1.4)
        self.store("kubectl", "one", 2.4)
        self.assertEqual(self.hub.views.refused, 1)
        self.site.offline()
        self.assertEqual(self.site.fetch("GET", "/api/v1/namespaces/one/configmaps", agent="kubectl").status, 503)

    def test_offline(self) -> None:
        """
        Without the cloud nobody loses what cannot be had again.
        """
        for namespace in ("one", "two", "three"):
            self.store("kube-proxy", namespace, 1.4)
        self.site.offline()
        self.sweep()
        self.site.run(2 * LOOK_INTERVAL)
        self.assertEqual(len(self.held("kube-proxy")), 3)

    def test_order(self) -> None:
        """
        When all together is too much, pods' callers go first, then the node's components, and kubelet's Secrets, ConfigMaps and
        pods last, however old they are.
        """
        self.store("kubelet", "vital", 1.4, "secrets")
        for index in range(4):
            self.store("kubelet", f"n{index}", 1.4, "services")
        self.store("kube-proxy", "one", 1.4, "services")
        self.store("kubelet", "of-a-pod", 1.4, "secrets", token="a-pods-own")
        shelf, gone = self.hub.views._shelf, []
        evict = shelf.evict

        def noted(view: Any) -> None:
            gone.append(view.key.namespace)
            evict(view)

        with patch.object(shelf, "quota", Quota(total=2 << 20)), patch.object(shelf, "evict", noted):
            self.hub.store.flush()
            self.site.run_until(lambda: self.hub.views.object_bytes <= 2 << 20, 3)
        self.assertEqual(gone, ["of-a-pod", "n0", "n1", "n2", "n3", "one"])
        self.assertEqual(self.held("kubelet"), ["vital"])

    def test_recount(self) -> None:
        """
        What is counted is put right by a sweep, so that records that were lost do not fill the quota for ever.
        """
        self.store("kube-proxy", "one", 1.4)
        counts = self.hub.views._shelf.counted()
        self.hub.views._shelf.recount(99, 1 << 30)
        self.sweep()
        self.assertEqual(self.hub.views._shelf.counted(), counts)


class ExcludedTests(SynchronousTestCase):
    """
    What the operator does not want kept any more.
    """

    def test_earlier_run(self) -> None:
        """
        Secrets and tokens that an earlier run kept are removed when the hub starts without them.
        """
        site = MemorySite(self)
        site.online()
        site.store_list(SECRETS, [config_map("s", 1)], "10", kind="SecretList")
        site.store_list(MAPS, [config_map("m", 1)], "10")
        token = "/api/v1/namespaces/default/serviceaccounts/default/token"
        answer = {"kind": "TokenRequest", "status": {"token": "t", "expirationTimestamp": "2033-01-01T00:00:00Z"}}
        request = site.ask("POST", token, {"kind": "TokenRequest", "spec": {}})
        site.arriving(token).answer(201, answer)
        self.assertTrue(request.finished)
        again = MemorySite(self, site.path + "-moved", cache_exclude=("secrets", "serviceaccounts/token"))
        site.stop()
        again.stop()
        again.config = replace(again.config, disk_cache_path=site.path, root_dir=site.config.root_dir)
        again.path = site.path
        again.boot()
        again.run(3)
        self.assertEqual([key.gvr for key, _ in again.hub.views.views()], ["/v1/configmaps"])
        self.assertEqual(again.hub.views.objects, 1)
        self.assertEqual(list(again.store.table("tokenrequests").scan()), [])
