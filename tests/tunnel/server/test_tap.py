"""
Tests of the server's command line.
"""

from __future__ import annotations

from tests.certs import issue, make_ca
from tests.command_line import CommandLineCase
from yurt.tunnel.server.service import TunnelServer
from yurt.tunnel.server.tap import Options, makeService


class OptionsTests(CommandLineCase[Options]):
    """
    Tests of Options.
    """

    daemon = "yurt-tunnel-server"
    options = Options

    def setUp(self) -> None:
        super().setUp()
        ca = make_ca()
        server = issue(ca, "system:node:tunnel-server", ["system:nodes"], ips=["127.0.0.1"])
        for name, content in (("ca.pem", ca.cert_pem), ("server.pem", server.cert_pem), ("server.key", server.key_pem)):
            (self.folder / name).write_bytes(content)
        self.cert = f"--tls-cert-file={self.folder}/server.pem"
        self.key = f"--tls-private-key-file={self.folder}/server.key"
        self.ca = f"--client-ca-file={self.folder}/ca.pem"
        self.good = [self.cert, self.key, self.ca]

    def kubeconfig(self, ca: str = "certificate-authority: ca.pem, ") -> str:
        """
        The path of a kubeconfig with files that lie beside it.
        """
        path = self.folder / "kubeconfig"
        path.write_text(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
            f"clusters: [{{name: k, cluster: {{{ca}server: 'https://10.0.0.9:6443'}}}}]\n"
            "users: [{name: u, user: {client-certificate: server.pem, client-key: server.key}}]\n"
            "contexts: [{name: c, context: {cluster: k, user: u}}]\n"
        )
        return str(path)

    def test_defaults(self) -> None:
        """
        The defaults are OpenYurt's where it has them.
        """
        config = self.parse(*self.good).config
        self.assertEqual((config.bind_addresses, config.insecure_bind_addresses), (("0.0.0.0",), ("127.0.0.1",)))
        ports = (config.tunnel_agent_connect_port, config.secure_port, config.insecure_port, config.meta_port)
        self.assertEqual(ports, (10262, 10263, 10264, 10265))
        self.assertEqual((config.iptables_sync_period, config.dns_sync_period, config.drain_timeout), (60.0, 1800.0, 30.0))
        self.assertTrue(config.enable_iptables and config.enable_dns_controller)
        self.assertEqual((config.kubeconfig, config.egress_socket, config.allowed_names), (None, None, frozenset()))

    def test_command_line_of_openyurt(self) -> None:
        """
        The arguments of OpenYurt's manifests are taken as they are.
        """
        config = self.parse(
            *self.good,
            "--bind-address=10.0.0.1",
            "--insecure-bind-address=10.0.0.1",
            "--proxy-strategy=destHost",
            "--server-count=2",
            f"--kube-config={self.kubeconfig()}",
            "--enable-iptables=false",
            "--iptables-sync-period=3",
            "--dns-sync-period=3",
        ).config
        self.assertEqual((config.bind_addresses, config.insecure_bind_addresses), (("10.0.0.1",), ("10.0.0.1",)))
        self.assertFalse(config.enable_iptables)
        self.assertEqual((config.iptables_sync_period, config.dns_sync_period), (15.0, 30.0))
        self.assertEqual(config.kubeconfig, f"{self.folder}/kubeconfig")

    def test_loopback_of_the_same_family(self) -> None:
        """
        The plain port is on loopback of the family that the server listens on; :: is both, and takes 0.0.0.0 in.
        """
        for bound, expected in (
            ("fd00::1", ("::1",)),
            ("::", ("127.0.0.1", "::1")),
            ("10.0.0.1,fd00::1", ("127.0.0.1", "::1")),
        ):
            config = self.parse(*self.good, f"--bind-address={bound}").config
            self.assertEqual(config.insecure_bind_addresses, expected)
        self.assertEqual(self.parse(*self.good, "--bind-address=0.0.0.0,::").config.bind_addresses, ("::",))

    def test_of_the_kubeconfig(self) -> None:
        """
        The CA of callers and the certificate for kubelets are the kubeconfig's unless others are given.
        """
        kubeconfig = f"--kubeconfig={self.kubeconfig()}"
        config = self.parse(self.cert, self.key, kubeconfig).config
        self.assertEqual(config.credentials.ca_file, f"{self.folder}/ca.pem")
        self.assertEqual(config.kubelet_credentials.cert_file, f"{self.folder}/server.pem")
        self.assertEqual(config.kubelet_credentials.ca_file, None)
        own = f"{self.folder}/own.pem"
        (self.folder / "own.pem").write_bytes((self.folder / "server.pem").read_bytes())
        config = self.parse(
            *self.good,
            kubeconfig,
            f"--kubelet-client-certificate={own}",
            f"--kubelet-client-key={self.folder}/server.key",
            f"--kubelet-certificate-authority={self.folder}/ca.pem",
        ).config
        self.assertEqual((config.kubelet_credentials.cert_file, config.kubelet_credentials.key_data), (own, None))
        self.assertEqual(config.kubelet_credentials.ca_file, f"{self.folder}/ca.pem")

    def test_asked_for(self) -> None:
        """
        With a kubeconfig alone certificates are asked for, and the kubeconfig's own is not shown to kubelets.
        """
        words = [f"--kubeconfig={self.kubeconfig()}", "--cert-dir=/x", "--cert-dns-names=a.example,b", "--cert-ips=10.0.0.1"]
        config = self.parse(*words, "--cert-ips=fd00::1").config
        self.assertFalse(config.credentials.has_certificate)
        self.assertFalse(config.kubelet_credentials.has_certificate)
        self.assertEqual(config.credentials.ca_file, f"{self.folder}/ca.pem")
        self.assertEqual((config.cert_dir, config.cert_dns_names), ("/x", ("a.example", "b")))
        self.assertEqual(config.cert_ips, ("10.0.0.1", "fd00::1"))
        self.assertIn("--cert-dir is empty", self.problem(words[0], "--cert-dir="))

    def test_names_add_up(self) -> None:
        """
        --allowed-names may be given several times.
        """
        config = self.parse(*self.good, "--allowed-names=kube-apiserver, prometheus", "--allowed-names=admin").config
        self.assertEqual(config.allowed_names, {"kube-apiserver", "prometheus", "admin"})

    def test_refused(self) -> None:
        """
        What cannot be meant is refused in one line that says what to do.
        """
        for words, text in (
            ([], "--tls-cert-file is missing"),
            ([self.cert], "--tls-private-key-file is missing"),
            ([self.cert, self.key], "--client-ca-file is missing"),
            ([*self.good, "--agent-identifiers=x"], "option --agent-identifiers not recognized"),
            ([*self.good, "--proxy-strategy=default"], "write one of: destHost"),
            ([*self.good, "--bind-address=host"], "write an IP address"),
            ([*self.good, "--bind-address="], "--bind-address is empty"),
            ([*self.good, "--tunnel-agent-connect-port=0"], "no node can be reached"),
            ([*self.good, "--secure-port=70000"], "whole number"),
            ([*self.good, "--drain-timeout=30"], "with its unit"),
            ([*self.good, "--kubelet-client-key=/x"], "belong together"),
            ([*self.good, f"--kubelet-certificate-authority={self.folder}/none"], "for kubelets: "),
            ([*self.good, "--kubeconfig=/none"], "--kubeconfig: "),
            ([*self.good, f"--egress-socket=/{'x' * 120}"], "at most 107 bytes"),
            ([self.cert, self.key, f"--client-ca-file={self.folder}/server.key"], "holds no valid PEM certificate"),
            ([*self.good, f"--kubeconfig={self.kubeconfig()}", "--kube-config=/other"], "name different files"),
        ):
            self.assertIn(text, self.problem(*words))

    def test_service(self) -> None:
        """
        The service is made without touching the network; a kubeconfig that cannot be verified by ends the start in one line.
        """
        self.assertIsInstance(makeService(self.parse(*self.good, f"--kubeconfig={self.kubeconfig()}")), TunnelServer)
        bare = f"--kubeconfig={self.kubeconfig(ca='')}"
        failure = self.assertRaises(SystemExit, makeService, self.parse(*self.good, bare))
        self.assertIn("certificate-authority", str(failure.code))
