"""Known differences to QEMU hold by their cause; what QEMU answers is given here, without QEMU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pagetables.bits import BitRecord
from vtd.fuzz.case import DEVICES, Case, Outcome, Step, store
from vtd.fuzz.departures import differences, known_differences, request_of
from vtd.fuzz.driver import SECOND, ModelDriver
from vtd.fuzz.places import DATA
from vtd.fuzz.targets import engine_as_qemu
from vtd.layouts.entries import (
    PasidDirectoryEntry,
    PasidTranslationType,
)
from vtd.unit.departures import QEMU
from vtd.unit.registers.capabilities import PROFILES

ENGINE = engine_as_qemu()
PAGE = 0x10
PASS_THROUGH = PasidTranslationType.PASS_THROUGH


def driver(
    *, scalable: bool, kind: PasidTranslationType = SECOND, first: bool = False
) -> ModelDriver:
    """Device d0 with one page at 0, in one stage, or passed through; ``first``: SSTS is 0."""
    stages = "qemu-scalable-first" if first else "qemu-scalable"
    unit = PROFILES[stages if scalable else "qemu"]
    made = ModelDriver(unit, scalable=scalable, departures=QEMU)
    made.attach("d0", 1, made.kinds.index(kind))
    made.map(1, 0, 0, 1, "r-")
    return made


def changed(made: ModelDriver, kind: type[BitRecord] | int, bits: int) -> None:
    """Turn over bits of a structure, or of the paging entry of a level."""
    places = made.places()
    if isinstance(kind, int):
        place = next(each for each in places if each.name.endswith(f"level {kind}"))
    else:
        place = next(each for each in places if each.record is kind)
    made.emit(store(place.address, made.word(place) ^ bits, place.size))


def asked(made: ModelDriver, address: int = PAGE, *, write: bool = False) -> Case:
    """The case with one request at its end."""
    made.emit(made.request("d0", address, write=write, pasid=None))
    return made.case()


def answers(case: Case, reason: int | None, data: str | None = None) -> list[Outcome]:
    """What QEMU says: a fault of a reason is recorded, or none and the device gets its data."""
    return list(_answers(case, reason, data))


def _answers(case: Case, reason: int | None, data: str | None) -> Iterator[Outcome]:
    request: Step = {}
    for step in case.steps:
        offset = step.get("offset")
        if step["op"].startswith("dma"):
            request = step
            yield {"fault": True} if reason is not None else data and {"data": data}
        elif step["op"] != "reg_read":
            yield None
        elif reason is None:
            yield 0
        elif offset == "0x34":
            yield 2
        elif offset == "0x220":
            yield int(request["iova"], 0) & -0x1000
        else:
            read = request["op"] == "dma_read"
            yield 1 << 63 | read << 62 | reason << 32 | DEVICES[request["device"]]


def explained(case: Case, qemu: list[Outcome]) -> list[str] | None:
    """The names of all that explain a difference; None if it is unexplained."""
    engine = ENGINE.run(case)
    found = differences(case, engine, qemu)
    assert found, "engine and QEMU agree"
    known = known_differences(case, request_of(case, found[0]), qemu)
    return known if known is None else [each.name for each in known]


def test_nothing_is_cached_where_translation_is_off_between_requests() -> None:
    made = driver(scalable=False)
    asked(made)
    case = asked(made, write=True)
    reads = [read for read in ENGINE.run(case) if isinstance(read, int)]
    assert reads[-3] == 2
    assert reads[-1] >> 32 & 0xFF == 0x05


def test_no_device_stays_passed_through_where_translation_is_off_between_requests() -> None:
    made = driver(scalable=True, kind=PASS_THROUGH)
    asked(made)
    changed(made, PasidDirectoryEntry, 1)
    reads = [read for read in ENGINE.run(asked(made)) if isinstance(read, int)]
    assert reads[-3] == 2
    assert reads[-1] >> 32 & 0xFF == 0x51


def test_a_denied_right_may_come_before_what_is_broken_only_if_an_entry_denies_it() -> None:
    made = driver(scalable=False)
    changed(made, 2, 2 | 1 << 62)
    case = asked(made, write=True)
    assert explained(case, answers(case, 0x05)) == ["check_rights_first"]
    assert explained(case, answers(case, 0x06)) is None
    other = driver(scalable=False)
    changed(other, 2, 1 << 62)
    case = asked(other)
    assert explained(case, answers(case, 0x06)) is None


@pytest.mark.parametrize(("level", "right", "wrong"), [(4, 0x03, 0x07), (3, 0x07, 0x03)])
def test_a_paging_entry_of_ones_is_unreadable_to_qemu(level: int, right: int, wrong: int) -> None:
    made = driver(scalable=False)
    place = next(each for each in made.places() if each.name.endswith(f"level {level}"))
    changed(made, level, made.word(place) ^ (1 << 64) - 1)
    case = asked(made)
    assert explained(case, answers(case, right)) == ["take_ones_for_unreadable"]
    assert explained(case, answers(case, wrong)) is None


def test_a_paging_entry_of_ones_is_unreadable_before_its_snoop_bit_counts() -> None:
    made = driver(scalable=True)
    place = next(each for each in made.places() if each.name.endswith("level 2"))
    changed(made, 2, made.word(place) ^ (1 << 64) - 1)
    case = asked(made)
    assert explained(case, answers(case, 0x07)) == ["take_ones_for_unreadable"]


def test_snooped_pages_of_scalable_mode_are_translated_by_qemu() -> None:
    made = driver(scalable=True)
    changed(made, 1, 1 << 11)
    case = asked(made)
    data = DATA.to_bytes(8, "little").hex()
    assert explained(case, answers(case, None, data)) == ["ignore_snp_without_sc"]
    assert explained(case, answers(case, None, "ff" * 8)) is None


def test_a_pasid_table_in_the_hole_below_1_mib_has_invalid_entries_in_qemu() -> None:
    made = driver(scalable=True)
    place = next(each for each in made.places() if each.record is PasidDirectoryEntry)
    changed(made, PasidDirectoryEntry, made.word(place) ^ 0xB_7001)
    case = asked(made)
    assert explained(case, answers(case, 0x5B)) == ["read_low_memory"]
    assert explained(case, answers(case, 0x52)) is None


@pytest.mark.parametrize("pointer", [0xD_5003, 0xFEE0_0003])
def test_a_paging_entry_where_devices_are_denies_every_right_in_qemu(pointer: int) -> None:
    made = driver(scalable=False)
    place = next(each for each in made.places() if each.name.endswith("level 2"))
    changed(made, 2, made.word(place) ^ pointer)
    case = asked(made)
    assert explained(case, answers(case, 0x06)) == ["read_low_memory"]
    elsewhere = driver(scalable=False)
    changed(elsewhere, 2, made.word(place) ^ 0x9000_0003)
    case = asked(elsewhere)
    assert explained(case, answers(case, 0x06)) is None


@pytest.mark.parametrize(("page", "known"), [(0xFEE0_0000, True), (0xC000_0000, False)])
def test_a_large_page_over_the_interrupt_range_is_refused_by_qemu_as_a_whole(
    page: int, known: bool
) -> None:
    made = driver(scalable=False)
    place = next(each for each in made.places() if each.name.endswith("level 2"))
    changed(made, 2, made.word(place) ^ (page | 0x83))
    case = asked(made, 0x1F_F010)
    names = explained(case, answers(case, 0x0E))
    assert names == (["refuse_whole_large_page"] if known else None)
