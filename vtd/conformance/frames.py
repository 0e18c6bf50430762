"""Results as they come out of a machine: frames, with whatever else uses the same port between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from vtd.conformance.format import FRAME_MAGIC, Frame, Kind

LONGEST = 64 << 20
_MAGIC = FRAME_MAGIC.to_bytes(4, "little")


class Received(NamedTuple):
    """A frame."""

    kind: Kind
    number: int
    status: int
    data: bytes


class Frames:
    """Cuts a stream into frames; what is none is counted, and a damaged one is left out."""

    def __init__(self) -> None:
        self._rest = b""
        self.damaged = 0

    @property
    def cut(self) -> bool:
        """Whether the stream ends within a frame."""
        return self._rest.startswith(_MAGIC)

    def feed(self, data: bytes) -> Iterator[Received]:
        """The frames that are whole now."""
        self._rest += data
        while True:
            start = self._rest.find(_MAGIC)
            if start < 0:
                self._rest = self._rest[-3:]
                return
            self._rest = self._rest[start:]
            if len(self._rest) < Frame.sizeof():
                return
            head = Frame.parse(self._rest)
            if head.length > LONGEST or head.kind not in set(Kind):
                self.damaged += 1
                self._rest = self._rest[4:]
                continue
            end = Frame.sizeof() + head.length
            if len(self._rest) < end:
                return
            body = self._rest[Frame.sizeof() : end]
            if sum(body) & 0xFFFF_FFFF != head.check:
                self.damaged += 1
                self._rest = self._rest[4:]
                continue
            self._rest = self._rest[end:]
            yield Received(Kind(head.kind), head.number, head.status, body)
