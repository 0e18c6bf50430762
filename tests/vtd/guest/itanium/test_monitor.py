"""The monitor: what accelerations do is what it does itself, and partitions hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vtd.guest.itanium.machine import GUEST_MEMORY, VPDS, Itanium
from vtd.fuzz.guest_strategies import INSTRUCTIONS
from vtd.guest.itanium.causes import InterceptCause as Cause
from vtd.guest.itanium.monitor import D_VMSW, MonitorError
from vtd.guest.itanium.outcomes import GuestInstruction
from vtd.guest.itanium.registers import Cr, Psr
from vtd.guest.itanium.services import PalService
from vtd.guest.itanium.vpd import VPD_SIZE, Vac, Vdc

IC, I = Psr.ic.mask, Psr.i.mask  # noqa: E741 - the bit's name
ALL = 0x7F

STEPS = st.one_of(
    INSTRUCTIONS,
    INSTRUCTIONS,
    st.builds(lambda v: ("interrupt", v), st.integers(0, 255)),
    st.builds(lambda n: ("switch", n), st.integers(0, 1)),
    st.builds(lambda n, v: ("register", n, v), st.integers(0, 15), st.integers(0, 99)),
    st.just(("fault",)),
)


def carry_out(machine: Itanium, steps: list[object]) -> list[object]:
    """What the guests see of a program, and how their VPDs and registers are at the end."""
    monitor = machine.monitor
    seen: list[object] = []
    monitor.switch_to(machine.guests[0])
    for step in steps:
        match step:
            case GuestInstruction():
                seen.append(monitor.run(step))
            case ("interrupt", int(vector)):
                monitor.interrupt(machine.guests[vector & 1], vector)
            case ("switch", int(number)):
                monitor.switch_to(machine.guests[number])
            case ("register", int(number), int(value)):
                machine.cpu.bank[number] = value
            case _:
                monitor.fault(0x2C00)
        seen.append((machine.cpu.ip, list(machine.cpu.bank), machine.cpu.psr))
    monitor.stop()
    seen += [machine.memory.read(address + 16, VPD_SIZE - 16) for address in VPDS]
    return seen


@given(st.lists(STEPS, max_size=40), st.integers(1, ALL))
def test_accelerations_change_nothing_but_the_intercepts(steps: list[object], vac: int) -> None:
    slow, fast = Itanium(), Itanium(vac)
    assert carry_out(fast, steps) == carry_out(slow, steps)
    for one, other in zip(slow.guests, fast.guests, strict=True):
        assert other.in_service == one.in_service
        assert not other.intercepts - one.intercepts


def handler_run(machine: Itanium) -> list[int]:
    """Set up, take an interrupt, and end it, as a kernel does."""
    guest = machine.guests[0]
    machine.monitor.switch_to(guest)
    machine.run(Cause.MOV_TO_CR, Cr.IVA, 0x8000)
    machine.run(Cause.MOV_TO_CR, Cr.TPR, 0x30)
    machine.run(Cause.SSM, value=I)
    machine.monitor.interrupt(guest, 0x51)
    seen = [machine.cpu.ip, machine.run(Cause.MOV_FROM_CR, Cr.IVR)]
    seen.append(machine.run(Cause.MOV_FROM_CR, Cr.IIP))
    machine.run(Cause.MOV_TO_CR, Cr.EOI)
    machine.run(Cause.RFI)
    return [*seen, machine.cpu.ip, machine.run(Cause.MOV_FROM_PSR) & I]


@pytest.mark.parametrize("vac", [0, ALL])
def test_a_guest_takes_an_interrupt_and_returns(vac: int) -> None:
    machine = Itanium(vac)
    assert handler_run(machine) == [0x8000 + 0x3000, 0x51, 0x30, 0x30, I]
    assert not machine.guests[0].in_service


def test_accelerations_leave_fewer_intercepts() -> None:
    counts = []
    for vac in (0, ALL):
        machine = Itanium(vac)
        handler_run(machine)
        counts.append(machine.guests[0].intercepts)
    slow, fast = counts
    assert sum(slow.values()) == 8
    assert sorted(fast) == [Cause.MOV_TO_CR, Cause.MOV_FROM_CR, Cause.RFI]
    assert sum(fast.values()) == 4  # IVA, IVR, EOI, rfi


@pytest.mark.parametrize(
    "service", [PalService.SYNC_READ, PalService.SYNC_WRITE, PalService.SET_PENDING_INTERRUPT]
)
def test_a_service_that_is_left_out_shows(service: PalService) -> None:
    """The processor, or the monitor, works on old values."""
    machine = Itanium(ALL, leave_out=[service])
    guest = machine.guests[0]
    machine.monitor.switch_to(guest)
    before = machine.run(Cause.MOV_FROM_PSR)
    machine.run(Cause.RSM, value=IC)  # emulated: the VPD has it
    machine.run(Cause.MOV_TO_CR, Cr.IIP, 0x1230)  # accelerated: the processor has it
    machine.monitor.interrupt(guest, 0x51)
    after = machine.run(Cause.MOV_FROM_PSR)
    match service:
        case PalService.SYNC_READ:
            assert guest.vpd.cr(Cr.IIP) == 0
        case PalService.SYNC_WRITE:
            assert after == before
        case _:
            machine.run(Cause.SSM, value=I)
            assert not machine.guests[0].in_service
            assert machine.cpu.psr.vm  # nobody was told that an interrupt is pending
    assert handler_run(Itanium(ALL)) == handler_run(Itanium())


def map_page(machine: Itanium, address: int, physical: int) -> None:
    """The guest maps a 4 KiB page, as a TLB miss handler does."""
    machine.run(Cause.RSM, value=IC)
    machine.run(Cause.MOV_TO_CR, Cr.IFA, address)
    machine.run(Cause.MOV_TO_CR, Cr.ITIR, 12 << 2)
    machine.run(Cause.ITC_D, value=physical | 2 << 9 | 0x61)
    machine.run(Cause.SSM, value=IC)


ADDRESS = 0x4000_0000_0000_5000
RID = 5 << 8 | 14 << 2


class TestPartition:
    """Two guests with the same addresses and region identifiers on one logical processor."""

    @pytest.mark.parametrize("vac", [0, ALL])
    def test_the_same_address_leads_each_to_its_own_memory(self, vac: int) -> None:
        machine = Itanium(vac)
        for guest, text in zip(machine.guests, (b"first   ", b"second  "), strict=True):
            machine.monitor.switch_to(guest)
            machine.run(Cause.MOV_TO_RR, 2, RID)
            map_page(machine, ADDRESS, 0x2000)
            assert machine.monitor.store(ADDRESS, text)
            assert machine.run(Cause.MOV_FROM_RR, 2) == RID
        assert machine.memory.read(GUEST_MEMORY[0] + 0x2000, 8) == b"first   "
        assert machine.memory.read(GUEST_MEMORY[1] + 0x2000, 8) == b"second  "
        assert len(list(machine.cpu.translations)) == 2
        machine.monitor.switch_to(machine.guests[0])
        assert machine.monitor.load(ADDRESS) == b"first   "

    def test_what_a_guest_purges_is_its_own(self) -> None:
        machine = Itanium()
        for guest in machine.guests:
            machine.monitor.switch_to(guest)
            map_page(machine, ADDRESS, 0x2000)
            assert machine.monitor.load(ADDRESS) == bytes(8)
        machine.run(Cause.PTC_E)
        assert machine.monitor.load(ADDRESS) is None
        machine.monitor.switch_to(machine.guests[0])
        assert machine.monitor.load(ADDRESS) == bytes(8)
        machine.run(Cause.PTC_L, 12 << 2, ADDRESS)
        assert machine.monitor.load(ADDRESS) is None

    def test_a_page_outside_its_memory_is_not_reached(self) -> None:
        machine = Itanium()
        machine.monitor.switch_to(machine.guests[0])
        map_page(machine, ADDRESS, 0x40_0000)
        assert machine.monitor.load(ADDRESS) is None
        assert machine.guests[0].vpd.cr(Cr.IFA) == ADDRESS

    @pytest.mark.parametrize("cause", [Cause.MOV_TO_RR, Cause.MOV_TO_PKR])
    def test_identifiers_beyond_a_block_fault(self, cause: Cause) -> None:
        machine = Itanium()
        machine.monitor.switch_to(machine.guests[0])
        machine.run(cause, 0, 1 << 26 | 14 << 2)
        assert machine.cpu.ip == 0x5400
        assert machine.guests[0].vpd.cr(Cr.ISR) == 0x30

    def test_each_has_its_time(self) -> None:
        machine = Itanium()
        machine.cpu.itc = 1000
        machine.monitor.switch_to(machine.guests[0])
        machine.run(Cause.MOV_TO_AR, 44, 10)
        machine.monitor.switch_to(machine.guests[1])
        assert machine.run(Cause.MOV_FROM_AR, 44) == 1000
        machine.monitor.switch_to(machine.guests[0])
        machine.cpu.itc += 5
        assert machine.run(Cause.MOV_FROM_AR, 44) == 15

    def test_an_option_gives_the_same_time_without_an_intercept(self) -> None:
        machine = Itanium(options=1 << 8 | 1 << 9 | 1 << 10)
        machine.cpu.itc = 1000
        machine.monitor.switch_to(machine.guests[0])
        machine.run(Cause.MOV_TO_AR, 44, 10)
        assert machine.run(Cause.MOV_FROM_AR, 44) == 10
        assert machine.guests[0].intercepts[Cause.MOV_FROM_AR] == 0

    def test_a_disable_breaks_it(self) -> None:
        for vdc, seen in ((D_VMSW, 0), (D_VMSW | Vdc.d_pmc.mask, 7)):
            machine = Itanium(vdc=vdc)
            machine.monitor.switch_to(machine.guests[0])
            machine.run(Cause.MOV_TO_PMC, 4, 7)
            machine.monitor.switch_to(machine.guests[1])
            assert machine.run(Cause.MOV_FROM_PMC, 4) == seen


def test_pal_s_refusals_are_named() -> None:
    with pytest.raises(MonitorError, match="PAL_VP_CREATE: status -2"):
        Itanium(Vac.a_int.mask, Vdc.d_extint.mask)


def test_it_can_be_closed() -> None:
    machine = Itanium()
    machine.monitor.switch_to(machine.guests[1])
    machine.monitor.close(machine.guests)
    assert machine.pal.environment is None
    assert machine.run(Cause.RFI) == 0
