"""What lines of a log hold, JSON and descriptors, and what is wrong with one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from pagetables.bits import BitRecord
from pagetables.memory import BusError
from vtd.layouts.descriptors import DESCRIPTORS, DescriptorHead, DescriptorType
from vtd.recordings.values import Json


class AuditLogError(ValueError):
    """A log that can't be read: says which line is wrong, and why."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line}: {why}")
        self.line = line


def parse_line(line: int, text: str) -> Json:
    """The JSON in a line."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AuditLogError(line, f"not JSON: {error}") from error


@contextmanager
def problems_of(line: int) -> Iterator[None]:
    """Wrong or missing fields of a line as an AuditLogError."""
    try:
        yield
    except AuditLogError:
        raise
    except KeyError as error:
        raise AuditLogError(line, f"{error} is missing") from error
    except (ValueError, TypeError, AttributeError, IndexError, BusError) as error:
        raise AuditLogError(line, str(error)) from error


def invalidation(raw: int) -> BitRecord | None:
    """The descriptor if it invalidates something; ValueError if it is too wide."""
    if not 0 <= raw < 1 << 256:
        raise ValueError(f"descriptor: {raw:#x} has not 128 or 256 bits")
    kind = DescriptorHead(raw & (1 << 128) - 1).type
    if kind not in _INVALIDATIONS:
        return None
    return DESCRIPTORS[DescriptorType(kind)](raw)


_INVALIDATIONS = (
    DescriptorType.CC_INV,
    DescriptorType.IOTLB_INV,
    DescriptorType.IEC_INV,
    DescriptorType.P_IOTLB_INV,
    DescriptorType.PC_INV,
    DescriptorType.HPT_INV,
    DescriptorType.DEV_TLB_INV,
    DescriptorType.P_DEV_TLB_INV,
)
