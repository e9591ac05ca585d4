"""
Which controllers run: ``--controllers``, as OpenYurt and Kubernetes write it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

ALL = "*"


def choose(words: Sequence[str], known: Mapping[str, Sequence[str]]) -> frozenset[str]:
    """
    The controllers that ``words`` choose of ``known``, which gives each one's other names: ``*`` are all, ``name`` one, and
    ``-name`` is left out, whatever else is said.  Raises ValueError for a name that is not known.
    """
    names = {name: name for name in known} | {alias: name for name, aliases in known.items() for alias in aliases}
    chosen: set[str] = set()
    left_out: set[str] = set()
    for word in words:
        name = names.get(word.removeprefix("-"))
        if word == ALL:
            chosen |= set(known)
        elif name is None:
            raise ValueError(f"there is no controller {word.removeprefix('-')!r}; there are: {', '.join(sorted(known))}")
        else:
            (left_out if word.startswith("-") else chosen).add(name)
    return frozenset(chosen - left_out)
