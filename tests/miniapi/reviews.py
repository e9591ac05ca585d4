"""
TokenReview and SubjectAccessReview of the miniature apiserver: whose a token is, and who may do what.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import errors
from .identity import User
from .resources import Document

if TYPE_CHECKING:
    from .api import MiniAPI

TOKENS = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESSES = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


def review(api: MiniAPI, path: str, document: Document) -> Document:
    """
    The answer to a review sent to TOKENS or ACCESSES.
    """
    return {**document, "status": _token(api, document) if path == TOKENS else _access(api, document)}


def _token(api: MiniAPI, document: Document) -> Document:
    try:
        user = api.issuer.user(document["spec"]["token"])
    except errors.APIError:
        return {"user": {}, "error": "invalid bearer token"}
    return {"authenticated": True, "user": {"username": user.name, "groups": list(user.groups)}}


def _access(api: MiniAPI, document: Document) -> Document:
    spec = document["spec"]
    asked = spec["resourceAttributes"]
    parts = ["/api", asked["version"], asked["resource"], asked.get("name", ""), asked.get("subresource", "")]
    allowed = api.permits(User(spec["user"], tuple(spec.get("groups", ()))), asked["verb"], None, "/".join(parts))
    return {"allowed": allowed, "reason": "allowed by the test" if allowed else ""}
