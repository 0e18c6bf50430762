"""Sections: what a case touches, and which section a departure is held against."""

from dataclasses import replace

import pytest

from tests.vtd.conformance.interpreter import Machine
from tests.vtd.conformance.kits import built, judged, probed
from vtd.conformance.judgement import Judged, Verdict
from vtd.conformance.score import SECTIONS
from vtd.conformance.sections import section_rows, sections_of
from vtd.fuzz.case import Case, dma_read, enable, reg_read
from vtd.unit.registers.capabilities import PROFILES


def touched(*steps: dict[str, object], profile: str = "qemu") -> set[str]:
    return {each.number for each in sections_of(Case(PROFILES[profile], steps))}


def test_a_case_touches_what_the_unit_meets_in_it() -> None:
    assert touched(reg_read(0x34, 4, 0xFF)) == {"11.4.7.1"}
    assert touched(*enable(0x1000), dma_read("d0", 0, 8)) == {"9.1", "7.1.3"}
    scalable = touched(*enable(0x1000, mode=1), dma_read("d0", 0, 8), profile="qemu-scalable")
    assert scalable == {"9.2", "7.1.3"}


@pytest.fixture(scope="module")
def passed() -> Judged:
    """A case of a driver, which the engine passes."""
    image = built(probed("qemu-scalable"), 1, "driver")
    return judged(image, Machine(PROFILES["qemu-scalable"]))[0]


def test_a_departure_is_held_against_its_section(passed: Judged) -> None:
    failed = replace(passed, verdict=Verdict.FAILED, causes=("report_legacy_codes",))
    rows = {each.section: each for each in section_rows([passed, failed])}
    assert (rows["7.1.3"].failed, rows["7.1.3"].causes) == (1, ("report_legacy_codes",))
    others = [each for number, each in rows.items() if number != "7.1.3"]
    assert others
    assert all((each.cases, each.passed, each.elsewhere) == (2, 1, 1) for each in others)
    numbers = [tuple(map(int, number.split("."))) for number in rows]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_every_departure_is_held_against_something(passed: Judged, name: str) -> None:
    failed = replace(passed, verdict=Verdict.FAILED, causes=(name,))
    held = any(name in each.causes for each in section_rows([failed]))
    assert held or SECTIONS[name][0].startswith("none")
