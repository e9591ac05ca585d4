"""
The few answers that this layer gives by itself: each is a Kubernetes Status.
"""

from __future__ import annotations

import json
from http import HTTPStatus

from yurt.http.heads import serialise_response
from yurt.http.interfaces import Headers, ResponseHead

PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}


def status_body(code: int, reason: str, message: str) -> bytes:
    """
    A Kubernetes Status.
    """
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return json.dumps({**status, "message": message, "reason": reason, "code": code}).encode()


def status_response(code: int, reason: str, message: str, own_headers: Headers) -> bytes:
    """
    A whole response that carries a Kubernetes Status and ends the connection.
    """
    body = status_body(code, reason, message)
    fields = [(b"Content-Type", b"application/json"), (b"Content-Length", b"%d" % len(body)), (b"Connection", b"close")]
    return serialise_response(ResponseHead(code, PHRASES[code], [*own_headers, *fields])) + body
