"""
What one client is to be told when filters show things otherwise: looked for bit by bit, so that nothing else waits for long.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from yurt.hub.filters.lens import Lens

STEP_ITEMS = 50
STEP_BYTES = 64 * 1024
"""Objects, and their bytes, that are compared in a turn of the reactor: some 5 ms, as each is read and written several times."""


class Comparison:
    """
    Objects, of which a client is still to learn how they look through ``target``.  ``told`` are the keys (``namespace/name``) of
    those that changed meanwhile: events have shown them through it already.
    """

    def __init__(self, target: Lens, items: Iterable[bytes]) -> None:
        self.target = target
        self.told: set[str] = set()
        self._items = iter(items)
        self.done = False

    def step(self) -> Iterator[bytes]:
        """
        The objects that are to be looked at now.
        """
        size = 0
        for _ in range(STEP_ITEMS):
            item = next(self._items, None)
            if item is None:
                self.done = True
                return
            yield item
            size += len(item)
            if size >= STEP_BYTES:
                return
