"""Layouts inside VMCS fields: control words, EPTP, events, guest state (SDM 24.4 to 24.9).

Bits that the SDM of 2016 does not have are those of public implementations. The names of control
bits are feature names too: ``secondary.ept`` is supported where the bit may be 1.
"""

from __future__ import annotations

from enum import IntEnum

from pagetables.bits import BitRecord, Bits, address, ignored


class PinControls(BitRecord, width=32):
    """Pin-based VM-execution controls (24.6.1)."""

    external_interrupt_exiting = Bits(0, as_=bool)
    nmi_exiting = Bits(3, as_=bool)
    virtual_nmis = Bits(5, as_=bool)
    preemption_timer = Bits(6, as_=bool)
    posted_interrupts = Bits(7, as_=bool)


class PrimaryControls(BitRecord, width=32):
    """Primary processor-based VM-execution controls (24.6.2)."""

    interrupt_window_exiting = Bits(2, as_=bool)
    tsc_offsetting = Bits(3, as_=bool)
    hlt_exiting = Bits(7, as_=bool)
    invlpg_exiting = Bits(9, as_=bool)
    mwait_exiting = Bits(10, as_=bool)
    rdpmc_exiting = Bits(11, as_=bool)
    rdtsc_exiting = Bits(12, as_=bool)
    cr3_load_exiting = Bits(15, as_=bool)
    cr3_store_exiting = Bits(16, as_=bool)
    tertiary_controls = Bits(17, as_=bool)
    cr8_load_exiting = Bits(19, as_=bool)
    cr8_store_exiting = Bits(20, as_=bool)
    tpr_shadow = Bits(21, as_=bool)
    nmi_window_exiting = Bits(22, as_=bool)
    mov_dr_exiting = Bits(23, as_=bool)
    unconditional_io_exiting = Bits(24, as_=bool)
    io_bitmaps = Bits(25, as_=bool)
    monitor_trap_flag = Bits(27, as_=bool)
    msr_bitmaps = Bits(28, as_=bool)
    monitor_exiting = Bits(29, as_=bool)
    pause_exiting = Bits(30, as_=bool)
    secondary_controls = Bits(31, as_=bool)


class SecondaryControls(BitRecord, width=32):
    """Secondary processor-based VM-execution controls (24.6.2); all 0 unless activated."""

    virtualize_apic_accesses = Bits(0, as_=bool)
    ept = Bits(1, as_=bool)
    descriptor_table_exiting = Bits(2, as_=bool)
    rdtscp = Bits(3, as_=bool)
    virtualize_x2apic_mode = Bits(4, as_=bool)
    vpid = Bits(5, as_=bool)
    wbinvd_exiting = Bits(6, as_=bool)
    unrestricted_guest = Bits(7, as_=bool)
    apic_register_virtualization = Bits(8, as_=bool)
    virtual_interrupt_delivery = Bits(9, as_=bool)
    pause_loop_exiting = Bits(10, as_=bool)
    rdrand_exiting = Bits(11, as_=bool)
    invpcid = Bits(12, as_=bool)
    vm_functions = Bits(13, as_=bool)
    vmcs_shadowing = Bits(14, as_=bool)
    encls_exiting = Bits(15, as_=bool)
    rdseed_exiting = Bits(16, as_=bool)
    pml = Bits(17, as_=bool)
    ept_violation_ve = Bits(18, as_=bool)
    conceal_from_pt = Bits(19, as_=bool)
    xsaves = Bits(20, as_=bool)
    pasid_translation = Bits(21, as_=bool)
    mode_based_execute = Bits(22, as_=bool)
    sub_page_permissions = Bits(23, as_=bool)
    pt_guest_physical = Bits(24, as_=bool)
    tsc_scaling = Bits(25, as_=bool)
    user_wait_pause = Bits(26, as_=bool)
    pconfig = Bits(27, as_=bool)
    enclv_exiting = Bits(28, as_=bool)
    bus_lock_detection = Bits(30, as_=bool)
    notify_exiting = Bits(31, as_=bool)


class TertiaryControls(BitRecord, width=64):
    """Tertiary processor-based VM-execution controls; all 0 unless activated."""

    loadiwkey_exiting = Bits(0, as_=bool)
    hlat = Bits(1, as_=bool)
    ept_paging_write = Bits(2, as_=bool)
    guest_paging_verification = Bits(3, as_=bool)
    ipi_virtualization = Bits(4, as_=bool)
    msr_list_exiting = Bits(6, as_=bool)
    virtualize_spec_ctrl = Bits(7, as_=bool)
    apic_timer_virtualization = Bits(8, as_=bool)


class ExitControls(BitRecord, width=32):
    """VM-exit controls (24.7.1)."""

    save_debug_controls = Bits(2, as_=bool)
    host_address_space_size = Bits(9, as_=bool)
    load_perf_global_ctrl = Bits(12, as_=bool)
    acknowledge_interrupt = Bits(15, as_=bool)
    save_pat = Bits(18, as_=bool)
    load_pat = Bits(19, as_=bool)
    save_efer = Bits(20, as_=bool)
    load_efer = Bits(21, as_=bool)
    save_preemption_timer = Bits(22, as_=bool)
    clear_bndcfgs = Bits(23, as_=bool)
    conceal_from_pt = Bits(24, as_=bool)
    clear_rtit_ctl = Bits(25, as_=bool)
    load_cet_state = Bits(28, as_=bool)
    save_perf_global_ctrl = Bits(30, as_=bool)
    secondary_exit_controls = Bits(31, as_=bool)


class EntryControls(BitRecord, width=32):
    """VM-entry controls (24.8.1)."""

    load_debug_controls = Bits(2, as_=bool)
    ia32e_mode_guest = Bits(9, as_=bool)
    entry_to_smm = Bits(10, as_=bool)
    deactivate_dual_monitor = Bits(11, as_=bool)
    load_perf_global_ctrl = Bits(13, as_=bool)
    load_pat = Bits(14, as_=bool)
    load_efer = Bits(15, as_=bool)
    load_bndcfgs = Bits(16, as_=bool)
    conceal_from_pt = Bits(17, as_=bool)
    load_rtit_ctl = Bits(18, as_=bool)
    load_cet_state = Bits(20, as_=bool)


class EptPointer(BitRecord, width=64):
    """EPTP (24.6.11)."""

    mt = Bits(2, 0)  # memory type of the EPT structures
    walk = Bits(5, 3)  # levels - 1
    ad = Bits(6, as_=bool, needs="ad")  # accessed and dirty flags
    sss = Bits(7, as_=bool, needs="supervisor_shadow_stack")
    root = address(51, 12)


class EventType(IntEnum):
    """Interruption types (24.8.3)."""

    EXTERNAL_INTERRUPT = 0
    RESERVED_1 = 1
    NMI = 2
    HARDWARE_EXCEPTION = 3
    SOFTWARE_INTERRUPT = 4
    PRIVILEGED_SOFTWARE_EXCEPTION = 5
    SOFTWARE_EXCEPTION = 6
    OTHER = 7


class EntryEvent(BitRecord, width=32):
    """VM-entry interruption information (24.8.3)."""

    vector = Bits(7, 0)
    type = Bits(10, 8, as_=EventType)
    deliver_error_code = Bits(11, as_=bool)
    valid = Bits(31, as_=bool)


class ExitEvent(BitRecord, width=32):
    """VM-exit interruption and IDT-vectoring information (24.9.2, 24.9.3)."""

    vector = Bits(7, 0)
    type = Bits(10, 8, as_=EventType)
    error_code_valid = Bits(11, as_=bool)
    nmi_unblocking = Bits(12, as_=bool)
    valid = Bits(31, as_=bool)


class AccessRights(BitRecord, width=32):
    """Access rights of a guest segment register (24.4.1)."""

    type = Bits(3, 0)
    s = Bits(4, as_=bool)
    dpl = Bits(6, 5)
    p = Bits(7, as_=bool)
    avl = ignored(12)
    l = Bits(13, as_=bool)  # noqa: E741 - the field's name
    db = Bits(14, as_=bool)
    g = Bits(15, as_=bool)
    unusable = Bits(16, as_=bool)


class Interruptibility(BitRecord, width=32):
    """Interruptibility state (24.4.2)."""

    sti = Bits(0, as_=bool)
    mov_ss = Bits(1, as_=bool)
    smi = Bits(2, as_=bool)
    nmi = Bits(3, as_=bool)
    enclave = Bits(4, as_=bool, needs="sgx")


class Activity(IntEnum):
    """Activity states (24.4.2)."""

    ACTIVE = 0
    HLT = 1
    SHUTDOWN = 2
    WAIT_FOR_SIPI = 3


class PendingDebug(BitRecord, width=64):
    """Pending debug exceptions (24.4.2)."""

    b = Bits(3, 0)
    enabled_breakpoint = Bits(12, as_=bool)
    bs = Bits(14, as_=bool)
    rtm = Bits(16, as_=bool)


class InterruptStatus(BitRecord, width=16):
    """Guest interrupt status (24.4.2)."""

    rvi = Bits(7, 0)  # requesting virtual interrupt
    svi = Bits(15, 8)  # servicing virtual interrupt


class VmcsRevision(BitRecord, width=32):
    """The first four bytes of a VMCS region (24.2)."""

    revision = Bits(30, 0)
    shadow = Bits(31, as_=bool)


CONTROL_WORDS: dict[str, type[BitRecord]] = {
    "pin": PinControls,
    "primary": PrimaryControls,
    "secondary": SecondaryControls,
    "tertiary": TertiaryControls,
    "exit": ExitControls,
    "entry": EntryControls,
}
"""The control words by the first part of their bits' feature names."""
