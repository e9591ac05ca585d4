"""
The bench tells the truth about what it measured.
"""

from __future__ import annotations

import json
import socket
import time

from twisted.trial.unittest import SynchronousTestCase

from bench.figures import at_least, at_most, median, percentile
from bench.hub.clients import Load, read_load
from bench.hub.objects import body, configmap, list_body, pod
from bench.hub.sender import Events
from bench.hub.watchers import Watcher

WRK = """Running 3s test @ http://127.0.0.1:39151/
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     6.10ms    4.81ms  47.14ms   92.19%
  Latency Distribution
     50%  840.00us
     75%    6.52ms
     99%    1.03s
  9015 requests in 3.11s, 2.70MB read
Requests/sec:   2898.07
Transfer/sec:      0.87MB
"""


class FigureTests(SynchronousTestCase):
    """
    Numbers and verdicts.
    """

    def test_verdicts(self) -> None:
        """
        A target itself is reached, from either side.
        """
        self.assertTrue(at_least("a", 25.0, "%", 25).passed)
        self.assertFalse(at_least("a", 24.9, "%", 25).passed)
        self.assertTrue(at_most("a", 2.0, "s", 2).passed)
        self.assertFalse(at_most("a", 2.1, "s", 2).passed)

    def test_lines(self) -> None:
        """
        A line names verdict, value and target.
        """
        self.assertEqual(str(at_least("GETs", 12345.6, "/s", 12000)), "PASS  GETs: 12,346 /s (to reach: >= 12,000 /s)")
        self.assertEqual(str(at_most("start", 1.5, "s", 1, "slow")), "FAIL  start: 1.50 s (to reach: <= 1 s)\n      slow")

    def test_percentiles(self) -> None:
        """
        Of one value it is that; of many the one that so many lie below.
        """
        self.assertEqual(median([3.0]), 3.0)
        self.assertEqual(percentile([float(number) for number in range(100)], 0.99), 99.0)
        self.assertEqual(median([1.0, 9.0, 2.0]), 2.0)


class LoadTests(SynchronousTestCase):
    """
    What wrk prints.
    """

    def test_units(self) -> None:
        """
        Latencies come in three units, and are read to milliseconds.
        """
        self.assertEqual(read_load(WRK), Load(2898.07, 0.84, 1030.0))

    def test_errors(self) -> None:
        """
        A run with a bad answer or a broken connection is no measurement.
        """
        for line in ("  Non-2xx or 3xx responses: 9015\n", "  Socket errors: connect 0, read 1, write 0, timeout 0\n"):
            self.assertRaises(RuntimeError, read_load, WRK + line)
        self.assertRaises(RuntimeError, read_load, "unable to connect")


class ObjectTests(SynchronousTestCase):
    """
    What the fake cloud serves.
    """

    def test_sizes(self) -> None:
        """
        Objects have the size that the row promises.
        """
        self.assertApproximates(len(json.dumps(configmap(7, 1500))), 1500, 5)
        self.assertApproximates(len(json.dumps(pod(7, 2000))), 2000, 5)

    def test_lists(self) -> None:
        """
        Lists and objects are what Kubernetes calls so.
        """
        whole = json.loads(list_body("Pod", [pod(1), pod(2)]))
        self.assertEqual((whole["kind"], len(whole["items"])), ("PodList", 2))
        self.assertEqual(json.loads(body("Pod", pod(1)))["metadata"]["name"], "pod-1")


class EventTests(SynchronousTestCase):
    """
    From the sender to a watcher.
    """

    def test_delay(self) -> None:
        """
        A watcher reads from each event when it was sent, however the pieces are cut; no event counts twice.
        """
        near, far = socket.socketpair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        watcher = Watcher(near, "kubelet", "/api/v1/pods")
        head = far.recv(4096)
        self.assertIn(b"GET /api/v1/pods?watch=true&", head)
        events = Events(body("Pod", pod(0)), 2, 1000)
        chunks = [events.chunk(number, time.time() - number) for number in (1, 2, 3)]
        event = json.loads(chunks[0].split(b"\r\n")[1])
        self.assertEqual((event["type"], event["object"]["kind"]), ("MODIFIED", "Pod"))
        stream = b"".join(chunks)
        for place in range(0, len(stream), 37):
            far.sendall(stream[place : place + 37])
            watcher.read()
        self.assertEqual([round(delay) for delay in watcher.delays], [1, 2, 3])
