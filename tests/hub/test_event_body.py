"""
Tests of reading Events in both forms.
"""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from yurt.hub.event_body import EventError, read_event
from yurt.kube.protobuf import MAGIC, encode_bytes


def number(field: int, value: int) -> bytes:
    """
    A field with a small number, or one of five bytes.
    """
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([field << 3, *encoded, value])


def texts(**named: str) -> bytes:
    """
    String fields by number: ``f3="x"``.
    """
    return b"".join(encode_bytes(int(name[1:]), value.encode()) for name, value in named.items())


def envelope(api_version: str, raw: bytes, kind: str = "Event") -> bytes:
    """
    An object as it travels.
    """
    return MAGIC + encode_bytes(1, texts(f1=api_version, f2=kind)) + encode_bytes(2, raw)


class EventBodyTests(SynchronousTestCase):
    """
    Tests of read_event.
    """

    def test_core(self) -> None:
        """
        An Event as kubelet sends it; empty strings, times and counts are left out.
        """
        meta = encode_bytes(1, texts(f1="web.1", f2="", f3="default", f5="") + encode_bytes(8, b""))
        involved = encode_bytes(2, texts(f1="Pod", f2="default", f3="web", f4="u", f5="v1", f6="", f7="spec.containers{main}"))
        times = encode_bytes(6, number(1, 1_767_225_600) + number(2, 0)) + encode_bytes(7, number(1, 1_767_225_660))
        raw = meta + involved + texts(f3="Started", f4="Started main") + encode_bytes(5, texts(f1="kubelet", f2="n1")) + times
        raw += number(8, 3) + texts(f9="Normal") + encode_bytes(10, b"") + texts(f12="", f14="", f15="")
        self.assertEqual(
            read_event(envelope("v1", raw)),
            {
                "kind": "Event",
                "apiVersion": "v1",
                "metadata": {"name": "web.1", "namespace": "default"},
                "involvedObject": {
                    "kind": "Pod", "namespace": "default", "name": "web", "uid": "u", "apiVersion": "v1",
                    "fieldPath": "spec.containers{main}",
                },
                "reason": "Started",
                "message": "Started main",
                "source": {"component": "kubelet", "host": "n1"},
                "firstTimestamp": "2026-01-01T00:00:00Z",
                "lastTimestamp": "2026-01-01T00:01:00Z",
                "count": 3,
                "type": "Normal",
            },
        )  # fmt: skip

    def test_series(self) -> None:
        """
        An Event of the newer group, in a series.
        """
        moment = number(1, 1_767_225_600) + number(2, 250_000_000)
        raw = encode_bytes(1, texts(f1="e", f3="default")) + encode_bytes(2, moment)
        raw += encode_bytes(3, number(1, 2) + encode_bytes(2, moment)) + texts(f4="kube-proxy", f7="Starting", f10="a note")
        raw += encode_bytes(8, texts(f1="Node", f3="n1")) + number(15, 0)
        event = read_event(envelope("events.k8s.io/v1", raw))
        self.assertEqual(event["series"], {"count": 2, "lastObservedTime": "2026-01-01T00:00:00.250000Z"})
        self.assertNotIn("deprecatedCount", event)
        self.assertEqual((event["note"], event["regarding"]), ("a note", {"kind": "Node", "name": "n1"}))

    def test_json(self) -> None:
        """
        JSON is taken as it is.
        """
        event = {"kind": "Event", "metadata": {"name": "e"}, "unknown": [1]}
        self.assertEqual(read_event(json.dumps(event).encode()), event)

    def test_others(self) -> None:
        """
        What is no Event of a version known here is told from one.
        """
        whole = envelope("v1", encode_bytes(1, texts(f1="e")))
        bad_text = envelope("v1", encode_bytes(3, b"\xff"))
        for body in (b"", b"[]", b"{", envelope("v2", b""), envelope("v1", b"", "Pod"), whole[:-1], bad_text):
            with self.assertRaises(EventError, msg=body):
                read_event(body)
