"""Accesses of a guest to its APIC: memory-mapped, MSRs and CR8 (SDM 29.3 to 29.5).

Each is carried out on the virtual-APIC page, goes to the real APIC, or raises the exit that it
causes. IPI virtualization posts into descriptors of other virtual processors.
"""

from __future__ import annotations

from collections.abc import Callable

from pagetables.memory import BusError
from vtd.guest.bus import put
from vtd.guest.x86.apic import (
    EOI,
    ICR_HIGH,
    ICR_LOW,
    SELF_IPI,
    TPR,
    ApicAccess,
    VirtualApic,
    self_ipi_vector,
)
from vtd.guest.x86.entry_rules import Entry
from vtd.guest.x86.exits import ApicAccessType, ExitReason
from vtd.guest.x86.local_apic import LocalApic
from vtd.guest.x86.outcomes import GP, CpuException
from vtd.guest.x86.posting import Notification, post
from vtd.guest.x86.signals import ExitSignal, FaultSignal, apic_access_exit
from vtd.guest.x86.translation import ProcessorMemory

LOWEST_VECTOR = 16
PID_POINTER_VALID = 1
PID_POINTER_RESERVED = 0x3E


class ApicAccesses:
    """What a guest reaches of its APIC; ``send`` is told of notifications to be sent."""

    def __init__(
        self,
        memory: ProcessorMemory,
        entry: Entry,
        local_apic: LocalApic,
        send: Callable[[Notification], None],
    ) -> None:
        self._memory = memory
        self._entry = entry
        self._local = local_apic
        self._send = send
        self.apic = VirtualApic(memory, entry) if entry.primary.tpr_shadow else None

    # Memory-mapped accesses

    def load(self, offset: int, size: int, kind: ApicAccessType) -> bytes:
        """A read of the APIC-access page (29.4.2)."""
        if self.apic is None or self.apic.reads(offset, size) is ApicAccess.EXIT:
            raise apic_access_exit(offset, kind)
        return self.apic.read(offset, size).to_bytes(size, "little")

    def store(self, offset: int, data: bytes) -> None:
        """A write to the APIC-access page (29.4.3)."""
        apic = self.apic
        outcome = ApicAccess.EXIT if apic is None else apic.writes(offset, len(data))
        if apic is None or outcome is ApicAccess.EXIT:
            raise apic_access_exit(offset, ApicAccessType.LINEAR_WRITE)
        put(self._memory, apic.page + offset, data)
        register = offset & 0xFF0
        if outcome is ApicAccess.WRITE_EXIT:
            raise ExitSignal(ExitReason.APIC_WRITE, register)
        if register == TPR:
            apic.write(TPR, apic.read(TPR, 1))
            self._after_tpr(apic)
        elif register == EOI:
            apic.write(EOI, 0)
            self._after_eoi(apic)
        elif register == ICR_LOW:
            self._command(apic, apic.read(ICR_LOW), apic.read(ICR_HIGH) >> 24)
        else:
            apic.write(ICR_HIGH, apic.read(ICR_HIGH) & 0xFF00_0000)

    def _after_tpr(self, apic: VirtualApic) -> None:
        if apic.virtualize_tpr():
            raise ExitSignal(ExitReason.TPR_BELOW_THRESHOLD)

    def _after_eoi(self, apic: VirtualApic) -> None:
        vector = apic.virtualize_eoi()
        if vector is not None:
            raise ExitSignal(ExitReason.VIRTUALIZED_EOI, vector)

    def _command(self, apic: VirtualApic, command: int, destination: int) -> None:
        """An ICR write with virtual-interrupt delivery: self-IPI, IPI, or an exit (29.4.3.2)."""
        vector = self_ipi_vector(command)
        if vector is not None:
            apic.virtualize_self_ipi(vector)
        elif not self._send_ipi(command, destination):
            raise ExitSignal(ExitReason.APIC_WRITE, ICR_LOW)

    def _send_ipi(self, command: int, destination: int) -> bool:
        """IPI virtualization: post to another virtual processor; False if it does not apply.

        Only fixed, edge-triggered interrupts to one physical destination do.
        """
        state, entry = self._entry.state, self._entry
        if not entry.tertiary.ipi_virtualization or command & ~0xFF:
            return False
        if command < LOWEST_VECTOR or destination > state.last_pid_pointer_index:
            return False
        pointer = entry.read(state.pid_pointer_table + 8 * destination, 8)
        if not pointer & PID_POINTER_VALID or pointer & PID_POINTER_RESERVED:
            return False
        address = pointer & ~0x3F
        if not entry.inside(address):
            return False
        try:
            notification = post(self._memory, address, command)
        except BusError:
            return False
        if notification is not None:
            self._send(notification)
        return True

    # CR8 and MSRs

    def write_cr8(self, value: int) -> None:
        """MOV to CR8 of a task-priority class (29.3)."""
        if self.apic is None:
            self._local.write(0x808, value << 4)
            return
        self.apic.write(TPR, value << 4)
        self._after_tpr(self.apic)

    def read_cr8(self) -> int:
        """MOV from CR8 (29.3)."""
        if self.apic is None:
            return (self._local.read(0x808) or 0) >> 4
        return self.apic.read(TPR, 1) >> 4

    def read_msr(self, index: int) -> int:
        """RDMSR of 800h to 8FFh (29.5)."""
        offset = (index & 0xFF) << 4
        apic = self.apic
        if (
            apic is not None
            and self._entry.secondary.virtualize_x2apic_mode
            and (apic.registers or offset == TPR)
        ):
            return apic.read(offset, 8)
        value = self._local.read(index)
        if value is None:
            raise FaultSignal(CpuException(GP, 0))
        return value

    def write_msr(self, index: int, value: int) -> None:
        """WRMSR of 800h to 8FFh (29.5)."""
        offset = (index & 0xFF) << 4
        apic = self.apic
        if apic is None or not self._entry.secondary.virtualize_x2apic_mode:
            self._write_real(index, value)
        elif offset == TPR:
            self._store_register(apic, offset, value, limit=0xFF)
            self._after_tpr(apic)
        elif apic.delivery and offset == EOI:
            self._store_register(apic, offset, value, limit=0)
            self._after_eoi(apic)
        elif apic.delivery and offset == SELF_IPI:
            self._store_register(apic, offset, value, limit=0xFF)
            if value < LOWEST_VECTOR:
                raise ExitSignal(ExitReason.APIC_WRITE, SELF_IPI)
            apic.virtualize_self_ipi(value)
        elif offset != ICR_LOW or not self._send_ipi(value & 0xFFFF_FFFF, value >> 32):
            self._write_real(index, value)

    def _store_register(self, apic: VirtualApic, offset: int, value: int, *, limit: int) -> None:
        if value > limit:
            raise FaultSignal(CpuException(GP, 0))
        apic.write(offset, value, 8)

    def _write_real(self, index: int, value: int) -> None:
        if not self._local.write(index, value):
            raise FaultSignal(CpuException(GP, 0))
