"""
Whether a caller may do something to a node: the API server says so (SubjectAccessReview), or the operator has (--allowed-names).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.internet.interfaces import IReactorTime

from yurt.kube.api import ApiError
from yurt.tunnel.server.authentication import Caller, Creates
from yurt.tunnel.server.recent import Recent
from yurt.tunnel.server.routing import Refused

REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"

MAX_ANSWERS = 4096
"""Answers of the API server that are remembered."""
ALLOWED_KEPT = 60.0
FORBIDDEN_KEPT = 10.0
"""Seconds for which they hold."""

MAX_WHY = 500
"""Characters that are remembered of its reasons."""

VERBS = {
    b"GET": "get", b"HEAD": "get", b"OPTIONS": "get", b"POST": "create", b"PUT": "update", b"PATCH": "patch",
    b"DELETE": "delete", b"CONNECT": "create",
}  # fmt: skip
"""What an HTTP method is to an authoriser, as a kubelet has it (``pkg/kubelet/server/auth.go``)."""

COMMANDS = frozenset({b"exec", b"attach", b"portforward", b"run", b"cri"})
"""First words, in lower case, of a kubelet's paths that reach into a pod."""

PATH_CLASSES = frozenset(
    {
        b"exec", b"attach", b"portForward", b"containerLogs", b"run", b"cri", b"metrics", b"stats", b"logs", b"pods",
        b"runningpods", b"spec", b"healthz", b"configz", b"debug", b"checkpoint",
    }
)  # fmt: skip
"""First words of paths that metrics tell apart: those of a kubelet."""

_OWN_SUBRESOURCE = {b"metrics": "metrics", b"stats": "stats", b"logs": "log", b"spec": "spec"}
_PLAIN_PATH = re.compile(rb"/([a-z]+)(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*/?")


@dataclass(frozen=True, slots=True)
class Access:
    """
    What is to be done to a node: a verb, and the subresources of which one must be allowed.
    """

    verb: str
    subresources: Sequence[str] = ("proxy",)


def access_of(method: bytes, target: bytes) -> Access:
    """
    What a request does to a node.  Raises :class:`Refused` for a method that does nothing known.

    Everything needs ``nodes/proxy``; reading metrics, statistics, logs of the machine and its specification is also allowed to
    whom a kubelet allows it, by a subresource of its own.  What reaches into a pod is never merely read, though exec by
    WebSocket comes as a GET.
    """
    verb = VERBS.get(method)
    if verb is None:
        message = f"{method.decode('latin-1')} is not passed on to nodes"
        raise Refused(405, "MethodNotAllowed", "malformed", message)
    path = target.partition(b"?")[0]
    words = [word for word in unquote_to_bytes(path).lower().split(b"/") if word not in (b"", b".")]
    if b".." in words or (words and words[0] in COMMANDS):
        return Access("create")
    plain = _PLAIN_PATH.fullmatch(path)
    own = _OWN_SUBRESOURCE.get(plain[1]) if plain and verb == "get" else None
    return Access(verb, ("proxy",) if own is None else (own, "proxy"))


def path_class(target: bytes) -> bytes:
    """
    The first word of a path if it is a kubelet's, for metrics.
    """
    word = target.partition(b"?")[0].split(b"/", 2)[1:2]
    return word[0] if word and word[0] in PATH_CLASSES else b"other"


class Authoriser:
    """
    Lets callers do what they may.  Without an API server only those in ``allowed_names`` may do anything.
    """

    def __init__(self, reactor: IReactorTime, api: Creates | None, allowed_names: frozenset[str]) -> None:
        self._api = api
        self._allowed_names = allowed_names
        self._recent: Recent[tuple[bool, str]] = Recent(
            reactor, lambda answer: ALLOWED_KEPT if answer[0] else FORBIDDEN_KEPT, MAX_ANSWERS
        )

    async def check(self, caller: Caller, node: str, access: Access) -> None:
        """
        Return if ``caller`` may do that to ``node``; an empty name stands for all nodes.  Raises :class:`Refused`.
        """
        if self.trusts(caller):
            return
        why = "it is not in --allowed-names, and without --kubeconfig nobody else can be allowed anything"
        for subresource in access.subresources if self._api is not None else ():
            try:
                allowed, why = await self._ask(caller, node, access.verb, subresource)
            except ApiError as error:
                message = f'whether User "{caller.name}" may do that cannot be checked: {error.message}'
                raise Refused(503, "ServiceUnavailable", "forbidden", message) from error
            if allowed:
                return
        which = f'nodes "{node}" is forbidden' if node else "nodes is forbidden"
        message = f'{which}: User "{caller.name}" cannot {access.verb} resource "nodes/{access.subresources[-1]}"'
        raise Refused(403, "Forbidden", "forbidden", f"{message}: {why}" if why else message)

    def trusts(self, caller: Caller) -> bool:
        """
        Whether ``caller`` may do everything, so that nobody has to be asked.
        """
        return caller.trusted or caller.name in self._allowed_names

    async def _ask(self, caller: Caller, node: str, verb: str, subresource: str) -> tuple[bool, str]:
        extra = tuple(sorted(caller.extra.items()))
        key = (caller.name, caller.groups, caller.uid, extra, node, verb, subresource)
        return await self._recent.get(key, lambda: self._review(caller, node, verb, subresource))

    async def _review(self, caller: Caller, node: str, verb: str, subresource: str) -> tuple[bool, str]:
        assert self._api is not None
        attributes = {"verb": verb, "version": "v1", "resource": "nodes", "subresource": subresource, "name": node}
        spec: dict[str, Any] = {"user": caller.name, "resourceAttributes": attributes}
        if caller.groups:
            spec["groups"] = list(caller.groups)
        if caller.uid:
            spec["uid"] = caller.uid
        if caller.extra:
            spec["extra"] = {name: list(values) for name, values in caller.extra.items()}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        status = (await self._api.create(REVIEWS, review)).get("status") or {}
        why = str(status.get("reason") or status.get("evaluationError") or "")
        return status.get("allowed") is True, why[:MAX_WHY]
