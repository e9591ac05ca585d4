"""
Tests of the hub's command line.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.certs import issue, make_ca
from tests.command_line import CommandLineCase
from yurt.hub.cache.quota import Quota
from yurt.hub.filters.focus import FilterSettings
from yurt.hub.tap import Options, makeService


class OptionsTests(CommandLineCase[Options]):
    """
    Tests of Options.
    """

    daemon = "yurthub"
    options = Options

    def setUp(self) -> None:
        super().setUp()
        ca = make_ca()
        node = issue(ca, "system:node:n1", ["system:nodes"])
        for name, content in (("ca.pem", ca.cert_pem), ("node.pem", node.cert_pem), ("node.key", node.key_pem), ("token", b"t")):
            (self.folder / name).write_bytes(content)
        self.ca, self.cert, self.key, self.token = (
            f"--{option}-file={self.folder}/{name}"
            for option, name in (("ca", "ca.pem"), ("cert", "node.pem"), ("key", "node.key"), ("token", "token"))
        )
        self.good = ["--server-addr=https://10.0.0.1:6443", "--node-name=n1", self.ca, self.cert, self.key]

    def kubeconfig(self, text: str) -> str:
        """
        The option that names a kubeconfig of that text.
        """
        path = self.folder / f"kubeconfig-{len(list(self.folder.iterdir()))}"
        path.write_text(text)
        return f"--kubeconfig={path}"

    def whole_kubeconfig(self, server: str = "https://10.0.0.9:6443", user: str = "", cluster: str = "") -> str:
        """
        A kubeconfig of files that lie beside it.
        """
        user = user or "client-certificate: node.pem, client-key: node.key"
        cluster = cluster or f"server: '{server}', certificate-authority: ca.pem"
        return self.kubeconfig(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
            f"clusters: [{{name: k, cluster: {{{cluster}}}}}]\n"
            f"users: [{{name: u, user: {{{user}}}}}]\n"
            "contexts: [{name: c, context: {cluster: k, user: u}}]\n"
        )

    def test_defaults(self) -> None:
        """
        The defaults are OpenYurt's where it has them.
        """
        config = self.parse(*self.good).config
        self.assertEqual(config.servers, ("https://10.0.0.1:6443",))
        self.assertEqual((config.bind_address, config.serve_port), ("127.0.0.1", 10267))
        self.assertEqual((config.bind_proxy_addresses, config.proxy_port), (("127.0.0.1",), 10261))
        self.assertEqual((config.disk_cache_path, config.lb_mode), ("/etc/kubernetes/cache", "rr"))
        self.assertEqual(config.watch_failover, 1.0)
        self.assertEqual((config.root_dir, config.cache_exclude), ("/var/lib/yurthub", ()))
        self.assertEqual((config.cache_quota, config.gc_frequency), (Quota(512 << 20, {}, 128 << 20), 7200.0))
        self.assertEqual((config.heartbeat_interval, config.kubelet_health_grace_period), (10.0, 40.0))
        self.assertEqual((config.max_requests_in_flight, config.offline_miss, config.offline_token), (250, 503, "cached"))
        link = config.pod_link
        self.assertEqual((link.enable_dummy_if, link.link_kind, link.dummy_if_name), (True, "auto", "yurthub-dummy0"))
        self.assertEqual((link.dummy_if_ip, link.enable_iptables, link.ports), (("169.254.2.1",), False, (10261, 10268)))
        self.assertEqual(config.proxy_secure_port, 10268)

    def test_all(self) -> None:
        """
        Every option finds its way into the configuration.
        """
        config = self.parse(
            *self.good, "--server-addr=10.0.0.1:6443,https://[fd00::1]:443", "--bind-address=::1", "--serve-port=0",
            "--bind-proxy-address=127.0.0.1,[::1]", "--proxy-port=1026", "--proxy-secure-port=1027", "--disk-cache-path=/x",
            "--root-dir=/y",
            "--cache-exclude=secrets", "--cache-exclude=leases", "--cache-quota=256Mi,kubectl=9Mi,*=64Mi",
            "--cache-quota=kubectl=16Mi", "--gc-frequency=5", "--cache-agents=*,!kubectl",
            "--cache-agents=a", "--agent-aliases=edged=kubelet", "--lb-mode=priority", "--watch-failover=5s",
            "--heartbeat-interval-seconds=3",
            "--kubelet-health-grace-period=1m", "--max-requests-in-flight=9", "--offline-miss=404", "--offline-token=fake",
            "--enable-dummy-if=false", "--link-kind=tap", "--dummy-if-name=y0", "--dummy-if-ip=169.254.2.1,fd00::2:1",
            "--enable-iptables",
        ).config  # fmt: skip
        self.assertEqual(config.servers, ("https://10.0.0.1:6443", "https://[fd00::1]:443"))
        self.assertEqual((config.bind_address, config.serve_port), ("::1", 0))
        self.assertEqual((config.bind_proxy_addresses, config.proxy_port), (("127.0.0.1", "::1"), 1026))
        self.assertEqual(config.proxy_secure_port, 1027)
        self.assertEqual((config.disk_cache_path, config.cache_agents), ("/x", ("*", "!kubectl", "a")))
        self.assertEqual((config.root_dir, config.cache_exclude), ("/y", ("secrets", "leases")))
        self.assertEqual(config.cache_quota, Quota(1 << 28, {"kubectl": 16 << 20}, 1 << 26))
        self.assertEqual(config.gc_frequency, 300.0)
        self.assertEqual(dict(config.agent_aliases), {"edged": "kubelet"})
        self.assertEqual((config.lb_mode, config.watch_failover, config.heartbeat_interval), ("priority", 5.0, 3.0))
        self.assertEqual(config.kubelet_health_grace_period, 60.0)
        self.assertEqual((config.max_requests_in_flight, config.offline_miss, config.offline_token), (9, 404, "fake"))
        link = config.pod_link
        self.assertEqual((link.enable_dummy_if, link.link_kind, link.dummy_if_name), (False, "tap", "y0"))
        self.assertEqual((link.dummy_if_ip, link.enable_iptables, link.ports), (("169.254.2.1", "fd00::2:1"), True, (1026, 1027)))

    def test_filters(self) -> None:
        """
        The options of filters find their way into the configuration; a filter that is none is refused.
        """
        self.assertEqual(self.parse(*self.good).config.filters, FilterSettings())
        config = self.parse(
            *self.good, "--enable-resource-filter=false", "--disabled-resource-filters=masterservice,servicetopology",
            "--disabled-resource-filters=*", "--nodepool-name=p", "--enable-pool-service-topology", "--namespace=edge",
        ).config  # fmt: skip
        disabled = ("masterservice", "servicetopology", "*")
        self.assertEqual(config.filters, FilterSettings(False, disabled, "edge", "p", True))
        problem = self.problem(*self.good, "--disabled-resource-filters=masterservices")
        self.assertIn("masterservices is no filter; there are masterservice, ", problem)

    def test_kubeconfig(self) -> None:
        """
        A kubeconfig gives the identity, and the server unless one is named.
        """
        path = self.whole_kubeconfig()
        config = self.parse("--node-name=n1", path).config
        self.assertEqual(config.servers, ("https://10.0.0.9:6443",))
        self.assertEqual(
            (config.credentials.cert_file, config.credentials.ca_file), (f"{self.folder}/node.pem", f"{self.folder}/ca.pem")
        )
        config = self.parse("--node-name=n1", path, "--server-addr=https://10.0.0.1:6443").config
        self.assertEqual(config.servers, ("https://10.0.0.1:6443",))

    def test_token(self) -> None:
        """
        A token is an identity as good as a certificate.
        """
        config = self.parse("--server-addr=a:1", "--node-name=n1", self.ca, self.token).config
        self.assertEqual((config.credentials.token_file, config.credentials.cert_file), (f"{self.folder}/token", None))

    def test_relative_paths(self) -> None:
        """
        A relative path is one of the folder that the hub is started in, wherever a daemon goes afterwards.
        """
        near = os.path.relpath(self.folder)
        files = [f"--{option}={near}/{file}" for option, file in (("ca-file", "ca.pem"), ("token-file", "token"))]
        config = self.parse("--server-addr=a:1", "--node-name=n1", "--disk-cache-path=cache", *files).config
        self.assertEqual(config.disk_cache_path, os.path.abspath("cache"))
        named = config.credentials.ca_file, config.credentials.token_file
        self.assertEqual(named, (f"{self.folder}/ca.pem", f"{self.folder}/token"))
        option, _, path = self.whole_kubeconfig().partition("=")
        config = self.parse("--node-name=n1", f"{option}={os.path.relpath(path)}").config
        self.assertEqual((config.kubeconfig, config.credentials.cert_file), (path, f"{self.folder}/node.pem"))

    def test_refusals(self) -> None:
        """
        Whatever is wrong is said in one line that names the option and what to write instead.
        """
        server, name, identity = self.good[0], self.good[1], [self.ca, self.cert, self.key]
        missing = f"{self.folder}/missing"
        for words, expected in (
            ([], ["--node-name", "give the name"]),
            ([server, *identity], ["--node-name", "give the name"]),
            ([server, name], ["--kubeconfig", "--ca-file"]),
            ([name, *identity], ["--server-addr", "https://"]),
            ([server, name, self.ca], ["--cert-file", "--token-file"]),
            ([server, name, self.ca, self.cert], ["--key-file", "give both"]),
            ([server, name, self.ca, f"--cert-file={missing}", self.key], ["--cert-file", missing, "No such file"]),
            ([name, f"--kubeconfig={missing}"], ["--kubeconfig", missing, "No such file"]),
            ([name, self.whole_kubeconfig(), self.ca], ["--kubeconfig", "--ca-file", "exclude"]),
            ([*self.good, "--server-addr=http://10.0.0.1"], ["--server-addr", "https"]),
            ([*self.good, "--server-addr=https://a/?x=y"], ["--server-addr", "without"]),
            ([*self.good, "--server-addr=https://a:99999"], ["--server-addr"]),
            ([*self.good, "--server-addr="], ["--server-addr"]),
            ([*self.good, "--server-addr=a b"], ["--server-addr", "'a b' is no host"]),
            ([*self.good, "--server-addr=-"], ["--server-addr", "is no host"]),
            ([*self.good, "--server-addr=https://10.0.0"], ["--server-addr", "no IP address"]),
            ([*self.good, "--server-addr=https://a:0"], ["--server-addr", "port 0"]),
            ([*self.good, "--server-addr=https://a/b c"], ["--server-addr", "no blanks"]),
            ([*self.good, "--server-addr=https://a/../b"], ["--server-addr", ".. in it"]),
            ([*self.good, "--node-name=a..b"], ["--node-name", "lower-case"]),
            ([*self.good, "--node-name=a.-b"], ["--node-name", "lower-case"]),
            ([*self.good, "--nodepool-name=../x"], ["--nodepool-name", "lower-case"]),
            ([*self.good, "--namespace=Kube"], ["--namespace", "lower-case"]),
            ([*self.good, "--namespace=a.b"], ["--namespace", "lower-case"]),
            ([*self.good, "--node-name=N_1/.."], ["--node-name", "lower-case"]),
            ([*self.good, "--bind-address="], ["--bind-address", "--serve-port=0"]),
            ([*self.good, "--proxy-port=x"], ["--proxy-port", "'x'", "from 0 to 65535"]),
            ([*self.good, "--proxy-secure-port=10261"], ["--proxy-port", "--proxy-secure-port", "choose two"]),
            ([*self.good, "--proxy-port=70000"], ["--proxy-port", "from 0 to 65535"]),
            ([*self.good, "--proxy-port=-1"], ["--proxy-port", "from 0 to 65535"]),
            ([*self.good, "--proxy-port=10267"], ["--serve-port=10267", "at 127.0.0.1", "another one"]),
            ([*self.good, "--serve-port=10268", "--bind-address=::"], ["--serve-port=10268", "another one"]),
            ([*self.good, "--serve-port=10261", "--bind-address=169.254.2.1"], ["--serve-port=10261", "at 169.254.2.1"]),
            ([*self.good, "--bind-proxy-address=localhost"], ["--bind-proxy-address", "IP address"]),
            ([*self.good, "--bind-address=x"], ["--bind-address", "IP address"]),
            ([*self.good, "--lb-mode=random"], ["--lb-mode", "rr, priority"]),
            ([*self.good, "--offline-miss=500"], ["--offline-miss", "503, 404"]),
            ([*self.good, "--offline-token=maybe"], ["--offline-token", "cached, fake"]),
            ([*self.good, "--heartbeat-interval-seconds=0"], ["--heartbeat-interval-seconds", "from 1 to"]),
            ([*self.good, "--kubelet-health-grace-period=40"], ["--kubelet-health-grace-period", "40s"]),
            ([*self.good, "--kubelet-health-grace-period=0"], ["--kubelet-health-grace-period", "from 1s to"]),
            ([*self.good, "--watch-failover=99h"], ["--watch-failover", "or 0"]),
            ([*self.good, "--max-requests-in-flight=0"], ["--max-requests-in-flight", "from 1 to"]),
            ([*self.good, "--agent-aliases=k3s"], ["--agent-aliases", "name=component"]),
            ([*self.good, "--agent-aliases=a=b=c"], ["--agent-aliases", "'b=c' is no component"]),
            ([*self.good, "--agent-aliases=a=b,a=c"], ["--agent-aliases", "keep one"]),
            ([*self.good, "--agent-aliases==kubelet"], ["--agent-aliases", "'' is no component"]),
            ([*self.good, "--cache-agents=["], ["--cache-agents", "'[' is no component", "flannel*"]),
            ([*self.good, "--cache-agents=kubelet,!"], ["--cache-agents", "'!' is no component"]),
            ([*self.good, "--cache-agents=kubelet/v1.30"], ["--cache-agents", "up to its first '/'"]),
            ([*self.good, "--cache-quota=a b=1Mi"], ["--cache-quota", "'a b' is no component"]),
            ([*self.good, "--cache-quota==1Mi"], ["--cache-quota", "'' is no component"]),
            ([*self.good, "--cache-exclude=pods/log"], ["--cache-exclude", "pods/log is no resource"]),
            ([*self.good, "--cache-exclude=a..b"], ["--cache-exclude", "a..b is no resource"]),
            ([*self.good, "--root-dir=~/hub"], ["--root-dir", "whole path"]),
            ([*self.good, "--disk-cache-path= "], ["--disk-cache-path", "without blanks"]),
            ([*self.good, "--link-kind=bridge"], ["--link-kind", "auto, dummy, tap"]),
            ([*self.good, "--dummy-if-ip=1.2.3"], ["--dummy-if-ip", "IP address"]),
            ([*self.good, "--dummy-if-ip=10.0.0.1"], ["--dummy-if-ip", "10.0.0.1", "169.254.0.0/16"]),
            ([*self.good, "--dummy-if-ip=169.254.31.7"], ["--dummy-if-ip", "169.254.31.0/24"]),
            ([*self.good, "--dummy-if-ip=fd00::1,169.254.1.1"], ["--dummy-if-ip", "169.254.1.1"]),
            ([*self.good, "--disk-cache-path="], ["--disk-cache-path", "give the folder"]),
            ([*self.good, "--dummy-if-name=a-name-that-is-too-long"], ["link name", "choose a shorter one"]),
            ([*self.good, "--enable-iptables=perhaps"], ["--enable-iptables", "true or false"]),
            ([*self.good, "--unknown=1"], ["unknown"]),
            ([*self.good, "word"], ["unexpected argument 'word'"]),
            ([*self.good, "--node-name"], ["--node-name"]),
        ):  # fmt: skip
            message = self.problem(*words)
            for part in expected:
                self.assertIn(part, message, words)

    def test_password(self) -> None:
        """
        What may be a password is not shown with the bad value that holds it.
        """
        for value in ("https://u:s3cret@a", "u:s3cret@a:1", "https://a,u:s3/cret,s3cret@b"):
            message = self.problem(*self.good, f"--server-addr={value}")
            self.assertIn("--server-addr", message)
            self.assertNotIn("s3", message)
        message = self.problem("--node-name=n1", self.whole_kubeconfig("https://u:s3cret@a"))
        self.assertIn("--kubeconfig: server", message)
        self.assertNotIn("s3", message)

    def test_twice(self) -> None:
        """
        What is named twice is meant once.
        """
        config = self.parse(*self.good, "--server-addr=a,https://a:443", "--bind-proxy-address=127.0.0.1,127.0.0.1").config
        self.assertEqual((config.servers, config.bind_proxy_addresses), (("https://a:443",), ("127.0.0.1",)))

    def test_patterns(self) -> None:
        """
        Names, patterns and exclusions of components, in any case.
        """
        words = "kubelet,flannel*,Calico-?ode,[ck]oredns,!x[!a-c],*"
        self.assertEqual(self.parse(*self.good, f"--cache-agents={words}").config.cache_agents, tuple(words.split(",")))

    def test_proxy_of_the_environment(self) -> None:
        """
        A proxy that the hub cannot speak to is refused in one line, without the password that its URL holds.
        """
        for proxy in ("https://u:s3cret@p:3128", "socks5://p:1080", "http://u:s3cret@p:s3cret", "::::"):
            self.patch(os, "environ", {**os.environ, "HTTPS_PROXY": proxy})
            message = self.problem(*self.good)
            self.assertIn("HTTPS_PROXY", message)
            self.assertNotIn("s3cret", message)
            self.parse(*self.good, "--server-addr=https://127.0.0.1:6443")

    def test_bad_kubeconfigs(self) -> None:
        """
        A kubeconfig that is no identity, or cannot verify the cloud, is refused; nothing of a secret is shown.
        """
        for option, expected in (
            (self.kubeconfig("{"), "--kubeconfig"),
            (self.kubeconfig("kind: Config\n"), "--kubeconfig"),
            (self.whole_kubeconfig(user="username: x, password: verysecret"), "token"),
            (self.whole_kubeconfig(user="exec: {command: aws}"), "--kubeconfig"),
            (self.whole_kubeconfig(cluster="server: 'https://a'"), "certificate-authority"),
            (self.whole_kubeconfig(cluster="server: 'https://a', insecure-skip-tls-verify: true"), "insecure"),
            (self.whole_kubeconfig(cluster="server: 'http://a', certificate-authority: ca.pem"), "https"),
            (self.whole_kubeconfig(cluster="certificate-authority: ca.pem"), "server"),
            (self.whole_kubeconfig(user="client-certificate: gone.pem, client-key: node.key"), "gone.pem"),
        ):
            message = self.problem("--node-name=n1", option)
            self.assertIn("--kubeconfig", message)
            self.assertIn(expected, message)
            self.assertNotIn("verysecret", message)

    def test_bad_certificates(self) -> None:
        """
        Files that hold no certificate, or not the key of the certificate, are told at the start.
        """
        (self.folder / "other.key").write_bytes(issue(make_ca(), "other", []).key_pem)
        (self.folder / "rubbish").write_text("rubbish")
        for words in (
            [f"--ca-file={self.folder}/rubbish", self.cert, self.key],
            [self.ca, f"--cert-file={self.folder}/rubbish", self.key],
            [self.ca, self.cert, f"--key-file={self.folder}/rubbish"],
            [self.ca, self.cert, f"--key-file={self.folder}/other.key"],
        ):
            self.problem(*self.good[:2], *words)

    def test_join(self) -> None:
        """
        A token, or a file with one, and the CA's pin make the hub join; groups of its own add up.
        """
        pin = "sha256:" + "a" * 64
        words = ["--server-addr=10.0.0.1:6443", "--node-name=n1", f"--root-dir={self.folder}/own"]
        config = self.parse(
            *words, "--join-token=abcdef.0123456789abcdef", f"--discovery-token-ca-cert-hash={pin.upper()}",
            "--hub-cert-organizations=openyurt:tenant:a", "--hub-cert-organizations=b",
        ).config  # fmt: skip
        assert config.join is not None
        self.assertEqual((config.join.servers, config.join.join_token), (config.servers, "abcdef.0123456789abcdef"))
        self.assertEqual((config.join.ca_hashes, config.join.skip_ca_verification), (frozenset({pin}), False))
        self.assertEqual(config.hub_cert_organizations, ("openyurt:tenant:a", "b"))
        self.assertNotIn("0123456789", repr(config))
        config = self.parse(*words, "--join-token=./token", "--discovery-token-unsafe-skip-ca-verification").config
        assert config.join is not None
        self.assertEqual((config.join.join_token, config.join.skip_ca_verification), (os.path.abspath("token"), True))
        self.assertIsNone(self.parse(*self.good).config.join)

    def test_joined_before(self) -> None:
        """
        A hub that has joined needs no token, nor the server's address, at its next start.
        """
        root = self.folder / "own"
        words = ["--node-name=n1", f"--root-dir={root}"]
        self.assertIn("--server-addr is missing", self.problem(*words))
        (root / "pki").mkdir(parents=True)
        (root / "pki/yurthub-current.pem").write_bytes(b"torn")
        (root / "yurthub.conf").write_text(Path(self.whole_kubeconfig().partition("=")[2]).read_text())
        config = self.parse(*words).config
        assert config.join is not None
        self.assertEqual(config.servers, ("https://10.0.0.9:6443",))

    def test_bootstrap_file(self) -> None:
        """
        A kubeconfig to join with names the server.
        """
        path = self.whole_kubeconfig().partition("=")[2]
        config = self.parse("--node-name=n1", f"--root-dir={self.folder}/own", f"--bootstrap-file={path}").config
        assert config.join is not None
        self.assertEqual((config.servers, config.join.bootstrap_file), (("https://10.0.0.9:6443",), path))

    def test_join_refused(self) -> None:
        """
        A token without a pin, one that is none (which is not shown), and two identities are refused.
        """
        words = ["--server-addr=10.0.0.1:6443", "--node-name=n1"]
        token, pin = "--join-token=abcdef.0123456789abcdef", "--discovery-token-ca-cert-hash=sha256:" + "a" * 64
        self.assertIn("--discovery-token-ca-cert-hash is missing", self.problem(*words, token))
        self.assertIn("sha256: and 64", self.problem(*words, token, "--discovery-token-ca-cert-hash=x"))
        said = self.problem(*words, "--join-token=abcdef.0123456789", pin)
        self.assertIn("not a bootstrap token", said)
        self.assertNotIn("0123456789 ", said)
        self.assertIn("exclude each other", self.problem(*words, token, pin, self.whole_kubeconfig()))
        self.assertIn("exclude each other", self.problem(*words, token, pin, "--bootstrap-mode=kubeletcertificate"))
        self.assertIn("give --join-token", self.problem(*words, f"--root-dir={self.folder}/own"))

    def test_kubelet_certificate(self) -> None:
        """
        With --bootstrap-mode=kubeletcertificate kubelet's own certificate is the hub's; its place can be told, it may come later.
        """
        words = ["--server-addr=10.0.0.1:6443", "--node-name=n1", "--bootstrap-mode=kubeletcertificate"]
        both = self.folder / "kubelet-client-current.pem"
        both.write_bytes((self.folder / "node.pem").read_bytes() + (self.folder / "node.key").read_bytes())
        config = self.parse(*words, self.ca, f"--cert-file={both}").config
        self.assertIsNone(config.join)
        self.assertEqual((config.credentials.cert_file, config.credentials.key_file), (str(both), str(both)))
        later = self.parse(*words, self.ca).config.credentials
        self.assertEqual((later.cert_file, later.awaited), ("/var/lib/kubelet/pki/kubelet-client-current.pem", True))

    def test_make_service(self) -> None:
        """
        Making the service does no I/O: no file, no port, no thread.
        """
        options = self.parse(*self.good, f"--disk-cache-path={self.folder}/cache")
        makeService(options)
        self.assertFalse((self.folder / "cache").exists())


class CommandTests(SynchronousTestCase):
    """
    ``twistd yurthub`` as an operator runs it.
    """

    def run_twistd(self, *words: str) -> subprocess.CompletedProcess[str]:
        """
        Run it in an empty folder.
        """
        command = [
            sys.executable,
            "-c",
            "from twisted.scripts.twistd import run; run()",
            "--nodaemon",
            "--pidfile=",
            "yurthub",
            *words,
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tempfile.mkdtemp(dir=os.getcwd()))

    def test_help(self) -> None:
        """
        --help names every option with its default.
        """
        result = self.run_twistd("--help")
        self.assertEqual(result.returncode, 0)
        for option in Options.declared:
            self.assertIn(f"--{option.name}=", result.stdout)

    def test_bad_option(self) -> None:
        """
        One line on standard error, status 1.
        """
        result = self.run_twistd("--node-name=n1", "--proxy-port=x")
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        self.assertIn("--proxy-port 'x'", result.stderr)
