"""What has to be alike in context and PASID entries that have something in common.

VT-d 6.2.2.1, 6.2.3.1 and 6.2.6.2. Left out: finding the entries, and what it is called where they
disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple

from vtd.layouts.entries import ContextEntry, PasidEntry, PasidTranslationType, TranslationType

FIRST, SECOND, NESTED = (
    PasidTranslationType.FIRST_STAGE,
    PasidTranslationType.SECOND_STAGE,
    PasidTranslationType.NESTED,
)


class Use(NamedTuple):
    """What a context or PASID entry sets up, as far as the rules about domains go."""

    address: int
    name: str
    """Who uses it, in words."""
    pasid: int | None
    domain_id: int
    kind: PasidTranslationType
    second: int | None
    width: int
    first: int | None
    paging_mode: int = 0
    accessed_dirty: bool = False
    extended_accessed: bool = False
    permissions: tuple[int, int, int] | None = None
    """HPTDID, HPTPTR and HPTSZ where translated requests go by them."""


def of_context(entry: ContextEntry, address: int, name: str) -> Use:
    """What a context entry of legacy mode sets up."""
    through = entry.tt is TranslationType.PASS_THROUGH
    kind = PasidTranslationType.PASS_THROUGH if through else SECOND
    second = None if through else entry.ssptptr
    return Use(address, name, None, entry.did, kind, second, int(entry.aw), None)


def of_pasid(entry: PasidEntry, address: int, name: str, pasid: int, *, permitted: bool) -> Use:
    """What a PASID entry sets up; ``permitted``: translated requests go by its permissions."""
    return Use(
        address,
        name,
        pasid,
        entry.did,
        entry.pgtt,
        entry.ssptptr if entry.pgtt in (SECOND, NESTED) else None,
        int(entry.aw),
        entry.fsptptr if entry.pgtt in (FIRST, NESTED) else None,
        int(entry.fspm),
        entry.ssade,
        entry.eafe,
        (entry.hptdid, entry.hptptr, int(entry.hptsz)) if permitted else None,
    )


Agreement = tuple[str, Callable[[Use], Hashable], Callable[[Use], Hashable], Callable[[Use], str]]
AGREEMENTS: tuple[Agreement, ...] = (
    (
        "D01",
        lambda use: use.domain_id if use.second is not None else None,
        lambda use: (use.second, use.width),
        lambda use: f"one domain-id, {use.domain_id}, for two second-stage tables or AWs",
    ),
    (
        "D02",
        lambda use: use.domain_id if use.pasid is not None else None,
        lambda use: use.second is not None,
        lambda use: f"domain-id {use.domain_id} with and without a second stage",
    ),
    (
        "D04",
        lambda use: use.second if use.pasid is not None else None,
        lambda use: use.accessed_dirty,
        lambda use: f"second-stage table {use.second or 0:#x} with and without SSADE",
    ),
    (
        "D05",
        lambda use: None if use.first is None else (use.first, use.second),
        lambda use: (use.paging_mode, use.extended_accessed),
        lambda use: f"first-stage table {use.first or 0:#x} with two FSPM or EAFE",
    ),
    (
        "D06",
        lambda use: None if use.pasid is None else (use.pasid, use.domain_id),
        lambda use: (use.kind, use.first, use.second, use.width, use.paging_mode),
        lambda use: (
            f"PASID {use.pasid or 0:#x} and domain-id {use.domain_id} for two sets of tables"
        ),
    ),
    (
        "D07",
        lambda use: use.second,
        lambda use: use.domain_id,
        lambda use: f"second-stage table {use.second or 0:#x} under several domain-ids",
    ),
    (
        "D08",
        lambda use: use.permissions and use.permissions[0],
        lambda use: use.permissions,
        lambda use: f"one HPT domain-id, {(use.permissions or (0,))[0]}, for two HPTPTR or HPTSZ",
    ),
)
"""What has to be alike in entries that have something in common, by rule."""
