"""Which steps of a case came out otherwise than is right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from vtd.conformance.kit import KitCase
from vtd.fuzz.case import Case, Outcome

LONGEST = 64
"""Characters of an outcome that are shown."""


class Wrong(NamedTuple):
    """A step with an outcome that is not allowed."""

    step: int
    op: str
    allowed: list[Outcome]
    got: Outcome

    def __str__(self) -> str:
        allowed = " or ".join(_shown(each) for each in self.allowed)
        return f"step {self.step} {self.op}: {allowed} expected, {_shown(self.got)} came"


def wrong_steps(
    kit: KitCase, got: Sequence[Outcome], vectors: Mapping[int, list[int]]
) -> Iterator[Wrong]:
    """The steps whose outcome is not allowed, interrupts included."""
    for number, (step, allowed, outcome) in enumerate(
        zip(kit.case.steps, kit.allowed, got, strict=True)
    ):
        known = outcome is None or any(_alike(outcome, each) for each in allowed)
        wrong = allowed and not known
        if wrong and not _left_over(kit.case, number, allowed, kit.allowed, got):
            yield Wrong(number, step["op"], allowed, outcome)
        if number in kit.vectors and sorted(vectors.get(number, [])) not in kit.vectors[number]:
            yield Wrong(number, "interrupts", kit.vectors[number], sorted(vectors.get(number, [])))


def _alike(outcome: Outcome, allowed: Outcome) -> bool:
    """Whether one may be the other: a device has zeroes of a read that was refused, too."""
    if outcome == {"fault": True} and isinstance(allowed, dict) and "data" in allowed:
        return not bytes.fromhex(allowed["data"]).strip(bytes(1))
    return bool(outcome == allowed)


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


def _shown(value: Outcome) -> str:
    text = hex(value) if isinstance(value, int) else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
