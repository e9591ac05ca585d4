"""
Tests for :mod:`yurt.kube.kubeconfig`.
"""

from __future__ import annotations

import json
import os
from base64 import b64encode
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from yurt.kube.kubeconfig import MAX_KUBECONFIG_BYTES, Kubeconfig, KubeconfigError, load_kubeconfig

SECRET = "s3cr3t-of-the-node"
SERVER = "https://10.0.0.1:6443"


class KubeconfigTests(SynchronousTestCase):
    """
    Kubeconfig files.
    """

    def setUp(self) -> None:
        """
        A folder for one file.
        """
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.path = str(self.folder / "kubelet.conf")

    def write(self, cluster: Any, user: Any, **others: Any) -> str:
        """
        Write a kubeconfig with one context.
        """
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "other", "cluster": {"server": "https://elsewhere"}}, {"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        Path(self.path).write_text(yaml.safe_dump({**document, **others}))
        return self.path

    def refused(self, cluster: Any, user: Any, *words: str, **others: Any) -> None:
        """
        Check that such a file is refused in one line with these words and without the secret.
        """
        message = str(self.assertRaises(KubeconfigError, load_kubeconfig, self.write(cluster, user, **others)))
        for word in (self.path, *words):
            self.assertIn(word, message)
        self.assertNotIn("\n", message)
        self.assertNotIn(SECRET, message)

    def test_files(self) -> None:
        """
        Paths in the file are relative to the file's own folder.
        """
        config = load_kubeconfig(
            self.write(
                {"server": SERVER, "certificate-authority": "pki/ca.crt"},
                {"client-certificate": "/pki/n.crt", "client-key": "n.key", "tokenFile": "token"},
            )
        )
        folder = str(self.folder)
        self.assertEqual(
            config,
            Kubeconfig(
                SERVER,
                ca_file=f"{folder}/pki/ca.crt",
                cert_file="/pki/n.crt",
                key_file=f"{folder}/n.key",
                token_file=f"{folder}/token",
            ),
        )

    def test_json(self) -> None:
        """
        A file in JSON says the same as one in YAML, and needs no YAML library.
        """
        expected = load_kubeconfig(self.write({"server": SERVER}, {"token": SECRET}))
        Path(self.path).write_text(json.dumps(yaml.safe_load(Path(self.path).read_text())))
        self.patch(yaml, "load", lambda *_, **__: self.fail("read as YAML"))
        self.assertEqual(load_kubeconfig(self.path), expected)

    def test_data(self) -> None:
        """
        Data in the file go before a path, as with kubectl.
        """
        encoded = b64encode(b"PEM").decode()
        user = {"client-certificate-data": encoded, "client-key-data": encoded, "client-key": "x", "token": SECRET}
        folded = encoded[:2] + "\n" + encoded[2:]
        cluster = {"server": SERVER, "certificate-authority-data": folded, "certificate-authority": "x"}
        config = load_kubeconfig(self.write(cluster, user))
        wanted = Kubeconfig(SERVER, ca_data=b"PEM", cert_data=b"PEM", key_data=b"PEM", token=SECRET)
        self.assertEqual(config, wanted)

    def test_cluster_options(self) -> None:
        """
        Proxy, server name and the waiver of verification are read.
        """
        cluster = {"server": SERVER, "proxy-url": "http://p:1", "tls-server-name": "k", "insecure-skip-tls-verify": True}
        config = load_kubeconfig(self.write(cluster, {}, contexts=[{"name": "x", "context": {"cluster": "c"}}]))
        self.assertEqual(config, Kubeconfig(SERVER, proxy_url="http://p:1", tls_server_name="k", insecure=True))

    def test_secrets_are_not_shown(self) -> None:
        """
        The value can be logged: it shows no key and no token.
        """
        key = b64encode(SECRET.encode()).decode()
        user = {"token": SECRET, "client-key-data": key, "client-certificate-data": key}
        self.assertNotIn(SECRET, repr(load_kubeconfig(self.write({"server": SERVER}, user))))

    def test_unsupported_users(self) -> None:
        """
        What we cannot do is refused by name, with what to do instead.
        """
        for user in (
            {"exec": {"command": "aws", "env": [{"value": SECRET}]}},
            {"auth-provider": {"name": "gcp", "config": {"access-token": SECRET}}},
            {"username": "admin", "password": SECRET},
            {"as": "root"},
        ):
            self.refused({"server": SERVER}, user, "user 'u'", "client certificate", "token file")

    def test_bad_values(self) -> None:
        """
        Wrong values are refused with the place where they stand.
        """
        cluster = {"server": SERVER}
        for server in (None, "", "10.0.0.1:6443", "ftp://x", "https://", "https://x:y", "https://[::1", 5):
            self.refused({"server": server}, {}, "cluster 'c'", "server")
        self.refused({**cluster, "certificate-authority": "x", "insecure-skip-tls-verify": True}, {}, "cluster 'c'", "remove one")
        self.refused({**cluster, "certificate-authority-data": "?"}, {}, "certificate-authority-data", "base64")
        self.refused(cluster, {"client-key-data": SECRET, "client-certificate": "x"}, "user 'u'", "client-key-data", "base64")
        self.refused(cluster, {"client-certificate": "x"}, "user 'u'", "client-key")
        self.refused(cluster, {"token": [SECRET]}, "user 'u'", "token")

    def test_missing_sections(self) -> None:
        """
        A context, cluster or user that is named but missing is told.
        """
        cluster = {"server": SERVER}
        self.refused(cluster, {}, "current-context", **{"current-context": ""})
        self.refused(cluster, {}, "context 'y'", **{"current-context": "y"})
        self.refused(cluster, {}, "user 'u'", users=None)
        self.refused(None, {}, "cluster 'c'")
        self.refused(cluster, {}, "context 'x'", contexts=[{"name": "x", "context": {"user": "u"}}])

    def test_no_kubeconfig(self) -> None:
        """
        A file that is absent, huge, or no YAML is told, and not quoted.
        """
        self.assertIn("No such file", str(self.assertRaises(KubeconfigError, load_kubeconfig, self.path)))
        self.assertIn("directory", str(self.assertRaises(KubeconfigError, load_kubeconfig, str(self.folder))))
        bad_yaml = (f"token: {SECRET}\n  x: [", f"{SECRET}: *{SECRET}", "\0")
        for content in (*bad_yaml, f"[{SECRET}]", "", "x" * (MAX_KUBECONFIG_BYTES + 1)):
            Path(self.path).write_text(content)
            message = str(self.assertRaises(KubeconfigError, load_kubeconfig, self.path))
            self.assertIn(self.path, message)
            self.assertNotIn(SECRET, message)
            self.assertNotIn("\n", message)

    @given(st.binary())
    def test_any_bytes(self, content: bytes) -> None:
        """
        Any file gives a KubeconfigError or a configuration.
        """
        Path(self.path).write_bytes(content)
        try:
            load_kubeconfig(self.path)
        except KubeconfigError:
            pass

    def test_real_file(self) -> None:
        """
        JSON is YAML, and a relative path to the file keeps working.
        """
        Path(self.path).write_text(
            '{"clusters":[{"name":"c","cluster":{"server":"http://[::1]:8080","certificate-authority":"ca"}}],'
            '"contexts":[{"name":"x","context":{"cluster":"c","user":""}}],"current-context":"x"}'
        )
        relative = os.path.relpath(self.path)
        self.assertEqual(load_kubeconfig(relative).ca_file, os.path.join(os.path.dirname(relative), "ca"))
