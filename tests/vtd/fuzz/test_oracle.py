"""The slow unit of the fuzzer gives each broken rule the fault reason that Table 30 has for it."""

import pytest

from devices.dma import READ, WRITE
from tests.support.directed_faults import CASES
from tests.support.directed_faults import Case as Directed
from tests.support.world import Mode, World
from vtd.fuzz.case import Case, Step, dma_read, dma_write, mem_write, reg_read, reg_write
from vtd.fuzz.oracle import SlowUnit


def is_modelled(world: World) -> bool:
    """Requests of the fuzzer are unprivileged reads and writes of bytes; all memory is writable."""
    request = world.request
    transfer = request.access in (READ, WRITE) and request.length > 0 and not request.privileged
    return transfer and not world.read_only and not world.root.ssirwe


def on_a_slow_unit(world: World) -> Case:
    """The request of a world, after software has stored its tables and set the root."""
    request, unit = world.request, world.unit
    steps: list[Step] = [
        mem_write(frame << 12, bytes(data)) for frame, data in world.memory.snapshot().items()
    ]
    steps += [reg_write(0x20, 8, world.root), reg_write(0x18, 4, 1 << 30)]
    steps.append(reg_write(0x18, 4, 1 << 31))
    if request.access == READ:
        steps.append(dma_read("device", request.address, request.length, request.pasid))
    else:
        steps.append(dma_write("device", request.address, bytes(request.length), request.pasid))
    steps.append(reg_read(unit.fault_recording_offset + 8, 8, (1 << 64) - 1))
    memory = tuple((each.start, each.end - each.start) for each in world.memory.regions)
    return Case(unit, tuple(steps), memory=memory, devices=(("device", request.source_id),))


EVERY = [(case, mode) for case in CASES for mode in case.modes if is_modelled(case.world(mode))]


@pytest.mark.parametrize(
    ("case", "mode"),
    EVERY,
    ids=[f"{case.reason:02X}h {mode.value}: {case.name}" for case, mode in EVERY],
)
def test_a_broken_rule_has_its_reason(case: Directed, mode: Mode) -> None:
    world = case.world(mode)
    asked = on_a_slow_unit(world)
    slow = SlowUnit(asked)
    *_, outcome, record = map(slow.step, asked.steps)
    assert outcome == {"fault": True}
    assert record >> 63 == 1
    assert record >> 32 & 0xFF == case.reason
    assert record & 0xFFFF == world.request.source_id


def test_hardly_a_rule_is_left_out() -> None:
    assert len({case.reason for case, _ in EVERY}) > 50
