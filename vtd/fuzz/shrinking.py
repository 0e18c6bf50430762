"""A failing case with every step left out that can be, where it fails in the same way.

Hypothesis makes the operations few that a case is generated from; each of them is many steps.
Without an invalidation, or a command that empties caches, units may be right to differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from vtd.auditing.audit import Audit
from vtd.fuzz.case import Case, Step
from vtd.fuzz.places import QUEUE
from vtd.fuzz.properties import Violation, carry_out
from vtd.fuzz.targets import EngineTarget, compare
from vtd.unit.caching.policy import AGGRESSIVE, UNCACHED

Try = Callable[[Case], Violation | None]
"""How a case fails; None if it does not."""
Sound = Callable[[Case], bool]
"""Whether a case is one still, asked if commands or invalidations were left out."""


def is_sound(case: Case) -> bool:
    """Whether every unit has to do the same, whatever it keeps: software owes nothing."""
    expected = EngineTarget(UNCACHED).run(case)
    run = EngineTarget(AGGRESSIVE).start(case)
    audit = Audit(run.unit)
    return not compare(case, expected, carry_out(run, case, audit)) and not audit.findings


def shrunk(
    violation: Violation, attempt: Try, expired: Callable[[], bool], sound: Sound
) -> Violation:
    """The violation of fewer steps, until none can be left out or time is up."""
    if violation.case is None:
        return violation
    for size in _sizes(len(violation.case.steps)):
        violation = _without(violation, attempt, expired, sound, size)
    while not expired():
        before = violation
        violation = _without(violation, attempt, expired, sound, 1)
        if violation is before:
            break
    return violation


def _sizes(steps: int) -> Iterator[int]:
    size = steps // 2
    while size > 1:
        yield size
        size //= 2


def _without(
    violation: Violation, attempt: Try, expired: Callable[[], bool], sound: Sound, size: int
) -> Violation:
    """One pass from the last steps to the first, that leaves out ``size`` at a time."""
    assert violation.case is not None
    end = len(violation.case.steps)
    while end > 0 and not expired():
        case = violation.case
        assert case is not None
        before, after = case.steps[: max(end - size, 0)], case.steps[end:]
        part = case.steps[len(before) : end]
        end = len(before)
        protocol = tuple(step for step in part if _is_protocol(step))
        for kept in dict.fromkeys((0, len(protocol))):
            if kept == len(part):
                break
            smaller = replace(case, steps=(*before, *protocol[:kept], *after))
            found = attempt(smaller)
            if found is None or found.mark != violation.mark:
                continue
            if kept == len(protocol) or sound(smaller):
                violation = found
                break
    return violation


def _is_protocol(step: Step) -> bool:
    """Whether a step may be what keeps caches and tables in agreement."""
    if step["op"] == "mem_write":
        return int(step["addr"], 0) >> 12 == QUEUE >> 12
    return not str(step["op"]).startswith(("mem_read", "reg_read", "dma", "msi", "events"))
