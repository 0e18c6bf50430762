"""The copy engine behind a unit: a mapping withdrawn in mid-copy is an error of one page."""

from __future__ import annotations

import pytest

from devices.models.ioat import IoatEngine
from devices.models.ioat_structures import Descriptor
from pagetables.build import FramePool
from vtd.layouts.registers import FaultRecording
from vtd.machine.assembly import assemble
from vtd.machine.description import read_machine
from vtd.software.driver import Driver

MACHINE = """
[[memory]]
start = 0
size = "16 MiB"
[[unit]]
profile = "qemu"
base = 0xfed90000
include_all = true
[[function]]
name = "engine"
at = "00:04.0"
model = "ioat"
bus_master = true
"""
RING, COMPLETION, SOURCE, DESTINATION = 0x40_0000, 0x41_0000, 0x50_0000, 0x60_0000
COPIES, DONE_BEFORE = 8, 3


@pytest.mark.parametrize(
    ("withdrawn", "error", "reason"), [(SOURCE, 0x100, 0x06), (DESTINATION, 0x200, 0x05)]
)
def test_a_withdrawn_mapping_is_a_data_error_and_one_fault_record(
    withdrawn: int, error: int, reason: int
) -> None:
    """Both are what ioatdma recovers from; the completion names the last copy that was done."""
    assembly = assemble(read_machine(MACHINE))
    engine, memory = assembly.functions["engine"], assembly.platform.memory
    assert isinstance(engine, IoatEngine)
    unit = assembly.platform.unit_of(engine)
    driver = Driver(unit, memory, FramePool(0x10_0000, 0x20_0000))
    driver.start()
    domain = driver.domain()
    source_id = assembly.platform.topology.requester_id(engine)
    driver.attach(source_id, domain)
    domain.map(RING, RING, 0x40_0000)
    memory.write(SOURCE, bytes(range(256)) * 16 * COPIES)
    for number in range(COPIES):
        at = RING + 64 * number
        descriptor = Descriptor.of(
            size=4096, source=SOURCE + 4096 * number, destination=DESTINATION + 4096 * number,
            completion=1, next=at + 64,
        )  # fmt: skip
        memory.write(at, descriptor.pack())
    bar = engine.bars[0]
    for offset, value, size in ((0x80, 0x1D, 2), (0x98, COMPLETION, 8), (0x90, RING, 8)):
        bar.write(offset, size, value)
    bar.write(0x86, 2, COPIES)
    assembly.clock.advance(DONE_BEFORE * engine.descriptor_nanoseconds)
    page = withdrawn + 4096 * (DONE_BEFORE + 1)
    domain.unmap(page, 4096)
    assembly.clock.advance(COPIES * engine.descriptor_nanoseconds)
    assert bar.read(0xA8, 4) == error
    last = RING + 64 * DONE_BEFORE
    assert bar.read(0x88, 8) == last | 3
    assert int.from_bytes(memory.read(COMPLETION, 8), "little") == last | 3
    done = 4096 * (DONE_BEFORE + 1)
    assert memory.read(DESTINATION, done) == memory.read(SOURCE, done)
    assert memory.read(DESTINATION + done, 4096) == bytes(4096)
    record = unit.registers[FaultRecording]
    assert (record.f, record.sid, record.fi, record.fr) == (1, source_id, page, reason)
