"""
The response of one watch: events in the encoding that its client asked for.
"""

from __future__ import annotations

from collections.abc import Iterable

from yurt.http.interfaces import IncomingRequest
from yurt.hub.accept import is_json
from yurt.hub.progress import Progress
from yurt.kube.status import status_body
from yurt.kube.watch import (
    JSONFramer,
    ProtobufFramer,
    encode_bookmark,
    encode_error,
    encode_protobuf_bookmark,
    encode_protobuf_error,
)

PROTOBUF_WATCH = b"application/vnd.kubernetes.protobuf"


class WatchStream:
    """
    What the client of ``request`` is sent, and how the frames that come from the cloud are told apart.

    ``protobuf`` tells the encoding; ``transparent`` is true while bytes are of no known encoding and pass as they come.  While
    nothing comes from the cloud it is the response's producer itself: ``stalled`` is true when the client does not read.
    """

    def __init__(self, request: IncomingRequest) -> None:
        self.request = request
        self.protobuf = False
        self.stalled = False
        self._framer: JSONFramer | ProtobufFramer | None = None

    @property
    def transparent(self) -> bool:
        """
        Whether there are no frames to be told apart.
        """
        return self._framer is None

    @property
    def pending(self) -> bool:
        """
        Whether a part of a frame has come.
        """
        return self._framer is not None and self._framer.pending

    def expect(self, content_type: bytes | None) -> None:
        """
        A new response of the cloud begins, of that type.
        """
        self.protobuf = (content_type or b"").startswith(PROTOBUF_WATCH)
        if is_json(content_type):
            self._framer = JSONFramer()
        else:
            self._framer = ProtobufFramer() if self.protobuf else None

    def expect_nothing_known(self) -> None:
        """
        What comes is no stream of events.
        """
        self._framer = None

    def frames(self, data: bytes) -> list[bytes]:
        """
        The frames that ``data`` completes.  Raises WatchError when one is too large, or none at all.
        """
        assert self._framer is not None, "a transparent stream has no frames"
        return self._framer.feed(data)

    def encode(self, frame: bytes) -> bytes:
        """
        A frame's bytes as they came.
        """
        return len(frame).to_bytes(4, "big") + frame if self.protobuf else frame + b"\n"

    def write(self, lines: Iterable[bytes]) -> None:
        """
        Send to the client.
        """
        data = b"".join(lines)
        if data:
            self.request.write(data)

    def show_bookmark(self, progress: Progress) -> None:
        """
        Tell the client the version that it has reached, if it asked for that and reads.
        """
        version = progress.client_version
        if progress.bookmarks and progress.kind and version and not self.stalled:
            encode = encode_protobuf_bookmark if self.protobuf else encode_bookmark
            self.write([encode(progress.kind, progress.api_version, version)])

    def show_expired(self, body: bytes, version: str) -> None:
        """
        Tell the client that its version is too old, in the words of ``body`` if that is a Status.
        """
        if self.protobuf:
            self.write([encode_protobuf_error(body)])
            return
        told = body if body.startswith(b"{") else status_body(410, "Expired", f"too old resource version: {version}")
        self.write([encode_error(told)])

    # As the producer of a response of which nothing comes

    def hold(self) -> None:
        """
        Nothing comes from the cloud for now.
        """
        self.stalled = False
        self.request.produce_from(self)

    def pause(self) -> None:
        """
        The client does not read.
        """
        self.stalled = True

    def resume(self) -> None:
        """
        It reads again.
        """
        self.stalled = False
