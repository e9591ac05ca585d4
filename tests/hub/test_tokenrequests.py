"""
Tests of TokenRequests, with the cloud and without, on a clock.
"""

from __future__ import annotations

import time
from typing import Any

import jwt
from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import NOW, MemoryRequest, MemorySite
from yurt.hub.tokenrequests import FAKE_KEY, FAKE_LIFETIME, MAX_TOKEN_REQUESTS, TokenAnswers
from yurt.kube.protobuf import MAGIC, encode_bytes

TOKENS = "/api/v1/namespaces/default/serviceaccounts/{}/token"
POD = {"kind": "Pod", "apiVersion": "v1", "name": "web", "uid": "uid-web"}


def asked(*audiences: str, bound: dict[str, str] | None = POD) -> dict[str, Any]:
    """
    A TokenRequest as kubelet makes it.
    """
    spec = {"audiences": list(audiences), "expirationSeconds": 3600, "boundObjectRef": bound}
    return {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": {}, "spec": spec}


def answer(token: str, seconds: float = 3600) -> dict[str, Any]:
    """
    The cloud's answer, of a token that is valid for so long after NOW.
    """
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW + seconds))
    return {**asked(), "status": {"token": token, "expirationTimestamp": until}}


class TokenTests(SynchronousTestCase):
    """
    Tests of the last real token.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()

    def give(self, token: str, body: Any, account: str = "default", seconds: float = 3600, **options: Any) -> MemoryRequest:
        """
        Let the cloud answer a request.
        """
        path = TOKENS.format(account)
        request = self.site.ask("POST", path, body, **options)
        self.site.arriving(path).answer(201, answer(token, seconds))
        self.assertEqual((request.status, request.header("x-yurt-source")), (201, "cloud"))
        return request

    def ask(self, body: Any, account: str = "default", **options: Any) -> MemoryRequest:
        """
        Ask without the cloud.
        """
        return self.site.fetch("POST", TOKENS.format(account), body, **options)

    def test_same_request(self) -> None:
        """
        The same service account, audiences (in any order) and bound object: the last real token.
        """
        self.give("first", asked("a", "b"))
        self.give("second", asked("a", "b"))
        self.site.offline()
        for body in (asked("a", "b"), asked("b", "a")):
            reply = self.ask(body)
            self.assertEqual((reply.status, reply.json["status"]["token"]), (201, "second"))
            self.assertEqual(reply.header("x-yurt-source"), "cache")
            self.assertTrue(reply.header("warning").startswith("110 "))
            self.assertIn(int(reply.header("age")), range(60))

    def test_protobuf(self) -> None:
        """
        The request may be in protobuf: audiences=1, boundObjectRef=3{kind=1, apiVersion=2, name=3, uid=4} of spec=2.
        """
        reference = b"".join(
            encode_bytes(number, value) for number, value in ((1, b"Pod"), (2, b"v1"), (3, b"web"), (4, b"uid-web"))
        )
        spec = encode_bytes(1, b"b") + encode_bytes(1, b"a") + encode_bytes(3, reference)
        type_meta = encode_bytes(1, b"authentication.k8s.io/v1") + encode_bytes(2, b"TokenRequest")
        body = MAGIC + encode_bytes(1, type_meta) + encode_bytes(2, encode_bytes(2, spec))
        self.give("real", asked("a", "b"))
        self.site.offline()
        media = "application/vnd.kubernetes.protobuf"
        reply = self.ask(body, content_type=media, accept=f"{media},application/json")
        self.assertEqual((reply.status, reply.json["status"]["token"]), (201, "real"))

    def test_other_requests(self) -> None:
        """
        Another account, audience, bound object or caller: 503, also when the cloud was cut in the middle of the request.
        """
        self.give("real", asked("a"))
        other_pod = {**POD, "uid": "uid-other"}
        self.site.offline()
        for body, account, options in (
            (asked("a"), "builder", {}),
            (asked("a", "b"), "default", {}),
            (asked(), "default", {}),
            (asked("a", bound=other_pod), "default", {}),
            (asked("a", bound=None), "default", {}),
            (asked("a"), "default", {"agent": "coredns"}),
            (b"nonsense", "default", {}),
        ):
            reply = self.ask(body, account, **options)
            self.assertEqual((reply.status, reply.json["reason"]), (503, "ServiceUnavailable"), (body, account))
        self.site.online()
        request = self.site.ask("POST", TOKENS.format("builder"), asked("a"))
        self.site.arriving(TOKENS.format("builder")).fail()
        self.site.run_until(lambda: request.finished)
        self.assertEqual(request.status, 503)

    def test_expiry(self) -> None:
        """
        A token that is no longer valid is not given out.
        """
        self.give("real", asked("a"), seconds=600)
        self.site.offline()
        self.assertEqual(self.ask(asked("a")).status, 201)
        self.site.run(600)
        self.assertEqual(self.ask(asked("a")).status, 503)

    def test_restart(self) -> None:
        """
        Tokens survive a restart of the hub.
        """
        self.give("real", asked("a"))
        self.site.reboot()
        self.site.offline()
        self.assertEqual(self.ask(asked("a")).json["status"]["token"], "real")

    def test_errors_are_not_kept(self) -> None:
        """
        A refusal of the cloud is passed on and forgotten.
        """
        self.give("real", asked("a"))
        request = self.site.ask("POST", TOKENS.format("default"), asked("a"))
        self.site.arriving(TOKENS.format("default")).answer(403, b'{"kind":"Status","code":403}')
        self.assertEqual((request.status, request.data), (403, b'{"kind":"Status","code":403}'))
        self.site.offline()
        self.assertEqual(self.ask(asked("a")).json["status"]["token"], "real")

    def test_load_balancer(self) -> None:
        """
        A load balancer's 503 is no reason to do without the token that is there.
        """
        self.give("real", asked("a"))
        request = self.site.ask("POST", TOKENS.format("default"), asked("a"))
        self.site.arriving(TOKENS.format("default")).answer(503, b"<html>")
        self.assertEqual((request.status, request.json["status"]["token"]), (201, "real"))

    def test_fake(self) -> None:
        """
        --offline-token fake: OpenYurt's made-up token where there is no real one.
        """
        site = MemorySite(self, offline_token="fake")
        site.online()
        site.offline()
        reply = site.fetch("POST", TOKENS.format("default"), asked("a"))
        self.assertEqual((reply.status, reply.header("x-yurt-source")), (201, "hub"))
        claims = jwt.decode(reply.json["status"]["token"], FAKE_KEY, algorithms=["HS256"], options={"verify_exp": False})
        self.assertEqual(claims["sub"], "system:serviceaccount:default:default")
        self.assertLess(abs(claims["exp"] - site.wall() - FAKE_LIFETIME), 2)


class BoundTests(SynchronousTestCase):
    """
    Tests of the number of answers that are kept.
    """

    def test_bound(self) -> None:
        """
        Expired answers go, and beyond MAX_TOKEN_REQUESTS those that expire first.
        """
        table = _Table()
        answers = TokenAnswers(table, lambda: NOW)

        def body(token: str, seconds: float) -> bytes:
            until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW + seconds))
            return b'{"status":{"token":"%b","expirationTimestamp":"%b"}}' % (token.encode(), until.encode())

        answers.keep(b"old", body("old", -1))
        self.assertEqual(table.rows, {})
        table.rows = {b"%d" % number: body("t", 100 + number) for number in range(MAX_TOKEN_REQUESTS)}
        answers.keep(b"new", body("new", 5000))
        self.assertEqual(len(table.rows), MAX_TOKEN_REQUESTS)
        self.assertNotIn(b"0", table.rows)
        self.assertEqual(answers.find(b"new"), body("new", 5000))


class _Table:
    """
    A table in memory.
    """

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self.rows[key] = value

    def delete(self, key: bytes) -> None:
        self.rows.pop(key, None)

    def scan(self, prefix: bytes) -> Any:
        return iter([(key, value) for key, value in sorted(self.rows.items()) if key.startswith(prefix)])
