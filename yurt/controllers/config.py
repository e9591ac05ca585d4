"""
What the operator of the controllers chose, as one value.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from yurt.kube.kubeconfig import Kubeconfig

LEASE = "yurt-controller-manager"
"""The Lease by which one of several processes leads."""


@dataclass(frozen=True)
class ControllersConfig:
    """
    The configuration; names as those of the flags, times in seconds, None for an address that is not wanted.
    """

    kubeconfig: Kubeconfig
    controllers: frozenset[str] = frozenset()
    metrics_addr: tuple[str, int] | None = ("127.0.0.1", 10271)
    health_probe_addr: tuple[str, int] | None = None
    working_namespace: str = "kube-system"
    min_resync_period: float = 12 * 3600.0
    dummy_if_ips: frozenset[str] = field(default_factory=lambda: frozenset({"169.254.2.1", "fd00::2:1"}))
    csr_approver_workers: int = 3
