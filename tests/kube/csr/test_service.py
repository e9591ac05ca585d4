"""
Tests for :mod:`yurt.kube.csr.service`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.certs import make_ca
from tests.miniapi.memory import MemoryAPI, MemoryExchange
from tests.miniapi.signing import Signer
from yurt.kube.api import ApiClient, ApiError
from yurt.kube.csr.files import CertificateFiles
from yurt.kube.csr.pem import Held, new_key, request_for
from yurt.kube.csr.service import OTHER_WAY_TIMEOUT, PENDING_TIMEOUT, AccessError, CertificateService
from yurt.kube.csr.wanted import Wanted, client, serving

CA = make_ca("csr")
NOW = 1_700_000_000.0
"""The time of day when the Clock stands at 0."""
WANTED = client("client certificate", "system:node:n1", ("openyurt:yurthub", "system:nodes"))
MINUTE, HOUR = 60.0, 3600.0


class FakeAccess:
    """
    A way to the server in memory; what it was told.
    """

    asker = ""
    others = False
    shows_held = False

    def __init__(self, clock: Clock, server: MemoryAPI) -> None:
        self._clock, self._server = clock, server
        self.holders: list[Held | None] = []
        self.failures: list[Exception] = []
        self.times_served = 0
        self.closed = ""

    async def client(self, held: Held | None) -> ApiClient:
        self.holders.append(held)
        if self.closed:
            raise AccessError(self.closed)
        return ApiClient(self._clock, self._server)

    def failed(self, error: Exception) -> None:
        self.failures.append(error)

    def served(self) -> None:
        self.times_served += 1


class ServiceCase(SynchronousTestCase):
    """
    A daemon's certificate on a clock, before an apiserver in memory.
    """

    wanted: Wanted = WANTED
    ahead = 0.0
    """Seconds by which somebody set the time of day."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = MemoryAPI(self.clock, CA)
        self.signer = Signer(self.server.api, wall=self.wall, seconds=HOUR)
        self.access = FakeAccess(self.clock, self.server)
        self.files = CertificateFiles(self.mktemp(), "yurthub", self.wall)
        self.changes = 0
        self.service = self.make()

    def wall(self) -> float:
        return NOW + self.clock.seconds() + self.ahead

    def make(self) -> CertificateService:
        """
        A service on the same disk.
        """
        service = CertificateService(
            self.clock, self.files, self.wanted, self.access, self.changed, wall=self.wall, draw=lambda: 0.5
        )
        self.addCleanup(lambda: service.stopService() if service.running else None)
        return service

    def changed(self) -> None:
        self.changes += 1

    def restart(self) -> None:
        self.service.stopService()
        self.service = self.make()
        self.service.startService()

    def advance(self, seconds: float, step: float = 0.5) -> None:
        for _ in range(round(seconds / step)):
            self.clock.advance(step)

    def start(self) -> str:
        """
        Start, and answer the name of the request that is pending then.
        """
        self.service.startService()
        self.advance(1)
        (name,) = self.signer.pending
        return name

    @property
    def state(self) -> str:
        return str(self.service.status()["state"])


class FirstTests(ServiceCase):
    """
    The first certificate.
    """

    def test_issued(self) -> None:
        """
        A request is made at once, is told while it is pending, and once it is signed the certificate is on disk within moments.
        """
        name = self.start()
        created = self.signer.requests[0]["metadata"]["creationTimestamp"]
        self.assertEqual(self.service.problem, f"no client certificate: CSR {name} pending since {created}")
        self.assertEqual(self.state, "pending")
        self.signer.approve(name)
        self.advance(1)
        self.assertEqual(self.service.problem, f"no client certificate: CSR {name} approved, not signed yet")
        self.signer.sign(name)
        self.advance(1)
        self.assertIsNone(self.service.problem)
        held = self.files.load()
        self.assertEqual(held and held.common_name, "system:node:n1")
        self.assertEqual((self.changes, self.access.times_served, self.state), (1, 1, "issued"))
        self.assertTrue(HOUR - 5 < (self.service.expires_in or 0) < HOUR)
        self.assertEqual(self.files.pending(), b"")

    def test_watched(self) -> None:
        """
        A request that stays pending costs one watch in minutes, not questions.
        """
        self.start()
        before = len(self.server.sent)
        self.advance(4 * MINUTE)
        self.assertEqual(len(self.server.sent), before)
        self.assertEqual(len(self.server.watches()), 1)

    def test_no_questions_any_more(self) -> None:
        """
        Whose token expires while the request is pending is told of the verdict all the same, and has the certificate.
        """
        name = self.start()
        self.server.api.permits = lambda user, verb, call, path: False
        self.signer.approve(name)
        self.advance(10)
        self.assertEqual(self.service.problem, f"no client certificate: CSR {name} approved, not signed yet")
        self.signer.sign(name)
        self.advance(1)
        self.assertEqual(self.state, "issued")

    def test_stopped_when_told(self) -> None:
        """
        A stop in the moment in which something happens to the request is a stop: nothing is asked any more.
        """
        self.signer.issue(self.start())
        before = len(self.server.sent)
        self.service.stopService()
        self.advance(MINUTE)
        self.assertEqual((len(self.server.sent), self.server.open), (before, []))

    def test_not_watchable(self) -> None:
        """
        Who may not watch looks every few seconds.
        """
        self.server.api.permits = lambda user, verb, call, path: verb != "watch"
        name = self.start()
        self.advance(MINUTE)
        self.assertLess(len(self.server.sent), 30)
        self.signer.issue(name)
        self.advance(6)
        self.assertEqual(self.state, "issued")

    def test_restart(self) -> None:
        """
        After a restart the same request goes on, and its certificate can be used.
        """
        name = self.start()
        self.restart()
        self.advance(1)
        self.assertEqual(self.signer.pending, [name])
        self.signer.issue(name)
        self.advance(1)
        self.assertEqual(self.state, "issued")

    def test_lost_answer(self) -> None:
        """
        When the answer to the request is lost, no second one is made.
        """
        lost: list[MemoryExchange] = []

        def lose(exchange: MemoryExchange) -> bool:
            if exchange.method == "POST" and not lost:
                lost.append(exchange)
                self.server.silent = True
                self.server.carry_out(exchange)
                self.server.silent = False
                exchange.fail()
                return True
            return False

        self.server.intercept = lose
        name = self.start()
        self.advance(5)
        self.assertEqual(self.signer.pending, [name])
        self.signer.issue(name)
        self.advance(1)
        self.assertEqual(self.state, "issued")

    def test_deleted(self) -> None:
        """
        A request that somebody deletes is made again.
        """
        name = self.start()
        self.signer.remove(name)
        self.advance(10)
        self.assertEqual(self.signer.pending, [name])

    def test_old_cluster(self) -> None:
        """
        A cluster that has v1beta1 only is asked in that.
        """

        def no_v1(exchange: MemoryExchange) -> bool:
            if "/v1/" in exchange.path:
                exchange.answer(404, {"kind": "Status", "reason": "NotFound", "code": 404})
                return True
            return False

        self.server.intercept = no_v1
        self.signer = Signer(self.server.api, version="v1beta1", wall=self.wall)
        self.signer.issue(self.start())
        self.advance(1)
        self.assertEqual(self.state, "issued")


class RefusedTests(ServiceCase):
    """
    When there is no certificate to be had.
    """

    def test_denied(self) -> None:
        """
        A denial is told with its reason; another request with another key follows after a pause, or when somebody says so.
        """
        name = self.start()
        self.signer.deny(name, "unknown node")
        self.advance(1)
        self.assertEqual(self.service.problem, f"no client certificate: CSR {name} denied: KubectlDeny: unknown node")
        self.assertEqual(self.state, "denied")
        self.assertEqual(self.signer.pending, [])
        self.advance(MINUTE + 2)
        (second,) = self.signer.pending
        self.assertNotEqual(second, name)
        self.signer.deny(second)
        self.advance(1)
        self.service.retry()
        self.advance(1)
        self.assertEqual(len(self.signer.pending), 1)

    def test_unreachable(self) -> None:
        """
        Without a way to anybody it is tried for ever, half a minute apart in the end, and the reason is told.
        """
        self.access.closed = "there is no token"
        self.service.startService()
        self.advance(HOUR)
        self.assertEqual(self.service.problem, "no client certificate: there is no token")
        self.assertTrue(100 < len(self.access.failures) < 130)
        self.access.closed = ""
        self.advance(33)
        self.assertEqual(len(self.signer.pending), 1)

    def test_refused(self) -> None:
        """
        The words of a server that refuses are told.
        """
        self.server.api.permits = lambda user, verb, call, path: False
        self.service.startService()
        self.advance(1)
        self.assertIn("403 Forbidden", self.service.problem or "")
        self.assertIsInstance(self.access.failures[0], ApiError)

    def test_nobody_decides(self) -> None:
        """
        A request that stays pending is taken up with another client in time, as a token may have expired meanwhile.
        """
        name = self.start()
        self.advance(PENDING_TIMEOUT + 60)
        self.assertEqual(len(self.access.holders), 2)
        self.assertEqual(self.signer.pending, [name])

    def test_another_asks(self) -> None:
        """
        With nothing to show and others to ask, another one asks soon, by a request of its own; with something to show there is
        time.
        """
        first = self.start()
        self.access.others = True
        self.advance(PENDING_TIMEOUT + 60)
        self.access.asker = "another"
        self.advance(OTHER_WAY_TIMEOUT + 60)
        self.assertEqual(len(self.signer.pending), 2)
        (second,) = set(self.signer.pending) - {first}
        self.signer.issue(second)
        self.advance(1)
        self.assertEqual(self.state, "issued")
        self.service.retry(force=True)
        self.advance(1)
        asked = len(self.access.holders)
        self.advance(OTHER_WAY_TIMEOUT + 60)
        self.assertEqual(len(self.access.holders), asked)

    def test_useless(self) -> None:
        """
        A certificate for somebody else, or for another key, is not kept.
        """
        name = self.start()
        self.signer.approve(name)
        self.signer.sign(name, request_for(new_key(), WANTED))
        self.advance(1)
        self.assertIn("of no use: the key in it is not the certificate's", self.service.problem or "")
        self.advance(MINUTE + 2)
        (name,) = self.signer.pending
        other = client("c", "system:node:n2", WANTED.organizations)
        self.signer.approve(name)
        self.signer.sign(name, request_for(self.files.pending(), other))
        self.advance(1)
        self.assertIn("it is for 'system:node:n2'", self.service.problem or "")
        self.assertIsNone(self.files.load())

    def test_disk(self) -> None:
        """
        A disk that takes nothing is told, and tried again.
        """
        Path(self.files.path.parent).write_text("no folder")
        self.service.startService()
        self.advance(1)
        self.assertTrue(self.service.problem)
        self.files.path.parent.unlink()
        self.advance(5)
        self.assertEqual(len(self.signer.pending), 1)


class RotationTests(ServiceCase):
    """
    The certificates after the first.
    """

    def setUp(self) -> None:
        super().setUp()
        self.signer.issue(self.start())
        self.advance(1)
        self.assertEqual(self.state, "issued")
        self.first = self.service.held

    def test_in_time(self) -> None:
        """
        At 80 % of its life, as drawn, the next certificate is asked for, by the one at hand, which is used until it comes.
        """
        self.advance(0.79 * HOUR, 10)
        self.assertEqual(self.signer.pending, [])
        self.advance(0.02 * HOUR, 1)
        (name,) = self.signer.pending
        self.assertEqual(self.access.holders[-1], self.first)
        self.assertEqual((self.state, self.service.problem, self.service.held), ("rotating", None, self.first))
        self.signer.issue(name)
        self.advance(1)
        self.assertEqual((self.state, self.changes), ("issued", 2))
        self.assertNotEqual(self.service.held, self.first)

    def test_expired(self) -> None:
        """
        A certificate that expires while nobody answers is told of, is not shown any more, and is followed by another one when
        somebody does.
        """
        self.server.refusing = True
        self.advance(1.1 * HOUR, 5)
        self.assertEqual((self.state, self.service.held), ("expired", None))
        self.assertRegex(self.service.problem or "", r"the client certificate expired at .*: .*connection refused")
        self.assertLess(self.service.expires_in or 0, 0)
        self.server.refusing = False
        self.advance(40)
        self.assertIsNone(self.access.holders[-1])
        self.signer.issue(self.signer.pending[0])
        self.advance(1)
        self.assertEqual(self.state, "issued")

    def test_restart(self) -> None:
        """
        A restart asks for nothing while the certificate is good.
        """
        self.restart()
        self.advance(HOUR / 2, 10)
        self.assertEqual((self.signer.pending, self.state), ([], "issued"))

    def test_torn(self) -> None:
        """
        After a restart with a torn file another certificate is asked for, and the reason is told.
        """
        self.files.path.write_bytes(self.files.path.read_bytes()[:300])
        self.service.stopService()
        self.service = self.make()
        self.assertIn(str(self.files.path), self.service.problem or "")
        self.service.startService()
        self.advance(1)
        self.assertEqual(len(self.signer.pending), 1)

    def test_forced(self) -> None:
        """
        Somebody may ask for another one at any time.
        """
        self.service.retry(force=True)
        self.advance(1)
        self.signer.issue(self.signer.pending[0])
        self.advance(1)
        self.assertEqual((self.changes, self.state), (2, "issued"))

    def test_clock_set_forward(self) -> None:
        """
        A time of day that jumps is noticed within a minute.
        """
        self.ahead = 0.85 * HOUR
        self.advance(MINUTE + 2)
        self.assertEqual(len(self.signer.pending), 1)


class NamesTests(ServiceCase):
    """
    Certificates whose names change.
    """

    wanted = serving("serving certificate", "system:node:tunnel-server", ("a.example",), ("10.0.0.1",))

    def want(self, *addresses: str) -> None:
        self.service.want(serving("serving certificate", "system:node:tunnel-server", ("a.example",), addresses))
        self.advance(1)

    def test_more(self) -> None:
        """
        One more address is asked for at once, also while another request is pending, which nobody waits for any more.
        """
        first = self.start()
        self.want("10.0.0.1", "10.0.0.2")
        self.assertEqual(self.signer.pending, [first])
        self.signer.issue(first)
        self.advance(3)
        (second,) = self.signer.pending
        self.want("10.0.0.1", "10.0.0.2", "10.0.0.3")
        (third,) = set(self.signer.pending) - {second}
        self.signer.issue(third)
        self.advance(1)
        held: Any = self.service.held
        self.assertEqual(held.addresses, {"10.0.0.1", "10.0.0.2", "10.0.0.3"})

    def test_fewer(self) -> None:
        """
        One address less is no reason for another certificate.
        """
        self.signer.issue(self.start())
        self.advance(1)
        self.service.want(serving("serving certificate", "system:node:tunnel-server", (), ("10.0.0.1",)))
        self.advance(5)
        self.assertEqual((self.signer.pending, self.changes), ([], 1))
