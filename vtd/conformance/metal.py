"""Real machines: which unit of one may be looked at, and what is looked at. Nothing is written.

A unit is asked for by its base. Left out: everything that needs requests, as a real machine has no
device that is there to be tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from devices.source_id import Bdf, SourceId
from vtd.conformance.image import KitError
from vtd.conformance.kit import Wanted
from vtd.conformance.probe import Probe
from vtd.dmar.listing.config_space import from_config
from vtd.dmar.pci_tree import PciFunction, PciTree
from vtd.dmar.scopes import Scopes
from vtd.dmar.table import Table
from vtd.fuzz.case import Case, reg_read
from vtd.layouts.registers import Capability, ExtendedCapability, Version
from vtd.unit.implementation import implementation_registers
from vtd.unit.registers.register_map import register_map

STORAGE, DISPLAY = 0x01, 0x03
WHOLE = (Version, Capability, ExtendedCapability)
"""Registers whose every bit the probe has told."""
KNOWN = 256
"""Bytes of registers that a probe has."""


def one_unit(probe: Probe, base: int) -> Probe:
    """The machine as if it had the unit at ``base`` alone, and no device.

    KitError if there is none, or if graphics, disks or devices with reserved memory are behind it.
    """
    unit = next((each for each in probe.units if each.base == base), None)
    if unit is None:
        bases = ", ".join(f"{each.base:#x}" for each in probe.units)
        raise KitError(f"no unit at {base:#x}: {bases}")
    table = Table.parse(probe.dmar)
    functions = list(_functions(probe))
    scopes = Scopes(table, PciTree(functions))
    for each in functions:
        owner, why = scopes.owner(each.bdf), _untouchable(each, scopes)
        if why and owner is not None and owner.unit.register_base == base:
            raise KitError(f"{why} behind the unit at {base:#x}: {each.bdf}")
    own = tuple(each for each in table.units if each.register_base == base)
    alone = Table(table.header, own).sealed().pack()
    return replace(probe, dmar=alone, units=(unit,), functions={}, controllers={})


def _functions(probe: Probe) -> Iterator[PciFunction]:
    for place, space in probe.functions.items():
        yield from_config(Bdf(0, SourceId(place)), space)


def _untouchable(function: PciFunction, scopes: Scopes) -> str:
    """Why nothing may be tried where a function is; empty if nothing is known against it."""
    if scopes.regions(function.bdf):
        return "a device with a reserved memory region is"
    kind = None if function.class_code is None else function.class_code >> 8
    return {STORAGE: "disks, perhaps that of the system, are", DISPLAY: "graphics are"}.get(
        kind or 0, ""
    )


def register_cases(probe: Probe) -> Iterator[Wanted]:
    """A case for each register of the one unit that the probe has: reserved bits read 0."""
    unit = probe.capabilities
    places = register_map(unit.features, unit.cap, unit.ecap, implementation_registers(unit))
    for (register, number), offset in places.items():
        size = register.WIDTH // 8
        reserved = register.reserved_mask(unit.implementation)
        mask = (1 << register.WIDTH) - 1 if register in WHOLE else reserved
        if mask and size <= 8 and offset + size <= KNOWN:
            name = register.__name__ if register.COUNT == 1 else f"{register.__name__}-{number}"
            yield Wanted(name, "registers", Case(unit, (reg_read(offset, size, mask),)))
