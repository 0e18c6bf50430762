"""What a unit keeps by policy: all that chapter 6 permits, until an invalidation takes it."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from devices.dma import ATOMIC, READ, WRITE, AddressType, NoWrite
from pagetables.bits import BitRecord
from tests.support.interrupt_world import REMAPPED, TABLE, InterruptWorld
from tests.support.world import (
    HOLE,
    HOST,
    INTERRUPTS,
    PAGE,
    ROOT,
    SECOND_TABLES,
    STATUS,
    Mode,
    Started,
    World,
    capabilities,
)
from vtd.layouts.descriptors import (
    ContextCacheInvalidateDescriptor,
    DeviceTlbInvalidateDescriptor,
    InvalidationWaitDescriptor,
    IotlbInvalidateDescriptor,
    PasidCacheInvalidateDescriptor,
    PasidIotlbInvalidateDescriptor,
)
from vtd.layouts.interrupt_entries import RemappedIrte
from vtd.layouts.registers import (
    FaultStatus,
    InterruptRemappingTableAddress,
    RootTableAddress,
)
from vtd.unit.caching.policy import AGGRESSIVE, KEEPS_STALE, LATE, UNCACHED, CachePolicy
from vtd.unit.options import Options
from vtd.unit.reporting.events import RequestBlocked

DID = 5
ALL = Options(caches=AGGRESSIVE)
DOMAIN = IotlbInvalidateDescriptor.of(g=2, did=DID)
WAIT = InvalidationWaitDescriptor.of(sw=True, status_address=STATUS)


def start(world: World, options: Options = ALL) -> Started:
    started = world.start(options)
    started.enable_queue(wide=world.mode not in (Mode.LEGACY, Mode.LEGACY_PASS_THROUGH))
    return started


@pytest.mark.parametrize(("mode", "stage"), [(Mode.LEGACY, 2), (Mode.SECOND, 2), (Mode.FIRST, 1)])
@pytest.mark.parametrize(("am", "goes"), [(0, False), (1, False), (9, True)])
@pytest.mark.section("6.2.4.1", "6.5.3.2")
def test_a_large_page_may_be_kept_in_pieces(mode: Mode, stage: int, am: int, goes: bool) -> None:
    world = World(mode, first_size=21 if stage == 1 else 12, second_size=21)
    started = start(world)
    base = world.address & -0x20_0000
    one, other = (world.request._replace(address=base + page) for page in (0x1000, 0x5000))
    assert started.admit(one) == HOST + 0x1000
    assert started.admit(other) == HOST + 0x5000
    world.put("first2" if stage == 1 else "second2", 0)
    record = PasidIotlbInvalidateDescriptor if stage == 1 else IotlbInvalidateDescriptor
    started.submit(record.of(g=3, did=DID, am=am, addr=base + 0x1000))
    assert started.admit(one) is None
    assert (started.admit(other) is None) == goes


def ats(started: Started) -> bool:
    asked = started.world.request._replace(
        address_type=AddressType.TRANSLATION_REQUEST, length=8, access=READ
    )
    answer = started.unit.admit(asked)
    return not isinstance(answer, int) and any(each.r for each in answer.entries)


def asks(**changes: Any) -> Callable[[Started], bool]:
    return lambda started: started.admit(started.world.request._replace(**changes)) is not None


READS, WRITES, PRIVILEGED = asks(), asks(access=WRITE), asks(privileged=True)
NEXT = asks(address=0x7_C000_0000 | PAGE + 0x1000)
CONTEXT = [
    ContextCacheInvalidateDescriptor.of(g=1),
    IotlbInvalidateDescriptor.of(g=1),
]
PASID = [PasidCacheInvalidateDescriptor.of(g=3), DOMAIN]
LEGACY, SECOND, FIRST, NESTED = Mode.LEGACY, Mode.SECOND, Mode.FIRST, Mode.NESTED


class Refused(NamedTuple):
    """A structure that refuses a request, and one that is let through once it is repaired."""

    place: str
    mode: Mode
    wrong: Mapping[str, int]
    right: Mapping[str, int]
    owed: Sequence[BitRecord]
    first: Callable[[Started], bool] = READS
    second: Callable[[Started], bool] = READS
    pasid: int | None = None
    always: bool = False
    """Kept without caching mode as well: the entry grants something (6.2.5)."""


ABSENT, PRESENT = {"p": False}, {"p": True}
NOTHING, EVERYTHING = {"r": False, "w": False}, {"r": True, "w": True}
TOP = {"ssptptr": SECOND_TABLES}
REFUSED = [
    Refused("root", LEGACY, ABSENT, PRESENT, CONTEXT),
    Refused("context", LEGACY, ABSENT, PRESENT, CONTEXT),
    Refused("context", SECOND, ABSENT, PRESENT, CONTEXT),
    Refused("context", LEGACY, {"ssptptr": HOLE}, TOP, CONTEXT),
    Refused("context", LEGACY, {"ssptptr": HOLE}, TOP, CONTEXT, READS, NEXT),
    Refused("context", LEGACY, {"tt": 0}, {"tt": 1}, CONTEXT, ats, ats),
    Refused("context", SECOND, {"paside": 0}, {"paside": 1}, CONTEXT, pasid=0x45),
    Refused("pasid", FIRST, ABSENT, PRESENT, PASID),
    Refused("pasid", FIRST, {"sre": 0}, {"sre": 1}, PASID, PRIVILEGED, PRIVILEGED, pasid=0x45),
    Refused("second1", LEGACY, NOTHING, EVERYTHING, [DOMAIN]),
    Refused("second1", LEGACY, {"w": False}, EVERYTHING, [DOMAIN], WRITES, WRITES),
    Refused("second2", SECOND, {"w": False}, EVERYTHING, [DOMAIN], WRITES, WRITES, always=True),
    Refused("second1", NESTED, NOTHING, EVERYTHING, [DOMAIN]),
    Refused("second2", LEGACY, NOTHING, EVERYTHING, [DOMAIN], READS, NEXT),
    Refused("second2", SECOND, NOTHING, EVERYTHING, [DOMAIN], READS, NEXT),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: f"{case.place} {case.wrong}")
@pytest.mark.parametrize("cm", [0, 1])
@pytest.mark.section("6.1")
def test_what_refused_a_request_may_be_kept_in_caching_mode_until_it_is_invalidated(
    case: Refused, cm: int
) -> None:
    world = World(case.mode, capabilities(cm=cm), pasid=case.pasid)
    world.change(case.place, **case.wrong)
    started = start(world)
    assert not case.first(started)
    world.change(case.place, **case.right)
    assert case.second(started) != (cm or case.always)
    started.submit(*case.owed)
    assert case.second(started)


def test_faults_of_a_first_stage_are_never_kept() -> None:
    world = World(FIRST, capabilities(cm=1))
    world.change("first2", p=False)
    started = start(world)
    assert not READS(started)
    world.change("first2", p=True)
    assert READS(started)


def test_a_page_of_two_stages_that_denied_a_write_is_not_kept() -> None:
    world = World(NESTED, capabilities(cm=1))
    world.change("second1", w=False)
    started = start(world)
    assert not WRITES(started)
    world.change("second1", **EVERYTHING)
    assert WRITES(started)


@pytest.mark.parametrize("what", ["context", "pasid"])
@pytest.mark.section("6.2.1")
def test_entries_that_faulted_are_tagged_with_domain_0(what: str) -> None:
    world = World(SECOND if what == "pasid" else LEGACY, capabilities(cm=1))
    world.change(what, p=False)
    started = start(world)
    assert not READS(started)
    world.change(what, p=True)
    for did, reaches in ((DID, False), (0, True)):
        if what == "pasid":
            started.submit(PasidCacheInvalidateDescriptor.of(g=1, did=did, pasid=0))
        else:
            started.submit(ContextCacheInvalidateDescriptor.of(g=3, did=did, sid=world.source_id))
        assert READS(started) == reaches


BAD_ENTRIES = (
    REMAPPED.replace(p=False),
    RemappedIrte(REMAPPED | 1 << 90),
    REMAPPED.replace(sid=0x0200),
)


@pytest.mark.parametrize("cm", [0, 1])
@pytest.mark.parametrize("entry", BAD_ENTRIES, ids=["not present", "reserved", "other source"])
@pytest.mark.section("6.1")
def test_interrupt_entries_that_faulted_may_be_kept_in_caching_mode(
    entry: RemappedIrte, cm: int
) -> None:
    world = InterruptWorld(unit=capabilities(cm=cm), entry=entry)
    started = world.start(ALL)
    assert started.send() is None
    world.put_entry(REMAPPED)
    assert (started.send() is None) == bool(cm)
    started.unit.interrupts.invalidate(5, 1)
    assert started.send() is not None


@pytest.mark.section("6.2.4.1")
def test_a_cached_right_that_is_missing_denies_but_for_a_dirty_flag() -> None:
    world = World(FIRST)
    started = start(world)
    assert READS(started) and WRITES(started)  # D was missing, the right was not
    world = World(FIRST)
    world.change("first1", rw=False)
    started = start(world)
    assert READS(started)
    world.change("first1", rw=True)
    assert not WRITES(started)
    started.submit(PasidIotlbInvalidateDescriptor.of(g=2, did=DID))
    assert WRITES(started)
    assert world.get("first1").d


@pytest.mark.parametrize("mode", [FIRST, SECOND, NESTED])
@pytest.mark.section("3.6.2", "3.7.2")
def test_a_write_needs_no_table_where_the_page_that_was_read_is_dirty(mode: Mode) -> None:
    world = World(mode)
    if mode is not FIRST:
        world.change("pasid", ssade=True)
    leaves = [name for name in ("first1", "second1") if name in world.places]
    for name in leaves:
        world.change(name, a=True, d=True)
    started = start(world, Options(caches=KEEPS_STALE))
    assert READS(started)
    for name in leaves:
        world.put(name, 0)
    assert WRITES(started)


@pytest.mark.section("6.2.4.1")
def test_a_right_that_was_granted_since_is_found_unless_the_policy_trusts_the_cache() -> None:
    for caches, found in ((CachePolicy(), True), (CachePolicy(trust_cached_rights=True), False)):
        world = World(FIRST)
        world.change("first1", rw=False)
        started = start(world, Options(caches=caches))
        assert READS(started)
        world.change("first1", rw=True)
        assert WRITES(started) == found


@pytest.mark.section("6.1", "6.5.2.3")
def test_a_page_that_faulted_is_kept_by_its_own_address() -> None:
    world = World(LEGACY, capabilities(cm=1))
    world.change("second1", **NOTHING)
    caches = CachePolicy(cache_faults=True, trust_cached_rights=True)
    started = start(world, Options(caches=caches))
    assert not READS(started)
    world.change("second1", **EVERYTHING)
    for page, known in ((world.address + 0x1000, True), (world.address, False)):
        started.submit(IotlbInvalidateDescriptor.of(g=3, did=DID, addr=page))
        assert READS(started) != known


@pytest.mark.parametrize("cm", [0, 1])
@pytest.mark.section("6.1", "6.2.4.1")
def test_an_address_out_of_range_may_be_kept_in_caching_mode(cm: int) -> None:
    world = World(Mode.LEGACY_PASS_THROUGH, capabilities(cm=cm))
    world.change("context", aw=1)
    started = start(world)
    beyond = asks(address=1 << 40)
    assert not beyond(started)
    world.change("context", aw=2)
    started.submit(ContextCacheInvalidateDescriptor.of(g=1))
    assert beyond(started) == (not cm)
    started.submit(DOMAIN)
    assert beyond(started)


def test_what_is_cached_for_a_refused_read_does_not_spare_a_dirty_flag() -> None:
    world = World(SECOND, capabilities(cm=1))
    world.change("pasid", ssade=True)
    world.change("second1", r=False)
    started = start(world)
    assert not READS(started)
    assert WRITES(started)
    assert world.get("second1").d


ASKS = {"address_type": AddressType.TRANSLATION_REQUEST, "length": 8, "access": READ}
FLUSHES = {"access": READ, "length": 0}
USES: list[dict[str, Any]] = [
    {"access": READ},
    FLUSHES,
    {"access": WRITE},
    {"access": ATOMIC},
    ASKS,
    {**ASKS, "payload": NoWrite()},
]


@given(
    mode=st.sampled_from([LEGACY, SECOND, NESTED]),
    cm=st.booleans(),
    rights=st.fixed_dictionaries({"r": st.booleans(), "w": st.booleans()}),
    ssade=st.booleans(),
    uses=st.lists(st.sampled_from(USES), min_size=2, max_size=5),
)
@example(SECOND, True, {"r": False, "w": True}, True, [{"access": READ}, ASKS])
@example(SECOND, False, {"r": False, "w": True}, True, [FLUSHES, FLUSHES])
@example(SECOND, False, {"r": False, "w": True}, True, [FLUSHES, {"access": ATOMIC}])
@pytest.mark.section("4.2.3", "6.2.4.1")
def test_what_is_cached_changes_no_use_of_a_page_whose_tables_stay(
    mode: Mode, cm: bool, rights: dict[str, bool], ssade: bool, uses: list[dict[str, Any]]
) -> None:
    def outcomes(options: Options) -> list[object]:
        world = World(mode, capabilities(cm=cm))
        world.change("second1", **rights)
        if mode is LEGACY:
            world.change("context", tt=1)
        else:
            world.change("pasid", ssade=ssade)
        started = start(world, options)
        met: list[object] = [started.unit.admit(world.request._replace(**use)) for use in uses]
        met += [each.reason for each in started.events if isinstance(each, RequestBlocked)]
        return [*met, world.get("second1")]

    assert outcomes(ALL) == outcomes(Options(caches=UNCACHED))


@pytest.mark.section("6.2.4")
def test_the_page_behind_one_that_is_used_may_be_known_too() -> None:
    world = World(LEGACY)
    for options, known in ((Options(caches=KEEPS_STALE), False), (ALL, True)):
        world.change(f"second1 {PAGE + 0x1000:#x}", r=True)
        started = start(world, options)
        assert READS(started)
        world.change(f"second1 {PAGE + 0x1000:#x}", r=False, w=False)
        assert NEXT(started) == known
        started.submit(DOMAIN)
        assert not NEXT(started)


def test_only_pages_that_are_not_known_are_looked_up_ahead() -> None:
    world = World(LEGACY)
    started = start(world, Options(caches=CachePolicy(prefetched_pages=1)))
    assert NEXT(started)
    made = started.unit.caches.iotlb.counters.insertions
    assert READS(started)
    assert started.unit.caches.iotlb.counters.insertions == made + 1
    world = World(Mode.LEGACY_PASS_THROUGH)
    started = start(world, Options(caches=CachePolicy(prefetched_pages=1)))
    assert asks(address=INTERRUPTS - 0x1000)(started)
    assert len(started.unit.caches.iotlb) == 1


@pytest.mark.section("6.2.4.1")
def test_looking_ahead_sets_no_flag_and_reports_no_fault() -> None:
    world = World(SECOND, capabilities(cm=0))
    world.change("pasid", ssade=True)
    started = start(world)
    assert READS(started)
    assert not world.get(f"second1 {PAGE + 0x1000:#x}").a
    assert len(started.unit.caches.iotlb) == 1  # A first, then the cache (6.2.4.1)
    world = World(LEGACY)
    world.put(f"second1 {PAGE + 0x1000:#x}", 0)
    started = start(world)
    assert READS(started)
    assert not started.record().f and not started.events


@pytest.mark.parametrize("right_order", [True, False])
@pytest.mark.section("6.2.2.1")
def test_a_cache_may_be_filled_again_between_two_descriptors(right_order: bool) -> None:
    world = World(SECOND)
    started = start(world)
    assert started.admit() == HOST | PAGE
    world.memory.write(0x1B000, world.memory.read(SECOND_TABLES, 0x1000))
    world.change("pasid", did=6, ssptptr=0x1B000)
    ordered = [PasidCacheInvalidateDescriptor.of(g=0, did=DID), DOMAIN]
    started.submit(*(ordered if right_order else reversed(ordered)))
    domains = {entry.tags.domain_id for _, entry in started.unit.caches.iotlb}
    assert domains == (set() if right_order else {DID})
    started.submit(DOMAIN)
    assert started.admit() == HOST | PAGE
    assert {entry.tags.domain_id for _, entry in started.unit.caches.iotlb} == {6}


@pytest.mark.section("6.5.2.12")
def test_late_invalidations_take_effect_with_the_wait_descriptor() -> None:
    world = World(LEGACY)
    started = start(world, Options(caches=LATE))
    assert READS(started)
    world.change("second1", r=False, w=False)
    started.submit(DOMAIN)
    assert READS(started)
    assert started.head == 16
    again = pickle.loads(pickle.dumps(started.unit))
    assert again.queue.pending == [DOMAIN]
    started.submit(WAIT)
    assert not READS(started)
    assert world.memory.read(STATUS, 4) == bytes(4)


@pytest.mark.parametrize("by", ["device-TLB", "queue off"])
@pytest.mark.section("6.5.2.12")
def test_late_invalidations_precede_what_must_come_after_them(by: str) -> None:
    world = World(SECOND)
    started = start(world, Options(caches=LATE))
    assert READS(started)
    world.change("second1", r=False, w=False)
    started.submit(DOMAIN)
    assert READS(started)
    if by == "device-TLB":
        started.submit(DeviceTlbInvalidateDescriptor.of(sid=world.source_id))
    else:
        started.command(qie=False)
    assert not READS(started)


def test_a_late_descriptor_that_is_not_valid_is_an_error_at_once() -> None:
    started = start(World(LEGACY), Options(caches=LATE))
    started.submit(IotlbInvalidateDescriptor.of(g=0))
    assert started.unit.registers[FaultStatus].iqe
    assert started.head == 0
    assert not started.unit.queue.pending


@pytest.mark.parametrize("esrtps", [0, 1])
@pytest.mark.section("6.6")
def test_a_running_unit_may_use_the_old_root_table_until_the_global_invalidation(
    esrtps: int,
) -> None:
    world = World(LEGACY, capabilities(esrtps=esrtps))
    started = start(world)
    started.set_root(RootTableAddress.of(rta=0x7000))
    assert READS(started) == (not esrtps)
    assert started.unit.registers[RootTableAddress].rta == 0x7000
    started.submit(ContextCacheInvalidateDescriptor.of(g=2, did=DID))
    assert READS(started) == (not esrtps)
    started.submit(ContextCacheInvalidateDescriptor.of(g=1), IotlbInvalidateDescriptor.of(g=1))
    assert not READS(started)
    started.command(te=False)
    started.set_root(RootTableAddress.of(rta=ROOT))
    started.command(te=True)
    assert READS(started) or not esrtps  # not running: no old table is in use


@pytest.mark.section("6.6")
def test_an_old_root_table_is_out_of_use_once_translation_was_off() -> None:
    started = start(World(LEGACY, capabilities(esrtps=0)))
    started.set_root(RootTableAddress.of(rta=0x7000))
    assert READS(started)
    started.command(te=False)
    started.command(te=True)
    assert not READS(started)


@pytest.mark.parametrize("esirtps", [0, 1])
@pytest.mark.section("6.7")
def test_a_running_unit_may_use_the_old_interrupt_table_until_the_global_invalidation(
    esirtps: int,
) -> None:
    world = InterruptWorld(unit=capabilities(esirtps=esirtps))
    started = world.start(ALL)
    address = InterruptRemappingTableAddress.of(irta=TABLE + 0x2000, s=7)
    started.unit.write_register(0xB8, 8, address)
    started.command(sirtp=True)
    assert (started.send() is not None) == (not esirtps)
    started.unit.interrupts.invalidate(5, 1)
    assert (started.send() is not None) == (not esirtps)
    started.unit.interrupts.clear()
    assert started.send() is None


def test_a_policy_without_them_has_none_of_these() -> None:
    defaults = KEEPS_STALE
    assert not (defaults.fractured or defaults.prefetched_pages or defaults.refills)
    assert not (defaults.old_pointers or defaults.late or defaults.cache_faults)
    assert replace(LATE, late=False) == AGGRESSIVE
