"""The explanation of a request as rows: structures, steps, and what it comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from devices.dma import READ, WRITE, Completion
from pagetables.bits import BitRecord
from pagetables.walk_explanation import Step
from vtd.inspection.request_explanation import RequestExplanation, StructureRead
from vtd.inspection.sources import KINDS
from vtd.rows import Hex, field_values
from vtd.unit.requests.faults import TranslationFault


@dataclass(frozen=True)
class StructureRow:
    """A structure on the way to the tables; without entry where reading failed."""

    name: str
    address: Hex
    entry: Hex | None
    fields: Mapping[str, int] | None


@dataclass(frozen=True)
class StepRow:
    """A paging entry on the way to the page."""

    level: str
    address: Hex
    host: Hex | None
    entry: Hex | None
    fields: Mapping[str, int] | None
    outcome: str
    reserved: Hex
    """The bits that had to be 0."""
    flags: Hex
    """The flags that the walk sets."""
    second: tuple[StepRow, ...]
    """In a nested walk the second-stage steps from ``address`` to ``host``."""


@dataclass(frozen=True)
class FaultRow:
    """Why a request is blocked."""

    reason: int
    condition: str
    text: str
    recorded: bool


@dataclass(frozen=True)
class AnswerRow:
    """The answer to a translation request."""

    status: str
    entries: tuple[Mapping[str, object], ...]


@dataclass(frozen=True)
class RequestRow:
    """A request, its way, and the memory that it reaches, its answer or its fault."""

    sid: int
    pasid: int | None
    iova: Hex
    access: str
    structures: tuple[StructureRow, ...]
    kind: str | None
    domain_id: int | None
    steps: tuple[StepRow, ...]
    physical: Hex | None
    page_size: int | None
    """In bytes."""
    readable: bool | None
    writable: bool | None
    answer: AnswerRow | None
    fault: FaultRow | None


def request_row(explained: RequestExplanation) -> RequestRow:
    """The row of one explanation."""
    request, reached, target = explained.request, explained.outcome, explained.target
    return RequestRow(
        sid=request.source_id,
        pasid=request.pasid,
        iova=Hex(request.address),
        access={READ: "read", WRITE: "write"}.get(request.access, "atomic"),
        structures=tuple(map(_structure_row, explained.structures)),
        kind=KINDS[target.kind] if target else None,
        domain_id=target.domain_id if target else None,
        steps=tuple(map(_step_row, explained.walk.steps)) if explained.walk else (),
        physical=Hex(reached.physical) if reached else None,
        page_size=reached.length if reached else None,
        readable=bool(reached.rights & READ) if reached else None,
        writable=bool(reached.rights & WRITE) if reached else None,
        answer=_answer_row(explained.answer),
        fault=fault_row(explained.fault),
    )


def fault_row(fault: TranslationFault | None) -> FaultRow | None:
    """The row of a fault, if there is one."""
    if fault is None:
        return None
    return FaultRow(fault.reason, fault.reason.condition, fault.reason.text, fault.recorded)


def _structure_row(read: StructureRead) -> StructureRow:
    return StructureRow(read.name, Hex(read.address), Hex.known(read.record), _fields(read.record))


def _step_row(step: Step) -> StepRow:
    return StepRow(
        level=step.level,
        address=Hex(step.address),
        host=Hex.known(step.host),
        entry=Hex.known(step.entry),
        fields=_fields(step.record),
        outcome=step.outcome.value,
        reserved=Hex(step.reserved),
        flags=Hex(step.flags),
        second=tuple(map(_step_row, step.second)),
    )


def _fields(record: BitRecord | None) -> Mapping[str, int] | None:
    return None if record is None else field_values(record)


def _answer_row(answer: Completion | None) -> AnswerRow | None:
    if answer is None:
        return None
    entries = ({**entry._asdict(), "address": Hex(entry.address)} for entry in answer.entries)
    return AnswerRow(answer.status.name.lower(), tuple(entries))
