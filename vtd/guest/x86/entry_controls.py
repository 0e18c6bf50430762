"""Checks on VMX controls; one that fails makes VM entry fail with error 7 (SDM 26.2.1)."""

from __future__ import annotations

from vtd.guest.x86.controls import EntryEvent, EventType
from vtd.guest.x86.entry_rules import CR0_PE, Entry, Group, Rules

rule = Rules(Group.CONTROLS)

WORDS = {
    "pin": "pin_controls",
    "primary": "primary_controls",
    "secondary": "secondary_controls",
    "tertiary": "tertiary_controls",
    "exit": "exit_controls",
    "entry": "entry_controls",
}
_ACTIVE = {
    "secondary": lambda e: e.primary.secondary_controls,
    "tertiary": lambda e: e.primary.tertiary_controls,
}


def _word_rule(word: str, field: str) -> None:
    def broken(e: Entry) -> bool:
        if word in _ACTIVE and not _ACTIVE[word](e):
            return False
        must, may = e.capabilities.allowed(word)
        return bool(~e.state[field] & must or e.state[field] & ~may)

    rule.add(
        f"{word}.reserved",
        f"{field}: bits as the capability MSR allows them",
        broken,
    )


for _word, _field in WORDS.items():
    _word_rule(_word, _field)


@rule("cr3_target_count", "CR3-target count as IA32_VMX_MISC allows")
def _(e: Entry) -> bool:
    return e.state.cr3_target_count > e.capabilities.misc.cr3_targets


def _address_rule(condition: str, field: str, alignment: int = 4096) -> None:
    """An address that has to be good while a control is 1."""
    word, name = condition.split(".")

    def broken(e: Entry) -> bool:
        return bool(getattr(getattr(e, word), name)) and not e.pointer(e.state[field], alignment)

    rule.add(
        field,
        f"{field}: multiple of {alignment} within the physical-address width",
        broken,
    )


_address_rule("primary.io_bitmaps", "io_bitmap_a")
_address_rule("primary.io_bitmaps", "io_bitmap_b")
_address_rule("primary.msr_bitmaps", "msr_bitmap")
_address_rule("primary.tpr_shadow", "virtual_apic_address")


@rule("tpr_threshold.reserved", "TPR threshold 31:4 are 0 without virtual-interrupt delivery")
def _(e: Entry) -> bool:
    without = e.primary.tpr_shadow and not e.secondary.virtual_interrupt_delivery
    return without and e.state.tpr_threshold > 0xF


@rule(
    "tpr_threshold.vtpr",
    "TPR threshold 3:0 at most VTPR 7:4, unless APIC accesses or interrupts are virtualized",
)
def _(e: Entry) -> bool:
    if not e.primary.tpr_shadow or e.secondary.virtual_interrupt_delivery:
        return False
    if e.secondary.virtualize_apic_accesses:
        return False
    address = e.state.virtual_apic_address
    if not e.pointer(address, 4096):
        return False  # a rule of its own
    return e.state.tpr_threshold & 0xF > e.read(address + 0x80, 1) >> 4


def _needs_tpr_shadow(name: str) -> None:
    def broken(e: Entry) -> bool:
        return getattr(e.secondary, name) and not e.primary.tpr_shadow

    rule.add(f"{name}.needs_tpr_shadow", f"{name} only with TPR shadow", broken)


for _name in (
    "virtualize_x2apic_mode",
    "apic_register_virtualization",
    "virtual_interrupt_delivery",
):
    _needs_tpr_shadow(_name)


@rule("nmi_exiting", "virtual NMIs only with NMI exiting")
def _(e: Entry) -> bool:
    return e.pin.virtual_nmis and not e.pin.nmi_exiting


@rule("virtual_nmis", "NMI-window exiting only with virtual NMIs")
def _(e: Entry) -> bool:
    return e.primary.nmi_window_exiting and not e.pin.virtual_nmis


_address_rule("secondary.virtualize_apic_accesses", "apic_access_address")


@rule("x2apic_or_accesses", "virtualize x2APIC mode excludes virtualize APIC accesses")
def _(e: Entry) -> bool:
    return e.secondary.virtualize_x2apic_mode and e.secondary.virtualize_apic_accesses


@rule(
    "virtual_interrupt_delivery.external",
    "virtual-interrupt delivery only with external-interrupt exiting",
)
def _(e: Entry) -> bool:
    return e.secondary.virtual_interrupt_delivery and not e.pin.external_interrupt_exiting


@rule("posted_interrupts.delivery", "posted interrupts only with virtual-interrupt delivery")
def _(e: Entry) -> bool:
    return e.pin.posted_interrupts and not e.secondary.virtual_interrupt_delivery


@rule("posted_interrupts.acknowledge", "posted interrupts only with acknowledge interrupt on exit")
def _(e: Entry) -> bool:
    return e.pin.posted_interrupts and not e.exit.acknowledge_interrupt


@rule("posted_interrupt_vector", "posted-interrupt notification vector 15:8 are 0")
def _(e: Entry) -> bool:
    return e.pin.posted_interrupts and e.state.posted_interrupt_vector > 0xFF


_address_rule("pin.posted_interrupts", "posted_interrupt_descriptor_address", 64)


@rule("vpid", "VPID is not 0")
def _(e: Entry) -> bool:
    return e.secondary.vpid and not e.state.vpid


@rule("eptp", "EPTP: memory type, walk length and flags supported, reserved bits 0")
def _(e: Entry) -> bool:
    return e.secondary.ept and not e.capabilities.valid_eptp(e.state.eptp)


def _needs_ept(name: str) -> None:
    def broken(e: Entry) -> bool:
        return getattr(e.secondary, name) and not e.secondary.ept

    rule.add(f"{name}.needs_ept", f"{name} only with EPT", broken)


for _name in ("pml", "unrestricted_guest", "mode_based_execute", "sub_page_permissions"):
    _needs_ept(_name)
_address_rule("secondary.pml", "pml_address")
_address_rule("secondary.vmcs_shadowing", "vmread_bitmap")
_address_rule("secondary.vmcs_shadowing", "vmwrite_bitmap")
_address_rule("secondary.ept_violation_ve", "ve_information_address")


@rule("vm_functions", "VM-function controls as IA32_VMX_VMFUNC allows")
def _(e: Entry) -> bool:
    return e.secondary.vm_functions and bool(
        e.state.vm_function_controls & ~e.capabilities.vm_functions
    )


@rule("eptp_switching", "EPTP switching only with EPT and an aligned EPTP list")
def _(e: Entry) -> bool:
    if not (e.secondary.vm_functions and e.state.vm_function_controls & 1):
        return False
    return not e.secondary.ept or not e.pointer(e.state.eptp_list_address, 4096)


@rule("tsc_multiplier", "TSC multiplier is not 0")
def _(e: Entry) -> bool:
    return e.secondary.tsc_scaling and not e.state.tsc_multiplier


@rule("ipi_virtualization.needs_tpr_shadow", "IPI virtualization only with TPR shadow")
def _(e: Entry) -> bool:
    return e.tertiary.ipi_virtualization and not e.primary.tpr_shadow


@rule("pid_pointer_table", "PID-pointer table aligned, its last byte within the physical width")
def _(e: Entry) -> bool:
    if not e.tertiary.ipi_virtualization:
        return False
    table = e.state.pid_pointer_table
    return bool(table & 7) or not e.inside(table + 8 * e.state.last_pid_pointer_index + 7)


@rule("save_preemption_timer", "saving the preemption timer only where it is activated")
def _(e: Entry) -> bool:
    return e.exit.save_preemption_timer and not e.pin.preemption_timer


def _msr_area_rule(area: str) -> None:
    def broken(e: Entry) -> bool:
        count, address = e.state[f"{area}_count"], e.state[f"{area}_address"]
        return bool(count) and not (e.pointer(address, 16) and e.inside(address + 16 * count - 1))

    rule.add(
        f"{area}_address",
        f"{area}: multiple of 16, first and last byte within the physical-address width",
        broken,
    )


for _name in ("exit_msr_store", "exit_msr_load", "entry_msr_load"):
    _msr_area_rule(_name)

ERROR_CODE_VECTORS = frozenset({8, 10, 11, 12, 13, 14, 17})
"""Exceptions that push an error code (26.2.1.3)."""
_CONTROL_PROTECTION = 21
_WITH_LENGTH = (
    EventType.SOFTWARE_INTERRUPT,
    EventType.PRIVILEGED_SOFTWARE_EXCEPTION,
    EventType.SOFTWARE_EXCEPTION,
)


@rule("event.type", "interruption type not reserved, other event only with the monitor trap flag")
def _(e: Entry) -> bool:
    if not e.event.valid:
        return False
    if e.event.type is EventType.OTHER:
        return "primary.monitor_trap_flag" not in e.capabilities.features
    return e.event.type is EventType.RESERVED_1


@rule("event.vector", "vector 2 for NMI, at most 31 for hardware exceptions, 0 for other events")
def _(e: Entry) -> bool:
    if not e.event.valid:
        return False
    match e.event.type:
        case EventType.NMI:
            return e.event.vector != 2
        case EventType.HARDWARE_EXCEPTION:
            return e.event.vector > 31
        case EventType.OTHER:
            return e.event.vector != 0
    return False


@rule(
    "event.error_code",
    "error code exactly for hardware exceptions in protected mode that push one",
)
def _(e: Entry) -> bool:
    if not e.event.valid:
        return False
    delivers = e.event.deliver_error_code
    exception = e.event.type is EventType.HARDWARE_EXCEPTION
    protected = not e.unrestricted or bool(e.state.guest_cr0 & CR0_PE)
    if not exception or not protected:
        return delivers
    if e.capabilities.basic.any_error_code:
        return False
    vectors = ERROR_CODE_VECTORS
    if "entry.load_cet_state" in e.capabilities.features:
        vectors |= {_CONTROL_PROTECTION}
    return delivers is not (e.event.vector in vectors)


@rule("event.reserved", "interruption information 30:12 are 0")
def _(e: Entry) -> bool:
    return e.event.valid and bool(e.event & EntryEvent.RESERVED)


@rule("event.error_code_value", "error code 31:16 are 0")
def _(e: Entry) -> bool:
    return (
        e.event.valid and e.event.deliver_error_code and e.state.entry_exception_error_code > 0xFFFF
    )


@rule("event.length", "instruction length 1 to 15 for software events, 0 where MISC allows it")
def _(e: Entry) -> bool:
    if not e.event.valid or e.event.type not in _WITH_LENGTH:
        return False
    length = e.state.entry_instruction_length
    return length > 15 or (not length and not e.capabilities.misc.zero_length_injection)


@rule("smm", "no entry to SMM, and no deactivation of dual monitor treatment, outside SMM")
def _(e: Entry) -> bool:
    return e.entry.entry_to_smm or e.entry.deactivate_dual_monitor


RULES = tuple(rule.rules)
