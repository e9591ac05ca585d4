"""
Links and the certificates that they began with: when another link takes a link's place, and how one ends.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.defer import Deferred

RENEW_FROM, RENEW_UNTIL = 0.8, 0.9
"""
Of the time that is left to them: in between, at random, another link takes a link's place, with the certificates that both sides
have renewed by then.  When they have not, the same holds for what is left then.
"""


def renew_at(now: float, valid_until: float, chance: float, least: float) -> float:
    """
    When another link is to take the place of one whose first certificate expires at ``valid_until``, in ``least`` seconds at the
    soonest; all by the time of day.  ``chance`` is drawn from 0 to 1.
    """
    return now + max(least, (valid_until - now) * (RENEW_FROM + (RENEW_UNTIL - RENEW_FROM) * chance))


class Ending(Protocol):
    """
    What ending a link takes of it; see :class:`yurt.mux.connection.MuxConnection`.
    """

    def go_away(self) -> None: ...

    def when_idle(self) -> Deferred[None]: ...

    def abort(self, why: str) -> None: ...


def end_within(reactor: Any, link: Ending, patience: float, why: str) -> None:
    """
    Let ``link`` take no new streams, and cut it for the reason ``why`` once those that run have ended, or after ``patience``
    seconds.
    """
    link.go_away()
    link.when_idle().addTimeout(patience, reactor).addBoth(lambda _: link.abort(why))
