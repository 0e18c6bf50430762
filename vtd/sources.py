"""Every source that the tables of a unit know, and the pages that each may use.

VT-d 3.4, 9.1 to 9.6: a listing for people, of what is present in root, context and PASID tables. A
source whose entries are not usable is listed with the fault its requests meet. Nothing changes:
no flag is set, no fault recorded, no cache used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

from devices.source_id import SourceId
from pagetables.bits import BitRecord
from pagetables.extents import Page, Refused, leaves, nested_leaves
from pagetables.memory import BusError
from vtd.entries import (
    ContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
    PasidTranslationType,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
)
from vtd.faults import TranslationFault
from vtd.lookup import check_mode, legacy_context, pasid_limit, pasid_target, scalable_context
from vtd.registers import TranslationTableMode
from vtd.remapping import Remapping, onlooker
from vtd.target import Target

R = TypeVar("R", bound=BitRecord)

KINDS = {
    PasidTranslationType.FIRST_STAGE: "first-stage",
    PasidTranslationType.SECOND_STAGE: "second-stage",
    PasidTranslationType.NESTED: "nested",
    PasidTranslationType.PASS_THROUGH: "pass-through",
}
PASIDS_PER_TABLE = 64


class Source(NamedTuple):
    """A requester, in scalable mode with one of its PASIDs."""

    source_id: SourceId
    pasid: int | None
    """None in legacy mode, or where no PASID of the requester is present."""
    target: Target | None
    fault: TranslationFault | None
    """Why there is no target; None too where no PASID is present."""

    @property
    def kind(self) -> str:
        """``second-stage``, ``first-stage``, ``nested``, ``pass-through``, ``reserved`` or
        ``no-pasid-entry``."""
        if self.target is not None:
            return KINDS[self.target.kind]
        return "no-pasid-entry" if self.fault is None else "reserved"


def list_sources(remapping: Remapping) -> Iterator[Source]:
    """The present entries in ascending order; TranslationFault if the mode is not usable."""
    remapping = onlooker(remapping)
    check_mode(remapping, has_pasid=False)
    if remapping.mode is TranslationTableMode.LEGACY:
        yield from _legacy_sources(remapping)
    else:
        yield from _scalable_sources(remapping)


def pages(
    remapping: Remapping,
    target: Target,
    limit: int | None = None,
    refused: Refused | None = None,
) -> list[Page]:
    """The pages of a target; ListingLimitError beyond ``limit`` entries, none if passed through."""
    memory, first, second = remapping.memory, target.first, target.second
    if first is not None and second is not None:
        return list(
            nested_leaves(memory, first, second, target.width, limit=limit, refused=refused)
        )
    if first is not None:
        return list(leaves(memory, first, limit=limit, refused=refused))
    if second is not None:
        return list(leaves(memory, second, width=target.width, limit=limit, refused=refused))
    return []


def _legacy_sources(remapping: Remapping) -> Iterator[Source]:
    for bus in range(256):
        root = _read(remapping, RootEntry, remapping.root.rta + bus * 16)
        if root is None or not root.p:
            continue
        for devfn in range(256):
            entry = _read(remapping, ContextEntry, root.ctp + devfn * 16)
            if entry is not None and entry.p:
                source_id = SourceId(bus << 8 | devfn)
                try:
                    yield Source(source_id, None, legacy_context(remapping, source_id), None)
                except TranslationFault as fault:
                    yield Source(source_id, None, None, fault)


def _scalable_sources(remapping: Remapping) -> Iterator[Source]:
    for half in range(512):  # of a bus: devices 0 to 15, or 16 to 31
        root = _read(remapping, ScalableRootEntry, remapping.root.rta + half // 2 * 16)
        if root is None or not (root.up if half & 1 else root.lp):
            continue
        table = root.uctp if half & 1 else root.lctp
        for devfn in range(128):
            entry = _read(remapping, ScalableContextEntry, table + devfn * 32)
            if entry is not None and entry.p:
                yield from _pasids(remapping, SourceId(half << 7 | devfn))


def _pasids(remapping: Remapping, source_id: SourceId) -> Iterator[Source]:
    try:
        context = scalable_context(remapping, source_id)
    except TranslationFault as fault:
        yield Source(source_id, None, None, fault)
        return
    found = False
    for first in range(0, pasid_limit(context), PASIDS_PER_TABLE):
        where = context.pasiddirptr + first // PASIDS_PER_TABLE * 8
        directory = _read(remapping, PasidDirectoryEntry, where)
        if directory is None or not directory.p:
            continue
        for number in range(PASIDS_PER_TABLE):
            entry = _read(remapping, PasidEntry, directory.smptblptr + number * 64)
            if entry is None or not entry.p:
                continue
            found, pasid = True, first + number
            try:
                target = pasid_target(remapping, source_id, context, pasid)
                yield Source(source_id, pasid, target, None)
            except TranslationFault as fault:
                yield Source(source_id, pasid, None, fault)
    if not found:
        yield Source(source_id, None, None, None)


def _read(remapping: Remapping, record: type[R], address: int) -> R | None:
    """An entry, or None where there is no memory."""
    try:
        return record(remapping.memory.read_record(address, record.WIDTH // 8))
    except BusError:
        return None
