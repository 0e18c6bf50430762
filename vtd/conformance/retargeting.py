"""Interrupts of a case redirected to the one processor of the guest, which tells what came.

Destination, delivery mode and vector of remapping entries, of the unit's own events and of
compatibility-format messages become what a local APIC with the id 0 accepts; everything that may
make the unit refuse stays. What would still be no plain interrupt there is not sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vtd.conformance.observing import Observed, observe
from vtd.fuzz.case import Case, Step
from vtd.layouts.interrupt_entries import (
    CompatibilityAddress,
    CompatibilityData,
    DeliveryMode,
    DestinationMode,
    RemappedIrte,
)
from vtd.layouts.registers import InterruptRemappingTableAddress
from vtd.unit.caching.policy import KEEPS_STALE
from vtd.unit.departures import Departures
from vtd.unit.interrupts.outcome import Interrupt

LOWEST = 0x30
"""Vectors below are the processor's and those of events."""
EVENTS = {0x3C: 0x21, 0xA4: 0x22, 0xE4: 0x23}
"""Data registers of fault, invalidation and page request events, and the vectors that they get."""
CONTROLS = {each - 4 for each in EVENTS}
MASK = 1 << 31
"""IM of the control registers."""
ADDRESSES = {each + 4 for each in EVENTS}
UPPER = {each + 8 for each in EVENTS}
ENTRY = 16
TABLE = 0xB8
PLAIN = (DeliveryMode.FIXED, DeliveryMode.LOWEST_PRIORITY)
XAPIC_DESTINATION = 0xFF << 40
EXTENDED_DESTINATION = 0xFFFF_FFFF << 32


def retargeted(case: Case, departures: Departures) -> tuple[Case, frozenset[int]]:
    """The case for one processor, and the steps whose message is better not sent."""
    if not _interrupts(case):
        return case, frozenset()
    seen = observe(case, KEEPS_STALE, departures)
    entries = list(_tables(case))
    posts = "pi" in case.capabilities.features
    events = any(seen.events) or _unmasked(case)
    steps = [
        _events(step)
        if events and step["op"] == "reg_write"
        else _step(step, entries, number, seen, posts=posts)
        for number, step in enumerate(case.steps)
    ]
    changed = replace(case, steps=tuple(steps))
    again = observe(changed, KEEPS_STALE, departures)
    hidden = (
        number
        for number, interrupts in enumerate(again.delivered)
        if not all(map(visible, interrupts))
    )
    return changed, frozenset(hidden)


def visible(interrupt: Interrupt) -> bool:
    """Whether the local APIC with id 0 takes it as a plain interrupt."""
    return (
        interrupt.delivery_mode in PLAIN
        and interrupt.vector >= LOWEST
        and interrupt.destination_mode is DestinationMode.PHYSICAL
        and interrupt.destination == 0
    )


def _interrupts(case: Case) -> bool:
    """Whether anything of a case may interrupt."""
    offsets = {int(step["offset"], 0) for step in case.steps if step["op"] == "reg_write"}
    return bool(offsets & set(EVENTS)) or any(step["op"] == "msi" for step in case.steps)


def _tables(case: Case) -> Iterator[tuple[range, int]]:
    """The interrupt-remapping tables that the case ever names, and where entries name the APIC."""
    value = 0
    for step in case.steps:
        if step["op"] != "reg_write" or int(step["offset"], 0) not in (TABLE, TABLE + 4):
            continue
        written = int(step["value"], 0)
        if step["size"] == 8:
            value = written
        elif int(step["offset"], 0) == TABLE:
            value = value >> 32 << 32 | written
        else:
            value = value & 0xFFFF_FFFF | written << 32
        address = InterruptRemappingTableAddress(value)
        size = ENTRY << address.s + 1
        mask = EXTENDED_DESTINATION if address.eime else XAPIC_DESTINATION
        yield range(address.irta, address.irta + size), mask


def _step(
    step: Step, tables: list[tuple[range, int]], number: int, seen: Observed, *, posts: bool
) -> Step:
    match step["op"]:
        case "mem_write":
            return _entries(step, tables, posts=posts)
        case "msi" if seen.delivered[number]:
            if not seen.remapped[number] or not int(step["address"], 0) & 1 << 4:
                return _message(step)
    return step


def _unmasked(case: Case) -> bool:
    """Whether events of the unit are let through at some time."""
    return any(
        step["op"] == "reg_write"
        and int(step["offset"], 0) in CONTROLS
        and not int(step["value"], 0) & MASK
        for step in case.steps
    )


def _events(step: Step) -> Step:
    """A register write that says where events of the unit go: to the APIC."""
    offset = int(step["offset"], 0)
    if offset in EVENTS:
        return {**step, "value": hex(EVENTS[offset])}
    if offset in ADDRESSES and step["size"] == 4:
        return {**step, "value": hex(CompatibilityAddress.of(fee=0xFEE))}
    if offset in UPPER:
        return {**step, "value": "0x0"}
    return step


def _message(step: Step) -> Step:
    """A message in compatibility format; whatever else is in its address stays."""
    address = int(step["address"], 0)
    kept = address & ~int(CompatibilityAddress.of(dst=0xFF, dm=1, rh=True))
    data = CompatibilityData.of(v=vector(CompatibilityData(int(step["data"], 0)).v))
    return {**step, "address": hex(kept), "data": hex(data)}


def vector(number: int) -> int:
    """A vector that an interrupt may have here."""
    return number if number >= LOWEST else number | 0x40


def _entries(step: Step, tables: list[tuple[range, int]], *, posts: bool) -> Step:
    """A store with the entries that are in it redirected, where their lower half is in it.

    ``posts``: IM of an entry says that it is a posted one; else it is but a reserved bit.
    """
    address, data = int(step["addr"], 0), bytearray.fromhex(step["hex"])
    for table, mask in tables:
        if address + len(data) <= table.start or address >= table.stop:
            continue
        first = (max(address, table.start) + ENTRY - 1) // ENTRY * ENTRY
        for place in range(first, min(address + len(data), table.stop) - 7, ENTRY):
            low = slice(place - address, place - address + 8)
            entry = RemappedIrte(int.from_bytes(data[low], "little"))
            if not (posts and entry.im):
                data[low] = _redirected(entry, mask).to_bytes(8, "little")
    return {**step, "hex": data.hex()}


def _redirected(entry: RemappedIrte, mask: int) -> int:
    """The lower half of an entry: reserved values stay, as they are what is tested."""
    if not entry.p:
        return entry
    known = entry.dlm if entry.dlm in (3, 6) else DeliveryMode.FIXED
    changed = entry.replace(v=vector(entry.v), dm=DestinationMode.PHYSICAL, rh=False, dlm=known)
    return int(changed) & ~mask
