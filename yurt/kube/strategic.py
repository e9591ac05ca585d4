"""
Strategic merge patch: a merge patch that knows which lists are sets or maps, and takes directives.

The rules are those of ``k8s.io/apimachinery/pkg/util/strategicpatch``, the table that of the ``patchStrategy`` and
``patchMergeKey`` tags of Kubernetes' types (``x-kubernetes-patch-*`` in its OpenAPI document).  The order of merged lists
is Kubernetes' too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from yurt.kube.jsonpatch import equal

PATCH = "$patch"
RETAIN_KEYS = "$retainKeys"
SET_ORDER = "$setElementOrder/"
DELETE_FROM = "$deleteFromPrimitiveList/"


class StrategicPatchError(ValueError):
    """
    A strategic merge patch that is malformed or does not fit the object.
    """


@dataclass(frozen=True, slots=True)
class Shape:
    """
    How a field is merged.

    ``key`` is the field that tells the items of a list apart, ``""`` for a set of scalars, None for a list that is
    replaced as a whole (and for what is no list).  ``fields`` are the shapes inside.
    """

    key: str | None = None
    fields: Mapping[str, Shape] = field(default_factory=dict)


_PLAIN = Shape()
_SET = Shape("")


def _by(key: str, **fields: Shape) -> Shape:
    return Shape(key, fields)


def _of(**fields: Shape) -> Shape:
    return Shape(None, fields)


_METADATA = _of(finalizers=_SET, ownerReferences=_by("uid"))
_CONTAINERS = _by(
    "name",
    env=_by("name"),
    ports=_by("containerPort"),
    volumeDevices=_by("devicePath"),
    volumeMounts=_by("mountPath"),
)
_POD_SPEC = _of(
    containers=_CONTAINERS,
    initContainers=_CONTAINERS,
    ephemeralContainers=_by("name", env=_by("name"), volumeDevices=_by("devicePath"), volumeMounts=_by("mountPath")),
    hostAliases=_by("ip"),
    imagePullSecrets=_by("name"),
    resourceClaims=_by("name"),
    schedulingGates=_by("name"),
    topologySpreadConstraints=_by("topologyKey"),
    volumes=_by("name"),
)
_POD_TEMPLATE = _of(metadata=_METADATA, spec=_POD_SPEC)
_CLAIM = _of(metadata=_METADATA, status=_of(conditions=_by("type")))
_CONDITIONS = _of(conditions=_by("type"))


def _kind(spec: Shape = _PLAIN, status: Shape = _PLAIN, **fields: Shape) -> Shape:
    return _of(metadata=_METADATA, spec=spec, status=status, **fields)


_WORKLOAD = _kind(_of(template=_POD_TEMPLATE), _CONDITIONS)
_JOB_TEMPLATE = _of(metadata=_METADATA, spec=_of(template=_POD_TEMPLATE))
_WEBHOOKS = _kind(webhooks=_by("name"))

SHAPES: Mapping[str, Shape] = {
    "APIService": _kind(status=_CONDITIONS),
    "CSINode": _kind(_of(drivers=_by("name"))),
    "ComponentStatus": _kind(conditions=_by("type")),
    "CronJob": _kind(_of(jobTemplate=_JOB_TEMPLATE)),
    "DaemonSet": _WORKLOAD,
    "Deployment": _WORKLOAD,
    "Job": _WORKLOAD,
    "MutatingWebhookConfiguration": _WEBHOOKS,
    "Namespace": _kind(status=_CONDITIONS),
    "Node": _kind(_of(podCIDRs=_SET), _of(addresses=_by("type"), conditions=_by("type"))),
    "PersistentVolumeClaim": _kind(status=_CONDITIONS),
    "Pod": _kind(
        _POD_SPEC,
        _of(conditions=_by("type"), hostIPs=_by("ip"), podIPs=_by("ip"), resourceClaimStatuses=_by("name")),
    ),
    "PodDisruptionBudget": _kind(status=_CONDITIONS),
    "PodTemplate": _kind(template=_POD_TEMPLATE),
    "ReplicaSet": _WORKLOAD,
    "ReplicationController": _WORKLOAD,
    "Service": _kind(_of(ports=_by("port")), _CONDITIONS),
    "ServiceAccount": _kind(secrets=_by("name")),
    "StatefulSet": _WORKLOAD,
    "ValidatingWebhookConfiguration": _WEBHOOKS,
}
_ANY_KIND = _kind()


def strategic_merge(document: dict[str, Any], patch: Any, kind: str) -> dict[str, Any]:
    """
    The object of this kind after the patch; neither argument is changed, but the result shares parts with both.

    Raises StrategicPatchError.
    """
    if not isinstance(patch, dict):
        raise StrategicPatchError("the patch is no object")
    return _merge_map(document, patch, SHAPES.get(kind, _ANY_KIND))


def _merge_map(original: dict[str, Any], patch: dict[str, Any], shape: Shape) -> dict[str, Any]:
    if PATCH in patch:
        return _replaced(patch)
    merged = _retain(original, patch)
    ordered = {key[len(SET_ORDER) :] for key in patch if key.startswith(SET_ORDER)}
    for key in ordered:
        _merge_ordered(merged, key, patch, shape.fields.get(key, _PLAIN))
    for key, value in patch.items():
        if key.startswith(DELETE_FROM):
            _delete_from(merged, key[len(DELETE_FROM) :], value)
        elif key != RETAIN_KEYS and not key.startswith(SET_ORDER) and key not in ordered:
            _merge_field(merged, key, value, shape.fields.get(key, _PLAIN))
    return merged


def _replaced(patch: dict[str, Any]) -> dict[str, Any]:
    if patch[PATCH] == "replace":
        replacement: dict[str, Any] = _fresh(patch)
        return replacement
    if patch[PATCH] == "delete":
        return {}
    raise StrategicPatchError(f"{PATCH} in an object is replace or delete, not {patch[PATCH]!r}")


def _retain(original: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """
    A copy of the original with nothing but the fields that ``$retainKeys`` names, when it is there.
    """
    if RETAIN_KEYS not in patch:
        return dict(original)
    kept = patch[RETAIN_KEYS]
    if not isinstance(kept, list):
        raise StrategicPatchError(f"{RETAIN_KEYS} is no list")
    for key, value in patch.items():
        if value is not None and key not in kept and key != RETAIN_KEYS and not key.startswith((SET_ORDER, DELETE_FROM)):
            raise StrategicPatchError(f"{key!r} is patched, but not in {RETAIN_KEYS}")
    return {key: value for key, value in original.items() if key in kept}


def _merge_field(merged: dict[str, Any], key: str, value: Any, shape: Shape) -> None:
    if value is None:
        merged.pop(key, None)
        return
    present = merged.get(key)
    if isinstance(present, dict) and isinstance(value, dict):
        merged[key] = _merge_map(present, value, shape)
    elif isinstance(present, list) and isinstance(value, list):
        merged[key] = _merge_list(present, value, shape)
    else:
        merged[key] = _fresh(value)


def _fresh(value: Any) -> Any:
    """
    What a patch adds where nothing was: without its directives and nulls.
    """
    if isinstance(value, dict):
        return {key: _fresh(item) for key, item in value.items() if item is not None and not _is_directive(key)}
    if isinstance(value, list):
        return [_fresh(item) for item in value if not (isinstance(item, dict) and PATCH in item)]
    return value


def _is_directive(key: str) -> bool:
    return key in (PATCH, RETAIN_KEYS) or key.startswith((SET_ORDER, DELETE_FROM))


def _delete_from(merged: dict[str, Any], key: str, values: Any) -> None:
    if not isinstance(values, list):
        raise StrategicPatchError(f"{DELETE_FROM}{key} is no list")
    present = merged.get(key)
    if isinstance(present, list):
        merged[key] = [item for item in present if not any(equal(item, value) for value in values)]


def _merge_list(original: list[Any], patch: list[Any], shape: Shape) -> list[Any]:
    if shape.key is None:
        return [_fresh(item) for item in patch]
    if not original and not patch:
        return []
    identity = _identity(shape.key)
    if shape.key:
        original, patch, replace = _apply_list_directives(original, patch, shape.key)
        if replace:
            return [_fresh(item) for item in patch]
    merged = _join(original, patch, shape, identity)
    return _in_order(merged, [identity(item) for item in patch], [identity(item) for item in original], identity)


def _identity(key: str) -> Callable[[Any], Any]:
    """
    What tells the items of a list apart: the value of their merge key, or they themselves.
    """

    def value_of(item: Any) -> Any:
        if not key:
            value = item
        elif isinstance(item, dict) and key in item:
            value = item[key]
        else:
            raise StrategicPatchError(f"an item of a list lacks its merge key {key!r}")
        if isinstance(value, (dict, list)):
            raise StrategicPatchError("an item of a list is told apart by something that is no scalar")
        return isinstance(value, bool), value

    return value_of


def _apply_list_directives(original: list[Any], patch: list[Any], key: str) -> tuple[list[Any], list[Any], bool]:
    """
    The original without the items that the patch deletes, the patch without directives, and whether it replaces the list.
    """
    rest: list[Any] = []
    replace = False
    for item in patch:
        directive = item.get(PATCH) if isinstance(item, dict) else None
        if directive is None:
            rest.append(item)
        elif directive == "replace":
            replace = True
        elif directive == "delete":
            gone = _identity(key)(item)
            original = [present for present in original if _identity(key)(present) != gone]
        else:
            raise StrategicPatchError(f"{PATCH} in a list is replace or delete, not {directive!r}")
    return original, rest, replace


def _join(original: list[Any], patch: list[Any], shape: Shape, identity: Callable[[Any], Any]) -> list[Any]:
    merged = {identity(item): item for item in original}
    for item in patch:
        key = identity(item)
        if shape.key and key in merged:
            merged[key] = _merge_map(merged[key], item, shape)
        else:
            merged[key] = _fresh(item)
    return list(merged.values())


def _in_order(merged: list[Any], wanted: list[Any], present: list[Any], identity: Callable[[Any], Any]) -> list[Any]:
    """
    Kubernetes' order: items of the patch as the patch has them, the others as they were, the two zipped so that an
    item of the original that stood before one of the patch still does.
    """
    patched = sorted((item for item in merged if identity(item) in wanted), key=lambda item: wanted.index(identity(item)))
    others = [item for item in merged if identity(item) not in wanted]
    ordered: list[Any] = []
    for item in patched:
        place = _place(present, identity(item))
        while others and _place(present, identity(others[0])) < place:
            ordered.append(others.pop(0))
        ordered.append(item)
    return ordered + others


def _place(present: list[Any], key: Any) -> int:
    """
    Where the original has an item; new ones stand before all.
    """
    return present.index(key) if key in present else -1


def _merge_ordered(merged: dict[str, Any], key: str, patch: dict[str, Any], shape: Shape) -> None:
    """
    Merge one list that has ``$setElementOrder`` and put it into that order.
    """
    order, value, present = patch[SET_ORDER + key], patch.get(key), merged.get(key)
    if not isinstance(order, list) or not isinstance(patch.get(key, order), list) or not isinstance(present, list | None):
        raise StrategicPatchError(f"{SET_ORDER}{key} and what it orders are no lists")
    if value is None and present is None:
        return
    identity = _identity(shape.key or "")
    wanted = [identity(item) for item in order]
    patched = [identity(item) for item in value or () if not (isinstance(item, dict) and PATCH in item)]
    if wanted and patched != [item for item in wanted if item in patched]:
        raise StrategicPatchError(f"the items of {key!r} do not follow {SET_ORDER}{key}")
    if present is None:
        items = _fresh(value)
    else:
        items = present if value is None else _merge_list(present, value, shape)
    merged[key] = _in_order(items, wanted, [identity(item) for item in present or ()], identity)
