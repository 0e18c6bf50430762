"""Arrays of requests through a unit: by the kernel, and what that leaves row by row by the unit.

:func:`run` gives the outcome of each row, and leaves the unit as if each request had been put to
:meth:`RemappingUnit.admit` page by page: caches with their contents, order and counters, fault
records and events, flags in memory. No data move, as a trace has none.

What the kernel does not know the unit does itself. So it is with everything while somebody watches
the unit or its memory, while regions are protected or remapping is off, with memory that is not
coherent, and under cache policies that keep faults, fractions or the pages behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from devices.dma import ATOMIC, AddressType, Request, part_of
from devices.source_id import Bdf, SourceId
from pagetables.geometry import StageKind
from pagetables.memory import OFFSET, BusError, Frame, PhysicalMemory
from pagetables.walk import WalkFault, WalkRule
from vtd.batch import kernel as k
from vtd.batch.caches import ArrayIotlb, ArrayStructureCache
from vtd.batch.columns import ADDRESS_TYPE_SHIFT, PRIVILEGED, REQUESTS, Requests, RowKind
from vtd.batch.outcomes import OUTCOMES, Outcomes
from vtd.batch.single import carry_out, request_of
from vtd.batch.store import Store
from vtd.batch.targets import Targets
from vtd.platform import Platform
from vtd.unit.caching.cache import UNBOUNDED
from vtd.unit.requests.faults import FaultReason, TranslationFault
from vtd.unit.requests.request import RequestKind, kind_of
from vtd.unit.requests.target import Target
from vtd.unit.translation.lookup import LEGACY_MODE
from vtd.unit.translation.translate import denial, walk_fault
from vtd.unit.unit import RemappingUnit

Numbers = NDArray[np.int64]
Software = Callable[[Any], None]
"""Carries out a row that is not a request: an invalidation, a map, an unmap."""
LOG = 1 << 14
"""How many faults the kernel meets before they are recorded."""


def run(
    machine: RemappingUnit | Platform,
    rows: Requests,
    software: Software | None = None,
    outcomes: Outcomes | None = None,
) -> Outcomes:
    """Carry out the rows of an array in their order; the outcome of each, in ``outcomes`` if given.

    Those of a platform go to the unit that covers their source-id. ValueError, with all before it
    done, for a row that is none, or that asks for ``software`` where there is none; with nothing
    done for an array of another type, outcomes of another length, a source-id without unit.
    """
    if rows.dtype != REQUESTS:
        raise ValueError(f"rows: an array of type REQUESTS is needed, not {rows.dtype}")
    if outcomes is None:
        outcomes = np.empty(len(rows), OUTCOMES)
    elif outcomes.dtype != OUTCOMES or outcomes.shape != rows.shape:
        raise ValueError(f"outcomes: {len(rows)} of type OUTCOMES are needed")
    if not outcomes.flags.c_contiguous:
        raise ValueError("outcomes: the array has gaps")
    rows = np.ascontiguousarray(rows)
    if isinstance(machine, Platform):
        units = [*machine.units.values()]
        owners = _owners(machine, rows, units)
    else:
        units, owners = [machine], np.zeros(0, np.int64)
    engines = [engine_of(unit) for unit in units]
    if len(engines) == 1:
        engines[0].run(rows, outcomes, software)
        return outcomes
    for start, end, by_software in _stretches(rows):
        if by_software:
            engines[owners[start]].run(rows[start:end], outcomes[start:end], software, start)
        elif all(engine.is_alone for engine in engines):
            _side_by_side(engines, owners[start:end], rows[start:end], outcomes[start:end], start)
        else:
            changes = np.flatnonzero(np.diff(owners[start:end])) + start + 1
            for first, last in pairwise([start, *changes.tolist(), end]):
                engine = engines[owners[first]]
                engine.run(rows[first:last], outcomes[first:last], software, first)
    return outcomes


def _owners(platform: Platform, rows: Requests, units: list[RemappingUnit]) -> Numbers:
    """For each row the number of the unit that covers its source-id."""
    sources, inverse = np.unique(rows["source_id"], return_inverse=True)
    numbers = np.zeros(len(sources), np.int64)
    for place, source_id in enumerate(sources.tolist()):
        bdf = Bdf(source_id >> 16, SourceId(source_id & 0xFFFF))
        owner = platform.scopes.owner(bdf)
        if owner is None:
            row = int(np.flatnonzero(inverse == place)[0])
            raise ValueError(f"row {row}, source_id: no unit covers {bdf}")
        numbers[place] = units.index(platform.units[owner.unit.register_base])
    return numbers[inverse]


def _stretches(rows: Requests) -> Iterator[tuple[int, int, bool]]:
    """Parts of an array by start and end: rows of software one by one, all between them at once."""
    start = 0
    requests = (rows["kind"] == RowKind.DMA) | (rows["kind"] == RowKind.MARKER)
    for place in np.flatnonzero(~requests).tolist():
        if start < place:
            yield start, place, False
        yield place, place + 1, True
        start = place + 1
    if start < len(rows):
        yield start, len(rows), False


def _side_by_side(
    engines: list[Engine], owners: Numbers, rows: Requests, outcomes: Outcomes, first: int
) -> None:
    """The rows of each unit, on a thread of its own."""

    def act(number: int) -> None:
        places = np.flatnonzero(owners == number)
        mine = np.empty(len(places), OUTCOMES)
        engines[number].run(rows[places], mine, None, first)
        outcomes[places] = mine

    with ThreadPoolExecutor(len(engines)) as pool:
        for done in [pool.submit(act, number) for number in np.unique(owners).tolist()]:
            done.result()


def engine_of(unit: RemappingUnit) -> Engine:
    """The engine of a unit, made when it is first asked for."""
    iotlb = unit.caches.iotlb
    if isinstance(iotlb, ArrayIotlb):
        engine: Engine = iotlb.owner
        return engine
    return Engine(unit)


class Engine:
    """A unit whose caches are where the kernel works on them."""

    def __init__(self, unit: RemappingUnit) -> None:
        self.unit = unit
        self._remapping = unit.remapping
        policy, memory = unit.options.caches, unit.remapping.memory
        self._memory = memory if isinstance(memory, PhysicalMemory) else None
        self._able = self._memory is not None and not (
            unit.remapping.keeps_faults
            or policy.fractured
            or policy.prefetched_pages
            or policy.trust_cached_rights
        )
        self._control = np.zeros(k.CONTROL, np.int64)
        self._log = np.zeros(LOG * k.LOGGED, np.int64)
        self._frames = Store(UNBOUNDED)
        self._targets = Targets()
        if self._able and self._memory is not None:
            caches = unit.caches
            self._iotlb = ArrayIotlb.replace(caches.iotlb)
            self._iotlb.owner = self
            self._first = ArrayStructureCache(caches.first_stage)
            self._second = ArrayStructureCache(caches.second_stage)
            caches.first_stage, caches.second_stage = self._first, self._second
            self._memory.follow(self._frame_moved)

    @property
    def is_alone(self) -> bool:
        """Whether nothing that other units do changes what this one does, nor the reverse.

        So it is in legacy mode, which sets no flags in tables, while nobody is told of faults.
        """
        return (
            self._is_kernels()
            and self._remapping.mode is LEGACY_MODE
            and not self.unit.has_subscribers
        )

    @property
    def table_bytes(self) -> int:
        """What the kernel keeps of requesters: their kinds of request and their tables."""
        return int(self._iotlb.kinds.words.nbytes + self._targets.words.nbytes)

    def run(
        self,
        rows: Requests,
        outcomes: Outcomes,
        software: Software | None = None,
        number: int = 0,
    ) -> None:
        """See :func:`run`; ``number`` is that of the first row."""
        at = 0
        while at < len(rows):
            if self._is_kernels():
                at, done = self._run_kernel(rows, outcomes, at)
                if at == len(rows):
                    break
            else:
                done = 0
            if not done:
                outcomes[at] = NOTHING
            if done >= 0:
                self._carry_out(number + at, rows[at], outcomes[at], done, software)
                at += 1

    def _is_kernels(self) -> bool:
        """Whether the kernel may carry out anything now."""
        unit = self.unit
        watched = self._memory is None or self._memory.watched
        return self._able and unit.hits_are_final and not watched

    def _carry_out(
        self, number: int, row: Any, outcome: Any, done: int, software: Software | None
    ) -> None:
        kind = row["kind"]
        if kind == RowKind.DMA:
            if row["attributes"] > MOST_ATTRIBUTES:
                raise ValueError(f"row {number}, attributes: {row['attributes']:#x} is unknown")
            carry_out(self.unit, row, outcome, done)
            if self._able:
                self._learn(kind_of(request_of(row)))
        elif kind > max(RowKind):
            raise ValueError(f"row {number}, kind: {kind} is unknown")
        elif kind != RowKind.MARKER:
            if software is None:
                raise ValueError(f"row {number}, kind: {RowKind(kind).name} needs software")
            software(row)

    def _learn(self, kind: RequestKind) -> None:
        """Tell the kernel the tables of a kind of request, if they are known for sure."""
        found = self._remapping.caches.lookups.get(kind)
        if found is None:
            return
        target, privileged = found
        row, words = self._iotlb.row_of(kind), self._iotlb.kinds.words
        words[row + k.TARGET_OF] = self._place_of(target)
        words[row + k.KNOWN_SINCE] = self._remapping.caches.lookups.epoch
        words[row + k.MARKS] = words[row + k.MARKS] & ~k.IS_PRIVILEGED | privileged
        self._iotlb.number_of(kind, target.tags)

    def _place_of(self, target: Target) -> int:
        place = self._targets.place_of(target)
        if place is None:
            place = self._targets.add(
                target,
                self._iotlb.tags_number(target.tags),
                self._first.number_of((target.domain_id, target.pasid)),
                self._second.number_of((target.domain_id, None)),
            )
        return place

    def _run_kernel(self, rows: Requests, outcomes: Outcomes, at: int) -> tuple[int, int]:
        """Have the kernel go on from a row: where it stopped, how many bytes of that are done.

        The latter is negative where the kernel is to go on from there.
        """
        caches, control = self._remapping.caches, self._control
        control[k.AT_ROW], control[k.EPOCH] = at, caches.lookups.epoch
        control[k.LOOKUPS] = control[k.FAULTS] = 0
        stopped = k.run(
            control,
            rows.view(np.int64),
            outcomes.view(np.int64),
            self._iotlb.store.words,
            self._first.store.words,
            self._second.store.words,
            self._iotlb.kinds.words,
            self._targets.words,
            self._targets.forms,
            self._frames.words,
            self._log,
        )
        for cache in (self._iotlb, self._first, self._second):
            cache.store.take_counts(cache.counters)
        lookups = int(control[k.LOOKUPS])
        caches.context.counters.hits += lookups
        if self._remapping.mode is not LEGACY_MODE:
            caches.pasid.counters.hits += lookups
        if control[k.FAULTS]:
            self._record_faults(rows, outcomes, int(control[k.FAULTS]))
        if stopped in (k.UNKNOWN_FRAME, k.FRAME_TO_OWN):
            self._find_frame(int(control[k.NEEDED]), own=stopped == k.FRAME_TO_OWN)
        elif stopped == k.NO_ROOM:
            for cache in (self._iotlb, self._first, self._second):
                cache.store.make_room()
        if stopped == k.LEFT_TO_UNIT:
            done, control[k.AT_ADDRESS] = int(control[k.AT_ADDRESS]), 0
            return int(control[k.AT_ROW]), done
        return int(control[k.AT_ROW]), -1

    def _find_frame(self, number: int, *, own: bool) -> None:
        """Tell the kernel where a frame is, or that there is none."""
        memory, state, pointer = self._memory, k.UNDECIDED, 0
        assert memory is not None
        if own:
            state = k.READ_ONLY
            with suppress(BusError):
                memory.own(number)
        if memory.is_own(number):
            state = k.OWNED
        with suppress(BusError):
            pointer = pointer_to(memory.frames[number])
        self._frames.put(number, 0, pointer, state, 0)

    def _frame_moved(self, number: int | None) -> None:
        if number is None:
            self._frames.clear()
            return
        row = self._frames.find(number, 0)
        if row:
            self._frames.remove(row)

    def _record_faults(self, rows: Requests, outcomes: Outcomes, count: int) -> None:
        """Have the unit record what the kernel met, in its order."""
        log = self._log.reshape(-1, k.LOGGED)[:count]
        causes, inverse = np.unique(log[:, k.LOGGED_WHY], return_inverse=True)
        faults = [self._fault(int(cause)) for cause in causes]
        reasons = np.array([int(fault.reason) for fault in faults], np.uint8)[inverse]
        reasons_of_rows = outcomes["reason"]
        numbers = log[::-1, k.LOGGED_ROW]  # of several the first counts
        fresh = reasons_of_rows[numbers] == 0
        reasons_of_rows[numbers[fresh]] = reasons[::-1][fresh]
        for place in range(count):
            if not self.unit.hears_faults:
                break
            number, start, _ = log[place].tolist()
            request, start = request_of(rows[number]), start & (1 << 64) - 1
            if request.access != ATOMIC:
                size = min(request.address + request.length, (start | OFFSET) + 1) - start
                request = part_of(request, start, size)
            self.unit.block(request, faults[inverse[place]])

    def _fault(self, cause: int) -> TranslationFault:
        """The fault behind what the kernel logs, by the functions of the unit."""
        code, shift = cause & 0xFF, cause >> k.WHY_SHIFT & 0xFF
        stage, access = cause >> k.WHY_STAGE & 0xFF, cause >> k.WHY_ACCESS & 0xF
        missing = cause >> k.WHY_MISSING & 0xF
        target = self._targets[cause >> k.WHY_TARGET]
        reasons = target.reasons
        if code <= k.TABLE_NOT_WRITABLE:
            kind = StageKind.FIRST if stage == k.FIRST_STAGE else StageKind.SECOND
            of = target.first if kind is StageKind.FIRST else target.second
            assert of is not None
            top = shift == of.geometry.steps[0][0]
            ended = WalkFault(RULES[code - 1], kind, shift, top)
            return walk_fault(self._remapping, target, ended, Request(0, 0, access))
        reason = {
            k.BEYOND_WIDTH: reasons.beyond_width,
            k.BEYOND_HOST_WIDTH: reasons.beyond_haw,
            k.NOT_CANONICAL: FaultReason.NOT_CANONICAL,
            k.FIRST_BEYOND_WIDTH: FaultReason.FS_BEYOND_WIDTH,
            k.USER_DENIED: FaultReason.USER_DENIED,
            k.RIGHT_MISSING: denial(target, missing),
            k.INTERRUPTS: reasons.interrupt_range,
        }[code]
        return TranslationFault(reason, target.fpd)


NOTHING = np.zeros((), OUTCOMES)[()]
RULES = tuple(WalkRule)
MOST_ATTRIBUTES = max(AddressType) << ADDRESS_TYPE_SHIFT | PRIVILEGED


def pointer_to(frame: Frame) -> int:
    """Where a frame is in this process."""
    return int(np.frombuffer(frame, np.int64).ctypes.data)
