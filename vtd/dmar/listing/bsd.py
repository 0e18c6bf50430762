"""PCI functions in boot messages of OpenBSD and NetBSD, and in OpenBSD's ``pcidump -v``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from devices.source_id import Bdf, SourceId, SourceIdError
from vtd.dmar.pci_tree import PciFunction

_BUS = re.compile(r"(?:^|\s)(pci\d+) at (\w+) bus (\d+)\b", re.ASCII)
_FUNCTION = re.compile(
    r"(?:\b(([a-z]\w*?)\d+) )?\bat (pci\d+) dev (\d+) function ([0-7])\b", re.ASCII
)
_CLASSES = {
    "pchb": 0x0600, "pcib": 0x0601, "ichlpcib": 0x0601, "ppb": 0x0604,
    "vga": 0x0300, "inteldrm": 0x0300, "i915drmkms": 0x0300,
    "uhci": 0x0C03, "ehci": 0x0C03, "xhci": 0x0C03,
}  # fmt: skip
"""Classes by the drivers that decisions rest on."""
_DOMAIN = re.compile(r"[\s>|]*Domain /dev/pci(\d+):", re.ASCII)
_DUMPED = re.compile(r"[\s>|]*(\d{1,3}):(\d{1,2}):([0-7]): (\S.*)", re.ASCII)
_IDS = re.compile(r"0x0000: Vendor ID: ([0-9a-f]{4}),? Product ID: ([0-9a-f]{4})", re.ASCII)
_CLASS = re.compile(r"0x0008:\s+Class: ([0-9a-f]{2}) .*Subclass: ([0-9a-f]{2})", re.ASCII)
_HEADER = re.compile(r"Header Type: ([0-9a-f]{2})", re.ASCII)
_BUSES = re.compile(r"Secondary Bus: (\d+), Subordinate Bus: (\d+)", re.ASCII)


def bsd_functions(text: str) -> Iterator[PciFunction]:
    """The functions of either form."""
    yield from _booted(text)
    yield from _dumped(text)


def _bdf(segment: int, *place: int) -> Bdf | None:
    try:
        return Bdf(segment, SourceId.of(*place))
    except SourceIdError:
        return None


def _booted(text: str) -> Iterator[PciFunction]:
    buses: dict[str, int] = {}
    bridges: dict[str, Bdf] = {}
    for line in text.splitlines():
        if match := _BUS.search(line):
            buses[match[1]] = int(match[3])
            if match[2] in bridges:
                yield PciFunction.partly(bridges[match[2]], secondary_bus=int(match[3]))
        elif (match := _FUNCTION.search(line)) and match[3] in buses:
            bdf = _bdf(0, buses[match[3]], int(match[4]), int(match[5]))
            if bdf is not None:
                bridges[match[1] or ""] = bdf
                yield PciFunction.partly(bdf, class_code=_CLASSES.get(match[2] or ""))


def _dumped(text: str) -> Iterator[PciFunction]:
    segment, bdf, name = 0, None, ""
    place: Bdf | None = None
    for line in text.splitlines():
        if match := _DOMAIN.match(line):
            segment = int(match[1])
        elif match := _DUMPED.fullmatch(line):
            bdf, place, name = None, _bdf(segment, *map(int, match.group(1, 2, 3))), match[4]
        elif place is not None and (match := _IDS.search(line)):
            bdf, place = place, None
            ids = {"vendor_id": int(match[1], 16), "device_id": int(match[2], 16)}
            yield PciFunction.partly(bdf, name=name, **ids)
        elif bdf is None:
            place = None
        elif match := _CLASS.search(line):
            yield PciFunction.partly(bdf, class_code=int(match[1] + match[2], 16))
        elif match := _HEADER.search(line):
            yield PciFunction.partly(bdf, header_known=int(match[1], 16) & 0x7F == 0)
        elif match := _BUSES.search(line):
            first, last = map(int, match.groups())
            yield PciFunction.partly(bdf, secondary_bus=first or None, subordinate_bus=last or None)
