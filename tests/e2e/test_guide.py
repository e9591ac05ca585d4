"""
The chapter "The tunnel in five steps" of docs/operators.md, done as it says.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from textwrap import dedent

from .case import ClusterCase
from .curl import curl
from .manifests import SERVER_ROLE
from .node import Node
from .process import in_namespace, run, wait_for
from .tunnel import AGENT_META, SERVER_META

ROOT = Path(__file__).parent.parent.parent
ETC = ROOT / "etc"
MANIFEST = ETC / "kubernetes" / "yurt-tunnel-server.yaml"
SERVER, AGENT = "yurt-tunnel-server", "yurt-tunnel-agent"
LABEL = "openyurt.io/edge-enable-reverseTunnel-client"


def step(number: int) -> str:
    """
    The commands of one step.
    """
    chapter = (ROOT / "docs" / "operators.md").read_text().partition("## The tunnel in five steps\n")[2]
    found = re.search(rf"^{number}\. .*?(?=^\d\. |^\S)", chapter, re.MULTILINE | re.DOTALL)
    assert found is not None, number
    return dedent("".join(line for line in found[0].splitlines(keepends=True)[1:] if line.startswith(" " * 8) or line == "\n"))


class GuideTests(ClusterCase):
    """
    A stranger follows the guide; of the machine only the folders are other ones.
    """

    def setUp(self) -> None:
        super().setUp()
        self.folder = self.cluster.folder / "guide"
        self.addCleanup(shutil.rmtree, self.folder)
        for name in ("default", "kubernetes", "pki"):
            (self.folder / name).mkdir(parents=True)
        pki, keys = self.folder / "kubernetes" / "pki", self.cluster.plane.authority
        pki.mkdir()
        for name in ("ca.crt", "ca.key"):
            shutil.copy(keys.file(name), pki)
        shutil.copy(self.cluster.plane.admin, self.folder / "kubernetes" / "admin.conf")
        node = self.cluster.node.name
        pair = [Path(keys.file(f"{node}.{suffix}")).read_text() for suffix in ("crt", "key")]
        (self.folder / "pki" / "kubelet-client-current.pem").write_text("".join(pair))
        self.cluster.tunnel.hide(self.cluster.node)
        self.addCleanup(self.cluster.tunnel.show, self.cluster.node)

    def here(self, text: str, node: Node) -> str:
        """
        A text of the guide or of the settings, for this cluster.
        """
        address = self.cluster.plane.address
        places = {
            "/opt/yurt/share/yurt": str(ETC),
            "/etc/default/": f"{self.folder}/default/",
            "/etc/kubernetes": f"{self.folder}/kubernetes",
            "/var/lib/kubelet/pki": f"{self.folder}/pki",
            "tunnel.example.com:10262": f"{address}:10262",
            "10.0.0.10": address,
            "$(hostname)": node.name,
        }
        return re.sub("|".join(map(re.escape, places)), lambda found: places[found[0]], text)

    def do(self, script: str, namespace: str) -> str:
        """
        What a script prints; one whose command fails fails the test.
        """
        return run(in_namespace(namespace, ["bash", "-euc", self.here(script, self.cluster.node)]))

    def start(self, daemon: str, script: str, namespace: str) -> None:
        """
        Make the settings as the guide has them, and start a daemon by its init script until the test ends.
        """
        self.do("\n".join(line for line in script.splitlines() if re.match("cp .*/default/|sed ", line)), namespace)
        settings = self.folder / "default" / daemon
        twistd = Path(sys.executable).with_name("twistd")
        own = f'TWISTD="{twistd}"\nPIDFILE="{self.folder}/{daemon}.pid"\nYURT_LOG_FILE="{self.folder}/{daemon}.log"\n'
        settings.write_text(self.here(settings.read_text(), self.cluster.node) + own)
        environ = [f"YURT_DEFAULTS={settings}", f"YURT_LIB={ETC / 'lib'}"]
        command = in_namespace(namespace, ["env", *environ, "sh", str(ETC / "init.d" / daemon)])
        self.addCleanup(run, [*command, "stop"])
        run([*command, "start"])

    def is_ready(self, page: str, namespace: str) -> None:
        """
        Wait until a daemon says so.
        """
        wait_for(f"{page} to be ready", lambda: curl(namespace, f"{page}/v1/readyz", agent="test", timeout=5).status == 200)

    def test_five_steps(self) -> None:
        """
        With the rights, certificates and settings of the guide, and nothing else, exec and logs reach the node behind NAT.
        """
        cluster, cloud, node = self.cluster, self.cluster.cloud_namespace, self.cluster.node
        self.make_pods(self.web_pod())
        self.addCleanup(cluster.apply, *SERVER_ROLE)
        self.addCleanup(cluster.kubectl, "delete", "--ignore-not-found", "-f", str(MANIFEST))
        self.do(step(2) + step(3), cloud)
        self.start(SERVER, step(4), cloud)
        self.is_ready(SERVER_META, cloud)
        self.start(AGENT, step(5), node.namespace)
        self.is_ready(AGENT_META, node.namespace)
        self.addCleanup(cluster.kubectl, "label", "node", node.name, f"{LABEL}-")
        cluster.kubectl("label", "node", node.name, f"{LABEL}=true")
        self.assertIn(f"label node edge-1 {LABEL}=true", step(5))
        wait_for("the tunnel", lambda: cluster.kubectl("exec", "web", "--", "hostname", timeout=30).strip() == "web")
        self.assertIn("web", cluster.kubectl("exec", "web", "--", "cat", "/tmp/w/index.html"))
        status = curl(cloud, f"{SERVER_META}/v1/status", agent="test", timeout=5).json
        self.assertEqual(([one["node"] for one in status["nodes"]], status["problems"]), ([node.name], []))
        self.assertTrue(status["nodes"][0]["bytesFromNode"])
