"""Units that depart in what they look at of a structure, and in what they keep or drop of it."""

from __future__ import annotations

import pytest

from devices.dma import READ as READ_ACCESS
from devices.dma import WRITE
from pagetables.bits import BitRecord, Implementation
from tests.support.world import HOST, Mode, World
from tests.support.world import PAGE as PAGE_OF_WORLD
from vtd.fuzz.case import store
from vtd.fuzz.driver import FIRST, NESTED, PASS_THROUGH, SECOND, ModelDriver
from vtd.fuzz.places import DATA
from vtd.fuzz.targets import EngineTarget
from vtd.layouts.descriptors import (
    ContextCacheInvalidateDescriptor,
    PasidCacheInvalidateDescriptor,
)
from vtd.layouts.entries import (
    ContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
    PasidTranslationType,
    ScalableContextEntry,
    ScalableRootEntry,
)
from vtd.unit.caching.policy import KEEPS_STALE
from vtd.unit.departures import Departures, departures_named
from vtd.unit.options import Options
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.reporting.events import RequestBlocked
from vtd.unit.translation.rules import reserved_bits

PAGE = 0x10
READ = DATA.to_bytes(8, "little").hex()
FPD = 2


def driver(
    *, scalable: bool = True, kind: PasidTranslationType = SECOND, first: bool = False
) -> ModelDriver:
    """Device d0 with one page to read at 0, in one stage, or passed through."""
    stages = "qemu-scalable-first" if first else "qemu-scalable"
    made = ModelDriver(PROFILES[stages if scalable else "qemu"], scalable=scalable)
    made.attach("d0", 1, made.kinds.index(kind))
    made.map(1, 0, 0, 1, "r-")
    return made


def change(made: ModelDriver, kind: type[BitRecord], bits: int) -> None:
    """Turn over bits of a structure."""
    place = next(each for each in made.places() if each.record is kind)
    made.emit(store(place.address, made.word(place) ^ bits, place.size))


def answer(
    made: ModelDriver, *names: str, address: int = PAGE, write: bool = False
) -> int | str | None:
    """What the last of a driver's requests meets: a code in the record, its data, or neither."""
    made.emit(made.request("d0", address, write=write, pasid=None))
    case = made.case()
    outcomes = EngineTarget(KEEPS_STALE, departures=departures_named(names)).run(case)
    high = next(
        outcome
        for step, outcome in zip(reversed(case.steps), reversed(outcomes), strict=True)
        if step.get("offset") == "0x228"
    )
    if high >> 63:
        return int(high) >> 32 & 0xFF
    last = max(number for number, step in enumerate(case.steps) if step["op"].startswith("dma"))
    outcome = outcomes[last]
    return outcome.get("data") if outcome else None


@pytest.mark.parametrize(
    ("kind", "bits", "codes"),
    [
        (ScalableRootEntry, 1, (0x39, 0x01)),
        (ScalableRootEntry, 2, (0x3A, 0x0A)),
        (ScalableContextEntry, 1, (0x41, 0x02)),
        (ScalableContextEntry, 1 << 100, (0x42, 0x0B)),
        (PasidEntry, 1, (0x59, 0x59)),
    ],
)
def test_codes_of_legacy_mode_stand_for_those_of_scalable_mode(
    kind: type[BitRecord], bits: int, codes: tuple[int, int]
) -> None:
    for names, code in zip(((), ("report_legacy_codes",)), codes, strict=True):
        made = driver()
        change(made, kind, bits)
        assert answer(made, *names) == code


def test_a_denied_right_has_the_code_of_legacy_mode_by_access_but_not_of_a_first_stage() -> None:
    assert answer(driver(), write=True) == 0x85
    assert answer(driver(), "report_legacy_codes", write=True) == 0x05
    assert answer(driver(), "report_legacy_codes", address=0x5000) == 0x06
    assert answer(driver(), "report_legacy_codes", address=0x5000, write=True) == 0x05
    assert answer(driver(kind=FIRST, first=True), "report_legacy_codes", write=True) == 0x85


def test_fpd_is_heeded_for_all_but_reserved_fields_and_pasid_structures() -> None:
    for bits, codes in ((1 << 100, (None, 0x42)), (1, (None, None))):
        for names, code in zip(((), ("record_despite_fpd",)), codes, strict=True):
            made = driver()
            change(made, ScalableContextEntry, bits | FPD)
            assert answer(made, *names) == code
    made = driver(scalable=False)
    change(made, ContextEntry, 1 << 127 | FPD)
    assert answer(made, "record_despite_fpd") == 0x0B


@pytest.mark.parametrize(("kind", "bits"), [(PasidDirectoryEntry, 4), (PasidEntry, 1)])
def test_fpd_of_pasid_structures_may_count_only_in_the_context_entry(
    kind: type[BitRecord], bits: int
) -> None:
    code = 0x52 if kind is PasidDirectoryEntry else 0x59
    for names, wanted in (((), None), (("record_despite_fpd",), code)):
        made = driver()
        change(made, kind, bits | FPD)
        assert answer(made, *names) == wanted
    made = driver()
    change(made, kind, bits)
    change(made, ScalableContextEntry, FPD)
    assert answer(made, "record_despite_fpd") is None


@pytest.mark.parametrize("bits", [1 << 2, 1 << 7])
def test_reserved_directory_bits_may_be_overlooked(bits: int) -> None:
    made = driver()
    change(made, PasidDirectoryEntry, bits)
    assert answer(made) == 0x52
    assert answer(made, "overlook_reserved_bits") == READ


@pytest.mark.parametrize(
    ("kind", "first", "record", "bit", "code"),
    [
        (SECOND, False, PasidDirectoryEntry, 50, 0x58),
        (SECOND, False, PasidEntry, 50, 0x7B),
        (FIRST, True, PasidEntry, 128 + 50, 0x73),
    ],
)
def test_reserved_bits_above_a_pointer_lead_nowhere_where_they_are_overlooked(
    kind: PasidTranslationType, first: bool, record: type[BitRecord], bit: int, code: int
) -> None:
    made = driver(kind=kind, first=first)
    change(made, record, 1 << bit)
    assert answer(made, "overlook_reserved_bits") == code


def test_bits_4_2_and_84_64_of_a_context_entry_are_those_overlooked() -> None:
    unit = Implementation(39, 16, frozenset())
    overlooked = 0b11100 | (1 << 85) - (1 << 64)
    reserved = ScalableContextEntry.reserved_mask(unit)
    assert reserved & overlooked == overlooked
    departures = Departures(overlook_reserved_bits=True)
    assert reserved_bits(departures, ScalableContextEntry, unit) == reserved & ~overlooked


@pytest.mark.parametrize("bit", [85, 100])
def test_context_entries_are_looked_at_where_directories_are_not(bit: int) -> None:
    made = driver()
    change(made, ScalableContextEntry, 1 << bit)
    assert answer(made, "overlook_reserved_bits") == 0x42


@pytest.mark.section("9.4")
def test_rid_pasid_counts_where_the_unit_has_it_though_reserved_bits_are_overlooked() -> None:
    """RPS: without it requests without PASID have PASID 0, whatever the entry says."""
    made = driver()
    change(made, ScalableContextEntry, 1 << 70)
    assert answer(made) == 0x42
    assert answer(made, "overlook_reserved_bits") == READ
    world = World(Mode.SECOND, rid_pasid=0x45)
    options = Options(departures=departures_named(["overlook_reserved_bits"]))
    assert world.start(options).admit() == HOST | PAGE_OF_WORLD


@pytest.mark.parametrize(
    ("bits", "code"), [(1 | int(SECOND ^ NESTED) << 6, 0x5B), (1 | 0b111 << 2, 0x5B), (1, 0x59)]
)
def test_an_absent_pasid_entry_may_be_invalid_first(bits: int, code: int) -> None:
    made = driver()
    change(made, PasidEntry, bits)
    assert answer(made) == 0x59
    assert answer(made, "check_pgtt_before_present") == code


@pytest.mark.parametrize("scalable", [False, True])
def test_pass_through_may_know_no_width(scalable: bool) -> None:
    made = driver(scalable=scalable, kind=PASS_THROUGH)
    assert answer(made, address=1 << 48) == (0x83 if scalable else 0x04)
    made = driver(scalable=scalable, kind=PASS_THROUGH)
    assert answer(made, "pass_beyond_host_width", address=1 << 48) is None
    made = driver(scalable=scalable)
    assert answer(made, "pass_beyond_host_width", address=1 << 48) == (0x84 if scalable else 0x04)


def test_the_other_half_of_a_root_entry_may_count() -> None:
    made = driver()
    change(made, ScalableRootEntry, 1 << 64 + 1)
    assert answer(made) == READ
    assert answer(made, "check_both_root_halves") == 0x3A


@pytest.mark.parametrize("scalable", [False, True])
def test_a_right_that_a_cached_page_denies_may_be_no_fault(scalable: bool) -> None:
    code = 0x85 if scalable else 0x05
    for names, wanted in (((), code), (("drop_denied_hits",), None)):
        made = driver(scalable=scalable)
        made.emit(made.request("d0", PAGE, write=False, pasid=None))
        assert answer(made, *names, write=True) == wanted
    assert answer(driver(scalable=scalable), "drop_denied_hits", write=True) == code


def passed_before(*, settled: bool) -> ModelDriver:
    """d0 was passed through and now has a page; the driver has invalidated what it owes."""
    made = driver(kind=PASS_THROUGH)
    made.emit(made.request("d0", PAGE, write=False, pasid=None))
    made.attach("d0", 2, made.kinds.index(SECOND))
    made.map(2, 0, 0, 1, "r-")
    if settled:
        made.settle()
    return made


def test_a_device_may_stay_passed_through_until_its_context_is_invalidated() -> None:
    assert answer(passed_before(settled=False)) == READ
    assert answer(passed_before(settled=False), "keep_pass_through") == "00" * 8
    assert answer(passed_before(settled=False), "keep_pass_through", address=1 << 50) is None
    assert answer(passed_before(settled=True), "keep_pass_through") == READ


def test_a_device_that_stays_passed_through_has_the_addresses_that_it_asks_for() -> None:
    world = World(Mode.PASS_THROUGH)
    started = world.start(Options(departures=departures_named(["keep_pass_through"])))
    world.change("pasid", p=False)
    for address in (HOST | 0x1234, HOST | 0x2FFF, HOST | 0xF_F000):
        assert started.admit(world.request._replace(address=address)) == address


def test_an_entry_that_was_known_is_looked_at_when_its_domain_is_invalidated() -> None:
    made = driver(kind=PASS_THROUGH)
    made.emit(made.request("d0", PAGE, write=False, pasid=None))
    made.settle()
    made.attach("d0", 2, made.kinds.index(SECOND))
    made.map(2, 0, 0, 1, "r-")
    assert answer(made, "keep_pass_through") == READ


def test_another_device_is_translated_meanwhile() -> None:
    made = passed_before(settled=False)
    made.attach("d1", 2, made.kinds.index(SECOND))
    case_answer = answer(made, "keep_pass_through")
    assert case_answer == "00" * 8
    made.emit(made.request("d1", PAGE, write=False, pasid=None))
    case = made.case()
    outcomes = EngineTarget(KEEPS_STALE, departures=departures_named(["keep_pass_through"])).run(
        case
    )
    reads = [outcome for outcome in outcomes if isinstance(outcome, dict) and "data" in outcome]
    assert reads[-1] == {"data": READ}


def test_a_unit_with_a_first_stage_looks_at_the_domain_that_it_knew_first() -> None:
    """It comes to know an entry when the root table is set, and keeps it while there is one."""
    made = ModelDriver(PROFILES["qemu-scalable-first"], scalable=True)
    kinds = {kind: made.kinds.index(kind) for kind in (FIRST, PASS_THROUGH)}
    made.attach("d0", 3, kinds[FIRST])
    made.settle()
    made.attach("d0", 1, kinds[PASS_THROUGH])
    assert answer(made, "keep_pass_through", address=DATA + 16) == READ
    made.attach("d0", 3, kinds[FIRST])
    assert answer(made, "keep_pass_through", address=DATA + 16) == READ
    assert answer(made, address=DATA + 16) == 0x71
    made.detach("d0")
    assert answer(made, "keep_pass_through", address=DATA + 16) == 0x59


@pytest.mark.parametrize(("granted", "reason"), [({"r": False}, 0x86), ({"w": False}, 0x85)])
def test_a_dropped_request_says_which_right_it_lacked(granted: dict[str, int], reason: int) -> None:
    world = World(Mode.SECOND)
    world.change("second1", **granted)
    started = world.start(Options(departures=departures_named(["drop_denied_hits"])))
    accesses = (READ_ACCESS, WRITE) if reason == 0x85 else (WRITE, READ_ACCESS)
    answers = [started.admit(world.request._replace(access=access)) for access in accesses]
    assert answers == [HOST | PAGE_OF_WORLD, None]
    blocked = [each for each in started.events if isinstance(each, RequestBlocked)]
    assert [(each.reason, each.recorded) for each in blocked] == [(reason, False)]


@pytest.mark.parametrize("source_id", [0x0308, 0x0381])
def test_devices_of_every_bus_and_half_stay_passed_through_until_their_own_context_is_invalidated(
    source_id: int,
) -> None:
    world = World(Mode.PASS_THROUGH, source_id=source_id)
    started = world.start(Options(departures=departures_named(["keep_pass_through"])))
    started.enable_queue(wide=True)
    world.change("pasid", p=False)  # no request was made before
    for other in (source_id ^ 1, source_id ^ 0x80, source_id ^ 0x100):
        started.submit(ContextCacheInvalidateDescriptor.of(g=3, sid=other))
        assert started.admit() == HOST | PAGE_OF_WORLD
    started.submit(ContextCacheInvalidateDescriptor.of(g=3, sid=source_id))
    assert started.admit() is None


def test_an_entry_that_went_away_is_not_the_one_that_is_known() -> None:
    """One that comes later is looked at when its own domain is invalidated."""
    world = World(Mode.SECOND)
    started = world.start(Options(departures=departures_named(["keep_pass_through"])))
    started.enable_queue(wide=True)
    gone = ContextCacheInvalidateDescriptor.of(g=3, sid=world.source_id)
    world.change("pasid", p=False)
    started.submit(gone)
    world.change("pasid", p=True, did=9, pgtt=PASS_THROUGH)
    started.submit(gone)
    assert started.admit() == world.request.address
    world.change("pasid", pgtt=SECOND)
    started.submit(PasidCacheInvalidateDescriptor.of(g=0, did=9))
    assert started.admit() == HOST | PAGE_OF_WORLD != world.request.address
