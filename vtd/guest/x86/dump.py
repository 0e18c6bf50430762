"""VMCS dumps as KVM (dmesg) and Xen print them, back into fields.

Both print the same names in their own layouts; a table says which field each number is. Left out:
MSR lists, and what other hypervisors print.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from vtd.guest.x86.fields import BY_NAME

HEX = r"(?:0x)?([0-9a-fA-F]+)\b"


class DumpError(ValueError):
    """Text that is no VMCS dump, or not a whole one."""


class Dump(NamedTuple):
    """One dump."""

    line: int
    """Where its guest state begins, from 1."""
    values: dict[str, int]
    """Field values by name; fields that are not printed are missing."""


SECTIONS = {
    "*** Guest State ***": "guest",
    "*** Host State ***": "host",
    "*** Control State ***": "control",
}
_PREFIX = re.compile(
    r"^(?:.*?kernel: |<\d>|\(XEN\) ?|\[[^\]]*\] ?|kvm(?:_intel)?: |kvm \[\d+\]: )*"
)


def _pattern(text: str) -> re.Pattern[str]:
    """A line of a dump: ``#`` is a number, a space any white space, perhaps none around =."""
    escaped = re.escape(text).replace(r"\ =\ ", r"\s*=\s*").replace(r"\ ", r"\s*")
    return re.compile(escaped.replace(r"\#", HEX))


EFER = re.compile(r"\bEFER(?:\([^)]*\))?\s*=\s*" + HEX)
"""Xen says where it has the value from."""
_GUEST: list[tuple[re.Pattern[str], tuple[str, ...]]] = [
    (_pattern("CR0: actual=#, shadow=#, gh_mask=#"),
     ("guest_cr0", "cr0_read_shadow", "cr0_guest_host_mask")),
    (_pattern("CR4: actual=#, shadow=#, gh_mask=#"),
     ("guest_cr4", "cr4_read_shadow", "cr4_guest_host_mask")),
    (_pattern("CR3 = #"), ("guest_cr3",)),
    *((_pattern(f"{name}{n} = #"), (f"guest_pdpte{n}",))
      for n in range(4) for name in ("PDPTR", "PDPTE")),
    (re.compile(r"(?<!Sysenter )RSP\s*=\s*" + HEX), ("guest_rsp",)),
    (re.compile(r"(?<![A-Z:])RIP\s*=\s*" + HEX), ("guest_rip",)),
    (_pattern("RFLAGS=#"), ("guest_rflags",)),
    (_pattern("DR7 = #"), ("guest_dr7",)),
    (_pattern("Sysenter RSP=# CS:RIP=#:#"),
     ("guest_sysenter_esp", "guest_sysenter_cs", "guest_sysenter_eip")),
    (EFER, ("guest_efer",)),
    (_pattern("PAT = #"), ("guest_pat",)),
    (_pattern("DebugCtl = #"), ("guest_debugctl",)),
    (_pattern("DebugExceptions = #"), ("guest_pending_debug_exceptions",)),
    (_pattern("PerfGlobCtl = #"), ("guest_perf_global_ctrl",)),
    (_pattern("BndCfgS = #"), ("guest_bndcfgs",)),
    (_pattern("Interruptibility = #"), ("guest_interruptibility",)),
    (_pattern("ActivityState = #"), ("guest_activity",)),
    (_pattern("InterruptStatus = #"), ("guest_interrupt_status",)),
    (_pattern("S_CET = #"), ("guest_s_cet",)),
    (_pattern("SSP = #"), ("guest_ssp",)),
    (_pattern("SSP TABLE = #"), ("guest_ssp_table",)),
    *(
        (re.compile(rf"\b{name.upper()}:\s*(?:sel=)?{HEX},?\s+(?:attr=)?{HEX},?\s+"
                    rf"(?:limit=)?{HEX},?\s+(?:base=)?{HEX}"),
         tuple(f"guest_{name}_{part}" for part in ("selector", "access_rights", "limit", "base")))
        for name in ("cs", "ds", "ss", "es", "fs", "gs", "ldtr", "tr")
    ),
    *(
        (re.compile(rf"\b{name.upper()}:\s*(?:limit=)?{HEX},?\s+(?:base=)?{HEX}"),
         (f"guest_{name}_limit", f"guest_{name}_base"))
        for name in ("gdtr", "idtr")
    ),
]  # fmt: skip
_HOST: list[tuple[re.Pattern[str], tuple[str, ...]]] = [
    (re.compile(r"(?<![A-Z:])RIP\s*=\s*" + HEX), ("host_rip",)),
    (re.compile(r"(?<!Sysenter )RSP\s*=\s*" + HEX), ("host_rsp",)),
    *((re.compile(rf"\b{name.upper()}={HEX}"), (f"host_{name}_selector",))
      for name in ("cs", "ss", "ds", "es", "fs", "gs", "tr")),
    (_pattern("FSBase=# GSBase=# TRBase=#"), ("host_fs_base", "host_gs_base", "host_tr_base")),
    (_pattern("GDTBase=# IDTBase=#"), ("host_gdtr_base", "host_idtr_base")),
    (_pattern("CR0=# CR3=# CR4=#"), ("host_cr0", "host_cr3", "host_cr4")),
    (_pattern("Sysenter RSP=# CS:RIP=#:#"),
     ("host_sysenter_esp", "host_sysenter_cs", "host_sysenter_eip")),
    (EFER, ("host_efer",)),
    (_pattern("PAT = #"), ("host_pat",)),
    (_pattern("PerfGlobCtl = #"), ("host_perf_global_ctrl",)),
]  # fmt: skip
_CONTROL: list[tuple[re.Pattern[str], tuple[str, ...]]] = [
    (_pattern("PinBased=#"), ("pin_controls",)),
    (_pattern("CPUBased=#"), ("primary_controls",)),
    (_pattern("SecondaryExec=#"), ("secondary_controls",)),
    (_pattern("TertiaryExec=#"), ("tertiary_controls",)),
    (_pattern("EntryControls=#"), ("entry_controls",)),
    (_pattern("ExitControls=#"), ("exit_controls",)),
    (_pattern("ExceptionBitmap=#"), ("exception_bitmap",)),
    (_pattern("PFECmask=# PFECmatch=#"), ("page_fault_error_mask", "page_fault_error_match")),
    (_pattern("VMEntry: intr_info=# errcode=# ilen=#"),
     ("entry_interruption_info", "entry_exception_error_code", "entry_instruction_length")),
    (_pattern("VMExit: intr_info=# errcode=# ilen=#"),
     ("exit_interruption_info", "exit_interruption_error_code", "exit_instruction_length")),
    (_pattern("reason=# qualification=#"), ("exit_reason", "exit_qualification")),
    (_pattern("IDTVectoring: info=# errcode=#"),
     ("idt_vectoring_info", "idt_vectoring_error_code")),
    (_pattern("TSC Offset = #"), ("tsc_offset",)),
    (_pattern("TSC Multiplier = #"), ("tsc_multiplier",)),
    (_pattern("TPR Threshold = #"), ("tpr_threshold",)),
    (_pattern("APIC-access addr = #"), ("apic_access_address",)),
    (_pattern("virt-APIC addr = #"), ("virtual_apic_address",)),
    (_pattern("PostedIntrVec = #"), ("posted_interrupt_vector",)),
    (_pattern("EPT pointer = #"), ("eptp",)),
    (_pattern("EPTP index = #"), ("eptp_index",)),
    (_pattern("PLE Gap=# Window=#"), ("ple_gap", "ple_window")),
    (_pattern("Virtual processor ID = #"), ("vpid",)),
    (_pattern("VMfunc controls = #"), ("vm_function_controls",)),
]  # fmt: skip
_PATTERNS = {"guest": _GUEST, "host": _HOST, "control": _CONTROL}
NEEDED = {
    "guest": ("guest_cr0", "guest_cr3", "guest_cr4", "guest_rflags", "guest_cs_selector",
              "guest_tr_selector", "guest_activity"),
    "host": ("host_rip", "host_cs_selector", "host_cr0"),
    "control": ("pin_controls", "primary_controls", "entry_controls", "exit_controls",
                "entry_interruption_info", "exit_reason"),
}  # fmt: skip
"""What every dump prints; one without it is cut."""


def parse_dumps(text: str) -> list[Dump]:
    """The dumps in a log; DumpError if there is none, or one is cut."""
    dumps: list[Dump] = []
    for number, section, said in _sections(text):
        if section == "guest":
            dumps.append(Dump(number, {}))
        elif not dumps:
            raise DumpError(f"line {number}: {section} state without guest state: cut")
        dumps[-1].values.update(_values(section, said, number))
    if not dumps:
        vmcb = ("VMCB" in text and ": it has AMD's VMCB") or ""
        raise DumpError(f"no VMCS dump of KVM or Xen (no line {next(iter(SECTIONS))!r}){vmcb}")
    for dump in dumps:
        _whole(dump)
    return dumps


def _sections(text: str) -> Iterator[tuple[int, str, str]]:
    """Where each section begins, its name, and what it says in one line: a mail wraps lines."""
    begun: tuple[int, str, list[str]] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        said = _PREFIX.sub("", line.lstrip("> ")).strip()
        heading = next((name for mark, name in SECTIONS.items() if mark in said), None)
        if heading is None:
            if begun:
                begun[2].append(said)
            continue
        if begun:
            yield begun[0], begun[1], " ".join(begun[2])
        begun = number, heading, []
    if begun:
        yield begun[0], begun[1], " ".join(begun[2])


def _values(section: str, said: str, number: int) -> Iterator[tuple[str, int]]:
    for pattern, names in _PATTERNS[section]:
        match = pattern.search(said)
        if match is None:
            continue
        for name, digits in zip(names, match.groups(), strict=True):
            value = int(digits, 16)
            if value >> 8 * BY_NAME[name].size:
                raise DumpError(f"line {number}: {name}: {value:#x} is too wide")
            yield name, value


def _whole(dump: Dump) -> None:
    for section, names in NEEDED.items():
        missing = [name for name in names if name not in dump.values]
        if missing:
            raise DumpError(
                f"line {dump.line}: the dump is cut: its {section} state has no "
                + ", ".join(missing)
            )
