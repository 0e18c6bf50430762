"""A request, what it comes to, and its fault in a few words."""

from __future__ import annotations

from devices.dma import READ, WRITE, AddressType, Completion, Request
from devices.source_id import SourceId
from pagetables.walk_explanation import EntryRole, Step
from vtd.inspection.request_explanation import RequestExplanation
from vtd.unit.requests.faults import TranslationFault


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


def fault_text(fault: TranslationFault) -> str:
    """A fault with its code, and whether it is recorded."""
    condition = f" ({fault.reason.condition})" if fault.reason.condition else ""
    recorded = "recorded" if fault.recorded else "not recorded: fault processing is disabled"
    return f"blocked: fault {fault.reason:02X}h{condition}, {fault.reason.text}; {recorded}"


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


def step_text(step: Step) -> str:
    """What a paging entry comes to; empty for a mere pointer to the next table."""
    if step.outcome is EntryRole.TABLE and not step.flags:
        return ""
    what = step.outcome.value
    if step.reserved:
        what += f": {step.reserved:#x}"
    return f"{what}; sets {_flags(step)}" if step.flags else what


def _flags(step: Step) -> str:
    """The flags that a step sets, by name."""
    fields = ((name, getattr(type(step.record), name, None)) for name in ("a", "ea", "d"))
    return " ".join(name.upper() for name, field in fields if field and field.mask & step.flags)
