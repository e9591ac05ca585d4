"""
Tests of the agent's command line.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase

from tests.certs import issue, make_ca
from tests.command_line import CommandLineCase
from yurt.tls import Credentials
from yurt.tunnel.agent.tap import RESOLVER_OPTIONS, Options, makeService

AUTHORITY = make_ca()


class OptionsTests(CommandLineCase[Options]):
    """
    Tests of Options.
    """

    daemon = "yurt-tunnel-agent"
    options = Options

    def setUp(self) -> None:
        super().setUp()
        node = issue(AUTHORITY, "system:node:edge-1", ["system:nodes"])
        openyurt = issue(AUTHORITY, "tunnel-agent-client", ["openyurt:yurttunnel"], dns=["edge-1"])
        for name, content in (
            ("ca.pem", AUTHORITY.cert_pem),
            ("node.pem", node.cert_pem),
            ("node.key", node.key_pem),
            ("both.pem", openyurt.cert_pem + openyurt.key_pem),
            ("admin.pem", issue(AUTHORITY, "kubernetes-admin").cert_pem),
            ("other.key", issue(AUTHORITY, "x").key_pem),
            ("empty", b""),
        ):
            (self.folder / name).write_bytes(content)
        for name in ("NODE_NAME", "NODE_IP"):
            self.patch(os, "environ", {key: value for key, value in os.environ.items() if key != name})
        self.tls = [
            f"--tls-cert-file={self.folder}/node.pem",
            f"--tls-private-key-file={self.folder}/node.key",
            f"--client-ca-file={self.folder}/ca.pem",
        ]
        self.good = ["--tunnelserver-addr=tunnel.test", "--node-name=edge-1", *self.tls]

    def test_defaults(self) -> None:
        """
        The defaults are OpenYurt's where it has them.
        """
        config = self.parse(*self.good).config
        self.assertEqual(config.servers, (("tunnel.test", 10262),))
        self.assertEqual((config.node_name, config.node_ips), ("edge-1", ()))
        self.assertEqual((config.meta_host, config.meta_port), ("127.0.0.1", 10266))
        self.assertEqual((sorted(config.ports), config.drain_timeout), ([10250, 10255], 30.0))

    def test_all(self) -> None:
        """
        Every option finds its way into the configuration.
        """
        config = self.parse(
            *self.good, "--tunnelserver-addr=10.0.0.1:443, [fd00::1]:1", "--tunnelserver-addr=tunnel.test:10262,fd00::2",
            "--node-ip=fd00::8,10.0.0.8", "--allowed-ports=10266,10267", "--allowed-ports=9100", "--meta-port=0",
            "--drain-timeout=5s",
        ).config  # fmt: skip
        self.assertEqual(config.servers, (("tunnel.test", 10262), ("10.0.0.1", 443), ("fd00::1", 1), ("fd00::2", 10262)))
        self.assertEqual((config.node_ips, config.meta_host), (("fd00::8", "10.0.0.8"), "::1"))
        self.assertEqual(sorted(config.ports), [9100, 10250, 10255, 10266, 10267])
        self.assertEqual((config.meta_port, config.drain_timeout), (0, 5.0))
        self.assertEqual(self.parse(*self.good, "--meta-host=10.0.0.8").config.meta_host, "10.0.0.8")

    def test_environment(self) -> None:
        """
        Name and address of the node may come from the environment, as in OpenYurt's DaemonSet; options win.
        """
        os.environ |= {"NODE_NAME": "edge-1", "NODE_IP": "10.0.0.8"}
        config = self.parse(self.good[0], *self.tls).config
        self.assertEqual((config.node_name, config.node_ips), ("edge-1", ("10.0.0.8",)))
        self.assertEqual(self.parse(*self.good, "--node-ip=10.0.0.9").config.node_ips, ("10.0.0.9",))
        os.environ["NODE_IP"] = "edge"
        self.assertIn("NODE_IP='edge' in the environment", self.problem(*self.good))

    def test_proxy(self) -> None:
        """
        The environment's proxy leads to the servers that NO_PROXY does not name; the password in its URL is not shown.
        """
        os.environ |= {"HTTPS_PROXY": "http://user:secret@10.0.0.1:3128", "NO_PROXY": "10.1.0.0/16"}
        config = self.parse(*self.good, "--tunnelserver-addr=tunnel.example.com,10.1.0.1,[fd00::1]").config
        proxied = {("tunnel.example.com", 10262), ("fd00::1", 10262)}
        self.assertLessEqual(proxied, set(config.proxies))
        self.assertNotIn(("10.1.0.1", 10262), config.proxies)
        self.assertNotIn("secret", repr(config))
        os.environ["HTTPS_PROXY"] = "socks5://user:secret@10.0.0.1"
        problem = self.problem(*self.good)
        self.assertIn("HTTPS_PROXY", problem)
        self.assertNotIn("secret", problem)

    def test_one_file(self) -> None:
        """
        Certificate and key may stand in one file; OpenYurt's certificate names its node, too.
        """
        words = [f"--tls-cert-file={self.folder}/both.pem", f"--client-ca-file={self.folder}/ca.pem"]
        config = self.parse(*self.good[:2], *words).config
        self.assertEqual(config.credentials.cert_file, f"{self.folder}/both.pem")

    def test_kubeconfig(self) -> None:
        """
        With a kubeconfig, under either name and not there yet, the certificate is asked for; one way excludes the other.
        """
        config = self.parse(*self.good[:2], "--kube-config=/x/hub.conf", self.tls[2], "--cert-dir=/y").config
        self.assertEqual((config.kubeconfig, config.cert_dir), ("/x/hub.conf", "/y"))
        self.assertEqual((config.credentials.ca_file, config.credentials.cert_file), (f"{self.folder}/ca.pem", None))
        config = self.parse(*self.good[:2], "--kubeconfig=/x/hub.conf").config
        self.assertEqual((config.credentials, config.cert_dir), (Credentials(), "/var/lib/yurttunnel-agent/pki"))
        self.assertIsNone(self.parse(*self.good).config.kubeconfig)
        self.assertIn("--kubeconfig and --tls-cert-file exclude", self.problem(*self.good, "--kubeconfig=/x"))
        self.assertIn("different files", self.problem(*self.good[:2], "--kubeconfig=/x", "--kube-config=/y"))
        self.assertIn("--cert-dir is empty", self.problem(*self.good[:2], "--kubeconfig=/x", "--cert-dir="))

    def test_joining(self) -> None:
        """
        Two options are enough where a hub joins the node; a token is given as to the hub, under its names or OpenYurt's.
        """
        config = self.parse(*self.good[:2]).config
        self.assertEqual((config.credentials, config.kubeconfig, config.join.join_token), (Credentials(), None, ""))
        pin = "sha256:" + "0" * 64
        words = ["--join-token=/x/token", f"--discovery-token-ca-cert-hash={pin}"]
        for name in ("server-addr", "apiserver-addr"):
            join = self.parse(*self.good[:2], *words, f"--{name}=10.0.0.1:6443,api.test", "--kubeconfig=/x/hub.conf").config.join
            self.assertEqual(join.servers, ("https://10.0.0.1:6443", "https://api.test:443"))
            self.assertEqual((join.join_token, join.ca_hashes), ("/x/token", {pin}))
        self.assertIn("-ca-cert-hash is missing", self.problem(*self.good[:2], words[0], "--server-addr=a"))
        self.assertIn("--join-token and --tls-cert-file exclude", self.problem(*self.good, *words, "--server-addr=a"))

    def test_relative_paths(self) -> None:
        """
        Paths mean the same after the daemon has left its folder.
        """
        words = [word.replace(str(self.folder), os.path.relpath(self.folder)) for word in self.tls]
        config = self.parse(*self.good[:2], *words).config
        self.assertEqual(config.credentials.key_file, f"{self.folder}/node.key")

    def test_missing(self) -> None:
        """
        What is needed is asked for by its name.
        """
        for index, name in enumerate(("tunnelserver-addr", "node-name", "tls-cert-file")):
            self.assertIn(f"--{name} is missing", self.problem(*self.good[:index], *self.good[index + 1 :]))
        self.assertIn("--server-addr is missing", self.problem(*self.good[:2], "--join-token=/x"))
        self.assertIn("--client-ca-file is missing", self.problem(*self.good[:-1]))

    def test_bad_values(self) -> None:
        """
        Every bad value is refused with what was expected.
        """
        for option, value, expected in (
            ("tunnelserver-addr", "https://a:1", "without https://"),
            ("tunnelserver-addr", "a:0", "port 0"),
            ("tunnelserver-addr", "a b", "comma"),
            ("tunnelserver-addr", "a:70000", "whole number"),
            ("node-ip", "edge-1", "write an IP address"),
            ("allowed-ports", "0", "from 1 to 65535"),
            ("allowed-ports", "1-2", "from 1 to 65535"),
            ("meta-host", "x", "write an IP address"),
            ("meta-port", "-1", "whole number"),
            ("drain-timeout", "30", "with its unit"),
        ):
            message = self.problem(*self.good, f"--{option}={value}")
            self.assertIn(f"--{option}", message)
            self.assertIn(expected, message)
        self.assertIn("unexpected argument", self.problem(*self.good, "more"))

    def test_bad_files(self) -> None:
        """
        Files that cannot be used are named, and so is a certificate of somebody else; keys are not shown.
        """
        for option, name, why in (
            ("tls-cert-file", "nowhere", "No such file"),
            ("tls-cert-file", "empty", "no valid PEM certificate"),
            ("tls-private-key-file", "other.key", "does not belong"),
            ("client-ca-file", "node.key", "no valid PEM certificate"),
        ):
            message = self.problem(*self.good, f"--{option}={self.folder}/{name}")
            self.assertIn(f"{self.folder}/{name}", message)
            self.assertIn(why, message)
            self.assertNotIn("PRIVATE", message)
        admin = issue(AUTHORITY, "kubernetes-admin")
        (self.folder / "admin.pem").write_bytes(admin.cert_pem + admin.key_pem)
        words = [*self.good[:2], f"--tls-cert-file={self.folder}/admin.pem", self.tls[2]]
        self.assertIn("'kubernetes-admin'", self.problem(*words))
        message = self.problem(*self.good, "--node-name=edge-2")
        self.assertIn("it is for node edge-1, not for edge-2", message)


class DaemonTests(SynchronousTestCase):
    """
    Tests of the subcommand.
    """

    def run_twistd(self, *words: str) -> subprocess.CompletedProcess[str]:
        """
        Run twistd in an empty folder.
        """
        twistd = Path(sys.executable).parent / "twistd"
        command = [str(twistd), "-n", "--pidfile=", "yurt-tunnel-agent", *words]
        folder = tempfile.mkdtemp(dir=os.getcwd())
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)

    def test_help(self) -> None:
        """
        The help is there in any folder, and tells of every option.
        """
        done = self.run_twistd("--help")
        self.assertEqual(done.returncode, 0, done.stderr)
        for option in Options.declared:
            self.assertIn(f"--{option.name}=", done.stdout)

    def test_refused(self) -> None:
        """
        A mistake ends the program with one line and status 1.
        """
        done = self.run_twistd("--node-name=edge-1")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertIn("--tunnelserver-addr is missing", done.stderr)

    def test_service_is_idle(self) -> None:
        """
        Making the service opens nothing.
        """
        folder = Path(tempfile.mkdtemp(dir=os.getcwd()))
        node = issue(AUTHORITY, "system:node:edge-1")
        (folder / "node.pem").write_bytes(node.cert_pem + node.key_pem)
        (folder / "ca.pem").write_bytes(AUTHORITY.cert_pem)
        options = Options()
        options.parseOptions(
            [
                "--tunnelserver-addr=tunnel.test",
                "--node-name=edge-1",
                f"--tls-cert-file={folder}/node.pem",
                f"--client-ca-file={folder}/ca.pem",
            ]
        )
        before = set(os.listdir("/proc/self/fd"))
        delayed = len(reactor.getDelayedCalls())
        self.patch(os, "environ", {})
        service = makeService(options)
        self.assertEqual(os.environ, {"RES_OPTIONS": RESOLVER_OPTIONS})
        self.assertEqual(len(reactor.getDelayedCalls()), delayed)
        self.assertEqual(set(os.listdir("/proc/self/fd")) - before, set())
        self.assertFalse(service.running)
