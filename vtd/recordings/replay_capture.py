"""Replay of a Linux capture: the event log, the mappings, the probes and the interrupts.

The format is described in ``tests/captures/FORMAT.md``. The log drives a unit from reset, in memory
that holds only what the log says: what memory held earlier was not recorded, so DMA is not carried
out again and a fault of the log enters the unit at its fault recording. Mappings, probes and
interrupts are compared with the memory image, in the state in which the unit was at the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path

from devices.dma import READ, WRITE, Completion, Request
from devices.source_id import SourceId
from pagetables.memory import PhysicalMemory
from pagetables.observer import Structure
from pagetables.unchanged import UnchangedMemory
from vtd.inspection.sources import list_sources, pages
from vtd.layouts.interrupt_entries import RemappedIrte
from vtd.layouts.registers import (
    FaultRecording,
    GlobalStatus,
    InvalidationQueueAddress,
    InvalidationQueueTail,
)
from vtd.recordings.capture import Capture, CaptureError, read_json, read_json_lines
from vtd.recordings.replay import Mismatch, Report, Trace
from vtd.recordings.scenario import BROKEN
from vtd.recordings.values import Json
from vtd.software.registers import start
from vtd.unit.departures import QEMU, Departures
from vtd.unit.interrupts.interrupt_remapping import IRTE_SIZE
from vtd.unit.interrupts.outcome import compatibility_interrupt
from vtd.unit.observer import Observer
from vtd.unit.options import Options
from vtd.unit.registers.register_map import REGISTERS
from vtd.unit.reporting.events import Event, MessageSent
from vtd.unit.requests.faults import FaultReason
from vtd.unit.unit import RemappingUnit

NARROW = frozenset(register.OFFSET for register in REGISTERS if register.WIDTH == 32)
EVENTS, MAPPINGS = "events.jsonl.gz", "mappings.json.gz"
PROBES, INTERRUPTS = "probes.json.gz", "interrupts.json"
LISTING_LIMIT = 10_000_000
"""Table entries looked at for one source."""

Comparison = tuple[str, Json, Json]
"""What was compared, what the capture says, what the model did."""


def replay_capture(
    folder: Path, trace: Trace | None = None, *, departures: Departures | None = None
) -> Report:
    """Replay the capture in ``folder``; one of QEMU may fall back on all that QEMU departs in.

    ``departures``: of the unit, with no second run. ``trace`` hears of the probes. CaptureError or
    ImageError if a part of the capture can't be used.
    """
    capture = Capture.load(folder)
    report = run_capture(capture, departures=departures, trace=trace)
    if report.mismatches and departures is None and capture.qemu:
        again = run_capture(Capture.load(folder), departures=QEMU, trace=trace)
        report = min(report, again, key=lambda each: len(each.mismatches))
    return report


def run_capture(
    capture: Capture, *, departures: Departures | None = None, trace: Trace | None = None
) -> Report:
    """Compare everything the capture holds; the steps are the single comparisons.

    Without ``departures`` the unit has those that the capture names.
    """
    options = Options(departures=capture.departures if departures is None else departures)
    report = Report(str(capture.folder), 0, as_recorded=options.departures == QEMU)
    parts = {
        EVENTS: compare_log(capture, options),
        MAPPINGS: compare_mappings(capture, options),
        PROBES: compare_probes(capture, options, trace),
        INTERRUPTS: compare_interrupts(capture, options),
    }
    if not (capture.folder / PROBES).exists():
        del parts[PROBES]
        report.not_compared.append(f"{PROBES}: not there")
    for name, comparisons in parts.items():
        try:
            for op, expect, got in comparisons:
                if expect == got:
                    report.passed += 1
                else:
                    report.mismatches.append(Mismatch(report.steps, op, expect, got))
                report.steps += 1
        except BROKEN as error:
            raise CaptureError(f"{capture.folder / name}: {error!r}") from error
    if read_json(capture.folder / INTERRUPTS)["table"] is None:
        report.not_compared.append(f"{INTERRUPTS}: no table")
    return report


def compare_log(capture: Capture, options: Options) -> Iterator[Comparison]:
    """Registers, status writes, messages and fault records in the order of the log."""
    run = LogRun(capture, options)
    yield from run.compare()
    for name, offset in capture.offsets.items():
        value = run.unit.read_register(offset, 4 if offset in NARROW else 8)
        yield f"register {name}", hex(capture.registers[name]), hex(value)


class StatusWrites(Observer):
    """Notes what wait descriptors write."""

    def __init__(self, done: deque[Json]) -> None:
        self._done = done

    def write(self, structure: Structure, address: int, data: bytes) -> None:
        """Address and value, as the log has them."""
        self._done.append([address, int.from_bytes(data, "little")])


def interrupt_of(unit: RemappingUnit, source_id: int, address: int, data: int) -> object:
    """What an interrupt request becomes; None if it is blocked."""
    payload = data.to_bytes(4, "little")
    answer = unit.admit(Request(source_id, address, WRITE, 4, payload=payload))
    return answer.interrupt if isinstance(answer, Completion) else None


class LogRun:
    """The unit that the event log drives, and what it did that the log has not confirmed yet."""

    def __init__(self, capture: Capture, options: Options) -> None:
        self._events: list[list[Json]] = read_json_lines(capture.folder / EVENTS)
        self._memory = PhysicalMemory()
        self._memory.add_region(0, 1 << capture.capabilities.host_address_width)
        self.unit = RemappingUnit(capture.capabilities, self._memory, options)
        self.unit.subscribe(self._happened)
        self._done: dict[str, deque[Json]] = {"wait": deque(), "irq": deque(), "frcd": deque()}
        self.unit.observe(StatusWrites(self._done["wait"]))

    def compare(self) -> Iterator[Comparison]:
        """Every line that says what the unit did."""
        for number, event in enumerate(self._events):
            match event:
                case ["r", offset, size, value]:
                    yield f"r {offset:#x}", value, self.unit.read_register(offset, size)
                case ["w", offset, size, value]:
                    if offset == InvalidationQueueTail.OFFSET:
                        self._store_descriptors(number + 1)
                    self.unit.write_register(offset, size, value)
                case ["fault", source_id, reason, address, is_write]:
                    self._fault(source_id, _reason(reason), address, is_write)
                case ["msi", address, data, to, value, entry, _]:
                    got = self._interrupt(address, data, entry)
                    yield f"msi {address:#x}", compatibility_interrupt(to, value), got
                case ["wait" | "irq" | "frcd" as kind, *expect]:
                    done = self._done[kind]
                    yield kind, expect, done.popleft() if done else None
        for kind, done in self._done.items():
            for got in done:
                yield kind, None, got

    def _store_descriptors(self, start: int) -> None:
        """Put the descriptors that the log shows until the next tail write into the queue."""
        queue = self.unit.registers[InvalidationQueueAddress]
        size = 32 if queue.dw else 16
        for event in self._events[start:]:
            if event[:2] == ["w", InvalidationQueueTail.OFFSET]:
                return
            if event[0] == "iq":
                _, index, _, low, high = event
                data = (high << 64 | low).to_bytes(size, "little")
                self._memory.load(queue.iqa + index * size, data)

    def _fault(self, source_id: int, reason: FaultReason, address: int, is_write: int) -> None:
        pending = self._record_pending()
        request = Request(SourceId(source_id), address, WRITE if is_write else READ)
        self.unit.faults.dma_fault(request, reason)
        if not pending and self._record_pending():
            record = self.unit.registers[FaultRecording].replace(f=False)
            self._done["frcd"].append([0, record & (1 << 64) - 1, record >> 64])

    def _record_pending(self) -> bool:
        return bool(self.unit.registers[FaultRecording].f)

    def _interrupt(self, address: int, data: int, entry: Json) -> object:
        source_id = 0
        if entry is not None:
            index, low, high = entry
            store_entry(self._memory, self.unit, index, low, high)
            source_id = RemappedIrte(high << 64 | low).sid
        return interrupt_of(self.unit, source_id, address, data)

    def _happened(self, event: Event) -> None:
        if isinstance(event, MessageSent):
            self._done["irq"].append(list(event.message))


def compare_mappings(capture: Capture, options: Options) -> Iterator[Comparison]:
    """The sources, in order, and the leaves of each."""
    truth = read_json(capture.folder / MAPPINGS)
    remapping = capture.unit(options).remapping
    sources = list(list_sources(remapping)) if truth["mode"] else []
    listed = [(int(each.source_id), each.pasid, each.kind) for each in sources]
    known = [(each["sid"], each["pasid"], each["kind"]) for each in truth["sources"]]
    yield "sources", known, listed
    for expect, source in zip(truth["sources"], sources, strict=False):
        table = truth["tables"].get(expect.get("table"), {"leaves": []})
        got = []
        if source.target is not None:
            got = pages(remapping, source.target, LISTING_LIMIT)
        mapped = {page.address: (page.length, page.physical, page.rights) for page in got}
        for address, length, physical, rights, *_ in table["leaves"]:
            where = int(address, 16)
            leaf = int(length, 16), int(physical, 16), rights
            yield f"leaf {source.source_id} {address}", leaf, mapped.pop(where, None)
        for address, leaf in mapped.items():
            yield f"leaf {source.source_id} {address:#x}", None, leaf


def compare_probes(
    capture: Capture, options: Options, trace: Trace | None = None
) -> Iterator[Comparison]:
    """Each write that was tried with a table: where it went, or None where it was refused.

    The reasons are those of the recorded unit and are not compared.
    """
    path = capture.folder / PROBES
    owners = {
        source["table"]: source["sid"]
        for source in read_json(capture.folder / MAPPINGS)["sources"]
        if source.get("table") is not None
    }
    unit = capture.unit(options, UnchangedMemory(capture.memory))
    for table, probes in read_json(path)["tables"].items():
        if table not in owners:
            raise CaptureError(f"{path}: {table} belongs to no source")
        for address, _, expect, _ in probes:
            request = Request(owners[table], int(address, 16), WRITE, 4)
            if trace is not None:
                trace(unit, f"probe {table}", request)
            got = unit.admit(request)
            landed = hex(got) if isinstance(got, int) else None
            yield f"probe {table} {address}", expect, landed


def compare_interrupts(capture: Capture, options: Options) -> Iterator[Comparison]:
    """Present entries of the table, and each observed message with the entry it used then.

    Messages before remapping was on used none, and those after it was switched off neither: the
    others go to the table that the log has set last.
    """
    truth = read_json(capture.folder / INTERRUPTS)
    reset = RemappingUnit(capture.capabilities, capture.memory, options)
    unit = RemappingUnit(capture.capabilities, capture.memory, options)
    able = "ir" in capture.capabilities.features
    status = GlobalStatus(capture.registers["GSTS"]).replace(ires=able, irtps=able)
    start(unit, status.replace(tes=False, rtps=False), 0, _last_interrupt_table(capture))
    if truth["table"] is not None:
        irta = unit.interrupts.table.irta
        for each in truth["table"]["irtes"]:
            entry = capture.memory.read_record(irta + each["index"] * IRTE_SIZE, IRTE_SIZE)
            yield f"irte {each['index']}", [each["hi"], each["lo"]], _halves(entry)
    for each in truth["observed"]:
        (address, data), (to, value), used = each["in"], each["out"], each["irte"]
        expect = compatibility_interrupt(int(to, 16), int(value, 16))
        if used is None:
            got = interrupt_of(reset, 0, int(address, 16), int(data, 16))
        else:
            low, high = int(used["lo"], 16), int(used["hi"], 16)
            store_entry(capture.memory, unit, used["index"], low, high)
            unit.interrupts.clear()
            source_id = RemappedIrte(high << 64 | low).sid
            got = interrupt_of(unit, source_id, int(address, 16), int(data, 16))
        yield f"msi {address}", expect, got


def _last_interrupt_table(capture: Capture) -> int:
    """IRTA_REG as SIRTP latched it last: what software stores there later has no effect yet."""
    unit = RemappingUnit(capture.capabilities, PhysicalMemory())
    for event in read_json_lines(capture.folder / EVENTS):
        match event:
            case ["w", offset, size, value] if offset in _TABLE_REGISTERS:
                unit.write_register(offset, size, value)
    return unit.interrupts.table


_TABLE_REGISTERS = (0x18, 0xB8, 0xBC)
"""GCMD_REG and both halves of IRTA_REG."""


def store_entry(
    memory: PhysicalMemory, unit: RemappingUnit, index: int, low: int, high: int
) -> None:
    """Write an interrupt-remapping table entry as the capture has it, in two halves."""
    address = unit.interrupts.table.irta + index * IRTE_SIZE
    memory.load(address, (high << 64 | low).to_bytes(IRTE_SIZE, "little"))


def _reason(code: int) -> FaultReason:
    for reason in FaultReason:
        if reason == code:
            return reason
    raise ValueError(f"{code} is no fault reason")


def _halves(entry: int) -> list[str]:
    return [f"{half:#018x}" for half in (entry >> 64, entry & (1 << 64) - 1)]
