"""A PCI function from the bytes of its configuration space, of whatever length was readable.

PCI Express Base Specification, chapter 7. An ordinary user reads 64 bytes, conventional access 256
and memory-mapped access 4096; capabilities beyond what was read are unknown.
"""

from __future__ import annotations

from collections.abc import Iterator

from devices.capabilities import CapabilityId, DeviceCapabilities, DeviceControl, PcieFlags
from devices.capabilities import ExtendedCapabilityId as Extended
from devices.config_space import ExtendedCapabilityHeader
from devices.source_id import Bdf
from vtd.dmar.pci_tree import Acs, PciFunction, SrIov

HEADER, CONVENTIONAL, EXTENDED = 0x40, 0x100, 0x1000
"""Bytes of the header, of the conventional space, and of all of it."""
ABSENT = 0xFFFF
"""Vendor id of a virtual function, which takes it from its physical function."""
BRIDGE_HEADERS = (1, 2)
HAS_CAPABILITIES = 0x10
"""Bit of the status register."""


def from_config(bdf: Bdf, config: bytes, name: str = "") -> PciFunction:
    """A function from its configuration space, at least the header of 64 bytes."""
    bridge = config[0x0E] & 0x7F in BRIDGE_HEADERS
    secondary, subordinate = config[0x19:0x1B] if bridge else (None, None)
    vendor, device = _u16(config, 0), _u16(config, 2)
    has_list = bool(config[6] & HAS_CAPABILITIES)
    complete = not has_list or len(config) >= CONVENTIONAL
    express = dict(_capabilities(config)).get(CapabilityId.PCI_EXPRESS) if has_list else None
    extended = dict(_extended(config))
    acs, sriov = extended.get(Extended.ACS), extended.get(Extended.SRIOV)
    known = express is not None or complete
    flags = PcieFlags(_u16(config, express + 2)) if express is not None else None
    return PciFunction(
        bdf,
        name,
        class_code=config[0x0B] << 8 | config[0x0A],
        secondary_bus=secondary,
        subordinate_bus=subordinate,
        express_type=flags.port_type if flags is not None else None,
        sriov=_sriov(config, sriov) if sriov else None,
        acs=Acs(_u16(config, acs + 4), _u16(config, acs + 6)) if acs else None,
        vendor_id=None if vendor == ABSENT else vendor,
        device_id=None if device == ABSENT else device,
        phantom_bits=_phantom_bits(config, express) if express is not None else 0,
        express_known=known,
        acs_known=len(config) >= EXTENDED or (known and flags is None),
    )


def _u16(config: bytes, position: int) -> int:
    return int.from_bytes(config[position : position + 2], "little")


def _capabilities(config: bytes) -> Iterator[tuple[int, int]]:
    """Id and position of the capabilities below 100h that were read."""
    seen = set()
    position = config[0x34] & ~3
    while HEADER <= position <= min(len(config), CONVENTIONAL) - 4 and position not in seen:
        seen.add(position)
        yield config[position], position
        position = config[position + 1] & ~3


def _extended(config: bytes) -> Iterator[tuple[int, int]]:
    """Id and position of the capabilities from 100h on that were read."""
    seen = set()
    position = CONVENTIONAL
    while CONVENTIONAL <= position <= len(config) - 8 and position not in seen:
        seen.add(position)
        header = ExtendedCapabilityHeader(int.from_bytes(config[position : position + 4], "little"))
        yield header.capability_id, position
        position = header.next & ~3


def _sriov(config: bytes, position: int) -> SrIov | None:
    """The SR-IOV capability at a position; None if it was not read to its end."""
    if position + 0x18 > len(config):
        return None
    enabled = config[position + 8] & 1
    return SrIov(
        offset=_u16(config, position + 0x14),
        stride=_u16(config, position + 0x16),
        number=_u16(config, position + 0x10) if enabled else 0,
        total=_u16(config, position + 0x0E),
    )


def _phantom_bits(config: bytes, express: int) -> int:
    capabilities = DeviceCapabilities(int.from_bytes(config[express + 4 : express + 8], "little"))
    control = DeviceControl(_u16(config, express + 8))
    return capabilities.phantom_functions if control.phantom_functions else 0
