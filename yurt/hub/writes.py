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

from twisted.internet.defer import Deferred

from yurt.http.heads import get_header
from yurt.http.interfaces import Headers, ResponseHead, UpstreamError
from yurt.hub.answers import FROM_HUB, JSON
from yurt.hub.cache.views import Found
from yurt.hub.changes import Change
from yurt.hub.clienttime import KEPT_AFTER, KEPT_GRACE, SHARE, time_of
from yurt.hub.cloud import LOAD_BALANCER_ERRORS
from yurt.hub.forward import Forward
from yurt.hub.journal import Entry
from yurt.hub.upload import MAX_REPLAYED_BODY, Upload
from yurt.kube.objects import NO_META, ObjectError, ObjectHead, read_object
from yurt.kube.protobuf import MAGIC, ProtobufError, read_unknown

MAX_BUFFERED_WRITE = 3 * 1024 * 1024
"""Bytes of a request body held so that the write can be kept without the cloud; kube-apiserver takes no more either."""

MAX_BUFFERED_TOTAL = 16 * 1024 * 1024
"""Bytes held so of all writes together; beyond it bodies go on as they come, and cannot be kept."""


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
        if head.status in LOAD_BALANCER_ERRORS and self.answer_here():
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

    def answer_here(self) -> bool:
        """
        Keep the write, for a caller that is known without the cloud.
        """
        return self.admitted_offline() and not self.streamed and self.keep_locally()

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


class KeptWrite(Write):
    """
    A write that the hub can take by itself, so that its client need not wait for long.
    """

    verdict_wait = KEPT_GRACE

    def proceed(self) -> None:
        """
        It must not overtake what still waits to be sent of the same object: it joins that.
        """
        if self.finished or not (self.follows and self.answer_here()):
            super().proceed()

    @property
    def follows(self) -> bool:
        """
        Whether something waits that it must not overtake.
        """
        return False

    @property
    def late_after(self) -> float:
        """
        A part of what its client tells of its time, and no more than kubelet has in any case.
        """
        return min(KEPT_AFTER, SHARE * time_of(self.info))

    def holds(self, head: ResponseHead) -> bool:
        """
        Should the answer break off, there is another one.
        """
        return head.status in (200, 201)


class Create(Change, Write):
    """
    POST of an object, by a cached caller.
    """


def read_body_head(body: bytes) -> ObjectHead:
    """
    Type and identity of the object in a request body, JSON or protobuf; empty when it cannot be read.
    """
    try:
        return read_unknown(body)[0] if body.startswith(MAGIC) else read_object(body)
    except (ObjectError, ProtobufError):
        return ObjectHead("", "", NO_META)
