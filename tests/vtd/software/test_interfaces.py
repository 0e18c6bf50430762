"""The two invalidation interfaces from software's side, and what they do when nothing answers."""

from __future__ import annotations

import pytest

from pagetables.memory import PhysicalMemory
from tests.support.world import capabilities
from vtd.layouts.descriptors import (
    ContextCacheInvalidateDescriptor,
    IotlbInvalidateDescriptor,
    PasidCacheInvalidateDescriptor,
)
from vtd.layouts.registers import (
    ContextCommand,
    ContextGranularity,
    FaultStatus,
    GlobalStatus,
    IotlbGranularity,
)
from vtd.software.queue_driver import QueueDriver
from vtd.software.register_driver import RegisterDriver
from vtd.software.registers import NoAnswerError, command, read
from vtd.unit.unit import RemappingUnit


class Dead:
    """Registers that keep what is written, and do nothing."""

    def __init__(self) -> None:
        self.values: dict[int, int] = {}

    def read_register(self, offset: int, size: int) -> int:
        return self.values.get(offset, 0)

    def write_register(self, offset: int, size: int, value: int) -> None:
        self.values[offset] = value


CONTEXT = ContextCacheInvalidateDescriptor.of(g=ContextGranularity.DEVICE, did=5, sid=0x123, fm=2)
PAGES = IotlbInvalidateDescriptor.of(
    g=IotlbGranularity.PAGE_IN_DOMAIN, did=5, addr=0x20_0000, am=9, ih=True, dr=True, dw=True
)


def test_descriptors_become_register_commands() -> None:
    unit = RemappingUnit(capabilities(), PhysicalMemory())
    driver = RegisterDriver(unit, unit.capabilities.iotlb_offset)
    driver.submit(CONTEXT, PAGES)
    assert driver.wait() and driver.complete
    assert read(unit, ContextCommand).caig is ContextGranularity.DEVICE
    assert unit.read_register(unit.capabilities.iotlb_offset + 8, 8) >> 57 & 3 == 3
    with pytest.raises(ValueError, match="has no register"):
        driver.submit(PasidCacheInvalidateDescriptor.of())


@pytest.mark.parametrize("descriptor", [CONTEXT, PAGES])
def test_a_command_that_is_not_carried_out_is_an_error(
    descriptor: ContextCacheInvalidateDescriptor | IotlbInvalidateDescriptor,
) -> None:
    refusing = RemappingUnit(capabilities(version=6), PhysicalMemory())
    for unit in (refusing, Dead()):
        with pytest.raises(NoAnswerError, match="was not carried out"):
            RegisterDriver(unit, 0x500).submit(descriptor)


def test_a_command_that_is_not_confirmed_is_an_error() -> None:
    with pytest.raises(NoAnswerError, match="TE = 1 is not confirmed"):
        command(Dead(), te=True)


def test_a_queue_is_switched_off_once_it_is_empty() -> None:
    memory = PhysicalMemory()
    memory.add_region(0, 0x10000)
    unit = RemappingUnit(capabilities(), memory)
    queue = QueueDriver(unit, memory, 0x1000, 0x2000, wide=False)
    queue.enable()
    queue.disable()
    assert not read(unit, GlobalStatus).qies
    queue.enable()
    queue.submit(IotlbInvalidateDescriptor.of())  # a reserved granularity
    assert queue.errors == FaultStatus.of(iqe=True)
    with pytest.raises(NoAnswerError, match="iqe"):
        queue.disable()
