"""Audit of a log: table writes, invalidations and DMAs, replayed to find the stale uses.

Three kinds of log, told apart by their first line; ``docs/audit-log.md`` describes them:

* a platform log: JSON objects, the head of a scenario and then its steps, one a line. Memory is
  known at every moment, and :class:`UnitAudit` judges every use of what a cache may hold. It is
  read line by line.
* an event log of a capture: JSON arrays. Memory is not known, only what an IOTLB loaded and when.
  An entry that is loaded again with another content, with no invalidation in between that covers
  it, tells that software changed tables without one (VT-d 6.5.3.3).
* lines that QEMU's ``vtd_*`` trace points print, judged like events.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import ClassVar, NamedTuple

from devices.source_id import SourceId
from pagetables import first_stage, second_stage
from pagetables.bits import BitRecord
from pagetables.memory import BusError, PhysicalMemory
from pagetables.observer import Structure
from vtd.auditing.debt import Debt, Kind, Owner, Word, owed_for
from vtd.auditing.unit_audit import AuditFinding, UnitAudit, audits_of
from vtd.layouts.descriptors import (
    DESCRIPTORS,
    DescriptorHead,
    DescriptorType,
    DeviceTlbInvalidateDescriptor,
    InvalidationWaitDescriptor,
    PasidDeviceTlbInvalidateDescriptor,
)
from vtd.layouts.entries import PasidTranslationType
from vtd.layouts.interrupt_entries import RemappedIrte
from vtd.layouts.registers import (
    Capability,
    ExtendedCapability,
    InvalidationQueueHead,
    InvalidationQueueTail,
    Version,
)
from vtd.recordings.scenario import BROKEN, Scenario, ScenarioRun
from vtd.recordings.steps import STEPS, Number, Step, UnitStep, kinds_of, parse_step
from vtd.recordings.values import Json, members
from vtd.severity import WARNING
from vtd.unit.caching.iotlb import IotlbEntry
from vtd.unit.caching.policy import AGGRESSIVE, KEEPS_STALE, CachePolicy
from vtd.unit.departures import QEMU
from vtd.unit.observer import CacheName
from vtd.unit.options import Options
from vtd.unit.queues.invalidation import invalidate
from vtd.unit.registers.capabilities import PROFILES, Capabilities
from vtd.unit.requests.target import IotlbTags
from vtd.unit.unit import RemappingUnit


class AuditLogError(ValueError):
    """A log that can't be read: says which line is wrong, and why."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line}: {why}")
        self.line = line


class Finding(NamedTuple):
    """What was found, at the line where it showed."""

    line: int
    use: AuditFinding
    unit: int = 0
    """The number of the unit, where there are several."""


@dataclass
class LogReport:
    """What the audit of one log found."""

    kind: str = "empty"
    lines: int = 0
    uses: int = 0
    """Uses of cached entries that were checked."""
    findings: list[Finding] = field(default_factory=list)
    window: list[Finding] = field(default_factory=list)
    """Uses between a change and the invalidation that followed, which are legal."""
    descriptors: int = 0
    """Invalidations."""
    wasteful: int | None = 0
    """Those of them that met nothing outdated; None where the log does not show all changes."""

    def add(self, audits: UnitAudit, unit: int = 0) -> None:
        """What the audits of one unit found, in the order of the lines."""
        for line, judgement in audits.judged():
            legal = judgement.severity < WARNING
            (self.window if legal else self.findings).append(Finding(line, judgement, unit))
        self.findings.sort(key=lambda finding: finding.line)
        self.uses += audits.debts.uses + audits.devices.uses
        self.descriptors += audits.debts.descriptors
        if self.wasteful is not None:
            self.wasteful += audits.debts.wasteful

    def to_json(self) -> Json:
        """The report in the form of ``vtd audit --format json``."""
        return {
            "kind": self.kind,
            "lines": self.lines,
            "uses": self.uses,
            "invalidations": self.descriptors,
            "wasteful": self.wasteful,
            "findings": [_row(finding) for finding in self.findings],
            "window": [_row(finding) for finding in self.window],
        }


def _row(finding: Finding) -> dict[str, Json]:
    use = finding.use
    row: dict[str, Json] = {
        "line": finding.line,
        "unit": finding.unit,
        "verdict": use.title,
        "severity": str(use.severity),
        "text": str(use),
    }
    if isinstance(use, Debt):
        row |= {
            "rule": use.rule.name if use.rule else None,
            "cache": use.cache.value,
            "owner": str(use.owner),
            "structure": use.changed.structure.value,
            "address": use.changed.address if use.changed.size else None,
            "was": use.changed.value,
            "now": use.now,
            "writer": use.writer,
            "missing": use.missing,
            "section": use.section,
            "inferred": use.inferred,
        }
    return row


def audit_log(lines: Iterable[str], policy: CachePolicy = AGGRESSIVE) -> LogReport:
    """Audit the lines of a log; AuditLogError names the line that is none of the three kinds.

    ``policy`` is what the unit of a platform log caches.
    """
    numbered = ((count, line.strip()) for count, line in enumerate(lines, 1) if line.strip())
    first = next(numbered, None)
    if first is None:
        return LogReport()
    every = chain([first], numbered)
    if first[1].startswith("{"):
        return _audit_platform(every, policy)
    known = list(every)
    if first[1].startswith("["):
        report = _audit_events("event log", list(_events(known)))
    elif any("vtd_" in line for _, line in known):
        report = _audit_events("QEMU trace", list(_trace_events(known)))
    else:
        raise AuditLogError(first[0], "neither JSON nor a trace of vtd_* events")
    report.lines = known[-1][0]
    return report


def audit_scenario(scenario: Mapping[str, Json], policy: CachePolicy = AGGRESSIVE) -> LogReport:
    """Audit a scenario; lines are the numbers of its steps, counted from 1."""
    with _problems_of(0):
        parsed = Scenario.parse(scenario, STEPS_AND_DESCRIPTORS)
        return _audit_steps("scenario", parsed, enumerate(parsed.steps, 1), policy)


def _audit_platform(lines: Iterator[tuple[int, str]], policy: CachePolicy) -> LogReport:
    scenario, steps = read_platform_log(lines)
    return _audit_steps("platform log", scenario, steps, policy)


def read_platform_log(
    lines: Iterator[tuple[int, str]],
) -> tuple[Scenario, Iterator[tuple[int, Step]]]:
    """The head of a platform log and its steps with their lines; AuditLogError names bad ones."""
    first, text = next(lines)
    head = _parsed(first, text)
    with _problems_of(first):
        scenario = Scenario.parse({**members(head), "steps": []})

    def steps() -> Iterator[tuple[int, Step]]:
        for here, text in lines:
            raw = _parsed(here, text)
            try:
                step = parse_step(raw, STEPS_AND_DESCRIPTORS)
            except BROKEN:
                with _problems_of(here):
                    raise
            yield here, step

    return scenario, steps()


def _audit_steps(
    kind: str, scenario: Scenario, steps: Iterable[tuple[int, Step]], policy: CachePolicy
) -> LogReport:
    report = LogReport(kind)
    with _problems_of(0):
        run = ScenarioRun(scenario, as_recorded=scenario.recorded_on_qemu, caches=policy)
    here = 0
    audits = audits_of(run.units, lambda: f"line {here}")
    for here in carry_out_lines(run, steps):
        for each in audits:
            each.at(here)
    report.lines = here
    for number, each in enumerate(audits):
        report.add(each, number)
    return report


@dataclass(frozen=True, kw_only=True)
class InvalidateStep(UnitStep):
    """One descriptor is carried out, in a log that does not have the queue itself."""

    op: ClassVar = "invalidate"

    descriptor: Number


STEPS_AND_DESCRIPTORS = {**STEPS, **kinds_of(InvalidateStep)}


def carry_out_lines(run: ScenarioRun, steps: Iterable[tuple[int, Step]]) -> Iterator[int]:
    """Each line, before its step is taken; AuditLogError if one can't be taken."""
    take = run.carry_out  # made anew at each look
    for line, step in steps:
        yield line
        try:
            if isinstance(step, InvalidateStep):
                _carry_out(run.unit_numbered(step.unit), _descriptor(step.descriptor))
            else:
                take(step)
        except BROKEN:
            with _problems_of(line):
                raise


def _carry_out(unit: RemappingUnit, record: BitRecord | None) -> None:
    match record:
        case None:
            return
        case DeviceTlbInvalidateDescriptor() | PasidDeviceTlbInvalidateDescriptor():
            unit.devices.invalidate(record)
        case _:
            invalidate(unit.remapping, unit.interrupts, record)
    if unit.observer is not None:
        unit.observer.invalidated(record)
        unit.observer.invalidated(_WAIT)  # what is not in the log was waited for


_WAIT = InvalidationWaitDescriptor.of(sw=True)


def _descriptor(raw: int) -> BitRecord | None:
    """The descriptor if it invalidates something; ValueError if it is too wide."""
    if not 0 <= raw < 1 << 256:
        raise ValueError(f"descriptor: {raw:#x} has not 128 or 256 bits")
    kind = DescriptorHead(raw & (1 << 128) - 1).type
    if kind not in _INVALIDATIONS:
        return None
    return DESCRIPTORS[DescriptorType(kind)](raw)


_INVALIDATIONS = (
    DescriptorType.CC_INV,
    DescriptorType.IOTLB_INV,
    DescriptorType.IEC_INV,
    DescriptorType.P_IOTLB_INV,
    DescriptorType.PC_INV,
    DescriptorType.HPT_INV,
    DescriptorType.DEV_TLB_INV,
    DescriptorType.P_DEV_TLB_INV,
)


def _parsed(line: int, text: str) -> Json:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AuditLogError(line, f"not JSON: {error}") from error


@contextmanager
def _problems_of(line: int) -> Iterator[None]:
    """Wrong or missing fields of a line as an AuditLogError."""
    try:
        yield
    except AuditLogError:
        raise
    except KeyError as error:
        raise AuditLogError(line, f"{error} is missing") from error
    except (ValueError, TypeError, AttributeError, IndexError, BusError) as error:
        raise AuditLogError(line, str(error)) from error


class Event(NamedTuple):
    """One event of a log: its line, its name, and what the name brings along."""

    line: int
    name: str
    fields: tuple[Json, ...]


def _events(lines: list[tuple[int, str]]) -> Iterator[Event]:
    for here, text in lines:
        match _parsed(here, text):
            case [str(name), *fields]:
                yield Event(here, name, tuple(fields))
            case _:
                raise AuditLogError(here, "not an array that begins with a name")


def _trace_events(lines: list[tuple[int, str]]) -> Iterator[Event]:
    """What the trace points say, as events of a capture; other trace points are left out."""
    for here, text in lines:
        for pattern, make in _TRACE_POINTS:
            found = pattern.search(text)
            if found:
                with _problems_of(here):
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


def _audit_events(kind: str, events: list[Event]) -> LogReport:
    shadow = _Shadow(_capabilities(events), _paging_kind(events))
    for event in events:
        with _problems_of(event.line):
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
    with _problems_of(events[0].line):
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
                record = _descriptor(low | high << 64)
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
