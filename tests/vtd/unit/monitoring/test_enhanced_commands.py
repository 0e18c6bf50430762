"""The enhanced command registers: what is defined, supported and understood."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pagetables.memory import PhysicalMemory
from tests.support.world import capabilities
from vtd.layouts.registers import (
    EnhancedCommandCapability,
    EnhancedCommandExtendedOperand,
    EnhancedCommandResponse,
)
from vtd.unit.monitoring.performance import capability_registers
from vtd.unit.unit import RemappingUnit

UNIT = capabilities(ecmds=1, pms=1, fro=0x240)
COMMANDS = range(240, 246)


def response(unit: RemappingUnit) -> EnhancedCommandResponse:
    return EnhancedCommandResponse(unit.read_register(0x410, 8))


@given(st.integers(0, 255), st.integers(0, (1 << 48) - 1))
@example(240, 1)
@example(240, 2)
@example(241, 1)
@example(241, 2)
@pytest.mark.section("11.4.14.1", "11.4.14.3")
@pytest.mark.fields("EnhancedCommand.oa.cmd", "EnhancedCommandResponse.rslt.sc.ip")
def test_every_number_has_an_answer(command: int, operand: int) -> None:
    unit = RemappingUnit(UNIT, PhysicalMemory(), constants=capability_registers(2))
    unit.write_register(0x600, 8, 2 << 32)
    unit.write_register(0x700, 8, 2 << 32)
    unit.write_register(0x400, 8, operand << 16 | command)
    expected = 0 if command in COMMANDS else 1
    if command in {240, 241} and operand > 1:
        expected = 16
    assert response(unit) == EnhancedCommandResponse.of(sc=expected)
    assert unit.read_register(0x400, 8) == 0  # write-only


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.section("11.4.14.5")
@pytest.mark.fields("EnhancedCommandCapability.ufcnts.fcnts.rcnts.rcfgs.dcnts.ecnts")
def test_a_command_that_is_not_reported_is_undefined(command: int) -> None:
    constants = capability_registers(1)
    every = EnhancedCommandCapability(constants[0x448])
    constants[0x448] = every & ~(1 << command - 192)
    unit = RemappingUnit(UNIT, PhysicalMemory(), constants=constants)
    unit.write_register(0x600, 8, 2 << 32)
    for each in COMMANDS:
        unit.write_register(0x400, 8, each)
        assert response(unit).sc == (each == command)


@pytest.mark.section("11.4.14.1")
def test_the_lower_half_starts_a_command() -> None:
    unit = RemappingUnit(UNIT, PhysicalMemory(), constants=capability_registers(2))
    unit.write_register(0x700, 8, 2 << 32)
    unit.write_register(0x404, 4, 0)
    assert not response(unit)
    unit.write_register(0x400, 4, 1 << 16 | 240)
    assert response(unit).sc == 0
    assert unit.read_register(0x700, 8) & 1


def test_without_ecmds_nothing_is_there() -> None:
    unit = RemappingUnit(capabilities(fro=0x240), PhysicalMemory())
    unit.write_register(0x400, 8, 240)
    assert unit.read_register(0x410, 8) == 0


@pytest.mark.section("11.4.14.2", "11.4.14.4")
@pytest.mark.fields("EnhancedCommandExtendedOperand.ob")
def test_a_second_operand_is_kept_for_commands_and_there_is_no_status_to_report() -> None:
    unit = RemappingUnit(UNIT, PhysicalMemory(), constants=capability_registers(2))
    unit.write_register(0x408, 8, (1 << 64) - 1)
    assert unit.registers[EnhancedCommandExtendedOperand].ob == (1 << 64) - 1
    assert unit.read_register(0x408, 8) == 0  # write-only
    for offset in (0x420, 0x428):
        unit.write_register(offset, 8, (1 << 64) - 1)
        assert unit.read_register(offset, 8) == 0
    unit.write_register(0x400, 8, 243)  # no command has a second operand yet
    assert response(unit).sc == 0
