"""
The Lease as bytes.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from yurt.hub.lease_body import LeaseError, read_lease, renewed

PROTOBUF = bytes.fromhex(
    "6b3873000a1f0a16636f6f7264696e6174696f6e2e6b38732e696f2f763112054c6561736512aa010a82010a06656467652d3112001a0f6b"
    "7562652d6e6f64652d6c6561736522002a2464353636363237342d636236632d346536372d393936372d6465346461336161343466313203"
    "3230303800420808e3978ed80610005a060a016112016262060a01631201646a1a0a044e6f64651a06656467652d312204386333652a0276"
    "3130017a0012230a06656467652d3110281a080880e2cfaa061000220b088ae2cfaa061080e59a7728021a002200"
)
"""What kube-apiserver 1.20 sends to a client that accepts protobuf; its managedFields cut out."""
OWNER = {"apiVersion": "v1", "kind": "Node", "name": "edge-1", "uid": "8c3e", "controller": True}


class ReadTests(SynchronousTestCase):
    """
    What kubelet sends.
    """

    def test_protobuf(self) -> None:
        """
        Kubelet's usual form is read in full, but for what a server stamps.
        """
        lease = read_lease(PROTOBUF)
        self.assertEqual(
            lease["metadata"],
            {
                "name": "edge-1",
                "namespace": "kube-node-lease",
                "labels": {"a": "b"},
                "annotations": {"c": "d"},
                "ownerReferences": [OWNER],
            },
        )
        self.assertEqual(
            lease["spec"],
            {
                "holderIdentity": "edge-1",
                "leaseDurationSeconds": 40,
                "acquireTime": "2023-11-14T22:13:20.000000Z",
                "renewTime": "2023-11-14T22:13:30.250000Z",
                "leaseTransitions": 2,
            },
        )

    @given(st.integers(0, len(PROTOBUF) - 1), st.binary(max_size=4))
    def test_damage(self, place: int, patch: bytes) -> None:
        """
        Damaged bytes are a LeaseError or a Lease, never another exception.
        """
        try:
            read_lease(PROTOBUF[:place] + patch + PROTOBUF[place + len(patch) :])
        except LeaseError:
            pass

    @given(st.binary(max_size=40))
    def test_any_bytes(self, body: bytes) -> None:
        """
        So it is with any bytes at all, under either mark.
        """
        for whole in (body, b"k8s\0" + body):
            try:
                read_lease(whole)
            except LeaseError:
                pass


class RenewedTests(SynchronousTestCase):
    """
    What the cloud is to hold.
    """

    def test_first(self) -> None:
        """
        Without an object in the cloud it is kubelet's, at the present time.
        """
        lease = renewed(read_lease(PROTOBUF), None, "edge-1", 1_700_000_000.5)
        self.assertEqual(lease["metadata"], {"name": "edge-1", "namespace": "kube-node-lease", "ownerReferences": [OWNER]})
        self.assertEqual(lease["spec"]["renewTime"], "2023-11-14T22:13:20.500000Z")

    def test_inputs_are_left_alone(self) -> None:
        """
        Neither argument is changed.
        """
        kept, in_cloud = read_lease(PROTOBUF), read_lease(PROTOBUF)
        renewed(kept, in_cloud, "edge-1", 1_700_000_000.0)
        self.assertEqual((kept, in_cloud), (read_lease(PROTOBUF), read_lease(PROTOBUF)))
