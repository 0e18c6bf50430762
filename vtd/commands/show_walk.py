"""How the explanation of a request looks as text."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from devices.dma import READ, WRITE, AddressType, Completion, Request
from devices.source_id import SourceId
from pagetables.bits import BitRecord
from pagetables.walk_explanation import EntryRole, Step
from vtd.inspection.request_explanation import RequestExplanation
from vtd.inspection.sources import KINDS
from vtd.unit.requests.faults import TranslationFault

NAME_WIDTH = 22


def walk_lines(explained: RequestExplanation) -> Iterator[str]:
    """The request, each structure and entry on its way, and what it comes to."""
    yield request_text(explained.request)
    for each in explained.structures:
        yield _line(1, each.name, each.address, each.record)
    target = explained.target
    if target is not None:
        pasid = f", PASID {target.pasid:#x}" if explained.request.pasid is not None else ""
        yield f"  {KINDS[target.kind]} translation, domain {target.domain_id}{pasid}"
    for step in explained.walk.steps if explained.walk else ():
        yield from _step_lines(step, 1)
    yield f"  => {verdict(explained)}"


def request_text(request: Request) -> str:
    """The request in a few words."""
    what = {READ: "reads", WRITE: "writes"}.get(request.access, "changes atomically")
    if request.address_type is AddressType.TRANSLATION_REQUEST:
        what = "asks for the translation of"
    tags = "" if request.pasid is None else f" with PASID {request.pasid:#x}"
    privileged = ", privileged" if request.privileged else ""
    return f"{SourceId(request.source_id)} {what} {request.address:#x}{tags}{privileged}"


def verdict(explained: RequestExplanation) -> str:
    """Where the request goes, how it is answered, or the fault it meets."""
    if explained.answer is not None:
        return _answer_text(explained.answer, explained.fault)
    if explained.outcome is None:
        assert explained.fault is not None  # one of the two there is
        return fault_text(explained.fault)
    where, length, rights, _ = explained.outcome
    may = ("r" if rights & READ else "-") + ("w" if rights & WRITE else "-")
    return f"allowed: physical address {where:#x}, {may}, page of {_size(length)}"


def _size(length: int) -> str:
    for shift, unit in ((30, "GiB"), (20, "MiB")):
        if length >> shift:
            return f"{length >> shift} {unit}"
    return f"{length >> 10} KiB"


def _answer_text(answer: Completion, fault: TranslationFault | None) -> str:
    met = "" if fault is None else f"; {fault_text(fault).removeprefix('blocked: ')}"
    if not answer.ok:
        return f"answered with {answer.status.name.replace('_', ' ').lower()}{met}"
    entry = answer.entries[0]
    if not (entry.r or entry.w):
        return f"answered: success without permission{met}"
    may = ("r" if entry.r else "-") + ("w" if entry.w else "-") + ("x" if entry.x else "")
    flags = [
        name
        for name, value in (
            ("untranslated access only", entry.u),
            ("non-snooped", entry.n),
            ("privileged", entry.priv),
            ("global", entry.global_),
        )
        if value
    ]
    shown = ", ".join((f"{may}, {_size(entry.size)}", *flags))
    return f"answered: translated address {entry.address:#x}, {shown}"


def fault_text(fault: TranslationFault) -> str:
    """A fault with its code, and whether it is recorded."""
    condition = f" ({fault.reason.condition})" if fault.reason.condition else ""
    recorded = "recorded" if fault.recorded else "not recorded: fault processing is disabled"
    return f"blocked: fault {fault.reason:02X}h{condition}, {fault.reason.text}; {recorded}"


def _step_lines(step: Step, depth: int) -> Iterator[str]:
    for inner in step.second:
        yield from _step_lines(inner, depth + 1)
    address = step.address if step.host is None else step.host
    guest = "" if step.host in (None, step.address) else f" (guest {step.address:#x})"
    yield _line(depth, step.level, address, step.record) + guest
    if step.outcome is EntryRole.TABLE and not step.flags:
        return
    what = step.outcome.value
    if step.reserved:
        what += f": {step.reserved:#x}"
    if step.flags:
        what += f"; sets {_flags(step)}"
    yield f"{'  ' * (depth + 1)}{what}"


def _flags(step: Step) -> str:
    """The flags that a step sets, by name."""
    fields = ((name, getattr(type(step.record), name, None)) for name in ("a", "ea", "d"))
    return " ".join(name.upper() for name, field in fields if field and field.mask & step.flags)


def _line(depth: int, name: str, address: int, record: BitRecord | None) -> str:
    start = f"{'  ' * depth}{name:{NAME_WIDTH}} at {address:#014x}"
    if record is None:
        return f"{start}  can't be read"
    return f"{start}  {_fields(record) or 'all zero'}"


def _fields(record: BitRecord) -> str:
    """The fields that are not 0."""
    return " ".join(f"{name}={_value(value)}" for name, value in record.fields().items() if value)


def _value(value: object) -> str:
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bool):
        return str(int(value))
    return f"{value:#x}" if isinstance(value, int) and value > 9 else str(value)
