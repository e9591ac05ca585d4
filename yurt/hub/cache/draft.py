"""
A list on its way into the store.
"""

from __future__ import annotations

from yurt.hub.cache.records import StoredObject, encode_object


class Draft:
    """
    What a list will change, put together over several turns: ``members`` are the list's, ``held`` those that its view had before;
    ``objects`` are the records to be stored, ``fresh`` those that are not there yet, ``growth`` how much longer each becomes.
    """

    __slots__ = ("fresh", "growth", "held", "members", "objects")

    def __init__(self) -> None:
        self.members: set[bytes] = set()
        self.held: set[bytes] = set()
        self.objects: dict[bytes, bytes] = {}
        self.fresh: set[bytes] = set()
        self.growth: dict[bytes, int] = {}

    def put(self, member: bytes, stored: StoredObject, before: StoredObject | None) -> None:
        """
        Let an object be stored in place of ``before``.
        """
        self.objects[member] = encode_object(stored)
        self.growth[member] = len(stored.body) - (0 if before is None else len(before.body))
        if before is None:
            self.fresh.add(member)
