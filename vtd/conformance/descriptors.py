"""Memory for the descriptors of devices that work by them, found in what their requests reach.

A network controller or copy engine fetches a descriptor before it moves anything, and stores there,
too: requests like any other. Each transfer of a case is given half a page that the device reaches
then, on every unit that is right, and that is nothing else's. Left out: transfers without any,
which can't be carried out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import NamedTuple

from vtd.conformance.format import DESCRIPTORS, PAGE
from vtd.conformance.observing import Observed, observe
from vtd.fuzz.case import Case, Step, dma_read, dma_write, mem_read
from vtd.fuzz.places import DESCRIPTORS_SEEN
from vtd.unit.caching.policy import AGGRESSIVE, KEEPS_STALE, UNCACHED, CachePolicy
from vtd.unit.departures import QEMU, SPECIFICATION, Departures

KEY = "descriptors"
"""Of a transfer: where its descriptors are, as the device names it and as software does."""
OWN = "own"
"""Of a request that the device makes on its own account."""
FETCH = 16
Run = tuple[CachePolicy, Departures]
RUNS: tuple[Run, ...] = (
    (KEEPS_STALE, SPECIFICATION),
    (AGGRESSIVE, SPECIFICATION),
    (UNCACHED, SPECIFICATION),
    (KEEPS_STALE, QEMU),
)
"""Units that all have to let the device through, so that a case shows what is wrong elsewhere."""
TRANSFERS = frozenset({"dma_read", "dma_write"})


class Half(NamedTuple):
    """Half a page for descriptors and data."""

    iova: int
    """As the device reaches it."""
    memory: int


def half_of(step: Step) -> Half | None:
    """Where the descriptors of a transfer are; None of one that has none."""
    return Half(*(int(each, 0) for each in step[KEY])) if KEY in step else None


def with_descriptors(case: Case, devices: Collection[str]) -> Case:
    """The case, in which the transfers of ``devices`` have memory for descriptors where they can.

    Around each of these is what the device does on its own account: a read, and a write of what is
    there already.
    """
    if not devices:
        return case
    waiting = {
        number: list(_candidates(case, step))
        for number, step in enumerate(case.steps)
        if step["op"] in TRANSFERS and step["device"] in devices
    }
    tried: dict[int, int] = {number: iovas[0] for number, iovas in waiting.items() if iovas}
    while True:
        found, wrong = _settled(case, tried)
        if not wrong:
            return found
        for number in wrong:
            left = waiting[number]
            left.remove(tried.pop(number))
            if left:
                tried[number] = left[0]


def _candidates(case: Case, step: Step) -> Iterator[int]:
    """Halves of pages that are there for it, or the device asks for, its transfer's own last."""
    start = int(step["iova"], 0)
    own = range(start // DESCRIPTORS, (start + step["length"] - 1) // DESCRIPTORS + 1)
    asked = (
        int(each["iova"], 0)
        for each in case.steps
        if each["op"] in TRANSFERS and each["device"] == step["device"]
    )
    pages = dict.fromkeys(address // PAGE for address in (*DESCRIPTORS_SEEN, *asked))
    pages.pop(start // PAGE, None)
    for page in (*pages, start // PAGE):
        for half in range(page * PAGE // DESCRIPTORS, (page + 1) * PAGE // DESCRIPTORS):
            if half not in own:
                yield half * DESCRIPTORS


def _settled(case: Case, tried: dict[int, int]) -> tuple[Case, list[int]]:
    """The case with descriptors at these addresses, and the steps where they can't be there."""
    steps: list[Step] = []
    places: dict[int, int] = {}
    for number, step in enumerate(case.steps):
        places[number] = len(steps)
        steps += _around(step, tried[number], bytes(FETCH)) if number in tried else [step]
    wide = replace(case, steps=tuple(steps))
    halves: dict[int, Half] = {}
    for run in RUNS:
        seen = observe(wide, *run)
        found = {number: _reached(seen, wide, places[number]) for number in tried}
        wrong = [number for number, half in found.items() if half is None]
        wrong += [number for number, half in halves.items() if found[number] not in (None, half)]
        if wrong:
            return wide, wrong
        halves = {number: half for number, half in found.items() if half is not None}
    held = [_held(case, halves, run) for run in RUNS]
    wrong = [number for number in halves if len({each[number] for each in held}) > 1]
    steps = []
    for number, step in enumerate(case.steps):
        if number in halves:
            half = halves[number]
            told = {**step, KEY: [hex(half.iova), hex(half.memory)]}
            steps += _around(told, half.iova, held[0][number])
        else:
            steps.append(step)
    return replace(case, steps=tuple(steps)), wrong


def _held(case: Case, halves: dict[int, Half], run: Run) -> dict[int, bytes]:
    """What memory has where descriptors go: it is there again afterwards."""
    steps: list[Step] = []
    places: dict[int, int] = {}
    for number, step in enumerate(case.steps):
        if number in halves:
            places[number] = len(steps)
            steps.append(mem_read(halves[number].memory, FETCH))
        steps.append(step)
    outcomes = observe(replace(case, steps=tuple(steps)), *run).outcomes
    return {number: bytes.fromhex(outcomes[place]) for number, place in places.items()}


def _around(step: Step, iova: int, held: bytes) -> list[Step]:
    """A transfer with what the device does on its own account."""
    fetch, report = dma_read(step["device"], iova, FETCH), dma_write(step["device"], iova, held)
    return [{**fetch, OWN: True}, step, {**report, OWN: True}]


def _reached(seen: Observed, case: Case, place: int) -> Half | None:
    """The memory that the requests around a transfer came to; None if it is not to be used."""
    fetched, moved, stored = seen.physical[place : place + 3]
    if fetched is None or stored != fetched or "data" not in seen.outcomes[place]:
        return None
    if fetched // PAGE in seen.structures or not _is_memory(case, fetched):
        return None
    length = case.steps[place + 1]["length"]
    if moved is not None and moved < fetched + DESCRIPTORS and fetched < moved + length:
        return None
    return Half(int(case.steps[place]["iova"], 0), fetched)


def _is_memory(case: Case, address: int) -> bool:
    return any(
        start <= address and address + DESCRIPTORS <= start + size for start, size in case.memory
    )
