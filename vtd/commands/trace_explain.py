"""``vtd trace explain``: one request of a trace, what the caches had for it, and its walk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from vtd.commands.counted import counted
from vtd.commands.design_options import Designs
from vtd.commands.extras import needing
from vtd.commands.option_groups import with_option_groups
from vtd.commands.reading import unusable_input
from vtd.commands.rendering.answer import CommandAnswer, Format, Output
from vtd.commands.rendering.picture import SvgFile, show_or_draw
from vtd.commands.rendering.progress import StatusLine
from vtd.commands.show_walk import walk_lines
from vtd.commands.trace_files import Form, Sort, Source, TraceFile, open_rows
from vtd.inspection.request_picture import request_svg
from vtd.inspection.request_rows import request_row

if TYPE_CHECKING:
    from vtd.batch.columns import Requests
    from vtd.batch.explanation import RowExplanation


@with_option_groups
def explain(
    file: TraceFile,
    row: Annotated[int, typer.Argument(min=0, metavar="ROW", help="Which row, counted from 0.")],
    designs: Designs,
    form: Form = None,
    source: Source = None,
    sort: Sort = False,
    svg: SvgFile = None,
    format: Output = Format.TEXT,
) -> None:
    """Explain one request of a trace: hit or miss, why, and each entry that its walk meets.

    A unit of one design (one value of each option; deferred is none) carries out the rows before
    it. Exit code 0: explained, whether it passed or not. 2: wrong use, or a trace that is wrong.
    """
    with needing("batch", "trace explain"):
        from vtd.sweeps.explaining import explain_trace  # noqa: PLC0415 - needs an extra
        from vtd.traces.text import fields_of  # noqa: PLC0415

        with unusable_input("vtd trace explain"):
            wanted = list(designs.space().designs())
            if len(wanted) > 1:
                raise ValueError(f"{counted(len(wanted), 'design')}: a row is explained for one")
        rows = _rows_until(open_rows(file, form, source, sort=sort), row)
        with unusable_input(file), StatusLine() as status:
            status.show(f"{counted(len(rows), 'row')}: mapped and carried out")
            explained = explain_trace(wanted[0], rows, row)
        told = {"row": row, **fields_of(rows[row])}
    found = {
        **told,
        "hit": explained.entry is not None,
        "status": explained.status.name.lower(),
        "cause": explained.cause,
        "reads": explained.reads,
        "last_use": explained.last_use,
        "pages_since": explained.pages_since,
        "pages_in_set": explained.in_set,
        "software_rows_since": explained.others,
        "request": request_row(explained.request),
    }
    answer = CommandAnswer(found, [found], _lines(explained, row, told["time"]))
    show_or_draw(answer, format, svg, lambda: request_svg(explained.request))


def _rows_until(arrays: Iterator[Requests], last: int) -> Requests:
    """The rows of a trace up to and with one, or all there are."""
    import numpy as np  # noqa: PLC0415 - needs an extra

    from vtd.batch.columns import new_rows  # noqa: PLC0415

    kept, count = [new_rows(0)], 0
    with StatusLine() as status:
        for rows in arrays:
            kept.append(rows[: last + 1 - count])
            count += len(kept[-1])
            status.show(f"{count} rows")
            if count > last:
                break
    arrays.close()  # type: ignore[attr-defined]
    return np.concatenate(kept)


def _lines(explained: RowExplanation, row: int, time: object) -> Iterator[str]:
    yield f"row {row}, {time} ns: {explained.cause}"
    what = {"passed": "passes"}.get(explained.status.name.lower(), explained.status.name.lower())
    yield f"  {what}, {counted(explained.reads, 'entry', 'entries')} read from memory for it"
    yield from walk_lines(explained.request)
