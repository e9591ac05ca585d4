"""
Tests for :mod:`yurt.kube.api`.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.certs import make_ca
from tests.miniapi import MiniAPI
from tests.miniapi.memory import MemoryAPI, MemoryExchange
from yurt.http.interfaces import ResponseHead, UpstreamError
from yurt.kube.api import (
    CALL_TIMEOUT,
    MAX_ANSWER_BYTES,
    MAX_CONFLICTS,
    NO_ANSWER,
    TIMEOUT,
    TOO_LARGE,
    UNREADABLE,
    ApiClient,
    ApiError,
    Document,
    client_from_kubeconfig,
    target,
)
from yurt.kube.kubeconfig import Kubeconfig, KubeconfigError, load_kubeconfig
from yurt.kube.patch import JSON_PATCH
from yurt.kube.stream import BEGIN_TIMEOUT, MAX_REFUSAL_BYTES

MAPS = "/api/v1/namespaces/default/configmaps"
CA = make_ca("clients")

T = TypeVar("T")


class ApiCase(SynchronousTestCase):
    """
    A client on a clock, before an apiserver in memory.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = MemoryAPI(self.clock, CA)
        self.api = self.server.api
        headers = [(b"User-Agent", b"tests"), (b"Authorization", b"Bearer secret")]
        self.client = ApiClient(self.clock, self.server, lambda: headers)

    def run_until_idle(self) -> None:
        self.clock.pump([0.02] * 60)

    def ask(self, call: Coroutine[Any, Any, T]) -> T:
        """
        What a call returns.
        """
        calling = Deferred.fromCoroutine(call)
        self.run_until_idle()
        return self.successResultOf(calling)

    def refuse(self, call: Coroutine[Any, Any, Any]) -> ApiError:
        """
        How a call fails.
        """
        calling = Deferred.fromCoroutine(call)
        self.run_until_idle()
        error: ApiError = self.failureResultOf(calling, ApiError).value
        return error


class CallTests(ApiCase):
    """
    Tests of calls.
    """

    def test_life_of_an_object(self) -> None:
        """
        An object is created, read, patched, replaced and deleted, with the client's own header fields.
        """
        made = self.ask(self.client.create(MAPS, {"metadata": {"name": "a"}, "data": {"k": "1"}}))
        self.assertEqual(self.ask(self.client.get(f"{MAPS}/a")), made)
        patched = self.ask(self.client.patch(f"{MAPS}/a", {"data": {"k": "2"}}))
        self.assertEqual(patched["data"], {"k": "2"})
        replaced = self.ask(self.client.update(f"{MAPS}/a", {**patched, "data": {"k": "3"}}))
        self.assertEqual(replaced["data"], {"k": "3"})
        listed = self.ask(self.client.get(MAPS, {"fieldSelector": "metadata.name=a", "labelSelector": ""}))
        self.assertEqual(len(listed["items"]), 1)
        change = [{"op": "replace", "path": "/data/k", "value": "4"}]
        self.assertEqual(self.ask(self.client.patch(f"{MAPS}/a", change, JSON_PATCH))["data"], {"k": "4"})
        self.ask(self.client.delete(f"{MAPS}/a"))
        self.assertEqual(self.refuse(self.client.get(f"{MAPS}/a")).code, 404)
        for exchange in self.server.sent:
            self.assertIn((b"User-Agent", b"tests"), exchange.head.headers)
            self.assertIn((b"Accept", b"application/json"), exchange.head.headers)

    def test_preconditions(self) -> None:
        """
        Only the very object meant is deleted, and only as it was when it was looked at.
        """
        old = self.ask(self.client.create(MAPS, {"metadata": {"name": "a"}}))["metadata"]
        new = self.ask(self.client.patch(f"{MAPS}/a", {"data": {"k": "1"}}))["metadata"]
        self.assertEqual(self.refuse(self.client.delete(f"{MAPS}/a", uid="another")).code, 409)
        stale = self.refuse(self.client.delete(f"{MAPS}/a", uid=old["uid"], resource_version=old["resourceVersion"]))
        self.assertEqual((stale.code, stale.reason), (409, "Conflict"))
        self.ask(self.client.delete(f"{MAPS}/a", uid=new["uid"], resource_version=new["resourceVersion"]))
        self.assertEqual(self.refuse(self.client.get(f"{MAPS}/a")).reason, "NotFound")

    def test_refusal(self) -> None:
        """
        A refusal says what was asked, where, and what the server says; it never shows the credentials.
        """
        error = self.refuse(self.client.get(f"{MAPS}/a", {"resourceVersion": "0"}))
        self.assertEqual(str(error), f'GET {MAPS}/a: https://api.example:6443: 404 NotFound: configmaps "a" not found')
        self.assertEqual((error.code, error.reason, error.message, error.retry_after), (404, "NotFound", str(error), None))

    def test_load_balancer(self) -> None:
        """
        An error that is no Status, and one of a megabyte, are told in few words; Retry-After is read.
        """
        page = b"<html>" + b"x" * 1_000_000
        self.server.answer_always(503, page, [(b"Retry-After", b"7")])
        error = self.refuse(self.client.get(MAPS))
        self.assertEqual((error.code, error.reason, error.retry_after), (503, "ServiceUnavailable", 7.0))
        self.assertLess(len(str(error)), 200)
        status = {"kind": "Status", "code": 429, "reason": "TooManyRequests", "message": "m" * 100_000}
        self.server.answer_always(429, status, [(b"Retry-After", b"Thursday")])
        error = self.refuse(self.client.get(MAPS))
        self.assertEqual((error.reason, error.retry_after, len(str(error)) < 1000), ("TooManyRequests", None, True))

    def test_no_answer(self) -> None:
        """
        No connection, no answer in time, too long an answer and one that is no object each have a reason of their own.
        """
        self.server.refusing = True
        error = self.refuse(self.client.get(MAPS))
        self.assertEqual((error.code, error.reason, str(error)), (0, NO_ANSWER, f"GET {MAPS}: connection refused"))
        self.server.refusing, self.server.silent = False, True
        calling = Deferred.fromCoroutine(self.client.get(MAPS))
        self.clock.pump([1.0] * int(CALL_TIMEOUT + 1))
        self.assertEqual(self.failureResultOf(calling, ApiError).value.reason, TIMEOUT)
        self.assertEqual(self.server.open, [])
        self.server.silent = False
        for body, reason in ((b"x" * (MAX_ANSWER_BYTES + 1), TOO_LARGE), (b"[]", UNREADABLE), (b"\xff", UNREADABLE)):
            self.server.answer_always(200, body)
            error = self.refuse(self.client.get(MAPS))
            self.assertEqual((error.code, error.reason), (0, reason))

    def test_cancelled(self) -> None:
        """
        A call that nobody waits for any more is dropped.
        """
        calling = Deferred.fromCoroutine(self.client.get(MAPS))
        calling.cancel()
        self.failureResultOf(calling)
        self.assertEqual((self.server.open, self.clock.getDelayedCalls()[1:]), ([], []))

    def test_close(self) -> None:
        """
        Closed, it fails what is under way.
        """
        self.server.silent = True
        calling = Deferred.fromCoroutine(self.client.get(MAPS))
        self.client.close()
        self.assertEqual(self.failureResultOf(calling, ApiError).value.reason, NO_ANSWER)

    def test_target(self) -> None:
        """
        Query values are encoded, empty ones left out.
        """
        query = {"labelSelector": "a in (b)", "continue": ""}
        self.assertEqual(target("/api/v1/pods", query), b"/api/v1/pods?labelSelector=a+in+%28b%29")
        self.assertEqual(target("/api/v1/pods", {"continue": ""}), b"/api/v1/pods")


class EditTests(ApiCase):
    """
    Tests of edits under optimistic locking.
    """

    def add(self, key: str) -> Any:
        def change(found: Document | None) -> Document:
            document = found or {"metadata": {"name": "a"}}
            return {**document, "data": {**(document.get("data") or {}), key: "x"}}

        return change

    @property
    def data(self) -> dict[str, str]:
        data: dict[str, str] = self.api.get("configmaps", "a")["data"]
        return data

    def test_created_then_changed(self) -> None:
        """
        An object that is missing is created, one that is there changed; one that is right already is not written.
        """
        self.assertTrue(self.ask(self.client.edit(MAPS, "a", self.add("one"))))
        self.assertTrue(self.ask(self.client.edit(MAPS, "a", self.add("two"))))
        self.assertFalse(self.ask(self.client.edit(MAPS, "a", self.add("two"))))
        self.assertEqual((self.data, self.server.counts["update", "configmaps"]), ({"one": "x", "two": "x"}, 1))

    def test_left_alone(self) -> None:
        """
        Nothing is written when there is nothing to write.
        """
        self.assertFalse(self.ask(self.client.edit(MAPS, "a", lambda found: None)))
        self.assertEqual(self.server.counts["create", "configmaps"], 0)

    def test_at_the_same_time(self) -> None:
        """
        Of two that write one object at the same time neither's word is lost, whether it was there before or not.
        """
        both = [Deferred.fromCoroutine(self.client.edit(MAPS, "a", self.add(key))) for key in ("one", "two")]
        self.run_until_idle()
        self.assertEqual([self.successResultOf(one) for one in both], [True, True])
        both = [Deferred.fromCoroutine(self.client.edit(MAPS, "a", self.add(key))) for key in ("three", "four")]
        self.run_until_idle()
        self.assertEqual([self.successResultOf(one) for one in both], [True, True])
        self.assertEqual(set(self.data), {"one", "two", "three", "four"})

    def test_never_through(self) -> None:
        """
        An edit that meets others each time gives up after MAX_CONFLICTS attempts, with their conflict.
        """
        self.ask(self.client.edit(MAPS, "a", self.add("one")))
        count = 0

        def meddle(exchange: MemoryExchange) -> bool:
            nonlocal count
            if exchange.method == "PUT":
                count += 1
                self.api.put("configmaps", {"metadata": {"name": "a"}, "data": {"count": str(count)}})
            return False

        self.server.intercept = meddle
        error = self.refuse(self.client.edit(MAPS, "a", self.add("two")))
        self.assertEqual((error.code, count), (409, MAX_CONFLICTS))

    def test_other_errors(self) -> None:
        """
        Any other refusal ends an edit at once.
        """
        self.api.permits = lambda user, verb, call, path: verb == "get"
        self.assertEqual(self.refuse(self.client.edit(MAPS, "a", self.add("one"))).code, 403)
        self.assertEqual(self.server.counts["create", "configmaps"], 1)


class StreamTests(ApiCase):
    """
    Tests of watches.
    """

    def setUp(self) -> None:
        super().setUp()
        self.began = 0
        self.data = b""

    def open(self, lasting: float = 100.0, received: Any = None) -> Deferred[None]:
        """
        Open a watch of all ConfigMaps.
        """

        def begin() -> None:
            self.began += 1

        def keep(data: bytes) -> None:
            self.data += data

        where = target(MAPS, {"watch": "true", "resourceVersion": str(self.api.store.version), "timeoutSeconds": "50"})
        result = self.client.stream(where, begin, received or keep, lasting=lasting)
        self.clock.advance(0.02)
        return result

    def test_bytes(self) -> None:
        """
        It begins, brings the bytes as they come, and ends in good order.
        """
        stream = self.open()
        self.assertEqual((self.began, self.data), (1, b""))
        self.api.put("configmaps", {"metadata": {"name": "a"}})
        self.assertTrue(self.data.startswith(b'{"type":"ADDED"') and self.data.endswith(b"}\n"))
        self.assertNoResult(stream)
        self.clock.advance(50)
        self.assertIs(self.successResultOf(stream), None)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_refused(self) -> None:
        """
        A refusal fails it, with the server's reason; of its body no more is kept than MAX_REFUSAL_BYTES.
        """
        self.api.permits = lambda user, verb, call, path: False
        error = self.failureResultOf(self.open(), ApiError).value
        self.assertEqual((error.code, error.reason, self.began), (403, "Forbidden", 0))
        self.server.answer_always(502, b"x" * (10 * MAX_REFUSAL_BYTES))
        self.assertEqual(self.failureResultOf(self.open(), ApiError).value.code, 502)

    def test_overdue(self) -> None:
        """
        It is cut when it does not begin in BEGIN_TIMEOUT, and when it lasts too long.
        """
        stream = self.open(lasting=30.0)
        self.server.silent = True
        late = self.open()
        self.clock.advance(BEGIN_TIMEOUT)
        self.assertEqual(self.failureResultOf(late, ApiError).value.reason, TIMEOUT)
        self.clock.advance(20)
        self.assertIn("not ended after 30 s", str(self.failureResultOf(stream, ApiError).value))
        self.assertEqual(self.server.open, [])

    def test_broken(self) -> None:
        """
        A lost connection fails it.
        """
        stream = self.open()
        self.server.close_connections("reset by somebody")
        self.assertIn("reset by somebody", str(self.failureResultOf(stream, ApiError).value))

    def test_receiver_fails(self) -> None:
        """
        What the receiver raises ends it, and goes no further than to its result.
        """

        def fail(data: bytes) -> None:
            raise ValueError("not to my taste")

        stream = self.open(received=fail)
        self.api.put("configmaps", {"metadata": {"name": "a"}})
        self.failureResultOf(stream, ValueError)
        self.assertEqual((self.server.open, self.server.sent[-1].cancelled), ([], True))

    def test_cancel(self) -> None:
        """
        Cancelled, it leaves neither a request nor a timer.
        """
        stream = self.open()
        stream.cancel()
        self.failureResultOf(stream)
        self.assertEqual(self.server.open, [])

    def test_switch(self) -> None:
        """
        A server that switches protocols is not followed.
        """

        class Stream:
            aborted = False

            def abort(self) -> None:
                self.aborted = True

        switched: Any = Stream()

        def switch(exchange: MemoryExchange) -> bool:
            exchange.receiver.upgraded(ResponseHead(101, b""), switched)
            return True

        self.server.intercept = switch
        self.assertEqual(self.failureResultOf(self.open(), ApiError).value.reason, UNREADABLE)
        self.assertTrue(switched.aborted)

    def test_late_answers(self) -> None:
        """
        What comes after its end changes nothing.
        """
        stream = self.open()
        receiver = self.server.sent[-1].receiver
        stream.cancel()
        self.failureResultOf(stream)
        receiver.response_failed(UpstreamError("late"))
        self.assertEqual(self.data, b"")


class KubeconfigTests(TestCase):
    """
    Tests of clients made from a kubeconfig, on real connections.
    """

    timeout = 180

    def setUp(self) -> None:
        self.api = MiniAPI(reactor)
        self.addCleanup(self.api.stop)
        self.api.start()

    def client(self, **fields: Any) -> ApiClient:
        client = client_from_kubeconfig(reactor, Kubeconfig(self.api.url, ca_data=self.api.ca.cert_pem, **fields), "tests")
        self.addCleanup(client.close)
        return client

    async def test_certificate(self) -> None:
        """
        The user's certificate is shown, and the product named.
        """
        path = self.api.write_kubeconfig(self.mktemp(), "someone", "some-group")
        client = client_from_kubeconfig(reactor, load_kubeconfig(path), "some-product")
        self.addCleanup(client.close)
        await client.create(MAPS, {"metadata": {"name": "a"}})
        seen = self.api.seen[-1]
        self.assertEqual((seen.user, seen.user_agent.partition("/")[0], client.name), ("someone", "some-product", self.api.url))

    async def test_token(self) -> None:
        """
        So is the user's token; one in a file is read again when it changes.
        """
        await self.client(token=self.api.token("one")).get(MAPS)
        path = self.mktemp()
        with open(path, "w") as file:
            file.write(self.api.token("two") + "\n")
        client = self.client(token_file=path)
        await client.get(MAPS)
        with open(path, "w") as file:
            file.write(self.api.token("three-") + "\n")
        await client.get(MAPS)
        users = [seen.user.rpartition(":")[2] for seen in self.api.seen]
        self.assertEqual(users, ["one", "two", "three-"])

    async def test_other_authority(self) -> None:
        """
        A server that another CA vouches for is not spoken to.
        """
        client = client_from_kubeconfig(reactor, Kubeconfig(self.api.url, ca_data=CA.cert_pem), "tests")
        self.addCleanup(client.close)
        with self.assertRaises(ApiError) as caught:
            await client.get(MAPS)
        self.assertEqual((caught.exception.reason, len(self.api.seen)), (NO_ANSWER, 0))

    def test_proxy(self) -> None:
        """
        A proxy that is not spoken to is told in one line, without the password in its URL.
        """
        error = self.assertRaises(KubeconfigError, self.client, proxy_url="socks5://me:secret@proxy:1080")
        self.assertIn("proxy-url is not understood", str(error))
        self.assertNotIn("secret", str(error))

    def test_unverifiable(self) -> None:
        """
        Without a way to verify the server there is no client.
        """
        for kubeconfig in (Kubeconfig("https://a:1"), Kubeconfig("https://a:1", ca_data=CA.cert_pem, insecure=True)):
            self.assertRaises(KubeconfigError, client_from_kubeconfig, reactor, kubeconfig, "tests")
