"""
Which node a pod is on: asked when somebody wants to know, since a server that followed all pods would grow with the cluster.
"""

from __future__ import annotations

from urllib.parse import quote

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from yurt.kube.api import UNREADABLE, ApiClient, ApiError

REMEMBERED_FOR = 5.0
"""Seconds for which an answer holds; a pod of the same name may be made anew on another node."""
MAX_REMEMBERED = 1024
"""Answers that are remembered."""


class _Spec(msgspec.Struct):
    nodeName: str = ""


class _Pod(msgspec.Struct):
    spec: _Spec | None = None


_decode = msgspec.json.Decoder(_Pod).decode


class Pods:
    """
    Asks an API server for the nodes of pods.
    """

    def __init__(self, reactor: IReactorTime, client: ApiClient) -> None:
        self._reactor = reactor
        self._client = client
        self._remembered: dict[tuple[str, str], tuple[float, str]] = {}

    def node_of_pod(self, namespace: str, name: str) -> Deferred[str]:
        """
        The name of the node that a pod is bound to.

        Fails with :class:`ApiError`: that of the API server (404 for a pod that is not there), or code 409 for a pod that
        no node has been chosen for.
        """
        return Deferred.fromCoroutine(self._node_of_pod(namespace, name))

    async def _node_of_pod(self, namespace: str, name: str) -> str:
        now = self._reactor.seconds()
        until, node = self._remembered.get((namespace, name), (now, ""))
        if until > now:
            return node
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(name, safe='')}"
        body = await self._client.call(b"GET", path.encode())
        try:
            pod = _decode(body)
        except msgspec.DecodeError as error:
            raise ApiError(0, UNREADABLE, f"GET {path}: the answer is no Pod: {error}") from error
        if pod.spec is None or not pod.spec.nodeName:
            raise ApiError(409, "Conflict", f"pod {namespace}/{name} is not on a node yet")
        self._remember((namespace, name), pod.spec.nodeName)
        return pod.spec.nodeName

    def _remember(self, pod: tuple[str, str], node: str) -> None:
        """
        The newest stands last, so the first is the one to forget.
        """
        self._remembered.pop(pod, None)
        if len(self._remembered) >= MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[pod] = (self._reactor.seconds() + REMEMBERED_FOR, node)
