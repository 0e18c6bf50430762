"""A driver's accesses, recorded, are a log that the audit judges as it would the live unit."""

from __future__ import annotations

import pytest

from pagetables.memory import PhysicalMemory
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
