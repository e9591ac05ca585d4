"""
The short-lived child: reads a request on a line of standard input, works, prints the result as a line on standard output, and
so on until the input ends, which it does when the daemon does.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from yurt.host.backend import choose_backend, rules_of
from yurt.host.errors import FirewallError, HostError, NoFirewall
from yurt.host.firewall import FAMILIES, Firewall, RuleSet, ensure_rules
from yurt.host.links import ensure_link, remove_link
from yurt.host.messages import Request, Result, decode_request, encode
from yurt.host.tunnel_child import do_tunnel


def main() -> None:
    """
    Answer requests; whatever goes wrong is part of the answer.
    """
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(encode(handle(decode_request(line))) + b"\n")
        sys.stdout.buffer.flush()


def handle(request: Request) -> Result:
    """
    Do what a request asks.
    """
    result = Result()
    for part in (_do_link, _do_rules, do_tunnel):
        try:
            result = part(request, result)
        except HostError as error:
            result = replace(result, problems=(*result.problems, str(error)))
    return result


def _do_link(request: Request, result: Result) -> Result:
    if request.link is None:
        return result
    from yurt.host.link_edge import KernelLinks

    with KernelLinks() as links:
        if request.action == "remove":
            return replace(result, changes=(*result.changes, *remove_link(links, request.link)))
        seen, changes, problems = ensure_link(links, request.link)
    kind = seen.kind if seen is not None else ""
    return replace(result, changes=(*result.changes, *changes), problems=(*result.problems, *problems), link_kind=kind)


def _do_rules(request: Request, result: Result) -> Result:
    rules = request.rules
    if rules is None:
        return result
    changes: list[str] = []
    problems: list[str] = []
    nothing = RuleSet(rules.comment, rules.slots, ())
    wanted = rules if request.action == "ensure" else nothing
    try:
        choice = choose_backend(rules.comment)
    except NoFirewall:
        if wanted.rules:
            raise
        return result
    firewall = rules_of(choice.flavour)
    _each_family(firewall, wanted, changes, problems)
    for other in choice.others:
        try:
            _each_family(rules_of(other), nothing, changes, problems)
        except FirewallError as error:
            problems.append(f"rules of an earlier run are left: {error}")
    return replace(
        result,
        changes=(*result.changes, *changes),
        problems=(*result.problems, *problems),
        backend=firewall.name,
        reason=choice.reason,
    )


def _each_family(firewall: Firewall, rules: RuleSet, changes: list[str], problems: list[str]) -> None:
    wanted = {rule.family for rule in rules.rules}
    for family in FAMILIES:
        try:
            changes += ensure_rules(firewall, family, rules)
        except FirewallError as error:
            # A host without IPv6 has no rules there to miss.
            if family in wanted or not wanted:
                problems.append(str(error))


if __name__ == "__main__":
    main()
