"""Translated requests: allowed, blocked, and checked against a host permission table."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from devices.dma import ATOMIC, READ, WRITE, AddressType, AtomicOp, CompletionStatus
from tests.support.directed_faults import CASES, Case
from tests.support.host_permissions import (
    TABLES,
    UNIT,
    add_tables,
    admitted,
    permitting_world,
    translated,
)
from tests.support.world import (
    HOLE,
    HOST,
    INTERRUPTS,
    PAGE,
    SCALABLE_MODES,
    Mode,
    Started,
    World,
    capabilities,
)
from vtd.layouts.descriptors import (
    HostPermissionGranularity,
    HostPermissionInvalidateDescriptor,
    HostPermissionLevels,
)
from vtd.layouts.registers import TranslationTableMode
from vtd.unit.caching.policy import AGGRESSIVE
from vtd.unit.observer import CacheName, Observer
from vtd.unit.options import Options
from vtd.unit.reporting.events import TranslatedRequestPassed
from vtd.unit.requests.faults import FaultReason

PASID = 0x45
UR, CA = CompletionStatus.UNSUPPORTED_REQUEST, CompletionStatus.COMPLETER_ABORT
OK = CompletionStatus.SUCCESS
ACCESSES = {READ: "read", WRITE: "write", ATOMIC: "atomic"}


def refused(started: Started, status: CompletionStatus, reason: FaultReason | None) -> None:
    """A translated request of the world ends like this, with this record."""
    request = translated(started.world)
    assert admitted(started, request) is status
    record = started.record()
    assert record.f == (reason is not None)
    if reason is not None:
        assert record.fr == reason
        assert record.at == AddressType.TRANSLATED


@pytest.mark.parametrize("mode", [Mode.LEGACY, *SCALABLE_MODES])
@pytest.mark.section("4.1.3")
def test_addresses_stay_what_they_are(mode: Mode) -> None:
    world = World(mode)
    if mode is Mode.LEGACY:
        world.change("context", tt=1)
        world.change("context", ssptptr=HOLE)  # no page table is looked at
    started = world.start()
    port = started.port()
    assert port.write_translated(HOST | PAGE - 2, b"across").ok
    assert port.read_translated(HOST | PAGE - 2, 6).data == b"across"
    passed = [event for event in started.events if isinstance(event, TranslatedRequestPassed)]
    assert len(passed) == 4
    assert port.read_translated(HOLE, 4).status is UR


R = FaultReason


@dataclass(frozen=True)
class Refusal:
    """A field of a structure, or the request, that makes a translated request fail."""

    reason: FaultReason
    place: str
    fields: dict[str, int]
    status: CompletionStatus = UR


REFUSALS = (
    Refusal(R.SM_ROOT_NOT_PRESENT, "root", {"lp": 0}),
    Refusal(R.SM_CONTEXT_READ_ERROR, "root", {"lctp": HOLE}),
    Refusal(R.SM_CONTEXT_NOT_PRESENT, "context", {"p": 0}),
    Refusal(R.SM_CONTEXT_INVALID, "context", {"dte": 0, "pre": 1}),
    Refusal(R.SM_CONTEXT_INVALID, "context", {"paside": 0, "eptr": 1}),
    Refusal(R.SM_CONTEXT_INVALID, "context", {"paside": 0, "eptr": 1, "dte": 0}),
    Refusal(R.DEVICE_TLB_DISABLED, "context", {"dte": 0}),
    Refusal(R.TRANSLATED_PASID_DISABLED, "context", {"eptr": 0}),
    Refusal(R.PASID_IS_RID_PASID, "context", {"rid_pasid": PASID}),
    Refusal(R.PASID_DIRECTORY_READ_ERROR, "context", {"pasiddirptr": HOLE}, CA),
    Refusal(R.PASID_DIRECTORY_NOT_PRESENT, "directory", {"p": 0}),
    Refusal(R.PASID_READ_ERROR, "directory", {"smptblptr": HOLE}, CA),
    Refusal(R.PASID_NOT_PRESENT, "pasid", {"p": 0}),
    Refusal(R.PASID_INVALID, "pasid", {"pgtt": 7}, CA),
    Refusal(R.HPT_TOP_READ_ERROR, "pasid", {"hptptr": HOLE}, CA),
    Refusal(R.HPT_READ_ERROR, "hpt4", {"addr": HOLE}, CA),
    Refusal(R.HPT_READ_ERROR, "hpt3", {"addr": HOLE}, CA),
    Refusal(R.HPT_READ_ERROR, "hpt2", {"addr": HOLE}, CA),
    Refusal(R.HPT_READ_DENIED, "hpt4", {"av": 0}),
    Refusal(R.HPT_READ_DENIED, "hpt3", {"av": 0}),
    Refusal(R.HPT_READ_DENIED, "hpt2", {"av": 0}),
    Refusal(R.HPT_READ_DENIED, "hpt1", {"pp": 0}),
)


@pytest.mark.parametrize("fpd", [False, True], ids=["", "FPD"])
@pytest.mark.parametrize(
    "case", REFUSALS, ids=[f"{case.reason:02X}h {case.place} {case.fields}" for case in REFUSALS]
)
@pytest.mark.section("4.2.5", "7.1.3")
@pytest.mark.fault("SCT.5 d", "SCT.10 d", "HPT.1 d", "HPT.3 d", "HPT.6 d")
def test_each_row_blocks(case: Refusal, fpd: bool) -> None:
    world = permitting_world(pasid=PASID)
    world.change(case.place, **case.fields)
    if fpd:
        world.change("context", fpd=True)
    suppressed = fpd and case.reason.qualified
    refused(world.start(), case.status, None if suppressed else case.reason)


TRANSLATED_REASONS = {
    *(0x01, 0x02, 0x03, 0x08, 0x09, 0x0A, 0x0B, 0x30, 0x31, 0x33, 0x38, 0x39, 0x3A, 0x40, 0x41),
    *(0x42, 0x43, 0x46, 0x48, 0x50, 0x51, 0x52, 0x58, 0x59, 0x5A, 0x5B, 0x89),
}
"""The translated request columns of Table 30, but for what no other request meets."""
ABORTED = {0x50, 0x52, 0x58, 0x5A, 0x5B}
TRANSLATED_CASES = [
    (case, mode)
    for case in CASES
    for mode in case.modes
    if case.reason in TRANSLATED_REASONS
    and mode is not Mode.LEGACY_PASS_THROUGH
    and case.condition != "LCT.4.3"  # no table is walked
    and "dt" in World(mode, **case.setup).unit.features
]


@pytest.mark.parametrize(
    ("case", "mode"),
    TRANSLATED_CASES,
    ids=[f"{case.reason:02X}h {mode.value}: {case.name}" for case, mode in TRANSLATED_CASES],
)
@pytest.mark.section("7.1.3")
def test_each_row_of_all_requests_blocks_these_too(case: Case, mode: Mode) -> None:
    unit = World(mode, **case.setup).unit
    checked = {"hpts": "smts" in unit.features, "hpt1gps": 0, "ptrs": "smts" in unit.features}
    unit = replace(unit, ecap=unit.ecap.replace(**checked))
    world = World(mode, **{**case.setup, "unit": unit})
    if mode is Mode.LEGACY:
        world.change("context", tt=1)
    else:
        world.change("context", hpte=True, eptr=True)
        world.change("pasid", hptptr=TABLES)
    case.breaks(world)
    started = world.start()
    request = translated(world, pasid=world.request.pasid)
    assert admitted(started, request) is (CA if case.reason in ABORTED else UR)
    record = started.record()
    assert (record.f, record.fr, record.at) == (True, case.reason, AddressType.TRANSLATED)


@pytest.mark.parametrize(
    ("place", "bit", "reason", "status"),
    [
        ("root", 5, R.SM_ROOT_RESERVED, UR),
        ("context", 7, R.SM_CONTEXT_RESERVED, UR),
        ("directory", 5, R.PASID_DIRECTORY_RESERVED, CA),
        ("pasid", 5, R.PASID_RESERVED, CA),
        ("hpt4", 0, R.HPT_RESERVED, CA),
        ("hpt4", 65, R.HPT_RESERVED, CA),
        ("hpt3", 2, R.HPT_RESERVED, CA),
        ("hpt3", 32, R.HPT_RESERVED, CA),
        ("hpt2", 63, R.HPT_RESERVED, CA),
        ("hpt2", 70, R.HPT_RESERVED, CA),
        ("hpt1", 127, R.HPT_RESERVED, CA),
    ],
)
@pytest.mark.fault("HPT.2 d")
def test_reserved_bits_block(
    place: str, bit: int, reason: FaultReason, status: CompletionStatus
) -> None:
    world = permitting_world()
    world.set_bits(place, 1 << bit)
    refused(world.start(), status, reason)


@pytest.mark.parametrize("level", [2, 3, 4])
@pytest.mark.section("9.12")
@pytest.mark.fields("HostPermissionL4Entry.av.addr", "HostPermissionL3Entry.av.addr")
@pytest.mark.fields("HostPermissionL2Entry.av.addr")
def test_an_entry_points_to_the_next_table_while_its_address_is_valid(level: int) -> None:
    world = permitting_world()
    entry = world.get(f"hpt{level}")
    assert admitted(world.start(), translated(world)) is OK
    world.put(f"hpt{level}", entry & ~(1 << 64))
    refused(world.start(), UR, R.HPT_READ_DENIED)
    world.put(f"hpt{level}", entry & ~(0xFF_FFFF_FFFF << 76) | (HOLE >> 12) << 76)
    refused(world.start(), CA, R.HPT_READ_ERROR)


def test_an_address_that_is_not_valid_is_not_looked_at() -> None:
    unit = capabilities(haw=46, hpts=1)
    world = World(Mode.SECOND, unit)
    world.change("context", hpte=True)
    world.change("pasid", hptptr=TABLES)
    add_tables(world, HOST | PAGE, READ)
    world.change("hpt4", av=False, addr=HOLE)
    refused(world.start(), UR, R.HPT_READ_DENIED)


@pytest.mark.parametrize("valid", [False, True])
@pytest.mark.parametrize("level", [2, 3, 4])
@pytest.mark.section("9.12")
def test_bits_above_the_host_address_width_are_reserved_even_in_an_address_that_is_not_valid(
    level: int, valid: bool
) -> None:
    unit = capabilities(haw=46, hpts=1, hpt1gps=1)
    world = World(Mode.SECOND, unit)
    world.change("context", hpte=True)
    world.change("pasid", hptptr=TABLES)
    add_tables(world, HOST | PAGE, READ)
    world.change(f"hpt{level}", av=valid)
    world.set_bits(f"hpt{level}", 1 << 64 + 46)
    refused(world.start(), CA, R.HPT_RESERVED)


@pytest.mark.parametrize("mode", [Mode.LEGACY, Mode.SECOND])
@pytest.mark.fault("LGN.1.2 d", "LGN.4 d", "SGN.4.1 d", "SGN.8.3 d")
def test_addresses_of_no_memory_are_blocked(mode: Mode) -> None:
    world = World(mode)
    if mode is Mode.LEGACY:
        world.change("context", tt=1)
    reasons = (0x04, 0x0E) if mode is Mode.LEGACY else (0x83, 0x87)
    for address, reason in zip((1 << 46, INTERRUPTS), reasons, strict=True):
        started = world.start()
        assert started.port().read_translated(address, 4).status is UR
        assert started.record().fr == reason


@pytest.mark.parametrize("mode", [Mode.LEGACY, Mode.LEGACY_PASS_THROUGH])
@pytest.mark.fault("LCT.5 d")
def test_legacy_context_entries_allow_them_with_one_type_only(mode: Mode) -> None:
    started = World(mode).start()
    assert started.port().read_translated(HOST, 4).status is UR
    assert started.record().fr == 0x0D


def test_pasids_are_blocked_in_legacy_mode() -> None:
    world = World(Mode.LEGACY, UNIT)
    world.change("context", tt=1)
    started = world.start()
    assert started.port().read_translated(HOST, 4, pasid=PASID).status is UR
    assert started.record().fr == 0x31


def test_pasids_are_blocked_without_a_trace_where_ptrs_is_not_reported() -> None:
    started = World(Mode.SECOND, pasid=PASID).start()
    assert started.port().read_translated(HOST, 4, pasid=PASID).status is UR
    assert not started.status()


@pytest.mark.parametrize(
    ("ttm", "reason"),
    [(TranslationTableMode.ABORT_DMA, 0x33), (TranslationTableMode.RESERVED_2, 0x30)],
)
def test_other_modes_block(ttm: TranslationTableMode, reason: int) -> None:
    world = World(Mode.SECOND)
    world.root = world.root.replace(ttm=ttm)
    started = world.start()
    assert started.port().read_translated(HOST, 4).status is UR
    assert started.record().fr == reason


def test_they_are_unsupported_while_remapping_is_off() -> None:
    started = World(Mode.SECOND).start()
    started.command(te=False)
    assert started.port().write_translated(HOST, b"1234").status is UR
    assert not started.status()


@pytest.mark.parametrize("permissions", [0, READ, WRITE, READ | WRITE])
@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("access", ACCESSES, ids=ACCESSES.values())
@pytest.mark.section("4.2.4.1")
@pytest.mark.fields("HostPermissionL1Entry.pp", "HostPermissionL2Entry.pp")
@pytest.mark.fields("HostPermissionL3Entry.pp")
@pytest.mark.fault("HPT.5 d", "HPT.6 d")
def test_page_permissions_of_any_level_decide(access: int, level: int, permissions: int) -> None:
    world = permitting_world()
    world.put("hpt1", 0)
    page_bit = {1: 12, 2: 21, 3: 30}[level]
    entry = world.get(f"hpt{level}")
    index = (HOST | PAGE) >> page_bit & {1: 31, 2: 15, 3: 7}[level]
    world.put(f"hpt{level}", entry | permissions << 4 * index)
    started = world.start()
    status = admitted(started, translated(world, access))
    missing = access & ~permissions
    assert (status is OK) == (not missing)
    if missing:
        assert started.record().fr == (0xA4 if missing & WRITE else 0xA5)


@pytest.mark.parametrize("zlr", [False, True])
@pytest.mark.parametrize("permissions", [0, READ, WRITE])
@pytest.mark.fault("HPT.4 d")
def test_zero_length_reads_need_any_permission_with_zlr(permissions: int, zlr: bool) -> None:
    unit = capabilities(haw=52, hpts=1, zlr=zlr)
    world = World(Mode.SECOND, unit)
    world.change("context", hpte=True)
    world.change("pasid", hptptr=TABLES)
    add_tables(world, HOST | PAGE, permissions)
    started = world.start()
    status = admitted(started, translated(world, length=0))
    allowed = bool(permissions) if zlr else bool(permissions & READ)
    assert (status is OK) == allowed
    if not allowed:
        assert started.record().fr == (0xA3 if zlr else 0xA5)


@pytest.mark.parametrize("size", range(4))
@pytest.mark.section("4.2.4")
@pytest.mark.fault("SPT.9 d")
def test_addresses_beyond_the_table_are_blocked(size: int) -> None:
    world = permitting_world()
    world.change("pasid", hptsz=size)
    started = world.start()
    beyond = translated(world, address=(1 << 49 + size) & (1 << 52) - 1 or 1 << 52)
    assert admitted(started, beyond) is UR
    assert started.record().fr == (0x60 if size < 3 else 0x83)


@given(
    st.sets(st.tuples(st.integers(0, 7), st.integers(1, 3)), max_size=4),
    st.sets(st.tuples(st.integers(0, 15), st.integers(1, 3)), max_size=6),
    st.sets(st.tuples(st.integers(0, 31), st.integers(1, 3)), max_size=8),
    st.integers(0, (1 << 33) - 1),
    st.sampled_from(list(ACCESSES)),
)
@pytest.mark.section("4.2.4")
def test_the_first_level_with_permissions_decides(
    gigabytes: set[tuple[int, int]],
    large: set[tuple[int, int]],
    small: set[tuple[int, int]],
    offset: int,
    access: int,
) -> None:
    """Against a search through ranges: 1 GiB first, then 2 MiB, then 4 KiB."""
    address = HOST & -(1 << 33) | offset
    assume(address >> 20 != 0xFEE)
    world = permitting_world()
    pages = []
    for name, shift, entries in (("hpt3", 30, gigabytes), ("hpt2", 21, large), ("hpt1", 12, small)):
        entry = world.get(name)
        bits = 0
        for page, permissions in dict(entries).items():
            bits |= permissions << 4 * page
            pages.append((shift, page, permissions))
        world.put(name, (0 if name == "hpt1" else entry) | bits)
    base = (HOST | PAGE) >> 25 << 25
    starts = {30: HOST & -(1 << 33), 21: base, 12: (HOST | PAGE) >> 17 << 17}
    expected = next(
        (
            permissions
            for shift, page, permissions in sorted(pages, reverse=True)
            if starts[shift] + (page << shift) <= address < starts[shift] + (page + 1 << shift)
        ),
        0,
    )
    status = admitted(world.start(), translated(world, access, address=address))
    assert (status is OK) == (not access & ~expected)


def test_without_hpte_the_table_is_not_asked() -> None:
    world = permitting_world()
    world.put("hpt4", 0)
    world.change("pasid", p=False)
    world.change("context", hpte=False)
    assert world.start().port().read_translated(HOST | PAGE, 4).ok


@pytest.mark.parametrize("major", [1, 2])
def test_protected_memory_is_out_of_reach_in_every_version(major: int) -> None:
    world = World(Mode.SECOND, capabilities(version=major))
    started = world.start()
    unit = started.unit
    unit.write_register(0x68, 4, HOST)
    unit.write_register(0x6C, 4, HOST)
    unit.write_register(0x64, 4, 1 << 31)
    assert started.port().read_translated(HOST | PAGE, 4).status is UR
    assert not started.status()


@pytest.mark.section("4.2.5")
def test_what_the_unit_gave_is_what_it_lets_through() -> None:
    world = World(Mode.NESTED, pasid=PASID)
    started = world.start()
    port = started.port()
    (entry,) = port.translate(world.request.address, pasid=PASID).entries
    assert port.write(world.request.address, b"data", pasid=PASID).ok
    assert port.read_translated(entry.address, 4).data == b"data"
    assert port.atomic(AtomicOp.SWAP, world.request.address, b"next", pasid=PASID).data == b"data"
    assert world.memory.read(HOST | PAGE, 4) == b"next"


G, L = HostPermissionGranularity, HostPermissionLevels
MB, GB = 1 << 20, 1 << 30


def caching_world() -> World:
    world = permitting_world(pasid=PASID)
    world.change("pasid", hptdid=9)
    return world


@pytest.mark.parametrize(
    ("fields", "leaf_goes", "table_goes"),
    [
        ({"g": G.GLOBAL}, True, True),
        ({"g": G.DOMAIN, "hptdid": 9, "ih": L.L1}, True, False),
        ({"g": G.DOMAIN, "hptdid": 9, "ih": L.L2_L1}, True, True),
        ({"g": G.DOMAIN, "hptdid": 8, "ih": L.ALL}, False, False),
        ({"g": G.PAGE_IN_DOMAIN, "hptdid": 9, "addr": HOST | PAGE}, True, False),
        ({"g": G.PAGE_IN_DOMAIN, "hptdid": 9, "addr": HOST | PAGE | 1 << 52}, True, False),
        ({"g": G.PAGE_IN_DOMAIN, "hptdid": 9, "addr": HOST | PAGE, "ih": L.ALL}, True, True),
        ({"g": G.PAGE_IN_DOMAIN, "hptdid": 9, "addr": HOST, "ih": L.ALL}, False, True),
        ({"g": G.PAGE_IN_DOMAIN, "hptdid": 9, "addr": HOST, "am": 9, "ih": L.L1}, True, False),
        ({"g": G.PAGE_IN_DOMAIN, "hptdid": 9, "addr": HOST + 32 * MB, "ih": L.ALL}, False, False),
        ({"g": G.PAGE_IN_DOMAIN, "hptdid": 9, "addr": HOST - 32 * MB, "ih": L.ALL}, False, False),
    ],
)
@pytest.mark.section("6.2.6", "6.5.2.7")
def test_host_permissions_are_kept_until_an_invalidation_covers_them(
    fields: dict[str, int], leaf_goes: bool, table_goes: bool
) -> None:
    world = caching_world()
    started = world.start(Options(caches=AGGRESSIVE))
    started.enable_queue(wide=True)
    beside = translated(world)._replace(address=HOST | PAGE + 0x1000)
    assert admitted(started, translated(world)) is OK
    assert admitted(started, beside) is UR  # its permissions are 0, and kept
    world.put("hpt1", (1 << 128) - 1 & 0x33333333_33333333_33333333_33333333)
    assert admitted(started, beside) is UR
    world.put("hpt1", 0)
    assert admitted(started, translated(world)) is OK
    world.change("hpt2", addr=HOLE)
    assert admitted(started, translated(world)) is OK
    started.submit(HostPermissionInvalidateDescriptor.of(**fields))
    # the leaf goes back to the level-1 table, which denies, or to the hole that level 2 leads to
    expected = CA if table_goes and leaf_goes else UR if leaf_goes else OK
    assert admitted(started, translated(world)) is expected


@pytest.mark.parametrize("kept", [False, True])
def test_lookups_in_a_cache_of_host_permissions_are_counted_where_it_is(kept: bool) -> None:
    started = caching_world().start(Options(caches=AGGRESSIVE) if kept else Options())
    for count in (1, 2):
        address = HOST | PAGE * count
        admitted(started, translated(started.world)._replace(address=address))
        counters = started.unit.caches.host_tables.counters
        assert (counters.misses, counters.hits) == ((1, count - 1) if kept else (0, 0))


def test_whoever_watches_hears_which_host_permission_table_was_looked_for() -> None:
    """The deepest, which an L2 entry leads to: bits of the address from 25 upwards select it."""
    asked: list[tuple[object, object]] = []

    class Watching(Observer):
        def asked(self, cache: CacheName, key: object, entry: object | None) -> None:
            if cache is CacheName.HOST_PERMISSION_TABLE:
                asked.append((key, entry is not None))

    world = permitting_world()
    add_tables(world, HOST | PAGE + 0x2_0000, READ)
    started = world.start(Options(caches=AGGRESSIVE))
    started.unit.observe(Watching())
    for page in (PAGE, PAGE + 0x2_0000):
        assert admitted(started, translated(world, address=HOST | page)) is OK
    key = 0, 2, (HOST | PAGE) >> 25
    assert asked == [(key, False), (key, True)]


def test_what_is_not_worth_keeping_is_read_again() -> None:
    world = caching_world()
    started = world.start(Options(caches=AGGRESSIVE))
    held = world.get("hpt1")
    world.put("hpt1", 0)  # no permission at all in the entry (6.2.6)
    assert admitted(started, translated(world)) is UR
    world.put("hpt1", held)
    assert admitted(started, translated(world)) is OK


@pytest.mark.section("7.1.1")
def test_a_cached_permission_remembers_that_its_faults_are_not_recorded() -> None:
    world = permitting_world()
    world.change("pasid", fpd=True)
    add_tables(world, HOST | PAGE, READ)
    started = world.start(Options(caches=AGGRESSIVE))
    assert admitted(started, translated(world)) is OK
    assert admitted(started, translated(world, WRITE)) is UR
    assert not started.record().f


@pytest.mark.section("6.2.6.2")
def test_requests_with_and_without_pasid_have_permissions_of_their_own() -> None:
    world = permitting_world(Mode.SECOND)
    started = world.start(Options(caches=AGGRESSIVE))
    assert admitted(started, translated(world)) is OK
    world.put("hpt1", 0)
    assert admitted(started, translated(world)) is OK
    world.change("context", rid_pasid=1)
    started.unit.caches.context.clear()
    started.unit.caches.host_tables.clear()
    assert admitted(started, translated(world, pasid=0)) is UR


@pytest.mark.section("6.2.6.1")
@pytest.mark.fields("PasidEntry.hptpfd")
def test_no_host_permission_is_prefetched_for_a_translation() -> None:
    for forbidden in (False, True):
        world = permitting_world()
        world.change("pasid", hptpfd=forbidden)
        started = world.start(Options(caches=AGGRESSIVE))
        assert started.port().translate(world.address).entries[0].r
        caches = started.unit.caches
        assert len(caches.host_permissions) == len(caches.host_tables) == 0


def test_a_unit_that_sets_the_root_table_anew_forgets_host_permissions() -> None:
    world = caching_world()
    started = world.start(Options(caches=AGGRESSIVE))
    assert admitted(started, translated(world)) is OK
    world.put("hpt1", 0)
    started.set_root(world.root)
    assert admitted(started, translated(world)) is UR
