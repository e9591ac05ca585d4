"""
How long an agent waits before it comes again.

Three promises pull at this: no more than a second before the first attempt; back within five seconds once a server or a
link is there again; and thousands of agents that lost their server together do not come back together.  So every wait is drawn
anew between nothing and a limit that doubles.  The limit stays at MAX_WAIT as long as nobody answers: an attempt then costs
two small packets, and a server that returns hears from everybody within that time.  An attempt that meets silence ends
after CONNECT_TIMEOUT for the same reason; or, where something took the connection and says nothing, another one begins beside
it.  Only with a server that answered, and did not want this agent or was not trusted, the limit goes on to
MAX_WAIT_ANSWERED: coming soon does not help, and a TLS hand-shake is not cheap.
"""

from __future__ import annotations

FIRST_WAIT = 1.0
"""Most seconds before the first attempt after a link was lost or an attempt failed."""
MAX_WAIT = 4.0
"""Most seconds before any attempt at a server that does not answer."""
MAX_WAIT_ANSWERED = 15.0
"""Most seconds before any attempt at all."""

CONNECT_TIMEOUT = 3.3
"""
Seconds for TCP.  The kernel sends the SYN again after 1 and after 3 seconds, so that a link healed within an attempt is noticed
by it, and one healed at its end by the next.
"""

STABLE_AFTER = 10.0
"""A link that lasted so many seconds was a good one: what failed before it no longer counts."""


def wait_before(
    failures: int, chance: float, *, answered: bool = False, silent: bool = False, retry_after: float | None = None
) -> float:
    """
    Seconds before the next attempt, after ``failures`` in a row, one at least; ``chance`` is drawn from 0 to 1.

    ``retry_after`` is what a server asked for: nobody comes sooner, nor all at that moment.  After one that was ``silent`` the
    wait is that before another attempt is made beside it: CONNECT_TIMEOUT has been waited for already.
    """
    limit = MAX_WAIT_ANSWERED if answered else FIRST_WAIT if silent else MAX_WAIT
    if retry_after is None:
        return chance * min(limit, FIRST_WAIT * 2.0 ** min(failures - 1, 16))
    asked = min(retry_after, MAX_WAIT_ANSWERED / 2)
    return asked + chance * min(max(FIRST_WAIT, asked), MAX_WAIT_ANSWERED - asked)
