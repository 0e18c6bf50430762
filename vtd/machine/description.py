"""What a machine description holds: memory, units, bridges, functions, reserved regions.

:func:`read_machine` makes it of TOML text. Keys that no table here has are errors; a description
that says more (guests, policies) names its own tables in ``beside`` and reads them itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

from devices.ats import Misbehaviour, put_device_tlb
from devices.capabilities import AcsCapabilities, PortType
from devices.device_tlb import DeviceTlb, Replacement
from devices.function import PciFunction
from devices.source_id import Bdf, SourceId
from vtd.dmar.pci_tree import parse_address
from vtd.machine.reading import (
    U16,
    U32,
    U64,
    Located,
    Natural,
    Problems,
    Reader,
    Size,
    Where,
    at_most,
    keyed,
)

ISOLATING = ("sv", "rr", "cr", "uf")
"""The ACS bits that keep functions apart, which Linux switches on."""


class Slot(NamedTuple):
    """Where a function is plugged in: device and function number of a bus."""

    bus: tuple[int, int] | str
    """Segment and number of a root bus, or the name of the bridge whose secondary bus it is."""
    device: int
    function: int

    def __str__(self) -> str:
        if isinstance(self.bus, str):
            return f"{self.bus}/{self.device:02x}.{self.function}"
        segment, bus = self.bus
        return str(Bdf(segment, SourceId.of(bus, self.device, self.function)))


def parse_slot(value: object) -> Slot:
    """``0000:00:1c.0`` on a root bus, ``NAME/00.0`` behind the bridge NAME."""
    text = str(value)
    bridge, slash, rest = text.rpartition("/")
    try:
        bdf = parse_address(f"00:{rest}" if slash else text)
    except ValueError as error:
        raise ValueError(
            f"{text!r} is neither a place on a root bus, such as 0000:00:1c.0, nor one behind a "
            "bridge, such as NAME/00.0"
        ) from error
    bus = bridge if slash else (bdf.segment, bdf.source_id.bus)
    return Slot(bus, bdf.source_id.device, bdf.source_id.function)


def acs_bits(value: object) -> tuple[str, ...]:
    """Names of ACS bits; true stands for those that isolate."""
    if value is True:
        return ISOLATING
    known = AcsCapabilities.FIELDS
    if not isinstance(value, list) or any(each not in known for each in value):
        raise ValueError(f"{value!r} is no list of ACS bits: {', '.join(list(known)[:-1])}")
    return tuple(value)


class BridgeKind(StrEnum):
    """Bridges and ports by name."""

    ROOT_PORT = "root_port"
    UPSTREAM_PORT = "upstream_port"
    DOWNSTREAM_PORT = "downstream_port"
    PCIE_TO_PCI = "pcie_to_pci"
    PCI_TO_PCIE = "pci_to_pcie"
    PCI_TO_PCI = "pci_to_pci"

    @property
    def port_type(self) -> PortType | None:
        """The type of the PCI Express capability; None for a conventional bridge."""
        return _PORT_TYPES[self]


_PORT_TYPES = {
    BridgeKind.ROOT_PORT: PortType.ROOT_PORT,
    BridgeKind.UPSTREAM_PORT: PortType.UPSTREAM_PORT,
    BridgeKind.DOWNSTREAM_PORT: PortType.DOWNSTREAM_PORT,
    BridgeKind.PCIE_TO_PCI: PortType.PCIE_TO_PCI_BRIDGE,
    BridgeKind.PCI_TO_PCIE: PortType.PCI_TO_PCIE_BRIDGE,
    BridgeKind.PCI_TO_PCI: None,
}


class BusRange(NamedTuple):
    """Bus numbers behind a bridge, the last one included."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first:02x}-{self.last:02x}"


_BUSES = re.compile(r"([0-9a-f]{1,2})(?:-([0-9a-f]{1,2}))?", re.IGNORECASE | re.ASCII)


def parse_buses(value: object) -> BusRange:
    """``3a-3f`` or ``3a``, in hexadecimal."""
    match = _BUSES.fullmatch(str(value))
    if match is None:
        raise ValueError(f"{value!r} are no bus numbers such as '3a-3f'")
    first, last = int(match[1], 16), int(match[2] or match[1], 16)
    if not 0 < first <= last:
        raise ValueError(f"{value!r} are no bus numbers behind a bridge")
    return BusRange(first, last)


At = Annotated[Slot, parse_slot]
Buses = Annotated[BusRange, parse_buses]
AcsBits = Annotated[tuple[str, ...], acs_bits]


@dataclass(frozen=True, kw_only=True)
class DescribedMemory(Located):
    """``[[memory]]``: ordinary memory."""

    start: U64
    size: Size
    read_only: bool = False


@dataclass(frozen=True, kw_only=True)
class DescribedSystemDevice(Located):
    """An I/O APIC (``id`` is its APIC id) or HPET block of a unit, and its source-id."""

    id: U16
    at: At


@dataclass(frozen=True, kw_only=True)
class DescribedUnit(Located):
    """``[[unit]]``: a remapping unit. Its capabilities are a profile's or given in registers."""

    base: U64
    """Address of its registers."""
    profile: str = ""
    version: U32 | None = None
    cap: U64 | None = None
    ecap: U64 | None = None
    fields: Mapping[str, Any] = field(default_factory=dict, metadata={"key": "set"})
    """Fields of VER, CAP and ECAP that differ from the profile."""
    size: Size | None = None
    """Bytes of the register window; as few as hold the registers if not given."""
    segment: U16 = 0
    include_all: bool = False
    devices: tuple[str, ...] = ()
    """Names or places of functions; a bridge stands for all that is behind it."""
    io_apics: tuple[DescribedSystemDevice, ...] = keyed("io_apic")
    hpets: tuple[DescribedSystemDevice, ...] = keyed("hpet")


@dataclass(frozen=True, kw_only=True)
class DescribedRegion(Located):
    """``[[region]]``: memory that firmware reserved for devices (RMRR, 8.4)."""

    start: U64
    size: Size
    devices: tuple[str, ...]
    segment: U16 = 0


@dataclass(frozen=True, kw_only=True)
class DescribedBridge(Located):
    """``[[bridge]]``: a port or bridge."""

    name: str
    at: At
    kind: BridgeKind
    acs: AcsBits = ()
    """What its ACS capability can do; without any it has none."""
    acs_enabled: AcsBits | None = None
    """What is switched on; if not given, those of ``acs`` that isolate."""
    buses: Buses | None = None
    """First and last bus number behind it, as ``"3a-3f"``; the next that it needs if not given."""
    bus_master: bool = True
    vendor_id: U16 = 0x1B36
    device_id: U16 = 0x000C


@dataclass(frozen=True, kw_only=True)
class DescribedSwitch(Located):
    """``[[switch]]``: an upstream port, and downstream ports called NAME.0, NAME.1, ..."""

    name: str
    at: At
    ports: Natural
    acs: AcsBits = ()
    """Of its downstream ports."""
    acs_enabled: AcsBits | None = None


@dataclass(frozen=True, kw_only=True)
class DescribedVmd(Located):
    """``[[vmd]]``: an endpoint that has root buses in a domain of its own, as Intel's VMD.

    Functions there are placed by that domain, ``10000:00:1c.0``; their requests carry its id.
    """

    name: str
    at: At
    domain: Annotated[int, at_most(0xFFFF_FFFF)]
    """Linux numbers such domains from 10000h on."""
    device_id: U16 = 0x28C0
    bus_master: bool = True


@dataclass(frozen=True, kw_only=True)
class DescribedSriov(Located):
    """Virtual functions that a model without any of its own is given."""

    total: U16
    first_offset: U16
    stride: U16
    device_id: U16 = 0xFFFF


@dataclass(frozen=True, kw_only=True)
class DescribedDeviceTlb(Located):
    """A device-TLB in front of a function, whatever its model."""

    capacity: Natural | None = 64
    """Translations that it keeps."""
    replacement: Replacement = Replacement.LRU
    misbehaviour: Misbehaviour = Misbehaviour.NONE
    page_requests: U32 = 0
    """Page requests that it can have outstanding; without any it never asks."""

    def put(self, function: PciFunction) -> None:
        """Put it in front of a function; ValueError if that has one."""
        tlb = DeviceTlb(self.capacity, self.replacement)
        put_device_tlb(function, tlb, self.misbehaviour, page_requests=self.page_requests)


@dataclass(frozen=True, kw_only=True)
class DescribedFunction(Located):
    """``[[function]]``: a function with the behaviour of a device model."""

    at: At
    name: str = ""
    model: str = "inert"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the model's constructor."""
    ats: DescribedDeviceTlb | None = None
    """A device-TLB of its own; true is one as it comes."""
    vf_ats: DescribedDeviceTlb | None = None
    """One in front of each of its virtual functions."""
    sriov: DescribedSriov | None = None
    vfs: U16 = 0
    """Virtual functions that are switched on."""
    bus_master: bool = False


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A whole description."""

    address_bits: Natural | None = None
    """Host address width; that of the narrowest unit if not given."""
    x2apic_opt_out: bool = False
    dma_protection_opt_in: bool = False
    memory: tuple[DescribedMemory, ...] = keyed("memory")
    units: tuple[DescribedUnit, ...] = keyed("unit")
    regions: tuple[DescribedRegion, ...] = keyed("region")
    bridges: tuple[DescribedBridge, ...] = keyed("bridge")
    switches: tuple[DescribedSwitch, ...] = keyed("switch")
    vmds: tuple[DescribedVmd, ...] = keyed("vmd")
    functions: tuple[DescribedFunction, ...] = keyed("function")


def read_machine(text: str, file: str = "", beside: Collection[str] = ()) -> Machine:
    """The machine that TOML text describes; MachineError names everything that is wrong.

    ``file`` is what errors call it; keys in ``beside`` belong to somebody else.
    """
    problems = Problems(file)
    reader = Reader(text, problems)
    problems.check()
    values = {key: value for key, value in reader.values.items() if key not in beside}
    machine = reader.read(Machine, values, Where())
    problems.check()
    assert machine is not None  # or there would have been a problem
    return machine
