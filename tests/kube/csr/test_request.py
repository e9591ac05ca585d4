"""
Tests for :mod:`yurt.kube.csr.request`.
"""

from __future__ import annotations

import base64
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from yurt.kube.csr.request import Answer, Verdict, find_answer, read_answer, request_document
from yurt.kube.csr.wanted import client

SINCE = "2026-01-02T03:04:05Z"


def request(**status: Any) -> dict[str, Any]:
    """
    A request in a state.
    """
    return {"metadata": {"name": "csr-1", "creationTimestamp": SINCE, "resourceVersion": "7"}, "status": status}


def condition(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "status": "True", **more}


class RequestTests(SynchronousTestCase):
    """
    Tests of what is sent and what is read.
    """

    def test_document(self) -> None:
        """
        A request says its signer and exactly the usages that approvers insist on.
        """
        document = request_document("v1beta1", "csr-1", b"PEM", client("c", "cn", ("o",)))
        self.assertEqual(document["apiVersion"], "certificates.k8s.io/v1beta1")
        self.assertEqual(
            document["spec"],
            {
                "request": base64.b64encode(b"PEM").decode(),
                "signerName": "kubernetes.io/kube-apiserver-client",
                "usages": ["digital signature", "key encipherment", "client auth"],
            },
        )

    def test_verdicts(self) -> None:
        """
        Each state of a request is told, with the reason of a refusal.
        """
        approved, denied = condition("Approved"), condition("Denied", reason="No", message="not ours")
        failed = condition("Failed", message="bad SAN")
        certificate = base64.b64encode(b"CERT").decode()
        cases: list[tuple[dict[str, Any], Verdict, str, bytes]] = [
            (request(), Verdict.PENDING, "", b""),
            (request(conditions=[approved]), Verdict.APPROVED, "", b""),
            (request(conditions=[approved], certificate=certificate), Verdict.ISSUED, "", b"CERT"),
            (request(conditions=[denied]), Verdict.DENIED, "No: not ours", b""),
            (request(conditions=[approved, failed]), Verdict.FAILED, "bad SAN", b""),
            (request(conditions=[condition("Denied")]), Verdict.DENIED, "no reason was given", b""),
            (request(conditions=[{"type": "Denied"}]), Verdict.DENIED, "no reason was given", b""),
            (request(conditions=[{"type": "Denied", "status": "False"}]), Verdict.PENDING, "", b""),
            (request(certificate="%%"), Verdict.PENDING, "", b""),
        ]
        for document, verdict, reason, pem in cases:
            self.assertEqual(read_answer(document), Answer(verdict, reason, SINCE, "7", pem), document)
        self.assertEqual(read_answer({"metadata": {}}), Answer(Verdict.PENDING))

    def test_list(self) -> None:
        """
        A list of the one request tells its state and the list's version; an empty one tells that it is gone.
        """
        found = find_answer({"metadata": {"resourceVersion": "99"}, "items": [request()]})
        self.assertEqual(found, Answer(Verdict.PENDING, "", SINCE, "99"))
        self.assertIsNone(find_answer({"metadata": {"resourceVersion": "99"}, "items": []}))
