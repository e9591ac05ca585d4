"""
Tests of who speaks through the hub, and of who may read what without the cloud.
"""

from __future__ import annotations

import json
import time

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from twisted.trial.unittest import SynchronousTestCase

from tests.hub.site import POD_ADDRESS, USER, Site, config_map, header, names, until
from tests.hub.test_reads import MAPS, PODS, HubCase
from tests.miniapi.identity import TokenIssuer, User
from yurt.http.interfaces import Headers, ResponseHead
from yurt.hub.config import NodeCredentials
from yurt.hub.identity import MAX_ACCEPTED_TOKENS, WEBSOCKET_BEARER, Tokens, read_credential
from yurt.kube.kubeconfig import load_kubeconfig

POD_A = "system:serviceaccount:default:a"
JWKS = "/openid/v1/jwks"


def a_token(sub: str = POD_A, issuer: str = "https://kubernetes.default.svc", **claims: object) -> str:
    """
    A token that no cluster signed.
    """
    whole = {"sub": sub, "iss": issuer, "aud": [issuer], "exp": int(time.time()) + 3600, **claims}
    return jwt.encode(whole, rsa.generate_private_key(public_exponent=65537, key_size=2048), algorithm="RS256")


class ReadCredentialTests(SynchronousTestCase):
    """
    Tests of read_credential: it must never see a token where kube-apiserver looks at another one, or at none.
    """

    def kind(self, *headers: tuple[bytes, bytes]) -> tuple[str, str]:
        """
        Kind and token of what ``headers`` show.
        """
        credential = read_credential(list(headers))
        return credential.kind, credential.token

    def test_none(self) -> None:
        """
        Without credentials there is none.
        """
        self.assertEqual(self.kind((b"Host", b"x"), (b"Accept", b"*/*")), ("none", ""))

    def test_bearer(self) -> None:
        """
        Scheme and header name in any case.
        """
        for name, value in (
            (b"Authorization", b"Bearer abc"),
            (b"AUTHORIZATION", b"bearer abc"),
            (b"authorization", b" BEARER abc "),
        ):
            self.assertEqual(self.kind((name, value)), ("bearer", "abc"))

    def test_other(self) -> None:
        """
        Whatever kube-apiserver does not take for a bearer token is only passed on.
        """
        for value in (b"", b"Bearer", b"Bearer ", b"Bearer  abc", b"Bearer\tabc", b"Basic YTpi", b"Negotiate abc", b"abc"):
            self.assertEqual(self.kind((b"Authorization", value)), ("other", ""), value)

    def test_two_words(self) -> None:
        """
        kube-apiserver looks at the first word after the scheme only; so such a header is no known token here.
        """
        self.assertEqual(self.kind((b"Authorization", b"Bearer good forged")), ("other", ""))

    def test_two_headers(self) -> None:
        """
        kube-apiserver looks at the first of two; a forged second one does not count here.
        """
        for second in (b"Bearer forged", b"Basic YTpi"):
            self.assertEqual(self.kind((b"Authorization", b"Bearer good"), (b"Authorization", second)), ("other", ""))

    def test_websocket(self) -> None:
        """
        A token among the subprotocols of a WebSocket is a credential, and beside another one it is unclear which counts.
        """
        protocols = (b"Sec-WebSocket-Protocol", WEBSOCKET_BEARER + b"YWJj, v5.channel.k8s.io")
        self.assertEqual(self.kind(protocols), ("other", ""))
        self.assertEqual(self.kind(protocols, (b"Authorization", b"Bearer forged")), ("other", ""))
        self.assertEqual(self.kind((b"Sec-WebSocket-Protocol", b"v5.channel.k8s.io")), ("none", ""))

    def test_impersonation(self) -> None:
        """
        Impersonation is told beside any credential.
        """
        for headers in ([], [(b"Authorization", b"Bearer abc")]):
            self.assertFalse(read_credential(list(headers)).impersonates)
            self.assertTrue(read_credential([*headers, (b"impersonate-user", b"x")]).impersonates)


class Rows(dict[bytes, bytes]):
    """
    A table in memory.
    """

    def put(self, key: bytes, value: bytes) -> None:
        self[key] = value

    def delete(self, key: bytes) -> None:
        self.pop(key, None)

    def scan(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        return [(key, value) for key, value in self.items() if key.startswith(prefix)]


def answer(status: int, content_type: bytes = b"application/json") -> ResponseHead:
    """
    The head of an answer of the cloud.
    """
    headers: Headers = [(b"Content-Type", content_type)]
    return ResponseHead(status, b"", headers)


class TokensTests(SynchronousTestCase):
    """
    Tests of Tokens, on a clock.
    """

    def setUp(self) -> None:
        self.now = time.time()
        self.rows = Rows()
        self.keys: bytes | None = None
        self.issuer = TokenIssuer()
        self.tokens = self.make()

    def make(self) -> Tokens:
        """
        Tokens over the same rows, as after a restart.
        """
        return Tokens(self.rows, lambda: self.keys, lambda: self.now)  # type: ignore[arg-type]

    def sign(self, name: str = "a", **options: object) -> str:
        """
        A real token.
        """
        account = {"name": name, "namespace": "default", "uid": "u"}
        return self.issuer.sign("default", account, now=self.now, **options)[0]  # type: ignore[arg-type]

    def test_subject(self) -> None:
        """
        A service account's identity is its subject; that of any other issuer's user names the issuer, so that nobody can
        call himself the node; an opaque token is its own identity.
        """
        self.assertEqual(self.tokens.subject(self.sign()), POD_A)
        self.assertEqual(self.tokens.subject(a_token("node", "https://idp")), "https://idp#node")
        opaque = {self.tokens.subject(token) for token in ("abcdef", "abcdeg")}
        self.assertEqual(len(opaque), 2)
        self.assertTrue(all(name.startswith("token:") and "abcde" not in name for name in opaque))

    def test_accepted_until_it_expires(self) -> None:
        """
        A token that the cloud accepted counts until it expires, also after a restart; nothing of it stands in the table.
        """
        token = self.sign(seconds=600)
        self.assertIsNone(self.tokens.identity_offline(token))
        self.tokens.learn(token, answer(200))
        self.assertEqual(self.tokens.identity_offline(token), POD_A)
        self.assertEqual(self.make().identity_offline(token), POD_A)
        self.now += 599
        self.assertEqual(self.tokens.identity_offline(token), POD_A)
        self.now += 2
        self.assertIsNone(self.tokens.identity_offline(token))
        table = b"".join(key + value for key, value in self.rows.items())
        self.assertFalse([part for part in token.split(".") if part.encode() in table])

    def test_the_very_same(self) -> None:
        """
        Another token of the same subject does not count, nor the same one with another signature.
        """
        token = self.sign()
        self.tokens.learn(token, answer(200))
        for other in (self.sign(seconds=601), token[:-4] + "AAAA", a_token()):
            self.assertIsNone(self.tokens.identity_offline(other))

    def test_what_tells_that_it_was_accepted(self) -> None:
        """
        A success, or a refusal in an API server's own words; not the errors of some proxy on the way.
        """
        json_type, protobuf, html = b"application/json", b"application/vnd.kubernetes.protobuf", b"text/html"
        good = [
            answer(200),
            answer(201),
            answer(101),
            answer(403, json_type),
            answer(404, protobuf),
            answer(409),
            answer(200, html),
        ]
        bad = [answer(401), answer(400), answer(429), answer(500), answer(503), answer(302), answer(403, html), answer(404, html)]
        for counts, heads in ((True, good), (False, bad)):
            for head in heads:
                tokens = Tokens(Rows(), lambda: None, lambda: self.now)  # type: ignore[arg-type]
                token = self.sign()
                tokens.learn(token, head)
                self.assertEqual(tokens.identity_offline(token) is not None, counts, head)

    def test_refused(self) -> None:
        """
        A token that the cloud came to refuse does not count any more, though its signature is good; until it is accepted.
        """
        self.keys = json.dumps(self.issuer.jwks()).encode()
        token = self.sign()
        self.tokens.learn(token, answer(200))
        for tokens in (self.tokens, self.make()):
            tokens.learn(token, answer(401))
            self.assertIsNone(tokens.identity_offline(token))
            self.assertIsNone(self.make().identity_offline(token))
        self.tokens.learn(token, answer(200))
        self.assertEqual(self.tokens.identity_offline(token), POD_A)

    def test_refusals_of_the_unknown(self) -> None:
        """
        Tokens that never counted leave nothing behind when the cloud refuses them.
        """
        for number in range(10):
            self.tokens.learn(f"guess-{number}", answer(401))
        self.assertEqual(self.rows, {})

    def test_signature(self) -> None:
        """
        A token that the cloud never saw counts when the issuer's cached keys verify it.
        """
        token = self.sign()
        self.assertIsNone(self.tokens.identity_offline(token))
        self.keys = json.dumps(self.issuer.jwks()).encode()
        self.assertEqual(self.tokens.identity_offline(token), POD_A)
        for bad in (
            a_token(),
            self.sign(audiences=["vault"]),
            self.sign(seconds=-10),
            jwt.encode({"sub": POD_A}, "secret-of-thirty-two-bytes-length", algorithm="HS256"),
            jwt.encode({"sub": POD_A}, "", algorithm="none"),
            "abc",
            "",
        ):
            self.assertIsNone(self.tokens.identity_offline(bad), bad)
        self.now += 3601
        self.assertIsNone(self.tokens.identity_offline(token))

    def test_keys_change(self) -> None:
        """
        New keys take the place of the old; broken ones verify nothing.
        """
        self.keys = json.dumps(TokenIssuer().jwks()).encode()
        token = self.sign()
        self.assertIsNone(self.tokens.identity_offline(token))
        self.keys = json.dumps(self.issuer.jwks()).encode()
        self.assertEqual(self.tokens.identity_offline(token), POD_A)
        for broken in (b"", b"{", b"[]", b'{"keys":[]}', b'{"keys":[{"kty":"RSA"}]}'):
            self.keys = broken
            self.assertIsNone(self.tokens.identity_offline(token))

    def test_bounded(self) -> None:
        """
        No more tokens are remembered than the bound says, the expired go first, and who is forgotten can be learned again.
        """
        old = self.sign(seconds=600)
        self.tokens.learn(old, answer(200))
        for number in range(MAX_ACCEPTED_TOKENS + 5):
            self.tokens.learn(f"opaque-{number}", answer(200))
        self.assertEqual(len(self.rows), MAX_ACCEPTED_TOKENS)
        self.assertIsNone(self.tokens.identity_offline(old))
        self.tokens.learn(old, answer(200))
        self.assertLessEqual(len(self.rows), MAX_ACCEPTED_TOKENS)


class CredentialsTests(HubCase):
    """
    What the cloud sees of the callers.
    """

    async def test_node(self) -> None:
        """
        Who brings nothing on loopback speaks with the node's certificate.
        """
        site = await self.site_with()
        await site.get(PODS)
        seen = site.api.seen[-1]
        self.assertEqual((seen.user, seen.certificate, "authorization" in seen.headers), (USER, USER, False))

    async def test_own_token(self) -> None:
        """
        Who brings a token keeps it, and the node's certificate is not shown beside it; on any address, for reads, watches,
        writes and what is not cached, also on connections that were used before.
        """
        site = await self.site_with(config_map("a"))
        token = site.api.token("a")
        await site.get(PODS)
        stream = await site.watch(f"{MAPS}?watch=true", token=token)
        self.assertEqual(site.api.seen[-1].verb, "watch")
        seen = [site.api.seen[-1]]
        for address in ("127.0.0.1", POD_ADDRESS):
            for method, path, body in (
                ("GET", MAPS, None),
                ("GET", f"{MAPS}/a", None),
                ("GET", "/version", None),
                ("POST", MAPS, config_map(f"new-{address[-1]}")),
                ("POST", "/api/v1/namespaces/default/events", {"metadata": {"name": f"e{address[-1]}"}, "involvedObject": {}}),
                ("DELETE", f"{MAPS}/new-{address[-1]}", None),
            ):
                await site.ask(method, path, body, token=token, address=address)
                seen.append(site.api.seen[-1])
        for one in seen:
            self.assertEqual((one.user, one.certificate), (POD_A, ""), one)
            self.assertEqual(one.headers["authorization"], f"Bearer {token}")
        stream.close()
        await site.get(PODS)
        self.assertEqual((site.api.seen[-1].user, site.api.seen[-1].certificate), (USER, USER))

    async def test_other_credentials(self) -> None:
        """
        Credentials that the hub does not know are passed on as they are, without the node's.
        """
        site = await self.site_with()
        await site.get("/version", authorization="Basic YTpi")
        seen = site.api.seen[-1]
        self.assertEqual((seen.headers["authorization"], seen.certificate), ("Basic YTpi", ""))

    async def test_node_with_a_token(self) -> None:
        """
        A node that has a token instead of a certificate lends it to callers without credentials, and to no others; it is
        read again when its file changes.
        """
        site = Site(self)
        for secret, user in (("nodes-secret", "one"), ("new-secret", "two")):
            site.api.issuer.static[secret] = User(user)
        file = site.folder / "token"
        file.write_text("nodes-secret\n")
        credentials = NodeCredentials(ca_file=str(site.folder / "ca.pem"), token_file=str(file))
        await site.start_online(credentials=credentials)
        await site.get(PODS)
        self.assertEqual(site.api.seen[-1].user, "one")
        token = site.api.token("a")
        await site.get(PODS, token=token)
        self.assertEqual((site.api.seen[-1].user, site.api.seen[-1].headers["authorization"]), (POD_A, f"Bearer {token}"))
        await site.get(PODS, authorization="Basic YTpi")
        self.assertEqual(site.api.seen[-1].headers["authorization"], "Basic YTpi")
        new = site.folder / "token.new"
        new.write_text("new-secret-of-another-length")
        site.api.issuer.static["new-secret-of-another-length"] = User("two")
        new.replace(file)

        async def speaks() -> bool:
            await site.get(PODS)
            return site.api.seen[-1].user == "two"

        while not await speaks():
            pass

    async def test_pod_door(self) -> None:
        """
        On the address that pods reach nothing is lent: without credentials 401, whatever is asked, and nothing goes to the
        cloud; also offline, and for what is cached for everyone.
        """
        site = await self.site_with(config_map("a"))
        await site.get(MAPS)
        await site.get("/version")
        before = len(site.api.seen)
        lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1"
        requests = [("GET", path) for path in (MAPS, f"{MAPS}/a", "/version", "/healthz", f"{MAPS}?watch=true", lease)]
        for offline in (False, True):
            if offline:
                await site.offline()
            for method, path in [*requests, ("POST", MAPS), ("PATCH", f"{PODS}/a/status")]:
                reply = await site.ask(method, path, {} if method != "GET" else None, address=POD_ADDRESS)
                self.assert_failure(reply, 401, "Unauthorized", "credentials")
                self.assertEqual(header(reply, "www-authenticate"), "Bearer")
        asked = [
            seen
            for seen in list(site.api.seen)[before:]
            if seen.path not in ("/readyz", "/healthz", JWKS) and seen.resource != "leases"
        ]
        self.assertEqual(asked, [])


class OfflineIdentityTests(HubCase):
    """
    Who may read what without the cloud.
    """

    async def test_accepted_token(self) -> None:
        """
        A token that the cloud accepted reads what that identity was given, on either address, also after a restart.
        """
        site = await self.site_with(config_map("a"))
        token = site.api.token("a")
        await site.get(MAPS, token=token, address=POD_ADDRESS)
        await site.offline()
        for restarted in (False, True):
            if restarted:
                await site.restart()
            for address in ("127.0.0.1", POD_ADDRESS):
                reply = await site.get(MAPS, token=token, address=address)
                self.assert_from(reply, "cache")
                self.assertEqual(names(reply), ["a"])

    async def test_identities_apart(self) -> None:
        """
        Without the cloud nobody reads what the cloud did not give that same identity: not another pod, not the node, not
        another component of the same pod.
        """
        site = await self.site_with(config_map("a"))
        one, two = site.api.token("a"), site.api.token("b")
        await site.get(MAPS, token=one)
        await site.get(PODS, token=two)
        await site.get("/api/v1/services")
        await site.offline()
        self.assert_from(await site.get(MAPS, token=one), "cache")
        for path in (MAPS, f"{MAPS}/a", "/api/v1/services"):
            self.assert_failure(await site.get(path, token=two), 503, "ServiceUnavailable")
        for path in (MAPS, f"{MAPS}/a", PODS):
            self.assert_failure(await site.get(path), 503, "ServiceUnavailable")
        self.assert_failure(await site.get("/api/v1/services", token=one), 503, "ServiceUnavailable")
        self.assert_failure(await site.get(MAPS, token=one, agent="coredns"), 503, "ServiceUnavailable")

    async def test_unknown_token(self) -> None:
        """
        A token that the cloud never saw is 401, for reads, watches, writes and discovery; a forged one of a known subject too.
        """
        self.leave_issuer_keys()
        site = await self.site_with(config_map("a"))
        real = site.api.token("a")
        await site.get(MAPS, token=real)
        await site.get("/version", token=real)
        await site.offline()
        for token in (site.api.token("a", seconds=700), a_token(), "opaque"):
            for method, path in (
                ("GET", MAPS),
                ("GET", f"{MAPS}/a"),
                ("GET", "/version"),
                ("GET", f"{MAPS}?watch=true"),
                ("POST", "/api/v1/namespaces/default/events"),
                ("POST", MAPS),
                ("DELETE", f"{MAPS}/a"),
            ):
                reply = await site.ask(method, path, {} if method == "POST" else None, token=token)
                self.assert_failure(reply, 401, "Unauthorized")

    async def test_verified_token(self) -> None:
        """
        With the issuer's keys in the cache, a new token of the same account is good; one for another audience is not.
        """
        site = await self.site_with(config_map("a"))
        await site.get(MAPS, token=site.api.token("a"))
        self.assert_from(await site.get(JWKS, agent="somebody"), "cloud")
        await site.offline()
        fresh = site.api.token("a", seconds=700)
        self.assert_from(await site.get(MAPS, token=fresh), "cache")
        self.assert_failure(await site.get(MAPS, token=site.api.token("b")), 503, "ServiceUnavailable")
        for bad in (site.api.token("a", audiences=["vault"]), a_token(), site.api.token("a", seconds=-5)):
            self.assert_failure(await site.get(MAPS, token=bad), 401, "Unauthorized")

    async def test_keys_are_fetched(self) -> None:
        """
        The hub gets the issuer's keys itself while the cloud is there.
        """
        site = await self.site_with()
        await until(lambda: site.api.count("get", JWKS))
        await until(lambda: site.hub.documents.jwks())

    async def test_refused_token(self) -> None:
        """
        A token that the cloud came to refuse does not count without it.
        """
        site = await self.site_with(config_map("a"))
        token = site.api.token("a")
        await site.get(MAPS, token=token)
        site.api.issuer.revoked.add(token)
        self.assert_from(await site.get(MAPS, token=token), "cloud", 401)
        await site.offline()
        self.assert_failure(await site.get(MAPS, token=token), 401, "Unauthorized")

    async def test_smuggled_token(self) -> None:
        """
        A forged token beside a good one gains nothing, neither while the cloud is there nor later.
        """
        site = await self.site_with(config_map("a"))
        await site.get(MAPS, token=site.api.token("a"))
        own, forged = site.api.token("evil"), a_token()
        for value in (f"Bearer {own} {forged}", f"Bearer  {forged}"):
            await site.get("/version", authorization=value)
        await site.offline()
        for token in (forged, f" {forged}", f"{own} {forged}"):
            self.assert_failure(await site.get(MAPS, token=token), 401, "Unauthorized")

    async def test_impersonation(self) -> None:
        """
        What was read in another's name is not cached, and nobody impersonates without the cloud.
        """
        site = await self.site_with(config_map("a"))
        self.assert_from(await site.get(MAPS, impersonate_user="someone"), "cloud")
        self.assertEqual((await site.status())["views"], [])
        await site.get(MAPS)
        await site.offline()
        self.assert_failure(await site.get(MAPS, impersonate_user="someone"), 401, "Unauthorized")


class SecretsTests(HubCase):
    """
    Tokens do not reach the log.
    """

    async def test_no_token_in_the_log(self) -> None:
        """
        No line of the log holds a token or a part of one: neither of callers nor of the node, neither of requests that go
        well nor of those that fail.
        """
        site = Site(self)
        secret = "0123456789abcdef0123456789abcdef"
        site.api.issuer.static[secret] = User("system:node:n1")
        file = site.folder / "token"
        file.write_text(secret)
        await site.start_online(credentials=NodeCredentials(ca_file=str(site.folder / "ca.pem"), token_file=str(file)))
        tokens = [site.api.token("a"), a_token(), "opaque-token-of-somebody"]
        for outage in (None, site.api.reset_connections, site.offline, site.online, site.stop):
            if outage is not None:
                done = outage()
                if done is not None:
                    await done
            if not site.running:
                break
            for token in tokens:
                for address in ("127.0.0.1", POD_ADDRESS):
                    await site.get(MAPS, token=token, address=address)
                    await site.ask("POST", MAPS, {"metadata": {"name": "x"}}, token=token, address=address)
                    await site.get(f"/api/v1/namespaces/default/pods/a/log?token={token}", token=token)
        log = "\n".join(site.log)
        self.assertIn("the hub has stopped", log)
        for token in (*tokens[:2], secret, "opaque-token-of-somebody"):
            for part in token.split("."):
                self.assertNotIn(part, log)


class KubeconfigTests(HubCase):
    """
    The node's identity from a kubeconfig.
    """

    async def test_inline(self) -> None:
        """
        A kubeconfig with everything inline is an identity.
        """
        site = Site(self)
        path = site.api.write_kubeconfig(site.folder / "kubelet.conf", USER, "system:nodes")
        credentials = NodeCredentials.of_kubeconfig(load_kubeconfig(path))
        await site.start_online(credentials=credentials, kubeconfig=path)
        await site.get(PODS)
        self.assertEqual(site.api.seen[-1].user, USER)
