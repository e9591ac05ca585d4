"""
Tests of :mod:`yurt.hub.clienttime`: kubelet hears something in its time, whatever has become of the connection to the cloud.
"""

from __future__ import annotations

from math import inf

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import MemoryRequest, MemorySite
from tests.hub.test_writes import EVENTS, NODES, POD_LIST, POD_STATUS, STATUS, STRATEGIC, node, pod
from yurt.hub.clienttime import KEPT_AFTER, time_of
from yurt.hub.wait import ANEW_AFTER
from yurt.kube.requestinfo import parse_request

TOKEN = "/api/v1/namespaces/default/serviceaccounts/default/token"
TOKEN_REQUEST = {"spec": {"audiences": ["a"], "expirationSeconds": 3600}}
TOLD = {"status": {"token": "t", "expirationTimestamp": "2033-01-01T00:00:00Z"}, **TOKEN_REQUEST}


class TimeTests(SynchronousTestCase):
    """
    What clients tell of their time.
    """

    def test_told(self) -> None:
        """
        Go's durations are read; what is none, or 0, is no bound.
        """
        for given, seconds in (("?timeout=10s", 10.0), ("?timeout=1m30s", 90.0), ("?timeout=500ms", 0.5)):
            self.assertEqual(time_of(parse_request(b"GET", f"{NODES}{given}".encode())), seconds)
        for given in ("", "?timeout=", "?timeout=0", "?timeout=0s", "?timeout=10", "?timeout=-1s", "?timeoutSeconds=10"):
            self.assertEqual(time_of(parse_request(b"GET", f"{NODES}{given}".encode())), inf)


class LateTests(SynchronousTestCase):
    """
    The cloud shows life, and one connection to it, which a load balancer keeps, leads nowhere any more.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()
        self.site.store_list(NODES, [node()], "10", "NodeList")
        self.site.store_list(POD_LIST, [pod()], "10", "PodList")

    def assert_kept(self, request: MemoryRequest, path: str, status: int = 200) -> None:
        """
        The hub has answered, gives up the connection and those of the time before, and sends what it kept over another one.
        """
        self.assertEqual((request.status, request.header("x-yurt-source")), (status, "hub"), request.data)
        self.assertTrue(self.site.cloud.reachable)
        self.assertTrue(self.site.upstream.retired)
        self.assertEqual(self.site.at_cloud(path), [])
        again = self.site.arriving(path)
        again.answer(200, {"kind": "Event", "metadata": {"name": "e"}} if "events" in path else node(7))
        self.site.run_until(lambda: len(self.site.hub.journal) == 0)
        self.site.run(30)
        self.assertEqual(self.site.at_cloud(path), [], "sent twice")

    def test_node(self) -> None:
        """
        The status of the node is kept in time for a kubelet that waits 10 s, or 2 s, as it says itself.
        """
        for told, seconds in (("10s", 10.0), ("2s", 2.0)):
            request = self.site.ask("PATCH", f"{STATUS}?timeout={told}", {"status": {}}, content_type=STRATEGIC)
            self.site.run(seconds * 0.75)
            self.assertEqual(request.status, 0)
            self.site.run(seconds * 0.2)
            self.assert_kept(request, STATUS)

    def test_others(self) -> None:
        """
        So are the status of a pod, and events, for which kubelet would wait for ever, and nothing else be told meanwhile.
        """
        event = {"kind": "Event", "metadata": {"name": "e", "namespace": "default"}}
        for method, path, body, kept_at, status in (
            ("PATCH", POD_STATUS, {"status": {"phase": "Running"}}, POD_STATUS, 200),
            ("POST", EVENTS, event, EVENTS, 201),
            ("PATCH", f"{EVENTS}/e", {"count": 2}, f"{EVENTS}/e", 200),
        ):
            request = self.site.ask(method, path, body, content_type=STRATEGIC if method == "PATCH" else "application/json")
            self.site.run(KEPT_AFTER + 1)
            self.assert_kept(request, kept_at, status)

    def test_half_an_answer(self) -> None:
        """
        An answer that has begun is none yet: kubelet does not see it break off.
        """
        for is_lost in (False, True):
            request = self.site.ask("PATCH", STATUS, {"status": {}}, content_type=STRATEGIC)
            exchange = self.site.arriving(STATUS)
            exchange.begin()
            exchange.send(b'{"kind":')
            if is_lost:
                exchange.fail("connection reset")
            self.site.run(KEPT_AFTER + 1)
            self.assertEqual((request.status, request.header("x-yurt-source"), request.aborted), (200, "hub", False))
            self.site.arriving(STATUS).answer(200, node(7))
            self.site.run_until(lambda: len(self.site.hub.journal) == 0)

    def test_slow_cloud(self) -> None:
        """
        A cloud that needs most of that time is waited for.
        """
        request = self.site.ask("PATCH", f"{STATUS}?timeout=10s", {"status": {}}, content_type=STRATEGIC)
        self.site.run(7.5)
        self.site.arriving(STATUS).answer(200, node(7))
        self.assertEqual((request.status, request.header("x-yurt-source")), (200, "cloud"))
        self.assertEqual((len(self.site.hub.journal), self.site.upstream.retired), (0, 0))

    def test_read(self) -> None:
        """
        What kubelet reads of its node is answered in its time, too, by the cache; what the cache cannot answer, and what is read
        with more patience, is waited for.
        """
        read = self.site.ask("GET", f"{NODES}/n1?timeout=10s")
        unseen = self.site.ask("GET", f"{NODES}/n2?timeout=10s", agent="kube-proxy")
        patient = self.site.ask("GET", f"{NODES}/n1")
        self.site.run(9.5)
        self.assertEqual((read.status, read.header("x-yurt-source")), (200, "cache"))
        self.assertEqual((unseen.status, patient.status), (0, 0))
        self.site.run(ANEW_AFTER - 9.5 + 2)
        for exchange in self.site.at_cloud(f"{NODES}/n1") + self.site.at_cloud(f"{NODES}/n2"):
            exchange.answer(200, node(7))
        self.assertEqual((unseen.header("x-yurt-source"), patient.header("x-yurt-source")), ("cloud", "cloud"))

    def test_token(self) -> None:
        """
        The last token for the same does, if there is one.
        """
        unseen = self.site.ask("POST", TOKEN, TOKEN_REQUEST)
        self.site.run(KEPT_AFTER + 1)
        self.assertEqual(unseen.status, 0)
        self.site.arriving(TOKEN).answer(201, TOLD)
        self.assertEqual(unseen.header("x-yurt-source"), "cloud")
        again = self.site.ask("POST", TOKEN, TOKEN_REQUEST)
        self.site.run(KEPT_AFTER + 1)
        self.assertEqual((again.status, again.header("x-yurt-source")), (201, "cache"))

    def test_what_cannot_be_kept(self) -> None:
        """
        No other write is answered before the cloud is known to be gone.
        """
        request = self.site.ask("POST", "/api/v1/namespaces/default/configmaps?timeout=10s", {"metadata": {"name": "a"}})
        self.site.run(30)
        self.assertEqual(request.status, 0)

    def test_before_the_first_verdict(self) -> None:
        """
        A hub that has just been started, and does not know about the cloud yet, keeps a status in time.
        """
        self.site.upstream.frozen = True
        self.site.reboot()
        request = self.site.ask("PATCH", f"{STATUS}?timeout=2s", {"status": {}}, content_type=STRATEGIC)
        self.site.run(1.5)
        self.assertFalse(self.site.cloud.known)
        self.assertEqual((request.status, request.header("x-yurt-source")), (200, "hub"))
        self.site.upstream.frozen = False
        self.site.online()
        self.site.arriving(STATUS).answer(200, node(7))
        self.site.run_until(lambda: len(self.site.hub.journal) == 0)
