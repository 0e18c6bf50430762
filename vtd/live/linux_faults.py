"""What Linux is known to do wrong on correct hardware, with the signs of each."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class LinuxFault:
    """Something that a kernel does wrong, whatever the unit does."""

    name: str
    about: str
    shows: re.Pattern[str]
    """In what was found: check, audit or console."""
    proof: re.Pattern[str]
    """What is found, recorded, or on the console, where it is this one and no other."""


UNALIGNED = LinuxFault(
    "first-stage-unaligned",
    "6.1 invalidates a first-stage range that is no aligned power of two aligned down: its end "
    "stays in the IOTLB",
    re.compile(
        r"vfio (?:unaligned unmap|churn|superpages)|qi_flush_piotlb|"
        r"missing page-selective p_iotlb_inv"
    ),
    re.compile(r"vfio unaligned unmap|missing page-selective p_iotlb_inv"),
)
ALIAS = LinuxFault(
    "scalable-bridge-alias",
    "7.2 gives the source-id that a PCIe-to-PCI bridge puts in no context entry in scalable mode: "
    "fault 41h on every DMA behind it",
    re.compile(r"vfio|nvme|41h|0x41|no disk"),
    re.compile(r"fault reason 0x41"),
)
RESERVED_AW = LinuxFault(
    "aw-without-second-stage",
    "AW = 2 is written to PASID entries of a unit with SSTS = 0, where it is reserved (9.6): fault "
    "5Ah on every DMA",
    re.compile(r"vfio|nvme|5Ah|0x5a|no disk|qi_flush_piotlb"),
    re.compile(r"fault reason 0x5a"),
)
HINT = LinuxFault(
    "hint-in-address-mask",
    "7.2 without a queue puts the invalidation hint into bit 0 of IVA_REG.AM instead of IH, bit 6: "
    "where MAMV is even, ranges of that order are refused (11.4.6.3) and stay in the IOTLB",
    re.compile(r"check|missing page-selective iotlb_inv|fault|kernel: |used after"),
    re.compile(r"Flush IOTLB failed"),
)
ADDRESS_ZERO = LinuxFault(
    "address-zero-not-written",
    "without a queue IVA_REG is not written for the page at 0 alone: what it held before is "
    "invalidated, and under CM = 1 the page stays refused if it was",
    re.compile(r"vfio (?:high addresses|churn)|missing page-selective iotlb_inv|used after"),
    re.compile(r"the device does not find at 0 what is mapped there"),
)
UNDRAINED = LinuxFault(
    "page-requests-not-drained",
    "7.2 clears the present bit of a PASID entry before it asks whether to leave FPD set there, "
    "which tells a later call to drain: a process that ends gives its PASID away without a wait "
    "descriptor with PD (7.11)",
    re.compile(r"page requests of .* before a wait descriptor drained them"),
    re.compile(r"page requests of .* before a wait descriptor drained them"),
)
TOP_TABLE = LinuxFault(
    "top-table-size",
    "7.2 works out a negative size of the top table with SAGAW bit 3 and a MGAW of 39 to 42 bits",
    re.compile(r"vtdss|WARNING|fault|nvme|vfio|check"),
    re.compile(r"vtdss"),
)
NO_WIDTH = LinuxFault(
    "no-valid-agaw",
    "with both stages, a unit of 39 bits only, or of 57 bits without FS5LP, is not used",
    re.compile(r"check (?:units|groups|domain type|vfio: )"),
    re.compile(r"Cannot get a valid agaw"),
)
NO_STAGE = LinuxFault(
    "no-stage",
    "7.2 tries no pass-through in scalable mode without any stage: fault 41h on every DMA",
    re.compile(r"41h|0x41|nvme|vfio|check|WARNING"),
    re.compile(r"fault reason 0x41"),
)
NO_STAGE_UNUSED = LinuxFault(
    "no-stage-unused",
    "6.1 gives up such a unit, and remapping with it",
    re.compile(r"check (?:units|groups|domain type|vfio: )"),
    re.compile(r"DMAR: Initialization failed"),
)
