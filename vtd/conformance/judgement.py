"""What results mean: passed, failed and why, or inconclusive; and what changed since other results.

An outcome is right if the model has it under any cache policy, and with any choice that the
specification leaves open. For one that is not, the model is asked with departures of its own until
it does the same: those are the cause. What none explains is said to be unexplained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from vtd.conformance.causes import causes
from vtd.conformance.format import Reset, Status
from vtd.conformance.program import decode, outcomes_of
from vtd.conformance.results import CaseResult, Results
from vtd.conformance.wrong import wrong_steps
from vtd.fuzz.case import Outcome
from vtd.layouts.registers import GlobalStatus

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
    vectors: Mapping[int, list[int]] = field(default_factory=dict)
    """Interrupts that came, by step."""

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
    if kit.reset is not Reset.NONE and (unready := _unready(raw.reset)):
        return judged(Verdict.INCONCLUSIVE, f"after the reset {unready}")
    got = outcomes_of(kit.case, raw, kit.allowed, kit.unsent)
    wrong = list(wrong_steps(kit, got, raw.vectors))
    if not wrong:
        return Judged(kit.name, kit.source, Verdict.PASSED, result=result, outcomes=tuple(got))
    found = causes(kit, got, raw.vectors) if explain else ()
    why = str(wrong[0])
    return Judged(kit.name, kit.source, Verdict.FAILED, why, found, result, tuple(got), raw.vectors)


_ENDINGS = {
    None: (Verdict.FAILED, "the machine went silent"),
    Status.TIME: (Verdict.FAILED, "the unit or a device did not answer in time"),
    Status.NO_RESET: (Verdict.INCONCLUSIVE, "the machine does not reset itself"),
    Status.NO_DEVICE: (Verdict.INCONCLUSIVE, "a device can't be made ready"),
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
