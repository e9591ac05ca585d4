"""
How a watch begins while the cloud is away: from the cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from yurt.http.interfaces import ResponseHead
from yurt.hub.answers import (
    FROM_CACHE,
    RETRY_AFTER_OFFLINE,
    answer_status,
    answer_too_large,
    cached_headers,
    is_for_a_person,
)
from yurt.hub.cache.views import FoundList
from yurt.hub.viewkeys import is_too_old
from yurt.kube.listoptions import find_fault
from yurt.kube.objects import TABLE, split_list
from yurt.kube.selectors import SelectorError, compile_selection
from yurt.kube.tables import tell_ages
from yurt.kube.watch import ADDED, encode_bookmark, encode_event

if TYPE_CHECKING:
    from yurt.hub.watches import Watch


def begin_offline(watch: Watch) -> None:
    """
    Start the response of ``watch`` without the cloud, or refuse it: what the cache has first, if the client asked for the present
    state, and then what happens.
    """
    if _is_refused(watch):
        return
    watch.hub.turns.finish()
    lines: list[bytes] = []
    progress = watch.progress
    if progress.initial or progress.version in ("", "0"):
        found = watch.feed.find_state()
        if found is None:
            _unavailable(watch, "the cache never saw this for this caller")
            return
        if is_too_old(found.resource_version, watch.info):
            answer_too_large(watch.request, progress.version, found.resource_version, None)
            watch.end()
            return
        lines = _tell_state(watch, found)
    watch.stream.expect(b"application/json")
    view, now = watch.feed.view, watch.hub.now()
    headers = cached_headers(view.updated_at if view is not None else now, now)
    watch.start(ResponseHead(200, b"OK", headers), FROM_CACHE)
    watch.stream.write(lines)
    watch.holding.hold()


def is_admitted(watch: Watch) -> bool:
    """
    Whether the caller is known without the cloud.
    """
    return watch.hub.admits_offline(watch.credential, watch.caller)


def _is_refused(watch: Watch) -> bool:
    """
    Whether this watch cannot begin without the cloud, whatever the cache has; its client is told why.
    """
    info, what = watch.info, f"watch {watch.info.resource}"
    if not is_admitted(watch):
        message = f"{what}: the cloud is not reachable, and these credentials cannot be verified without it"
        answer_status(watch.request, 401, "Unauthorized", message)
        watch.end()
        return True
    if not watch.accept.json:
        _unavailable(watch, "the cache has JSON only")
        return True
    fault = find_fault(info.query, watch=True)
    if fault is not None:
        answer_status(watch.request, fault.code, fault.reason, f"{what}: {fault.message}")
        watch.end()
        return True
    try:
        compile_selection(info.label_selector, info.field_selector)
    except SelectorError as error:
        answer_status(watch.request, 400, "BadRequest", f"{what}: {error}")
        watch.end()
        return True
    return False


def _unavailable(watch: Watch, why: str) -> None:
    """
    Answer 503.
    """
    message = f"watch {watch.info.resource}: the cloud is not reachable ({watch.hub.cloud.reason or 'no answer'}) and {why}"
    by_date = is_for_a_person(watch.caller.component)
    answer_status(watch.request, 503, "ServiceUnavailable", message, retry_after=RETRY_AFTER_OFFLINE, retry_by_date=by_date)
    watch.end()


def _tell_state(watch: Watch, found: FoundList) -> list[bytes]:
    """
    The lines that tell what exists, and that this is all, as far as the client asked for that.
    """
    lines: list[bytes] = []
    progress, form = watch.progress, watch.feed.key.form
    progress.tell_state(found.resource_version, found.kind.removesuffix("List"), found.api_version)
    if not progress.from_now:
        state = tell_ages(found.body, watch.hub.now()) if form == TABLE else found.body
        items = (body for _, body in split_list(state).items)
        lines = [_added(body, form) for body in (items if form else watch.screen.state(items))]
    if progress.initial and progress.bookmarks:
        lines.append(encode_bookmark(progress.kind, progress.api_version, progress.version, initial_events_end=True))
    progress.initial = False
    return lines


def _added(body: bytes, form: str) -> bytes:
    """
    The event of an item as the cache holds it; a Table's item is a row and travels in a Table of its own.
    """
    if form == TABLE:
        body = b'{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{},"columnDefinitions":[],"rows":[%b]}' % body
    return encode_event(ADDED, body)
