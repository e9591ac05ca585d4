"""
Kill a process that writes to a store, again and again, and check after each time what it leaves.

usage: python -m tests.hub.cache.kill_rounds FOLDER ROUNDS

Each round forks a writer.  It puts OBJECTS objects of one generation, every other one in a table that is encrypted, flushes,
tells the generation through a pipe, and goes on with the next, until it is killed with SIGKILL at a random moment.  Afterwards
every object must be whole, of the last generation that was told or of the one after it, and all of the same.  Prints how many
rounds left a newer generation than told, and the last generation.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from hashlib import sha256

from tests.hub.cache.fixtures import Cache
from yurt.hub.cache import Table
from yurt.hub.cache.vault import Vault

OBJECTS = 20
LONGEST_LIFE = 0.03
"""Seconds; opening and a dozen commits take about as much."""


def value_of(number: int, generation: int) -> bytes:
    """
    A value that carries its own checksum; its size changes, so that pages are split, joined and left over.
    """
    content = b"%d %d " % (number, generation) + b"x" * (generation * 997 % 9000)
    return sha256(content).hexdigest().encode() + content


def tables(path: str) -> tuple[Cache, tuple[Table, Table]]:
    """
    The cache, opened, and its two tables.
    """
    cache = Cache(path, vault=Vault(f"{path}-own"), is_open=False)
    both = cache.store.table("t"), cache.store.table("s", secret=b"")
    cache.store.open()
    return cache, both


def read_back(path: str) -> int:
    """
    The generation of all objects; raises AssertionError when one is damaged, or they differ.
    """
    cache, both = tables(path)
    try:
        assert cache.store.problem is None, cache.store.problem
        generations = set()
        for number in range(OBJECTS):
            value = both[number % 2].get(b"%d" % number)
            if value is None:
                generations.add(0)
                continue
            assert value[:64] == sha256(value[64:]).hexdigest().encode(), number
            generations.add(int(value[64:].split()[1]))
        assert len(generations) == 1, generations
        assert cache.store.corrupt_files == cache.store.corrupt_records == cache.store.locked_records == 0
        return generations.pop()
    finally:
        cache.crash()


def write_on(path: str, generation: int, told: int) -> None:
    """
    Write one generation after the other.
    """
    cache, both = tables(path)
    while True:
        generation += 1
        for number in range(OBJECTS):
            both[number % 2].put(b"%d" % number, value_of(number, generation))
        flushed: list[bool] = []
        cache.store.flush().addCallback(flushed.append)
        assert flushed == [True]
        os.write(told, b"%d\n" % generation)


def one_round(path: str, generation: int) -> tuple[int, int]:
    """
    Let a writer live and die; returns the generation it told last, and the one that it left.
    """
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            write_on(path, generation, write)
        finally:
            os._exit(1)
    os.close(write)
    time.sleep(random.uniform(0, LONGEST_LIFE))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"the writer ended by itself: {status}"
    with os.fdopen(read) as told:
        lines = told.read().splitlines()
    return int(lines[-1]) if lines else generation, read_back(path)


def main(path: str, rounds: int) -> None:
    """
    All rounds.
    """
    generation = ahead = 0
    for _ in range(rounds):
        told, generation = one_round(path, generation)
        assert generation in (told, told + 1), (told, generation)
        ahead += generation > told
    print(f"{rounds} rounds, {ahead} between commit and word of it, generation {generation}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
