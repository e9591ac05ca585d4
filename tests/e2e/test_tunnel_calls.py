"""
What kubectl asks of a kubelet, by each way that leads to it.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from . import extension, metrics_server
from .cluster import CLOUD
from .doors import DIRECT, EGRESS_SOCKET, EGRESS_TLS, NAMED
from .manifests import granted, rule
from .process import PATIENCE, Process, in_namespace, run, wait_for, with_hosts
from .tunnel import EDGE_LABEL, TALKER, WEB
from .tunnel_case import TunnelCase, numbers

if TYPE_CHECKING:
    _Mixin = TunnelCase
else:
    _Mixin = object  # a contract alone is no test case

MUCH = 100
"""MB through standard input and back."""
PARALLEL = 12
LONG = "x" * 120_000
"""Linux takes no longer arguments than 128 KiB."""
EXTENSION_PORT = 9443


class DivertedTests(TunnelCase):
    """
    By the firewall's rules: the apiserver dials the kubelet's address, and the server passes TLS on unread.
    """

    def test_terminal(self) -> None:
        """
        exec -it gives a terminal of the caller's size, follows its changes, passes an interrupt on and answers the exit
        status.
        """
        shell = self.terminal(self.tunnel.kubectl_command("exec", "-it", WEB, "--", "sh"), rows=37, columns=111)
        shell.wait_for("# ")
        shell.type("stty size\n")
        shell.wait_for("37 111")
        shell.resize(51, 123)

        def shows_new_size() -> bool:
            shell.type("stty size\n")
            return "51 123" in shell.shown()

        wait_for("the new size", shows_new_size, every=0.3)
        shell.type("echo before; sleep 1000; echo sle''pt\n")
        shell.wait_for("before\r\n")
        shell.type("\x03")
        shell.type("exit $((3+4))\n")
        self.assertEqual(shell.wait(), 7)
        self.assertNotIn("slept", shell.shown())

    def test_exit_status_and_error(self) -> None:
        """
        exec keeps standard output and error apart and answers the exit status.
        """
        command = self.tunnel.kubectl_command("exec", WEB, "--", "sh", "-c", "echo out; echo oops >&2; exit 7")
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE)
        self.assertEqual((done.returncode, done.stdout), (7, b"out\n"))
        self.assertIn(b"oops", done.stderr)

    def test_long_command(self) -> None:
        """
        exec takes a command as long as one may be; it stands in the head of a request.
        """
        said = self.tunnel.kubectl("exec", WEB, "--", "sh", "-c", f"echo {LONG}")
        self.assertEqual(said, f"{LONG}\n")

    def test_much_through_standard_input(self) -> None:
        """
        100 MB through exec's standard input come back on its standard output as they went.
        """
        self.send_there_and_back(MUCH, timeout=180)

    def test_logs(self) -> None:
        """
        logs prints what there is and ends; with -f it goes on, line by line as they are printed.
        """
        self.assertTrue(numbers(self.tunnel.kubectl("logs", TALKER)))
        follower = self.follow(self.tunnel.kubectl_command("logs", "-f", "--tail=1", TALKER))
        wait_for("the first line", lambda: numbers(follower.text))
        first = numbers(follower.text)[0]
        wait_for("more lines", lambda: len(numbers(follower.text)) >= 3)
        seen = numbers(follower.text)
        self.assertEqual(seen, list(range(first, first + len(seen))))

    def test_attach(self) -> None:
        """
        attach shows what the container prints from now on.
        """
        follower = self.follow(self.tunnel.kubectl_command("attach", TALKER))
        wait_for("output of the pod", lambda: len(numbers(follower.text)) >= 2)

    def test_port_forward(self) -> None:
        """
        port-forward carries many connections at once, each one's bytes apart.
        """
        self.tunnel.kubectl("exec", WEB, "--", "sh", "-c", "seq 1 400000 > /tmp/w/numbers; echo web > /tmp/w/index.html")
        wanted = self.tunnel.kubectl("exec", WEB, "--", "md5sum", "/tmp/w/numbers")[:32]
        follower = self.follow(self.tunnel.kubectl_command("port-forward", f"pod/{WEB}", "18080:8080"))
        follower.wait_for("Forwarding from 127.0.0.1:18080")
        namespace = self.cluster.cloud_namespace

        def fetch(number: int) -> str:
            name = "numbers" if number % 2 else "index.html"
            command = in_namespace(namespace, ["curl", "-s", "--max-time", "30", f"http://127.0.0.1:18080/{name}"])
            return run(["sh", "-c", '"$@" | md5sum', "sh", *command])[:32]

        with ThreadPoolExecutor(PARALLEL) as pool:
            sums = list(pool.map(fetch, range(PARALLEL)))
        small = run(["md5sum"], stdin=b"web\n")[:32]
        self.assertEqual(sums, [wanted if number % 2 else small for number in range(PARALLEL)], follower.text)

    def test_copy(self) -> None:
        """
        cp brings a file into a pod and back as it was.
        """
        self.copy_both_ways(32)

    def copy_both_ways(self, megabytes: int) -> None:
        """
        Bring a file into a pod and back, and compare sums at each place.
        """
        there, back = self.file(megabytes), Path(self.cluster.folder, "back")
        self.addCleanup(back.unlink, missing_ok=True)
        wanted = self.digest(there)
        self.addCleanup(self.tunnel.kubectl, "exec", WEB, "--", "rm", "-f", "/tmp/copied")
        self.tunnel.kubectl("cp", str(there), f"{WEB}:/tmp/copied")
        self.assertEqual(self.tunnel.kubectl("exec", WEB, "--", "md5sum", "/tmp/copied")[:32], wanted)
        self.copy_back("/tmp/copied", back, PATIENCE)
        self.assertEqual(self.digest(back), wanted)

    def test_node_proxy(self) -> None:
        """
        The node's proxy subresource answers: stats, metrics, pods, and the files of its log folder are not needed for it.
        """
        name = self.cluster.node.name
        proxy = f"/api/v1/nodes/{name}/proxy"
        summary = json.loads(self.tunnel.kubectl("get", "--raw", f"{proxy}/stats/summary"))
        self.assertEqual(summary["node"]["nodeName"], name)
        self.assertTrue({one["podRef"]["name"] for one in summary["pods"]} >= {WEB, TALKER}, summary["pods"])
        self.assertIn("node_cpu_usage_seconds_total", self.tunnel.kubectl("get", "--raw", f"{proxy}/metrics/resource"))
        pods = json.loads(self.tunnel.kubectl("get", "--raw", f"{proxy}/pods"))
        self.assertIn(WEB, [one["metadata"]["name"] for one in pods["items"]])
        self.assertEqual(self.tunnel.kubectl("get", "--raw", f"{proxy}/healthz"), "ok")
        self.assertIn("NotFound", self.tunnel.refused("get", "--raw", f"{proxy}/no/such/path"))

    def test_many_at_once(self) -> None:
        """
        Twenty calls at once are all answered.
        """

        def call(number: int) -> str:
            return self.tunnel.kubectl("exec", WEB, "--", "echo", f"call {number}")

        with ThreadPoolExecutor(10) as pool:
            self.assertEqual(list(pool.map(call, range(20))), [f"call {number}\n" for number in range(20)])


class DirectTests(DivertedTests):
    """
    Without a tunnel: proves these tests, not yurt.
    """

    door = DIRECT


class Extended(_Mixin):
    """
    An API server that is extended.
    """

    def start_extension(self, module: str = extension.__name__, *arguments: str, hosts: Path | None = None) -> None:
        """
        Start it in the cloud, with its Service, and the kube-proxy that the Service's address needs; ``hosts`` is its /etc/hosts.
        """
        cluster, server = self.cluster, self.tunnel.server
        keys = cluster.plane.authority
        keys.issue("extension", "extension", dns=[f"{extension.SERVICE}.{extension.NAMESPACE}.svc"], ips=[server.address])
        files = [keys.file(f"extension.{kind}") for kind in ("crt", "key")]
        argv = with_hosts(hosts, [sys.executable, "-m", module, str(EXTENSION_PORT), *files, *arguments])
        self.addCleanup(Process("extension", argv, cluster.folder / "log/extension.log", cluster.cloud_namespace).stop)
        for kind, name in (("service", extension.SERVICE), ("validatingwebhookconfiguration", extension.SERVICE)):
            self.addCleanup(cluster.kubectl, "delete", kind, name, "--ignore-not-found")
        cluster.apply(*extension.service(server.address, EXTENSION_PORT))
        self.tunnel.serve_services()


class ExtensionContract(Extended):
    """
    What else goes by an apiserver's egress selector.
    """

    def opinion(self) -> str:
        """
        What kubectl is told when the webhook is asked about a ConfigMap.
        """
        metadata = {"name": "asked-for", "labels": {extension.LABEL: "true"}}
        asked = self.cluster.folder / "asked-for.json"
        asked.write_text(json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}))
        return self.tunnel.refused("create", "-f", str(asked))

    def test_extensions(self) -> None:
        """
        A webhook and an aggregated API, by their Service, are reached through the server, and by no other way; a pod that is
        behind NAT is not, and kubectl is told why.
        """
        self.start_extension()
        self.addCleanup(self.cluster.kubectl, "delete", "apiservice", extension.api_service()["metadata"]["name"])
        self.cluster.apply(extension.webhook(self.cluster.plane.authority.ca.cert_pem), extension.api_service())
        wait_for("the webhook's opinion", lambda: extension.OPINION in self.opinion(), every=0.5)
        things = ("get", "--raw", f"{extension.API}/things")
        wait_for("the aggregated API", lambda: "one-of-many" in self.tunnel.kubectl(*things), every=0.5)
        hidden = self.tunnel.refused("get", "--raw", f"/api/v1/namespaces/default/pods/{WEB}:8080/proxy/")
        self.assertRegex(hidden, "dialled by the server")
        self.addCleanup(self.tunnel.server.restart)
        self.tunnel.server.stop(signal.SIGKILL)  # a stop waits half a minute for the connection that the API server keeps
        self.assertIn("failed calling webhook", self.opinion())


class EgressSocketTests(ExtensionContract, DivertedTests):
    """
    By the apiserver's egress selector, over a Unix socket.
    """

    door = EGRESS_SOCKET

    def test_node_without_connection(self) -> None:
        """
        A call to a node that is not connected is refused at once.
        """
        self.make_node("edge-9", 89, **{EDGE_LABEL: "true"})
        said = self.assert_refused("get", "--raw", "/api/v1/nodes/edge-9/proxy/healthz")
        self.assertRegex(said, "503|not connected")


class EgressTLSTests(ExtensionContract, DivertedTests):
    """
    By the apiserver's egress selector, over TLS with client certificates.
    """

    door = EGRESS_TLS


class NamedTests(Extended, DivertedTests):
    """
    By the node's name, which leads to the server: TLS ends there.
    """

    door = NAMED

    def test_api_server_on_a_node(self) -> None:
        """
        The proxy subresource leads to the node that is meant also where the API server's own machine is a node.
        """
        self.make_node("cloud-1", CLOUD)
        wait_for("the server to know the node", lambda: "cloud-1" in self.tunnel.names())
        self.test_node_proxy()

    def test_top(self) -> None:
        """
        kubectl top shows what a metrics-server reads from the kubelet, by the node's name and with its ServiceAccount's token.
        """
        cluster = self.cluster
        account = {"kind": "ServiceAccount", "name": "metrics-server", "namespace": "default"}
        cluster.apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "metrics-server"}},
            *granted("metrics-server", account, rule("", "nodes/stats", "get")),
        )
        token = cluster.folder / "metrics-server.token"
        token.write_text(cluster.kubectl("create", "token", "metrics-server"))
        kubelet = f"https://{cluster.node.name}:10250"
        ca = cluster.plane.authority.file("ca.crt")
        self.start_extension(metrics_server.__name__, ca, str(token), kubelet, hosts=self.tunnel.hosts)
        api = extension.api_service(metrics_server.GROUP, metrics_server.VERSION)
        self.addCleanup(cluster.kubectl, "delete", "apiservice", api["metadata"]["name"])
        cluster.apply(api)

        def shows(kind: str, name: str) -> bool:
            said = run(self.tunnel.kubectl_command("top", kind, name, "--no-headers"), check=False)
            return bool(re.search(rf"^{name} .*\d+m +.*\d+Mi", said))

        wait_for("the usage of the node", lambda: shows("node", cluster.node.name), every=0.5)
        wait_for("the usage of a pod", lambda: shows("pod", WEB), every=0.5)
