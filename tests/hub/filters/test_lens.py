"""
Tests for ``yurt.hub.filters.lens``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.filters.fixtures import HERE, endpoint_slice, service
from yurt.hub.filters.choice import ORDER
from yurt.hub.filters.discardcloudservice import DISCARD, DISCARD_CLOUD_SERVICE
from yurt.hub.filters.facts import Facts
from yurt.hub.filters.lens import CLEAR, at_version, make_lens, show_list, show_object
from yurt.hub.filters.masterservice import MASTER_SERVICE
from yurt.hub.filters.nodeportisolation import LISTEN
from yurt.hub.filters.servicetopology import SERVICE_TOPOLOGY
from yurt.kube.objects import ObjectError, exhaust

FACTS = replace(HERE, topology={"default/web": "kubernetes.io/hostname"}, pool="", pool_nodes=None)

ODD: tuple[object, ...] = (None, 0, "", "x", True, [], [None], [[]], {}, {"a": None})


def with_one_changed(document: Any, value: object) -> Iterator[Any]:
    """
    The document with that value in the place of each of its parts, one after the other.
    """
    yield value
    keys: Any = document if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    for key in keys:
        for changed in with_one_changed(document[key], value):
            copy = document.copy()
            copy[key] = changed
            yield copy


class LensTests(SynchronousTestCase):
    """
    Tests of filters in a row.
    """

    def test_inactive(self) -> None:
        """
        Filters that change nothing under the facts are left out.
        """
        self.assertEqual(make_lens((MASTER_SERVICE, SERVICE_TOPOLOGY), Facts("n1")).rules, ())
        self.assertTrue(make_lens((MASTER_SERVICE,), Facts("n1")).same(CLEAR))

    def test_same(self) -> None:
        """
        Lenses show the same when their filters and the facts that these look at are the same, whatever else is known.
        """
        lens = make_lens(ORDER, FACTS)
        self.assertTrue(lens.same(make_lens(ORDER, replace(FACTS, topology=dict(FACTS.topology or {})))))
        self.assertFalse(lens.same(make_lens(ORDER, replace(FACTS, topology={"default/db": "kubernetes.io/hostname"}))))
        self.assertFalse(lens.same(make_lens(ORDER[1:], FACTS)))
        topology = make_lens((MASTER_SERVICE,), FACTS)
        self.assertTrue(topology.same(make_lens((MASTER_SERVICE,), replace(FACTS, pool="p"))))

    def test_unreadable(self) -> None:
        """
        What cannot be read is shown as it is, and so is what a filter stumbles over, which is logged.
        """
        lens = make_lens(ORDER, FACTS)
        for body in (b"", b"7", b'{"metadata":7}', b'{"metadata":{"labels":[]}}', b'{"metadata":{"name":"\xff"}}'):
            self.assertIs(lens.apply(body), body)

        def stumble(*_: object) -> Any:
            raise KeyError("x")

        body = json.dumps(service("kubernetes")).encode()
        self.assertIs(make_lens((replace(MASTER_SERVICE, apply=stumble),), FACTS).apply(body), body)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_odd_values(self) -> None:
        """
        No filter stumbles over a value of another type than it looks for, wherever that stands.
        """
        lens = make_lens(ORDER, replace(FACTS, pool="p", host_network=True))
        for name, namespace in (("web", "default"), ("kubernetes", "default"), ("kube-proxy", "kube-system")):
            document = {**endpoint_slice("web", "n2"), **service(name, namespace, annotations={LISTEN: "-p", DISCARD: "true"})}
            document["spec"] = {
                "type": "LoadBalancer",
                "ports": [{"name": "https", "port": 443}],
                "containers": [{"env": [{"name": "KUBERNETES_SERVICE_HOST", "value": "x"}]}],
            }
            document |= {"subsets": [{"addresses": [{"nodeName": "n2"}]}], "data": {"config.conf": "kubeconfig: x"}}
            document["metadata"]["labels"] = {"kubernetes.io/service-name": name}
            for odd in ODD:
                for changed in with_one_changed(document, odd):
                    lens.apply(json.dumps(changed).encode())

    def test_list_in_steps(self) -> None:
        """
        A long list is shown with pauses between its steps, and hidden objects are named.
        """
        items = [service(f"s{number}") for number in range(5)]
        items[3] = service("x-tunnel-server-internal-svc", "kube-system")
        body = json.dumps(
            {"kind": "ServiceList", "apiVersion": "v1", "metadata": {"resourceVersion": "9"}, "items": items}
        ).encode()
        lens = make_lens((DISCARD_CLOUD_SERVICE,), FACTS)
        steps = show_list(body, lambda version: lens, 2)
        self.assertEqual((next(steps), next(steps)), (None, None))
        shown = exhaust(show_list(body, lambda version: lens, 2))
        self.assertEqual((shown.resource_version, shown.hidden), ("9", frozenset({"kube-system/x-tunnel-server-internal-svc"})))
        self.assertEqual(len(json.loads(shown.body)["items"]), 4)

    def test_all_hidden(self) -> None:
        """
        A list all of whose items are hidden is an empty list.
        """
        items = [service("x-tunnel-server-internal-svc", "kube-system")]
        body = json.dumps({"kind": "ServiceList", "apiVersion": "v1", "metadata": {}, "items": items}).encode()
        shown = exhaust(show_list(body, lambda version: make_lens((DISCARD_CLOUD_SERVICE,), FACTS), 500))
        self.assertEqual(json.loads(shown.body)["items"], [])

    def test_no_items(self) -> None:
        """
        A list whose items are null, as Go writes an empty one, is shown as it is; what is no list is refused.
        """
        lens = make_lens((DISCARD_CLOUD_SERVICE,), FACTS)
        body = b'{"kind":"ServiceList","metadata":{"resourceVersion":"1"},"items":null}'
        self.assertIs(exhaust(show_list(body, lambda version: lens, 500)).body, body)
        for wrong in (b"", b"[]", b'{"items":7}', b'{"metadata":7}'):
            self.assertRaises(ObjectError, lambda wrong=wrong: exhaust(show_list(wrong, lambda version: lens, 500)))

    def test_objects(self) -> None:
        """
        A GET's answer is shown through the lens unless it is a Status, or a form without the fields that filters look at.
        """
        lens = make_lens((SERVICE_TOPOLOGY,), FACTS)
        body = json.dumps(endpoint_slice("web", "n2")).encode()
        self.assertEqual(json.loads(show_object(body, lens) or b"")["endpoints"], [])
        for kind in ("Table", "PartialObjectMetadata", "Status"):
            other = json.dumps({**endpoint_slice("web", "n2"), "kind": kind}).encode()
            self.assertIs(show_object(other, lens), other)
        self.assertEqual(show_object(b"{", lens), b"{")

    def test_version(self) -> None:
        """
        An object can be told under another version, without touching anything else.
        """
        document = service()
        document["metadata"]["resourceVersion"] = "42"
        self.assertEqual(json.loads(at_version(json.dumps(service()).encode(), "42")), document)
