"""
Open damaged stores, read them whole, write to them, and tell what became of each.

usage: python -m tests.hub.cache.read_damaged FOLDER...

For each folder, in a forked process, for damage may kill the one that meets it: ``ok`` when every value read was the one
written, else what went wrong.
"""

from __future__ import annotations

import os
import sys

from tests.hub.cache.fixtures import Cache

VALUES = {b"%04d" % number: b"%d-" % number * (1 + number % 700) for number in range(300)}


def use(path: str) -> None:
    """
    Read and write as the hub does.
    """
    cache = Cache(path)
    table = cache.store.table("t")
    for key, value in table.scan():
        assert VALUES[key] == value, key
    for key, value in VALUES.items():
        assert table.get(key) in (None, value), key
    flushed: list[bool] = []
    for _ in range(2):  # The first attempt may be what finds the damage.
        for key, value in VALUES.items():
            table.put(key, value)
        table.put(b"more", b"x" * 50_000)
        cache.store.flush().addCallback(flushed.append)
    assert flushed[-1], cache.store.problem
    assert {**dict(table.scan()), b"more": b""} == {**VALUES, b"more": b""}


def main(paths: list[str]) -> None:
    """
    All folders.
    """
    for path in paths:
        child = os.fork()
        if not child:
            try:
                use(path)
            except BaseException as error:
                print(path, repr(error), flush=True)
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(path, "ok" if status == 0 else f"ended with {status}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
