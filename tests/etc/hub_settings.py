"""
Options of a hub that runs without privileges, without cloud, and in a folder of its own.
"""

import socket
from pathlib import Path

from tests.certs import make_ca


def free_port() -> int:
    """
    A port that nobody listens on.
    """
    with socket.create_server(("127.0.0.1", 0)) as holder:
        return int(holder.getsockname()[1])


def hub_options(folder: Path, admin_port: int) -> list[str]:
    """
    The options; what they name is made in ``folder``.
    """
    (folder / "ca.pem").write_bytes(make_ca().cert_pem)
    (folder / "token").write_text("a-token")
    return [
        f"--server-addr=https://127.0.0.1:{free_port()}", "--node-name=n1", f"--ca-file={folder}/ca.pem",
        f"--token-file={folder}/token", f"--disk-cache-path={folder}/cache", f"--serve-port={admin_port}",
        f"--proxy-port={free_port()}", "--enable-dummy-if=false",
    ]  # fmt: skip
