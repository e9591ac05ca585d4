"""
Tests of :mod:`yurt.hub.turns`, and of long lists that take several turns on their way into the cache.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import MAPS, HandExchange, MemorySite, bookmark, config_map, event, open_watch
from yurt.hub.cache.views import LIST_STEP, Caller, ViewKey
from yurt.hub.turns import MAX_WAITING, MAX_WAITING_BYTES, Steps, Turns

VIEW = ViewKey(Caller("node", "kubelet"), "/v1/configmaps", "", "default")


def turn(clock: Clock) -> None:
    """
    What a reactor does in one turn: what is asked for meanwhile is due in the next.
    """
    due: list[Any] = [call for call in clock.getDelayedCalls() if call.getTime() <= clock.seconds()]
    for call in due:
        clock.calls.remove(call)
        call.called = True
        call.func(*call.args, **call.kw)


class TurnsTests(SynchronousTestCase):
    """
    Jobs, short and long.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.turns = Turns(self.clock)
        self.done: list[str] = []

    def short(self, name: str, size: int = 0) -> None:
        """
        A job of one step.
        """

        def job() -> None:
            self.done.append(name)

        self.turns.run(job, size)

    def long(self, name: str, steps: int = 3) -> None:
        """
        A job with pauses.
        """

        def job() -> Steps:
            for number in range(steps):
                if number:
                    yield
                self.done.append(f"{name}{number}")

        self.turns.run(job, about=name)

    def test_at_once(self) -> None:
        """
        While nothing is under way a job is done before ``run`` returns, a long one up to its first pause.
        """
        self.short("a")
        self.long("b", steps=1)
        self.long("c")
        self.assertEqual(self.done, ["a", "b0", "c0"])

    def test_order(self) -> None:
        """
        One step a turn; what comes later is done later.
        """
        self.long("a")
        self.short("b")
        self.long("c", steps=2)
        self.short("d")
        seen = []
        while self.clock.getDelayedCalls():
            seen.append("".join(self.done))
            turn(self.clock)
        self.assertEqual(seen, ["a0", "a0a1", "a0a1a2bc0"])
        self.assertEqual("".join(self.done), "a0a1a2bc0c1d")

    def test_expects(self) -> None:
        """
        What is under way, and what waits, is expected; what is done is not.
        """
        self.long("a")
        self.long("b")
        self.assertEqual([self.turns.expects(name) for name in "abc"], [True, True, False])
        self.turns.finish()
        self.assertEqual([self.turns.expects(name) for name in "abc"], [False, False, False])

    def test_finish(self) -> None:
        """
        All that is left is done at once, in the same order, and nothing is done twice.
        """
        self.long("a")
        self.short("b")
        self.long("c", steps=2)
        self.turns.finish()
        self.assertEqual("".join(self.done), "a0a1a2bc0c1")
        self.clock.advance(1)
        self.assertEqual("".join(self.done), "a0a1a2bc0c1")

    def test_bounds(self) -> None:
        """
        Too much that waits, by number or by bytes, ends the wait.
        """
        self.long("a")
        for _ in range(MAX_WAITING):
            self.short("b")
        self.assertEqual(self.done, ["a0"])
        self.short("c")
        self.assertEqual(self.done, ["a0", "a1", "a2", *"b" * MAX_WAITING, "c"])
        self.done.clear()
        self.long("d")
        self.short("e", MAX_WAITING_BYTES)
        self.assertEqual(self.done, ["d0"])
        self.short("f", 1)
        self.assertEqual(self.done, ["d0", "d1", "d2", "e", "f"])
        self.long("g")
        self.short("h", MAX_WAITING_BYTES)
        self.assertEqual(self.done[5:], ["g0"], "what is done no longer counts")

    def test_failures(self) -> None:
        """
        A job that fails, at once or in the middle, is logged, and the next one is done.
        """

        def fails_in_the_middle() -> Steps:
            yield
            raise ValueError("a")

        def fails() -> None:
            raise ValueError("b")

        self.turns.run(fails_in_the_middle)
        self.turns.run(fails)
        self.short("c")
        self.clock.advance(0)
        self.assertEqual(self.done, ["c"])
        self.assertEqual([str(error.value) for error in self.flushLoggedErrors(ValueError)], ["a", "b"])


class LongListTests(SynchronousTestCase):
    """
    A list of several thousand objects.
    """

    def setUp(self) -> None:
        self.site = MemorySite(self)
        self.site.online()
        self.names = [f"m{number:05}" for number in range(4 * LIST_STEP)]

    def list(self, version: int = 10, at: int = 3) -> None:
        """
        Let the kubelet list, and the cloud answer; the client has the whole answer then.
        """
        self.site.store_list(MAPS, [config_map(name, at) for name in self.names], str(version))

    def watch(self, version: int) -> HandExchange:
        """
        Let the kubelet watch from a version on.
        """
        _, exchange = open_watch(self.site, f"resourceVersion={version}&allowWatchBookmarks=true")
        self.assertEqual(exchange.query["resourceVersion"], str(version))
        return exchange

    def known(self) -> tuple[str, bool, int]:
        """
        What the cache knows of the list: version, whether it is complete, how many members.
        """
        info = self.site.hub.views.view(VIEW)
        return ("", False, 0) if info is None else (info.resource_version, info.complete, info.members)

    def halfway(self) -> None:
        """
        Split, and compared in part.
        """
        for _ in range(5):
            turn(self.site.clock)

    def settle(self) -> int:
        """
        The turns until the cache has all.
        """
        turns = 0
        while self.site.hub.turns.expects(VIEW):
            turns += 1
            turn(self.site.clock)
        return turns

    def test_several_turns(self) -> None:
        """
        It takes several turns of the reactor; until the last the cache shows what it knew before, then all of it at once.
        """
        self.names, names = self.names[:2], self.names
        self.list(5)
        self.names = names
        self.list(10)
        self.assertEqual(self.known(), ("5", True, 2))
        self.assertEqual(self.settle(), 2 * 3, "pauses between four steps of splitting, and four of comparing")
        self.assertEqual(self.known(), ("10", True, len(names)))
        self.site.offline()
        reply = self.site.fetch("GET", MAPS)
        self.assertEqual([one["metadata"]["name"] for one in reply.json["items"]], names)

    def test_events_that_follow(self) -> None:
        """
        A watch that begins at the list's version, and events of it, come in after the list, however early they are.
        """
        self.list(10)
        exchange = self.watch(10)
        first, second = self.names[:2]
        exchange.send(event("MODIFIED", config_map(first, 11)) + event("DELETED", config_map(second, 12)) + bookmark(20))
        self.assertEqual(self.known(), ("", False, 0))
        self.settle()
        self.assertEqual(self.known(), ("20", True, len(self.names) - 1))
        self.site.offline()
        self.assertEqual(self.site.fetch("GET", f"{MAPS}/{first}").json["metadata"]["resourceVersion"], "11")
        self.assertEqual(self.site.fetch("GET", f"{MAPS}/{second}").status, 404)

    def test_gone_and_changed(self) -> None:
        """
        A second list replaces the first: what it lacks is gone, what has changed is new, and the counts are right.
        """
        self.list(10)
        self.settle()
        views = self.site.hub.views
        size = views.object_bytes // len(self.names)
        gone = self.names.pop(7)
        self.list(20, at=15)
        self.settle()
        self.assertEqual(self.known(), ("20", True, len(self.names)))
        self.assertEqual((views.objects, views.object_bytes), (len(self.names), (size + 1) * len(self.names)))
        self.site.offline()
        items = self.site.fetch("GET", MAPS).json["items"]
        self.assertEqual({one["metadata"]["resourceVersion"] for one in items}, {"15"})
        self.assertEqual(self.site.fetch("GET", f"{MAPS}/{gone}").status, 404)

    def test_pages(self) -> None:
        """
        The pages of a list are put together in order, although the first is still being taken in when the second comes.
        """
        half = len(self.names) // 2
        for part, token, query in ((self.names[:half], "more", ""), (self.names[half:], "", "&continue=more")):
            self.site.ask("GET", f"{MAPS}?limit={half}{query}")
            items = [config_map(name, 3) for name in part]
            metadata = {"resourceVersion": "10", "continue": token}
            self.site.arriving(MAPS).answer(
                200, {"kind": "ConfigMapList", "apiVersion": "v1", "metadata": metadata, "items": items}
            )
        self.settle()
        self.assertEqual(self.known(), ("10", True, len(self.names)))

    def test_broken_off(self) -> None:
        """
        A crash in the middle leaves the list that was there before.
        """
        self.names, names = self.names[:2], self.names
        self.list(5)
        self.site.run(5)
        self.names = names
        self.list(10)
        self.halfway()
        self.site.store.flush()
        self.site.crash()
        self.assertEqual(self.known(), ("5", True, 2))

    def test_disk_in_between(self) -> None:
        """
        A disk whose content changes under the draft makes it begin again, and the result is the list.
        """
        self.list(10)
        self.settle()
        self.list(20, at=15)
        self.halfway()
        self.site.store._drop_pending()
        self.settle()
        self.assertEqual(self.known(), ("20", True, len(self.names)))
        self.site.offline()
        items = self.site.fetch("GET", MAPS).json["items"]
        self.assertEqual({one["metadata"]["resourceVersion"] for one in items}, {"15"})
