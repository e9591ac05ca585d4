"""
Tests of the messages to systemd.
"""

import os
import socket
import tempfile
from typing import Any, cast

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from yurt.sdnotify import READY, STOPPING, WATCHDOG, Notify, notify, watchdog_interval


class NotifyTests(SynchronousTestCase):
    """
    Tests of notify.
    """

    def received(self, address: str, written: str) -> tuple[bool, bytes]:
        """
        Listen on the socket ``address``, notify the one ``written``, and return what came.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(address)
            sent = notify(READY, {"NOTIFY_SOCKET": written})
            return sent, receiver.recv(100) if sent else b""

    def test_path(self) -> None:
        """
        A socket in the file system gets the message.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "notify")
            self.assertEqual(self.received(path, path), (True, b"READY=1"))

    def test_abstract(self) -> None:
        """
        An abstract socket, written with @, gets the message.
        """
        name = f"yurt-test-{os.getpid()}"
        self.assertEqual(self.received("\0" + name, "@" + name), (True, b"READY=1"))

    def test_nobody(self) -> None:
        """
        Without systemd, or with a socket that nobody holds, nothing happens.
        """
        for environ in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative"}, {"NOTIFY_SOCKET": "/nonexistent/socket"}):
            self.assertFalse(notify(READY, environ))

    def test_watchdog_interval(self) -> None:
        """
        Half of what systemd allows; None when it does not ask this process.
        """
        mine = str(os.getpid())
        self.assertEqual(watchdog_interval({"WATCHDOG_USEC": "30000000"}), 15.0)
        self.assertEqual(watchdog_interval({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": mine}), 15.0)
        for environ in ({}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}):
            self.assertIsNone(watchdog_interval(environ))


class NotifyServiceTests(SynchronousTestCase):
    """
    Tests of Notify.
    """

    def service(self, interval: float | None) -> tuple[Notify, MemoryReactorClock, list[str]]:
        """
        The service, its clock, and the messages it sent.
        """
        sent: list[str] = []
        clock = MemoryReactorClock()

        def send(message: str) -> bool:
            sent.append(message)
            return True

        return Notify(cast(Any, clock), send, interval), clock, sent

    def test_life(self) -> None:
        """
        READY at the start, signs of life in between, STOPPING at the end and then nothing.
        """
        service, clock, sent = self.service(5)
        service.startService()
        self.assertEqual(sent, [])
        clock.run()
        clock.pump([5, 5])
        service.stopService()
        clock.advance(20)
        self.assertEqual(sent, [READY, WATCHDOG, WATCHDOG, WATCHDOG, STOPPING])
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_no_watchdog(self) -> None:
        """
        Without a watchdog only the beginning and the end are told.
        """
        service, clock, sent = self.service(None)
        service.startService()
        clock.run()
        clock.advance(60)
        service.stopService()
        self.assertEqual(sent, [READY, STOPPING])

    def test_stopped_before_it_ran(self) -> None:
        """
        A daemon that is stopped before its reactor runs was never ready.
        """
        service, clock, sent = self.service(5)
        service.startService()
        service.stopService()
        clock.run()
        self.assertEqual(sent, [STOPPING])
