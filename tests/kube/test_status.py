"""
Tests for :mod:`yurt.kube.status`.
"""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from yurt.kube.status import status_body


class StatusTests(SynchronousTestCase):
    """
    Failures are told as an API server tells them.
    """

    def test_not_found(self) -> None:
        """
        A Status has the members that client-go reads.
        """
        body = status_body(404, "NotFound", 'pods "x" not found', details={"name": "x", "kind": "pods"})
        self.assertEqual(
            json.loads(body),
            {
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Failure",
                "message": 'pods "x" not found',
                "reason": "NotFound",
                "details": {"name": "x", "kind": "pods"},
                "code": 404,
            },
        )

    def test_retry_after(self) -> None:
        """
        Clients find the seconds to wait in the details; details passed in are not changed.
        """
        details = {"name": "x"}
        status = json.loads(status_body(503, "", "no", details=details, retry_after=7))
        self.assertEqual(status["details"], {"name": "x", "retryAfterSeconds": 7})
        self.assertEqual(status["reason"], "ServiceUnavailable")
        self.assertEqual(details, {"name": "x"})

    def test_success(self) -> None:
        """
        A code below 400 is a success.
        """
        self.assertEqual(json.loads(status_body(200, "", ""))["status"], "Success")
