"""What a table says about protection from DMA: statements, each marked as proved or not.

A table reports what firmware promises (VT-d 8.1, 8.4). Whether the system uses the units, and
whether firmware keeps its promises, no table can show.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any, NamedTuple

from vtd.dmar.pci_tree import PciTree
from vtd.dmar.records import Atsr, DeviceScope, Place, Rmrr
from vtd.dmar.scopes import Scopes
from vtd.dmar.table import Table


class Verdict(Enum):
    """What a statement is worth."""

    GOOD = "good"
    """The table reports it, and it protects."""
    BAD = "bad"
    """The table reports something that weakens protection."""
    OPEN = "open"
    """The table can't tell."""


class Statement(NamedTuple):
    """One statement about protection, and the bytes it rests on."""

    topic: str
    verdict: Verdict
    text: str
    place: Place | None = None


def statement_row(each: Statement) -> dict[str, Any]:
    """A statement in the form of ``vtd dmar audit --format json``."""
    return {
        "topic": each.topic,
        "verdict": each.verdict.value,
        "text": each.text,
        "offset": each.place.offset if each.place else None,
    }


def audit(table: Table, pci: PciTree | None = None) -> list[Statement]:
    """The statements a table supports; ``pci`` tells which devices are behind which ports."""
    return [
        _opt_in(table),
        _interrupt_remapping(table),
        _x2apic(table),
        *_coverage(table, pci),
        *_regions(table, pci),
        *_translated_requests(table),
        *_limits(),
    ]


def _opt_in(table: Table) -> Statement:
    place = table.header.place("flags")
    if table.header.flags.dma_ctrl_platform_opt_in:
        text = (
            "set: firmware promises that its own DMA stays inside the RMRR ranges after hand-over; "
            "Windows Kernel DMA Protection and remapping for untrusted ports on Linux rest on it"
        )
        return Statement("DMA_CTRL_PLATFORM_OPT_IN", Verdict.GOOD, text, place)
    text = (
        "clear: Windows Kernel DMA Protection stays off, Linux does not force remapping for "
        "untrusted ports"
    )
    return Statement("DMA_CTRL_PLATFORM_OPT_IN", Verdict.BAD, text, place)


def _interrupt_remapping(table: Table) -> Statement:
    place = table.header.place("flags")
    if table.header.flags.intr_remap:
        text = "INTR_REMAP set: forged interrupts of devices can be blocked"
        return Statement("interrupt remapping", Verdict.GOOD, text, place)
    text = "INTR_REMAP clear: a device that writes to 0xFEEx_xxxx can raise any interrupt"
    return Statement("interrupt remapping", Verdict.BAD, text, place)


def _x2apic(table: Table) -> Statement:
    place = table.header.place("flags")
    if table.header.flags.x2apic_opt_out:
        text = "X2APIC_OPT_OUT set: firmware asks for xAPIC mode, 8-bit interrupt destinations"
        return Statement("x2APIC", Verdict.BAD, text, place)
    return Statement("x2APIC", Verdict.GOOD, "firmware does not ask to leave x2APIC off", place)


def _coverage(table: Table, pci: PciTree | None) -> Iterator[Statement]:
    if table.truncated or table.rest:
        text = "the table can't be read to its end: units and regions may be missing here"
        yield Statement("coverage", Verdict.OPEN, text, table.rest_place)
        return
    if not table.units:
        yield Statement("units", Verdict.BAD, "no remapping unit: nothing is remapped")
        return
    everything = {unit.segment for unit in table.units if unit.flags.include_pci_all}
    for segment in sorted({unit.segment for unit in table.units}):
        if segment in everything:
            text = f"every PCI device of segment {segment} is under a unit"
            yield Statement("coverage", Verdict.GOOD, text)
        else:
            text = f"segment {segment} has no INCLUDE_PCI_ALL unit: devices not listed pass freely"
            yield Statement("coverage", Verdict.BAD, text)
    listed = pci.segments if pci else frozenset()
    for segment in sorted(listed - {unit.segment for unit in table.units}):
        text = f"segment {segment} has functions and no unit: nothing is remapped there"
        yield Statement("coverage", Verdict.BAD, text)


def _regions(table: Table, pci: PciTree | None) -> Iterator[Statement]:
    """Regions stay mapped one to one for their devices; on external ports that is a way in."""
    regions = table.all(Rmrr)
    if not regions and (table.truncated or table.rest):
        text = "no RMRR in the part of the table that can be read"
        yield Statement("regions", Verdict.OPEN, text, table.rest_place)
        return
    if not regions:
        yield Statement("regions", Verdict.GOOD, "no RMRR: no memory stays open to devices")
        return
    scopes = Scopes(table, pci)
    for each in regions:
        size = max(0, each.end - each.base)
        for entry in each.scopes:
            subject = f"0x{each.base:x}, {size >> 10} KiB, open to {entry}"
            bdf = scopes.resolve(each.segment, entry)
            bridges = pci.bridges_above(bdf) if pci and bdf else []
            outside = len(entry.path) > 1 or entry.type == DeviceScope.PCI_SUB_HIERARCHY or bridges
            if outside:
                text = f"{subject}: behind a bridge, so a device in an external port may reach it"
                yield Statement("regions", Verdict.BAD, text, entry.place())
            else:
                text = f"{subject}: an integrated device"
                yield Statement("regions", Verdict.OPEN, text, entry.place())


def _translated_requests(table: Table) -> Iterator[Statement]:
    for each in table.all(Atsr):
        which = "all root ports" if each.flags.all_ports else ", ".join(map(str, each.scopes))
        text = (
            f"{which} of segment {each.segment} support ATS: software that enables it trusts the "
            "devices behind to send translated addresses honestly"
        )
        yield Statement("ATS", Verdict.OPEN, text, each.place())


def _limits() -> Iterator[Statement]:
    for topic, text in (
        ("use", "whether the system turns remapping on, and in which mode"),
        ("firmware", "whether firmware protects memory from DMA before the hand-over"),
        ("devices", "whether functions behind one bridge are isolated from each other (ACS)"),
        ("memory", "whether the regions are reserved in the memory map (see rule DMAR-K01)"),
    ):
        yield Statement(topic, Verdict.OPEN, f"not in the table: {text}")
