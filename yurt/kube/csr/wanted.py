"""
Which certificate is wanted: the contents of a request to a signer of ``certificates.k8s.io``.
"""

from __future__ import annotations

from dataclasses import dataclass

CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"
SERVING_SIGNER = "kubernetes.io/kubelet-serving"

CLIENT_USAGES = ("digital signature", "key encipherment", "client auth")
SERVING_USAGES = ("digital signature", "key encipherment", "server auth")
"""What approvers insist on, also for keys that encipher nothing."""

NODES = "system:nodes"
"""The group of all nodes."""
NODE_PREFIX = "system:node:"
"""What the common name of a node's certificate begins with."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    A certificate as it should be.  ``name`` is what the certificate is for, in messages.
    """

    name: str
    common_name: str
    organizations: tuple[str, ...]
    signer: str
    usages: tuple[str, ...]
    dns: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


def client(
    name: str, common_name: str, organizations: tuple[str, ...], dns: tuple[str, ...] = (), addresses: tuple[str, ...] = ()
) -> Wanted:
    """
    A certificate to show to API servers.
    """
    return Wanted(name, common_name, organizations, CLIENT_SIGNER, CLIENT_USAGES, dns, addresses)


def serving(name: str, common_name: str, dns: tuple[str, ...], addresses: tuple[str, ...]) -> Wanted:
    """
    A certificate to listen with, for these names and addresses; its signer wants a node's common name and group.
    """
    return Wanted(name, common_name, (NODES,), SERVING_SIGNER, SERVING_USAGES, dns, addresses)
