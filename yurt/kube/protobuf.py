"""
The protobuf form of Kubernetes objects, as far as it can be read without knowing each kind.

An object is ``k8s\\0`` and a runtime.Unknown{typeMeta=1{apiVersion=1, kind=2}, raw=2}; field 1 of ``raw`` is the ObjectMeta of
every kind {name=1, namespace=3, uid=5, resourceVersion=6, annotations=12{key=1, value=2}}.  Field numbers:
``generated.proto`` of ``k8s.io/apimachinery``.
"""

from __future__ import annotations

from collections.abc import Iterator

from yurt.kube.objects import Meta, ObjectHead

MAGIC = b"k8s\0"


class ProtobufError(ValueError):
    """
    Bytes that are no protobuf message, or not one of a Kubernetes object.
    """


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """
    The fields of a message in order: number, and the integer or the bytes that it holds.  Raises ProtobufError.
    """
    position, end = 0, len(message)
    while position < end:
        key, position = _varint(message, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire_type == 2:
            length, position = _varint(message, position)
        elif wire_type in (1, 5):
            length = 8 if wire_type == 1 else 4
        else:
            raise ProtobufError(f"wire type {wire_type} at byte {position}")
        if position + length > end:
            raise ProtobufError(f"field {number} ends beyond its message")
        yield number, message[position : position + length]
        position += length


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(message[position : position + 10]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise ProtobufError(f"no integer at byte {position}")


def messages(message: bytes) -> dict[int, bytes]:
    """
    The fields that hold bytes, by number; of a repeated one the last.
    """
    return {number: value for number, value in fields(message) if isinstance(value, bytes)}


def read_unknown(body: bytes) -> tuple[ObjectHead, bytes]:
    """
    Type and identity of an object, and its own message, inside which the metadata is field 1.  Raises ProtobufError.
    """
    if not body.startswith(MAGIC):
        raise ProtobufError("an object without the mark of Kubernetes' protobuf")
    unknown = messages(body[len(MAGIC) :])
    type_meta = messages(unknown.get(1, b""))
    raw = unknown.get(2, b"")
    kind = _text(type_meta.get(2, b""))
    meta = Meta() if kind == "Status" else _read_meta(messages(messages(raw).get(1, b"")))
    return ObjectHead(kind, _text(type_meta.get(1, b"")), meta), raw


def _read_meta(meta: dict[int, bytes]) -> Meta:
    return Meta(_text(meta.get(3, b"")), _text(meta.get(1, b"")), _text(meta.get(6, b"")), _text(meta.get(5, b"")))


def read_annotations(raw: bytes) -> dict[str, str]:
    """
    The annotations of the object with this message.  Raises ProtobufError.
    """
    meta = messages(raw).get(1, b"")
    entries = [messages(value) for number, value in fields(meta) if number == 12 and isinstance(value, bytes)]
    return {_text(entry.get(1, b"")): _text(entry.get(2, b"")) for entry in entries}


def read_status_code(raw: bytes) -> int:
    """
    The code of the Status with this message; 0 when it has none.  Raises ProtobufError.
    """
    return next((value for number, value in fields(raw) if number == 6 and isinstance(value, int)), 0)


def encode_bytes(number: int, value: bytes) -> bytes:
    """
    A field that holds bytes.
    """
    return _encode_varint(number << 3 | 2) + _encode_varint(len(value)) + value


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise ProtobufError(f"text that is not UTF-8: {error}") from error
