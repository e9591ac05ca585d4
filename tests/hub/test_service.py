"""
Tests of the whole hub as a service: start, stop, reload, servers, and what the admin pages show.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred

from tests.hub.connect_proxy import ConnectProxy
from tests.hub.raw import connect
from tests.hub.site import NODE, USER, Site, config_map, names, pause, pod, reactor, until
from tests.hub.test_reads import MAPS, PODS, HubCase
from tests.miniapi import MiniAPI
from tests.ports import free_port
from yurt.hub import service
from yurt.hub.config import NodeCredentials
from yurt.kube.kubeconfig import load_kubeconfig
from yurt.listening import StartFailed

OWN_PODS = f"/api/v1/pods?fieldSelector=spec.nodeName%3D{NODE}"


class StartTests(HubCase):
    """
    The start.
    """

    async def test_without_the_cloud(self) -> None:
        """
        The hub starts while the cloud is away, serves, and says what it does not know; it finds the cloud when that comes.
        """
        site = Site(self)
        await site.api.refuse()
        site.start()
        self.assert_failure(await site.get(MAPS), 503, "ServiceUnavailable")
        self.assertFalse((await site.status())["cloud"]["reachable"])
        await site.online()
        self.assert_from(await site.get(MAPS), "cloud")

    async def test_taken_port(self) -> None:
        """
        A port that somebody holds ends the start, with a message that names address and reason.
        """
        for setting, what in (("proxy_port", "the proxy"), ("serve_port", "admin pages")):
            with socket.create_server(("127.0.0.1", 0)) as holder:
                site = Site(self)
                port = holder.getsockname()[1]
                failure = self.assertRaises(StartFailed, site.start, **{setting: port})
                for part in (what, f"127.0.0.1:{port}", "in use"):
                    self.assertIn(part, str(failure))

    async def test_no_listeners(self) -> None:
        """
        Each listener is optional.
        """
        site = Site(self)
        site.start(serve_port=0)
        self.assert_from(await site.get("/version"), "cloud")
        await site.restart(serve_port=free_port(), bind_proxy_addresses=())
        self.assertEqual((await site.admin("/v1/healthz")).body, b"OK")

    async def test_ipv6(self) -> None:
        """
        The proxy and the admin pages listen on IPv6 as well, and the node's identity is lent on its loopback.
        """
        site = await self.site_with(bind_proxy_addresses=("127.0.0.1", "::1"), bind_address="::1")
        self.assert_from(await site.get(PODS, address="[::1]"), "cloud")
        self.assertEqual(site.api.seen[-1].user, USER)
        self.assertEqual((await site.admin("/v1/healthz")).body, b"OK")


class StopTests(HubCase):
    """
    The end.
    """

    async def test_drains(self) -> None:
        """
        A stop lets requests in flight end, ends watches in good order, and accepts no more.
        """
        site = await self.site_with(config_map("a"))
        stream = await site.watch(f"{MAPS}?watch=true")
        await stream.next()
        site.api.delay = 0.5
        answer = ensureDeferred(site.get(MAPS))
        await until(lambda: site.hub.in_flight == 1)
        stopped = ensureDeferred(site.stop())
        self.assertEqual((await answer).status, 200)
        self.assertIsNone(await stream.next())
        await stopped
        self.assertEqual(socket.socket().connect_ex(("127.0.0.1", site.config.proxy_port)) != 0, True)

    async def test_watches_end_with_their_connections(self) -> None:
        """
        Watches end when nobody listens any more, and their connections with them: who asks again at once is refused, and does not
        begin a watch that breaks off.
        """
        site = await self.site_with(config_map("a"))
        stream = await site.watch(f"{MAPS}?watch=true")
        await stream.next()
        drain, seen = site.hub.drain, []

        def look() -> None:
            refused = socket.socket().connect_ex(("127.0.0.1", site.config.proxy_port)) != 0
            seen.append((refused, {factory.draining for factory in site.service.doors.factories}))
            drain()

        self.patch(site.hub, "drain", look)
        await site.stop()
        self.assertIsNone(await stream.next())
        self.assertEqual(seen, [(True, {True})])

    async def test_does_not_wait_for_ever(self) -> None:
        """
        When the drain time is over, requests that have no answer yet, waiting for the cloud or in the middle of their upload, are
        told so by a Status.
        """
        self.patch(service, "DRAIN_TIMEOUT", 0.2)
        site = await self.site_with()
        site.api.delay = 3600.0
        upload = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n" % MAPS.encode() + bytes(500_000)
        clients = [connect(site, data) for data in (b"GET /api/v1/pods HTTP/1.1\r\nHost: x\r\n\r\n", upload)]
        await until(lambda: site.hub.in_flight == 2)
        await site.stop()
        for client in clients:
            await client.lost
            head, _, body = bytes(client.received).partition(b"\r\n\r\n")
            self.assertTrue(head.startswith(b"HTTP/1.1 503 "), head)
            self.assertIn(b"\r\nConnection: close", head)
            self.assertIn(b"\r\nX-Yurt-Source: hub", head)
            self.assertEqual(json.loads(body)["reason"], "ServiceUnavailable")

    async def test_what_was_read_is_on_disk(self) -> None:
        """
        What a client read last before the stop is there after it.
        """
        site = await self.site_with(config_map("a"))
        await site.get(MAPS)
        await site.stop()
        await site.api.refuse()
        site.start()
        self.assertEqual(names(await site.get(MAPS)), ["a"])


class ReloadTests(HubCase):
    """
    New credentials without a restart.
    """

    async def test_certificate_file(self) -> None:
        """
        A client certificate that was replaced on disk is used by new connections, without a signal; those open stay.
        """
        site = await self.site_with(config_map("a"))
        stream = await site.watch(f"{MAPS}?watch=true")
        await stream.next()
        site.write_credentials("system:node:renewed")
        await self.until_user(site, "system:node:renewed")
        self.assertEqual(len(site.hub.watches), 1)
        site.api.put("configmaps", config_map("b"))
        event: Any = await stream.next()
        self.assertEqual(event["object"]["metadata"]["name"], "b")

    async def until_user(self, site: Site, user: str) -> None:
        """
        Ask in parallel, which needs new connections, until the cloud sees ``user``.
        """
        for _ in range(500):
            await Deferred.fromCoroutine(self.burst(site))
            if site.api.seen[-1].user == user:
                return
            await pause(0.02)
        self.fail(f"the cloud never saw {user}")

    async def burst(self, site: Site) -> None:
        """
        Several requests at once.
        """
        waiting = [ensureDeferred(site.get(PODS, agent="somebody")) for _ in range(5)]
        for one in waiting:
            await one

    async def test_hangup(self) -> None:
        """
        SIGHUP reads the kubeconfig again.
        """
        site = Site(self)
        path = site.api.write_kubeconfig(site.folder / "kubelet.conf", USER, "system:nodes")
        credentials = NodeCredentials.of_kubeconfig(load_kubeconfig(path))
        await site.start_online(credentials=credentials, kubeconfig=path)
        site.api.write_kubeconfig(path, "system:node:other", "system:nodes")
        os.kill(os.getpid(), signal.SIGHUP)
        await self.until_user(site, "system:node:other")
        self.assertTrue([line for line in site.log if "credentials were read again" in line])

    async def test_bad_kubeconfig(self) -> None:
        """
        A kubeconfig that cannot be read leaves the credentials as they were, and an error in the log.
        """
        site = Site(self)
        path = site.api.write_kubeconfig(site.folder / "kubelet.conf", USER, "system:nodes")
        credentials = NodeCredentials.of_kubeconfig(load_kubeconfig(path))
        await site.start_online(credentials=credentials, kubeconfig=path)
        for text in ("{", "kind: Config", Path(path).read_text().replace("certificate-authority-data", "x")):
            Path(path).write_text(text)
            site.service.reload()
            self.assertIn("credentials stay as they were", site.log[-1])
        self.assert_from(await site.get(PODS), "cloud")


class ServersTests(HubCase):
    """
    Several API servers, and the way to them.
    """

    async def two(self, **settings: Any) -> tuple[Site, MiniAPI]:
        """
        A site with two servers, of the same authority.
        """
        site = Site(self)
        second = MiniAPI(reactor, ca=site.api.ca)
        second.start()
        self.addCleanup(second.stop)
        await site.start_online(servers=(site.api.url, second.url), **settings)
        await until(lambda: all(server.healthy for server in site.service.cloud.servers))
        return site, second

    async def test_in_turn(self) -> None:
        """
        --lb-mode rr uses all that are alive.
        """
        site, second = await self.two(lb_mode="rr")
        for _ in range(6):
            await until(lambda: all(map(site.service.cloud.trusts, site.service.cloud.servers)))  # a slow machine causes doubts
            self.assert_from(await site.get(PODS, agent="curl"), "cloud")
        self.assertGreater(min(site.api.count("list", "pods"), second.count("list", "pods")), 1)

    async def test_priority(self) -> None:
        """
        --lb-mode priority uses the first as long as it is alive, then the next, and the first again.
        """
        site, second = await self.two(lb_mode="priority")
        for _ in range(3):
            await site.get(PODS, agent="curl")
        self.assertEqual((site.api.count("list", "pods"), second.count("list", "pods")), (3, 0))
        await site.api.refuse()
        for _ in range(3):
            self.assert_from(await site.get(PODS, agent="curl"), "cloud")
        self.assertEqual(second.count("list", "pods"), 3)
        site.api.heal()
        await until(lambda: site.service.cloud.pick() is site.service.cloud.servers[0])
        await site.get(PODS, agent="curl")
        self.assertEqual(site.api.count("list", "pods"), 4)

    async def test_one_dead(self) -> None:
        """
        One dead server of two: no request fails, not even one with a body, and the hub stays online.
        """
        site, second = await self.two()
        await site.api.refuse()
        for number in range(6):
            self.assert_from(await site.get(PODS, agent="curl"), "cloud")
            self.assert_from(await site.ask("POST", MAPS, config_map(f"m{number}"), agent="curl"), "cloud", 201)
        self.assertEqual(second.count("create", "configmaps"), 6)
        self.assertTrue(site.service.cloud.reachable)
        servers = {one["url"]: one["healthy"] for one in (await site.status())["cloud"]["servers"]}
        self.assertEqual(servers, {site.api.url: False, second.url: True})

    async def test_one_dead_from_the_start(self) -> None:
        """
        A server that never lived keeps nobody waiting.
        """
        site = Site(self)
        await site.start_online(servers=(f"https://127.0.0.1:{free_port()}", site.api.url))
        for _ in range(4):
            self.assert_from(await site.get(PODS), "cloud")

    async def test_one_silent(self) -> None:
        """
        One of two falls silent: those who wait for it get their answer of the other one, as do all who come later.
        """
        site, second = await self.two(lb_mode="priority")
        second.put("configmaps", config_map("of-the-second"))
        await site.get(MAPS)
        site.api.cut()
        waiting = [ensureDeferred(site.get(MAPS, agent=agent)) for agent in ("kubelet", "curl")]
        for one in waiting:
            reply = await one
            self.assert_from(reply, "cloud")
            self.assertEqual(names(reply), ["of-the-second"])
        self.assert_from(await site.get(MAPS), "cloud")

    async def test_both_silent(self) -> None:
        """
        Both fall silent: the cache answers as soon as with one.
        """
        site, second = await self.two()
        await site.get(MAPS)
        site.api.cut()
        second.cut()
        self.assert_from(await site.get(MAPS), "cache")
        self.assertFalse(site.service.cloud.reachable)

    async def test_base_path(self) -> None:
        """
        A server behind a path, as Rancher has them: everything is asked for below it, and cached as without it.
        """
        site = Site(self)
        path = f"/k8s/clusters/c1{MAPS}"
        body = b'{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[]}'
        site.api.scripted.update({path: (200, "application/json", body), "/k8s/clusters/c1/readyz": (200, "text/plain", b"ok")})
        await site.start_online(servers=(f"{site.api.url}/k8s/clusters/c1",))
        self.assert_from(await site.get(MAPS), "cloud")
        self.assertEqual({seen.path for seen in site.api.seen if "configmaps" in seen.path}, {path})
        await site.offline()
        self.assert_from(await site.get(MAPS), "cache")

    async def test_proxy(self) -> None:
        """
        HTTPS_PROXY is used for names and for addresses off this machine, with TLS to the API server through it.
        """
        site = Site(self)
        proxy = ConnectProxy(int(site.api.address.rpartition(":")[2]))
        listening = reactor.listenTCP(0, proxy, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        self.patch(os, "environ", {**os.environ, "HTTPS_PROXY": f"http://127.0.0.1:{listening.getHost().port}", "NO_PROXY": ""})
        await site.start_online(servers=("https://kubernetes:6443",))
        self.assert_from(await site.get(PODS), "cloud")
        self.assertEqual(site.api.seen[-1].user, USER)
        self.assertEqual(set(proxy.targets), {"kubernetes:6443"})
        await site.stop()


class AdminTests(HubCase):
    """
    What the admin pages show of a whole hub.
    """

    async def test_ready(self) -> None:
        """
        A hub that serves is ready, with the cloud or without.
        """
        site = await self.site_with()
        self.assertEqual((await site.admin("/v1/readyz")).json, {"ready": True, "reasons": [], "warnings": []})
        await site.offline()
        self.assertEqual((await site.admin("/v1/readyz")).status, 200)

    async def test_broken_disk(self) -> None:
        """
        Without a disk the hub goes on proxying, and readiness, status, metrics and log say what is wrong.
        """
        site = Site(self)
        site.api.put("configmaps", config_map("a"))
        blocked = site.folder / "blocked"
        blocked.write_text("no folder")
        await site.start_online(disk_cache_path=str(blocked / "cache"))
        self.assert_from(await site.get(MAPS), "cloud")
        ready = await site.admin("/v1/readyz")
        self.assertEqual((ready.status, ready.json["ready"]), (503, False))
        self.assertIn(str(blocked), ready.json["reasons"][0])
        self.assertTrue((await site.status())["cache"]["problem"])
        self.assertTrue([line for line in site.log if str(blocked) in line])
        await site.offline()
        self.assert_from(await site.get(MAPS), "cache")

    async def test_status(self) -> None:
        """
        The status page tells servers, listeners, views, journal, and whether the cloud is there and why not.
        """
        site = await self.site_with(config_map("a"))
        await site.get(MAPS)
        status = await site.status()
        self.assertEqual((status["node"], status["cloud"]["reachable"], status["cloud"]["reason"]), (NODE, True, ""))
        self.assertEqual(status["cloud"]["servers"], [{"url": site.api.url, "healthy": True, "trusted": True, "reason": ""}])
        self.assertTrue(all(listener["listening"] for listener in status["listeners"]))
        (view,) = status["views"]
        self.assertEqual((view["component"], view["identity"], view["resource"]), ("kubelet", "node", "/v1/configmaps"))
        self.assertEqual((view["complete"], view["objects"], status["cache"]["objects"]), (True, 1, 1))
        self.assertGreater(status["cache"]["bytes"], 100)
        self.assertEqual(view["bytes"], status["cache"]["bytes"])
        await site.get(f"{MAPS}/a")
        await site.get("/api/v1/namespaces/other/configmaps")
        measured = {(one["namespace"], one["single"]): one["bytes"] for one in (await site.status())["views"]}
        self.assertEqual(measured, {("default", False): view["bytes"], ("", True): view["bytes"], ("other", False): 0})
        self.assertEqual(status["journal"]["length"], 0)
        await site.offline()
        cloud = (await site.status())["cloud"]
        self.assertFalse(cloud["reachable"])
        self.assertIn("refused", cloud["reason"])

    async def test_pods(self) -> None:
        """
        /pods is the PodList that kubelet last got, online and offline; 503 before there was one.
        """
        site = await self.site_with(pod("a"), pod("b", node="n2"), resource="pods")
        self.assertEqual((await site.admin("/pods")).status, 503)
        await site.get(f"{OWN_PODS}&limit=500&resourceVersion=0")
        for outage in (None, site.offline):
            if outage is not None:
                await outage()
            reply = await site.admin("/pods")
            self.assertEqual((reply.status, reply.json["kind"], names(reply)), (200, "PodList", ["a"]))

    async def test_metrics(self) -> None:
        """
        The metrics count what came from where.
        """
        site = await self.site_with(config_map("a"))
        await site.get(MAPS)
        await site.offline()
        await site.get(MAPS)
        await site.get(PODS)
        text = (await site.admin("/metrics")).body.decode()
        for line in ("node_yurthub_cache_objects 1.0", "node_yurthub_journal_length 0.0"):
            self.assertIn(line, text)
        self.assertRegex(text, r"node_yurthub_\w*hits\w*{[^}]*kubelet[^}]*} 1.0")
        self.assertRegex(text, r"node_yurthub_\w*misses\w*{[^}]*kubelet[^}]*} 1.0")
