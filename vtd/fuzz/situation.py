"""What one request of a case meets on the engine: structures, paging entries, and its outcome."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from pagetables.bits import BitRecord
from pagetables.geometry import INDEX_BITS, PAGE_SHIFT
from pagetables.memory import BusError, PhysicalMemory
from pagetables.second_stage import SecondStageEntry
from pagetables.walk import ADDRESS
from vtd.fuzz.case import Case, Outcome, Step, reg_write, store
from vtd.fuzz.targets import engine_as_qemu
from vtd.layouts.entries import (
    ContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
    PasidTranslationType,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
)
from vtd.layouts.registers import GlobalCommand, TranslationTableMode
from vtd.recordings.steps import Dma, DmaWrite, parse_step
from vtd.unit.reporting.events import Event, RequestBlocked
from vtd.unit.translation.lookup import LEVELS


class TableRecord(NamedTuple):
    """An entry that a request meets, and where it is."""

    address: int
    entry: BitRecord
    level: int = 0
    """Of a paging entry, from 1 on."""

    @property
    def shift(self) -> int:
        """log2 of the bytes that a paging entry stands for."""
        return PAGE_SHIFT + INDEX_BITS * (self.level - 1)

    def replaced(self, value: int) -> Step:
        """Software writes another entry there."""
        return store(self.address, value, self.entry.WIDTH // 8)


class Situation(NamedTuple):
    """A request on the engine: the structures it meets, and what becomes of it."""

    case: Case
    address: int
    write: bool
    structures: tuple[TableRecord, ...]
    """Root, context, PASID directory and PASID entry, as far as they can be read."""
    paging: tuple[TableRecord, ...]
    """Paging entries from the top down to the first that is not present or can't be followed."""
    reason: int | None
    """The fault, also one that FPD keeps from being recorded."""
    recorded: bool
    outcomes: tuple[Outcome, ...]
    """Of the request and of the steps up to the next one."""
    served: tuple[Step, ...]
    """Earlier requests of the same device that were let through."""

    def find(self, kind: type[BitRecord]) -> TableRecord | None:
        """The structure of one kind, if the request comes so far."""
        return next((each for each in self.structures if type(each.entry) is kind), None)

    def reserved(self, structure: TableRecord) -> int:
        """The bits of a structure that should be 0 and are not."""
        return structure.entry & structure.entry.reserved_mask(
            self.case.capabilities.implementation
        )


def is_request(step: Step) -> bool:
    """Whether a device asks for something in this step, a transfer or an interrupt."""
    return str(step["op"]).startswith(("dma", "msi"))


def situation_of(case: Case, first: int, last: int, changes: Sequence[Step]) -> Situation:
    """Run a case up to one request, with some structures changed before it and nothing cached."""
    run = engine_as_qemu().start(case)
    asked = parse_step(case.steps[first])
    if not isinstance(asked, Dma):
        raise ValueError(f"step {first}: {asked.op} asks for no memory")
    request = run.requests(asked)[0]
    served: list[Step] = []
    for step in case.steps[:first]:
        _, outcome = run.step(step)
        same = step.get("device") == case.steps[first]["device"]
        if same and is_request(step) and outcome != {"fault": True}:
            served.append(step)
    if changes:
        command = run.unit.read_register(0x1C, 4)
        for step in (*changes, reg_write(0x18, 4, command | GlobalCommand.of(srtp=True))):
            run.step(step)
    root = run.unit.remapping.root
    scalable = root.ttm is TranslationTableMode.SCALABLE
    structures = tuple(_structures(run.memory, root.rta, request.source_id, scalable=scalable))
    paging = tuple(_paging(run.memory, structures, request.address))
    blocked: list[RequestBlocked] = []

    def note(event: Event) -> None:
        if isinstance(event, RequestBlocked):
            blocked.append(event)

    run.unit.subscribe(note)
    outcomes = tuple(run.step(step)[1] for step in case.steps[first:last])
    reason = int(blocked[0].reason) if blocked else None
    recorded = bool(blocked) and blocked[0].recorded
    write = isinstance(asked, DmaWrite)
    return Situation(
        case, request.address, write, structures, paging, reason, recorded, outcomes, tuple(served)
    )


def _structures(
    memory: PhysicalMemory, root_table: int, source_id: int, *, scalable: bool
) -> Iterator[TableRecord]:
    """The structures that requests without PASID of a source-id meet, present or not."""
    bus, devfn = source_id >> 8, source_id & 0xFF
    with suppress(BusError):
        if not scalable:
            root = RootEntry(memory.read_record(root_table + bus * 16, 16))
            yield TableRecord(root_table + bus * 16, root)
            address = root.ctp + devfn * 16
            yield TableRecord(address, ContextEntry(memory.read_record(address, 16)))
            return
        halves = ScalableRootEntry(memory.read_record(root_table + bus * 16, 16))
        yield TableRecord(root_table + bus * 16, halves)
        address = (halves.uctp if devfn & 0x80 else halves.lctp) + (devfn & 0x7F) * 32
        context = ScalableContextEntry(memory.read_record(address, 32))
        yield TableRecord(address, context)
        pasid = context.rid_pasid
        address = context.pasiddirptr + (pasid >> 6) * 8
        directory = PasidDirectoryEntry(memory.read_record(address, 8))
        yield TableRecord(address, directory)
        address = directory.smptblptr + (pasid & 63) * 64
        yield TableRecord(address, PasidEntry(memory.read_record(address, 64)))


def _paging(
    memory: PhysicalMemory, structures: Sequence[TableRecord], address: int
) -> Iterator[TableRecord]:
    """The paging entries of a request with one stage."""
    entry = structures[-1].entry if structures else None
    if isinstance(entry, ContextEntry):
        table, levels = entry.ssptptr, LEVELS.get(entry.aw, 0)
    elif isinstance(entry, PasidEntry) and entry.pgtt is PasidTranslationType.FIRST_STAGE:
        table, levels = entry.fsptptr, 4
    elif isinstance(entry, PasidEntry):
        table, levels = entry.ssptptr, LEVELS.get(entry.aw, 0)
    else:
        return
    with suppress(BusError):
        for level in range(levels, 0, -1):
            where = table + (address >> 3 + 9 * level & 511) * 8
            paging = SecondStageEntry(memory.read_record(where, 8))
            yield TableRecord(where, paging, level)
            if not paging & 3 or (paging & 0x80 and level < levels):
                return
            table = paging & ADDRESS
