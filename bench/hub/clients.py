"""
The load: wrk, and requests one at a time.
"""

from __future__ import annotations

import http.client
import re
import shutil
import subprocess
import time
from dataclasses import dataclass

UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
"""Milliseconds in what wrk prints."""


@dataclass(frozen=True, slots=True)
class Load:
    """
    What one run of wrk found: requests a second, and latencies in milliseconds.
    """

    rate: float
    p50: float
    p99: float


def wrk(url: str, *, connections: int, seconds: int, agent: str) -> Load:
    """
    As many GETs as go through.
    """
    program = shutil.which("wrk")
    if program is None:
        raise RuntimeError("wrk is not installed: apt-get install wrk")
    headers = ["-H", f"User-Agent: {agent}", "-H", "Accept: application/json"]
    command = [program, "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", *headers, url]
    return read_load(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def read_load(output: str) -> Load:
    """
    What wrk printed; a run with any answer but 2xx is a RuntimeError.
    """
    if "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(f"not every answer was good:\n{output}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if rate is None:
        raise RuntimeError(f"wrk did not finish:\n{output}")
    return Load(float(rate[1]), _latency(output, "50%"), _latency(output, "99%"))


def _latency(output: str, part: str) -> float:
    found = re.search(rf"^\s+{part}\s+([\d.]+)(us|ms|s)", output, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"wrk printed no {part}:\n{output}")
    return float(found[1]) * UNITS[found[2]]


@dataclass(frozen=True, slots=True)
class Answer:
    """
    One answer, and the seconds that it took.
    """

    status: int
    source: str
    body: bytes
    took: float

    @property
    def size(self) -> int:
        return len(self.body)


class Caller:
    """
    One keep-alive connection to the hub, one request at a time.
    """

    def __init__(self, port: int, agent: str, timeout: float = 10.0) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        self._headers = {"User-Agent": agent, "Accept": "application/json"}

    def get(self, path: str) -> Answer:
        """
        Raises OSError or http.client.HTTPException when there is no answer.
        """
        began = time.perf_counter()
        try:
            self._connection.request("GET", path, headers=self._headers)
            response = self._connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        return Answer(response.status, response.getheader("X-Yurt-Source", ""), body, time.perf_counter() - began)

    def source(self, path: str) -> str:
        """
        Where the answer comes from; empty when there is none, or an error.
        """
        try:
            answer = self.get(path)
        except (OSError, http.client.HTTPException):
            return ""
        return answer.source if answer.status == 200 else ""

    def close(self) -> None:
        self._connection.close()
