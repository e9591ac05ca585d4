"""
The proxy's one decision per request: what it is, who asks, and how it is carried.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress

from yurt.http.heads import get_header
from yurt.http.interfaces import IncomingRequest, RequestHead
from yurt.hub.accept import read_accept
from yurt.hub.answers import answer_status
from yurt.hub.cache.views import GETS, Caller
from yurt.hub.changes import Change, is_told
from yurt.hub.documents import DocumentRead, is_document
from yurt.hub.eventwrites import EVENT_GROUPS, EventWrite
from yurt.hub.exclude import TOKENS
from yurt.hub.filtered import FilteredListRead, FilteredObjectRead, UnfilteredForward
from yurt.hub.forward import EDGE_CACHE, Forward
from yurt.hub.identity import NODE, Credential, Door, read_credential
from yurt.hub.lease_body import LEASE_NAMESPACE
from yurt.hub.leasecalls import ANSWERED_HERE, LeaseCall, LeaseCreate, LeaseDelete
from yurt.hub.listreads import ListRead
from yurt.hub.reads import ObjectRead, Read
from yurt.hub.statuswrites import STATUS_RESOURCES, StatusWrite
from yurt.hub.tokenrequests import TokenRequestWrite
from yurt.hub.viewkeys import view_key
from yurt.hub.watches import Watch
from yurt.hub.writes import Create
from yurt.kube.requestinfo import RequestInfo, parse_request

if TYPE_CHECKING:
    from yurt.hub.hub import Hub

LONG_RUNNING = frozenset({"exec", "attach", "portforward", "proxy", "log"})
"""Subresources whose requests may last for hours, counted apart like watches (as kube-apiserver does)."""

READ_VERBS = frozenset({"get", "list", "head"})
"""HEAD of an object is a get; that of anything else has a verb of its own."""

NEVER_CACHED_GROUPS = frozenset({"authentication.k8s.io", "authorization.k8s.io"})
"""Token and access reviews."""

NEVER_CACHED_RESOURCES = frozenset({"certificatesigningrequests"})

MAX_REMEMBERED_CALLERS = 1024

FILTERED: dict[type[Read], type[Read]] = {ObjectRead: FilteredObjectRead, ListRead: FilteredListRead}


def is_loopback(peer: IAddress) -> bool:
    """
    Whether a caller is on this machine: a packet rewritten on its way may reach a loopback address from elsewhere.
    """
    host = peer.host if isinstance(peer, IPv4Address | IPv6Address) else ""
    return host == "::1" or host.startswith("127.")


class LongForward(Forward):
    """
    A request that may last: not counted among those in flight.
    """

    long_running = True


remembered_caller = lru_cache(MAX_REMEMBERED_CALLERS)(Caller)


class HubProxy:
    """
    The application behind every listener of the proxy.
    """

    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    def handle(self, request: IncomingRequest) -> None:
        """
        Take one request.
        """
        hub, memo = self.hub, request.head.memo
        asked: tuple[Credential, RequestInfo, Caller] | None = None if memo is None else memo.get(self)
        if asked is None:
            asked = self.read(request.head)
            if memo is not None:
                memo[self] = asked
        credential, info, caller = asked
        door = request.door
        assert isinstance(door, Door)
        if credential.kind == "none" and not (door.lends_node_identity and is_loopback(request.peer)):
            message = f"a caller on {door.name} must bring its own credentials, such as its service-account token"
            answer_status(request, 401, "Unauthorized", message)
            return
        if self.is_lease_call(info, caller, credential):
            LeaseCall(hub, request, info).begin()
        elif hub.filters.settled or not hub.filters.covers(caller.component, info):
            self.carry(request, info, caller, credential)
        else:
            hub.filters.when_settled(lambda: self.carry(request, info, caller, credential))

    def read(self, head: RequestHead) -> tuple[Credential, RequestInfo, Caller]:
        """
        What a head shows, what it asks for, and for whom.
        """
        credential = read_credential(head.headers)
        component = self.hub.agents.component(get_header(head.headers, b"user-agent"))
        identity = NODE if credential.kind == "none" else self.identity(credential)
        return credential, parse_request(head.method, head.target), remembered_caller(identity, component)

    def carry(self, request: IncomingRequest, info: RequestInfo, caller: Caller, credential: Credential) -> None:
        """
        Make what carries the request, and start it.
        """
        hub, head = self.hub, request.head
        hub.housekeeping.saw(caller)
        cached = self.is_cached(request, info, caller, credential)
        if info.verb == "watch" and head.method == b"GET" and not request.upgrade:
            hub.watching(Watch(hub, request, info, caller, credential, cached))
            return
        forward = self.choose(request, info, caller, credential, cached)(hub, request, info, caller, credential)
        hub.carry(forward)

    def is_lease_call(self, info: RequestInfo, caller: Caller, credential: Credential) -> bool:
        """
        Whether the hub is to answer this, whatever the cloud would say.
        """
        if info.resource != "leases" or info.verb not in ANSWERED_HERE or info.query.get("dryRun"):
            return False
        return not credential.impersonates and self.is_of_own_lease(info, caller)

    def is_of_own_lease(self, info: RequestInfo, caller: Caller) -> bool:
        """
        Whether this is about the Lease of this node, by its kubelet.
        """
        return info.name == self.hub.config.node_name and self.is_of_node_lease(info, caller)

    def is_of_node_lease(self, info: RequestInfo, caller: Caller) -> bool:
        """
        Whether this is about the Lease of a node, by this node's kubelet.
        """
        is_about = info.resource == "leases" and info.namespace == LEASE_NAMESPACE and info.group == "coordination.k8s.io"
        return is_about and not info.subresource and caller.component == "kubelet" and caller.identity == NODE

    def identity(self, credential: Credential) -> str:
        """
        The identity that a credential claims; the hub gives it meaning only after the cloud accepted it.
        """
        return self.hub.tokens.subject(credential.token) if credential.token else "other"

    def is_cached(self, request: IncomingRequest, info: RequestInfo, caller: Caller, credential: Credential) -> bool:
        """
        Whether what this caller reads here is kept.
        """
        if (
            not info.is_resource
            or info.subresource not in ("", "status")
            or credential.impersonates
            or credential.kind == "other"
            or info.namespace == GETS  # no namespace; its list would pass for what single reads brought
        ):
            return False
        if info.group in NEVER_CACHED_GROUPS or info.resource in NEVER_CACHED_RESOURCES:
            return False
        if self.hub.excluded.covers(info.group, info.resource):
            return False
        if self.hub.agents.cached(caller.component) or self.hub.filters.covers(caller.component, info):
            return True
        asked = get_header(request.head.headers, EDGE_CACHE)
        return asked is not None and asked.strip().lower() == b"true"

    def choose(
        self, request: IncomingRequest, info: RequestInfo, caller: Caller, credential: Credential, cached: bool
    ) -> type[Forward]:
        """
        How a request that is no watch is carried.  What is asked in another's name is only passed on.
        """
        if request.upgrade or info.subresource in LONG_RUNNING or info.verb == "proxy":
            return LongForward
        if info.verb in READ_VERBS:
            return self.choose_read(request, info, caller, cached)
        if not info.is_resource or credential.impersonates:
            return Forward
        return self.choose_write(info, caller, cached)

    def choose_read(self, request: IncomingRequest, info: RequestInfo, caller: Caller, cached: bool) -> type[Forward]:
        """
        Reads: from the cloud and into the cache, where that is possible.
        """
        if not info.is_resource:
            return DocumentRead if is_document(info) else Forward
        if not cached:
            return Forward
        if not read_accept(get_header(request.head.headers, b"accept")).json:
            return UnfilteredForward if self.hub.filters.covers(caller.component, info) else Forward
        read: type[Read] = ObjectRead if info.verb == "get" else ListRead
        return FILTERED[read] if self.is_filtered(info, caller) else read

    def is_filtered(self, info: RequestInfo, caller: Caller) -> bool:
        """
        Whether an answer has to be looked at before the client gets it: something is filtered, should be, or was when it listed
        last.
        """
        filters, component = self.hub.filters, caller.component
        if filters.covers(component, info) and (filters.lens(component, info).rules or filters.lacks(component, info)):
            return True
        return info.verb == "list" and filters.told.knows(view_key(caller, info, ""))

    def choose_write(self, info: RequestInfo, caller: Caller, cached: bool) -> type[Forward]:
        """
        Writes: those that can be kept without the cloud are read whole first.
        """
        if info.query.get("dryRun"):
            return Forward  # only tried: nothing of it may be kept
        if info.resource == "events" and info.group in EVENT_GROUPS and info.verb in ("create", "patch") and not info.subresource:
            return EventWrite
        if info.resource == "serviceaccounts" and info.subresource == "token" and info.verb == "create":
            is_kept = self.hub.agents.cached(caller.component) and not self.hub.excluded.covers("", TOKENS)
            return TokenRequestWrite if is_kept else Forward
        if cached and self.is_own_status(info, caller):
            return StatusWrite
        if info.verb == "create" and not info.name and self.is_of_node_lease(info, caller):
            return LeaseCreate
        if info.verb == "delete" and self.is_of_own_lease(info, caller):
            return LeaseDelete
        if cached and info.verb == "create" and not info.subresource and not info.name:
            return Create
        return Change if cached and is_told(info) else Forward

    def is_own_status(self, info: RequestInfo, caller: Caller) -> bool:
        """
        Whether kubelet reports the status of its node or of a pod.
        """
        of_kubelet = caller.component == "kubelet" and caller.identity == NODE
        return of_kubelet and info.gvr in STATUS_RESOURCES and info.subresource == "status" and info.verb in ("patch", "update")
