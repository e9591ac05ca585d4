"""
The cloud vanishes without a word, and comes back.

Measured in a network namespace of its own (``python -m bench.hub.cut``, started by :func:`silent_cut`), where a firewall rule
on loopback can lose the packets between hub and cloud without touching those of the machine.
"""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator

from bench.figures import Figure, at_most, percentile
from bench.hub.clients import Caller
from bench.hub.objects import body, configmap
from bench.hub.site import KUBELET, Site

OBJECT = "/api/v1/namespaces/default/configmaps/config-1"
ROUNDS = 4
READS = 200
"""Cached reads of one outage."""
OUTAGE = (3.0, 8.0)
"""Seconds between which an outage goes on after them."""


def silent_cut() -> Iterator[Figure]:
    """
    Run this module where packets may be lost.
    """
    inside = 'ip link set lo up && exec "$0" -m bench.hub.cut'
    command = ["unshare", "--map-root-user", "--net", "sh", "-c", inside, sys.executable]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as measuring:
        assert measuring.stdout is not None
        for line in measuring.stdout:
            yield Figure(**json.loads(line))
    if measuring.returncode:
        raise RuntimeError("a silent cut needs root, or user namespaces, and iptables")


class Loss:
    """
    A firewall rule that loses all packets to and from a port.
    """

    def __init__(self, port: int) -> None:
        self._matches = [["--dport", str(port)], ["--sport", str(port)]]

    def begin(self) -> None:
        self._each("-I")

    def end(self) -> None:
        self._each("-D")

    def _each(self, action: str) -> None:
        for match in self._matches:
            subprocess.run(["iptables", action, "INPUT", "-p", "tcp", *match, "-j", "DROP"], check=True)


def measure() -> Iterator[Figure]:
    """
    Some outages, each told by its reads and its end.
    """
    first, later, returns = list[float](), list[float](), list[float]()
    with Site() as site:
        cloud = site.cloud()
        cloud.serve(OBJECT, body("ConfigMap", configmap(1)))
        hub = site.hub(cloud.port)
        hub.wait_for_source(OBJECT, "cloud")
        caller, loss = Caller(hub.port, KUBELET), Loss(cloud.port)
        for _ in range(ROUNDS):
            time.sleep(1.0)
            loss.begin()
            answers = [caller.get(OBJECT) for _ in range(READS)]
            if {answer.source for answer in answers} != {"cache"}:
                raise RuntimeError("a read was not answered from the cache")
            first.append(answers[0].took)
            later += [answer.took * 1000 for answer in answers[1:]]
            time.sleep(random.uniform(*OUTAGE))
            began = time.perf_counter()
            loss.end()
            hub.wait_for_source(OBJECT, "cloud")
            returns.append(time.perf_counter() - began)
    of_all = f"the worst of {ROUNDS}"
    yield at_most("first cached read after packets vanish", max(first), "s", 2.0, of_all)
    yield at_most("cached reads once the hub knows, p99", percentile(later, 0.99), "ms", 5.0, f"of {len(later)}")
    yield at_most("the cloud's return is noticed", max(returns), "s", 3.0, of_all)


def main() -> None:
    for figure in measure():
        print(json.dumps(dataclasses.asdict(figure)), flush=True)


if __name__ == "__main__":
    main()
