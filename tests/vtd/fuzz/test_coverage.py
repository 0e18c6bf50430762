"""What a campaign reached is counted by form, mode and outcome, and what it did not is listed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from vtd.fuzz.case import Case, dma_read, reg_read, take_faults
from vtd.fuzz.coverage import DONE, REFUSED, Encounter, never, possible
from vtd.fuzz.driver import ModelDriver
from vtd.fuzz.places import DATA
from vtd.fuzz.properties import Tally, carry_out
from vtd.fuzz.targets import EngineTarget
from vtd.layouts.descriptors import (
    InvalidationWaitDescriptor,
    IotlbInvalidateDescriptor,
    PasidCacheInvalidateDescriptor,
)
from vtd.layouts.registers import IotlbGranularity
from vtd.unit.registers.capabilities import PROFILES


def met(case: Case) -> Counter[Encounter]:
    tally = Tally()
    run = EngineTarget().start(case)
    with tally.watch(run.unit):
        carry_out(run, case)
    return tally.encounters


def test_descriptors_are_told_apart_by_form_mode_and_outcome() -> None:
    driver = ModelDriver(PROFILES["qemu"])
    page = IotlbGranularity.PAGE_IN_DOMAIN
    driver.enqueue(IotlbInvalidateDescriptor.of(g=page, did=1, am=9, ih=True))
    driver.enqueue(InvalidationWaitDescriptor.of(sw=True, status_address=0x10_5000))
    driver.enqueue(PasidCacheInvalidateDescriptor.of())  # of no type in this mode
    seen = met(driver.case())
    for how in ("page_in_domain", "AM 9 to 17", "IH"):
        assert seen[Encounter("descriptor", "iotlb_inv", how, "legacy 128", DONE)] == 1
    waits = seen[Encounter("descriptor", "inv_wait", "SW", "legacy 128", DONE)]
    assert waits == 2  # the driver waited once, for its interrupt table
    refused = {each.what for each in seen if each.sort == "descriptor" and each.outcome == REFUSED}
    assert refused == {"pc_inv"}


def test_requests_and_registers_are_counted() -> None:
    driver = ModelDriver(PROFILES["xeon"], scalable=True)
    driver.emit(dma_read("d0", 0x1000, 0), reg_read(0x1C, 4, 1))
    driver.set_function("te", enabled=False)
    driver.emit(dma_read("d0", DATA, 8), *take_faults(PROFILES["xeon"]))
    seen = met(driver.case())
    assert seen[Encounter("request", "zero-length read", "", "scalable", REFUSED)] == 1
    assert seen[Encounter("request", "read", "", "off", DONE)] == 1
    assert seen[Encounter("register", "GlobalStatus", "tes", "read")] == 1
    assert seen[Encounter("register", "GlobalCommand", "te", "written 0")] == 1
    missing = never(seen)
    assert len(missing) + len(seen.keys() & set(never(Counter()))) == possible()
    assert Encounter("register", "GlobalStatus", "tes", "written 1") not in missing  # read-only


@pytest.mark.parametrize("name", ["--coverage", "--format"])
def test_the_command_lists_holes(name: str) -> None:
    more = ["json"] if name == "--format" else []
    vtd = Path(sys.executable).parent / "vtd"
    command = [
        str(vtd),
        "fuzz",
        "--property",
        "interrupts",
        "--count",
        "1",
        "--jobs",
        "1",
        name,
        *more,
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    if more:
        answer = json.loads(ran.stdout)
        assert {each["sort"] for each in answer["coverage"]} == {
            "descriptor",
            "request",
            "register",
        }
        assert any(each["what"] == "hpt_inv" for each in answer["never"])
    else:
        reached, _, rest = ran.stdout.partition("never:\n")
        assert "request interrupt request" in reached and "descriptor hpt_inv" in rest
