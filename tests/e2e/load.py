"""
A steady load, as a program of its own: it prints one JSON line for all that it sees.

``python -m tests.e2e.load use HUB WATCHES VERSION`` reads, lists and watches ConfigMaps through the hub, and
watches Services, of which none changes.
``python -m tests.e2e.load write CA CERTIFICATE KEY SERVER…`` changes one of them several times a second at each of the servers,
and watches it there: when the first one tells of a change, all could.
Times are of the machine's monotonic clock.
"""

from __future__ import annotations

import http.client
import itertools
import json
import ssl
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from urllib.parse import urlsplit

MAPS = "/api/v1/namespaces/default/configmaps"
QUIET = "/api/v1/services"
NAME = "load"
AGENTS = ("kubelet/v1.20.2", "load/v1")
"""One whose reads are cached, one whose are not."""
READ_EVERY = 0.03
WRITE_EVERY = 0.15
PATIENCE = 30.0
QUIET_PATIENCE = 600.0


def say(**fields: object) -> None:
    """
    One line, whole.
    """
    sys.stdout.write(json.dumps({"at": time.monotonic(), **fields}) + "\n")
    sys.stdout.flush()


def read(hub: str, path: str, agent: str) -> None:
    """
    GET again and again.
    """
    connection = http.client.HTTPConnection(hub, timeout=PATIENCE)
    while True:
        began = time.monotonic()
        try:
            connection.request("GET", path, headers={"User-Agent": agent})
            answer = connection.getresponse()
            answer.read()
            say(what="read", status=answer.status, source=answer.headers["X-Yurt-Source"], took=time.monotonic() - began)
        except (OSError, http.client.HTTPException) as problem:
            say(what="read", status=0, problem=repr(problem), took=time.monotonic() - began)
            connection.close()
        time.sleep(READ_EVERY)


def watch(hub: str, number: int, version: str) -> None:
    """
    Watch, once; tell each event.
    """
    connection = http.client.HTTPConnection(hub, timeout=PATIENCE)
    connection.request("GET", f"{MAPS}?watch=true&resourceVersion={version}", headers={"User-Agent": AGENTS[number % 2]})
    answer = connection.getresponse()
    say(what="watching", number=number, status=answer.status)
    try:
        while line := answer.readline():
            event = json.loads(line)
            metadata = event["object"].get("metadata", {})
            if metadata.get("name") == NAME or event["type"] == "ERROR":
                say(what="event", number=number, type=event["type"], version=metadata.get("resourceVersion"))
        problem = "in good order"
    except (OSError, http.client.HTTPException) as error:
        problem = repr(error)
    say(what="ended", number=number, problem=problem)


def watch_quiet(hub: str, agent: str) -> None:
    """
    Watch what does not change, as long as that lasts.
    """
    connection = http.client.HTTPConnection(hub, timeout=QUIET_PATIENCE)
    connection.request("GET", QUIET, headers={"User-Agent": agent})
    version = json.loads(connection.getresponse().read())["metadata"]["resourceVersion"]
    connection.request("GET", f"{QUIET}?watch=true&resourceVersion={version}", headers={"User-Agent": agent})
    answer = connection.getresponse()
    try:
        problem = answer.readline().decode() or "in good order"
    except (OSError, http.client.HTTPException) as error:
        problem = repr(error)
    say(what="ended", agent=agent, problem=problem)


def write(server: str, context: ssl.SSLContext) -> None:
    """
    PATCH again and again, whether the server answers or not.
    """
    connection = http.client.HTTPSConnection(urlsplit(server).netloc, timeout=1.0, context=context)
    for number in itertools.count():
        body = json.dumps({"data": {server.rpartition(":")[2]: str(number)}})
        try:
            connection.request("PATCH", f"{MAPS}/{NAME}", body, {"Content-Type": "application/merge-patch+json"})
            answer = connection.getresponse()
            document = json.loads(answer.read())
            if answer.status != 200:
                raise OSError(f"answered {answer.status}")
            say(what="written", version=document["metadata"]["resourceVersion"])
        except (OSError, http.client.HTTPException, ValueError) as problem:
            say(what="not written", problem=repr(problem))
            connection.close()
        time.sleep(WRITE_EVERY)


def witness(server: str, context: ssl.SSLContext) -> None:
    """
    Watch without a hub, again whenever that breaks off.
    """
    while True:
        connection = http.client.HTTPSConnection(urlsplit(server).netloc, timeout=PATIENCE, context=context)
        try:
            connection.request("GET", f"{MAPS}?watch=true&fieldSelector=metadata.name%3D{NAME}")
            answer = connection.getresponse()
            while line := answer.readline():
                say(what="seen", version=json.loads(line)["object"].get("metadata", {}).get("resourceVersion"))
        except (OSError, http.client.HTTPException, ValueError):
            time.sleep(WRITE_EVERY)
        finally:
            connection.close()


def run(jobs: Sequence[Callable[[], None]]) -> None:
    """
    All at once, until somebody ends the program.
    """
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    kind, *arguments = sys.argv[1:]
    if kind == "use":
        hub, watches, version = arguments
        run(
            [partial(read, hub, path, agent) for path in (MAPS, f"{MAPS}/{NAME}") for agent in AGENTS]
            + [partial(watch, hub, number, version) for number in range(int(watches))]
            + [partial(watch_quiet, hub, agent) for agent in AGENTS]
        )
    else:
        ca, certificate, key, *servers = arguments
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(certificate, key)
        run([partial(job, server, context) for job in (write, witness) for server in servers])
