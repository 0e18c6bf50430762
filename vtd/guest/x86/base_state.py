"""An ordinary 64-bit guest and host that enter: what fields hold that nobody names."""

from __future__ import annotations

from vtd.guest.x86.capabilities import VmxCapabilities
from vtd.guest.x86.controls import (
    EntryControls,
    ExitControls,
    PinControls,
    PrimaryControls,
)
from vtd.guest.x86.fields import BY_NAME
from vtd.guest.x86.vmcs import NO_POINTER, ZERO_STATE, VmcsState

PAT = 0x0007_0406_0007_0406
CODE, DATA, TSS, LDT = 0xA09B, 0xC093, 0x8B, 0x82


def base_state(capabilities: VmxCapabilities) -> VmcsState:
    """A state that enters on these capabilities; fields that the processor lacks are 0."""

    def word(name: str, wanted: int) -> int:
        must, may = capabilities.allowed(name)
        return (must | wanted) & may

    pin = PinControls.of(external_interrupt_exiting=True, nmi_exiting=True, virtual_nmis=True)
    primary = PrimaryControls.of(hlt_exiting=True, secondary_controls=True)
    exits = ExitControls.of(host_address_space_size=True, load_efer=True, load_pat=True)
    entries = EntryControls.of(ia32e_mode_guest=True, load_efer=True)
    efer = 0xD00 if "no_execute" in capabilities.extra else 0x500
    cr0 = 0x8001_0031
    cr4 = 0x2020
    values = {
        "pin_controls": word("pin", pin),
        "primary_controls": word("primary", primary),
        "exit_controls": word("exit", exits),
        "entry_controls": word("entry", entries),
        "vpid": 1,
        "eptp": 0x101E,
        "tsc_multiplier": 1 << 48,
        "entry_instruction_length": 1,
        "vmcs_link_pointer": NO_POINTER,
        "guest_cr0": cr0,
        "guest_cr3": 0x108_9000,
        "guest_cr4": cr4,
        "guest_efer": efer,
        "guest_pat": PAT,
        "guest_dr7": 0x400,
        "guest_rflags": 2,
        "guest_rip": 0x40_0000,
        "guest_rsp": 0x50_0000,
        "guest_cs_selector": 0x8,
        "guest_cs_access_rights": CODE,
        "guest_cs_limit": 0xFFFF_FFFF,
        "guest_tr_selector": 0x80,
        "guest_tr_access_rights": TSS,
        "guest_tr_limit": 0x67,
        "guest_tr_base": 0x42_5000,
        "guest_ldtr_access_rights": LDT,
        "guest_ldtr_limit": 0xFFFF,
        "guest_gdtr_base": 0x42_C300,
        "guest_gdtr_limit": 0x407F,
        "guest_idtr_base": 0x106_71A0,
        "guest_idtr_limit": 0xFFF,
        "host_cr0": cr0,
        "host_cr3": 0x108_9000,
        "host_cr4": cr4,
        "host_efer": efer,
        "host_pat": PAT,
        "host_rip": 0x40_0000,
        "host_rsp": 0x50_0000,
        "host_cs_selector": 0x8,
        "host_tr_selector": 0x80,
        "host_tr_base": 0x42_5000,
        "host_gdtr_base": 0x42_C300,
        "host_idtr_base": 0x106_71A0,
    }
    for name in ("ss", "ds", "es", "fs", "gs"):
        values[f"guest_{name}_selector"] = 0x10
        values[f"guest_{name}_access_rights"] = DATA
        values[f"guest_{name}_limit"] = 0xFFFF_FFFF
        values[f"host_{name}_selector"] = 0x10
    there = {
        name: value for name, value in values.items() if BY_NAME[name].exists(capabilities.features)
    }
    return ZERO_STATE.replace(there)
