"""
What the servers have in common that extend an API server in the tests: JSON, by TLS, from threads.
"""

from __future__ import annotations

import json
import ssl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class JSONHandler(BaseHTTPRequestHandler):
    """
    Answers with documents; subclasses say which.
    """

    protocol_version = "HTTP/1.1"

    def answer(self, status: int, document: dict[str, Any]) -> None:
        """
        A whole answer.
        """
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve(handler: type[JSONHandler], port: str, certificate: str, key: str) -> None:
    """
    Serve by TLS on all addresses, until the process is ended.
    """
    server = ThreadingHTTPServer(("0.0.0.0", int(port)), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()
