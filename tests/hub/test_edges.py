"""
Tests of small promises at the proxy's edges: who is on this machine, which headers tell the origin, and HEAD.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import JSON, MAPS, MemorySite


class EdgeTests(SynchronousTestCase):
    """
    Tests of a hub on a clock.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()

    def test_peer_elsewhere(self) -> None:
        """
        A caller that reaches the loopback door from elsewhere, by a rewritten packet, is not the node, for its Lease neither.
        """
        lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1"
        for target in (MAPS, f"{MAPS}?watch=true", lease):
            self.assertEqual(self.site.ask("GET", target, peer="10.244.0.7").status, 401, target)
        local = self.site.ask("GET", MAPS, peer="127.0.0.53")
        self.site.arriving(MAPS).answer(200, b"{}")
        self.assertEqual(local.status, 200)
        with_token = self.site.ask("GET", MAPS, peer="10.244.0.7", token="t")
        self.site.arriving(MAPS).answer(200, b"{}")
        self.assertEqual(with_token.status, 200)

    def test_source_of_another_hub(self) -> None:
        """
        Where the cloud's answer names an origin itself, the hub's word replaces it.
        """
        for target, path in ((MAPS, MAPS), (f"{MAPS}?watch=true", MAPS), ("/metrics", "/metrics")):
            request = self.site.ask("GET", target)
            self.site.arriving(path).answer(200, b"", [*JSON, (b"x-yurt-source", b"cache")])
            self.assertEqual(request.header("x-yurt-source"), "cloud", target)
            if not request.finished:
                request.hang_up()

    def test_head_of_documents(self) -> None:
        """
        HEAD of a document is answered without the cloud like GET of it, and its own answer is not kept.
        """
        head = self.site.ask("HEAD", "/version")
        self.site.arriving("/version").answer(200, b"")
        self.assertEqual(head.status, 200)
        self.site.offline()
        self.assertEqual(self.site.fetch("HEAD", "/version").status, 503)
        self.site.online()
        self.site.ask("GET", "/version")
        self.site.arriving("/version").answer(200, b'{"major":"1"}')
        self.site.offline()
        reply = self.site.fetch("HEAD", "/version")
        self.assertEqual((reply.status, reply.header("x-yurt-source")), (200, "cache"))

    def test_page_of_a_proxy(self) -> None:
        """
        A page that something on the way puts in a document's place is not kept as that document.
        """
        self.site.ask("GET", "/version")
        self.site.arriving("/version").answer(200, b'{"major":"1"}')
        page = self.site.ask("GET", "/version")
        self.site.arriving("/version").answer(200, b"<html>log in</html>", [(b"Content-Type", b"text/html")])
        self.assertEqual((page.status, page.data), (200, b"<html>log in</html>"))
        self.site.offline()
        self.assertEqual(self.site.fetch("GET", "/version").json, {"major": "1"})

    def test_no_http(self) -> None:
        """
        Where a server that lives gives one request no proper answer, its client is told what was wrong with it.
        """
        request = self.site.ask("GET", "/metrics")
        self.site.arriving("/metrics").fail("what it answered is no HTTP: Duplicate Content-Length")
        self.assertEqual((request.status, self.site.cloud.reachable), (503, True))
        self.assertIn("Duplicate Content-Length", request.json["message"])
