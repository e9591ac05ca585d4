"""
Tests of :mod:`yurt.hub.earlier`: a node whose kubeconfig was damaged lives on its cache.
"""

from __future__ import annotations

import json

from twisted.trial.unittest import TestCase

from tests.certs import issue, make_ca
from tests.command_line import CommandLineCase
from tests.hub.site import Site, source, until
from yurt.hub import service as hub_service
from yurt.hub.config import NodeCredentials
from yurt.hub.earlier import known_servers, remember
from yurt.hub.tap import Options

MAPS = "/api/v1/namespaces/default/configmaps"
TORN = {
    "empty": "",
    "zeroed": "\0" * 500,
    "cut": "apiVersion: v1\nclusters:\n- cluster:\n    server: https://10.0.",
    "cut before the user's key": (
        "apiVersion: v1\nclusters: [{name: k, cluster: {server: 'https://a', certificate-authority-data: eA==}}]\n"
        "contexts: [{name: c, context: {cluster: k, user: u}}]\ncurrent-context: c\nusers: [{name: u, user: {}}]\n"
    ),
}


class TornTests(CommandLineCase[Options]):
    """
    The command line of a hub that starts after a power cut.
    """

    daemon = "yurthub"
    options = Options

    def words(self, text: str) -> list[str]:
        """
        The options, with a kubeconfig of that text.
        """
        (self.folder / "kubeconfig").write_text(text)
        folders = [f"--root-dir={self.folder}/own", f"--disk-cache-path={self.folder}/cache"]
        return ["--node-name=n1", f"--kubeconfig={self.folder}/kubeconfig", *folders]

    def test_worked_before(self) -> None:
        """
        A hub whose kubeconfig has worked before starts without identity, with the servers that it had.
        """
        for what, text in TORN.items():
            with self.subTest(what):
                words = self.words(text)
                remember(f"{self.folder}/own", f"{self.folder}/other", ("https://10.0.0.1:6443",))
                self.assertIn("--kubeconfig", self.problem(*words))
                remember(f"{self.folder}/own", f"{self.folder}/kubeconfig", ("https://10.0.0.1:6443", "https://10.0.0.2:6443"))
                config = self.parse(*words).config
                self.assertTrue(config.credentials.awaited)
                is_cut_late = what == "cut before the user's key"
                servers = ("https://a:443",) if is_cut_late else ("https://10.0.0.1:6443", "https://10.0.0.2:6443")
                self.assertEqual(config.servers, servers)

    def test_missing(self) -> None:
        """
        So does one whose kubeconfig is gone.
        """
        words = self.words("")
        (self.folder / "kubeconfig").unlink()
        self.assertIn("No such file", self.problem(*words))
        remember(f"{self.folder}/own", f"{self.folder}/kubeconfig", ("https://10.0.0.1:6443",))
        self.assertTrue(self.parse(*words).config.credentials.awaited)

    def test_torn_certificate(self) -> None:
        """
        And one that was given files, of which one is torn.
        """
        ca = make_ca()
        node = issue(ca, "system:node:n1", ["system:nodes"])
        for name, content in (("ca", ca.cert_pem), ("cert", b""), ("key", node.key_pem)):
            (self.folder / name).write_bytes(content)
        words = ["--node-name=n1", "--server-addr=10.0.0.1:6443", f"--root-dir={self.folder}/own"]
        words += [f"--{name}-file={self.folder}/{name}" for name in ("ca", "cert", "key")]
        self.problem(*words)
        remember(f"{self.folder}/own", f"{self.folder}/cert", ())
        self.assertTrue(self.parse(*words).config.credentials.awaited)


class ServedTests(TestCase):
    """
    A hub whose kubeconfig is torn when it starts.
    """

    timeout = 60

    async def test_torn(self) -> None:
        """
        It serves its cache and says why; when the file is whole again it is online.
        """
        self.patch(hub_service, "AWAITED_INTERVAL", 0.05)
        site = Site(self)
        path = site.folder.resolve() / "kubeconfig"
        cluster = {"server": site.api.url, "certificate-authority": "ca.pem", "tls-server-name": "localhost"}
        user = {"client-certificate": "node.pem", "client-key": "node.key"}
        whole = json.dumps(
            {
                "current-context": "c",
                "clusters": [{"name": "k", "cluster": cluster}],
                "users": [{"name": "u", "user": user}],
                "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            }
        )
        path.write_text(whole)
        await site.start_online(kubeconfig=str(path))
        await until(lambda: known_servers(site.config.root_dir), "the servers are remembered")
        self.assertEqual(known_servers(site.config.root_dir), (site.api.url,))
        await site.get(MAPS)
        path.write_text(whole[:100])
        await site.restart(credentials=NodeCredentials(awaited=True))
        self.assertEqual(source(await site.get(MAPS)), "cache")
        (reason,) = (await site.admin("/v1/readyz")).json["reasons"]
        self.assertIn(f"the node has no identity: {path}", reason)
        path.write_text(whole)
        await until(lambda: not site.service.refusal(), "the kubeconfig is read again")
        await site.online()
        self.assertEqual(source(await site.get(MAPS)), "cloud")
