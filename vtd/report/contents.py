"""What was given to a report, and its sections in order.

What is given together explains each other: a table tells the units of the functions of a listing,
both tell the context of a log, and faults of a log are walked through the tables of a unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from devices.dma import READ, WRITE, Request
from vtd.auditing.lint_rules import LintFinding
from vtd.auditing.log_report import LogReport
from vtd.dmar.pci_tree import PciTree
from vtd.dmar.platform_data import PlatformData
from vtd.dmar.ranges import RangeSet
from vtd.dmar.rules import check
from vtd.dmar.table import Table, TableError
from vtd.host.planner import Judgement, Nearest
from vtd.host.surroundings import Surroundings
from vtd.inspection.capability_rows import Decoded
from vtd.inspection.register_listings import ListedUnit
from vtd.logs.context import put_in_context
from vtd.logs.fault import RequestKind
from vtd.logs.log import Log
from vtd.machine.assembly import Assembly
from vtd.recordings.replay import Report
from vtd.report.capabilities import capabilities_section
from vtd.report.judgements import audit_section, plan_section, replay_section
from vtd.report.logs import log_section
from vtd.report.machines import listing_section, machine_section
from vtd.report.section import Section
from vtd.report.sweeps import sweep_section
from vtd.report.tables import table_section
from vtd.report.units import interrupts_section, translation_section
from vtd.unit.unit import RemappingUnit

if TYPE_CHECKING:
    from vtd.sweeps.results import Result

ACCESSES = {RequestKind.READ: READ, RequestKind.WRITE: WRITE}


class GivenUnit(NamedTuple):
    """A unit that nobody changes, with what is known of it."""

    name: str
    unit: RemappingUnit
    table: Table | None = None
    """The table of its machine."""
    findings: tuple[LintFinding, ...] = ()


class GivenPlan(NamedTuple):
    """A passthrough plan that was judged."""

    judgement: Judgement
    better: Nearest | None
    around: Surroundings


@dataclass
class Contents:
    """Everything that was given, each with the name of its input."""

    tables: list[tuple[str, bytes]] = field(default_factory=list)
    listings: list[tuple[str, PciTree]] = field(default_factory=list)
    logs: list[tuple[str, Log]] = field(default_factory=list)
    capabilities: list[tuple[str, tuple[ListedUnit, ...]]] = field(default_factory=list)
    memory_maps: list[tuple[str, RangeSet]] = field(default_factory=list)
    machines: list[tuple[str, Assembly]] = field(default_factory=list)
    plans: list[tuple[str, GivenPlan]] = field(default_factory=list)
    units: list[GivenUnit] = field(default_factory=list)
    replays: list[tuple[str, Report]] = field(default_factory=list)
    sweeps: list[tuple[str, list[Result]]] = field(default_factory=list)
    audits: list[tuple[str, LogReport]] = field(default_factory=list)
    platform: PlatformData = field(default_factory=PlatformData)
    """What a collection holds of its machine."""

    def sections(self) -> Iterator[Section]:
        """The sections; the machine first, what happened last."""
        table, table_name = self._table()
        platform = self._platform()
        for name, tree in self.listings:
            yield listing_section(name, tree, table, table_name)
        for name, assembly in self.machines:
            yield machine_section(name, assembly)
            yield table_section(name, assembly.table.pack(), assembly.surroundings)
        for name, data in self.tables:
            yield table_section(name, data, platform)
        for name, units in self.capabilities:
            yield capabilities_section(name, [Decoded.of(each) for each in units])
        for name, plan in self.plans:
            yield plan_section(name, *plan)
        for each in self.units:
            yield translation_section(each.name, each.unit, self._faults(), each.findings)
            yield interrupts_section(each.name, each.unit, each.table)
        for name, log in self.logs:
            seen, context = put_in_context(log, table, platform)
            yield log_section(name, seen, context, self._options(name))
        for name, report in self.replays:
            yield replay_section(name, report)
        for name, results in self.sweeps:
            yield sweep_section(name, results)
        for name, audited in self.audits:
            yield audit_section(name, audited)

    def _table(self) -> tuple[Table | None, str]:
        """The first table that is one, and its input."""
        for name, data in self.tables:
            try:
                table = Table.parse(data)
            except TableError:
                continue
            if not check(table, rules={"DMAR-H01"}):
                return table, name
        return None, ""

    def _platform(self) -> PlatformData:
        changes: dict[str, Any] = {}
        if self.listings and self.platform.pci is None:
            changes["pci"] = self.listings[0][1]
        if self.memory_maps and self.platform.reserved_memory is None:
            changes["reserved_memory"] = self.memory_maps[0][1]
        return replace(self.platform, **changes)

    def _options(self, log: str) -> tuple[str, ...]:
        """The options that give a log the same context on the command line."""
        options: Sequence[tuple[str, list[Any]]] = (
            ("--dmar", self.tables), ("--lspci", self.listings), ("--memory-map", self.memory_maps),
        )  # fmt: skip
        return tuple(
            word
            for option, given in options
            if given and given[0][0] != log
            for word in (option, given[0][0])
        )

    def _faults(self) -> list[Request]:
        """The first request of each kind of fault in the logs, as far as they tell it."""
        return [
            Request(each.source.source_id, each.ranges[0][0], ACCESSES[each.kind], 1, each.pasid)
            for _, log in self.logs
            for each in log.faults
            if each.source is not None and each.ranges and each.kind in ACCESSES
        ]
