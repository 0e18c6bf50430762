"""Lint of writes and registers while a unit is in use, and of the structures that it ends with.

VT-d 6.2.2.1, 6.2.3.1, 6.5.2 and 9.9: entries that are present change in one write. The structures
are judged by :mod:`vtd.auditing.lint_structures`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pagetables.bits import BitRecord
from pagetables.observer import Structure
from vtd.auditing.audit_log import carry_out_lines, read_platform_log
from vtd.auditing.lint_rules import OF_REGISTERS, LintFinding, finding
from vtd.auditing.lint_structures import lint_structures
from vtd.auditing.log_lines import AuditLogError
from vtd.auditing.throttling import names_no_function
from vtd.auditing.torn_writes import TornWrites
from vtd.auditing.waits import tells
from vtd.layouts.registers import GlobalCommand, GlobalStatus
from vtd.recordings.scenario import ScenarioRun
from vtd.unit.caching.policy import AGGRESSIVE
from vtd.unit.observer import Observer
from vtd.unit.reporting.events import Event, RegisterMisused
from vtd.unit.unit import RemappingUnit


class WriteLint(Observer):
    """Watches how software writes to the entries and registers that ``unit`` uses.

    ``line`` is where the reader of a log is.
    """

    def __init__(self, unit: RemappingUnit) -> None:
        self.line = 0
        self.findings: list[LintFinding] = []
        self._unit = unit
        self._memory = unit.remapping.memory
        self._torn = TornWrites(self._memory)
        self._own_store: int | None = None
        self._has_been = unit.registers[GlobalStatus]
        """What the unit was doing since the root tables were set, by TES and IRES."""
        unit.observe(self)
        unit.subscribe(self._event)
        self._watched = hasattr(self._memory, "watch")
        if self._watched:
            self._memory.watch(self._stored)  # type: ignore[attr-defined]

    def detach(self) -> None:
        """Watch no more; the findings stay."""
        self._unit.ignore(self)
        self._unit.unsubscribe(self._event)
        if self._watched:
            self._memory.ignore(self._stored)  # type: ignore[attr-defined]

    @property
    def switched_off(self) -> GlobalStatus:
        """What the unit does not do any more."""
        return GlobalStatus(self._has_been & ~self._unit.registers[GlobalStatus])

    def register_written(self, offset: int, size: int, value: int) -> None:
        """Functions begin and end; tables that are set anew are not given up."""
        if offset != GlobalCommand.OFFSET:
            return
        command, status = GlobalCommand(value & 0xFFFF_FFFF), self._unit.registers[GlobalStatus]
        known = self._has_been.replace(
            tes=self._has_been.tes and not command.srtp,
            ires=self._has_been.ires and not command.sirtp,
        )
        self._has_been = GlobalStatus(known | status)

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        """An entry that is in use."""
        self._torn.seen(structure, address, size)

    def update(self, structure: Structure, address: int, size: int, old: int, new: int) -> None:
        """The next store there is the unit's."""
        self._own_store = address

    def write(self, structure: Structure, address: int, data: bytes) -> None:
        """The next store there is the unit's."""
        self._own_store = address

    def invalidated(self, command: BitRecord) -> None:
        """What was changed before is one change, what follows another; PFSID is looked at."""
        if tells(command):
            self._torn.waited()
        message = names_no_function(self._unit, command)
        if message is not None:
            self.findings.append(finding("Q01", message, line=self.line))

    def _event(self, event: Event) -> None:
        if isinstance(event, RegisterMisused):
            rule = OF_REGISTERS[event.register].removeprefix("VTD-")
            message = f"{event.mistake} ({event.section})"
            self.findings.append(finding(rule, message, line=self.line))

    def _stored(self, address: int, data: bytes) -> None:
        if address == self._own_store:
            self._own_store = None
            return
        torn = self._torn.stored(address, data, self.line)
        if torn is not None:
            rule = "W02" if torn.structure is Structure.INTERRUPT_ENTRY else "W01"
            since = f", the first at line {torn.first}" if torn.first else ""
            what = f"{torn.structure.value} at {torn.address:#x}"
            message = f"{what} changed in several writes while P = 1{since}"
            self.findings.append(finding(rule, message, line=self.line, address=torn.address))


def lint_log(lines: Iterable[str]) -> list[LintFinding]:
    """Lint a platform log: its writes, and the structures at its end."""
    numbered = ((count, line.strip()) for count, line in enumerate(lines, 1) if line.strip())
    first = next(numbered, None)
    if first is None:
        raise AuditLogError(1, "empty: nothing to lint")
    if not first[1].startswith("{"):
        raise AuditLogError(first[0], "not the head of a platform log")

    def every() -> Iterator[tuple[int, str]]:
        yield first
        yield from numbered

    scenario, steps = read_platform_log(every())
    run = ScenarioRun(scenario, as_recorded=scenario.recorded_on_qemu, caches=AGGRESSIVE)
    watching = [WriteLint(unit) for unit in run.units]
    for line in carry_out_lines(run, steps):
        for each in watching:
            each.line = line
    found: list[LintFinding] = []
    for each in watching:
        each.detach()
        found += each.findings
    for unit, each in zip(run.units, watching, strict=True):
        found += lint_structures(unit, off=each.switched_off)
    return found
