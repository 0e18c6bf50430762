"""PAL services: offsets, synchronization, and calls that are not defined."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vtd.guest.itanium.test_pal import BUFFER, INIT_NEXT, IVT, OTHER, VPD, Firmware
from vtd.guest.itanium.causes import InterceptCause
from vtd.guest.itanium.outcomes import (
    Executed,
    GuestInstruction,
    Running,
    Served,
    Undefined,
    VirtualInterrupt,
)
from vtd.guest.itanium.pal import PalProcedure
from vtd.guest.itanium.registers import Cr, Psr, Pta, RegionRegister, Tpr
from vtd.guest.itanium.services import PalService, branch, thash, ttag
from vtd.guest.itanium.vpd import Vpd

READ_PSR = GuestInstruction(InterceptCause.MOV_FROM_PSR)
SET_I = GuestInstruction(InterceptCause.SSM, value=Psr.i.mask)


def test_offsets_are_those_of_the_headers() -> None:
    assert {each.name: int(each) for each in PalService} == {
        "RESUME_NORMAL": 0x0000, "RESUME_HANDLER": 0x0400, "SYNC_READ": 0x0800,
        "SYNC_WRITE": 0x0C00, "SET_PENDING_INTERRUPT": 0x1000, "THASH": 0x1400, "TTAG": 0x1800,
        "RESTORE": 0x1C00, "SAVE": 0x2000,
    }  # fmt: skip


def current(vac: int = 0x7F, *, ic: int = 1) -> Firmware:
    """A virtual processor is current, its state synchronized."""
    firmware = Firmware().entered(created=False)
    firmware.vpd(vac=vac).vpsr = Psr.of(ic=ic)
    assert firmware.call(PalProcedure.VP_CREATE, VPD, IVT, 0) == 0
    assert firmware.service(PalService.RESTORE, VPD, 0) == Served()
    return firmware


def vpd_of(firmware: Firmware, address: int = VPD) -> Vpd:
    return Vpd(firmware.memory, address)


class TestStaleState:
    """What the processor keeps, and what the VPD holds, are one only after synchronization."""

    def test_a_change_without_sync_write_has_no_effect(self) -> None:
        firmware = current()
        vpd_of(firmware).vpsr = Psr.of(ic=1, pp=1)
        firmware.service(PalService.RESUME_NORMAL, VPD)
        assert firmware.cpus[0].execute(READ_PSR) == Executed(Psr.of(ic=1))
        firmware.cpus[0].leave()
        firmware.service(PalService.SYNC_WRITE, VPD)
        firmware.service(PalService.RESUME_NORMAL, VPD)
        assert firmware.cpus[0].execute(READ_PSR) == Executed(Psr.of(ic=1, pp=1))

    def test_a_read_without_sync_read_is_old(self) -> None:
        firmware = current()
        firmware.service(PalService.RESUME_NORMAL, VPD)
        assert firmware.cpus[0].execute(SET_I) == Executed()
        firmware.cpus[0].leave()
        assert not vpd_of(firmware).vpsr.i
        firmware.service(PalService.SYNC_READ, VPD)
        assert vpd_of(firmware).vpsr.i

    def test_an_interrupt_waits_until_the_processor_is_told(self) -> None:
        firmware = current()
        vpd_of(firmware).write("vhpi", 5)
        firmware.service(PalService.RESUME_NORMAL, VPD)
        assert firmware.cpus[0].execute(SET_I) == Executed()
        firmware.cpus[0].leave()
        firmware.service(PalService.SET_PENDING_INTERRUPT, VPD)
        answer = firmware.service(PalService.RESUME_NORMAL, VPD)
        assert answer == VirtualInterrupt(IVT + 0x3400)
        assert not firmware.cpus[0].psr.vm

    def test_without_accelerations_nothing_is_to_be_synchronized(self) -> None:
        firmware = current(0)
        vpd = vpd_of(firmware)
        vpd.vpsr = Psr.of(ic=1, pp=1)
        firmware.service(PalService.SYNC_READ, VPD)
        assert vpd.vpsr == Psr.of(ic=1, pp=1)
        assert firmware.cpus[0].vpsr == Psr.of(ic=1, pp=1)

    @pytest.mark.parametrize("skip", [0, 1])
    def test_save_synchronizes_unless_it_is_to_skip_that(self, skip: int) -> None:
        firmware = current()
        firmware.service(PalService.RESUME_NORMAL, VPD)
        firmware.cpus[0].execute(SET_I)
        firmware.cpus[0].leave()
        assert firmware.service(PalService.SAVE, VPD, skip) == Served()
        assert vpd_of(firmware).vpsr.i == 1 - skip

    def test_a_restore_that_skips_it_finds_what_another_one_left(self) -> None:
        firmware = current()
        firmware.service(PalService.RESUME_NORMAL, VPD)
        firmware.cpus[0].execute(SET_I)
        firmware.cpus[0].leave()
        firmware.service(PalService.SAVE, VPD, 1)
        firmware.vpd(OTHER)
        assert firmware.call(PalProcedure.VP_CREATE, OTHER, IVT, 0) == 0
        firmware.service(PalService.RESTORE, OTHER, 1)
        assert firmware.cpus[0].vpsr.i
        firmware.service(PalService.SYNC_WRITE, OTHER)
        assert not firmware.cpus[0].vpsr.i


def psr(firmware: Firmware, **values: int) -> Firmware:
    cpu = firmware.cpus[0]
    cpu.psr = cpu.psr.replace(**values)
    return firmware


def changed(firmware: Firmware) -> Firmware:
    vpd_of(firmware).write("vac", 0)
    return firmware


UNDEFINED: dict[str, tuple[Callable[[], object], str]] = {
    "no environment": (lambda: branch(Firmware().cpus[0], BUFFER), "no virtual environment"),
    "no entry": (lambda: branch(current().cpus[0], BUFFER + 0x10), "no entry"),
    "beyond the last": (lambda: branch(current().cpus[0], BUFFER + 0x2400), "no entry"),
    "translation off": (
        lambda: psr(current(), dt=0).service(PalService.SYNC_READ, VPD), "PSR.dt"),
    "interrupts on": (lambda: psr(current(), i=1).service(PalService.SYNC_READ, VPD), "PSR.dt"),
    "from a guest": (lambda: psr(current(), vm=1).service(PalService.SYNC_READ, VPD), "PSR.dt"),
    "another VPD": (lambda: current().service(PalService.SYNC_READ, OTHER), "not the current"),
    "bank 1": (lambda: psr(current(), bn=1).service(PalService.RESUME_NORMAL, VPD), "PSR.bn"),
    "normal with ic 0": (lambda: current(ic=0).service(PalService.RESUME_NORMAL, VPD), "ic = 1"),
    "handler with ic 1": (
        lambda: current().service(PalService.RESUME_HANDLER, VPD, 0x7F), "ic = 0"),
    "another vac": (lambda: current(ic=0).service(PalService.RESUME_HANDLER, VPD, 1), "GR26"),
    "vac changed": (lambda: changed(current()).service(PalService.RESUME_NORMAL, VPD), "changed"),
    "restored twice": (
        lambda: current().service(PalService.RESTORE, VPD, 1), "unknown, or current"),
    "restored elsewhere": (lambda: second(current()), "unknown, or current"),
}  # fmt: skip


def second(firmware: Firmware) -> object:
    assert firmware.call(PalProcedure.VP_INIT_ENV, INIT_NEXT, BUFFER, BUFFER, cpu=1) == 0
    return firmware.service(PalService.RESTORE, VPD, 1, cpu=1)


@pytest.mark.parametrize("name", UNDEFINED)
def test_a_call_that_is_not_defined_says_why(name: str) -> None:
    call, words = UNDEFINED[name]
    answer = call()
    assert isinstance(answer, Undefined) and words in answer.why


def test_a_handler_is_resumed_with_vac_and_cfle() -> None:
    assert current(ic=0).service(PalService.RESUME_HANDLER, VPD, 0x7F | 1 << 63) == Running()


@given(st.integers(0, (1 << 64) - 1), st.integers(12, 28), st.integers(15, 40))
def test_the_short_hash_stays_in_its_table_and_region(address: int, shift: int, size: int) -> None:
    table = Pta.of(ve=1, size=size, base=0x1F << 45)
    found = thash(address, RegionRegister.of(ps=shift, rid=7), table)
    assert found >> 61 == address >> 61
    offset = (address & (1 << 61) - 1) >> shift << 3
    assert found & (1 << size) - 1 == offset & (1 << size) - 1
    assert found & (1 << 61) - (1 << size) == table.base & (1 << 61) - (1 << size)


def test_the_long_hash_and_the_tag_know_the_region() -> None:
    firmware = current()
    table = Pta.of(ve=1, vf=1, size=20, base=0x400_0000)
    results = set()
    for rid in (1, 2):
        region = RegionRegister.of(ps=14, rid=rid)
        address = 0x1234_5000
        answers = [
            branch(firmware.cpus[0], BUFFER + service, 0, address, region, table)
            for service in (PalService.THASH, PalService.TTAG)
        ]
        assert answers == [Served(thash(address, region, table)), Served(ttag(address, region))]
        results.add(tuple(answers))
    assert len(results) == 2


@given(st.lists(st.tuples(*[st.integers(0, 0x2800) | st.sampled_from(PalService),
                            st.sampled_from([0, VPD, OTHER]) | st.integers(0, (1 << 65) - 1),
                            st.integers(0, 0xFF)]), max_size=12))  # fmt: skip
def test_any_call_of_a_service_is_answered(calls: list[tuple[int, int, int]]) -> None:
    firmware = current()
    for offset, gr25, gr26 in calls:
        answer = branch(firmware.cpus[0], BUFFER + offset, 0, gr25, gr26)
        assert isinstance(answer, Served | Running | Undefined | VirtualInterrupt)
        if firmware.cpus[0].psr.vm:
            firmware.cpus[0].leave()


def test_a_guest_that_unmasks_by_tpr_is_interrupted_after_the_instruction() -> None:
    firmware = current()
    vpd = vpd_of(firmware)
    vpd.vpsr = Psr.of(ic=1, i=1)
    vpd.set_cr(Cr.TPR, Tpr.of(mic=9))
    vpd.write("vhpi", 5)
    firmware.service(PalService.SYNC_WRITE, VPD)
    firmware.service(PalService.SET_PENDING_INTERRUPT, VPD)
    assert firmware.service(PalService.RESUME_NORMAL, VPD) == Running()
    cpu = firmware.cpus[0]
    lower = GuestInstruction(InterceptCause.MOV_TO_CR, Cr.TPR, Tpr.of(mic=4))
    assert cpu.execute(lower) == VirtualInterrupt(IVT + 0x3400)
    assert cpu.iip == 16
