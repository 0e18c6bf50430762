"""The work of a running plan: requests of its devices, and what the units did for them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from devices.dma import Completion, Request
from pagetables.bits import BitRecord
from pagetables.observer import Structure
from vtd.host.engines import SingleRequests, engine_of
from vtd.host.guest_remapping import GuestRemapping
from vtd.host.guests import Passed
from vtd.host.plan import Work
from vtd.host.running import RunningHost
from vtd.layouts.descriptors import InvalidationWaitDescriptor
from vtd.unit.interrupts.outcome import Interrupt, Posted
from vtd.unit.observer import CacheName, Observer


@dataclass(frozen=True)
class WorkDone:
    """What one device did."""

    device: str
    guest: str
    operation: str
    """What it did, in the plural: requests, or what its own engine does."""
    operations: int
    requests: int
    """DMA requests that reached the unit, each within a page."""
    refused: int
    bytes: int
    """Of the operations that the device says it did."""
    hits: int
    """Pages of its requests that the IOTLB had."""
    misses: int
    reads: int
    """Entries of structures that the unit read for it."""
    posted: int
    """Interrupts that reached the guest without an exit."""
    exits: int
    """Interrupts for which the guest was left."""
    unmaps: int = 0
    """Pages that the guest unmapped meanwhile."""
    late: int = 0
    """How many of them the device still reached afterwards, before caches had lost them."""
    invalidations: int = 0
    """Descriptors that the unit carried out meanwhile, without those that wait."""

    @property
    def reads_per_request(self) -> float:
        """Reads of structures for one request."""
        return self.reads / self.requests if self.requests else 0.0


class Pressure(Observer):
    """Counts what requests cost a unit."""

    def __init__(self) -> None:
        self.hits = self.misses = self.reads = self.invalidations = 0
        self.requests = self.refused = 0
        self._counts = True

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens meanwhile is nothing that the device does."""
        self._counts = False
        yield
        self._counts = True

    def begin(self, request: Request) -> None:
        """A request has arrived."""
        self.requests += self._counts

    def answered(self, request: Request, answer: int | Completion) -> None:
        """It goes on, or not."""
        self.refused += self._counts and not isinstance(answer, int) and not answer.ok

    def asked(self, cache: CacheName, key: Any, entry: object | None) -> None:
        """The IOTLB was asked."""
        if cache is CacheName.IOTLB and self._counts:
            self.hits += entry is not None
            self.misses += entry is None

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        """A structure was read."""
        self.reads += self._counts

    def invalidated(self, command: BitRecord) -> None:
        """Software had something invalidated."""
        self.invalidations += not isinstance(command, InvalidationWaitDescriptor)


def do_work(host: RunningHost, seed: int = 0) -> Iterator[WorkDone]:
    """The work that the plan names, a device after the other; ``seed`` of the random requests.

    HostError for an engine that can't be driven here.
    """
    passed = {each.name: each for each in host.passed}
    for number, work in enumerate(host.plan.work):
        if work.device in passed:
            yield _done(host, work, passed[work.device], random.Random(seed + number))


def _done(host: RunningHost, work: Work, passed: Passed, rng: random.Random) -> WorkDone:
    unit, pressure = None if passed.unit is None else host.unit(passed.unit), Pressure()
    engine = engine_of(passed, host.physical) if work.engine else SingleRequests(passed)
    domain = passed.domain
    remapping = GuestRemapping(passed, domain) if work.unmaps and domain else None
    size, moved = engine.size_of(work.bytes), 0
    if unit is not None:
        unit.observe(pressure)
    try:
        for number, address in enumerate(_addresses(work, size, engine.first, passed, rng)):
            if remapping is not None:
                with pressure.paused():
                    remapping.unmap_until((number + 1) * work.unmaps // work.requests)
                    remapping.need(address)
            moved += size * engine.move(address, size, writes=work.writes)
        if remapping is not None:
            remapping.map_again()
    finally:
        if unit is not None:
            unit.ignore(pressure)
    posted, exits = _interrupts(passed, work.interrupts)
    return WorkDone(
        device=work.device,
        guest=passed.guest.name,
        operation=engine.operation,
        operations=work.requests,
        requests=pressure.requests,
        refused=pressure.refused,
        bytes=moved,
        hits=pressure.hits,
        misses=pressure.misses,
        reads=pressure.reads,
        posted=posted,
        exits=exits,
        unmaps=remapping.unmaps if remapping else 0,
        late=remapping.late if remapping else 0,
        invalidations=pressure.invalidations,
    )


def _interrupts(passed: Passed, count: int) -> tuple[int, int]:
    """Send that many interrupts; how many were posted, and how many cost an exit."""
    posted = exits = 0
    if passed.handle is not None:
        for _ in range(count):
            outcome = passed.send(passed.handle)
            posted += isinstance(outcome, Posted)
            exits += isinstance(outcome, Interrupt)
    return posted, exits


def _addresses(
    work: Work, size: int, first: int, passed: Passed, rng: random.Random
) -> Iterator[int]:
    """Device addresses of operations, in the first range that the device may reach.

    They begin ``first`` bytes into it, where the queues of an engine end.
    """
    spans = [(device, size) for device, size, _ in passed.guest.reached()]
    if not spans:
        return
    start, room = spans[0]
    slots = max(1, min(room - first, work.span) // size)
    for number in range(work.requests):
        slot = rng.randrange(slots) if work.random else number % slots
        yield start + first + slot * size
