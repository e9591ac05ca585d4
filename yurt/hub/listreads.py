"""
Cached lists: see :mod:`yurt.hub.reads`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from yurt.http.interfaces import ResponseHead
from yurt.hub.answers import answer_too_large
from yurt.hub.cache.views import LIST_STEP, FoundList, ViewKey
from yurt.hub.reads import Read
from yurt.hub.viewkeys import is_too_old, view_key
from yurt.kube.listoptions import find_fault
from yurt.kube.objects import PARTIAL, TABLE, ObjectError, split_list_in_steps
from yurt.kube.selectors import SelectorError
from yurt.kube.status import read_failure

if TYPE_CHECKING:
    from yurt.hub.cloud import Server
    from yurt.hub.turns import Steps


class _RowObject(msgspec.Struct):
    kind: str = ""


class _Row(msgspec.Struct):
    object: _RowObject = msgspec.field(default_factory=_RowObject)


class _Rows(msgspec.Struct):
    rows: list[_Row] = []


_decode_rows = msgspec.json.Decoder(_Rows).decode


class ListRead(Read):
    """
    LIST of a collection.
    """

    known_versions: Mapping[str, str] = {}
    """How far the views in question were, by their forms, when the list was asked for."""
    newest_known = ""
    """The resourceVersion of a view that is older than the list is to be."""

    def send(self, server: Server) -> None:
        """
        Events may overtake the list on its way.
        """
        forms = self.accept.forms
        views = ((form, self.hub.views.view(view_key(self.caller, self.info, form))) for form in forms)
        self.known_versions = {form: view.resource_version for form, view in views if view is not None}
        super().send(server)

    def answer_from_cache(self) -> bool:
        """
        As for any read; a continue token of the cloud cannot be honoured, the client begins anew.
        """
        fault = None if self.finished else find_fault(self.info.query, watch=False)
        if fault is not None:
            self.answer_status(fault.code, fault.reason, f"{self.describe()}: {fault.message}")
            return True
        if self.info.query.get("continue") and not self.finished:
            message = f"{self.describe()}: the list cannot go on from the cache; begin it anew without the continue token"
            self.answer_status(410, "Expired", message, retry_after=None)
            return True
        if super().answer_from_cache():
            return True
        if self.newest_known:
            self.series.from_hub += 1
            answer_too_large(self.request, self.info.query["resourceVersion"], self.newest_known, self.details)
            self.done()
        return self.finished

    def answer_form(self, form: str) -> bool:
        """
        The list that a complete view yields.
        """
        try:
            found: FoundList | None = self.hub.views.read_list(view_key(self.caller, self.info, form))
        except SelectorError as error:
            self.answer_status(400, "BadRequest", f"{self.describe()}: {error}")
            return True
        if found is None:
            return False
        if self.wants_another_state(found.resource_version):
            return False
        if is_too_old(found.resource_version, self.info):
            self.newest_known = found.resource_version
            return False
        if form == TABLE and self.lacks_objects(found.body):
            self.unseen = (
                "the cache holds only the metadata of these objects: nobody listed them with --sort-by while it was there"
            )
            return False
        self.respond_cached(self.shown_now(found.body, form), found.stored_at)
        return True

    def wants_another_state(self, resource_version: str) -> bool:
        """
        Whether the list is asked for as it was at exactly one version, and that is not the cache's.
        """
        query = self.info.query
        return query.get("resourceVersionMatch") == "Exact" and query.get("resourceVersion") != resource_version

    def lacks_objects(self, table: bytes) -> bool:
        """
        Whether the rows of a Table are to hold whole objects (as for ``kubectl get --sort-by``), and the cache's do not.
        """
        if self.info.query.get("includeObject") != "Object":
            return False
        return any(row.object.kind == PARTIAL for row in _decode_rows(table).rows)

    @property
    def about(self) -> ViewKey:
        """
        The view in question.
        """
        return view_key(self.caller, self.info, "")

    def store(self, head: ResponseHead, body: bytes) -> Steps:
        """
        A page; with the last one the view is complete.
        """
        if self.is_unserved(head):
            self.forget_resource()
            return
        if head.status == 403:
            if read_failure(body).reason == "Forbidden" and self.hub.views.forbid_list(self.about):
                self.log.info("{what}: forbidden to {who} now, and forgotten", what=self.describe(), who=self.caller.identity)
            return
        try:
            parts = yield from split_list_in_steps(body, LIST_STEP)
        except ObjectError as error:
            self.log.debug("not cached: {what}: {error}", what=self.describe(), error=str(error))
            return
        whole = self.hub.open_lists.add(self.caller, self.info, parts, self.known_versions.get(parts.form, ""))
        if whole is not None:
            key = view_key(self.caller, self.info, parts.form)
            yield from self.hub.views.store_list_in_steps(
                key, whole.parts, requested_version=whole.requested_version, known_version=whole.known_version
            )
