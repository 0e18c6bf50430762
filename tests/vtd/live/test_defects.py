"""Each planted defect is one: a small kernel with a driver and a device complains of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.dma import READ, WRITE
from pagetables.build import FramePool
from pagetables.memory import PhysicalMemory
from vtd.layouts.interrupt_entries import RemappedIrte
from vtd.layouts.registers import FaultRecording
from vtd.live.cells import all_cells
from vtd.live.defects import DEFECTS
from vtd.software.driver import Driver
from vtd.software.registers import NoAnswerError
from vtd.unit.caching.policy import POLICIES
from vtd.unit.interrupts.outcome import Interrupt
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.reporting.events import InterruptDelivered, MessageSent
from vtd.unit.unit import RemappingUnit

SOURCE_ID = 0x28
PAGE, LARGE = 0x1000, 0x20_0000
IOVA, LARGE_IOVA, READ_ONLY, NOWHERE = 0x10_0000, 0x4000_0000, 0x20_0000, 0x30_0000
DATA, OTHER, LARGE_DATA = 0x80_0000, 0x90_0000, 0xA0_0000
EVENT = 0xFEE0_1000
FECTL, FEDATA, FEADDR, FSTS, FRCD = 0x38, 0x3C, 0x40, 0x34, 0x220


class Kernel:
    """A unit with a driver, one device behind it, and what it says of the unit."""

    def __init__(self, broken: str | None, profile: str, caches: str = "default") -> None:
        self.memory = PhysicalMemory()
        self.memory.add_region(0, 0x100_0000)
        capabilities = PROFILES[profile]
        self.unit = RemappingUnit(capabilities, self.memory, Options(caches=POLICIES[caches]))
        self.messages: list[object] = []
        self.delivered: list[Interrupt] = []
        self.unit.subscribe(self._happened)
        if broken is not None:
            DEFECTS[broken].plant(self.unit)
        self.driver = Driver(
            self.unit,
            self.memory,
            FramePool(0x1000, 0x40_0000),
            host_address_width=capabilities.host_address_width,
        )
        self.port = UnitPort(self.unit, self.memory, SOURCE_ID)
        for number in range(0x100_0000 >> 12):
            if number >= DATA >> 12:
                self.memory.write(number << 12, (number << 12).to_bytes(8, "little"))

    def _happened(self, event: object) -> None:
        if isinstance(event, MessageSent):
            self.messages.append(event.message)
        elif isinstance(event, InterruptDelivered) and isinstance(event.outcome, Interrupt):
            self.delivered.append(event.outcome)

    def complaints(self) -> Iterator[str]:
        """What is wrong with the unit, in the order in which it is noticed."""
        unit, driver = self.unit, self.driver
        driver.start(interrupts=True)
        unit.write_register(FEDATA, 4, 0x77)
        unit.write_register(FEADDR, 4, EVENT)
        unit.write_register(FECTL, 4, 0)
        domain = driver.domain()
        driver.attach(SOURCE_ID, domain)
        domain.map(IOVA, DATA, 2 * PAGE)
        domain.map(READ_ONLY, DATA, PAGE, READ)
        domain.map(LARGE_IOVA, LARGE_DATA, LARGE)
        if self.seen(IOVA) != DATA or self.seen(IOVA + PAGE) != DATA + PAGE:
            yield "data"
        if self.seen(LARGE_IOVA + 5 * PAGE) != LARGE_DATA + 5 * PAGE:
            yield "large page"
        if self.port.write(READ_ONLY, bytes(8)).ok:
            yield "write to read-only"
        yield from self.fault()
        domain.unmap(IOVA, PAGE)
        if self.seen(IOVA) is not None:
            yield "page after unmap"
        other = driver.domain()
        other.map(IOVA + PAGE, OTHER, PAGE)
        driver.detach(SOURCE_ID)
        driver.attach(SOURCE_ID, other)
        if self.seen(IOVA + PAGE) != OTHER:
            yield "page of another domain"
        yield from self.interrupts()

    def seen(self, address: int) -> int | None:
        """What the device reads: each page of data holds its address."""
        completion = self.port.read(address, 8)
        return int.from_bytes(completion.data, "little") if completion.ok else None

    def fault(self) -> Iterator[str]:
        """A fault and its record, event and clearing; before that those there are are cleared."""
        unit = self.unit
        for reason in (READ, WRITE):
            base = FRCD
            unit.write_register(base + 12, 4, 1 << 31)
            unit.write_register(FSTS, 4, 0x7F)
            self.messages.clear()
            if reason == READ:
                self.port.read(NOWHERE, 8)
            else:
                self.port.write(NOWHERE, bytes(8))
            record = FaultRecording(
                unit.read_register(base + 8, 8) << 64 | unit.read_register(base, 8)
            )
            if not record.f:
                yield "fault record"
            elif record.fr not in (0x05, 0x06, 0x79, 0x84, 0x85):
                yield "fault reason"
            elif record.sid != SOURCE_ID:
                yield "fault source"
            elif record.fi != NOWHERE:
                yield "fault address"
            if not self.messages:
                yield "fault event"
        unit.write_register(FRCD + 12, 4, 1 << 31)
        if unit.read_register(FRCD + 12, 4) >> 31:
            yield "fault clearing"

    def interrupts(self) -> Iterator[str]:
        """An interrupt, moved to another processor, then without an entry."""
        table = self.driver.interrupts
        entry = RemappedIrte.of(p=True, v=0x41, dst=0x100)
        index = table.allocate(entry)
        address = 0xFEE0_0010 | (index & 0x7FFF) << 5 | index >> 15 << 2
        self.port.write(address, bytes(4))
        table.change(index, entry.replace(dst=0x200))
        self.port.write(address, bytes(4))
        if [each.destination for each in self.delivered] != [1, 2]:
            yield "interrupt destination"
        table.free(index)
        if self.port.write(address, bytes(4)).ok:
            yield "interrupt without entry"


NOTICED: dict[str, tuple[str, str]] = {
    "no-page-invalidation": ("qemu", "page after unmap"),
    "no-domain-invalidation": ("qemu", "page of another domain"),
    "no-context-invalidation": ("qemu", "page of another domain"),
    "no-pasid-invalidation": ("qemu-scalable", "page of another domain"),
    "no-interrupt-invalidation": ("qemu", "interrupt destination"),
    "no-write-check": ("qemu", "write to read-only"),
    "wrong-entry": ("qemu", "data"),
    "large-page-start": ("qemu", "large page"),
    "wrong-fault-reason": ("qemu", "fault reason"),
    "wrong-fault-source": ("qemu", "fault source"),
    "wrong-fault-address": ("qemu", "fault address"),
    "no-fault-record": ("qemu", "fault record"),
    "no-fault-event": ("qemu", "fault event"),
    "faults-stay": ("qemu", "fault clearing"),
    "interrupts-pass": ("qemu", "interrupt without entry"),
}
"""Profile of the unit, and the complaint."""


@pytest.mark.parametrize("profile", ["qemu", "qemu-scalable"])
def test_nobody_complains_of_a_sound_unit(profile: str) -> None:
    assert list(Kernel(None, profile).complaints()) == []


@pytest.mark.parametrize("name", NOTICED)
def test_a_defect_is_complained_of(name: str) -> None:
    profile, complaint = NOTICED[name]
    assert complaint in list(Kernel(name, profile).complaints())


@pytest.mark.parametrize("name", NOTICED)
def test_it_shows_with_the_caches_of_its_cell(name: str) -> None:
    profile, complaint = NOTICED[name]
    caches = all_cells()[f"broken:{name}"].boot.caches
    assert complaint in list(Kernel(name, profile, caches).complaints())


SILENT = {"no-wait-status": "invalidations are not complete", "no-translation-status": "TE = 1"}
"""Those that keep a driver waiting."""


@pytest.mark.parametrize("name", SILENT)
def test_a_unit_that_gives_no_answer_keeps_its_driver_waiting(name: str) -> None:
    with pytest.raises(NoAnswerError, match=SILENT[name]):
        list(Kernel(name, "qemu").complaints())


def test_the_page_lists_every_defect() -> None:
    page = (Path(__file__).parents[3] / "docs" / "live.md").read_text()
    for name, defect in DEFECTS.items():
        assert f"| `{name}` | {defect.what} | {defect.noticed_by} |" in page


def test_every_defect_has_a_complaint() -> None:
    assert set(DEFECTS) == {*NOTICED, *SILENT}
    assert len(DEFECTS) >= 11


@pytest.mark.parametrize("name", NOTICED)
def test_defects_outlast_a_reset(name: str) -> None:
    profile, complaint = NOTICED[name]
    kernel = Kernel(name, profile)
    kernel.unit.reset(power_good=False)
    assert complaint in list(kernel.complaints())
