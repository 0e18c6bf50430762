"""How the explanation of a request looks as text."""

from __future__ import annotations

from collections.abc import Iterator

from pagetables.bits import BitRecord
from pagetables.walk_explanation import Step
from vtd.inspection.request_explanation import RequestExplanation
from vtd.inspection.request_text import request_text, step_text, verdict
from vtd.inspection.sources import KINDS
from vtd.rows import field_words

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


def _step_lines(step: Step, depth: int) -> Iterator[str]:
    for inner in step.second:
        yield from _step_lines(inner, depth + 1)
    address = step.address if step.host is None else step.host
    guest = "" if step.host in (None, step.address) else f" (guest {step.address:#x})"
    yield _line(depth, step.level, address, step.record) + guest
    what = step_text(step)
    if what:
        yield f"{'  ' * (depth + 1)}{what}"


def _line(depth: int, name: str, address: int, record: BitRecord | None) -> str:
    start = f"{'  ' * depth}{name:{NAME_WIDTH}} at {address:#014x}"
    if record is None:
        return f"{start}  can't be read"
    words = " ".join(f"{name}={text}" for name, text in field_words(record).items())
    return f"{start}  {words or 'all zero'}"
