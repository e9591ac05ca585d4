"""
A look at the legacy table nat that costs one system call: how many bytes of rules stand in its chain OUTPUT.

Source: struct ipt_getinfo and IPT_SO_GET_INFO of linux/netfilter_ipv4/ip_tables.h, and their twins of ip6_tables.h.
"""

from __future__ import annotations

import ctypes
import socket
import struct

from yurt.host.firewall import Family

_GET_INFO = 64
_INFO = struct.Struct("=32sI5I5III")  # name, valid_hooks, hook_entry, underflow, num_entries, size
_HOOK_ENTRY, _UNDERFLOW = 2, 7
_LOCAL_OUT = 3
_FAMILIES = {"ipv4": (socket.AF_INET, socket.IPPROTO_IP), "ipv6": (socket.AF_INET6, socket.IPPROTO_IPV6)}

_libc = ctypes.CDLL(None)  # socket.getsockopt hands nothing in, and the kernel wants the table's name


def output_bytes(family: Family) -> int:
    """
    The size of all rules in OUTPUT; -1 where there is no such table, or no right to see it.  It loads the table where nobody uses
    it yet, so it is for hosts that do.
    """
    kind, level = _FAMILIES[family]
    info = ctypes.create_string_buffer(b"nat", _INFO.size)
    try:
        with socket.socket(kind, socket.SOCK_DGRAM) as handle:
            if _libc.getsockopt(handle.fileno(), level, _GET_INFO, info, ctypes.byref(ctypes.c_uint32(_INFO.size))):
                return -1
    except OSError:
        return -1
    told = _INFO.unpack(info.raw)
    return int(told[_UNDERFLOW + _LOCAL_OUT] - told[_HOOK_ENTRY + _LOCAL_OUT])
