"""APIC virtualization: registers, task priority, EOI, delivery, self-IPIs, IPIs."""

from __future__ import annotations

from itertools import product

import pytest

from tests.vtd.guest.machine import (
    APIC_ACCESS,
    BITMAPS,
    DESCRIPTOR,
    RAM,
    VIRTUAL_APIC,
    WB,
    Machine,
    Option,
)
from vtd.guest.x86.apic import EOI, ICR_HIGH, ICR_LOW, IRR, ISR, PPR, SELF_IPI, TPR, VirtualApic
from vtd.guest.x86.exits import ExitReason, VmExit
from vtd.guest.x86.outcomes import NOTHING, CpuException, Delivered
from vtd.guest.x86.posting import Notification, read_descriptor
from vtd.guest.x86.vmcs import pack
from vtd.layouts.interrupt_entries import PostedInterruptDescriptor

VID = ("primary.tpr_shadow", "secondary.virtual_interrupt_delivery")
REGISTERS = ("primary.tpr_shadow", "secondary.apic_register_virtualization")
ACCESSES = ("secondary.virtualize_apic_accesses",)
X2APIC = ("primary.tpr_shadow", "secondary.virtualize_x2apic_mode", "primary.msr_bitmaps")
PAGE = 0x5000
"""Guest-physical address of the APIC-access page."""
GP = CpuException(13, 0)


def run(*names: str, given: Option = None, **values: int) -> Machine:
    """A guest whose APIC page is at PAGE."""
    machine: Machine = given or Machine("everything")
    machine.put(machine.leaf(PAGE), APIC_ACCESS | WB | 7)
    machine.run(
        *names,
        **{
            "virtual_apic_address": VIRTUAL_APIC,
            "msr_bitmap": BITMAPS,
            "apic_access_address": APIC_ACCESS,
            "guest_rflags": 0x202,
            **values,
        },
    )
    return machine


def apic_of(machine: Machine) -> VirtualApic:
    assert machine.guest.apic is not None
    return machine.guest.apic


def exits(offset: int, kind: int) -> VmExit:
    return VmExit(ExitReason.APIC_ACCESS, offset | kind << 12)


STORED = {0x20, 0xD0, 0xE0, 0xF0, 0x280, *range(0x320, 0x380, 0x10), 0x380, 0x3E0}
READABLE = STORED | {0x30, 0x80, 0xB0, 0x300, 0x310, *range(0x100, 0x280, 0x10)}


class TestMemoryMapped:
    @pytest.mark.parametrize(
        "names",
        [
            ACCESSES,
            (*ACCESSES, "primary.tpr_shadow"),
            (*ACCESSES, *REGISTERS),
            (*ACCESSES, *VID),
            (*ACCESSES, *REGISTERS, *VID),
        ],
    )
    def test_reads_of_every_register(self, names: tuple[str, ...]) -> None:
        machine = run(*names)
        guest = machine.guest
        for offset in range(0, 0x1000, 0x10):
            machine.memory.write(VIRTUAL_APIC + offset, b"\x12\x34\x56\x78")
            known = READABLE if "secondary.apic_register_virtualization" in names else {TPR}
            virtualized = "primary.tpr_shadow" in names and offset in known
            outcome = guest.load(PAGE + offset, 4)
            assert outcome == (b"\x12\x34\x56\x78" if virtualized else exits(offset, 0))
            if machine.cpu.guest is None:
                machine.cpu.vmresume()
                guest = machine.guest

    @pytest.mark.parametrize(
        ("offset", "size"), [(0x81, 4), (0x84, 4), (0x80, 8), (0x400, 4), (0x83, 2), (0xFFF, 1)]
    )
    def test_accesses_beside_a_register_exit(self, offset: int, size: int) -> None:
        assert run(*ACCESSES, *REGISTERS).guest.load(PAGE + offset, size) == exits(offset, 0)
        data = bytes(size)
        assert run(*ACCESSES, *REGISTERS).guest.store(PAGE + offset, data) == exits(offset, 1)

    def test_parts_of_a_register_are_virtualized(self) -> None:
        machine = run(*ACCESSES, *REGISTERS)
        machine.memory.write(VIRTUAL_APIC + 0x20, b"abcd")
        assert machine.guest.load(PAGE + 0x22, 2) == b"cd"

    def test_fetches_exit(self) -> None:
        assert run(*ACCESSES, *REGISTERS).guest.fetch(PAGE + 0x80) == exits(0x80, 2)

    def test_guest_page_walks_exit(self) -> None:
        machine = Machine()
        tables = machine.guest_tables()
        tables.map(0x7000, 0x6000, 0x1000)
        machine.put(machine.leaf(tables.root << 12), APIC_ACCESS | WB | 7)
        machine.run(
            *ACCESSES, paged=True, guest_cr3=tables.root << 12, apic_access_address=APIC_ACCESS
        )
        assert machine.guest.load(0x7000) == exits(0, 15)

    @pytest.mark.parametrize("offset", sorted(STORED))
    def test_stored_registers_exit_after_the_store(self, offset: int) -> None:
        machine = run(*ACCESSES, *REGISTERS)
        assert machine.guest.store(PAGE + offset, b"abcd") == VmExit(ExitReason.APIC_WRITE, offset)
        assert machine.memory.read(VIRTUAL_APIC + offset, 4) == b"abcd"

    @pytest.mark.parametrize("offset", [0x30, 0xA0, 0xC0, 0x100, 0x1F0, 0x270, 0x390, 0x3F0])
    def test_other_registers_exit_before_it(self, offset: int) -> None:
        machine = run(*ACCESSES, *REGISTERS)
        assert machine.guest.store(PAGE + offset, b"abcd") == exits(offset, 1)
        assert machine.memory.read(VIRTUAL_APIC + offset, 4) == bytes(4)

    def test_icr_high_keeps_its_destination(self) -> None:
        machine = run(*ACCESSES, *REGISTERS)
        assert machine.guest.store(PAGE + ICR_HIGH, b"\x11\x22\x33\x44") == NOTHING
        assert machine.memory.read(VIRTUAL_APIC + ICR_HIGH, 4) == b"\0\0\0\x44"

    def test_task_priority_is_stored_as_a_byte(self) -> None:
        machine = run(*ACCESSES, "primary.tpr_shadow")
        assert machine.guest.store(PAGE + TPR, b"\x70\xff\xff\xff") == NOTHING
        assert machine.memory.read(VIRTUAL_APIC + TPR, 4) == b"\x70\0\0\0"

    def test_eoi_and_icr_exit_without_delivery(self) -> None:
        for offset in (EOI, ICR_LOW):
            machine = run(*ACCESSES, *REGISTERS)
            assert machine.guest.store(PAGE + offset, b"abcd") == VmExit(
                ExitReason.APIC_WRITE, offset
            )
            assert run(*ACCESSES, "primary.tpr_shadow").guest.store(
                PAGE + offset, b"abcd"
            ) == exits(offset, 1)

    def test_the_page_is_never_cached(self) -> None:
        machine = run(*ACCESSES, *REGISTERS)
        machine.guest.load(PAGE + TPR, 4)
        machine.memory.write(VIRTUAL_APIC + TPR, b"\x42")
        assert machine.guest.load(PAGE + TPR, 4) == b"\x42\0\0\0"
        assert not any(machine.cpu.mappings.linear.values())


class TestThreshold:
    def test_a_task_priority_below_the_threshold_exits(self) -> None:
        names = (*ACCESSES, "primary.tpr_shadow")
        machine = run(*names, tpr_threshold=0)
        guest = machine.guest
        assert apic_of(machine).threshold == 0
        apic_of(machine).threshold = 5
        assert guest.store(PAGE + TPR, b"\x50\0\0\0") == NOTHING
        assert guest.store(PAGE + TPR, b"\x4f\0\0\0") == VmExit(ExitReason.TPR_BELOW_THRESHOLD)

    def test_cr8(self) -> None:
        machine = run("primary.tpr_shadow")
        guest = machine.guest
        assert guest.write_cr8(9) == NOTHING
        assert machine.memory.read(VIRTUAL_APIC + TPR, 4) == b"\x90\0\0\0"
        assert guest.read_cr8() == 9
        assert guest.write_cr8(16) == GP
        apic_of(machine).threshold = 5
        assert guest.write_cr8(4) == VmExit(ExitReason.TPR_BELOW_THRESHOLD)

    def test_cr8_exits_and_the_real_task_priority(self) -> None:
        assert run("primary.cr8_load_exiting").guest.write_cr8(1) == VmExit(ExitReason.CR_ACCESS, 8)
        assert run("primary.cr8_store_exiting").guest.read_cr8() == VmExit(
            ExitReason.CR_ACCESS, 0x18
        )
        machine = run()
        assert machine.guest.write_cr8(3) == NOTHING
        assert machine.guest.read_cr8() == 3
        assert machine.cpu.local_apic.read(0x808) == 0x30


class TestDelivery:
    def test_every_vector_against_every_task_priority(self) -> None:
        """Delivered exactly when the class of the vector is higher."""
        machine = run(*VID)
        guest, apic = machine.guest, apic_of(machine)
        for vector, tpr in product(range(0x21, 0x100), range(0x100)):
            apic.rvi, apic.svi = vector, 0
            machine.memory.write(VIRTUAL_APIC + TPR, bytes([tpr]))
            apic.virtualize_tpr()
            assert apic.pending is (vector >> 4 > tpr >> 4)
            if tpr & 0xF == 0 and vector & 7 == 5:
                wanted = Delivered(vector) if apic.pending else NOTHING
                assert guest.boundary() == wanted

    def test_an_entry_evaluates(self) -> None:
        machine = run(*VID, guest_interrupt_status=0x41)
        assert machine.guest.boundary() == Delivered(0x41)
        assert apic_of(machine).status == 0x4100
        machine.guest.cpuid()
        assert machine.field("guest_interrupt_status") == 0x4100

    @pytest.mark.parametrize("vector", range(0x21, 0x100, 7))
    def test_delivery_moves_the_vector_to_service(self, vector: int) -> None:
        machine = run(*VID)
        apic = apic_of(machine)
        apic.virtualize_self_ipi(vector)
        apic.virtualize_self_ipi(0x20)
        assert apic.deliver() == vector
        assert apic.bits(ISR) == 1 << vector
        assert apic.bits(IRR) == 1 << 0x20
        assert (apic.svi, apic.rvi) == (vector, 0x20)
        assert apic.read(PPR) == vector & 0xF0

    def test_what_holds_a_virtual_interrupt_back(self) -> None:
        machine = run(*VID, guest_rflags=2, guest_interrupt_status=0x41)
        guest = machine.guest
        assert guest.boundary() == NOTHING
        guest.set_interrupt_flag(True)
        assert guest.boundary() == NOTHING  # STI blocks for one instruction
        assert guest.instruction() == Delivered(0x41)

    def test_a_window_exit_comes_instead(self) -> None:
        machine = Machine()
        state = machine.state(
            *VID,
            "primary.interrupt_window_exiting",
            guest_rflags=0x202,
            guest_interrupt_status=0x41,
            virtual_apic_address=VIRTUAL_APIC,
        )
        machine.memory.write(0x2000, pack(state))
        machine.cpu.vmptrld(0x2000)
        assert machine.cpu.vmlaunch() == VmExit(ExitReason.INTERRUPT_WINDOW)

    def test_a_virtual_interrupt_wakes_hlt(self) -> None:
        machine = Machine("everything")
        machine.run(
            *VID,
            off=("primary.hlt_exiting",),
            guest_rflags=0x202,
            guest_activity=1,
            guest_interrupt_status=0x41,
            virtual_apic_address=VIRTUAL_APIC,
        )
        assert machine.guest.boundary() == Delivered(0x41)
        assert machine.guest.state["guest_activity"] == 0

    def test_a_change_of_the_page_alone_is_not_evaluated(self) -> None:
        machine = run(*VID, guest_interrupt_status=0x41)
        apic = apic_of(machine)
        machine.memory.write(VIRTUAL_APIC + TPR, b"\xf0")
        assert apic.pending
        assert machine.guest.boundary() == Delivered(0x41)


class TestEoi:
    @pytest.mark.parametrize("vector", range(0x21, 0x100))
    def test_it_exits_exactly_where_the_bitmap_says(self, vector: int) -> None:
        bitmap = {f"eoi_exit_bitmap_{vector >> 6}": 1 << (vector & 63)}
        for values, wanted in ((bitmap, VmExit(ExitReason.VIRTUALIZED_EOI, vector)), ({}, NOTHING)):
            machine = run(*VID, *ACCESSES, guest_interrupt_status=vector, **values)
            machine.guest.boundary()
            assert machine.guest.store(PAGE + EOI, bytes(4)) == wanted
            assert machine.memory.read(VIRTUAL_APIC + ISR, 0x80) == bytes(0x80)
            if machine.cpu.guest is None:
                assert machine.field("exit_qualification") == vector
                assert machine.field("guest_interrupt_status") == 0

    def test_the_next_vector_follows(self) -> None:
        machine = run(*VID, *ACCESSES)
        guest, apic = machine.guest, apic_of(machine)
        for vector in (0x31, 0x45, 0x46, 0xF1):
            apic.virtualize_self_ipi(vector)
        order = []
        for _ in range(4):
            delivered = guest.boundary()
            assert isinstance(delivered, Delivered)
            order.append(delivered.vector)
            assert guest.boundary() == NOTHING  # the same class is held back
            guest.store(PAGE + EOI, bytes(4))
        assert order == [0xF1, 0x46, 0x45, 0x31]


class TestCommands:
    @pytest.mark.parametrize(
        ("command", "taken"),
        [
            (0x4_0041, True),
            (0x4_4041, True),
            (0x4_000F, False),
            (0x0_0041, False),
            (0x8_0041, False),
            (0x4_8041, False),
            (0x4_0141, False),
        ],
    )
    def test_self_ipis(self, command: int, taken: bool) -> None:
        machine = run(*VID, *ACCESSES)
        outcome = machine.guest.store(PAGE + ICR_LOW, command.to_bytes(4, "little"))
        if taken:
            assert outcome == NOTHING
            assert machine.guest.boundary() == Delivered(0x41)
        else:
            assert outcome == VmExit(ExitReason.APIC_WRITE, ICR_LOW)

    def ipi_machine(self, pointer: int = DESCRIPTOR | 1) -> tuple[Machine, list[Notification]]:
        sent: list[Notification] = []
        machine = run(
            *VID,
            *ACCESSES,
            "tertiary.ipi_virtualization",
            given=Machine("everything", send=sent.append),
            pid_pointer_table=0xD000,
            last_pid_pointer_index=3,
        )
        machine.put(0xD000 + 8 * 2, pointer)
        descriptor = PostedInterruptDescriptor.of(nv=0xF2, ndst=7)
        machine.memory.write(DESCRIPTOR, descriptor.pack())
        return machine, sent

    def test_ipis_are_posted(self) -> None:
        machine, sent = self.ipi_machine()
        machine.put(VIRTUAL_APIC + ICR_HIGH, 2 << 24)
        guest = machine.guest
        assert guest.store(PAGE + ICR_LOW, (0x51).to_bytes(4, "little")) == NOTHING
        assert guest.store(PAGE + ICR_LOW, (0x52).to_bytes(4, "little")) == NOTHING
        assert read_descriptor(machine.memory, DESCRIPTOR).pir == 1 << 0x51 | 1 << 0x52
        assert sent == [Notification(0xF2, 7)]

    @pytest.mark.parametrize(
        ("destination", "command", "pointer"),
        [
            (4, 0x51, DESCRIPTOR | 1),  # beyond the last index
            (2, 0x51, DESCRIPTOR),  # not valid
            (2, 0x51, DESCRIPTOR | 3),  # reserved bit
            (2, 0x51, 1 << 52 | 1),  # beyond the physical width
            (2, 0x51, 0x4000_0001),  # no memory
            (2, 0x05, DESCRIPTOR | 1),
            (2, 0x851, DESCRIPTOR | 1),  # logical destination
        ],
    )
    def test_other_ipis_exit(self, destination: int, command: int, pointer: int) -> None:
        machine, sent = self.ipi_machine(pointer)
        machine.put(VIRTUAL_APIC + ICR_HIGH, destination << 24)
        outcome = machine.guest.store(PAGE + ICR_LOW, command.to_bytes(4, "little"))
        assert outcome == VmExit(ExitReason.APIC_WRITE, ICR_LOW)
        assert sent == []


class TestX2Apic:
    def test_reads(self) -> None:
        machine = run(*X2APIC, "secondary.apic_register_virtualization")
        for register in range(0x100):
            machine.put(VIRTUAL_APIC + register * 16, register << 32 | 5)
            assert machine.guest.read_msr(0x800 + register) == register << 32 | 5
        machine = run(*X2APIC)
        machine.put(VIRTUAL_APIC + TPR, 0x33)
        assert machine.guest.read_msr(0x808) == 0x33
        assert machine.guest.read_msr(0x803) == 0x5_0014  # the real one
        assert machine.guest.read_msr(0x801) == GP

    def test_writes(self) -> None:
        machine = run(*X2APIC, *VID)
        guest = machine.guest
        assert guest.write_msr(0x808, 0x170) == GP
        assert guest.write_msr(0x808, 0x20) == NOTHING
        assert machine.word(VIRTUAL_APIC + TPR) == 0x20
        assert guest.write_msr(0x80B, 1) == GP
        assert guest.write_msr(0x83F, 0x100) == GP
        assert guest.write_msr(0x83F, 0x41) == NOTHING
        assert guest.boundary() == Delivered(0x41)
        assert guest.write_msr(0x80B, 0) == NOTHING
        assert guest.write_msr(0x802, 0) == GP
        assert guest.write_msr(0x80F, 0x1FF) == NOTHING
        assert guest.write_msr(0x83F, 5) == VmExit(ExitReason.APIC_WRITE, SELF_IPI)
        assert machine.word(VIRTUAL_APIC + SELF_IPI) == 5

    def test_an_eoi_exits_by_the_bitmap(self) -> None:
        machine = run(*X2APIC, *VID, guest_interrupt_status=0x41, eoi_exit_bitmap_1=2)
        machine.guest.boundary()
        assert machine.guest.write_msr(0x80B, 0) == VmExit(ExitReason.VIRTUALIZED_EOI, 0x41)

    def test_the_threshold(self) -> None:
        machine = run(*X2APIC)
        apic_of(machine).threshold = 3
        assert machine.guest.write_msr(0x808, 0x20) == VmExit(ExitReason.TPR_BELOW_THRESHOLD)

    def test_without_virtualization_the_real_apic_answers(self) -> None:
        machine = run("primary.msr_bitmaps")
        real = machine.cpu.local_apic
        guest = machine.guest
        self_ipis: list[int] = []
        real.on_self_ipi = self_ipis.append
        assert guest.write_msr(0x808, 0x40) == NOTHING
        assert guest.read_msr(0x808) == 0x40
        assert guest.write_msr(0x80B, 0) == NOTHING
        assert real.eois == 1
        assert guest.write_msr(0x83F, 0x61) == NOTHING
        assert self_ipis == [0x61]
        for msr, value in ((0x808, 0x100), (0x83F, 0x100), (0x80F, 1 << 32), (0x828, 1)):
            assert guest.write_msr(msr, value) == GP
        assert guest.write_msr(0x830, 1 << 32 | 0x41) == NOTHING
        real.x2apic = False
        assert guest.read_msr(0x808) == GP
        assert guest.write_msr(0x808, 0) == GP

    def test_ipis_of_msrs_are_posted_too(self) -> None:
        machine = run(
            *X2APIC,
            *VID,
            "tertiary.ipi_virtualization",
            pid_pointer_table=0xD000,
            last_pid_pointer_index=3,
        )
        machine.put(0xD000, DESCRIPTOR | 1)
        assert machine.guest.write_msr(0x830, 0x55) == NOTHING
        assert read_descriptor(machine.memory, DESCRIPTOR).pir == 1 << 0x55


def test_a_virtual_apic_page_that_is_not_there_reads_as_ones() -> None:
    machine = Machine()
    machine.run("primary.tpr_shadow", virtual_apic_address=0x200_0000)
    assert machine.guest.read_cr8() == 15
    assert machine.guest.write_cr8(3) == NOTHING


def test_ram_is_where_the_tests_think() -> None:
    machine = Machine()
    machine.memory.write(RAM + 0x123, b"z")
    assert machine.run().load(0x123, 1) == b"z"
