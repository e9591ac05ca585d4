"""
A table of the store, as its users have it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from twisted.internet.defer import Deferred

from yurt.hub.cache.layers import Layers


class Table:
    """
    Keys and values of one kind.  All are bytes; keys may be of any length.
    """

    def __init__(self, layers: Layers, prefix: bytes, flush: Callable[[], Deferred[bool]]) -> None:
        self._layers = layers
        self._prefix = prefix
        self._flush = flush

    def get(self, key: bytes) -> bytes | None:
        """
        The value as last put, on the disk or not yet.
        """
        return self._layers.get(self._prefix + key)

    def get_many(self, keys: Iterable[bytes]) -> Iterator[bytes | None]:
        """
        The values of several keys, in their order.
        """
        return self._layers.get_many([self._prefix + key for key in keys])

    def put(self, key: bytes, value: bytes) -> None:
        """
        Set a value; one that is there already is not written again.
        """
        self._layers.put(self._prefix + key, value)

    def replace(self, key: bytes, value: bytes) -> None:
        """
        Set a value that is known to be another than the one that is there.
        """
        self._layers.put_anew(self._prefix + key, value)

    def replace_all(self, values: dict[bytes, bytes]) -> None:
        """
        Set many values, all known to be others than those that are there.
        """
        self._layers.put_all({self._prefix + key: value for key, value in values.items()})

    def delete(self, key: bytes) -> None:
        """
        Remove a value, if there is one.
        """
        self._layers.put(self._prefix + key, None)

    def flush(self) -> Deferred[bool]:
        """
        As of the store: all that was put before is to be on the disk now.
        """
        return self._flush()

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """
        Keys that begin with ``prefix`` and their values, in order of the keys (of their first MAX_PREFIX bytes).
        """
        length = len(self._prefix)
        for rows in self._layers.scan(self._prefix + prefix):
            for key, value in rows:
                yield key[length:], value

    def is_pending(self, key: bytes) -> bool:
        """
        Whether a change of this key is not known to be on the disk.
        """
        return self._layers.is_pending(self._prefix + key)
