"""Which lines speak of DMA or interrupt remapping: by their words, or by phrases of messages.

Most lines of a log speak of something else, so a line is first looked at for substrings, which is
quick; a regular expression then decides about words that others use too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice

from vtd.logs.fault_forms import WORDS as FAULT_WORDS
from vtd.logs.reading import JOINED

_TOPIC = re.compile(
    r"DMAR|dmar|[Ii][Oo][Mm][Mm][Uu]|[Vv][Tt]-[dD]\b|VTD|VTd|DRHD|drhd\d|IOTLB|INTR-REMAP|IRTE|PASID|RMRR|PRQ\b|IOASID|"
    r"ioasid|[Ii]nterrupt[ -]?[Rr]emapping|[Ii]ntr-remap|I[Rr][Qq][ -][Rr]emapping|"
    r"irq[ -]remapping|DMA remapping|identity map|\b[Ii]ova\b|IOVA|\bIR[0-9]+: failed|"
    r"\b(?:root_entry|context|ctxt_entry|l[1-5])\[[0-9a-f]+\] (?:= |not present)|\bl[1-5]_index = |"
    r"\b(?:l[1-5]|root_entry|context) = [0-9a-f]{16}\b|\bvtd_\w+: |"
    + "|".join(map(re.escape, FAULT_WORDS))
)
"""Words that only lines about remapping have, and those of faults."""
_WORDS = (
    *("dmar", "iommu", "vt-d", "vtd", "drhd", "remap", "irte", "pasid", "rmrr", "prq", "ioasid"),
    *("identity map", "iova", "iotlb", ": failed to allocate "),
    *("root_entry[", "context[", "ctxt_entry[", "l1[", "l2[", "l3[", "l4[", "l5[", "_index = "),
    *("root_entry = ", "context = ", "l1 = ", "l2 = ", "l3 = ", "l4 = ", "l5 = "),
    *(word.lower() for word in FAULT_WORDS),
)
"""One of these is in lower case in every line that ``_TOPIC`` finds."""

PHRASES = (
    # Linux to 4.1 printed many messages bare
    "allocating domain ",
    "domain context map ",
    "dma pte for vpfn",
    "identity mapping domain is",
    "under remapping hardware",
    "acpi name space devices",
    " to group ",
    " from group ",
    " --- failed",
    "couldn't create devinfo cache",
    "reserve ioapic range",
    "driver unmaps unmatched",
    "number of domains support",
    "set context mapping for",
    "mapping reserved region",
    "failed to allocate pages of order",
    "failed to set source-id of",
    "exceeded max ",
    "the max invalidation handle",
    "failed to recover vector for irq",
    "requested that x2apic be disabled",
    "intremap=",
    "bios vendor: ",
    "compatibility-format irq",
    "vulnerable to irq",
    # messages of several lines, of which only the first says what it is about
    "a chipset that contains an erratum",
    "feature unstable.",
    "contact your bios vendor for an update",
    # shared virtual memory, nested domains and the core, behind the name of a device only
    "page request",
    "execution request not supported",
    "svm bind",
    "5-level paging not supported",
    "guest address width",
    "guest pgd",
    "domain page table",
    "dirty tracking not supported",
    "stage-1 address width",
    "s2 domain is not compatible",
    "range for dma domain",
    "forcing dac for pci",
    "dma bounce buffers are inactive",
    "alignment constraint",
    "-bit dma addresses",
    "iopf with",
    "register cpuhp handler",
    "asid allocation",
    "default domain",
    "is not trusted, but driver",
    "dma-aliased sibling",
    # Xen, ESXi, Windows, firmware
    "pci-dma: ",
    "dma_map(",
    "support passthrough of host pci",
    "qi_submit_sync+",
    "qi_flush_dev_iotlb+",
    "qi_flush_dev_iotlb_pasid+",
    "vfio group to container",
    " is not viable",
    "group is inviable",
    "groupviable",
    "groupsetcontainer",
    "vfiotype1v2",
    "group into vfio container",
    "open /dev/vfio/",
    "open '/dev/vfio/",
    "opening /dev/vfio/",
    "pkvm_host_use_dma",
    "set up dma mapping, error ",
    "cannot clear dma mapping",
    "cannot unmap dma memory",
    "within the iommu_group are bound",
    "no iommu_group found",
    "pre-boot dma protection: ",
    "iommudmamap(",
    "warn_invalid_dmar",
    "/vtd.c,line ",
    "i/o virtualisation ",
    "depends on iommu_supports_eim",
    "enable igd for vt",
    "fault recording overflow",
    "sva feature",
    "ivhd error",
    "amd-vi",
    "smmu",
    "reserved memory;",
    "fault overflow",
    "pending fault",
    "fault info - 0x",
    "page request overflow",
    ": assign (",
    ": deassign (",
    "kernel dma protection",
    "kernel-dma-schutz",
    "protection dma du noyau",
    "protección de dma de",
    "protezione dma ",
    "proteção de dma do kernel",
    "защита dma ядра",
    "カーネル dma 保護",
    "内核 dma 保护",
    "核心 dma 保護",
    "missing group for address: ",
    "used in multiple address spaces",
    "root port acs workaround",
    "vfio device assignment is currently not supported",
    "error getting device from group",
    " direct-relaxable",
    "/reserved_regions:",
    "wrong dma mask size",
    "eim=on ",
    "values for aw-bits",
    "requires caching mode",
    "vtd_add_device: ",
    "vtd_init: ",
    "vtd_create_domain: ",
    "vtd_max_domains: ",
    "  buggy bios",
    "no domain: ",
    "map ident: ",
    "chipset support for sr-iov and",
    "without which sr-iov cannot",
    "incorrect information describing the hardware cap",
    "use of i/o remapping hardware",
    "the system i/o remapping hardware",
    "(acs) at any root port",
    "driver_verifier_dma_violation",
    "bugcheck was: 0x000000e6 ",
    "bugcheck was: 0x00000158 ",
    "bugcheck was: 0x00000159 ",
    "bugcheck was: 0x000001d9 ",
)
"""Phrases, in lower case, of messages that have none of the words."""
FACT_WORDS = (
    "linux version ",
    "bios-e820",
    "rmrr base",
    "(xen)  0",
    "pci bridge to [bus",
    "] type ",
)
"""Substrings, in lower case, of lines that tell of the platform and of nothing else."""
_ALL = frozenset((*_WORDS, *PHRASES, *FACT_WORDS))
_SUBSTRINGS = tuple(one for one in _ALL if not any(two in one for two in _ALL - {one}))
"""What to look for; where one is part of another, the part is enough."""
_CHUNK = 4096
"""Lines that are looked at together."""


def candidates(lines: Iterable[str]) -> Iterator[tuple[int, str, bool]]:
    """Each line with its number, from 1, and whether it may be about remapping or the platform.

    Many lines are searched at once for the substrings, and each line only for those found.
    """
    numbered = iter(lines)
    number = 0
    while chunk := list(islice(numbered, _CHUNK)):
        lower = "\n".join(chunk).lower()
        present = sorted(
            (substring for substring in _SUBSTRINGS if substring in lower),
            key=lower.count,
            reverse=True,
        )
        for line, lowered in zip(chunk, lower.split("\n"), strict=True):
            number += 1
            if line != JOINED:
                yield number, line, any(map(lowered.__contains__, present))


_CALL = re.compile(
    r"\b(?:pr|dev|pci|netdev|iommu)_(?:emerg|alert|crit|err|warn|warning|notice|info|dbg|debug)"
    r"(?:_\w+)?\(|\b(?:[dg]?printk\w*|WARN\w*|device_printf)\("
)


def is_source(line: str) -> bool:
    """Whether a line is of a program, as in a patch: it prints a message, and is none."""
    return '"' in line and "(" in line and _CALL.search(line) is not None


def is_about(line: str) -> bool:
    """Whether a candidate speaks of remapping."""
    if is_source(line):
        return False
    if "DMAR" in line or _TOPIC.search(line) is not None:
        return True
    lower = line.lower()
    return any(map(lower.__contains__, PHRASES))
