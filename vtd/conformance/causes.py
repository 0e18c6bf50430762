"""Why a case fails: the known departures from the specification that together do the same.

The model is asked with the flags of departures. What no flag follows shows in the structures that
a request meets (:mod:`vtd.fuzz.departures`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from vtd.conformance.descriptors import OWN
from vtd.conformance.kit import CHOICES, KitCase, different, vectors_of
from vtd.conformance.observing import Observed, observe
from vtd.conformance.wrong import Wrong, wrong_steps
from vtd.fuzz.case import Outcome, Step
from vtd.fuzz.departures import LATCHED_QUEUE_ADDRESS, RECORD, known_differences
from vtd.fuzz.targets import EndlessError
from vtd.unit.caching.policy import KEEPS_STALE
from vtd.unit.departures import FLAGS, Departures

Vectors = Mapping[int, list[int]]
QUEUE_ADDRESS = (0x90, 0x94)
BELOW_ADDRESS = 0xFFF
WRONG = tuple(each.name for each in FLAGS if not each.permitted)
"""The names of the flags that are no choice."""


def causes(kit: KitCase, got: Sequence[Outcome], vectors: Vectors) -> tuple[str, ...]:
    """The names of the departures; none if there is something that they don't explain."""
    names: list[str] = []
    latched = [each.step for each in wrong_steps(kit, got, vectors) if _reads_latched(kit, each)]
    if latched:
        names.append(LATCHED_QUEUE_ADDRESS.name)
        allowed = [[] if step in latched else each for step, each in enumerate(kit.allowed)]
        kit = replace(kit, allowed=allowed)
        if not list(wrong_steps(kit, got, vectors)):
            return tuple(names)

    def left(flags: Iterable[str]) -> list[Wrong]:
        chosen = Departures(**dict.fromkeys(flags, True))
        return list(wrong_steps(under(kit, chosen), got, vectors))

    whole = left(WRONG)
    shown = _by_structures(kit, got, whole)
    if shown is None:
        alone = (name for name in WRONG if not left([name]))
        return (*names, *one) if (one := tuple(alone)[:1]) else ()
    steps = {(each.step, each.op) for each in whole}
    needed = smallest(WRONG, lambda flags: {(each.step, each.op) for each in left(flags)} <= steps)
    return tuple(dict.fromkeys((*names, *needed, *shown)))


def smallest(names: Sequence[str], enough: Callable[[Sequence[str]], bool]) -> list[str]:
    """A set of names of which none can be left out; halves that can are left out at once."""
    kept = list(names)
    size = len(kept)
    while size:
        size = (size + 1) // 2 if size > 1 else 0
        start = 0
        while size and start < len(kept):
            fewer = kept[:start] + kept[start + size :]
            if enough(fewer):
                kept = fewer
            else:
                start += size
    return kept


def _reads_latched(kit: KitCase, wrong: Wrong) -> bool:
    """Whether IQA_REG reads with another address than was written, and nothing else is wrong."""
    step = kit.case.steps[wrong.step]
    if step["op"] != "reg_read" or int(step["offset"], 0) not in QUEUE_ADDRESS:
        return False
    if int(step["offset"], 0) != QUEUE_ADDRESS[0]:
        return True
    return any((wrong.got ^ each) & BELOW_ADDRESS == 0 for each in wrong.allowed)


def under(kit: KitCase, flags: Departures) -> KitCase:
    """The case with what a unit with departures does."""
    runs: list[Observed] = []
    for choice in (CHOICES[0], CHOICES[-1]):
        with suppress(EndlessError):
            runs.append(observe(kit.case, KEEPS_STALE, flags | choice))
    ends = [run.undrained for run in runs if run.undrained is not None]
    end = min(ends, default=len(kit.case.steps))  # what comes of that is open
    allowed = [
        different(kit.case, step, runs) if before and step < end else []
        for step, before in enumerate(kit.allowed)
    ]
    vectors = vectors_of(runs, list(kit.vectors))
    vectors = {step: lists for step, lists in vectors.items() if step < end}
    return replace(kit, allowed=allowed, vectors=vectors)


def _by_structures(
    kit: KitCase, got: Sequence[Outcome], wrong: Sequence[Wrong]
) -> tuple[str, ...] | None:
    """What the structures show of each request that still differs; None if one shows nothing."""
    if not wrong:
        return ()
    if kit.case.capabilities.fault_recording_offset != RECORD or kit.unsent:
        return None
    found: list[str] = []
    for each in wrong:
        request = _request(kit.case.steps, each.step)
        if each.op == "interrupts" or request is None:
            return None
        known = known_differences(kit.case, request, list(got))
        if not known:
            return None
        found += [cause.name for cause in known]
    return tuple(dict.fromkeys(found))


def _request(steps: Sequence[Step], number: int) -> int | None:
    """The last request for memory up to a step; none if the step is a message."""
    if steps[number]["op"] == "msi":
        return None
    requests: Iterator[int] = (
        index
        for index in range(number, -1, -1)
        if steps[index]["op"].startswith("dma") and OWN not in steps[index]
    )
    return next(requests, None)
