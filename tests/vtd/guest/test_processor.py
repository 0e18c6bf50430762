"""VMX instructions, entries, exits and VMCS shadowing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetables.memory import PhysicalMemory
from tests.vtd.guest.machine import (
    BITMAPS,
    SHADOW,
    VIRTUAL_APIC,
    VMCS,
    VMXON,
    Machine,
)
from vtd.guest.x86.base_state import base_state
from vtd.guest.x86.capabilities import (
    REVISION,
    VMX_PROFILES,
    ControlMsr,
    EptVpid,
    FeatureControl,
)
from vtd.guest.x86.controls import ExitControls
from vtd.guest.x86.exits import ExitReason, VmExit
from vtd.guest.x86.fields import BY_NAME
from vtd.guest.x86.outcomes import (
    FAIL_INVALID,
    SUCCEED,
    CpuException,
    Delivered,
    Entered,
    VmResult,
    VmxAbort,
)
from vtd.guest.x86.processor import LogicalProcessor
from vtd.guest.x86.vmcs import NO_POINTER, Vmcs, pack

CAPS = VMX_PROFILES["broadwell-posted"]
UD, GP = CpuException(6), CpuException(13, 0)


def fails(error: int) -> VmResult:
    return VmResult(0x40, error)


def fresh(revision: int = REVISION) -> LogicalProcessor:
    memory = PhysicalMemory()
    memory.add_region(0, 1 << 20)
    memory.write(VMXON, revision.to_bytes(4, "little"))
    return LogicalProcessor(CAPS, memory)


def region(cpu: LogicalProcessor, address: int, revision: int = REVISION) -> int:
    cpu.memory.write(address, revision.to_bytes(4, "little"))
    return address


@pytest.fixture
def root() -> LogicalProcessor:
    """In root operation with a current VMCS that enters."""
    cpu = fresh()
    assert cpu.vmxon(VMXON) == SUCCEED
    cpu.memory.write(VMCS, pack(base_state(CAPS)))
    assert cpu.vmptrld(VMCS) == SUCCEED
    return cpu


class TestVmxon:
    def test_it_needs_everything_in_order(self) -> None:
        cpu = fresh()
        cpu.registers.cr4 = 0x20
        assert cpu.vmxon(VMXON) == UD
        cpu.registers.cr4 = 0x2020
        for name, value in (
            ("cr0", 0x8001_0030),
            ("virtual_8086", True),
            ("compatibility_mode", True),
        ):
            before = getattr(cpu.registers, name)
            setattr(cpu.registers, name, value)
            assert cpu.vmxon(VMXON) == UD
            setattr(cpu.registers, name, before)
        cpu.registers.cpl = 3
        assert cpu.vmxon(VMXON) == GP
        cpu.registers.cpl = 0
        cpu.registers.cr0 = 0x8001_0011
        assert cpu.vmxon(VMXON) == GP
        cpu.registers.cr0 = 0x8001_0031
        cpu.a20 = False
        assert cpu.vmxon(VMXON) == GP
        cpu.a20 = True
        for control in (0, 4, 3):
            cpu.feature_control = FeatureControl(control)
            assert cpu.vmxon(VMXON) == GP
        cpu.in_smx = True
        assert cpu.vmxon(VMXON) == SUCCEED

    def test_its_pointer_and_revision(self) -> None:
        assert fresh().vmxon(VMXON | 8) == FAIL_INVALID
        assert fresh().vmxon(1 << 46 | VMXON) == FAIL_INVALID
        assert fresh(REVISION + 1).vmxon(VMXON) == FAIL_INVALID
        assert fresh(REVISION | 1 << 31).vmxon(VMXON) == FAIL_INVALID
        assert fresh().vmxon(0x40_0000) == FAIL_INVALID  # there is no memory

    def test_again_in_root_operation(self, root: LogicalProcessor) -> None:
        assert root.vmxon(VMXON) == fails(15)
        root.registers.cpl = 3
        assert root.vmxon(VMXON) == GP

    def test_feature_control_is_written_until_it_is_locked(self) -> None:
        cpu = fresh()
        cpu.feature_control = FeatureControl(0)
        assert cpu.write_msr(0x3A, 5)
        assert cpu.read_msr(0x3A) == 5
        assert not cpu.write_msr(0x3A, 0)


INSTRUCTIONS: dict[str, Callable[[LogicalProcessor], object]] = {
    "vmxoff": lambda cpu: cpu.vmxoff(),
    "vmclear": lambda cpu: cpu.vmclear(VMCS),
    "vmptrld": lambda cpu: cpu.vmptrld(VMCS),
    "vmptrst": lambda cpu: cpu.vmptrst(),
    "vmread": lambda cpu: cpu.vmread(0x681E),
    "vmwrite": lambda cpu: cpu.vmwrite(0x681E, 0),
    "vmcall": lambda cpu: cpu.vmcall(),
    "invept": lambda cpu: cpu.invept(2, 0),
    "invvpid": lambda cpu: cpu.invvpid(2, 0),
    "vmlaunch": lambda cpu: cpu.vmlaunch(),
    "vmresume": lambda cpu: cpu.vmresume(),
    "vmxon": lambda cpu: cpu.vmxon(VMXON),
}


@pytest.mark.parametrize("name", [name for name in INSTRUCTIONS if name != "vmxon"])
def test_outside_vmx_operation_they_are_undefined(name: str) -> None:
    assert INSTRUCTIONS[name](fresh()) == UD


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_in_root_operation_they_need_privilege(name: str, root: LogicalProcessor) -> None:
    root.registers.cpl = 1
    assert INSTRUCTIONS[name](root) == GP


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_in_a_guest_they_exit_with_a_reason_of_their_own(name: str) -> None:
    machine = Machine()
    machine.run()
    assert INSTRUCTIONS[name](machine.cpu) == VmExit(ExitReason[name.upper()])
    assert machine.cpu.guest is None
    assert machine.field("exit_reason") == ExitReason[name.upper()]


def test_failures_are_invalid_without_a_current_vmcs() -> None:
    cpu = fresh()
    cpu.vmxon(VMXON)
    assert cpu.vmclear(VMCS | 1) == FAIL_INVALID
    assert cpu.vmptrld(VMXON) == FAIL_INVALID
    assert cpu.vmread(0x681E) == FAIL_INVALID
    assert cpu.vmwrite(0x681E, 1) == FAIL_INVALID
    assert cpu.vmlaunch() == FAIL_INVALID
    assert cpu.invept(3, 0) == FAIL_INVALID
    assert cpu.vmcall() == FAIL_INVALID


def test_failures_are_numbered_with_one(root: LogicalProcessor) -> None:
    assert root.vmcall() == fails(1)
    assert root.vmclear(VMCS | 1) == fails(2)
    assert root.vmclear(VMXON) == fails(3)
    assert root.vmptrld(1 << 50) == fails(9)
    assert root.vmptrld(VMXON) == fails(10)
    assert root.vmptrld(region(root, 0x7000, REVISION + 1)) == fails(11)
    assert root.vmread(0x4400) == VmResult(0, None, 11)
    assert root.vmread(0xFFFF_FFFF) == fails(12)
    assert root.vmwrite(0x1000, 0) == fails(12)


def test_a_shadow_region_is_loaded_only_where_shadowing_is_supported(
    root: LogicalProcessor,
) -> None:
    assert root.vmptrld(region(root, SHADOW, REVISION | 1 << 31)) == SUCCEED
    assert root.vmlaunch() == FAIL_INVALID
    root.vmptrld(VMCS)
    root.capabilities = replace(CAPS, secondary=ControlMsr(CAPS.secondary & ~(1 << 46)))
    assert root.vmptrld(SHADOW) == fails(11)


def test_read_only_fields_are_written_only_where_misc_says_so() -> None:
    machine = Machine()
    machine.run()
    machine.guest.cpuid()
    assert machine.cpu.vmwrite(0x4402, 7) == SUCCEED
    machine.cpu.capabilities = replace(CAPS, misc=CAPS.misc.replace(write_read_only=False))
    assert machine.cpu.vmwrite(0x4402, 7) == fails(13)


def test_clearing_the_current_vmcs_leaves_none(root: LogicalProcessor) -> None:
    assert root.vmptrst() == SUCCEED._replace(value=VMCS)
    Vmcs(root.memory, VMCS).launched = True
    assert root.vmclear(VMCS) == SUCCEED
    assert not Vmcs(root.memory, VMCS).launched
    assert root.vmptrst() == SUCCEED._replace(value=NO_POINTER)


def test_launch_state_decides_between_launch_and_resume(root: LogicalProcessor) -> None:
    assert root.vmresume() == fails(5)
    assert root.vmlaunch() == Entered()
    root.guest = None
    assert root.vmlaunch() == fails(4)
    assert root.vmresume() == Entered()
    root.guest = None
    root.vmclear(VMCS)
    root.vmptrld(VMCS)
    assert root.vmlaunch() == Entered()


def test_mov_ss_blocks_entries_before_the_launch_state_is_looked_at(
    root: LogicalProcessor,
) -> None:
    root.registers.blocked_by_mov_ss = True
    assert root.vmlaunch() == fails(26)
    assert root.vmresume() == fails(26)


def test_vmxoff_leaves_what_vmcss_hold(root: LogicalProcessor) -> None:
    root.vmwrite(0x681E, 0x1234)
    assert root.vmxoff() == SUCCEED
    assert root.vmread(0x681E) == UD
    root.vmxon(VMXON)
    root.vmptrld(VMCS)
    assert root.vmread(0x681E) == SUCCEED._replace(value=0x1234)


@given(st.sampled_from(sorted(BY_NAME)), st.integers(0, (1 << 64) - 1))
def test_what_is_written_is_read_with_the_width_of_the_field(name: str, value: int) -> None:
    cpu = LogicalProcessor(VMX_PROFILES["everything"], fresh().memory)
    cpu.vmxon(VMXON)
    cpu.vmptrld(region(cpu, VMCS))
    field = BY_NAME[name]
    if not field.exists(cpu.capabilities.features):
        assert cpu.vmread(field.encoding) == fails(12)
        return
    assert cpu.vmwrite(field.encoding, value) == SUCCEED
    kept = value & (1 << 8 * field.size) - 1
    assert cpu.vmread(field.encoding) == SUCCEED._replace(value=kept)


class TestInvept:
    def test_operands(self, root: LogicalProcessor) -> None:
        assert root.invept(1, 0x101E) == SUCCEED
        assert root.invept(1, 0x1000) == fails(28)
        assert root.invept(2, 0x1000) == SUCCEED
        for kind in (0, 3, 1 << 32):
            assert root.invept(kind, 0x101E) == fails(28)

    def test_where_ept_are_not_supported(self) -> None:
        bare = replace(CAPS, ept_vpid=EptVpid(0))
        cpu = LogicalProcessor(bare, fresh().memory)
        cpu.vmxon(VMXON)
        assert cpu.invept(2, 0) == UD
        assert cpu.invvpid(2, 0) == UD


class TestInvvpid:
    @pytest.mark.parametrize(
        ("kind", "descriptor", "address", "good"),
        [
            (0, 1, 0, True),
            (0, 1, 1 << 47, False),
            (0, 0, 0, False),
            (1, 0xFFFF, 1 << 47, True),
            (1, 0, 0, False),
            (1, 0x1_0001, 0, False),
            (2, 0, 0, True),
            (2, 1 << 40, 0, False),
            (3, 7, 0, True),
            (3, 0, 0, False),
            (4, 1, 0, False),
        ],
    )
    def test_operands(
        self, root: LogicalProcessor, kind: int, descriptor: int, address: int, good: bool
    ) -> None:
        assert root.invvpid(kind, descriptor, address) == (SUCCEED if good else fails(28))


class TestEntry:
    def test_a_late_failure_writes_only_reason_and_qualification(
        self, root: LogicalProcessor
    ) -> None:
        root.vmwrite(0x6820, 0)
        root.vmwrite(0x4016, 0x8000_0202)
        before = Vmcs(root.memory, VMCS).state().values()
        root.registers.rip = 1
        assert root.vmlaunch() == VmExit(0x8000_0021, 0)
        after = Vmcs(root.memory, VMCS).state().values()
        changed = {name for name in before if before[name] != after[name]}
        assert changed == {"exit_reason"}
        assert not Vmcs(root.memory, VMCS).launched
        assert root.registers.rip == 0x40_0000  # host state is loaded
        assert root.guest is None

    def test_error_numbers_are_stored(self, root: LogicalProcessor) -> None:
        root.vmwrite(0x6C02, 1 << 60)
        assert root.vmlaunch() == fails(8)
        root.vmwrite(0x400A, 9)
        assert root.vmlaunch() == fails(7)
        assert root.vmread(0x4400) == SUCCEED._replace(value=7)

    def test_an_injected_event_makes_the_guest_active(self) -> None:
        machine = Machine()
        guest = machine.run(
            guest_activity=1, entry_interruption_info=0x8000_0202, guest_rflags=0x202
        )
        assert guest.state["guest_activity"] == 0
        assert guest.state["guest_interruptibility"] == 8  # an NMI blocks NMIs
        guest.cpuid()
        assert machine.field("entry_interruption_info") == 0x202
        assert machine.field("guest_interruptibility") == 8

    def test_what_exits_before_the_first_instruction(self) -> None:
        cases = [
            (("pin.preemption_timer",), {}, ExitReason.PREEMPTION_TIMER),
            (("primary.nmi_window_exiting",), {}, ExitReason.NMI_WINDOW),
            (
                ("primary.interrupt_window_exiting",),
                {"guest_rflags": 0x202},
                ExitReason.INTERRUPT_WINDOW,
            ),
            ((), {"entry_interruption_info": 0x8000_0700}, ExitReason.MONITOR_TRAP_FLAG),
            (
                ("primary.tpr_shadow", "secondary.virtualize_apic_accesses"),
                {"tpr_threshold": 5, "virtual_apic_address": VIRTUAL_APIC},
                ExitReason.TPR_BELOW_THRESHOLD,
            ),
        ]
        for names, values, reason in cases:
            machine = Machine()
            state = machine.state(*names, **values)
            machine.memory.write(VMCS, pack(state))
            machine.cpu.vmptrld(VMCS)
            assert machine.cpu.vmlaunch() == VmExit(reason)
            assert machine.field("exit_reason") == reason
            assert Vmcs(machine.memory, VMCS).launched

    def test_a_closed_window_does_not_exit(self) -> None:
        guest = Machine().run("primary.interrupt_window_exiting")
        guest.set_interrupt_flag(True)
        assert guest.boundary() != VmExit(ExitReason.INTERRUPT_WINDOW)  # STI blocks
        assert guest.instruction() == VmExit(ExitReason.INTERRUPT_WINDOW)


class TestExit:
    def test_host_state_is_loaded(self) -> None:
        machine = Machine()
        guest = machine.run(
            host_rip=0x1111, host_rsp=0x2222, host_cr3=0x5000, host_sysenter_eip=0x77
        )
        guest.cpuid()
        registers = machine.cpu.registers
        assert (registers.rip, registers.rsp, registers.cr3) == (0x1111, 0x2222, 0x5000)
        assert registers.rflags == 2
        assert machine.cpu.read_msr(0x176) == 0x77
        assert machine.cpu.ia32e

    def test_guest_state_is_saved(self) -> None:
        machine = Machine()
        guest = machine.run(off=("primary.hlt_exiting",))
        guest.set_interrupt_flag(True)
        guest.instruction()
        guest.hlt()
        guest.cpuid()
        assert machine.field("guest_rflags") == 0x202
        assert machine.field("guest_activity") == 1

    def test_information_that_an_exit_lacks_is_cleared(self) -> None:
        machine = Machine()
        machine.run(exit_interruption_info=5, idt_vectoring_info=5, exit_qualification=5)
        machine.guest.cpuid()
        for name in ("exit_interruption_info", "idt_vectoring_info", "exit_qualification"):
            assert machine.field(name) == 0

    def test_lma_is_stored_in_the_entry_controls(self) -> None:
        machine = Machine()
        machine.run(paged=True)
        machine.guest.cpuid()
        assert machine.field("entry_controls") >> 9 & 1
        machine = Machine()
        machine.run()
        machine.guest.cpuid()
        assert not machine.field("entry_controls") >> 9 & 1

    def test_msr_areas(self) -> None:
        machine = Machine()
        store, load = 0x1_0000, 0x1_1000
        for where, index, value in ((store, 0xC000_0102, 0), (load, 0xC000_0103, 0x55)):
            machine.memory.write(where, index.to_bytes(8, "little") + value.to_bytes(8, "little"))
        machine.cpu.write_msr(0xC000_0102, 0x1234)
        machine.run(
            exit_msr_store_count=1,
            exit_msr_store_address=store,
            exit_msr_load_count=1,
            exit_msr_load_address=load,
        )
        machine.guest.cpuid()
        assert machine.word(store + 8) == 0x1234
        assert machine.cpu.read_msr(0xC000_0103) == 0x55

    @pytest.mark.parametrize(
        ("fields", "code"),
        [
            ({"exit_msr_store_count": 1, "exit_msr_store_address": 0x1_0000}, 1),
            ({"exit_msr_load_count": 1, "exit_msr_load_address": 0x1_0000}, 4),
            ({"exit_msr_store_count": 1, "exit_msr_store_address": 0x200_0000}, 1),
            ({"exit_msr_store_count": 513, "exit_msr_store_address": 0x2_0000}, 1),
        ],
    )
    def test_aborts(self, fields: dict[str, int], code: int) -> None:
        machine = Machine()
        machine.put(0x1_0000, 0x9999)
        machine.run(**fields)
        assert machine.guest.cpuid() == VmxAbort(code)
        assert machine.memory.read(VMCS + 4, 4)[0] == code
        assert machine.cpu.shutdown
        assert machine.cpu.vmptrst() == VmxAbort(0)

    def test_a_wide_guest_can_t_leave_to_a_narrow_host(self) -> None:
        machine = Machine()
        guest = machine.run(paged=True)
        guest.entry.exit = ExitControls(0)
        assert guest.cpuid() == VmxAbort(6)

    def test_saved_only_where_the_controls_say_so(self) -> None:
        machine = Machine()
        guest = machine.run(
            "exit.save_pat",
            "exit.save_efer",
            "exit.save_debug_controls",
            "entry.load_pat",
            paged=True,
        )
        machine.cpu.write_msr(0x277, 0)
        machine.cpu.write_msr(0x1D9, 1)
        guest.cpuid()
        assert machine.field("guest_pat") == 0
        assert machine.field("guest_debugctl") == 1
        machine = Machine()
        guest = machine.run("entry.load_pat", paged=True)
        before = guest.entry.state.guest_pat
        machine.cpu.write_msr(0x277, 0)
        guest.cpuid()
        assert machine.field("guest_pat") == before


class TestEvents:
    def test_interrupts_exit_or_are_delivered(self) -> None:
        machine = Machine()
        assert machine.run().interrupt(0x31) == VmExit(ExitReason.EXTERNAL_INTERRUPT)
        assert machine.field("exit_interruption_info") == 0
        machine = Machine()
        guest = machine.run("exit.acknowledge_interrupt")
        assert guest.interrupt(0x31) == VmExit(ExitReason.EXTERNAL_INTERRUPT)
        assert machine.field("exit_interruption_info") == 0x8000_0031
        guest = Machine().run(off=("pin.external_interrupt_exiting",), guest_rflags=0x202)
        assert guest.interrupt(0x31) == Delivered(0x31)
        guest.set_interrupt_flag(False)
        assert guest.interrupt(0x31) == guest.boundary()

    def test_nmis(self) -> None:
        machine = Machine()
        assert machine.run().nmi() == VmExit(ExitReason.EXCEPTION_OR_NMI)
        assert machine.field("exit_interruption_info") == 0x8000_0202
        guest = Machine().run(off=("pin.nmi_exiting", "pin.virtual_nmis"))
        assert guest.nmi() == Delivered(2)
        assert guest.nmi() != Delivered(2)  # blocked by the first

    def test_exceptions_exit_by_the_bitmap(self) -> None:
        machine = Machine()
        guest = machine.run(exception_bitmap=1 << 13)
        assert guest.raise_exception(6) == UD
        assert guest.raise_exception(13, 0x18) == VmExit(ExitReason.EXCEPTION_OR_NMI)
        assert machine.field("exit_interruption_info") == 0x8000_0B0D
        assert machine.field("exit_interruption_error_code") == 0x18

    def test_hlt(self) -> None:
        assert Machine().run().hlt() == VmExit(ExitReason.HLT)
        guest = Machine().run(
            off=("primary.hlt_exiting", "pin.external_interrupt_exiting"), guest_rflags=0x202
        )
        guest.hlt()
        assert guest.state["guest_activity"] == 1
        guest.interrupt(0x40)
        assert guest.state["guest_activity"] == 0

    @pytest.mark.parametrize(
        ("port", "size", "marked", "exits"),
        [
            (0x70, 1, 0x70, True),
            (0x70, 1, 0x71, False),
            (0x70, 2, 0x71, True),
            (0x8000, 1, 0x8000, True),
            (0x7FFF, 2, 0x8000, True),
            (0xFFFF, 2, 0x10, True),
        ],
    )
    def test_io_bitmaps(self, port: int, size: int, marked: int, exits: bool) -> None:
        machine = Machine()
        bitmap = BITMAPS + (0x1000 if marked >> 15 else 0)
        machine.memory.write(bitmap + (marked >> 3 & 0xFFF), bytes([1 << (marked & 7)]))
        guest = machine.run("primary.io_bitmaps", io_bitmap_a=BITMAPS, io_bitmap_b=BITMAPS + 0x1000)
        outcome = guest.port(port, size, read=True)
        wanted = VmExit(ExitReason.IO, size - 1 | 8 | port << 16)
        assert (outcome == wanted) is exits

    def test_io_without_bitmaps(self) -> None:
        assert Machine().run().port(0x70, 1, read=False) != VmExit(ExitReason.IO)
        guest = Machine().run("primary.unconditional_io_exiting")
        assert guest.port(0x70, 4, read=False) == VmExit(ExitReason.IO, 0x70_0003)

    @pytest.mark.parametrize(
        ("index", "byte", "write"),
        [
            (0x10, 2, False),
            (0xC000_0080, 0x400 + 0x10, False),
            (0x277, 0x800 + 0x4E, True),
            (0xC000_0102, 0xC00 + 0x20, True),
        ],
    )
    def test_msr_bitmap(self, index: int, byte: int, write: bool) -> None:
        for marked in (False, True):
            machine = Machine()
            if marked:
                machine.memory.write(BITMAPS + byte, b"\xff")
            guest = machine.run("primary.msr_bitmaps", msr_bitmap=BITMAPS)
            reason = ExitReason.WRMSR if write else ExitReason.RDMSR
            outcome = guest.write_msr(index, 0) if write else guest.read_msr(index)
            assert (outcome == VmExit(reason)) is marked

    def test_msrs_beyond_the_bitmap_and_unknown_ones(self) -> None:
        machine = Machine()
        guest = machine.run("primary.msr_bitmaps", msr_bitmap=BITMAPS)
        assert guest.read_msr(0x1234) == GP
        assert guest.write_msr(0x1234, 0) == GP
        assert guest.read_msr(0x4000_0000) == VmExit(ExitReason.RDMSR)
        assert Machine().run().read_msr(0x10) == VmExit(ExitReason.RDMSR)

    def test_cr3_and_invlpg_exits(self) -> None:
        guest = Machine().run(
            "primary.cr3_load_exiting", paged=True, cr3_target_count=1, cr3_target_value0=0x7000
        )
        assert guest.write_cr3(0x7000) != VmExit(ExitReason.CR_ACCESS, 3)
        assert guest.write_cr3(0x8000) == VmExit(ExitReason.CR_ACCESS, 3)
        guest = Machine().run("primary.invlpg_exiting")
        assert guest.invlpg(0x1234) == VmExit(ExitReason.INVLPG, 0x1234)
        assert Machine().run().write_cr3(1 << 50) == GP


class TestShadowing:
    def guest(self, read: bytes, write: bytes, link: int = SHADOW) -> Machine:
        machine = Machine()
        machine.memory.write(BITMAPS, read * 4096)
        machine.memory.write(BITMAPS + 0x1000, write * 4096)
        shadow = base_state(CAPS).replace({"guest_rip": 0x5678})
        machine.memory.write(SHADOW, pack(shadow, revision=REVISION | 1 << 31))
        machine.run(
            "secondary.vmcs_shadowing",
            vmcs_link_pointer=link,
            vmread_bitmap=BITMAPS,
            vmwrite_bitmap=BITMAPS + 0x1000,
        )
        return machine

    def test_permitted_accesses_go_to_the_shadow(self) -> None:
        machine = self.guest(b"\0", b"\0")
        assert machine.cpu.vmread(0x681E) == SUCCEED._replace(value=0x5678)
        assert machine.cpu.vmwrite(0x681E, 0x1111) == SUCCEED
        assert machine.cpu.guest is not None
        assert Vmcs(machine.memory, SHADOW).state().guest_rip == 0x1111
        assert Vmcs(machine.memory, VMCS).state().guest_rip == 0x40_0000

    def test_others_exit(self) -> None:
        assert self.guest(b"\xff", b"\0").cpu.vmread(0x681E) == VmExit(ExitReason.VMREAD)
        assert self.guest(b"\0", b"\xff").cpu.vmwrite(0x681E, 0) == VmExit(ExitReason.VMWRITE)
        assert self.guest(b"\0", b"\0").cpu.vmread(1 << 15) == VmExit(ExitReason.VMREAD)

    def test_failures_are_told_in_the_current_vmcs(self) -> None:
        machine = self.guest(b"\0", b"\0")
        assert machine.cpu.vmread(0x1) == fails(12)
        machine.guest.cpuid()
        assert machine.field("instruction_error") == 12

    def test_without_a_shadow_it_is_invalid(self) -> None:
        machine = self.guest(b"\0", b"\0", NO_POINTER)
        assert machine.cpu.vmread(0x681E) == FAIL_INVALID
        assert machine.cpu.vmwrite(0x681E, 0) == FAIL_INVALID
