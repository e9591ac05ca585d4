"""
Against another implementation: the standard library's HTTP client and server.
"""

from __future__ import annotations

import http.client
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.http.memory import Application, echo
from yurt.http.client import HTTPUpstream
from yurt.http.fetch import fetch
from yurt.http.server import HTTPServerFactory

reactor: Any = _reactor


class StdlibServer(BaseHTTPRequestHandler):
    """
    Echoes, with keep-alive.
    """

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.path == "/chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """
        Silence.
        """


class QuietServer(ThreadingHTTPServer):
    """
    Says nothing about connections that are reset.
    """

    def handle_error(self, request: Any, client_address: Any) -> None:
        """
        Silence.
        """


class StdlibTests(TestCase):
    """
    Both directions once.
    """

    async def test_server(self) -> None:
        """
        The standard library's client gets its answers, with keep-alive, chunked and with a length.
        """
        factory = HTTPServerFactory(reactor, Application(echo))
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        number = port.getHost().port

        def talk() -> list[bytes]:
            client = http.client.HTTPConnection("127.0.0.1", number, timeout=10)
            answers = []
            for body in (None, b"x" * 200_000, iter([b"a", b"b" * 1000])):
                client.request("POST", "/p", body, encode_chunked=True)
                answers.append(client.getresponse().read())
            client.request("HEAD", "/h")
            answers.append(client.getresponse().read())
            client.close()
            return answers

        answers = await deferToThread(talk)
        self.assertEqual(answers, [b"POST /p ", b"POST /p " + b"x" * 200_000, b"POST /p a" + b"b" * 1000, b""])
        await port.stopListening()
        await factory.drain(1)

    async def test_client(self) -> None:
        """
        The standard library's server is understood.
        """
        server = QuietServer(("127.0.0.1", 0), StdlibServer)
        thread = Thread(target=server.serve_forever)
        thread.start()
        upstream = HTTPUpstream(reactor, f"http://127.0.0.1:{server.server_port}", None)
        try:
            for target in (b"/length", b"/chunked", b"/length"):
                response = await fetch(reactor, upstream, b"POST", target, [], b"y" * 100_000, timeout=10)
                self.assertEqual((response.status, response.body), (200, b"y" * 100_000))
            self.assertEqual(upstream.open_connections, 1)
        finally:
            upstream.close_connections("the test is over")
            await deferToThread(server.shutdown)
            server.server_close()
            thread.join()
