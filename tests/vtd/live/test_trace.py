"""A trace names registers, requesters and faults."""

from __future__ import annotations

from devices.dma import WRITE
from tests.support.interrupt_world import InterruptWorld
from tests.support.world import HOST, PAGE, Mode, World
from vtd.layouts.descriptors import IotlbInvalidateDescriptor
from vtd.layouts.registers import IotlbGranularity
from vtd.live.trace import Trace


def test_requests_and_their_outcome_are_told() -> None:
    world = World(Mode.SECOND)
    started = world.start()
    lines: list[str] = []
    Trace("unit", started.unit, lines.append)
    address = world.address
    started.admit()
    world.ask(access=WRITE, pasid=5)
    started.admit()
    assert f"reads {address:#x} (4): {HOST | PAGE:#x}" in lines[0]
    assert " PASID 0x5 writes " in lines[1]
    assert ": fault 0x" in lines[1]


def test_registers_are_told_by_name() -> None:
    started = World(Mode.LEGACY).start()
    lines: list[str] = []
    Trace("unit 0", started.unit, lines.append)
    started.unit.read_register(0x08, 8)
    started.unit.read_register(0x0C, 4)
    started.unit.write_register(0x38, 4, 0)
    started.unit.read_register(0xFFC, 4)
    assert [line.partition(" (")[0] for line in lines] == [
        "unit 0: reads Capability",
        "unit 0: reads Capability + 4",
        "unit 0: writes FaultEventControl",
        "unit 0: reads 0xffc",
    ]


def test_interrupts_and_invalidations_are_told() -> None:
    interrupts, lines = InterruptWorld().start(), list[str]()
    Trace("unit", interrupts.unit, lines.append)
    interrupts.send()
    assert "writes 0xfee000b0 (4): Interrupt(vector=65" in lines[0]
    started = World(Mode.LEGACY).start()
    started.enable_queue(wide=False)
    lines.clear()
    Trace("unit", started.unit, lines.append)
    started.submit(IotlbInvalidateDescriptor.of(g=IotlbGranularity.GLOBAL))
    assert any("IotlbInvalidateDescriptor(" in line and "g=GLOBAL" in line for line in lines)
