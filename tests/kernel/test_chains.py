"""
Tests for the two edges for chains on the running kernel.
"""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.host.contracts import DIRECT, DIVERSIONS, RULES, ChainsContract
from tests.kernel.namespaces import TOOL_SECONDS, Namespace, add_namespace, end, saved_rules
from tests.kernel.remote import RemoteChains
from yurt.host.messages import Known, Request, Result, decode_result, encode
from yurt.host.tools import Flavour
from yurt.host.tunnel_rules import TUNNEL_COMMENT, TUNNEL_ROOT, Flow, TunnelRules

FOREIGN = """\
*nat
:KUBE-SERVICES - [0:0]
:TUNNEL-PORT-OTHER - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -p tcp -m comment --comment "yurttunnel server port" -j ACCEPT
-A OUTPUT ! -d 127.0.0.0/8 -p tcp -m tcp --dport 10250 -j TUNNEL-PORT-OTHER
-A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j DNAT --to-destination 10.99.0.1:6443
-A TUNNEL-PORT-OTHER -j RETURN
COMMIT
*filter
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
"""
"""Rules of others, some of which look almost like ours."""

OPENYURT = """
-t nat -N TUNNEL-PORT
-t nat -I OUTPUT -p tcp -m comment --comment yurttunnel_server_port -j TUNNEL-PORT
-t nat -N TUNNEL-PORT-10250
-t nat -I TUNNEL-PORT -p tcp --dport 10250 -m comment --comment jump_to_port_10250 -j TUNNEL-PORT-10250
-t nat -I TUNNEL-PORT-10250 -p tcp -m comment --comment {direct} --dport 10250 -d 127.0.0.1/32 -j RETURN
-t nat -I TUNNEL-PORT-10250 -p tcp -m comment --comment {direct} --dport 10250 -d 10.0.0.1/32 -j RETURN
-t nat -I TUNNEL-PORT-10250 -p tcp -m comment --comment {direct} --dport 10250 -d 10.0.0.2/32 -j RETURN
-t nat -A TUNNEL-PORT-10250 -p tcp -m comment --comment {dnat} --dport 10250 -j DNAT --to-destination 127.0.0.1:10263
""".format(direct="return_request_to_access_node_directly", dnat="dnat_to_tunnel_for_access_node")
"""The calls of iptables by which OpenYurt makes its chains; the blanks of comments are underlined."""

WRITER = """\
i=0
while [ $i -lt 200 ]; do
  printf '*nat\\n:THEIRS - [0:0]\\n-A THEIRS -d 192.0.2.%s/32 -j RETURN\\nCOMMIT\\n' $i |
    iptables-{flavour}-restore --noflush {wait} || exit 1
  iptables-{flavour} {wait} -t nat -A KEPT -d 192.0.2.$i/32 -j RETURN || exit 1
  iptables-{flavour} {wait} -t nat -R KEPT 1 -d 198.51.100.$i/32 -j RETURN || exit 1
  i=$((i+1))
done
"""
"""A program that, like kube-proxy, writes its chains again and again: anew, one rule more, and one for another."""


def run_child(namespace: Namespace, request: Request) -> Result:
    """
    Have the child do its work in a namespace.
    """
    printed = namespace.run(sys.executable, "-m", "yurt.host", text=encode(request).decode())
    return decode_result(printed.encode())


class BackendContract(ChainsContract):
    """
    Promises of a real backend beside those of every one.
    """

    flavour: Flavour
    other: Flavour
    backend: str
    wait: str
    edge: tuple[str, str]

    def setUp(self) -> None:
        self.namespace = add_namespace(self)
        remote = RemoteChains(self.namespace, *self.edge)
        self.addCleanup(remote.close)
        self.chains = remote

    def saved(self, families: tuple[str, ...] = ("iptables",)) -> str:
        """
        All rules of this flavour.
        """
        return saved_rules(self.namespace, self.flavour, families)

    def use(self, flavour: Flavour) -> None:
        """
        Have the host use a flavour: rules of others are there.
        """
        self.namespace.run(f"iptables-{flavour}-restore", "--noflush", text=FOREIGN)

    def test_foreign_rules(self) -> None:
        """
        All that others have is byte for byte what it was, while ours are there and after they are gone.
        """
        self.use(self.flavour)
        before = self.saved()
        result = run_child(self.namespace, Request("ensure", tunnel=RULES))
        self.assertEqual((result.backend, result.flavour, result.problems), (self.backend, self.flavour, ()))
        during = self.saved().splitlines()
        ours = [line for line in during if line not in before.splitlines()]
        self.assertEqual("\n".join(line for line in during if line not in ours), before)
        self.assertEqual(len(ours), 3 + 1 + 2 + 8)
        self.assertEqual(run_child(self.namespace, Request("ensure", tunnel=RULES)).changes, ())
        self.assertEqual(run_child(self.namespace, Request("remove", tunnel=RULES)).problems, ())
        self.assertEqual(self.saved(), before)
        self.assertNotIn(TUNNEL_ROOT, self.saved(("ip6tables",)))

    def test_as_iptables_writes_them(self) -> None:
        """
        Chains that OpenYurt made by calls of iptables are recognised: nothing is added or taken away.
        """
        for call in OPENYURT.split("\n")[1:-1]:
            words = [word.replace("_", " ") for word in call.split()]
            self.namespace.run(f"iptables-{self.flavour}", *words)
        before = self.saved()
        outcome = self.ensure(TunnelRules(DIRECT, DIVERSIONS[:1]))
        self.assertEqual(outcome.changes, ())
        self.assertEqual(self.saved(), before)

    def test_iptables_knows_ours(self) -> None:
        """
        Our rules are to iptables itself the same as those it would write.
        """
        self.ensure()
        for call in OPENYURT.split("\n")[1:-1]:
            words = [word.replace("_", " ") for word in call.split()]
            if "-N" not in words:
                words[2] = "-C"
                self.namespace.run(f"iptables-{self.flavour}", *words)

    def test_own_rules_are_no_evidence(self) -> None:
        """
        Rules of ours in the flavour that is not in use are taken away, however many: they do not speak for it.
        """
        run_child(self.namespace, Request("ensure", tunnel=RULES, known=Known(self.flavour, TunnelRules())))
        self.assertIn(TUNNEL_COMMENT, self.saved())
        self.use(self.other)
        result = run_child(self.namespace, Request("ensure", tunnel=RULES))
        self.assertEqual((result.flavour, result.problems), (self.other, ()))
        self.assertNotIn(TUNNEL_ROOT, self.saved(("iptables", "ip6tables")))
        self.assertEqual(run_child(self.namespace, Request("ensure", tunnel=RULES)).changes, ())

    def test_difference(self) -> None:
        """
        With what is known to be there only the difference is applied; if it is not there after all everything is looked at.
        """
        self.use(self.flavour)
        run_child(self.namespace, Request("ensure", tunnel=RULES))
        more = TunnelRules((*DIRECT, "10.0.0.3", "fd00::3"), DIVERSIONS)
        result = run_child(self.namespace, Request("ensure", tunnel=more, known=Known(self.flavour, RULES)))
        self.assertEqual((len(result.changes), result.checked, result.problems), (3, False, ()))
        come = [("ipv4", "10.0.0.3", 10250), ("ipv4", "10.0.0.3", 10255), ("ipv6", "fd00::3", 10250)]
        self.assertEqual(list(result.flows), [Flow(family, host, port) for family, host, port in come])  # type: ignore[arg-type]  # literals
        self.assertEqual(run_child(self.namespace, Request("ensure", tunnel=more)).changes, ())
        self.namespace.run(f"iptables-{self.flavour}", "-t", "nat", "-F")
        self.namespace.run(f"iptables-{self.flavour}", "-t", "nat", "-X")
        result = run_child(self.namespace, Request("ensure", tunnel=RULES, known=Known(self.flavour, more)))
        self.assertEqual((result.checked, result.problems), (True, ()))
        self.assert_chains()

    def test_concurrent_writer(self) -> None:
        """
        While another program writes its own chains of the same table all the time, ours come and go, and it loses nothing.
        """
        self.namespace.run(f"iptables-{self.flavour}", "-t", "nat", "-N", "KEPT")
        script = WRITER.format(flavour=self.flavour, wait=self.wait)
        writer = self.namespace.start("sh", "-c", script)
        self.addCleanup(end, writer)
        rounds = 0
        while writer.poll() is None:
            self.ensure()
            self.assert_chains()
            self.ensure(TunnelRules())
            rounds += 1
        self.assertEqual(writer.returncode, 0)
        self.assertGreater(rounds, 1)
        kept = [line for line in self.saved().splitlines() if line.startswith("-A KEPT")]
        wanted = ["198.51.100.199", *(f"192.0.2.{n}" for n in range(1, 200))]
        self.assertEqual(kept, [f"-A KEPT -d {address}/32 -j RETURN" for address in wanted])


class RestoreChainsTests(BackendContract, SynchronousTestCase):
    """
    nf_tables, through iptables-restore.
    """

    flavour, other, backend, wait = "nft", "legacy", "nf_tables", ""
    edge = ("yurt.host.restore_chains", "RestoreChains")


class LegacyChainsTests(BackendContract, SynchronousTestCase):
    """
    Legacy tables, through python-iptables.
    """

    flavour, other, backend, wait = "legacy", "nft", "legacy", "-w"
    edge = ("yurt.host.iptc_chains", "LegacyChains")

    def test_table_not_loaded(self) -> None:
        """
        Looking where there is nothing loads no table: nat would turn on connection tracking for the whole host.
        """
        self.ensure(TunnelRules())
        with self.assertRaises(AssertionError):
            self.namespace.run("grep", "nat", "/proc/net/ip_tables_names")

    def test_unprivileged(self) -> None:
        """
        Without the capability the problem says so.
        """
        self.use("legacy")
        command = ["setpriv", "--bounding-set=-net_admin,-net_raw", "--inh-caps=-all", sys.executable, "-m", "yurt.host"]
        done = subprocess.run(
            self.namespace.inside(*command),
            input=encode(Request("ensure", tunnel=RULES)),
            capture_output=True,
            timeout=TOOL_SECONDS,
        )
        self.assertIn("needs CAP_NET_ADMIN", decode_result(done.stdout).problems[0])
