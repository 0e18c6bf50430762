"""Audit of a log: table writes, invalidations and DMAs, replayed to find the stale uses.

Three kinds of log, told apart by their first line; ``docs/audit-log.md`` describes them:

* a platform log: JSON objects, the head of a scenario and then its steps, one a line. Memory is
  known at every moment, and :class:`UnitAudit` judges every use of what a cache may hold. It is
  read line by line.
* an event log of a capture: JSON arrays (:mod:`vtd.auditing.event_log`).
* lines that QEMU's ``vtd_*`` trace points print, judged like events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

from pagetables.bits import BitRecord
from vtd.auditing.event_log import audit_events, capture_events, trace_events
from vtd.auditing.log_lines import AuditLogError, invalidation, parse_line, problems_of
from vtd.auditing.log_report import LogReport
from vtd.auditing.unit_audit import audits_of
from vtd.layouts.descriptors import (
    DeviceTlbInvalidateDescriptor,
    InvalidationWaitDescriptor,
    PasidDeviceTlbInvalidateDescriptor,
)
from vtd.recordings.scenario import BROKEN, Scenario, ScenarioRun
from vtd.recordings.steps import STEPS, Number, Step, UnitStep, kinds_of, parse_step
from vtd.recordings.values import Json, members
from vtd.unit.caching.policy import AGGRESSIVE, CachePolicy
from vtd.unit.queues.invalidation import invalidate
from vtd.unit.unit import RemappingUnit


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
        report = audit_events("event log", list(capture_events(known)))
    elif any("vtd_" in line for _, line in known):
        report = audit_events("QEMU trace", list(trace_events(known)))
    else:
        raise AuditLogError(first[0], "neither JSON nor a trace of vtd_* events")
    report.lines = known[-1][0]
    return report


def audit_scenario(scenario: Mapping[str, Json], policy: CachePolicy = AGGRESSIVE) -> LogReport:
    """Audit a scenario; lines are the numbers of its steps, counted from 1."""
    with problems_of(0):
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
    head = parse_line(first, text)
    with problems_of(first):
        scenario = Scenario.parse({**members(head), "steps": []})

    def steps() -> Iterator[tuple[int, Step]]:
        for here, text in lines:
            raw = parse_line(here, text)
            try:
                step = parse_step(raw, STEPS_AND_DESCRIPTORS)
            except BROKEN:
                with problems_of(here):
                    raise
            yield here, step

    return scenario, steps()


def _audit_steps(
    kind: str, scenario: Scenario, steps: Iterable[tuple[int, Step]], policy: CachePolicy
) -> LogReport:
    report = LogReport(kind)
    with problems_of(0):
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
                _carry_out(run.unit_numbered(step.unit), invalidation(step.descriptor))
            else:
                take(step)
        except BROKEN:
            with problems_of(line):
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
