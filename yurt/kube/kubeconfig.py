"""
Kubeconfig files: where the API server is, and who we are to it.

Format: ``k8s.io/client-go/tools/clientcmd/api/v1``.  What a file says of secrets never gets into an error.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

MAX_KUBECONFIG_BYTES = 1024 * 1024
"""A larger file is no kubeconfig."""

_UNSUPPORTED = {
    "exec": "runs a credential plugin",
    "auth-provider": "uses an auth-provider plugin",
    "username": "has a user name and password",
    "password": "has a user name and password",
    "as": "impersonates somebody",
}


class KubeconfigError(ValueError):
    """
    A kubeconfig that cannot be read or used; the message is one line and says what to do.
    """


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """
    The current context of a kubeconfig.

    Of a pair ``…_file`` and ``…_data`` at most one is set, as data in the file go before a path.  Paths are absolute, or relative
    to the working directory if the kubeconfig's own path was; data are PEM.
    """

    server: str
    ca_file: str | None = None
    ca_data: bytes | None = field(default=None, repr=False)
    cert_file: str | None = None
    cert_data: bytes | None = field(default=None, repr=False)
    key_file: str | None = None
    key_data: bytes | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    token_file: str | None = None
    proxy_url: str | None = field(default=None, repr=False)
    tls_server_name: str | None = None
    insecure: bool = False


def load_kubeconfig(path: str) -> Kubeconfig:
    """
    Read the current context of a kubeconfig file.  Raises KubeconfigError.
    """
    document = _read_document(path)
    context_name = document.get("current-context")
    if not isinstance(context_name, str) or not context_name:
        raise KubeconfigError(f"{path}: no current-context; choose one with kubectl config use-context")
    context = _Section(path, "context", context_name, document)
    cluster = _Section(path, "cluster", context.required_text("cluster"), document)
    user_name = context.text("user")
    user = _Section(path, "user", user_name, document) if user_name else None
    located = _locate(cluster)
    return located if user is None else _identify(located, user)


def _read_document(path: str) -> Mapping[str, Any]:
    """
    The file's content.  Where it is JSON, as what the hub writes when it joins, no YAML is imported: a twentieth of a start.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_KUBECONFIG_BYTES + 1)
    except OSError as error:
        raise KubeconfigError(f"{path}: cannot read this kubeconfig: {error.strerror}") from error
    if len(content) > MAX_KUBECONFIG_BYTES:
        raise KubeconfigError(f"{path}: larger than {MAX_KUBECONFIG_BYTES} bytes, so this is no kubeconfig")
    try:
        document = msgspec.json.decode(content)
    except (msgspec.MsgspecError, RecursionError):
        document = _read_yaml(path, content)
    if not isinstance(document, dict):
        raise KubeconfigError(f"{path}: not a kubeconfig; one has clusters, users and contexts")
    return document


def _read_yaml(path: str, content: bytes) -> Any:
    import yaml  # costs time and memory, and is of no use later

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(content, Loader=loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark is not None else ""
        raise KubeconfigError(f"{path}: not valid YAML{where}") from None  # its text would quote the file


class _Section:
    """
    One named cluster, user or context, with errors that say where a value stands.
    """

    def __init__(self, path: str, kind: str, name: str, document: Mapping[str, Any]) -> None:
        self._path, self._where = path, f"{path}: {kind} {name!r}"
        entries = document.get(f"{kind}s")
        found = [entry for entry in entries if _is_named(entry, name)] if isinstance(entries, list) else []
        if not found:
            raise KubeconfigError(f"{self._where} is named but not there")
        values = found[0].get(kind)
        if not isinstance(values, dict):
            raise KubeconfigError(f"{self._where} is empty")
        self._values = values

    def error(self, message: str) -> KubeconfigError:
        return KubeconfigError(f"{self._where} {message}")

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) not in (None, "", False)

    def text(self, key: str) -> str | None:
        value = self._values.get(key)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise self.error(f"has a {key} that is no text")
        return value

    def required_text(self, key: str) -> str:
        value = self.text(key)
        if value is None:
            raise self.error(f"has no {key}")
        return value

    def file(self, key: str) -> str | None:
        value = self.text(key)
        return None if value is None else str(Path(self._path).parent / value)

    def file_or_data(self, key: str) -> tuple[str | None, bytes | None]:
        data = self.text(f"{key}-data")
        if data is None:
            return self.file(key), None
        try:
            return None, base64.b64decode("".join(data.split()), validate=True)
        except (binascii.Error, ValueError):
            raise self.error(f"has a {key}-data that is not base64") from None


def _is_named(entry: Any, name: str) -> bool:
    return isinstance(entry, dict) and entry.get("name") == name


def _locate(cluster: _Section) -> Kubeconfig:
    server = cluster.required_text("server")
    try:
        url = urlsplit(server)
        usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise cluster.error("has a server that is no URL; write https://host:port")
    ca_file, ca_data = cluster.file_or_data("certificate-authority")
    insecure = "insecure-skip-tls-verify" in cluster
    if insecure and (ca_file or ca_data):
        raise cluster.error("has both a certificate-authority and insecure-skip-tls-verify; remove one")
    return Kubeconfig(
        server=server,
        ca_file=ca_file,
        ca_data=ca_data,
        proxy_url=cluster.text("proxy-url"),
        tls_server_name=cluster.text("tls-server-name"),
        insecure=insecure,
    )


def _identify(located: Kubeconfig, user: _Section) -> Kubeconfig:
    for key, what in _UNSUPPORTED.items():
        if key in user:
            raise user.error(f"{what}, which is not supported; give it a client certificate or a token file")
    cert_file, cert_data = user.file_or_data("client-certificate")
    key_file, key_data = user.file_or_data("client-key")
    if bool(cert_file or cert_data) != bool(key_file or key_data):
        raise user.error("has one of client-certificate and client-key; it needs both or neither")
    return replace(
        located,
        cert_file=cert_file,
        cert_data=cert_data,
        key_file=key_file,
        key_data=key_data,
        token=user.text("token"),
        token_file=user.file("tokenFile"),
    )
