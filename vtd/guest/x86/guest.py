"""A guest in VMX non-root operation: its events, and what they come to (SDM 25, 28, 29).

There is no interpreter: loads, stores, fetches, writes of the task priority, EOIs, interrupts, HLT
are calls. Each returns what happened, and a VM exit among it leaves the guest for good.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from pagetables import ept as ept_bits
from pagetables.ept import EXECUTE_USER
from pagetables.memory import BusError
from pagetables.walk import output
from vtd.guest.x86.apic import (
    EOI,
    ICR_HIGH,
    ICR_LOW,
    SELF_IPI,
    TPR,
    Access,
    VirtualApic,
    self_ipi_vector,
)
from vtd.guest.x86.controls import Activity, EventType, ExitEvent, Interruptibility
from vtd.guest.x86.ept import (
    EptFaultError,
    EptStage,
    ept_stage,
    mark_used,
    missing_flags,
    violation,
    walk_ept,
)
from vtd.guest.x86.exits import ApicAccessQualification, ApicAccessType, ExitReason, VmExit
from vtd.guest.x86.mappings import FETCH, FRAME, GLOBAL, READ, USER_SHIFT, WRITE, Space
from vtd.guest.x86.outcomes import (
    GP,
    NOTHING,
    PF,
    VE,
    CpuException,
    Delivered,
    Nothing,
    VmxAbort,
)
from vtd.guest.x86.paging import PF_FETCH, PF_PRESENT, PF_USER, PF_WRITE, PageFaultError
from vtd.guest.x86.paging import LinearPage, PagingState, find_page
from vtd.guest.x86.posting import post, take
from vtd.guest.x86.entry_rules import RFLAGS_IF, Entry

if TYPE_CHECKING:
    from vtd.guest.x86.processor import LogicalProcessor

Outcome = VmExit | CpuException | VmxAbort | Delivered | Nothing
"""What an event comes to."""

PHYSICAL_FETCH_USER = 1 << 3
"""Right of a guest-physical mapping to user-mode fetches, with mode-based execute."""
PML_ENTRIES = 512
VE_BUSY = 0xFFFF_FFFF


class ExitSignal(Exception):  # noqa: N818 - it is no error
    """A VM exit on its way to the processor; ``information`` are VMCS fields by name."""

    def __init__(
        self, reason: ExitReason, qualification: int = 0, **information: int
    ) -> None:
        super().__init__(reason.name)
        self.exit = VmExit(int(reason), qualification)
        self.information = information


class FaultSignal(Exception):  # noqa: N818 - it is no error
    """An exception that an access of the guest causes."""

    def __init__(self, fault: CpuException) -> None:
        super().__init__(f"vector {fault.vector}")
        self.fault = fault


class Guest:
    """The guest that a processor runs since its last VM entry."""

    def __init__(self, processor: LogicalProcessor, entry: Entry) -> None:
        self._processor = processor
        self._memory = processor.memory
        self._mappings = processor.mappings
        self.entry = entry
        self.state = entry.state.values()
        """Guest-state fields as they are now, by name."""
        self.efer = self._initial_efer()
        secondary = entry.secondary
        self.ept: EptStage | None = None
        if secondary.ept:
            self.ept = ept_stage(
                entry.state.eptp,
                entry.capabilities,
                mode_based=secondary.mode_based_execute,
            )
        self.vpid = entry.state.vpid if secondary.vpid else 0
        self.apic = VirtualApic(self._memory, entry) if entry.primary.tpr_shadow else None
        self._apic_access: int | None = None
        if secondary.virtualize_apic_accesses:
            self._apic_access = entry.state.apic_access_address >> 12
        self.user = entry.rights["ss"].dpl == 3
        self._linear: int | None = None
        """The linear address of the access that is under way."""
        self.switch_space()

    def _initial_efer(self) -> int:
        entry = self.entry
        if entry.entry.load_efer:
            return entry.state.guest_efer
        lma = 0x500 if entry.entry.ia32e_mode_guest else 0
        return self._processor.efer & ~0x500 | lma

    def switch_space(self) -> None:
        """Registers that tag or decide mappings changed: which mappings count from now on."""
        state = self.state
        self._paging = PagingState(
            state["guest_cr0"],
            state["guest_cr3"],
            state["guest_cr4"],
            self.efer,
            state["guest_rflags"],
            self._pdptes(),
            self.entry.capabilities.physical_width,
        )
        tag = None if self.ept is None else self.ept.tag
        self.space = Space(self.vpid, self._paging.pcid, tag)
        self._pages = self._mappings.space(self.space)
        shift = USER_SHIFT if self.user else 0
        self._read, self._write, self._fetch = READ << shift, WRITE << shift, FETCH << shift

    def _pdptes(self) -> tuple[int, int, int, int]:
        """The PDPTEs that PAE paging uses."""
        if self.entry.secondary.ept:
            values = [self.state[f"guest_pdpte{number}"] for number in range(4)]
        else:
            table = self.state["guest_cr3"] & 0xFFFF_FFE0
            values = [self.entry.read(table + 8 * number, 8) for number in range(4)]
        return values[0], values[1], values[2], values[3]

    # Memory

    def load(self, address: int, size: int = 8) -> bytes | Outcome:
        """Read bytes at a linear address, within one page or across pages."""
        offset = address & 0xFFF
        mapping = self._pages.get(address >> 12)
        if mapping is not None and mapping & self._read and offset + size <= 0x1000:
            try:
                return self._memory.read(mapping & FRAME | offset, size)
            except BusError:
                return b"\xff" * size
        return self._carry_out(lambda: self._load(address, size))

    def store(self, address: int, data: bytes) -> Outcome:
        """Write bytes at a linear address."""
        offset = address & 0xFFF
        mapping = self._pages.get(address >> 12)
        if mapping is not None and mapping & self._write and offset + len(data) <= 0x1000:
            self._put(mapping & FRAME | offset, data)
            return NOTHING
        return self._carry_out(lambda: self._store(address, data))

    def fetch(self, address: int, size: int = 1) -> bytes | Outcome:
        """Fetch instruction bytes at a linear address."""
        offset = address & 0xFFF
        mapping = self._pages.get(address >> 12)
        if mapping is not None and mapping & self._fetch and offset + size <= 0x1000:
            return self._get(mapping & FRAME | offset, size)
        return self._carry_out(lambda: self._fetch_bytes(address, size))

    def _carry_out(self, action: Callable[[], bytes | Outcome]) -> bytes | Outcome:  # type: ignore[misc]
        """An action whose exits and exceptions become its outcome."""
        try:
            return action()
        except ExitSignal as signal:
            return self._processor.exit_guest(signal.exit, signal.information)
        except FaultSignal as signal:
            return self._exception(signal.fault)

    def _load(self, address: int, size: int) -> bytes | Outcome:
        parts = []
        for start, length in _pages(address, size):
            physical = self._translate(start, READ)
            if self._on_apic_page(physical):
                parts.append(self._apic_read(physical & 0xFFF, length, ApicAccessType.LINEAR_READ))
            else:
                parts.append(self._get(physical, length))
        return b"".join(parts)

    def _fetch_bytes(self, address: int, size: int) -> bytes | Outcome:
        parts = []
        for start, length in _pages(address, size):
            physical = self._translate(start, FETCH)
            if self._on_apic_page(physical):
                self._apic_exit(physical & 0xFFF, ApicAccessType.LINEAR_FETCH)
            parts.append(self._get(physical, length))
        return b"".join(parts)

    def _store(self, address: int, data: bytes) -> Outcome:
        done, places = 0, []
        for start, length in _pages(address, len(data)):
            places.append((self._translate(start, WRITE), data[done : done + length]))
            done += length
        for physical, part in places:
            if self._on_apic_page(physical):
                return self._apic_write(physical & 0xFFF, part)
            self._put(physical, part)
        return NOTHING

    def _get(self, physical: int, size: int) -> bytes:
        """Bytes in memory; all ones where there is none."""
        try:
            return self._memory.read(physical, size)
        except BusError:
            return b"\xff" * size

    def _put(self, physical: int, data: bytes) -> None:
        """Store in memory; nothing happens where there is none."""
        try:
            self._memory.write(physical, data)
        except BusError:
            return

    def _translate(self, address: int, access: int) -> int:
        """The physical address of a linear one, cached from now on."""
        need = access << (USER_SHIFT if self.user else 0)
        mapping = self._pages.get(address >> 12)
        if mapping is not None and mapping & need:
            return mapping & FRAME | address & 0xFFF
        if self._paging.efer & 0x400 and not self.entry.capabilities.canonical(address):
            raise FaultSignal(CpuException(GP, 0))
        self._linear = address
        write = access == WRITE
        self._mappings.begin()
        tables = self._memory if self.ept is None else GuestTables(self)
        try:
            page = find_page(tables, self._paging, address, write=write)
        except PageFaultError as fault:
            raise FaultSignal(self._page_fault(fault.code, address, access)) from fault
        if not page.rights & need:
            raise FaultSignal(self._page_fault(PF_PRESENT, address, access))
        rights = page.rights
        if self.ept is None:
            physical = page.gpa
        else:
            mapping = self.physical(page.gpa, access, page)
            physical = mapping & FRAME | page.gpa & 0xFFF
            rights &= _combined(mapping, user=page.user, mode_based=self.ept.mode_based)
        if not self._on_apic_page(physical):
            kept = physical & FRAME | rights | (GLOBAL if page.global_ else 0)
            self._mappings.add(self.space, address >> 12, kept)
        return physical

    def _page_fault(self, code: int, address: int, access: int) -> CpuException:
        code |= PF_WRITE if access == WRITE else 0
        code |= PF_USER if self.user else 0
        shows_fetch = self._paging.cr4 & 1 << 20 or self.efer & 1 << 11
        code |= PF_FETCH if access == FETCH and shows_fetch else 0
        return CpuException(PF, code, address)

    def physical(
        self,
        gpa: int,
        access: int,
        page: LinearPage | None = None,
    ) -> int:
        """The guest-physical mapping for an access; exits where EPT refuse it.

        ``access``: READ, WRITE and FETCH as needed. ``page``: what paging says of the linear
        address; None for an access that is not final, to a guest paging structure.
        """
        assert self.ept is not None  # the callers know
        mapping = self._mappings.find_physical(self.ept.tag, gpa >> 12)
        need = access
        if access & FETCH and self.ept.mode_based and page is not None and page.user:
            need = access & ~FETCH | PHYSICAL_FETCH_USER
        if mapping is not None and mapping & need == need:
            return mapping
        try:
            leaf = walk_ept(self._memory, self.ept, gpa)
        except EptFaultError as fault:
            self._refuse(fault, access, page)
        entry, _, rights, _ = leaf
        granted = rights & (READ | WRITE | FETCH)
        if rights & EXECUTE_USER and self.ept.mode_based:
            granted |= PHYSICAL_FETCH_USER
        if granted & need != need:
            qualification = self._qualification(access, rights, page)
            self._violation(gpa, qualification, suppressed=bool(entry & 1 << 63))
        if self.ept.flags:
            self._use(gpa, write=bool(access & WRITE))
            if not access & WRITE and not entry & ept_bits.DIRTY:
                granted &= ~WRITE
        mapping = output(leaf, gpa) & FRAME | granted
        if self._apic_access != mapping >> 12:
            self._mappings.add_physical(self.ept.tag, gpa >> 12, mapping)
        elif page is None:
            self._apic_exit(gpa & 0xFFF, ApicAccessType.PHYSICAL_OTHER)
        return mapping

    def _qualification(self, access: int, rights: int, page: LinearPage | None) -> int:
        """Exit qualification of a violation, with advanced information where supported."""
        assert self.ept is not None  # there was a walk
        linear = self._linear is not None
        found = violation(self.ept, access, rights, linear=linear, final=page is not None)
        if page is not None and self.entry.capabilities.ept_vpid.advanced_information:
            found = found.replace(
                user_linear=page.user,
                writable_linear=page.writable,
                execute_disable_linear=page.execute_disable,
            )
        return int(found)

    def _refuse(
        self, fault: EptFaultError, access: int, page: LinearPage | None
    ) -> NoReturn:
        if not fault.violation:
            raise ExitSignal(
                ExitReason.EPT_MISCONFIGURATION, guest_physical_address=fault.gpa
            )
        qualification = self._qualification(access, fault.rights, page)
        self._violation(fault.gpa, qualification, suppressed=fault.suppresses_ve)

    def _violation(self, gpa: int, qualification: int, *, suppressed: bool) -> NoReturn:
        """An EPT violation: an exit, or a virtualization exception (25.5.6)."""
        linear = self._linear
        self._mappings.after_violation(
            self.space, None if linear is None else linear >> 12, gpa
        )
        if not suppressed and self._virtualization_exception(gpa, qualification):
            raise FaultSignal(CpuException(VE))
        raise ExitSignal(
            ExitReason.EPT_VIOLATION,
            qualification,
            guest_physical_address=gpa,
            guest_linear_address=linear or 0,
        )

    def _virtualization_exception(self, gpa: int, qualification: int) -> bool:
        """Whether the violation is a #VE; if so the information page tells of it (25.5.6.2)."""
        entry = self.entry
        if not entry.secondary.ept_violation_ve or not self.state["guest_cr0"] & 1:
            return False
        page = entry.state.ve_information_address
        if entry.read(page + 4, 4):
            return False
        words = (
            (0, ExitReason.EPT_VIOLATION, 4),
            (4, VE_BUSY, 4),
            (8, qualification, 8),
            (16, self._linear or 0, 8),
            (24, gpa, 8),
            (32, entry.state.eptp_index, 2),
        )
        for offset, value, size in words:
            self._put(page + offset, int(value).to_bytes(size, "little"))
        return True

    def _use(self, gpa: int, *, write: bool) -> None:
        """Accessed and dirty flags, and page-modification logging (28.2.4, 28.2.5)."""
        assert self.ept is not None  # flags belong to it
        missing = missing_flags(self._memory, self.ept, gpa, write=write)
        if not missing:
            return
        logging = self.entry.secondary.pml
        index = self.state["pml_index"]
        if logging and index >= PML_ENTRIES:
            raise ExitSignal(ExitReason.PML_FULL)
        mark_used(self._memory, self.ept, gpa, write=write)
        if logging and missing & ept_bits.DIRTY:
            where = self.entry.state.pml_address + 8 * index
            self._put(where, (gpa & FRAME).to_bytes(8, "little"))
            self.state["pml_index"] = index - 1 & 0xFFFF

    # APIC accesses

    def _on_apic_page(self, physical: int) -> bool:
        return self._apic_access is not None and physical >> 12 == self._apic_access

    def _apic_exit(self, offset: int, kind: ApicAccessType) -> NoReturn:
        raise ExitSignal(
            ExitReason.APIC_ACCESS, ApicAccessQualification.of(offset=offset, type=kind)
        )

    def _apic_read(self, offset: int, size: int, kind: ApicAccessType) -> bytes:
        if self.apic is None or self.apic.reads(offset, size) is Access.EXIT:
            self._apic_exit(offset, kind)
        return self.apic.read(offset, size).to_bytes(size, "little")

    def _apic_write(self, offset: int, data: bytes) -> Outcome:
        if self.apic is None:
            self._apic_exit(offset, ApicAccessType.LINEAR_WRITE)
        outcome = self.apic.writes(offset, len(data))
        if outcome is Access.EXIT:
            self._apic_exit(offset, ApicAccessType.LINEAR_WRITE)
        self._put(self.apic.page + offset, data)
        register = offset & 0xFF0
        if outcome is Access.WRITE_EXIT:
            raise ExitSignal(ExitReason.APIC_WRITE, register)
        if register == TPR:
            self.apic.write(TPR, self.apic.read(TPR, 1))
            return self._after_tpr()
        if register == EOI:
            self.apic.write(EOI, 0)
            return self._after_eoi()
        if register == ICR_LOW:
            return self._command(self.apic.read(ICR_LOW), self.apic.read(ICR_HIGH) >> 24)
        self.apic.write(ICR_HIGH, self.apic.read(ICR_HIGH) & 0xFF00_0000)
        return NOTHING

    def _after_tpr(self) -> Outcome:
        assert self.apic is not None  # the register was virtualized
        if self.apic.virtualize_tpr():
            raise ExitSignal(ExitReason.TPR_BELOW_THRESHOLD)
        return NOTHING

    def _after_eoi(self) -> Outcome:
        assert self.apic is not None  # the register was virtualized
        vector = self.apic.virtualize_eoi()
        if vector is not None:
            raise ExitSignal(ExitReason.VIRTUALIZED_EOI, vector)
        return NOTHING

    def _command(self, command: int, destination: int) -> Outcome:
        """An ICR write with virtual-interrupt delivery: self-IPI, IPI, or an exit (29.4.3.2)."""
        assert self.apic is not None  # the register was virtualized
        vector = self_ipi_vector(command)
        if vector is not None:
            self.apic.virtualize_self_ipi(vector)
            return NOTHING
        if self._send_ipi(command, destination):
            return NOTHING
        raise ExitSignal(ExitReason.APIC_WRITE, ICR_LOW)

    def _send_ipi(self, command: int, destination: int) -> bool:
        """IPI virtualization: post to another virtual processor; False if it does not apply."""
        fixed_physical_edge = not command & ~0xFF
        state = self.entry.state
        if not self.entry.tertiary.ipi_virtualization or not fixed_physical_edge:
            return False
        if command & 0xFF < 16 or destination > state.last_pid_pointer_index:
            return False
        pointer = self.entry.read(state.pid_pointer_table + 8 * destination, 8)
        if not pointer & 1 or pointer & 0x3E or not self.entry.inside(pointer):
            return False
        try:
            notification = post(self._memory, pointer & ~0x3F, command & 0xFF)
        except BusError:
            return False
        if notification is not None:
            self._processor.send(notification)
        return True

    # Calls of the guest's program

    def write_cr8(self, value: int) -> Outcome:
        """MOV to CR8 (29.3); without TPR shadow it goes to the real task priority."""
        if self.entry.primary.cr8_load_exiting:
            return self._exit(ExitReason.CR_ACCESS, 8)
        if value > 15:
            return CpuException(GP, 0)
        if self.apic is None:
            self._processor.local_apic.write(0x808, value << 4)
            return NOTHING
        self.apic.write(TPR, value << 4)
        return self._event(self._after_tpr)

    def read_cr8(self) -> int | Outcome:
        """MOV from CR8 (29.3)."""
        if self.entry.primary.cr8_store_exiting:
            return self._exit(ExitReason.CR_ACCESS, 0x18)
        if self.apic is None:
            return (self._processor.local_apic.read(0x808) or 0) >> 4
        return self.apic.read(TPR, 1) >> 4

    def read_msr(self, index: int) -> int | Outcome:
        """RDMSR (25.1.3, 29.5)."""
        if self._msr_exits(index, write=False):
            return self._exit(ExitReason.RDMSR)
        if 0x800 <= index <= 0x8FF:
            value = self._read_x2apic(index)
            return CpuException(GP, 0) if value is None else value
        value = self._processor.read_msr(index)
        return CpuException(GP, 0) if value is None else value

    def _read_x2apic(self, index: int) -> int | None:
        apic = self.apic
        if apic is not None and self.entry.secondary.virtualize_x2apic_mode:
            offset = (index & 0xFF) << 4
            if apic.registers or offset == TPR:
                return apic.read(offset, 8)
        return self._processor.local_apic.read(index)

    def write_msr(self, index: int, value: int) -> Outcome:
        """WRMSR (25.1.3, 29.5)."""
        if self._msr_exits(index, write=True):
            return self._exit(ExitReason.WRMSR)
        if 0x800 <= index <= 0x8FF:
            return self._event(lambda: self._write_x2apic(index, value))
        if not self._processor.write_msr(index, value):
            return CpuException(GP, 0)
        return NOTHING

    def _write_x2apic(self, index: int, value: int) -> Outcome:
        apic, offset = self.apic, (index & 0xFF) << 4
        if apic is None or not self.entry.secondary.virtualize_x2apic_mode:
            return self._write_real_apic(index, value)
        if offset == TPR:
            if value > 0xFF:
                return CpuException(GP, 0)
            apic.write(offset, value, 8)
            return self._after_tpr()
        if not apic.delivery or offset not in (EOI, SELF_IPI):
            if offset == ICR_LOW and self._send_ipi(value & 0xFFFF_FFFF, value >> 32):
                return NOTHING
            return self._write_real_apic(index, value)
        if (value if offset == EOI else value > 0xFF):
            return CpuException(GP, 0)
        apic.write(offset, value, 8)
        if offset == EOI:
            return self._after_eoi()
        if value < 16:
            raise ExitSignal(ExitReason.APIC_WRITE, SELF_IPI)
        apic.virtualize_self_ipi(value)
        return NOTHING

    def _write_real_apic(self, index: int, value: int) -> Outcome:
        written = self._processor.local_apic.write(index, value)
        return NOTHING if written else CpuException(GP, 0)

    def _msr_exits(self, index: int, *, write: bool) -> bool:
        """Whether the MSR bitmap, or its absence, makes an access exit (25.1.3)."""
        if not self.entry.primary.msr_bitmaps:
            return True
        if index <= 0x1FFF:
            part = 0x000
        elif 0xC000_0000 <= index <= 0xC000_1FFF:
            part = 0x400
        else:
            return True
        part += 0x800 if write else 0
        byte = self.entry.read(self.entry.state.msr_bitmap + part + (index >> 3 & 0x3FF), 1)
        return bool(byte >> (index & 7) & 1)

    def port(self, port: int, size: int, *, read: bool) -> Outcome:
        """IN or OUT of ``size`` bytes: an exit or nothing (25.1.3)."""
        qualification = size - 1 | (8 if read else 0) | port << 16
        if self._port_exits(port, size):
            return self._exit(ExitReason.IO, qualification)
        return NOTHING

    def _port_exits(self, port: int, size: int) -> bool:
        primary = self.entry.primary
        if not primary.io_bitmaps:
            return primary.unconditional_io_exiting
        if port + size > 0x1_0000:
            return True
        for each in range(port, port + size):
            state = self.entry.state
            bitmap = state.io_bitmap_b if each >> 15 else state.io_bitmap_a
            if self.entry.read(bitmap + (each >> 3 & 0xFFF), 1) >> (each & 7) & 1:
                return True
        return False

    def write_cr3(self, value: int) -> Outcome:
        """MOV to CR3: an exit, or other mappings (25.1.3, 28.3.3.1)."""
        state = self.entry.state
        targets = [state[f"cr3_target_value{n}"] for n in range(min(state.cr3_target_count, 4))]
        if self.entry.primary.cr3_load_exiting and value not in targets:
            return self._exit(ExitReason.CR_ACCESS, 3)
        keeps = value >> 63 and self.state["guest_cr4"] & 1 << 17
        value &= (1 << 63) - 1
        if value >> self.entry.capabilities.physical_width:
            return CpuException(GP, 0)
        self.state["guest_cr3"] = value
        self.switch_space()
        if not keeps:
            self._mappings.flush_pcid(self.vpid, self.space.pcid)
        return NOTHING

    def invlpg(self, address: int) -> Outcome:
        """INVLPG: linear and combined mappings of the address, never guest-physical ones."""
        if self.entry.primary.invlpg_exiting:
            return self._exit(ExitReason.INVLPG, address)
        self._mappings.invvpid_address(self.vpid, address >> 12)
        return NOTHING

    def hlt(self) -> Outcome:
        """HLT: an exit, or a halted processor that an interrupt wakes (25.1.3)."""
        if self.entry.primary.hlt_exiting:
            return self._exit(ExitReason.HLT)
        self.state["guest_activity"] = Activity.HLT
        return NOTHING

    def cpuid(self) -> Outcome:
        """CPUID always exits."""
        return self._exit(ExitReason.CPUID)

    def vmcall(self) -> Outcome:
        """VMCALL always exits."""
        return self._exit(ExitReason.VMCALL)

    def interrupt(self, vector: int) -> Outcome:
        """An external interrupt reaches the processor."""
        if not self.entry.pin.external_interrupt_exiting:
            if not self.interruptible:
                return NOTHING
            self._wake()
            return Delivered(vector)
        if self.entry.pin.posted_interrupts and (
            vector == self.entry.state.posted_interrupt_vector & 0xFF
        ):
            self._process_posted()
            return NOTHING
        information = {}
        if self.entry.exit.acknowledge_interrupt:
            event = ExitEvent.of(
                vector=vector, type=EventType.EXTERNAL_INTERRUPT, valid=True
            )
            information["exit_interruption_info"] = int(event)
        return self._exit(ExitReason.EXTERNAL_INTERRUPT, 0, **information)

    def nmi(self) -> Outcome:
        """An NMI reaches the processor."""
        if self.entry.pin.nmi_exiting:
            event = ExitEvent.of(vector=2, type=EventType.NMI, valid=True)
            return self._exit(
                ExitReason.EXCEPTION_OR_NMI, 0, exit_interruption_info=int(event)
            )
        blocked = Interruptibility(self.state["guest_interruptibility"])
        if blocked.nmi or blocked.mov_ss:
            return NOTHING
        self.state["guest_interruptibility"] |= Interruptibility.nmi.mask
        self._wake()
        return Delivered(2)

    def _process_posted(self) -> None:
        """Posted-interrupt processing: one action that nothing interrupts (29.6)."""
        assert self.apic is not None  # posted interrupts need virtual-interrupt delivery
        try:
            vectors = take(self._memory, self.entry.state.posted_interrupt_descriptor_address)
        except BusError:
            vectors = 0
        self._processor.local_apic.eoi()
        self.apic.request(vectors)

    @property
    def interruptible(self) -> bool:
        """Whether the guest would take a maskable interrupt now."""
        blocked = Interruptibility(self.state["guest_interruptibility"])
        awake = self.state["guest_activity"] in (Activity.ACTIVE, Activity.HLT)
        enabled = bool(self.state["guest_rflags"] & RFLAGS_IF)
        return enabled and awake and not blocked.sti and not blocked.mov_ss

    def boundary(self) -> Outcome:
        """An instruction boundary: an exit for an open window, or a virtual interrupt."""
        blocked = Interruptibility(self.state["guest_interruptibility"])
        primary = self.entry.primary
        active = self.state["guest_activity"] in (Activity.ACTIVE, Activity.HLT)
        if primary.nmi_window_exiting and active and not blocked.nmi and not blocked.mov_ss:
            return self._exit(ExitReason.NMI_WINDOW)
        if self.interruptible:
            if primary.interrupt_window_exiting:
                return self._exit(ExitReason.INTERRUPT_WINDOW)
            if self.apic is not None and self.apic.delivery and self.apic.pending:
                self._wake()
                return Delivered(self.apic.deliver())
        return NOTHING

    def instruction(self) -> Outcome:
        """Any instruction that causes nothing: blocking by STI and MOV SS ends, then a boundary."""
        if self.state["guest_activity"] == Activity.ACTIVE:
            self.state["guest_interruptibility"] &= ~(
                Interruptibility.sti.mask | Interruptibility.mov_ss.mask
            )
        return self.boundary()

    def set_interrupt_flag(self, enabled: bool) -> None:
        """STI or CLI; STI blocks interrupts until after the next instruction."""
        before = self.state["guest_rflags"]
        self.state["guest_rflags"] = before & ~RFLAGS_IF | (RFLAGS_IF if enabled else 0)
        if enabled and not before & RFLAGS_IF:
            self.state["guest_interruptibility"] |= Interruptibility.sti.mask

    def _wake(self) -> None:
        self.state["guest_activity"] = Activity.ACTIVE

    def _exception(self, fault: CpuException) -> Outcome:
        """An exception of the guest: an exit if the exception bitmap says so (25.2)."""
        state = self.entry.state
        exits = bool(state.exception_bitmap >> fault.vector & 1)
        if fault.vector == PF:
            code = fault.error_code or 0
            match = code & state.page_fault_error_mask == state.page_fault_error_match
            exits = exits is match
        if not exits:
            return fault
        event = ExitEvent.of(
            vector=fault.vector,
            type=EventType.HARDWARE_EXCEPTION,
            error_code_valid=fault.error_code is not None,
            valid=True,
        )
        return self._exit(
            ExitReason.EXCEPTION_OR_NMI,
            fault.address or 0,
            exit_interruption_info=int(event),
            exit_interruption_error_code=fault.error_code or 0,
        )

    def raise_exception(self, vector: int, error_code: int | None = None) -> Outcome:
        """An exception that an instruction causes."""
        return self._exception(CpuException(vector, error_code))

    def _exit(self, reason: ExitReason, qualification: int = 0, **information: int) -> Outcome:
        return self._processor.exit_guest(VmExit(int(reason), qualification), information)

    def _event(self, action: Callable[[], Outcome]) -> Outcome:
        try:
            return action()
        except ExitSignal as signal:
            return self._processor.exit_guest(signal.exit, signal.information)


class GuestTables:
    """Memory as the guest's page walk sees it: through EPT (implements ``TableMemory``).

    Each access is one to a guest paging structure: with accessed and dirty flags for EPT it counts
    as a write, too (28.2.4).
    """

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        assert guest.ept is not None  # there are no such tables without
        self._access = READ | WRITE if guest.ept.flags else READ

    @property
    def frames(self) -> GuestTables:
        """Frames by guest frame number."""
        return self

    def __getitem__(self, number: int) -> _GuestFrame:
        return _GuestFrame(self, number << 12)

    def read_record(self, address: int, size: int) -> int:
        """A record at a guest-physical address; all ones where there is no memory."""
        mapping = self._guest.physical(address, self._access)
        data = self._guest._get(mapping & FRAME | address & 0xFFF, size)  # noqa: SLF001
        return int.from_bytes(data, "little")

    def compare_exchange(self, address: int, size: int, expected: int, new: int) -> bool:
        """Set flags in an entry of the guest."""
        mapping = self._guest.physical(address, READ | WRITE)
        try:
            return self._guest._memory.compare_exchange(  # noqa: SLF001
                mapping & FRAME | address & 0xFFF, size, expected, new
            )
        except BusError:
            return True  # a flag of a table that can't be written is lost

    def write(self, address: int, data: bytes) -> None:
        """Store at a guest-physical address."""
        mapping = self._guest.physical(address, READ | WRITE)
        self._guest._put(mapping & FRAME | address & 0xFFF, data)  # noqa: SLF001


class _GuestFrame:
    def __init__(self, tables: GuestTables, address: int) -> None:
        self._tables = tables
        self._address = address

    def __getitem__(self, index: int) -> int:
        return self._tables.read_record(self._address | index << 3, 8)


def _combined(mapping: int, *, user: bool, mode_based: bool) -> int:
    """The rights that a guest-physical mapping leaves to supervisor and user accesses."""
    rights = mapping & (READ | WRITE | FETCH)
    if mode_based and user:
        rights &= ~FETCH
        rights |= FETCH if mapping & PHYSICAL_FETCH_USER else 0
    return rights | rights << USER_SHIFT


def _pages(address: int, size: int) -> list[tuple[int, int]]:
    """A range cut at 4 KiB boundaries: start and length of each part."""
    parts = []
    while size > 0:
        length = min(size, 0x1000 - (address & 0xFFF))
        parts.append((address, length))
        address, size = address + length & (1 << 64) - 1, size - length
    return parts

