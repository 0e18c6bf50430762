"""Capabilities and register windows of the units that a machine description asks for."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import NamedTuple

from vtd.machine.description import DescribedUnit, Machine
from vtd.machine.reading import Problems, Where
from vtd.unit.implementation import implementation_registers
from vtd.unit.registers.capabilities import PROFILES, Capabilities
from vtd.unit.registers.register_file import RegisterFile

LARGEST_WINDOW = 0x1000 << 15
"""What the Size field of a DRHD structure can say (8.3)."""


class SizedUnit(NamedTuple):
    """A unit with its capabilities and the bytes of its register window."""

    unit: DescribedUnit
    capabilities: Capabilities
    window: int

    @property
    def end(self) -> int:
        """First address after its registers."""
        return self.unit.base + self.window

    def covers(self, start: int, end: int) -> bool:
        """Whether its registers lie in a range of addresses, in part at least."""
        return self.unit.base < end and start < self.end


def describe_units(machine: Machine, problems: Problems) -> list[SizedUnit]:
    """The units of a machine; whatever is wrong with one is noted."""
    if not machine.units:
        problems.add(Where(), "unit", "there is none")
    asked = [(unit, _capabilities(unit, problems)) for unit in machine.units]
    narrowest = min((known.host_address_width for _, known in asked if known), default=52)
    width = narrowest if machine.address_bits is None else machine.address_bits
    if not 12 <= width <= 52:
        problems.add(Where(), "address_bits", f"{width} is not from 12 to 52")
        return []
    units = []
    for unit, known in asked:
        if known is not None:
            sized = replace(known, host_address_width=width)
            for message in sized.check():
                problems.add(unit.where, "", message)
            units.append(SizedUnit(unit, sized, _window(unit, sized, problems)))
    _check_together(machine, units, problems)
    return units


def _capabilities(unit: DescribedUnit, problems: Problems) -> Capabilities | None:
    """What the keys say, whatever it is worth."""
    given = {"version": unit.version, "cap": unit.cap, "ecap": unit.ecap}
    missing = [key for key, value in given.items() if value is None]
    if unit.profile and unit.profile not in PROFILES:
        text = f"{unit.profile!r} is none of {', '.join(PROFILES)}"
        problems.add(unit.where, "profile", text)
        return None
    if not unit.profile and missing:
        problems.add(unit.where, missing[0], "missing, and there is no profile")
        return None
    known = PROFILES[unit.profile or "qemu"]
    values = {
        "version": known.version if unit.version is None else unit.version,
        "cap": known.cap if unit.cap is None else unit.cap,
        "ecap": known.ecap if unit.ecap is None else unit.ecap,
    }
    width = known.host_address_width if unit.profile else 52
    capabilities = Capabilities.of(**values, host_address_width=width)
    for name, value in unit.fields.items():
        changed = _with_field(capabilities, name, value)
        if changed is None:
            problems.add(
                unit.where, f"set: {name}", f"{value!r} is no value of a field of that name"
            )
        else:
            capabilities = changed
    if not unit.profile:
        capabilities = replace(capabilities, host_address_width=_widest(capabilities))
    return capabilities


def _widest(capabilities: Capabilities) -> int:
    """The widest host that a unit fits in, which its MGAW is never less than (11.4.2)."""
    return max(12, min(capabilities.max_guest_address_width, 52))


def _with_field(capabilities: Capabilities, name: str, value: object) -> Capabilities | None:
    """The capabilities with one field changed; None if there is no such field or value."""
    if not isinstance(value, int):
        return None
    for register in ("cap", "ecap", "version"):
        record = getattr(capabilities, register)
        if name in record.FIELDS:
            try:
                return replace(capabilities, **{register: record.replace(**{name: value})})
            except ValueError:
                return None
    return None


def _window(unit: DescribedUnit, capabilities: Capabilities, problems: Problems) -> int:
    """Bytes of the register window: as given, or the fewest that hold all registers."""
    try:
        end = RegisterFile(capabilities, implementation_registers(capabilities)).end
    except ValueError as error:
        problems.add(unit.where, "", str(error))
        return unit.size or 0x1000
    window = unit.size or 0x1000 << max(end - 1 >> 12, 0).bit_length()
    if window & window - 1 or not 0x1000 <= window <= LARGEST_WINDOW:
        text = f"{window:#x} is no power of two from 4 KiB to {LARGEST_WINDOW >> 20} MiB"
        problems.add(unit.where, "size", text)
    elif window < end:
        problems.add(unit.where, "size", f"{window:#x} is less than the registers need: {end:#x}")
    if unit.base % 0x1000:
        problems.add(unit.where, "base", f"{unit.base:#x} is no multiple of 4 KiB")
    return window


def _check_together(machine: Machine, units: list[SizedUnit], problems: Problems) -> None:
    for one, other in combinations(units, 2):
        if one.covers(other.unit.base, other.end):
            text = f"its registers overlap those at {one.unit.base:#x}"
            problems.add(other.unit.where, "base", text)
        both = one.unit.include_all and other.unit.include_all
        if both and one.unit.segment == other.unit.segment:
            text = f"segment {one.unit.segment:04x} has such a unit"
            problems.add(other.unit.where, "include_all", text)
    for each in units:
        if each.end > 1 << each.capabilities.host_address_width:
            text = f"registers up to {each.end - 1:#x} are beyond the address width"
            problems.add(each.unit.where, "base", text)
        for memory in machine.memory:
            if each.covers(memory.start, memory.start + memory.size):
                text = f"its registers overlap the memory from {memory.start:#x} on"
                problems.add(each.unit.where, "base", text)
