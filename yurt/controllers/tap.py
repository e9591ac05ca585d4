"""
``twistd yurt-controller-manager``: its options, and the service they describe.
"""

from __future__ import annotations

import os
import re
from typing import cast

from twisted.application.service import IService
from twisted.internet.base import ReactorBase
from twisted.python import usage

from yurt import __version__, logs
from yurt.controllers.choice import choose
from yurt.controllers.config import LEASE, ControllersConfig
from yurt.controllers.registry import NAMES
from yurt.kube.kubeconfig import KubeconfigError, load_kubeconfig
from yurt.lifecycle import raise_file_limit, stop_once, use_steady_time
from yurt.options import Option, address, comma_list, duration, host_port, integer
from yurt.options import Options as DeclaredOptions
from yurt.tls import CredentialsError

MAX_WORKERS = 64
"""Most objects of one kind that are worked on at the same time: as many connections as the client keeps."""

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def absolute(path: str) -> str:
    """
    A path that means the same after a daemon has left its folder; an empty text stays empty.
    """
    return os.path.abspath(path) if path else ""


def listener(text: str) -> tuple[str, int] | None:
    """
    Address and port of ``127.0.0.1:10271`` or ``:10271``, which is all of IPv4 and IPv6; None for an empty text or ``0``.
    """
    if text in ("", "0"):
        return None
    host, number = host_port(f"[::]{text}" if text.startswith(":") else text, 0)
    if not number:
        raise ValueError("write address:port")
    return address(host), number


def addresses(text: str) -> tuple[str, ...]:
    """
    IP addresses of a comma list.
    """
    return tuple(address(part) for part in comma_list(text))


def namespace(text: str) -> str:
    """
    The name of a namespace.
    """
    if not _NAMESPACE.fullmatch(text):
        raise ValueError("write the name of a namespace")
    return text


class Options(DeclaredOptions):
    """
    The options of the controllers; :attr:`config` is what they say together.
    """

    program = "yurt-controller-manager"
    version_text = __version__
    synopsis = "--kubeconfig=FILE [options]"
    longdesc = (
        "Looks after the cloud's side of the edge: approves the certificates that yurt's daemons ask for.  Of several processes "
        f"one leads, by Lease {LEASE}."
    )
    declared = (
        Option("kubeconfig", "", "kubeconfig for the cluster", absolute),
        Option(
            "controllers",
            "*",
            f"controllers that run, comma separated: * for all, NAME, -NAME for not that one; there are: {', '.join(NAMES)}",
            comma_list,
        ),
        Option("metrics-addr", "127.0.0.1:10271", "address of the pages: health, readiness, status, metrics; 0: none", listener),
        Option("health-probe-addr", "", "another address of the same pages", listener),
        Option("working-namespace", "kube-system", f"namespace of Lease {LEASE}", namespace),
        Option("min-resync-period", "12h", "everything is looked at again after this time, or up to twice as long", duration),
        Option("dummy-if-ip", "169.254.2.1,fd00::2:1", "addresses at which pods reach the hubs, as yurthub has them", addresses),
        Option(
            "concurrent-csr-approver-workers", "3", "nodes whose requests are looked at at the same time", integer(1, MAX_WORKERS)
        ),
    )
    config: ControllersConfig

    def postOptions(self) -> None:
        """
        Make the one value of all options, or say what is wrong with them.
        """
        if not self["kubeconfig"]:
            raise usage.UsageError("--kubeconfig is missing: give the file with the cluster's address and this daemon's identity")
        try:
            kubeconfig = load_kubeconfig(self["kubeconfig"])
        except KubeconfigError as error:
            raise usage.UsageError(f"--kubeconfig: {error}") from None
        try:
            controllers = choose(self["controllers"], NAMES)
        except ValueError as error:
            raise usage.UsageError(f"--controllers: {error}") from None
        if self["min-resync-period"] <= 0:
            raise usage.UsageError("--min-resync-period is 0: give a time, such as 12h")
        self.config = ControllersConfig(
            kubeconfig=kubeconfig,
            controllers=controllers,
            metrics_addr=self["metrics-addr"],
            health_probe_addr=self["health-probe-addr"],
            working_namespace=self["working-namespace"],
            min_resync_period=self["min-resync-period"],
            dummy_if_ips=frozenset(self["dummy-if-ip"]),
            csr_approver_workers=self["concurrent-csr-approver-workers"],
        )


def makeService(options: Options) -> IService:
    """
    The controllers as a service; nothing happens before it is started.
    """
    from twisted.internet import reactor

    from yurt.controllers.service import ControllerManager

    use_steady_time(cast(ReactorBase, reactor))
    stop_once(cast(ReactorBase, reactor))
    logs.guard()  # before twistd adds the observer that writes
    raise_file_limit()
    try:
        return ControllerManager(reactor, options.config)
    except (KubeconfigError, CredentialsError) as error:
        raise SystemExit(f"{options.program}: --kubeconfig: {error}") from None
