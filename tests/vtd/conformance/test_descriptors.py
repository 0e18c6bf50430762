"""Memory for the descriptors of devices: what these do there changes nothing else of a case."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtd.conformance.descriptors import KEY, OWN, RUNS, Run, half_of, with_descriptors
from vtd.conformance.format import DESCRIPTORS, PAGE
from vtd.conformance.observing import observe
from vtd.fuzz.case import DEVICES, Case, dma_read, dma_write
from vtd.fuzz.strategies import driver_cases, table_cases
from vtd.unit.registers.capabilities import PROFILES

UNITS = st.sampled_from([PROFILES["qemu"], PROFILES["qemu-scalable-first"]])
CASES = st.one_of(
    driver_cases(UNITS, descriptors=True),
    table_cases(units=UNITS, with_pasids=False, settled=True, descriptors=True),
)


@settings(max_examples=15)
@given(CASES, st.sampled_from(RUNS))
def test_a_device_reaches_its_descriptors_and_changes_nothing_by_that(case: Case, run: Run) -> None:
    wide = with_descriptors(case, DEVICES)
    assert [
        {name: value for name, value in each.items() if name != KEY}
        for each in wide.steps
        if OWN not in each
    ] == list(case.steps)
    seen, before = observe(wide, *run), observe(case, *run)
    kept = [seen.outcomes[n] for n, step in enumerate(wide.steps) if OWN not in step]
    assert kept == before.outcomes
    for number, step in enumerate(wide.steps):
        half = half_of(step)
        if half is None:
            continue
        assert wide.steps[number - 1][OWN] and wide.steps[number + 1][OWN]
        assert seen.physical[number - 1] == seen.physical[number + 1] == half.memory
        assert half.memory // PAGE not in seen.structures
        moved = seen.physical[number]
        if moved is not None:
            end = moved + step["length"]
            assert end <= half.memory or half.memory + DESCRIPTORS <= moved


@pytest.mark.parametrize("transfer", [dma_read("d0", 0x20_0800, 64), dma_write("d0", 0x20_0, b"1")])
def test_the_other_half_of_a_page_will_do_where_there_is_no_other_page(
    transfer: dict[str, object],
) -> None:
    memory = ((int(str(transfer["iova"]), 0) & -PAGE, PAGE),)
    case = replace(Case(PROFILES["qemu"], (transfer,)), memory=memory)
    half = half_of(with_descriptors(case, ["d0"]).steps[1])
    assert half is not None
    assert (
        half.iova
        == half.memory
        == int(str(transfer["iova"]), 0) // PAGE * PAGE
        + (0 if int(str(transfer["iova"]), 0) & 0x800 else DESCRIPTORS)
    )


def test_a_device_without_memory_that_it_reaches_has_no_descriptors() -> None:
    transfer = dma_read("d0", 0x20_0000, PAGE)
    case = replace(Case(PROFILES["qemu"], (transfer,)), memory=((0x20_0000, PAGE),))
    assert with_descriptors(case, ["d0"]).steps == (transfer,)
    assert with_descriptors(case, []).steps == (transfer,)
