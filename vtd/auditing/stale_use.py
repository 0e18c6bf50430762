"""Stale uses of cached entries, and the invalidation that each of them misses.

VT-d 6.5.3.3 (Tables 28 and 29), 6.6 and 6.7: what software owes after it changed a structure or a
pointer. Left out: finding the uses, which :mod:`vtd.auditing.audit` does.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from devices.source_id import SourceId
from pagetables.observer import Structure
from vtd.layouts.entries import PasidEntry, PasidTranslationType
from vtd.unit.observer import CacheName


class Pointer(Enum):
    """Where tables begin, as far as that is no structure in memory."""

    ROOT = "RTADDR_REG"
    TABLE = "second-stage table of the domain"
    INTERRUPT = "IRTA_REG"


Origin = Structure | Pointer
"""What software changed."""


class Word(NamedTuple):
    """What an entry came from: a record in memory, or a pointer register."""

    structure: Origin
    address: int
    """Of the record; 0 for a register."""
    size: int
    """Bytes."""
    value: int
    mask: int
    """The bits that count."""


Words = dict[tuple[Origin, int], Word]


class Owner(NamedTuple):
    """The tags of a cache entry, as far as it has them."""

    source_id: int | None = None
    domain_id: int | None = None
    pasid: int | None = None
    address: int | None = None
    """Input address; the index in the interrupt entry cache."""
    kind: PasidTranslationType | None = None

    def __str__(self) -> str:
        known = (
            ("source", None if self.source_id is None else str(SourceId(self.source_id))),
            ("domain", self.domain_id),
            ("PASID", None if self.pasid is None else hex(self.pasid)),
            ("address", None if self.address is None else hex(self.address)),
        )
        return ", ".join(f"{name} {value}" for name, value in known if value is not None)


class StaleUse(NamedTuple):
    """A cached entry was used although software had changed what it came from."""

    cache: CacheName
    owner: Owner
    changed: Word
    """The word as the entry knows it."""
    now: int | None
    """What it holds now; None where there is no memory any more."""
    writer: str | None
    """Where the log has the write."""
    missing: str
    """The invalidation that would have removed the entry."""
    section: str
    inferred: str | None = None
    """What it was inferred from, where the change of the word itself was not seen."""

    def __str__(self) -> str:
        word, now = self.changed, "gone" if self.now is None else f"{self.now:#x}"
        if self.inferred is not None:
            return (
                f"{self.cache.value} entry ({self.owner}) from the {word.structure.value} at "
                f"{word.address:#x} used: {self.inferred}: missing {self.missing} (VT-d "
                f"{self.section})"
            )
        where = f" at {word.address:#x}" if word.size else ""
        by = f" by {self.writer}" if self.writer else ""
        return (
            f"{self.cache.value} entry ({self.owner}) used after the {word.structure.value}{where} "
            f"changed from {word.value:#x} to {now}{by}: missing {self.missing} (VT-d "
            f"{self.section})"
        )


def missing_invalidation(
    cache: CacheName, owner: Owner, word: Word, now: int | None
) -> tuple[str, str]:
    """The invalidation that the change of ``word`` calls for and that removes the entry.

    With the section that asks for it: 6.5.3.3 (Tables 28 and 29), 6.6 and 6.7 for the pointers.
    """
    return _missing(cache, owner, word, now), _SECTIONS.get(word.structure, "6.5.3.3")


def _missing(cache: CacheName, owner: Owner, word: Word, now: int | None) -> str:
    if word.structure in _ROOTS:
        return f"global {_COMMANDS.get(cache, 'iotlb_inv')}"
    match cache:
        case CacheName.INTERRUPT:
            return f"iec_inv of index {owner.address}"
        case CacheName.CONTEXT:
            return f"device-selective cc_inv of {SourceId(owner.source_id or 0)}"
        case CacheName.PASID if word.structure is Structure.CONTEXT:
            return f"domain-selective pc_inv of domain {owner.domain_id}"
        case CacheName.PASID:
            return f"PASID-selective pc_inv of {_pasid(owner)}"
    return _missing_iotlb_invalidation(cache, owner, word, now)


def _missing_iotlb_invalidation(cache: CacheName, owner: Owner, word: Word, now: int | None) -> str:
    domain, address = f"domain {owner.domain_id}", f"address {owner.address or 0:#x}"
    paging = cache in (CacheName.FIRST_STAGE, CacheName.SECOND_STAGE)
    hint = ", IH = 0" if paging else ""
    match word.structure:
        case Structure.FIRST_STAGE:
            return f"page-selective p_iotlb_inv of {_pasid(owner)}, {address}{hint}"
        case Structure.SECOND_STAGE:
            nested = owner.kind is PasidTranslationType.NESTED or cache is CacheName.FIRST_STAGE
            return f"page-selective iotlb_inv of {domain}" + (
                "" if nested else f", {address}{hint}"
            )
        case Structure.PASID if not _translation_left_domain(word, now):
            return f"PASID-selective p_iotlb_inv of {_pasid(owner)}"
    return f"domain-selective iotlb_inv of {domain}"


def _pasid(owner: Owner) -> str:
    return f"domain {owner.domain_id}, PASID {owner.pasid or 0:#x}"


def _translation_left_domain(word: Word, now: int | None) -> bool:
    """Whether a PASID entry with a second stage is no longer present (Table 29)."""
    before = PasidEntry(word.value)
    second = (PasidTranslationType.SECOND_STAGE, PasidTranslationType.NESTED)
    return before.pgtt in second and not PasidEntry(now or 0).p


_ROOTS = (Pointer.ROOT, Structure.ROOT, Pointer.INTERRUPT)
_COMMANDS = {
    CacheName.CONTEXT: "cc_inv",
    CacheName.PASID: "pc_inv",
    CacheName.INTERRUPT: "iec_inv",
}
_SECTIONS = {
    Pointer.ROOT: "6.6",
    Pointer.INTERRUPT: "6.7",
    Structure.INTERRUPT_ENTRY: "6.5.2.8",
}
