"""Which bits of a structure a unit looks at: a change of others opens no debt.

VT-d 9.1 to 9.12. What is not present is looked at for being present only, and for FPD where that
counts even so. Left out: accessed flags, which the unit sets and which do no harm when stale.
"""

from __future__ import annotations

from pagetables import first_stage, second_stage
from pagetables.bits import BitRecord
from pagetables.observer import Structure
from vtd.auditing.debt import Origin, Word
from vtd.layouts.entries import ContextEntry, PasidEntry, PasidTranslationType
from vtd.layouts.interrupt_entries import PostedIrte, RemappedIrte

ALL = -1
HALF = (1 << 64) - 1


def _named(record: type[BitRecord], *names: str) -> int:
    return sum(getattr(record, name).mask for name in names)


SECOND_STAGE_FIELDS = _named(PasidEntry, "aw", "ssade", "ssptptr", "emte")
FIRST_STAGE_FIELDS = _named(PasidEntry, "wpe", "fspm", "eafe", "fsptptr", "ign_134_133")
PERMISSION_FIELDS = _named(PasidEntry, "hptsz", "hptpfd", "hptptr", "hptdid")
_IO_RIGHTS = second_stage.IO_READ | second_stage.IO_WRITE
_IGNORED: dict[Structure, int] = {
    # G is treated as 0 (9.7)
    Structure.FIRST_STAGE: _named(first_stage.FirstStagePage4K, "ign_63_52", "ign_9", "ign_11", "g")
    | first_stage.ACCESSED
    | first_stage.EXTENDED_ACCESSED,
    Structure.SECOND_STAGE: _named(
        second_stage.SecondStagePage4K, "ign_60_52", "ign_63", "ign_10", "ign_2"
    )
    | second_stage.ACCESSED,
}
_IGNORED_ABOVE_LEAVES: dict[Structure, int] = {
    Structure.FIRST_STAGE: _named(first_stage.FirstStageEntry, "ign_4_3", "ign_6", "ign_9_8"),
    Structure.SECOND_STAGE: _named(second_stage.SecondStageEntry, "ign_6_3", "ign_10_9"),
}
_PRESENT: dict[Origin, int] = {
    Structure.FIRST_STAGE: first_stage.PRESENT,
    Structure.SECOND_STAGE: second_stage.READ | second_stage.WRITE | _IO_RIGHTS,
    Structure.CONTEXT: 1,
    Structure.PASID_DIRECTORY: 1,
    Structure.PASID: 1,
    Structure.INTERRUPT_ENTRY: 1,
}
_FAULT_PROCESSING = 2
_EVALUATED_ANYWAY: dict[Origin, int] = {
    Structure.CONTEXT: _FAULT_PROCESSING,
    Structure.PASID_DIRECTORY: _FAULT_PROCESSING,
    Structure.PASID: _FAULT_PROCESSING,
    Structure.INTERRUPT_ENTRY: _FAULT_PROCESSING,
}


def paging_mask(structure: Structure, *, input_output_rights: bool) -> int:
    """The bits that count in a paging entry. ``input_output_rights``: RTADDR_REG.SSIRWE."""
    ignored = _IGNORED[structure]
    if structure is Structure.SECOND_STAGE and not input_output_rights:
        ignored |= _IO_RIGHTS
    return HALF & ~ignored


def above_leaves(word: Word) -> Word:
    """A paging entry that turned out to lead to a table."""
    assert isinstance(word.structure, Structure)
    return word._replace(mask=word.mask & ~_IGNORED_ABOVE_LEAVES[word.structure])


def entry_mask(structure: Structure, value: int, *, scalable: bool, upper_half: bool) -> int:
    """The bits that count in a root, context, PASID directory, PASID or interrupt entry."""
    match structure:
        case Structure.ROOT:
            if scalable:  # 9.2: the halves are independent
                return HALF << 64 if upper_half else HALF
            return ALL
        case Structure.CONTEXT if not scalable:
            return ALL & ~ContextEntry.ign_70_67.mask
        case Structure.PASID:
            return ALL & ~_unused_fields(PasidEntry(value).pgtt)
        case Structure.INTERRUPT_ENTRY:
            record = PostedIrte if RemappedIrte(value).im else RemappedIrte
            return ALL & ~record.avail.mask
    return ALL


def _unused_fields(kind: PasidTranslationType) -> int:
    """Host permissions have a cache of their own, which :data:`PERMISSION_FIELDS` are for."""
    unused = PERMISSION_FIELDS | PasidEntry.ign_134_133.mask
    if kind not in (PasidTranslationType.SECOND_STAGE, PasidTranslationType.NESTED):
        unused |= SECOND_STAGE_FIELDS
    if kind not in (PasidTranslationType.FIRST_STAGE, PasidTranslationType.NESTED):
        unused |= FIRST_STAGE_FIELDS
    return unused


def change(word: Word, now: int | None) -> int:
    """The bits of a word that count and are others now; all that count where memory is gone."""
    if now is None:
        return word.mask
    changed = (now ^ word.value) & word.mask
    if not changed:
        return 0
    present = _PRESENT.get(word.structure, 0) & word.mask
    if present and not (now | word.value) & present:
        return changed & _EVALUATED_ANYWAY.get(word.structure, 0)
    return changed & ~(_DIRTY.get(word.structure, 0) & now)  # set, perhaps by the unit


def only_more_rights(word: Word, changed: int, now: int) -> bool:
    """Whether a change only set rights and flags that were clear (6.5.3.5)."""
    grants = _GRANTS.get(word.structure, 0)
    return not changed & ~grants and now & changed == changed


def only_dirty(word: Word, changed: int) -> bool:
    """Whether only a dirty flag was cleared, which matters to writes alone."""
    return not changed & ~_DIRTY.get(word.structure, 0)


_GRANTS: dict[Origin, int] = {
    Structure.FIRST_STAGE: first_stage.WRITE | first_stage.USER,
    Structure.SECOND_STAGE: second_stage.READ | second_stage.WRITE | _IO_RIGHTS,
}
_DIRTY: dict[Origin, int] = {
    Structure.FIRST_STAGE: first_stage.DIRTY,
    Structure.SECOND_STAGE: second_stage.DIRTY,
}
