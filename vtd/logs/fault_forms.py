"""How systems print faults: one entry for each form of a line, with where the form was read.

A form is found by a word that stands in every line of it. It begins a fault, completes one that an
earlier line began, or tells all of it. Numbers follow the system: Xen's reasons are hexadecimal
(``%02x``), Linux's are decimal before 5.14 and have ``0x`` since; FreeBSD, macOS and illumos print
bus, device and function in decimal.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from devices.source_id import Bdf, SourceId, SourceIdError
from vtd.logs.fault import LoggedFault, RequestKind
from vtd.logs.fault_record import decode_record

NO_PASID = 0xFFFFFFFF
"""What kernels from 4.20 to 5.13 print for a request without PASID."""
PAGE_SHIFT = 12

Decoded = LoggedFault | None
Match = re.Match[str]


class Role(Enum):
    """What a line does for a fault."""

    WHOLE = "tells all that there is"
    BEGINS = "begins a fault"
    COMPLETES = "tells more of a fault that was begun"


class Form(NamedTuple):
    """One form of a line."""

    system: str
    words: tuple[str, ...]
    """Words by which lines of the form are found: each line has one of them."""
    role: Role
    pattern: re.Pattern[str]
    decode: Callable[[Match, int], Decoded]
    """What a match on a line tells; None for a line that tells of no fault after all."""
    origin: str
    """Where the form was read."""


@lru_cache(4096)
def _bdf(segment: int, bus: int, device: int, function: int) -> Bdf | None:
    try:
        return Bdf(segment, SourceId.of(bus, device, function))
    except SourceIdError:
        return None


def _hex_bdf(match: Match) -> Bdf | None:
    fields = match.groupdict()
    numbers = (int(fields.get(name) or "0", 16) for name in ("segment", "bus", "dev", "fn"))
    return _bdf(*numbers)


def _decimal_bdf(match: Match) -> Bdf | None:
    return _bdf(0, *(int(match[name]) for name in ("bus", "dev", "fn")))


def _kind(text: str | None) -> RequestKind:
    """The kind of a request by the word for it, or by the type bit of a fault record."""
    word = (text or "").lower()
    if word in ("r", "1") or "read" in word:
        return RequestKind.READ
    if word in ("w", "0") or "write" in word:
        return RequestKind.WRITE
    return RequestKind.UNKNOWN


def _is_xen(line: str) -> bool:
    return "(XEN)" in line or "[VT-D]" in line


@lru_cache(4096)
def _requester(
    access: str | None, pasid: str | None, segment: str | None, bus: str, device: str, function: str
) -> tuple[RequestKind, Bdf | None, int | None]:
    number = int(pasid or "ffffffff", 16)
    interrupt = access in (None, "INTR-REMAP")
    return (
        RequestKind.INTERRUPT if interrupt else _kind(access),
        _bdf(int(segment or "0", 16), int(bus, 16), int(device, 16), int(function)),
        None if number == NO_PASID else number,
    )


def _linux_half(match: Match, line: int) -> LoggedFault:
    access, pasid, other, segment, bus, device, function, behind, target = match.groups()[:9]
    label = access or (None if other is None or other.upper() == "INTR-REMAP" else other)
    kind, source, number = _requester(label, pasid or behind, segment, bus, device, function)
    system = "Xen" if _is_xen(match.string) else "Linux"
    return LoggedFault(line, kind, source, int(target, 16), None, number, system)


def _linux_reason(match: Match, line: int) -> LoggedFault:
    text, suffix = match["reason"].lower(), match["suffix"]
    xen = _is_xen(match.string)
    hexadecimal = xen or suffix or "x" in text or not text.isdecimal()
    return LoggedFault(
        line, reason=int(text, 16 if hexadecimal else 10), system="Xen" if xen else "Linux"
    )


def _linux_masked(match: Match, line: int) -> Decoded:
    """What is left of a line whose numbers were replaced; None if it is only cut short."""
    kind = _kind(match["access"]) if match["access"] else RequestKind.INTERRUPT
    place = re.fullmatch(_MASKED_BDF, "".join(match["where"].split()), re.ASCII)
    number = re.fullmatch(r"(?:0x)?[0-9a-f]{1,16}", match["addr"] or "", re.ASCII)
    if place and (number or not match["addr"]):
        return None
    address = int(number[0], 16) if number else None
    fault = LoggedFault(line, kind, _hex_bdf(place) if place else None, address)
    reason = re.search(_REASON, match.string, re.ASCII)
    return fault._replace(
        system="Xen" if _is_xen(match.string) else "Linux",
        reason=_linux_reason(reason, line).reason if reason else None,
    )


def _linux_whole(match: Match, line: int) -> LoggedFault:
    fault = _linux_half(match, line)
    return fault._replace(reason=_linux_reason(match, line).reason)


def _freebsd(match: Match, line: int) -> LoggedFault:
    sid = int(match["sid"], 16)
    source = Bdf(0, SourceId(sid)) if sid <= 0xFFFF else None
    reason = int(match["reason"], 16)
    address = int(match["addr"], 16)
    kind = _kind(match["acc"])
    return LoggedFault(line, kind, source, address, reason, system="FreeBSD")


def _openbsd(match: Match, line: int) -> LoggedFault:
    return LoggedFault(
        line,
        _kind(match["access"]),
        _hex_bdf(match),
        int(match["addr"], 16),
        int(match["reason"]),
        system="OpenBSD",
    )


def _macos(match: Match, line: int) -> LoggedFault:
    address, reason = int(match["addr"], 16), int(match["reason"], 16)
    source = _decimal_bdf(match)
    return LoggedFault(line, _kind(match["access"]), source, address, reason, system="macOS")


def _fuchsia(match: Match, line: int) -> LoggedFault:
    address, reason = int(match["addr"], 16), int(match["reason"], 16)
    pasid = int(match["pasid"], 16) if match["valid"] == "V" else None
    access = _kind(match["access"])
    return LoggedFault(line, access, _hex_bdf(match), address, reason, pasid, "Fuchsia")


def _sel4(match: Match, line: int) -> LoggedFault:
    address = int(match["upper"], 16) << 32 | int(match["lower"], 16)
    reason = int(match["reason"], 16) if match["reason"] else None
    source = _hex_bdf(match)
    return LoggedFault(line, _kind(match["access"]), source, address, reason, system="seL4")


def _genode(match: Match, line: int) -> Decoded:
    high, info = int(match["hi"], 16), int(match["info"], 16)
    fault = decode_record(line, high | 1 << 127 - 64, info << PAGE_SHIFT, "Genode")
    assert fault is not None
    return fault


def _acrn(match: Match, line: int) -> LoggedFault:
    address, reason = int(match["addr"], 16), int(match["reason"], 16)
    return LoggedFault(
        line, _kind(match["access"]), _hex_bdf(match), address, reason, system="ACRN"
    )


def _old_xen(match: Match, line: int) -> LoggedFault:
    address, reason = int(match["addr"], 16), int(match["reason"], 16)
    return LoggedFault(line, _kind(match["access"]), _hex_bdf(match), address, reason, system="Xen")


def _nova(match: Match, line: int) -> LoggedFault:
    address, reason = int(match["addr"], 16), int(match["reason"], 16)
    return LoggedFault(line, RequestKind.UNKNOWN, _hex_bdf(match), address, reason, system="NOVA")


def _edk2(match: Match, line: int) -> Decoded:
    return decode_record(line, int(match["hi"], 16), int(match["lo"], 16), "edk2")


def _xmhf(match: Match, line: int) -> Decoded:
    return decode_record(line, int(match["hi"], 16), int(match["lo"], 16), "XMHF")


def _esxi(match: Match, line: int) -> LoggedFault:
    fields = match.groupdict()
    address, reason = fields.get("addr"), fields.get("reason")
    return LoggedFault(
        line,
        _kind(fields.get("access")),
        _hex_bdf(match) if fields["bus"] else None,
        int(address, 16) if address else None,
        int(reason, 16) if reason else None,
        system="ESXi",
    )


def _qemu(match: Match, line: int) -> LoggedFault:
    return LoggedFault(line, source=_hex_bdf(match), target=int(match["addr"], 16), system="QEMU")


def _qemu_trace(match: Match, line: int) -> LoggedFault:
    return LoggedFault(
        line,
        RequestKind.WRITE if match["write"] == "1" else RequestKind.READ,
        Bdf(0, SourceId(int(match["sid"], 16))),
        int(match["addr"], 16),
        int(match["reason"]),
        system="QEMU",
    )


def _jailhouse_begin(match: Match, line: int) -> LoggedFault:
    return LoggedFault(line, system="Jailhouse")


def _jailhouse_source(match: Match, line: int) -> LoggedFault:
    return LoggedFault(line, source=_hex_bdf(match), system="Jailhouse")


def _jailhouse_reason(match: Match, line: int) -> LoggedFault:
    reason, info = int(match["reason"], 16), int(match["info"], 16)
    return LoggedFault(
        line, _kind(match["type"]), target=info << PAGE_SHIFT, reason=reason, system="Jailhouse"
    )


def _illumos_begin(match: Match, line: int) -> LoggedFault:
    interrupt = match["what"].startswith("interrupt")
    kind = RequestKind.INTERRUPT if interrupt else _kind(match["what"])
    return LoggedFault(line, kind, system="illumos")


def _illumos_where(match: Match, line: int) -> LoggedFault:
    return LoggedFault(
        line,
        source=_decimal_bdf(match),
        target=int(match["addr"], 16),
        system="illumos",
        note="illumos prints the reason in words, on the line below",
    )


_HEX = r"(?:0x)?([0-9a-f]{1,16})(?![0-9a-zA-Z*?])"
_HALF = (
    r"(?:\[(DMA Read|DMA Write)(?: (?:NO[_ ]PASID|w/o PASID|PASID (?:0x)?([0-9a-f]{1,8})))?\]"
    r"|\[?(INTR-REMAP|UNKNOWN)\]?:?)\s*"
    r"Request [Dd]evice ?\[{1,2}(?:([0-9a-f]{4}):)?"
    r"(?:0x)?([0-9a-f]{2}):(?:0x)?([01][0-9a-f])\.([0-7])\]"
    rf"(?: PASID (?:0x)?([0-9a-f]{{1,8}}))? fault (?:addr|index) {_HEX}"
)
_MASKED = (
    r"(?:\[(?P<access>DMA Read|DMA Write)[^\]\[]*\]|\[?(?:INTR-REMAP|UNKNOWN)\]?:?)\s*"
    r"Request [Dd]evice ?\[{1,2}(?P<where>[^\]\[]{0,24})\][^\[]{0,24}? ?fault (?:addr|index)"
    r"(?:\s+(?P<addr>[^\s,\[]+))?"
)
"""A fault line in which somebody replaced numbers: ``[xx:00.0]``, ``fault addr ff***``."""
_REASON = (
    r"(?:\[fault reason |(?:DMAR|INTR-REMAP|UNKNOWN): reason (?=[0-9a-f]{2} -(?: |$)))"
    r"(?P<reason>(?:0x)?[0-9a-f]{1,4})(?P<suffix>h?)(?:\]| -(?: |$))"
)
_BETWEEN = (
    r",?\s*(?:iommu reg = \w+|on \S+)?\s*(?:\[VT-D\])?\s*(?:dmar: )?"
    r"(?:(?:DMAR|INTR-REMAP):)?\s*(?:[^\[]{1,40}(?=\[fault reason ))?"
)
"""What may stand between the halves of a fault, where they are in one line."""
_LINUX = "dmar_fault_do_one in drivers/pci/intel-iommu.c, dmar.c; drivers/iommu/intel/dmar.c"
_XEN = "iommu_page_fault_do_one in xen/drivers/passthrough/vtd/iommu.c"
_EDK2 = "VTdDxe, VtdReg.c and IntelVTdPeiDxeLib of edk2-platforms; Slim Bootloader prints the same"
_BROADCOM = "Broadcom knowledge base articles 345237, 392714, 394974"
_ANY_CASE = "Request device|Request Device|request device|REQUEST DEVICE"
_BDF = r"(?P<bus>[0-9a-f]{2}):(?P<dev>[01][0-9a-f])\.(?P<fn>[0-7])"
_MASKED_BDF = (
    r"(?:(?P<segment>[0-9a-f]{4}):)?(?:0x)?(?P<bus>[0-9a-f]{2}):(?:0x)?(?P<dev>[01][0-9a-f])\."
    r"(?P<fn>[0-7])"
)
_FULL_BDF = rf"(?P<segment>[0-9a-f]{{4}}):{_BDF}"


def _form(
    system: str,
    words: str,
    role: Role,
    pattern: str,
    decode: Callable[[Match, int], Decoded],
    origin: str,
) -> Form:
    return Form(
        system, tuple(words.split("|")), role, re.compile(pattern, re.ASCII), decode, origin
    )


FORMS = (
    _form("Linux, Xen", "Request device|Request Device", Role.WHOLE,
          rf"{_HALF}{_BETWEEN}{_REASON}", _linux_whole,
          f"{_LINUX}; {_XEN}"),
    _form("Linux, Xen", "Request device|Request Device", Role.BEGINS, _HALF, _linux_half,
          f"{_LINUX}; {_XEN}"),
    _form("Linux, Xen", _ANY_CASE, Role.WHOLE, rf"(?i:{_HALF}{_BETWEEN}{_REASON})", _linux_whole,
          f"{_LINUX}, typed from a screen"),
    _form("Linux, Xen", _ANY_CASE, Role.BEGINS, rf"(?i:{_HALF})", _linux_half,
          f"{_LINUX}, typed from a screen"),
    _form("Linux, Xen", "Request device|Request Device", Role.WHOLE, rf"{_MASKED}.*{_REASON}",
          _linux_masked, f"{_LINUX}, with numbers that somebody replaced"),
    _form("Linux, Xen", "Request device|Request Device", Role.BEGINS, _MASKED, _linux_masked,
          f"{_LINUX}, with numbers that somebody replaced"),
    _form("Linux, Xen", "fault reason|: reason ", Role.COMPLETES, _REASON, _linux_reason,
          f"{_LINUX}; {_XEN}"),
    _form("Linux, Xen", "fault reason|Fault reason|Fault Reason|FAULT REASON", Role.COMPLETES,
          rf"(?i:{_REASON})", _linux_reason, f"{_LINUX}, typed from a screen"),
    _form("Xen", "iommu_fault:", Role.WHOLE,
          r"iommu_fault:(?P<access>DMA Read|DMA Write): (?P<bus>[0-9a-f]{1,2}):"
          r"(?P<dev>[01]?[0-9a-f])\.(?P<fn>[0-7]) addr (?P<addr>[0-9a-f]+) REASON "
          r"(?P<reason>[0-9a-f]+)", _old_xen, f"{_XEN} of 3.2 to 3.4"),
    _form("FreeBSD", " fault acc ", Role.WHOLE,
          r"sid (?P<sid>[0-9a-f]+) fault acc (?P<acc>[01]) adt 0x[0-9a-f]+ "
          r"reason 0x(?P<reason>[0-9a-f]+) addr (?P<addr>[0-9a-f]+)",
          _freebsd, "dmar_fault_task in sys/x86/iommu/intel_fault.c"),
    _form("OpenBSD", "dmar: ", Role.WHOLE,
          rf"dmar: {_BDF} (?P<access>read|write) error at (?P<addr>[0-9a-f]+) fr:(?P<reason>\d+)",
          _openbsd, "iommu_showfault in sys/dev/acpi/acpidmar.c"),
    _form("macOS", "] fault: device ", Role.WHOLE,
          r"vtd\[\d+\] fault: device (?P<bus>\d+):(?P<dev>\d+):(?P<fn>[0-7]) "
          r"reason 0x(?P<reason>[0-9a-f]+) (?P<access>[RW]):0x(?P<addr>[0-9a-f]+)",
          _macos, "unit_faults in vtd.c of IOPCIFamily"),
    _form("Fuchsia", "IOMMU Fault: access ", Role.WHOLE,
          r"access (?P<access>[RW]), PASID \((?P<valid>[V-])\) (?:0x)?(?P<pasid>[0-9a-f]+), "
          rf"reason (?:0x)?(?P<reason>[0-9a-f]+), source {_BDF}, info: (?P<addr>[0-9a-f]+)",
          _fuchsia, "FaultHandler in zircon/kernel/dev/iommu/intel/iommu_impl.cc"),
    _form("seL4", "page fault from", Role.WHOLE,
          r"DMA (?P<access>read|write) page fault from 0x[0-9a-f]+ "
          r"\(bus: 0x(?P<bus>[0-9a-f]+)/dev: 0x(?P<dev>[0-9a-f]+)/fun: 0x(?P<fn>[0-9a-f]+)\) "
          r"on address 0x(?P<upper>[0-9a-f]+):(?:0x)?(?P<lower>[0-9a-f]+)"
          r"(?: with reason code 0x(?P<reason>[0-9a-f]+))?",
          _sel4, "vtd_handle_fault in src/plat/pc99/machine/intel-vtd.c"),
    _form("Genode", "Fault: hi=", Role.WHOLE,
          r"Fault: hi=0x(?P<hi>[0-9a-f]{1,16}),.* info=0x(?P<info>[0-9a-f]{1,13})(?![0-9a-f])",
          _genode, "platform driver, from a public report of it"),
    _form("ACRN", ", Reason: 0x", Role.WHOLE,
          r"(?P<access>Read/Atomic|Write), Reason: 0x(?P<reason>[0-9a-f]+), "
          r"SID: (?P<bus>[0-9a-f]+)\.(?P<dev>[0-9a-f]+)\.(?P<fn>[0-7]) @0x(?P<addr>[0-9a-f]+)",
          _acrn, "fault_record_analysis in hypervisor/arch/x86/vtd.c"),
    _form("NOVA", " FRR:", Role.WHOLE,
          r"FRR:\d+ FR:(?:0x)?(?P<reason>[0-9a-f]+) BDF:(?P<bus>[0-9a-f]+):(?P<dev>[0-9a-f]+):"
          r"(?P<fn>[0-7]) FI:(?:0x)?(?P<addr>[0-9a-f]+)",
          _nova, "Dmar::fault_handler in src/dmar.cpp"),
    _form("edk2", "FRCD_REG", Role.WHOLE,
          r"FRCD_REG\s*\[\d+\]\s*[-=:]\s*0x(?P<hi>[0-9a-fA-F]{1,16})[ _]+(?:0x)?"
          r"(?P<lo>[0-9a-fA-F]{1,16})", _edk2, _EDK2),
    _form("XMHF", "Fault Recording Register", Role.WHOLE,
          r"low64:0x(?P<lo>[0-9a-fA-F]{1,16}), high64:0x(?P<hi>[0-9a-fA-F]{1,16})", _xmhf,
          "_vtd_print_and_clear_fault_registers of XMHF"),
    _form("ESXi", "IOMMU Fault detected", Role.WHOLE,
          rf"IOMMU Fault detected for (?:{_FULL_BDF}|\()"
          r"(?:.*?IOaddr: (?:0x)?(?P<addr>[0-9a-f]+))?(?:.*?Reason: 0x(?P<reason>[0-9a-f]+)"
          r"(?:.*? to allow (?P<access>Read|Write))?)?",
          _esxi, _BROADCOM),
    _form("ESXi", "caused an IOMMU fault", Role.WHOLE,
          rf"device {_FULL_BDF} caused an IOMMU fault(?: type \d+)?"
          r"(?: at address (?:0x)?(?P<addr>[0-9a-f]+))?", _esxi, _BROADCOM),
    _form("ESXi", "DMAR Fault IOMMU Unit", Role.WHOLE,
          rf"R/W=(?P<access>[RW]), Device (?:(?P<segment>[0-9a-f]{{4}}):)?{_BDF},? "
          r"Faulting addr = 0x(?P<addr>[0-9a-f]+),? Fault Reason = 0x(?P<reason>[0-9a-f]+)",
          _esxi, "vmkernel logs in public threads"),
    _form("QEMU", "detected translation failure", Role.WHOLE,
          r"detected translation failure \(dev=(?P<bus>[0-9a-f]{2}):(?P<dev>[01][0-9a-f])[:.]"
          r"0?(?P<fn>[0-7]), iova=0x(?P<addr>[0-9a-f]+)",
          _qemu, "vtd_iommu_translate in hw/i386/intel_iommu.c"),
    _form("QEMU", "vtd_dmar_fault ", Role.WHOLE,
          r"vtd_dmar_fault sid 0x(?P<sid>[0-9a-f]{1,4}) fault (?P<reason>\d+) "
          r"addr 0x(?P<addr>[0-9a-f]+) write (?P<write>[01])",
          _qemu_trace, "trace event of hw/i386/intel_iommu.c"),
    _form("Jailhouse", "VT-d fault event", Role.BEGINS,
          r"VT-d fault event (?:reported by IOMMU \d+|occurred)", _jailhouse_begin,
          "hypervisor/arch/x86/vtd.c"),
    _form("Jailhouse", "Source Identifier", Role.COMPLETES,
          rf"Source Identifier \(bus:dev\.func\): {_BDF}", _jailhouse_source,
          "hypervisor/arch/x86/vtd.c"),
    _form("Jailhouse", "Fault Reason: 0x", Role.COMPLETES,
          r"Fault Reason: 0x(?P<reason>[0-9a-f]+) Fault Info: (?P<info>[0-9a-f]+) "
          r"Type (?P<type>\d)", _jailhouse_reason, "hypervisor/arch/x86/vtd.c"),
    _form("illumos", "generated a fault event", Role.BEGINS,
          r"generated a fault event when translating (?P<what>DMA read|DMA write|interrupt "
          r"request)", _illumos_begin, "usr/src/uts/i86pc/io/immu_regs.c, immu_intrmap.c"),
    _form("illumos", " for PCI(", Role.COMPLETES,
          r"on (?:address|index) 0x(?P<addr>[0-9a-f]+) for PCI\((?P<bus>\d+), (?P<dev>\d+), "
          r"(?P<fn>\d+)\)", _illumos_where, "usr/src/uts/i86pc/io/immu_intrmap.c"),
)  # fmt: skip
"""Every form; of those with the same words the first that matches counts."""

WORDS = tuple(dict.fromkeys(word for form in FORMS for word in form.words))
"""The words by which lines that may be of a form are found."""
_BY_WORD = [(word, [form for form in FORMS if word in form.words]) for word in WORDS]


LINUX_WHOLE = FORMS[0]
"""The form that logs have most of: a fault of Linux, or Xen, in one line."""
LINUX_TARGET = 8
"""Index of its address among the groups of the pattern."""


class Reading(NamedTuple):
    """What a line tells of a fault."""

    form: Form
    fault: Decoded


def read_fault(text: str, line: int) -> Reading | None:
    """What a line tells of a fault; None if it is of no form."""
    for word, forms in _BY_WORD:
        if word in text:
            for form in forms:
                match = form.pattern.search(text)
                if match is not None:
                    return Reading(form, form.decode(match, line))
    return None
