"""Translation caches: never to be noticed by software that invalidates what it has to."""

import itertools
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from devices.dma import ATOMIC, READ, WRITE
from tests.support.table_software import DEVICES, PASID, Software
from tests.support.world import FIRST_TABLES, HOST, PAGE, Mode, World, capabilities
from vtd.layouts.descriptors import ContextCacheInvalidateDescriptor, IotlbInvalidateDescriptor
from vtd.layouts.entries import PasidTranslationType, ScalableContextEntry
from vtd.layouts.registers import ContextGranularity, IotlbGranularity
from vtd.unit.caching.cache import UNBOUNDED, Replacement, Shape
from vtd.unit.caching.caches import (
    ContextCacheEntry,
    PasidCacheEntry,
    StructureEntry,
    StructureKey,
    TranslationCaches,
)
from vtd.unit.caching.iotlb import IotlbEntry
from vtd.unit.caching.policy import AGGRESSIVE, KEEPS_STALE, POLICIES, UNCACHED, CachePolicy
from vtd.unit.options import Options
from vtd.unit.requests.faults import FaultReason, TranslationFault
from vtd.unit.requests.target import IotlbTags


def bounded(replacement: Replacement, *, aggressive: bool) -> CachePolicy:
    """Small caches of one replacement."""
    return CachePolicy(
        context=Shape(1, 1, replacement),
        pasid=Shape(1, 2, replacement, seed=1),
        iotlb=Shape(2, 2, replacement, seed=2),
        paging_structure=Shape(2, 1, replacement, seed=3),
        interrupt=Shape(1),
        cache_faults=aggressive,
        trust_cached_rights=aggressive,
    )


CACHED = [
    *(policy for name, policy in POLICIES.items() if name != "off"),
    *(bounded(replacement, aggressive=True) for replacement in Replacement),
    bounded(Replacement.LRU, aggressive=False),
]
STARTS = (0x20_0000, 0x20_1000, 0x2F_F000, 0x3F_F000, 0x40_0000, 0x40_3000, 0x5F_F000)
LENGTHS = (0x1000, 0x1000, 0x2000, 0x20_0000)
ranges = st.tuples(st.sampled_from(STARTS), st.sampled_from(LENGTHS))
domains = st.sampled_from([0, 1])
rights = st.sampled_from(["rw", "r-", "-w"])
dma = st.tuples(
    st.just("dma"),
    st.sampled_from(DEVICES),
    st.sampled_from(STARTS),
    st.sampled_from([0, 0x800]),
    st.sampled_from([(READ, 4), (READ, 4), (WRITE, 4), (ATOMIC, 4), (READ, 0)]),
)
steps = st.one_of(
    dma,
    dma,
    dma,
    st.tuples(st.just("map"), domains, ranges, st.sampled_from([0x80_0000, 0xA0_0000]), rights),
    st.tuples(st.just("unmap"), domains, ranges),
    st.tuples(st.just("protect"), domains, ranges, rights),
    st.tuples(st.just("guest"), domains, st.sampled_from([0x80_0000, 0xA0_0000]), rights),
    st.tuples(st.just("attach"), st.sampled_from(DEVICES), st.sampled_from([None, 0, 1])),
)


def carry_out(software: Software, step: Any) -> None:
    """One step; a DMA has to have the same outcome with every cache."""
    match step:
        case "dma", device, address, offset, (access, length):
            outcomes = software.outcomes(device, address | offset, access, length)
            assert len(set(outcomes)) == 1, outcomes
        case "map", domain, (start, length), physical, allowed:
            software.map(software.domains[domain], start, physical, length, allowed)
        case "unmap", domain, (start, length):
            software.unmap(software.domains[domain], start, length)
        case "protect", domain, (start, length), allowed:
            software.protect(software.domains[domain], start, length, allowed)
        case "guest", domain, start, allowed:
            if software.mode is Mode.NESTED:
                software.protect_guest(software.domains[domain], start, 0x2000, allowed)
        case "attach", device, domain:
            software.attach(device, None if domain is None else software.domains[domain])


@pytest.mark.parametrize("pasid", [None, PASID], ids=["", "PASID"])
@pytest.mark.parametrize("caching_mode", [False, True], ids=["CM=0", "CM=1"])
@pytest.mark.parametrize("mode", [Mode.LEGACY, Mode.FIRST, Mode.SECOND, Mode.NESTED])
@pytest.mark.section("6.2.5", "6.2.7")
def test_caches_change_nothing_for_software_that_invalidates(
    mode: Mode, caching_mode: bool, pasid: int | None
) -> None:
    if mode is Mode.LEGACY and pasid is not None:
        pytest.skip("no PASIDs in legacy mode")

    @given(st.lists(steps, min_size=5, max_size=40), st.booleans())
    @settings(max_examples=25)
    def check(program: list[Any], flags: bool) -> None:
        software = Software(
            mode, [UNCACHED, *CACHED], caching_mode=caching_mode, flags=flags, pasid=pasid
        )
        for device, domain in zip(DEVICES, software.domains, strict=True):
            software.attach(device, domain)
            software.map(domain, STARTS[0], 0x80_0000, 0x20_0000, "rw")
        for step in program:
            carry_out(software, step)

    check()


def probe(software: Software, device: int) -> None:
    """Try every kind of access at every address, in an order that meets denials first."""
    for access, length in ((WRITE, 4), (READ, 4), (READ, 0), (ATOMIC, 4), (READ, 4), (WRITE, 4)):
        for address in (*STARTS, 0x9_0000_0000):
            carry_out(software, ("dma", device, address, 0x800 if length else 0, (access, length)))


@pytest.mark.parametrize("caching_mode", [False, True], ids=["CM=0", "CM=1"])
@pytest.mark.parametrize("mode", [Mode.LEGACY, Mode.FIRST, Mode.SECOND, Mode.NESTED])
@pytest.mark.parametrize("allowed", ["rw", "r-", "-w"])
def test_a_denied_access_says_nothing_of_other_accesses(
    allowed: str, mode: Mode, caching_mode: bool
) -> None:
    software = Software(mode, [UNCACHED, *CACHED], caching_mode=caching_mode, flags=True)
    domain = software.domains[0]
    for device in DEVICES:
        software.attach(device, domain)
    software.map(domain, STARTS[0], 0x80_0000, 0x2000, allowed)
    software.map(domain, 0x40_0000, 0xFEE0_0000, 0x1000, "rw")
    probe(software, DEVICES[0])
    software.protect(domain, STARTS[0], 0x1000, "rw")
    probe(software, DEVICES[1])
    probe(software, DEVICES[0])
    software.attach(DEVICES[0], None)
    probe(software, DEVICES[0])
    software.attach(DEVICES[0], software.domains[1])
    probe(software, DEVICES[0])


@pytest.mark.parametrize("granularity", [ContextGranularity.DEVICE, ContextGranularity.DOMAIN])
def test_scalable_context_entries_are_invalidated_whatever_the_domain(
    granularity: ContextGranularity,
) -> None:
    software = Software(Mode.SECOND, [UNCACHED, AGGRESSIVE], caching_mode=True)
    device = DEVICES[0]
    software.attach(device, software.domains[0])
    software.map(software.domains[0], 0x20_0000, 0x80_0000, 0x1000, "rw")
    place = software.driver.structures.context_entry(device)
    context = ScalableContextEntry.unpack(software.memory.read(place, 32))
    for present, outcome in ((False, FaultReason.SM_CONTEXT_NOT_PRESENT), (True, 0x80_0000)):
        software.memory.write(place, context.replace(p=present).pack())
        software.submit(ContextCacheInvalidateDescriptor.of(g=granularity, sid=device, did=7))
        software.submit(IotlbInvalidateDescriptor.of(g=IotlbGranularity.GLOBAL))
        assert software.outcomes(device, 0x20_0000, READ, 4) == [outcome] * 2


@pytest.mark.section("6.2.1")
def test_tables_of_other_depth_under_the_same_domain_id_do_no_harm() -> None:
    """Software may not do that (6.2.3.1); what it gets is up to the unit, but it is a value."""
    policy = CachePolicy(paging_structure=UNBOUNDED)
    for mode in (Mode.LEGACY, Mode.SECOND, Mode.FIRST, Mode.NESTED):
        for depths in itertools.permutations((3, 4, 5), 2):
            worlds = [
                World(mode, second_levels=depth, first_levels=max(depth, 4), guest=0x4000_0000)
                for depth in depths
            ]
            unit = worlds[0].start(Options(caches=policy)).unit
            for world in worlds:
                unit.remapping.memory = world.memory
                unit.caches.context.clear()
                unit.caches.pasid.clear()
                unit.caches.iotlb.clear()
                assert unit.admit(world.request) is not None


@pytest.mark.section("6.2.8", "6.5.3.5", "6.5.3.6")
def test_aggressive_caches_show_a_missing_invalidation() -> None:
    software = Software(Mode.LEGACY, [UNCACHED, *POLICIES.values()], caching_mode=True)
    domain = software.domains[0]
    software.attach(DEVICES[0], domain)
    denied = FaultReason.READ_DENIED
    assert set(software.outcomes(DEVICES[0], 0x20_0000, READ, 4)) == {denied}
    domain.tables.map(0x20_0000, 0x80_0000, 0x1000, "r-")
    names = ["uncached", *POLICIES]
    seen = dict(zip(names, software.outcomes(DEVICES[0], 0x20_0000, READ, 4), strict=True))
    assert seen == {
        "uncached": 0x80_0000, "default": 0x80_0000, "off": 0x80_0000,
        "aggressive": denied, "late": denied,
    }  # fmt: skip
    software.invalidate_range(domain, 0x20_0000, 0x1000)
    assert set(software.outcomes(DEVICES[0], 0x20_0000, READ, 4)) == {0x80_0000}
    domain.tables.unmap(0x20_0000, 0x1000)
    seen = dict(zip(names, software.outcomes(DEVICES[0], 0x20_0000, READ, 4), strict=True))
    assert seen == {
        "uncached": denied,
        "default": 0x80_0000,
        "aggressive": 0x80_0000,
        "late": 0x80_0000,
        "off": denied,
    }


@pytest.mark.parametrize("refusal", [{"w": True}, {}], ids=["not readable", "not present"])
@pytest.mark.parametrize("level", [4, 3, 2])
@pytest.mark.section("6.2.5.2", "6.2.5.3", "6.2.5.4")
def test_a_nested_entry_is_kept_only_if_the_second_stage_lets_its_table_be_read(
    level: int, refusal: dict[str, bool]
) -> None:
    """6.2.5.1 to 6.2.5.4."""
    world = World(Mode.NESTED)
    refused = f"second1 {FIRST_TABLES + 0x1000 * (5 - level):#x}"  # what the entry points to
    leaf = world.get(refused)
    world.put(refused, leaf.replace(**{"r": False, "w": False, **refusal}))
    started = world.start(Options(caches=AGGRESSIVE))
    assert started.admit() is None
    shifts = [39, 30, 21]
    kept = {shift for (_, _, shift, _), _ in started.unit.caches.first_stage}
    assert kept == set(shifts[: 4 - level])
    world.put(refused, leaf)
    assert started.admit() == HOST | PAGE
    kept = {shift for (_, _, shift, _), _ in started.unit.caches.first_stage}
    assert kept == set(shifts)


@pytest.mark.parametrize("with_flags", [False, True])
@pytest.mark.parametrize("level", [3, 2, 1])
@pytest.mark.section("6.2.5.5")
def test_a_nested_entry_keeps_where_the_second_stage_had_the_table(
    level: int, with_flags: bool
) -> None:
    """6.2.5.1 to 6.2.5.4; 6.5.2.3: a page-selective invalidation of any address removes it."""
    world = World(Mode.NESTED)
    world.change("pasid", ssade=with_flags)
    table = f"second1 {FIRST_TABLES + 0x1000 * (4 - level):#x}"
    started = world.start(Options(caches=AGGRESSIVE))
    caches = started.unit.caches
    assert started.admit() == HOST | PAGE
    caches.iotlb.clear()
    caches.first_stage.remove(lambda key, _: key[2] < 12 + 9 * level)
    world.change(table, addr=HOST + PAGE + 0x1000)  # an empty page
    world.put("first1", world.get("first1").replace(a=False))
    assert started.admit() == HOST | PAGE
    caches.invalidate_iotlb_pages(5, 0, 0x1000, hint=True)
    assert started.admit() is None
    world.change(table, addr=HOST + FIRST_TABLES + 0x1000 * (4 - level))
    assert started.admit() is None
    caches.invalidate_iotlb_pages(5, 0, 0x1000, hint=True)
    assert started.admit() == HOST | PAGE


@pytest.mark.parametrize("stage", ["first", "second"])
@pytest.mark.section("6.5.2.3", "6.5.2.4")
def test_one_of_many_tables_is_forgotten_with_a_page_below_it(stage: str) -> None:
    world = World(Mode.FIRST if stage == "first" else Mode.SECOND)
    entry, (place, _) = world.get(f"{stage}2"), world.places[f"{stage}2"]
    others = range(1, 16)
    for number in others:
        world.memory.load(place + 8 * number, entry.pack())
    started = world.start(Options(caches=AGGRESSIVE))
    caches, page = started.unit.caches, world.address & -0x1000

    def reaches(number: int) -> bool:
        there = world.request._replace(address=world.address + (number << 21))
        return started.admit(there) == HOST | PAGE

    assert all(map(reaches, [0, *others]))
    world.memory.load(place, bytes(8 * 16))
    if stage == "first":
        caches.invalidate_pasid_iotlb_pages(5, 0, page, page + 0x1000, hint=False)
    else:
        caches.invalidate_iotlb_pages(5, page, page + 0x1000, hint=False)
    caches.iotlb.clear()
    assert [number for number in [0, *others] if reaches(number)] == [*others]


@st.composite
def table_keys(draw: st.DrawFn) -> tuple[int, int, int]:
    """A level, the address bits above it, and how many bits addresses have, few of them apart."""
    width = draw(st.sampled_from([48, 57, 64]))
    shift = draw(st.sampled_from([21, 30, 39] if width == 48 else [21, 30, 39, 48]))
    low = draw(st.sampled_from([0, 1 << 47, 3 << 47, 1 << 56])) % (1 << width)
    low |= draw(st.integers(0, 3)) << shift
    sign = low & 1 << width - 1
    return shift, (low | (1 << 64) - 2 * sign) % (1 << 64) >> shift, width


@given(
    st.lists(table_keys(), min_size=1, max_size=30, unique_by=lambda each: each[:2]),
    st.sampled_from([12, 13, 21, 30, 39]),
    st.data(),
)
@pytest.mark.section("6.5.2.4", "6.2.5")
def test_a_table_goes_with_a_range_that_meets_what_it_translates(
    tables: list[tuple[int, int, int]], size: int, data: st.DataObject
) -> None:
    """Of an address as many bits are compared as the tables translate."""
    shift, prefix, width = data.draw(st.sampled_from(tables))
    address = (prefix << shift) % (1 << width) | data.draw(st.integers(0, 3)) << 12
    start = address >> size << size
    caches = TranslationCaches(CachePolicy(paging_structure=UNBOUNDED))
    for shift, prefix, width in tables:
        caches.first_stage.put((5, 7, shift, prefix), StructureEntry(shift, 0, 0, width))
    caches.invalidate_pasid_iotlb_pages(5, 7, start, start + (1 << size), hint=False)
    left = {(key[2], key[3], entry.width) for key, entry in caches.first_stage}
    assert left == {
        (shift, prefix, width)
        for shift, prefix, width in tables
        if (start ^ prefix << shift) % (1 << width) >> max(shift, size)
    }


@pytest.mark.section("6.2.5.5", "6.2.5.1")
def test_an_entry_is_kept_even_if_its_table_maps_nothing() -> None:
    """6.2.5.1 to 6.2.5.4."""
    for levels, kept in ((4, {39, 30, 21}), (5, {48, 39, 30, 21})):
        for mode in (Mode.NESTED, Mode.FIRST, Mode.SECOND):
            world = World(mode, first_levels=levels, second_levels=levels)
            world.put("second1" if mode is Mode.SECOND else "first1", 0)
            started = world.start(Options(caches=AGGRESSIVE))
            assert started.admit() is None
            caches = started.unit.caches
            cache = caches.second_stage if mode is Mode.SECOND else caches.first_stage
            assert {shift for (_, _, shift, _), _ in cache} == kept


# What each invalidation removes: Tables 17, 23 and 24

FIRST_STAGE, SECOND_STAGE, NESTED, PASS_THROUGH = (
    PasidTranslationType.FIRST_STAGE,
    PasidTranslationType.SECOND_STAGE,
    PasidTranslationType.NESTED,
    PasidTranslationType.PASS_THROUGH,
)
iotlb_entries = st.builds(
    lambda domain, kind, pasid, shift, page: IotlbEntry(
        IotlbTags(domain, kind, pasid), page << shift, shift, 0, READ, snoop=False
    ),
    st.sampled_from([1, 2]),
    st.sampled_from([FIRST_STAGE, SECOND_STAGE, NESTED, PASS_THROUGH]),
    st.sampled_from([0, 7]),
    st.sampled_from([12, 12, 21, 30]),
    st.integers(0, 3),
)
structure_keys = st.tuples(
    st.sampled_from([1, 2]), st.sampled_from([0, 7]), st.sampled_from([21, 30, 39]),
    st.integers(0, 2),
)  # fmt: skip
spans = st.tuples(st.integers(0, 6), st.sampled_from([0, 1, 9, 10, 18])).map(
    lambda span: (span[0] << 12 + span[1], span[0] + 1 << 12 + span[1])
)


OTHER_TAGS = [
    IotlbEntry(IotlbTags(1, kind, pasid), 0, 12, 0, READ, snoop=False)
    for kind, pasid in ((FIRST_STAGE, 0), (NESTED, 0), (SECOND_STAGE, 7), (FIRST_STAGE, 7))
]
"""Pages at 0 of one domain: only the last is of a first stage and of PASID 7."""


class Filled:
    """Caches with these entries, and what is left of them."""

    def __init__(self, entries: list[IotlbEntry], keys: list[StructureKey]) -> None:
        self.caches = TranslationCaches(AGGRESSIVE)
        self.entries = {((number, None, False), entry) for number, entry in enumerate(entries)}
        for kind, entry in self.entries:
            self.caches.iotlb.insert(kind, entry)
        self.first = set(keys)
        self.second = {(domain, None, shift, prefix) for domain, _, shift, prefix in keys}
        for key in self.first:
            self.caches.first_stage.put(key, StructureEntry(key[2], 1, 3, 64))
        for key in self.second:
            self.caches.second_stage.put(key, StructureEntry(key[2], 1, 3, 64))

    def left(self) -> tuple[set[Any], set[Any], set[Any]]:
        """IOTLB entries, first-stage and second-stage structure entries."""
        return (
            set(self.caches.iotlb),
            {key for key, _ in self.caches.first_stage},
            {key for key, _ in self.caches.second_stage},
        )


def meets(start: int, shift: int, span: tuple[int, int]) -> bool:
    return start < span[1] and span[0] < start + (1 << shift)


@given(
    st.lists(iotlb_entries, max_size=12),
    st.lists(structure_keys, max_size=12),
    spans,
    st.booleans(),
    st.sampled_from(["global", "domain", "pages", "pasid", "pasid pages"]),
)
@settings(max_examples=200)
@example(OTHER_TAGS, [], (0, 1 << 12), False, "pasid pages")
@pytest.mark.section("6.5.2.3", "6.5.2.4")
def test_iotlb_invalidations_remove_what_tables_23_and_24_say(
    entries: list[IotlbEntry],
    keys: list[StructureKey],
    span: tuple[int, int],
    hint: bool,
    granularity: str,
) -> None:
    filled = Filled(entries, keys)
    caches, domain, pasid = filled.caches, 1, 7

    def in_iotlb(entry: IotlbEntry) -> bool:
        here = meets(entry.address, entry.shift, span)
        first = entry.tags.kind in (FIRST_STAGE, NESTED)
        same_pasid = entry.tags.pasid == pasid
        return granularity == "global" or (
            entry.tags.domain_id == domain
            and {
                "domain": True,
                "pages": first or here,
                "pasid": same_pasid,
                "pasid pages": first and same_pasid and here,
            }[granularity]
        )

    def in_structures(key: StructureKey, first: bool) -> bool:
        here = meets(key[3] << key[2], key[2], span) and not hint
        return granularity == "global" or (
            key[0] == domain
            and {
                "domain": True,
                "pages": first or here,
                "pasid": first and key[1] == pasid,
                "pasid pages": first and key[1] == pasid and here,
            }[granularity]
        )

    match granularity:
        case "global":
            caches.invalidate_iotlb_global()
        case "domain":
            caches.invalidate_iotlb_domain(domain)
        case "pages":
            caches.invalidate_iotlb_pages(domain, *span, hint=hint)
        case "pasid":
            caches.invalidate_pasid_iotlb(domain, pasid)
        case _:
            caches.invalidate_pasid_iotlb_pages(domain, pasid, *span, hint=hint)
    assert filled.left() == (
        {(kind, entry) for kind, entry in filled.entries if not in_iotlb(entry)},
        {key for key in filled.first if not in_structures(key, first=True)},
        {key for key in filled.second if not in_structures(key, first=False)},
    )


@given(
    st.lists(st.tuples(st.integers(0, 0x1F), st.sampled_from([1, 2, None])), max_size=12),
    st.integers(0, 0x1F),
    st.integers(0, 3),
    st.sampled_from(["global", "domain", "device"]),
)
@pytest.mark.section("6.5.2.1")
def test_context_invalidations_remove_what_6_5_2_1_says(
    entries: list[tuple[int, int | None]], source_id: int, mask: int, granularity: str
) -> None:
    caches = TranslationCaches(KEEPS_STALE)
    known = dict(entries)
    for key, domain in known.items():
        caches.context.put(key, ContextCacheEntry(domain, ScalableContextEntry(0)))
    match granularity:
        case "global":
            caches.invalidate_context_global()
        case "domain":
            caches.invalidate_context_domain(1)
        case _:
            caches.invalidate_context_device(source_id, mask, 1)
    ignored = (0, 4, 6, 7)[mask]

    def gone(key: int, domain: int | None) -> bool:
        if granularity == "global":
            return True
        return domain in (1, None) and (
            granularity == "domain" or key & ~ignored == source_id & ~ignored
        )

    assert {key for key, _ in caches.context} == {
        key for key, domain in known.items() if not gone(key, domain)
    }


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.sampled_from([0, 1, 2]))),
    st.sampled_from(["global", "domain", "pasid"]),
)
@pytest.mark.section("6.5.2.2")
def test_pasid_cache_invalidations_remove_what_6_5_2_2_says(
    entries: list[tuple[int, int, int]], granularity: str
) -> None:
    caches = TranslationCaches(KEEPS_STALE)
    known = {(source_id, pasid): domain for source_id, pasid, domain in entries}
    fault = TranslationFault(FaultReason.PASID_NOT_PRESENT)
    for key, domain in known.items():
        caches.pasid.put(key, PasidCacheEntry(domain, fault))
    match granularity:
        case "global":
            caches.invalidate_pasid_global()
        case "domain":
            caches.invalidate_pasid_domain(1)
        case _:
            caches.invalidate_pasid(1, 3)
    assert {key for key, _ in caches.pasid} == {
        key
        for key, domain in known.items()
        if granularity != "global"
        and not (domain == 1 and (granularity == "domain" or key[1] == 3))
    }


@example((3, 33), 3, -1, 1, 4, 5).via("the range ends where the table begins")
@example((3, 33), 3, 32, 1, 4, 5).via("the range begins where the table ends")
@given(
    st.sampled_from([(4, 41), (3, 33), (2, 25)]),
    st.integers(0, 40),
    st.integers(-70, 70),
    st.integers(1, 70),
    st.integers(1, 4),
    st.sampled_from([5, 6]),
)
@pytest.mark.section("6.5.2.7")
def test_host_permission_tables_go_with_what_they_cover(
    place: tuple[int, int], prefix: int, first: int, count: int, highest: int, domain_id: int
) -> None:
    level, shift = place
    start, end = prefix << shift, prefix + 1 << shift
    step = 1 << shift - 5
    caches = TranslationCaches(AGGRESSIVE)
    caches.host_tables.put((5, level, prefix), 7)
    low = max(0, start + first * step)
    caches.invalidate_host_permissions(domain_id, highest, low, low + count * step)
    gone = domain_id == 5 and level <= highest and low < end and start < low + count * step
    assert len(caches.host_tables) == (not gone)


def test_a_global_invalidation_leaves_nothing_in_any_cache() -> None:
    started = World(Mode.NESTED, pasid=5).start(Options(caches=AGGRESSIVE))
    caches = started.unit.caches
    assert started.admit() is not None
    caches.host_tables.put((5, 2, 0), 7)
    kinds = (caches.context, caches.pasid, caches.first_stage, caches.second_stage)
    assert all(len(kind) for kind in kinds)
    assert len(caches.iotlb)
    caches.clear()
    assert not any(len(kind) for kind in (*kinds, caches.iotlb, caches.host_tables))


@pytest.mark.section("6.2.4", "6.1")
def test_a_page_that_faulted_is_no_entry_of_a_table() -> None:
    world = World(Mode.SECOND, capabilities(cm=1))
    place = "second1"
    world.change(place, r=False, w=False)
    started = world.start(Options(caches=AGGRESSIVE))
    assert started.admit() is None
    assert {key[2] for key, _ in started.unit.caches.second_stage} == {21, 30, 39}
