"""
Tests of watches and writes through a whole hub, over real sockets, while the cloud comes and goes.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from tests.hub import site as site_module
from tests.hub.site import NODE, POD_ADDRESS, Site, Stream, config_map, names, pause, pod, reactor, source, until
from tests.miniapi import MiniAPI
from yurt.http.limits import ClientLimits

MAPS = "/api/v1/namespaces/default/configmaps"
EVENTS = "/api/v1/namespaces/default/events"
POD = "/api/v1/namespaces/default/pods/web"
NODE_PATH = f"/api/v1/nodes/{NODE}"
CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
KUBELET_TIMEOUT = 10.0
STRATEGIC = "application/strategic-merge-patch+json"
ROUNDS = 12
CYCLES = 1000
BATCH = 250
SLACK = 6
"""Descriptors of what is just about to be asked of the cloud, or was."""


class Follower:
    """
    Reads a watch as it comes, and remembers what each event said.
    """

    def __init__(self, stream: Stream) -> None:
        self.told: list[tuple[str, str]] = []
        self.ended = False
        self._stream = stream
        self._read()

    async def hears(self, count: int) -> None:
        """
        Wait for so many events.
        """
        await until(lambda: len(self.told) >= count, f"{count} events, not {len(self.told)}")

    def _read(self) -> None:
        self._stream._events.get().addCallback(self._take)

    def _take(self, event: dict[str, Any] | None) -> None:
        if event is None:
            self.ended = True
            return
        if event["type"] != "BOOKMARK":
            document = event["object"]["rows"][0]["object"] if event["object"]["kind"] == "Table" else event["object"]
            self.told.append((event["type"], document["metadata"]["resourceVersion"]))
        self._read()


class CutTests(TestCase):
    """
    Tests of watches under every kind of trouble.
    """

    timeout = 120

    async def follow(self, site: Site, query: str = "", **options: Any) -> Follower:
        """
        A watch that goes on from now.
        """
        version = site.api.store.version
        return Follower(await site.watch(f"{MAPS}?watch=true&resourceVersion={version}{query}", **options))

    async def test_each_change_once_and_in_order(self) -> None:
        """
        Numbered changes before, during and after cuts, resets, refusals, load balancer errors: every client hears each change
        exactly once, in order, whatever it is and however it asked.
        """
        site = Site(self)
        draw = random.Random(4)
        await site.start_online()
        await site.get(MAPS)
        table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
        token = site.api.token()
        followers = [
            await self.follow(site),
            await self.follow(site, "&allowWatchBookmarks=true"),
            await self.follow(site, agent="stranger"),
            await self.follow(site, agent="kubectl", accept=table),
            await self.follow(site, agent="app", token=token, address=POD_ADDRESS),
        ]
        expected: list[tuple[str, str]] = []

        def change(number: int) -> None:
            name = f"map-{draw.randint(0, 5)}"
            there = ("default", name) in site.api.store.collection(site.api.catalogue.named("configmaps")).objects
            if there and draw.random() < 0.3:
                site.api.remove("configmaps", name)
                expected.append(("DELETED", str(site.api.store.version)))
            else:
                site.api.put(
                    "configmaps",
                    config_map(name, data={"number": f"{number} {len(expected)}", "filler": "x" * draw.choice([0, 9000])}),
                )
                expected.append(("MODIFIED" if there else "ADDED", str(site.api.store.version)))

        for number in range(ROUNDS):
            change(number)
            if draw.random() < 0.5:
                await until(lambda: followers[0].told == expected)
            trouble = ["cut", "reset", "refuse", "failure"][number % 4]
            change(number)
            if trouble == "cut":
                site.api.cut()
            elif trouble == "reset":
                site.api.reset_connections()
            elif trouble == "refuse":
                await site.api.refuse()
            else:
                site.api.failure = 503
                site.api.reset_connections()
            change(number)
            await pause(draw.choice([0.0, 0.05, 0.3]))
            if trouble != "reset" and draw.random() < 0.5:
                await until(lambda: not site.service.cloud.reachable)
            change(number)
            site.api.heal()
            change(number)
        for place, follower in enumerate(followers):
            await follower.hears(len(expected))
            self.assertEqual(follower.told, expected, f"client {place}")
            self.assertFalse(follower.ended)
        self.assertEqual(site.api.count("list", "configmaps"), 1, "nobody listed but the test")
        await site.offline()
        there = site.api.store.collection(site.api.catalogue.named("configmaps")).objects
        listed = await site.get(MAPS)
        self.assertEqual(names(listed), sorted(name for _, name in there))

    async def test_a_hundred_watches(self) -> None:
        """
        A hundred watches outlive an outage without a single list.
        """
        site = Site(self)
        await site.start_online()
        followers = [await self.follow(site, agent=f"agent-{number}") for number in range(100)]
        await site.offline()
        site.api.put("configmaps", config_map("a"))
        await site.online()
        for follower in followers:
            await follower.hears(1)
        self.assertEqual(site.api.count("list", "configmaps"), 0)
        self.assertEqual(site.api.count("watch", "configmaps"), 200)

    async def test_initial_events(self) -> None:
        """
        A watch list fills the cache, as a list would, and what it brings is listed without the cloud.
        """
        site = Site(self)
        site.api.put("configmaps", config_map("a"))
        await site.start_online()
        query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
        stream = await site.watch(f"{MAPS}?{query}")
        types = [(await stream.next() or {})["type"] for _ in range(2)]
        self.assertEqual(types, ["ADDED", "BOOKMARK"])
        site.api.put("configmaps", config_map("b"))
        await stream.next()
        await site.offline()
        self.assertEqual(names(await site.get(MAPS)), ["a", "b"])

    async def test_expired(self) -> None:
        """
        A resume point that the cloud has forgotten ends the watch with an ERROR event.
        """
        site = Site(self)
        await site.start_online()
        stream = await site.watch(f"{MAPS}?watch=true&resourceVersion={site.api.store.version}")
        await site.offline()
        site.api.put("configmaps", config_map("a"))
        site.api.compact()
        await site.online()
        event = await stream.next()
        assert event is not None
        self.assertEqual((event["type"], event["object"]["code"]), ("ERROR", 410))
        self.assertIsNone(await stream.next())

    async def test_connect_and_disconnect(self) -> None:
        """
        A thousand watches that come and go leave nothing behind: no connection, no request, no file descriptor.
        """
        self.patch(site_module, "PATIENCE", 60.0)  # others may have most of the processor
        api = MiniAPI(reactor, tls=False)  # a thousand handshakes at both ends would take most of the time
        api.start()
        self.addCleanup(api.stop)
        site = Site(self, api)
        await site.start_online()
        server = site.service.cloud.servers[0]

        def descriptors() -> int:
            """
            All but those of connections to the cloud, of which probes may leave some idle for a while; both ends are in here.
            """
            return len(os.listdir("/proc/self/fd")) - 2 * (server.bare.open_connections + server.upstream.open_connections)

        fields = f"Host: hub\r\nUser-Agent: kubelet/v1\r\nAuthorization: Bearer {api.token()}\r\n\r\n"
        head = f"GET {MAPS}?watch=true&resourceVersion={api.store.version} HTTP/1.1\r\n{fields}".encode()
        await self.one_batch(site, head, BATCH)
        before = descriptors()
        for _ in range(CYCLES // BATCH):
            await self.one_batch(site, head, BATCH)
        await until(lambda: not site.hub.watches and not site.api.watchers)
        await until(lambda: descriptors() <= before + SLACK, "descriptors are freed")
        self.assertLessEqual(server.bare.open_connections, 8)
        self.assertEqual(site.hub.in_flight, 0)

    async def one_batch(self, site: Site, head: bytes, count: int) -> None:
        """
        Open watches, wait until the cloud has them, hang up.
        """
        clients = []
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", site.config.proxy_port))
            client.sendall(head)
            clients.append(client)

        def are_there() -> bool:
            """
            Whether the cloud has them.  This process is hub and cloud, and so busy with callers that the one may take the other
            for gone: who was told so asks again.
            """
            for client in clients:
                with contextlib.suppress(BlockingIOError):
                    if client.recv(4096, socket.MSG_DONTWAIT).startswith(b"HTTP/1.1 503 "):
                        client.sendall(head)
            return len(site.api.watchers) >= count

        await until(are_there, "the watches reach the cloud")
        for client in clients:
            client.close()
        await until(lambda: not site.hub.watches and not site.api.watchers, "the watches end")

    async def test_a_client_that_does_not_read(self) -> None:
        """
        A client that stops reading its watch holds up nobody else, and is itself held back: the hub does not hoard for it.
        """
        site = Site(self)
        await site.start_online()
        stalled = socket.socket()
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect(("127.0.0.1", site.config.proxy_port))
        self.addCleanup(stalled.close)
        version = site.api.store.version
        target = f"{MAPS}?watch=true&resourceVersion={version}"
        stalled.sendall(f"GET {target} HTTP/1.1\r\nHost: hub\r\nUser-Agent: slow/v1\r\n\r\n".encode())
        await until(lambda: len(site.api.watchers) == 1)
        quick = await self.follow(site)
        (slow,) = [watch for watch in site.hub.watches if watch.caller.component == "slow"]
        for number in range(200):
            site.api.put("configmaps", config_map("big", data={"filler": f"{number:05}" * 20_000}))
            await quick.hears(number + 1)
        passed_on = slow.series.received
        self.assertLess(passed_on, 16 * 1024 * 1024, "20 MB were to come")
        self.assertEqual(len(quick.told), 200)


class WriteTests(TestCase):
    """
    Tests of writes that are kept while the cloud is away, against an apiserver's own rules.
    """

    async def test_status_and_events(self) -> None:
        """
        A status and events of an outage are seen on the node at once and in the cloud after it, each once.
        """
        site = Site(self)
        site.api.put("pods", pod("web"))
        await site.start_online()
        listed = await site.get(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{NODE}")
        version = listed.json["metadata"]["resourceVersion"]
        follower = Follower(await site.watch(f"/api/v1/pods?watch=true&resourceVersion={version}"))
        uid = listed.json["items"][0]["metadata"]["uid"]
        await site.offline()
        patch = {"metadata": {"uid": uid}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
        patched = await site.ask("PATCH", f"{POD}/status", patch, content_type=STRATEGIC)
        self.assertEqual((patched.status, source(patched), patched.json["status"]["phase"]), (200, "hub", "Running"))
        self.assertEqual((await site.get(POD)).json["status"]["phase"], "Running")
        await until(lambda: len(follower.told) == 1)
        for number in range(20):
            body = {"metadata": {"name": f"web.{number}", "namespace": "default"}, "reason": "Started", "count": 1}
            self.assertEqual((await site.ask("POST", EVENTS, body)).status, 201)
        await site.restart()
        self.assertEqual((await site.get(POD)).json["status"]["phase"], "Running")
        self.assertEqual(len(site.hub.journal), 21)
        site.api.counts.clear()
        await site.online()
        await until(lambda: len(site.hub.journal) == 0)
        self.assertEqual(site.api.get("pods", "web")["status"]["phase"], "Running")
        self.assertEqual(site.api.count("create", "events"), 20)
        self.assertEqual(site.api.count("patch", "pods/status"), 1)
        made = [site.api.get("events", f"web.{number}") for number in range(20)]
        versions = [int(one["metadata"]["resourceVersion"]) for one in made]
        self.assertEqual(versions, sorted(versions))

    async def test_events_that_repeat(self) -> None:
        """
        Events that are counted up during an outage, one from before it and one of it, are answered as they will be, and are then
        in the cloud as their recorder counted them.
        """
        site = Site(self)
        await site.start_online()

        async def record(name: str, counts: range) -> None:
            if counts.start == 1:
                body = {"metadata": {"name": name, "namespace": "default"}, "reason": "BackOff", "count": 1}
                self.assertEqual((await site.ask("POST", EVENTS, body)).status, 201)
            for count in counts[1:] if counts.start == 1 else counts:
                patch = {"count": count, "lastTimestamp": f"2026-01-01T00:{count:02}:00Z"}
                reply = await site.ask("PATCH", f"{EVENTS}/{name}", patch, content_type=STRATEGIC)
                self.assertEqual((reply.status, reply.json["count"]), (200, count))

        await record("before", range(1, 3))
        await site.offline()
        await record("before", range(3, 8))
        await record("during", range(1, 20))
        known = (await site.ask("PATCH", f"{EVENTS}/during", {"count": 20}, content_type=STRATEGIC)).json
        self.assertEqual((known["reason"], known["lastTimestamp"]), ("BackOff", "2026-01-01T00:19:00Z"))
        self.assertEqual(len(site.hub.journal), 3)
        await site.online()
        await until(lambda: len(site.hub.journal) == 0)
        told = {name: site.api.get("events", name) for name in ("before", "during")}
        counts = {name: (one["reason"], one["count"], one["lastTimestamp"]) for name, one in told.items()}
        self.assertEqual(
            counts,
            {"before": ("BackOff", 7, "2026-01-01T00:07:00Z"), "during": ("BackOff", 20, "2026-01-01T00:19:00Z")},
        )

    async def test_leases_of_others(self) -> None:
        """
        kubelet's own Lease is made by the hub; one of another name that somebody makes and deletes in its name is made and
        deleted by the cloud.
        """
        site = Site(self)
        await site.start_online()
        leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"

        def lease(name: str) -> dict[str, Any]:
            named = {"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": {"name": name}}
            return {**named, "spec": {"holderIdentity": name}}

        for name, origin in ((NODE, "hub"), ("other", "cloud")):
            for status in (201, 409):
                reply = await site.ask("POST", leases, lease(name))
                self.assertEqual((reply.status, source(reply)), (status, origin), name)
        self.assertEqual((await site.ask("DELETE", f"{leases}/other")).status, 200)
        self.assertEqual((await site.get(f"{leases}/other")).status, 404)
        await until(lambda: site.hub.lease.renewed_at)
        deleted = await site.ask("DELETE", f"{leases}/{NODE}")
        self.assertEqual((deleted.status, source(deleted)), (200, "cloud"))
        self.assertEqual((await site.get(f"{leases}/{NODE}")).status, 404)

    async def test_another_object_of_that_name(self) -> None:
        """
        The status of a pod that was deleted meanwhile does not reach the one that took its name.
        """
        site = Site(self)
        site.api.put("pods", pod("web"))
        await site.start_online()
        await site.get(POD)
        await site.offline()
        patch = {"status": {"phase": "Running"}}
        self.assertEqual((await site.ask("PATCH", f"{POD}/status", patch, content_type=STRATEGIC)).status, 200)
        site.api.remove("pods", "web")
        site.api.put("pods", pod("web"))
        await site.online()
        await until(lambda: len(site.hub.journal) == 0)
        self.assertEqual(site.hub.journal.dropped, 1)
        self.assertEqual(site.api.get("pods", "web")["status"]["phase"], "Pending")

    async def test_cut_in_the_middle(self) -> None:
        """
        A creation that vanishes on the way is answered with 504, an event and a status are kept; no client waits for long.
        """
        site = Site(self)
        site.api.put("pods", pod("web"))
        await site.start_online()
        await site.get(POD)
        site.api.cut()
        created = site.ask("POST", MAPS, config_map("new"))
        event = site.ask("POST", EVENTS, {"metadata": {"name": "e", "namespace": "default"}, "reason": "x"})
        status = site.ask("PATCH", f"{POD}/status", {"status": {"phase": "Running"}}, content_type=STRATEGIC)
        replies = [await one for one in (created, event, status)]
        self.assertEqual([reply.status for reply in replies], [504, 201, 200])
        await site.online()
        await until(lambda: len(site.hub.journal) == 0)
        self.assertEqual(site.api.get("pods", "web")["status"]["phase"], "Running")
        self.assertEqual(site.api.get("events", "e")["reason"], "x")

    async def test_cut_at_any_moment(self) -> None:
        """
        Whatever kubelet writes is answered within its ten seconds, whether the link is lost just before, while the server's word
        is awaited, or when the server has the whole request.  What can be kept is kept; of what cannot be, it is told whether it
        may have been carried out.
        """
        moments = (("before", 504), ("asked", 503), ("sent", 504))
        await gatherResults([Deferred.fromCoroutine(self.cut_at(moment, status)) for moment, status in moments])

    async def cut_at(self, moment: str, unkept: int) -> None:
        """
        Cut the link at that moment of several writes; ``unkept`` is what one gets that cannot be kept.
        """
        site = Site(self)
        site.api.put("nodes", {"metadata": {"name": NODE}})
        site.api.put("pods", pod("web"))
        await site.start_online()
        await gatherResults([Deferred.fromCoroutine(site.get(path)) for path in (POD, NODE_PATH, EVENTS, CSRS, MAPS)])
        if moment == "asked":
            await pause(ClientLimits().trusted_for + 0.1)
        if moment == "sent":
            site.api.delay = KUBELET_TIMEOUT
        else:
            site.api.cut()
        ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        event = {"metadata": {"name": "e", "namespace": "default"}, "reason": "x"}
        asked = [
            site.ask("PATCH", f"{NODE_PATH}/status?timeout=10s", ready, content_type=STRATEGIC),
            site.ask("PATCH", f"{POD}/status", {"status": {"phase": "Running"}}, content_type=STRATEGIC),
            site.ask("POST", EVENTS, event),
            site.ask("PATCH", f"{EVENTS}/e", {"count": 2}, content_type=STRATEGIC),
            site.ask("POST", CSRS, {"metadata": {"generateName": "csr-"}, "spec": {}}),
        ]
        answers = [Deferred.fromCoroutine(one).addTimeout(KUBELET_TIMEOUT, reactor) for one in asked]
        if moment == "sent":
            await until(lambda: site.api.delayed == len(answers))
            site.api.cut()
        replies = await gatherResults(answers)
        self.assertEqual([reply.status for reply in replies], [200, 200, 201, 200, unkept], moment)
        lease = {"metadata": {"name": NODE, "namespace": "kube-node-lease"}, "spec": {"holderIdentity": NODE}}
        self.assertEqual((await site.ask("PUT", f"{LEASES}/{NODE}?timeout=10s", lease)).status, 201)
        await site.online()
        await until(lambda: len(site.hub.journal) == 0)
        told = (site.api.get("nodes", NODE, "")["status"], site.api.get("pods", "web")["status"]["phase"])
        self.assertEqual((told, site.api.get("events", "e")["reason"]), ((ready["status"], "Running"), "x"))

    async def test_token(self) -> None:
        """
        kubelet gets its pod's last real token without the cloud, and only that.
        """
        site = Site(self)
        site.api.token()
        uid = str(site.api.put("pods", pod("web")).document["metadata"]["uid"])
        await site.start_online()
        path = "/api/v1/namespaces/default/serviceaccounts/default/token"
        bound = {"kind": "Pod", "apiVersion": "v1", "name": "web", "uid": uid}
        body = {"spec": {"audiences": ["https://kubernetes.default.svc"], "expirationSeconds": 3600, "boundObjectRef": bound}}
        online = await site.ask("POST", path, body)
        self.assertEqual((online.status, source(online)), (201, "cloud"))
        await site.offline()
        offline = await site.ask("POST", path, body)
        self.assertEqual((offline.status, offline.json["status"]), (201, online.json["status"]))
        self.assertEqual((await site.ask("POST", path, {"spec": {"audiences": ["other"]}})).status, 503)
