"""
How soon a node serves that has nothing but a token.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from bench.children import Child
from bench.controllers.approver import PATH
from bench.controllers.site import Approvals, Site
from bench.figures import Figure, at_most, median
from bench.place import TWISTD
from tests.e2e.joining import TOKEN, bootstrap_token, cluster_info
from tests.ports import free_port
from yurt.kube.bootstrap import ca_hash

ROUNDS = 5
READ = "/api/v1/services"
"""What a node may list by its certificate, and nobody without one."""
PAUSE = 0.01


class Joining:
    """
    A hub in an empty folder; ``proxy`` is its port.
    """

    def __init__(self, site: Site, node: str, token: Path) -> None:
        self.node, self.proxy = node, free_port()
        authority = site.plane.authority
        self.child: Child = site.child(
            node, TWISTD, "--nodaemon", "--pidfile=", "yurthub", f"--server-addr={site.plane.url}", f"--node-name={node}",
            f"--root-dir={site.folder / node}", f"--disk-cache-path={site.folder / node / 'cache'}", f"--join-token={token}",
            f"--discovery-token-ca-cert-hash={ca_hash(authority.ca.certificate)}", f"--proxy-port={self.proxy}",
            f"--serve-port={free_port()}", "--enable-dummy-if=false",
        )  # fmt: skip

    def serves(self) -> bool:
        """
        Whether a read goes to the cloud in the node's name.
        """
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.proxy}{READ}", timeout=5) as answer:
                return answer.headers["X-Yurt-Source"] == "cloud" and "items" in json.load(answer)
        except OSError:
            return False


def joining() -> Iterator[Figure]:
    """
    Nodes that join one after the other, each from an empty folder, with the approver of the cluster.
    """
    with Site() as site:
        plane = site.plane
        documents = [bootstrap_token(TOKEN), *cluster_info(plane.authority.ca.cert_pem, plane.url)]
        plane.kubectl("apply", "-f", "-", stdin=b"\n".join(json.dumps(one).encode() for one in documents))
        site.signer()
        site.controllers()
        token = site.folder / "token"
        approvals = Approvals(site.caller("watcher", "system:masters"), PATH)
        approvals.start()
        after: list[float] = []
        before: list[float] = []
        for number in range(ROUNDS):
            token.write_text(TOKEN)
            began, known = time.monotonic(), len(approvals.times)
            hub = Joining(site, f"edge-{number}", token)
            hub.child.wait_until(hub.serves, f"{hub.node} to serve", PAUSE)
            approved = min(list(approvals.times.values())[known:])
            after.append(time.monotonic() - approved)
            before.append(approved - began)
            hub.child.stop()
        detail = f"p50 {median(after):.2f} s, worst of {ROUNDS}; from the start until approved p50 {median(before):.1f} s"
        yield at_most("joining from an empty folder: from approved to serving", max(after), "s", 10, detail)
