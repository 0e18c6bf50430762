"""One row of an array, carried out by the unit itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from devices.dma import (
    ATOMIC,
    READ,
    AddressType,
    Completion,
    CompletionStatus,
    Request,
    part_of,
    split_pages,
)
from pagetables.observer import Structure
from vtd.batch.columns import ADDRESS_TYPE_SHIFT, NO_PASID, PRIVILEGED
from vtd.batch.outcomes import Status
from vtd.unit.observer import CacheName, Observer
from vtd.unit.reporting.events import Event, InterruptBlocked, RequestBlocked
from vtd.unit.unit import RemappingUnit

STATUS = {
    CompletionStatus.SUCCESS: Status.ANSWERED,
    CompletionStatus.UNSUPPORTED_REQUEST: Status.REFUSED,
    CompletionStatus.COMPLETER_ABORT: Status.ABORTED,
}


class Steps(Observer):
    """Counts what a request reads, whether the IOTLB decides it, and why it is refused."""

    def __init__(self) -> None:
        self.reads = 0
        self.reason = 0
        self._asked = False

    @property
    def hit(self) -> bool:
        """Whether the IOTLB was asked, and nothing else."""
        return self._asked and not self.reads

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        self.reads += 1

    def asked(self, cache: CacheName, key: Any, entry: object | None) -> None:
        self._asked = cache is CacheName.IOTLB and entry is not None

    def told(self, event: Event) -> None:
        """Of an event of the unit."""
        if isinstance(event, RequestBlocked | InterruptBlocked) and not self.reason:
            self.reason = int(event.reason)


@contextmanager
def watched(unit: RemappingUnit) -> Iterator[Steps]:
    """The steps of what the unit does meanwhile."""
    steps = Steps()
    unit.observe(steps)
    unit.subscribe(steps.told)
    try:
        yield steps
    finally:
        unit.ignore(steps)
        unit.unsubscribe(steps.told)


def request_of(row: Any) -> Request:
    """A row as the unit takes requests; write data are left out, as a trace has none."""
    pasid, attributes = int(row["pasid"]), int(row["attributes"])
    return Request(
        int(row["source_id"]) & 0xFFFF,
        int(row["address"]),
        int(row["access"]),
        int(row["length"]),
        None if pasid == NO_PASID else pasid,
        bool(attributes & PRIVILEGED),
        AddressType(attributes >> ADDRESS_TYPE_SHIFT),
    )


def carry_out(unit: RemappingUnit, row: Any, outcome: Any, done: int = 0) -> None:
    """Carry out a row that is a request, from its byte ``done`` on, and fill in its outcome."""
    request = request_of(row)
    whole = request.access == ATOMIC or request.address_type is AddressType.TRANSLATION_REQUEST
    parts = [(request.address, request.length)] if whole else []
    if not whole and request.well_formed:
        parts = list(split_pages(request.address + done, request.length - done))
    address, status = int(outcome["address"]), int(outcome["status"])
    hit, reads, reason = bool(outcome["hit"]) or not done, int(outcome["reads"]), 0
    if not parts:
        hit, status = False, Status.REFUSED
    for start, size in parts:
        with watched(unit) as steps:
            answer = unit.admit(request if whole else part_of(request, start, size))
        reads, hit = reads + steps.reads, hit and steps.hit
        failed = isinstance(answer, Completion) and not answer.ok
        if isinstance(answer, Completion):
            if not status or (failed and status in (Status.PASSED, Status.ANSWERED)):
                address, status, reason = 0, STATUS[answer.status], steps.reason
        elif not status:
            address, status = answer, Status.PASSED
        if failed and request.access & ATOMIC == READ:
            break
    outcome["address"], outcome["status"] = address, status
    outcome["hit"], outcome["reads"] = hit, reads
    if reason:
        outcome["reason"] = reason
