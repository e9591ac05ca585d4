"""
Answers that the hub itself gives, and the header that names every answer's origin.
"""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Any

from yurt.http.heads import get_header, without
from yurt.http.interfaces import Headers, IncomingRequest, ResponseHead
from yurt.kube.status import status_body

SOURCE = b"X-Yurt-Source"
FROM_CLOUD = (SOURCE, b"cloud")
FROM_CACHE = (SOURCE, b"cache")
FROM_HUB = (SOURCE, b"hub")

JSON = (b"Content-Type", b"application/json")

STALE = (b"Warning", b'110 yurthub "the cloud is not reachable; this answer comes from the cache"')
"""Warn-code 110, "Response is Stale", of RFC 7234 section 5.5.1."""

RETRY_AFTER_OFFLINE = 1
"""Seconds that a client is asked to wait when only the cloud could have answered its read."""


def is_for_a_person(component: str) -> bool:
    """
    Whether an answer to ``component`` is read by a person, who is better told at once than after many tries.

    client-go, where it is told to wait so many seconds, tries ten times without a word: for a daemon that is the soonest way to
    an answer.  A person at kubectl sees nothing for 10 s a request, 50 s before discovery is given up; and with a
    ``--request-timeout`` below that "client rate limiter Wait returned an error" in the place of the reason.  It does not wait
    for a moment (an HTTP-date, RFC 9110 section 10.2.3), which says the same.
    """
    return component.startswith("kubectl")


def name_source(head: ResponseHead, source: tuple[bytes, bytes]) -> None:
    """
    Say where an answer comes from, instead of what another hub on the way may have said.
    """
    if get_header(head.headers, b"x-yurt-source") is not None:
        head.headers = without(head.headers, b"x-yurt-source")
    head.headers.append(source)


def cached_headers(stored_at: float, now: float, content_type: bytes = b"application/json") -> Headers:
    """
    The headers of an answer from the cache that was stored at ``stored_at`` (wall seconds, as ``now``).
    """
    age = b"%d" % max(0, int(now - stored_at))
    return [(b"Content-Type", content_type), FROM_CACHE, (b"Age", age), STALE]


def answer_status(
    request: IncomingRequest,
    code: int,
    reason: str,
    message: str,
    *,
    details: dict[str, Any] | None = None,
    retry_after: int | None = None,
    retry_by_date: bool = False,
    source: tuple[bytes, bytes] = FROM_HUB,
) -> None:
    """
    Answer ``request`` with a Kubernetes Status; ``retry_after`` is in seconds, and is written as a moment with ``retry_by_date``.
    """
    headers = [JSON, source]
    if retry_after is not None:
        moment = formatdate(time.time() + retry_after, usegmt=True) if retry_by_date else str(retry_after)
        headers.append((b"Retry-After", moment.encode()))
    if code == 401:
        headers.append((b"WWW-Authenticate", b"Bearer"))
    body = status_body(code, reason, message, details=details, retry_after=retry_after)
    request.respond(code, headers, body)


def answer_too_large(request: IncomingRequest, asked: str, current: str, details: dict[str, str] | None) -> None:
    """
    Tell a client that asks for a state at least so new as ``asked`` that ``current`` is the newest there is: 504, with the cause
    by which client-go knows to ask again without that demand.
    """
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    message = f"Too large resource version: {asked}, current: {current}"
    answer_status(request, 504, "Timeout", message, details={**(details or {}), "causes": [cause]})
