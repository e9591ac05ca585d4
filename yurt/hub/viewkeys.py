"""
What a list or a watch asks of the views.
"""

from __future__ import annotations

from yurt.hub.cache.views import Caller, ViewKey
from yurt.kube.objects import is_newer
from yurt.kube.requestinfo import RequestInfo


def view_key(caller: Caller, info: RequestInfo, form: str) -> ViewKey:
    """
    The view that a list or watch of ``caller`` fills.
    """
    return ViewKey(caller, info.gvr, form, info.namespace, info.label_selector, info.field_selector)


def is_too_old(resource_version: str, info: RequestInfo) -> bool:
    """
    Whether a state of that version is older than a list or watch wants it to be.
    """
    asked = info.query.get("resourceVersion", "")
    return asked.isdecimal() and is_newer(asked, resource_version)
