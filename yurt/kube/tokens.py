"""
Service-account tokens: what a JSON Web Token claims, and whether the cluster's keys vouch for it.

Formats: RFC 7519, RFC 7517; the keys of a cluster stand at ``/openid/v1/jwks``.  No token or part of one is ever put into
an error.
"""

from __future__ import annotations

import binascii
import math
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from jwt import PyJWK

MAX_TOKEN_BYTES = 16 * 1024
"""Longer tokens are refused unread."""

CLOCK_LEEWAY = 60.0
"""Seconds that the clock of this machine and that of the issuer may differ."""

ALGORITHMS = ("RS256", "ES256", "ES384", "ES512")
"""What clusters sign with.  ``none`` and the symmetric ones are no signature of a cluster."""


class TokenError(ValueError):
    """
    A token that is not to be trusted, or keys that cannot be read.
    """


@dataclass(frozen=True, slots=True)
class Claims:
    """
    What a token says of itself; ``expiry`` is in seconds since the epoch, None for a token that does not expire.
    """

    subject: str
    expiry: float | None
    issuer: str
    audiences: tuple[str, ...]


class _Header(msgspec.Struct):
    alg: str
    kid: str | None = None
    crit: msgspec.Raw | None = None


class _Payload(msgspec.Struct):
    sub: str = ""
    iss: str = ""
    exp: float | None = None
    nbf: float | None = None
    aud: str | list[str] | None = None


def _decode_part(part: str) -> bytes:
    return urlsafe_b64decode(part.encode("ascii") + b"=" * (-len(part) % 4))


def _split(token: str) -> tuple[_Header, _Payload]:
    if len(token) > MAX_TOKEN_BYTES:
        raise TokenError(f"longer than {MAX_TOKEN_BYTES} bytes")
    parts = token.split(".")
    if len(parts) != 3:
        raise TokenError("not of three parts")
    try:
        header = msgspec.json.decode(_decode_part(parts[0]), type=_Header)
        payload = msgspec.json.decode(_decode_part(parts[1]), type=_Payload)
    except (msgspec.DecodeError, binascii.Error, UnicodeError, RecursionError) as error:
        raise TokenError("not a JSON Web Token") from error
    if not all(time is None or math.isfinite(time) for time in (payload.exp, payload.nbf)):
        raise TokenError("its times are no numbers")
    return header, payload


def _claims(payload: _Payload) -> Claims:
    audiences = [payload.aud] if isinstance(payload.aud, str) else payload.aud or []
    return Claims(payload.sub, payload.exp, payload.iss, tuple(audiences))


def read_claims(token: str) -> Claims | None:
    """
    What a token claims, without a check of anything; None when it is no JSON Web Token.
    """
    try:
        return _claims(_split(token)[1])
    except TokenError:
        return None


class KeySet:
    """
    The public keys that a cluster signs its tokens with.
    """

    def __init__(self, keys: list[PyJWK]) -> None:
        self._keys = keys

    @classmethod
    def from_jwks(cls, document: bytes) -> KeySet:
        """
        Read a JSON Web Key Set; keys of unknown sorts are passed over.  Raises TokenError when it is none or no key is left.
        """
        try:
            found = msgspec.json.decode(document, type=dict[str, Any]).get("keys")
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise TokenError("not a JSON Web Key Set") from error
        keys = [key for key in map(_read_key, found if isinstance(found, list) else []) if key is not None]
        if not keys:
            raise TokenError("a JSON Web Key Set without a key that signs")
        return cls(keys)

    def verify(self, token: str, now: float) -> Claims:
        """
        The claims of a token that one of the keys has signed and whose time is now (seconds since the epoch).

        Neither issuer nor audiences are looked at.  Raises TokenError.
        """
        header, payload = _split(token)
        if header.alg not in ALGORITHMS or header.crit is not None:
            raise TokenError("signed in a way that no cluster signs")
        if payload.exp is not None and now > payload.exp + CLOCK_LEEWAY:
            raise TokenError("expired")
        if payload.nbf is not None and now < payload.nbf - CLOCK_LEEWAY:
            raise TokenError("not valid yet")
        fitting = [key for key in self._keys if key.algorithm_name == header.alg]
        named = [key for key in fitting if header.kid and key.key_id == header.kid]
        if not any(_has_signed(key, token) for key in named or fitting):
            raise TokenError("not signed by a key of this cluster")
        return _claims(payload)


def _read_key(description: Any) -> PyJWK | None:
    from jwt import PyJWK, PyJWTError  # costs memory that a hub without pods' tokens need not spend

    if not isinstance(description, dict) or description.get("use", "sig") != "sig":
        return None
    try:
        key = PyJWK(description)
    except (PyJWTError, ValueError, TypeError, AttributeError, KeyError):
        return None
    return key if key.algorithm_name in ALGORITHMS else None


def _has_signed(key: PyJWK, token: str) -> bool:
    from jwt import PyJWS, PyJWTError

    try:
        PyJWS().decode(token, key.key, algorithms=[str(key.algorithm_name)])
    except (PyJWTError, ValueError, TypeError):
        return False
    return True
