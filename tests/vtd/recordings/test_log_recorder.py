"""A driver's accesses, recorded, are a log that the audit judges as it would the live unit."""

from __future__ import annotations

import pytest

from pagetables.memory import PhysicalMemory
from pagetables.stores import ProcessorStores
from vtd.auditing.audit_log import audit_log
from vtd.auditing.lint import lint_log
from vtd.fuzz.own_driver import OwnDriver
from vtd.recordings.log_recorder import LogRecorder
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.unit import RemappingUnit

END = 0x180_0000


@pytest.mark.parametrize("forgotten", [False, True])
def test_what_a_driver_forgets_is_in_its_log(forgotten: bool) -> None:
    lines: list[str] = []
    memory = PhysicalMemory()
    memory.add_region(0, END)
    unit = RemappingUnit(PROFILES["xeon"], memory)
    recorder = LogRecorder(lines.append, PROFILES["xeon"], [(0, END)], {"nic": 0x10})
    driver = OwnDriver(recorder.registers(unit), recorder.memory(memory), 0x10_0000, 0x80_0000)
    driver.reset()
    driver.attach(0x10, 1)
    driver.map(1, 0, 0x100_0000, 0x1000, 3)
    recorder.step("dma_write", device="nic", iova="0x0", hex="00")
    before = len(lines)
    driver.unmap(1, 0, 0x1000)
    if forgotten:
        steps = [line for line in lines[before:] if '"offset": "0x88"' not in line]
        lines[before:] = steps
    recorder.step("dma_read", device="nic", iova="0x0", length=4)
    report = audit_log(lines)
    assert bool(report.findings) is forgotten
    assert report.lines == len(lines)
    assert lint_log(lines) == []


@pytest.mark.parametrize("flushed", [False, True])
def test_flushes_exchanges_and_several_units_are_in_the_log(flushed: bool) -> None:
    lines: list[str] = []
    memory = PhysicalMemory()
    memory.add_region(0, END)
    stores = ProcessorStores(memory)
    client = PROFILES["client"]
    devices: dict[str, int | tuple[int, int]] = {"nic": 0x10, "disk": (0x18, 1)}
    recorder = LogRecorder(lines.append, [client, client], [(0, END)], devices, stores_wait=True)
    seen = recorder.memory(stores)
    for number in range(2):
        unit = RemappingUnit(client, stores.unsnooped)
        own = 0x10_0000 * (number + 1)
        driver = OwnDriver(recorder.registers(unit, number), seen, own, own + 0x10_0000)
        driver.reset()
        driver.attach(0x10 + 8 * number, 1)
        driver.map(1, 0, 0x100_0000, 0x1000, 3)
    recorder.step("dma_read", device="disk", iova="0x0", length=4)
    where = driver._driver.structures.root
    assert seen.compare_exchange(where, 8, seen.read_record(where, 8), 0)
    if flushed:
        seen.flush(address=where, length=8)
    recorder.step("dma_read", device="disk", iova="0x0", length=4)
    report = audit_log(lines)
    assert {(each.unit, each.use.title) for each in report.findings} == (
        {(1, "missing"), (1, "unpaid")} if flushed else set()
    )  # what is not flushed does not show to the unit
