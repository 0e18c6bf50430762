"""What results mean: passed, failed and why, or inconclusive; and what changed since other results.

An outcome is right if the model has it under any cache policy, and with any choice that the
specification leaves open. For one that is not, the model is asked with departures of its own until
it does the same: those are the cause. What none explains is said to be unexplained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from vtd.conformance.format import Status
from vtd.conformance.kit import PERMITTED, KitCase, reduced
from vtd.conformance.observing import Observed, observe
from vtd.conformance.program import decode, outcomes_of
from vtd.conformance.results import CaseResult, Results
from vtd.fuzz.case import Case, Outcome, Step
from vtd.fuzz.departures import RECORD, known_differences
from vtd.fuzz.situation import is_request
from vtd.fuzz.targets import EndlessError
from vtd.layouts.registers import GlobalStatus
from vtd.unit.caching.policy import KEEPS_STALE
from vtd.unit.departures import FLAGS, QEMU, Departures

STICKY = GlobalStatus.of(rtps=True, irtps=True)
"""Nothing but a reset of the machine clears these."""
MASKED = 1 << 31
FAULTS = 0xFF


class Verdict(StrEnum):
    """How a case ended."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    NOT_APPLICABLE = "not applicable"


class Wrong(NamedTuple):
    """A step with an outcome that is not allowed."""

    step: int
    op: str
    allowed: list[Outcome]
    got: Outcome

    def __str__(self) -> str:
        allowed = " or ".join(_shown(each) for each in self.allowed)
        return f"step {self.step} {self.op}: {allowed} expected, {_shown(self.got)} came"


@dataclass(frozen=True)
class Judged:
    """A case and its verdict."""

    name: str
    source: str
    verdict: Verdict
    why: str = ""
    causes: tuple[str, ...] = ()
    """Names of departures; none of a failure is one that is unexplained."""
    result: CaseResult | None = None
    outcomes: tuple[Outcome, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every outcome is right."""
        return self.verdict is Verdict.PASSED

    @property
    def failed(self) -> bool:
        """Whether some outcome is wrong."""
        return self.verdict is Verdict.FAILED

    @property
    def unexplained(self) -> bool:
        """Whether it failed, and no known departure does the same."""
        return self.verdict is Verdict.FAILED and not self.causes


def judge_all(results: Results, *, explain: bool = True) -> Iterator[Judged]:
    """A verdict on every case, also those that can't run there; see :func:`judge`."""
    for each in results.cases:
        yield judge(each, explain=explain)
    for left in results.left:
        yield Judged(left.name, "", Verdict.NOT_APPLICABLE, left.why)


def judge(result: CaseResult, *, explain: bool = True) -> Judged:
    """The verdict on one case; ``explain``: look for the causes of a failure, which takes long."""
    kit = result.case

    def judged(verdict: Verdict, why: str) -> Judged:
        return Judged(kit.name, kit.source, verdict, why, result=result)

    if result.status is not Status.DONE:
        return judged(*_ENDINGS[result.status])
    raw = decode(kit.slots, kit.places, result.output)
    if unready := _unready(raw.reset):
        return judged(Verdict.INCONCLUSIVE, f"after the reset {unready}")
    got = outcomes_of(kit.case, raw, kit.allowed, kit.unsent)
    wrong = list(wrong_steps(kit, got, raw.vectors))
    if not wrong:
        return Judged(kit.name, kit.source, Verdict.PASSED, result=result, outcomes=tuple(got))
    found = causes(kit, got, raw.vectors) if explain else ()
    why = str(wrong[0])
    return Judged(kit.name, kit.source, Verdict.FAILED, why, found, result, tuple(got))


_ENDINGS = {
    None: (Verdict.FAILED, "the machine went silent"),
    Status.TIME: (Verdict.FAILED, "the unit or a device did not answer in time"),
    Status.NO_RESET: (Verdict.INCONCLUSIVE, "the machine does not reset itself"),
    Status.CRASHED: (Verdict.INCONCLUSIVE, "the machine began anew in the middle of it"),
}


def _unready(proof: object) -> str:
    """What of a unit is not as after a reset: the kit's fault, or it can't be reset."""
    values = {name: int(getattr(proof, name)) for name in _AFTER_RESET}
    for name, (mask, wanted) in _AFTER_RESET.items():
        if values[name] & mask != wanted:
            return f"{name} reads {values[name]:#x}"
    return ""


_AFTER_RESET = {
    "global_status": (0xFFFF_FFFF & ~STICKY, 0),
    "fault_status": (FAULTS, 0),
    "fault_control": (MASKED, MASKED),
    "event_control": (MASKED, MASKED),
    "queue_tail": (0xFFFF_FFFF, 0),
}
"""Mask and value of registers."""


def wrong_steps(
    kit: KitCase, got: Sequence[Outcome], vectors: dict[int, list[int]]
) -> Iterator[Wrong]:
    """The steps whose outcome is not allowed, interrupts included."""
    for number, (step, allowed, outcome) in enumerate(
        zip(kit.case.steps, kit.allowed, got, strict=True)
    ):
        wrong = allowed and outcome is not None and outcome not in allowed
        if wrong and not _left_over(kit.case, number, allowed, kit.allowed, got):
            yield Wrong(number, step["op"], allowed, outcome)
        if number in kit.vectors and sorted(vectors.get(number, [])) not in kit.vectors[number]:
            yield Wrong(number, "interrupts", kit.vectors[number], sorted(vectors.get(number, [])))


def _left_over(
    case: Case,
    number: int,
    allowed: Sequence[Outcome],
    all_allowed: Sequence[Sequence[Outcome]],
    got: Sequence[Outcome],
) -> bool:
    """Whether a step reads a fault record whose F is clear: what else it holds means nothing."""
    base, count = case.capabilities.fault_recording_offset, case.capabilities.fault_records
    step = case.steps[number]
    offset = int(step.get("offset", "0"), 0)
    if step["op"] != "reg_read" or not base <= offset < base + 16 * count or step["size"] != 8:
        return False
    if offset & 8:
        return not got[number] >> 63 and any(not each >> 63 for each in allowed)
    high = number + 1
    if high >= len(case.steps) or int(case.steps[high].get("offset", "0"), 0) != offset + 8:
        return False
    value = got[high]
    return (
        value is not None and not value >> 63 and any(not each >> 63 for each in all_allowed[high])
    )


def causes(kit: KitCase, got: Sequence[Outcome], vectors: dict[int, list[int]]) -> tuple[str, ...]:
    """The departures that together do the same; none if none do."""
    if _does_the_same(kit, got, vectors, QEMU):
        return tuple(_needed(kit, got, vectors))
    found = tuple(_by_structures(kit, got, vectors))
    return (
        found
        or tuple(
            each.name
            for each in FLAGS
            if not each.permitted
            and _does_the_same(kit, got, vectors, Departures(**{each.name: True}))
        )[:1]
    )


def _needed(kit: KitCase, got: Sequence[Outcome], vectors: dict[int, list[int]]) -> Iterator[str]:
    """A smallest set of flags that does the same."""
    names = [each.name for each in FLAGS if not each.permitted]
    for name in list(names):
        fewer = [other for other in names if other != name]
        if _does_the_same(kit, got, vectors, Departures(**dict.fromkeys(fewer, True))):
            names = fewer
    yield from names


def _does_the_same(
    kit: KitCase, got: Sequence[Outcome], vectors: dict[int, list[int]], flags: Departures
) -> bool:
    return not list(wrong_steps(_under(kit, flags), got, vectors))


def _under(kit: KitCase, flags: Departures) -> KitCase:
    """The case with what a unit with departures may do."""
    runs: list[Observed] = []
    for choice in (flags, flags | PERMITTED):
        with suppress(EndlessError):
            runs.append(observe(kit.case, KEEPS_STALE, choice))
    allowed = [
        [reduced(run.outcomes[number]) for run in runs] if before else []
        for number, before in enumerate(kit.allowed)
    ]
    looked, begin, vectors = list(kit.vectors), 0, {}
    for step in looked:
        span = range(begin, step + 1)
        vectors[step] = [
            sorted(
                interrupt.vector
                for number in span
                for interrupt in (*run.delivered[number], *run.events[number])
            )
            for run in runs
        ]
        begin = step + 1
    return KitCase(**{**vars(kit), "allowed": allowed, "vectors": vectors})


def _by_structures(
    kit: KitCase, got: Sequence[Outcome], vectors: dict[int, list[int]]
) -> Iterator[str]:
    """What the structures show of each request that differs; nothing if one is unexplained."""
    if kit.case.capabilities.fault_recording_offset != RECORD or kit.unsent:
        return
    under = _under(kit, QEMU)
    found: list[str] = []
    for wrong in wrong_steps(under, got, vectors):
        request = _request(kit.case.steps, wrong.step)
        if wrong.op == "interrupts" or request is None:
            return
        known = known_differences(kit.case, request, list(got))
        if known is None:
            return
        found += [each.name for each in known if each.name not in found]
    yield from found


def _request(steps: Sequence[Step], number: int) -> int | None:
    """The last request up to a step, if it is one for memory."""
    requests = [index for index in range(number + 1) if is_request(steps[index])]
    return requests[-1] if requests and steps[requests[-1]]["op"] != "msi" else None


def _shown(value: Outcome) -> str:
    return hex(value) if isinstance(value, int) else str(value)
