"""
The way to one certificate, and to the next one in time.  No I/O here.

::

    NONE ── asked ──▶ PENDING ── issued ──▶ ISSUED ── 70 to 90 % of its life ──▶ ROTATING ── issued ──▶ ISSUED
     ▲                   │                                                           │
     └── after a pause ──┴─ denied ▶ DENIED             EXPIRED ◀── nobody answered ─┘

Times are seconds since the epoch.  They are looked at anew each time: the clock of a box may be set.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import Enum

from yurt.kube.csr.pem import Held, time_text
from yurt.kube.csr.wanted import Wanted

ROTATE_FROM, ROTATE_TO = 0.7, 0.9
"""Parts of a certificate's life between which the next one is asked for, as client-go does."""
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 32.0
"""Seconds between attempts that fail, doubled each time: client-go's."""
FIRST_DENIED_PAUSE, LONGEST_DENIED_PAUSE = 60.0, 1800.0
"""Seconds before another request after one that was denied: each leaves an object for people to look at."""


class State(Enum):
    """
    Where the certificate stands.
    """

    NONE = "none"
    PENDING = "pending"
    DENIED = "denied"
    ISSUED = "issued"
    ROTATING = "rotating"
    EXPIRED = "expired"


class Enrolment:
    """
    What is held, what is wanted, and what became of the request in between.

    ``draw`` gives numbers from 0 up to 1.
    """

    def __init__(self, wanted: Wanted, draw: Callable[[], float] = random.random) -> None:
        self.wanted = wanted
        self.held: Held | None = None
        self.request = ""
        """The name of the request on its way."""
        self.trouble = ""
        """What is known of the request, or why there is none."""
        self._draw = draw
        self._rotate_at = 0.0
        self._settled: Wanted | None = None
        self._denied = False
        self._failures = 0
        self._denials = 0
        self._forced = False

    def hold(self, held: Held | None) -> None:
        """
        What was found on disk.
        """
        self.held = held
        if held is not None:
            part = ROTATE_FROM + (ROTATE_TO - ROTATE_FROM) * self._draw()
            self._rotate_at = held.not_before + (held.not_after - held.not_before) * part

    def issued(self, held: Held, asked_for: Wanted) -> None:
        """
        The certificate came.  Where it names less than was asked for, to ask again would not help.
        """
        self.hold(held)
        self._settled = asked_for
        self.request = self.trouble = ""
        self._denied = self._forced = False
        self._failures = self._denials = 0

    def want(self, wanted: Wanted) -> bool:
        """
        Something else is wanted from now on; whether what is held lacks it.
        """
        self.wanted = wanted
        return self._lacks()

    def force(self) -> None:
        """
        Ask at once, whatever is held.
        """
        self._forced = True
        self._failures = self._denials = 0

    def asked(self, name: str, trouble: str) -> None:
        """
        A request is there; ``trouble`` says why it is not a certificate yet.
        """
        self.request, self.trouble = name, trouble
        self._denied = False
        self._failures = 0

    def denied(self, trouble: str) -> float:
        """
        There will be no certificate for this request; seconds to wait before the next one.
        """
        self.request, self.trouble, self._denied = "", trouble, True
        self._denials += 1
        return float(min(LONGEST_DENIED_PAUSE, FIRST_DENIED_PAUSE * 2 ** (self._denials - 1)))

    def failed(self, trouble: str) -> float:
        """
        Nobody could be asked; seconds to wait before the next attempt.
        """
        self.trouble, self._denied = trouble, False
        self._failures += 1
        return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures - 1, 10)))

    def valid(self, now: float) -> bool:
        """
        Whether what is held can be shown.
        """
        return self.held is not None and now < self.held.not_after and self.held.is_of(self.wanted)

    def due(self, now: float) -> float:
        """
        Seconds until another certificate is to be asked for; 0 when it is due.
        """
        if self._forced or not self.valid(now) or self._lacks():
            return 0.0
        return max(0.0, self._rotate_at - now)

    def state(self, now: float) -> State:
        """
        Where the certificate stands.
        """
        if self.valid(now):
            return State.ISSUED if self.due(now) else State.ROTATING
        if self.held is not None and self.held.is_of(self.wanted):
            return State.EXPIRED
        if self._denied:
            return State.DENIED
        return State.PENDING if self.request else State.NONE

    def text(self, now: float) -> str:
        """
        That in words.
        """
        held, what = self.held, self.wanted.name
        if held is None or not held.is_of(self.wanted):
            said = f"no {what}"
        elif now >= held.not_after:
            said = f"the {what} expired at {time_text(held.not_after)}"
        else:
            said = f"the {what} is valid until {time_text(held.not_after)}"
        return f"{said}: {self.trouble}" if self.trouble else said

    def problem(self, now: float) -> str | None:
        """
        Why there is nothing to show; None while there is.
        """
        return None if self.valid(now) else self.text(now)

    def _lacks(self) -> bool:
        """
        Whether a name or an address is missing that nobody asked for yet.
        """
        return self.held is not None and self.wanted != self._settled and not self.held.fits(self.wanted)
