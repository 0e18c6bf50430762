"""A judged passthrough plan as a picture: guests, their devices, and what stands against it."""

from __future__ import annotations

from collections.abc import Iterator

from vtd.host.planner import Judgement, Nearest
from vtd.host.rules import Kind
from vtd.host.surroundings import Surroundings
from vtd.host.verdicts import Verdict
from vtd.pictures.canvas import Tone
from vtd.pictures.markup import Markup
from vtd.pictures.tree import Chip, Row, tree_svg

TONES = {
    Kind.CONTRADICTION: Tone.BAD,
    Kind.REFUSED: Tone.BAD,
    Kind.UNKNOWN: Tone.WARN,
    Kind.NOTE: Tone.QUIET,
}


def plan_svg(
    judgement: Judgement, better: Nearest | None, around: Surroundings, *, inline: bool = False
) -> Markup:
    """The plan as SVG."""
    title = "The plan works" if judgement.works else "The plan does not work"
    if judgement.works and judgement.undecided:
        title = "The plan works, as far as is known"
    notes = [] if better is None else ["the nearest plan that works:", *better.changes]
    return tree_svg(title, list(_rows(judgement, around)), notes, inline=inline)


def _rows(judgement: Judgement, around: Surroundings) -> Iterator[Row]:
    costs = {each.guest: each for each in judgement.costs}
    left = list(judgement.verdicts)
    for guest in dict.fromkeys(each.guest for each in judgement.devices):
        cost = costs.get(guest)
        spent = f"{cost.leaves} entries in {cost.tables} tables" if cost else ""
        yield Row(0, guest, spent, (Chip("guest", Tone.NOTE),))
        for device in judgement.devices:
            if device.guest != guest:
                continue
            group = around.group(device.bdf, device.policy.acs_override)
            unit = "no unit" if device.base is None else f"unit {device.base:#x}"
            chips = Chip(unit), Chip(f"group of {len(group)}")
            yield Row(1, device.name, f"{device.bdf}", chips)
            own = [each for each in left if each.subject == device.name]
            yield from (_verdict(each, 2) for each in own)
            left = [each for each in left if each not in own]
    yield from (_verdict(each, 0) for each in left)


def _verdict(each: Verdict, depth: int) -> Row:
    tone = TONES[each.kind]
    chip = Chip(each.kind.value, Tone.PLAIN if tone is Tone.QUIET else tone)
    name = each.rule.id if depth else f"{each.rule.id} {each.subject}"
    return Row(depth, name, "", (chip,), (each.text,), tone)
