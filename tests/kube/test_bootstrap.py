"""
Tests for :mod:`yurt.kube.bootstrap`.
"""

from __future__ import annotations

import hashlib
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.certs import make_ca
from tests.miniapi.signing import cluster_info, jws
from yurt.kube.bootstrap import (
    BootstrapError,
    BootstrapToken,
    ca_hash,
    parse_ca_hash,
    parse_token,
    read_authorities,
    signed_kubeconfig,
    trusted_authorities,
)

CA, OTHER = make_ca("one"), make_ca("two")
TOKEN = "abcdef.0123456789abcdef"
INFO = cluster_info(CA.cert_pem, "https://10.0.0.1:6443", TOKEN)


class TokenTests(SynchronousTestCase):
    """
    Tests of tokens and pins as they are written.
    """

    def test_token(self) -> None:
        """
        A token has two parts, of which the second is never shown.
        """
        token = parse_token(f" {TOKEN}\n")
        self.assertEqual((token.id, token.bearer), ("abcdef", TOKEN))
        self.assertNotIn("0123456789", repr(token))

    @given(st.text(max_size=30))
    def test_no_token(self, text: str) -> None:
        """
        Anything else is refused, and not quoted.
        """
        error = self.assertRaises(BootstrapError, parse_token, f"secret{text}")
        self.assertNotIn("secret", str(error))

    def test_pin(self) -> None:
        """
        A pin is the digest of the CA's public key, as openssl and kubeadm make it.
        """
        public = CA.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.assertEqual(ca_hash(CA.certificate), "sha256:" + hashlib.sha256(public).hexdigest())
        self.assertEqual(parse_ca_hash(ca_hash(CA.certificate).upper()), ca_hash(CA.certificate))
        for text in ("", "sha256:", "sha256:" + "0" * 63, "md5:" + "0" * 64, "0" * 64):
            self.assertRaises(BootstrapError, parse_ca_hash, text)


class ClusterInfoTests(SynchronousTestCase):
    """
    Tests of what a cluster says of itself.
    """

    def problem(self, data: dict[str, Any], token: str = TOKEN) -> str:
        return str(self.assertRaises(BootstrapError, signed_kubeconfig, {"data": data}, parse_token(token)))

    def test_signed(self) -> None:
        """
        A kubeconfig that is signed for the token gives the CA.
        """
        content = signed_kubeconfig(INFO, parse_token(TOKEN))
        self.assertEqual(read_authorities(content), CA.cert_pem)

    def test_known_answer(self) -> None:
        """
        The signature is the one that Kubernetes makes (its own tests have this triple).
        """
        token = BootstrapToken("joshua", "my voice is my passcode")
        content = "Hello from the other side. I must have called a thousand times."
        signature = "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8"
        data = {"kubeconfig": content, "jws-kubeconfig-joshua": signature}
        self.assertEqual(signed_kubeconfig({"data": data}, token), content)

    def test_refused(self) -> None:
        """
        No signature for the token, one of another, a changed word, another algorithm: each is refused, and says what to do.
        """
        data = INFO["data"]
        content = data["kubeconfig"]
        self.assertIn("kubeadm init phase bootstrap-token", self.problem({}))
        self.assertIn("kubeadm token create", self.problem({"kubeconfig": content}))
        for signature in (
            jws(content, "abcdef.fedcba9876543210"),
            jws(content + " ", TOKEN),
            jws(content, TOKEN, alg="none"),
            jws(content, TOKEN, kid="other1"),
            data["jws-kubeconfig-abcdef"].replace("..", ".e30."),
            data["jws-kubeconfig-abcdef"][:-3],
            "",
            "..",
            "é.x.y",
            "bnVsbA..x",
            "W10..x",
        ):
            said = self.problem({"kubeconfig": content, "jws-kubeconfig-abcdef": signature})
            self.assertIn("not signed with token abcdef", said, signature)
            self.assertNotIn("0123456789", said)

    def test_no_authority(self) -> None:
        """
        A kubeconfig without a CA is refused, however it is misshapen.
        """
        number = "clusters: [{cluster: {certificate-authority-data: 1}}]"
        for content in ("", "[]", "{", "clusters: []", "clusters: [{cluster: {}}]", number):
            self.assertRaises(BootstrapError, read_authorities, content)

    def test_pins(self) -> None:
        """
        Only pinned CAs are trusted; without pins all; with none of them left it is refused and the CA's pin told.
        """
        both = CA.cert_pem + OTHER.cert_pem
        self.assertEqual(trusted_authorities(both, ()), both)
        self.assertEqual(trusted_authorities(both, {ca_hash(OTHER.certificate)}), OTHER.cert_pem)
        error = self.assertRaises(BootstrapError, trusted_authorities, CA.cert_pem, {ca_hash(OTHER.certificate)})
        self.assertIn(ca_hash(CA.certificate), str(error))
        self.assertRaises(BootstrapError, trusted_authorities, b"nonsense", ())
