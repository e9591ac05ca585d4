"""
An edge of the real kernel, living in a namespace and called from the test's process.

As a program (``python -m tests.kernel.remote <module> <class>``) it makes one object and obeys calls on standard input.
"""

from __future__ import annotations

import importlib
import pickle
import sys
from typing import Any

from tests.kernel.namespaces import Namespace, bounded, end


class Remote:
    """
    Calls of methods carried into the namespace and back, exceptions included.
    """

    def __init__(self, namespace: Namespace, module: str, name: str) -> None:
        self._process = namespace.start_python("-m", "tests.kernel.remote", module, name)

    def call(self, method: str, *arguments: Any) -> Any:
        """
        Call a method of the object over there.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        pickle.dump((method, arguments), self._process.stdin)
        self._process.stdin.flush()
        with bounded(self._process):
            good, value = pickle.load(self._process.stdout)
        if not good:
            raise value
        return value

    def close(self) -> None:
        """
        End the process over there.
        """
        end(self._process)


class RemoteLinks(Remote):
    """
    The links of a namespace, through pyroute2.
    """

    def __init__(self, namespace: Namespace) -> None:
        super().__init__(namespace, "yurt.host.link_edge", "KernelLinks")

    def see(self, name: str) -> Any:
        return self.call("see", name)

    def apply(self, edit: Any) -> None:
        self.call("apply", edit)


class RemoteFirewall(Remote):
    """
    The firewall of a namespace.
    """

    name = "remote"

    def see(self, family: Any, slots: Any, comment: str) -> Any:
        return self.call("see", family, slots, comment)

    def apply(self, family: Any, edits: Any) -> None:
        self.call("apply", family, edits)


class RemoteChains(Remote):
    """
    The chains of a namespace.
    """

    name = "remote"

    def see(self, family: Any, wanted: Any) -> Any:
        return self.call("see", family, wanted)

    def apply(self, family: Any, table: str, edits: Any) -> None:
        self.call("apply", family, table, edits)


def serve(module: str, name: str) -> None:
    """
    Obey calls until the input ends.
    """
    subject = getattr(importlib.import_module(module), name)()
    while True:
        try:
            method, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = (True, getattr(subject, method)(*arguments))
        except Exception as error:  # whatever it is, the test is to see it
            answer = (False, error)
        pickle.dump(answer, sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve(*sys.argv[1:])
