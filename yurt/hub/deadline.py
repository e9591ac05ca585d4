"""
The ``timeoutSeconds`` of a watch's request: when its response ends at the latest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from yurt.hub.answers import answer_status
from yurt.kube.listoptions import read_number

if TYPE_CHECKING:
    from yurt.hub.watches import Watch

TIMEOUT_SLACK = 5.0
"""Seconds that the cloud may take longer than the client's timeoutSeconds to end a watch."""


class Deadline:
    """
    The end that the client of ``watch`` has asked for, if any: a held watch ends then, an attached one when the cloud ends it, or
    soon after.
    """

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self._reactor = watch.hub.reactor
        seconds = read_number(watch.info.query.get("timeoutSeconds", "")) or 0
        self._ends_at = self._reactor.seconds() + seconds if seconds > 0 else None

    @property
    def remaining(self) -> int | None:
        """
        Whole seconds that are left, for the cloud; None without an end.
        """
        return None if self._ends_at is None else max(1, round(self._ends_at - self._reactor.seconds()))

    @property
    def is_close(self) -> bool:
        """
        Whether a server that ends the watch now does so because its time is over.
        """
        return self._ends_at is not None and self._reactor.seconds() >= self._ends_at - TIMEOUT_SLACK

    def begin(self) -> None:
        """
        Start the timer.
        """
        if self._ends_at is not None:
            self.watch.timers.set("timeout", self._ends_at - self._reactor.seconds(), self._timed_out)

    def _timed_out(self) -> None:
        if self.watch.attachment.attempt is None:
            self.watch.finish()
        else:
            self.watch.timers.set("timeout", TIMEOUT_SLACK, self._overdue)

    def _overdue(self) -> None:
        """
        The cloud has not ended the watch, or not even begun it.
        """
        watch = self.watch
        if watch.started:
            watch.finish()
            return
        message = f"watch {watch.info.resource}: the cloud did not answer within the timeoutSeconds of the request"
        answer_status(watch.request, 504, "Timeout", message)
        watch.end()
