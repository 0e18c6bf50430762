"""A guest in VMX non-root operation: its events, and what they come to (SDM 25, 26.6, 29).

There is no interpreter: loads, stores, fetches, writes of the task priority, EOIs, interrupts, HLT
are calls. Each returns what happened; after a VM exit the guest is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from pagetables.memory import BusError
from vtd.guest.bus import get, put
from vtd.guest.x86.apic_accesses import ApicAccesses
from vtd.guest.x86.controls import Activity, EventType, ExitEvent, Interruptibility
from vtd.guest.x86.entry_rules import CR4_PCIDE, EFER_LMA, EFER_LME, RFLAGS_IF, Entry
from vtd.guest.x86.exits import ApicAccessType, ExitReason, VmExit
from vtd.guest.x86.local_apic import LocalApic
from vtd.guest.x86.mappings import FETCH, FRAME, READ, WRITE, Mappings
from vtd.guest.x86.outcomes import (
    GP,
    NOTHING,
    PF,
    CpuException,
    Delivered,
    Nothing,
    VmxAbort,
)
from vtd.guest.x86.posting import Notification, take
from vtd.guest.x86.signals import ExitSignal, FaultSignal, apic_access_exit
from vtd.guest.x86.translation import ProcessorMemory, Translation

Outcome = VmExit | CpuException | VmxAbort | Delivered | Nothing
"""What an event comes to."""

T = TypeVar("T")
NMI_VECTOR = 2
X2APIC_MSRS = range(0x800, 0x900)
NO_FLUSH = 1 << 63
"""Bit 63 of a value for CR3: keep the mappings of its PCID."""


class Host(Protocol):
    """What a guest needs of the processor that runs it."""

    @property
    def memory(self) -> ProcessorMemory: ...

    @property
    def mappings(self) -> Mappings: ...

    @property
    def local_apic(self) -> LocalApic: ...

    @property
    def efer(self) -> int: ...

    def send(self, notification: Notification, /) -> None: ...

    def read_msr(self, index: int) -> int | None: ...

    def write_msr(self, index: int, value: int) -> bool: ...

    def exit_guest(self, vm_exit: VmExit, information: dict[str, int]) -> VmExit | VmxAbort: ...


class Guest:
    """The guest that ``host`` runs since a VM entry."""

    def __init__(self, host: Host, entry: Entry) -> None:
        self._host = host
        self._memory = host.memory
        self.entry = entry
        self.state = entry.state.values()
        """Guest-state fields as they are now, by name."""
        self.efer = self._initial_efer()
        self.translation = Translation(self._memory, host.mappings, entry, self.state, self.efer)
        self._pages = self._direct_pages()
        self._accesses = ApicAccesses(self._memory, entry, host.local_apic, host.send)
        self.apic = self._accesses.apic

    def _initial_efer(self) -> int:
        """IA32_EFER after the entry (26.3.2.1)."""
        if self.entry.entry.load_efer:
            return self.entry.state.guest_efer
        mode = EFER_LMA | EFER_LME
        return self._host.efer & ~mode | (mode if self.entry.entry.ia32e_mode_guest else 0)

    def _direct_pages(self) -> dict[int, int]:
        """The mappings that accesses use without further ado; none while an audit listens."""
        return self.translation.pages if self._host.mappings.direct else {}

    # Memory

    def load(self, address: int, size: int = 8) -> bytes | Outcome:
        """Read bytes at a linear address."""
        offset = address & 0xFFF
        mapping = self._pages.get(address >> 12)
        if mapping is not None and mapping & self.translation.read and offset + size <= 0x1000:
            return get(self._memory, mapping & FRAME | offset, size)
        return self._carry_out(lambda: self._load(address, size))

    def store(self, address: int, data: bytes) -> Outcome:
        """Write bytes at a linear address."""
        offset = address & 0xFFF
        mapping = self._pages.get(address >> 12)
        if mapping is not None and (
            mapping & self.translation.write and offset + len(data) <= 0x1000
        ):
            put(self._memory, mapping & FRAME | offset, data)
            return NOTHING
        return self._event(lambda: self._store(address, data))

    def fetch(self, address: int, size: int = 1) -> bytes | Outcome:
        """Fetch instruction bytes at a linear address."""
        offset = address & 0xFFF
        mapping = self._pages.get(address >> 12)
        if mapping is not None and mapping & self.translation.fetch and offset + size <= 0x1000:
            return get(self._memory, mapping & FRAME | offset, size)
        return self._carry_out(lambda: self._fetch(address, size))

    def _load(self, address: int, size: int) -> bytes:
        parts = []
        for start, length in _pages(address, size):
            physical = self.translation.translate(start, READ)
            if self.translation.on_apic_page(physical):
                kind = ApicAccessType.LINEAR_READ
                parts.append(self._accesses.load(physical & 0xFFF, length, kind))
            else:
                parts.append(get(self._memory, physical, length))
        return b"".join(parts)

    def _fetch(self, address: int, size: int) -> bytes:
        parts = []
        for start, length in _pages(address, size):
            physical = self.translation.translate(start, FETCH)
            if self.translation.on_apic_page(physical):
                raise apic_access_exit(physical & 0xFFF, ApicAccessType.LINEAR_FETCH)
            parts.append(get(self._memory, physical, length))
        return b"".join(parts)

    def _store(self, address: int, data: bytes) -> None:
        done, places = 0, []
        for start, length in _pages(address, len(data)):
            places.append((self.translation.translate(start, WRITE), data[done : done + length]))
            done += length
        for physical, part in places:
            if self.translation.on_apic_page(physical):
                self._accesses.store(physical & 0xFFF, part)
            else:
                put(self._memory, physical, part)

    # The guest's program

    def write_cr8(self, value: int) -> Outcome:
        """MOV to CR8 of a task-priority class (25.1.3, 29.3)."""
        if self.entry.primary.cr8_load_exiting:
            return self._exit(ExitReason.CR_ACCESS, 8)
        if value > 15:
            return self._exception(CpuException(GP, 0))
        return self._event(lambda: self._accesses.write_cr8(value))

    def read_cr8(self) -> int | Outcome:
        """MOV from CR8 (25.1.3, 29.3)."""
        if self.entry.primary.cr8_store_exiting:
            return self._exit(ExitReason.CR_ACCESS, 0x18)
        return self._accesses.read_cr8()

    def read_msr(self, index: int) -> int | Outcome:
        """RDMSR (25.1.3, 29.5)."""
        if self._msr_exits(index, write=False):
            return self._exit(ExitReason.RDMSR)
        if index in X2APIC_MSRS:
            return self._carry_out(lambda: self._accesses.read_msr(index))
        value = self._host.read_msr(index)
        return self._exception(CpuException(GP, 0)) if value is None else value

    def write_msr(self, index: int, value: int) -> Outcome:
        """WRMSR (25.1.3, 29.5)."""
        if self._msr_exits(index, write=True):
            return self._exit(ExitReason.WRMSR)
        if index in X2APIC_MSRS:
            return self._event(lambda: self._accesses.write_msr(index, value))
        if not self._host.write_msr(index, value):
            return self._exception(CpuException(GP, 0))
        return NOTHING

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
        """IN or OUT of ``size`` bytes, the port in DX: an exit or nothing (25.1.3)."""
        if self._port_exits(port, size):
            return self._exit(ExitReason.IO, size - 1 | (8 if read else 0) | port << 16)
        return NOTHING

    def _port_exits(self, port: int, size: int) -> bool:
        primary, state = self.entry.primary, self.entry.state
        if not primary.io_bitmaps:
            return primary.unconditional_io_exiting
        if port + size > 0x1_0000:
            return True
        bitmaps = (state.io_bitmap_a, state.io_bitmap_b)
        return any(
            self.entry.read(bitmaps[each >> 15] + (each >> 3 & 0xFFF), 1) >> (each & 7) & 1
            for each in range(port, port + size)
        )

    def write_cr3(self, value: int) -> Outcome:
        """MOV to CR3: an exit, or other mappings (25.1.3, 28.3.3.1)."""
        state = self.entry.state
        targets = [state[f"cr3_target_value{n}"] for n in range(min(state.cr3_target_count, 4))]
        if self.entry.primary.cr3_load_exiting and value not in targets:
            return self._exit(ExitReason.CR_ACCESS, 3)
        pcids = self.state["guest_cr4"] & CR4_PCIDE
        keeps = value & NO_FLUSH and pcids
        if pcids:
            value &= ~NO_FLUSH
        if value >> self.entry.capabilities.physical_width:
            return self._exception(CpuException(GP, 0))
        self.state["guest_cr3"] = value
        self.update_paging()
        if not keeps:
            space = self.translation.space
            self._host.mappings.flush_pcid(space.vpid, space.pcid)
        return NOTHING

    def update_paging(self) -> None:
        """Registers that paging depends on were changed in :attr:`state`."""
        self.translation.update()
        self._pages = self._direct_pages()

    def invlpg(self, address: int) -> Outcome:
        """INVLPG: linear and combined mappings of the address, never guest-physical ones."""
        if self.entry.primary.invlpg_exiting:
            return self._exit(ExitReason.INVLPG, address)
        self._host.mappings.invvpid_address(self.translation.vpid, address >> 12)
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

    def raise_exception(self, vector: int, error_code: int | None = None) -> Outcome:
        """An exception that an instruction causes."""
        return self._exception(CpuException(vector, error_code))

    def set_interrupt_flag(self, enabled: bool) -> None:
        """STI or CLI; STI blocks interrupts until after the next instruction."""
        before = self.state["guest_rflags"]
        self.state["guest_rflags"] = before & ~RFLAGS_IF | (RFLAGS_IF if enabled else 0)
        if enabled and not before & RFLAGS_IF:
            self.state["guest_interruptibility"] |= Interruptibility.sti.mask

    # Interrupts

    def interrupt(self, vector: int) -> Outcome:
        """An external interrupt reaches the processor (25.2, 29.6)."""
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
            event = ExitEvent.of(vector=vector, type=EventType.EXTERNAL_INTERRUPT, valid=True)
            information["exit_interruption_info"] = int(event)
        return self._exit(ExitReason.EXTERNAL_INTERRUPT, 0, **information)

    def nmi(self) -> Outcome:
        """An NMI reaches the processor (25.2)."""
        if self.entry.pin.nmi_exiting:
            event = ExitEvent.of(vector=NMI_VECTOR, type=EventType.NMI, valid=True)
            return self._exit(ExitReason.EXCEPTION_OR_NMI, 0, exit_interruption_info=int(event))
        blocked = Interruptibility(self.state["guest_interruptibility"])
        if blocked.nmi or blocked.mov_ss:
            return NOTHING
        self.state["guest_interruptibility"] |= Interruptibility.nmi.mask
        self._wake()
        return Delivered(NMI_VECTOR)

    def _process_posted(self) -> None:
        """Posted-interrupt processing: one action that nothing interrupts (29.6)."""
        assert self.apic is not None  # posted interrupts need virtual-interrupt delivery
        try:
            vectors = take(self._memory, self.entry.state.posted_interrupt_descriptor_address)
        except BusError:
            vectors = 0
        self._host.local_apic.eoi()
        self.apic.request(vectors)

    @property
    def interruptible(self) -> bool:
        """Whether the guest would take a maskable interrupt now."""
        blocked = Interruptibility(self.state["guest_interruptibility"])
        enabled = bool(self.state["guest_rflags"] & RFLAGS_IF)
        return enabled and self._running and not blocked.sti and not blocked.mov_ss

    @property
    def _running(self) -> bool:
        return self.state["guest_activity"] in (Activity.ACTIVE, Activity.HLT)

    def boundary(self) -> Outcome:
        """An instruction boundary: an exit for an open window, or a virtual interrupt."""
        blocked = Interruptibility(self.state["guest_interruptibility"])
        primary = self.entry.primary
        open_to_nmi = self._running and not blocked.nmi and not blocked.mov_ss
        if primary.nmi_window_exiting and open_to_nmi:
            return self._exit(ExitReason.NMI_WINDOW)
        if self.interruptible:
            if primary.interrupt_window_exiting:
                return self._exit(ExitReason.INTERRUPT_WINDOW)
            if self.apic is not None and self.apic.delivery and self.apic.pending:
                self._wake()
                return Delivered(self.apic.deliver())
        return NOTHING

    def instruction(self) -> Outcome:
        """An instruction that causes nothing: blocking by STI and MOV SS ends, then a boundary."""
        if self.state["guest_activity"] == Activity.ACTIVE:
            blocking = Interruptibility.sti.mask | Interruptibility.mov_ss.mask
            self.state["guest_interruptibility"] &= ~blocking
        return self.boundary()

    def _wake(self) -> None:
        self.state["guest_activity"] = Activity.ACTIVE

    # Ends of events

    def _carry_out(self, action: Callable[[], T]) -> T | Outcome:
        """An action whose exits and exceptions become its outcome."""
        try:
            return action()
        except ExitSignal as signal:
            return self._host.exit_guest(signal.exit, signal.information)
        except FaultSignal as signal:
            return self._exception(signal.fault)

    def _event(self, action: Callable[[], None]) -> Outcome:
        outcome = self._carry_out(action)
        return NOTHING if outcome is None else outcome

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

    def _exit(self, reason: ExitReason, qualification: int = 0, **information: int) -> Outcome:
        return self._host.exit_guest(VmExit(int(reason), qualification), information)


def _pages(address: int, size: int) -> list[tuple[int, int]]:
    """A range cut at 4 KiB boundaries: start and length of each part."""
    parts = []
    while size > 0:
        length = min(size, 0x1000 - (address & 0xFFF))
        parts.append((address, length))
        address, size = (address + length) & (1 << 64) - 1, size - length
    return parts
