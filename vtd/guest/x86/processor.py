"""A logical processor with VMX: its instructions, entries and exits (SDM 23, 26, 27, 30).

VMX instructions are methods that take their operands as values and give a :class:`VmResult`, an
exception, or the VM exit that they cause in a guest. Between a successful VM entry and the next
exit :attr:`LogicalProcessor.guest` is the guest that runs. Left out: SMM, dual-monitor treatment,
machine checks, and every instruction that VMX does not change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pagetables.memory import BusError
from vtd.guest.bus import get_number, put_number
from vtd.guest.x86 import msrs
from vtd.guest.x86.capabilities import MSRS, FeatureControl, VmxCapabilities
from vtd.guest.x86.controls import Activity, EntryEvent, EventType, Interruptibility
from vtd.guest.x86.entry import EntryChecks
from vtd.guest.x86.entry_rules import (
    CR0_CD,
    CR0_NE,
    CR0_NW,
    CR0_PE,
    CR4_PAE,
    CR4_PCIDE,
    CR4_VMXE,
    EFER_LMA,
    EFER_LME,
    Entry,
    breaks_fixed,
)
from vtd.guest.x86.exits import Abort, ExitReason, VmExit
from vtd.guest.x86.fields import BY_NAME, FieldType, FieldWidth, find_field
from vtd.guest.x86.guest import Guest
from vtd.guest.x86.local_apic import LocalApic
from vtd.guest.x86.mappings import Mappings
from vtd.guest.x86.outcomes import (
    FAIL_INVALID,
    GP,
    SUCCEED,
    UD,
    ZF,
    CpuException,
    Entered,
    VmResult,
    VmxAbort,
)
from vtd.guest.x86.posting import Notification
from vtd.guest.x86.translation import ProcessorMemory
from vtd.guest.x86.vmcs import NO_POINTER, Vmcs, VmcsState

Result = VmResult | CpuException | VmExit | VmxAbort
"""What a VMX instruction comes to."""

ALWAYS_WRITTEN = ("exit_interruption_info", "idt_vectoring_info")
"""Exit information that is written 0 where an exit has none (27.2.2, 27.2.3)."""
_ALWAYS_SAVED = tuple(
    name
    for name, field in BY_NAME.items()
    if field.type is FieldType.GUEST
    and name
    not in {
        "vmcs_link_pointer", "guest_debugctl", "guest_dr7", "guest_pat", "guest_efer",
        "guest_perf_global_ctrl", "guest_bndcfgs", "guest_rtit_ctl", "preemption_timer",
        "guest_interrupt_status", "guest_smbase",
    }
)  # fmt: skip
SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "tr")


@dataclass
class Registers:
    """The registers of the mode that the processor is in, as far as VMX looks at them."""

    cr0: int = 0x8001_0031
    cr3: int = 0x108_9000
    cr4: int = 0x2020
    rip: int = 0
    rsp: int = 0
    rflags: int = 2
    dr7: int = 0x400
    cpl: int = 0
    virtual_8086: bool = False
    compatibility_mode: bool = False
    blocked_by_mov_ss: bool = False
    blocked_by_nmi: bool = False


class LogicalProcessor:
    """One logical processor; ``send`` is told of notifications for other processors."""

    def __init__(
        self,
        capabilities: VmxCapabilities,
        memory: ProcessorMemory,
        *,
        apic_id: int = 0,
        mappings: Mappings | None = None,
        send: Callable[[Notification], None] | None = None,
    ) -> None:
        self.capabilities = capabilities
        self.memory = memory
        self.mappings = Mappings() if mappings is None else mappings
        self.local_apic = LocalApic(apic_id)
        self.send: Callable[[Notification], None] = send or (lambda _: None)
        self.registers = Registers()
        self.msrs: dict[int, int] = {msrs.EFER: EFER_LME | EFER_LMA, msrs.PAT: 0x0007040600070406}
        self.feature_control = FeatureControl.of(lock=True, vmx_outside_smx=True)
        self.in_smx = False
        self.a20 = True
        self._checks = EntryChecks()
        self.shutdown = False
        """In the VMX-abort shutdown state."""
        self.vmxon_pointer: int | None = None
        self.current: int | None = None
        """Address of the current VMCS."""
        self.guest: Guest | None = None
        """The guest that runs: in VMX non-root operation."""

    @property
    def efer(self) -> int:
        """IA32_EFER."""
        return self.msrs.get(msrs.EFER, 0)

    @property
    def ia32e(self) -> bool:
        """Whether the processor is in IA-32e mode."""
        return bool(self.efer & EFER_LMA)

    def read_msr(self, index: int) -> int | None:
        """RDMSR; None for a #GP."""
        if index in MSRS:
            return self.capabilities.msrs().get(index)
        if index == 0x3A:
            return int(self.feature_control)
        return self.msrs.get(index, 0) if index in msrs.KNOWN else None

    def write_msr(self, index: int, value: int) -> bool:
        """WRMSR; False for a #GP."""
        if index == 0x3A and not self.feature_control.lock:
            self.feature_control = FeatureControl(value)
            return True
        if not msrs.writable(index, value, self.capabilities):
            return False
        self.msrs[index] = value
        return True

    # Instructions that manage VMCSs

    def vmxon(self, pointer: int) -> Result:
        """VMXON with the pointer in its operand (30.3)."""
        registers = self.registers
        if self.vmxon_pointer is not None:
            blocked = self._blocked(ExitReason.VMXON)
            return self._fail(15) if blocked is None else blocked
        if not registers.cr4 & CR4_VMXE or self._no_vmx_mode():
            return CpuException(UD)
        caps, control = self.capabilities, self.feature_control
        allowed = control.vmx_in_smx if self.in_smx else control.vmx_outside_smx
        cr0 = registers.cr0 & ~(CR0_NW | CR0_CD)
        if (
            registers.cpl
            or breaks_fixed(cr0, caps.cr0_fixed0, caps.cr0_fixed1)
            or breaks_fixed(registers.cr4, caps.cr4_fixed0, caps.cr4_fixed1)
            or not self.a20
            or not control.lock
            or not allowed
        ):
            return CpuException(GP, 0)
        if not self._good_pointer(pointer) or self._revision(pointer) != caps.basic.revision:
            return FAIL_INVALID
        self.vmxon_pointer, self.current = pointer, None
        return SUCCEED

    def vmxoff(self) -> Result:
        """VMXOFF (30.3). What VMCSs hold stays as it is."""
        blocked = self._blocked(ExitReason.VMXOFF)
        if blocked is not None:
            return blocked
        self.vmxon_pointer = self.current = None
        return SUCCEED

    def vmclear(self, pointer: int) -> Result:
        """VMCLEAR with the pointer in its operand (30.3)."""
        blocked = self._blocked(ExitReason.VMCLEAR)
        if blocked is not None:
            return blocked
        if not self._good_pointer(pointer):
            return self._fail(2)
        if pointer == self.vmxon_pointer:
            return self._fail(3)
        Vmcs(self.memory, pointer).launched = False
        if pointer == self.current:
            self.current = None
        return SUCCEED

    def vmptrld(self, pointer: int) -> Result:
        """VMPTRLD with the pointer in its operand (30.3)."""
        blocked = self._blocked(ExitReason.VMPTRLD)
        if blocked is not None:
            return blocked
        if not self._good_pointer(pointer):
            return self._fail(9)
        if pointer == self.vmxon_pointer:
            return self._fail(10)
        revision = self._revision(pointer)
        shadows = "secondary.vmcs_shadowing" in self.capabilities.features
        if revision & 0x7FFF_FFFF != self.capabilities.basic.revision or (
            revision >> 31 and not shadows
        ):
            return self._fail(11)
        self.current = pointer
        return SUCCEED

    def vmptrst(self) -> Result:
        """VMPTRST: the value that it stores (30.3)."""
        blocked = self._blocked(ExitReason.VMPTRST)
        if blocked is not None:
            return blocked
        return SUCCEED._replace(value=NO_POINTER if self.current is None else self.current)

    def vmread(self, encoding: int) -> Result:
        """VMREAD (30.3), from the shadow VMCS in a guest that is allowed to."""
        blocked = self._blocked(ExitReason.VMREAD, encoding)
        if blocked is not None:
            return blocked
        vmcs = self._accessed_vmcs()
        if vmcs is None:
            return FAIL_INVALID
        field = find_field(encoding, self.capabilities.features)
        if field is None:
            return self._fail(12)
        value = vmcs.read(field)
        return SUCCEED._replace(value=value >> 32 if encoding & 1 else value)

    def vmwrite(self, encoding: int, value: int) -> Result:
        """VMWRITE (30.3), to the shadow VMCS in a guest that is allowed to."""
        blocked = self._blocked(ExitReason.VMWRITE, encoding)
        if blocked is not None:
            return blocked
        vmcs = self._accessed_vmcs()
        if vmcs is None:
            return FAIL_INVALID
        field = find_field(encoding, self.capabilities.features)
        if field is None:
            return self._fail(12)
        if field.type is FieldType.READ_ONLY and not self.capabilities.misc.write_read_only:
            return self._fail(13)
        if encoding & 1:
            value = vmcs.read(field) & 0xFFFF_FFFF | (value & 0xFFFF_FFFF) << 32
        elif field.width is FieldWidth.NATURAL and not self.ia32e:
            value &= 0xFFFF_FFFF
        vmcs.write(field, value)
        return SUCCEED

    def vmcall(self) -> Result:
        """VMCALL (30.3): an exit in a guest, a failure in root operation."""
        blocked = self._blocked(ExitReason.VMCALL)
        return self._fail(1) if blocked is None else blocked

    def invept(self, kind: int, eptp: int, reserved: int = 0) -> Result:
        """INVEPT (30.3); ``eptp`` and ``reserved`` are the halves of its descriptor.

        The upper half is not looked at, as on machines that public implementations follow.
        """
        cap = self.capabilities.ept_vpid
        if not cap.invept or "secondary.ept" not in self.capabilities.features:
            return CpuException(UD)
        blocked = self._blocked(ExitReason.INVEPT)
        if blocked is not None:
            return blocked
        if kind == 1 and cap.invept_single:
            if not self.capabilities.valid_eptp(eptp):
                return self._fail(28)
            self.mappings.invept(eptp >> 12)
        elif kind == 2 and cap.invept_all:
            self.mappings.invept()
        else:
            return self._fail(28)
        return SUCCEED

    def invvpid(self, kind: int, descriptor: int, address: int = 0) -> Result:
        """INVVPID (30.3); ``descriptor`` is the low half of its operand, ``address`` the high."""
        cap = self.capabilities.ept_vpid
        if not cap.invvpid or "secondary.vpid" not in self.capabilities.features:
            return CpuException(UD)
        blocked = self._blocked(ExitReason.INVVPID)
        if blocked is not None:
            return blocked
        supported = {
            0: cap.invvpid_address,
            1: cap.invvpid_single,
            2: cap.invvpid_all,
            3: cap.invvpid_retaining_globals,
        }
        if not supported.get(kind, False) or descriptor >> 16:
            return self._fail(28)
        if not descriptor and kind != 2:
            return self._fail(28)
        if kind == 0:
            if not self.capabilities.canonical(address):
                return self._fail(28)
            self.mappings.invvpid_address(descriptor, address >> 12)
        elif kind == 2:
            self.mappings.invvpid_all()
        else:
            self.mappings.invvpid(descriptor, globals_too=kind == 1)
        return SUCCEED

    # Entries

    def vmlaunch(self) -> Result | Entered:
        """VMLAUNCH (26.1 to 26.6)."""
        return self._enter(ExitReason.VMLAUNCH, launched=False)

    def vmresume(self) -> Result | Entered:
        """VMRESUME (26.1 to 26.6)."""
        return self._enter(ExitReason.VMRESUME, launched=True)

    def _enter(self, instruction: ExitReason, *, launched: bool) -> Result | Entered:
        refused = self._blocked(instruction) or self._basic_checks(launched=launched)
        if refused is not None:
            return refused
        assert self.current is not None  # one of the basic checks
        vmcs = Vmcs(self.memory, self.current)
        state = vmcs.state()
        entry = Entry(state, self.capabilities, self.memory, ia32e=self.ia32e, current=self.current)
        check = self._checks.check(entry)
        if check.error is not None:
            return self._fail(check.error)
        if check.exit_reason is not None:
            failed = VmExit(check.exit_reason, check.qualification or 0)
            vmcs.store({"exit_reason": failed.reason, "exit_qualification": failed.qualification})
            return self._load_host(entry, vmcs) or failed
        for each in msrs.area(
            self.memory, state.entry_msr_load_address, state.entry_msr_load_count
        ):
            self.msrs[each.number] = each.value
        if not launched:
            vmcs.launched = True
        return self._start(entry)

    def _basic_checks(self, *, launched: bool) -> VmResult | None:
        """The checks that are ordered, before any field is looked at (26.1)."""
        if self.current is None:
            return FAIL_INVALID
        vmcs = Vmcs(self.memory, self.current)
        if vmcs.revision.shadow:
            return FAIL_INVALID
        if self.registers.blocked_by_mov_ss:
            return self._fail(26)
        if vmcs.launched is not launched:
            return self._fail(5 if launched else 4)
        return None

    def _start(self, entry: Entry) -> Result | Entered:
        """The guest begins: its state, its mappings, what is injected, what exits at once."""
        if not entry.secondary.vpid:
            self.mappings.invvpid(0)
        state = entry.state
        self.guest = guest = Guest(self, entry)
        self.msrs[msrs.EFER] = guest.efer
        if entry.entry.load_pat:
            self.msrs[msrs.PAT] = state.guest_pat
        if entry.entry.load_debug_controls:
            self.msrs[msrs.DEBUGCTL] = state.guest_debugctl
        for number, name in (
            (msrs.SYSENTER_CS, "sysenter_cs"),
            (msrs.SYSENTER_ESP, "sysenter_esp"),
            (msrs.SYSENTER_EIP, "sysenter_eip"),
            (msrs.FS_BASE, "fs_base"),
            (msrs.GS_BASE, "gs_base"),
        ):
            self.msrs[number] = state[f"guest_{name}"]
        if guest.apic is not None and guest.apic.delivery:
            guest.apic.enter()
        return self._inject(guest) or Entered(entry.event.vector if entry.event.valid else None)

    def _inject(self, guest: Guest) -> Result | None:
        """Vectoring, and exits before the first instruction (26.6)."""
        entry, event = guest.entry, guest.entry.event
        if event.valid and event.type is not EventType.OTHER:
            guest.state["guest_activity"] = Activity.ACTIVE
            blocking = Interruptibility.sti.mask | Interruptibility.mov_ss.mask
            guest.state["guest_interruptibility"] &= ~blocking
            if event.type is EventType.NMI:
                guest.state["guest_interruptibility"] |= Interruptibility.nmi.mask
        apic = guest.apic
        if (
            apic is not None
            and not apic.delivery
            and entry.secondary.virtualize_apic_accesses
            and apic.below_threshold()
        ):
            return self.exit_guest(VmExit(ExitReason.TPR_BELOW_THRESHOLD), {})
        if event.valid and event.type is EventType.OTHER:
            return self.exit_guest(VmExit(ExitReason.MONITOR_TRAP_FLAG), {})
        timer = entry.pin.preemption_timer and not entry.state.preemption_timer
        if timer and guest.state["guest_activity"] != Activity.WAIT_FOR_SIPI:
            return self.exit_guest(VmExit(ExitReason.PREEMPTION_TIMER), {})
        windows = entry.primary.nmi_window_exiting or entry.primary.interrupt_window_exiting
        if windows:
            outcome = guest.boundary()
            if isinstance(outcome, VmExit | VmxAbort):
                return outcome
        return None

    # Exits

    def exit_guest(self, vm_exit: VmExit, information: dict[str, int]) -> VmExit | VmxAbort:
        """Leave the guest: information, guest state, host state (27)."""
        guest = self.guest
        assert guest is not None  # only a guest exits
        assert self.current is not None  # it was entered
        vmcs = Vmcs(self.memory, self.current)
        entry = guest.entry
        values = dict.fromkeys(ALWAYS_WRITTEN, 0) | information
        values["exit_reason"] = vm_exit.reason
        values["exit_qualification"] = vm_exit.qualification
        values["entry_interruption_info"] = int(
            EntryEvent(entry.state.entry_interruption_info).replace(valid=False)
        )
        if self.capabilities.misc.store_lma:
            values["entry_controls"] = int(
                entry.entry.replace(ia32e_mode_guest=bool(guest.efer & EFER_LMA))
            )
        vmcs.store(values | self._saved(guest))
        self.guest = None
        if not entry.secondary.vpid:
            self.mappings.invvpid(0)
        if not self._store_msrs(entry.state):
            return self._abort(vmcs, Abort.GUEST_MSR_SAVE)
        if guest.efer & EFER_LMA and not entry.exit.host_address_space_size:
            return self._abort(vmcs, Abort.WIDE_GUEST_TO_NARROW_HOST)
        return self._load_host(entry, vmcs) or vm_exit

    def _saved(self, guest: Guest) -> dict[str, int]:
        """Guest-state fields that changed and are saved (27.3)."""
        entry, state = guest.entry, guest.state
        names = list(_ALWAYS_SAVED)
        if entry.exit.save_debug_controls:
            state["guest_debugctl"] = self.msrs.get(msrs.DEBUGCTL, 0)
            names += ["guest_debugctl", "guest_dr7"]
        if entry.exit.save_pat:
            state["guest_pat"] = self.msrs.get(msrs.PAT, 0)
            names.append("guest_pat")
        if entry.exit.save_efer:
            state["guest_efer"] = guest.efer
            names.append("guest_efer")
        if entry.exit.save_preemption_timer:
            names.append("preemption_timer")
        if guest.apic is not None and guest.apic.delivery:
            state["guest_interrupt_status"] = guest.apic.status
            names.append("guest_interrupt_status")
        before = entry.state.values()
        return {name: state[name] for name in names if state[name] != before[name]}

    def _store_msrs(self, state: VmcsState) -> bool:
        """Store the exit MSR-store area; False if an MSR can't be read (27.4)."""
        address, count = state.exit_msr_store_address, state.exit_msr_store_count
        if count > msrs.longest_area(self.capabilities):
            return False
        try:
            entries = list(msrs.area(self.memory, address, count))
            for number, each in enumerate(entries):
                value = None if each.reserved else self.read_msr(each.number)
                if value is None:
                    return False
                where = address + msrs.ENTRY_SIZE * number + 8
                put_number(self.memory, where, value, 8)
        except BusError:
            return False
        return True

    def _load_host(self, entry: Entry, vmcs: Vmcs) -> VmxAbort | None:
        """Host state (27.5) and the exit MSR-load area (27.6)."""
        state, exits = entry.state, entry.exit
        wide = exits.host_address_space_size
        kept = CR0_NW | CR0_CD | 0x10
        registers = self.registers
        cr4 = state.host_cr4
        cr4 = cr4 | CR4_PAE if wide else cr4 & ~CR4_PCIDE
        self.registers = Registers(
            cr0=state.host_cr0 & ~kept | registers.cr0 & kept | CR0_NE,
            cr3=state.host_cr3,
            cr4=cr4,
            rip=state.host_rip,
            rsp=state.host_rsp,
            blocked_by_nmi=registers.blocked_by_nmi,
        )
        efer = state.host_efer if exits.load_efer else self.efer
        efer &= ~(EFER_LMA | EFER_LME)
        self.msrs[msrs.EFER] = efer | (EFER_LMA | EFER_LME if wide else 0)
        if exits.load_pat:
            self.msrs[msrs.PAT] = state.host_pat
        self.msrs[msrs.DEBUGCTL] = 0
        for number, name in (
            (msrs.SYSENTER_CS, "host_sysenter_cs"),
            (msrs.SYSENTER_ESP, "host_sysenter_esp"),
            (msrs.SYSENTER_EIP, "host_sysenter_eip"),
            (msrs.FS_BASE, "host_fs_base"),
            (msrs.GS_BASE, "host_gs_base"),
        ):
            self.msrs[number] = state[name]
        count, address = state.exit_msr_load_count, state.exit_msr_load_address
        if msrs.bad_load(self.memory, address, count, self.capabilities) is not None:
            return self._abort(vmcs, Abort.HOST_MSR_LOAD)
        for each in msrs.area(self.memory, address, count):
            self.msrs[each.number] = each.value
        return None

    def _abort(self, vmcs: Vmcs, code: Abort) -> VmxAbort:
        """A VMX abort: the VMCS data stay as they are (27.7)."""
        vmcs.abort(code)
        self.shutdown = True
        return VmxAbort(int(code))

    # What all instructions begin with

    def _no_vmx_mode(self) -> bool:
        registers = self.registers
        return bool(
            not registers.cr0 & CR0_PE or registers.virtual_8086 or registers.compatibility_mode
        )

    def _blocked(self, reason: ExitReason, encoding: int | None = None) -> Result | None:
        """Why an instruction does not even begin: an exception, or an exit of the guest."""
        if self.shutdown:
            return VmxAbort(0)
        if self.vmxon_pointer is None or self._no_vmx_mode():
            return CpuException(UD)
        guest = self.guest
        if guest is not None and not (encoding is not None and self._shadowed(reason, encoding)):
            return self.exit_guest(VmExit(int(reason)), {})
        if (3 if guest is not None and guest.translation.user else self.registers.cpl) != 0:
            return CpuException(GP, 0)
        return None

    def _shadowed(self, reason: ExitReason, encoding: int) -> bool:
        """Whether VMREAD or VMWRITE of a guest goes to the shadow VMCS (25.1.3)."""
        assert self.guest is not None  # only a guest has one
        entry = self.guest.entry
        if not entry.secondary.vmcs_shadowing or encoding >> 15:
            return False
        state = entry.state
        bitmap = state.vmread_bitmap if reason is ExitReason.VMREAD else state.vmwrite_bitmap
        return not entry.read(bitmap + (encoding >> 3), 1) >> (encoding & 7) & 1

    def _accessed_vmcs(self) -> Vmcs | None:
        """The VMCS that VMREAD and VMWRITE access: the current one, or the guest's shadow."""
        pointer = self.current
        if self.guest is not None:
            link = self.guest.entry.state.vmcs_link_pointer
            pointer = None if link == NO_POINTER else link
        return None if pointer is None else Vmcs(self.memory, pointer)

    def _good_pointer(self, pointer: int) -> bool:
        return not pointer & 0xFFF and not pointer >> self.capabilities.address_width

    def _revision(self, pointer: int) -> int:
        """The first four bytes of a region; all ones where there is no memory."""
        return get_number(self.memory, pointer, 4)

    def _fail(self, error: int) -> VmResult:
        """VMfail: VMfailValid with a current VMCS, else VMfailInvalid (30.2)."""
        if self.current is None:
            return FAIL_INVALID
        Vmcs(self.memory, self.current).write(BY_NAME["instruction_error"], error)
        return VmResult(ZF, error)
