"""
Promises about who may do what to which node.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.tunnel.server.edge import FakeApi
from yurt.kube.api import ApiError
from yurt.tunnel.server.authentication import MACHINE, Caller
from yurt.tunnel.server.authorisation import Access, Authoriser, access_of, path_class
from yurt.tunnel.server.routing import Refused

JANE = Caller("jane", ("ops",), "7", {"scopes": ("a",)})
READ = Access("get")


class AccessTests(SynchronousTestCase):
    """
    What a request does to a node.
    """

    def test_verbs(self) -> None:
        """
        Methods are the verbs that a kubelet makes of them; others are not passed on.
        """
        for method, verb in (
            ("GET", "get"),
            ("HEAD", "get"),
            ("POST", "create"),
            ("PUT", "update"),
            ("PATCH", "patch"),
            ("DELETE", "delete"),
        ):
            self.assertEqual(access_of(method.encode(), b"/pods"), Access(verb), method)
        for method in ("TRACE", "PROPFIND", "get"):
            self.assertEqual(self.assertRaises(Refused, access_of, method.encode(), b"/pods").status, 405)

    def test_commands(self) -> None:
        """
        What reaches into a pod is "create" by any method and in any spelling that a server might take for the same path.
        """
        for target in (
            b"/exec/ns/pod/c?command=id", b"/attach/ns/pod/c", b"/portForward/ns/pod", b"/run/ns/pod/c", b"/cri/exec/token",
            b"//exec/ns/pod/c", b"/./exec/x", b"/%65xec/ns/pod/c", b"/EXEC/ns/pod/c", b"/pods/../exec/ns/pod/c",
            b"/metrics/%2e%2e/exec/ns/pod/c", b"/metrics%2f..%2fexec", b"/%2Fexec/ns/pod/c",
        ):  # fmt: skip
            self.assertEqual(access_of(b"GET", target), Access("create"), target)

    def test_own_subresources(self) -> None:
        """
        What a kubelet allows by a subresource of its own may be allowed by that, when read at its plain path.
        """
        for target, own in (
            (b"/metrics", "metrics"), (b"/metrics/cadvisor", "metrics"), (b"/stats/summary?only=1", "stats"),
            (b"/logs/", "log"), (b"/spec/", "spec"),
        ):  # fmt: skip
            self.assertEqual(access_of(b"GET", target), Access("get", (own, "proxy")), target)
        for method, target in (
            (b"POST", b"/stats/summary"),
            (b"GET", b"//metrics"),
            (b"GET", b"/metricsx"),
            (b"GET", b"/metrics/%41"),
        ):
            self.assertEqual(access_of(method, target).subresources, ("proxy",), target)

    def test_path_classes(self) -> None:
        """
        Metrics tell a kubelet's paths apart, and take all others for one.
        """
        for target, name in (
            (b"/exec/a/b/c", b"exec"),
            (b"/metrics?x=1", b"metrics"),
            (b"/" + b"a" * 99, b"other"),
            (b"*", b"other"),
        ):
            self.assertEqual(path_class(target), name)


class AuthoriserTests(SynchronousTestCase):
    """
    Tests of Authoriser.
    """

    def setUp(self) -> None:
        self.clock, self.api = Clock(), FakeApi()
        self.authoriser = Authoriser(self.clock, self.api, frozenset({"prometheus"}))

    def check(self, caller: Caller = JANE, node: str = "edge-1", access: Access = READ) -> Deferred[None]:
        """
        Ask.
        """
        return Deferred.fromCoroutine(self.authoriser.check(caller, node, access))

    def refused(self, *args: Any) -> Refused:
        """
        Why not.
        """
        error = self.failureResultOf(self.check(*args), Refused).value
        assert isinstance(error, Refused)
        return error

    def test_nobody_is_asked(self) -> None:
        """
        The machine itself and the names that the operator gave may do all.
        """
        for caller in (MACHINE, Caller("prometheus")):
            self.successResultOf(self.check(caller))
        self.assertEqual(self.api.asked, [])

    def test_review(self) -> None:
        """
        The review says who, in all that is known, what, and which node; a yes holds for a minute.
        """
        self.api.allowed = lambda spec: True
        for _ in range(2):
            self.successResultOf(self.check())
        attributes = {"verb": "get", "version": "v1", "resource": "nodes", "subresource": "proxy", "name": "edge-1"}
        spec = {"user": "jane", "groups": ["ops"], "uid": "7", "extra": {"scopes": ["a"]}, "resourceAttributes": attributes}
        self.assertEqual([asked["spec"] for asked in self.api.asked], [spec])
        self.api.allowed = lambda spec: False
        self.clock.advance(60)
        self.refused()

    def test_answers_are_not_mixed(self) -> None:
        """
        A yes for one node, verb, user, group or scope is none for another.
        """
        self.api.allowed = lambda spec: spec == self.api.asked[0]["spec"]
        self.successResultOf(self.check())
        for caller, node, access in (
            (JANE, "edge-2", READ),
            (JANE, "", READ),
            (JANE, "edge-1", Access("create")),
            (Caller("john", ("ops",), "7", {"scopes": ("a",)}), "edge-1", READ),
            (Caller("jane", ("dev",), "7", {"scopes": ("a",)}), "edge-1", READ),
            (Caller("jane", ("ops",), "7", {"scopes": ("b",)}), "edge-1", READ),
        ):
            self.assertEqual(self.refused(caller, node, access).status, 403)

    def test_one_of_two(self) -> None:
        """
        Of two subresources one is enough; the message of a refusal names the one that always is.
        """
        both = Access("get", ("metrics", "proxy"))
        for subresource in both.subresources:
            self.api.allowed = partial(self.allows, subresource)
            self.successResultOf(self.check(JANE, f"edge-{subresource}", both))
        self.api.allowed = partial(self.allows, "spec")
        self.assertIn('"nodes/proxy"', self.refused(JANE, "edge-2", both).message)

    def allows(self, subresource: str, spec: dict[str, Any]) -> bool:
        """
        Whether a review asks for this subresource.
        """
        return bool(spec["resourceAttributes"]["subresource"] == subresource)

    def test_no_answer(self) -> None:
        """
        Without an answer of the API server nobody may do anything, and it is asked again the next time.
        """
        self.api.error = ApiError(500, "InternalError", "etcd is gone")
        error = self.refused()
        self.assertEqual(error.status, 503)
        self.assertIn("etcd is gone", error.message)
        self.api.error, self.api.allowed = None, lambda spec: True
        self.successResultOf(self.check())

    def test_without_cluster(self) -> None:
        """
        Without an API server the operator's names are all there is.
        """
        self.authoriser = Authoriser(self.clock, None, frozenset({"prometheus"}))
        self.successResultOf(self.check(Caller("prometheus")))
        self.assertIn("--allowed-names", self.refused().message)
