"""
What can go wrong on the machine.
"""

from __future__ import annotations


class HostError(Exception):
    """
    A step on the machine failed; the message says which, on what, why, and what to do.
    """


class LinkError(HostError, ValueError):
    """
    A link cannot be had as it was asked for.
    """


class FirewallError(HostError):
    """
    The firewall rules cannot be read or changed.
    """


class NoFirewall(FirewallError):
    """
    There is no iptables on this host, and so no rule of ours.
    """


class NotApplied(FirewallError):
    """
    The firewall rules were read, and could not be changed.
    """
