"""
Tests of the tunnel servers' knowledge of each other.
"""

from __future__ import annotations

from typing import Any

from tests.miniapi.memory import MemoryAPI
from tests.tunnel.server.memory_cluster import NOW, ClusterCase
from yurt.kube.api import ApiClient
from yurt.tunnel.server.members import DURATION, GARBAGE_AFTER, Member, Members, read_presence

NAMESPACE = "kube-system"


class ReadTests(ClusterCase):
    """
    Tests of what a Lease says of its server.
    """

    def read(self, annotation: str, holder: str | None = "one") -> Member | None:
        text = f'"{holder}"' if holder else "null"
        body = f'{{"metadata":{{"name":"x","annotations":{annotation}}},"spec":{{"holderIdentity":{text}}}}}'
        return read_presence(body.encode()).member

    def test_places(self) -> None:
        """
        An address is host and port, an IPv6 host in brackets; of a server without a usable one nobody hears.
        """
        key = "openyurt.io/tunnel-server-address"
        found = [self.read(f'{{"{key}":"{text}"}}') for text in ("10.0.0.1:10262", "[fd00::1]:10262", "server.example:1")]
        expected = [Member("one", "10.0.0.1", 10262), Member("one", "fd00::1", 10262), Member("one", "server.example", 1)]
        self.assertEqual(found, expected)
        bad = [self.read(f'{{"{key}":"{text}"}}') for text in ("", "10.0.0.1", "fd00::1", ":1", "a:99999", "a:b:c")]
        self.assertEqual(bad, [None] * 6)
        self.assertEqual([self.read("null"), self.read(f'{{"{key}":"10.0.0.1:1"}}', None)], [None, None])

    def test_bare(self) -> None:
        """
        A Lease that says nothing is readable.
        """
        self.assertIs(read_presence(b'{"metadata":{"name":"x"}}').member, None)


class MemberTests(ClusterCase):
    """
    Tests of servers that come and go.
    """

    def server_named(self, name: str, behind: float = 0.0) -> tuple[Members, MemoryAPI]:
        """
        A running server, and its own way to the apiserver.
        """
        way = self.another()
        members = Members(
            self.clock,
            ApiClient(self.clock, way),
            name,
            f"{name}.example",
            10262,
            wall=lambda: NOW + self.clock.seconds() - behind,
            draw=lambda: 0.5,
        )
        self.follow(members)
        return members, way

    def names(self, members: Members) -> list[str]:
        return [one.id for one in members.members]

    @property
    def leases(self) -> dict[str, Any]:
        collection = self.api.store.collection(self.api.catalogue.named("leases"))
        return {stored.document["metadata"]["name"]: stored.document for stored in collection.objects.values()}

    def test_lease(self) -> None:
        """
        A server's Lease has the label and the address by which others find it, and is renewed.
        """
        members, _ = self.server_named("one")
        lease = self.leases["yurt-tunnel-server-one"]
        self.assertEqual(lease["metadata"]["labels"], {"openyurt.io/tunnel-server": "true"})
        self.assertEqual(lease["metadata"]["annotations"], {"openyurt.io/tunnel-server-address": "one.example:10262"})
        self.assertEqual((lease["spec"]["holderIdentity"], lease["spec"]["leaseDurationSeconds"]), ("one", 30))
        self.advance(60)
        self.assertGreater(self.leases["yurt-tunnel-server-one"]["spec"]["renewTime"], lease["spec"]["renewTime"])
        self.assertEqual((members.problem, members.members, members.renewals), (None, (), 7))

    def test_come_and_go(self) -> None:
        """
        Servers hear of each other at once, when one comes and when one stops; none is its own member.
        """
        one, _ = self.server_named("one")
        heard: list[list[str]] = []
        one.subscribe(lambda members: heard.append([member.id for member in members]))
        two, _ = self.server_named("two")
        three, _ = self.server_named("three")
        self.assertEqual(one.members, (Member("three", "three.example", 10262), Member("two", "two.example", 10262)))
        self.assertEqual((self.names(two), self.names(three)), (["one", "three"], ["one", "two"]))
        stopped = three.stopService()
        self.advance(0.2)
        self.successResultOf(stopped)
        self.assertEqual(heard, [["two"], ["three", "two"], ["two"]])
        self.assertEqual(set(self.leases), {"yurt-tunnel-server-one", "yurt-tunnel-server-two"})

    def test_steady(self) -> None:
        """
        While all renew, nothing changes, whatever their clocks say.
        """
        one, _ = self.server_named("one", behind=-3600.0)
        two, _ = self.server_named("two", behind=3600.0)
        heard: list[object] = []
        one.subscribe(heard.append)
        self.advance(300)
        self.assertEqual((heard, self.names(one), self.names(two)), ([], ["two"], ["one"]))

    def test_crash(self) -> None:
        """
        A server that vanishes is a member until its Lease has run out, and after a while the Lease is removed.
        """
        one, _ = self.server_named("one")
        _, way = self.server_named("two")
        way.refusing = True
        way.close_connections("killed")
        self.advance(DURATION - 12)
        self.assertEqual(self.names(one), ["two"])
        self.advance(25)
        self.assertEqual(self.names(one), [])
        self.assertIn("yurt-tunnel-server-two", self.leases)
        self.advance(GARBAGE_AFTER)
        self.assertEqual(set(self.leases), {"yurt-tunnel-server-one"})

    def test_back_again(self) -> None:
        """
        A server that was cut off for longer than its Lease lasts is a member again with its first renewal.
        """
        one, _ = self.server_named("one")
        two, way = self.server_named("two")
        way.refusing = True
        way.close_connections("cut")
        self.advance(60)
        self.assertEqual((self.names(one), self.names(two)), ([], ["one"]))
        self.assertIn("connection refused", str(two.problem))
        way.refusing = False
        self.advance(31)
        self.assertEqual((self.names(one), self.names(two), two.problem), (["two"], ["one"], None))

    def test_apiserver_away(self) -> None:
        """
        While the apiserver is away, refusing or silent, nobody is taken for dead; nor right after its return.
        """
        one, way_one = self.server_named("one")
        two, way_two = self.server_named("two")
        heard: list[object] = []
        for members in (one, two):
            members.subscribe(heard.append)
        for trouble in ("refusing", "silent"):
            for way in (way_one, way_two):
                setattr(way, trouble, True)
                if trouble == "refusing":
                    way.close_connections("reset")
            self.advance(400)
            for way in (way_one, way_two):
                setattr(way, trouble, False)
            self.advance(120)
            self.assertEqual((heard, self.names(one), self.names(two)), ([], ["two"], ["one"]), trouble)
            self.assertEqual((one.problem, two.problem), (None, None))

    def test_blind_watch(self) -> None:
        """
        A server whose own watch brings nothing any more, while its renewals go through, does not take the others for dead.
        """
        one, _ = self.server_named("one")
        self.server_named("two")
        self.patch(one.informer.mirror, "received", lambda data: iter(()))
        self.advance(200)
        self.assertEqual(self.names(one), ["two"])

    def test_lease_deleted(self) -> None:
        """
        A Lease that somebody removes is made anew.
        """
        one, _ = self.server_named("one")
        self.api.remove("leases", "yurt-tunnel-server-one", NAMESPACE)
        self.advance(11)
        self.assertIn("yurt-tunnel-server-one", self.leases)
        self.assertIs(one.problem, None)

    def test_forbidden(self) -> None:
        """
        Without rights there is a problem for people, and the server goes on.
        """
        self.api.permits = lambda user, verb, call, path: False
        one, _ = self.server_named("one")
        self.assertIn("403 Forbidden", str(one.problem))
        self.assertEqual(one.members, ())

    def test_other_leases(self) -> None:
        """
        Leases of others are neither members nor garbage.
        """
        lease = {"metadata": {"name": "kube-scheduler", "namespace": NAMESPACE}, "spec": {"holderIdentity": "s"}}
        self.api.put("leases", lease)
        one, _ = self.server_named("one")
        self.advance(2 * GARBAGE_AFTER)
        self.assertEqual((one.members, "kube-scheduler" in self.leases), ((), True))

    def test_garbage_from_before(self) -> None:
        """
        The Lease of a server that crashed long ago is tried as a member for no longer than it lasts, then removed.
        """
        metadata = {
            "name": "yurt-tunnel-server-old",
            "namespace": NAMESPACE,
            "labels": {"openyurt.io/tunnel-server": "true"},
            "annotations": {"openyurt.io/tunnel-server-address": "old.example:10262"},
        }
        spec = {"holderIdentity": "old", "leaseDurationSeconds": 30, "renewTime": "2020-01-01T00:00:00.000000Z"}
        self.api.put("leases", {"metadata": metadata, "spec": spec})
        one, _ = self.server_named("one")
        self.assertEqual(self.names(one), ["old"])
        self.advance(DURATION + 12)
        self.assertEqual(one.members, ())
        self.advance(GARBAGE_AFTER)
        self.assertNotIn("yurt-tunnel-server-old", self.leases)

    def test_stop(self) -> None:
        """
        A stop takes a moment at most, even without an apiserver, and leaves nothing on the clock.
        """
        one, way = self.server_named("one")
        way.silent = True
        stopped = one.stopService()
        self.advance(2.1)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])
