"""
Writes: they go to the cloud; while it is away some of them can be kept honestly, the rest is refused.

| write                                  | without the cloud                                             |
|----------------------------------------|---------------------------------------------------------------|
| POST, PATCH of events                  | journalled, 201 / 200                                         |
| PATCH, PUT of node or pod status, by kubelet | merged into the cached object, shown to watchers, journalled; 415 in protobuf |
| POST of an object that the cache holds | 409 AlreadyExists                                             |
| TokenRequest                           | the last real token (:mod:`yurt.hub.tokenrequests`)           |
| everything else                        | 503                                                           |
"""

from __future__ import annotations

import time
import uuid
from typing import Any

import msgspec
from msgspec import structs
from twisted.internet.defer import Deferred

from yurt.http.heads import get_header
from yurt.http.interfaces import Headers, ResponseHead, UpstreamError
from yurt.hub.answers import FROM_HUB, JSON
from yurt.hub.cache.views import Found
from yurt.hub.changes import Change
from yurt.hub.cloud import LOAD_BALANCER_ERRORS
from yurt.hub.event_body import EventError, read_event
from yurt.hub.forward import Forward
from yurt.hub.journal import MAX_EVENT_BYTES, Entry
from yurt.hub.upload import MAX_REPLAYED_BODY, Upload
from yurt.kube.laststate import last_status
from yurt.kube.objects import NO_META, ObjectError, ObjectHead, read_object
from yurt.kube.patch import PATCH_TYPES, STRATEGIC_MERGE_PATCH, PatchError, apply_patch
from yurt.kube.protobuf import MAGIC, ProtobufError, read_unknown

MAX_BUFFERED_WRITE = 3 * 1024 * 1024
"""Bytes of a request body held so that the write can be kept without the cloud; kube-apiserver takes no more either."""

MAX_BUFFERED_TOTAL = 16 * 1024 * 1024
"""Bytes held so of all writes together; beyond it bodies go on as they come, and cannot be kept."""

STATUS_RESOURCES = frozenset({"/v1/nodes", "/v1/pods"})
CHANGED_WITH_STATUS = ("labels", "annotations")
"""What a write to the status of a node or a pod changes besides it."""
EVENT_GROUPS = frozenset({"", "events.k8s.io"})
APPLY_TYPES = frozenset({"application/apply-patch+yaml", "application/apply-patch+cbor"})
"""Server-side apply: whose fields are whose is for the cloud to say."""


class Write(Forward):
    """
    A write whose body the hub reads whole before it goes out, because it may have to keep it: if its caller is known without
    the cloud, and there is room.
    """

    streamed = False
    buffered = 0

    def begin(self) -> None:
        """
        Read the body first, if there is one.
        """
        self.streamed = not self.admitted_offline()
        upload = self.upload
        self.waiting_for_body = upload is not None and not self.streamed
        if upload is None or not self.waiting_for_body:
            self.set_out()
            return
        upload.limit = MAX_BUFFERED_WRITE
        self.request.when_lost(self.client_lost)
        upload.read()
        if self.streamed:
            self.stream(upload)

    def body_received(self, data: bytes) -> None:
        """
        Collect; a body that is too large to be kept goes on as it comes, as soon as it is known where to.
        """
        super().body_received(data)
        upload = self.upload
        if upload is None or not self.waiting_for_body:
            return
        self.buffered += len(data)
        self.hub.buffered_bytes += len(data)
        if self.buffered > MAX_BUFFERED_WRITE or self.hub.buffered_bytes > MAX_BUFFERED_TOTAL:
            self.waiting_for_body = False
            self.streamed = True
            upload.limit = MAX_REPLAYED_BODY
            if upload.flow is not None:
                self.stream(upload)

    def stream(self, upload: Upload) -> None:
        """
        Send what has come and then the rest, which waits until there is a server for it.
        """
        assert upload.flow is not None
        upload.flow.pause()
        super().begin()

    def body_finished(self, trailers: Headers) -> None:
        """
        All there: now the cloud.
        """
        super().body_finished(trailers)
        if self.waiting_for_body:
            self.waiting_for_body = False
            self.set_out()

    def set_out(self) -> None:
        """
        Go to the cloud, with all of the body that is to be read before.
        """
        super().begin()

    def done(self) -> None:
        """
        Give back the room for the body as well.
        """
        self.hub.buffered_bytes -= self.buffered
        self.buffered = 0
        super().done()

    @property
    def body(self) -> bytes:
        """
        The whole body.
        """
        return b"" if self.upload is None else self.upload.held

    @property
    def content_type(self) -> str:
        """
        The media type of the body, without parameters.
        """
        value = get_header(self.request.head.headers, b"content-type") or b"application/json"
        return value.split(b";", 1)[0].strip().lower().decode("latin-1")

    def head_received(self, head: ResponseHead) -> None:
        """
        A load balancer without servers behind it is no answer to a write that can be kept.
        """
        if head.status in LOAD_BALANCER_ERRORS and self.admitted_offline() and not self.streamed and self.keep_locally():
            self.answered_by_cloud(head)
            self.wait.end()
            self.drop_exchange()
        else:
            super().head_received(head)

    def answer_offline(self, error: UpstreamError | None) -> None:
        """
        Keep the write if that is honest, else refuse it.
        """
        if self.streamed or not self.keep_locally():
            super().answer_offline(error)

    def keep_locally(self) -> bool:
        """
        Answer without the cloud; false when this write needs it.
        """
        return self.refuse_existing()

    def refuse_existing(self) -> bool:
        """
        409 for the creation of an object that the cache holds.
        """
        info = self.info
        if info.verb != "create" or info.subresource or info.name:
            return False
        self.hub.turns.finish()
        meta = read_body_head(self.body).meta
        found = self.hub.views.read_object(self.caller, info.gvr, "", info.namespace, meta.name) if meta.name else None
        if not isinstance(found, Found):
            return False
        kind = f"{info.resource}.{info.group}" if info.group else info.resource
        self.answer_status(409, "AlreadyExists", f'{kind} "{meta.name}" already exists')
        return True

    def journalled(self, body: bytes, method: str, target: str, content_type: str, base: bytes = b"") -> Entry:
        """
        A journal entry that speaks for this caller.
        """
        authorization = f"Bearer {self.credential.token}" if self.credential.token else ""
        return Entry(method, target, content_type, body, authorization, base)

    def acknowledge(self, status: int, body: bytes, content_type: bytes = JSON[1]) -> None:
        """
        Answer as soon as what was kept is on disk, or at once when there is no disk to be had.
        """
        saved: Deferred[bool] = self.hub.store.flush()
        saved.addErrback(lambda failure: self.log.failure("keeping a write on disk failed", failure=failure))
        saved.addCallback(lambda _: self.respond(status, body, content_type))

    def respond(self, status: int, body: bytes, content_type: bytes) -> None:
        """
        The hub's own answer.
        """
        if not self.finished:
            self.series.from_hub += 1
            self.request.respond(status, [(b"Content-Type", content_type), FROM_HUB], body)
            self.done()


class Create(Change, Write):
    """
    POST of an object, by a cached caller.
    """


class EventWrite(Write):
    """
    POST or PATCH of an Event.
    """

    def proceed(self) -> None:
        """
        A change must not overtake what waits to be sent of the same event: it queues behind it.
        """
        waits = self.info.verb == "patch" and self.hub.journal.events(self.path(self.info.name))
        if self.finished or not (waits and self.admitted_offline() and not self.streamed and self.keep_locally()):
            super().proceed()

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
        if len(body) > MAX_EVENT_BYTES:
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


class Conflict(Exception):
    """
    A write is about another object, or another state of it, than there is.
    """


class StatusWrite(Change, Write):
    """
    PATCH or PUT of the status of a node or a pod, by kubelet.
    """

    def proceed(self) -> None:
        """
        A state must not overtake an earlier one that still waits to be sent: it joins it.
        """
        waits = self.hub.journal.status(self.path()) is not None
        if self.finished or not (waits and self.admitted_offline() and not self.streamed and self.keep_locally()):
            super().proceed()

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


def read_body_head(body: bytes) -> ObjectHead:
    """
    Type and identity of the object in a request body, JSON or protobuf; empty when it cannot be read.
    """
    try:
        return read_unknown(body)[0] if body.startswith(MAGIC) else read_object(body)
    except (ObjectError, ProtobufError):
        return ObjectHead("", "", NO_META)
