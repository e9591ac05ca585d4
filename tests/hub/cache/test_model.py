"""
Views against a model of the cloud: whatever happens in whatever order, what a caller reads is what it was told.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.hub.cache.fixtures import CONFIG_MAPS, KUBE_PROXY, KUBELET, Cache, body, bookmark, event, item, listed
from yurt.hub.cache import ABSENT, Found, ViewKey
from yurt.hub.cache.reading import Reader

NAMES = "abcde"
COLORS = ("red", "blue")
KEYS = [
    key
    for scope in (ViewKey(caller, CONFIG_MAPS, namespace="default") for caller in (KUBELET, KUBE_PROXY))
    for key in (
        scope,
        scope._replace(namespace=""),
        scope._replace(label_selector="color=red"),
        scope._replace(field_selector="metadata.name=a"),
    )
]
HAPPENINGS = "write write write delete list initial events events get commit restart late crash".split()
STEPS = st.lists(
    st.tuples(
        st.sampled_from(HAPPENINGS),
        st.integers(0, len(KEYS) - 1),
        st.integers(0, len(NAMES) - 1),
    ),
    min_size=10,
    max_size=60,
)


@dataclass
class Cloud:
    """
    Objects with a color each, and all that ever happened to them: (version, name, color before, color after).
    """

    version: int = 100
    objects: dict[str, tuple[int, str]] = field(default_factory=dict)
    history: list[tuple[int, str, str, str]] = field(default_factory=list)

    def change(self, name: str, color: str) -> None:
        """
        Write an object, or delete it (no color).
        """
        before = self.objects.get(name, (0, ""))[1]
        if not color and not before:
            return
        self.version += 1
        self.history.append((self.version, name, before, color))
        if color:
            self.objects[name] = (self.version, color)
        else:
            del self.objects[name]


def selects(key: ViewKey, name: str, color: str) -> bool:
    """
    Whether a view is about an object.
    """
    return bool(color) and (not key.label_selector or color == "red") and (not key.field_selector or name == "a")


class World:
    """
    A cloud, a cache, and how far each view has been told.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.cloud = Cloud()
        self.cache = Cache(path)
        self.told: dict[ViewKey, int] = {}
        self.colors = random.Random(3)

    def step(self, what: str, key: ViewKey, name: str) -> None:
        """
        Let one thing happen.
        """
        getattr(self, what)(key, name)

    def write(self, _key: ViewKey, name: str) -> None:
        """
        Somebody writes an object.
        """
        self.cloud.change(name, self.colors.choice(COLORS))

    def delete(self, _key: ViewKey, name: str) -> None:
        """
        Somebody deletes an object.
        """
        self.cloud.change(name, "")

    def list(self, key: ViewKey, _name: str) -> None:
        """
        A caller lists.
        """
        found = [(each, *self.cloud.objects[each]) for each in self.cloud.objects]
        items = [item(each, version, labels={"color": color}) for each, version, color in found if selects(key, each, color)]
        self.cache.views.store_list(key, listed(self.cloud.version, *items), requested_version="")
        self.told[key] = self.cloud.version

    def initial(self, key: ViewKey, _name: str) -> None:
        """
        A caller watches with initial events.
        """
        token = self.cache.views.begin_initial(key)
        for each, (version, color) in self.cloud.objects.items():
            if selects(key, each, color):
                self.cache.views.apply_event(key, event("ADDED", each, version, labels={"color": color}), token)
        self.cache.views.apply_event(key, bookmark(self.cloud.version, initial_events_end=True), token)
        self.told[key] = self.cloud.version

    def events(self, key: ViewKey, _name: str) -> None:
        """
        A watch goes on to the present, after repeating the last thing that it told.
        """
        if key not in self.told:
            return
        last = [entry for entry in self.cloud.history if entry[0] <= self.told[key]][-1:]
        for version, name, before, after in [*last, *(e for e in self.cloud.history if e[0] > self.told[key])]:
            was, is_now = selects(key, name, before), selects(key, name, after)
            if was or is_now:
                kind = "DELETED" if not is_now else "MODIFIED" if was else "ADDED"
                self.cache.views.apply_event(key, event(kind, name, version, labels={"color": after or before}))
        self.cache.views.apply_event(key, bookmark(self.cloud.version))
        self.told[key] = self.cloud.version

    def get(self, key: ViewKey, name: str) -> None:
        """
        A caller gets one object.
        """
        if name in self.cloud.objects:
            version, color = self.cloud.objects[name]
            answer = body(name, version, labels={"color": color})
            self.cache.views.store_object(key.caller, CONFIG_MAPS, "", answer)
        else:
            self.cache.views.forget_object(key.caller, CONFIG_MAPS, "", "default", name)

    def commit(self, _key: ViewKey, _name: str) -> None:
        """
        Time for a commit passes.
        """
        self.cache.clock.advance(5)

    def restart(self, _key: ViewKey, _name: str) -> None:
        """
        The next process takes over.
        """
        self.cache.store.close()
        self.cache = Cache(self.path)

    def crash(self, _key: ViewKey, _name: str) -> None:
        """
        The process dies; watches go on where the views on the disk end.
        """
        self.cache.crash()
        self.cache = Cache(self.path)
        known = {key: self.cache.views.view(key) for key in self.told}
        self.told = {key: int(info.resource_version) for key, info in known.items() if info is not None and info.complete}

    def late(self, key: ViewKey, name: str) -> None:
        """
        The next process takes over, and a caller lists before the disk is there.
        """
        self.cache.store.close()
        self.cache = Cache(self.path, is_open=False)
        self.list(key, name)
        self.cache.store.open()


class ModelTests(SynchronousTestCase):
    """
    Many histories.
    """

    @settings(max_examples=100, deadline=None)
    @given(STEPS)
    def test_histories(self, steps: list[tuple[str, int, int]]) -> None:
        """
        Views that were told all hold exactly what the cloud does; reads agree with them, however often they are repeated; nothing
        else is stored.
        """
        world = World(self.mktemp())
        try:
            for what, number, name in steps:
                world.step(what, KEYS[number], NAMES[name])
                self.check_repeated_reads(world)
            for key in list(world.told):
                world.events(key, "")
            self.check_lists(world)
            self.check_reads(world)
            self.check_stored(world)
        finally:
            world.cache.crash()

    def check_lists(self, world: World) -> None:
        """
        Lists are the cloud's.
        """
        for key in world.told:
            found = world.cache.views.read_list(key)
            assert found is not None
            read = {
                each["metadata"]["name"]: (int(each["metadata"]["resourceVersion"]), each["metadata"]["labels"]["color"])
                for each in json.loads(found.body)["items"]
            }
            expected = {name: state for name, state in world.cloud.objects.items() if selects(key, name, state[1])}
            self.assertEqual(read, expected, key)

    def check_reads(self, world: World) -> None:
        """
        Single reads are the cloud's wherever a view knows all names.
        """
        for key in world.told:
            if key.label_selector or key.field_selector:
                continue
            for name in NAMES:
                found = world.cache.views.read_object(key.caller, CONFIG_MAPS, "", "default", name)
                if name in world.cloud.objects:
                    assert isinstance(found, Found), (key, name, found)
                    self.assertEqual(int(json.loads(found.body)["metadata"]["resourceVersion"]), world.cloud.objects[name][0])
                else:
                    self.assertIs(found, ABSENT)

    def check_repeated_reads(self, world: World) -> None:
        """
        A read says what one says that was never made before.
        """
        views = world.cache.views
        for caller in (KUBELET, KUBE_PROXY):
            for name in NAMES:
                anew = Reader(views._shelf).read_object(caller, CONFIG_MAPS, "", "default", name)
                again = views.read_object(caller, CONFIG_MAPS, "", "default", name)
                if isinstance(anew, Found) and isinstance(again, Found):
                    self.assertEqual((again.body, again.local), (anew.body, anew.local))
                    self.assertGreaterEqual(again.stored_at, anew.stored_at)
                else:
                    self.assertIs(again, anew)
        for key in KEYS:
            anew_list, again_list = Reader(views._shelf).read_list(key), views.read_list(key)
            self.assertEqual(views.read_list(key), again_list)
            self.assertEqual(again_list, anew_list)

    def check_stored(self, world: World) -> None:
        """
        Each stored object is held by a view, and counted.
        """
        objects = {key.rpartition(b"\0")[2] for key, _ in world.cache.store.table("objects").scan()}
        held = {key[8:] for key, state in world.cache.store.table("members").scan() if not state}
        self.assertEqual(objects, held)
        self.assertEqual(world.cache.views.objects, len(objects))
        bodies = [world.cache.views._shelf.get(CONFIG_MAPS, "", member) for member in held]
        self.assertEqual(world.cache.views.object_bytes, sum(len(stored.body) for stored in bodies if stored))
        for key, info in world.cache.views.views():
            view = world.cache.views._shelf.index.views[key]
            self.assertEqual(info.members, len(list(world.cache.views._shelf.members(view))), key)
