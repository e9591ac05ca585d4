"""
Tests for :mod:`yurt.kube.watch` and :mod:`yurt.kube.protobuf`.

The captured frames are those of kube-apiserver 1.20.2.
"""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from yurt.kube.objects import PARTIAL, TABLE, Meta
from yurt.kube.status import status_body
from yurt.kube.watch import (
    MAX_REMEMBERED_BYTES,
    MAX_REMEMBERED_FRAME,
    EventReader,
    FrameTooLarge,
    JSONFramer,
    ProtobufFramer,
    WatchError,
    WatchEvent,
    encode_bookmark,
    encode_error,
    encode_event,
    encode_protobuf_bookmark,
    read_event,
    read_protobuf_event,
)

UID = "6af86007-b163-43c0-9b6a-3c99a08e1e71"
CONFIG_MAP = (
    b'{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"cm1","namespace":"default","uid":"%b",'
    b'"resourceVersion":"204","labels":{"app":"a1"}},"data":{"k":"w\\n","odd":"}{\\"type\\":"}}' % UID.encode()
)
PARTIAL_CONFIG_MAP = CONFIG_MAP.replace(b'"ConfigMap"', b'"PartialObjectMetadata"').replace(b'"v1"', b'"meta.k8s.io/v1"')
ROW = b'{"cells":["cm1",1,"1s"],"object":%b}' % PARTIAL_CONFIG_MAP
TABLE_HEAD = (
    b'{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"205"},"columnDefinitions":null,"rows":['
)
META = Meta("default", "cm1", "204", UID)

MODIFIED_FRAME = bytes.fromhex(
    "0a084d4f44494649454412f7010af4016b3873000a0f0a0276311209436f6e6669674d617012d8010acd010a03636d3112001a07"
    "64656661756c7422002a2436616638363030372d623136332d343363302d396236612d3363393961303865316537313203323034"
    "3800420808a78d8ed80610005a090a03617070120261317a008a01740a046375726c12065570646174651a027631220808a78d8e"
    "d806100032084669656c647356313a4c0a4a7b22663a64617461223a7b222e223a7b7d2c22663a6b223a7b7d7d2c22663a6d6574"
    "6164617461223a7b22663a6c6162656c73223a7b222e223a7b7d2c22663a617070223a7b7d7d7d7d12060a016b1201771a002200"
)
BOOKMARK_FRAME = bytes.fromhex(
    "0a08424f4f4b4d41524b12340a326b3873000a0f0a0276311209436f6e6669674d617012170a150a0012001a0022002a00320332"
    "3035380042007a001a002200"
)
ERROR_FRAME = bytes.fromhex(
    "0a054552524f52125a0a586b3873000a0c0a027631120653746174757312400a060a0012001a0012074661696c7572651a21746f"
    "6f206f6c64207265736f757263652076657273696f6e3a2031202832313429220745787069726564309a031a002200"
)


def in_frames(*frames: bytes) -> bytes:
    """
    A protobuf watch of these events.
    """
    return b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)


class JSONFramerTests(SynchronousTestCase):
    """
    JSON watches come apart into events.
    """

    frames = [encode_event(kind, CONFIG_MAP)[:-1] for kind in ("ADDED", "MODIFIED", "DELETED")]

    def test_lines(self) -> None:
        """
        Each line is an event; blank lines are none.
        """
        stream = b"\n" + b"\n".join(self.frames) + b"\r\n\n"
        self.assertEqual(JSONFramer().feed(stream), self.frames)

    @given(st.lists(st.integers(0, 900), max_size=12), st.sampled_from([b"\n", b"", b"\r\n", b" \n"]))
    def test_any_split(self, cuts: list[int], border: bytes) -> None:
        """
        However the stream is cut, and whether or not a newline stands between events, the same events come out.
        """
        stream = b"".join(frame + border for frame in self.frames)
        edges = [0, *sorted(cut % len(stream) for cut in cuts), len(stream)]
        framer = JSONFramer()
        found = [frame for start, end in zip(edges, edges[1:]) for frame in framer.feed(stream[start:end])]
        self.assertEqual(found, self.frames)

    def test_byte_by_byte(self) -> None:
        """
        An event is there with its last byte, before the newline.
        """
        framer = JSONFramer()
        for frame in self.frames:
            counts = [len(framer.feed(frame[at : at + 1])) for at in range(len(frame))]
            self.assertEqual(counts, [0] * (len(frame) - 1) + [1])
            self.assertEqual(framer.feed(b"\n"), [])

    def test_too_large(self) -> None:
        """
        An event beyond the limit ends it, even when it comes in small pieces; many events within it do not.
        """
        framer = JSONFramer(limit=100)
        for _ in range(100):
            framer.feed(b'{"type":"ADDED"}\n')
        with self.assertRaises(FrameTooLarge):
            for _ in range(101):
                framer.feed(b"x")


class EventReaderTests(SynchronousTestCase):
    """
    The events of many watches.
    """

    def test_read_once(self) -> None:
        """
        The same bytes give the same value, other bytes another; what is no event fails each time.
        """
        reader = EventReader()
        first, second = (encode_event(kind, CONFIG_MAP) for kind in ("ADDED", "DELETED"))
        event = reader.read(first)
        self.assertEqual(event, read_event(first))
        self.assertEqual(reader.read(second), read_event(second))
        self.assertIs(reader.read(bytes(bytearray(first))), event)
        for _ in range(2):
            with self.assertRaises(WatchError):
                reader.read(b"{")

    def test_bounded(self) -> None:
        """
        The oldest are forgotten beyond a number of bytes, and long ones are not remembered.
        """
        reader = EventReader()
        padding = b" " * 5000
        frames = [encode_event("ADDED", CONFIG_MAP.replace(b"204", b"%d" % number)) + padding for number in range(200)]
        for frame in frames:
            reader.read(frame)
        newest = reader.read(frames[-1])
        self.assertIs(reader.read(frames[-1]), newest)
        remembered = MAX_REMEMBERED_BYTES // len(frames[-1])
        oldest = reader.read(frames[-remembered])
        self.assertIs(reader.read(frames[-remembered]), oldest)
        self.assertLessEqual(sum(map(len, reader.remembered)), MAX_REMEMBERED_BYTES)
        self.assertNotIn(frames[0], reader.remembered)
        long = encode_event("ADDED", CONFIG_MAP) + b" " * MAX_REMEMBERED_FRAME
        self.assertEqual(reader.read(long).meta, META)
        self.assertNotIn(long, reader.remembered)


class ProtobufBookmarkTests(SynchronousTestCase):
    """
    Tests of encode_protobuf_bookmark().
    """

    def test_read_again(self) -> None:
        """
        A bookmark has its type, its kind and its version.
        """
        (frame,) = ProtobufFramer().feed(encode_protobuf_bookmark("Pod", "v1", "42"))
        event = read_protobuf_event(frame)
        self.assertEqual((event.type, event.kind, event.api_version), ("BOOKMARK", "Pod", "v1"))
        self.assertEqual(event.meta.resource_version, "42")


class ReadEventTests(SynchronousTestCase):
    """
    Events of a JSON watch.
    """

    def test_objects(self) -> None:
        """
        The type and the metadata are read, the object's bytes are kept.
        """
        for kind in ("ADDED", "MODIFIED", "DELETED"):
            event = read_event(encode_event(kind, CONFIG_MAP))
            self.assertEqual(event, WatchEvent(kind, "ConfigMap", "v1", META, CONFIG_MAP, "", False, 0, CONFIG_MAP))

    def test_member_order(self) -> None:
        """
        The object may stand before the type.
        """
        event = read_event(b'{ "object" : %b , "x" : 1, "type" : "ADDED" }' % CONFIG_MAP)
        self.assertEqual((event.type, event.meta, event.object), ("ADDED", META, CONFIG_MAP))

    def test_bookmark(self) -> None:
        """
        A bookmark tells a resource version, and whether the initial events are over.
        """
        for ends in (False, True):
            event = read_event(encode_bookmark("Pod", "v1", "12", ends))
            self.assertEqual((event.type, event.kind, event.meta), ("BOOKMARK", "Pod", Meta("", "", "12", "")))
            self.assertEqual((event.initial_events_end, event.item), (ends, b""))

    def test_error(self) -> None:
        """
        An error tells the code of its Status.
        """
        event = read_event(encode_error(status_body(410, "Expired", "too old resource version: 1 (214)")))
        self.assertEqual((event.type, event.kind, event.status_code, event.item), ("ERROR", "Status", 410, b""))

    def test_partial(self) -> None:
        """
        Metadata alone is a form of its own.
        """
        event = read_event(encode_event("ADDED", PARTIAL_CONFIG_MAP))
        self.assertEqual((event.form, event.meta, event.item), (PARTIAL, META, PARTIAL_CONFIG_MAP))

    def test_table(self) -> None:
        """
        A Table event is about the object of its row, and its item is the row.
        """
        body = TABLE_HEAD + ROW + b"]}"
        event = read_event(encode_event("MODIFIED", body))
        self.assertEqual(event, WatchEvent("MODIFIED", "Table", "meta.k8s.io/v1", META, body, TABLE, False, 0, ROW))

    def test_table_bookmark(self) -> None:
        """
        A bookmark of a Table watch carries its version in a row, and the mark of the initial events' end as well.
        """
        row = b'{"cells":["",0,"\\u003cunknown\\u003e"],"object":{"kind":"PartialObjectMetadata","metadata":%b}}'
        for mark, ends in ((b"", False), (b',"annotations":{"k8s.io/initial-events-end":"true"}', True)):
            event = read_event(encode_event("BOOKMARK", TABLE_HEAD + row % (b'{"resourceVersion":"7"%b}' % mark) + b"]}"))
            self.assertEqual((event.meta, event.initial_events_end, event.item), (Meta("", "", "7", ""), ends, b""))

    def test_table_without_object(self) -> None:
        """
        A row without an object leaves the name open and the version to the Table.
        """
        event = read_event(encode_event("ADDED", TABLE_HEAD + b'{"cells":["cm1"],"object":null}]}'))
        self.assertEqual((event.meta, event.item), (Meta("", "", "205", ""), b""))

    def test_lines_never_break(self) -> None:
        """
        An object that came over several lines goes out on one.
        """
        line = encode_event("ADDED", json.dumps(json.loads(CONFIG_MAP), indent=2).encode())
        self.assertEqual(line.count(b"\n"), 1)
        self.assertEqual(json.loads(line)["object"], json.loads(CONFIG_MAP))

    @given(st.binary())
    def test_any_bytes(self, frame: bytes) -> None:
        """
        Bytes that are no event raise a WatchError and nothing else.
        """
        for read in (read_event, read_protobuf_event):
            try:
                read(frame)
            except WatchError:
                pass

    def test_no_event(self) -> None:
        """
        What lacks a type or an object is no event.
        """
        for frame in (b"", b"{}", b'{"type":"ADDED"}', b'{"type":"ADDED","object":[]}', b'{"type":1,"object":{}}', b"\xff"):
            self.assertRaises(WatchError, read_event, frame)


class ProtobufTests(SynchronousTestCase):
    """
    Protobuf watches, as a real API server sends them.
    """

    def test_modified(self) -> None:
        """
        Type, kind and metadata are read without knowing the kind.
        """
        self.assertEqual(read_protobuf_event(MODIFIED_FRAME), WatchEvent("MODIFIED", "ConfigMap", "v1", META))

    def test_bookmark(self) -> None:
        """
        A bookmark tells a resource version; with the annotation it ends the initial events.
        """
        event = read_protobuf_event(BOOKMARK_FRAME)
        self.assertEqual(event, WatchEvent("BOOKMARK", "ConfigMap", "v1", Meta("", "", "205", "")))
        annotation = b"\x62\x22\x0a\x19" + b"k8s.io/initial-events-end"[:25] + b"\x12\x04true"
        meta = b"\x32\x03205" + b"\x62" + bytes([len(annotation) - 2]) + annotation[2:]
        raw = b"\x0a" + bytes([len(meta)]) + meta
        unknown = b"k8s\0\x0a\x0b\x0a\x02v1\x12\x05Thing\x12" + bytes([len(raw)]) + raw
        extension = b"\x0a" + bytes([len(unknown)]) + unknown
        frame = b"\x0a\x08BOOKMARK\x12" + bytes([len(extension)]) + extension
        self.assertTrue(read_protobuf_event(frame).initial_events_end)

    def test_error(self) -> None:
        """
        An error tells the code of its Status, whose metadata is no ObjectMeta.
        """
        self.assertEqual(read_protobuf_event(ERROR_FRAME), WatchEvent("ERROR", "Status", "v1", Meta(), status_code=410))

    @given(st.lists(st.integers(0, 900), max_size=12))
    def test_any_split(self, cuts: list[int]) -> None:
        """
        However the stream is cut, the same frames come out.
        """
        stream = in_frames(MODIFIED_FRAME, BOOKMARK_FRAME, b"", ERROR_FRAME)
        edges = [0, *sorted(cut % len(stream) for cut in cuts), len(stream)]
        framer = ProtobufFramer()
        found = [frame for start, end in zip(edges, edges[1:]) for frame in framer.feed(stream[start:end])]
        self.assertEqual(found, [MODIFIED_FRAME, BOOKMARK_FRAME, b"", ERROR_FRAME])

    def test_too_large(self) -> None:
        """
        A length beyond the limit is refused before its bytes come.
        """
        self.assertRaises(FrameTooLarge, ProtobufFramer(limit=10).feed, b"\0\0\0\x0b")

    def test_truncated(self) -> None:
        """
        A frame that lost its end is refused, wherever it was cut; what is left of it is never taken for an event.
        """
        for end in range(len(BOOKMARK_FRAME) - 4):
            self.assertRaises(WatchError, read_protobuf_event, BOOKMARK_FRAME[:end])
