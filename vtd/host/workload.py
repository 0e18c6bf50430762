"""The work of a running plan: requests of its devices, and what the units did for them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from devices.dma import CompletionStatus
from devices.interrupt_programming import remappable_message
from pagetables.bits import BitRecord
from pagetables.observer import Structure
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
    requests: int
    refused: int
    bytes: int
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

    def asked(self, cache: CacheName, key: Any, entry: object | None) -> None:
        """The IOTLB was asked."""
        if cache is CacheName.IOTLB:
            self.hits += entry is not None
            self.misses += entry is None

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        """A structure was read."""
        self.reads += 1

    def invalidated(self, command: BitRecord) -> None:
        """Software had something invalidated."""
        self.invalidations += not isinstance(command, InvalidationWaitDescriptor)


def do_work(host: RunningHost, seed: int = 0) -> Iterator[WorkDone]:
    """The work that the plan names, a device after the other; ``seed`` of the random requests."""
    passed = {each.name: each for each in host.passed}
    for number, work in enumerate(host.plan.work):
        if work.device in passed:
            yield _done(host, work, passed[work.device], random.Random(seed + number))


def _done(host: RunningHost, work: Work, passed: Passed, rng: random.Random) -> WorkDone:
    unit = host.platform.unit_of(passed.function)
    pressure, statuses = Pressure(), Counter[CompletionStatus]()
    dma, data = passed.function.dma, bytes(work.bytes)
    remapping = GuestRemapping(passed) if work.unmaps else None
    unit.observe(pressure)
    try:
        for number, address in enumerate(_addresses(work, passed, rng)):
            if remapping is not None:
                remapping.unmap_until((number + 1) * work.unmaps // work.requests)
                remapping.need(address)
            answer = dma.write(address, data) if work.writes else dma.read(address, work.bytes)
            statuses[answer.status] += 1
        if remapping is not None:
            remapping.map_again()
    finally:
        unit.ignore(pressure)
    posted = exits = 0
    if passed.handle is not None:
        message = remappable_message(passed.handle)
        for _ in range(work.interrupts):
            outcome = dma.write(message.address, message.data.to_bytes(4, "little")).interrupt
            posted += isinstance(outcome, Posted)
            exits += isinstance(outcome, Interrupt)
    done = statuses[CompletionStatus.SUCCESS]
    return WorkDone(
        device=work.device,
        guest=passed.guest.name,
        requests=work.requests,
        refused=work.requests - done,
        bytes=done * work.bytes,
        hits=pressure.hits,
        misses=pressure.misses,
        reads=pressure.reads,
        posted=posted,
        exits=exits,
        unmaps=remapping.unmaps if remapping else 0,
        late=remapping.late if remapping else 0,
        invalidations=pressure.invalidations,
    )


def _addresses(work: Work, passed: Passed, rng: random.Random) -> Iterator[int]:
    """Device addresses of the requests, inside the first ranges that the device may reach."""
    spans = [(device, min(size, work.span)) for device, size, _ in passed.guest.reached()]
    if not spans:
        return
    start, span = spans[0]
    slots = max(1, span // work.bytes)
    for number in range(work.requests):
        slot = rng.randrange(slots) if work.random else number % slots
        yield start + slot * work.bytes
