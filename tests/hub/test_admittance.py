"""
Tests for :mod:`yurt.hub.admittance`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.certs import issue, make_ca
from tests.miniapi.memory import MemoryAPI
from yurt.http.interfaces import Headers, RequestHead, ResponseHead, UpstreamError
from yurt.hub.admittance import AdmittedUpstream, Validity
from yurt.kube.csr.pem import read_held
from yurt.tls import Credentials

CA = make_ca()
NODE = issue(CA, "system:node:n1", ["system:nodes"])
UNTIL = read_held(NODE.cert_pem + NODE.key_pem).not_after


class Recorder:
    """
    A receiver that keeps what it is told.
    """

    def __init__(self) -> None:
        self.status = 0
        self.error: UpstreamError | None = None

    def interim_received(self, head: ResponseHead) -> None: ...

    def head_received(self, head: ResponseHead) -> None:
        self.status = head.status

    def data_received(self, data: bytes) -> None: ...

    def response_finished(self, trailers: Headers) -> None: ...

    def response_failed(self, error: UpstreamError) -> None:
        self.error = error

    def upgraded(self, head: ResponseHead, stream: Any) -> None: ...


class ValidityTests(SynchronousTestCase):
    """
    Tests of how long a certificate lasts.
    """

    now = UNTIL - 60

    def validity(self, **credentials: Any) -> Validity:
        return Validity(Credentials(**credentials), lambda: self.now)

    def test_none(self) -> None:
        """
        Without a certificate, as with a token, nothing expires and nothing is refused.
        """
        validity = self.validity()
        self.assertEqual((validity.expires_in(), validity.refusal()), (None, ""))

    def test_expired(self) -> None:
        """
        A certificate that has expired is refused, and how long that is ago is told.
        """
        validity = self.validity(cert_data=NODE.cert_pem)
        self.assertEqual((validity.expires_in(), validity.refusal()), (60, ""))
        self.now = UNTIL + 5
        self.assertEqual(validity.expires_in(), -5)
        self.assertIn("the node's certificate expired at ", validity.refusal())

    def test_renewed_file(self) -> None:
        """
        A file that somebody renewed is noticed; one that is torn leaves what was known.
        """
        path = Path(self.mktemp())
        path.write_bytes(NODE.cert_pem)
        validity = self.validity(cert_file=str(path))
        self.now = UNTIL + 5
        self.assertTrue(validity.refusal())
        path.write_bytes(NODE.cert_pem[:200])
        self.assertEqual(validity.expires_in(), -5)
        path.write_bytes(b"\n" + NODE.cert_pem)
        self.now = UNTIL - 10
        self.assertEqual((validity.expires_in(), validity.refusal()), (10, ""))

    def test_mismatch(self) -> None:
        """
        The certificate of another node is told, with both names; one of no node, and none, are nobody's business.
        """
        self.assertEqual(self.validity(cert_data=NODE.cert_pem).mismatch("n1"), "")
        said = self.validity(cert_data=NODE.cert_pem).mismatch("n2")
        self.assertEqual(said, "the certificate is that of node n1, and --node-name is n2: correct one of them")
        self.assertEqual(self.validity(cert_data=issue(CA, "admin", ["system:masters"]).cert_pem).mismatch("n2"), "")
        self.assertEqual(self.validity().mismatch("n2"), "")


class AdmittedTests(SynchronousTestCase):
    """
    Tests of the upstream.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = MemoryAPI(self.clock, CA)
        self.refusal = ""
        self.upstream = AdmittedUpstream(self.clock, self.server, lambda: self.refusal)
        self.receiver = Recorder()

    def send(self) -> Any:
        return self.upstream.send(RequestHead(b"GET", b"/api/v1/nodes"), self.receiver)

    def test_admitted(self) -> None:
        """
        What is admitted goes on as it is.
        """
        self.send()
        self.assertEqual(self.upstream.open_connections, 1)
        self.clock.advance(1)
        self.assertEqual((self.receiver.status, self.upstream.name), (200, self.server.name))
        self.send()
        self.upstream.close_connections("enough")
        self.assertEqual(str(self.receiver.error), "enough")

    def test_refused(self) -> None:
        """
        What is not admitted fails, not before send has returned, with the reason, and nothing was sent.
        """
        self.refusal = "no certificate"
        exchange = self.send()
        self.assertIsNone(self.receiver.error)
        exchange.write(b"x")
        exchange.finish([])
        self.clock.advance(0)
        error = self.receiver.error
        assert error is not None
        self.assertEqual((str(error), error.sent), ("https://api.example:6443: no certificate", False))
        self.assertEqual(self.server.sent, [])
        exchange.cancel()

    def test_cancelled(self) -> None:
        """
        Who cancels hears nothing.
        """
        self.refusal = "no certificate"
        self.send().cancel()
        self.clock.advance(1)
        self.assertIsNone(self.receiver.error)
