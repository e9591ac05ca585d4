"""
Whether anything has changed that a watch would tell, asked of an API server that does not know as much history.

An API server keeps the history of its own watch cache only.  One that has just started answers 410 to a watch that goes on from
an older version, although in most collections nothing has changed since.  (From Kubernetes 1.24 on bookmarks keep versions new.)
What it lists now is compared with what was there: with the cache's view, or with the list at that very version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from yurt.http.fetch import AnswerTooLarge, FetchTimeout, fetch
from yurt.http.heads import without
from yurt.kube.objects import ObjectError, is_newer, read_object, split_list

if TYPE_CHECKING:
    from yurt.hub.cloud import Server
    from yurt.hub.watches import Watch

LIST_TIMEOUT = 15.0
"""Seconds that a list may take."""

MAX_LIST_BYTES = 8 * 1024 * 1024
"""Bytes of a list that are read; a watch of more objects than that begins anew."""

METADATA_ONLY = b"application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"

State = dict[tuple[str, str], str]
"""Versions of objects, by namespace and name."""


async def find_version(watch: Watch, server: Server) -> str:
    """
    A newer version at which all is as it is at the one that the watch has reached; empty when something has changed, or nobody
    can tell.  Raises UpstreamError when the server does not answer any more.
    """
    version = watch.progress.client_version
    try:
        before = read_view(watch, version)
        if before is None:
            at_version = {"resourceVersion": version, "resourceVersionMatch": "Exact"}
            before, listed = await list_now(watch, server, at_version)
            if listed != version:  # refused, or a server that does not know of that
                return ""
        after, newer = await list_now(watch, server, {})
    except (AnswerTooLarge, FetchTimeout, ObjectError) as error:
        watch.log.debug("watch {resource}: {error}", resource=watch.info.resource, error=str(error))
        return ""
    return newer if before == after else ""


async def find_proof(watch: Watch, server: Server) -> str:
    """
    A version, not older than the client's, at which all is as the cache holds it, so that the cloud has nothing to repeat; empty
    when it has, or nobody can tell.  Raises UpstreamError when the server does not answer any more.
    """
    before = read_view(watch, watch.progress.version)
    if before is None:
        return ""
    try:
        after, newer = await list_now(watch, server, {})
    except (AnswerTooLarge, FetchTimeout, ObjectError) as error:
        watch.log.debug("watch {resource}: {error}", resource=watch.info.resource, error=str(error))
        return ""
    return newer if newer and before == after and not is_newer(watch.progress.known_version, newer) else ""


def read_view(watch: Watch, version: str) -> State | None:
    """
    What the cache holds, if it is of just that version.  Objects are shared: through another view it may know of a change that
    this watch has not told yet.
    """
    view = watch.feed.view if watch.cached and not watch.feed.key.form else None
    if view is None or not view.complete or view.frozen or view.resource_version != version:
        return None
    watch.hub.turns.finish()
    metas = [read_object(item).meta for item in watch.hub.views.members(watch.feed.key)]
    if any(is_newer(meta.resource_version, version) for meta in metas):
        return None
    return {(meta.namespace, meta.name): meta.resource_version for meta in metas}


async def list_now(watch: Watch, server: Server, query: dict[str, str]) -> tuple[State, str]:
    """
    What the server lists to the watch's client, and of which version that is; of none when it refuses.
    """
    selectors = {name: watch.info.query[name] for name in ("labelSelector", "fieldSelector") if name in watch.info.query}
    path = watch.request.head.target.partition(b"?")[0]
    target = path + b"?" + urlencode({**selectors, **query}).encode()
    head = watch.attachment.upstream_head()
    headers = [*without(head.headers, b"accept"), (b"Accept", METADATA_ONLY)]
    upstream = server.upstream if watch.credential.kind == "none" else server.bare
    hub = watch.hub
    answer = await fetch(hub.reactor, upstream, b"GET", target, headers, timeout=LIST_TIMEOUT, limit=MAX_LIST_BYTES)
    if answer.status != 200:
        return {}, ""
    parts = split_list(answer.body)
    if parts.continue_token:
        return {}, ""
    return {(meta.namespace, meta.name): meta.resource_version for meta, _ in parts.items}, parts.resource_version
