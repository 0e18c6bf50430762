"""Register-based invalidation, taken with the descriptors of the queue (VT-d 6.5.1, 11.4.6).

It reaches the context-cache and the second-stage entries of the IOTLB, in legacy mode alone, and
not in major version 6 or later. Each command is complete before the next.
"""

from __future__ import annotations

from pagetables.bits import BitRecord
from vtd.layouts.descriptors import ContextCacheInvalidateDescriptor, IotlbInvalidateDescriptor
from vtd.layouts.registers import (
    ContextCommand,
    InvalidateAddress,
    IotlbGranularity,
    IotlbInvalidate,
)
from vtd.software.registers import PATIENCE, NoAnswerError, Registers, read, write


class RegisterDriver:
    """CCMD_REG, and IVA_REG and IOTLB_REG at ``iotlb_offset`` (ECAP_REG.IRO)."""

    def __init__(self, unit: Registers, iotlb_offset: int) -> None:
        self._unit = unit
        self._iotlb_offset = iotlb_offset

    def submit(self, *descriptors: BitRecord) -> None:
        """Carry out cc_inv_dsc and iotlb_inv_dsc; ValueError for others, which need the queue."""
        for descriptor in descriptors:
            match descriptor:
                case ContextCacheInvalidateDescriptor():
                    self._invalidate_context(descriptor)
                case IotlbInvalidateDescriptor():
                    self._invalidate_iotlb(descriptor)
                case _:
                    raise ValueError(f"{descriptor} has no register (6.5.1)")

    def wait(self, *, drain_page_requests: bool = False, fence: bool = False) -> bool:
        """True: commands are complete when :meth:`submit` returns."""
        return True

    @property
    def complete(self) -> bool:
        """True, as after :meth:`wait`."""
        return True

    def _invalidate_context(self, descriptor: ContextCacheInvalidateDescriptor) -> None:
        request = ContextCommand.of(
            icc=True, cirg=descriptor.g, did=descriptor.did, sid=descriptor.sid, fm=descriptor.fm
        )
        write(self._unit, request)
        for _ in range(PATIENCE):
            done = read(self._unit, ContextCommand)
            if not done.icc:
                break
        if done.icc or not done.caig:
            raise NoAnswerError(f"CCMD_REG: {request} was not carried out")

    def _invalidate_iotlb(self, descriptor: IotlbInvalidateDescriptor) -> None:
        where = InvalidateAddress.of(addr=descriptor.addr, ih=descriptor.ih, am=descriptor.am)
        self._unit.write_register(self._iotlb_offset, 8, where)
        request = IotlbInvalidate.of(
            ivt=True,
            iirg=descriptor.g,
            dr=descriptor.dr,
            dw=descriptor.dw,
            did=descriptor.did,
        )
        self._unit.write_register(self._iotlb_offset + 8, 8, request)
        for _ in range(PATIENCE):
            done = IotlbInvalidate(self._unit.read_register(self._iotlb_offset + 8, 8))
            if not done.ivt:
                break
        if done.ivt or done.iaig is IotlbGranularity.RESERVED_0:
            raise NoAnswerError(f"IOTLB_REG: {request} was not carried out")
