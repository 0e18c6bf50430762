"""Live recordings of units (format ``live-1``) as rows: requests, and what software invalidated.

The recording is replayed, so that invalidations are known by what they cover; each concerns the
requesters that were seen in its domain. A recording has no clock: each of its lines is 1 us.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from devices.dma import AddressType, Request
from pagetables.bits import BitRecord
from vtd.batch.columns import ADDRESS_TYPE_SHIFT, NO_PASID, ONLY_LEAVES, PRIVILEGED, RowKind
from vtd.layouts.descriptors import IotlbInvalidateDescriptor, PasidIotlbInvalidateDescriptor
from vtd.layouts.registers import IotlbInvalidate
from vtd.recordings.live import open_live_file
from vtd.recordings.live_lines import PageRequested, Tagged
from vtd.recordings.replay_live import LiveRun
from vtd.traces.rows import TraceRow
from vtd.unit.caching.iotlb import IotlbEntry
from vtd.unit.observer import Observer

LINE = 1000
"""Nanoseconds from line to line."""
LONGEST = 0xFFFF_F000
Owner = tuple[int, int]
"""Source-id and PASID."""


@dataclass
class _Watcher(Observer):
    """What happened in one unit since it was asked last."""

    members: dict[int, set[Owner]] = field(default_factory=dict)
    pending: list[tuple[Owner, int, int, int]] = field(default_factory=list)
    """Owner, address, length and attributes of invalidations."""

    def found(self, request: Request, entry: IotlbEntry) -> None:
        owner = request.source_id, NO_PASID if request.pasid is None else request.pasid
        self.members.setdefault(entry.tags.domain_id, set()).add(owner)

    def invalidated(self, command: BitRecord) -> None:
        domain: int | None = None
        pages: IotlbInvalidateDescriptor | PasidIotlbInvalidateDescriptor | None = None
        pasid, address, length, attributes = None, 0, 0, 0
        match command:
            case IotlbInvalidateDescriptor(g=granularity):
                domain = None if granularity == 1 else command.did
                pages = command if granularity == 3 else None
            case PasidIotlbInvalidateDescriptor(g=granularity):
                domain, pasid = command.did, command.pasid
                pages = command if granularity == 3 else None
            case IotlbInvalidate():  # by register; of a page, all of its domain
                domain = None if command.iirg == 1 else command.did
            case _:
                return
        if pages is not None:
            address = pages.addr & -1 << 12 + pages.am
            length = min(1 << 12 + pages.am, LONGEST)
            attributes = ONLY_LEAVES if pages.ih else 0
        owners = self.members if domain is None else {domain: self.members.get(domain, set())}
        for each in owners.values():
            self.pending += [
                (owner, address, length, attributes)
                for owner in sorted(each)
                if pasid is None or owner[1] in (pasid, NO_PASID)
            ]


def read(path: Path) -> Iterator[TraceRow]:
    """The rows of a recording; ScenarioError for a line that is not as the format says."""
    with open_live_file(path) as (head, lines):
        run = LiveRun(head)
        watchers = [_Watcher() for _ in run.units]
        for unit, watcher in zip(run.units, watchers, strict=True):
            unit.observe(watcher)
        for number, line in lines:
            time = number * LINE
            if isinstance(line, PageRequested):
                target = line.physical or 0
                yield TraceRow(
                    time, line.address, target, 1, source_id=line.source_id, access=line.access
                )
            elif isinstance(line, Tagged):
                yield _request_row(time, line.request)
            for _ in run.carry_out(line):
                pass
            for watcher in watchers:
                for (source_id, pasid), address, length, attributes in watcher.pending:
                    yield TraceRow(
                        time,
                        address,
                        0,
                        length,
                        pasid,
                        source_id,
                        RowKind.INVALIDATE,
                        0,
                        attributes,
                    )
                watcher.pending.clear()


def _request_row(time: int, request: Request) -> TraceRow:
    address_type = request.address_type or AddressType(0)
    return TraceRow(
        time,
        request.address,
        0,
        request.length,
        NO_PASID if request.pasid is None else request.pasid,
        request.source_id,
        RowKind.DMA,
        request.access,
        int(address_type) << ADDRESS_TYPE_SHIFT | (PRIVILEGED if request.privileged else 0),
    )
