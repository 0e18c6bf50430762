"""``vtd mappings``: what each device may reach through a capture's tables, and where."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from devices.source_id import SourceId
from pagetables import first_stage, second_stage
from pagetables.extents import Page, merge
from pagetables.geometry import StageKind
from pagetables.walk import WalkFault
from vtd.commands.counted import counted
from vtd.commands.images import (
    AsSpecified,
    Base,
    Cap,
    ChosenDepartures,
    Ecap,
    Format,
    HostWidth,
    Image,
    Output,
    Profile,
    RootTable,
    open_image,
)
from vtd.commands.reading import unusable_input
from vtd.commands.show_walk import fault_json, fault_text
from vtd.inspection.sources import Source, list_sources, pages
from vtd.unit.requests.faults import TranslationFault
from vtd.unit.translation.remapping import Remapping

SHOWN_FLAGS = {
    StageKind.FIRST: (first_stage.ACCESSED, first_stage.DIRTY),
    StageKind.SECOND: (second_stage.ACCESSED, second_stage.DIRTY),
}


class Listed:
    """A source with its pages, and what is present in its tables but can't be used."""

    def __init__(self, remapping: Remapping, source: Source, limit: int) -> None:
        self.source = source
        self.refused: list[tuple[int, int, WalkFault]] = []
        self.pages: list[Page] = []
        if source.target is not None:
            self.pages = pages(remapping, source.target, limit, self._refuse)

    def _refuse(self, address: int, length: int, fault: WalkFault) -> None:
        self.refused.append((address, length, fault))

    def accessed_dirty(self, page: Page) -> tuple[bool, bool]:
        """The flags of the leaf that the device's address selects, of the first stage if any."""
        target = self.source.target
        assert target is not None
        kind = StageKind.SECOND if target.first is None else StageKind.FIRST
        accessed, dirty = SHOWN_FLAGS[kind]
        return bool(page.entry & accessed), bool(page.entry & dirty)


def mappings(
    image: Image,
    device: Annotated[
        str | None, typer.Option(metavar="BDF", help="Only this requester, such as 00:02.0.")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Table entries to look at for one source.")
    ] = 10_000_000,
    root_table: RootTable = None,
    base: Base = None,
    profile: Profile = None,
    cap: Cap = None,
    ecap: Ecap = None,
    host_width: HostWidth = None,
    as_specified: AsSpecified = False,
    departures: ChosenDepartures = None,
    format: Output = Format.TEXT,
) -> None:
    """List, for each source-id (and PASID), address, length, physical address and permissions.

    What is present and can't be used is listed with the fault that its requests meet.
    Exit code 0: listed. 2: wrong use or unusable input.
    """
    with unusable_input("--device"):
        wanted = None if device is None else SourceId.parse(device)
    inspected = open_image(
        image,
        root_table=root_table,
        base=base,
        profile=profile,
        cap=cap,
        ecap=ecap,
        host_width=host_width,
        as_specified=as_specified,
        departures=departures,
    )
    remapping = inspected.unit.remapping
    with unusable_input(str(image)):
        try:
            sources = list(list_sources(remapping)) if inspected.status.tes else []
        except TranslationFault as fault:
            raise ValueError(f"RTADDR_REG: {fault_text(fault)}") from fault
        listed = [
            Listed(remapping, source, limit)
            for source in sources
            if wanted is None or source.concerns(wanted)
        ]
        if wanted is not None and not listed:
            raise ValueError(f"--device: {wanted} has no context entry")
    if format is Format.JSON:
        typer.echo(json.dumps({"sources": [_json(each) for each in listed]}))
    elif not listed:
        on = inspected.status.tes
        typer.echo("no context entry is present" if on else "DMA remapping is off")
    else:
        typer.echo("\n".join(line for each in listed for line in _lines(each)))


def _json(listed: Listed) -> dict[str, Any]:
    source = listed.source
    return {
        "sid": int(source.source_id),
        "pasid": source.pasid,
        "alike": source.alike,
        "kind": source.kind,
        "domain_id": source.target.domain_id if source.target else None,
        "fault": fault_json(source.fault),
        "leaves": [
            [hex(page.address), hex(page.length), hex(page.physical), page.rights]
            for page in listed.pages
        ],
        "details": [
            {
                "user": page.user,
                "accessed": accessed,
                "dirty": dirty,
                "guest": None if page.guest is None else hex(page.guest),
            }
            for page in listed.pages
            for accessed, dirty in (listed.accessed_dirty(page),)
        ],
        "refused": [
            [hex(address), hex(length), fault.rule.value]
            for address, length, fault in listed.refused
        ],
    }


def _lines(listed: Listed) -> Iterator[str]:
    source, target = listed.source, listed.source.target
    heading = f"{_name(source)}: {source.kind}"
    if source.fault is not None:
        yield f"{heading}; {fault_text(source.fault)}"
        return
    if target is None:
        yield f"{heading}; no PASID of it is present"
        return
    stages = [
        f"{len(stage.geometry.levels)} levels at {stage.root << 12:#x}"
        for stage in (target.first, target.second)
        if stage is not None
    ]
    size = sum(page.length for page in listed.pages) >> 10
    total = (
        f"{counted(len(listed.pages), 'page')}, {size} KiB" if stages else "every address unchanged"
    )
    yield f"{heading}, domain {target.domain_id}, {' through '.join(stages) or 'no table'}: {total}"
    for start, length, physical, rights, flags, guest in _ranges(listed):
        through = "" if guest is None else f" -> {guest:#x}"
        yield f"  {start:#x}-{start + length - 1:#x}{through} -> {physical:#x} {rights}{flags}"
    for address, length, fault in listed.refused:
        yield f"  {address:#x}-{address + length - 1:#x} unusable: {fault.rule.value}"


def _name(source: Source) -> str:
    """The requester and its PASID, or the first and the last that are refused alike."""
    last = source.alike - 1
    if source.pasid is None:
        end = f" to {SourceId(source.source_id + last)}" if last else ""
        return f"{source.source_id}{end}"
    end = f" to {source.pasid + last:#x}" if last else ""
    return f"{source.source_id} PASID {source.pasid:#x}{end}"


def _ranges(listed: Listed) -> Iterator[tuple[int, int, int, str, str, int | None]]:
    """Merged ranges whose pages have the same U/S, A and D flags."""
    run: list[Page] = []
    shown = ""
    for page in listed.pages:
        flags = _flags(listed, page)
        if run and flags != shown:
            yield from _merged(run, shown)
            run = []
        run.append(page)
        shown = flags
    yield from _merged(run, shown)


def _merged(run: list[Page], flags: str) -> Iterator[tuple[int, int, int, str, str, int | None]]:
    for extent in merge(run):
        yield extent.address, extent.length, extent.physical, extent.rights, flags, extent.guest


def _flags(listed: Listed, page: Page) -> str:
    accessed, dirty = listed.accessed_dirty(page)
    target = listed.source.target
    supervisor = " S" if target and target.first is not None and not page.user else ""
    return supervisor + (" A" if accessed else "") + (" D" if dirty else "")
