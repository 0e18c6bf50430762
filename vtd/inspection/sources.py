"""Every source that the tables of a unit know, and the pages that each may use.

VT-d 3.4, 9.1 to 9.6: a listing for people, of what is present in root, context and PASID tables. A
source whose entries are not usable is listed with the fault its requests meet, and so is what lies
behind a table that can't be read. Nothing changes: no flag, no fault record, no cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

from devices.source_id import SourceId
from pagetables.extents import ListingLimitError, Page, Refused, leaves, nested_leaves
from pagetables.memory import TableMemory
from pagetables.walk import Stage, WalkFault
from vtd.layouts.entries import PasidTranslationType
from vtd.layouts.registers import TranslationTableMode
from vtd.unit.requests.faults import FaultReason, TranslationFault
from vtd.unit.requests.target import Target
from vtd.unit.translation.lookup import (
    check_mode,
    legacy_context,
    pasid_limit,
    pasid_target,
    scalable_context,
)
from vtd.unit.translation.remapping import Remapping, onlooker

KINDS = {
    PasidTranslationType.FIRST_STAGE: "first-stage",
    PasidTranslationType.SECOND_STAGE: "second-stage",
    PasidTranslationType.NESTED: "nested",
    PasidTranslationType.PASS_THROUGH: "pass-through",
}
PASIDS_PER_TABLE = 64
NO_TABLE = frozenset(
    {
        FaultReason.ROOT_NOT_PRESENT,
        FaultReason.SM_ROOT_NOT_PRESENT,
        FaultReason.PASID_DIRECTORY_NOT_PRESENT,
    }
)
"""Nothing of the table is present."""
BAD_TABLE = frozenset(
    {
        FaultReason.ROOT_READ_ERROR,
        FaultReason.ROOT_RESERVED,
        FaultReason.SM_ROOT_READ_ERROR,
        FaultReason.SM_ROOT_RESERVED,
        FaultReason.PASID_DIRECTORY_READ_ERROR,
        FaultReason.PASID_DIRECTORY_RESERVED,
    }
)
"""No entry of the table can be used: the entry that leads to it is broken."""
UNREADABLE = frozenset(
    {
        FaultReason.CONTEXT_READ_ERROR,
        FaultReason.SM_CONTEXT_READ_ERROR,
        FaultReason.PASID_READ_ERROR,
    }
)
"""The entry itself is where no memory is, and so are those around it."""
NOT_PRESENT = frozenset(
    {
        FaultReason.CONTEXT_NOT_PRESENT,
        FaultReason.SM_CONTEXT_NOT_PRESENT,
        FaultReason.PASID_NOT_PRESENT,
    }
)


class Source(NamedTuple):
    """A requester, in scalable mode with one of its PASIDs."""

    source_id: SourceId
    pasid: int | None
    """None in legacy mode, or where no PASID of the requester is present."""
    target: Target | None
    fault: TranslationFault | None
    """Why there is no target; None too where no PASID is present."""
    alike: int = 1
    """Source-ids, or PASIDs where there is one, that are refused alike from this one on."""

    def concerns(self, source_id: SourceId) -> bool:
        """Whether the requester is this one, or refused alike."""
        requesters = self.alike if self.pasid is None else 1
        return self.source_id <= source_id < self.source_id + requesters

    @property
    def kind(self) -> str:
        """``second-stage``, ``first-stage``, ``nested``, ``pass-through``, ``reserved`` or
        ``no-pasid-entry``."""
        if self.target is not None:
            return KINDS[self.target.kind]
        return "no-pasid-entry" if self.fault is None else "reserved"


def list_sources(remapping: Remapping) -> Iterator[Source]:
    """The present entries in ascending order; TranslationFault if the mode is not usable.

    An entry with P = 0 is none, also where its requests meet the fault of another condition.
    """
    remapping = onlooker(remapping)
    departures = replace(remapping.options.departures, check_pgtt_before_present=False)
    remapping.options = replace(remapping.options, departures=departures)
    check_mode(remapping, has_pasid=False)
    if remapping.mode is TranslationTableMode.LEGACY:
        look, per_table = partial(_legacy_requester, remapping), 256
    else:
        look, per_table = partial(_scalable_requester, remapping), 128
    yield from _together(_entries(1 << 16, per_table, look, _refused_requester))


def pages(
    remapping: Remapping,
    target: Target,
    limit: int | None = None,
    refused: Refused | None = None,
) -> list[Page]:
    """The pages of a target; ListingLimitError beyond ``limit`` entries, none if passed through.

    Large tables are listed as columns if the ``fast`` extra is installed, with the same result.
    """
    memory, first, second = remapping.memory, target.first, target.second
    if find_spec("numpy") is None or (limit is not None and limit <= SMALL):
        return list(_listed(memory, first, second, target.width, limit, refused))
    held: list[tuple[int, int, WalkFault]] = []

    def hold(*part: Any) -> None:
        held.append(part)

    try:
        found = list(_listed(memory, first, second, target.width, SMALL, hold))
    except ListingLimitError:
        return list(_columns(memory, first, second, target.width, limit, refused))
    if refused is not None:
        for part in held:
            refused(*part)
    return found


SMALL = 16384
"""Entries up to which a listing is not worth importing numpy for."""


def _listed(
    memory: TableMemory,
    first: Stage | None,
    second: Stage | None,
    width: int,
    limit: int | None,
    refused: Refused | None,
) -> Iterator[Page]:
    if first is not None and second is not None:
        return nested_leaves(memory, first, second, width, limit=limit, refused=refused)
    if first is not None:
        return leaves(memory, first, limit=limit, refused=refused)
    if second is not None:
        return leaves(memory, second, width=width, limit=limit, refused=refused)
    return iter(())


def _columns(
    memory: TableMemory,
    first: Stage | None,
    second: Stage | None,
    width: int,
    limit: int | None,
    refused: Refused | None,
) -> Iterator[Page]:
    from pagetables import columns  # noqa: PLC0415 - numpy, only where it pays

    pieces: Iterator[columns.Columns] = iter(())
    if first is not None and second is not None:
        pieces = columns.nested_columns(memory, first, second, width, limit=limit, refused=refused)
    elif first is not None:
        pieces = columns.columns(memory, first, limit=limit, refused=refused)
    elif second is not None:
        pieces = columns.columns(memory, second, width=width, limit=limit, refused=refused)
    for each in pieces:
        yield from each.pages()


def _entries(
    count: int,
    per_table: int,
    look: Callable[[int], Iterator[Source]],
    refused: Callable[[int, TranslationFault], Source],
) -> Iterator[Source]:
    """What is present in ``count`` entries, ``per_table`` of them behind each entry one level up.

    ``look`` raises TranslationFault for an entry that can't be used.
    """
    for first in range(0, count, per_table):
        for number in range(first, first + per_table):
            try:
                yield from look(number)
            except TranslationFault as fault:
                if fault.reason in NO_TABLE:
                    break
                if fault.reason in BAD_TABLE:
                    yield refused(number, fault)._replace(alike=per_table)
                    break
                if fault.reason not in NOT_PRESENT:
                    yield refused(number, fault)


def _legacy_requester(remapping: Remapping, number: int) -> Iterator[Source]:
    source_id = SourceId(number)
    yield Source(source_id, None, legacy_context(remapping, source_id), None)


def _scalable_requester(remapping: Remapping, number: int) -> Iterator[Source]:
    source_id = SourceId(number)
    context = scalable_context(remapping, source_id)

    def look(pasid: int) -> Iterator[Source]:
        target = pasid_target(remapping, source_id, context, pasid)
        yield Source(source_id, pasid, target, None)

    def refused(pasid: int, fault: TranslationFault) -> Source:
        return Source(source_id, pasid, None, fault)

    found = False
    for each in _entries(pasid_limit(context), PASIDS_PER_TABLE, look, refused):
        found = True
        yield each
    if not found:
        yield Source(source_id, None, None, None)


def _refused_requester(number: int, fault: TranslationFault) -> Source:
    return Source(SourceId(number), None, None, fault)


def _together(sources: Iterator[Source]) -> Iterator[Source]:
    """Neighbours behind tables that are broken alike as one."""
    run: Source | None = None
    for each in sources:
        if run is not None and _goes_on(run, each):
            run = run._replace(alike=run.alike + each.alike)
            continue
        if run is not None:
            yield run
        run = each
    if run is not None:
        yield run


def _goes_on(run: Source, source: Source) -> bool:
    if run.fault is None or source.fault is None:
        return False
    if run.fault.reason not in BAD_TABLE | UNREADABLE:
        return False
    if (run.fault.reason, run.fault.fpd) != (source.fault.reason, source.fault.fpd):
        return False
    if run.pasid is None:
        return source.pasid is None and run.source_id + run.alike == source.source_id
    return run.source_id == source.source_id and run.pasid + run.alike == source.pasid
