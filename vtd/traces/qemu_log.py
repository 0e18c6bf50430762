"""QEMU's trace lines (``-trace 'vtd_*'``) and HyperSIO's logs, as rows.

A request is a line ``vtd_iotlb_page_hit`` or ``vtd_iotlb_page_update``, or a ``vtd_dmar_translate``
that neither stands before. HyperSIO's QEMU prints a level or a mask in the first two. Lines do not
say what a request does: it reads, 1 byte. An invalidation is a descriptor, or without that a line
that tells what it asks for; it concerns the requesters that were seen in its domain. Time is that
of the lines (``-msg timestamp=on``: seconds, or a date from QEMU 11 on); without, a line is 1 ns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from devices.source_id import SourceId
from vtd.batch.columns import ONLY_LEAVES, RowKind
from vtd.layouts.descriptors import (
    DescriptorType,
    IotlbInvalidateDescriptor,
    PasidIotlbGranularity,
    PasidIotlbInvalidateDescriptor,
    type_of,
)
from vtd.layouts.registers import IotlbGranularity
from vtd.traces.rows import TraceError, TraceRow

_H = "0x([0-9a-fA-F]+)"
_SECONDS = r"\d+@(?P<seconds>\d+)\.(?P<fraction>\d{6}):"
_DATE = r"(?P<date>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) "
_TIME = re.compile(f"{_SECONDS}|{_DATE}")
_POINT = re.compile(f"(?:{_TIME.pattern})?vtd_[a-z]")
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00Z")
_PAGE = re.compile(
    rf"vtd_iotlb_page_(?:hit|update) .*?sid {_H} iova {_H}(?: pmask {_H})? slpte {_H}"
    rf"(?: level {_H})? domain {_H}"
)
_TRANSLATED = re.compile(
    rf"vtd_dmar_translate dev ([0-9a-fA-F]+):([0-9a-fA-F]+)\.([0-9a-fA-F]+) iova {_H} -> gpa {_H}"
)
_PAGES = re.compile(rf"vtd_inv_desc_iotlb_pages .*?domain {_H} addr {_H} mask {_H}")
_DOMAIN = re.compile(rf"vtd_inv_desc_iotlb_domain .*?domain {_H}")
_GLOBAL = re.compile(r"vtd_inv_desc_iotlb_global")
_DESCRIPTOR = re.compile(rf"vtd_inv_desc invalidate desc type (?:p-)?iotlb.* high {_H} low {_H}")
ADDRESS = 0x000F_FFFF_FFFF_F000
"""Bits of an entry that are an address."""


class _Invalidation(NamedTuple):
    domain: int | None = None
    """None: every one."""
    address: int = 0
    length: int = 0
    """0: all of it."""
    attributes: int = 0


def recognizes(line: str) -> bool:
    """Whether a line is one of these, if only of what is passed over."""
    known = "vtd_iotlb_page_" in line or "vtd_dmar_translate" in line
    return known or _POINT.match(line) is not None


def read(lines: Iterable[tuple[int, str]]) -> Iterator[TraceRow]:
    """The rows of numbered lines; other trace points are passed over."""
    time, start = -1, None
    members: dict[int, set[int]] = {}
    shown: int | None = None
    described = False
    for number, line in lines:
        if "vtd_" not in line:
            continue
        stamp = _TIME.match(line)
        if stamp:
            now = _nanoseconds(stamp, number)
            start = now if start is None else start
            if now < start:
                raise TraceError(f"line {number}, column time: before the first line")
            time = now - start
        else:
            time += 1
        if found := _PAGE.search(line):
            source, address, _, entry, _, domain = found.groups()
            members.setdefault(int(domain, 16), set()).add(int(source, 16) & 0xFFFF)
            shown = int(address, 16)
            target = int(entry, 16) & ADDRESS
            yield TraceRow(time, shown, target, 1, source_id=int(source, 16) & 0xFFFF)
        elif found := _TRANSLATED.search(line):
            bus, device, function, address, target = (int(each, 16) for each in found.groups())
            if address != shown:
                try:
                    source_id = SourceId.of(bus, device, function)
                except ValueError as error:
                    raise TraceError(f"line {number}, column source_id: {error}") from error
                yield TraceRow(time, address, target, 1, source_id=source_id)
            shown = None
        elif found := _DESCRIPTOR.search(line):
            described = True
            high, low = int(found[1], 16), int(found[2], 16)
            yield from _removals(time, _of_descriptor(high << 64 | low), members)
        elif invalidation := _taken_apart(line):
            if not described:
                yield from _removals(time, invalidation, members)
            described = False


def _nanoseconds(stamp: re.Match[str], number: int) -> int:
    """The time that line ``number`` begins with, since 1970."""
    if stamp["date"] is None:
        return (int(stamp["seconds"]) * 1_000_000 + int(stamp["fraction"])) * 1000
    try:
        since = datetime.fromisoformat(stamp["date"]) - _EPOCH
    except ValueError as error:
        raise TraceError(f"line {number}, column time: {error}") from error
    return since // timedelta(microseconds=1) * 1000


def _removals(
    time: int, invalidation: _Invalidation | None, members: dict[int, set[int]]
) -> Iterator[TraceRow]:
    """A row for each requester seen in the domain."""
    if invalidation is None:
        return
    domain, address, length, attributes = invalidation
    seen = members.get(domain, set()) if domain is not None else set().union(*members.values())
    for source in sorted(seen):
        yield TraceRow(
            time,
            address,
            length=length,
            source_id=source,
            kind=RowKind.INVALIDATE,
            access=0,
            attributes=attributes,
        )


def _of_descriptor(data: int) -> _Invalidation | None:
    """What iotlb_inv_dsc or p_iotlb_inv_dsc removes (6.5.2.3, 6.5.2.4); None if nothing."""
    by_pasid = type_of(data) == DescriptorType.P_IOTLB_INV
    record = (PasidIotlbInvalidateDescriptor if by_pasid else IotlbInvalidateDescriptor)(data)
    match record.g:
        case IotlbGranularity.GLOBAL if not by_pasid:
            return _Invalidation()
        case IotlbGranularity.DOMAIN | PasidIotlbGranularity.PASID:
            return _Invalidation(record.did)
        case IotlbGranularity.PAGE_IN_DOMAIN | PasidIotlbGranularity.PAGE_IN_PASID:
            return _pages(record.did, record.addr, record.am, ONLY_LEAVES if record.ih else 0)
    return None


def _taken_apart(line: str) -> _Invalidation | None:
    """What a line tells of a descriptor; it does not tell IH."""
    if found := _PAGES.search(line):
        return _pages(*(int(each, 16) for each in found.groups()))
    if found := _DOMAIN.search(line):
        return _Invalidation(int(found[1], 16))
    return _Invalidation() if _GLOBAL.search(line) else None


def _pages(domain: int, address: int, mask: int, attributes: int = 0) -> _Invalidation:
    return _Invalidation(domain, address & ~0xFFF, 0x1000 << min(mask, 19), attributes)
