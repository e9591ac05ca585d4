"""
A certificate that is there, asked for and renewed for as long as the daemon runs.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Protocol

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from yurt.kube.api import ApiClient, ApiError, target
from yurt.kube.csr.enrolment import Enrolment
from yurt.kube.csr.files import CertificateFiles
from yurt.kube.csr.pem import Held, PEMError, new_key, read_held, request_for, request_name, time_text
from yurt.kube.csr.request import VERSIONS, Answer, Verdict, find_answer, read_answer, request_document, requests_path
from yurt.kube.csr.wanted import Wanted
from yurt.kube.pause import pause
from yurt.kube.watch import ADDED, BOOKMARK, MODIFIED, JSONFramer, WatchError, read_event

LONGEST_SLEEP = 60.0
"""Seconds after which the time of day is looked at again: it may have been set."""
PENDING_TIMEOUT = 900.0
"""Seconds after which a pending request is asked for anew; client-go's."""
OTHER_WAY_TIMEOUT = 60.0
"""Seconds after which that is done where there is nothing to show, and others can be tried to ask."""
UNDECIDED = frozenset({Verdict.PENDING, Verdict.APPROVED})
POLL = 5.0
"""Seconds between two looks at a request that may not be watched."""
WATCH_SECONDS = 300
"""Seconds for which a request is watched in one piece."""
WATCH_LEEWAY = 30.0
"""Seconds that such a watch may last longer."""


class AccessError(Exception):
    """
    Nobody can be asked for a certificate; the message says why, and what to do.
    """


class Access(Protocol):
    """
    By whose credentials a certificate is asked for.
    """

    asker: str
    """Who asks with the client given last, in a word that stays the same.  What one asks for is no request of another: an
    approver may leave the one alone, and grant the other."""
    others: bool
    """Whether there is somebody else who could be tried."""
    shows_held: bool
    """Whether a request must show the certificate that it is to follow: the API server cannot tell its holder from others."""

    async def client(self, held: Held | None) -> ApiClient:
        """
        A client for the next attempt; ``held`` is the certificate that can be shown, if there is one.  Raises AccessError and
        ApiError.  Each attempt may get another one.
        """

    def failed(self, error: Exception) -> None:
        """
        The attempt failed with the client given last.
        """

    def served(self) -> None:
        """
        The certificate came.
        """


class _Denied(Exception):
    """
    The request was refused for good.
    """


class CertificateService(Service):
    """
    Keeps the certificate ``wanted`` in ``files``.  ``changed()`` is called when a new one is there.

    The start waits for nothing.  ``wall`` is the time of day in seconds, ``draw`` gives numbers from 0 up to 1.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        files: CertificateFiles,
        wanted: Wanted,
        access: Access,
        changed: Callable[[], object],
        *,
        wall: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.enrolment = Enrolment(wanted, draw)
        self.files = files
        self._reactor = reactor
        self._access = access
        self._changed = changed
        self._wall = wall
        self._running: Deferred[None] | None = None
        self._step: Deferred[None] | None = None
        self._told = ""
        self.enrolment.hold(files.load())
        if files.problem is not None:
            self.enrolment.trouble = files.problem

    # What others ask

    @property
    def held(self) -> Held | None:
        """
        The certificate that can be shown now.
        """
        return self.enrolment.held if self.enrolment.valid(self._wall()) else None

    @property
    def problem(self) -> str | None:
        """
        Why there is nothing to show; None while there is.
        """
        return self.enrolment.problem(self._wall())

    @property
    def expires_in(self) -> float | None:
        """
        Seconds until the certificate expires, negative once it has; None without one.
        """
        held = self.enrolment.held
        return None if held is None else held.not_after - self._wall()

    def status(self) -> dict[str, object]:
        """
        All of that for people.
        """
        now = self._wall()
        return {
            "state": self.enrolment.state(now).value,
            "request": self.enrolment.request,
            "message": self.enrolment.text(now),
            "file": str(self.files.path),
        }

    # What others tell

    def want(self, wanted: Wanted) -> None:
        """
        Something else is wanted: what lacks it is replaced at once.
        """
        if wanted != self.enrolment.wanted and self.enrolment.want(wanted):
            self._wake()

    def retry(self, *, force: bool = False) -> None:
        """
        Wait no longer; with ``force`` ask even though a certificate is held.
        """
        if force:
            self.enrolment.force()
        self._wake()

    # Running

    def startService(self) -> None:
        """
        Begin to ask, if there is anything to ask for.
        """
        super().startService()
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(_cancelled)

    def stopService(self) -> None:
        """
        Ask no more; what is held stays.
        """
        super().stopService()
        running, self._running = self._running, None
        if running is not None:
            running.cancel()

    def _wake(self) -> None:
        step, self._step = self._step, None
        if step is not None:
            step.cancel()

    async def _run(self) -> None:
        seconds = 0.0
        while True:
            wait = seconds or min(self.enrolment.due(self._wall()), LONGEST_SLEEP)
            if wait:
                await self._interruptible(pause(self._reactor, wait))
                seconds = 0.0
                continue
            seconds = await self._attempt()

    async def _interruptible(self, step: Deferred[None]) -> None:
        """
        Wait for ``step`` or for somebody who wakes us.
        """
        self._step = step
        try:
            await step
        except CancelledError:
            if self._step is not None or self._running is None:
                raise  # not by _wake, but with all of it
        finally:
            self._step = None

    async def _attempt(self) -> float:
        """
        Ask once; seconds to wait before the next time.
        """
        seconds = 0.0
        try:
            await self._interruptible(Deferred.fromCoroutine(self._enrol()))
        except CancelledError:
            raise
        except _Denied as error:
            seconds = self.enrolment.denied(str(error))
            self._tell(f"{self.enrolment.wanted.name}: {error}; another request follows in {seconds:g} s")
        except Exception as error:
            if not isinstance(error, (AccessError, ApiError, PEMError, OSError)):
                self.log.failure("{what}: a mistake of ours", what=self.enrolment.wanted.name)
            self._access.failed(error)
            seconds = self.enrolment.failed(str(error))
            self._tell(f"{self.enrolment.wanted.name}: {error}; trying again")
        return seconds

    async def _enrol(self) -> None:
        wanted = self.enrolment.wanted
        api = await self._access.client(self.held)
        try:
            key = self._pending_key(wanted)
            name = request_name(key, wanted, self._access.asker)
            requests, answer = await self._ask(api, name, request_for(key, wanted), wanted)
            answer = await self._await_verdict(api, requests, name, answer)
        finally:
            api.close()
        if answer.verdict in (Verdict.DENIED, Verdict.FAILED):
            self.files.discard_pending()
            raise _Denied(f"CSR {name} {answer.verdict.value}: {answer.reason}")
        self._take(wanted, name, answer.certificate.rstrip(b"\n") + b"\n" + key)

    def _pending_key(self, wanted: Wanted) -> bytes:
        """
        The key of a request that was made before, or a new one, on disk before anything is asked.
        """
        key = self.files.pending()
        try:
            request_name(key, wanted)
        except PEMError:
            key = new_key()
            self.files.save_pending(key)
        return key

    async def _ask(self, api: ApiClient, name: str, pem: bytes, wanted: Wanted) -> tuple[str, Answer]:
        """
        See to it that the request is there; the path of requests in this cluster, and the request as it is now.
        """
        shown: dict[str, str] = {}
        if self._access.shows_held and self.held is not None:
            from yurt.kube.csr.renewal import renews  # few need it, and the memory for it

            shown = renews(self.held.pem, pem)
        for version in VERSIONS:
            path = requests_path(version)
            try:
                return path, read_answer(await api.create(path, request_document(version, name, pem, wanted, shown)))
            except ApiError as error:
                if error.code == 409:
                    return path, await self._look(api, path, name)
                if error.code != 404 or version == VERSIONS[-1]:
                    raise
        raise AssertionError("the last version returns or raises")

    async def _look(self, api: ApiClient, path: str, name: str) -> Answer:
        answer = find_answer(await api.get(path, {"fieldSelector": f"metadata.name={name}"}))
        if answer is None:
            raise AccessError(f"CSR {name} was deleted")
        return answer

    async def _await_verdict(self, api: ApiClient, path: str, name: str, answer: Answer) -> Answer:
        patience = OTHER_WAY_TIMEOUT if self._access.others and self.held is None else PENDING_TIMEOUT
        give_up = self._reactor.seconds() + patience
        while answer.verdict in UNDECIDED:
            said = self._awaits(name, answer)
            left = give_up - self._reactor.seconds()
            if left <= 0:
                raise AccessError(f"{said}: no verdict within {patience:g} s")
            before = answer.verdict
            answer = await self._watched(api, path, name, answer.version, left) or await self._look(api, path, name)
            if answer.verdict is before:
                await pause(self._reactor, POLL)
        return answer

    def _awaits(self, name: str, answer: Answer) -> str:
        """
        Say for what a request waits.
        """
        said = f"CSR {name} {answer.verdict.value}"
        said += f" since {answer.since}" if answer.verdict is Verdict.PENDING and answer.since else ""
        self.enrolment.asked(name, said)
        self._tell(f"{self.enrolment.wanted.name}: {said}")
        return said

    async def _watched(self, api: ApiClient, path: str, name: str, version: str, left: float) -> Answer | None:
        """
        What a watch tells to have become of a request; None when it is time to look.  A token that expires meanwhile could not
        ask any more, and is told all the same.
        """
        seconds = int(min(WATCH_SECONDS, left)) or 1
        query = {
            "fieldSelector": f"metadata.name={name}",
            "watch": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        framer, decided, is_over, ended = JSONFramer(), None, False, False

        def received(data: bytes) -> None:
            nonlocal decided, is_over
            for event in map(read_event, framer.feed(data)):
                if is_over:
                    return
                answer = read_answer(msgspec.json.decode(event.object)) if event.type in (ADDED, MODIFIED) else None
                if answer is not None and answer.verdict in UNDECIDED:
                    self._awaits(name, answer)
                elif event.type != BOOKMARK:
                    decided, is_over = answer, True
                    self._reactor.callLater(0, end)  # not from inside of what is being cancelled

        def end() -> None:
            nonlocal ended
            ended = True
            watch.cancel()

        watch = api.stream(target(path, query), lambda: None, received, lasting=seconds + WATCH_LEEWAY)
        try:
            await watch
        except (ApiError, WatchError) as error:
            self.log.debug("{error}", error=error)
        except CancelledError:
            if not ended:
                raise  # not by us, but with all of it
        return decided

    def _take(self, wanted: Wanted, name: str, pem: bytes) -> None:
        """
        Keep what was issued, if it is of use.
        """
        try:
            held = read_held(pem)
        except PEMError as error:
            self.files.discard_pending()
            raise _Denied(f"CSR {name} issued, but of no use: {error}") from None
        if not held.is_of(wanted) or held.not_after <= self._wall():
            self.files.discard_pending()
            until = time_text(held.not_after)
            raise _Denied(f"CSR {name} issued, but of no use: it is for {held.common_name!r} until {until}; is the clock right?")
        self.enrolment.issued(self.files.save(pem), wanted)
        self._access.served()
        self._tell(f"CSR {name} issued: {self.enrolment.text(self._wall())}")
        with self.log.failuresHandled("{what}: a callback failed", what=wanted.name):
            self._changed()

    def _tell(self, said: str) -> None:
        if said != self._told:
            self._told = said
            self.log.info("{said}", said=said)


def _cancelled(failure: Failure) -> None:
    failure.trap(CancelledError)
