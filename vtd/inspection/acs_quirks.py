"""Devices that Linux takes to be isolated although they have no ACS capability, or a broken one.

Facts from ``pci_dev_acs_enabled`` and the functions it names in ``drivers/pci/quirks.c`` of Linux
6.18, for vendors whose devices are met beside an Intel remapping unit. Left out: root ports of ARM,
Loongson and Zhaoxin processors, and what depends on the AMD IOMMU.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from devices.capabilities import AcsCapabilities, PortType
from vtd.dmar.pci_tree import PciFunction

INTEL, SOLARFLARE, EMULEX, EMULEX_OLD, BROADCOM, WANGXUN = (
    0x8086, 0x1924, 0x10DF, 0x19A2, 0x14E4, 0x8088,
)  # fmt: skip
SOURCE = "drivers/pci/quirks.c, Linux 6.18"


class Quirk(Enum):
    """Why Linux takes a device to be isolated."""

    PCH_ROOT_PORT = "root port of a PCH that isolates like ACS (Red Hat bug 1037684)"
    SHIFTED_CONTROL = "root port of a 100 or 200 series PCH, whose ACS control is at offset 8"
    FUNCTIONS_APART = "its maker says that its functions can't reach each other"
    INTEGRATED = "Intel integrated endpoint: peer to peer by translated addresses only (3.16)"


def _ids(*ranges: Iterable[int]) -> frozenset[int]:
    return frozenset(number for each in ranges for number in each)


PCH_ROOT_PORTS = _ids(
    range(0x3B42, 0x3B52),  # Ibex Peak
    range(0x1C10, 0x1C20),  # Cougar Point
    range(0x1E10, 0x1E20),  # Panther Point
    range(0x8C10, 0x8C20),  # Lynx Point-H
    range(0x9C10, 0x9C1C),  # Lynx Point-LP
    range(0x9C90, 0x9C9C),  # Wildcat Point
    range(0x1D10, 0x1D20, 2),  # Patsburg (X79)
    range(0x8D10, 0x8D1F),  # Wellsburg (X99)
    range(0x8C90, 0x8CA0, 2),  # Lynx Point, 9 series
)
SHIFTED_CONTROL_PORTS = _ids(
    range(0xA110, 0xA120), range(0xA167, 0xA16B),  # Sunrise Point
    range(0xA290, 0xA2A0), range(0xA2E7, 0xA2EF),  # Union Point
    range(0x9D10, 0x9D1C),  # 7th and 8th generation mobile
)  # fmt: skip
FUNCTIONS_APART: dict[int, frozenset[int]] = {
    INTEL: frozenset((
        0x10C6, 0x10DB, 0x10DD, 0x10E1, 0x10F1, 0x10F7, 0x10F8, 0x10F9, 0x10FA, 0x10FB, 0x10FC,
        0x1507, 0x1514, 0x151C, 0x1529, 0x152A, 0x154D, 0x154F, 0x1551, 0x1558,
        0x1509, 0x150E, 0x150F, 0x1510, 0x1511, 0x1516, 0x1527,  # 82580
        0x10C9, 0x10E6, 0x10E7, 0x10E8, 0x150A, 0x150D, 0x1518, 0x1526,  # 82576
        0x10A7, 0x10A9, 0x10D6,  # 82575
        0x1521, 0x1522, 0x1523, 0x1524,  # I350
        0x105E, 0x105F, 0x1060, 0x10D9,  # 82571
        0x15B7, 0x15B8,  # I219
    )),
    SOLARFLARE: frozenset((0x0903, 0x0923, 0x0A03)),
    EMULEX_OLD: frozenset((0x0710,)),
    EMULEX: frozenset((0x0720,)),
    BROADCOM: frozenset((0x16D7, 0x1750, 0x1751, 0x1752, 0x1760, 0x1761, 0x1762, 0x1763)),
    WANGXUN: _ids(range(0x0100, 0x0110), (0x1001, 0x2001, 0x5010, 0x5025, 0x5040),
                  (0x5110, 0x5125, 0x5140)),
}  # fmt: skip


def quirk(function: PciFunction) -> Quirk | None:
    """The reason for which Linux takes a function to be isolated; None if there is none."""
    vendor, device, kind = function.vendor_id, function.device_id, function.express_type
    if vendor is None or device is None:
        return None
    if device in FUNCTIONS_APART.get(vendor, ()):
        return Quirk.FUNCTIONS_APART
    if vendor == INTEL and kind == PortType.ROOT_COMPLEX_ENDPOINT:
        return Quirk.INTEGRATED
    if vendor == INTEL and kind == PortType.ROOT_PORT:
        if device in PCH_ROOT_PORTS:
            return Quirk.PCH_ROOT_PORT
        if device in SHIFTED_CONTROL_PORTS and function.acs is not None:
            return Quirk.SHIFTED_CONTROL
    return None


REQUIRED = AcsCapabilities.of(sv=1, rr=1, cr=1, uf=1)
"""What Linux wants enabled before it takes a port or a function to be isolated."""
EGRESS_CONTROL = AcsCapabilities.of(ec=1)
