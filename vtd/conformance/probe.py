"""What a machine told of itself: memory, DMAR table, units and PCI functions; see ``probe.c``.

The kit is built for exactly this. Left out: more than one segment, and functions that only extended
configuration space shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from construct import Int32ul, Int64ul, Struct

from vtd.conformance.devices import Device
from vtd.conformance.format import Begin, Driver, Kind
from vtd.conformance.frames import Received
from vtd.conformance.image import KitError
from vtd.dmar.records import Rmrr
from vtd.dmar.table import Table
from vtd.layouts.registers import GlobalStatus
from vtd.unit.registers.capabilities import Capabilities

FORMAT = "vtd-probe-2"
PROBE_BASE = 0x200_0000
"""Where the image that probes goes: 32 MiB, which firmware leaves alone."""
USABLE = 1
"""The type of ordinary memory in a memory map."""
EDU = 0x11E8_1234
NICS = (0x10D3_8086, 0x10C9_8086)
"""82574, which QEMU calls e1000e, and 82576, which it calls igb."""
IOAT = 0x2021_8086
BRIDGE_CLASS = 0x0604
NVME_CLASS = 0x01_08_02
MSI, EXPRESS, MSI_X = 0x05, 0x10, 0x11
MEMORY_BUFFER = 1 << 57
"""CAP.CMBS of an NVMe controller."""
PCIE_TO_PCI = 7
MapEntry = Struct("start" / Int64ul, "length" / Int64ul, "type" / Int32ul)


class Span(NamedTuple):
    """Memory from ``start`` up to, not including, ``end``."""

    start: int
    end: int


@dataclass(frozen=True)
class UnitFound:
    """A unit of the table, and its registers as they were."""

    base: int
    registers: bytes

    def value(self, offset: int, size: int) -> int:
        """A register."""
        return int.from_bytes(self.registers[offset : offset + size], "little")

    def capabilities(self, host_address_width: int) -> Capabilities:
        """What it says that it can do."""
        values = self.value(0, 4), self.value(8, 8), self.value(0x10, 8)
        return Capabilities.of(*values, host_address_width)


@dataclass(frozen=True)
class Probe:
    """A machine."""

    memory: tuple[Span, ...]
    """Ordinary memory."""
    dmar: bytes
    units: tuple[UnitFound, ...]
    functions: dict[int, bytes]
    """Configuration spaces by bus and devfn."""
    controllers: dict[int, int] = field(default_factory=dict)
    """CAP of NVMe controllers whose registers can be seen, by bus and devfn."""
    virtual: bool = True
    """Whether a hypervisor says that this is a virtual machine."""

    @classmethod
    def of_frames(cls, frames: Iterable[Received]) -> Probe:
        """What a machine said; KitError if that is not all of it, or makes no sense."""
        memory: list[Span] = []
        table, units, functions, controllers = b"", [], {}, {}
        last, virtual = None, False
        for each in frames:
            last = each.kind
            match each.kind:
                case Kind.BEGIN:
                    virtual = bool(Begin.parse(each.data).hypervisor)
                case Kind.MEMORY:
                    entry = MapEntry.parse(each.data)
                    if entry.type == USABLE:
                        memory.append(Span(entry.start, entry.start + entry.length))
                case Kind.TABLE:
                    table = each.data
                case Kind.UNIT:
                    base = int.from_bytes(table[each.number + 8 : each.number + 16], "little")
                    units.append(UnitFound(base, each.data))
                case Kind.FUNCTION:
                    functions[each.number] = each.data
                case Kind.CONTROLLER:
                    controllers[each.number] = int.from_bytes(each.data, "little")
                case Kind.PROBLEM:
                    raise KitError(f"the payload met exception {each.number}")
        if last is not Kind.END:
            raise KitError("the probe is cut: the machine did not come to its end")
        found = cls(tuple(memory), table, tuple(units), functions, controllers, virtual)
        return found.checked()

    def checked(self) -> Probe:
        """The same, if it can be true; KitError says what can't."""
        if not self.dmar:
            raise KitError("the machine has no DMAR table, so no unit to test")
        if not self.units:
            raise KitError("the DMAR table names no unit")
        try:
            Table.parse(self.dmar)
        except ValueError as error:
            raise KitError(f"DMAR table: {error}") from error
        for before, after in zip(sorted(self.memory), sorted(self.memory)[1:], strict=False):
            if after.start < before.end:
                raise KitError(f"memory at {after.start:#x} is listed twice")
        bases = {each.register_base for each in Table.parse(self.dmar).units}
        for unit in self.units:
            if unit.base not in bases:
                raise KitError(f"the unit at {unit.base:#x} is not one of the table")
            if unit.value(0, 4) in (0, 0xFFFF_FFFF):
                raise KitError(f"there is no unit at {unit.base:#x}: its version reads as nothing")
            if any(each.start <= unit.base < each.end for each in self.memory):
                raise KitError(f"the unit at {unit.base:#x} lies in memory")
            contradictions = unit.capabilities(self.host_address_width).check()
            if contradictions:
                raise KitError(f"the unit at {unit.base:#x}: {contradictions[0]}")
        return self

    @property
    def frames(self) -> list[range]:
        """The whole frames of memory, by number, in ascending order."""
        return [range(each.start + 4095 >> 12, each.end >> 12) for each in sorted(self.memory)]

    @cached_property
    def host_address_width(self) -> int:
        """HAW of the table."""
        return Table.parse(self.dmar).header.host_address_width + 1

    @property
    def unit(self) -> UnitFound:
        """The one unit; KitError if there are several, if it is in use, or if firmware needs it.

        A device with a reserved region (8.4) works all the time, and its memory stays mapped: the
        kit would take it away.
        """
        if len(self.units) > 1:
            raise KitError(f"{len(self.units)} units; the kit tests machines with one")
        reserved = next(
            (each for each in Table.parse(self.dmar).structures if isinstance(each, Rmrr)), None
        )
        if reserved is not None:
            raise KitError(f"a device has a reserved memory region at {reserved.base:#x}: no test")
        status = GlobalStatus(self.units[0].value(0x1C, 4))
        if status.tes or status.ires or status.qies:
            raise KitError("the unit is in use: firmware or whoever came before switched it on")
        return self.units[0]

    @property
    def capabilities(self) -> Capabilities:
        """Of the one unit."""
        return self.unit.capabilities(self.host_address_width)

    def devices(self) -> dict[int, Device]:
        """What can do DMA on demand, by the source-id of its requests."""
        found = {}
        for place, space in self.functions.items():
            device = (
                self._edu_or_nic(place, space)
                or self._nvme(place, space)
                or self._ioat(place, space)
            )
            if device is not None:
                found[self._alias(place >> 8, place)] = device
        return found

    def unusable(self) -> dict[int, str]:
        """NVMe controllers that the kit can't use, by bus and devfn, and why."""
        return {
            place: "its registers can't be seen"
            if place not in self.controllers
            else "it has no memory for its queue, which would be requests too"
            for place, space in self.functions.items()
            if _word(space, 8) >> 8 == NVME_CLASS and self._nvme(place, space) is None
        }

    def _edu_or_nic(self, place: int, space: bytes) -> Device | None:
        driver = {EDU: Driver.EDU, **dict.fromkeys(NICS, Driver.NIC)}.get(_word(space, 0))
        registers, message = _word(space, 0x10) & ~0xF, _capability(space, MSI)
        if driver is None or not registers or message is None:
            return None
        return Device(driver, place >> 8, place & 0xFF, message, registers)

    def _nvme(self, place: int, space: bytes) -> Device | None:
        """A controller with a memory buffer: its queue is then no request of its own."""
        message = _capability(space, MSI_X)
        buffered = self.controllers.get(place, 0) & MEMORY_BUFFER
        if _word(space, 8) >> 8 != NVME_CLASS or message is None or not buffered:
            return None
        upper = _word(space, 0x14) if _word(space, 0x10) & 4 else 0
        registers = upper << 32 | _word(space, 0x10) & ~0xF
        return Device(Driver.NVME, place >> 8, place & 0xFF, message, registers)

    def _ioat(self, place: int, space: bytes) -> Device | None:
        registers = _word(space, 0x14) << 32 | _word(space, 0x10) & ~0xF
        if _word(space, 0) != IOAT or not registers:
            return None
        return Device(Driver.IOAT, place >> 8, place & 0xFF, 0, registers)

    def _alias(self, bus: int, source_id: int) -> int:
        """The source-id that requests of a bus have at the root complex (3.9.1)."""
        for place, space in self.functions.items():
            if _word(space, 8) >> 16 == BRIDGE_CLASS and space[0x19] == bus:
                express = _capability(space, EXPRESS)
                if express is not None and space[express + 2] >> 4 == PCIE_TO_PCI:
                    source_id = bus << 8
                return self._alias(place >> 8, source_id)
        return source_id

    def to_json(self) -> Any:
        """The document of a probe file."""
        return {
            "format": FORMAT,
            "memory": [[hex(each.start), hex(each.end - each.start)] for each in self.memory],
            "dmar": self.dmar.hex(),
            "units": [
                {"base": hex(each.base), "registers": each.registers.hex()} for each in self.units
            ],
            "functions": {f"{place:04x}": space.hex() for place, space in self.functions.items()},
            "controllers": {f"{place:04x}": hex(cap) for place, cap in self.controllers.items()},
            "virtual": self.virtual,
        }

    @classmethod
    def from_json(cls, raw: Any) -> Probe:
        """The probe in a document; KitError names what is wrong with it."""
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            raise KitError(f"not a probe of format {FORMAT}")
        try:
            memory = tuple(
                Span(int(start, 0), int(start, 0) + int(length, 0))
                for start, length in raw["memory"]
            )
            units = tuple(
                UnitFound(int(each["base"], 0), bytes.fromhex(each["registers"]))
                for each in raw["units"]
            )
            functions = {
                int(place, 16): bytes.fromhex(space) for place, space in raw["functions"].items()
            }
            controllers = {
                int(place, 16): int(cap, 0) for place, cap in raw.get("controllers", {}).items()
            }
            dmar, virtual = bytes.fromhex(raw["dmar"]), bool(raw["virtual"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise KitError(f"a probe with broken values: {error!r}") from error
        if any(len(space) != 256 for space in functions.values()):
            raise KitError("a probe with a configuration space that is not one of 256 bytes")
        if any(len(each.registers) != 256 for each in units):
            raise KitError("a probe with a unit whose registers are not 256 bytes")
        return cls(memory, dmar, units, functions, controllers, virtual).checked()


def read_probe(path: Path) -> Probe:
    """The probe in a file; KitError names the file."""
    try:
        return Probe.from_json(json.loads(path.read_text("utf-8")))
    except KitError as error:
        raise KitError(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise KitError(f"{path}: no JSON: {error}") from error


def _word(space: bytes, offset: int) -> int:
    return int.from_bytes(space[offset : offset + 4], "little")


def _capability(space: bytes, wanted: int) -> int | None:
    """Where a capability of configuration space is."""
    place = space[0x34] & 0xFC if space[6] & 0x10 else 0
    for _ in range(48):
        if place < 0x40 or place > 0xF8:
            return None
        if space[place] == wanted:
            return place
        place = space[place + 1] & 0xFC
    return None
