"""
Tests for :mod:`yurt.kube.csr.enrolment`.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from yurt.kube.csr.enrolment import LONGEST_DENIED_PAUSE, LONGEST_PAUSE, Enrolment, State
from yurt.kube.csr.pem import Held
from yurt.kube.csr.wanted import client, serving

WANTED = client("client certificate", "system:node:n1", ("system:nodes",))
NOW = 1_700_000_000.0
HOUR = 3600.0
HELD = Held(b"", NOW, NOW + HOUR, "system:node:n1", frozenset({"system:nodes"}), frozenset(), frozenset())


class EnrolmentTests(SynchronousTestCase):
    """
    Tests of the way to a certificate.
    """

    def setUp(self) -> None:
        self.enrolment = Enrolment(WANTED, lambda: 0.5)

    def state(self, now: float = NOW) -> tuple[State, str]:
        return self.enrolment.state(now), self.enrolment.text(now)

    def test_first(self) -> None:
        """
        From nothing: due at once, pending since, then issued; the words say each.
        """
        self.assertEqual(self.state(), (State.NONE, "no client certificate"))
        self.assertEqual(self.enrolment.due(NOW), 0.0)
        self.enrolment.asked("csr-1", "CSR csr-1 pending since then")
        self.assertEqual(self.state(), (State.PENDING, "no client certificate: CSR csr-1 pending since then"))
        self.assertEqual(self.enrolment.problem(NOW), "no client certificate: CSR csr-1 pending since then")
        self.enrolment.issued(HELD, WANTED)
        self.assertEqual(self.state(), (State.ISSUED, "the client certificate is valid until 2023-11-14T23:13:20Z"))
        self.assertIsNone(self.enrolment.problem(NOW))

    def test_denied(self) -> None:
        """
        A denial is told, and the next request comes after a pause that grows and is never longer than its bound.
        """
        pauses = [self.enrolment.denied("CSR csr-1 denied: no") for _ in range(9)]
        self.assertEqual(self.state(), (State.DENIED, "no client certificate: CSR csr-1 denied: no"))
        self.assertEqual(pauses[:3], [60.0, 120.0, 240.0])
        self.assertEqual(pauses[-1], LONGEST_DENIED_PAUSE)

    def test_failing(self) -> None:
        """
        Attempts that reach nobody come for ever, after pauses that double up to their bound and begin anew after a success.
        """
        self.assertEqual([self.enrolment.failed("refused") for _ in range(6)], [2.0, 4.0, 8.0, 16.0, 32.0, LONGEST_PAUSE])
        self.assertEqual([self.enrolment.failed("refused") for _ in range(2000)][-1], LONGEST_PAUSE)
        self.enrolment.asked("csr-1", "pending")
        self.assertEqual(self.enrolment.failed("refused"), 2.0)

    @given(st.floats(0, 0.999), st.floats(60, 1e8))
    def test_rotation(self, drawn: float, life: float) -> None:
        """
        The next certificate is due between 70 and 90 % of the life of the one before.
        """
        enrolment = Enrolment(WANTED, lambda: drawn)
        enrolment.hold(replace(HELD, not_after=NOW + life))
        due = enrolment.due(NOW)
        self.assertTrue(0.7 * life - 1 <= due <= 0.9 * life + 1)
        self.assertEqual(enrolment.state(NOW + due - 1), State.ISSUED)
        self.assertEqual(enrolment.state(NOW + due + 1), State.ROTATING)
        self.assertIsNone(enrolment.problem(NOW + due + 1))

    def test_expired(self) -> None:
        """
        What has expired is not shown any more, and the words say so beside the reason that there is no other.
        """
        self.enrolment.hold(HELD)
        self.enrolment.failed("connection refused")
        later = NOW + HOUR
        self.assertEqual(
            self.state(later), (State.EXPIRED, "the client certificate expired at 2023-11-14T23:13:20Z: connection refused")
        )
        self.assertFalse(self.enrolment.valid(later))
        self.assertEqual(self.enrolment.due(later), 0.0)

    def test_clock_set_back(self) -> None:
        """
        A box that wakes up in 1970 holds a valid certificate, and waits for its time.
        """
        self.enrolment.hold(HELD)
        self.assertEqual(self.enrolment.state(0.0), State.ISSUED)
        self.assertGreater(self.enrolment.due(0.0), 0.0)

    def test_somebody_else(self) -> None:
        """
        The certificate of another node or with other groups counts as none.
        """
        for other in (replace(HELD, common_name="system:node:n2"), replace(HELD, organizations=frozenset({"x"}))):
            self.enrolment.hold(other)
            self.assertEqual((self.enrolment.state(NOW), self.enrolment.due(NOW)), (State.NONE, 0.0))

    def test_other_names(self) -> None:
        """
        New names are asked for at once, while the certificate goes on being used; what the signer left out is asked for once.
        """
        wanted = serving("certificate", "system:node:n1", ("a",), ())
        enrolment = Enrolment(wanted, lambda: 0.5)
        enrolment.hold(HELD)
        self.assertEqual((enrolment.state(NOW), enrolment.due(NOW)), (State.ROTATING, 0.0))
        enrolment.issued(HELD, wanted)
        self.assertEqual(enrolment.state(NOW), State.ISSUED)
        more = replace(wanted, dns=("a", "b"))
        self.assertTrue(enrolment.want(more))
        self.assertEqual(enrolment.state(NOW), State.ROTATING)
        enrolment.issued(replace(HELD, dns=frozenset({"a", "b"})), more)
        self.assertFalse(enrolment.want(wanted))
        self.assertEqual(enrolment.state(NOW), State.ISSUED)

    def test_forced(self) -> None:
        """
        Somebody may insist on a new certificate.
        """
        self.enrolment.issued(HELD, WANTED)
        self.enrolment.force()
        self.assertEqual(self.enrolment.due(NOW), 0.0)
        self.enrolment.issued(HELD, WANTED)
        self.assertGreater(self.enrolment.due(NOW), 0.0)
