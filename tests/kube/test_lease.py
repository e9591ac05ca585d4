"""
Tests for :mod:`yurt.kube.lease`.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from yurt.kube.lease import lease_document, leases_path, micro_time


class LeaseTests(SynchronousTestCase):
    """
    Tests of how Leases are written.
    """

    def test_micro_time(self) -> None:
        """
        Six digits, also when they are zeros.
        """
        self.assertEqual(micro_time(1_700_000_000), "2023-11-14T22:13:20.000000Z")

    def test_document(self) -> None:
        """
        What is known of the object stays, under the name that is meant.
        """
        document = lease_document("ns", "one", {"holderIdentity": "me"}, {"name": "other", "uid": "1"})
        self.assertEqual(
            document,
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": "one", "namespace": "ns", "uid": "1"},
                "spec": {"holderIdentity": "me"},
            },
        )
        self.assertEqual(leases_path("ns"), "/apis/coordination.k8s.io/v1/namespaces/ns/leases")
