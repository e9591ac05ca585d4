"""
Asking for certificates with a kubeconfig, by whoever it names: the node, a service account, or nobody, where a hub lends the
node's identity.
"""

from __future__ import annotations

from typing import Any

from yurt.kube.api import ApiClient, client_from_kubeconfig
from yurt.kube.csr.pem import Held
from yurt.kube.csr.service import AccessError
from yurt.kube.kubeconfig import KubeconfigError, load_kubeconfig
from yurt.tls import CredentialsError


class KubeconfigAccess:
    """
    See :class:`yurt.kube.csr.service.Access`.  The file is read anew for each attempt: it may come later, and change.
    """

    asker = ""
    others = False
    shows_held = False

    def __init__(self, reactor: Any, path: str, product: str) -> None:
        self._reactor = reactor
        self._path = path
        self._product = product

    async def client(self, held: Held | None) -> ApiClient:
        """
        A client as the kubeconfig says.
        """
        try:
            return client_from_kubeconfig(self._reactor, load_kubeconfig(self._path), self._product)
        except (KubeconfigError, CredentialsError) as error:
            raise AccessError(str(error)) from None

    def failed(self, error: Exception) -> None:
        """
        There is no other way.
        """

    def served(self) -> None:
        """
        The kubeconfig stays.
        """
