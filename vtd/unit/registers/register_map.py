"""Where the registers of a unit sit in its register window (VT-d 11.4, 11.4.13.1).

Most offsets are fixed. CAP.FRO and ECAP.IRO place the fault recording and IOTLB registers, and the
offset registers of performance monitoring its counters. MTRRCAP_REG says which ranges there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from itertools import pairwise
from typing import TypeVar

from vtd.layouts.registers import (
    Capability,
    ExtendedCapability,
    FaultRecording,
    InvalidateAddress,
    IotlbInvalidate,
    MtrrCapability,
    PerformanceMonitoringAddressTypeFilter,
    PerformanceMonitoringCapability,
    PerformanceMonitoringConfigurationOffset,
    PerformanceMonitoringCounter,
    PerformanceMonitoringCounterCapability,
    PerformanceMonitoringCounterConfiguration,
    PerformanceMonitoringCounterEventCapability,
    PerformanceMonitoringCounterOffset,
    PerformanceMonitoringDomainIdFilter,
    PerformanceMonitoringFreezeOffset,
    PerformanceMonitoringFreezeStatus,
    PerformanceMonitoringOverflowOffset,
    PerformanceMonitoringOverflowStatus,
    PerformanceMonitoringPageTableLevelFilter,
    PerformanceMonitoringPasidFilter,
    PerformanceMonitoringRequesterIdFilter,
    Register,
    VariableRangeMtrrBase,
    VariableRangeMtrrMask,
)

R = TypeVar("R", bound=Register)

Place = tuple[type[Register], int]
"""A register and its index, which is 0 where there is only one."""

REGISTERS: tuple[type[Register], ...] = tuple(Register.__subclasses__())

IN_COUNTER_BLOCK: Mapping[type[Register], int] = {
    PerformanceMonitoringCounterConfiguration: 0x00,
    PerformanceMonitoringRequesterIdFilter: 0x08,
    PerformanceMonitoringDomainIdFilter: 0x0C,
    PerformanceMonitoringPasidFilter: 0x10,
    PerformanceMonitoringAddressTypeFilter: 0x14,
    PerformanceMonitoringPageTableLevelFilter: 0x18,
    PerformanceMonitoringCounterCapability: 0x80,
}
"""Offsets in the configuration block that each counter has (Figure 11-43)."""

EVENT_CAPABILITIES = 16
"""The index of a PERFCNTREVCAP_REG is the counter's number times this, plus its own number."""


def register_map(
    features: Set[str],
    cap: Capability,
    ecap: ExtendedCapability,
    constants: Mapping[int, int],
) -> dict[Place, int]:
    """The offset of every register that a unit of these features has.

    ``constants`` holds the values of read-only registers, 64 bits at each multiple of 8; those of
    performance monitoring decide which counters there are, MTRRCAP_REG which ranges.
    """

    def constant(register: type[R], offset: int) -> R:
        both_halves = constants.get(offset & ~7, 0)
        return register(both_halves >> (offset & 7) * 8 & (1 << register.WIDTH) - 1)

    mtrrcap = constant(MtrrCapability, 0x100)
    perfcap = constant(PerformanceMonitoringCapability, 0x300)
    present = features | mtrrcap.flags() | perfcap.flags()
    limits = {VariableRangeMtrrBase: mtrrcap.vcnt, VariableRangeMtrrMask: mtrrcap.vcnt}
    offsets: dict[Place, int] = {}

    def add(
        register: type[Register], start: int, indexes: range, stride: int | None = None
    ) -> None:
        if register.NEEDS is None or register.NEEDS in present:
            for number, index in enumerate(indexes):
                offsets[register, index] = start + number * (stride or register.STRIDE)

    for register in REGISTERS:
        if register.OFFSET is not None:
            count = min(register.COUNT, limits.get(register, register.COUNT))
            add(register, register.OFFSET, range(count))
    add(FaultRecording, cap.fro, range(cap.nfr + 1))
    offsets |= {(InvalidateAddress, 0): ecap.iro, (IotlbInvalidate, 0): ecap.iro + 8}
    if "pms" not in features:
        return offsets

    counters = range(perfcap.ncntr)
    statuses = range(-(-perfcap.ncntr // 64))
    blocks = constant(PerformanceMonitoringConfigurationOffset, 0x310).cfgo
    frozen = constant(PerformanceMonitoringFreezeOffset, 0x314).fzo
    overflowed = constant(PerformanceMonitoringOverflowOffset, 0x318).ofo
    values = constant(PerformanceMonitoringCounterOffset, 0x31C).cnto
    add(PerformanceMonitoringFreezeStatus, frozen, statuses)
    add(PerformanceMonitoringOverflowStatus, overflowed, statuses)
    add(PerformanceMonitoringCounter, values, counters, 1 << perfcap.cs + 10)
    for register, offset in IN_COUNTER_BLOCK.items():
        add(register, blocks + offset, counters)
    for counter in counters:
        block = blocks + counter * 0x100
        groups = constant(PerformanceMonitoringCounterCapability, block + 0x80).egcnt
        first = counter * EVENT_CAPABILITIES
        indexes = range(first, first + groups)
        add(PerformanceMonitoringCounterEventCapability, block + 0x84, indexes)
    return offsets


def overlaps(offsets: Mapping[Place, int]) -> list[tuple[type[Register], type[Register]]]:
    """Pairs of registers of which one lies on the other, by rising offset."""
    spans = sorted(
        (offset, offset + register.WIDTH // 8, register.__name__, register)
        for (register, _), offset in offsets.items()
    )
    return [(one[3], other[3]) for one, other in pairwise(spans) if one[1] > other[0]]
