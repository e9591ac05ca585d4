"""
The contract for CertificateSigningRequests, as daemons make them and an approver treats them.
"""

from __future__ import annotations

import base64
from itertools import count
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from .subjects import Contract, OnMini, OnReal

_numbers = count(1)
SIGNER = "kubernetes.io/kube-apiserver-client"
APPROVED = {"type": "Approved", "status": "True", "reason": "Test", "message": "said so"}


def pkcs10() -> str:
    """
    A request for somebody.
    """
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    request = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return base64.b64encode(request.public_bytes(Encoding.PEM)).decode()


class SigningRequestContract(Contract):
    """
    What holds of requests in both versions.
    """

    async def make(self, version: str) -> tuple[str, dict[str, Any]]:
        """
        The path of a new request, and what the server says of it.
        """
        path = f"/apis/certificates.k8s.io/{version}/certificatesigningrequests"
        name = f"{version}-{next(_numbers)}"
        spec = {"request": pkcs10(), "signerName": SIGNER, "usages": ["client auth"], "username": "another"}
        document = {
            "apiVersion": f"certificates.k8s.io/{version}",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": name, "labels": {"some": "label"}},
            "spec": spec,
        }
        made = await self.admin.ask("POST", path, document)
        self.assertEqual(made.status, 201, made.body)
        return f"{path}/{name}", made.json

    async def test_who_asks(self) -> None:
        """
        The server says who asks, whatever the request says; nothing is decided yet.
        """
        for version in ("v1", "v1beta1"):
            _, made = await self.make(version)
            self.assertEqual((made["spec"]["username"], made["spec"]["signerName"]), ("admin", SIGNER))
            self.assertIn("system:masters", made["spec"]["groups"])
            self.assertEqual(made["status"], {})

    async def test_approval(self) -> None:
        """
        Through /approval the conditions are written, and nothing of spec or certificate; elsewhere they are not.
        """
        for version in ("v1", "v1beta1"):
            path, made = await self.make(version)
            status = {"conditions": [APPROVED], "certificate": "eHg="}
            changed = {**made, "spec": {**made["spec"], "username": "x"}, "status": status}
            elsewhere = (await self.admin.ask("PUT", path, changed)).json
            self.assertNotIn("conditions", elsewhere["status"])
            changed["metadata"] = elsewhere["metadata"]
            reply = await self.admin.ask("PUT", f"{path}/approval", changed)
            self.assertEqual(reply.status, 200, reply.body)
            condition = reply.json["status"]["conditions"][0]
            self.assertEqual((condition["type"], condition["reason"], condition["message"]), ("Approved", "Test", "said so"))
            self.assertNotIn("certificate", reply.json["status"])
            self.assertEqual((reply.json["spec"], reply.json["metadata"]["labels"]), (made["spec"], {"some": "label"}))

    async def test_approval_of_another_state(self) -> None:
        """
        Who approves what has been changed since meets a Conflict; of a missing request it is Not Found.
        """
        path, made = await self.make("v1")
        approved = {**made, "status": {"conditions": [APPROVED]}}
        self.assertEqual((await self.admin.ask("PUT", f"{path}/approval", approved)).status, 200)
        late = {**made, "status": {"conditions": [{**APPROVED, "message": "late"}]}}
        self.assert_status(await self.admin.ask("PUT", f"{path}/approval", late), 409, "Conflict")
        await self.admin.ask("DELETE", path)
        del approved["metadata"]["uid"]
        self.assert_status(await self.admin.ask("PUT", f"{path}/approval", approved), 404, "NotFound")


class MiniSigningRequestTests(SigningRequestContract, OnMini):
    """
    On the miniature apiserver.
    """


class RealSigningRequestTests(SigningRequestContract, OnReal):
    """
    On the real one.
    """
