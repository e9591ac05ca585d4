"""
POST and PATCH of Events: without the cloud they are journalled.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

import msgspec
from msgspec import structs

from yurt.http.interfaces import UpstreamError
from yurt.hub.answers import JSON
from yurt.hub.cache.views import Found
from yurt.hub.event_body import EventError, read_event
from yurt.hub.journal import MAX_EVENT_BYTES, Entry
from yurt.hub.writes import KeptWrite, read_body_head
from yurt.kube.patch import JSON_PATCH, PatchError, apply_patch
from yurt.kube.protobuf import MAGIC

EVENT_GROUPS = frozenset({"", "events.k8s.io"})


class EventWrite(KeptWrite):
    """
    POST or PATCH of an Event.
    """

    was_sent = False
    """Whether the last attempt may have been carried out, though no answer came."""

    @property
    def follows(self) -> bool:
        """
        A change queues behind what waits of the same event.
        """
        return self.info.verb == "patch" and bool(self.hub.journal.events(self.path(self.info.name)))

    def answer_offline(self, error: UpstreamError | None) -> None:
        """
        What was sent without an answer may have been carried out.
        """
        self.was_sent = error is not None and error.sent
        super().answer_offline(error)

    @property
    def may_be_doubled(self) -> bool:
        """
        Whether a server may have done it already, and would do another thing the second time: make one more event of one without
        a name, or add what a JSON patch adds.
        """
        if not self.was_sent and self.exchange is None:
            return False
        if self.info.verb == "patch":
            return self.content_type == JSON_PATCH
        return not read_body_head(self.body).meta.name

    def path(self, name: str) -> str:
        """
        The path of an event of this collection, in the group and version asked for.
        """
        info = self.info
        root = f"/apis/{info.group}" if info.group else "/api"
        return f"{root}/{info.version}/namespaces/{info.namespace}/events/{name}"

    def keep_locally(self) -> bool:
        """
        Into the journal, with an answer that the event recorder understands.
        """
        head, body = self.request.head, self.body
        target = head.target.decode("latin-1")
        if len(body) > MAX_EVENT_BYTES or self.may_be_doubled:
            return False
        if self.is_elsewhere(body):
            message = "the namespace of the provided object does not match the namespace sent on the request"
            self.answer_status(400, "BadRequest", message)
            return True
        if self.info.verb == "create":
            answer, content_type = self.created(body)
            status = 201
            if content_type == JSON[1]:
                body = answer  # with the name that the client gets to know
        else:
            patched = self.patched(body)
            if patched is None:
                return False
            answer, content_type, status = patched, JSON[1], 200
        if not answer:
            return False
        name = self.info.name or read_body_head(body).meta.name
        entry = self.journalled(body, head.method.decode("ascii"), target, self.content_type)
        self.hub.journal.add_event(structs.replace(entry, about=self.path(name) if name else ""))
        self.acknowledge(status, answer, content_type)
        return True

    def is_elsewhere(self, body: bytes) -> bool:
        """
        Whether a new event names another namespace than the request, which no API server takes.
        """
        named = read_body_head(body).meta.namespace if self.info.verb == "create" else ""
        return named not in ("", self.info.namespace)

    def created(self, body: bytes) -> tuple[bytes, bytes]:
        """
        The event as it would be stored; a protobuf body comes back as it is.
        """
        if body.startswith(MAGIC):
            return body, b"application/vnd.kubernetes.protobuf"
        try:
            event: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
            metadata = event.setdefault("metadata", {})
            metadata.setdefault("namespace", self.info.namespace)
        except (msgspec.DecodeError, UnicodeDecodeError, AttributeError):
            return b"", b""
        if not metadata.get("name"):
            metadata["name"] = str(metadata.get("generateName", "")) + uuid.uuid4().hex[:8]
        metadata.setdefault("uid", str(uuid.uuid4()))
        metadata.setdefault("creationTimestamp", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.hub.now())))
        return msgspec.json.encode(event), JSON[1]

    def patched(self, patch: bytes) -> bytes | None:
        """
        What is known of the event, with the patch; None when that cannot be applied.
        """
        try:
            event = self.known()
            for entry in self.hub.journal.events(self.path(self.info.name)):
                event = self.replayed(event, entry)
            return msgspec.json.encode(apply_patch(self.content_type, event, patch, "Event"))
        except PatchError:
            return None

    def known(self) -> dict[str, Any]:
        """
        The event as the cloud has told it to this caller, else its name.
        """
        info = self.info
        found = self.hub.views.read_object(self.caller, info.gvr, "", info.namespace, info.name)
        if isinstance(found, Found):
            return msgspec.json.decode(found.body, type=dict[str, Any])
        version = f"{info.group}/{info.version}" if info.group else info.version
        return {"kind": "Event", "apiVersion": version, "metadata": {"name": info.name, "namespace": info.namespace}}

    def replayed(self, event: dict[str, Any], entry: Entry) -> dict[str, Any]:
        """
        The event as it will be when an entry of the journal has been sent.  Raises PatchError.
        """
        if entry.method == "PATCH":
            return apply_patch(entry.content_type, event, entry.body, "Event")
        try:
            return read_event(entry.body)
        except EventError:
            return event
