"""The documentation page of all departures: those that flags follow, and those that none does."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator

from vtd.fuzz.departures import UNFOLLOWED
from vtd.unit.departures import FLAGS, Chapter, Departure, Departures

HEAD = """\
# Known differences to QEMU

This page is written by `python -m scripts.pages`.

The model follows the VT-d specification, Revision 5.10. QEMU's `intel-iommu` (11.1.2, the unit in
which the recorded [vectors](../tests/vectors/FORMAT.md) and [captures](../tests/captures/FORMAT.md)
were made) departs from it in the places below, each of which has a name.

## Choosing departures

A unit has the departures of `Options(departures=...)` (`vtd.unit.departures`): `SPECIFICATION`, the
default, is none, `QEMU` all that have a flag, and `departures_named` takes names:

    Options(departures=departures_named(["ignore_aw_without_ssts", "compress_faults"]))

Commands have `--departures NAME[,NAME...]`, where `qemu` and `specification` stand for all and
none. The head of a scenario and `capture.json` may have `"departures": [NAME, ...]`, or
`"as_recorded": true` for all. `vtd replay` tries a recorded file with what it names first, then
with `QEMU`, and prints which files needed that; files derived from the specification never do.

Linux writes AW = 2 into PASID entries of the first stage, also on a unit without a second stage:
such a unit needs `ignore_aw_without_ssts`, or every DMA meets fault 5Ah.

## What flags follow
"""
CHOICE = """\
## What is a choice, not a departure

The specification leaves it open; everything recorded on QEMU is replayed with it.
"""
OTHERS = """\
## What no flag follows

`scripts/compare_qemu` runs generated table sets and interrupt messages on QEMU 11.1.2 and on the
engine with `QEMU`, which follows it in all that the messages show. A difference counts as known
only if its cause is there (`vtd/fuzz/departures.py`): the structures that the request meets show
it, or the engine agrees with QEMU once the cause is taken out of them, FPD or reserved bits
cleared, say. Everything else is reported as unexplained.
"""


def departures_page() -> str:
    """The page in Markdown."""
    says = _docstrings()
    parts = [HEAD]
    for chapter in Chapter:
        followed = [each for each in FLAGS if each.chapter is chapter and not each.permitted]
        parts.append(f"### {chapter.value}\n\n{_table(FLAG_TITLES, _flag_rows(followed, says))}")
    choices = [each for each in FLAGS if each.permitted]
    parts.append(f"{CHOICE}\n{_table(FLAG_TITLES, _flag_rows(choices, says))}")
    others = (
        (f"`{each.name}`", each.section, each.specified, each.what, each.found)
        for each in UNFOLLOWED
    )
    parts.append(f"{OTHERS}\n{_table(OTHER_TITLES, others)}")
    return "\n".join(parts)


FLAG_TITLES = ("name", "section", "specification", "with the flag", "recorded files that need it")
OTHER_TITLES = ("name", "section", "specification", "QEMU", "how the cause is found")


def _flag_rows(flags: Iterable[Departure], says: dict[str, str]) -> Iterator[tuple[str, ...]]:
    for each in flags:
        files = ", ".join(f"`{name}`" for name in each.needed_by) or "none"
        yield f"`{each.name}`", each.section, each.specified, says[each.name], files


def _docstrings() -> dict[str, str]:
    """What stands below each flag in the source, on one line and without its full stop."""
    (definition,) = ast.parse(inspect.getsource(Departures)).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for declared, below in zip(definition.body, definition.body[1:], strict=False):
        match declared, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=text)):
                found[name] = " ".join(str(text).split()).removesuffix(".")
    return found


def _table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [titles, tuple("---" for _ in titles), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
