"""
Tests for :mod:`yurt.kube.tokens`.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from twisted.trial.unittest import SynchronousTestCase

from yurt.kube.tokens import CLOCK_LEEWAY, MAX_TOKEN_BYTES, Claims, KeySet, TokenError, read_claims

NOW = 1_800_000_000.0
SUBJECT = "system:serviceaccount:default:builder"
ISSUER = "https://kubernetes.default.svc"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
P384_KEY = ec.generate_private_key(ec.SECP384R1())


def described(key: Any, **members: str) -> dict[str, Any]:
    """
    A public key as a cluster publishes it.
    """
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "use": "sig", **members}


def key_set(*descriptions: Any) -> KeySet:
    """
    A key set of these keys.
    """
    return KeySet.from_jwks(json.dumps({"keys": descriptions}).encode())


def token(key: Any = RSA_KEY, algorithm: str = "RS256", kid: str | None = "one", **claims: Any) -> str:
    """
    A service account's token, valid for an hour from NOW.
    """
    payload = {"sub": SUBJECT, "iss": ISSUER, "aud": [ISSUER], "exp": int(NOW) + 3600, "nbf": int(NOW), **claims}
    return jwt.encode({k: v for k, v in payload.items() if v is not None}, key, algorithm, {"kid": kid} if kid else None)


def part(value: Any) -> str:
    """
    One part of a token.
    """
    return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


GENUINE = (token(), token(EC_KEY, "ES256"))
PIECES = st.sampled_from([*GENUINE[0].split("."), *GENUINE[1].split("."), "", "e30", "x"])
CLAIMS = Claims(SUBJECT, NOW + 3600, ISSUER, (ISSUER,))
KEYS = key_set(described(RSA_KEY, kid="one", alg="RS256"), described(EC_KEY, kid="two"))


class ReadClaimsTests(SynchronousTestCase):
    """
    Claims without a check.
    """

    def test_claims(self) -> None:
        """
        Subject, expiry, issuer and audiences are read, from an expired token and an unsigned one too.
        """
        self.assertEqual(read_claims(token()), CLAIMS)
        self.assertEqual(read_claims(token(exp=5)), Claims(SUBJECT, 5.0, ISSUER, (ISSUER,)))
        self.assertEqual(read_claims(f"{part({'alg': 'none'})}.{part({'sub': 'x', 'aud': 'y'})}."), Claims("x", None, "", ("y",)))

    def test_no_token(self) -> None:
        """
        An opaque token claims nothing.
        """
        for text in ("", "abc", "a.b.c", "..", "abcdef.0123456789abcdef", "x" * (MAX_TOKEN_BYTES + 1), "ä.ö.ü"):
            self.assertIsNone(read_claims(text))
        payloads: list[Any] = [[], {"sub": 1}, {"exp": "soon"}, {"aud": {}}]
        for payload in payloads:
            self.assertIsNone(read_claims(f"{part({'alg': 'RS256'})}.{part(payload)}.x"))


class VerifyTests(SynchronousTestCase):
    """
    Signatures and times.
    """

    def refused(self, text: str, keys: KeySet = KEYS, now: float = NOW) -> None:
        """
        Check that a token is refused, and that the error does not show it.
        """
        message = str(self.assertRaises(TokenError, keys.verify, text, now))
        self.assertFalse(any(len(piece) > 3 and piece in message for piece in text.split(".")))

    def test_signed(self) -> None:
        """
        A token signed by a key of the set gives its claims: RSA or elliptic curve, named or not.
        """
        for text in (token(), token(kid=None), token(kid="gone"), token(EC_KEY, "ES256", "two"), token(EC_KEY, "ES256", None)):
            self.assertEqual(KEYS.verify(text, NOW), CLAIMS)
        self.assertEqual(key_set(described(P384_KEY)).verify(token(P384_KEY, "ES384"), NOW), CLAIMS)

    def test_not_signed(self) -> None:
        """
        A foreign key, a changed claim, a cut signature and another key's name are refused.
        """
        self.refused(token(OTHER_RSA_KEY))
        self.refused(token(P384_KEY, "ES384"))
        header, payload, signature = token().split(".")
        self.refused(f"{header}.{part({'sub': 'root', 'exp': NOW + 3600})}.{signature}")
        self.refused(f"{header}.{payload}.{signature[:-8]}")
        self.refused(f"{header}.{payload}.")
        self.refused(token(kid="two"), key_set(described(RSA_KEY, kid="one"), described(OTHER_RSA_KEY, kid="two")))

    def test_weak_algorithms(self) -> None:
        """
        Neither an unsigned token nor one signed with the public key as a shared secret is taken.
        """
        payload: dict[str, Any] = {"sub": SUBJECT, "exp": NOW + 3600}
        self.refused(f"{part({'alg': 'none'})}.{part(payload)}.")
        self.refused(jwt.encode(payload, "k" * 64, "HS256", {"kid": "one"}))
        secret = {"kty": "oct", "k": urlsafe_b64encode(b"k" * 64).decode(), "kid": "one", "use": "sig"}
        self.refused(jwt.encode(payload, "k" * 64, "HS256", {"kid": "one"}), key_set(secret, described(RSA_KEY)))
        self.refused(token(RSA_KEY, "RS512"))

    def test_critical_headers(self) -> None:
        """
        A header that must be understood is not, so the token is refused.
        """
        self.refused(jwt.encode({"sub": SUBJECT}, RSA_KEY, "RS256", {"crit": ["x"], "x": 1}))

    def test_times(self) -> None:
        """
        Expiry and begin count, with a leeway for clocks that differ.
        """
        end = NOW + 3600 + CLOCK_LEEWAY
        self.assertEqual(KEYS.verify(token(), end), CLAIMS)
        self.refused(token(), now=end + 1)
        self.assertEqual(KEYS.verify(token(), NOW - CLOCK_LEEWAY), CLAIMS)
        self.refused(token(), now=NOW - CLOCK_LEEWAY - 1)
        self.assertIsNone(KEYS.verify(token(exp=None, nbf=None), NOW).expiry)

    @given(st.text() | st.lists(PIECES).map(".".join))
    def test_any_text(self, text: str) -> None:
        """
        Any other text raises a TokenError and nothing else.
        """
        if text not in GENUINE:
            self.assertRaises(TokenError, KEYS.verify, text, NOW)

    json_values: st.SearchStrategy[Any] = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=2)
    )

    @given(
        st.dictionaries(st.sampled_from(["alg", "kid", "crit", "typ", "b64"]), json_values | st.sampled_from(["RS256", "ES256"])),
        st.dictionaries(st.sampled_from(["sub", "exp", "nbf", "aud", "iss"]), json_values),
        st.binary(max_size=300),
    )
    def test_any_members(self, header: Any, payload: Any, signature: bytes) -> None:
        """
        Whatever header, claims and signature hold, a token that the cluster did not sign is refused.
        """
        text = f"{part(header)}.{part(payload)}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}"
        self.assertRaises(TokenError, KEYS.verify, text, NOW)


class KeySetTests(SynchronousTestCase):
    """
    JSON Web Key Sets.
    """

    def test_other_keys(self) -> None:
        """
        Keys that are broken, for encryption, or of an unknown sort do not spoil the set.
        """
        good = described(RSA_KEY, kid="one")
        others = [
            None, 1, {}, {"kty": "x"}, {"kty": "RSA", "n": "?", "e": "AQAB"}, {"kty": "RSA", "n": 5, "e": []},
            {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, {"kty": "EC", "crv": "P-1"},
            {"kty": "OKP", "crv": "Ed25519"}, {**described(OTHER_RSA_KEY), "use": "enc"},
        ]  # fmt: skip
        keys = key_set(*others, good)
        self.assertEqual(keys.verify(token(), NOW), CLAIMS)
        self.assertRaises(TokenError, keys.verify, token(OTHER_RSA_KEY), NOW)

    def test_no_keys(self) -> None:
        """
        A document without a key that signs is refused.
        """
        for document in (b"", b"[]", b"{}", b'{"keys":null}', b'{"keys":[]}', b'{"keys":[{"kty":"oct","k":"eA"}]}', b"\xff"):
            self.assertRaises(TokenError, KeySet.from_jwks, document)

    names = st.sampled_from(["kty", "n", "e", "crv", "x", "y", "use", "alg", "kid", "d"])
    words = st.sampled_from(["RSA", "EC", "OKP", "P-256", "AQAB", "AA", "sig", "RS256"])

    @given(st.lists(st.dictionaries(names, st.text(max_size=8) | st.integers() | st.none() | words), max_size=3))
    def test_any_keys(self, descriptions: list[dict[str, Any]]) -> None:
        """
        Any key set is read or refused with a TokenError.
        """
        try:
            keys = key_set(*descriptions)
        except TokenError:
            return
        self.assertRaises(TokenError, keys.verify, token(), NOW)
