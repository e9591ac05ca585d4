"""
Quotas as operators write them.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from yurt.hub.cache import Caller
from yurt.hub.cache.quota import KUBELET, Quota, quota_entries


class QuotaTests(SynchronousTestCase):
    """
    Tests of Quota and quota_entries.
    """

    def test_limits(self) -> None:
        """
        A component has its own quota, or that of all others; kubelet, if it is the node's, is bound by the whole only; nobody
        gets more than the whole.
        """
        quota = Quota.of(quota_entries("100Mi, Kubectl=16Mi, *=8Mi, big=200Mi"))
        self.assertEqual(quota.limit(Caller("node", "kubectl")), 16 << 20)
        self.assertEqual(quota.limit(Caller("node", "coredns")), 8 << 20)
        self.assertEqual(quota.limit(Caller("node", "big")), 100 << 20)
        self.assertEqual(quota.limit(KUBELET), 100 << 20)
        self.assertEqual(quota.limit(Caller("system:serviceaccount:a:b", "kubelet")), 8 << 20)
        self.assertEqual(Quota.of(quota_entries("kubelet=5Mi")).limit(KUBELET), 5 << 20)

    def test_later_wins(self) -> None:
        """
        Of what is given twice the last counts, and what is not given is as by default.
        """
        quota = Quota.of((*quota_entries("100Mi,a=1Mi"), *quota_entries("a=2Mi,90Mi")))
        self.assertEqual((quota.total, quota.components, quota.others), (90 << 20, {"a": 2 << 20}, Quota().others))

    def test_refused(self) -> None:
        """
        What cannot be meant is refused, with what to write.
        """
        for text, part in (("x", "64Mi"), ("a=", "64Mi"), ("=1Mi", "is no component"), ("1Ki", "1Mi to 512Mi"), ("1Gi", "512Mi")):
            self.assertIn(part, str(self.assertRaises(ValueError, quota_entries, text)), text)
