"""
Tests of bodies that take their time: where they wait, how much of them is held, for whom, and how long.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import MAPS, PODS, HandExchange, MemoryRequest, MemorySite
from yurt.http.interfaces import BodyReceiver, FlowControlled, Headers
from yurt.hub.delivery import STALLED_FOR
from yurt.hub.identity import Door
from yurt.hub.writes import MAX_BUFFERED_TOTAL, MAX_BUFFERED_WRITE

PIECE = b"x" * 60_000
KUBELET: Headers = [(b"User-Agent", b"kubelet/v1.30.0"), (b"Content-Type", b"application/json")]


class Upload(MemoryRequest):
    """
    A write whose body comes piece by piece.
    """

    def __init__(self, headers: Headers, method: str = "POST", door: str = "loopback") -> None:
        super().__init__(method, MAPS, headers, b"", Door(door, lends_node_identity=door == "loopback"))
        self.held = False
        self.receiver: BodyReceiver | None = None

    def read_body(self, receiver: BodyReceiver) -> FlowControlled:
        self.receiver = receiver
        return self

    def pause(self) -> None:
        self.held = True

    def resume(self) -> None:
        self.held = False

    def send(self, data: bytes) -> None:
        assert self.receiver is not None, "nobody reads"
        self.receiver.body_received(data)

    def end(self) -> None:
        assert self.receiver is not None
        self.receiver.body_finished([])


class UploadTests(SynchronousTestCase):
    """
    Tests of slow and of large bodies.
    """

    def begin(self, site: MemorySite, headers: Headers = KUBELET, method: str = "POST", door: str = "loopback") -> Upload:
        """
        The head of a write is there.
        """
        upload = Upload(headers, method, door)
        site.proxy.handle(upload)
        return upload

    def uploading(self, site: MemorySite) -> list[HandExchange]:
        """
        The uploads that wait at the cloud.
        """
        return site.at_cloud(MAPS)

    def test_other_server(self) -> None:
        """
        A body held back while a dead server was dialled goes on to the other one, from its beginning.
        """
        for method in ("POST", "PUT"):
            site = MemorySite(self, servers=2)
            site.run(1)
            upload = self.begin(site, [(b"User-Agent", b"kubectl/v1.30.0")], method)
            first = site.arriving(MAPS)
            upload.send(b"first ")
            self.assertIs(first.source, upload)
            upload.pause()  # as an exchange does whose connection does not stand yet
            first.fail("refused", sent=False)
            second = site.arriving(MAPS)
            self.assertIsNot(first.upstream, second.upstream)
            self.assertEqual((second.source, upload.held), (upload, False))
            upload.send(b"second")
            upload.end()
            self.assertEqual((second.body, second.complete), (b"first second", True))

    def test_unknown_cloud(self) -> None:
        """
        Right after the start a large body waits for the verdict on the cloud instead of filling memory; then it goes on.
        """
        site = MemorySite(self)
        upload = self.begin(site)
        sent = 0
        while not upload.held:
            self.assertLessEqual(sent, MAX_BUFFERED_WRITE)
            upload.send(PIECE)
            sent += len(PIECE)
        site.online()
        exchange = site.arriving(MAPS)
        self.assertEqual((upload.held, len(exchange.body)), (False, sent))
        upload.send(PIECE)
        upload.end()
        exchange.answer(413)
        self.assertEqual((upload.status, len(exchange.body), exchange.complete), (413, sent + len(PIECE), True))
        self.assertEqual(site.hub.buffered_bytes, 0)

    def test_all_together(self) -> None:
        """
        What is held of all bodies together is bounded: those that find no room go straight on.
        """
        site = MemorySite(self)
        site.online()
        uploads = [self.begin(site) for _ in range(12)]
        while not self.uploading(site):
            for upload in uploads:
                upload.send(PIECE)
        self.assertLessEqual(site.hub.buffered_bytes, MAX_BUFFERED_TOTAL + len(uploads) * len(PIECE))
        self.assertGreater(site.hub.buffered_bytes, MAX_BUFFERED_TOTAL - len(uploads) * len(PIECE))
        for upload in uploads:
            upload.hang_up()
        self.assertEqual((site.hub.buffered_bytes, site.hub.in_flight), (0, 0))

    def test_strangers(self) -> None:
        """
        Nothing is held for credentials that mean nothing without the cloud: their bodies go straight on.
        """
        site = MemorySite(self)
        site.online()
        upload = self.begin(site, [*KUBELET, (b"Authorization", b"Bearer unheard-of")], door="pods")
        exchange = site.arriving(MAPS)
        upload.send(PIECE)
        self.assertEqual((exchange.body, site.hub.buffered_bytes), (PIECE, 0))

    def test_unread_answer(self) -> None:
        """
        A client that leaves its answer unread is cut off in time and gives its place back; one that reads on is not, and
        who follows a log has all the time.
        """
        site = MemorySite(self)
        site.online()
        log = f"{PODS}/web/log"
        for path, reads_on, cut in ((MAPS, False, True), (MAPS, True, False), (log, False, False)):
            request = site.ask("GET", path, agent="kubectl")
            exchange = site.arriving(path)
            exchange.begin()
            exchange.send(PIECE)
            request.stop_reading()
            self.assertTrue(exchange.paused)
            site.run(STALLED_FOR - 1)
            if reads_on:
                assert request.source is not None
                request.source.resume()
                self.assertFalse(exchange.paused)
            site.run(2)
            self.assertEqual((request.aborted, exchange.cancelled, site.hub.in_flight), (cut, cut, int(path == MAPS and not cut)))
            if not cut:
                exchange.end()
        self.assertEqual(site.hub.in_flight, 0)

    def test_places(self) -> None:
        """
        Pods have half of the requests in flight, kubelet the rest at least.
        """
        site = MemorySite(self, max_requests_in_flight=4)
        site.online()
        stranger: Headers = [*KUBELET, (b"Authorization", b"Bearer unheard-of")]
        pods = [self.begin(site, stranger, door="pods") for _ in range(3)]
        self.assertEqual([one.status for one in pods], [0, 0, 429])
        self.assertEqual(pods[2].header("retry-after"), "1")
        own = [self.begin(site) for _ in range(3)]
        self.assertEqual([one.status for one in own], [0, 0, 429])
        pods[0].hang_up()
        again = [self.begin(site, stranger, door="pods") for _ in range(2)]
        self.assertEqual([one.status for one in again], [0, 429])
