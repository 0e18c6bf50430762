"""Checks on host state; one that fails makes VM entry fail with error 8 (SDM 26.2.2 to 26.2.4)."""

from __future__ import annotations

from vtd.guest.x86.entry_rules import (
    CR0_CD,
    CR0_NW,
    CR0_WP,
    CR4_CET,
    CR4_PAE,
    CR4_PCIDE,
    EFER_LMA,
    EFER_LME,
    Entry,
    Group,
    Rules,
    bad_pat,
    breaks_fixed,
    reserved_efer,
)

rule = Rules(Group.HOST)
PERF_GLOBAL_CTRL = 0x7_0000_00FF
"""Counters that IA32_PERF_GLOBAL_CTRL enables: 8 programmable and 3 fixed."""


@rule("cr0", "CR0 as the FIXED MSRs allow")
def _(e: Entry) -> bool:
    caps = e.capabilities
    # NW and CD are never checked (26.2.2).
    value = e.state.host_cr0 & ~(CR0_NW | CR0_CD)
    return breaks_fixed(value, caps.cr0_fixed0, caps.cr0_fixed1)


@rule("cr4", "CR4 as the FIXED MSRs allow")
def _(e: Entry) -> bool:
    return breaks_fixed(e.state.host_cr4, e.capabilities.cr4_fixed0, e.capabilities.cr4_fixed1)


@rule("cr3", "CR3 within the physical-address width")
def _(e: Entry) -> bool:
    return bool(e.state.host_cr3 >> e.capabilities.physical_width)


@rule("cr4.cet", "CR4.CET only with CR0.WP")
def _(e: Entry) -> bool:
    return bool(e.state.host_cr4 & CR4_CET) and not e.state.host_cr0 & CR0_WP


rule.canonical("host_sysenter_esp", "host_sysenter_eip")


@rule("perf_global_ctrl", "IA32_PERF_GLOBAL_CTRL: reserved bits 0 where it is loaded")
def _(e: Entry) -> bool:
    return e.exit.load_perf_global_ctrl and bool(e.state.host_perf_global_ctrl & ~PERF_GLOBAL_CTRL)


@rule("pat", "IA32_PAT: no reserved memory type where it is loaded")
def _(e: Entry) -> bool:
    return e.exit.load_pat and bad_pat(e.state.host_pat)


@rule("efer.reserved", "IA32_EFER: reserved bits 0 where it is loaded")
def _(e: Entry) -> bool:
    return e.exit.load_efer and bool(e.state.host_efer & reserved_efer(e))


@rule("efer.lma", "IA32_EFER: LMA and LME as the host address-space size where it is loaded")
def _(e: Entry) -> bool:
    if not e.exit.load_efer:
        return False
    wide = e.exit.host_address_space_size
    return any(bool(e.state.host_efer & bit) is not wide for bit in (EFER_LMA, EFER_LME))


@rule("selectors", "selectors: RPL and TI 0")
def _(e: Entry) -> bool:
    names = ("es", "cs", "ss", "ds", "fs", "gs", "tr")
    return any(e.state[f"host_{name}_selector"] & 7 for name in names)


@rule("selectors.null", "CS and TR not null, SS not null without a 64-bit host")
def _(e: Entry) -> bool:
    if not e.state.host_cs_selector or not e.state.host_tr_selector:
        return True
    return not e.exit.host_address_space_size and not e.state.host_ss_selector


rule.canonical(*(f"host_{name}_base" for name in ("fs", "gs", "gdtr", "idtr", "tr")))


@rule("address_space_size", "host address-space size as the processor's mode now")
def _(e: Entry) -> bool:
    return e.exit.host_address_space_size is not e.ia32e


@rule("narrow", "without a 64-bit host: no IA-32e mode guest, CR4.PCIDE 0, RIP 63:32 0")
def _(e: Entry) -> bool:
    if e.exit.host_address_space_size:
        return False
    return (
        e.entry.ia32e_mode_guest
        or bool(e.state.host_cr4 & CR4_PCIDE)
        or bool(e.state.host_rip >> 32)
    )


@rule("wide", "with a 64-bit host: CR4.PAE 1, RIP canonical")
def _(e: Entry) -> bool:
    if not e.exit.host_address_space_size:
        return False
    return not e.state.host_cr4 & CR4_PAE or not e.capabilities.canonical(e.state.host_rip)


@rule("cet", "CET state canonical, SSP a multiple of 4, where it is loaded")
def _(e: Entry) -> bool:
    if not e.exit.load_cet_state:
        return False
    pointers = (e.state.host_s_cet, e.state.host_ssp, e.state.host_ssp_table)
    return any(not e.capabilities.canonical(each) for each in pointers) or bool(
        e.state.host_ssp & 3
    )


RULES = tuple(rule.rules)
