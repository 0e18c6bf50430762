"""Capture files: pcap and pcapng of Ethernet, read whole, and pcap written.

draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng. Blocks of a pcapng file that hold no packets
are passed over; of options only the resolution of time counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from construct import FormatField, Int16ub, Int16ul, Int32ub, Int32ul, Struct

ETHERNET = 1
LONGEST = 1 << 18
"""More bytes than any frame has."""

_MICROSECONDS, _NANOSECONDS = 0xA1B2_C3D4, 0xA1B2_3C4D
_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET = 0x0A0D_0D0A, 1, 2, 3, 6
_BYTE_ORDER = 0x1A2B_3C4D
_SECTION_MAGIC = _SECTION.to_bytes(4, "little")
"""The same in both byte orders."""
_RESOLUTION = 9
_SECOND = 1_000_000_000


class CaptureError(ValueError):
    """A capture that can't be read: the message names the place and what is wrong there."""


class CapturedFrame(NamedTuple):
    """A frame and when it was seen, in nanoseconds."""

    time: int
    data: bytes


class _Layouts:
    """The structures of both formats in one byte order."""

    def __init__(self, u16: FormatField, u32: FormatField) -> None:
        self.u32 = u32
        self.file = Struct(
            "magic" / u32,
            "major" / u16,
            "minor" / u16,
            "zone" / u32,
            "accuracy" / u32,
            "longest" / u32,
            "link_type" / u32,
        )
        self.record = Struct("seconds" / u32, "fraction" / u32, "captured" / u32, "original" / u32)
        self.block = Struct("type" / u32, "length" / u32)
        self.section = Struct("order" / u32, "major" / u16, "minor" / u16, "size" / u32[2])
        self.interface = Struct("link_type" / u16, "reserved" / u16, "longest" / u32)
        self.option = Struct("code" / u16, "length" / u16)
        self.packet = Struct(
            "interface" / u32, "high" / u32, "low" / u32, "captured" / u32, "original" / u32
        )
        self.simple_packet = Struct("original" / u32)
        self.old_packet = Struct(
            "interface" / u16,
            "drops" / u16,
            "high" / u32,
            "low" / u32,
            "captured" / u32,
            "original" / u32,
        )


_LITTLE, _BIG = _Layouts(Int16ul, Int32ul), _Layouts(Int16ub, Int32ub)


class _Place(NamedTuple):
    """Part of a file: its bytes, and where it begins and what it is, for messages."""

    data: memoryview
    at: int
    what: str

    def parse(self, layout: Struct, start: int = 0) -> Any:
        """The structure that begins ``start`` bytes from here."""
        end = start + layout.sizeof()
        if end > len(self.data):
            raise CaptureError(f"byte {self.at + start:#x}: the file ends within {self.what}")
        return layout.parse(bytes(self.data[start:end]))

    def frame(self, start: int, captured: int, original: int) -> bytes:
        """The bytes of a frame; CaptureError if they can't all be there."""
        where = f"byte {self.at:#x}: {self.what}"
        if captured > LONGEST or original > LONGEST:
            raise CaptureError(f"{where} says it has {max(captured, original)} bytes")
        if captured != original:
            raise CaptureError(f"{where} has {captured} of {original} bytes")
        if start + captured > len(self.data):
            raise CaptureError(f"{where} has {captured} bytes, of which the file ends short")
        return bytes(self.data[start : start + captured])


def read_capture(data: bytes) -> list[CapturedFrame]:
    """All frames of a capture; CaptureError for one that is cut, lies, or is not of Ethernet."""
    if data.startswith(_SECTION_MAGIC):
        return list(_Pcapng(memoryview(data)).frames())
    for layouts in (_LITTLE, _BIG):
        magic = layouts.u32.parse(data.ljust(4, b"\0")[:4])
        if magic in {_MICROSECONDS, _NANOSECONDS}:
            return list(_pcap(memoryview(data), layouts, 1000 if magic == _MICROSECONDS else 1))
    raise CaptureError("byte 0x0: neither a pcap nor a pcapng file begins like this")


def _pcap(data: memoryview, layouts: _Layouts, unit: int) -> Iterator[CapturedFrame]:
    header = _Place(data, 0, "the header of the file").parse(layouts.file)
    _check_link_type(header.link_type & 0xFFFF, 0)
    at, number = layouts.file.sizeof(), 0
    while at < len(data):
        number += 1
        place = _Place(data[at:], at, f"frame {number}")
        record = place.parse(layouts.record)
        start = layouts.record.sizeof()
        frame = place.frame(start, record.captured, record.original)
        yield CapturedFrame(record.seconds * _SECOND + record.fraction * unit, frame)
        at += start + len(frame)


def _check_link_type(link_type: int, at: int) -> None:
    if link_type != ETHERNET:
        raise CaptureError(f"byte {at:#x}: link type {link_type} is not Ethernet")


@dataclass
class _Pcapng:
    """A pcapng file while it is read."""

    data: memoryview
    layouts: _Layouts = _LITTLE
    interfaces: list[int] = field(default_factory=list)
    """Ticks a second of each interface of the section."""
    count: int = 0

    def frames(self) -> Iterator[CapturedFrame]:
        """The frames of all sections."""
        at = 0
        while at < len(self.data):
            start = _Place(self.data[at:], at, "a block")
            if bytes(start.data[:4]) == _SECTION_MAGIC:
                self._begin_section(start)
            block = start.parse(self.layouts.block)
            body = self._body(start, block.length)
            if block.type == _INTERFACE:
                self._interface(body)
            elif block.type in {_PACKET, _SIMPLE_PACKET, _OLD_PACKET}:
                self.count += 1
                yield self._packet(body._replace(what=f"frame {self.count}"), block.type)
            at += block.length

    def _begin_section(self, start: _Place) -> None:
        self.interfaces = []
        for self.layouts in (_LITTLE, _BIG):
            if start.parse(self.layouts.section, 8).order == _BYTE_ORDER:
                return
        raise CaptureError(f"byte {start.at + 8:#x}: the byte order of a section is unknown")

    def _body(self, start: _Place, length: int) -> _Place:
        """What is between the two lengths of a block, which have to agree."""
        where = f"byte {start.at:#x}: a block of {length} bytes"
        if length % 4 or length < 12:
            raise CaptureError(f"{where} can't be")
        if length > len(start.data):
            raise CaptureError(f"{where}, of which the file ends short")
        if start.parse(self.layouts.u32, length - 4) != length:
            raise CaptureError(f"{where} ends with another length")
        return _Place(start.data[8 : length - 4], start.at + 8, "a block")

    def _interface(self, body: _Place) -> None:
        layouts = self.layouts
        _check_link_type(body.parse(layouts.interface).link_type, body.at)
        at, ticks = layouts.interface.sizeof(), 1_000_000
        while at < len(body.data):
            option = body.parse(layouts.option, at)
            value = body.data[at + 4 : at + 4 + option.length]
            if option.code == _RESOLUTION and value:
                ticks = 1 << (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
            at += 4 + (option.length + 3 & ~3)
        self.interfaces.append(ticks)

    def _packet(self, body: _Place, kind: int) -> CapturedFrame:
        if kind == _SIMPLE_PACKET:
            layout = self.layouts.simple_packet
            length = body.parse(layout).original
            self._ticks(body, 0)
            return CapturedFrame(0, body.frame(layout.sizeof(), length, length))
        layout = self.layouts.packet if kind == _PACKET else self.layouts.old_packet
        packet = body.parse(layout)
        ticks = self._ticks(body, packet.interface)
        frame = body.frame(layout.sizeof(), packet.captured, packet.original)
        return CapturedFrame((packet.high << 32 | packet.low) * _SECOND // ticks, frame)

    def _ticks(self, body: _Place, interface: int) -> int:
        if interface >= len(self.interfaces):
            raise CaptureError(f"byte {body.at:#x}: {body.what} is of interface {interface}")
        return self.interfaces[interface]


def write_pcap(frames: Iterable[CapturedFrame]) -> bytes:
    """A pcap file with times in nanoseconds."""
    layouts = _LITTLE
    header = {"magic": _NANOSECONDS, "major": 2, "minor": 4, "zone": 0, "accuracy": 0}
    parts = [layouts.file.build({**header, "longest": LONGEST, "link_type": ETHERNET})]
    for time, data in frames:
        length = {"captured": len(data), "original": len(data)}
        seconds, fraction = divmod(time, _SECOND)
        parts += [layouts.record.build({"seconds": seconds, "fraction": fraction, **length}), data]
    return b"".join(parts)
