"""
Links of the running kernel, through pyroute2.

Imported by the short-lived child only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_interface
from types import TracebackType
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from yurt.host.errors import LinkError
from yurt.host.links import AddAddress, CreateLink, DeleteLink, LinkEdit, RemoveAddress, SeenLink, SetUp

_EPERM, _ENOENT, _EACCES, _ENODEV, _EOPNOTSUPP = 1, 2, 13, 19, 95
_NOT_PERMITTED = "operation not permitted (needs CAP_NET_ADMIN)"
_IPV6_OFF = "permission denied (is IPv6 off, net.ipv6.conf.*.disable_ipv6?)"
_IFF_UP = 1
_IFLA_TUN_TAP = 2  # IFLA_TUN_TYPE: IFF_TUN is 1, IFF_TAP is 2 (linux/if_tun.h)
# Nobody else can have a host address of ours, and a TAP link without a reader has no carrier, where the detection of
# duplicates would not end and the address stay unusable.
_IFA_F_NODAD = 0x02


class KernelLinks:
    """
    The links of the network namespace this process is in.
    """

    def __init__(self) -> None:
        self._route = IPRoute()

    def __enter__(self) -> KernelLinks:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._route.close()

    def see(self, name: str) -> SeenLink | None:
        """
        Read one link; None when there is none of that name.  Raises LinkError.
        """
        with _named("reading it", name):
            message = self._get(name)
            if message is None:
                return None
            addresses = frozenset(
                f"{a.get('IFA_LOCAL') or a.get('IFA_ADDRESS')}/{a['prefixlen']}"
                for a in self._route.get_addr(index=message["index"])
            )
        return SeenLink(name, _kind(message), bool(message["flags"] & _IFF_UP), addresses)

    def apply(self, edit: LinkEdit) -> None:
        """
        Make one change.  Raises LinkError.
        """
        match edit:
            case CreateLink(name, kinds):
                self._create(name, kinds)
            case DeleteLink(name):
                with _named("deleting it", name):
                    self._route.link("del", index=self._index(name))
            case SetUp(name):
                with _named("setting it up", name):
                    self._route.link("set", index=self._index(name), state="up")
            case AddAddress(name, address):
                with _named(f"adding {address}", name, _IPV6_OFF):
                    self._address("add", name, address)
            case RemoveAddress(name, address):
                with _named(f"removing {address}", name):
                    self._address("del", name, address)

    def _create(self, name: str, kinds: tuple[str, ...]) -> None:
        for kind in kinds:
            try:
                with _named(f"creating it as {kind}", name):
                    self._add(name, kind)
                return
            except LinkError as error:
                absent = isinstance(error.__cause__, NetlinkError) and error.__cause__.code == _EOPNOTSUPP
                if not absent or kind == kinds[-1]:
                    raise

    def _add(self, name: str, kind: str) -> None:
        if kind == "tap":
            self._route.link("add", ifname=name, kind="tuntap", mode="tap")
        else:
            self._route.link("add", ifname=name, kind=kind)

    def _address(self, command: str, name: str, address: str) -> None:
        interface = ip_interface(address)
        flags: dict[str, int] = {"flags": _IFA_F_NODAD} if command == "add" and interface.version == 6 else {}
        self._route.addr(
            command, index=self._index(name), address=str(interface.ip), prefixlen=interface.network.prefixlen, **flags
        )

    def _get(self, name: str) -> Any:
        try:
            return next(iter(self._route.link("get", ifname=name)), None)
        except NetlinkError as error:
            if error.code == _ENODEV:
                return None
            raise

    def _index(self, name: str) -> int:
        message = self._get(name)
        if message is None:
            raise NetlinkError(_ENODEV, "No such device")
        return int(message["index"])


def _kind(message: Any) -> str:
    kind = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")
    if kind == "tun":
        data = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
        return "tap" if data is not None and data.get("IFLA_TUN_TYPE") == _IFLA_TUN_TAP else "tun"
    return str(kind) if kind else "device"


@contextmanager
def _named(doing: str, name: str, denied: str = _NOT_PERMITTED) -> Iterator[None]:
    """
    Turn what the kernel refuses into a message that says what to do.
    """
    try:
        yield
    except (NetlinkError, OSError) as error:
        code = error.code if isinstance(error, NetlinkError) else error.errno
        reasons = {
            _EPERM: _NOT_PERMITTED,
            _EACCES: denied,
            _ENOENT: "no /dev/net/tun (load the kernel module tun)",
            _EOPNOTSUPP: "the kernel has no such link type (load its module, or use --link-kind auto)",
        }
        reason = reasons.get(code or 0) or (error.args[1] if len(error.args) > 1 else error)
        raise LinkError(f"link {name}: {doing}: {reason}") from error
