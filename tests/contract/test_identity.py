"""
The contract for callers, tokens and discovery.
"""

from __future__ import annotations

import json
import time
from typing import Any

import jwt

from tests.certs import issue, make_ca

from .subjects import Contract, OnMini, OnReal, a_pod

BAD_TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"


class IdentityContract(Contract):
    """
    What holds of callers.
    """

    client: Any
    ca: Any

    async def account(self) -> str:
        """
        The path of a new service account.
        """
        path = f"{await self.namespace()}/serviceaccounts"
        await self.create(path, "robot")
        return f"{path}/robot"

    async def token(self, account: str, **spec: Any) -> dict[str, Any]:
        reply = await self.admin.ask(
            "POST", f"{account}/token", {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec}
        )
        self.assertEqual((reply.status, reply.json["kind"]), (201, "TokenRequest"), reply.body)
        return reply.json

    async def test_anonymous(self) -> None:
        """
        Who shows nothing may see the health and the version, and is told his name when he asks for more.
        """
        nobody = self.client()
        for path in ("/healthz", "/readyz", "/livez"):
            reply = await nobody.ask("GET", path)
            self.assertEqual((reply.status, reply.body), (200, b"ok"), path)
        self.assertTrue((await nobody.ask("GET", "/version")).json["gitVersion"].startswith("v1."))
        self.assert_status(
            await nobody.ask("GET", "/api/v1/pods"),
            403,
            "Forbidden",
            'pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" at the cluster scope',
        )
        self.assert_status(
            await nobody.ask("GET", "/apis/coordination.k8s.io/v1/namespaces/x/leases/y"),
            403,
            "Forbidden",
            'leases.coordination.k8s.io "y" is forbidden: User "system:anonymous" cannot get resource "leases" '
            'in API group "coordination.k8s.io" in the namespace "x"',
        )

    async def test_certificates(self) -> None:
        """
        A certificate's common name is the user.  (Both servers let only masters, and nobody else, do everything.)
        """
        self.assertEqual(
            (await self.client(issue(self.ca, "anyone", ["system:masters"])).ask("GET", "/api/v1/nodes")).status, 200
        )

    async def review(self, group: str, kind: str, **spec: Any) -> dict[str, Any]:
        """
        The status of a review.
        """
        document = {"kind": kind, "apiVersion": f"{group}.k8s.io/v1", "spec": spec}
        reply = await self.admin.ask("POST", f"/apis/{group}.k8s.io/v1/{kind.lower()}s", document)
        self.assertEqual((reply.status, reply.json["kind"]), (201, kind), reply.body)
        status: dict[str, Any] = reply.json["status"]
        return status

    async def test_token_review(self) -> None:
        """
        A review says whose a token is, with groups, and of others that they are nobody's.
        """
        account = await self.account()
        token = (await self.token(account))["status"]["token"]
        status = await self.review("authentication", "TokenReview", token=token)
        namespace = account.split("/")[4]
        self.assertEqual(status["authenticated"], True)
        self.assertEqual(status["user"]["username"], f"system:serviceaccount:{namespace}:robot")
        self.assertIn("system:authenticated", status["user"]["groups"])
        status = await self.review("authentication", "TokenReview", token=BAD_TOKEN)
        self.assertEqual(status.get("authenticated", False), False)
        self.assertIn("invalid bearer token", status["error"])

    async def test_subject_access_review(self) -> None:
        """
        A review says whether somebody else may do something.
        """
        wanted = {"verb": "get", "version": "v1", "resource": "nodes", "subresource": "proxy", "name": "edge-1"}
        for user, groups, allowed in (("anyone", ["system:masters"], True), ("system:serviceaccount:x:y", [], False)):
            spec: dict[str, Any] = {"user": user, "groups": groups, "resourceAttributes": wanted}
            status = await self.review("authorization", "SubjectAccessReview", **spec)
            self.assertEqual(status["allowed"], allowed)

    async def test_bad_token(self) -> None:
        """
        A token that cannot be verified is Unauthorized, whatever else the caller shows.
        """
        self.assert_status(await self.client(token=BAD_TOKEN).ask("GET", "/api/v1/pods"), 401, "Unauthorized", "Unauthorized")
        self.assert_status(await self.client(token="nonsense").ask("GET", "/version"), 401, "Unauthorized")

    async def test_token_request(self) -> None:
        """
        A requested token is a signed JWT of that account for those audiences and that time, and it authenticates.
        """
        account = await self.account()
        answer = await self.token(account, expirationSeconds=3600)
        token, claims = answer["status"]["token"], jwt.decode(answer["status"]["token"], options={"verify_signature": False})
        namespace = account.split("/")[4]
        subject = f"system:serviceaccount:{namespace}:robot"
        self.assertEqual(
            (claims["sub"], claims["kubernetes.io"]["namespace"], claims["kubernetes.io"]["serviceaccount"]["name"]),
            (subject, namespace, "robot"),
        )
        self.assertTrue(abs(claims["exp"] - time.time() - 3600) < 60 and claims["iat"] <= time.time() + 1)
        self.assertTrue(answer["status"]["expirationTimestamp"].endswith("Z"))
        self.assert_status(
            await self.client(token=token).ask("GET", "/api/v1/nodes"), 403, "Forbidden", f'User "{subject}" cannot list'
        )

    async def test_audiences(self) -> None:
        """
        A token for another audience is not for the apiserver.
        """
        answer = await self.token(await self.account(), audiences=["vault"])
        self.assertEqual(answer["spec"]["audiences"], ["vault"])
        self.assertEqual(jwt.decode(answer["status"]["token"], options={"verify_signature": False})["aud"], ["vault"])
        self.assertEqual((await self.client(token=answer["status"]["token"]).ask("GET", "/api/v1/nodes")).status, 401)

    async def test_bound_token(self) -> None:
        """
        A token is bound to a pod that exists.
        """
        account = await self.account()
        pods = account.rpartition("/serviceaccounts")[0] + "/pods"
        pod = await self.create(pods, "one", **a_pod(serviceAccountName="robot"))
        bound = {"kind": "Pod", "apiVersion": "v1", "name": "one", "uid": pod["metadata"]["uid"]}
        answer = await self.token(account, boundObjectRef=bound)
        claims = jwt.decode(answer["status"]["token"], options={"verify_signature": False})
        self.assertEqual(claims["kubernetes.io"]["pod"], {"name": "one", "uid": pod["metadata"]["uid"]})
        missing = await self.admin.ask("POST", f"{account}/token", {"spec": {"boundObjectRef": {**bound, "name": "two"}}})
        self.assertEqual(missing.status, 404)

    async def test_token_refused(self) -> None:
        """
        No token for an account that does not exist, nor for less than ten minutes.
        """
        account = await self.account()
        self.assert_status(
            await self.admin.ask("POST", f"{account}x/token", {"spec": {}}), 404, "NotFound", 'serviceaccounts "robotx" not found'
        )
        short = await self.admin.ask("POST", f"{account}/token", {"spec": {"expirationSeconds": 60}})
        self.assert_status(short, 422, "Invalid", "may not specify a duration less than 10 minutes")

    async def test_published_keys(self) -> None:
        """
        The keys of /openid/v1/jwks verify the tokens, and the issuer's configuration names the issuer.
        """
        token = (await self.token(await self.account()))["status"]["token"]
        keys = (await self.admin.ask("GET", "/openid/v1/jwks", accept="application/jwk-set+json, */*")).json
        key = jwt.PyJWKSet.from_dict(keys)[jwt.get_unverified_header(token)["kid"]]
        claims = jwt.decode(token, key.key, algorithms=["RS256"], options={"verify_aud": False})
        configuration = (await self.admin.ask("GET", "/.well-known/openid-configuration")).json
        self.assertEqual(configuration["issuer"], claims["iss"])
        self.assertTrue(configuration["jwks_uri"].endswith("/openid/v1/jwks"))

    async def test_strange_authority(self) -> None:
        """
        A certificate of another authority is refused, in the handshake or with 401.
        """
        from twisted.web.client import ResponseNeverReceived

        try:
            reply = await self.client(issue(make_ca("another"), "admin", ["system:masters"])).ask("GET", "/api/v1/nodes")
        except ResponseNeverReceived:
            return
        self.assertEqual(reply.status, 401)

    async def test_discovery(self) -> None:
        """
        The documents of discovery, as kubectl walks them.
        """
        core = (await self.admin.ask("GET", "/api")).json
        self.assertEqual((core["kind"], core["versions"]), ("APIVersions", ["v1"]))
        groups = (await self.admin.ask("GET", "/apis")).json
        self.assertEqual((groups["kind"], groups["apiVersion"]), ("APIGroupList", "v1"))
        self.assertTrue({"coordination.k8s.io", "discovery.k8s.io"} <= {group["name"] for group in groups["groups"]})
        group = (await self.admin.ask("GET", "/apis/coordination.k8s.io")).json
        self.assertEqual((group["kind"], group["preferredVersion"]["groupVersion"]), ("APIGroup", "coordination.k8s.io/v1"))
        resources = (await self.admin.ask("GET", "/api/v1")).json
        self.assertEqual((resources["kind"], resources["groupVersion"]), ("APIResourceList", "v1"))
        known = {entry["name"]: entry for entry in resources["resources"]}
        self.assertEqual((known["pods"]["kind"], known["pods"]["namespaced"], known["pods"]["shortNames"]), ("Pod", True, ["po"]))
        self.assertTrue({"get", "list", "watch", "create", "update", "patch", "delete"} <= set(known["pods"]["verbs"]))
        self.assertEqual(set(known["pods/status"]["verbs"]), {"get", "patch", "update"})
        self.assertIn("serviceaccounts/token", known)
        leases = (await self.admin.ask("GET", "/apis/coordination.k8s.io/v1")).json
        self.assertEqual(
            (leases["groupVersion"], [entry["name"] for entry in leases["resources"]]), ("coordination.k8s.io/v1", ["leases"])
        )
        self.assertEqual((await self.admin.ask("GET", "/openapi/v2")).json["swagger"], "2.0")

    async def test_unknown_paths(self) -> None:
        """
        What is not served is not found.
        """
        for path in ("/apis/no.such.group/v1/things", "/api/v1/nonsense"):
            self.assertEqual((await self.admin.ask("GET", path)).status, 404, path)
        reply = await self.admin.ask("GET", "/nonsense")
        self.assertEqual(reply.status, 404)

    async def test_version(self) -> None:
        """
        /version is JSON with major, minor and gitVersion.
        """
        reply = await self.admin.ask("GET", "/version")
        self.assertTrue({"major", "minor", "gitVersion", "platform"} <= set(json.loads(reply.body)))
        self.assertEqual(reply.headers.getRawHeaders("content-type"), ["application/json"])


class MiniIdentityTests(IdentityContract, OnMini):
    """
    The miniature apiserver keeps the contract.
    """


class RealIdentityTests(IdentityContract, OnReal):
    """
    The real one does.
    """
