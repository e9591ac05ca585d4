"""
Links that break, processes that die, readers that stop reading, callers that give up.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from operator import le
from pathlib import Path

from tests.stopwatch import Stopwatch
from yurt.tunnel import quiet

from .pods import pod
from .process import PATIENCE, E2EError, Process, in_namespace, run, wait_for
from .tunnel import AGENT, TALKER, WEB
from .tunnel_case import TunnelCase, numbers

CUT = 30.0
NOTICED_WITHIN = 15.0
BACK_WITHIN = 5.0
SLACK = 1.5
"""Seconds that the machine and the tools may add to a promise of seconds."""
BIG = 1024
"""MB of the big copy."""
ABORTS = 10_000
GROWTH = 6 << 20
ROUNDS = 4
"""
Bytes by which a process may differ from what it was before, after the allocator's fashion, in one of so many rounds: the first
has it grow to what so many connections at once need, and so does a later one that has more by chance.  A leak grows in all.
"""
SETTLING = 60
QUIET = 10
"""Seconds that a busy machine may need to come to rest, and a process then to collect its garbage and give memory back."""
LONG_LINE = 1000
LINES = 60_000


def resident(process: Process) -> int:
    """
    The bytes of memory that a process holds.
    """
    fields = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in fields if line.startswith("VmRSS:"))


def descriptors(process: Process) -> int:
    """
    How many files it has open.
    """
    return len(os.listdir(f"/proc/{process.pid}/fd"))


class LinkTests(TunnelCase):
    """
    The node's link.
    """

    def test_cut(self) -> None:
        """
        A cut is noticed on both sides, a call says so at once, and after 30 s without packets the agent is back within 5 s.
        """
        node, server = self.cluster.node, self.tunnel.server
        self.addCleanup(self.cluster.heal)
        self.cluster.cut()
        begin = Stopwatch()
        wait_for("the server to notice", lambda: not server.connected())
        wait_for("the agent to notice", lambda: self.tunnel.agent_answers(node, "/v1/readyz")[0] != 200)
        self.assert_within(NOTICED_WITHIN + SLACK + 1, begin)
        self.assert_refused()
        time.sleep(max(0.0, CUT - begin.elapsed))
        self.cluster.heal()
        healed = Stopwatch()
        server.wait_for_agents(node.name)
        self.assert_within(BACK_WITHIN + SLACK, healed)
        self.assertEqual(self.tunnel.kubectl("exec", WEB, "--", "hostname"), "web\n")

    def test_changed_address(self) -> None:
        """
        A node that loses the address its link was made from connects again from another.
        """
        node, server = self.cluster.node, self.tunnel.server
        address = self.cluster.network.add_address(node.namespace, 61)
        node.run("ip", "route", "replace", f"{server.address}/32", "dev", "uplink", "src", address)
        self.addCleanup(node.run, "ip", "route", "del", f"{server.address}/32", check=False)
        self.addCleanup(node.run, "ip", "addr", "del", f"{address}/24", "dev", "uplink", check=False)
        self.tunnel.start_agent(node)
        self.assertIn(address, str(server.agents))
        node.run("ip", "addr", "del", f"{address}/24", "dev", "uplink")
        node.run("ip", "route", "replace", f"{server.address}/32", "dev", "uplink", "src", node.address)

        def comes_from_the_other() -> bool:
            return any(node.address in agent["from"] for agent in server.agents)

        wait_for("the agent from its other address", comes_from_the_other, NOTICED_WITHIN + BACK_WITHIN + SLACK)
        self.assertEqual(self.tunnel.kubectl("exec", WEB, "--", "hostname"), "web\n")


class KillTests(TunnelCase):
    """
    Processes that die without a word.
    """

    def assert_back(self, began: Stopwatch) -> None:
        """
        The agent is back in time, and calls go through.
        """
        self.tunnel.server.wait_for_agents(self.cluster.node.name)
        self.assert_within(BACK_WITHIN + SLACK, began)
        self.assertEqual(self.tunnel.kubectl("exec", WEB, "--", "hostname"), "web\n")

    def test_agent(self) -> None:
        """
        A killed agent is missed at once: what ran through it ends, and new calls are refused until it is back.
        """
        node = self.cluster.node
        follower = self.follow(self.tunnel.kubectl_command("logs", "-f", TALKER))
        wait_for("a line", lambda: numbers(follower.text))
        node.stop(AGENT, signal.SIGKILL)
        wait_for("the server to notice", lambda: not self.tunnel.server.connected(), 2)
        wait_for("the end of what ran", lambda: follower.ended, 5)
        self.assert_refused()
        began = Stopwatch()
        self.tunnel.start_agent(node)
        self.assert_back(began)

    def test_server(self) -> None:
        """
        After a killed server's return the agent is back in time, however long that took.
        """
        self.tunnel.server.stop(signal.SIGKILL)
        wait_for("the agent to notice", lambda: self.tunnel.agent_answers(self.cluster.node, "/v1/readyz")[0] != 200)
        time.sleep(10)  # so that the agent's patience between attempts has grown
        self.tunnel.server.restart()
        self.assert_back(Stopwatch())

    def test_kubelet(self) -> None:
        """
        Without a kubelet a call is refused with the reason; the next kubelet is reached at once.
        """
        node = self.cluster.node
        node.stop("kubelet", signal.SIGKILL)
        self.assert_refused()
        node.start_kubelet(self.cluster.hub_kubeconfig)

        def answers() -> bool:
            return self.tunnel.kubectl("exec", WEB, "--", "hostname") == "web\n"

        wait_for("the next kubelet", answers)


class DrainTests(TunnelCase):
    """
    Daemons that are asked to end while something runs.
    """

    def leave_while_running(self, process: Process) -> str:
        """
        Ask a daemon to end while an exec runs; answers what the exec printed.
        """
        follower = self.follow(self.tunnel.kubectl_command("exec", WEB, "--", "sh", "-c", "echo begun; sleep 4; echo survived"))
        follower.wait_for("begun")
        process.send(signal.SIGTERM)
        wait_for("the end of the exec", lambda: follower.ended)
        wait_for("the end of the daemon", lambda: process.status is not None)
        return follower.text

    def test_agent(self) -> None:
        """
        A running exec ends as it should, and then the agent.
        """
        self.assertIn("survived", self.leave_while_running(self.cluster.node.processes[AGENT]))

    def test_server(self) -> None:
        """
        A running exec ends as it should, and then the server.
        """
        process = self.tunnel.server.process
        assert process
        self.assertIn("survived", self.leave_while_running(process))

    def test_follower(self) -> None:
        """
        Somebody who follows a log, and the connection that the API server keeps after a call, hold an agent's stop up for 10 s at
        most.
        """
        self.tunnel.kubectl("logs", "--tail=1", TALKER)
        follower = self.follow(self.tunnel.kubectl_command("logs", "-f", "--tail=1", TALKER))
        wait_for("a line", lambda: numbers(follower.text))
        self.assertTrue(self.tunnel.server.agents[0]["streams"] > 0)
        process = self.cluster.node.processes[AGENT]
        process.send(signal.SIGTERM)
        wait_for("the end of the agent", lambda: process.status is not None, quiet.QUIET + quiet.STEP + 2 * SLACK)
        self.tunnel.start_agent(self.cluster.node)
        self.assertEqual(self.tunnel.kubectl("exec", WEB, "--", "hostname"), "web\n")

    def test_newer_agent(self) -> None:
        """
        A second agent of the node takes over what is new; what runs through the first runs on.
        """
        node = self.cluster.node
        follower = self.follow(self.tunnel.kubectl_command("logs", "-f", "--tail=1", TALKER))
        wait_for("a line", lambda: numbers(follower.text))
        command = self.tunnel.agent_command(node, "--meta-port", "10276")
        second = Process("the second agent", command, node.folder / "second-agent.log", node.namespace)
        self.addCleanup(second.stop)
        wait_for("the second connection", lambda: self.connections() == 2)
        self.assertEqual(self.tunnel.kubectl("exec", WEB, "--", "hostname"), "web\n")
        seen = len(numbers(follower.text))
        wait_for("more of the log", lambda: len(numbers(follower.text)) > seen + 2)
        self.assertFalse(follower.ended)

    def connections(self) -> int:
        """
        How many connections the server has of the node.
        """
        return len(self.tunnel.server.agents)


class StallTests(TunnelCase):
    """
    A reader that stops reading.
    """

    def test_stalled_logs(self) -> None:
        """
        Beside a `logs -f` that nobody reads, exec works and carries much; when the reader goes on it misses nothing.
        """
        node = self.cluster.node
        fill = f"i=0; s=$(head -c {LONG_LINE} /dev/zero | busybox tr '\\0' x); seq 1 {LINES} | while read i; do echo $i $s; done"
        self.make_pods(pod("chatty", node.name, f"{fill}; echo full; sleep 100000", host_network=True))
        wait_for("a long log", lambda: "full" in self.tunnel.kubectl("logs", "--tail=1", "chatty"), every=1)
        with subprocess.Popen(self.tunnel.kubectl_command("logs", "-f", "chatty"), stdout=subprocess.PIPE) as stalled:
            assert stalled.stdout
            stalled.stdout.readline()
            wait_for("the reader to be stalled", self.nothing_moves)
            self.send_there_and_back(20, timeout=PATIENCE)
            last = 1
            while (line := stalled.stdout.readline()) != b"full\n":
                number, _, rest = line.partition(b" ")
                self.assertEqual((int(number), len(rest)), (last + 1, LONG_LINE + 1))
                last += 1
            self.assertEqual(last, LINES)
            stalled.terminate()

    def nothing_moves(self) -> bool:
        """
        Whether a second goes by without a byte through the tunnel, while a stream is open.
        """
        before = self.carried()
        time.sleep(1)
        return self.carried() == before and self.tunnel.server.streams() > 0

    def carried(self) -> int:
        return sum(int(agent["bytesFromNode"]) for agent in self.tunnel.server.agents)


class EnduranceTests(TunnelCase):
    """
    Much, and for long.
    """

    def test_a_gigabyte_beside_a_long_log(self) -> None:
        """
        cp brings 1 GB into a pod and back as it was; a `logs -f` beside it misses no line, and neither an exec that says nothing
        for a minute nor the log is cut off.
        """
        follower = self.follow(self.tunnel.kubectl_command("logs", "-f", "--tail=1", TALKER))
        quiet = self.follow(self.tunnel.kubectl_command("exec", WEB, "--", "sh", "-c", "sleep 60; echo still here"))
        wait_for("a line", lambda: numbers(follower.text))
        there, back = self.file(BIG), Path(self.cluster.folder, "back")
        self.addCleanup(back.unlink, missing_ok=True)
        self.addCleanup(self.tunnel.kubectl, "exec", WEB, "--", "rm", "-f", "/tmp/copied")
        wanted = self.digest(there)
        self.tunnel.kubectl("cp", str(there), f"{WEB}:/tmp/copied", timeout=240)
        self.assertEqual(self.tunnel.kubectl("exec", WEB, "--", "md5sum", "/tmp/copied")[:32], wanted)
        there.unlink()
        self.copy_back("/tmp/copied", back, 240)
        self.assertEqual(self.digest(back), wanted)
        quiet.wait_for("still here")
        # how many lines a pod that may use what processor is left has printed, it knows only itself
        last = numbers(self.tunnel.kubectl("logs", "--tail=1", TALKER))[-1]
        wait_for("the log's last line", lambda: numbers(follower.text)[-1] >= last)
        seen = numbers(follower.text)
        self.assertEqual(seen, list(range(seen[0], seen[0] + len(seen))))
        self.assertFalse(follower.ended)


class AbortTests(TunnelCase):
    """
    Callers that give up.
    """

    def abort(self, count: int) -> None:
        """
        Give up so many connections of three kinds.
        """
        node, server = self.cluster.node, self.tunnel.server
        script = str(Path(__file__).with_name("aborts.py"))
        head = "CONNECT {0}:{1} HTTP/1.1\\r\\nHost: {0}:{1}\\r\\n\\r\\n"
        kinds = (
            (head.format(node.address, 10250), "socket", str(server.socket)),  # connected at the other end, or about to be
            (head.format(node.address, 10255), "socket", str(server.socket)),  # where nobody answers the dial
            ("", "tcp", node.address, "10250"),  # diverted
        )
        for kind in kinds:
            argv = [sys.executable, script, str(count // len(kinds)), *kind]
            run(in_namespace(self.cluster.cloud_namespace, argv), timeout=240)

    def test_ten_thousand(self) -> None:
        """
        10,000 dials that were given up leave no stream, no descriptor and no memory behind, in server and agent.
        """
        node, server = self.cluster.node, self.tunnel.server
        drop = ["INPUT", "-i", "lo", "-p", "tcp", "--dport", "10255", "--syn", "-j", "DROP"]
        node.run("iptables", "-w", "-I", *drop)
        self.addCleanup(node.run, "iptables", "-w", "-D", *drop)
        assert server.process
        processes = (server.process, node.processes[AGENT])
        kept = server.streams()  # connections that the apiserver keeps for its next call
        files = [descriptors(one) for one in processes]
        grown = [GROWTH]
        for _ in range(ROUNDS):
            if max(grown) < GROWTH:
                break
            before = [resident(one) for one in processes]
            self.abort(ABORTS)
            self.wait_for_quiet(kept)
            wait_for(f"{files} descriptors", lambda: all(map(le, map(descriptors, processes), files)), SETTLING)
            grown = [self.growth(process, memory) for process, memory in zip(processes, before, strict=True)]
        self.assertLess(max(grown), GROWTH, f"the last of {ROUNDS} rounds added {grown} bytes in server and agent")
        self.assertEqual(self.tunnel.kubectl("exec", WEB, "--", "hostname"), "web\n")

    def growth(self, process: Process, memory: int) -> int:
        """
        By how much the process holds more than that, once it had a quiet moment.
        """
        with contextlib.suppress(E2EError):
            wait_for("memory given back", lambda: resident(process) - memory < GROWTH, QUIET)
        return resident(process) - memory

    def wait_for_quiet(self, kept: int) -> None:
        """
        Wait until no more streams are left than there were.
        """
        wait_for(f"at most {kept} streams", lambda: self.tunnel.server.streams() <= kept, SETTLING)
