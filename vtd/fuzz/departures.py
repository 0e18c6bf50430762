"""Where QEMU's ``intel-iommu`` departs from the specification, told from what a request meets.

A difference is explained by its cause, not by the two outcomes. Either the structures that the
request meets show it, or the engine agrees with QEMU once the cause is taken out of them: FPD or
reserved bits cleared, say. A request may meet several causes, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from devices.interrupt_messages import INTERRUPT_RANGE
from pagetables.bits import BitRecord
from pagetables.walk import ADDRESS
from vtd.fuzz.case import Case, Outcome, Step
from vtd.fuzz.situation import Situation, is_request, situation_of
from vtd.fuzz.targets import Difference, compare
from vtd.layouts.entries import (
    PasidDirectoryEntry,
)
from vtd.unit.requests.request import meets_interrupts

RECORD = 0x220
"""The one fault record of QEMU's unit."""
SNP = 1 << 11
MOST_CAUSES = 4


class Unfollowed(NamedTuple):
    """One departure that no flag of a unit follows."""

    name: str
    section: str
    specified: str
    what: str
    """What QEMU does."""
    found: str
    """How a difference is found to come from it, or why none is seen."""


class KnownDifference(NamedTuple):
    """A departure with its ``cause``, asked of a request whose fault reason QEMU gives as well.

    It answers None where the request has no such cause; else the writes that take it out, after
    which engine and QEMU have to agree, or an empty list if what the structures show is enough.
    """

    departure: Unfollowed
    cause: Callable[[Situation, int | None], list[Step] | None]

    @property
    def name(self) -> str:
        """The name of the departure."""
        return self.departure.name


def _snoop(situation: Situation, qemu: int | None) -> list[Step] | None:
    """SNP of a page in scalable mode, where the unit has no SC."""
    if situation.reason != 0x7A or qemu == 0x0C or "sc" in situation.case.capabilities.features:
        return None
    leaf = situation.paging[-1]
    return [leaf.replaced(leaf.entry & ~SNP)] if leaf.entry & SNP else None


def _denied_above(situation: Situation, qemu: int | None) -> list[Step] | None:
    """A right that an entry denies, and another fault of it or further down."""
    if situation.reason not in _BELOW or qemu not in _DENIED[situation.write]:
        return None
    first = situation.reason in (0x70, 0x71, 0x72)
    wanted = (4 | situation.write << 1) if first else (2 if situation.write else 1)
    return [] if any(each.entry & wanted != wanted for each in situation.paging) else None


_BELOW = (0x07, 0x0C, 0x70, 0x71, 0x72, 0x78, 0x79, 0x7A)
_DENIED = {False: (0x06, 0x81, 0x86), True: (0x05, 0x81, 0x85)}
"""What QEMU reports for a right that a read or a write lacks."""


def _all_ones(situation: Situation, qemu: int | None) -> list[Step] | None:
    """A paging entry of 64 ones, which QEMU takes for one that can't be read."""
    if situation.reason not in _RESERVED or situation.paging[-1].entry != (1 << 64) - 1:
        return None
    top = len(situation.paging) == 1
    return [] if qemu in _UNREADABLE[top] else None


_RESERVED = (0x0C, 0x72, 0x7A)
_UNREADABLE = {True: (0x03, 0x73), False: (0x07, 0x70)}
"""What QEMU reports for a top entry that can't be read, and for another."""


def _low_memory(situation: Situation, qemu: int | None) -> list[Step] | None:
    """A pointer to where cases have no memory, and QEMU's machine reads something."""
    kind, answers = _BEHIND_POINTER.get(situation.reason or 0, (None, ()))
    if qemu not in answers:
        return None
    pointer = situation.paging[-1] if kind is None else situation.find(kind)
    if pointer is None:
        return None
    return [] if any(pointer.entry & ADDRESS in each for each in _NO_MEMORY) else None


_NO_MEMORY = (range(0xA_0000, 0x10_0000), INTERRUPT_RANGE)
_BEHIND_POINTER: dict[int, tuple[type[BitRecord] | None, tuple[int, ...]]] = {
    0x07: (None, (0x05, 0x06)),
    0x58: (PasidDirectoryEntry, (0x5B,)),
    0x70: (None, (0x71,)),
    0x78: (None, (0x05, 0x06)),
}
"""By the reason that a structure can't be read: what points to it, a paging entry or another
structure, and what QEMU reports of what it reads there."""


def _overlapping(situation: Situation, qemu: int | None) -> list[Step] | None:
    """A page of which another part is in the interrupt address range."""
    if situation.reason is not None or qemu not in (0x0E, 0x87) or not situation.paging:
        return None
    leaf = situation.paging[-1]
    return [] if meets_interrupts(leaf.entry & ADDRESS, leaf.shift) else None


KNOWN_DIFFERENCES = (
    KnownDifference(
        Unfollowed(
            "check_rights_first",
            "7.1.3",
            "a right that an entry denies, and another fault of it or of one below: the order "
            "is not prescribed",
            "the right first",
            "an entry on the way denies it",
        ),
        _denied_above,
    ),
    KnownDifference(
        Unfollowed(
            "take_ones_for_unreadable",
            "7.1.3, LSS.2, SFS.3, SSS.3",
            "a paging entry of 64 ones has reserved bits: fault Ch, 72h or 7Ah",
            "it counts as one that can't be read: 3h or 73h at the top, 7h or 70h below",
            "the last entry of the walk is all ones",
        ),
        _all_ones,
    ),
    KnownDifference(
        Unfollowed(
            "ignore_snp_without_sc",
            "9.8, SSS.3",
            "SNP is reserved on a unit without SC: fault 7Ah",
            "it is not looked at in scalable mode",
            "agrees with SNP cleared",
        ),
        _snoop,
    ),
    KnownDifference(
        Unfollowed(
            "read_low_memory",
            "none: the machine, not the unit",
            "a paging entry or PASID entry at A_0000h to F_FFFFh or FEEx_xxxxh, where cases have "
            "no memory: 7h, 58h, 70h or 78h",
            "its machine reads something there: a right is denied, or the PASID entry is invalid",
            "the entry before leads there",
        ),
        _low_memory,
    ),
    KnownDifference(
        Unfollowed(
            "refuse_whole_large_page",
            "7.1.3, LGN.4, SGN.8.1",
            "a request in a large page that overlaps the interrupt address range: fault Eh or "
            "87h only if its output address is in the range",
            "every address of the page is refused",
            "the page overlaps the range",
        ),
        _overlapping,
    ),
)
LATCHED_QUEUE_ADDRESS = Unfollowed(
    "read_latched_queue_address",
    "11.4.9.3",
    "IQA_REG reads what was written",
    "its address reads as that of the queue that was enabled last",
    "by vtd conformance: another address is read, with QS and DW as written",
)
NOT_SEEN = (
    LATCHED_QUEUE_ADDRESS,
    Unfollowed(
        "split_fault_events",
        "7.2.1",
        "one fault of a refused DMA",
        "one fault event for every four bytes",
        "the events of a capture are taken one by one, and the fault records compared",
    ),
)
"""Departures that no comparison of requests over qtest shows."""
UNFOLLOWED = (*(each.departure for each in KNOWN_DIFFERENCES), *NOT_SEEN)


def differences(case: Case, engine: list[Outcome], qemu: list[Outcome]) -> list[Difference]:
    """Where the outcomes differ; what a record still holds after F was cleared does not count."""
    found = compare(case, engine, qemu)
    return [each for each in found if not _left_over(case, each.number, engine, qemu)]


def _left_over(case: Case, number: int, engine: list[Outcome], qemu: list[Outcome]) -> bool:
    """Whether a step reads a fault record without F, low half or high."""
    offset = int(case.steps[number].get("offset", "0"), 0)
    high = number + 1 if offset == RECORD else number
    return offset & ~15 == RECORD and not any(record[high] >> 63 for record in (engine, qemu))


def request_of(case: Case, found: Difference) -> int:
    """The number of the last request before the end of a step that differs."""
    return max(index for index in range(found.number + 1) if is_request(case.steps[index]))


def known_differences(
    case: Case, first: int, qemu: list[Outcome]
) -> tuple[KnownDifference, ...] | None:
    """All that together explains why the request of step ``first`` differs; None if unknown.

    Nothing explains a difference of an interrupt request: the flags of the interrupt chapter follow
    QEMU in all.
    """
    if case.steps[first]["op"] == "msi":
        return None
    later = range(first + 1, len(case.steps))
    last = next((index for index in later if is_request(case.steps[index])), len(case.steps))
    wanted = qemu[first:last]
    reason = reason_of(case.steps[first:last], wanted)
    causes: list[KnownDifference] = []
    changes: list[Step] = []
    while len(causes) <= MOST_CAUSES:
        situation = situation_of(case, first, last, changes)
        if _agree(case, first, situation.outcomes, wanted):
            return tuple(causes)
        for known in KNOWN_DIFFERENCES:
            cause = known.cause(situation, reason)
            if cause is not None:
                causes.append(known)
                changes += cause
                break
        else:
            return None
        if not cause:
            return tuple(causes)
    return None


def reason_of(steps: Sequence[Step], outcomes: Sequence[Outcome]) -> int | None:
    """The fault reason that was recorded in these steps."""
    highs = [high for step, high in zip(steps, outcomes, strict=True) if _reads_record(step)]
    return next((high >> 32 & 0xFF for high in highs if high is not None and high >> 63), None)


def _reads_record(step: Step) -> bool:
    return (step["op"], step.get("offset")) == ("reg_read", hex(RECORD + 8))


def _agree(case: Case, first: int, engine: Sequence[Outcome], qemu: Sequence[Outcome]) -> bool:
    steps = case.steps[first : first + len(engine)]
    part = Case(case.capabilities, steps)
    return not differences(part, list(engine), list(qemu))
