"""
HTTP requests from inside a namespace.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.stopwatch import Stopwatch

from .process import in_namespace, run


@dataclass(frozen=True)
class Answer:
    """
    A response; status 0 says that there was none.  ``seconds`` is the time until its end, as a Stopwatch counts.
    """

    status: int
    seconds: float
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body)
        return document

    @property
    def names(self) -> list[str]:
        """
        The names of a list's items, in their order.
        """
        return [item["metadata"]["name"] for item in self.json["items"]]


def curl(
    namespace: str, url: str, *, agent: str, timeout: float = 60.0, headers: Sequence[str] = (), extra: Sequence[str] = ()
) -> Answer:
    """
    A GET, or what ``extra`` makes of it.
    """
    given = [part for header in headers for part in ("-H", header)]
    argv = [
        "curl",
        "-s",
        "-g",
        "-i",
        "--max-time",
        str(timeout),
        "-A",
        agent,
        *given,
        *extra,
        "-w",
        "\n%{http_code} %{time_total}",
        url,
    ]
    watch = Stopwatch()
    output, _, figures = run(in_namespace(namespace, argv), timeout=timeout + 10, check=False).rpartition("\n")
    status, seconds = figures.split()
    head, _, body = output.partition("\r\n\r\n")
    while head.startswith("HTTP/1.1 1"):  # 100 Continue
        head, _, body = body.partition("\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.splitlines()[1:] if ": " in line)
    return Answer(int(status), watch.net(float(seconds)), {name.lower(): value for name, value in fields.items()}, body)
