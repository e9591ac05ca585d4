"""
Tests of the listeners that live as long as a daemon.
"""

import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

from twisted.application.service import MultiService
from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from yurt.listening import Listen, ListenLater, StartFailed, tcp_endpoint
from yurt.sockets import KEEPALIVE_AFTER, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES

END_SECONDS = 90
"""A daemon that failed to start is gone by then."""

PLUGIN = """
from twisted.application.service import ServiceMaker
sample = ServiceMaker("sample", "sample_tap", "for a test", "sample")
"""
TAP = """
from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.python.usage import Options
from yurt.listening import Listen, tcp_endpoint
def makeService(options):
    return Listen(tcp_endpoint(reactor, "127.0.0.1", %d), Factory(), "the proxy on 127.0.0.1")
"""


class SilentEndpoint:
    """
    An endpoint that never says whether it bound.
    """

    def __init__(self) -> None:
        self.cancelled = False

    def listen(self, factory: Factory) -> Deferred[IListeningPort]:
        """
        Wait for ever.
        """

        def cancel(waiting: Deferred[IListeningPort]) -> None:
            self.cancelled = True

        return Deferred(cancel)


class Every(Factory):
    """
    Greets each fourth caller with its address, fails for the next two, and does not want the one after.
    """

    noisy = False

    def __init__(self) -> None:
        self.count = 0

    def buildProtocol(self, addr: Any) -> Protocol | None:
        self.count += 1
        if self.count % 4 == 0:
            return None
        if self.count % 4 == 3:
            raise ZeroDivisionError
        protocol = Greeting()
        protocol.greeting = addr.host.encode() if self.count % 4 == 1 else None
        return protocol


class Greeting(Protocol):
    """
    Says something to begin with; fails where it has nothing to say.
    """

    greeting: bytes | None = None

    def connectionMade(self) -> None:
        if self.greeting is None:
            raise ZeroDivisionError
        cast(Any, self.transport).write(self.greeting)


def hear(caller: socket.socket) -> bytes:
    """
    What a caller is told first; nothing when the connection is closed or reset.
    """
    try:
        return caller.recv(100)
    except ConnectionResetError:
        return b""


class ListenTests(TestCase):
    """
    Tests of Listen and ListenLater on loopback sockets.
    """

    def listen(self, address: str = "127.0.0.1", port: int = 0, kind: type[Listen] = Listen) -> Listen:
        """
        A listener for the test, stopped at its end.
        """
        service = kind(tcp_endpoint(reactor, address, port), Factory(), f"test on {address}")
        self.addCleanup(service.stop_listening)
        return service

    def test_listens(self) -> None:
        """
        After the start it has an address, and no problem.
        """
        service = self.listen()
        service.startService()
        assert isinstance(service.address, IPv4Address)
        self.assertEqual((service.address.host, service.problem), ("127.0.0.1", None))

    def test_listens_once(self) -> None:
        """
        A privileged start and a start bind once.
        """
        service = self.listen()
        service.privilegedStartService()
        first = service.port
        service.startService()
        self.assertIs(service.port, first)

    def test_ipv6(self) -> None:
        """
        An IPv6 address is listened on likewise.
        """
        service = self.listen("::1")
        if not service.start_listening():
            raise SkipTest(f"no IPv6 on this machine: {service.problem}")
        assert isinstance(service.address, IPv6Address)
        self.assertEqual(service.address.host, "::1")

    def test_taken_port_ends_the_start(self) -> None:
        """
        A port that is taken raises out of the start of the parent service, with the listener and the reason.
        """
        with socket.create_server(("127.0.0.1", 0)) as other:
            service = self.listen(port=other.getsockname()[1])
            parent = MultiService()
            service.setServiceParent(parent)
            error = self.assertRaises(StartFailed, parent.privilegedStartService)
        self.assertIn("test on 127.0.0.1: Address already in use; end the process that holds it", str(error))

    def test_address_of_another_machine(self) -> None:
        """
        What to do depends on what is wrong.
        """
        error = self.assertRaises(StartFailed, self.listen("192.0.2.77").startService)
        self.assertIn("choose an address that this machine has", str(error))

    async def test_accepts(self) -> None:
        """
        All that connect at once are taken and hear from where they came; those that nobody wants, or whose protocol fails, are
        closed.
        """
        for address in ("127.0.0.1", "::1"):
            service = Listen(tcp_endpoint(reactor, address, 0), Every(), f"test on {address}")
            self.assertTrue(service.start_listening(), service.problem)
            self.addCleanup(service.stop_listening)
            where = cast(Any, service.address)
            with ExitStack() as ending:
                callers = [ending.enter_context(socket.create_connection((where.host, where.port), 10)) for _ in range(8)]
                said = [await deferToThread(hear, caller) for caller in callers]
            self.assertEqual(said, [address.encode(), b"", b"", b""] * 2)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 8)

    async def test_options(self) -> None:
        """
        What is accepted sends small pieces at once, and has its peer asked after a minute of silence whether it is there.
        """
        service = self.listen()
        made: Deferred[Any] = Deferred()

        class Told(Protocol):
            def connectionMade(self) -> None:
                made.callback(self.transport)

        service.factory = cast(IProtocolFactory, Factory.forProtocol(Told))
        service.startService()
        with socket.create_connection(("127.0.0.1", cast(IPv4Address, service.address).port)):
            accepted = await made
            options = (
                (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
                (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
                (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_AFTER),
                (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL),
                (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES),
            )
            handle = accepted.getHandle()
            self.assertEqual([handle.getsockopt(level, name) for level, name, _ in options], [value for *_, value in options])
            accepted.abortConnection()

    async def test_no_descriptor(self) -> None:
        """
        Who has no descriptor left closes what it cannot take, as Twisted's listeners do, and takes what comes later.
        """
        service = Listen(tcp_endpoint(reactor, "127.0.0.1", 0), Every(), "test")
        self.assertTrue(service.start_listening(), service.problem)
        self.addCleanup(service.stop_listening)
        where = cast(Any, service.address).host, cast(Any, service.address).port
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.create_connection(where, 10) as caller:
            resource.setrlimit(resource.RLIMIT_NOFILE, (caller.fileno() + 1, hard))
            try:
                cast(Any, service.port).doRead()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            self.assertEqual(await deferToThread(hear, caller), b"")
        with socket.create_connection(where, 10) as caller:
            self.assertEqual(await deferToThread(hear, caller), b"127.0.0.1")

    async def test_stops(self) -> None:
        """
        After the stop the address is free again.
        """
        service = self.listen()
        service.startService()
        assert isinstance(service.address, IPv4Address)
        taken = service.address.port
        await service.stopService()
        self.assertIsNone(service.address)
        again = self.listen(port=taken)
        self.assertTrue(again.start_listening(), again.problem)

    def test_undecided_endpoint(self) -> None:
        """
        An endpoint that does not bind at once is a failure, not a daemon without listener.
        """
        endpoint = SilentEndpoint()
        service = Listen(endpoint, Factory(), "test")  # type: ignore[arg-type]  # no zope declaration: a test double
        self.assertRaises(StartFailed, service.startService)
        self.assertTrue(endpoint.cancelled)

    async def test_later(self) -> None:
        """
        A later listener starts without its address, says what is wrong when asked too early, and recovers.
        """
        with socket.create_server(("127.0.0.1", 0)) as other:
            service = self.listen(port=other.getsockname()[1], kind=ListenLater)
            service.privilegedStartService()
            service.startService()
            self.assertEqual((service.address, service.problem), (None, None))
            self.assertFalse(service.start_listening())
            self.assertIn("Address already in use", str(service.problem))
        self.assertTrue(service.start_listening())
        self.assertIsNone(service.problem)
        await service.stopService()
        self.assertIsNone(service.address)


class StartFailedTests(SynchronousTestCase):
    """
    Tests of a failing start under a real twistd.
    """

    def run_twistd(self, *words: str) -> tuple[subprocess.CompletedProcess[str], Path]:
        """
        Start a daemon whose port is taken.
        """
        folder = Path(tempfile.mkdtemp(dir=os.getcwd()))
        (folder / "twisted" / "plugins").mkdir(parents=True)
        (folder / "twisted" / "plugins" / "sample_plugin.py").write_text(PLUGIN)
        with socket.create_server(("127.0.0.1", 0)) as other:
            (folder / "sample_tap.py").write_text(TAP % other.getsockname()[1] + "class Options(Options): pass\n")
            command = [os.path.join(os.path.dirname(sys.executable), "twistd"), *words, "sample"]
            environ = dict(os.environ, PYTHONPATH=os.pathsep.join([str(folder), *sys.path]))
            done = subprocess.run(command, cwd=folder, env=environ, text=True, capture_output=True, timeout=60)
        return done, folder

    def test_foreground(self) -> None:
        """
        In the foreground twistd ends with status 1, one line in the log without traceback, and no pid file.
        """
        done, folder = self.run_twistd("--nodaemon", "--pidfile=it.pid")
        self.assertEqual(done.returncode, 1, done)
        self.assertIn("the proxy on 127.0.0.1: Address already in use", done.stdout)
        self.assertNotIn("Traceback", done.stdout + done.stderr)
        self.assertFalse((folder / "it.pid").exists())

    def test_daemon(self) -> None:
        """
        As a daemon the parent process reports the same and ends with status 1.
        """
        done, folder = self.run_twistd("--pidfile=it.pid", "--logfile=it.log")
        self.assertEqual(done.returncode, 1, done)
        self.assertIn("Address already in use", done.stderr)
        # The daemon takes its pid file away after it has told its parent.
        deadline = time.monotonic() + END_SECONDS
        while (folder / "it.pid").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertFalse((folder / "it.pid").exists())
