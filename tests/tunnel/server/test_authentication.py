"""
Promises about who is taken for whom.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, cast

from cryptography import x509
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests import certs
from tests.tunnel.server.edge import FakeApi
from yurt.http.interfaces import Headers, IncomingRequest, RequestHead
from yurt.kube.api import ApiError
from yurt.logs import redact
from yurt.tunnel.server import authentication
from yurt.tunnel.server.authentication import MACHINE, MAX_TOKEN_BYTES, Authenticator, Caller, Entrance
from yurt.tunnel.server.routing import Refused

CA = certs.make_ca()


class Request:
    """
    What of a request tells who sent it.
    """

    def __init__(self, door: Entrance, headers: Headers | None = None, peer: object = None, identity: Any = None) -> None:
        self.door = door
        self.head = RequestHead(b"GET", b"/", headers or [])
        self.peer = cast(IAddress, peer or IPv4Address("TCP", "10.1.2.3", 4))
        self.client_certificate = None if identity is None else x509.load_pem_x509_certificate(identity.cert_pem)
        self.tcp_socket: Any = None


@dataclass
class Ended:
    """
    What is asked of a socket: where it ends.
    """

    address: str

    def getsockname(self) -> tuple[str, int]:
        return self.address, 10264


@dataclass
class Shown:
    """
    What is read of a certificate.
    """

    subject: x509.Name
    not_valid_after_utc: datetime


class AuthenticatorTests(SynchronousTestCase):
    """
    Tests of Authenticator.
    """

    def setUp(self) -> None:
        self.clock, self.api = Clock(), FakeApi()
        self.authenticator = Authenticator(self.clock, self.api)

    def ask(self, request: Request) -> Deferred[Caller]:
        """
        Who it is.
        """
        return Deferred.fromCoroutine(self.authenticator.caller_of(cast(IncomingRequest, request)))

    def caller(self, *request: Any, **how: Any) -> Caller:
        """
        Who it is, told at once.
        """
        return self.successResultOf(self.ask(Request(*request, **how)))

    def refused(self, *request: Any, **how: Any) -> Refused:
        """
        Why nobody, in words that the log leaves whole.
        """
        error = self.failureResultOf(self.ask(Request(*request, **how)), Refused).value
        assert isinstance(error, Refused)
        self.assertEqual(redact(error.message), error.message)
        return error

    def token(self, token: str) -> Headers:
        """
        A header with a token.
        """
        return [(b"Authorization", b"Bearer " + token.encode())]

    def test_machine(self) -> None:
        """
        The egress socket is the machine's own, and plain text from a loopback address of either family.
        """
        self.assertIs(self.caller(Entrance.EGRESS, peer=UNIXAddress(None)), MACHINE)
        for host in ("127.0.0.1", "127.8.8.8"):
            self.assertIs(self.caller(Entrance.PLAIN, peer=IPv4Address("TCP", host, 1)), MACHINE)
        for host in ("::1", "::ffff:127.0.0.1"):
            self.assertIs(self.caller(Entrance.PLAIN, peer=IPv6Address("TCP", host, 1)), MACHINE)

    def test_plain_from_elsewhere(self) -> None:
        """
        Plain text from any other address is refused, whatever it shows.
        """
        self.api.users["t"] = {"username": "jane"}
        for peer in (IPv4Address("TCP", "10.1.2.3", 1), IPv6Address("TCP", "::ffff:10.1.2.3", 1), UNIXAddress(None)):
            refused = self.refused(Entrance.PLAIN, self.token("t"), peer=peer)
            self.assertEqual(refused.status, 403)
            self.assertIn("others come by TLS, to port 10263", refused.message)
        self.assertEqual(self.refused("another door", self.token("t")).status, 403)

    def test_plain_by_a_rule(self) -> None:
        """
        Plain text that a rule of this host turned to loopback keeps the address that it was sent from, one of this host's: it is
        the machine's own.  Where it ends elsewhere, or comes from another address, it is not.
        """
        self.patch(authentication, "is_own_address", {"10.9.0.1", "fd00::1"}.__contains__)
        for peer, local, own in (
            ("10.9.0.1", "127.0.0.1", True),
            ("::ffff:10.9.0.1", "::ffff:127.0.0.1", True),
            ("fd00::1", "::1", True),
            ("10.9.0.1", "10.9.0.1", False),
            ("10.1.2.3", "127.0.0.1", False),
        ):
            request = Request(Entrance.PLAIN, peer=IPv6Address("TCP", peer, 1))
            request.tcp_socket = Ended(local)
            asking = self.ask(request)
            if own:
                self.assertIs(self.successResultOf(asking), MACHINE)
            else:
                self.assertEqual(self.failureResultOf(asking, Refused).value.status, 403)

    def test_pages_of_browsers(self) -> None:
        """
        A page in a browser on this host is not this host: it would run commands in pods.
        """
        for name, value in ((b"Origin", b"http://evil.example"), (b"Origin", b"null"), (b"Sec-Fetch-Site", b"cross-site")):
            error = self.refused(Entrance.PLAIN, [(name, value)], peer=IPv4Address("TCP", "127.0.0.1", 1))
            self.assertEqual((error.status, error.word), (403, "forbidden"))

    def test_certificate(self) -> None:
        """
        A certificate is its common name, with the organizations as groups; it goes before a token.
        """
        identity = certs.issue(CA, "jane", ["ops", "dev"])
        self.assertEqual(
            self.caller(Entrance.TLS, self.token("t"), identity=identity),
            Caller("jane", ("ops", "dev", "system:authenticated")),
        )
        self.assertEqual(self.api.asked, [])

    def test_useless_certificates(self) -> None:
        """
        A certificate without a common name is nobody's, and so is one that has expired since the connection began.
        """
        tomorrow = datetime.now(timezone.utc) + timedelta(days=1)
        jane = x509.load_pem_x509_certificate(certs.issue(CA, "jane").cert_pem).subject
        for subject, until, word in (
            (x509.Name([]), tomorrow, "common name"),
            (jane, tomorrow - timedelta(days=2), "expired"),
        ):
            request = Request(Entrance.TLS)
            request.client_certificate = cast(Any, Shown(subject, until))
            error = self.failureResultOf(self.ask(request), Refused).value
            self.assertEqual(error.status, 401)
            self.assertIn(word, error.message)

    def test_token(self) -> None:
        """
        A token is whose the API server says, with all that it says; asked once a minute.
        """
        self.api.users["t"] = {"username": "jane", "groups": ["g"], "uid": "7", "extra": {"scopes": ["a", "b"]}}
        wanted = Caller("jane", ("g",), "7", {"scopes": ("a", "b")}, by_token=True)
        for _ in range(3):
            self.assertEqual(self.caller(Entrance.TLS, self.token("t")), wanted)
        self.assertEqual([asked["spec"] for asked in self.api.asked], [{"token": "t"}])
        del self.api.users["t"]
        self.clock.advance(60)
        self.assertEqual(self.refused(Entrance.TLS, self.token("t")).status, 401)

    def test_token_for_a_proxy(self) -> None:
        """
        A token that is shown as to a proxy is taken, before one that may be for whom the request is for.
        """
        self.api.users |= {"p": {"username": "prometheus"}, "t": {"username": "jane"}}
        shown: Headers = [(b"Proxy-Authorization", b"bearer p")]
        self.assertEqual(self.caller(Entrance.TLS, shown).name, "prometheus")
        self.assertEqual(self.caller(Entrance.TLS, [*self.token("t"), *shown]).name, "prometheus")
        self.assertEqual(self.caller(Entrance.TLS, [(b"Proxy-Authorization", b"Basic eDp5"), *self.token("t")]).name, "jane")

    def test_unknown_token(self) -> None:
        """
        A token that the API server does not know is nobody's, for a few seconds without asking again; no message holds it.
        """
        for _ in range(2):
            error = self.refused(Entrance.TLS, self.token("s3cret"))
            self.assertEqual((error.status, error.reason), (401, "Unauthorized"))
            self.assertNotIn("s3cret", error.message)
        self.assertEqual(len(self.api.asked), 1)
        self.api.users["s3cret"] = {"username": "jane"}
        self.clock.advance(10)
        self.assertEqual(self.caller(Entrance.TLS, self.token("s3cret")).name, "jane")

    def test_what_is_no_token(self) -> None:
        """
        What is no bearer token, or too long for one, is not even asked about.
        """
        for value in (b"Basic dTpw", b"Bearer", b"Bearer a b", b"Bearer " + b"x" * (MAX_TOKEN_BYTES + 1)):
            self.assertEqual(self.refused(Entrance.TLS, [(b"Authorization", value)]).status, 401)
        self.assertEqual(self.api.asked, [])

    def test_no_answer(self) -> None:
        """
        When the API server does not answer, that is what the caller is told, and it is asked again the next time.
        """
        self.api.error = ApiError(0, "NoAnswer", "https://cloud: no connection within 5 s")
        for _ in range(2):
            error = self.refused(Entrance.TLS, self.token("t"))
            self.assertEqual((error.status, error.reason), (503, "ServiceUnavailable"))
        self.assertIn("no connection within 5 s", error.message)
        self.assertEqual(len(self.api.asked), 2)

    def test_without_cluster(self) -> None:
        """
        Without an API server no token is anybody's.
        """
        self.authenticator = Authenticator(self.clock, None)
        error = self.refused(Entrance.TLS, self.token("t"))
        self.assertEqual(error.status, 401)
        self.assertIn("--kubeconfig", error.message)
