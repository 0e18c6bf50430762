"""A unit that uses invalidated interrupt entries is found out, and a sound one never is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetables.build import FramePool
from pagetables.memory import PhysicalMemory
from vtd.layouts.interrupt_entries import RemappedIrte
from vtd.live.defects import DEFECTS
from vtd.live.invalidated_interrupts import InvalidatedInterrupts
from vtd.software.driver import Driver
from vtd.unit.caching.policy import POLICIES
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.unit import RemappingUnit

ENTRY = RemappedIrte.of(p=True, v=0x41, dst=0x100)
FOUND = "interrupt entry cache entry {} used after an iec_inv that removed it"


class Guest:
    """A driver with four interrupts, and a device that sends them."""

    def __init__(self, caches: str, broken: str | None = None) -> None:
        memory = PhysicalMemory()
        memory.add_region(0, 0x100_0000)
        capabilities = PROFILES["qemu"]
        unit = RemappingUnit(capabilities, memory, Options(caches=POLICIES[caches]))
        if broken is not None:
            DEFECTS[broken].plant(unit)
        self.watch = InvalidatedInterrupts(unit)
        frames = FramePool(0x1000, 0x40_0000)
        self.driver = Driver(
            unit, memory, frames, host_address_width=capabilities.host_address_width
        )
        self.driver.start(interrupts=True)
        self.unit, self.port = unit, UnitPort(unit, memory, 0x28)
        self.entries = [self.driver.interrupts.allocate(ENTRY) for _ in range(4)]

    def send(self, number: int) -> None:
        """The device sends an interrupt."""
        self.port.write(0xFEE0_0010 | self.entries[number] << 5, bytes(4))

    def move(self, number: int, destination: int) -> None:
        """The interrupt goes to another processor."""
        changed = ENTRY.replace(dst=destination << 8)
        self.driver.interrupts.change(self.entries[number], changed)


numbers = st.integers(0, 3)
steps = st.one_of(
    st.tuples(st.just("send"), numbers),
    st.tuples(st.just("move"), numbers, st.integers(0, 255)),
)


@given(st.lists(steps), st.sampled_from(sorted(POLICIES)))
def test_nothing_is_found_of_a_sound_unit(made: list[tuple[object, ...]], caches: str) -> None:
    guest = Guest(caches)
    for name, *values in made:
        getattr(guest, str(name))(*values)
    assert guest.watch.findings == []


@pytest.mark.section("6.5.2.8")
@given(st.lists(numbers, max_size=8), st.sets(numbers), numbers)
def test_each_entry_that_outlives_its_invalidation_is_named(
    before: list[int], moved: set[int], last: int
) -> None:
    guest = Guest("aggressive", "no-interrupt-invalidation")
    for number in before:
        guest.send(number)
    for number in moved:
        guest.move(number, 7)
    guest.send(last)
    named = [FOUND.format(guest.entries[last])] if last in moved and last in before else []
    assert [line.partition(":")[0] for line in guest.watch.findings] == named
