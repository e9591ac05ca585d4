"""
The contract for watches.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from .client import Stream
from .subjects import Contract, OnMini, OnReal, a_pod
from .test_lists import PARTIAL, TABLE


class WatchContract(Contract):
    """
    What holds of watches.
    """

    forget_history: Any

    async def version(self, path: str) -> str:
        """
        The resourceVersion of a list of now.
        """
        version: str = (await self.admin.ask("GET", path)).json["metadata"]["resourceVersion"]
        return version

    async def watch(self, path: str, **headers: str) -> Stream:
        stream = await self.admin.watch(path, **headers)
        return stream

    async def events(self, stream: Stream, count: int) -> list[tuple[str, str]]:
        """
        The type and name of the next events.
        """
        found = []
        for _ in range(count):
            event = await stream.next()
            found.append((event["type"], event["object"]["metadata"]["name"]) if event else ("", ""))
        return found

    async def test_follow(self) -> None:
        """
        A watch from a list's resourceVersion brings what happens after it, in order; a deletion brings the last state, with
        the deletion's own resourceVersion.
        """
        path = f"{await self.namespace()}/secrets"
        await self.create(path, "before")
        stream = await self.watch(f"{path}?watch=true&resourceVersion={await self.version(path)}")
        made = await self.create(path, "one")
        await self.admin.ask("PUT", f"{path}/one", {**made, "type": made["type"], "data": {"a": "Yg=="}})
        await self.admin.ask("DELETE", f"{path}/one")
        events = [await stream.next() for _ in range(3)]
        self.assertEqual([event["type"] for event in events if event], ["ADDED", "MODIFIED", "DELETED"])
        versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events if event]
        self.assertEqual(versions, sorted(set(versions)))
        self.assertEqual(
            {(event["object"]["kind"], event["object"]["apiVersion"]) for event in events if event}, {("Secret", "v1")}
        )

    async def test_begin_with_what_is(self) -> None:
        """
        A watch that names no resourceVersion, or 0, begins with what exists.
        """
        path = f"{await self.namespace()}/secrets"
        await self.create(path, "one")
        await self.create(path, "two")
        await self.version(f"{path}?resourceVersion={await self.version(path)}")
        for query in ("watch=1", "watch=true&resourceVersion=0"):
            stream = await self.watch(f"{path}?{query}")
            self.assertEqual(sorted(await self.events(stream, 2)), [("ADDED", "one"), ("ADDED", "two")], query)

    async def test_resume(self) -> None:
        """
        A watch from an earlier resourceVersion brings each event since, once.
        """
        path = f"{await self.namespace()}/secrets"
        version = await self.version(path)
        await self.create(path, "one")
        middle = (await self.create(path, "two"))["metadata"]["resourceVersion"]
        await self.admin.ask("DELETE", f"{path}/one")
        stream = await self.watch(f"{path}?watch=true&resourceVersion={version}")
        self.assertEqual(await self.events(stream, 3), [("ADDED", "one"), ("ADDED", "two"), ("DELETED", "one")])
        stream = await self.watch(f"{path}?watch=true&resourceVersion={middle}")
        self.assertEqual(await self.events(stream, 1), [("DELETED", "one")])

    async def test_selectors(self) -> None:
        """
        An object that enters the selection is ADDED, one that leaves it is DELETED.
        """
        path = f"{await self.namespace()}/secrets"
        stream = await self.watch(f"{path}?watch=true&resourceVersion={await self.version(path)}&labelSelector=a%3Db")
        await self.create(path, "never")
        await self.create(path, "one")
        for labels in ({"a": "b"}, {"a": "b", "c": "d"}, {"a": "x"}):
            reply = await self.admin.ask(
                "PATCH", f"{path}/one", {"metadata": {"labels": labels}}, content_type="application/merge-patch+json"
            )
            self.assertEqual(reply.status, 200)
        self.assertEqual(await self.events(stream, 3), [("ADDED", "one"), ("MODIFIED", "one"), ("DELETED", "one")])

    async def test_one_object(self) -> None:
        """
        A name is watched by a field selector, or by the old path.
        """
        path = f"{await self.namespace()}/secrets"
        version = await self.version(path)
        streams = [
            await self.watch(f"{path}?watch=true&resourceVersion={version}&fieldSelector=metadata.name%3Dtwo"),
            await self.watch(f"{path.replace('/api/v1', '/api/v1/watch')}/two?resourceVersion={version}"),
        ]
        await self.create(path, "one")
        await self.create(path, "two")
        for stream in streams:
            self.assertEqual(await self.events(stream, 1), [("ADDED", "two")])

    async def test_pods_of_a_node(self) -> None:
        """
        The watch of a kubelet sees a pod's birth, the mark of its deletion, the end of its grace, and its end.
        """
        path = f"{await self.namespace()}/pods"
        stream = await self.watch(
            f"{path}?watch=true&resourceVersion={await self.version(path)}&fieldSelector={quote('spec.nodeName=here')}"
        )
        await self.create(path, "there", **a_pod(nodeName="there"))
        await self.create(path, "one", **a_pod(nodeName="here"))
        await self.admin.ask("DELETE", f"{path}/one")
        await self.admin.ask("DELETE", f"{path}/one?gracePeriodSeconds=0")
        seen = await self.events(stream, 4)
        self.assertEqual(seen, [("ADDED", "one"), ("MODIFIED", "one"), ("MODIFIED", "one"), ("DELETED", "one")])

    async def test_version_of_the_past(self) -> None:
        """
        From a resourceVersion that is forgotten the watch brings one ERROR with a Status of 410 and ends.
        """
        path = f"{await self.namespace()}/secrets"
        version = (await self.create(path, "one"))["metadata"]["resourceVersion"]
        await self.create(path, "two")
        await self.create(path, "three")
        await self.forget_history()
        stream = await self.watch(f"{path}?watch=true&resourceVersion={version}")
        event = await stream.next()
        assert event is not None
        status = event["object"]
        self.assertEqual((event["type"], status["kind"], status["code"], status["reason"]), ("ERROR", "Status", 410, "Expired"))
        self.assertIn("too old resource version", status["message"])
        self.assertEqual(await stream.next(), None)

    async def test_bookmark_and_timeout(self) -> None:
        """
        A watch ends in good order after timeoutSeconds; before that who asked for bookmarks gets one.
        """
        path = f"{await self.namespace()}/secrets"
        version = await self.version(path)
        plain = await self.watch(f"{path}?watch=true&timeoutSeconds=6&resourceVersion={version}")
        marked = await self.watch(f"{path}?watch=true&timeoutSeconds=6&allowWatchBookmarks=true&resourceVersion={version}")
        made = await self.create(path, "one")
        self.assertEqual(await self.events(plain, 2), [("ADDED", "one"), ("", "")])
        self.assertEqual(await self.events(marked, 1), [("ADDED", "one")])
        event = await marked.next()
        while event is not None:
            last, event = event, await marked.next()
        self.assertEqual((last["type"], last["object"]["kind"], last["object"]["apiVersion"]), ("BOOKMARK", "Secret", "v1"))
        self.assertTrue(int(last["object"]["metadata"]["resourceVersion"]) >= int(made["metadata"]["resourceVersion"]))

    async def test_table(self) -> None:
        """
        A watch of Tables brings one row an event.
        """
        path = f"{await self.namespace()}/secrets"
        stream = await self.watch(f"{path}?watch=true&resourceVersion={await self.version(path)}", accept=TABLE)
        await self.create(path, "one")
        await self.create(path, "two")
        events = [await stream.next() for _ in range(2)]
        for event, name in zip(events, ("one", "two")):
            assert event is not None
            table = event["object"]
            self.assertEqual(
                (event["type"], table["kind"], len(table["rows"]), table["rows"][0]["cells"][0]), ("ADDED", "Table", 1, name)
            )
            self.assertEqual(table["rows"][0]["object"]["metadata"]["name"], name)
        self.assertEqual([bool(event["object"].get("columnDefinitions")) for event in events if event], [True, False])

    async def test_partial_metadata(self) -> None:
        """
        A watch of metadata brings metadata.
        """
        path = f"{await self.namespace()}/secrets"
        stream = await self.watch(f"{path}?watch=true&resourceVersion={await self.version(path)}", accept=PARTIAL)
        await self.create(path, "one")
        event = await stream.next()
        assert event is not None
        self.assertEqual(
            (event["object"]["kind"], event["object"]["metadata"]["name"], "type" in event["object"]),
            ("PartialObjectMetadata", "one", False),
        )

    async def test_bad_watches(self) -> None:
        """
        A bad selector is a bad request, before anything is streamed.
        """
        path = f"{await self.namespace()}/secrets"
        self.assert_status(
            await self.admin.ask("GET", f"{path}?watch=true&fieldSelector=no.such%3Dx"),
            400,
            "BadRequest",
            "field label not supported",
        )


class MiniWatchTests(WatchContract, OnMini):
    """
    The miniature apiserver keeps the contract.
    """

    async def test_streamed_list(self) -> None:
        """
        sendInitialEvents (which Kubernetes knows since 1.27, so the real one here does not): what exists, then a bookmark that
        says so, then what happens.
        """
        path = f"{await self.namespace()}/secrets"
        await self.create(path, "one")
        query = "watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
        stream = await self.watch(f"{path}?{query}&resourceVersion=")
        self.assertEqual(await self.events(stream, 1), [("ADDED", "one")])
        event = await stream.next()
        assert event is not None
        self.assertEqual(
            (event["type"], event["object"]["metadata"]["annotations"]), ("BOOKMARK", {"k8s.io/initial-events-end": "true"})
        )
        await self.create(path, "two")
        self.assertEqual(await self.events(stream, 1), [("ADDED", "two")])
        self.assert_status(await self.admin.ask("GET", f"{path}?watch=true&sendInitialEvents=true"), 422, "Invalid")

    async def test_bounded_window(self) -> None:
        """
        The window of events is bounded: what fell out of it cannot be resumed from.
        """
        path = f"{await self.namespace()}/secrets"
        version = await self.version(path)
        for number in range(1_001):
            self.api.put("secrets", {"metadata": {"name": f"n{number}"}})
        stream = await self.watch(f"{path}?watch=true&resourceVersion={version}")
        event = await stream.next()
        assert event is not None
        self.assertEqual((event["type"], event["object"]["code"]), ("ERROR", 410))


class RealWatchTests(WatchContract, OnReal):
    """
    The real one does.
    """
