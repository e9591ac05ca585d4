"""
The short-lived child: reads one request on standard input, works, prints one result on standard output, ends.
"""

from __future__ import annotations

import sys

from yurt.host.errors import FirewallError, HostError
from yurt.host.firewall import FAMILIES, Firewall, RuleSet, ensure_rules
from yurt.host.links import Link, ensure_link, remove_link
from yurt.host.messages import Request, Result, decode_request, encode


def main() -> None:
    """
    Answer one request; whatever goes wrong is part of the answer.
    """
    request = decode_request(sys.stdin.buffer.read())
    sys.stdout.buffer.write(encode(handle(request)))


def handle(request: Request) -> Result:
    """
    Do what a request asks.
    """
    changes: list[str] = []
    problems: list[str] = []
    kind = backend = ""
    ensuring = request.action == "ensure"
    try:
        if request.link is not None:
            kind = _do_link(request.link, ensuring, changes, problems)
    except HostError as error:
        problems.append(str(error))
    try:
        if request.rules is not None:
            backend = _do_rules(request.rules, ensuring, changes, problems)
    except HostError as error:
        problems.append(str(error))
    return Result(tuple(changes), tuple(problems), kind, backend)


def _do_link(wanted: Link, ensuring: bool, changes: list[str], problems: list[str]) -> str:
    from yurt.host.link_edge import KernelLinks

    with KernelLinks() as links:
        if not ensuring:
            changes += remove_link(links, wanted)
            return ""
        seen, made, left = ensure_link(links, wanted)
    changes += made
    problems += left
    return seen.kind if seen is not None else ""


def _do_rules(rules: RuleSet, ensuring: bool, changes: list[str], problems: list[str]) -> str:
    from yurt.host.backend import choose_backend

    nothing = RuleSet(rules.comment, rules.slots, ())
    chosen, others = choose_backend()
    for firewall in others:
        _each_family(firewall, nothing, changes, problems)
    _each_family(chosen, rules if ensuring else nothing, changes, problems)
    return chosen.name


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
