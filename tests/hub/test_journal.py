"""
Tests of the journal: what was acknowledged without the cloud reaches it, in order, once.
"""

from __future__ import annotations

import json
from typing import Any, cast

from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import HandExchange, MemorySite
from yurt.hub.journal import MAX_ERRORS, MAX_EVENTS, REFUSED_FOR, RETRY_PAUSE, SEND_TIMEOUT

EVENTS = "/api/v1/namespaces/default/events"


def event(number: int) -> dict[str, Any]:
    """
    An event with a number.
    """
    return {"kind": "Event", "apiVersion": "v1", "metadata": {"name": f"e{number}", "namespace": "default"}, "count": number}


class JournalTests(SynchronousTestCase):
    """
    Tests of sending, losing and keeping.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()
        self.site.offline()
        self.taken: list[int] = []

    def post(self, *numbers: int) -> None:
        """
        Post events that the hub acknowledges.
        """
        requests = [self.site.ask("POST", EVENTS, event(number)) for number in numbers]
        self.site.run_until(lambda: all(request.finished for request in requests))
        self.assertEqual({request.status for request in requests}, {201})

    def take(self, exchange: HandExchange) -> None:
        """
        The cloud takes an event.
        """
        self.taken.append(json.loads(exchange.body)["count"])
        exchange.answer(201, json.loads(exchange.body))

    def test_in_order_once(self) -> None:
        """
        Events arrive in their order, each once.
        """
        self.post(*range(50))
        self.site.upstream.on_request = self.take
        self.site.online()
        self.site.run(10)
        self.assertEqual(self.taken, list(range(50)))
        self.assertEqual((len(self.site.hub.journal), self.site.hub.journal.dropped), (0, 0))

    def test_bound(self) -> None:
        """
        Beyond MAX_EVENTS the oldest go, and are counted.
        """
        for start in range(0, MAX_EVENTS + 20, 102):
            self.post(*range(start, start + 102))
        self.assertEqual(len(self.site.hub.journal), MAX_EVENTS)
        self.assertEqual(self.site.hub.journal.dropped, 20)
        self.site.upstream.on_request = self.take
        self.site.online()
        self.site.run(20)
        self.assertEqual(self.taken, list(range(20, MAX_EVENTS + 20)))

    def test_restart(self) -> None:
        """
        The journal survives a restart, keeps its order with what comes later, and is sent at the first sight of the cloud.
        """
        self.post(1, 2)
        self.site.reboot()
        self.assertEqual(len(self.site.hub.journal), 2)
        self.site.offline()
        self.post(3)
        self.site.upstream.on_request = self.take
        self.site.reboot()
        self.site.online()
        self.site.run(10)
        self.assertEqual(self.taken, [1, 2, 3])
        self.site.reboot()
        self.site.online()
        self.site.run(10)
        self.assertEqual(self.taken, [1, 2, 3])

    def test_cut_while_sending(self) -> None:
        """
        A cut in the middle of sending loses nothing, and nothing is sent again that was answered.
        """
        self.post(1, 2, 3)
        self.site.online()
        self.take(self.site.arriving(EVENTS))
        self.site.arriving(EVENTS)
        self.site.offline()
        self.post(4)
        self.site.upstream.on_request = self.take
        self.site.online()
        self.site.run(10)
        self.assertEqual(self.taken, [1, 2, 3, 4])

    def test_silence_while_sending(self) -> None:
        """
        An entry that is not answered in time is tried again over a new connection, without a word from the cloud's health.
        """
        self.post(1)
        self.site.online()
        lost = self.site.arriving(EVENTS)
        self.site.run(SEND_TIMEOUT + 1)
        self.assertTrue(lost.cancelled and self.site.upstream.retired)
        self.site.run(RETRY_PAUSE)
        self.take(self.site.arriving(EVENTS))
        self.assertEqual((self.taken, len(self.site.hub.journal)), ([1], 0))

    def test_errors(self) -> None:
        """
        After a 429 or an error of a load balancer an entry is tried again; one that the cloud refuses is dropped and counted;
        one that always gives 500 does not hold up the others for ever.
        """
        self.post(1, 2, 3)
        self.site.online()
        for status in (503, 429, 502, 504):
            self.site.arriving(EVENTS).answer(status)
            self.assertEqual(self.site.hub.journal.dropped, 0)
        self.site.arriving(EVENTS).answer(422)
        self.assertEqual(self.site.hub.journal.dropped, 1)
        for _ in range(MAX_ERRORS):
            self.assertEqual(len(self.site.hub.journal), 2)
            self.site.arriving(EVENTS).answer(500)
        self.assertEqual(self.site.hub.journal.dropped, 2)
        self.take(self.site.arriving(EVENTS))
        self.assertEqual((self.taken, len(self.site.hub.journal)), ([3], 0))

    def test_refusals_of_the_first_moments(self) -> None:
        """
        For REFUSED_FOR after the cloud's return a 401, a 403 and a 404 that is no API server's own are not believed; then they
        are, without a wait for every entry.  What an API server says does not exist is given up at once.
        """
        self.post(1, 2, 3, 4)
        self.site.online()
        begin = self.site.clock.seconds()
        for status in (401, 403, 404, 403, 403):
            self.site.arriving(EVENTS).answer(status, {"kind": "Status", "reason": "Forbidden"})
            self.assertEqual((len(self.site.hub.journal), self.site.hub.journal.dropped), (4, 0))
        self.site.arriving(EVENTS).answer(404, {"kind": "Status", "apiVersion": "v1", "reason": "NotFound", "code": 404})
        self.assertEqual((len(self.site.hub.journal), self.site.hub.journal.dropped), (3, 1))
        self.take(self.site.arriving(EVENTS))
        self.site.upstream.on_request = lambda exchange: exchange.answer(403)
        self.site.arriving(EVENTS).answer(403)
        self.site.run_until(lambda: not len(self.site.hub.journal))
        self.assertEqual((self.taken, self.site.hub.journal.dropped), ([2], 3))
        waited = self.site.clock.seconds() - begin
        self.assertTrue(REFUSED_FOR <= waited <= REFUSED_FOR + RETRY_PAUSE + 1, waited)

    def test_gives_the_reason(self) -> None:
        """
        What is given up is logged, with what it was and the cloud's reason.
        """
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.post(1)
        self.site.online()
        self.site.arriving(EVENTS).answer(422, {"kind": "Status", "reason": "Invalid", "message": "count: too small"})
        said = [formatEvent(one) for one in events if "given up" in str(one.get("log_format"))]
        self.assertEqual(
            said, [f"POST {EVENTS} of the time without the cloud was refused with 422 and is given up: count: too small"]
        )

    def test_speaks_for_its_caller(self) -> None:
        """
        An entry is sent with the credentials of who wrote it, and no other.
        """
        token = "opaque-token-of-a-pod"
        self.site.online()
        self.site.ask("GET", "/api/v1/namespaces/default/pods", token=token)
        self.site.arriving("/api/v1/namespaces/default/pods").answer(200, {"kind": "PodList", "apiVersion": "v1", "items": []})
        self.site.offline()
        request = self.site.ask("POST", EVENTS, event(1), token=token, door="pods")
        self.post(2)
        self.assertEqual(request.status, 201)
        self.site.online()
        shown = []
        for _ in range(2):
            sent = self.site.arriving(EVENTS)
            shown.append([value for name, value in sent.head.headers if name.lower() == b"authorization"])
            self.take(sent)
        self.assertEqual(shown, [[b"Bearer " + token.encode()], []])

    def test_nothing_after_the_stop(self) -> None:
        """
        A hub that has stopped sends nothing more.
        """
        self.post(1)
        self.site.online()
        self.site.arriving(EVENTS).answer(503)
        self.site.stop()
        self.site.upstream.seen.clear()
        self.site.run(3 * RETRY_PAUSE)
        self.assertEqual(self.site.upstream.seen, [])
        self.site.boot()
