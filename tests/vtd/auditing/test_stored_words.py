"""Stores are noticed that nobody announces: those of a guest, in memory that is mapped."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetables.build import FramePool
from pagetables.memory import PhysicalMemory
from vtd.auditing.audit import Audit
from vtd.auditing.debt import Kind
from vtd.software.driver import Driver
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.unit import RemappingUnit

SOURCE_ID, IOVA, DATA, SIZE, PAGES = 0x28, 0x4000_0000, 0x80_0000, 0x100_0000, 16


class Guest:
    """A unit in front of memory that its software has mapped somewhere else too."""

    def __init__(self, *, mapped_first: bool) -> None:
        self.memory = PhysicalMemory()
        self.fd = os.memfd_create("guest")
        os.ftruncate(self.fd, SIZE)
        capabilities = PROFILES["qemu"]
        if mapped_first:
            self.memory.map_region(0, self.fd, 0, SIZE)
        self.unit = RemappingUnit(capabilities, self.memory, Options())
        self.audit = Audit(self.unit)
        if not mapped_first:
            self.memory.map_region(0, self.fd, 0, SIZE)
        self.driver = Driver(
            self.unit,
            self.memory,
            FramePool(0x1000, 0x40_0000),
            host_address_width=capabilities.host_address_width,
        )
        self.driver.start()
        self.domain = self.driver.domain()
        self.domain.map(IOVA, DATA, PAGES << 12)
        self.driver.attach(SOURCE_ID, self.domain)
        self.port = UnitPort(self.unit, self.memory, SOURCE_ID)

    def forget(self, number: int) -> None:
        """Clear the entry of a page behind everybody's back."""
        for frame in range(1, 0x400):
            entry = os.pread(self.fd, 8, (frame << 12) + 8 * number)
            if int.from_bytes(entry, "little") >> 12 == (DATA >> 12) + number:
                os.pwrite(self.fd, bytes(8), (frame << 12) + 8 * number)


@pytest.mark.parametrize("mapped_first", [True, False])
@given(before=st.lists(st.integers(0, PAGES - 1)), gone=st.integers(0, PAGES - 1))
def test_a_store_by_another_mapping_is_noticed_at_the_next_use(
    mapped_first: bool, before: list[int], gone: int
) -> None:
    guest = Guest(mapped_first=mapped_first)
    for number in (*before, gone):
        assert guest.port.read(IOVA + (number << 12), 8).ok
    guest.forget(gone)
    for number in before:
        guest.port.read(IOVA + (number << 12), 8)
    assert guest.port.read(IOVA + (gone << 12), 8).ok  # the IOTLB still has it
    found = guest.audit.findings
    os.close(guest.fd)
    assert [(each.kind, each.owner.address) for each in found] == [
        (Kind.MISSING, IOVA + (gone << 12))
    ]
