"""Replay of a live recording: units made from its head, every line carried out, and compared.

Memory is what the lines say of it: a record that no line has is none, and reading it fails as it
does where there is no memory. So with another cache policy than the recorded one, a unit that reads
more than the recorded one did may come to other outcomes; such reads are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import zip_longest
from pathlib import Path

from devices.dma import Completion
from devices.source_id import Bdf, SourceId
from pagetables.memory import ADDRESS_WIDTH, BusError, PhysicalMemory
from pagetables.observer import Structure
from vtd.dmar.bridges import Bridges
from vtd.dmar.scopes import Scopes
from vtd.recordings.live import LiveHead, open_live_file, replayable
from vtd.recordings.live_lines import (
    InterruptRequested,
    Known,
    Line,
    MessageSent,
    PageAskedFor,
    PageRequested,
    RegisterRead,
    RegisterWritten,
    Stored,
    Tagged,
    answer_of,
)
from vtd.recordings.replay import Mismatch, Report, Trace
from vtd.recordings.values import Json, ScenarioError
from vtd.unit.caching.policy import CachePolicy
from vtd.unit.departures import Departures
from vtd.unit.observer import Observer
from vtd.unit.options import Options
from vtd.unit.reporting import events
from vtd.unit.unit import RemappingUnit

Comparison = tuple[str, Json, Json]
"""What was compared, what the recording says, what the unit did."""


class Onlooker(Observer):
    """Notes what a unit stores, and lets it read no more than the recording has."""

    def __init__(self, known: set[int], stored: list[Json]) -> None:
        self._known = known
        """Numbers of the quadwords of which the recording has said something."""
        self._stored = stored
        self._updating = 0
        self.missing = 0
        """Reads of what it has not."""

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        """Fail where the recording has nothing."""
        if not self._known.issuperset(_quadwords(address, size)):
            self.missing += 1
            raise BusError(address, "not in the recording")

    def update(self, structure: Structure, address: int, size: int, old: int, new: int) -> None:
        """The size of what is about to change."""
        self._updating = size

    def updated(self, structure: Structure, address: int, new: int, *, done: bool) -> None:
        """A flag that was set."""
        if done:
            self._stored.append([address, self._updating, new])

    def write(self, structure: Structure, address: int, data: bytes) -> None:
        """A status word or a page request."""
        self._known.update(_quadwords(address, len(data)))
        self._stored.append([address, len(data), int.from_bytes(data, "little")])


def _quadwords(address: int, size: int) -> range:
    return range(address >> 3, (address + size - 1 >> 3) + 1)


class LiveRun:
    """The units of a recording from reset, and what each line does to them.

    ``departures`` and ``caches``: of the units, instead of the recorded ones.
    """

    def __init__(
        self,
        head: LiveHead,
        *,
        departures: Departures | None = None,
        caches: CachePolicy | None = None,
    ) -> None:
        self.memory = PhysicalMemory()
        self.memory.add_region(0, 1 << ADDRESS_WIDTH)
        options = Options(
            caches=head.caches if caches is None else replayable(caches),
            departures=head.departures if departures is None else departures,
        )
        made = zip(head.units, head.constants, strict=True)
        self.units = [
            RemappingUnit(capabilities, self.memory, options, constants)
            for capabilities, constants in made
        ]
        self._known: set[int] = set()
        self._owners: dict[int, RemappingUnit] = {}
        self._scopes = Scopes(head.table, Bridges(head.bridges))
        self._numbers = {each: number for number, each in enumerate(head.table.units)}
        self._expected: dict[str, list[Json]] = {"u": [], "e": []}
        self._done: dict[str, list[Json]] = {"u": [], "e": []}
        self.onlookers = []
        for number, unit in enumerate(self.units):
            onlooker = Onlooker(self._known, self._done["u"])
            unit.observe(onlooker)
            unit.subscribe(partial(self._happened, number))
            self.onlookers.append(onlooker)

    @property
    def missing(self) -> int:
        """Reads of memory that the recording does not have."""
        return sum(onlooker.missing for onlooker in self.onlookers)

    def unit_of(self, source_id: int) -> RemappingUnit:
        """The unit that a requester belongs to; ScenarioError if the table does not tell.

        What is behind a bridge that the recording does not tell of belongs to the only unit there
        is, or to the unit with INCLUDE_PCI_ALL.
        """
        if len(self.units) == 1:
            return self.units[0]
        if source_id not in self._owners:
            self._owners[source_id] = self._find_unit(SourceId(source_id))
        return self._owners[source_id]

    def _find_unit(self, source_id: SourceId) -> RemappingUnit:
        for segment in sorted({unit.segment for unit in self._numbers}):
            owner = self._scopes.owner(Bdf(segment, source_id))
            if owner is not None:
                return self.units[self._numbers[owner.unit]]
        raise ScenarioError(f"source-id: no unit covers {source_id}")

    def carry_out(self, line: Line) -> Iterator[Comparison]:
        """What a line led to, beside what it says."""
        match line:
            case Known(address, size, value):
                self.memory.load(address, value.to_bytes(size, "little"))
                self._known.update(_quadwords(address, size))
                return
            case Stored(_, address, size, value):
                self._expected["u"].append([address, size, value])
                return
            case MessageSent():
                self._expected["e"].append(list(line))
                return
            case RegisterRead(unit, offset, size, value):
                got: Json = self.units[unit].read_register(offset, size)
                if self.units[unit].faults.is_information_defined(offset):
                    yield f"r {offset:#x}", value, got
            case RegisterWritten(unit, offset, size, value):
                self.units[unit].write_register(offset, size, value)
            case PageRequested(source_id, address, _, expect):
                answer = self._admit(line)
                got = answer if isinstance(answer, int) else None
                yield f"d {SourceId(source_id)} {address:#x}", expect, got
            case Tagged(source_id, address, answer=expect):
                yield f"t {SourceId(source_id)} {address:#x}", expect, answer_of(self._admit(line))
            case PageAskedFor(source_id, address, queued=expect):
                got = answer_of(self._admit(line)) == []
                yield f"p {SourceId(source_id)} {address:#x}", expect, got
            case InterruptRequested(source_id, address, delivered=expect):
                got = answer_of(self._admit(line)) == []
                yield f"i {SourceId(source_id)} {address:#x}", expect, got
        yield from self.settle()

    def _admit(
        self, line: PageRequested | Tagged | PageAskedFor | InterruptRequested
    ) -> int | Completion:
        return self.unit_of(line.source_id).admit(line.request)

    def settle(self) -> Iterator[Comparison]:
        """What the units stored and sent since the last operation, beside what was announced."""
        for kind, expected in self._expected.items():
            done = self._done[kind]
            for expect, got in zip_longest(expected, done):
                yield kind, expect, got
            expected.clear()
            done.clear()

    def _happened(self, number: int, event: events.Event) -> None:
        if isinstance(event, events.MessageSent):
            self._done["e"].append([number, *event.message])


def replay_live(
    path: Path,
    trace: Trace | None = None,
    *,
    departures: Departures | None = None,
    caches: CachePolicy | None = None,
) -> Report:
    """Replay one recording; ScenarioError if a line is not what the format says.

    ``departures`` and ``caches``: of the units, instead of the recorded ones. ``trace`` hears of
    each request for a page before it is made.
    """
    report = Report(str(path), 0, counted_by="line")
    with open_live_file(path) as (head, lines):
        run = LiveRun(head, departures=departures, caches=caches)
        last = 1
        for number, line in lines:
            last = number
            if trace is not None and isinstance(line, PageRequested | Tagged):
                trace(run.unit_of(line.source_id), f"line {number}", line.request)
            _compare(report, number, run.carry_out(line))
        _compare(report, last, run.settle())
    if run.missing:
        report.not_compared.append(
            f"{run.missing} reads of memory that the recording does not have: they fail"
        )
    return report


def live_run(
    path: Path, *, departures: Departures | None = None, until: int | None = None
) -> LiveRun:
    """The units of a recording after its lines, or after those before line ``until``.

    ScenarioError if a line is not what the format says.
    """
    with open_live_file(path) as (head, lines):
        run = LiveRun(head, departures=departures)
        for number, line in lines:
            if until is not None and number >= until:
                break
            for _ in run.carry_out(line):
                pass
    return run


def _compare(report: Report, number: int, comparisons: Iterable[Comparison]) -> None:
    for op, expect, got in comparisons:
        report.steps += 1
        if expect == got:
            report.passed += 1
        else:
            report.mismatches.append(Mismatch(number, op, expect, got))
