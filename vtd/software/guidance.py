"""Guidance to software for invalidations: what each change of a structure calls for, in order.

VT-d 6.5.3.3 (Table 28), 6.5.2.1 to 6.5.2.8, 6.6 and 6.7. Each function is one change and returns
descriptors with the rule of :mod:`vtd.software.invalidation_rules` that demands them, context-cache
before PASID-cache before IOTLB before device-TLB (6.5.2.12). Left out: host permission tables
(Table 29), which the driver does not use.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from vtd.layouts.descriptors import (
    ContextCacheInvalidateDescriptor,
    Descriptor,
    DeviceTlbInvalidateDescriptor,
    InterruptEntryCacheInvalidateDescriptor,
    InterruptGranularity,
    IotlbInvalidateDescriptor,
    PasidCacheGranularity,
    PasidCacheInvalidateDescriptor,
    PasidDeviceTlbInvalidateDescriptor,
    PasidIotlbGranularity,
    PasidIotlbInvalidateDescriptor,
)
from vtd.layouts.entries import PasidTranslationType
from vtd.layouts.registers import ContextGranularity, IotlbGranularity
from vtd.software.invalidation_rules import Rule
from vtd.unit.registers.capabilities import Capabilities

RID_PASID = 0
"""PASID of requests without PASID; the driver leaves RID_PASID of context entries at 0 (9.4)."""
ABSENT_DOMAIN = 0
"""Domain-id that tags what a unit with CM = 1 keeps of entries that fault (6.2.2, 6.2.3)."""
MANY = 32
"""From so many page-selective invalidations on, one of the whole domain or PASID is cheaper."""
PAGE_SIZE = 0x1000
WHOLE_DEVICE_TLB = 0x7FFF_FFFF_FFFF_F000
"""ADDR, with S = 1, of a global device-TLB invalidation (6.5.3.3)."""

Range = tuple[int, int]
"""Input addresses: the first, and the first after the last."""


class Owed(NamedTuple):
    """A descriptor, and the rule that demands it."""

    rule: Rule
    descriptor: Descriptor


class Endpoint(NamedTuple):
    """A function, and how its device-TLB is reached."""

    source_id: int
    ats: bool = False
    """Whether it has a device-TLB that is enabled."""
    page_requests: bool = False
    """Whether it may ask for pages."""
    physical_function: int | None = None
    """Source-id of the physical function of a virtual one (PFSID, 6.5.2.5)."""
    max_pending: int = 0
    """Invalidations that it takes at a time without throttling (MIP); 0 is 32."""


class User(NamedTuple):
    """A PASID of a function, or its requests without PASID, and the domain that it uses."""

    endpoint: Endpoint
    pasid: int | None
    domain_id: int
    kind: PasidTranslationType
    """Legacy mode: second stage or pass-through."""

    @property
    def table_pasid(self) -> int:
        """Where its entry is in the PASID table, and the tag of what is cached (6.2.1)."""
        return RID_PASID if self.pasid is None else self.pasid

    @property
    def has_second_stage(self) -> bool:
        return self.kind in (PasidTranslationType.SECOND_STAGE, PasidTranslationType.NESTED)


class Guidance:
    """The rules for a unit with these capabilities, in legacy or scalable mode."""

    def __init__(self, capabilities: Capabilities, *, scalable: bool) -> None:
        self._cap = capabilities.cap
        self._scalable = scalable
        self._throttled = "dit" in capabilities.features

    def root_pointer(self) -> Iterator[Owed]:
        """Set Root Table Pointer (6.6): nothing is owed where hardware does it (ESRTPS)."""
        if not self._cap.esrtps:
            yield from self._everything(
                Rule.ROOT_POINTER_CONTEXT, Rule.ROOT_POINTER_PASID, Rule.ROOT_POINTER_IOTLB
            )

    def root_entry_added(self) -> Iterator[Owed]:
        """A root entry, or half of one, became present: it may be cached as absent (CM = 1)."""
        if self._cap.cm:
            yield from self._everything(
                Rule.ROOT_ENTRY_CONTEXT, Rule.ROOT_ENTRY_PASID, Rule.ROOT_ENTRY_IOTLB
            )

    def context_entry_added(self, endpoint: Endpoint) -> Iterator[Owed]:
        """A context entry became present; no device-TLB keeps that it was absent."""
        if self._cap.cm:
            yield from self._context_entry(endpoint, [ABSENT_DOMAIN])

    def context_entry_removed(
        self, endpoint: Endpoint, domain_ids: Iterable[int]
    ) -> Iterator[Owed]:
        """A context entry that led to these domains is no longer present.

        Without any, and without entries that are cached as absent, only the context-cache is left.
        """
        absent = [ABSENT_DOMAIN] if self._cap.cm else []
        yield from self._context_entry(endpoint, sorted(domain_ids) or absent)
        yield from self._device_tlb(Rule.CONTEXT_ENTRY_DEVICE_TLB, endpoint, None, None)

    def pasid_directory_entry_added(self) -> Iterator[Owed]:
        """A PASID directory entry became present: any of its PASIDs may be cached as absent."""
        if self._cap.cm:
            granularity = PasidCacheGranularity.DOMAIN
            yield Owed(
                Rule.PASID_DIRECTORY_PASID,
                PasidCacheInvalidateDescriptor.of(g=granularity, did=ABSENT_DOMAIN),
            )
            yield self._iotlb_domain(Rule.PASID_DIRECTORY_IOTLB, ABSENT_DOMAIN)

    def pasid_entry_added(self, user: User) -> Iterator[Owed]:
        """A PASID entry became present; no device-TLB keeps that it was absent."""
        if self._cap.cm:
            yield from self._pasid_entry(user._replace(domain_id=ABSENT_DOMAIN), whole=False)

    def pasid_entry_removed(self, user: User) -> Iterator[Owed]:
        """P went from 1 to 0."""
        yield from self._pasid_entry(user, whole=user.has_second_stage)
        yield from self._device_tlb(Rule.PASID_ENTRY_DEVICE_TLB, user.endpoint, user.pasid, None)

    def ssade_changed(self, user: User, *, enabled: bool) -> Iterator[Owed]:
        """SSADE changed; from 0 to 1 it is a row of its own, from 1 to 0 a field like others."""
        yield from self._pasid_entry(user, whole=enabled)
        yield from self._device_tlb(Rule.PASID_ENTRY_DEVICE_TLB, user.endpoint, user.pasid, None)

    def domain_id_given_up(self, domain_id: int) -> Iterator[Owed]:
        """A domain-id may be used again; device-TLBs lost what they had with the entries."""
        cache: Descriptor = ContextCacheInvalidateDescriptor.of(
            g=ContextGranularity.DOMAIN, did=domain_id
        )
        if self._scalable:
            cache = PasidCacheInvalidateDescriptor.of(g=PasidCacheGranularity.DOMAIN, did=domain_id)
        yield Owed(Rule.DOMAIN_REUSE_CACHE, cache)
        yield self._iotlb_domain(Rule.DOMAIN_REUSE_IOTLB, domain_id)

    def first_stage(
        self, users: Sequence[User], ranges: Sequence[Range], *, leaves_only: bool
    ) -> Iterator[Owed]:
        """Present first-stage entries of the ranges changed; ``leaves_only`` becomes IH."""
        blocks = self._blocks(ranges)
        for domain_id, pasid in sorted({(user.domain_id, user.table_pasid) for user in users}):
            of = {"did": domain_id, "pasid": pasid}
            if blocks is None:
                granularity = PasidIotlbGranularity.PASID
                whole = PasidIotlbInvalidateDescriptor.of(g=granularity, **of)
                yield Owed(Rule.FIRST_STAGE_IOTLB, whole)
                continue
            for address, mask in blocks:
                granularity = PasidIotlbGranularity.PAGE_IN_PASID
                pages = PasidIotlbInvalidateDescriptor.of(
                    g=granularity, addr=address, am=mask, ih=leaves_only, **of
                )
                yield Owed(Rule.FIRST_STAGE_IOTLB, pages)
        for user in users:
            yield from self._device_tlb(
                Rule.FIRST_STAGE_DEVICE_TLB, user.endpoint, user.pasid, blocks
            )

    def second_stage(
        self, users: Sequence[User], ranges: Sequence[Range], *, leaves_only: bool
    ) -> Iterator[Owed]:
        """Second-stage entries of the ranges changed; ``leaves_only`` becomes IH.

        What a device-TLB has under nesting is not found by second-stage addresses: all of it goes.
        """
        blocks = self._blocks(ranges)
        for domain_id in sorted({user.domain_id for user in users}):
            if blocks is None or not self._cap.psi:
                yield self._iotlb_domain(Rule.SECOND_STAGE_IOTLB, domain_id)
                continue
            for address, mask in blocks:
                pages = IotlbInvalidateDescriptor.of(
                    g=IotlbGranularity.PAGE_IN_DOMAIN,
                    dr=True,
                    dw=True,
                    did=domain_id,
                    addr=address,
                    am=mask,
                    ih=leaves_only,
                )
                yield Owed(Rule.SECOND_STAGE_IOTLB, pages)
        for user in users:
            nested = user.kind is PasidTranslationType.NESTED
            yield from self._device_tlb(
                Rule.SECOND_STAGE_DEVICE_TLB, user.endpoint, user.pasid, None if nested else blocks
            )

    def interrupt_pointer(self) -> Iterator[Owed]:
        """Set Interrupt Remapping Table Pointer (6.7)."""
        if not self._cap.esirtps:
            everything = InterruptEntryCacheInvalidateDescriptor.of(g=InterruptGranularity.GLOBAL)
            yield Owed(Rule.INTERRUPT_POINTER, everything)

    def interrupt_entry_added(self, index: int) -> Iterator[Owed]:
        """An interrupt-remapping entry became present: it may be cached as absent (6.4)."""
        if self._cap.cm:
            yield from self.interrupt_entry_changed(index)

    def interrupt_entry_changed(self, index: int) -> Iterator[Owed]:
        """A present interrupt-remapping entry changed or was taken away (6.5.2.8)."""
        entry = InterruptEntryCacheInvalidateDescriptor.of(g=InterruptGranularity.INDEX, iidx=index)
        yield Owed(Rule.INTERRUPT_ENTRY, entry)

    def _everything(self, context: Rule, pasid: Rule, iotlb: Rule) -> Iterator[Owed]:
        granularity = ContextGranularity.GLOBAL
        yield Owed(context, ContextCacheInvalidateDescriptor.of(g=granularity))
        if self._scalable:
            entries = PasidCacheInvalidateDescriptor.of(g=PasidCacheGranularity.GLOBAL)
            yield Owed(pasid, entries)
        everything = IotlbInvalidateDescriptor.of(g=IotlbGranularity.GLOBAL, dr=True, dw=True)
        yield Owed(iotlb, everything)

    def _context_entry(self, endpoint: Endpoint, domain_ids: Sequence[int]) -> Iterator[Owed]:
        device = ContextGranularity.DEVICE
        for domain_id in [0] if self._scalable else domain_ids:  # 6.5.2.1: no tag in scalable mode
            cache = ContextCacheInvalidateDescriptor.of(
                g=device, sid=endpoint.source_id, did=domain_id
            )
            yield Owed(Rule.CONTEXT_ENTRY_CONTEXT, cache)
        if self._scalable:
            for domain_id in domain_ids:
                entries = PasidCacheInvalidateDescriptor.of(
                    g=PasidCacheGranularity.DOMAIN, did=domain_id
                )
                yield Owed(Rule.CONTEXT_ENTRY_PASID, entries)
        for domain_id in domain_ids:
            yield self._iotlb_domain(Rule.CONTEXT_ENTRY_IOTLB, domain_id)

    def _pasid_entry(self, user: User, *, whole: bool) -> Iterator[Owed]:
        granularity = PasidCacheGranularity.PASID_IN_DOMAIN
        entry = PasidCacheInvalidateDescriptor.of(
            g=granularity, did=user.domain_id, pasid=user.table_pasid
        )
        yield Owed(Rule.PASID_ENTRY_PASID, entry)
        if whole:
            yield self._iotlb_domain(Rule.PASID_ENTRY_DOMAIN_IOTLB, user.domain_id)
        else:
            yield from self._pasid_iotlb(Rule.PASID_ENTRY_IOTLB, user)

    def _pasid_iotlb(self, rule: Rule, user: User) -> Iterator[Owed]:
        descriptor = PasidIotlbInvalidateDescriptor.of(
            g=PasidIotlbGranularity.PASID, did=user.domain_id, pasid=user.table_pasid
        )
        yield Owed(rule, descriptor)

    def _iotlb_domain(self, rule: Rule, domain_id: int) -> Owed:
        granularity = IotlbGranularity.DOMAIN
        return Owed(
            rule, IotlbInvalidateDescriptor.of(g=granularity, dr=True, dw=True, did=domain_id)
        )

    def _device_tlb(
        self,
        rule: Rule,
        endpoint: Endpoint,
        pasid: int | None,
        blocks: Sequence[tuple[int, int]] | None,
    ) -> Iterator[Owed]:
        """A device-TLB, or the blocks of it (6.5.2.5, 6.5.2.6)."""
        if not endpoint.ats:
            return
        fields: dict[str, int] = {"sid": endpoint.source_id, "mip": endpoint.max_pending & 31}
        if self._throttled:
            physical = endpoint.physical_function
            pfsid = endpoint.source_id if physical is None else physical
            fields |= {"pfsid_3_0": pfsid & 0xF, "pfsid_15_4": pfsid & 0xFFF0}
        places = (
            [(WHOLE_DEVICE_TLB, True)] if blocks is None else [_sized(*each) for each in blocks]
        )
        for address, size in places:
            where = {"addr": address, "s": size}
            if pasid is None:
                yield Owed(rule, DeviceTlbInvalidateDescriptor.of(**fields, **where))
            else:
                yield Owed(
                    rule, PasidDeviceTlbInvalidateDescriptor.of(**fields, **where, pasid=pasid)
                )

    def _blocks(self, ranges: Sequence[Range]) -> list[tuple[int, int]] | None:
        """Ranges as naturally aligned blocks, address and AM (Table 22); None if they are many.

        A page that a range covers lies in one block, as 6.5.3.3 wants it, if MAMV allows that.
        """
        found = (block for start, end in ranges for block in _aligned(start, end, self._cap.mamv))
        blocks = list(islice(found, MANY))
        return blocks if len(blocks) < MANY else None


def _aligned(start: int, end: int, largest: int) -> Iterator[tuple[int, int]]:
    while start < end:
        mask = 0
        while (
            mask < largest
            and not start & (PAGE_SIZE << mask)
            and start + (PAGE_SIZE << mask + 1) <= end
        ):
            mask += 1
        yield start, mask
        start += PAGE_SIZE << mask


def _sized(address: int, mask: int) -> tuple[int, bool]:
    """ADDR and S: the lowest clear bit of the address says how much (ATS, translation size)."""
    if not mask:
        return address, False
    return address | (PAGE_SIZE << mask - 1) - PAGE_SIZE, True
