"""Audit of events: memory is not known, only what an IOTLB loaded and when.

An entry that is loaded again with another content, with no invalidation in between that covers it,
tells that software changed tables without one (VT-d 6.5.3.3).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from devices.source_id import SourceId
from pagetables import first_stage, second_stage
from pagetables.memory import PhysicalMemory
from pagetables.observer import Structure
from vtd.auditing.debt import Debt, Kind, Owner, Word, owed_for
from vtd.auditing.log_lines import AuditLogError, invalidation, parse_line, problems_of
from vtd.auditing.log_report import Finding, LogReport
from vtd.layouts.entries import PasidTranslationType
from vtd.layouts.interrupt_entries import RemappedIrte
from vtd.layouts.registers import (
    Capability,
    ExtendedCapability,
    InvalidationQueueHead,
    InvalidationQueueTail,
    Version,
)
from vtd.recordings.values import Json
from vtd.unit.caching.iotlb import IotlbEntry
from vtd.unit.caching.policy import KEEPS_STALE
from vtd.unit.departures import QEMU
from vtd.unit.observer import CacheName
from vtd.unit.options import Options
from vtd.unit.queues.invalidation import invalidate
from vtd.unit.registers.capabilities import PROFILES, Capabilities
from vtd.unit.requests.target import IotlbTags
from vtd.unit.unit import RemappingUnit


class Event(NamedTuple):
    """One event of a log: its line, its name, and what the name brings along."""

    line: int
    name: str
    fields: tuple[Json, ...]


def capture_events(lines: list[tuple[int, str]]) -> Iterator[Event]:
    """The events of a capture, a JSON array a line."""
    for here, text in lines:
        match parse_line(here, text):
            case [str(name), *fields]:
                yield Event(here, name, tuple(fields))
            case _:
                raise AuditLogError(here, "not an array that begins with a name")


def trace_events(lines: list[tuple[int, str]]) -> Iterator[Event]:
    """What the trace points say, as events of a capture; other trace points are left out."""
    for here, text in lines:
        for pattern, make in _TRACE_POINTS:
            found = pattern.search(text)
            if found:
                with problems_of(here):
                    name, *fields = make(*found.groups())
                yield Event(here, name, tuple(fields))
                break


def _hex(*texts: str) -> list[int]:
    return [int(text, 16) for text in texts]


_H = "0x([0-9a-f]+)"
_TRACE_POINTS: tuple[tuple[re.Pattern[str], Callable[..., list[Json]]], ...] = (
    (
        re.compile(rf"vtd_reg_write addr {_H} size {_H} value {_H}"),
        lambda *texts: ["w", *_hex(*texts)],
    ),
    (
        re.compile(rf"vtd_inv_desc invalidate desc type (.+) high {_H} low {_H}"),
        lambda name, high, low: ["iq", 0, name, *_hex(low, high)],
    ),
    (
        re.compile(rf"vtd_iotlb_page_update .* sid {_H} iova {_H} slpte {_H} domain {_H}"),
        lambda *texts: ["iotlb", *_hex(*texts)],
    ),
    (
        re.compile(rf"vtd_dmar_translate dev (\S+) iova {_H} -> gpa {_H} mask {_H}"),
        lambda dev, *texts: ["dma", _plain_bdf(dev), *_hex(*texts), 1],
    ),
    (
        # QEMU prints the upper half of the entry as the lower one
        re.compile(rf"vtd_ir_irte_get index (\d+) low {_H} high {_H}"),
        lambda index, high, low: ["msi", 0, 0, 0, 0, [int(index), *_hex(low, high)], 1],
    ),
)


def _plain_bdf(text: str) -> str:
    """QEMU prints the function with two digits."""
    head, _, function = text.rpartition(".")
    return f"{head}.{int(function, 16):x}"


def audit_events(kind: str, events: list[Event]) -> LogReport:
    """What the caches of a unit would still have had when something was loaded again."""
    shadow = _Shadow(_capabilities(events), _paging_kind(events))
    for event in events:
        with problems_of(event.line):
            shadow.take(event)
    return LogReport(
        kind,
        len(events),
        shadow.uses,
        shadow.findings,
        descriptors=shadow.descriptors,
        wasteful=None,
    )


def _capabilities(events: list[Event]) -> Capabilities:
    """From the first reads of VER, CAP and ECAP; QEMU's scalable-mode unit without them."""
    known = PROFILES["qemu-scalable"]
    values: dict[int, int] = {}
    for event in events:
        if event.name == "r" and len(event.fields) == 3 and event.fields[0] in (0, 8, 16):
            values.setdefault(event.fields[0], event.fields[2])
    with problems_of(events[0].line):
        return Capabilities(
            Version(values.get(0, known.version)),
            Capability(values.get(8, known.cap)),
            ExtendedCapability(values.get(16, known.ecap)),
            known.host_address_width,
        )


def _paging_kind(events: list[Event]) -> PasidTranslationType:
    """Which stage software uses, by how it invalidates: the log does not name it elsewhere."""
    paged = any(
        event.name == "iq" and event.fields[2] & 0xE3F == _PAGE_IN_PASID
        for event in events
        if len(event.fields) == 4 and isinstance(event.fields[2], int)
    )
    return PasidTranslationType.FIRST_STAGE if paged else PasidTranslationType.SECOND_STAGE


_PAGE_IN_PASID = 0x036  # type 6, G = 11b


class _Loaded(NamedTuple):
    """What the log says an IOTLB entry was loaded from."""

    line: int
    leaf: int


class _Shadow:
    """The caches of a unit that sees what the log's unit saw, and evicts nothing."""

    def __init__(self, capabilities: Capabilities, paging: PasidTranslationType) -> None:
        self.findings: list[Finding] = []
        self.uses = self.descriptors = 0
        self._unit = RemappingUnit(
            capabilities, PhysicalMemory(), Options(departures=QEMU, caches=KEEPS_STALE)
        )
        self._paging = paging
        self._loading: tuple[int, int, int, int] | None = None
        self._loaded: dict[tuple[int, int, int], _Loaded] = {}

    def take(self, event: Event) -> None:
        """Take one event in; names without a meaning for caches are passed over."""
        match event.name, event.fields:
            case "w", (offset, size, value):
                if offset & ~7 not in _QUEUE_POINTERS:
                    self._unit.write_register(offset, size, value)
            case "iq", (_, _, low, high):
                record = invalidation(low | high << 64)
                if record is not None:
                    self.descriptors += 1
                    invalidate(self._unit.remapping, self._unit.interrupts, record)
            case "iotlb", (source_id, address, leaf, domain_id):
                self._loading = source_id, address >> 12, leaf, domain_id
            case "dma", (bdf, address, physical, mask, _):
                self._translated(event.line, SourceId.parse(bdf), address, physical, mask)
            case "msi", (_, _, _, _, [index, low, high], _):
                self._remapped(event.line, index, low | high << 64)

    def _translated(
        self, line: int, source_id: int, address: int, physical: int, mask: int
    ) -> None:
        """A translation, freshly loaded or not, with the size that the load did not tell."""
        shift = mask.bit_length()
        loading, self._loading = self._loading, None
        kind = source_id, None, False
        known = self._unit.caches.iotlb.find(kind, address)
        if loading is None or loading[:2] != (source_id, address >> 12):
            self.uses += known is not None
            return
        _, _, leaf, domain_id = loading
        key = source_id, shift, address >> shift
        before = self._loaded.get(key)
        if known is not None and known.shift == shift and before is not None:
            self.uses += 1
            if self._changed(before.leaf, leaf):
                self._report(line, source_id, known, before, leaf)
        tags = IotlbTags(domain_id, self._paging, 0)
        start, frame = address >> shift << shift, physical >> shift << shift
        self._unit.caches.iotlb.insert(kind, IotlbEntry(tags, start, shift, frame, 3, False))
        self._loaded[key] = _Loaded(line, leaf)

    def _changed(self, before: int, now: int) -> bool:
        """Whether an entry differs by more than flags and rights that were added (6.5.3.5)."""
        flags, rights = _TOLERATED[self._paging]
        change = (before ^ now) & ~flags
        return bool(change & ~rights or before & change)

    def _report(
        self, line: int, source_id: int, entry: IotlbEntry, before: _Loaded, leaf: int
    ) -> None:
        first = self._paging is PasidTranslationType.FIRST_STAGE
        structure = Structure.FIRST_STAGE if first else Structure.SECOND_STAGE
        pasid = 0 if first else None
        owner = Owner(source_id, entry.tags.domain_id, pasid, entry.address, self._paging)
        self._add(line, CacheName.IOTLB, owner, Word(structure, 0, 0, before.leaf, -1), leaf)

    def _remapped(self, line: int, index: int, entry: int) -> None:
        """An interrupt, with the table entry that it used, kept if the unit may keep it (6.1)."""
        cache, record = self._unit.interrupts.cache, RemappedIrte(entry)
        known = cache.find(index)
        if known is not None:
            self.uses += 1
            if known != entry:
                word = Word(Structure.INTERRUPT_ENTRY, 0, 0, known, -1)
                self._add(line, CacheName.INTERRUPT, Owner(address=index), word, entry)
        if record.p or self._unit.capabilities.cap.cm:
            cache.put(index, record)
        else:
            cache.drop(index)

    def _add(self, line: int, cache: CacheName, owner: Owner, word: Word, now: int) -> None:
        rule, missing = owed_for(cache, owner, word, now)
        debt = Debt(Kind.MISSING, cache, owner, word, now, None, missing, rule.section, rule)
        self.findings.append(Finding(line, debt))


_QUEUE_POINTERS = (InvalidationQueueHead.OFFSET, InvalidationQueueTail.OFFSET)
_TOLERATED = {
    PasidTranslationType.FIRST_STAGE: (
        first_stage.ACCESSED | first_stage.EXTENDED_ACCESSED | first_stage.DIRTY,
        first_stage.WRITE | first_stage.USER,
    ),
    PasidTranslationType.SECOND_STAGE: (
        second_stage.ACCESSED | second_stage.DIRTY,
        second_stage.READ | second_stage.WRITE,
    ),
}
