"""The sections about a unit: address maps of its sources, walks, and its interrupt table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from devices.dma import READ, WRITE, Request
from devices.source_id import SourceId
from pagetables.extents import ListingLimitError
from vtd.auditing.lint_rules import LintFinding
from vtd.dmar.table import Table
from vtd.inspection.address_map import AddressSpace, address_spaces, shared_memory
from vtd.inspection.interrupt_rows import listed_row, table_row
from vtd.inspection.interrupt_table import list_entries
from vtd.inspection.interrupt_text import entry_text, fault_text, sender_names
from vtd.inspection.reach import Reach, ReachedRange, list_reach, reach_row
from vtd.inspection.request_explanation import explain_request, is_interrupt
from vtd.inspection.request_picture import request_svg, request_walk
from vtd.inspection.request_rows import request_row
from vtd.inspection.request_text import fault_text as refusal
from vtd.layouts.registers import GlobalStatus
from vtd.pictures.canvas import Tone
from vtd.pictures.walk import Entry
from vtd.plain import plain
from vtd.report.section import TONES, Section, command, counted, worst
from vtd.ruling import finding_object
from vtd.unit.requests.faults import TranslationFault
from vtd.unit.unit import RemappingUnit

MOST_ENTRIES = 1_000_000
"""Table entries that are looked at for one source; `vtd mappings` goes on to more."""
MOST_WALKS, WALKS_OF_A_SPACE = 24, 3
MOST_SHARED = 200
PAGE_SHIFT = 12
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def translation_section(
    name: str,
    unit: RemappingUnit,
    faults: Sequence[Request] = (),
    findings: Sequence[LintFinding] = (),
) -> Section:
    """Who may reach what, with walks of some addresses and of those that met faults."""
    status = unit.registers[GlobalStatus]
    commands = (command("mappings", name), command("lint", name))
    if not status.tes:
        text = "DMA remapping is off, requests pass unchanged"
        return Section("translation", "Address maps", name, text, Tone.WARN, {}, commands)
    try:
        reaches = list(list_reach(unit.remapping, limit=MOST_ENTRIES))
    except TranslationFault as fault:
        text = f"RTADDR_REG: {refusal(fault)}"
        return Section("translation", "Address maps", name, text, Tone.BAD, {}, commands)
    except ListingLimitError as error:
        text = f"too large to be shown: {error}"
        return Section("translation", "Address maps", name, text, Tone.WARN, {}, commands)
    spaces = address_spaces(reaches)
    shared = list(shared_memory(spaces))
    ranges = sum(len(each.ranges) for each in spaces)
    refused = any(reach.refused or reach.source.fault for reach in reaches)
    return Section(
        "translation",
        "Address maps",
        name,
        f"{counted(len(reaches), 'source')} in {counted(len(spaces), 'address space')}, "
        f"{counted(ranges, 'range')}, {counted(len(findings), 'finding')}",
        worst([Tone.WARN] * refused + [TONES[each.severity] for each in findings]),
        {
            "sources": [_source(each, spaces) for each in reaches],
            "spaces": [_space(each) for each in spaces],
            "shared": [
                {**plain(each), "bytes": each.end - each.start} for each in shared[:MOST_SHARED]
            ],
            "more_shared": max(0, len(shared) - MOST_SHARED),
            "walks": list(_walks(name, unit, spaces, faults)),
            "findings": [
                {**finding_object(each), "where": each.where, "tone": TONES[each.severity]}
                for each in findings
            ],
        },
        commands,
    )


def _source(reach: Reach, spaces: Sequence[AddressSpace]) -> dict[str, Any]:
    """The row of a source without its pages, which its address space has."""
    row: dict[str, Any] = plain(reach_row(replace(reach, pages=())))
    del row["leaves"], row["details"]
    space = next((n for n, each in enumerate(spaces) if reach in each.reaches), None)
    last = reach.source.alike - 1
    return row | {
        "source": str(reach.source.source_id),
        "until": str(SourceId(reach.source.source_id + last))
        if last and reach.source.pasid is None
        else None,
        "pages": len(reach.pages),
        "bytes": sum(each.length for each in reach.pages),
        "space": space,
    }


def _space(space: AddressSpace) -> dict[str, Any]:
    target = space.reaches[0].source.target
    assert target is not None  # or it would be no space
    stages = [each for each in (target.first, target.second) if each]
    width = target.first.geometry.width if target.first else target.width
    return {
        "sources": [_named(each) for each in space.reaches],
        "tables": [
            {"levels": len(each.geometry.levels), "root": hex(each.root << PAGE_SHIFT)}
            for each in stages
        ],
        "width": width,
        "mapped": sum(each.length for each in space.ranges),
        "ranges": len(space.ranges),
        "clusters": plain(space.clusters()),
        "packed": packed(space.ranges),
    }


def _named(reach: Reach) -> str:
    pasid = reach.source.pasid
    return f"{reach.source.source_id}" + (f" PASID {pasid:#x}" if pasid is not None else "")


def packed(ranges: Sequence[ReachedRange]) -> str:
    """Ranges for the page's script, in units of 4 KiB and base 36.

    Each is ``hole.length.physical.rights``, where the hole is that before it; blanks between.
    """
    words, end = [], 0
    for each in ranges:
        start, length = each.address >> PAGE_SHIFT, each.length >> PAGE_SHIFT
        physical = each.physical >> PAGE_SHIFT
        numbers = (base_36(start - end), base_36(length), base_36(physical))
        words.append(f"{'.'.join(numbers)}.{each.rights}")
        end = start + length
    return " ".join(words)


def base_36(number: int) -> str:
    """A number with the digits that JavaScript's parseInt reads."""
    digits = ""
    rest = abs(number)
    while rest:
        rest, digit = divmod(rest, 36)
        digits = DIGITS[digit] + digits
    return f"{'-' if number < 0 else ''}{digits or '0'}"


def _walks(
    name: str, unit: RemappingUnit, spaces: Sequence[AddressSpace], faults: Sequence[Request]
) -> Iterator[dict[str, Any]]:
    """Requests that met faults, then some of each space: its first pages, and a hole."""
    wanted = [*faults, *(each for space in spaces for each in _samples(space))]
    for request in list(dict.fromkeys(wanted))[:MOST_WALKS]:
        if is_interrupt(request) or request.address >> 64:
            continue
        explained = explain_request(unit.remapping, request)
        walk = request_walk(explained)
        words = [name, hex(request.address), "--device", str(SourceId(request.source_id))]
        words += ["--pasid", hex(request.pasid)] if request.pasid is not None else []
        words += ["--write"] if request.access == WRITE else []
        yield {
            "title": walk.title,
            "verdict": walk.verdict,
            "tone": walk.tone,
            "picture": request_svg(explained, inline=True),
            "steps": [_step(each) for each in _in_order(walk.entries)],
            "command": command("walk", *words),
            "row": plain(request_row(explained)),
        }


def _samples(space: AddressSpace) -> Iterator[Request]:
    source = space.reaches[0].source
    for cluster in space.clusters()[: WALKS_OF_A_SPACE - 1]:
        first = next(each for each in space.ranges if each.address >= cluster.start)
        access = READ if "r" in first.rights else WRITE
        yield Request(source.source_id, first.address, access, 1, source.pasid)
    for cluster in space.clusters()[-1:]:
        yield Request(source.source_id, cluster.end & (1 << 64) - 1, READ, 1, source.pasid)


def _in_order(entries: Sequence[Entry]) -> Iterator[Entry]:
    """Entries as they are read: those that find a table before the entry in it."""
    for each in entries:
        yield from _in_order(each.way)
        yield each


def _step(entry: Entry) -> dict[str, Any]:
    raw = None if entry.raw is None else f"{entry.raw:#0{2 + entry.width // 4}x}"
    return {
        "name": entry.name,
        "address": entry.address,
        "raw": raw,
        "fields": [
            {
                "name": each.name,
                "bits": f"{each.high}:{each.low}" if each.high != each.low else str(each.high),
                "value": each.value,
            }
            for each in entry.fields
        ],
        "remark": entry.remark,
        "tone": entry.tone,
    }


def interrupts_section(name: str, unit: RemappingUnit, table: Table | None = None) -> Section:
    """What each interrupt-remapping entry does, and who may use it."""
    status = unit.registers[GlobalStatus]
    names = sender_names(table)
    entries = []
    for listed in list_entries(unit.interrupts, unit.remapping.memory) if status.irtps else ():
        row: Mapping[str, Any] = plain(listed_row(listed))
        entries.append(
            {
                **row,
                "text": entry_text(listed.entry),
                "sender": names.get(listed.entry.sid, ""),
                "refusal": fault_text(listed.fault) if listed.fault else "",
            }
        )
    users: dict[str, list[int]] = {}
    for each in entries:
        users.setdefault(each["requesters"], []).append(each["index"])
    anyone = len(users.get("anyone", ()))
    state = "on" if status.ires else "off"
    return Section(
        "interrupts",
        "Interrupts",
        name,
        f"interrupt remapping is {state}, {counted(len(entries), 'entry', 'entries')} present, "
        f"{anyone} open to anyone",
        Tone.GOOD if status.ires and not anyone else Tone.WARN,
        {
            "table": plain(table_row(unit.interrupts.table, enabled=status.ires)),
            "entries": entries,
            "users": users,
        },
        (command("irte", name),),
    )
