"""
Approves the certificates that yurt's daemons ask for, and no others.

Facts: OpenYurt's csrapprover knows its daemons by what a CertificateSigningRequest *says*; this one looks at who *asks*, too
(``spec.username`` and ``spec.groups``, which the API server fills in).  What it does not approve it leaves as it is, with an
Event that says why; it never denies.  Requests that are not those of our daemons are none of its business.

Requests for one node are looked at together, in the order in which they were made: the first one may settle the others.

Whoever has a token may join any node that nobody is.  A token can be made for one node, by an extra group: it joins that one
only, and anew as often as need be, since whoever makes a token decides that.

All agents of the tunnel have one common name, by which nobody can tell of which node one is.  An agent that asks in that name
shows its certificate with the request (:mod:`yurt.kube.csr.renewal`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any

import msgspec
from cryptography import x509

from yurt.controllers.config import ControllersConfig
from yurt.controllers.controller import UPDATE, Controller, Observed, Outcome, Source, Write
from yurt.controllers.events import warning
from yurt.controllers.signing import AGENT_NAME, SERVER_NAME, Kind, Node, Request, State, read_node, read_request
from yurt.kube.csr.renewal import authorities_of
from yurt.kube.csr.request import VERSIONS, requests_path
from yurt.kube.csr.wanted import CLIENT_USAGES, NODE_PREFIX, NODES, SERVING_USAGES

NAME = "csrapprover"
ALIASES = ("yurtcsrapprover", "csr-approver-controller")
"""Its names in OpenYurt 1.1 and in 1.4."""

HUB = "openyurt:yurthub"
TUNNEL = "openyurt:yurttunnel"
TENANT_PREFIX = "openyurt:tenant:"
"""Groups that are OpenYurt's."""

BOOTSTRAPPERS = "system:bootstrappers"
"""The group of those who show a bootstrap token."""
TOKENS_OF_NODE = f"{BOOTSTRAPPERS}:node:"
"""What an extra group of a token that is made for one node begins with.  The node's name follows, with colons for its dots: such
groups have none."""
SERVER_USERS = frozenset({"yurt-tunnel-server", "system:serviceaccount:kube-system:yurt-tunnel-server"})
"""Who yurt-tunnel-server is to the API server: the two subjects of its manifest."""

KEY_ENCIPHERMENT = "key encipherment"
"""A usage that newer clients leave out for keys that encipher nothing."""

_API_SERVER = re.compile(r"(kubernetes|\*)(\.default(\.svc(\..+)?)?)?\.?", re.IGNORECASE)
_NODE_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def _work(node: str) -> list[str]:
    return [f"node {node}"]


REQUESTS: Source[Request] = Source(
    "CertificateSigningRequests", [requests_path(one) for one in VERSIONS], read_request, lambda key, one: _work(one.node)
)
NODES_KNOWN: Source[Node] = Source("Nodes", ["/api/v1/nodes"], read_node, lambda key, node: _work(node.name))


@dataclass(frozen=True, slots=True)
class Site:
    """
    What is the same for all requests: the addresses that pods of any node reach its hub at, and what gives the cluster's CAs,
    which may be exchanged.
    """

    link_local: frozenset[str]
    authorities: Callable[[], list[x509.Certificate]]


@dataclass(frozen=True, slots=True)
class Case:
    """
    A request, and what it is judged by: its Node, if there is one, and the requests for that node, of any kind, that have been
    granted and whose certificates are still valid; ``now`` is the time of day in seconds.
    """

    request: Request
    node: Node | None
    granted: Sequence[Request]
    site: Site
    now: float


def group_of_token(node: str) -> str:
    """
    The extra group of a token that is made for one node.
    """
    return TOKENS_OF_NODE + node.replace(".", ":")


def refusal(case: Case) -> str | None:
    """
    Why a request is not to be approved; None when it is.
    """
    return next((why for check in CHECKS[case.request.kind] for why in check(case)), None)


Check = Callable[[Case], Iterator[str]]


def _is_sound(case: Case) -> Iterator[str]:
    if case.request.asked.flaw:
        yield case.request.asked.flaw


def _usages_are(usages: Iterable[str], case: Case) -> Iterator[str]:
    wanted = frozenset(usages)
    if case.request.usages not in (wanted, wanted - {KEY_ENCIPHERMENT}):
        yield f"its usages are {_listed(case.request.usages)}, not {_listed(wanted)}"


def _organization_is(organization: str, case: Case) -> Iterator[str]:
    if case.request.asked.organizations != (organization,):
        yield f"its organizations are {_listed(case.request.asked.organizations)}, not {organization} alone"


def _is_of_hub(case: Case) -> Iterator[str]:
    """
    The organizations of a hub.  A tenant's is for a bootstrapper to ask for, or for a node that has it.
    """
    wanted = set(case.request.asked.organizations)
    foreign = {one for one in wanted - {HUB, NODES} if not one.startswith(TENANT_PREFIX)}
    if not wanted >= {HUB, NODES} or foreign:
        yield f"its organizations are {_listed(wanted)}, not {HUB}, {NODES} and those of tenants"
    new = wanted - {HUB, NODES} - case.request.groups
    if new and BOOTSTRAPPERS not in case.request.groups:
        yield f"{case.request.username} does not belong to {_listed(new)}; join the node anew with a bootstrap token"


def _names_a_node(case: Case) -> Iterator[str]:
    if case.request.asked.common_name == SERVER_NAME:
        yield f"{SERVER_NAME} is the tunnel server's name, which has no client certificate; give the node another one"
    if not _NODE_NAME.fullmatch(case.request.node):
        yield f"{case.request.node!r} is not the name of a node"


def _names_one_node(case: Case) -> Iterator[str]:
    if len(case.request.asked.dns) != 1:
        yield f"it has {len(case.request.asked.dns)} DNS names; a tunnel agent's certificate has the node's name alone"


def _has_names(case: Case) -> Iterator[str]:
    if not case.request.asked.names:
        yield "it has neither DNS names nor addresses to serve"


def _has_no_names(case: Case) -> Iterator[str]:
    if case.request.asked.names:
        yield f"it is for a client, but has the names {_listed(case.request.asked.names)}"


def _names_belong_to_node(case: Case) -> Iterator[str]:
    own = {"localhost", case.request.node} | case.site.link_local | (case.node.addresses if case.node else set())
    foreign = {one for one in case.request.asked.names - own if not _is_loopback(one)}
    if foreign and case.node is None:
        yield f"{_listed(foreign)} may be the node's, but there is no Node {case.request.node} yet"
    elif foreign:
        yield f"{_listed(foreign)} are not among the addresses of Node {case.request.node}"


def _is_loopback(name: str) -> bool:
    """
    Whether it is an address that means any machine to itself.
    """
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _spares_api_server(case: Case) -> Iterator[str]:
    """
    Also in a node's certificate: what its addresses are says the node itself.
    """
    taken = {one for one in case.request.asked.dns if _API_SERVER.fullmatch(one)}
    if taken:
        yield f"{_listed(taken)} is the API server's name"


def _asked_by_node(case: Case) -> Iterator[str]:
    if not _is_node_itself(case.request):
        yield f"{case.request.username} asks for it; only {NODE_PREFIX}{case.request.node} may"


def _asked_by_node_or_bootstrapper(case: Case) -> Iterator[str]:
    """
    A node may ask for what is its own at any time, a bootstrapper for any node that nobody is, or for the one that its token is
    made for.
    """
    request = case.request
    if _is_node_itself(request):
        return
    meant_for = {one for one in request.groups if one.startswith(TOKENS_OF_NODE)}
    if BOOTSTRAPPERS not in request.groups:
        yield f"{request.username} asks for it; only {NODE_PREFIX}{request.node} and bootstrap tokens may"
    elif meant_for and group_of_token(request.node) not in meant_for:
        yield f"{request.username} is a token of group {_listed(meant_for)}, for that node alone"
    elif not meant_for:
        yield from _is_nobody(case)


def _is_nobody(case: Case) -> Iterator[str]:
    """
    The node is not there, or is lost, and has not been joined just now.  The token that has just joined it brings its agent's
    certificate, too.
    """
    request, node = case.request, case.node
    joined_it = any(one.kind is Kind.NODE_CLIENT and one.username == request.username for one in case.granted)
    if node is not None and node.lives and not (request.kind is Kind.AGENT and joined_it):
        group = group_of_token(node.name)
        yield (
            f"Node {node.name} lives, and has a certificate to ask with; if it is to join anew, approve this by hand, use a "
            f"token of group {group}, or delete the Node"
        )
    lost_at = node.lost_at if node is not None else None
    for other in case.granted:
        if other.kind is request.kind and (lost_at is None or other.created >= lost_at):
            yield f"{other.name} has been granted for this node; delete it if the node is to join anew"


def _asked_for_agent(case: Case) -> Iterator[str]:
    """
    By the node, by a bootstrapper, or by the agent itself, which may renew what is its own.
    """
    if case.request.username == AGENT_NAME and TUNNEL in case.request.groups:
        yield from _renews_agent(case)
    else:
        yield from _asked_by_node_or_bootstrapper(case)


def _renews_agent(case: Case) -> Iterator[str]:
    request = case.request
    if request.renewed is None:
        yield f"{AGENT_NAME} asks for it, as any agent may be called, and shows no certificate of Node {request.node}"
        return
    flaw = request.renewed.flaw(case.site.authorities(), case.now)
    if flaw:
        yield f"the certificate that it shows {flaw}"
    elif request.renewed.subject != (AGENT_NAME, TUNNEL) or request.renewed.dns != (request.node,):
        yield f"the certificate that it shows is not that of an agent of Node {request.node}"


def _asked_by_server(case: Case) -> Iterator[str]:
    if case.request.username not in SERVER_USERS:
        yield f"{case.request.username} asks for it; only {_listed(SERVER_USERS)} may"


def _is_node_itself(request: Request) -> bool:
    return request.username == f"{NODE_PREFIX}{request.node}" and NODES in request.groups


def _listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(words)) or "none"


_client, _serving = partial(_usages_are, CLIENT_USAGES), partial(_usages_are, SERVING_USAGES)
_of_nodes, _of_tunnel = partial(_organization_is, NODES), partial(_organization_is, TUNNEL)

CHECKS: dict[Kind, Sequence[Check]] = {
    Kind.NODE_CLIENT: (
        _is_sound, _client, _is_of_hub, _names_a_node, _has_no_names, _asked_by_node_or_bootstrapper,
    ),
    Kind.NODE_SERVING: (
        _is_sound, _serving, _of_nodes, _names_a_node, _has_names, _asked_by_node, _names_belong_to_node, _spares_api_server,
    ),
    Kind.AGENT: (
        _is_sound, _client, _of_tunnel, _names_one_node, _names_a_node, _asked_for_agent, _names_belong_to_node,
    ),
    Kind.PROXY: (_is_sound, _client, _of_tunnel, _has_no_names, _asked_by_server),
    Kind.SERVER_SERVING: (_is_sound, _serving, _of_nodes, _has_names, _asked_by_server, _spares_api_server),
}  # fmt: skip
"""What must hold for each kind, in the order in which it is looked at."""


# What is written


def reconcile(site: Site, key: str, seen: Observed, now: float) -> Outcome:
    """
    Approve what may be approved of the requests for one node, and tell why the others are left.
    """
    requests = sorted(seen.related(REQUESTS, key).values(), key=lambda one: (one.created, one.name))
    node = next(iter(seen.related(NODES_KNOWN, key).values()), None)
    granted = [one for one in requests if one.state is State.APPROVED and (one.expires is None or one.expires > now)]
    approvals: list[Write] = []
    events: list[Write] = []
    for request in requests:
        if request.state is not State.PENDING:
            continue
        why = refusal(Case(request, node, granted, site, now))
        if why is None:
            approvals.append(approval(request))
            granted.append(request)
        else:
            events.append(warning(NAME, _reference(request), "NotApproved", f"left for people to decide: {why}", now))
    ends = [one.expires - now for one in granted if one.expires is not None]
    return Outcome([*approvals, *events], min(ends) + 1 if events and ends else None)


def approval(request: Request) -> Write:
    """
    The approval of a request as it is now: when somebody changes it first, it is looked at anew.
    """
    document: dict[str, Any] = msgspec.json.decode(request.body)
    status = document.setdefault("status", {})
    condition = {"type": "Approved", "status": "True", "reason": "AutoApproved", "message": request.kind.value}
    status["conditions"] = [*(status.get("conditions") or ()), condition]
    version = request.api_version.rpartition("/")[2]
    return Write(UPDATE, f"{requests_path(version)}/{request.name}/approval", document, "approve", shows_in=REQUESTS)


def _reference(request: Request) -> dict[str, Any]:
    return {
        "apiVersion": request.api_version,
        "kind": "CertificateSigningRequest",
        "name": request.name,
        "uid": request.uid,
    }


def controller(config: ControllersConfig) -> Controller:
    """
    The controller for ``--controllers``.
    """
    site = Site(frozenset(config.dummy_if_ips), partial(authorities_of, config.kubeconfig))
    return Controller(NAME, (REQUESTS, NODES_KNOWN), partial(reconcile, site), ALIASES, config.csr_approver_workers)
