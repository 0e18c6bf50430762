"""Where units depart from the specification, each place by its name.

A unit departs only where it is told to: :data:`SPECIFICATION` names nothing, :data:`QEMU` all that
the recorded unit does. Each chapter of the unit asks them in one module, its ``rules``.
``docs/known-differences.md`` is written from here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, NamedTuple


class Chapter(Enum):
    """The chapter of a unit that a departure belongs to."""

    TRANSLATION = "DMA translation"
    INTERRUPTS = "Interrupt remapping"
    QUEUES = "Invalidation"
    REPORTING = "Fault and event reporting"


class Departure(NamedTuple):
    """What the specification says of one place, and where."""

    name: str
    section: str
    specified: str
    chapter: Chapter
    permitted: bool = False
    """Whether the specification leaves it open, so that the unit departs from nothing."""
    needed_by: tuple[str, ...] = ()
    """Patterns of the names of recorded files; some of each need it, and no others do."""


def _flag(
    chapter: Chapter,
    section: str,
    specified: str,
    *,
    needed_by: tuple[str, ...] = (),
    permitted: bool = False,
) -> Any:
    """A flag that is off; the docstring below it says what a unit does where it is on."""
    about = {
        "chapter": chapter,
        "section": section,
        "specified": specified,
        "needed_by": needed_by,
        "permitted": permitted,
    }
    return field(default=False, metadata=about)


@dataclass(frozen=True)
class Departures:
    """The places where a unit departs from the specification: one flag for each."""

    ignore_aw_without_ssts: bool = _flag(
        Chapter.TRANSLATION,
        "9.6",
        "AW of a PASID entry is reserved where SSTS = 0: fault 5Ah",
        needed_by=("sm_fs_*", "random_sm_fs_*", "sm-first-stage"),
    )
    """AW of a PASID entry is not looked at where it is reserved: Linux writes 2 there."""
    snoop_every_walk: bool = _flag(
        Chapter.TRANSLATION,
        "3.10",
        "accessed and dirty flags where the walk is not snooped: fault 90h or 7Ch unless they are "
        "set already",
        needed_by=("sm_fs_*", "random_sm_fs_*"),
    )
    """Walks count as snooped, and the flags are set."""
    check_canonical_by_aw: bool = _flag(
        Chapter.TRANSLATION,
        "9.6, 3.6",
        "AW of a PASID entry has no meaning for the first stage, where FSPM says how many address "
        "bits are checked: fault 80h",
    )
    """AW says it: 30 bits for 0, 39 for 1, 48 for 2."""
    check_pgtt_before_reserved: bool = _flag(
        Chapter.TRANSLATION,
        "7.1.3, SPT.3 and SPT.4",
        "a PASID entry with an unsupported PGTT or AW and reserved bits: open whether 5Ah or 5Bh "
        "is reported; here 5Ah",
    )
    """Fault 5Bh is reported of such an entry."""
    check_pgtt_before_present: bool = _flag(
        Chapter.TRANSLATION,
        "7.1.3, SPT.2",
        "a PASID entry that is not present, with an unsupported PGTT or AW: fault 59h",
    )
    """Fault 5Bh is reported, whatever FPD of the entry says."""
    check_both_root_halves: bool = _flag(
        Chapter.TRANSLATION,
        "9.2, SRT.3",
        "reserved bits of a scalable-mode root entry count in the half in use",
    )
    """Those of both halves count for every device."""
    overlook_reserved_bits: bool = _flag(
        Chapter.TRANSLATION,
        "9.4, 9.5, 9.6, SCT.3, SPD.3, SPT.3",
        "reserved bits of scalable-mode context, PASID directory and PASID entries: faults 42h, "
        "52h, 5Ah",
    )
    """Of context entries bits 4:2 and 84:64 are not looked at, of PASID entries AW alone is, of
    directories none; those above a pointer are part of the address."""
    keep_pass_through: bool = _flag(
        Chapter.TRANSLATION,
        "6.5.2.4, Table 28",
        "once a PASID entry is changed and PASID cache and IOTLB are invalidated, the new entry "
        "counts",
    )
    """A device that was passed through stays so until its context entry is invalidated, the root
    table is set or translation goes off: none of its requests is translated. A PASID-cache
    invalidation helps only for the domain-id of the entry that the unit came to know first."""
    pass_beyond_host_width: bool = _flag(
        Chapter.TRANSLATION,
        "7.1.3, LGN.1, SGN.4",
        "pass-through requests beyond the host address width: fault 4h or 83h",
    )
    """They are let through."""
    drop_denied_hits: bool = _flag(
        Chapter.TRANSLATION,
        "7.1.3",
        "a request that an IOTLB entry of its page does not allow: fault 5h or 6h, 85h or 86h",
    )
    """It is dropped without a fault."""

    pass_compatibility_format: bool = _flag(
        Chapter.INTERRUPTS,
        "5.1.4",
        "compatibility-format interrupts are blocked while remapping is on unless CFIS = 1 and "
        "EIME = 0: fault 25h",
        needed_by=("edu-faults-legacy48",),
    )
    """Compatibility-format interrupts are passed on."""
    wrap_interrupt_index: bool = _flag(
        Chapter.INTERRUPTS,
        "5.1.3",
        "interrupt_index is the plain sum of handle and subhandle: above FFFFh it is beyond every "
        "table, fault 21h",
    )
    """The low 16 bits of the sum count."""
    ignore_reserved_irte_values: bool = _flag(
        Chapter.INTERRUPTS,
        "9.9",
        "DLM = 011b or 110b of an interrupt-remapping entry, and in xAPIC mode bits 39:32 and "
        "63:48 of DST, are reserved: fault 24h",
    )
    """These values are not looked at."""
    ignore_im_without_pi: bool = _flag(
        Chapter.INTERRUPTS,
        "9.9",
        "IM of an interrupt-remapping entry is reserved on a unit without PI: fault 24h",
    )
    """IM is not looked at, and the interrupt is remapped."""
    swap_irte_bus_range: bool = _flag(
        Chapter.INTERRUPTS,
        "9.9",
        "SVT = 10b: SID has the first bus in its upper, the last in its lower 8 bits",
    )
    """The first bus is in the lower, the last in the upper 8 bits."""
    keep_trigger_mode: bool = _flag(
        Chapter.INTERRUPTS,
        "9.9",
        "SMI, NMI, INIT and ExtINT are edge-triggered whatever TM of the entry says",
        needed_by=("random_ir_*",),
    )
    """They come out as TM says."""
    check_reserved_irte_before_source: bool = _flag(
        Chapter.INTERRUPTS,
        "5.1.4",
        "the requester is verified before the other fields of an interrupt-remapping entry are "
        "looked at: fault 26h where both are wrong",
    )
    """Fault 24h is reported where both are wrong."""
    reject_source_of_reserved_svt: bool = _flag(
        Chapter.INTERRUPTS,
        "9.9",
        "SVT = 11b is reserved: fault 24h",
        needed_by=("ir_reserved_validation_type",),
    )
    """Fault 26h is reported, as for a wrong source-id."""

    accept_register_invalidation: bool = _flag(
        Chapter.QUEUES,
        "11.4.6",
        "register-based invalidation in scalable mode, or beside the queue, is ignored, and CAIG "
        "and IAIG read 0",
        needed_by=("sm_fs_*", "sm_ss_*", "random_sm_*"),
    )
    """Register-based invalidation is carried out in every mode, and beside the queue."""
    accept_narrow_queue: bool = _flag(
        Chapter.QUEUES,
        "11.4.9.9",
        "a queue of 128-bit descriptors in scalable mode is an error, and IQEI says invalid width",
        needed_by=("sm_narrow_queue_errors", "sm_ss_invalidation"),
    )
    """Such a queue works, with the descriptors of legacy mode."""
    drop_pasid_entries_with_context: bool = _flag(
        Chapter.QUEUES,
        "6.5.2.1",
        "context-cache invalidation in scalable mode leaves the PASID cache alone",
        needed_by=("sm_fs_*", "sm_ss_*", "random_sm_*"),
    )
    """PASID entries go too: there is no cache of their own."""
    refuse_silent_wait: bool = _flag(
        Chapter.QUEUES,
        "6.5.2.9",
        "a wait descriptor with IF, SW and FN = 0 is valid, and completes",
    )
    """It is refused: IQE is set, and the queue stops."""
    resume_with_tail: bool = _flag(
        Chapter.QUEUES,
        "6.5.2.11",
        "a queue that an error stopped goes on once IQE is cleared: at once, or when software "
        "writes the tail again",
        permitted=True,
    )
    """It goes on when the tail is written."""
    ignore_mhmv: bool = _flag(
        Chapter.QUEUES,
        "11.4.3",
        "IM of an interrupt entry cache invalidation above MHMV is not supported; here an error, "
        "and IQEI says reserved field",
    )
    """The invalidation is carried out."""
    limit_pasid_masks: bool = _flag(
        Chapter.QUEUES,
        "6.5.2.4, 11.4.2",
        "a PASID-based IOTLB invalidation may have any AM, whatever MAMV says",
    )
    """One with AM above MAMV is refused: IQE is set, and the queue stops."""

    record_whole_address: bool = _flag(
        Chapter.REPORTING,
        "11.4.7.6",
        "bits of FI above the largest AGAW read 0",
        needed_by=(
            "legacy_address_width",
            "legacy_unit39",
            "sm_fs_canonical",
            "random_*",
            "edu-faults-legacy48",
        ),
    )
    """FI of a fault record holds the whole address of the page."""
    report_legacy_codes: bool = _flag(
        Chapter.REPORTING,
        "7.1.3, Table 30",
        "faults of root, context and second-stage structures in scalable mode: 38h to 42h, 78h to "
        "7Bh, 84h to 86h",
    )
    """The codes of legacy mode; 85h and 86h stay on a unit with a first stage."""
    record_despite_fpd: bool = _flag(
        Chapter.REPORTING,
        "7.1.1, LCT.3, SCT.3, SPD.2, SPD.3, SPT.2 to SPT.4",
        "FPD keeps faults of reserved fields of a context entry, and qualified faults of PASID "
        "structures, from being recorded",
    )
    """They are recorded; of PASID structures unless the context entry has FPD."""
    unmask_page_request_event: bool = _flag(
        Chapter.REPORTING,
        "11.4.11.5",
        "IM of PECTL_REG is set after reset",
        needed_by=("regs_reset_sm_pasid",),
    )
    """PECTL_REG is 0 after reset."""
    compress_faults: bool = _flag(
        Chapter.REPORTING,
        "7.2.1, step 3",
        "further faults of a requester whose record is pending may be dropped",
        permitted=True,
        needed_by=(
            "legacy_fault_compression",
            "legacy_fault_events",
            "legacy_cross_page",
            "random_*",
            "edu-faults-legacy48",
        ),
    )
    """They are dropped."""

    @property
    def names(self) -> tuple[str, ...]:
        """The flags that are set, in the order of their declaration."""
        return tuple(each.name for each in fields(self) if getattr(self, each.name))

    def __or__(self, other: Departures) -> Departures:
        """All that either departs in."""
        return _with(*self.names, *other.names)


def _with(*names: str) -> Departures:
    return Departures(**dict.fromkeys(names, True))


FLAGS = tuple(Departure(each.name, **each.metadata) for each in fields(Departures))
"""What is known of each flag, in the order of their declaration."""
SPECIFICATION = Departures()
QEMU = _with(*(each.name for each in FLAGS))
"""All that ``intel-iommu`` of QEMU 11.1.2 does: so far no other unit has a departure of its own."""
SETS = {"specification": SPECIFICATION, "qemu": QEMU}


def departures_named(names: Iterable[str]) -> Departures:
    """All that have these names, of a single departure or of one of :data:`SETS`.

    ValueError if a name is neither.
    """
    known = {**SETS, **{each.name: _with(each.name) for each in FLAGS}}
    chosen = SPECIFICATION
    for name in names:
        if name not in known:
            raise ValueError(f"{name!r} is no departure: {', '.join(known)}")
        chosen |= known[name]
    return chosen
