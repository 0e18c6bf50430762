"""What each source may reach: its pages, and what is present in its tables but can't be used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from devices.source_id import SourceId
from pagetables import first_stage, second_stage
from pagetables.extents import Page, merge
from pagetables.geometry import StageKind
from pagetables.walk import WalkFault, WalkRule
from vtd.inspection.request_rows import FaultRow, fault_row
from vtd.inspection.sources import Source, list_sources, pages
from vtd.rows import Hex
from vtd.unit.translation.remapping import Remapping

SHOWN_FLAGS = {
    StageKind.FIRST: (first_stage.ACCESSED, first_stage.DIRTY),
    StageKind.SECOND: (second_stage.ACCESSED, second_stage.DIRTY),
}


@dataclass(frozen=True)
class UnusablePart:
    """Addresses behind an entry that is present and breaks a rule."""

    address: int
    length: int
    rule: WalkRule


@dataclass(frozen=True)
class PageFlags:
    """The flags of the leaf that the device's address selects, of the first stage if any."""

    user: bool
    accessed: bool
    dirty: bool


@dataclass(frozen=True)
class ReachedRange:
    """Neighbouring pages that lead to neighbouring addresses, with the same rights and flags."""

    address: int
    length: int
    physical: int
    guest: int | None
    rights: str
    flags: PageFlags


@dataclass(frozen=True)
class Reach:
    """A source with its pages."""

    source: Source
    pages: tuple[Page, ...]
    refused: tuple[UnusablePart, ...]

    def flags(self, page: Page) -> PageFlags:
        """The flags of one of the pages."""
        target = self.source.target
        first = target is not None and target.first is not None
        accessed, dirty = SHOWN_FLAGS[StageKind.FIRST if first else StageKind.SECOND]
        return PageFlags(page.user, bool(page.entry & accessed), bool(page.entry & dirty))

    def ranges(self) -> Iterator[ReachedRange]:
        """The pages joined as far as nothing differs."""
        run: list[Page] = []
        flags: PageFlags | None = None
        for page in self.pages:
            found = self.flags(page)
            if flags is not None and found != flags:
                yield from _joined(run, flags)
                run = []
            run.append(page)
            flags = found
        if flags is not None:
            yield from _joined(run, flags)


def _joined(run: list[Page], flags: PageFlags) -> Iterator[ReachedRange]:
    for each in merge(run):
        yield ReachedRange(each.address, each.length, each.physical, each.guest, each.rights, flags)


def list_reach(
    remapping: Remapping, wanted: SourceId | None = None, *, limit: int | None = None
) -> Iterator[Reach]:
    """The sources in ascending order, only ``wanted`` if it is given.

    TranslationFault if the mode is not usable, ListingLimitError beyond ``limit`` entries of one.
    """
    for source in list_sources(remapping):
        if wanted is None or source.concerns(wanted):
            yield _reach(remapping, source, limit)


def _reach(remapping: Remapping, source: Source, limit: int | None) -> Reach:
    refused: list[UnusablePart] = []

    def refuse(address: int, length: int, fault: WalkFault) -> None:
        refused.append(UnusablePart(address, length, fault.rule))

    found = pages(remapping, source.target, limit, refuse) if source.target else []
    return Reach(source, tuple(found), tuple(refused))


@dataclass(frozen=True)
class ReachRow:
    """A source in the form of ``vtd mappings --format json``."""

    sid: int
    pasid: int | None
    alike: int
    kind: str
    domain_id: int | None
    fault: FaultRow | None
    leaves: list[tuple[Hex, Hex, Hex, str]]
    """Address, length, physical address and rights of each page."""
    details: list[dict[str, object]]
    """Of the same pages."""
    refused: list[tuple[Hex, Hex, str]]
    """Address, length, and the rule that is broken."""


def reach_row(reach: Reach) -> ReachRow:
    """The row of a source."""
    source = reach.source
    return ReachRow(
        sid=source.source_id,
        pasid=source.pasid,
        alike=source.alike,
        kind=source.kind,
        domain_id=source.target.domain_id if source.target else None,
        fault=fault_row(source.fault),
        leaves=[
            (Hex(page.address), Hex(page.length), Hex(page.physical), page.rights)
            for page in reach.pages
        ],
        details=[
            {
                "user": flags.user,
                "accessed": flags.accessed,
                "dirty": flags.dirty,
                "guest": Hex.known(page.guest),
            }
            for page in reach.pages
            for flags in (reach.flags(page),)
        ],
        refused=[(Hex(part.address), Hex(part.length), part.rule.value) for part in reach.refused],
    )
