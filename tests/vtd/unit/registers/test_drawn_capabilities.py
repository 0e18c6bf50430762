"""Units at random are consistent, differ in every field, and keep what is asked for."""

from __future__ import annotations

from random import Random

import pytest

from vtd.layouts.registers import Capability, ExtendedCapability
from vtd.unit.registers.capabilities import PROFILES, unit_named
from vtd.unit.registers.drawn_capabilities import FLAGS, drawn_capabilities


def test_drawn_units_are_consistent_and_have_every_flag_in_both_states() -> None:
    units = [drawn_capabilities(Random(number)) for number in range(300)]
    assert [unit.check() for unit in units if unit.check()] == []
    assert max(unit.ecap.pss for unit in units) == 19  # PASIDs have 20 bits
    assert not any(unit.cap.sagaw & ~0b1110 for unit in units)  # the others are reserved
    for name in FLAGS:
        register = "cap" if name in Capability.FIELDS else "ecap"
        assert {bool(getattr(getattr(unit, register), name)) for unit in units} == {False, True}


def test_a_field_that_is_asked_for_is_there() -> None:
    for number in range(20):
        assert drawn_capabilities(Random(number), {"pi": 1, "mamv": 4, "psi": 1}).ecap.ir
    with pytest.raises(ValueError, match="no consistent unit has rwbf=1, smts=1"):
        drawn_capabilities(Random(0), {"rwbf": 1, "smts": 1})


def test_a_unit_is_named_by_profile_or_registers() -> None:
    assert unit_named("xeon") is PROFILES["xeon"]
    unit = drawn_capabilities(Random(1))
    registers = ":".join(hex(each) for each in (unit.version, unit.cap, unit.ecap))
    text = f"raw:{registers}:{unit.host_address_width}"
    assert unit_named(text) == unit
    assert isinstance(unit_named(text).ecap, ExtendedCapability)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "neither raw"),
        ("raw", "neither raw"),
        ("raw:1:2:3", "neither raw"),
        ("raw:1:2:3:x", "neither raw"),
        ("cooked:1:2:3:48", "neither raw"),
        ("raw:0x100:0:0:48", "8 bits"),
        ("raw:1:0x10000000000000000:0:48", "64"),
        ("raw:-1:0:0:48", "8 bits"),
        ("raw:0x100:0:0:48", "8 bits"),
        ("raw:0x10:0x1_0000_0000_0000_0000:0:48", "64"),
        ("raw:0x10:0:-1:48", "64"),
        ("raw:1:0:0:99", "99 bits"),
        ("raw:0x10:0:0:48", "contradicts itself"),
    ],
)
def test_what_names_no_unit_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        unit_named(text)


def test_drawn_units_have_the_widths_and_sizes_of_real_ones_up_to_the_largest() -> None:
    units = [drawn_capabilities(Random(number)) for number in range(300)]
    assert {unit.host_address_width for unit in units} == {39, 42, 46, 48, 52}
    assert {unit.cap.mgaw + 1 for unit in units} >= {39, 57}
    assert {unit.cap.mamv for unit in units} == {0, 1, 4, 9, 18}
    assert {unit.cap.nd for unit in units} == {1, 2, 4, 6}  # 64 to 65,536 domains
    assert {unit.fault_records for unit in units} == {1, 2, 8}
    assert {unit.ecap.mhmv for unit in units} == {0, 15}
    assert min(unit.ecap.pss for unit in units if unit.ecap.pasid) == 5  # as the PCIe limits
    assert {(unit.cap.fro, unit.ecap.iro) for unit in units} == {
        (0x220, 0xF0),
        (0x400, 0x500),
        (0x280, 0x500),
    }
