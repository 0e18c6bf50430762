"""``vtd explain``: kernel log lines about DMAR in words, faults folded and put into context."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from devices.source_id import Bdf
from vtd.commands.reading import Lspci, read_pci_tree, read_table, read_text, unusable_input
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.dmar.pci_tree import PciTree
from vtd.dmar.records import Rmrr
from vtd.dmar.scopes import Scopes
from vtd.inspection.fault_causes import CAUSES
from vtd.inspection.kernel_log import FoldedFaults, LogLine, RequestKind, fold, parse_log
from vtd.inspection.kernel_log_messages import Message, meaning_of

MOST_STRANGE = 0.25
"""Share of a log's characters that may be none of text; a console that colours lines adds some."""
SHOWN_RANGES = 8
"""Ranges of addresses listed before the rest is only counted."""


def explain(
    file: Annotated[
        str, typer.Argument(metavar="[FILE]", help="Kernel log (dmesg, journal); - is stdin.")
    ] = "-",
    dmar: Annotated[
        Path | None, typer.Option(help="DMAR table of the machine, in any form validate reads.")
    ] = None,
    lspci: Lspci = None,
    format: Output = Format.TEXT,
) -> None:
    """Explain the DMAR lines of a kernel log: faults, firmware problems, what was set up.

    Exit code 0 if there are neither faults nor problems, 1 if there are, 2 for unusable input.
    """
    with unusable_input(file):
        faults, lines = parse_log(_read_log(file))
    table = read_table(str(dmar)) if dmar else None
    pci = read_pci_tree(lspci)
    scopes = Scopes(table, pci) if table else None
    groups, messages = fold(faults), _folded_lines(lines)
    fault_rows = [_fault_json(group, scopes) for group in groups]
    message_rows = [_message_json(message, texts) for message, texts in messages]
    document = {"faults": fault_rows, "messages": message_rows}
    shown = _lines(groups, messages, scopes, pci)
    show(CommandAnswer(document, fault_rows + message_rows, shown), format)
    if faults or any(message and message.weight == "problem" for message, _ in messages):
        raise typer.Exit(1)


def _read_log(file: str) -> str:
    """The text of a log; ValueError if there is none, or if it is no text."""
    text = read_text(file).replace("\0", "")  # which a crash leaves in a log
    if not text.strip():
        raise ValueError("empty")
    strange = sum(each == "\ufffd" or not (each.isprintable() or each.isspace()) for each in text)
    if strange > MOST_STRANGE * len(text):
        raise ValueError("not the text of a kernel log")
    return text


def _lines(
    groups: list[FoldedFaults],
    messages: list[tuple[Message | None, list[LogLine]]],
    scopes: Scopes | None,
    pci: PciTree | None,
) -> Iterator[str]:
    for group in groups:
        yield from _fault_lines(group, scopes, pci)
        yield ""
    for message, texts in messages:
        yield from _message_lines(message, texts)
    if not groups and not messages:
        yield "no line about DMAR"


def _fault_lines(group: FoldedFaults, scopes: Scopes | None, pci: PciTree | None) -> Iterator[str]:
    """The paragraph on one kind of fault of one device."""
    pasid = "" if group.pasid is None else f" with PASID 0x{group.pasid:x}"
    first, last = group.lines
    where = f"line {first}" if first == last else f"lines {first}-{last}"
    times = "once" if group.count == 1 else f"{group.count} times"
    yield f"{_device(group.source, pci)}: {group.kind.value}{pasid} blocked {times} ({where})"
    what = "index" if group.kind is RequestKind.INTERRUPT else "address"
    yield f"  {what}: {_ranges(group)}"
    if group.ranges[0][0] == 0 and group.kind is not RequestKind.INTERRUPT:
        yield "  address 0: often a null pointer or a descriptor that was never filled in"
    yield from _reason_lines(group.reason)
    if group.levels:
        yield f"  dump: tables end above level {', '.join(map(str, group.levels))}"
    if pci is not None:
        yield from _alias_lines(group.source, pci)
    if scopes is not None:
        yield from _scope_lines(group, scopes)


def _fault_json(group: FoldedFaults, scopes: Scopes | None) -> dict[str, Any]:
    cause = CAUSES.get(group.reason)
    owner = scopes.owner(group.source) if scopes else None
    return {
        "device": str(group.source),
        "kind": group.kind.value,
        "pasid": group.pasid,
        "reason": group.reason,
        "text": cause.reason.text if cause else None,
        "stopped_at": cause.where if cause else None,
        "likely": list(cause.likely) if cause else [],
        "look_at": list(cause.look_at) if cause else [],
        "count": group.count,
        "lines": list(group.lines),
        "ranges": [[hex(start), hex(end - 1)] for start, end in group.ranges],
        "unit": hex(owner.unit.register_base) if owner else None,
    }


def _message_json(message: Message | None, lines: list[LogLine]) -> dict[str, Any]:
    return {
        "weight": message.weight if message else "unknown",
        "meaning": message.meaning if message else None,
        "look_at": message.look_at if message else None,
        "lines": [line._asdict() for line in lines],
    }


def _device(source: Bdf, pci: PciTree | None) -> str:
    function = pci.functions.get(source) if pci else None
    return f"{source} ({function.name})" if function and function.name else str(source)


def _ranges(group: FoldedFaults) -> str:
    shown = [
        f"0x{start:x}" if end - start == 1 else f"0x{start:x}-0x{end - 1:x}"
        for start, end in group.ranges[:SHOWN_RANGES]
    ]
    hidden = len(group.ranges) - len(shown)
    return ", ".join(shown) + (f" and {hidden} more ranges" if hidden else "")


def _reason_lines(code: int) -> Iterator[str]:
    cause = CAUSES.get(code)
    if cause is None:
        yield f"  reason: 0x{code:02x}, not assigned by the specification"
        return
    yield f"  reason: 0x{code:02x} {cause.reason.text}"
    yield f"  stopped at: {cause.where}"
    for text in cause.likely:
        yield f"  likely: {text}"
    for text in cause.look_at:
        yield f"  look at: {text}"


def _alias_lines(source: Bdf, pci: PciTree) -> Iterator[str]:
    """Functions whose requests carry this id, and whether the id is a function at all."""
    behind = [str(bdf) for bdf in pci.functions if bdf != source and pci.alias(bdf) == source]
    if behind:
        yield f"  alias: requests of {', '.join(behind)} carry this id"
    elif source not in pci.functions:
        yield "  alias: no such function; a bridge or a device made this id up"


def _scope_lines(group: FoldedFaults, scopes: Scopes) -> Iterator[str]:
    owner = scopes.owner(group.source)
    if owner is None:
        yield "  unit: the table puts this device under no unit"
    else:
        yield f"  unit: 0x{owner.unit.register_base:x}, {owner.reason.value}"
    if group.kind is RequestKind.INTERRUPT:
        return
    own = scopes.regions(group.source)
    for region in scopes.table.all(Rmrr):
        if any(start < region.end and region.base < end for start, end in group.ranges):
            whose = "this device" if region in own else "another device"
            yield f"  region: inside the RMRR 0x{region.base:x}-0x{region.limit:x} of {whose}"


def _folded_lines(lines: list[LogLine]) -> list[tuple[Message | None, list[LogLine]]]:
    """Lines of the same meaning together; lines of no known meaning each by themselves."""
    groups: dict[str, tuple[Message | None, list[LogLine]]] = {}
    for line in lines:
        message = meaning_of(line.text)
        key = message.meaning if message else line.text
        groups.setdefault(key, (message, []))[1].append(line)
    order = {"problem": 0, "notice": 1, "normal": 2}
    return sorted(groups.values(), key=lambda group: order[group[0].weight] if group[0] else 3)


def _message_lines(message: Message | None, lines: list[LogLine]) -> Iterator[str]:
    weight = message.weight if message else "unknown"
    times = f" ({len(lines)} lines)" if len(lines) > 1 else ""
    yield f"{weight:8} line {lines[0].line}: {lines[0].text}{times}"
    if message:
        yield f"  {message.meaning}"
        if message.look_at:
            yield f"  look at: {message.look_at}"
