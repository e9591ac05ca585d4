"""
Watch streams: from bytes to events and back.

A JSON watch is a row of documents ``{"type":…,"object":{…}}``, one a line.  Its events are read as far as the hub must know
them; the object stays the bytes it was.  A protobuf watch is a row of WatchEvent{type=1, object=2{raw=1}}, each after its length.
"""

from __future__ import annotations

import msgspec

from yurt.kube import protobuf
from yurt.kube.objects import NO_META, PARTIAL, TABLE, Meta, ObjectHead

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""The largest event a framer puts together; etcd holds objects of 1.5 MB, and JSON may be several times as long."""

MAX_REMEMBERED_FRAME = 16 * 1024
MAX_REMEMBERED_BYTES = 256 * 1024
"""Bytes of an event, and of all events, that are remembered because another watch may bring the same; in memory twice as much."""

ADDED, MODIFIED, DELETED = "ADDED", "MODIFIED", "DELETED"
BOOKMARK, ERROR = "BOOKMARK", "ERROR"

INITIAL_EVENTS_END = "k8s.io/initial-events-end"
"""The annotation of the bookmark that ends the initial events of a watch with ``sendInitialEvents=true``."""

_BORDER = b'}{"type":'  # stands in valid JSON only where one document ends and the next begins


class WatchError(ValueError):
    """
    Bytes that are no watch event.
    """


class FrameTooLarge(WatchError):
    """
    An event is longer than MAX_EVENT_BYTES.
    """


class WatchEvent(msgspec.Struct, frozen=True):
    """
    One event of a watch.

    ``object`` is the event's object as it came (empty for protobuf).  ``item`` is what a list of the same form would hold for
    it: the row of a Table, else the object.  ``form`` is as in :mod:`yurt.kube.objects`.  ``status_code`` is the code of
    the Status in an ERROR event, else 0.
    """

    type: str
    kind: str = ""
    api_version: str = ""
    meta: Meta = NO_META
    object: bytes = b""
    form: str = ""
    initial_events_end: bool = False
    status_code: int = 0
    item: bytes = b""


class JSONFramer:
    """
    Cuts a JSON watch stream into its events.
    """

    def __init__(self, limit: int = MAX_EVENT_BYTES) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0

    @property
    def pending(self) -> bool:
        """
        Whether the beginning of an event has come without its end.
        """
        return bool(self._pieces)

    def feed(self, data: bytes) -> list[bytes]:
        """
        Take the next bytes and return the events that are now whole, without the newline after them.

        An event whose newline has not come yet is whole when its last brace has.  Raises FrameTooLarge.
        """
        size = len(data) - 1
        if data.find(b"\n") == size < self._limit and not self._pieces and data[:1] == b"{" and data.rfind(_BORDER) < 0:
            return [data[:size]]  # one line, one event: what most reads bring
        lines = data.split(b"\n")
        rest = lines.pop()
        frames: list[bytes] = []
        for line in lines:
            self._append(line)
            frames += self._take()
        self._append(rest)
        if rest.rstrip().endswith(b"}") and self._is_whole():
            frames += self._take()
        return frames

    def _append(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._limit:
            raise FrameTooLarge(f"a watch event is longer than {self._limit} bytes")
        if piece:
            self._pieces.append(piece)

    def _take(self) -> list[bytes]:
        line = b"".join(self._pieces).strip()
        self._pieces.clear()
        self._size = 0
        if not line:
            return []
        return _split_documents(line)

    def _is_whole(self) -> bool:
        if len(self._pieces) > 1:
            self._pieces = [b"".join(self._pieces)]
        try:
            for document in _split_documents(self._pieces[0].strip()):
                _decode_nothing(document)
        except (msgspec.DecodeError, RecursionError):
            return False
        return True


def _split_documents(line: bytes) -> list[bytes]:
    if _BORDER not in line:
        return [line]
    first, *others = line.split(_BORDER)
    documents = [first, *(b'{"type":' + other for other in others)]
    return [document + b"}" for document in documents[:-1]] + documents[-1:]


class ProtobufFramer:
    """
    Cuts a protobuf watch stream into its events: each has its length before it, four bytes, big-endian.
    """

    def __init__(self, limit: int = MAX_EVENT_BYTES) -> None:
        self._limit = limit
        self._buffer = bytearray()

    @property
    def pending(self) -> bool:
        """
        Whether the beginning of an event has come without its end.
        """
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """
        Take the next bytes and return the events that are now whole, without their lengths.  Raises FrameTooLarge.
        """
        buffer = self._buffer
        buffer += data
        frames: list[bytes] = []
        start = 0
        while len(buffer) - start >= 4:
            length = int.from_bytes(buffer[start : start + 4], "big")
            if length > self._limit:
                raise FrameTooLarge(f"a watch event is longer than {self._limit} bytes")
            end = start + 4 + length
            if len(buffer) < end:
                break
            frames.append(bytes(buffer[start + 4 : end]))
            start = end
        del buffer[:start]
        return frames


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw = msgspec.Raw(b"null")


class _Nothing(msgspec.Struct):
    pass


class _Bookmark(msgspec.Struct):
    class Metadata(msgspec.Struct):
        annotations: dict[str, str] | None = None

    metadata: Metadata | None = None


class _Status(msgspec.Struct):
    code: int = 0


class _Row(msgspec.Struct):
    object: ObjectHead | None = None


class _BookmarkRow(msgspec.Struct):
    object: _Bookmark | None = None


class _Table(msgspec.Struct):
    rows: list[msgspec.Raw] | None = None


_decode_nothing = msgspec.json.Decoder(_Nothing).decode
_decode_event = msgspec.json.Decoder(_Event).decode
_decode_head = msgspec.json.Decoder(ObjectHead).decode
_decode_bookmark = msgspec.json.Decoder(_Bookmark).decode
_decode_status = msgspec.json.Decoder(_Status).decode
_decode_row = msgspec.json.Decoder(_Row).decode
_decode_bookmark_row = msgspec.json.Decoder(_BookmarkRow).decode
_decode_table = msgspec.json.Decoder(_Table).decode


def read_event(frame: bytes) -> WatchEvent:
    """
    Read one event of a JSON watch.

    The metadata of a Table event is that of its row's object.  Raises WatchError.
    """
    try:
        event = _decode_event(frame)
        head = _decode_head(event.object)
        body = bytes(event.object)
        if event.type == ERROR:
            return WatchEvent(event.type, head.kind, head.api_version, head.meta, body, "", False, _decode_status(body).code)
        if head.kind == TABLE:
            return _table_event(event.type, head, body)
        form = PARTIAL if head.kind == PARTIAL else ""
        if event.type == BOOKMARK:
            end = _ends_initial_events(_decode_bookmark(body))
            return WatchEvent(event.type, head.kind, head.api_version, head.meta, body, form, end)
        return WatchEvent(event.type, head.kind, head.api_version, head.meta, body, form, False, 0, body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WatchError(f"not a watch event: {error}") from error


class EventReader:
    """
    Reads the events of JSON watches; one that several watches bring, byte by byte the same, is read once.
    """

    def __init__(self) -> None:
        self.remembered: dict[bytes, WatchEvent] = {}
        self._size = 0

    def read(self, frame: bytes) -> WatchEvent:
        """
        What :func:`read_event` makes of it; the very same value for the same bytes, as long as they are remembered.
        """
        event = self.remembered.get(frame)
        if event is None:
            event = read_event(frame)
            if len(frame) <= MAX_REMEMBERED_FRAME:
                self._remember(frame, event)
        return event

    def _remember(self, frame: bytes, event: WatchEvent) -> None:
        self.remembered[frame] = event
        self._size += len(frame)
        while self._size > MAX_REMEMBERED_BYTES:
            oldest = next(iter(self.remembered))
            del self.remembered[oldest]
            self._size -= len(oldest)


def _table_event(event_type: str, table: ObjectHead, body: bytes) -> WatchEvent:
    rows = _decode_table(body).rows
    row = rows[0] if rows else msgspec.Raw(b"{}")
    head = _decode_row(row).object
    if event_type == BOOKMARK or head is None:  # without an object (includeObject=None) nothing says whose row it is
        meta, item = (head or table).meta, b""
    else:
        meta, item = head.meta, bytes(row)
    end = event_type == BOOKMARK and _ends_initial_events(_decode_bookmark_row(row).object)
    return WatchEvent(event_type, table.kind, table.api_version, meta, body, TABLE, end, 0, item)


def _ends_initial_events(bookmark: _Bookmark | None) -> bool:
    metadata = bookmark.metadata if bookmark is not None else None
    return metadata is not None and (metadata.annotations or {}).get(INITIAL_EVENTS_END) == "true"


def read_protobuf_event(frame: bytes) -> WatchEvent:
    """
    Read type, kind and metadata of one event of a protobuf watch; ``object`` and ``item`` are empty.  Raises WatchError.
    """
    try:
        event = protobuf.messages(frame)
        event_type = event.get(1, b"").decode("ascii", "replace")
        head, raw = protobuf.read_unknown(protobuf.messages(event.get(2, b"")).get(1, b""))
        end = event_type == BOOKMARK and protobuf.read_annotations(raw).get(INITIAL_EVENTS_END) == "true"
        code = protobuf.read_status_code(raw) if event_type == ERROR else 0
    except protobuf.ProtobufError as error:
        raise WatchError(f"not a watch event: {error}") from error
    form = PARTIAL if head.kind == PARTIAL else ""
    return WatchEvent(event_type, head.kind, head.api_version, head.meta, b"", form, end, code)


def encode_event(event_type: str, body: bytes) -> bytes:
    """
    One line of a JSON watch; ``body`` is the event's object as JSON, over several lines if need be.
    """
    return b'{"type":"%b","object":%b}\n' % (event_type.encode(), body.replace(b"\n", b""))


def encode_bookmark(kind: str, api_version: str, resource_version: str, initial_events_end: bool = False) -> bytes:
    """
    A BOOKMARK: all changes up to this resourceVersion have been sent.
    """
    metadata: dict[str, object] = {"resourceVersion": resource_version, "creationTimestamp": None}
    if initial_events_end:
        metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
    return encode_event(BOOKMARK, msgspec.json.encode({"kind": kind, "apiVersion": api_version, "metadata": metadata}))


def encode_protobuf_bookmark(kind: str, api_version: str, resource_version: str) -> bytes:
    """
    A BOOKMARK of a protobuf watch, length included.

    WatchEvent{type=1, object=2{raw=1}}; raw is an Unknown{typeMeta=1{apiVersion=1, kind=2}, raw=2} after its magic, around an
    object{metadata=1{resourceVersion=6}} (generated.proto of apimachinery's runtime and meta/v1).
    """
    field = protobuf.encode_bytes
    type_meta = field(1, api_version.encode()) + field(2, kind.encode())
    metadata = field(6, resource_version.encode())
    unknown = protobuf.MAGIC + field(1, type_meta) + field(2, field(1, metadata))
    event = field(1, BOOKMARK.encode()) + field(2, field(1, unknown))
    return len(event).to_bytes(4, "big") + event


def encode_protobuf_error(status: bytes) -> bytes:
    """
    An ERROR event of a protobuf watch, length included, around a Status object in protobuf.
    """
    extension = protobuf.encode_bytes(1, status)
    event = protobuf.encode_bytes(1, ERROR.encode()) + protobuf.encode_bytes(2, extension)
    return len(event).to_bytes(4, "big") + event


def encode_error(status: bytes) -> bytes:
    """
    An ERROR event around a Status object, the last event of a watch.
    """
    return encode_event(ERROR, status)
