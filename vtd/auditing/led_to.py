"""What entries and pointers lead to, apart from paging entries: tables, and descriptors of vCPUs.

VT-d 9.1 to 9.6, 9.10, 11.4.5 and 11.4.10. Left out: FSPTPTR above a second stage, which is an
address of the guest.
"""

from __future__ import annotations

from collections.abc import Iterator

from pagetables.observer import Structure
from vtd.auditing.debt import Pointer, Word
from vtd.auditing.significance import ALL
from vtd.layouts.entries import (
    ContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
    PasidTranslationType,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
    TranslationType,
)
from vtd.layouts.interrupt_entries import PostedIrte
from vtd.layouts.registers import InterruptRemappingTableAddress, RootTableAddress

Place = tuple[int, int]
"""log2 of the size, and the number: a frame, or a posted-interrupt descriptor of 64 bytes."""
FRAME, DESCRIPTOR = 12, 6


def places_of(word: Word, value: int) -> set[Place]:
    """Where a record leads if it holds ``value``; nowhere if it is not present."""
    match word.structure:
        case Structure.INTERRUPT_ENTRY:
            posted = PostedIrte(value)
            there = posted.p and posted.im
            return {(DESCRIPTOR, posted.descriptor_address >> DESCRIPTOR)} if there else set()
        case Pointer.ROOT:
            tables = [RootTableAddress(value).rta]
        case Pointer.INTERRUPT:
            table = InterruptRemappingTableAddress(value)
            tables = list(range(table.irta, table.irta + (32 << table.s), 1 << FRAME))
        case _:
            tables = [address for present, address in _tables(word, value) if present]
    return {(FRAME, address >> FRAME) for address in tables}


def _tables(word: Word, value: int) -> Iterator[tuple[bool, int]]:
    """The tables that an entry names, and whether it does so at present."""
    match word.structure:
        case Structure.ROOT if word.mask == ALL:
            root = RootEntry(value)
            yield root.p, root.ctp
        case Structure.ROOT:
            half = ScalableRootEntry(value & word.mask)
            yield half.lp or half.up, half.lctp | half.uctp
        case Structure.CONTEXT if word.size == ContextEntry.WIDTH // 8:
            context = ContextEntry(value)
            yield context.p and context.tt is not TranslationType.PASS_THROUGH, context.ssptptr
        case Structure.CONTEXT:
            scalable = ScalableContextEntry(value)
            yield scalable.p, scalable.pasiddirptr
        case Structure.PASID_DIRECTORY:
            directory = PasidDirectoryEntry(value)
            yield directory.p, directory.smptblptr
        case Structure.PASID:
            entry = PasidEntry(value)
            yield entry.p and entry.pgtt is FIRST_STAGE, entry.fsptptr
            yield entry.p and entry.pgtt in (SECOND_STAGE, NESTED), entry.ssptptr


FIRST_STAGE, SECOND_STAGE, NESTED = (
    PasidTranslationType.FIRST_STAGE,
    PasidTranslationType.SECOND_STAGE,
    PasidTranslationType.NESTED,
)
