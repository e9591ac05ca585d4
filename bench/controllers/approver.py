"""
How fast requests for certificates are approved.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from bench.controllers.site import Approvals, Caller, Document, Site
from bench.figures import Figure, at_most, median, percentile
from tests.controllers.asking import HUB, pkcs10
from yurt.kube.csr.request import requests_path
from yurt.kube.csr.wanted import CLIENT_SIGNER, CLIENT_USAGES

COUNT = 1000
CALLERS = 4
PATH = requests_path("v1")


def joining(number: int) -> Document:
    """
    The request by which a node joins.
    """
    pem = pkcs10(f"system:node:edge-{number}", HUB)
    spec = {"request": base64.b64encode(pem).decode(), "signerName": CLIENT_SIGNER, "usages": list(CLIENT_USAGES)}
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": f"csr-{number}"},
        "spec": spec,
    }


def make(callers: list[Caller], documents: list[Document]) -> dict[str, float]:
    """
    Create them, by all callers at the same time; when each was there.
    """

    def work(place: int) -> dict[str, float]:
        made = {}
        for document in documents[place :: len(callers)]:
            callers[place].ask("POST", PATH, document)
            made[document["metadata"]["name"]] = time.monotonic()
        return made

    with ThreadPoolExecutor(len(callers)) as pool:
        return {name: at for part in pool.map(work, range(len(callers))) for name, at in part.items()}


def approver() -> Iterator[Figure]:
    """
    A thousand nodes that join at once, and a thousand that have waited for the approver.
    """
    with Site() as site:
        admin = site.caller("watcher", "system:masters")
        # The groups of a bootstrap token, and the right to ask.
        groups = "system:bootstrappers", "system:masters"
        bootstrappers = [site.caller(f"system:bootstrap:{number:06}", *groups) for number in range(CALLERS)]
        documents = [joining(number) for number in range(2 * COUNT)]
        child = site.controllers()
        approvals = Approvals(admin, PATH)
        approvals.start()
        cpu, begun = child.cpu(), time.monotonic()
        made = make(bootstrappers, documents[:COUNT])
        creation = time.monotonic() - begun
        approvals.wait(COUNT)
        seconds = max(approvals.times.values()) - begun
        delays = [approvals.times[name] - at for name, at in made.items()]
        detail = (
            f"{CALLERS} callers took {creation:.1f} s to ask, the approver {child.cpu() - cpu:.1f} s of a core; "
            f"from asked to approved p50 {median(delays):.2f} s, p99 {percentile(delays, 0.99):.2f} s"
        )
        yield at_most(f"{COUNT} nodes join at once, until the last is approved", seconds, "s", 60, detail)
        yield at_most("RSS of the approver after that", child.rss(), "MB", 60)
        child.stop()
        make(bootstrappers, documents[COUNT:])
        begun = time.monotonic()
        site.controllers()
        approvals.wait(2 * COUNT)
        yield at_most(f"{COUNT} that waited, from its start on", time.monotonic() - begun, "s", 60)
