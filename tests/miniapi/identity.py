"""
Who calls the miniature apiserver: bearer tokens signed by its own key, or client certificates of its own authority.
"""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from . import errors
from .resources import Document

MINIMUM_TOKEN_SECONDS = 600


@dataclass(frozen=True)
class User:
    """
    An authenticated caller.
    """

    name: str
    groups: tuple[str, ...] = ()


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


def user_of_certificate(certificate: x509.Certificate) -> User:
    """
    Common name and organisations, as Kubernetes reads them.
    """
    names = [str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = [str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    return User(names[0] if names else "", (*groups, "system:authenticated"))


def _unsigned(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8, "big")).rstrip(b"=").decode()


class TokenIssuer:
    """
    Signs and checks service account tokens; knows static tokens too.
    """

    def __init__(self, issuer: str = "https://kubernetes.default.svc") -> None:
        self.issuer = issuer
        self.key_id = "miniapi"
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.static: dict[str, User] = {}
        self.revoked: set[str] = set()

    def sign(
        self,
        namespace: str,
        account: Document,
        *,
        audiences: list[str] | None = None,
        seconds: float = 3600,
        pod: Document | None = None,
        now: float | None = None,
    ) -> tuple[str, float]:
        """
        A token of the service account whose metadata are ``account``, and its expiry in seconds since the epoch.
        """
        issued = int(time.time() if now is None else now)
        about: Document = {"namespace": namespace, "serviceaccount": {"name": account["name"], "uid": account["uid"]}}
        if pod is not None:
            about["pod"] = {"name": pod["name"], "uid": pod.get("uid", "")}
        expiry = issued + int(seconds)
        claims = {
            "aud": audiences or [self.issuer],
            "exp": expiry,
            "iat": issued,
            "iss": self.issuer,
            "nbf": issued,
            "kubernetes.io": about,
            "sub": f"system:serviceaccount:{namespace}:{account['name']}",
        }
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": self.key_id}), expiry

    def user(self, token: str) -> User:
        """
        The owner of ``token``; raises an Unauthorized APIError.
        """
        if token in self.static:
            return self.static[token]
        try:
            claims = jwt.decode(token, self._key.public_key(), algorithms=["RS256"], audience=self.issuer, issuer=self.issuer)
        except jwt.InvalidTokenError:
            raise errors.unauthorized() from None
        if token in self.revoked:
            raise errors.unauthorized()
        _, _, namespace, _ = claims["sub"].split(":")
        return User(claims["sub"], ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"))

    def jwks(self) -> Document:
        """
        The key set of /openid/v1/jwks.
        """
        numbers = self._key.public_key().public_numbers()
        key = {
            "use": "sig",
            "kty": "RSA",
            "kid": self.key_id,
            "alg": "RS256",
            "n": _unsigned(numbers.n),
            "e": _unsigned(numbers.e),
        }
        return {"keys": [key]}

    def discovery(self, jwks_uri: str) -> Document:
        """
        The document of /.well-known/openid-configuration.
        """
        return {
            "issuer": self.issuer,
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }


def requested_seconds(spec: dict[str, Any]) -> int:
    """
    The lifetime that a TokenRequest asks for; raises an Invalid APIError below ten minutes.
    """
    seconds = int(spec.get("expirationSeconds") or 3600)
    if seconds < MINIMUM_TOKEN_SECONDS:
        field, problem = "spec.expirationSeconds", f"Invalid value: {seconds}: may not specify a duration less than 10 minutes"
        causes = [{"reason": "FieldValueInvalid", "message": problem, "field": field}]
        raise errors.APIError(422, "Invalid", f' "" is invalid: {field}: {problem}', details={"causes": causes})
    return seconds
