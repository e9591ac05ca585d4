"""
Tests of cached reads through a whole hub.
"""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.hub.site import Site, config_map, header, names, source

MAPS = "/api/v1/namespaces/default/configmaps"


class ReadTests(TestCase):
    """
    GET and LIST, with the cloud and without.
    """

    async def test_get(self) -> None:
        """
        What was read once is read again without the cloud, byte for byte, with its age and a warning.
        """
        site = Site(self)
        site.api.put("configmaps", config_map("one"))
        await site.start_online()
        online = await site.get(f"{MAPS}/one")
        self.assertEqual((online.status, source(online)), (200, "cloud"))
        await site.offline()
        offline = await site.get(f"{MAPS}/one")
        self.assertEqual((offline.status, source(offline)), (200, "cache"))
        self.assertEqual(offline.body, online.body)
        self.assertTrue(header(offline, "age").isdigit())
        self.assertIn("110", header(offline, "warning"))

    async def test_list(self) -> None:
        """
        A list, too.
        """
        site = Site(self)
        site.api.put("configmaps", config_map("one"))
        await site.start_online()
        online = await site.get(MAPS)
        await site.offline()
        offline = await site.get(MAPS)
        self.assertEqual((offline.status, source(offline), names(offline)), (200, "cache", ["one"]))
        self.assertEqual(offline.json["metadata"]["resourceVersion"], online.json["metadata"]["resourceVersion"])
