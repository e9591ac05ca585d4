"""
The way of an API server that knows of no tunnel: a firewall rule turns its connections to the server, and what it says first goes
to the agent together with the wish to connect.

As a program, in the cloud's namespace, it measures and prints JSON: ``python -m bench.tunnel.diverted`` and what a command on the
node begins with.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial

from bench.figures import Figure
from bench.tunnel.connect import Times, figures, measure
from bench.tunnel.site import TunnelSite
from bench.tunnel.ways import direct
from tests.kernel.namespaces import Namespace
from tests.ports import free_port

PATIENCE = 120.0
"""Seconds that a measurement may take."""

CLOUD = "10.9.0.1"
DIRECT, DIVERTED = "10.9.0.2", "10.9.0.3"
"""Two addresses of the node; the rule is for the second one."""

RULE = """\
*nat
-A OUTPUT -p tcp -d {address}/32 --dport {port} -j DNAT --to-destination {to}
COMMIT
"""


class DivertedSite(TunnelSite):
    """
    Two hosts, and a rule on the server's.
    """

    address = CLOUD
    node_addresses = (DIRECT, DIVERTED)
    kubelet_port = 10250

    def prepare(self) -> None:
        """
        Choose the port of the door, too.
        """
        super().prepare()
        self.secure_port = free_port()

    def divert(self, port: int) -> None:
        """
        Turn connections to a port of the node to the server.
        """
        rule = RULE.format(address=DIVERTED, port=port, to=f"{self.address}:{self.secure_port}")
        subprocess.run(["iptables-nft-restore", "--noflush"], input=rule, text=True, check=True)


def diverted() -> Iterator[Figure]:
    """
    In two namespaces, joined by a link, that are gone afterwards.
    """
    with ExitStack() as ending:
        cloud, node = Namespace(), Namespace()
        for namespace in (cloud, node):
            ending.callback(namespace.remove)
        cloud.run("ip", "link", "add", "node", "type", "veth", "peer", "name", "cloud", "netns", node.name)
        for namespace, link, *addresses in ((cloud, "node", CLOUD), (node, "cloud", DIRECT, DIVERTED)):
            for address in addresses:
                namespace.run("ip", "address", "add", f"{address}/24", "dev", link)
            namespace.run("ip", "link", "set", link, "up")
        command = cloud.inside(sys.executable, "-m", "bench.tunnel.diverted", *node.inside())
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
        yield from figures("diverted", Times(**json.loads(done.stdout)))


def main() -> None:
    """
    See the module.
    """
    site = DivertedSite()
    site.on_node = tuple(sys.argv[1:])
    with site:
        print(json.dumps(asdict(measure(site, partial(direct, address=DIRECT), partial(direct, address=DIVERTED)))))


if __name__ == "__main__":
    main()
