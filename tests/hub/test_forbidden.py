"""
Tests of what the cache forgets when the cloud forbids it to a caller.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import MAPS, MemorySite, config_map
from yurt.kube.status import status_body

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
FORBIDDEN = status_body(403, "Forbidden", 'configmaps is forbidden: User "somebody" cannot list resource "configmaps"')


class ForbiddenTests(SynchronousTestCase):
    """
    Rights that are taken away.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()

    def fill(self, **options: Any) -> None:
        """
        Lists of one namespace and of all, in two forms, and an object.
        """
        self.site.store_list(MAPS, [config_map("a", 7)], "10", **options)
        self.site.store_list("/api/v1/configmaps", [config_map("a", 7)], "10", **options)
        self.site.store_list("/api/v1/secrets", [], "10", "SecretList", **options)
        request = self.site.ask("GET", MAPS, **options, accept=TABLE)
        row = {"cells": ["a"], "object": {"kind": "PartialObjectMetadata", **config_map("a", 7)}}
        meta = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": "10"}}
        self.site.arriving(MAPS).answer(200, {**meta, "columnDefinitions": [{"name": "Name"}], "rows": [row]})
        self.assertEqual(request.status, 200)
        self.site.ask("GET", f"{MAPS}/a", **options)
        self.site.arriving(f"{MAPS}/a").answer(200, config_map("a", 7))

    def refuse(self, path: str, body: Any, **options: Any) -> None:
        """
        The cloud answers 403.
        """
        request = self.site.ask("GET", path, **options)
        self.site.arriving(path).answer(403, body)
        self.assertEqual(request.status, 403)

    def offline(self, path: str, **options: Any) -> int:
        """
        What the caller gets without the cloud.
        """
        return self.site.fetch("GET", path, **options).status

    def test_list(self) -> None:
        """
        A list that the cloud forbids to the caller of a token is not read without the cloud either, in no form and from no wider
        list; all other views stay, and the next list that is allowed is kept again.
        """
        for token in ("one", "two"):
            self.fill(token=token)
        self.refuse(MAPS, FORBIDDEN, token="one")
        self.site.offline()
        self.assertEqual((self.offline(MAPS, token="one"), self.offline(MAPS, token="one", accept=TABLE)), (503, 503))
        self.assertEqual((self.offline("/api/v1/configmaps", token="one"), self.offline(f"{MAPS}/a", token="one")), (503, 200))
        self.assertEqual((self.offline("/api/v1/secrets", token="one"), self.offline(MAPS, token="two")), (200, 200))
        self.site.reboot()
        self.site.offline()
        self.assertEqual((self.offline(MAPS, token="one"), self.offline(MAPS, token="two")), (503, 200))
        self.site.online()
        self.site.store_list(MAPS, [config_map("a", 7)], "12", token="one")
        self.site.offline()
        self.assertEqual(self.offline(MAPS, token="one"), 200)

    def test_object(self) -> None:
        """
        An object that the cloud forbids is not read, whatever lists hold it, until the cloud gives it again.
        """
        self.fill(token="one")
        self.refuse(f"{MAPS}/a", FORBIDDEN, token="one")
        self.site.offline()
        self.assertEqual((self.offline(f"{MAPS}/a", token="one"), self.offline(MAPS, token="one")), (503, 200))
        self.site.online()
        self.site.store_list(MAPS, [config_map("a", 7)], "12", token="one")
        self.site.offline()
        self.assertEqual(self.offline(f"{MAPS}/a", token="one"), 503)
        self.site.online()
        self.site.ask("GET", f"{MAPS}/a", token="one")
        self.site.arriving(f"{MAPS}/a").answer(200, config_map("a", 7))
        self.site.offline()
        self.assertEqual(self.offline(f"{MAPS}/a", token="one"), 200)

    def test_strangers_words(self) -> None:
        """
        A 403 that no API server has given changes nothing.
        """
        self.fill(token="one")
        for body in (b"{}", b"[", status_body(403, "Other", "by somebody on the way")):
            self.refuse(MAPS, body, token="one")
            self.refuse(f"{MAPS}/a", body, token="one")
        self.site.offline()
        self.assertEqual((self.offline(MAPS, token="one"), self.offline(f"{MAPS}/a", token="one")), (200, 200))

    def test_node(self) -> None:
        """
        The node's own components keep what they have: an API server whose RBAC is not loaded yet refuses them, too.
        """
        self.fill()
        self.refuse(MAPS, FORBIDDEN)
        self.refuse(f"{MAPS}/a", FORBIDDEN)
        self.site.offline()
        self.assertEqual((self.offline(MAPS), self.offline(f"{MAPS}/a")), (200, 200))
