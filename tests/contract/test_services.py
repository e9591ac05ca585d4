"""
The contract for Services, as DNS mode uses them.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from .subjects import Contract, OnMini, OnReal

HTTPS = {"name": "https", "port": 10250, "protocol": "TCP", "targetPort": 10263}


class ServiceContract(Contract):
    """
    What holds of Services.
    """

    async def service(self, *ports: dict[str, Any], **spec: Any) -> tuple[str, dict[str, Any]]:
        """
        The path and the state of a new Service.
        """
        path = f"{await self.namespace()}/services"
        made = await self.create(path, "one", spec={"ports": list(ports), **spec})
        return f"{path}/one", made

    async def test_defaults(self) -> None:
        """
        A Service gets an address of its own, and its ports a protocol and a target.
        """
        _, made = await self.service({"name": "web", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"})
        self.assertTrue(ip_address(made["spec"]["clusterIP"]))
        self.assertEqual(made["spec"]["type"], "ClusterIP")
        self.assertEqual(
            made["spec"]["ports"],
            [
                {"name": "web", "port": 80, "protocol": "TCP", "targetPort": 80},
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
            ],
        )

    async def test_headless(self) -> None:
        """
        A Service may go without an address.
        """
        _, made = await self.service(HTTPS, clusterIP="None")
        self.assertEqual(made["spec"]["clusterIP"], "None")

    async def test_ports_change(self) -> None:
        """
        Ports are added and taken away by an update; address and other ports stay as they were.
        """
        path, made = await self.service(HTTPS)
        more = [HTTPS, {"name": "dnat-9100", "port": 9100, "protocol": "TCP", "targetPort": 10264}]
        changed = await self.admin.ask("PUT", path, {**made, "spec": {**made["spec"], "ports": more}})
        self.assertEqual((changed.status, changed.json["spec"]["ports"]), (200, more), changed.body)
        self.assertEqual(changed.json["spec"]["clusterIP"], made["spec"]["clusterIP"])
        late = await self.admin.ask("PUT", path, {**made, "spec": {**made["spec"], "ports": []}})
        self.assertIn(late.status, (409, 422))
        back = await self.admin.ask("PUT", path, {**changed.json, "spec": {**changed.json["spec"], "ports": [HTTPS]}})
        self.assertEqual((back.status, back.json["spec"]["ports"]), (200, [HTTPS]), back.body)

    async def test_unchanged(self) -> None:
        """
        An update that changes nothing makes no new resourceVersion.
        """
        path, made = await self.service(HTTPS)
        again = await self.admin.ask("PUT", path, made)
        self.assertEqual(again.json["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"])

    async def test_port_twice(self) -> None:
        """
        One number twice in one protocol is Invalid; in two protocols it is not.
        """
        path, made = await self.service(HTTPS)
        twice = [HTTPS, {"name": "again", "port": 10250, "protocol": "TCP", "targetPort": 1}]
        refused = await self.admin.ask("PUT", path, {**made, "spec": {**made["spec"], "ports": twice}})
        self.assert_status(refused, 422, "Invalid", "Duplicate value")
        other = [HTTPS, {"name": "again", "port": 10250, "protocol": "UDP", "targetPort": 1}]
        self.assertEqual((await self.admin.ask("PUT", path, {**made, "spec": {**made["spec"], "ports": other}})).status, 200)


class MiniServiceTests(ServiceContract, OnMini):
    """
    On the miniature apiserver.
    """


class RealServiceTests(ServiceContract, OnReal):
    """
    On the real one.
    """
