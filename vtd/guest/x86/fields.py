"""Every VMCS field: its encoding, its name, its place in the public layout, and what it needs.

SDM appendix B, and newer fields as public implementations have them. ``offset`` is the byte offset
in KVM's ``vmcs12``, None for fields that it does not have. A field exists where one of the features
in ``needs`` does (24.11.2).
"""

from __future__ import annotations

import functools
from enum import IntEnum
from typing import NamedTuple

from pagetables.bits import BitRecord, Bits


class FieldType(IntEnum):
    """What a field is for (24.11.2)."""

    CONTROL = 0
    READ_ONLY = 1
    GUEST = 2
    HOST = 3


class FieldWidth(IntEnum):
    """How wide a field is (24.11.2)."""

    W16 = 0
    W64 = 1
    W32 = 2
    NATURAL = 3


SIZES = {FieldWidth.W16: 2, FieldWidth.W64: 8, FieldWidth.W32: 4, FieldWidth.NATURAL: 8}
"""Bytes of a field."""


class Encoding(BitRecord, width=32):
    """A field encoding (24.11.2, Table 24-16)."""

    high = Bits(0, as_=bool)  # upper 32 bits of a 64-bit field
    index = Bits(9, 1)
    type = Bits(11, 10, as_=FieldType)
    width = Bits(14, 13, as_=FieldWidth)


@functools.cache
def _size(encoding: int) -> int:
    return SIZES[Encoding(encoding).width]


class Field(NamedTuple):
    """One field of a VMCS."""

    encoding: int
    name: str
    offset: int | None = None
    needs: tuple[str, ...] = ()

    @property
    def type(self) -> FieldType:
        """What the field is for."""
        return Encoding(self.encoding).type

    @property
    def width(self) -> FieldWidth:
        """How wide the field is."""
        return Encoding(self.encoding).width

    @property
    def size(self) -> int:
        """Bytes of the field."""
        return _size(self.encoding)

    def exists(self, features: frozenset[str]) -> bool:
        """Whether a processor with these features has the field."""
        return not self.needs or not features.isdisjoint(self.needs)


NOWHERE = ("unmodelled",)
"""Fields of features that no profile has: known by name, and unsupported."""
_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")
_HOST_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "tr")
_VID = ("secondary.virtual_interrupt_delivery",)
_EPT = ("secondary.ept",)
_FRED = NOWHERE
_CET = ("entry.load_cet_state", "exit.load_cet_state")


def _series(
    encoding: int, names: tuple[str, ...], pattern: str, offset: int, step: int
) -> tuple[Field, ...]:
    """Fields of consecutive indexes and offsets."""
    return tuple(
        Field(encoding + 2 * number, pattern.format(name), offset + step * number)
        for number, name in enumerate(names)
    )


FIELDS: tuple[Field, ...] = (
    # 16-bit control fields
    Field(0x0000, "vpid", 960, ("secondary.vpid",)),
    Field(0x0002, "posted_interrupt_vector", 962, ("pin.posted_interrupts",)),
    Field(0x0004, "eptp_index", None, ("secondary.ept_violation_ve",)),
    Field(0x0006, "hlat_prefix_size", None, ("tertiary.hlat",)),
    Field(0x0008, "last_pid_pointer_index", None, ("tertiary.ipi_virtualization",)),
    Field(0x000A, "virtual_timer_vector", None, ("tertiary.apic_timer_virtualization",)),
    # 16-bit guest-state fields
    *_series(0x0800, _SEGMENTS, "guest_{}_selector", 964, 2),
    Field(0x0810, "guest_interrupt_status", 980, _VID),
    Field(0x0812, "pml_index", 996, ("secondary.pml",)),
    Field(0x0814, "guest_uinv", None, NOWHERE),
    # 16-bit host-state fields
    *_series(0x0C00, _HOST_SEGMENTS, "host_{}_selector", 982, 2),
    # 64-bit control fields
    Field(0x2000, "io_bitmap_a", 40),
    Field(0x2002, "io_bitmap_b", 48),
    Field(0x2004, "msr_bitmap", 56, ("primary.msr_bitmaps",)),
    Field(0x2006, "exit_msr_store_address", 64),
    Field(0x2008, "exit_msr_load_address", 72),
    Field(0x200A, "entry_msr_load_address", 80),
    Field(0x200C, "executive_vmcs_pointer"),
    Field(0x200E, "pml_address", 312, ("secondary.pml",)),
    Field(0x2010, "tsc_offset", 88),
    Field(0x2012, "virtual_apic_address", 96, ("primary.tpr_shadow",)),
    Field(0x2014, "apic_access_address", 104, ("secondary.virtualize_apic_accesses",)),
    Field(0x2016, "posted_interrupt_descriptor_address", 112, ("pin.posted_interrupts",)),
    Field(0x2018, "vm_function_controls", 296, ("secondary.vm_functions",)),
    Field(0x201A, "eptp", 120, _EPT),
    *(Field(0x201C + 2 * n, f"eoi_exit_bitmap_{n}", 128 + 8 * n, _VID) for n in range(4)),
    Field(0x2024, "eptp_list_address", 304, ("secondary.vm_functions",)),
    Field(0x2026, "vmread_bitmap", 280, ("secondary.vmcs_shadowing",)),
    Field(0x2028, "vmwrite_bitmap", 288, ("secondary.vmcs_shadowing",)),
    Field(0x202A, "ve_information_address", None, ("secondary.ept_violation_ve",)),
    Field(0x202C, "xss_exiting_bitmap", 160, ("secondary.xsaves",)),
    Field(0x202E, "encls_exiting_bitmap", 320, ("secondary.encls_exiting",)),
    Field(0x2030, "spp_table_pointer", None, ("secondary.sub_page_permissions",)),
    Field(0x2032, "tsc_multiplier", 328, ("secondary.tsc_scaling",)),
    Field(0x2034, "tertiary_controls", None, ("primary.tertiary_controls",)),
    Field(0x2036, "enclv_exiting_bitmap", None, ("secondary.enclv_exiting",)),
    Field(0x2038, "low_pasid_directory", None, ("secondary.pasid_translation",)),
    Field(0x203A, "high_pasid_directory", None, ("secondary.pasid_translation",)),
    Field(0x203C, "shared_eptp", None, NOWHERE),
    Field(0x203E, "pconfig_exiting_bitmap", None, ("secondary.pconfig",)),
    Field(0x2040, "hlat_pointer", None, ("tertiary.hlat",)),
    Field(0x2042, "pid_pointer_table", None, ("tertiary.ipi_virtualization",)),
    Field(0x2044, "secondary_exit_controls", None, ("exit.secondary_exit_controls",)),
    Field(0x204A, "spec_ctrl_mask", None, ("tertiary.virtualize_spec_ctrl",)),
    Field(0x204C, "spec_ctrl_shadow", None, ("tertiary.virtualize_spec_ctrl",)),
    Field(0x204E, "guest_deadline_shadow", None, ("tertiary.apic_timer_virtualization",)),
    Field(0x2052, "injected_event_data", None, _FRED),
    # 64-bit read-only data fields
    Field(0x2400, "guest_physical_address", 168, _EPT),
    Field(0x2402, "msr_data", None, ("tertiary.msr_list_exiting",)),
    Field(0x2404, "original_event_data", None, _FRED),
    # 64-bit guest-state fields
    Field(0x2800, "vmcs_link_pointer", 176),
    Field(0x2802, "guest_debugctl", 184),
    Field(0x2804, "guest_pat", 192, ("entry.load_pat", "exit.save_pat")),
    Field(0x2806, "guest_efer", 200, ("entry.load_efer", "exit.save_efer")),
    Field(0x2808, "guest_perf_global_ctrl", 208, ("entry.load_perf_global_ctrl",)),
    *(Field(0x280A + 2 * n, f"guest_pdpte{n}", 216 + 8 * n, _EPT) for n in range(4)),
    Field(0x2812, "guest_bndcfgs", 248, ("entry.load_bndcfgs", "exit.clear_bndcfgs")),
    Field(0x2814, "guest_rtit_ctl", None, ("entry.load_rtit_ctl", "exit.clear_rtit_ctl")),
    Field(0x2818, "guest_pkrs", None, NOWHERE),
    *(
        Field(0x281A + 2 * number, f"guest_fred_{name}", None, _FRED)
        for number, name in enumerate(
            ("config", "rsp1", "rsp2", "rsp3", "stack_levels", "ssp1", "ssp2", "ssp3")
        )
    ),
    Field(0x282E, "guest_spec_ctrl", None, NOWHERE),
    Field(0x2830, "guest_deadline", None, ("tertiary.apic_timer_virtualization",)),
    # 64-bit host-state fields
    Field(0x2C00, "host_pat", 256, ("exit.load_pat",)),
    Field(0x2C02, "host_efer", 264, ("exit.load_efer",)),
    Field(0x2C04, "host_perf_global_ctrl", 272, ("exit.load_perf_global_ctrl",)),
    Field(0x2C06, "host_pkrs", None, NOWHERE),
    *(
        Field(0x2C08 + 2 * number, f"host_fred_{name}", None, _FRED)
        for number, name in enumerate(
            ("config", "rsp1", "rsp2", "rsp3", "stack_levels", "ssp1", "ssp2", "ssp3")
        )
    ),
    Field(0x2C1A, "host_spec_ctrl", None, NOWHERE),
    # 32-bit control fields
    Field(0x4000, "pin_controls", 744),
    Field(0x4002, "primary_controls", 748),
    Field(0x4004, "exception_bitmap", 752),
    Field(0x4006, "page_fault_error_mask", 756),
    Field(0x4008, "page_fault_error_match", 760),
    Field(0x400A, "cr3_target_count", 764),
    Field(0x400C, "exit_controls", 768),
    Field(0x400E, "exit_msr_store_count", 772),
    Field(0x4010, "exit_msr_load_count", 776),
    Field(0x4012, "entry_controls", 780),
    Field(0x4014, "entry_msr_load_count", 784),
    Field(0x4016, "entry_interruption_info", 788),
    Field(0x4018, "entry_exception_error_code", 792),
    Field(0x401A, "entry_instruction_length", 796),
    Field(0x401C, "tpr_threshold", 800, ("primary.tpr_shadow",)),
    Field(0x401E, "secondary_controls", 804, ("primary.secondary_controls",)),
    Field(0x4020, "ple_gap", None, ("secondary.pause_loop_exiting",)),
    Field(0x4022, "ple_window", None, ("secondary.pause_loop_exiting",)),
    Field(0x4024, "notify_window", None, ("secondary.notify_exiting",)),
    # 32-bit read-only data fields
    Field(0x4400, "instruction_error", 808),
    Field(0x4402, "exit_reason", 812),
    Field(0x4404, "exit_interruption_info", 816),
    Field(0x4406, "exit_interruption_error_code", 820),
    Field(0x4408, "idt_vectoring_info", 824),
    Field(0x440A, "idt_vectoring_error_code", 828),
    Field(0x440C, "exit_instruction_length", 832),
    Field(0x440E, "exit_instruction_info", 836),
    # 32-bit guest-state fields
    *_series(0x4800, (*_SEGMENTS, "gdtr", "idtr"), "guest_{}_limit", 840, 4),
    *_series(0x4814, _SEGMENTS, "guest_{}_access_rights", 880, 4),
    Field(0x4824, "guest_interruptibility", 912),
    Field(0x4826, "guest_activity", 916),
    Field(0x4828, "guest_smbase"),
    Field(0x482A, "guest_sysenter_cs", 920),
    Field(0x482E, "preemption_timer", 928, ("pin.preemption_timer",)),
    # 32-bit host-state field
    Field(0x4C00, "host_sysenter_cs", 924),
    # Natural-width control fields
    Field(0x6000, "cr0_guest_host_mask", 344),
    Field(0x6002, "cr4_guest_host_mask", 352),
    Field(0x6004, "cr0_read_shadow", 360),
    Field(0x6006, "cr4_read_shadow", 368),
    *(Field(0x6008 + 2 * n, f"cr3_target_value{n}", 376 + 8 * n) for n in range(4)),
    # Natural-width read-only data fields
    Field(0x6400, "exit_qualification", 408),
    Field(0x6402, "io_rcx"),
    Field(0x6404, "io_rsi"),
    Field(0x6406, "io_rdi"),
    Field(0x6408, "io_rip"),
    Field(0x640A, "guest_linear_address", 416),
    # Natural-width guest-state fields
    Field(0x6800, "guest_cr0", 424),
    Field(0x6802, "guest_cr3", 432),
    Field(0x6804, "guest_cr4", 440),
    *_series(0x6806, (*_SEGMENTS, "gdtr", "idtr"), "guest_{}_base", 448, 8),
    Field(0x681A, "guest_dr7", 528),
    Field(0x681C, "guest_rsp", 536),
    Field(0x681E, "guest_rip", 544),
    Field(0x6820, "guest_rflags", 552),
    Field(0x6822, "guest_pending_debug_exceptions", 560),
    Field(0x6824, "guest_sysenter_esp", 568),
    Field(0x6826, "guest_sysenter_eip", 576),
    Field(0x6828, "guest_s_cet", 704, _CET),
    Field(0x682A, "guest_ssp", 712, _CET),
    Field(0x682C, "guest_ssp_table", 720, _CET),
    # Natural-width host-state fields
    Field(0x6C00, "host_cr0", 584),
    Field(0x6C02, "host_cr3", 592),
    Field(0x6C04, "host_cr4", 600),
    *_series(0x6C06, ("fs", "gs", "tr", "gdtr", "idtr"), "host_{}_base", 608, 8),
    Field(0x6C10, "host_sysenter_esp", 648),
    Field(0x6C12, "host_sysenter_eip", 656),
    Field(0x6C14, "host_rsp", 664),
    Field(0x6C16, "host_rip", 672),
    Field(0x6C18, "host_s_cet", 680, _CET),
    Field(0x6C1A, "host_ssp", 688, _CET),
    Field(0x6C1C, "host_ssp_table", 696, _CET),
)
"""All fields in the order of their encodings within each kind."""

BY_ENCODING = {field.encoding: field for field in FIELDS}
BY_NAME = {field.name: field for field in FIELDS}


def find_field(encoding: int, features: frozenset[str]) -> Field | None:
    """The field that VMREAD and VMWRITE mean by an encoding, the high access of one included.

    None where the processor has no such field, or the encoding has bits that must be 0.
    """
    if encoding >> 32 or encoding & Encoding.RESERVED:
        return None
    field = BY_ENCODING.get(encoding & ~1)
    if field is None or (encoding & 1 and field.width is not FieldWidth.W64):
        return None
    return field if field.exists(features) else None
