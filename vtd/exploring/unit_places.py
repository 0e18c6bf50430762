"""Tables that a unit walks, entry by entry, and ways into them: an address, a fault record.

Rows are those of ``vtd walk``, ``vtd mappings`` and ``vtd irte``. Entries of a nested first stage
have the second-stage entries that find their table below them. Nothing is changed: the unit's
memory is seen by an onlooker.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from devices.dma import READ, WRITE, Request
from devices.source_id import SourceId, SourceIdError
from pagetables.geometry import PAGE_SHIFT, StageKind
from pagetables.memory import BusError
from pagetables.walk import FRAME_NUMBER, STARTS, Stage
from pagetables.walk_explanation import entry_name, explain_walk
from vtd.exploring.places import Place
from vtd.inspection.capability_rows import Decoded, capabilities_row
from vtd.inspection.interrupt_rows import listed_row, table_row
from vtd.inspection.interrupt_table import list_entries
from vtd.inspection.request_explanation import explain_request, is_interrupt
from vtd.inspection.request_rows import RequestRow, StepRow, StructureRow, request_row
from vtd.inspection.request_text import fault_text, request_text, verdict
from vtd.inspection.sources import Source, list_sources
from vtd.layouts.registers import FaultRecording, GlobalStatus, RequestType
from vtd.unit.requests.faults import FaultReason, TranslationFault
from vtd.unit.requests.target import Target
from vtd.unit.unit import RemappingUnit

INTERRUPT_REASONS = range(0x20, 0x30)
_TEXTS = {int(reason): reason.text for reason in FaultReason}
ENTRIES = 512
_SEARCH = re.compile(
    r"(?:(?P<device>[0-9a-f:]+\.[0-7])(?:/(?P<pasid>0x[0-9a-f]+|\d+))?\s+)?(?P<address>(?:0x)?[0-9a-f]+)",
    re.IGNORECASE | re.ASCII,
)
SEARCH_FORM = "[BDF[/PASID]] ADDRESS, such as 00:1f.2 0x1000"


class SearchError(ValueError):
    """A search that can't be made; the message says why."""


class UnitPlaces:
    """The places of one unit; ``records`` are fault records to begin from."""

    def __init__(self, unit: RemappingUnit, records: Sequence[FaultRecording] = ()) -> None:
        self._unit, self._records = unit, records
        self._status = unit.registers[GlobalStatus]
        self._met: set[tuple[Source, int, int]] = set()
        """Entries that are not present, but that a request has met: their table shows them."""

    def all(self) -> list[Place]:
        """Capabilities, sources with their tables, the interrupt table, fault records."""
        return [
            self._capabilities(),
            Place("devices", self._sources_row, self._sources),
            Place("interrupt entries", self._interrupts_row, self._interrupts),
            Place("faults", lambda: {"faults": len(self._records)}, self._faults),
        ]

    def _capabilities(self) -> Place:
        known = self._unit.capabilities
        row = capabilities_row([Decoded("", known)])["units"][0]
        return Place("capabilities", lambda: row, text="; ".join(row["contradictions"]))

    def _sources_row(self) -> Mapping[str, object]:
        return {"dma_remapping": "on" if self._status.tes else "off"}

    def _listed(self) -> list[Source]:
        return list(list_sources(self._unit.remapping)) if self._status.tes else []

    def _sources(self) -> list[Place]:
        try:
            return list(map(self._source, self._listed()))
        except TranslationFault as fault:
            return [Place(f"RTADDR_REG: {fault_text(fault)}")]

    def _source(self, source: Source) -> Place:
        def explained() -> RequestRow:
            return self._explained(source, 0)

        return Place(
            source_title(source),
            lambda: {
                "sid": str(source.source_id),
                "pasid": source.pasid,
                "kind": source.kind,
                "domain_id": explained().domain_id,
            },
            lambda: [*map(_of_structure, explained().structures), *self._tables(source)],
            text="" if source.fault is None else fault_text(source.fault),
        )

    def _tables(self, source: Source) -> list[Place]:
        target = source.target
        stage = None if target is None else target.first or target.second
        if target is None or stage is None:
            return []
        return list(self._entries(source, target, stage, 0, stage.root, 0))

    def _entries(
        self, source: Source, target: Target, stage: Stage, depth: int, frame: int, start: int
    ) -> Iterator[Place]:
        """The present entries of the table in a frame; ``start`` is the first address it maps."""
        geometry = stage.geometry
        level = geometry.levels[depth]
        for index in range(ENTRIES):
            entry = self._read(target, stage, frame << PAGE_SHIFT | index << 3)
            if entry is None:
                yield Place("the table can't be read")
                return
            address = _extended(stage, start | index << level.shift)
            if not entry & geometry.present:
                if (source, depth, address) not in self._met:
                    continue
                leads, inside = "nothing", None
            elif level.shift == PAGE_SHIFT or entry & level.leaf:
                leads, inside = f"page {entry & STARTS[level.shift]:#x}", None
            else:
                inside = entry >> PAGE_SHIFT & FRAME_NUMBER
                leads = f"table {inside << PAGE_SHIFT:#x}"
            title = f"{_numbered(stage, depth, address)} {address:#x} to {leads}"
            yield self._entry(source, target, stage, depth, address, inside, title)

    def _entry(
        self,
        source: Source,
        target: Target,
        stage: Stage,
        depth: int,
        address: int,
        frame: int | None,
        title: str,
    ) -> Place:
        def step() -> StepRow | RequestRow:
            row = self._explained(source, address)
            return row.steps[depth] if depth < len(row.steps) else row

        def below() -> list[Place]:
            found = step()
            second = [] if isinstance(found, RequestRow) else list(map(_of_step, found.second))
            if frame is None:
                return second
            start = address & (1 << stage.geometry.width) - 1
            return [*second, *self._entries(source, target, stage, depth + 1, frame, start)]

        return Place(title, step, below)

    def _read(self, target: Target, stage: Stage, address: int) -> int | None:
        """An entry, in a nested first stage through the second; None if it can't be read."""
        memory = self._unit.remapping.memory
        if stage.geometry.kind is StageKind.FIRST and target.second is not None:
            found = explain_walk(memory, target.second, address).physical
            if found is None:
                return None
            address = found
        try:
            return memory.read_record(address, 8)
        except BusError:
            return None

    def _explained(self, source: Source, address: int) -> RequestRow:
        """A read by a source as ``vtd walk`` explains it."""
        request = Request(source.source_id, address, READ, 1, self._sent_pasid(source))
        return request_row(explain_request(self._unit.remapping, request))

    def _sent_pasid(self, source: Source) -> int | None:
        """The PASID that requests of a source carry: none where the PASID is RID_PASID (9.4)."""
        if source.pasid is None:
            return None
        plain = explain_request(self._unit.remapping, Request(source.source_id, 0, READ, 1))
        target = plain.target
        return None if target is not None and target.pasid == source.pasid else source.pasid

    def _interrupts_row(self) -> object:
        return table_row(self._unit.interrupts.table, enabled=bool(self._status.ires))

    def _interrupts(self) -> list[Place]:
        if not self._status.irtps:
            return []
        found = list_entries(self._unit.interrupts, self._unit.remapping.memory)
        return [
            Place(_entry_title(row["index"], row), lambda row=row: row)  # type: ignore[misc]
            for row in map(listed_row, found)
        ]

    def _faults(self) -> list[Place]:
        return [self._fault(number, each) for number, each in enumerate(self._records)]

    def _fault(self, number: int, record: FaultRecording) -> Place:
        source = SourceId(record.sid)
        text = _TEXTS.get(record.fr, "not assigned by the specification")
        row = {**record.fields(), "sid": str(source), "fi": hex(record.fi)}
        title = f"{number}: {source} {record.fr:#04x} {text}"
        if record.fr in INTERRUPT_REASONS:
            index = int(record) >> 48 & 0xFFFF
            return Place(f"{title}, index {index}", lambda: row, leads_to=self._way_to_index(index))
        access = READ if record.request_type is RequestType.READ else WRITE
        pasid = record.pv if record.pp else None
        way, explained = self.way_to(source, pasid, record.fi, access)
        return Place(f"{title}, {record.fi:#x}", lambda: row, leads_to=way, text=explained)

    def _way_to_index(self, index: int) -> tuple[str, ...]:
        titles = (each.title for each in self._interrupts())
        found = [each for each in titles if each.startswith(f"{index}: ")]
        return ("interrupt entries", *found)

    def search(self, text: str, beside: tuple[str, ...] = ()) -> tuple[tuple[str, ...], str]:
        """The way to the entry that a text asks for, and what a read there comes to.

        ``beside``: the way to where the reader is; its device is meant where the text names none.
        SearchError if the text is none, or names no device.
        """
        match = _SEARCH.fullmatch(text.strip())
        if match is None:
            raise SearchError(f"{text!r} is not {SEARCH_FORM}")
        address = int(match["address"], 16)
        if address >> 64:
            raise SearchError(f"{address:#x} has more than 64 bits")
        if match["device"] is None:
            for source in self._listed():
                if source_title(source) in beside:
                    return self.way_to(source.source_id, self._sent_pasid(source), address, READ)
            raise SearchError(f"no device is selected: {SEARCH_FORM}")
        try:
            source_id = SourceId.parse(match["device"])
        except SourceIdError as error:
            raise SearchError(str(error)) from error
        pasid = None if match["pasid"] is None else int(match["pasid"], 0)
        return self.way_to(source_id, pasid, address, READ)

    def way_to(
        self, source_id: int, pasid: int | None, address: int, access: int
    ) -> tuple[tuple[str, ...], str]:
        """Titles from the top to the last entry that a request meets, and what it comes to."""
        request = Request(SourceId(source_id), address, access, 1, pasid)
        if not self._status.tes:
            return ("devices",), "DMA remapping is off"
        if is_interrupt(request):
            return ("interrupt entries",), f"{address:#x} is in the interrupt range"
        explained = explain_request(self._unit.remapping, request)
        said = f"{request_text(request)}: {verdict(explained)}"
        sources = [
            each
            for each in self._listed()
            if self._is_for(each, source_id, pasid, explained.target)
        ]
        if not sources:
            return ("devices",), said
        way, place = ["devices", source_title(sources[0])], self._source(sources[0])
        target = explained.target
        stage = None if target is None else target.first or target.second
        for depth in range(len(stage.geometry.levels) if stage else 0):
            assert stage is not None
            wanted, shift = _numbered(stage, depth, address), stage.geometry.levels[depth].shift
            self._met.add((sources[0], depth, address >> shift << shift))
            titles = (each for each in place.below() if each.title.startswith(f"{wanted} "))
            found = next(titles, None)
            if found is None:
                break
            way.append(found.title)
            place = found
        return tuple(way), said

    @staticmethod
    def _is_for(source: Source, source_id: int, pasid: int | None, target: Target | None) -> bool:
        if not source.concerns(SourceId(source_id)):
            return False
        if pasid is not None or source.pasid is None:
            return source.pasid in (None, pasid)
        return target is None or source.pasid == target.pasid


def source_title(source: Source) -> str:
    """A requester, its PASID, and the kind of its translation."""
    pasid = "" if source.pasid is None else f" PASID {source.pasid:#x}"
    domain = "" if source.target is None else f", domain {source.target.domain_id}"
    return f"{source.source_id}{pasid}: {source.kind}{domain}"


def _entry_title(index: object, row: Mapping[str, object]) -> str:
    return f"{index}: {row['kind']}, used by {row['requesters']}"


def _of_structure(row: StructureRow) -> Place:
    return Place(f"{row.name} at {row.address}", lambda: row)


def _of_step(row: StepRow) -> Place:
    return Place(f"{row.level} at {row.address}: {row.outcome}", lambda: row)


def _extended(stage: Stage, address: int) -> int:
    """The address in canonical form, which a first stage asks for (3.6)."""
    width = stage.geometry.width
    if stage.geometry.kind is StageKind.FIRST and address >> width - 1 & 1:
        return address | (1 << 64) - (1 << width)
    return address


def _numbered(stage: Stage, depth: int, address: int) -> str:
    """The name of the entry that an address goes through at a level, with its index."""
    shift = stage.geometry.levels[depth].shift
    return f"{entry_name(stage.geometry.kind, shift)} {address >> shift & ENTRIES - 1}:"
