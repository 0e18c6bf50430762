"""A failing case with every step left out that can be, where it fails in the same way.

Hypothesis makes the operations few that a case is generated from; each of them is many steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from vtd.fuzz.case import Case, Step
from vtd.fuzz.places import QUEUE
from vtd.fuzz.properties import Violation

Try = Callable[[Case], Violation | None]
"""How a case fails; None if it does not."""
FREE = "tables", "flags", "errors"
"""Properties of which any steps are a case; elsewhere, without an invalidation or a command that
empties caches, it is right to differ."""


def shrunk(violation: Violation, name: str, attempt: Try, expired: Callable[[], bool]) -> Violation:
    """The violation of fewer steps, until none can be left out or time is up."""
    if violation.case is None:
        return violation
    for size in _sizes(len(violation.case.steps)):
        violation = _without(violation, name, attempt, expired, size)
    while not expired():
        before = violation
        violation = _without(violation, name, attempt, expired, 1)
        if violation is before:
            break
    return violation


def _sizes(steps: int) -> Iterator[int]:
    size = steps // 2
    while size > 1:
        yield size
        size //= 2


def _without(
    violation: Violation, name: str, attempt: Try, expired: Callable[[], bool], size: int
) -> Violation:
    """One pass from the last steps to the first, that leaves out ``size`` at a time."""
    assert violation.case is not None
    end = len(violation.case.steps)
    while end > 0 and not expired():
        case = violation.case
        assert case is not None
        part = case.steps[max(end - size, 0) : end]
        kept = [] if name in FREE else [step for step in part if _is_protocol(step)]
        end = max(end - size, 0)
        if len(kept) == len(part):
            continue
        steps = (*case.steps[:end], *kept, *case.steps[end + len(part) :])
        found = attempt(replace(case, steps=steps))
        if found is not None and found.mark == violation.mark:
            violation = found
    return violation


def _is_protocol(step: Step) -> bool:
    """Whether a step may be what keeps caches and tables in agreement."""
    if step["op"] == "mem_write":
        return int(step["addr"], 0) >> 12 == QUEUE >> 12
    return not str(step["op"]).startswith(("mem_read", "reg_read", "dma", "msi", "events"))
