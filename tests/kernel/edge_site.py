"""
An API server in miniature that knows one node of the edge, for the namespace of the cloud.

usage: python -m tests.kernel.edge_site FOLDER
Writes what the daemons of both sides need into the folder, prints a line, and serves until it is ended.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor

from tests.certs import issue, make_ca
from tests.miniapi import MiniAPI

CLOUD = ("10.8.0.1", "fd08::1")
NODE = ("10.8.0.2", "fd08::2")
NAME = "edge-1"


def main(folder: Path) -> None:
    """
    See the module.
    """
    ca = make_ca()
    (folder / "ca.crt").write_bytes(ca.cert_pem)
    server = issue(ca, "system:node:tunnel-server", ["system:nodes"], [], list(CLOUD))
    agent = issue(ca, f"system:node:{NAME}", ["system:nodes"])
    for name, identity in (("server", server), ("agent", agent)):
        (folder / f"{name}.crt").write_bytes(identity.cert_pem)
        (folder / f"{name}.key").write_bytes(identity.key_pem)
    running = cast(Any, reactor)
    api = MiniAPI(running, ca=ca)
    addresses = [{"type": "InternalIP", "address": address} for address in NODE]
    labels = {"openyurt.io/is-edge-worker": "true"}
    api.put("nodes", {"metadata": {"name": NAME, "labels": labels}, "status": {"addresses": addresses}})
    api.start()
    api.write_kubeconfig(folder / "server.conf", "yurt-tunnel-server", "system:masters")
    print("serving", flush=True)
    running.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
