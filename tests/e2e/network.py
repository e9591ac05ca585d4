"""
The network of a test cluster: namespaces on one bridge, whose ports can be pulled out.
"""

from __future__ import annotations

import os
from pathlib import Path

from .process import E2EError, run

PREFIX = "y2e"
"""Begins the name of everything that is made here; the pid of its owner follows, so that leftovers are known."""
UPLINK = "uplink"


def prefix_of(pid: int) -> str:
    return f"{PREFIX}-{pid}"


class Network:
    """
    One bridge in a namespace of its own, and namespaces plugged into it.
    """

    def __init__(self, subnet: str = "10.99.0") -> None:
        self.subnet = subnet
        self.prefix = prefix_of(os.getpid())
        self.bridge_namespace = f"{self.prefix}-wan"
        self._ports: dict[str, str] = {}

    def start(self) -> None:
        run(["ip", "netns", "add", self.bridge_namespace])
        self._ip(self.bridge_namespace, "link", "add", "wan", "type", "bridge")
        for device in ("lo", "wan"):
            self._ip(self.bridge_namespace, "link", "set", device, "up")

    def _ip(self, namespace: str, *arguments: str) -> str:
        return run(["ip", "-n", namespace, *arguments])

    def add(self, name: str, number: int, *, gateway: int = 0) -> str:
        """
        A new namespace whose address ends in ``number``; answers its name.
        """
        namespace = f"{self.prefix}-{name}"
        port = f"up{number}"
        run(["ip", "netns", "add", namespace])
        self._ip(namespace, "link", "set", "lo", "up")
        run(
            [
                "ip",
                "link",
                "add",
                port,
                "netns",
                self.bridge_namespace,
                "type",
                "veth",
                "peer",
                "name",
                UPLINK,
                "netns",
                namespace,
            ]
        )
        self._ip(self.bridge_namespace, "link", "set", port, "master", "wan", "up")
        self._ip(namespace, "addr", "add", f"{self.address(number)}/24", "dev", UPLINK)
        self._ip(namespace, "link", "set", UPLINK, "up")
        if gateway:  # packets to service addresses need some route before they reach DNAT
            self._ip(namespace, "route", "add", "default", "via", self.address(gateway))
        self._ports[namespace] = port
        return namespace

    def address(self, number: int) -> str:
        return f"{self.subnet}.{number}"

    def add_address(self, namespace: str, number: int) -> str:
        """
        One more address for a namespace.
        """
        self._ip(namespace, "addr", "add", f"{self.address(number)}/24", "dev", UPLINK)
        return self.address(number)

    def route(self, namespace: str, destination: str, number: int) -> None:
        self._ip(namespace, "route", "replace", destination, "via", self.address(number))

    def cut(self, namespace: str) -> None:
        """
        Pull the cable: packets vanish in silence, links stay up.
        """
        self._ip(self.bridge_namespace, "link", "set", self._ports[namespace], "nomaster")

    def heal(self, namespace: str) -> None:
        self._ip(self.bridge_namespace, "link", "set", self._ports[namespace], "master", "wan")

    def stop(self) -> None:
        delete_namespaces(self.prefix)


def delete_namespaces(prefix: str) -> None:
    """
    Delete the network namespaces of that owner.
    """
    for path in sorted(Path("/run/netns").glob(f"{prefix}-*")):
        try:
            run(["ip", "netns", "del", path.name])
        except E2EError:
            if path.exists():
                raise
