"""
What the miniature apiserver does for each verb; every refusal is an :class:`~tests.miniapi.errors.APIError`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import count
from typing import Any

from yurt.kube.selectors import SelectorError, compile_selection

from . import errors, forms
from .identity import ANONYMOUS, TokenIssuer, User, requested_seconds
from .resources import ANY_KIND_FIELDS, Catalogue, Document, ResourceType
from .routes import Call
from .store import Selection, Store, Stored
from .watch import DEFAULT_TIMEOUT, WatchOptions

JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)
BODY_TYPES = ("application/json",)
_addresses = count(1)
TRUE = ("1", "t", "true", "TRUE", "True")


@dataclass(frozen=True)
class Answer:
    """
    A whole response: JSON.
    """

    status: int
    body: bytes

    @classmethod
    def of(cls, status: int, document: Document) -> Answer:
        return cls(status, json.dumps(document, separators=(",", ":")).encode() + b"\n")


@dataclass(frozen=True)
class Asked:
    """
    What a request brings besides its path: the body, the headers that matter, and who sends it.
    """

    body: bytes
    content_type: str
    accept: str
    user: User = ANONYMOUS


def read_document(asked: Asked) -> Document:
    """
    The JSON object of a body; raises BadRequest and UnsupportedMediaType APIErrors.
    """
    if asked.content_type not in (*BODY_TYPES, ""):
        raise errors.unsupported_media_type(asked.content_type, BODY_TYPES)
    try:
        document = json.loads(asked.body)
    except ValueError as problem:
        raise errors.bad_request(f"the object provided is unrecognized (must be of type JSON): {problem}") from None
    if not isinstance(document, dict):
        raise errors.bad_request("the object provided is unrecognized (must be an object)")
    return document


def select(resource: ResourceType, query: dict[str, str]) -> Selection:
    """
    The selection that the query asks for; raises a BadRequest APIError for bad selectors and unknown field labels.
    """
    labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
    known = ANY_KIND_FIELDS | resource.fields
    for clause in filter(None, (c.strip() for c in fields.split(","))):
        path = re.split(r"!=|==|=", clause)[0].strip()
        if path not in known:
            shown = f"{resource.group}/{resource.version}, Resource={resource.plural}"
            raise errors.bad_request(
                f'Unable to find "{shown}" that match label selector "{labels}", field selector "{fields}": '
                f"field label not supported: {path}"
            )
    try:
        return compile_selection(labels, fields)
    except SelectorError as problem:
        raise errors.bad_request(f"unable to parse requirement: {problem}") from None


def _number(text: str, name: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise errors.bad_request(f"{name}: Invalid value: {text!r}") from None


class Operations:
    """
    The verbs, on one store.
    """

    def __init__(self, store: Store, catalogue: Catalogue, issuer: TokenIssuer) -> None:
        self._store, self._catalogue, self._issuer = store, catalogue, issuer

    def perform(self, call: Call, asked: Asked) -> Answer:
        """
        Do what a call asks, other than a watch.
        """
        if call.subresource == "token" and call.resource.plural == "serviceaccounts" and call.verb == "create":
            return self._token(call, asked)
        served = {"": True, "status": call.resource.status, "approval": call.resource.approval}
        if not served.get(call.subresource):
            raise errors.no_such_path()
        verbs = {
            "get": self._get,
            "list": self._list,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_collection,
        }
        return verbs[call.verb](call, asked)

    def _shown(self, call: Call, asked: Asked, stored: Stored, status: int = 200) -> Answer:
        form, version = forms.negotiate(asked.accept)
        return Answer(
            status, forms.encode_object(call.resource, stored, form, version, call.query.get("includeObject", "")) + b"\n"
        )

    def _get(self, call: Call, asked: Asked) -> Answer:
        return self._shown(call, asked, self._store.get(call.resource, call.namespace, call.name))

    def _check_version(self, query: dict[str, str]) -> None:
        asked = _number(query.get("resourceVersion") or "0", "resourceVersion")
        if asked > self._store.version:
            raise errors.too_large_version(asked, self._store.version)

    def _list(self, call: Call, asked: Asked) -> Answer:
        query = call.query
        form, version = forms.negotiate(asked.accept)
        self._check_version(query)
        from_cache = query.get("resourceVersion") == "0"  # the real server answers it from its watch cache, which knows no pages
        page = self._store.page(
            call.resource,
            call.namespace,
            select(call.resource, query),
            limit=0 if from_cache else _number(query.get("limit") or "0", "limit"),
            token=query.get("continue", ""),
            counted=not (query.get("labelSelector") or query.get("fieldSelector")),
        )
        return Answer(200, forms.encode_list(call.resource, page, form, version, query.get("includeObject", "")) + b"\n")

    def watch_options(self, call: Call, asked: Asked) -> WatchOptions:
        """
        Read the query of a watch; raises a BadRequest APIError.
        """
        query = dict(call.query)
        if call.name:
            query["fieldSelector"] = f"metadata.name={call.name}"
        form, form_version = forms.negotiate(asked.accept)
        given = _number(query.get("resourceVersion") or "0", "resourceVersion")
        initial = query["sendInitialEvents"] in TRUE if query.get("sendInitialEvents") else None
        if initial is not None and query.get("resourceVersionMatch") != "NotOlderThan":
            problem = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            raise errors.APIError(
                422, "Invalid", f'ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: {problem}', details={}
            )
        return WatchOptions(
            call.namespace,
            select(call.resource, query),
            form,
            form_version,
            query.get("includeObject", ""),
            given or None,
            query.get("allowWatchBookmarks") in TRUE,
            initial,
            float(query.get("timeoutSeconds") or DEFAULT_TIMEOUT),
        )

    def _check_names(self, call: Call, document: Document) -> None:
        metadata = document.setdefault("metadata", {})
        if call.namespace and metadata.get("namespace") not in (None, "", call.namespace):
            raise errors.bad_request("the namespace of the provided object does not match the namespace sent on the request")
        if call.verb != "create" and metadata.get("name") != call.name:
            raise errors.bad_request(
                f"the name of the object ({metadata.get('name', '')}) does not match the name on the URL ({call.name})"
            )
        kind, api_version = document.get("kind", call.resource.kind), document.get("apiVersion", call.resource.api_version)
        if (kind, api_version) != (call.resource.kind, call.resource.api_version):
            raise errors.bad_request(f"{kind} in version {api_version} cannot be handled as a {call.resource.kind}")

    def _create(self, call: Call, asked: Asked) -> Answer:
        document = read_document(asked)
        self._check_names(call, document)
        if call.resource.namespaced:
            self._store.get(self._catalogue.named("namespaces"), "", call.namespace)
        if call.resource.approval:
            asker = {"username": asked.user.name, "groups": list(asked.user.groups)}
            document = {**document, "spec": {**document.get("spec", {}), **asker}, "status": {}}
        stored = self._store.create(call.resource, call.namespace, with_defaults(call.resource, document))
        return self._shown(call, asked, stored, 201)

    def _update(self, call: Call, asked: Asked) -> Answer:
        document = read_document(asked)
        self._check_names(call, document)
        try:
            old = self._store.get(call.resource, call.namespace, call.name)
        except errors.APIError:
            if not call.resource.creates_on_update or call.subresource:
                raise
            return self._shown(call, asked, self._store.create(call.resource, call.namespace, document), 201)
        return self._shown(call, asked, self._replace(call, old, document))

    def _replace(self, call: Call, old: Stored, document: Document) -> Stored:
        uid, found = document["metadata"].get("uid"), old.document["metadata"]["uid"]
        if uid not in (None, "", found):
            if call.verb == "patch":
                raise errors.invalid(call.resource, call.name, "metadata.uid", f'Invalid value: "{uid}": field is immutable')
            raise errors.other_uid(call.resource, call.name, uid, found)
        version = document["metadata"].get("resourceVersion", "")
        if version and version != str(old.version):
            raise errors.conflict(call.resource, call.name)
        if not version and not call.resource.unconditional_update:
            raise errors.invalid(
                call.resource, call.name, "metadata.resourceVersion", "Invalid value: 0x0: must be specified for an update"
            )
        document = merge_status(call, old.document, document)
        if call.resource.plural == "services":
            document = {**document, "spec": service_spec(call.resource, document, old.document["spec"].get("clusterIP", ""))}
        return self._store.replace(call.resource, old, document)

    def _patch(self, call: Call, asked: Asked) -> Answer:
        accepted = (JSON_PATCH, MERGE_PATCH, *((STRATEGIC_PATCH,) if call.resource.strategic else ()))
        if asked.content_type not in accepted:
            raise errors.unsupported_media_type(asked.content_type, accepted)
        from yurt.kube.patch import PatchError, apply_patch

        old = self._store.get(call.resource, call.namespace, call.name)
        try:
            document = apply_patch(asked.content_type, old.document, asked.body, call.resource.kind)
        except PatchError as problem:
            code, reason = (422, "Invalid") if asked.content_type == JSON_PATCH and is_json(asked.body) else (400, "BadRequest")
            raise errors.APIError(
                code, reason, f"the server rejected our request due to an error in our request: {problem}", details={}
            ) from None
        self._check_names(call, document)
        return self._shown(call, asked, self._replace(call, old, document))

    def _delete(self, call: Call, asked: Asked) -> Answer:
        old = self._store.get(call.resource, call.namespace, call.name)
        options = read_document(asked) if asked.body else {}
        wanted = options.get("preconditions") or {}
        uid = old.document["metadata"]["uid"]
        if wanted.get("uid") not in (None, uid):
            raise errors.wrong_uid(call.resource, call.name, wanted["uid"], uid)
        if wanted.get("resourceVersion") not in (None, str(old.version)):
            raise errors.wrong_version(call.resource, call.name, wanted["resourceVersion"], old.version)
        grace = options.get("gracePeriodSeconds", call.query.get("gracePeriodSeconds"))
        stored, gone = self._store.delete(call.resource, old, None if grace is None else int(grace))
        if call.resource.returns_deleted or not gone:
            return self._shown(call, asked, stored)
        details = {**(errors.not_found(call.resource, call.name).details or {}), "uid": uid}
        return Answer.of(200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})

    def _delete_collection(self, call: Call, asked: Asked) -> Answer:
        page = self._store.page(call.resource, call.namespace, select(call.resource, call.query))
        for stored in page.items:
            self._store.delete(call.resource, stored, None)
        form, version = forms.negotiate(asked.accept)
        return Answer(200, forms.encode_list(call.resource, page, form, version, "") + b"\n")

    def _token(self, call: Call, asked: Asked) -> Answer:
        account = self._store.get(call.resource, call.namespace, call.name).document["metadata"]
        spec: dict[str, Any] = read_document(asked).get("spec") or {}
        seconds, bound = requested_seconds(spec), spec.get("boundObjectRef")
        audiences = spec.get("audiences") or [self._issuer.issuer]
        pod = None
        if bound and bound.get("kind") == "Pod":
            pod = self._store.get(self._catalogue.named("pods"), call.namespace, bound.get("name", "")).document["metadata"]
        token, expiry = self._issuer.sign(call.namespace, account, audiences=audiences, seconds=seconds, pod=pod)
        return Answer.of(201, token_request(call, spec, audiences, seconds, token, expiry))


def token_request(call: Call, spec: Document, audiences: list[str], seconds: int, token: str, expiry: float) -> Document:
    """
    The answer to a TokenRequest.
    """
    until = datetime.fromtimestamp(expiry, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": call.name, "namespace": call.namespace, "creationTimestamp": None},
        "spec": {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": spec.get("boundObjectRef")},
        "status": {"token": token, "expirationTimestamp": until},
    }


def is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


def with_defaults(resource: ResourceType, document: Document) -> Document:
    """
    What the real server fills in at creation and clients count on.
    """
    if resource.status and resource.plural in ("pods", "namespaces"):
        phase = "Pending" if resource.plural == "pods" else "Active"
        document = {**document, "status": {"phase": phase}}
    if resource.plural == "secrets":
        document = {"type": "Opaque", **document}
    if resource.plural == "services":
        document = {**document, "spec": service_spec(resource, document)}
    if resource.plural == "pods":
        spec = {
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "schedulerName": "default-scheduler",
            **document.get("spec", {}),
        }
        document = {**document, "spec": spec}
    return document


def service_spec(resource: ResourceType, document: Document, address: str = "") -> Document:
    """
    The spec of a Service with what the real server fills in; raises an Invalid APIError for a port that is there twice.
    """
    spec = document.get("spec") or {}
    ports = [{"protocol": "TCP", "targetPort": port["port"], **port} for port in spec.get("ports") or ()]
    numbers = [(port["protocol"], port["port"]) for port in ports]
    for place, number in enumerate(numbers):
        if number in numbers[:place]:
            shown = json.dumps({"protocol": number[0], "port": number[1]})
            field = f"spec.ports[{place}]"
            raise errors.invalid(resource, document["metadata"]["name"], field, f"Duplicate value: {shown}")
    if not (address := spec.get("clusterIP") or address):
        address = "10.96.{}.{}".format(*divmod(next(_addresses), 250))
    return {"type": "ClusterIP", "sessionAffinity": "None", **spec, "clusterIP": address, "ports": ports}


def _conditions(request: Document) -> Document:
    conditions = (request.get("status") or {}).get("conditions")
    return {"conditions": conditions} if conditions else {}


def merge_status(call: Call, old: Document, new: Document) -> Document:
    """
    What a write may change: through /status the status alone, through /approval its conditions, elsewhere all but the status.
    """
    if not call.resource.status:
        return new
    if call.subresource == "approval":
        # The signature is for who signs to write.
        return {**new, "spec": old["spec"], "status": {**old.get("status", {}), **_conditions(new)}}
    if call.subresource == "status":
        metadata = old["metadata"]
        if call.resource.plural in ("nodes", "pods"):
            metadata = {**metadata, **{key: new["metadata"][key] for key in ("labels", "annotations") if key in new["metadata"]}}
        return {**old, "metadata": metadata, "status": new.get("status", {})}
    if call.resource.approval:
        new = {**new, "spec": old["spec"]}
    merged = {k: v for k, v in new.items() if k != "status"}
    return {**merged, "status": old["status"]} if "status" in old else merged
