"""Performance counters: equal to a count made by others, frozen, overflowing, filtered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.dma import AddressType, PageRequest
from devices.interrupt_messages import RemappableAddress
from pagetables.observer import Structure
from tests.support.world import HOST, PAGE, Mode, Started, World, capabilities
from vtd.layouts import registers as r
from vtd.layouts.entries import (
    HostPermissionL2Entry,
    HostPermissionL3Entry,
    HostPermissionL4Entry,
)
from vtd.layouts.interrupt_entries import PostedIrte, RemappedIrte
from vtd.unit.caching.policy import AGGRESSIVE
from vtd.unit.interrupts.outcome import Message
from vtd.unit.monitoring.activity import LEVELS, PerformanceEvent
from vtd.unit.monitoring.performance import capability_registers
from vtd.unit.observer import CacheName, Observer
from vtd.unit.options import Options
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.reporting.events import PageGroupResponseSent, PageRequestReceived
from vtd.unit.unit import RemappingUnit

TABLE_49 = (
    "iommu_clocks:0 iommu_requests:1",
    "iommu_mrds:0 iommu_atomic_ad_update:3 pg_req_posted:6 pg_req_overflow:7",
    "ctxt_cache_lookup:0 ctxt_cache_hit:1 pasid_cache_lookup:2 pasid_cache_hit:3"
    " ss_nonleaf_lookup:4 ss_nonleaf_hit:5 fs_nonleaf_lookup:6 fs_nonleaf_hit:7"
    " hpt_nonleaf_lookup:8 hpt_nonleaf_hit:9",
    "iotlb_lookup:0 iotlb_hit:1 hpt_leaf_lookup:2 hpt_leaf_hit:3",
    "int_cache_lookup:0 int_cache_hit_nonposted:1 int_cache_hit_posted:2",
)
"""Each event that is modelled, with its bit, by group."""
UNIT = capabilities(ecmds=1, pms=1, fro=0x240)
CONFIGURATION, COUNTERS = 0x600, 0x1000
ENABLE, DISABLE, RESET_CONFIGURATION, RESET_VALUES, FREEZE, UNFREEZE = range(240, 246)
SUCCESS, UNDEFINED, FAILED = 0, 1, 16
EVENT = Message(0xFEE0_4000, 0x81)
INTERRUPT_TABLE, DESCRIPTOR, QUEUE = 0x1E000, 0x1F000, 0x1D000
E = PerformanceEvent
SETS = (
    (E.IOMMU_REQUESTS, E.IOMMU_MRDS, E.IOMMU_ATOMIC_AD_UPDATE, E.PG_REQ_POSTED, E.PG_REQ_OVERFLOW,
     E.CTXT_CACHE_LOOKUP, E.CTXT_CACHE_HIT, E.PASID_CACHE_LOOKUP, E.PASID_CACHE_HIT),
    (E.SS_NONLEAF_LOOKUP, E.SS_NONLEAF_HIT, E.FS_NONLEAF_LOOKUP, E.FS_NONLEAF_HIT, E.IOTLB_LOOKUP,
     E.IOTLB_HIT, E.INT_CACHE_LOOKUP, E.INT_CACHE_HIT_NONPOSTED, E.INT_CACHE_HIT_POSTED),
)  # fmt: skip


class Bench:
    """A started world on a unit with counters."""

    def __init__(
        self,
        constants: Mapping[int, int] | None = None,
        unit: Capabilities = UNIT,
        world: World | None = None,
    ) -> None:
        world = world or World(Mode.NESTED, unit, pasid=0x45)
        world.change("context", pre=True)
        constants = capability_registers(9) if constants is None else constants
        options = Options(caches=AGGRESSIVE)
        self.world = world
        self.unit = world.join(RemappingUnit(unit, world.memory, options, constants))
        self.started = Started(world, self.unit)
        self.started.set_root(world.root)
        self.started.command(te=True)
        self.port = self.started.port()

    def configure(self, number: int, group: int, events: int, **flags: int) -> None:
        value = r.PerformanceMonitoringCounterConfiguration.of(egi=group, es=events, **flags)
        self.unit.write_register(CONFIGURATION + 0x100 * number, 8, value)

    def command(self, code: int, operand: int = 0) -> int:
        self.unit.write_register(0x400, 8, operand << 16 | code)
        response = r.EnhancedCommandResponse(self.unit.read_register(0x410, 8))
        assert not response.ip
        return response.sc

    def enable(self, *events: PerformanceEvent, **flags: int) -> None:
        """One counter for each event, from 0 on."""
        for number, event in enumerate(events):
            group, bit = event.value
            self.configure(number, group, 1 << bit, **flags)
            assert self.command(ENABLE, number) == SUCCESS

    def value(self, number: int = 0) -> int:
        return self.unit.read_register(COUNTERS + 0x400 * number, 8)

    def set_value(self, value: int, number: int = 0) -> None:
        self.unit.write_register(COUNTERS + 0x400 * number, 8, value)

    def page_request(self, last: bool = True) -> None:
        self.port.page_request(PageRequest(0x5000, True, False, 1, last, self.world.request.pasid))

    def overflowed(self) -> int:
        return self.unit.read_register(CONFIGURATION + 0x900 + 0x10, 8)

    def frozen(self) -> int:
        return self.unit.read_register(CONFIGURATION + 0x900, 8)


CACHES = {
    CacheName.CONTEXT: (E.CTXT_CACHE_LOOKUP, E.CTXT_CACHE_HIT),
    CacheName.PASID: (E.PASID_CACHE_LOOKUP, E.PASID_CACHE_HIT),
    CacheName.SECOND_STAGE: (E.SS_NONLEAF_LOOKUP, E.SS_NONLEAF_HIT),
    CacheName.FIRST_STAGE: (E.FS_NONLEAF_LOOKUP, E.FS_NONLEAF_HIT),
    CacheName.IOTLB: (E.IOTLB_LOOKUP, E.IOTLB_HIT),
    CacheName.INTERRUPT: (E.INT_CACHE_LOOKUP, E.INT_CACHE_HIT_NONPOSTED),
    CacheName.HOST_PERMISSION: (E.HPT_LEAF_LOOKUP, E.HPT_LEAF_HIT),
    CacheName.HOST_PERMISSION_TABLE: (E.HPT_NONLEAF_LOOKUP, E.HPT_NONLEAF_HIT),
}


class IndependentCount(Observer):
    """Counts what the unit lets be seen, with nothing of its own counters."""

    def __init__(self, bench: Bench) -> None:
        self.counts: Counter[PerformanceEvent] = Counter()
        bench.unit.observe(self)
        bench.unit.subscribe(self._event)

    def asked(self, cache: CacheName, key: Any, entry: object | None) -> None:
        lookup, hit = CACHES[cache]
        self.counts[lookup] += 1
        posted = isinstance(entry, PostedIrte)
        self.counts[E.INT_CACHE_HIT_POSTED if posted else hit] += entry is not None

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        self.counts[E.IOMMU_MRDS] += 1

    def update(self, structure: Structure, address: int, size: int, old: int, new: int) -> None:
        self.counts[E.IOMMU_ATOMIC_AD_UPDATE] += size == 8

    def _event(self, event: object) -> None:
        if isinstance(event, PageRequestReceived):
            self.counts[E.PG_REQ_POSTED] += event.queued
        if isinstance(event, PageGroupResponseSent):
            self.counts[E.PG_REQ_OVERFLOW] += event.automatic and event.response.code == 0


def prepare_interrupts(bench: Bench) -> None:
    memory = bench.world.memory
    memory.write(INTERRUPT_TABLE, RemappedIrte.of(p=True, v=0x41).pack())
    posted = PostedIrte.of(p=True, im=True, vv=0x42, pdal=DESCRIPTOR)
    memory.write(INTERRUPT_TABLE + 16, posted.pack())
    bench.unit.write_register(0xB8, 8, INTERRUPT_TABLE | 7)
    bench.started.command(sirtp=True)
    bench.started.command(ire=True)


def _post_wait(bench: Bench) -> None:
    tail = bench.unit.read_register(0x88, 8)
    bench.world.memory.write(QUEUE + tail, (5).to_bytes(32, "little"))
    bench.unit.write_register(0x88, 8, (tail + 32) % 0x1000)


def _send_interrupt(bench: Bench, index: int) -> None:
    bench.port.write(RemappableAddress.for_handle(index, shv=False), bytes(4))


def act(bench: Bench, action: str, number: int) -> AddressType | None:
    """One thing that a device or software does; the kind of DMA request it was, if any."""
    port, pasid = bench.port, bench.world.request.pasid
    address = bench.world.request.address + number * 0x1000
    does: dict[str, Callable[[], object]] = {
        "read": lambda: port.read(address, 4, pasid=pasid),
        "write": lambda: port.write(address, b"1234", pasid=pasid),
        "translate": lambda: port.translate(address, 1 + number, pasid=pasid),
        "translated": lambda: port.read_translated(HOST | PAGE, 4),
        "page": lambda: bench.page_request(last=bool(number & 1)),
        "interrupt": lambda: _send_interrupt(bench, number),
        "invalidate": lambda: bench.unit.caches.invalidate_iotlb_domain(5),
        "queue": lambda: _post_wait(bench),
    }
    does[action]()
    kinds = {
        "read": AddressType.UNTRANSLATED,
        "write": AddressType.UNTRANSLATED,
        "translate": AddressType.TRANSLATION_REQUEST,
        "translated": AddressType.TRANSLATED,
    }
    return kinds.get(action)


ACTIONS = ["read", "write", "translate", "translated", "page", "interrupt", "invalidate", "queue"]


@pytest.mark.parametrize("events", SETS, ids=["requests", "caches"])
@given(
    actions=st.lists(
        st.tuples(st.sampled_from([*ACTIONS, "freeze", "unfreeze"]), st.integers(0, 4)), max_size=40
    )
)
@pytest.mark.section("10.3", "10.7")
def test_counters_equal_an_independent_count(
    events: tuple[PerformanceEvent, ...], actions: list[tuple[str, int]]
) -> None:
    bench = Bench()
    for offset, value in ((0xC0, 0x60), (0xD0, QUEUE - 0x1000), (0x90, QUEUE | 1 << 11)):
        bench.unit.write_register(offset, 8, value)
    prepare_interrupts(bench)
    bench.started.command(qie=True)
    bench.enable(*events)
    count = IndependentCount(bench)
    expected: Counter[PerformanceEvent] = Counter()
    frozen = False
    for action, number in actions:
        before = count.counts.copy()
        if action in {"freeze", "unfreeze"}:
            frozen = action == "freeze"
            bench.command(FREEZE if frozen else UNFREEZE)
        elif act(bench, action, number) is not None:
            count.counts[E.IOMMU_REQUESTS] += 1
        if not frozen:
            expected += count.counts - before
        assert [bench.value(each) for each in range(9)] == [expected[event] for event in events]


@pytest.mark.section("11.4.13.20")
def test_page_table_levels_have_the_bits_of_the_filter() -> None:
    assert {12 + 9 * bit: bit for bit in range(5)} == LEVELS


@pytest.mark.section("10.7")
def test_events_have_the_numbers_of_table_49() -> None:
    numbers: dict[tuple[int, int], str] = {}
    for group, names in enumerate(TABLE_49):
        for event in names.split():
            name, _, bit = event.rpartition(":")
            numbers[group, int(bit)] = name
    assert {event.value: event.name.lower() for event in E} == numbers


def test_hits_are_counted_one_by_one_only_while_somebody_counts() -> None:
    world = World(Mode.SECOND, UNIT)
    bench = Bench(world=world)
    port, address = bench.port, world.request.address
    world.memory.write(HOST | PAGE, b"data")
    assert port.read(address, 4).data == b"data"
    assert bench.unit.hits_are_final
    bench.enable(E.IOTLB_HIT, E.IOMMU_REQUESTS)
    for _ in range(5):
        assert port.read(address, 4).data == b"data"
    assert (bench.value(0), bench.value(1)) == (5, 5)
    bench.command(DISABLE, 0)
    assert not bench.unit.hits_are_final
    bench.command(DISABLE, 1)
    assert bench.unit.hits_are_final
    assert port.read(address, 4).data == b"data"
    assert (bench.value(0), bench.value(1)) == (5, 5)


@given(
    st.sets(st.sampled_from(list(AddressType))),
    st.lists(st.sampled_from(["read", "translate", "translated", "page"])),
)
@pytest.mark.section("10.4", "11.4.13.19")
@pytest.mark.fields("PerformanceMonitoringAddressTypeFilter.en.at")
def test_the_address_type_filter_selects_requests(
    kinds: set[AddressType], actions: list[str]
) -> None:
    bench = Bench()
    mask = sum(1 << kind for kind in kinds)
    bench.configure(0, 0, 1 << 1)
    bench.unit.write_register(CONFIGURATION + 0x14, 4, 1 << 31 | mask)
    assert bench.command(ENABLE) == SUCCESS
    sent = [act(bench, action, 0) for action in actions]
    assert bench.value() == sum(kind in kinds for kind in sent if kind is not None)


@given(st.integers(0, 255), st.integers(1, 20))
@pytest.mark.section("10.3.1", "11.4.13.23")
@pytest.mark.fields(
    "PerformanceMonitoringCapability.cw",
    "PerformanceMonitoringCounter.cntr",
    "PerformanceMonitoringOverflowStatus.os",
)
def test_a_counter_rolls_over_at_its_width(start: int, count: int) -> None:
    bench = Bench(capability_registers(2, width=8))
    bench.enable(E.PG_REQ_POSTED)
    bench.set_value(0xABCD_0000_0000_0000 | start)
    for _ in range(count):
        bench.page_request()
    assert bench.value() == (start + count) % 256
    status = bench.unit.read_register(0x600 + 0x200 + 0x10, 8)
    assert status == (start + count > 255)
    bench.unit.write_register(0x600 + 0x200 + 0x10, 8, 1)
    assert bench.unit.read_register(0x600 + 0x200 + 0x10, 8) == 0


@pytest.mark.section("11.4.13.15")
def test_several_events_are_added_up() -> None:
    bench = Bench()
    bench.configure(0, 3, 0b11)
    assert bench.command(ENABLE) == SUCCESS
    for _ in range(3):
        act(bench, "read", 0)
    assert bench.value() == 3 + 2


@pytest.mark.section("10.6", "11.4.13.13")
@pytest.mark.fields("PerformanceMonitoringInterruptStatus.pis")
def test_an_overflow_may_send_an_interrupt() -> None:
    bench = Bench()
    unit = bench.unit
    for offset, value in ((0x32C, EVENT.data), (0x330, EVENT.address), (0x328, 0)):
        unit.write_register(offset, 4, value)
    bench.enable(E.PG_REQ_POSTED, io=True)
    for expected in (1, 2):
        bench.set_value((1 << 48) - 1)
        bench.page_request()
        assert unit.read_register(0x324, 4) == 1
        assert bench.started.messages.count(EVENT) == expected
        unit.write_register(0x324, 4, 1)
        assert unit.read_register(0x324, 4) == 0


@pytest.mark.section("11.4.13.7", "11.4.13.8")
def test_a_masked_interrupt_is_withdrawn_with_its_status() -> None:
    bench = Bench()
    unit = bench.unit
    bench.enable(E.PG_REQ_POSTED, io=True)
    bench.set_value((1 << 48) - 1)
    bench.page_request()
    assert unit.read_register(0x328, 4) == 3 << 30
    unit.write_register(0x324, 4, 1)
    assert unit.read_register(0x328, 4) == 1 << 31


@pytest.mark.section("10.3.2", "11.4.13.12")
@pytest.mark.fields("PerformanceMonitoringFreezeStatus.fs")
def test_an_overflow_may_freeze_everything() -> None:
    bench = Bench()
    bench.enable(E.PG_REQ_POSTED, E.PG_REQ_POSTED, gfo=True)
    bench.set_value((1 << 48) - 1)
    bench.page_request()
    bench.page_request()
    assert (bench.value(0), bench.value(1)) == (0, 1)  # the same event counts in both
    assert (bench.frozen(), bench.overflowed()) == (0x1FF, 1)
    bench.command(DISABLE, 1)
    assert bench.frozen() == 0x1FD
    bench.command(UNFREEZE)
    bench.page_request()
    assert (bench.value(0), bench.frozen()) == (1, 0)


@pytest.mark.parametrize("cwe", [False, True])
@pytest.mark.section("10.2", "11.4.13.15")
@pytest.mark.fields(
    "PerformanceMonitoringCounterConfiguration.en", "PerformanceMonitoringAddressTypeFilter.en"
)
def test_what_is_locked_while_a_counter_is_enabled(cwe: bool) -> None:
    constants = capability_registers(2)
    if not cwe:
        constants[0x300] &= ~r.PerformanceMonitoringCapability.cwe.mask
    bench = Bench(constants)
    unit = bench.unit
    bench.configure(0, 0, 2)
    bench.set_value(5)
    bench.command(ENABLE)
    configuration = unit.read_register(CONFIGURATION, 8)
    unit.write_register(CONFIGURATION, 8, 0)
    unit.write_register(CONFIGURATION + 0x14, 4, 1 << 31)
    bench.set_value(77)
    assert unit.read_register(CONFIGURATION, 8) == configuration
    assert unit.read_register(CONFIGURATION + 0x14, 4) == 0
    assert bench.value() == (77 if cwe else 5)
    bench.command(DISABLE)
    unit.write_register(CONFIGURATION, 8, 0)
    bench.set_value(78)
    assert (unit.read_register(CONFIGURATION, 8), bench.value()) == (0, 78)


def test_reset_commands() -> None:
    bench = Bench()
    bench.enable(E.PG_REQ_POSTED, E.IOMMU_REQUESTS, gfo=True)
    bench.set_value((1 << 48) - 1)
    bench.page_request()
    bench.command(RESET_VALUES)
    assert bench.value(1) == 0
    assert bench.unit.read_register(CONFIGURATION, 8) & 1
    bench.command(RESET_CONFIGURATION)
    assert [bench.unit.read_register(CONFIGURATION + 0x100 * n, 8) for n in range(9)] == [0] * 9
    assert (bench.overflowed(), bench.frozen()) == (0, 0)
    bench.page_request()
    assert bench.value() == 0
    assert not bench.unit.performance.active


INVALID: dict[str, Callable[[Bench], None]] = {
    "no event": lambda bench: bench.configure(0, 1, 0),
    "an unknown event": lambda bench: bench.configure(0, 1, 1 << 6 | 1 << 9),
    "an unknown group": lambda bench: bench.configure(0, 9, 1),
    "an event in time": lambda bench: bench.configure(0, 0, 1 << 5),
    "a filter for several events": lambda bench: _filter(bench, 0, 3, 0x14),
    "a filter for another event": lambda bench: _filter(bench, 1, 1 << 6, 0x14),
    "levels of a lookup": lambda bench: _filter(bench, 3, 1, 0x18),
    "a domain of a request": lambda bench: _filter(bench, 0, 2, 0x0C),
}


def _filter(bench: Bench, group: int, events: int, offset: int) -> None:
    bench.configure(0, group, events)
    bench.unit.write_register(CONFIGURATION + offset, 4, 1 << 31 | 1)


@pytest.mark.parametrize("what", INVALID)
@pytest.mark.section("10.5", "11.4.13.14")
@pytest.mark.fields(
    "PerformanceMonitoringEventCapability.es",
    "PerformanceMonitoringCounterConfiguration.es.egi",
    "PerformanceMonitoringCapability.egcnt",
)
def test_a_wrong_configuration_can_not_be_enabled(what: str) -> None:
    bench = Bench()
    INVALID[what](bench)
    assert bench.command(ENABLE) == FAILED
    assert not bench.unit.read_register(CONFIGURATION, 8) & 1
    assert not bench.unit.performance.active


FILTERS = {"ridfs": 0x08, "didfs": 0x0C, "pasidfs": 0x10, "atfs": 0x14, "ptlfs": 0x18}
"""Where each filter of a counter is, by the field that reports it, from bit 32 on."""


@pytest.mark.parametrize("filter_", FILTERS)
@pytest.mark.section("11.4.13.16", "11.4.13.17", "11.4.13.18", "11.4.13.19", "11.4.13.20")
@pytest.mark.fields("PerformanceMonitoringCapability.ridfs.didfs.pasidfs.atfs.ptlfs")
def test_a_filter_that_is_not_reported_keeps_nothing(filter_: str) -> None:
    constants = capability_registers(2)
    constants[0x300] &= ~(1 << 32 + list(FILTERS).index(filter_))
    unit = Bench(constants).unit
    for each, offset in FILTERS.items():
        where = CONFIGURATION + offset
        unit.write_register(where, 4, 1 << 31)
        assert unit.read_register(where, 4) == (0 if each == filter_ else 1 << 31)


@pytest.mark.parametrize("flag", ["io", "gfo"])
def test_overflow_actions_need_support(flag: str) -> None:
    constants = capability_registers(2)
    missing = r.PerformanceMonitoringCapability.of(ios=flag == "io", gfs=flag == "gfo")
    constants[0x300] &= ~missing
    bench = Bench(constants)
    bench.configure(0, 1, 1 << 6, **{flag: True})
    assert bench.command(ENABLE) == FAILED


@pytest.mark.section("10.1", "11.4.13.21", "11.4.13.22")
def test_a_counter_may_have_capabilities_of_its_own() -> None:
    constants = capability_registers(2)
    constants[0x300] |= r.PerformanceMonitoringCapability.pccs.mask
    own = r.PerformanceMonitoringCounterCapability.of(egcnt=2, cw=4, pcc=True)
    events = r.PerformanceMonitoringCounterEventCapability.of(egi=1, es=1 << 6)
    others = r.PerformanceMonitoringCounterEventCapability.of(egi=3, es=1 << 2)
    constants |= {0x780: events << 32 | own, 0x788: others}
    bench = Bench(constants)
    for group, code in ((3, SUCCESS), (2, FAILED)):
        bench.configure(1, group, 1 << 2)
        assert bench.command(ENABLE, 1) == code
        bench.command(DISABLE, 1)
    for event in (1, 2):
        for number, code in ((0, SUCCESS), (1, FAILED)):
            bench.configure(number, 0, event)
            assert bench.command(ENABLE, number) == code
            bench.command(DISABLE, number)
    bench.configure(1, 1, 1 << 6)
    assert bench.command(ENABLE, 1) == SUCCESS
    bench.set_value(0xFF, 1)
    bench.page_request()
    assert bench.value(1) == 0
    bench.command(DISABLE, 1)
    bench.configure(1, 1, 1 << 6, io=True)
    assert bench.command(ENABLE, 1) == FAILED


@pytest.mark.parametrize("ios", [False, True])
@pytest.mark.parametrize("gfs", [False, True])
@pytest.mark.section("11.4.13.21")
@pytest.mark.fields("PerformanceMonitoringCounterCapability.ios.gfs")
def test_what_a_counter_of_its_own_may_do_on_overflow(ios: bool, gfs: bool) -> None:
    constants = capability_registers(2)
    constants[0x300] |= r.PerformanceMonitoringCapability.pccs.mask
    own = 1 | 1 << 28 | 8 << 8 | ios << 16 | gfs << 17
    constants[0x780] = (1 << 28 | 1 << 6) << 32 | own
    for flag, supported in (("io", ios), ("gfo", gfs)):
        bench = Bench(constants)
        bench.configure(1, 1, 1 << 6, **{flag: True})
        assert bench.command(ENABLE, 1) == (SUCCESS if supported else FAILED)
        if supported:
            bench.set_value(0xEF, 1)
            bench.page_request()
            assert bench.value(1) == 0xF0  # CW = 8


@pytest.mark.section("11.4.13.12", "11.4.13.13")
def test_the_65th_counter_has_the_first_bit_of_the_second_status_registers() -> None:
    """Counters one KiB apart, of which the configuration begins at 20000h."""
    frozen, overflowed, blocks, values = 0x1000, 0x1100, 0x2_0000, 0x4_0000
    constants = capability_registers(1)
    capability = r.PerformanceMonitoringCapability(constants[0x300])
    constants[0x300] = capability.replace(ncntr=66)
    constants[0x310] = frozen << 32 | blocks
    constants[0x318] = values << 32 | overflowed
    bench = Bench(constants)
    for number, last in ((63, False), (64, True)):
        block, value = blocks + number * 0x100, values + number * 0x400
        bench.unit.write_register(block, 8, 1 << 6 + 32 | 1 << 8 | 1 << 2)  # PG_REQ_POSTED, GFO
        assert bench.command(ENABLE, number) == SUCCESS
        bench.unit.write_register(value, 8, (1 << 48) - 1)
        bench.page_request()
        status = [bench.unit.read_register(overflowed + at, 8) for at in (0, 8)]
        assert status == ([0, 1] if last else [1 << 63, 0])
        assert [bench.unit.read_register(frozen + at, 8) for at in (0, 8)] == [(1 << 64) - 1, 3]
        for at in (0, 8):
            bench.unit.write_register(overflowed + at, 8, (1 << 64) - 1)
        assert bench.command(UNFREEZE) == SUCCESS


@pytest.mark.section("11.4.13.2")
@pytest.mark.fields("PerformanceMonitoringCapability.rsvd_63_60")
def test_the_reserved_bits_of_the_capability_have_their_documented_value() -> None:
    assert Bench().unit.read_register(0x300, 8) >> 60 == 0xF  # 11.4.13.2


@pytest.mark.section("10.4")
def test_every_event_group_that_is_reported_has_events() -> None:
    constants = capability_registers()
    groups = r.PerformanceMonitoringCapability(constants[0x300]).egcnt
    assert groups and all(constants.get(0x380 + 8 * group) for group in range(groups))


def test_the_constants_leave_no_room_for_more_than_nine_counters() -> None:
    with pytest.raises(ValueError, match="counters"):
        capability_registers(10)


def test_a_state_taken_while_counting_goes_on_counting() -> None:
    bench = Bench()
    bench.enable(E.IOMMU_MRDS, E.PG_REQ_POSTED)
    bench.page_request()
    state = bench.unit.snapshot()
    values = bench.value(0), bench.value(1)
    bench.command(RESET_CONFIGURATION)
    bench.unit.restore(state)
    assert (bench.value(0), bench.value(1)) == values
    bench.page_request()
    assert bench.value(1) == values[1] + 1


RID, DID, PASID_FILTER, AT, PTL = 0x08, 0x0C, 0x10, 0x14, 0x18
EN, PASID = 1 << 31, 0x45


def filtered(bench: Bench, event: PerformanceEvent, filters: Mapping[int, int]) -> None:
    """Counter 0 for one event, with filters by their offset."""
    group, bit = event.value
    bench.command(DISABLE, 0)
    bench.set_value(0)
    bench.configure(0, group, 1 << bit)
    for offset in (RID, DID, PASID_FILTER, AT, PTL):
        value = EN | filters[offset] if offset in filters else 0
        bench.unit.write_register(CONFIGURATION + offset, 4, value)
    assert bench.command(ENABLE, 0) == SUCCESS


HIT = {RID: 0x0108, DID: 5, PASID_FILTER: PASID, PTL: 1}


@pytest.mark.parametrize(
    ("filters", "counted"),
    [
        ({}, 2),
        (HIT, 2),
        ({RID: 0x0109}, 0),
        ({DID: 6}, 0),
        ({PASID_FILTER: 0x46}, 0),
        ({PASID_FILTER: 1 << 20}, 2),
        ({PASID_FILTER: 2 << 20}, 0),
        ({PASID_FILTER: 3 << 20 | PASID}, 0),
        ({PTL: 0b11110}, 0),
        ({PTL: 0b00011}, 2),
        ({**HIT, DID: 6}, 0),
    ],
)
@pytest.mark.section("10.4", "11.4.13.16", "11.4.13.17", "11.4.13.18")
@pytest.mark.fields(
    "PerformanceMonitoringRequesterIdFilter.en.rid",
    "PerformanceMonitoringDomainIdFilter.en.did",
    "PerformanceMonitoringPasidFilter.en.pfm.pasid",
    "PerformanceMonitoringPageTableLevelFilter.en.ptl",
)
def test_hits_of_the_iotlb_are_filtered_by_all_that_an_entry_has(
    filters: Mapping[int, int], counted: int
) -> None:
    bench = Bench()
    bench.port.read(bench.world.address, 4, pasid=PASID)
    filtered(bench, E.IOTLB_HIT, filters)
    for _ in range(2):
        assert bench.port.read(bench.world.address, 4, pasid=PASID).ok
    assert bench.value() == counted


@pytest.mark.parametrize(
    ("mode", "event", "level"),
    [
        (Mode.SECOND, E.SS_NONLEAF_HIT, 1),
        (Mode.FIRST, E.FS_NONLEAF_HIT, 1),
        (Mode.SECOND, E.SS_NONLEAF_HIT, 3),
    ],
)
@pytest.mark.section("11.4.13.20")
def test_hits_of_paging_structure_caches_are_filtered_by_level(
    mode: Mode, event: PerformanceEvent, level: int
) -> None:
    bench = Bench(world=World(mode, UNIT, pasid=PASID))
    asked = bench.world.address + (0x1000 if level == 1 else 1 << 30)
    bench.port.read(bench.world.address, 4, pasid=PASID)
    counts = []
    for levels in (1 << level, 0b11111 ^ 1 << level, 0b11111):
        bench.unit.caches.iotlb.clear()
        filtered(bench, event, {PTL: levels})
        bench.port.read(asked, 4, pasid=PASID)
        counts.append(bench.value())
    assert counts[0] > 0
    assert counts[0] + counts[1] == counts[2]


@pytest.mark.section("10.7")
def test_lookups_of_host_permissions_are_counted_and_filtered() -> None:
    has = capabilities(ecmds=1, pms=1, fro=0x240, hpts=1, hpt1gps=1, ptrs=1, haw=52)
    world = World(Mode.SECOND, has, pasid=PASID)
    world.change("context", hpte=True, eptr=True)
    world.change("pasid", hptptr=0x18000, hptdid=9)
    for level, record in ((4, HostPermissionL4Entry), (3, HostPermissionL3Entry)):
        where = 0x18000 + 0x1000 * (4 - level)
        world.memory.write(where, record.of(av=True, addr=where + 0x1000).pack())
    leaf = HostPermissionL2Entry.of(pp=0x3333_3333_3333_3333)
    world.memory.write(0x1A000 + 16 * (HOST >> 25 & 0xFF), leaf.pack())
    bench = Bench(unit=has, world=world)

    def use(event: PerformanceEvent, page: int, filters: Mapping[int, int]) -> int:
        filtered(bench, event, filters)
        assert bench.port.read_translated(HOST + (page << 12), 4, pasid=PASID).ok
        return bench.value()

    assert use(E.HPT_NONLEAF_LOOKUP, 0, {AT: 0b100}) == 1
    assert use(E.HPT_NONLEAF_LOOKUP, 1, {AT: 0b011}) == 0
    assert use(E.HPT_NONLEAF_HIT, 2, {AT: 0b100, PTL: 0b0100, DID: 9}) == 1  # HPTL3E
    assert use(E.HPT_NONLEAF_HIT, 3, {PTL: 0b1011}) == 0
    assert use(E.HPT_LEAF_LOOKUP, 4, {}) == 1
    assert use(E.HPT_LEAF_HIT, 4, {PTL: 0b0010, DID: 9, RID: 0x0108}) == 1  # from an HPTL2E
    assert use(E.HPT_LEAF_HIT, 4, {PTL: 0b1101}) == 0


def test_a_clock_ticks_for_each_request_and_register_access() -> None:
    bench = Bench()
    bench.enable(E.IOMMU_CLOCKS)
    before = bench.value()
    bench.port.read(bench.world.address, 4, pasid=PASID)
    bench.unit.write_register(0x38, 4, 0)
    assert bench.value() == before + 2


@pytest.mark.section("10.7")
def test_hits_on_entries_of_posted_interrupts_are_counted_apart() -> None:
    bench = Bench()
    prepare_interrupts(bench)
    bench.enable(E.INT_CACHE_LOOKUP, E.INT_CACHE_HIT_NONPOSTED, E.INT_CACHE_HIT_POSTED)
    for index, times in ((0, 3), (1, 5)):  # a remapped and a posted one, each a miss first
        for _ in range(times):
            _send_interrupt(bench, index)
    assert [bench.value(number) for number in range(3)] == [8, 2, 4]
