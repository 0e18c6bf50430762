"""What the lines of Linux about DMAR mean, apart from faults, and what to do about them."""

from __future__ import annotations

import re
from typing import NamedTuple


class Message(NamedTuple):
    """The meaning of one kind of line."""

    pattern: re.Pattern[str]
    weight: str
    """``problem``, ``notice`` or ``normal``."""
    meaning: str
    look_at: str = ""
    """What to do, empty if there is nothing to do."""


def _problem(pattern: str, meaning: str, look_at: str) -> Message:
    return Message(re.compile(pattern), "problem", meaning, look_at)


def _notice(pattern: str, meaning: str, look_at: str = "") -> Message:
    return Message(re.compile(pattern), "notice", meaning, look_at)


def _normal(pattern: str, meaning: str) -> Message:
    return Message(re.compile(pattern), "normal", meaning)


_FIRMWARE = "update the firmware; check the table with vtd dmar validate"

MESSAGES = (
    _problem(
        r"reported at address 0\b",
        "the table gives a unit register base 0 (rule DMAR-U01); Linux turns all remapping off",
        _FIRMWARE,
    ),
    _problem(
        r"returns all ones",
        "no unit answers at the address the table gives: the base is wrong, or firmware has "
        "switched the unit off (rule DMAR-K08); Linux turns all remapping off",
        "firmware setup: is VT-d on, were tables of another board reused; " + _FIRMWARE,
    ),
    _problem(
        r"No firmware reserved region can cover this RMRR",
        "the memory map does not reserve the region, so Linux may use the memory that devices of "
        "this RMRR write to (rule DMAR-K01); the region is used anyway",
        "vtd dmar rmrr --memory-map /proc/iomem; " + _FIRMWARE,
    ),
    _problem(
        r"bad RMRR",
        "the region is unaligned, empty or not reserved (rules DMAR-R01 to R03, K01); Linux keeps "
        "it and taints the kernel",
        _FIRMWARE,
    ),
    _problem(
        r"RMRR entry for device .* is broken",
        "the scope entry gives the device's own bus instead of the path from the root bus; Linux "
        "works around it",
        _FIRMWARE,
    ),
    _problem(
        r"ineligible for IOMMU domain attach due to platform RMRR",
        "the device needs reserved memory, so it can't be assigned to a virtual machine",
        "vtd dmar rmrr; the platform vendor, or firmware options that drop the RMRR",
    ),
    _problem(
        r"ANDD object name is not NUL-terminated",
        "a declared ACPI object has a broken name (rule DMAR-N01); remapping stays off",
        _FIRMWARE,
    ),
    _problem(
        r"Failed to find handle for ACPI object",
        "the table declares an ACPI device (ANDD) that the namespace does not have "
        "(rules DMAR-N03, K07)",
        _FIRMWARE,
    ),
    _problem(
        r"No IOMMU scope found for ANDD",
        "a declared ACPI device is under no unit, so its DMA is not remapped (rule DMAR-N05)",
        _FIRMWARE,
    ),
    _problem(
        r"IOMMU feature (\w+) inconsistent",
        "units differ in a feature, so Linux does without it for all of them",
        "CAP and ECAP of each unit in the lines with reg_base_addr",
    ),
    _problem(
        r"has no mapping iommu, interrupt remapping will be disabled",
        "an I/O APIC is listed by no unit (rules DMAR-U13, K02), so interrupts can't be remapped",
        _FIRMWARE,
    ),
    _problem(
        r"Record passes table end|Invalid 0-length structure",
        "a structure of the table has a wrong length (rules DMAR-S02, S04); remapping stays off",
        _FIRMWARE,
    ),
    _problem(r"Invalid DMAR haw", "the host address width is below 12 bits (rule H07)", _FIRMWARE),
    _problem(
        r"No DRHD structure found|No DMAR devices found",
        "the table has no usable remapping unit (rule DMAR-H12), or VT-d is off in firmware setup",
        "firmware setup: VT-d; " + _FIRMWARE,
    ),
    _problem(
        r"RHSA refers to non-existent DMAR unit",
        "an affinity structure names a register base that no unit has (rule DMAR-P01)",
        _FIRMWARE,
    ),
    _problem(
        r"Device scope type does not match|Unsupported device scope",
        "a scope entry names a device of another kind (rules DMAR-D06, K06); it is ignored",
        "vtd dmar validate --lspci; " + _FIRMWARE,
    ),
    _problem(
        r"[Cc]an't (?:reserve memory|map)|[Cc]an't validate DRHD",
        "the registers of a unit can't be used, for instance because two units overlap "
        "(rule DMAR-U07)",
        _FIRMWARE,
    ),
    _problem(
        r"(?:Your )?BIOS is broken|Firmware Bug|BIOS assigned incorrect VT-d unit",
        "Linux found something wrong in the table, named in the line",
        _FIRMWARE,
    ),
    _problem(
        r"Invalidation Queue Error|Invalidation Time-?out|Invalidation Completion Error|"
        r"QI HEAD|VT-d detected",
        "the unit stopped at an invalidation: a bad descriptor, or a device that did not answer "
        "for its translation cache (ATS)",
        "the device named by SID; lspci -vvv, capability ATS; whether it hangs or was removed",
    ),
    _problem(
        r"DMAR hardware is malfunctioning",
        "a unit did not finish a command in time",
        "power management of the device behind, firmware updates",
    ),
    _problem(
        r"DMA PTE for vPFN .* already set",
        "the kernel mapped an address that was mapped already: a bug of a driver or of the kernel",
        "kernel version; the driver of the device",
    ),
    _problem(
        r"chipset that contains an erratum",
        "interrupt remapping of this chipset (5500, 5520, X58) has an erratum; Linux turns it off",
        "firmware updates that turn interrupt remapping off themselves",
    ),
    _problem(
        r"Failed to enable (?:irq|IRQ|interrupt) ?remapping|vulnerable to irq-injection",
        "interrupt remapping is off, so devices can raise any interrupt",
        "earlier DMAR-IR lines tell why",
    ),
    _notice(
        r"x2apic.*opt[ _-]?out|opt[ _-]?out.*x2apic",
        "firmware asks to leave x2APIC off (flag X2APIC_OPT_OUT of the table)",
        "intremap=no_x2apic_optout overrides it, where firmware copes",
    ),
    _notice(
        r"doesn't support X2APIC|does not support EIM|IRQ remapping in xapic mode",
        "interrupts are remapped in xAPIC mode: a unit lacks ECAP.EIM, or firmware opted out",
    ),
    _notice(
        r"enabled for dmar\d+ but we are not in kdump mode|enabled on dmar\d+ but we are not",
        "remapping was on already when the kernel started (firmware, kexec); Linux starts anew",
    ),
    _notice(
        r"Copied translation tables|IRQ remapping was enabled on",
        "a kdump or kexec kernel took over the tables of the kernel before it",
    ),
    _notice(
        r"callbacks suppressed", "more faults happened than the log shows: lines were left out"
    ),
    _notice(
        r"Disabling IOMMU for graphics|BIOS has allocated no shadow GTT|"
        r"Forcing write-buffer flush|Recommended TLB entries for ISOCH",
        "Linux works around a known fault of this chipset",
    ),
    _notice(
        r"force enabled due to platform opt in",
        "the table sets DMA_CTRL_PLATFORM_OPT_IN, so remapping is on for untrusted devices",
    ),
    _notice(
        r"[Uu]nknown DMAR structure|[Uu]nknown.*structure type",
        "the table has a structure of a type this kernel does not know (rule DMAR-S07)",
    ),
    _notice(
        r"Setting identity map|Setting RMRR",
        "reserved memory of a device is mapped one to one",
    ),
    _notice(
        r"page table not present at level|PTE not present at level|"
        r"(?:context|root|pasid \w+) (?:table )?entry is not present",
        "the dump after a fault: tables end here, so the address was not mapped at this level",
    ),
    _normal(
        r"Dump \w+ table entries|root entry:|context entry:|scalable mode (?:root|context)|"
        r"pasid (?:dir|table) entry|pte level:|page table entry",
        "the dump after a fault: table entries for its address, from the root on",
    ),
    _normal(r"handling fault status reg", "the unit reports faults; bits of FSTS_REG"),
    _normal(r"Host address width", "address bits of the platform, from the table"),
    _normal(r"DRHD base:", "a remapping unit of the table"),
    _normal(r"RMRR base:", "a reserved memory region of the table"),
    _normal(r"ATSR flags:", "root ports with ATS, from the table"),
    _normal(r"SATC flags:", "integrated devices with translation caches, from the table"),
    _normal(r"RHSA base:", "affinity of a unit to a memory node, from the table"),
    _normal(r"ANDD device:", "an ACPI device declared by the table"),
    _normal(r"reg_base_addr .* cap .* ecap", "a unit answers; its capability registers"),
    _normal(r"No (?:RMRR|ATSR|SATC) found", "the table has no such structure; it need not"),
    _normal(r"under DRHD base", "an I/O APIC or HPET is under this unit, as the table lists it"),
    _normal(r"Enabled IRQ remapping in x2apic mode", "interrupt remapping is on, x2APIC mode"),
    _normal(r"IOMMU (?:enabled|disabled)", "the kernel command line or default decided this"),
    _normal(r"Using (?:Queued|Register based) invalidation", "how caches are invalidated"),
    _normal(r"Intel\(R\) Virtualization Technology for Directed I/O", "remapping is in use"),
    _normal(r"Enable scalable mode", "scalable mode was asked for"),
    _normal(r"Queued invalidation will be enabled", "interrupt remapping needs it"),
    _normal(r"ACPI: (?:Reserving )?DMAR|ACPI: DMAR", "where the table is, and who made it"),
)
"""The kinds of lines; the first pattern that is found counts."""

FAULT_STATUS = {
    0: "records overflowed, faults were lost",
    1: "a fault record is pending",
    4: "the invalidation queue met an error",
    5: "an invalidation completion was wrong",
    6: "an invalidation timed out",
    7: "the page request queue overflowed",
}
"""Bits of FSTS_REG (11.4.9)."""

_STATUS = re.compile(r"handling fault status reg ([0-9a-f]+)", re.ASCII)


def meaning_of(text: str) -> Message | None:
    """The meaning of a line, None if it is not known."""
    for message in MESSAGES:
        if message.pattern.search(text):
            status = _STATUS.search(text)
            return message._replace(meaning=_status(int(status[1], 16))) if status else message
    return None


def _status(value: int) -> str:
    bits = [words for bit, words in FAULT_STATUS.items() if value >> bit & 1]
    return f"the unit reports: {'; '.join(bits) or 'nothing'}"
