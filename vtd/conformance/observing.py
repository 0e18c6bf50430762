"""A case on the model: what each step led to, which interrupts came, which memory it touched."""

from __future__ import annotations

from dataclasses import dataclass

from vtd.fuzz.case import Case, Outcome
from vtd.fuzz.targets import EngineTarget
from vtd.layouts.registers import GlobalStatus, InvalidationQueueAddress
from vtd.recordings.scenario import ScenarioRun
from vtd.unit.caching.policy import CachePolicy
from vtd.unit.departures import Departures
from vtd.unit.interrupts.outcome import Interrupt, compatibility_interrupt
from vtd.unit.reporting.events import Event, InterruptDelivered, MessageSent

STATUS, QUEUE = 0x1C, 0x90


@dataclass
class Observed:
    """One run of a case."""

    outcomes: list[Outcome]
    delivered: list[list[Interrupt]]
    """Interrupts of requests that reached the processor, by step."""
    events: list[list[Interrupt]]
    """Interrupts of the unit itself, by step."""
    remapped: list[bool]
    """Whether interrupts were remapped before the step."""
    frames: set[int]
    """Frame numbers that were read or written by anybody."""
    stored: list[set[int]]
    """Frame numbers that were written, by step."""
    queue: range | None
    """Where the invalidation queue is in the end, if it runs."""
    landed: list[tuple[int, int] | None]
    """Where the first store of a step went, and how many bytes: of a DMA, its first page."""


def observe(case: Case, policy: CachePolicy, departures: Departures) -> Observed:
    """Carry out a case and look at everything."""
    run: ScenarioRun = EngineTarget(policy, departures=departures).start(case)
    seen = Observed([], [], [], [], set(), [], None, [])

    def note(event: Event) -> None:
        if isinstance(event, InterruptDelivered) and isinstance(event.outcome, Interrupt):
            seen.delivered[-1].append(event.outcome)
        elif isinstance(event, MessageSent):
            seen.events[-1].append(compatibility_interrupt(*event.message))

    def stored(address: int, data: bytes) -> None:
        last = (address + max(len(data), 1) - 1) >> 12
        seen.stored[-1].update(range(address >> 12, last + 1))
        seen.landed[-1] = seen.landed[-1] or (address, len(data))

    run.unit.subscribe(note)
    run.memory.watch(stored)
    for step in case.steps:
        for by_step in (seen.delivered, seen.events):
            by_step.append([])
        seen.stored.append(set())
        seen.landed.append(None)
        seen.remapped.append(bool(GlobalStatus(run.unit.read_register(STATUS, 4)).ires))
        seen.outcomes.append(run.step(step)[1])
    seen.frames = set(run.memory.frames)
    if GlobalStatus(run.unit.read_register(STATUS, 4)).qies:
        address = InvalidationQueueAddress(run.unit.read_register(QUEUE, 8))
        seen.queue = range(address.iqa, address.iqa + (4096 << address.qs))
    return seen
