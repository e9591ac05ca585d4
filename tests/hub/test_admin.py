"""
Tests of the hub's admin pages.
"""

import json
from collections.abc import Mapping

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.web_client import exchange, get
from yurt.hub.admin import admin_site
from yurt.metrics import new_registry


class SampleState:
    """
    A hub's state as the test wants it.
    """

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.missing: list[str] = []
        self.pod_list: bytes | None = None

    def readiness(self) -> list[str]:
        return self.reasons

    def warnings(self) -> list[str]:
        return self.missing

    def status(self) -> Deferred[Mapping[str, object]]:
        return succeed(self.state)

    state: Mapping[str, object] = {"node": "n1", "servers": [{"url": "https://a:6443", "healthy": True}]}

    def pods(self) -> bytes | None:
        return self.pod_list


class AdminTests(SynchronousTestCase):
    """
    Tests of admin_site.
    """

    def setUp(self) -> None:
        self.state = SampleState()
        self.site = admin_site(self.state, new_registry())

    def test_health(self) -> None:
        """
        The health page says OK whatever else is wrong: it shows that the event loop turns.
        """
        self.state.reasons = ["no disk"]
        status, _, body = get(self.site, "/v1/healthz")
        self.assertEqual((status, body), (200, b"OK"))

    def test_ready(self) -> None:
        """
        A ready hub is 200 without reasons, whatever it warns of.
        """
        self.state.missing = ["no serving certificate"]
        status, headers, body = get(self.site, "/v1/readyz")
        self.assertEqual((status, json.loads(body)), (200, {"ready": True, "reasons": [], "warnings": self.state.missing}))
        self.assertEqual(headers[b"content-type"], b"application/json")

    def test_not_ready(self) -> None:
        """
        A hub that lacks something is 503 and names each thing.
        """
        self.state.reasons = ["cache: disk full", "link yurthub-dummy0: operation not permitted"]
        status, _, body = get(self.site, "/v1/readyz")
        self.assertEqual((status, json.loads(body)), (503, {"ready": False, "reasons": self.state.reasons, "warnings": []}))

    def test_status(self) -> None:
        """
        The status page is the state as JSON.
        """
        self.assertEqual(json.loads(get(self.site, "/v1/status")[2]), self.state.state)

    def test_metrics(self) -> None:
        """
        The metrics page shows the registry.
        """
        self.assertIn(b"process_open_fds", get(self.site, "/metrics")[2])

    def test_pods(self) -> None:
        """
        The pods go out as they are; before kubelet listed any, the answer is a Status and no empty list.
        """
        status, headers, body = get(self.site, "/pods")
        self.assertEqual((status, json.loads(body)["kind"], headers[b"content-type"]), (503, "Status", b"application/json"))
        self.state.pod_list = b'{"kind":"PodList","apiVersion":"v1","items":[]}'
        self.assertEqual(get(self.site, "/pods")[::2], (200, self.state.pod_list))

    def test_token_from_elsewhere(self) -> None:
        """
        A token is not taken from another machine, and there is no page for it where nobody takes one.
        """
        request = b"POST /v1/token HTTP/1.1\r\nHost: admin\r\nContent-Length: 2\r\n\r\n{}"
        taken: list[str] = []
        answer, _ = exchange(admin_site(self.state, new_registry(), taken.append), request)
        self.assertTrue(answer.startswith(b"HTTP/1.1 403 "), answer)
        self.assertIn(b"from this machine only", answer)
        self.assertEqual(taken, [])
        answer, _ = exchange(self.site, request)
        self.assertTrue(answer.startswith(b"HTTP/1.1 404 "), answer)
