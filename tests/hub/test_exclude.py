"""
Resources that are kept out of the cache.
"""

from __future__ import annotations

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import MAPS, MemorySite, config_map
from yurt.hub.exclude import Excluded, resources

SECRETS = "/api/v1/namespaces/default/secrets"
TOKEN = "/api/v1/namespaces/default/serviceaccounts/default/token"
PASSWORD = "correct-horse-battery-staple"
REQUEST = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {"audiences": ["a"]}}
ANSWER = {**REQUEST, "status": {"token": PASSWORD, "expirationTimestamp": "2033-01-01T00:00:00Z"}}


class EntriesTests(SynchronousTestCase):
    """
    Tests of what an entry covers.
    """

    def test_entries(self) -> None:
        """
        A bare name stands for every group, one with a group for that alone, a subresource for itself.
        """
        excluded = Excluded(resources("Secrets, ipamblocks.crd.projectcalico.org,serviceaccounts/token"))
        self.assertTrue(excluded.covers("", "secrets"))
        self.assertTrue(excluded.covers("other.example", "secrets"))
        self.assertTrue(excluded.covers_gvr("crd.projectcalico.org/v1/ipamblocks"))
        self.assertTrue(excluded.covers("", "serviceaccounts/token"))
        for group, resource in (("", "ipamblocks"), ("", "serviceaccounts"), ("", "configmaps")):
            self.assertFalse(excluded.covers(group, resource))
        self.assertFalse(Excluded().covers_gvr("/v1/secrets"))

    def test_refused(self) -> None:
        """
        What is no resource is refused with what to write.
        """
        for text in ("secrets/", "a b", "*", "/v1/secrets"):
            error = self.assertRaises(ValueError, resources, text)
            self.assertIn("write such as secrets", str(error))


class ExcludeTests(SynchronousTestCase):
    """
    Tests of a hub with --cache-exclude.
    """

    def secret(self, version: int = 1) -> dict[str, object]:
        """
        A Secret from the cloud.
        """
        return {**config_map("a", version, data={"password": PASSWORD}), "kind": "Secret"}

    def test_not_kept(self) -> None:
        """
        Reads of an excluded resource pass through and leave nothing behind; without the cloud the answer says why.
        """
        site = MemorySite(self, cache_exclude=("secrets",))
        site.online()
        site.store_list(SECRETS, [self.secret()], "10", kind="SecretList")
        site.store_list(MAPS, [config_map("m", 1)], "10")
        self.assertEqual([key.gvr for key, _ in site.hub.views.views()], ["/v1/configmaps"])
        site.offline()
        self.assertEqual(site.fetch("GET", MAPS).status, 200)
        for path in (SECRETS, f"{SECRETS}/a"):
            reply = site.fetch("GET", path)
            self.assertEqual(reply.status, 503)
            self.assertIn("secrets are not cached (see --cache-exclude)", reply.json["message"])
        self.assertNotIn("exclude", site.fetch("POST", SECRETS, self.secret()).json["message"])

    def test_tokens(self) -> None:
        """
        TokenRequests are kept unless they are excluded.
        """
        for excluded, status in (((), 201), (("serviceaccounts/token",), 503), (("secrets",), 201)):
            site = MemorySite(self, cache_exclude=excluded)
            site.online()
            site.ask("POST", TOKEN, REQUEST)
            site.arriving(TOKEN).answer(201, ANSWER)
            site.offline()
            self.assertEqual(site.fetch("POST", TOKEN, REQUEST).status, status, excluded)

    def test_at_rest(self) -> None:
        """
        What a hub keeps of Secrets, tokens and journalled writes with their credentials stands nowhere in its folder in clear.
        """
        site = MemorySite(self)
        site.online()
        site.store_list(SECRETS, [self.secret()], "10", kind="SecretList")
        site.ask("POST", TOKEN, REQUEST)
        site.arriving(TOKEN).answer(201, ANSWER)
        site.offline()
        event = {"kind": "Event", "apiVersion": "v1", "metadata": {"name": "e"}, "message": PASSWORD}
        self.assertEqual(site.fetch("POST", "/api/v1/namespaces/default/events", event).status, 201)
        site.reboot()
        self.assertIn(PASSWORD, json.dumps(site.fetch("GET", f"{SECRETS}/a").json))
        self.assertEqual((site.fetch("POST", TOKEN, REQUEST).status, len(site.hub.journal)), (201, 1))
        kept = b"".join(path.read_bytes() for path in Path(site.path).iterdir())
        self.assertNotIn(PASSWORD.encode(), kept)
