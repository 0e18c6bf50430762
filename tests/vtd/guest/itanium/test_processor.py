"""The processor: what intercepts, where to, and what neither monitor nor VPD is asked for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vtd.guest.itanium.machine import HOST_IVA, Itanium
from tests.vtd.guest.itanium.test_pal import HANDLER, IVT, VPD, Firmware
from vtd.guest.itanium.causes import InterceptCause as Cause
from vtd.guest.itanium.outcomes import (
    Executed,
    GuestFault,
    GuestInstruction,
    Intercept,
    NotRunning,
    PassedThrough,
)
from vtd.guest.itanium.pal import PalProcedure
from vtd.guest.itanium.processor import ItaniumProcessor
from vtd.guest.itanium.registers import AR_ITC, Cr, Psr
from vtd.guest.itanium.services import PalService
from vtd.guest.itanium.state import Features
from vtd.guest.itanium.vpd import Vac, Vdc, Vpd

IC, I = Psr.ic.mask, Psr.i.mask  # noqa: E741 - the bit's name


def running(
    vac: int = 0, vdc: int = 0, *, ic: int = 1, cpl: int = 0, options: int = 1 << 8 | 1 << 9,
    handler: int = 0,
) -> ItaniumProcessor:  # fmt: skip
    """A processor that runs a guest."""
    firmware = Firmware()
    assert firmware.call(PalProcedure.VP_INIT_ENV, options | 1, 0x10_0000, 0x10_0000) == 0
    firmware.vpd(vac=vac, vdc=vdc).vpsr = Psr.of(ic=ic)
    assert firmware.call(PalProcedure.VP_CREATE, VPD, IVT, handler) == 0
    cpu = firmware.cpus[0]
    assert firmware.service(PalService.RESTORE, VPD, 0) is not None
    cpu.ipsr = Psr.of(dt=1, rt=1, it=1, si=1, cpl=cpl)
    service = PalService.RESUME_NORMAL if ic or not vac | vdc else PalService.RESUME_HANDLER
    firmware.service(service, VPD, vac)
    assert cpu.psr.vm
    return cpu


def do(cpu: ItaniumProcessor, cause: Cause, register: int = 0, value: int = 0) -> object:
    return cpu.execute(GuestInstruction(cause, register, value))


DIRECT = {Cause.MOV_TO_AR, Cause.MOV_TO_AR_IMM, Cause.MOV_FROM_AR}
"""Only ar.itc of these is virtualized."""


@pytest.mark.parametrize("cause", Cause)
def test_without_optimizations_everything_intercepts(cause: Cause) -> None:
    cpu = running()
    register = AR_ITC if cause in DIRECT else 0
    instruction = GuestInstruction(cause, register, opcode=0x1_2345)
    outcome = cpu.execute(instruction)
    assert outcome == Intercept(cause, instruction, IVT + 0x6100, cause, 0x1_2345)
    assert (cpu.psr.vm, cpu.psr.bn, cpu.iip, cpu.ipsr.vm) == (0, 0, 0, 1)
    assert do(cpu, Cause.RFI) == NotRunning()


ACCELERATED: dict[Any, list[tuple[Cause, int, int]]] = {
    Vac.a_int: [
        (Cause.SSM, 0, I), (Cause.RSM, 0, I), (Cause.MOV_TO_PSR, 0, IC | I),
        (Cause.MOV_TO_CR, Cr.TPR, 0), (Cause.MOV_FROM_CR, Cr.TPR, 0),
        (Cause.MOV_FROM_CR, Cr.IVR, 0),
    ],
    Vac.a_from_psr: [(Cause.MOV_FROM_PSR, 0, 0)],
    Vac.a_from_cpuid: [(Cause.MOV_FROM_CPUID, number, 0) for number in range(5)],
    Vac.a_cover: [(Cause.COVER, 0, 0)],
    Vac.a_bsw: [(Cause.BSW_0, 0, 0), (Cause.BSW_1, 0, 0)],
}  # fmt: skip
NOT_ACCELERATED: dict[Any, list[tuple[Cause, int, int]]] = {
    Vac.a_int: [
        (Cause.SSM, 0, I | IC), (Cause.RSM, 0, IC), (Cause.MOV_TO_PSR, 0, 0),
        (Cause.MOV_TO_CR, Cr.EOI, 0), (Cause.MOV_FROM_CR, Cr.LID, 0), (Cause.MOV_TO_CR, Cr.ITV, 0),
    ],
    Vac.a_from_int_cr: [(Cause.MOV_FROM_CR, Cr.IIP, 0)],  # vpsr.ic is 1
    Vac.a_to_int_cr: [(Cause.MOV_TO_CR, Cr.IIP, 0)],
    Vac.a_from_cpuid: [(Cause.MOV_FROM_CPUID, 5, 0)],
}  # fmt: skip


@pytest.mark.parametrize("bit", ACCELERATED)
def test_an_acceleration_serves_its_instructions_and_no_others(bit: Any) -> None:
    for other, steps in ACCELERATED.items():
        for step in steps:
            outcome = do(running(bit.mask), *step)
            assert isinstance(outcome, Executed if other is bit else Intercept), step
    for step in NOT_ACCELERATED.get(bit, ()):
        assert isinstance(do(running(bit.mask), *step), Intercept), step


@pytest.mark.parametrize("number", [16, 17, *range(19, 26)])
def test_interruption_registers_are_served_while_ic_is_0(number: int) -> None:
    cpu = running(Vac.a_from_int_cr.mask | Vac.a_to_int_cr.mask, ic=0)
    assert do(cpu, Cause.MOV_TO_CR, number, 0x1234) == Executed()
    assert do(cpu, Cause.MOV_FROM_CR, number) == Executed(0x1234)
    only_reads = running(Vac.a_from_int_cr.mask, ic=0)
    assert isinstance(do(only_reads, Cause.MOV_TO_CR, number), Intercept)
    only_writes = running(Vac.a_to_int_cr.mask, ic=0)
    assert isinstance(do(only_writes, Cause.MOV_FROM_CR, number), Intercept)


def test_cover_writes_ifs_while_ic_is_0() -> None:
    for ic in (0, 1):
        cpu = running(Vac.a_cover.mask, ic=ic)
        assert do(cpu, Cause.COVER, 0, 0x123) == Executed()
        expected = 0 if ic else 1 << 63 | 0x123
        assert cpu.field("vcr", Cr.IFS) == expected


DISABLED: dict[Any, list[tuple[Cause, Cause, int]]] = {
    Vdc.d_extint: [(Cause.MOV_TO_CR, Cause.MOV_FROM_CR, number) for number in range(65, 72)],
    Vdc.d_itm: [(Cause.MOV_TO_CR, Cause.MOV_FROM_CR, Cr.ITM)],
    Vdc.d_ibr_dbr: [
        (Cause.MOV_TO_IBR, Cause.MOV_FROM_IBR, 3), (Cause.MOV_TO_DBR, Cause.MOV_FROM_DBR, 3)
    ],
    Vdc.d_pmc: [(Cause.MOV_TO_PMC, Cause.MOV_FROM_PMC, 4)],
}  # fmt: skip


@pytest.mark.parametrize("bit", DISABLED)
def test_a_disable_leads_to_the_processor_s_own_register(bit: Any) -> None:
    for other, moves in DISABLED.items():
        for write, read, number in moves:
            cpu = running(vdc=bit.mask)
            if other is bit:
                assert do(cpu, write, number, 77) == PassedThrough()
                assert do(cpu, read, number) == PassedThrough(77)
            else:
                assert isinstance(do(cpu, write, number, 77), Intercept)


def test_pmd_is_only_written_directly() -> None:
    cpu = running(vdc=Vdc.d_to_pmd.mask)
    assert do(cpu, Cause.MOV_TO_PMD, 4, 9) == PassedThrough()
    assert cpu.resources.pmd == {4: 9}


def test_a_handler_of_its_own_and_no_cause() -> None:
    cpu = running(options=1 << 8, handler=HANDLER)
    outcome = do(cpu, Cause.RFI)
    assert isinstance(outcome, Intercept)
    assert (outcome.address, outcome.gr24) == (HANDLER, 0)


class TestPrivilege:
    @pytest.mark.parametrize("cause", Cause)
    def test_above_level_0_nothing_is_virtualized(self, cause: Cause) -> None:
        outcome = do(running(cpl=3), cause, 1)
        if cause in {*DIRECT, Cause.MOV_FROM_CPUID, Cause.THASH, Cause.TTAG, Cause.COVER,
                     Cause.PROBE}:  # fmt: skip
            assert isinstance(outcome, Executed)
        else:
            assert outcome == GuestFault("privileged operation", 0x5400, IVT + 0x5400)

    def test_cpuid_there_is_the_processor_s(self) -> None:
        cpu = running(cpl=3)
        assert do(cpu, Cause.MOV_FROM_CPUID, 0) == Executed(Features().cpuid[0])
        assert do(running(cpl=3), Cause.MOV_FROM_CPUID, 9) == Executed(0)

    @pytest.mark.parametrize("number", [3, 18, 75, 127, 500])
    def test_reserved_control_registers_fault(self, number: int) -> None:
        for cause in (Cause.MOV_TO_CR, Cause.MOV_FROM_CR):
            outcome = do(running(), cause, number)
            assert outcome == GuestFault("illegal operation", 0x5400, IVT + 0x5400)


class TestTime:
    def test_a_counter_that_is_not_secure_is_read(self) -> None:
        cpu = running()
        cpu.itc, cpu.ito = 100, 7
        cpu.psr = cpu.psr.replace(si=0)
        assert do(cpu, Cause.MOV_FROM_AR, AR_ITC) == PassedThrough(100)

    def test_an_option_adds_the_offset(self) -> None:
        cpu = running(options=1 << 8 | 1 << 10)
        cpu.itc, cpu.ito = 100, 7
        assert do(cpu, Cause.MOV_FROM_AR, AR_ITC) == Executed(107)

    def test_other_registers_are_not_virtualized(self) -> None:
        assert do(running(), Cause.MOV_FROM_AR, 40) == Executed()
        assert do(running(), Cause.MOV_TO_AR, 40, 1) == Executed()


class TestVmsw:
    def test_it_enters_and_leaves_on_pages_with_rights_7(self) -> None:
        cpu = running()
        assert do(cpu, Cause.VMSW, 7, 0) == Executed()
        assert not cpu.psr.vm
        assert do(cpu, Cause.VMSW, 7, 1) == Executed()
        assert cpu.psr.vm
        assert isinstance(do(cpu, Cause.VMSW, 3, 0), Intercept)

    def test_disabled_it_always_intercepts(self) -> None:
        cpu = running(vdc=Vdc.d_vmsw.mask)
        assert isinstance(do(cpu, Cause.VMSW, 7, 0), Intercept)
        assert not cpu.psr.vm
        assert isinstance(do(cpu, Cause.VMSW, 7, 1), Intercept)

    def test_it_may_not_exist_and_is_privileged(self) -> None:
        memory = Firmware().memory
        bare = ItaniumProcessor(memory, features=Features(vmsw=False))
        assert do(bare, Cause.VMSW, 7, 1) == GuestFault("illegal operation", 0x5400, 0x5400)
        cpu = running(cpl=1)
        assert do(cpu, Cause.VMSW, 7, 0) == GuestFault("privileged operation", 0x5400, IVT + 0x5400)


class TestMemory:
    def test_without_a_translation_there_is_a_fault(self) -> None:
        cpu = running()
        assert cpu.load(0x1000) == GuestFault("data TLB", 0x800, IVT + 0x800)
        assert cpu.load(0x1000) == NotRunning()

    def test_rights_are_kept(self) -> None:
        cpu = running()
        cpu.translations.insert(0, 0x1000, 12, 0x20_8000 | 0x61)
        cpu.memory.write(0x20_8000, b"x" * 8)
        assert cpu.load(0x1000) == b"x" * 8
        assert cpu.store(0x1000, b"y") == GuestFault("data access rights", 0x5300, IVT + 0x5300)
        assert cpu.store(0x1000, b"y") == NotRunning()

    def test_a_guest_has_one_address_bit_less(self) -> None:
        for address, name in ((1 << 49, "unimplemented data address"), ((1 << 49) - 8, "data TLB")):
            outcome = running().load(address)
            assert isinstance(outcome, GuestFault) and outcome.name == name


@given(st.lists(st.tuples(st.sampled_from(Cause), st.integers(0, 200),
                          st.integers(0, (1 << 65) - 1)), max_size=20),
       st.integers(0, 0x7F), st.integers(0, 0x3F), st.binary(max_size=64))  # fmt: skip
def test_any_instruction_on_any_vpd_has_an_outcome(
    steps: list[tuple[Cause, int, int]], vac: int, vdc: int, data: bytes
) -> None:
    machine = Itanium()
    cpu, guest = machine.cpu, machine.guests[0]
    if not (vac & 1 and vdc & 2):
        machine.pal.call(cpu, PalProcedure.VP_TERMINATE, guest.vpd.address)
        guest.vpd.write("vac", vac)
        guest.vpd.write("vdc", vdc)
        assert machine.pal.call(cpu, PalProcedure.VP_REGISTER, guest.vpd.address, HOST_IVA) == (
            (0, 0, 0, 0)
        )
    for number, byte in enumerate(data):
        machine.memory.write(guest.vpd.address + 1024 + 29 * number, bytes([byte]))
    machine.monitor.switch_to(guest)
    for cause, register, value in steps:
        machine.run(cause, register, value)
    machine.monitor.stop()
    assert Vpd(machine.memory, guest.vpd.address).vac == (vac if not (vac & 1 and vdc & 2) else 0)
