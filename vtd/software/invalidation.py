"""Having invalidations carried out: through the queue or registers, in batches, waited for.

VT-d 6.5.1, 6.5.2, 6.8. Frames that were taken out of tables are given back only when an
invalidation later than the change is complete (6.5.3.6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol

from pagetables.bits import BitRecord
from pagetables.build import FrameAllocator
from vtd.layouts.descriptors import DescriptorType
from vtd.layouts.registers import FaultStatus
from vtd.software.guidance import Owed
from vtd.software.registers import PATIENCE, NoAnswerError, Registers, command, read

BATCH = 64
"""Descriptors between two wait descriptors: fewer than any queue holds."""


class Interface(Protocol):
    """The queue, or registers taken with the descriptors of the queue."""

    def submit(self, *descriptors: BitRecord) -> None: ...

    def wait(self, *, drain_page_requests: bool = False, fence: bool = False) -> bool: ...

    @property
    def complete(self) -> bool: ...


class Invalidator:
    """Carries out what is owed to ``unit``. ``flushes_writes``: CAP_REG.RWBF."""

    def __init__(self, unit: Registers, interface: Interface, *, flushes_writes: bool) -> None:
        self._unit = unit
        self.interface = interface
        """How invalidations reach the unit; something that looks at them may be put in front."""
        self._flushes_writes = flushes_writes
        self._quarantine: list[tuple[FrameAllocator, int]] = []

    def carry_out(self, owed: Iterable[Owed]) -> None:
        """Have descriptors carried out and wait for them; without any, have stores seen.

        NoAnswerError if the unit does not complete them: quarantined frames then stay out of use
        until a later invalidation is complete.
        """
        descriptors = iter([each.descriptor for each in owed])
        if not self._submit(descriptors):
            self.flush_writes()
        while self._submit(descriptors):
            pass
        self.give_back()

    def _submit(self, descriptors: Iterator[BitRecord]) -> bool:
        """Carry out one batch; whether there was any."""
        batch = list(islice(descriptors, BATCH))
        if batch:
            self.interface.submit(*batch)
            self._await(self.interface.wait())
        return bool(batch)

    def drain(self, invalidate: Callable[[], None]) -> None:
        """Page requests and responses between two wait descriptors (7.10, steps a to c)."""
        self.interface.wait(fence=True)
        invalidate()
        self._await(self.interface.wait(drain_page_requests=True))

    def _await(self, complete: bool) -> None:
        for _ in range(PATIENCE):
            if complete:
                return
            complete = self.interface.complete
        status = read(self._unit, FaultStatus)
        raise NoAnswerError(f"invalidations are not complete; FSTS_REG is {status}")

    def flush_writes(self) -> None:
        """Make stores visible that no invalidation follows (6.8)."""
        if self._flushes_writes:
            command(self._unit, wbf=True)

    def quarantine(self, allocator: FrameAllocator, frames: Sequence[int]) -> None:
        """Give frames back once the next invalidation is complete."""
        self._quarantine += [(allocator, frame) for frame in frames]

    def give_back(self) -> None:
        """Give quarantined frames back: what was submitted is complete."""
        for allocator, frame in self._quarantine:
            allocator.free(frame)
        self._quarantine.clear()


_ORDER = (
    (DescriptorType.CC_INV,),
    (DescriptorType.PC_INV,),
    (DescriptorType.IOTLB_INV, DescriptorType.P_IOTLB_INV),
    (DescriptorType.DEV_TLB_INV, DescriptorType.P_DEV_TLB_INV),
)
"""Context-cache, PASID-cache, IOTLB, device-TLB (6.2.2.1, 6.2.3.1, 6.5.2.5)."""


def in_order(owed: Iterable[Owed]) -> list[Owed]:
    """What several changes owe, together and without repetition, in the order of the caches."""
    unique = list(dict.fromkeys(owed))
    return [each for types in _ORDER for each in unique if each.descriptor.TYPE in types]
