"""
The contract for writes whose server is asked first whether it is there (``Expect: 100-continue``): what is written is what
would have been without the question.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet import reactor

from tests.certs import issue
from tests.contract.subjects import Contract, OnMini, OnReal, pause
from yurt.http.client import HTTPUpstream
from yurt.http.fetch import FetchedResponse
from yurt.http.interfaces import ByteStream, Headers, RequestHead, ResponseHead, UpstreamError
from yurt.http.limits import ClientLimits
from yurt.tls import ClientTLS, Credentials


class Asked:
    """
    A write over a connection that has been silent, and its answer.
    """

    def __init__(self, upstream: HTTPUpstream, method: str, path: str, body: Any, content_type: str) -> None:
        self.answer: FetchedResponse | None = None
        self.error: UpstreamError | None = None
        self._head: ResponseHead | None = None
        self._data = b""
        data = json.dumps(body).encode()
        headers = [(b"Content-Type", content_type.encode()), (b"Content-Length", b"%d" % len(data))]
        exchange = upstream.send(RequestHead(method.encode(), path.encode(), headers), self, body=True, once=True)
        self.was_asked = exchange.held
        exchange.write(data)
        exchange.finish([])

    def interim_received(self, head: ResponseHead) -> None:
        raise AssertionError("the word is not for the sender")

    def head_received(self, head: ResponseHead) -> None:
        self._head = head

    def data_received(self, data: bytes) -> None:
        self._data += data

    def response_finished(self, trailers: Headers) -> None:
        assert self._head is not None
        self.answer = FetchedResponse(self._head.status, self._head.headers, self._data)

    def response_failed(self, error: UpstreamError) -> None:
        self.error = error

    def upgraded(self, head: ResponseHead, stream: ByteStream) -> None:
        raise AssertionError("nobody asked for that")


class AskingContract(Contract):
    """
    What holds of writes that ask first.
    """

    url: str
    ca: Any
    mktemp: Any

    async def test_writes(self) -> None:
        """
        Every kind of write is answered as ever, over one and the same connection; so is one that is refused unread.
        """
        space = await self.namespace()
        maps, one = f"{space}/configmaps", f"{space}/configmaps/one"
        admin = issue(self.ca, "admin", ["system:masters"])
        pem = self.mktemp()
        with open(pem, "wb") as file:
            file.write(admin.cert_pem + admin.key_pem)
        tls = ClientTLS(Credentials(cert_file=pem, ca_data=self.ca.cert_pem))
        upstream = HTTPUpstream(reactor, self.url, tls, limits=ClientLimits(trusted_for=0.0))
        self.addCleanup(upstream.close_connections, "the test is over")
        described = {"metadata": {"name": "one"}, "data": {"a": "b" * 100_000}}
        for method, path, body, content_type, status in (
            ("POST", maps, described, "application/json", 201),
            ("POST", maps, described, "application/json", 409),
            ("PUT", one, described, "application/json", 200),
            ("PATCH", one, {"data": {"a": "c"}}, "application/merge-patch+json", 200),
            ("DELETE", one, {"kind": "DeleteOptions", "apiVersion": "v1"}, "application/json", 200),
            ("POST", maps, described, "text/unknown", 415),
        ):
            is_first = not upstream.open_connections
            asked = Asked(upstream, method, path, body, content_type)
            while asked.answer is None and asked.error is None:
                await pause(0.01)
            self.assertIs(asked.error, None)
            assert asked.answer is not None
            self.assertEqual((asked.answer.status, asked.was_asked), (status, not is_first), asked.answer.body)


class MiniAskingTests(AskingContract, OnMini):
    """
    The miniature apiserver keeps the contract.
    """


class RealAskingTests(AskingContract, OnReal):
    """
    The real one does.
    """
