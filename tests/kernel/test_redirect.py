"""
Tests for :mod:`yurt.tunnel.server.redirect` in a real daemon on the running kernel, with real connections.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from tests.kernel.namespaces import TOOL_SECONDS, Namespace, add_namespace, end, read_line, saved_rules
from yurt.host.iptables_restore_edge import quote
from yurt.host.tunnel_rules import TUNNEL_COMMENT, TUNNEL_ROOT

if TYPE_CHECKING:
    _Mixin = SynchronousTestCase
else:
    _Mixin = object  # a contract alone is no test case

CLOUD, NODE = "10.5.0.1", "10.5.0.2"
CLOUD6, NODE6 = "fd05::1", "fd05::2"
FAR, FAR6 = "10.9.9.9", "fd09::9"
"""A node behind NAT: nothing answers there."""

USED = """\
*filter
-A INPUT -p icmp -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
COMMIT
*nat
-A POSTROUTING -o e9 -j RETURN
COMMIT
"""
"""Rules of others; what is left of the table nat without them is empty, but it is there."""


def ask(process: subprocess.Popen[bytes], order: str) -> None:
    """
    Write one line to a process.
    """
    assert process.stdin is not None
    process.stdin.write(order.encode() + b"\n")
    process.stdin.flush()


def wait_for_end(pid: int) -> None:
    """
    Wait until a process is gone.
    """
    deadline = time.monotonic() + TOOL_SECONDS
    while os.path.exists(f"/proc/{pid}"):
        if time.monotonic() > deadline:
            raise AssertionError(f"process {pid} is still there")
        time.sleep(0.01)


def openers(path: str) -> set[str]:
    """
    The processes that have a file open.
    """
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(link) == path:
                found.add(link.parts[2])
    return found


class RedirectContract(_Mixin):
    """
    A cloud host with the daemon, and a node that it reaches directly.
    """

    flavour: str
    backend: str

    def setUp(self) -> None:
        self.cloud, self.node = add_namespace(self), add_namespace(self)
        self.cloud.run("ip", "link", "add", "e0", "type", "veth", "peer", "name", "e1", "netns", self.node.name)
        for namespace, link, addresses in ((self.cloud, "e0", (CLOUD, CLOUD6)), (self.node, "e1", (NODE, NODE6))):
            namespace.run("ip", "link", "set", link, "up")
            namespace.run("ip", "address", "add", f"{addresses[0]}/24", "dev", link)
            namespace.run("ip", "-6", "address", "add", f"{addresses[1]}/64", "dev", link, "nodad")
        self.cloud.run("ip", "route", "add", "default", "via", NODE)
        self.cloud.run("ip", "-6", "route", "add", "default", "via", NODE6)
        self.cloud.run("sh", "-c", "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 > $f; done")
        for family in ("iptables", "ip6tables"):
            text = USED if family == "iptables" else USED.replace("icmp", "ipv6-icmp")
            self.cloud.run(f"{family}-{self.flavour}-restore", "--noflush", text=text)
        self.before = self.saved()

    def saved(self) -> str:
        """
        All rules of the cloud host.
        """
        return saved_rules(self.cloud, self.flavour)

    def start_doors(self, namespace: Namespace, *places: str) -> subprocess.Popen[bytes]:
        """
        Start listeners in a namespace.
        """
        process = namespace.start_python("-m", "tests.kernel.dialler", *places)
        self.addCleanup(end, process)
        self.assertEqual(read_line(process), "listening")
        return process

    def start_all_doors(self) -> subprocess.Popen[bytes]:
        """
        The server's doors in the cloud, and a kubelet on the node.
        """
        self.start_doors(self.node, NODE, "10250", NODE6, "10250", NODE, "10255")
        return self.start_doors(self.cloud, "::", "10263", "127.0.0.1", "10264", "::1", "10264")

    def start(self, bind: str = "::", period: float = 60.0, port: int = 10263) -> subprocess.Popen[bytes]:
        """
        Start the daemon.
        """
        daemon = self.cloud.start_python("-m", "tests.kernel.redirect_daemon", bind, str(period), str(port))
        self.addCleanup(end, daemon)
        self.state_with(daemon, problem="firewall rules: waiting for the first list of nodes and ports")
        return daemon

    def state_with(self, daemon: subprocess.Popen[bytes], **expected: Any) -> dict[str, Any]:
        """
        The daemon's first state from now on in which these are so.
        """
        while True:
            line = read_line(daemon)
            self.assertTrue(line.startswith("{"), f"instead of {expected} came {line!r}")
            state: dict[str, Any] = json.loads(line)
            if all(state[name] == value for name, value in expected.items()):
                return state

    def tell(self, daemon: subprocess.Popen[bytes], direct: list[str], ports: tuple[int, ...] = ()) -> None:
        """
        Tell the daemon which addresses are those of nodes without an agent, and which ports to divert.
        """
        ask(daemon, json.dumps({"direct": direct, "ports": ports}))

    def dial(self, dialler: subprocess.Popen[bytes], address: str, port: int) -> Any:
        """
        What a connection from the cloud host finds: the port that answered, and where it was going; or an error.
        """
        ask(dialler, f"{address} {port}")
        line = read_line(dialler)
        return json.loads(line) if line.startswith("[") else line

    def stop(self, daemon: subprocess.Popen[bytes]) -> None:
        """
        Stop the daemon and wait for its end.
        """
        daemon.terminate()
        while (line := read_line(daemon)) != "stopped":
            self.assertTrue(line, "the daemon ended without having stopped")
        daemon.wait(TOOL_SECONDS)

    def test_packets(self) -> None:
        """
        Connections to nodes arrive at the doors and know where they were going; those to a node without agent, and to loopback,
        arrive where they were going.  In both families.
        """
        dialler = self.start_all_doors()
        daemon = self.start()
        self.tell(daemon, [NODE, NODE6], (9100,))
        self.state_with(daemon, problem=None, backend=self.backend, direct_addresses=2)
        self.assertEqual(self.dial(dialler, FAR, 10250), [10263, FAR, 10250])
        self.assertEqual(self.dial(dialler, FAR, 10255), [10264, FAR, 10255])
        self.assertEqual(self.dial(dialler, FAR, 9100), [10264, FAR, 9100])
        self.assertEqual(self.dial(dialler, FAR6, 10250), [10263, FAR6, 10250])
        self.assertEqual(self.dial(dialler, FAR6, 10255), [10264, FAR6, 10255])
        self.assertEqual(self.dial(dialler, NODE, 10250), [10250, NODE, 10250])
        self.assertEqual(self.dial(dialler, NODE, 10255), [10255, NODE, 10255])
        self.assertEqual(self.dial(dialler, NODE6, 10250), [10250, NODE6, 10250])
        for address in ("127.0.0.1", "::1"):
            self.assertIn("ConnectionRefused", self.dial(dialler, address, 10250))
        self.stop(daemon)
        self.assertEqual(self.saved(), self.before)

    def test_one_address(self) -> None:
        """
        A server on one address is reached there; without an IPv6 address of its own it has no rules of IPv6.
        """
        dialler = self.start_doors(self.cloud, CLOUD, "10263", "127.0.0.1", "10264")
        daemon = self.start(CLOUD)
        self.tell(daemon, [])
        self.state_with(daemon, problem=None)
        self.assertEqual(self.dial(dialler, FAR, 10250), [10263, FAR, 10250])
        self.assertEqual(self.dial(dialler, FAR, 10255), [10264, FAR, 10255])
        self.assertNotIn(TUNNEL_ROOT, saved_rules(self.cloud, self.flavour, ("ip6tables",)))

    def test_change(self) -> None:
        """
        A node that gets an agent, or loses it, goes the other way from its next connection on.
        """
        dialler = self.start_all_doors()
        daemon = self.start()
        self.tell(daemon, [])
        self.state_with(daemon, problem=None)
        self.assertEqual(self.dial(dialler, NODE, 10250), [10263, NODE, 10250])
        self.tell(daemon, [NODE])
        self.state_with(daemon, direct_addresses=1)
        self.assertEqual(self.dial(dialler, NODE, 10250), [10250, NODE, 10250])
        self.tell(daemon, [])
        self.state_with(daemon, direct_addresses=0)
        self.assertEqual(self.dial(dialler, NODE, 10250), [10263, NODE, 10250])

    def test_open_connections(self) -> None:
        """
        What connection tracking knows of connections on the old way is forgotten, and only that.
        """
        dialler = self.start_all_doors()
        daemon = self.start()
        self.tell(daemon, [])
        self.state_with(daemon, problem=None)
        for address in (NODE, FAR):
            self.dial(dialler, address, 10250)
        self.assertIn(f"dst={NODE} ", self.cloud.run("conntrack", "-L"))
        self.tell(daemon, [NODE])
        deadline = time.monotonic() + TOOL_SECONDS
        while f"dst={NODE} " in (known := self.cloud.run("conntrack", "-L")):
            self.assertLess(time.monotonic(), deadline, "it was never forgotten")
            time.sleep(0.05)
        self.assertIn(f"dst={FAR} ", known)

    def test_kill(self) -> None:
        """
        After kill -9 the rules hold; the next start touches nothing before it knows the nodes, and then puts them right.
        """
        dialler = self.start_all_doors()
        daemon = self.start()
        self.tell(daemon, [NODE], (9100,))
        self.state_with(daemon, problem=None)
        rules = self.saved()
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
        self.assertEqual(self.dial(dialler, FAR, 10250), [10263, FAR, 10250])
        daemon = self.start()
        self.assertEqual(self.saved(), rules)
        self.tell(daemon, [])
        state = self.state_with(daemon, problem=None)
        self.assertEqual((state["changes"], state["repairs"]), (1, 0))
        self.assertEqual(self.dial(dialler, NODE, 10250), [10263, NODE, 10250])
        self.assertNotIn(f"{TUNNEL_ROOT}-9100", self.saved())
        self.stop(daemon)
        self.assertEqual(self.saved(), self.before)

    def kept_child(self, daemon: subprocess.Popen[bytes]) -> int:
        """
        The child that a daemon keeps; conntrack may be another one.
        """
        with open(f"/proc/{daemon.pid}/task/{daemon.pid}/children") as file:
            children = [int(word) for word in file.read().split()]
        (kept,) = [pid for pid in children if "yurt.host" in Path(f"/proc/{pid}/cmdline").read_text()]
        return kept

    def test_child_killed(self) -> None:
        """
        The child that is kept after a change may be killed: the next change is made by another.  None is left when the daemon is
        killed, and none when it stops.
        """
        daemon = self.start()
        self.tell(daemon, [NODE])
        self.state_with(daemon, problem=None, direct_addresses=1)
        kept = self.kept_child(daemon)
        os.kill(kept, signal.SIGKILL)
        wait_for_end(kept)
        self.tell(daemon, [])
        state = self.state_with(daemon, direct_addresses=0)
        self.assertEqual((state["problem"], state["failures"]), (None, 0))
        kept = self.kept_child(daemon)
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
        wait_for_end(kept)
        daemon = self.start()
        self.tell(daemon, [])
        self.state_with(daemon, problem=None)
        kept = self.kept_child(daemon)
        self.stop(daemon)
        wait_for_end(kept)
        self.assertEqual(self.saved(), self.before)

    def test_healed(self) -> None:
        """
        When somebody flushes chains, or deletes the jump, a check puts all back; it is counted.
        """
        dialler = self.start_all_doors()
        daemon = self.start(period=0.5)
        self.tell(daemon, [NODE])
        self.state_with(daemon, problem=None)
        wanted = self.saved()
        jump = ["-p", "tcp", "-m", "comment", "--comment", TUNNEL_COMMENT, "-j", TUNNEL_ROOT]
        meddlings = (["-F", "OUTPUT"], ["-F", f"{TUNNEL_ROOT}-10250"], ["-D", "OUTPUT", *jump])
        for repairs, meddling in enumerate(meddlings, 1):
            self.cloud.run(f"iptables-{self.flavour}", "-w", "-t", "nat", *meddling)
            self.state_with(daemon, repairs=repairs, problem=None)
            self.assertEqual(self.saved(), wanted)
        self.assertEqual(self.dial(dialler, FAR, 10250), [10263, FAR, 10250])
        self.assertEqual(self.dial(dialler, NODE, 10250), [10250, NODE, 10250])

    def test_flushed(self) -> None:
        """
        When somebody flushes the table, deletes the jump, or puts a rule for all connections before it, that is put right long
        before the next check, of which there is none here.
        """
        dialler = self.start_all_doors()
        daemon = self.start(period=3600.0)
        self.tell(daemon, [NODE])
        self.state_with(daemon, problem=None)
        wanted = self.saved()
        jump = ["-p", "tcp", "-m", "comment", "--comment", TUNNEL_COMMENT, "-j", TUNNEL_ROOT]
        nat = f"iptables-{self.flavour}", "-w", "-t", "nat"
        self.cloud.run(*nat, "-D", "OUTPUT", *jump)
        self.state_with(daemon, repairs=1, problem=None)
        self.assertEqual(self.saved(), wanted)
        self.cloud.run(*nat, "-F")
        self.state_with(daemon, repairs=2, problem=None)
        self.assertEqual(self.dial(dialler, FAR, 10250), [10263, FAR, 10250])
        self.cloud.run(*nat, "-I", "OUTPUT", "-p", "tcp", "-j", "ACCEPT")
        self.state_with(daemon, repairs=3, problem=None)
        self.assertEqual(self.dial(dialler, FAR, 10250), [10263, FAR, 10250])

    def test_call_made_without_rules(self) -> None:
        """
        A call that was made while there were no rules, and that nobody answers, gets through as soon as they are there: else the
        API server would wait for its time-out after each restart of the server.
        """
        dialler = self.start_all_doors()
        self.cloud.run("iptables", "-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")  # as kube-proxy has
        ask(dialler, f"{FAR} 10250")
        deadline = time.monotonic() + TOOL_SECONDS
        while f"dst={FAR} " not in self.cloud.run("conntrack", "-L"):
            self.assertLess(time.monotonic(), deadline, "connection tracking does not know it")
        daemon = self.start()
        self.tell(daemon, [NODE])
        self.state_with(daemon, problem=None)
        self.assertEqual(json.loads(read_line(dialler)), [10263, FAR, 10250])

    def test_broken_before_change(self) -> None:
        """
        A change that finds the chains gone puts all back at once.
        """
        dialler = self.start_all_doors()
        daemon = self.start()
        self.tell(daemon, [NODE])
        self.state_with(daemon, problem=None)
        self.cloud.run(f"iptables-{self.flavour}", "-w", "-t", "nat", "-F")
        self.cloud.run(f"iptables-{self.flavour}", "-w", "-t", "nat", "-X")
        self.tell(daemon, [NODE, "10.5.0.3"])
        self.state_with(daemon, problem=None, direct_addresses=2)
        self.assertEqual(self.dial(dialler, FAR, 10250), [10263, FAR, 10250])
        self.assertEqual(self.dial(dialler, NODE, 10250), [10250, NODE, 10250])

    def test_no_gap(self) -> None:
        """
        While chains are changed and written anew, every connection finds the way that it has before and after.
        """
        dialler = self.start_all_doors()
        daemon = self.start()
        self.tell(daemon, [NODE])
        self.state_with(daemon, problem=None)
        for address in (FAR, NODE):
            ask(dialler, f"watch {address} 10250")
        crowd = [f"10.1.{n // 256}.{n % 256}" for n in range(1000)]
        for direct in ([NODE, *crowd], [NODE], [NODE, "10.1.0.1"], [NODE, *crowd], [NODE]):
            self.tell(daemon, direct)
            self.state_with(daemon, direct_addresses=len(direct))
        ask(dialler, "end")
        far, near = json.loads(read_line(dialler))
        self.assertEqual(set(far), {json.dumps([10263, FAR, 10250])})
        self.assertEqual(set(near), {json.dumps([10250, NODE, 10250])})
        self.assertGreater(min(*far.values(), *near.values()), 50)

    def test_two_servers(self) -> None:
        """
        Of two servers on a host one keeps the rules; the other says which does, and keeps them as soon as that one was killed.
        A stop of one that does not keep them leaves them.
        """
        first, second = self.start(), self.start()
        self.tell(first, [NODE])
        self.state_with(first, problem=None)
        rules = self.saved()
        self.tell(second, [])
        found = self.state_with(second, backend=None, direct_addresses=0)
        while "another yurt-tunnel-server" not in found["problem"]:
            found = self.state_with(second, backend=None)
        self.assertIn(f"process {first.pid}", found["problem"])
        third = self.start()
        self.tell(third, [])
        self.stop(third)
        self.assertEqual(self.saved(), rules)
        first.kill()
        first.wait()
        self.state_with(second, problem=None, direct_addresses=0)
        self.assertNotIn(f"-d {NODE}/32", self.saved())
        self.stop(second)
        self.assertEqual(self.saved(), self.before)

    def test_handed_over(self) -> None:
        """
        When the server that keeps the rules stops beside another one, every connection comes to one of the two: there is no
        moment without rules.
        """
        self.start_doors(self.cloud, CLOUD, "10273")
        dialler = self.start_all_doors()
        first, second = self.start(), self.start(CLOUD, port=10273)
        self.tell(first, [NODE])
        self.state_with(first, problem=None)
        self.tell(second, [NODE])
        while "another yurt-tunnel-server" not in self.state_with(second)["problem"]:
            pass
        ask(dialler, f"watch {FAR} 10250")
        self.stop(first)
        self.state_with(second, problem=None)
        self.assertEqual(self.dial(dialler, FAR, 10250), [10273, FAR, 10250])
        ask(dialler, "end")
        (far,) = json.loads(read_line(dialler))
        self.assertEqual(set(far), {json.dumps([port, FAR, 10250]) for port in (10263, 10273)})
        self.stop(second)
        self.assertEqual(self.saved(), self.before)

    def test_host_changes(self) -> None:
        """
        When the host begins to use the other firewall, as kubelet's chain tells, the rules go there with the next check, and no
        connection goes astray meanwhile.
        """
        dialler = self.start_all_doors()
        daemon = self.start(period=0.5)
        self.tell(daemon, [])
        state = self.state_with(daemon, problem=None)
        self.assertIn("most rules of others are there", state["reason"])
        ask(dialler, f"watch {FAR} 10250")
        other = "legacy" if self.flavour == "nft" else "nft"
        self.cloud.run(f"iptables-{other}", "-w", "-t", "mangle", "-N", "KUBE-IPTABLES-HINT")
        state = self.state_with(daemon, backend="legacy" if other == "legacy" else "nf_tables", problem=None)
        self.assertIn("KUBE-IPTABLES-HINT", state["reason"])
        self.assertIn(TUNNEL_ROOT, saved_rules(self.cloud, other))
        self.assertEqual(self.saved(), self.before)
        ask(dialler, "end")
        (far,) = json.loads(read_line(dialler))
        self.assertEqual(set(far), {json.dumps([10263, FAR, 10250])})
        self.stop(daemon)
        self.assertNotIn(TUNNEL_ROOT, saved_rules(self.cloud, other))

    def test_meddled(self) -> None:
        """
        In both families: chains deleted, a rule for all connections put before the jump, the jump doubled, rules of ours in
        another order, and of others in our chains: a check puts all as it was, and leaves what is not ours.
        """
        daemon = self.start(period=0.5)
        self.tell(daemon, [NODE, NODE6])
        self.state_with(daemon, problem=None)
        wanted = self.saved()
        chain, jump = f"{TUNNEL_ROOT}-10250", ["-p", "tcp", "-m", "comment", "--comment", TUNNEL_COMMENT, "-j", TUNNEL_ROOT]
        meddlings = (
            (["-F"], ["-X"]),
            (["-A", "OUTPUT", *jump], ["-I", "OUTPUT", *jump]),
            (["-D", "OUTPUT", *jump], ["-A", "OUTPUT", "-p", "tcp", "-j", "ACCEPT"], ["-A", "OUTPUT", *jump]),
            (["-D", chain, "1"], ["-A", chain, "-p", "tcp", "-j", "ACCEPT"], ["-I", TUNNEL_ROOT, "-p", "udp", "-j", "RETURN"]),
            (["-N", f"{TUNNEL_ROOT}-9"], ["-I", TUNNEL_ROOT, "-p", "tcp", "-j", f"{TUNNEL_ROOT}-9"]),
        )
        bar = "-A OUTPUT -p tcp -j ACCEPT"
        theirs = "-A POSTROUTING -o e9 -j RETURN\n"
        for meddling in meddlings:
            lines = "\n".join(" ".join(map(quote, words)) for words in meddling)
            for family in ("iptables", "ip6tables"):
                self.cloud.run(f"{family}-{self.flavour}-restore", "--noflush", text=f"*nat\n{lines}\nCOMMIT\n")
            self.state_with(daemon, problem=None)
            while self.saved().replace(f"{bar}\n", "").replace(theirs, "") != wanted.replace(theirs, ""):
                self.state_with(daemon, problem=None)
        self.assertLess(self.saved().index(TUNNEL_COMMENT), self.saved().index(bar))

    def test_rule_by_hand(self) -> None:
        """
        A rule that someone put into a chain of ours by hand goes with the next check, the others stay as they were.
        """
        daemon = self.start(period=0.5)
        self.tell(daemon, [NODE])
        self.state_with(daemon, problem=None)
        wanted = self.saved()
        by_hand = ["-d", "10.7.7.7/32", "-p", "tcp", "-j", "RETURN"]
        self.cloud.run(f"iptables-{self.flavour}", "-w", "-t", "nat", "-I", f"{TUNNEL_ROOT}-10250", *by_hand)
        self.state_with(daemon, repairs=1)
        self.assertEqual(self.saved(), wanted)


class RestoreTests(RedirectContract, SynchronousTestCase):
    """
    A host on nf_tables.
    """

    flavour, backend = "nft", "nf_tables"

    def test_lost_in_a_crowd(self) -> None:
        """
        When a change is so large that the kernel cannot tell all of it, and the jump goes at its end, that is put right long
        before the next check.
        """
        daemon = self.start(period=3600.0)
        self.tell(daemon, [NODE])
        self.state_with(daemon, problem=None)
        comment = "x" * 200
        crowd = [f'-A CROWD -d 10.{n >> 8}.{n & 255}.1 -m comment --comment "{comment}" -j RETURN' for n in range(20_000)]
        text = "\n".join(["*nat", ":CROWD -", *crowd, "-F OUTPUT", "COMMIT", ""])
        daemon.send_signal(signal.SIGSTOP)  # a quick one might read all before the buffer is full
        self.cloud.run("iptables-nft-restore", "--noflush", text=text)
        daemon.send_signal(signal.SIGCONT)
        self.state_with(daemon, repairs=1, problem=None)
        self.assertIn(TUNNEL_COMMENT, self.saved())


class LegacyTests(RedirectContract, SynchronousTestCase):
    """
    A host on legacy tables.
    """

    flavour, backend = "legacy", "legacy"

    def test_lock_held(self) -> None:
        """
        While another program holds the lock of the tables a change waits for it, and is made then; nothing has failed.
        """
        daemon = self.start()
        self.tell(daemon, [])
        self.state_with(daemon, problem=None)
        with open("/run/xtables.lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.tell(daemon, [NODE])
            deadline = time.monotonic() + TOOL_SECONDS
            while len(openers("/run/xtables.lock")) < 2:
                self.assertLess(time.monotonic(), deadline, "nobody waits")
                time.sleep(0.01)
            self.assertNotIn(f"-d {NODE}/32", self.saved())
        state = self.state_with(daemon, direct_addresses=1)
        self.assertEqual((state["problem"], state["failures"]), (None, 0))
