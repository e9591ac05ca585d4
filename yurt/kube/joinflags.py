"""
The options by which a daemon is told how to join a cluster; their names are kubeadm's and OpenYurt's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from twisted.python import usage

from yurt.kube.bootstrap import BootstrapError, parse_ca_hash, parse_token
from yurt.kube.joining import NO_PIN, JoinSettings
from yurt.options import Option, boolean, comma_list


def _absolute(path: str) -> str:
    return os.path.abspath(path) if path else ""


def _ca_hashes(text: str) -> tuple[str, ...]:
    """
    Pins of a comma list.
    """
    return tuple(map(parse_ca_hash, comma_list(text)))


JOIN_OPTIONS = (
    Option("join-token", "", "bootstrap token, or better the path of a file with one, which is removed once it has served"),
    Option("bootstrap-file", "", "kubeconfig to join with, removed once it has served", _absolute),
    Option(
        "discovery-token-ca-cert-hash",
        "",
        "pin of the cluster's CA, sha256:…, as kubeadm prints it; comma separated if there are several",
        _ca_hashes,
        many=True,
    ),
    Option(
        "discovery-token-unsafe-skip-ca-verification",
        "false",
        "trust any CA that whoever has the token vouches for",
        boolean,
    ),
)


def read_join_settings(options: Mapping[str, Any], servers: tuple[str, ...]) -> JoinSettings:
    """
    What JOIN_OPTIONS say together.  Raises usage.UsageError, in which a token is never shown.
    """
    token = options["join-token"]
    if os.sep in token:
        token = _absolute(token)
    elif token:
        try:
            parse_token(token)
        except BootstrapError as error:
            raise usage.UsageError(f"--join-token: {error}; the path of a file has a slash in it") from None
    pins, unsafe = options["discovery-token-ca-cert-hash"], options["discovery-token-unsafe-skip-ca-verification"]
    if token and not pins and not unsafe:
        raise usage.UsageError(NO_PIN)
    return JoinSettings(servers, token, options["bootstrap-file"], frozenset(pins), unsafe)
