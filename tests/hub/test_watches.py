"""
Tests of watches that outlive the connections behind them, on a clock.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import MAPS, HandExchange, MemorySite, bookmark, config_map, error_event, event, open_watch
from yurt.hub.holding import BOOKMARK_INTERVAL
from yurt.kube.protobuf import MAGIC, encode_bytes
from yurt.kube.watch import ProtobufFramer, read_protobuf_event


class HoldTests(SynchronousTestCase):
    """
    Tests of the end of an upstream response, and what comes after.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()

    def test_passes_events_on(self) -> None:
        """
        Events reach the client as they came, under the head of the cloud's answer.
        """
        request, exchange = open_watch(self.site)
        line = event("ADDED", config_map("a", 11))
        exchange.send(line)
        self.assertEqual((request.status, request.header("x-yurt-source"), request.data), (200, "cloud", line))

    def test_resumes_after_each_kind_of_end(self) -> None:
        """
        A reset, an early end in good order and an error event that is not 410 leave the response open; the watch goes on at
        the last version.
        """
        request, exchange = open_watch(self.site)
        ends = [HandExchange.fail, HandExchange.end, lambda one: one.send(error_event(500, "InternalError"))]
        for version, end in enumerate(ends, 11):
            exchange.send(event("MODIFIED", config_map("a", version)))
            end(exchange)
            exchange = self.site.arriving(MAPS)
            self.assertEqual(exchange.query["resourceVersion"], str(version))
            exchange.begin()
        self.assertEqual(request.told, [("MODIFIED", "11"), ("MODIFIED", "12"), ("MODIFIED", "13")])
        self.assertFalse(request.finished or request.aborted)

    def test_part_of_an_event_is_not_passed_on(self) -> None:
        """
        What broke off in the middle of an event comes once, whole.
        """
        request, exchange = open_watch(self.site)
        line = event("ADDED", config_map("a", 11))
        exchange.send(line[:30])
        exchange.fail()
        again = self.site.arriving(MAPS)
        self.assertEqual(again.query["resourceVersion"], "10")
        again.begin()
        again.send(line)
        self.assertEqual(request.data, line)

    def test_bookmarks_move_the_point_of_resuming(self) -> None:
        """
        The hub asks for bookmarks, resumes at the last one, and does not bother a client with them that did not ask.
        """
        request, exchange = open_watch(self.site)
        self.assertEqual(exchange.query["allowWatchBookmarks"], "true")
        exchange.send(bookmark(90))
        exchange.fail()
        self.assertEqual(self.site.arriving(MAPS).query["resourceVersion"], "90")
        self.assertEqual(request.data, b"")

    def test_bookmarks_are_passed_on(self) -> None:
        """
        A client that asked for bookmarks gets them.
        """
        request, exchange = open_watch(self.site, "resourceVersion=10&allowWatchBookmarks=true")
        exchange.send(bookmark(90))
        self.assertEqual(request.told, [("BOOKMARK", "90")])

    def test_a_break_is_a_sign(self) -> None:
        """
        A watch that breaks off has its server probed at once.
        """
        _, exchange = open_watch(self.site)
        self.site.upstream.alive = False
        exchange.fail()
        self.site.run_until(lambda: not self.site.cloud.reachable, 1.0)

    def test_client_hangs_up(self) -> None:
        """
        A client that hangs up frees the connection to the cloud, attached or held.
        """
        request, exchange = open_watch(self.site)
        request.hang_up()
        self.assertTrue(exchange.cancelled)
        held, _ = open_watch(self.site)
        self.site.offline()
        held.hang_up()
        self.site.online()
        self.site.run(30)
        self.assertEqual(self.site.at_cloud(MAPS), [])
        self.assertEqual(len(self.site.hub.watches), 0)


class EndTests(SynchronousTestCase):
    """
    Tests of what does end a watch.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()

    def test_expired(self) -> None:
        """
        410 in answer to resuming, as a status or as an event, is the client's to know, and the end, if much has happened since.
        """
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410}
        for as_event in (False, True):
            request, exchange = open_watch(self.site)
            exchange.fail()
            again = self.site.arriving(MAPS)
            if as_event:
                again.begin()
                again.send(error_event(410, "Expired"))
            else:
                again.answer(410, status)
            self.site.arriving(MAPS).answer(410, status)
            (last,) = request.events
            self.assertEqual((last["type"], last["object"]["code"]), ("ERROR", 410))
            self.assertTrue(request.finished)

    def test_event_that_nobody_understands(self) -> None:
        """
        A line that is no event is passed on once, and what surrounds it too.
        """
        request, exchange = open_watch(self.site)
        lines = event("ADDED", config_map("a", 11)), b'{"type":5}\n', event("ADDED", config_map("b", 12))
        exchange.send(b"".join(lines))
        self.assertEqual(request.data, b"".join(lines))


class ManyTests(SynchronousTestCase):
    """
    Tests of many watches at once.
    """

    def test_one_that_does_not_read(self) -> None:
        """
        A client that stops reading holds back its own stream and nobody else's.
        """
        site = MemorySite(self)
        site.online()
        slow, slow_exchange = open_watch(site, agent="slow")
        quick, quick_exchange = site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10", agent="quick"), site.at_cloud(MAPS)[1]
        quick_exchange.begin()
        slow.stop_reading()
        self.assertEqual((slow_exchange.paused, quick_exchange.paused), (True, False))
        quick_exchange.send(event("ADDED", config_map("a", 11)))
        self.assertEqual(quick.told, [("ADDED", "11")])


class ProtobufTests(SynchronousTestCase):
    """
    Tests of watches in protobuf, of clients that are not cached.
    """

    def test_resumes(self) -> None:
        """
        Protobuf events pass byte for byte, and the watch resumes after the last whole one.
        """
        site = MemorySite(self)
        site.online()
        protobuf = "application/vnd.kubernetes.protobuf;stream=watch"
        request = site.ask("GET", f"{MAPS}?watch=true&resourceVersion=10", agent="stranger", accept=protobuf)
        headers = [(b"Content-Type", protobuf.encode())]
        exchange = site.arriving(MAPS)
        exchange.begin(200, headers)
        frames = [protobuf_event("ADDED", "a", version) for version in (11, 12, 13)]
        exchange.send(frames[0] + frames[1][:9])
        exchange.fail()
        again = site.arriving(MAPS)
        self.assertEqual(again.query["resourceVersion"], "11")
        again.begin(200, headers)
        again.send(frames[1][:2])
        again.send(frames[1][2:] + frames[2])
        self.assertEqual(request.data, b"".join(frames))
        site.offline()
        site.run(BOOKMARK_INTERVAL + 1)
        self.assertEqual(request.data, b"".join(frames))

    def test_bookmarks_without_the_cloud(self) -> None:
        """
        They come in protobuf, too.
        """
        site = MemorySite(self)
        site.online()
        protobuf = "application/vnd.kubernetes.protobuf;stream=watch"
        target = f"{MAPS}?watch=true&resourceVersion=10&allowWatchBookmarks=true"
        request = site.ask("GET", target, agent="stranger", accept=protobuf)
        exchange = site.arriving(MAPS)
        exchange.begin(200, [(b"Content-Type", protobuf.encode())])
        exchange.send(protobuf_event("ADDED", "a", 11))
        site.offline()
        site.run(BOOKMARK_INTERVAL + 1)
        _, frame = ProtobufFramer().feed(request.data)
        event = read_protobuf_event(frame)
        self.assertEqual((event.type, event.kind, event.meta.resource_version), ("BOOKMARK", "ConfigMap", "11"))


def protobuf_event(event_type: str, name: str, version: int) -> bytes:
    """
    WatchEvent{type=1, object=2{raw=1: "k8s\\0" Unknown{typeMeta=1{apiVersion=1, kind=2}, raw=2: ConfigMap{metadata=1}}}} of
    apimachinery's generated.proto, after its length; ObjectMeta: name=1, namespace=3, resourceVersion=6.
    """
    metadata = encode_bytes(1, name.encode()) + encode_bytes(3, b"default") + encode_bytes(6, str(version).encode())
    type_meta = encode_bytes(1, b"v1") + encode_bytes(2, b"ConfigMap")
    unknown = encode_bytes(1, type_meta) + encode_bytes(2, encode_bytes(1, metadata))
    frame = encode_bytes(1, event_type.encode()) + encode_bytes(2, encode_bytes(1, MAGIC + unknown))
    return len(frame).to_bytes(4, "big") + frame
