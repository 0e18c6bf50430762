"""The section about a log: faults folded and explained, messages with what they mean."""

from __future__ import annotations

from typing import Any

from vtd.logs.context import Context
from vtd.logs.log import Log
from vtd.logs.rows import log_row
from vtd.pictures.canvas import Tone
from vtd.pictures.timeline import Lane, Mark
from vtd.plain import plain
from vtd.report.section import Section, command, counted

WEIGHTS = {"problem": Tone.BAD, "notice": Tone.NOTE, "unknown": Tone.WARN, "normal": Tone.GOOD}
MOST_LINES = 20
"""Lines of one message that are shown; more are counted."""


def log_section(name: str, log: Log, context: Context, options: tuple[str, ...] = ()) -> Section:
    """The section about a log; ``options`` are those that give the command the same context."""
    row = plain(log_row(log, context))
    faults = sum(each["count"] for each in row["faults"])
    messages = [
        {
            **each,
            "tone": WEIGHTS.get(each["weight"], Tone.NOTE),
            "shown": each["lines"][:MOST_LINES],
            "more": max(0, len(each["lines"]) - MOST_LINES),
        }
        for each in row["messages"]
    ]
    problems = sum(each["weight"] == "problem" for each in messages)
    return Section(
        "log",
        "Log",
        name,
        f"{counted(faults, 'fault')}, {counted(problems, 'problem')}, "
        f"{counted(sum(len(each['lines']) for each in messages), 'line')} about remapping",
        Tone.BAD if faults or problems else Tone.GOOD,
        {"faults": row["faults"], "messages": messages},
        (command("explain", name, *options),),
        _lane(name, row),
    )


def _lane(name: str, row: dict[str, Any]) -> Lane:
    marks = [
        Mark(
            each["lines"][0],
            each["lines"][1],
            f"{each['device'] or 'unknown device'}: {each['kind']} blocked, "
            f"{counted(each['count'], 'time')}",
            Tone.BAD,
        )
        for each in row["faults"]
    ]
    marks += [
        Mark(line["line"], line["line"], line["text"], WEIGHTS.get(each["weight"], Tone.NOTE))
        for each in row["messages"]
        if each["weight"] == "problem"
        for line in each["lines"]
        if line["line"]
    ]
    return Lane(name, max((each.last for each in marks), default=1), tuple(marks))
