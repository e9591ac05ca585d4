"""
Tests of the time of day on machines whose clock may be wrong.
"""

from __future__ import annotations

import time
from functools import partial

import msgspec
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.hub.site import POD_ADDRESS, config_map
from tests.hub.test_identity import Rows
from tests.hub.test_reads import MAPS, HubCase
from yurt.http.interfaces import Headers
from yurt.hub import service
from yurt.hub.documents import JWKS_PATH
from yurt.hub.knowntime import KEEP_INTERVAL, KnownTime

TRUE_TIME = 1_800_000_000.0
HOUR = 3600.0


def date(seconds: float) -> Headers:
    """
    The header fields of an answer given then.
    """
    return [(b"Date", time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(seconds)).encode())]


class KnownTimeTests(SynchronousTestCase):
    """
    Tests of KnownTime, with a clock of the machine that stands ``self.off`` seconds from the truth.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.rows = Rows()
        self.off = 0.0
        self.time = self.boot()

    @property
    def true_time(self) -> float:
        return TRUE_TIME + self.clock.seconds()

    def boot(self) -> KnownTime:
        """
        A hub started on a machine that has just started, or not.
        """
        at = self.clock.seconds()
        made = KnownTime(self.clock, self.rows, lambda: self.true_time + self.off, lambda: self.clock.seconds() - at)
        made.start()
        self.addCleanup(made.stop)
        return made

    def test_nothing_known(self) -> None:
        """
        Before the cloud has said anything the machine's clock holds, and nothing is written down.
        """
        self.off = -TRUE_TIME
        self.assertEqual(self.time(), 0.0)
        self.time.keep()
        self.assertEqual((self.rows, self.time.problem), ({}, ""))

    def test_clock_behind(self) -> None:
        """
        What the cloud said holds, and goes on by itself; until the clock is put right.
        """
        self.off = -HOUR
        self.time.told(date(self.true_time))
        self.clock.advance(100)
        self.assertEqual(self.time(), self.true_time)
        self.assertIn("3600 s behind", self.time.problem)
        self.off = 1.0
        self.assertEqual((self.time(), self.time.problem), (self.true_time + 1, ""))

    def test_clock_ahead(self) -> None:
        """
        The later time holds, so that no token is valid for too long, and what that means is told.
        """
        self.off = HOUR
        self.time.told(date(self.true_time))
        self.assertEqual(self.time(), self.true_time + HOUR)
        self.assertIn("3600 s ahead", self.time.problem)

    def test_reboot(self) -> None:
        """
        After a reboot without the cloud no more is lacking than the time since the last write, and that for which the machine was
        off.
        """
        self.time.told(date(self.true_time))
        self.clock.pump([KEEP_INTERVAL] * 10 + [1])
        kept = 10 * KEEP_INTERVAL + TRUE_TIME
        self.off = -self.true_time
        again = self.boot()
        self.assertEqual(again(), kept)
        self.clock.advance(HOUR)
        self.assertEqual(again(), kept + HOUR)
        self.assertIn("behind the cloud's", again.problem)

    def test_off_for_long(self) -> None:
        """
        What was known before says nothing against a clock that has gone on.
        """
        self.time.told(date(self.true_time))
        self.time.stop()
        self.clock.advance(1000 * HOUR)
        again = self.boot()
        self.assertEqual((again(), again.problem), (self.true_time, ""))

    def test_clean_stop(self) -> None:
        """
        A hub that stops writes down what it knows, also what it heard before its own start.
        """
        self.time.told(date(self.true_time))
        for _ in range(3):
            self.clock.advance(100)
            self.time.stop()
            self.time = self.boot()
        self.off = -TRUE_TIME
        self.assertEqual(self.time(), TRUE_TIME + 300)

    def test_cloud_corrects_itself(self) -> None:
        """
        A server with a wrong clock spoils nothing for ever; nor do dates that are none, or damaged records.
        """
        self.time.told(date(self.true_time + 1e6))
        self.time.told(date(self.true_time))
        wrong: list[Headers] = [[], [(b"Date", b"yesterday")], [(b"Date", b"\xff")], [(b"Date", b"")]]
        for headers in wrong:
            self.time.told(headers)
        self.assertEqual(self.time(), self.true_time)
        self.rows[b"time"] = b"\x00soon"
        self.assertEqual(self.boot()(), self.true_time)


class RebootTests(HubCase):
    """
    A node without a clock reboots without the cloud.
    """

    async def test_token_is_not_of_the_future(self) -> None:
        """
        A good token that the cloud never saw counts though the machine believes that it is 1970, and the hub says what is wrong
        with the clock.
        """
        site = await self.site_with(config_map("a"))
        token, _ = site.api.issuer.sign("default", {"name": "p", "namespace": "default", "uid": "u"}, now=time.time())
        await site.get(JWKS_PATH)
        await site.offline()
        await site.stop()
        self.patch(service, "KnownTime", partial(KnownTime, wall=lambda: 1000.0))
        site.start()
        reply = await site.get(MAPS, token=token, address=POD_ADDRESS)
        self.assert_failure(reply, 503, "ServiceUnavailable")
        page = msgspec.json.decode((await site.admin("/v1/readyz")).body)
        self.assertIn("behind the cloud's", str(page["warnings"]))

    async def test_token_answers_do_not_live_on(self) -> None:
        """
        A kept token that has expired is not given out by a machine that believes that it is 1970.
        """
        site = await self.site_with(config_map("a"))
        site.api.put("serviceaccounts", {"metadata": {"name": "p"}})
        path = "/api/v1/namespaces/default/serviceaccounts/p/token"
        body = {"spec": {"expirationSeconds": 600}}
        self.assertEqual((await site.ask("POST", path, body)).status, 201)
        await site.offline()
        self.assertEqual((await site.ask("POST", path, body)).status, 201)
        await site.stop()
        await site.hang_up()  # a POST is not sent again where its connection turns out to be closed
        self.patch(service, "KnownTime", partial(KnownTime, wall=lambda: 1000.0, steady=lambda: 700.0))
        site.start()
        self.assertEqual((await site.ask("POST", path, body)).status, 201)
        site.service.time.told(date(time.time() + 700))
        self.assertEqual((await site.ask("POST", path, body)).status, 503)
