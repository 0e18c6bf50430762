"""Errors of the invalidation queue: the descriptors that a kernel prints, and whom they name.

VT-d 6.5.2 (descriptors) and 11.4.9.9 (IQERCD_REG). Linux prints the descriptor at the head of the
queue and the one before it: after a time-out the head is the wait, and what did not complete is the
device-TLB invalidation before it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from devices.source_id import SourceId
from vtd.layouts.descriptors import (
    DESCRIPTORS,
    DescriptorHead,
    DescriptorType,
    DeviceTlbInvalidateDescriptor,
    PasidDeviceTlbInvalidateDescriptor,
)
from vtd.layouts.registers import InvalidationQueueErrorInfo

_DESCRIPTOR = re.compile(
    r"(?:qw0 = |low ?= ?)(?:0x)?([0-9a-f]{1,16}), (?:qw1 = |high ?= ?)(?:0x)?([0-9a-f]{1,16})",
    re.ASCII,
)
_SID = re.compile(r"(?:Time-?out|Completion) Error: SID ([0-9a-f]{1,4})\b", re.ASCII)
_REASON = re.compile(r"Invalidation Queue Error: Reason ([0-9a-f]+)", re.ASCII)
_NAMES = {
    DescriptorType.CC_INV: "context-cache invalidation",
    DescriptorType.IOTLB_INV: "IOTLB invalidation",
    DescriptorType.DEV_TLB_INV: "device-TLB invalidation",
    DescriptorType.IEC_INV: "interrupt-entry-cache invalidation",
    DescriptorType.INV_WAIT: "wait",
    DescriptorType.P_IOTLB_INV: "PASID-based IOTLB invalidation",
    DescriptorType.PC_INV: "PASID-cache invalidation",
    DescriptorType.P_DEV_TLB_INV: "PASID-based device-TLB invalidation",
    DescriptorType.PAGE_GRP_RESP: "page group response",
    DescriptorType.HPT_INV: "host-permission-table invalidation",
}
ALL_ONES = 0xF, 0xFFFF
"""Reason and source-id in IQERCD_REG when no unit answers; neither is one that a unit gives."""
_QUEUE_REASONS = {
    InvalidationQueueErrorInfo.INVALID_TAIL: "the tail points outside the queue",
    InvalidationQueueErrorInfo.FETCH_ERROR: "reading a descriptor failed",
    InvalidationQueueErrorInfo.INVALID_TYPE: "a descriptor of an invalid type",
    InvalidationQueueErrorInfo.RESERVED_FIELD: "reserved bits set in a descriptor",
    InvalidationQueueErrorInfo.INVALID_WIDTH: "descriptors of the wrong width for the mode",
    InvalidationQueueErrorInfo.TAIL_MISALIGNED: "the tail is misaligned for the descriptor width",
    InvalidationQueueErrorInfo.INVALID_TRANSLATION_TABLE_MODE: "an invalid table mode",
}


class Descriptor(NamedTuple):
    """An invalidation descriptor of a log."""

    type: DescriptorType | None
    device: SourceId | None
    """The device of a device-TLB invalidation."""

    def __str__(self) -> str:
        name = "descriptor of no known type" if self.type is None else _NAMES[self.type]
        return name if self.device is None else f"{name} for 0000:{self.device}"


def decode_descriptor(low: int, high: int) -> Descriptor:
    """The first 128 bits of a descriptor decoded."""
    raw = high << 64 | low
    try:
        type_ = DescriptorType(DescriptorHead(raw).type)
    except ValueError:
        return Descriptor(None, None)
    device = None
    if DESCRIPTORS[type_] is DeviceTlbInvalidateDescriptor:
        device = SourceId(DeviceTlbInvalidateDescriptor(raw).sid)
    elif DESCRIPTORS[type_] is PasidDeviceTlbInvalidateDescriptor:
        device = SourceId(PasidDeviceTlbInvalidateDescriptor(raw).sid)
    return Descriptor(type_, device)


class QueueError(NamedTuple):
    """What the lines about one stop of the queue tell together."""

    errors: tuple[str, ...]
    register_device: SourceId | None
    """The device that IQERCD_REG names; None where it names none."""
    reason: int | None
    descriptors: tuple[Descriptor, ...]

    @property
    def is_unreachable(self) -> bool:
        """Whether the registers read as all ones, so that nothing in them counts."""
        return self.reason == ALL_ONES[0] or self.register_device == ALL_ONES[1]

    @property
    def device(self) -> SourceId | None:
        """The device that did not answer."""
        if self.is_unreachable:
            return None
        named = [each.device for each in self.descriptors if each.device is not None]
        return self.register_device or (named[0] if named else None)

    @property
    def meaning(self) -> str:
        """In words."""
        if self.is_unreachable:
            return (
                "unit unreachable: its registers read as all ones, so neither errors nor "
                "descriptors nor source-ids in these lines are real"
            )
        what = ", ".join(self.errors) or "a bad descriptor, or no answer of a device"
        text = f"the unit stopped at an invalidation: {what}"
        words = {int(info): words for info, words in _QUEUE_REASONS.items()}.get(self.reason or 0)
        if words:
            text += f" ({words})"
        if self.descriptors:
            text += f"; in the queue: {', '.join(map(str, self.descriptors))}"
        if self.device is not None:
            text += f"; the device is 0000:{self.device}"
        return text

    @property
    def look_at(self) -> str:
        """What to look at."""
        if self.is_unreachable:
            return (
                "what happened just before: a bridge window or BAR set over the registers of the "
                "unit, a reset, a change of power state; firmware updates"
            )
        if self.device is None:
            return "the descriptors printed with it; kernel version"
        device = f"0000:{self.device}"
        return (
            f"{device}: lspci -vvv -s {device}, capability ATS; whether it hangs, sleeps or was "
            "removed"
        )


_ERRORS = {
    "Time-out Error": "an invalidation timed out",
    "Timeout Error": "an invalidation timed out",
    "Queue Error": "the queue met an error",
    "Completion Error": "an invalidation completion was wrong",
    "invalid descriptor": "an invalid descriptor",
}


def read_queue_error(lines: list[str]) -> QueueError:
    """What the lines of a log about one stop of the queue tell."""
    errors: dict[str, None] = {}
    descriptors: dict[Descriptor, None] = {}
    device = reason = None
    for text in lines:
        if "detected" in text:
            errors |= {words: None for word, words in _ERRORS.items() if word in text}
        if (match := _SID.search(text)) and int(match[1], 16):
            device = SourceId(int(match[1], 16))
        if match := _REASON.search(text):
            reason = int(match[1], 16)
        if match := _DESCRIPTOR.search(text):
            descriptors[decode_descriptor(int(match[1], 16), int(match[2], 16))] = None
    return QueueError(tuple(errors), device, reason, tuple(descriptors))
