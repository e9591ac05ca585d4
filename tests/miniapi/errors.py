"""
The errors of the miniature apiserver, in the words of the real one (read off a kube-apiserver 1.20).
"""

from __future__ import annotations

from typing import Any

from .resources import ResourceType


class APIError(Exception):
    """
    An answer that is a Status of kind Failure.
    """

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.details, self.metadata = code, reason, details, metadata

    def status(self) -> dict[str, Any]:
        """
        The Status document.
        """
        document: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.metadata or {},
            "status": "Failure",
            "message": str(self),
            "reason": self.reason,
        }
        if self.details is not None:
            document["details"] = self.details
        return {**document, "code": self.code}


def _details(resource: ResourceType, name: str) -> dict[str, Any]:
    details: dict[str, Any] = {"name": name}
    if resource.group:
        details["group"] = resource.group
    return {**details, "kind": resource.plural}


def not_found(resource: ResourceType, name: str) -> APIError:
    return APIError(404, "NotFound", f'{resource.group_resource} "{name}" not found', details=_details(resource, name))


def no_such_path() -> APIError:
    return APIError(404, "NotFound", "the server could not find the requested resource", details={})


def already_exists(resource: ResourceType, name: str) -> APIError:
    return APIError(409, "AlreadyExists", f'{resource.group_resource} "{name}" already exists', details=_details(resource, name))


def conflict(resource: ResourceType, name: str) -> APIError:
    message = (
        f'Operation cannot be fulfilled on {resource.group_resource} "{name}": '
        "the object has been modified; please apply your changes to the latest version and try again"
    )
    return APIError(409, "Conflict", message, details=_details(resource, name))


def wrong_uid(resource: ResourceType, name: str, wanted: str, found: str) -> APIError:
    message = (
        f'Operation cannot be fulfilled on {resource.group_resource} "{name}": the UID in the precondition ({wanted}) '
        f"does not match the UID in record ({found}). The object might have been deleted and then recreated"
    )
    return APIError(409, "Conflict", message, details=_details(resource, name))


def wrong_version(resource: ResourceType, name: str, wanted: str, found: int) -> APIError:
    message = (
        f'Operation cannot be fulfilled on {resource.group_resource} "{name}": the ResourceVersion in the precondition '
        f"({wanted}) does not match the ResourceVersion in record ({found}). The object might have been modified"
    )
    return APIError(409, "Conflict", message, details=_details(resource, name))


def other_uid(resource: ResourceType, name: str, wanted: str, found: str) -> APIError:
    """
    For a write of an object that has got another uid.
    """
    message = (
        f'Operation cannot be fulfilled on {resource.group_resource} "{name}": Precondition failed: UID in precondition: '
        f"{wanted}, UID in object meta: {found}"
    )
    return APIError(409, "Conflict", message, details=_details(resource, name))


def bad_request(message: str) -> APIError:
    return APIError(400, "BadRequest", message)


def invalid(resource: ResourceType, name: str, field: str, problem: str) -> APIError:
    details: dict[str, Any] = {"name": name, "kind": resource.kind}
    if not name:
        del details["name"]
    if resource.group:
        details["group"] = resource.group
    details["causes"] = [{"reason": "FieldValueRequired", "message": problem, "field": field}]
    shown = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    return APIError(422, "Invalid", f'{shown} "{name}" is invalid: {field}: {problem}', details=details)


def expired(message: str, continue_token: str = "") -> APIError:
    return APIError(410, "Expired", message, metadata={"continue": continue_token} if continue_token else {})


def too_large_version(asked: int, current: int) -> APIError:
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return APIError(
        504,
        "Timeout",
        f"Too large resource version: {asked}, current: {current}",
        details={"causes": [cause], "retryAfterSeconds": 1},
    )


def unsupported_media_type(given: str, accepted: tuple[str, ...]) -> APIError:
    listed = ", ".join(accepted)
    message = f"the body of the request was in an unknown format - accepted media types include: {listed}; given {given!r}"
    return APIError(415, "UnsupportedMediaType", message)


def not_acceptable() -> APIError:
    return APIError(406, "NotAcceptable", "only the following media types are accepted: application/json")


def method_not_allowed() -> APIError:
    return APIError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", details={})


def unauthorized() -> APIError:
    return APIError(401, "Unauthorized", "Unauthorized")


def forbidden(user: str, verb: str, resource: ResourceType | None, namespace: str, name: str, path: str) -> APIError:
    """
    The refusal of ``user``: for a resource, or, when ``resource`` is None, for the path.
    """
    if resource is None:
        return APIError(403, "Forbidden", f'forbidden: User "{user}" cannot {verb} path "{path}"', details={})
    where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
    shown = f' "{name}"' if name else ""
    message = (
        f'{resource.group_resource}{shown} is forbidden: User "{user}" cannot {verb} resource "{resource.plural}" '
        f'in API group "{resource.group}"{where}'
    )
    details = _details(resource, name)
    if not name:
        del details["name"]
    return APIError(403, "Forbidden", message, details=details)
