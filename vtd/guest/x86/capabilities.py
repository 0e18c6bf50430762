"""What a processor's VMX can do: the capability MSRs (SDM appendix A), cross-checks, profiles.

Left out: features that only CPUID reports, but for the widths of addresses. ``VMX_PROFILES`` holds
ready-made processors. Their VMCS regions have the public layout of :mod:`vtd.guest.x86.vmcs`, so
IA32_VMX_BASIC has its revision and size; all else of ``broadwell`` is as published for that part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property

from pagetables.bits import BitRecord, Bits, Implementation
from vtd.guest.x86.controls import CONTROL_WORDS, EptPointer

REVISION = 0x11E5_7ED0
"""VMCS revision identifier of the layout: the one that KVM declares stable."""


class VmxBasic(BitRecord, width=64):
    """IA32_VMX_BASIC, 480h (A.1)."""

    revision = Bits(30, 0)
    size = Bits(44, 32)
    address_32 = Bits(48, as_=bool)  # physical addresses limited to 32 bits
    dual_monitor = Bits(49, as_=bool)
    memory_type = Bits(53, 50)
    io_information = Bits(54, as_=bool)
    true_controls = Bits(55, as_=bool)
    any_error_code = Bits(56, as_=bool)  # hardware exceptions with or without error code
    bit_57 = Bits(57)  # set in recent parts, meaning not published when this was written


class ControlMsr(BitRecord, width=64):
    """A capability MSR of a 32-bit control word (A.2 to A.5)."""

    must_be_1 = Bits(31, 0)
    may_be_1 = Bits(63, 32)


class VmxMisc(BitRecord, width=64):
    """IA32_VMX_MISC, 485h (A.6)."""

    timer_rate = Bits(4, 0)
    store_lma = Bits(5, as_=bool)  # exits store EFER.LMA in the entry controls
    hlt = Bits(6, as_=bool)
    shutdown = Bits(7, as_=bool)
    wait_for_sipi = Bits(8, as_=bool)
    pt = Bits(14, as_=bool)
    smbase = Bits(15, as_=bool)
    cr3_targets = Bits(24, 16)
    msr_list = Bits(27, 25)
    smm_monitor = Bits(28, as_=bool)
    write_read_only = Bits(29, as_=bool)
    zero_length_injection = Bits(30, as_=bool)
    mseg_revision = Bits(63, 32)


class VmcsEnum(BitRecord, width=64):
    """IA32_VMX_VMCS_ENUM, 48Ah (A.9)."""

    highest_index = Bits(9, 1)


class EptVpid(BitRecord, width=64):
    """IA32_VMX_EPT_VPID_CAP, 48Ch (A.10)."""

    execute_only = Bits(0, as_=bool)
    levels_4 = Bits(6, as_=bool)
    levels_5 = Bits(7, as_=bool)
    uc = Bits(8, as_=bool)
    wb = Bits(14, as_=bool)
    pages_2m = Bits(16, as_=bool)
    pages_1g = Bits(17, as_=bool)
    invept = Bits(20, as_=bool)
    ad = Bits(21, as_=bool)
    advanced_information = Bits(22, as_=bool)
    supervisor_shadow_stack = Bits(23, as_=bool)
    invept_single = Bits(25, as_=bool)
    invept_all = Bits(26, as_=bool)
    invvpid = Bits(32, as_=bool)
    invvpid_address = Bits(40, as_=bool)
    invvpid_single = Bits(41, as_=bool)
    invvpid_all = Bits(42, as_=bool)
    invvpid_retaining_globals = Bits(43, as_=bool)


class FeatureControl(BitRecord, width=64):
    """IA32_FEATURE_CONTROL, 3Ah, as far as VMXON looks at it (23.7)."""

    lock = Bits(0, as_=bool)
    vmx_in_smx = Bits(1, as_=bool)
    vmx_outside_smx = Bits(2, as_=bool)
    others = Bits(63, 3)


DEFAULT1 = {"pin": 0x16, "primary": 0x0401_E172, "exit": 0x0003_6DFF, "entry": 0x11FF}
"""Controls that must be 1 where the TRUE MSRs do not say otherwise (A.2)."""


@dataclass(frozen=True)
class VmxCapabilities:
    """The capability MSRs by name, and the widths of addresses.

    An MSR that the processor does not have (A.8 to A.11) is 0 here, and reading it is a #GP.
    """

    basic: VmxBasic
    pin: ControlMsr
    primary: ControlMsr
    exit: ControlMsr
    entry: ControlMsr
    misc: VmxMisc
    cr0_fixed0: int
    cr0_fixed1: int
    cr4_fixed0: int
    cr4_fixed1: int
    vmcs_enum: VmcsEnum
    secondary: ControlMsr
    ept_vpid: EptVpid
    true_pin: ControlMsr
    true_primary: ControlMsr
    true_exit: ControlMsr
    true_entry: ControlMsr
    vm_functions: int = 0
    tertiary: int = 0
    secondary_exit: int = 0
    physical_width: int = 39
    """MAXPHYADDR."""
    linear_width: int = 48
    extra: frozenset[str] = frozenset()
    """Features that no capability MSR reports: ``sgx``, ``rtm``, ``no_execute``."""

    @cached_property
    def features(self) -> frozenset[str]:
        """Names of the control bits that may be 1, such as ``secondary.ept``, and :attr:`extra`."""
        names = set(self.extra)
        for word, record in CONTROL_WORDS.items():
            allowed = self.allowed(word)[1]
            names |= {
                f"{word}.{name}" for name, bits in record.FIELDS.items() if bits.mask & allowed
            }
        return frozenset(names)

    def allowed(self, word: str) -> tuple[int, int]:
        """What must be 1 and what may be 1 in a control word, by the MSR that counts (A.2)."""
        if word == "tertiary":
            return 0, self.tertiary
        name = f"true_{word}" if self.basic.true_controls and word != "secondary" else word
        msr: ControlMsr = getattr(self, name)
        return msr.must_be_1, msr.may_be_1

    @cached_property
    def address_width(self) -> int:
        """Bits that an address in a VMCS or of a VMCS may have (A.1)."""
        return 32 if self.basic.address_32 else self.physical_width

    @cached_property
    def ept_implementation(self) -> Implementation:
        """What decides which bits of EPT entries and of EPTP are reserved."""
        names = {
            "ept_1g": self.ept_vpid.pages_1g,
            "ept_2m": self.ept_vpid.pages_2m,
            "ad": self.ept_vpid.ad,
            "supervisor_shadow_stack": self.ept_vpid.supervisor_shadow_stack,
        }
        return Implementation(
            haw=self.physical_width,
            features=frozenset(name for name, there in names.items() if there),
        )

    def valid_eptp(self, eptp: int) -> bool:
        """Whether entries and INVEPT accept an EPTP (26.2.1.1)."""
        pointer = EptPointer(eptp)
        cap = self.ept_vpid
        if eptp & EptPointer.reserved_mask(self.ept_implementation):
            return False
        memory_type = (pointer.mt == 0 and cap.uc) or (pointer.mt == 6 and cap.wb)
        levels = (pointer.walk == 3 and cap.levels_4) or (pointer.walk == 4 and cap.levels_5)
        return memory_type and levels

    def canonical(self, address: int) -> bool:
        """Whether bits 63 to the linear width - 1 of a 64-bit address are all equal."""
        return address >> self.linear_width - 1 in (0, (1 << 65 - self.linear_width) - 1)

    def msrs(self) -> dict[int, int]:
        """The capability MSRs that exist, by number."""
        return {
            number: int(getattr(self, name))
            for number, (name, needs) in MSRS.items()
            if needs is None
            or needs in self.features
            or (needs == "true" and self.basic.true_controls)
        }

    def check(self) -> list[str]:
        """Sentences on what contradicts itself (appendix A); none for a consistent processor."""
        return list(_contradictions(self))


MSRS: dict[int, tuple[str, str | None]] = {
    0x480: ("basic", None),
    0x481: ("pin", None),
    0x482: ("primary", None),
    0x483: ("exit", None),
    0x484: ("entry", None),
    0x485: ("misc", None),
    0x486: ("cr0_fixed0", None),
    0x487: ("cr0_fixed1", None),
    0x488: ("cr4_fixed0", None),
    0x489: ("cr4_fixed1", None),
    0x48A: ("vmcs_enum", None),
    0x48B: ("secondary", "primary.secondary_controls"),
    0x48C: ("ept_vpid", "secondary.ept"),
    0x48D: ("true_pin", "true"),
    0x48E: ("true_primary", "true"),
    0x48F: ("true_exit", "true"),
    0x490: ("true_entry", "true"),
    0x491: ("vm_functions", "secondary.vm_functions"),
    0x492: ("tertiary", "primary.tertiary_controls"),
    0x493: ("secondary_exit", "exit.secondary_exit_controls"),
}
"""MSR number to attribute, and the feature without which reading it is a #GP."""


def _contradictions(caps: VmxCapabilities) -> Iterator[str]:
    reserved: tuple[tuple[str, BitRecord], ...] = (
        ("BASIC", caps.basic),
        ("MISC", caps.misc),
        ("VMCS_ENUM", caps.vmcs_enum),
        ("EPT_VPID", caps.ept_vpid),
    )
    for name, record in reserved:
        if record & record.RESERVED:
            yield f"{name}: reserved bits {int(record & record.RESERVED):#x} are set"
    if not 1 <= caps.basic.size <= 4096:
        yield f"BASIC: a region of {caps.basic.size} bytes"
    if caps.basic.memory_type not in (0, 6):
        yield f"BASIC: memory type {caps.basic.memory_type}"
    for word, default in DEFAULT1.items():
        yield from _word_contradictions(caps, word, default)
    for name in ("cr0", "cr4"):
        fixed0, fixed1 = getattr(caps, f"{name}_fixed0"), getattr(caps, f"{name}_fixed1")
        if fixed0 & ~fixed1:
            yield f"{name.upper()}: {fixed0 & ~fixed1:#x} is fixed to 1 and to 0"
    if caps.vmcs_enum.highest_index < 0x15:
        yield f"VMCS_ENUM: highest index {caps.vmcs_enum.highest_index:#x}, 15h at least"
    if "secondary.unrestricted_guest" in caps.features and not caps.misc.store_lma:
        yield "MISC: unrestricted guest without storing EFER.LMA on exits"
    if caps.misc.cr3_targets > 256:
        yield f"MISC: {caps.misc.cr3_targets} CR3 targets, 256 at most"


def _word_contradictions(caps: VmxCapabilities, word: str, default: int) -> Iterator[str]:
    """A control word's MSR against default1 and its TRUE MSR (A.2)."""
    plain: ControlMsr = getattr(caps, word)
    true: ControlMsr = getattr(caps, f"true_{word}")
    if default & ~plain.must_be_1:
        yield f"{word}: must-be-1 bits lack {default & ~plain.must_be_1:#x} of default1"
    if plain.must_be_1 & ~plain.may_be_1:
        yield f"{word}: {plain.must_be_1 & ~plain.may_be_1:#x} must be 1 and may not"
    if caps.basic.true_controls:
        if plain.may_be_1 != true.may_be_1:
            yield f"{word}: may-be-1 bits differ between the MSR and its TRUE MSR"
        if plain.must_be_1 != true.must_be_1 | default:
            yield f"{word}: must-be-1 bits are not those of the TRUE MSR and default1"


def of_msrs(msrs: dict[int, int], **others: object) -> VmxCapabilities:
    """From MSR values by number, those missing 0; ``others`` as in :class:`VmxCapabilities`."""
    types: dict[str, type[int]] = {
        "basic": VmxBasic, "misc": VmxMisc, "vmcs_enum": VmcsEnum, "ept_vpid": EptVpid,
        **{f"{true}{word}": ControlMsr for true in ("", "true_") for word in DEFAULT1},
        "secondary": ControlMsr,
    }  # fmt: skip
    known = {each.name for each in fields(VmxCapabilities)}
    values: dict[str, object] = {
        name: types.get(name, int)(msrs.get(number, 0)) for number, (name, _) in MSRS.items()
    }
    for name, value in others.items():
        if name not in known:
            raise TypeError(f"no capability {name}")
        values[name] = value
    return VmxCapabilities(**values)  # type: ignore[arg-type]


def _basic(published: int) -> int:
    """A published IA32_VMX_BASIC with revision and size of the layout."""
    return VmxBasic(published).replace(revision=REVISION, size=4096)


_BROADWELL = {
    0x480: _basic(0x00DA_0400_0000_0012),
    0x481: 0x0000_007F_0000_0016,
    0x482: 0xFFF9_FFFE_0401_E172,
    0x483: 0x007F_FFFF_0003_6DFF,
    0x484: 0x0000_FFFF_0000_11FF,
    0x485: 0x3004_81E5,
    0x486: 0x8000_0021,
    0x487: 0xFFFF_FFFF,
    0x488: 0x0000_2000,
    0x489: 0x0037_67FF,
    0x48A: 0x2A,
    0x48B: 0x0005_7CFF_0000_0000,
    0x48C: 0x0000_0F01_0633_4141,
    0x48D: 0x0000_007F_0000_0016,
    0x48E: 0xFFF9_FFFE_0400_6172,
    0x48F: 0x007F_FFFF_0003_6DFB,
    0x490: 0x0000_FFFF_0000_11FB,
    0x491: 0x1,
}
_POSTED = _BROADWELL | {
    0x481: 0x0000_00FF_0000_0016,
    0x48B: 0x0007_7FFF_0000_0000,
    0x48D: 0x0000_00FF_0000_0016,
}
_KUT = _POSTED | {
    0x483: 0x007F_EFFF_0003_6DFF,
    0x484: 0x0000_DFFF_0000_11FF,
    0x489: 0x0037_27FF,
    0x48A: 0x54,
    0x48B: 0x0257_7FFF_0000_0000,
    0x48F: 0x007F_EFFF_0003_6DFB,
    0x490: 0x0000_DFFF_0000_11FB,
}
_WIDE = _POSTED | {
    0x482: 0xFFFB_FFFE_0401_E172,
    0x483: 0x53FF_FFFF_0003_6DFF,
    0x484: 0x0017_FFFF_0000_11FF,
    0x485: 0x7004_C1E7,
    0x489: 0x01F7_6FFF,
    0x48A: 0x2E,
    0x48B: 0xDFFF_FFFF_0000_0000,
    0x48C: 0x0000_0F01_06F3_41C1,
    0x48E: 0xFFFB_FFFE_0400_6172,
    0x48F: 0x53FF_FFFF_0003_6DFB,
    0x490: 0x0017_FFFF_0000_11FB,
    0x492: 0x1DF,
}
_COMMON = frozenset({"no_execute"})
VMX_PROFILES: dict[str, VmxCapabilities] = {
    # A client part, Broadwell-U i7-5600U: no posted interrupts, no virtual-interrupt delivery.
    "broadwell": of_msrs(_BROADWELL, physical_width=39, extra=_COMMON),
    # Composed, no dump of any part: the same with posted interrupts, APIC virtualization and PML.
    "broadwell-posted": of_msrs(_POSTED, physical_width=46, extra=_COMMON),
    # The machine on which the public acceptance tests ran: no NX, no PERF_GLOBAL_CTRL.
    "kut": of_msrs(_KUT, physical_width=40),
    # Composed: every control that is modelled, the widest addresses. For dumps of unknown machines.
    "everything": of_msrs(
        _WIDE, physical_width=52, linear_width=57, extra=_COMMON | {"rtm", "sgx"}
    ),
}
"""Ready-made processors."""
