"""Source-ids: the bus, device and function that a request on the bus carries as its sender.

VT-d 3.4.1, Source Identifier. A source-id is the 16-bit requester id of PCI Express; the segment is
no part of it, so :class:`Bdf` names a function across segments.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Self

_TEXT = re.compile(
    r"(?:([0-9a-f]{1,4}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})\.([0-7])", re.IGNORECASE | re.ASCII
)


class SourceIdError(ValueError):
    """A source-id that can't be: the message names the field and the value."""


class SourceId(int):
    """A 16-bit requester id: bus 15:8, device 7:3, function 2:0. Prints as ``00:02.0``."""

    def __new__(cls, value: int) -> Self:
        if not 0 <= value <= 0xFFFF:
            raise SourceIdError(f"source-id: {value:#x} is not a number of 16 bits")
        return super().__new__(cls, value)

    @classmethod
    def of(cls, bus: int, device: int, function: int = 0) -> Self:
        """The source-id of this bus, device and function; SourceIdError names the wrong field."""
        fields = (("bus", bus, 0xFF), ("device", device, 0x1F), ("function", function, 7))
        for name, value, limit in fields:
            if not 0 <= value <= limit:
                raise SourceIdError(f"{name}: {value:#x} is not in 0..{limit:#x}")
        return cls(bus << 8 | device << 3 | function)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The source-id written ``00:02.0``; a segment in front has to be 0."""
        bdf = Bdf.parse(text)
        if bdf.segment:
            raise SourceIdError(f"segment: {text!r} is not in segment 0")
        return cls(bdf.source_id)

    @property
    def bus(self) -> int:
        """Bits 15:8."""
        return self >> 8

    @property
    def device(self) -> int:
        """Bits 7:3."""
        return self >> 3 & 0x1F

    @property
    def function(self) -> int:
        """Bits 2:0."""
        return self & 7

    @property
    def devfn(self) -> int:
        """Device and function: bits 7:0, all of it a function number under ARI."""
        return self & 0xFF

    def __str__(self) -> str:
        return f"{self.bus:02x}:{self.device:02x}.{self.function}"

    def __repr__(self) -> str:
        return f"SourceId({str(self)!r})"


class Bdf(NamedTuple):
    """A function of any segment. Prints as ``0000:00:02.0``."""

    segment: int
    source_id: SourceId

    @classmethod
    def parse(cls, text: str) -> Self:
        """The function written ``0000:00:02.0`` or, in segment 0, ``00:02.0``; hexadecimal."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise SourceIdError(f"source-id: {text!r} is not written like 0000:00:02.0")
        segment, bus, device, function = (int(part or "0", 16) for part in match.groups())
        return cls(segment, SourceId.of(bus, device, function))

    def __str__(self) -> str:
        return f"{self.segment:04x}:{self.source_id}"
