"""Deferred unmaps: a window until the flush, one invalidation for many, nothing used early."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetables.build import FramePool
from pagetables.memory import PhysicalMemory
from tests.support.world import capabilities
from vtd.auditing.audit import Audit
from vtd.layouts.descriptors import InvalidationWaitDescriptor
from vtd.layouts.entries import PasidTranslationType
from vtd.software.domain import FIRST_STAGE, SECOND_STAGE, Domain
from vtd.software.driver import Driver
from vtd.unit.caching.policy import AGGRESSIVE
from vtd.unit.observer import Observer
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.unit import RemappingUnit

PAGE, PAGES, START, TARGET = 0x1000, 24, 0x40_0000, 0x100_0000


class Invalidations(Observer):
    """Counts what software had invalidated."""

    def __init__(self) -> None:
        self.count = 0

    def invalidated(self, command: object) -> None:
        self.count += not isinstance(command, InvalidationWaitDescriptor)


class World:
    """A device that has used each of its pages behind a unit that keeps all it may."""

    def __init__(self, kind: PasidTranslationType, *, caching_mode: bool = False) -> None:
        memory = PhysicalMemory()
        memory.add_region(0, 0x200_0000)
        unit = RemappingUnit(capabilities(cm=int(caching_mode)), memory, Options(caches=AGGRESSIVE))
        self.audit = Audit(unit)
        driver = Driver(unit, memory, FramePool(0x10_0000, 0x40_0000))
        driver.start()
        self.domain: Domain = driver.domain(kind, largest=12)
        self.domain.map(START, TARGET, PAGES * PAGE)
        driver.attach(0x10, self.domain)
        self.port = UnitPort(unit, memory, 0x10)
        self.invalidations = Invalidations()
        unit.observe(self.invalidations)
        assert all(map(self.reaches, range(PAGES)))

    def reaches(self, page: int) -> bool:
        """Whether the device reads a page."""
        return self.port.read(START + page * PAGE, 8).ok


@pytest.mark.parametrize("kind", [FIRST_STAGE, SECOND_STAGE])
@given(doomed=st.sets(st.integers(0, PAGES - 1), min_size=1))
def test_unmapped_pages_are_gone_after_one_flush(
    kind: PasidTranslationType, doomed: set[int]
) -> None:
    world = World(kind)
    for page in doomed:
        assert world.domain.unmap(START + page * PAGE, PAGE, deferred=True) == PAGE
        assert world.reaches(page)  # the window
    assert world.invalidations.count == 0
    world.domain.flush()
    assert world.invalidations.count == 1
    assert [page for page in range(PAGES) if not world.reaches(page)] == sorted(doomed)
    assert world.audit.findings == []
    world.domain.flush()
    assert world.invalidations.count == 1  # nothing is owed any more


@given(st.integers(0, PAGES - 1), st.integers(0, PAGES - 1), st.booleans())
def test_what_is_mapped_again_is_not_what_caches_have(
    page: int, other: int, caching_mode: bool
) -> None:
    world = World(SECOND_STAGE, caching_mode=caching_mode)
    world.domain.unmap(START + page * PAGE, PAGE, deferred=True)
    assert world.reaches(page)
    world.domain.unmap(START + other * PAGE, PAGE)
    world.domain.map(START + page * PAGE, TARGET + 0x10_0000, PAGE)
    world.port.write(START + page * PAGE, b"new place")
    assert world.port.read(START + page * PAGE, 9).data == b"new place"
    assert world.domain.physical(START + page * PAGE) == TARGET + 0x10_0000
    assert world.audit.findings == []


def test_tables_are_given_to_nobody_before_the_flush() -> None:
    world = World(SECOND_STAGE)
    world.domain.map(1 << 30, TARGET, PAGE)
    world.port.read(1 << 30, 8)
    world.domain.unmap(1 << 30, PAGE, deferred=True)  # its table too
    for number in range(2, 6):
        world.domain.map(number << 30, TARGET, PAGE)  # new tables
    assert world.port.read(1 << 30, 8).ok
    world.domain.flush()
    assert not world.port.read(1 << 30, 8).ok
    assert world.audit.findings == []
