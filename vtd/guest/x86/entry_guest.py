"""Checks on guest state; one that fails ends VM entry with exit reason 80000021h (SDM 26.3.1)."""

from __future__ import annotations

from collections.abc import Callable

from vtd.guest.x86.controls import (
    AccessRights,
    Activity,
    EventType,
    Interruptibility,
    PendingDebug,
    VmcsRevision,
)
from vtd.guest.x86.entry_host import PERF_GLOBAL_CTRL
from vtd.guest.x86.entry_rules import (
    CR0_CD,
    CR0_NW,
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_CET,
    CR4_PAE,
    CR4_PCIDE,
    DEBUGCTL_BTF,
    DEBUGCTL_DEFINED,
    EFER_LMA,
    EFER_LME,
    RFLAGS_IF,
    RFLAGS_TF,
    Entry,
    Group,
    Rules,
    bad_pat,
    breaks_fixed,
    reserved_efer,
)
from vtd.guest.x86.vmcs import NO_POINTER

rule = Rules(Group.GUEST)

BAD_PDPTE, NMI_INJECTION, BAD_LINK_POINTER = 2, 3, 4
"""Exit qualifications of failed entries (26.7)."""
DATA_SEGMENTS = ("ss", "ds", "es", "fs", "gs")
CODE_OR_DATA = ("cs", *DATA_SEGMENTS)
PDPTE_RESERVED = 0x1E6
"""Bits 2:1 and 8:5 of a PAE PDPTE (4.4.1)."""


@rule("rflags.reserved", "RFLAGS: 63:22, 15, 5 and 3 are 0, bit 1 is 1")
def _(e: Entry) -> bool:
    rflags = e.state.guest_rflags
    return bool(rflags >> 22 or rflags & 0x8028 or not rflags & 2)


@rule("rflags.vm", "RFLAGS.VM 0 in IA-32e mode and without CR0.PE")
def _(e: Entry) -> bool:
    return e.virtual_8086 and (e.entry.ia32e_mode_guest or not e.state.guest_cr0 & CR0_PE)


@rule("cr0", "CR0 as the FIXED MSRs allow, PE and PG free for an unrestricted guest")
def _(e: Entry) -> bool:
    caps = e.capabilities
    exempt = CR0_PE | CR0_PG if e.unrestricted else 0
    value = e.state.guest_cr0 & ~(CR0_NW | CR0_CD)
    return breaks_fixed(value, caps.cr0_fixed0, caps.cr0_fixed1, exempt)


@rule("cr0.pg", "CR0.PG only with CR0.PE")
def _(e: Entry) -> bool:
    return bool(e.state.guest_cr0 & CR0_PG) and not e.state.guest_cr0 & CR0_PE


@rule("cr3", "CR3 within the physical-address width")
def _(e: Entry) -> bool:
    return bool(e.state.guest_cr3 >> e.capabilities.physical_width)


@rule("cr4", "CR4 as the FIXED MSRs allow")
def _(e: Entry) -> bool:
    return breaks_fixed(e.state.guest_cr4, e.capabilities.cr4_fixed0, e.capabilities.cr4_fixed1)


@rule("ia32e", "an IA-32e mode guest has CR0.PG and CR4.PAE; others have CR4.PCIDE 0")
def _(e: Entry) -> bool:
    if e.entry.ia32e_mode_guest:
        return not (e.state.guest_cr0 & CR0_PG and e.state.guest_cr4 & CR4_PAE)
    return bool(e.state.guest_cr4 & CR4_PCIDE)


@rule("debugctl", "IA32_DEBUGCTL: reserved bits 0 where it is loaded")
def _(e: Entry) -> bool:
    return e.entry.load_debug_controls and bool(e.state.guest_debugctl & ~DEBUGCTL_DEFINED)


@rule("dr7", "DR7 63:32 are 0 where it is loaded")
def _(e: Entry) -> bool:
    return e.entry.load_debug_controls and bool(e.state.guest_dr7 >> 32)


@rule("cr4.cet", "CR4.CET only with CR0.WP")
def _(e: Entry) -> bool:
    return bool(e.state.guest_cr4 & CR4_CET) and not e.state.guest_cr0 & CR0_WP


@rule("cet", "CET state canonical, SSP a multiple of 4, where it is loaded")
def _(e: Entry) -> bool:
    if not e.entry.load_cet_state:
        return False
    pointers = (e.state.guest_s_cet, e.state.guest_ssp, e.state.guest_ssp_table)
    return any(not e.capabilities.canonical(each) for each in pointers) or bool(
        e.state.guest_ssp & 3
    )


rule.canonical("guest_sysenter_esp", "guest_sysenter_eip")


@rule("perf_global_ctrl", "IA32_PERF_GLOBAL_CTRL: reserved bits 0 where it is loaded")
def _(e: Entry) -> bool:
    return e.entry.load_perf_global_ctrl and bool(
        e.state.guest_perf_global_ctrl & ~PERF_GLOBAL_CTRL
    )


@rule("pat", "IA32_PAT: no reserved memory type where it is loaded")
def _(e: Entry) -> bool:
    return e.entry.load_pat and bad_pat(e.state.guest_pat)


@rule("efer.reserved", "IA32_EFER: reserved bits 0 where it is loaded")
def _(e: Entry) -> bool:
    return e.entry.load_efer and bool(e.state.guest_efer & reserved_efer(e))


@rule("efer.lma", "IA32_EFER: LMA as IA-32e mode guest, LME as LMA with CR0.PG, where loaded")
def _(e: Entry) -> bool:
    if not e.entry.load_efer:
        return False
    lma, lme = bool(e.state.guest_efer & EFER_LMA), bool(e.state.guest_efer & EFER_LME)
    if lma is not e.entry.ia32e_mode_guest:
        return True
    return bool(e.state.guest_cr0 & CR0_PG) and lma is not lme


@rule("bndcfgs", "IA32_BNDCFGS: 11:2 are 0, base canonical, where it is loaded")
def _(e: Entry) -> bool:
    if not e.entry.load_bndcfgs:
        return False
    value = e.state.guest_bndcfgs
    return bool(value & 0xFFC) or not e.capabilities.canonical(value & ~0xFFF)


# 26.3.1.2: segment registers. Those of virtual-8086 mode come first, they have rules of their own.


def _ordinary(e: Entry, name: str) -> bool:
    """Whether the checks of usable registers apply to one."""
    return not e.virtual_8086 and not e.rights[name].unusable


def _segment_rules() -> None:
    for name in CODE_OR_DATA:

        def v8086(e: Entry, name: str = name) -> bool:
            return e.virtual_8086 and (
                e.state[f"guest_{name}_base"] != e.selector(name) << 4
                or e.state[f"guest_{name}_limit"] != 0xFFFF
                or e.state[f"guest_{name}_access_rights"] != 0xF3
            )

        rule.add(
            f"{name}.virtual_8086",
            f"{name.upper()} in virtual-8086 mode: base selector * 16, limit FFFFh, rights F3h",
            v8086,
        )


_segment_rules()


@rule("tr.selector", "TR: TI 0")
def _(e: Entry) -> bool:
    return bool(e.selector("tr") & 4)


@rule("ldtr.selector", "LDTR: TI 0 if usable")
def _(e: Entry) -> bool:
    return not e.rights["ldtr"].unusable and bool(e.selector("ldtr") & 4)


@rule("ss.selector", "SS: RPL that of CS, unless unrestricted or virtual-8086")
def _(e: Entry) -> bool:
    if e.virtual_8086 or e.unrestricted:
        return False
    return bool((e.selector("ss") ^ e.selector("cs")) & 3)


rule.canonical("guest_tr_base", "guest_fs_base", "guest_gs_base")


@rule("ldtr.base", "LDTR: base canonical if usable")
def _(e: Entry) -> bool:
    return not e.rights["ldtr"].unusable and not e.capabilities.canonical(e.state.guest_ldtr_base)


@rule("cs.base", "CS: base 63:32 are 0")
def _(e: Entry) -> bool:
    return bool(e.state.guest_cs_base >> 32)


def _low_base(name: str) -> None:
    rule.add(
        f"{name}.base",
        f"{name.upper()}: base 63:32 are 0 if usable",
        lambda e: not e.rights[name].unusable and bool(e.state[f"guest_{name}_base"] >> 32),
    )


for _name in ("ss", "ds", "es"):
    _low_base(_name)


def _limit_breaks(limit: int, rights: AccessRights) -> bool:
    if rights.g:
        return limit & 0xFFF != 0xFFF
    return bool(limit >> 20)


def _attributes(
    name: str, what: str, needs: Callable[[Entry, AccessRights], bool], text: str
) -> None:
    """A rule on the access rights of a register that is usable."""
    rule.add(
        f"{name}.{what}",
        f"{name.upper()}: {text}",
        lambda e: _ordinary(e, name) and not needs(e, e.rights[name]),
    )


@rule("cs.usable", "CS is usable")
def _(e: Entry) -> bool:
    return not e.virtual_8086 and e.rights["cs"].unusable


def _cs_type(e: Entry, rights: AccessRights) -> bool:
    return rights.type in (9, 11, 13, 15) or (e.unrestricted and rights.type == 3)


def _readable_accessed(_: Entry, rights: AccessRights) -> bool:
    """Accessed, and readable if it is code."""
    return bool(rights.type & 1) and (not rights.type & 8 or bool(rights.type & 2))


def _common(_: Entry, rights: AccessRights) -> bool:
    return rights.s and rights.p and not rights & AccessRights.RESERVED


_attributes("cs", "type", _cs_type, "type of accessed code, or 3 for an unrestricted guest")
_attributes("ss", "type", lambda _, rights: rights.type in (3, 7), "type of accessed writable data")
for _name in ("ds", "es", "fs", "gs"):
    _attributes(_name, "type", _readable_accessed, "type accessed, and readable if code")
for _name in CODE_OR_DATA:
    _attributes(_name, "rights", _common, "S and P 1, reserved bits 0")


@rule("cs.dpl", "CS: DPL as its type and SS.DPL ask")
def _(e: Entry) -> bool:
    if not _ordinary(e, "cs"):
        return False
    cs, ss = e.rights["cs"], e.rights["ss"]
    if cs.type == 3:
        return cs.dpl != 0
    if cs.type in (9, 11):
        return cs.dpl != ss.dpl
    return cs.type in (13, 15) and cs.dpl > ss.dpl


@rule("ss.dpl", "SS: DPL that of its RPL, 0 in real mode and with CS of type 3")
def _(e: Entry) -> bool:
    if e.virtual_8086:
        return False
    ss = e.rights["ss"]
    if not e.unrestricted:
        return ss.dpl != e.selector("ss") & 3
    real = not e.state.guest_cr0 & CR0_PE or e.rights["cs"].type == 3
    return real and ss.dpl != 0


def _data_dpl(name: str) -> None:
    def broken(e: Entry) -> bool:
        if e.unrestricted or not _ordinary(e, name) or e.rights[name].type > 11:
            return False
        return e.rights[name].dpl < e.selector(name) & 3

    rule.add(f"{name}.dpl", f"{name.upper()}: DPL at least RPL unless conforming", broken)


for _name in ("ds", "es", "fs", "gs"):
    _data_dpl(_name)


@rule("cs.l", "CS: D/B 0 with L in IA-32e mode")
def _(e: Entry) -> bool:
    cs = e.rights["cs"]
    return _ordinary(e, "cs") and e.entry.ia32e_mode_guest and cs.l and cs.db


def _limit_rule(name: str) -> None:
    rule.add(
        f"{name}.limit",
        f"{name.upper()}: G as the limit asks",
        lambda e: (
            _ordinary(e, name) and _limit_breaks(e.state[f"guest_{name}_limit"], e.rights[name])
        ),
    )


for _name in CODE_OR_DATA:
    _limit_rule(_name)


@rule("tr.rights", "TR: usable busy TSS, S 0, P 1, reserved bits 0, G as the limit asks")
def _(e: Entry) -> bool:
    tr = e.rights["tr"]
    types = (11,) if e.entry.ia32e_mode_guest else (3, 11)
    if tr.unusable or tr.type not in types or tr.s or not tr.p or tr & AccessRights.RESERVED:
        return True
    return _limit_breaks(e.state.guest_tr_limit, tr)


@rule("ldtr.rights", "LDTR if usable: LDT, S 0, P 1, reserved bits 0, G as the limit asks")
def _(e: Entry) -> bool:
    ldtr = e.rights["ldtr"]
    if ldtr.unusable:
        return False
    if ldtr.type != 2 or ldtr.s or not ldtr.p or ldtr & AccessRights.RESERVED:
        return True
    return _limit_breaks(e.state.guest_ldtr_limit, ldtr)


rule.canonical("guest_gdtr_base", "guest_idtr_base")


@rule("descriptor_tables.limit", "GDTR and IDTR: limit 31:16 are 0")
def _(e: Entry) -> bool:
    return bool((e.state.guest_gdtr_limit | e.state.guest_idtr_limit) >> 16)


@rule("rip", "RIP: 63:32 are 0 outside 64-bit mode; inside, 63 to the linear width all equal")
def _(e: Entry) -> bool:
    rip = e.state.guest_rip
    if not (e.entry.ia32e_mode_guest and e.rights["cs"].l):
        return bool(rip >> 32)
    width = e.capabilities.linear_width
    return rip >> width not in (0, (1 << 64 - width) - 1)


# 26.3.1.5: non-register state.


@rule("activity", "activity state known and supported")
def _(e: Entry) -> bool:
    misc = e.capabilities.misc
    supported = {
        Activity.ACTIVE: True,
        Activity.HLT: misc.hlt,
        Activity.SHUTDOWN: misc.shutdown,
        Activity.WAIT_FOR_SIPI: misc.wait_for_sipi,
    }
    return not supported.get(e.state.guest_activity, False)  # type: ignore[call-overload]


@rule("activity.hlt", "HLT only with SS.DPL 0")
def _(e: Entry) -> bool:
    return e.state.guest_activity == Activity.HLT and e.rights["ss"].dpl != 0


@rule("activity.blocking", "blocking by STI or MOV SS only while active")
def _(e: Entry) -> bool:
    blocked = e.interruptibility.sti or e.interruptibility.mov_ss
    return blocked and e.state.guest_activity != Activity.ACTIVE


@rule("activity.event", "the injected event is one that the activity state lets through")
def _(e: Entry) -> bool:
    event = e.event
    if not event.valid:
        return False
    debug_or_check = event.type is EventType.HARDWARE_EXCEPTION and event.vector in (1, 18)
    match e.state.guest_activity:
        case Activity.HLT:
            known = event.type in (EventType.EXTERNAL_INTERRUPT, EventType.NMI)
            mtf = event.type is EventType.OTHER and event.vector == 0
            return not (known or debug_or_check or mtf)
        case Activity.SHUTDOWN:
            check = event.type is EventType.HARDWARE_EXCEPTION and event.vector == 18
            return not (check or event.type is EventType.NMI)
        case Activity.WAIT_FOR_SIPI:
            return True
    return False


@rule("interruptibility.reserved", "interruptibility: reserved bits 0")
def _(e: Entry) -> bool:
    mask = Interruptibility.RESERVED
    if "sgx" not in e.capabilities.extra:
        mask |= Interruptibility.enclave.mask
    return bool(e.state.guest_interruptibility & mask)


@rule("interruptibility.sti", "not both STI and MOV-SS blocking; STI blocking only with IF")
def _(e: Entry) -> bool:
    blocking = e.interruptibility
    if not blocking.sti:
        return False
    return blocking.mov_ss or not e.state.guest_rflags & RFLAGS_IF


@rule("interruptibility.smi", "no blocking by SMI outside SMM")
def _(e: Entry) -> bool:
    return e.interruptibility.smi


@rule("interruptibility.enclave", "enclave interruption excludes MOV-SS blocking")
def _(e: Entry) -> bool:
    return e.interruptibility.enclave and e.interruptibility.mov_ss


@rule("event.interrupt", "an injected external interrupt needs IF, and no STI or MOV-SS blocking")
def _(e: Entry) -> bool:
    if not (e.event.valid and e.event.type is EventType.EXTERNAL_INTERRUPT):
        return False
    blocked = e.interruptibility.sti or e.interruptibility.mov_ss
    return blocked or not e.state.guest_rflags & RFLAGS_IF


@rule("event.nmi", "an injected NMI needs no MOV-SS blocking, with virtual NMIs no NMI blocking")
def _(e: Entry) -> bool:
    if not (e.event.valid and e.event.type is EventType.NMI):
        return False
    blocked = e.pin.virtual_nmis and e.interruptibility.nmi
    return e.interruptibility.mov_ss or blocked


@rule("event.nmi_sti", "an injected NMI needs no STI blocking", NMI_INJECTION)
def _(e: Entry) -> bool:
    return e.event.valid and e.event.type is EventType.NMI and e.interruptibility.sti


@rule("pending_debug.reserved", "pending debug exceptions: reserved bits 0")
def _(e: Entry) -> bool:
    return bool(e.state.guest_pending_debug_exceptions & PendingDebug.RESERVED)


@rule("pending_debug.bs", "BS as TF without BTF while interrupts are blocked or in HLT")
def _(e: Entry) -> bool:
    blocked = e.interruptibility.sti or e.interruptibility.mov_ss
    if not blocked and e.state.guest_activity != Activity.HLT:
        return False
    step = bool(e.state.guest_rflags & RFLAGS_TF) and not e.state.guest_debugctl & DEBUGCTL_BTF
    return PendingDebug(e.state.guest_pending_debug_exceptions).bs is not step


@rule("pending_debug.rtm", "RTM only with bit 12 alone, where RTM exists, no MOV-SS blocking")
def _(e: Entry) -> bool:
    pending = PendingDebug(e.state.guest_pending_debug_exceptions)
    if not pending.rtm:
        return False
    others = pending & 0x6FFF or not pending.enabled_breakpoint
    return bool(others) or "rtm" not in e.capabilities.extra or e.interruptibility.mov_ss


@rule(
    "link_pointer",
    "VMCS link pointer: all ones, or another VMCS, shadow as the control says",
    BAD_LINK_POINTER,
)
def _(e: Entry) -> bool:
    pointer = e.state.vmcs_link_pointer
    if pointer == NO_POINTER:
        return False
    if not e.pointer(pointer, 4096) or pointer == e.current:
        return True
    revision = VmcsRevision(e.read(pointer, 4))
    if revision.revision != e.capabilities.basic.revision:
        return True
    return revision.shadow is not e.secondary.vmcs_shadowing


@rule("pdptes", "PDPTEs of PAE paging: reserved bits 0 where present", BAD_PDPTE)
def _(e: Entry) -> bool:
    paging = e.state.guest_cr0 & CR0_PG and e.state.guest_cr4 & CR4_PAE
    if not paging or e.entry.ia32e_mode_guest:
        return False
    if e.secondary.ept:
        entries = [e.state[f"guest_pdpte{number}"] for number in range(4)]
    else:
        table = e.state.guest_cr3 & 0xFFFF_FFE0
        entries = [e.read(table + 8 * number, 8) for number in range(4)]
    reserved = PDPTE_RESERVED | NO_POINTER >> e.capabilities.physical_width << (
        e.capabilities.physical_width
    )
    return any(entry & 1 and entry & reserved for entry in entries)


RULES = tuple(rule.rules)
