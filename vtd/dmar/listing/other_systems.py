"""PCI functions as FreeBSD, ESXi (``esxcli``), the UEFI shell and U-Boot list them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from devices.source_id import Bdf, SourceId, SourceIdError
from vtd.dmar.pci_tree import Acs, PciFunction, parse_address

_PCICONF = re.compile(
    r"@pci(\d+):(\d+):(\d+):(\d+):\s+class=0x([0-9a-f]{6})\b(.*)", re.ASCII | re.IGNORECASE
)
_IDS = re.compile(r"vendor=0x([0-9a-f]{4}) device=0x([0-9a-f]{4})", re.ASCII)
_CHIP = re.compile(r"\bchip=0x([0-9a-f]{4})([0-9a-f]{4})\b", re.ASCII)
_HEADER = re.compile(r"\bhdr=0x([0-9a-f]{2})\b", re.ASCII)
_RANGE = re.compile(r"\s+bus range\s*=\s*(\d+)-(\d+)", re.ASCII)
_EXPRESS = re.compile(
    r"\s+cap 10\[\w+\] = PCI-Express \d+ ([a-z ]+?)(?: max| IRQ| slot|$)", re.ASCII
)
_ACS = re.compile(r"\s+ecap 000d\[\w+\] = ACS \d+ (Source Validation .*)", re.ASCII)
_ACS_REST = re.compile(r"(?m)(= ACS \d+ .*)((?:\n[ \t]+P2P .*)+)", re.ASCII)
_ACS_NAMES = (
    *("Source Validation", "Translation Blocking", "P2P Req Redirect", "P2P Cmpl Redirect"),
    *("P2P Upstream Forwarding", "P2P Egress Control", "P2P Direct Translated"),
)
"""Bits of both ACS registers, from bit 0 on."""
_KINDS = {
    "endpoint": 0,
    "legacy endpoint": 1,
    "root port": 4,
    "upstream port": 5,
    "downstream port": 6,
    "PCI bridge": 7,
    "PCI to PCIe bridge": 8,
    "root endpoint": 9,
}
_UEFI = re.compile(
    r"\s*([0-9A-F]{2,4})\s+([0-9A-F]{2})\s+([0-9A-F]{2})\s+([0-9A-F]{2})\s+==>\s+(.*?)\s*", re.ASCII
)
_UEFI_IDS = re.compile(r"\s*Vendor ([0-9A-F]{4}) Device ([0-9A-F]{4})\b", re.ASCII)
_UEFI_CLASSES = (("PCI/PCI bridge", 0x0604), ("Host/PCI bridge", 0x0600), ("VGA", 0x0300),
                 ("USB", 0x0C03), ("Ethernet", 0x0200))  # fmt: skip
_UBOOT = re.compile(
    r"\s*([0-9a-f]{2})\.([0-9a-f]{2})\.([0-7]|0[0-7])\s+0x([0-9a-f]{4})\s+0x([0-9a-f]{4})\s+(\S.*)",
    re.ASCII,
)
_ESXI = re.compile(r"\s*Address: ([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])\s*", re.ASCII)
_ESXI_FIELD = re.compile(r"\s*(Vendor ID|Device ID|Device Class|Spawned Bus): 0x([0-9a-f]+)\s*")
_ESXI_FIELDS = {
    "Vendor ID": "vendor_id",
    "Device ID": "device_id",
    "Device Class": "class_code",
    "Spawned Bus": "secondary_bus",
}
"""Fields of ``esxcli hardware pci list``; bus 0 is behind no bridge."""


def other_functions(text: str) -> Iterator[PciFunction]:
    """The functions of such listings; several lines of one function are put together."""
    found: PciFunction | None = None
    for line in _ACS_REST.sub(
        lambda match: match[1] + match[2].replace("\n", ","), text
    ).splitlines():
        heading = _heading(line)
        if heading is None and found is not None:
            heading = _more(found.bdf, line)
        if heading is not None:
            found = heading
            yield heading


def _heading(line: str) -> PciFunction | None:
    """The function that a line begins."""
    if match := _PCICONF.search(line):
        ids = _IDS.search(match[6])
        chip = _CHIP.search(match[6])
        vendor, device = (ids[1], ids[2]) if ids else (chip[2], chip[1]) if chip else ("", "")
        header = _HEADER.search(match[6])
        place = [int(match[number]) for number in (1, 2, 3, 4)]
        return _function(
            place, int(match[5], 16) >> 8, vendor, device, header is not None and header[1] == "00"
        )
    if match := _UEFI.fullmatch(line):
        kind = next((code for words, code in _UEFI_CLASSES if words in match[5]), None)
        return _function([int(match[number], 16) for number in (1, 2, 3, 4)], kind)
    if match := _ESXI.fullmatch(line):
        return PciFunction.partly(parse_address(match[1]))
    if match := _UBOOT.fullmatch(line):
        place = [0, *(int(match[number], 16) for number in (1, 2, 3))]
        kind = 0x0604 if "Bridge" in match[6] and "0x04" in match[6] else None
        return _function(place, kind, match[4], match[5])
    return None


def _more(bdf: Bdf, line: str) -> PciFunction | None:
    """What a further line says of the function before."""
    if match := _RANGE.match(line):
        first, last = int(match[1]), int(match[2])
        return PciFunction.partly(bdf, secondary_bus=first, subordinate_bus=last)
    if match := _EXPRESS.match(line):
        kind = _KINDS.get(match[1].strip())
        return PciFunction.partly(bdf, express_type=kind, express_known=kind is not None)
    if match := _ACS.match(line):
        has, on = (_bits(match[1], words) for words in (("enabled", "disabled"), ("enabled",)))
        return PciFunction.partly(bdf, acs=Acs(has, on), acs_known=True)
    if match := _ESXI_FIELD.fullmatch(line):
        return PciFunction.partly(bdf, **{_ESXI_FIELDS[match[1]]: int(match[2], 16) or None})
    if match := _UEFI_IDS.match(line):
        return PciFunction.partly(bdf, vendor_id=int(match[1], 16), device_id=int(match[2], 16))
    return None


def _bits(states: str, words: tuple[str, ...]) -> int:
    """The bits of ACS that FreeBSD gives one of these states."""
    return sum(
        1 << bit
        for bit, name in enumerate(_ACS_NAMES)
        if any(f"{name} {word}" in states for word in words)
    )


def _function(
    place: list[int], kind: int | None, vendor: str = "", device: str = "", plain: bool = False
) -> PciFunction | None:
    """A function by segment, bus, device and function; ``plain`` if its header is no bridge's."""
    try:
        bdf = Bdf(place[0], SourceId.of(*place[1:]))
    except SourceIdError:
        return None
    ids = {"vendor_id": int(vendor, 16), "device_id": int(device, 16)} if vendor else {}
    return PciFunction.partly(bdf, class_code=kind, header_known=plain, **ids)
