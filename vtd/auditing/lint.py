"""Lint of writes and registers while a unit is in use, and of the structures that it ends with.

VT-d 6.2.2.1, 6.2.3.1, 6.5.2 and 9.9: entries that are present change in one write. The structures
are judged by :mod:`vtd.auditing.lint_structures`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from devices.source_id import SourceId
from pagetables.bits import BitRecord
from pagetables.memory import BusError
from pagetables.observer import Structure
from vtd.auditing.audit_log import AuditLogError, carry_out_line, read_platform_log
from vtd.auditing.lint_rules import OF_REGISTERS, LintFinding, finding
from vtd.auditing.lint_structures import lint_structures
from vtd.layouts.descriptors import (
    DeviceTlbInvalidateDescriptor,
    InvalidationWaitDescriptor,
    PasidDeviceTlbInvalidateDescriptor,
)
from vtd.layouts.entries import ContextEntry, PasidEntry
from vtd.layouts.interrupt_entries import RemappedIrte
from vtd.layouts.registers import TranslationTableMode
from vtd.recordings.scenario import ScenarioRun
from vtd.unit.caching.policy import AGGRESSIVE
from vtd.unit.observer import Observer
from vtd.unit.reporting.events import Event, RegisterMisused
from vtd.unit.unit import RemappingUnit


@dataclass
class _Partly:
    """What single stores have changed of a present entry since it was last invalidated."""

    tables: int = 0
    """The line that changed where tables are, or the lower half of an interrupt entry."""
    tags: int = 0
    """The line that changed the domain-id, or the upper half."""


class WriteLint(Observer):
    """Watches how software writes to the entries and registers that ``unit`` uses.

    ``line`` is where the reader of a log is.
    """

    def __init__(self, unit: RemappingUnit) -> None:
        self.line = 0
        self.findings: list[LintFinding] = []
        self._unit = unit
        self._memory = unit.remapping.memory
        self._records: dict[int, tuple[Structure, int]] = {}
        """Structure and size of the entries that were read, by address."""
        self._partly: dict[int, _Partly] = {}
        self._own_store: int | None = None
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

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        """An entry that is in use."""
        legacy = self._unit.remapping.mode is TranslationTableMode.LEGACY
        if structure in _TAGS and (structure is not Structure.CONTEXT or legacy):
            self._records[address] = structure, size

    def update(self, structure: Structure, address: int, size: int, old: int, new: int) -> None:
        """The next store there is the unit's."""
        self._own_store = address

    def write(self, structure: Structure, address: int, data: bytes) -> None:
        """The next store there is the unit's."""
        self._own_store = address

    def invalidated(self, command: BitRecord) -> None:
        """What was changed before is one change, what follows another; PFSID is looked at."""
        match command:
            case InvalidationWaitDescriptor():
                self._partly.clear()
            case DeviceTlbInvalidateDescriptor() | PasidDeviceTlbInvalidateDescriptor():
                throttles = "dit" in self._unit.capabilities.features
                if throttles and command.sid and not command.pfsid:
                    message = f"device-TLB invalidation of {SourceId(command.sid)}: PFSID is 0"
                    self.findings.append(finding("Q01", message, line=self.line))
            case _:
                pass

    def _event(self, event: Event) -> None:
        if isinstance(event, RegisterMisused):
            rule = OF_REGISTERS[event.register].removeprefix("VTD-")
            message = f"{event.mistake} ({event.section})"
            self.findings.append(finding(rule, message, line=self.line))

    def _stored(self, address: int, data: bytes) -> None:
        if address == self._own_store:
            self._own_store = None
            return
        for size in (16, 64):
            start = address & -size
            known = self._records.get(start)
            if known is not None and known[1] == size:
                self._entry_stored(known[0], start, size, address, data)

    def _entry_stored(
        self, structure: Structure, start: int, size: int, address: int, data: bytes
    ) -> None:
        try:
            before = self._memory.read_record(start, size)
        except BusError:
            return
        offset = address - start
        content = bytearray(before.to_bytes(size, "little"))
        content[offset : offset + len(data)] = data[: size - offset]
        after = int.from_bytes(content, "little")
        if not before & after & 1:  # not present before or afterwards
            self._partly.pop(start, None)
            return
        tables, tags = _TAGS[structure]
        changed = before ^ after
        partly = self._partly.setdefault(start, _Partly())
        here = self.line or -1
        if changed & tables and not changed & tags:
            if partly.tags:
                self._torn(structure, start, partly.tags)
            partly.tables = here
        elif changed & tags and not changed & tables:
            if partly.tables:
                self._torn(structure, start, partly.tables)
            partly.tags = here

    def _torn(self, structure: Structure, address: int, first: int) -> None:
        rule = "W02" if structure is Structure.INTERRUPT_ENTRY else "W01"
        since = f", the first at line {first}" if first > 0 else ""
        message = f"{structure.value} at {address:#x} changed in several writes while P = 1{since}"
        self.findings.append(finding(rule, message, line=self.line, address=address))
        self._partly.pop(address, None)


_TAGS: dict[Structure, tuple[int, int]] = {
    Structure.CONTEXT: (
        ContextEntry.ssptptr.mask | ContextEntry.tt.mask,
        ContextEntry.did.mask | ContextEntry.aw.mask,
    ),
    Structure.PASID: (
        PasidEntry.ssptptr.mask | PasidEntry.pgtt.mask | PasidEntry.fsptptr.mask,
        PasidEntry.did.mask,
    ),
    Structure.INTERRUPT_ENTRY: ((1 << 64) - 1 & ~RemappedIrte.avail.mask, (1 << 128) - (1 << 64)),
}
"""What has to change together: where tables are, and the tags of what is cached of them."""


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
    watching = WriteLint(run.unit)
    for line, step in steps:
        watching.line = line
        carry_out_line(run, line, step)
    watching.detach()
    return [*watching.findings, *lint_structures(run.unit)]
