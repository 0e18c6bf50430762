"""What usually stands behind a fault reason: the structure concerned, causes, where to look.

Covers the reasons of VT-d 7.1.3 and 5.1.4.1 (:class:`vtd.unit.requests.faults.FaultReason`).
Causes are experience with operating systems, not part of the specification.
"""

from __future__ import annotations

from typing import NamedTuple

from vtd.unit.requests.faults import FaultReason


class Cause(NamedTuple):
    """What is known of a group of fault reasons."""

    where: str
    """The structure or table level that stopped the request."""
    likely: tuple[str, ...]
    """Likely causes, the most common one first."""
    look_at: tuple[str, ...]
    """What to look at."""


class ExplainedReason(NamedTuple):
    """A fault reason with what is known of it."""

    reason: FaultReason
    where: str
    likely: tuple[str, ...]
    look_at: tuple[str, ...]


_NOT_MAPPED = (
    "the driver never mapped the buffer, unmapped it too early, or for the other direction",
    "the device reads ahead past the end of a buffer",
    "firmware left the device running at boot, and no RMRR covers the memory it uses",
)
_MAPPING = (
    "the driver's dma_map and dma_unmap calls (CONFIG_DMA_API_DEBUG)",
    "whether the address is in an RMRR of the device: vtd dmar rmrr",
)
_CORRUPT = ("memory corruption, or entries written by software that expects other capabilities",)
_TABLES = ("the table entries that the kernel dumps after the fault, if it does",)
_UNKNOWN_DEVICE = (
    "the requester id is an alias: a bridge or a device that sends with the id of another function",
    "the device was running before the operating system set it up",
)
_ALIAS = ("lspci -tv: which functions share this id; kernel quirks for DMA aliases",)
_WIDTH = (
    "a kernel virtual or sign-extended address was given to the device",
    "the device or its DMA mask is wider than the tables",
)
_PASID = (
    "the process or its PASID is gone while the device still works for it",
    "the driver uses a PASID that was never bound",
)

_NO_PERMISSION = Cause("page-table permissions", _NOT_MAPPED, _MAPPING)
_ROOT = Cause("root table: no devices on this bus", _UNKNOWN_DEVICE, _ALIAS)
_CONTEXT = Cause("context table: device not set up", _UNKNOWN_DEVICE, _ALIAS)
_UNREADABLE = "a pointer leads outside memory, or the memory holding the table fails"
_ATS_OFF = ("the device uses ATS although software did not enable it",)
_INTERRUPT = (
    "/proc/interrupts, and whether the driver was unloaded or the system is a kdump kernel",
)

_CAUSES: dict[Cause, tuple[int, ...]] = {
    _ROOT: (0x01, 0x39),
    _CONTEXT: (0x02, 0x41),
    Cause(
        "context entry",
        ("the entry asks for a mode or width that this unit does not have", *_CORRUPT),
        ("CAP and ECAP of the unit in the kernel log", *_TABLES),
    ): (0x03, 0x43),
    Cause("before the page walk: address width", _WIDTH, ("the DMA mask of the driver",)): (
        0x04,
        0x83,
        0x84,
        0x80,
        0x74,
    ),
    _NO_PERMISSION: (0x05, 0x06, 0x85, 0x86),
    Cause("second-stage tables: no entry", _NOT_MAPPED, _MAPPING): (0x79,),
    Cause("first-stage tables: no entry", _NOT_MAPPED, _MAPPING): (0x71,),
    Cause(
        "first-stage tables: privilege",
        ("a user-level request met a supervisor page",),
        ("the PASID and the address space it belongs to",),
    ): (0x81, 0x5D, 0x34, 0x5C),
    Cause("a page table below the top", (_UNREADABLE, *_CORRUPT), _TABLES): (
        0x07,
        0x70,
        0x78,
    ),
    Cause("the top page table", (_UNREADABLE, *_CORRUPT), _TABLES): (
        0x73,
        0x7B,
    ),
    Cause("root table", (_UNREADABLE, *_CORRUPT), _TABLES): (
        0x08,
        0x0A,
        0x38,
        0x3A,
    ),
    Cause("context table", (_UNREADABLE, *_CORRUPT), _TABLES): (
        0x09,
        0x0B,
        0x40,
        0x42,
    ),
    Cause("page-table entry: reserved bits", _CORRUPT, _TABLES): (
        0x0C,
        0x72,
        0x7A,
    ),
    Cause("context entry: ATS", _ATS_OFF, ("lspci -vvv, capability ATS",)): (
        0x0D,
        0x44,
        0x49,
        0x47,
        0x32,
    ),
    Cause(
        "output address",
        ("a mapping leads to the interrupt address range 0xFEEx_xxxx",),
        ("mappings of the device at that address",),
    ): (0x0E, 0x87),
    Cause("PASID structures", _PASID, ("which process used the device last",)): (
        0x31,
        0x45,
        0x46,
        0x48,
        0x59,
        0x89,
        0x51,
    ),
    Cause("PASID structures", (_UNREADABLE, *_CORRUPT), _TABLES): (
        0x50,
        0x52,
        0x58,
        0x5A,
        0x5B,
    ),
    Cause(
        "nested translation: first-stage tables in guest memory",
        ("the guest's page tables lie where the second stage gives no access",),
        ("memory layout of the virtual machine",),
    ): (0x75, 0x76, 0x77),
    Cause(
        "accessed and dirty flags",
        ("the unit can't update flags in tables that it does not snoop",),
        ("ECAP.SMPWC, PWSNP of the PASID entry",),
    ): (0x90, 0x91, 0x7C, 0x7D),
    Cause(
        "root table register",
        ("remapping is on in a mode the unit does not have, or aborts all DMA on purpose",),
        ("kernel messages about translation being enabled before boot (kexec, kdump)",),
    ): (0x30, 0x33),
    Cause(
        "interrupt-remapping entry",
        ("an interrupt that was freed, or one that firmware or an earlier kernel had set up",),
        _INTERRUPT,
    ): (0x22, 0x21),
    Cause(
        "interrupt request",
        (
            "the device sends interrupts as set up without remapping: restored by firmware, or "
            "programmed past the operating system",
        ),
        _INTERRUPT,
    ): (
        0x25,
        0x20,
        0x29,
        0x2B,
        0x2A,
    ),
    Cause(
        "interrupt-remapping entry: source-id",
        (
            "the interrupt comes with the id of a bridge or of another function",
            "the DMAR table gives a wrong source-id for an I/O APIC or HPET",
            "a device forges interrupts",
        ),
        ("the ioapic and msi_hpet entries of the table: vtd dmar show", *_ALIAS),
    ): (0x26,),
    Cause("interrupt-remapping table", (_UNREADABLE, *_CORRUPT), _INTERRUPT): (
        0x23,
        0x24,
        0x27,
        0x28,
    ),
    Cause(
        "host permission table",
        ("the device sends translated addresses that it was not given",),
        ("whether the device is trusted to use ATS",),
    ): (
        0x60,
        0xA0,
        0xA1,
        0xA2,
        0xA3,
        0xA4,
        0xA5,
    ),
}

CAUSES: dict[int, ExplainedReason] = {
    int(reason): ExplainedReason(reason, *cause)
    for cause, codes in _CAUSES.items()
    for reason in FaultReason
    if reason in codes
}
"""What is known of each fault reason, by its number."""

PASID_STRUCTURE_REASONS = frozenset({0x50, 0x51, 0x52, 0x58, 0x59, 0x5A, 0x5B})
"""Reasons that a PASID directory or table entry gives."""
_RID_PASID = Cause(
    "PASID structures, at the entry for RID_PASID: the request had no PASID",
    (
        "the kernel has not set the device up yet, or took its tables over from another kernel "
        "(kexec, kdump)",
        "the unit reads old memory: an entry was written without a flush, on a unit that does not "
        "snoop its tables (ECAP.C or SMPWC clear)",
    ),
    ("the PASID entries that the kernel dumps after the fault", "ECAP of the unit in the log"),
)


def cause_of(reason: int, pasid: int | None) -> ExplainedReason | None:
    """What is known of a fault; None for a reason that the specification does not assign.

    A request without PASID uses the entry that the kernel sets up for the device (RID_PASID), so
    no process is behind its fault (9.6).
    """
    known = CAUSES.get(reason)
    if known is not None and pasid is None and reason in PASID_STRUCTURE_REASONS:
        return known._replace(**_RID_PASID._asdict())
    return known
