"""The explanation of a request as a picture: the address cut up, every entry with its bits."""

from __future__ import annotations

from collections.abc import Iterator

from pagetables.bits import BitRecord
from pagetables.geometry import StageKind
from pagetables.walk_explanation import ENTRY_NAMES, EntryRole, Step
from vtd.inspection.request_explanation import RequestExplanation, StructureRead
from vtd.inspection.request_text import request_text, step_text, verdict
from vtd.pictures.canvas import Tone
from vtd.pictures.markup import Markup
from vtd.pictures.walk import Entry, NamedBits, Part, Walk, walk_svg
from vtd.rows import field_words

TABLE_ENTRY = 64
"""Bits of a paging entry."""


def request_svg(explained: RequestExplanation, *, inline: bool = False) -> Markup:
    """The explanation as SVG."""
    return walk_svg(request_walk(explained), inline=inline)


def request_walk(explained: RequestExplanation) -> Walk:
    """What there is to draw of an explanation."""
    steps = explained.walk.steps if explained.walk else ()
    entries = [_structure(each) for each in explained.structures]
    nested = any(each.second for each in steps)
    own = [each for each in steps if not nested or each.kind is StageKind.FIRST]
    answered = explained.answer is not None and explained.answer.ok
    good = explained.fault is None and (explained.outcome is not None or answered)
    entries += (_step(each, ends=good and not nested) for each in own)
    page = tuple(_step(each, ends=good) for each in steps if each not in own)
    if page:
        # the page's own address is walked last: its entries lead to the memory, not to a table
        entries.append(page[-1]._replace(way=page[:-1]))
    return Walk(
        request_text(explained.request),
        tuple(_parts(explained, own)),
        tuple(entries),
        verdict(explained),
        Tone.GOOD if good else Tone.BAD,
    )


def _parts(explained: RequestExplanation, steps: list[Step]) -> Iterator[Part]:
    """The numbers in the address that select the entries, and the rest."""
    address, shift = explained.request.address, 64
    shifts = {name: shift for shift, name in ENTRY_NAMES.items()}
    for step in steps:
        name = step.level.partition("-")[2]
        shift = shifts[name]
        yield Part(name, f"{address >> shift & 0x1FF:#x}")
    if steps:
        yield Part("offset", f"{address & (1 << shift) - 1:#x}")


def _structure(read: StructureRead) -> Entry:
    record = read.record
    return Entry(
        read.name,
        f"{read.address:#x}",
        None if record is None else int(record),
        TABLE_ENTRY if record is None else record.WIDTH,
        _bits(record),
        tone=Tone.BAD if record is None else Tone.PLAIN,
    )


def _step(step: Step, *, ends: bool = False) -> Entry:
    """An entry; ``ends`` if one that maps a page is where the request gets through."""
    failed = not isinstance(step.outcome, EntryRole)
    tone = Tone.GOOD if ends and step.outcome is EntryRole.PAGE else Tone.PLAIN
    if failed:
        tone = Tone.BAD
    guest = "" if step.host in (None, step.address) else f" (guest {step.address:#x})"
    address = step.address if step.host is None else step.host
    return Entry(
        step.level,
        f"{address:#x}{guest}",
        step.entry,
        TABLE_ENTRY,
        _bits(step.record),
        step_text(step),
        tone,
        tuple(map(_step, step.second)),
    )


def _bits(record: BitRecord | None) -> tuple[NamedBits, ...]:
    if record is None:
        return ()
    fields = type(record).FIELDS
    return tuple(
        NamedBits(name, fields[name].high, fields[name].low, text)
        for name, text in field_words(record).items()
    )
