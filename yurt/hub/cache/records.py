"""
What views and objects look like in the store: keys and records.

An object is stored once per resource, form, namespace and name; a member record says that a view holds it.  Members are named
``namespace/name``, as etcd orders its keys, so that a list comes in the order in which the API server gives it.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import NamedTuple

import msgspec

GETS = "*"
"""Stands for the namespace in the key of the view of what a caller got by single reads; no namespace has that name."""

VIEW_ID_SIZE = 8

SECRETS = "/v1/secrets"
"""The resource whose objects are encrypted on the disk, in every form."""

_LOCAL = 1
_OBJECT = struct.Struct("<dBH")


class Caller(NamedTuple):
    """
    Who asks: the identity in whose name the cloud answers, and the component that speaks.
    """

    identity: str
    component: str


class ViewKey(NamedTuple):
    """
    What one list or watch is about; a tuple because it is looked up with each event of each watch.

    ``form`` is as in yurt.kube.objects; ``namespace`` is empty for all namespaces and for resources without them; selectors are
    canonical texts.
    """

    caller: Caller
    gvr: str
    form: str = ""
    namespace: str = ""
    label_selector: str = ""
    field_selector: str = ""


class ViewRecord(msgspec.Struct, array_like=True):
    """
    The state of a view, in memory and on the disk.

    ``kind`` is the kind of the list.  ``evicted`` marks a view whose members are being removed.
    """

    identity: str
    component: str
    gvr: str
    form: str
    namespace: str
    label_selector: str
    field_selector: str
    kind: str = ""
    api_version: str = ""
    resource_version: str = ""
    complete: bool = False
    updated_at: float = 0.0
    members: int = 0
    columns: bytes = b""
    evicted: bool = False

    def key(self) -> ViewKey:
        """
        The key that the view was made for.
        """
        caller = Caller(self.identity, self.component)
        return ViewKey(caller, self.gvr, self.form, self.namespace, self.label_selector, self.field_selector)


class Counts(msgspec.Struct, array_like=True):
    """
    How many objects are stored, and their bytes.
    """

    objects: int = 0
    bytes: int = 0


class StoredObject(NamedTuple):
    """
    An object (or Table row) and what must be known of it.

    ``local`` marks a state that was written here while the cloud was away.
    """

    stored_at: float
    local: bool
    resource_version: str
    body: bytes


encode_record = msgspec.msgpack.Encoder().encode
decode_view = msgspec.msgpack.Decoder(ViewRecord).decode
decode_counts = msgspec.msgpack.Decoder(Counts).decode


def view_id(key: ViewKey) -> bytes:
    """
    The key of a view's record, and the beginning of its members' keys.  It depends on nothing but the view's key, so that a
    hub that starts without its disk and finds it later still means the same by it.
    """
    return blake2b(encode_record(key), digest_size=VIEW_ID_SIZE).digest()


def member_of(namespace: str, name: str) -> bytes:
    """
    What an object is called among the members of a view.
    """
    return f"{namespace}/{name}".encode()


def object_prefix(gvr: str, form: str) -> bytes:
    """
    The beginning of the keys of all objects of one resource in one form; a member's name comes after it.
    """
    return f"{gvr}\0{form}\0".encode()


def encode_object(stored: StoredObject) -> bytes:
    """
    The record of an object.
    """
    version = stored.resource_version.encode()
    return _OBJECT.pack(stored.stored_at, _LOCAL if stored.local else 0, len(version)) + version + stored.body


def decode_body(record: bytes) -> bytes:
    """
    The object alone.
    """
    return record[_OBJECT.size + _OBJECT.unpack_from(record)[2] :]


def decode_object(record: bytes) -> StoredObject:
    """
    Read the record of an object.
    """
    stored_at, flags, length = _OBJECT.unpack_from(record)
    body = _OBJECT.size + length
    return StoredObject(stored_at, bool(flags & _LOCAL), record[_OBJECT.size : body].decode(), record[body:])
