"""
Where the store's writing to the disk happens: in a thread that does nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool


class Writer(Protocol):
    """
    Where writing to the disk happens.
    """

    def start(self) -> None: ...

    def run(self, work: Callable[[], None]) -> Deferred[None]: ...

    def stop(self) -> None: ...


class _DaemonThread(Thread):
    """
    A thread that does not keep the process from ending; a commit that it cuts is one that has not happened.
    """

    def __init__(self, target: Callable[..., object], name: str) -> None:
        super().__init__(target=target, name=name, daemon=True)


class WriterThread:
    """
    One thread of our own, so that a disk that hangs holds up nobody else.
    """

    def __init__(self, reactor: IReactorFromThreads) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(1, 1, name="store")
        self._pool.threadFactory = _DaemonThread  # type: ignore[assignment]  # mypy takes the attribute for an alias

    def start(self) -> None:
        """
        Start the thread; after daemonizing, for threads do not outlive a fork.
        """
        self._pool.start()

    def run(self, work: Callable[[], None]) -> Deferred[None]:
        """
        Do the work in the thread.
        """
        return deferToThreadPool(self._reactor, self._pool, work)

    def stop(self) -> None:
        """
        End the thread.
        """
        self._pool.stop()
