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
    assert unit_named(text) == unit_named(text.replace("0x", "")) == unit
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
        ("raw:-1:0:0:48", "neither raw"),
        ("raw:0x100:0:0:48", "8 bits"),
        ("raw:0x10:0x1_0000_0000_0000_0000:0:48", "CAP and ECAP have 64"),
        ("raw:0x10:0:0x1_0000_0000_0000_0000:48", "CAP and ECAP have 64"),
        ("raw:0x10:0:-1:48", "neither raw"),
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
    widths = [unit.max_guest_address_width for unit in units]
    assert (min(widths), max(widths)) == (39, 57)  # 5 levels translate 57 bits
    assert {unit.cap.sagaw for unit in units} == {2, 4, 6, 8, 12, 14}  # bits 3:1 (11.4.2)
    assert {unit.cap.sslps for unit in units} == {0, 1, 3}  # 1 GiB pages with those of 2 MiB
    assert {unit.major_version for unit in units} == {1, 4, 5}
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


def test_drawn_units_have_no_size_of_what_they_do_not_have() -> None:
    for unit in (drawn_capabilities(Random(number)) for number in range(300)):
        assert unit.cap.psi or not unit.cap.mamv
        assert unit.ecap.pasid or not unit.ecap.pss
        assert unit.ecap.ir or not unit.ecap.mhmv


def test_drawn_units_have_every_combination_of_queue_and_write_buffer() -> None:
    units = [drawn_capabilities(Random(number)) for number in range(300)]
    assert {(unit.ecap.smts, unit.ecap.qi, unit.cap.rwbf) for unit in units} == {
        (True, True, False),  # scalable mode needs the queue (6.5), and has no such buffer
        *((False, queue, buffer) for queue in (False, True) for buffer in (False, True)),
    }
