"""
Tests of :mod:`yurt.hub.progress`.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.memory_site import bookmark, config_map, event
from yurt.hub.progress import STATE_SETTLES, Progress
from yurt.kube.watch import WatchEvent, read_event


def added(version: int) -> WatchEvent:
    """
    An object that appears.
    """
    return read_event(event("ADDED", config_map("a", version)))


def deleted(version: int) -> WatchEvent:
    """
    An object that vanishes.
    """
    return read_event(event("DELETED", config_map("a", version)))


class ProgressTests(SynchronousTestCase):
    """
    How far a watch has come.
    """

    def test_moves_on(self) -> None:
        """
        Each event moves the version on, never back, and tells the kind; the client gets it.
        """
        progress = Progress({"resourceVersion": "10"})
        self.assertFalse(progress.begins_with_state)
        self.assertEqual([progress.told(one, 0.0) for one in (added(11), deleted(13), added(12))], [True, True, True])
        self.assertEqual((progress.version, progress.client_version), ("13", "13"))
        self.assertEqual((progress.kind, progress.api_version), ("ConfigMap", "v1"))

    def test_bookmarks(self) -> None:
        """
        A bookmark moves the version, and reaches a client that asked for bookmarks only.
        """
        for query, wanted in (({}, False), ({"allowWatchBookmarks": "true"}, True)):
            progress = Progress({"resourceVersion": "10", **query})
            self.assertEqual(progress.told(read_event(bookmark(20)), 0.0), wanted)
            self.assertEqual(progress.version, "20")

    def test_repeated_for_the_cache(self) -> None:
        """
        After going back, what the client knows already is not for it; what is new is, and then all is.
        """
        progress = Progress({"resourceVersion": "12"})
        progress.go_back("10")
        self.assertEqual((progress.version, progress.client_version), ("10", "12"))
        self.assertEqual([progress.told(added(version), 0.0) for version in (11, 12, 13)], [False, False, True])
        self.assertEqual((progress.version, progress.known_version), ("13", ""))

    def test_repeated_to_the_end(self) -> None:
        """
        When the last thing that the client knows has been repeated, nothing more is waited for.
        """
        progress = Progress({"resourceVersion": "12"})
        progress.go_back("10")
        self.assertEqual([progress.told(added(version), 0.0) for version in (11, 12)], [False, False])
        self.assertEqual((progress.version, progress.known_version), ("12", ""))

    def test_going_back_twice(self) -> None:
        """
        What the client knows stays known when the cloud has to repeat it once more.
        """
        progress = Progress({"resourceVersion": "20"})
        progress.go_back("10")
        progress.told(added(15), 0.0)
        progress.go_back("12")
        self.assertEqual((progress.version, progress.client_version), ("12", "20"))

    def test_nothing_to_repeat(self) -> None:
        """
        When the cloud cannot repeat, the watch goes on from the client's version.
        """
        progress = Progress({"resourceVersion": "20"})
        progress.go_back("10")
        progress.go_on()
        self.assertEqual((progress.version, progress.known_version), ("20", ""))
        self.assertTrue(progress.told(added(21), 0.0))

    def test_beginnings(self) -> None:
        """
        Which watches begin with the present state.
        """
        cases: list[tuple[dict[str, str], bool]] = [
            ({}, True),
            ({"resourceVersion": "0"}, True),
            ({"resourceVersion": "7"}, False),
            ({"sendInitialEvents": "true", "resourceVersion": "7"}, True),
            ({"sendInitialEvents": "false"}, False),
        ]
        for query, expected in cases:
            self.assertEqual(Progress(query).begins_with_state, expected, query)

    def test_initial_events_end(self) -> None:
        """
        The bookmark at the end of the initial events ends them.
        """
        progress = Progress({"sendInitialEvents": "true", "allowWatchBookmarks": "true"})
        progress.told(added(3), 0.0)
        self.assertTrue(progress.initial)
        progress.told(read_event(bookmark(20, end=True)), 0.0)
        self.assertFalse(progress.initial)

    def test_torn(self) -> None:
        """
        A break soon after the last event of the first state, or within an event, tears it; later, or after a change, none does.
        """
        progress = Progress({})
        progress.told(added(3), 100.0)
        self.assertTrue(progress.is_torn(False, 100.0 + STATE_SETTLES / 2))
        self.assertFalse(progress.is_torn(False, 100.0 + STATE_SETTLES))
        self.assertTrue(progress.is_torn(True, 100.0 + STATE_SETTLES))
        progress.told(deleted(4), 100.0)
        self.assertFalse(progress.is_torn(True, 100.0))
        self.assertFalse(Progress({"resourceVersion": "7"}).is_torn(True, 0.0))
