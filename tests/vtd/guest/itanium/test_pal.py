"""PAL procedures: two monitors' sequences, and each rule broken by itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetables.memory import PhysicalMemory
from vtd.guest.itanium.outcomes import PalResult, PalStatus, Running, Served
from vtd.guest.itanium.pal import Pal, PalProcedure
from vtd.guest.itanium.processor import ItaniumProcessor
from vtd.guest.itanium.registers import Psr
from vtd.guest.itanium.services import PalService, branch
from vtd.guest.itanium.state import Features
from vtd.guest.itanium.vpd import Vpd

BUFFER, VPD, OTHER, IVT, HANDLER = 0x10_0000, 0x20_0000, 0x21_0000, 0x30_0000, 0x38_0000
INIT_FIRST = 1 << 63 | 1 << 9 | 1 << 8 | 1 << 1 | 1
INIT_NEXT = INIT_FIRST & ~1
"""config_options of both monitors: implementation, cause, opcode, counters; initialize."""
REGION_7 = 7 << 61


class Firmware:
    def __init__(self, features: Features | None = None) -> None:
        self.memory = PhysicalMemory()
        self.memory.add_region(0, 1 << 22)
        self.pal = Pal(self.memory)
        self.cpus = [ItaniumProcessor(self.memory, number, features) for number in range(2)]
        for cpu in self.cpus:
            cpu.psr = cpu.ipsr = cpu.psr.replace(bn=0)

    def call(self, procedure: int, *arguments: int, cpu: int = 0) -> PalStatus:
        return self.result(procedure, *arguments, cpu=cpu).status

    def result(self, procedure: int, *arguments: int, cpu: int = 0) -> PalResult:
        return self.pal.call(self.cpus[cpu], procedure, *arguments)

    def service(self, service: PalService, *registers: int, cpu: int = 0) -> object:
        return branch(self.cpus[cpu], BUFFER + service, 0, *registers)

    def vpd(self, address: int = VPD, vac: int = 0x7F, vdc: int = 1) -> Vpd:
        vpd = Vpd(self.memory, address)
        vpd.write("vac", vac)
        vpd.write("vdc", vdc)
        vpd.write("virt_env_vaddr", BUFFER)
        vpd.vpsr = Psr.of(ic=1)
        return vpd

    def entered(self, *, created: bool = True) -> Firmware:
        assert self.call(PalProcedure.VP_INIT_ENV, INIT_FIRST, BUFFER, BUFFER) == 0
        if created:
            self.vpd()
            assert self.call(PalProcedure.VP_CREATE, VPD, IVT, 0) == 0
        return self


def test_numbers_are_those_of_the_headers() -> None:
    assert {each.name: int(each) for each in PalProcedure} == {
        "PROC_GET_FEATURES": 17, "VP_INFO": 50, "VP_CREATE": 265, "VP_ENV_INFO": 266,
        "VP_EXIT_ENV": 267, "VP_INIT_ENV": 268, "VP_REGISTER": 269, "VP_RESTORE": 270,
        "VP_SAVE": 271, "VP_TERMINATE": 272,
    }  # fmt: skip


class TestSequences:
    """What both public monitors call, in their order: no status but 0."""

    def test_xen(self) -> None:
        """Identify, initialize on each processor, create, restore and save by services."""
        firmware = Firmware()
        features = firmware.result(PalProcedure.PROC_GET_FEATURES)
        assert features.r9 >> 40 & 1 and features.r9 >> 54 & 1
        info = firmware.result(PalProcedure.VP_ENV_INFO)
        assert info.status == 0 and info.r9 >= 0x2400
        bases = {
            firmware.result(PalProcedure.VP_INIT_ENV, options, BUFFER, BUFFER, cpu=cpu).r9
            for cpu, options in enumerate((INIT_FIRST, INIT_NEXT))
        }
        assert len(bases) == 1
        vpd = firmware.vpd()
        assert firmware.call(PalProcedure.VP_CREATE, REGION_7 | VPD, IVT, 0) == 0
        for cpu in (0, 1, 0):
            assert firmware.service(PalService.RESTORE, REGION_7 | VPD, 1, cpu=cpu) == Served()
            assert firmware.cpus[cpu].iva == IVT
            assert firmware.service(PalService.SYNC_WRITE, VPD, cpu=cpu) == Served()
            vpd.write("vhpi", 3)
            assert firmware.service(PalService.SET_PENDING_INTERRUPT, VPD, cpu=cpu) == Served()
            assert firmware.service(PalService.RESUME_NORMAL, VPD, cpu=cpu) == Running()
            firmware.cpus[cpu].leave()
            assert firmware.service(PalService.SYNC_READ, VPD, cpu=cpu) == Served()
            assert firmware.service(PalService.SAVE, VPD, 1, cpu=cpu) == Served()

    def test_kvm(self) -> None:
        """hardware enable, vCPU create, load, run, put, destroy, hardware disable."""
        firmware = Firmware()
        assert firmware.call(PalProcedure.VP_ENV_INFO) == 0
        for cpu, options in enumerate((INIT_FIRST, INIT_NEXT)):
            assert firmware.call(PalProcedure.VP_INIT_ENV, options, BUFFER, BUFFER, cpu=cpu) == 0
        firmware.vpd()
        assert firmware.call(PalProcedure.VP_CREATE, VPD, IVT, 0) == 0
        for cpu in (1, 0):
            assert firmware.call(PalProcedure.VP_RESTORE, VPD, 0, cpu=cpu) == 0
            assert firmware.service(PalService.RESUME_NORMAL, VPD, cpu=cpu) == Running()
            firmware.cpus[cpu].leave()
            assert firmware.call(PalProcedure.VP_SAVE, VPD, 0, cpu=cpu) == 0
        assert firmware.call(PalProcedure.VP_TERMINATE, VPD, 0) == 0
        for cpu in range(2):
            assert firmware.call(PalProcedure.VP_EXIT_ENV, IVT + 0x8000, cpu=cpu) == 0
            assert firmware.cpus[cpu].iva == IVT + 0x8000
        assert firmware.pal.environment is None


Breach = Callable[[Firmware], PalStatus]
BREACHES: dict[str, tuple[Breach, int]] = {
    "create before init": (lambda f: f.call(PalProcedure.VP_CREATE, VPD, IVT, 0), -3),
    "register before init": (lambda f: f.call(PalProcedure.VP_REGISTER, VPD, IVT, 0), -3),
    "restore before init": (lambda f: f.call(PalProcedure.VP_RESTORE, VPD, 0), -3),
    "save before init": (lambda f: f.call(PalProcedure.VP_SAVE, VPD, 0), -3),
    "terminate before init": (lambda f: f.call(PalProcedure.VP_TERMINATE, VPD, 0), -3),
    "exit before init": (lambda f: f.call(PalProcedure.VP_EXIT_ENV, 0), -3),
    "first without initialize": (
        lambda f: f.call(PalProcedure.VP_INIT_ENV, INIT_NEXT, BUFFER, BUFFER), -3),
    "without opcode": (
        lambda f: f.call(PalProcedure.VP_INIT_ENV, INIT_FIRST & ~0x100, BUFFER, BUFFER), -2),
    "reserved option": (
        lambda f: f.call(PalProcedure.VP_INIT_ENV, INIT_FIRST | 1 << 11, BUFFER, BUFFER), -2),
    "buffer not aligned": (
        lambda f: f.call(PalProcedure.VP_INIT_ENV, INIT_FIRST, BUFFER + 8, BUFFER + 8), -2),
    "second initialize": (
        lambda f: f.entered().call(PalProcedure.VP_INIT_ENV, INIT_FIRST, BUFFER, BUFFER, cpu=1),
        -3),
    "init twice": (
        lambda f: f.entered().call(PalProcedure.VP_INIT_ENV, INIT_NEXT, BUFFER, BUFFER), -3),
    "another buffer": (
        lambda f: f.entered().call(
            PalProcedure.VP_INIT_ENV, INIT_NEXT, BUFFER + 0x1000, BUFFER + 0x1000, cpu=1), -2),
    "other options": (
        lambda f: f.entered().call(
            PalProcedure.VP_INIT_ENV, INIT_NEXT | 1 << 10, BUFFER, BUFFER, cpu=1), -2),
    "created twice": (lambda f: f.entered().call(PalProcedure.VP_CREATE, VPD, IVT, 0), -3),
    "a_int with d_extint": (lambda f: other(f, vac=1, vdc=2), -2),
    "unknown acceleration": (lambda f: other(f, vac=0x80), -2),
    "unknown disable": (lambda f: other(f, vdc=0x40), -2),
    "not aligned": (lambda f: other(f, address=OTHER + 0x1000), -2),
    "another environment": (lambda f: other(f, field="virt_env_vaddr"), -2),
    "reserved bytes": (lambda f: other(f, field="reserved_2"), -2),
    "unknown VPD restored": (lambda f: f.entered().call(PalProcedure.VP_RESTORE, OTHER, 0), -3),
    "not current saved": (lambda f: f.entered().call(PalProcedure.VP_SAVE, VPD, 0), -3),
    "current elsewhere": (lambda f: elsewhere(f, PalProcedure.VP_RESTORE), -3),
    "terminated elsewhere": (lambda f: elsewhere(f, PalProcedure.VP_TERMINATE), -3),
    "registered while current": (lambda f: elsewhere(f, PalProcedure.VP_REGISTER), -3),
    "reserved argument": (lambda f: f.call(PalProcedure.VP_ENV_INFO, 1), -2),
    "info of a physical processor": (lambda f: f.call(PalProcedure.VP_INFO), -1),
    "unknown procedure": (lambda f: f.call(273), -1),
}  # fmt: skip


def other(
    firmware: Firmware, *, address: int = OTHER, vac: int = 0, vdc: int = 0, field: str = ""
) -> PalStatus:
    vpd = firmware.entered().vpd(address, vac, vdc)
    if field:
        vpd.write(field, 5)
    return firmware.call(PalProcedure.VP_CREATE, address, IVT, 0)


def elsewhere(firmware: Firmware, procedure: PalProcedure) -> PalStatus:
    firmware.entered()
    assert firmware.call(PalProcedure.VP_INIT_ENV, INIT_NEXT, BUFFER, BUFFER, cpu=1) == 0
    assert firmware.call(PalProcedure.VP_RESTORE, VPD, 0) == 0
    return firmware.call(procedure, VPD, 0, cpu=1)


@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_is_refused(name: str) -> None:
    breach, status = BREACHES[name]
    assert breach(Firmware()) == status


def test_features_that_are_not_there() -> None:
    firmware = Firmware(Features(vm=False, vmsw=False, gitc=False))
    assert firmware.result(PalProcedure.PROC_GET_FEATURES).r9 == 0
    assert firmware.call(PalProcedure.VP_ENV_INFO) == -1
    firmware = Firmware(Features(gitc=False))
    assert firmware.call(PalProcedure.VP_INIT_ENV, INIT_FIRST | 1 << 10, BUFFER, BUFFER) == -2


def test_a_virtual_processor_that_moved_is_registered() -> None:
    """A VPD from another machine: not zeros, and yet attached, with a handler of its own."""
    firmware = Firmware().entered(created=False)
    firmware.vpd().write("reserved_5", 77)
    assert firmware.call(PalProcedure.VP_CREATE, VPD, IVT, 0) == -2
    assert firmware.call(PalProcedure.VP_REGISTER, VPD, IVT, HANDLER) == 0
    assert firmware.call(PalProcedure.VP_RESTORE, VPD, 0) == 0
    current = firmware.cpus[0].current
    assert current is not None and current.opt_handler == HANDLER


def test_exit_needs_that_none_is_current() -> None:
    firmware = Firmware().entered()
    assert firmware.call(PalProcedure.VP_RESTORE, VPD, 0) == 0
    assert firmware.call(PalProcedure.VP_EXIT_ENV, 0) == -3
    assert firmware.call(PalProcedure.VP_TERMINATE, VPD, IVT + 0x8000) == 0
    assert firmware.cpus[0].iva == IVT + 0x8000
    assert firmware.call(PalProcedure.VP_EXIT_ENV, 0) == 0


WORDS = st.one_of(
    st.sampled_from([0, 1, VPD, OTHER, BUFFER, IVT, INIT_FIRST, INIT_NEXT, 1 << 61, 1 << 64]),
    st.integers(0, (1 << 66) - 1),
)


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 280) | st.sampled_from(PalProcedure), WORDS,
                  WORDS, WORDS),
        max_size=12,
    )
)  # fmt: skip
def test_any_call_has_a_status(calls: list[tuple[int, int, int, int, int]]) -> None:
    firmware = Firmware()
    firmware.vpd()
    for cpu, index, *arguments in calls:
        assert firmware.call(index, *arguments, cpu=cpu) in PalStatus
    current = [cpu.current for cpu in firmware.cpus if cpu.current is not None]
    assert len(current) == len({each.vpd.address for each in current})
