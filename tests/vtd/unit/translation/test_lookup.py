"""From source-id and PASID to tables: which structures are read, errors on the way, caches."""

import pytest

from devices.dma import READ, WRITE, Request
from pagetables.observer import Structure
from tests.support.world import (
    CONTEXT,
    HOST,
    LEGACY_MODES,
    PAGE,
    SCALABLE_MODES,
    Mode,
    World,
    capabilities,
)
from vtd.inspection.injection import FailRead
from vtd.layouts.entries import PasidTranslationType
from vtd.layouts.registers import TranslationTableMode
from vtd.unit.caching.policy import POLICIES, UNCACHED, CachePolicy
from vtd.unit.observer import Observer
from vtd.unit.options import Options
from vtd.unit.requests.faults import FaultReason
from vtd.unit.translation.lookup import lookup

SECOND = [0x7B, 0x78, 0x78, 0x78]
EXPECTED = {
    Mode.LEGACY: [0x08, 0x09, 0x03, 0x07, 0x07, 0x07],
    Mode.LEGACY_PASS_THROUGH: [0x08, 0x09],
    Mode.FIRST: [0x38, 0x40, 0x50, 0x58, 0x73, 0x70, 0x70, 0x70],
    Mode.SECOND: [0x38, 0x40, 0x50, 0x58, *SECOND],
    Mode.NESTED: [
        *(0x38, 0x40, 0x50, 0x58),
        *(*SECOND, 0x73, *SECOND, 0x70, *SECOND, 0x70, *SECOND, 0x70),
        *SECOND,
    ],
    Mode.PASS_THROUGH: [0x38, 0x40, 0x50, 0x58],
}
"""Fault reasons of the reads of a translation in their order; nested tables take 24 of them."""


class Counter(Observer):
    """Counts the structures that a unit reads."""

    count = 0

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        self.count += 1


@pytest.mark.parametrize("mode", Mode)
def test_an_error_at_each_read_has_its_own_fault(mode: Mode) -> None:
    world = World(mode)
    started = world.start(Options(caches=UNCACHED))
    assert started.admit() == HOST | PAGE  # now the accessed flags are set
    flags_set = world.memory.snapshot()
    counter = Counter()
    started.unit.observe(counter)
    assert started.admit() == HOST | PAGE
    started.unit.ignore(counter)
    assert counter.count == len(EXPECTED[mode])
    for number, reason in enumerate(EXPECTED[mode], 1):
        broken = FailRead(number)
        started.unit.observe(broken)
        record = started.refusal()
        assert record is not None
        assert record.fr == reason
        assert world.memory.snapshot() == flags_set
        started.unit.ignore(broken)
        assert started.admit() == HOST | PAGE


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("mode", Mode)
def test_an_error_leaves_nothing_behind_in_any_cache(mode: Mode, policy: str) -> None:
    for number in range(1, len(EXPECTED[mode]) + 1):
        world = World(mode)
        started = world.start(Options(caches=POLICIES[policy]))
        broken = FailRead(number)
        started.unit.observe(broken)
        failed = started.admit() is None
        reads_ahead = POLICIES[policy].prefetched_pages and not failed
        assert failed == (broken.count >= number) or reads_ahead  # caches spare some reads
        started.unit.ignore(broken)
        assert started.admit() == HOST | PAGE


@pytest.mark.parametrize("mode", [Mode.FIRST, Mode.NESTED])
def test_a_failing_update_of_each_flag_is_91h(mode: Mode) -> None:
    updates: list[int] = []
    world = World(mode)
    world.ask(access=WRITE)

    def note(kind: str, address: int, size: int, value: int) -> None:
        if kind == "update":
            updates.append(address)

    world.hook = note
    assert world.start(Options(caches=UNCACHED)).admit() is not None
    assert len(updates) == 5  # A in four entries, D in the last
    for address in updates:
        world = World(mode)
        world.ask(access=WRITE)
        world.make_read_only(address >> 12)
        record = world.start().refusal()
        assert record is not None and record.fr == FaultReason.FS_UPDATE_ERROR


@pytest.mark.parametrize("source_id", [0x0000, 0x007F, 0x0080, 0x01FF, 0xFFFF])
@pytest.mark.parametrize("mode", Mode)
@pytest.mark.section("3.4.2")
def test_bus_and_function_select_the_entries(mode: Mode, source_id: int) -> None:
    world = World(mode, source_id=source_id)
    started = world.start()
    assert started.admit() == HOST | PAGE
    assert started.admit(world.request._replace(source_id=source_id ^ 0x8000)) is None
    if source_id & 0xFF != 0x7F:
        assert started.admit(world.request._replace(source_id=source_id ^ 1)) is None


@pytest.mark.parametrize("mode", SCALABLE_MODES)
@pytest.mark.parametrize("pasid", [0, 1, 63, 64, 0x45, 0x7FFF])
@pytest.mark.section("3.4.3")
def test_pasids_index_directory_and_table(mode: Mode, pasid: int) -> None:
    rid_pasid = 0x10 if pasid == 0 else 0
    world = World(mode, pasid=pasid, rid_pasid=rid_pasid)
    assert world.start().admit() == HOST | PAGE


@pytest.mark.parametrize("mode", SCALABLE_MODES)
@pytest.mark.section("3.4.3")
def test_requests_without_pasid_use_rid_pasid_and_rid_priv(mode: Mode) -> None:
    world = World(mode, rid_pasid=0x45)
    world.change("context", rid_priv=True)
    world.change("pasid", sre=True)
    if mode is Mode.FIRST:
        world.change("first1", us=False)
    started = world.start()
    assert started.admit() == HOST | PAGE
    target, privileged = lookup(started.unit.remapping, world.request)
    assert (target.pasid, privileged) == (0x45, True)


@pytest.mark.parametrize("mode", LEGACY_MODES)
@pytest.mark.section("3.4.2")
def test_legacy_mode_knows_no_pasid(mode: Mode) -> None:
    world = World(mode)
    target, privileged = lookup(world.start().unit.remapping, world.request)
    assert (target.pasid, privileged, target.domain_id) == (0, False, 5)
    assert (target.kind is PasidTranslationType.PASS_THROUGH) == (mode is Mode.LEGACY_PASS_THROUGH)


def test_only_structures_on_the_way_are_read() -> None:
    """Reserved bits of the other half of a root entry and of ignored fields do not matter."""
    world = World(Mode.SECOND)
    world.set_bits("root", 1 << 64 | 0xFFE << 64)
    world.change("pasid", fspm=3, fsptptr=0x3000, wpe=True, eafe=True)
    assert world.start().admit() == HOST | PAGE
    world = World(Mode.FIRST)
    world.change("pasid", aw=7, ssptptr=0x3000, ssade=True, emte=True)
    assert world.start().admit() == HOST | PAGE


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.section("9.2")
@pytest.mark.fault("SRT.3 u")
def test_reserved_bits_count_in_the_half_of_the_root_entry_that_a_device_has(upper: bool) -> None:
    world = World(Mode.PASS_THROUGH, source_id=0x0180 if upper else 0x0108)
    if upper:  # devices 16 to 31 begin their table anew
        world.change("root", uctp=CONTEXT)
        world.add("context", CONTEXT, world.get("context"))
    reserved = [bit for bit in range(128) if not 12 <= bit % 64 < 46 and bit % 64]
    valid, started = world.get("root"), world.start()
    for bit in reserved:
        world.put("root", valid | 1 << bit)
        started.unit.caches.clear()
        record = started.refusal()
        assert (record is not None) == (upper == (bit >= 64)), bit
        assert record is None or record.fr == 0x3A


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.section("6.2.2", "6.2.3")
def test_context_and_pasid_entries_are_cached_without_faulting_ones(mode: Mode) -> None:
    world = World(mode)
    started = world.start(Options(caches=CachePolicy(iotlb=UNCACHED.iotlb)))
    caches = started.unit.caches
    place = "context" if mode in LEGACY_MODES else "pasid"
    kept = world.get(place)
    world.put(place, 0)
    assert started.admit() is None
    world.put(place, kept)
    assert started.admit() == HOST | PAGE
    world.put(place, 0)
    assert started.admit() == HOST | PAGE
    assert caches.context.counters.hits >= 1
    caches.clear()
    assert started.admit() is None


@pytest.mark.parametrize("mode", Mode)
def test_each_lookup_in_the_context_and_the_pasid_cache_counts_once(mode: Mode) -> None:
    started = World(mode).start(Options(caches=CachePolicy(iotlb=UNCACHED.iotlb)))
    for _ in range(4):
        assert started.admit() == HOST | PAGE
    context, pasid = started.unit.caches.context.counters, started.unit.caches.pasid.counters
    assert (context.misses, context.hits) == (1, 3)
    assert (pasid.misses, pasid.hits) == ((0, 0) if mode in LEGACY_MODES else (1, 3))


def test_entries_of_the_other_mode_are_not_taken_from_the_context_cache() -> None:
    """SRTP to another mode without ESRTPS leaves them there until software invalidates (6.6)."""
    old, new = World(Mode.LEGACY, capabilities(esrtps=0)), World(Mode.SECOND)
    for first, second in ((old, new), (new, old)):
        world = World(first.mode, capabilities(esrtps=0))
        started = world.start(Options(caches=CachePolicy(iotlb=UNCACHED.iotlb)))
        assert started.admit() == HOST | PAGE
        other = World(second.mode)
        started.unit.remapping.memory = other.memory
        started.set_root(other.root)
        assert started.admit(other.request) == HOST | PAGE
        assert started.admit(Request(world.source_id, 1 << 60, READ)) is None


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.section("11.4.4.1")
def test_a_new_mode_counts_whatever_is_known_of_a_device(mode: Mode) -> None:
    world = World(mode, capabilities(esrtps=0))
    started = world.start(Options(caches=CachePolicy(iotlb=UNCACHED.iotlb)))
    assert started.admit() == HOST | PAGE
    started.set_root(world.root.replace(ttm=TranslationTableMode.ABORT_DMA))
    record = started.refusal()
    assert record is not None and record.fr == FaultReason.ABORT_DMA


def test_decoded_entries_are_kept_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtd.unit.translation.lookup.REMEMBERED", 3)
    world = World(Mode.SECOND)
    started = world.start(Options(caches=UNCACHED))
    for domain_id in range(1, 9):
        world.change("pasid", did=domain_id)
        world.change("context", pdts=domain_id % 8)
        assert started.admit() == HOST | PAGE
        assert 1 <= len(started.unit.remapping.targets) <= 3
        assert 1 <= len(started.unit.remapping.records) <= 3
