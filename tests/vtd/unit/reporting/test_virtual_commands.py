"""Virtual commands: PASIDs handed out and taken back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetables.memory import PhysicalMemory
from tests.support.world import capabilities
from vtd.layouts.registers import VirtualCommandCapability, VirtualCommandResponse
from vtd.unit.reporting.virtual_commands import capability_registers
from vtd.unit.unit import RemappingUnit

NULL, ALLOCATE, FREE = range(3)
SUCCESS, UNDEFINED, FAILED = 0, 1, 16
EVERYTHING = VirtualCommandCapability(capability_registers(pasid=True)[0xE30])


def started(capability: int = EVERYTHING, width: int = 3) -> RemappingUnit:
    """A unit that offers PASIDs of this many bits."""
    unit = capabilities(vcs=1, pss=width - 1)
    return RemappingUnit(unit, PhysicalMemory(), constants={0xE30: capability})


def command(unit: RemappingUnit, code: int, operand: int = 0) -> VirtualCommandResponse:
    unit.write_register(0xE00, 8, operand << 16 | code)
    response = VirtualCommandResponse(unit.read_register(0xE10, 8))
    assert not response.ip
    return response


@given(
    st.lists(
        st.one_of(st.just((ALLOCATE, 0)), st.tuples(st.just(FREE), st.integers(0, 9))), max_size=40
    )
)
@pytest.mark.section("11.4.16.3")
@pytest.mark.fields("VirtualCommand.oa.cmd")
def test_a_pasid_has_one_owner(commands: list[tuple[int, int]]) -> None:
    unit = started()
    free = set(range(1, 8))
    for code, pasid in commands:
        response = command(unit, code, pasid)
        if code == ALLOCATE and free:
            assert response == VirtualCommandResponse.of(rslt=min(free))
            free.remove(min(free))
        elif code == FREE and pasid in set(range(1, 8)) - free:
            assert response == SUCCESS
            free.add(pasid)
        else:
            assert response == VirtualCommandResponse.of(sc=FAILED)
    assert unit.virtual_commands.pasids.allocated == set(range(1, 8)) - free


@pytest.mark.parametrize(("code", "flag"), [(NULL, "ns"), (ALLOCATE, "pas"), (FREE, "fps")])
@pytest.mark.section("11.4.16.4")
def test_a_command_that_is_not_reported_is_undefined(code: int, flag: str) -> None:
    unit = started(EVERYTHING.replace(**{flag: False}))
    assert command(unit, code).sc == UNDEFINED
    assert command(started(), code).sc == (FAILED if code == FREE else SUCCESS)


@pytest.mark.parametrize("pasid", [False, True])
def test_pasids_are_handed_out_by_units_that_have_them(pasid: bool) -> None:
    """11.4.16.4: PAS and FPS are clear without PASID support."""
    unit = RemappingUnit(capabilities(vcs=1, pasid=pasid), PhysicalMemory())
    reported = VirtualCommandCapability(unit.read_register(0xE30, 8))
    assert (reported.ns, reported.pas, reported.fps) == (True, pasid, pasid)
    assert command(unit, ALLOCATE).sc == (SUCCESS if pasid else UNDEFINED)


@given(st.integers(3, 255))
def test_other_commands_are_undefined(code: int) -> None:
    assert command(started(), code).sc == UNDEFINED


@pytest.mark.section("11.4.16.1")
def test_the_lower_half_starts_a_command() -> None:
    unit = started()
    unit.write_register(0xE04, 4, 5)
    assert unit.virtual_commands.pasids.allocated == set()
    unit.write_register(0xE00, 4, ALLOCATE)
    assert unit.virtual_commands.pasids.allocated == {1}
    unit.write_register(0xE04, 4, 5)
    assert unit.virtual_commands.pasids.allocated == {1}
    assert unit.read_register(0xE00, 8) == 5 << 32 | ALLOCATE


@pytest.mark.section("11.4.16.1")
def test_a_pasid_is_freed_by_the_low_bits_of_the_operand() -> None:
    """Table 54: bits 63:36 of the command are not part of the PASID."""
    unit = started()
    pasid = command(unit, ALLOCATE).rslt
    assert command(unit, FREE, (1 << 48) - (1 << 20) | pasid).sc == SUCCESS
    assert not unit.virtual_commands.pasids.allocated


@pytest.mark.section("11.4.16.2")
@pytest.mark.fields("VirtualCommandExtendedOperand.ob")
def test_a_second_operand_is_kept_and_changes_no_command() -> None:
    unit = started()
    unit.write_register(0xE08, 8, 0x0123_4567_89AB_CDEF)
    assert unit.read_register(0xE08, 8) == 0x0123_4567_89AB_CDEF
    assert command(unit, ALLOCATE).rslt == 1
    assert unit.read_register(0xE08, 8) == 0x0123_4567_89AB_CDEF
