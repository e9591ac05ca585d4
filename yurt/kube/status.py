"""
The Status object: how a Kubernetes API server says that something failed, and why.

Shape and reasons: ``k8s.io/apimachinery/pkg/apis/meta/v1`` (Status, StatusReason).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

REASONS: Mapping[int, str] = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}
"""The usual reason of each HTTP status; 409 is also AlreadyExists, 410 also Gone."""


class Failure(msgspec.Struct, frozen=True):
    """
    What a Status says of why something failed.
    """

    kind: str = ""
    reason: str = ""
    message: str = ""


_NO_FAILURE = Failure()
_decode_failure = msgspec.json.Decoder(Failure).decode


def status_body(
    code: int,
    reason: str,
    message: str,
    *,
    details: Mapping[str, object] | None = None,
    retry_after: int | None = None,
) -> bytes:
    """
    A Status object as JSON.

    ``details`` may hold name, group, kind (the resource, in practice), uid and causes; ``retry_after`` is in seconds and
    belongs beside a Retry-After header.  An empty reason becomes the usual one of the code.
    """
    status: dict[str, object] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success" if code < 400 else "Failure",
        "message": message,
        "reason": reason or REASONS.get(code, ""),
        "code": code,
    }
    detailed = dict(details or {})
    if retry_after is not None:
        detailed["retryAfterSeconds"] = retry_after
    if detailed:
        status["details"] = detailed
    return msgspec.json.encode(status)


def read_failure(body: bytes) -> Failure:
    """
    The reason and the message of a Status in JSON; empty for anything else.
    """
    try:
        failure = _decode_failure(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _NO_FAILURE
    return failure if failure.kind == "Status" else _NO_FAILURE
