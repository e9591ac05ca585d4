"""
The contract for joining: bootstrap tokens, cluster-info, requests for certificates, and who signs them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred

from tests.certs import Authority
from tests.e2e.apiserver import ControlPlane
from tests.e2e.process import Process, find_binary, require
from tests.miniapi import MiniAPI
from tests.miniapi.signing import Signer, cluster_info, invite
from yurt.kube.bootstrap import ca_hash
from yurt.kube.csr.files import CertificateFiles
from yurt.kube.csr.service import CertificateService
from yurt.kube.csr.wanted import CLIENT_USAGES, Wanted, client, serving
from yurt.kube.joining import JoinAccess, JoinFiles, JoinSettings

from .client import KubeClient
from .subjects import Contract, OnMini, OnReal, pause

TOKEN = "abcdef.0123456789abcdef"
PERIOD = 0.1
SIGN_SECONDS = 600
RBAC = "rbac.authorization.k8s.io"


class CertificatesContract(Contract):
    """
    What holds of a cluster that invites.
    """

    url: str
    ca: Authority
    api: Any
    client: Any
    mktemp: Any

    async def invite(self) -> None:
        """
        Let holders of TOKEN in.
        """

    async def signed(self, name: str) -> None:
        """
        See to it that an approved request is signed.
        """

    async def until(self, condition: Any) -> None:
        while not condition():
            await pause(PERIOD)

    async def service(self, wanted: Wanted, folder: str) -> CertificateService:
        """
        Somebody who joins by TOKEN; the certificates in a folder go on being used.
        """
        settings = JoinSettings((self.url,), TOKEN, ca_hashes=frozenset({ca_hash(self.ca.certificate)}))
        access = JoinAccess(reactor, "yurthub", settings, JoinFiles(folder), lambda: None, kubelet_certificate="/none")
        clock: Any = reactor
        service = CertificateService(clock, CertificateFiles(f"{folder}/pki", "x"), wanted, access, lambda: None)
        service.startService()
        self.addCleanup(lambda: maybeDeferred(service.stopService) if service.running else None)
        return service

    async def decide(self, name: str, kind: str, version: str = "v1") -> None:
        """
        Approve or deny a request, as kubectl does.
        """
        path = f"/apis/certificates.k8s.io/{version}/certificatesigningrequests/{name}"
        document = (await self.admin.ask("GET", path)).json
        condition = {"type": kind, "status": "True", "reason": "Test", "message": "by a test"}
        document.setdefault("status", {})["conditions"] = [condition]
        reply = await self.admin.ask("PUT", f"{path}/approval", document)
        self.assertEqual(reply.status, 200, reply.body)

    async def joined(self, wanted: Wanted, folder: str) -> CertificateService:
        service = await self.service(wanted, folder)
        await self.until(lambda: service.enrolment.request)
        await self.decide(service.enrolment.request, "Approved")
        await self.signed(service.enrolment.request)
        await self.until(lambda: service.held)
        return service

    async def test_join(self) -> None:
        """
        From a token to a certificate of the node, which the cluster takes for it, and by that to the next one.
        """
        await self.invite()
        folder = self.mktemp()
        wanted = client("client certificate", "system:node:joined", ("openyurt:yurthub", "system:nodes"))
        service = await self.joined(wanted, folder)
        held = service.held
        assert held is not None
        certificate = x509.load_pem_x509_certificates(held.pem)[0]
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        self.assertEqual(list(usages), [ExtendedKeyUsageOID.CLIENT_AUTH])
        # Some kube-controller-managers count the minutes by which they date back, some do not.
        self.assertTrue(SIGN_SECONDS - 360 < held.not_after - held.not_before <= SIGN_SECONDS, held)
        service.retry(force=True)
        first = held
        await self.until(lambda: service.enrolment.request)
        name = service.enrolment.request
        found = (await self.admin.ask("GET", f"/apis/certificates.k8s.io/v1/certificatesigningrequests/{name}")).json
        self.assertEqual(found["spec"]["username"], "system:node:joined")
        self.assertEqual(sorted(found["spec"]["groups"]), ["openyurt:yurthub", "system:authenticated", "system:nodes"])
        self.assertEqual(sorted(found["spec"]["usages"]), sorted(CLIENT_USAGES))
        await self.decide(name, "Approved")
        await self.signed(name)
        await self.until(lambda: service.held not in (None, first))

    async def test_serving(self) -> None:
        """
        A serving certificate has its names and is for servers only.
        """
        await self.invite()
        wanted = serving("serving certificate", "system:node:serving", ("a.example",), ("10.0.0.1",))
        service = await self.joined(wanted, self.mktemp())
        held = service.held
        assert held is not None
        self.assertEqual((held.dns, held.addresses), ({"a.example"}, {"10.0.0.1"}))
        certificate = x509.load_pem_x509_certificates(held.pem)[0]
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        self.assertEqual(list(usages), [ExtendedKeyUsageOID.SERVER_AUTH])

    async def test_denied(self) -> None:
        """
        A denial is told in the approver's words.
        """
        await self.invite()
        wanted = client("client certificate", "system:node:x", ("openyurt:yurthub", "system:nodes"))
        service = await self.service(wanted, self.mktemp())
        await self.until(lambda: service.enrolment.request)
        name = service.enrolment.request
        await self.decide(name, "Denied")
        await self.until(lambda: "denied" in (service.problem or ""))
        self.assertEqual(service.problem, f"no client certificate: CSR {name} denied: Test: by a test")

    async def test_unknown_token(self) -> None:
        """
        A token that the cluster does not know gets no signature, and is not taken.
        """
        await self.invite()
        stranger: KubeClient = self.client(token="zzzzzz.0123456789abcdef")
        self.assert_status(await stranger.ask("GET", "/api/v1/nodes"), 401, "Unauthorized")
        found = (await self.client().ask("GET", "/api/v1/namespaces/kube-public/configmaps/cluster-info")).json
        self.assertNotIn("jws-kubeconfig-zzzzzz", found["data"])
        self.assertIn("jws-kubeconfig-abcdef", found["data"])


class MiniCertificatesTests(CertificatesContract, OnMini):
    """
    The contract, of the miniature apiserver.
    """

    api: MiniAPI

    async def invite(self) -> None:
        self.signer = Signer(self.api, seconds=SIGN_SECONDS)
        invite(self.api, TOKEN)

    async def signed(self, name: str) -> None:
        self.signer.sign(name)


class RealCertificatesTests(CertificatesContract, OnReal):
    """
    The contract, of a real kube-apiserver, with kube-controller-manager to sign.
    """

    def setUp(self) -> None:
        require("kube-controller-manager")
        super().setUp()
        self.controllers = run_controllers(self.plane, Path(self.mktemp()).resolve())
        self.addCleanup(self.controllers.stop)

    async def invite(self) -> None:
        identifier, _, secret = TOKEN.partition(".")
        info = cluster_info(self.ca.cert_pem, self.url)
        token = {
            "kind": "Secret",
            "apiVersion": "v1",
            "type": "bootstrap.kubernetes.io/token",
            "metadata": {"name": f"bootstrap-token-{identifier}", "namespace": "kube-system"},
            "stringData": {
                "token-id": identifier,
                "token-secret": secret,
                "usage-bootstrap-authentication": "true",
                "usage-bootstrap-signing": "true",
            },
        }
        for path, document in (
            ("/api/v1/namespaces/kube-public/configmaps", info),
            ("/api/v1/namespaces/kube-system/secrets", token),
            (f"/apis/{RBAC}/v1/namespaces/kube-public/roles", ROLE),
            (
                f"/apis/{RBAC}/v1/namespaces/kube-public/rolebindings",
                bound("RoleBinding", "Role", "cluster-info", "User", "system:anonymous"),
            ),
            (
                f"/apis/{RBAC}/v1/clusterrolebindings",
                bound("ClusterRoleBinding", "ClusterRole", "system:node-bootstrapper", "Group", "system:bootstrappers"),
            ),
        ):
            reply = await self.admin.ask("POST", path, document)
            self.assertIn(reply.status, (201, 409), reply.body)
        found: dict[str, Any] = {}
        while f"jws-kubeconfig-{identifier}" not in found:
            await pause(PERIOD)
            reply = await self.admin.ask("GET", "/api/v1/namespaces/kube-public/configmaps/cluster-info")
            found = json.loads(reply.body)["data"]


ROLE = {
    "metadata": {"name": "cluster-info", "namespace": "kube-public"},
    "rules": [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["cluster-info"], "verbs": ["get"]}],
}


def bound(kind: str, role_kind: str, role: str, subject_kind: str, subject: str) -> dict[str, Any]:
    """
    A binding of one subject to one role.
    """
    return {
        "kind": kind,
        "metadata": {"name": f"contract-{role.rpartition(':')[2]}"},
        "subjects": [{"kind": subject_kind, "name": subject, "apiGroup": RBAC}],
        "roleRef": {"kind": role_kind, "name": role, "apiGroup": RBAC},
    }


def run_controllers(plane: ControlPlane, folder: Path) -> Process:
    """
    The controllers that sign, of kube-controller-manager.
    """
    folder.mkdir()
    file = plane.authority.file
    plane.authority.issue("kcm", "system:kube-controller-manager", ["system:masters"])  # whose rights they have is not the matter
    argv = [
        find_binary("kube-controller-manager") or "kube-controller-manager",
        *("--kubeconfig", plane.authority.kubeconfig(folder / "kcm.conf", plane.url, "kcm")),
        *("--cluster-signing-cert-file", file("ca.crt")),
        *("--cluster-signing-key-file", file("ca.key")),
        *("--controllers", "csrsigning,bootstrapsigner"),
        f"--cluster-signing-duration={SIGN_SECONDS}s",
        "--leader-elect=false",
        "--port=0",
        "--secure-port=0",
    ]
    return Process("kube-controller-manager", argv, folder / "kcm.log")
