"""
Changes that the cloud makes for a cached caller: what it answers to a write is news of the object, as good as that of a GET.

Without this a change that is followed at once by the loss of the cloud would not show in the cache: watches tell the node of it a
moment later only, and callers that do not watch with their next read.
"""

from __future__ import annotations

import msgspec

from yurt.http.heads import get_header
from yurt.http.interfaces import RequestHead, ResponseHead
from yurt.hub.accept import is_json, narrow, read_accept
from yurt.hub.cache.views import FORMS
from yurt.hub.forward import Forward
from yurt.kube.objects import PARTIAL, TABLE, ObjectError, read_object
from yurt.kube.requestinfo import RequestInfo

TOLD_BY = frozenset({"create", "update", "patch", "delete"})
"""The verbs that are about one object, and answered with it or with its end."""

DRY_RUN = b"All"
"""What the body of a DELETE holds, in whatever encoding, if it is only tried; so do others by chance, and are not believed."""


class _Meta(msgspec.Struct):
    deleted_at: str | None = msgspec.field(default=None, name="deletionTimestamp")
    grace_seconds: int | None = msgspec.field(default=None, name="deletionGracePeriodSeconds")
    finalizers: list[str] | None = None


class _Spec(msgspec.Struct):
    finalizers: list[str] | None = None


class _Ending(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    spec: _Spec | None = None


_decode_ending = msgspec.json.Decoder(_Ending).decode


def is_told(info: RequestInfo) -> bool:
    """
    Whether the answer to a write tells what becomes of one object.
    """
    return info.verb in TOLD_BY and info.subresource in ("", "status")


def is_gone(body: bytes, *, deleted: bool) -> bool:
    """
    Whether an object as a write has left it exists no more; ``deleted`` tells whether the write was a DELETE.  One that waits for
    finalizers or for the end of its grace period still does.  Raises msgspec.MsgspecError.
    """
    ending = _decode_ending(body)
    meta = ending.metadata
    if meta.finalizers or (ending.spec is not None and ending.spec.finalizers) or (meta.deleted_at and meta.grace_seconds):
        return False
    return deleted or bool(meta.deleted_at)


class Change(Forward):
    """
    A write of a cached caller that only the cloud can do; the cache takes in what it says of the object.
    """

    def upstream_head(self) -> RequestHead:
        """
        Ask for JSON, the one form that is stored, if the client takes it.
        """
        head = super().upstream_head()
        accept = read_accept(get_header(head.headers, b"accept"))
        return narrow(head, accept.narrowed) if accept.json else head

    def keeps(self, head: ResponseHead) -> bool:
        """
        Whether the answer tells of the object.
        """
        return head.status in (200, 201, 202) and is_told(self.info) and is_json(get_header(head.headers, b"content-type"))

    def store(self, head: ResponseHead, body: bytes) -> None:
        """
        The object is as the cloud has told, or gone.
        """
        body, deleted = body.rstrip(), self.info.verb == "delete"
        try:
            told = read_object(body)
            if told.kind == "Status":
                if deleted and self.is_meant:
                    self.forget(self.info.namespace, self.info.name)
            elif told.kind == TABLE:
                return  # its rows may hold no more than metadata
            elif not is_gone(body, deleted=deleted):
                self.hub.views.store_object(self.caller, self.info.gvr, PARTIAL if told.kind == PARTIAL else "", body)
            elif not deleted or self.is_meant:
                self.forget(told.meta.namespace, told.meta.name)
        except (ObjectError, msgspec.MsgspecError) as error:
            self.log.debug("not cached: {what}: {error}", what=self.describe(), error=str(error))

    @property
    def is_meant(self) -> bool:
        """
        Whether a DELETE was certainly no dry run, which its body may say, too.
        """
        upload = self.upload
        return upload is None or (upload.pieces is not None and DRY_RUN not in upload.held)

    def forget(self, namespace: str, name: str) -> None:
        """
        Single reads of this caller find the object no more.
        """
        for form in FORMS:
            self.hub.views.forget_object(self.caller, self.info.gvr, form, namespace, name)
