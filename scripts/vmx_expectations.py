"""Result lines of public VMX acceptance tests against the model: suite, lines, passed, left out.

    python -m scripts.vmx_expectations LINES [--cases FILE] [--format json]

A line is the suite, a tab, and what kvm-unit-tests print for a check that passed. Each is turned
into a case of :mod:`scripts.vmx_cases`, or left out with a reason; ``--cases`` keeps those cases,
each once. Exit code 0: all that were not left out pass.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.vmx_cases import BASE, VIRTUAL_APIC, Case, carry_out

OPERANDS = "faults of memory operands are not modelled: instructions get their operands as values"
REWRITTEN = "the test overwrites this field right before the entry: the value printed is not in it"
OTHER = "nobody has said how to read this line"

PIN, PRIMARY, SECONDARY = "pin_controls", "primary_controls", "secondary_controls"
EXIT, ENTRY = "exit_controls", "entry_controls"
LOWEST = {PIN: 0x16, PRIMARY: 0x0400_6172, SECONDARY: 0}
"""The bits of each word that must be 1."""
WORDS = {"pin-based": PIN, "primary processor-based": PRIMARY,
         "secondary processor-based": SECONDARY}  # fmt: skip
MAX_ADDRESS = 1 << 40


class LeftOut(Exception):  # noqa: N818 - it is no error
    """A line that the model has no case for; the message is the reason."""


class Fields:
    """Field values of an entry case, starting from the ordinary guest without secondary controls.

    The suites begin with RFLAGS 0 where only the controls and the host state are looked at.
    """

    def __init__(self, **values: int) -> None:
        self.values = values

    def __getitem__(self, name: str) -> int:
        return self.values.get(name, BASE[name])

    def put(self, **values: int) -> None:
        """Set fields."""
        self.values.update(values)

    def bit(self, field: str, bit: int, value: bool = True) -> None:
        """Change one bit of a field; a bit of the secondary word activates it."""
        self.values[field] = self[field] & ~(1 << bit) | (1 << bit if value else 0)

    def json(self) -> dict[str, str]:
        """For a case."""
        return {name: hex(value) for name, value in self.values.items()}


def entry_case(suite: str, fields: Fields, expect: object, **others: object) -> Case:
    """An entry case."""
    return {"suite": suite, "kind": "entry", "fields": fields.json(), "expect": expect, **others}


OUTCOME = re.compile(
    r": (vmlaunch succeeds|vmlaunch fails|VMX inst error is (\d+)(?: or (\d+))? \(actual \d+\))$"
)


def outcome(text: str) -> tuple[str, object]:
    """What precedes the outcome of an entry, and the outcome as a case has it."""
    match = OUTCOME.search(text)
    if match is None:
        raise LeftOut(OTHER)
    if match[1] == "vmlaunch succeeds":
        expect: object = "passes"
    elif match[2]:
        expect = [int(number) for number in (match[2], match[3]) if number]
    else:
        expect = "fails"
    return text[: match.start()], expect


Reader = Callable[["re.Match[str]", Fields, object], None]
CONTROLS: list[tuple[re.Pattern[str], Reader]] = []


def control(pattern: str) -> Callable[[Reader], Reader]:
    """A decorator: how a line of the control suite changes the fields."""

    def added(reader: Reader) -> Reader:
        CONTROLS.append((re.compile(pattern + "$"), reader))
        return reader

    return added


@control(r"(Set|Clear) (.*) controls bit (\d+)")
def _(m: re.Match[str], f: Fields, _: object) -> None:
    word, bit = WORDS[m[2]], 1 << int(m[3])
    f.values[word] = LOWEST[word] | bit if m[1] == "Set" else LOWEST[word] & ~bit


@control(r"CR3 target count (\w+)")
def _(m: re.Match[str], f: Fields, _: object) -> None:
    f.put(cr3_target_count=int(m[1], 16))


ADDRESSES: dict[str, tuple[str, str, int]] = {
    "Use I/O bitmaps:I/O bitmap A": ("io_bitmap_a", PRIMARY, 25),
    "Use I/O bitmaps:I/O bitmap B": ("io_bitmap_b", PRIMARY, 25),
    "Use MSR bitmaps:MSR bitmap": ("msr_bitmap", PRIMARY, 28),
    "Use TPR shadow:virtual-APIC address": ("virtual_apic_address", PRIMARY, 21),
    "virtualize APIC-accesses:APIC-access address": ("apic_access_address", SECONDARY, 0),
    "PML:PML address": ("pml_address", SECONDARY, 17),
}


@control(
    r"(Use I/O bitmaps|Use MSR bitmaps|Use TPR shadow|virtualize APIC-accesses|PML) "
    r"(enabled|disabled): (.*) = (\w+)"
)
def _(m: re.Match[str], f: Fields, _: object) -> None:
    field, word, bit = ADDRESSES[f"{m[1]}:{m[3]}"]
    if field == "pml_address":
        f.bit(SECONDARY, 1)  # EPT
    f.bit(word, bit, m[2] == "enabled")
    f.values[field] = int(m[4], 16)


@control(
    r"Use TPR shadow (\w+), virtualize x2APIC mode (\w+), APIC-register virtualization (\w+), "
    r"virtual-interrupt delivery (\w+)"
)
def _(m: re.Match[str], f: Fields, _: object) -> None:
    for number, (word, bit) in enumerate(
        ((PRIMARY, 21), (SECONDARY, 4), (SECONDARY, 8), (SECONDARY, 9)), 1
    ):
        f.bit(word, bit, m[number] == "enabled")


@control(r"Virtualize x2APIC mode (\w+); virtualize APIC access (\w+)")
def _(m: re.Match[str], f: Fields, _: object) -> None:
    # What the test sets is not what it prints: TPR shadow is off, so both x2APIC cases fail, and
    # "enabled; disabled" is neither.
    both = (m[1], m[2])
    f.bit(SECONDARY, 0, both == ("disabled", "enabled"))
    f.bit(SECONDARY, 4, both == ("enabled", "enabled"))


@control(r"Virtualize interrupt-delivery (\w+); external-interrupt exiting (\w+)")
def _(m: re.Match[str], f: Fields, _: object) -> None:
    f.bit(PRIMARY, 21)
    f.bit(SECONDARY, 9, m[1] == "enabled")
    f.bit(PIN, 0, m[2] == "enabled")


def _posted(f: Fields) -> None:
    f.bit(PRIMARY, 21)
    f.bit(PIN, 7)
    f.bit(SECONDARY, 9)
    f.bit(EXIT, 15)


@control(
    r"Process-posted-interrupts enabled; virtual-interrupt-delivery (\w+)"
    r"(?:; acknowledge-interrupt-on-exit (\w+))?"
)
def _(m: re.Match[str], f: Fields, _: object) -> None:
    _posted(f)
    f.bit(SECONDARY, 9, m[1] == "enabled")
    f.bit(EXIT, 15, m[2] == "enabled")


@control(r"Process-posted-interrupts enabled; posted-interrupt-notification-vector (\d+)")
def _(m: re.Match[str], f: Fields, _: object) -> None:
    _posted(f)
    f.put(posted_interrupt_vector=int(m[1]))


@control(
    r"Process-posted-interrupts enabled; posted-interrupt-descriptor-address (\w+)"
    r"|process-posted interrupts = (\w+)"
)
def _(m: re.Match[str], f: Fields, _: object) -> None:
    _posted(f)
    f.put(posted_interrupt_descriptor_address=int(m[1] or m[2], 16))


@control(r"VPID (enabled|disabled); VPID value (\w+)")
def _(m: re.Match[str], f: Fields, _: object) -> None:
    f.bit(SECONDARY, 5, m[1] == "enabled")
    f.put(vpid=int(m[2], 16))


@control(
    r"Use TPR shadow (\w+)[,;] secondary controls (\w+)(?:; virtual-interrupt delivery \w+; "
    r"virtualize APIC accesses (\w+))?: TPR threshold (\w+), VTPR.class (\w+)"
)
def _(m: re.Match[str], f: Fields, expect: object) -> None:
    f.bit(PRIMARY, 21, m[1] == "enabled")
    f.bit(PRIMARY, 31, m[2] == "enabled")
    secondary = 0
    if m[3] == "disabled":
        secondary = 1 << 9
    elif m[3] == "enabled":
        # The test prints the same with and without virtual-interrupt delivery.
        secondary = 1 if expect != "passes" else 1 | 1 << 9
    f.put(
        secondary_controls=secondary, tpr_threshold=int(m[4], 16), virtual_apic_address=VIRTUAL_APIC
    )
    f.values["vtpr"] = int(m[5], 16) << 4


@control(r"NMI-exiting (\w+), virtual-NMIs (\w+)")
def _(m: re.Match[str], f: Fields, _: object) -> None:
    f.bit(PIN, 3, m[1] == "enabled")
    f.bit(PIN, 5, m[2] == "enabled")


@control(r"Virtual-NMIs (\w+), NMI-window-exiting (\w+)")
def _(m: re.Match[str], f: Fields, _: object) -> None:
    f.bit(PIN, 5, m[1] == "enabled")
    f.bit(PIN, 3, m[1] == "enabled")
    f.bit(PRIMARY, 22, m[2] == "enabled")


@control(r"[Ee]nable-PML (\w+), enable[- ]EPT (\w+)")
def _(m: re.Match[str], f: Fields, _: object) -> None:
    f.bit(SECONDARY, 17, m[1] == "enabled")
    f.bit(SECONDARY, 1, m[2] == "enabled")


@control(r"Enable-EPT (\w+), unrestricted-guest (\w+)")
def _(m: re.Match[str], f: Fields, _: object) -> None:
    f.bit(SECONDARY, 1, m[1] == "enabled")
    f.bit(SECONDARY, 7, m[2] == "enabled")


@control(r"MBEC (\w+), EPT (\w+) \(.*\)")
def _(m: re.Match[str], f: Fields, _: object) -> None:
    f.bit(SECONDARY, 22, m[1] == "enabled")
    f.bit(SECONDARY, 1, m[2] == "enabled")


@control(
    r"Enable-EPT enabled; (EPT memory type|EPT page walk length|EPT accessed and dirty flag|"
    r"reserved bits \[11:7\]|reserved bits \[63:N\]) (\d+)"
)
def _(m: re.Match[str], f: Fields, _: object) -> None:
    f.bit(SECONDARY, 1)
    value = int(m[2])
    eptp = {
        "EPT memory type": 0x1018 | value,
        "EPT page walk length": 0x1006 | value,
        "EPT accessed and dirty flag": 0x101E | value << 6,
        "reserved bits [11:7]": 0x101E | value << 7,
        "reserved bits [63:N]": 0x101E | value << 40,
    }[m[1]]
    f.put(eptp=eptp)


@control(r"enable-VMX-preemption-timer (\w+), save-VMX-preemption-timer (\w+)")
def _(m: re.Match[str], f: Fields, _: object) -> None:
    f.bit(PIN, 6, m[1] == "enabled")
    f.bit(EXIT, 22, m[2] == "enabled")


AREAS = {"VM-entry": "entry_msr_load", "VM-exit": "exit_msr_store"}


@control(r"(VM-entry|VM-exit) MSR-(?:load|store) addr \[4:0\] (\w+)")
def _(m: re.Match[str], f: Fields, _: object) -> None:
    f.values[f"{AREAS[m[1]]}_count"] = 1
    f.values[f"{AREAS[m[1]]}_address"] = 0x10_0000 | int(m[2], 16)


@control(r"(VM-entry|VM-exit)-MSR-(?:load|store) address = (\w+)")
def _(m: re.Match[str], f: Fields, _: object) -> None:
    f.values[f"{AREAS[m[1]]}_count"] = 1
    f.values[f"{AREAS[m[1]]}_address"] = int(m[2], 16)


@control(r"invalid event injection: (?P<what>.*)")
def _(m: re.Match[str], f: Fields, expect: object) -> None:
    what = m["what"]
    info = re.search(r"intr info=(\w+)", what)
    assert info is not None, what
    f.put(entry_interruption_info=int(info[1], 16), entry_instruction_length=1)
    if code := re.search(r"intr error=(\w+)", what):
        f.put(entry_exception_error_code=int(code[1], 16))
    if length := re.search(r"intr length = (\w+)", what):
        f.put(entry_instruction_length=int(length[1], 16))
    if "(!URG || prot_mode)" in what:
        # [-] with an error code: unrestricted and unprotected; otherwise protected, or restricted.
        if expect != "passes" and int(info[1], 16) & 0x800:
            f.bit(SECONDARY, 1)
            f.bit(SECONDARY, 7)
        if int(info[1], 16) & 0x800:
            f.put(guest_cr0=BASE.guest_cr0 & ~0x8000_0001)


def read_controls(suite: str, text: str) -> Case:
    """A line of the control suite."""
    fields = Fields(guest_rflags=0)
    if text == "4-level EPT support check":
        return {"suite": suite, "kind": "basic", "name": "ept of 4 levels"}
    if text == "Secondary processor-based controls ignored":
        fields.bit(PRIMARY, 31, value=False)
        fields.put(secondary_controls=0xFFFF_FFFF)
        return entry_case(suite, fields, "passes")
    if text in ("vmlaunch succeeds", "vmlaunch fails") or text.startswith("VMX inst error"):
        # The end of an MSR area: two entries that end at, or beyond, the highest address.
        good = text == "vmlaunch succeeds"
        fields.put(
            entry_msr_load_count=2, entry_msr_load_address=MAX_ADDRESS - (32 if good else 16)
        )
        return entry_case(suite, fields, "passes" if good else [7])
    head, expect = outcome(text)
    for pattern, reader in CONTROLS:
        match = pattern.match(head)
        if match is not None:
            reader(match, fields, expect)
            memory = {}
            vtpr = fields.values.pop("vtpr", None)
            if vtpr is not None:
                memory = {hex(VIRTUAL_APIC + 0x80): f"{vtpr:02x}"}
            expect = [7] if expect == "fails" else expect
            return entry_case(suite, fields, expect, memory=memory)
    raise LeftOut(OTHER)


HOST_FIELDS = {
    "HOST_SYSENTER_ESP": "host_sysenter_esp", "HOST_SYSENTER_EIP": "host_sysenter_eip",
    "HOST_CR0": "host_cr0", "HOST_CR3": "host_cr3", "HOST_CR4": "host_cr4",
    **{f"HOST_BASE_{name.upper()}": f"host_{name}_base"
       for name in ("fs", "gs", "tr", "gdtr", "idtr")},
    **{f"HOST_SEL_{name.upper()}": f"host_{name}_selector"
       for name in ("es", "cs", "ss", "ds", "fs", "gs", "tr")},
}  # fmt: skip
EFER_BITS = {"EFER_LMA": 10, "EFER_LME": 8}


def read_host(suite: str, text: str) -> Case:
    """A line of the host-state suite."""
    fields = Fields(guest_rflags=0)
    if match := re.match(r"HOST_PAT (\w+): Expected PAT = (\w+), got", text):
        fields.put(host_pat=int(match[1], 16))
        fields.bit(EXIT, 19)
        return entry_case(suite, fields, "passes")
    head, expect = outcome(text)
    if match := re.match(r"(HOST_\w+) ([0-9a-f]+)$", head):
        _host_value(fields, match[1], int(match[2], 16), loads=expect != "passes")
    elif match := re.match(r"HOST_EFER (\w+) bit turned (on|off), controls (on|off)", head):
        # The same text for "load IA32_EFER" and for "host address-space size": the first enters
        # with controls off, the second never does.
        fields.bit("host_efer", EFER_BITS[match[1]], match[2] == "on")
        if match[3] == "off" and expect != "passes":
            fields.bit(EXIT, 9, value=False)
        else:
            fields.bit(EXIT, 21, match[3] == "on")
    elif head in HOST_BITS:
        fields.bit(*HOST_BITS[head])
    else:
        raise LeftOut(OTHER)
    expect = [8] if expect == "fails" and "HOST_EFER" not in head else expect
    return entry_case(suite, fields, expect)


HOST_BITS: dict[str, tuple[str, int, bool]] = {
    '"IA-32e mode guest" enabled': (ENTRY, 9, True),
    "restore host state": (ENTRY, 9, True),
    '"CR4.PCIDE" set': ("host_cr4", 17, True),
    '"CR4.PAE" unset': ("host_cr4", 5, False),
}


def _host_value(fields: Fields, name: str, value: int, *, loads: bool) -> None:
    """A host field with a value; ``loads``: the control that loads it is 1, as it has to fail."""
    if name == "HOST_RIP":
        raise LeftOut(REWRITTEN)
    if name == "HOST_PAT":
        fields.put(host_pat=value)
        fields.bit(EXIT, 19, loads)
    elif name == "HOST_EFER":
        fields.put(host_efer=value)
        fields.bit(EXIT, 21, loads or value == 0x500)
    elif name == "HOST_CR4" and value == 0x2000:
        fields.put(host_cr4=0x2020)  # the test writes it with PAE
    else:
        fields.put(**{HOST_FIELDS[name]: value})


def read_guest(suite: str, text: str) -> Case:
    """A line of the guest-state suite; it does not say what is expected, the value does."""
    fields = Fields()
    if match := re.match(r"ENT_LOAD_DBGCTLS (\w+), GUEST_DR7 = (\w+)", text):
        value = int(match[2], 16)
        fields.bit(ENTRY, 2, match[1] == "enabled")
        fields.put(guest_dr7=value)
        bad = match[1] == "enabled" and value >> 32
    elif match := re.match(r"ENT_LOAD_PAT (\w+), GUEST_PAT = (\w+)", text):
        value = int(match[2], 16)
        fields.bit(ENTRY, 14, match[1] == "enabled")
        fields.put(guest_pat=value)
        bad = match[1] == "enabled" and any(
            each in (2, 3) or each >= 8 for each in value.to_bytes(8, "little")
        )
    elif match := re.match(r"GUEST_EFER (EFER_\w+) bit turned (on|off), controls (on|off)", text):
        fields.bit("guest_efer", EFER_BITS[match[1]], match[2] == "on")
        fields.bit(ENTRY, 15, match[3] == "on")
        bad = match[2] == "off" and match[3] == "on"
    elif match := re.match(r"GUEST_EFER (\w+): EFER test", text):
        value = int(match[1], 16)
        fields.put(guest_efer=value)
        bad = value != 0x500
    elif match := re.match(r"([GI])DT\.limit > 0xffff, GUEST_LIMIT_([GI]DTR) = (\w+)", text):
        fields.put(**{f"guest_{match[2].lower()}_limit": int(match[3], 16)})
        bad = True
    elif match := re.match(r"Test (non-)?canonical address, GUEST_(?:BASE_)?(\w+) = (\w+)", text):
        name = match[2].lower()
        field = f"guest_{name}_base" if name in ("gdtr", "idtr") else f"guest_{name}"
        fields.put(**{field: int(match[3], 16)})
        bad = bool(match[1])
    elif match := re.match(r"(Valid|Invalid): (.*) segment, GUEST_SEL_(\w+) = (\w+)", text):
        return _selector_case(suite, fields, match)
    elif match := re.match(r"seg\.BASE.*usable = ([01]), GUEST_BASE_(\w+) = (\w+)", text):
        name = match[2].lower()
        fields.put(**{f"guest_{name}_base": int(match[3], 16)})
        if name not in ("cs", "tr", "fs", "gs"):
            fields.bit(f"guest_{name}_access_rights", 16, match[1] == "0")
        bad = match[1] == "1"
    else:
        raise LeftOut(OTHER)
    return entry_case(suite, fields, "guest" if bad else "enters")


def _selector_case(suite: str, fields: Fields, match: re.Match[str]) -> Case:
    """Selectors: the text is the same for usable and unusable registers."""
    valid, name, value = match[1] == "Valid", match[3].lower(), int(match[4], 16)
    fields.put(**{f"guest_{name}_selector": value})
    if name == "ldtr":
        fields.bit("guest_ldtr_access_rights", 16, valid and bool(value & 4))
    if name == "ss" and valid and value & 3:
        fields.bit(SECONDARY, 1)
        fields.bit(SECONDARY, 7)  # unrestricted
    return entry_case(suite, fields, "enters" if valid else "guest")


def read_invvpid(suite: str, text: str) -> Case:
    """A line of the INVVPID suite."""
    if match := re.match(r"INVVPID type (-?\d+) VPID (\w+) GLA (\w+) (passes|fails)", text):
        return {
            "suite": suite, "kind": "invvpid", "type": int(match[1]),
            "descriptor": hex(int(match[2], 16)), "address": hex(int(match[3], 16)),
            "expect": match[4],
        }  # fmt: skip
    if text == "Compatibility mode INVVPID raises #UD":
        return {"suite": suite, "kind": "invvpid mode", "mode": "compatibility"}
    if text == "INVVPID outside of VMX operation raises #UD":
        return {"suite": suite, "kind": "invvpid mode", "mode": "off"}
    if match := re.match(r"After (failed|successful) INVVPID, VMX_INST_ERR is (\d+)", text):
        return {"suite": suite, "kind": "basic", "name": f"invvpid {match[1]} {match[2]}"}
    raise LeftOut(OPERANDS)


def read_shadow(suite: str, text: str) -> Case:
    """A line of the VMCS-shadowing suite."""
    match = re.match(
        r"(valid|invalid) link pointer: field (\w+): (no VMREAD/VMWRITE|VMREAD and VMWRITE|VMREAD|"
        r"VMWRITE) permission(?: only)?: (.*)", text,
    )  # fmt: skip
    if match is None:
        raise LeftOut(OTHER)
    permissions, what = match[3], match[4]
    case: Case = {
        "suite": suite, "kind": "shadow", "link": match[1] == "valid",
        "field": hex(int(match[2], 16)), "value": None,
        "read": permissions in ("VMREAD", "VMREAD and VMWRITE"),
        "write": permissions in ("VMWRITE", "VMREAD and VMWRITE"),
    }  # fmt: skip
    magic = hex(0x1234_5678 + int(match[2], 16) & 0xFFFF)
    expect: Case
    if found := re.match(r"(not )?shadowed for (VMREAD|VMWRITE)", what):
        access, expect = found[2], {"exits": bool(found[1])}
    elif found := re.match(r"ALU flags after (VMREAD|VMWRITE) \((\w+)\)", what):
        access, expect = found[1], {"flags": found[2]}
    elif found := re.match(r"VMX_INST_ERROR \((\d+)\)", what):
        access = "VMREAD" if permissions == "VMREAD" else "VMWRITE"
        expect = {"error": int(found[1])}
    elif found := re.match(r"shadow VMCS value \((\w+)\)", what):
        access, expect, case["value"] = "VMWRITE", {"value": found[1]}, magic
    elif found := re.match(r"value read from shadow \((\w+)\)", what):
        access, expect = "VMREAD", {"value": found[1]}
        case["value"] = found[1]
    else:
        raise LeftOut(OTHER)
    return case | {"access": "read" if access == "VMREAD" else "write", "expect": expect}


READABLE = {0x20, 0x30, 0x80, 0xB0, *range(0xD0, 0x280, 0x10), 0x280, 0x300, 0x310,
            *range(0x320, 0x390, 0x10), 0x3E0}  # fmt: skip


def read_apic(suite: str, text: str) -> Case:
    """A line of the APIC-register suite; modes are those in which the test can print it."""
    match = re.match(r"xapic - (reading|writing \w+ to) (\w+): (.*)", text)
    if match is None:
        raise LeftOut(OTHER)
    access, offset, what = match[1].split()[0], int(match[2], 16), match[3]
    case: Case = {
        "suite": suite,
        "kind": "apic",
        "access": "read" if access == "reading" else "write",
        "offset": hex(offset),
        "result": "",
    }
    if what.startswith("got APIC access exit"):
        modes = ["accesses"] + (["accesses and shadow"] if offset != 0x80 else [])
        return case | {"modes": modes, "expect": "exit"}
    if found := re.match(r"read (\w+), expected (\w+)", what):
        modes = ["none"] if found[1] == "0x12345678" else []
        modes += ["registers"] if offset in READABLE else []
        modes += ["accesses and shadow"] if offset == 0x80 else []
        if not modes:
            raise LeftOut("no configuration of the test reads this")
        return case | {"modes": modes, "expect": found[1]}
    if found := re.match(r"non-virtualized write; val is (\w+)", what):
        return case | {"modes": ["none"], "expect": found[1]}
    if found := re.match(r"got APIC write exit @ page offset \w+; val is (\w+)", what):
        return case | {"modes": ["registers"], "expect": found[1], "result": "write exit"}
    if found := re.match(r"exitless write; val is (\w+)", what):
        modes = ["registers"] + (["accesses and shadow"] if offset == 0x80 else [])
        return case | {"modes": modes, "expect": found[1]}
    raise LeftOut(OTHER)


def read_x2apic(suite: str, text: str) -> Case:
    """A line of the x2APIC suite, all of whose lines are of its first configuration."""
    match = re.match(r"x2apic - (reading|writing (\w+) to) (\w+): (.*)", text)
    if match is None:
        raise LeftOut(OTHER)
    case: Case = {"suite": suite, "kind": "x2apic", "offset": match[3]}
    if match[1] == "reading":
        found = re.match(r"APIC read; got (\w+)", match[4])
        if found is None:
            raise LeftOut(OTHER)
        return case | {"access": "read", "expect": found[1]}
    case |= {"access": "write", "value": match[2]}
    if match[4] == "x2APIC op triggered GP.":
        return case | {"expect": "gp"}
    if found := re.match(r"x2APIC write; got (\w+)", match[4]):
        return case | {"expect": found[1]}
    if found := re.match(r"non-virtualized write; val is (\w+)", match[4]):
        return case | {"expect": found[1], "processors": True}
    if match[4].startswith("got APIC write exit"):
        return case | {"expect": match[2], "exits": True}
    raise LeftOut(OTHER)


def read_delivery(suite: str, text: str) -> Case:
    """A line of the suites on virtual-interrupt delivery."""
    if match := re.match(r"TPR 0-255 for vector (\w+)\.", text):
        return {"suite": suite, "kind": "task priority", "vector": match[1]}
    if match := re.match(r"Low priority nrs (\w+)-(\w+) for nr (\w+)(, with)?", text):
        return {"suite": suite, "kind": "eoi", "lowest": match[1], "vector": match[3],
                "exits": bool(match[4])}  # fmt: skip
    if text.startswith("Set ISR for vectors"):
        return {"suite": suite, "kind": "in service"}
    raise LeftOut(OTHER)


BASICS = {
    "test vmxon with unaligned vmxon region": "vmxon unaligned",
    "test vmxon with bits set beyond physical address width": "vmxon too high",
    "test vmxon with invalid revision identifier": "vmxon revision",
    "test vmxon with valid vmxon region": "vmxon",
    "test vmclear with unaligned vmcs": "vmclear unaligned",
    "test vmclear with vmcs address bits set beyond physical address width": "vmclear too high",
    "test vmclear with vmxon region": "vmclear vmxon",
    "test vmclear with valid vmcs region": "vmclear",
    "test vmptrld with unaligned vmcs": "vmptrld unaligned",
    "test vmptrld with vmcs address bits set beyond physical address width": "vmptrld too high",
    "test vmptrld with vmxon region": "vmptrld vmxon",
    "test vmptrld with vmxon region vm-instruction error": "vmptrld vmxon error",
    "test vmptrld with invalid revision identifier": "vmptrld revision",
    "test vmptrld with valid vmcs region": "vmptrld",
    "test vmxon with FEATURE_CONTROL cleared": "feature control cleared",
    "test vmxon without FEATURE_CONTROL lock": "feature control unlocked",
    "test FEATURE_CONTROL lock bit": "feature control locked",
    "test enable VMX in FEATURE_CONTROL": "feature control",
    "test vmptrst": "vmptrst",
    "test vmxoff": "vmxoff",
    "VMREAD TSC_OFFSET after VMWRITE TSC_OFFSET": "tsc offset 0 0",
    "VMREAD TSC_OFFSET_HI after VMWRITE TSC_OFFSET": "tsc offset 1 0",
    "VMREAD TSC_OFFSET_HI after VMWRITE TSC_OFFSET_HI": "tsc offset 1 1",
    "VMREAD TSC_OFFSET after VMWRITE TSC_OFFSET_HI": "tsc offset 0 1",
}


def read_basic(suite: str, text: str) -> Case:
    """A line on single instructions."""
    name = BASICS.get(text)
    if match := re.match(r"current:VMCS(\d) active:\[(.*)\]", text):
        name = f"cookie {match[1]} {match[2].count(',') + 1}"
    elif text.startswith("no current-VMCS:"):
        name = "movss without VMCS"
    elif text.startswith("valid current-VMCS:"):
        name = "movss"
    if name is None:
        raise LeftOut(OPERANDS if "#" in text else OTHER)
    return {"suite": suite, "kind": "basic", "name": name}


def read_capabilities(suite: str, text: str) -> Case:
    """A line on the capability MSRs."""
    if text.startswith("MSR_IA32_VMX"):
        return {"suite": suite, "kind": "capabilities", "profile": "broadwell"}
    raise LeftOut(OPERANDS)


SUITES: dict[str, Callable[[str, str], Case]] = {
    "basic": read_basic,
    "VMX capability reporting": read_capabilities,
    "vmentry_movss_shadow_test": read_basic,
    "vmx_controls_test": read_controls,
    "vmx_host_state_area_test": read_host,
    "vmx_guest_state_area_test": read_guest,
    "invvpid_test": read_invvpid,
    "vmx_vmcs_shadow_test": read_shadow,
    "apic_reg_virt_test": read_apic,
    "virt_x2apic_mode_test": read_x2apic,
    "vmx_basic_vid_test": read_delivery,
    "vmx_eoi_virt_test": read_delivery,
}


def read_line(line: str) -> Case:
    """The case of a line; LeftOut with the reason if there is none."""
    suite, _, text = line.partition("\t")
    if suite not in SUITES:
        raise LeftOut(f"suite {suite} is not known")
    return SUITES[suite](suite, text)


def main(arguments: list[str] | None = None) -> int:
    """Read, carry out, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lines", type=Path, help="the lines, perhaps gzip-compressed")
    parser.add_argument("--cases", type=Path, help="write the cases, gzip-compressed JSON lines")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    options = parser.parse_args(arguments)
    data = options.lines.read_bytes()
    text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
    counts: dict[str, Counter[str]] = {}
    left_out, failed, cases, known = [], [], {}, {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        suite = line.partition("\t")[0]
        count = counts.setdefault(suite, Counter())
        count["lines"] += 1
        try:
            case = read_line(line)
        except LeftOut as reason:
            count["left out"] += 1
            left_out.append((line, str(reason)))
            continue
        key = json.dumps(case, sort_keys=True)
        cases[key] = case
        if key not in known:
            known[key] = carry_out(case)
        count["passed"] += known[key]
        if not known[key]:
            failed.append(line)
    if options.cases is not None:
        packed = "\n".join(cases) + "\n"
        options.cases.write_bytes(gzip.compress(packed.encode(), mtime=0))
    report: dict[str, Any] = {
        "suites": {suite: dict(count) for suite, count in counts.items()},
        "failed": failed,
        "left_out": [{"line": line, "reason": reason} for line, reason in left_out],
    }
    if options.format == "json":
        print(json.dumps(report, indent=1))
    else:
        print_text(counts, failed, left_out)
    return bool(failed)


def print_text(
    counts: dict[str, Counter[str]], failed: list[str], left_out: list[tuple[str, str]]
) -> None:
    """A table, and the lines that fail or are left out."""
    print(f"{'suite':30} {'lines':>6} {'passed':>6} {'left out':>8}")
    total: Counter[str] = sum(counts.values(), Counter())
    for suite, count in [*counts.items(), ("all", total)]:
        print(f"{suite:30} {count['lines']:6} {count['passed']:6} {count['left out']:8}")
    for line in failed:
        print(f"failed: {line}")
    for line, reason in left_out:
        print(f"left out: {line}: {reason}")


if __name__ == "__main__":
    sys.exit(main())
