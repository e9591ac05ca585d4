"""
A call in a process of its own.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from yurt.host.errors import FirewallError

P = ParamSpec("P")
T = TypeVar("T")


def in_fork(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """
    Call in a copy of this process, which must have one thread; returns or raises what the call did there.

    Raises FirewallError when the copy ends without an answer: a C library may end its process for an error.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        _answer(writing, partial(call, *args, **kwargs))
    os.close(writing)
    with open(reading, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(pid, 0)
    if not data:
        raise FirewallError(f"{call.__module__}: ended with {os.waitstatus_to_exitcode(status)} and without an answer")
    # It comes from ourselves, a moment ago.
    good, value = pickle.loads(data)
    if not good:
        raise value
    result: T = value
    return result


def _answer(writing: int, call: partial[T]) -> None:
    """
    Write what the call returns or raises, and end at once: nothing of the other process may be written or closed here.
    """
    status = 1
    try:
        try:
            answer: tuple[bool, object] = (True, call())
        except FirewallError as error:
            answer = (False, error)
        except Exception as error:  # whatever it is, the other process is to tell it
            answer = (False, FirewallError(f"{call.func.__module__}: {type(error).__name__}: {error}"))
        with open(writing, "wb") as pipe:
            pickle.dump(answer, pipe, pickle.HIGHEST_PROTOCOL)
        status = 0
    finally:
        os._exit(status)
