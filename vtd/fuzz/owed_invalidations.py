"""What software owes a unit after it changed a structure: the invalidations of VT-d 6.5.3.3.

They go to the queue, or to registers where the unit has none (11.4.6). One rule may be dropped: the
driver that does so is the one whose stale uses an audit has to find. What one change calls for is
waited for together (6.5.2.9). Left out: device-TLBs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from pagetables.walk import ADDRESS
from vtd.fuzz.case import Step, mem_write, reg_write
from vtd.fuzz.places import QUEUE, STATUS
from vtd.layouts.descriptors import (
    ContextCacheInvalidateDescriptor,
    InterruptEntryCacheInvalidateDescriptor,
    InterruptGranularity,
    InvalidationWaitDescriptor,
    IotlbInvalidateDescriptor,
    PasidCacheGranularity,
    PasidCacheInvalidateDescriptor,
    PasidIotlbGranularity,
    PasidIotlbInvalidateDescriptor,
)
from vtd.layouts.registers import ContextGranularity, IotlbGranularity
from vtd.unit.registers.capabilities import Capabilities

MANY = 32
"""More invalidations of pages than this are one of the whole domain or PASID."""


class InvalidationRule(Enum):
    """An invalidation that software owes, and when (6.5.3.3)."""

    CONTEXT_CACHE = "context entry changed: context cache, device-selective"
    PASID_CACHE = "PASID entry changed: PASID cache, PASID-selective"
    DOMAIN_AFTER_CONTEXT = "context entry changed: IOTLB of the domain"
    IOTLB_AFTER_PASID = "PASID entry changed: IOTLB of the PASID or domain"
    PAGES_AFTER_UNMAP = "second-stage entries changed: IOTLB pages of the domain"
    PASID_PAGES_AFTER_UNMAP = "first-stage entries changed: IOTLB pages of each PASID"
    DOMAIN_REUSE = "domain-id used again: context or PASID cache and IOTLB of the domain"
    INTERRUPT_ENTRY = "interrupt-remapping entry changed: interrupt entry cache"
    HINT_CLEAR = "non-leaf entries changed: IH = 0"


class OwedInvalidations:
    """Adds to ``steps`` what is owed for each change, but for the rule that is dropped."""

    def __init__(
        self,
        capabilities: Capabilities,
        steps: list[Step],
        *,
        scalable: bool,
        drop: InvalidationRule | None,
        coarse: int = 0,
    ) -> None:
        self._coarse = coarse
        self._capabilities = capabilities
        self._steps = steps
        self._scalable = scalable
        self._drop = drop
        self._tail = 0
        self._silent = False
        self._unclosed = False
        """Whether descriptors were given that nobody has waited for."""

    def context_entry(self, domain_id: int, source_id: int, function_mask: int = 0) -> None:
        """A context entry led to a domain."""
        cache = ContextCacheInvalidateDescriptor.of(
            g=ContextGranularity.DEVICE, did=domain_id, sid=source_id, fm=function_mask
        )
        self._give(InvalidationRule.CONTEXT_CACHE, cache)
        self._give(InvalidationRule.DOMAIN_AFTER_CONTEXT, _domain_iotlb(domain_id))
        self._wait()

    def absent_pasid_entry(self, domain_id: int, pasid: int) -> None:
        """A PASID entry was not present, which caching mode lets a unit remember."""
        self._pasid_cache(domain_id, pasid)
        self._wait()

    def _pasid_cache(self, domain_id: int, pasid: int) -> None:
        cache = PasidCacheInvalidateDescriptor.of(
            g=PasidCacheGranularity.PASID_IN_DOMAIN, did=domain_id, pasid=pasid
        )
        self._give(InvalidationRule.PASID_CACHE, cache)

    def pasid_entry(self, domain_id: int, pasid: int, *, whole_domain: bool) -> None:
        """A PASID entry led to a domain, of which all may be cached or what the PASID used."""
        self._pasid_cache(domain_id, pasid)
        descriptor = _domain_iotlb(domain_id)
        if not whole_domain:
            descriptor = PasidIotlbInvalidateDescriptor.of(
                g=PasidIotlbGranularity.PASID, did=domain_id, pasid=pasid
            )
        self._give(InvalidationRule.IOTLB_AFTER_PASID, descriptor)
        self._wait()

    def reused_domain(self, domain_id: int) -> None:
        """A domain-id stands for another address space."""
        cache: int = ContextCacheInvalidateDescriptor.of(g=ContextGranularity.DOMAIN, did=domain_id)
        if self._scalable:
            granularity = PasidCacheGranularity.DOMAIN
            cache = PasidCacheInvalidateDescriptor.of(g=granularity, did=domain_id)
        self._give(InvalidationRule.DOMAIN_REUSE, cache)
        self._give(InvalidationRule.DOMAIN_REUSE, _domain_iotlb(domain_id))
        self._wait()

    def pages(self, domain_id: int, address: int, length: int, *, hint: bool) -> None:
        """Second-stage entries of a range changed; ``hint``: leaf entries only."""
        cap = self._capabilities.cap
        if not cap.psi or length >> 12 >> cap.mamv > MANY:
            self._give(InvalidationRule.PAGES_AFTER_UNMAP, _domain_iotlb(domain_id))
            self._wait()
            return
        for start, mask in _aligned(address & ADDRESS, length, cap.mamv):
            descriptor = IotlbInvalidateDescriptor.of(
                g=IotlbGranularity.PAGE_IN_DOMAIN,
                dr=True,
                dw=True,
                did=domain_id,
                addr=start,
                am=mask,
                ih=self._hint(hint),
            )
            self._give(InvalidationRule.PAGES_AFTER_UNMAP, descriptor)
        self._wait()

    def pasid_pages(
        self, domain_id: int, pasid: int, address: int, length: int, *, hint: bool
    ) -> None:
        """First-stage entries of a range changed, which a PASID uses; ``hint``: leaves only."""
        if length >> 12 >> self._capabilities.cap.mamv > MANY:
            everything = PasidIotlbInvalidateDescriptor.of(
                g=PasidIotlbGranularity.PASID, did=domain_id, pasid=pasid
            )
            self._give(InvalidationRule.PASID_PAGES_AFTER_UNMAP, everything)
            self._wait()
            return
        for start, mask in _aligned(address, length, self._capabilities.cap.mamv):
            descriptor = PasidIotlbInvalidateDescriptor.of(
                g=PasidIotlbGranularity.PAGE_IN_PASID,
                did=domain_id,
                pasid=pasid,
                addr=start,
                am=mask,
                ih=self._hint(hint),
            )
            self._give(InvalidationRule.PASID_PAGES_AFTER_UNMAP, descriptor)
        self._wait()

    def root_table(self) -> None:
        """Another root table pointer; never dropped. Nothing where hardware does it (ESRTPS)."""
        if not self._capabilities.cap.esrtps:
            self.everything()

    def everything(self) -> None:
        """All that may be cached for DMA; never dropped (6.6)."""
        self._give(None, ContextCacheInvalidateDescriptor.of(g=ContextGranularity.GLOBAL))
        if self._scalable:
            self._give(None, PasidCacheInvalidateDescriptor.of(g=PasidCacheGranularity.GLOBAL))
        self._give(None, IotlbInvalidateDescriptor.of(g=IotlbGranularity.GLOBAL, dr=True, dw=True))
        self._wait()

    @contextmanager
    def nothing(self) -> Iterator[None]:
        """For as long as hardware forgets by itself."""
        self._silent = True
        yield
        self._silent = False

    def interrupt_entry(self, index: int) -> None:
        """An interrupt-remapping entry changed."""
        cache = InterruptEntryCacheInvalidateDescriptor.of(g=InterruptGranularity.INDEX, iidx=index)
        self._give(InvalidationRule.INTERRUPT_ENTRY, cache)
        self._wait()

    def interrupt_table(self) -> None:
        """Another interrupt-remapping table; never dropped."""
        self._give(None, InterruptEntryCacheInvalidateDescriptor.of())
        self._wait()

    def _hint(self, hint: bool) -> bool:
        return hint or self._drop is InvalidationRule.HINT_CLEAR

    def _give(self, rule: InvalidationRule | None, descriptor: int) -> None:
        if self._silent or (rule is not None and rule is self._drop):
            return
        descriptor = _coarser(descriptor, self._coarse)
        if "qi" in self._capabilities.features:
            self.enqueue(descriptor)
            self._unclosed = True
        else:
            self._by_register(descriptor)

    def _wait(self) -> None:
        """Nothing is to be waited for where registers invalidate (6.5.1)."""
        if self._unclosed:
            self.enqueue(
                InvalidationWaitDescriptor.of(sw=True, status_data=1, status_address=STATUS)
            )
            self._unclosed = False

    def restart(self) -> None:
        """The next descriptor goes to the first place of the queue."""
        self._tail = 0
        self._steps.append(reg_write(0x88, 8, 0))

    def enqueue(self, descriptor: int) -> None:
        """Write a descriptor and move the tail."""
        size = 32 if self._scalable else 16
        self._steps.append(mem_write(QUEUE + self._tail, descriptor.to_bytes(size, "little")))
        self._tail = (self._tail + size) % 4096
        self._steps.append(reg_write(0x88, 8, self._tail))

    def _by_register(self, descriptor: int) -> None:
        """CCMD_REG, or IVA_REG and IOTLB_REG."""
        if descriptor & 0xF == 1:
            context = ContextCacheInvalidateDescriptor(descriptor)
            value = 1 << 63 | context.g << 61 | context.fm << 32 | context.sid << 16 | context.did
            self._steps.append(reg_write(0x28, 8, value))
            return
        iotlb = IotlbInvalidateDescriptor(descriptor)
        offset = self._capabilities.iotlb_offset
        where = iotlb.addr | iotlb.ih << 6 | iotlb.am
        self._steps += (
            reg_write(offset, 8, where),
            reg_write(
                offset + 8,
                8,
                1 << 63 | iotlb.g << 60 | iotlb.dr << 49 | iotlb.dw << 48 | iotlb.did << 32,
            ),
        )


def _coarser(descriptor: int, steps: int) -> int:
    """The same kind of invalidation, of a domain (1) or of everything (2) where it is of less.

    First-stage pages become all of their PASID: that is what p_iotlb_inv has besides (6.5.2.4).
    """
    everything = steps == 2
    match descriptor:
        case _ if not steps:
            pass
        case ContextCacheInvalidateDescriptor(g=ContextGranularity.DEVICE):
            wide = ContextGranularity.GLOBAL if everything else ContextGranularity.DOMAIN
            descriptor = descriptor.replace(g=wide, sid=0, fm=0)
        case PasidCacheInvalidateDescriptor(g=PasidCacheGranularity.PASID_IN_DOMAIN):
            whole = PasidCacheGranularity.GLOBAL if everything else PasidCacheGranularity.DOMAIN
            descriptor = descriptor.replace(g=whole, pasid=0)
        case IotlbInvalidateDescriptor(g=IotlbGranularity.PAGE_IN_DOMAIN):
            large = IotlbGranularity.GLOBAL if everything else IotlbGranularity.DOMAIN
            descriptor = descriptor.replace(g=large, am=0, ih=False, addr=0)
        case PasidIotlbInvalidateDescriptor(g=PasidIotlbGranularity.PAGE_IN_PASID):
            pasid = PasidIotlbGranularity.PASID
            descriptor = descriptor.replace(g=pasid, am=0, ih=False, addr=0)
        case InterruptEntryCacheInvalidateDescriptor(g=InterruptGranularity.INDEX):
            descriptor = InterruptEntryCacheInvalidateDescriptor.of()
    return descriptor


def _domain_iotlb(domain_id: int) -> int:
    return IotlbInvalidateDescriptor.of(g=IotlbGranularity.DOMAIN, dr=True, dw=True, did=domain_id)


def _aligned(address: int, length: int, largest: int) -> Iterator[tuple[int, int]]:
    """A range as naturally aligned powers of two: start and address mask, in pages."""
    end = address + length
    while address < end:
        mask = 0
        while (
            mask < largest
            and not address >> 12 & (2 << mask) - 1
            and address + (0x2000 << mask) <= end
        ):
            mask += 1
        yield address & (1 << 64) - 1, mask
        address += 0x1000 << mask
