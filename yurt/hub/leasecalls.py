"""
Kubelet's calls about Leases of nodes: those about its own the hub answers, with the cloud and without.

Reading it, renewing it and creating it is all that kubelet does; what else somebody does in its name (another Lease, DELETE, a
list, a dry run) goes on like any other request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from yurt.http.heads import get_header
from yurt.http.interfaces import FlowControlled, Headers, IncomingRequest, ResponseHead
from yurt.hub.answers import FROM_HUB, JSON, answer_status
from yurt.hub.forward import Forward
from yurt.hub.lease_body import LEASE_NAMESPACE, LeaseError, read_lease
from yurt.hub.writes import Write
from yurt.kube.requestinfo import RequestInfo

if TYPE_CHECKING:
    from yurt.hub.hub import Hub

ANSWERED_HERE = frozenset({"get", "update", "patch"})
"""Verbs of the calls that name the node's own Lease and are the hub's to answer."""

MAX_LEASE_BODY = 64 * 1024


class LeaseCall:
    """
    One of kubelet's calls that name its own Lease: the hub's to answer, always.
    """

    def __init__(self, hub: Hub, request: IncomingRequest, info: RequestInfo) -> None:
        self.hub = hub
        self.request = request
        self.info = info
        self.body: list[bytes] = []
        self.size = 0
        self.flow: FlowControlled | None = None

    def begin(self) -> None:
        """
        Read the body if there is one, then answer.
        """
        if self.request.has_body:
            self.flow = self.request.read_body(self)
        else:
            self.body_finished([])

    def body_received(self, data: bytes) -> None:
        """
        A Lease is small.
        """
        self.size += len(data)
        if self.size <= MAX_LEASE_BODY:
            self.body.append(data)

    def body_finished(self, trailers: Headers) -> None:
        """
        Answer.
        """
        if self.size > MAX_LEASE_BODY:
            answer_status(self.request, 413, "RequestEntityTooLarge", f"a Lease of {self.size} bytes")
            return
        headers = self.request.head.headers
        media_type = (get_header(headers, b"content-type") or b"application/json").partition(b";")[0]
        content_type = media_type.strip().lower().decode("latin-1")
        method = self.request.head.method.decode("ascii")
        status, body = self.hub.lease.answer(method, b"".join(self.body), content_type)
        self.hub.metrics.series("kubelet", self.info.verb, "leases").from_hub += 1
        self.request.respond(status, [JSON, FROM_HUB], body)


class LeaseCreate(Write):
    """
    A POST to the Leases of nodes: only its body tells whose Lease it makes.
    """

    def set_out(self) -> None:
        """
        The node's own is made here; the cloud hears of it with the next renewal.
        """
        if self.is_own():
            status, answer = self.hub.lease.answer("POST", self.body, self.content_type)
            self.respond(status, answer, JSON[1])
        else:
            super().set_out()

    def is_own(self) -> bool:
        """
        Whether the body is this node's Lease.
        """
        if self.upload is None or not self.upload.complete or self.buffered > MAX_LEASE_BODY:
            return False
        try:
            metadata = read_lease(self.body)["metadata"]
        except LeaseError:
            return False
        return metadata.get("name") == self.hub.config.node_name and metadata.get("namespace") in (None, "", LEASE_NAMESPACE)


class LeaseDelete(Forward):
    """
    DELETE of the node's own Lease.  While kubelet lives it makes it anew, as it does without a hub.
    """

    def head_received(self, head: ResponseHead) -> None:
        """
        What the cloud has deleted the hub does not hold on to.
        """
        if head.status == 200:
            self.hub.lease.forget()
        super().head_received(head)
