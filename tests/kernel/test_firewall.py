"""
Tests for the two firewall edges on the running kernel.
"""

from __future__ import annotations

import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.host.contracts import BOTH, FirewallContract
from tests.kernel.namespaces import Namespace, add_namespace, end, read_line, saved_rules
from tests.kernel.remote import RemoteFirewall
from yurt.host.firewall import POD_COMMENT, pod_rules
from yurt.host.messages import Request, Result, decode_result, encode

FOREIGN = """\
*raw
-A PREROUTING -d 192.0.2.1/32 -p udp -m udp --dport 53 -j NOTRACK
-A OUTPUT -d 169.254.2.1/32 -p tcp -m tcp --dport 10261 -m comment --comment "not ours" -j NOTRACK
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
-A INPUT -j KUBE-FIREWALL
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment "for container access" -j ACCEPT
-A INPUT ! -s 10.0.0.0/8 -i eth0 -p tcp -m multiport --dports 22,80:90 -j DROP
-A FORWARD -m comment --comment "for container access hub agent" -j ACCEPT
-A OUTPUT -d 169.254.2.1/32 -p tcp -m tcp --dport 10261 -j ACCEPT
COMMIT
"""
"""Rules of others: some say what ours say without our comment, one has our comment in a chain that is none of ours."""


LEADING = """\
*nat
-A PREROUTING -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j DNAT --to-destination 169.254.2.1:10268
COMMIT
*filter
-A INPUT -i veth0 -p tcp -j DROP
COMMIT
"""
"""What kube-proxy makes of a Service, and a firewall."""

LISTEN = """
import socket, sys
server = socket.create_server(("169.254.2.1", int(sys.argv[1])))
print("listening", flush=True)
while True:
    connection, _ = server.accept()
    connection.sendall(b"hello")
    connection.close()
"""

CONNECT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as connection:
    print(connection.makefile().read())
"""


def run_child(namespace: Namespace, request: Request) -> Result:
    """
    Have the child do its work in a namespace.
    """
    printed = namespace.run(sys.executable, "-m", "yurt.host", text=encode(request).decode())
    return decode_result(printed.encode())


class BackendContract(FirewallContract):
    """
    Promises of a real backend beside those of every firewall.
    """

    flavour: str
    other: str
    backend: str
    edge: tuple[str, str]

    def setUp(self) -> None:
        self.namespace = add_namespace(self)
        self.firewall = RemoteFirewall(self.namespace, *self.edge)
        self.addCleanup(self.firewall.close)

    def restore(self, text: str, flavour: str) -> None:
        """
        Add rules as another program would.
        """
        self.namespace.run(f"iptables-{flavour}-restore", "--noflush", text=text)

    def test_foreign_rules(self) -> None:
        """
        All that others have is byte for byte what it was, while ours are there and after they are gone.
        """
        self.restore(FOREIGN, self.flavour)
        before = saved_rules(self.namespace, self.flavour, ("iptables",))
        rules = pod_rules(BOTH, (10261, 10268))
        result = run_child(self.namespace, Request("ensure", rules=rules))
        self.assertEqual((result.backend, result.problems, len(result.changes)), (self.backend, (), 20))
        during = saved_rules(self.namespace, self.flavour, ("iptables",)).splitlines()
        added = [line for line in during if POD_COMMENT in line and "FORWARD" not in line]
        self.assertEqual(len(added), 10)
        self.assertEqual("\n".join(line for line in during if line not in added), before)
        self.assertEqual(run_child(self.namespace, Request("ensure", rules=rules)).changes, ())
        self.assertEqual(run_child(self.namespace, Request("remove", rules=rules)).problems, ())
        self.assertEqual(saved_rules(self.namespace, self.flavour, ("iptables",)), before)
        self.assertNotIn(POD_COMMENT, saved_rules(self.namespace, self.flavour, ("ip6tables",)))

    def test_as_iptables_writes_them(self) -> None:
        """
        Rules that iptables itself put there, as OpenYurt's were, are recognised: none is added or taken away.
        """
        rules = pod_rules(("169.254.2.1",), (10261,))
        for rule in reversed(rules.rules):
            table, chain = rule.slot.table, rule.slot.chain
            self.namespace.run(f"iptables-{self.flavour}", "-t", table, "-I", chain, *rule.spec)
        before = saved_rules(self.namespace, self.flavour)
        self.assertEqual(self.ensure(rules), [])
        for rule in rules.rules:
            self.namespace.run(f"iptables-{self.flavour}", "-t", rule.slot.table, "-C", rule.slot.chain, *rule.spec)
        self.assertEqual(saved_rules(self.namespace, self.flavour), before)

    def test_iptables_knows_ours(self) -> None:
        """
        Our rules are to iptables itself the same as those it would write.
        """
        rules = pod_rules(BOTH, (10261,))
        self.ensure(rules)
        for rule in rules.rules:
            program = "ip6tables" if rule.family == "ipv6" else "iptables"
            self.namespace.run(f"{program}-{self.flavour}", "-t", rule.slot.table, "-C", rule.slot.chain, *rule.spec)

    def test_both_ports(self) -> None:
        """
        From a pod both ports are reached through a firewall that drops all else, and the HTTPS one also by way of a ClusterIP,
        as kube-proxy leads there.
        """
        pod = add_namespace(self)
        host, ip = self.namespace, "10.244.7."
        host.run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "eth0", "netns", pod.name)
        links = ((host, "veth0", f"{ip}1/24"), (pod, "eth0", f"{ip}2/24"), (host, "lo", "169.254.2.1/32"))
        for namespace, name, address in links:
            namespace.run("ip", "addr", "add", address, "dev", name)
            namespace.run("ip", "link", "set", name, "up")
        pod.run("ip", "route", "add", "default", "via", f"{ip}1")
        self.restore(LEADING, self.flavour)
        servers = [host.start_python("-c", LISTEN, str(port)) for port in (10261, 10268)]
        for server in servers:
            self.addCleanup(end, server)
            self.assertEqual(read_line(server), "listening")
        self.ensure(pod_rules(("169.254.2.1",), (10261, 10268), (10268,)))
        for place in (("169.254.2.1", "10261"), ("169.254.2.1", "10268"), ("10.96.0.1", "443")):
            self.assertEqual(pod.run(sys.executable, "-c", CONNECT, *place), "hello\n", place)

    def test_only_our_tables(self) -> None:
        """
        No table is loaded that we have no rule in; nat would turn on connection tracking for the whole host.
        """
        self.ensure(pod_rules(BOTH, (10261,)))
        saved = saved_rules(self.namespace, self.flavour)
        self.assertEqual({line for line in saved.splitlines() if line.startswith("*")}, {"*raw", "*filter"})

    def test_moved_backend(self) -> None:
        """
        Rules of ours in the backend that is not in use any more are taken away when the new one is used.
        """
        rules = pod_rules(("169.254.2.1",), (10261,))
        self.ensure(rules)
        self.restore(FOREIGN, self.other)
        result = run_child(self.namespace, Request("ensure", rules=rules))
        self.assertNotEqual(result.backend, self.backend)
        self.assertNotIn(POD_COMMENT, saved_rules(self.namespace, self.flavour))
        self.assertEqual(run_child(self.namespace, Request("ensure", rules=rules)).changes, ())


class RestoreFirewallTests(BackendContract, SynchronousTestCase):
    """
    nf_tables, through iptables-restore.
    """

    flavour, other, backend = "nft", "legacy", "nf_tables"
    edge = ("yurt.host.iptables_restore_edge", "RestoreFirewall")


class LegacyFirewallTests(BackendContract, SynchronousTestCase):
    """
    Legacy tables, through python-iptables.
    """

    flavour, other, backend = "legacy", "nft", "legacy"
    edge = ("yurt.host.iptc_edge", "LegacyFirewall")

    def test_concurrent_writer(self) -> None:
        """
        While another program changes the same tables all the time ours still come and go, and none of its changes is lost.
        """
        script = (
            "i=0; while [ $i -lt 200 ]; do iptables-legacy -w -I INPUT -s 192.0.2.9 -j DROP && "
            "iptables-legacy -w -D INPUT -s 192.0.2.9 -j DROP || exit 1; i=$((i+1)); done"
        )
        self.namespace.run("iptables-legacy", "-I", "INPUT", "-s", "192.0.2.1", "-j", "DROP")
        before = saved_rules(self.namespace, "legacy", ("iptables",))
        writer = self.namespace.start("sh", "-c", script)
        self.addCleanup(end, writer)
        rules = pod_rules(("169.254.2.1",), (10261,))
        rounds = 0
        while writer.poll() is None:
            self.ensure(rules)
            for rule in self.seen():
                self.assertEqual(rule.comment, POD_COMMENT)
            self.ensure(type(rules)(rules.comment, rules.slots, ()))
            rounds += 1
        self.assertEqual(writer.returncode, 0)
        self.assertGreater(rounds, 0)
        after = saved_rules(self.namespace, "legacy", ("iptables",))
        self.assertEqual([line for line in after.splitlines() if line.startswith("-A")], before.splitlines()[-2:-1])

    def test_unprivileged(self) -> None:
        """
        Without the capability the problem says so.
        """
        self.restore(FOREIGN, "legacy")
        command = ["setpriv", "--bounding-set=-net_admin,-net_raw", "--inh-caps=-all", sys.executable, "-m", "yurt.host"]
        request = encode(Request("ensure", rules=pod_rules(("169.254.2.1",), (10261,))))
        done = subprocess.run(self.namespace.inside(*command), input=request, capture_output=True, env=os.environ)
        (problem,) = decode_result(done.stdout).problems
        self.assertIn("needs CAP_NET_ADMIN", problem)
