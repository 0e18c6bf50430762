"""Who watches a unit sees every step in order, and changes none of them."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any
from unittest.mock import create_autospec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.dma import (
    ATOMIC,
    READ,
    REFUSED,
    WRITE,
    AddressType,
    Atomic,
    AtomicOp,
    Completion,
    PageRequest,
    Request,
)
from devices.interrupt_messages import RemappableAddress
from pagetables import first_stage, second_stage
from pagetables.bits import BitRecord
from pagetables.observer import Structure
from tests.support.interrupt_world import DESCRIPTOR, POSTED, InterruptWorld
from tests.support.interrupt_world import TABLE as INTERRUPT_TABLE
from tests.support.world import FIRST_TABLES, HOST, PAGE, QUEUE, STATUS, Mode, Started, World
from tests.support.world import capabilities as has
from vtd.auditing.audit import Audit
from vtd.inspection.injection import FailRange, FailRead
from vtd.layouts import descriptors as d
from vtd.layouts.interrupt_entries import RemappedIrte
from vtd.layouts.registers import (
    ContextCommand,
    ContextGranularity,
    IotlbGranularity,
    IotlbInvalidate,
    PerformanceMonitoringCounterConfiguration,
)
from vtd.unit.caching.cache import Replacement, Shape
from vtd.unit.caching.iotlb import IotlbEntry
from vtd.unit.caching.policy import AGGRESSIVE, KEEPS_STALE, UNCACHED, CachePolicy
from vtd.unit.observer import CacheName, Observer, Observers
from vtd.unit.options import Options
from vtd.unit.requests.faults import FaultReason

Step = tuple[Any, ...]


class Trace(Observer):
    """Every step, by its name and what it is told."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        self.steps.append(("read", structure, address, size, value))

    def unreadable(self, structure: Structure, address: int) -> None:
        self.steps.append(("unreadable", structure, address))

    def update(self, structure: Structure, address: int, size: int, old: int, new: int) -> None:
        self.steps.append(("update", structure, address, size, old, new))

    def updated(self, structure: Structure, address: int, new: int, *, done: bool) -> None:
        self.steps.append(("updated", structure, address, new, done))

    def write(self, structure: Structure, address: int, data: bytes) -> None:
        self.steps.append(("write", structure, address, data))

    def begin(self, request: Request) -> None:
        self.steps.append(("begin", request))

    def asked(self, cache: CacheName, key: Any, entry: object | None) -> None:
        self.steps.append(("asked", cache, key, entry))

    def kept(self, cache: CacheName, key: Any, entry: object) -> None:
        self.steps.append(("kept", cache, key, entry))

    def found(self, request: Request, entry: IotlbEntry) -> None:
        self.steps.append(("found", request, entry))

    def fault(self, request: Request, reason: FaultReason) -> None:
        self.steps.append(("fault", request, reason))

    def invalidated(self, command: BitRecord) -> None:
        self.steps.append(("invalidated", command))

    def settled(self) -> None:
        self.steps.append(("settled",))

    def take(self) -> list[Step]:
        """The steps since the last time."""
        steps, self.steps = self.steps, []
        return steps


def traced(started: Any) -> Trace:
    """A trace of what the unit does from now on."""
    trace = Trace()
    started.unit.observe(trace)
    return trace


# Steps in order


def entry_read(world: World, structure: Structure, name: str) -> Step:
    """The read of a structure as it is now."""
    address, record = world.places[name]
    return "read", structure, address, record.WIDTH // 8, int(world.get(name))


def second_stage_reads(world: World, leaf: str) -> list[Step]:
    """The reads of a second-stage walk to the page of this leaf entry."""
    names = ("second4", "second3", "second2", leaf)
    return [entry_read(world, Structure.SECOND_STAGE, name) for name in names]


def test_a_nested_translation_is_seen_read_by_read() -> None:
    world = World(Mode.NESTED)
    request, kind = world.request, (world.source_id, None, False)
    context_key, pasid_key = world.source_id, (world.source_id, 0)
    expected: list[Step] = [
        ("begin", request),
        ("asked", CacheName.IOTLB, (kind, request.address), None),
        ("asked", CacheName.CONTEXT, context_key, None),
        entry_read(world, Structure.ROOT, "root"),
        entry_read(world, Structure.CONTEXT, "context"),
        ("kept", CacheName.CONTEXT, context_key),
        ("asked", CacheName.PASID, pasid_key, None),
        entry_read(world, Structure.PASID_DIRECTORY, "directory"),
        entry_read(world, Structure.PASID, "pasid"),
        ("kept", CacheName.PASID, pasid_key),
    ]
    for level in range(4, 0, -1):
        table = f"second1 {FIRST_TABLES + 0x1000 * (4 - level):#x}"
        where, _ = world.places[f"first{level}"]
        old = int(world.get(f"first{level}"))
        seen = old | first_stage.ACCESSED
        to_the_table = second_stage_reads(world, table)
        expected += [
            *to_the_table,
            entry_read(world, Structure.FIRST_STAGE, f"first{level}"),
            *to_the_table,  # is the table's page writable?
            ("update", Structure.FIRST_STAGE, where, 8, old, seen),
            ("updated", Structure.FIRST_STAGE, where, seen, True),
        ]
    expected += second_stage_reads(world, "second1")
    started = world.start()
    trace = traced(started)
    assert started.admit() == HOST | PAGE
    steps = trace.take()
    (entry,) = (entry for _, entry in started.unit.caches.iotlb)
    expected += [
        ("found", request, entry),
        ("kept", CacheName.IOTLB, (kind, entry.address), entry),
        ("settled",),
    ]
    for step, wanted in zip(steps, expected, strict=True):
        assert step[: len(wanted)] == wanted

    assert started.admit() == HOST | PAGE
    assert trace.take() == [
        ("begin", request),
        ("asked", CacheName.IOTLB, (kind, request.address), entry),
        ("settled",),
    ]


@pytest.mark.parametrize("mode", Mode)
def test_a_first_request_is_seen_alike_with_and_without_caches(mode: Mode) -> None:
    seen = []
    for caches in (KEEPS_STALE, UNCACHED):
        world = World(mode)
        trace = traced(started := world.start(Options(caches=caches)))
        assert started.admit() == HOST | PAGE
        seen.append(trace.take())
    assert seen[0] == seen[1]


@pytest.mark.parametrize("mode", [Mode.FIRST, Mode.SECOND])
def test_a_dirty_flag_is_set_before_the_page_is_found(mode: Mode) -> None:
    world = World(mode)
    world.change("pasid", ssade=True)
    world.ask(access=WRITE)
    started = world.start()
    trace = traced(started)
    assert started.admit() == HOST | PAGE
    steps = [step for step in trace.take() if step[0] in ("update", "updated", "found")]
    assert [step[0] for step in steps] == ["update", "updated"] * 5 + ["found"]
    first = mode is Mode.FIRST
    dirty = first_stage.DIRTY if first else second_stage.DIRTY
    _, structure, where, size, old, new = steps[-3]
    assert structure is (Structure.FIRST_STAGE if first else Structure.SECOND_STAGE)
    assert (where, size) == (world.places["first1" if first else "second1"][0], 8)
    assert (old & dirty, new) == (0, old | dirty)
    assert world.get("first1" if first else "second1") == new


@pytest.mark.parametrize("missing", ["r", "rw"])
def test_a_result_that_refused_its_request_is_seen_when_it_is_kept(missing: str) -> None:
    world = World(Mode.SECOND, has(cm=1))
    world.change("second1", **dict.fromkeys(missing, False))
    started = world.start(Options(caches=AGGRESSIVE))
    trace = traced(started)
    assert started.admit() is None
    kept = [step for step in trace.take() if step[:2] == ("kept", CacheName.IOTLB)]
    [(_, _, key, entry)] = kept
    assert key == ((world.source_id, None, False), world.address & -0x1000)
    assert not entry.rights & READ


def test_a_table_that_is_not_there_is_a_step_before_its_fault() -> None:
    world = World(Mode.SECOND)
    world.change("context", pasiddirptr=0x8000_0000)
    started = world.start()
    trace = traced(started)
    assert started.admit() is None
    assert trace.take()[-3:] == [
        ("unreadable", Structure.PASID_DIRECTORY, 0x8000_0000),
        ("fault", world.request, FaultReason.PASID_DIRECTORY_READ_ERROR),
        ("settled",),
    ]


def test_an_interrupt_is_seen_from_its_message_to_its_descriptor() -> None:
    world = InterruptWorld(entry=POSTED)
    before = int(world.get_descriptor())
    started = world.start(Options())
    trace = traced(started)
    assert started.send() is not None
    after = int(world.get_descriptor())
    message = Request(world.source_id, world.address, WRITE, 4, payload=bytes(4))
    posting: list[Step] = [
        ("read", Structure.POSTED_DESCRIPTOR, DESCRIPTOR, 64, before),
        ("update", Structure.POSTED_DESCRIPTOR, DESCRIPTOR, 64, before, after),
        ("updated", Structure.POSTED_DESCRIPTOR, DESCRIPTOR, after, True),
    ]
    assert trace.take() == [
        ("begin", message),
        ("asked", CacheName.INTERRUPT, 5, None),
        ("read", Structure.INTERRUPT_ENTRY, INTERRUPT_TABLE + 5 * 16, 16, int(POSTED)),
        *posting,
        ("kept", CacheName.INTERRUPT, 5, POSTED),
        ("settled",),
    ]
    world.put_entry(0)
    started.send()
    steps = trace.take()
    assert steps[:2] == [("begin", message), ("asked", CacheName.INTERRUPT, 5, POSTED)]
    assert [step[0] for step in steps[2:]] == ["read", "update", "updated", "settled"]
    started.unit.interrupts.clear()
    started.send()
    assert trace.take()[2:] == [
        ("read", Structure.INTERRUPT_ENTRY, INTERRUPT_TABLE + 5 * 16, 16, 0),
        ("fault", message, FaultReason.IR_NOT_PRESENT),
        ("settled",),
    ]


class Outside(Observer):
    """What software and devices see of a unit."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def answered(self, request: Request, answer: int | Completion) -> None:
        self.steps.append(("answered", request, answer))

    def register_read(self, offset: int, size: int, value: int) -> None:
        self.steps.append(("r", offset, size, value))

    def register_written(self, offset: int, size: int, value: int) -> None:
        self.steps.append(("w", offset, size, value))


def test_answers_and_register_accesses_are_seen_by_every_observer() -> None:
    world = World(Mode.LEGACY)
    started = world.start()
    seen = [Outside(), Outside()]
    for each in seen:
        started.unit.observe(each)
    assert started.admit() == HOST | PAGE
    world.ask(address=0)
    assert started.admit() is None
    version = started.unit.read_register(0, 4)
    started.unit.write_register(0x38, 4, 1 << 31)
    for each in seen:
        assert [step[0] for step in each.steps] == ["answered", "answered", "r", "w"]
        assert each.steps[0][2] == HOST | PAGE
        assert each.steps[1][1:] == (world.request, REFUSED)
        assert each.steps[2:] == [("r", 0, 4, version), ("w", 0x38, 4, 1 << 31)]
    started.unit.ignore(seen[0])
    started.unit.read_register(0, 4)
    assert [len(each.steps) for each in seen] == [4, 5]


def test_an_invalidation_is_seen_when_it_has_been_carried_out() -> None:
    started = World(Mode.SECOND).start()
    started.enable_queue(wide=True)
    assert started.admit() is not None
    trace = traced(started)
    iotlb = d.IotlbInvalidateDescriptor.of(g=IotlbGranularity.DOMAIN, did=5)
    wait = d.InvalidationWaitDescriptor.of(sw=True, status_data=7, status_address=STATUS)
    started.submit(iotlb, wait)
    assert trace.take() == [
        ("read", Structure.QUEUE_DESCRIPTOR, QUEUE, 32, int(iotlb)),
        ("invalidated", iotlb),
        ("read", Structure.QUEUE_DESCRIPTOR, QUEUE + 32, 32, int(wait)),
        ("write", Structure.WAIT_STATUS, STATUS, (7).to_bytes(4, "little")),
        ("invalidated", wait),
        ("settled",),
    ]
    assert len(started.unit.caches.iotlb) == 0


def test_an_invalidation_by_register_is_seen_as_its_command() -> None:
    started = World(Mode.LEGACY).start()
    trace = traced(started)
    command = IotlbInvalidate.of(ivt=True, iirg=1)
    started.unit.write_register(started.unit.capabilities.iotlb_offset + 8, 8, command)
    assert trace.take() == [("invalidated", command), ("settled",)]


def test_several_observers_hear_in_the_order_in_which_they_came() -> None:
    started = World(Mode.SECOND).start()
    heard: list[str] = []

    class Named(Observer):
        def __init__(self, name: str) -> None:
            self.name = name

        def begin(self, request: Request) -> None:
            heard.append(self.name)

    one, two, three = (Named(name) for name in ("one", "two", "three"))
    for observer in (one, two, three):
        started.unit.observe(observer)
    started.admit()
    started.unit.ignore(two)
    started.admit()
    started.unit.observe(two)
    started.admit()
    assert heard == ["one", "two", "three", "one", "three", "one", "three", "two"]
    with pytest.raises(ValueError, match="not observed"):
        started.unit.ignore(Named("four"))


def test_observers_that_are_alike_are_not_taken_for_each_other() -> None:
    started = World(Mode.SECOND).start()
    one, other = FailRead(100), FailRead(100)
    for observer in (one, other):
        started.unit.observe(observer)
    started.unit.ignore(other)
    assert started.admit() is not None
    assert (one.count > 0, other.count) == (True, 0)


def test_nobody_is_asked_once_nobody_observes() -> None:
    started = World(Mode.SECOND).start()
    assert started.unit.observer is None
    trace = traced(started)
    assert started.unit.observer is trace
    assert not started.unit.hits_are_final
    started.unit.ignore(trace)
    assert started.unit.observer is None
    assert started.unit.hits_are_final
    started.admit()
    assert trace.steps == []


# Watched, counted and left alone: the same unit

UNIT = has(ecmds=1, pms=1, fro=0x240)
ENABLE, DISABLE = 240, 241
COUNTED = ((0, 1), (1, 0), (1, 3), (3, 0))
"""Requests, memory reads, flag updates and IOTLB lookups, by event group and bit."""
INTERRUPTS = 0x1E000
UNTOUCHED = 0x1F000
small = Shape(2, 2, Replacement.LRU)
POLICIES = [
    KEEPS_STALE,
    AGGRESSIVE,
    UNCACHED,
    CachePolicy(small, small, small, small, small, cache_faults=True, trust_cached_rights=True),
]


class Watched:
    """A unit in use, with observers that come and go, and counters if there are any."""

    def __init__(self, mode: Mode, policy: CachePolicy) -> None:
        self.world = World(mode, UNIT)
        self.world.change("context", pre=True)
        memory = self.world.memory
        memory.write(INTERRUPTS, RemappedIrte.of(p=True, v=0x41).pack())
        self.started: Started = self.world.start(Options(caches=policy))
        self.unit = self.started.unit
        self.port = self.started.port()
        self.started.enable_queue(wide=True)
        self.unit.write_register(0xD0, 8, 0x1C000)
        self.unit.write_register(0xB8, 8, INTERRUPTS | 7)
        self.started.command(sirtp=True)
        self.started.command(ire=True)
        self.observers: dict[str, Observer] = {}
        self.counting: set[int] = set()

    def watch(self, name: str) -> None:
        """Attach an observer, or detach the one of this name that is there."""
        present = self.observers.pop(name, None)
        match name, present:
            case "audit", None:
                self.observers[name] = Audit(self.unit)
                return
            case "audit", Audit():
                present.detach()
                return
            case "tracer", None:
                self.observers[name] = Trace()
            case "injector", None:
                self.observers[name] = FailRange(UNTOUCHED, UNTOUCHED + 64)
        if present is None:
            self.unit.observe(self.observers[name])
        else:
            self.unit.ignore(present)

    def count(self, number: int) -> None:
        """Enable a counter, or disable it if it is enabled."""
        enabled = number in self.counting
        if not enabled:
            group, bit = COUNTED[number]
            chosen = PerformanceMonitoringCounterConfiguration.of(egi=group, es=1 << bit)
            self.unit.write_register(0x600 + 0x100 * number, 8, chosen)
        self.counting ^= {number}
        self.unit.write_register(0x400, 8, number << 16 | (DISABLE if enabled else ENABLE))

    def counters(self) -> list[int]:
        """What the counters read as."""
        return [self.unit.read_register(0x1000 + 0x400 * number, 8) for number in range(4)]

    def do(self, action: Step) -> object:
        """One thing that a device or software does, and what is seen of it."""
        match action:
            case ("dma", page, access, offset):
                return self._transfer(self.world.address + page * 0x1000 + offset, access)
            case ("broken", number, page, access):
                return self.broken(number, page, access)
            case ("translate" | "translated" | "interrupt" | "ask" as kind, number):
                return self._other(kind, number)
            case ("change", name, fields):
                if name in self.world.places:
                    self.world.change(name, **fields)
            case ("invalidate", make):
                self.started.submit(make(self.world))
        return self.unit.read_register(0x34, 4)

    def broken(self, number: int, page: int, access: int) -> tuple[Completion, int]:
        """A transfer during which this read of a structure fails, and how many there were."""
        injector = FailRead(number)
        self.unit.observe(injector)
        outcome = self._transfer(self.world.address + page * 0x1000, access)
        self.unit.ignore(injector)
        return outcome, injector.count

    def _other(self, kind: str, number: int) -> Completion:
        page = self.world.address + number * 0x1000
        match kind:
            case "translate":
                return self.port.translate(page, 1 + number)
            case "translated":
                return self.port.read_translated(HOST | PAGE + number * 0x1000, 4)
            case "interrupt":
                return self.port.write(RemappableAddress.for_handle(number, shv=False), bytes(4))
        return self.port.page_request(PageRequest(page, True, False, 1, bool(number & 1)))

    def _transfer(self, address: int, access: int) -> Completion:
        if access == ATOMIC:
            payload = Atomic(AtomicOp.FETCH_ADD, b"\1\0\0\0")
            return self.port.request(Request(0, address & ~3, ATOMIC, 4, payload=payload))
        if access == WRITE:
            return self.port.write(address, b"12345678")
        return self.port.read(address, 8)

    def seen(self) -> list[object]:
        """Everything but the registers of performance monitoring."""
        unit = self.unit
        parts = (unit.remapping, unit.interrupts, unit.faults, unit.devices, unit.page_requests)
        fault_recording = unit.capabilities.fault_recording_offset
        offsets = (0x34, 0x80, 0x88, 0x9C, 0xC8, 0xDC, *range(fault_recording, 0x2C0, 8))
        return [
            *(part.snapshot() for part in parts),
            *(unit.read_register(offset, 8 if offset >= 0x80 else 4) for offset in offsets),
            self.world.memory.snapshot(),
            self.started.events,
        ]


Make = Callable[[World], int]
INVALIDATIONS: dict[str, Make] = {
    "page": lambda world: d.IotlbInvalidateDescriptor.of(
        g=IotlbGranularity.PAGE_IN_DOMAIN, did=5, addr=world.address
    ),
    "domain": lambda _: d.IotlbInvalidateDescriptor.of(g=IotlbGranularity.DOMAIN, did=5),
    "PASID": lambda _: d.PasidIotlbInvalidateDescriptor.of(g=d.PasidIotlbGranularity.PASID, did=5),
    "PASID cache": lambda _: d.PasidCacheInvalidateDescriptor.of(g=d.PasidCacheGranularity.GLOBAL),
    "context": lambda _: d.ContextCacheInvalidateDescriptor.of(g=ContextGranularity.GLOBAL),
    "interrupt": lambda _: d.InterruptEntryCacheInvalidateDescriptor.of(g=True, iidx=0),
}
pages = st.integers(0, 4)
accesses = st.sampled_from([READ, READ, WRITE, ATOMIC])
uses = st.one_of(
    st.tuples(st.just("dma"), pages, accesses, st.sampled_from([0, 0, 0x804, 0xFFC])),
    st.tuples(st.just("dma"), pages, accesses, st.sampled_from([0, 0, 0x804, 0xFFC])),
    st.tuples(st.just("broken"), st.integers(1, 12), pages, accesses),
    st.tuples(st.sampled_from(["translate", "translated", "ask"]), pages),
    st.tuples(st.just("interrupt"), st.integers(0, 2)),
    st.tuples(st.just("change"), st.just("first1"), st.fixed_dictionaries({"rw": st.booleans()})),
    st.tuples(
        st.just("change"),
        st.just("second1"),
        st.sampled_from([{"w": False}, {"w": True}, {"addr": HOST | PAGE + 0x1000}]),
    ),
    st.tuples(st.just("invalidate"), st.sampled_from(list(INVALIDATIONS.values()))),
)
watching = st.one_of(
    st.tuples(st.just("watch"), st.sampled_from(["audit", "tracer", "injector"])),
    st.tuples(st.just("count"), st.integers(0, 3)),
)


@pytest.mark.parametrize("mode", [Mode.FIRST, Mode.SECOND, Mode.NESTED])
@given(
    st.sampled_from(POLICIES),
    st.lists(st.one_of(uses, uses, watching), min_size=5, max_size=40),
)
@settings(max_examples=40)
def test_who_watches_comes_and_goes_and_nothing_else_changes(
    mode: Mode, policy: CachePolicy, program: list[Step]
) -> None:
    watched, counted, alone = (Watched(mode, policy) for _ in range(3))
    for action in program:
        match action:
            case ("watch", name):
                watched.watch(name)
            case ("count", number):
                watched.count(number)
                counted.count(number)
            case _:
                outcome = alone.do(action)
                assert watched.do(action) == outcome
                assert counted.do(action) == outcome
        assert watched.counters() == counted.counters()
        assert watched.seen() == counted.seen() == alone.seen()
    assert watched.unit.snapshot() == counted.unit.snapshot()


@given(st.lists(st.sampled_from(["audit", "tracer", "injector", "count"]), max_size=12))
def test_the_last_to_leave_leaves_the_short_way_open(program: list[str]) -> None:
    watched = Watched(Mode.SECOND, KEEPS_STALE)
    for name in program:
        if name == "count":
            watched.count(0)
        else:
            watched.watch(name)
        assert watched.unit.hits_are_final == (not watched.observers and not watched.counting)


def test_an_audit_goes_on_after_the_counters_have_stopped() -> None:
    """It once lost sight of the unit when the last counter was disabled."""
    watched = Watched(Mode.SECOND, KEEPS_STALE)
    watched.count(0)
    audit = Audit(watched.unit)
    watched.do(("dma", 0, READ, 0))
    watched.count(0)
    watched.world.change("second1", addr=HOST | PAGE + 0x1000)
    watched.do(("dma", 0, READ, 0))
    (finding,) = audit.findings
    assert finding.cache is CacheName.IOTLB
    assert finding.changed.address == watched.world.places["second1"][0]


def test_an_audit_may_be_attached_while_the_unit_is_in_use() -> None:
    watched = Watched(Mode.NESTED, AGGRESSIVE)
    for page in range(3):
        watched.do(("dma", page, READ, 0))
    audit = Audit(watched.unit)
    for page in range(5):
        watched.do(("dma", page, WRITE, 0))
    assert audit.findings == []


def test_what_was_injected_is_over_when_the_injector_has_gone() -> None:
    watched = Watched(Mode.SECOND, UNCACHED)
    trace = traced(watched.started)
    outcome, reads = watched.broken(3, 0, READ)
    assert (outcome.ok, reads) == (False, 3)
    faults = [step[2] for step in trace.take() if step[0] == "fault"]
    assert faults == [FaultReason.PASID_DIRECTORY_READ_ERROR]
    assert watched.do(("dma", 0, READ, 0)) == watched.port.read(watched.world.address, 8)
    assert watched.port.read(watched.world.address, 8).ok
    assert watched.port.translate(watched.world.address).ok
    kinds = [step[1].address_type for step in trace.take() if step[0] == "begin"]
    asks = AddressType.TRANSLATION_REQUEST
    assert kinds == [AddressType.UNTRANSLATED] * 3 + [asks]


def test_a_context_invalidation_by_register_is_seen_as_its_command() -> None:
    started = World(Mode.LEGACY).start()
    trace = traced(started)
    command = ContextCommand.of(icc=True, cirg=1)
    started.unit.write_register(0x28, 8, command)
    assert trace.take() == [("invalidated", command), ("settled",)]


@pytest.mark.parametrize("step", [name for name in dir(Observer) if not name.startswith("_")])
def test_each_of_several_observers_is_told_of_every_step(step: str) -> None:
    several = create_autospec(Observer, instance=True), create_autospec(Observer, instance=True)
    _, *names = signature(getattr(Observer, step)).parameters
    told = {name: object() for name in names}
    getattr(Observers(several), step)(**told)
    for each in several:
        getattr(each, step).assert_called_once_with(**told)


def test_what_is_no_request_is_no_step() -> None:
    started, trace = World(Mode.SECOND).start(), Trace()
    started.unit.observe(trace)
    assert started.port().read(0, -1) == REFUSED
    assert started.unit.admit(started.world.request._replace(access=0)) == REFUSED
    started.unit.suspend()
    assert started.unit.admit(started.world.request) == REFUSED
    assert trace.steps == []


@pytest.mark.section("6.2.4")
def test_what_is_looked_up_ahead_is_said_to_be_for_a_request_that_nobody_made() -> None:
    ahead: list[Request] = []

    class Watching(Observer):
        def looks_ahead(self, request: Request) -> None:
            ahead.append(request)

    world = World(Mode.LEGACY)
    started = world.start(Options(caches=AGGRESSIVE))
    started.unit.observe(Watching())
    assert started.admit() == HOST | PAGE
    [request] = ahead
    next_page = (world.address & -0x1000) + 0x1000
    assert (request.source_id, request.address, request.access) == (
        world.source_id,
        next_page,
        READ,
    )
