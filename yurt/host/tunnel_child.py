"""
What the short-lived child does about the tunnel's chains.
"""

from __future__ import annotations

from dataclasses import replace

from yurt.host.backend import chains_of, choose_backend
from yurt.host.chains import ChainSet, Outcome, change_chains, ensure_chains
from yurt.host.errors import FirewallError, NoFirewall, NotApplied
from yurt.host.firewall import FAMILIES, Family
from yurt.host.messages import Known, Request, Result
from yurt.host.tools import Flavour
from yurt.host.tunnel_rules import MAX_FLOWS, TUNNEL_ROOT, TunnelRules, difference, tunnel_chains, turned_flows

MAX_CHANGES = 100
"""Changes that are told one by one; a sentence is about one chain, however many rules of it changed."""


def do_tunnel(request: Request, result: Result) -> Result:
    """
    Put the tunnel's chains in order, by the difference to what is believed to be there if that will do; adds to ``result``.

    Raises FirewallError.
    """
    if request.tunnel is None:
        return result
    wanted = request.tunnel if request.action == "ensure" else TunnelRules()
    if request.known is not None:
        result, done = _change(request.known, wanted, result)
        if done:
            return result
    try:
        choice = choose_backend(TUNNEL_ROOT)
    except NoFirewall:
        if wanted.diversions:
            raise
        return replace(result, checked=True)
    # First the new ones, then the old ones away: no moment is without.
    result = _ensure(choice.flavour, wanted, result)
    for other in choice.others:
        try:
            result = replace(_ensure(other, TunnelRules(), result), backend=result.backend, flavour=result.flavour)
        except FirewallError as error:
            result = replace(result, problems=(*result.problems, f"rules of an earlier run are left: {error}"))
    return replace(result, reason=choice.reason)


def _change(known: Known, wanted: TunnelRules, result: Result) -> tuple[Result, bool]:
    """
    Apply the difference; and whether that was all: if not, it is not as believed, and looking tells how it is.
    """
    before, after = difference(known.tunnel, wanted)
    try:
        firewall = chains_of(known.flavour)
        for family in FAMILIES:
            outcome = change_chains(firewall, family, tunnel_chains(before, family), tunnel_chains(after, family))
            result = _add(result, family, outcome)
    except FirewallError:
        return result, False
    return replace(result, backend=firewall.name, flavour=known.flavour), True


def _ensure(flavour: Flavour, wanted: TunnelRules, result: Result) -> Result:
    firewall = chains_of(flavour)
    for family in FAMILIES:
        chains = tunnel_chains(wanted, family)
        try:
            result = _add(result, family, ensure_chains(firewall, family, chains))
        except FirewallError as error:
            # A host without IPv6 has no rules there to miss, and none that are left.
            if _is_missed(chains, family) or isinstance(error, NotApplied):
                result = replace(result, problems=(*result.problems, str(error)))
    return replace(result, backend=firewall.name, flavour=flavour, checked=True)


def _is_missed(chains: ChainSet, family: Family) -> bool:
    return bool(chains.chains) or family == "ipv4"


def _add(result: Result, family: Family, outcome: Outcome) -> Result:
    changes = (*result.changes, *outcome.changes)
    if len(changes) > MAX_CHANGES:
        changes = (*changes[:MAX_CHANGES], "and more")
    flows = (*result.flows, *turned_flows(family, outcome.turned))[:MAX_FLOWS]
    return replace(result, changes=changes, problems=(*result.problems, *outcome.problems), flows=flows)
