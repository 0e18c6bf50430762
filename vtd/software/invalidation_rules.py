"""Invalidations that software owes, as data: which change calls for which, and where that is said.

VT-d 6.5.3.3 (Table 28), 6.5.3.4 (Table 29), 6.5.2.8, 6.6 and 6.7. The driver makes descriptors of
them (:mod:`vtd.software.guidance`), the audit names them in what it finds, and
``docs/invalidation-rules.md`` lists them. Left out: what each invalidation covers, and when a rule
does not apply because nothing can be cached (6.1).
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

GLOBAL, DEVICE, DOMAIN, PASID, PAGES, ENTRY = (
    "global",
    "device-selective",
    "domain-selective",
    "PASID-selective",
    "page-selective",
    "index-selective",
)
STAGES = {
    "cc_inv": 0,
    "pc_inv": 1,
    "iotlb_inv": 2,
    "p_iotlb_inv": 2,
    "dev_tlb_inv": 3,
    "p_dev_tlb_inv": 3,
    "hpt_inv": 4,
    "iec_inv": 0,
}
"""The order in which invalidations that one change calls for have to be given: caches whose entries
tag those of others come first (6.2.2.1, 6.2.3.1, 6.5.2.5, 6.5.2.6, 6.5.3.4)."""


class Rule(Enum):
    """An invalidation that software owes, and the change and section that call for it."""

    ROOT_POINTER_CONTEXT = "Set Root Table Pointer without ESRTPS", GLOBAL, "cc_inv", "6.6"
    ROOT_POINTER_PASID = "Set Root Table Pointer without ESRTPS", GLOBAL, "pc_inv", "6.6"
    ROOT_POINTER_IOTLB = "Set Root Table Pointer without ESRTPS", GLOBAL, "iotlb_inv", "6.6"
    ROOT_POINTER_HPT = "Set Root Table Pointer without ESRTPS", GLOBAL, "hpt_inv", "6.6"
    ROOT_ENTRY_CONTEXT = "root entry", GLOBAL, "cc_inv", "6.5.3.3"
    ROOT_ENTRY_PASID = "root entry", GLOBAL, "pc_inv", "6.5.3.3"
    ROOT_ENTRY_IOTLB = "root entry", GLOBAL, "iotlb_inv", "6.5.3.3"
    ROOT_ENTRY_DEVICE_TLB = "root entry", GLOBAL, "dev_tlb_inv", "6.5.3.3"
    CONTEXT_ENTRY_CONTEXT = "context entry", DEVICE, "cc_inv", "6.5.3.3"
    CONTEXT_ENTRY_PASID = "context entry", DOMAIN, "pc_inv", "6.5.3.3"
    CONTEXT_ENTRY_IOTLB = "context entry", DOMAIN, "iotlb_inv", "6.5.3.3"
    CONTEXT_ENTRY_DEVICE_TLB = "context entry", GLOBAL, "dev_tlb_inv", "6.5.3.3"
    PASID_DIRECTORY_PASID = "PASID directory entry", PASID, "pc_inv", "6.5.3.3"
    PASID_DIRECTORY_IOTLB = "PASID directory entry", DOMAIN, "iotlb_inv", "6.5.3.3"
    PASID_DIRECTORY_DEVICE_TLB = "PASID directory entry", GLOBAL, "dev_tlb_inv", "6.5.3.3"
    PASID_ENTRY_PASID = "PASID entry", PASID, "pc_inv", "6.5.3.3"
    PASID_ENTRY_DOMAIN_IOTLB = (
        "PASID entry with a second stage: P 1 to 0, or SSADE 0 to 1",
        DOMAIN,
        "iotlb_inv",
        "6.5.3.3",
    )
    PASID_ENTRY_IOTLB = "PASID entry: any other change", PASID, "p_iotlb_inv", "6.5.3.3"
    PASID_ENTRY_DEVICE_TLB = "PASID entry", GLOBAL, "dev_tlb_inv", "6.5.3.3"
    DOMAIN_REUSE_CACHE = "domain-id used again", DOMAIN, "cc_inv or pc_inv", "6.5.3.3"
    DOMAIN_REUSE_IOTLB = "domain-id used again", DOMAIN, "iotlb_inv", "6.5.3.3"
    DOMAIN_REUSE_DEVICE_TLB = "domain-id used again", GLOBAL, "dev_tlb_inv", "6.5.3.3"
    FIRST_STAGE_IOTLB = "first-stage tables", PAGES, "p_iotlb_inv", "6.5.3.3"
    FIRST_STAGE_DEVICE_TLB = "first-stage tables", PAGES, "dev_tlb_inv", "6.5.3.3"
    SECOND_STAGE_IOTLB = "second-stage tables", PAGES, "iotlb_inv", "6.5.3.3"
    SECOND_STAGE_DEVICE_TLB = "second-stage tables", PAGES, "dev_tlb_inv", "6.5.3.3"
    HPT_CONTEXT = "context entry: HPTE or EPTR 1 to 0", DOMAIN, "hpt_inv", "6.5.3.4"
    HPT_PASID = "PASID entry: HPTSZ, HPTPTR or HPTDID", DOMAIN, "hpt_inv", "6.5.3.4"
    HPT_TABLES = "host permission tables", PAGES, "hpt_inv", "6.5.3.4"
    HPT_REDUCED = "permissions of pages whose translations changed", PAGES, "hpt_inv", "6.5.3.4"
    INTERRUPT_POINTER = (
        "Set Interrupt Remapping Table Pointer without ESIRTPS",
        GLOBAL,
        "iec_inv",
        "6.7",
    )
    INTERRUPT_ENTRY = "interrupt-remapping entry", ENTRY, "iec_inv", "6.5.2.8"

    def __init__(self, change: str, granularity: str, descriptor: str, section: str) -> None:
        self.change = change
        """What software changed."""
        self.granularity = granularity
        self.descriptor = descriptor
        """By the specification's name; for requests with PASID p_dev_tlb_inv is meant too."""
        self.section = section

    def __str__(self) -> str:
        return f"{self.change}: {self.granularity} {self.descriptor} ({self.section})"


class Row(NamedTuple):
    """A row of Table 28 or 29 in one mode: what software changed, and what it owes, in order."""

    table: int
    mode: str
    change: str
    owed: tuple[Rule, ...]

    def __str__(self) -> str:
        return f"{self.mode}: {self.change}"


def _owed(change: str, *, but: str = "") -> tuple[Rule, ...]:
    """The rules whose names begin with the change."""
    return tuple(rule for rule in Rule if rule.name.startswith(change) and rule.name != but)


TABLES_28_AND_29 = (
    Row(28, "legacy", "root entry", _owed("ROOT_ENTRY", but="ROOT_ENTRY_PASID")),
    Row(28, "legacy", "context entry", _owed("CONTEXT_ENTRY", but="CONTEXT_ENTRY_PASID")),
    Row(28, "legacy", "domain-id used again", _owed("DOMAIN_REUSE")),
    Row(28, "legacy", "second-stage tables", _owed("SECOND_STAGE")),
    Row(28, "scalable", "root entry", _owed("ROOT_ENTRY")),
    Row(28, "scalable", "context entry", _owed("CONTEXT_ENTRY")),
    Row(28, "scalable", "PASID directory entry", _owed("PASID_DIRECTORY")),
    Row(
        28,
        "scalable",
        "PASID entry with a second stage: P 1 to 0, or SSADE 0 to 1",
        _owed("PASID_ENTRY", but="PASID_ENTRY_IOTLB"),
    ),
    Row(
        28,
        "scalable",
        "PASID entry without a second stage: P 1 to 0",
        _owed("PASID_ENTRY", but="PASID_ENTRY_DOMAIN_IOTLB"),
    ),
    Row(
        28,
        "scalable",
        "PASID entry: any other field",
        _owed("PASID_ENTRY", but="PASID_ENTRY_DOMAIN_IOTLB"),
    ),
    Row(28, "scalable", "domain-id used again", _owed("DOMAIN_REUSE")),
    Row(28, "scalable", "first-stage tables", _owed("FIRST_STAGE")),
    Row(28, "scalable", "second-stage tables", _owed("SECOND_STAGE")),
    Row(29, "scalable", "context entry: HPTE or EPTR 1 to 0", _owed("HPT_CONTEXT")),
    Row(29, "scalable", "PASID entry: HPTSZ, HPTPTR or HPTDID", _owed("HPT_PASID")),
    Row(29, "scalable", "host permission tables", _owed("HPT_TABLES")),
)
