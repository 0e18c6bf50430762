"""A case on the model: what each step led to, which interrupts came, which memory it touched."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from devices.dma import Completion, Request
from pagetables.memory import BusError
from pagetables.observer import Structure
from vtd.fuzz.case import Case, Outcome, Step
from vtd.fuzz.targets import EngineTarget
from vtd.layouts.registers import GlobalCommand, GlobalStatus, InvalidationQueueAddress
from vtd.recordings.scenario import ScenarioRun
from vtd.unit.caching.policy import CachePolicy
from vtd.unit.departures import Departures
from vtd.unit.interrupts.outcome import Interrupt, compatibility_interrupt
from vtd.unit.observer import Observer
from vtd.unit.reporting.events import Event, InterruptDelivered, MessageSent, RequestBlocked
from vtd.unit.requests.faults import FaultReason

COMMAND, STATUS, HEAD, TAIL, QUEUE = 0x18, 0x1C, 0x80, 0x88, 0x90


@dataclass
class Observed:
    """One run of a case."""

    outcomes: list[Outcome]
    delivered: list[list[Interrupt]]
    """Interrupts of requests that reached the processor, by step."""
    events: list[list[Interrupt]]
    """Interrupts of the unit itself, by step."""
    blocked: list[list[FaultReason]]
    """Faults of requests, by step."""
    remapped: list[bool]
    """Whether interrupts were remapped before the step."""
    frames: set[int]
    """Frame numbers that were read or written by anybody."""
    stored: list[set[int]]
    """Frame numbers that were written, by step."""
    physical: list[int | None]
    """Where the first request of a step was let through to."""
    untranslated: list[str | None]
    """What memory has at the address that a read names, as text: what pass-through would give."""
    undrained: int | None
    """The first step that switches off a queue which is not empty: software must not (6.5.2)."""
    queue: range | None
    """Where the invalidation queue is in the end, if it runs."""
    structures: set[int]
    """Frame numbers in which the unit read or changed structures."""
    landed: list[tuple[int, int] | None]
    """Where the first store of a step went, and how many bytes: of a DMA, its first page."""


def observe(case: Case, policy: CachePolicy, departures: Departures) -> Observed:
    """Carry out a case and look at everything."""
    run: ScenarioRun = EngineTarget(policy, departures=departures).start(case)
    seen = Observed([], [], [], [], [], set(), [], [], [], None, None, set(), [])

    def note(event: Event) -> None:
        if isinstance(event, InterruptDelivered) and isinstance(event.outcome, Interrupt):
            seen.delivered[-1].append(event.outcome)
        elif isinstance(event, MessageSent):
            seen.events[-1].append(compatibility_interrupt(*event.message))
        elif isinstance(event, RequestBlocked):
            seen.blocked[-1].append(event.reason)

    def stored(address: int, data: bytes) -> None:
        last = (address + max(len(data), 1) - 1) >> 12
        seen.stored[-1].update(range(address >> 12, last + 1))
        seen.landed[-1] = seen.landed[-1] or (address, len(data))

    run.unit.subscribe(note)
    run.memory.watch(stored)
    run.unit.observe(_Accesses(seen.physical, seen.structures))
    for number, step in enumerate(case.steps):
        if seen.undrained is None and _stops_queue(step) and _queue_runs(run):
            seen.undrained = number
        seen.delivered.append([])
        seen.events.append([])
        seen.blocked.append([])
        seen.stored.append(set())
        seen.landed.append(None)
        seen.physical.append(None)
        seen.untranslated.append(_untranslated(run, step))
        seen.remapped.append(bool(GlobalStatus(run.unit.read_register(STATUS, 4)).ires))
        seen.outcomes.append(run.step(step)[1])
    seen.frames = set(run.memory.frames)
    if GlobalStatus(run.unit.read_register(STATUS, 4)).qies:
        address = InvalidationQueueAddress(run.unit.read_register(QUEUE, 8))
        seen.queue = range(address.iqa, address.iqa + (4096 << address.qs))
    return seen


def _stops_queue(step: Step) -> bool:
    """Whether a step writes GCMD_REG with QIE = 0."""
    if step["op"] != "reg_write" or int(step["offset"], 0) != COMMAND:
        return False
    return not GlobalCommand(int(step["value"], 0)).qie


def _queue_runs(run: ScenarioRun) -> bool:
    """Whether there are descriptors that were not carried out."""
    on = GlobalStatus(run.unit.read_register(STATUS, 4)).qies
    head, tail = (run.unit.read_register(offset, 8) for offset in (HEAD, TAIL))
    return bool(on) and head != tail


def _untranslated(run: ScenarioRun, step: Step) -> str | None:
    if step["op"] != "dma_read":
        return None
    with suppress(BusError):
        return run.memory.read(int(step["iova"], 0), step["length"]).hex()
    return None


@dataclass
class _Accesses(Observer):
    """Notes where requests are let through to, in the last place of a list, and structures."""

    physical: list[int | None]
    structures: set[int]

    def answered(self, request: Request, answer: int | Completion) -> None:
        """One request."""
        if isinstance(answer, int) and self.physical[-1] is None:
            self.physical[-1] = answer

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        """An entry, or a part of one."""
        self.structures.add(address >> 12)

    def write(self, structure: Structure, address: int, data: bytes) -> None:
        """A status, or an entry of a queue."""
        self.structures.add(address >> 12)
