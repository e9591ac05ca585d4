"""
Upgrades that are begun on the node: ``POST /openyurt.io/v1/namespaces/{ns}/pods/{name}/upgrade``, and ``…/imagepull``.

yurt-manager marks the pods of a DaemonSet, and static pods, that lag behind with the condition PodNeedUpgrade; whoever is at the
node says when.  A DaemonSet's pod is deleted, and comes back as a newer one; of a static pod the manifest is replaced.  All that
is asked of the cloud is asked in the caller's own name: the node's for callers on loopback that show nothing, else that of the
token.  Paths, answers and their words are those of OpenYurt's hub.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from yurt.http.interfaces import Headers
from yurt.hub.identity import Credential, read_credential
from yurt.hub.proxy import is_loopback
from yurt.hub.staticpod import CONFIG_MAP, MANIFESTS, ManifestError, replace_manifest
from yurt.kube.api import ApiClient, ApiError, Document, target
from yurt.kube.patch import STRATEGIC_MERGE_PATCH
from yurt.web import TEXT

if TYPE_CHECKING:
    from yurt.hub.hub import Hub

MAX_UPGRADES = 16
"""Requests that are worked on at once."""

NEED_UPGRADE = "PodNeedUpgrade"
IMAGE_READY = "PodImageReady"
VERSION = "version:"
"""What the message of PodNeedUpgrade begins with where yurt-manager names the version to come (OpenYurt 1.7)."""

OFFLINE = "OTA update is not allowed when edge is disconnected to cloud"
NOT_UPDATABLE = "Pod is not-updatable"
NO_CONFIG_MAP = "Configmap for static pod does not exist"
FAILED = "Apply update failed"

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


class Refused(Exception):
    """
    Nothing was done; ``status`` and the message are the answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Wish:
    """
    What somebody wants: of which pod, and in whose name.
    """

    client: ApiClient
    namespace: str
    name: str

    @property
    def path(self) -> str:
        """
        The pod's.
        """
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"


class Upgrades:
    """
    Carries out what is wished.  ``manifests`` is kubelet's folder of static pods.
    """

    log = Logger()

    def __init__(self, hub: Hub, manifests: str = MANIFESTS) -> None:
        self._hub = hub
        self._manifests = Path(manifests)
        self._backups = Path(hub.config.root_dir) / "manifests"

    def client(self, credential: Credential, peer: IAddress) -> ApiClient:
        """
        The cloud in the name of a caller.  Raises Refused.
        """
        if credential.kind == "none" and not is_loopback(peer):
            raise Refused(401, "a caller from elsewhere must bring its own credentials, such as its service-account token")
        if credential.kind == "other" or credential.impersonates:
            raise Refused(401, "only bearer tokens are taken here, and nobody in another's name")
        server = self._hub.cloud.pick()
        if server is None:
            raise Refused(403, OFFLINE)
        if credential.kind == "none":
            return ApiClient(self._hub.reactor, server.upstream, self._hub.cloud.node_headers)
        shown: Headers = [(b"Authorization", f"Bearer {credential.token}".encode("latin-1"))]
        return ApiClient(self._hub.reactor, server.bare, lambda: shown)

    async def upgrade(self, wish: Wish) -> str:
        """
        Upgrade a pod; returns what to say.  Raises Refused and ApiError.
        """
        pod = await self._updatable(wish)
        kind = owner_kind(pod)
        if kind == "DaemonSet":
            await wish.client.delete(wish.path, uid=pod["metadata"].get("uid", ""))
        elif kind == "Node":
            await self._upgrade_static(wish, pod)
        else:
            raise Refused(400, f"Not support ota upgrade pod type {kind or 'without owner'}")
        self.log.info("upgrade of pod {namespace}/{name} begins", namespace=wish.namespace, name=wish.name)
        return f"Start updating pod {wish.namespace}/{wish.name}"

    async def pull_image(self, wish: Wish) -> str:
        """
        Ask yurt-manager to have the image of the version to come pulled; returns what to say.  Raises Refused and ApiError.
        """
        pod = await self._updatable(wish)
        version = condition(pod, NEED_UPGRADE).get("message", "")
        if not version.startswith(VERSION):
            raise Refused(403, f"{NOT_UPDATABLE}: its condition {NEED_UPGRADE} names no version to pull")
        status = {"conditions": [{"type": IMAGE_READY, "status": "False", "message": version}]}
        where = target(f"{wish.path}/status", {"fieldManager": "yurthub-ota"})
        body = msgspec.json.encode({"metadata": {"uid": pod["metadata"].get("uid", "")}, "status": status})
        await wish.client.call(b"PATCH", where, body, STRATEGIC_MERGE_PATCH)
        return f"Image pre-pull requested for pod {wish.namespace}/{wish.name}"

    async def _updatable(self, wish: Wish) -> Document:
        """
        The pod, if it can be upgraded here.
        """
        try:
            pod = await wish.client.get(wish.path)
        except ApiError as error:
            if error.code != 404:
                raise
            raise Refused(403, f"{NOT_UPDATABLE}: it does not exist") from None
        why = why_not(pod, self._hub.config.node_name)
        if why:
            raise Refused(403, f"{NOT_UPDATABLE}: {why}")
        return pod

    async def _upgrade_static(self, wish: Wish, pod: Document) -> None:
        """
        Replace a static pod's manifest.  Who may delete the pod may have it replaced.
        """
        name = wish.name.removesuffix(f"-{self._hub.config.node_name}")
        if name == wish.name:
            raise Refused(403, f"{NOT_UPDATABLE}: its name does not end with that of the node")
        try:
            found = await wish.client.get(f"/api/v1/namespaces/{wish.namespace}/configmaps/{CONFIG_MAP}{name}")
        except ApiError as error:
            if error.code != 404:
                raise
            raise Refused(403, NO_CONFIG_MAP) from None
        options = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "preconditions": {"uid": pod["metadata"].get("uid", "")},
            "dryRun": ["All"],  # in the query it does not count beside a body
        }
        await wish.client.call(b"DELETE", target(wish.path), msgspec.json.encode(options))
        try:
            path = replace_manifest(self._manifests, self._backups, found.get("data") or {}, wish.namespace, name)
        except ManifestError as error:
            raise Refused(500, f"{FAILED}: {error}") from None
        self.log.info("{path} was replaced; the one before is in {backups}", path=str(path), backups=str(self._backups))


def why_not(pod: Document, node_name: str) -> str:
    """
    Why a pod cannot be upgraded on this node; empty when it can.
    """
    if pod["metadata"].get("deletionTimestamp"):
        return "it is being deleted"
    if (pod.get("spec") or {}).get("nodeName") != node_name:
        return f"it is not on node {node_name}"
    if condition(pod, NEED_UPGRADE).get("status") != "True":
        return f"it has no condition {NEED_UPGRADE} that is True"
    return ""


def condition(pod: Document, kind: str) -> dict[str, str]:
    """
    A condition of a pod; empty when it does not have it.
    """
    conditions: list[dict[str, str]] = (pod.get("status") or {}).get("conditions") or []
    return next((one for one in conditions if one.get("type") == kind), {})


def owner_kind(pod: Document) -> str:
    """
    The kind of what a pod belongs to; empty when it belongs to nothing.
    """
    owners: list[dict[str, Any]] = pod["metadata"].get("ownerReferences") or []
    controllers = [one for one in owners if one.get("controller")] or owners
    return str(controllers[0].get("kind", "")) if controllers else ""


class UpgradePage(Resource):
    """
    The page for all that is below ``/openyurt.io``.
    """

    log = Logger()
    isLeaf = True

    def __init__(self, upgrades: Upgrades) -> None:
        super().__init__()
        self._actions: dict[str, Callable[[Wish], Awaitable[str]]] = {
            "upgrade": upgrades.upgrade,
            "imagepull": upgrades.pull_image,
        }
        self._upgrades = upgrades
        self._running = 0

    def render_POST(self, request: Request) -> int:
        """
        Begin; the answer follows.
        """
        self._running += 1
        work = Deferred.fromCoroutine(self._answer(request))
        request.notifyFinish().addErrback(lambda _: work.cancel())
        work.addBoth(self._finish, request)
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> tuple[int, str]:
        """
        Status and text of the answer.
        """
        parts = [part.decode("latin-1") for part in request.postpath or ()]
        if len(parts) != 6 or parts[:2] != ["v1", "namespaces"] or parts[3] != "pods" or parts[5] not in self._actions:
            return 404, "there is /openyurt.io/v1/namespaces/NAMESPACE/pods/NAME/upgrade, and /imagepull"
        namespace, name = parts[2], parts[4]
        if not (_NAME.fullmatch(namespace) and _NAME.fullmatch(name)):
            return 400, "that is no name of a namespace or a pod"
        if self._running > MAX_UPGRADES:
            return 429, "too many upgrades at once; try again later"
        headers = [(key, value) for key, values in request.requestHeaders.getAllRawHeaders() for value in values]
        try:
            client = self._upgrades.client(read_credential(headers), request.getClientAddress())
            return 200, await self._actions[parts[5]](Wish(client, namespace, name))
        except Refused as error:
            return error.status, str(error)
        except ApiError as error:
            return (error.code if error.code in (401, 403, 409, 429) else 500), f"{FAILED}: {error}"

    def _finish(self, outcome: tuple[int, str] | Failure, request: Request) -> None:
        self._running -= 1
        if isinstance(outcome, Failure):
            if outcome.check(CancelledError):
                return
            self.log.failure("an upgrade failed", failure=outcome)
            outcome = 500, FAILED
        status, text = outcome
        body = text.encode()
        request.setResponseCode(status)
        request.setHeader(b"Content-Type", TEXT)
        request.setHeader(b"Content-Length", b"%d" % len(body))
        request.write(body)
        request.finish()
