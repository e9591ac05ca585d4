"""
nginx, as the fake cloud and as the proxy that the hub is compared with.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from bench.children import Child, is_listening
from tests.ports import free_port

LOOPBACK = "127.0.0.1"

COMMON = """
daemon off;
master_process off;
worker_processes 1;
error_log {folder}/error.log warn;
pid {folder}/nginx.pid;
{user}
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    keepalive_timeout 3600s;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    default_type application/json;
    open_file_cache max=100;
{servers}
}}
"""

CLOUD = """
    server {{
        listen {address}:{tls} ssl backlog=1024;
        ssl_certificate {certs}/server.crt;
        ssl_certificate_key {certs}/server.key;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache shared:tls:1m;
        root {www};
        location = /readyz {{ return 200 "ok"; }}
    }}
    server {{
        listen {address}:{plain};
        root {www};
    }}
"""

PROXY = """
    upstream cloud {{
        server 127.0.0.1:{tls};
        keepalive 64;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{plain} backlog=1024;
        location / {{
            proxy_pass https://cloud;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_ssl_verify on;
            proxy_ssl_name localhost;
            proxy_ssl_trusted_certificate {certs}/ca.crt;
            proxy_ssl_session_reuse on;
        }}
    }}
"""


def _start(folder: Path, servers: str, port: int, address: str = LOOPBACK, within: Sequence[str] = ()) -> Child:
    folder.mkdir(exist_ok=True)
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise RuntimeError("nginx is not installed: apt-get install nginx-light")
    user = "user root;" if os.getuid() == 0 else ""
    configuration = folder / "nginx.conf"
    configuration.write_text(COMMON.format(folder=folder, servers=servers, user=user))
    child = Child([*within, program, "-e", str(folder / "error.log"), "-c", str(configuration)], folder / "output.log")
    child.wait_until(lambda: is_listening(port, address), f"nginx on port {port}")
    return child


class NginxCloud:
    """
    An nginx that serves the files below ``www`` over TLS (as the API server), and plainly (as a yardstick).  ``within`` is what
    its command begins with when it is to run in another network namespace, ``address`` one that it has there.
    """

    def __init__(self, folder: Path, certs: Path, address: str = LOOPBACK, within: Sequence[str] = (), port: int = 0) -> None:
        self.www = folder / "www"
        self.www.mkdir(parents=True)
        self.port = port or free_port()
        self.plain_port = free_port()
        self._folder = folder
        self._place = address, within
        self._servers = CLOUD.format(
            address="0.0.0.0" if within else address, tls=self.port, plain=self.plain_port, certs=certs, www=self.www
        )
        self.start()

    def start(self) -> None:
        self.child = _start(self._folder, self._servers, self.port, *self._place)

    def stop(self) -> None:
        self.child.stop()

    def serve(self, path: str, body: bytes) -> None:
        """
        Answer GET of ``path`` with ``body``.
        """
        file = self.www / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)


class NginxProxy:
    """
    One nginx worker that proxies to a cloud over TLS with connections that are kept.
    """

    def __init__(self, folder: Path, certs: Path, cloud_port: int) -> None:
        self.port = free_port()
        self.child = _start(folder, PROXY.format(tls=cloud_port, plain=self.port, certs=certs), self.port)
