"""VMCS dumps in the layouts of KVM and Xen, written from a state."""

from __future__ import annotations

from vtd.guest.x86.vmcs import VmcsState

SEGMENTS = ("cs", "ds", "ss", "es", "fs", "gs")
HOST_SEGMENTS = ("cs", "ss", "ds", "es", "fs", "gs", "tr")


def host_and_control_lines(s: VmcsState) -> list[str]:
    """What both print alike."""
    selectors = " ".join(
        f"{name.upper()}={s[f'host_{name}_selector']:04x}" for name in HOST_SEGMENTS
    )
    return [
        "*** Host State ***",
        f"RIP = 0x{s.host_rip:016x}  RSP = 0x{s.host_rsp:016x}",
        selectors,
        f"FSBase={s.host_fs_base:016x} GSBase={s.host_gs_base:016x} TRBase={s.host_tr_base:016x}",
        f"GDTBase={s.host_gdtr_base:016x} IDTBase={s.host_idtr_base:016x}",
        f"CR0={s.host_cr0:016x} CR3={s.host_cr3:016x} CR4={s.host_cr4:016x}",
        f"Sysenter RSP={s.host_sysenter_esp:016x} CS:RIP={s.host_sysenter_cs:04x}:"
        f"{s.host_sysenter_eip:016x}",
        f"EFER = 0x{s.host_efer:016x}  PAT = 0x{s.host_pat:016x}",
        "*** Control State ***",
        f"PinBased={s.pin_controls:08x} CPUBased={s.primary_controls:08x} "
        f"SecondaryExec={s.secondary_controls:08x}",
        f"EntryControls={s.entry_controls:08x} ExitControls={s.exit_controls:08x}",
        f"ExceptionBitmap={s.exception_bitmap:08x} PFECmask={s.page_fault_error_mask:08x} "
        f"PFECmatch={s.page_fault_error_match:08x}",
        f"VMEntry: intr_info={s.entry_interruption_info:08x} "
        f"errcode={s.entry_exception_error_code:08x} ilen={s.entry_instruction_length:08x}",
        f"VMExit: intr_info={s.exit_interruption_info:08x} "
        f"errcode={s.exit_interruption_error_code:08x} ilen={s.exit_instruction_length:08x}",
        f"        reason={s.exit_reason:08x} qualification={s.exit_qualification:016x}",
        f"IDTVectoring: info={s.idt_vectoring_info:08x} errcode={s.idt_vectoring_error_code:08x}",
        f"TSC Offset = 0x{s.tsc_offset:016x}",
        f"EPT pointer = 0x{s.eptp:016x}",
        f"Virtual processor ID = 0x{s.vpid:04x}",
    ]


def guest_head(s: VmcsState, pdpte: str) -> list[str]:
    """The first lines of the guest state."""
    return [
        "*** Guest State ***",
        f"CR0: actual=0x{s.guest_cr0:016x}, shadow=0x{s.cr0_read_shadow:016x}, "
        f"gh_mask={s.cr0_guest_host_mask:016x}",
        f"CR4: actual=0x{s.guest_cr4:016x}, shadow=0x{s.cr4_read_shadow:016x}, "
        f"gh_mask={s.cr4_guest_host_mask:016x}",
        f"CR3 = 0x{s.guest_cr3:016x}",
        f"{pdpte}0 = 0x{s.guest_pdpte0:016x}  {pdpte}1 = 0x{s.guest_pdpte1:016x}",
        f"{pdpte}2 = 0x{s.guest_pdpte2:016x}  {pdpte}3 = 0x{s.guest_pdpte3:016x}",
    ]


def guest_tail(s: VmcsState) -> list[str]:
    """The last lines of the guest state."""
    return [
        f"EFER =     0x{s.guest_efer:016x}  PAT = 0x{s.guest_pat:016x}",
        f"DebugCtl = 0x{s.guest_debugctl:016x}  "
        f"DebugExceptions = 0x{s.guest_pending_debug_exceptions:016x}",
        f"Interruptibility = {s.guest_interruptibility:08x}  "
        f"ActivityState = {s.guest_activity:08x}",
    ]


def kvm_dump(s: VmcsState) -> str:
    """A dump as KVM prints it to the kernel log."""
    lines = [
        *guest_head(s, "PDPTR"),
        f"RSP = 0x{s.guest_rsp:016x}  RIP = 0x{s.guest_rip:016x}",
        f"RFLAGS=0x{s.guest_rflags:08x}         DR7 = 0x{s.guest_dr7:016x}",
        f"Sysenter RSP={s.guest_sysenter_esp:016x} CS:RIP={s.guest_sysenter_cs:04x}:"
        f"{s.guest_sysenter_eip:016x}",
        *(_kvm_segment(s, name) for name in SEGMENTS),
        f"GDTR:                           limit=0x{s.guest_gdtr_limit:08x}, "
        f"base=0x{s.guest_gdtr_base:016x}",
        _kvm_segment(s, "ldtr"),
        f"IDTR:                           limit=0x{s.guest_idtr_limit:08x}, "
        f"base=0x{s.guest_idtr_base:016x}",
        _kvm_segment(s, "tr"),
        *guest_tail(s),
        *host_and_control_lines(s),
    ]
    return "".join(
        f"[  673.85{number:04}] kvm_intel: {line}\n" for number, line in enumerate(lines)
    )


def _kvm_segment(s: VmcsState, name: str) -> str:
    selector, rights = s[f"guest_{name}_selector"], s[f"guest_{name}_access_rights"]
    return (
        f"{name.upper() + ':':6}sel=0x{selector:04x}, attr=0x{rights:05x}, "
        f"limit=0x{s[f'guest_{name}_limit']:08x}, base=0x{s[f'guest_{name}_base']:016x}"
    )


def xen_dump(s: VmcsState) -> str:
    """A dump as Xen prints it."""
    lines = [
        "************* VMCS Area **************",
        *guest_head(s, "PDPTE"),
        f"RSP = 0x{s.guest_rsp:016x} (0x{s.guest_rsp:016x})  "
        f"RIP = 0x{s.guest_rip:016x} (0x{s.guest_rip:016x})",
        f"RFLAGS=0x{s.guest_rflags:08x} (0x{s.guest_rflags:08x})  DR7 = 0x{s.guest_dr7:016x}",
        f"Sysenter RSP={s.guest_sysenter_esp:016x} CS:RIP={s.guest_sysenter_cs:04x}:"
        f"{s.guest_sysenter_eip:016x}",
        "       sel  attr  limit   base",
        *(_xen_segment(s, name) for name in SEGMENTS),
        f"GDTR:            {s.guest_gdtr_limit:08x} {s.guest_gdtr_base:016x}",
        _xen_segment(s, "ldtr"),
        f"IDTR:            {s.guest_idtr_limit:08x} {s.guest_idtr_base:016x}",
        _xen_segment(s, "tr"),
        *guest_tail(s),
        *host_and_control_lines(s),
        "**************************************",
    ]
    return "".join(f"(XEN) {line}\n" for line in lines)


def _xen_segment(s: VmcsState, name: str) -> str:
    return (
        f"{name.upper():>4}: {s[f'guest_{name}_selector']:04x} "
        f"{s[f'guest_{name}_access_rights']:05x} {s[f'guest_{name}_limit']:08x} "
        f"{s[f'guest_{name}_base']:016x}"
    )
