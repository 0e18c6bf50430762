"""Why a case fails: the known departures from the specification that together do the same.

The model is asked with the flags of departures first. What no flag follows shows in the structures
that a request meets (:mod:`vtd.fuzz.departures`), or is found by leaving out what a unit forgets:
the model agrees once a request whose fault is not recorded is taken away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from vtd.conformance.kit import PERMITTED, KitCase, different, vectors_of
from vtd.conformance.observing import Observed, observe
from vtd.conformance.wrong import Wrong, wrong_steps
from vtd.fuzz.case import Outcome, Step
from vtd.fuzz.departures import (
    FORGOTTEN_ROOT_FAULT,
    KEPT_PASS_THROUGH,
    LATCHED_QUEUE_ADDRESS,
    RECORD,
    known_differences,
)
from vtd.fuzz.targets import EndlessError
from vtd.unit.caching.policy import KEEPS_STALE
from vtd.unit.departures import FLAGS, QEMU, Departures

Vectors = Mapping[int, list[int]]
QUEUE_ADDRESS = (0x90, 0x94)
BELOW_ADDRESS = 0xFFF
ROOT_FAULTS = {0x01, 0x08, 0x0A, 0x38, 0x39, 0x3A}
DENIED = {0x05, 0x06, 0x85, 0x86}
MOST_FORGOTTEN = 12
NOTHING: Step = {"op": "events"}
"""In place of a step that is left out."""


def causes(kit: KitCase, got: Sequence[Outcome], vectors: Vectors) -> tuple[str, ...]:
    """The names of the departures; none if there is something that they don't explain."""
    names = []
    latched = [each.step for each in wrong_steps(kit, got, vectors) if _reads_latched(kit, each)]
    if latched:
        names.append(LATCHED_QUEUE_ADDRESS.name)
        allowed = [[] if step in latched else each for step, each in enumerate(kit.allowed)]
        kit = replace(kit, allowed=allowed)
        if not list(wrong_steps(kit, got, vectors)):
            return tuple(names)
    if _does_the_same(kit, got, vectors, QEMU):
        return (*names, *_needed(kit, got, vectors))
    found = _by_requests(kit, got, vectors)
    if found:
        return (*names, *found)
    for each in FLAGS:
        flag = Departures(**{each.name: True})
        if not each.permitted and _does_the_same(kit, got, vectors, flag):
            return (*names, each.name)
    return ()


def _reads_latched(kit: KitCase, wrong: Wrong) -> bool:
    """Whether IQA_REG reads with another address than was written, and nothing else is wrong."""
    step = kit.case.steps[wrong.step]
    if step["op"] != "reg_read" or int(step["offset"], 0) not in QUEUE_ADDRESS:
        return False
    if int(step["offset"], 0) != QUEUE_ADDRESS[0]:
        return True
    return any((wrong.got ^ each) & BELOW_ADDRESS == 0 for each in wrong.allowed)


def _needed(kit: KitCase, got: Sequence[Outcome], vectors: Vectors) -> list[str]:
    """A smallest set of flags that does the same."""
    names = [each.name for each in FLAGS if not each.permitted]
    for name in list(names):
        fewer = [other for other in names if other != name]
        if _does_the_same(kit, got, vectors, Departures(**dict.fromkeys(fewer, True))):
            names = fewer
    return names


def _does_the_same(
    kit: KitCase, got: Sequence[Outcome], vectors: Vectors, flags: Departures
) -> bool:
    return not list(wrong_steps(under(kit, flags), got, vectors))


def under(kit: KitCase, flags: Departures, without: frozenset[int] = frozenset()) -> KitCase:
    """The case with what a unit with departures does; some steps left out."""
    steps = (NOTHING if step in without else each for step, each in enumerate(kit.case.steps))
    case = replace(kit.case, steps=tuple(steps))
    runs: list[Observed] = []
    for choice in (flags, flags | PERMITTED):
        with suppress(EndlessError):
            runs.append(observe(case, KEEPS_STALE, choice))
    ends = [run.undrained for run in runs if run.undrained is not None]
    end = min(ends, default=len(case.steps))  # what comes of that is open
    allowed = [
        different(case, step, runs) if before and step not in without and step < end else []
        for step, before in enumerate(kit.allowed)
    ]
    vectors = vectors_of(runs, list(kit.vectors))
    vectors = {step: lists for step, lists in vectors.items() if step < end}
    return replace(kit, case=case, allowed=allowed, vectors=vectors)


def _by_requests(kit: KitCase, got: Sequence[Outcome], vectors: Vectors) -> tuple[str, ...]:
    """What single requests show; nothing if something is not explained."""
    seen = observe(kit.case, KEEPS_STALE, QEMU | PERMITTED)
    forgettable = dict(_forgettable(kit.case.steps, seen))
    forgotten: set[int] = set()
    names: list[str] = []
    for _ in range(MOST_FORGOTTEN):
        wrong = list(wrong_steps(under(kit, QEMU, frozenset(forgotten)), got, vectors))
        if not wrong:
            return tuple(names)
        left = [step for step in forgettable if step <= wrong[0].step and step not in forgotten]
        better = [
            step
            for step in reversed(left[-MOST_FORGOTTEN:])
            if _first(kit, got, vectors, forgotten | {step}) > wrong[0].step
        ]
        if not better:
            passed = set(_still_passed(kit.case.steps, seen, got))
            lost = {
                step: name
                for step, name in forgettable.items()
                if step not in forgotten and _agrees_without(kit, got, vectors, step)
            }
            return _by_structures(kit, got, wrong, names, passed, lost)
        forgotten.add(better[0])
        names += [] if forgettable[better[0]] in names else [forgettable[better[0]]]
    return ()


def _first(kit: KitCase, got: Sequence[Outcome], vectors: Vectors, without: set[int]) -> int:
    """The first step that is wrong once some are left out."""
    found = wrong_steps(under(kit, QEMU, frozenset(without)), got, vectors)
    return next((each.step for each in found), len(kit.case.steps))


def _agrees_without(kit: KitCase, got: Sequence[Outcome], vectors: Vectors, step: int) -> bool:
    """Whether nothing is wrong from a request up to the next one, once it is left out."""
    later = (
        number
        for number in range(step + 1, len(kit.case.steps))
        if kit.case.steps[number]["op"].startswith("dma")
    )
    end = next(later, len(kit.case.steps))
    left = wrong_steps(under(kit, QEMU, frozenset({step})), got, vectors)
    return not any(step <= each.step < end for each in left)


def _forgettable(steps: Sequence[Step], seen: Observed) -> Iterator[tuple[int, str]]:
    """Requests whose fault a unit is known to forget, and the name of the departure."""
    served: set[tuple[str, int]] = set()
    for number, (step, reasons) in enumerate(zip(steps, seen.blocked, strict=True)):
        if not step["op"].startswith("dma"):
            continue
        page = step["device"], int(step["iova"], 0) >> 12
        reason = reasons[0] if reasons else None
        if reason in ROOT_FAULTS:
            yield number, FORGOTTEN_ROOT_FAULT.name
        elif reason in DENIED and page in served:
            yield number, "drop_denied_hits"
        if reason is None:
            served.add(page)


def _still_passed(steps: Sequence[Step], seen: Observed, got: Sequence[Outcome]) -> Iterator[int]:
    """Requests that may have been passed through, as earlier ones of the device were.

    A read of that kind has what memory has at its address, which is anything outside the case.
    """
    before: set[str] = set()
    for number, step in enumerate(steps):
        if not step["op"].startswith("dma"):
            continue
        if seen.physical[number] == int(step["iova"], 0):
            before.add(step["device"])
        elif step["device"] in before:
            there = seen.untranslated[number]
            outcome = got[number]
            read = None if outcome is None else outcome.get("data")
            blank = there is None or not bytes.fromhex(there).strip(bytes(1))
            if step["op"] == "dma_write" or read == there or blank:
                yield number


def _by_structures(
    kit: KitCase,
    got: Sequence[Outcome],
    wrong: Sequence[Wrong],
    names: Sequence[str],
    passed: set[int],
    lost: Mapping[int, str],
) -> tuple[str, ...]:
    """What the structures show of each request that still differs."""
    if kit.case.capabilities.fault_recording_offset != RECORD or kit.unsent:
        return ()
    found = list(names)
    for each in wrong:
        request = _request(kit.case.steps, each.step)
        if each.op == "interrupts" or request is None:
            return ()
        known = known_differences(kit.case, request, list(got))
        later = KEPT_PASS_THROUGH.name in found and each.op == "reg_read"
        if known is not None:
            found += [cause.name for cause in known if cause.name not in found]
        elif request in lost:
            found.append(lost[request])
        elif request not in passed and not later:  # no fault where one was to come
            return ()
        elif not later:
            found.append(KEPT_PASS_THROUGH.name)
    return tuple(dict.fromkeys(found))


def _request(steps: Sequence[Step], number: int) -> int | None:
    """The last request for memory up to a step; none if the step is a message."""
    if steps[number]["op"] == "msi":
        return None
    requests = (index for index in range(number, -1, -1) if steps[index]["op"].startswith("dma"))
    return next(requests, None)
