"""
Tests for :mod:`yurt.kube.csr.pem`.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.certs import issue, make_ca
from yurt.kube.csr.pem import PEMError, new_key, read_held, request_for, request_name
from yurt.kube.csr.wanted import client, serving

WANTED = client("certificate", "system:node:n1", ("openyurt:yurthub", "system:nodes"))
CA = make_ca()
NODE = issue(CA, "system:node:n1", ["system:nodes", "openyurt:yurthub"], ["n1"], ["10.0.0.1", "fd00::1"])
WHOLE = NODE.cert_pem + NODE.key_pem


class RequestTests(SynchronousTestCase):
    """
    Tests of requests.
    """

    def test_client(self) -> None:
        """
        A request has the common name and the organisations, no names, and is signed with a key on P-256.
        """
        asked = x509.load_pem_x509_csr(request_for(new_key(), WANTED))
        organizations = asked.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        self.assertEqual([one.value for one in organizations], ["openyurt:yurthub", "system:nodes"])
        self.assertEqual(asked.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value, "system:node:n1")
        self.assertEqual(len(asked.extensions), 0)
        self.assertTrue(asked.is_signature_valid)
        key = asked.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        self.assertEqual(key.curve.name, "secp256r1")

    def test_serving(self) -> None:
        """
        A serving request names hosts and addresses.
        """
        wanted = serving("certificate", "system:node:tunnel-server", ("x.example",), ("10.0.0.1", "::1"))
        asked = x509.load_pem_x509_csr(request_for(new_key(), wanted))
        names = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.DNSName), ["x.example"])
        self.assertEqual([str(one) for one in names.get_values_for_type(x509.IPAddress)], ["10.0.0.1", "::1"])

    def test_name(self) -> None:
        """
        The same key and wish have the same name always, another key or wish another one.
        """
        key = new_key()
        name = request_name(key, WANTED)
        self.assertRegex(name, r"^csr-[0-9a-f]{20}$")
        self.assertEqual(request_name(key, WANTED), name)
        self.assertNotEqual(request_name(new_key(), WANTED), name)
        self.assertNotEqual(request_name(key, WANTED, "token abcdef"), name)
        self.assertNotEqual(request_name(key, client("certificate", "system:node:n2", WANTED.organizations)), name)

    def test_no_key(self) -> None:
        """
        What is no key is refused, and not quoted.
        """
        for pem in (b"", b"secret words", NODE.cert_pem, NODE.key_pem[:80]):
            error = self.assertRaises(PEMError, request_name, pem, WANTED)
            self.assertNotIn("secret words", str(error))


class HeldTests(SynchronousTestCase):
    """
    Tests of certificates with their keys.
    """

    def test_read(self) -> None:
        """
        Names, addresses and times are read, in either order of certificate and key.
        """
        for pem in (WHOLE, NODE.key_pem + NODE.cert_pem, NODE.cert_pem + CA.cert_pem + NODE.key_pem):
            held = read_held(pem)
            self.assertEqual(held.common_name, "system:node:n1")
            self.assertEqual(held.organizations, {"system:nodes", "openyurt:yurthub"})
            self.assertEqual((held.dns, held.addresses), ({"n1"}, {"10.0.0.1", "fd00::1"}))
            self.assertEqual(held.not_after - held.not_before, 24 * 3600 + 300)
            self.assertNotIn("PRIVATE", repr(held))

    def test_mismatch(self) -> None:
        """
        A key of another certificate is refused.
        """
        other = issue(CA, "system:node:n1", ["system:nodes"])
        self.assertIn("not the certificate's", str(self.assertRaises(PEMError, read_held, NODE.cert_pem + other.key_pem)))

    @given(st.integers(0, len(WHOLE) - 2))
    def test_torn(self, size: int) -> None:
        """
        However much of the file is missing at its end, it is refused in one way.
        """
        self.assertRaises(PEMError, read_held, WHOLE[:size])

    def test_fits(self) -> None:
        """
        A certificate fits a wish when it is of the same name and groups, and names at least what is wanted.
        """
        held = read_held(WHOLE)
        self.assertTrue(held.fits(WANTED))
        fitting = client("c", "system:node:n1", WANTED.organizations, ("n1",), ("fd00::1",))
        self.assertTrue(held.fits(fitting))
        lacking = client("c", "system:node:n1", WANTED.organizations, ("n2",))
        self.assertFalse(held.fits(lacking))
        self.assertTrue(held.is_of(lacking))
        self.assertFalse(held.is_of(client("c", "system:node:n2", WANTED.organizations)))
        self.assertFalse(held.is_of(client("c", "system:node:n1", ("system:nodes",))))
