"""``vtd explain``: what a log says about remapping in words, faults folded and put into context."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from vtd.commands.counted import counted
from vtd.commands.exit_codes import FOUND
from vtd.commands.platform_files import MemoryMap, PlatformFiles, read_platform
from vtd.commands.reading import (
    Lspci,
    read_files,
    table_beside,
    unusable_input,
)
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.dmar.scopes import Owner
from vtd.inspection.collection import LOG, Files
from vtd.logs.causes import cause_of
from vtd.logs.context import NO_CAPABILITIES, Context, RegionHit, put_in_context
from vtd.logs.fault import FoldedFaults, RequestKind
from vtd.logs.log import Log, MessageGroup, read_log
from vtd.logs.message import Weight
from vtd.logs.reading import LogError, lines_of
from vtd.logs.rows import log_row

SHOWN_RANGES = 8
"""Ranges of addresses listed before the rest is only counted."""
SHOWN_LINES = 5
"""Further lines of a message that are listed before the rest is only counted."""
NO_LINE = "no line about DMAR"


def explain(
    file: Annotated[
        str,
        typer.Argument(
            metavar="[FILE]",
            help="Log of a kernel, hypervisor or firmware (dmesg, journal, console); - is stdin.",
        ),
    ] = "-",
    dmar: Annotated[
        Path | None, typer.Option(help="DMAR table of the machine, in any form validate reads.")
    ] = None,
    lspci: Lspci = None,
    memory_map: MemoryMap = None,
    format: Output = Format.TEXT,
) -> None:
    """Explain what a log says about DMA and interrupt remapping: faults, problems, what was set up.

    What the log itself tells of the machine is used; options come first. Exit code 0 if there is
    neither fault nor problem, 1 if there is, or if no line could be understood, 2 for unusable
    input.
    """
    with unusable_input(file):
        files = read_files(file)
        log = _read(file, files)
    table = table_beside(file, dmar)
    given = PlatformFiles(memory_map=memory_map, lspci=lspci)
    log, context = put_in_context(log, table, read_platform(given, file if files else None))
    document = log_row(log, context)
    rows = document["faults"] + document["messages"]
    show(CommandAnswer(document, rows, as_text(log, context)), format)
    if not log.is_clean:
        raise typer.Exit(FOUND)


def _read(file: str, files: Files | None) -> Log:
    if files is not None:
        if LOG not in files.contents:
            raise LogError(f"no {LOG} in it")
        return read_log(lines_of(io.BytesIO(files.contents[LOG])))
    if file != "-":
        with Path(file).open("rb") as stream:
            return read_log(lines_of(stream))
    if sys.stdin is None:
        raise LogError("closed")
    return read_log(lines_of(sys.stdin.buffer))


def as_text(log: Log, context: Context) -> Iterator[str]:
    """What a log tells in lines of text."""
    for group in log.faults:
        yield from _fault_lines(group, context)
        yield ""
    for message in log.messages:
        yield from _message_lines(message)
    if not log.faults and not log.messages:
        yield NO_LINE
        return
    yield ""
    yield _summary(log)


def _summary(log: Log) -> str:
    """How many lines there are of each kind, unknown ones too."""
    faults = sum(group.count for group in log.faults)
    lines = dict.fromkeys(Weight, 0)
    for group in log.messages:
        lines[group.weight] += len(group.lines)
    counts = ", ".join(f"{number} {weight.value}" for weight, number in lines.items())
    return f"{counted(faults, 'fault')}; lines: {counts}"


def _fault_lines(group: FoldedFaults, context: Context) -> Iterator[str]:
    """The paragraph on one kind of fault of one device."""
    pasid = "" if group.pasid is None else f" with PASID 0x{group.pasid:x}"
    first, last = group.lines
    where = f"line {first}" if first == last else f"lines {first}-{last}"
    times = "once" if group.count == 1 else f"{group.count} times"
    device = _device(group, context)
    yield f"{device}: {group.kind.value}{pasid} blocked {times} ({where})"
    if group.system != "Linux":
        yield f"  printed by: {group.system}"
    if group.missing:
        yield f"  missing: the log does not tell the {' and the '.join(group.missing)}"
    if group.ranges:
        what = "index" if group.kind is RequestKind.INTERRUPT else "address"
        yield f"  {what}: {_ranges(group)}"
        if group.ranges[0][0] == 0 and group.kind is not RequestKind.INTERRUPT:
            yield "  address 0: often a null pointer or a descriptor that was never filled in"
    if group.note:
        yield f"  note: {group.note}"
    if group.reason is not None:
        yield from _reason_lines(group.reason, group.pasid)
    if group.levels:
        yield f"  dump: no entry present at level {', '.join(map(str, group.levels))}"
    for text in group.contradictions:
        yield f"  dump: {text}"
    if group.source is not None:
        yield from _source_lines(group, context)


def _device(group: FoldedFaults, context: Context) -> str:
    if group.source is None:
        return "unknown device"
    name = context.name(group.source) or context.system_device(group.source).partition(",")[0]
    return f"{group.source} ({name})" if name else str(group.source)


def _ranges(group: FoldedFaults) -> str:
    shown = [
        f"0x{start:x}" if end - start == 1 else f"0x{start:x}-0x{end - 1:x}"
        for start, end in group.ranges[:SHOWN_RANGES]
    ]
    hidden = len(group.ranges) - len(shown)
    return ", ".join(shown) + (f" and {hidden} more ranges" if hidden else "")


def _reason_lines(code: int, pasid: int | None) -> Iterator[str]:
    cause = cause_of(code, pasid)
    if cause is None:
        yield f"  reason: 0x{code:02x}, not assigned by the specification"
        return
    yield f"  reason: 0x{code:02x} {cause.reason.text}"
    yield f"  stopped at: {cause.where}"
    for text in cause.likely:
        yield f"  likely: {text}"
    for text in cause.look_at:
        yield f"  look at: {text}"


def _source_lines(group: FoldedFaults, context: Context) -> Iterator[str]:
    """Who the source-id is, its unit, and the regions that the addresses are in."""
    assert group.source is not None
    system_device = context.system_device(group.source)
    if system_device:
        yield f"  source: the {system_device}"
        if group.kind is RequestKind.INTERRUPT and group.count == 1:
            yield "  harmless once: an interrupt sent just before remapping was switched on"
    elif hint := context.hint(group):
        yield f"  source: {hint}"
    yield from _alias_lines(group, context, bool(system_device))
    if context.has_table:
        yield f"  unit: {_unit(context.owner(group.source))}"
    hits = context.regions(group)
    for hit in hits:
        yield f"  region: {_region(hit)}"
    if not hits and context.in_reserved_memory(group):
        yield "  memory: the memory map reserves it, but no RMRR is known there"


def _alias_lines(group: FoldedFaults, context: Context, is_system_device: bool) -> Iterator[str]:
    """Functions whose requests carry this id, and whether the id is a function at all."""
    assert group.source is not None
    if context.pci is None or is_system_device:
        return
    behind = context.alias(group.source)
    if behind:
        yield f"  alias: requests of {', '.join(map(str, behind))} carry this id"
    elif context.is_listed(group.source) is False:
        yield "  alias: no such function; a bridge or a device made this id up"
        if invented := context.invented(group.source):
            bridge, behind = invented
            yield (
                f"  alias: {bridge} may be a bridge to PCI: then these are requests of "
                + ", ".join(map(str, behind))
            )
    elif behind is None and context.is_listed(group.source):
        yield f"  alias: {NO_CAPABILITIES}"


def _unit(owner: Owner | str | None) -> str:
    if owner is None:
        return "the table puts this device under no unit"
    if isinstance(owner, str):
        return owner
    return f"0x{owner.unit.register_base:x}, {owner.reason.value}"


def _region(hit: RegionHit) -> str:
    text = f"inside the RMRR 0x{hit.base:x}-0x{hit.limit:x} of {hit.whose.value}"
    if hit.is_reserved is False:
        text += "; the memory map does not reserve it (rule DMAR-K01)"
    return text


def _other_lines(group: MessageGroup) -> Iterator[str]:
    """More lines of a group that say something else, where they matter."""
    if group.weight is Weight.NORMAL:
        return
    texts = {line.text: line.line for line in reversed(group.lines)}
    others = sorted((number, text) for text, number in texts.items())[1:]
    for number, text in others[:SHOWN_LINES]:
        yield f"  line {number}: {text}"
    if len(others) > SHOWN_LINES:
        yield f"  and {len(others) - SHOWN_LINES} more that differ"


def _message_lines(group: MessageGroup) -> Iterator[str]:
    if not group.lines:
        yield f"{group.weight.value:8} {group.meaning}"
    else:
        first = group.lines[0]
        times = f" ({len(group.lines)} lines)" if len(group.lines) > 1 else ""
        yield f"{group.weight.value:8} line {first.line}: {first.text}{times}"
        if group.meaning:
            yield f"  {group.meaning}"
        yield from _other_lines(group)
    if group.look_at:
        yield f"  look at: {group.look_at}"
