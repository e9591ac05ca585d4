"""
Promises of TLS settings: who is trusted, what is shown, and that files are followed.
"""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver, StringTransport
from twisted.logger import globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import IOPump, connect, makeFakeClient, makeFakeServer
from twisted.trial.unittest import SynchronousTestCase

from tests import certs
from yurt.tls import (
    TLS1_3,
    ClientTLS,
    Credentials,
    CredentialsError,
    ServerTLS,
    peer_certificate,
)
from yurt.tls.context import FAST_WITH_AES, FAST_WITHOUT_AES, cipher_suites

AUTHORITY = certs.make_ca()
SERVER = certs.issue(AUTHORITY, "server", dns=["cloud.example"], ips=["10.0.0.1", "fd00::1"])
NODE = certs.issue(AUTHORITY, "system:node:a", ["system:nodes"])
OTHER = certs.issue(AUTHORITY, "system:node:b", ["system:nodes"])


class Talk(Protocol):
    """
    Notes what comes, and how it ends.
    """

    def __init__(self) -> None:
        self.data = b""
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


class Pair:
    """
    A client and a server joined in memory.
    """

    def __init__(self, client: ClientTLS, server: ServerTLS, name: str = "cloud.example") -> None:
        clock = Clock()
        self.client, self.server = Talk(), Talk()
        creator: Any = client.creator(name)
        wrapped = [
            TLSMemoryBIOFactory(settings, is_client, Factory.forProtocol(lambda talk=talk: talk), clock=clock)  # type: ignore
            for settings, is_client, talk in ((creator, True, self.client), (server, False, self.server))
        ]
        ends: list[Any] = [factory.buildProtocol(None) for factory in wrapped]
        self.pump: IOPump = connect(ends[1], makeFakeServer(ends[1]), ends[0], makeFakeClient(ends[0]), clock=clock)
        self.client_ssl: SSL.Connection = ends[0].getHandle()
        self.server_ssl: SSL.Connection = ends[1].getHandle()
        self.flush()

    def flush(self) -> None:
        """
        Let everything arrive.
        """
        self.pump.flush()

    def talk(self) -> bool:
        """
        Send both ways; true if it arrived.
        """
        for end in (self.client, self.server):
            transport: Any = end.transport
            transport.write(b"hello")
        self.flush()
        return self.client.data == self.server.data == b"hello"

    def close(self) -> None:
        """
        End it orderly.
        """
        transport: Any = self.client.transport
        transport.loseConnection()
        self.flush()


def server_tls(**how: Any) -> ServerTLS:
    """
    The server's settings, which ask for a client certificate.
    """
    credentials = Credentials(ca_data=AUTHORITY.cert_pem, cert_data=SERVER.cert_pem, key_data=SERVER.key_pem)
    return ServerTLS(credentials, **how)


def node_tls() -> ClientTLS:
    """
    A client with a certificate.
    """
    return ClientTLS(Credentials(ca_data=AUTHORITY.cert_pem, cert_data=NODE.cert_pem, key_data=NODE.key_pem))


def shown(pair: Pair) -> str | None:
    """
    The common name that the client showed.
    """
    certificate = pair.server_ssl.get_peer_certificate(as_cryptography=True)
    return None if certificate is None else certificate.subject.rfc4514_string()


def resumed(pair: Pair) -> bool:
    """
    Whether the hand-shake resumed a session; OpenSSL tells, pyOpenSSL does not pass it on.
    """
    library: Any = vars(SSL)["_lib"]
    return bool(library.SSL_session_reused(vars(pair.client_ssl)["_ssl"]))


class TrustTests(SynchronousTestCase):
    """
    The server is who it says it is.
    """

    def test_names(self) -> None:
        """
        Names and addresses in the certificate are accepted, of both families.
        """
        for name in ("cloud.example", "10.0.0.1", "fd00::1"):
            self.assertTrue(Pair(node_tls(), server_tls(), name).talk(), name)

    def test_other_names(self) -> None:
        """
        Others are not.
        """
        for name in ("example", "10.0.0.2", "fd00::2", "server"):
            pair = Pair(node_tls(), server_tls(), name)
            self.assertFalse(pair.talk(), name)
            self.assertIsNotNone(pair.client.lost)

    def test_server_name(self) -> None:
        """
        A server name takes the place of the host dialled.
        """
        client = ClientTLS(Credentials(ca_data=AUTHORITY.cert_pem), "cloud.example")
        self.assertTrue(Pair(client, server_tls(), "10.9.9.9").talk())

    def test_other_authority(self) -> None:
        """
        A certificate from elsewhere is refused, and so is every one when there is no CA at all.
        """
        for credentials in (Credentials(ca_data=certs.make_ca().cert_pem), Credentials()):
            self.assertFalse(Pair(ClientTLS(credentials), server_tls()).talk())

    def test_unverified(self) -> None:
        """
        A client told not to verify takes any certificate, for any name, and still shows its own.
        """
        credentials = Credentials(cert_data=NODE.cert_pem, key_data=NODE.key_pem)
        for _ in range(2):
            pair = Pair(ClientTLS(credentials, verify=False), server_tls(), "10.9.9.9")
            self.assertTrue(pair.talk())
            self.assertIsNotNone(shown(pair))

    def test_why(self) -> None:
        """
        A certificate that is refused is refused with the reason, for clocks of edge machines are often wrong.
        """
        stranger, now = certs.make_ca(), datetime.now(timezone.utc)
        cases = [
            (stranger, now + timedelta(days=1), "not signed by the CA"),
            (AUTHORITY, now - timedelta(seconds=9), "has expired"),
        ]
        for authority, until, why in cases:
            key = ec.generate_private_key(ec.SECP256R1())
            name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
            builder = x509.CertificateBuilder(authority.certificate.subject, name, key.public_key(), x509.random_serial_number())
            builder = builder.not_valid_before(now - timedelta(minutes=1)).not_valid_after(until)
            pem = builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.PEM)
            key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            pair = Pair(node_tls(), ServerTLS(Credentials(cert_data=pem, key_data=key_pem)))
            assert pair.client.lost is not None and pair.server.lost is not None
            self.assertIn(why, str(pair.client.lost.value))
            self.assertIn("alert", str(pair.server.lost.value))

    def test_why_of_a_client(self) -> None:
        """
        So is a client's, and the server tells whose it is.
        """
        stranger = certs.issue(certs.make_ca(), "system:node:edge-1")
        credentials = Credentials(ca_data=AUTHORITY.cert_pem, cert_data=stranger.cert_pem, key_data=stranger.key_pem)
        pair = Pair(ClientTLS(credentials), server_tls())
        assert pair.server.lost is not None
        self.assertIn("not signed by the CA", str(pair.server.lost.value))
        self.assertIn("CN=system:node:edge-1", str(pair.server.lost.value))

    def test_no_certificate_yet(self) -> None:
        """
        A server that has no certificate yet says so in the reason, though OpenSSL speaks of protocol versions; once it has one,
        connections are as always.
        """
        server = ServerTLS(Credentials(ca_data=AUTHORITY.cert_pem))
        pair = Pair(node_tls(), server)
        assert pair.server.lost is not None
        self.assertIn("no certificate to show yet", str(pair.server.lost.value))
        server.replace(Credentials(ca_data=AUTHORITY.cert_pem, cert_data=SERVER.cert_pem, key_data=SERVER.key_pem))
        self.assertTrue(Pair(node_tls(), server).talk())

    def test_bundle(self) -> None:
        """
        A CA file may hold several certificates.
        """
        bundle = certs.make_ca("first").cert_pem + AUTHORITY.cert_pem + certs.make_ca("last").cert_pem
        self.assertTrue(Pair(ClientTLS(Credentials(ca_data=bundle)), server_tls()).talk())

    def test_certificate_without_names(self) -> None:
        """
        A certificate that names no host is good for none.
        """
        bare = certs.issue(AUTHORITY, "cloud.example")
        server = ServerTLS(Credentials(cert_data=bare.cert_pem, key_data=bare.key_pem))
        self.assertFalse(Pair(node_tls(), server).talk())
        self.flushLoggedErrors()

    def test_old_versions(self) -> None:
        """
        A server that speaks nothing newer than TLS 1.1 is refused, one with 1.2 is not.
        """
        for version, accepted in ((SSL.TLS1_1_VERSION, False), (SSL.TLS1_2_VERSION, True), (SSL.TLS1_3_VERSION, True)):
            server = server_tls()
            context = server._source.context
            context.set_min_proto_version(0)
            context.set_max_proto_version(version)
            context.set_cipher_list(b"ALL:@SECLEVEL=0")
            self.assertEqual(Pair(node_tls(), server).talk(), accepted, version)

    def test_purpose(self) -> None:
        """
        A client's certificate that is for servers only is refused, unless it is one of which that does not matter.
        """
        identity = certs.issue(AUTHORITY, "server-2", usages=(ExtendedKeyUsageOID.SERVER_AUTH,))
        credentials = Credentials(ca_data=AUTHORITY.cert_pem, cert_data=identity.cert_pem, key_data=identity.key_pem)
        for name, accepted in (("server-2", True), ("server-3", False)):
            server = server_tls(any_purpose=lambda one, name=name: f"CN={name}" in one.subject.rfc4514_string())
            self.assertEqual(Pair(ClientTLS(credentials), server).talk(), accepted)
        self.assertFalse(Pair(ClientTLS(credentials), server_tls()).talk())
        self.flushLoggedErrors()

    def test_minimum(self) -> None:
        """
        Either side may insist on TLS 1.3.
        """
        for version, accepted in ((SSL.TLS1_2_VERSION, False), (SSL.TLS1_3_VERSION, True)):
            client = ClientTLS(Credentials(ca_data=AUTHORITY.cert_pem), minimum=TLS1_3)
            server = server_tls()
            server._source.context.set_max_proto_version(version)
            self.assertEqual(Pair(client, server).talk(), accepted)
            client = node_tls()
            client._source.context.set_max_proto_version(version)
            self.assertEqual(Pair(client, server_tls(minimum=TLS1_3)).talk(), accepted)
        client = ClientTLS(Credentials(ca_data=AUTHORITY.cert_pem), minimum=TLS1_3)
        client.replace(Credentials(ca_data=AUTHORITY.cert_pem))
        for settings in (client, client.without_certificate()):
            server = server_tls()
            server._source.context.set_max_proto_version(SSL.TLS1_2_VERSION)
            self.assertFalse(Pair(settings, server).talk())

    def test_peer_certificate(self) -> None:
        """
        After the hand-shake each side can be asked for the other one's certificate; a transport without TLS has none.
        """
        pair = Pair(node_tls(), server_tls())
        for end, name in ((pair.client, "CN=server"), (pair.server, "CN=system:node:a,O=system:nodes")):
            certificate = peer_certificate(end.transport)
            assert certificate is not None
            self.assertEqual(certificate.subject.rfc4514_string(), name)
        self.assertIsNone(peer_certificate(Pair(node_tls().without_certificate(), server_tls()).server.transport))
        self.assertIsNone(peer_certificate(StringTransport()))

    def test_ciphers(self) -> None:
        """
        TLS 1.3 takes the cipher that costs the client's processor least: AES where it has instructions for it.
        """
        x86, arm = "processor : 0\nflags : fpu {} sse2\n", "processor : 0\nFeatures : half thumb {} crc32\n"
        for text, suites in (
            (x86.format("aes"), FAST_WITH_AES),
            (x86.format("aesx"), FAST_WITHOUT_AES),
            (arm.format("aes pmull"), FAST_WITH_AES),
            (arm.format("neon"), FAST_WITHOUT_AES),
            (arm.format("aes") + arm.format("neon"), FAST_WITHOUT_AES),
            ("cpu : something else\n", FAST_WITH_AES),
        ):
            path = self.mktemp()
            with open(path, "w", encoding="ascii") as file:
                file.write(text)
            self.assertEqual(cipher_suites(path), suites)
            client = node_tls()
            client._source.context.set_tls13_ciphersuites(suites)
            pair = Pair(client, server_tls())
            self.assertEqual(pair.client_ssl.get_cipher_name(), suites.partition(b":")[0].decode("ascii"))
        self.assertEqual(cipher_suites(self.mktemp()), FAST_WITH_AES)
        usual = Pair(node_tls(), server_tls()).client_ssl.get_cipher_name()
        self.assertEqual(usual, cipher_suites().partition(b":")[0].decode("ascii"))

    def test_alpn(self) -> None:
        """
        HTTP/1.1 is agreed on.
        """
        pair = Pair(node_tls(), server_tls())
        self.assertEqual(pair.client_ssl.get_alpn_proto_negotiated(), b"http/1.1")


class IdentityTests(SynchronousTestCase):
    """
    What the client shows.
    """

    def test_certificate(self) -> None:
        """
        The client certificate is shown, and by the twin without one never.
        """
        self.assertEqual(shown(Pair(node_tls(), server_tls())), "CN=system:node:a,O=system:nodes")
        self.assertIsNone(shown(Pair(node_tls().without_certificate(), server_tls())))
        self.assertTrue(Pair(node_tls().without_certificate(), server_tls()).talk())
        self.assertFalse(Pair(node_tls().without_certificate(), server_tls(require_client_certificate=True)).talk())

    def test_no_warnings(self) -> None:
        """
        Nothing deprecated is used.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.assertTrue(Pair(node_tls(), server_tls()).talk())


class ResumptionTests(SynchronousTestCase):
    """
    Sessions are resumed.
    """

    def test_resumed(self) -> None:
        """
        The second connection to the same name resumes the session of the first, in TLS 1.2 and 1.3, closed or not.
        """
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            for close in (True, False):
                server, client = server_tls(), node_tls()
                server._source.context.set_max_proto_version(version)
                first = Pair(client, server)
                self.assertTrue(first.talk())
                self.assertFalse(resumed(first))
                if close:
                    first.close()
                second = Pair(client, server)
                self.assertTrue(second.talk())
                self.assertTrue(resumed(second), (version, close))
                self.assertEqual(shown(second), "CN=system:node:a,O=system:nodes")

    def test_not_shared(self) -> None:
        """
        Other names, and the twin without a certificate, have sessions of their own.
        """
        server, client = server_tls(), node_tls()
        Pair(client, server).talk()
        other = Pair(client, server, "10.0.0.1")
        other.talk()
        self.assertFalse(resumed(other))
        twin = Pair(client.without_certificate(), server)
        twin.talk()
        self.assertFalse(resumed(twin))
        self.assertIsNone(shown(twin))


class FileTests(SynchronousTestCase):
    """
    Files, and changes of them.
    """

    def setUp(self) -> None:
        folder = self.mktemp()
        os.mkdir(folder)
        self.paths = [os.path.join(folder, name) for name in ("ca.crt", "node.crt", "node.key")]
        self.write(AUTHORITY.cert_pem, NODE.cert_pem, NODE.key_pem)
        self.credentials = Credentials(ca_file=self.paths[0], cert_file=self.paths[1], key_file=self.paths[2])

    def write(self, *contents: bytes | None) -> None:
        """
        Replace files by renaming, as kubelet does.
        """
        for path, content in zip(self.paths, contents, strict=True):
            if content is not None:
                with open(path + ".new", "wb") as file:
                    file.write(content)
                os.rename(path + ".new", path)

    def test_rotation(self) -> None:
        """
        A new certificate is shown on new connections; the session of the old one is not resumed.
        """
        client, server = ClientTLS(self.credentials), server_tls()
        self.assertTrue(Pair(client, server).talk())
        self.write(None, OTHER.cert_pem, OTHER.key_pem)
        pair = Pair(client, server)
        self.assertTrue(pair.talk())
        self.assertEqual(shown(pair), "CN=system:node:b,O=system:nodes")
        self.assertFalse(resumed(pair))

    def test_certificate_that_comes_later(self) -> None:
        """
        A server without a certificate takes nobody; with one that it is given later it does, and an open connection goes on.
        """
        trust = Credentials(ca_data=AUTHORITY.cert_pem)
        whole = replace(trust, cert_data=SERVER.cert_pem, key_data=SERVER.key_pem)
        self.assertEqual((trust.has_certificate, whole.has_certificate), (False, True))
        server = ServerTLS(trust, require_client_certificate=True)
        self.assertFalse(Pair(node_tls(), server).talk())
        server.replace(whole)
        first = Pair(node_tls(), server)
        self.assertTrue(first.talk())
        self.assertRaises(CredentialsError, server.replace, replace(whole, key_data=NODE.key_pem))
        server.replace(whole)
        self.assertTrue(Pair(node_tls(), server).talk())
        self.assertFalse(Pair(ClientTLS(trust), server).talk())
        first.talk()
        self.assertEqual(first.client.data, b"hellohello")

    def test_torn_rotation(self) -> None:
        """
        A key without its certificate yet leaves the old pair in use, with a message; the whole new pair is taken up.
        """
        client, server = ClientTLS(self.credentials), server_tls()
        observer = EventLoggingObserver()
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.write(None, None, OTHER.key_pem)
        self.assertEqual(shown(Pair(client, server)), "CN=system:node:a,O=system:nodes")
        self.assertEqual(shown(Pair(client, server)), "CN=system:node:a,O=system:nodes")
        errors = [event for event in observer if event["log_level"].name == "error"]
        self.assertEqual(len(errors), 1)
        self.assertIn("does not belong to the certificate", errors[0]["problem"])
        self.assertEqual(client.problem, errors[0]["problem"])
        self.write(None, OTHER.cert_pem, None)
        self.assertEqual(shown(Pair(client, server)), "CN=system:node:b,O=system:nodes")
        self.assertIsNone(client.problem)

    def test_expiry(self) -> None:
        """
        When the certificate expires that is shown is known, of new files before anybody connects; it is none's without one.
        """
        client = ClientTLS(self.credentials)
        day = 24 * 3600
        self.assertAlmostEqual(((client.expires_at or 0) - time.time()) / day, 1, 1)
        later = certs.issue(AUTHORITY, "system:node:a", ["system:nodes"], lifetime=timedelta(days=9))
        self.write(None, later.cert_pem, later.key_pem)
        client.refresh()
        self.assertAlmostEqual(((client.expires_at or 0) - time.time()) / day, 9, 1)
        self.assertIsNone(client.without_certificate().expires_at)

    def test_missing_for_a_moment(self) -> None:
        """
        So does a file that is gone.
        """
        client = ClientTLS(self.credentials)
        os.remove(self.paths[1])
        self.assertEqual(shown(Pair(client, server_tls())), "CN=system:node:a,O=system:nodes")

    def test_new_authority(self) -> None:
        """
        The CA file is followed too.
        """
        client = ClientTLS(self.credentials)
        self.write(certs.make_ca().cert_pem, None, None)
        self.assertFalse(Pair(client, server_tls()).talk())

    def test_errors(self) -> None:
        """
        What cannot be used is named in one line, without what is in it.
        """
        ca, cert, key = self.paths
        secret = b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"
        cases: list[tuple[tuple[bytes | None, bytes | None, bytes | None], str, str]] = [
            ((b"", None, None), ca, "holds no valid PEM certificate"),
            ((None, b"nonsense", None), cert, "holds no valid PEM certificate"),
            ((None, None, secret), key, "holds no valid unencrypted PEM private key"),
            ((None, None, OTHER.key_pem), key, "does not belong to the certificate"),
        ]
        for contents, path, reason in cases:
            self.write(AUTHORITY.cert_pem, NODE.cert_pem, NODE.key_pem)
            self.write(*contents)
            message = str(self.assertRaises(CredentialsError, ClientTLS, self.credentials))
            self.assertIn(path, message)
            self.assertIn(reason, message)
            self.assertNotIn("\n", message)
            self.assertNotIn("c2VjcmV0", message)
        os.remove(key)
        self.assertIn("No such file", str(self.assertRaises(CredentialsError, ClientTLS, self.credentials)))

    def test_one_file(self) -> None:
        """
        Certificate and key may stand in one file, as kubelet keeps them.
        """
        self.write(None, NODE.cert_pem + NODE.key_pem, None)
        client = ClientTLS(Credentials(ca_file=self.paths[0], cert_file=self.paths[1]))
        self.assertEqual(shown(Pair(client, server_tls())), "CN=system:node:a,O=system:nodes")

    def test_secrets_are_not_shown(self) -> None:
        """
        The representation of credentials holds no key.
        """
        self.assertNotIn("PRIVATE", repr(Credentials(key_data=NODE.key_pem)))
