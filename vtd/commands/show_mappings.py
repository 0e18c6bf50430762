"""How what a source may reach looks as text."""

from __future__ import annotations

from collections.abc import Iterator

from devices.source_id import SourceId
from vtd.commands.counted import counted
from vtd.inspection.reach import PageFlags, Reach
from vtd.inspection.request_text import fault_text
from vtd.inspection.sources import Source


def reach_lines(reach: Reach) -> Iterator[str]:
    """A source, its ranges, and what is unusable."""
    source, target = reach.source, reach.source.target
    heading = f"{_name(source)}: {source.kind}"
    if source.fault is not None:
        yield f"{heading}; {fault_text(source.fault)}"
        return
    if target is None:
        yield f"{heading}; no PASID of it is present"
        return
    stages = [
        f"{len(stage.geometry.levels)} levels at {stage.root << 12:#x}"
        for stage in (target.first, target.second)
        if stage is not None
    ]
    size = sum(page.length for page in reach.pages) >> 10
    total = (
        f"{counted(len(reach.pages), 'page')}, {size} KiB" if stages else "every address unchanged"
    )
    yield f"{heading}, domain {target.domain_id}, {' through '.join(stages) or 'no table'}: {total}"
    for each in reach.ranges():
        through = "" if each.guest is None else f" -> {each.guest:#x}"
        where = f"{each.address:#x}-{each.address + each.length - 1:#x}{through}"
        flags = _flags(each.flags, first_stage=target.first is not None)
        yield f"  {where} -> {each.physical:#x} {each.rights}{flags}"
    for start, end, rule in _refused(reach):
        yield f"  {start:#x}-{end - 1:#x} unusable: {rule}"


def _refused(reach: Reach) -> Iterator[tuple[int, int, str]]:
    """What is unusable, as half-open ranges: adjacent parts that break the same rule are one."""
    start = end = 0
    rule = ""
    for part in reach.refused:
        if part.address != end or part.rule.value != rule:
            if rule:
                yield start, end, rule
            start, rule = part.address, part.rule.value
        end = part.address + part.length
    if rule:
        yield start, end, rule


def _name(source: Source) -> str:
    """The requester and its PASID, or the first and the last that are refused alike."""
    last = source.alike - 1
    if source.pasid is None:
        end = f" to {SourceId(source.source_id + last)}" if last else ""
        return f"{source.source_id}{end}"
    end = f" to {source.pasid + last:#x}" if last else ""
    return f"{source.source_id} PASID {source.pasid:#x}{end}"


def _flags(flags: PageFlags, *, first_stage: bool) -> str:
    supervisor = " S" if first_stage and not flags.user else ""
    return supervisor + (" A" if flags.accessed else "") + (" D" if flags.dirty else "")
