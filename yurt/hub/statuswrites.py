"""
The status of a node or of a pod, as kubelet reports it: without the cloud it is merged into the cached object, shown to watchers,
and journalled.
"""

from __future__ import annotations

from typing import Any

import msgspec

from yurt.http.interfaces import UpstreamError
from yurt.hub.answers import JSON
from yurt.hub.cache.views import Found
from yurt.hub.changes import Change
from yurt.hub.journal import Entry
from yurt.hub.writes import KeptWrite
from yurt.kube.laststate import last_status
from yurt.kube.patch import PATCH_TYPES, STRATEGIC_MERGE_PATCH, PatchError, apply_patch
from yurt.kube.protobuf import MAGIC

STATUS_RESOURCES = frozenset({"/v1/nodes", "/v1/pods"})
CHANGED_WITH_STATUS = ("labels", "annotations")
"""What a write to the status of a node or a pod changes besides it."""
APPLY_TYPES = frozenset({"application/apply-patch+yaml", "application/apply-patch+cbor"})
"""Server-side apply: whose fields are whose is for the cloud to say."""


class Conflict(Exception):
    """
    A write is about another object, or another state of it, than there is.
    """


class StatusWrite(Change, KeptWrite):
    """
    PATCH or PUT of the status of a node or a pod, by kubelet.
    """

    @property
    def follows(self) -> bool:
        """
        A state joins an earlier one that waits.
        """
        return self.hub.journal.status(self.path()) is not None

    def answer_offline(self, error: UpstreamError | None) -> None:
        """
        A body that cannot be read here is told from a write that has to wait for the cloud: in another form it is taken at once.
        """
        may_be_done = error is not None and error.sent
        if self.is_readable or self.content_type in APPLY_TYPES or self.streamed or may_be_done:
            super().answer_offline(error)
            return
        media_types = JSON[1].decode() if self.info.verb == "update" else ", ".join(sorted(PATCH_TYPES))
        reason = self.hub.cloud.reason or self.failure or "no answer"
        message = (
            f"{self.describe()}: the cloud is not reachable ({reason}), and without it the body of the request is taken in these "
            f"media types only: {media_types}"
        )
        self.answer_status(415, "UnsupportedMediaType", message)

    @property
    def is_readable(self) -> bool:
        """
        Whether the body is in a form that can be read here.
        """
        if self.info.verb == "patch":
            return self.content_type in PATCH_TYPES
        return self.content_type == JSON[1].decode() and not self.body.startswith(MAGIC)

    def keep_locally(self) -> bool:
        """
        Merge into the cached object, show it to the node's own readers and watchers, and journal the last state.
        """
        info = self.info
        self.hub.turns.finish()
        found = self.hub.views.read_object(self.caller, info.gvr, "", info.namespace, info.name)
        if not isinstance(found, Found):
            return False
        known = msgspec.json.decode(found.body, type=dict[str, Any])
        try:
            merged = self.merge(known)
        except Conflict as error:
            self.answer_status(409, "Conflict", f'Operation cannot be fulfilled on {info.resource} "{info.name}": {error}')
            return True
        except (PatchError, msgspec.DecodeError, UnicodeDecodeError) as error:
            self.answer_status(400, "BadRequest", f"{self.describe()}: {error}")
            return True
        if merged is None:
            return False
        body = msgspec.json.encode(merged)
        self.hub.views.store_local(self.caller, info.gvr, body)
        path = self.path()
        waiting = self.hub.journal.status(path)
        base = waiting.base if found.local and waiting is not None and waiting.base else found.body
        patch = msgspec.json.encode(self.last_state(base, waiting, known, merged))
        self.hub.journal.put_status(path, self.journalled(patch, "PATCH", path, STRATEGIC_MERGE_PATCH, base))
        self.hub.publish(info.gvr, found.body, body)
        self.acknowledge(200, body)
        return True

    @property
    def kind(self) -> str:
        """
        What the status is of.
        """
        return "Node" if self.info.resource == "nodes" else "Pod"

    def path(self) -> str:
        """
        The path of the status.
        """
        info = self.info
        within = f"/namespaces/{info.namespace}" if info.namespace else ""
        return f"/api/{info.version}{within}/{info.resource}/{info.name}/status"

    def last_state(self, base: bytes, waiting: Entry | None, known: dict[str, Any], merged: dict[str, Any]) -> dict[str, Any]:
        """
        The patch that will bring the cloud's object, ``base``, to what ``merged`` is: the whole status, and what was changed
        among labels and annotations, now and by what still waits to be sent.
        """
        before = {} if waiting is None else msgspec.json.decode(waiting.body, type=dict[str, Any]).get("metadata", {})
        metadata = {"uid": merged["metadata"]["uid"]} if merged["metadata"].get("uid") else {}
        for name in CHANGED_WITH_STATUS:
            changes = {**before.get(name, {}), **changed(known["metadata"].get(name), merged["metadata"].get(name))}
            if changes:
                metadata[name] = changes
        before_status = msgspec.json.decode(base, type=dict[str, Any]).get("status") or {}
        return {"metadata": metadata, "status": last_status(self.kind, before_status, merged.get("status") or {})}

    def merge(self, known: dict[str, Any]) -> dict[str, Any] | None:
        """
        The known object with the new status, labels and annotations, and nothing else changed, as the status subresource of
        nodes and pods works; None when the body cannot be read here.
        """
        if not self.is_readable:
            return None
        if self.info.verb == "patch":
            merged = apply_patch(self.content_type, known, self.body, self.kind)
        else:
            merged = msgspec.json.decode(self.body, type=dict[str, Any])
        metadata, wanted = dict(known["metadata"]), merged.get("metadata")
        if not isinstance(wanted, dict) or not isinstance(merged.get("status", {}), dict):
            raise PatchError("the result is no object with metadata and status")
        for name in ("uid", "resourceVersion"):
            if wanted.get(name) and wanted[name] != metadata.get(name):
                raise Conflict(f"Precondition failed: {name} in precondition: {wanted[name]}, in object: {metadata.get(name)}")
        metadata.update({name: wanted[name] for name in CHANGED_WITH_STATUS if isinstance(wanted.get(name), dict)})
        result = {**known, "metadata": metadata}
        if "status" in merged:
            result["status"] = merged["status"]
        return result


def changed(before: dict[str, str] | None, after: dict[str, str] | None) -> dict[str, str | None]:
    """
    A merge patch from one map to another.
    """
    old, new = before or {}, after or {}
    removed: dict[str, str | None] = dict.fromkeys(key for key in old if key not in new)
    return {**removed, **{key: value for key, value in new.items() if old.get(key) != value}}
